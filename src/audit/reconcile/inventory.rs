//! Inventory: an S3 Inventory report in place of a listing.
//!
//! A report is a `manifest.json` and files of comma-separated values, which name every version of every key; S3 does not say
//! in which order. So the rows are sorted here, in runs of bounded size in temporary files, which are then merged. Format:
//! Amazon S3 User Guide, "Amazon S3 Inventory": the columns are those of `fileSchema`, keys are URL-encoded.

use std::cmp::Ordering;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek as _, SeekFrom};
use std::path::Path;

use flate2::read::MultiGzDecoder;
use serde::Deserialize;

use super::spool::{Sorted, Spool, Spooled};
use crate::audit::walk::WalkedSession;
use crate::clock::Timestamp;
use crate::model::key::ObjectKey;
use crate::store::ListedVersion;
use crate::store::versions::KeyVersions;

/// How many rows are sorted in memory at once: some 60 MiB of them.
const RUN_ROWS: usize = 250_000;

/// The columns of a report whose files bear no names of their own.
const COLUMNS: [&str; 7] = ["Bucket", "Key", "VersionId", "IsLatest", "IsDeleteMarker", "Size", "LastModifiedDate"];

/// The `manifest.json` of a report, as far as it is needed.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReportManifest {
    /// The bucket that was listed.
    pub source_bucket: String,
    /// Where the files are, as an ARN.
    pub destination_bucket: String,
    /// `CSV`; others are not read.
    pub file_format: String,
    /// The columns, separated by commas.
    pub file_schema: String,
    /// The files.
    pub files: Vec<ReportFile>,
}

/// One file of a report.
#[derive(Debug, Deserialize)]
pub struct ReportFile {
    /// Its key in the destination bucket.
    pub key: String,
}

/// Why a report cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InventoryError {
    /// It cannot be read or sorted.
    #[error("the inventory report cannot be read")]
    Io(#[from] io::Error),
    /// It is not one.
    #[error("the inventory report {place}: {reason}")]
    Form {
        /// Which file and line.
        place: String,
        /// What is wrong.
        reason: String,
    },
}

/// One row, as it is sorted.
#[derive(Debug, Clone, PartialEq, Eq)]
struct InventoryRow {
    key: String,
    /// Within a key the oldest comes first, and the latest last, however they are dated.
    is_latest: bool,
    modified_millis: i64,
    version_id: Option<String>,
    size_bytes: u64,
    is_delete_marker: bool,
}

impl InventoryRow {
    fn place(&self) -> (&str, bool, i64) {
        (&self.key, self.is_latest, self.modified_millis)
    }

    fn into_listed(self) -> ListedVersion {
        ListedVersion {
            key: ObjectKey::from_store(self.key),
            version_id: self.version_id,
            size_bytes: self.size_bytes,
            is_delete_marker: self.is_delete_marker,
            modified_at: Some(Timestamp::from_unix_millis(self.modified_millis)),
        }
    }
}

impl Spooled for InventoryRow {
    fn write(&self, out: &mut dyn io::Write) -> io::Result<()> {
        let (latest, marker) = (u8::from(self.is_latest), u8::from(self.is_delete_marker));
        let version = self.version_id.as_deref().unwrap_or_default();
        write!(out, "{}\t{latest}\t{}\t{version}\t{}\t{marker}", self.key, self.modified_millis, self.size_bytes)
    }

    fn read(line: &str) -> Option<Self> {
        let mut fields = line.split('\t');
        Some(Self {
            key: fields.next()?.to_owned(),
            is_latest: fields.next()? == "1",
            modified_millis: fields.next()?.parse().ok()?,
            version_id: fields.next().filter(|version| !version.is_empty()).map(str::to_owned),
            size_bytes: fields.next()?.parse().ok()?,
            is_delete_marker: fields.next()? == "1",
        })
    }

    fn order(&self, other: &Self) -> Ordering {
        self.place().cmp(&other.place())
    }
}

/// Takes the files of a report and sorts them.
#[derive(Debug)]
pub struct Sorter {
    bucket: String,
    prefix: String,
    columns: Vec<String>,
    rows: Spool<InventoryRow>,
    passed_over: u64,
}

impl Sorter {
    /// Begins a report of this bucket, of which the keys below a prefix are the archive's.
    #[must_use]
    pub fn of(bucket: &str, prefix: &str) -> Self {
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        Self {
            bucket: bucket.to_owned(),
            prefix,
            columns: COLUMNS.map(str::to_owned).to_vec(),
            rows: Spool::of(RUN_ROWS),
            passed_over: 0,
        }
    }

    /// Takes the columns from the manifest of the report.
    ///
    /// # Errors
    /// Permanent: the report is of another bucket or form, or lacks a column.
    pub fn take_manifest(&mut self, bytes: &[u8]) -> Result<ReportManifest, InventoryError> {
        let form = |reason: String| InventoryError::Form { place: "manifest.json".to_owned(), reason };
        let manifest: ReportManifest = serde_json::from_slice(bytes).map_err(|error| form(error.to_string()))?;
        if !manifest.file_format.eq_ignore_ascii_case("CSV") {
            return Err(form(format!("its format is {}, and only CSV is read", manifest.file_format)));
        }
        if manifest.source_bucket != self.bucket {
            return Err(form(format!("it is of bucket {}, not of {}", manifest.source_bucket, self.bucket)));
        }
        self.columns = manifest.file_schema.split(',').map(|column| column.trim().to_owned()).collect();
        for needed in ["Bucket", "Key", "Size"] {
            if !self.columns.iter().any(|column| column == needed) {
                return Err(form(format!("it has no column {needed}")));
            }
        }
        Ok(manifest)
    }

    /// Takes one file, compressed or not.
    ///
    /// # Errors
    /// Retryable: it cannot be read. Permanent: it is no such file.
    pub fn take_file(&mut self, path: &Path, name: &str) -> Result<(), InventoryError> {
        let mut file = File::open(path)?;
        let mut magic = [0; 2];
        let is_gzip = file.read(&mut magic)? == 2 && magic == [0x1f, 0x8b];
        file.seek(SeekFrom::Start(0))?;
        let reader = BufReader::with_capacity(1 << 20, file);
        if is_gzip { self.take(MultiGzDecoder::new(reader), name) } else { self.take(reader, name) }
    }

    fn take(&mut self, reader: impl Read, name: &str) -> Result<(), InventoryError> {
        let at = |wanted: &str| self.columns.iter().position(|column| column == wanted);
        let form = |line: u64, reason: &str| InventoryError::Form {
            place: format!("{name}, line {line}"),
            reason: reason.to_owned(),
        };
        let (bucket, key, size) = (at("Bucket"), at("Key"), at("Size"));
        let (Some(bucket), Some(key), Some(size)) = (bucket, key, size) else {
            return Err(form(0, "it lacks a column"));
        };
        let (version, latest, marker) = (at("VersionId"), at("IsLatest"), at("IsDeleteMarker"));
        let modified = at("LastModifiedDate");
        let mut lines = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(reader);
        let mut record = csv::StringRecord::new();
        loop {
            let line = lines.position().line();
            match lines.read_record(&mut record) {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(error) if error.is_io_error() => return Err(io::Error::other(error).into()),
                Err(_) => return Err(form(line, "it is not comma-separated values")),
            }
            let field = |at: Option<usize>| at.and_then(|at| record.get(at)).filter(|text| !text.is_empty());
            let Some(key) = field(Some(key)) else {
                return Err(form(line, "it has no key"));
            };
            let bucket = record.get(bucket).unwrap_or_default();
            let key = decoded(key).ok_or_else(|| form(line, "its key is not URL-encoded text"))?;
            if bucket != self.bucket || !key.starts_with(&self.prefix) {
                self.passed_over += 1;
                continue;
            }
            let is_delete_marker = field(marker) == Some("true");
            let size_bytes = match field(Some(size)) {
                Some(text) => text.parse().map_err(|_| form(line, "its size is not a number"))?,
                None if is_delete_marker => 0,
                None => return Err(form(line, "it has no size")),
            };
            let modified_at: Option<Timestamp> = field(modified).and_then(|text| text.parse().ok());
            self.rows.push(InventoryRow {
                key: key[self.prefix.len()..].to_owned(),
                is_latest: field(latest).is_none_or(|text| text == "true"),
                modified_millis: modified_at.map_or(0, Timestamp::unix_millis),
                version_id: field(version).filter(|id| *id != "null").map(str::to_owned),
                size_bytes,
                is_delete_marker,
            })?;
        }
    }

    /// Ends the report; its rows are now to be had in order.
    ///
    /// # Errors
    /// Retryable: the disk.
    pub fn finish(self) -> Result<Inventory, InventoryError> {
        let has_versions = self.columns.iter().any(|column| column == "VersionId");
        let mut rows = self.rows.finish()?;
        Ok(Inventory { ahead: rows.next()?, rows, passed_over: self.passed_over, has_versions })
    }
}

/// A sorted report.
#[derive(Debug)]
pub struct Inventory {
    rows: Sorted<InventoryRow>,
    ahead: Option<InventoryRow>,
    /// Rows of other buckets, or outside the prefix.
    pub passed_over: u64,
    /// It lists all versions of a key, not the current one alone.
    pub has_versions: bool,
}

impl Inventory {
    /// Returns the next keys for as long as their rows are the same by this measure as the first of them.
    fn next_group(
        &mut self,
        same: impl Fn(&InventoryRow, &InventoryRow) -> bool,
    ) -> Result<Vec<KeyVersions>, InventoryError> {
        let Some(first) = self.ahead.take() else { return Ok(Vec::new()) };
        let mut group = Vec::new();
        loop {
            let next = self.rows.next()?;
            match next {
                Some(next) if same(&first, &next) => group.push(next),
                other => {
                    self.ahead = other;
                    break;
                }
            }
        }
        let rows = std::iter::once(first).chain(group);
        Ok(KeyVersions::group_sorted(rows.map(InventoryRow::into_listed).collect()))
    }

    /// Returns the next session; keys that belong to none are passed over, see [`Inventory::next_other`].
    ///
    /// # Errors
    /// Retryable: the disk.
    pub fn next_session(&mut self) -> Result<Option<WalkedSession>, InventoryError> {
        let in_sessions = |row: &InventoryRow| row.key.starts_with("sessions/");
        if !self.ahead.as_ref().is_some_and(in_sessions) {
            return Ok(None);
        }
        let same = |first: &InventoryRow, next: &InventoryRow| {
            in_sessions(next) && folder_of(&first.key) == folder_of(&next.key)
        };
        let keys = self.next_group(same)?;
        let folder = keys.first().map(|first| folder_of(first.key.as_str()).to_owned());
        Ok(folder.map(|folder| WalkedSession { folder, keys }))
    }

    /// Passes over the sessions up to a place in the order of keys.
    ///
    /// # Errors
    /// Retryable: the disk.
    pub fn skip_sessions(&mut self, up_to: &str) -> Result<(), InventoryError> {
        let is_done = |row: &InventoryRow| {
            row.key.starts_with("sessions/") && format!("{}/", folder_of(&row.key)).as_str() <= up_to
        };
        while self.ahead.as_ref().is_some_and(is_done) {
            self.ahead = self.rows.next()?;
        }
        Ok(())
    }

    /// Returns the next key that belongs to no session; nothing before the first session and at the end.
    ///
    /// # Errors
    /// Retryable: the disk.
    pub fn next_other(&mut self) -> Result<Option<KeyVersions>, InventoryError> {
        if self.ahead.as_ref().is_none_or(|row| row.key.starts_with("sessions/")) {
            return Ok(None);
        }
        Ok(self.next_group(|first, next| first.key == next.key)?.pop())
    }
}

fn folder_of(key: &str) -> &str {
    let below = key.strip_prefix("sessions/").unwrap_or_default();
    below.split_once('/').map_or(below, |(folder, _)| folder)
}

/// Undoes URL encoding, in which a plus is a space.
fn decoded(text: &str) -> Option<String> {
    if !text.contains(['%', '+']) {
        return (!text.contains(['\t', '\n'])).then(|| text.to_owned());
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
            }
            byte => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).ok().filter(|text| !text.contains(['\t', '\n']))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(files: &[&str]) -> Inventory {
        let folder = tempfile::tempdir().unwrap();
        let mut sorter = Sorter::of("b", "p");
        for (number, text) in files.iter().enumerate() {
            let path = folder.path().join(number.to_string());
            std::fs::write(&path, text).unwrap();
            sorter.take_file(&path, "a file").unwrap();
        }
        sorter.finish().unwrap()
    }

    #[test]
    fn files_in_any_order_are_sorted_by_key_and_age() {
        let mut inventory = sorted(&[
            "b,p/sessions/b/1/m.jpg,v1,true,false,5,2026-01-01T00:00:00.000Z\nb,elsewhere,v1,true,false,1,2026-01-01T00:00:00.000Z\n",
            "b,p/archive.json,v0,true,false,9,2026-01-01T00:00:00.000Z\n\
             b,p/sessions/a/1/m.jpg,v2,true,true,,2026-01-02T00:00:00.000Z\n\
             b,p/sessions/a/1/m.jpg,v1,false,false,7,2026-01-01T00:00:00.000Z\n\
             b,p/sessions/a-1/1/m%201.jpg,v1,true,false,7,2026-01-01T00:00:00.000Z\n",
        ]);
        assert_eq!(inventory.passed_over, 1);
        let other = inventory.next_other().unwrap().unwrap();
        assert_eq!(other.key.as_str(), "archive.json");
        assert_eq!(inventory.next_other().unwrap(), None);
        let mut found = Vec::new();
        while let Some(session) = inventory.next_session().unwrap() {
            let versions = session.keys.iter().flat_map(KeyVersions::all);
            let versions: Vec<_> = versions.map(|it| (it.version_id.clone().unwrap(), it.is_delete_marker)).collect();
            found.push((session.folder, versions));
        }
        let one = |folder: &str| (folder.to_owned(), vec![("v1".to_owned(), false)]);
        let two = ("a".to_owned(), vec![("v1".to_owned(), false), ("v2".to_owned(), true)]);
        assert_eq!(found, [one("a-1"), two, one("b")]);
    }

    #[test]
    fn a_report_of_another_bucket_or_form_is_refused() {
        let manifest = |bucket: &str, format: &str, schema: &str| {
            serde_json::json!({"sourceBucket": bucket, "destinationBucket": "arn:aws:s3:::d", "fileFormat": format,
                "fileSchema": schema, "files": []})
        };
        let refused = |manifest: serde_json::Value| {
            Sorter::of("b", "").take_manifest(manifest.to_string().as_bytes()).unwrap_err().to_string()
        };
        assert!(refused(manifest("c", "CSV", "Bucket, Key, Size")).contains("bucket c"));
        assert!(refused(manifest("b", "Parquet", "Bucket, Key, Size")).contains("Parquet"));
        assert!(refused(manifest("b", "CSV", "Bucket, Key")).contains("Size"));
    }
}
