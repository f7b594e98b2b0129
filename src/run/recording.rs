//! Recording: the lines of the run record, and the task that moves them into the store.
//!
//! A line goes into the ledger with the commit of its session. When enough of them wait, one task stores a chunk while the
//! worker continues. Beats, so that nobody takes this run for dead; if somebody does, the process continues as another
//! run.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::clock::Clock;
use crate::ledger::{Ledger, LedgerError, LineEntry, RunStart, SessionEntry};
use crate::model::RunId;
use crate::run::record::{CHUNK_BYTES, CHUNK_LINES, Closed, Ending, RecordError, Recorder, StoredLines, line_of};
use crate::session::CurrentRun;
use crate::session::visit::Outcome;

/// How long one beat may take before the worker turns to something else.
const BEAT_PATIENCE: Duration = Duration::from_secs(5);

/// How long a chunk is not tried again after it could not be stored.
const STORE_AGAIN: Duration = Duration::from_secs(30);

/// What the record of the run is made of.
pub struct Recording {
    recorder: Arc<Recorder>,
    start: RunStart,
    /// As which this process has worked, the present one last.
    runs: Vec<RunId>,
    next_line: u64,
    /// What may be in the ledger although every answer was lost: until that is known, its line has the next number.
    doubtful: Option<SessionEntry>,
    waiting: StoredLines,
    storing: Option<JoinHandle<Result<Option<StoredLines>, RecordError>>>,
    store_at: Option<Instant>,
    beat_at: Option<Instant>,
}

/// What came of a sign of life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Beat {
    /// Given, or not due.
    Alive,
    /// Somebody has closed the record.
    Dead,
}

impl Recording {
    /// Makes a recording of a run that was written down as started.
    #[must_use]
    pub fn of(recorder: Arc<Recorder>, start: RunStart) -> Self {
        let runs = vec![start.run_id.clone()];
        let waiting = StoredLines::default();
        let (next_line, doubtful) = (1, None);
        Self { recorder, start, runs, next_line, doubtful, waiting, storing: None, store_at: None, beat_at: None }
    }

    /// Returns what writes the record.
    #[must_use]
    pub fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    pub(super) fn runs(&self) -> &[RunId] {
        &self.runs
    }

    /// Returns who holds the leases, if that is not the present run: the process continues to hold what it took.
    pub(super) fn holder(&self) -> Option<RunId> {
        self.runs.first().filter(|_| self.runs.len() > 1).cloned()
    }

    /// Gives an entry its line. `new` is what the visit wrote, items and bytes.
    pub(super) fn add_line(&self, entry: &mut SessionEntry, outcome: Outcome, (media, bytes): (u64, u64)) {
        entry.run_id.clone_from(&self.start.run_id);
        entry.holder = self.holder();
        entry.line = Some(LineEntry { number: self.next_line, text: line_of(entry, outcome), media, bytes });
    }

    /// Keeps an entry whose commit failed for good.
    pub(super) fn doubt(&mut self, entry: &SessionEntry) {
        self.doubtful = Some(entry.clone());
    }

    /// Hands out the entry that must be committed before any other.
    pub(super) fn take_doubtful(&mut self) -> Option<SessionEntry> {
        self.doubtful.take()
    }

    /// Counts the line of an entry that was committed, and has a chunk stored when enough of them wait.
    pub(super) async fn committed(&mut self, entry: &SessionEntry) {
        self.next_line += 1;
        self.waiting.lines += 1;
        self.waiting.bytes += entry.line.as_ref().map_or(0, |line| line.text.len() as u64);
        if self.storing.as_ref().is_some_and(JoinHandle::is_finished) {
            self.end_storing().await;
        }
        self.store_if_full();
    }

    fn store_if_full(&mut self) {
        let is_full = self.waiting.lines >= CHUNK_LINES || self.waiting.bytes >= CHUNK_BYTES;
        let now = self.recorder.clock.instant();
        // What was not even an archive before its first manifest has no place for a chunk.
        let may_store = self.recorder.archiver.identity.known().is_some() && self.store_at.is_none_or(|at| at <= now);
        if is_full && may_store && self.storing.is_none() {
            let (recorder, run) = (Arc::clone(&self.recorder), self.start.run_id.clone());
            self.storing = Some(tokio::spawn(async move { recorder.store_chunk(&run, &run).await }));
        }
    }

    /// Takes over what the task did.
    async fn end_storing(&mut self) {
        let Some(storing) = self.storing.take() else { return };
        match storing.await {
            Ok(Ok(stored)) => {
                let stored = stored.unwrap_or_default();
                self.waiting.lines = self.waiting.lines.saturating_sub(stored.lines);
                self.waiting.bytes = self.waiting.bytes.saturating_sub(stored.bytes);
                self.store_at = None;
            }
            Ok(Err(error)) => {
                self.store_at = Some(self.recorder.clock.instant() + STORE_AGAIN);
                tracing::warn!(error.code = %error.code(), "a chunk of the run record is not stored yet; its lines wait in the ledger: {error}");
            }
            Err(error) => tracing::error!("storing a chunk of the run record failed: {error}"),
        }
    }

    /// Gives a sign of life, if it is time.
    pub(super) async fn beat(&mut self, ledger: &dyn Ledger, clock: &dyn Clock) -> Beat {
        let now = clock.instant();
        if self.beat_at.is_some_and(|at| now < at) {
            return Beat::Alive;
        }
        // If this comes to nothing, there is time for another try, and not each second.
        let lease = self.recorder.lease;
        self.beat_at = Some(now + lease / 12);
        match tokio::time::timeout(BEAT_PATIENCE, ledger.beat(&self.start.run_id, clock.now())).await {
            Ok(Ok(true)) => self.beat_at = Some(now + lease / 3),
            Ok(Ok(false)) => return Beat::Dead,
            Ok(Err(error)) => {
                tracing::warn!(error.code = %error.code(), "the heartbeat could not be recorded: {error}");
            }
            Err(_) => tracing::warn!("the heartbeat could not be recorded in time"),
        }
        Beat::Alive
    }

    /// Continues as another run, because somebody took this one for dead and closes its record with all lines it had.
    pub(super) async fn begin_another(
        &mut self,
        current: &CurrentRun,
        ledger: &dyn Ledger,
        clock: &dyn Clock,
    ) -> Result<(), LedgerError> {
        let now = clock.now();
        let start = RunStart { run_id: RunId::new(now), started_at: now, ..self.start.clone() };
        ledger.start_run(&start).await?;
        tracing::warn!(run.id = %start.run_id, closed.run.id = %self.start.run_id, "another run assumed this one was dead and closed its record; continuing as a new run");
        current.become_run(start.run_id.clone());
        // What it was storing is refused, and its lines are with whoever closes its record.
        self.storing = None;
        self.runs.push(start.run_id.clone());
        self.start = start;
        self.next_line = 1;
        self.doubtful = None;
        self.waiting = StoredLines::default();
        self.store_at = None;
        self.beat_at = None;
        Ok(())
    }

    /// Closes the record of the run, and those of runs that died.
    ///
    /// # Errors
    /// As [`Recorder::close`].
    pub async fn close(&mut self, ending: &Ending) -> Result<Option<Closed>, RecordError> {
        self.end_storing().await;
        let closed = self.recorder.close(&self.start.run_id, ending).await;
        if let Err(error) = self.recorder.close_lapsed(&self.start.run_id).await {
            tracing::warn!(error.code = %error.code(), "could not search for runs that died: {error}");
        }
        closed
    }
}

impl fmt::Debug for Recording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recording").field("runs", &self.runs).field("waiting", &self.waiting).finish_non_exhaustive()
    }
}
