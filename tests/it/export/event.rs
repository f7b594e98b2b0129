//! The event before the first byte, and no bag without its end.

use std::future::Future as _;
use std::process::Command;
use std::sync::Arc;
use std::task::{Context, Waker};

use serde_json::Value;
use veriff_archive::clock::SystemClock;
use veriff_archive::error::Exit;
use veriff_archive::export::{Asked, ExportError, Form, Request, export};
use veriff_archive::model::retention::RetentionPolicy;
use veriff_archive::session::writer::ArchiveWriter;
use veriff_archive::store::dir::DirStore;
use veriff_sim::Simulator;

use crate::support::evidence::{sha256, small_world};
use crate::support::faulty::{Call, Fault, FaultyStore, Verb};
use crate::support::program::Deployment;
use crate::support::s3::{READER, WRITER, s3};
use crate::support::scene::{Scene, session, world_of};

use super::{REASON, archived, checked, events, exported, names};

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

/// Exports from a store in which calls fail by a rule; also returns the calls.
async fn exported_from(
    scene: &Scene,
    to: &str,
    rule: impl FnMut(usize, &Call) -> Option<Fault> + Send + 'static,
) -> (Result<Value, ExportError>, Vec<Call>) {
    let (writer, store) = writer(scene, rule).await;
    let asked = Asked::of_ids(&scene.ids()).await.unwrap();
    let exported = export(&writer, asked, request(scene, to)).await;
    (exported.map(|answer| serde_json::to_value(answer).unwrap()), store.calls())
}

/// Tells whether a media object is opened.
fn is_media(call: &Call) -> bool {
    let is_document = call.key.contains(".meta.") || call.key.contains("/manifest/");
    call.verb == Verb::Open && call.key.starts_with("sessions/") && !is_document
}

async fn writer(
    scene: &Scene,
    rule: impl FnMut(usize, &Call) -> Option<Fault> + Send + 'static,
) -> (ArchiveWriter, Arc<FaultyStore>) {
    let directory = DirStore::open(&scene.store(), Arc::new(SystemClock)).await.unwrap();
    let store = FaultyStore::new(Arc::new(directory), rule);
    (ArchiveWriter::new(store.clone(), RetentionPolicy::unlocked(), None), store)
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
        let (writer, store) = writer(&scene, kill).await;
        let asked = Asked::of_ids(&scene.ids()).await.unwrap();
        // Leaked, because a killed process cleans up nothing.
        let (writer, request) = (Box::leak(Box::new(writer)), request(&scene, to));
        let mut dying = Box::leak(Box::new(Box::pin(export(writer, asked, request))));
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
