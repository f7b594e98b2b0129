//! The ledger in one SQLite file, for one machine.
//!
//! Write-ahead log, synced at every commit, created and migrated when it is opened. One connection writes and a few
//! read, so that a look at the numbers never waits for a run, nor a run for the look. Other processes may use the same
//! file on the same machine; they wait for one another.

mod backlog;
mod runs;
mod survey;
mod volume;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
use std::sync::LazyLock;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::ConnectOptions as _;
use sqlx::migrate::{AppliedMigration, Migrate as _, MigrateError, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};

use self::backlog::Open;
use self::runs::Failure;
use super::backlog::{Added, BacklogEntry, Claim, Claimed, Comeback, Cursor, Filter, ListedSession};
use super::overview::Group;
use super::rows::{Columns, audit_of, group_of, known_manifest_of, record_of, run_of, session_of, standing_of};
use super::schema::{self, MIGRATIONS_TABLE, Migrated};
use super::{
    Adopted, AuditRow, ChainHead, ChunkEntry, ClosedRecord, ClosedRun, Ledger, LedgerError, Move, OVERVIEW_RUNS,
    Overview, RecordRow, RunFinish, RunStart, SessionEntry, SessionRow, SignedText, Standing, State, Surveyed,
    SurveyedSession, Volume, VolumeQuery, WaitingLine, retryable_codes,
};
use crate::clock::Timestamp;
use crate::error::Code;
use crate::model::record::SessionRecord;
use crate::model::run::ChunkRef;
use crate::model::{ArchiveId, RunId, SessionId};
use crate::retry::Backoff;

/// How long one process waits for another that writes; a checkpoint of a large log takes seconds on a slow disk.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a session waits for the one connection that writes; longer than [`BUSY_TIMEOUT`], which may stand before it.
const ACQUIRE_TIMEOUT: Duration = Duration::from_mins(2);

/// How often a file that another process has just then is opened.
const OPENING: Backoff = Backoff { tries: 12, base: Duration::from_millis(20), cap: Duration::from_secs(2) };

/// How many connections read.
const READERS: u32 = 2;

/// Every migration; a released one is never edited, see `migrations/README.md`.
static MIGRATIONS: LazyLock<Migrator> = LazyLock::new(|| {
    schema::migrations([
        ("sessions media runs", include_str!("../../../migrations/sqlite/0001_sessions_media_runs.sql")),
        ("backlog", include_str!("../../../migrations/sqlite/0002_backlog.sql")),
        ("audits", include_str!("../../../migrations/sqlite/0003_audits.sql")),
        ("run records", include_str!("../../../migrations/sqlite/0004_run_records.sql")),
    ])
});

/// A ledger in an SQLite file.
#[derive(Debug)]
pub(super) struct SqliteLedger {
    writer: SqlitePool,
    readers: SqlitePool,
    /// The connection that writes was prepared for adding many sessions.
    has_room_for_many: AtomicBool,
}

impl SqliteLedger {
    /// Opens the file, creates it if need be, and brings its schema up to date. Without a file it is in memory.
    pub(super) async fn open(file: Option<&Path>) -> Result<Self, LedgerError> {
        Self::open_migrated(file).await.map(|(ledger, _)| ledger)
    }

    /// Opens the file for reading only, and refuses a schema that is not this program's: nothing is made or upgraded.
    pub(super) async fn open_to_read(path: &Path) -> Result<Self, LedgerError> {
        let action = || format!("be opened at {}", path.display());
        let options = SqliteConnectOptions::new()
            .filename(path)
            .read_only(true)
            .busy_timeout(BUSY_TIMEOUT)
            .disable_statement_logging();
        let (readers, applied) = match read_schema(options.clone()).await {
            // The write-ahead log needs a file beside it. Where none can be made and none is, nobody is writing.
            Err(_) if !tokio::fs::try_exists(wal_of(path)).await.unwrap_or(true) => {
                read_schema(options.immutable(true)).await
            }
            opened => opened,
        }
        .map_err(|error| unavailable(action())(error))?;
        schema::check(&MIGRATIONS, &applied)?;
        Ok(Self { writer: readers.clone(), readers, has_room_for_many: AtomicBool::new(false) })
    }

    /// Opens the file, and tells what was done to its schema.
    pub(super) async fn open_migrated(file: Option<&Path>) -> Result<(Self, Migrated), LedgerError> {
        let (path, action) = match file {
            Some(path) if is_without_folder(path).await => {
                (path, format!("be opened at {}: its folder does not exist, make it first", path.display()))
            }
            Some(path) => (path, format!("be opened at {}", path.display())),
            None => (Path::new(":memory:"), "be opened in memory".to_owned()),
        };
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .busy_timeout(BUSY_TIMEOUT)
            .foreign_keys(true)
            .journal_mode(SqliteJournalMode::Wal)
            // A power failure may take the last commits, never the file. What they told of archived sessions stands in the
            // store, the rest is still in the input: running again tells it anew, so a sync for each session buys nothing.
            .synchronous(SqliteSynchronous::Normal)
            // Statements would tell of times and counts, at best; errors are told by whoever handles them.
            .disable_statement_logging();
        let pool = |connections| {
            SqlitePoolOptions::new()
                .max_connections(connections)
                .acquire_timeout(ACQUIRE_TIMEOUT)
                .idle_timeout(None)
                .max_lifetime(None)
                .test_before_acquire(false)
        };
        let connected = connect(|| pool(1).connect_with(options.clone())).await;
        let writer = connected.map_err(|error| unavailable(action)(error))?;
        let migrated = migrate(&writer).await?;
        let readers = match file {
            Some(_) => pool(READERS).connect_lazy_with(options.create_if_missing(false)),
            None => writer.clone(),
        };
        Ok((Self { writer, readers, has_room_for_many: AtomicBool::new(false) }, migrated))
    }
}

/// Connects to read, and lists the migrations that were applied: only a look into the file tells whether it can be read.
async fn read_schema(options: SqliteConnectOptions) -> Result<(SqlitePool, Vec<AppliedMigration>), sqlx::Error> {
    const HAS_TABLE: &str = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?1)";
    let readers = SqlitePoolOptions::new().max_connections(READERS).connect_with(options).await?;
    if !sqlx::query_scalar(HAS_TABLE).bind(MIGRATIONS_TABLE).fetch_one(&readers).await? {
        return Ok((readers, Vec::new()));
    }
    let mut connection = readers.acquire().await?;
    let applied = connection.list_applied_migrations(MIGRATIONS_TABLE).await.map_err(|error| match error {
        MigrateError::Execute(error) => error,
        error => sqlx::Error::Migrate(Box::new(error)),
    })?;
    drop(connection);
    Ok((readers, applied))
}

/// Names the write-ahead log of a file.
fn wal_of(path: &Path) -> std::path::PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-wal");
    name.into()
}

/// Tells whether the folder of a file is not there, of which SQLite says only that it cannot open the file.
async fn is_without_folder(path: &Path) -> bool {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => matches!(tokio::fs::try_exists(folder).await, Ok(false)),
        _ => false,
    }
}

/// Connects, again if another process is just making the same file: switching to the write-ahead log is refused at once
/// while somebody else has the file, whatever the busy timeout.
async fn connect<F>(attempt: impl Fn() -> F) -> Result<SqlitePool, sqlx::Error>
where
    F: Future<Output = Result<SqlitePool, sqlx::Error>>,
{
    const BUSY: &str = "5";
    let mut failed = 0;
    loop {
        let error = match attempt().await {
            Ok(pool) => return Ok(pool),
            Err(error) => error,
        };
        let is_busy =
            error.as_database_error().and_then(sqlx::error::DatabaseError::code).is_some_and(|code| code == BUSY);
        failed += 1;
        match OPENING.wait(failed, None) {
            Some(wait) if is_busy => tokio::time::sleep(wait).await,
            _ => return Err(error),
        }
    }
}

/// Brings the schema up to date, one process at a time.
async fn migrate(writer: &SqlitePool) -> Result<Migrated, LedgerError> {
    let failed = || unavailable("be migrated");
    // Taken before looking: two processes that open a new file together must not both create its tables.
    let mut transaction = writer.begin_with("BEGIN IMMEDIATE").await.map_err(failed())?;
    transaction.ensure_migrations_table(MIGRATIONS_TABLE).await.map_err(schema::failed)?;
    let before = transaction.list_applied_migrations(MIGRATIONS_TABLE).await.map_err(schema::failed)?;
    MIGRATIONS.run_direct(None, &mut *transaction, false).await.map_err(schema::failed)?;
    transaction.commit().await.map_err(failed())?;
    Ok(Migrated::of("sqlite", &before, &MIGRATIONS))
}

/// Makes an error of what SQLite or the file system said.
pub(super) fn unavailable(action: impl Into<Cow<'static, str>>) -> impl FnOnce(sqlx::Error) -> LedgerError {
    move |error| LedgerError::Unavailable { action: action.into(), source: Box::new(error) }
}

const STANDING: &str = "SELECT state, manifest_sequence FROM sessions WHERE session_id = ?1";

/// One statement for all items; rows that say the same already are not written again.
const PUT_MEDIA: &str = "
    INSERT INTO media (session_id, media_id, attempt_id, kind, key, version_id, size_bytes, sha256)
    SELECT ?1, value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, unhex(value ->> 6)
    FROM json_each(?2) WHERE true
    ON CONFLICT (session_id, media_id) DO UPDATE SET
        attempt_id = excluded.attempt_id, kind = excluded.kind, key = excluded.key,
        version_id = excluded.version_id, size_bytes = excluded.size_bytes, sha256 = excluded.sha256
    WHERE (media.attempt_id, media.kind, media.key, media.version_id, media.size_bytes, media.sha256)
        IS NOT (excluded.attempt_id, excluded.kind, excluded.key, excluded.version_id, excluded.size_bytes,
            excluded.sha256)";

/// Takes the same values as [`UPDATE_SESSION`], and needs fewer.
const INSERT_SESSION: &str = "
    INSERT INTO sessions (
        session_id, asked_integration, decided_at, retention_class, reference, integration, state, code, message,
        upstream_created_at, deadline_at, manifest_key, manifest_version_id, manifest_sequence, manifest_sha256,
        complete, settled, media, bytes, visits, run_id, first_visited_at, last_visited_at)
    SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17,
        count(*), ifnull(sum(size_bytes), 0), 1, ?18, ?19, ?19
    FROM media WHERE session_id = ?1";

/// `?20` and `?21` are what [`Standing::after`] decided: whether the cause and the manifest are taken. Not an upsert,
/// because SQLite checks the row that it will not insert, too: without a manifest, that one may not be archived.
const UPDATE_SESSION: &str = "
    UPDATE sessions SET
        asked_integration = ifnull(?2, asked_integration),
        decided_at = ifnull(?3, decided_at),
        retention_class = ifnull(?4, retention_class),
        reference = ifnull(?5, reference),
        integration = ?6,
        state = ?7,
        code = iif(?20, ?8, code),
        message = iif(?20, ?9, message),
        upstream_created_at = ifnull(?10, upstream_created_at),
        deadline_at = ifnull(?11, deadline_at),
        manifest_key = iif(?21, ?12, manifest_key),
        manifest_version_id = iif(?21, ?13, manifest_version_id),
        manifest_sequence = iif(?21, ?14, manifest_sequence),
        manifest_sha256 = iif(?21, ?15, manifest_sha256),
        complete = iif(?21, ?16, complete),
        settled = iif(?21, ?17, settled),
        (media, bytes) = (SELECT count(*), ifnull(sum(size_bytes), 0) FROM media WHERE session_id = ?1),
        visits = visits + 1,
        run_id = ?18,
        last_visited_at = ?19
    WHERE session_id = ?1";

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

const LATEST_RUNS: &str = "SELECT * FROM runs ORDER BY started_at DESC, run_id DESC LIMIT ?1";

const PUT_AUDIT: &str = "
    INSERT INTO audits (audit_id, audit, finished_at, summary) VALUES (?1, ?2, ?3, ?4)
        ON CONFLICT (audit_id) DO UPDATE SET finished_at = excluded.finished_at, summary = excluded.summary";

impl SqliteLedger {
    // Immediate, so that what is read inside cannot change before it is written.
    async fn begin(&self) -> Result<Open, sqlx::Error> {
        self.writer.begin_with("BEGIN IMMEDIATE").await
    }

    async fn commit_once(&self, entry: &SessionEntry) -> Result<State, Failure> {
        let mut open = self.begin().await?;
        let state = take(&mut open, entry).await?;
        open.commit().await?;
        Ok(state)
    }

    async fn commit_all_once(&self, entries: &[SessionEntry]) -> Result<(), Failure> {
        self.make_room_for_many().await?;
        let mut open = self.begin().await?;
        for entry in entries {
            take(&mut open, entry).await?;
        }
        open.commit().await?;
        Ok(())
    }
}

/// Takes the end of one visit within a transaction, and returns the state that stands then.
async fn take(open: &mut Open, entry: &SessionEntry) -> Result<State, Failure> {
    runs::take_line(open, entry).await?;
    let row = sqlx::query(STANDING).bind(entry.record.session_id.as_str()).fetch_optional(&mut **open).await?;
    let standing = row.map(|row| standing_of(&Columns(&row))).transpose()?;
    let made = Standing::after(standing, entry.state, entry.manifest.as_ref().map(|m| m.sequence));
    if made.takes_manifest && !entry.media.is_empty() {
        let put = sqlx::query(PUT_MEDIA).bind(entry.record.session_id.as_str()).bind(media_json(entry));
        put.execute(&mut **open).await?;
    }
    let statement = if standing.is_some() { UPDATE_SESSION } else { INSERT_SESSION };
    put_session(statement, entry, made).execute(&mut **open).await?;
    backlog::follow_commit(open, entry).await?;
    Ok(made.state)
}

#[async_trait]
impl Ledger for SqliteLedger {
    async fn close(&self) {
        // The last connection to go folds the write-ahead log into the file.
        self.readers.close().await;
        self.writer.close().await;
    }

    async fn archive_id(&self) -> Result<Option<ArchiveId>, LedgerError> {
        sqlx::query_scalar("SELECT archive_id FROM archive")
            .fetch_optional(&self.readers)
            .await
            .map_err(unavailable("be read"))?
            .map(|id: String| ArchiveId::parse(&id).map_err(|_| LedgerError::Damaged("archive id")))
            .transpose()
    }

    async fn adopt_archive(&self, id: &ArchiveId) -> Result<(), LedgerError> {
        sqlx::query("INSERT INTO archive (only_row, archive_id) VALUES (1, ?1) ON CONFLICT DO NOTHING")
            .bind(id.as_str())
            .execute(&self.writer)
            .await
            .map_err(unavailable("note its archive"))?;
        Ok(())
    }

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
        .map_err(unavailable("note the start of a run"))?;
        Ok(())
    }

    async fn finish_run(&self, run: &RunFinish) -> Result<(), LedgerError> {
        let counts = &run.counts;
        sqlx::query(
            "UPDATE runs SET finished_at = ?2, exit_code = ?3, archived = ?4, unchanged = ?5, absent = ?6, failed = ?7,
                pending = ?8, media = ?9, bytes = ?10
             WHERE run_id = ?1",
        )
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
        .map_err(unavailable("note the end of a run"))?;
        Ok(())
    }

    async fn commit(&self, entry: &SessionEntry) -> Result<State, LedgerError> {
        self.commit_once(entry).await.map_err(|failure| failure.told("take a session"))
    }

    async fn commit_all(&self, entries: &[SessionEntry]) -> Result<(), LedgerError> {
        self.commit_all_once(entries).await.map_err(|failure| failure.told("take sessions"))
    }

    async fn session(&self, id: &SessionId) -> Result<Option<SessionRow>, LedgerError> {
        sqlx::query("SELECT * FROM sessions WHERE session_id = ?1")
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
    ) -> Result<Vec<SessionRecord>, LedgerError> {
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

    async fn list(
        &self,
        filter: &Filter,
        after: Option<&Cursor>,
        limit: u32,
    ) -> Result<Vec<ListedSession>, LedgerError> {
        self.list_sessions(filter, after, limit).await
    }

    async fn retry(&self, filter: &Filter, at: Timestamp) -> Result<u64, LedgerError> {
        self.retry_sessions(filter, at).await
    }

    async fn accept(&self, filter: &Filter, reason: &str, at: Timestamp) -> Result<u64, LedgerError> {
        self.accept_sessions(filter, reason, at).await
    }

    async fn note_audit(&self, audit: &AuditRow) -> Result<(), LedgerError> {
        sqlx::query(PUT_AUDIT)
            .bind(&audit.audit_id)
            .bind(&audit.audit)
            .bind(audit.finished_at.unix_millis())
            .bind(&audit.summary)
            .execute(&self.writer)
            .await
            .map_err(unavailable("note an audit"))?;
        Ok(())
    }

    async fn audits(&self, limit: u32) -> Result<Vec<AuditRow>, LedgerError> {
        sqlx::query(super::LATEST_AUDITS)
            .bind(i64::from(limit))
            .fetch_all(&self.readers)
            .await
            .map_err(unavailable("be read"))?
            .iter()
            .map(|row| audit_of(&Columns(row)))
            .collect()
    }

    async fn beat(&self, run_id: &RunId, at: Timestamp) -> Result<bool, LedgerError> {
        self.beat_once(run_id, at).await.map_err(|failure| failure.told("note a heartbeat"))
    }

    async fn record(&self, run_id: &RunId) -> Result<Option<RecordRow>, LedgerError> {
        self.record_once(run_id).await.map_err(|failure| failure.told("be read"))
    }

    async fn waiting_lines(&self, run_id: &RunId, after: u64, limit: u32) -> Result<Vec<WaitingLine>, LedgerError> {
        self.waiting_lines_once(run_id, after, limit).await.map_err(|failure| failure.told("be read"))
    }

    async fn note_chunk(&self, entry: &ChunkEntry) -> Result<bool, LedgerError> {
        self.note_chunk_once(entry).await.map_err(|failure| failure.told("note a chunk"))
    }

    async fn chunks(&self, run_id: &RunId) -> Result<Vec<ChunkRef>, LedgerError> {
        self.chunks_once(run_id).await.map_err(|failure| failure.told("be read"))
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

    async fn lapsed_runs(&self, lapsed_before: Timestamp, limit: u32) -> Result<Vec<RunId>, LedgerError> {
        self.lapsed_runs_once(lapsed_before, limit).await.map_err(|failure| failure.told("be read"))
    }

    async fn note_document(
        &self,
        run_id: &RunId,
        by: &RunId,
        document: &SignedText,
    ) -> Result<Option<SignedText>, LedgerError> {
        self.note_document_once(run_id, by, document).await.map_err(|failure| failure.told("write down a run record"))
    }

    async fn note_chain_from(&self, run_id: &RunId, by: &RunId, number: u32) -> Result<Option<u32>, LedgerError> {
        self.note_chain_from_once(run_id, by, number).await.map_err(|failure| failure.told("note a place in a chain"))
    }

    async fn close_record(&self, run_id: &RunId, by: &RunId, closed: &ClosedRecord) -> Result<bool, LedgerError> {
        self.close_record_once(run_id, by, closed).await.map_err(|failure| failure.told("close a run record"))
    }

    async fn forgo_record(&self, run_id: &RunId) -> Result<(), LedgerError> {
        self.forgo_record_once(run_id).await.map_err(|failure| failure.told("give up a run record"))
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

    async fn adopt_run(&self, run: &ClosedRun) -> Result<Adopted, LedgerError> {
        self.adopt_run_once(run).await.map_err(|failure| failure.told("take a run"))
    }

    async fn overview(&self, now: Timestamp, horizon_alarm: Duration) -> Result<Overview, LedgerError> {
        // One snapshot, so that the numbers agree with one another.
        let mut snapshot = self.readers.begin().await.map_err(unavailable("be read"))?;
        self.overview_of(&mut snapshot, now, horizon_alarm).await
    }

    async fn volume(&self, query: &VolumeQuery) -> Result<Volume, LedgerError> {
        self.sum_up(query).await
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

fn put_session<'q>(
    statement: &'static str,
    entry: &'q SessionEntry,
    made: Move,
) -> sqlx::query::Query<'q, sqlx::Sqlite, sqlx::sqlite::SqliteArguments> {
    let record = &entry.record;
    let manifest = entry.manifest.as_ref().filter(|_| made.takes_manifest);
    sqlx::query(statement)
        .bind(record.session_id.as_str())
        .bind(record.integration.as_deref())
        .bind(record.decided_at.map(Timestamp::unix_millis))
        .bind(record.retention_class.as_deref())
        .bind(record.reference.as_deref())
        .bind(&entry.integration)
        .bind(made.state.as_str())
        .bind(entry.code.map(Code::as_str))
        .bind(entry.message.as_deref())
        .bind(entry.upstream_created_at.map(Timestamp::unix_millis))
        .bind(entry.deadline_at.map(Timestamp::unix_millis))
        .bind(manifest.map(|m| m.key.as_str()))
        .bind(manifest.and_then(|m| m.version_id.as_deref()))
        .bind(manifest.map(|m| m.sequence))
        .bind(manifest.map(|m| m.sha256.as_bytes().as_slice()))
        .bind(made.takes_manifest && entry.complete)
        .bind(made.takes_manifest && entry.settled)
        .bind(entry.run_id.as_str())
        .bind(entry.at.unix_millis())
        .bind(made.takes_cause)
        .bind(made.takes_manifest)
}

fn media_json(entry: &SessionEntry) -> String {
    let rows: Vec<_> = entry
        .media
        .iter()
        .map(|media| {
            (
                &media.media_id,
                &media.attempt_id,
                media.kind,
                &media.key,
                &media.version_id,
                saturated(media.size_bytes),
                media.sha256,
            )
        })
        .collect();
    json(&rows)
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

    #[tokio::test]
    async fn the_file_is_synced_at_every_commit_and_keeps_its_references() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = SqliteLedger::open(Some(&folder.path().join("ledger.db"))).await.unwrap();
        for (pragma, value) in [("synchronous", "1"), ("foreign_keys", "1"), ("journal_mode", "wal")] {
            let found: String = sqlx::query(sqlx::AssertSqlSafe(format!("PRAGMA {pragma}")))
                .fetch_one(&ledger.writer)
                .await
                .map(|row| row.try_get_unchecked::<String, _>(0).unwrap())
                .unwrap();
            assert_eq!(found, value, "{pragma}");
        }
    }

    #[tokio::test]
    async fn the_schema_refuses_archived_without_a_manifest() {
        let ledger = SqliteLedger::open(None).await.unwrap();
        let error = ledger
            .commit(&SessionEntry {
                record: SessionRecord::of(SessionId::parse("s").unwrap()),
                integration: "default".into(),
                state: State::Archived,
                code: None,
                message: None,
                upstream_created_at: None,
                deadline_at: None,
                manifest: None,
                complete: true,
                settled: true,
                media: Vec::new(),
                run_id: RunId::parse("r").unwrap(),
                at: Timestamp::from_unix_seconds(0),
                look_again_at: None,
                holder: None,
                line: None,
            })
            .await
            .unwrap_err();
        assert_eq!(error.code(), Code::LedgerUnavailable);
        assert_eq!(ledger.session(&SessionId::parse("s").unwrap()).await.unwrap(), None);
    }
}
