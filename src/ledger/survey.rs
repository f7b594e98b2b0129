//! Survey: everything that can be read of a ledger, and nothing that writes.
//!
//! Sessions and runs come page after page in the order of their ids, for whoever compares them with the store, or makes a
//! ledger of what the store says.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

use super::columns::{closed_record_columns, media_columns, run_columns, session_columns};
use super::{
    AuditRow, ChainHead, ClosedRun, Cursor, Filter, LedgerError, ListedSession, MediaRow, Overview, RecordRow,
    SessionRow, Volume, VolumeQuery, WaitingLine,
};
use crate::clock::Timestamp;
use crate::model::request::SessionRequest;
use crate::model::run::ChunkRef;
use crate::model::{ArchiveId, RunId, SessionId};

/// What can be read of a ledger. Whoever only looks is given this half, and cannot write.
#[async_trait]
pub trait Survey: Send + Sync + fmt::Debug {
    /// Returns the archive that this ledger belongs to, once it has met one.
    ///
    /// # Errors
    /// Retryable: the ledger cannot be read.
    async fn archive_id(&self) -> Result<Option<ArchiveId>, LedgerError>;

    /// Returns what is known of a session.
    ///
    /// # Errors
    /// As [`Survey::archive_id`].
    async fn session(&self, id: &SessionId) -> Result<Option<SessionRow>, LedgerError>;

    /// Returns the number of the newest manifest known of each of these sessions, 0 where none is; sessions that are not
    /// known are left out.
    ///
    /// # Errors
    /// As [`Survey::archive_id`].
    async fn known_manifests(&self, sessions: &[SessionId]) -> Result<BTreeMap<SessionId, u32>, LedgerError>;

    /// Returns sessions that this run left failed with a retryable code, in the order of their ids: at most `limit` of
    /// those after `after`.
    ///
    /// # Errors
    /// As [`Survey::archive_id`].
    async fn retryable_of_run(
        &self,
        run_id: &RunId,
        after: Option<&SessionId>,
        limit: u32,
    ) -> Result<Vec<SessionRequest>, LedgerError>;

    /// Lists sessions by deadline, unknown ones first: at most `limit` of those behind a place.
    ///
    /// # Errors
    /// As [`Survey::archive_id`].
    async fn list(
        &self,
        filter: &Filter,
        after: Option<&Cursor>,
        limit: u32,
    ) -> Result<Vec<ListedSession>, LedgerError>;

    /// Returns the latest audits, newest first.
    ///
    /// # Errors
    /// As [`Survey::archive_id`].
    async fn audits(&self, limit: u32) -> Result<Vec<AuditRow>, LedgerError>;

    /// Returns what is known of a run's record.
    ///
    /// # Errors
    /// As [`Survey::archive_id`].
    async fn record(&self, run_id: &RunId) -> Result<Option<RecordRow>, LedgerError>;

    /// Returns lines of a run that wait for their chunk, in order: at most `limit` of those behind a number.
    ///
    /// # Errors
    /// As [`Survey::archive_id`].
    async fn waiting_lines(&self, run_id: &RunId, after: u64, limit: u32) -> Result<Vec<WaitingLine>, LedgerError>;

    /// Returns the chunks of a run, in order.
    ///
    /// # Errors
    /// As [`Survey::archive_id`].
    async fn chunks(&self, run_id: &RunId) -> Result<Vec<ChunkRef>, LedgerError>;

    /// Lists runs whose record anyone may close, see [`super::RunLog::claim_closing`].
    ///
    /// # Errors
    /// As [`Survey::archive_id`].
    async fn lapsed_runs(&self, lapsed_before: Timestamp, limit: u32) -> Result<Vec<RunId>, LedgerError>;

    /// Returns the highest entry of a chain that the ledger knows.
    ///
    /// # Errors
    /// As [`Survey::archive_id`].
    async fn chain_head(&self, group: &str) -> Result<Option<ChainHead>, LedgerError>;

    /// Returns sessions with their items, in the order of session ids: at most `limit` of those behind one. A row that
    /// holds what this program never writes comes in its place as a refusal of its own.
    ///
    /// # Errors
    /// As [`Survey::archive_id`].
    async fn survey(&self, after: Option<&str>, limit: u32) -> Result<Vec<Surveyed<SurveyedSession>>, LedgerError>;

    /// Returns one session with its items.
    ///
    /// # Errors
    /// As [`Survey::archive_id`].
    async fn survey_session(&self, id: &SessionId) -> Result<Option<Surveyed<SurveyedSession>>, LedgerError>;

    /// Returns runs whose record is closed, in the order of their ids, as [`Survey::survey`] does sessions.
    ///
    /// # Errors
    /// As [`Survey::archive_id`].
    async fn closed_runs(&self, after: Option<&str>, limit: u32) -> Result<Vec<Surveyed<ClosedRun>>, LedgerError>;

    /// Counts everything, and looks at the deadlines of sessions still to be done.
    ///
    /// # Errors
    /// As [`Survey::archive_id`].
    async fn overview(&self, now: Timestamp, horizon_alarm: Duration) -> Result<Overview, LedgerError>;

    /// Sums everything up over time, for a report. Reads every session and every item once, so it costs seconds with
    /// millions of them; locks nothing and holds up nobody.
    ///
    /// # Errors
    /// As [`Survey::archive_id`].
    async fn volume(&self, query: &VolumeQuery) -> Result<Volume, LedgerError>;

    /// Ends the use of the ledger and leaves it in one piece, so that a copy of it is whole. Not needed for anything to be
    /// safe.
    async fn close(&self);
}

/// A session with all of its items.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SurveyedSession {
    /// The session.
    pub row: SessionRow,
    /// Its items, in the order of their ids.
    pub media: Vec<MediaRow>,
    /// It is in the backlog, in whatever turn.
    pub in_backlog: bool,
}

/// What the survey finds at one place: a row, or why it is none.
pub type Surveyed<T> = Result<T, DamagedRow>;

/// A row that holds something that this program never writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamagedRow {
    /// The id of its session or run, as it stands there; that may be what is damaged.
    pub id: String,
    /// The column.
    pub column: &'static str,
}

/// A value, or the column that does not hold one.
pub(super) type Told<T> = Result<T, &'static str>;

// Statements that both engines know word for word.

macro_rules! sessions {
    () => {
        concat!(
            "SELECT ",
            session_columns!(),
            ", EXISTS (SELECT 1 FROM backlog WHERE backlog.session_id = sessions.session_id) AS in_backlog FROM sessions"
        )
    };
}

pub(super) const SESSIONS: &str = concat!(sessions!(), " WHERE session_id > $1 ORDER BY session_id LIMIT $2");

pub(super) const MEDIA: &str = concat!(
    "SELECT ",
    media_columns!(),
    " FROM media WHERE session_id > $1 AND session_id <= $2 ORDER BY session_id, media_id"
);

pub(super) const SESSION: &str = concat!(sessions!(), " WHERE session_id = $1");

pub(super) const MEDIA_OF_SESSION: &str =
    concat!("SELECT ", media_columns!(), " FROM media WHERE session_id = $1 ORDER BY media_id");

pub(super) const CLOSED_RUNS: &str = concat!(
    "SELECT ",
    run_columns!(),
    ", ",
    closed_record_columns!(),
    " FROM runs WHERE record_state = 'closed' AND run_id > $1 ORDER BY run_id LIMIT $2"
);

pub(super) const PUT_CLOSED_RUN: &str = "
    INSERT INTO runs (run_id, started_at, finished_at, exit_code, version, source_kind, store_url, archived, unchanged,
        absent, failed, pending, media, bytes, record_state, record_key, record_sha256, chain_group, chain_number,
        chain_sha256)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, 'closed', $15, $16, $17, $18, $19)
    ON CONFLICT (run_id) DO NOTHING";

/// Gives each session its items; both come in the order of session ids. Items of a session that is not there are passed
/// over.
pub(super) fn joined(
    rows: impl IntoIterator<Item = (String, Told<(SessionRow, bool)>)>,
    media: impl IntoIterator<Item = Result<(String, Told<MediaRow>), LedgerError>>,
) -> Result<Vec<Surveyed<SurveyedSession>>, LedgerError> {
    let mut media = media.into_iter().peekable();
    let mut sessions = Vec::new();
    for (id, row) in rows {
        let mut items: Told<Vec<MediaRow>> = Ok(Vec::new());
        while let Some(item) = media.next_if(|item| item.as_ref().map_or(true, |(session, _)| *session <= id)) {
            let (session, item) = item?;
            if session == id {
                items = items.and_then(|mut items| {
                    items.push(item?);
                    Ok(items)
                });
            }
        }
        let read = row.and_then(|(row, in_backlog)| Ok(SurveyedSession { row, media: items?, in_backlog }));
        sessions.push(read.map_err(|column| DamagedRow { id, column }));
    }
    Ok(sessions)
}
