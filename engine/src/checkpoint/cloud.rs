//! Stores that the URL of a checkpoint names by itself: S3, Azure and Google Cloud, with what their own programs read
//! from the environment (`AWS_ACCESS_KEY_ID`, `AWS_REGION`, `AWS_ENDPOINT`, `AZURE_STORAGE_ACCOUNT_KEY`,
//! `GOOGLE_SERVICE_ACCOUNT`, ...).

use std::sync::Arc;
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::{BackoffConfig, ObjectStore, Result, RetryConfig};

/// The schemes that [`open`] knows.
pub(super) const SCHEMES: [&str; 7] = ["s3", "s3a", "az", "adl", "abfs", "abfss", "gs"];

/// The store of a bucket (`s3://bucket`), if its scheme is one of a cloud's.
pub(super) fn open(root: &str) -> Option<Result<Arc<dyn ObjectStore>>> {
    let (scheme, _) = root.split_once("://")?;
    if !SCHEMES.contains(&scheme) {
        return None;
    }
    Some(match scheme {
        "s3" | "s3a" => AmazonS3Builder::from_env()
            .with_url(root)
            .with_retry(retry())
            .build()
            .map(|store| Arc::new(store) as Arc<dyn ObjectStore>),
        "gs" => GoogleCloudStorageBuilder::from_env()
            .with_url(root)
            .with_retry(retry())
            .build()
            .map(|store| Arc::new(store) as Arc<dyn ObjectStore>),
        _ => MicrosoftAzureBuilder::from_env()
            .with_url(root)
            .with_retry(retry())
            .build()
            .map(|store| Arc::new(store) as Arc<dyn ObjectStore>),
    })
}

/// Half a minute of trouble passes unseen; after that a query would rather say what is wrong (the crate's own three
/// minutes look like a query that hangs).
fn retry() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig {
            max_backoff: Duration::from_secs(5),
            ..BackoffConfig::default()
        },
        max_retries: 10,
        retry_timeout: Duration::from_secs(30),
    }
}
