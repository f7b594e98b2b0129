//! Proofs and keys, as a user makes and checks them.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;
use veriff_archive::model::signature::{PublicKey, SigningKey};
use veriff_archive::prove::{Proof, ProofEntry};

use super::support::program::{Ended, ended};
use super::support::records::{Made, Records, entered, plain_line};
use super::support::scene::{Scene, session, world_of};
use super::support::stored::{newest_manifest, objects};

/// A deployment whose archive has signed runs.
struct Signed {
    scene: Scene,
    key: SigningKey,
    runs: Vec<Made>,
}

impl Signed {
    /// Archives nine sessions in three runs; the first two sessions are in every run.
    async fn archive() -> Self {
        let sessions: Vec<_> = (0..9).map(|number| session(&format!("session {number}"))).collect();
        let scene = Scene::of(world_of(&sessions)).await;
        let key = scene.sign_runs("default");
        let ids = scene.ids();
        for ids in [&ids[..2], &ids[..7], &ids[..]] {
            scene.deployment.write_ids(ids);
            scene.archive(&[]).await.expect(0);
        }
        let runs = entered(&scene.store(), "default");
        assert_eq!(runs.len(), 3);
        Self { scene, key, runs }
    }

    async fn run(&self, words: &[&str]) -> Ended {
        self.scene.deployment.run(words).await
    }

    /// Makes a proof and writes it to a file.
    async fn prove(&self, words: &[&str]) -> Value {
        let proof = self.run(&[&["prove"], words].concat()).await.expect(0);
        self.scene.deployment.write("proof.json", &proof.stdout);
        proof.json()
    }

    /// Checks the file in a folder with nothing else in it but the key, and by the script.
    async fn check(&self, more: &[&str]) -> Ended {
        let folder = TempDir::new().unwrap();
        for name in ["proof.json", "key.pem"] {
            std::fs::copy(self.scene.deployment.path(name), folder.path().join(name)).unwrap();
        }
        let words = ["prove", "--check", "proof.json", "--public-key", "key.pem"];
        let checked = alone(folder.path(), &[&words, more].concat()).await;
        assert_eq!(by_script(folder.path()), checked.code == Some(0), "{}", checked.stdout);
        checked
    }

    fn public_key(&self) -> PublicKey {
        self.key.public()
    }
}

/// Runs the program with no configuration at all.
async fn alone(folder: &Path, words: &[&str]) -> Ended {
    let mut command = Command::new(env!("CARGO_BIN_EXE_veriff-archive"));
    command.env_clear().current_dir(folder).args(words);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    ended(command.spawn().unwrap()).await
}

fn by_script(folder: &Path) -> bool {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/verify_run.py");
    let output =
        Command::new("python3").arg(script).args(["--proof", "proof.json", "key.pem"]).current_dir(folder).output();
    output.unwrap().status.success()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_and_each_of_its_items_can_be_proven_with_the_public_key_alone() {
    let signed = Signed::archive().await;
    let ids = signed.scene.ids();
    for (id, run) in [(&ids[0], &signed.runs[0]), (&ids[6], &signed.runs[1]), (&ids[8], &signed.runs[2])] {
        let proof = signed.prove(&[id]).await;
        // The run that wrote its manifest.
        assert_eq!(proof["run_id"], run.run_id.as_str(), "{proof}");
        let checked = signed.check(&[]).await.expect(0).json();
        assert_eq!((&checked["valid"], &checked["items"]), (&true.into(), &2.into()), "{checked}");
        assert_eq!(checked["chain"]["sha256"], run.entry_sha256.to_string());
        assert_eq!(checked["signed_by"], signed.public_key().id().to_string());
    }
    let manifest = newest_manifest(&signed.scene.store(), &ids[3]);
    for item in manifest["attempts"][0]["media"].as_array().unwrap() {
        let media = item["media_id"].as_str().unwrap();
        signed.prove(&[&ids[3], media]).await;
        let file = signed.scene.store().join(item["key"].as_str().unwrap()).display().to_string();
        let checked = signed.check(&["--object", &file]).await.expect(0).json();
        assert_eq!((&checked["item"]["media_id"], &checked["item"]["sha256"]), (&item["media_id"], &item["sha256"]));
        // Any other file is not the item.
        let other = signed.scene.deployment.path("key.pem").display().to_string();
        let folder = signed.scene.deployment.path("");
        let words = ["prove", "--check", "proof.json", "--public-key", "key.pem", "--object", &other];
        let checked = alone(&folder, &words).await.expect(4).json();
        assert_eq!(checked["findings"][0]["code"], "proof.invalid");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proof_can_be_asked_of_a_run_and_none_is_made_up() {
    let signed = Signed::archive().await;
    let ids = signed.scene.ids();
    let first = signed.runs[0].run_id.as_str();
    let proof = signed.prove(&[&ids[1], "--run", first]).await;
    assert_eq!((&proof["run_id"], &proof["tree_size"]), (&first.into(), &2.into()));
    signed.check(&[]).await.expect(0);
    let last = signed.runs[2].run_id.as_str();
    assert_eq!(signed.prove(&[&ids[1], "--run", last]).await["tree_size"], 9);
    assert_eq!(signed.check(&[]).await.expect(0).json()["outcome"], "unchanged");
    for (words, reason) in [
        (vec!["prove", &ids[8], "--run", first], "has no signed record with a line"),
        (vec!["prove", "no-such-session"], "no signed run has a line"),
        (vec!["prove", &ids[1], "no-such-item"], "no signed run has a line for item no-such-item"),
        (vec!["prove", &ids[1], "--run", "no-such-run"], "has no signed record"),
    ] {
        let refused = signed.run(&words).await.expect(3);
        assert!(refused.stderr.contains(reason), "{words:?}: {}", refused.stderr);
        assert_eq!(refused.stdout, "");
    }
    // A damaged archive proves nothing.
    let chunk = signed.runs[2].run_key.as_str().replace("run.json", "sessions-000001.ndjson.gz");
    std::fs::write(signed.scene.store().join(chunk), b"damaged").unwrap();
    let refused = signed.run(&["prove", &ids[8]]).await.expect(4);
    assert!(refused.stderr.contains("audit chain"), "{}", refused.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unsigned_run_proves_nothing() {
    let sessions = [session("one")];
    let scene = Scene::of(world_of(&sessions)).await;
    scene.archive(&[]).await.expect(0);
    assert_eq!(entered(&scene.store(), "default").len(), 1);
    scene.deployment.run(["prove", &scene.ids()[0]]).await.expect(3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proof_that_was_changed_is_not_valid() {
    let signed = Signed::archive().await;
    let proof = signed.prove(&[&signed.scene.ids()[4]]).await;
    let keys = [signed.public_key()];
    let text = serde_json::to_vec(&proof).unwrap();
    let original = Proof::parse(&text).unwrap();
    assert!(original.check(&keys, None).is_valid());
    let mut refused = 0;
    for at in 0..text.len() {
        let mut changed = text.clone();
        changed[at] ^= 1 << (at % 8);
        let Some(mut read) = Proof::parse(&changed) else { continue };
        if read.check(&keys, None).is_valid() {
            // Digits of a digest may be capitals; a proof without its entry or that one's signature is weaker, and says so.
            let entry = original.chain.clone().unwrap();
            let signature = read.chain.as_ref().and_then(|read| read.signature.clone()).or(entry.signature);
            let chain = read.chain.unwrap_or(original.chain.clone().unwrap());
            read.chain = Some(ProofEntry { signature, ..chain });
            assert_eq!(read, original, "byte {at}");
        } else {
            refused += 1;
        }
    }
    assert!(refused > 500, "{refused}");
    assert!(!original.check(&[SigningKey::generate().public()], None).is_valid());
    let other = signed.prove(&[&signed.scene.ids()[5]]).await;
    for field in
        ["session_id", "run_id", "archive_id", "line", "leaf_index", "path", "run_signature", "key_id", "merkle_root"]
    {
        let mut mixed = proof.clone();
        mixed[field] = match field {
            "run_id" | "archive_id" => "another".into(),
            "key_id" | "merkle_root" => "0".repeat(64).into(),
            "run_signature" => proof["chain"]["signature"].clone(),
            _ => other[field].clone(),
        };
        signed.scene.deployment.write("proof.json", &mixed.to_string());
        let checked = signed.check(&[]).await.expect(4).json();
        assert_eq!(checked["valid"], false, "{field}");
        assert_eq!(checked["findings"][0]["code"], "proof.invalid", "{field}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proof_is_read_from_standard_input_and_told_to_people() {
    let signed = Signed::archive().await;
    signed.prove(&[&signed.scene.ids()[0]]).await;
    let mut command = Command::new(env!("CARGO_BIN_EXE_veriff-archive"));
    command.env_clear().current_dir(signed.scene.deployment.path(""));
    command.args(["--output", "text", "prove", "--check", "-", "--public-key", "key.pem"]);
    command.stdin(std::fs::File::open(signed.scene.deployment.path("proof.json")).unwrap());
    let told = ended(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()).await.expect(0);
    assert!(told.stdout.starts_with("the proof is valid\n"), "{}", told.stdout);
    signed.scene.deployment.write("no-proof.json", "{}");
    for words in [
        vec!["prove", "--check", "no-proof.json", "--public-key", "key.pem"],
        vec!["prove", "--check", "missing.json", "--public-key", "key.pem"],
        vec!["prove", "--check", "proof.json", "--public-key", "proof.json"],
        vec!["prove", "--check", "proof.json"],
        vec!["prove"],
    ] {
        signed.run(&words).await.expect(2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_audits_manifests_and_heads_and_notes_the_result_in_the_ledger() {
    let signed = Signed::archive().await;
    let key = signed.scene.deployment.path("key.pem").display().to_string();
    let head = signed.runs[1].entry_sha256.to_string();
    let copy = signed.scene.store().join(signed.runs[2].entry_key.as_str()).display().to_string();
    let noted = signed.scene.deployment.write("head.txt", &format!("{}\n", signed.runs[0].entry_sha256));
    let noted = noted.display().to_string();
    let words = ["audit", "chain", "--public-key", &key, "--manifests", "--expect-head", &head];
    let words = [&words[..], &["--expect-head", &copy, "--expect-head", &noted]].concat();
    let audited = signed.run(&words).await.expect(0);
    let lines: Vec<Value> = audited.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let [summary] = &lines[..] else { panic!("{}", audited.stdout) };
    assert_eq!((&summary["audit"], &summary["checked"]["manifests"]), (&"chain".into(), &18.into()), "{summary}");
    assert_eq!(summary["details"]["runs_without_record"], 0);
    let followed: Vec<&Value> =
        summary["details"]["heads"].as_array().unwrap().iter().map(|it| &it["followed_by"]).collect();
    assert_eq!(followed, [1, 0, 2]);
    let told = signed.run(&["--output", "text", "audit", "chain", "--public-key", &key]).await.expect(0);
    assert!(told.stdout.contains("audit chain: complete"), "{}", told.stdout);
    assert!(told.stdout.contains("--expect-head"), "{}", told.stdout);

    for words in [
        vec!["audit", "chain", "--public-key", "missing.pem"],
        vec!["audit", "chain", "--public-key", &noted],
        vec!["audit", "chain", "--expect-head", "no-such-file"],
    ] {
        signed.run(&words).await.expect(2);
    }
    let elsewhere = format!("file://{}", signed.scene.deployment.path("nowhere").display());
    signed.run(&["audit", "chain", "--store", &elsewhere]).await.expect(77);
    assert!(!signed.scene.deployment.path("nowhere").exists());

    // Any byte of any manifest.
    let manifests: Vec<_> =
        objects(&signed.scene.store()).into_iter().filter(|(key, _)| key.contains("/manifest/")).collect();
    for (at, (manifest, bytes)) in manifests.iter().enumerate() {
        let mut changed = bytes.clone();
        changed[at * 31 % bytes.len()] ^= 1;
        let path = signed.scene.store().join(manifest);
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, &changed).unwrap();
        let audited = signed.run(&["audit", "chain", "--public-key", &key, "--manifests"]).await.expect(4);
        assert!(audited.stdout.contains("object.digest"), "{}", audited.stdout);
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, bytes).unwrap();
    }
    signed.run(&["audit", "chain", "--public-key", &key, "--manifests"]).await.expect(0);
}

#[tokio::test]
async fn a_new_key_pair_is_one_that_openssl_reads_and_nothing_is_overwritten() {
    let folder = TempDir::new().unwrap();
    let words = ["keygen", "--private-key", "private.pem", "--public-key", "public.pem"];
    let made = alone(folder.path(), &words).await.expect(0).json();
    let private = folder.path().join("private.pem");
    assert_eq!(std::fs::metadata(&private).unwrap().permissions().mode() & 0o777, 0o600);
    let openssl = |words: &[&str]| {
        let output = Command::new("openssl").args(words).current_dir(folder.path()).output().unwrap();
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    let public = std::fs::read(folder.path().join("public.pem")).unwrap();
    assert_eq!(openssl(&["pkey", "-in", "private.pem", "-pubout"]), public);
    let der = openssl(&["pkey", "-pubin", "-in", "public.pem", "-outform", "DER"]);
    assert_eq!(made["key_id"], veriff_archive::model::digest::Sha256Digest::of(&der).to_string());

    // What one signs the other verifies, both ways.
    std::fs::write(folder.path().join("document"), b"bytes").unwrap();
    let key = SigningKey::from_pem(&std::fs::read_to_string(&private).unwrap()).unwrap();
    std::fs::write(folder.path().join("ours.txt"), key.sign(b"bytes")).unwrap();
    openssl(&["base64", "-d", "-A", "-in", "ours.txt", "-out", "ours"]);
    openssl(&["pkeyutl", "-verify", "-pubin", "-inkey", "public.pem", "-rawin", "-in", "document", "-sigfile", "ours"]);
    openssl(&["pkeyutl", "-sign", "-inkey", "private.pem", "-rawin", "-in", "document", "-out", "theirs"]);
    let theirs = String::from_utf8(openssl(&["base64", "-A", "-in", "theirs"])).unwrap();
    assert!(key.public().verifies(b"bytes", &theirs));

    let before = std::fs::read(&private).unwrap();
    alone(folder.path(), &words).await.expect(2);
    assert_eq!(std::fs::read(&private).unwrap(), before);
    // Nor is half a pair left behind.
    alone(folder.path(), &["keygen", "--private-key", "other.pem", "--public-key", "public.pem"]).await.expect(2);
    assert!(!folder.path().join("other.pem").exists());
    assert_eq!(std::fs::read(folder.path().join("public.pem")).unwrap(), public);
    let told =
        alone(folder.path(), &["--output", "text", "keygen", "--private-key", "c.pem", "--public-key", "d.pem"]).await;
    assert!(told.expect(0).stdout.starts_with("key "));
}

#[tokio::test]
async fn an_auditor_needs_neither_a_configuration_nor_a_ledger() {
    let folder = TempDir::new().unwrap();
    let store = folder.path().join("store");
    std::fs::create_dir(&store).unwrap();
    let mut records = Records::in_store(&store);
    records.run("default", &[plain_line("session-1")]);
    records.write_public_key(&folder.path().join("key.pem"));
    let url = format!("file://{}", store.display());
    alone(folder.path(), &["audit", "chain", "--store", &url, "--public-key", "key.pem"]).await.expect(0);
    assert!(!folder.path().join("ledger.db").exists());
    alone(folder.path(), &["audit", "chain", "--store", &url]).await.expect(0);
}
