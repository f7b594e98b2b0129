//! Source: which sessions to archive, one delivery at a time.
//!
//! The first step of the flow. A source parses and checks what it reads, so that behind it no invalid id, date or name
//! exists; what it cannot read it delivers as bad, with its place and the reason, because every line given must end
//! somewhere. It never holds more than a bounded part of its input, and leaves to `worker` when to take the next.

pub mod file;
mod lines;
mod parse;

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::clock::{Clock, Timestamp};
use crate::error::Code;
use crate::model::SessionId;
use crate::model::digest::Sha256Digest;
use crate::model::record::SessionRecord;

/// How far in the future a decision may lie: clocks of two machines differ a little.
const CLOCK_ALLOWANCE: Duration = Duration::from_mins(1);

/// The earliest decision that is believed, 2015-01-01T00:00:00Z: Veriff did not exist before.
const EARLIEST_DECISION_UNIX_SECONDS: i64 = 1_420_070_400;

/// Sessions to archive.
#[async_trait]
pub trait Source: Send + fmt::Debug {
    /// Returns the next delivery, or `None` when there will be no more. Dropping the future loses nothing.
    ///
    /// # Errors
    /// Retryable: the source cannot be read to its end. Permanent: nothing in it can be read, such as a CSV file without
    /// `session_id` in its header.
    async fn receive(&mut self) -> Result<Option<Delivery>, SourceError>;

    /// Says that a delivery is done and must not come again.
    ///
    /// # Errors
    /// Retryable: the source cannot be reached; the delivery may come again.
    async fn acknowledge(&mut self, delivery: &Delivery) -> Result<(), SourceError>;

    /// Gives a delivery back, to come again after a delay.
    ///
    /// # Errors
    /// As [`Source::acknowledge`].
    async fn release(&mut self, delivery: &Delivery, delay: Duration) -> Result<(), SourceError>;

    /// Tells what was read so far.
    fn tally(&self) -> Tally;
}

/// One record as a source hands it out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Where it stands in the source.
    pub place: Place,
    /// The record, or why it cannot be worked on.
    pub record: Result<SessionRecord, BadRecord>,
    /// The record comes from a results file and tells of an outcome that needs no more work.
    pub is_finished: bool,
}

/// Where a record stands, for people: the one thing that is said about a line that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// The number of its first line, from 1.
    Line(u64),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(number) => write!(f, "line {number}"),
        }
    }
}

/// Why a record cannot be worked on. It counts as failed, [`Code::InputInvalid`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRecord {
    /// The session, if at least that could be read.
    pub session_id: Option<SessionId>,
    /// The reason; never any of the text, which may be anything.
    pub reason: String,
}

/// What was read of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tally {
    /// The kind of source, such as `file`.
    pub kind: &'static str,
    /// How many deliveries were handed out, bad ones included.
    pub records: u64,
    /// The digest of all bytes, once the end was reached.
    pub sha256: Option<Sha256Digest>,
}

/// What the fields of a record are checked against.
#[derive(Debug, Clone)]
pub struct Checks {
    /// The configured retention classes.
    pub classes: BTreeSet<String>,
    /// The configured integrations.
    pub integrations: BTreeSet<String>,
    /// Tells what is in the future.
    pub clock: Arc<dyn Clock>,
}

impl Checks {
    /// Checks what the parser cannot know. The reasons name fields, never their text.
    fn refuse(&self, record: &SessionRecord) -> Option<&'static str> {
        if let Some(decided_at) = record.decided_at {
            if decided_at > self.clock.now().plus(CLOCK_ALLOWANCE) {
                return Some("decided_at is in the future");
            }
            if decided_at < Timestamp::from_unix_seconds(EARLIEST_DECISION_UNIX_SECONDS) {
                return Some("decided_at is before 2015");
            }
        }
        if record.retention_class.as_ref().is_some_and(|class| !self.classes.contains(class)) {
            return Some("retention_class is not a configured class");
        }
        if record.integration.as_ref().is_some_and(|name| !self.integrations.contains(name)) {
            return Some("integration is not a configured one");
        }
        None
    }
}

/// Why a source can give no more.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The file cannot be opened.
    #[error("cannot open {path}")]
    Open {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// Reading failed in the middle.
    #[error("cannot read on after line {line}")]
    Read {
        /// The last line that was read whole.
        line: u64,
        /// The cause.
        source: std::io::Error,
    },
    /// The header of a CSV file does not say where the ids are.
    #[error("the CSV header in line {line} {reason}")]
    Header {
        /// The line of the header.
        line: u64,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// What had been set aside from the source cannot be read or written; see `unfinished`.
    #[error("cannot set lines aside")]
    SetAside(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl SourceError {
    /// Returns the stable code, which fixes the disposition.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::Open { .. } | Self::Read { .. } | Self::SetAside(_) => Code::InputUnreadable,
            Self::Header { .. } => Code::InputInvalid,
        }
    }
}
