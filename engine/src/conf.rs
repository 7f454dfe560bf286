//! Settings of a session, by the names that users of the model know.

use highwater_query::{Conf, Functions, Plan, WatermarkPolicy};

use crate::catalog::{Names, Views};
use crate::error::Error;
use crate::options::Options;
use crate::session::{Session, read, write};
use crate::spill;
use crate::statement::Outcome;

/// One setting.
struct Setting {
    key: &'static str,
    get: fn(&Conf) -> String,
    /// False if it cannot have this value.
    set: fn(&mut Conf, &str) -> bool,
    values: &'static str,
}

/// A setting of the model's that changes no answer, and nothing at all here: a program that gives it need not be changed.
struct Inert {
    key: &'static str,
    default: &'static str,
    fits: fn(&str) -> bool,
    values: &'static str,
    /// Why it has no effect.
    because: &'static str,
}

const INERT: [Inert; 7] = [
    Inert {
        key: "spark.sql.adaptive.enabled",
        default: "true",
        fits: is_bool,
        values: TRUE_OR_FALSE,
        because: "plans of streams do not change while they run",
    },
    Inert {
        key: "spark.sql.shuffle.partitions",
        default: "200",
        fits: |value| value.parse::<u32>().is_ok_and(|count| count > 0),
        values: "a number of partitions, 1 or more",
        because: "rows are spread over the workers",
    },
    Inert {
        key: "spark.sql.streaming.schemaInference",
        default: "false",
        fits: |value| value.eq_ignore_ascii_case("false"),
        values: "false",
        because: "files that are read as a stream need a schema",
    },
    Inert {
        key: "spark.sql.streaming.stateStore.providerClass",
        default: "org.apache.spark.sql.execution.streaming.state.HDFSBackedStateStoreProvider",
        fits: |value| value.ends_with("StateStoreProvider"),
        values: "the name of a class that ends with StateStoreProvider",
        because: "state has one form",
    },
    Inert {
        key: "spark.sql.streaming.statefulOperator.checkCorrectness.enabled",
        default: "true",
        fits: is_bool,
        values: TRUE_OR_FALSE,
        because: "chains of operators with state are answered, or refused if they cannot be",
    },
    Inert {
        key: "spark.sql.streaming.stopTimeout",
        default: "0",
        fits: |value| milliseconds(value) == Some(0),
        values: "0",
        because: "stop() waits until the query has stopped",
    },
    Inert {
        key: "spark.sql.streaming.unsupportedOperationCheck",
        default: "true",
        fits: is_bool,
        values: TRUE_OR_FALSE,
        because: "what has an answer is answered, and nothing else runs",
    },
];

const TRUE_OR_FALSE: &str = "true or false";

fn is_bool(value: &str) -> bool {
    value.to_lowercase().parse::<bool>().is_ok()
}

impl Inert {
    fn change(&self, conf: &mut Conf, value: &str) -> Result<(), Error> {
        let value = value.trim();
        if !(self.fits)(value) {
            let values = format!("{} ({})", self.values, self.because);
            return Err(impossible(self.key, value, &values));
        }
        conf.inert.insert(self.key, value.to_string());
        Ok(())
    }

    fn get(&self, conf: &Conf) -> String {
        let given = conf.inert.get(self.key).map(String::as_str);
        given.unwrap_or(self.default).to_string()
    }
}

const SETTINGS: [Setting; 9] = [
    Setting {
        key: "spark.sql.ansi.enabled",
        get: |conf| conf.ansi.to_string(),
        set: |conf, value| {
            let parsed = value.to_lowercase().parse();
            conf.ansi = parsed.clone().unwrap_or(conf.ansi);
            parsed.is_ok()
        },
        values: TRUE_OR_FALSE,
    },
    Setting {
        key: "highwater.streaming.idleTimeout",
        get: |conf| conf.idle_timeout_ms.to_string(),
        set: |conf, value| {
            let parsed = milliseconds(value);
            conf.idle_timeout_ms = parsed.unwrap_or(conf.idle_timeout_ms);
            parsed.is_some()
        },
        values: "a number of milliseconds, or a time such as 30s; 0 means never",
    },
    Setting {
        key: "spark.sql.autoBroadcastJoinThreshold",
        get: |conf| conf.broadcast_max.to_string(),
        set: |conf, value| {
            let parsed = match value.trim() {
                "-1" => Some(-1),
                size if size.ends_with('%') => None,
                size => spill::parse_bytes(size, 0).and_then(|bytes| bytes.try_into().ok()),
            };
            conf.broadcast_max = parsed.unwrap_or(conf.broadcast_max);
            parsed.is_some()
        },
        values: "a number of bytes, a size such as 10MB, or -1",
    },
    Setting {
        key: "spark.sql.caseSensitive",
        get: |conf| conf.case_sensitive.to_string(),
        set: |conf, value| {
            let parsed = value.to_lowercase().parse();
            conf.case_sensitive = parsed.clone().unwrap_or(conf.case_sensitive);
            parsed.is_ok()
        },
        values: TRUE_OR_FALSE,
    },
    Setting {
        key: "spark.sql.session.timeZone",
        get: |conf| conf.time_zone.clone(),
        set: |conf, value| {
            conf.time_zone = value.to_string();
            let (views, functions) = (Views::default(), Functions::default());
            Names::new(&views, &functions, conf)
                .resolve(&Plan::OneRow)
                .is_ok()
        },
        values: "a time zone, such as Europe/Vienna or +02:00",
    },
    Setting {
        key: "spark.sql.streaming.multipleWatermarkPolicy",
        get: |conf| match conf.watermark_policy {
            WatermarkPolicy::Min => "min".into(),
            WatermarkPolicy::Max => "max".into(),
        },
        set: |conf, value| {
            conf.watermark_policy = match value.to_lowercase().as_str() {
                "min" => WatermarkPolicy::Min,
                "max" => WatermarkPolicy::Max,
                _ => return false,
            };
            true
        },
        values: "min or max",
    },
    Setting {
        key: "spark.sql.streaming.noDataProgressEventInterval",
        get: |conf| conf.idle_event_ms.to_string(),
        set: |conf, value| {
            let parsed = milliseconds(value);
            conf.idle_event_ms = parsed.unwrap_or(conf.idle_event_ms);
            parsed.is_some()
        },
        values: "a number of milliseconds, or a time such as 10s",
    },
    Setting {
        key: "spark.sql.streaming.numRecentProgressUpdates",
        get: |conf| conf.progress_reports.to_string(),
        set: |conf, value| {
            let parsed = value.trim().parse();
            conf.progress_reports = parsed.clone().unwrap_or(conf.progress_reports);
            parsed.is_ok()
        },
        values: "a number of reports",
    },
    Setting {
        key: "spark.sql.streaming.noDataMicroBatches.enabled",
        get: |conf| conf.no_data_epochs.to_string(),
        set: |conf, value| {
            let parsed = value.to_lowercase().parse();
            conf.no_data_epochs = parsed.clone().unwrap_or(conf.no_data_epochs);
            parsed.is_ok()
        },
        values: TRUE_OR_FALSE,
    },
];

impl Setting {
    fn change(&self, conf: &mut Conf, value: &str) -> Result<(), Error> {
        match (self.set)(conf, value) {
            true => Ok(()),
            false => Err(impossible(self.key, value, self.values)),
        }
    }
}

fn impossible(key: &str, value: &str, values: &str) -> Error {
    Error::Refused {
        class: None,
        message: format!("setting \"{key}\" cannot be \"{value}\"; it is {values}"),
    }
}

/// The names of all settings that may change while a session lives.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    let inert = INERT.iter().map(|setting| setting.key);
    SETTINGS.iter().map(|setting| setting.key).chain(inert)
}

/// What a session begins with, out of `settings`.
pub(crate) fn take_conf(settings: &mut Options) -> Result<Conf, Error> {
    let mut conf = Conf::default();
    for setting in &SETTINGS {
        if let Some(value) = settings.take(setting.key) {
            setting.change(&mut conf, &value)?;
        }
    }
    for setting in &INERT {
        if let Some(value) = settings.take(setting.key) {
            setting.change(&mut conf, &value)?;
        }
    }
    Ok(conf)
}

/// A time as the model's settings write it: a number of milliseconds, or one with a unit behind it.
fn milliseconds(text: &str) -> Option<u64> {
    let text = text.trim().to_lowercase();
    let digits = text.find(|c: char| !c.is_ascii_digit());
    let (number, unit) = text.split_at(digits.unwrap_or(text.len()));
    let number: u64 = number.parse().ok()?;
    let unit_ms = match unit.trim() {
        "" | "ms" => 1,
        "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(unit_ms)
}

impl Session {
    /// Changes a setting of the session. Queries that run already keep theirs.
    pub fn set_conf(&self, key: &str, value: &str) -> Result<(), Error> {
        let mut conf = read(&self.inner.conf).clone();
        match inert(key) {
            Some(inert) => inert.change(&mut conf, value)?,
            None => setting(key)?.change(&mut conf, value)?,
        }
        *write(&self.inner.conf) = conf;
        Ok(())
    }

    /// A setting of the session.
    pub fn conf(&self, key: &str) -> Result<String, Error> {
        let conf = read(&self.inner.conf);
        match inert(key) {
            Some(inert) => Ok(inert.get(&conf)),
            None => Ok((setting(key)?.get)(&conf)),
        }
    }

    /// `SET`, in each of its forms.
    pub(crate) fn setting(
        &self,
        key: Option<String>,
        value: Option<String>,
    ) -> Result<Outcome, Error> {
        if let (Some(key), Some(value)) = (&key, &value) {
            self.set_conf(key, value)?;
            return Ok(Outcome::Done);
        }
        let keys: Vec<String> = match key {
            Some(key) => match inert(&key) {
                Some(inert) => vec![inert.key.to_string()],
                None => vec![setting(&key)?.key.to_string()],
            },
            None => names().map(str::to_string).collect(),
        };
        let values: Result<Vec<String>, Error> = keys.iter().map(|key| self.conf(key)).collect();
        self.answer(&[("key", keys), ("value", values?)])
    }
}

fn inert(key: &str) -> Option<&'static Inert> {
    INERT.iter().find(|s| s.key.eq_ignore_ascii_case(key))
}

fn setting(key: &str) -> Result<&'static Setting, Error> {
    let found = SETTINGS.iter().find(|s| s.key.eq_ignore_ascii_case(key));
    found.ok_or_else(|| {
        let known: Vec<&str> = names().collect();
        let message = match spill::SETTINGS.iter().any(|s| s.eq_ignore_ascii_case(key)) {
            true => format!(
                "setting \"{key}\" holds for the life of a session: give it at its start, with --conf {key}=VALUE or \
                 .conf(\"{key}\", ..)"
            ),
            false => format!(
                "there is no setting \"{key}\"; there are {}",
                known.join(", ")
            ),
        };
        Error::Refused {
            class: None,
            message,
        }
    })
}
