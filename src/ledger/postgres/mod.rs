//! The ledger in a PostgreSQL database, for any number of machines.
//!
//! Every call is one statement or one short transaction, may be made again, and is, when its connection breaks. What two
//! workers say of one session is put in order by a lock on its row; what is read for numbers takes no lock. The schema is
//! never changed by opening: workers of two versions may run at once, and only a person knows when one has ended.

mod backlog;
mod batch;
mod commit;
pub(super) mod connect;
mod runs;
mod survey;
mod volume;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{LazyLock, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use sqlx::Connection as _;
use sqlx::migrate::{AppliedMigration, Migrate as _, MigrateError, Migrator};
use sqlx::postgres::{PgConnection, PgPool};

use self::connect::{Failure, LONG_CALL_TIMEOUT, call};
use super::backlog::{Added, Backlog, BacklogEntry, Claim, Claimed, Comeback, Cursor, Filter, ListedSession};
use super::entries::{FINISH_RUN, LATEST_AUDITS, LATEST_RUNS, PUT_AUDIT, SESSION};
use super::location::ServerUrl;
use super::overview::Group;
use super::rows::{Columns, audit_of, group_of, record_of, run_of, session_of};
use super::schema::{self, MIGRATIONS_TABLE, Migrated};
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

/// How long the end of the use of the ledger may take; a connection that does not answer is left to the server.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Every migration; a released one is never edited, see `migrations/README.md`.
static MIGRATIONS: LazyLock<Migrator> = LazyLock::new(|| {
    schema::migrations([
        ("sessions media runs", include_str!("../../../migrations/postgres/0001_sessions_media_runs.sql")),
        ("backlog", include_str!("../../../migrations/postgres/0002_backlog.sql")),
        ("audits", include_str!("../../../migrations/postgres/0003_audits.sql")),
        ("run records", include_str!("../../../migrations/postgres/0004_run_records.sql")),
    ])
});

/// A ledger in a PostgreSQL database.
#[derive(Debug)]
pub(super) struct PostgresLedger {
    pool: PgPool,
    queue: Mutex<backlog::Queue>,
}

impl PostgresLedger {
    /// Connects, and refuses a schema that is not this program's.
    pub(super) async fn open(server: &ServerUrl) -> Result<Self, LedgerError> {
        let options = connect::options(server)?;
        let mut connection = connect::connect(&options).await.map_err(|failure| failure.told("be opened"))?;
        let applied = applied(&mut connection).await.map_err(|failure| failure.told("be opened"))?;
        schema::check(&MIGRATIONS, &applied)?;
        let _ = connection.close().await;
        Ok(Self { pool: connect::pool(options), queue: Mutex::default() })
    }
}

/// Tells whether the database holds a ledger.
pub(super) async fn exists(server: &ServerUrl) -> Result<bool, LedgerError> {
    let options = connect::options(server)?;
    let mut connection = connect::connect(&options).await.map_err(|failure| failure.told("be reached"))?;
    let applied = applied(&mut connection).await.map_err(|failure| failure.told("be read"))?;
    let _ = connection.close().await;
    Ok(!applied.is_empty())
}

/// Creates the schema or brings it up to date, one process at a time.
pub(super) async fn migrate(server: &ServerUrl) -> Result<Migrated, LedgerError> {
    let options = connect::options(server)?;
    let mut connection = connect::connect(&options).await.map_err(|failure| failure.told("be reached"))?;
    // Held until the connection ends. The migrator takes it, too, but only after we have looked.
    connection.lock().await.map_err(schema::failed)?;
    let before = applied(&mut connection).await.map_err(|failure| failure.told("be read"))?;
    MIGRATIONS.run_direct(None, &mut connection, false).await.map_err(schema::failed)?;
    let _ = connection.close().await;
    Ok(Migrated::of("postgres", &before, &MIGRATIONS))
}

/// Tells what can be done to the connection by someone on its way, if anything.
pub(super) fn exposure(server: &ServerUrl) -> Result<Option<&'static str>, LedgerError> {
    connect::options(server).map(|options| connect::exposure(&options))
}

/// Lists the migrations that were applied; none if the database holds no ledger.
async fn applied(connection: &mut PgConnection) -> Result<Vec<AppliedMigration>, Failure> {
    const UNDEFINED_TABLE: &str = "42P01";
    match connection.list_applied_migrations(MIGRATIONS_TABLE).await {
        Ok(applied) => Ok(applied),
        Err(MigrateError::Execute(sqlx::Error::Database(error)))
            if error.code().as_deref() == Some(UNDEFINED_TABLE) =>
        {
            Ok(Vec::new())
        }
        Err(MigrateError::Execute(error)) => Err(error.into()),
        Err(error) => Err(schema::failed(error).into()),
    }
}

/// Says in two parts which sessions failed, because the index is of the first and nothing is planned over the second.
const LEFT_BY_RUN: &str = "
    SELECT session_id, asked_integration, decided_at, retention_class, reference
    FROM sessions
    WHERE run_id = $1 AND session_id > $2 AND state IN ('failed', 'pending') AND state <> 'pending'
        AND code IS NOT NULL AND code = ANY($3)
    ORDER BY session_id LIMIT $4";

const GROUPS: &str = "
    SELECT state, code, count(*) AS sessions,
        count(*) FILTER (WHERE complete) AS complete, count(*) FILTER (WHERE settled) AS settled,
        sum(media)::bigint AS media, sum(bytes)::bigint AS bytes, min(deadline_at) AS nearest_deadline_at,
        count(*) FILTER (WHERE deadline_at IS NULL) AS unknown_deadlines,
        count(*) FILTER (WHERE deadline_at <= $1) AS past_horizon,
        count(*) FILTER (WHERE deadline_at > $1 AND deadline_at <= $2) AS within_alarm
    FROM sessions GROUP BY state, code ORDER BY state, code";

/// What several statements read agrees.
const SNAPSHOT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

const OLDEST_PENDING: &str = "SELECT min(first_visited_at) FROM sessions WHERE state = 'pending'";

impl PostgresLedger {
    async fn overview_once(&self, now: Timestamp, horizon_alarm: Duration) -> Result<Overview, Failure> {
        // One snapshot, so that the numbers agree with one another.
        let mut snapshot = self.pool.begin_with(SNAPSHOT).await?;
        let overview = overview_of(&mut snapshot, now, horizon_alarm).await?;
        snapshot.commit().await?;
        Ok(overview)
    }

    async fn session_once(&self, id: &SessionId) -> Result<Option<SessionRow>, Failure> {
        let row = sqlx::query(SESSION).bind(id.as_str()).fetch_optional(&self.pool).await?;
        Ok(row.map(|row| session_of(&Columns(&row))).transpose()?)
    }

    async fn retryable_of_run_once(
        &self,
        run_id: &RunId,
        after: Option<&SessionId>,
        limit: u32,
    ) -> Result<Vec<SessionRequest>, Failure> {
        let rows = sqlx::query(LEFT_BY_RUN)
            .bind(run_id.as_str())
            .bind(after.map_or("", SessionId::as_str))
            .bind(code_texts())
            .bind(i64::from(limit))
            .fetch_all(&self.pool)
            .await?;
        Ok(rows.iter().map(|row| record_of(&Columns(row))).collect::<Result<_, _>>()?)
    }

    async fn start_run_once(&self, run: &RunStart) -> Result<(), sqlx::Error> {
        sqlx::query(
            "INSERT INTO runs (run_id, started_at, version, source_kind, store_url, record_draft, record_state, heartbeat_at)
             VALUES ($1, $2, $3, $4, $5, $6, CASE WHEN $6::text IS NULL THEN 'none' ELSE 'open' END, $2)
             ON CONFLICT (run_id) DO NOTHING",
        )
        .bind(run.run_id.as_str())
        .bind(run.started_at.unix_millis())
        .bind(plain(&run.version))
        .bind(plain(&run.source_kind))
        .bind(plain(&run.store_url))
        .bind(run.draft.as_deref().map(plain))
        .execute(&self.pool)
        .await
        .map(|_| ())
    }

    async fn finish_run_once(&self, run: &RunFinish) -> Result<(), sqlx::Error> {
        let counts = &run.counts;
        sqlx::query(FINISH_RUN)
            .bind(run.run_id.as_str())
            .bind(run.finished_at.unix_millis())
            .bind(i64::from(run.exit_code))
            .bind(saturated(counts.archived))
            .bind(saturated(counts.unchanged))
            .bind(saturated(counts.absent))
            .bind(saturated(counts.failed))
            .bind(saturated(counts.pending))
            .bind(saturated(counts.media))
            .bind(saturated(counts.bytes))
            .execute(&self.pool)
            .await
            .map(|_| ())
    }
}

#[async_trait]
impl Survey for PostgresLedger {
    async fn archive_id(&self) -> Result<Option<ArchiveId>, LedgerError> {
        let id: Option<String> =
            call!("be read", sqlx::query_scalar("SELECT archive_id FROM archive").fetch_optional(&self.pool))?;
        id.map(|id| ArchiveId::parse(&id).map_err(|_| LedgerError::Damaged("archive id"))).transpose()
    }

    async fn session(&self, id: &SessionId) -> Result<Option<SessionRow>, LedgerError> {
        call!("be read", self.session_once(id))
    }

    async fn known_manifests(&self, sessions: &[SessionId]) -> Result<BTreeMap<SessionId, u32>, LedgerError> {
        call!("be read", self.known_manifests_once(sessions))
    }

    async fn retryable_of_run(
        &self,
        run_id: &RunId,
        after: Option<&SessionId>,
        limit: u32,
    ) -> Result<Vec<SessionRequest>, LedgerError> {
        call!("be read", self.retryable_of_run_once(run_id, after, limit))
    }

    async fn list(
        &self,
        filter: &Filter,
        after: Option<&Cursor>,
        limit: u32,
    ) -> Result<Vec<ListedSession>, LedgerError> {
        call!("be read", self.list_once(filter, after, limit))
    }

    async fn audits(&self, limit: u32) -> Result<Vec<AuditRow>, LedgerError> {
        let rows = call!("be read", sqlx::query(LATEST_AUDITS).bind(i64::from(limit)).fetch_all(&self.pool))?;
        rows.iter().map(|row| audit_of(&Columns(row))).collect()
    }

    async fn record(&self, run_id: &RunId) -> Result<Option<RecordRow>, LedgerError> {
        call!("be read", self.record_once(run_id))
    }

    async fn waiting_lines(&self, run_id: &RunId, after: u64, limit: u32) -> Result<Vec<WaitingLine>, LedgerError> {
        call!("be read", self.waiting_lines_once(run_id, after, limit))
    }

    async fn chunks(&self, run_id: &RunId) -> Result<Vec<ChunkRef>, LedgerError> {
        call!("be read", self.chunks_once(run_id))
    }

    async fn lapsed_runs(&self, lapsed_before: Timestamp, limit: u32) -> Result<Vec<RunId>, LedgerError> {
        call!("be read", self.lapsed_runs_once(lapsed_before, limit))
    }

    async fn chain_head(&self, group: &str) -> Result<Option<ChainHead>, LedgerError> {
        call!("be read", self.chain_head_once(group))
    }

    async fn survey(&self, after: Option<&str>, limit: u32) -> Result<Vec<Surveyed<SurveyedSession>>, LedgerError> {
        call!("be read", self.survey_once(after, limit))
    }

    async fn survey_session(&self, id: &SessionId) -> Result<Option<Surveyed<SurveyedSession>>, LedgerError> {
        call!("be read", self.survey_one_once(id))
    }

    async fn closed_runs(&self, after: Option<&str>, limit: u32) -> Result<Vec<Surveyed<ClosedRun>>, LedgerError> {
        call!("be read", self.closed_runs_once(after, limit))
    }

    async fn overview(&self, now: Timestamp, horizon_alarm: Duration) -> Result<Overview, LedgerError> {
        call!("be read", self.overview_once(now, horizon_alarm))
    }

    async fn volume(&self, query: &VolumeQuery) -> Result<Volume, LedgerError> {
        call!("be read", LONG_CALL_TIMEOUT, self.volume_once(query))
    }

    async fn close(&self) {
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, self.pool.close()).await;
    }
}

#[async_trait]
impl SessionLog for PostgresLedger {
    async fn adopt_archive(&self, id: &ArchiveId) -> Result<(), LedgerError> {
        const ADOPT: &str = "INSERT INTO archive (only_row, archive_id) VALUES (1, $1) ON CONFLICT DO NOTHING";
        call!("record its archive", sqlx::query(ADOPT).bind(id.as_str()).execute(&self.pool)).map(|_| ())
    }

    async fn commit(&self, entry: &SessionEntry) -> Result<State, LedgerError> {
        call!("take a session", self.commit_once(entry))
    }

    async fn commit_all(&self, entries: &[SessionEntry]) -> Result<(), LedgerError> {
        call!("take sessions", self.commit_all_once(entries))
    }
}

#[async_trait]
impl Backlog for PostgresLedger {
    async fn add(&self, entries: &[BacklogEntry], run_id: &RunId, at: Timestamp) -> Result<Added, LedgerError> {
        call!("add to the backlog", self.add_once(entries, run_id, at))
    }

    async fn claim(&self, claim: &Claim) -> Result<Vec<Claimed>, LedgerError> {
        call!("hand out sessions", self.claim_once(claim))
    }

    async fn renew(
        &self,
        holder: &RunId,
        sessions: &[SessionId],
        until: Timestamp,
    ) -> Result<Vec<SessionId>, LedgerError> {
        call!("renew leases", self.renew_once(holder, sessions, until))
    }

    async fn end_lease(
        &self,
        holder: &RunId,
        session: &SessionId,
        comes_again: Option<Comeback>,
    ) -> Result<bool, LedgerError> {
        call!("end a lease", self.end_lease_once(holder, session, comes_again))
    }

    async fn retry(&self, filter: &Filter, at: Timestamp) -> Result<u64, LedgerError> {
        call!("make sessions pending again", LONG_CALL_TIMEOUT, self.retry_once(filter, at))
    }

    async fn accept(&self, filter: &Filter, reason: &str, at: Timestamp) -> Result<u64, LedgerError> {
        call!("accept sessions", LONG_CALL_TIMEOUT, self.accept_once(filter, reason, at))
    }
}

#[async_trait]
impl RunLog for PostgresLedger {
    async fn start_run(&self, run: &RunStart) -> Result<(), LedgerError> {
        call!("record the start of a run", self.start_run_once(run))
    }

    async fn finish_run(&self, run: &RunFinish) -> Result<(), LedgerError> {
        call!("record the end of a run", self.finish_run_once(run))
    }

    async fn beat(&self, run_id: &RunId, at: Timestamp) -> Result<bool, LedgerError> {
        call!("note a heartbeat", self.beat_once(run_id, at))
    }

    async fn note_chunk(&self, entry: &ChunkEntry) -> Result<bool, LedgerError> {
        call!("note a chunk", self.note_chunk_once(entry))
    }

    async fn claim_closing(
        &self,
        run_id: &RunId,
        by: &RunId,
        at: Timestamp,
        lapsed_before: Timestamp,
    ) -> Result<bool, LedgerError> {
        call!("begin to close a run record", self.claim_closing_once(run_id, by, at, lapsed_before))
    }

    async fn note_document(
        &self,
        run_id: &RunId,
        by: &RunId,
        document: &SignedText,
    ) -> Result<Option<SignedText>, LedgerError> {
        call!("save a run record", self.note_document_once(run_id, by, document))
    }

    async fn note_chain_from(&self, run_id: &RunId, by: &RunId, number: u32) -> Result<Option<u32>, LedgerError> {
        call!("record a place in a chain", self.note_chain_from_once(run_id, by, number))
    }

    async fn close_record(&self, run_id: &RunId, by: &RunId, closed: &ClosedRecord) -> Result<bool, LedgerError> {
        call!("close a run record", self.close_record_once(run_id, by, closed))
    }

    async fn forgo_record(&self, run_id: &RunId) -> Result<(), LedgerError> {
        call!("abandon a run record", self.forgo_record_once(run_id))
    }

    async fn adopt_run(&self, run: &ClosedRun) -> Result<Adopted, LedgerError> {
        call!("take a run", self.adopt_run_once(run))
    }

    async fn note_audit(&self, audit: &AuditRow) -> Result<(), LedgerError> {
        let put = || {
            sqlx::query(PUT_AUDIT)
                .bind(&audit.audit_id)
                .bind(&audit.audit)
                .bind(audit.finished_at.unix_millis())
                .bind(&audit.summary)
                .execute(&self.pool)
        };
        call!("record an audit", put()).map(|_| ())
    }
}

/// Counts everything as it stands in a snapshot.
async fn overview_of(
    snapshot: &mut PgConnection,
    now: Timestamp,
    horizon_alarm: Duration,
) -> Result<Overview, Failure> {
    let groups = sqlx::query(GROUPS)
        .bind(now.unix_millis())
        .bind(now.plus(horizon_alarm).unix_millis())
        .fetch_all(&mut *snapshot)
        .await?;
    let oldest_pending: Option<i64> = sqlx::query_scalar(OLDEST_PENDING).fetch_one(&mut *snapshot).await?;
    let runs = sqlx::query(LATEST_RUNS).bind(i64::from(OVERVIEW_RUNS)).fetch_all(&mut *snapshot).await?;
    let backlog = backlog::counts(snapshot).await?;
    let groups: Vec<Group> = groups.iter().map(|row| group_of(&Columns(row))).collect::<Result<_, _>>()?;
    Ok(Overview {
        oldest_pending_at: oldest_pending.map(Timestamp::from_unix_millis),
        runs: runs.iter().map(|row| run_of(&Columns(row))).collect::<Result<_, _>>()?,
        backlog,
        ..Overview::of(&groups)
    })
}

/// The codes of failures that may pass, as the ledger writes them.
fn code_texts() -> Vec<&'static str> {
    retryable_codes().map(Code::as_str).collect()
}

/// PostgreSQL keeps no NUL in a text, and refuses the whole statement for one.
fn plain(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { Cow::Owned(text.replace('\0', "\u{FFFD}")) } else { Cow::Borrowed(text) }
}

/// PostgreSQL counts to 2^63.
fn saturated(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
