//! Directory: a store for a laptop, for tests and for damaged fixtures, with the manners of a bucket.
//!
//! An object is a read-only file. It is written beside its place under a name that no key has, hashed once more while
//! it is written (this store's own verification of the digest), made durable, and linked into place: the link fails
//! where something stands, which is the put-if-absent. There are no locks and no versions. What a crash leaves beside
//! an object is never listed, and removed when a listing meets it a day later.

mod draft;
mod list;

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use self::draft::{DirUpload, Draft, make_dirs, taken};
use self::list::{Listing, millis};
use super::{
    Chunks, Features, ListPage, ObjectBody, ObjectHead, PageToken, PutOutcome, ReadStore, Store, StoreError,
    StoreReport, Terms, Upload,
};
use crate::clock::{Clock, Timestamp};
use crate::model::digest::Payload;
use crate::model::key::ObjectKey;
use crate::model::retention::Lock;

/// How names of files begin that are not objects; no id of a key begins with a dot.
const TEMP_PREFIX: &str = ".tmp-";

/// A file beside its place that is older than this belongs to no living run.
const TEMP_MAX_AGE: Duration = Duration::from_hours(24);

/// Objects are for reading only: nothing is written to them after they were linked into place.
const OBJECT_MODE: u32 = 0o440;

/// How many entries a page of a listing has, as with S3.
const PAGE_ENTRIES: usize = 1000;

/// How much of an object is read at a time.
const CHUNK_BYTES: usize = 256 * 1024;

/// A directory as a store.
#[derive(Debug, Clone)]
pub struct DirStore {
    root: Arc<Path>,
    clock: Arc<dyn Clock>,
    /// What a crash left is removed when a listing meets it.
    sweeps: bool,
}

impl DirStore {
    /// Opens a directory as a store and makes it where it does not exist.
    ///
    /// # Errors
    /// Fatal: it cannot be made or is no directory. Retryable: no space.
    pub async fn open(root: impl Into<PathBuf>, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        const ACTION: &str = "open the directory";
        let root: Arc<Path> = root.into().into();
        let made = Arc::clone(&root);
        blocking(ACTION, move || {
            make_dirs(&made).map_err(|error| io_error(ACTION, &error))?;
            if made.is_dir() {
                Ok(())
            } else {
                Err(StoreError::Unfit("store.url names a file, not a directory".to_owned()))
            }
        })
        .await?;
        Ok(Self { root, clock, sweeps: true })
    }

    /// Takes a directory as a store that is only looked at: nothing is made in it, and nothing is swept.
    #[must_use]
    pub fn to_read(root: impl Into<PathBuf>, clock: Arc<dyn Clock>) -> Self {
        Self { root: root.into().into(), clock, sweeps: false }
    }

    fn place(&self, key: &ObjectKey) -> Result<PathBuf, StoreError> {
        place_of(&self.root, key.as_str()).ok_or(StoreError::Unsupported("store a key that is not a plain path"))
    }
}

#[async_trait]
impl ReadStore for DirStore {
    fn features(&self) -> Features {
        Features::default()
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    async fn principal(&self) -> Option<String> {
        Some(format!("uid {}", rustix::process::geteuid().as_raw()))
    }

    async fn check(&self) -> Result<StoreReport, StoreError> {
        const ACTION: &str = "inspect the directory";
        let root = Arc::clone(&self.root);
        blocking(ACTION, move || match fs::read_dir(&root) {
            Ok(_) => Ok(()),
            Err(error) if is_absent(&error) => {
                Err(StoreError::Unfit(format!("there is no directory {}; check store.url", root.display())))
            }
            Err(error) => Err(io_error(ACTION, &error)),
        })
        .await?;
        Ok(StoreReport { features: self.features(), clock_offset_ms: None, default_lock: None, locks_assumed: None })
    }

    async fn head(&self, key: &ObjectKey, _: Option<&str>) -> Result<Option<ObjectHead>, StoreError> {
        const ACTION: &str = "inspect an object";
        let place = self.place(key)?;
        blocking(ACTION, move || match fs::metadata(&place) {
            Ok(found) if found.is_file() => Ok(Some(ObjectHead {
                version_id: None,
                size_bytes: found.len(),
                // A file system keeps none; whoever needs the digest reads the bytes.
                checksum: None,
                lock: None,
                kms_key_id: None,
            })),
            Ok(_) => Ok(None),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(io_error(ACTION, &error)),
        })
        .await
    }

    async fn open(&self, key: &ObjectKey, _: Option<&str>) -> Result<Option<ObjectBody>, StoreError> {
        const ACTION: &str = "read an object";
        let place = self.place(key)?;
        blocking(ACTION, move || {
            let opened = File::open(&place).and_then(|file| Ok((file.metadata()?, file)));
            match opened {
                Ok((found, file)) if found.is_file() => {
                    let chunks = DirChunks { file: Some(file), left: found.len() };
                    Ok(Some(ObjectBody::new(found.len(), None, Box::new(chunks))))
                }
                Ok(_) => Ok(None),
                Err(error) if is_absent(&error) => Ok(None),
                Err(error) => Err(io_error(ACTION, &error)),
            }
        })
        .await
    }

    async fn list(&self, prefix: &str, after: Option<PageToken>) -> Result<ListPage, StoreError> {
        const ACTION: &str = "list objects";
        let mut listing = Listing {
            prefix: prefix.to_owned(),
            after: after.map(|token| match token {
                PageToken::AfterKey(key) => key.as_str().to_owned(),
                PageToken::Page { key, .. } => key,
            }),
            limit: PAGE_ENTRIES,
            sweep_before: self.sweeps.then(|| self.clock.now().plus_millis(-millis(TEMP_MAX_AGE))),
            found: Vec::new(),
        };
        let root = Arc::clone(&self.root);
        let found = blocking(ACTION, move || {
            listing.walk_from(&root).map_err(|error| io_error(ACTION, &error))?;
            Ok(listing.found)
        })
        .await?;
        let next = (found.len() == PAGE_ENTRIES)
            .then(|| found.last())
            .flatten()
            .map(|last| PageToken::AfterKey(last.key.clone()));
        Ok(ListPage { versions: found, next })
    }
}

#[async_trait]
impl Store for DirStore {
    async fn put(&self, key: &ObjectKey, payload: &Payload, _: &Terms) -> Result<PutOutcome, StoreError> {
        const ACTION: &str = "write an object";
        let place = self.place(key)?;
        let payload = payload.clone();
        blocking(ACTION, move || {
            if stands(&place).map_err(|error| io_error(ACTION, &error))? {
                return taken(ACTION, &place);
            }
            let mut draft = Draft::new(place).map_err(|error| io_error(ACTION, &error))?;
            draft.append(ACTION, payload.segments())?;
            draft.publish(ACTION, payload.sha256())
        })
        .await
    }

    async fn start_upload(&self, key: &ObjectKey, _: &Terms) -> Result<Box<dyn Upload>, StoreError> {
        const ACTION: &str = "begin an upload";
        let place = self.place(key)?;
        let draft = blocking(ACTION, move || Draft::new(place).map_err(|error| io_error(ACTION, &error))).await?;
        Ok(Box::new(DirUpload { draft: Some(draft) }))
    }

    async fn extend_lock(&self, _: &ObjectKey, _: Option<&str>, _: Lock) -> Result<(), StoreError> {
        Err(StoreError::Unsupported("lock objects"))
    }
}

struct DirChunks {
    /// Nothing while a chunk is being read, and after the end.
    file: Option<File>,
    /// How many bytes are expected: a short object takes no more memory than it needs.
    left: u64,
}

#[async_trait]
impl Chunks for DirChunks {
    async fn next(&mut self) -> Result<Option<Bytes>, StoreError> {
        const ACTION: &str = "read an object";
        let Some(mut file) = self.file.take() else {
            return Ok(None);
        };
        // One byte more shows the end without a second, larger buffer.
        let expected = usize::try_from(self.left).unwrap_or(CHUNK_BYTES).saturating_add(1).min(CHUNK_BYTES);
        // Made here, where it is also dropped: what a thread for blocking work allocates and another one frees, the
        // allocator keeps for that thread, and there are many of them.
        let mut chunk = Vec::with_capacity(expected);
        let (file, chunk) = blocking(ACTION, move || {
            (&mut file).take(CHUNK_BYTES as u64).read_to_end(&mut chunk).map_err(|error| io_error(ACTION, &error))?;
            Ok((file, chunk))
        })
        .await?;
        if chunk.is_empty() {
            return Ok(None);
        }
        self.file = Some(file);
        self.left = self.left.saturating_sub(chunk.len() as u64);
        Ok(Some(Bytes::from(chunk)))
    }
}

/// Returns where a key's object lies, or nothing if the key could lead elsewhere.
fn place_of(root: &Path, key: &str) -> Option<PathBuf> {
    let plain = !key.is_empty()
        && key.split('/').all(|part| !part.is_empty() && part != "." && part != ".." && !part.starts_with(TEMP_PREFIX))
        && !key.contains('\0')
        && Path::new(key).components().all(|component| matches!(component, Component::Normal(_)));
    plain.then(|| root.join(key))
}

fn stands(place: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(place) {
        Ok(_) => Ok(true),
        Err(error) if is_absent(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

async fn blocking<T: Send + 'static>(
    action: &'static str,
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(_) => Err(unavailable(action, "the work was cut short".to_owned())),
    }
}

fn unavailable(action: &'static str, reason: String) -> StoreError {
    StoreError::Unavailable { action, reason, wait: None, slow_down: false }
}

fn io_error(action: &'static str, error: &io::Error) -> StoreError {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => StoreError::Full,
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            StoreError::Denied { action, reason: error.to_string() }
        }
        ErrorKind::NotADirectory => StoreError::Unfit(format!(
            "the store's directory cannot be used ({error}); a part of store.url, or of a key below it, is a file"
        )),
        _ => unavailable(action, error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::clock::SystemClock;
    use crate::model::digest::Sha256Digest;

    fn terms() -> Terms {
        Terms { content_type: "application/octet-stream".to_owned(), lock: None, is_document: false }
    }

    async fn store() -> (tempfile::TempDir, DirStore) {
        let directory = tempfile::tempdir().unwrap();
        let store = DirStore::open(directory.path().join("new/store"), Arc::new(SystemClock)).await.unwrap();
        (directory, store)
    }

    fn key(text: &str) -> ObjectKey {
        ObjectKey::from_store(text)
    }

    fn files_below(directory: &Path) -> usize {
        fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| if path.is_dir() { files_below(&path) } else { 1 })
            .sum()
    }

    #[test]
    fn a_key_never_leads_out_of_the_directory() {
        let root = Path::new("/store");
        for bad in ["", "/etc/passwd", "a/../../b", "..", "a//b", "a/./b", "a/", "a\0b", "a/.tmp-1"] {
            assert_eq!(place_of(root, bad), None, "{bad:?}");
        }
        assert_eq!(place_of(root, "a/b.c"), Some(PathBuf::from("/store/a/b.c")));
    }

    #[tokio::test]
    async fn an_object_is_for_reading_only_and_nothing_lies_beside_it() {
        let (_guard, store) = store().await;
        let payload = Payload::of(b"bytes".to_vec());
        store.put(&key("a/b"), &payload, &terms()).await.unwrap();
        let place = store.root.join("a/b");
        assert_eq!(fs::metadata(&place).unwrap().permissions().mode() & 0o777, OBJECT_MODE);
        assert_eq!(files_below(&store.root), 1);
    }

    #[tokio::test]
    async fn a_wrong_digest_leaves_nothing() {
        let (_guard, store) = store().await;
        let payload = Payload::hashed(vec![Bytes::from_static(b"bytes")], Sha256Digest::of(b"other"));
        let error = store.put(&key("a/b"), &payload, &terms()).await.unwrap_err();
        assert!(matches!(error, StoreError::Checksum { .. }), "{error}");
        assert_eq!(files_below(&store.root), 0);
    }

    #[tokio::test]
    async fn an_upload_that_is_dropped_leaves_nothing() {
        let (_guard, store) = store().await;
        let mut upload = store.start_upload(&key("a/b"), &terms()).await.unwrap();
        upload.put_part(&Payload::of(b"bytes".to_vec())).await.unwrap();
        assert_eq!(files_below(&store.root), 1);
        drop(upload);
        assert_eq!(files_below(&store.root), 0);
    }

    #[tokio::test]
    async fn what_a_crash_left_is_not_listed_and_goes_after_a_day() {
        let (_guard, store) = store().await;
        let left = store.root.join(".tmp-left");
        let young = store.root.join(".tmp-young");
        fs::write(&left, b"half").unwrap();
        fs::write(&young, b"half").unwrap();
        let past = std::time::UNIX_EPOCH + Duration::from_hours(24);
        File::options().write(true).open(&left).unwrap().set_modified(past).unwrap();
        let page = store.list("", None).await.unwrap();
        assert_eq!(page.versions, []);
        assert!(!left.exists());
        assert!(young.exists());
    }

    #[test]
    fn errors_of_the_file_system_have_their_meaning() {
        use crate::error::Code;
        let cases = [
            (ErrorKind::StorageFull, Code::StoreFull),
            (ErrorKind::QuotaExceeded, Code::StoreFull),
            (ErrorKind::PermissionDenied, Code::StoreDenied),
            (ErrorKind::ReadOnlyFilesystem, Code::StoreDenied),
            (ErrorKind::NotADirectory, Code::StorePolicy),
            (ErrorKind::TimedOut, Code::StoreUnavailable),
        ];
        for (kind, code) in cases {
            assert_eq!(io_error("write", &io::Error::from(kind)).code(), code, "{kind}");
        }
    }
}
