//! A session, its attempts, and what else the vendor tells of it.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::ids::id;
use crate::media::Media;
use crate::world::DEFAULT_INTEGRATION;

/// What became of a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Presence {
    /// It is there.
    #[default]
    Present,
    /// It was moved to the vendor's archive and cannot be seen.
    Archived,
    /// It was deleted.
    Deleted,
}

/// What `/decision`, `/person` or `/watchlist-screening` answers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Document {
    /// A document made up from the session.
    #[default]
    Derived,
    /// A null where the content would be.
    Null,
    /// This content (of `verification`, `person` or `data`).
    Content(Value),
    /// 404.
    Absent,
}

/// A session and its attempts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Session {
    /// The session id.
    pub id: String,
    /// The name of the integration that owns it.
    pub integration: String,
    /// Its attempts, oldest first (lists give them newest first).
    pub attempts: Vec<Attempt>,
    /// Whether it can be seen.
    pub presence: Presence,
    /// Lists NFC documents in its own list only, never in its attempts'.
    pub nfc_in_session_list_only: bool,
    /// The attempt list gives its newest entry twice.
    pub repeat_attempt: bool,
    /// The caller's own reference, in the decision.
    pub vendor_data: Option<String>,
    /// The decision.
    pub decision: Document,
    /// The person.
    pub person: Document,
    /// The watchlist screening.
    pub watchlist: Document,
    /// Requests so far that named the session, one of its attempts or media.
    #[serde(skip)]
    pub asked: u64,
}

impl Default for Session {
    fn default() -> Self {
        Self {
            id: id("session"),
            integration: DEFAULT_INTEGRATION.to_owned(),
            attempts: Vec::new(),
            presence: Presence::Present,
            nfc_in_session_list_only: false,
            repeat_attempt: false,
            vendor_data: None,
            decision: Document::Derived,
            person: Document::Derived,
            watchlist: Document::Derived,
            asked: 0,
        }
    }
}

impl Session {
    /// A session without attempts.
    #[must_use]
    pub fn new(id: impl Into<String>) -> Self {
        Self { id: id.into(), ..Self::default() }
    }

    /// Adds an attempt, newer than those before; without a time of its own it comes an hour after the last.
    #[must_use]
    pub fn attempt(mut self, attempt: Attempt) -> Self {
        self.push_attempt(attempt);
        self
    }

    /// Gives the session to an integration.
    #[must_use]
    pub fn integration(mut self, name: &str) -> Self {
        name.clone_into(&mut self.integration);
        self
    }

    pub(crate) fn push_attempt(&mut self, mut attempt: Attempt) {
        if attempt.created_time.as_deref() == Some(DEFAULT_CREATED_TIME) {
            attempt.created_time = Some(later(DEFAULT_CREATED_TIME, 3600 * self.attempts.len() as u64));
        }
        self.attempts.push(attempt);
    }

    /// The attempts that can be seen now, oldest first.
    #[must_use]
    pub fn visible_attempts(&self) -> impl DoubleEndedIterator<Item = &Attempt> {
        self.attempts.iter().filter(|a| a.appears_after.is_none_or(|k| self.asked > k))
    }
}

const DEFAULT_CREATED_TIME: &str = "2026-10-05T09:14:30.047Z";

/// Gives a time so many seconds later, in milliseconds form.
pub(crate) fn later(time: &str, seconds: u64) -> String {
    let start: jiff::Timestamp = time.parse().unwrap_or_default();
    let span = jiff::SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(0));
    format!("{:.3}", start.saturating_add(span).unwrap_or(start))
}

/// One go of the person inside a session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Attempt {
    /// The attempt id.
    pub id: String,
    /// Its status.
    pub status: String,
    /// `createdTime`; left out when none.
    pub created_time: Option<String>,
    /// `userDefinedData`; left out when empty.
    pub user_defined_data: Vec<Value>,
    /// Its media, in the order of the lists.
    pub media: Vec<Media>,
    /// Leaves arrays without items out of its lists instead of giving empty ones.
    pub omit_empty_arrays: bool,
    /// Appears once the session has been asked for more than so many times; at once when none.
    pub appears_after: Option<u64>,
    /// Further fields at the top of its media lists and in its entry of the attempt list.
    pub extra: Map<String, Value>,
}

impl Default for Attempt {
    fn default() -> Self {
        Self {
            id: id("attempt"),
            status: "approved".to_owned(),
            created_time: Some(DEFAULT_CREATED_TIME.to_owned()),
            user_defined_data: Vec::new(),
            media: Vec::new(),
            omit_empty_arrays: false,
            appears_after: None,
            extra: Map::new(),
        }
    }
}

impl Attempt {
    /// An attempt of any status.
    #[must_use]
    pub fn new(id: impl Into<String>, status: &str) -> Self {
        Self { id: id.into(), status: status.to_owned(), ..Self::default() }
    }

    /// An approved attempt.
    #[must_use]
    pub fn approved(id: impl Into<String>) -> Self {
        Self::new(id, "approved")
    }

    /// A declined attempt.
    #[must_use]
    pub fn declined(id: impl Into<String>) -> Self {
        Self::new(id, "declined")
    }

    /// An attempt after which the person was asked to try again.
    #[must_use]
    pub fn resubmission_requested(id: impl Into<String>) -> Self {
        Self::new(id, "resubmission_requested")
    }

    /// Adds a JPEG image; its id follows from the attempt's id, its place and its context.
    #[must_use]
    pub fn image(self, context: &str, size_bytes: u64) -> Self {
        let id = self.next_id(context);
        self.media(Media::image(id, context, size_bytes))
    }

    /// Adds a `WebM` video.
    #[must_use]
    pub fn video(self, context: &str, size_bytes: u64) -> Self {
        let id = self.next_id(context);
        self.media(Media::video(id, context, size_bytes))
    }

    /// Adds an NFC document.
    #[must_use]
    pub fn nfc(self, size_bytes: u64) -> Self {
        let id = self.next_id("nfc");
        self.media(Media::nfc(id, size_bytes))
    }

    /// Adds a media item as it is.
    #[must_use]
    pub fn media(mut self, media: Media) -> Self {
        self.media.push(media);
        self
    }

    /// Sets the creation time, or leaves it out.
    #[must_use]
    pub fn created(mut self, time: Option<&str>) -> Self {
        self.created_time = time.map(str::to_owned);
        self
    }

    /// Keeps the attempt hidden until the session has been asked for more than `requests` times.
    #[must_use]
    pub fn appears_after(mut self, requests: u64) -> Self {
        self.appears_after = Some(requests);
        self
    }

    fn next_id(&self, context: &str) -> String {
        id(&format!("{}/{}/{context}", self.id, self.media.len()))
    }
}
