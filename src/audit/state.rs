//! State: how far an audit came, in a file, so that it can be stopped and resumed.
//!
//! Replaced whole and atomically, so that a crash leaves the state before. It holds places and counts, no findings: those
//! were printed before the place behind them was written.

use std::io;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::AuditKind;

/// The value of `schema` in a state file.
const STATE_SCHEMA: &str = "veriff-archive/audit-state/v1";

/// The state file of one audit, whose own progress is `P`.
#[derive(Debug)]
pub struct StateFile<P> {
    path: Option<PathBuf>,
    kind: AuditKind,
    /// What it was asked to look at, such as `share=3/7`: another question is not resumed.
    question: String,
    progress: std::marker::PhantomData<P>,
}

#[derive(Serialize, Deserialize)]
struct StateDocument<P> {
    schema: String,
    audit: AuditKind,
    question: String,
    finished: bool,
    progress: P,
}

/// Why a state file is of no use.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// It cannot be read or written.
    #[error("the state file {path} cannot be {action}")]
    File {
        /// The file.
        path: PathBuf,
        /// `read` or `written`.
        action: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// It is something else, or of another audit or question.
    #[error("the state file {path} belongs to another audit: {reason}; use another file, or remove it to start anew")]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What differs.
        reason: String,
    },
}

impl<P: Serialize + DeserializeOwned> StateFile<P> {
    /// Names the file; without one nothing is kept.
    #[must_use]
    pub const fn of(path: Option<PathBuf>, kind: AuditKind, question: String) -> Self {
        Self { path, kind, question, progress: std::marker::PhantomData }
    }

    /// Returns which audit it is of.
    #[must_use]
    pub const fn kind(&self) -> AuditKind {
        self.kind
    }

    /// Returns how far an audit that was stopped came; nothing if there was none, or it was finished.
    ///
    /// # Errors
    /// Permanent: the file is something else. Retryable: it cannot be read.
    pub fn read(&self) -> Result<Option<P>, StateError> {
        let Some(path) = &self.path else { return Ok(None) };
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(StateError::File { path: path.clone(), action: "read", source }),
        };
        let foreign = |reason: String| StateError::Foreign { path: path.clone(), reason };
        let document: StateDocument<P> =
            serde_json::from_str(&text).map_err(|_| foreign("it is not a state file".to_owned()))?;
        if document.schema != STATE_SCHEMA || document.audit != self.kind {
            return Err(foreign(format!("it is of audit {}", document.audit.as_str())));
        }
        if document.question != self.question {
            return Err(foreign(format!("it was started with {}, now {}", document.question, self.question)));
        }
        Ok((!document.finished).then_some(document.progress))
    }

    /// Writes down how far the audit came.
    ///
    /// # Errors
    /// Retryable: the file cannot be written.
    pub fn write(&self, finished: bool, progress: impl FnOnce() -> P) -> Result<(), StateError> {
        let Some(path) = &self.path else { return Ok(()) };
        let document = StateDocument {
            schema: STATE_SCHEMA.to_owned(),
            audit: self.kind,
            question: self.question.clone(),
            finished,
            progress: progress(),
        };
        replace(path, &document).map_err(|source| StateError::File { path: path.clone(), action: "written", source })
    }
}

fn replace(path: &Path, document: &impl Serialize) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    serde_json::to_writer_pretty(&mut file, document)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_gone_on_with_until_it_is_finished_and_only_for_the_same_question() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        let state = |kind, question: &str| StateFile::<u32>::of(Some(path.clone()), kind, question.to_owned());
        let fixity = state(AuditKind::Fixity, "all");
        assert_eq!(fixity.read().unwrap(), None);
        fixity.write(false, || 7).unwrap();
        assert_eq!(fixity.read().unwrap(), Some(7));
        assert!(state(AuditKind::Fixity, "share=1/2").read().is_err());
        assert!(state(AuditKind::Chain, "all").read().is_err());
        fixity.write(true, || 8).unwrap();
        assert_eq!(fixity.read().unwrap(), None);
        std::fs::write(&path, "something else").unwrap();
        assert!(matches!(fixity.read(), Err(StateError::Foreign { .. })));
    }
}
