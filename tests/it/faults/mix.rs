//! Everything at once, from several seeds: every line given ends exactly once, and what is archived is true.

use std::collections::BTreeSet;

use veriff_sim::{Effect, Endpoint, Fault, RetryAfter, Signatures, World, id};

use crate::support::scene::Scene;
use crate::support::stored::{manifests, missing, newest_manifest};

/// A small generator, so that a seed tells the whole story.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % sides
    }

    fn pick<'t, T>(&mut self, from: &'t [T]) -> &'t T {
        &from[self.roll(from.len())]
    }
}

fn effect(dice: &mut Dice) -> Effect {
    let effects = [
        Effect::too_many(None),
        Effect::too_many(Some(RetryAfter::Seconds(0))),
        Effect::status(500),
        Effect::status(503),
        Effect::status(404),
        Effect::status(400),
        Effect::unauthorized("1818"),
        Effect::Html { status: 200 },
        Effect::Html { status: 502 },
        Effect::Empty { status: 200 },
        Effect::ErrorWith200 { code: "1101".to_owned() },
        Effect::Redirect { location: "http://127.0.0.1:9/".to_owned() },
        Effect::Hangup,
        Effect::Truncate { after: 700 },
        Effect::Reset { after: 700 },
        Effect::Chunked,
        Effect::WrongSize { by: 3 },
        Effect::Gzip,
        Effect::ContentType { value: "text/plain".to_owned() },
        Effect::Signatures { mode: Signatures::Corrupt },
        Effect::Signatures { mode: Signatures::None },
        Effect::InvalidJson,
    ];
    dice.pick(&effects).clone()
}

/// Sets faults on media and lists of about every second session; most pass.
fn set_faults(scene: &Scene, dice: &mut Dice) {
    let (sessions, media): (Vec<String>, Vec<String>) = {
        let world = scene.simulator.world();
        (world.session_ids(), world.all_media().map(|media| media.id.clone()).collect())
    };
    for _ in 0..sessions.len() {
        let (endpoint, id) = match dice.roll(4) {
            0 => (Endpoint::Attempts, dice.pick(&sessions)),
            1 => (Endpoint::SessionMedia, dice.pick(&sessions)),
            _ => (Endpoint::Media, dice.pick(&media)),
        };
        let effect = effect(dice);
        let fault = match dice.roll(4) {
            0 => Fault::forever(effect),
            times => Fault::times(times as u64, effect),
        };
        scene.simulator.set_fault(fault.on(endpoint).id(id));
    }
}

/// Lines of all sorts: good ones, some twice, foreign ones, bad ones, blank ones.
fn lines(ids: &[String], dice: &mut Dice) -> String {
    let mut lines: Vec<String> = ids.to_vec();
    for number in 0..ids.len() / 2 {
        let line = match dice.roll(5) {
            0 => dice.pick(ids).clone(),
            1 => id(&format!("nobody's {number}")),
            2 => "not an id!".to_owned(),
            3 => String::new(),
            _ => format!("# {number}"),
        };
        lines.insert(dice.roll(lines.len()), line);
    }
    lines.join("\n")
}

#[tokio::test]
async fn every_line_ends_once_and_everything_archived_is_true_whatever_happens() {
    for seed in 0..6 {
        let mut dice = Dice(seed);
        let world =
            World::builder(seed).sessions(24).image_bytes(1000..=9000).video_bytes(9000..=30_000).nfc_bytes(900..=2000);
        let scene = Scene::with(world.build(), "", "tries = 3\nno_progress = \"20s\"\n").await;
        scene.simulator.set_knobs(|knobs| knobs.shuffle = true);
        let ids = scene.ids();
        scene.deployment.write("sessions.txt", &lines(&ids, &mut dice));
        set_faults(&scene, &mut dice);
        let gone = dice.pick(&ids).clone();
        scene.simulator.delete_session(&gone);

        let words: &[&str] = match dice.roll(4) {
            0 => &["--max-failures", "3"],
            1 => &["--max-sessions", "17"],
            _ => &[],
        };
        let ended = scene.archive(words).await;
        assert!(matches!(ended.code, Some(0 | 3 | 5 | 10 | 77)), "seed {seed}: {:?} {}", ended.code, ended.stderr);
        assert_true(&scene, &ids, seed);

        // What may pass has passed, but for the session that is gone: the rest of the story is told by repeating it.
        scene.simulator.clear_faults();
        scene.deployment.write_ids(&ids);
        let ended = scene.archive(&["--expect-absent"]).await;
        assert!(matches!(ended.code, Some(0 | 3)), "seed {seed}: {:?} {}", ended.code, ended.stderr);
        assert_eq!(ended.count("pending"), 0, "seed {seed}");
        for id in ids.iter().filter(|id| **id != gone) {
            let (outcome, code) = &scene.outcomes()[id];
            let is_empty = code.as_deref() == Some("veriff.empty");
            assert!(["archived", "unchanged"].contains(&outcome.as_str()) || is_empty, "seed {seed}: {id} {code:?}");
            scene.assert_whole(id);
        }
        let ended = scene.archive(&["--expect-absent"]).await;
        assert_eq!(ended.count("archived"), 0, "seed {seed}: a third run has nothing to do");
    }
}

/// Fails unless results and manifests tell the same story and everything that stands as media is.
#[track_caller]
fn assert_true(scene: &Scene, ids: &[String], seed: u64) {
    let world = scene.simulator.world().clone();
    for (session, (outcome, code)) in scene.outcomes() {
        match outcome.as_str() {
            "archived" | "unchanged" => {
                crate::support::stored::assert_whole(&scene.store(), &world, &session);
                assert!(ids.contains(&session), "seed {seed}");
            }
            "absent" => assert_eq!(newest_manifest(&scene.store(), &session)["totals"]["media"], 0, "seed {seed}"),
            "failed" => assert!(code.is_some(), "seed {seed}: {session}"),
            outcome => assert_eq!(outcome, "pending", "seed {seed}"),
        }
        for manifest in manifests(&scene.store(), &session) {
            let codes: BTreeSet<String> = missing(&manifest).into_values().collect();
            assert!(codes.is_empty() || manifest["complete"] == false, "seed {seed}: {codes:?}");
        }
    }
}
