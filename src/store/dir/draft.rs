//! An object before it has its name: written beside its place, made durable, linked into place.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use bytes::Bytes;

use super::{OBJECT_MODE, TEMP_PREFIX, blocking, io_error};
use crate::chance;
use crate::model::digest::{Checksum, Hasher, Payload, Sha256Digest};
use crate::store::{PutOutcome, StoreError, Stored, Upload};

/// An object under way in parts, which are appended to one file.
pub(super) struct DirUpload {
    /// Nothing while a part is being written, and after the end.
    pub(super) draft: Option<Draft>,
}

impl DirUpload {
    /// Runs blocking work on the draft and keeps the draft, whatever comes of it.
    async fn with_draft<T: Send + 'static>(
        &mut self,
        action: &'static str,
        work: impl FnOnce(&mut Draft) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let mut draft = self.draft.take().ok_or(StoreError::Unsupported("continue an upload that has ended"))?;
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
        self.with_draft(ACTION, move |draft| draft.append(ACTION, part.segments())).await
    }

    async fn complete(&mut self, sha256: Sha256Digest) -> Result<PutOutcome, StoreError> {
        const ACTION: &str = "complete an upload";
        self.with_draft(ACTION, move |draft| draft.publish(ACTION, sha256)).await
    }

    async fn abort(&mut self) -> Result<(), StoreError> {
        const ACTION: &str = "abort an upload";
        let draft = self.draft.take();
        blocking(ACTION, move || {
            drop(draft);
            Ok(())
        })
        .await
    }
}

/// A file beside its place; gone when dropped.
pub(super) struct Draft {
    file: File,
    temp: PathBuf,
    place: PathBuf,
    size_bytes: u64,
    hasher: Hasher,
}

impl Draft {
    pub(super) fn new(place: PathBuf) -> io::Result<Self> {
        let directory = parent_of(&place);
        make_dirs(directory)?;
        let temp = directory.join(format!("{TEMP_PREFIX}{}", chance::uuid()));
        let file = OpenOptions::new().write(true).create_new(true).open(&temp)?;
        Ok(Self { file, temp, place, size_bytes: 0, hasher: Hasher::default() })
    }

    /// Adds bytes, all of them or none.
    pub(super) fn append(&mut self, action: &'static str, segments: &[Bytes]) -> Result<(), StoreError> {
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
    pub(super) fn publish(&mut self, action: &'static str, sha256: Sha256Digest) -> Result<PutOutcome, StoreError> {
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
        Ok(PutOutcome::Created(Stored { version_id: None, checksum: Checksum::full(sha256) }))
    }
}

/// Whoever linked the object may have died before its name was durable, and the caller goes on as if it were.
pub(super) fn taken(action: &'static str, place: &Path) -> Result<PutOutcome, StoreError> {
    sync_dir(parent_of(place)).map_err(|error| io_error(action, &error))?;
    Ok(PutOutcome::Taken)
}

impl Drop for Draft {
    fn drop(&mut self) {
        // The object, if it came to be, has its own link. What cannot be removed here is swept later.
        let _ = fs::remove_file(&self.temp);
    }
}

/// Makes a directory and what is above it, and makes each new name durable.
pub(super) fn make_dirs(directory: &Path) -> io::Result<()> {
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

/// Linking fails with codes of its own where the file system has no links.
fn link_error(action: &'static str, error: &io::Error) -> StoreError {
    let no_links = rustix::io::Errno::PERM.raw_os_error();
    if error.raw_os_error() == Some(no_links) || error.kind() == ErrorKind::Unsupported {
        return StoreError::Unfit(
            "the store's file system has no hard links, which are needed to write without overwriting; use another one"
                .to_owned(),
        );
    }
    io_error(action, error)
}

fn parent_of(place: &Path) -> &Path {
    place.parent().unwrap_or(place)
}
