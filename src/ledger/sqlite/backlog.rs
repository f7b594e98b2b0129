//! The backlog in SQLite: adding, handing out, releasing.
//!
//! Every move is one short write transaction. What is next is read from an index that holds nothing but sessions that are
//! ready, so a claim costs the same however many are waiting, leased or done.

use std::sync::atomic::Ordering;

use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, Sqlite, Transaction};

use super::{SqliteLedger, json, unavailable};
use crate::clock::Timestamp;
use crate::ledger::backlog::{
    Added, BacklogCounts, BacklogEntry, Claim, Claimed, Comeback, Cursor, Filter, ListedSession, Which,
};
use crate::ledger::columns::session_columns;
use crate::ledger::rows::{Columns, count_turn, listed_of, record_of};
use crate::ledger::{LedgerError, SessionEntry, retryable_codes};
use crate::model::{RunId, SessionId};

/// How many waits that are over and leases that have lapsed one claim makes ready: enough to keep up with any number of
/// workers, few enough for one short transaction.
const WAKE_LIMIT: u32 = 1000;

/// The batch as rows; the same for each statement of an addition.
macro_rules! batch {
    () => {
        "SELECT value ->> 0 AS session_id, value ->> 1 AS asked_integration, value ->> 2 AS decided_at,
            value ->> 3 AS retention_class, value ->> 4 AS reference, value ->> 5 AS integration,
            value ->> 6 AS deadline_at
         FROM json_each(?1)"
    };
}

/// Sessions that an addition leaves as they are.
const COUNT_ENDED: &str = concat!(
    "SELECT count(*) FROM (",
    batch!(),
    ") CROSS JOIN sessions USING (session_id)
     WHERE state <> 'pending' AND NOT (state = 'archived' AND NOT settled)"
);

const ADD_SESSIONS: &str = concat!(
    "INSERT INTO sessions (session_id, asked_integration, decided_at, retention_class, reference, integration, state,
        deadline_at, complete, settled, media, bytes, visits, run_id, first_visited_at, last_visited_at)
     SELECT session_id, asked_integration, decided_at, retention_class, reference, integration, 'pending',
        deadline_at, 0, 0, 0, 0, 0, ?2, ?3, ?3 FROM (",
    batch!(),
    ") WHERE true
     ON CONFLICT (session_id) DO UPDATE SET
        asked_integration = ifnull(excluded.asked_integration, asked_integration),
        decided_at = ifnull(excluded.decided_at, decided_at),
        retention_class = ifnull(excluded.retention_class, retention_class),
        reference = ifnull(excluded.reference, reference),
        deadline_at = min(ifnull(excluded.deadline_at, deadline_at), ifnull(deadline_at, excluded.deadline_at))
     WHERE (excluded.asked_integration, excluded.decided_at, excluded.retention_class, excluded.reference)
        IS NOT (sessions.asked_integration, sessions.decided_at, sessions.retention_class, sessions.reference)"
);

const ADD_TO_BACKLOG: &str = concat!(
    "INSERT INTO backlog (session_id, integration, deadline_at, turn, due_at)
     SELECT session_id, batch.integration, sessions.deadline_at, 'ready', ?2
     FROM (",
    batch!(),
    ") AS batch CROSS JOIN sessions USING (session_id)
     WHERE state = 'pending' OR state = 'archived' AND NOT settled
     ON CONFLICT (session_id) DO NOTHING"
);

/// An earlier deadline that a request gave moves its session forward.
const ADVANCE: &str = concat!(
    "UPDATE backlog SET deadline_at = known.deadline_at
     FROM (SELECT session_id, sessions.deadline_at FROM (",
    batch!(),
    ") CROSS JOIN sessions USING (session_id)) AS known
     WHERE backlog.session_id = known.session_id AND backlog.deadline_at IS NOT known.deadline_at"
);

const WAKE: &str = "
    UPDATE backlog SET turn = 'ready', tries = tries + (turn = 'leased'), leased_by = NULL
    WHERE session_id IN (
        SELECT session_id FROM backlog INDEXED BY backlog_due WHERE turn <> 'ready' AND due_at <= ?1 LIMIT ?2)";

pub(super) const NEXT: &str = "
    SELECT deadline_at, session_id FROM backlog INDEXED BY backlog_next
    WHERE turn = 'ready' AND integration = ?1 ORDER BY deadline_at, session_id LIMIT ?2";

const LEFT_BY_HOLDER: &str = "
    SELECT backlog.deadline_at, session_id
    FROM sessions INDEXED BY sessions_left_by_run CROSS JOIN backlog USING (session_id)
    WHERE run_id = ?1 AND state IN ('failed', 'pending') AND state = 'failed' AND turn <> 'leased'
        AND code IS NOT NULL AND code IN (SELECT value FROM json_each(?2)) AND backlog.integration IN (SELECT value FROM json_each(?3))
    ORDER BY session_id LIMIT ?4";

const LEASE: &str = "
    UPDATE backlog SET turn = 'leased', leased_by = ?2, due_at = ?3
    WHERE session_id IN (SELECT value FROM json_each(?1))";

const CLAIMED: &str = "
    SELECT session_id, asked_integration, decided_at, retention_class, reference,
        backlog.integration AS integration, backlog.tries AS tries
    FROM json_each(?1) CROSS JOIN backlog ON backlog.session_id = value CROSS JOIN sessions USING (session_id)
    ORDER BY json_each.id";

const RENEW: &str = "
    UPDATE backlog SET due_at = ?3
    WHERE session_id IN (SELECT value FROM json_each(?2)) AND leased_by = ?1 RETURNING session_id";

const DONE: &str = "DELETE FROM backlog WHERE session_id = ?1 AND leased_by = ?2";

const COMES_AGAIN: &str = "
    UPDATE backlog SET turn = iif(?4, 'waiting', 'ready'), leased_by = NULL, due_at = ?3, tries = tries + ?4
    WHERE session_id = ?1 AND leased_by = ?2";

/// Whoever else holds the session will say what becomes of it.
const LOOK_AGAIN: &str = "
    INSERT INTO backlog (session_id, integration, deadline_at, turn, due_at) VALUES (?1, ?2, ?3, 'waiting', ?4)
    ON CONFLICT (session_id) DO UPDATE SET
        integration = excluded.integration, deadline_at = ifnull(excluded.deadline_at, deadline_at),
        turn = 'waiting', due_at = excluded.due_at, leased_by = NULL, tries = 0
    WHERE backlog.leased_by IS NULL OR backlog.leased_by = ?5";

const LEARN_DEADLINE: &str = "
    UPDATE backlog SET deadline_at = ?2 WHERE session_id = ?1 AND deadline_at IS NOT ?2";

/// What a [`Filter`] means; takes the first six parameters.
macro_rules! filter {
    () => {
        "(?1 IS NULL OR sessions.state IN (SELECT value FROM json_each(?1)))
        AND (?2 IS NULL OR sessions.code IN (SELECT value FROM json_each(?2)))
        AND (?3 IS NULL OR sessions.run_id = ?3)
        AND (?4 IS NULL OR sessions.last_visited_at < ?4)
        AND (?5 IS NULL OR sessions.session_id IN (SELECT value FROM json_each(?5)))
        AND (NOT ?6 OR EXISTS (SELECT 1 FROM backlog AS listed WHERE listed.session_id = sessions.session_id))"
    };
}

/// Leaves alone what a worker works on.
macro_rules! unless_leased {
    () => {
        " AND NOT EXISTS (SELECT 1 FROM backlog AS held
            WHERE held.session_id = sessions.session_id AND held.turn = 'leased')"
    };
}

const LIST: &str = concat!(
    "SELECT ",
    session_columns!(),
    ", backlog.turn, backlog.due_at, backlog.leased_by, backlog.tries
     FROM sessions LEFT JOIN backlog USING (session_id) WHERE ",
    filter!(),
    " AND (?7 IS NULL OR ifnull(sessions.deadline_at, -1) > ?8
        OR ifnull(sessions.deadline_at, -1) = ?8 AND sessions.session_id > ?7)
     ORDER BY ifnull(sessions.deadline_at, -1), sessions.session_id LIMIT ?9"
);

const RETRY_BACKLOG: &str = concat!(
    "INSERT INTO backlog (session_id, integration, deadline_at, turn, due_at)
     SELECT session_id, integration, deadline_at, 'ready', ?7 FROM sessions WHERE ",
    filter!(),
    unless_leased!(),
    " ON CONFLICT (session_id) DO UPDATE SET turn = 'ready', due_at = excluded.due_at, tries = 0"
);

/// An archived session is looked at again, and stays archived.
const RETRY_SESSIONS: &str = concat!(
    "UPDATE sessions SET state = 'pending', code = NULL, message = NULL, accepted_reason = NULL, accepted_at = NULL
     WHERE state <> 'archived' AND ",
    filter!(),
    unless_leased!()
);

const ACCEPT: &str = concat!(
    "UPDATE sessions SET state = 'accepted', accepted_reason = ?7, accepted_at = ?8
     WHERE state NOT IN ('archived', 'accepted') AND ",
    filter!(),
    unless_leased!()
);

const DROP_ACCEPTED: &str = "
    DELETE FROM backlog WHERE turn <> 'leased'
        AND session_id IN (SELECT session_id FROM sessions WHERE state = 'accepted')";

const COUNTS: &str = "SELECT turn, count(*) AS sessions FROM backlog GROUP BY turn";

/// Ids come in no order, so each session touches a page of each index at random: with room for the whole of them, and
/// checkpoints that find many changes of a page, a million take a fraction of the time. Kibibytes; pages of 4 KiB.
const ROOM_FOR_MANY: &str = "PRAGMA cache_size = -131072; PRAGMA wal_autocheckpoint = 16384";

pub(super) type Open = Transaction<'static, Sqlite>;

impl SqliteLedger {
    /// Prepares the connection that writes for many sessions at once.
    pub(super) async fn make_room_for_many(&self) -> Result<(), sqlx::Error> {
        if !self.has_room_for_many.swap(true, Ordering::Relaxed) {
            sqlx::raw_sql(ROOM_FOR_MANY).execute(&self.writer).await?;
        }
        Ok(())
    }

    pub(super) async fn add_to_backlog(
        &self,
        entries: &[BacklogEntry],
        run_id: &RunId,
        at: Timestamp,
    ) -> Result<Added, LedgerError> {
        let failed = || unavailable("add to the backlog");
        let batch = batch_json(entries);
        self.make_room_for_many().await.map_err(failed())?;
        let mut open = self.writer.begin_with("BEGIN IMMEDIATE").await.map_err(failed())?;
        sqlx::query(ADD_SESSIONS)
            .bind(&batch)
            .bind(run_id.as_str())
            .bind(at.unix_millis())
            .execute(&mut *open)
            .await
            .map_err(failed())?;
        let added = sqlx::query(ADD_TO_BACKLOG)
            .bind(&batch)
            .bind(at.unix_millis())
            .execute(&mut *open)
            .await
            .map_err(failed())?
            .rows_affected();
        let mut ended: i64 = 0;
        if added < entries.len() as u64 {
            sqlx::query(ADVANCE).bind(&batch).execute(&mut *open).await.map_err(failed())?;
            ended = sqlx::query_scalar(COUNT_ENDED).bind(&batch).fetch_one(&mut *open).await.map_err(failed())?;
        }
        open.commit().await.map_err(failed())?;
        let ended = u64::try_from(ended).unwrap_or(0);
        Ok(Added { added, ended, waiting: (entries.len() as u64).saturating_sub(added + ended) })
    }

    pub(super) async fn claim_from_backlog(&self, claim: &Claim) -> Result<Vec<Claimed>, LedgerError> {
        let failed = || unavailable("hand out sessions");
        let mut open = self.writer.begin_with("BEGIN IMMEDIATE").await.map_err(failed())?;
        let chosen = match claim.which {
            Which::Due => choose_due(&mut open, claim).await,
            Which::LeftByHolder => choose_left(&mut open, claim).await,
        };
        let chosen = json(&chosen.map_err(failed())?);
        sqlx::query(LEASE)
            .bind(&chosen)
            .bind(claim.holder.as_str())
            .bind(claim.now.plus(claim.lease).unix_millis())
            .execute(&mut *open)
            .await
            .map_err(failed())?;
        let rows = sqlx::query(CLAIMED).bind(&chosen).fetch_all(&mut *open).await.map_err(failed())?;
        open.commit().await.map_err(failed())?;
        rows.iter()
            .map(|row| {
                let columns = Columns(row);
                Ok(Claimed {
                    record: record_of(&columns)?,
                    integration: columns.get("integration")?,
                    tries: columns.get("tries")?,
                })
            })
            .collect()
    }

    pub(super) async fn renew_leases(
        &self,
        holder: &RunId,
        sessions: &[SessionId],
        until: Timestamp,
    ) -> Result<Vec<SessionId>, LedgerError> {
        let held: Vec<String> = sqlx::query_scalar(RENEW)
            .bind(holder.as_str())
            .bind(json(&sessions))
            .bind(until.unix_millis())
            .fetch_all(&self.writer)
            .await
            .map_err(unavailable("renew leases"))?;
        held.iter().map(|id| SessionId::parse(id).map_err(|_| LedgerError::Damaged("session_id"))).collect()
    }

    pub(super) async fn end_one_lease(
        &self,
        holder: &RunId,
        session: &SessionId,
        comes_again: Option<Comeback>,
    ) -> Result<bool, LedgerError> {
        let statement = sqlx::query(if comes_again.is_some() { COMES_AGAIN } else { DONE });
        let mut statement = statement.bind(session.as_str()).bind(holder.as_str());
        if let Some(Comeback { due_at, was_tried }) = comes_again {
            statement = statement.bind(due_at.unix_millis()).bind(was_tried);
        }
        let done = statement.execute(&self.writer).await.map_err(unavailable("end a lease"))?;
        Ok(done.rows_affected() > 0)
    }

    pub(super) async fn list_sessions(
        &self,
        filter: &Filter,
        after: Option<&Cursor>,
        limit: u32,
    ) -> Result<Vec<ListedSession>, LedgerError> {
        let after_deadline = after.map_or(-1, |place| place.deadline_at.map_or(-1, Timestamp::unix_millis));
        filtered(LIST, filter)
            .bind(after.map(|place| place.session_id.as_str()))
            .bind(after_deadline)
            .bind(limit)
            .fetch_all(&self.readers)
            .await
            .map_err(unavailable("be read"))?
            .iter()
            .map(|row| listed_of(&Columns(row)))
            .collect()
    }

    pub(super) async fn retry_sessions(&self, filter: &Filter, at: Timestamp) -> Result<u64, LedgerError> {
        let failed = || unavailable("make sessions pending again");
        let mut open = self.writer.begin_with("BEGIN IMMEDIATE").await.map_err(failed())?;
        // The backlog first: the filter no longer finds a session whose state has changed.
        let opened = filtered(RETRY_BACKLOG, filter)
            .bind(at.unix_millis())
            .execute(&mut *open)
            .await
            .map_err(failed())?
            .rows_affected();
        filtered(RETRY_SESSIONS, filter).execute(&mut *open).await.map_err(failed())?;
        open.commit().await.map_err(failed())?;
        Ok(opened)
    }

    pub(super) async fn accept_sessions(
        &self,
        filter: &Filter,
        reason: &str,
        at: Timestamp,
    ) -> Result<u64, LedgerError> {
        let failed = || unavailable("accept sessions");
        let mut open = self.writer.begin_with("BEGIN IMMEDIATE").await.map_err(failed())?;
        let accepted = filtered(ACCEPT, filter)
            .bind(reason)
            .bind(at.unix_millis())
            .execute(&mut *open)
            .await
            .map_err(failed())?
            .rows_affected();
        sqlx::query(DROP_ACCEPTED).execute(&mut *open).await.map_err(failed())?;
        open.commit().await.map_err(failed())?;
        Ok(accepted)
    }

    pub(super) async fn count_backlog(&self, snapshot: &mut Open) -> Result<BacklogCounts, LedgerError> {
        let rows = sqlx::query(COUNTS).fetch_all(&mut **snapshot).await.map_err(unavailable("be read"))?;
        let mut counts = BacklogCounts::default();
        for row in &rows {
            count_turn(&mut counts, &Columns(row))?;
        }
        Ok(counts)
    }
}

/// Takes over into the backlog what a commit says of when to come again, and of the deadline.
pub(super) async fn follow_commit(open: &mut Open, entry: &SessionEntry) -> Result<(), sqlx::Error> {
    let session = entry.record.session_id.as_str();
    let deadline_at = entry.deadline_at.map(Timestamp::unix_millis);
    if let Some(look_again_at) = entry.look_again_at {
        sqlx::query(LOOK_AGAIN)
            .bind(session)
            .bind(&entry.integration)
            .bind(deadline_at)
            .bind(look_again_at.unix_millis())
            .bind(entry.holder().as_str())
            .execute(&mut **open)
            .await?;
    } else if deadline_at.is_some() && entry.code.is_some() {
        sqlx::query(LEARN_DEADLINE).bind(session).bind(deadline_at).execute(&mut **open).await?;
    }
    Ok(())
}

/// Makes ready what has become due, and chooses the earliest deadlines of all integrations.
async fn choose_due(open: &mut Open, claim: &Claim) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query(WAKE).bind(claim.now.unix_millis()).bind(WAKE_LIMIT).execute(&mut **open).await?;
    let mut next: Vec<(Option<i64>, String)> = Vec::new();
    for integration in &claim.integrations {
        let rows = sqlx::query(NEXT).bind(integration).bind(claim.limit).fetch_all(&mut **open).await?;
        for row in &rows {
            next.push(place_of(row)?);
        }
    }
    next.sort_unstable();
    next.truncate(claim.limit as usize);
    Ok(next.into_iter().map(|(_, session)| session).collect())
}

async fn choose_left(open: &mut Open, claim: &Claim) -> Result<Vec<String>, sqlx::Error> {
    let rows = sqlx::query(LEFT_BY_HOLDER)
        .bind(claim.holder.as_str())
        .bind(json(&retryable_codes().collect::<Vec<_>>()))
        .bind(json(&claim.integrations))
        .bind(claim.limit)
        .fetch_all(&mut **open)
        .await?;
    rows.iter().map(|row| Ok(place_of(row)?.1)).collect()
}

fn place_of(row: &SqliteRow) -> Result<(Option<i64>, String), sqlx::Error> {
    Ok((row.try_get(0)?, row.try_get(1)?))
}

fn batch_json(entries: &[BacklogEntry]) -> String {
    let rows: Vec<_> = entries
        .iter()
        .map(|entry| {
            let record = &entry.record;
            (
                &record.session_id,
                &record.integration,
                record.decided_at.map(Timestamp::unix_millis),
                &record.retention_class,
                &record.reference,
                &entry.integration,
                entry.deadline_at.map(Timestamp::unix_millis),
            )
        })
        .collect();
    json(&rows)
}

fn filtered<'q>(
    statement: &'static str,
    filter: &'q Filter,
) -> sqlx::query::Query<'q, Sqlite, sqlx::sqlite::SqliteArguments> {
    let states = (!filter.states.is_empty()).then(|| json(&filter.states));
    let codes = (!filter.codes.is_empty()).then(|| json(&filter.codes));
    sqlx::query(statement)
        .bind(states)
        .bind(codes)
        .bind(filter.run_id.as_ref().map(RunId::as_str))
        .bind(filter.before.map(Timestamp::unix_millis))
        .bind(filter.sessions.as_ref().map(json))
        .bind(filter.in_backlog)
}
