//! The program with its ledger in PostgreSQL, as an operator meets it.

use std::process::Child;

use veriff_sim::{Simulator, World};

use crate::support::postgres::postgres;
use crate::support::program::{Deployment, ended};

/// A deployment over a directory, whose ledger is the database at this URL.
fn deployment(simulator: &Simulator, url: &str) -> Deployment {
    let mut deployment = Deployment::with_directory(simulator);
    deployment.set("VERIFF_ARCHIVE__LEDGER__URL", url);
    deployment
}

fn simulator(sessions: usize) -> Simulator {
    Simulator::start_on_thread(World::builder(11).sessions(sessions).build()).unwrap()
}

/// Returns the password of a URL.
fn password(url: &str) -> &str {
    url.split_once('@').unwrap().0.rsplit_once(':').unwrap().1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn migrations_of_many_at_once_wait_for_one_another() {
    let url = postgres().await.create_database().await;
    let deployment = deployment(&simulator(1), &url);
    let started: Vec<Child> = (0..4).map(|_| deployment.start(["ledger", "migrate"])).collect();
    let mut created = 0;
    for child in started {
        let answer = ended(child).await.expect(0).json();
        assert_eq!((&answer["engine"], &answer["to"]), (&"postgres".into(), &4.into()));
        created += u32::from(answer["created"].as_bool().unwrap());
        assert_eq!(answer["from"].is_null(), answer["created"].as_bool().unwrap());
    }
    assert_eq!(created, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_without_a_ledger_stops_a_run_and_names_the_command() {
    let simulator = simulator(2);
    let url = postgres().await.create_database().await;
    let deployment = deployment(&simulator, &url);
    deployment.write_ids(&simulator.world().session_ids());
    let refused = deployment.archive(&[]).await.expect(78);
    assert!(refused.stderr.contains("veriff-archive ledger migrate"), "{}", refused.stderr);
    assert_eq!(deployment.run(["status"]).await.expect(0).json()["ledger_exists"], false);
    let doctor = deployment.run(["doctor"]).await.expect(78).json();
    let check = doctor["checks"].as_array().unwrap().iter().find(|check| check["name"] == "ledger").unwrap().clone();
    assert_eq!(check["status"], "fail");
    assert!(check["repair"].as_str().unwrap().contains("veriff-archive ledger migrate"), "{check}");

    deployment.run(["ledger", "migrate"]).await.expect(0);
    let summary = deployment.archive(&[]).await.expect(0);
    assert_eq!(summary.count("archived"), 2);
    assert_eq!(deployment.archive(&[]).await.expect(0).count("unchanged"), 2);
    let status = deployment.run(["status"]).await.expect(0).json();
    assert_eq!((&status["ledger_exists"], &status["sessions"]), (&true.into(), &2.into()));
    assert_eq!(status["runs"].as_array().unwrap().len(), 2);
    let plan = deployment.run(["plan", "--sessions", "sessions.txt"]).await.expect(0).json();
    assert_eq!(plan["sessions"]["new"], 0);
    let doctor = deployment.run(["doctor"]).await.expect(0).json();
    let check = doctor["checks"].as_array().unwrap().iter().find(|check| check["name"] == "ledger").unwrap().clone();
    assert_eq!(check["status"], "ok");
    assert!(check["detail"].as_str().unwrap().contains("belongs to archive"), "{check}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_backlog_of_a_database_is_filled_and_worked_off() {
    let simulator = simulator(3);
    let url = postgres().await.create_ledger().await;
    let deployment = deployment(&simulator, &url);
    let ids = deployment.write_ids(&simulator.world().session_ids()).display().to_string();
    deployment.run(["backlog", "add", "--sessions", &ids]).await.expect(0);
    let summary = deployment.run(["run", "--backlog", "--progress", "none"]).await.expect(0);
    assert_eq!(summary.count("archived"), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_password_of_the_ledger_is_never_printed() {
    let simulator = simulator(1);
    let url = postgres().await.create_ledger().await;
    let mut deployment = deployment(&simulator, &url);
    deployment.write_ids(&simulator.world().session_ids());
    let commands: [&[&str]; 7] = [
        &["config", "show"],
        &["config", "check"],
        &["doctor"],
        &["status"],
        &["ledger", "migrate"],
        &["run", "--sessions", "sessions.txt"],
        &["plan", "--sessions", "sessions.txt"],
    ];
    let absent = url.replace("/test_", "/absent_");
    let nowhere = format!("postgres://ledger:{}@127.0.0.1:1/ledger", password(&url));
    for url in [&url, &absent, &nowhere] {
        deployment.set("VERIFF_ARCHIVE__LEDGER__URL", url);
        for command in commands {
            for level in ["info", "trace", "sqlx=trace,sqlx_core=trace,sqlx_postgres=trace"] {
                let ended = deployment.run(["--log-level", level].iter().chain(command)).await;
                for printed in [&ended.stdout, &ended.stderr] {
                    assert!(!printed.contains(password(url)), "{command:?}: {printed}");
                }
            }
        }
    }
    let shown = deployment.run(["config", "show"]).await.expect(0).json();
    let value = shown["values"].as_array().unwrap().iter().find(|value| value["key"] == "ledger.url").unwrap().clone();
    assert_eq!(value["value"], "postgres://ledger:[redacted]@127.0.0.1:1/ledger");
    assert_eq!(value["origin"], "environment VERIFF_ARCHIVE__LEDGER__URL");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_address_leaves_out_comes_from_the_variables_of_postgres() {
    let url = postgres().await.create_ledger().await;
    let (user, place) = url.split_once('@').unwrap();
    let (user, password) = user.rsplit_once(':').unwrap();
    let (host, database) = place.split_once('/').unwrap();
    let mut deployment = deployment(&simulator(1), &format!("{user}@{host}/"));
    deployment.set("PGPASSWORD", password);
    deployment.set("PGDATABASE", database);
    let status = deployment.run(["status"]).await.expect(0).json();
    assert_eq!(status["ledger_exists"], true);
    deployment.set("PGPASSWORD", "hunter2");
    let refused = deployment.run(["status"]).await.expect(5);
    assert!(refused.stderr.contains("password authentication failed"), "{}", refused.stderr);
    assert!(!refused.stderr.contains("hunter2"), "{}", refused.stderr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_could_be_anyones_is_warned_of() {
    let simulator = simulator(1);
    // Nothing answers at this address: it is set aside for documentation.
    let deployment = deployment(&simulator, "postgres://ledger@192.0.2.1/ledger?sslmode=require");
    let doctor = deployment.run(["doctor"]).await.expect(5).json();
    let checks = doctor["checks"].as_array().unwrap();
    let check = checks.iter().find(|check| check["name"] == "ledger.tls").unwrap();
    assert_eq!(check["status"], "warn");
    assert!(check["repair"].as_str().unwrap().contains("sslmode=verify-full"), "{check}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_audit_of_a_ledger_that_is_out_of_reach_is_to_be_tried_later() {
    let simulator = simulator(2);
    let mut deployment = Deployment::with_directory(&simulator);
    deployment.write_ids(&simulator.world().session_ids());
    deployment.archive(&[]).await.expect(0);
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("postgres://ledger:hunter2@127.0.0.1:{port}/ledger?sslmode=disable");
    deployment.set("VERIFF_ARCHIVE__LEDGER__URL", &url);
    for words in [["audit", "reconcile", "--output", "json"], ["audit", "coverage", "--ledger", "--without-veriff"]] {
        let ended = deployment.run(words).await.expect(5);
        assert!(ended.stderr.contains("the ledger could not"), "{words:?}: {}", ended.stderr);
        assert!(!ended.stderr.contains("hunter2"), "{}", ended.stderr);
        assert_eq!(ended.stdout, "", "{words:?}");
    }
    for words in [["audit", "fixity"], ["audit", "chain"]] {
        let ended = deployment.run(words).await;
        assert!([Some(0), Some(4)].contains(&ended.code), "{words:?}: {}", ended.stderr);
        assert!(ended.stderr.contains("the ledger is not compared"), "{words:?}: {}", ended.stderr);
    }
}
