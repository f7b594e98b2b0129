//! What is missing, changed, covered or not kept: the rest is exported, and nothing is left out in silence.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use veriff_sim::{Session, Simulator};

use crate::support::evidence::{listed, small_world};
use crate::support::program::Deployment;
use crate::support::s3::{WRITER, s3};
use crate::support::scene::{Scene, session, world_of};
use crate::support::stored;

use super::{check_pages, checked, exported, files, media_of, names, overwrite};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_or_changed_stays_out_and_is_told() {
    let labels = ["whole", "missing", "changed", "longer", "sidecar", "manifest", "unarchived"];
    let sessions: Vec<Session> = labels.iter().map(|label| session(label)).collect();
    let scene = Scene::of(world_of(&sessions)).await;
    let ids: BTreeMap<&str, String> = labels.iter().zip(&sessions).map(|(label, it)| (*label, it.id.clone())).collect();
    scene.deployment.write_ids(&sessions[..6].iter().map(|it| it.id.clone()).collect::<Vec<_>>());
    scene.archive(&[]).await.expect(0);
    let store = scene.store();
    let first = |label: &str| {
        let manifest = stored::newest_manifest(&store, &ids[label]);
        store.join(stored::text(&manifest["attempts"][0]["media"][0]["key"]))
    };
    std::fs::remove_file(first("missing")).unwrap();
    let mut bytes = std::fs::read(first("changed")).unwrap();
    bytes[100] ^= 1;
    overwrite(&first("changed"), &bytes);
    overwrite(&first("longer"), &[std::fs::read(first("longer")).unwrap(), b"!".to_vec()].concat());
    let sidecar = PathBuf::from(format!("{}.meta.json", first("sidecar").display()));
    overwrite(&sidecar, &[std::fs::read(&sidecar).unwrap(), b"\n".to_vec()].concat());
    overwrite(&store.join(format!("sessions/{}/manifest/0001.json", ids["manifest"])), b"{}");

    let mut lines: Vec<String> = sessions.iter().map(|it| it.id.clone()).collect();
    lines.extend(["Ada Lovelace!".to_owned(), ids["whole"].clone()]);
    scene.deployment.write_ids(&lines);
    let ended = exported(&scene.deployment, "bag", &[]).await.expect(4);
    let answer = ended.json();
    let bag = scene.deployment.path("bag");
    checked(&bag).unwrap();

    let files = files(&bag);
    let problems = String::from_utf8(files["data/problems.txt"].clone()).unwrap();
    let page = String::from_utf8(files["data/index.html"].clone()).unwrap();
    let found: BTreeSet<(String, String)> = answer["first_problems"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| (stored::text(&it["code"]), stored::text(&it["session_id"])))
        .collect();
    let expected = [
        ("object.missing", "missing"),
        ("object.digest", "changed"),
        ("object.size", "longer"),
        ("sidecar.invalid", "sidecar"),
        ("manifest.invalid", "manifest"),
        ("session.unarchived", "unarchived"),
    ];
    assert_eq!(found, expected.map(|(code, label)| (code.to_owned(), ids[label].clone())).into());
    for (code, label) in expected {
        assert!(problems.contains(code) && problems.contains(&ids[label]), "{problems}");
        assert!(page.contains(code) && page.contains(&ids[label]), "{code}");
    }
    let counts = serde_json::json!(
        {"asked": 7, "whole": 1, "damaged": 4, "expired": 0, "absent": 0, "unarchived": 2, "repeated": 1, "invalid": 1}
    );
    assert_eq!(answer["sessions"], counts);
    assert_eq!(answer["problems"], serde_json::json!({"error": 5, "warn": 1, "info": 0}));
    assert!(problems.contains("line 8"), "{problems}");
    // Of five sessions with two items each, three items are not what they should be.
    assert_eq!(answer["objects"], 7);
    assert!(!files.values().any(|file| *file == bytes), "changed bytes are in the bag");
    for text in [&problems, &page, &ended.stderr, &ended.stdout] {
        assert!(!text.contains("Lovelace"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_without_evidence_leave_a_bag_of_the_others_and_exit_3() {
    let gone = session("gone");
    let scene = Scene::of(world_of(&[session("here")])).await;
    let here = scene.ids()[0].clone();
    scene.deployment.write_ids(&[&here, &gone.id]);
    scene.archive(&["--expect-absent"]).await.expect(3);
    let answer = exported(&scene.deployment, "bag", &[]).await.expect(3).json();
    assert_eq!((&answer["sessions"]["whole"], &answer["sessions"]["absent"]), (&1.into(), &1.into()), "{answer}");
    assert!(scene.deployment.path(&format!("bag/data/{}/manifests/0001.json", gone.id)).exists());

    let words = ["export", "--session", "never-heard-of", "--session", &here, "--reason", "r", "--to", "other"];
    let answer = scene.deployment.run(words).await.expect(3).json();
    assert_eq!((&answer["sessions"]["whole"], &answer["sessions"]["unarchived"]), (&1.into(), &1.into()));
    for bag in ["bag", "other"] {
        checked(&scene.deployment.path(bag)).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lies_beside_a_key_and_what_was_expired_are_shown_as_such() {
    let [beside, expired] = [session("beside"), session("expired")];
    let scene = Scene::of(world_of(&[beside.clone(), expired.clone()])).await;
    let media = &beside.attempts[0].media[0];
    let key = format!("sessions/{}/{}/{}.jpg", beside.id, beside.attempts[0].id, media.id);
    std::fs::create_dir_all(scene.store().join(&key).parent().unwrap()).unwrap();
    std::fs::write(scene.store().join(&key), b"\xff\xd8\xff of somebody else").unwrap();
    scene.archive(&[]).await.expect(0);
    let answer = exported(&scene.deployment, "bag", &[]).await.expect(0).json();
    assert_eq!((&answer["sessions"]["whole"], &answer["objects"]), (&2.into(), &5.into()), "{answer}");
    let bag = files(&scene.deployment.path("bag"));
    let folder = format!("data/{}", beside.id);
    assert!(bag[&format!("{folder}/conflicts/01-ours.jpg")] == veriff_sim::media_bytes(media));
    assert_eq!(bag[&format!("{folder}/attempt-01-approved/01-face.jpg")], b"\xff\xd8\xff of somebody else");
    assert!(bag.contains_key(&format!("{folder}/conflicts/01-ours.jpg.meta.json")));
    assert_eq!(check_pages(&scene.deployment.path("bag")), 1);

    let folder = scene.store().join(format!("sessions/{}", expired.id));
    std::fs::create_dir(folder.join("expired")).unwrap();
    std::fs::write(folder.join("expired/0001.json"), b"{}").unwrap();
    let attempt = folder.join(&expired.attempts[0].id);
    let item = names(&attempt).into_iter().find(|name| !name.contains(".meta.")).unwrap();
    std::fs::remove_file(attempt.join(&item)).unwrap();
    std::fs::remove_file(attempt.join(format!("{item}.meta.json"))).unwrap();
    let answer = exported(&scene.deployment, "after", &[]).await.expect(3).json();
    assert_eq!(answer["codes"], serde_json::json!({"session.expired": 1}));
    assert_eq!((&answer["sessions"]["expired"], &answer["objects"]), (&1.into(), &4.into()), "{answer}");
    checked(&scene.deployment.path("after")).unwrap();
    let page = std::fs::read_to_string(scene.deployment.path("after/data/index.html")).unwrap();
    assert!(page.contains("it was expired by plan"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_archives_own_versions_are_exported_whatever_lies_over_them() {
    let simulator = Simulator::start(small_world(34, 3)).await.unwrap();
    let bucket = s3().await.create_bucket("export", true).await;
    let deployment = Deployment::with_bucket(&simulator, &bucket, WRITER, None);
    deployment.write_ids(&simulator.world().session_ids());
    deployment.archive(&[]).await.expect(0);
    exported(&deployment, "before", &[]).await.expect(0);

    let items = listed(&simulator);
    let [hidden, covered] = [&items[0], items.last().unwrap()];
    bucket.put_delete_marker(&format!("archive/{}", hidden.key)).await;
    bucket.put_over(&format!("archive/{}", covered.key), b"other bytes").await;
    bucket.put_delete_marker(&format!("archive/sessions/{}/manifest/0001.json", hidden.session_id)).await;
    let answer = exported(&deployment, "after", &[]).await.expect(4).json();
    assert_eq!(answer["codes"], serde_json::json!({"object.hidden": 2, "object.shadowed": 1}));
    assert_eq!(answer["objects"], items.len());
    checked(&deployment.path("after")).unwrap();
    let [before, after] = ["before", "after"].map(|bag| media_of(&files(&deployment.path(bag))));
    assert_eq!(before, after);
}
