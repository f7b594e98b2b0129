//! A queue as an operator meets it: filled from webhooks, worked off by any number of workers, and looked at.

#![expect(clippy::disallowed_methods, reason = "a test measures by the machine's clock")]

use std::collections::BTreeMap;
use std::process::Child;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use veriff_sim::{Attempt, Effect, Endpoint, Fault, Session, Simulator, World, id};

use crate::support::evidence::Evidence;
use crate::support::program::{Deployment, Ended, ended, results};
use crate::support::s3::{ADMIN, WRITER, s3};
use crate::support::scene::{Scene, assert_in_equals_out, first_item, session, world_of};
use crate::support::sqs::{Kind, Queue, sqs};
use crate::support::until;

/// The sessions of the fleet's queue.
const FLEET_SESSIONS: usize = 400;

/// How often a message of the fleet's queue may be received: by two workers that are killed, by one that is told to stop,
/// by one that ends it, and twice for a machine that is slow.
const FLEET_RECEIVES: u32 = 6;

/// A deployment that works off a queue of its own.
struct Desk {
    scene: Scene,
    queue: Queue,
}

impl Desk {
    async fn of(world: World, limits: &str, max_receives: Option<u32>) -> Self {
        let mut scene = Scene::with(world, "", &format!("tries = 3\n{limits}")).await;
        let queue = sqs().await.create_queue(Kind::Standard, max_receives).await;
        scene.deployment.configure_more(&settings(&queue));
        for (name, value) in ADMIN.environment() {
            scene.deployment.set(name, value);
        }
        Self { scene, queue }
    }

    fn start(&self, more: &[&str]) -> Child {
        start(&self.scene.deployment, &self.queue, more)
    }

    /// Works the queue off until it has been empty for a moment.
    async fn work_off(&self, more: &[&str]) -> Ended {
        let words: Vec<&str> = ["--idle-exit", "1s"].iter().chain(more).copied().collect();
        let ended = ended(self.start(&words)).await;
        assert_in_equals_out(&ended);
        ended
    }
}

fn settings(queue: &Queue) -> String {
    format!("[queue]\nendpoint_url = \"{}\"\n", queue.endpoint)
}

fn start(deployment: &Deployment, queue: &Queue, more: &[&str]) -> Child {
    let words = ["run", "--queue", queue.url.as_str(), "--progress", "none"];
    deployment.start(words.iter().chain(more))
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

fn decision(session: &str) -> Value {
    json!({
        "status": "success",
        "verification": {
            "id": session, "attemptId": id("some attempt"), "code": 9001, "status": "approved",
            "decisionTime": "2026-10-02T09:14:30.123456Z", "vendorData": "cust-0042",
            "person": {"firstName": "ADA", "lastName": "LOVELACE"}
        }
    })
}

fn in_sns(message: &Value) -> Value {
    json!({
        "Type": "Notification", "MessageId": "1", "TopicArn": "arn:aws:sns:eu-central-1:123456789012:veriff",
        "Message": message.to_string()
    })
}

/// Writes a session as a message, in one form after the other.
fn message(number: usize, session: &str) -> String {
    match number % 5 {
        0 => session.to_owned(),
        1 => json!({"session_id": session, "reference": "order 7"}).to_string(),
        2 => decision(session).to_string(),
        3 => in_sns(&decision(session)).to_string(),
        _ => json!({"detail-type": "event", "id": "1", "detail": {"id": session, "attemptId": "a", "action": "submitted"}})
            .to_string(),
    }
}

#[tokio::test]
async fn messages_of_every_form_are_archived_and_deleted() {
    let sessions: Vec<Session> = (0..10).map(|number| session(&format!("s{number}"))).collect();
    let desk = Desk::of(world_of(&sessions), "", None).await;
    let bodies: Vec<String> = sessions.iter().enumerate().map(|(number, it)| message(number, &it.id)).collect();
    desk.queue.send(&bodies).await;
    // A session that Veriff does not have is done as well.
    desk.queue.send(&[id("nobody's")]).await;
    let run = desk.work_off(&["--results", "results.ndjson"]).await.expect(3);
    assert_eq!((run.count("archived"), run.count("absent")), (10, 1), "{}", run.stdout);
    assert_eq!(run.json()["source"], json!({"kind": "sqs", "records": 11, "sha256": null}));
    for session in &sessions {
        desk.scene.assert_whole(&session.id);
    }
    assert_eq!(desk.queue.depth().await, (0, 0));
    let lines = results(&desk.scene.deployment.path("results.ndjson"));
    let line = |session: &str| lines.iter().find(|line| line["session_id"] == session).unwrap();
    assert_eq!(line(&sessions[1].id)["reference"], "order 7");
    assert_eq!(line(&sessions[2].id)["decided_at"], "2026-10-02T09:14:30.123Z");
    for told in
        [&run.stdout, &run.stderr, &std::fs::read_to_string(desk.scene.deployment.path("results.ndjson")).unwrap()]
    {
        for word in ["ADA", "LOVELACE", "cust-0042"] {
            assert!(!told.contains(word), "{told}");
        }
    }
    let again = desk.work_off(&[]).await.expect(0);
    assert_eq!(again.json()["source"]["records"], 0);
}

#[tokio::test]
async fn what_fails_or_cannot_be_read_stays_in_the_queue() {
    let (good, bad) = (session("good"), session("bad"));
    let desk = Desk::of(world_of([&good, &bad]), "", Some(3)).await;
    let fault = Fault::forever(Effect::status(404)).on(Endpoint::Media).id(first_item(&bad));
    let fault = desk.scene.simulator.set_fault(fault);
    desk.queue.send(&[good.id.as_str(), bad.id.as_str(), "Ada Lovelace"]).await;
    let run = desk.work_off(&["--results", "results.ndjson"]).await.expect(3);
    assert_eq!((run.count("archived"), run.count("failed")), (1, 2), "{}", run.stdout);
    desk.scene.assert_outcome(&bad.id, "failed", Some("media.missing"));
    assert!(run.stderr.contains("message ") && !run.stderr.contains("Lovelace"), "{}", run.stderr);
    // Both wait for their next try.
    assert_eq!(desk.queue.depth().await, (0, 2));

    desk.scene.simulator.remove_fault(fault);
    desk.queue.let_time_pass().await;
    let run = desk.work_off(&[]).await.expect(3);
    assert_eq!((run.count("archived"), run.count("failed")), (1, 1), "{}", run.stdout);
    assert_eq!(desk.queue.depth().await, (0, 1));
    desk.scene.assert_whole(&bad.id);

    for _ in 0..2 {
        desk.queue.let_time_pass().await;
        desk.work_off(&[]).await;
    }
    assert_eq!(desk.queue.depth().await, (0, 0));
    assert_eq!(desk.queue.dead_letters().await.into_iter().collect::<Vec<_>>(), [("Ada Lovelace".to_owned(), 1)]);
}

#[tokio::test]
async fn what_may_work_later_is_given_back_and_is_pending() {
    let (good, slow) = (session("good"), session("slow"));
    let desk = Desk::of(world_of([&good, &slow]), "", None).await;
    let fault = Fault::forever(Effect::status(503)).on(Endpoint::Media).id(first_item(&slow));
    desk.scene.simulator.set_fault(fault);
    desk.queue.send(&[&good.id, &slow.id]).await;
    let run = desk.work_off(&["--results", "results.ndjson"]).await.expect(5);
    assert_eq!((run.count("archived"), run.count("pending")), (1, 1), "{}", run.stdout);
    desk.scene.assert_outcome(&slow.id, "pending", Some("veriff.unavailable"));
    assert_eq!(desk.queue.depth().await, (0, 1));
    desk.scene.simulator.clear_faults();
    desk.queue.let_time_pass().await;
    assert_eq!(desk.work_off(&[]).await.expect(0).count("archived"), 1);
    assert_eq!(desk.queue.depth().await, (0, 0));
}

/// Sessions whose media take longer than any test waits.
fn slow_world() -> World {
    let attempt = |number: u32| {
        let attempt = Attempt::approved(id(&format!("slow {number}"))).created(Some("2026-10-01T00:00:00.000Z"));
        attempt.video("selfid_video", 4 * 1024 * 1024)
    };
    (0..8).fold(World::new(), |world, number| {
        world.session(Session::new(id(&format!("session {number}"))).attempt(attempt(number)))
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_told_to_stop_gives_its_messages_back_at_once() {
    let desk = Desk::of(slow_world(), "memory = \"1GiB\"\n", None).await;
    desk.queue.send(&desk.scene.ids()).await;
    let effect = Effect::Slow { bytes: 32 * 1024, every_ms: 50 };
    desk.scene.simulator.set_fault(Fault::forever(effect).on(Endpoint::Media));
    let worker = desk.start(&["--idle-exit", "0s", "--drain-timeout", "1s"]);
    until("downloads are under way", || desk.scene.simulator.count(Endpoint::Media) >= 3).await;
    assert_ne!(desk.queue.depth().await.1, 0);
    signal(&worker, Signal::TERM);
    let stopped = ended(worker).await.expect(143);
    assert_in_equals_out(&stopped);
    assert_ne!(stopped.count("pending"), 0);
    // All of them, although the lease was five minutes: what was worked on, and what was only taken.
    assert_eq!(desk.queue.depth().await, (8, 0));
    desk.scene.simulator.clear_faults();
    assert_eq!(desk.work_off(&[]).await.expect(0).count("archived"), 8);
    desk.scene.ids().iter().for_each(|session| desk.scene.assert_whole(session));
    assert_eq!(desk.queue.depth().await, (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_waits_for_messages_ends_soon_after_it_is_told_to() {
    let one = session("one");
    let desk = Desk::of(world_of([&one]), "", None).await;
    let worker = desk.start(&["--idle-exit", "0s"]);
    desk.queue.send(&[&one.id]).await;
    until("the message is worked on", || desk.scene.simulator.count(Endpoint::Media) >= 2).await;
    let mut looks = 0..6000;
    while desk.queue.depth().await != (0, 0) {
        assert!(looks.next().is_some(), "the message is never deleted");
    }
    let told_at = tokio::time::Instant::now();
    signal(&worker, Signal::TERM);
    assert_eq!(ended(worker).await.expect(143).count("archived"), 1);
    // Far less than the long poll that was under way.
    assert!(told_at.elapsed() < Duration::from_secs(8), "{:?}", told_at.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_whose_worker_stands_still_is_taken_over_and_its_awakening_does_no_harm() {
    let young = session("young");
    let desk = Desk::of(world_of([&young]), "lease = \"3s\"\n", None).await;
    desk.queue.send(&[&young.id]).await;
    let held = Fault::forever(Effect::Slow { bytes: 100, every_ms: 50 }).on(Endpoint::Media).id(first_item(&young));
    let held = desk.scene.simulator.set_fault(held);
    let sleeper = desk.start(&["--idle-exit", "1s", "--results", "sleeper.ndjson"]);
    until("the first worker is at it", || desk.scene.simulator.media_gets(&first_item(&young)) > 0).await;
    signal(&sleeper, Signal::STOP);
    desk.scene.simulator.remove_fault(held);
    let second = Attempt::approved(id("young: second")).created(Some("2026-11-02T00:00:00.000Z")).image("face", 7000);
    desk.scene.simulator.add_attempt(&young.id, second);
    let successor = ended(desk.start(&["--idle-exit", "8s"])).await;
    assert_eq!(successor.expect(0).count("archived"), 1);
    desk.scene.assert_whole(&young.id);
    let before = Evidence::of_directory(&desk.scene.store());
    signal(&sleeper, Signal::CONT);
    let awake = ended(sleeper).await;
    assert_in_equals_out(&awake);
    let line = results(&desk.scene.deployment.path("sleeper.ndjson")).remove(0);
    assert_eq!((awake.code, line["code"].as_str()), (Some(5), Some("lease.lost")), "{}", awake.stderr);
    let after = Evidence::of_directory(&desk.scene.store());
    after.expect_whole(&desk.scene.simulator);
    assert_eq!(after.manifest(&young.id), before.manifest(&young.id));
    after.expect_no_false_ledger(&desk.scene.deployment, std::slice::from_ref(&young.id)).await;
    assert_eq!(desk.queue.depth().await, (0, 0));
}

#[tokio::test]
async fn a_plan_counts_messages_and_takes_none() {
    let desk = Desk::of(world_of([&session("one")]), "", None).await;
    desk.queue.send(&["one", "two", "not an id"]).await;
    let plan = desk.scene.deployment.run(["plan", "--queue", &desk.queue.url]).await.expect(0).json();
    assert_eq!(plan["source"], json!({"kind": "sqs", "records": 3, "bad": 0, "finished": 0}));
    assert_eq!((&plan["sessions"]["new"], &plan["deadlines"]["unknown"]), (&json!(3), &json!(3)));
    assert!(plan["next"].as_str().unwrap().contains("--queue"), "{plan}");
    let mut seen = desk.queue.receive_elsewhere(1).await;
    seen.sort();
    assert_eq!(seen, [("not an id".to_owned(), 1), ("one".to_owned(), 1), ("two".to_owned(), 1)]);
}

/// Returns the checks of `doctor` that are about the queue, by name, each with its status.
fn queue_checks(doctor: &Ended) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let checks = doctor.json()["checks"].as_array().unwrap().clone();
    let checks = checks.iter().map(|check| (text(&check["name"]), text(&check["status"])));
    checks.filter(|(name, _)| name.starts_with("queue")).collect()
}

#[tokio::test]
async fn doctor_looks_at_a_queue() {
    for (max_receives, redrive) in [(None, "warn"), (Some(2), "warn"), (Some(5), "ok")] {
        let desk = Desk::of(world_of([&session("one")]), "", max_receives).await;
        desk.queue.send(&["one"]).await;
        let doctor = desk.scene.deployment.run(["doctor", "--queue", &desk.queue.url]).await.expect(0);
        let expected =
            [("queue", "ok"), ("queue.redrive", redrive), ("queue.visibility", "ok"), ("queue.ledger", "warn")];
        assert_eq!(queue_checks(&doctor), expected.map(|(name, status)| (name.to_owned(), status.to_owned())));
        assert_eq!(desk.queue.depth().await, (1, 0));
    }
}

#[tokio::test]
async fn a_queue_that_cannot_be_used_says_so_by_its_exit_code() {
    let desk = Desk::of(world_of([&session("one")]), "", None).await;
    let deployment = &desk.scene.deployment;
    let nobody = format!("{}-of-nobody", desk.queue.url);
    for (url, code, told) in [(nobody.as_str(), 77, "does not exist"), ("sessions", 78, "the URL of a queue is")] {
        for words in [vec!["run", "--progress", "none", "--queue", url], vec!["plan", "--queue", url]] {
            let ended = deployment.run(words).await.expect(code);
            assert!(ended.stderr.contains(told), "{}", ended.stderr);
        }
        let doctor = deployment.run(["doctor", "--queue", url]).await.expect(code);
        assert_eq!(queue_checks(&doctor), [("queue".to_owned(), "fail".to_owned())]);
    }
}

/// Sessions with one image each: what is counted here is messages.
pub(crate) fn fleet_world() -> World {
    (0..FLEET_SESSIONS).fold(World::new(), |world, number| {
        let attempt = Attempt::approved(id(&format!("fleet: attempt {number}")));
        let attempt = attempt.created(Some("2026-10-01T00:00:00.000Z")).image("face", 3_000);
        world.session(Session::new(id(&format!("fleet: session {number}"))).attempt(attempt))
    })
}

/// Four workers on one queue: two are killed, one is told to stop, and one more ends what they left.
pub(crate) async fn a_fleet_archives_everything_once(simulator: &Simulator, deployment: &Deployment, queue: &Queue) {
    let ids = simulator.world().session_ids();
    let poison = ["Ada Lovelace", "{\"verification\":null}", "{\"id\":\"Ada\"}"];
    queue.send(&poison).await;
    // They were received before: with the waits in between a test cannot see them through all of it.
    for _ in 0..FLEET_RECEIVES - 2 {
        assert_eq!(queue.touch().await, poison.len());
    }
    let twice = ids.iter().step_by(10);
    let bodies: Vec<String> = ids.iter().chain(twice).enumerate().map(|(number, id)| message(number, id)).collect();
    queue.send(&bodies).await;

    let workers: Vec<Child> =
        (0..4).map(|_| start(deployment, queue, &["--idle-exit", "8s", "--drain-timeout", "1s"])).collect();
    let [mut first, mut second, third, fourth] = <[Child; 4]>::try_from(workers).unwrap();
    let media = ids.len() as u64;
    until("a fifth is done", || simulator.count(Endpoint::Media) > media / 5).await;
    first.kill().unwrap();
    until("two fifths are done", || simulator.count(Endpoint::Media) > media * 2 / 5).await;
    second.kill().unwrap();
    until("three fifths are done", || simulator.count(Endpoint::Media) > media * 3 / 5).await;
    signal(&third, Signal::TERM);
    tokio::join!(ended(first), ended(second));
    assert_in_equals_out(&ended(third).await.expect(143));
    let fourth = ended(fourth).await;
    // What could not be read is counted by whoever met it, and a lease may be lost on a machine that is slow.
    assert!(matches!(fourth.code, Some(0 | 3 | 5)), "{}\n{}", fourth.stdout, fourth.stderr);
    assert_in_equals_out(&fourth);

    // Whatever the dead left hidden comes again in its time, and the poison until it was received once too often.
    for _ in 0..3 {
        queue.let_time_pass().await;
        assert_in_equals_out(&ended(start(deployment, queue, &["--idle-exit", "1s"])).await);
    }
    assert_eq!(queue.depth().await, (0, 0));
    assert_eq!(queue.dead_letters().await, BTreeMap::from(poison.map(|body| (body.to_owned(), 1))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_that_loses_workers_archives_a_queue_with_duplicates_once() {
    let simulator = Simulator::start(fleet_world()).await.unwrap();
    let bucket = s3().await.create_bucket("fleet", true).await;
    let deployment = Deployment::with_bucket(&simulator, &bucket, WRITER, None);
    let queue = sqs().await.create_queue(Kind::Standard, Some(FLEET_RECEIVES)).await;
    deployment.configure_more(&format!("{}[limits]\nlease = \"5s\"\n", settings(&queue)));
    a_fleet_archives_everything_once(&simulator, &deployment, &queue).await;

    let evidence = Evidence::of_bucket(&bucket).await;
    evidence.expect_one_version_each();
    evidence.expect_whole(&simulator);
    let ids = simulator.world().session_ids();
    evidence.expect_no_false_ledger(&deployment, &ids).await;
    for id in &ids {
        assert_eq!(evidence.manifest_keys(id).len(), 1, "{id}");
    }
    assert!(!evidence.objects.keys().any(|key| key.contains(".conflict-")));
}
