//! Stores that the URL of a checkpoint names by itself: S3, Azure and Google Cloud, with what their own programs read
//! from the environment (`AWS_ACCESS_KEY_ID`, `AWS_REGION`, `AWS_ENDPOINT`, `AZURE_STORAGE_ACCOUNT_KEY`,
//! `GOOGLE_SERVICE_ACCOUNT`, ...).

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::{BackoffConfig, ClientConfigKey, ObjectStore, Result, RetryConfig};

use crate::error::error_chain;

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
            .with_config(
                AmazonS3ConfigKey::Client(ClientConfigKey::Timeout),
                request_timeout("AWS"),
            )
            .with_url(root)
            .with_retry(retry())
            .build()
            .map(|store| Arc::new(store) as Arc<dyn ObjectStore>),
        "gs" => GoogleCloudStorageBuilder::from_env()
            .with_config(
                GoogleConfigKey::Client(ClientConfigKey::Timeout),
                request_timeout("GOOGLE"),
            )
            .with_url(root)
            .with_retry(retry())
            .build()
            .map(|store| Arc::new(store) as Arc<dyn ObjectStore>),
        _ => MicrosoftAzureBuilder::from_env()
            .with_config(
                AzureConfigKey::Client(ClientConfigKey::Timeout),
                request_timeout("AZURE"),
            )
            .with_url(root)
            .with_retry(retry())
            .build()
            .map(|store| Arc::new(store) as Arc<dyn ObjectStore>),
    })
}

/// A request that takes longer counts as lost, unless the environment says otherwise. The largest carry a part of a file
/// (see `objects`).
fn request_timeout(cloud: &str) -> String {
    std::env::var(format!("{cloud}_TIMEOUT")).unwrap_or_else(|_| "25 seconds".into())
}

/// Some trouble passes unseen; then a query would rather say what is wrong (the crate's own three minutes look like a
/// query that hangs). A request may take so long itself that none begins again after twenty seconds.
fn retry() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig {
            max_backoff: Duration::from_secs(5),
            ..BackoffConfig::default()
        },
        max_retries: 10,
        retry_timeout: Duration::from_secs(20),
    }
}

/// Where a cloud's machines are told who they are. Whoever is sent there has named nobody.
const INSTANCE_METADATA: [&str; 3] = [
    "169.254.169.254",
    "169.254.170.2",
    "metadata.google.internal",
];

/// What is wrong with a store, in one line, and what to do about it where that is known.
pub(super) fn told(error: object_store::Error) -> io::Error {
    let kind = match &error {
        object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. } => {
            ErrorKind::AlreadyExists
        }
        object_store::Error::NotFound { .. } => ErrorKind::NotFound,
        _ => ErrorKind::Other,
    };
    let text = error_chain(&error);
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    let cause = if says(&[
        "NoSuchBucket",
        "ContainerNotFound",
        "specified bucket does not exist",
    ]) {
        // An object that is missing is no trouble; a bucket is.
        let text = format!("the bucket does not exist: create it, or correct the URL ({text})");
        return io::Error::other(text);
    } else if says(&INSTANCE_METADATA) {
        "no credentials are given: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or those of the other cloud) in \
         the environment, or run on a machine of the cloud that has some"
    } else if says(&["URL scheme is not allowed"]) {
        "the endpoint is not https: set AWS_ALLOW_HTTP=true if that is meant"
    } else {
        return io::Error::new(kind, text);
    };
    io::Error::new(kind, format!("{cause} ({text})"))
}
