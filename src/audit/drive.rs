//! Drive: takes an audit through its sessions, some at once, in order, and able to stop and go on.
//!
//! What is found in a session is passed on, counted and written down as done in the order of the sessions, so that one place
//! is all that has to be remembered. Nothing is kept of a session once it is done. What is in flight when the audit is told
//! to stop is dropped: it only read, and the next one looks again.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::reach::Reach;
use super::reconcile::inventory::InventoryError;
use super::scope::Scope;
use super::state::{StateError, StateFile};
use super::walk::{Walk, WalkedSession};
use super::{AUDIT_SCHEMA, AuditKind, AuditSummary, Finding, FindingCode, Findings, Severity, SeverityCounts};
use crate::clock::{Clock, Every, Timestamp};
use crate::error::Code;
use crate::ledger::{LedgerError, SessionRow, Survey};
use crate::model::key::ObjectKey;
use crate::model::{ArchiveId, RunId, SessionId};
use crate::source::{Source, SourceError};
use crate::stop::Stop;
use crate::stop::Stopped;
use crate::store::versions::{KeyVersions, list_all};
use crate::store::{ReadStore, StoreError};
use crate::veriff::VeriffError;

/// How many sessions are looked at at once; their objects are, too, within the limit of requests.
pub const SESSIONS_IN_FLIGHT: usize = 8;

/// How often the place is written down: what lies between is looked at again after a crash, and told again.
const STATE_INTERVAL: Duration = Duration::from_secs(5);

/// How often a line tells how far the audit is.
const PROGRESS_INTERVAL: Duration = Duration::from_mins(1);

/// What an audit counts besides its findings.
pub trait Tally: Default + Clone + Serialize + DeserializeOwned {
    /// Adds what another part of the audit counted.
    fn add(&mut self, other: Self);
    /// Returns what was looked at, by what.
    fn checked(&self) -> BTreeMap<String, u64>;
}

/// How far an audit is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Progress<T> {
    /// The audit's own id; going on keeps it.
    pub audit_id: String,
    /// When it began.
    pub started_at: Timestamp,
    /// What a random sample is drawn with.
    pub seed: String,
    /// The place behind which it goes on.
    pub mark: Mark,
    /// How many sessions it came by, in the scope or not.
    #[serde(default)]
    pub seen: u64,
    /// What it counted.
    pub tally: T,
    /// What it found, by severity.
    pub counts: SeverityCounts,
    /// What it found, by code.
    pub codes: BTreeMap<String, u64>,
}

/// A place in what an audit looks at.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// The sessions are done; only what belongs to none is left.
    #[serde(default)]
    pub past_sessions: bool,
    /// The last folder or key that was done.
    pub after: Option<String>,
    /// How many records of a list are done.
    pub records: u64,
}

/// What one piece of work is: a place, and what is to be looked at there, if anything.
#[derive(Debug)]
pub struct Step<W> {
    /// The place.
    pub mark: Mark,
    /// The work; nothing if it is not in the scope.
    pub work: Option<W>,
}

/// What came of one piece of work.
#[derive(Debug, Default)]
pub struct Part<T> {
    /// What was found.
    pub findings: Vec<Finding>,
    /// What was counted.
    pub tally: T,
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

/// What every audit of this kind is asked.
#[derive(Debug)]
pub struct Question {
    /// Which audit.
    pub kind: AuditKind,
    /// How it looks.
    pub mode: Option<String>,
    /// All that it is asked, as one line; a state of another question is not gone on with.
    pub text: String,
    /// Where its progress is kept.
    pub state: Option<PathBuf>,
    /// The seed that was asked for.
    pub seed: Option<String>,
}

/// An audit under way.
#[derive(Debug)]
pub struct Drive<T> {
    kind: AuditKind,
    mode: Option<String>,
    state: StateFile<Progress<T>>,
    /// How far it is.
    pub progress: Progress<T>,
    /// It goes on where one was stopped.
    pub is_gone_on_with: bool,
    stop: Stop,
    write: Every,
    report: Every,
}

impl<T: Tally> Drive<T> {
    /// Begins an audit, or goes on where one with the same question was stopped.
    ///
    /// # Errors
    /// Fatal: the state is another question's. Retryable: it cannot be read.
    pub fn begin(
        question: Question,
        findings: &mut Findings,
        clock: &dyn Clock,
        stop: Stop,
    ) -> Result<Self, StateError> {
        let state = StateFile::of(question.state, question.kind, question.text);
        let before = state.read()?;
        let is_gone_on_with = before.is_some();
        let progress = before.unwrap_or_else(|| {
            let started_at = clock.now();
            let audit_id = RunId::new(started_at).to_string();
            let seed = question.seed.unwrap_or_else(|| audit_id.clone());
            let (mark, tally, counts) = (Mark::default(), T::default(), SeverityCounts::default());
            Progress { audit_id, started_at, seed, mark, seen: 0, tally, counts, codes: BTreeMap::new() }
        });
        if is_gone_on_with {
            tracing::info!(audit.id = %progress.audit_id, "resuming the audit where it was stopped");
        }
        findings.counts = progress.counts;
        findings.codes.clone_from(&progress.codes);
        Ok(Self {
            kind: question.kind,
            mode: question.mode,
            state,
            progress,
            is_gone_on_with,
            stop,
            write: Every::new(STATE_INTERVAL),
            report: Every::new(PROGRESS_INTERVAL),
        })
    }

    /// Does one step after another, so many at once, and says whether it was told to stop before the end.
    ///
    /// # Errors
    /// As the steps; how far it came is written down all the same.
    pub async fn run<W, F>(
        &mut self,
        steps: impl Stream<Item = Result<Step<W>, AuditError>>,
        in_flight: usize,
        check: impl Fn(W) -> F,
        findings: &mut Findings,
    ) -> Result<Option<Stopped>, AuditError>
    where
        F: Future<Output = Result<Part<T>, AuditError>>,
    {
        let check = &check;
        let done = steps
            .map(async |step| {
                let Step { mark, work } = step?;
                Ok::<_, AuditError>((
                    mark,
                    match work {
                        Some(work) => Some(check(work).await?),
                        None => None,
                    },
                ))
            })
            .buffered(in_flight);
        let mut done = Box::pin(done);
        let stop = self.stop.clone();
        let mut requested = Box::pin(stop.requested());
        loop {
            let next = tokio::select! {
                biased;
                stopped = &mut requested => {
                    self.write(findings, false)?;
                    return Ok(Some(stopped));
                }
                next = done.next() => next,
            };
            match next {
                None => return Ok(None),
                Some(Ok((mark, part))) => self.take(mark, part, findings)?,
                Some(Err(error)) => {
                    self.write(findings, false)?;
                    return Err(error);
                }
            }
        }
    }

    /// Takes what came of one piece of work.
    ///
    /// # Errors
    /// Retryable: it cannot be passed on or written down.
    pub fn take(&mut self, mark: Mark, part: Option<Part<T>>, findings: &mut Findings) -> Result<(), AuditError> {
        if let Some(part) = part {
            for finding in &part.findings {
                findings.add(finding)?;
            }
            self.progress.tally.add(part.tally);
        }
        self.progress.seen += u64::from(!mark.past_sessions);
        self.progress.mark = mark;
        if self.write.is_due() {
            self.write(findings, false)?;
        }
        if self.report.is_due() {
            let checked: Vec<String> =
                self.progress.tally.checked().iter().map(|(what, count)| format!("{count} {what}")).collect();
            tracing::info!(
                audit.id = %self.progress.audit_id,
                after = self.progress.mark.after.as_deref().unwrap_or_default(),
                errors = findings.counts.error,
                "audit {}: {}", self.kind.as_str(), checked.join(", ")
            );
        }
        Ok(())
    }

    fn write(&mut self, findings: &Findings, is_finished: bool) -> Result<(), StateError> {
        self.progress.counts = findings.counts;
        self.progress.codes.clone_from(&findings.codes);
        self.state.write(self.progress.clone(), is_finished)
    }

    /// Ends the audit and says how it ended.
    ///
    /// # Errors
    /// Retryable: the state cannot be written.
    pub fn finish(mut self, end: End, findings: &Findings, clock: &dyn Clock) -> Result<AuditSummary, StateError> {
        self.write(findings, end.is_at_end)?;
        Ok(AuditSummary {
            schema: AUDIT_SCHEMA.to_owned(),
            audit_id: self.progress.audit_id,
            audit: self.kind,
            mode: self.mode,
            share: end.share,
            archive_id: end.archive_id,
            started_at: self.progress.started_at,
            finished_at: clock.now(),
            complete: end.is_complete,
            checked: self.progress.tally.checked(),
            findings: findings.counts,
            codes: findings.codes.clone(),
            details: end.details,
            next: if !end.is_at_end {
                "with --state, the same command resumes where this one stopped".to_owned()
            } else if findings.counts.error + findings.counts.warn > 0 {
                "carry out the repairs that the findings name; docs/runbook.md, Findings, explains the codes".to_owned()
            } else {
                "nothing".to_owned()
            },
        })
    }
}

/// How an audit ended, as its summary tells it.
#[derive(Debug, Default)]
pub struct End {
    /// It looked at all that it was asked to look at.
    pub is_complete: bool,
    /// It came to its end; the same command begins anew.
    pub is_at_end: bool,
    /// The part of the archive it was asked to look at.
    pub share: Option<String>,
    /// The archive.
    pub archive_id: Option<ArchiveId>,
    /// What only this audit tells.
    pub details: serde_json::Value,
}

/// Where the sessions come from.
pub enum Feed<'a> {
    /// Everything in the store, in the order of keys.
    Walk(Walk<'a>, Scope),
    /// A list; bad lines are passed over with a warning.
    List(&'a dyn ReadStore, Box<dyn Source>),
}

impl std::fmt::Debug for Feed<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Walk(..) => "Feed::Walk",
            Self::List(..) => "Feed::List",
        })
    }
}

impl<'a> Feed<'a> {
    /// Turns it into steps, behind a place.
    pub fn steps(self, from: &Mark) -> impl Stream<Item = Result<Step<WalkedSession>, AuditError>> + 'a {
        futures_util::stream::unfold(Some((self, from.records, 0)), |state| async move {
            let (mut feed, skip, seen) = state?;
            match feed.next(skip, seen).await {
                Ok(Some((step, seen))) => Some((Ok(step), Some((feed, skip, seen)))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        })
    }

    async fn next(&mut self, skip: u64, seen: u64) -> Result<Option<(Step<WalkedSession>, u64)>, AuditError> {
        match self {
            Self::Walk(walk, scope) => Ok(walk.next().await?.map(|walked| {
                let mark = Mark { after: Some(walked.folder.clone()), ..Mark::default() };
                let work = scope.takes(&walked.folder).then_some(walked);
                (Step { mark, work }, seen + 1)
            })),
            Self::List(store, source) => {
                let Some((session, seen)) = next_of(&mut **source, skip, seen).await? else { return Ok(None) };
                let mark = Mark { records: seen, ..Mark::default() };
                let work = match session {
                    Some(session) => Some(listed(*store, &session).await?),
                    None => None,
                };
                Ok(Some((Step { mark, work }, seen)))
            }
        }
    }
}

/// Returns the next session of a list behind those to be passed over, and how many records were read by then; no session
/// for a line that is none.
async fn next_of(
    source: &mut dyn Source,
    skip: u64,
    mut seen: u64,
) -> Result<Option<(Option<SessionId>, u64)>, AuditError> {
    loop {
        let Some(delivery) = source.receive().await? else { return Ok(None) };
        seen += 1;
        if seen <= skip {
            continue;
        }
        return Ok(Some(match delivery.record {
            Ok(record) => (Some(record.session_id), seen),
            Err(bad) => {
                tracing::warn!("{}: {}; passed over", delivery.place, bad.reason);
                (None, seen)
            }
        }));
    }
}

/// Lists what the store has of a session.
///
/// # Errors
/// As the store's.
pub async fn listed(store: &dyn ReadStore, session: &SessionId) -> Result<WalkedSession, StoreError> {
    let keys = list_all(store, &ObjectKey::session_prefix(session)).await?;
    Ok(WalkedSession { folder: session.as_str().to_owned(), keys })
}

/// Looks at one session, and once more if it was found wanting and has changed since: a run at work beside the audit is no
/// damage.
///
/// # Errors
/// As the store's, the ledger's and the look's.
pub(super) async fn steadily<T: Default>(
    reach: &Reach<'_>,
    ledger: Option<&dyn Survey>,
    walked: WalkedSession,
    look: impl AsyncFn(&SessionId, &WalkedSession, Option<&SessionRow>) -> Result<Part<T>, AuditError>,
) -> Result<Part<T>, AuditError> {
    let Some(session) = walked.session_id() else {
        return Ok(Part { findings: foreign_folder(&walked), tally: T::default() });
    };
    let row = row_of(ledger, &session).await?;
    let part = look(&session, &walked, row.as_ref()).await?;
    if part.findings.is_empty() {
        return Ok(part);
    }
    // First the ledger, which is written last: so it cannot know more than the listing.
    let row_again = row_of(ledger, &session).await?;
    let again = listed(reach.store(), &session).await?;
    if again == walked && row_again == row {
        return Ok(part);
    }
    look(&session, &again, row_again.as_ref()).await
}

/// Asks the ledger, where there is one.
async fn row_of(ledger: Option<&dyn Survey>, session: &SessionId) -> Result<Option<SessionRow>, AuditError> {
    Ok(match ledger {
        Some(ledger) => ledger.session(session).await?,
        None => None,
    })
}

/// Tells of a folder that no session's is.
pub(super) fn foreign_folder(walked: &WalkedSession) -> Vec<Finding> {
    let repair = "find out who wrote it; the archive does not name it and will not use it";
    let finding = |key, version: Option<&str>| {
        Finding::of(Severity::Error, FindingCode::ObjectUnknown, repair)
            .object(key, version)
            .differs("a folder named by a session id", "another name")
    };
    let versions = walked.keys.iter().flat_map(KeyVersions::all);
    versions.map(|version| finding(&version.key, version.version_id.as_deref())).collect()
}
