//! Worker: many sessions at once, from a source until it ends or the run is told to stop.
//!
//! Receives, bounds, settles: each session's ledger commit, result line and acknowledgement, in that order, after its
//! manifest stands. What failed in a way that may pass is tried once more at the end. Every line that is received is
//! counted once, whatever happens to it.

pub mod backlog;
mod desk;
mod flight;
pub mod gate;
mod intake;
mod limits;
pub mod record;
mod recording;
pub mod results;
mod second;
mod settle;
pub mod summary;
pub mod unfinished;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

pub use self::desk::Desk;
use self::desk::Held;
use self::flight::{Finished, Flight, Landing};
pub use self::limits::Limits;
use self::recording::Beat;
pub use self::recording::Recording;
use self::second::SecondTry;
use crate::clock::Clock;
use crate::error::Code;
use crate::ledger::Ledger;
use crate::metrics::{Board, Meter, SessionMeter};
use crate::model::RunId;
use crate::model::request::SessionRequest;
use crate::run::gate::StopReason;
use crate::run::results::ResultsFile;
use crate::run::summary::Tally;
use crate::session::visit::Outcome;
use crate::session::visit::{Visit, VisitError};
use crate::session::{Archiver, Integration};
use crate::source::{Delivery, Release, Source, SourceError};
use crate::stop::{Stop, Stopped};

/// How often limits on time are looked at.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// How long the renewal of leases may take before the worker turns to something else.
const RENEW_PATIENCE: Duration = Duration::from_secs(5);

/// How long a source may take to give back what was never begun.
const CLOSE_PATIENCE: Duration = Duration::from_secs(3);

/// How long work that was told to give up may take to clean up behind itself.
const ABANDON_GRACE: Duration = Duration::from_secs(3);

/// How many sessions are under way until one of them was heard: as many as the gate needs to tell refused credentials, so
/// that wrong ones are told within a handful of requests.
const FIRST_SESSIONS_IN_FLIGHT: usize = 3;

/// Works through a source.
#[derive(Debug)]
pub struct Worker {
    archiver: Arc<Archiver>,
    desks: BTreeMap<String, Desk>,
    ledger: Arc<dyn Ledger>,
    recording: Option<Recording>,
    /// `None` also after it could not be written.
    results: Option<ResultsFile>,
    default_integration: Option<String>,
    limits: Limits,
    skip_settled: bool,
    dry_run: bool,
    clock: Arc<dyn Clock>,
    meter: Arc<Meter>,
    board: Arc<Board>,
    stop: Stop,
    tally: Tally,
    records: u64,
    /// See [`Source::keeps`].
    source_keeps: bool,
    stopped: Option<Stopped>,
}

/// What a worker works with.
#[derive(Debug)]
pub struct Parts {
    /// Archives one session.
    pub archiver: Arc<Archiver>,
    /// The integrations, by name.
    pub desks: BTreeMap<String, Desk>,
    /// What was archived is written down here.
    pub ledger: Arc<dyn Ledger>,
    /// What the run record is made of; nothing if it has none.
    pub recording: Option<Recording>,
    /// Each session's end is written here, too.
    pub results: Option<ResultsFile>,
    /// Says what time it is.
    pub clock: Arc<dyn Clock>,
    /// Counts.
    pub meter: Arc<Meter>,
    /// Shows.
    pub board: Arc<Board>,
    /// Ends the run early.
    pub stop: Stop,
}

/// How a worker works.
#[derive(Debug, Clone)]
pub struct WorkSettings {
    /// The integration of requests that name none.
    pub default_integration: Option<String>,
    /// The limits.
    pub limits: Limits,
    /// Sessions that are settled are not asked for again.
    pub skip_settled: bool,
    /// Nothing is written; sessions are only inspected.
    pub dry_run: bool,
}

/// What came of the work.
#[derive(Debug)]
pub struct Worked {
    /// What was done.
    pub tally: Tally,
    /// How many requests were received.
    pub records: u64,
    /// What the source says of itself.
    pub source: crate::source::Tally,
    /// Why the run stopped early, if it did.
    pub stopped: Option<Stopped>,
    /// The integrations that were stopped, and why.
    pub stopped_integrations: BTreeMap<String, StopReason>,
    /// What the run record is made of; still to be closed.
    pub recording: Option<Recording>,
}

/// A session under way.
#[derive(Debug)]
struct Taken {
    delivery: Delivery,
    record: SessionRequest,
    desk: String,
}

/// A session whose visit has ended.
#[derive(Debug)]
struct Done {
    taken: Taken,
    visit: Result<Visit, VisitError>,
    cost: Cost,
}

/// What a visit cost.
#[derive(Debug, Clone, Copy, Default)]
struct Cost {
    requests: u32,
    retries: u32,
    duration: Duration,
}

/// How a session is written down.
#[derive(Debug)]
struct End {
    outcome: Outcome,
    code: Option<Code>,
    message: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pass {
    /// What the source hands out.
    First,
    /// What was set aside, tried once more.
    Second,
    /// What was set aside and not tried again: it is only told of.
    Telling,
}

impl Worker {
    /// Makes a worker that has done nothing yet.
    #[must_use]
    pub fn new(parts: Parts, settings: WorkSettings) -> Self {
        let Parts { archiver, desks, ledger, recording, results, clock, meter, board, stop } = parts;
        let WorkSettings { default_integration, limits, skip_settled, dry_run } = settings;
        Self {
            archiver,
            desks,
            ledger,
            recording,
            results,
            default_integration,
            limits,
            skip_settled,
            dry_run,
            clock,
            meter,
            board,
            stop,
            tally: Tally::default(),
            records: 0,
            source_keeps: false,
            stopped: None,
        }
    }

    /// Works until the source ends or the run is told to stop.
    pub async fn run(mut self, mut source: Box<dyn Source>) -> Worked {
        self.source_keeps = source.keeps();
        Box::pin(self.work(source.as_mut(), Pass::First)).await;
        self.settle_held(source.as_mut()).await;
        let deferred = self.board.deferred.get();
        if deferred > 0 {
            let before = self.tally.sessions();
            if self.stopped.is_none() && source.turn_back() {
                Box::pin(self.work(source.as_mut(), Pass::Second)).await;
                self.settle_held(source.as_mut()).await;
            }
            // What a source keeps is with it again, and is only told of.
            let pass = if self.source_keeps { Pass::Telling } else { Pass::Second };
            let mut second = SecondTry::of(self.ledger.clone(), self.runs());
            Box::pin(self.work(&mut second, pass)).await;
            self.settle_held(&mut second).await;
            let rest = deferred.saturating_sub(self.tally.sessions() - before);
            if matches!(self.stopped, Some(Stopped::Fatal(_))) {
                // The ledger, which has them, could not be read to its end.
                (0..rest).for_each(|_| self.count("", Outcome::Pending, Some(Code::LedgerUnavailable)));
            } else {
                self.tally.repeated += rest;
            }
        }
        // Bounded, because a ledger or a queue that does not answer must not hold up the end of a run.
        match tokio::time::timeout(CLOSE_PATIENCE, source.close()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(error.code = %error.code(), "sessions that were taken and not started are delivered again when their leases lapse: {error}");
            }
            Err(_) => {
                tracing::warn!("sessions that were taken and not started are delivered again when their leases lapse");
            }
        }
        if let Some(results) = self.results.take()
            && let Err(error) = results.finish().await
        {
            self.lose_results(&error);
        }
        let stopped = |(name, desk): (String, Desk)| Some((name, desk.gate.stopped()?));
        Worked {
            tally: self.tally,
            records: self.records,
            source: source.tally(),
            stopped: self.stopped,
            stopped_integrations: self.desks.into_iter().filter_map(stopped).collect(),
            recording: self.recording,
        }
    }

    /// Keeps sessions in flight until there are no more to take.
    async fn work(&mut self, source: &mut dyn Source, pass: Pass) {
        let mut flight = Flight::default();
        let mut waiting: Option<Delivery> = None;
        let mut ended = false;
        let mut watch = tokio::time::interval(WATCH_INTERVAL);
        let stop = self.stop.clone();
        loop {
            if let Some(delivery) = waiting.take_if(|delivery| !flight.has(delivery)) {
                self.take(delivery, source, &mut flight, pass).await;
            }
            if self.stopped.is_some() {
                Box::pin(self.drain(source, &mut flight)).await;
                // What this run set aside is told of even when it is not tried again.
                ended |= pass == Pass::First;
            }
            if ended && flight.is_empty() {
                break;
            }
            let has_room = !ended && waiting.is_none() && flight.len() < self.sessions_in_flight();
            tokio::select! {
                biased;
                stopped = stop.requested(), if self.stopped.is_none() => self.stopped = Some(stopped),
                Some(landing) = flight.next(), if !flight.is_empty() => self.landed(landing, source, pass).await,
                _ = watch.tick() => {
                    self.watch(!flight.is_empty());
                    self.beat().await;
                    self.renew(source, &mut flight, waiting.as_ref()).await;
                }
                received = source.receive(), if has_room => match received {
                    Ok(Some(delivery)) if self.is_over_limit(pass) => self.hand_back(&delivery, source, Release::AtOnce).await,
                    Ok(Some(delivery)) => {
                        self.records += u64::from(pass == Pass::First);
                        if flight.has(&delivery) {
                            waiting = Some(delivery);
                        } else {
                            self.take(delivery, source, &mut flight, pass).await;
                        }
                    }
                    Ok(None) => ended = true,
                    Err(error) => {
                        self.source_failed(&error);
                        ended = true;
                    }
                },
            }
            self.board.in_flight.store(u32::try_from(flight.len()).unwrap_or(u32::MAX), Ordering::Relaxed);
        }
        // A run that was told to stop leaves the loop from its drain.
        self.board.in_flight.store(0, Ordering::Relaxed);
        if let Some(delivery) = waiting {
            self.give_back(delivery, source, Code::RunStopped, "the run was stopped").await;
        }
    }

    fn sessions_in_flight(&self) -> usize {
        let limit = self.limits.sessions_in_flight;
        let is_untried = |desk: &Desk| desk.gate.is_untried() && !desk.integration.client.was_answered();
        if self.desks.values().all(is_untried) { limit.min(FIRST_SESSIONS_IN_FLIGHT) } else { limit }
    }

    /// Prepares the work on one session.
    fn visit(
        &self,
        integration: Arc<Integration>,
        record: SessionRequest,
        skip_settled: Option<bool>,
    ) -> impl Future<Output = Finished> + Send + 'static {
        let (archiver, clock, dry_run) = (Arc::clone(&self.archiver), Arc::clone(&self.clock), self.dry_run);
        async move {
            let meter = SessionMeter::default();
            let started = clock.instant();
            let visit = if dry_run {
                archiver.survey(&integration, &record, skip_settled, &meter).await
            } else {
                archiver.archive_session(&integration, &record, skip_settled, &meter).await
            };
            (visit, Cost::of(&meter, started, clock.as_ref()))
        }
    }

    /// Settles a session that landed. A panic is a defect of this program: the run stops, the session stays pending.
    async fn landed(&mut self, landing: Landing, source: &mut dyn Source, pass: Pass) {
        match landing {
            Landing::Ended(done) => self.judge(done, source, pass).await,
            Landing::Panicked(done) => {
                self.stopped = Some(Stopped::Fatal(Code::InternalError));
                self.write_down_pending(done, source).await;
            }
            Landing::Lost(done) => self.tell_of_lost(&done).await,
        }
    }

    /// Renews the leases of all that is in hand. What is lost is given up: another worker has it, and two do no harm but
    /// do the work twice.
    async fn renew(&mut self, source: &mut dyn Source, flight: &mut Flight, waiting: Option<&Delivery>) {
        let held = self.desks.values().flat_map(|desk| desk.held.iter().map(Held::delivery));
        let in_hand: Vec<&Delivery> = flight.deliveries().chain(held).chain(waiting).collect();
        // Bounded, so that a ledger or a queue that does not answer holds up neither what lands nor a signal.
        let Ok(extended) = tokio::time::timeout(RENEW_PATIENCE, source.extend(&in_hand)).await else {
            return tracing::warn!("leases could not be renewed in time");
        };
        match extended {
            Ok(lost) => {
                for session in lost {
                    tracing::warn!(session.id = %session, error.code = %Code::LeaseLost, "the lease was not renewed in time");
                    flight.abandon(&session);
                }
            }
            // They last for a while yet, and are renewed at the next look.
            Err(error) => tracing::warn!(error.code = %error.code(), "leases could not be renewed: {error}"),
        }
    }

    /// Gives the sign of life that keeps others from closing this run's record.
    async fn beat(&mut self) {
        if let Some(recording) = &mut self.recording
            && recording.beat(&*self.ledger, &*self.clock).await == Beat::Dead
            && let Err(error) = recording.begin_another(&self.archiver.run, &*self.ledger, &*self.clock).await
        {
            // The next commit meets it again.
            tracing::warn!(error.code = %error.code(), "another run assumed this one was dead, and it could not start anew yet: {error}");
        }
    }

    /// Lists the runs as which this process has worked.
    fn runs(&self) -> Vec<RunId> {
        self.recording.as_ref().map_or_else(|| vec![self.archiver.run.id()], |recording| recording.runs().to_vec())
    }

    /// Waits for sessions in flight, then gives them up; each is settled one way or the other.
    async fn drain(&mut self, source: &mut dyn Source, flight: &mut Flight) {
        let is_stuck = self.stopped == Some(Stopped::NoProgress);
        let patience = if is_stuck { Duration::ZERO } else { self.limits.drain_timeout };
        let abandon_at = self.clock.instant() + patience;
        Box::pin(self.settle_until(abandon_at, source, flight)).await;
        if flight.is_empty() {
            return;
        }
        tracing::warn!(sessions = flight.len(), "abandoning sessions in flight");
        self.archiver.abandon.cancel();
        Box::pin(self.settle_until(abandon_at + ABANDON_GRACE, source, flight)).await;
        for done in flight.give_up().await {
            self.write_down_pending(done, source).await;
        }
    }

    async fn settle_until(&mut self, until: Instant, source: &mut dyn Source, flight: &mut Flight) {
        let mut watch = tokio::time::interval(WATCH_INTERVAL);
        loop {
            tokio::select! {
                biased;
                landing = flight.next() => match landing {
                    Some(landing) => self.landed(landing, source, Pass::Second).await,
                    None => return,
                },
                () = tokio::time::sleep_until(until.into()) => return,
                _ = watch.tick() => {
                    self.beat().await;
                    self.renew(source, flight, None).await;
                }
            }
        }
    }

    /// Writes down a session that was not done, with the reason its visit bears.
    async fn write_down_pending(&mut self, done: Done, source: &mut dyn Source) {
        let told = done.visit.as_ref().ok();
        let (code, message) = (told.and_then(|visit| visit.code), told.and_then(|visit| visit.message.clone()));
        self.write_down(done, End { outcome: Outcome::Pending, code, message }, source).await;
    }

    fn source_failed(&mut self, error: &SourceError) {
        tracing::error!(error.code = %error.code(), "the source failed: {error}");
        self.stopped.get_or_insert(Stopped::Fatal(error.code()));
    }
}

impl Cost {
    fn of(meter: &SessionMeter, started: Instant, clock: &dyn Clock) -> Self {
        Self {
            requests: meter.requests(),
            retries: meter.retries(),
            duration: clock.instant().saturating_duration_since(started),
        }
    }
}

const fn code_of(reason: StopReason) -> Code {
    match reason {
        StopReason::Refused => Code::VeriffUnauthorized,
        StopReason::AllAbsent => Code::VeriffAbsent,
    }
}
