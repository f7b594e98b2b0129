//! The ledger in numbers: what `status` reports and the run's summary needs.
//!
//! An engine sums up sessions by state and code, which an index answers; what the sums mean is decided here, once, for
//! all engines.

use serde::Serialize;

use super::{BacklogCounts, RunCounts, State};
use crate::clock::Timestamp;
use crate::error::Code;
use crate::model::RunId;

/// How many of the latest runs an overview shows.
pub const OVERVIEW_RUNS: u32 = 5;

/// A run as an overview shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct RunRow {
    /// The run.
    pub run_id: RunId,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended; nothing if it still runs or died.
    pub finished_at: Option<Timestamp>,
    /// How it exited.
    pub exit_code: Option<u8>,
    /// The version of this program.
    pub version: String,
    /// The kind of its source.
    pub source_kind: String,
    /// Where it archived to.
    pub store_url: String,
    /// What it did; zeros until it has ended.
    pub counts: RunCounts,
}

/// Everything in numbers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, schemars::JsonSchema)]
pub struct Overview {
    /// All sessions.
    pub sessions: u64,
    /// Sessions by state; states without any are left out.
    pub states: Vec<StateCount>,
    /// Sessions by state and code; those without a code are left out.
    pub codes: Vec<CodeCount>,
    /// Sessions of whose manifest nothing is missing.
    pub complete: u64,
    /// Sessions of which nothing more is expected.
    pub settled: u64,
    /// When the pending session that waits longest was first visited.
    pub oldest_pending_at: Option<Timestamp>,
    /// The nearest deadline of a session still to be done, past ones included: pending, or failed in a way that may
    /// work later. The four numbers below are of the same sessions.
    pub nearest_deadline_at: Option<Timestamp>,
    /// Those whose deadline is not known.
    pub unknown_deadlines: u64,
    /// Those whose deadline has passed.
    pub past_horizon: u64,
    /// Those whose deadline comes within the alarm.
    pub within_alarm: u64,
    /// The backlog: sessions that are due, due later, or worked on.
    pub backlog: BacklogCounts,
    /// Media items known to be archived.
    pub media: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The latest runs, newest first.
    pub runs: Vec<RunRow>,
}

/// How many sessions are in a state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct StateCount {
    /// The state.
    pub state: State,
    /// How many.
    pub sessions: u64,
}

/// How many sessions are in a state for a reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct CodeCount {
    /// The state.
    pub state: State,
    /// The code.
    pub code: String,
    /// How many.
    pub sessions: u64,
}

/// The sessions of one state and code, summed up by an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) state: State,
    pub(super) code: Option<String>,
    pub(super) sessions: u64,
    pub(super) complete: u64,
    pub(super) settled: u64,
    pub(super) media: u64,
    pub(super) bytes: u64,
    pub(super) nearest_deadline_at: Option<Timestamp>,
    pub(super) unknown_deadlines: u64,
    pub(super) past_horizon: u64,
    pub(super) within_alarm: u64,
}

/// Returns whether sessions are still to be done. A code of another version counts: better alarmed than late.
pub(super) fn is_open(state: State, code: Option<&str>) -> bool {
    match state {
        State::Pending => true,
        State::Failed => code.and_then(Code::parse).is_none_or(Code::is_retryable),
        State::Archived | State::Absent | State::Accepted => false,
    }
}

impl Overview {
    /// Adds up groups that come in the order of their states.
    pub(super) fn of(groups: &[Group]) -> Self {
        let mut overview = Self::default();
        for group in groups {
            overview.sessions += group.sessions;
            match overview.states.last_mut().filter(|last| last.state == group.state) {
                Some(last) => last.sessions += group.sessions,
                None => overview.states.push(StateCount { state: group.state, sessions: group.sessions }),
            }
            if let Some(code) = &group.code {
                overview.codes.push(CodeCount { state: group.state, code: code.clone(), sessions: group.sessions });
            }
            overview.complete += group.complete;
            overview.settled += group.settled;
            overview.media += group.media;
            overview.bytes += group.bytes;
            if is_open(group.state, group.code.as_deref()) {
                overview.nearest_deadline_at =
                    [overview.nearest_deadline_at, group.nearest_deadline_at].into_iter().flatten().min();
                overview.unknown_deadlines += group.unknown_deadlines;
                overview.past_horizon += group.past_horizon;
                overview.within_alarm += group.within_alarm;
            }
        }
        overview
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sessions_still_to_be_done_have_deadlines_that_count() {
        let group = |state, code: Option<&str>, deadline| Group {
            state,
            code: code.map(str::to_owned),
            sessions: 10,
            complete: 1,
            settled: 2,
            media: 3,
            bytes: 4,
            nearest_deadline_at: Some(Timestamp::from_unix_seconds(deadline)),
            unknown_deadlines: 5,
            past_horizon: 6,
            within_alarm: 7,
        };
        let overview = Overview::of(&[
            group(State::Archived, None, 1),
            group(State::Failed, Some("media.missing"), 2),
            group(State::Failed, Some("veriff.throttled"), 30),
            group(State::Failed, Some("code.of_a_later_version"), 20),
            group(State::Pending, None, 40),
        ]);
        assert_eq!(overview.sessions, 50);
        assert_eq!(overview.nearest_deadline_at, Some(Timestamp::from_unix_seconds(20)));
        assert_eq!((overview.unknown_deadlines, overview.past_horizon, overview.within_alarm), (15, 18, 21));
        assert_eq!(
            overview.states.iter().map(|s| (s.state, s.sessions)).collect::<Vec<_>>(),
            [(State::Archived, 10), (State::Failed, 30), (State::Pending, 10)]
        );
        assert_eq!(overview.codes.len(), 3);
        assert_eq!((overview.media, overview.bytes), (15, 20));
    }
}
