//! Places that cannot be used: the store, the ledger, the results, the input.

use veriff_sim::{Attempt, Session, id};

use crate::support::program::{Ended, ended};
use crate::support::scene::{Scene, assert_in_equals_out, session, world_of};
use crate::support::stored::objects;

async fn scene() -> Scene {
    let sessions: Vec<_> = (0..4).map(|number| session(&format!("session {number}"))).collect();
    Scene::of(world_of(&sessions)).await
}

/// Fails unless a message on standard error has all of these words.
#[track_caller]
fn assert_says(ended: &Ended, words: &[&str]) {
    for word in words {
        assert!(ended.stderr.contains(word), "{word}: {}", ended.stderr);
    }
}

#[tokio::test]
async fn a_store_that_is_a_file_is_refused_before_veriff_is_asked() {
    let scene = scene().await;
    scene.deployment.write("store", "not a directory");
    let ended = scene.archive(&[]).await.expect(77);
    assert_says(&ended, &["store.url"]);
    assert_eq!(scene.simulator.stats().requests, 0);
}

#[tokio::test]
async fn a_store_whose_folders_are_taken_by_a_file_stops_the_run_and_loses_nothing() {
    let scene = scene().await;
    std::fs::create_dir(scene.store()).unwrap();
    std::fs::write(scene.store().join("sessions"), "in the way").unwrap();
    let ended = scene.archive(&[]).await.expect(77);
    assert_says(&ended, &["store.url"]);
    if !ended.stdout.is_empty() {
        assert_eq!(ended.count("pending"), ended.json()["source"]["records"].as_u64().unwrap());
    }
    std::fs::remove_file(scene.store().join("sessions")).unwrap();
    assert_eq!(scene.archive(&[]).await.expect(0).count("archived"), 4);
}

#[tokio::test]
async fn a_ledger_that_cannot_be_opened_ends_the_run_with_5_before_veriff_is_asked() {
    let scene = scene().await;
    std::fs::create_dir(scene.deployment.path("ledger.db")).unwrap();
    let ended = scene.archive(&[]).await.expect(5);
    assert_says(&ended, &["ledger"]);
    assert_eq!(scene.simulator.stats().requests, 0);
    scene.assert_nothing_written();
}

#[tokio::test]
async fn a_file_that_is_no_ledger_is_left_as_it_is() {
    let scene = scene().await;
    let text = "this is somebody's diary, not a database; ".repeat(200);
    scene.deployment.write("ledger.db", &text);
    let ended = scene.archive(&[]).await;
    assert!(matches!(ended.code, Some(5 | 78)), "{:?}: {}", ended.code, ended.stderr);
    assert_says(&ended, &["ledger"]);
    assert_eq!(std::fs::read_to_string(scene.deployment.path("ledger.db")).unwrap(), text);
    scene.assert_nothing_written();
}

#[tokio::test]
async fn results_that_cannot_be_written_end_the_run_with_5_and_lose_nothing() {
    let scene = scene().await;
    // A device without space: every write to it fails as on a full disk.
    let ended = scene.deployment.archive(&["--results", "/dev/full"]).await.expect(5);
    assert_says(&ended, &["no space left", "/dev/full"]);
    assert_in_equals_out(&ended);
    let done = ended.count("archived");
    let ended = scene.archive(&[]).await.expect(0);
    assert_eq!((ended.count("unchanged"), ended.count("archived")), (done, 4 - done));
    let ended = scene.deployment.archive(&["--results", "no/such/folder/results.ndjson"]).await.expect(5);
    assert_says(&ended, &["no/such/folder/results.ndjson"]);
}

#[tokio::test]
async fn an_input_that_is_not_there_is_wrong_usage_and_one_that_cannot_be_read_exits_5() {
    let scene = scene().await;
    std::fs::remove_file(scene.deployment.path("sessions.txt")).unwrap();
    let ended = scene.archive(&[]).await.expect(2);
    assert_says(&ended, &["sessions.txt"]);
    std::fs::create_dir(scene.deployment.path("sessions.txt")).unwrap();
    let ended = scene.archive(&[]).await.expect(5);
    assert_says(&ended, &["sessions.txt"]);
    assert_eq!(scene.simulator.stats().requests, 0);
}

#[tokio::test]
async fn an_object_that_may_not_grow_is_missing_and_never_half_there() {
    let small = session("small");
    let big = Session::new(id("big")).attempt(Attempt::approved(id("big: attempt")).image("face", 3_000_000));
    let scene = Scene::of(world_of([&small, &big])).await;
    // No file may have more than one or two MiB, depending on the shell's unit, as under a quota.
    let program = scene.deployment.command(["run", "--sessions", "sessions.txt", "--progress", "none"]);
    let mut limited = std::process::Command::new("sh");
    limited
        .arg("-c")
        .arg("trap '' XFSZ; ulimit -f 2048; exec \"$0\" \"$@\"")
        .arg(program.get_program())
        .args(program.get_args())
        .current_dir(program.get_current_dir().unwrap())
        .env_clear()
        .envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))))
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    let ended = ended(limited.spawn().unwrap()).await.expect(5);
    assert_in_equals_out(&ended);
    assert_eq!((ended.count("archived"), ended.count("failed")), (1, 1), "{}", ended.stdout);
    assert_says(&ended, &["store.unavailable"]);
    assert!(objects(&scene.store()).values().all(|bytes| bytes.len() < 3_000_000));
    scene.assert_whole(&small.id);
    scene.assert_only_media();
    assert_eq!(scene.archive(&[]).await.expect(0).count("archived"), 1);
    scene.assert_whole(&big.id);
}
