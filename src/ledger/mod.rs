//! Ledger: our SQL record of what was archived, when, and by which run.
//!
//! The last step of a session: one transaction after its manifest stands in the store, so what the ledger calls
//! archived is there. An index and a memory, never the evidence: without it nothing is lost but time. Here are the
//! seam, its words, and the legal moves between states as a pure function; each engine writes its own SQL, and one
//! contract suite holds them to the same behaviour.

mod backlog;
mod columns;
mod entries;
mod location;
mod overview;
mod postgres;
mod rows;
mod runs;
mod schema;
pub mod scratch;
mod sqlite;
mod state;
mod survey;
mod volume;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
pub use backlog::{
    Added, BacklogCounts, BacklogEntry, Claim, Claimed, Comeback, Cursor, Filter, ListedSession, Turn, Waiting, Which,
};
pub use entries::{AuditRow, ManifestRef, MediaRow, RunFinish, RunStart, SessionEntry, SessionRow};
pub use location::LedgerUrl;
pub use overview::{CodeCount, OVERVIEW_RUNS, Overview, RunRow, StateCount};
pub use runs::{
    Adopted, ChainHead, ChunkEntry, ClosedRecord, LineEntry, RecordRow, RecordState, SignedText, WaitingLine,
};
pub use schema::Migrated;
pub use state::{Move, Standing, State};
pub use survey::{ClosedRun, DamagedRow, Surveyed, SurveyedSession};
pub use volume::{DaysLeft, DeadlineRow, MediaMonthRow, Month, MonthRow, Volume, VolumeQuery};

use location::Location;
use postgres::PostgresLedger;
use sqlite::SqliteLedger;

use crate::clock::Timestamp;
use crate::error::Code;
use crate::model::request::SessionRequest;
use crate::model::run::ChunkRef;
pub use crate::model::run::RunCounts;
use crate::model::{ArchiveId, RunId, SessionId};

/// A record of what was archived.
#[async_trait]
pub trait Ledger: Send + Sync + fmt::Debug {
    /// Returns the archive that this ledger belongs to, once it has met one.
    ///
    /// # Errors
    /// Retryable: the ledger cannot be read.
    async fn archive_id(&self) -> Result<Option<ArchiveId>, LedgerError>;

    /// Binds the ledger to an archive; the first one stays, so ask [`Ledger::archive_id`] which it is.
    ///
    /// # Errors
    /// Retryable: the ledger cannot be written.
    async fn adopt_archive(&self, id: &ArchiveId) -> Result<(), LedgerError>;

    /// Notes that a run began.
    ///
    /// # Errors
    /// As [`Ledger::adopt_archive`].
    async fn start_run(&self, run: &RunStart) -> Result<(), LedgerError>;

    /// Notes how a run ended; repeating it replaces what was noted.
    ///
    /// # Errors
    /// As [`Ledger::adopt_archive`].
    async fn finish_run(&self, run: &RunFinish) -> Result<(), LedgerError>;

    /// Takes the end of one visit to a session, in one transaction, and returns the state that now stands. A line of the
    /// entry is taken with it, once.
    ///
    /// May be repeated, and by several workers at once: what is known from a later manifest never goes back, see
    /// [`Standing::after`].
    ///
    /// # Errors
    /// As [`Ledger::adopt_archive`]; then nothing of the entry was taken, or all of it. [`LedgerError::RunClosed`]: the
    /// entry has a line and the run record is no longer open; nothing was taken, and it may be committed under another.
    async fn commit(&self, entry: &SessionEntry) -> Result<State, LedgerError>;

    /// Takes the ends of many visits in one transaction, as if they were committed one after another.
    ///
    /// # Errors
    /// As [`Ledger::commit`]; then nothing of any entry was taken, or all of all.
    async fn commit_all(&self, entries: &[SessionEntry]) -> Result<(), LedgerError>;

    /// Returns what is known of a session.
    ///
    /// # Errors
    /// As [`Ledger::archive_id`].
    async fn session(&self, id: &SessionId) -> Result<Option<SessionRow>, LedgerError>;

    /// Returns the number of the newest manifest known of each of these sessions, 0 where none is; sessions that are not
    /// known are left out.
    ///
    /// # Errors
    /// As [`Ledger::archive_id`].
    async fn known_manifests(&self, sessions: &[SessionId]) -> Result<BTreeMap<SessionId, u32>, LedgerError>;

    /// Returns sessions that this run left failed with a retryable code, in the order of their ids: at most `limit` of
    /// those after `after`.
    ///
    /// # Errors
    /// As [`Ledger::archive_id`].
    async fn retryable_of_run(
        &self,
        run_id: &RunId,
        after: Option<&SessionId>,
        limit: u32,
    ) -> Result<Vec<SessionRequest>, LedgerError>;

    /// Puts sessions into the backlog, in one transaction. Repeating it changes nothing; of a session that is known, what
    /// a record adds is taken over, and an earlier deadline.
    ///
    /// # Errors
    /// As [`Ledger::adopt_archive`].
    async fn add(&self, entries: &[BacklogEntry], run_id: &RunId, at: Timestamp) -> Result<Added, LedgerError>;

    /// Hands out sessions under leases. No session is leased to two holders at once.
    ///
    /// # Errors
    /// As [`Ledger::adopt_archive`].
    async fn claim(&self, claim: &Claim) -> Result<Vec<Claimed>, LedgerError>;

    /// Renews leases until a time, and returns the sessions whose lease this holder still has.
    ///
    /// # Errors
    /// As [`Ledger::adopt_archive`].
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
    /// As [`Ledger::adopt_archive`].
    async fn end_lease(
        &self,
        holder: &RunId,
        session: &SessionId,
        comes_again: Option<Comeback>,
    ) -> Result<bool, LedgerError>;

    /// Lists sessions by deadline, unknown ones first: at most `limit` of those behind a place.
    ///
    /// # Errors
    /// As [`Ledger::archive_id`].
    async fn list(
        &self,
        filter: &Filter,
        after: Option<&Cursor>,
        limit: u32,
    ) -> Result<Vec<ListedSession>, LedgerError>;

    /// Makes sessions pending again and puts them into the backlog, due at once; returns how many. Leased ones are left.
    ///
    /// # Errors
    /// As [`Ledger::adopt_archive`].
    async fn retry(&self, filter: &Filter, at: Timestamp) -> Result<u64, LedgerError>;

    /// Closes sessions that cannot be saved, with the reason a person gave; they leave the backlog. Returns how many.
    /// Archived ones have nothing to be accepted and are left.
    ///
    /// # Errors
    /// As [`Ledger::adopt_archive`].
    async fn accept(&self, filter: &Filter, reason: &str, at: Timestamp) -> Result<u64, LedgerError>;

    /// Notes how an audit ended; repeating it replaces what was noted.
    ///
    /// # Errors
    /// As [`Ledger::adopt_archive`].
    async fn note_audit(&self, audit: &AuditRow) -> Result<(), LedgerError>;

    /// Returns the latest audits, newest first.
    ///
    /// # Errors
    /// As [`Ledger::archive_id`].
    async fn audits(&self, limit: u32) -> Result<Vec<AuditRow>, LedgerError>;

    /// Renews the heartbeat of a run; false if its record is no longer open.
    ///
    /// # Errors
    /// As [`Ledger::adopt_archive`].
    async fn beat(&self, run_id: &RunId, at: Timestamp) -> Result<bool, LedgerError>;

    /// Returns what is known of a run's record.
    ///
    /// # Errors
    /// As [`Ledger::archive_id`].
    async fn record(&self, run_id: &RunId) -> Result<Option<RecordRow>, LedgerError>;

    /// Returns lines of a run that wait for their chunk, in order: at most `limit` of those behind a number.
    ///
    /// # Errors
    /// As [`Ledger::archive_id`].
    async fn waiting_lines(&self, run_id: &RunId, after: u64, limit: u32) -> Result<Vec<WaitingLine>, LedgerError>;

    /// Notes a chunk that stands in the store and drops the lines it holds, in one transaction; false if somebody else
    /// writes the record by now, or has noted this chunk.
    ///
    /// # Errors
    /// As [`Ledger::adopt_archive`].
    async fn note_chunk(&self, entry: &ChunkEntry) -> Result<bool, LedgerError>;

    /// Returns the chunks of a run, in order.
    ///
    /// # Errors
    /// As [`Ledger::archive_id`].
    async fn chunks(&self, run_id: &RunId) -> Result<Vec<ChunkRef>, LedgerError>;

    /// Claims the closing of a run's record: a run that of its own, anyone that of a run without a heartbeat, or without a
    /// step of whoever claimed it, since `lapsed_before`. Returns whether `by` has it now. No two have it at once.
    ///
    /// # Errors
    /// As [`Ledger::adopt_archive`].
    async fn claim_closing(
        &self,
        run_id: &RunId,
        by: &RunId,
        at: Timestamp,
        lapsed_before: Timestamp,
    ) -> Result<bool, LedgerError>;

    /// Lists runs whose record anyone may close, see [`Ledger::claim_closing`].
    ///
    /// # Errors
    /// As [`Ledger::archive_id`].
    async fn lapsed_runs(&self, lapsed_before: Timestamp, limit: u32) -> Result<Vec<RunId>, LedgerError>;

    /// Writes a run's record down before it goes into the store, and returns the one that was written down first; nothing
    /// if `by` may not write it.
    ///
    /// # Errors
    /// As [`Ledger::adopt_archive`].
    async fn note_document(
        &self,
        run_id: &RunId,
        by: &RunId,
        document: &SignedText,
    ) -> Result<Option<SignedText>, LedgerError>;

    /// Writes down, before the first attempt, the lowest number of the chain that may hold a run's record, and returns the
    /// one that was written down first; nothing if `by` may not write it.
    ///
    /// # Errors
    /// As [`Ledger::adopt_archive`].
    async fn note_chain_from(&self, run_id: &RunId, by: &RunId, number: u32) -> Result<Option<u32>, LedgerError>;

    /// Notes that a run's record stands in the store; false if `by` may not write it.
    ///
    /// # Errors
    /// As [`Ledger::adopt_archive`].
    async fn close_record(&self, run_id: &RunId, by: &RunId, closed: &ClosedRecord) -> Result<bool, LedgerError>;

    /// Gives up the record of a run that wrote nothing into the store, with the lines that wait for it.
    ///
    /// # Errors
    /// As [`Ledger::adopt_archive`].
    async fn forgo_record(&self, run_id: &RunId) -> Result<(), LedgerError>;

    /// Returns the highest entry of a chain that the ledger knows.
    ///
    /// # Errors
    /// As [`Ledger::archive_id`].
    async fn chain_head(&self, group: &str) -> Result<Option<ChainHead>, LedgerError>;

    /// Returns sessions with their items, in the order of session ids: at most `limit` of those behind one. A row that
    /// holds what this program never writes comes in its place as a refusal of its own.
    ///
    /// # Errors
    /// As [`Ledger::archive_id`].
    async fn survey(&self, after: Option<&str>, limit: u32) -> Result<Vec<Surveyed<SurveyedSession>>, LedgerError>;

    /// Returns one session with its items.
    ///
    /// # Errors
    /// As [`Ledger::archive_id`].
    async fn survey_session(&self, id: &SessionId) -> Result<Option<Surveyed<SurveyedSession>>, LedgerError>;

    /// Returns runs whose record is closed, in the order of their ids, as [`Ledger::survey`] does sessions.
    ///
    /// # Errors
    /// As [`Ledger::archive_id`].
    async fn closed_runs(&self, after: Option<&str>, limit: u32) -> Result<Vec<Surveyed<ClosedRun>>, LedgerError>;

    /// Takes a run whose record stands in the store, entered in its chain. Of one that this ledger knows and does not hold
    /// as closed, its record is closed, and the lines and chunks that it was to be made of are dropped; how the run ended
    /// is taken where that is not known.
    ///
    /// # Errors
    /// As [`Ledger::adopt_archive`].
    async fn adopt_run(&self, run: &ClosedRun) -> Result<Adopted, LedgerError>;

    /// Ends the use of the ledger and leaves it in one piece, so that a copy of it is whole. Not needed for anything to be
    /// safe.
    async fn close(&self);

    /// Counts everything, and looks at the deadlines of sessions still to be done.
    ///
    /// # Errors
    /// As [`Ledger::archive_id`].
    async fn overview(&self, now: Timestamp, horizon_alarm: Duration) -> Result<Overview, LedgerError>;

    /// Sums everything up over time, for a report. Reads every session and every item once, so it costs seconds with
    /// millions of them; locks nothing and holds up nobody.
    ///
    /// # Errors
    /// As [`Ledger::archive_id`].
    async fn volume(&self, query: &VolumeQuery) -> Result<Volume, LedgerError>;
}

/// Opens the ledger of `ledger.url`. A file is created or upgraded unasked; a database never is, see [`migrate`].
///
/// # Errors
/// Fatal: the URL is not one of a known engine, or the schema is not this program's. Retryable: out of reach.
pub async fn open(url: &str) -> Result<Arc<dyn Ledger>, LedgerError> {
    Ok(match Location::parse(url)? {
        Location::File(path) => Arc::new(SqliteLedger::open(Some(&path)).await?),
        Location::Memory => Arc::new(SqliteLedger::open(None).await?),
        Location::Server(server) => Arc::new(PostgresLedger::open(&server).await?),
    })
}

/// Opens the ledger of `ledger.url` to read it: nothing is made, upgraded or written, so the right to read is enough.
///
/// # Errors
/// Fatal: as [`open`]; also if the schema of a file is older. Retryable: there is none, or it is out of reach.
pub async fn open_to_read(url: &str) -> Result<Arc<dyn Ledger>, LedgerError> {
    match Location::parse(url)? {
        Location::File(path) => Ok(Arc::new(SqliteLedger::open_to_read(&path).await?)),
        Location::Memory | Location::Server(_) => open(url).await,
    }
}

/// Creates the ledger of `ledger.url`, or brings its schema up to date; safe from several processes at once.
///
/// # Errors
/// Fatal: as [`open`], and the schema is newer than this program. Retryable: out of reach.
pub async fn migrate(url: &str) -> Result<Migrated, LedgerError> {
    let file = match Location::parse(url)? {
        Location::Server(server) => return postgres::migrate(&server).await,
        Location::File(path) => Some(path),
        Location::Memory => None,
    };
    let (ledger, migrated) = SqliteLedger::open_migrated(file.as_deref()).await?;
    ledger.close().await;
    Ok(migrated)
}

/// Checks that `ledger.url` names a ledger this version can open, without opening it.
///
/// # Errors
/// Fatal (configuration): it does not.
pub fn check_url(url: &str) -> Result<(), LedgerError> {
    Location::parse(url).map(|_| ())
}

/// Tells whether there is a ledger at the URL, without making one.
///
/// # Errors
/// As [`check_url`]. Retryable: the server is out of reach.
pub async fn exists(url: &str) -> Result<bool, LedgerError> {
    match Location::parse(url)? {
        Location::File(path) => Ok(tokio::fs::try_exists(path).await.unwrap_or(true)),
        Location::Memory => Ok(false),
        Location::Server(server) => postgres::exists(&server).await,
    }
}

/// Tells whether [`open`] makes a ledger where there is none.
///
/// # Errors
/// As [`check_url`].
pub fn is_made_unasked(url: &str) -> Result<bool, LedgerError> {
    Ok(!matches!(Location::parse(url)?, Location::Server(_)))
}

/// Tells what someone between here and the ledger could do, if anything.
///
/// # Errors
/// As [`check_url`].
pub fn exposure(url: &str) -> Result<Option<&'static str>, LedgerError> {
    match Location::parse(url)? {
        Location::Server(server) => postgres::exposure(&server),
        Location::File(_) | Location::Memory => Ok(None),
    }
}

/// The codes of failures that may pass.
fn retryable_codes() -> impl Iterator<Item = Code> {
    Code::ALL.iter().copied().filter(|code| code.is_retryable())
}

/// Why the ledger did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// `ledger.url` is not one this version can open. The text is not repeated: such a URL may hold a password.
    #[error("ledger.url {0}")]
    Url(String),
    /// The ledger cannot be reached, read or written.
    #[error("the ledger could not {action}")]
    Unavailable {
        /// What was asked.
        action: Cow<'static, str>,
        /// The engine's own words.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The ledger holds something that this program never writes.
    #[error("the ledger has an invalid {0}; it was changed by something else or is damaged")]
    Damaged(&'static str),
    /// The schema is older or newer than this program.
    #[error("{0}")]
    Schema(String),
    /// Somebody took this run for dead and closed its record.
    #[error("the record of run {0} was closed by another run, which assumed this one was dead")]
    RunClosed(RunId),
}

impl LedgerError {
    /// Returns the stable code, which fixes the error class.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::Url(_) => Code::ConfigInvalid,
            Self::Unavailable { .. } | Self::Damaged(_) => Code::LedgerUnavailable,
            Self::Schema(_) => Code::LedgerSchema,
            Self::RunClosed(_) => Code::RunClosed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_never_repeats_the_url() {
        for url in ["mysql://ledger:hunter2@db/ledger", "postgres://ledger:hunter2@db/ledger?sslmode=never"] {
            let error = check_url(url).unwrap_err();
            assert_eq!(error.code(), Code::ConfigInvalid);
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }
}
