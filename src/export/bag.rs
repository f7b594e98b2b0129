//! Bag: files on their way into a BagIt 1.0 bag (RFC 8493), a directory or a zip of one.
//!
//! Written beside its place under a name that begins with a dot, and given its own only when everything is in it and on
//! the disk, so that half a bag never looks like a whole one. Each file is hashed as it is written; what turns out not to
//! be what it should is taken out again. Only its owner may read a bag. Memory does not grow with bytes; a zip holds its table of contents.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, BufRead as _, BufReader, BufWriter, Seek as _, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tempfile::{NamedTempFile, TempDir};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

use crate::clock::Timestamp;
use crate::model::digest::{Hasher, Sha256Digest};

/// What the names of unfinished bags end with.
const SUFFIX: &str = ".partial";

/// The declaration of every bag.
const DECLARATION: &str = "BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n";

/// The form of a bag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// A directory.
    Directory,
    /// A zip that holds the directory.
    Zip,
}

impl Form {
    /// Returns the name that events and answers use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Directory => "directory",
            Self::Zip => "zip",
        }
    }
}

/// A bag under way; gone when dropped.
pub(super) struct Bag {
    place: PathBuf,
    target: Target,
    open: Option<OpenFile>,
    /// The lines of the payload's manifest.
    payload: Lines,
    /// The lines of the tag files' manifest.
    tags: Vec<String>,
    /// What the payload has so far.
    pub(super) totals: Totals,
}

/// Files and bytes of a payload.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) files: u64,
    pub(super) bytes: u64,
}

/// A file being written.
struct OpenFile {
    path: String,
    hasher: Hasher,
    size_bytes: u64,
}

enum Target {
    Directory { folder: TempDir, file: Option<BufWriter<File>> },
    Zip { writer: Box<ZipWriter<File>>, temp: NamedTempFile, root: String, options: SimpleFileOptions, start: u64 },
}

/// Lines set aside in a nameless file beside the bag.
pub(super) struct Lines(BufWriter<File>);

impl Lines {
    pub(super) fn new(beside: &Path) -> io::Result<Self> {
        Ok(Self(BufWriter::new(tempfile::tempfile_in(parent_of(beside))?)))
    }

    pub(super) fn add(&mut self, text: &str) -> io::Result<()> {
        self.0.write_all(text.as_bytes())
    }

    /// Copies all of it.
    pub(super) fn copy_to(self, bag: &mut Bag) -> io::Result<()> {
        let mut file = self.0.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.rewind()?;
        let mut reader = BufReader::new(file);
        loop {
            let bytes = reader.fill_buf()?;
            if bytes.is_empty() {
                return Ok(());
            }
            bag.write(bytes)?;
            let taken = bytes.len();
            reader.consume(taken);
        }
    }
}

impl Bag {
    /// Begins a bag for a place where nothing exists.
    pub(super) fn create(place: &Path, form: Form, at: Timestamp) -> io::Result<Self> {
        let parent = parent_of(place);
        let name = name_of(place)?;
        let prefix = format!(".{name}.");
        let mut builder = tempfile::Builder::new();
        let mode = if form == Form::Directory { 0o700 } else { 0o600 };
        builder.prefix(&prefix).suffix(SUFFIX).permissions(Permissions::from_mode(mode));
        let target = match form {
            Form::Directory => Target::Directory { folder: builder.tempdir_in(parent)?, file: None },
            Form::Zip => {
                let temp = builder.tempfile_in(parent)?;
                let writer = Box::new(ZipWriter::new(temp.reopen()?));
                let root = name.strip_suffix(".zip").filter(|root| !root.is_empty()).unwrap_or(&name).to_owned();
                let options = SimpleFileOptions::default()
                    .compression_method(CompressionMethod::Stored)
                    .last_modified_time(zip_time(at))
                    .unix_permissions(0o644);
                Target::Zip { writer, temp, root, options, start: 0 }
            }
        };
        let payload = Lines::new(place)?;
        Ok(Self { place: place.to_owned(), target, open: None, payload, tags: Vec::new(), totals: Totals::default() })
    }

    /// Begins a file; `size_bytes` is the most that it may get.
    pub(super) fn begin(&mut self, path: &str, size_bytes: u64) -> io::Result<()> {
        match &mut self.target {
            Target::Directory { folder, file } => {
                let path = folder.path().join(path);
                fs::create_dir_all(parent_of(&path))?;
                *file = Some(BufWriter::new(OpenOptions::new().write(true).create_new(true).open(path)?));
            }
            Target::Zip { writer, temp, root, options, start } => {
                *start = temp.as_file().metadata()?.len();
                let is_large = size_bytes >= u64::from(u32::MAX);
                writer.start_file(format!("{root}/{path}"), options.large_file(is_large))?;
            }
        }
        self.open = Some(OpenFile { path: path.to_owned(), hasher: Hasher::default(), size_bytes: 0 });
        Ok(())
    }

    /// Writes on in the file that was begun.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let open = self.open.as_mut().ok_or_else(|| io::Error::other("no file of the bag is open"))?;
        open.hasher.update(bytes);
        open.size_bytes += bytes.len() as u64;
        match &mut self.target {
            Target::Directory { file: Some(file), .. } => file.write_all(bytes),
            Target::Directory { file: None, .. } => Err(io::Error::other("no file of the bag is open")),
            Target::Zip { writer, .. } => writer.write_all(bytes),
        }
    }

    /// Reports the digest and length of what was written into the file so far.
    pub(super) fn written(&self) -> Option<(Sha256Digest, u64)> {
        self.open.as_ref().map(|open| (open.hasher.clone().finish(), open.size_bytes))
    }

    /// Ends the file and keeps it.
    pub(super) fn keep(&mut self) -> io::Result<()> {
        let Some(open) = self.open.take() else { return Ok(()) };
        if let Target::Directory { file, .. } = &mut self.target
            && let Some(mut file) = file.take()
        {
            file.flush()?;
        }
        let line = format!("{}  {}\n", open.hasher.finish(), open.path);
        if open.path.starts_with("data/") {
            self.totals.files += 1;
            self.totals.bytes += open.size_bytes;
            self.payload.add(&line)
        } else {
            self.tags.push(line);
            Ok(())
        }
    }

    /// Takes the file out again.
    pub(super) fn discard(&mut self) -> io::Result<()> {
        let Some(open) = self.open.take() else { return Ok(()) };
        match &mut self.target {
            Target::Directory { folder, file } => {
                drop(file.take());
                fs::remove_file(folder.path().join(open.path))
            }
            Target::Zip { writer, temp, start, .. } => {
                writer.abort_file()?;
                // The writer only goes back to where the file began; its bytes must not stay behind in the zip either.
                temp.as_file().set_len(*start)
            }
        }
    }

    /// Writes a whole file.
    pub(super) fn add(&mut self, path: &str, bytes: &[u8]) -> io::Result<()> {
        self.begin(path, bytes.len() as u64)?;
        self.write(bytes)?;
        self.keep()
    }

    /// Writes the tag files, and gives the bag its name once it is on the disk.
    pub(super) fn finish(mut self, info: &[(&str, String)]) -> io::Result<()> {
        self.add("bagit.txt", DECLARATION.as_bytes())?;
        let info: Vec<String> =
            info.iter().map(|(label, value)| format!("{label}: {}\n", on_one_line(value))).collect();
        self.add("bag-info.txt", info.concat().as_bytes())?;
        let payload = std::mem::replace(&mut self.payload, Lines::new(&self.place)?);
        self.begin("manifest-sha256.txt", u64::MAX)?;
        payload.copy_to(&mut self)?;
        self.keep()?;
        let tags = self.tags.concat();
        self.add("tagmanifest-sha256.txt", tags.as_bytes())?;
        match self.target {
            Target::Directory { folder, .. } => {
                sync_all_below(folder.path())?;
                expect_free(&self.place)?;
                fs::rename(folder.path(), &self.place)?;
                // It has gone to its place; there is nothing left to remove.
                drop(folder.keep());
            }
            Target::Zip { writer, temp, .. } => {
                writer.finish()?.sync_all()?;
                temp.persist_noclobber(&self.place).map_err(|error| error.error)?;
            }
        }
        File::open(parent_of(&self.place))?.sync_all()
    }
}

/// Refuses a place where something exists.
pub(super) fn expect_free(place: &Path) -> io::Result<()> {
    match fs::symlink_metadata(place) {
        Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Finds what exports to this place left behind that did not come to their end, or have not yet.
pub(super) fn leftovers(place: &Path) -> io::Result<Vec<PathBuf>> {
    let prefix = format!(".{}.", name_of(place)?);
    let mut found = Vec::new();
    for entry in fs::read_dir(parent_of(place))? {
        let entry = entry?;
        let name = entry.file_name();
        if name.to_str().is_some_and(|name| name.starts_with(&prefix) && name.ends_with(SUFFIX)) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

fn name_of(place: &Path) -> io::Result<String> {
    let name = place.file_name().and_then(|name| name.to_str()).map(str::to_owned);
    name.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the path does not end in a name"))
}

fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Makes everything below a folder durable in one step: syncing each of very many files alone takes far longer.
fn sync_all_below(folder: &Path) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    rustix::fs::syncfs(File::open(folder)?)?;
    #[cfg(not(target_os = "linux"))]
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_all_below(&entry.path())?;
        } else {
            File::open(entry.path())?.sync_all()?;
        }
    }
    Ok(())
}

fn zip_time(at: Timestamp) -> DateTime {
    let at = at.utc();
    let part = |part: i8| u8::try_from(part).unwrap_or_default();
    DateTime::from_date_and_time(
        u16::try_from(at.year()).unwrap_or_default(),
        part(at.month()),
        part(at.day()),
        part(at.hour()),
        part(at.minute()),
        part(at.second()),
    )
    .unwrap_or_default()
}

/// A value of bag-info.txt ends with its line.
fn on_one_line(text: &str) -> String {
    text.split(|c: char| c.is_control() || c.is_whitespace())
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    fn at() -> Timestamp {
        "2026-11-25T07:00:00Z".parse().unwrap()
    }

    fn fill(mut bag: Bag) {
        bag.add("data/a.txt", b"kept").unwrap();
        bag.begin("data/b.txt", 1 << 20).unwrap();
        let long = vec![7; 1 << 20];
        bag.write(&long).unwrap();
        assert_eq!(bag.written(), Some((Sha256Digest::of(&long), 1 << 20)));
        bag.discard().unwrap();
        assert_eq!(bag.totals, Totals { files: 1, bytes: 4 });
        bag.finish(&[("Bag-Count", "1\nof 1".to_owned())]).unwrap();
    }

    #[test]
    fn a_directory_has_what_was_kept_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("bag");
        fill(Bag::create(&place, Form::Directory, at()).unwrap());
        let manifest = fs::read_to_string(place.join("manifest-sha256.txt")).unwrap();
        assert_eq!(manifest, format!("{}  data/a.txt\n", Sha256Digest::of(b"kept")));
        assert_eq!(fs::read_to_string(place.join("bag-info.txt")).unwrap(), "Bag-Count: 1 of 1\n");
        assert!(!place.join("data/b.txt").exists());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_zip_keeps_nothing_of_a_file_that_was_taken_out() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("bag.zip");
        fill(Bag::create(&place, Form::Zip, at()).unwrap());
        assert!(fs::metadata(&place).unwrap().len() < 4096);
        let mut archive = zip::ZipArchive::new(File::open(&place).unwrap()).unwrap();
        let names: Vec<String> = archive.file_names().map(|name| name.unwrap().into_owned()).collect();
        assert_eq!(names.len(), 5, "{names:?}");
        let mut text = String::new();
        archive.by_name("bag/data/a.txt").unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "kept");
    }

    #[test]
    fn an_unfinished_bag_leaves_nothing_and_a_killed_one_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("bag");
        for form in [Form::Directory, Form::Zip] {
            let mut bag = Bag::create(&place, form, at()).unwrap();
            bag.add("data/a.txt", b"kept").unwrap();
            assert_eq!(leftovers(&place).unwrap().len(), 1);
            drop(bag);
            assert!(leftovers(&place).unwrap().is_empty());
        }
        assert!(!place.exists());
    }

    #[test]
    fn a_place_that_is_taken_meanwhile_is_not_written_over() {
        let folder = tempfile::tempdir().unwrap();
        for form in [Form::Directory, Form::Zip] {
            let place = folder.path().join(form.as_str());
            let bag = Bag::create(&place, form, at()).unwrap();
            fs::write(&place, "theirs").unwrap();
            assert_eq!(bag.finish(&[]).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
            assert_eq!(fs::read_to_string(&place).unwrap(), "theirs");
        }
    }
}
