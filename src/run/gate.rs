//! Gate: whether an integration may go on, judged from how its first sessions end.
//!
//! Wrong credentials and a wrong integration look alike from inside one session: refused, or not found. What
//! distinguishes them is the company a session keeps. Until one session was heard, refusals and absences are held
//! back, nothing is written of them, and enough of them stop the integration; afterwards a single one counts for
//! itself. Pure: the worker asks, and does what is decided.

use std::collections::HashSet;

use crate::model::SessionId;

/// How many of the first sessions must be absent for the integration to be taken for the wrong one.
const ABSENT_TO_STOP: usize = 20;

/// How many absent sessions are too few to conclude anything, if they are all there are.
const ABSENT_BY_CHANCE: usize = 4;

/// How many different sessions must be refused, with no success before, for the credentials to be taken for wrong.
const REFUSED_TO_STOP: usize = 3;

/// What the first sessions of one integration show.
#[derive(Debug, Default)]
pub struct Gate {
    expect_absent: bool,
    heard: bool,
    ended_otherwise: bool,
    absent: HashSet<SessionId>,
    refused: HashSet<SessionId>,
    stopped: Option<StopReason>,
}

/// Why an integration was stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// Its credentials are refused.
    Refused,
    /// All of its first sessions are absent.
    AllAbsent,
}

impl StopReason {
    /// Returns the text for people.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "veriff refuses the credentials of this integration",
            Self::AllAbsent => {
                "veriff has none of the first sessions: check that this is the right integration; if it is, use \
                 --expect-absent"
            }
        }
    }
}

/// What to do with a session that the gate judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It counts for itself: settle it as it ended.
    Settle,
    /// Too early to decide: hold it back.
    Hold,
    /// The integration has worked before: ask again for a session that worked, and stop if that is refused now.
    Probe,
    /// Stop the integration; the session and all that are held stay pending.
    Stop(StopReason),
}

impl Gate {
    /// Makes a gate; with `expect_absent` absences never stop the integration.
    #[must_use]
    pub fn new(expect_absent: bool) -> Self {
        Self { expect_absent, ..Self::default() }
    }

    /// Returns why the integration was stopped, if it was.
    #[must_use]
    pub const fn stopped(&self) -> Option<StopReason> {
        self.stopped
    }

    /// Returns whether Veriff ever answered for a session.
    #[must_use]
    pub const fn was_heard(&self) -> bool {
        self.heard
    }

    /// Returns whether nothing is known of the integration yet, so that it is better asked with care.
    #[must_use]
    pub const fn is_untried(&self) -> bool {
        !self.heard && !self.ended_otherwise && !self.expect_absent && self.stopped.is_none()
    }

    /// Notes that Veriff answered for a session: from now on every other counts for itself.
    pub const fn heard(&mut self) {
        self.heard = true;
    }

    /// Notes a session that ended in a way that shows nothing about the integration.
    pub const fn ended_otherwise(&mut self) {
        self.ended_otherwise = true;
    }

    /// Judges a session that Veriff does not have.
    pub fn absent(&mut self, session: &SessionId) -> Verdict {
        if let Some(reason) = self.stopped {
            return Verdict::Stop(reason);
        }
        if self.heard || self.expect_absent {
            return Verdict::Settle;
        }
        self.absent.insert(session.clone());
        if self.absent.len() >= ABSENT_TO_STOP { self.stop(StopReason::AllAbsent) } else { Verdict::Hold }
    }

    /// Judges a session that Veriff refused; `key` says that the key itself is refused.
    pub fn refused(&mut self, session: &SessionId, key: bool) -> Verdict {
        if let Some(reason) = self.stopped {
            return Verdict::Stop(reason);
        }
        if key {
            return self.stop(StopReason::Refused);
        }
        if self.heard {
            return Verdict::Probe;
        }
        self.refused.insert(session.clone());
        if self.refused.len() >= REFUSED_TO_STOP { self.stop(StopReason::Refused) } else { Verdict::Hold }
    }

    /// Notes that a call that worked before is refused now.
    pub const fn probe_was_refused(&mut self) -> Verdict {
        self.stop(StopReason::Refused)
    }

    /// Judges what is still held when there are no more sessions.
    pub fn end(&mut self) -> Verdict {
        if let Some(reason) = self.stopped {
            return Verdict::Stop(reason);
        }
        if self.heard {
            return Verdict::Settle;
        }
        if !self.refused.is_empty() && self.absent.is_empty() && !self.ended_otherwise {
            return self.stop(StopReason::Refused);
        }
        let all_absent = self.refused.is_empty() && !self.ended_otherwise;
        if !self.expect_absent && all_absent && self.absent.len() > ABSENT_BY_CHANCE {
            return self.stop(StopReason::AllAbsent);
        }
        Verdict::Settle
    }

    const fn stop(&mut self, reason: StopReason) -> Verdict {
        self.stopped = Some(reason);
        Verdict::Stop(reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: usize) -> SessionId {
        SessionId::parse(&format!("s{number}")).unwrap()
    }

    #[test]
    fn twenty_absences_and_nothing_else_stop_the_integration() {
        let mut gate = Gate::new(false);
        for number in 1..20 {
            assert_eq!(gate.absent(&id(number)), Verdict::Hold);
        }
        assert_eq!(gate.absent(&id(20)), Verdict::Stop(StopReason::AllAbsent));
    }

    #[test]
    fn one_session_that_was_heard_lets_absences_stand_for_themselves() {
        let mut gate = Gate::new(false);
        assert_eq!(gate.absent(&id(1)), Verdict::Hold);
        gate.heard();
        assert_eq!(gate.absent(&id(2)), Verdict::Settle);
        assert_eq!(gate.end(), Verdict::Settle);
    }

    #[test]
    fn four_absences_may_be_chance_and_five_are_not() {
        for (number, verdict) in [(4, Verdict::Settle), (5, Verdict::Stop(StopReason::AllAbsent))] {
            let mut gate = Gate::new(false);
            (0..number).for_each(|number| assert_eq!(gate.absent(&id(number)), Verdict::Hold));
            assert_eq!(gate.end(), verdict);
        }
    }

    #[test]
    fn an_integration_is_untried_until_a_session_tells_anything_but_a_refusal() {
        let mut gate = Gate::new(false);
        gate.refused(&id(1), false);
        gate.absent(&id(2));
        assert!(gate.is_untried());
        gate.ended_otherwise();
        assert!(!gate.is_untried());
        assert!(!Gate::new(true).is_untried());
    }

    #[test]
    fn absences_that_are_expected_are_settled_at_once() {
        let mut gate = Gate::new(true);
        assert!((0..50).all(|number| gate.absent(&id(number)) == Verdict::Settle));
    }

    #[test]
    fn a_refused_key_stops_at_once_and_a_refused_session_after_three() {
        assert_eq!(Gate::new(false).refused(&id(1), true), Verdict::Stop(StopReason::Refused));
        let mut gate = Gate::new(false);
        assert_eq!(gate.refused(&id(1), false), Verdict::Hold);
        assert_eq!(gate.refused(&id(1), false), Verdict::Hold);
        assert_eq!(gate.refused(&id(2), false), Verdict::Hold);
        assert_eq!(gate.refused(&id(3), false), Verdict::Stop(StopReason::Refused));
        assert_eq!(gate.absent(&id(4)), Verdict::Stop(StopReason::Refused));
    }

    #[test]
    fn one_refused_session_that_is_all_there_is_stops_and_a_foreign_one_fails_alone() {
        let mut gate = Gate::new(false);
        assert_eq!(gate.refused(&id(1), false), Verdict::Hold);
        assert_eq!(gate.end(), Verdict::Stop(StopReason::Refused));
        let mut gate = Gate::new(false);
        assert_eq!(gate.refused(&id(1), false), Verdict::Hold);
        gate.heard();
        assert_eq!(gate.end(), Verdict::Settle);
        assert_eq!(gate.refused(&id(2), false), Verdict::Probe);
    }
}
