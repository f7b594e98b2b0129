//! An archive as anyone finds it, read from the bucket or the directory, and held against what the simulator serves.
//!
//! Deliberately knows nothing of how the program works: it reads every version of every object and computes digests,
//! checksums and dates by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use aws_sdk_s3::types::ChecksumMode;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures_util::{StreamExt as _, stream};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use veriff_archive::ledger::{self, State};
use veriff_archive::model::SessionId;
use veriff_archive::model::manifest::Manifest;
use veriff_archive::model::sidecar::Sidecar;
use veriff_sim::{Kind, Media, Simulator, World, media_bytes};

use super::program::Deployment;
use super::s3::{ADMIN, Bucket, S3Server, s3};

/// How many versions are read at once.
const READS_IN_FLIGHT: usize = 16;

/// Bodies up to this length are one PUT; longer ones have parts. Both numbers are written down in the format.
const SINGLE_PUT_MAX_BYTES: usize = 16 * 1024 * 1024;

/// The length of every part but the last.
const PART_SIZE_BYTES: usize = 8 * 1024 * 1024;

/// One version of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Object {
    pub(crate) version_id: Option<String>,
    pub(crate) bytes: Vec<u8>,
    /// Mode and date of its lock.
    pub(crate) lock: Option<(String, String)>,
    /// The SHA-256 checksum that the store shows, as it shows it.
    pub(crate) checksum: Option<String>,
}

/// Everything an archive holds, by key below the store's prefix; the versions of a key oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Evidence {
    pub(crate) objects: BTreeMap<String, Vec<Object>>,
    /// The records of runs, which every run adds to.
    pub(crate) runs: BTreeMap<String, Vec<Object>>,
}

/// An item that some list of the simulated service shows.
#[derive(Debug, Clone)]
pub(crate) struct Expected {
    pub(crate) session_id: String,
    pub(crate) key: String,
    pub(crate) media: Media,
}

impl Evidence {
    /// Reads every version of every object of a bucket, below the prefix that deployments use.
    pub(crate) async fn of_bucket(bucket: &Bucket) -> Self {
        Self::of_bucket_on(s3().await, bucket).await
    }

    /// The same of a bucket on a server of its own.
    pub(crate) async fn of_bucket_on(server: &S3Server, bucket: &Bucket) -> Self {
        let client = server.client(ADMIN);
        let mut evidence = Self::default();
        let versions = bucket.versions().await;
        let mut read = stream::iter(versions)
            .map(|version| {
                let client = client.clone();
                async move {
                    let answer = client
                        .get_object()
                        .bucket(&bucket.name)
                        .key(&version.key)
                        .version_id(&version.id)
                        .checksum_mode(ChecksumMode::Enabled)
                        .send()
                        .await
                        .expect("every listed version can be read");
                    let mode = answer.object_lock_mode().map(|mode| mode.as_str().to_owned());
                    let until = answer.object_lock_retain_until_date().map(|date| {
                        let until = jiff::Timestamp::from_second(date.secs()).expect("a date");
                        assert_eq!(date.subsec_nanos(), 0, "{}", version.key);
                        until.to_string()
                    });
                    let object = Object {
                        // What a bucket without versions calls its only one.
                        version_id: Some(version.id).filter(|id| id != "null"),
                        lock: mode.zip(until),
                        checksum: answer.checksum_sha256().map(str::to_owned),
                        bytes: answer.body.collect().await.expect("the body is whole").to_vec(),
                    };
                    (version.key, object)
                }
            })
            .buffered(READS_IN_FLIGHT);
        while let Some((key, object)) = read.next().await {
            let key = key.strip_prefix("archive/").unwrap_or_else(|| panic!("{key} is outside the prefix"));
            // The listing gives the newest version first.
            evidence.place_of(key).insert(0, object);
        }
        evidence
    }

    /// Reads every object of a directory; drafts, which are no objects, are left out.
    pub(crate) fn of_directory(root: &Path) -> Self {
        let mut evidence = Self::default();
        if root.exists() {
            evidence.walk(root, "");
        }
        evidence
    }

    fn place_of(&mut self, key: &str) -> &mut Vec<Object> {
        let objects = if key.starts_with("runs/") { &mut self.runs } else { &mut self.objects };
        objects.entry(key.to_owned()).or_default()
    }

    /// The first version of every object, run records included.
    pub(crate) fn first_versions(&self) -> BTreeMap<String, Vec<u8>> {
        let all = self.objects.iter().chain(&self.runs);
        all.map(|(key, versions)| (key.clone(), versions[0].bytes.clone())).collect()
    }

    fn walk(&mut self, directory: &Path, prefix: &str) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            if name.starts_with('.') {
                continue;
            }
            let key = format!("{prefix}{name}");
            if entry.file_type().unwrap().is_dir() {
                self.walk(&entry.path(), &format!("{key}/"));
            } else {
                let object = Object {
                    version_id: None,
                    bytes: std::fs::read(entry.path()).unwrap(),
                    lock: None,
                    checksum: None,
                };
                self.place_of(&key).push(object);
            }
        }
    }

    /// Returns the archive's version of a key, which is the oldest.
    pub(crate) fn object(&self, key: &str) -> Option<&Object> {
        self.objects.get(key)?.first()
    }

    /// Reads a document.
    #[track_caller]
    pub(crate) fn json(&self, key: &str) -> Value {
        let object = self.object(key).unwrap_or_else(|| panic!("{key} is not there"));
        serde_json::from_slice(&object.bytes).unwrap_or_else(|error| panic!("{key}: {error}"))
    }

    /// Returns the keys of the media objects, conflicts apart.
    pub(crate) fn media_keys(&self) -> BTreeSet<&str> {
        let keys = self.objects.keys().map(String::as_str);
        keys.filter(|key| {
            key.starts_with("sessions/")
                && !key.ends_with(".meta.json")
                && !key.contains(".conflict-")
                && !key.contains("/manifest/")
        })
        .collect()
    }

    /// Returns the keys of the manifests of a session, in their order.
    pub(crate) fn manifest_keys(&self, session_id: &str) -> Vec<&str> {
        let prefix = format!("sessions/{session_id}/manifest/");
        let keys = self.objects.keys().map(String::as_str);
        keys.filter(|key| key.starts_with(&prefix)).collect()
    }

    /// Reads the newest manifest of a session.
    #[track_caller]
    pub(crate) fn manifest(&self, session_id: &str) -> Value {
        let keys = self.manifest_keys(session_id);
        let newest = keys.last().unwrap_or_else(|| panic!("{session_id} has no manifest"));
        self.json(newest)
    }

    /// Fails unless every key has one version.
    #[track_caller]
    pub(crate) fn expect_one_version_each(&self) {
        for (key, objects) in self.objects.iter().chain(&self.runs) {
            assert_eq!(objects.len(), 1, "{key}");
        }
    }

    /// Fails unless every manifest that stands names only objects that stand, with the bytes it says.
    #[track_caller]
    pub(crate) fn expect_no_false_manifest(&self) {
        for key in self.objects.keys().filter(|key| key.contains("/manifest/")) {
            let manifest = self.json(key);
            for media in media_of(&manifest) {
                let object = self.named(&media["key"], &media["version_id"]);
                assert_eq!(media["sha256"], sha256(&object.bytes), "{key}: {media}");
                assert_eq!(media["size_bytes"], object.bytes.len(), "{key}: {media}");
                let sidecar = format!("{}.meta.json", media["key"].as_str().unwrap());
                let sidecar = self.named(&sidecar.into(), &media["sidecar_version_id"]);
                assert_eq!(media["sidecar_sha256"], sha256(&sidecar.bytes), "{key}: {media}");
            }
        }
    }

    /// Fails unless every session that the ledger calls archived has the manifest that it names.
    pub(crate) async fn expect_no_false_ledger(&self, deployment: &Deployment, session_ids: &[String]) {
        let url = format!("sqlite://{}", deployment.path("ledger.db").display());
        if !ledger::exists(&url).await.unwrap() {
            return;
        }
        let ledger = ledger::open(&url).await.unwrap();
        for id in session_ids {
            let row = ledger.session(&SessionId::parse(id).unwrap()).await.unwrap();
            let Some(row) = row.filter(|row| row.state == State::Archived) else {
                continue;
            };
            let manifest = row.manifest.expect("an archived session has a manifest");
            let object = self
                .objects
                .get(manifest.key.as_str())
                .and_then(|versions| versions.iter().find(|object| object.version_id == manifest.version_id))
                .unwrap_or_else(|| panic!("the ledger calls {id} archived, and its manifest is not there"));
            assert_eq!(sha256(&object.bytes), manifest.sha256.to_string(), "{id}");
        }
    }

    #[track_caller]
    fn named(&self, key: &Value, version_id: &Value) -> &Object {
        let versions = self.objects.get(key.as_str().unwrap());
        let versions = versions.unwrap_or_else(|| panic!("{key} is named and not there"));
        let named = |object: &&Object| object.version_id.as_deref() == version_id.as_str();
        versions.iter().find(named).unwrap_or_else(|| panic!("{key} is named with a version that is not there"))
    }

    /// Fails unless the archive holds every item that the simulator lists, byte for byte and once, and nothing else;
    /// with sidecars and manifests that parse and agree.
    #[track_caller]
    pub(crate) fn expect_whole(&self, simulator: &Simulator) {
        let expected = listed(simulator);
        let keys: BTreeSet<&str> = expected.iter().map(|item| item.key.as_str()).collect();
        assert_eq!(self.media_keys(), keys);
        let archive = self.json("archive.json");
        for item in &expected {
            self.expect_item(item, &archive["archive_id"]);
        }
        for session_id in simulator.world().session_ids() {
            self.expect_manifest(&session_id, &expected, &archive["archive_id"]);
        }
        self.expect_no_false_manifest();
    }

    #[track_caller]
    fn expect_item(&self, item: &Expected, archive_id: &Value) {
        let object = self.object(&item.key).unwrap();
        assert!(object.bytes == media_bytes(&item.media), "the bytes of {} differ", item.key);
        let key = format!("{}.meta.json", item.key);
        let text = &self.object(&key).unwrap_or_else(|| panic!("{key} is not there")).bytes;
        assert!(Sidecar::parse(text).is_some(), "{key}");
        let sidecar = self.json(&key);
        assert_eq!(sidecar["schema"], "veriff-archive/sidecar/v1");
        assert_eq!(sidecar["archive_id"], *archive_id);
        assert_eq!(sidecar["session_id"], *item.session_id);
        assert_eq!(sidecar["media_id"], *item.media.id);
        assert_eq!(sidecar["object"]["key"], *item.key);
        assert_eq!(sidecar["object"]["sha256"], sha256(&object.bytes));
        assert_eq!(sidecar["object"]["size_bytes"], object.bytes.len());
        let kind = match item.media.kind {
            Kind::Image => "image",
            Kind::Video => "video",
            Kind::Nfc => "nfc",
        };
        assert_eq!(sidecar["kind"], kind);
        assert_eq!(sidecar["context"].as_str(), item.media.context.as_deref());
        assert_eq!(sidecar["duration_seconds"].as_f64(), item.media.duration);
        // A directory has no parts to tell of.
        let in_parts = object.bytes.len() > SINGLE_PUT_MAX_BYTES && object.version_id.is_some();
        let checksum = if in_parts { composite(&object.bytes) } else { BASE64.encode(Sha256::digest(&object.bytes)) };
        let kind = if in_parts { "composite" } else { "full" };
        assert_eq!(sidecar["object"]["checksum"]["type"], kind, "{key}");
        assert_eq!(sidecar["object"]["checksum"]["value"], *checksum, "{key}");
        if let Some(shown) = &object.checksum {
            assert_eq!(*shown, checksum, "{key}");
        }
    }

    #[track_caller]
    fn expect_manifest(&self, session_id: &str, expected: &[Expected], archive_id: &Value) {
        for key in self.manifest_keys(session_id) {
            assert!(Manifest::parse(&self.object(key).unwrap().bytes).is_some(), "{key}");
        }
        let manifest = self.manifest(session_id);
        assert_eq!(manifest["schema"], "veriff-archive/manifest/v1");
        assert_eq!(manifest["archive_id"], *archive_id);
        assert_eq!(manifest["session_id"], *session_id);
        assert_eq!(manifest["complete"], true, "{session_id}");
        let items: Vec<&Expected> = expected.iter().filter(|item| item.session_id == session_id).collect();
        let named: BTreeSet<&str> = media_of(&manifest).map(|media| media["key"].as_str().unwrap()).collect();
        assert_eq!(named, items.iter().map(|item| item.key.as_str()).collect());
        assert_eq!(media_of(&manifest).count(), named.len(), "{session_id} names an item twice");
        assert_eq!(manifest["totals"]["media"], named.len());
        let bytes: u64 = items.iter().map(|item| item.media.size_bytes).sum();
        assert_eq!(manifest["totals"]["bytes"], bytes);
        for attempt in manifest["attempts"].as_array().unwrap() {
            let id = attempt["attempt_id"].as_str().unwrap();
            for media in attempt["media"].as_array().unwrap() {
                let key = media["key"].as_str().unwrap();
                assert!(key.starts_with(&format!("sessions/{session_id}/{id}/")), "{key}");
                let sidecar = self.json(&format!("{key}.meta.json"));
                assert_eq!(sidecar["attempt_id"], id);
                assert_eq!(sidecar["object"]["checksum"], media["checksum"]);
                assert_eq!(sidecar["kind"], media["kind"]);
            }
        }
    }

    /// Fails unless every object of a session is locked as asked until the calendar date so many years after its
    /// period began, and its manifests as long as the longest of them.
    #[track_caller]
    pub(crate) fn expect_locks(&self, mode: &str, years: i16) {
        for (key, objects) in self.objects.iter().filter(|(key, _)| key.starts_with("sessions/")) {
            let due = if key.contains("/manifest/") {
                let manifest = self.json(key);
                media_of(&manifest).map(|media| self.due_of(media["key"].as_str().unwrap(), years)).max()
            } else {
                Some(self.due_of(key.trim_end_matches(".meta.json"), years))
            };
            let Some(due) = due else { continue };
            for object in objects {
                assert_eq!(object.lock, Some((mode.to_owned(), due.clone())), "{key}");
            }
        }
    }

    /// Computes the lock date of a media object from what its sidecar says the period is counted from.
    #[track_caller]
    pub(crate) fn due_of(&self, media_key: &str, years: i16) -> String {
        let sidecar = self.json(&format!("{media_key}.meta.json"));
        let due = years_on(sidecar["retention"]["counted_from"].as_str().unwrap(), years);
        assert_eq!(sidecar["retention"]["initial_retain_until"], due.replace('Z', ".000Z"));
        due
    }
}

/// Makes up a world of small media in which every session lists some: one without is a failure of its own.
pub(crate) fn small_world(seed: u64, sessions: usize) -> World {
    let make = |seed| {
        World::builder(seed)
            .sessions(sessions)
            .image_bytes(2_000..=40_000)
            .video_bytes(50_000..=200_000)
            .nfc_bytes(1_000..=8_000)
            .build()
    };
    let is_full = |world: &World| {
        let mut sessions = world.sessions().iter();
        sessions.all(|session| session.attempts.iter().any(|attempt| !attempt.media.is_empty()))
    };
    (0..100).map(|more| make(seed * 100 + more)).find(is_full).unwrap()
}

/// Lists what the simulator's lists show: each item once, under the key it must have.
pub(crate) fn listed(simulator: &Simulator) -> Vec<Expected> {
    let world = simulator.world();
    let mut listed: Vec<Expected> = Vec::new();
    for session in world.sessions() {
        let attempts: Vec<_> = session.visible_attempts().collect();
        for (index, attempt) in attempts.iter().enumerate() {
            for media in &attempt.media {
                let only_there = media.kind == Kind::Nfc && session.nfc_in_session_list_only;
                let is_known = listed.iter().any(|item| item.media.id == media.id);
                // The session's own list shows its latest attempt only.
                if is_known || (only_there && index + 1 < attempts.len()) {
                    continue;
                }
                let folder = if only_there { "session" } else { &attempt.id };
                let extension = extension(&media.mimetype);
                listed.push(Expected {
                    session_id: session.id.clone(),
                    key: format!("sessions/{}/{folder}/{}.{extension}", session.id, media.id),
                    media: media.clone(),
                });
            }
        }
    }
    listed
}

fn extension(mimetype: &str) -> &'static str {
    match mimetype {
        "image/jpeg" | "jpg" => "jpg",
        "image/png" => "png",
        "image/webp" => "webp",
        "image/heic" => "heic",
        "application/pdf" => "pdf",
        "video/webm" => "webm",
        "video/mp4" => "mp4",
        "application/json" => "json",
        _ => "bin",
    }
}

/// Iterates over the items that a manifest names.
pub(crate) fn media_of(manifest: &Value) -> impl Iterator<Item = &Value> {
    let attempts = manifest["attempts"].as_array().unwrap();
    attempts.iter().flat_map(|attempt| attempt["media"].as_array().unwrap())
}

/// Hashes bytes, as hex.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// Computes the checksum that S3 must show of an object in parts: the digest of their digests, and how many there are.
fn composite(bytes: &[u8]) -> String {
    let parts: Vec<_> = bytes.chunks(PART_SIZE_BYTES).map(Sha256::digest).collect();
    let joined: Vec<u8> = parts.iter().flat_map(|digest| digest.iter().copied()).collect();
    format!("{}-{}", BASE64.encode(Sha256::digest(&joined)), parts.len())
}

/// Moves a time so many calendar years on, 29 February to 1 March, and up to the next midnight.
pub(crate) fn years_on(time: &str, years: i16) -> String {
    let (date, time_of_day) = time.split_once('T').unwrap();
    let date: jiff::civil::Date = date.parse().unwrap();
    let moved = jiff::civil::Date::new(date.year() + years, date.month(), date.day());
    let moved = moved.unwrap_or_else(|_| jiff::civil::Date::new(date.year() + years, 3, 1).unwrap());
    let is_midnight = time_of_day.chars().all(|c| matches!(c, '0' | ':' | '.' | 'Z'));
    let day = if is_midnight { moved } else { moved.tomorrow().unwrap() };
    format!("{day}T00:00:00Z")
}
