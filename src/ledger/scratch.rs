//! Scratch: a private temporary database for lists that must not be held in memory.
//!
//! `--only unfinished` needs the last line of every session before it can name the first one. The lines are put here,
//! whatever their number, and read back in the order in which their sessions were first seen. SQLite keeps it in a
//! nameless file that vanishes with the connection, also when the process is killed.

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Row as _};

use super::LedgerError;
use super::sqlite::{json, unavailable};

/// How many lines go into one statement: enough that its own cost vanishes, few enough to be a few megabytes.
const BATCH_LINES: usize = 2048;

/// How long the lines of a batch may get: with lines of the greatest length, a batch is few of them.
const BATCH_BYTES: usize = 4 * 1024 * 1024;

const CREATE: &str = "
    CREATE TABLE lines (
        position INTEGER PRIMARY KEY, name TEXT NOT NULL, text TEXT NOT NULL, is_finished INTEGER NOT NULL
    ) STRICT";

const PUT: &str = "
    INSERT INTO lines (position, name, text, is_finished)
    SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3 FROM json_each(?1)";

/// Names are brought together by sorting them once at the end. A unique index that grows with each line would touch a
/// page at random for each, which is ten times slower once it outgrows the cache.
const INDEX: &str = "CREATE INDEX lines_by_name ON lines (name, position, is_finished)";

/// The greatest `2 * position + is_finished` of a name gives its last line and whether that one is finished.
const CHOOSE: &str = "
    CREATE TABLE chosen AS
    SELECT first, last / 2 AS last FROM (
        SELECT min(position) AS first, max(2 * position + is_finished) AS last
        FROM lines INDEXED BY lines_by_name GROUP BY name)
    WHERE last % 2 = 0 ORDER BY first";

const INDEX_CHOSEN: &str = "CREATE INDEX chosen_in_order ON chosen (first, last)";

const UNFINISHED: &str = "
    SELECT first, text FROM chosen INDEXED BY chosen_in_order CROSS JOIN lines ON position = last
    WHERE first > ?1 ORDER BY first LIMIT ?2";

const NAMES: &str = "SELECT DISTINCT name FROM lines INDEXED BY lines_by_name WHERE name > ?1 ORDER BY name LIMIT ?2";

/// Lines set aside, the last of each name.
#[derive(Debug)]
pub struct Scratch {
    connection: SqliteConnection,
    batch: Vec<(u64, String, String, bool)>,
    batch_bytes: usize,
}

/// Lines set aside, all of them there, to be read back.
#[derive(Debug)]
pub struct FilledScratch {
    connection: SqliteConnection,
}

impl Scratch {
    /// Makes an empty one.
    ///
    /// # Errors
    /// Retryable: there is no place for temporary files.
    pub async fn create() -> Result<Self, LedgerError> {
        let mut connection = SqliteConnectOptions::new()
            // No name: SQLite's own way to ask for a private file, unlinked as soon as it is made.
            .filename("")
            .journal_mode(SqliteJournalMode::Off)
            .synchronous(SqliteSynchronous::Off)
            .pragma("cache_size", "-8192")
            .pragma("temp_store", "FILE")
            .disable_statement_logging()
            .connect()
            .await
            .map_err(unavailable("make a temporary file"))?;
        execute(&mut connection, CREATE).await?;
        Ok(Self { connection, batch: Vec::new(), batch_bytes: 0 })
    }

    /// Sets a line aside. Of several with one name, the last one counts and the first one gives the position, which no
    /// two lines share.
    ///
    /// # Errors
    /// Retryable: no space is left.
    pub async fn put(
        &mut self,
        name: String,
        position: u64,
        text: String,
        is_finished: bool,
    ) -> Result<(), LedgerError> {
        self.batch_bytes += name.len() + text.len();
        self.batch.push((position, name, text, is_finished));
        if self.batch.len() >= BATCH_LINES || self.batch_bytes >= BATCH_BYTES {
            self.flush().await?;
        }
        Ok(())
    }

    /// Ends the filling.
    ///
    /// # Errors
    /// As [`Scratch::put`].
    pub async fn filled(mut self) -> Result<FilledScratch, LedgerError> {
        self.flush().await?;
        for statement in [INDEX, CHOOSE, INDEX_CHOSEN] {
            execute(&mut self.connection, statement).await?;
        }
        Ok(FilledScratch { connection: self.connection })
    }

    async fn flush(&mut self) -> Result<(), LedgerError> {
        let batch = json(&self.batch);
        self.batch.clear();
        self.batch_bytes = 0;
        sqlx::query(PUT).bind(batch).execute(&mut self.connection).await.map_err(unavailable("set lines aside"))?;
        Ok(())
    }
}

impl FilledScratch {
    /// Returns the position and text of lines that are not finished, at most `limit` of those after a position.
    ///
    /// # Errors
    /// Retryable: the temporary file cannot be read.
    pub async fn unfinished(&mut self, after: Option<u64>, limit: u32) -> Result<Vec<(u64, String)>, LedgerError> {
        sqlx::query(UNFINISHED)
            .bind(after.map_or(-1, |after| i64::try_from(after).unwrap_or(i64::MAX)))
            .bind(limit)
            .fetch_all(&mut self.connection)
            .await
            .map_err(unavailable("read lines set aside"))?
            .iter()
            .map(|row| {
                let position = row.try_get::<i64, _>(0).ok().and_then(|at| u64::try_from(at).ok());
                Ok((
                    position.ok_or(LedgerError::Damaged("position"))?,
                    row.try_get(1).map_err(|_| LedgerError::Damaged("line"))?,
                ))
            })
            .collect()
    }

    /// Returns names, each once and in order, at most `limit` of those behind a name; an empty one is before all.
    ///
    /// # Errors
    /// As [`FilledScratch::unfinished`].
    pub async fn names(&mut self, after: &str, limit: u32) -> Result<Vec<String>, LedgerError> {
        let rows = sqlx::query(NAMES).bind(after).bind(limit).fetch_all(&mut self.connection).await;
        let rows = rows.map_err(unavailable("read lines set aside"))?;
        rows.iter().map(|row| row.try_get(0).map_err(|_| LedgerError::Damaged("name"))).collect()
    }
}

async fn execute(connection: &mut SqliteConnection, statement: &'static str) -> Result<(), LedgerError> {
    sqlx::query(statement).execute(connection).await.map_err(unavailable("set lines aside"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_last_line_of_a_name_counts_and_the_first_one_gives_its_place() {
        let mut scratch = Scratch::create().await.unwrap();
        let count = u64::try_from(BATCH_LINES).unwrap() + 10;
        for at in 0..count {
            scratch.put(format!("s{at}"), at, format!("first \"{at}\"\n\u{0}"), at % 2 == 0).await.unwrap();
        }
        scratch.put("s3".into(), count, "again".into(), true).await.unwrap();
        scratch.put("s4".into(), count + 1, "again".into(), false).await.unwrap();
        let mut filled = scratch.filled().await.unwrap();
        let mut found = Vec::new();
        loop {
            let page = filled.unfinished(found.last().map(|(at, _)| *at), 100).await.unwrap();
            if page.is_empty() {
                break;
            }
            found.extend(page);
        }
        let expected: Vec<u64> = (0..count).filter(|at| *at == 4 || (at % 2 == 1 && *at != 3)).collect();
        assert_eq!(found.iter().map(|(at, _)| *at).collect::<Vec<_>>(), expected);
        assert_eq!(found[0].1, "first \"1\"\n\u{0}");
        assert_eq!(found[1], (4, "again".to_owned()));
    }

    #[tokio::test]
    async fn names_come_once_each_and_in_order() {
        let mut scratch = Scratch::create().await.unwrap();
        for (at, name) in (0..).zip(["b", "a", "b", "A", "c"]) {
            scratch.put(name.to_owned(), at, String::new(), false).await.unwrap();
        }
        let mut filled = scratch.filled().await.unwrap();
        assert_eq!(filled.names("", 3).await.unwrap(), ["A", "a", "b"]);
        assert_eq!(filled.names("b", 3).await.unwrap(), ["c"]);
        assert!(filled.names("c", 3).await.unwrap().is_empty());
    }
}
