//! The ledger's own queue as an operator meets it: filled, worked off under leases, looked through, and closed.

#![expect(clippy::disallowed_methods, reason = "a test measures by the machine's clock")]

use std::collections::BTreeSet;
use std::process::Child;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use veriff_sim::{Attempt, Effect, Endpoint, Fault, Session, Simulator, World, id};

use crate::support::evidence::{Evidence, small_world};
use crate::support::program::{Deployment, Ended, ended, results};
use crate::support::scene::{FAR_HORIZON, Scene, assert_in_equals_out, first_item, session, world_of};
use crate::support::until;

/// What is typed to work the backlog off.
const RUN: [&str; 6] = ["run", "--backlog", "--progress", "none", "--results", "results.ndjson"];

async fn work_off(deployment: &Deployment) -> Ended {
    let ended = deployment.run(RUN).await;
    assert_in_equals_out(&ended);
    ended
}

/// Puts the sessions of `sessions.txt` into the backlog.
async fn add(deployment: &Deployment) -> Value {
    deployment.run(["backlog", "add", "--sessions", "sessions.txt"]).await.expect(0).json()
}

async fn list(deployment: &Deployment, selectors: &[&str]) -> Value {
    deployment.run(["backlog", "list"].iter().chain(selectors)).await.expect(0).json()
}

/// The sessions of a listing and one field of each.
fn field<'v>(listing: &'v Value, name: &str) -> Vec<(&'v str, &'v Value)> {
    let sessions = listing["sessions"].as_array().unwrap().iter();
    sessions.map(|session| (session["session_id"].as_str().unwrap(), &session[name])).collect()
}

fn numbers(answer: &Value, names: &[&str]) -> Vec<u64> {
    names.iter().map(|name| answer[name].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn what_is_added_is_archived_once_and_leaves_the_backlog() {
    let sessions: Vec<Session> = (0..6).map(|number| session(&format!("s{number}"))).collect();
    let scene = Scene::of(world_of(&sessions)).await;
    let counts = ["records", "bad", "added", "waiting", "ended"];
    assert_eq!(numbers(&add(&scene.deployment).await, &counts), [6, 0, 6, 0, 0]);
    assert_eq!(numbers(&add(&scene.deployment).await, &counts), [6, 0, 0, 6, 0]);
    let status = scene.deployment.run(["status"]).await.expect(0).json();
    assert_eq!(status["backlog"]["ready"], 6);
    assert_eq!(status["next"], "veriff-archive run --backlog");
    let dry = scene.deployment.run(["run", "--backlog", "--dry-run", "--progress", "none"]).await.expect(0);
    assert_eq!((dry.count("archived"), dry.json()["source"]["kind"].as_str()), (6, Some("backlog")));
    scene.assert_nothing_written();
    let plan = scene.deployment.run(["plan", "--backlog"]).await.expect(0).json();
    assert_eq!((plan["source"]["records"].as_u64(), plan["sessions"]["pending"].as_u64()), (Some(6), Some(6)));

    let run = work_off(&scene.deployment).await.expect(0);
    assert_eq!(run.count("archived"), 6);
    for session in &sessions {
        scene.assert_whole(&session.id);
    }
    let listing = list(&scene.deployment, &[]).await;
    assert_eq!(numbers(&listing["backlog"], &["ready", "waiting", "leased"]), [0, 0, 0]);
    assert_eq!(work_off(&scene.deployment).await.expect(0).json()["source"]["records"], 0);
    assert_eq!(numbers(&add(&scene.deployment).await, &counts), [6, 0, 0, 0, 6]);
}

#[tokio::test]
async fn a_bad_line_is_told_and_the_others_are_added() {
    let scene = Scene::of(world_of(&[session("one"), session("two")])).await;
    scene.deployment.write("sessions.txt", &format!("{}\nnot an id\n{}\n", id("one"), id("two")));
    let ended = scene.deployment.run(["backlog", "add", "--sessions", "sessions.txt"]).await.expect(3);
    assert_eq!(numbers(&ended.json(), &["records", "bad", "added"]), [3, 1, 2]);
    assert!(ended.stderr.contains("line 2"), "{}", ended.stderr);
    assert!(!ended.stderr.contains("not an id"), "{}", ended.stderr);
    let gone = scene.deployment.run(["backlog", "add", "--sessions", "nothing-here.txt"]).await;
    assert_eq!(gone.code, Some(2), "{}", gone.stderr);
}

#[tokio::test]
async fn the_earliest_deadline_is_worked_on_first_and_unknown_ones_before_all() {
    let labels = ["late", "unknown", "early", "middle"];
    let sessions: Vec<Session> = labels.iter().map(|label| session(label)).collect();
    let scene = Scene::with(world_of(&sessions), "", "tries = 3\nsessions_in_flight = 1\n").await;
    let csv = format!(
        "session_id,decided_at\n{},2026-03-01T00:00:00Z\n{},\n{},2026-01-01T00:00:00Z\n{},2026-02-01T00:00:00Z\n",
        id("late"),
        id("unknown"),
        id("early"),
        id("middle")
    );
    scene.deployment.write("sessions.txt", &csv);
    add(&scene.deployment).await;
    let order = ["unknown", "early", "middle", "late"].map(id);
    let listing = list(&scene.deployment, &[]).await;
    let listed: Vec<&str> = field(&listing, "days_left").into_iter().map(|(session, _)| session).collect();
    assert_eq!(listed, order);
    assert_eq!(field(&listing, "days_left")[0].1, &Value::Null);
    work_off(&scene.deployment).await.expect(0);
    let seen = scene.simulator.requests().into_iter();
    let mut asked: Vec<String> = seen.filter(|seen| seen.endpoint == Endpoint::Attempts).map(|seen| seen.id).collect();
    asked.dedup();
    assert_eq!(asked, order);
}

#[tokio::test]
async fn what_fails_for_good_leaves_the_backlog_until_it_is_opened_again() {
    let (good, bad) = (session("good"), session("bad"));
    let scene = Scene::of(world_of([&good, &bad])).await;
    let fault = Fault::forever(Effect::status(404)).on(Endpoint::Media).id(first_item(&bad));
    scene.simulator.set_fault(fault);
    add(&scene.deployment).await;
    let run = work_off(&scene.deployment).await.expect(3);
    assert_eq!((run.count("archived"), run.count("failed")), (1, 1));
    assert!(list(&scene.deployment, &[]).await["sessions"].as_array().unwrap().is_empty());
    let failed = list(&scene.deployment, &["--code", "media.missing"]).await;
    assert_eq!(field(&failed, "state"), [(bad.id.as_str(), &Value::from("failed"))]);
    scene.deployment.run(["status", "--check"]).await.expect(3);

    let none = scene.deployment.run(["backlog", "retry", "--code", "veriff.empty"]).await.expect(0).json();
    assert_eq!(none["opened"], 0);
    scene.deployment.run(["backlog", "retry"]).await.expect(2);
    let opened = scene.deployment.run(["backlog", "retry", "--code", "media.missing"]).await.expect(0).json();
    assert_eq!(opened["opened"], 1);
    scene.simulator.clear_faults();
    assert_eq!(work_off(&scene.deployment).await.expect(0).count("archived"), 1);
    scene.assert_whole(&bad.id);
    scene.deployment.run(["status", "--check"]).await.expect(0);
}

#[tokio::test]
async fn what_cannot_be_saved_is_closed_with_a_reason() {
    let (good, gone) = (session("good"), session("gone"));
    let scene = Scene::of(world_of([&good, &gone])).await;
    scene.simulator.delete_session(&gone.id);
    add(&scene.deployment).await;
    let run = work_off(&scene.deployment).await.expect(3);
    assert_eq!((run.count("archived"), run.count("absent")), (1, 1));
    scene.deployment.run(["status", "--check"]).await.expect(3);
    scene.deployment.run(["backlog", "accept", "--session", &gone.id]).await.expect(2);
    let words = ["backlog", "accept", "--state", "absent", "--reason", "deleted at the vendor"];
    assert_eq!(scene.deployment.run(words).await.expect(0).json()["accepted"], 1);
    scene.deployment.run(["status", "--check"]).await.expect(0);
    let closed = list(&scene.deployment, &["--state", "accepted"]).await;
    assert_eq!(field(&closed, "accepted_reason"), [(gone.id.as_str(), &Value::from("deleted at the vendor"))]);
    assert_eq!(add(&scene.deployment).await["ended"], 2);
}

#[tokio::test]
async fn what_may_work_later_is_tried_once_more_at_the_end_and_waits_its_turn() {
    let (good, bad) = (session("good"), session("bad"));
    let scene = Scene::of(world_of([&good, &bad])).await;
    scene.simulator.set_fault(Fault::forever(Effect::status(500)).on(Endpoint::Attempts).id(&bad.id));
    add(&scene.deployment).await;
    let run = work_off(&scene.deployment).await.expect(5);
    assert_eq!((run.count("archived"), run.count("pending"), run.count("failed")), (1, 1, 0));
    scene.assert_outcome(&bad.id, "pending", Some("veriff.unavailable"));
    let is_asked = |seen: &&veriff_sim::Seen| seen.id == bad.id && seen.endpoint == Endpoint::Attempts;
    let asked = scene.simulator.requests().iter().filter(is_asked).count();
    assert_eq!(asked, 6, "three tries, twice");
    let listing = list(&scene.deployment, &[]).await;
    assert_eq!(field(&listing, "turn"), [(bad.id.as_str(), &Value::from("waiting"))]);
    assert_eq!(field(&listing, "tries"), [(bad.id.as_str(), &Value::from(2))]);
    // It is not due yet, so the next run has nothing to do but to say that it is there.
    assert_eq!(work_off(&scene.deployment).await.expect(0).json()["source"]["records"], 0);
}

#[tokio::test]
async fn a_passing_failure_is_archived_by_the_same_run_and_leaves_no_trace_in_its_exit() {
    let (good, slow) = (session("good"), session("slow"));
    let scene = Scene::of(world_of([&good, &slow])).await;
    scene.simulator.set_fault(Fault::times(4, Effect::status(500)).on(Endpoint::Attempts).id(&slow.id));
    add(&scene.deployment).await;
    let run = work_off(&scene.deployment).await.expect(0);
    assert_eq!((run.count("archived"), run.count("pending"), run.json()["repeated"].as_u64()), (2, 0, Some(0)));
    assert!(list(&scene.deployment, &[]).await["sessions"].as_array().unwrap().is_empty());
}

#[tokio::test]
async fn a_session_that_is_not_settled_comes_back_until_it_is_or_its_horizon_has_passed() {
    let open = Session::new(id("open")).attempt(
        Attempt::resubmission_requested(id("open: first"))
            .created(Some("2026-10-01T00:00:00.000Z"))
            .image("face", 9000),
    );
    let past = Session::new(id("past")).attempt(
        Attempt::resubmission_requested(id("past: first"))
            .created(Some("1920-01-01T00:00:00.000Z"))
            .image("face", 9000),
    );
    let scene = Scene::with(world_of([&open, &past]), "settle_after = \"1h\"\n", "tries = 3\n").await;
    add(&scene.deployment).await;
    assert_eq!(work_off(&scene.deployment).await.expect(0).count("archived"), 2);
    let listing = list(&scene.deployment, &[]).await;
    assert_eq!(field(&listing, "turn"), [(open.id.as_str(), &Value::from("waiting"))]);
    assert_eq!(field(&listing, "state")[0].1, "archived");
    // An operator need not wait.
    scene.deployment.run(["backlog", "retry", "--state", "archived", "--session", &open.id]).await.expect(0);
    let second = Attempt::approved(id("open: second")).created(Some("2026-10-02T00:00:00.000Z")).image("face", 7000);
    scene.simulator.add_attempt(&open.id, second);
    assert_eq!(work_off(&scene.deployment).await.expect(0).count("archived"), 1);
    scene.assert_whole(&open.id);
    assert!(list(&scene.deployment, &[]).await["sessions"].as_array().unwrap().is_empty(), "it is settled");
}

#[tokio::test]
async fn a_refused_integration_is_parked_while_the_others_finish() {
    let world = World::new()
        .integration(veriff_sim::Integration::new("us"))
        .session(session("eu1"))
        .session(session("us1").integration("us"))
        .session(session("eu2"));
    let scene = Scene::of(world).await;
    let base = scene.simulator.base_url();
    let section = |name: &str, key: &str, secret: &str| {
        format!(
            "[integrations.{name}]\nbase_url = \"{base}\"\nallow_http = true\nmax_requests_per_second = 5000.0\n\
             api_key = {{ file = \"{key}\" }}\nshared_secret = {{ file = \"{secret}\" }}\n{FAR_HORIZON}"
        )
    };
    let deployment = &scene.deployment;
    deployment.write("wrong", "a secret of nobody");
    deployment.configure_whole(&format!(
        "[ledger]\nurl = \"sqlite:ledger.db\"\n[store]\nurl = \"file://{}\"\n{}{}[limits]\ntries = 3\nsessions_in_flight = 1\n",
        scene.store().display(),
        section("eu", "api-key", "shared-secret"),
        section("us", "api-key", "wrong"),
    ));
    let csv = format!("session_id,integration\n{},us\n{},eu\n{},eu\n", id("us1"), id("eu1"), id("eu2"));
    deployment.write("sessions.txt", &csv);
    add(deployment).await;
    let run = work_off(deployment).await.expect(77);
    assert_eq!((run.count("archived"), run.count("pending")), (2, 1), "{}", run.stdout);
    let listing = list(deployment, &[]).await;
    assert_eq!(field(&listing, "integration"), [(id("us1").as_str(), &Value::from("us"))]);
    let unnamed = deployment.write("unnamed.txt", &id("eu1"));
    let refused = deployment.run(["backlog", "add", "--sessions", unnamed.to_str().unwrap()]).await.expect(3);
    assert!(refused.stderr.contains("--integration"), "{}", refused.stderr);
}

/// Starts a worker on the backlog.
fn start(deployment: &Deployment, more: &[&str]) -> Child {
    deployment.start(["run", "--backlog", "--progress", "none"].iter().chain(more))
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

/// Sixteen sessions with one long video each.
fn long_world() -> World {
    let attempt = |number: u32| {
        let attempt = Attempt::approved(id(&format!("long {number}"))).created(Some("2026-10-01T00:00:00.000Z"));
        attempt.video("selfid_video", 20 * 1024 * 1024)
    };
    (0..16).fold(World::new(), |world, number| {
        world.session(Session::new(id(&format!("session {number}"))).attempt(attempt(number)))
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_told_to_stop_gives_its_leases_back_at_once() {
    let scene = Scene::with(long_world(), "max_concurrency = 32\n", "memory = \"1GiB\"\n").await;
    add(&scene.deployment).await;
    let effect = Effect::Slow { bytes: 32 * 1024, every_ms: 50 };
    scene.simulator.set_fault(Fault::forever(effect).on(Endpoint::Media));
    let worker = start(&scene.deployment, &["--drain-timeout", "1s"]);
    until("sixteen downloads are under way", || scene.simulator.count(Endpoint::Media) >= 16).await;
    until("and moving", || scene.simulator.stats().body_bytes > 4 * 1024 * 1024).await;
    let told_at = tokio::time::Instant::now();
    signal(&worker, Signal::TERM);
    let stopped = ended(worker).await.expect(143);
    let took = told_at.elapsed();
    assert!(took < Duration::from_secs(1 + 3 + 2), "{took:?}");
    assert_eq!(stopped.json()["counts"]["pending"], 16, "{}", stopped.stdout);
    assert_in_equals_out(&stopped);
    let listing = list(&scene.deployment, &[]).await;
    assert_eq!(numbers(&listing["backlog"], &["ready", "waiting", "leased"]), [16, 0, 0]);
    // Another worker goes on at once, although the lease was five minutes.
    scene.simulator.clear_faults();
    assert_eq!(work_off(&scene.deployment).await.expect(0).count("archived"), 16);
    scene.ids().iter().for_each(|session| scene.assert_whole(session));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_whose_worker_stands_still_is_taken_over_and_its_awakening_does_no_harm() {
    let young = session("young");
    let scene = Scene::with(world_of([&young]), "", "tries = 3\nlease = \"3s\"\n").await;
    add(&scene.deployment).await;
    let held = Fault::forever(Effect::Slow { bytes: 100, every_ms: 50 }).on(Endpoint::Media).id(first_item(&young));
    let held = scene.simulator.set_fault(held);
    let sleeper = start(&scene.deployment, &["--results", "sleeper.ndjson"]);
    until("the first worker is at it", || scene.simulator.media_gets(&first_item(&young)) > 0).await;
    signal(&sleeper, Signal::STOP);
    scene.simulator.remove_fault(held);
    let second = Attempt::approved(id("young: second")).created(Some("2026-11-02T00:00:00.000Z")).image("face", 7000);
    scene.simulator.add_attempt(&young.id, second);
    let successor = scene.deployment.run(["run", "--backlog", "--idle-exit", "8s", "--progress", "none"]).await;
    assert_eq!(successor.expect(0).count("archived"), 1);
    scene.assert_whole(&young.id);
    let before = Evidence::of_directory(&scene.store());
    signal(&sleeper, Signal::CONT);
    let awake = ended(sleeper).await;
    assert_in_equals_out(&awake);
    let line = results(&scene.deployment.path("sleeper.ndjson")).remove(0);
    assert_eq!((awake.code, line["code"].as_str()), (Some(5), Some("lease.lost")), "{}", awake.stderr);
    let after = Evidence::of_directory(&scene.store());
    after.expect_whole(&scene.simulator);
    after.expect_one_version_each();
    assert_eq!(after.objects.keys().collect::<BTreeSet<_>>(), before.objects.keys().collect::<BTreeSet<_>>());
    after.expect_no_false_ledger(&scene.deployment, std::slice::from_ref(&young.id)).await;
    assert!(list(&scene.deployment, &[]).await["sessions"].as_array().unwrap().is_empty());
}

/// Works off what comes free until a run ends well. On a machine that is slow a worker may lose a lease of three seconds,
/// and then has to come again.
pub(crate) async fn work_off_the_rest(deployment: &Deployment) {
    for _ in 0..3 {
        let run = deployment.run(["run", "--backlog", "--progress", "none", "--idle-exit", "8s"]).await;
        assert_in_equals_out(&run);
        if run.code == Some(0) {
            return;
        }
        run.expect(5);
    }
    panic!("three runs have not worked it off");
}

/// Four workers on one backlog: two are killed, one is told to stop, and one more ends what they left.
pub(crate) async fn a_fleet_archives_everything_once(simulator: &Simulator, deployment: &Deployment) {
    let ids = simulator.world().session_ids();
    deployment.write_ids(&ids);
    assert_eq!(add(deployment).await["added"], ids.len() as u64);
    let workers: Vec<Child> =
        (0..4).map(|_| start(deployment, &["--idle-exit", "3s", "--drain-timeout", "1s"])).collect();
    let [mut first, mut second, third, fourth] = <[Child; 4]>::try_from(workers).unwrap();
    let media = simulator.world().all_media().count() as u64;
    until("a fifth is done", || simulator.count(Endpoint::Media) > media / 5).await;
    first.kill().unwrap();
    until("two fifths are done", || simulator.count(Endpoint::Media) > media * 2 / 5).await;
    second.kill().unwrap();
    signal(&third, Signal::TERM);
    tokio::join!(ended(first), ended(second));
    ended(third).await.expect(143);
    let fourth = ended(fourth).await;
    assert!(matches!(fourth.code, Some(0 | 5)), "{}\n{}", fourth.stdout, fourth.stderr);
    // What the killed ones held comes free when their leases have lapsed.
    work_off_the_rest(deployment).await;
    let listing = list(deployment, &[]).await;
    // Some are not settled, and wait for another day.
    assert_eq!(numbers(&listing["backlog"], &["ready", "leased"]), [0, 0]);
    let status = deployment.run(["status"]).await.expect(0).json();
    assert_eq!(status["states"][0]["state"], "archived");
    assert_eq!(status["states"][0]["sessions"], ids.len() as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_on_one_machine_archives_every_session_once() {
    let scene = Scene::with(small_world(71, 60), "", "lease = \"3s\"\nsessions_in_flight = 4\n").await;
    a_fleet_archives_everything_once(&scene.simulator, &scene.deployment).await;
    let evidence = Evidence::of_directory(&scene.store());
    evidence.expect_whole(&scene.simulator);
    evidence.expect_one_version_each();
    evidence.expect_no_false_ledger(&scene.deployment, &scene.ids()).await;
}
