//! Run records: what a run leaves in the store, recomputed from the store alone; closing, by the run or by another.

use std::collections::BTreeMap;
use std::io::Read as _;

use serde_json::Value;
use veriff_archive::model::digest::Sha256Digest;
use veriff_archive::model::merkle;
use veriff_archive::model::signature::{PublicKey, SigningKey};
use veriff_sim::Simulator;

use crate::support::evidence::small_world;
use crate::support::program::Deployment;
use crate::support::stored::objects;

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
    deployment.write("signing.pem", secrecy::ExposeSecret::expose_secret(&key.to_pem().unwrap()));
    let path = deployment.path("signing.pem");
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
    let entries = objects.keys().filter(|name| name.starts_with(&prefix) && name.ends_with(".json"));
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
    let objects = objects(&deployment.store());
    let told = check(&objects, Some(&key), "default");
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

#[tokio::test]
async fn a_run_without_a_key_is_unsigned_and_says_so() {
    let simulator = Simulator::start(small_world(2, 2)).await.unwrap();
    let deployment = Deployment::with_directory(&simulator);
    deployment.write_ids(&simulator.world().session_ids());
    let ended = deployment.archive(&["--log-level", "info"]).await.expect(0);
    assert_eq!(ended.json()["run_record"]["signed"], false);
    assert!(ended.stderr.contains("the run record is unsigned"), "{}", ended.stderr);
    let told = check(&objects(&deployment.store()), None, "default");
    assert_eq!(told.len(), 1);
    assert!(told[0].record["key_id"].is_null());
}
