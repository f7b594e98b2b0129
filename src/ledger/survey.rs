//! Survey: everything the ledger says of sessions and runs, page after page in the order of their ids, for whoever holds it
//! against the store, or makes a ledger of what the store says.

use super::columns::{closed_record_columns, media_columns, run_columns, session_columns};
use super::{ClosedRecord, LedgerError, MediaRow, RunCounts, SessionRow};
use crate::clock::Timestamp;
use crate::model::RunId;

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

/// A run whose record is closed: how it ended, and where its record stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClosedRun {
    /// The run.
    pub run_id: RunId,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended; nothing if it died.
    pub finished_at: Option<Timestamp>,
    /// How the process exited; nothing if it died.
    pub exit_code: Option<u8>,
    /// The version of the program.
    pub version: String,
    /// The kind of its source.
    pub source_kind: String,
    /// Where it archived to.
    pub store_url: String,
    /// What it did.
    pub counts: RunCounts,
    /// Where its record stands.
    pub record: ClosedRecord,
}

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
