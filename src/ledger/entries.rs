//! What the ledger is told of sessions, runs and audits, and what it says of them.

use std::fmt;

use async_trait::async_trait;

use super::columns::{run_columns, session_columns};
use super::{LedgerError, LineEntry, State};
use crate::clock::Timestamp;
use crate::error::Code;
use crate::model::digest::Sha256Digest;
use crate::model::key::ObjectKey;
use crate::model::manifest::Manifest;
use crate::model::request::SessionRequest;
use crate::model::{ArchiveId, AttemptId, MediaId, MediaKind, RunId};

/// Takes the ends of visits to sessions.
#[async_trait]
pub trait SessionLog: Send + Sync + fmt::Debug {
    /// Binds the ledger to an archive; the first one stays, so ask [`super::Survey::archive_id`] which it is.
    ///
    /// # Errors
    /// Retryable: the ledger cannot be written.
    async fn adopt_archive(&self, id: &ArchiveId) -> Result<(), LedgerError>;

    /// Takes the end of one visit to a session, in one transaction, and returns the state that now stands. A line of the
    /// entry is taken with it, once.
    ///
    /// May be repeated, and by several workers at once: what is known from a later manifest never goes back, see
    /// [`Standing::after`](crate::ledger::Standing::after).
    ///
    /// # Errors
    /// As [`SessionLog::adopt_archive`]; then nothing of the entry was taken, or all of it. [`LedgerError::RunClosed`]: the
    /// entry has a line and the run record is no longer open; nothing was taken, and it may be committed under another.
    async fn commit(&self, entry: &SessionEntry) -> Result<State, LedgerError>;

    /// Takes the ends of many visits in one transaction, as if they were committed one after another.
    ///
    /// # Errors
    /// As [`SessionLog::commit`]; then nothing of any entry was taken, or all of all.
    async fn commit_all(&self, entries: &[SessionEntry]) -> Result<(), LedgerError>;
}

/// The end of one visit to a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionEntry {
    /// What the input said.
    pub record: SessionRequest,
    /// The integration it was looked for in.
    pub integration: String,
    /// Where this visit leaves it. An archived one has a manifest.
    pub state: State,
    /// Why, if it is pending or failed.
    pub code: Option<Code>,
    /// The same for people; nothing about a person.
    pub message: Option<String>,
    /// When Veriff made the session, where its lists tell.
    pub upstream_created_at: Option<Timestamp>,
    /// When Veriff may delete its media, where that can be told.
    pub deadline_at: Option<Timestamp>,
    /// The newest manifest this visit knows.
    pub manifest: Option<ManifestRef>,
    /// Nothing is missing from that manifest.
    pub complete: bool,
    /// Nothing more is expected of the session.
    pub settled: bool,
    /// Every item of that manifest.
    pub media: Vec<MediaRow>,
    /// The run.
    pub run_id: RunId,
    /// When the visit ended.
    pub at: Timestamp,
    /// The session may still change: it goes into the backlog, or back into it, to come again at this time. Ends the lease
    /// that whoever commits may have on it.
    pub look_again_at: Option<Timestamp>,
    /// Who holds its lease, if that is not this run but the one its process began as.
    pub holder: Option<RunId>,
    /// What the run record says of it; nothing if the run keeps no record.
    pub line: Option<LineEntry>,
}

impl SessionEntry {
    /// Returns who may hold the session's lease.
    pub(super) fn holder(&self) -> &RunId {
        self.holder.as_ref().unwrap_or(&self.run_id)
    }
}

/// Where a manifest stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestRef {
    /// Its key.
    pub key: ObjectKey,
    /// Its version, on a versioned store.
    pub version_id: Option<String>,
    /// Its number.
    pub sequence: u32,
    /// The digest of its bytes.
    pub sha256: Sha256Digest,
}

/// One archived media item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaRow {
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

impl MediaRow {
    /// Returns every item that a manifest names.
    pub fn all_of(manifest: &Manifest) -> impl Iterator<Item = Self> {
        manifest.media().map(|(attempt, media)| Self {
            media_id: media.media_id.clone(),
            attempt_id: attempt.attempt_id.clone(),
            kind: media.kind,
            key: media.key.clone(),
            version_id: media.version_id.clone(),
            size_bytes: media.size_bytes,
            sha256: media.sha256,
        })
    }
}

/// What is known of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRow {
    /// What the inputs said; a later one fills gaps and replaces, never empties.
    pub record: SessionRequest,
    /// The integration of the last visit.
    pub integration: String,
    /// Where it stands.
    pub state: State,
    /// Why, if it is pending or failed; text, because a later version may know more codes than this one.
    pub code: Option<String>,
    /// The same for people.
    pub message: Option<String>,
    /// When Veriff made it, where that is known.
    pub upstream_created_at: Option<Timestamp>,
    /// When Veriff may delete its media, where that is known.
    pub deadline_at: Option<Timestamp>,
    /// The newest manifest known.
    pub manifest: Option<ManifestRef>,
    /// Nothing is missing from that manifest.
    pub complete: bool,
    /// Nothing more is expected of the session.
    pub settled: bool,
    /// How many media items are known to be archived.
    pub media: u64,
    /// How many bytes they have.
    pub bytes: u64,
    /// How often it was visited.
    pub visits: u64,
    /// The run of the last visit.
    pub run_id: RunId,
    /// When it was first visited, or added to the backlog.
    pub first_visited_at: Timestamp,
    /// When it was last visited.
    pub last_visited_at: Timestamp,
    /// Why a person closed it, if one did.
    pub accepted_reason: Option<String>,
}

// Statements that both engines know word for word.

pub(super) const SESSION: &str = concat!("SELECT ", session_columns!(), " FROM sessions WHERE session_id = $1");

pub(super) const LATEST_RUNS: &str =
    concat!("SELECT ", run_columns!(), " FROM runs ORDER BY started_at DESC, run_id DESC LIMIT $1");

pub(super) const LATEST_AUDITS: &str = "
    SELECT audit_id, audit, finished_at, summary FROM audits ORDER BY finished_at DESC, audit_id DESC LIMIT $1";

pub(super) const PUT_AUDIT: &str = "
    INSERT INTO audits (audit_id, audit, finished_at, summary) VALUES ($1, $2, $3, $4)
        ON CONFLICT (audit_id) DO UPDATE SET finished_at = excluded.finished_at, summary = excluded.summary";

pub(super) const FINISH_RUN: &str = "
    UPDATE runs SET finished_at = $2, exit_code = $3, archived = $4, unchanged = $5, absent = $6, failed = $7,
        pending = $8, media = $9, bytes = $10
    WHERE run_id = $1";
