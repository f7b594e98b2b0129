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
use std::sync::Arc;

pub use backlog::{
    Added, Backlog, BacklogCounts, BacklogEntry, Claim, Claimed, Comeback, Cursor, Filter, ListedSession, Turn,
    Waiting, Which,
};
pub use entries::{ManifestRef, MediaRow, SessionEntry, SessionLog, SessionRow};
pub use location::LedgerUrl;
pub use overview::{CodeCount, OVERVIEW_RUNS, Overview, RunRow, StateCount};
pub use runs::{
    Adopted, AuditRow, ChainHead, ChunkEntry, ClosedRecord, ClosedRun, LineEntry, RecordRow, RecordState, RunFinish,
    RunLog, RunStart, SignedText, WaitingLine,
};
pub use schema::Migrated;
pub use state::{Move, Standing, State};
pub use survey::{DamagedRow, Survey, Surveyed, SurveyedSession};
pub use volume::{DaysLeft, DeadlineRow, MediaMonthRow, Month, MonthRow, Volume, VolumeQuery};

use location::Location;
use postgres::PostgresLedger;
use sqlite::SqliteLedger;

use crate::error::Code;
use crate::model::RunId;
pub use crate::model::run::RunCounts;

/// A record of what was archived: all of its halves, for whoever archives.
pub trait Ledger: Survey + SessionLog + Backlog + RunLog {}

impl<T: Survey + SessionLog + Backlog + RunLog> Ledger for T {}

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
pub async fn open_to_read(url: &str) -> Result<Arc<dyn Survey>, LedgerError> {
    Ok(match Location::parse(url)? {
        Location::File(path) => Arc::new(SqliteLedger::open_to_read(&path).await?),
        Location::Memory | Location::Server(_) => open(url).await?,
    })
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
