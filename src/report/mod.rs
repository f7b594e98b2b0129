//! Report: what the archive holds, how it is kept and when that was last checked, for people who did not run it.
//!
//! One document of aggregates ([`Report`]) from the ledger, the policy and the results of audits, and one page that shows
//! it. Names no session, no item and nobody. Asks neither Veriff nor, unless requested, the store; what is not known is
//! said to be unknown, with the command that finds out.

mod audits;
mod chart;
mod data;
mod page;
mod repair;

use std::collections::BTreeMap;

pub use audits::{AuditFileError, read_summaries};
pub use data::*;
pub use page::{PageError, page};

use audits::{Known, percent_of};

use crate::audit::AuditSummary;
use crate::clock::Timestamp;
use crate::error::{Code, Exit};
use crate::ledger::{DaysLeft, Month, Overview, RunRow, State, Volume};
use crate::model::MediaKind;
use crate::model::retention::RetentionPolicy;
use crate::store::settings::StoreUrl;
use crate::store::{StoreError, StoreReport};

/// How many of the latest runs a report lists.
pub const REPORT_RUNS: u32 = 50;

/// How many results of audits are read from the ledger: more than a year of several a day.
pub const REPORT_AUDITS: u32 = 5000;

/// Milliseconds of a day.
const DAY_MS: i64 = 86_400_000;

/// Whole days left, from and to, of the bars between those whose deadline has passed and those of which it is not known.
const BINS: [(u64, Option<u64>); 6] =
    [(0, Some(6)), (7, Some(13)), (14, Some(29)), (30, Some(59)), (60, Some(89)), (90, None)];

/// More months than this between the first and the last are not filled in: somebody's clock was wrong.
const MONTHS_WITHOUT_GAPS: usize = 600;

/// All that a report is made of.
#[derive(Debug)]
pub struct Facts<'a> {
    /// When it is made.
    pub now: Timestamp,
    /// There is a ledger.
    pub ledger_exists: bool,
    /// What the ledger knows.
    pub volume: Volume,
    /// The policy in force.
    pub policy: &'a RetentionPolicy,
    /// Where the archive is kept.
    pub store: Option<StoreUrl>,
    /// What a look at the store found, if it was looked at.
    pub look: Option<Result<StoreReport, StoreError>>,
    /// `limits.horizon_alarm`, as one writes it.
    pub horizon_alarm: String,
    /// Results of audits that the ledger does not have.
    pub given_audits: Vec<AuditSummary>,
}

impl Report {
    /// Puts a report together.
    #[must_use]
    pub fn of(facts: Facts<'_>) -> Self {
        let Facts { now, ledger_exists, volume, policy, store, look, horizon_alarm, given_audits } = facts;
        let is_full = volume.audits.len() as u64 >= u64::from(REPORT_AUDITS);
        let known = Known::of(&volume.audits, is_full, given_audits, volume.archive_id.as_ref());
        let mut report = Self {
            schema: REPORT_SCHEMA,
            generated_at: now,
            version: env!("CARGO_PKG_VERSION"),
            archive_id: volume.archive_id.clone().or_else(|| known.archive_id()),
            ledger_exists,
            attention: Vec::new(),
            sessions: sessions_of(&volume),
            horizon: horizon_of(&volume, now, horizon_alarm),
            failures: failures_of(&volume.overview),
            volume: media_of(&volume),
            store: store_of(store.as_ref(), look, policy.demands_locks()),
            policy: policy_of(policy),
            retention: known.retention(),
            fixity: known.fixity(now),
            audits: known.last(),
            chain: known.chain(),
            runs: volume.runs.iter().map(run_of).collect(),
        };
        report.attention = attention(&report, policy.demands_locks());
        report
    }
}

impl StandingCounts {
    fn add(&mut self, state: State, is_complete: bool, is_settled: bool, sessions: u64) {
        let count = match (state, is_complete, is_settled) {
            (State::Archived, true, true) => &mut self.settled,
            (State::Archived, true, false) => &mut self.unsettled,
            (State::Archived, false, _) => &mut self.incomplete,
            (State::Absent, ..) => &mut self.absent,
            (State::Failed, ..) => &mut self.failed,
            (State::Pending, ..) => &mut self.pending,
            (State::Accepted, ..) => &mut self.accepted,
        };
        *count += sessions;
    }
}

/// Lists the months from the first to the last, so that no month without sessions is missing from a chart.
fn without_gaps(months: impl Iterator<Item = Month> + Clone) -> Vec<Month> {
    let (Some(first), Some(last)) = (months.clone().min(), months.clone().max()) else {
        return Vec::new();
    };
    let all: Vec<Month> = std::iter::successors(Some(first), |month| Some(month.next()).filter(|next| *next <= last))
        .take(MONTHS_WITHOUT_GAPS + 1)
        .collect();
    if all.len() <= MONTHS_WITHOUT_GAPS {
        return all;
    }
    let mut present: Vec<Month> = months.collect();
    present.sort();
    present.dedup();
    present
}

fn sessions_of(volume: &Volume) -> Sessions {
    let mut standing = StandingCounts::default();
    let mut months: BTreeMap<Month, MonthOfSessions> = without_gaps(volume.months.iter().map(|row| row.month))
        .into_iter()
        .map(|month| {
            let empty = MonthOfSessions { month: month.to_string(), sessions: 0, standing: StandingCounts::default() };
            (month, empty)
        })
        .collect();
    for row in &volume.months {
        standing.add(row.state, row.complete, row.settled, row.sessions);
        if let Some(month) = months.get_mut(&row.month) {
            month.sessions += row.sessions;
            month.standing.add(row.state, row.complete, row.settled, row.sessions);
        }
    }
    let total = volume.overview.sessions;
    Sessions {
        total,
        archived_percent: percent_of(standing.settled + standing.unsettled, total),
        standing,
        months: months.into_values().collect(),
    }
}

fn horizon_of(volume: &Volume, now: Timestamp, alarm: String) -> Horizon {
    let sum = |takes: &dyn Fn(DaysLeft) -> bool| -> u64 {
        volume.deadlines.iter().filter(|row| takes(row.left)).map(|row| row.sessions).sum()
    };
    let bin = |label: &str, from_days, to_days, sessions| HorizonBin {
        label: label.to_owned(),
        from_days,
        to_days,
        sessions,
    };
    let mut bins = vec![bin("past", None, None, sum(&|left| left == DaysLeft::Past))];
    bins.extend(BINS.map(|(from, to)| {
        let label = to.map_or_else(|| format!("{from}+"), |to| format!("{from}–{to}"));
        let is_in = |left| matches!(left, DaysLeft::Days(days) if days >= from && to.is_none_or(|to| days <= to));
        bin(&label, Some(from), to, sum(&is_in))
    }));
    bins.push(bin("unknown", None, None, sum(&|left| left == DaysLeft::Unknown)));
    let overview = &volume.overview;
    Horizon {
        alarm,
        open: sum(&|_| true),
        past: overview.past_horizon,
        within_alarm: overview.within_alarm,
        unknown: overview.unknown_deadlines,
        nearest_deadline_at: overview.nearest_deadline_at,
        days_left: overview.nearest_deadline_at.map(|deadline| deadline.millis_since(now).div_euclid(DAY_MS)),
        bins,
    }
}

fn failures_of(overview: &Overview) -> Vec<Failure> {
    let mut failures: Vec<Failure> = overview
        .codes
        .iter()
        .map(|count| {
            let entry = repair::of(&count.code);
            Failure {
                state: count.state,
                code: count.code.clone(),
                sessions: count.sessions,
                retryable: Code::parse(&count.code).map(Code::is_retryable),
                meaning: entry.map(|entry| entry.meaning.clone()),
                repair: entry.map(|entry| entry.repair.clone()),
            }
        })
        .collect();
    failures.sort_by(|a, b| b.sessions.cmp(&a.sessions).then_with(|| (&a.code, a.state).cmp(&(&b.code, b.state))));
    failures
}

fn media_of(volume: &Volume) -> MediaVolume {
    let mut kinds: BTreeMap<MediaKind, KindVolume> = BTreeMap::new();
    for row in &volume.media {
        let empty = KindVolume { kind: row.kind, items: 0, bytes: 0 };
        kinds.entry(row.kind).or_insert(empty).add(row.items, row.bytes);
    }
    let none: Vec<KindVolume> = kinds.keys().map(|kind| KindVolume { kind: *kind, items: 0, bytes: 0 }).collect();
    let mut months: BTreeMap<Month, MonthOfMedia> = without_gaps(volume.media.iter().map(|row| row.month))
        .into_iter()
        .map(|month| (month, MonthOfMedia { month: month.to_string(), items: 0, bytes: 0, kinds: none.clone() }))
        .collect();
    for row in &volume.media {
        if let Some(month) = months.get_mut(&row.month) {
            month.items += row.items;
            month.bytes = month.bytes.saturating_add(row.bytes);
            if let Some(of_kind) = month.kinds.iter_mut().find(|of_kind| of_kind.kind == row.kind) {
                of_kind.add(row.items, row.bytes);
            }
        }
    }
    MediaVolume {
        items: volume.overview.media,
        bytes: volume.overview.bytes,
        kinds: kinds.into_values().collect(),
        months: months.into_values().collect(),
    }
}

impl KindVolume {
    fn add(&mut self, items: u64, bytes: u64) {
        self.items += items;
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

fn store_of(url: Option<&StoreUrl>, look: Option<Result<StoreReport, StoreError>>, demands_locks: bool) -> StoreFacts {
    let can_lock = url.map(StoreUrl::can_lock);
    let (check, check_failed) = match look {
        None => (None, None),
        Some(Err(error)) => (None, Some(error.to_string())),
        Some(Ok(report)) => (
            Some(StoreCheck {
                versions: report.features.versions,
                locks: report.features.locks,
                locks_assumed: report.locks_assumed.map(str::to_owned),
                default_lock: report.default_lock,
                clock_offset_ms: report.clock_offset_ms,
            }),
            None,
        ),
    };
    let statement = match (can_lock, demands_locks) {
        (None, _) => "No store is configured where this report was made.",
        (Some(false), _) => {
            "The archive is in a directory, which cannot lock: anyone who can write there can also change or delete. \
             Fixity audits and signed run records reveal a change; nothing prevents it."
        }
        (Some(true), false) => {
            "The archive is in a bucket, and the policy in force locks nothing: anyone who can write there can also \
             delete."
        }
        (Some(true), true) => {
            "The archive is in a bucket, and the policy in force locks every object until its date. The retention \
             audit shows which locks the store really has."
        }
    };
    StoreFacts { url: url.map(ToString::to_string), can_lock, statement: statement.to_owned(), check, check_failed }
}

fn policy_of(policy: &RetentionPolicy) -> Vec<PolicyClass> {
    let class = |(name, class): (&String, &crate::model::retention::Class)| PolicyClass {
        class: name.clone(),
        mode: class.mode,
        period: class.period,
        max_period: class.max_period,
        basis: class.basis.clone(),
    };
    policy.classes().iter().map(class).collect()
}

fn run_of(run: &RunRow) -> RunSummary {
    let counts = &run.counts;
    RunSummary {
        run_id: run.run_id.clone(),
        started_at: run.started_at,
        finished_at: run.finished_at,
        exit_code: run.exit_code,
        ended: ended(run.exit_code),
        version: run.version.clone(),
        source_kind: run.source_kind.clone(),
        archived: counts.archived,
        unchanged: counts.unchanged,
        absent: counts.absent,
        failed: counts.failed,
        pending: counts.pending,
        media: counts.media,
        bytes: counts.bytes,
    }
}

/// Says how a run ended, in the words of the table of exits.
fn ended(exit_code: Option<u8>) -> &'static str {
    let Some(code) = exit_code else { return "not ended, or died" };
    Exit::ALL.into_iter().find(|exit| exit.code() == code).map_or("see the exit code", Exit::meaning)
}

/// Says what needs attention, from what else is in the report.
fn attention(report: &Report, demands_locks: bool) -> Vec<Attention> {
    let mut found = Vec::new();
    let mut add = |is_so: bool, level, text: String, command: Option<&str>| {
        if is_so {
            found.push(Attention { level, text, command: command.map(str::to_owned) });
        }
    };
    let (horizon, standing) = (&report.horizon, &report.sessions.standing);
    let for_good: u64 = report
        .failures
        .iter()
        .filter(|failure| failure.state == State::Failed && failure.retryable == Some(false))
        .map(|failure| failure.sessions)
        .sum();
    let run = Some("veriff-archive run --backlog");
    let list = |state| match state {
        State::Absent => Some("veriff-archive backlog list --state absent"),
        _ => Some("veriff-archive backlog list --state failed"),
    };
    let past = "Past the horizon, so Veriff may have deleted their media";
    add(horizon.past > 0, Level::Act, told(past, horizon.past), run);
    add(
        horizon.within_alarm > 0,
        Level::Act,
        told(&format!("Within {} of the horizon", horizon.alarm), horizon.within_alarm),
        run,
    );
    for last in &report.audits.last {
        let (name, command) = (last.audit.as_str(), Some(last.command));
        match &last.last {
            None => add(true, Level::Look, format!("No result of the {name} audit is known."), command),
            Some(line) => {
                let errors =
                    format!("The last {name} audit found errors: {}. Each finding names its repair.", line.errors);
                add(line.errors > 0, Level::Act, errors, command);
                let stopped = format!("The last {name} audit was stopped before the end.");
                add(!line.complete, Level::Look, stopped, command);
            }
        }
    }
    add(for_good > 0, Level::Look, told("Failed in a way that no later run repairs", for_good), list(State::Failed));
    add(standing.absent > 0, Level::Look, told("Absent at Veriff", standing.absent), list(State::Absent));
    add(horizon.unknown > 0, Level::Look, told("Still to be done, with an unknown deadline", horizon.unknown), run);
    let (store, doctor) = (&report.store, Some("veriff-archive doctor"));
    let cannot = "The policy locks, and the store is a directory, which cannot lock.";
    add(store.can_lock == Some(false) && demands_locks, Level::Look, cannot.to_owned(), None);
    let unlocked = "The policy in force locks nothing.".to_owned();
    add(store.can_lock == Some(true) && !demands_locks, Level::Look, unlocked, None);
    let has_no_locks = store.check.as_ref().is_some_and(|check| !check.locks);
    let unfit = "The policy locks, and the bucket has no Object Lock.".to_owned();
    add(has_no_locks && store.can_lock == Some(true) && demands_locks, Level::Act, unfit, doctor);
    add(store.check_failed.is_some(), Level::Look, "The store could not be inspected.".to_owned(), doctor);
    let without_lock = report.retention.unlocked_objects;
    let loose = format!("Objects without a lock, according to the last retention audit: {without_lock}.");
    add(
        without_lock > 0 && demands_locks && store.can_lock != Some(false),
        Level::Act,
        loose,
        Some(report.retention.command),
    );
    let unsigned: u64 = report.chain.groups.iter().map(|group| group.unsigned).sum();
    let keygen = Some("veriff-archive keygen --private-key FILE --public-key FILE");
    add(unsigned > 0, Level::Look, format!("Entries of the chains without a signature: {unsigned}."), keygen);
    let Audits { older_left_out, unreadable, of_another_archive, .. } = report.audits;
    let limit = format!("Only the latest {REPORT_AUDITS} results of audits were read.");
    add(older_left_out, Level::Look, limit, None);
    let odd = format!("Results of audits that this version cannot read: {unreadable}.");
    add(unreadable > 0, Level::Look, odd, None);
    let foreign = format!("Results of audits that belong to another archive and were left out: {of_another_archive}.");
    add(of_another_archive > 0, Level::Look, foreign, None);
    found.sort_by_key(|attention| attention.level);
    found
}

/// Writes a number of sessions.
fn told(what: &str, sessions: u64) -> String {
    let noun = if sessions == 1 { "session" } else { "sessions" };
    format!("{what}: {sessions} {noun}.")
}
