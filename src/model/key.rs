//! Object keys: the only place where the layout of the store is written.
//!
//! Keys follow from ids alone, below the store's prefix, and never hold anything that names a person. The same place
//! reads them back, so that what a listing shows can be told apart without guessing.

use std::fmt;

use super::digest::Sha256Digest;
use super::{AttemptId, MediaId, SessionId};

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
        /// The key of the object it tells of.
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

    /// Where our bytes go when other bytes stand under this key.
    #[must_use]
    pub fn conflict(&self, sha256: Sha256Digest) -> Self {
        Self(format!("{}.conflict-{}", self.0, sha256.short(8)))
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

    /// Tells what this key holds if it lies below the session's prefix.
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
    let digits = name.strip_suffix(".json")?;
    let canonical = digits.parse().ok().filter(|n| *n > 0)?;
    (format!("{canonical:04}") == digits).then_some(canonical)
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
