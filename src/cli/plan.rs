//! `plan`: what a run over the same source would have to do, changing nothing.
//!
//! One pass over the records and the ledger; Veriff is asked only for a sample, and only for lists.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::Arc;

use clap::Args;

use super::connect::open_file;
use super::output::{Answer, print};
use super::source::SourceArgs;
use super::{GlobalArgs, StoreArgs};
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::error::Exit;
use crate::ledger::{self, Overview, Survey};
use crate::model::request::SessionRequest;
use crate::plan::{Estimate, Plan, Sample, Sampler, Tally, ratio};
use crate::run::backlog::BacklogView;
use crate::source::{Delivery, Source, sqs};
use crate::store::settings::StoreSettings;
use crate::veriff::settings::IntegrationSettings;

/// How many bad lines are reported one by one; the others are only counted.
const BAD_LINES_TOLD: u64 = 20;

const AFTER_HELP: &str = "\
Changes nothing, and asks Veriff only with --sample. The numbers are estimates, based on the sample, else on earlier \
sessions in the ledger, else on 6 media items and 10 MiB per session. A session named twice is counted twice. Messages of \
a queue are only counted, each as one unknown session.

Exit codes:
    0  every session with a known deadline can be archived in time
    6  some sessions cannot be archived before their horizon at the configured rate
   77  credentials refused, with --sample or --queue
   78  invalid configuration

Examples:
  veriff-archive plan --sessions ids.txt --store s3://archive/veriff
  veriff-archive plan --sessions ids.txt --sample 50 --output json
  veriff-archive plan --queue https://sqs.eu-central-1.amazonaws.com/123456789012/sessions";

/// Estimate what a run would do, changing nothing
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct PlanArgs {
    #[command(flatten)]
    source: SourceArgs,
    #[command(flatten)]
    store: StoreArgs,
    /// Estimate from the lists of this many sessions, the first of the file or the backlog; asks Veriff for them
    #[arg(long, value_name = "N", conflicts_with = "queue", value_parser = clap::value_parser!(u16).range(1..=1000))]
    sample: Option<u16>,
    /// Price of 1,000 PUT requests in US dollars [default: 0.005, S3 Standard in us-east-1]
    #[arg(long, value_name = "USD", default_value_t = 0.005, hide_default_value = true)]
    put_price: f64,
}

pub(super) async fn run(args: &PlanArgs, global: &GlobalArgs) -> anyhow::Result<Exit> {
    let config = global.load_config(args.store.store.as_deref())?;
    config.integration_of(None, args.source.integration.as_deref())?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let now = clock.now();
    let mut source = open_source(&args.source, &config, &clock).await?;
    let mut first = VecDeque::new();
    let sample = match args.sample {
        Some(size) => {
            fill(&mut first, &mut source, usize::from(size)).await?;
            Some(ask_sample(&first, args, &config, &clock).await?)
        }
        None => None,
    };
    let ledger = open_ledger(&config).await?;
    let overview = match &ledger {
        Some(ledger) => ledger.overview(now, config.limits.horizon_alarm).await?,
        None => Overview::default(),
    };
    let estimate = Estimate::of(sample.as_ref(), &overview);
    let mut tally = Tally::new(&config.retention, &estimate, now);
    if let Looked::Counted(messages) = source {
        tally.add_unread(messages, config.integration_of(None, args.source.integration.as_deref())?);
    }
    while let Some(delivery) = next(&mut first, &mut source).await? {
        match delivery.record {
            Err(bad) => {
                tally.bad_records += 1;
                if tally.bad_records <= BAD_LINES_TOLD {
                    tracing::warn!("{}: {}", delivery.place, bad.reason);
                }
            }
            Ok(_) if delivery.is_finished && args.source.format.only.is_some() => tally.finished_records += 1,
            Ok(record) => {
                let integration = integration_of(&record, args, &config)?;
                let row = match &ledger {
                    Some(ledger) => ledger.session(&record.session_id).await?,
                    None => None,
                };
                tally.add(&record, integration, row.as_ref(), args.source.skip_settled);
            }
        }
    }
    let plan = Plan::of(
        &tally,
        &estimate,
        !matches!(config.store, Some(StoreSettings::Dir(_))),
        args.put_price,
        source.kind(),
        overview,
        args.source.as_typed("run", global.config.as_deref(), args.store.store.as_deref()),
    );
    print(&plan, global.format())?;
    Ok(plan.exit())
}

/// A source that is looked at.
enum Looked {
    /// Its records are read.
    Read(Box<dyn Source>),
    /// Its messages are only counted: to receive one is to take it, and counts towards its dead letter.
    Counted(u64),
}

impl Looked {
    fn kind(&self) -> &'static str {
        match self {
            Self::Read(source) => source.tally().kind,
            Self::Counted(_) => "sqs",
        }
    }

    async fn receive(&mut self) -> anyhow::Result<Option<Delivery>> {
        match self {
            Self::Read(source) => Ok(source.receive().await?),
            Self::Counted(_) => Ok(None),
        }
    }
}

/// Opens the source to be looked at; nothing is leased.
async fn open_source(args: &SourceArgs, config: &Config, clock: &Arc<dyn Clock>) -> anyhow::Result<Looked> {
    if let Some(url) = &args.queue {
        return Ok(Looked::Counted(sqs::inspect(url, &config.queue).await?.messages()));
    }
    Ok(Looked::Read(match &args.sessions {
        Some(sessions) => open_file(sessions, &args.format, config, clock).await?,
        None => Box::new(BacklogView::new(ledger::open(&config.ledger_url).await?)),
    }))
}

fn integration_of<'a>(
    record: &SessionRequest,
    args: &PlanArgs,
    config: &'a Config,
) -> anyhow::Result<&'a IntegrationSettings> {
    Ok(config.integration_of(record.integration.as_deref(), args.source.integration.as_deref())?)
}

async fn open_ledger(config: &Config) -> anyhow::Result<Option<Arc<dyn Survey>>> {
    Ok(if ledger::exists(&config.ledger_url).await? { Some(ledger::open(&config.ledger_url).await?) } else { None })
}

async fn fill(first: &mut VecDeque<Delivery>, source: &mut Looked, size: usize) -> anyhow::Result<()> {
    while first.len() < size {
        match source.receive().await? {
            Some(delivery) => first.push_back(delivery),
            None => break,
        }
    }
    Ok(())
}

async fn next(first: &mut VecDeque<Delivery>, source: &mut Looked) -> anyhow::Result<Option<Delivery>> {
    Ok(match first.pop_front() {
        Some(delivery) => Some(delivery),
        None => source.receive().await?,
    })
}

/// Reads the lists of some sessions; nothing is downloaded or written.
async fn ask_sample(
    deliveries: &VecDeque<Delivery>,
    args: &PlanArgs,
    config: &Config,
    clock: &Arc<dyn Clock>,
) -> anyhow::Result<Sample> {
    config.require_integrations()?;
    let mut sampler = Sampler::new(config.limits.tries, Arc::clone(clock));
    for record in deliveries.iter().filter_map(|delivery| delivery.record.as_ref().ok()) {
        sampler.ask(integration_of(record, args, config)?, &record.session_id).await?;
    }
    Ok(sampler.finish())
}

impl Answer for Plan {
    fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        let (source, sessions, work) = (&self.source, &self.sessions, &self.work);
        writeln!(
            out,
            "requests   {} from {}; {} lines are invalid, {} are finished",
            source.records, source.kind, source.bad, source.finished
        )?;
        writeln!(
            out,
            "sessions   {} new, {} pending, {} failed before, {} archived and unsettled, {} settled, {} absent, {} accepted, {} skipped",
            sessions.new,
            sessions.pending,
            sessions.failed,
            sessions.unsettled,
            sessions.settled,
            sessions.absent,
            sessions.accepted,
            sessions.skipped
        )?;
        let gib = ratio(work.bytes, 1 << 30);
        writeln!(
            out,
            "work       about {} requests, {} media items, {gib:.1} GiB, {} objects ({:.2} USD), {:.1} hours",
            work.requests, work.media, work.puts, work.put_cost_usd, work.hours
        )?;
        let basis = &self.per_session;
        writeln!(
            out,
            "           at {:.1} media items and {:.1} requests per session ({}, {} sessions)",
            basis.media,
            basis.requests,
            basis.basis.describe(),
            basis.sessions
        )?;
        for lock in &self.locks {
            match (lock.first_until, lock.last_until) {
                (Some(first), Some(last)) => writeln!(
                    out,
                    "lock       class {}, {}: {} sessions, until {first} to {last}",
                    lock.class, lock.mode, lock.sessions
                )?,
                _ => writeln!(out, "lock       class {}: {} sessions, not locked", lock.class, lock.sessions)?,
            }
            if lock.too_long > 0 {
                writeln!(out, "           {} of them would exceed max_period and be refused", lock.too_long)?;
            }
        }
        let deadlines = &self.deadlines;
        if let Some(nearest) = deadlines.nearest_at {
            writeln!(out, "deadline   the nearest is {nearest}")?;
        }
        writeln!(
            out,
            "           {} sessions cannot be finished in time ({} are already past it), {} have no known deadline",
            deadlines.cannot_finish, deadlines.past, deadlines.unknown
        )?;
        writeln!(out, "next: {}", self.next)
    }
}
