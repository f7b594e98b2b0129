//! States of a session in the ledger, and the legal moves between them.
//!
//! A pure function decides, inside each engine's transaction, what an entry may change: evidence once known is never
//! unlearnt from a slower worker or a visit that was stopped, and a failure is always recorded.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::Code;
use crate::model::manifest::Manifest;
use crate::model::{MediaKind, is_decided_status};

/// The state of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Given to us and still to be done.
    Pending,
    /// Its manifest is in the store.
    Archived,
    /// Veriff does not have it, and a manifest keeps that answer.
    Absent,
    /// Its last visit ended with a code.
    Failed,
    /// It cannot be saved, and a person said so.
    Accepted,
}

impl State {
    /// Every state there is.
    pub const ALL: [Self; 5] = [Self::Pending, Self::Archived, Self::Absent, Self::Failed, Self::Accepted];

    /// Returns the text that is written in the ledger.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Archived => "archived",
            Self::Absent => "absent",
            Self::Failed => "failed",
            Self::Accepted => "accepted",
        }
    }

    /// Says where a manifest by itself leaves its session, and why; the visits after it may have left it elsewhere.
    #[must_use]
    pub fn of(manifest: &Manifest) -> (Self, Option<Code>) {
        if manifest.absent.is_some() {
            return (Self::Absent, Some(Code::VeriffAbsent));
        }
        if !manifest.complete {
            let first = manifest.missing.first().and_then(|item| Code::parse(&item.code));
            // A list that was refused for good leaves no item to report.
            return (Self::Failed, Some(first.unwrap_or(Code::VeriffUnexpected)));
        }
        let newest = manifest.attempts.iter().rfind(|attempt| !attempt.attempt_id.is_session());
        let status = newest.and_then(|attempt| attempt.status.as_deref());
        let has_media = manifest.media().any(|(_, media)| media.kind != MediaKind::Record);
        if !has_media && status.is_some_and(is_decided_status) {
            return (Self::Failed, Some(Code::VeriffEmpty));
        }
        (Self::Archived, None)
    }

    /// Finds the state that the ledger names.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What the ledger holds of a session before an entry: all that decides what the entry may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// The state.
    pub state: State,
    /// The number of the newest manifest known.
    pub sequence: Option<u32>,
}

/// What an entry changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Move {
    /// The state from now on.
    pub state: State,
    /// The entry's code and message are taken; otherwise the existing ones are kept.
    pub takes_cause: bool,
    /// The entry's manifest and what it says (complete, settled, media) are taken.
    pub takes_manifest: bool,
}

impl Standing {
    /// Says what an entry with this state and manifest changes. Every engine asks here, inside its transaction.
    ///
    /// Anything may become archived. What a person accepted as lost stays so unless it is archived after all; opening it
    /// again is a command of its own. What is archived never goes back to pending or absent: a visit that was
    /// stopped, or found the session gone upstream, takes nothing from the evidence. A visit that failed is always
    /// recorded. An entry that knows an older manifest than the existing one comes from a slower worker: it changes no
    /// manifest field, and of the state only that something failed.
    #[must_use]
    pub fn after(standing: Option<Self>, asked: State, sequence: Option<u32>) -> Move {
        let Some(standing) = standing else {
            return Move { state: asked, takes_cause: true, takes_manifest: sequence.is_some() };
        };
        let is_behind = sequence < standing.sequence;
        let is_accepted = standing.state == State::Accepted;
        let is_kept = match asked {
            State::Failed => is_accepted,
            State::Accepted => standing.state == State::Archived,
            State::Archived => is_behind,
            State::Absent => is_behind || is_accepted || standing.state == State::Archived,
            State::Pending => is_behind && sequence.is_some() || is_accepted || standing.state == State::Archived,
        };
        Move {
            state: if is_kept { standing.state } else { asked },
            takes_cause: !is_kept,
            takes_manifest: sequence.is_some() && !is_behind,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_state_is_as_wide_as_it_is_asked_to_be() {
        assert_eq!(format!("{:<9}1", State::Archived), "archived 1");
    }

    fn states() -> impl Strategy<Value = State> {
        proptest::sample::select(State::ALL.to_vec())
    }

    fn sequences() -> impl Strategy<Value = Option<u32>> {
        proptest::option::of(1u32..5)
    }

    proptest! {
        #[test]
        fn what_stands_archived_never_becomes_pending_or_absent(
            sequence in sequences(), asked in states(), new in sequences()
        ) {
            let standing = Standing { state: State::Archived, sequence };
            let state = Standing::after(Some(standing), asked, new).state;
            prop_assert!(matches!(state, State::Archived | State::Failed), "{state}");
        }

        #[test]
        fn a_failure_is_told_unless_it_was_accepted(state in states(), sequence in sequences(), new in sequences()) {
            if state == State::Accepted {
                let made = Standing::after(Some(Standing { state, sequence }), State::Failed, new);
                prop_assert_eq!(made.state, State::Accepted);
                return Ok(());
            }
            let made = Standing::after(Some(Standing { state, sequence }), State::Failed, new);
            prop_assert_eq!(made.state, State::Failed);
            prop_assert!(made.takes_cause);
        }

        #[test]
        fn anything_may_become_archived_by_a_manifest_that_is_not_older(
            state in states(), sequence in sequences(), new in 5u32..7
        ) {
            let made = Standing::after(Some(Standing { state, sequence }), State::Archived, Some(new));
            prop_assert_eq!(made, Move { state: State::Archived, takes_cause: true, takes_manifest: true });
        }

        #[test]
        fn a_manifest_never_goes_back(state in states(), sequence in sequences(), asked in states(), new in sequences()) {
            let made = Standing::after(Some(Standing { state, sequence }), asked, new);
            if made.takes_manifest {
                prop_assert!(new >= sequence);
            }
        }

        #[test]
        fn the_cause_belongs_to_the_state(state in states(), sequence in sequences(), asked in states(), new in sequences()) {
            let made = Standing::after(Some(Standing { state, sequence }), asked, new);
            prop_assert_eq!(made.state, if made.takes_cause { asked } else { state });
        }
    }

    #[test]
    fn a_slower_worker_does_not_call_archived_what_a_newer_manifest_left_failed() {
        let standing = Standing { state: State::Failed, sequence: Some(2) };
        let made = Standing::after(Some(standing), State::Archived, Some(1));
        assert_eq!(made, Move { state: State::Failed, takes_cause: false, takes_manifest: false });
    }

    #[test]
    fn a_failed_session_may_be_given_back_before_its_manifest_was_looked_at() {
        let standing = Standing { state: State::Failed, sequence: Some(1) };
        let made = Standing::after(Some(standing), State::Pending, None);
        assert_eq!(made.state, State::Pending);
        assert!(!made.takes_manifest);
    }

    #[test]
    fn states_read_back() {
        for state in State::ALL {
            assert_eq!(State::parse(state.as_str()), Some(state));
            assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
        }
        assert_eq!(State::parse("Archived"), None);
    }
}
