//! Audits: do Veriff, the ledger, the store and the policy still tell the same story?
//!
//! Every audit reads and compares, and writes nothing but its findings. A finding names its repair; an audit that could
//! not look at something says so as an error of its own, never as silence.

pub mod archive;
pub mod chain;
pub mod coverage;
pub mod evidence;
pub(crate) mod expired;
mod finding;
pub mod fixity;
mod lock;
pub mod reach;
pub mod reconcile;
pub mod retention;
pub mod runner;
pub mod scope;
pub mod sessions;
pub(crate) mod shadow;
mod sidecar;
pub mod state;
pub mod walk;

use std::collections::BTreeMap;
use std::io;

use serde::{Deserialize, Serialize};

pub use finding::{FINDING_SCHEMA, Finding, FindingCode, Severity};

use crate::clock::Timestamp;
use crate::model::ArchiveId;

/// The value of `schema` in the summary of an audit.
pub const AUDIT_SCHEMA: &str = "veriff-archive/audit/v1";

/// Which audit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AuditKind {
    /// Veriff ↔ archive.
    Coverage,
    /// Ledger ↔ store.
    Reconcile,
    /// Bytes ↔ digests.
    Fixity,
    /// Locks ↔ policy.
    Retention,
    /// Run records ↔ chain ↔ key.
    Chain,
}

impl AuditKind {
    /// Returns the name of the audit.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Coverage => "coverage",
            Self::Reconcile => "reconcile",
            Self::Fixity => "fixity",
            Self::Retention => "retention",
            Self::Chain => "chain",
        }
    }
}

/// How an audit ended: the last line of its answer, kept by the ledger where that can be written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct AuditSummary {
    /// Always `veriff-archive/audit/v1`.
    pub schema: String,
    /// The audit's own id; a resumed audit keeps it.
    pub audit_id: String,
    /// Which audit.
    pub audit: AuditKind,
    /// How it looked, such as `read` or `head`.
    pub mode: Option<String>,
    /// The part of the archive it was to look at, such as `3/7` or `5%`; nothing for all of it.
    pub share: Option<String>,
    /// The archive it looked at.
    pub archive_id: Option<ArchiveId>,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Timestamp,
    /// It looked at all it was to look at; false if it was stopped, and goes on with the same `--state`.
    pub complete: bool,
    /// What it looked at, by what: `sessions`, `objects`, `bytes`, …
    pub checked: BTreeMap<String, u64>,
    /// Findings by severity.
    pub findings: SeverityCounts,
    /// Findings by code.
    pub codes: BTreeMap<String, u64>,
    /// What only this kind of audit tells, such as a calendar of locks.
    pub details: serde_json::Value,
    /// What to do next, or `nothing`.
    pub next: String,
}

/// How many findings there are of each severity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
pub struct SeverityCounts {
    /// Errors.
    pub error: u64,
    /// Warnings.
    pub warn: u64,
    /// Notes.
    pub info: u64,
}

/// Takes one finding after another.
pub type Sink = Box<dyn FnMut(&Finding) -> io::Result<()> + Send>;

/// Passes findings on as they come, and counts; nothing is kept, however many there are.
pub struct Findings {
    sink: Sink,
    /// By severity.
    pub counts: SeverityCounts,
    /// By code.
    pub codes: BTreeMap<String, u64>,
}

impl std::fmt::Debug for Findings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Findings").field("counts", &self.counts).finish_non_exhaustive()
    }
}

impl Findings {
    /// Begins to pass findings on.
    #[must_use]
    pub fn to(sink: Sink) -> Self {
        Self { sink, counts: SeverityCounts::default(), codes: BTreeMap::new() }
    }

    /// Takes a finding.
    ///
    /// # Errors
    /// Retryable: it could not be passed on; an audit whose findings are lost must not go on.
    pub fn add(&mut self, finding: &Finding) -> io::Result<()> {
        let count = match finding.severity {
            Severity::Error => &mut self.counts.error,
            Severity::Warn => &mut self.counts.warn,
            Severity::Info => &mut self.counts.info,
        };
        *count += 1;
        *self.codes.entry(finding.code.as_str().to_owned()).or_default() += 1;
        (self.sink)(finding)
    }
    /// Takes findings.
    ///
    /// # Errors
    /// As [`Findings::add`].
    pub fn add_all(&mut self, findings: impl IntoIterator<Item = Finding>) -> io::Result<()> {
        findings.into_iter().try_for_each(|finding| self.add(&finding))
    }
}
