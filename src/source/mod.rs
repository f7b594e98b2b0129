//! Source: which sessions to archive, one delivery at a time.
//!
//! The first step of the flow. A source parses and checks what it reads, so that behind it no invalid id, date or name
//! exists; what it cannot read it delivers as bad, with its place and the reason, because every line given must end
//! somewhere. It never holds more than a bounded part of its input, and leaves to `run` when to take the next.

pub mod file;
mod lines;
mod message;
mod parse;
pub mod sqs;

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
use crate::model::request::SessionRequest;
use crate::retry::Backoff;

/// How far in the future a decision may lie: clocks of two machines differ a little.
const CLOCK_ALLOWANCE: Duration = Duration::from_mins(1);

/// The earliest decision that is believed, 2015-01-01T00:00:00Z: Veriff did not exist before.
const EARLIEST_DECISION_UNIX_SECONDS: i64 = 1_420_070_400;

/// How long a session that failed in a way that may pass waits: from half a minute, doubling, to an hour.
const COMEBACK: Backoff = Backoff { tries: u32::MAX, base: Duration::from_secs(30), cap: Duration::from_hours(1) };

/// The least of such waits, whatever was drawn.
const SHORTEST_COMEBACK: Duration = Duration::from_secs(5);

/// Draws how long a session waits until it comes again, after so many tries in all.
pub(crate) fn comeback(tries: u32) -> Duration {
    COMEBACK.jittered(tries).max(SHORTEST_COMEBACK)
}

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

    /// Gives a delivery back.
    ///
    /// # Errors
    /// As [`Source::acknowledge`].
    async fn release(&mut self, delivery: &Delivery, how: Release) -> Result<(), SourceError>;

    /// Renews the leases of deliveries that are in hand, where it is time to, and returns the sessions whose lease is
    /// lost. Asked often; cheap when there is nothing to do.
    ///
    /// # Errors
    /// As [`Source::acknowledge`]; then the leases last as long as they were given.
    async fn extend(&mut self, in_hand: &[&Delivery]) -> Result<Vec<SessionId>, SourceError> {
        let _ = in_hand;
        Ok(Vec::new())
    }

    /// Releases what was taken and never handed out. Asked once, when no more is wanted.
    ///
    /// # Errors
    /// As [`Source::acknowledge`]; then it comes again once its lease has lapsed.
    async fn close(&mut self) -> Result<(), SourceError> {
        Ok(())
    }

    /// Asks for no more sessions of an integration that was stopped. A source that cannot choose goes on handing them out.
    fn park(&mut self, integration: &str) {
        let _ = integration;
    }

    /// Turns to what this run released to be delivered later, to hand each out once more without waiting. Says whether
    /// the source can do that.
    fn turn_back(&mut self) -> bool {
        false
    }

    /// Returns whether what is released comes again by itself. Then a session that may work later is pending, else
    /// failed.
    fn keeps(&self) -> bool {
        false
    }

    /// Returns what was read so far.
    fn tally(&self) -> Tally;
}

/// How a delivery is released.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Release {
    /// It was not worked on: any worker may take it at once.
    AtOnce,
    /// It failed in a way that may pass: it comes again after a wait that grows each time.
    Later,
    /// It failed, and trying again changes nothing: it is left to whoever looks after what failed.
    ForGood,
}

/// One record as a source hands it out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Where it is in the source.
    pub place: Place,
    /// The record, or why it cannot be worked on.
    pub record: Result<SessionRequest, BadRecord>,
    /// The request comes from a results file, with an outcome that needs no more work.
    pub is_finished: bool,
    /// What the source needs to know it again; nothing for one that hands out without a lease.
    pub receipt: Option<String>,
    /// How often it was handed out before, as far as the source counts.
    pub tries: u32,
}

impl Delivery {
    /// Makes a delivery of a source that has no leases.
    #[must_use]
    pub const fn of(place: Place, record: Result<SessionRequest, BadRecord>) -> Self {
        Self { place, record, is_finished: false, receipt: None, tries: 0 }
    }
}

/// Where a request is, for people: the one thing that is said about a line that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// The number of its first line, from 1.
    Line(u64),
    /// A message of a queue, by the id the queue gave it.
    Message(String),
    /// The backlog.
    Backlog,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(number) => write!(f, "line {number}"),
            Self::Message(id) => write!(f, "message {id}"),
            Self::Backlog => f.write_str("the backlog"),
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

/// How a queue is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueSettings {
    /// An SQS-compatible server; AWS itself if none.
    pub endpoint_url: Option<String>,
    /// An empty queue this long ends the source; zero: never.
    pub idle_exit: Duration,
}

/// What the fields of a record are checked against.
#[derive(Debug, Clone)]
pub struct Checks {
    /// The configured retention classes.
    pub classes: BTreeSet<String>,
    /// The configured integrations.
    pub integrations: BTreeSet<String>,
    /// Returns what is in the future.
    pub clock: Arc<dyn Clock>,
}

impl Checks {
    /// Checks what the parser cannot know. The reasons name fields, never their text.
    fn refuse(&self, record: &SessionRequest) -> Option<&'static str> {
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
    #[error("cannot read past line {line}")]
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
    /// The ledger's backlog does not answer.
    #[error("cannot {action}: {source}")]
    Unanswered {
        /// What was asked.
        action: &'static str,
        /// What it means.
        code: Code,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A queue does not answer, or refuses.
    #[error("cannot {action}: {reason}")]
    Queue {
        /// What was asked.
        action: &'static str,
        /// What it means.
        code: Code,
        /// What was answered, without anything of a message.
        reason: String,
    },
    /// What had been set aside from the source cannot be read or written; see `unfinished`.
    #[error("cannot set lines aside")]
    SetAside(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl SourceError {
    /// Returns the stable code, which fixes the error class.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::Open { .. } | Self::Read { .. } | Self::SetAside(_) => Code::InputUnreadable,
            Self::Header { .. } => Code::InputInvalid,
            Self::Unanswered { code, .. } | Self::Queue { code, .. } => *code,
        }
    }
}
