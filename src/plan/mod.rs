//! Plan: what a run over the same source would take, from one pass over its requests and the ledger.
//!
//! Estimates only: from a sample of Veriff's lists, else from what the ledger knows, else assumed. Writes nothing, and
//! asks Veriff for lists alone. Leaves to the shell where requests come from and how the answer is printed.

mod estimate;
mod sample;
mod tally;

use serde::Serialize;

pub use self::estimate::{Basis, Estimate, ratio};
pub use self::sample::{Sample, Sampler};
pub use self::tally::Tally;
use crate::clock::Timestamp;
use crate::error::Exit;
use crate::ledger::Overview;
use crate::model::retention::{Mode, Period};

/// The value of `schema` in the answer.
const SCHEMA: &str = "veriff-archive/plan/v1";

/// What a run would have to do.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct Plan {
    /// Always `veriff-archive/plan/v1`.
    pub schema: &'static str,
    /// When it was made.
    pub as_of: Timestamp,
    /// What the records came from.
    pub source: PlanSource,
    /// The sessions of the source by what the ledger knows of them.
    pub sessions: PlanSessions,
    /// What one session takes on the average.
    pub per_session: Estimate,
    /// What the run takes.
    pub work: PlanWork,
    /// What would be locked until when, by class. Rules look at each media item, so a session may count in several.
    pub locks: Vec<PlanLock>,
    /// Deadlines of the sessions that have to be archived.
    pub deadlines: PlanDeadlines,
    /// Everything the ledger knows, whether it is in the source or not.
    pub ledger: Overview,
    /// What to do next.
    pub next: String,
}

/// What the records came from.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct PlanSource {
    /// The kind of source.
    pub kind: &'static str,
    /// Records that can be worked on.
    pub records: u64,
    /// Lines that cannot be read.
    pub bad: u64,
    /// Lines left out because their session is finished.
    pub finished: u64,
}

/// Sessions by what the ledger knows of them.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct PlanSessions {
    /// Not known yet.
    pub new: u64,
    /// Archived, and nothing more is expected.
    pub settled: u64,
    /// Archived, and looked at again.
    pub unsettled: u64,
    /// Begun and not done.
    pub pending: u64,
    /// Failed, and tried again.
    pub failed: u64,
    /// Not at Veriff when last asked.
    pub absent: u64,
    /// Closed by a person, and looked at all the same.
    pub accepted: u64,
    /// Left out with `--skip-settled`.
    pub skipped: u64,
}

/// What the run takes.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct PlanWork {
    /// Requests to Veriff.
    pub requests: u64,
    /// Media items.
    pub media: u64,
    /// Bytes of media.
    pub bytes: u64,
    /// Objects to write. Parts of long videos come on top.
    pub puts: u64,
    /// The price of these in US dollars.
    pub put_cost_usd: f64,
    /// The price of 1,000 of them.
    pub put_price_per_1000_usd: f64,
    /// Hours at the configured rates; integrations work side by side.
    pub hours: f64,
}

/// The locks of one class.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct PlanLock {
    /// The class.
    pub class: String,
    /// Its mode; `none` where the store cannot lock.
    pub mode: Mode,
    /// Its period.
    pub period: Option<Period>,
    /// Sessions whose media may get it.
    pub sessions: u64,
    /// The earliest date a lock would end.
    pub first_until: Option<Timestamp>,
    /// The latest date a lock would end.
    pub last_until: Option<Timestamp>,
    /// Sessions whose lock would exceed `max_period` and would be refused.
    pub too_long: u64,
}

/// Deadlines of the sessions that have to be archived.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct PlanDeadlines {
    /// The nearest one.
    pub nearest_at: Option<Timestamp>,
    /// Sessions whose deadline has passed already.
    pub past: u64,
    /// Sessions that cannot be finished in time at the configured rate, those included.
    pub cannot_finish: u64,
    /// Sessions whose deadline nobody knows.
    pub unknown: u64,
}

impl Plan {
    /// Draws up the plan from what was counted. `can_lock` says whether the store can lock objects at all, `put_price` is
    /// the price of 1,000 PUT requests in US dollars, and `run_command` what to type to carry the plan out.
    #[must_use]
    pub fn of(
        tally: &Tally<'_>,
        estimate: &Estimate,
        can_lock: bool,
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
            locks: locks_of(tally, can_lock),
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

fn locks_of(tally: &Tally<'_>, can_lock: bool) -> Vec<PlanLock> {
    let locks = tally.locks.iter().filter_map(|(name, lock)| {
        let class = tally.policy.class(name)?;
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
