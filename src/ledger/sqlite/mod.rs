//! The ledger in one SQLite file, for one machine.
//!
//! Write-ahead log, synced at every commit, created and migrated when it is opened. One connection writes and a few
//! read, so that a look at the numbers never waits for a run, nor a run for the look. Other processes may use the same
//! file on the same machine; they wait for one another.

mod backlog;
mod commit;
mod connect;
mod runs;
mod survey;
mod volume;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::sqlite::SqlitePool;

use super::backlog::{Added, Backlog, BacklogEntry, Claim, Claimed, Comeback, Cursor, Filter, ListedSession};
use super::entries::{FINISH_RUN, LATEST_AUDITS, LATEST_RUNS, PUT_AUDIT, SESSION};
use super::overview::Group;
use super::rows::{Columns, audit_of, group_of, known_manifest_of, record_of, run_of, session_of};
use super::{
    Adopted, AuditRow, ChainHead, ChunkEntry, ClosedRecord, ClosedRun, LedgerError, OVERVIEW_RUNS, Overview, RecordRow,
    RunFinish, RunLog, RunStart, SessionEntry, SessionLog, SessionRow, SignedText, State, Survey, Surveyed,
    SurveyedSession, Volume, VolumeQuery, WaitingLine, retryable_codes,
};
use crate::clock::Timestamp;
use crate::error::Code;
use crate::model::request::SessionRequest;
use crate::model::run::ChunkRef;
use crate::model::{ArchiveId, RunId, SessionId};

/// A ledger in an SQLite file.
#[derive(Debug)]
pub(super) struct SqliteLedger {
    writer: SqlitePool,
    readers: SqlitePool,
    /// The connection that writes was prepared for adding many sessions.
    has_room_for_many: AtomicBool,
}

/// Makes an error of what SQLite or the file system said.
pub(super) fn unavailable(action: impl Into<Cow<'static, str>>) -> impl FnOnce(sqlx::Error) -> LedgerError {
    move |error| LedgerError::Unavailable { action: action.into(), source: Box::new(error) }
}

const KNOWN_MANIFESTS: &str = "
    SELECT session_id, ifnull(manifest_sequence, 0) AS manifest_sequence FROM sessions
    WHERE session_id IN (SELECT value FROM json_each(?1))";

const LEFT_BY_RUN: &str = "
    SELECT session_id, asked_integration, decided_at, retention_class, reference
    FROM sessions INDEXED BY sessions_left_by_run
    WHERE run_id = ?1 AND session_id > ?2 AND state IN ('failed', 'pending') AND state = 'failed'
        AND code IS NOT NULL AND code IN (SELECT value FROM json_each(?3))
    ORDER BY session_id LIMIT ?4";

const GROUPS: &str = "
    SELECT state, code, count(*) AS sessions, sum(complete) AS complete, sum(settled) AS settled,
        sum(media) AS media, sum(bytes) AS bytes, min(deadline_at) AS nearest_deadline_at,
        sum(deadline_at IS NULL) AS unknown_deadlines,
        ifnull(sum(deadline_at <= ?1), 0) AS past_horizon,
        ifnull(sum(deadline_at > ?1 AND deadline_at <= ?2), 0) AS within_alarm
    FROM sessions GROUP BY state, code ORDER BY state, code";

const OLDEST_PENDING: &str =
    "SELECT min(first_visited_at) FROM sessions INDEXED BY sessions_oldest_pending WHERE state = 'pending'";

#[async_trait]
impl Survey for SqliteLedger {
    async fn archive_id(&self) -> Result<Option<ArchiveId>, LedgerError> {
        sqlx::query_scalar("SELECT archive_id FROM archive")
            .fetch_optional(&self.readers)
            .await
            .map_err(unavailable("be read"))?
            .map(|id: String| ArchiveId::parse(&id).map_err(|_| LedgerError::Damaged("archive id")))
            .transpose()
    }

    async fn session(&self, id: &SessionId) -> Result<Option<SessionRow>, LedgerError> {
        sqlx::query(SESSION)
            .bind(id.as_str())
            .fetch_optional(&self.readers)
            .await
            .map_err(unavailable("be read"))?
            .map(|row| session_of(&Columns(&row)))
            .transpose()
    }

    async fn known_manifests(&self, sessions: &[SessionId]) -> Result<BTreeMap<SessionId, u32>, LedgerError> {
        let rows = sqlx::query(KNOWN_MANIFESTS)
            .bind(json(&sessions))
            .fetch_all(&self.readers)
            .await
            .map_err(unavailable("be read"))?;
        rows.iter().map(|row| known_manifest_of(&Columns(row))).collect()
    }

    async fn retryable_of_run(
        &self,
        run_id: &RunId,
        after: Option<&SessionId>,
        limit: u32,
    ) -> Result<Vec<SessionRequest>, LedgerError> {
        let codes: Vec<Code> = retryable_codes().collect();
        sqlx::query(LEFT_BY_RUN)
            .bind(run_id.as_str())
            .bind(after.map_or("", SessionId::as_str))
            .bind(json(&codes))
            .bind(limit)
            .fetch_all(&self.readers)
            .await
            .map_err(unavailable("be read"))?
            .iter()
            .map(|row| record_of(&Columns(row)))
            .collect()
    }

    async fn list(
        &self,
        filter: &Filter,
        after: Option<&Cursor>,
        limit: u32,
    ) -> Result<Vec<ListedSession>, LedgerError> {
        self.list_sessions(filter, after, limit).await
    }

    async fn audits(&self, limit: u32) -> Result<Vec<AuditRow>, LedgerError> {
        sqlx::query(LATEST_AUDITS)
            .bind(i64::from(limit))
            .fetch_all(&self.readers)
            .await
            .map_err(unavailable("be read"))?
            .iter()
            .map(|row| audit_of(&Columns(row)))
            .collect()
    }

    async fn record(&self, run_id: &RunId) -> Result<Option<RecordRow>, LedgerError> {
        self.record_once(run_id).await.map_err(|failure| failure.told("be read"))
    }

    async fn waiting_lines(&self, run_id: &RunId, after: u64, limit: u32) -> Result<Vec<WaitingLine>, LedgerError> {
        self.waiting_lines_once(run_id, after, limit).await.map_err(|failure| failure.told("be read"))
    }

    async fn chunks(&self, run_id: &RunId) -> Result<Vec<ChunkRef>, LedgerError> {
        self.chunks_once(run_id).await.map_err(|failure| failure.told("be read"))
    }

    async fn lapsed_runs(&self, lapsed_before: Timestamp, limit: u32) -> Result<Vec<RunId>, LedgerError> {
        self.lapsed_runs_once(lapsed_before, limit).await.map_err(|failure| failure.told("be read"))
    }

    async fn chain_head(&self, group: &str) -> Result<Option<ChainHead>, LedgerError> {
        self.chain_head_once(group).await.map_err(|failure| failure.told("be read"))
    }

    async fn survey(&self, after: Option<&str>, limit: u32) -> Result<Vec<Surveyed<SurveyedSession>>, LedgerError> {
        self.survey_page(after, limit).await
    }

    async fn survey_session(&self, id: &SessionId) -> Result<Option<Surveyed<SurveyedSession>>, LedgerError> {
        self.survey_one(id).await
    }

    async fn closed_runs(&self, after: Option<&str>, limit: u32) -> Result<Vec<Surveyed<ClosedRun>>, LedgerError> {
        self.closed_runs_page(after, limit).await
    }

    async fn overview(&self, now: Timestamp, horizon_alarm: Duration) -> Result<Overview, LedgerError> {
        // One snapshot, so that the numbers agree with one another.
        let mut snapshot = self.readers.begin().await.map_err(unavailable("be read"))?;
        self.overview_of(&mut snapshot, now, horizon_alarm).await
    }

    async fn volume(&self, query: &VolumeQuery) -> Result<Volume, LedgerError> {
        self.sum_up(query).await
    }

    async fn close(&self) {
        // The last connection to go folds the write-ahead log into the file.
        self.readers.close().await;
        self.writer.close().await;
    }
}

#[async_trait]
impl SessionLog for SqliteLedger {
    async fn adopt_archive(&self, id: &ArchiveId) -> Result<(), LedgerError> {
        sqlx::query("INSERT INTO archive (only_row, archive_id) VALUES (1, ?1) ON CONFLICT DO NOTHING")
            .bind(id.as_str())
            .execute(&self.writer)
            .await
            .map_err(unavailable("record its archive"))?;
        Ok(())
    }

    async fn commit(&self, entry: &SessionEntry) -> Result<State, LedgerError> {
        self.commit_once(entry).await.map_err(|failure| failure.told("take a session"))
    }

    async fn commit_all(&self, entries: &[SessionEntry]) -> Result<(), LedgerError> {
        self.commit_all_once(entries).await.map_err(|failure| failure.told("take sessions"))
    }
}

#[async_trait]
impl Backlog for SqliteLedger {
    async fn add(&self, entries: &[BacklogEntry], run_id: &RunId, at: Timestamp) -> Result<Added, LedgerError> {
        self.add_to_backlog(entries, run_id, at).await
    }

    async fn claim(&self, claim: &Claim) -> Result<Vec<Claimed>, LedgerError> {
        self.claim_from_backlog(claim).await
    }

    async fn renew(
        &self,
        holder: &RunId,
        sessions: &[SessionId],
        until: Timestamp,
    ) -> Result<Vec<SessionId>, LedgerError> {
        self.renew_leases(holder, sessions, until).await
    }

    async fn end_lease(
        &self,
        holder: &RunId,
        session: &SessionId,
        comes_again: Option<Comeback>,
    ) -> Result<bool, LedgerError> {
        self.end_one_lease(holder, session, comes_again).await
    }

    async fn retry(&self, filter: &Filter, at: Timestamp) -> Result<u64, LedgerError> {
        self.retry_sessions(filter, at).await
    }

    async fn accept(&self, filter: &Filter, reason: &str, at: Timestamp) -> Result<u64, LedgerError> {
        self.accept_sessions(filter, reason, at).await
    }
}

#[async_trait]
impl RunLog for SqliteLedger {
    async fn start_run(&self, run: &RunStart) -> Result<(), LedgerError> {
        sqlx::query(
            "INSERT INTO runs (run_id, started_at, version, source_kind, store_url, record_draft, record_state, heartbeat_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, iif(?6 IS NULL, 'none', 'open'), ?2)
             ON CONFLICT (run_id) DO NOTHING",
        )
        .bind(run.run_id.as_str())
        .bind(run.started_at.unix_millis())
        .bind(&run.version)
        .bind(&run.source_kind)
        .bind(&run.store_url)
        .bind(run.draft.as_deref())
        .execute(&self.writer)
        .await
        .map_err(unavailable("record the start of a run"))?;
        Ok(())
    }

    async fn finish_run(&self, run: &RunFinish) -> Result<(), LedgerError> {
        let counts = &run.counts;
        sqlx::query(FINISH_RUN)
            .bind(run.run_id.as_str())
            .bind(run.finished_at.unix_millis())
            .bind(run.exit_code)
            .bind(saturated(counts.archived))
            .bind(saturated(counts.unchanged))
            .bind(saturated(counts.absent))
            .bind(saturated(counts.failed))
            .bind(saturated(counts.pending))
            .bind(saturated(counts.media))
            .bind(saturated(counts.bytes))
            .execute(&self.writer)
            .await
            .map_err(unavailable("record the end of a run"))?;
        Ok(())
    }

    async fn beat(&self, run_id: &RunId, at: Timestamp) -> Result<bool, LedgerError> {
        self.beat_once(run_id, at).await.map_err(|failure| failure.told("note a heartbeat"))
    }

    async fn note_chunk(&self, entry: &ChunkEntry) -> Result<bool, LedgerError> {
        self.note_chunk_once(entry).await.map_err(|failure| failure.told("note a chunk"))
    }

    async fn claim_closing(
        &self,
        run_id: &RunId,
        by: &RunId,
        at: Timestamp,
        lapsed_before: Timestamp,
    ) -> Result<bool, LedgerError> {
        self.claim_closing_once(run_id, by, at, lapsed_before)
            .await
            .map_err(|failure| failure.told("begin to close a run record"))
    }

    async fn note_document(
        &self,
        run_id: &RunId,
        by: &RunId,
        document: &SignedText,
    ) -> Result<Option<SignedText>, LedgerError> {
        self.note_document_once(run_id, by, document).await.map_err(|failure| failure.told("save a run record"))
    }

    async fn note_chain_from(&self, run_id: &RunId, by: &RunId, number: u32) -> Result<Option<u32>, LedgerError> {
        self.note_chain_from_once(run_id, by, number).await.map_err(|failure| failure.told("record a place in a chain"))
    }

    async fn close_record(&self, run_id: &RunId, by: &RunId, closed: &ClosedRecord) -> Result<bool, LedgerError> {
        self.close_record_once(run_id, by, closed).await.map_err(|failure| failure.told("close a run record"))
    }

    async fn forgo_record(&self, run_id: &RunId) -> Result<(), LedgerError> {
        self.forgo_record_once(run_id).await.map_err(|failure| failure.told("abandon a run record"))
    }

    async fn adopt_run(&self, run: &ClosedRun) -> Result<Adopted, LedgerError> {
        self.adopt_run_once(run).await.map_err(|failure| failure.told("take a run"))
    }

    async fn note_audit(&self, audit: &AuditRow) -> Result<(), LedgerError> {
        sqlx::query(PUT_AUDIT)
            .bind(&audit.audit_id)
            .bind(&audit.audit)
            .bind(audit.finished_at.unix_millis())
            .bind(&audit.summary)
            .execute(&self.writer)
            .await
            .map_err(unavailable("record an audit"))?;
        Ok(())
    }
}

impl SqliteLedger {
    /// Counts everything as it stands in a snapshot.
    async fn overview_of(
        &self,
        snapshot: &mut sqlx::Transaction<'static, sqlx::Sqlite>,
        now: Timestamp,
        horizon_alarm: Duration,
    ) -> Result<Overview, LedgerError> {
        let failed = || unavailable("be read");
        let groups = sqlx::query(GROUPS)
            .bind(now.unix_millis())
            .bind(now.plus(horizon_alarm).unix_millis())
            .fetch_all(&mut **snapshot)
            .await
            .map_err(failed())?;
        let oldest_pending: Option<i64> =
            sqlx::query_scalar(OLDEST_PENDING).fetch_one(&mut **snapshot).await.map_err(failed())?;
        let runs = sqlx::query(LATEST_RUNS).bind(OVERVIEW_RUNS).fetch_all(&mut **snapshot).await.map_err(failed())?;
        let groups: Vec<Group> = groups.iter().map(|row| group_of(&Columns(row))).collect::<Result<_, _>>()?;
        Ok(Overview {
            oldest_pending_at: oldest_pending.map(Timestamp::from_unix_millis),
            runs: runs.iter().map(|row| run_of(&Columns(row))).collect::<Result<_, _>>()?,
            backlog: self.count_backlog(snapshot).await?,
            ..Overview::of(&groups)
        })
    }
}

/// Renders strings and numbers as JSON, which cannot fail.
pub(super) fn json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_else(|error| unreachable!("plain values are JSON: {error}"))
}

/// SQLite counts to 2^63.
fn saturated(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sqlx::Row as _;

    #[tokio::test]
    async fn the_overview_and_the_last_tries_read_indexes_alone() {
        let ledger = SqliteLedger::open(None).await.unwrap();
        for (statement, index) in [
            (GROUPS, "USING COVERING INDEX sessions_overview"),
            (OLDEST_PENDING, "USING COVERING INDEX sessions_oldest_pending"),
            (LEFT_BY_RUN, "USING INDEX sessions_left_by_run (run_id=? AND session_id>?)"),
            (backlog::NEXT, "USING COVERING INDEX backlog_next (integration=?)"),
        ] {
            let plan: Vec<String> = sqlx::query(sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}")))
                .fetch_all(&ledger.writer)
                .await
                .unwrap()
                .iter()
                .map(|row| row.get("detail"))
                .collect();
            assert!(plan[0].contains(index), "{plan:?}");
            assert!(!plan.iter().any(|step| step.contains("TEMP B-TREE")), "{plan:?}");
        }
    }
}
