//! Sessions that Veriff does not have: new ones, archived ones, and ones that come back.

use veriff_sim::{Effect, Endpoint, Fault, Presence, Session};

use crate::support::scene::{Scene, session, world_of};
use crate::support::stored::{manifests, newest_manifest, objects};

#[tokio::test]
async fn an_absent_session_leaves_the_answer_as_evidence_and_counts_for_exit_3() {
    let (there, gone) = (session("there"), session("gone"));
    let scene = Scene::of(world_of([&there, &gone])).await;
    scene.simulator.delete_session(&gone.id);
    let ended = scene.archive(&[]).await.expect(3);
    assert_eq!((ended.count("archived"), ended.count("absent")), (1, 1));
    scene.assert_outcome(&gone.id, "absent", Some("veriff.absent"));
    let manifest = newest_manifest(&scene.store(), &gone.id);
    assert_eq!(manifest["absent"]["http_status"], 404);
    assert_eq!(manifest["totals"]["media"], 0);
    let bodies: Vec<&str> =
        manifest["listings"].as_array().unwrap().iter().map(|listing| listing["body"].as_str().unwrap()).collect();
    assert!(!bodies.is_empty() && bodies.iter().all(|body| body.contains("not found")), "{bodies:?}");
    let keys: Vec<String> = objects(&scene.store()).into_keys().collect();
    let own: Vec<&String> = keys.iter().filter(|key| key.contains(&gone.id)).collect();
    assert_eq!(own, [&format!("sessions/{}/manifest/0001.json", gone.id)]);

    let again = scene.archive(&[]).await.expect(3);
    assert_eq!((again.count("unchanged"), again.count("absent")), (1, 1));
    assert_eq!(objects(&scene.store()).into_keys().collect::<Vec<_>>(), keys, "nothing new was written");
}

#[tokio::test]
async fn gone_for_good_is_absent_as_well() {
    let there = session("there");
    let gone = session("gone");
    let scene = Scene::of(world_of([&there, &gone])).await;
    scene.simulator.set_fault(Fault::forever(Effect::status(410)).id(&gone.id));
    scene.archive(&[]).await.expect(3);
    assert_eq!(newest_manifest(&scene.store(), &gone.id)["absent"]["http_status"], 410);
}

#[tokio::test]
async fn an_archived_session_that_veriff_deletes_is_unchanged() {
    let all: Vec<Session> = (0..25).map(|number| session(&format!("session {number}"))).collect();
    let scene = Scene::of(world_of(&all)).await;
    scene.archive(&[]).await.expect(0);
    let before = objects(&scene.store());
    for session in &all {
        assert!(scene.simulator.delete_session(&session.id));
    }
    for lose_ledger in [false, true] {
        if lose_ledger {
            scene.deployment.lose_ledger();
        }
        scene.simulator.reset_requests();
        let ended = scene.archive(&[]).await.expect(0);
        assert_eq!(ended.count("unchanged"), 25, "{}", ended.stdout);
        assert!(objects(&scene.store()) == before, "nothing was written");
        assert_eq!(scene.simulator.count(Endpoint::Media), 0);
    }
}

#[tokio::test]
async fn an_absent_session_that_comes_back_is_archived() {
    let (there, back) = (session("there"), session("back"));
    let scene = Scene::of(world_of([&there, &back])).await;
    scene.simulator.world().set_presence(&back.id, Presence::Archived);
    scene.archive(&[]).await.expect(3);
    scene.simulator.world().set_presence(&back.id, Presence::Present);
    let ended = scene.archive(&[]).await.expect(0);
    assert_eq!((ended.count("archived"), ended.count("unchanged")), (1, 1));
    scene.assert_whole(&back.id);
    let manifest = newest_manifest(&scene.store(), &back.id);
    assert_eq!((&manifest["sequence"], &manifest["absent"]), (&2.into(), &serde_json::Value::Null));
}

#[tokio::test]
async fn a_session_of_which_only_one_list_is_gone_is_not_absent() {
    let (there, half, other) = (session("there"), session("half"), session("other"));
    let scene = Scene::of(world_of([&there, &half, &other])).await;
    let gone = |list, session: &Session| Fault::forever(Effect::status(404)).on(list).id(&session.id);
    scene.simulator.set_fault(gone(Endpoint::Attempts, &half));
    scene.simulator.set_fault(gone(Endpoint::SessionMedia, &other));
    let ended = scene.archive(&[]).await.expect(3);
    assert_eq!((ended.count("failed"), ended.count("absent")), (2, 0), "{}", ended.stdout);
    for session in [&half, &other] {
        scene.assert_outcome(&session.id, "failed", Some("veriff.absent"));
        let manifest = newest_manifest(&scene.store(), &session.id);
        assert_eq!((&manifest["complete"], &manifest["totals"]["media"]), (&false.into(), &2.into()));
    }
    assert_eq!(manifests(&scene.store(), &there.id).len(), 1);
}
