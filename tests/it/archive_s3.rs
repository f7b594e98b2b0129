//! Whole sessions into a real bucket with Object Lock, as the identity with the fewest rights that will do.

use std::collections::BTreeMap;

use serde_json::Value;
use veriff_sim::{Attempt, Endpoint, Session, Simulator, World, id};

use crate::support::evidence::{Evidence, listed, media_of, sha256, small_world};
use crate::support::program::{Deployment, results};
use crate::support::s3::{ADMIN, Bucket, Identity, WRITER, s3};

/// A simulator, a fresh bucket with Object Lock and a deployment between them, with all sessions on its list.
async fn deploy(world: World, retention: Option<&str>) -> (Simulator, Bucket, Deployment) {
    let simulator = Simulator::start(world).await.unwrap();
    let bucket = s3().await.create_bucket("archive", true).await;
    let deployment = Deployment::with_bucket(&simulator, &bucket, WRITER, retention);
    let ids = simulator.world().session_ids();
    deployment.write_ids(&ids);
    (simulator, bucket, deployment)
}

fn outcomes(deployment: &Deployment) -> BTreeMap<String, Value> {
    let lines = results(&deployment.path("results.ndjson"));
    lines.into_iter().map(|line| (line["session_id"].as_str().unwrap().to_owned(), line)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn thirty_odd_sessions_are_archived_locked_and_never_touched_again() {
    let (simulator, bucket, deployment) = deploy(small_world(11, 30), None).await;

    let first = deployment.archive(&["--results", "results.ndjson"]).await.expect(0);
    assert_eq!(first.count("archived"), 30, "{}", first.stdout);
    let evidence = Evidence::of_bucket(&bucket).await;
    evidence.expect_one_version_each();
    evidence.expect_whole(&simulator);
    evidence.expect_locks("COMPLIANCE", 5);
    let ids = simulator.world().session_ids();
    evidence.expect_no_false_ledger(&deployment, &ids).await;
    for key in evidence.media_keys() {
        let sidecar = evidence.json(&format!("{key}.meta.json"));
        assert_eq!(sidecar["retention"]["counted_from_source"], "archived_at");
        let counted_from: jiff::Timestamp = sidecar["retention"]["counted_from"].as_str().unwrap().parse().unwrap();
        let started: jiff::Timestamp = first.json()["started_at"].as_str().unwrap().parse().unwrap();
        let finished: jiff::Timestamp = first.json()["finished_at"].as_str().unwrap().parse().unwrap();
        // The store tells the time in whole seconds.
        let leeway = jiff::SignedDuration::from_secs(2);
        assert!(counted_from >= started - leeway && counted_from <= finished + leeway, "{key}");
    }
    // One download an item, even where two attempts list it.
    assert_eq!(simulator.count(Endpoint::Media), listed(&simulator).len() as u64);

    for ledger_is_lost in [false, true] {
        if ledger_is_lost {
            deployment.lose_ledger();
        }
        simulator.reset_requests();
        let again = deployment.archive(&["--results", "results.ndjson"]).await.expect(0);
        assert_eq!(again.count("unchanged"), 30, "{}", again.stdout);
        assert_eq!(again.json()["next"], "nothing");
        assert_eq!(simulator.count(Endpoint::Media), 0);
        assert_eq!(Evidence::of_bucket(&bucket).await.objects, evidence.objects);
        for line in outcomes(&deployment).values() {
            assert_eq!(line["outcome"], "unchanged");
            assert!(line["media"].as_u64().unwrap() > 0 && line["complete"] == true, "{line}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_period_is_counted_from_the_decision_where_it_is_known() {
    let (simulator, bucket, deployment) = deploy(small_world(12, 4), None).await;
    let ids = simulator.world().session_ids();
    let decided = [Some("2024-02-29T13:14:15Z"), Some("2026-03-01T00:00:00Z"), Some("2025-12-31T23:59:59.999Z"), None];
    let lines: String = ids
        .iter()
        .zip(decided)
        .map(|(id, time)| serde_json::json!({"session_id": id, "decided_at": time}).to_string() + "\n")
        .collect();
    deployment.write("sessions.txt", &lines);

    deployment.archive(&[]).await.expect(0);

    let evidence = Evidence::of_bucket(&bucket).await;
    evidence.expect_whole(&simulator);
    evidence.expect_locks("COMPLIANCE", 5);
    let dates = ["2029-03-02T00:00:00Z", "2031-03-01T00:00:00Z", "2031-01-01T00:00:00Z"];
    for (session, date) in ids.iter().zip(dates) {
        let manifest = evidence.manifest_keys(session)[0].to_owned();
        let lock = evidence.object(&manifest).unwrap().lock.clone();
        assert_eq!(lock, Some(("COMPLIANCE".to_owned(), date.to_owned())));
        for media in media_of(&evidence.json(&manifest)) {
            let sidecar = evidence.json(&format!("{}.meta.json", media["key"].as_str().unwrap()));
            assert_eq!(sidecar["retention"]["counted_from_source"], "decided_at");
            let lock = evidence.object(media["key"].as_str().unwrap()).unwrap().lock.clone();
            assert_eq!(lock, Some(("COMPLIANCE".to_owned(), date.to_owned())));
        }
    }
    assert_eq!(evidence.manifest(&ids[0])["decided_at"], "2024-02-29T13:14:15.000Z");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_item_is_locked_by_its_own_class_and_the_manifest_by_the_strictest() {
    let retention = "[retention]\nmode = \"COMPLIANCE\"\nperiod = \"5y\"\nmax_period = \"10y\"\nbasis = \"test\"\n\
        [retention.classes.biometric]\nmode = \"GOVERNANCE\"\nperiod = \"3y\"\nmax_period = \"3y\"\nbasis = \"faces\"\n\
        [retention.classes.long]\nmode = \"COMPLIANCE\"\nperiod = \"7y\"\nmax_period = \"8y\"\nbasis = \"longer\"\n\
        [[retention.rules]]\nwhen = { context = [\"*face*\", \"selfid_video\"] }\nclass = \"biometric\"\n\
        [[retention.rules]]\nwhen = { kind = [\"nfc\"] }\nclass = \"biometric\"\n";
    let attempt = |name: &str| {
        Attempt::approved(id(name))
            .image("face", 4_000)
            .image("document-front", 5_000)
            .video("selfid_video", 20_000)
            .nfc(2_000)
    };
    let world = World::new()
        .session(Session::new(id("by rule")).attempt(attempt("a")))
        .session(Session::new(id("by record")).attempt(attempt("b")));
    let (simulator, bucket, deployment) = deploy(world, Some(retention)).await;
    let lines = format!(
        "{{\"session_id\":\"{}\"}}\n{{\"session_id\":\"{}\",\"retention_class\":\"long\"}}\n",
        id("by rule"),
        id("by record")
    );
    deployment.write("sessions.txt", &lines);

    deployment.archive(&[]).await.expect(0);

    let evidence = Evidence::of_bucket(&bucket).await;
    evidence.expect_whole(&simulator);
    for item in listed(&simulator) {
        let context = item.media.context.as_deref();
        let (class, mode, years) = if item.session_id == id("by record") {
            ("long", "COMPLIANCE", 7)
        } else if context == Some("document-front") {
            ("default", "COMPLIANCE", 5)
        } else {
            ("biometric", "GOVERNANCE", 3)
        };
        let due = Some((mode.to_owned(), evidence.due_of(&item.key, years)));
        assert_eq!(evidence.object(&item.key).unwrap().lock, due, "{}", item.key);
        let sidecar_key = format!("{}.meta.json", item.key);
        assert_eq!(evidence.object(&sidecar_key).unwrap().lock, due, "{sidecar_key}");
        let retention = &evidence.json(&sidecar_key)["retention"];
        assert_eq!(retention["class"], class);
        assert_eq!(retention["mode"], mode);
        assert_eq!(retention["period"], format!("{years}y"));
    }
    for (session, years) in [("by rule", 5), ("by record", 7)] {
        let strictest = listed(&simulator)
            .iter()
            .filter(|item| item.session_id == id(session))
            .filter(|item| years == 7 || item.media.context.as_deref() == Some("document-front"))
            .map(|item| evidence.due_of(&item.key, years))
            .max();
        let key = evidence.manifest_keys(&id(session))[0].to_owned();
        let lock = evidence.object(&key).unwrap().lock.clone();
        assert_eq!(lock, Some(("COMPLIANCE".to_owned(), strictest.unwrap())), "{session}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_gained_an_attempt_gets_its_new_media_and_a_second_manifest() {
    let (simulator, bucket, deployment) = deploy(small_world(13, 6), None).await;
    deployment.archive(&[]).await.expect(0);
    let before = Evidence::of_bucket(&bucket).await;
    let grown = simulator.world().session_ids()[2].clone();
    let more = Attempt::approved(id("later")).created(Some("2026-11-01T00:00:00.000Z"));
    simulator.add_attempt(&grown, more.image("face", 9_000).image("document-back", 7_000).nfc(3_000));
    simulator.reset_requests();
    deployment.lose_ledger();

    let second = deployment.archive(&["--results", "results.ndjson"]).await.expect(0);

    assert_eq!((second.count("archived"), second.count("unchanged")), (1, 5));
    assert_eq!(outcomes(&deployment)[&grown]["outcome"], "archived");
    assert_eq!(simulator.count(Endpoint::Media), 3);
    let after = Evidence::of_bucket(&bucket).await;
    after.expect_one_version_each();
    after.expect_whole(&simulator);
    after.expect_locks("COMPLIANCE", 5);
    for (key, object) in &before.objects {
        assert_eq!(&after.objects[key], object, "{key}");
    }
    // Three objects with their sidecars, and the manifest.
    assert_eq!(after.objects.len(), before.objects.len() + 7);
    let keys = after.manifest_keys(&grown);
    assert_eq!(keys.len(), 2);
    let (first, newest) = (after.object(keys[0]).unwrap(), after.json(keys[1]));
    assert_eq!(newest["sequence"], 2);
    assert_eq!(newest["previous"]["key"], keys[0]);
    assert_eq!(newest["previous"]["version_id"].as_str(), first.version_id.as_deref());
    assert_eq!(newest["previous"]["sha256"], sha256(&first.bytes));
    let held: Vec<_> = media_of(&after.json(keys[0])).cloned().collect();
    assert!(held.iter().all(|old| media_of(&newest).any(|media| media == old)));
    assert_eq!(media_of(&newest).count(), held.len() + 3);
}

/// What may come to lie over an object of the archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shadow {
    DeleteMarker,
    LaterVersion,
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lies_over_an_object_is_neither_believed_nor_written_over() {
    let (simulator, bucket, deployment) = deploy(small_world(14, 10), None).await;
    let ids = simulator.world().session_ids();
    deployment.archive(&[]).await.expect(0);
    let before = Evidence::of_bucket(&bucket).await;

    // Sessions 0 to 3 each have one kind of damage; 4 to 7 the same and a new attempt upstream; 8 and 9 are sound.
    let mut shadowed = BTreeMap::new();
    for (index, session) in ids.iter().take(8).enumerate() {
        let key = if index % 4 < 2 {
            before.manifest_keys(session)[0].to_owned()
        } else {
            media_of(&before.manifest(session)).next().unwrap()["key"].as_str().unwrap().to_owned()
        };
        let shadow = if index % 2 == 0 { Shadow::DeleteMarker } else { Shadow::LaterVersion };
        let full = format!("archive/{key}");
        match shadow {
            Shadow::DeleteMarker => {
                bucket.put_delete_marker(&full).await;
            }
            Shadow::LaterVersion => {
                let forged = String::from_utf8_lossy(&before.object(&key).unwrap().bytes)
                    .replace("approved", "declined")
                    .into_bytes();
                bucket.put_over(&full, &forged).await.unwrap();
            }
        }
        shadowed.insert(session.clone(), key);
        if index >= 4 {
            let attempt = Attempt::approved(id(&format!("late {index}"))).created(Some("2026-11-01T00:00:00.000Z"));
            simulator.add_attempt(session, attempt.image("face", 3_000).image("document-front", 2_000));
        }
    }
    let damaged = Evidence::of_bucket(&bucket).await;
    for ledger_is_lost in [false, true] {
        if ledger_is_lost {
            deployment.lose_ledger();
        }
        simulator.reset_requests();
        let run = deployment.archive(&["--results", "results.ndjson"]).await.expect(3);
        assert_eq!((run.count("failed"), run.count("unchanged")), (8, 2), "{}", run.stdout);
        assert_eq!(run.json()["codes"][0]["code"], "store.shadowed");
        assert_eq!(run.json()["codes"][0]["sessions"], 8);
        let lines = outcomes(&deployment);
        for (session, key) in &shadowed {
            assert_eq!(lines[session]["outcome"], "failed");
            assert_eq!(lines[session]["code"], "store.shadowed");
            assert!(lines[session]["message"].as_str().unwrap().contains(key), "{}", lines[session]);
        }
        let after = Evidence::of_bucket(&bucket).await;
        // Nothing that stood is gone, and nothing was put over it.
        for (key, versions) in &damaged.objects {
            assert_eq!(&after.objects[key], versions, "{key}");
        }
        // What is new upstream is archived all the same, each item once.
        let new = if ledger_is_lost { 0 } else { 8 };
        assert_eq!(simulator.count(Endpoint::Media), new);
        assert_eq!(after.objects.len(), damaged.objects.len() + 4 * 5);
        assert_eq!(bucket.delete_markers().await.len(), 4);
        for session in &ids[4..8] {
            let manifest = after.manifest(session);
            assert_eq!(manifest["sequence"], 2);
            assert_eq!(manifest["complete"], true);
            // Cumulative, whatever Veriff still lists.
            let named = media_of(&manifest).count();
            let expected = media_of(&before.manifest(session)).count() + 2;
            assert_eq!(named, expected);
            let first = &before.object(before.manifest_keys(session)[0]).unwrap();
            assert_eq!(manifest["previous"]["version_id"].as_str(), first.version_id.as_deref());
            assert_eq!(manifest["previous"]["sha256"], sha256(&first.bytes));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_is_not_what_the_policy_demands_is_refused_before_anything_is_written() {
    let simulator = Simulator::start(small_world(15, 3)).await.unwrap();
    let plain = s3().await.create_bucket("plain", false).await;
    let versioned = s3().await.create_bucket("versioned", false).await;
    versioned.turn_on_versions().await;
    let ids = simulator.world().session_ids();
    for identity in [ADMIN, WRITER] {
        for (bucket, advice) in [(&plain, "versioning"), (&versioned, "Object Lock")] {
            let deployment = Deployment::with_bucket(&simulator, bucket, identity, None);
            deployment.write_ids(&ids);
            let refused = deployment.archive(&[]).await.expect(77);
            assert!(refused.stderr.contains(advice), "{}", refused.stderr);
            assert!(refused.stderr.contains("retention.mode"), "{}", refused.stderr);
            assert!(bucket.versions().await.is_empty());
        }
        if identity == ADMIN {
            assert_eq!(simulator.stats().requests, 0);
        }
    }
    // Who may not read the bucket's configuration learns it from the first object, which is none of a session.
    assert_eq!(simulator.count(Endpoint::Media), 0);

    // The same bucket is good enough for a policy that locks nothing.
    let deployment = Deployment::with_bucket(&simulator, &plain, WRITER, Some("[retention]\nmode = \"none\"\n"));
    deployment.write_ids(&ids);
    deployment.archive(&[]).await.expect(0);
    let evidence = Evidence::of_bucket(&plain).await;
    evidence.expect_whole(&simulator);
    assert!(evidence.objects.values().flatten().all(|object| object.lock.is_none()));
    assert_eq!(deployment.archive(&[]).await.expect(0).count("unchanged"), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_does_not_let_us_in_is_a_refusal_and_not_a_failure_of_sessions() {
    let (simulator, bucket, mut deployment) = deploy(small_world(16, 3), None).await;
    deployment.set("AWS_SECRET_ACCESS_KEY", "not-the-secret");
    let refused = deployment.archive(&[]).await.expect(77);
    assert!(!refused.stderr.contains("not-the-secret"));
    assert!(bucket.versions().await.is_empty());

    let nobody = Identity { access_key_id: "NOBODY", secret_access_key: "nothing" };
    let stranger = Deployment::with_bucket(&simulator, &bucket, nobody, None);
    stranger.write_ids(&simulator.world().session_ids());
    stranger.archive(&[]).await.expect(77);

    let reader = Deployment::with_bucket(&simulator, &bucket, crate::support::s3::READER, None);
    reader.write_ids(&simulator.world().session_ids());
    reader.archive(&[]).await.expect(77);
    assert!(bucket.versions().await.is_empty());

    let missing = Deployment::with_bucket(&simulator, &bucket.named("no-such-bucket"), WRITER, None);
    missing.write_ids(&simulator.world().session_ids());
    let refused = missing.archive(&[]).await.expect(77);
    assert!(refused.stderr.contains("no-such-bucket") || refused.stderr.contains("bucket"), "{}", refused.stderr);
    assert_eq!(simulator.count(Endpoint::Media), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_of_another_archive_is_refused() {
    let (simulator, bucket, deployment) = deploy(small_world(17, 2), None).await;
    deployment.archive(&[]).await.expect(0);
    let other = s3().await.create_bucket("other", true).await;
    let mover = Deployment::with_bucket(&simulator, &other, WRITER, None);
    mover.write_ids(&simulator.world().session_ids());
    for name in ["ledger.db", "ledger.db-wal"] {
        let part = deployment.path(name);
        if part.exists() {
            std::fs::copy(part, mover.path(name)).unwrap();
        }
    }

    // The ledger knows an archive and this bucket is none.
    let refused = mover.archive(&[]).await.expect(77);
    assert!(refused.stderr.contains("ledger.url"), "{}", refused.stderr);
    assert!(other.versions().await.is_empty());

    // This bucket is another one.
    let owner = Deployment::with_bucket(&simulator, &other, ADMIN, None);
    owner.write_ids(&simulator.world().session_ids());
    owner.archive(&[]).await.expect(0);
    let before = Evidence::of_bucket(&other).await;
    mover.archive(&[]).await.expect(77);
    assert_eq!(Evidence::of_bucket(&other).await, before);

    // Its own ledger goes on.
    assert_eq!(deployment.archive(&[]).await.expect(0).count("unchanged"), 2);
    Evidence::of_bucket(&bucket).await.expect_whole(&simulator);
}
