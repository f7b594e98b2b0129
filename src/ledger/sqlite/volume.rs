//! Aggregates over time in SQLite.

use super::{SqliteLedger, unavailable};
use crate::ledger::LedgerError;
use crate::ledger::entries::{LATEST_AUDITS, LATEST_RUNS};
use crate::ledger::rows::{Columns, audit_of, day_group_of, deadline_group_of, media_day_group_of, run_of};
use crate::ledger::volume::{DAY_MS, Volume, VolumeQuery, deadlines, media_months, months};
use crate::model::ArchiveId;

const DAYS: &str = "
    SELECT first_visited_at / ?1 AS day, state, complete, settled, count(*) AS sessions
    FROM sessions GROUP BY day, state, complete, settled";

/// From the sessions to their items, which lie beside one another: one jump a session, not one an item.
const MEDIA_DAYS: &str = "
    SELECT first_visited_at / ?1 AS day, kind, count(*) AS items, sum(size_bytes) AS bytes
    FROM sessions CROSS JOIN media USING (session_id) GROUP BY day, kind";

/// What is not known stays unknown: a comparison with null is null, and so is the difference.
const DEADLINES: &str = "
    SELECT state, code, iif(deadline_at <= ?2, -1, (deadline_at - ?2) / ?1) AS days_left, count(*) AS sessions
    FROM sessions WHERE state IN ('pending', 'failed') GROUP BY state, code, days_left";

impl SqliteLedger {
    pub(super) async fn sum_up(&self, query: &VolumeQuery) -> Result<Volume, LedgerError> {
        let failed = || unavailable("be read");
        let mut snapshot = self.readers.begin().await.map_err(failed())?;
        let archive_id: Option<String> = sqlx::query_scalar("SELECT archive_id FROM archive")
            .fetch_optional(&mut *snapshot)
            .await
            .map_err(failed())?;
        let overview = self.overview_of(&mut snapshot, query.now, query.horizon_alarm).await?;
        let days = sqlx::query(DAYS).bind(DAY_MS).fetch_all(&mut *snapshot).await.map_err(failed())?;
        let media = sqlx::query(MEDIA_DAYS).bind(DAY_MS).fetch_all(&mut *snapshot).await.map_err(failed())?;
        let left = sqlx::query(DEADLINES)
            .bind(DAY_MS)
            .bind(query.now.unix_millis())
            .fetch_all(&mut *snapshot)
            .await
            .map_err(failed())?;
        let runs = sqlx::query(LATEST_RUNS).bind(query.runs).fetch_all(&mut *snapshot).await.map_err(failed())?;
        let audits = sqlx::query(LATEST_AUDITS)
            .bind(i64::from(query.audits))
            .fetch_all(&mut *snapshot)
            .await
            .map_err(failed())?;
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
