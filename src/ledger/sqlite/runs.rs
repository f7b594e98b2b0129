//! Run records in SQLite: lines that wait, chunks, closing.
//!
//! Whoever writes has the file, so nobody closes a record between a commit's look at it and its line.

use sqlx::{Sqlite, Transaction};

use super::{SqliteLedger, saturated, unavailable};
use crate::clock::Timestamp;
use crate::ledger::rows::{Columns, chain_head_of, chunk_of, record_row_of, run_id_of, waiting_line_of};
use crate::ledger::runs::{
    BEAT, CHAIN_HEAD, CHUNKS, CLAIM_CLOSING, CLOSE, DROP_CHUNKS, DROP_LINES, FORGO, LAPSED_RUNS, LINE, PUT_CHAIN_FROM,
    PUT_CHUNK, PUT_DOCUMENT, PUT_SUMS, RECORD, RECORD_STATE, RecordState, SETTLE, WAITING_LINES,
};
use crate::ledger::{
    Adopted, ChainHead, ChunkEntry, ClosedRecord, ClosedRun, LedgerError, RecordRow, SessionEntry, SignedText,
    WaitingLine,
};
use crate::model::RunId;
use crate::model::run::ChunkRef;

/// Why a call came to nothing.
pub(super) enum Failure {
    /// SQLite or the file system says so.
    Engine(sqlx::Error),
    /// What was read is not what this program writes, or the call is refused.
    Ledger(LedgerError),
}

impl Failure {
    /// Makes an error of it, which says what was asked.
    pub(super) fn told(self, action: &'static str) -> LedgerError {
        match self {
            Self::Engine(error) => unavailable(action)(error),
            Self::Ledger(error) => error,
        }
    }
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self::Engine(error)
    }
}

impl From<LedgerError> for Failure {
    fn from(error: LedgerError) -> Self {
        Self::Ledger(error)
    }
}

/// A line that is taken again changes nothing, be it still waiting or in a chunk.
const TAKE_LINE: &str = "
    INSERT INTO run_lines (run_id, number, line, media, bytes)
    SELECT run_id, $2, $3, $4, $5
    FROM runs WHERE run_id = $1 AND record_state = 'open' AND record_lines < $2
    ON CONFLICT (run_id, number) DO NOTHING";

/// Takes the line of an entry, or refuses all of it.
pub(super) async fn take_line(open: &mut Transaction<'_, Sqlite>, entry: &SessionEntry) -> Result<(), Failure> {
    let Some(line) = &entry.line else { return Ok(()) };
    let taken = sqlx::query(TAKE_LINE)
        .bind(entry.run_id.as_str())
        .bind(saturated(line.number))
        .bind(&line.text)
        .bind(saturated(line.media))
        .bind(saturated(line.bytes))
        .execute(&mut **open)
        .await?;
    if taken.rows_affected() == 0 {
        let state: Option<String> =
            sqlx::query_scalar(RECORD_STATE).bind(entry.run_id.as_str()).fetch_optional(&mut **open).await?;
        if state.as_deref() != Some(RecordState::Open.as_str()) {
            return Err(LedgerError::RunClosed(entry.run_id.clone()).into());
        }
        let standing: Option<String> = sqlx::query_scalar(LINE)
            .bind(entry.run_id.as_str())
            .bind(saturated(line.number))
            .fetch_optional(&mut **open)
            .await?;
        if standing.is_some_and(|standing| standing != line.text) {
            return Err(LedgerError::Damaged("number of a line").into());
        }
    }
    Ok(())
}

impl SqliteLedger {
    pub(super) async fn beat_once(&self, run_id: &RunId, at: Timestamp) -> Result<bool, Failure> {
        let beaten = sqlx::query(BEAT).bind(run_id.as_str()).bind(at.unix_millis()).execute(&self.writer).await?;
        Ok(beaten.rows_affected() > 0)
    }

    pub(super) async fn record_once(&self, run_id: &RunId) -> Result<Option<RecordRow>, Failure> {
        let row = sqlx::query(RECORD).bind(run_id.as_str()).fetch_optional(&self.readers).await?;
        Ok(row.map(|row| record_row_of(&Columns(&row))).transpose()?)
    }

    pub(super) async fn waiting_lines_once(
        &self,
        run_id: &RunId,
        after: u64,
        limit: u32,
    ) -> Result<Vec<WaitingLine>, Failure> {
        let rows = sqlx::query(WAITING_LINES)
            .bind(run_id.as_str())
            .bind(saturated(after))
            .bind(limit)
            .fetch_all(&self.readers)
            .await?;
        Ok(rows.iter().map(|row| waiting_line_of(&Columns(row))).collect::<Result<_, _>>()?)
    }

    pub(super) async fn note_chunk_once(&self, entry: &ChunkEntry) -> Result<bool, Failure> {
        let lines = entry.lines_before.saturating_add(entry.chunk.sessions);
        let mut open = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        let noted = sqlx::query(PUT_SUMS)
            .bind(entry.run_id.as_str())
            .bind(entry.by.as_str())
            .bind(&entry.sums)
            .bind(saturated(lines))
            .bind(entry.number)
            .bind(saturated(entry.lines_before))
            .execute(&mut *open)
            .await?;
        if noted.rows_affected() == 0 {
            return Ok(false);
        }
        sqlx::query(PUT_CHUNK)
            .bind(entry.run_id.as_str())
            .bind(entry.number)
            .bind(entry.chunk.key.as_str())
            .bind(entry.chunk.sha256.as_bytes().as_slice())
            .bind(saturated(entry.chunk.sessions))
            .bind(saturated(entry.chunk.items))
            .execute(&mut *open)
            .await?;
        sqlx::query(DROP_LINES).bind(entry.run_id.as_str()).bind(saturated(lines)).execute(&mut *open).await?;
        open.commit().await?;
        Ok(true)
    }

    pub(super) async fn chunks_once(&self, run_id: &RunId) -> Result<Vec<ChunkRef>, Failure> {
        let rows = sqlx::query(CHUNKS).bind(run_id.as_str()).fetch_all(&self.readers).await?;
        Ok(rows.iter().map(|row| chunk_of(&Columns(row))).collect::<Result<_, _>>()?)
    }

    pub(super) async fn claim_closing_once(
        &self,
        run_id: &RunId,
        by: &RunId,
        at: Timestamp,
        lapsed_before: Timestamp,
    ) -> Result<bool, Failure> {
        let claimed = sqlx::query(CLAIM_CLOSING)
            .bind(run_id.as_str())
            .bind(by.as_str())
            .bind(at.unix_millis())
            .bind(lapsed_before.unix_millis())
            .execute(&self.writer)
            .await?;
        Ok(claimed.rows_affected() > 0)
    }

    pub(super) async fn lapsed_runs_once(&self, lapsed_before: Timestamp, limit: u32) -> Result<Vec<RunId>, Failure> {
        let rows =
            sqlx::query(LAPSED_RUNS).bind(lapsed_before.unix_millis()).bind(limit).fetch_all(&self.readers).await?;
        Ok(rows.iter().map(|row| run_id_of(&Columns(row))).collect::<Result<_, _>>()?)
    }

    pub(super) async fn note_document_once(
        &self,
        run_id: &RunId,
        by: &RunId,
        document: &SignedText,
    ) -> Result<Option<SignedText>, Failure> {
        let noted = sqlx::query(PUT_DOCUMENT)
            .bind(run_id.as_str())
            .bind(by.as_str())
            .bind(&document.text)
            .bind(document.signature.as_deref())
            .execute(&self.writer)
            .await?;
        if noted.rows_affected() > 0 {
            return Ok(Some(document.clone()));
        }
        Ok(self.record_once(run_id).await?.and_then(|row| row.document))
    }

    pub(super) async fn note_chain_from_once(
        &self,
        run_id: &RunId,
        by: &RunId,
        number: u32,
    ) -> Result<Option<u32>, Failure> {
        let noted = sqlx::query(PUT_CHAIN_FROM)
            .bind(run_id.as_str())
            .bind(by.as_str())
            .bind(number)
            .execute(&self.writer)
            .await?;
        if noted.rows_affected() > 0 {
            return Ok(Some(number));
        }
        Ok(self.record_once(run_id).await?.and_then(|row| row.chain_from))
    }

    pub(super) async fn close_record_once(
        &self,
        run_id: &RunId,
        by: &RunId,
        closed: &ClosedRecord,
    ) -> Result<bool, Failure> {
        let noted = sqlx::query(CLOSE)
            .bind(run_id.as_str())
            .bind(by.as_str())
            .bind(closed.key.as_str())
            .bind(closed.sha256.as_bytes().as_slice())
            .bind(&closed.group)
            .bind(closed.number)
            .bind(closed.entry_sha256.as_bytes().as_slice())
            .execute(&self.writer)
            .await?;
        Ok(noted.rows_affected() > 0)
    }

    pub(super) async fn forgo_record_once(&self, run_id: &RunId) -> Result<(), Failure> {
        let mut open = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        let given_up = sqlx::query(FORGO).bind(run_id.as_str()).execute(&mut *open).await?;
        if given_up.rows_affected() > 0 {
            sqlx::query(DROP_LINES).bind(run_id.as_str()).bind(i64::MAX).execute(&mut *open).await?;
        }
        open.commit().await?;
        Ok(())
    }

    pub(super) async fn chain_head_once(&self, group: &str) -> Result<Option<ChainHead>, Failure> {
        let row = sqlx::query(CHAIN_HEAD).bind(group).fetch_optional(&self.readers).await?;
        Ok(row.map(|row| chain_head_of(&Columns(&row))).transpose()?)
    }

    pub(super) async fn adopt_run_once(&self, run: &ClosedRun) -> Result<Adopted, Failure> {
        if self.put_closed_run(run).await? {
            return Ok(Adopted::New);
        }
        let counts = &run.counts;
        let mut open = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        let settled = sqlx::query(SETTLE)
            .bind(run.run_id.as_str())
            .bind(run.record.key.as_str())
            .bind(run.record.sha256.as_bytes().as_slice())
            .bind(&run.record.group)
            .bind(i64::from(run.record.number))
            .bind(run.record.entry_sha256.as_bytes().as_slice())
            .bind(run.finished_at.map(Timestamp::unix_millis))
            .bind(run.exit_code.map(i64::from))
            .bind(saturated(counts.archived))
            .bind(saturated(counts.unchanged))
            .bind(saturated(counts.absent))
            .bind(saturated(counts.failed))
            .bind(saturated(counts.pending))
            .bind(saturated(counts.media))
            .bind(saturated(counts.bytes))
            .execute(&mut *open)
            .await?;
        if settled.rows_affected() == 0 {
            return Ok(Adopted::Known);
        }
        sqlx::query(DROP_LINES).bind(run.run_id.as_str()).bind(i64::MAX).execute(&mut *open).await?;
        sqlx::query(DROP_CHUNKS).bind(run.run_id.as_str()).execute(&mut *open).await?;
        open.commit().await?;
        Ok(Adopted::Closed)
    }
}
