//! The evidence in a directory: everything that stands there, held against what the simulator serves.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;
use veriff_sim::{Kind, Media, World, media_bytes};

/// Every object of a store but the records of runs, which each run adds to.
pub(crate) fn objects(store: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut objects = everything(store);
    objects.retain(|key, _| !key.starts_with("runs/"));
    objects
}

/// Every file below a directory, by its path from there; empty if there is no directory.
pub(crate) fn everything(store: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![store.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries.map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else {
                let key = entry.path().strip_prefix(store).unwrap().display().to_string();
                found.insert(key, std::fs::read(entry.path()).unwrap());
            }
        }
    }
    found
}

/// Every manifest of a session, oldest first.
pub(crate) fn manifests(store: &Path, session: &str) -> Vec<Value> {
    let prefix = format!("sessions/{session}/manifest/");
    objects(store)
        .iter()
        .filter(|(key, _)| key.starts_with(&prefix))
        .map(|(_, bytes)| serde_json::from_slice(bytes).unwrap())
        .collect()
}

/// The newest manifest of a session.
#[track_caller]
pub(crate) fn newest_manifest(store: &Path, session: &str) -> Value {
    manifests(store, session).pop().unwrap_or_else(|| panic!("{session} has no manifest"))
}

/// The codes of the items that a manifest says are missing, by media id.
pub(crate) fn missing(manifest: &Value) -> BTreeMap<String, String> {
    let items = manifest["missing"].as_array().unwrap().iter();
    items.map(|item| (text(&item["media_id"]), text(&item["code"]))).collect()
}

/// The media of a manifest, by media id.
pub(crate) fn archived(manifest: &Value) -> BTreeMap<String, Value> {
    let attempts = manifest["attempts"].as_array().unwrap().iter();
    attempts
        .flat_map(|attempt| attempt["media"].as_array().unwrap())
        .map(|media| (text(&media["media_id"]), media.clone()))
        .collect()
}

/// The sidecar of a media item.
#[track_caller]
pub(crate) fn sidecar(store: &Path, media_id: &str) -> Value {
    let objects = objects(store);
    let mut own =
        objects.iter().filter(|(key, _)| key.contains(&format!("/{media_id}.")) && key.ends_with(".meta.json"));
    let (_, bytes) = own.next().unwrap_or_else(|| panic!("{media_id} has no sidecar"));
    assert!(own.next().is_none(), "{media_id} has two sidecars");
    serde_json::from_slice(bytes).unwrap()
}

/// The codes of a sidecar's anomalies.
pub(crate) fn anomalies(sidecar: &Value) -> Vec<String> {
    let anomalies = sidecar["anomalies"].as_array().unwrap().iter();
    anomalies.map(|anomaly| text(&anomaly["code"])).collect()
}

/// Holds a session against the world: every item that any list shows is in the newest manifest, with exactly its bytes.
#[track_caller]
pub(crate) fn assert_whole(store: &Path, world: &World, session: &str) {
    let manifest = newest_manifest(store, session);
    assert_eq!(manifest["complete"], true, "{session}: {manifest}");
    assert_eq!(manifest["missing"], serde_json::json!([]), "{session}");
    let archived = archived(&manifest);
    let objects = objects(store);
    for media in media_of(world, session) {
        let entry = archived.get(&media.id).unwrap_or_else(|| panic!("{session}: {} is not archived", media.id));
        let key = text(&entry["key"]);
        assert!(objects[&key] == media_bytes(media), "{key} has other bytes");
        assert_eq!(entry["sha256"], veriff_sim::media_sha256(media), "{key}");
        assert!(objects.contains_key(&format!("{key}.meta.json")), "{key}");
    }
}

/// Holds everything that stands as media against the world: its bytes are those of the media item it is named after.
#[track_caller]
pub(crate) fn assert_only_media(store: &Path, world: &World) {
    for (key, bytes) in objects(store) {
        let name = key.rsplit('/').next().unwrap();
        let is_document = key == "archive.json" || key.contains("/manifest/") || name.ends_with(".meta.json");
        let is_record = ["decision-", "person-", "watchlist-screening-"].iter().any(|record| name.starts_with(record));
        if is_document || is_record {
            continue;
        }
        let media =
            world.find_media(name.split('.').next().unwrap()).unwrap_or_else(|| panic!("{key} is no media item"));
        assert!(bytes == media_bytes(media), "{key} is not what Veriff has");
    }
}

/// The media items of a session that any list shows: chip data of an earlier attempt may stand in none.
pub(crate) fn media_of<'w>(world: &'w World, session: &str) -> impl Iterator<Item = &'w Media> {
    world.find(session).into_iter().flat_map(|session| {
        let latest = session.attempts.len().saturating_sub(1);
        let attempts = session.attempts.iter().enumerate();
        attempts.flat_map(move |(number, attempt)| {
            let is_hidden =
                move |media: &&Media| session.nfc_in_session_list_only && media.kind == Kind::Nfc && number != latest;
            attempt.media.iter().filter(move |media| !is_hidden(media))
        })
    })
}

/// A text in a document.
#[track_caller]
pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is not text")).to_owned()
}
