//! Ledger: our SQL record of what was archived, when, and by which run.
//!
//! The last step of a session: one transaction after its manifest stands in the store, so what the ledger calls
//! archived is there. An index and a memory, never the evidence: without it nothing is lost but time. Here are the
//! seam, its words, and the legal moves between states as a pure function; each engine writes its own SQL, and one
//! contract suite holds them to the same behaviour.

pub mod scratch;
mod sqlite;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::error::Code;
use crate::model::digest::Sha256Digest;
use crate::model::key::ObjectKey;
use crate::model::record::SessionRecord;
use crate::model::{ArchiveId, AttemptId, MediaId, MediaKind, RunId, SessionId};

/// How many of the latest runs an overview shows.
pub const OVERVIEW_RUNS: u32 = 5;

/// A record of what was archived.
#[async_trait]
pub trait Ledger: Send + Sync + fmt::Debug {
    /// Returns the archive that this ledger belongs to, once it has met one.
    ///
    /// # Errors
    /// Retryable: the ledger cannot be read.
    async fn archive_id(&self) -> Result<Option<ArchiveId>, LedgerError>;

    /// Binds the ledger to an archive; the first one stays, so ask [`Ledger::archive_id`] which it is.
    ///
    /// # Errors
    /// Retryable: the ledger cannot be written.
    async fn adopt_archive(&self, id: &ArchiveId) -> Result<(), LedgerError>;

    /// Notes that a run began.
    ///
    /// # Errors
    /// As [`Ledger::adopt_archive`].
    async fn start_run(&self, run: &RunStart) -> Result<(), LedgerError>;

    /// Notes how a run ended; repeating it replaces what was noted.
    ///
    /// # Errors
    /// As [`Ledger::adopt_archive`].
    async fn finish_run(&self, run: &RunFinish) -> Result<(), LedgerError>;

    /// Takes the end of one visit to a session, in one transaction, and returns the state that now stands.
    ///
    /// May be repeated, and by several workers at once: what is known from a later manifest never goes back, see
    /// [`Standing::after`].
    ///
    /// # Errors
    /// As [`Ledger::adopt_archive`]; then nothing of the entry was taken, or all of it.
    async fn commit(&self, entry: &SessionEntry) -> Result<State, LedgerError>;

    /// Returns what is known of a session.
    ///
    /// # Errors
    /// As [`Ledger::archive_id`].
    async fn session(&self, id: &SessionId) -> Result<Option<SessionRow>, LedgerError>;

    /// Returns sessions that this run left pending or failed with a retryable code, in the order of their ids: at most
    /// `limit` of those after `after`.
    ///
    /// # Errors
    /// As [`Ledger::archive_id`].
    async fn retryable_of_run(
        &self,
        run_id: &RunId,
        after: Option<&SessionId>,
        limit: u32,
    ) -> Result<Vec<SessionRecord>, LedgerError>;

    /// Counts everything, and looks at the deadlines of sessions still to be done.
    ///
    /// # Errors
    /// As [`Ledger::archive_id`].
    async fn overview(&self, now: Timestamp, horizon_alarm: Duration) -> Result<Overview, LedgerError>;
}

/// Opens the ledger of `ledger.url`, and creates or upgrades it where that is safe to do unasked.
///
/// # Errors
/// Fatal: the URL is not one of a known engine, or the schema is newer than this program. Retryable: out of reach.
pub async fn open(url: &str) -> Result<Arc<dyn Ledger>, LedgerError> {
    let location = sqlite::Location::parse(url)?;
    Ok(Arc::new(sqlite::SqliteLedger::open(&location).await?))
}

/// Checks that `ledger.url` names a ledger this version can open, without opening it.
///
/// # Errors
/// Fatal (configuration): it does not.
pub fn check_url(url: &str) -> Result<(), LedgerError> {
    sqlite::Location::parse(url).map(|_| ())
}

/// Tells whether there is a ledger at the URL, without making one.
///
/// # Errors
/// As [`check_url`].
pub async fn exists(url: &str) -> Result<bool, LedgerError> {
    Ok(sqlite::Location::parse(url)?.exists().await)
}

/// Where a session stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Given to us and still to be done.
    Pending,
    /// Its manifest stands in the store.
    Archived,
    /// Veriff does not have it, and a manifest keeps that answer.
    Absent,
    /// Its last visit ended with a code.
    Failed,
}

impl State {
    /// Every state there is.
    pub const ALL: [Self; 4] = [Self::Pending, Self::Archived, Self::Absent, Self::Failed];

    /// Returns the text that stands in the ledger.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Archived => "archived",
            Self::Absent => "absent",
            Self::Failed => "failed",
        }
    }

    /// Finds the state that the ledger names.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What the ledger holds of a session before an entry: all that decides what the entry may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// The state.
    pub state: State,
    /// The number of the newest manifest known.
    pub sequence: Option<u32>,
}

/// What an entry changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Move {
    /// The state that stands from now on.
    pub state: State,
    /// The entry's code and message are taken; otherwise those that stand are kept.
    pub takes_cause: bool,
    /// The entry's manifest and what it says (complete, settled, media) are taken.
    pub takes_manifest: bool,
}

impl Standing {
    /// Says what an entry with this state and manifest changes. Every engine asks here, inside its transaction.
    ///
    /// Anything may become archived. What stands archived never goes back to pending or absent: a visit that was
    /// stopped, or found the session gone upstream, takes nothing from the evidence. A visit that failed is always told. An
    /// entry that knows an older manifest than what stands comes from a slower worker: it changes no manifest field,
    /// and of the state only that something failed.
    #[must_use]
    pub fn after(standing: Option<Self>, asked: State, sequence: Option<u32>) -> Move {
        let Some(standing) = standing else {
            return Move {
                state: asked,
                takes_cause: true,
                takes_manifest: sequence.is_some(),
            };
        };
        let is_behind = sequence < standing.sequence;
        let is_kept = match asked {
            State::Failed => false,
            State::Archived => is_behind,
            State::Absent => is_behind || standing.state == State::Archived,
            State::Pending => is_behind && sequence.is_some() || standing.state == State::Archived,
        };
        Move {
            state: if is_kept { standing.state } else { asked },
            takes_cause: !is_kept,
            takes_manifest: sequence.is_some() && !is_behind,
        }
    }
}

/// The end of one visit to a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionEntry {
    /// What the input said.
    pub record: SessionRecord,
    /// The integration it was looked for in.
    pub integration: String,
    /// Where this visit leaves it. An archived one has a manifest.
    pub state: State,
    /// Why, if it is pending or failed.
    pub code: Option<Code>,
    /// The same for people; nothing about a person.
    pub message: Option<String>,
    /// When Veriff made the session, where its lists tell.
    pub upstream_created_at: Option<Timestamp>,
    /// When Veriff may delete its media, where that can be told.
    pub deadline_at: Option<Timestamp>,
    /// The newest manifest this visit knows.
    pub manifest: Option<ManifestRef>,
    /// Nothing is missing from that manifest.
    pub complete: bool,
    /// Nothing more is expected of the session.
    pub settled: bool,
    /// Every item of that manifest.
    pub media: Vec<MediaRow>,
    /// The run.
    pub run_id: RunId,
    /// When the visit ended.
    pub at: Timestamp,
}

/// Where a manifest stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestRef {
    /// Its key.
    pub key: ObjectKey,
    /// Its version, on a versioned store.
    pub version_id: Option<String>,
    /// Its number.
    pub sequence: u32,
    /// The digest of its bytes.
    pub sha256: Sha256Digest,
}

/// One archived media item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaRow {
    /// The media item.
    pub media_id: MediaId,
    /// The attempt it belongs to.
    pub attempt_id: AttemptId,
    /// What it is.
    pub kind: MediaKind,
    /// Its object.
    pub key: ObjectKey,
    /// The object's version, on a versioned store.
    pub version_id: Option<String>,
    /// The object's length.
    pub size_bytes: u64,
    /// The digest of its bytes.
    pub sha256: Sha256Digest,
}

/// What is known of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRow {
    /// What the inputs said; a later one fills gaps and replaces, never empties.
    pub record: SessionRecord,
    /// The integration of the last visit.
    pub integration: String,
    /// Where it stands.
    pub state: State,
    /// Why, if it is pending or failed; text, because a later version may know more codes than this one.
    pub code: Option<String>,
    /// The same for people.
    pub message: Option<String>,
    /// When Veriff made it, where that is known.
    pub upstream_created_at: Option<Timestamp>,
    /// When Veriff may delete its media, where that is known.
    pub deadline_at: Option<Timestamp>,
    /// The newest manifest known.
    pub manifest: Option<ManifestRef>,
    /// Nothing is missing from that manifest.
    pub complete: bool,
    /// Nothing more is expected of the session.
    pub settled: bool,
    /// How many media items are known to be archived.
    pub media: u64,
    /// How many bytes they have.
    pub bytes: u64,
    /// How often it was visited.
    pub visits: u64,
    /// The run of the last visit.
    pub run_id: RunId,
    /// When it was first visited.
    pub first_visited_at: Timestamp,
    /// When it was last visited.
    pub last_visited_at: Timestamp,
}

/// A run that begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunStart {
    /// The run.
    pub run_id: RunId,
    /// When it began.
    pub started_at: Timestamp,
    /// The version of this program.
    pub version: String,
    /// The kind of its source, such as `file`.
    pub source_kind: String,
    /// Where it archives to; a store URL holds no secret.
    pub store_url: String,
}

/// A run that ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunFinish {
    /// The run.
    pub run_id: RunId,
    /// When it ended.
    pub finished_at: Timestamp,
    /// How the process exits.
    pub exit_code: u8,
    /// What it did.
    pub counts: RunCounts,
}

/// What a run did, by outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
pub struct RunCounts {
    /// Sessions with new evidence.
    pub archived: u64,
    /// Sessions of which all was there.
    pub unchanged: u64,
    /// Sessions that Veriff does not have.
    pub absent: u64,
    /// Sessions that failed, unreadable input lines included.
    pub failed: u64,
    /// Sessions given back.
    pub pending: u64,
    /// Media items written.
    pub media: u64,
    /// Bytes of media written.
    pub bytes: u64,
}

/// A run as an overview shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct RunRow {
    /// The run.
    pub run_id: RunId,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended; nothing if it still runs or died.
    pub finished_at: Option<Timestamp>,
    /// How it exited.
    pub exit_code: Option<u8>,
    /// The version of this program.
    pub version: String,
    /// The kind of its source.
    pub source_kind: String,
    /// Where it archived to.
    pub store_url: String,
    /// What it did; zeros until it has ended.
    pub counts: RunCounts,
}

/// Everything in numbers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, schemars::JsonSchema)]
pub struct Overview {
    /// All sessions.
    pub sessions: u64,
    /// Sessions by state; states without any are left out.
    pub states: Vec<StateCount>,
    /// Sessions by state and code; those without a code are left out.
    pub codes: Vec<CodeCount>,
    /// Sessions of whose manifest nothing is missing.
    pub complete: u64,
    /// Sessions of which nothing more is expected.
    pub settled: u64,
    /// When the pending session that waits longest was first visited.
    pub oldest_pending_at: Option<Timestamp>,
    /// The nearest deadline of a session still to be done, past ones included: pending, or failed in a way that may
    /// work later. The four numbers below are of the same sessions.
    pub nearest_deadline_at: Option<Timestamp>,
    /// Those whose deadline is not known.
    pub unknown_deadlines: u64,
    /// Those whose deadline has passed.
    pub past_horizon: u64,
    /// Those whose deadline comes within the alarm.
    pub within_alarm: u64,
    /// Media items known to be archived.
    pub media: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The latest runs, newest first.
    pub runs: Vec<RunRow>,
}

/// How many sessions stand in a state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct StateCount {
    /// The state.
    pub state: State,
    /// How many.
    pub sessions: u64,
}

/// How many sessions stand in a state for a reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct CodeCount {
    /// The state.
    pub state: State,
    /// The code.
    pub code: String,
    /// How many.
    pub sessions: u64,
}

/// The sessions of one state and code, summed up by an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Group {
    state: State,
    code: Option<String>,
    sessions: u64,
    complete: u64,
    settled: u64,
    media: u64,
    bytes: u64,
    nearest_deadline_at: Option<Timestamp>,
    unknown_deadlines: u64,
    past_horizon: u64,
    within_alarm: u64,
}

impl Group {
    /// Tells whether these sessions are still to be done. A code of another version counts: better alarmed than late.
    fn is_open(&self) -> bool {
        match self.state {
            State::Pending => true,
            State::Failed => self
                .code
                .as_deref()
                .and_then(Code::parse)
                .is_none_or(Code::is_retryable),
            State::Archived | State::Absent => false,
        }
    }
}

impl Overview {
    /// Adds up groups that come in the order of their states.
    fn of(groups: &[Group]) -> Self {
        let mut overview = Self::default();
        for group in groups {
            overview.sessions += group.sessions;
            match overview.states.last_mut().filter(|last| last.state == group.state) {
                Some(last) => last.sessions += group.sessions,
                None => overview.states.push(StateCount {
                    state: group.state,
                    sessions: group.sessions,
                }),
            }
            if let Some(code) = &group.code {
                overview.codes.push(CodeCount {
                    state: group.state,
                    code: code.clone(),
                    sessions: group.sessions,
                });
            }
            overview.complete += group.complete;
            overview.settled += group.settled;
            overview.media += group.media;
            overview.bytes += group.bytes;
            if group.is_open() {
                overview.nearest_deadline_at = [overview.nearest_deadline_at, group.nearest_deadline_at]
                    .into_iter()
                    .flatten()
                    .min();
                overview.unknown_deadlines += group.unknown_deadlines;
                overview.past_horizon += group.past_horizon;
                overview.within_alarm += group.within_alarm;
            }
        }
        overview
    }
}

/// Why the ledger did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// `ledger.url` is not one this version can open. The text is not repeated: such a URL may hold a password.
    #[error("ledger.url {0}")]
    Url(String),
    /// The ledger cannot be reached, read or written.
    #[error("the ledger could not {action}")]
    Unavailable {
        /// What was asked.
        action: Cow<'static, str>,
        /// The engine's own words.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The ledger holds something that this program never writes.
    #[error("the ledger holds a {0} that is not one; it was changed by something else or is damaged")]
    Damaged(&'static str),
    /// The schema is older or newer than this program.
    #[error("{0}")]
    Schema(String),
}

impl LedgerError {
    /// Returns the stable code, which fixes the disposition.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::Url(_) => Code::ConfigInvalid,
            Self::Unavailable { .. } | Self::Damaged(_) => Code::LedgerUnavailable,
            Self::Schema(_) => Code::LedgerSchema,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn states() -> impl Strategy<Value = State> {
        proptest::sample::select(State::ALL.to_vec())
    }

    fn sequences() -> impl Strategy<Value = Option<u32>> {
        proptest::option::of(1u32..5)
    }

    proptest! {
        #[test]
        fn what_stands_archived_never_becomes_pending_or_absent(
            sequence in sequences(), asked in states(), new in sequences()
        ) {
            let standing = Standing { state: State::Archived, sequence };
            let state = Standing::after(Some(standing), asked, new).state;
            prop_assert!(matches!(state, State::Archived | State::Failed), "{state}");
        }

        #[test]
        fn a_failure_is_always_told(state in states(), sequence in sequences(), new in sequences()) {
            let made = Standing::after(Some(Standing { state, sequence }), State::Failed, new);
            prop_assert_eq!(made.state, State::Failed);
            prop_assert!(made.takes_cause);
        }

        #[test]
        fn anything_may_become_archived_by_a_manifest_that_is_not_older(
            state in states(), sequence in sequences(), new in 5u32..7
        ) {
            let made = Standing::after(Some(Standing { state, sequence }), State::Archived, Some(new));
            prop_assert_eq!(made, Move { state: State::Archived, takes_cause: true, takes_manifest: true });
        }

        #[test]
        fn a_manifest_never_goes_back(state in states(), sequence in sequences(), asked in states(), new in sequences()) {
            let made = Standing::after(Some(Standing { state, sequence }), asked, new);
            if made.takes_manifest {
                prop_assert!(new >= sequence);
            }
        }

        #[test]
        fn the_cause_belongs_to_the_state(state in states(), sequence in sequences(), asked in states(), new in sequences()) {
            let made = Standing::after(Some(Standing { state, sequence }), asked, new);
            prop_assert_eq!(made.state, if made.takes_cause { asked } else { state });
        }
    }

    #[test]
    fn a_slower_worker_does_not_call_archived_what_a_newer_manifest_left_failed() {
        let standing = Standing {
            state: State::Failed,
            sequence: Some(2),
        };
        let made = Standing::after(Some(standing), State::Archived, Some(1));
        assert_eq!(
            made,
            Move {
                state: State::Failed,
                takes_cause: false,
                takes_manifest: false
            }
        );
    }

    #[test]
    fn a_failed_session_may_be_given_back_before_its_manifest_was_looked_at() {
        let standing = Standing {
            state: State::Failed,
            sequence: Some(1),
        };
        let made = Standing::after(Some(standing), State::Pending, None);
        assert_eq!(made.state, State::Pending);
        assert!(!made.takes_manifest);
    }

    #[test]
    fn states_read_back() {
        for state in State::ALL {
            assert_eq!(State::parse(state.as_str()), Some(state));
            assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
        }
        assert_eq!(State::parse("Archived"), None);
    }

    #[test]
    fn only_sessions_still_to_be_done_have_deadlines_that_count() {
        let group = |state, code: Option<&str>, deadline| Group {
            state,
            code: code.map(str::to_owned),
            sessions: 10,
            complete: 1,
            settled: 2,
            media: 3,
            bytes: 4,
            nearest_deadline_at: Some(Timestamp::from_unix_seconds(deadline)),
            unknown_deadlines: 5,
            past_horizon: 6,
            within_alarm: 7,
        };
        let overview = Overview::of(&[
            group(State::Archived, None, 1),
            group(State::Failed, Some("media.missing"), 2),
            group(State::Failed, Some("veriff.throttled"), 30),
            group(State::Failed, Some("code.of_a_later_version"), 20),
            group(State::Pending, None, 40),
        ]);
        assert_eq!(overview.sessions, 50);
        assert_eq!(overview.nearest_deadline_at, Some(Timestamp::from_unix_seconds(20)));
        assert_eq!(
            (overview.unknown_deadlines, overview.past_horizon, overview.within_alarm),
            (15, 18, 21)
        );
        assert_eq!(
            overview
                .states
                .iter()
                .map(|s| (s.state, s.sessions))
                .collect::<Vec<_>>(),
            [(State::Archived, 10), (State::Failed, 30), (State::Pending, 10)]
        );
        assert_eq!(overview.codes.len(), 3);
        assert_eq!((overview.media, overview.bytes), (15, 20));
    }

    #[test]
    fn an_error_never_repeats_the_url() {
        let error = check_url("postgres://ledger:hunter2@db/ledger").unwrap_err();
        assert_eq!(error.code(), Code::ConfigInvalid);
        assert!(!error.to_string().contains("hunter2"), "{error}");
        assert!(error.to_string().contains("not supported by this version"), "{error}");
    }
}
