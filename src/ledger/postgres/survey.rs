//! The survey of a PostgreSQL ledger.

use sqlx::Postgres;
use sqlx::postgres::PgArguments;
use sqlx::query::Query;

use super::connect::Failure;
use super::{PostgresLedger, plain, saturated};
use crate::clock::Timestamp;
use crate::ledger::ClosedRun;
use crate::ledger::rows::{Columns, media_of, surveyed_of, surveyed_run_of};
use crate::ledger::survey::{
    CLOSED_RUNS, MEDIA, MEDIA_OF_SESSION, PUT_CLOSED_RUN, SESSION, SESSIONS, Surveyed, SurveyedSession, joined,
};
use crate::model::SessionId;

/// Both statements see the same moment.
const SNAPSHOT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

impl PostgresLedger {
    pub(super) async fn survey_once(
        &self,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<Surveyed<SurveyedSession>>, Failure> {
        let after = after.unwrap_or_default();
        let mut snapshot = self.pool.begin_with(SNAPSHOT).await?;
        let rows = sqlx::query(SESSIONS).bind(after).bind(i64::from(limit)).fetch_all(&mut *snapshot).await?;
        let sessions = rows.iter().map(|row| surveyed_of(&Columns(row))).collect::<Result<Vec<_>, _>>()?;
        let Some((last, _)) = sessions.last() else { return Ok(Vec::new()) };
        let media = sqlx::query(MEDIA).bind(after).bind(last.as_str()).fetch_all(&mut *snapshot).await?;
        snapshot.commit().await?;
        Ok(joined(sessions, media.iter().map(|row| media_of(&Columns(row))))?)
    }

    pub(super) async fn survey_one_once(&self, id: &SessionId) -> Result<Option<Surveyed<SurveyedSession>>, Failure> {
        let mut snapshot = self.pool.begin_with(SNAPSHOT).await?;
        let row = sqlx::query(SESSION).bind(id.as_str()).fetch_optional(&mut *snapshot).await?;
        let media = sqlx::query(MEDIA_OF_SESSION).bind(id.as_str()).fetch_all(&mut *snapshot).await?;
        snapshot.commit().await?;
        let row = row.map(|row| surveyed_of(&Columns(&row))).transpose()?;
        Ok(joined(row, media.iter().map(|row| media_of(&Columns(row))))?.pop())
    }

    pub(super) async fn closed_runs_once(
        &self,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<Surveyed<ClosedRun>>, Failure> {
        let rows = sqlx::query(CLOSED_RUNS)
            .bind(after.unwrap_or_default())
            .bind(i64::from(limit))
            .fetch_all(&self.pool)
            .await?;
        Ok(rows.iter().map(|row| surveyed_run_of(&Columns(row))).collect::<Result<_, _>>()?)
    }

    pub(super) async fn put_closed_run_once(&self, run: &ClosedRun) -> Result<bool, Failure> {
        Ok(bound(sqlx::query(PUT_CLOSED_RUN), run).execute(&self.pool).await?.rows_affected() > 0)
    }
}

fn bound<'q>(query: Query<'q, Postgres, PgArguments>, run: &'q ClosedRun) -> Query<'q, Postgres, PgArguments> {
    let counts = &run.counts;
    query
        .bind(run.run_id.as_str())
        .bind(run.started_at.unix_millis())
        .bind(run.finished_at.map(Timestamp::unix_millis))
        .bind(run.exit_code.map(i64::from))
        .bind(plain(&run.version))
        .bind(plain(&run.source_kind))
        .bind(plain(&run.store_url))
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
        .bind(i64::from(run.record.number))
        .bind(run.record.entry_sha256.as_bytes().as_slice())
}
