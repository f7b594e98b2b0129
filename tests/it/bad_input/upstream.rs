//! Ids that Veriff lists and that cannot be keys: refused before they reach a URL or a key.

use veriff_sim::{Attempt, Media, Session, World, id};

use crate::support::scene::{Scene, session};
use crate::support::stored::{newest_manifest, objects};

/// A session with one good image and whatever else is given.
fn good(label: &str) -> (Session, Attempt) {
    (Session::new(id(label)), Attempt::approved(id(&format!("{label}: attempt"))).image("face", 5000))
}

#[tokio::test]
async fn ids_that_could_leave_their_place_are_refused_and_the_rest_is_archived() {
    let long = "a".repeat(129);
    let bad = ["a/b", "../../../escaped", "..", ".", "", "a.b", "a b", "%2e%2e", "a?b", "a#b", "\u{e9}", &long];
    let mut world = World::new().session(session("clean"));
    let mut failing = Vec::new();
    for (number, bad) in bad.iter().enumerate() {
        let (media, attempt) = good(&format!("media {number}"));
        let media = media.attempt(attempt.media(Media::image(*bad, "face", 4000)));
        let (attempts, attempt) = good(&format!("attempt {number}"));
        let attempts = attempts
            .attempt(Attempt::resubmission_requested(*bad).created(Some("2026-01-05T10:00:00Z")).image("face", 3000))
            .attempt(attempt);
        failing.extend([media.id.clone(), attempts.id.clone()]);
        world = world.session(media).session(attempts);
    }
    for reserved in ["manifest", "session", "expired"] {
        let (reserving, attempt) = good(reserved);
        let reserving = reserving
            .attempt(
                Attempt::resubmission_requested(reserved).created(Some("2026-01-05T10:00:00Z")).image("face", 3000),
            )
            .attempt(attempt);
        failing.push(reserving.id.clone());
        world = world.session(reserving);
    }
    let scene = Scene::of(world).await;
    scene.simulator.set_knobs(|knobs| knobs.check_uuid = false);
    let ended = scene.archive(&[]).await.expect(3);
    assert_eq!((ended.count("failed"), ended.count("archived")), (failing.len() as u64, 1), "{}", ended.stdout);
    for session in &failing {
        scene.assert_outcome(session, "failed", Some("veriff.unexpected"));
        let manifest = newest_manifest(&scene.store(), session);
        assert_eq!((&manifest["complete"], &manifest["totals"]["media"]), (&false.into(), &1.into()), "{manifest}");
    }
    let ids = scene.ids();
    for key in objects(&scene.store()).keys().filter(|key| *key != "archive.json") {
        let parts: Vec<&str> = key.split('/').collect();
        assert_eq!((parts.len(), parts[0]), (4, "sessions"), "{key}");
        assert!(ids.iter().any(|id| id == parts[1]), "{key}");
        assert!(!key.contains("escaped") && !key.contains(&long), "{key}");
    }
    assert!(!scene.deployment.path("escaped").exists());
    let is_plain = |path: &str| path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/_-".contains(&byte));
    for seen in scene.simulator.requests() {
        assert!(is_plain(&seen.path), "asked for {}", seen.path);
    }
}

#[tokio::test]
async fn what_a_media_item_says_of_itself_never_becomes_part_of_a_key() {
    let (session, attempt) = good("odd");
    let odd = Media::image(id("odd media"), "../../face\"\n/x", 4000).mimetype("../../etc/passwd");
    let session = session.attempt(attempt.media(odd));
    let scene = Scene::of(World::new().session(session.clone())).await;
    scene.archive(&[]).await.expect(0);
    scene.assert_whole(&session.id);
    let key = format!("sessions/{}/{}/{}.bin", session.id, session.attempts[0].id, id("odd media"));
    assert!(objects(&scene.store()).contains_key(&key));
}

#[tokio::test]
async fn lists_with_values_of_other_kinds_are_read_as_far_as_they_go() {
    let mut session = session("strange");
    let extra = &mut session.attempts[0].media[0].extra;
    for (name, value) in [
        ("size", serde_json::json!(-1)),
        ("mimetype", serde_json::json!(["image/jpeg"])),
        ("context", serde_json::json!({ "a": 1 })),
        ("duration", serde_json::json!("long")),
    ] {
        extra.insert(name.to_owned(), value);
    }
    let scene = Scene::of(World::new().session(session.clone())).await;
    scene.archive(&[]).await.expect(0);
    scene.assert_whole(&session.id);
}
