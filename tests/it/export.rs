//! Exports: whole bags that others can check, an event before the first byte, and nothing left out in silence.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::task::{Context, Waker};

use serde_json::Value;
use veriff_archive::clock::SystemClock;
use veriff_archive::error::Exit;
use veriff_archive::export::{Asked, ExportError, Form, Request, export};
use veriff_archive::keep::Keeper;
use veriff_archive::model::RunId;
use veriff_archive::model::digest::Sha256Digest;
use veriff_archive::model::retention::RetentionPolicy;
use veriff_archive::store::dir::DirStore;
use veriff_sim::{Attempt, Session, Simulator, World, id};

use crate::support::evidence::{listed, sha256, small_world};
use crate::support::faulty::{Call, Fault, FaultyStore, Verb};
use crate::support::program::{Deployment, Ended};
use crate::support::python;
use crate::support::records::{Records, line_of};
use crate::support::s3::{READER, WRITER, s3};
use crate::support::scene::{Scene, session, world_of};
use crate::support::stored;

const REASON: &str = "Anlass ZETA-4711 <b>&\"quoted\"</b>";

/// Archives a world into a directory.
async fn archived(world: World) -> Scene {
    let scene = Scene::of(world).await;
    scene.archive(&[]).await.expect(0);
    scene
}

/// Exports `sessions.txt`.
async fn exported(deployment: &Deployment, to: &str, more: &[&str]) -> Ended {
    let words = ["export", "--sessions", "sessions.txt", "--reason", REASON, "--to", to];
    deployment.run(words.into_iter().chain(more.iter().copied())).await
}

/// Checks a bag as others do; says what is wrong.
fn checked(bag: &Path) -> Result<(), String> {
    let output = Command::new(python::programs().join("bagit.py")).arg("--validate").arg(bag).output().unwrap();
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

/// Runs a few lines of Python that use the packages of the tests.
fn run_python(script: &str, arguments: &[&Path]) -> String {
    let output = Command::new(python::programs().join("python")).args(["-c", script]).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Every file of a bag by its path.
fn files(bag: &Path) -> BTreeMap<String, Vec<u8>> {
    stored::objects(bag)
}

/// What is there in a folder, hidden or not.
fn names(folder: &Path) -> BTreeSet<String> {
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Media and what lies beside them, by digest: what a bag holds of the evidence itself.
fn media_of(files: &BTreeMap<String, Vec<u8>>) -> BTreeSet<String> {
    let is_media = |path: &&String| {
        path.matches('/').count() == 3 && !path.ends_with(".meta.json") && !path.contains("/manifests/")
    };
    files.keys().filter(is_media).map(|path| sha256(&files[path])).collect()
}

/// The documents of events in a directory.
fn events(store: &Path) -> Vec<Value> {
    let objects = stored::objects(store);
    let events = objects.iter().filter(|(key, _)| key.starts_with("events/"));
    events.map(|(_, bytes)| serde_json::from_slice(bytes).unwrap()).collect()
}

/// Writes other bytes over an object of a directory, as someone with the right to could.
fn overwrite(path: &Path, bytes: &[u8]) {
    std::fs::remove_file(path).unwrap();
    std::fs::write(path, bytes).unwrap();
}

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

/// Makes a signed record of the run that archived these sessions, as the store tells of them.
fn record_of(run: &Value, store: &Path, ids: &[String]) -> Records {
    let mut records = Records::in_store(store);
    let started_at = run["started_at"].as_str().unwrap().parse().unwrap();
    records.next_is = Some((RunId::parse(run["run_id"].as_str().unwrap()).unwrap(), started_at));
    let lines: Vec<_> = ids.iter().map(|id| line_of(store, id)).collect();
    records.run("default", &lines);
    records
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_of_a_signed_run_comes_with_its_proof() {
    let sessions: Vec<Session> = (0..9).map(|at| session(&format!("s{at}"))).collect();
    let scene = Scene::of(world_of(&sessions)).await;
    let (mut signed, unsigned) = (scene.ids(), scene.ids().split_off(7));
    signed.truncate(7);
    scene.deployment.write_ids(&signed);
    let run = scene.archive(&[]).await.expect(0).json();
    let records = record_of(&run, &scene.store(), &signed);
    scene.deployment.write_ids(&unsigned);
    scene.archive(&[]).await.expect(0);
    records.write_public_key(&scene.deployment.path("public.pem"));

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
        let words = ["prove", "--check", proof.to_str().unwrap(), "--public-key", "public.pem"];
        scene.deployment.run(words).await.expect(0);
    }
    assert!(unsigned.iter().all(|id| !bag.join(format!("data/{id}/proofs")).exists()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_that_a_signed_run_knows_otherwise_is_told_and_a_damaged_record_too() {
    let scene = Scene::of(world_of(&[session("one"), session("two")])).await;
    let run = scene.archive(&[]).await.expect(0).json();
    let ids = scene.ids();
    record_of(&run, &scene.store(), &ids);
    let path = scene.store().join(format!("sessions/{}/manifest/0001.json", ids[0]));
    let manifest = std::fs::read_to_string(&path).unwrap();
    overwrite(&path, manifest.replace("\"settled\":", "\"settled\": ").as_bytes());
    let answer = exported(&scene.deployment, "changed", &[]).await.expect(4).json();
    assert_eq!(answer["codes"], serde_json::json!({"manifest.invalid": 1}));
    assert_eq!(answer["first_problems"][0]["session_id"], ids[0]);
    assert_eq!((&answer["proofs"], &answer["sessions"]["damaged"]), (&1.into(), &1.into()), "{answer}");

    overwrite(&path, manifest.as_bytes());
    let chunk = stored::objects(&scene.store()).into_keys().find(|key| key.ends_with(".ndjson.gz")).unwrap();
    overwrite(&scene.store().join(chunk), b"no chunk");
    let answer = exported(&scene.deployment, "record", &[]).await.expect(4).json();
    assert_eq!(answer["codes"], serde_json::json!({"record.invalid": 1}));
    assert_eq!((&answer["proofs"], &answer["sessions"]["whole"]), (&0.into(), &2.into()), "{answer}");
    for bag in ["changed", "record"] {
        checked(&scene.deployment.path(bag)).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_tells_who_exports_what_and_why() {
    let scene = archived(world_of(&[session("one"), session("two")])).await;
    let answer = exported(&scene.deployment, "bag.zip", &["--requested-by", "the court"]).await.expect(0).json();
    let mut ids = scene.ids();
    let input = ids.join("\n") + "\n";
    ids.sort();
    let events = events(&scene.store());
    let [event] = &events[..] else { panic!("{events:?}") };
    assert_eq!(event["event_id"], answer["event_id"]);
    assert_eq!(event["archive_id"], answer["archive_id"]);
    assert_eq!((&event["kind"], &event["destination"]), (&"export".into(), &"zip".into()));
    assert_eq!((&event["reason"], &event["requested_by"]), (&REASON.into(), &"the court".into()));
    assert!(event["actor"].as_str().unwrap().contains('@'), "{event}");
    assert_eq!(event["sessions"]["ids"], serde_json::json!(ids));
    assert_eq!(event["sessions"]["sha256"], sha256((ids.join("\n") + "\n").as_bytes()));
    assert_eq!(event["input_sha256"], sha256(input.as_bytes()));
    assert!(!event.to_string().contains("bag.zip"), "{event}");
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_the_reason_nor_anything_of_a_person_reaches_a_log() {
    let scene = archived(world_of(&[session("one")])).await;
    for (more, code) in [(&["--to", "bag"][..], 0), (&["--to", "bag"], 2), (&["--to", "no-folder/bag"], 5)] {
        let words = ["--log-level", "trace", "export", "--sessions", "sessions.txt", "--reason", REASON];
        let words = words.into_iter().chain(["--requested-by", "Ada Lovelace"]).chain(more.iter().copied());
        let ended = scene.deployment.run(words).await.expect(code);
        for text in [&ended.stdout, &ended.stderr] {
            assert!(!text.contains("ZETA") && !text.contains("Lovelace") && !text.contains("document-front"), "{text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_usage_writes_no_event_and_touches_nothing() {
    let scene = archived(world_of(&[session("one")])).await;
    let taken = scene.deployment.write("taken", "mine");
    for (words, code) in [
        (&["--sessions", "sessions.txt", "--reason", "r", "--to", "taken"][..], 2),
        (&["--sessions", "sessions.txt", "--reason", " ", "--to", "bag"], 2),
        (&["--sessions", "sessions.txt", "--to", "bag"], 2),
        (&["--reason", "r", "--to", "bag"], 2),
        (&["--sessions", "sessions.txt", "--session", "s", "--reason", "r", "--to", "bag"], 2),
        (&["--sessions", "nowhere.txt", "--reason", "r", "--to", "bag"], 2),
        (&["--session", "no id", "--reason", "r", "--to", "bag"], 2),
        (&["--sessions", "sessions.txt", "--reason", "r", "--to", "no-folder/bag"], 5),
        (&["--sessions", "archive.toml", "--format", "plain", "--reason", "r", "--to", "bag"], 3),
        (&["--sessions", "sessions.txt", "--store", "file:///nowhere/at/all", "--reason", "r", "--to", "bag"], 77),
    ] {
        let ended = scene.deployment.run(["export"].iter().chain(words)).await;
        assert_eq!(ended.code, Some(code), "{words:?}: {}", ended.stderr);
        assert!(!ended.stderr.is_empty(), "{words:?}");
    }
    assert_eq!(std::fs::read_to_string(taken).unwrap(), "mine");
    assert!(events(&scene.store()).is_empty());
    assert!(!names(&scene.deployment.path("")).iter().any(|name| name.starts_with("bag") || name.starts_with('.')));
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

/// Holds every page of a bag to what is promised of it, and counts them.
fn check_pages(bag: &Path) -> usize {
    let files = files(bag);
    let pages: Vec<&String> = files.keys().filter(|path| path.ends_with("index.html")).collect();
    let mut linked: BTreeSet<PathBuf> = BTreeSet::new();
    for path in &pages {
        let page = String::from_utf8(files[*path].clone()).unwrap();
        let folder = Path::new(path).parent().unwrap();
        assert!(page.starts_with("<!DOCTYPE html>\n<html lang=\"en\">"), "{path}");
        assert!(page.contains("default-src &#x27;none&#x27;") || page.contains("default-src 'none'"), "{path}");
        for forbidden in ["<script", "http://", "https://", " onclick", "javascript:", "undefined", "<b>"] {
            assert!(!page.contains(forbidden), "{path} contains {forbidden}");
        }
        let style = page.split("<style>").nth(1).and_then(|rest| rest.split("</style>").next()).unwrap();
        let style = Sha256Digest::of(style.as_bytes()).to_base64();
        assert!(unescaped(&page).contains(&format!("style-src 'sha256-{style}'")), "{path}");
        assert_eq!(page.matches("<img ").count(), page.matches("alt=\"").count(), "{path}");
        for attribute in [" href=\"", " src=\""] {
            for link in page.split(attribute).skip(1).map(|rest| unescaped(rest.split('"').next().unwrap())) {
                if let Some(anchor) = link.strip_prefix('#') {
                    assert!(page.contains(&format!("id=\"{anchor}\"")), "{path} links to {link}");
                    continue;
                }
                let target = folder.join(&link);
                assert!(bag.join(&target).is_file(), "{path} links to {link}");
                linked.insert(bag.join(target).canonicalize().unwrap());
            }
        }
    }
    let payload = files.keys().filter(|path| path.starts_with("data/") && *path != "data/index.html");
    for path in payload {
        let place = bag.join(path).canonicalize().unwrap();
        assert!(linked.contains(&place), "no page leads to {path}");
    }
    pages.len()
}

fn unescaped(text: &str) -> String {
    text.replace("&#x2f;", "/").replace("&#x27;", "'").replace("&amp;", "&")
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_right_to_write_the_event_nothing_is_exported() {
    let simulator = Simulator::start(small_world(33, 3)).await.unwrap();
    let bucket = s3().await.create_bucket("export", true).await;
    let mut deployment = Deployment::with_bucket(&simulator, &bucket, WRITER, None);
    deployment.write_ids(&simulator.world().session_ids());
    deployment.archive(&[]).await.expect(0);
    let before = bucket.versions().await;

    READER.environment().into_iter().for_each(|(name, value)| deployment.set(name, value));
    let ended = exported(&deployment, "bag", &[]).await.expect(77);
    assert!(ended.stderr.contains("event"), "{}", ended.stderr);
    assert_eq!(bucket.versions().await, before);
    assert!(!names(&deployment.path("")).iter().any(|name| name.contains("bag")));

    WRITER.environment().into_iter().for_each(|(name, value)| deployment.set(name, value));
    let answer = exported(&deployment, "bag", &[]).await.expect(0).json();
    checked(&deployment.path("bag")).unwrap();
    let key = format!("archive/{}", answer["event_key"].as_str().unwrap());
    let written: Vec<String> =
        bucket.versions().await.into_iter().filter(|it| !before.contains(it)).map(|it| it.key).collect();
    assert_eq!(written, std::slice::from_ref(&key));
    assert_eq!(bucket.retention(&key, None).await.unwrap().0, "COMPLIANCE");
    let page = std::fs::read_to_string(deployment.path("bag/data/index.html")).unwrap();
    assert!(page.contains("COMPLIANCE until "), "the page tells the locks");
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
    assert_eq!(answer["codes"], serde_json::json!({"object.shadowed": 3}));
    assert_eq!(answer["objects"], items.len());
    checked(&deployment.path("after")).unwrap();
    let [before, after] = ["before", "after"].map(|bag| media_of(&files(&deployment.path(bag))));
    assert_eq!(before, after);
}

/// Exports from a store in which calls fail by a rule; also returns the calls.
async fn exported_from(
    scene: &Scene,
    to: &str,
    rule: impl FnMut(usize, &Call) -> Option<Fault> + Send + 'static,
) -> (Result<Value, ExportError>, Vec<Call>) {
    let (keeper, store) = keeper(scene, rule).await;
    let asked = Asked::of_ids(&scene.ids()).await.unwrap();
    let exported = export(&keeper, asked, request(scene, to)).await;
    (exported.map(|answer| serde_json::to_value(answer).unwrap()), store.calls())
}

/// Tells whether a media object is opened.
fn is_media(call: &Call) -> bool {
    let is_document = call.key.contains(".meta.") || call.key.contains("/manifest/");
    call.verb == Verb::Open && call.key.starts_with("sessions/") && !is_document
}

async fn keeper(
    scene: &Scene,
    rule: impl FnMut(usize, &Call) -> Option<Fault> + Send + 'static,
) -> (Keeper, Arc<FaultyStore>) {
    let directory = DirStore::open(&scene.store(), Arc::new(SystemClock)).await.unwrap();
    let store = FaultyStore::new(Arc::new(directory), rule);
    (Keeper::new(store.clone(), RetentionPolicy::unlocked(), None), store)
}

fn request(scene: &Scene, to: &str) -> Request {
    Request {
        place: scene.deployment.path(to),
        form: if to == "bag.zip" { Form::Zip } else { Form::Directory },
        actor: "test@test".to_owned(),
        store_principal: None,
        requested_by: None,
        reason: "test".to_owned(),
        organization: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_read_before_the_event_stands() {
    let scene = archived(world_of(&[session("one")])).await;
    let (answer, calls) = exported_from(&scene, "bag", |_, _| None).await;
    let key = answer.unwrap()["event_key"].as_str().unwrap().to_owned();
    let put = calls.iter().position(|call| call.verb == Verb::Put && call.key == key).unwrap();
    let confirmed = calls.iter().position(|call| call.verb == Verb::Head && call.key == key).unwrap();
    let read = calls.iter().position(|call| call.key.starts_with("sessions/")).unwrap();
    assert!(put < confirmed && confirmed < read, "{calls:?}");
    assert_eq!(calls.iter().filter(|call| call.is_effect()).count(), 1, "{calls:?}");

    let refuse = |_: usize, call: &Call| {
        (call.verb == Verb::Put && call.key.starts_with("events/")).then(|| Fault::Before(Fault::unavailable()))
    };
    for to in ["bag2", "bag.zip"] {
        let (refused, calls) = exported_from(&scene, to, refuse).await;
        assert_eq!(refused.unwrap_err().exit(), Exit::TryLater);
        assert!(!calls.iter().any(|call| call.key.starts_with("sessions/")), "{calls:?}");
    }
    assert!(!names(&scene.deployment.path("")).iter().any(|name| name.contains("bag2") || name.contains("bag.zip")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_stops_answering_leaves_no_bag() {
    let scene = archived(world_of(&[session("one"), session("two")])).await;
    for to in ["bag", "bag.zip"] {
        let mut media = 0;
        let fail = move |_: usize, call: &Call| {
            media += usize::from(is_media(call));
            (media > 2).then(|| Fault::Before(Fault::unavailable()))
        };
        let (failed, _) = exported_from(&scene, to, fail).await;
        assert_eq!(failed.unwrap_err().exit(), Exit::TryLater);
        assert!(!names(&scene.deployment.path("")).iter().any(|name| name.contains("bag")));
    }
    assert_eq!(events(&scene.store()).len(), 2, "the events stand all the same");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_export_leaves_nothing_that_looks_like_a_bag() {
    let scene = archived(world_of(&[session("one"), session("two")])).await;
    for to in ["bag", "bag.zip"] {
        let mut opened = 0;
        let kill = move |_: usize, call: &Call| {
            opened += usize::from(is_media(call));
            (opened > 2).then_some(Fault::KillBefore)
        };
        let (keeper, store) = keeper(&scene, kill).await;
        let asked = Asked::of_ids(&scene.ids()).await.unwrap();
        // Leaked, because a killed process cleans up nothing.
        let (keeper, request) = (Box::leak(Box::new(keeper)), request(&scene, to));
        let mut dying = Box::leak(Box::new(Box::pin(export(keeper, asked, request))));
        tokio::select! {
            ended = &mut dying => panic!("{ended:?}"),
            () = store.killed() => {}
        }
        assert!(dying.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());

        assert!(!scene.deployment.path(to).exists());
        let left = |prefix: &str| {
            let names = names(&scene.deployment.path(""));
            names.into_iter().filter(|name| name.starts_with(prefix)).collect::<Vec<_>>()
        };
        let prefix = format!(".{to}.");
        let [leftover] = &left(&prefix)[..] else { panic!("{:?}", left(&prefix)) };
        let path = scene.deployment.path(leftover);
        assert!(!path.join("bagit.txt").exists() && !path.join("manifest-sha256.txt").exists());
        if to == "bag.zip" {
            let listed = Command::new("python3").args(["-m", "zipfile", "-l"]).arg(&path).output().unwrap();
            assert!(!listed.status.success(), "half a zip can be opened");
        }

        let ended = exported(&scene.deployment, to, &[]).await.expect(0);
        assert!(ended.stderr.contains(leftover.as_str()), "the leftover is not told of: {}", ended.stderr);
        assert!(scene.deployment.path(to).exists() && path.exists());
    }
}
