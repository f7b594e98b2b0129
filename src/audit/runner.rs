//! Runner: takes any audit from its beginning to its summary, able to stop and to resume.
//!
//! The one place for what all audits share: the stop, the state file, the line that reports progress, the findings as they
//! come and their counts, the summary and how the process ends. What an audit goes through, and in which order, is its own;
//! those that go from session to session do it by `sessions`. Nothing is kept of what is done. What is in flight when the
//! audit is to stop is dropped: it only read, and the next one looks again.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::reconcile::inventory::InventoryError;
use super::state::{StateError, StateFile};
use super::{AUDIT_SCHEMA, AuditKind, AuditSummary, Finding, Findings, SeverityCounts, Sink};
use crate::clock::{Clock, Every, Timestamp};
use crate::error::{Code, Exit};
use crate::ledger::LedgerError;
use crate::model::{ArchiveId, RunId};
use crate::source::SourceError;
use crate::stop::{Stop, Stopped};
use crate::store::StoreError;
use crate::veriff::VeriffError;

/// How often the place is written down: what lies between is checked again after a crash, and reported again.
const STATE_INTERVAL: Duration = Duration::from_secs(5);

/// How often a line reports how far the audit is.
const PROGRESS_INTERVAL: Duration = Duration::from_mins(1);

/// How far an audit of one kind is.
pub trait AuditProgress: Clone + Serialize + DeserializeOwned {
    /// Begins; a random sample is drawn with the seed.
    fn begin(seed: String) -> Self;
    /// Returns what was checked, by what.
    fn checked(&self) -> BTreeMap<String, u64>;
    /// Returns the place behind which it resumes.
    fn place(&self) -> &str;
}

/// An audit under way, as its state file has it.
#[derive(Debug, Serialize, Deserialize)]
struct SavedAudit<P> {
    audit_id: String,
    started_at: Timestamp,
    counts: SeverityCounts,
    codes: BTreeMap<String, u64>,
    #[serde(flatten)]
    progress: P,
}

/// Why an audit could not go on.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The store.
    #[error("the store could not be inspected")]
    Store(#[from] StoreError),
    /// The ledger.
    #[error("the ledger could not be read")]
    Ledger(#[from] LedgerError),
    /// The list of sessions.
    #[error("the list of sessions could not be read")]
    Source(#[from] SourceError),
    /// The inventory report.
    #[error("the inventory report could not be used")]
    Inventory(#[from] InventoryError),
    /// Veriff.
    #[error("Veriff could not be asked")]
    Veriff(#[from] VeriffError),
    /// The state file.
    #[error("the audit cannot be resumed")]
    State(#[from] StateError),
    /// The findings.
    #[error("a finding could not be reported")]
    Output(#[from] io::Error),
}

impl AuditError {
    /// Returns the stable code, which fixes the error class.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::Store(error) => error.code(),
            Self::Ledger(error) => error.code(),
            Self::Source(error) => error.code(),
            Self::Inventory(InventoryError::Form { .. }) => Code::InputInvalid,
            Self::Inventory(InventoryError::Io(_)) => Code::InputUnreadable,
            Self::Veriff(error) => error.code(),
            Self::State(StateError::Foreign { .. }) => Code::ConfigInvalid,
            Self::State(StateError::File { .. }) | Self::Output(_) => Code::OutputUnwritable,
        }
    }
}

/// What an audit is asked.
#[derive(Debug)]
pub struct Question {
    /// Which audit.
    pub kind: AuditKind,
    /// How it looks.
    pub mode: Option<String>,
    /// The part of the archive it is asked to look at.
    pub share: Option<String>,
    /// All that it is asked, as one line; a state of another question is not resumed.
    pub text: String,
    /// Where its progress is kept.
    pub state: Option<PathBuf>,
    /// The seed that was asked for.
    pub seed: Option<String>,
}

/// What only the audit itself knows at its end.
#[derive(Debug, Default)]
pub struct AuditEnd {
    /// The archive.
    pub archive_id: Option<ArchiveId>,
    /// What only this audit reports.
    pub details: serde_json::Value,
    /// It came to its end, and some of what it was asked to look at could not be asked for.
    pub is_partial: bool,
    /// What to do next if nothing is wrong.
    pub next: Option<String>,
}

/// An audit under way.
#[derive(Debug)]
pub struct Runner<P> {
    mode: Option<String>,
    share: Option<String>,
    state: StateFile<SavedAudit<P>>,
    /// The audit's own id; a resumed audit keeps it.
    pub audit_id: String,
    started_at: Timestamp,
    /// How far it is.
    pub progress: P,
    /// It resumes one that was stopped.
    pub is_resumed: bool,
    /// What was found.
    pub findings: Findings,
    clock: Arc<dyn Clock>,
    stop: Stop,
    /// Why it stops before its end.
    pub stopped: Option<Stopped>,
    saving: Every,
    reporting: Every,
}

impl<P: AuditProgress> Runner<P> {
    /// Begins an audit, or resumes one with the same question that was stopped.
    ///
    /// # Errors
    /// Fatal: the state is another question's. Retryable: it cannot be read.
    pub fn begin(question: Question, sink: Sink, clock: Arc<dyn Clock>, stop: Stop) -> Result<Self, StateError> {
        let state = StateFile::of(question.state, question.kind, question.text);
        let before: Option<SavedAudit<P>> = state.read()?;
        let is_resumed = before.is_some();
        let saved = before.unwrap_or_else(|| {
            let started_at = clock.now();
            let audit_id = RunId::new(started_at).to_string();
            let progress = P::begin(question.seed.unwrap_or_else(|| audit_id.clone()));
            SavedAudit { audit_id, started_at, counts: SeverityCounts::default(), codes: BTreeMap::new(), progress }
        });
        if is_resumed {
            tracing::info!(audit.id = %saved.audit_id, "resuming the audit where it was stopped");
        }
        Ok(Self {
            mode: question.mode,
            share: question.share,
            state,
            audit_id: saved.audit_id,
            started_at: saved.started_at,
            progress: saved.progress,
            is_resumed,
            findings: Findings { sink, counts: saved.counts, codes: saved.codes },
            clock,
            stop,
            stopped: None,
            saving: Every::new(STATE_INTERVAL),
            reporting: Every::new(PROGRESS_INTERVAL),
        })
    }

    /// Passes findings on, unless the audit is to stop before its end, of which they speak.
    ///
    /// # Errors
    /// As [`Findings::add`].
    pub fn conclude(&mut self, findings: impl IntoIterator<Item = Finding>) -> Result<(), AuditError> {
        if self.stopped.is_none() {
            self.findings.add_all(findings)?;
        }
        Ok(())
    }

    /// Passes findings on that a resumed audit has passed on before.
    ///
    /// # Errors
    /// As [`Findings::add`].
    pub fn add_at_first(&mut self, findings: impl IntoIterator<Item = Finding>) -> Result<(), AuditError> {
        if !self.is_resumed {
            self.findings.add_all(findings)?;
        }
        Ok(())
    }

    /// Waits for some work; nothing if the audit is to stop, before it or meanwhile.
    pub async fn unless_stopped<F: Future>(&mut self, work: F) -> Option<F::Output> {
        if self.stopped.is_some() {
            return None;
        }
        tokio::select! {
            biased;
            stopped = self.stop.requested() => {
                self.stopped = Some(stopped);
                None
            }
            done = work => Some(done),
        }
    }

    /// Tells whether the audit is to stop.
    pub async fn is_stopping(&mut self) -> bool {
        if self.stop.is_requested() {
            self.unless_stopped(std::future::pending::<()>()).await;
        }
        self.stopped.is_some()
    }

    /// Writes down and reports how far the audit is, now and then.
    ///
    /// # Errors
    /// Retryable: the state cannot be written.
    pub fn note(&mut self) -> Result<(), AuditError> {
        if self.saving.is_due() {
            self.save(false)?;
        }
        if self.reporting.is_due() {
            let checked: Vec<String> =
                self.progress.checked().iter().map(|(what, count)| format!("{count} {what}")).collect();
            tracing::info!(
                audit.id = %self.audit_id,
                after = self.progress.place(),
                errors = self.findings.counts.error,
                "audit {}: {}", self.state.kind().as_str(), checked.join(", ")
            );
        }
        Ok(())
    }

    /// Writes down how far the audit is.
    ///
    /// # Errors
    /// Retryable: the state cannot be written.
    pub fn save(&self, is_finished: bool) -> Result<(), StateError> {
        self.state.write(is_finished, || SavedAudit {
            audit_id: self.audit_id.clone(),
            started_at: self.started_at,
            counts: self.findings.counts,
            codes: self.findings.codes.clone(),
            progress: self.progress.clone(),
        })
    }

    /// Ends the audit, and says how it ended and how the process does.
    ///
    /// # Errors
    /// Retryable: the state cannot be written.
    pub fn finish(self, end: AuditEnd) -> Result<(AuditSummary, Exit), StateError> {
        self.save(self.stopped.is_none())?;
        let Findings { counts, codes, .. } = self.findings;
        let next = if self.stopped.is_some() {
            "with --state, the same command resumes where this one stopped".to_owned()
        } else if counts.error > 0 || counts.warn > 0 && end.next.is_none() {
            "carry out the repairs that the findings name; docs/runbook.md, Findings, explains the codes".to_owned()
        } else {
            end.next.unwrap_or_else(|| "nothing".to_owned())
        };
        let exit = match self.stopped {
            Some(Stopped::Terminated) => Exit::Terminated,
            Some(_) => Exit::Interrupted,
            None if end.is_partial => Exit::TryLater,
            None => Exit::Success,
        };
        let summary = AuditSummary {
            schema: AUDIT_SCHEMA.to_owned(),
            audit_id: self.audit_id,
            audit: self.state.kind(),
            mode: self.mode,
            share: self.share,
            archive_id: end.archive_id,
            started_at: self.started_at,
            finished_at: self.clock.now(),
            complete: self.stopped.is_none() && !end.is_partial,
            checked: self.progress.checked(),
            findings: counts,
            codes,
            details: end.details,
            next,
        };
        Ok((summary, if counts.error > 0 { exit.min(Exit::Findings) } else { exit }))
    }
}
