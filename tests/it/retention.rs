//! `audit retention`: locks against what was promised and what the policy says.

use std::collections::BTreeMap;
use std::sync::Mutex;

use async_trait::async_trait;
use veriff_archive::audit::fixity::{Fixity, FixityMode, FixityTally, closing_findings};
use veriff_archive::audit::reach::Reach;
use veriff_archive::audit::retention::{Retention, RetentionTally};
use veriff_archive::audit::scope::Scope;
use veriff_archive::audit::sessions::{AuditTally as _, Checked, Feed, Mark, SESSIONS_IN_FLIGHT, listed};
use veriff_archive::audit::walk::Walk;
use veriff_archive::audit::{AuditKind, Finding, FindingCode as Code, Severity};
use veriff_archive::clock::Timestamp;
use veriff_archive::model::SessionId;
use veriff_archive::model::key::{ObjectKey, SessionObject, StoreObject};
use veriff_archive::model::retention::{Class, Lock, Mode, RetentionPolicy};
use veriff_archive::session::budget::Budget;
use veriff_archive::store::versions::list_all;
use veriff_archive::store::{
    Features, ListPage, ObjectBody, ObjectHead, PageToken, ReadStore, StoreError, StoreReport,
};

use crate::support::audited::{Audited, begun, codes, serious, session_of};
use crate::support::s3::READER;

fn class(mode: Mode, period: &str, max_period: &str) -> Class {
    Class {
        mode,
        period: Some(period.parse().unwrap()),
        max_period: Some(max_period.parse().unwrap()),
        basis: String::new(),
    }
}

fn policy(default: Class, chip: Option<Class>) -> RetentionPolicy {
    let classes: BTreeMap<String, Class> = chip.into_iter().map(|chip| ("chip".to_owned(), chip)).collect();
    RetentionPolicy::new(default, classes, &[]).unwrap()
}

/// The policy under which it was archived.
fn in_force() -> RetentionPolicy {
    policy(class(Mode::Compliance, "5y", "6y"), Some(class(Mode::Governance, "3y", "4y")))
}

/// An audit of this archive, with whatever store stands before its own.
struct Auditor<'a> {
    audited: &'a Audited,
    store: &'a dyn ReadStore,
    policy: RetentionPolicy,
    kms_key_id: Option<&'a str>,
}

impl<'a> Auditor<'a> {
    fn of(audited: &'a Audited) -> Self {
        Self { audited, store: &*audited.store, policy: in_force(), kms_key_id: None }
    }

    fn retention(&self) -> Retention<'_> {
        Retention {
            reach: Reach::of(self.store, 16, self.audited.bucket.is_some()),
            ledger: Some(&*self.audited.ledger),
            archive: Some(self.audited.archive.clone()),
            policy: &self.policy,
            kms_key_id: self.kms_key_id,
            keys_tried: Mutex::default(),
        }
    }

    async fn session(&self, session: &str) -> Checked<RetentionTally> {
        let retention = self.retention();
        // As the program does, which reads archive.json first: so it knows that it is shown locks.
        veriff_archive::audit::archive::read(&retention.reach, None).await.unwrap();
        let walked = listed(self.store, &SessionId::parse(session).unwrap()).await.unwrap();
        retention.check(walked).await.unwrap()
    }

    async fn archive_document(&self) -> Vec<Finding> {
        let retention = self.retention();
        // That it is shown locks, it knows of another object.
        retention
            .check(listed(self.store, &SessionId::parse(&self.audited.twins).unwrap()).await.unwrap())
            .await
            .unwrap();
        let listed = list_all(self.store, "archive.json").await.unwrap().remove(0);
        retention.check_document(listed).await.unwrap().findings
    }

    async fn all(&self, scope: Scope) -> (Vec<Finding>, RetentionTally) {
        let (mut runner, found) = begun(AuditKind::Retention);
        let retention = self.retention();
        veriff_archive::audit::archive::read(&retention.reach, None).await.unwrap();
        let steps = Feed::Walk(Walk::of(self.store, None), scope.clone()).steps(0);
        runner.run(steps, SESSIONS_IN_FLIGHT, |walked| retention.check(walked)).await.unwrap();
        let steps = Retention::documents(self.store, &scope, &Mark::default());
        runner.run(steps, 4, |version| retention.check_document(version)).await.unwrap();
        runner.conclude(retention.closing_findings(&runner.progress.tally)).unwrap();
        (found.lock().unwrap().clone(), runner.progress.tally)
    }
}

/// The store of an auditor who is not shown everything, or who looks much later.
#[derive(Debug)]
struct Veiled<'a> {
    inner: &'a dyn ReadStore,
    hides_locks: bool,
    now: Option<Timestamp>,
    /// What everything is encrypted with, and whether that can be used.
    key: Option<(&'a str, bool)>,
}

impl<'a> Veiled<'a> {
    fn of(audited: &'a Audited) -> Self {
        Self { inner: &*audited.store, hides_locks: false, now: None, key: None }
    }
}

#[async_trait]
impl ReadStore for Veiled<'_> {
    fn features(&self) -> Features {
        self.inner.features()
    }

    fn now(&self) -> Timestamp {
        self.now.unwrap_or_else(|| self.inner.now())
    }

    async fn check(&self) -> Result<StoreReport, StoreError> {
        self.inner.check().await
    }

    async fn head(&self, key: &ObjectKey, version: Option<&str>) -> Result<Option<ObjectHead>, StoreError> {
        let head = self.inner.head(key, version).await?;
        Ok(head.map(|head| ObjectHead {
            lock: head.lock.filter(|_| !self.hides_locks),
            kms_key_id: self.key.map(|(key, _)| key.to_owned()),
            ..head
        }))
    }

    async fn read_lock(&self, key: &ObjectKey, version: Option<&str>) -> Result<Option<Lock>, StoreError> {
        if self.hides_locks {
            return Err(StoreError::Denied { action: "read a lock", reason: "403 AccessDenied".to_owned() });
        }
        self.inner.read_lock(key, version).await
    }

    async fn open(&self, key: &ObjectKey, version: Option<&str>) -> Result<Option<ObjectBody>, StoreError> {
        let is_media = matches!(key.read(), StoreObject::OfSession(_, SessionObject::Media { .. }));
        if is_media && self.key.is_some_and(|(_, is_usable)| !is_usable) {
            return Err(StoreError::Unfit(
                "the key service refuses the bucket's key (400 KMS.DisabledException)".into(),
            ));
        }
        let body = self.inner.open(key, version).await?;
        Ok(body.map(|mut body| {
            body.lock = body.lock.filter(|_| !self.hides_locks);
            body
        }))
    }

    async fn list(&self, prefix: &str, after: Option<PageToken>) -> Result<ListPage, StoreError> {
        self.inner.list(prefix, after).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_cannot_lock_and_says_so_once() {
    let audited = Audited::in_directory(601).await;
    let (findings, tally) = Auditor::of(&audited).all(Scope::All).await;
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert_eq!((findings[0].code, findings[0].severity), (Code::LockUnsupported, Severity::Info));
    assert_eq!(tally.sessions, 32);
    assert!(tally.calendar.keys().all(|entry| entry.starts_with("|none|")), "{tally:?}");
    let ended = audited.deployment.run(["audit", "retention"]).await.expect(0);
    assert!(ended.stdout.contains("lock.unsupported"), "{}", ended.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_untouched_archive_has_nothing_to_say_and_its_calendar_is_right() {
    let mut audited = Audited::in_bucket(602).await;
    let evidence = audited.evidence().await;
    let (findings, tally) = Auditor::of(&audited).all(Scope::All).await;
    assert_eq!(findings, []);
    assert_eq!(tally.objects, (evidence.objects.len() + evidence.runs.len()) as u64);
    // By other means: mode and month of everything.
    let mut expected = BTreeMap::<String, (u64, u64)>::new();
    for object in evidence.objects.values().chain(evidence.runs.values()).flatten() {
        let (mode, until) = object.lock.clone().expect("everything is locked");
        let sum = expected.entry(format!("{}|{mode}", &until[..7])).or_default();
        *sum = (sum.0 + 1, sum.1 + object.bytes.len() as u64);
    }
    let mut found = BTreeMap::<String, (u64, u64)>::new();
    for (entry, (objects, bytes)) in &tally.calendar {
        let (entry, class) = entry.rsplit_once('|').unwrap();
        assert!(["default", "chip", "manifest", "document"].contains(&class), "{class}");
        let sum = found.entry(entry.to_owned()).or_default();
        *sum = (sum.0 + objects, sum.1 + bytes);
    }
    assert_eq!(found, expected);

    let mut sum = RetentionTally::default();
    for part in 1..=5 {
        let (findings, tally) = Auditor::of(&audited).all(Scope::Share(format!("{part}/5").parse().unwrap())).await;
        assert_eq!(findings, []);
        sum.add(tally);
    }
    assert_eq!(sum, tally, "five shares are everything once");

    // With rights to read only.
    for (name, value) in READER.environment() {
        audited.deployment.set(name, value);
    }
    let ended = audited.deployment.run(["audit", "retention"]).await.expect(0);
    let summary: serde_json::Value = serde_json::from_str(ended.stdout.lines().last().unwrap()).unwrap();
    assert_eq!(summary["checked"]["objects"], tally.objects);
    let calendar = summary["details"]["calendar"].as_array().unwrap();
    assert_eq!(calendar.len(), tally.calendar.len());
    assert!(calendar.iter().all(|entry| entry["until"].as_str().is_some_and(|until| until.len() == 7)), "{calendar:?}");
    assert_eq!(audited.evidence().await, evidence, "an audit only reads");
}

#[tokio::test(flavor = "multi_thread")]
async fn any_lock_that_is_lifted_shortened_weakened_or_too_long_is_found() {
    let audited = Audited::in_bucket(603).await;
    let evidence = audited.evidence().await;
    let auditor = Auditor::of(&audited);
    let of_absent = evidence.manifest_keys(&audited.absent);
    let beside: Vec<&str> =
        evidence.objects.keys().map(String::as_str).filter(|key| key.contains(".conflict-")).collect();
    let some = evidence.objects.keys().map(String::as_str).step_by(21);
    let (mut kinds, mut tried) = (BTreeMap::<&str, u32>::new(), 0);
    for key in some.chain(of_absent).chain(beside).chain([audited.taken.as_str(), "archive.json"]) {
        let object = evidence.object(key).unwrap();
        let (version, (mode, until)) = (object.version_id.as_deref(), object.lock.clone().unwrap());
        let until = until.parse::<Timestamp>().unwrap().unix_seconds();
        *kinds.entry(key.rsplit('.').next().unwrap()).or_default() += 1;
        let look = async || match key {
            "archive.json" => auditor.archive_document().await,
            key => auditor.session(session_of(key)).await.findings,
        };
        let mut mutations = vec![
            (None, Code::LockMissing),
            (Some((mode.as_str(), until - 3 * 86_400)), Code::LockShort),
            (Some((mode.as_str(), 4_102_444_800)), Code::LockLong),
        ];
        if mode == "COMPLIANCE" {
            mutations.push((Some(("GOVERNANCE", until)), Code::LockWeak));
        }
        for (lock, code) in mutations {
            audited.tamperer.relock(key, version, lock);
            let found = look().await;
            assert_eq!(codes(&found, key).into_iter().collect::<Vec<_>>(), [code], "{key} {lock:?}: {found:?}");
            assert!(found.iter().all(|finding| finding.severity == Severity::Error), "{found:?}");
            let finding = &found[0];
            assert_eq!(finding.version_id.as_deref(), version);
            tried += 1;
        }
        audited.tamperer.relock(key, version, Some((&mode, until)));
        assert_eq!(serious(&look().await), Vec::<&_>::new(), "{key}");
    }
    assert!(kinds.len() > 3 && tried > 40, "{kinds:?} {tried}");

    // The same by the program.
    let key = *evidence.media_keys().first().unwrap();
    audited.tamperer.relock(key, evidence.object(key).unwrap().version_id.as_deref(), None);
    let ended = audited.deployment.run(["audit", "retention", "--session", session_of(key)]).await.expect(4);
    assert!(ended.stdout.contains("lock.missing") && ended.stdout.contains(key), "{}", ended.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_changed_since_is_held_against_what_stands() {
    let audited = Audited::in_bucket(604).await;
    let of = |policy| Auditor { policy, ..Auditor::of(&audited) };
    let chip = || class(Mode::Governance, "3y", "4y");
    let counts = |findings: &[Finding]| {
        let mut counts = BTreeMap::<Code, u64>::new();
        for finding in findings {
            *counts.entry(finding.code).or_default() += 1;
        }
        counts
    };
    let (_, as_it_was) = of(in_force()).all(Scope::All).await;
    let of_class = |name: &str| -> u64 {
        let entries = as_it_was.calendar.iter().filter(|(entry, _)| entry.ends_with(&format!("|{name}")));
        entries.map(|(_, (objects, _))| objects).sum()
    };

    let (longer, _) = of(policy(class(Mode::Compliance, "7y", "8y"), Some(chip()))).all(Scope::All).await;
    assert_eq!(counts(&longer), BTreeMap::from([(Code::LockShort, of_class("default") + of_class("document"))]));

    let (stricter, _) = of(policy(class(Mode::Compliance, "5y", "6y"), Some(class(Mode::Compliance, "3y", "4y"))))
        .all(Scope::All)
        .await;
    assert_eq!(counts(&stricter), BTreeMap::from([(Code::LockWeak, of_class("chip"))]));

    let (shorter, _) = of(policy(class(Mode::Compliance, "2y", "3y"), Some(chip()))).all(Scope::All).await;
    let counted = counts(&shorter);
    assert_eq!(counted.keys().collect::<Vec<_>>(), [&Code::LockLong]);
    assert!(counted[&Code::LockLong] >= of_class("default") + of_class("document"), "{counted:?}");

    let (unknown, _) = of(policy(class(Mode::Compliance, "5y", "6y"), None)).all(Scope::All).await;
    assert_eq!(counts(&unknown), BTreeMap::from([(Code::ClassUnknown, 1)]));
    assert_eq!(unknown[0].severity, Severity::Warn);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_auditor_is_not_shown_is_said() {
    let audited = Audited::in_bucket(605).await;
    let store = Veiled { hides_locks: true, ..Veiled::of(&audited) };
    let auditor = Auditor { store: &store, ..Auditor::of(&audited) };
    let (findings, tally) = auditor.all(Scope::All).await;
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert_eq!((findings[0].code, findings[0].severity), (Code::LockUnreadable, Severity::Error));
    assert_eq!(tally.hidden_locks, tally.objects);

    let fixity = Fixity {
        reach: Reach::of(&store, 8, true),
        ledger: None,
        archive: Some(audited.archive.clone()),
        mode: FixityMode::Head,
        budget: Budget::of_memory(1 << 28),
    };
    let walked = listed(&store, &SessionId::parse(&audited.twins).unwrap()).await.unwrap();
    let part = fixity.check(walked).await.unwrap();
    assert_eq!(part.findings, []);
    assert_eq!(part.tally.hidden_locks, 4);
    let closing = closing_findings(&fixity.reach, FixityMode::Head, &FixityTally { ..part.tally });
    assert_eq!((closing[0].code, closing[0].severity), (Code::LockUnreadable, Severity::Warn));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_cannot_be_used_and_another_than_the_configured_one_are_told() {
    let audited = Audited::in_bucket(606).await;
    let store = Veiled { key: Some(("arn:aws:kms:eu-central-1:1:key/one", true)), ..Veiled::of(&audited) };
    let auditor = |kms_key_id| Auditor { store: &store, kms_key_id, ..Auditor::of(&audited) };
    let (findings, tally) = auditor(Some("key/one")).all(Scope::All).await;
    assert_eq!(findings, []);
    assert_eq!(tally.keys.len(), 1);
    let (findings, _) = auditor(Some("key/two")).all(Scope::All).await;
    assert_eq!(findings.len(), 1);
    assert_eq!((findings[0].code, findings[0].severity), (Code::KeyDiffers, Severity::Warn));

    let store = Veiled { key: Some(("key/one", false)), ..Veiled::of(&audited) };
    let auditor = Auditor { store: &store, kms_key_id: Some("key/one"), ..Auditor::of(&audited) };
    let (findings, _) = auditor.all(Scope::All).await;
    assert_eq!(findings.len(), 1, "once for a key: {findings:?}");
    assert_eq!((findings[0].code, findings[0].severity), (Code::KeyUnusable, Severity::Error));
}

#[tokio::test(flavor = "multi_thread")]
async fn locks_that_have_ended_are_counted() {
    let audited = Audited::in_bucket(607).await;
    let store = Veiled { now: Some("2031-06-01T00:00:00Z".parse().unwrap()), ..Veiled::of(&audited) };
    let (findings, tally) = Auditor { store: &store, ..Auditor::of(&audited) }.all(Scope::All).await;
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert_eq!((findings[0].code, findings[0].severity), (Code::LockExpired, Severity::Info));
    // Chip data is kept for three years, the manifest of the absent session for a month.
    let ended = tally.calendar.iter().filter(|(entry, _)| entry.as_str() < "2031-06");
    assert_eq!(tally.expired, ended.map(|(_, (objects, _))| objects).sum::<u64>());
    assert!(tally.expired > 1 && tally.expired < tally.objects);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_expired_by_plan_is_noted_and_the_locks_of_what_is_left_are_still_judged() {
    let audited = Audited::in_bucket(609).await;
    let evidence = audited.evidence().await;
    let chip = |key: &str| {
        let sidecar = format!("{}.meta.json", key.trim_end_matches(".meta.json"));
        let sidecar: serde_json::Value = serde_json::from_slice(&evidence.object(&sidecar).unwrap().bytes).unwrap();
        sidecar["retention"]["class"] == "chip"
    };
    // What is left may be kept for four years, and the manifest is kept for the five of what is gone.
    let document = audited.expire(&audited.grown, chip).await;
    let part = Auditor::of(&audited).session(&audited.grown).await;
    assert_eq!(serious(&part.findings), Vec::<&Finding>::new());
    assert_eq!(codes(&part.findings, &document), [Code::SessionExpired].into());
    assert_eq!((part.findings.len(), part.tally.objects), (1, 4), "an item, its sidecar, two manifests");

    let folder = format!("sessions/{}/", audited.grown);
    let is_item = |key: &str| key.starts_with(&folder) && !key.contains("/manifest/");
    let left = evidence.objects.keys().find(|key| is_item(key) && chip(key)).unwrap();
    audited.tamperer.relock(left, evidence.objects[left][0].version_id.as_deref(), None);
    let part = Auditor::of(&audited).session(&audited.grown).await;
    assert_eq!(codes(&part.findings, left), [Code::LockMissing].into());
}
