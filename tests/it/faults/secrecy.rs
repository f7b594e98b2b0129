//! Nothing secret and nothing about a person is ever printed, at any level, or stands where it does not belong.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use veriff_sim::{Document, Effect, Endpoint, Fault, Signatures, World, media_bytes, sign, some_faults};

use crate::support::program::Ended;
use crate::support::scene::Scene;
use crate::support::stored::everything;

const NAME: &str = "Wilhelmina";
const SURNAME: &str = "Featherstonehaugh";
const NUMBER: &str = "QX7741903";

/// A world in which everything happens, about a person whose name one would find.
fn world() -> World {
    let mut world = World::builder(99).sessions(20).image_bytes(5000..=9000).video_bytes(9000..=20_000).build();
    for id in world.session_ids() {
        let session = world.session_mut(&id).unwrap();
        session.vendor_data = Some(format!("{SURNAME}/customer"));
        session.decision = Document::Content(json!({
            "id": id, "code": 9001, "vendorData": format!("{SURNAME}/customer"),
            "person": { "firstName": NAME, "lastName": SURNAME }, "document": { "number": NUMBER },
        }));
        session.person = Document::Content(json!({ "firstName": NAME, "lastName": SURNAME }));
    }
    let faults = some_faults(&world);
    let media: Vec<String> = world.all_media().map(|media| media.id.clone()).collect();
    let sessions = world.session_ids();
    let forever = |effect: Effect| Fault::forever(effect).on(Endpoint::Media);
    let lasting = [
        forever(Effect::status(500)).id(&media[1]),
        forever(Effect::Html { status: 200 }).id(&media[9]),
        forever(Effect::Signatures { mode: Signatures::Corrupt }).id(&media[17]),
        forever(Effect::Redirect { location: format!("http://127.0.0.1:9/{SURNAME}?token=t0k3n") }).id(&media[25]),
        forever(Effect::unauthorized("1818")).id(&media[33]),
        Fault::forever(Effect::Raw {
            status: 200,
            content_type: "application/json".to_owned(),
            body: format!("{{\"status\":\"fail\",\"message\":\"{NAME} {SURNAME}\""),
        })
        .on(Endpoint::Attempts)
        .id(&sessions[7]),
        Fault::forever(Effect::Hangup).on(Endpoint::SessionMedia).id(&sessions[11]),
    ];
    faults.into_iter().chain(lasting).fold(world, World::fault)
}

/// Everything that must never be shown: credentials, every signature of either side, listed addresses, the person.
fn secrets(scene: &Scene) -> BTreeSet<String> {
    let (key, secret) = (scene.simulator.api_key(), scene.simulator.secret());
    let world = scene.simulator.world();
    let mut all: BTreeSet<String> = [NAME, SURNAME, NUMBER, "t0k3n", &key, &secret].map(str::to_owned).into();
    for session in world.sessions() {
        all.insert(sign(&secret, session.id.as_bytes()));
        for attempt in &session.attempts {
            all.insert(sign(&secret, attempt.id.as_bytes()));
            for media in &attempt.media {
                all.insert(sign(&secret, media.id.as_bytes()));
                all.insert(sign(&secret, &media_bytes(media)));
                all.insert(format!("{}/v1/media/{}", scene.simulator.base_url(), media.id));
            }
        }
    }
    all.insert(sign(&secret, b"not this body"));
    all
}

/// The signatures and bodies of every list that was heard, from the manifests.
fn listed_signatures(scene: &Scene) -> BTreeSet<String> {
    let secret = scene.simulator.secret();
    let objects = everything(&scene.store());
    let manifests = objects.iter().filter(|(key, _)| key.contains("/manifest/"));
    manifests
        .flat_map(|(_, bytes)| {
            let manifest: Value = serde_json::from_slice(bytes).unwrap();
            manifest["listings"].as_array().unwrap().clone()
        })
        .filter_map(|listing| Some(sign(&secret, listing["body"].as_str()?.as_bytes())))
        .collect()
}

#[track_caller]
fn assert_silent(ended: &Ended, secrets: &BTreeSet<String>) {
    for (name, text) in [("stdout", &ended.stdout), ("stderr", &ended.stderr)] {
        for secret in secrets {
            assert!(!text.contains(secret.as_str()), "{name} has {secret}");
        }
    }
}

#[tokio::test]
async fn no_secret_signature_address_or_name_is_ever_printed_or_kept_in_the_ledger() {
    let loud = "trace,hyper=trace,hyper_util=trace,reqwest=trace,sqlx=trace,h2=trace,rustls=trace";
    for (format, level) in [("text", "trace"), ("json", loud)] {
        let scene = Scene::with(world(), "records = [\"decision\", \"person\"]\n", "tries = 3\n").await;
        let lines = format!("{}\n{NAME} {SURNAME}\n{{\"session_id\": \"{NUMBER} {NAME}\"}}\n", scene.ids().join("\n"));
        scene.deployment.write("sessions.txt", &lines);
        let levels = ["--log-level", level, "--log-format", format, "--output", format];
        let ended = scene.deployment.archive(&[&["--results", "results.ndjson"], &levels[..]].concat()).await.expect(3);
        assert!(ended.stderr.contains("trying again"), "the level was in force");
        let mut secrets = secrets(&scene);
        secrets.extend(listed_signatures(&scene));
        assert!(secrets.len() > 200);
        assert_silent(&ended, &secrets);

        // The other way round: with the person in the manifests and records, this search finds what it looks for.
        let stored: Vec<(String, Vec<u8>)> = everything(&scene.store()).into_iter().collect();
        let is_stored = |text: &str| {
            stored.iter().any(|(_, bytes)| bytes.windows(text.len()).any(|window| window == text.as_bytes()))
        };
        assert!(is_stored(SURNAME), "records are archived whole");
        assert!(!is_stored(&scene.simulator.secret()) && !is_stored(&scene.simulator.api_key()));

        for (key, _) in &stored {
            assert!(secrets.iter().all(|secret| !key.contains(secret.as_str())), "{key}");
        }
        for name in ["ledger.db", "ledger.db-wal", "results.ndjson"] {
            let Ok(bytes) = std::fs::read(scene.deployment.path(name)) else {
                continue;
            };
            let text = String::from_utf8_lossy(&bytes);
            for secret in &secrets {
                assert!(!text.contains(secret.as_str()), "{name} has {secret}");
            }
        }

        scene.simulator.clear_faults();
        for words in [
            &["config", "show"][..],
            &["config", "check"],
            &["status"],
            &["doctor"],
            &["plan", "--sessions", "sessions.txt", "--sample", "3"],
            &["run", "--sessions", "sessions.txt", "--progress", "log"],
            &["run", "--sessions", "sessions.txt", "--dry-run"],
        ] {
            let ended = scene.deployment.run(words.iter().chain(&levels)).await;
            assert_silent(&ended, &secrets);
        }
    }
}

#[tokio::test]
async fn refused_credentials_are_not_shown_either() {
    let scene = Scene::of(world()).await;
    let wrong = "0f0e0d0c-0b0a-4a0b-8c0d-0e0f0a0b0c0d";
    scene.deployment.write("shared-secret", wrong);
    let ended = scene.archive(&["--log-level", "trace"]).await.expect(77);
    let mut secrets = secrets(&scene);
    secrets.insert(wrong.to_owned());
    secrets.extend(scene.ids().iter().map(|id| sign(wrong, id.as_bytes())));
    assert_silent(&ended, &secrets);
    // A key that no header can carry, and a secret that cannot be read.
    scene.deployment.write("api-key", &format!("{wrong}\u{1}"));
    let ended = scene.archive(&["--log-level", "trace"]).await.expect(78);
    assert!(ended.stderr.contains("integrations.default.api_key"), "{}", ended.stderr);
    assert_silent(&ended, &secrets);
}

#[tokio::test]
async fn a_secret_in_the_wrong_place_of_the_configuration_is_not_repeated() {
    let mut scene = Scene::of(World::new()).await;
    let secret = "7f3c9b1e-5a44-4d0c-9d55-0c1e2d3f4a5b";
    let store = "[store]\nurl = \"file:///tmp/nowhere\"\n";
    for line in [
        format!("shared_secret = \"{secret}\""),
        format!("shared_secret = \"{secret}"),
        format!("shared_secret = {secret}"),
        format!("shared_secret = {{ env = \"{secret}\" }}"),
        format!("shared_secret = {{ value = \"{secret}\" }}"),
        format!("api_key = [\"{secret}\"]"),
        format!("shared_secrt = \"{secret}\""),
        format!("horizon = \"{secret}\""),
    ] {
        for command in [&["config", "check"][..], &["config", "show"], &["run", "--sessions", "sessions.txt"]] {
            let text = format!("{store}[integrations.default]\nbase_url = \"https://veriff.test\"\n{line}\n");
            scene.deployment.configure_whole(&text);
            let ended = scene.deployment.run(command).await;
            assert!(!ended.stdout.contains(secret) && !ended.stderr.contains(secret), "{line}: {ended:?}");
        }
    }
    scene.configure("", "");
    for (name, value) in [
        ("VERIFF_ARCHIVE__INTEGRATIONS__DEFAULT__SHARED_SECRET", secret.to_owned()),
        ("VERIFF_ARCHIVE__INTEGRATIONS__DEFAULT__BASE_URL", format!("https://user:{secret}@veriff.test/")),
        ("VERIFF_ARCHIVE__STORE__ENDPOINT_URL", format!("https://user:{secret}@store.test/")),
        ("VERIFF_ARCHIVE__STORE__URL", format!("s3://user:{secret}@bucket/prefix")),
        ("VERIFF_ARCHIVE__LEDGER__URL", format!("postgres://user:{secret}@host/ledger")),
    ] {
        scene.deployment.set(name, &value);
        for command in [&["config", "check"][..], &["config", "show"], &["status"], &["doctor"]] {
            let ended = scene.deployment.run(command).await;
            assert!(!ended.stdout.contains(secret) && !ended.stderr.contains(secret), "{name}: {ended:?}");
        }
        scene.deployment.unset(name);
    }
}
