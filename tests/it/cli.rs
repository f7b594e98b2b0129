//! The command line: help, exit codes, what goes where, and the commands that need no Veriff.

use std::io::Read as _;
use std::path::Path;
use std::process::Stdio;

use clap::CommandFactory as _;
use veriff_archive::cli::Cli;
use veriff_sim::{Simulator, World};

use crate::program::{command, run};
use crate::support::s3::{ADMIN, Bucket, Identity, WRITER, s3};

/// Every command and subcommand, as one types it.
fn commands() -> Vec<Vec<String>> {
    fn walk(command: &clap::Command, path: &[String], all: &mut Vec<Vec<String>>) {
        for sub in command.get_subcommands() {
            let path: Vec<_> = path.iter().cloned().chain([sub.get_name().to_owned()]).collect();
            walk(sub, &path, all);
            all.push(path);
        }
    }
    let mut all = Vec::new();
    walk(&Cli::command(), &[], &mut all);
    all
}

fn simulator(sessions: usize) -> Simulator {
    Simulator::start_on_thread(World::builder(7).sessions(sessions).build()).unwrap()
}

fn variables(simulator: &Simulator) -> Vec<(&'static str, String)> {
    vec![
        ("VERIFF_BASE_URL", simulator.base_url()),
        ("VERIFF_API_KEY", simulator.api_key()),
        ("VERIFF_SHARED_SECRET", simulator.secret()),
        ("VERIFF_ARCHIVE__INTEGRATIONS__DEFAULT__ALLOW_HTTP", "true".to_owned()),
    ]
}

fn borrowed<'a>(variables: &'a [(&'static str, String)]) -> Vec<(&'static str, &'a str)> {
    variables.iter().map(|(name, value)| (*name, value.as_str())).collect()
}

fn write_ids(directory: &Path, lines: &str) {
    std::fs::write(directory.join("ids.txt"), lines).unwrap();
}

#[test]
fn every_command_has_help() {
    let directory = tempfile::tempdir().unwrap();
    let commands = commands();
    assert!(commands.len() >= 10, "{commands:?}");
    for path in commands {
        let mut arguments: Vec<&str> = path.iter().map(String::as_str).collect();
        arguments.push("--help");
        let outcome = run(directory.path(), &arguments, &[]);
        assert_eq!(outcome.code, 0, "{outcome:?}");
        assert!(outcome.stdout.contains("Usage: veriff-archive"), "{outcome:?}");
        assert!(outcome.stderr.is_empty(), "{outcome:?}");
    }
    let help = run(directory.path(), &["--help"], &[]).stdout;
    for code in ["0", "1", "2", "3", "4", "5", "6", "10", "77", "78", "130", "143"] {
        assert!(help.lines().any(|line| line.trim_start().starts_with(&format!("{code}  "))), "{code}");
    }
}

#[test]
fn wrong_usage_exits_2() {
    let directory = tempfile::tempdir().unwrap();
    for arguments in [
        "run",
        "plan",
        "",
        "run --sessions ids.txt --max-sessions 0",
        "run --sessions ids.txt --max-bytes many",
        "run --sessions ids.txt --api-key k",
        "schema nonsense",
        "--log-level loud status",
    ] {
        let outcome = run(directory.path(), &arguments.split_whitespace().collect::<Vec<_>>(), &[]);
        assert_eq!(outcome.code, 2, "{arguments}: {outcome:?}");
        assert!(outcome.stdout.is_empty(), "{outcome:?}");
    }
}

#[test]
fn what_comes_later_is_absent() {
    let directory = tempfile::tempdir().unwrap();
    for arguments in ["hold", "retention", "expire", "erase"] {
        assert_eq!(run(directory.path(), &[arguments], &[]).code, 2, "{arguments}");
    }
}

#[test]
fn every_shell_gets_completions() {
    let directory = tempfile::tempdir().unwrap();
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let outcome = run(directory.path(), &["completions", shell], &[]);
        assert_eq!(outcome.code, 0, "{outcome:?}");
        assert!(outcome.stdout.contains("veriff-archive") && outcome.stdout.contains("drain-timeout"), "{shell}");
    }
}

#[test]
fn every_command_has_a_manual_page() {
    let directory = tempfile::tempdir().unwrap();
    let page = run(directory.path(), &["man"], &[]);
    assert!(page.stdout.contains(".TH veriff-archive"), "{page:?}");
    assert_eq!(run(directory.path(), &["man", "--out", "pages"], &[]).code, 0);
    for path in commands() {
        let page = directory.path().join(format!("pages/veriff-archive-{}.1", path.join("-")));
        assert!(page.is_file(), "{}", page.display());
    }
}

#[test]
fn every_document_has_a_schema() {
    let directory = tempfile::tempdir().unwrap();
    let list = run(directory.path(), &["schema"], &[]).json();
    let names: Vec<_> = list["documents"].as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap()).collect();
    for name in ["sidecar", "manifest", "archive", "result", "plan", "status", "doctor", "config"] {
        assert!(names.contains(&name), "{name}");
    }
    for name in names {
        let schema = run(directory.path(), &["schema", name], &[]).json();
        assert!(schema["properties"].is_object(), "{name}");
    }
    let from_config = run(directory.path(), &["config", "schema"], &[]).json();
    assert_eq!(from_config, run(directory.path(), &["schema", "config"], &[]).json());
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let directory = tempfile::tempdir().unwrap();
    for arguments in [&["schema", "manifest"][..], &["completions", "bash"], &["--help"]] {
        let mut child =
            command(directory.path()).args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let mut stderr = String::new();
        child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0), "{stderr}");
        assert_eq!(stderr, "");
    }
}

#[test]
fn status_makes_no_ledger_and_migrate_makes_one() {
    let directory = tempfile::tempdir().unwrap();
    let before = run(directory.path(), &["status", "--check"], &[]);
    assert_eq!(before.code, 0, "{before:?}");
    assert_eq!(before.json()["ledger_exists"], false);
    assert!(!directory.path().join("ledger.db").exists());
    let made = run(directory.path(), &["ledger", "migrate"], &[]);
    assert_eq!((made.code, &made.json()["created"]), (0, &true.into()));
    let again = run(directory.path(), &["ledger", "migrate"], &[]);
    assert_eq!((again.code, &again.json()["created"]), (0, &false.into()));
    let after = run(directory.path(), &["status", "--output", "text"], &[]);
    assert!(after.stdout.contains("sessions   0") && after.stdout.contains("next: "), "{after:?}");
}

#[test]
fn a_plan_counts_and_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    write_ids(directory.path(), "# two sessions and a bad line\nsession-1\nAda Lovelace\nsession-2\n");
    let variables = [("VERIFF_BASE_URL", "https://stationapi.veriff.com")];
    let arguments = ["plan", "--sessions", "ids.txt", "--store", "file:///nowhere/at/all"];
    let outcome = run(directory.path(), &arguments, &variables);
    assert_eq!(outcome.code, 0, "{outcome:?}");
    let plan = outcome.json();
    assert_eq!(plan["schema"], "veriff-archive/plan/v1");
    assert_eq!((&plan["sessions"]["new"], &plan["source"]["bad"]), (&2.into(), &1.into()));
    assert_eq!((&plan["work"]["requests"], &plan["work"]["puts"]), (&18.into(), &26.into()));
    assert_eq!(plan["deadlines"]["unknown"], 2);
    assert!(outcome.stderr.contains("line 3") && !outcome.mentions("Lovelace"), "{outcome:?}");
    let left: Vec<_> = std::fs::read_dir(directory.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
    let text = run(directory.path(), &[&arguments[..], &["--output", "text"]].concat(), &variables);
    assert!(text.stdout.contains("2 new"), "{text:?}");
    let next = "next: veriff-archive run --sessions ids.txt --store file:///nowhere/at/all";
    assert_eq!(text.stdout.lines().last(), Some(next));
}

#[test]
fn a_plan_exits_6_when_a_session_cannot_be_finished_in_time() {
    let directory = tempfile::tempdir().unwrap();
    write_ids(directory.path(), "session_id,decided_at\nsession-1,2020-01-01T00:00:00Z\n");
    let variables = [("VERIFF_BASE_URL", "https://stationapi.veriff.com")];
    let outcome = run(directory.path(), &["plan", "--sessions", "ids.txt"], &variables);
    assert_eq!(outcome.code, 6, "{outcome:?}");
    let deadlines = &outcome.json()["deadlines"];
    assert_eq!((&deadlines["past"], &deadlines["cannot_finish"]), (&1.into(), &1.into()));
}

#[test]
fn a_plan_tells_locks_by_class() {
    let directory = tempfile::tempdir().unwrap();
    write_ids(directory.path(), "session_id,decided_at\nsession-1,2026-11-01T12:00:00Z\n");
    let variables = [
        ("VERIFF_BASE_URL", "https://stationapi.veriff.com"),
        ("VERIFF_ARCHIVE__RETENTION", r#"{ mode = "COMPLIANCE", period = "5y", max_period = "10y" }"#),
    ];
    let arguments = ["plan", "--sessions", "ids.txt", "--store", "s3://bucket/prefix"];
    let plan = run(directory.path(), &arguments, &variables).json();
    assert_eq!(plan["locks"][0]["class"], "default");
    assert_eq!(plan["locks"][0]["mode"], "COMPLIANCE");
    assert_eq!(plan["locks"][0]["last_until"], "2031-11-02T00:00:00.000Z");
}

#[test]
fn a_sample_asks_veriff_for_lists_only() {
    let directory = tempfile::tempdir().unwrap();
    let simulator = simulator(5);
    let ids = simulator.world().session_ids().join("\n");
    write_ids(directory.path(), &ids);
    let variables = variables(&simulator);
    let arguments = ["plan", "--sessions", "ids.txt", "--sample", "3"];
    let outcome = run(directory.path(), &arguments, &borrowed(&variables));
    assert!(matches!(outcome.code, 0 | 6), "{outcome:?}");
    let plan = outcome.json();
    assert_eq!(plan["per_session"]["basis"], "sample");
    assert_eq!(plan["sessions"]["new"], 5);
    assert!(plan["work"]["bytes"].as_u64().unwrap() > 0);
    assert_eq!(simulator.count(veriff_sim::Endpoint::Media), 0);
    assert!(simulator.count(veriff_sim::Endpoint::Attempts) >= 3);
}

#[test]
fn a_plan_without_its_source_or_integration_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let variables = [("VERIFF_BASE_URL", "https://stationapi.veriff.com")];
    let missing = run(directory.path(), &["plan", "--sessions", "missing.txt"], &variables);
    assert_eq!(missing.code, 2, "{missing:?}");
    assert!(missing.stderr.contains("missing.txt"), "{missing:?}");
    let nobody = run(directory.path(), &["plan", "--sessions", "ids.txt"], &[]);
    assert_eq!(nobody.code, 78, "{nobody:?}");
    assert!(nobody.stderr.contains("VERIFF_BASE_URL"), "{nobody:?}");
}

#[test]
fn with_json_logs_every_line_on_standard_error_is_json() {
    let directory = tempfile::tempdir().unwrap();
    let variables = [("VERIFF_ARCHIVE__STORE__URL", "bucket")];
    let outcome = run(directory.path(), &["--log-format", "json", "status"], &variables);
    assert_eq!(outcome.code, 78);
    assert_eq!(outcome.stderr.lines().count(), 1, "{outcome:?}");
    let line: serde_json::Value = serde_json::from_str(outcome.stderr.trim()).unwrap();
    assert_eq!(line["level"], "ERROR");
    assert!(line["message"].as_str().unwrap().contains("store.url"), "{line}");
}

#[test]
fn a_doctor_finds_a_healthy_machine_healthy() {
    let directory = tempfile::tempdir().unwrap();
    let simulator = simulator(1);
    let variables = variables(&simulator);
    let store = format!("file://{}", directory.path().join("store").display());
    let outcome = run(directory.path(), &["doctor", "--store", &store], &borrowed(&variables));
    assert_eq!(outcome.code, 0, "{outcome:?}");
    let doctor = outcome.json();
    assert_eq!(doctor["schema"], "veriff-archive/doctor/v1");
    assert!(doctor["checks"].as_array().unwrap().iter().all(|check| check["status"] != "fail"));
    assert!(!directory.path().join("store").exists());
    assert!(!outcome.mentions(&simulator.secret()), "{outcome:?}");
}

#[test]
fn a_doctor_names_the_repair_of_each_fault() {
    let directory = tempfile::tempdir().unwrap();
    let broken = run(directory.path(), &["doctor"], &[("VERIFF_ARCHIVE__STORE__URL", "bucket")]);
    assert_eq!(broken.code, 78, "{broken:?}");
    assert_eq!(broken.json()["checks"][0]["name"], "configuration");
    let simulator = simulator(1);
    let mut variables = variables(&simulator);
    variables.retain(|(name, _)| *name != "VERIFF_SHARED_SECRET");
    let unset = run(directory.path(), &["doctor", "--store", "file:///tmp"], &borrowed(&variables));
    assert_eq!(unset.code, 78, "{unset:?}");
    let checks = unset.json()["checks"].as_array().unwrap().clone();
    let failed: Vec<_> = checks.iter().filter(|check| check["status"] == "fail").collect();
    assert_eq!(failed.len(), 1, "{failed:?}");
    assert_eq!(failed[0]["name"], "credentials.default.shared_secret");
    assert!(failed[0]["repair"].is_string());
}

#[test]
fn a_doctor_tells_an_unreachable_veriff_without_its_secrets() {
    let directory = tempfile::tempdir().unwrap();
    let simulator = simulator(1);
    let variables = variables(&simulator);
    let secret = simulator.secret();
    simulator.stop();
    let arguments = ["--log-level", "trace", "doctor", "--store", "file:///tmp"];
    let outcome = run(directory.path(), &arguments, &borrowed(&variables));
    assert_eq!(outcome.code, 5, "{outcome:?}");
    assert!(!outcome.mentions(&secret), "{outcome:?}");
}

/// Looks at a bucket as a user would, with a policy that locks.
fn look_at(bucket: &Bucket, identity: Identity) -> crate::program::Outcome {
    let directory = tempfile::tempdir().unwrap();
    let simulator = simulator(1);
    let variables = variables(&simulator);
    let mut all = borrowed(&variables);
    all.extend(identity.environment());
    all.extend([
        ("VERIFF_ARCHIVE__STORE__ENDPOINT_URL", bucket.endpoint.as_str()),
        ("VERIFF_ARCHIVE__STORE__FORCE_PATH_STYLE", "true"),
        ("VERIFF_ARCHIVE__RETENTION", r#"{ mode = "COMPLIANCE", period = "5y", max_period = "10y" }"#),
    ]);
    let store = format!("s3://{}/eu/live", bucket.name);
    let outcome = run(directory.path(), &["--log-level", "trace", "doctor", "--store", &store], &all);
    assert!(!outcome.mentions(identity.secret_access_key) && !outcome.mentions(&simulator.secret()));
    outcome
}

fn status_of(outcome: &crate::program::Outcome, name: &str) -> String {
    let document = outcome.json();
    let check = document["checks"].as_array().unwrap().iter().find(|check| check["name"] == name);
    check.map_or_else(|| "none".to_owned(), |check| check["status"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn a_doctor_is_content_with_a_bucket_that_locks() {
    let bucket = s3().await.create_bucket("doctor-locked", true).await;
    let outcome = look_at(&bucket, ADMIN);
    assert_eq!(outcome.code, 0, "{outcome:?}");
    assert_eq!(status_of(&outcome, "store.object_lock"), "ok");
    assert_eq!(status_of(&outcome, "clock"), "ok");
    assert_eq!(status_of(&outcome, "store.unfinished_uploads"), "warn");
    assert!(bucket.versions().await.is_empty());
}

#[tokio::test]
async fn a_doctor_refuses_a_bucket_that_cannot_lock_with_77() {
    let bucket = s3().await.create_bucket("doctor-plain", false).await;
    let outcome = look_at(&bucket, WRITER);
    assert_eq!(outcome.code, 77, "{outcome:?}");
    assert_eq!(status_of(&outcome, "store.object_lock"), "fail");
    assert!(outcome.stdout.contains("turn on versioning and Object Lock"), "{outcome:?}");
}

#[tokio::test]
async fn a_doctor_refuses_wrong_keys_of_the_store_with_77() {
    let bucket = s3().await.create_bucket("doctor-refused", true).await;
    let stranger = Identity { secret_access_key: "not-the-secret-of-anyone", ..WRITER };
    let outcome = look_at(&bucket, stranger);
    assert_eq!(outcome.code, 77, "{outcome:?}");
    assert_eq!(status_of(&outcome, "store"), "fail");
}

#[tokio::test]
async fn a_plan_reads_its_list_from_a_bucket() {
    let bucket = s3().await.create_bucket("plan-list", true).await;
    bucket.put_over("lists/ids.txt", b"session-1\nsession-2\n").await;
    let directory = tempfile::tempdir().unwrap();
    let mut variables = vec![
        ("VERIFF_BASE_URL", "https://stationapi.veriff.com"),
        ("VERIFF_ARCHIVE__STORE__ENDPOINT_URL", bucket.endpoint.as_str()),
        ("VERIFF_ARCHIVE__STORE__FORCE_PATH_STYLE", "true"),
        ("VERIFF_ARCHIVE__RETENTION__MODE", "none"),
    ];
    variables.extend(WRITER.environment());
    let (list, store) = (format!("s3://{}/lists/ids.txt", bucket.name), format!("s3://{}", bucket.name));
    let outcome = run(directory.path(), &["plan", "--sessions", &list, "--store", &store], &variables);
    assert_eq!(outcome.code, 0, "{outcome:?}");
    assert_eq!((&outcome.json()["source"]["kind"], &outcome.json()["sessions"]["new"]), (&"s3".into(), &2.into()));
    let gone = run(directory.path(), &["plan", "--sessions", &format!("{list}.gone"), "--store", &store], &variables);
    assert_eq!(gone.code, 2, "{gone:?}");
}
