//! Rows of the SQLite ledger as our own types.
//!
//! What does not parse is damage, never guessed around.

use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::overview::Group;
use super::{LedgerError, ManifestRef, RunCounts, RunRow, SessionRow, Standing, State};
use crate::clock::Timestamp;
use crate::model::digest::Sha256Digest;
use crate::model::key::ObjectKey;
use crate::model::record::SessionRecord;
use crate::model::{RunId, SessionId};

/// Reads columns by name into our own types.
pub(super) struct Columns<'r>(pub(super) &'r SqliteRow);

impl<'r> Columns<'r> {
    pub(super) fn get<T>(&self, column: &'static str) -> Result<T, LedgerError>
    where
        T: sqlx::Decode<'r, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>,
    {
        self.0.try_get(column).map_err(|_| LedgerError::Damaged(column))
    }

    pub(super) fn count(&self, column: &'static str) -> Result<u64, LedgerError> {
        u64::try_from(self.get::<i64>(column)?).map_err(|_| LedgerError::Damaged(column))
    }

    pub(super) fn time(&self, column: &'static str) -> Result<Timestamp, LedgerError> {
        self.get(column).map(Timestamp::from_unix_millis)
    }

    fn time_if_known(&self, column: &'static str) -> Result<Option<Timestamp>, LedgerError> {
        Ok(self.get::<Option<i64>>(column)?.map(Timestamp::from_unix_millis))
    }

    fn run_id(&self) -> Result<RunId, LedgerError> {
        RunId::parse(self.get("run_id")?).map_err(|_| LedgerError::Damaged("run_id"))
    }

    fn state(&self) -> Result<State, LedgerError> {
        State::parse(self.get("state")?).ok_or(LedgerError::Damaged("state"))
    }
}

pub(super) fn standing_of(row: &SqliteRow) -> Result<Standing, LedgerError> {
    let columns = Columns(row);
    Ok(Standing { state: columns.state()?, sequence: columns.get("manifest_sequence")? })
}

pub(super) fn record_of(columns: &Columns<'_>) -> Result<SessionRecord, LedgerError> {
    Ok(SessionRecord {
        session_id: SessionId::parse(columns.get("session_id")?).map_err(|_| LedgerError::Damaged("session_id"))?,
        integration: columns.get("asked_integration")?,
        decided_at: columns.time_if_known("decided_at")?,
        retention_class: columns.get("retention_class")?,
        reference: columns.get("reference")?,
    })
}

pub(super) fn session_of(columns: &Columns<'_>) -> Result<SessionRow, LedgerError> {
    let manifest = match columns.get::<Option<String>>("manifest_key")? {
        Some(key) => Some(ManifestRef {
            key: ObjectKey::from_store(key),
            version_id: columns.get("manifest_version_id")?,
            sequence: columns.get("manifest_sequence")?,
            sha256: Sha256Digest::from_hex(&hex::encode(columns.get::<&[u8]>("manifest_sha256")?))
                .ok_or(LedgerError::Damaged("manifest_sha256"))?,
        }),
        None => None,
    };
    Ok(SessionRow {
        record: record_of(columns)?,
        integration: columns.get("integration")?,
        state: columns.state()?,
        code: columns.get("code")?,
        message: columns.get("message")?,
        upstream_created_at: columns.time_if_known("upstream_created_at")?,
        deadline_at: columns.time_if_known("deadline_at")?,
        manifest,
        complete: columns.get("complete")?,
        settled: columns.get("settled")?,
        media: columns.count("media")?,
        bytes: columns.count("bytes")?,
        visits: columns.count("visits")?,
        run_id: columns.run_id()?,
        first_visited_at: columns.time("first_visited_at")?,
        last_visited_at: columns.time("last_visited_at")?,
        accepted_reason: columns.get("accepted_reason")?,
    })
}

pub(super) fn group_of(columns: &Columns<'_>) -> Result<Group, LedgerError> {
    Ok(Group {
        state: columns.state()?,
        code: columns.get("code")?,
        sessions: columns.count("sessions")?,
        complete: columns.count("complete")?,
        settled: columns.count("settled")?,
        media: columns.count("media")?,
        bytes: columns.count("bytes")?,
        nearest_deadline_at: columns.time_if_known("nearest_deadline_at")?,
        unknown_deadlines: columns.count("unknown_deadlines")?,
        past_horizon: columns.count("past_horizon")?,
        within_alarm: columns.count("within_alarm")?,
    })
}

pub(super) fn run_of(columns: &Columns<'_>) -> Result<RunRow, LedgerError> {
    Ok(RunRow {
        run_id: columns.run_id()?,
        started_at: columns.time("started_at")?,
        finished_at: columns.time_if_known("finished_at")?,
        exit_code: columns.get("exit_code")?,
        version: columns.get("version")?,
        source_kind: columns.get("source_kind")?,
        store_url: columns.get("store_url")?,
        counts: RunCounts {
            archived: columns.count("archived")?,
            unchanged: columns.count("unchanged")?,
            absent: columns.count("absent")?,
            failed: columns.count("failed")?,
            pending: columns.count("pending")?,
            media: columns.count("media")?,
            bytes: columns.count("bytes")?,
        },
    })
}
