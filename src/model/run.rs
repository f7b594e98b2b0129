//! Run records: what one run did, in chunks of lines, closed by a signed document and an entry in a chain.
//!
//! Each line describes one commit of a session. The record names every chunk by its digest and carries the Merkle root
//! over all lines; the entry names the record by its digest and the entry before it. So one signature represents every
//! item of a run, and one digest for every run of a group up to it.

use serde::{Deserialize, Serialize};

use super::digest::Sha256Digest;
use super::key::ObjectKey;
use super::{ArchiveId, AttemptId, MediaId, MediaKind, RunId, SessionId};
use crate::clock::Timestamp;

/// The value of `schema` in a run record.
pub const RUN_SCHEMA: &str = "veriff-archive/run/v1";

/// The value of `schema` in a line of a chunk.
pub const RUN_LINE_SCHEMA: &str = "veriff-archive/run-line/v1";

/// The value of `schema` in a chain entry.
pub const CHAIN_SCHEMA: &str = "veriff-archive/chain/v1";

/// The record of one run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct RunRecord {
    /// Always `veriff-archive/run/v1`.
    pub schema: String,
    /// The archive it belongs to.
    pub archive_id: ArchiveId,
    /// The digest of `archive.json`, which makes that document part of what is signed.
    pub archive_sha256: Option<Sha256Digest>,
    /// The run.
    pub run_id: RunId,
    /// The chain it is entered in.
    pub group: String,
    /// The version of the program.
    pub version: String,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended; of a run that was closed by another, when that one closed it.
    pub finished_at: Timestamp,
    /// How the process exited; nothing if it died.
    pub exit_code: Option<u8>,
    /// The run that wrote this record: the run itself, or one that found it dead.
    pub closed_by: RunId,
    /// Why it was closed: `finished`, `stopped`, or `lapsed` if it was found dead.
    pub closed_reason: ClosedReason,
    /// Who ran it, as the host says: `user@host`, or the pod.
    pub actor: String,
    /// Whom the store took it for, where that is known.
    pub store_principal: Option<String>,
    /// Where its sessions came from.
    pub source: RunSource,
    /// The configuration in force, secrets redacted.
    pub config: serde_json::Value,
    /// The digest of the canonical JSON (RFC 8785) of `config`.
    pub config_sha256: Sha256Digest,
    /// Sessions by outcome, media and bytes; of a run that died, computed from its lines.
    pub counts: RunCounts,
    /// Its chunks, in order.
    pub chunks: Vec<ChunkRef>,
    /// Items in all chunks.
    pub items: u64,
    /// The Merkle root (RFC 6962) over all lines of all chunks, in order.
    pub merkle_root: Sha256Digest,
    /// The least and greatest offset of the store's clock seen, where it has one.
    pub clock_offset_ms: Option<ClockOffset>,
    /// The key that signed it (SHA-256 of its DER form); nothing if the run is unsigned.
    pub key_id: Option<Sha256Digest>,
}

/// Why a run record was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClosedReason {
    /// The run came to its end.
    Finished,
    /// The run was stopped, met a limit or was refused.
    Stopped,
    /// The run was found dead.
    Lapsed,
}

/// Where the sessions of a run came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct RunSource {
    /// `file`, `stdin`, `s3`, `sqs` or `backlog`.
    pub kind: String,
    /// The digest of the whole input, where it was read to its end.
    pub sha256: Option<Sha256Digest>,
    /// How many records came from it; nothing if the run died.
    pub records: Option<u64>,
}

/// What a run did, by outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
pub struct RunCounts {
    /// Sessions with new evidence.
    pub archived: u64,
    /// Sessions of which all was there.
    pub unchanged: u64,
    /// Sessions that Veriff does not have.
    pub absent: u64,
    /// Sessions that failed, unreadable input lines included.
    pub failed: u64,
    /// Sessions released.
    pub pending: u64,
    /// Media items written.
    pub media: u64,
    /// Bytes of media written.
    pub bytes: u64,
}

/// One stored chunk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ChunkRef {
    /// Its key.
    pub key: ObjectKey,
    /// The digest of its stored, compressed bytes.
    pub sha256: Sha256Digest,
    /// How many lines it has.
    pub sessions: u64,
    /// How many items these name.
    pub items: u64,
}

/// How far the store's clock was from ours, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ClockOffset {
    /// The least offset, store minus ours.
    pub min: i64,
    /// The greatest.
    pub max: i64,
}

/// One line of a chunk: one commit of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct RunLine {
    /// Always `veriff-archive/run-line/v1`.
    pub schema: String,
    /// The session.
    pub session_id: SessionId,
    /// The integration it was looked for in.
    pub integration: String,
    /// How the visit ended: `archived`, `unchanged`, `absent`, `failed` or `pending`.
    pub outcome: String,
    /// Why, as a stable code.
    pub code: Option<String>,
    /// When it was committed.
    pub committed_at: Timestamp,
    /// When Veriff decided, as committed to the ledger: from the request or an earlier manifest.
    pub decided_at: Option<Timestamp>,
    /// When Veriff created the session, as committed to the ledger.
    pub upstream_created_at: Option<Timestamp>,
    /// When Veriff may delete its media, as committed to the ledger.
    pub deadline_at: Option<Timestamp>,
    /// Nothing is missing from the manifest; false without one. Nothing in lines of early versions, which have no
    /// times.
    pub complete: Option<bool>,
    /// Nothing more is expected of the session; false without a manifest. Nothing in lines of early versions.
    pub settled: Option<bool>,
    /// The newest manifest this visit knows.
    pub manifest: Option<LineManifest>,
    /// Every item of that manifest.
    pub items: Vec<LineItem>,
}

/// A manifest as a line names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct LineManifest {
    /// Its key.
    pub key: ObjectKey,
    /// Its version, on a versioned store.
    pub version_id: Option<String>,
    /// The digest of its bytes.
    pub sha256: Sha256Digest,
}

/// An item as a line names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct LineItem {
    /// The media item.
    pub media_id: MediaId,
    /// The attempt it belongs to.
    pub attempt_id: AttemptId,
    /// What it is.
    pub kind: MediaKind,
    /// Its object.
    pub key: ObjectKey,
    /// The object's version, on a versioned store.
    pub version_id: Option<String>,
    /// The object's length.
    pub size_bytes: u64,
    /// The digest of its bytes.
    pub sha256: Sha256Digest,
}

/// An entry of a chain: the record of one run, and the entry before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ChainEntry {
    /// Always `veriff-archive/chain/v1`.
    pub schema: String,
    /// The archive it belongs to.
    pub archive_id: ArchiveId,
    /// The chain.
    pub group: String,
    /// Its number; the first is 1 and none is left out.
    pub number: u32,
    /// The run.
    pub run_id: RunId,
    /// The run's record.
    pub run_key: ObjectKey,
    /// The digest of the record's bytes.
    pub run_sha256: Sha256Digest,
    /// The digest of the bytes of the entry before; nothing in the first.
    pub previous_sha256: Option<Sha256Digest>,
}

impl RunRecord {
    /// Reads a record; nothing if it is not one.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok().filter(|record: &Self| record.schema == RUN_SCHEMA)
    }
}

impl RunLine {
    /// Reads a line; nothing if it is not one.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok().filter(|line: &Self| line.schema == RUN_LINE_SCHEMA)
    }
}

impl ChainEntry {
    /// Reads an entry; nothing if it is not one.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok().filter(|entry: &Self| entry.schema == CHAIN_SCHEMA)
    }
}
