//! What is in a bag: all evidence, under digests that others can check, with pages that lead to all of it and proofs.

use std::collections::BTreeSet;

use veriff_sim::{Attempt, Session, id};

use crate::support::evidence::{listed, small_world};
use crate::support::scene::{Scene, session, world_of};
use crate::support::stored;

use super::{archived, check_pages, checked, exported, files, media_of, names, overwrite, run_python};

#[tokio::test(flavor = "multi_thread")]
async fn a_bag_holds_all_evidence_and_passes_the_checks_of_others() {
    let scene = archived(small_world(31, 6)).await;
    let answer = exported(&scene.deployment, "bag", &["--organization", "Example Ltd"]).await.expect(0).json();
    let bag = scene.deployment.path("bag");
    checked(&bag).unwrap();
    assert_eq!(answer["schema"], "veriff-archive/export/v1");
    assert_eq!(answer["next"], "nothing");
    assert_eq!(answer["sessions"]["whole"], 6, "{answer}");

    let files = files(&bag);
    let expected: BTreeSet<String> =
        listed(&scene.simulator).iter().map(|item| veriff_sim::media_sha256(&item.media)).collect();
    assert_eq!(media_of(&files), expected);
    assert_eq!(answer["objects"], listed(&scene.simulator).len());
    let stored = stored::objects(&scene.store());
    for (key, bytes) in stored.iter().filter(|(key, _)| key.contains("/manifest/") || key.ends_with(".meta.json")) {
        assert!(files.values().any(|file| file == bytes), "{key} is not in the bag");
    }
    assert_eq!(files["data/event.json"], stored[answer["event_key"].as_str().unwrap()]);

    let info = String::from_utf8(files["bag-info.txt"].clone()).unwrap();
    let payload: Vec<&Vec<u8>> =
        files.iter().filter(|(path, _)| path.starts_with("data/")).map(|(_, bytes)| bytes).collect();
    let oxum = format!("Payload-Oxum: {}.{}\n", payload.iter().map(|bytes| bytes.len()).sum::<usize>(), payload.len());
    for line in [
        oxum.as_str(),
        "Source-Organization: Example Ltd\n",
        "Bag-Software-Agent: veriff-archive ",
        &format!("External-Identifier: {}\n", answer["event_id"].as_str().unwrap()),
    ] {
        assert!(info.contains(line), "{line} is not in\n{info}");
    }
    assert!(!info.contains("ZETA"), "{info}");
    assert_eq!(names(&scene.deployment.path("")).iter().filter(|name| name.starts_with('.')).count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bag_of_which_any_byte_was_changed_is_not_valid() {
    const FLIP: &str = "
import bagit, logging, os, sys
logging.disable(logging.CRITICAL)
root = sys.argv[1]
flipped = 0
for folder, _, names in os.walk(root):
    for name in names:
        path = os.path.join(folder, name)
        with open(path, 'rb') as file: before = file.read()
        places = [0, len(before) // 2, len(before) - 1]
        # The line feed that ends it is all that no digest covers.
        for at in places[:-1] if name == 'tagmanifest-sha256.txt' else places:
            with open(path, 'wb') as file: file.write(before[:at] + bytes([before[at] ^ 1]) + before[at + 1:])
            try: valid = bagit.Bag(root).is_valid()
            except bagit.BagError: valid = False
            assert not valid, (path, at)
            flipped += 1
        with open(path, 'wb') as file: file.write(before)
assert bagit.Bag(root).is_valid()
print(flipped)
";
    let scene = archived(world_of(&[session("one"), session("two")])).await;
    exported(&scene.deployment, "bag", &[]).await.expect(0);
    let flipped = run_python(FLIP, &[&scene.deployment.path("bag")]);
    // Two sessions of two items, sidecars and a manifest; event, page and four tag files.
    assert_eq!(flipped.trim().parse::<usize>().unwrap(), 3 * (2 * 5 + 2 + 4) - 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zip_holds_the_same_bag_uncompressed() {
    const UNPACK: &str = "
import sys, zipfile
with zipfile.ZipFile(sys.argv[1]) as bag:
    assert bag.testzip() is None
    assert {entry.compress_type for entry in bag.infolist()} == {zipfile.ZIP_STORED}
    bag.extractall(sys.argv[2])
";
    let scene = archived(small_world(32, 4)).await;
    exported(&scene.deployment, "bag", &[]).await.expect(0);
    let answer = exported(&scene.deployment, "Docket 12.zip", &[]).await.expect(0).json();
    assert_eq!(answer["form"], "zip");
    exported(&scene.deployment, "named", &["--zip"]).await.expect(0);
    for (name, root) in [("Docket 12.zip", "Docket 12"), ("named", "named")] {
        let unpacked = scene.deployment.path(&format!("unpacked {name}"));
        run_python(UNPACK, &[&scene.deployment.path(name), &unpacked]);
        checked(&unpacked.join(root)).unwrap();
        let (zipped, plain) = (files(&unpacked.join(root)), files(&scene.deployment.path("bag")));
        assert_eq!(zipped.keys().collect::<Vec<_>>(), plain.keys().collect::<Vec<_>>());
        assert_eq!(media_of(&zipped), media_of(&plain));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_session_has_a_page_where_there_are_many() {
    let sessions: Vec<Session> = (0..51)
        .map(|at| {
            let attempt =
                Attempt::approved(id(&format!("a{at}"))).image("face", 2_000).video("selfid_video", 3_000).nfc(1_000);
            Session::new(id(&format!("s{at}"))).attempt(attempt)
        })
        .collect();
    let scene = archived(world_of(&sessions)).await;
    exported(&scene.deployment, "many", &[]).await.expect(0);
    scene.deployment.write_ids(&scene.ids()[..50]);
    exported(&scene.deployment, "few", &[]).await.expect(0);
    assert_eq!(check_pages(&scene.deployment.path("many")), 52);
    assert_eq!(check_pages(&scene.deployment.path("few")), 1);
    for bag in ["many", "few"] {
        checked(&scene.deployment.path(bag)).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_of_a_signed_run_comes_with_its_proof() {
    let sessions: Vec<Session> = (0..9).map(|at| session(&format!("s{at}"))).collect();
    let scene = Scene::of(world_of(&sessions)).await;
    let (mut signed, unsigned) = (scene.ids(), scene.ids().split_off(7));
    signed.truncate(7);
    scene.deployment.write_ids(&signed);
    scene.sign_runs("default");
    let run = scene.archive(&[]).await.expect(0).json();
    scene.configure("", "tries = 3\n");
    scene.deployment.write_ids(&unsigned);
    scene.archive(&[]).await.expect(0);

    scene.deployment.write_ids(&scene.ids());
    let answer = exported(&scene.deployment, "bag", &[]).await.expect(0).json();
    assert_eq!((&answer["proofs"], &answer["sessions"]["whole"]), (&7.into(), &9.into()), "{answer}");
    let bag = scene.deployment.path("bag");
    checked(&bag).unwrap();
    assert_eq!(check_pages(&bag), 1);
    let page = std::fs::read_to_string(bag.join("data/index.html")).unwrap();
    assert_eq!(page.matches("signed record, line").count(), 7);
    assert_eq!(page.matches("left no signed record").count(), 2);
    for id in &signed {
        let proof = bag.join(format!("data/{id}/proofs/{}.json", run["run_id"].as_str().unwrap()));
        let words = ["prove", "--check", proof.to_str().unwrap(), "--public-key", "key.pem"];
        scene.deployment.run(words).await.expect(0);
    }
    assert!(unsigned.iter().all(|id| !bag.join(format!("data/{id}/proofs")).exists()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_that_a_signed_run_knows_otherwise_is_told_and_a_damaged_record_too() {
    let scene = Scene::of(world_of(&[session("one"), session("two")])).await;
    scene.sign_runs("default");
    scene.archive(&[]).await.expect(0);
    let ids = scene.ids();
    let path = scene.store().join(format!("sessions/{}/manifest/0001.json", ids[0]));
    let manifest = std::fs::read_to_string(&path).unwrap();
    overwrite(&path, manifest.replace("\"settled\":", "\"settled\": ").as_bytes());
    let answer = exported(&scene.deployment, "changed", &[]).await.expect(4).json();
    assert_eq!(answer["codes"], serde_json::json!({"manifest.invalid": 1}));
    assert_eq!(answer["first_problems"][0]["session_id"], ids[0]);
    assert_eq!((&answer["proofs"], &answer["sessions"]["damaged"]), (&1.into(), &1.into()), "{answer}");

    overwrite(&path, manifest.as_bytes());
    let chunk = stored::everything(&scene.store()).into_keys().find(|key| key.ends_with(".ndjson.gz")).unwrap();
    overwrite(&scene.store().join(chunk), b"no chunk");
    let answer = exported(&scene.deployment, "record", &[]).await.expect(4).json();
    assert_eq!(answer["codes"], serde_json::json!({"record.invalid": 1}));
    assert_eq!((&answer["proofs"], &answer["sessions"]["whole"]), (&0.into(), &2.into()), "{answer}");
    for bag in ["changed", "record"] {
        checked(&scene.deployment.path(bag)).unwrap();
    }
}
