//! Credentials that are refused, and integrations that are the wrong one.

use veriff_sim::{Effect, Endpoint, Fault, Integration, Session, World, id};

use crate::support::program::Ended;
use crate::support::scene::{Scene, first_item, session, world_of};
use crate::support::stored::{manifests, newest_manifest, objects};

const WRONG: &str = "00000000-0000-4000-8000-000000000000";

fn sessions(count: usize) -> Vec<Session> {
    (0..count).map(|number| session(&format!("session {number}"))).collect()
}

/// Fails unless everything stayed pending for this code and nothing was written.
#[track_caller]
fn assert_all_pending(scene: &Scene, ended: &Ended, code: &str) {
    let summary = ended.json();
    assert_eq!(ended.count("pending"), summary["source"]["records"].as_u64().unwrap(), "{summary}");
    assert_eq!(summary["codes"][0]["code"], code);
    assert!(summary["stopped_integrations"]["default"].is_string(), "{summary}");
    assert!(summary["next"].as_str().unwrap().ends_with(" doctor"), "{summary}");
    scene.assert_nothing_written();
}

#[tokio::test]
async fn a_wrong_secret_stops_within_a_handful_of_requests_and_writes_nothing() {
    for count in [1, 2, 3, 60] {
        let scene = Scene::of(world_of(&sessions(count))).await;
        scene.deployment.write("shared-secret", WRONG);
        let ended = scene.archive(&[]).await.expect(77);
        assert_all_pending(&scene, &ended, "veriff.unauthorized");
        let stats = scene.simulator.stats();
        assert_eq!(stats.requests, stats.bad_signatures);
        assert!(stats.requests <= 12, "{count} sessions: {} requests", stats.requests);
        assert!(!ended.stdout.contains(WRONG) && !ended.stderr.contains(WRONG));
        // Repeating the identical command once it is put right archives all.
        scene.deployment.write("shared-secret", &scene.simulator.secret());
        let ended = scene.archive(&[]).await.expect(0);
        assert_eq!(ended.count("archived"), count as u64);
    }
}

#[tokio::test]
async fn a_refused_key_stops_at_once_whatever_came_before() {
    for code in ["1801", "1802", "1803", "1804", "1812", "1813", "1814", "1815"] {
        let scene = Scene::with(world_of(&sessions(20)), "", "sessions_in_flight = 1\n").await;
        scene.simulator.set_fault(Fault::forever(Effect::unauthorized(code)));
        let ended = scene.archive(&[]).await.expect(77);
        assert_all_pending(&scene, &ended, "veriff.unauthorized");
        assert!(scene.simulator.stats().requests <= 2, "{code}");
    }
    // A refusal that does not name the key may be one session's own, so it takes three.
    let scene = Scene::with(world_of(&sessions(20)), "", "sessions_in_flight = 1\n").await;
    scene.simulator.set_fault(Fault::forever(Effect::status(403)));
    let ended = scene.archive(&[]).await.expect(77);
    assert_all_pending(&scene, &ended, "veriff.unauthorized");
    assert!((3..=6).contains(&scene.simulator.stats().requests));
}

#[tokio::test]
async fn a_secret_file_that_was_rotated_meanwhile_is_read_again() {
    let scene = Scene::with(world_of(&sessions(30)), "", "sessions_in_flight = 2\n").await;
    scene.simulator.set_knobs(|knobs| knobs.latency_ms = 5);
    let child = scene.deployment.start(["run", "--sessions", "sessions.txt", "--progress", "none"]);
    while scene.simulator.count(Endpoint::Media) < 5 {
        tokio::task::yield_now().await;
    }
    scene.deployment.write("shared-secret", WRONG);
    scene.simulator.rotate_secret("default", WRONG, false);
    let ended = crate::support::program::ended(child).await.expect(0);
    assert_eq!(ended.count("archived"), 30);
    assert!(ended.stderr.contains("read again"), "{}", ended.stderr);
    let refused = scene.simulator.stats().bad_signatures;
    assert!((1..=16).contains(&refused), "{refused} requests with the old secret");
    for session in scene.ids() {
        scene.assert_whole(&session);
    }
    assert_eq!(ended.json()["warnings"], serde_json::json!({}));
}

#[tokio::test]
async fn credentials_that_are_withdrawn_stop_the_integration_and_leave_the_rest_pending() {
    let scene = Scene::with(world_of(&sessions(40)), "", "sessions_in_flight = 4\n").await;
    scene.simulator.set_fault(Fault::forever(Effect::unauthorized("1818")).after(60));
    let ended = scene.archive(&[]).await.expect(77);
    let (archived, pending) = (ended.count("archived"), ended.count("pending"));
    assert!(archived >= 5 && pending >= 1, "{}", ended.stdout);
    assert_eq!(archived + pending, ended.json()["source"]["records"].as_u64().unwrap(), "{}", ended.stdout);
    assert!(scene.simulator.stats().requests <= 60 + 16, "{}", scene.simulator.stats().requests);
    scene.assert_only_media();
    scene.simulator.clear_faults();
    let ended = scene.archive(&[]).await.expect(0);
    assert_eq!(ended.count("unchanged"), archived, "{}", ended.stdout);
    for session in scene.ids() {
        scene.assert_whole(&session);
    }
}

#[tokio::test]
async fn a_foreign_session_among_good_ones_fails_alone() {
    let all = sessions(8);
    for foreign in [0, 4, 7] {
        for lists in [true, false] {
            let scene = Scene::with(world_of(&all), "", "sessions_in_flight = 1\n").await;
            let fault = Fault::forever(Effect::unauthorized("1818"));
            let fault = if lists {
                fault.id(&all[foreign].id)
            } else {
                fault.on(Endpoint::Media).id(first_item(&all[foreign]))
            };
            scene.simulator.set_fault(fault);
            let ended = scene.archive(&[]).await.expect(3);
            assert_eq!((ended.count("failed"), ended.count("archived")), (1, 7), "{}", ended.stdout);
            scene.assert_outcome(&all[foreign].id, "failed", Some("veriff.unauthorized"));
            assert_eq!(manifests(&scene.store(), &all[foreign].id).is_empty(), lists);
        }
    }
}

/// A world whose sessions all belong to another integration than the one that is configured.
fn foreign_world(count: usize) -> World {
    let world = World::new().integration(Integration::new("other"));
    sessions(count).into_iter().fold(world, |world, session| world.session(session.integration("other")))
}

#[tokio::test]
async fn the_wrong_integration_stops_and_writes_nothing() {
    for count in [5, 21, 60] {
        let scene = Scene::of(foreign_world(count)).await;
        let ended = scene.archive(&[]).await.expect(77);
        assert_all_pending(&scene, &ended, "veriff.absent");
        let stopped = ended.json()["stopped_integrations"]["default"].to_string();
        assert!(stopped.contains("--expect-absent"), "{stopped}");
        let requests = scene.simulator.stats().requests;
        assert!(requests <= 2 * 23, "{count}: {requests}");
    }
}

#[tokio::test]
async fn four_absent_sessions_may_be_chance_and_any_number_is_with_expect_absent() {
    for (count, words) in [(4, &[][..]), (21, &["--expect-absent"][..])] {
        let scene = Scene::of(foreign_world(count)).await;
        let ended = scene.archive(words).await.expect(3);
        assert_eq!(ended.count("absent"), count as u64);
        for session in scene.ids() {
            assert_eq!(newest_manifest(&scene.store(), &session)["absent"]["http_status"], 404);
        }
        assert_eq!(objects(&scene.store()).len(), count + 1, "one manifest each, and archive.json");
    }
}

#[tokio::test]
async fn one_integration_that_is_refused_does_not_stop_another() {
    let mut world = World::new().integration(Integration::new("other"));
    for session in sessions(12) {
        let name = if session.id < id("session 0") { "default" } else { "other" };
        world = world.session(session.integration(name));
    }
    let scene = Scene::of(world).await;
    let other = Integration::new("other");
    scene.deployment.write("other-key", &other.api_key);
    scene.deployment.write("other-secret", WRONG);
    scene.deployment.configure_more(&format!(
        "[integrations.other]\nbase_url = \"{}\"\nallow_http = true\nhorizon = \"36500d\"\n\
         api_key = {{ file = \"other-key\" }}\nshared_secret = {{ file = \"other-secret\" }}\n",
        scene.simulator.base_url()
    ));
    let owned = |name: &str| {
        let world = scene.simulator.world();
        let own = world.sessions().iter().filter(|session| session.integration == name);
        own.map(|session| session.id.clone()).collect::<Vec<_>>()
    };
    let (good, refused) = (owned("default"), owned("other"));
    assert!(!good.is_empty() && refused.len() >= 3);
    let lines: Vec<String> = scene
        .simulator
        .world()
        .sessions()
        .iter()
        .map(|session| serde_json::json!({ "session_id": session.id, "integration": session.integration }).to_string())
        .collect();
    scene.deployment.write_ids(&lines);
    let ended = scene.archive(&[]).await.expect(77);
    assert_eq!(ended.count("archived"), good.len() as u64, "{}", ended.stdout);
    assert_eq!(ended.count("pending"), refused.len() as u64);
    let stopped = ended.json()["stopped_integrations"].clone();
    assert!(stopped["other"].is_string() && stopped["default"].is_null(), "{stopped}");
    for session in good {
        scene.assert_whole(&session);
    }
    for session in refused {
        assert!(manifests(&scene.store(), &session).is_empty());
    }
}
