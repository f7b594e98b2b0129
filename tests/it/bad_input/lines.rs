//! Lines that are no records: told by number and reason, never repeated, and the run goes on.

use veriff_sim::{Effect, Endpoint, Fault, World, id};

use crate::support::program::{Ended, ended, results};
use crate::support::scene::{Scene, assert_in_equals_out, session, world_of};
use crate::support::stored::{manifests, objects};

/// A text that a person may have put where an id belongs; nothing of it is ever repeated.
const SOMEBODY: &str = "Ada Lovelace";

/// A world of two sessions, and their ids.
async fn scene() -> (Scene, [String; 2]) {
    let (one, two) = (session("one"), session("two"));
    let scene = Scene::of(world_of([&one, &two])).await;
    (scene, [one.id, two.id])
}

/// Fails unless exactly these lines were refused, each with its reason, and nothing of them was repeated.
#[track_caller]
fn assert_refused(scene: &Scene, ended: &Ended, refused: &[(usize, &str)]) {
    assert_eq!(ended.count("failed"), refused.len() as u64, "{}\n{}", ended.stdout, ended.stderr);
    let code = &ended.json()["codes"][0];
    assert_eq!((&code["code"], &code["sessions"]), (&"input.invalid".into(), &refused.len().into()));
    for (number, reason) in refused {
        let place = format!("line {number}: ");
        let told: Vec<&str> = ended.stderr.lines().filter(|line| line.contains(&place)).collect();
        assert_eq!(told.len(), 1, "{place}{}", ended.stderr);
        assert!(told[0].contains(reason), "{place}{reason}: {}", told[0]);
    }
    let results = std::fs::read_to_string(scene.deployment.path("results.ndjson")).unwrap_or_default();
    for text in [&ended.stdout, &ended.stderr, &results] {
        assert!(!text.contains("Ada") && !text.contains("Lovelace"), "{text}");
    }
}

#[tokio::test]
async fn plain_lines_that_are_no_ids_fail_and_the_run_goes_on() {
    let (scene, [one, two]) = scene().await;
    let long = "a".repeat(129);
    let huge = "Lovelace".repeat(200_000);
    let text = format!(
        "\u{feff}# export\r\n{one}\r\n\r\n{SOMEBODY}\n../../{SOMEBODY}\n{one}/media\n{long}\n{huge}\né\n%2e%2e\n\0\n{two}"
    );
    scene.deployment.write("sessions.txt", &text);
    let ended = scene.archive(&[]).await.expect(3);
    assert_eq!(ended.count("archived"), 2);
    let character = "a character outside";
    let refused = [
        (4, character),
        (5, character),
        (6, character),
        (7, "longer than 128 characters"),
        (8, "longer than 1 MiB"),
        (9, character),
        (10, character),
        (11, character),
    ];
    assert_refused(&scene, &ended, &refused);
    assert_eq!(ended.json()["source"]["records"], 10);
    let keys = objects(&scene.store());
    assert!(keys.keys().all(|key| key == "archive.json" || key.contains(&one) || key.contains(&two)), "{keys:?}");
    let outside = std::fs::read_dir(scene.deployment.path(".")).unwrap().count();
    let usual =
        ["api-key", "archive.toml", "base", "ledger.db", "results.ndjson", "sessions.txt", "shared-secret", "store"];
    assert!(outside <= usual.len() + 2, "nothing is written outside the store");
}

#[tokio::test]
async fn bytes_that_are_no_text_fail_as_any_other_line() {
    let (scene, [one, _]) = scene().await;
    let bytes = [one.as_bytes(), b"\n\xff\xfe\xfdLovelace\n"].concat();
    std::fs::write(scene.deployment.path("sessions.txt"), bytes).unwrap();
    let ended = scene.archive(&[]).await.expect(3);
    assert_eq!(ended.count("archived"), 1);
    assert_refused(&scene, &ended, &[(2, "not UTF-8")]);
}

#[tokio::test]
async fn csv_lines_that_are_no_records_fail_and_the_run_goes_on() {
    let (scene, [one, two]) = scene().await;
    let text = format!(
        "\u{feff}name,session_id,decided_at,retention_class,reference\r\n\
         {SOMEBODY},{one},2026-10-05T10:00:00Z,,\"order 7, {SOMEBODY}\"\r\n\
         {SOMEBODY}\r\n\
         {SOMEBODY},,,,\r\n\
         {SOMEBODY},{two},yesterday {SOMEBODY},,\r\n\
         {SOMEBODY},{two},2031-01-01T00:00:00Z,,\r\n\
         {SOMEBODY},{two},2014-12-31T23:59:59Z,,\r\n\
         {SOMEBODY},{two},,{SOMEBODY},\r\n\
         \"{SOMEBODY}\" x,{two},,,\r\n\
         {SOMEBODY},{two},,,\r\n"
    );
    scene.deployment.write("sessions.txt", &text);
    let ended = scene.deployment.archive(&[]).await.expect(3);
    assert_in_equals_out(&ended);
    assert_eq!(ended.count("archived"), 2);
    let refused = [
        (3, "1 fields where the header has 5"),
        (4, "there is no session_id"),
        (5, "decided_at is not a date"),
        (6, "decided_at is in the future"),
        (7, "decided_at is before 2015"),
        (8, "retention_class is not a configured class"),
        (9, "after a closing quote"),
    ];
    assert_refused(&scene, &ended, &refused);
    assert_eq!(manifests(&scene.store(), &one)[0]["decided_at"], "2026-10-05T10:00:00.000Z");
    let stored = objects(&scene.store());
    let is_kept = |text: &str| stored.values().any(|bytes| String::from_utf8_lossy(bytes).contains(text));
    assert!(!is_kept("Lovelace") && !is_kept("order 7"), "a reference lives in the ledger only");
}

#[tokio::test]
async fn a_csv_file_without_ids_is_refused_whole() {
    for (header, reason) in [
        ("name,id\n", "has no column session_id"),
        ("session_id,session_id\n", "names a column twice"),
        ("session_id,\"Ada\n", "has an unclosed quote"),
    ] {
        let (scene, [one, _]) = scene().await;
        scene.deployment.write("sessions.txt", &format!("{header}{SOMEBODY},{one}\n"));
        let ended = scene.archive(&[]).await.expect(3);
        assert!(ended.stderr.contains("the CSV header in line 1") && ended.stderr.contains(reason), "{}", ended.stderr);
        assert!(!ended.stderr.contains("Lovelace"), "{}", ended.stderr);
        scene.assert_nothing_written();
    }
}

#[tokio::test]
async fn ndjson_lines_that_are_no_records_fail_and_the_run_goes_on() {
    let (scene, [one, two]) = scene().await;
    let text = [
        format!(r#"{{"session_id":"{one}","reference":"order 7","name":"{SOMEBODY}"}}"#),
        format!(r#"{{"session_id":"{two}","#),
        format!(r#"["{two}"]"#),
        format!(r#"{{"session_id":17,"name":"{SOMEBODY}"}}"#),
        format!(r#"{{"session_id":"{SOMEBODY}"}}"#),
        format!(r#"{{"id":"{two}"}}"#),
        format!(r#"{{"session_id":"{two}","integration":"{SOMEBODY}"}}"#),
        format!(r#"{{"session_id":"{two}","session_id":"{SOMEBODY}"}}"#),
        format!(r#"{{"session_id":"{two}"}}"#),
    ]
    .join("\r\n");
    scene.deployment.write("sessions.txt", &text);
    let ended = scene.archive(&[]).await.expect(3);
    assert_eq!(ended.count("archived"), 2);
    let refused = [
        (2, "not valid JSON"),
        (3, "not a JSON object"),
        (4, "session_id is not text"),
        (5, "a character outside"),
        (6, "there is no session_id"),
        (7, "integration is not a configured one"),
        (8, "a field occurs twice"),
    ];
    assert_refused(&scene, &ended, &refused);
    let lines = results(&scene.deployment.path("results.ndjson"));
    let of_one: Vec<_> = lines.iter().filter(|line| line["session_id"] == one.as_str()).collect();
    assert_eq!((of_one.len(), &of_one[0]["reference"]), (1, &"order 7".into()), "every input field is repeated");
    // Line 7 names a session, so it has a result line; the other bad ones have nothing to be named by.
    let invalid: Vec<_> = lines.iter().filter(|line| line["code"] == "input.invalid").collect();
    assert_eq!((invalid.len(), &invalid[0]["session_id"]), (1, &two.as_str().into()));
}

#[tokio::test]
async fn an_input_of_nothing_is_nothing_to_do() {
    for text in ["", "\n\n# nothing\n", "\u{feff}", "session_id\n"] {
        let (scene, _) = scene().await;
        scene.deployment.write("sessions.txt", text);
        let ended = scene.archive(&[]).await.expect(0);
        assert_eq!((&ended.json()["source"]["records"], &ended.json()["next"]), (&0.into(), &"nothing".into()));
        scene.assert_nothing_written();
        assert_eq!(scene.simulator.stats().requests, 0);
    }
}

#[tokio::test]
async fn the_same_line_twice_is_archived_once_and_found_done() {
    let (scene, [one, two]) = scene().await;
    scene.deployment.write_ids(&[&one, &two, &one, &one]);
    let ended = scene.archive(&[]).await.expect(0);
    assert_eq!((ended.count("archived"), ended.count("unchanged")), (2, 2));
    assert_eq!(scene.simulator.count(Endpoint::Media), 4, "each item is fetched once");
    assert_eq!(manifests(&scene.store(), &one).len(), 1);
}

#[tokio::test]
async fn the_same_line_twice_is_set_aside_once() {
    let (scene, [one, two]) = scene().await;
    scene.deployment.write_ids(&[&one, &two, &one]);
    scene.simulator.set_fault(Fault::forever(Effect::status(503)).id(&one));
    let ended = scene.archive(&[]).await.expect(5);
    assert_eq!((ended.count("failed"), &ended.json()["repeated"]), (1, &1.into()));
}

#[tokio::test]
async fn an_id_that_veriff_does_not_take_fails_as_input_and_nothing_is_stored() {
    let (scene, [one, two]) = scene().await;
    scene.deployment.write_ids(&[one.as_str(), "not-a-uuid", "manifest", two.as_str()]);
    let ended = scene.archive(&[]).await.expect(3);
    assert_eq!((ended.count("archived"), ended.count("failed")), (2, 2));
    for id in ["not-a-uuid", "manifest"] {
        scene.assert_outcome(id, "failed", Some("input.invalid"));
        assert!(objects(&scene.store()).keys().all(|key| !key.contains(&format!("sessions/{id}/"))));
    }
    assert!(ended.stderr.contains("not-a-uuid"), "a valid id may be named: {}", ended.stderr);
}

#[tokio::test]
async fn nothing_but_ids_that_veriff_does_not_take_is_no_wrong_integration() {
    let scene = Scene::of(World::new()).await;
    let ids: Vec<String> = (0..30).map(|number| format!("order-{number}")).collect();
    scene.deployment.write_ids(&ids);
    let ended = scene.archive(&[]).await.expect(3);
    assert_eq!(ended.count("failed"), 30);
    scene.assert_nothing_written();
}

#[tokio::test]
async fn standard_input_is_a_file_like_any_other() {
    let (scene, [one, two]) = scene().await;
    let mut command = scene.deployment.command(["run", "--sessions", "-", "--progress", "none"]);
    command.stdin(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    std::io::Write::write_all(&mut stdin, format!("{one}\nnot an id\n{two}").as_bytes()).unwrap();
    drop(stdin);
    let ended = ended(child).await.expect(3);
    assert_in_equals_out(&ended);
    assert_eq!((ended.count("archived"), &ended.json()["source"]["kind"]), (2, &"stdin".into()));
    assert!(ended.stderr.contains("line 2: "), "{}", ended.stderr);
}

#[tokio::test]
async fn a_format_that_is_said_is_not_guessed() {
    let (scene, [one, two]) = scene().await;
    scene.deployment.write("sessions.txt", &format!("session_id\n{one}\n{two}\n"));
    let ended = scene.archive(&["--format", "plain"]).await.expect(3);
    // The header is an id by its characters; Veriff does not take it.
    scene.assert_outcome("session_id", "failed", Some("input.invalid"));
    assert_eq!(ended.count("archived"), 2);
    let ended = scene.archive(&["--format", "ndjson"]).await.expect(3);
    assert_eq!(ended.count("failed"), 3);
    assert_eq!(id("one"), one);
}
