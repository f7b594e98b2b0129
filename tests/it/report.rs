//! The report: its numbers are those of the archive, page and document say the same, nobody is named, and everyone can
//! read it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use clap::Parser as _;
use serde_json::{Value, json};
use veriff_archive::audit::{AUDIT_SCHEMA, AuditKind, AuditSummary, SeverityCounts};
use veriff_archive::cli::Cli;
use veriff_archive::clock::{Clock as _, SystemClock};
use veriff_archive::ledger::{self, AuditRow};
use veriff_archive::model::ArchiveId;
use veriff_sim::{Effect, Endpoint, Fault, Session, World};

use crate::formats::wrong;
use crate::program::run;
use crate::support::browser::look_at;
use crate::support::postgres::postgres;
use crate::support::scene::{Scene, first_item, session};

/// What callers call their sessions; lives in the ledger only.
const REFERENCE: &str = "customer-ada-lovelace";

/// An archive with sessions in every state but accepted, and what the tests know of it.
struct Told {
    scene: Scene,
    status: Value,
}

/// Archives a made-up world in which one session is absent, one lacks an item and one cannot be reached, with two more
/// waiting in the backlog.
async fn archive() -> Told {
    let world = World::builder(11).sessions(30).build();
    let [absent, lacking, unreachable] = ["absent", "lacking", "unreachable"].map(session);
    let (gone, lost, away) = (absent.id.clone(), first_item(&lacking), unreachable.id.clone());
    let world = [absent, lacking, unreachable].into_iter().fold(world, World::session);
    let scene = Scene::with(world, "", "tries = 2\n").await;
    scene.simulator.delete_session(&gone);
    scene.simulator.set_fault(Fault::forever(Effect::status(404)).on(Endpoint::Media).id(&lost));
    scene.simulator.set_fault(Fault::forever(Effect::status(503)).id(&away));
    let lines: Vec<String> = scene
        .ids()
        .iter()
        .map(|id| json!({ "session_id": id, "reference": format!("{REFERENCE}-{id}") }).to_string())
        .collect();
    scene.deployment.write("sessions.txt", &lines.join("\n"));
    scene.archive(&[]).await.expect(3);
    let waiting: Vec<String> = ["one", "two"].iter().map(|label| session(label).id).collect();
    scene.deployment.write("waiting.txt", &waiting.join("\n"));
    scene.deployment.run(["backlog", "add", "--sessions", "waiting.txt"]).await.expect(0);
    let status = scene.deployment.run(["status", "--output", "json"]).await.expect(0).json();
    Told { scene, status }
}

fn state(status: &Value, name: &str) -> u64 {
    let all = status["states"].as_array().unwrap();
    all.iter().find(|count| count["state"] == name).map_or(0, |count| count["sessions"].as_u64().unwrap())
}

fn summary(audit: AuditKind, mode: Option<&str>, share: Option<&str>, archive: Option<ArchiveId>) -> AuditSummary {
    let now = SystemClock.now();
    AuditSummary {
        schema: AUDIT_SCHEMA.to_owned(),
        audit_id: format!("{}-{}", audit.as_str(), share.unwrap_or("all").replace('/', "-")),
        audit,
        mode: mode.map(str::to_owned),
        share: share.map(str::to_owned),
        archive_id: archive,
        started_at: now,
        finished_at: now,
        complete: true,
        checked: BTreeMap::from([("objects".to_owned(), 61), ("bytes".to_owned(), 1_234_567)]),
        findings: SeverityCounts { error: 0, warn: 1, info: 2 },
        codes: BTreeMap::from([("object.unknown".to_owned(), 3)]),
        details: Value::Null,
        next: "nothing".to_owned(),
    }
}

/// Notes two parts of a fixity audit and a calendar of locks in the ledger, and leaves a chain audit in a file.
async fn audit(scene: &Scene) -> PathBuf {
    let ledger = ledger::open(&format!("sqlite://{}", scene.deployment.path("ledger.db").display())).await.unwrap();
    let archive = ledger.archive_id().await.unwrap();
    let mut retention = summary(AuditKind::Retention, None, None, archive.clone());
    retention.details = json!({ "calendar": [
        { "until": "2031-11", "mode": "COMPLIANCE", "class": "default", "objects": 40, "bytes": 4000 },
        { "until": null, "mode": "none", "class": "default", "objects": 7, "bytes": 700 },
        { "until": "2029-02", "mode": "GOVERNANCE", "class": "<b>&class", "objects": 21, "bytes": 2100 },
    ]});
    let parts = ["1/4", "3/4"].map(|part| summary(AuditKind::Fixity, Some("read"), Some(part), archive.clone()));
    for summary in parts.into_iter().chain([retention]) {
        let row = AuditRow {
            audit_id: summary.audit_id.clone(),
            audit: summary.audit.as_str().to_owned(),
            finished_at: summary.finished_at,
            summary: serde_json::to_string(&summary).unwrap(),
        };
        ledger.note_audit(&row).await.unwrap();
    }
    ledger.close().await;
    let mut chain = summary(AuditKind::Chain, None, None, archive);
    chain.findings.error = 1;
    chain.details = json!({ "groups": { "default": { "entries": 3, "signed": 2, "unsigned": 1,
        "head_sha256": "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb",
        "last_finished_at": "2026-11-20T08:09:10.000Z" } } });
    let finding = json!({ "schema": "veriff-archive/finding/v1", "severity": "error", "code": "chain.gap" });
    let lines = format!("{finding}\n{}\n", serde_json::to_string(&chain).unwrap());
    scene.deployment.write("chain.ndjson", &lines)
}

/// Makes the report; returns the document, the page, and all that was printed.
async fn report(scene: &Scene, more: &[&str]) -> (Value, String, String) {
    let words = ["report", "--html", "report.html", "--output", "json"];
    let ended = scene.deployment.run(words.into_iter().chain(more.iter().copied())).await.expect(0);
    let page = std::fs::read_to_string(scene.deployment.path("report.html")).unwrap();
    (ended.json(), page, format!("{}{}", ended.stdout, ended.stderr))
}

/// A number or a time on a page: where it stands in the document, its value, and what is shown.
#[derive(Debug)]
struct Figure {
    at: String,
    value: String,
    shown: Option<String>,
}

/// Reads everything on a page that says where it comes from.
fn figures(page: &str) -> Vec<Figure> {
    let attribute = |tag: &str, name: &str| {
        let rest = tag.split(&format!(" {name}=\"")).nth(1)?;
        rest.split('"').next().map(str::to_owned)
    };
    page.split('<')
        .filter_map(|tag| {
            let (inside, behind) = tag.split_once('>')?;
            let at = attribute(inside, "data-at")?;
            let value = ["value", "data-value", "datetime"].iter().find_map(|name| attribute(inside, name));
            let shown = inside.starts_with("data ").then(|| behind.to_owned());
            Some(Figure { at, value: value.unwrap_or_else(|| panic!("{inside}")), shown })
        })
        .collect()
}

/// Lists where the numbers of a document stand.
fn numbers(document: &Value, at: &str, found: &mut Vec<String>) {
    match document {
        Value::Number(_) => found.push(at.to_owned()),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(place, item)| numbers(item, &format!("{at}/{place}"), found));
        }
        Value::Object(fields) => fields.iter().for_each(|(name, field)| numbers(field, &format!("{at}/{name}"), found)),
        _ => {}
    }
}

/// Fails unless the page shows what the document says, and all of it.
#[track_caller]
fn assert_same(document: &Value, page: &str) {
    let figures = figures(page);
    for Figure { at, value, shown } in &figures {
        let said = document.pointer(at).unwrap_or_else(|| panic!("{at} is not in the document"));
        let said = said.as_str().map_or_else(|| said.to_string(), str::to_owned);
        assert_eq!(*value, said, "{at}");
        // Whole numbers are shown with commas, minus signs and percent signs; bytes are shortened.
        if let Some(shown) = shown.as_deref().filter(|shown| !shown.contains('B') && !shown.contains("bytes")) {
            let plain: String =
                shown.replace('−', "-").chars().filter(|c| !matches!(c, ',' | '%' | '\u{a0}')).collect();
            assert_eq!(plain.parse::<f64>().unwrap().to_string(), said.parse::<f64>().unwrap().to_string(), "{at}");
        }
    }
    let shown: BTreeSet<&str> = figures.iter().map(|figure| figure.at.as_str()).collect();
    for part in ["sessions", "failures", "volume", "runs", "chain"] {
        let mut all = Vec::new();
        numbers(&document[part], &format!("/{part}"), &mut all);
        for at in all {
            assert!(shown.contains(at.as_str()), "{at} is not on the page");
        }
    }
}

/// Fails unless the document is as its published schema says.
async fn assert_as_published(scene: &Scene, document: &Value) {
    let schema = scene.deployment.run(["schema", "report"]).await.expect(0).json();
    assert_eq!(wrong(&schema, &schema, document), None);
}

#[tokio::test]
async fn its_numbers_are_those_of_the_archive_and_page_and_document_agree() {
    let Told { scene, status } = archive().await;
    let chain = audit(&scene).await;
    let (document, page, _) = report(&scene, &["--audits", chain.to_str().unwrap(), "--check-store"]).await;
    assert_as_published(&scene, &document).await;
    assert_same(&document, &page);
    assert_eq!(document["schema"], "veriff-archive/report/v1");

    let standing = &document["sessions"]["standing"];
    let complete = standing["settled"].as_u64().unwrap() + standing["unsettled"].as_u64().unwrap();
    assert_eq!((complete, &standing["incomplete"]), (state(&status, "archived"), &json!(0)));
    for name in ["absent", "failed", "pending", "accepted"] {
        assert_eq!(standing[name], state(&status, name), "{name}");
    }
    assert_eq!([&standing["absent"], &standing["pending"]], [&json!(1), &json!(2)]);
    let total = status["sessions"].as_u64().unwrap();
    assert_eq!(document["sessions"]["total"], total);
    let months = document["sessions"]["months"].as_array().unwrap();
    assert_eq!(months.iter().map(|month| month["sessions"].as_u64().unwrap()).sum::<u64>(), total);

    let volume = &document["volume"];
    assert_eq!((&volume["items"], &volume["bytes"]), (&status["media"], &status["bytes"]));
    for list in ["kinds", "months"] {
        let sum = |field: &str| volume[list].as_array().unwrap().iter().map(|it| it[field].as_u64().unwrap()).sum();
        let sums: (u64, u64) = (sum("items"), sum("bytes"));
        assert_eq!((Some(sums.0), Some(sums.1)), (status["media"].as_u64(), status["bytes"].as_u64()), "{list}");
    }

    let failures = document["failures"].as_array().unwrap();
    let of_code = |code: &str| failures.iter().find(|failure| failure["code"] == code).unwrap();
    assert_eq!(of_code("media.missing")["retryable"], false);
    assert_eq!(of_code("veriff.unavailable")["retryable"], true);
    assert!(of_code("media.missing")["repair"].as_str().unwrap().contains("Ask Veriff, giving the media id"));
    assert!(page.contains("Ask Veriff, giving the media id"));

    assert_eq!(document["horizon"]["open"], 3, "two in the backlog, one that may work later");
    assert_eq!(document["fixity"]["read_percent"], 50.0);
    assert_eq!(document["retention"]["objects"], 61);
    assert_eq!(document["retention"]["unlocked_objects"], 7);
    assert_eq!(document["chain"]["groups"][0]["unsigned"], 1);
    assert_eq!((&document["store"]["can_lock"], &document["store"]["check"]["locks"]), (&json!(false), &json!(false)));
    assert!(page.contains("which cannot lock"));
    assert_eq!(document["runs"].as_array().unwrap().len(), 1);
    let acts: Vec<&str> =
        document["attention"].as_array().unwrap().iter().map(|it| it["text"].as_str().unwrap()).collect();
    assert!(acts.contains(&"The last chain audit found errors: 1. Each finding names its repair."), "{acts:?}");
    assert!(acts.contains(&"No result of the coverage audit is known."), "{acts:?}");
    assert!(page.contains("&lt;b&gt;&amp;class") && !page.contains("<b>&class"), "text is escaped");
}

#[tokio::test]
async fn it_names_no_session_no_item_and_nobody() {
    let Told { scene, .. } = archive().await;
    let (_, page, printed) = report(&scene, &[]).await;
    let text = scene.deployment.run(["report", "--output", "text"]).await.expect(0).stdout;
    assert!(text.contains("no page was written"), "{text}");
    let world = scene.simulator.world();
    let sessions: Vec<Session> = world.session_ids().iter().map(|id| world.find(id).unwrap().clone()).collect();
    let mut names = vec![REFERENCE.to_owned(), session("one").id];
    for session in &sessions {
        names.push(session.id.clone());
        for attempt in &session.attempts {
            names.push(attempt.id.clone());
            names.extend(attempt.media.iter().map(|media| media.id.clone()));
        }
    }
    assert!(names.len() > 150, "only {} names were looked for", names.len());
    for name in names {
        for shown in [&page, &printed, &text] {
            assert!(!shown.contains(&name), "{name} is told");
        }
    }
}

#[tokio::test]
async fn both_engines_tell_the_same_of_the_same_archive() {
    let Told { mut scene, .. } = archive().await;
    let (mut of_file, ..) = report(&scene, &[]).await;
    scene.deployment.set("VERIFF_ARCHIVE__LEDGER__URL", &postgres().await.create_ledger().await);
    scene.archive(&[]).await.expect(3);
    scene.deployment.run(["backlog", "add", "--sessions", "waiting.txt"]).await.expect(0);
    let (mut of_server, page, _) = report(&scene, &[]).await;
    assert_same(&of_server, &page);
    assert_eq!(of_file["runs"][0]["archived"], of_server["runs"][0]["unchanged"]);
    for document in [&mut of_file, &mut of_server] {
        document["fixity"]["since"].take();
        document["generated_at"].take();
        document["runs"].take();
    }
    assert_eq!(of_file, of_server);
}

#[test]
fn without_a_ledger_it_says_so_and_makes_none() {
    let folder = tempfile::tempdir().unwrap();
    let ended = run(folder.path(), &["report", "--html", "report.html"], &[]);
    assert_eq!(ended.code, 0, "{ended:?}");
    let document = ended.json();
    assert_eq!((&document["ledger_exists"], &document["sessions"]["total"]), (&json!(false), &json!(0)));
    let page = std::fs::read_to_string(folder.path().join("report.html")).unwrap();
    assert!(page.contains("There is no ledger yet") && page.contains("No sessions yet"));
    assert_same(&document, &page);
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["report.html"]);
}

/// Lists the commands that a page tells one to type.
fn commands(page: &str) -> BTreeSet<String> {
    let codes = page.split("<code class=\"command\">").skip(1);
    codes.map(|rest| rest.split("</code>").next().unwrap().replace("&#x2f;", "/")).collect()
}

#[tokio::test]
async fn every_command_it_names_is_understood() {
    let Told { scene, .. } = archive().await;
    let chain = audit(&scene).await;
    let (_, full, _) = report(&scene, &["--audits", chain.to_str().unwrap()]).await;
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(run(folder.path(), &["report", "--html", "empty.html"], &[]).code, 0);
    let empty = std::fs::read_to_string(folder.path().join("empty.html")).unwrap();
    let named: BTreeSet<String> = [full, empty].iter().flat_map(|page| commands(page)).collect();
    assert!(named.len() > 8, "{named:?}");
    for command in named {
        if let Err(error) = Cli::try_parse_from(command.split_whitespace()) {
            panic!("{command}: {error}");
        }
    }
}

#[test]
fn what_it_cannot_read_or_write_it_refuses_aloud() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |arguments: &[&str], code: i32, told: &str| {
        let ended = run(folder.path(), arguments, &[]);
        assert_eq!(ended.code, code, "{ended:?}");
        assert!(ended.stderr.contains(told) && ended.stdout.is_empty(), "{ended:?}");
    };
    refused(&["report", "--audits", "missing.ndjson"], 2, "missing.ndjson");
    std::fs::write(folder.path().join("findings.ndjson"), "{\"schema\":\"veriff-archive/finding/v1\"}\n").unwrap();
    refused(&["report", "--audits", "findings.ndjson"], 2, "no line of findings.ndjson is the summary of an audit");
    refused(&["report", "--html", "no/such/folder/report.html"], 5, "cannot write the page");
    refused(&["report", "--check-store"], 78, "store.url");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_store_that_cannot_be_looked_at_is_part_of_the_report() {
    let folder = tempfile::tempdir().unwrap();
    let variables = [
        ("VERIFF_ARCHIVE__STORE__ENDPOINT_URL", "http://127.0.0.1:1"),
        ("VERIFF_ARCHIVE__STORE__REGION", "us-east-1"),
        ("VERIFF_ARCHIVE__LIMITS__TRIES", "1"),
        ("VERIFF_ARCHIVE__RETENTION__MODE", "none"),
        ("AWS_ACCESS_KEY_ID", "nobody"),
        ("AWS_SECRET_ACCESS_KEY", "nothing"),
    ];
    let ended = run(folder.path(), &["report", "--store", "s3://bucket", "--check-store"], &variables);
    assert_eq!(ended.code, 0, "{ended:?}");
    let store = &ended.json()["store"];
    assert!(store["check"].is_null() && store["check_failed"].is_string(), "{store}");
    assert!(ended.stderr.contains("could not be inspected"), "{ended:?}");
}

/// Fails if a look at a page found anything wrong.
#[track_caller]
fn assert_good(look: &Value) {
    assert!(look["rules_passed"].as_u64().unwrap() > 20, "{look}");
    for fault in ["violations", "requests", "complaints"] {
        assert_eq!(look[fault], json!([]), "{fault}: {look:#}");
    }
    assert_eq!(look["wider_than_window"], 0, "{look}");
}

#[tokio::test]
async fn a_browser_shows_it_to_everyone_light_and_dark_and_on_a_phone() {
    let Told { scene, .. } = archive().await;
    let chain = audit(&scene).await;
    report(&scene, &["--audits", chain.to_str().unwrap()]).await;
    let empty = tempfile::tempdir().unwrap();
    assert_eq!(run(empty.path(), &["report", "--html", "empty.html"], &[]).code, 0);
    let bad = empty.path().join("bad.html");
    std::fs::write(
        &bad,
        "<!DOCTYPE html><html><head><title>x</title></head><body><p style=\"color:#bbb;background:#fff\">faint</p>\
         <img src=\"http://127.0.0.1:1/x.png\"><div style=\"width:3000px\">wide</div></body></html>",
    )
    .unwrap();
    let pages = vec![scene.deployment.path("report.html"), empty.path().join("empty.html"), bad];
    let screenshots = Path::new(env!("CARGO_TARGET_TMPDIR")).join("report-screenshots");
    let looks = tokio::task::spawn_blocking(move || look_at(&pages, &screenshots)).await.unwrap();
    looks[..8].iter().for_each(assert_good);
    for look in &looks[8..] {
        let rules: Vec<&str> =
            look["violations"].as_array().unwrap().iter().map(|it| it["rule"].as_str().unwrap()).collect();
        for rule in ["color-contrast", "html-has-lang", "image-alt"] {
            assert!(rules.contains(&rule), "the checker is blind to {rule}: {look:#}");
        }
        assert_eq!(look["requests"].as_array().unwrap().len(), 1, "{look:#}");
        assert!(look["wider_than_window"].as_u64().unwrap() > 0, "{look:#}");
    }
}
