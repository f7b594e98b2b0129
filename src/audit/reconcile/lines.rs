//! Lines: what run records report of each session, session after session in the order of keys.
//!
//! Every line of every chunk of every run that the ledger calls closed is read once and sorted outside of memory. Lines are
//! signed with their run, so what the ledger says of its last visit can be held against them. Runs are few beside sessions,
//! so what is known of them is kept.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::io;

use serde::{Deserialize, Serialize};

use super::runs::{PAGE, run_id_of};
use super::spool::{Sorted, Spool, Spooled};
use super::words::RESTORE;
use crate::audit::chain::lines::ChunkLines;
use crate::audit::reach::Reach;
use crate::audit::reconcile::inventory::InventoryError;
use crate::audit::runner::AuditError;
use crate::audit::{Finding, FindingCode, Severity};
use crate::clock::Timestamp;
use crate::ledger::{ClosedRun, LedgerError, Survey};
use crate::model::key::{ObjectKey, SessionObject};
use crate::model::run::{ChunkRef, RunLine, RunRecord};
use crate::model::{RunId, SessionId};
use crate::store::document::Document;

/// How many lines are sorted in memory at once: some 60 MiB of them.
const LINES_AT_ONCE: usize = 100_000;

/// A line without its items.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ReportedLine {
    pub(super) session_id: SessionId,
    pub(super) committed_at: Timestamp,
    pub(super) run_id: RunId,
    /// Its place in the run.
    pub(super) number: u64,
    pub(super) integration: String,
    pub(super) outcome: String,
    pub(super) code: Option<String>,
    pub(super) decided_at: Option<Timestamp>,
    pub(super) upstream_created_at: Option<Timestamp>,
    pub(super) deadline_at: Option<Timestamp>,
    /// Whether its manifest is complete and settled; nothing in lines of versions that did not tell.
    pub(super) closes: Option<(bool, bool)>,
    /// The number of its manifest.
    pub(super) sequence: Option<u32>,
    /// The ledger took its run over from the store: it was not there when the line was written.
    pub(super) is_adopted: bool,
}

impl ReportedLine {
    fn of(line: RunLine, run: &RunId, number: u64, is_adopted: bool) -> Self {
        let sequence = line.manifest.and_then(|manifest| match manifest.key.read_as(&line.session_id) {
            SessionObject::Manifest(sequence) => Some(sequence),
            _ => None,
        });
        Self {
            session_id: line.session_id,
            committed_at: line.committed_at,
            run_id: run.clone(),
            number,
            integration: line.integration,
            outcome: line.outcome,
            code: line.code,
            decided_at: line.decided_at,
            upstream_created_at: line.upstream_created_at,
            deadline_at: line.deadline_at,
            closes: line.complete.zip(line.settled),
            sequence,
            is_adopted,
        }
    }

    /// In the order of keys, and of a session the earliest first.
    fn place(&self) -> impl Iterator<Item = u8> {
        self.session_id.as_str().bytes().chain(*b"/")
    }
}

impl Spooled for ReportedLine {
    fn write(&self, out: &mut dyn io::Write) -> io::Result<()> {
        serde_json::to_writer(out, self).map_err(io::Error::other)
    }

    fn read(line: &str) -> Option<Self> {
        serde_json::from_str(line).ok()
    }

    fn order(&self, other: &Self) -> Ordering {
        let within = |line: &Self| (line.committed_at, line.number);
        self.place().cmp(other.place()).then_with(|| within(self).cmp(&within(other)))
    }
}

/// What is known of the run of a session's last visit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RunStanding {
    /// All its lines were read; it committed nothing any more when its record was closed.
    Read {
        /// When that was.
        closed_at: Timestamp,
    },
    /// Some of its lines cannot be read; that was found.
    Unread,
    /// Its record is not closed, or it has none.
    Open,
    /// The ledger knows no such run.
    Unknown,
}

/// Runs whose lines were read: when each was closed; nothing if not all of its lines could be.
#[derive(Debug, Default)]
pub struct ReportedRuns(HashMap<RunId, Option<Timestamp>>);

impl ReportedRuns {
    /// Tells what became of a run; nothing of one whose record was not closed when they were read.
    pub(super) fn standing(&self, run: &RunId) -> Option<RunStanding> {
        let closed_at = self.0.get(run)?;
        Some(closed_at.map_or(RunStanding::Unread, |closed_at| RunStanding::Read { closed_at }))
    }
}

/// All lines, in order.
#[derive(Debug)]
pub struct RunLines {
    lines: Sorted<ReportedLine>,
    ahead: Option<ReportedLine>,
    /// How many there are.
    pub count: u64,
}

/// The lines of one session, the earliest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SessionLines(pub(super) Vec<ReportedLine>);

impl RunLines {
    /// Reads the lines of all runs that the ledger calls closed. What cannot be read is found; the rest is taken.
    ///
    /// # Errors
    /// Retryable: store, ledger or disk. Fatal: the store refuses everything.
    pub async fn read(
        reach: &Reach<'_>,
        ledger: &dyn Survey,
    ) -> Result<(Self, ReportedRuns, Vec<Finding>), AuditError> {
        let mut reading = Reading { reach, spool: Spool::of(LINES_AT_ONCE), count: 0, findings: Vec::new() };
        let mut runs = HashMap::new();
        let mut after: Option<String> = None;
        loop {
            let page = ledger.closed_runs(after.as_deref(), PAGE).await?;
            let Some(last) = page.last() else { break };
            after = Some(run_id_of(last).to_owned());
            // What cannot be read is found where runs are looked at.
            for run in page.into_iter().flatten() {
                // Only a run that this ledger saw begin and end has left what it was to say of itself.
                let is_adopted = match ledger.record(&run.run_id).await {
                    Ok(row) => row.is_none_or(|row| row.draft.is_none()),
                    Err(LedgerError::Damaged(_)) => continue,
                    Err(error) => return Err(error.into()),
                };
                let closed_at = reading.run(&run, is_adopted).await?;
                runs.insert(run.run_id, closed_at);
            }
        }
        let Reading { spool, count, findings, .. } = reading;
        let mut lines = spool.finish().map_err(InventoryError::from)?;
        let ahead = lines.next().map_err(InventoryError::from)?;
        Ok((Self { lines, ahead, count }, ReportedRuns(runs), findings))
    }

    /// Returns the session that stands next.
    pub(super) fn ahead(&self) -> Option<&SessionId> {
        self.ahead.as_ref().map(|line| &line.session_id)
    }

    /// Returns the lines of the next session.
    ///
    /// # Errors
    /// Retryable: the disk.
    pub fn next_session(&mut self) -> io::Result<Option<(SessionId, SessionLines)>> {
        let Some(first) = self.ahead.take() else { return Ok(None) };
        let session = first.session_id.clone();
        let mut lines = vec![first];
        while let Some(next) = self.lines.next()? {
            if next.session_id != session {
                self.ahead = Some(next);
                break;
            }
            lines.push(next);
        }
        Ok(Some((session, SessionLines(lines))))
    }
}

struct Reading<'a> {
    reach: &'a Reach<'a>,
    spool: Spool<ReportedLine>,
    count: u64,
    findings: Vec<Finding>,
}

impl Reading<'_> {
    /// Reads all lines of a run, and returns when it was closed; nothing if some cannot be read. What is wrong with the
    /// record itself is found where that is held against the ledger.
    async fn run(&mut self, run: &ClosedRun, is_adopted: bool) -> Result<Option<Timestamp>, AuditError> {
        let document = self.reach.read_own(&run.record.key).await?.found();
        let document = document.filter(|document| document.sha256 == run.record.sha256);
        let Some(record) = document.and_then(|document| RunRecord::parse(&document.bytes)) else { return Ok(None) };
        let (mut number, mut is_whole) = (0, true);
        for chunk in &record.chunks {
            is_whole &= self.chunk(run, chunk, is_adopted, &mut number).await?;
        }
        Ok(is_whole.then_some(record.finished_at))
    }

    async fn chunk(
        &mut self,
        run: &ClosedRun,
        chunk: &ChunkRef,
        is_adopted: bool,
        number: &mut u64,
    ) -> Result<bool, AuditError> {
        let found = self.reach.read_own(&chunk.key).await?.found();
        let sha256 = found.as_ref().map(|document| document.sha256);
        let Some(Document { bytes, .. }) = found.filter(|document| document.sha256 == chunk.sha256) else {
            let code = if sha256.is_some() { FindingCode::ObjectDigest } else { FindingCode::ObjectMissing };
            let found = sha256.map_or_else(|| "nothing".to_owned(), |sha256| sha256.to_string());
            self.tell(run, &chunk.key, code, format!("{}, as the run record says", chunk.sha256), found);
            return Ok(false);
        };
        let mut lines = ChunkLines::of(&bytes);
        loop {
            let line = match lines.next() {
                Ok(Some(line)) => RunLine::parse(line),
                Ok(None) => return Ok(true),
                Err(_) => None,
            };
            let Some(line) = line else {
                let (expected, found) = ("lines in gzip".to_owned(), "something else".to_owned());
                self.tell(run, &chunk.key, FindingCode::RecordInvalid, expected, found);
                return Ok(false);
            };
            let line = ReportedLine::of(line, &run.run_id, *number, is_adopted);
            self.spool.push(line).map_err(InventoryError::from)?;
            *number += 1;
            self.count += 1;
        }
    }

    fn tell(&mut self, run: &ClosedRun, key: &ObjectKey, code: FindingCode, expected: String, found: String) {
        let finding = Finding::of(Severity::Error, code, RESTORE).run(&run.run_id).object(key, None);
        self.findings.push(finding.differs(expected, found));
    }
}
