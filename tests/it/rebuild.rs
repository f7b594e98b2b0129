//! `ledger rebuild`: a ledger made of the store alone, on which nobody finds anything to say.

use std::collections::BTreeMap;

use sqlx::Row as _;
use veriff_sim::{Simulator, World};

use crate::support::audited::Audited;
use crate::support::evidence::small_world;
use crate::support::program::Deployment;
use crate::support::s3::READER;

/// What a ledger can know from the store, by session and item, as text.
async fn knowledge(path: &std::path::Path) -> BTreeMap<String, String> {
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

#[tokio::test(flavor = "multi_thread")]
async fn a_place_that_is_no_archive_is_refused() {
    let simulator = Simulator::start(small_world(705, 1)).await.unwrap();
    let deployment = Deployment::with_directory(&simulator);
    let refused = deployment.run(["ledger", "rebuild"]).await.expect(77);
    assert!(refused.stderr.contains("archive.json"), "{}", refused.stderr);
}
