//! `audit reconcile`: nothing to say of a ledger and a store that were left alone, and everything of those that were not.

use std::collections::BTreeMap;
use std::time::Duration;

use veriff_archive::audit::reconcile::merge::Pair;
use veriff_archive::audit::reconcile::{
    Reconcile, ReconcileMode, ReconcileTally, ReportedRuns, RunLines, SessionLines,
};
use veriff_archive::audit::sessions::listed;
use veriff_archive::audit::{AuditKind, Finding, FindingCode as Code};
use veriff_archive::model::SessionId;

use crate::support::audited::{Audited, begun, codes, flipped, names, serious, session_of};
use crate::support::program::Ended;
use crate::support::s3::READER;

fn reconcile(audited: &Audited, mode: ReconcileMode, runs: ReportedRuns) -> Reconcile<'_> {
    Reconcile {
        runs,
        reach: audited.reach(),
        ledger: &*audited.ledger,
        archive: Some(audited.archive.clone()),
        mode,
        horizons: BTreeMap::from([("default".to_owned(), HORIZON)]),
    }
}

/// Looks at everything.
pub(crate) async fn everything(audited: &Audited, mode: ReconcileMode) -> (Vec<Finding>, ReconcileTally) {
    let (mut runner, found) = begun(AuditKind::Reconcile);
    reconcile(audited, mode, ReportedRuns::default()).run(&mut runner).await.unwrap();
    assert_eq!(runner.stopped, None);
    (found.lock().unwrap().clone(), runner.progress.tally)
}

/// How long the deployment's integration keeps media.
pub(crate) const HORIZON: Duration = Duration::from_hours(36_500 * 24);

/// Looks at one session.
pub(crate) async fn of_session(audited: &Audited, mode: ReconcileMode, session: &str) -> Vec<Finding> {
    let session = SessionId::parse(session).unwrap();
    let (mut reported, mut runs) = (SessionLines::default(), ReportedRuns::default());
    if mode == ReconcileMode::Manifests {
        let (mut lines, read, _) = RunLines::read(&audited.reach(), &*audited.ledger).await.unwrap();
        runs = read;
        while let Some((of, lines)) = lines.next_session().unwrap() {
            if of == session {
                reported = lines;
            }
        }
    }
    let walked = listed(&*audited.store, &session).await.unwrap();
    let surveyed = audited.ledger.survey_session(&session).await.unwrap();
    reconcile(audited, mode, runs).check(Pair::of(walked, surveyed, reported)).await.unwrap().findings
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_and_a_store_that_were_left_alone_agree() {
    for audited in [Audited::in_directory(601).await, Audited::in_bucket(602).await] {
        for mode in [ReconcileMode::Manifests, ReconcileMode::Listing] {
            let (findings, tally) = everything(&audited, mode).await;
            assert_eq!(findings, [], "{mode:?}");
            assert_eq!(tally.sessions, 32);
            assert!(tally.items > 100 && tally.runs == 2, "{tally:?}");
            assert_eq!((tally.lines >= 64, tally.untold), (mode == ReconcileMode::Manifests, 0), "{tally:?}");
            assert_eq!(tally.manifests > 32, mode == ReconcileMode::Manifests);
        }
    }
}

/// Deletes, renames, adds and covers every object of every session, one after another.
async fn tamper_with_every_object(audited: &Audited, every: usize) {
    let evidence = audited.evidence().await;
    let of_sessions = evidence.objects.iter().filter(|(key, _)| key.starts_with("sessions/"));
    let mut tried = 0;
    for (key, versions) in of_sessions.enumerate().filter(|(number, _)| number % every == 0).map(|(_, object)| object) {
        let version = versions[0].version_id.as_deref();
        for mode in [ReconcileMode::Manifests, ReconcileMode::Listing] {
            audited.tamperer.hide(key, version);
            let found = of_session(audited, mode, session_of(key)).await;
            audited.tamperer.bring_back(key, version);
            // Which conflicts there are, and which manifests came before, only manifests tell.
            let is_told =
                mode == ReconcileMode::Manifests || !(key.contains(".conflict-") || key.ends_with("/0001.json"));
            assert!(!is_told || !serious(&found).is_empty(), "{mode:?} did not miss {key}");

            let renamed = format!("{key}x");
            audited.tamperer.rename(key, version, &renamed);
            let found = of_session(audited, mode, session_of(key)).await;
            audited.tamperer.rename(&renamed, version, key);
            assert!(names(&found, &renamed) || audited.bucket.is_some(), "{mode:?} did not see {renamed}: {found:?}");
            assert!(!serious(&found).is_empty(), "{mode:?} did not see that {key} was renamed");
            tried += 1;
        }
        if key.contains("/manifest/") && versions[0].bytes.len() > 2 {
            for at in [0, versions[0].bytes.len() / 2, versions[0].bytes.len() - 1] {
                audited.tamperer.write(key, version, &flipped(&versions[0].bytes, at));
                let found = of_session(audited, ReconcileMode::Manifests, session_of(key)).await;
                assert!(names(&found, key), "byte {at} of {key} was flipped: {found:?}");
                audited.tamperer.write(key, version, &versions[0].bytes);
            }
        }
    }
    assert!(tried > 40, "{tried}");
    assert_eq!(everything(audited, ReconcileMode::Manifests).await.0, [], "all was put back");
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_done_to_the_objects_of_a_directory_is_found() {
    tamper_with_every_object(&Audited::in_directory(603).await, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_done_to_the_objects_of_a_bucket_behind_its_back_is_found() {
    tamper_with_every_object(&Audited::in_bucket(604).await, 6).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn delete_markers_later_versions_and_strangers_are_found() {
    let audited = Audited::in_bucket(605).await;
    let bucket = audited.bucket.as_ref().unwrap();
    let evidence = audited.evidence().await;
    let keys: Vec<String> = evidence.objects.keys().filter(|key| !key.starts_with("runs/")).cloned().collect();
    for (number, key) in keys.iter().enumerate().filter(|(number, _)| number % 5 == 0) {
        let whole = format!("archive/{key}");
        if number % 2 == 0 {
            bucket.put_delete_marker(&whole).await;
        } else {
            bucket.put_over(&whole, b"something later").await;
        }
    }
    for key in ["sessions/nobody/1/m.jpg", "sessions/no session/1/m.jpg", "elsewhere.txt", "runs/2026/notes.txt"] {
        bucket.put_over(&format!("archive/{key}"), b"a stranger").await;
    }
    for mode in [ReconcileMode::Manifests, ReconcileMode::Listing] {
        let (findings, _) = everything(&audited, mode).await;
        for (number, key) in keys.iter().enumerate().filter(|(number, _)| number % 5 == 0) {
            let code = if number % 2 == 0 { Code::ObjectHidden } else { Code::ObjectShadowed };
            assert!(codes(&findings, key).contains(&code), "{mode:?} {key}: {code}");
        }
        for key in ["sessions/nobody/1/m.jpg", "sessions/no session/1/m.jpg", "elsewhere.txt", "runs/2026/notes.txt"] {
            assert!(codes(&findings, key).contains(&Code::ObjectUnknown), "{mode:?} {key}");
        }
    }
}

fn summary(ended: &Ended) -> serde_json::Value {
    serde_json::from_str(ended.stdout.lines().last().unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_reads_only_and_exits_4_with_the_repair() {
    let mut audited = Audited::in_bucket(607).await;
    audited.ledger.close().await;
    audited.deployment.become_identity(READER);
    let reader = &audited.deployment;
    let quiet = reader.run(["audit", "reconcile", "--output", "json"]).await.expect(0);
    assert_eq!(summary(&quiet)["findings"]["error"], 0, "{}", quiet.stdout);
    assert_eq!(summary(&quiet)["checked"]["sessions"], 32);
    let details = &summary(&quiet)["details"];
    assert!(details["lines"].as_u64().unwrap() >= 64 && details["untold"] == 0, "{details}");
    let listing = reader.run(["audit", "reconcile", "--listing-only", "--output", "json"]).await.expect(0);
    assert_eq!(summary(&listing)["details"]["lines"], 0, "no chunk is read");
    let evidence = audited.evidence().await;
    let key = evidence.objects.keys().find(|key| key.contains(".jpg") && !key.contains(".meta")).unwrap();
    audited.bucket.as_ref().unwrap().put_delete_marker(&format!("archive/{key}")).await;
    let state = audited.deployment.path("state.json").display().to_string();
    let found = reader.run(["audit", "reconcile", "--output", "json", "--state", &state]).await.expect(4);
    let finding: serde_json::Value = serde_json::from_str(found.stdout.lines().next().unwrap()).unwrap();
    assert_eq!((&finding["code"], &finding["key"]), (&"object.hidden".into(), &key.as_str().into()));
    let version_id = finding["version_id"].as_str().unwrap();
    let command = format!(
        "aws s3api delete-object --bucket {} --key archive/{key} --version-id {version_id} ",
        audited.bucket.as_ref().unwrap().name
    );
    let repair = finding["repair"].as_str().unwrap();
    assert!(repair.starts_with(&command) && repair.contains(" --endpoint-url http"), "{finding}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_inventory_report_tells_what_the_listing_tells() {
    let audited = Audited::in_bucket(608).await;
    audited.ledger.close().await;
    let bucket = audited.bucket.as_ref().unwrap();
    let rows = async || {
        let mut rows = Vec::new();
        let keys = veriff_archive::store::versions::list_all(&*audited.store, "").await.unwrap();
        let mut walk: Vec<_> = keys.iter().flat_map(|listed| listed.all().cloned()).collect();
        walk.reverse();
        for version in walk {
            let latest = rows.iter().all(|row: &String| !row.contains(&format!("/{},", version.key)));
            rows.push(format!(
                "\"{}\",\"archive/{}\",\"{}\",\"{latest}\",\"{}\",\"{}\",\"{}\"",
                bucket.name,
                version.key,
                version.version_id.unwrap_or_default(),
                version.is_delete_marker,
                if version.is_delete_marker { String::new() } else { version.size_bytes.to_string() },
                version.modified_at.unwrap()
            ));
        }
        rows
    };
    let report = audited.deployment.path("report");
    std::fs::create_dir(&report).unwrap();
    let write_with = |rows: &[String], schema: &str| {
        let (one, other) = rows.split_at(rows.len() / 3);
        std::fs::write(report.join("one.csv"), one.join("\n")).unwrap();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut gzip, other.join("\n").as_bytes()).unwrap();
        std::fs::write(report.join("other.csv.gz"), gzip.finish().unwrap()).unwrap();
        let manifest = serde_json::json!({
            "sourceBucket": bucket.name, "destinationBucket": "arn:aws:s3:::inventory", "fileFormat": "CSV",
            "fileSchema": schema,
            "files": [{"key": "x/data/one.csv", "size": 1}, {"key": "x/data/other.csv.gz", "size": 1}],
        });
        std::fs::write(report.join("manifest.json"), manifest.to_string()).unwrap();
        report.join("manifest.json").display().to_string()
    };
    let schema = "Bucket, Key, VersionId, IsLatest, IsDeleteMarker, Size, LastModifiedDate";
    let write = |rows: &[String]| write_with(rows, schema);
    let reconciled = async |path: &str| {
        audited.deployment.run(["audit", "reconcile", "--output", "json", "--inventory", path]).await
    };
    let path = write(&rows().await);
    let quiet = reconciled(&path).await;
    assert_eq!(summary(&quiet)["findings"], serde_json::json!({"error": 0, "warn": 0, "info": 0}), "{}", quiet.stdout);
    assert_eq!(summary(&quiet)["mode"], "inventory");
    assert_eq!((&summary(&quiet)["checked"]["sessions"], &summary(&quiet)["checked"]["runs"]), (&32.into(), &2.into()));
    for gone in [".jpg\"", "/run.json\"", "/00000001.json\""] {
        let mut fewer = rows().await;
        fewer.remove(fewer.iter().position(|row| row.contains(gone)).unwrap());
        let found = reconciled(&write(&fewer)).await.expect(4);
        assert_eq!(summary(&found)["codes"]["object.missing"], 1, "{gone}: {}", found.stdout);
    }
    let current: Vec<String> = rows().await.iter().map(|row| without_version(row)).collect();
    let refused = reconciled(&write_with(&current, "Bucket, Key, Size, LastModifiedDate")).await.expect(2);
    assert!(refused.stderr.contains("VersionId"), "{}", refused.stderr);
}

/// Makes of a row one of a report that lists the current version only.
fn without_version(row: &str) -> String {
    let columns: Vec<&str> = row.split(',').collect();
    [columns[0], columns[1], columns[5], columns[6]].join(",")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_ledger_does_not_know_is_an_error_by_the_listing_alone() {
    let audited = Audited::in_directory(609).await;
    let ledger_file = audited.deployment.path("ledger.db");
    audited.ledger.close().await;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&ledger_file).foreign_keys(false);
    let pool = sqlx::SqlitePool::connect_with(options.pragma("ignore_check_constraints", "ON")).await.unwrap();
    let forget = "UPDATE sessions SET manifest_key = NULL, manifest_version_id = NULL, manifest_sequence = NULL,
        manifest_sha256 = NULL WHERE session_id";
    let back = "UPDATE sessions SET manifest_sequence = 1, manifest_key = replace(manifest_key, '0002', '0001')
        WHERE session_id";
    let drop = "DELETE FROM sessions WHERE session_id";
    let others = [&audited.twins, &audited.long];
    for (statement, session) in [(forget, others[0]), (back, &audited.grown), (drop, others[1])] {
        let statement = format!("{statement} = '{session}'");
        let done = sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&pool).await.unwrap();
        assert_eq!(done.rows_affected(), 1);
    }
    pool.close().await;
    let words = ["audit", "reconcile", "--listing-only", "--output", "json"];
    let found = audited.deployment.run(words).await.expect(4);
    let found: Vec<serde_json::Value> = found.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let is_told = |session: &str, code: &str| {
        found.iter().any(|it| it["session_id"] == session && it["code"] == code && it["severity"] == "error")
    };
    assert!(is_told(others[0], "ledger.behind") && is_told(others[0], "ledger.contradicts"), "{found:?}");
    assert!(is_told(&audited.grown, "ledger.behind"), "{found:?}");
    assert!(is_told(others[1], "ledger.missing"), "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_expired_by_plan_is_noted_and_not_missed() {
    let audited = Audited::in_directory(610).await;
    let evidence = audited.evidence().await;
    let session = audited.twins.as_str();
    let key = format!("sessions/{session}/expired/0001.json");
    let place = audited.deployment.store().join(&key);
    std::fs::create_dir(place.parent().unwrap()).unwrap();
    std::fs::write(place, b"{}").unwrap();
    for (key, versions) in &evidence.objects {
        if key.starts_with(&format!("sessions/{session}/")) && !key.contains("/manifest/") {
            audited.tamperer.hide(key, versions[0].version_id.as_deref());
        }
    }
    for mode in [ReconcileMode::Manifests, ReconcileMode::Listing] {
        let (findings, _) = everything(&audited, mode).await;
        assert_eq!(serious(&findings), Vec::<&Finding>::new(), "{mode:?}");
        assert_eq!(codes(&findings, &key), [Code::SessionExpired].into(), "{mode:?}");
    }
}
