//! The audit of run records and chains, by the library, by the program and by a script that uses no code of ours: nothing
//! is found in an archive nobody touched, and every change of it is.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use secrecy::ExposeSecret as _;
use tempfile::TempDir;
use veriff_archive::audit::chain::ChainAudit;
use veriff_archive::audit::runner::Question;
use veriff_archive::audit::{AuditKind, AuditSummary, Finding, FindingCode, Severity};
use veriff_archive::clock::SystemClock;
use veriff_archive::model::digest::Sha256Digest;
use veriff_archive::model::key::ObjectKey;
use veriff_archive::model::run::ChunkRef;
use veriff_archive::model::signature::{PublicKey, SigningKey};
use veriff_archive::stop::Stop;
use veriff_archive::store::dir::DirStore;
use veriff_archive::store::{ReadStore, Store, StoreError};
use veriff_sim::Simulator;

use super::support::audited::{begun_with, question};
use super::support::evidence::small_world;
use super::support::faulty::{Fault, FaultyStore, Verb};
use super::support::program::{Deployment, ended};
use super::support::records::{Records, age, entered, line_of, plain_line, put};
use super::support::s3::{READER, WRITER, s3};
use super::support::scene::{Scene, session, world_of};
use super::support::stored::{everything, objects};

/// What an audit is asked, and what it answered.
#[derive(Default)]
struct Asked {
    keys: Vec<PublicKey>,
    groups: Vec<&'static str>,
    heads: Vec<Sha256Digest>,
    manifests: bool,
    state: Option<PathBuf>,
    stop: Stop,
}

type Answered = (AuditSummary, Vec<Finding>);

impl Asked {
    fn with(key: &SigningKey) -> Self {
        Self { keys: vec![key.public()], ..Self::default() }
    }

    async fn of(&self, root: &Path) -> Answered {
        self.of_store(&DirStore::open(root, Arc::new(SystemClock)).await.unwrap()).await
    }

    async fn of_store(&self, store: &dyn ReadStore) -> Answered {
        let audit = ChainAudit {
            store,
            keys: self.keys.clone(),
            groups: self.groups.iter().map(|group| (*group).to_owned()).collect(),
            heads: self.heads.clone(),
            manifests: self.manifests,
            known: None,
        };
        let question = Question { state: self.state.clone(), text: "test".to_owned(), ..question(AuditKind::Chain) };
        let (mut runner, found) = begun_with(question, self.stop.clone());
        let end = audit.run(&mut runner).await.unwrap();
        let (summary, _) = runner.finish(end).unwrap();
        let found = std::mem::take(&mut *found.lock().unwrap());
        (summary, found)
    }
}

fn codes(found: &[Finding]) -> BTreeMap<(FindingCode, Severity), usize> {
    found.iter().fold(BTreeMap::new(), |mut codes, finding| {
        *codes.entry((finding.code, finding.severity)).or_default() += 1;
        codes
    })
}

#[track_caller]
fn assert_found(answered: &Answered, expected: &[(FindingCode, Severity, usize)]) {
    let expected = expected.iter().map(|(code, severity, count)| ((*code, *severity), *count)).collect();
    assert_eq!(codes(&answered.1), expected, "{:#?}", answered.1);
}

/// Two chains of signed runs of made-up sessions: three runs and two.
fn small_archive() -> (TempDir, Records) {
    let folder = TempDir::new().unwrap();
    let mut records = Records::in_store(folder.path());
    for (group, sessions) in [("default", 4), ("night", 1), ("default", 7), ("default", 2), ("night", 3)] {
        let lines: Vec<_> = (0..sessions).map(|number| plain_line(&format!("{group}-{sessions}-{number}"))).collect();
        records.run(group, &lines);
    }
    (folder, records)
}

/// An archive of thirty sessions, as the program makes it in five signed runs of two chains.
async fn real_archive() -> (Scene, SigningKey) {
    let sessions: Vec<_> = (0..30).map(|number| session(&format!("session {number}"))).collect();
    let scene = Scene::of(world_of(&sessions)).await;
    let key = scene.sign_runs("default");
    let ids = scene.ids();
    for (group, ids) in [
        ("default", &ids[..12]),
        ("night", &ids[10..20]),
        ("default", &ids[..20]),
        ("night", &ids[..3]),
        ("default", &ids[..]),
    ] {
        scene.enter_in(group);
        scene.deployment.write_ids(ids);
        scene.archive(&[]).await.expect(0);
    }
    for key in vouched(&scene.store()).keys() {
        // What was written just now may be followed by something.
        let path = scene.store().join(key);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        age(&path);
    }
    (scene, key)
}

/// Everything that an audit of chains vouches for.
fn vouched(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut objects = everything(root);
    objects.retain(|key, _| key.starts_with("runs/") || key == "archive.json");
    objects
}

fn python() -> Command {
    let mut command = Command::new("python3");
    command.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python"));
    command
}

#[tokio::test]
async fn nothing_is_found_in_an_archive_that_nobody_touched() {
    let (folder, records) = small_archive();
    let answered = Asked::with(records.key.as_ref().unwrap()).of(folder.path()).await;
    assert_found(&answered, &[]);
    let summary = answered.0;
    assert!(summary.complete);
    assert_eq!((summary.checked["entries"], summary.checked["records"], summary.checked["signatures"]), (5, 5, 10));
    assert_eq!((summary.checked["lines"], summary.checked["chunks"]), (17, 8));
    let default = &summary.details["groups"]["default"];
    assert_eq!((&default["entries"], &default["signed"], &default["unsigned"]), (&3.into(), &3.into(), &0.into()));
    assert!(summary.next.contains(default["head_sha256"].as_str().unwrap()), "{}", summary.next);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_changed_byte_and_every_object_that_is_gone_added_swapped_or_renamed_is_found() {
    let (scene, key) = real_archive().await;
    let root = &scene.store();
    let asked = Asked::with(&key);
    let untouched = asked.of(root).await;
    assert_found(&untouched, &[]);
    assert_eq!((untouched.0.checked["records"], untouched.0.checked["lines"]), (5, 75));
    let objects = vouched(root);
    let mut count = 0;
    let mut unnoticed = Vec::new();
    let mut expect_found = async |what: String| {
        count += 1;
        if asked.of(root).await.0.findings.error == 0 {
            unnoticed.push(what);
        }
    };
    for (key, bytes) in &objects {
        let object = ObjectKey::from_store(key.as_str());
        // Small objects whole, the others at many places.
        let step = bytes.len() / 200 + 1;
        for at in (0..bytes.len()).step_by(step).chain([bytes.len() - 1]) {
            let mut changed = bytes.clone();
            changed[at] ^= 1 << (at % 8);
            put(root, &object, &changed);
            expect_found(format!("byte {at} of {key}")).await;
        }
        for changed in [&[][..], &bytes[..bytes.len() - 1], &[bytes, &b"\n"[..]].concat()] {
            put(root, &object, changed);
            expect_found(format!("another length of {key}")).await;
        }
        std::fs::remove_file(root.join(key)).unwrap();
        expect_found(format!("deleted {key}")).await;
        let renamed = ObjectKey::from_store(key.replace("0000", "0001").replace("run.json", "run-1.json"));
        if renamed != object {
            put(root, &renamed, bytes);
            expect_found(format!("renamed {key} to {renamed}")).await;
        }
        put(root, &object, bytes);
        if renamed != object {
            expect_found(format!("added {renamed}")).await;
            std::fs::remove_file(root.join(renamed.as_str())).unwrap();
        }
    }
    let keys: Vec<&String> = objects.keys().collect();
    for (one, other) in keys.iter().zip(keys.iter().cycle().skip(1)).chain(keys.iter().zip(keys.iter().cycle().skip(4)))
    {
        put(root, &ObjectKey::from_store(one.as_str()), &objects[*other]);
        put(root, &ObjectKey::from_store(other.as_str()), &objects[*one]);
        expect_found(format!("swapped {one} and {other}")).await;
        put(root, &ObjectKey::from_store(one.as_str()), &objects[*one]);
        put(root, &ObjectKey::from_store(other.as_str()), &objects[*other]);
    }
    assert!(unnoticed.is_empty(), "{} of {count}: {unnoticed:#?}", unnoticed.len());
    assert!(count > 3_000, "only {count} mutations");
    assert_found(&asked.of(root).await, &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_that_uses_no_code_of_ours_finds_every_change_too() {
    let (scene, _) = real_archive().await;
    let key = scene.deployment.path("key.pem");
    let mut command = python();
    command.arg("mutations.py").arg(scene.store()).arg(&key).arg("11");
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    let count: usize = said.split_whitespace().next().unwrap().parse().unwrap();
    assert!(count > 800, "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn manifests_are_those_that_were_signed() {
    let (scene, key) = real_archive().await;
    let root = &scene.store();
    let asked = Asked { manifests: true, ..Asked::with(&key) };
    let untouched = asked.of(root).await;
    assert_found(&untouched, &[]);
    assert_eq!((untouched.0.checked["manifests"], untouched.0.checked["items"]), (75, 150));
    assert_eq!(untouched.0.details["runs_without_record"], 0);
    for (manifest, bytes) in objects(root).into_iter().filter(|(key, _)| key.contains("/manifest/")) {
        let object = ObjectKey::from_store(manifest);
        for at in (0..bytes.len()).step_by(bytes.len() / 5).chain([bytes.len() - 1]) {
            let mut changed = bytes.clone();
            changed[at] ^= 1 << (at % 8);
            put(root, &object, &changed);
            let answered = asked.of(root).await;
            assert!(answered.0.findings.error > 0, "byte {at} of {object}");
            assert_eq!(answered.1[0].code, FindingCode::ObjectDigest);
        }
        std::fs::remove_file(root.join(object.as_str())).unwrap();
        assert_eq!(asked.of(root).await.1[0].code, FindingCode::ObjectMissing);
        put(root, &object, &bytes);
    }

    // Records may be younger than manifests; then the runs that wrote these are counted.
    std::fs::remove_dir_all(root.join("runs")).unwrap();
    let mut records = Records::in_store(root);
    let lines: Vec<_> = scene.ids().iter().map(|id| line_of(root, id)).collect();
    records.run("default", &lines);
    let mut asked = Asked { manifests: true, ..Asked::with(records.key.as_ref().unwrap()) };
    let answered = asked.of(root).await;
    assert_found(&answered, &[]);
    assert_eq!(answered.0.details["runs_without_record"], 3);

    // A line that tells of other items than its manifest, or of another session's.
    let mut crooked = lines[..3].to_vec();
    crooked[0].items.pop();
    crooked[1].items[0].sha256 = Sha256Digest::of(b"other");
    crooked[2].manifest.clone_from(&lines[4].manifest);
    records.run("default", &crooked);
    asked.manifests = false;
    assert_found(&asked.of(root).await, &[]);
    asked.manifests = true;
    let answered = asked.of(root).await;
    assert_found(&answered, &[(FindingCode::ManifestInvalid, Severity::Error, 5)]);
}

#[tokio::test]
async fn whoever_has_another_key_cannot_write_the_archive_anew() {
    let (folder, records) = small_archive();
    let root = folder.path();
    let asked = Asked::with(records.key.as_ref().unwrap());
    std::fs::remove_dir_all(root.join("runs")).unwrap();
    let mut forger = Records::in_store(root);
    forger.run("default", &[plain_line("session-1")]);
    forger.run("default", &[plain_line("session-2")]);
    assert_found(
        &asked.of(root).await,
        &[(FindingCode::ChainSignature, Severity::Error, 4), (FindingCode::ChainUnsigned, Severity::Error, 1)],
    );
    // Without signatures he fares no better.
    std::fs::remove_dir_all(root.join("runs")).unwrap();
    forger = Records::in_store(root);
    forger.key = None;
    forger.run("default", &[plain_line("session-1")]);
    assert_found(&asked.of(root).await, &[(FindingCode::ChainUnsigned, Severity::Error, 1)]);
    std::fs::remove_dir_all(root.join("runs")).unwrap();
    assert_found(&asked.of(root).await, &[(FindingCode::ChainUnsigned, Severity::Error, 1)]);
}

#[tokio::test]
async fn without_a_key_the_audit_says_that_no_signature_was_checked() {
    let (folder, _) = small_archive();
    assert_found(&Asked::default().of(folder.path()).await, &[(FindingCode::ChainUnchecked, Severity::Warn, 1)]);
}

#[tokio::test]
async fn unsigned_runs_may_come_before_the_first_signed_one_and_never_after() {
    let folder = TempDir::new().unwrap();
    let mut records = Records::in_store(folder.path());
    let key = records.key.take().unwrap();
    records.run("default", &[plain_line("session-1")]);
    records.run("default", &[plain_line("session-2")]);
    let asked = Asked::with(&key);
    records.key = Some(key);
    records.run("default", &[plain_line("session-3")]);
    let answered = asked.of(folder.path()).await;
    assert_found(&answered, &[(FindingCode::ChainUnsigned, Severity::Warn, 1)]);
    assert_eq!(answered.0.details["groups"]["default"]["unsigned"], 2);
    records.key = None;
    records.run("default", &[plain_line("session-4")]);
    let answered = asked.of(folder.path()).await;
    assert_eq!((answered.0.findings.error, answered.0.findings.warn), (1, 1), "{:?}", answered.1);
    assert_eq!(answered.0.details["groups"]["default"]["signed"], 1);
}

#[tokio::test]
async fn keys_may_change_if_all_of_them_are_given() {
    let (folder, mut records) = small_archive();
    let first = records.key.replace(SigningKey::generate()).unwrap();
    records.run("default", &[plain_line("session-9")]);
    let mut asked = Asked::with(&first);
    assert_found(&asked.of(folder.path()).await, &[(FindingCode::ChainSignature, Severity::Error, 2)]);
    asked.keys.push(records.key.as_ref().unwrap().public());
    assert_found(&asked.of(folder.path()).await, &[]);
}

#[tokio::test]
async fn newest_entries_that_were_removed_are_missed_by_a_head_that_was_noted() {
    let (folder, mut records) = small_archive();
    let root = folder.path();
    let last = records.run("default", &[plain_line("session-9")]);
    let mut asked = Asked::with(records.key.as_ref().unwrap());
    asked.heads.push(last.entry_sha256);
    records.run("default", &[plain_line("session-10")]);
    let answered = asked.of(root).await;
    assert_found(&answered, &[]);
    assert_eq!(answered.0.details["heads"][0]["followed_by"], 1);
    assert_eq!(answered.0.details["heads"][0]["number"], 4);
    for number in [4, 5] {
        let entry = ObjectKey::chain_entry("default", number);
        let text: serde_json::Value =
            serde_json::from_slice(&std::fs::read(root.join(entry.as_str())).unwrap()).unwrap();
        let run = root.join(text["run_key"].as_str().unwrap());
        std::fs::remove_dir_all(run.parent().unwrap()).unwrap();
        for key in [entry.signature(), entry] {
            std::fs::remove_file(root.join(key.as_str())).unwrap();
        }
    }
    assert_found(&asked.of(root).await, &[(FindingCode::ChainHead, Severity::Error, 1)]);
    asked.heads.clear();
    // This is what a chain alone cannot show.
    assert_found(&asked.of(root).await, &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn newest_entries_that_were_removed_are_missed_by_the_ledger() {
    let (scene, _) = real_archive().await;
    let words = ["audit", "chain", "--public-key", "key.pem"];
    let audited = scene.deployment.run(words).await.expect(0).json();
    assert_eq!(audited["details"]["ledger_heads"], serde_json::json!({"default": 3, "night": 2}));
    let last = entered(&scene.store(), "default").pop().unwrap();
    let run = scene.store().join(last.run_key.as_str());
    std::fs::remove_dir_all(run.parent().unwrap()).unwrap();
    for key in [last.entry_key.signature(), last.entry_key] {
        std::fs::remove_file(scene.store().join(key.as_str())).unwrap();
    }
    let audited = scene.deployment.run(words).await.expect(4);
    assert_eq!(audited.stdout.matches("\"code\":\"chain.head\"").count(), 1, "{}", audited.stdout);
    scene.deployment.lose_ledger();
    scene.deployment.run(words).await.expect(0);
}

#[tokio::test]
async fn a_record_that_contradicts_itself_is_found_although_it_is_signed() {
    type Bending = Box<dyn Fn(&mut veriff_archive::model::run::RunRecord)>;
    let bendings: Vec<(&str, FindingCode, Bending)> = vec![
        ("another root", FindingCode::RecordInvalid, Box::new(|it| it.merkle_root = Sha256Digest::of(b"x"))),
        ("more items", FindingCode::RecordInvalid, Box::new(|it| it.items += 1)),
        ("fewer lines", FindingCode::RecordInvalid, Box::new(|it| it.chunks[0].sessions -= 1)),
        ("another configuration", FindingCode::RecordInvalid, Box::new(|it| it.config["limits.tries"] = 7.into())),
        (
            "another day",
            FindingCode::RecordInvalid,
            Box::new(|it| it.started_at = it.started_at.plus_millis(86_400_000)),
        ),
        (
            "another run",
            FindingCode::RecordInvalid,
            Box::new(|it| it.run_id = it.run_id.to_string().replace('0', "1").parse_id()),
        ),
        ("another group", FindingCode::RecordInvalid, Box::new(|it| it.group = "night".to_owned())),
        (
            "another archive",
            FindingCode::ArchiveInvalid,
            Box::new(|it| it.archive_sha256 = Some(Sha256Digest::of(b"x"))),
        ),
        ("a chunk less", FindingCode::RecordOrphan, Box::new(|it| drop(it.chunks.pop()))),
        (
            "a chunk more",
            FindingCode::ObjectMissing,
            Box::new(|it| {
                let key = ObjectKey::run_chunk(&it.run_id, it.started_at, 3);
                it.chunks.push(ChunkRef { key, ..it.chunks[0].clone() });
            }),
        ),
        ("a chunk twice", FindingCode::RecordInvalid, Box::new(|it| it.chunks.push(it.chunks[0].clone()))),
        ("no key", FindingCode::ChainSignature, Box::new(|it| it.key_id = None)),
    ];
    let lines: Vec<_> = (0..4).map(|number| plain_line(&format!("session-{number}"))).collect();
    for (what, code, bend) in bendings {
        let folder = TempDir::new().unwrap();
        let mut records = Records::in_store(folder.path());
        records.run("default", &lines);
        records.bent_run("default", &lines, &bend);
        let answered = Asked::with(records.key.as_ref().unwrap()).of(folder.path()).await;
        assert!(answered.0.findings.error > 0, "{what}");
        assert!(answered.1.iter().any(|finding| finding.code == code), "{what}: {:#?}", answered.1);
    }
}

/// Makes an id of a text that was one.
trait ParseId {
    fn parse_id(&self) -> veriff_archive::model::RunId;
}

impl ParseId for String {
    fn parse_id(&self) -> veriff_archive::model::RunId {
        veriff_archive::model::RunId::parse(self).unwrap()
    }
}

#[tokio::test]
async fn a_run_that_is_entered_twice_or_never_or_is_still_open_is_told_apart() {
    let (folder, mut records) = small_archive();
    let root = folder.path();
    let asked = Asked::with(records.key.as_ref().unwrap());
    let made = records.run("default", &[plain_line("session-9")]);
    let record = std::fs::read(root.join(made.run_key.as_str())).unwrap();
    let again = records.enter("night", &made.run_id, &made.run_key, Sha256Digest::of(&record));
    let answered = asked.of(root).await;
    assert_found(
        &answered,
        &[(FindingCode::ChainTwice, Severity::Error, 1), (FindingCode::RecordInvalid, Severity::Error, 1)],
    );
    for entry in [&again.entry_key, &made.entry_key] {
        for key in [entry.signature(), entry.clone()] {
            std::fs::remove_file(root.join(key.as_str())).unwrap();
        }
    }
    assert_found(&asked.of(root).await, &[(FindingCode::RecordUnchained, Severity::Error, 1)]);
    for key in [made.run_key.signature(), made.run_key.clone()] {
        std::fs::remove_file(root.join(key.as_str())).unwrap();
    }
    assert_found(&asked.of(root).await, &[(FindingCode::RecordOpen, Severity::Warn, 1)]);
}

#[tokio::test]
async fn a_run_that_ends_during_the_audit_is_no_error() {
    let (folder, records) = small_archive();
    let root = folder.path();
    let asked = Asked::with(records.key.as_ref().unwrap());
    let records = Arc::new(Mutex::new(records));
    let store = Arc::new(DirStore::open(root, Arc::new(SystemClock)).await.unwrap());
    // The folders of runs are listed last: by then one more run has ended.
    let late = Arc::clone(&records);
    let store = FaultyStore::new(store, move |_, call| {
        if call.verb == Verb::List && call.key == "runs/" {
            late.lock().unwrap().run("default", &[plain_line("late")]);
        }
        None
    });
    assert_found(&asked.of_store(store.as_ref()).await, &[]);

    // Or it is between its record and its entry, or between its entry and that one's signature.
    let made = records.lock().unwrap().run("default", &[plain_line("now")]);
    let touch = |key: &ObjectKey| {
        let bytes = std::fs::read(root.join(key.as_str())).unwrap();
        std::fs::remove_file(root.join(key.as_str())).unwrap();
        std::fs::write(root.join(key.as_str()), bytes).unwrap();
    };
    touch(&made.entry_key);
    std::fs::remove_file(root.join(made.entry_key.signature().as_str())).unwrap();
    assert_found(&asked.of(root).await, &[(FindingCode::ChainUnsigned, Severity::Warn, 1)]);
    age(&root.join(made.entry_key.as_str()));
    assert_found(&asked.of(root).await, &[(FindingCode::ChainUnsigned, Severity::Error, 1)]);
    std::fs::remove_file(root.join(made.entry_key.as_str())).unwrap();
    touch(&made.run_key);
    std::fs::remove_file(root.join(made.run_key.signature().as_str())).unwrap();
    assert_found(&asked.of(root).await, &[(FindingCode::RecordUnchained, Severity::Warn, 1)]);
}

#[tokio::test]
async fn only_the_groups_that_are_named_are_looked_at() {
    let (folder, records) = small_archive();
    let root = folder.path();
    let mut asked = Asked::with(records.key.as_ref().unwrap());
    asked.groups = vec!["night"];
    let answered = asked.of(root).await;
    assert_found(&answered, &[]);
    assert_eq!(answered.0.checked["entries"], 2);
    let damaged = ObjectKey::chain_entry("default", 2);
    put(root, &damaged, b"{}");
    assert_found(&asked.of(root).await, &[]);
    asked.groups = vec!["night", "noon"];
    assert_found(&asked.of(root).await, &[(FindingCode::ChainGap, Severity::Error, 1)]);
}

#[tokio::test]
async fn an_audit_that_was_stopped_goes_on_and_says_everything_once() {
    let (folder, records) = small_archive();
    let root = folder.path();
    let mut asked = Asked::with(records.key.as_ref().unwrap());
    // One thing wrong at the beginning and one at the end.
    for number in [1, 3] {
        let entry = ObjectKey::chain_entry("default", number);
        let text: serde_json::Value =
            serde_json::from_slice(&std::fs::read(root.join(entry.as_str())).unwrap()).unwrap();
        put(
            root,
            &ObjectKey::from_store(text["run_key"].as_str().unwrap().replace("run.json", "run.json.sig")),
            b"gone",
        );
    }
    let whole = asked.of(root).await;
    assert_eq!(whole.0.findings.error, 2, "{:#?}", whole.1);
    let state = folder.path().join("state.json");
    asked.state = Some(state.clone());
    let mut said = Vec::new();
    let mut sessions = 0;
    let last = loop {
        sessions += 1;
        let stop = Stop::default();
        asked.stop = stop.clone();
        let store = Arc::new(DirStore::open(root, Arc::new(SystemClock)).await.unwrap());
        let store = FaultyStore::new(store, move |_, call| {
            if call.verb == Verb::Open && call.key.contains("/sessions-") {
                stop.interrupt();
            }
            None
        });
        let (summary, found) = asked.of_store(store.as_ref()).await;
        said.extend(found);
        if summary.complete {
            break summary;
        }
        assert!(summary.next.contains("--state"));
        assert!(sessions < 20);
    };
    assert!(sessions > 3, "{sessions}");
    assert_eq!(codes(&said), codes(&whole.1), "{said:#?}");
    assert_eq!(last.findings, whole.0.findings);
    assert_eq!(last.checked, whole.0.checked);
    assert_eq!(last.details, whole.0.details);
    // A finished one begins anew.
    asked.stop = Stop::default();
    assert_eq!(asked.of(root).await.0.checked, whole.0.checked);
}

#[tokio::test]
async fn a_document_that_the_store_refuses_is_a_finding_of_its_own_and_the_rest_is_checked() {
    let (folder, records) = small_archive();
    let key = records.key.as_ref().unwrap();
    let inner: Arc<dyn Store> = Arc::new(DirStore::open(folder.path(), Arc::new(SystemClock)).await.unwrap());
    let keys = everything(folder.path()).into_keys();
    let documents: Vec<String> = keys.filter(|key| key.starts_with("runs/")).collect();
    assert!(documents.len() >= 5 * 5, "record, chunks, entry and two signatures of each run");
    for refused in documents {
        let name = refused.clone();
        let store = FaultyStore::new(Arc::clone(&inner), move |_, call| {
            let denied = || StoreError::Denied { action: "open", reason: "AccessDenied".to_owned() };
            (call.verb == Verb::Open && call.key == name).then(|| Fault::Before(denied()))
        });
        let (summary, found) = Asked::with(key).of_store(&*store).await;
        let unreadable = found.iter().filter(|finding| finding.code == FindingCode::ObjectUnreadable);
        let keys: Vec<&str> = unreadable.map(|finding| finding.key.as_ref().unwrap().as_str()).collect();
        assert_eq!(keys, [refused.as_str()], "{found:#?}");
        assert!(summary.complete && summary.checked["entries"] >= 4, "{refused}: {:?}", summary.checked);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_lies_over_an_object_of_a_versioned_bucket_is_found_with_the_right_to_read_alone() {
    let simulator = Simulator::start(small_world(41, 30)).await.unwrap();
    let bucket = s3().await.create_bucket("chain", true).await;
    let deployment = Deployment::with_bucket(&simulator, &bucket, WRITER, None);
    let key = SigningKey::generate();
    let path = deployment.write("signing.pem", key.to_pem().unwrap().expose_secret());
    deployment.configure_more(&format!("[signing]\nprivate_key = {{ file = \"{}\" }}\n", path.display()));
    let ids = simulator.world().session_ids();
    for ids in [&ids[..10], &ids[..20], &ids[..]] {
        deployment.write_ids(ids);
        deployment.archive(&[]).await.expect(0);
    }
    let keys = bucket.versions().await.into_iter().map(|version| version.key);
    let objects: Vec<_> = keys.filter(|key| key.contains("/runs/") || key.ends_with("/archive.json")).collect();
    assert_eq!(objects.len(), 1 + 3 * 5, "records, chunks, entries and two signatures of each run");
    let store = bucket.store("archive", READER).await;
    let mut asked = Asked { manifests: true, ..Asked::with(&key) };
    let untouched = asked.of_store(&store).await;
    assert_found(&untouched, &[]);
    assert_eq!((untouched.0.checked["lines"], untouched.0.checked["manifests"]), (60, 60));
    asked.manifests = false;
    for full in objects {
        let bytes = bucket.bytes(&full, None).await;
        let marker = bucket.put_delete_marker(&full).await;
        assert_found(&asked.of_store(&store).await, &[(FindingCode::ObjectHidden, Severity::Error, 1)]);
        assert!(bucket.deletes(&full, &marker).await);
        // Even the same bytes once more.
        let newer = bucket.put_over(&full, &bytes).await.unwrap();
        assert_found(&asked.of_store(&store).await, &[(FindingCode::ObjectShadowed, Severity::Error, 1)]);
        assert!(bucket.deletes(&full, &newer).await);
    }
    let other = bucket.put_over("archive/runs/chain/default/00000002.json", b"{}").await.unwrap();
    let answered = asked.of_store(&store).await;
    assert_found(&answered, &[(FindingCode::ObjectShadowed, Severity::Error, 1)]);
    assert_eq!(answered.1[0].version_id.as_deref(), Some(other.as_str()));
    assert!(bucket.deletes("archive/runs/chain/default/00000002.json", &other).await);

    // The program, as an auditor runs it: no configuration but where the server is.
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("key.pem"), key.public().to_pem().unwrap()).unwrap();
    let url = format!("s3://{}/archive", bucket.name);
    let alone = async |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_veriff-archive"));
        command.env_clear().envs(READER.environment()).current_dir(folder.path());
        command.env("VERIFF_ARCHIVE__STORE__ENDPOINT_URL", &bucket.endpoint);
        command.env("VERIFF_ARCHIVE__STORE__FORCE_PATH_STYLE", "true");
        command.args(words).args(["--store", &url]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        ended(child).await.expect(0)
    };
    let audited = alone(&["audit", "chain", "--public-key", "key.pem", "--manifests"]).await.json();
    assert_eq!(
        (&audited["checked"]["entries"], &audited["checked"]["manifests"]),
        (&3.into(), &60.into()),
        "{audited}"
    );
    let proof = alone(&["prove", &ids[25]]).await;
    let proof = veriff_archive::prove::Proof::parse(proof.stdout.as_bytes()).unwrap();
    assert!(proof.check(&[key.public()], None).is_valid());
}
