//! What is odd rather than wrong: lengths, types and first bytes that are not as listed, addresses that lead elsewhere.

use veriff_sim::{Attempt, Effect, Endpoint, Fault, Media, Session, Simulator, World, id};

use crate::support::scene::{Scene, first_item, session, world_of};
use crate::support::stored::{anomalies, manifests, missing, newest_manifest, sidecar};

/// A session with one item that lists say something else of than comes.
fn odd_session(label: &str, change: impl FnOnce(&mut Media)) -> Session {
    let mut media = Media::image(id(&format!("{label}: media")), "face", 30_000);
    change(&mut media);
    Session::new(id(label)).attempt(Attempt::approved(id(&format!("{label}: attempt"))).media(media))
}

#[tokio::test]
async fn what_is_not_as_listed_is_fetched_once_more_and_archived_with_an_anomaly() {
    let odd = [
        (odd_session("shorter", |media| media.listed_size = Some(30_001)), "size.differs"),
        (odd_session("longer", |media| media.listed_size = Some(29_999)), "size.differs"),
        (odd_session("much longer", |media| media.listed_size = Some(10)), "size.differs"),
        (
            odd_session("chunked and longer", |media| {
                media.listed_size = Some(10);
                media.content_length = false;
            }),
            "size.differs",
        ),
        (odd_session("other type", |media| media.content_type = Some("image/png".to_owned())), "type.differs"),
    ];
    let empty = odd_session("empty as listed", |media| media.size_bytes = 0);
    let scene = Scene::of(world_of(odd.iter().map(|(session, _)| session).chain([&empty]))).await;
    let ended = scene.archive(&[]).await.expect(0);
    assert_eq!(ended.count("archived"), odd.len() as u64 + 1);
    assert_eq!(ended.json()["warnings"]["size.differs"], 4, "{}", ended.stdout);
    for (session, code) in &odd {
        scene.assert_whole(&session.id);
        let found = sidecar(&scene.store(), &first_item(session));
        assert_eq!(anomalies(&found), [*code], "{}", session.id);
        assert_eq!(scene.simulator.media_gets(&first_item(session)), 2, "{}", session.id);
    }
    scene.assert_whole(&empty.id);
    assert_eq!(scene.simulator.media_gets(&first_item(&empty)), 1);
    let found = sidecar(&scene.store(), &first_item(&odd[0].0));
    assert_eq!(found["upstream"]["listed_size_bytes"], 30_001);
    assert_eq!(found["object"]["size_bytes"], 30_000);
}

#[tokio::test]
async fn an_item_that_is_longer_than_the_room_taken_for_it_is_begun_again_in_a_larger_one() {
    let sizes = |media: &mut Media| (media.listed_size, media.size_bytes) = (Some(10), 300_000);
    let announced = odd_session("announced", sizes);
    let mut chunked = odd_session("chunked", sizes);
    chunked.attempts[0].media[0].content_length = false;
    let scene = Scene::of(world_of([&announced, &chunked])).await;
    scene.archive(&[]).await.expect(0);
    for session in [&announced, &chunked] {
        scene.assert_whole(&session.id);
        assert_eq!(anomalies(&sidecar(&scene.store(), &first_item(session))), ["size.differs"]);
        assert_eq!(scene.simulator.media_gets(&first_item(session)), 3, "to learn its size, to have it, to confirm it");
    }
}

#[tokio::test]
async fn first_bytes_that_are_not_of_the_listed_type_are_kept_with_an_anomaly() {
    let odd = odd_session("not a png", |media| media.mimetype = "image/png".to_owned());
    let scene = Scene::of(world_of([&odd])).await;
    let body = Effect::Raw { status: 200, content_type: "image/png".to_owned(), body: "x".repeat(30_000) };
    scene.simulator.set_fault(Fault::forever(body).on(Endpoint::Media));
    scene.archive(&[]).await.expect(0);
    let found = sidecar(&scene.store(), &first_item(&odd));
    assert_eq!(anomalies(&found), ["magic.differs"]);
    assert_eq!(scene.simulator.media_gets(&first_item(&odd)), 2);
    let key = found["object"]["key"].as_str().unwrap();
    assert_eq!(std::fs::read(scene.store().join(key)).unwrap(), vec![b'x'; 30_000]);
}

#[tokio::test]
async fn an_oddity_that_was_an_accident_leaves_no_trace() {
    let one = session("one");
    let scene = Scene::of(world_of([&one])).await;
    let fault = Effect::ContentType { value: "text/plain".to_owned() };
    scene.simulator.set_fault(Fault::once(fault).on(Endpoint::Media).id(first_item(&one)));
    let ended = scene.archive(&[]).await.expect(0);
    assert_eq!(ended.json()["warnings"], serde_json::json!({}));
    assert!(anomalies(&sidecar(&scene.store(), &first_item(&one))).is_empty());
}

#[tokio::test]
async fn media_over_the_limit_is_not_taken_whether_or_not_it_says_so() {
    let plain = session("plain");
    let mut chunked = session("chunked");
    chunked.attempts[0].media[0].content_length = false;
    let scene = Scene::with(world_of([&plain, &chunked]), "", "max_media_size = \"25000B\"\n").await;
    let ended = scene.archive(&[]).await.expect(3);
    assert_eq!(ended.json()["codes"][0]["code"], "media.too_large");
    for session in [&plain, &chunked] {
        scene.assert_outcome(&session.id, "failed", Some("media.too_large"));
        let manifest = newest_manifest(&scene.store(), &session.id);
        assert_eq!(missing(&manifest)[&first_item(session)], "media.too_large");
        assert_eq!(manifest["totals"]["media"], 1);
        assert_eq!(scene.simulator.media_gets(&first_item(session)), 1, "not tried again");
    }
    scene.assert_only_media();
    // With a higher limit the same command completes them.
    scene.configure("", "max_media_size = \"30000B\"\n");
    scene.archive(&[]).await.expect(0);
    scene.assert_whole(&plain.id);
    scene.assert_whole(&chunked.id);
}

#[tokio::test]
async fn no_redirect_and_no_listed_address_is_ever_followed() {
    let bait = Simulator::start(World::new()).await.unwrap();
    let (listed, item, list) = (session("listed elsewhere"), session("item moved"), session("list moved"));
    let scene = Scene::of(world_of([&listed, &item, &list])).await;
    let moved = |path: &str| Effect::Redirect { location: format!("{}{path}", bait.base_url()) };
    let faults = [
        Fault::forever(Effect::UrlBase { base: bait.base_url() }),
        Fault::forever(moved(&format!("/v1/media/{}", first_item(&item)))).on(Endpoint::Media).id(first_item(&item)),
        Fault::forever(moved(&format!("/v1/sessions/{}/attempts", list.id))).on(Endpoint::Attempts).id(&list.id),
    ];
    for fault in faults {
        scene.simulator.set_fault(fault);
    }
    scene.archive(&[]).await.expect(3);
    scene.assert_whole(&listed.id);
    scene.assert_outcome(&item.id, "failed", Some("veriff.unexpected"));
    let manifest = newest_manifest(&scene.store(), &item.id);
    assert_eq!(missing(&manifest)[&first_item(&item)], "veriff.unexpected");
    scene.assert_outcome(&list.id, "failed", Some("veriff.unexpected"));
    assert!(manifests(&scene.store(), &list.id).is_empty());
    assert_eq!(bait.stats().connections, 0, "nothing was ever asked elsewhere");
    // The listing is kept as it came all the same.
    let stored = newest_manifest(&scene.store(), &listed.id)["listings"].to_string();
    assert!(stored.contains(&bait.base_url()));
}

#[tokio::test]
async fn a_decided_session_without_media_fails_and_an_undecided_one_does_not() {
    let decided = Session::new(id("decided")).attempt(Attempt::approved(id("decided: attempt")));
    let declined = Session::new(id("declined")).attempt(Attempt::declined(id("declined: attempt")));
    let created = Session::new(id("created")).attempt(Attempt::new(id("created: attempt"), "created"));
    let scene = Scene::of(world_of([&decided, &declined, &created])).await;
    let ended = scene.archive(&[]).await.expect(3);
    assert_eq!((ended.count("failed"), ended.count("archived")), (2, 1));
    for session in [&decided, &declined] {
        scene.assert_outcome(&session.id, "failed", Some("veriff.empty"));
        assert_eq!(newest_manifest(&scene.store(), &session.id)["totals"]["media"], 0);
    }
    scene.assert_outcome(&created.id, "archived", None);
}
