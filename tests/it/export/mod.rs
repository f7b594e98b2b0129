//! Exports: whole bags that others can check, an event before the first byte, and nothing left out in silence.

mod bag;
mod event;
mod trouble;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use veriff_archive::model::digest::Sha256Digest;
use veriff_sim::World;

use crate::support::evidence::sha256;
use crate::support::program::{Deployment, Ended};
use crate::support::python;
use crate::support::scene::Scene;
use crate::support::stored;

const REASON: &str = "Anlass ZETA-4711 <b>&\"quoted\"</b>";

/// Archives a world into a directory.
async fn archived(world: World) -> Scene {
    let scene = Scene::of(world).await;
    scene.archive(&[]).await.expect(0);
    scene
}

/// Exports `sessions.txt`.
async fn exported(deployment: &Deployment, to: &str, more: &[&str]) -> Ended {
    let words = ["export", "--sessions", "sessions.txt", "--reason", REASON, "--to", to];
    deployment.run(words.into_iter().chain(more.iter().copied())).await
}

/// Checks a bag as others do; says what is wrong.
fn checked(bag: &Path) -> Result<(), String> {
    let output = Command::new(python::programs().join("bagit.py")).arg("--validate").arg(bag).output().unwrap();
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

/// Runs a few lines of Python that use the packages of the tests.
fn run_python(script: &str, arguments: &[&Path]) -> String {
    let output = Command::new(python::programs().join("python")).args(["-c", script]).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Every file of a bag by its path.
fn files(bag: &Path) -> BTreeMap<String, Vec<u8>> {
    stored::objects(bag)
}

/// What is there in a folder, hidden or not.
fn names(folder: &Path) -> BTreeSet<String> {
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Media and what lies beside them, by digest: what a bag holds of the evidence itself.
fn media_of(files: &BTreeMap<String, Vec<u8>>) -> BTreeSet<String> {
    let is_media = |path: &&String| {
        path.matches('/').count() == 3 && !path.ends_with(".meta.json") && !path.contains("/manifests/")
    };
    files.keys().filter(is_media).map(|path| sha256(&files[path])).collect()
}

/// The documents of events in a directory.
fn events(store: &Path) -> Vec<Value> {
    let objects = stored::objects(store);
    let events = objects.iter().filter(|(key, _)| key.starts_with("events/"));
    events.map(|(_, bytes)| serde_json::from_slice(bytes).unwrap()).collect()
}

/// Writes other bytes over an object of a directory, as someone with the right to could.
fn overwrite(path: &Path, bytes: &[u8]) {
    std::fs::remove_file(path).unwrap();
    std::fs::write(path, bytes).unwrap();
}

/// Holds every page of a bag to what is promised of it, and counts them.
fn check_pages(bag: &Path) -> usize {
    let files = files(bag);
    let pages: Vec<&String> = files.keys().filter(|path| path.ends_with("index.html")).collect();
    let mut linked: BTreeSet<PathBuf> = BTreeSet::new();
    for path in &pages {
        let page = String::from_utf8(files[*path].clone()).unwrap();
        let folder = Path::new(path).parent().unwrap();
        assert!(page.starts_with("<!DOCTYPE html>\n<html lang=\"en\">"), "{path}");
        assert!(page.contains("default-src &#x27;none&#x27;") || page.contains("default-src 'none'"), "{path}");
        for forbidden in ["<script", "http://", "https://", " onclick", "javascript:", "undefined", "<b>"] {
            assert!(!page.contains(forbidden), "{path} contains {forbidden}");
        }
        let style = page.split("<style>").nth(1).and_then(|rest| rest.split("</style>").next()).unwrap();
        let style = Sha256Digest::of(style.as_bytes()).to_base64();
        assert!(unescaped(&page).contains(&format!("style-src 'sha256-{style}'")), "{path}");
        assert_eq!(page.matches("<img ").count(), page.matches("alt=\"").count(), "{path}");
        for attribute in [" href=\"", " src=\""] {
            for link in page.split(attribute).skip(1).map(|rest| unescaped(rest.split('"').next().unwrap())) {
                if let Some(anchor) = link.strip_prefix('#') {
                    assert!(page.contains(&format!("id=\"{anchor}\"")), "{path} links to {link}");
                    continue;
                }
                let target = folder.join(&link);
                assert!(bag.join(&target).is_file(), "{path} links to {link}");
                linked.insert(bag.join(target).canonicalize().unwrap());
            }
        }
    }
    let payload = files.keys().filter(|path| path.starts_with("data/") && *path != "data/index.html");
    for path in payload {
        let place = bag.join(path).canonicalize().unwrap();
        assert!(linked.contains(&place), "no page leads to {path}");
    }
    pages.len()
}

fn unescaped(text: &str) -> String {
    text.replace("&#x2f;", "/").replace("&#x27;", "'").replace("&amp;", "&")
}
