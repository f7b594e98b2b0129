//! `ledger rebuild`: a ledger made of the store alone, on which nobody finds anything to say.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use sqlx::Row as _;
use veriff_sim::{Simulator, World};

use crate::support::audited::Audited;
use crate::support::evidence::small_world;
use crate::support::program::Deployment;
use crate::support::s3::READER;
use crate::support::stored::everything;

/// What a ledger can know from the store, by session and item, as text.
async fn knowledge(path: &Path) -> BTreeMap<String, String> {
    let pool = sqlx::SqlitePool::connect(&format!("sqlite://{}", path.display())).await.unwrap();
    let mut found = BTreeMap::new();
    for (table, id, columns) in [
        (
            "sessions",
            "session_id",
            "integration, state, code, manifest_key, manifest_version_id, manifest_sequence, hex(manifest_sha256), \
             complete, media, bytes, upstream_created_at, deadline_at",
        ),
        ("media", "session_id || media_id", "attempt_id, kind, key, version_id, size_bytes, hex(sha256)"),
        (
            "runs",
            "run_id",
            "started_at, exit_code, version, source_kind, store_url, archived, unchanged, absent, failed, pending, \
             media, bytes, record_state, record_key, hex(record_sha256), chain_group, chain_number, hex(chain_sha256)",
        ),
    ] {
        let text = columns.split(", ").map(|column| format!("ifnull({}, '-')", column.trim())).collect::<Vec<_>>();
        let query = format!("SELECT {id} AS id, {} AS text FROM {table}", text.join(" || ' ' || "));
        for row in sqlx::query(sqlx::AssertSqlSafe(query)).fetch_all(&pool).await.unwrap() {
            found.insert(format!("{table} {}", row.get::<String, _>("id")), row.get::<String, _>("text"));
        }
    }
    pool.close().await;
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuilt_ledger_equals_the_lost_one_but_for_what_only_that_knew() {
    for mut audited in [Audited::in_directory(701).await, Audited::in_bucket(702).await] {
        audited.ledger.close().await;
        let path = audited.deployment.path("ledger.db");
        let before = knowledge(&path).await;
        audited.deployment.lose_ledger();
        audited.deployment.become_identity(READER);
        let deployment = &audited.deployment;
        let rebuilt = deployment.run(["ledger", "rebuild", "--output", "json"]).await.expect(0).json();
        assert_eq!((&rebuilt["new"], &rebuilt["runs"], &rebuilt["problems"]), (&32.into(), &2.into(), &0.into()));
        let after = knowledge(&path).await;
        for (id, known) in &before {
            assert_eq!(after.get(id), Some(known), "{id}");
        }
        assert_eq!(after.len(), before.len());
        deployment.run(["audit", "reconcile"]).await.expect(0);
        let again = deployment.run(["ledger", "rebuild", "--output", "json"]).await.expect(0).json();
        assert_eq!((&again["new"], &again["unchanged"], &again["runs"]), (&0.into(), &32.into(), &0.into()));
        assert_eq!(knowledge(&path).await, after);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_sessions_come_back_and_leave_nothing_to_say() {
    let world = World::builder(703).sessions(2_000).attempts(1..=1).image_bytes(200..=400).video_bytes(500..=900);
    let simulator = Simulator::start(world.nfc_bytes(200..=300).build()).await.unwrap();
    let deployment = Deployment::with_directory(&simulator);
    deployment.write_ids(&simulator.world().session_ids());
    deployment.archive(&[]).await;
    let status = deployment.run(["status", "--output", "json"]).await.expect(0).json();
    deployment.lose_ledger();
    let rebuilt = deployment.run(["ledger", "rebuild", "--output", "json"]).await.expect(0).json();
    assert_eq!((&rebuilt["new"], &rebuilt["problems"]), (&2_000.into(), &0.into()));
    let found = deployment.run(["audit", "reconcile", "--output", "json"]).await.expect(0);
    assert_eq!(found.stdout.lines().count(), 1, "{}", found.stdout);
    let after = deployment.run(["status", "--output", "json"]).await.expect(0).json();
    for field in ["sessions", "states", "codes", "complete", "media", "bytes", "past_horizon", "within_alarm"] {
        assert_eq!(after[field], status[field], "{field}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_told_and_the_rest_is_taken() {
    let audited = Audited::in_directory(704).await;
    audited.ledger.close().await;
    let evidence = audited.evidence().await;
    let key = evidence.objects.keys().find(|key| key.ends_with("/manifest/0001.json")).unwrap();
    audited.tamperer.write(key, None, b"{}");
    audited.deployment.lose_ledger();
    let ended = audited.deployment.run(["ledger", "rebuild", "--output", "json"]).await.expect(4);
    assert_eq!((&ended.json()["problems"], &ended.json()["new"]), (&1.into(), &31.into()));
    assert!(ended.stderr.contains(key), "{}", ended.stderr);
}

/// The files of all manifests.
fn manifest_files(deployment: &Deployment) -> Vec<PathBuf> {
    let keys = everything(&deployment.store()).into_keys().filter(|key| key.contains("/manifest/"));
    keys.map(|key| deployment.store().join(key)).collect()
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn manifests_that_the_store_keeps_to_itself_are_told_and_the_rest_is_taken() {
    let audited = Audited::in_directory(706).await;
    audited.ledger.close().await;
    let deployment = &audited.deployment;
    deployment.lose_ledger();
    let files = manifest_files(deployment);
    // The second manifest of a session, and the only one of two others.
    let grown = deployment.store().join(format!("sessions/{}/manifest/0002.json", audited.grown));
    let only = files.iter().filter(|file| {
        let is_first = file.ends_with("0001.json");
        is_first && !file.with_file_name("0002.json").exists()
    });
    let closed: Vec<&PathBuf> = only.take(2).chain([&grown]).collect();
    for file in &closed {
        set_mode(file, 0o000);
    }
    let ended = deployment.run_within_modes(["ledger", "rebuild", "--output", "json"]).await.expect(4);
    assert_eq!((&ended.json()["problems"], &ended.json()["new"]), (&3.into(), &30.into()));
    assert_eq!(ended.json()["complete"], true);
    for file in &closed {
        let key = file.strip_prefix(deployment.store()).unwrap().display().to_string();
        assert!(ended.stderr.contains(&key), "{key}: {}", ended.stderr);
        set_mode(file, 0o600);
    }
    assert!(ended.stderr.contains("object.unreadable"), "{}", ended.stderr);
    let again = deployment.run(["ledger", "rebuild", "--output", "json"]).await.expect(0).json();
    assert_eq!((&again["new"], &again["updated"], &again["unchanged"]), (&2.into(), &1.into(), &29.into()));
    deployment.run(["audit", "reconcile"]).await.expect(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_keeps_everything_to_itself_ends_the_rebuild() {
    let audited = Audited::in_directory(707).await;
    audited.ledger.close().await;
    let deployment = &audited.deployment;
    deployment.lose_ledger();
    for file in manifest_files(deployment) {
        set_mode(&file, 0o000);
    }
    let refused = deployment.run_within_modes(["ledger", "rebuild"]).await.expect(77);
    assert_eq!(refused.stdout, "");
    let sessions = deployment.store().join("sessions");
    set_mode(&sessions, 0o000);
    deployment.run_within_modes(["ledger", "rebuild"]).await.expect(77);
    set_mode(&sessions, 0o755);
}

/// Makes the ledger say something else.
async fn alter(deployment: &Deployment, statements: &str) {
    let pool =
        sqlx::SqlitePool::connect(&format!("sqlite://{}", deployment.path("ledger.db").display())).await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(statements.to_owned())).execute(&pool).await.unwrap();
    pool.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_only_the_store_knows_as_closed_is_closed() {
    let audited = Audited::in_directory(708).await;
    audited.ledger.close().await;
    let deployment = &audited.deployment;
    let path = deployment.path("ledger.db");
    let before = knowledge(&path).await;
    alter(
        deployment,
        "UPDATE runs SET record_state = 'open', finished_at = NULL, exit_code = NULL, archived = 0, unchanged = 0,
            absent = 0, failed = 0, media = 0, bytes = 0, record_key = NULL, record_sha256 = NULL, chain_group = NULL,
            chain_number = NULL, chain_sha256 = NULL;
         INSERT INTO run_lines SELECT run_id, 1000, 'a line', 0, 0 FROM runs;
         INSERT INTO runs (run_id, started_at, version, source_kind, store_url, record_draft, record_state, heartbeat_at)
            VALUES ('alive', 1, 'v', 'file', 'u', '{}', 'open', 1);
         INSERT INTO run_lines VALUES ('alive', 1, 'a line', 0, 0)",
    )
    .await;
    let rebuilt = deployment.run(["ledger", "rebuild", "--output", "json"]).await.expect(0).json();
    assert_eq!((&rebuilt["runs"], &rebuilt["runs_closed"]), (&0.into(), &2.into()));
    let mut after = knowledge(&path).await;
    let alive = after.remove("runs alive").unwrap();
    assert!(alive.contains(" open "), "{alive}");
    assert_eq!(after, before);
    deployment.run(["audit", "reconcile"]).await.expect(0);
    let pool = sqlx::SqlitePool::connect(&format!("sqlite://{}", path.display())).await.unwrap();
    let waiting: Vec<String> = sqlx::query_scalar("SELECT run_id FROM run_lines").fetch_all(&pool).await.unwrap();
    assert_eq!(waiting, ["alive"]);
    pool.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_not_closed_on_the_word_of_a_record_that_was_changed() {
    let audited = Audited::in_directory(709).await;
    audited.ledger.close().await;
    let deployment = &audited.deployment;
    let keys: Vec<String> =
        everything(&deployment.store()).into_keys().filter(|key| key.starts_with("runs/")).collect();
    let record = keys.iter().find(|key| key.ends_with("/run.json")).unwrap();
    let text = std::fs::read_to_string(deployment.store().join(record)).unwrap();
    audited.tamperer.write(record, None, format!("{text} ").as_bytes());
    // The entry of the other is one of another archive.
    let entry = keys.iter().filter(|key| key.starts_with("runs/chain/") && !key.contains(".sig")).find(|key| {
        let entry = std::fs::read_to_string(deployment.store().join(key)).unwrap();
        !entry.contains(record.as_str())
    });
    let text = std::fs::read_to_string(deployment.store().join(entry.unwrap())).unwrap();
    let foreign = text.replace(&audited.archive.to_string(), "9e2d1c0b-3a4f-4e5d-8c6b-7a8f9e0d1c2b");
    audited.tamperer.write(entry.unwrap(), None, foreign.as_bytes());
    alter(deployment, "UPDATE runs SET record_state = 'open'").await;
    let ended = deployment.run(["ledger", "rebuild", "--output", "json"]).await.expect(4);
    let rebuilt = ended.json();
    assert_eq!((&rebuilt["problems"], &rebuilt["runs_closed"]), (&2.into(), &0.into()), "{}", ended.stderr);
    assert!(ended.stderr.contains("record.invalid"), "{}", ended.stderr);
    deployment.lose_ledger();
    let ended = deployment.run(["ledger", "rebuild", "--output", "json"]).await.expect(4).json();
    assert_eq!((&ended["runs"], &ended["new"]), (&0.into(), &32.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_expired_by_plan_is_left_as_its_newest_manifest_says() {
    let audited = Audited::in_directory(710).await;
    audited.ledger.close().await;
    let deployment = &audited.deployment;
    let path = deployment.path("ledger.db");
    let before = knowledge(&path).await;
    deployment.lose_ledger();
    // Of one session everything is gone but the record of it.
    for session in [&audited.twins, &audited.long] {
        let folder = deployment.store().join(format!("sessions/{session}/expired"));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("0001.json"), "{}").unwrap();
    }
    let gone = deployment.store().join(format!("sessions/{}/manifest", audited.long));
    std::fs::remove_dir_all(gone).unwrap();
    let rebuilt = deployment.run(["ledger", "rebuild", "--output", "json"]).await.expect(0).json();
    assert_eq!((&rebuilt["new"], &rebuilt["expired"], &rebuilt["problems"]), (&31.into(), &2.into(), &0.into()));
    let after = knowledge(&path).await;
    let twins = format!("sessions {}", audited.twins);
    assert_eq!(after[&twins], before[&twins]);
    assert_eq!(after.get(&format!("sessions {}", audited.long)), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_that_is_no_archive_is_refused() {
    let simulator = Simulator::start(small_world(705, 1)).await.unwrap();
    let deployment = Deployment::with_directory(&simulator);
    let refused = deployment.run(["ledger", "rebuild"]).await.expect(77);
    assert!(refused.stderr.contains("store.url"), "{}", refused.stderr);
    std::fs::create_dir(deployment.store()).unwrap();
    let refused = deployment.run(["ledger", "rebuild"]).await.expect(77);
    assert!(refused.stderr.contains("archive.json"), "{}", refused.stderr);
}
