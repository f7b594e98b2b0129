//! The answer of `plan`, for people and for machines.

use std::io::{self, Write};

use serde::Serialize;

use super::estimate::{Estimate, ratio};
use super::tally::Tally;
use crate::cli::output::Answer;
use crate::clock::Timestamp;
use crate::config::{Config, StoreSettings};
use crate::error::Exit;
use crate::ledger::Overview;
use crate::model::retention::{Mode, Period};

/// The value of `schema` in the answer.
const SCHEMA: &str = "veriff-archive/plan/v1";

/// What a run would have to do.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub(in crate::cli) struct Plan {
    /// Always `veriff-archive/plan/v1`.
    schema: &'static str,
    /// When it was made.
    as_of: Timestamp,
    /// What the records came from.
    source: PlanSource,
    /// The sessions of the source by what the ledger knows of them.
    sessions: PlanSessions,
    /// What one session takes on the average.
    per_session: Estimate,
    /// What the run takes.
    work: PlanWork,
    /// What would be locked until when, by class. Rules look at each media item, so a session may count in several.
    locks: Vec<PlanLock>,
    /// Deadlines of the sessions that have to be archived.
    deadlines: PlanDeadlines,
    /// Everything the ledger knows, whether it is in the source or not.
    ledger: Overview,
    /// What to do next.
    next: String,
}

/// What the records came from.
#[derive(Debug, Serialize, schemars::JsonSchema)]
struct PlanSource {
    /// The kind of source.
    kind: &'static str,
    /// Records that can be worked on.
    records: u64,
    /// Lines that cannot be read.
    bad: u64,
    /// Lines left out because their session is finished.
    finished: u64,
}

/// Sessions by what the ledger knows of them.
#[derive(Debug, Serialize, schemars::JsonSchema)]
struct PlanSessions {
    /// Not known yet.
    new: u64,
    /// Archived, and nothing more is expected.
    settled: u64,
    /// Archived, and looked at again.
    unsettled: u64,
    /// Begun and not done.
    pending: u64,
    /// Failed, and tried again.
    failed: u64,
    /// Not at Veriff when last asked.
    absent: u64,
    /// Closed by a person, and looked at all the same.
    accepted: u64,
    /// Left out with `--skip-settled`.
    skipped: u64,
}

/// What the run takes.
#[derive(Debug, Serialize, schemars::JsonSchema)]
struct PlanWork {
    /// Requests to Veriff.
    requests: u64,
    /// Media items.
    media: u64,
    /// Bytes of media.
    bytes: u64,
    /// Objects to write. Parts of long videos come on top.
    puts: u64,
    /// The price of these in US dollars.
    put_cost_usd: f64,
    /// The price of 1,000 of them.
    put_price_per_1000_usd: f64,
    /// Hours at the configured rates; integrations work side by side.
    hours: f64,
}

/// The locks of one class.
#[derive(Debug, Serialize, schemars::JsonSchema)]
struct PlanLock {
    /// The class.
    class: String,
    /// Its mode; `none` where the store cannot lock.
    mode: Mode,
    /// Its period.
    period: Option<Period>,
    /// Sessions whose media may get it.
    sessions: u64,
    /// The earliest date a lock would end.
    first_until: Option<Timestamp>,
    /// The latest date a lock would end.
    last_until: Option<Timestamp>,
    /// Sessions whose lock would exceed `max_period` and would be refused.
    too_long: u64,
}

/// Deadlines of the sessions that have to be archived.
#[derive(Debug, Serialize, schemars::JsonSchema)]
struct PlanDeadlines {
    /// The nearest one.
    nearest_at: Option<Timestamp>,
    /// Sessions whose deadline has passed already.
    past: u64,
    /// Sessions that cannot be finished in time at the configured rate, those included.
    cannot_finish: u64,
    /// Sessions whose deadline nobody knows.
    unknown: u64,
}

impl Plan {
    pub(super) fn of(
        tally: &Tally<'_>,
        estimate: &Estimate,
        config: &Config,
        put_price: f64,
        source_kind: &'static str,
        ledger: Overview,
        run_command: String,
    ) -> Self {
        let counts = &tally.sessions;
        let to_archive = ratio(counts.to_archive(), 1);
        let puts = to_archive * estimate.puts();
        let hours = tally.queues.values().map(|queue| queue.duration().as_secs_f64() / 3600.0);
        let work = PlanWork {
            requests: whole(tally.queues.values().map(|queue| queue.requests).sum()),
            media: whole(to_archive * estimate.media),
            bytes: whole(to_archive * estimate.bytes),
            puts: whole(puts),
            put_cost_usd: puts / 1000.0 * put_price,
            put_price_per_1000_usd: put_price,
            hours: hours.fold(0.0, f64::max),
        };
        let sessions = PlanSessions {
            new: counts.unknown,
            settled: counts.settled,
            unsettled: counts.unsettled,
            pending: counts.pending,
            failed: counts.failed,
            absent: counts.absent,
            accepted: counts.accepted,
            skipped: counts.skipped,
        };
        let deadlines = PlanDeadlines {
            nearest_at: tally.deadlines.nearest_at,
            past: tally.deadlines.past,
            cannot_finish: tally.deadlines.cannot_finish,
            unknown: tally.deadlines.unknown,
        };
        let next = if deadlines.cannot_finish > deadlines.past {
            "raise max_requests_per_second as agreed with Veriff, or put the oldest sessions first".to_owned()
        } else if counts.to_archive() == 0 {
            "nothing".to_owned()
        } else {
            run_command
        };
        Self {
            schema: SCHEMA,
            as_of: tally.now,
            source: PlanSource {
                kind: source_kind,
                records: sessions.sum(),
                bad: tally.bad_records,
                finished: tally.finished_records,
            },
            sessions,
            per_session: estimate.clone(),
            work,
            locks: locks_of(tally, config),
            deadlines,
            ledger,
            next,
        }
    }

    /// Returns how the command exits.
    pub(super) const fn exit(&self) -> Exit {
        if self.deadlines.cannot_finish > 0 { Exit::Horizon } else { Exit::Success }
    }
}

impl PlanSessions {
    const fn sum(&self) -> u64 {
        self.new
            + self.settled
            + self.unsettled
            + self.pending
            + self.failed
            + self.absent
            + self.accepted
            + self.skipped
    }
}

fn locks_of(tally: &Tally<'_>, config: &Config) -> Vec<PlanLock> {
    let can_lock = !matches!(config.store, Some(StoreSettings::Dir(_)));
    let locks = tally.locks.iter().filter_map(|(name, lock)| {
        let class = config.retention.class(name)?;
        Some(PlanLock {
            class: name.clone(),
            mode: if can_lock { class.mode } else { Mode::None },
            period: class.period,
            sessions: lock.sessions,
            first_until: lock.first_until.filter(|_| can_lock),
            last_until: lock.last_until.filter(|_| can_lock),
            too_long: lock.too_long,
        })
    });
    locks.collect()
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "estimates are positive, and casts of floats saturate"
)]
fn whole(number: f64) -> u64 {
    number.ceil() as u64
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
