//! Commits of many visits in one transaction: what [`super::commit`] does for one entry, for one entry of each session at a time.
//!
//! Entries of one session follow one another in rounds. In each round a statement is made once for all of its sessions, so
//! that a batch costs a handful of round trips, however many sessions it holds; rows are locked in the order of ids. One
//! visit is no batch of one: statements over arrays take the server half as much time again.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::Postgres;
use sqlx::postgres::{PgArguments, PgConnection};

use super::commit::{Change, put_media};
use super::connect::Failure;
use super::{PostgresLedger, backlog, plain, runs};
use crate::clock::Timestamp;
use crate::error::Code;
use crate::ledger::rows::{Columns, known_manifest_of, standing_of};
use crate::ledger::{LedgerError, SessionEntry, Standing};
use crate::model::SessionId;

const KNOWN_MANIFESTS: &str = "
    SELECT session_id, coalesce(manifest_sequence, 0) AS manifest_sequence FROM sessions WHERE session_id = ANY($1)";

/// Locks what exists, in an order that no two batches disagree on.
const STANDINGS: &str = "
    SELECT session_id, state, manifest_sequence FROM sessions WHERE session_id = ANY($1) ORDER BY session_id FOR UPDATE";

/// The values 1 to 19 of every entry, as rows; then two more columns.
macro_rules! entries {
    ($more:literal, $names:literal) => {
        concat!(
            "unnest($1::text[], $2::text[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
                $9::text[], $10::bigint[], $11::bigint[], $12::text[], $13::text[], $14::bigint[], $15::bytea[],
                $16::boolean[], $17::boolean[], $18::text[], $19::bigint[], ",
            $more,
            ") AS entry (session_id, asked_integration, decided_at, retention_class, reference, integration, state, code,
                message, upstream_created_at, deadline_at, manifest_key, manifest_version_id, manifest_sequence,
                manifest_sha256, complete, settled, run_id, at, ",
            $names,
            ")"
        )
    };
}

/// As for one session: writes nothing where another worker was faster, and then has waited for it.
const INSERT_SESSIONS: &str = concat!(
    "INSERT INTO sessions (
        session_id, asked_integration, decided_at, retention_class, reference, integration, state, code, message,
        upstream_created_at, deadline_at, manifest_key, manifest_version_id, manifest_sequence, manifest_sha256,
        complete, settled, run_id, first_visited_at, last_visited_at, visits, media, bytes)
    SELECT entry.session_id, entry.asked_integration, entry.decided_at, entry.retention_class, entry.reference,
        entry.integration, entry.state, entry.code, entry.message, entry.upstream_created_at, entry.deadline_at,
        entry.manifest_key, entry.manifest_version_id, entry.manifest_sequence, entry.manifest_sha256, entry.complete,
        entry.settled, entry.run_id, entry.at, entry.at, 1, entry.media, entry.bytes
    FROM ",
    entries!("$20::bigint[], $21::bigint[]", "media, bytes"),
    " ORDER BY entry.session_id COLLATE \"C\"
    ON CONFLICT (session_id) DO NOTHING RETURNING session_id"
);

const UPDATE_SESSIONS: &str = concat!(
    "UPDATE sessions SET
        asked_integration = coalesce(entry.asked_integration, sessions.asked_integration),
        decided_at = coalesce(entry.decided_at, sessions.decided_at),
        retention_class = coalesce(entry.retention_class, sessions.retention_class),
        reference = coalesce(entry.reference, sessions.reference),
        integration = entry.integration,
        state = entry.state,
        code = CASE WHEN takes_cause THEN entry.code ELSE sessions.code END,
        message = CASE WHEN takes_cause THEN entry.message ELSE sessions.message END,
        upstream_created_at = coalesce(entry.upstream_created_at, sessions.upstream_created_at),
        deadline_at = coalesce(entry.deadline_at, sessions.deadline_at),
        manifest_key = CASE WHEN takes_manifest THEN entry.manifest_key ELSE sessions.manifest_key END,
        manifest_version_id =
            CASE WHEN takes_manifest THEN entry.manifest_version_id ELSE sessions.manifest_version_id END,
        manifest_sequence = CASE WHEN takes_manifest THEN entry.manifest_sequence ELSE sessions.manifest_sequence END,
        manifest_sha256 = CASE WHEN takes_manifest THEN entry.manifest_sha256 ELSE sessions.manifest_sha256 END,
        complete = CASE WHEN takes_manifest THEN entry.complete ELSE sessions.complete END,
        settled = CASE WHEN takes_manifest THEN entry.settled ELSE sessions.settled END,
        (media, bytes) = (
            SELECT count(*), coalesce(sum(size_bytes), 0)::bigint FROM media WHERE media.session_id = sessions.session_id),
        visits = sessions.visits + 1,
        run_id = entry.run_id,
        last_visited_at = entry.at
    FROM ",
    entries!("$20::boolean[], $21::boolean[]", "takes_cause, takes_manifest"),
    " WHERE sessions.session_id = entry.session_id"
);

impl PostgresLedger {
    pub(super) async fn known_manifests_once(
        &self,
        sessions: &[SessionId],
    ) -> Result<BTreeMap<SessionId, u32>, Failure> {
        let ids: Vec<&str> = sessions.iter().map(SessionId::as_str).collect();
        let rows = sqlx::query(KNOWN_MANIFESTS).bind(ids).fetch_all(&self.pool).await?;
        Ok(rows.iter().map(|row| known_manifest_of(&Columns(row))).collect::<Result<_, _>>()?)
    }

    pub(super) async fn commit_all_once(&self, entries: &[SessionEntry]) -> Result<(), Failure> {
        let mut open = self.pool.begin().await?;
        for entry in entries {
            runs::take_line(&mut open, entry).await?;
        }
        for round in rounds(entries) {
            take_round(&mut open, &round).await?;
        }
        open.commit().await?;
        Ok(())
    }
}

/// The first entry of each session, the second of each that has one, and so on; each round in the order of ids.
fn rounds(entries: &[SessionEntry]) -> Vec<BTreeMap<&str, &SessionEntry>> {
    let mut rounds: Vec<BTreeMap<&str, &SessionEntry>> = Vec::new();
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for entry in entries {
        let id = entry.record.session_id.as_str();
        let place = seen.entry(id).or_default();
        if rounds.len() == *place {
            rounds.push(BTreeMap::new());
        }
        rounds[*place].insert(id, entry);
        *place += 1;
    }
    rounds
}

async fn take_round(open: &mut PgConnection, round: &BTreeMap<&str, &SessionEntry>) -> Result<(), Failure> {
    let mut standing = standings(open, &round.keys().copied().collect::<Vec<_>>()).await?;
    let unknown = round.iter().filter(|(id, _)| !standing.contains_key(**id));
    let mut changes: Vec<Change<'_>> = unknown.map(|(_, entry)| Change::of(entry, None)).collect();
    if !changes.is_empty() {
        let inserted = insert(open, &changes).await?;
        if inserted.len() < changes.len() {
            let (new, others) = changes.into_iter().partition(|change| inserted.contains(change.id()));
            changes = new;
            let others: Vec<Change<'_>> = others;
            standing.extend(standings(open, &others.iter().map(Change::id).collect::<Vec<_>>()).await?);
        }
    }
    let known = round.iter().filter_map(|(id, entry)| Some(Change::of(entry, Some(*standing.get(*id)?))));
    let updates: Vec<Change<'_>> = known.collect();
    put_media(open, changes.iter().chain(&updates)).await?;
    if !updates.is_empty() {
        let query = values(UPDATE_SESSIONS, &updates)
            .bind(updates.iter().map(|change| change.made.takes_cause).collect::<Vec<_>>())
            .bind(updates.iter().map(|change| change.made.takes_manifest).collect::<Vec<_>>());
        query.execute(&mut *open).await?;
    }
    for entry in round.values() {
        backlog::follow_commit(open, entry).await?;
    }
    Ok(())
}

async fn standings(open: &mut PgConnection, ids: &[&str]) -> Result<BTreeMap<String, Standing>, Failure> {
    let rows = sqlx::query(STANDINGS).bind(ids).fetch_all(open).await?;
    let read = rows.iter().map(|row| {
        let columns = Columns(row);
        Ok((columns.get("session_id")?, standing_of(&columns)?))
    });
    Ok(read.collect::<Result<_, LedgerError>>()?)
}

/// Inserts sessions, and returns those that nobody else had inserted.
async fn insert(open: &mut PgConnection, changes: &[Change<'_>]) -> Result<BTreeSet<String>, Failure> {
    let query = values(INSERT_SESSIONS, changes)
        .bind(changes.iter().map(Change::items).collect::<Vec<_>>())
        .bind(changes.iter().map(Change::bytes).collect::<Vec<_>>());
    let rows = query.fetch_all(open).await?;
    Ok(rows.iter().map(|row| Columns(row).get("session_id")).collect::<Result<_, _>>()?)
}

/// Binds the values 1 to 19 of all.
fn values<'q>(statement: &'static str, changes: &[Change<'q>]) -> sqlx::query::Query<'q, Postgres, PgArguments> {
    fn all<'a, 'q, T>(changes: &'a [Change<'q>], value: impl Fn(&'a Change<'q>) -> T) -> Vec<T> {
        changes.iter().map(value).collect()
    }
    sqlx::query(statement)
        .bind(all(changes, Change::id))
        .bind(all(changes, |one| one.entry.record.integration.as_deref().map(plain)))
        .bind(all(changes, |one| one.entry.record.decided_at.map(Timestamp::unix_millis)))
        .bind(all(changes, |one| one.entry.record.retention_class.as_deref().map(plain)))
        .bind(all(changes, |one| one.entry.record.reference.as_deref().map(plain)))
        .bind(all(changes, |one| plain(&one.entry.integration)))
        .bind(all(changes, |one| one.made.state.as_str()))
        .bind(all(changes, |one| one.entry.code.map(Code::as_str)))
        .bind(all(changes, |one| one.entry.message.as_deref().map(plain)))
        .bind(all(changes, |one| one.entry.upstream_created_at.map(Timestamp::unix_millis)))
        .bind(all(changes, |one| one.entry.deadline_at.map(Timestamp::unix_millis)))
        .bind(all(changes, |one| one.manifest().map(|m| m.key.as_str())))
        .bind(all(changes, |one| one.manifest().and_then(|m| m.version_id.as_deref())))
        .bind(all(changes, |one| one.manifest().map(|m| i64::from(m.sequence))))
        .bind(all(changes, |one| one.manifest().map(|m| m.sha256.as_bytes().as_slice())))
        .bind(all(changes, |one| one.made.takes_manifest && one.entry.complete))
        .bind(all(changes, |one| one.made.takes_manifest && one.entry.settled))
        .bind(all(changes, |one| one.entry.run_id.as_str()))
        .bind(all(changes, |one| one.entry.at.unix_millis()))
}
