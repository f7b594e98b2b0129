//! `run`: archives the sessions of one source and exits.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use tokio_util::sync::CancellationToken;

use super::connect::{Holder, open_file, open_leased, open_store};
use super::output::print;
use super::progress::{self, ProgressArg, Shown};
use super::source::SourceArgs;
use super::summary::{RunFacts, next, summarise};
use super::{GlobalArgs, StoreArgs};
use super::{recording, signals};
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::config::Config;
use crate::error::Exit;
use crate::ledger::{self, Overview, RunFinish, RunLog, Survey};
use crate::metrics::Meter;
use crate::model::RunId;
use crate::model::signature::SigningKey;
use crate::model::units::{parse_duration, parse_size};
use crate::retry::Backoff;
use crate::run::backlog::BacklogView;
use crate::run::results::ResultsFile;
use crate::run::summary::{HorizonSummary, Summary, Tally, days_until, exit_of};
use crate::run::{Desk, Limits, Parts, WorkSettings, Worker};
use crate::session::body::Habits;
use crate::session::budget::Budget;
use crate::session::identity::Identity;
use crate::session::writer::ArchiveWriter;
use crate::session::{Archiver, CurrentRun, Integration};
use crate::source::Source;
use crate::stop::Stop;
use crate::store::policy::demand;
use crate::store::retrying::{Event, RetryingStore};
use crate::store::settings::StoreSettings;
use crate::store::{ReadStore as _, Store};
use crate::telemetry::{Telemetry, Watched};
use crate::veriff::VeriffClient;

const AFTER_HELP: &str = "\
Exit codes:
    0  every session ended well, or there was nothing to do
    3  finished; some sessions failed for good or are absent upstream
    5  finished or cut short; all that failed may work later
    6  a pending session is past its horizon or within the alarm
   10  stopped at one of its own limits; work is left
   77  credentials refused, clock off, or the store is not what the policy demands
   78  invalid configuration, or an older or newer ledger schema
  130  stopped by SIGINT; drained
  143  stopped by SIGTERM; drained

Examples:
  veriff-archive run --sessions ids.txt --store file:///var/lib/veriff-archive/store
  veriff-archive run --sessions s3://exports/sessions.csv --store s3://archive/veriff --max-duration 4h
  veriff-archive run --sessions results.ndjson --only unfinished --results results.ndjson
  veriff-archive run --backlog --max-duration 6h
  veriff-archive run --queue https://sqs.eu-central-1.amazonaws.com/123456789012/sessions --idle-exit 0s

Repeating the identical command is always safe: what is already archived is recognised and not fetched again.";

/// Archive the sessions of one source and exit
#[derive(Debug, Clone, Args)]
#[command(after_help = AFTER_HELP)]
pub struct RunArgs {
    /// Where the sessions come from.
    #[command(flatten)]
    pub source: SourceArgs,
    /// Where they go.
    #[command(flatten)]
    pub store: StoreArgs,
    /// Append one NDJSON line per session to this file; created if it does not exist
    #[arg(long, value_name = "PATH")]
    pub results: Option<PathBuf>,
    /// Continue even if the first sessions of an integration are all absent upstream
    #[arg(long)]
    pub expect_absent: bool,
    /// Check everything and report what would be done, writing nothing; not for a queue, see `plan --queue`
    #[arg(long, conflicts_with = "queue")]
    pub dry_run: bool,
    /// Stop after this many sessions
    #[arg(long, value_name = "N", help_heading = "Limits", value_parser = clap::value_parser!(u64).range(1..))]
    pub max_sessions: Option<u64>,
    /// Stop after this time, such as 4h
    #[arg(long, value_name = "DURATION", help_heading = "Limits", value_parser = parse_duration)]
    pub max_duration: Option<Duration>,
    /// Stop after this many bytes of media, such as 500GiB
    #[arg(long, value_name = "SIZE", help_heading = "Limits", value_parser = parse_size)]
    pub max_bytes: Option<u64>,
    /// Stop after this many failed sessions
    #[arg(long, value_name = "N", help_heading = "Limits", value_parser = clap::value_parser!(u64).range(1..))]
    pub max_failures: Option<u64>,
    /// Exit code when stopped at one of these limits; 0 for orchestrators that only know success
    #[arg(long, value_name = "CODE", default_value_t = Exit::LIMIT_CODE, help_heading = "Limits")]
    pub limit_exit_code: u8,
    /// How long sessions in flight may take to finish after a signal
    #[arg(long, value_name = "DURATION", default_value = "25s", help_heading = "Limits", value_parser = parse_duration)]
    pub drain_timeout: Duration,
    /// How to show progress on standard error
    #[arg(long, value_name = "HOW", default_value = "auto")]
    pub progress: ProgressArg,
}

/// Runs the command.
///
/// # Errors
/// Whatever stops the run before its first session.
pub(super) async fn run(
    args: RunArgs,
    global: &GlobalArgs,
    config: Config,
    typed: &[OsString],
) -> anyhow::Result<Exit> {
    let watched = watched(&config);
    let telemetry = Telemetry::start(&config.telemetry, watched.clone()).await?;
    let ended = Box::pin(archive(&args, global, &config, typed, &watched, &telemetry)).await;
    let exit = ended.as_ref().map_or_else(super::exit_of, |exit| *exit);
    telemetry.finish(exit.code()).await;
    ended
}

/// Begins the run for whoever watches it.
fn watched(config: &Config) -> Watched {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let started_at = clock.now();
    Watched {
        run_id: RunId::new(started_at),
        started_at,
        meter: Arc::new(Meter::starting(clock.instant())),
        board: Arc::default(),
        integrations: config.integrations.keys().cloned().collect(),
        no_progress: config.limits.no_progress,
        clock,
    }
}

/// Archives, from signals to summary.
async fn archive(
    args: &RunArgs,
    global: &GlobalArgs,
    config: &Config,
    typed: &[OsString],
    watched: &Watched,
    telemetry: &Telemetry,
) -> anyhow::Result<Exit> {
    let stop = Stop::default();
    signals::listen(stop.clone()).context("cannot listen for signals")?;
    let prepared = tokio::select! {
        prepared = Box::pin(prepare(args, config, watched, &stop)) => prepared?,
        stopped = stop.requested() => return Ok(exit_of(&Tally::default(), Some(stopped), false, HorizonSummary::default(), 0)),
    };
    let Prepared { mut parts, source, signer } = prepared;
    let Parts { archiver, ledger, clock, .. } = &parts;
    let (archiver, ledger, clock) = (Arc::clone(archiver), Arc::clone(ledger), Arc::clone(clock));
    let started_at = watched.started_at;
    if !args.dry_run {
        parts.recording = Some(recording::begin(&parts, &*source, config, signer, started_at).await?);
    }
    let sessions = args.source.sessions.clone();
    let (meter, board) = (Arc::clone(&watched.meter), Arc::clone(&watched.board));
    let progress = progress::show(args.progress, Shown { meter, board, clock: Arc::clone(&clock), source: sessions });
    // The ledger of a dry run is empty and would be reported as such.
    let watch = (!args.dry_run).then(|| telemetry.watch_ledger(ledger.clone(), config.limits.horizon_alarm));
    let worker = Worker::new(parts, work_settings(args, config));
    let mut done = Box::pin(worker.run(source)).await;
    progress.finish().await;

    let overview = overview(&*ledger, config, &*clock).await;
    if let Some(watch) = watch {
        watch.finish(overview.as_ref()).await;
    }
    let horizon = horizon(overview.as_ref(), clock.now());
    let is_any_stopped = !done.stopped_integrations.is_empty();
    let exit = exit_of(&done.tally, done.stopped, is_any_stopped, horizon, args.limit_exit_code);
    let run_record = recording::end(&mut done, exit).await;
    let run = RunFacts { run_id: archiver.run.id(), dry_run: args.dry_run, started_at, finished_at: clock.now() };
    let summary = Summary { run_record, ..summarise(run, &done, &watched.meter, horizon, exit, next(exit, typed)) };
    if !args.dry_run {
        write_end(&*ledger, &summary).await;
    }
    ledger.close().await;
    print(&summary, global.format())?;
    Ok(exit)
}

/// Everything a run needs.
struct Prepared {
    parts: Parts,
    source: Box<dyn Source>,
    signer: Option<SigningKey>,
}

/// Opens everything a run needs, in the order in which a mistake is cheapest to find; writes nothing.
async fn prepare(args: &RunArgs, config: &Config, watched: &Watched, stop: &Stop) -> anyhow::Result<Prepared> {
    let Watched { clock, meter, .. } = watched;
    let settings = config.require_store()?;
    let signer = config.signing.load().await?;
    let integrations = connect(config, args, clock, meter).await?;
    let file = match &args.source.sessions {
        Some(sessions) => Some(open_file(sessions, &args.source.format, config, clock).await?),
        None => None,
    };
    let store = reach_store(settings, config, clock, meter).await?;
    let ledger = ledger::open(if args.dry_run { "sqlite::memory:" } else { &config.ledger_url }).await?;
    let source: Box<dyn Source> = match file {
        Some(file) => file,
        // A dry run takes no lease: it only looks at what the real ledger has.
        None if args.dry_run => Box::new(BacklogView::new(ledger::open(&config.ledger_url).await?)),
        None => {
            let holder = Holder { ledger: Arc::clone(&ledger), run_id: watched.run_id.clone() };
            open_leased(&args.source, config, clock, holder).await?
        }
    };
    let archiver = Archiver {
        identity: Identity::find(&*store, Arc::clone(&ledger)).await?,
        writer: ArchiveWriter::new(store, config.retention.clone(), settings.kms_key_id().map(str::to_owned)),
        budget: Budget::of_memory(config.limits.memory_bytes),
        max_media_size_bytes: config.limits.max_media_size_bytes,
        meter: Arc::clone(meter),
        run: CurrentRun::new(watched.run_id.clone()),
        abandon: CancellationToken::new(),
    };
    let results = match &args.results {
        Some(path) if !args.dry_run => Some(ResultsFile::open(path).await?),
        _ => None,
    };
    let desk = |(name, integration)| (name, Desk::of(integration, args.expect_absent));
    let parts = Parts {
        archiver: Arc::new(archiver),
        desks: integrations.into_iter().map(desk).collect(),
        ledger,
        recording: None,
        results,
        clock: Arc::clone(clock),
        meter: Arc::clone(meter),
        board: Arc::clone(&watched.board),
        stop: stop.clone(),
    };
    Ok(Prepared { parts, source, signer })
}

/// Writes down how the run ended; the summary reports it in any case.
async fn write_end(ledger: &dyn RunLog, summary: &Summary) {
    let finish = RunFinish {
        run_id: summary.run_id.clone(),
        finished_at: summary.finished_at,
        exit_code: summary.exit_code,
        counts: summary.counts,
    };
    if let Err(error) = ledger.finish_run(&finish).await {
        tracing::warn!(error.code = %error.code(), "the end of the run could not be recorded: {error}");
    }
}

/// Makes a client for each integration.
async fn connect(
    config: &Config,
    args: &RunArgs,
    clock: &Arc<dyn Clock>,
    meter: &Arc<Meter>,
) -> anyhow::Result<BTreeMap<String, Arc<Integration>>> {
    if let Some(name) = &args.source.integration {
        config.integration_of(Some(name), None)?;
    }
    let mut integrations = BTreeMap::new();
    for (name, settings) in config.require_integrations()? {
        let (clock, meter) = (Arc::clone(clock), Arc::clone(meter));
        let client = VeriffClient::connect(settings.clone(), config.limits.tries, clock, meter).await?;
        integrations.insert(name.clone(), Arc::new(Integration { client, habits: Habits::default() }));
    }
    Ok(integrations)
}

/// Opens the store, retried, and refuses one that is not what the policy demands.
async fn reach_store(
    settings: &StoreSettings,
    config: &Config,
    clock: &Arc<dyn Clock>,
    meter: &Arc<Meter>,
) -> anyhow::Result<Arc<dyn Store>> {
    let (told_clock, told_meter) = (Arc::clone(clock), Arc::clone(meter));
    let store = RetryingStore::new(
        open_store(settings, clock).await?,
        Backoff::of_tries(config.limits.tries),
        Arc::new(move |event| match event {
            Event::Succeeded => told_meter.store.succeeded(told_clock.instant()),
            Event::Retried => told_meter.store_retries.increment(),
        }),
    );
    let report = store.check().await?;
    demand(&report, config.retention.demands_locks() && settings.url().can_lock())?;
    Ok(Arc::new(store))
}

fn work_settings(args: &RunArgs, config: &Config) -> WorkSettings {
    let limits = Limits {
        sessions_in_flight: config.limits.sessions_in_flight,
        no_progress: config.limits.no_progress,
        drain_timeout: args.drain_timeout,
        max_sessions: args.max_sessions,
        max_duration: args.max_duration,
        max_bytes: args.max_bytes,
        max_failures: args.max_failures,
    };
    WorkSettings {
        default_integration: args.source.integration.clone(),
        limits,
        skip_settled: args.source.skip_settled,
        dry_run: args.dry_run,
    }
}

/// Asks the ledger for its sums. A ledger that does not answer has already decided how the run ends.
async fn overview(ledger: &dyn Survey, config: &Config, clock: &dyn Clock) -> Option<Overview> {
    let overview = ledger.overview(clock.now(), config.limits.horizon_alarm).await;
    overview.map_err(|error| tracing::warn!(error.code = %error.code(), "deadlines are unknown: {error}")).ok()
}

fn horizon(overview: Option<&Overview>, now: Timestamp) -> HorizonSummary {
    overview.map_or_else(HorizonSummary::default, |overview| HorizonSummary {
        nearest_days_left: overview.nearest_deadline_at.map(|deadline| days_until(deadline, now)),
        unknown: overview.unknown_deadlines,
        within_alarm: overview.within_alarm,
        past: overview.past_horizon,
    })
}
