//! Manifests: the JSON document that closes a session.
//!
//! Cumulative: each repeats all that earlier ones hold, so only the highest number counts. It is written last of all
//! objects of its session and carries Veriff's lists byte for byte, the evidence of what there was to archive.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};

use super::digest::{Checksum, Payload, Sha256Digest};
use super::key::ObjectKey;
use super::{ArchiveId, AttemptId, MediaId, MediaKind, RunId, SessionId};
use crate::clock::Timestamp;

/// The value of `schema` in a manifest.
pub const MANIFEST_SCHEMA: &str = "veriff-archive/manifest/v1";

/// The value of `schema` in `archive.json`.
pub const ARCHIVE_SCHEMA: &str = "veriff-archive/archive/v1";

/// The document that closes a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Manifest {
    /// Always `veriff-archive/manifest/v1`.
    pub schema: String,
    /// The archive it belongs to.
    pub archive_id: ArchiveId,
    /// The session.
    pub session_id: SessionId,
    /// The configured name of the integration.
    pub integration: String,
    /// Its number; the highest counts.
    pub sequence: u32,
    /// The manifest before it.
    pub previous: Option<PreviousManifest>,
    /// When this visit ended, by the store's clock.
    pub archived_at: Timestamp,
    /// The run that wrote it.
    pub run_id: RunId,
    /// When Veriff decided, if a request gave it.
    pub decided_at: Option<Timestamp>,
    /// Every listed item is archived, and every list was read.
    pub complete: bool,
    /// Nothing more is expected of this session.
    pub settled: bool,
    /// Set if Veriff does not have the session.
    pub absent: Option<Absent>,
    /// The attempts, oldest first, with their media; items of the session's own list are under `session`.
    pub attempts: Vec<ManifestAttempt>,
    /// Items that were listed and could not be archived.
    pub missing: Vec<MissingItem>,
    /// Bytes stored beside a key that other bytes had taken.
    pub conflicts: Vec<ConflictItem>,
    /// What Veriff answered on this visit.
    pub listings: Vec<Listing>,
    /// Sums over `attempts`.
    pub totals: Totals,
}

/// The place of the manifest before this one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct PreviousManifest {
    /// Its key.
    pub key: ObjectKey,
    /// Its version, on a versioned store.
    pub version_id: Option<String>,
    /// The digest of its bytes.
    pub sha256: Sha256Digest,
}

/// Veriff does not have the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Absent {
    /// 404 or 410.
    pub http_status: u16,
}

/// One attempt and its media.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ManifestAttempt {
    /// The attempt, or `session`.
    pub attempt_id: AttemptId,
    /// Its latest known status.
    pub status: Option<String>,
    /// When it was made, as listed.
    pub created_at: Option<Timestamp>,
    /// What was archived of it.
    pub media: Vec<ManifestMedia>,
}

/// One archived item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ManifestMedia {
    /// The media item.
    pub media_id: MediaId,
    /// What it is.
    pub kind: MediaKind,
    /// What it shows, as listed.
    pub context: Option<String>,
    /// Its object.
    pub key: ObjectKey,
    /// The object's version, on a versioned store.
    pub version_id: Option<String>,
    /// The object's length.
    pub size_bytes: u64,
    /// The digest of its bytes.
    pub sha256: Sha256Digest,
    /// The checksum that the store verified.
    pub checksum: Checksum,
    /// The digest of its sidecar.
    pub sidecar_sha256: Sha256Digest,
    /// The sidecar's version, on a versioned store.
    pub sidecar_version_id: Option<String>,
}

/// One item that was listed and could not be archived.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct MissingItem {
    /// The media item.
    pub media_id: MediaId,
    /// The attempt it belongs to.
    pub attempt_id: AttemptId,
    /// Why, as a stable code.
    pub code: String,
    /// The HTTP status Veriff gave for it, where that is the reason.
    pub http_status: Option<u16>,
}

/// Our bytes for a key that other bytes had taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ConflictItem {
    /// The media item.
    pub media_id: MediaId,
    /// Where our bytes are.
    pub key: ObjectKey,
    /// Their version, on a versioned store.
    pub version_id: Option<String>,
    /// Their digest.
    pub sha256: Sha256Digest,
    /// The digest of their sidecar; nothing in early manifests, and where a visit was cut short before it was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sidecar_sha256: Option<Sha256Digest>,
    /// That sidecar's version, on a versioned store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sidecar_version_id: Option<String>,
}

/// One answer of Veriff, byte for byte.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Listing {
    /// The path that was asked.
    pub path: String,
    /// When the answer came.
    pub fetched_at: Timestamp,
    /// Its HTTP status.
    pub http_status: u16,
    /// The digest of its body.
    pub sha256: Sha256Digest,
    /// The body, if it is UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// The body in base64, if it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_base64: Option<String>,
}

/// Sums over all attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Totals {
    /// How many items are archived.
    pub media: u64,
    /// How many bytes they have.
    pub bytes: u64,
}

/// `archive.json`: made once, names the archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ArchiveDocument {
    /// Always `veriff-archive/archive/v1`.
    pub schema: String,
    /// The id that ledger and manifests carry.
    pub archive_id: ArchiveId,
    /// When it was made, by the store's clock.
    pub created_at: Timestamp,
    /// The version of this program that made it.
    pub version: String,
}

impl Listing {
    /// Keeps an answer's body as text, or as base64 where it is not UTF-8.
    #[must_use]
    pub fn of(path: String, fetched_at: Timestamp, http_status: u16, body: &[u8]) -> Self {
        let text = std::str::from_utf8(body).ok();
        Self {
            path,
            fetched_at,
            http_status,
            sha256: Sha256Digest::of(body),
            body: text.map(str::to_owned),
            body_base64: text.is_none().then(|| BASE64.encode(body)),
        }
    }

    /// Hashes the body that is kept; nothing if none is, or it cannot be read.
    #[must_use]
    pub fn digest(&self) -> Option<Sha256Digest> {
        match (&self.body, &self.body_base64) {
            (Some(body), _) => Some(Sha256Digest::of(body.as_bytes())),
            (None, Some(body)) => BASE64.decode(body).ok().map(|body| Sha256Digest::of(&body)),
            (None, None) => None,
        }
    }
}

impl Manifest {
    /// Iterates over all archived items, attempt by attempt.
    pub fn media(&self) -> impl Iterator<Item = (&ManifestAttempt, &ManifestMedia)> {
        self.attempts.iter().flat_map(|attempt| attempt.media.iter().map(move |media| (attempt, media)))
    }

    /// Returns the earliest time that any list gives for the session.
    #[must_use]
    pub fn created_at(&self) -> Option<Timestamp> {
        self.attempts.iter().filter_map(|attempt| attempt.created_at).min()
    }

    /// Computes the sums over all archived items.
    #[must_use]
    pub fn sum(attempts: &[ManifestAttempt]) -> Totals {
        attempts
            .iter()
            .flat_map(|attempt| &attempt.media)
            .fold(Totals::default(), |sum, media| Totals { media: sum.media + 1, bytes: sum.bytes + media.size_bytes })
    }

    /// Returns the document as it is stored.
    #[must_use]
    pub fn to_payload(&self) -> Payload {
        document_payload(self)
    }

    /// Reads a stored manifest; nothing if it is not one of version 1.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice::<Self>(bytes).ok().filter(|manifest| manifest.schema == MANIFEST_SCHEMA)
    }
}

impl ArchiveDocument {
    /// Returns the document as it is stored.
    #[must_use]
    pub fn to_payload(&self) -> Payload {
        document_payload(self)
    }

    /// Reads a stored document; nothing if it is not one of version 1.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice::<Self>(bytes).ok().filter(|archive| archive.schema == ARCHIVE_SCHEMA)
    }
}

/// Renders a document as JSON with a final newline.
///
/// The documents of this program hold nothing that JSON cannot say (no maps with odd keys, no NaN), so it cannot fail.
pub(crate) fn document_payload<T: Serialize>(document: &T) -> Payload {
    let mut bytes =
        serde_json::to_vec(document).unwrap_or_else(|error| unreachable!("a document is plain JSON: {error}"));
    bytes.push(b'\n');
    Payload::of(bytes)
}
