//! The survey of an SQLite ledger.

use sqlx::query::Query;
use sqlx::sqlite::SqliteArguments;

use super::{SqliteLedger, saturated, unavailable};
use crate::clock::Timestamp;
use crate::ledger::rows::{Columns, media_of, surveyed_of, surveyed_run_of};
use crate::ledger::survey::{
    CLOSED_RUNS, MEDIA, MEDIA_OF_SESSION, PUT_CLOSED_RUN, SESSION, SESSIONS, Surveyed, SurveyedSession, joined,
};
use crate::ledger::{ClosedRun, LedgerError};
use crate::model::SessionId;

impl SqliteLedger {
    pub(super) async fn survey_page(
        &self,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<Surveyed<SurveyedSession>>, LedgerError> {
        let failed = || unavailable("be read");
        let after = after.unwrap_or_default();
        // One snapshot, so that a session never comes with the items of another visit.
        let mut snapshot = self.readers.begin().await.map_err(failed())?;
        let rows = sqlx::query(SESSIONS).bind(after).bind(limit).fetch_all(&mut *snapshot).await.map_err(failed())?;
        let sessions = rows.iter().map(|row| surveyed_of(&Columns(row))).collect::<Result<Vec<_>, _>>()?;
        let Some((last, _)) = sessions.last() else { return Ok(Vec::new()) };
        let media =
            sqlx::query(MEDIA).bind(after).bind(last.as_str()).fetch_all(&mut *snapshot).await.map_err(failed())?;
        joined(sessions, media.iter().map(|row| media_of(&Columns(row))))
    }

    pub(super) async fn survey_one(&self, id: &SessionId) -> Result<Option<Surveyed<SurveyedSession>>, LedgerError> {
        let failed = || unavailable("be read");
        let mut snapshot = self.readers.begin().await.map_err(failed())?;
        let row = sqlx::query(SESSION).bind(id.as_str()).fetch_optional(&mut *snapshot).await.map_err(failed())?;
        let media = sqlx::query(MEDIA_OF_SESSION).bind(id.as_str()).fetch_all(&mut *snapshot).await.map_err(failed())?;
        let row = row.map(|row| surveyed_of(&Columns(&row))).transpose()?;
        Ok(joined(row, media.iter().map(|row| media_of(&Columns(row))))?.pop())
    }

    pub(super) async fn closed_runs_page(
        &self,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<Surveyed<ClosedRun>>, LedgerError> {
        sqlx::query(CLOSED_RUNS)
            .bind(after.unwrap_or_default())
            .bind(limit)
            .fetch_all(&self.readers)
            .await
            .map_err(unavailable("be read"))?
            .iter()
            .map(|row| surveyed_run_of(&Columns(row)))
            .collect()
    }

    pub(super) async fn put_closed_run(&self, run: &ClosedRun) -> Result<bool, LedgerError> {
        let put = bound(sqlx::query(PUT_CLOSED_RUN), run).execute(&self.writer).await;
        Ok(put.map_err(unavailable("take a run"))?.rows_affected() > 0)
    }
}

fn bound<'q>(
    query: Query<'q, sqlx::Sqlite, SqliteArguments>,
    run: &'q ClosedRun,
) -> Query<'q, sqlx::Sqlite, SqliteArguments> {
    let counts = &run.counts;
    query
        .bind(run.run_id.as_str())
        .bind(run.started_at.unix_millis())
        .bind(run.finished_at.map(Timestamp::unix_millis))
        .bind(run.exit_code)
        .bind(&run.version)
        .bind(&run.source_kind)
        .bind(&run.store_url)
        .bind(saturated(counts.archived))
        .bind(saturated(counts.unchanged))
        .bind(saturated(counts.absent))
        .bind(saturated(counts.failed))
        .bind(saturated(counts.pending))
        .bind(saturated(counts.media))
        .bind(saturated(counts.bytes))
        .bind(run.record.key.as_str())
        .bind(run.record.sha256.as_bytes().as_slice())
        .bind(&run.record.group)
        .bind(run.record.number)
        .bind(run.record.entry_sha256.as_bytes().as_slice())
}
