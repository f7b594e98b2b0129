//! Store: write-once objects under keys, wherever they are kept.
//!
//! The seam between the archive and S3 or a directory. There is no overwrite and no delete here: `put` succeeds only
//! where nothing stands, and tells when something does. On a versioned store `versions` decides which version of a key is
//! the archive's. Every body arrives with its digest, and a store answers only after it has verified that digest itself.

pub mod dir;
pub mod document;
pub mod policy;
pub mod retrying;
pub mod s3;
pub mod settings;
pub mod versions;

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::clock::Timestamp;
use crate::error::Code;
use crate::model::digest::{Checksum, Payload, Sha256Digest};
use crate::model::key::ObjectKey;
use crate::model::retention::Lock;

/// A place that holds objects, for whoever only reads them: audits, reports, proofs.
#[async_trait]
pub trait ReadStore: Send + Sync + fmt::Debug {
    /// Tells what the store can do, as `check` found it.
    fn features(&self) -> Features;

    /// Returns the time by the store's clock, from the last answers it gave.
    fn now(&self) -> Timestamp;

    /// Returns the least and the greatest offset of the store's clock seen so far (store minus ours, in milliseconds),
    /// or `None` where the store has no clock of its own or gave no answer yet.
    fn clock_offsets(&self) -> Option<(i64, i64)> {
        None
    }

    /// Returns whom the store takes us for, as far as that is known without asking it; an identifier, never a secret.
    async fn principal(&self) -> Option<String> {
        None
    }

    /// Looks at the store before a run and tells what it found; writes nothing.
    ///
    /// # Errors
    /// Fatal: the store refuses us or does not exist. Retryable: it cannot be reached.
    async fn check(&self) -> Result<StoreReport, StoreError>;

    /// Returns what stands under a key, or `None`. Without a version: the current one.
    ///
    /// # Errors
    /// Retryable: unreachable or refusing for load. Fatal: denied.
    async fn head(&self, key: &ObjectKey, version: Option<&str>) -> Result<Option<ObjectHead>, StoreError>;

    /// Asks for the lock of a version and for nothing else. [`ReadStore::head`] shows the lock only to those who have the right
    /// to see it, and cannot tell a lock that is hidden from none; this can.
    ///
    /// # Errors
    /// As [`ReadStore::head`]. Fatal (denied): the store does not tell us.
    async fn read_lock(&self, key: &ObjectKey, version: Option<&str>) -> Result<Option<Lock>, StoreError> {
        Ok(self.head(key, version).await?.and_then(|head| head.lock))
    }

    /// Opens the bytes under a key, or `None`. Without a version: the current one.
    ///
    /// # Errors
    /// As [`ReadStore::head`]; also when reading its chunks.
    async fn open(&self, key: &ObjectKey, version: Option<&str>) -> Result<Option<ObjectBody>, StoreError>;

    /// Lists what stands under a prefix, one page, in the order of keys and, within a key, newest version first, delete
    /// markers included. `after` is the `next` of the page before.
    ///
    /// # Errors
    /// As [`ReadStore::head`].
    async fn list(&self, prefix: &str, after: Option<PageToken>) -> Result<ListPage, StoreError>;
}

/// A place that holds objects, for whoever archives: what is absent can be put, and a lock made stricter or longer.
///
/// Nothing here overwrites or deletes. A `&dyn Store` is a `&dyn ReadStore` too, and never the other way round.
#[async_trait]
pub trait Store: ReadStore {
    /// Writes a body of at most [`SINGLE_PUT_MAX_BYTES`](crate::model::digest::SINGLE_PUT_MAX_BYTES) where nothing
    /// stands under the key.
    ///
    /// # Errors
    /// Retryable: unreachable, refusing for load, or another checksum than sent. Fatal: denied.
    async fn put(&self, key: &ObjectKey, payload: &Payload, terms: &Terms) -> Result<PutOutcome, StoreError>;

    /// Begins an object that is longer than one PUT may be; its parts are added one after another.
    ///
    /// # Errors
    /// As [`Store::put`].
    async fn start_upload(&self, key: &ObjectKey, terms: &Terms) -> Result<Box<dyn Upload>, StoreError>;

    /// Makes the lock of a version stricter or longer; never weaker or shorter.
    ///
    /// # Errors
    /// As [`Store::put`]. A store that cannot lock answers [`StoreError::Unsupported`].
    async fn extend_lock(&self, key: &ObjectKey, version: Option<&str>, lock: Lock) -> Result<(), StoreError>;
}

/// An object under way in parts of exactly [`PART_SIZE_BYTES`](crate::model::digest::PART_SIZE_BYTES).
#[async_trait]
pub trait Upload: Send {
    /// Adds the next part; every part but the last has the full part size.
    ///
    /// # Errors
    /// As [`Store::put`]; a part may be tried again after a retryable error.
    async fn put_part(&mut self, part: &Payload) -> Result<(), StoreError>;

    /// Makes the object appear under its key where nothing stands. `sha256` is the digest of the whole.
    ///
    /// # Errors
    /// As [`Store::put`]; completing may be tried again after a retryable error.
    async fn complete(&mut self, sha256: Sha256Digest) -> Result<PutOutcome, StoreError>;

    /// Gives up and removes the parts.
    ///
    /// # Errors
    /// As [`Store::put`].
    async fn abort(&mut self) -> Result<(), StoreError>;
}

/// What a store can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Features {
    /// Objects can be locked until a date.
    pub locks: bool,
    /// Keys have versions.
    pub versions: bool,
}

/// What a look at the store found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreReport {
    /// What the store can do.
    pub features: Features,
    /// Store clock minus ours, in milliseconds; nothing where the store has no clock of its own.
    pub clock_offset_ms: Option<i64>,
    /// The default retention of the bucket, if it has one.
    pub default_lock: Option<String>,
    /// The store would not tell whether it locks, and is taken to: it refuses a write that asks for a lock it cannot
    /// keep. The text names the right that is missing.
    pub locks_assumed: Option<&'static str>,
}

/// How an object is to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// The content type it carries.
    pub content_type: String,
    /// The lock it is due.
    pub lock: Option<Lock>,
    /// Media follow the configured storage class; documents are always in the standard one.
    pub is_document: bool,
}

/// What came of writing where nothing should stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PutOutcome {
    /// The object is there, and the store verified its checksum.
    Created(Stored),
    /// Something stands under the key already; nothing was written.
    Taken,
}

/// An object as the store took it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its version, on a versioned store.
    pub version_id: Option<String>,
    /// The checksum the store verified.
    pub checksum: Checksum,
}

/// What stands under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectHead {
    /// Its version, on a versioned store.
    pub version_id: Option<String>,
    /// Its length.
    pub size_bytes: u64,
    /// The SHA-256 checksum the store keeps, if it keeps one.
    pub checksum: Option<Checksum>,
    /// Its lock.
    pub lock: Option<Lock>,
    /// The key it is encrypted with, if it is one of a key service.
    pub kms_key_id: Option<String>,
}

/// One version of one key in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedVersion {
    /// The key below the store's prefix.
    pub key: ObjectKey,
    /// The version, on a versioned store.
    pub version_id: Option<String>,
    /// Its length; zero for a delete marker.
    pub size_bytes: u64,
    /// This is not an object but the mark that hides it.
    pub is_delete_marker: bool,
    /// When the store took it.
    pub modified_at: Option<Timestamp>,
}

/// Part of a listing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListPage {
    /// What was found, in order.
    pub versions: Vec<ListedVersion>,
    /// Where to go on; nothing at the end.
    pub next: Option<PageToken>,
}

/// Where a listing goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PageToken {
    /// Behind all versions of a key, whether or not there is such a key.
    AfterKey(ObjectKey),
    /// Where a page ended, in the store's own words.
    Page {
        /// The last key seen, or the store's own token.
        key: String,
        /// The last version seen.
        version: Option<String>,
    },
}

/// The bytes of an object as they arrive.
pub struct ObjectBody {
    /// How many there are.
    pub size_bytes: u64,
    /// The lock of the object, where the store told it.
    pub lock: Option<Lock>,
    chunks: Box<dyn Chunks>,
}

/// A source of chunks; a store implements it for its own bodies.
#[async_trait]
pub trait Chunks: Send {
    /// Returns the next bytes, or `None` at the end.
    ///
    /// # Errors
    /// As [`ReadStore::open`].
    async fn next(&mut self) -> Result<Option<Bytes>, StoreError>;
}

impl ObjectBody {
    /// Wraps a store's own source of chunks.
    #[must_use]
    pub fn new(size_bytes: u64, lock: Option<Lock>, chunks: Box<dyn Chunks>) -> Self {
        Self { size_bytes, lock, chunks }
    }

    /// Returns the next bytes, or `None` at the end.
    ///
    /// # Errors
    /// As [`ReadStore::open`].
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, StoreError> {
        self.chunks.next().await
    }

    /// Reads a document whole.
    ///
    /// # Errors
    /// As [`ReadStore::open`]; permanent if it is longer than `limit` bytes.
    pub async fn read_to_end(mut self, limit: u64) -> Result<Vec<u8>, StoreError> {
        if self.size_bytes > limit {
            return Err(StoreError::TooLarge { size_bytes: self.size_bytes, limit_bytes: limit });
        }
        let mut bytes = Vec::with_capacity(usize::try_from(self.size_bytes).unwrap_or(0));
        while let Some(chunk) = self.chunk().await? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() as u64 > limit {
                return Err(StoreError::TooLarge { size_bytes: bytes.len() as u64, limit_bytes: limit });
            }
        }
        Ok(bytes)
    }

    /// Reads and hashes all bytes, keeping none.
    ///
    /// # Errors
    /// As [`ReadStore::open`].
    pub async fn digest(mut self) -> Result<Sha256Digest, StoreError> {
        let mut hasher = crate::model::digest::Hasher::default();
        while let Some(chunk) = self.chunk().await? {
            hasher.update(&chunk);
        }
        Ok(hasher.finish())
    }
}

impl fmt::Debug for ObjectBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectBody").field("size_bytes", &self.size_bytes).finish_non_exhaustive()
    }
}

/// Why a store did not do what it was asked.
///
/// Messages name the action and the store's own code, never a body or a credential.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The store refuses the credentials or the right.
    #[error("the store refuses to {action}: {reason}")]
    Denied {
        /// What was asked.
        action: &'static str,
        /// The store's own code and message.
        reason: String,
    },
    /// The store cannot be reached, answers 5xx or `SlowDown`, times out, or answers 409.
    #[error("the store could not {action}: {reason}")]
    Unavailable {
        /// What was asked.
        action: &'static str,
        /// The store's own code, or the kind of failure.
        reason: String,
        /// How long the store asks to wait.
        wait: Option<Duration>,
        /// The store asks for fewer requests.
        slow_down: bool,
    },
    /// No space is left.
    #[error("the store has no space left")]
    Full,
    /// The store computed another checksum than was sent, or answered with another one.
    #[error("the store computed another checksum when asked to {action}")]
    Checksum {
        /// What was asked.
        action: &'static str,
    },
    /// The store is not what it must be; the text says what to do.
    #[error("{0}")]
    Unfit(String),
    /// The store cannot do this at all.
    #[error("the store cannot {0}")]
    Unsupported(&'static str),
    /// A document is longer than any document of this program.
    #[error("a stored document has {size_bytes} bytes, more than the limit of {limit_bytes}")]
    TooLarge {
        /// Its length.
        size_bytes: u64,
        /// The limit.
        limit_bytes: u64,
    },
    /// The clocks differ by more than a minute.
    #[error("the store's clock and ours differ by {offset_ms} ms; set this machine's clock")]
    ClockSkew {
        /// Store clock minus ours.
        offset_ms: i64,
    },
}

impl StoreError {
    /// Returns the stable code, which fixes the error class.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::Denied { .. } => Code::StoreDenied,
            Self::Unavailable { .. } => Code::StoreUnavailable,
            Self::Full => Code::StoreFull,
            Self::Checksum { .. } => Code::StoreChecksum,
            Self::Unfit(_) | Self::Unsupported(_) => Code::StorePolicy,
            Self::TooLarge { .. } => Code::StoreDamaged,
            Self::ClockSkew { .. } => Code::ClockSkew,
        }
    }
}
