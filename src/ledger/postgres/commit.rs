//! Commits: the end of one visit, in one transaction. What two workers say of one session is put in order by a lock on
//! its row.

use std::collections::BTreeMap;
use std::iter;

use sqlx::postgres::{PgArguments, PgConnection};
use sqlx::{Postgres, Transaction};

use super::connect::Failure;
use super::{PostgresLedger, backlog, plain, runs, saturated};
use crate::clock::Timestamp;
use crate::error::Code;
use crate::ledger::rows::{Columns, standing_of};
use crate::ledger::{ManifestRef, MediaRow, Move, SessionEntry, Standing, State};
use crate::model::SessionId;

/// Locks what exists, so that what was read here cannot change before it is written.
const STANDING: &str = "SELECT state, manifest_sequence FROM sessions WHERE session_id = $1 FOR UPDATE";

/// One statement for all items; rows that say the same already are not written again.
const PUT_MEDIA: &str = "
    INSERT INTO media (session_id, media_id, attempt_id, kind, key, version_id, size_bytes, sha256)
    SELECT item.*
    FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bigint[], $8::bytea[]) AS item
    ON CONFLICT (session_id, media_id) DO UPDATE SET
        attempt_id = excluded.attempt_id, kind = excluded.kind, key = excluded.key,
        version_id = excluded.version_id, size_bytes = excluded.size_bytes, sha256 = excluded.sha256
    WHERE (media.attempt_id, media.kind, media.key, media.version_id, media.size_bytes, media.sha256)
        IS DISTINCT FROM (excluded.attempt_id, excluded.kind, excluded.key, excluded.version_id, excluded.size_bytes,
            excluded.sha256)";

/// Takes the same values as [`UPDATE_SESSION`], but for the last two: the number of its items and of their bytes, of which
/// a new session has none but these. Writes nothing if another worker was faster, and then has waited for it.
const INSERT_SESSION: &str = "
    INSERT INTO sessions (
        session_id, asked_integration, decided_at, retention_class, reference, integration, state, code, message,
        upstream_created_at, deadline_at, manifest_key, manifest_version_id, manifest_sequence, manifest_sha256,
        complete, settled, media, bytes, visits, run_id, first_visited_at, last_visited_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $20, $21, 1, $18, $19, $19)
    ON CONFLICT (session_id) DO NOTHING";

/// `$20` and `$21` are what [`Standing::after`] decided: whether the cause and the manifest are taken.
const UPDATE_SESSION: &str = "
    UPDATE sessions SET
        asked_integration = coalesce($2, asked_integration),
        decided_at = coalesce($3, decided_at),
        retention_class = coalesce($4, retention_class),
        reference = coalesce($5, reference),
        integration = $6,
        state = $7,
        code = CASE WHEN $20 THEN $8 ELSE code END,
        message = CASE WHEN $20 THEN $9 ELSE message END,
        upstream_created_at = coalesce($10, upstream_created_at),
        deadline_at = coalesce($11, deadline_at),
        manifest_key = CASE WHEN $21 THEN $12 ELSE manifest_key END,
        manifest_version_id = CASE WHEN $21 THEN $13 ELSE manifest_version_id END,
        manifest_sequence = CASE WHEN $21 THEN $14 ELSE manifest_sequence END,
        manifest_sha256 = CASE WHEN $21 THEN $15 ELSE manifest_sha256 END,
        complete = CASE WHEN $21 THEN $16 ELSE complete END,
        settled = CASE WHEN $21 THEN $17 ELSE settled END,
        (media, bytes) = (
            SELECT count(*), coalesce(sum(size_bytes), 0)::bigint FROM media WHERE media.session_id = $1),
        visits = visits + 1,
        run_id = $18,
        last_visited_at = $19
    WHERE session_id = $1";

/// An entry and what it changes.
#[derive(Debug)]
pub(super) struct Change<'a> {
    pub(super) entry: &'a SessionEntry,
    pub(super) made: Move,
    /// Its items, each once.
    media: BTreeMap<&'a str, &'a MediaRow>,
}

impl<'a> Change<'a> {
    pub(super) fn of(entry: &'a SessionEntry, standing: Option<Standing>) -> Self {
        let made = Standing::after(standing, entry.state, entry.manifest.as_ref().map(|manifest| manifest.sequence));
        let media = if made.takes_manifest { entry.media.as_slice() } else { &[] };
        Self { entry, made, media: media.iter().map(|item| (item.media_id.as_str(), item)).collect() }
    }

    pub(super) fn id(&self) -> &'a str {
        self.entry.record.session_id.as_str()
    }

    pub(super) fn manifest(&self) -> Option<&'a ManifestRef> {
        self.entry.manifest.as_ref().filter(|_| self.made.takes_manifest)
    }

    /// Counts the items.
    pub(super) fn items(&self) -> i64 {
        saturated(self.media.len() as u64)
    }

    /// Adds up their bytes.
    pub(super) fn bytes(&self) -> i64 {
        saturated(self.media.values().map(|item| item.size_bytes).fold(0, u64::saturating_add))
    }
}

impl PostgresLedger {
    pub(super) async fn commit_once(&self, entry: &SessionEntry) -> Result<State, Failure> {
        let id = &entry.record.session_id;
        let mut open = self.pool.begin().await?;
        runs::take_line(&mut open, entry).await?;
        let mut standing = standing(&mut open, id).await?;
        if standing.is_none() {
            let change = Change::of(entry, None);
            let inserted = values(INSERT_SESSION, &change).bind(change.items()).bind(change.bytes());
            if inserted.execute(&mut *open).await?.rows_affected() > 0 {
                put_media(&mut open, iter::once(&change)).await?;
                return end(open, &change).await;
            }
            standing = self::standing(&mut open, id).await?;
        }
        let change = Change::of(entry, standing);
        put_media(&mut open, iter::once(&change)).await?;
        let updated = values(UPDATE_SESSION, &change).bind(change.made.takes_cause).bind(change.made.takes_manifest);
        updated.execute(&mut *open).await?;
        end(open, &change).await
    }
}

async fn end(mut open: Transaction<'_, Postgres>, change: &Change<'_>) -> Result<State, Failure> {
    backlog::follow_commit(&mut open, change.entry).await?;
    open.commit().await?;
    Ok(change.made.state)
}

async fn standing(open: &mut PgConnection, id: &SessionId) -> Result<Option<Standing>, Failure> {
    let row = sqlx::query(STANDING).bind(id.as_str()).fetch_optional(open).await?;
    Ok(row.map(|row| standing_of(&Columns(&row))).transpose()?)
}

/// Binds the values 1 to 19.
fn values<'q>(statement: &'static str, change: &Change<'q>) -> sqlx::query::Query<'q, Postgres, PgArguments> {
    let (entry, record, made, manifest) = (change.entry, &change.entry.record, change.made, change.manifest());
    sqlx::query(statement)
        .bind(record.session_id.as_str())
        .bind(record.integration.as_deref().map(plain))
        .bind(record.decided_at.map(Timestamp::unix_millis))
        .bind(record.retention_class.as_deref().map(plain))
        .bind(record.reference.as_deref().map(plain))
        .bind(plain(&entry.integration))
        .bind(made.state.as_str())
        .bind(entry.code.map(Code::as_str))
        .bind(entry.message.as_deref().map(plain))
        .bind(entry.upstream_created_at.map(Timestamp::unix_millis))
        .bind(entry.deadline_at.map(Timestamp::unix_millis))
        .bind(manifest.map(|m| m.key.as_str()))
        .bind(manifest.and_then(|m| m.version_id.as_deref()))
        .bind(manifest.map(|m| i64::from(m.sequence)))
        .bind(manifest.map(|m| m.sha256.as_bytes().as_slice()))
        .bind(made.takes_manifest && entry.complete)
        .bind(made.takes_manifest && entry.settled)
        .bind(entry.run_id.as_str())
        .bind(entry.at.unix_millis())
}

/// Writes the items of all changes.
pub(super) async fn put_media<'a, 'q: 'a>(
    open: &mut PgConnection,
    changes: impl Iterator<Item = &'a Change<'q>>,
) -> Result<(), sqlx::Error> {
    let items: Vec<(&str, &MediaRow)> =
        changes.flat_map(|change| change.media.values().map(|item| (change.id(), *item))).collect();
    if items.is_empty() {
        return Ok(());
    }
    let rows = || items.iter().map(|(_, item)| item);
    sqlx::query(PUT_MEDIA)
        .bind(items.iter().map(|(session, _)| *session).collect::<Vec<_>>())
        .bind(rows().map(|item| item.media_id.as_str()).collect::<Vec<_>>())
        .bind(rows().map(|item| item.attempt_id.as_str()).collect::<Vec<_>>())
        .bind(rows().map(|item| item.kind.as_str()).collect::<Vec<_>>())
        .bind(rows().map(|item| item.key.as_str()).collect::<Vec<_>>())
        .bind(rows().map(|item| item.version_id.as_deref()).collect::<Vec<_>>())
        .bind(rows().map(|item| saturated(item.size_bytes)).collect::<Vec<_>>())
        .bind(rows().map(|item| item.sha256.as_bytes().as_slice()).collect::<Vec<_>>())
        .execute(open)
        .await
        .map(|_| ())
}
