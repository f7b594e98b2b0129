//! `status`: what the ledger knows, without asking anyone else.

use std::io::{self, Write};

use clap::Args;
use serde::Serialize;

use super::GlobalArgs;
use super::connect::open_ledger_to_look;
use super::output::{Answer, print};
use crate::clock::{Clock as _, SystemClock, Timestamp};
use crate::error::{Code, Exit};
use crate::ledger::{self, BacklogCounts, Overview, State};
use crate::model::units::format_duration;

/// The value of `schema` in the answer.
const SCHEMA: &str = "veriff-archive/status/v1";

/// Milliseconds of a day.
const DAY_MS: i64 = 86_400_000;

const AFTER_HELP: &str = "\
Only reads the ledger; does not create one that does not exist.

Exit codes: 0; with --check also
    3  some sessions failed for good or are absent upstream
    6  a pending session is past its horizon or within limits.horizon_alarm of it";

/// Show sessions by state, deadlines and the last runs, from the ledger
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct StatusArgs {
    /// Exit 3 or 6 if attention is needed, for monitoring
    #[arg(long)]
    check: bool,
}

/// What the ledger knows.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub(super) struct Status {
    /// Always `veriff-archive/status/v1`.
    schema: &'static str,
    /// When it was read.
    as_of: Timestamp,
    /// There is a ledger. Without one all numbers are zero.
    ledger_exists: bool,
    /// Whole days until the nearest deadline of a session still to be done; negative once it has passed.
    days_left: Option<i64>,
    /// `limits.horizon_alarm`.
    horizon_alarm: String,
    /// The numbers.
    #[serde(flatten)]
    overview: Overview,
    /// What to do next, or `nothing`.
    next: String,
}

impl Status {
    fn of(overview: Overview, ledger_exists: bool, as_of: Timestamp, horizon_alarm: String) -> Self {
        let days_left = overview.nearest_deadline_at.map(|deadline| deadline.millis_since(as_of).div_euclid(DAY_MS));
        let mut status =
            Self { schema: SCHEMA, as_of, ledger_exists, days_left, horizon_alarm, overview, next: String::new() };
        status.next = status.advice().to_owned();
        status
    }

    fn in_state(&self, state: State) -> u64 {
        let found = self.overview.states.iter().find(|count| count.state == state);
        found.map_or(0, |count| count.sessions)
    }

    /// Counts failures that repeating a run changes nothing about.
    fn failed_for_good(&self) -> u64 {
        let codes = self.overview.codes.iter();
        codes
            .filter(|count| count.state == State::Failed)
            .filter(|count| !Code::parse(&count.code).is_some_and(Code::is_retryable))
            .map(|count| count.sessions)
            .sum()
    }

    /// Returns how `--check` exits.
    fn exit(&self) -> Exit {
        if self.overview.past_horizon > 0 || self.overview.within_alarm > 0 {
            Exit::Horizon
        } else if self.failed_for_good() > 0 || self.in_state(State::Absent) > 0 {
            Exit::Failures
        } else {
            Exit::Success
        }
    }

    fn advice(&self) -> &'static str {
        let failed = self.in_state(State::Failed);
        if !self.ledger_exists || self.overview.sessions == 0 {
            "veriff-archive run --sessions FILE --store URL"
        } else if self.overview.backlog.ready > 0 {
            "veriff-archive run --backlog"
        } else if self.in_state(State::Pending) > 0 || failed > self.failed_for_good() {
            "repeat the last run: what is archived is not fetched again"
        } else if failed > 0 {
            "look up the codes in docs/runbook.md; then veriff-archive backlog retry or accept"
        } else {
            "nothing"
        }
    }
}

impl Answer for Status {
    fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        let Overview { sessions, media, bytes, .. } = &self.overview;
        if !self.ledger_exists {
            writeln!(out, "there is no ledger yet")?;
        }
        writeln!(out, "sessions   {sessions}")?;
        for count in &self.overview.states {
            writeln!(out, "  {:<9}{}", count.state, count.sessions)?;
        }
        writeln!(out, "  complete {}, settled {}", self.overview.complete, self.overview.settled)?;
        writeln!(out, "media      {media} ({bytes} bytes)")?;
        for count in &self.overview.codes {
            writeln!(out, "  {:<9}{:<26}{}", count.state, count.code, count.sessions)?;
        }
        let BacklogCounts { ready, waiting, leased } = self.overview.backlog;
        writeln!(out, "backlog    {ready} ready, {waiting} waiting, {leased} leased")?;
        if let Some(at) = self.overview.oldest_pending_at {
            writeln!(out, "oldest pending since {at}")?;
        }
        if let (Some(at), Some(days)) = (self.overview.nearest_deadline_at, self.days_left) {
            writeln!(out, "nearest deadline {at}, days left: {days}")?;
        }
        writeln!(
            out,
            "still to be done: {} past the horizon, {} within {} of it, {} with an unknown deadline",
            self.overview.past_horizon, self.overview.within_alarm, self.horizon_alarm, self.overview.unknown_deadlines
        )?;
        for run in &self.overview.runs {
            let end = match (run.finished_at, run.exit_code) {
                (Some(at), Some(code)) => format!("finished {at}, exit {code}"),
                _ => "not finished".to_owned(),
            };
            let counts = &run.counts;
            writeln!(
                out,
                "run {} started {}, {end}: {} archived, {} unchanged, {} absent, {} failed, {} pending",
                run.run_id,
                run.started_at,
                counts.archived,
                counts.unchanged,
                counts.absent,
                counts.failed,
                counts.pending
            )?;
        }
        writeln!(out, "next: {}", self.next)
    }
}

pub(super) async fn run(args: &StatusArgs, global: &GlobalArgs) -> anyhow::Result<Exit> {
    let config = global.load_config(None)?;
    let now = SystemClock.now();
    let exists = ledger::exists(&config.ledger_url).await?;
    let overview = if exists {
        let ledger = open_ledger_to_look(&config.ledger_url).await?;
        ledger.overview(now, config.limits.horizon_alarm).await?
    } else {
        Overview::default()
    };
    let status = Status::of(overview, exists, now, format_duration(config.limits.horizon_alarm));
    print(&status, global.format())?;
    Ok(if args.check { status.exit() } else { Exit::Success })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{CodeCount, StateCount};

    fn status(overview: Overview) -> Status {
        let now = "2026-11-23T09:00:00Z".parse().unwrap();
        Status::of(overview, true, now, "7d".to_owned())
    }

    fn failed(code: &str) -> Overview {
        Overview {
            sessions: 2,
            states: vec![StateCount { state: State::Failed, sessions: 2 }],
            codes: vec![CodeCount { state: State::Failed, code: code.to_owned(), sessions: 2 }],
            ..Overview::default()
        }
    }

    #[test]
    fn a_monitor_hears_of_deadlines_before_failures() {
        assert_eq!(status(Overview::default()).exit(), Exit::Success);
        assert_eq!(status(failed("media.missing")).exit(), Exit::Failures);
        assert_eq!(status(failed("veriff.throttled")).exit(), Exit::Success);
        let late = Overview { past_horizon: 1, ..failed("media.missing") };
        assert_eq!(status(late).exit(), Exit::Horizon);
    }

    #[test]
    fn days_left_are_whole_days_and_negative_once_passed() {
        let at = |text: &str| {
            let overview = Overview { nearest_deadline_at: Some(text.parse().unwrap()), ..Overview::default() };
            status(overview).days_left
        };
        assert_eq!(at("2026-11-25T08:00:00Z"), Some(1));
        assert_eq!(at("2026-11-23T08:00:00Z"), Some(-1));
    }

    #[test]
    fn what_is_next_follows_from_what_is_left() {
        assert!(status(failed("veriff.throttled")).next.contains("repeat"));
        assert!(status(failed("media.missing")).next.contains("runbook"));
    }
}
