//! What goes wrong with a list: once, and for ever. A session whose lists may lack something is never called complete.

use veriff_sim::{Attempt, Effect, Endpoint, Fault, RetryAfter, Session, Signatures, id};

use crate::support::scene::{Scene, attempt_id, session, world_of};
use crate::support::stored::{archived, manifests, newest_manifest};

const LISTS: [Endpoint; 3] = [Endpoint::Attempts, Endpoint::SessionMedia, Endpoint::AttemptMedia];

/// The fault on one list of a session.
fn on(list: Endpoint, session: &Session, fault: Fault) -> Fault {
    let id = match list {
        Endpoint::AttemptMedia => attempt_id(session),
        _ => session.id.clone(),
    };
    fault.on(list).id(id)
}

fn corrupt() -> Effect {
    Effect::Signatures { mode: Signatures::Corrupt }
}

fn error_with_200() -> Effect {
    Effect::ErrorWith200 { code: "1101".to_owned() }
}

/// Faults after which the same list can be had.
fn passing() -> Vec<(&'static str, Effect)> {
    vec![
        ("429 with seconds", Effect::too_many(Some(RetryAfter::Seconds(1)))),
        ("429 with a date", Effect::too_many(Some(RetryAfter::Date(1)))),
        ("429 without a wait", Effect::too_many(None)),
        ("500", Effect::status(500)),
        ("502 of a proxy", Effect::Html { status: 502 }),
        ("503", Effect::status(503)),
        ("truncated", Effect::Truncate { after: 100 }),
        ("reset", Effect::Reset { after: 100 }),
        ("hangup", Effect::Hangup),
        ("HTML with 200", Effect::Html { status: 200 }),
        ("an error with 200", error_with_200()),
        ("empty", Effect::Empty { status: 200 }),
        ("broken JSON", Effect::InvalidJson),
        ("a wrong signature", corrupt()),
        ("gzip", Effect::Gzip),
        ("slow", Effect::Slow { bytes: 100, every_ms: 10 }),
        ("chunked", Effect::Chunked),
    ]
}

#[tokio::test]
async fn every_fault_of_a_list_that_passes_leaves_every_session_archived() {
    let faults = passing();
    let cases: Vec<(Endpoint, Effect, Session)> = LISTS
        .into_iter()
        .flat_map(|list| {
            let case =
                move |(name, effect): &(&str, Effect)| (list, effect.clone(), session(&format!("{list:?}: {name}")));
            faults.iter().map(case).collect::<Vec<_>>()
        })
        .collect();
    let scene = Scene::of(world_of(cases.iter().map(|(.., session)| session))).await;
    let set: Vec<_> = cases
        .iter()
        .map(|(list, effect, session)| {
            let fault = on(*list, session, Fault::once(effect.clone()));
            (scene.simulator.set_fault(fault), list, effect)
        })
        .collect();
    let ended = scene.archive(&[]).await.expect(0);
    assert_eq!(ended.count("archived"), cases.len() as u64);
    for (fault, list, effect) in set {
        assert_eq!(scene.simulator.fault_hits(fault), 1, "{list:?} {effect:?}");
    }
    for (.., session) in &cases {
        scene.assert_whole(&session.id);
    }
}

#[tokio::test]
async fn a_list_that_cannot_be_had_leaves_no_manifest_and_may_work_later() {
    let faults = [
        ("429", Effect::too_many(None), "veriff.throttled"),
        ("500", Effect::status(500), "veriff.unavailable"),
        ("503", Effect::status(503), "veriff.unavailable"),
        ("truncated", Effect::Truncate { after: 100 }, "veriff.unavailable"),
        ("reset", Effect::Reset { after: 100 }, "veriff.unavailable"),
        ("hangup", Effect::Hangup, "veriff.unavailable"),
    ];
    let cases: Vec<(Endpoint, &Effect, &str, Session)> = LISTS
        .into_iter()
        .flat_map(|list| {
            let case = move |(name, effect, code)| (list, effect, code, session(&format!("{list:?}: {name}")));
            faults.iter().map(|(name, effect, code)| (name, effect, *code)).map(case)
        })
        .collect();
    let clean = session("clean");
    let scene = Scene::of(world_of(cases.iter().map(|(.., session)| session).chain([&clean]))).await;
    for (list, effect, _, session) in &cases {
        scene.simulator.set_fault(on(*list, session, Fault::forever((*effect).clone())));
    }
    let ended = scene.archive(&[]).await.expect(5);
    assert_eq!((ended.count("failed"), ended.count("archived")), (cases.len() as u64, 1));
    assert!(ended.json()["next"].as_str().unwrap().contains(" run "), "{}", ended.stdout);
    for (list, effect, code, session) in &cases {
        let outcome = &scene.outcomes()[&session.id];
        assert_eq!(outcome, &("failed".to_owned(), Some((*code).to_owned())), "{list:?} {effect:?}");
        assert!(manifests(&scene.store(), &session.id).is_empty());
    }
    scene.assert_whole(&clean.id);
    scene.simulator.clear_faults();
    let ended = scene.archive(&[]).await.expect(0);
    assert_eq!((ended.count("archived"), ended.count("unchanged")), (cases.len() as u64, 1));
}

/// Answers that are no list, however often one asks.
fn nonsense() -> Vec<(&'static str, Effect)> {
    vec![
        ("HTML with 200", Effect::Html { status: 200 }),
        ("an error with 200", error_with_200()),
        ("empty", Effect::Empty { status: 200 }),
        ("broken JSON", Effect::InvalidJson),
        ("a redirect", Effect::Redirect { location: "http://127.0.0.1:9/".to_owned() }),
    ]
}

#[tokio::test]
async fn attempts_that_are_never_a_list_leave_no_manifest() {
    let faults = nonsense();
    let sessions: Vec<Session> = faults.iter().map(|(name, _)| session(name)).collect();
    let clean = session("clean");
    let scene = Scene::of(world_of(sessions.iter().chain([&clean]))).await;
    for ((_, effect), session) in faults.iter().zip(&sessions) {
        let fault = Fault::forever(effect.clone());
        scene.simulator.set_fault(on(Endpoint::Attempts, session, fault));
    }
    scene.archive(&[]).await.expect(3);
    for session in &sessions {
        scene.assert_outcome(&session.id, "failed", Some("veriff.unexpected"));
        assert!(manifests(&scene.store(), &session.id).is_empty());
    }
    scene.assert_whole(&clean.id);
}

#[tokio::test]
async fn media_lists_that_are_never_one_fail_the_session_and_the_rest_is_archived() {
    let faults = nonsense();
    let cases: Vec<(Endpoint, &Effect, Session)> = [Endpoint::SessionMedia, Endpoint::AttemptMedia]
        .into_iter()
        .flat_map(|list| {
            let case = move |(name, effect)| (list, effect, session(&format!("{list:?}: {name}")));
            faults.iter().map(|(name, effect)| (name, effect)).map(case)
        })
        .collect();
    let scene = Scene::of(world_of(cases.iter().map(|(.., session)| session))).await;
    for (list, effect, session) in &cases {
        scene.simulator.set_fault(on(*list, session, Fault::forever((*effect).clone())));
    }
    scene.archive(&[]).await.expect(3);
    for (list, effect, session) in &cases {
        let outcome = &scene.outcomes()[&session.id];
        assert_eq!(outcome, &("failed".to_owned(), Some("veriff.unexpected".to_owned())), "{list:?} {effect:?}");
        let manifest = newest_manifest(&scene.store(), &session.id);
        assert_eq!(manifest["complete"], false, "{list:?} {effect:?}");
        assert_eq!(archived(&manifest).len(), 2, "the other list shows the same items");
    }
    scene.simulator.clear_faults();
    let ended = scene.archive(&[]).await.expect(0);
    assert_eq!(ended.count("archived"), cases.len() as u64);
    for (.., session) in &cases {
        scene.assert_whole(&session.id);
        assert_eq!(newest_manifest(&scene.store(), &session.id)["sequence"], 2);
    }
}

#[tokio::test]
async fn an_attempt_that_veriff_lists_and_does_not_have_fails_the_session() {
    let one = session("one").attempt(Attempt::approved(id("second attempt")).image("face", 10_000));
    let scene = Scene::of(world_of([&one])).await;
    let fault = Fault::forever(Effect::status(404)).on(Endpoint::AttemptMedia).id(attempt_id(&one));
    scene.simulator.set_fault(fault);
    scene.archive(&[]).await.expect(3);
    scene.assert_outcome(&one.id, "failed", Some("veriff.absent"));
    let manifest = newest_manifest(&scene.store(), &one.id);
    assert_eq!((&manifest["complete"], archived(&manifest).len()), (&false.into(), 1));
    assert!(manifest["listings"].to_string().contains("not found"), "the answer is evidence");
}
