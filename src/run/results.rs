//! Results: one line a session, appended to the file of `--results`.
//!
//! The last thing that is reported about a session, and a valid input: a line repeats every field of its record, so
//! `--only unfinished` can go on from the file alone. A line is written whole, with one call, and only ever appended.

use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _, AsyncWriteExt as _};

use crate::clock::Timestamp;
use crate::error::Code;
use crate::model::SessionId;
use crate::model::digest::Sha256Digest;
use crate::model::key::ObjectKey;
use crate::model::request::SessionRequest;
use crate::session::visit::Outcome;

/// The value of `schema` in a result line.
pub const RESULT_SCHEMA: &str = "veriff-archive/result/v1";

/// What is reported about one session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct ResultLine {
    /// Always `veriff-archive/result/v1`.
    pub schema: &'static str,
    /// The session.
    pub session_id: SessionId,
    /// As the input said.
    pub integration: Option<String>,
    /// As the input said.
    pub decided_at: Option<Timestamp>,
    /// As the input said.
    pub retention_class: Option<String>,
    /// As the input said.
    pub reference: Option<String>,
    /// How the visit ended.
    pub outcome: Outcome,
    /// Why, if it failed or is pending.
    #[schemars(with = "Option<String>")]
    pub code: Option<Code>,
    /// The same for people; nothing about a person.
    pub message: Option<String>,
    /// Nothing is missing from the manifest.
    pub complete: bool,
    /// Nothing more is expected of the session.
    pub settled: bool,
    /// How many media items its manifest holds.
    pub media: u64,
    /// How many bytes they have.
    pub bytes: u64,
    /// The newest manifest, if there is one.
    pub manifest_key: Option<ObjectKey>,
    /// The digest of its bytes.
    pub manifest_sha256: Option<Sha256Digest>,
    /// How many requests to Veriff the visit took.
    pub requests: u64,
    /// How many of them were repetitions.
    pub retries: u64,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
}

impl ResultLine {
    /// Begins a line about a record; everything but its fields and the outcome is empty.
    #[must_use]
    pub fn of(record: SessionRequest, outcome: Outcome) -> Self {
        Self {
            schema: RESULT_SCHEMA,
            session_id: record.session_id,
            integration: record.integration,
            decided_at: record.decided_at,
            retention_class: record.retention_class,
            reference: record.reference,
            outcome,
            code: None,
            message: None,
            complete: false,
            settled: false,
            media: 0,
            bytes: 0,
            manifest_key: None,
            manifest_sha256: None,
            requests: 0,
            retries: 0,
            duration_ms: 0,
        }
    }
}

/// A results file, open for appending.
#[derive(Debug)]
pub struct ResultsFile {
    path: PathBuf,
    file: File,
    /// The last write failed and may have left part of a line.
    is_torn: bool,
}

impl ResultsFile {
    /// Opens the file, creates it if need be, and ends a line that a crash left unfinished. Nothing is ever cut off.
    ///
    /// # Errors
    /// Retryable: the file cannot be opened, read or written.
    pub async fn open(path: &Path) -> Result<Self, ResultsError> {
        let failed = |error| ResultsError::of(path, error);
        let mut file =
            tokio::fs::OpenOptions::new().create(true).read(true).append(true).open(path).await.map_err(failed)?;
        let is_torn = !ends_with_newline(&mut file).await.map_err(failed)?;
        let mut results = Self { path: path.to_owned(), file, is_torn };
        if is_torn {
            results.write(Vec::new()).await?;
        }
        Ok(results)
    }

    /// Appends a line. After a failure the next one begins on a line of its own.
    ///
    /// # Errors
    /// Retryable: the file cannot be written, for want of space or otherwise.
    pub async fn append(&mut self, line: &ResultLine) -> Result<(), ResultsError> {
        let mut bytes = serde_json::to_vec(line).unwrap_or_else(|error| unreachable!("a line is plain JSON: {error}"));
        bytes.push(b'\n');
        self.write(bytes).await
    }

    /// Makes sure that all lines outlast a power failure.
    ///
    /// # Errors
    /// As [`ResultsFile::append`].
    pub async fn finish(self) -> Result<(), ResultsError> {
        match self.file.sync_all().await {
            // A pipe or a terminal has nothing to sync.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
            synced => synced.map_err(|error| ResultsError::of(&self.path, error)),
        }
    }

    async fn write(&mut self, mut bytes: Vec<u8>) -> Result<(), ResultsError> {
        if self.is_torn {
            bytes.insert(0, b'\n');
        }
        self.is_torn = true;
        let written = match self.file.write_all(&bytes).await {
            // The file writes behind our back; only the flush says how it went.
            Ok(()) => self.file.flush().await,
            failed => failed,
        };
        written.map_err(|error| ResultsError::of(&self.path, error))?;
        self.is_torn = false;
        Ok(())
    }
}

/// Returns whether the next line can begin where the file ends. A pipe or a device always can.
async fn ends_with_newline(file: &mut File) -> io::Result<bool> {
    let metadata = file.metadata().await?;
    if !metadata.is_file() || metadata.len() == 0 {
        return Ok(true);
    }
    file.seek(io::SeekFrom::End(-1)).await?;
    Ok(file.read_u8().await? == b'\n')
}

/// Why a results file cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum ResultsError {
    /// No space is left.
    #[error("there is no space left to write results to {path}; free some space and run the same command again")]
    Full {
        /// The file.
        path: PathBuf,
    },
    /// Anything else.
    #[error("cannot write results to {path}")]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

impl ResultsError {
    fn of(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full { path },
            _ => Self::Unwritable { path, source },
        }
    }

    /// Returns the stable code, which fixes the error class: the run ends, and a later one continues.
    #[must_use]
    pub const fn code(&self) -> Code {
        Code::OutputUnwritable
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(id: &str) -> ResultLine {
        let mut record = SessionRequest::of(SessionId::parse(id).unwrap());
        record.reference = Some("order\n7".to_owned());
        record.decided_at = Some(Timestamp::from_unix_seconds(1_700_000_000));
        ResultLine { code: Some(Code::VeriffThrottled), ..ResultLine::of(record, Outcome::Failed) }
    }

    async fn append(path: &Path, id: &str) {
        let mut results = ResultsFile::open(path).await.unwrap();
        results.append(&line(id)).await.unwrap();
        results.finish().await.unwrap();
    }

    #[tokio::test]
    async fn lines_are_appended_and_a_torn_one_is_ended_first() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("results.ndjson");
        append(&path, "one").await;
        let first = std::fs::read(&path).unwrap();
        append(&path, "two").await;
        let torn = [std::fs::read(&path).unwrap(), b"{\"schema\":".to_vec()].concat();
        assert!(torn.starts_with(&first));
        std::fs::write(&path, &torn).unwrap();
        append(&path, "three").await;
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4);
        assert_eq!(lines[2], "{\"schema\":");
        for (at, id) in [(0, "one"), (1, "two"), (3, "three")] {
            let value: serde_json::Value = serde_json::from_str(lines[at]).unwrap();
            assert_eq!(value["session_id"], id);
        }
    }

    #[test]
    fn a_line_has_every_field_of_the_contract_in_its_order() {
        let text = serde_json::to_string(&line("one")).unwrap();
        let expected = concat!(
            r#"{"schema":"veriff-archive/result/v1","session_id":"one","integration":null,"#,
            r#""decided_at":"2023-11-14T22:13:20.000Z","retention_class":null,"reference":"order\n7","outcome":"failed","#,
            r#""code":"veriff.throttled","message":null,"complete":false,"settled":false,"media":0,"bytes":0,"#,
            r#""manifest_key":null,"manifest_sha256":null,"requests":0,"retries":0,"duration_ms":0}"#
        );
        assert_eq!(text, expected);
    }

    #[tokio::test]
    async fn a_full_disk_is_told_as_such_and_may_work_later() {
        let mut results = ResultsFile::open(Path::new("/dev/full")).await.unwrap();
        let error = results.append(&line("one")).await.unwrap_err();
        assert!(matches!(error, ResultsError::Full { .. }), "{error:?}");
        assert!(error.code().is_retryable());
        assert_eq!(crate::error::Exit::of_fatal(error.code()), crate::error::Exit::TryLater);
    }

    #[test]
    fn outcomes_print_as_they_are_counted() {
        for outcome in [Outcome::Archived, Outcome::Unchanged, Outcome::Absent, Outcome::Failed, Outcome::Pending] {
            assert_eq!(serde_json::to_value(outcome).unwrap(), outcome.as_str());
        }
    }
}
