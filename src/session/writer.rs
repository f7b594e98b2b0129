//! Writer: puts objects where nothing exists, under the lock they are due.
//!
//! Between `item`, the session and the store. Promises: nothing is ever replaced; a key that is taken is compared by
//! digest; a lock that is weaker than due is made stronger before anyone relies on it, never weaker; the first object
//! of each class in a run is looked at again before the run goes on.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use crate::clock::Timestamp;
use crate::error::Code;
use crate::model::digest::{Checksum, Payload, Sha256Digest};
use crate::model::key::ObjectKey;
use crate::model::manifest::ManifestMedia;
use crate::model::retention::{
    ABSENT_LOCK_PERIOD, DEFAULT_CLASS, Lock, Mode, RetentionPolicy, TooLongError, lock_date,
};
use crate::model::sidecar::Sidecar;
use crate::session::standing::Standing;
use crate::store::document::read_document;
use crate::store::versions::versions_of;
use crate::store::{ObjectHead, PutOutcome, Store, StoreError, Stored, Terms};

/// Writes objects once.
#[derive(Debug)]
pub struct ArchiveWriter {
    store: Arc<dyn Store>,
    policy: RetentionPolicy,
    kms_key_id: Option<String>,
    confirmed: Mutex<HashSet<String>>,
}

/// Why an object could not be kept.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The store did not do what it was asked.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Something shadows the archive's version of a key.
    #[error("a delete marker or a later version shadows {key}")]
    Shadowed {
        /// The key.
        key: ObjectKey,
    },
    /// What the archive says is there is not, or is something else.
    #[error("{key} {reason}")]
    Damaged {
        /// The key.
        key: ObjectKey,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The lock is weaker than due and could not be extended.
    #[error("the lock of {key} is weaker than required and could not be extended")]
    Unlocked {
        /// The key.
        key: ObjectKey,
        /// The cause.
        source: StoreError,
    },
    /// The first object of a class is not kept as it was asked for.
    #[error(
        "{key} was not stored as requested: {what}; check the bucket's default retention, encryption and permissions"
    )]
    NotAsAsked {
        /// The key.
        key: ObjectKey,
        /// What differs.
        what: &'static str,
    },
    /// A lock that would be longer than the guard allows.
    #[error(transparent)]
    TooLong(#[from] TooLongError),
}

impl WriteError {
    /// Returns the stable code, which fixes the error class.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::Store(error) => error.code(),
            Self::Shadowed { .. } => Code::StoreShadowed,
            Self::Damaged { .. } => Code::StoreDamaged,
            Self::Unlocked { .. } => Code::StoreUnlocked,
            Self::NotAsAsked { .. } => Code::StorePolicy,
            Self::TooLong(_) => Code::RetentionTooLong,
        }
    }
}

/// What came of putting an object where nothing should stand.
#[derive(Debug)]
pub enum Placed {
    /// It is there now.
    Created(Stored),
    /// The same bytes stood there already; their lock is at least as due.
    Same(ObjectHead),
    /// Other bytes stand there.
    Other(ObjectHead),
}

/// How an archived item stands on a later visit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    /// Its lock.
    pub lock: Option<Lock>,
    /// The record asks for a stricter or longer one than it was promised.
    pub differs: bool,
}

impl ArchiveWriter {
    /// Makes a writer. `kms_key_id` is the key that objects must be encrypted with, where one is configured.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, policy: RetentionPolicy, kms_key_id: Option<String>) -> Self {
        Self { store, policy, kms_key_id, confirmed: Mutex::default() }
    }

    /// Returns the store.
    #[must_use]
    pub fn store(&self) -> &dyn Store {
        &*self.store
    }

    /// Returns the policy.
    #[must_use]
    pub const fn policy(&self) -> &RetentionPolicy {
        &self.policy
    }

    /// Returns the lock that objects of a class are due; none where the store cannot lock.
    ///
    /// # Errors
    /// Permanent: it would be longer than the class's guard allows.
    pub fn due(&self, class: &str, counted_from: Timestamp) -> Result<Option<Lock>, TooLongError> {
        match self.policy.class(class) {
            Some(class) if self.store.features().locks => class.lock(counted_from, self.store.now()),
            _ => Ok(None),
        }
    }

    /// Returns the lock of documents that belong to no session.
    ///
    /// # Errors
    /// As [`ArchiveWriter::due`].
    pub fn due_by_default(&self) -> Result<Option<Lock>, TooLongError> {
        self.due(DEFAULT_CLASS, self.store.now())
    }

    /// Returns the lock of a manifest without media.
    #[must_use]
    pub fn due_for_absence(&self) -> Option<Lock> {
        let now = self.store.now();
        (self.store.features().locks && self.policy.demands_locks())
            .then(|| Lock { mode: Mode::Governance, retain_until: lock_date(ABSENT_LOCK_PERIOD, now, now) })
    }

    /// Puts a body of one PUT under a key.
    ///
    /// # Errors
    /// As the store's; fatal if the first object of the class is not kept as asked.
    pub async fn place(
        &self,
        key: &ObjectKey,
        payload: &Payload,
        terms: &Terms,
        class: &str,
    ) -> Result<Placed, WriteError> {
        let outcome = self.store.put(key, payload, terms).await?;
        let expected = Checksum::full(payload.sha256());
        self.settle(key, outcome, payload.sha256(), &expected, terms.lock, class).await
    }

    /// Judges what came of a PUT or of completing an upload.
    ///
    /// # Errors
    /// As [`ArchiveWriter::place`].
    pub async fn settle(
        &self,
        key: &ObjectKey,
        outcome: PutOutcome,
        sha256: Sha256Digest,
        expected: &Checksum,
        due: Option<Lock>,
        class: &str,
    ) -> Result<Placed, WriteError> {
        match outcome {
            PutOutcome::Created(stored) => {
                // Before anything relies on it: a bucket that drops locks or encryption without a word shows it here, after
                // one object and not after a million.
                self.confirm_first(key, &stored, due, class).await?;
                Ok(Placed::Created(stored))
            }
            PutOutcome::Taken => {
                let head = self.head_of_own(key).await?;
                if self.holds(key, &head, sha256, expected).await? {
                    // Only now: bytes that are not ours are not ours to lock.
                    self.strengthen(key, head.version_id.as_deref(), head.lock, due).await?;
                    Ok(Placed::Same(head))
                } else {
                    Ok(Placed::Other(head))
                }
            }
        }
    }

    /// Puts a sidecar; the first writer wins, if what stands tells of the same bytes. Returns digest and version.
    ///
    /// # Errors
    /// As the store's; permanent if what stands tells of other bytes.
    pub async fn place_sidecar(
        &self,
        sidecar: &Sidecar,
        lock: Option<Lock>,
    ) -> Result<(Sha256Digest, Option<String>), WriteError> {
        let key = sidecar.object.key.sidecar();
        let payload = sidecar.to_payload();
        let terms = Terms { content_type: "application/json".to_owned(), lock, is_document: true };
        let class = format!("{} sidecar", sidecar.retention.class);
        match self.place(&key, &payload, &terms, &class).await? {
            Placed::Created(stored) => Ok((payload.sha256(), stored.version_id)),
            Placed::Same(head) => Ok((payload.sha256(), head.version_id)),
            Placed::Other(head) => {
                // Two workers, or one before and after a crash, describe the same bytes at different times. Either sidecar
                // is as good, and the one that is there cannot be replaced.
                let (standing, sha256, _) = self.read_sidecar(&key, head.version_id.as_deref()).await?;
                if standing.object.sha256 != sidecar.object.sha256 || standing.object.key != sidecar.object.key {
                    return Err(WriteError::Damaged { key, reason: "is a sidecar that describes other bytes" });
                }
                self.strengthen(&key, head.version_id.as_deref(), head.lock, lock).await?;
                Ok((sha256, head.version_id))
            }
        }
    }

    /// Reads a sidecar, its digest and its lock.
    ///
    /// # Errors
    /// As the store's; permanent if it does not exist or is not a sidecar.
    pub async fn read_sidecar(
        &self,
        key: &ObjectKey,
        version_id: Option<&str>,
    ) -> Result<(Sidecar, Sha256Digest, Option<Lock>), WriteError> {
        let damaged = |reason| WriteError::Damaged { key: key.clone(), reason };
        let read = read_document(&*self.store, key, version_id).await?.ok_or_else(|| damaged("is gone"))?;
        let sidecar = Sidecar::parse(&read.bytes).ok_or_else(|| damaged("is not a sidecar"))?;
        Ok((sidecar, read.sha256, read.lock))
    }

    /// Verifies that an item of the newest manifest still stands: by version and size from the listing, and, where the
    /// store locks, by the lock that its sidecar promised, its own and the sidecar's. Bytes are not read again.
    ///
    /// # Errors
    /// As the store's; permanent if it does not stand, or its lock is weaker than promised and cannot be mended.
    pub async fn verify(
        &self,
        standing: &Standing,
        media: &ManifestMedia,
        asked: impl FnOnce(&Sidecar) -> Option<Lock>,
    ) -> Result<Verified, WriteError> {
        let sidecar_key = media.key.sidecar();
        if !standing.stands(&media.key, media.version_id.as_deref(), Some(media.size_bytes)) {
            return Err(WriteError::Damaged { key: media.key.clone(), reason: "does not exist as its manifest says" });
        }
        if !standing.stands(&sidecar_key, media.sidecar_version_id.as_deref(), None) {
            return Err(WriteError::Damaged { key: sidecar_key, reason: "does not exist as its manifest says" });
        }
        // The listing has shown all there is, where there are no locks: no request for each item of each visit.
        if !self.store.features().locks {
            return Ok(Verified { lock: None, differs: false });
        }
        let sidecar_version = media.sidecar_version_id.as_deref();
        let (sidecar, sha256, sidecar_lock) = self.read_sidecar(&sidecar_key, sidecar_version).await?;
        if sha256 != media.sidecar_sha256 {
            return Err(WriteError::Damaged { key: sidecar_key, reason: "has another digest than its manifest says" });
        }
        let head = self.store.head(&media.key, media.version_id.as_deref()).await?;
        let head = head.ok_or_else(|| WriteError::Damaged { key: media.key.clone(), reason: "is gone" })?;
        let promised = promised_lock(&sidecar);
        let lock = self.strengthen(&media.key, media.version_id.as_deref(), head.lock, promised).await?;
        self.strengthen(&sidecar_key, sidecar_version, sidecar_lock, promised).await?;
        let differs = match (asked(&sidecar), lock) {
            (Some(asked), Some(lock)) => !lock.covers(asked),
            (Some(_), None) => true,
            (None, _) => false,
        };
        Ok(Verified { lock, differs })
    }

    /// Looks at the archive's version of a key that turned out to be taken.
    ///
    /// # Errors
    /// As the store's; permanent if something shadows it.
    pub async fn head_of_own(&self, key: &ObjectKey) -> Result<ObjectHead, WriteError> {
        let mut own = None;
        if self.store.features().versions {
            let listed = versions_of(&*self.store, key).await?;
            if listed.is_shadowed() {
                return Err(WriteError::Shadowed { key: key.clone() });
            }
            own = listed.own;
        }
        let version_id = own.and_then(|own| own.version_id);
        let head = self.store.head(key, version_id.as_deref()).await?;
        head.ok_or_else(|| WriteError::Damaged { key: key.clone(), reason: "was taken and is gone" })
    }

    /// Tells whether an object holds these bytes: by the store's checksum where it can be compared, else by reading it
    /// back.
    ///
    /// # Errors
    /// As the store's.
    pub async fn holds(
        &self,
        key: &ObjectKey,
        head: &ObjectHead,
        sha256: Sha256Digest,
        expected: &Checksum,
    ) -> Result<bool, WriteError> {
        if let Some(checksum) = &head.checksum {
            if let Some(digest) = checksum.full_digest() {
                return Ok(digest == sha256);
            }
            if checksum.kind == expected.kind && checksum.value == expected.value {
                return Ok(true);
            }
        }
        Ok(self.digest_of(key, head.version_id.as_deref()).await? == sha256)
    }

    /// Reads an object back and hashes it.
    ///
    /// # Errors
    /// As the store's; permanent if it is gone.
    pub async fn digest_of(&self, key: &ObjectKey, version_id: Option<&str>) -> Result<Sha256Digest, WriteError> {
        let body = self.store.open(key, version_id).await?;
        let body = body.ok_or_else(|| WriteError::Damaged { key: key.clone(), reason: "is gone" })?;
        Ok(body.digest().await?)
    }

    /// Makes a lock at least as strict and long as due, and returns what stands then.
    ///
    /// # Errors
    /// Permanent: it is weaker than due and could not be extended.
    pub async fn strengthen(
        &self,
        key: &ObjectKey,
        version_id: Option<&str>,
        lock: Option<Lock>,
        due: Option<Lock>,
    ) -> Result<Option<Lock>, WriteError> {
        let Some(due) = due else { return Ok(lock) };
        if lock.is_some_and(|lock| lock.covers(due)) {
            return Ok(lock);
        }
        let wanted = lock.map_or(due, |lock| lock.strictest(due));
        match self.store.extend_lock(key, version_id, wanted).await {
            Ok(()) => Ok(Some(wanted)),
            Err(source) if source.code().is_retryable() => Err(source.into()),
            Err(source) => Err(WriteError::Unlocked { key: key.clone(), source }),
        }
    }

    /// Looks at the first object of each class in a run: mode, date, checksum and key must be as asked.
    async fn confirm_first(
        &self,
        key: &ObjectKey,
        stored: &Stored,
        due: Option<Lock>,
        class: &str,
    ) -> Result<(), WriteError> {
        let is_first = self.confirmed.lock().unwrap_or_else(PoisonError::into_inner).insert(class.to_owned());
        if !is_first {
            return Ok(());
        }
        let confirmed = self.confirm(key, stored, due).await;
        if confirmed.is_err() {
            self.confirmed.lock().unwrap_or_else(PoisonError::into_inner).remove(class);
        }
        confirmed
    }

    async fn confirm(&self, key: &ObjectKey, stored: &Stored, due: Option<Lock>) -> Result<(), WriteError> {
        let differs = |what| Err(WriteError::NotAsAsked { key: key.clone(), what });
        let Some(head) = self.store.head(key, stored.version_id.as_deref()).await? else {
            return differs("it does not exist");
        };
        if head.checksum.as_ref().is_some_and(|checksum| checksum.value != stored.checksum.value) {
            return differs("its checksum differs");
        }
        match (due, head.lock) {
            (None, _) => {}
            (Some(due), Some(lock)) if lock == due => {}
            (Some(due), Some(lock)) if lock.mode != due.mode => return differs("the mode of its lock differs"),
            (Some(_), Some(_)) => return differs("the date of its lock differs"),
            (Some(_), None) => return differs("it has no lock"),
        }
        match (&self.kms_key_id, &head.kms_key_id) {
            (Some(_), None) => differs("it is not encrypted with a KMS key"),
            (Some(asked), Some(used)) if !asked.contains("alias/") && !used.ends_with(asked.as_str()) => {
                differs("it is encrypted with another key")
            }
            _ => Ok(()),
        }
    }
}

/// Returns the lock that a sidecar says its object was given.
#[must_use]
pub fn promised_lock(sidecar: &Sidecar) -> Option<Lock> {
    let retention = &sidecar.retention;
    let retain_until = retention.initial_retain_until?;
    (retention.mode != Mode::None).then_some(Lock { mode: retention.mode, retain_until })
}
