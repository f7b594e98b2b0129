//! Runs: what the ledger keeps of a run's record until it stands in the store, and where it stands then.
//!
//! Lines wait here until their chunk is stored, so that a run that dies loses none: another one closes its record. Who may
//! write is decided by one column: the run itself while its record is open, afterwards whoever claimed the closing. A claim
//! lapses; each step may therefore be repeated, by anyone, and what was written down first counts.

use std::fmt;

use async_trait::async_trait;

use super::columns::closed_record_columns;
use super::{LedgerError, RunCounts};
use crate::clock::Timestamp;
use crate::model::RunId;
use crate::model::digest::Sha256Digest;
use crate::model::key::ObjectKey;
use crate::model::run::ChunkRef;

/// Takes what is known of runs and their records, and how audits ended.
#[async_trait]
pub trait RunLog: Send + Sync + fmt::Debug {
    /// Notes that a run began.
    ///
    /// # Errors
    /// As [`super::SessionLog::adopt_archive`].
    async fn start_run(&self, run: &RunStart) -> Result<(), LedgerError>;

    /// Notes how a run ended; repeating it replaces what was noted.
    ///
    /// # Errors
    /// As [`super::SessionLog::adopt_archive`].
    async fn finish_run(&self, run: &RunFinish) -> Result<(), LedgerError>;

    /// Renews the heartbeat of a run; false if its record is no longer open.
    ///
    /// # Errors
    /// As [`super::SessionLog::adopt_archive`].
    async fn beat(&self, run_id: &RunId, at: Timestamp) -> Result<bool, LedgerError>;

    /// Notes a chunk that stands in the store and drops the lines it holds, in one transaction; false if somebody else
    /// writes the record by now, or has noted this chunk.
    ///
    /// # Errors
    /// As [`super::SessionLog::adopt_archive`].
    async fn note_chunk(&self, entry: &ChunkEntry) -> Result<bool, LedgerError>;

    /// Claims the closing of a run's record: a run that of its own, anyone that of a run without a heartbeat, or without a
    /// step of whoever claimed it, since `lapsed_before`. Returns whether `by` has it now. No two have it at once.
    ///
    /// # Errors
    /// As [`super::SessionLog::adopt_archive`].
    async fn claim_closing(
        &self,
        run_id: &RunId,
        by: &RunId,
        at: Timestamp,
        lapsed_before: Timestamp,
    ) -> Result<bool, LedgerError>;

    /// Writes a run's record down before it goes into the store, and returns the one that was written down first; nothing
    /// if `by` may not write it.
    ///
    /// # Errors
    /// As [`super::SessionLog::adopt_archive`].
    async fn note_document(
        &self,
        run_id: &RunId,
        by: &RunId,
        document: &SignedText,
    ) -> Result<Option<SignedText>, LedgerError>;

    /// Writes down, before the first attempt, the lowest number of the chain that may hold a run's record, and returns the
    /// one that was written down first; nothing if `by` may not write it.
    ///
    /// # Errors
    /// As [`super::SessionLog::adopt_archive`].
    async fn note_chain_from(&self, run_id: &RunId, by: &RunId, number: u32) -> Result<Option<u32>, LedgerError>;

    /// Notes that a run's record stands in the store; false if `by` may not write it.
    ///
    /// # Errors
    /// As [`super::SessionLog::adopt_archive`].
    async fn close_record(&self, run_id: &RunId, by: &RunId, closed: &ClosedRecord) -> Result<bool, LedgerError>;

    /// Gives up the record of a run that wrote nothing into the store, with the lines that wait for it.
    ///
    /// # Errors
    /// As [`super::SessionLog::adopt_archive`].
    async fn forgo_record(&self, run_id: &RunId) -> Result<(), LedgerError>;

    /// Takes a run whose record stands in the store, entered in its chain. Of one that this ledger knows and does not hold
    /// as closed, its record is closed, and the lines and chunks that it was to be made of are dropped; how the run ended
    /// is taken where that is not known.
    ///
    /// # Errors
    /// As [`super::SessionLog::adopt_archive`].
    async fn adopt_run(&self, run: &ClosedRun) -> Result<Adopted, LedgerError>;

    /// Notes how an audit ended; repeating it replaces what was noted.
    ///
    /// # Errors
    /// As [`super::SessionLog::adopt_archive`].
    async fn note_audit(&self, audit: &AuditRow) -> Result<(), LedgerError>;
}

/// A run that begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunStart {
    /// The run.
    pub run_id: RunId,
    /// When it began.
    pub started_at: Timestamp,
    /// The version of this program.
    pub version: String,
    /// The kind of its source, such as `file`.
    pub source_kind: String,
    /// Where it archives to; a store URL holds no secret.
    pub store_url: String,
    /// What its record will say of it that only the run knows, as JSON. With one its record is open; without, it has none.
    pub draft: Option<String>,
}

/// A run that ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunFinish {
    /// The run.
    pub run_id: RunId,
    /// When it ended.
    pub finished_at: Timestamp,
    /// How the process exits.
    pub exit_code: u8,
    /// What it did.
    pub counts: RunCounts,
}

/// How an audit ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRow {
    /// The audit's own id.
    pub audit_id: String,
    /// Which audit.
    pub audit: String,
    /// When it ended.
    pub finished_at: Timestamp,
    /// Its summary, as JSON.
    pub summary: String,
}

/// A run whose record is closed: how it ended, and where its record stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClosedRun {
    /// The run.
    pub run_id: RunId,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended; nothing if it died.
    pub finished_at: Option<Timestamp>,
    /// How the process exited; nothing if it died.
    pub exit_code: Option<u8>,
    /// The version of the program.
    pub version: String,
    /// The kind of its source.
    pub source_kind: String,
    /// Where it archived to.
    pub store_url: String,
    /// What it did.
    pub counts: RunCounts,
    /// Where its record stands.
    pub record: ClosedRecord,
}

/// A line that goes into a run's record with the commit of its session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineEntry {
    /// Its number in the run; the first is 1, and none is left out.
    pub number: u64,
    /// The line as it will stand in its chunk, without a newline.
    pub text: String,
    /// How many media items this visit wrote.
    pub media: u64,
    /// How many bytes these have.
    pub bytes: u64,
}

/// How far the record of a run has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordState {
    /// It has none: it is of an earlier version, or wrote nothing into a store that is no archive yet.
    None,
    /// The run is at work, or died.
    Open,
    /// Somebody closes it, or died over it.
    Closing,
    /// It stands in the store.
    Closed,
}

impl RecordState {
    /// Returns the text that the ledger holds.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Open => "open",
            Self::Closing => "closing",
            Self::Closed => "closed",
        }
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        [Self::None, Self::Open, Self::Closing, Self::Closed].into_iter().find(|state| state.as_str() == text)
    }
}

/// What is known of a run's record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordRow {
    /// The run.
    pub run_id: RunId,
    /// When it began.
    pub started_at: Timestamp,
    /// The version of the program.
    pub version: String,
    /// The kind of its source.
    pub source_kind: String,
    /// How far it has come.
    pub state: RecordState,
    /// What only the run itself knew, as JSON.
    pub draft: Option<String>,
    /// The sums over all lines in chunks, as JSON; nothing before the first chunk.
    pub sums: Option<String>,
    /// How many lines stand in chunks.
    pub lines: u64,
    /// How many chunks there are.
    pub chunks: u32,
    /// The record as it goes into the store, once it was written down.
    pub document: Option<SignedText>,
    /// The lowest number of the chain that may hold it already.
    pub chain_from: Option<u32>,
    /// Where it stands, once it is closed.
    pub closed: Option<ClosedRecord>,
}

/// A document and its signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedText {
    /// The document, byte for byte.
    pub text: String,
    /// Its signature in base64; nothing if it is unsigned.
    pub signature: Option<String>,
}

/// Where a record stands and is entered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClosedRecord {
    /// The record's key.
    pub key: ObjectKey,
    /// The digest of its bytes.
    pub sha256: Sha256Digest,
    /// Its chain.
    pub group: String,
    /// Its number there.
    pub number: u32,
    /// The digest of the entry's bytes.
    pub entry_sha256: Sha256Digest,
}

/// A line that waits for its chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingLine {
    /// The line, without a newline.
    pub text: String,
    /// How many media items the visit wrote.
    pub media: u64,
    /// How many bytes these have.
    pub bytes: u64,
}

/// A chunk that stands in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkEntry {
    /// The run.
    pub run_id: RunId,
    /// Whoever stored it: the run, or the one that closes its record.
    pub by: RunId,
    /// Its number; the first is 1.
    pub number: u32,
    /// The chunk.
    pub chunk: ChunkRef,
    /// The sums over all lines so far, these included.
    pub sums: String,
    /// How many lines were in chunks before.
    pub lines_before: u64,
}

/// The highest entry of a chain that the ledger knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChainHead {
    /// Its number.
    pub number: u32,
    /// The digest of its bytes.
    pub sha256: Sha256Digest,
}

/// What became of a run whose record stands in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Adopted {
    /// It was not known.
    New,
    /// It was known, and not that its record stands.
    Closed,
    /// It was held as closed already.
    Known,
}

// Statements that both engines know word for word.

pub(super) const RECORD_STATE: &str = "SELECT record_state FROM runs WHERE run_id = $1";

pub(super) const LINE: &str = "SELECT line FROM run_lines WHERE run_id = $1 AND number = $2";

pub(super) const BEAT: &str = "UPDATE runs SET heartbeat_at = $2 WHERE run_id = $1 AND record_state = 'open'";

pub(super) const RECORD: &str = concat!(
    "SELECT run_id, started_at, version, source_kind, record_state, record_draft, record_sums, record_lines,
        record_chunks, record_json, record_signature, chain_from, ",
    closed_record_columns!(),
    " FROM runs WHERE run_id = $1"
);

pub(super) const WAITING_LINES: &str =
    "SELECT line, media, bytes FROM run_lines WHERE run_id = $1 AND number > $2 ORDER BY number LIMIT $3";

/// Takes the run and whoever writes: see [`RecordRow`].
macro_rules! may_write {
    () => {
        "run_id = $1 AND (record_state = 'open' AND run_id = $2 OR record_state = 'closing' AND closing_by = $2)"
    };
}

pub(super) const PUT_SUMS: &str = concat!(
    "UPDATE runs SET record_sums = $3, record_lines = $4, record_chunks = $5 WHERE ",
    may_write!(),
    " AND record_lines = $6 AND record_chunks = $5 - 1"
);

pub(super) const PUT_CHUNK: &str =
    "INSERT INTO run_chunks (run_id, number, key, sha256, sessions, items) VALUES ($1, $2, $3, $4, $5, $6)";

pub(super) const DROP_LINES: &str = "DELETE FROM run_lines WHERE run_id = $1 AND number <= $2";

pub(super) const CHUNKS: &str = "SELECT key, sha256, sessions, items FROM run_chunks WHERE run_id = $1 ORDER BY number";

pub(super) const CLAIM_CLOSING: &str = "
    UPDATE runs SET record_state = 'closing', closing_by = $2, closing_at = $3
    WHERE run_id = $1 AND (
        record_state = 'open' AND (run_id = $2 OR heartbeat_at < $4)
        OR record_state = 'closing' AND (closing_by = $2 OR closing_at < $4))";

pub(super) const LAPSED_RUNS: &str = "
    SELECT run_id FROM runs
    WHERE record_state IN ('open', 'closing') AND (
        record_state = 'open' AND heartbeat_at < $1 OR record_state = 'closing' AND closing_at < $1)
    ORDER BY run_id LIMIT $2";

/// What was written down first stays.
pub(super) const PUT_DOCUMENT: &str =
    concat!("UPDATE runs SET record_json = $3, record_signature = $4 WHERE ", may_write!(), " AND record_json IS NULL");

pub(super) const PUT_CHAIN_FROM: &str =
    concat!("UPDATE runs SET chain_from = $3 WHERE ", may_write!(), " AND chain_from IS NULL");

pub(super) const CLOSE: &str = concat!(
    "UPDATE runs SET record_state = 'closed', record_key = $3, record_sha256 = $4, chain_group = $5,
        chain_number = $6, chain_sha256 = $7, record_json = NULL, record_signature = NULL
     WHERE ",
    may_write!()
);

pub(super) const FORGO: &str = "
    UPDATE runs SET record_state = 'none', record_draft = NULL
    WHERE run_id = $1 AND record_state = 'open' AND record_chunks = 0";

pub(super) const CHAIN_HEAD: &str = "
    SELECT chain_number, chain_sha256 FROM runs
    WHERE chain_group = $1 AND chain_number IS NOT NULL ORDER BY chain_number DESC LIMIT 1";

pub(super) const DROP_CHUNKS: &str = "DELETE FROM run_chunks WHERE run_id = $1";

/// Whatever became of a run that the store holds as closed: nothing can be added to its record any more. How it ended is
/// taken where that is not known. Its draft goes: the record may tell of visits that this ledger was never told of.
pub(super) const SETTLE: &str = "
    UPDATE runs SET record_state = 'closed', record_key = $2, record_sha256 = $3, chain_group = $4, chain_number = $5,
        chain_sha256 = $6, record_json = NULL, record_signature = NULL, record_draft = NULL,
        finished_at = coalesce(finished_at, $7),
        exit_code = CASE WHEN finished_at IS NULL THEN $8 ELSE exit_code END,
        archived = CASE WHEN finished_at IS NULL THEN $9 ELSE archived END,
        unchanged = CASE WHEN finished_at IS NULL THEN $10 ELSE unchanged END,
        absent = CASE WHEN finished_at IS NULL THEN $11 ELSE absent END,
        failed = CASE WHEN finished_at IS NULL THEN $12 ELSE failed END,
        pending = CASE WHEN finished_at IS NULL THEN $13 ELSE pending END,
        media = CASE WHEN finished_at IS NULL THEN $14 ELSE media END,
        bytes = CASE WHEN finished_at IS NULL THEN $15 ELSE bytes END
    WHERE run_id = $1 AND record_state <> 'closed'";
