//! What goes wrong with one media item: once, and for ever.

use std::collections::BTreeMap;

use veriff_sim::{Effect, Endpoint, Fault, RetryAfter, Session, Signatures};

use crate::support::scene::{Scene, first_item, session, world_of};
use crate::support::stored::{archived, manifests, missing, newest_manifest};

/// An HTML page that begins as no page usually does.
fn page(content_type: &str, start: &str) -> Effect {
    Effect::Raw {
        status: 200,
        content_type: content_type.to_owned(),
        body: format!("{start}<html><head><title>Please wait</title></head><body>{start}</body></html>"),
    }
}

fn error_with_200() -> Effect {
    Effect::ErrorWith200 { code: "1101".to_owned() }
}

fn corrupt() -> Effect {
    Effect::Signatures { mode: Signatures::Corrupt }
}

/// Faults that pass, each with its name.
fn passing() -> Vec<(&'static str, Effect)> {
    vec![
        ("429 with seconds", Effect::too_many(Some(RetryAfter::Seconds(1)))),
        ("429 with a date", Effect::too_many(Some(RetryAfter::Date(1)))),
        ("429 with nonsense", Effect::too_many(Some(RetryAfter::Text("soon".to_owned())))),
        ("429 without a wait", Effect::too_many(None)),
        ("500", Effect::status(500)),
        ("502 of a proxy", Effect::Html { status: 502 }),
        ("503", Effect::status(503)),
        ("truncated", Effect::Truncate { after: 1000 }),
        ("reset", Effect::Reset { after: 1000 }),
        ("hangup", Effect::Hangup),
        ("HTML with 200", Effect::Html { status: 200 }),
        ("a page behind a comment", page("text/html", "<!-- edge 7 -->\n")),
        ("a page behind a byte order mark", page("application/octet-stream", "\u{feff}")),
        ("an error with 200", error_with_200()),
        ("empty", Effect::Empty { status: 200 }),
        ("a wrong signature", corrupt()),
        ("other bytes", Effect::WrongBytes),
        ("another type", Effect::ContentType { value: "text/plain".to_owned() }),
        ("a stall", Effect::Stall { after: 1000, for_ms: 300 }),
        ("a late head", Effect::DelayHead { for_ms: 300 }),
        ("slow", Effect::Slow { bytes: 4096, every_ms: 10 }),
        ("chunked", Effect::Chunked),
    ]
}

/// Faults that stay, each with its name, the code its item ends with, and the session.
fn lasting() -> Vec<(&'static str, Effect, &'static str)> {
    vec![
        ("HTML with 200", Effect::Html { status: 200 }, "media.not_media"),
        ("a page behind a comment", page("text/html", "<!-- edge 7 -->\n"), "media.not_media"),
        ("a page behind a byte order mark", page("application/octet-stream", "\u{feff}"), "media.not_media"),
        ("an error with 200", error_with_200(), "media.not_media"),
        ("empty", Effect::Empty { status: 200 }, "media.empty"),
        ("404", Effect::status(404), "media.missing"),
        ("410", Effect::status(410), "media.missing"),
        ("418", Effect::status(418), "veriff.unexpected"),
        ("a redirect", Effect::Redirect { location: "http://127.0.0.1:9/".to_owned() }, "veriff.unexpected"),
    ]
}

/// Faults that stay and may pass one day.
fn lasting_but_retryable() -> Vec<(&'static str, Effect, &'static str)> {
    vec![
        ("429", Effect::too_many(None), "veriff.throttled"),
        ("500", Effect::status(500), "veriff.unavailable"),
        ("503", Effect::status(503), "veriff.unavailable"),
        ("502 of a proxy", Effect::Html { status: 502 }, "veriff.unavailable"),
        ("hangup", Effect::Hangup, "veriff.unavailable"),
        ("reset", Effect::Reset { after: 1000 }, "veriff.unavailable"),
        ("truncated", Effect::Truncate { after: 1000 }, "media.truncated"),
    ]
}

#[tokio::test]
async fn every_fault_that_passes_leaves_every_session_archived() {
    let faults = passing();
    let sessions: Vec<Session> = faults.iter().map(|(name, _)| session(name)).collect();
    let scene = Scene::of(world_of(&sessions)).await;
    let set: Vec<_> = faults
        .iter()
        .zip(&sessions)
        .map(|((name, effect), session)| {
            let fault = Fault::once(effect.clone()).on(Endpoint::Media).id(first_item(session));
            (name, scene.simulator.set_fault(fault))
        })
        .collect();
    let ended = scene.archive(&[]).await.expect(0);
    assert_eq!(ended.count("archived"), sessions.len() as u64);
    assert_eq!(ended.json()["next"], "nothing");
    for (name, fault) in set {
        assert_eq!(scene.simulator.fault_hits(fault), 1, "{name}");
    }
    for session in &sessions {
        scene.assert_whole(&session.id);
        assert_eq!(manifests(&scene.store(), &session.id).len(), 1);
    }
    scene.assert_only_media();
}

/// Runs a world in which each of these faults stays on one item of a session of its own, beside a clean session.
async fn run_with_lasting(faults: &[(&'static str, Effect, &'static str)], exit: i32) -> (Scene, Vec<Session>) {
    let sessions: Vec<Session> = faults.iter().map(|(name, ..)| session(name)).collect();
    let clean = session("clean");
    let scene = Scene::of(world_of(sessions.iter().chain([&clean]))).await;
    for ((_, effect, _), session) in faults.iter().zip(&sessions) {
        scene.simulator.set_fault(Fault::forever(effect.clone()).on(Endpoint::Media).id(first_item(session)));
    }
    let ended = scene.archive(&[]).await.expect(exit);
    assert_eq!(ended.count("failed"), sessions.len() as u64);
    assert_eq!(ended.count("archived"), 1);
    scene.assert_whole(&clean.id);
    scene.assert_only_media();
    (scene, sessions)
}

/// Fails unless a session failed for one item alone: the other is archived, this one is missing with its code.
#[track_caller]
fn assert_failed_for_one(scene: &Scene, session: &Session, code: &str) {
    scene.assert_outcome(&session.id, "failed", Some(code));
    let manifest = newest_manifest(&scene.store(), &session.id);
    assert_eq!(manifest["complete"], false);
    let expected = BTreeMap::from([(first_item(session), code.to_owned())]);
    assert_eq!(missing(&manifest), expected, "{}", session.id);
    let other = &session.attempts[0].media[1].id;
    assert_eq!(archived(&manifest).keys().collect::<Vec<_>>(), [other]);
}

#[tokio::test]
async fn a_fault_that_stays_fails_its_session_for_good_and_no_other() {
    let faults = lasting();
    let (scene, sessions) = run_with_lasting(&faults, 3).await;
    for ((_, _, code), session) in faults.iter().zip(&sessions) {
        assert_failed_for_one(&scene, session, code);
    }
}

#[tokio::test]
async fn a_fault_that_may_pass_is_tried_again_at_the_end_and_then_exits_5() {
    let faults = lasting_but_retryable();
    let (scene, sessions) = run_with_lasting(&faults, 5).await;
    for ((name, _, code), session) in faults.iter().zip(&sessions) {
        assert_failed_for_one(&scene, session, code);
        // Three tries, and three more at the end of the run; a try that is refused for load while nothing succeeds is free.
        let gets = scene.simulator.media_gets(&first_item(session));
        assert!(gets == 6 || *name == "429" && gets > 6, "{name}: {gets}");
        assert_eq!(manifests(&scene.store(), &session.id).len(), 1, "{name}");
    }
    scene.simulator.clear_faults();
    let ended = scene.archive(&[]).await.expect(0);
    assert_eq!((ended.count("archived"), ended.count("unchanged")), (sessions.len() as u64, 1));
    for session in &sessions {
        scene.assert_whole(&session.id);
        assert_eq!(manifests(&scene.store(), &session.id).len(), 2);
    }
}

#[tokio::test]
async fn an_item_that_was_not_there_is_tried_again_by_a_later_run() {
    let one = session("one");
    let scene = Scene::of(world_of([&one])).await;
    let fault = scene.simulator.set_fault(Fault::forever(Effect::status(404)).on(Endpoint::Media).id(first_item(&one)));
    let ended = scene.archive(&[]).await.expect(3);
    assert!(ended.json()["next"].as_str().unwrap().ends_with(" status"), "{}", ended.stdout);
    assert_failed_for_one(&scene, &one, "media.missing");
    assert_eq!(newest_manifest(&scene.store(), &one.id)["missing"][0]["http_status"], 404);
    assert_eq!(scene.simulator.media_gets(&first_item(&one)), 1);

    scene.archive(&[]).await.expect(3);
    assert_eq!(manifests(&scene.store(), &one.id).len(), 1, "nothing new, no new manifest");

    scene.simulator.remove_fault(fault);
    scene.simulator.reset_requests();
    scene.archive(&[]).await.expect(0);
    assert_eq!(scene.simulator.count(Endpoint::Media), 1, "only what was missing is fetched");
    scene.assert_whole(&one.id);
    let manifest = newest_manifest(&scene.store(), &one.id);
    assert_eq!(manifest["sequence"], 2);
    assert_eq!(manifest["previous"]["key"], format!("sessions/{}/manifest/0001.json", one.id));
}

#[tokio::test]
async fn a_wrong_signature_is_recorded_and_never_costs_the_evidence() {
    let (one, other) = (session("one"), session("other"));
    let scene = Scene::of(world_of([&one, &other])).await;
    scene.simulator.set_fault(Fault::forever(corrupt()).on(Endpoint::Media).id(first_item(&one)));
    let ended = scene.archive(&[]).await.expect(0);
    assert_eq!(ended.count("archived"), 2);
    assert_eq!(ended.json()["warnings"]["signature.mismatch"], 1, "{}", ended.stdout);
    assert_eq!(scene.simulator.media_gets(&first_item(&one)), 2, "once more and no more");
    scene.assert_whole(&one.id);
    let sidecar = crate::support::stored::sidecar(&scene.store(), &first_item(&one));
    assert_eq!(crate::support::stored::anomalies(&sidecar), ["signature.mismatch"]);
    assert_eq!(sidecar["upstream"]["signature"], "mismatch");
}

#[tokio::test]
async fn a_required_signature_that_is_wrong_or_absent_fails_the_session() {
    let (wrong, absent, right) = (session("wrong"), session("absent"), session("right"));
    let (lists, once) = (session("lists"), session("once"));
    let world = world_of([&wrong, &absent, &right, &lists, &once]);
    let scene = Scene::with(world, "response_signature = \"required\"\n", "tries = 3\n").await;
    let none = Effect::Signatures { mode: Signatures::None };
    let faults = [
        Fault::forever(corrupt()).on(Endpoint::Media).id(first_item(&wrong)),
        Fault::forever(none).on(Endpoint::Media).id(first_item(&absent)),
        Fault::forever(corrupt()).on(Endpoint::Attempts).id(&lists.id),
        Fault::once(corrupt()).on(Endpoint::Media).id(first_item(&once)),
    ];
    for fault in faults {
        scene.simulator.set_fault(fault);
    }
    let ended = scene.archive(&[]).await.expect(3);
    assert_eq!((ended.count("failed"), ended.count("archived")), (3, 2));
    let code = "media.signature_mismatch";
    assert_failed_for_one(&scene, &wrong, code);
    assert_failed_for_one(&scene, &absent, code);
    assert_eq!(scene.simulator.media_gets(&first_item(&wrong)), 2, "fetched once more");
    scene.assert_outcome(&lists.id, "failed", Some(code));
    assert!(manifests(&scene.store(), &lists.id).is_empty());
    scene.assert_whole(&right.id);
    scene.assert_whole(&once.id);
}

#[tokio::test]
async fn one_item_that_is_gone_does_not_keep_another_from_its_second_try() {
    let one = session("one");
    let scene = Scene::of(world_of([&one])).await;
    let (gone, busy) = (first_item(&one), one.attempts[0].media[1].id.clone());
    scene.simulator.set_fault(Fault::forever(Effect::status(404)).on(Endpoint::Media).id(&gone));
    scene.simulator.set_fault(Fault::times(3, Effect::status(500)).on(Endpoint::Media).id(&busy));
    let ended = scene.archive(&[]).await.expect(3);
    scene.assert_outcome(&one.id, "failed", Some("media.missing"));
    let manifest = newest_manifest(&scene.store(), &one.id);
    assert_eq!(missing(&manifest).into_keys().collect::<Vec<_>>(), [gone]);
    assert_eq!(archived(&manifest).into_keys().collect::<Vec<_>>(), [busy]);
    assert_eq!((ended.count("media"), ended.count("bytes")), (1, 20_000));
}

#[tokio::test]
async fn the_summary_tells_of_both_visits_of_a_session_that_was_tried_again() {
    let one = session("one");
    let scene = Scene::of(world_of([&one])).await;
    let busy = one.attempts[0].media[1].id.clone();
    scene.simulator.set_fault(Fault::forever(corrupt()).on(Endpoint::Media).id(first_item(&one)));
    scene.simulator.set_fault(Fault::times(3, Effect::status(500)).on(Endpoint::Media).id(&busy));
    let ended = scene.archive(&[]).await.expect(0);
    assert_eq!((ended.count("archived"), ended.count("media"), ended.count("bytes")), (1, 2, 50_000));
    assert_eq!(ended.json()["warnings"]["signature.mismatch"], 1, "{}", ended.stdout);
}
