//! Reach: the store as an audit asks it, never more than so many requests at once, and what it would not tell.
//!
//! An object that the store refuses is something an audit has to say, and the rest is looked at all the same. A store that
//! refuses everything is none: then the audit ends, because every finding after that would be false.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Semaphore;

use super::{Finding, FindingCode, Severity};
use crate::model::key::ObjectKey;
use crate::model::retention::Lock;
use crate::store::document::{self, Document};
use crate::store::versions::versions_of;
use crate::store::{ListedVersion, ObjectBody, ObjectHead, ReadStore, StoreError};

/// The store, asked with restraint.
#[derive(Debug)]
pub struct Reach<'a> {
    store: &'a dyn ReadStore,
    permits: Semaphore,
    keeps_locks: bool,
    keeps_checksums: bool,
    is_lock_shown: AtomicBool,
    is_checksum_shown: AtomicBool,
}

/// What the store told of one object.
#[derive(Debug)]
pub enum Told<T> {
    /// This.
    Is(T),
    /// That it does not exist.
    Gone,
    /// Nothing, and why.
    Refused(StoreError),
}

impl<T> Told<T> {
    /// Returns what the store showed, if it did.
    pub fn found(self) -> Option<T> {
        match self {
            Self::Is(found) => Some(found),
            Self::Gone | Self::Refused(_) => None,
        }
    }
}

impl<'a> Reach<'a> {
    /// Asks this store, never more than `concurrency` requests at once. A store that is no bucket keeps neither locks nor
    /// checksums.
    #[must_use]
    pub fn of(store: &'a dyn ReadStore, concurrency: usize, is_bucket: bool) -> Self {
        Self {
            store,
            permits: Semaphore::new(concurrency.max(1)),
            keeps_locks: is_bucket,
            keeps_checksums: is_bucket,
            is_lock_shown: AtomicBool::new(false),
            is_checksum_shown: AtomicBool::new(false),
        }
    }

    /// Notes that the store showed a lock, so that we have the right to see them.
    pub(super) fn note_lock_shown(&self) {
        self.is_lock_shown.store(true, Ordering::Relaxed);
    }

    /// Tells whether the store ever showed a lock.
    pub(super) fn shows_locks(&self) -> bool {
        self.is_lock_shown.load(Ordering::Relaxed)
    }

    /// Notes that the store showed a checksum, so that it is of a kind that keeps them.
    pub(super) fn note_checksum_shown(&self) {
        self.is_checksum_shown.store(true, Ordering::Relaxed);
    }

    /// Tells whether the store ever showed a checksum.
    pub(super) fn shows_checksums(&self) -> bool {
        self.is_checksum_shown.load(Ordering::Relaxed)
    }

    /// Returns the store itself.
    #[must_use]
    pub const fn store(&self) -> &'a dyn ReadStore {
        self.store
    }

    /// Tells whether this kind of store can lock.
    #[must_use]
    pub const fn keeps_locks(&self) -> bool {
        self.keeps_locks
    }

    /// Tells whether this kind of store keeps a checksum of what it holds.
    #[must_use]
    pub const fn keeps_checksums(&self) -> bool {
        self.keeps_checksums
    }

    /// Looks at an object.
    ///
    /// # Errors
    /// Retryable: the store does not answer. Fatal: it refuses everything.
    pub async fn head(&self, key: &ObjectKey, version_id: Option<&str>) -> Result<Told<ObjectHead>, StoreError> {
        let _permit = self.permits.acquire().await;
        self.judge(self.store.head(key, version_id).await).await
    }

    /// Reads a document.
    ///
    /// # Errors
    /// As [`Reach::head`].
    pub async fn read(&self, key: &ObjectKey, version_id: Option<&str>) -> Result<Told<Document>, StoreError> {
        let _permit = self.permits.acquire().await;
        self.judge(document::read_document(self.store, key, version_id).await).await
    }

    /// Reads the archive's own version of a document.
    ///
    /// # Errors
    /// As [`Reach::head`].
    pub async fn read_own(&self, key: &ObjectKey) -> Result<Told<Document>, StoreError> {
        match self.own(key).await? {
            Some(own) => self.read(key, own.version_id.as_deref()).await,
            None => Ok(Told::Gone),
        }
    }

    /// Opens an object and does something with its bytes; from the start if they break off.
    ///
    /// # Errors
    /// As [`Reach::head`].
    pub async fn with_body<T>(
        &self,
        key: &ObjectKey,
        version_id: Option<&str>,
        work: impl AsyncFn(ObjectBody) -> Result<T, StoreError>,
    ) -> Result<Told<T>, StoreError> {
        let _permit = self.permits.acquire().await;
        self.judge(document::with_body(self.store, key, version_id, work).await).await
    }

    /// Asks for the lock of an object by the request made for that.
    ///
    /// # Errors
    /// As [`Reach::head`].
    pub async fn lock(&self, key: &ObjectKey, version_id: Option<&str>) -> Result<Told<Option<Lock>>, StoreError> {
        let _permit = self.permits.acquire().await;
        self.judge(self.store.read_lock(key, version_id).await.map(Some)).await
    }

    async fn own(&self, key: &ObjectKey) -> Result<Option<ListedVersion>, StoreError> {
        let _permit = self.permits.acquire().await;
        Ok(versions_of(self.store, key).await?.own)
    }

    async fn judge<T>(&self, answer: Result<Option<T>, StoreError>) -> Result<Told<T>, StoreError> {
        match answer {
            Ok(Some(told)) => Ok(Told::Is(told)),
            Ok(None) => Ok(Told::Gone),
            // Credentials that ran out refuse everything and a store that is away answers nothing, this listing neither;
            // if it is answered, then it is about this object: its key, its rights, or a disk that cannot read it.
            Err(error @ (StoreError::Denied { .. } | StoreError::Unavailable { .. })) => {
                match self.store.list(ObjectKey::archive().as_str(), None).await {
                    Ok(_) => Ok(Told::Refused(error)),
                    Err(_) => Err(error),
                }
            }
            Err(error @ (StoreError::Unfit(_) | StoreError::Unsupported(_) | StoreError::TooLarge { .. })) => {
                Ok(Told::Refused(error))
            }
            Err(error) => Err(error),
        }
    }
}

/// Makes a finding of a refusal; the key service's own is told apart.
pub(crate) fn refused(
    what: &str,
    error: &StoreError,
    begin: impl FnOnce(Severity, FindingCode, &str) -> Finding,
) -> Finding {
    let lower = error.to_string().to_ascii_lowercase();
    let (code, repair) = if lower.contains("kms") || lower.contains("key service") {
        (
            FindingCode::KeyUnusable,
            "check that its encryption key exists, is enabled, and may be used by the auditor (kms:Decrypt)",
        )
    } else {
        (
            FindingCode::ObjectUnreadable,
            "check the auditor's permissions (s3:GetObject, s3:GetObjectVersion), the storage class, and the disk",
        )
    };
    begin(Severity::Error, code, repair).differs(what, error)
}
