//! Directory: a store for a laptop, for tests and for damaged fixtures, with the manners of a bucket.
//!
//! An object is a read-only file. It is written beside its place under a name that no key has, hashed once more while
//! it is written (this store's own verification of the digest), made durable, and linked into place: the link fails
//! where something stands, which is the put-if-absent. There are no locks and no versions. What a crash leaves beside
//! an object is never listed, and removed when a listing meets it a day later.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::{
    Chunks, Features, ListPage, ListedVersion, ObjectBody, ObjectHead, PageToken, PutOutcome, Store, StoreError,
    StoreReport, Stored, Terms, Upload,
};
use crate::clock::{Clock, Timestamp};
use crate::model::digest::{Checksum, Hasher, Payload, Sha256Digest};
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
        Ok(Self { root, clock })
    }

    fn place(&self, key: &ObjectKey) -> Result<PathBuf, StoreError> {
        place_of(&self.root, key.as_str()).ok_or(StoreError::Unsupported("keep a key that is no plain path"))
    }
}

#[async_trait]
impl Store for DirStore {
    fn features(&self) -> Features {
        Features::default()
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    async fn check(&self) -> Result<StoreReport, StoreError> {
        const ACTION: &str = "look at the directory";
        let root = Arc::clone(&self.root);
        blocking(ACTION, move || {
            fs::read_dir(&root).map_err(|error| io_error(ACTION, &error))?;
            Ok(())
        })
        .await?;
        Ok(StoreReport {
            features: self.features(),
            clock_offset_ms: None,
            default_lock: None,
            locks_assumed: None,
        })
    }

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
        let draft = blocking(ACTION, move || {
            Draft::new(place).map_err(|error| io_error(ACTION, &error))
        })
        .await?;
        Ok(Box::new(DirUpload { draft: Some(draft) }))
    }

    async fn head(&self, key: &ObjectKey, _: Option<&str>) -> Result<Option<ObjectHead>, StoreError> {
        const ACTION: &str = "look at an object";
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
                    let chunks = DirChunks { file: Some(file) };
                    Ok(Some(ObjectBody::new(found.len(), Box::new(chunks))))
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
            after: after.map(|token| token.key),
            sweep_before: self.clock.now().plus_millis(-millis(TEMP_MAX_AGE)),
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
            .map(|last| PageToken {
                key: last.key.as_str().to_owned(),
                version: None,
            });
        Ok(ListPage { versions: found, next })
    }

    async fn extend_lock(&self, _: &ObjectKey, _: Option<&str>, _: Lock) -> Result<(), StoreError> {
        Err(StoreError::Unsupported("lock objects"))
    }
}

/// An object under way in parts, which are appended to one file.
struct DirUpload {
    /// Nothing while a part is being written, and after the end.
    draft: Option<Draft>,
}

impl DirUpload {
    /// Runs blocking work on the draft and keeps the draft, whatever comes of it.
    async fn with_draft<T: Send + 'static>(
        &mut self,
        action: &'static str,
        work: impl FnOnce(&mut Draft) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let mut draft = self
            .draft
            .take()
            .ok_or(StoreError::Unsupported("go on with an upload that has ended"))?;
        let (draft, outcome) = blocking(action, move || {
            let outcome = work(&mut draft);
            Ok((draft, outcome))
        })
        .await?;
        self.draft = Some(draft);
        outcome
    }
}

#[async_trait]
impl Upload for DirUpload {
    async fn put_part(&mut self, part: &Payload) -> Result<(), StoreError> {
        const ACTION: &str = "write a part";
        let part = part.clone();
        self.with_draft(ACTION, move |draft| draft.append(ACTION, part.segments()))
            .await
    }

    async fn complete(&mut self, sha256: Sha256Digest) -> Result<PutOutcome, StoreError> {
        const ACTION: &str = "complete an upload";
        self.with_draft(ACTION, move |draft| draft.publish(ACTION, sha256))
            .await
    }

    async fn abort(&mut self) -> Result<(), StoreError> {
        const ACTION: &str = "give up an upload";
        let draft = self.draft.take();
        blocking(ACTION, move || {
            drop(draft);
            Ok(())
        })
        .await
    }
}

/// A file beside its place; gone when dropped.
struct Draft {
    file: File,
    temp: PathBuf,
    place: PathBuf,
    size_bytes: u64,
    hasher: Hasher,
}

impl Draft {
    fn new(place: PathBuf) -> io::Result<Self> {
        let directory = parent_of(&place);
        make_dirs(directory)?;
        let temp = directory.join(format!("{TEMP_PREFIX}{}", uuid::Uuid::new_v4()));
        let file = OpenOptions::new().write(true).create_new(true).open(&temp)?;
        Ok(Self {
            file,
            temp,
            place,
            size_bytes: 0,
            hasher: Hasher::default(),
        })
    }

    /// Adds bytes, all of them or none.
    fn append(&mut self, action: &'static str, segments: &[Bytes]) -> Result<(), StoreError> {
        let mut hasher = self.hasher.clone();
        let mut size_bytes = self.size_bytes;
        let written = segments.iter().try_for_each(|segment| {
            self.file.write_all(segment)?;
            hasher.update(segment);
            size_bytes += segment.len() as u64;
            Ok(())
        });
        if let Err(error) = written {
            self.file
                .set_len(self.size_bytes)
                .and_then(|()| self.file.seek(SeekFrom::Start(self.size_bytes)))
                .map_err(|error| io_error(action, &error))?;
            return Err(io_error(action, &error));
        }
        self.hasher = hasher;
        self.size_bytes = size_bytes;
        Ok(())
    }

    /// Makes the object appear. Its bytes are durable before its name exists, and its name before this returns.
    fn publish(&mut self, action: &'static str, sha256: Sha256Digest) -> Result<PutOutcome, StoreError> {
        if self.hasher.clone().finish() != sha256 {
            return Err(StoreError::Checksum { action });
        }
        let linked = self
            .file
            .set_permissions(Permissions::from_mode(OBJECT_MODE))
            .and_then(|()| self.file.sync_all())
            .and_then(|()| fs::hard_link(&self.temp, &self.place));
        match linked {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => return taken(action, &self.place),
            Err(error) => return Err(link_error(action, &error)),
        }
        sync_dir(parent_of(&self.place)).map_err(|error| io_error(action, &error))?;
        Ok(PutOutcome::Created(Stored {
            version_id: None,
            checksum: Checksum::full(sha256),
        }))
    }
}

/// Whoever linked the object may have died before its name was durable, and the caller goes on as if it were.
fn taken(action: &'static str, place: &Path) -> Result<PutOutcome, StoreError> {
    sync_dir(parent_of(place)).map_err(|error| io_error(action, &error))?;
    Ok(PutOutcome::Taken)
}

impl Drop for Draft {
    fn drop(&mut self) {
        // The object, if it came to be, has its own link. What cannot be removed here is swept later.
        let _ = fs::remove_file(&self.temp);
    }
}

struct DirChunks {
    /// Nothing while a chunk is being read, and after the end.
    file: Option<File>,
}

#[async_trait]
impl Chunks for DirChunks {
    async fn next(&mut self) -> Result<Option<Bytes>, StoreError> {
        const ACTION: &str = "read an object";
        let Some(mut file) = self.file.take() else {
            return Ok(None);
        };
        let (file, chunk) = blocking(ACTION, move || {
            let mut chunk = Vec::with_capacity(CHUNK_BYTES);
            (&mut file)
                .take(CHUNK_BYTES as u64)
                .read_to_end(&mut chunk)
                .map_err(|error| io_error(ACTION, &error))?;
            Ok((file, chunk))
        })
        .await?;
        if chunk.is_empty() {
            return Ok(None);
        }
        self.file = Some(file);
        Ok(Some(Bytes::from(chunk)))
    }
}

/// A walk in the order of keys that stops with a full page.
struct Listing {
    prefix: String,
    after: Option<String>,
    sweep_before: Timestamp,
    found: Vec<ListedVersion>,
}

impl Listing {
    fn walk_from(&mut self, root: &Path) -> io::Result<()> {
        let folder = self
            .prefix
            .rsplit_once('/')
            .map_or(String::new(), |(folder, _)| format!("{folder}/"));
        match place_of(root, folder.trim_end_matches('/')) {
            Some(start) => self.walk(&start, &folder),
            None if folder.is_empty() => self.walk(root, ""),
            // No key can lie below such a prefix.
            None => Ok(()),
        }
    }

    /// Lists a directory whose keys begin with `folder`. The name of a directory sorts with its slash, as keys do.
    fn walk(&mut self, directory: &Path, folder: &str) -> io::Result<()> {
        let mut entries = match self.read(directory, folder) {
            Err(error) if is_absent(&error) => return Ok(()),
            other => other?,
        };
        entries.sort();
        for (key, path) in entries {
            if self.found.len() == PAGE_ENTRIES {
                break;
            }
            if key.ends_with('/') {
                self.walk(&path, &key)?;
            } else {
                self.add(key, &path)?;
            }
        }
        Ok(())
    }

    fn read(&self, directory: &Path, folder: &str) -> io::Result<Vec<(String, PathBuf)>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(TEMP_PREFIX) {
                self.sweep(&entry.path());
                continue;
            }
            let slash = if entry.file_type()?.is_dir() { "/" } else { "" };
            let key = format!("{folder}{name}{slash}");
            if self.may_hold(&key) {
                entries.push((key, entry.path()));
            }
        }
        Ok(entries)
    }

    /// Tells whether a key, or a key below a folder, is wanted and was not on an earlier page.
    fn may_hold(&self, key: &str) -> bool {
        let is_folder = key.ends_with('/');
        let wanted = key.starts_with(&self.prefix) || (is_folder && self.prefix.starts_with(key));
        let is_left = self
            .after
            .as_deref()
            .is_none_or(|after| key > after || (is_folder && after.starts_with(key)));
        wanted && is_left
    }

    fn add(&mut self, key: String, path: &Path) -> io::Result<()> {
        let found = match fs::metadata(path) {
            Err(error) if is_absent(&error) => return Ok(()),
            other => other?,
        };
        if found.is_file() {
            self.found.push(ListedVersion {
                key: ObjectKey::from_store(key),
                version_id: None,
                size_bytes: found.len(),
                is_delete_marker: false,
                modified_at: modified_at(&found),
            });
        }
        Ok(())
    }

    fn sweep(&self, path: &Path) {
        let is_left_over = fs::metadata(path)
            .ok()
            .and_then(|found| modified_at(&found))
            .is_some_and(|at| at < self.sweep_before);
        if is_left_over {
            // A listing does not fail because a directory is for reading only.
            let _ = fs::remove_file(path);
        }
    }
}

fn modified_at(found: &fs::Metadata) -> Option<Timestamp> {
    let since = found.modified().ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some(Timestamp::from_unix_millis(millis(since)))
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Returns where a key's object lies, or nothing if the key could lead elsewhere.
fn place_of(root: &Path, key: &str) -> Option<PathBuf> {
    let plain = !key.is_empty()
        && key
            .split('/')
            .all(|part| !part.is_empty() && part != "." && part != ".." && !part.starts_with(TEMP_PREFIX))
        && !key.contains('\0')
        && Path::new(key)
            .components()
            .all(|component| matches!(component, Component::Normal(_)));
    plain.then(|| root.join(key))
}

fn parent_of(place: &Path) -> &Path {
    place.parent().unwrap_or(place)
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

/// Makes a directory and what is above it, and makes each new name durable.
fn make_dirs(directory: &Path) -> io::Result<()> {
    match fs::create_dir(directory) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let above = directory.parent().filter(|above| !above.as_os_str().is_empty());
            make_dirs(above.ok_or(error)?)?;
            match fs::create_dir(directory) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
        }
        Err(error) => return Err(error),
    }
    match directory.parent().filter(|above| !above.as_os_str().is_empty()) {
        Some(above) => sync_dir(above),
        None => Ok(()),
    }
}

fn sync_dir(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

async fn blocking<T: Send + 'static>(
    action: &'static str,
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(_) => Err(unavailable(action, "the work was cut off".to_owned())),
    }
}

fn unavailable(action: &'static str, reason: String) -> StoreError {
    StoreError::Unavailable {
        action,
        reason,
        wait: None,
        slow_down: false,
    }
}

fn io_error(action: &'static str, error: &io::Error) -> StoreError {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => StoreError::Full,
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => StoreError::Denied {
            action,
            reason: error.to_string(),
        },
        ErrorKind::NotADirectory => StoreError::Unfit(format!(
            "the store's directory cannot be used ({error}); a part of store.url, or of a key below it, is a file"
        )),
        _ => unavailable(action, error.to_string()),
    }
}

/// Linking fails with codes of its own where the file system has no links.
fn link_error(action: &'static str, error: &io::Error) -> StoreError {
    let no_links = rustix::io::Errno::PERM.raw_os_error();
    if error.raw_os_error() == Some(no_links) || error.kind() == ErrorKind::Unsupported {
        return StoreError::Unfit(
            "the store's file system has no hard links, so nothing can be written only where nothing stands; use another"
                .to_owned(),
        );
    }
    io_error(action, error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use proptest::prelude::*;

    fn terms() -> Terms {
        Terms {
            content_type: "application/octet-stream".to_owned(),
            lock: None,
            is_document: false,
        }
    }

    async fn store() -> (tempfile::TempDir, DirStore) {
        let directory = tempfile::tempdir().unwrap();
        let store = DirStore::open(directory.path().join("new/store"), Arc::new(SystemClock))
            .await
            .unwrap();
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
        for bad in [
            "",
            "/etc/passwd",
            "a/../../b",
            "..",
            "a//b",
            "a/./b",
            "a/",
            "a\0b",
            "a/.tmp-1",
        ] {
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
        File::options()
            .write(true)
            .open(&left)
            .unwrap()
            .set_modified(past)
            .unwrap();
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

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn pages_hold_every_key_once_in_the_order_of_keys(
            names in proptest::collection::btree_set("[a-c]{1,2}(/[a-c.-]{1,2}x){0,2}\\.o", 1..40),
            prefix in "([a-c]{1,2}/?)?",
        ) {
            let directory = tempfile::tempdir().unwrap();
            for name in &names {
                let place = directory.path().join(name);
                fs::create_dir_all(place.parent().unwrap()).unwrap();
                fs::write(place, b"").unwrap();
            }
            let mut after = None;
            let mut listed = Vec::new();
            loop {
                let mut listing = Listing {
                    prefix: prefix.clone(),
                    after,
                    sweep_before: Timestamp::from_unix_seconds(0),
                    found: Vec::new(),
                };
                listing.walk_from(directory.path()).unwrap();
                // Pages of three: what is behind the third is asked for again.
                listing.found.truncate(3);
                let Some(last) = listing.found.last() else { break };
                after = Some(last.key.as_str().to_owned());
                listed.extend(listing.found.into_iter().map(|found| found.key.as_str().to_owned()));
            }
            let expected: Vec<_> = names.into_iter().filter(|name| name.starts_with(&prefix)).collect();
            prop_assert_eq!(listed, expected);
        }
    }
}
