//! The ledger in aggregates over time: what `report` tells.
//!
//! An engine sums up by day (UTC), which needs no calendar in SQL; months, and which sessions are still to be done, are
//! decided here, once, for all engines. Nothing of a single session gets this far.

use std::collections::BTreeMap;

use super::overview::is_open;
use super::{AuditRow, Overview, RunRow, State};
use crate::clock::Timestamp;
use crate::model::{ArchiveId, MediaKind};

/// Milliseconds of a day.
pub(super) const DAY_MS: i64 = 86_400_000;

/// What is asked of the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VolumeQuery {
    /// Deadlines are counted from this time.
    pub now: Timestamp,
    /// As in [`super::Survey::overview`].
    pub horizon_alarm: std::time::Duration,
    /// At most so many of the latest runs.
    pub runs: u32,
    /// At most so many of the latest audits.
    pub audits: u32,
}

/// Aggregates of one moment: all of them agree with one another.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Volume {
    /// The archive that the ledger belongs to, once it has met one.
    pub archive_id: Option<ArchiveId>,
    /// Everything in numbers.
    pub overview: Overview,
    /// Sessions by the month in which they were first visited or added, oldest first; months without any are left out.
    pub months: Vec<MonthRow>,
    /// Archived items by the month of their session, oldest first.
    pub media: Vec<MediaMonthRow>,
    /// Sessions still to be done by the whole days they have left, fewest first. The same sessions of which the overview
    /// tells deadlines.
    pub deadlines: Vec<DeadlineRow>,
    /// The latest runs, newest first.
    pub runs: Vec<RunRow>,
    /// The latest audits, newest first.
    pub audits: Vec<AuditRow>,
}

/// A month of the calendar, in UTC. Ordered by time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Month {
    /// The year.
    pub year: i16,
    /// The month, from 1.
    pub month: i8,
}

/// The sessions of one month and kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MonthRow {
    /// The month.
    pub month: Month,
    /// Where they stand.
    pub state: State,
    /// Nothing is missing from their manifest.
    pub complete: bool,
    /// Nothing more is expected of them.
    pub settled: bool,
    /// How many.
    pub sessions: u64,
}

/// The archived items of one month and kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaMonthRow {
    /// The month.
    pub month: Month,
    /// What they are.
    pub kind: MediaKind,
    /// How many.
    pub items: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Sessions still to be done that have the same number of days left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeadlineRow {
    /// How long they have.
    pub left: DaysLeft,
    /// How many.
    pub sessions: u64,
}

/// How long a session still to be done has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DaysLeft {
    /// Its deadline has passed.
    Past,
    /// So many whole days.
    Days(u64),
    /// Its deadline is not known.
    Unknown,
}

impl Month {
    /// Returns the month of an instant.
    #[must_use]
    pub fn of(at: Timestamp) -> Self {
        let date = at.utc().date();
        Self { year: date.year(), month: date.month() }
    }

    /// Returns the month after this one.
    #[must_use]
    pub fn next(self) -> Self {
        match self.month {
            12 => Self { year: self.year + 1, month: 1 },
            month => Self { month: month + 1, ..self },
        }
    }

    pub(super) fn of_day(day: i64) -> Self {
        Self::of(Timestamp::from_unix_millis(day.saturating_mul(DAY_MS)))
    }
}

impl std::fmt::Display for Month {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:04}-{:02}", self.year, self.month)
    }
}

/// The sessions of one day and kind, summed up by an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DayGroup {
    pub(super) day: i64,
    pub(super) state: State,
    pub(super) complete: bool,
    pub(super) settled: bool,
    pub(super) sessions: u64,
}

/// The items of one day and kind, summed up by an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MediaDayGroup {
    pub(super) day: i64,
    pub(super) kind: MediaKind,
    pub(super) items: u64,
    pub(super) bytes: u64,
}

/// Sessions pending or failed, by the days they have left: -1 where the deadline has passed, nothing where it is unknown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DeadlineGroup {
    pub(super) state: State,
    pub(super) code: Option<String>,
    pub(super) days_left: Option<i64>,
    pub(super) sessions: u64,
}

/// Adds up days to months.
pub(super) fn months(groups: &[DayGroup]) -> Vec<MonthRow> {
    let mut sums: BTreeMap<(Month, State, bool, bool), u64> = BTreeMap::new();
    for group in groups {
        let key = (Month::of_day(group.day), group.state, group.complete, group.settled);
        *sums.entry(key).or_default() += group.sessions;
    }
    let row = |((month, state, complete, settled), sessions)| MonthRow { month, state, complete, settled, sessions };
    sums.into_iter().map(row).collect()
}

/// Adds up days to months.
pub(super) fn media_months(groups: &[MediaDayGroup]) -> Vec<MediaMonthRow> {
    let mut sums: BTreeMap<(Month, MediaKind), (u64, u64)> = BTreeMap::new();
    for group in groups {
        let (items, bytes) = sums.entry((Month::of_day(group.day), group.kind)).or_default();
        *items += group.items;
        *bytes = bytes.saturating_add(group.bytes);
    }
    let row = |((month, kind), (items, bytes))| MediaMonthRow { month, kind, items, bytes };
    sums.into_iter().map(row).collect()
}

/// Keeps the sessions still to be done, and adds them up by the days they have left.
pub(super) fn deadlines(groups: &[DeadlineGroup]) -> Vec<DeadlineRow> {
    let mut sums: BTreeMap<DaysLeft, u64> = BTreeMap::new();
    for group in groups.iter().filter(|group| is_open(group.state, group.code.as_deref())) {
        let left = match group.days_left.map(u64::try_from) {
            None => DaysLeft::Unknown,
            Some(Err(_)) => DaysLeft::Past,
            Some(Ok(days)) => DaysLeft::Days(days),
        };
        *sums.entry(left).or_default() += group.sessions;
    }
    sums.into_iter().map(|(left, sessions)| DeadlineRow { left, sessions }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_become_months_of_utc() {
        let day = |text: &str| text.parse::<Timestamp>().unwrap().unix_millis() / DAY_MS;
        let group = |text: &str, sessions| DayGroup {
            day: day(text),
            state: State::Archived,
            complete: true,
            settled: true,
            sessions,
        };
        let groups = [
            group("2027-01-01T00:00:00Z", 4),
            group("2026-11-30T23:59:59.999Z", 1),
            group("2026-11-01T00:00:00Z", 2),
            group("2026-12-31T12:00:00Z", 3),
        ];
        let found: Vec<_> = months(&groups).iter().map(|row| (row.month.to_string(), row.sessions)).collect();
        assert_eq!(found, [("2026-11".to_owned(), 3), ("2026-12".to_owned(), 3), ("2027-01".to_owned(), 4)]);
        assert_eq!(Month { year: 2026, month: 12 }.next(), Month { year: 2027, month: 1 });
    }

    #[test]
    fn only_sessions_still_to_be_done_have_days_left() {
        let group = |state, code: Option<&str>, days_left, sessions| DeadlineGroup {
            state,
            code: code.map(str::to_owned),
            days_left,
            sessions,
        };
        let rows = deadlines(&[
            group(State::Failed, Some("media.missing"), Some(3), 1),
            group(State::Failed, Some("veriff.throttled"), Some(3), 2),
            group(State::Pending, None, Some(3), 4),
            group(State::Pending, None, None, 8),
            group(State::Pending, None, Some(-1), 16),
        ]);
        let row = |left, sessions| DeadlineRow { left, sessions };
        assert_eq!(rows, [row(DaysLeft::Past, 16), row(DaysLeft::Days(3), 6), row(DaysLeft::Unknown, 8)]);
    }
}
