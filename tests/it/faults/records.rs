//! Records: Veriff's JSON answers that are archived as evidence of their own.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use veriff_archive::model::digest::Sha256Digest;
use veriff_sim::{Document, Effect, Endpoint, Fault, Session};

use crate::support::scene::{Scene, session, world_of};
use crate::support::stored::{archived, manifests, missing, newest_manifest, objects, sidecar};

const ALL: &str = "records = [\"decision\", \"person\", \"watchlist-screening\"]\n";

async fn scene(session: &Session) -> Scene {
    Scene::with(world_of([session]), ALL, "tries = 3\n").await
}

/// The records of the newest manifest, by media id.
fn records(scene: &Scene, session: &Session) -> BTreeMap<String, Value> {
    let mut all = archived(&newest_manifest(&scene.store(), &session.id));
    all.retain(|_, media| media["kind"] == "record");
    all
}

/// The id of a record: its name and the digest of its canonical form, which for these is plain JSON with sorted keys.
fn record_id(name: &str, body: &[u8]) -> String {
    let value: BTreeMap<String, Value> = serde_json::from_slice(body).unwrap();
    let digest = Sha256Digest::of(&serde_json::to_vec(&value).unwrap()).to_string();
    format!("{name}-{}", &digest[..12])
}

#[tokio::test]
async fn records_are_archived_byte_for_byte_under_their_own_digest() {
    let one = session("one");
    let scene = scene(&one).await;
    scene.archive(&[]).await.expect(0);
    let records = records(&scene, &one);
    let names: Vec<&str> = records.keys().map(|id| id.rsplit_once('-').unwrap().0).collect();
    assert_eq!(names, ["decision", "person", "watchlist-screening"]);
    let objects = objects(&scene.store());
    for (id, media) in &records {
        let key = media["key"].as_str().unwrap();
        assert_eq!(key, format!("sessions/{}/session/{id}.json", one.id));
        let name = id.rsplit_once('-').unwrap().0;
        assert_eq!(*id, record_id(name, &objects[key]));
        let sidecar = sidecar(&scene.store(), id);
        assert_eq!((&sidecar["kind"], &sidecar["context"]), (&"record".into(), &name.into()));
        assert_eq!(sidecar["upstream"]["signature"], "match");
        assert_eq!(sidecar["upstream"]["path"], format!("/v1/sessions/{}/{name}", one.id));
    }
    scene.assert_whole(&one.id);
    assert_eq!(newest_manifest(&scene.store(), &one.id)["totals"]["media"], 5);
}

#[tokio::test]
async fn the_same_record_in_another_order_is_nothing_new_and_a_changed_one_is() {
    let one = session("one");
    let scene = scene(&one).await;
    let raw =
        |body: &str| Effect::Raw { status: 200, content_type: "application/json".to_owned(), body: body.to_owned() };
    let decision = |body| Fault::forever(raw(body)).on(Endpoint::Decision);
    let first = scene.simulator.set_fault(decision(
        r#"{"status":"success","verification":{"code":9001,"person":{"firstName":"TEST","score":1.0}}}"#,
    ));
    scene.archive(&[]).await.expect(0);
    let before = objects(&scene.store());

    scene.simulator.remove_fault(first);
    let shuffled = scene.simulator.set_fault(decision(
        r#"{ "verification": {"person": {"score": 1, "firstName": "TEST"}, "code": 9001}, "status": "success" }"#,
    ));
    let ended = scene.archive(&[]).await.expect(0);
    assert_eq!(ended.count("unchanged"), 1, "{}", ended.stdout);
    assert!(objects(&scene.store()) == before, "nothing was written");

    scene.simulator.remove_fault(shuffled);
    scene.simulator.set_fault(decision(r#"{"status":"success","verification":{"code":9102}}"#));
    let ended = scene.archive(&[]).await.expect(0);
    assert_eq!(ended.count("archived"), 1, "{}", ended.stdout);
    assert_eq!(manifests(&scene.store(), &one.id).len(), 2);
    let decisions = records(&scene, &one).into_keys().filter(|id| id.starts_with("decision-")).count();
    assert_eq!(decisions, 2, "a manifest is cumulative");
}

#[tokio::test]
async fn an_answer_without_content_is_no_record() {
    let mut one = session("one");
    (one.decision, one.person, one.watchlist) = (Document::Null, Document::Absent, Document::Null);
    let scene = scene(&one).await;
    scene.archive(&[]).await.expect(0);
    assert!(records(&scene, &one).is_empty());
    let manifest = newest_manifest(&scene.store(), &one.id);
    assert_eq!(manifest["complete"], true);
    assert_eq!(manifest["listings"].as_array().unwrap().len(), 3 + 3, "the answers are kept all the same");
    // A decision that comes later is new evidence.
    let decided = Document::Content(json!({ "id": one.id, "code": 9001 }));
    scene.simulator.world().session_mut(&one.id).unwrap().decision = decided;
    assert_eq!(scene.archive(&[]).await.expect(0).count("archived"), 1);
    assert_eq!(records(&scene, &one).len(), 1);
}

#[tokio::test]
async fn a_record_that_is_no_record_fails_the_session_and_its_media_are_archived() {
    let one = session("one");
    let scene = scene(&one).await;
    scene.simulator.set_fault(Fault::forever(Effect::Html { status: 200 }).on(Endpoint::Person));
    scene.archive(&[]).await.expect(3);
    scene.assert_outcome(&one.id, "failed", Some("veriff.unexpected"));
    let manifest = newest_manifest(&scene.store(), &one.id);
    assert_eq!((&manifest["complete"], &manifest["totals"]["media"]), (&false.into(), &4.into()));
    assert!(missing(&manifest).is_empty());
    scene.simulator.clear_faults();
    scene.archive(&[]).await.expect(0);
    scene.assert_whole(&one.id);
}

#[tokio::test]
async fn media_never_wait_for_a_record_that_cannot_be_had() {
    for (effect, exit, code) in [
        (Effect::status(503), 5, "veriff.unavailable"),
        (Effect::status(403), 3, "veriff.unauthorized"),
        (Effect::status(400), 3, "input.invalid"),
    ] {
        let sessions: Vec<Session> = (0..4).map(|number| session(&format!("session {number}"))).collect();
        let scene = Scene::with(world_of(&sessions), ALL, "tries = 2\n").await;
        scene.simulator.set_fault(Fault::forever(effect).on(Endpoint::Watchlist));
        let ended = scene.archive(&[]).await.expect(exit);
        assert_eq!(ended.count("failed"), 4, "{}", ended.stdout);
        for session in &sessions {
            scene.assert_outcome(&session.id, "failed", Some(code));
            let manifest = newest_manifest(&scene.store(), &session.id);
            assert_eq!((&manifest["complete"], &manifest["totals"]["media"]), (&false.into(), &4.into()));
        }
        scene.simulator.clear_faults();
        assert_eq!(scene.archive(&[]).await.expect(0).count("archived"), 4);
    }
}

#[tokio::test]
async fn a_record_that_can_be_had_at_the_second_try_is_archived() {
    let one = session("one");
    let scene = scene(&one).await;
    for endpoint in [Endpoint::Decision, Endpoint::Person, Endpoint::Watchlist] {
        scene.simulator.set_fault(Fault::once(Effect::status(503)).on(endpoint));
    }
    scene.archive(&[]).await.expect(0);
    assert_eq!(records(&scene, &one).len(), 3);
}
