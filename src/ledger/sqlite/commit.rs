//! Commits: the ends of visits, one or many, in one transaction.

use super::backlog::Open;
use super::runs::Failure;
use super::{SqliteLedger, backlog, json, runs, saturated};
use crate::clock::Timestamp;
use crate::error::Code;
use crate::ledger::rows::{Columns, standing_of};
use crate::ledger::{Move, SessionEntry, Standing, State};

const STANDING: &str = "SELECT state, manifest_sequence FROM sessions WHERE session_id = ?1";

/// One statement for all items; rows that say the same already are not written again.
const PUT_MEDIA: &str = "
    INSERT INTO media (session_id, media_id, attempt_id, kind, key, version_id, size_bytes, sha256)
    SELECT ?1, value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, unhex(value ->> 6)
    FROM json_each(?2) WHERE true
    ON CONFLICT (session_id, media_id) DO UPDATE SET
        attempt_id = excluded.attempt_id, kind = excluded.kind, key = excluded.key,
        version_id = excluded.version_id, size_bytes = excluded.size_bytes, sha256 = excluded.sha256
    WHERE (media.attempt_id, media.kind, media.key, media.version_id, media.size_bytes, media.sha256)
        IS NOT (excluded.attempt_id, excluded.kind, excluded.key, excluded.version_id, excluded.size_bytes,
            excluded.sha256)";

/// Takes the same values as [`UPDATE_SESSION`], and needs fewer.
const INSERT_SESSION: &str = "
    INSERT INTO sessions (
        session_id, asked_integration, decided_at, retention_class, reference, integration, state, code, message,
        upstream_created_at, deadline_at, manifest_key, manifest_version_id, manifest_sequence, manifest_sha256,
        complete, settled, media, bytes, visits, run_id, first_visited_at, last_visited_at)
    SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17,
        count(*), ifnull(sum(size_bytes), 0), 1, ?18, ?19, ?19
    FROM media WHERE session_id = ?1";

/// `?20` and `?21` are what [`Standing::after`] decided: whether the cause and the manifest are taken. Not an upsert,
/// because SQLite checks the row that it will not insert, too: without a manifest, that one may not be archived.
const UPDATE_SESSION: &str = "
    UPDATE sessions SET
        asked_integration = ifnull(?2, asked_integration),
        decided_at = ifnull(?3, decided_at),
        retention_class = ifnull(?4, retention_class),
        reference = ifnull(?5, reference),
        integration = ?6,
        state = ?7,
        code = iif(?20, ?8, code),
        message = iif(?20, ?9, message),
        upstream_created_at = ifnull(?10, upstream_created_at),
        deadline_at = ifnull(?11, deadline_at),
        manifest_key = iif(?21, ?12, manifest_key),
        manifest_version_id = iif(?21, ?13, manifest_version_id),
        manifest_sequence = iif(?21, ?14, manifest_sequence),
        manifest_sha256 = iif(?21, ?15, manifest_sha256),
        complete = iif(?21, ?16, complete),
        settled = iif(?21, ?17, settled),
        (media, bytes) = (SELECT count(*), ifnull(sum(size_bytes), 0) FROM media WHERE session_id = ?1),
        visits = visits + 1,
        run_id = ?18,
        last_visited_at = ?19
    WHERE session_id = ?1";

impl SqliteLedger {
    // Immediate, so that what is read inside cannot change before it is written.
    async fn begin(&self) -> Result<Open, sqlx::Error> {
        self.writer.begin_with("BEGIN IMMEDIATE").await
    }

    pub(super) async fn commit_once(&self, entry: &SessionEntry) -> Result<State, Failure> {
        let mut open = self.begin().await?;
        let state = take(&mut open, entry).await?;
        open.commit().await?;
        Ok(state)
    }

    pub(super) async fn commit_all_once(&self, entries: &[SessionEntry]) -> Result<(), Failure> {
        self.make_room_for_many().await?;
        let mut open = self.begin().await?;
        for entry in entries {
            take(&mut open, entry).await?;
        }
        open.commit().await?;
        Ok(())
    }
}

/// Takes the end of one visit within a transaction, and returns the state that stands then.
async fn take(open: &mut Open, entry: &SessionEntry) -> Result<State, Failure> {
    runs::take_line(open, entry).await?;
    let row = sqlx::query(STANDING).bind(entry.record.session_id.as_str()).fetch_optional(&mut **open).await?;
    let standing = row.map(|row| standing_of(&Columns(&row))).transpose()?;
    let made = Standing::after(standing, entry.state, entry.manifest.as_ref().map(|m| m.sequence));
    if made.takes_manifest && !entry.media.is_empty() {
        let put = sqlx::query(PUT_MEDIA).bind(entry.record.session_id.as_str()).bind(media_json(entry));
        put.execute(&mut **open).await?;
    }
    let statement = if standing.is_some() { UPDATE_SESSION } else { INSERT_SESSION };
    put_session(statement, entry, made).execute(&mut **open).await?;
    backlog::follow_commit(open, entry).await?;
    Ok(made.state)
}

fn put_session<'q>(
    statement: &'static str,
    entry: &'q SessionEntry,
    made: Move,
) -> sqlx::query::Query<'q, sqlx::Sqlite, sqlx::sqlite::SqliteArguments> {
    let record = &entry.record;
    let manifest = entry.manifest.as_ref().filter(|_| made.takes_manifest);
    sqlx::query(statement)
        .bind(record.session_id.as_str())
        .bind(record.integration.as_deref())
        .bind(record.decided_at.map(Timestamp::unix_millis))
        .bind(record.retention_class.as_deref())
        .bind(record.reference.as_deref())
        .bind(&entry.integration)
        .bind(made.state.as_str())
        .bind(entry.code.map(Code::as_str))
        .bind(entry.message.as_deref())
        .bind(entry.upstream_created_at.map(Timestamp::unix_millis))
        .bind(entry.deadline_at.map(Timestamp::unix_millis))
        .bind(manifest.map(|m| m.key.as_str()))
        .bind(manifest.and_then(|m| m.version_id.as_deref()))
        .bind(manifest.map(|m| m.sequence))
        .bind(manifest.map(|m| m.sha256.as_bytes().as_slice()))
        .bind(made.takes_manifest && entry.complete)
        .bind(made.takes_manifest && entry.settled)
        .bind(entry.run_id.as_str())
        .bind(entry.at.unix_millis())
        .bind(made.takes_cause)
        .bind(made.takes_manifest)
}

fn media_json(entry: &SessionEntry) -> String {
    let rows: Vec<_> = entry
        .media
        .iter()
        .map(|media| {
            (
                &media.media_id,
                &media.attempt_id,
                media.kind,
                &media.key,
                &media.version_id,
                saturated(media.size_bytes),
                media.sha256,
            )
        })
        .collect();
    json(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{SessionLog as _, Survey as _};
    use crate::model::request::SessionRequest;
    use crate::model::{RunId, SessionId};

    #[tokio::test]
    async fn the_schema_refuses_archived_without_a_manifest() {
        let ledger = SqliteLedger::open(None).await.unwrap();
        let error = ledger
            .commit(&SessionEntry {
                record: SessionRequest::of(SessionId::parse("s").unwrap()),
                integration: "default".into(),
                state: State::Archived,
                code: None,
                message: None,
                upstream_created_at: None,
                deadline_at: None,
                manifest: None,
                complete: true,
                settled: true,
                media: Vec::new(),
                run_id: RunId::parse("r").unwrap(),
                at: Timestamp::from_unix_seconds(0),
                look_again_at: None,
                holder: None,
                line: None,
            })
            .await
            .unwrap_err();
        assert_eq!(error.code(), Code::LedgerUnavailable);
        assert_eq!(ledger.session(&SessionId::parse("s").unwrap()).await.unwrap(), None);
    }
}
