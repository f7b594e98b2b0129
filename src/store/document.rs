//! Documents: what the archive keeps beside media, read whole with a limit and hashed.
//!
//! One reader for all that read documents: a run, the audits, rebuild, proofs and exports. A body that breaks off is read
//! again from the start; whether a refusal ends everything or is one finding is for the caller to decide.

use super::versions::versions_of;
use super::{ObjectBody, ReadStore, StoreError};
use crate::model::digest::Sha256Digest;
use crate::model::key::ObjectKey;
use crate::model::retention::Lock;
use crate::retry::Backoff;

/// The longest document that is read. A manifest of ten attempts with all their lists has well under one megabyte.
pub const MAX_DOCUMENT_BYTES: u64 = 64 * 1024 * 1024;

/// How often bytes that break off are read from the start.
const BODY_TRIES: Backoff = Backoff::of_tries(4);

/// A document that was read whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Its lock, where the store showed it.
    pub lock: Option<Lock>,
    /// Their digest.
    pub sha256: Sha256Digest,
}

/// Reads a version of a document, or the current one; nothing if it is not there.
///
/// # Errors
/// As [`ReadStore::open`]; permanent if it is longer than [`MAX_DOCUMENT_BYTES`].
pub async fn read_document(
    store: &dyn ReadStore,
    key: &ObjectKey,
    version_id: Option<&str>,
) -> Result<Option<Document>, StoreError> {
    with_body(store, key, version_id, async |body| {
        let lock = body.lock;
        let bytes = body.read_to_end(MAX_DOCUMENT_BYTES).await?;
        Ok(Document { sha256: Sha256Digest::of(&bytes), bytes, lock })
    })
    .await
}

/// Reads the archive's own version of a document; nothing if it has none.
///
/// # Errors
/// As [`read_document`].
pub async fn read_own(store: &dyn ReadStore, key: &ObjectKey) -> Result<Option<Document>, StoreError> {
    match versions_of(store, key).await?.own {
        Some(own) => read_document(store, key, own.version_id.as_deref()).await,
        None => Ok(None),
    }
}

/// Opens an object and does something with its bytes, from the start again if they break off; nothing if it is not there.
///
/// # Errors
/// As [`ReadStore::open`] and the work.
pub async fn with_body<T>(
    store: &dyn ReadStore,
    key: &ObjectKey,
    version_id: Option<&str>,
    work: impl AsyncFn(ObjectBody) -> Result<T, StoreError>,
) -> Result<Option<T>, StoreError> {
    let mut failed = 0;
    loop {
        // Opening is tried again by the store itself.
        let Some(body) = store.open(key, version_id).await? else { return Ok(None) };
        let error = match work(body).await {
            Ok(done) => return Ok(Some(done)),
            Err(error) => error,
        };
        failed += 1;
        match BODY_TRIES.wait(failed, None).filter(|_| error.code().is_retryable()) {
            Some(wait) => tokio::time::sleep(wait).await,
            None => return Err(error),
        }
    }
}
