//! Backlog: the part of the ledger that lists sessions still to do, handed out under leases.
//!
//! One row a session that is due now, due later, or leased; a session that is done has none, so the list stays as short
//! as the work that is left. Here are its words; each engine writes its own SQL.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use serde::Serialize;

use super::{LedgerError, SessionRow, State};
use crate::clock::Timestamp;
use crate::model::request::SessionRequest;
use crate::model::{RunId, SessionId};

/// Hands out the sessions still to do, and changes which these are.
#[async_trait]
pub trait Backlog: Send + Sync + fmt::Debug {
    /// Puts sessions into the backlog, in one transaction. Repeating it changes nothing; of a session that is known, what
    /// a record adds is taken over, and an earlier deadline.
    ///
    /// # Errors
    /// As [`super::SessionLog::adopt_archive`].
    async fn add(&self, entries: &[BacklogEntry], run_id: &RunId, at: Timestamp) -> Result<Added, LedgerError>;

    /// Hands out sessions under leases. No session is leased to two holders at once.
    ///
    /// # Errors
    /// As [`super::SessionLog::adopt_archive`].
    async fn claim(&self, claim: &Claim) -> Result<Vec<Claimed>, LedgerError>;

    /// Renews leases until a time, and returns the sessions whose lease this holder still has.
    ///
    /// # Errors
    /// As [`super::SessionLog::adopt_archive`].
    async fn renew(
        &self,
        holder: &RunId,
        sessions: &[SessionId],
        until: Timestamp,
    ) -> Result<Vec<SessionId>, LedgerError>;

    /// Ends a lease: the session leaves the backlog, or comes again.
    /// Returns whether the holder still had it; if not, nothing changes.
    ///
    /// # Errors
    /// As [`super::SessionLog::adopt_archive`].
    async fn end_lease(
        &self,
        holder: &RunId,
        session: &SessionId,
        comes_again: Option<Comeback>,
    ) -> Result<bool, LedgerError>;

    /// Makes sessions pending again and puts them into the backlog, due at once; returns how many. Leased ones are left.
    ///
    /// # Errors
    /// As [`super::SessionLog::adopt_archive`].
    async fn retry(&self, filter: &Filter, at: Timestamp) -> Result<u64, LedgerError>;

    /// Closes sessions that cannot be saved, with the reason a person gave; they leave the backlog. Returns how many.
    /// Archived ones have nothing to be accepted and are left.
    ///
    /// # Errors
    /// As [`super::SessionLog::adopt_archive`].
    async fn accept(&self, filter: &Filter, reason: &str, at: Timestamp) -> Result<u64, LedgerError>;
}

/// A session to be put into the backlog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BacklogEntry {
    /// What the input said.
    pub record: SessionRequest,
    /// The integration it is to be looked for in.
    pub integration: String,
    /// When Veriff may delete its media, where that can be told.
    pub deadline_at: Option<Timestamp>,
}

/// What became of sessions that were put into the backlog.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, schemars::JsonSchema)]
pub struct Added {
    /// Sessions that are new to the ledger, or were pending and not in the backlog.
    pub added: u64,
    /// Sessions that were in the backlog already; what a record adds is taken over.
    pub waiting: u64,
    /// Sessions that ended before, whatever their end: they are left as they are; `backlog retry` opens them again.
    pub ended: u64,
}

/// Which sessions a worker asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Who takes them.
    pub holder: RunId,
    /// The integrations it can ask.
    pub integrations: Vec<String>,
    /// What is due is due by this time.
    pub now: Timestamp,
    /// How long they may be held without being renewed.
    pub lease: Duration,
    /// At most so many.
    pub limit: u32,
    /// Which of them.
    pub which: Which,
}

/// Which sessions are handed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Those that are due, and those whose lease has lapsed; earliest deadline first, unknown ones before all.
    Due,
    /// Those that this holder gave back to come again later and that are `failed` with a retryable code, due or not.
    LeftByHolder,
}

/// A session handed out under a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    /// What the inputs said.
    pub record: SessionRequest,
    /// The integration it is to be looked for in.
    pub integration: String,
    /// How often it was given back to come again since it was added or last done.
    pub tries: u32,
}

/// When a session whose lease ends comes again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Comeback {
    /// Not before this time.
    pub due_at: Timestamp,
    /// It was tried, and the number of its tries grows; else it was merely given back and is ready at once.
    pub was_tried: bool,
}

/// Which sessions of the ledger are meant; every part that is given must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    /// In one of these states; all if empty.
    pub states: Vec<State>,
    /// With one of these codes; any or none if empty.
    pub codes: Vec<String>,
    /// Last visited by this run.
    pub run_id: Option<RunId>,
    /// Last visited, or added, before this time.
    pub before: Option<Timestamp>,
    /// Of these; all if `None`.
    pub sessions: Option<Vec<SessionId>>,
    /// In the backlog.
    pub in_backlog: bool,
}

/// A session as `backlog list` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedSession {
    /// What is known of it.
    pub row: SessionRow,
    /// How it stands in the backlog, if it does.
    pub waiting: Option<Waiting>,
}

/// How a session stands in the backlog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// Where it is in its turn.
    pub turn: Turn,
    /// Ready: since when. Waiting: until when. Leased: when the lease lapses.
    pub due_at: Timestamp,
    /// Who holds it.
    pub leased_by: Option<RunId>,
    /// How often it was given back to come again.
    pub tries: u32,
}

/// Where a session of the backlog is in its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Turn {
    /// May be handed out.
    Ready,
    /// May be handed out later.
    Waiting,
    /// Is worked on.
    Leased,
}

impl Turn {
    /// Every turn there is.
    pub const ALL: [Self; 3] = [Self::Ready, Self::Waiting, Self::Leased];

    /// Returns the text that stands in the ledger.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Waiting => "waiting",
            Self::Leased => "leased",
        }
    }

    /// Finds the turn that the ledger names.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|turn| turn.as_str() == text)
    }
}

/// A place in a listing: deadline first, unknown ones before all, then the id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// The deadline of the last session that was listed.
    pub deadline_at: Option<Timestamp>,
    /// Its id.
    pub session_id: SessionId,
}

impl Cursor {
    /// Returns the place behind a session.
    #[must_use]
    pub fn behind(row: &SessionRow) -> Self {
        Self { deadline_at: row.deadline_at, session_id: row.record.session_id.clone() }
    }
}

/// How many sessions of the backlog are in which turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, schemars::JsonSchema)]
pub struct BacklogCounts {
    /// May be handed out.
    pub ready: u64,
    /// May be handed out later.
    pub waiting: u64,
    /// Are worked on.
    pub leased: u64,
}
