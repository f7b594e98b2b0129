//! Sidecars: the JSON document beside each media object.
//!
//! A sidecar says where the bytes came from, what Veriff said of them, what was checked and how long they are kept.
//! The first one written remains for ever; later visits use it if it describes the same bytes.

use serde::{Deserialize, Serialize};

use super::digest::{Checksum, Payload, Sha256Digest};
use super::key::ObjectKey;
use super::retention::{Mode, Period};
use super::{ArchiveId, AttemptId, MediaId, MediaKind, RunId, SessionId};
use crate::clock::Timestamp;

/// The value of `schema` in a sidecar.
pub const SIDECAR_SCHEMA: &str = "veriff-archive/sidecar/v1";

/// The document beside a media object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Sidecar {
    /// Always `veriff-archive/sidecar/v1`.
    pub schema: String,
    /// The archive it belongs to.
    pub archive_id: ArchiveId,
    /// The session.
    pub session_id: SessionId,
    /// The attempt, or `session` for an item of the session's own list.
    pub attempt_id: AttemptId,
    /// The media item.
    pub media_id: MediaId,
    /// The configured name of the integration it was fetched from.
    pub integration: String,
    /// What the item is.
    pub kind: MediaKind,
    /// What it shows, as listed.
    pub context: Option<String>,
    /// Its name, as listed.
    pub name: Option<String>,
    /// Length of a video in seconds, as listed.
    pub duration_seconds: Option<f64>,
    /// The object this document describes.
    pub object: SidecarObject,
    /// What Veriff said and sent; null if the object outlived it (`sidecar.reconstructed`).
    pub upstream: Option<Upstream>,
    /// How long the object is kept, and why.
    pub retention: SidecarRetention,
    /// Who archived it.
    pub archived_by: ArchivedBy,
    /// What was odd, and was archived all the same.
    pub anomalies: Vec<Anomaly>,
}

/// The stored object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct SidecarObject {
    /// Its key below the store's prefix.
    pub key: ObjectKey,
    /// Its length.
    pub size_bytes: u64,
    /// The digest of its bytes.
    pub sha256: Sha256Digest,
    /// The content type it was stored with.
    pub content_type: String,
    /// The checksum that the store itself verified.
    pub checksum: Checksum,
}

/// Where the bytes came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Upstream {
    /// The host that was asked.
    pub host: String,
    /// The path that was asked.
    pub path: String,
    /// The size in the list.
    pub listed_size_bytes: Option<u64>,
    /// The type in the list.
    pub listed_mimetype: Option<String>,
    /// The HTTP status of the answer.
    pub http_status: u16,
    /// The content type of the answer.
    pub content_type: Option<String>,
    /// The `Date` of the answer.
    pub date: Option<String>,
    /// When the answer began, by our clock.
    pub fetched_at: Timestamp,
    /// Whether the response signature was right.
    pub signature: SignatureCheck,
    /// The response signature itself, where there was one.
    pub signature_value: Option<String>,
}

/// What came of checking a response signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SignatureCheck {
    /// There was one and it is right.
    Match,
    /// There was none.
    Absent,
    /// There was one and it is wrong.
    Mismatch,
    /// Checking is switched off.
    Unchecked,
}

/// How long an object is kept, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct SidecarRetention {
    /// The name of the class.
    pub class: String,
    /// The lock the store holds; `none` where it cannot lock.
    pub mode: Mode,
    /// The keeping period of the class.
    pub period: Option<Period>,
    /// The legal ground.
    pub basis: String,
    /// The start of the period.
    pub counted_from: Timestamp,
    /// What the start is.
    pub counted_from_source: CountedFrom,
    /// The date of the first lock; null without one. Later extensions show on the object, not here.
    pub initial_retain_until: Option<Timestamp>,
}

/// What the keeping period is counted from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CountedFrom {
    /// The time of the decision.
    DecidedAt,
    /// The time of archiving.
    ArchivedAt,
}

/// Who archived an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ArchivedBy {
    /// The run.
    pub run_id: RunId,
    /// The version of this program.
    pub version: String,
}

/// Something odd about an item that was archived all the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Anomaly {
    /// A stable code, see [`anomaly`].
    pub code: String,
    /// The particulars, without anything about a person.
    pub detail: String,
}

/// Codes of anomalies.
pub mod anomaly {
    /// The object was found without a sidecar and is gone upstream.
    pub const RECONSTRUCTED: &str = "sidecar.reconstructed";
    /// The length differs from the listed size, twice.
    pub const SIZE: &str = "size.differs";
    /// The type of the answer differs from the listed one, twice.
    pub const TYPE: &str = "type.differs";
    /// The first bytes are not those of the listed type, twice.
    pub const MAGIC: &str = "magic.differs";
    /// The response signature is wrong, twice.
    pub const SIGNATURE: &str = "signature.mismatch";
    /// Other bytes were stored under the item's key.
    pub const CONFLICT: &str = "store.conflict";
}

impl Sidecar {
    /// Returns the document as it is stored.
    #[must_use]
    pub fn to_payload(&self) -> Payload {
        super::manifest::document_payload(self)
    }

    /// Reads a stored sidecar; nothing if it is not one of version 1.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice::<Self>(bytes).ok().filter(|sidecar| sidecar.schema == SIDECAR_SCHEMA)
    }
}
