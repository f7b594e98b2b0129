//! docs/verify-by-hand.md, done as it says: with openssl and Python, and no code of ours.

use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;
use veriff_archive::model::digest::Sha256Digest;
use veriff_archive::model::key::ObjectKey;
use veriff_archive::model::run::LineItem;
use veriff_archive::model::{AttemptId, MediaId, MediaKind};

use super::support::records::{Made, Records, plain_line, put};

/// A media object.
const OBJECT: &str = "sessions/session-5-4/attempt/media.jpg";

const SCRIPTS: [&str; 2] = ["check_run.py", "verify_run.py"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn page() -> String {
    std::fs::read_to_string(root().join("docs/verify-by-hand.md")).unwrap()
}

/// The blocks of the page that are typed, in their order.
fn typed() -> Vec<String> {
    let page = page();
    page.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

/// Types everything the page shows, but the names, which are those of an archive here, and this program's own command.
fn type_it(folder: &Path, run: &Made, before: &Made) -> Output {
    for script in SCRIPTS {
        std::fs::copy(root().join("tests/python").join(script), folder.join(script)).unwrap();
    }
    let run_folder = run.run_key.as_str().trim_end_matches("/run.json");
    let names = format!(
        "STORE=store\nKEY=key.pem\nRUN={run_folder}\nENTRY={}\nBEFORE={}\nOBJECT={OBJECT}\n",
        run.entry_key, before.entry_key
    );
    let blocks = typed().into_iter().skip(1).filter(|block| !block.starts_with("veriff-archive"));
    let text = format!("set -euo pipefail\n{names}{}", blocks.collect::<String>());
    Command::new("bash").current_dir(folder).arg("-c").arg(text).output().unwrap()
}

fn archive() -> (TempDir, [Made; 2]) {
    let folder = TempDir::new().unwrap();
    let store = folder.path().join("store");
    std::fs::create_dir(&store).unwrap();
    let mut records = Records::in_store(&store);
    let key = ObjectKey::from_store(OBJECT);
    put(&store, &key, b"a picture");
    let item = LineItem {
        media_id: MediaId::parse("media").unwrap(),
        attempt_id: AttemptId::parse("attempt").unwrap(),
        kind: MediaKind::Image,
        key,
        version_id: None,
        size_bytes: 9,
        sha256: Sha256Digest::of(b"a picture"),
    };
    let made = [3, 5].map(|sessions| {
        let lines = (0..sessions).map(|number| plain_line(&format!("session-{sessions}-{number}")));
        let mut lines: Vec<_> = lines.collect();
        lines.last_mut().unwrap().items.push(item.clone());
        records.run("default", &lines)
    });
    records.write_public_key(&folder.path().join("key.pem"));
    (folder, made)
}

#[test]
fn the_page_shows_the_scripts_as_they_are_tested() {
    let page = page();
    for script in SCRIPTS {
        let text = std::fs::read_to_string(root().join("tests/python").join(script)).unwrap();
        assert!(page.contains(&format!("```python\n{text}```")), "docs/verify-by-hand.md shows another {script}");
    }
    let core = std::fs::read_to_string(root().join("tests/python/check_run.py")).unwrap();
    let lines = core.lines().filter(|line| !line.trim().is_empty()).count();
    assert!(lines <= 30, "the core has {lines} lines");
}

#[test]
fn what_the_page_shows_succeeds_as_it_is_typed() {
    let (folder, [before, run]) = archive();
    let output = type_it(folder.path(), &run, &before);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(said.matches("Signature Verified Successfully").count(), 2, "{said}");
    assert!(said.contains("5 lines, 1 items, all as signed"), "{said}");
    assert!(said.contains(&run.entry_sha256.to_string()), "{said}");
}

#[test]
fn what_the_page_shows_fails_when_anything_it_looks_at_was_changed() {
    let (folder, [before, run]) = archive();
    let store = folder.path().join("store");
    let chunk = ObjectKey::from_store(run.run_key.as_str().replace("run.json", "sessions-000002.ndjson.gz"));
    let looked_at = [
        ObjectKey::archive(),
        before.entry_key.clone(),
        run.entry_key.clone(),
        run.entry_key.signature(),
        run.run_key.clone(),
        run.run_key.signature(),
        chunk,
        ObjectKey::from_store(OBJECT),
    ];
    for key in looked_at {
        let bytes = std::fs::read(store.join(key.as_str())).unwrap();
        let mut changed = bytes.clone();
        changed[bytes.len() / 2] ^= 1;
        put(&store, &key, &changed);
        assert!(!type_it(folder.path(), &run, &before).status.success(), "{key}");
        put(&store, &key, &bytes);
    }
    assert!(type_it(folder.path(), &run, &before).status.success());
}

#[test]
fn a_head_that_is_gone_is_missed_by_the_script_too() {
    let (folder, [_, run]) = archive();
    let verify = |head: &str| {
        let mut command = Command::new("python3");
        command.arg(root().join("tests/python/verify_run.py")).current_dir(folder.path());
        command.args(["store", "key.pem", head]).output().unwrap().status.success()
    };
    assert!(verify(&run.entry_sha256.to_string()));
    assert!(!verify(&"0".repeat(64)));
}
