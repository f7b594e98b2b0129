//! Settings of one Veriff integration, already checked.
//!
//! `config` reads and validates them; the client, the catalog and the worker obey them. Nothing here reads a file or
//! the environment.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use url::Url;

use crate::secret::SecretSource;

/// One Veriff integration: where it is, how it is signed, how fast it may be asked and what is archived of it.
#[derive(Debug, Clone)]
pub struct IntegrationSettings {
    /// The configured name; it stands in the ledger, in sidecars and in manifests.
    pub name: String,
    /// The address without `/v1` and without a trailing slash in its path (a bare host has the path `/`).
    pub base_url: Url,
    /// Plain HTTP was allowed by name.
    pub allow_http: bool,
    /// Where the API key is kept.
    pub api_key: SecretSource,
    /// Where the shared secret is kept.
    pub shared_secret: SecretSource,
    /// Whether it verifies people or is for trying things out.
    pub kind: IntegrationKind,
    /// How long Veriff keeps media live.
    pub horizon: Duration,
    /// The rate this process never exceeds.
    pub max_requests_per_second: f64,
    /// The upper bound of the adaptive concurrency limit.
    pub max_concurrency: usize,
    /// What is done with response signatures.
    pub response_signature: SignaturePolicy,
    /// Answers of Veriff that are archived as evidence of their own.
    pub records: Vec<RecordKind>,
    /// How long after its decision a session may still change.
    pub settle_after: Duration,
    /// The retention class of media that no rule and no record gives another one.
    pub retention_class: String,
}

/// What an integration is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum IntegrationKind {
    /// Verifies people.
    #[default]
    Live,
    /// For trying things out: lists no videos, and nothing of it may be locked for good.
    Test,
}

/// What is done with the signature of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SignaturePolicy {
    /// Not looked at.
    Off,
    /// Checked if there is one; the result is noted in the sidecar.
    #[default]
    Record,
    /// An answer without the right one is refused.
    Required,
}

/// An answer of Veriff that can be archived as evidence of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RecordKind {
    /// The decision on the session.
    Decision,
    /// The data of the person.
    Person,
    /// The watchlist screening of the person.
    WatchlistScreening,
}

impl RecordKind {
    /// Returns the text that stands in the configuration and in media ids.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Decision => "decision",
            Self::Person => "person",
            Self::WatchlistScreening => "watchlist-screening",
        }
    }
}
