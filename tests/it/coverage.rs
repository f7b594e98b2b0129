//! `audit coverage`: what Veriff has against what is archived.

use std::collections::BTreeSet;

use serde_json::Value;
use veriff_sim::{Attempt, Effect, Endpoint, Fault, id};

use crate::support::audited::Audited;
use crate::support::program::Ended;

/// The findings of an audit that the program printed, as code, severity and session; and its summary.
fn read(ended: &Ended) -> (BTreeSet<(String, String, String)>, Value) {
    let mut lines: Vec<Value> = ended.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let summary = lines.pop().expect("a summary");
    assert_eq!(summary["audit"], "coverage");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let findings = lines.iter().map(|line| (text(&line["code"]), text(&line["severity"]), text(&line["session_id"])));
    (findings.collect(), summary)
}

fn found(code: &str, severity: &str, session: &str) -> (String, String, String) {
    (code.to_owned(), severity.to_owned(), session.to_owned())
}

async fn audit(audited: &Audited, words: &[&str], code: i32) -> (BTreeSet<(String, String, String)>, Value) {
    let words = ["audit", "coverage"].into_iter().chain(words.iter().copied());
    read(&audited.deployment.run(words).await.expect(code))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_veriff_has_and_the_archive_has_not_is_told_and_nothing_else() {
    let audited = Audited::in_directory(701).await;
    let list = audited.deployment.path("sessions.txt");
    let list = ["--sessions", list.to_str().unwrap()];
    // Of one session an item could not be had, and Veriff lists it still.
    let untouched = BTreeSet::from([found("coverage.media", "error", &audited.incomplete)]);
    audited.simulator.reset_requests();
    let (findings, summary) = audit(&audited, &list, 4).await;
    assert_eq!(findings, untouched);
    assert_eq!(summary["checked"]["sessions"], 32);
    assert_eq!(summary["details"]["absent"], 1);
    assert_eq!(summary["complete"], true);
    assert_eq!(audited.simulator.count(Endpoint::Media), 0, "nothing is downloaded");
    let (by_ledger, _) = audit(&audited, &["--ledger"], 4).await;
    assert_eq!(by_ledger, untouched);

    // Veriff goes on.
    let grown = Attempt::approved(id("coverage: third")).created(Some("2026-10-07T08:00:00.000Z"));
    assert!(audited.simulator.add_attempt(&audited.grown, grown.image("face", 4_000)));
    "expired".clone_into(&mut audited.simulator.world().session_mut(&audited.twins).unwrap().attempts[0].status);
    let another = audited.simulator.world().session_mut(&audited.long).unwrap().attempts[0].media[0].clone();
    let extra = veriff_sim::Media { id: id("coverage: extra"), size_bytes: 3_000, ..another };
    audited.simulator.world().session_mut(&audited.long).unwrap().attempts[0].media.push(extra);
    let gone = audited.ids[0].clone();
    assert!(audited.simulator.delete_session(&gone));
    let (findings, summary) = audit(&audited, &list, 4).await;
    let mut expected = untouched.clone();
    expected.extend([
        found("coverage.attempt", "error", &audited.grown),
        found("coverage.media", "error", &audited.grown),
        found("coverage.status", "warn", &audited.twins),
        found("coverage.media", "error", &audited.long),
        found("coverage.absent", "info", ""),
    ]);
    assert_eq!(findings, expected);
    assert_eq!(summary["details"]["absent_now"], 1);

    // A run repairs what can be repaired.
    audited.simulator.clear_faults();
    audited.deployment.archive(&[]).await.expect(3);
    let (findings, _) = audit(&audited, &list, 0).await;
    assert_eq!(findings, BTreeSet::from([found("coverage.absent", "info", "")]));
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_were_never_archived_are_told_with_and_without_veriff() {
    let audited = Audited::in_directory(702).await;
    let mut ids = audited.ids.clone();
    let (never, unknown) = (ids.remove(0), id("never heard of"));
    ids.push(unknown.clone());
    ids.push(never.clone());
    let list = audited.deployment.write("expected.txt", &(ids.join("\n") + "\n"));
    std::fs::remove_dir_all(audited.deployment.store().join(format!("sessions/{never}"))).unwrap();
    let list = ["--sessions", list.to_str().unwrap()];
    let (findings, _) = audit(&audited, &list, 4).await;
    assert_eq!(
        findings,
        BTreeSet::from([
            found("coverage.media", "error", &audited.incomplete),
            found("coverage.session", "error", &never),
            found("coverage.session", "warn", &unknown),
        ])
    );
    audited.simulator.reset_requests();
    let without = [&list[..], &["--without-veriff"]].concat();
    let (findings, summary) = audit(&audited, &without, 4).await;
    assert_eq!(
        findings,
        BTreeSet::from([
            found("coverage.media", "warn", &audited.incomplete),
            found("coverage.session", "error", &never),
            found("coverage.session", "error", &unknown),
        ])
    );
    assert_eq!(summary["mode"], "without-veriff");
    assert!(audited.simulator.requests().is_empty());

    // What waits in the backlog is known to be undone.
    audited.deployment.run(["backlog", "add", "--sessions", list[1]]).await.expect(0);
    let (findings, _) = audit(&audited, &["--backlog", "--without-veriff"], 0).await;
    assert_eq!(findings, BTreeSet::from([found("coverage.session", "warn", &unknown)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_could_not_be_asked_is_told_and_the_audit_is_not_complete() {
    let audited = Audited::in_directory(703).await;
    let list = audited.deployment.path("sessions.txt");
    let list = ["--sessions", list.to_str().unwrap()];
    let faults = [
        Fault::forever(Effect::status(500)).on(Endpoint::Attempts).id(&audited.twins),
        Fault::forever(Effect::InvalidJson).on(Endpoint::SessionMedia).id(&audited.grown),
    ];
    for fault in faults {
        audited.simulator.set_fault(fault);
    }
    // Without the item that cannot be had nothing is wrong, as far as could be seen.
    let only: Vec<&String> = audited.ids.iter().filter(|id| **id != audited.incomplete).collect();
    audited.deployment.write_ids(&only);
    let (findings, summary) = audit(&audited, &list, 5).await;
    assert_eq!(
        findings,
        BTreeSet::from([
            found("coverage.unasked", "warn", &audited.twins),
            found("coverage.unasked", "warn", &audited.grown),
        ])
    );
    assert_eq!(summary["complete"], false);
    assert_eq!(summary["details"]["unasked"], 2);

    // Refused keys end it at once, and a Veriff that is away after a while.
    audited.simulator.set_fault(Fault::forever(Effect::unauthorized("1801")));
    audited.deployment.run(["audit", "coverage", list[0], list[1]]).await.expect(77);
    audited.simulator.clear_faults();
    audited.simulator.set_fault(Fault::forever(Effect::status(503)));
    audited.deployment.run(["audit", "coverage", list[0], list[1]]).await.expect(5);
}

#[tokio::test(flavor = "multi_thread")]
async fn old_sessions_prove_less_and_a_damaged_manifest_is_told() {
    let audited = Audited::in_directory(704).await;
    let config = std::fs::read_to_string(audited.deployment.path("archive.toml")).unwrap();
    audited.deployment.configure_whole(&config.replace("36500d", "30d"));
    let (findings, summary) = audit(&audited, &["--ledger"], 4).await;
    assert!(findings.contains(&found("coverage.horizon", "info", "")), "{findings:?}");
    assert!(summary["details"]["past_horizon"].as_u64().unwrap() > 20);

    let manifest = audited.deployment.store().join(format!("sessions/{}/manifest/0001.json", audited.twins));
    std::fs::remove_file(&manifest).unwrap();
    std::fs::write(&manifest, b"{}").unwrap();
    let (findings, _) = audit(&audited, &["--ledger"], 4).await;
    assert!(findings.contains(&found("manifest.invalid", "error", &audited.twins)), "{findings:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_asks_for_a_source_and_needs_no_integration_without_veriff() {
    let audited = Audited::in_bucket(705).await;
    audited.deployment.run(["audit", "coverage"]).await.expect(2);
    audited.deployment.run(["audit", "coverage", "--ledger", "--backlog"]).await.expect(2);
    let (findings, summary) = audit(&audited, &["--ledger", "--without-veriff"], 0).await;
    assert_eq!(findings, BTreeSet::from([found("coverage.media", "warn", &audited.incomplete)]));
    assert_eq!(summary["checked"]["sessions"], 32);
    audited.deployment.lose_ledger();
    audited.deployment.run(["audit", "coverage", "--ledger", "--without-veriff"]).await.expect(78);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_what_was_expired_by_plan_nothing_more_is_expected() {
    let audited = Audited::in_directory(709).await;
    // An item is missing in its manifest, and Veriff goes on: no run would archive either.
    let later = Attempt::approved(id("coverage: later")).created(Some("2026-10-07T08:00:00.000Z"));
    assert!(audited.simulator.add_attempt(&audited.incomplete, later.image("face", 4_000)));
    audited.expire(&audited.incomplete, |_| false).await;
    // Of this one nothing is left but that document.
    audited.expire(&audited.twins, |_| false).await;
    std::fs::remove_dir_all(audited.deployment.store().join(format!("sessions/{}/manifest", audited.twins))).unwrap();
    let expected = [&audited.incomplete, &audited.twins].map(|session| found("session.expired", "info", session));
    for words in [&["--ledger"][..], &["--ledger", "--without-veriff"]] {
        let (findings, summary) = audit(&audited, words, 0).await;
        assert_eq!(findings, BTreeSet::from(expected.clone()), "{words:?}");
        assert_eq!(summary["codes"]["session.expired"], 2, "{words:?}");
    }
}
