//! Run records: what a run leaves in the store, recomputed from the store alone; closing, by the run or by another.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use secrecy::ExposeSecret as _;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use veriff_archive::clock::{Clock, ManualClock, Timestamp};
use veriff_archive::error::Code;
use veriff_archive::ledger::{self, Ledger, LineEntry, RunCounts, RunStart, SessionEntry, State};
use veriff_archive::metrics::Meter;
use veriff_archive::model::digest::Sha256Digest;
use veriff_archive::model::key::ObjectKey;
use veriff_archive::model::merkle;
use veriff_archive::model::request::SessionRequest;
use veriff_archive::model::retention::RetentionPolicy;
use veriff_archive::model::run::ClosedReason;
use veriff_archive::model::signature::{PublicKey, SigningKey};
use veriff_archive::model::{RunId, SessionId};
use veriff_archive::run::record::{Draft, Ending, Recorder, line_of};
use veriff_archive::session::budget::Budget;
use veriff_archive::session::identity::Identity;
use veriff_archive::session::visit::Outcome;
use veriff_archive::session::writer::ArchiveWriter;
use veriff_archive::session::{Archiver, CurrentRun};
use veriff_archive::store::Store;
use veriff_archive::store::dir::DirStore;
use veriff_sim::{Effect, Endpoint, Fault as Trouble, FaultId, Simulator};

use crate::support::evidence::{Evidence, small_world};
use crate::support::faulty::{Fault, FaultyStore};
use crate::support::postgres::postgres;
use crate::support::program::{Deployment, ended};
use crate::support::s3::{WRITER, s3};
use crate::support::stored::everything;
use crate::support::until;

/// The objects of a store by key.
type Objects = BTreeMap<String, Vec<u8>>;

/// A run as the store tells of it.
struct Told {
    record: Value,
    lines: Vec<Value>,
    number: u64,
}

/// Makes a signing key, writes it beside the configuration and configures it.
fn sign(deployment: &Deployment, more: &str) -> PublicKey {
    let key = SigningKey::generate();
    deployment.write("signing.pem", key.to_pem().unwrap().expose_secret());
    let path = deployment.path("signing.pem");
    deployment.write("public.pem", &key.public().to_pem().unwrap());
    deployment.configure_more(&format!("[signing]\nprivate_key = {{ file = \"{}\" }}\n{more}", path.display()));
    key.public()
}

fn unpacked(chunk: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    flate2::read::GzDecoder::new(chunk).read_to_end(&mut text).unwrap();
    text
}

/// Recomputes all that the records in a store say of themselves, and returns the runs in the order of their chain.
fn check(objects: &Objects, key: Option<&PublicKey>, group: &str) -> Vec<Told> {
    let hex = |bytes: &[u8]| Sha256Digest::of(bytes).to_string();
    let verify = |name: &str| {
        let signature = objects.get(&format!("{name}.sig")).map(|bytes| std::str::from_utf8(bytes).unwrap());
        match key {
            Some(key) => assert!(key.verifies(&objects[name], signature.unwrap()), "{name}"),
            None => assert_eq!(signature, None),
        }
    };
    let prefix = format!("runs/chain/{group}/");
    let entries = objects.keys().filter(|name| name.starts_with(&prefix) && !name.contains(".sig"));
    let mut told = Vec::new();
    let mut previous = Value::Null;
    let mut known: Vec<String> = Vec::new();
    for (name, number) in entries.zip(1_u64..) {
        assert_eq!(*name, format!("{prefix}{number:08}.json"));
        let entry: Value = serde_json::from_slice(&objects[name]).unwrap();
        assert_eq!(entry["number"], number);
        assert_eq!(entry["previous_sha256"], previous);
        previous = hex(&objects[name]).into();
        verify(name);
        let run_key = entry["run_key"].as_str().unwrap();
        assert_eq!(entry["run_sha256"], hex(&objects[run_key]));
        verify(run_key);
        let record: Value = serde_json::from_slice(&objects[run_key]).unwrap();
        assert_eq!(record["run_id"], entry["run_id"]);
        assert_eq!(record["archive_sha256"], hex(&objects["archive.json"]));
        assert_eq!(record["key_id"].as_str(), key.map(|key| key.id().to_string()).as_deref());
        let config = serde_json_canonicalizer::to_vec(&record["config"]).unwrap();
        assert_eq!(record["config_sha256"], hex(&config));
        let lines = check_chunks(objects, &record);
        known.push(run_key.trim_end_matches("run.json").to_owned());
        told.push(Told { record, lines, number });
    }
    let strays = objects.keys().filter(|name| name.starts_with("runs/") && !name.starts_with("runs/chain/"));
    for stray in strays {
        assert!(known.iter().any(|folder| stray.starts_with(folder.as_str())), "{stray} is in no chain");
    }
    told
}

fn check_chunks(objects: &Objects, record: &Value) -> Vec<Value> {
    let mut tree = merkle::Tree::default();
    let mut lines: Vec<Value> = Vec::new();
    let mut items = 0;
    for chunk in record["chunks"].as_array().unwrap() {
        let bytes = &objects[chunk["key"].as_str().unwrap()];
        assert_eq!(chunk["sha256"], Sha256Digest::of(bytes).to_string());
        let text = unpacked(bytes);
        let (mut chunk_lines, mut chunk_items) = (0, 0);
        for line in text.strip_suffix(b"\n").unwrap().split(|byte| *byte == b'\n') {
            tree.push(merkle::leaf(line));
            let line: Value = serde_json::from_slice(line).unwrap();
            chunk_lines += 1;
            chunk_items += line["items"].as_array().unwrap().len();
            check_line(objects, &line);
            lines.push(line);
        }
        assert_eq!((&chunk["sessions"], &chunk["items"]), (&chunk_lines.into(), &chunk_items.into()));
        items += chunk_items;
    }
    assert_eq!(record["items"], items);
    assert_eq!(record["merkle_root"], tree.root().to_string());
    lines
}

fn check_line(objects: &Objects, line: &Value) {
    for item in line["items"].as_array().unwrap() {
        let bytes = &objects[item["key"].as_str().unwrap()];
        assert_eq!(item["sha256"], Sha256Digest::of(bytes).to_string());
        assert_eq!(item["size_bytes"], bytes.len());
    }
    if let Some(manifest) = line["manifest"]["key"].as_str() {
        assert_eq!(line["manifest"]["sha256"], Sha256Digest::of(&objects[manifest]).to_string());
    }
}

/// The program's own audit of its records finds nothing.
async fn audit(deployment: &Deployment) {
    let ended = deployment.run(["audit", "chain", "--public-key", "public.pem"]).await.expect(0);
    let summary: Value = serde_json::from_str(ended.stdout.lines().last().unwrap()).unwrap();
    assert_eq!((&summary["complete"], &summary["codes"]), (&true.into(), &serde_json::json!({})), "{}", ended.stdout);
}

fn outcomes(told: &Told, outcome: &str) -> usize {
    told.lines.iter().filter(|line| line["outcome"] == outcome).count()
}

#[tokio::test]
async fn a_run_leaves_a_signed_record_that_tells_of_every_session() {
    let simulator = Simulator::start(small_world(1, 6)).await.unwrap();
    let deployment = Deployment::with_directory(&simulator);
    let key = sign(&deployment, "");
    let sessions = simulator.world().session_ids();
    deployment.write_ids(&sessions);
    let first = deployment.archive(&[]).await.expect(0).json();
    let second = deployment.archive(&[]).await.expect(0).json();
    let objects = everything(&deployment.store());
    let told = check(&objects, Some(&key), "default");
    audit(&deployment).await;
    assert_eq!(told.len(), 2);
    assert_eq!((outcomes(&told[0], "archived"), outcomes(&told[1], "unchanged")), (sessions.len(), sessions.len()));
    for (told, summary) in told.iter().zip([&first, &second]) {
        let record = &told.record;
        assert_eq!(record["run_id"], summary["run_id"]);
        assert_eq!(record["counts"], summary["counts"]);
        assert_eq!((&record["closed_by"], &record["closed_reason"]), (&record["run_id"], &"finished".into()));
        assert_eq!((&record["exit_code"], &record["source"]["kind"]), (&0.into(), &"file".into()));
        assert_eq!(record["source"]["records"], sessions.len());
        assert_eq!(record["source"]["sha256"], summary["source"]["sha256"]);
        assert!(record["store_principal"].as_str().unwrap().starts_with("uid "));
        assert_eq!(summary["run_record"]["chain_number"], told.number);
        assert_eq!(summary["run_record"]["signed"], true);
        let text = record.to_string();
        assert!(!text.contains(&simulator.api_key()) && !text.contains(&simulator.secret()));
        assert!(text.contains("[redacted]"));
    }
}

/// A block of code in docs/formats.md behind a heading.
fn shown_code(heading: &str, language: &str) -> String {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/formats.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (_, behind) = text.split_once(&format!("\n{heading}\n")).unwrap();
    let (_, code) = behind.split_once(&format!("```{language}\n")).unwrap();
    code.split_once("```").unwrap().0.to_owned()
}

#[tokio::test]
async fn the_commands_and_the_script_of_the_formats_check_a_run_by_hand() {
    let simulator = Simulator::start(small_world(9, 7)).await.unwrap();
    let deployment = Deployment::with_directory(&simulator);
    let key = sign(&deployment, "");
    deployment.write_ids(&simulator.world().session_ids());
    let summary = deployment.archive(&[]).await.expect(0).json();
    let (store, run) = (deployment.store(), summary["run_record"]["key"].as_str().unwrap().to_owned());
    let public = deployment.path("public.pem");
    let script = deployment.write("check.py", &shown_code("### Signatures", "python"));
    let by_hand = || Command::new("python3").arg(&script).arg(&store).arg(&run).status().unwrap().success();
    assert!(by_hand());
    let folder = store.join(&run).parent().unwrap().to_owned();
    std::fs::copy(public, folder.join("public.pem")).unwrap();
    let commands = format!("set -e\n{}", shown_code("### Signatures", "sh"));
    let openssl = || Command::new("sh").arg("-c").arg(&commands).current_dir(&folder).output().unwrap();
    let good = openssl();
    let said = String::from_utf8(good.stdout).unwrap();
    assert!(good.status.success(), "{said}\n{}", String::from_utf8_lossy(&good.stderr));
    assert!(said.contains(&key.id().to_string()) && said.contains("Signature Verified Successfully"), "{said}");
    assert!(said.contains(summary["run_record"]["sha256"].as_str().unwrap()), "{said}");
    // Whatever is changed, one of the two notices.
    let chunk = folder.join("sessions-000001.ndjson.gz");
    let mut text = unpacked(&std::fs::read(&chunk).unwrap());
    *text.iter_mut().find(|byte| **byte == b'a').unwrap() = b'b';
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut packed, &text).unwrap();
    std::fs::write(&chunk, packed.finish().unwrap()).unwrap();
    assert!(!by_hand());
    let record = std::fs::read_to_string(folder.join("run.json")).unwrap();
    std::fs::write(folder.join("run.json"), record.replace("\"exit_code\":0", "\"exit_code\":3")).unwrap();
    assert!(!openssl().status.success());
}

#[tokio::test]
async fn a_run_without_a_key_is_unsigned_and_says_so() {
    let simulator = Simulator::start(small_world(2, 2)).await.unwrap();
    let deployment = Deployment::with_directory(&simulator);
    deployment.write_ids(&simulator.world().session_ids());
    let ended = deployment.archive(&["--log-level", "info"]).await.expect(0);
    assert_eq!(ended.json()["run_record"]["signed"], false);
    assert!(ended.stderr.contains("the run record is unsigned"), "{}", ended.stderr);
    let told = check(&everything(&deployment.store()), None, "default");
    assert_eq!(told.len(), 1);
    assert!(told[0].record["key_id"].is_null());
}

/// Holds the download of one item up, so that all but one session of the world end.
fn hold_one_up(simulator: &Simulator) -> FaultId {
    let sessions = simulator.world().sessions().to_vec();
    let item = sessions.last().unwrap().attempts.iter().flat_map(|attempt| &attempt.media).next().unwrap().id.clone();
    let held = Trouble::forever(Effect::Slow { bytes: 100, every_ms: 50 }).on(Endpoint::Media).id(item);
    simulator.set_fault(held)
}

/// Begins a run and waits until it has committed all sessions but the one that is held up.
async fn begun(deployment: &Deployment, sessions: usize) -> Child {
    let path = deployment.path("begun.ndjson");
    let words = ["run", "--sessions", "sessions.txt", "--progress", "none", "--results", "begun.ndjson"];
    let child = deployment.start(words.iter().chain(&["--drain-timeout", "100ms"]));
    until("all but one have ended", || {
        std::fs::read_to_string(&path).is_ok_and(|text| text.lines().count() == sessions - 1)
    })
    .await;
    child
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

/// Runs with nothing to do for longer than a lease.
async fn idle(deployment: &Deployment) -> Value {
    deployment.run(["run", "--backlog", "--idle-exit", "5s", "--progress", "none"]).await.expect(0).json()
}

#[tokio::test]
async fn a_run_that_is_told_to_stop_closes_its_record() {
    let simulator = Simulator::start(small_world(3, 4)).await.unwrap();
    let deployment = Deployment::with_directory(&simulator);
    let key = sign(&deployment, "group = \"eu_1\"\n");
    deployment.write_ids(&simulator.world().session_ids());
    hold_one_up(&simulator);
    let child = begun(&deployment, 4).await;
    signal(&child, Signal::TERM);
    let summary = ended(child).await.expect(143).json();
    let told = check(&everything(&deployment.store()), Some(&key), "eu_1");
    assert_eq!(told.len(), 1);
    let record = &told[0].record;
    assert_eq!((&record["exit_code"], &record["closed_reason"]), (&143.into(), &"stopped".into()));
    assert_eq!(record["counts"], summary["counts"]);
    assert_eq!((outcomes(&told[0], "archived"), outcomes(&told[0], "pending")), (3, 1));
}

#[tokio::test]
async fn a_run_that_was_killed_is_closed_by_a_later_one() {
    let simulator = Simulator::start(small_world(4, 4)).await.unwrap();
    let deployment = Deployment::with_directory(&simulator);
    let key = sign(&deployment, "[limits]\nlease = \"3s\"\n");
    deployment.write_ids(&simulator.world().session_ids());
    let held = hold_one_up(&simulator);
    let mut child = begun(&deployment, 4).await;
    child.kill().unwrap();
    ended(child).await;
    simulator.remove_fault(held);
    assert!(!everything(&deployment.store()).keys().any(|name| name.starts_with("runs/")));
    let closer = idle(&deployment).await;
    let told = check(&everything(&deployment.store()), Some(&key), "default");
    assert_eq!(told.len(), 2);
    let (own, dead) = (&told[0].record, &told[1].record);
    assert_eq!((&own["run_id"], &own["closed_by"]), (&closer["run_id"], &closer["run_id"]));
    assert_eq!((&dead["closed_by"], &dead["closed_reason"]), (&closer["run_id"], &"lapsed".into()));
    assert!(dead["exit_code"].is_null() && dead["source"]["records"].is_null());
    assert_eq!(outcomes(&told[1], "archived"), 3);
    assert_eq!(dead["counts"]["archived"], 3);
    let written: usize = told[1].lines.iter().map(|line| line["items"].as_array().unwrap().len()).sum();
    assert_eq!(dead["counts"]["media"], written);
    deployment.expect_reconciled().await;
    // It is closed once.
    deployment.archive(&[]).await.expect(0);
    assert_eq!(check(&everything(&deployment.store()), Some(&key), "default").len(), 3);
}

#[tokio::test]
async fn a_worker_that_was_taken_for_dead_goes_on_as_another_run() {
    let simulator = Simulator::start(small_world(5, 4)).await.unwrap();
    let deployment = Deployment::with_directory(&simulator);
    let key = sign(&deployment, "[limits]\nlease = \"3s\"\n");
    deployment.write_ids(&simulator.world().session_ids());
    let held = hold_one_up(&simulator);
    let sleeper = begun(&deployment, 4).await;
    signal(&sleeper, Signal::STOP);
    simulator.remove_fault(held);
    let closer = idle(&deployment).await;
    signal(&sleeper, Signal::CONT);
    let awake = ended(sleeper).await.expect(0);
    let summary = awake.json();
    assert!(awake.stderr.contains("assumed this one was dead"), "{}", awake.stderr);
    assert_eq!(summary["counts"]["archived"], 4);
    let told = check(&everything(&deployment.store()), Some(&key), "default");
    assert_eq!(told.len(), 3);
    audit(&deployment).await;
    let (dead, again) = (&told[1], &told[2]);
    assert_eq!((&dead.record["closed_by"], outcomes(dead, "archived")), (&closer["run_id"], 3));
    assert_eq!((&again.record["run_id"], outcomes(again, "archived")), (&summary["run_id"], 1));
    assert_ne!(dead.record["run_id"], again.record["run_id"]);
    let of_both = dead.lines.iter().chain(&again.lines).map(|line| line["session_id"].as_str().unwrap());
    assert_eq!(of_both.collect::<BTreeSet<_>>().len(), 4, "nothing is lost");
    deployment.expect_reconciled().await;
}

#[tokio::test]
async fn a_key_that_is_none_is_refused_before_anything_is_asked() {
    let simulator = Simulator::start(small_world(6, 1)).await.unwrap();
    for text in ["hunter2", ""] {
        let deployment = Deployment::with_directory(&simulator);
        sign(&deployment, "");
        deployment.write("signing.pem", text);
        deployment.write_ids(&simulator.world().session_ids());
        let refused = deployment.archive(&[]).await.expect(78);
        assert!(refused.stderr.contains("signing.private_key"), "{}", refused.stderr);
        assert!(!refused.stderr.contains("hunter2"), "{}", refused.stderr);
        assert!(everything(&deployment.store()).is_empty());
    }
    assert_eq!(simulator.requests().len(), 0);
}

#[tokio::test]
async fn neither_a_dry_run_nor_one_that_is_refused_writes_a_record() {
    let simulator = Simulator::start(small_world(7, 2)).await.unwrap();
    let deployment = Deployment::with_directory(&simulator);
    deployment.write_ids(&simulator.world().session_ids());
    deployment.archive(&["--dry-run"]).await.expect(0);
    assert!(everything(&deployment.store()).is_empty());
    deployment.write("api-key", "another");
    let refused = deployment.archive(&[]).await.expect(77).json();
    assert!(refused["run_record"].is_null());
    assert!(everything(&deployment.store()).is_empty(), "a store that is no archive yet stays empty");
    deployment.write("api-key", &simulator.api_key());
    deployment.archive(&[]).await.expect(0);
    assert_eq!(check(&everything(&deployment.store()), None, "default").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_of_one_group_that_end_at_the_same_time_leave_one_chain() {
    let simulator = Simulator::start(small_world(8, 3)).await.unwrap();
    let bucket = s3().await.create_bucket("chain", true).await;
    let mut deployment = Deployment::with_bucket(&simulator, &bucket, WRITER, None);
    deployment.set("VERIFF_ARCHIVE__LEDGER__URL", &postgres().await.create_ledger().await);
    let key = sign(&deployment, "");
    deployment.write_ids(&simulator.world().session_ids());
    deployment.archive(&[]).await.expect(0);
    for _ in 0..2 {
        let words = ["run", "--sessions", "sessions.txt", "--progress", "none"];
        let workers: Vec<Child> = (0..4).map(|_| deployment.start(words)).collect();
        for worker in workers {
            ended(worker).await.expect(0);
        }
    }
    let evidence = Evidence::of_bucket(&bucket).await;
    assert!(evidence.runs.values().all(|versions| versions.len() == 1));
    let locks: BTreeSet<_> = evidence.runs.values().map(|versions| versions[0].lock.clone()).collect();
    assert_eq!(locks.len(), 1, "all of it under the lock of the default class");
    assert_eq!(locks.first().unwrap().as_ref().unwrap().0, "COMPLIANCE");
    let told = check(&evidence.first_versions(), Some(&key), "default");
    assert_eq!(told.len(), 9);
    let runs: BTreeSet<_> = told.iter().map(|told| told.record["run_id"].as_str().unwrap()).collect();
    assert_eq!(runs.len(), 9);
    let [(_, access_key), ..] = WRITER.environment();
    assert!(told.iter().all(|told| told.record["store_principal"] == access_key));
    assert!(told.iter().all(|told| told.record["clock_offset_ms"]["min"].is_i64()));
    audit(&deployment).await;
    // A marker over an entry and another version of one change nothing.
    bucket.put_delete_marker("archive/runs/chain/default/00000009.json").await;
    bucket.put_over("archive/runs/chain/default/00000008.json", b"{}").await;
    deployment.set("VERIFF_ARCHIVE__LEDGER__URL", &postgres().await.create_ledger().await);
    deployment.archive(&[]).await.expect(0);
    let evidence = Evidence::of_bucket(&bucket).await;
    assert_eq!(check(&evidence.first_versions(), Some(&key), "default").len(), 10);
}

/// A recorder over a store that may die.
async fn recorder(store: Arc<dyn Store>, ledger: &Arc<dyn Ledger>, clock: &Arc<ManualClock>) -> Recorder {
    let identity = Identity::find(&*store, Arc::clone(ledger)).await.unwrap();
    let archiver = Archiver {
        writer: ArchiveWriter::new(store, RetentionPolicy::unlocked(), None),
        identity,
        budget: Budget::of_memory(1 << 20),
        max_media_size_bytes: 1,
        meter: Arc::new(Meter::starting(clock.instant())),
        run: CurrentRun::new(RunId::parse("any").unwrap()),
        abandon: CancellationToken::new(),
    };
    Recorder {
        archiver: Arc::new(archiver),
        ledger: Arc::clone(ledger),
        clock: Arc::clone(clock) as Arc<dyn Clock>,
        signer: Some(SigningKey::from_pem(PEM).unwrap()),
        lease: Duration::from_mins(5),
    }
}

/// A key of these tests alone.
const PEM: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIEzNCJso/5banbbDRuwRTg9bijGfNaumJNqM9u1PuKb7\n-----END PRIVATE KEY-----\n";

fn entry(run: &RunId, number: u64, at: Timestamp) -> SessionEntry {
    let mut entry = SessionEntry {
        record: SessionRequest::of(SessionId::parse(&format!("s{number}")).unwrap()),
        integration: "default".into(),
        state: State::Pending,
        code: None,
        message: None,
        upstream_created_at: None,
        deadline_at: None,
        manifest: None,
        complete: false,
        settled: false,
        media: Vec::new(),
        run_id: run.clone(),
        at,
        look_again_at: None,
        holder: None,
        line: None,
    };
    let text = line_of(&entry, Outcome::Pending);
    entry.line = Some(LineEntry { number, text, media: 0, bytes: 0 });
    entry
}

/// A store with an archive in it, and a run with three lines that has stored none.
struct Begun {
    folder: tempfile::TempDir,
    store: Arc<dyn Store>,
    ledger: Arc<dyn Ledger>,
    clock: Arc<ManualClock>,
    run: RunId,
}

impl Begun {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at(Timestamp::from_unix_seconds(1_770_000_000)));
        let root = folder.path().join("store");
        let store: Arc<dyn Store> = Arc::new(DirStore::open(root, Arc::clone(&clock) as Arc<dyn Clock>).await.unwrap());
        let ledger = ledger::open(&format!("sqlite://{}/ledger.db", folder.path().display())).await.unwrap();
        let run = RunId::parse("the-run").unwrap();
        let first = recorder(Arc::clone(&store), &ledger, &clock).await;
        first.archiver.identity.claim(&first.archiver.writer).await.unwrap();
        let begun = Self { folder, store, ledger, clock, run };
        begun.start(&begun.run).await;
        for number in 1..=3 {
            begun.ledger.commit(&entry(&begun.run, number, begun.clock.now())).await.unwrap();
        }
        begun
    }

    async fn start(&self, run: &RunId) {
        let draft = Draft::of("default".into(), "somebody".into(), None, serde_json::json!([]));
        let start = RunStart {
            run_id: run.clone(),
            started_at: self.clock.now(),
            version: "0.1.0".into(),
            source_kind: "file".into(),
            store_url: "file:///store".into(),
            draft: Some(draft.to_text()),
        };
        self.ledger.start_run(&start).await.unwrap();
    }

    fn objects(&self) -> Objects {
        everything(&self.folder.path().join("store"))
    }

    fn ending() -> Ending {
        Ending {
            exit_code: 5,
            reason: ClosedReason::Finished,
            counts: RunCounts::default(),
            source_sha256: None,
            records: 3,
        }
    }

    /// Closes the run over a store that dies at a call, and tells whether it came so far.
    async fn die_at(&self, fault: &Fault, effect: usize) -> bool {
        let (fault, mut seen) = (fault.clone(), 0);
        let faulty = FaultyStore::new(Arc::clone(&self.store), move |_, call| {
            seen += usize::from(call.is_effect());
            (call.is_effect() && seen == effect).then(|| fault.clone())
        });
        let dying = recorder(Arc::clone(&faulty) as Arc<dyn Store>, &self.ledger, &self.clock).await;
        let ending = Self::ending();
        tokio::select! {
            closed = dying.close(&self.run, &ending) => {
                closed.unwrap().unwrap();
                false
            }
            () = faulty.killed() => true,
        }
    }

    #[track_caller]
    fn expect_one_chain(&self, runs: usize) -> Vec<Told> {
        let key = SigningKey::from_pem(PEM).unwrap().public();
        let told = check(&self.objects(), Some(&key), "default");
        assert_eq!(told.len(), runs);
        let own: Vec<_> = told.iter().filter(|told| told.record["run_id"] == self.run.as_str()).collect();
        assert_eq!(own.len(), 1, "entered once");
        assert_eq!(own[0].lines.len(), 3);
        told
    }
}

/// Chunk, record, signature, entry, signature: dead before or behind each of them, whoever comes next ends with the same.
#[tokio::test]
async fn killed_between_any_two_effects_a_record_is_closed_once() {
    for fault in [Fault::KillBefore, Fault::KillAfter] {
        for by_itself in [true, false] {
            let mut effect = 1;
            loop {
                let begun = Begun::new().await;
                let was_killed = begun.die_at(&fault, effect).await;
                let after = recorder(Arc::clone(&begun.store), &begun.ledger, &begun.clock).await;
                if by_itself {
                    let again = after.close(&begun.run, &Begun::ending()).await;
                    assert_eq!(again.is_ok(), was_killed, "{again:?}");
                } else {
                    let other = RunId::parse("other").unwrap();
                    assert_eq!(after.close_lapsed(&other).await.unwrap(), 0, "its lease has not lapsed yet");
                    begun.clock.advance(Duration::from_mins(6));
                    assert_eq!(after.close_lapsed(&other).await.unwrap(), u64::from(was_killed));
                    begun.start(&other).await;
                    after.close(&other, &Begun::ending()).await.unwrap().unwrap();
                }
                begun.expect_one_chain(if by_itself { 1 } else { 2 });
                if !was_killed {
                    assert_eq!(effect, 6, "five effects");
                    break;
                }
                effect += 1;
            }
        }
    }
}

/// What stands of a dead run's entry is found behind others, too.
#[tokio::test]
async fn an_entry_whose_answer_was_lost_is_found_behind_those_that_came_after_it() {
    let begun = Begun::new().await;
    assert!(begun.die_at(&Fault::KillAfter, 4).await, "dead when its entry stands");
    let after = recorder(Arc::clone(&begun.store), &begun.ledger, &begun.clock).await;
    let between = RunId::parse("between").unwrap();
    begun.start(&between).await;
    after.close(&between, &Begun::ending()).await.unwrap().unwrap();
    begun.clock.advance(Duration::from_mins(6));
    assert_eq!(after.close_lapsed(&between).await.unwrap(), 1);
    let told = begun.expect_one_chain(2);
    assert_eq!(told[0].record["run_id"], "the-run");
}

#[tokio::test]
async fn a_missing_number_stays_missing() {
    let begun = Begun::new().await;
    let store = recorder(Arc::clone(&begun.store), &begun.ledger, &begun.clock).await;
    store.close(&begun.run, &Begun::ending()).await.unwrap().unwrap();
    let root = begun.folder.path().join("store/runs/chain/default");
    std::fs::rename(root.join("00000001.json"), root.join("00000004.json")).unwrap();
    let fresh = ledger::open("sqlite::memory:").await.unwrap();
    let after = recorder(Arc::clone(&begun.store), &fresh, &begun.clock).await;
    let next = Begun { ledger: fresh, ..begun };
    let run = RunId::parse("next").unwrap();
    next.start(&run).await;
    let closed = after.close(&run, &Begun::ending()).await.unwrap().unwrap();
    assert_eq!(closed.record.number, 5);
    let entry: Value = serde_json::from_slice(&next.objects()["runs/chain/default/00000005.json"]).unwrap();
    let before = Sha256Digest::of(&next.objects()["runs/chain/default/00000004.json"]);
    assert_eq!(entry["previous_sha256"], before.to_string());
}

#[tokio::test]
async fn a_chunk_with_other_lines_is_an_error_with_a_code() {
    let begun = Begun::new().await;
    let key = ObjectKey::run_chunk(&begun.run, begun.clock.now(), 1);
    let path = begun.folder.path().join("store").join(key.as_str());
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, b"not ours").unwrap();
    let recorder = recorder(Arc::clone(&begun.store), &begun.ledger, &begun.clock).await;
    let error = recorder.close(&begun.run, &Begun::ending()).await.unwrap_err();
    assert_eq!(error.code(), Code::StoreConflict);
    assert!(error.to_string().contains(key.as_str()), "{error}");
}

/// More lines than one chunk takes, in bytes: the digests of the record hold over several chunks.
#[tokio::test]
async fn many_lines_go_into_several_chunks() {
    let begun = Begun::new().await;
    let big = "x".repeat(5 << 20);
    for number in 4..=6 {
        let mut entry = entry(&begun.run, number, begun.clock.now());
        entry.integration = big.clone();
        let text = line_of(&entry, Outcome::Failed);
        entry.integration = "default".into();
        entry.line = Some(LineEntry { number, text, media: 1, bytes: 2 });
        begun.ledger.commit(&entry).await.unwrap();
    }
    let recorder = recorder(Arc::clone(&begun.store), &begun.ledger, &begun.clock).await;
    recorder.close(&begun.run, &Begun::ending()).await.unwrap().unwrap();
    let told = check(&begun.objects(), Some(&SigningKey::from_pem(PEM).unwrap().public()), "default");
    let sessions: Vec<_> =
        told[0].record["chunks"].as_array().unwrap().iter().map(|chunk| chunk["sessions"].as_u64().unwrap()).collect();
    assert_eq!(sessions, [5, 1]);
}
