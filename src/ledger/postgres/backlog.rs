//! The backlog in PostgreSQL: adding, handing out, releasing.
//!
//! A worker locks the rows it takes and skips those that others have locked, so claims never wait for one another. What is
//! next is read from an index that holds nothing but sessions that are ready. Whoever locks rows of both tables locks the
//! session first.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::{MutexGuard, PoisonError};

use sqlx::Postgres;
use sqlx::postgres::{PgArguments, PgConnection, PgRow};

use super::connect::Failure;
use super::{PostgresLedger, code_texts, plain};
use crate::clock::Timestamp;
use crate::ledger::backlog::{
    Added, BacklogCounts, BacklogEntry, Claim, Claimed, Comeback, Cursor, Filter, ListedSession, Which,
};
use crate::ledger::columns::session_columns;
use crate::ledger::rows::{Columns, count_turn, listed_of, record_of};
use crate::ledger::{LedgerError, SessionEntry};
use crate::model::{RunId, SessionId};

/// How many waits that are over and leases that have lapsed one claim makes ready: enough to keep up with any number of
/// workers, few enough for one short statement.
const WAKE_LIMIT: i64 = 1000;

/// How many claims go on where the one before ended until one looks at the whole queue again. A session that became due in
/// the meantime, or was added with an earlier deadline, waits no longer than this. In between, a claim does not walk over
/// what the index still holds of all sessions handed out since the last vacuum, which no short queue would notice, but one
/// of a million does.
const CLAIMS_ON_END: u32 = 32;

/// Where the index of the queue sorts an unknown deadline, as the statements of claims say.
const UNKNOWN: i64 = -1;

/// Where a listing sorts it. Another number, so that neither is ever planned over the index of the other.
const UNKNOWN_LISTED: i64 = 0;

/// A place in the queue: the deadline, then the id.
type Place = (i64, String);

/// Before every other place.
const HEAD: Place = (i64::MIN, String::new());

/// Where this process is in the queue of each integration. Only a hint: nothing is lost with it.
#[derive(Debug, Default)]
pub(super) struct Queue {
    claims: u32,
    places: HashMap<String, Place>,
}

impl Queue {
    /// Returns where the queues of these integrations go on; every so often that is their head.
    fn places(&mut self, integrations: &[String]) -> Vec<Place> {
        self.claims += 1;
        if self.claims >= CLAIMS_ON_END {
            self.reset();
        }
        let place = |name| self.places.get(name).cloned().unwrap_or(HEAD);
        integrations.iter().map(place).collect()
    }

    fn reset(&mut self) {
        *self = Self::default();
    }

    fn go_on_behind(&mut self, found: &[(Place, Claimed)]) {
        for (place, claimed) in found {
            match self.places.get_mut(&claimed.integration) {
                Some(known) if *known >= *place => {}
                Some(known) => known.clone_from(place),
                None => {
                    self.places.insert(claimed.integration.clone(), place.clone());
                }
            }
        }
    }
}

const ADD_SESSIONS: &str = "
    INSERT INTO sessions (session_id, asked_integration, decided_at, retention_class, reference, integration, deadline_at,
        state, complete, settled, media, bytes, visits, run_id, first_visited_at, last_visited_at)
    SELECT batch.*, 'pending', false, false, 0, 0, 0, $8, $9, $9
    FROM unnest($1::text[], $2::text[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::bigint[]) AS batch
    ON CONFLICT (session_id) DO UPDATE SET
        asked_integration = coalesce(excluded.asked_integration, sessions.asked_integration),
        decided_at = coalesce(excluded.decided_at, sessions.decided_at),
        retention_class = coalesce(excluded.retention_class, sessions.retention_class),
        reference = coalesce(excluded.reference, sessions.reference),
        deadline_at = least(excluded.deadline_at, sessions.deadline_at)
    WHERE (coalesce(excluded.asked_integration, sessions.asked_integration),
            coalesce(excluded.decided_at, sessions.decided_at),
            coalesce(excluded.retention_class, sessions.retention_class),
            coalesce(excluded.reference, sessions.reference),
            least(excluded.deadline_at, sessions.deadline_at))
        IS DISTINCT FROM (sessions.asked_integration, sessions.decided_at, sessions.retention_class, sessions.reference,
            sessions.deadline_at)";

const ADD_TO_BACKLOG: &str = "
    INSERT INTO backlog (session_id, integration, deadline_at, turn, due_at)
    SELECT session_id, batch.integration, sessions.deadline_at, 'ready', $3
    FROM unnest($1::text[], $2::text[]) AS batch (session_id, integration) JOIN sessions USING (session_id)
    WHERE sessions.state = 'pending' OR sessions.state = 'archived' AND NOT sessions.settled
    ON CONFLICT (session_id) DO NOTHING";

/// Sessions that an addition leaves as they are.
const COUNT_ENDED: &str = "
    SELECT count(*) FROM sessions
    WHERE session_id = ANY($1) AND state <> 'pending' AND NOT (state = 'archived' AND NOT settled)";

/// An earlier deadline that a request gave moves its session forward.
const ADVANCE: &str = "
    UPDATE backlog SET deadline_at = sessions.deadline_at
    FROM sessions
    WHERE sessions.session_id = ANY($1) AND backlog.session_id = sessions.session_id
        AND backlog.deadline_at IS DISTINCT FROM sessions.deadline_at";

const WAKE: &str = "
    WITH over_now AS MATERIALIZED (
        SELECT session_id FROM backlog WHERE turn <> 'ready' AND due_at <= $1
        ORDER BY due_at LIMIT $2 FOR UPDATE SKIP LOCKED)
    UPDATE backlog SET turn = 'ready', tries = tries + (turn = 'leased')::integer, leased_by = NULL
    FROM over_now WHERE backlog.session_id = over_now.session_id";

/// Leases what was chosen: takes the rest of the statement that says what.
macro_rules! lease {
    () => {
        " UPDATE backlog SET turn = 'leased', leased_by = $1, due_at = $2
        FROM chosen JOIN sessions USING (session_id)
        WHERE backlog.session_id = chosen.session_id
        RETURNING sessions.session_id, sessions.asked_integration, sessions.decided_at, sessions.retention_class,
            sessions.reference, backlog.integration, backlog.tries, backlog.deadline_at"
    };
}

/// Each integration's next ones from a place on, and of these the earliest; the others are free again when the statement
/// ends.
const CLAIM_DUE: &str = concat!(
    "WITH next AS MATERIALIZED (
        SELECT one.session_id, one.deadline
        FROM unnest($3::text[], $5::bigint[], $6::text[]) AS asked (integration, deadline, session_id)
        CROSS JOIN LATERAL (
            SELECT backlog.session_id, coalesce(backlog.deadline_at, -1) AS deadline FROM backlog
            WHERE turn = 'ready' AND backlog.integration = asked.integration
                AND (coalesce(backlog.deadline_at, -1), backlog.session_id) >= (asked.deadline, asked.session_id)
            ORDER BY coalesce(backlog.deadline_at, -1), backlog.session_id LIMIT $4 FOR UPDATE SKIP LOCKED) AS one),
    chosen AS (SELECT session_id FROM next ORDER BY deadline, session_id LIMIT $4)",
    lease!()
);

const CLAIM_LEFT: &str = concat!(
    "WITH chosen AS MATERIALIZED (
        SELECT backlog.session_id FROM sessions JOIN backlog USING (session_id)
        WHERE sessions.run_id = $1 AND sessions.state = 'failed'
            AND sessions.code IS NOT NULL AND sessions.code = ANY($5)
            AND backlog.integration = ANY($3) AND backlog.turn <> 'leased'
        ORDER BY sessions.session_id LIMIT $4 FOR UPDATE OF backlog SKIP LOCKED)",
    lease!()
);

const RENEW: &str = "
    UPDATE backlog SET due_at = $3 WHERE session_id = ANY($2) AND leased_by = $1 RETURNING session_id";

const DONE: &str = "DELETE FROM backlog WHERE session_id = $1 AND leased_by = $2";

const COMES_AGAIN: &str = "
    UPDATE backlog SET turn = CASE WHEN $4 = 1 THEN 'waiting' ELSE 'ready' END, leased_by = NULL, due_at = $3,
        tries = tries + $4
    WHERE session_id = $1 AND leased_by = $2";

/// Whoever else holds the session will say what becomes of it.
const LOOK_AGAIN: &str = "
    INSERT INTO backlog (session_id, integration, deadline_at, turn, due_at) VALUES ($1, $2, $3, 'waiting', $4)
    ON CONFLICT (session_id) DO UPDATE SET
        integration = excluded.integration, deadline_at = coalesce(excluded.deadline_at, backlog.deadline_at),
        turn = 'waiting', due_at = excluded.due_at, leased_by = NULL, tries = 0
    WHERE backlog.leased_by IS NULL OR backlog.leased_by = $5";

const LEARN_DEADLINE: &str = "
    UPDATE backlog SET deadline_at = $2 WHERE session_id = $1 AND deadline_at IS DISTINCT FROM $2";

/// What a [`Filter`] means; takes the first five parameters.
macro_rules! filter {
    () => {
        " ($1::text[] IS NULL OR sessions.state = ANY($1))
        AND ($2::text[] IS NULL OR sessions.code = ANY($2))
        AND ($3::text IS NULL OR sessions.run_id = $3)
        AND ($4::bigint IS NULL OR sessions.last_visited_at < $4)
        AND ($5::text[] IS NULL OR sessions.session_id = ANY($5))"
    };
}

/// Leaves alone what a worker works on.
macro_rules! unless_leased {
    () => {
        " AND NOT EXISTS (
            SELECT FROM backlog AS held WHERE held.session_id = sessions.session_id AND held.turn = 'leased')"
    };
}

/// In the order of the backlog, which is what its index has, and what a place in the listing names.
const LIST_BACKLOG: &str = concat!(
    "SELECT ",
    session_columns!(),
    ", backlog.deadline_at AS queue_deadline_at, backlog.turn, backlog.due_at, backlog.leased_by, backlog.tries
    FROM backlog JOIN sessions USING (session_id)
    WHERE (coalesce(backlog.deadline_at, 0), backlog.session_id) > ($6, $7) AND",
    filter!(),
    " ORDER BY coalesce(backlog.deadline_at, 0), backlog.session_id LIMIT $8"
);

const LIST_ALL: &str = concat!(
    "SELECT ",
    session_columns!(),
    ", sessions.deadline_at AS queue_deadline_at, backlog.turn, backlog.due_at, backlog.leased_by, backlog.tries
    FROM sessions LEFT JOIN backlog USING (session_id)
    WHERE (coalesce(sessions.deadline_at, 0), sessions.session_id) > ($6, $7) AND",
    filter!(),
    " ORDER BY coalesce(sessions.deadline_at, 0), sessions.session_id LIMIT $8"
);

/// An archived session is looked at again, and stays archived.
const RETRY: &str = concat!(
    "WITH meant AS MATERIALIZED (
        SELECT session_id, integration, deadline_at FROM sessions
        WHERE (NOT $6 OR EXISTS (SELECT FROM backlog AS listed WHERE listed.session_id = sessions.session_id)) AND",
    filter!(),
    unless_leased!(),
    " ORDER BY session_id FOR UPDATE),
    queued AS (
        INSERT INTO backlog (session_id, integration, deadline_at, turn, due_at)
        SELECT session_id, integration, deadline_at, 'ready', $7 FROM meant
        ON CONFLICT (session_id) DO UPDATE SET turn = 'ready', due_at = excluded.due_at, tries = 0
        WHERE backlog.turn <> 'leased'
        RETURNING session_id),
    opened AS (
        UPDATE sessions
        SET state = 'pending', code = NULL, message = NULL, accepted_reason = NULL, accepted_at = NULL
        FROM queued WHERE sessions.session_id = queued.session_id AND sessions.state <> 'archived')
    SELECT count(*) AS sessions FROM queued"
);

const ACCEPT: &str = concat!(
    "UPDATE sessions SET state = 'accepted', accepted_reason = $7, accepted_at = $8
    WHERE state NOT IN ('archived', 'accepted')
        AND (NOT $6 OR EXISTS (SELECT FROM backlog AS listed WHERE listed.session_id = sessions.session_id)) AND",
    filter!(),
    unless_leased!()
);

const DROP_ACCEPTED: &str = "
    DELETE FROM backlog USING sessions
    WHERE backlog.turn <> 'leased' AND sessions.session_id = backlog.session_id AND sessions.state = 'accepted'";

const COUNTS: &str = "SELECT turn, count(*) AS sessions FROM backlog GROUP BY turn";

impl PostgresLedger {
    pub(super) async fn add_once(
        &self,
        entries: &[BacklogEntry],
        run_id: &RunId,
        at: Timestamp,
    ) -> Result<Added, Failure> {
        let batch = once_each(entries);
        let ids: Vec<_> = batch.keys().copied().collect();
        let integrations: Vec<_> = batch.values().map(|entry| plain(&entry.integration)).collect();
        let records = || batch.values().map(|entry| &entry.record);
        let mut open = self.pool.begin().await?;
        sqlx::query(ADD_SESSIONS)
            .bind(&ids)
            .bind(records().map(|record| record.integration.as_deref().map(plain)).collect::<Vec<_>>())
            .bind(records().map(|record| record.decided_at.map(Timestamp::unix_millis)).collect::<Vec<_>>())
            .bind(records().map(|record| record.retention_class.as_deref().map(plain)).collect::<Vec<_>>())
            .bind(records().map(|record| record.reference.as_deref().map(plain)).collect::<Vec<_>>())
            .bind(&integrations)
            .bind(batch.values().map(|entry| entry.deadline_at.map(Timestamp::unix_millis)).collect::<Vec<_>>())
            .bind(run_id.as_str())
            .bind(at.unix_millis())
            .execute(&mut *open)
            .await?;
        let added = sqlx::query(ADD_TO_BACKLOG)
            .bind(&ids)
            .bind(&integrations)
            .bind(at.unix_millis())
            .execute(&mut *open)
            .await?
            .rows_affected();
        let mut ended: i64 = 0;
        if added < ids.len() as u64 {
            sqlx::query(ADVANCE).bind(&ids).execute(&mut *open).await?;
            ended = sqlx::query_scalar(COUNT_ENDED).bind(&ids).fetch_one(&mut *open).await?;
        }
        open.commit().await?;
        self.queue().reset();
        let ended = u64::try_from(ended).unwrap_or(0);
        Ok(Added { added, ended, waiting: (entries.len() as u64).saturating_sub(added + ended) })
    }

    pub(super) async fn claim_once(&self, claim: &Claim) -> Result<Vec<Claimed>, Failure> {
        match claim.which {
            Which::Due => self.claim_due(claim).await,
            Which::LeftByHolder => {
                let rows = lease(CLAIM_LEFT, claim, claim.limit).bind(code_texts()).fetch_all(&self.pool).await?;
                Ok(rows.iter().map(|row| claimed_of(row).map(|(_, claimed)| claimed)).collect::<Result<_, _>>()?)
            }
        }
    }

    /// Continues where the last claim ended, and reads the whole queue now and then and whenever that is not enough.
    async fn claim_due(&self, claim: &Claim) -> Result<Vec<Claimed>, Failure> {
        let mut found = Vec::new();
        let places = self.queue().places(&claim.integrations);
        let is_whole = places.iter().all(|place| *place == HEAD);
        if !is_whole {
            self.lease_due(claim, &places, &mut found).await?;
        }
        if is_whole || found.len() < claim.limit as usize {
            sqlx::query(WAKE).bind(claim.now.unix_millis()).bind(WAKE_LIMIT).execute(&self.pool).await?;
            self.queue().reset();
            let heads = vec![HEAD; claim.integrations.len()];
            self.lease_due(claim, &heads, &mut found).await?;
        }
        // An update returns rows in no order of ours.
        found.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        Ok(found.into_iter().map(|(_, claimed)| claimed).collect())
    }

    /// Takes what is still missing, from these places on.
    async fn lease_due(
        &self,
        claim: &Claim,
        places: &[Place],
        found: &mut Vec<(Place, Claimed)>,
    ) -> Result<(), Failure> {
        let missing = claim.limit.saturating_sub(u32::try_from(found.len()).unwrap_or(u32::MAX));
        let rows = lease(CLAIM_DUE, claim, missing)
            .bind(places.iter().map(|(deadline, _)| *deadline).collect::<Vec<_>>())
            .bind(places.iter().map(|(_, session)| session.as_str()).collect::<Vec<_>>())
            .fetch_all(&self.pool)
            .await?;
        let rows = rows.iter().map(claimed_of).collect::<Result<Vec<_>, _>>()?;
        self.queue().go_on_behind(&rows);
        found.extend(rows);
        Ok(())
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn renew_once(
        &self,
        holder: &RunId,
        sessions: &[SessionId],
        until: Timestamp,
    ) -> Result<Vec<SessionId>, Failure> {
        let held: Vec<String> = sqlx::query_scalar(RENEW)
            .bind(holder.as_str())
            .bind(sessions.iter().map(SessionId::as_str).collect::<Vec<_>>())
            .bind(until.unix_millis())
            .fetch_all(&self.pool)
            .await?;
        let held = held.iter().map(|id| SessionId::parse(id).map_err(|_| LedgerError::Damaged("session_id")));
        Ok(held.collect::<Result<_, _>>()?)
    }

    pub(super) async fn end_lease_once(
        &self,
        holder: &RunId,
        session: &SessionId,
        comes_again: Option<Comeback>,
    ) -> Result<bool, sqlx::Error> {
        let statement = sqlx::query(if comes_again.is_some() { COMES_AGAIN } else { DONE });
        let mut statement = statement.bind(session.as_str()).bind(holder.as_str());
        if let Some(Comeback { due_at, was_tried }) = comes_again {
            statement = statement.bind(due_at.unix_millis()).bind(i64::from(was_tried));
        }
        Ok(statement.execute(&self.pool).await?.rows_affected() > 0)
    }

    pub(super) async fn list_once(
        &self,
        filter: &Filter,
        after: Option<&Cursor>,
        limit: u32,
    ) -> Result<Vec<ListedSession>, Failure> {
        let (deadline_at, session) = match after {
            None => (i64::MIN, ""),
            Some(place) => {
                (place.deadline_at.map_or(UNKNOWN_LISTED, Timestamp::unix_millis), place.session_id.as_str())
            }
        };
        let rows = filtered(if filter.in_backlog { LIST_BACKLOG } else { LIST_ALL }, filter)
            .bind(deadline_at)
            .bind(session)
            .bind(i64::from(limit))
            .fetch_all(&self.pool)
            .await?;
        Ok(rows.iter().map(listed).collect::<Result<_, _>>()?)
    }

    pub(super) async fn retry_once(&self, filter: &Filter, at: Timestamp) -> Result<u64, Failure> {
        let row = filtered(RETRY, filter).bind(filter.in_backlog).bind(at.unix_millis()).fetch_one(&self.pool).await?;
        self.queue().reset();
        Ok(Columns(&row).count("sessions")?)
    }

    pub(super) async fn accept_once(&self, filter: &Filter, reason: &str, at: Timestamp) -> Result<u64, Failure> {
        let mut open = self.pool.begin().await?;
        let accepted = filtered(ACCEPT, filter)
            .bind(filter.in_backlog)
            .bind(plain(reason))
            .bind(at.unix_millis())
            .execute(&mut *open)
            .await?
            .rows_affected();
        sqlx::query(DROP_ACCEPTED).persistent(false).execute(&mut *open).await?;
        open.commit().await?;
        Ok(accepted)
    }
}

/// Takes over into the backlog what a commit says of when to come again, and of the deadline.
pub(super) async fn follow_commit(open: &mut PgConnection, entry: &SessionEntry) -> Result<(), sqlx::Error> {
    let session = entry.record.session_id.as_str();
    let deadline_at = entry.deadline_at.map(Timestamp::unix_millis);
    if let Some(look_again_at) = entry.look_again_at {
        sqlx::query(LOOK_AGAIN)
            .bind(session)
            .bind(plain(&entry.integration))
            .bind(deadline_at)
            .bind(look_again_at.unix_millis())
            .bind(entry.holder().as_str())
            .execute(open)
            .await?;
    } else if deadline_at.is_some() && entry.code.is_some() {
        sqlx::query(LEARN_DEADLINE).bind(session).bind(deadline_at).execute(open).await?;
    }
    Ok(())
}

/// Counts the backlog by turn.
pub(super) async fn counts(snapshot: &mut PgConnection) -> Result<BacklogCounts, Failure> {
    let mut counts = BacklogCounts::default();
    for row in sqlx::query(COUNTS).fetch_all(snapshot).await? {
        count_turn(&mut counts, &Columns(&row))?;
    }
    Ok(counts)
}

/// Brings together what one batch says of a session, as it would be taken over line by line. In the order of ids, so that
/// two additions never wait for each other crosswise.
fn once_each(entries: &[BacklogEntry]) -> BTreeMap<&str, BacklogEntry> {
    let mut batch: BTreeMap<&str, BacklogEntry> = BTreeMap::new();
    for entry in entries {
        match batch.entry(entry.record.session_id.as_str()) {
            Entry::Vacant(place) => {
                place.insert(entry.clone());
            }
            Entry::Occupied(mut place) => {
                let (known, record) = (place.get_mut(), &entry.record);
                known.record.integration = record.integration.clone().or(known.record.integration.take());
                known.record.decided_at = record.decided_at.or(known.record.decided_at);
                known.record.retention_class = record.retention_class.clone().or(known.record.retention_class.take());
                known.record.reference = record.reference.clone().or(known.record.reference.take());
                known.deadline_at = [known.deadline_at, entry.deadline_at].into_iter().flatten().min();
            }
        }
    }
    batch
}

/// Binds what a filter means. Planned anew each time: which index serves depends on what was asked.
fn filtered<'q>(statement: &'static str, filter: &'q Filter) -> sqlx::query::Query<'q, Postgres, PgArguments> {
    let states = filter.states.iter().map(|state| state.as_str()).collect::<Vec<_>>();
    let codes = filter.codes.iter().map(|code| plain(code)).collect::<Vec<_>>();
    let sessions = filter.sessions.as_ref().map(|ids| ids.iter().map(SessionId::as_str).collect::<Vec<_>>());
    sqlx::query(statement)
        .persistent(false)
        .bind((!states.is_empty()).then_some(states))
        .bind((!codes.is_empty()).then_some(codes))
        .bind(filter.run_id.as_ref().map(RunId::as_str))
        .bind(filter.before.map(Timestamp::unix_millis))
        .bind(sessions)
}

/// Binds the values 1 to 4 of a statement that leases.
fn lease<'q>(statement: &'static str, claim: &'q Claim, limit: u32) -> sqlx::query::Query<'q, Postgres, PgArguments> {
    sqlx::query(statement)
        .bind(claim.holder.as_str())
        .bind(claim.now.plus(claim.lease).unix_millis())
        .bind(claim.integrations.iter().map(|name| plain(name)).collect::<Vec<_>>())
        .bind(i64::from(limit))
}

fn claimed_of(row: &PgRow) -> Result<(Place, Claimed), LedgerError> {
    let columns = Columns(row);
    let claimed = Claimed {
        record: record_of(&columns)?,
        integration: columns.get("integration")?,
        tries: columns.get("tries")?,
    };
    let deadline = columns.get::<Option<i64>>("deadline_at")?.unwrap_or(UNKNOWN);
    Ok(((deadline, claimed.record.session_id.as_str().to_owned()), claimed))
}

fn listed(row: &PgRow) -> Result<ListedSession, LedgerError> {
    let columns = Columns(row);
    let mut listed = listed_of(&columns)?;
    listed.row.deadline_at = columns.time_if_known("queue_deadline_at")?;
    Ok(listed)
}
