//! Settling: what becomes of a session whose visit has ended.
//!
//! The gate first, because one refused or absent session tells nothing alone; then ledger, result line and source, in that
//! order. A session that may work later is set aside once.

use std::time::Duration;

use super::desk::Held;
use super::recording::Recording;
use super::{Done, End, Pass, Worker, code_of};
use crate::clock::Timestamp;
use crate::error::{Code, ErrorClass};
use crate::ledger::{LedgerError, SessionEntry, State};
use crate::model::SessionId;
use crate::model::request::SessionRequest;
use crate::retry::{Backoff, Tries};
use crate::run::gate::{StopReason, Verdict};
use crate::run::results::{ResultLine, ResultsError};
use crate::session::identity::IdentityError;
use crate::session::visit::Outcome;
use crate::session::visit::VisitError;
use crate::source::{Release, Source};
use crate::stop::Stopped;
use crate::veriff::VeriffError;

/// How often a ledger commit is tried before the run ends.
const COMMIT_TRIES: u32 = 8;

/// As how many runs one commit is tried: more than one only if this process stood still for a lease, which it then did
/// again and again.
const RUNS_A_COMMIT: u32 = 3;

/// A session that may still change is not looked at again sooner, however short `settle_after` is.
const SHORTEST_LOOK_AGAIN: Duration = Duration::from_secs(10);

impl Worker {
    /// Decides what becomes of a session whose visit has ended.
    pub(super) async fn judge(&mut self, done: Done, source: &mut dyn Source, pass: Pass) {
        let session = done.taken.record.session_id.clone();
        let Some(desk) = self.desks.get_mut(&done.taken.desk) else {
            return;
        };
        let verdict = match &done.visit {
            Ok(visit) if visit.was_heard => {
                desk.gate.heard();
                desk.worked.get_or_insert_with(|| done.taken.record.clone());
                match &visit.refusal {
                    Some(refusal) => desk.gate.refused(&session, refusal.refuses_key()),
                    None => Verdict::Settle,
                }
            }
            Ok(visit) if visit.outcome == Outcome::Absent => desk.gate.absent(&session),
            Err(VisitError::Veriff(refusal @ VeriffError::Unauthorized { .. })) => {
                desk.gate.refused(&session, refusal.refuses_key())
            }
            Ok(_) | Err(_) => {
                desk.gate.ended_otherwise();
                Verdict::Settle
            }
        };
        let heard = desk.gate.was_heard();
        match verdict {
            Verdict::Settle => self.settle(done, source, pass).await,
            Verdict::Hold => desk.held.push(Held::of(done)),
            Verdict::Probe => self.probe(done, source, pass).await,
            Verdict::Stop(reason) => self.stop_integration(done, source, reason).await,
        }
        // After the session itself: by now the gate is open, and what waited for it is judged like any other.
        if heard {
            self.settle_held_of(&session, source).await;
        }
    }

    /// Asks again for a session that worked, to tell a foreign session from credentials that were withdrawn.
    async fn probe(&mut self, done: Done, source: &mut dyn Source, pass: Pass) {
        let Some(desk) = self.desks.get_mut(&done.taken.desk) else {
            return;
        };
        if desk.is_refused_now().await
            && let Verdict::Stop(reason) = desk.gate.probe_was_refused()
        {
            return self.stop_integration(done, source, reason).await;
        }
        self.settle(done, source, pass).await;
    }

    /// Stops an integration; this session and all that are held stay pending. With none left, the run stops.
    async fn stop_integration(&mut self, done: Done, source: &mut dyn Source, reason: StopReason) {
        let name = done.taken.desk.clone();
        let held = self.desks.get_mut(&name).map(|desk| std::mem::take(&mut desk.held)).unwrap_or_default();
        let was_told = self.desks.get(&name).is_some_and(|desk| desk.was_told);
        if !was_told {
            self.meter.integration_stopped(&name);
            tracing::error!(integration = %name, error.code = %code_of(reason), "integration stopped: {}", reason.as_str());
            if let Some(desk) = self.desks.get_mut(&name) {
                desk.was_told = true;
            }
            source.park(&name);
        }
        for done in held.into_iter().map(Held::into_done).chain([done]) {
            let end = End {
                outcome: Outcome::Pending,
                code: Some(code_of(reason)),
                message: Some(reason.as_str().to_owned()),
            };
            self.write_down(done, end, source).await;
        }
        if self.stopped.is_none() && self.desks.values().all(|desk| desk.gate.stopped().is_some()) {
            self.stopped = Some(Stopped::Integrations);
        }
    }

    /// Settles what a desk holds, once one of its sessions was heard.
    async fn settle_held_of(&mut self, heard: &SessionId, source: &mut dyn Source) {
        let names: Vec<String> =
            self.desks.iter().filter(|(_, desk)| desk.gate.was_heard()).map(|(name, _)| name.clone()).collect();
        for name in names {
            let held = self.desks.get_mut(&name).map(|desk| std::mem::take(&mut desk.held)).unwrap_or_default();
            for done in held.into_iter().map(Held::into_done) {
                tracing::debug!(session.id = %done.taken.record.session_id, heard = %heard, "no longer held back");
                self.settle(done, source, Pass::Second).await;
            }
        }
    }

    /// Settles what is still held when no more sessions come.
    pub(super) async fn settle_held(&mut self, source: &mut dyn Source) {
        let names: Vec<String> = self.desks.keys().cloned().collect();
        for name in names {
            let Some(desk) = self.desks.get_mut(&name) else {
                continue;
            };
            let held = std::mem::take(&mut desk.held);
            if held.is_empty() {
                continue;
            }
            // A run that was cut short has not seen all of its sessions, and decides nothing about them.
            let verdict = if self.stopped.is_some() { None } else { Some(desk.gate.end()) };
            for done in held.into_iter().map(Held::into_done) {
                match verdict {
                    Some(Verdict::Stop(reason)) => self.stop_integration(done, source, reason).await,
                    Some(_) => self.settle(done, source, Pass::Second).await,
                    None => {
                        let message = Some("the run stopped before the result was known".to_owned());
                        let end = End { outcome: Outcome::Pending, code: Some(Code::RunStopped), message };
                        self.write_down(done, end, source).await;
                    }
                }
            }
        }
    }

    /// Settles a session that stands for itself.
    async fn settle(&mut self, mut done: Done, source: &mut dyn Source, pass: Pass) {
        // Here and not in the visit: only the gate knows an absent session from one of another integration, and a manifest
        // of absence is locked evidence that nobody can take back.
        if let Ok(visit) = &mut done.visit
            && let Some(absence) = visit.absence.take()
            && !self.dry_run
        {
            let (code, message) = (visit.code, visit.message.take());
            done.visit = self.archiver.record_absence(&done.taken.record, absence).await;
            if let Ok(visit) = &mut done.visit {
                (visit.code, visit.message) = (code, message);
            }
        }
        let end = match &done.visit {
            Ok(visit) => End { outcome: visit.outcome, code: visit.code, message: visit.message.clone() },
            Err(error) => self.end_of(error),
        };
        if end.code == Some(Code::StoreUnavailable) {
            self.meter.store.failed(self.clock.instant());
        }
        if pass == Pass::First
            && self.stopped.is_none()
            && !self.dry_run
            && let Some(code) = passing(&done, &end)
        {
            return self.defer(done, End { code: Some(code), ..end }, source).await;
        }
        self.write_down(done, end, source).await;
    }

    /// Says how a session ends whose visit came to nothing; a fatal error also ends the run.
    fn end_of(&mut self, error: &VisitError) -> End {
        let code = error.code();
        // A full store and a ledger out of reach may pass, but not within this run: every other session would be fetched
        // for nothing. Without archive.json nobody knows whose archive this is.
        let is_shadowed = matches!(error, VisitError::Identity(IdentityError::Shadowed { .. }));
        let ends_run = code.class() == ErrorClass::Fatal
            || code == Code::StoreFull
            || code == Code::LedgerUnavailable
            || is_shadowed;
        let mut outcome = Outcome::Failed;
        if ends_run {
            if self.stopped.is_none() {
                tracing::error!(error.code = %code, "the run ends: {error}");
                self.stopped = Some(Stopped::Fatal(code));
            }
            outcome = Outcome::Pending;
        }
        if code == Code::RunStopped {
            outcome = Outcome::Pending;
        }
        End { outcome, code: Some(code), message: Some(error.to_string()) }
    }

    /// Sets a session aside for another try at the end. The ledger keeps it, so that memory does not grow.
    /// A source that keeps it hands it out again, to whichever worker asks.
    async fn defer(&mut self, done: Done, end: End, source: &mut dyn Source) {
        let session = done.taken.record.session_id.clone();
        // The ledger before the source: as soon as the session is released another worker may have it, whose commit must
        // come after this one.
        if self.commit(&done, &end).await {
            tracing::info!(session.id = %session, error.code = end.code.map(tracing::field::display), "set aside for a second try at the end of the run");
            self.board.deferred.increment();
            if let Ok(visit) = &done.visit {
                self.tally.note(visit.new, &visit.anomalies);
                self.board.media.add(visit.new.0);
            }
            self.hand_back(&done.taken.delivery, source, Release::Later).await;
        } else {
            // Without the ledger there is no second try in which it would be counted.
            self.count(&done.taken.desk, Outcome::Pending, end.code);
        }
    }

    /// Counts a session once and for all, in the summary and in the metrics.
    pub(super) fn count(&mut self, integration: &str, outcome: Outcome, code: Option<Code>) {
        self.tally.count(outcome, code);
        self.meter.session_ended(integration, outcome.as_str(), code);
    }

    /// Writes a session's end into ledger and results, and tells the source, in that order.
    pub(super) async fn write_down(&mut self, done: Done, mut end: End, source: &mut dyn Source) {
        // It comes again by itself, so it has not failed yet.
        if self.source_keeps && end.outcome == Outcome::Failed && end.code.is_some_and(Code::is_retryable) {
            end.outcome = Outcome::Pending;
        }
        // Ledger, line, source. What is acknowledged never comes again, so by then the ledger must have it, and whoever
        // reads only the lines must find it. Dying in between costs a repetition, which finds the session archived.
        if !self.commit(&done, &end).await {
            // Archived perhaps, but nothing says so: the next run finds out from the store.
            end = End { outcome: Outcome::Pending, code: Some(Code::LedgerUnavailable), message: end.message };
        }
        self.log(&done, &end);
        self.count(&done.taken.desk, end.outcome, end.code);
        self.board.sessions.increment();
        if end.outcome == Outcome::Failed {
            self.board.failed.increment();
        }
        if let Ok(visit) = &done.visit {
            self.tally.note(visit.new, &visit.anomalies);
            self.board.media.add(visit.new.0);
        }
        let line = line(&done, &end);
        self.tell(&line).await;
        let told = match release_of(&end) {
            Some(how) => source.release(&done.taken.delivery, how).await,
            None => source.acknowledge(&done.taken.delivery).await,
        };
        if let Err(error) = told {
            self.source_failed(&error);
        }
    }

    /// Tells of a session that another worker has by now: nothing is written down, because that is for the other to do.
    pub(super) async fn tell_of_lost(&mut self, done: &Done) {
        let told = done.visit.as_ref().ok();
        let message = told.and_then(|visit| visit.message.clone());
        let end = End { outcome: Outcome::Pending, code: Some(Code::LeaseLost), message };
        self.log(done, &end);
        self.meter.leases_lost.increment();
        self.count(&done.taken.desk, end.outcome, end.code);
        self.board.sessions.increment();
        let line = line(done, &end);
        self.tell(&line).await;
    }

    /// Commits a session to the ledger; false if the ledger is out of reach, which ends the run.
    async fn commit(&mut self, done: &Done, end: &End) -> bool {
        if self.dry_run {
            return true;
        }
        let mut entry = self.entry(done, end);
        if let Some(deadline) = entry.deadline_at
            && matches!(end.outcome, Outcome::Failed | Outcome::Pending)
        {
            self.board.note_deadline(deadline.unix_seconds());
        }
        let new = done.visit.as_ref().map_or((0, 0), |visit| visit.new);
        match self.commit_recorded(&mut entry, end.outcome, new).await {
            Ok(()) => true,
            Err(error) => {
                tracing::error!(error.code = %error.code(), "the run ends: {error}");
                self.stopped.get_or_insert(Stopped::Fatal(error.code()));
                false
            }
        }
    }

    /// Commits an entry with its line of the run record. If this run was taken for dead meanwhile, the process goes on as
    /// another one, and nothing is lost.
    async fn commit_recorded(
        &mut self,
        entry: &mut SessionEntry,
        outcome: Outcome,
        new: (u64, u64),
    ) -> Result<(), LedgerError> {
        for _ in 0..RUNS_A_COMMIT {
            let committed = async {
                // A commit whose answer was lost may have used the number that the next line would get. It goes first, so
                // that no number is given twice and none is left out.
                if let Some(doubtful) = self.recording.as_mut().and_then(Recording::take_doubtful) {
                    Box::pin(self.commit_line(&doubtful)).await?;
                }
                if let Some(recording) = &self.recording {
                    recording.add_line(entry, outcome, new);
                }
                self.commit_line(entry).await
            };
            match committed.await {
                // Another run took this one for dead and closed its record: a line added to that would be in no record.
                Err(LedgerError::RunClosed(_)) => self.go_on_as_another_run().await?,
                committed => return committed,
            }
        }
        Err(LedgerError::RunClosed(entry.run_id.clone()))
    }

    /// Commits an entry that has its line, and sees to it that no other line gets the same number.
    async fn commit_line(&mut self, entry: &SessionEntry) -> Result<(), LedgerError> {
        let committed = self.commit_entry(entry).await;
        if let Some(recording) = &mut self.recording {
            match &committed {
                Ok(()) => recording.committed(entry).await,
                Err(_) => recording.doubt(entry),
            }
        }
        committed
    }

    async fn go_on_as_another_run(&mut self) -> Result<(), LedgerError> {
        match &mut self.recording {
            Some(recording) => recording.begin_another(&self.archiver.run, &*self.ledger, &*self.clock).await,
            None => Ok(()),
        }
    }

    async fn commit_entry(&self, entry: &SessionEntry) -> Result<(), LedgerError> {
        // Told to stop, a run ends with what the next one finds in the store anyway.
        let tries = Backoff::of_tries(COMMIT_TRIES).begin().until(&self.stop);
        let wait = |tries: &mut Tries, error: &LedgerError| {
            if error.code().is_retryable() { tries.wait(None) } else { None }
        };
        tries.run(wait, || self.ledger.commit(entry)).await.map(|_| ())
    }

    fn entry(&self, done: &Done, end: &End) -> SessionEntry {
        let visit = done.visit.as_ref().ok();
        let created_at = visit.and_then(|visit| visit.upstream_created_at);
        let decided_at = done.taken.record.decided_at.or_else(|| visit.and_then(|visit| visit.decided_at));
        SessionEntry {
            // What an earlier manifest tells, a ledger that was made anew learns, too.
            record: SessionRequest { decided_at, ..done.taken.record.clone() },
            integration: done.taken.desk.clone(),
            state: match end.outcome {
                Outcome::Archived | Outcome::Unchanged => State::Archived,
                Outcome::Absent => State::Absent,
                Outcome::Failed => State::Failed,
                Outcome::Pending => State::Pending,
            },
            code: end.code,
            message: end.message.clone(),
            upstream_created_at: created_at,
            deadline_at: self.deadline(&done.taken.desk, created_at, decided_at),
            manifest: visit.and_then(|visit| visit.manifest.clone()),
            complete: visit.is_some_and(|visit| visit.complete),
            settled: visit.is_some_and(|visit| visit.settled),
            media: visit.map(|visit| visit.media.clone()).unwrap_or_default(),
            run_id: self.archiver.run.id(),
            at: self.clock.now(),
            look_again_at: self.look_again_at(done, end, created_at, decided_at),
            holder: self.recording.as_ref().and_then(Recording::holder),
            line: None,
        }
    }

    /// Says when a session that may still change is to be looked at again: after `settle_after`, until it is settled or
    /// Veriff may have deleted it.
    fn look_again_at(
        &self,
        done: &Done,
        end: &End,
        created_at: Option<Timestamp>,
        decided_at: Option<Timestamp>,
    ) -> Option<Timestamp> {
        let visit = done.visit.as_ref().ok()?;
        let is_open = matches!(end.outcome, Outcome::Archived | Outcome::Unchanged) && !visit.settled;
        if !self.source_keeps || !is_open {
            return None;
        }
        let settings = self.desks.get(&done.taken.desk)?.integration.client.settings();
        let known = self.deadline(&done.taken.desk, created_at, decided_at);
        let gone_at = known.or_else(|| Some(visit.first_visit_at?.plus(settings.horizon)))?;
        let look_again_at = self.clock.now().plus(settings.settle_after.max(SHORTEST_LOOK_AGAIN));
        (look_again_at < gone_at).then_some(look_again_at)
    }

    /// Returns when Veriff may delete the media: the earliest time known of the session plus the horizon.
    fn deadline(&self, desk: &str, created_at: Option<Timestamp>, decided_at: Option<Timestamp>) -> Option<Timestamp> {
        let horizon = self.desks.get(desk)?.integration.client.settings().horizon;
        Some(created_at.into_iter().chain(decided_at).min()?.plus(horizon))
    }

    fn log(&self, done: &Done, end: &End) {
        let (session, desk) = (&done.taken.record.session_id, &done.taken.desk);
        let code = end.code.map(tracing::field::display);
        let duration_ms = u64::try_from(done.cost.duration.as_millis()).unwrap_or(u64::MAX);
        let new = done.visit.as_ref().map_or((0, 0), |visit| visit.new);
        let message = end.message.as_deref().unwrap_or_default();
        let outcome = end.outcome.as_str();
        match end.outcome {
            Outcome::Failed if end.code.is_some_and(|code| !code.is_retryable()) => {
                tracing::error!(run.id = %self.archiver.run.id(), session.id = %session, integration = %desk, outcome, error.code = code, duration_ms, "{message}");
            }
            Outcome::Failed | Outcome::Absent => {
                tracing::warn!(run.id = %self.archiver.run.id(), session.id = %session, integration = %desk, outcome, error.code = code, duration_ms, "{message}");
            }
            _ => {
                tracing::info!(run.id = %self.archiver.run.id(), session.id = %session, integration = %desk, outcome, error.code = code, media = new.0, size_bytes = new.1, duration_ms, "{message}");
            }
        }
    }

    /// Appends a result line. When that fails the run ends: the ledger has the rest.
    pub(super) async fn tell(&mut self, line: &ResultLine) {
        if self.dry_run {
            return;
        }
        if let Some(results) = &mut self.results
            && let Err(error) = results.append(line).await
        {
            self.lose_results(&error);
        }
    }

    pub(super) fn lose_results(&mut self, error: &ResultsError) {
        tracing::error!(error.code = %error.code(), "results can no longer be written: {error}");
        self.stopped.get_or_insert(Stopped::Fatal(error.code()));
        self.results = None;
    }
}

/// Says how a session that ended is given back to its source; nothing if it is done.
fn release_of(end: &End) -> Option<Release> {
    match end.outcome {
        Outcome::Archived | Outcome::Unchanged | Outcome::Absent => None,
        Outcome::Failed => Some(Release::ForGood),
        Outcome::Pending if end.code == Some(Code::RunStopped) => Some(Release::AtOnce),
        Outcome::Pending => Some(Release::Later),
    }
}

/// Returns the code of what made a session fail and may pass, be it one item among others that failed for good.
fn passing(done: &Done, end: &End) -> Option<Code> {
    if end.outcome != Outcome::Failed {
        return None;
    }
    let of_item = || done.visit.as_ref().ok().and_then(|visit| visit.passing);
    end.code.filter(|code| code.is_retryable()).or_else(of_item)
}

fn line(done: &Done, end: &End) -> ResultLine {
    let mut line = ResultLine::of(done.taken.record.clone(), end.outcome);
    line.code = end.code;
    line.message.clone_from(&end.message);
    line.requests = done.cost.requests.into();
    line.retries = done.cost.retries.into();
    line.duration_ms = u64::try_from(done.cost.duration.as_millis()).unwrap_or(u64::MAX);
    if let Ok(visit) = &done.visit {
        line.complete = visit.complete;
        line.settled = visit.settled;
        line.media = visit.media.len() as u64;
        line.bytes = visit.media.iter().map(|media| media.size_bytes).sum();
        line.manifest_key = visit.manifest.as_ref().map(|manifest| manifest.key.clone());
        line.manifest_sha256 = visit.manifest.as_ref().map(|manifest| manifest.sha256);
    }
    line
}
