//! Object keys: the only place where the layout of the store is written.
//!
//! Keys follow from ids alone, below the store's prefix, and never hold anything that names a person. The same place
//! reads them back, so that what a listing shows can be distinguished without guessing.

use std::fmt;

use super::digest::Sha256Digest;
use super::{AttemptId, MediaId, RunId, SessionId};
use crate::clock::Timestamp;

/// The prefix of all chains.
const CHAIN_PREFIX: &str = "runs/chain/";

/// The full name of an object below the store's prefix.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(transparent)]
pub struct ObjectKey(String);

/// What a key below a session's prefix holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionObject {
    /// A media object.
    Media {
        /// The attempt it belongs to.
        attempt_id: AttemptId,
        /// Its media id.
        media_id: MediaId,
    },
    /// The sidecar of the named object.
    Sidecar {
        /// The key of the object it describes.
        of: ObjectKey,
    },
    /// Our bytes for a key that other bytes had taken.
    Conflict,
    /// A manifest and its sequence number.
    Manifest(u32),
    /// A record of what was expired by plan.
    Expired(u32),
    /// Nothing this program writes.
    Unknown,
}

/// What any key of the store holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreObject {
    /// The document that names the archive.
    Archive,
    /// Something below a session's prefix.
    OfSession(SessionId, SessionObject),
    /// The record of a run.
    RunRecord(RunId),
    /// Its signature.
    RunSignature(RunId),
    /// A chunk of its lines, with its number.
    RunChunk(RunId, u32),
    /// An entry of a chain: its group and number.
    ChainEntry(String, u32),
    /// Its signature.
    ChainSignature(String, u32),
    /// An event document.
    Event(String),
    /// Nothing this program writes.
    Unknown,
}

impl ObjectKey {
    /// The document that names the archive.
    #[must_use]
    pub fn archive() -> Self {
        Self("archive.json".to_owned())
    }

    /// A media object.
    #[must_use]
    pub fn media(session: &SessionId, attempt: &AttemptId, media: &MediaId, extension: &str) -> Self {
        Self(format!("sessions/{session}/{attempt}/{media}.{extension}"))
    }

    /// A manifest of a session.
    #[must_use]
    pub fn manifest(session: &SessionId, sequence: u32) -> Self {
        Self(format!("sessions/{session}/manifest/{sequence:04}.json"))
    }

    /// The sidecar beside this object.
    #[must_use]
    pub fn sidecar(&self) -> Self {
        Self(format!("{}.meta.json", self.0))
    }

    /// Where our bytes go when other bytes are stored under this key.
    #[must_use]
    pub fn conflict(&self, sha256: Sha256Digest) -> Self {
        Self(format!("{}.conflict-{}", self.0, sha256.short(8)))
    }

    /// The record of a run; its folder is named by the day it began.
    #[must_use]
    pub fn run_record(run: &RunId, started_at: Timestamp) -> Self {
        Self(format!("{}{run}/run.json", dated("runs", started_at)))
    }

    /// A chunk of a run's lines; the first is 1.
    #[must_use]
    pub fn run_chunk(run: &RunId, started_at: Timestamp, number: u32) -> Self {
        Self(format!("{}{run}/sessions-{number:06}.ndjson.gz", dated("runs", started_at)))
    }

    /// An entry of a chain; the first is 1.
    #[must_use]
    pub fn chain_entry(group: &str, number: u32) -> Self {
        Self(format!("{}{number:08}.json", Self::chain_prefix(group)))
    }

    /// The prefix of all entries of a chain.
    #[must_use]
    pub fn chain_prefix(group: &str) -> String {
        format!("{CHAIN_PREFIX}{group}/")
    }

    /// An event document; its folder is named by its day.
    #[must_use]
    pub fn event(id: &str, at: Timestamp) -> Self {
        Self(format!("{}{id}.json", dated("events", at)))
    }

    /// The detached signature of this document.
    #[must_use]
    pub fn signature(&self) -> Self {
        Self(format!("{}.sig", self.0))
    }

    /// The prefix of all objects of a session.
    #[must_use]
    pub fn session_prefix(session: &SessionId) -> String {
        format!("sessions/{session}/")
    }

    /// Takes a key as a listing or a document gives it.
    #[must_use]
    pub fn from_store(key: impl Into<String>) -> Self {
        Self(key.into())
    }

    /// Returns the key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns what this key holds.
    #[must_use]
    pub fn read(&self) -> StoreObject {
        if self.0 == "archive.json" {
            return StoreObject::Archive;
        }
        if let Some(rest) = self.0.strip_prefix("sessions/") {
            let session = rest.split_once('/').and_then(|(session, _)| SessionId::parse(session).ok());
            return session.map_or(StoreObject::Unknown, |session| {
                let object = self.read_as(&session);
                StoreObject::OfSession(session, object)
            });
        }
        self.read_proof().unwrap_or(StoreObject::Unknown)
    }

    fn read_proof(&self) -> Option<StoreObject> {
        if let Some(rest) = self.0.strip_prefix(CHAIN_PREFIX) {
            let (group, name) = rest.split_once('/')?;
            let (name, is_signature) = name.strip_suffix(".sig").map_or((name, false), |name| (name, true));
            let number = number_of(name.strip_suffix(".json")?, 8)?;
            let group = group.to_owned();
            return Some(if is_signature {
                StoreObject::ChainSignature(group, number)
            } else {
                StoreObject::ChainEntry(group, number)
            });
        }
        if let Some(rest) = self.0.strip_prefix("runs/") {
            let (run, name) = below_date(rest)?.split_once('/')?;
            let run = RunId::parse(run).ok()?;
            return match name {
                "run.json" => Some(StoreObject::RunRecord(run)),
                "run.json.sig" => Some(StoreObject::RunSignature(run)),
                _ => {
                    let digits = name.strip_prefix("sessions-")?.strip_suffix(".ndjson.gz")?;
                    Some(StoreObject::RunChunk(run, number_of(digits, 6)?))
                }
            };
        }
        let name = below_date(self.0.strip_prefix("events/")?)?.strip_suffix(".json")?;
        (!name.contains('/')).then(|| StoreObject::Event(name.to_owned()))
    }

    /// Returns what this key holds if it lies below the session's prefix.
    #[must_use]
    pub fn read_as(&self, session: &SessionId) -> SessionObject {
        self.parse_below(session).unwrap_or(SessionObject::Unknown)
    }

    fn parse_below(&self, session: &SessionId) -> Option<SessionObject> {
        let rest = self.0.strip_prefix(&Self::session_prefix(session))?;
        let (folder, name) = rest.split_once('/')?;
        if name.contains('/') {
            return None;
        }
        match folder {
            "manifest" => return sequence_of(name).map(SessionObject::Manifest),
            "expired" => return sequence_of(name).map(SessionObject::Expired),
            _ => {}
        }
        let attempt_id = if folder == "session" { AttemptId::session() } else { AttemptId::parse(folder).ok()? };
        if self.0.ends_with(".meta.json") {
            let of = self.0.strip_suffix(".meta.json")?;
            return Some(SessionObject::Sidecar { of: Self(of.to_owned()) });
        }
        let (media, extension) = name.split_once('.')?;
        if let Some((_, digest)) = extension.split_once(".conflict-") {
            return (digest.len() == 8).then_some(SessionObject::Conflict);
        }
        if extension.contains('.') {
            return None;
        }
        Some(SessionObject::Media { attempt_id, media_id: MediaId::parse(media).ok()? })
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn sequence_of(name: &str) -> Option<u32> {
    number_of(name.strip_suffix(".json")?, 4)
}

/// Reads a number written with at least so many digits, and no more than it needs.
fn number_of(digits: &str, width: usize) -> Option<u32> {
    let number = digits.parse().ok().filter(|n| *n > 0)?;
    (format!("{number:0width$}") == digits).then_some(number)
}

/// A folder for each day.
fn dated(folder: &str, at: Timestamp) -> String {
    let day = at.to_string();
    let (date, _) = day.split_once('T').unwrap_or((&day, ""));
    format!("{folder}/{}/", date.replace('-', "/"))
}

/// Returns what is behind `yyyy/mm/dd/`.
fn below_date(rest: &str) -> Option<&str> {
    let mut rest = rest;
    for width in [4, 2, 2] {
        let (digits, below) = rest.split_once('/')?;
        if digits.len() != width || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        rest = below;
    }
    Some(rest)
}

/// Returns the extension for a listed type, given as a MIME type or as a bare file extension; `bin` if it is not known.
#[must_use]
pub fn extension_for(listed_type: Option<&str>) -> &'static str {
    let listed = listed_type.unwrap_or_default().trim().to_ascii_lowercase();
    let essence = listed.split(';').next().unwrap_or_default().trim().trim_start_matches('.');
    match essence {
        "image/jpeg" | "image/jpg" | "image/pjpeg" | "jpeg" | "jpg" => "jpg",
        "image/png" | "png" => "png",
        "image/webp" | "webp" => "webp",
        "image/heic" | "heic" => "heic",
        "image/heif" | "heif" => "heif",
        "application/pdf" | "pdf" => "pdf",
        "video/webm" | "webm" => "webm",
        "video/mp4" | "mp4" => "mp4",
        "application/json" | "json" => "json",
        _ => "bin",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ids() -> (SessionId, AttemptId, MediaId) {
        (SessionId::parse("s").unwrap(), AttemptId::parse("a").unwrap(), MediaId::parse("m").unwrap())
    }

    #[test]
    fn every_key_reads_back_as_what_it_is() {
        let (session, attempt_id, media_id) = ids();
        let media = ObjectKey::media(&session, &attempt_id, &media_id, "jpg");
        assert_eq!(media.as_str(), "sessions/s/a/m.jpg");
        assert_eq!(media.read_as(&session), SessionObject::Media { attempt_id, media_id });
        assert_eq!(media.sidecar().read_as(&session), SessionObject::Sidecar { of: media.clone() });
        let conflict = media.conflict(Sha256Digest::of(b"other"));
        assert_eq!(conflict.read_as(&session), SessionObject::Conflict);
        assert_eq!(conflict.sidecar().read_as(&session), SessionObject::Sidecar { of: conflict });
        let manifest = ObjectKey::manifest(&session, 12);
        assert_eq!(manifest.as_str(), "sessions/s/manifest/0012.json");
        assert_eq!(manifest.read_as(&session), SessionObject::Manifest(12));
        assert_eq!(ObjectKey::manifest(&session, 12_345).read_as(&session), SessionObject::Manifest(12_345));
    }

    #[test]
    fn every_key_of_a_proof_reads_back_as_what_it_is() {
        let run = RunId::parse("0192-a").unwrap();
        let at = "2026-11-25T06:45:32.000Z".parse().unwrap();
        let record = ObjectKey::run_record(&run, at);
        assert_eq!(record.as_str(), "runs/2026/11/25/0192-a/run.json");
        assert_eq!(record.read(), StoreObject::RunRecord(run.clone()));
        assert_eq!(record.signature().read(), StoreObject::RunSignature(run.clone()));
        let chunk = ObjectKey::run_chunk(&run, at, 12);
        assert_eq!(chunk.as_str(), "runs/2026/11/25/0192-a/sessions-000012.ndjson.gz");
        assert_eq!(chunk.read(), StoreObject::RunChunk(run, 12));
        let entry = ObjectKey::chain_entry("default", 7);
        assert_eq!(entry.as_str(), "runs/chain/default/00000007.json");
        assert_eq!(entry.read(), StoreObject::ChainEntry("default".to_owned(), 7));
        assert_eq!(entry.signature().read(), StoreObject::ChainSignature("default".to_owned(), 7));
        let event = ObjectKey::event("0193-e", at);
        assert_eq!(event.as_str(), "events/2026/11/25/0193-e.json");
        assert_eq!(event.read(), StoreObject::Event("0193-e".to_owned()));
        assert_eq!(ObjectKey::archive().read(), StoreObject::Archive);
        let (session, attempt, media) = ids();
        let object = SessionObject::Media { attempt_id: attempt.clone(), media_id: media.clone() };
        let media = ObjectKey::media(&session, &attempt, &media, "jpg");
        assert_eq!(media.read(), StoreObject::OfSession(session, object));
        for key in [
            "archive.json.bak",
            "runs/2026/11/25/0192-a/run.txt",
            "runs/2026/11/0192-a/run.json",
            "runs/chain/default/7.json",
            "runs/chain/default/00000000.json",
            "events/2026/11/25/a/b.json",
            "other",
        ] {
            assert_eq!(ObjectKey::from_store(key).read(), StoreObject::Unknown, "{key}");
        }
    }

    #[test]
    fn foreign_keys_are_unknown() {
        let (session, ..) = ids();
        for key in [
            "sessions/t/a/m.jpg",
            "sessions/s/a/b/m.jpg",
            "sessions/s/manifest/1.json",
            "sessions/s/manifest/0000.json",
            "sessions/s/manifest/00001.json",
            "sessions/s/m.jpg",
            "sessions/s/a/m",
            "sessions/s/a/m.jpg.bak",
        ] {
            assert_eq!(ObjectKey::from_store(key).read_as(&session), SessionObject::Unknown, "{key}");
        }
    }

    #[test]
    fn an_extension_follows_the_listed_type() {
        assert_eq!(extension_for(Some("image/JPEG")), "jpg");
        assert_eq!(extension_for(Some(".png")), "png");
        assert_eq!(extension_for(Some("video/webm; codecs=vp9")), "webm");
        assert_eq!(extension_for(Some("application/x-thing")), "bin");
        assert_eq!(extension_for(None), "bin");
    }

    proptest! {
        #[test]
        fn reading_never_panics(key in ".{0,80}") {
            let (session, ..) = ids();
            let _ = ObjectKey::from_store(format!("sessions/s/{key}")).read_as(&session);
        }
    }
}
