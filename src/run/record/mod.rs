//! Record: what a run did, written into the store as it goes and closed at its end, also for a run that died.
//!
//! Each commit of a session leaves a line in the ledger; lines go into the store in chunks, and the closing makes one signed
//! document of them and enters it in a chain. Every step may be repeated, by this run or by one that finds it dead, and
//! gives the same bytes or takes what stands. What decides is in the ledger: who may write, and what was written down first.

mod chain;
mod chunk;
mod close;
mod signing;

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::chunk::{CHUNK_BYTES, CHUNK_LINES, StoredLines};
pub use self::close::{Closed, Ending};
pub use self::signing::{DEFAULT_GROUP, SigningError, SigningSettings};
use crate::clock::{Clock, Timestamp};
use crate::error::Code;
use crate::ledger::{Ledger, LedgerError, SessionEntry};
use crate::model::RunId;
use crate::model::digest::{Payload, Sha256Digest};
use crate::model::key::ObjectKey;
use crate::model::merkle::Tree;
use crate::model::run::{LineItem, LineManifest, RUN_LINE_SCHEMA, RunCounts, RunLine};
use crate::model::signature::SigningKey;
use crate::session::Archiver;
use crate::session::identity::IdentityError;
use crate::session::visit::Outcome;
use crate::session::writer::{Placed, WriteError};
use crate::store::document::read_own;
use crate::store::{ReadStore, StoreError, Terms};

/// Writes the records of runs.
#[derive(Debug)]
pub struct Recorder {
    /// Keeps the documents, and knows which archive this is.
    pub archiver: Arc<Archiver>,
    /// What waits, and who may write.
    pub ledger: Arc<dyn Ledger>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Signs; without it records are unsigned, and say so.
    pub signer: Option<SigningKey>,
    /// A run without a heartbeat for so long is dead.
    pub lease: Duration,
}

/// What only the run itself knows of its record; kept in the ledger from its start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Draft {
    group: String,
    actor: String,
    store_principal: Option<String>,
    config: serde_json::Value,
    config_sha256: Sha256Digest,
}

/// The sums over all lines that stand in chunks.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
struct Sums {
    tree: Tree,
    counts: RunCounts,
    items: u64,
}

/// Why a record could not be written.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The store did not do what it was asked.
    #[error(transparent)]
    Keep(#[from] WriteError),
    /// The ledger did not do what it was asked.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// It is not known which archive this is.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The ledger holds something that this program does not write.
    #[error("the ledger's data for the record of run {run} is not readable: {what}")]
    Unreadable {
        /// The run.
        run: RunId,
        /// What it is.
        what: &'static str,
    },
    /// Other bytes stand under the key of a document.
    #[error("{0} contains something other than what belongs there")]
    Conflict(ObjectKey),
    /// Somebody else writes the record by now.
    #[error("the record of run {0} is closed by another run")]
    Lost(RunId),
}

impl From<StoreError> for RecordError {
    fn from(error: StoreError) -> Self {
        Self::Keep(error.into())
    }
}

impl RecordError {
    /// Returns the stable code, which fixes the error class.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::Keep(error) => error.code(),
            Self::Ledger(error) => error.code(),
            Self::Identity(error) => error.code(),
            Self::Unreadable { .. } => Code::LedgerUnavailable,
            Self::Conflict(_) => Code::StoreConflict,
            Self::Lost(_) => Code::RunClosed,
        }
    }
}

impl Draft {
    /// Takes what is known at the start: the chain, who runs it, whom the store takes that for, and the configuration in
    /// force without its secrets.
    #[must_use]
    pub fn of(group: String, actor: String, store_principal: Option<String>, config: serde_json::Value) -> Self {
        // A configuration holds nothing that JSON cannot say.
        let canonical = serde_json_canonicalizer::to_vec(&config).unwrap_or_default();
        Self { group, actor, store_principal, config_sha256: Sha256Digest::of(&canonical), config }
    }

    /// Returns the text that the ledger keeps.
    #[must_use]
    pub fn to_text(&self) -> String {
        json(self)
    }
}

impl Sums {
    fn parse(text: Option<&str>) -> Option<Self> {
        text.map_or_else(|| Some(Self::default()), |text| serde_json::from_str(text).ok())
    }
}

/// Writes the line of a commit, without a newline: what stands of the session now, as this visit knows it.
#[must_use]
pub fn line_of(entry: &SessionEntry, outcome: Outcome) -> String {
    json(&RunLine {
        schema: RUN_LINE_SCHEMA.to_owned(),
        session_id: entry.record.session_id.clone(),
        integration: entry.integration.clone(),
        outcome: outcome.as_str().to_owned(),
        code: entry.code.map(|code| code.as_str().to_owned()),
        committed_at: entry.at,
        decided_at: entry.record.decided_at,
        upstream_created_at: entry.upstream_created_at,
        deadline_at: entry.deadline_at,
        complete: Some(entry.complete),
        settled: Some(entry.settled),
        manifest: entry.manifest.as_ref().map(|manifest| LineManifest {
            key: manifest.key.clone(),
            version_id: manifest.version_id.clone(),
            sha256: manifest.sha256,
        }),
        items: entry
            .media
            .iter()
            .map(|media| LineItem {
                media_id: media.media_id.clone(),
                attempt_id: media.attempt_id.clone(),
                kind: media.kind,
                key: media.key.clone(),
                version_id: media.version_id.clone(),
                size_bytes: media.size_bytes,
                sha256: media.sha256,
            })
            .collect(),
    })
}

/// What stands under a key after it was written to.
enum Put {
    /// Our bytes.
    Ours,
    /// These, which stood there before.
    Other(Vec<u8>),
}

impl Recorder {
    /// Returns since when a run must have given no sign of life to count as dead.
    fn lapsed_before(&self, now: Timestamp) -> Timestamp {
        now.minus(self.lease)
    }

    fn store(&self) -> &dyn ReadStore {
        self.archiver.writer.store()
    }

    /// Puts a document where nothing stands, under the lock of the default class, and tells what stands then.
    async fn put(&self, key: &ObjectKey, payload: &Payload, content_type: &str) -> Result<Put, RecordError> {
        let writer = &self.archiver.writer;
        let lock = writer.due_by_default().map_err(WriteError::from)?;
        let terms = Terms { content_type: content_type.to_owned(), lock, is_document: true };
        match writer.place(key, payload, &terms, "run record").await {
            Ok(Placed::Created(_) | Placed::Same(_)) => return Ok(Put::Ours),
            // The archive's version counts, whatever shadows it.
            Ok(Placed::Other(_)) | Err(WriteError::Shadowed { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let found = read_own(self.store(), key).await?.ok_or_else(|| RecordError::Conflict(key.clone()))?;
        Ok(if found.sha256 == payload.sha256() { Put::Ours } else { Put::Other(found.bytes) })
    }

    /// Puts the signature of a document beside it. The first one stays.
    async fn put_signature(&self, key: &ObjectKey, signature: &str) -> Result<(), RecordError> {
        self.put(&key.signature(), &Payload::of(signature.as_bytes().to_vec()), "text/plain").await.map(|_| ())
    }

    fn sign(&self, bytes: &[u8]) -> Option<String> {
        self.signer.as_ref().map(|signer| signer.sign(bytes) + "\n")
    }
}

/// Renders what holds nothing that JSON cannot say.
fn json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_else(|error| unreachable!("plain values are JSON: {error}"))
}
