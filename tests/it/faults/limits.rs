//! The limits of a run: it stops at each of them, loses nothing, and the next one goes on.

use veriff_sim::{Attempt, Effect, Endpoint, Fault, RetryAfter, Session, World, id};

use crate::support::scene::{Scene, session, world_of};
use crate::support::stored::{manifests, objects};

fn sessions(count: usize) -> Vec<Session> {
    (0..count).map(|number| session(&format!("session {number}"))).collect()
}

async fn one_at_a_time(count: usize) -> Scene {
    Scene::with(world_of(&sessions(count)), "", "sessions_in_flight = 1\ntries = 3\n").await
}

#[tokio::test]
async fn a_run_stops_at_its_number_of_sessions_and_the_next_goes_on() {
    let scene = one_at_a_time(5).await;
    let ended = scene.archive(&["--max-sessions", "2"]).await.expect(10);
    assert_eq!(ended.count("archived"), 2);
    let summary = ended.json();
    assert_eq!(summary["stopped"], "reached --max-sessions");
    assert!(summary["next"].as_str().unwrap().contains("--max-sessions 2"), "{summary}");
    let ended = scene.archive(&["--max-sessions", "2", "--limit-exit-code", "0"]).await.expect(0);
    assert_eq!(ended.json()["stopped"], "reached --max-sessions");
    // A run that ends exactly at its limit was not stopped by it.
    let ended = scene.archive(&["--max-sessions", "5"]).await.expect(0);
    assert_eq!((ended.count("unchanged"), ended.count("archived")), (2, 3));
    assert_eq!(ended.json()["stopped"], serde_json::Value::Null);
}

#[tokio::test]
async fn a_run_stops_at_its_number_of_bytes() {
    let scene = one_at_a_time(5).await;
    let ended = scene.archive(&["--max-bytes", "60kB"]).await.expect(10);
    assert_eq!((ended.count("archived"), &ended.json()["stopped"]), (2, &"reached --max-bytes".into()));
}

#[tokio::test]
async fn a_run_stops_at_its_number_of_failures() {
    let scene = one_at_a_time(5).await;
    scene.simulator.set_fault(Fault::forever(Effect::status(404)).on(Endpoint::Media));
    let ended = scene.archive(&["--max-failures", "2"]).await.expect(3);
    assert_eq!((ended.count("failed"), &ended.json()["stopped"]), (2, &"reached --max-failures".into()));
}

#[tokio::test]
async fn a_run_stops_when_its_time_is_over() {
    let scene = one_at_a_time(60).await;
    scene.simulator.set_knobs(|knobs| knobs.latency_ms = 40);
    let ended = scene.archive(&["--max-duration", "1s"]).await.expect(10);
    let archived = ended.count("archived");
    assert!((1..60).contains(&archived), "{}", ended.stdout);
    assert_eq!(ended.json()["stopped"], "reached --max-duration");
    let whole = scene.ids().iter().filter(|id| !manifests(&scene.store(), id).is_empty()).count();
    assert_eq!(whole as u64, archived);
}

#[tokio::test]
async fn a_run_in_which_nothing_succeeds_any_more_ends_with_5_and_all_stays_pending() {
    for status in [429, 503] {
        let scene =
            Scene::with(world_of(&sessions(6)), "", "tries = 40\nno_progress = \"3s\"\nsessions_in_flight = 3\n").await;
        scene.simulator.set_fault(Fault::forever(Effect::status(status)));
        let ended = scene.archive(&[]).await.expect(5);
        let summary = ended.json();
        assert_eq!(ended.count("pending"), summary["source"]["records"].as_u64().unwrap(), "{summary}");
        assert!(summary["stopped"].as_str().unwrap().contains("limits.no_progress"), "{summary}");
        scene.assert_nothing_written();
        scene.simulator.clear_faults();
        assert_eq!(scene.archive(&[]).await.expect(0).count("archived"), 6);
    }
}

#[tokio::test]
async fn a_wait_longer_than_the_patience_of_a_run_ends_it_with_5() {
    let scene = Scene::with(world_of(&sessions(4)), "", "no_progress = \"2s\"\n").await;
    let wait = Effect::too_many(Some(RetryAfter::Seconds(7200)));
    scene.simulator.set_fault(Fault::once(wait).on(Endpoint::Media));
    let ended = scene.archive(&[]).await.expect(5);
    assert!(ended.count("pending") >= 1, "{}", ended.stdout);
    assert_eq!(scene.archive(&[]).await.expect(0).count("failed"), 0);
}

#[tokio::test]
async fn a_body_that_stops_moving_does_not_hold_up_the_end_of_a_run() {
    let big = Session::new(id("big")).attempt(Attempt::approved(id("big: attempt")).video("selfid_video", 20_000_000));
    let scene = Scene::with(world_of([&big]), "", "no_progress = \"2s\"\n").await;
    let stall = Effect::Stall { after: 18_000_000, for_ms: 600_000 };
    scene.simulator.set_fault(Fault::forever(stall).on(Endpoint::Media));
    let ended = scene.archive(&[]).await.expect(5);
    assert_eq!(ended.count("pending"), 1);
    let keys: Vec<String> = objects(&scene.store()).into_keys().collect();
    assert_eq!(keys, ["archive.json"], "what was begun is cleaned up");
    scene.simulator.clear_faults();
    scene.archive(&[]).await.expect(0);
    scene.assert_whole(&big.id);
}

#[tokio::test]
async fn a_dry_run_writes_nothing_anywhere() {
    let scene = one_at_a_time(3).await;
    let ended = scene.archive(&["--dry-run"]).await.expect(0);
    assert_eq!((ended.count("archived"), &ended.json()["dry_run"]), (3, &true.into()));
    assert_eq!(scene.simulator.count(Endpoint::Media), 0);
    scene.assert_nothing_written();
    assert!(!scene.deployment.path("ledger.db").exists() && !scene.deployment.path("results.ndjson").exists());
    scene.archive(&[]).await.expect(0);
    let ended = scene.archive(&["--dry-run"]).await.expect(0);
    assert_eq!(ended.count("unchanged"), 3);
}

#[tokio::test]
async fn settled_sessions_are_skipped_without_asking_veriff() {
    let old = |label: &str, status: &str| {
        let attempt = Attempt::new(id(&format!("{label}: attempt")), status).created(Some("2026-01-05T10:00:00Z"));
        Session::new(id(label)).attempt(attempt.image("face", 5000))
    };
    let world = World::new().session(old("settled", "approved")).session(old("open", "review"));
    let scene = Scene::of(world).await;
    scene.archive(&[]).await.expect(0);
    for lose_ledger in [false, true] {
        if lose_ledger {
            scene.deployment.lose_ledger();
        }
        scene.simulator.reset_requests();
        let ended = scene.archive(&["--skip-settled"]).await.expect(0);
        assert_eq!(ended.count("unchanged"), 2);
        let asked: Vec<String> = scene.simulator.requests().into_iter().map(|seen| seen.id).collect();
        assert!(!asked.contains(&id("settled")), "{asked:?}");
        assert!(asked.contains(&id("open")), "{asked:?}");
    }
}

#[tokio::test]
async fn results_are_appended_and_unfinished_ones_are_done_alone() {
    let all = sessions(6);
    let scene = Scene::of(world_of(&all)).await;
    let broken = Fault::forever(Effect::status(500)).id(&all[1].id);
    scene.simulator.set_fault(broken);
    scene.simulator.delete_session(&all[2].id);
    let ended = scene.archive(&[]).await.expect(3);
    assert_eq!((ended.count("archived"), ended.count("failed"), ended.count("absent")), (4, 1, 1));
    let first = std::fs::read(scene.deployment.path("results.ndjson")).unwrap();
    scene.simulator.clear_faults();
    scene.simulator.reset_requests();
    let words = ["run", "--sessions", "results.ndjson", "--only", "unfinished", "--results", "results.ndjson"];
    let ended = scene.deployment.run(words).await.expect(3);
    crate::support::scene::assert_in_equals_out(&ended);
    assert_eq!(ended.json()["source"]["records"], 2, "{}", ended.stdout);
    assert_eq!((ended.count("archived"), ended.count("absent")), (1, 1));
    let asked: Vec<String> = scene.simulator.requests().into_iter().map(|seen| seen.id).collect();
    assert!(!asked.contains(&all[0].id), "{asked:?}");
    let second = std::fs::read(scene.deployment.path("results.ndjson")).unwrap();
    assert!(second.starts_with(&first) && second.len() > first.len(), "only ever appended to");
    scene.assert_outcome(&all[1].id, "archived", None);
}
