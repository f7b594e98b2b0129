//! Whoever may only read the ledger: everything that looks works, says the same, and changes nothing.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use sqlx::AssertSqlSafe;
use veriff_archive::ledger;
use veriff_sim::{Simulator, World};

use crate::support::postgres::postgres;
use crate::support::program::{Deployment, Ended};

const SESSIONS: usize = 3;

/// Sessions that are archived, and a deployment to look at them.
async fn archived(ledger_url: Option<&str>) -> (Simulator, Deployment) {
    let simulator = Simulator::start(World::builder(31).sessions(SESSIONS).build()).await.unwrap();
    let mut deployment = Deployment::with_directory(&simulator);
    if let Some(url) = ledger_url {
        deployment.set("VERIFF_ARCHIVE__LEDGER__URL", url);
    }
    deployment.write_ids(&simulator.world().session_ids());
    deployment.archive(&[]).await.expect(0);
    (simulator, deployment)
}

/// Runs everything that only looks at a ledger.
async fn assert_all_looks_work(deployment: &Deployment) {
    let look = async |words: &[&str]| -> Ended { deployment.run_within_modes(words).await.expect(0) };
    for audit in [
        ["audit", "reconcile"].as_slice(),
        &["audit", "reconcile", "--listing-only"],
        &["audit", "coverage", "--ledger"],
        &["audit", "coverage", "--ledger", "--without-veriff"],
        &["audit", "coverage", "--backlog", "--without-veriff"],
        &["audit", "fixity"],
        &["audit", "chain"],
    ] {
        let ended = look(audit).await;
        let told = "the result is not recorded in the ledger, only printed";
        assert!(ended.stderr.contains(told), "{audit:?}: {}", ended.stderr);
        assert!(!ended.stderr.contains("not compared"), "{audit:?}: {}", ended.stderr);
        if !audit.contains(&"--backlog") && !audit.contains(&"chain") {
            let summary: serde_json::Value = serde_json::from_str(ended.stdout.lines().last().unwrap()).unwrap();
            assert_eq!(summary["checked"]["sessions"], SESSIONS, "{audit:?}: {summary}");
        }
    }
    let status = look(&["status"]).await.json();
    assert_eq!((&status["sessions"], &status["runs"].as_array().unwrap().len()), (&SESSIONS.into(), &1));
    let report = look(&["report"]).await.json();
    assert_eq!((&report["ledger_exists"], &report["sessions"]["total"]), (&true.into(), &SESSIONS.into()));
    assert_eq!(look(&["backlog", "list"]).await.json()["more"], false);
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_that_may_only_select_can_look_at_everything() {
    let server = postgres().await;
    let url = server.create_ledger().await;
    let (_simulator, mut deployment) = archived(Some(&url)).await;
    let (before, database) = url.rsplit_once('/').unwrap();
    let host = before.rsplit_once('@').unwrap().1;
    let role = format!("reader_of_{database}");
    let mut connection = server.connect(database).await;
    let statements = format!(
        "CREATE ROLE {role} LOGIN PASSWORD 'of-a-reader'; GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role};"
    );
    sqlx::raw_sql(AssertSqlSafe(statements)).execute(&mut connection).await.unwrap();
    deployment.set("VERIFF_ARCHIVE__LEDGER__URL", &format!("postgres://{role}:of-a-reader@{host}/{database}"));
    assert_all_looks_work(&deployment).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_may_only_be_read_can_be_looked_at() {
    let (_simulator, deployment) = archived(None).await;
    let path = deployment.path("ledger.db");
    let before = std::fs::read(&path).unwrap();
    set_mode(&path, 0o444);
    assert_all_looks_work(&deployment).await;
    assert!(std::fs::read(&path).unwrap() == before, "the file was changed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_in_a_folder_that_may_only_be_read_can_be_looked_at() {
    let (_simulator, deployment) = archived(None).await;
    let path = deployment.path("ledger.db");
    let before = std::fs::read(&path).unwrap();
    set_mode(&path, 0o444);
    set_mode(path.parent().unwrap(), 0o555);
    assert_all_looks_work(&deployment).await;
    set_mode(path.parent().unwrap(), 0o755);
    assert!(std::fs::read(&path).unwrap() == before, "the file was changed");
    assert!(!deployment.path("ledger.db-wal").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_somebody_else_writes_can_be_looked_at() {
    let (_simulator, deployment) = archived(None).await;
    let path = deployment.path("ledger.db");
    let writer = ledger::open(&format!("sqlite://{}", path.display())).await.unwrap();
    // What stands in the write-ahead log alone is seen.
    let audit = ledger::AuditRow {
        audit_id: "a".into(),
        audit: "fixity".into(),
        finished_at: veriff_archive::clock::Timestamp::from_unix_seconds(0),
        summary: "{}".into(),
    };
    writer.note_audit(&audit).await.unwrap();
    for name in ["ledger.db", "ledger.db-wal", "ledger.db-shm"] {
        set_mode(&deployment.path(name), 0o444);
    }
    set_mode(path.parent().unwrap(), 0o555);
    assert_all_looks_work(&deployment).await;
    set_mode(path.parent().unwrap(), 0o755);
    writer.close().await;
}
