//! Opening the file: made and migrated where need be, or only read.

use std::future::Future;
use std::path::Path;
use std::sync::LazyLock;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use sqlx::ConnectOptions as _;
use sqlx::migrate::{AppliedMigration, Migrate as _, MigrateError, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};

use super::{SqliteLedger, unavailable};
use crate::ledger::LedgerError;
use crate::ledger::schema::{self, MIGRATIONS_TABLE, Migrated};
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

impl SqliteLedger {
    /// Opens the file, creates it if need be, and brings its schema up to date. Without a file it is in memory.
    pub(in crate::ledger) async fn open(file: Option<&Path>) -> Result<Self, LedgerError> {
        Self::open_migrated(file).await.map(|(ledger, _)| ledger)
    }

    /// Opens the file for reading only, and refuses a schema that is not this program's: nothing is made or upgraded.
    pub(in crate::ledger) async fn open_to_read(path: &Path) -> Result<Self, LedgerError> {
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
    pub(in crate::ledger) async fn open_migrated(file: Option<&Path>) -> Result<(Self, Migrated), LedgerError> {
        let (path, action) = match file {
            Some(path) if is_without_folder(path).await => {
                (path, format!("be opened at {}: its folder does not exist, create it first", path.display()))
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
    let is_busy = |error: &sqlx::Error| {
        error.as_database_error().and_then(sqlx::error::DatabaseError::code).is_some_and(|code| code == BUSY)
    };
    OPENING.retry(is_busy, attempt).await
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

#[cfg(test)]
mod tests {
    use sqlx::Row as _;

    use super::*;

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
}
