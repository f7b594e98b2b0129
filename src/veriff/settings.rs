//! Settings of one integration at Veriff.

use std::time::Duration;

use crate::secret::SecretSource;

/// One Veriff integration as configured.
#[derive(Debug, Clone)]
pub struct IntegrationSettings {
    /// Its name in the configuration, in records and in documents.
    pub name: String,
    /// Its base URL, without `/v1` and without a trailing slash.
    pub base_url: url::Url,
    /// Plain HTTP is allowed, for tests.
    pub allow_http: bool,
    /// The public part of its credentials.
    pub api_key: SecretSource,
    /// The secret part of its credentials.
    pub shared_secret: SecretSource,
    /// Live or test.
    pub kind: IntegrationKind,
    /// How long Veriff keeps its media.
    pub horizon: Duration,
    /// How many requests a second this process sends at most.
    pub max_requests_per_second: f64,
    /// How many requests are in flight at most.
    pub max_concurrency: usize,
    /// What is made of response signatures.
    pub response_signature: SignaturePolicy,
    /// JSON answers that are archived as evidence of their own.
    pub records: Vec<RecordKind>,
    /// How long after a decision a session may still change.
    pub settle_after: Duration,
    /// The retention class of what no rule matches.
    pub retention_class: String,
}

/// Whether an integration verifies people or is for trying things out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum IntegrationKind {
    /// Verifies people.
    Live,
    /// Never lists videos.
    Test,
}

/// What is made of response signatures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SignaturePolicy {
    /// They are not looked at.
    Off,
    /// They are checked if present, and the result is noted.
    Record,
    /// They must be present and right.
    Required,
}

/// A JSON answer that can be archived as evidence of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RecordKind {
    /// The decision and the data read from the document.
    Decision,
    /// The person and sanctions matches.
    Person,
    /// The screening result.
    WatchlistScreening,
}

impl RecordKind {
    /// Returns its name in configuration, paths and media ids.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Decision => "decision",
            Self::Person => "person",
            Self::WatchlistScreening => "watchlist-screening",
        }
    }
}
