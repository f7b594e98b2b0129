//! `audit reconcile` and the ledger: rows of every kind that are legal, and each of them changed or dropped.

use std::collections::BTreeMap;
use std::path::Path;

use sqlx::Row as _;
use veriff_archive::audit::Severity;
use veriff_archive::audit::reconcile::ReconcileMode;
use veriff_archive::clock::Timestamp;
use veriff_archive::ledger::{self, BacklogEntry, Filter, State};
use veriff_archive::model::request::SessionRequest;
use veriff_archive::model::{RunId, SessionId};
use veriff_sim::{Effect, Endpoint, Fault, id};

use crate::reconcile::{HORIZON, everything, of_session};
use crate::support::audited::Audited;

/// How many sessions [`lived_in`] adds to the archive's own.
const ADDED: u64 = 4;

/// An archive whose ledger has rows of every kind: failed with and without a manifest, opened again, accepted, added and
/// never visited, beside those that every archive has.
async fn lived_in(seed: u64) -> Audited {
    let audited = Audited::in_directory(seed).await;
    let known: Vec<String> = audited.simulator.world().session_ids();
    let picked = |number: usize| {
        let own = [&audited.incomplete, &audited.grown, &audited.twins, &audited.long];
        let plain = known.iter().filter(|id| !own.contains(id) && !audited.taken.contains(id.as_str()));
        SessionId::parse(plain.skip(number).step_by(4).next().unwrap()).unwrap()
    };
    let (failed, opened, accepted) = (picked(0), picked(1), picked(2));
    let (decided, brought_forward) = (picked(3), picked(4));
    let strangers = ["never had 1", "never had 2", "added", "given up"].map(|label| id(&format!("{label} {seed}")));
    for id in [failed.as_str(), opened.as_str(), accepted.as_str(), &strangers[0], &strangers[1]] {
        audited.simulator.set_fault(Fault::forever(Effect::status(500)).on(Endpoint::Attempts).id(id));
        audited.simulator.set_fault(Fault::forever(Effect::status(500)).on(Endpoint::SessionMedia).id(id));
    }
    let ids: Vec<&String> = audited.ids.iter().chain(&strangers[..2]).collect();
    audited.deployment.write_ids(&ids);
    audited.deployment.archive(&[]).await.expect(3);
    // Of one session a list tells when Veriff decided.
    let record = format!("{{\"session_id\": \"{decided}\", \"decided_at\": \"2026-10-20T09:00:00Z\"}}\n");
    let list = audited.deployment.write("decided.ndjson", &record).display().to_string();
    audited.deployment.run(["run", "--sessions", &list, "--progress", "none"]).await.expect(0);
    let now: Timestamp = "2026-11-01T12:00:00Z".parse().unwrap();
    let of = |sessions: &[&SessionId]| Filter {
        sessions: Some(sessions.iter().map(|session| (*session).clone()).collect()),
        ..Filter::default()
    };
    let strangers = strangers.map(|id| SessionId::parse(&id).unwrap());
    let entries = [&strangers[2], &strangers[3]].map(|session| BacklogEntry {
        record: SessionRequest::of(session.clone()),
        integration: "default".to_owned(),
        deadline_at: None,
    });
    let ledger = &audited.ledger;
    ledger.add(&entries, &RunId::new(now), now).await.unwrap();
    // Of one that was visited an addition tells an earlier time, and so an earlier deadline.
    let decided_at: Timestamp = "2017-07-14T02:40:00Z".parse().unwrap();
    let earlier = BacklogEntry {
        record: SessionRequest { decided_at: Some(decided_at), ..SessionRequest::of(brought_forward) },
        integration: "default".to_owned(),
        deadline_at: Some(decided_at.plus(HORIZON)),
    };
    ledger.add(&[earlier], &RunId::new(now), now).await.unwrap();
    assert_eq!(ledger.retry(&of(&[&opened]), now).await.unwrap(), 1);
    assert_eq!(ledger.accept(&of(&[&accepted, &strangers[1], &strangers[3]]), "lost", now).await.unwrap(), 3);
    audited
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_every_kind_are_nothing_to_say_if_they_were_left_alone() {
    let audited = lived_in(611).await;
    for mode in [ReconcileMode::Manifests, ReconcileMode::Listing] {
        let (findings, tally) = everything(&audited, mode).await;
        assert_eq!(findings, [], "{mode:?}");
        assert_eq!(tally.sessions, 32 + ADDED);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_veriff_no_longer_has_stands_archived_with_what_could_be_had() {
    let audited = Audited::in_directory(612).await;
    for endpoint in [Endpoint::Attempts, Endpoint::SessionMedia] {
        audited.simulator.set_fault(Fault::forever(Effect::status(404)).on(endpoint).id(&audited.incomplete));
    }
    audited.deployment.archive(&[]).await.expect(3);
    let row = audited.ledger.session(&SessionId::parse(&audited.incomplete).unwrap()).await.unwrap().unwrap();
    assert_eq!((row.state.as_str(), row.complete), ("archived", false));
    assert_eq!(everything(&audited, ReconcileMode::Manifests).await.0, []);
}

/// What a mutation of the ledger does to one row, as SQL, and which rows it is tried on.
const MUTATIONS: [(&str, &str, &str); 98] = [
    ("sessions", "integration = 'other'", VISITED),
    ("sessions", "state = 'pending'", "state <> 'pending'"),
    ("sessions", "state = 'archived'", "state <> 'archived'"),
    ("sessions", "state = 'absent'", "state <> 'absent'"),
    ("sessions", "state = 'failed'", "state <> 'failed'"),
    ("sessions", "state = 'accepted'", "state <> 'accepted'"),
    // One legal state in place of another.
    ("sessions", "state = 'archived', code = NULL", "state <> 'archived'"),
    ("sessions", "state = 'absent', code = 'veriff.absent'", "state <> 'absent'"),
    ("sessions", "state = 'failed', code = 'media.missing'", "state <> 'failed' AND code IS NOT 'media.missing'"),
    ("sessions", "state = 'failed', code = 'veriff.absent'", "1"),
    // What a person opened again may be put back to what it was.
    ("sessions", "state = 'failed', code = 'veriff.unavailable'", "code IS NOT NULL AND code <> 'veriff.unavailable'"),
    ("sessions", "state = 'pending', code = 'run.stopped'", "1"),
    ("sessions", "state = 'pending', code = 'veriff.unavailable'", "1"),
    ("sessions", "state = 'pending', code = NULL, accepted_reason = NULL", NOT_IN_BACKLOG),
    ("sessions", "state = 'accepted', accepted_reason = 'lost'", "state = 'archived'"),
    ("sessions", "accepted_reason = NULL", "state = 'accepted'"),
    ("sessions", "accepted_reason = 'lost'", "state <> 'accepted'"),
    ("sessions", "code = NULL", "code IS NOT NULL AND state <> 'accepted'"),
    ("sessions", "code = 'media.missing'", "code IS NOT 'media.missing'"),
    ("sessions", "code = 'veriff.unavailable'", "code IS NOT 'veriff.unavailable'"),
    ("sessions", "code = 'store.conflict'", "code IS NOT 'store.conflict'"),
    ("sessions", "code = 'nobody.knows'", "1"),
    ("sessions", "visits = 0", VISITED),
    ("sessions", "visits = visits - 1", VISITED),
    ("sessions", "run_id = (SELECT max(run_id) FROM runs WHERE runs.run_id <> sessions.run_id)", VISITED),
    ("sessions", "run_id = 'nobody'", VISITED),
    ("sessions", "first_visited_at = last_visited_at + 86400001", "1"),
    ("sessions", "last_visited_at = last_visited_at + 1", "1"),
    ("sessions", "last_visited_at = last_visited_at - 1", "1"),
    ("sessions", "upstream_created_at = NULL", "upstream_created_at IS NOT NULL"),
    ("sessions", "upstream_created_at = upstream_created_at + 1", "upstream_created_at IS NOT NULL"),
    ("sessions", "upstream_created_at = upstream_created_at - 1", "upstream_created_at IS NOT NULL"),
    ("sessions", "upstream_created_at = 1700000000000", "upstream_created_at IS NULL"),
    ("sessions", "deadline_at = NULL", "deadline_at IS NOT NULL"),
    ("sessions", "deadline_at = deadline_at + 1", "deadline_at IS NOT NULL"),
    // A record that was added since may have told an earlier one.
    ("sessions", "deadline_at = deadline_at - 86400000", "deadline_at IS NOT NULL AND decided_at IS NULL"),
    ("sessions", "deadline_at = 1800000000000", "deadline_at IS NULL"),
    ("sessions", "decided_at = NULL", "decided_at IS NOT NULL"),
    ("sessions", "decided_at = 1400000000000", VISITED),
    ("sessions", "manifest_key = manifest_key || 'x'", MANIFEST),
    ("sessions", "manifest_version_id = 'another'", MANIFEST),
    ("sessions", "manifest_sequence = manifest_sequence + 1", MANIFEST),
    ("sessions", "manifest_sequence = manifest_sequence - 1", MANIFEST),
    ("sessions", "manifest_sha256 = zeroblob(32)", MANIFEST),
    (
        "sessions",
        "manifest_key = NULL, manifest_version_id = NULL, manifest_sequence = NULL, manifest_sha256 = NULL",
        MANIFEST,
    ),
    ("sessions", "complete = 1 - complete", "1"),
    ("sessions", "settled = 1 - settled", "1"),
    // What no row of this program holds.
    ("sessions", "session_id = 'no id!'", VISITED),
    ("sessions", "state = 'nonsense'", "1"),
    ("sessions", "run_id = ''", "1"),
    ("sessions", "manifest_sequence = -1", MANIFEST),
    ("sessions", "manifest_sha256 = zeroblob(31)", MANIFEST),
    ("sessions", "complete = 7", "1"),
    ("sessions", "settled = -1", "1"),
    ("sessions", "visits = -1", "1"),
    ("sessions", "media = -1", "1"),
    ("media", "kind = 'nonsense'", "1"),
    ("media", "size_bytes = -1", "1"),
    ("media", "sha256 = zeroblob(31)", "1"),
    ("media", "media_id = ''", "1"),
    ("media", "session_id = 'nobody'", "1"),
    ("runs", "exit_code = -1", "1"),
    ("runs", "archived = -1", "1"),
    ("runs", "chain_number = -1", "1"),
    ("runs", "record_key = NULL", "1"),
    ("runs", "record_state = 'nonsense'", "1"),
    ("sessions", "media = media + 1", "1"),
    ("sessions", "bytes = bytes + 1", "1"),
    ("media", "media_id = media_id || 'x'", "1"),
    ("media", "attempt_id = 'another'", "1"),
    ("media", "kind = CASE kind WHEN 'image' THEN 'nfc' ELSE 'image' END", "1"),
    ("media", "key = key || 'x'", "1"),
    ("media", "version_id = 'another'", "1"),
    ("media", "size_bytes = size_bytes + 1", "1"),
    ("media", "sha256 = zeroblob(32)", "1"),
    ("runs", "run_id = run_id || 'x'", "1"),
    ("runs", "started_at = started_at + 1", "1"),
    ("runs", "version = '9.9.9'", "1"),
    ("runs", "source_kind = 'sqs'", "1"),
    ("runs", "exit_code = 77", "1"),
    ("runs", "exit_code = NULL", "1"),
    ("runs", "archived = archived + 1", "1"),
    ("runs", "unchanged = unchanged + 1", "1"),
    ("runs", "absent = absent + 1", "1"),
    ("runs", "failed = failed + 1", "1"),
    ("runs", "pending = pending + 1", "1"),
    ("runs", "media = media + 1", "1"),
    ("runs", "bytes = bytes + 1", "1"),
    ("runs", "record_state = 'none'", "1"),
    ("runs", "record_state = 'open'", "1"),
    ("runs", "record_state = 'closing'", "1"),
    ("runs", "record_key = record_key || 'x'", "1"),
    ("runs", "record_sha256 = zeroblob(32)", "1"),
    ("runs", "chain_group = 'other'", "1"),
    ("runs", "chain_number = chain_number + 1", "1"),
    ("runs", "chain_number = chain_number - 1", "1"),
    ("runs", "chain_sha256 = zeroblob(32)", "1"),
    ("runs", "chain_sha256 = record_sha256", "1"),
];

const VISITED: &str = "visits > 0";

const NOT_IN_BACKLOG: &str = "NOT EXISTS (SELECT 1 FROM backlog WHERE backlog.session_id = sessions.session_id)";

const MANIFEST: &str = "manifest_key IS NOT NULL";

/// Copies a ledger and runs one statement in the copy; tells how many rows it changed.
async fn changed(original: &Path, copy: &Path, statement: &str) -> u64 {
    std::fs::copy(original, copy).unwrap();
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(copy).foreign_keys(false);
    let options = options.pragma("ignore_check_constraints", "ON");
    let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
    let done = sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&pool).await.unwrap();
    pool.close().await;
    done.rows_affected()
}

/// Lists the rows that a mutation is tried on: their key and their session, if they belong to one.
async fn picked(original: &Path, table: &str, which: &str) -> Vec<(String, Option<String>)> {
    let pool = sqlx::SqlitePool::connect(&format!("sqlite://{}", original.display())).await.unwrap();
    let session = if table == "runs" { "NULL" } else { "session_id" };
    let query =
        format!("SELECT {} AS picked, {session} AS session FROM {table} WHERE {which} ORDER BY 1", key_of(table));
    let rows = sqlx::query(sqlx::AssertSqlSafe(query)).fetch_all(&pool).await.unwrap();
    pool.close().await;
    // Of items those of every tenth are enough.
    let step = if table == "media" { 10 } else { 1 };
    rows.iter().step_by(step).map(|row| (row.get("picked"), row.get("session"))).collect()
}

const fn key_of(table: &str) -> &str {
    match table.as_bytes() {
        b"sessions" => "session_id",
        b"media" => "session_id || '/' || media_id",
        _ => "run_id",
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_row_of_the_ledger_that_is_changed_or_dropped_is_found() {
    let mut audited = lived_in(606).await;
    let original = audited.deployment.path("ledger.db");
    audited.ledger.close().await;
    let copy = audited.deployment.path("changed.db");
    let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
    let mut missed = Vec::new();
    let updates = MUTATIONS.map(|(table, set, which)| (table, format!("UPDATE {table} SET {set}"), which));
    // What was added and never visited is gone without a trace.
    let drops = [("sessions", VISITED), ("media", "1"), ("runs", "1")];
    let drops = drops.map(|(table, which)| (table, format!("DELETE FROM {table}"), which));
    for (table, statement, which) in updates.into_iter().chain(drops) {
        let rows = picked(&original, table, which).await;
        assert!(!rows.is_empty(), "{statement} is tried on nothing");
        for (key, session) in rows {
            let statement = format!("{statement} WHERE {} = '{key}'", key_of(table));
            assert_eq!(changed(&original, &copy, &statement).await, 1, "{statement}");
            audited.ledger = ledger::open(&format!("sqlite://{}", copy.display())).await.unwrap();
            let findings = match &session {
                Some(session) => of_session(&audited, ReconcileMode::Manifests, session).await,
                None => everything(&audited, ReconcileMode::Manifests).await.0,
            };
            audited.ledger.close().await;
            // A warning is no detection.
            if findings.iter().all(|finding| finding.severity != Severity::Error) {
                missed.push(statement);
            }
            *counts.entry(table).or_default() += 1;
        }
    }
    assert_eq!(missed, Vec::<String>::new());
    assert!(counts["sessions"] >= 1_000 && counts["media"] >= 80 && counts["runs"] >= 80, "{counts:?}");
    audited.ledger = ledger::open(&format!("sqlite://{}", original.display())).await.unwrap();
    assert_eq!(everything(&audited, ReconcileMode::Manifests).await.0, []);
}

/// Rows that were lost and made anew are rows of their own kind, and so is what is done with them afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn a_rebuilt_ledger_is_nothing_to_say_and_neither_is_what_is_done_with_it() {
    let mut audited = lived_in(613).await;
    let path = audited.deployment.path("ledger.db");
    let open = async || ledger::open(&format!("sqlite://{}", path.display())).await.unwrap();
    for is_lost in [false, true] {
        audited.ledger.close().await;
        if is_lost {
            audited.deployment.lose_ledger();
        } else {
            let some = "session_id IN (SELECT session_id FROM sessions WHERE manifest_key IS NOT NULL LIMIT 20)";
            let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path).foreign_keys(false);
            let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
            for table in ["media", "sessions"] {
                let dropped = sqlx::query(sqlx::AssertSqlSafe(format!("DELETE FROM {table} WHERE {some}")));
                assert!(dropped.execute(&pool).await.unwrap().rows_affected() > 0);
            }
            pool.close().await;
        }
        audited.deployment.run(["ledger", "rebuild"]).await.expect(0);
        audited.ledger = open().await;
        assert_eq!(everything(&audited, ReconcileMode::Manifests).await.0, [], "lost: {is_lost}");
        let known: Vec<SessionId> = audited.ids.iter().map(|id| SessionId::parse(id).unwrap()).collect();
        let all = Filter { sessions: Some(known.into_iter().collect()), ..Filter::default() };
        let now: Timestamp = "2026-11-02T12:00:00Z".parse().unwrap();
        assert!(audited.ledger.retry(&all, now).await.unwrap() > 30);
        assert_eq!(everything(&audited, ReconcileMode::Manifests).await.0, [], "lost: {is_lost}, opened");
        let incomplete = Filter { states: vec![State::Pending], ..all };
        assert!(audited.ledger.accept(&incomplete, "lost", now).await.unwrap() > 0);
        assert_eq!(everything(&audited, ReconcileMode::Manifests).await.0, [], "lost: {is_lost}, accepted");
        audited.ledger.close().await;
        audited.deployment.archive(&[]).await;
        audited.ledger = open().await;
        let (findings, tally) = everything(&audited, ReconcileMode::Manifests).await;
        assert_eq!(findings, [], "lost: {is_lost}, archived again");
        assert_eq!(tally.untold, 0);
    }
}
