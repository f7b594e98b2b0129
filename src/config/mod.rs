//! Config: file, environment and flags, composed into one checked `Config`.
//!
//! A flag wins over the environment, the environment over the file, the file over the default. Everything that is wrong
//! is reported at once, with its place, its origin and what to write instead; no value of a secret is ever repeated.
//! Connects to nothing. Settings structs live beside what they steer; here they are filled in.

mod actor;
mod build;
mod env;
mod file;
mod origin;
mod units;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

pub use env::Environment;
pub use origin::Origin;

use crate::error::Code;
use crate::ledger::LedgerUrl;
use crate::model::retention::RetentionPolicy;
use crate::run::record::SigningSettings;
use crate::secret::SecretSource;
use crate::source::QueueSettings;
use crate::store::settings::StoreSettings;
use crate::telemetry::TelemetrySettings;
use crate::veriff::settings::IntegrationSettings;

/// The name of the integration that needs no file: three variables make it.
pub const DEFAULT_INTEGRATION: &str = "default";

/// The address of the default integration.
pub const BASE_URL_VARIABLE: &str = "VERIFF_BASE_URL";

/// The API key of the default integration.
pub const API_KEY_VARIABLE: &str = "VERIFF_API_KEY";

/// The shared secret of the default integration.
pub const SHARED_SECRET_VARIABLE: &str = "VERIFF_SHARED_SECRET";

/// All settings, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// The Veriff integrations by name. Their secrets may still be missing, see [`Config::require_integrations`].
    pub integrations: BTreeMap<String, IntegrationSettings>,
    /// Where the archive is kept; commands that need it say so through [`Config::require_store`].
    pub store: Option<StoreSettings>,
    /// How long and how strictly it is kept.
    pub retention: RetentionPolicy,
    /// Where the ledger is.
    pub ledger_url: LedgerUrl,
    /// How a queue is asked.
    pub queue: QueueSettings,
    /// The bounds of this process.
    pub limits: Limits,
    /// Where the numbers of a run go.
    pub telemetry: TelemetrySettings,
    /// How run records are signed.
    pub signing: SigningSettings,
    /// Who runs this, as the host says: `user@host`, or the pod.
    pub actor: String,
    /// What is allowed, and worth a second look.
    pub warnings: Vec<String>,
    shown: Vec<ShownValue>,
}

/// The bounds of one process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Memory that may be used.
    pub memory_bytes: u64,
    /// How many sessions are worked on at once.
    pub sessions_in_flight: usize,
    /// A media item over this fails.
    pub max_media_size_bytes: u64,
    /// How often one request is tried in all.
    pub tries: u32,
    /// A run ends after this long without a good answer.
    pub no_progress: Duration,
    /// How long a session of a queue or the backlog may be held without renewing.
    pub lease: Duration,
    /// A pending session this near to its horizon raises the alarm.
    pub horizon_alarm: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes: 256 << 20,
            sessions_in_flight: 16,
            max_media_size_bytes: 2 << 30,
            tries: 6,
            no_progress: Duration::from_mins(15),
            lease: Duration::from_mins(5),
            horizon_alarm: Duration::from_hours(7 * 24),
        }
    }
}

/// One value that is in force, as it may be shown to anyone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ShownValue {
    /// The full name of the key.
    pub key: String,
    /// The value; `[redacted]` for a secret, null for what is not set.
    pub value: serde_json::Value,
    /// `default`, `file PATH`, `environment NAME` or `flag NAME`.
    pub origin: String,
}

/// What a configuration is composed of.
#[derive(Debug, Clone, Copy)]
pub struct Sources<'a> {
    /// The file, if one is named.
    pub file: Option<&'a Path>,
    /// The environment.
    pub environment: &'a Environment,
    /// The address of the store from `--store`.
    pub store_url: Option<&'a str>,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The full name of the key.
    pub key: String,
    /// What is wrong, and what to write.
    pub text: String,
    /// Where the value came from.
    pub origin: Origin,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.text)?;
        match &self.origin {
            Origin::Default => Ok(()),
            origin => write!(f, " ({origin})"),
        }
    }
}

/// Why there is no configuration. Fatal, always.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("the configuration file {} is not TOML: line {line}: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, counted from one.
        line: usize,
        /// What the parser expected; never what is there.
        message: String,
    },
    /// Something in it is wrong.
    #[error("the configuration is not valid:{}", list(.0))]
    Invalid(Vec<Problem>),
}

fn list(problems: &[Problem]) -> String {
    let lines: Vec<_> = problems.iter().map(|problem| format!("\n  {problem}")).collect();
    lines.concat()
}

impl ConfigError {
    /// Returns the stable code.
    #[must_use]
    pub const fn code(&self) -> Code {
        Code::ConfigInvalid
    }

    pub(crate) fn missing(key: &str, text: impl Into<String>) -> Self {
        Self::Invalid(vec![Problem { key: key.to_owned(), text: text.into(), origin: Origin::Default }])
    }
}

/// Lays file, environment and flags over one another.
fn lay(sources: Sources<'_>) -> Result<origin::Layers, ConfigError> {
    let table = match sources.file {
        Some(path) => read_file(path)?,
        None => Table::new(),
    };
    let mut layers = origin::Layers::of_file(table, sources.file.map(Path::to_path_buf));
    layers.lay_environment(sources.environment);
    if let Some(url) = sources.store_url {
        let path = ["store".to_owned(), "url".to_owned()];
        layers.set(&path, Value::String(url.to_owned()), Origin::Flag("--store"));
    }
    Ok(layers)
}

impl Config {
    /// Reads, composes and checks everything; connects to nothing.
    ///
    /// # Errors
    /// Fatal (configuration): all that is wrong, at once.
    pub fn load(sources: Sources<'_>) -> Result<Self, ConfigError> {
        build::build(&lay(sources)?, sources.environment)
    }

    /// The same for a command that only reads: a bucket without a policy of retention is taken as it is.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load_to_read(sources: Sources<'_>) -> Result<Self, ConfigError> {
        let mut layers = lay(sources)?;
        if !layers.table.contains_key("retention") {
            let path = ["retention".to_owned(), "mode".to_owned()];
            layers.set(&path, Value::String("none".to_owned()), Origin::Default);
        }
        build::build(&layers, sources.environment)
    }

    /// Lists every value in force with its origin; secrets are `[redacted]`.
    #[must_use]
    pub fn show(&self) -> &[ShownValue] {
        &self.shown
    }

    /// Returns the store, for a command that needs one.
    ///
    /// # Errors
    /// Fatal (configuration): there is none.
    pub fn require_store(&self) -> Result<&StoreSettings, ConfigError> {
        self.store.as_ref().ok_or_else(|| {
            ConfigError::missing(
                "store.url",
                "missing; give --store URL or set it, as s3://bucket/prefix or file:///directory",
            )
        })
    }

    /// Returns the integrations, for a command that asks Veriff.
    ///
    /// # Errors
    /// Fatal (configuration): there is none, or a variable that holds a secret is not set.
    pub fn require_integrations(&self) -> Result<&BTreeMap<String, IntegrationSettings>, ConfigError> {
        let problems = self.missing_credentials();
        if problems.is_empty() { Ok(&self.integrations) } else { Err(ConfigError::Invalid(problems)) }
    }

    /// Finds the integration of a record: the one it names, else `fallback` (from `--integration`), else the only one, else
    /// `default`.
    ///
    /// # Errors
    /// Fatal (configuration): none of these is configured.
    pub fn integration_of<'a>(
        &'a self,
        named: Option<&str>,
        fallback: Option<&str>,
    ) -> Result<&'a IntegrationSettings, ConfigError> {
        if let Some(name) = named.or(fallback) {
            return self.integrations.get(name).ok_or_else(|| {
                let known: Vec<_> = self.integrations.keys().map(String::as_str).collect();
                ConfigError::missing(
                    "integrations",
                    format!("none has the requested name; known: {}", known.join(", ")),
                )
            });
        }
        let mut all = self.integrations.values();
        match (all.next(), all.next()) {
            (None, _) => Err(ConfigError::Invalid(vec![no_integration()])),
            (Some(only), None) => Ok(only),
            _ => self.integrations.get(DEFAULT_INTEGRATION).ok_or_else(|| {
                ConfigError::missing(
                    "integrations",
                    "more than one, and none is `default`: say which with --integration or in each line",
                )
            }),
        }
    }

    /// Lists what a command that asks Veriff would miss.
    #[must_use]
    pub fn missing_credentials(&self) -> Vec<Problem> {
        if self.integrations.is_empty() {
            return vec![no_integration()];
        }
        let secrets = self.integrations.values().flat_map(|integration| {
            let key = |name: &str| format!("integrations.{}.{name}", integration.name);
            [(key("api_key"), &integration.api_key), (key("shared_secret"), &integration.shared_secret)]
        });
        secrets
            .filter_map(|(key, secret)| match secret {
                SecretSource::Missing(variable) => Some(Problem {
                    key,
                    text: format!("the environment variable {variable} is not set"),
                    origin: Origin::Default,
                }),
                _ => None,
            })
            .collect()
    }
}

impl Config {
    /// Returns what a run would miss that is to be signed.
    #[must_use]
    pub fn missing_signing_key(&self) -> Option<Problem> {
        match &self.signing.private_key {
            Some(SecretSource::Missing(variable)) => Some(Problem {
                key: "signing.private_key".to_owned(),
                text: format!("the environment variable {variable} is not set"),
                origin: Origin::Default,
            }),
            _ => None,
        }
    }
}

fn no_integration() -> Problem {
    Problem {
        key: "integrations".to_owned(),
        text: format!(
            "none; set {BASE_URL_VARIABLE}, {API_KEY_VARIABLE} and {SHARED_SECRET_VARIABLE}, or write \
             [integrations.{DEFAULT_INTEGRATION}]"
        ),
        origin: Origin::Default,
    }
}

fn read_file(path: &Path) -> Result<Table, ConfigError> {
    let text =
        std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable { path: path.to_path_buf(), source })?;
    // The parser's own rendering quotes the line, which may hold a secret that does not belong there.
    toml::from_str(&text).map_err(|error| {
        let start = error.span().map_or(0, |span| span.start);
        ConfigError::Syntax {
            path: path.to_path_buf(),
            line: text.bytes().take(start).filter(|byte| *byte == b'\n').count() + 1,
            message: error.message().trim().to_owned(),
        }
    })
}

/// Returns the JSON Schema of the configuration file.
#[must_use]
pub fn config_schema() -> schemars::Schema {
    schemars::schema_for!(file::RawFile)
}
