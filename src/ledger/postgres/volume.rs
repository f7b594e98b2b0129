//! Aggregates over time in PostgreSQL.

use super::connect::Failure;
use super::{PostgresLedger, SNAPSHOT, overview_of};
use crate::ledger::LedgerError;
use crate::ledger::entries::{LATEST_AUDITS, LATEST_RUNS};
use crate::ledger::rows::{Columns, audit_of, day_group_of, deadline_group_of, media_day_group_of, run_of};
use crate::ledger::volume::{DAY_MS, Volume, VolumeQuery, deadlines, media_months, months};
use crate::model::ArchiveId;

const DAYS: &str = "
    SELECT first_visited_at / $1 AS day, state, complete, settled, count(*) AS sessions
    FROM sessions GROUP BY 1, 2, 3, 4";

/// A sum of bytes may be more than fits into the type of the column.
const MEDIA_DAYS: &str = "
    SELECT first_visited_at / $1 AS day, kind, count(*) AS items,
        least(sum(size_bytes), 9223372036854775807)::bigint AS bytes
    FROM sessions JOIN media USING (session_id) GROUP BY 1, 2";

const DEADLINES: &str = "
    SELECT state, code, CASE WHEN deadline_at <= $2 THEN -1 ELSE (deadline_at - $2) / $1 END AS days_left,
        count(*) AS sessions
    FROM sessions WHERE state IN ('pending', 'failed') GROUP BY 1, 2, 3";

impl PostgresLedger {
    pub(super) async fn volume_once(&self, query: &VolumeQuery) -> Result<Volume, Failure> {
        let mut snapshot = self.pool.begin_with(SNAPSHOT).await?;
        let archive_id: Option<String> =
            sqlx::query_scalar("SELECT archive_id FROM archive").fetch_optional(&mut *snapshot).await?;
        let overview = overview_of(&mut snapshot, query.now, query.horizon_alarm).await?;
        let days = sqlx::query(DAYS).bind(DAY_MS).fetch_all(&mut *snapshot).await?;
        let media = sqlx::query(MEDIA_DAYS).bind(DAY_MS).fetch_all(&mut *snapshot).await?;
        let left = sqlx::query(DEADLINES).bind(DAY_MS).bind(query.now.unix_millis()).fetch_all(&mut *snapshot).await?;
        let runs = sqlx::query(LATEST_RUNS).bind(i64::from(query.runs)).fetch_all(&mut *snapshot).await?;
        let audits = sqlx::query(LATEST_AUDITS).bind(i64::from(query.audits)).fetch_all(&mut *snapshot).await?;
        snapshot.commit().await?;
        let days: Vec<_> = days.iter().map(|row| day_group_of(&Columns(row))).collect::<Result<_, _>>()?;
        let media: Vec<_> = media.iter().map(|row| media_day_group_of(&Columns(row))).collect::<Result<_, _>>()?;
        let left: Vec<_> = left.iter().map(|row| deadline_group_of(&Columns(row))).collect::<Result<_, _>>()?;
        Ok(Volume {
            archive_id: archive_id
                .map(|id| ArchiveId::parse(&id).map_err(|_| LedgerError::Damaged("archive id")))
                .transpose()?,
            overview,
            months: months(&days),
            media: media_months(&media),
            deadlines: deadlines(&left),
            runs: runs.iter().map(|row| run_of(&Columns(row))).collect::<Result<_, _>>()?,
            audits: audits.iter().map(|row| audit_of(&Columns(row))).collect::<Result<_, _>>()?,
        })
    }
}
