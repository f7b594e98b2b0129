//! `backlog`: puts sessions into the ledger's own queue, shows them, opens and closes them.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use clap::{ArgGroup, Args, Subcommand};
use serde::Serialize;

use super::GlobalArgs;
use super::connect::{open_file, open_ledger_to_look};
use super::output::{Answer, print};
use super::source::FormatArgs;
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::config::Config;
use crate::error::{Code, Exit};
use crate::ledger::{self, Added, BacklogCounts, BacklogEntry, Filter, ListedSession, State, Turn};
use crate::model::request::SessionRequest;
use crate::model::units::parse_duration;
use crate::model::{RunId, SessionId};
use crate::run::summary::days_until;
use crate::source::Source;

/// How many sessions go to the ledger at once: many, because ids come in no order, so that a transaction touches a page of
/// each index for nearly every session, and the fewer transactions, the fewer pages are written twice.
const BATCH: usize = 16_384;

/// How many sessions of a file are named in one statement.
const NAMED_AT_ONCE: usize = 2048;

/// How many bad lines are reported one by one; the others are only counted.
const BAD_LINES_TOLD: u64 = 20;

/// Manage the backlog, the ledger's own queue of sessions to archive
#[derive(Debug, Subcommand)]
pub(super) enum BacklogCommand {
    /// Add sessions to the backlog; repeating it changes nothing
    #[command(after_help = "Exit codes: 0 done, 3 some lines are invalid, 5 the ledger does not answer.\n\n\
        Sessions that have already ended are left as they are; `backlog retry` makes them pending again.")]
    Add(AddArgs),
    /// List the backlog, earliest deadline first; with a selector, sessions of the whole ledger
    List(ListArgs),
    /// Make sessions pending again, due at once; archived ones are visited again and stay archived
    Retry(RetryArgs),
    /// Close sessions that cannot be archived, with a reason
    Accept(AcceptArgs),
}

/// What is put into the backlog.
#[derive(Debug, Args)]
pub(super) struct AddArgs {
    /// The file, `-`, or the object.
    #[arg(
        long,
        value_name = "PATH",
        help = "Session ids or requests: a file, - for standard input, or s3://bucket/key"
    )]
    sessions: String,
    #[command(flatten)]
    format: FormatArgs,
    /// Integration for lines that name none
    #[arg(long, value_name = "NAME")]
    integration: Option<String>,
}

/// What is shown.
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    selector: Selector,
    /// Show at most this many
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    limit: u32,
}

/// What is opened again.
#[derive(Debug, Args)]
#[command(group = selector_group())]
pub(super) struct RetryArgs {
    #[command(flatten)]
    selector: Selector,
}

/// What is closed.
#[derive(Debug, Args)]
#[command(group = selector_group())]
pub(super) struct AcceptArgs {
    #[command(flatten)]
    selector: Selector,
    /// Why they cannot be archived; recorded in the ledger
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    reason: String,
}

/// Opening or closing everything there is would be a slip of the hand.
fn selector_group() -> ArgGroup {
    ArgGroup::new("selector").required(true).multiple(true).args([
        "state",
        "code",
        "run",
        "older_than",
        "session",
        "from",
    ])
}

/// Which sessions are selected; all selectors that are given must match.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Selectors")]
struct Selector {
    /// In this state; may be repeated
    #[arg(long, value_name = "STATE", value_parser = parse_state)]
    state: Vec<State>,
    /// With this code; may be repeated
    #[arg(long, value_name = "CODE", value_parser = parse_code)]
    code: Vec<Code>,
    /// Last visited by this run
    #[arg(long, value_name = "RUN_ID", value_parser = RunId::parse)]
    run: Option<RunId>,
    /// Last visited, or added, at least this long ago
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    older_than: Option<Duration>,
    /// This session; may be repeated
    #[arg(long, value_name = "ID", value_parser = SessionId::parse)]
    session: Vec<SessionId>,
    /// The file, `-`, or the object.
    #[arg(long, value_name = "PATH", help = "The sessions of a file, - for standard input, or s3://bucket/key")]
    from: Option<String>,
}

fn parse_state(text: &str) -> Result<State, String> {
    State::parse(text).ok_or_else(|| {
        let known: Vec<_> = State::ALL.iter().map(|state| state.as_str()).collect();
        format!("not one of {}", known.join(", "))
    })
}

fn parse_code(text: &str) -> Result<Code, &'static str> {
    Code::parse(text).ok_or("not a code of docs/runbook.md")
}

impl Selector {
    fn is_empty(&self) -> bool {
        let Self { state, code, run, older_than, session, from } = self;
        state.is_empty()
            && code.is_empty()
            && run.is_none()
            && older_than.is_none()
            && session.is_empty()
            && from.is_none()
    }

    /// Returns what is meant, apart from a file's sessions. `usual` are the states that are meant unless some are named.
    fn filter(&self, usual: &[State], now: Timestamp) -> Filter {
        Filter {
            states: if self.state.is_empty() { usual.to_vec() } else { self.state.clone() },
            codes: self.code.iter().map(ToString::to_string).collect(),
            run_id: self.run.clone(),
            before: self.older_than.map(|age| now.minus(age)),
            sessions: (!self.session.is_empty()).then(|| self.session.clone()),
            in_backlog: false,
        }
    }
}

/// The answer of `backlog add`. Every record is counted once: as bad, finished, added, waiting or ended.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub(super) struct BacklogAdd {
    /// Always `veriff-archive/backlog-add/v1`.
    schema: &'static str,
    /// Records read.
    records: u64,
    /// Lines that cannot be read, or records of no configured integration.
    bad: u64,
    /// Left out by `--only unfinished`.
    finished: u64,
    #[serde(flatten)]
    added: Added,
    /// What to do next.
    next: String,
}

/// The answer of `backlog list`.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub(super) struct BacklogList {
    /// Always `veriff-archive/backlog-list/v1`.
    schema: &'static str,
    /// When it was read.
    as_of: Timestamp,
    /// The whole backlog.
    backlog: BacklogCounts,
    /// The sessions, earliest deadline first, unknown ones before all.
    sessions: Vec<ListedEntry>,
    /// There are more; ask for them with `--limit`.
    more: bool,
}

/// One session of a listing.
#[derive(Debug, Serialize, schemars::JsonSchema)]
struct ListedEntry {
    session_id: SessionId,
    integration: String,
    state: State,
    code: Option<String>,
    message: Option<String>,
    reference: Option<String>,
    decided_at: Option<Timestamp>,
    deadline_at: Option<Timestamp>,
    /// Whole days until the deadline; negative once it has passed.
    days_left: Option<i64>,
    complete: bool,
    settled: bool,
    visits: u64,
    last_visited_at: Timestamp,
    accepted_reason: Option<String>,
    /// Its state in the backlog; nothing if it is not in it.
    turn: Option<Turn>,
    /// Ready: since when. Waiting: until when. Leased: when the lease lapses.
    due_at: Option<Timestamp>,
    leased_by: Option<RunId>,
    tries: u32,
}

/// The answer of `backlog retry`.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub(super) struct BacklogRetry {
    /// Always `veriff-archive/backlog-retry/v1`.
    schema: &'static str,
    /// Sessions that are due now.
    opened: u64,
    /// What to do next.
    next: String,
}

/// The answer of `backlog accept`.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub(super) struct BacklogAccept {
    /// Always `veriff-archive/backlog-accept/v1`.
    schema: &'static str,
    /// Sessions that are closed now.
    accepted: u64,
}

pub(super) async fn run(command: &BacklogCommand, global: &GlobalArgs) -> anyhow::Result<Exit> {
    let config = global.load_config(None)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    match command {
        BacklogCommand::Add(args) => add(args, &config, &clock, global).await,
        BacklogCommand::List(args) => list(args, &config, &clock, global).await,
        BacklogCommand::Retry(args) => retry(args, &config, &clock, global).await,
        BacklogCommand::Accept(args) => accept(args, &config, &clock, global).await,
    }
}

async fn add(args: &AddArgs, config: &Config, clock: &Arc<dyn Clock>, global: &GlobalArgs) -> anyhow::Result<Exit> {
    let ledger = ledger::open(&config.ledger_url).await?;
    if let Some(name) = &args.integration {
        config.integration_of(Some(name), None)?;
    }
    let mut source = open_file(&args.sessions, &args.format, config, clock).await?;
    let run_id = RunId::new(clock.now());
    let mut answer = BacklogAdd {
        schema: "veriff-archive/backlog-add/v1",
        records: 0,
        bad: 0,
        finished: 0,
        added: Added::default(),
        next: String::new(),
    };
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        let delivery = source.receive().await?;
        if batch.len() >= BATCH || delivery.is_none() && !batch.is_empty() {
            let more = ledger.add(&batch, &run_id, clock.now()).await?;
            answer.added.added += more.added;
            answer.added.waiting += more.waiting;
            answer.added.ended += more.ended;
            batch.clear();
        }
        let Some(delivery) = delivery else { break };
        answer.records += 1;
        let entry = match delivery.record {
            Ok(_) if delivery.is_finished && args.format.only.is_some() => {
                answer.finished += 1;
                continue;
            }
            Ok(record) => entry_of(record, args.integration.as_deref(), config),
            Err(bad) => Err(bad.reason),
        };
        match entry {
            Ok(entry) => batch.push(entry),
            Err(reason) => {
                answer.bad += 1;
                if answer.bad <= BAD_LINES_TOLD {
                    tracing::error!(error.code = %Code::InputInvalid, "{}: {reason}", delivery.place);
                }
            }
        }
    }
    answer.next = if answer.bad > 0 {
        "correct the invalid lines and repeat".to_owned()
    } else if answer.added.ended > 0 && answer.added.added + answer.added.waiting == 0 {
        "veriff-archive backlog retry --state failed, to make failed sessions pending again".to_owned()
    } else {
        "veriff-archive run --backlog".to_owned()
    };
    ledger.close().await;
    print(&answer, global.format())?;
    Ok(if answer.bad > 0 { Exit::Failures } else { Exit::Success })
}

/// Settles the integration now, so that every worker looks for the session in the same one.
fn entry_of(record: SessionRequest, default: Option<&str>, config: &Config) -> Result<BacklogEntry, String> {
    let settings = config
        .integration_of(record.integration.as_deref(), default)
        .map_err(|_| "it names no integration and several are configured; use --integration".to_owned())?;
    Ok(BacklogEntry {
        integration: settings.name.clone(),
        deadline_at: record.decided_at.map(|decided_at| decided_at.plus(settings.horizon)),
        record,
    })
}

async fn list(args: &ListArgs, config: &Config, clock: &Arc<dyn Clock>, global: &GlobalArgs) -> anyhow::Result<Exit> {
    let ledger = open_ledger_to_look(&config.ledger_url).await?;
    let now = clock.now();
    let filter = Filter { in_backlog: args.selector.is_empty(), ..args.selector.filter(&[], now) };
    let mut listed = Vec::new();
    let mut chunks = chunks(&args.selector, filter, config, clock).await?;
    while let Some(filter) = chunks.next().await? {
        listed.extend(ledger.list(&filter, None, args.limit + 1).await?);
    }
    listed.sort_by(|a, b| {
        let place = |listed: &ListedSession| (listed.row.deadline_at, listed.row.record.session_id.clone());
        place(a).cmp(&place(b))
    });
    let more = listed.len() > args.limit as usize;
    listed.truncate(args.limit as usize);
    let answer = BacklogList {
        schema: "veriff-archive/backlog-list/v1",
        as_of: now,
        backlog: ledger.overview(now, config.limits.horizon_alarm).await?.backlog,
        sessions: listed.into_iter().map(|listed| ListedEntry::of(listed, now)).collect(),
        more,
    };
    ledger.close().await;
    print(&answer, global.format())?;
    Ok(Exit::Success)
}

async fn retry(args: &RetryArgs, config: &Config, clock: &Arc<dyn Clock>, global: &GlobalArgs) -> anyhow::Result<Exit> {
    let ledger = ledger::open(&config.ledger_url).await?;
    let now = clock.now();
    let mut chunks = chunks(&args.selector, args.selector.filter(&[State::Failed], now), config, clock).await?;
    let mut opened = 0;
    while let Some(filter) = chunks.next().await? {
        opened += ledger.retry(&filter, now).await?;
    }
    let next = if opened > 0 { "veriff-archive run --backlog" } else { "nothing" };
    ledger.close().await;
    print(&BacklogRetry { schema: "veriff-archive/backlog-retry/v1", opened, next: next.to_owned() }, global.format())?;
    Ok(Exit::Success)
}

async fn accept(
    args: &AcceptArgs,
    config: &Config,
    clock: &Arc<dyn Clock>,
    global: &GlobalArgs,
) -> anyhow::Result<Exit> {
    let ledger = ledger::open(&config.ledger_url).await?;
    let now = clock.now();
    let usual = [State::Failed, State::Absent];
    let mut chunks = chunks(&args.selector, args.selector.filter(&usual, now), config, clock).await?;
    let mut accepted = 0;
    while let Some(filter) = chunks.next().await? {
        accepted += ledger.accept(&filter, &args.reason, now).await?;
    }
    ledger.close().await;
    print(&BacklogAccept { schema: "veriff-archive/backlog-accept/v1", accepted }, global.format())?;
    Ok(Exit::Success)
}

/// A filter, once, or once for each few sessions of a file.
struct Chunks {
    filter: Filter,
    source: Option<Box<dyn Source>>,
    is_done: bool,
}

async fn chunks(
    selector: &Selector,
    filter: Filter,
    config: &Config,
    clock: &Arc<dyn Clock>,
) -> anyhow::Result<Chunks> {
    let source = match &selector.from {
        Some(path) => Some(open_file(path, &FormatArgs::default(), config, clock).await?),
        None => None,
    };
    Ok(Chunks { filter, source, is_done: false })
}

impl Chunks {
    async fn next(&mut self) -> anyhow::Result<Option<Filter>> {
        if self.is_done {
            return Ok(None);
        }
        let Some(source) = &mut self.source else {
            self.is_done = true;
            return Ok(Some(self.filter.clone()));
        };
        let mut sessions = Vec::new();
        while sessions.len() < NAMED_AT_ONCE {
            let Some(delivery) = source.receive().await? else {
                self.is_done = true;
                break;
            };
            match delivery.record {
                Ok(record) => sessions.push(record.session_id),
                Err(bad) => anyhow::bail!("{}: {}; nothing after it was read", delivery.place, bad.reason),
            }
        }
        if let Some(named) = &self.filter.sessions {
            sessions.retain(|session| named.contains(session));
        }
        Ok((!sessions.is_empty()).then(|| Filter { sessions: Some(sessions), ..self.filter.clone() }))
    }
}

impl ListedEntry {
    fn of(ListedSession { row, waiting }: ListedSession, now: Timestamp) -> Self {
        Self {
            session_id: row.record.session_id,
            integration: row.integration,
            state: row.state,
            code: row.code,
            message: row.message,
            reference: row.record.reference,
            decided_at: row.record.decided_at,
            deadline_at: row.deadline_at,
            days_left: row.deadline_at.map(|deadline| days_until(deadline, now)),
            complete: row.complete,
            settled: row.settled,
            visits: row.visits,
            last_visited_at: row.last_visited_at,
            accepted_reason: row.accepted_reason,
            turn: waiting.as_ref().map(|waiting| waiting.turn),
            due_at: waiting.as_ref().map(|waiting| waiting.due_at),
            tries: waiting.as_ref().map_or(0, |waiting| waiting.tries),
            leased_by: waiting.and_then(|waiting| waiting.leased_by),
        }
    }
}

impl Answer for BacklogAdd {
    fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        let Added { added, waiting, ended } = self.added;
        writeln!(
            out,
            "{} lines: {added} added, {waiting} already in the backlog, {ended} already ended, {} finished, {} invalid",
            self.records, self.finished, self.bad
        )?;
        writeln!(out, "next: {}", self.next)
    }
}

impl Answer for BacklogList {
    fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        let BacklogCounts { ready, waiting, leased } = self.backlog;
        writeln!(out, "backlog    {ready} ready, {waiting} waiting, {leased} leased")?;
        for entry in &self.sessions {
            let days = entry.days_left.map_or_else(|| "?".to_owned(), |days| days.to_string());
            let turn = entry.turn.map_or("-", Turn::as_str);
            let code = entry.code.as_deref().or(entry.accepted_reason.as_deref()).unwrap_or_default();
            writeln!(out, "{days:>5} d  {turn:<8} {:<9} {}  {code}", entry.state, entry.session_id)?;
        }
        if self.more {
            writeln!(out, "and more; see --limit")?;
        }
        Ok(())
    }
}

impl Answer for BacklogRetry {
    fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{} sessions are due now\nnext: {}", self.opened, self.next)
    }
}

impl Answer for BacklogAccept {
    fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{} sessions are closed", self.accepted)
    }
}
