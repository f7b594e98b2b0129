//! The world the simulator serves: integrations, sessions, attempts and their media.
//!
//! Tests write one out by hand or let [`World::builder`] make one up. It can be changed while it is served.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::builder::WorldBuilder;
use crate::faults::Fault;
use crate::ids::id;
use crate::knobs::Knobs;
use crate::media::Media;

/// The name of the integration sessions belong to unless told otherwise.
pub const DEFAULT_INTEGRATION: &str = "default";

/// An integration: a key, its secrets and switches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Integration {
    /// The name sessions refer to.
    pub name: String,
    /// The id in `vrf-integration-id`.
    pub id: String,
    /// The API key.
    pub api_key: String,
    /// The shared secrets, at most five; each of them may sign requests.
    pub secrets: Vec<String>,
    /// Which secret is the master signature key.
    pub master: usize,
    /// A live integration; videos are dropped from a test one.
    pub live: bool,
    /// Requests are answered with 1804 when not.
    pub active: bool,
    /// Deleting sessions is enabled.
    pub delete_enabled: bool,
}

impl Integration {
    /// A live, active integration with one secret; key and secret follow from the name.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            id: id(&format!("integration {name}")),
            api_key: id(&format!("api key {name}")),
            secrets: vec![id(&format!("secret {name}"))],
            master: 0,
            live: true,
            active: true,
            delete_enabled: false,
        }
    }

    /// The secret that a client of this integration is configured with, unless rotated: the first.
    #[must_use]
    pub fn secret(&self) -> &str {
        self.secrets.first().map_or("", String::as_str)
    }
}

impl Default for Integration {
    fn default() -> Self {
        Self::new(DEFAULT_INTEGRATION)
    }
}

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
        Self {
            id: id.into(),
            ..Self::default()
        }
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

    fn push_attempt(&mut self, mut attempt: Attempt) {
        if attempt.created_time.as_deref() == Some(DEFAULT_CREATED_TIME) {
            attempt.created_time = Some(later(
                DEFAULT_CREATED_TIME,
                3600 * self.attempts.len() as u64,
            ));
        }
        self.attempts.push(attempt);
    }

    /// The attempts that can be seen now, oldest first.
    #[must_use]
    pub fn visible_attempts(&self) -> impl DoubleEndedIterator<Item = &Attempt> {
        self.attempts
            .iter()
            .filter(|a| a.appears_after.is_none_or(|k| self.asked > k))
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
        Self {
            id: id.into(),
            status: status.to_owned(),
            ..Self::default()
        }
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

/// Where an id leads: the session's place, the attempt's, the media item's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) session: usize,
    pub(crate) attempt: usize,
    pub(crate) media: usize,
}

#[derive(Clone, Debug, Default)]
struct Index {
    sessions: HashMap<String, Place>,
    attempts: HashMap<String, Place>,
    media: HashMap<String, Place>,
    stale: bool,
}

/// Everything the simulator serves.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct World {
    /// The integrations.
    pub integrations: Vec<Integration>,
    /// The behaviour of the service.
    pub knobs: Knobs,
    /// Faults in force from the start.
    pub faults: Vec<Fault>,
    sessions: Vec<Session>,
    #[serde(skip, default = "stale_index")]
    index: Index,
}

fn stale_index() -> Index {
    Index {
        stale: true,
        ..Index::default()
    }
}

impl Default for World {
    fn default() -> Self {
        Self {
            integrations: vec![Integration::default()],
            knobs: Knobs::default(),
            faults: Vec::new(),
            sessions: Vec::new(),
            index: stale_index(),
        }
    }
}

impl World {
    /// A world with the default integration and no sessions.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins a made-up world; the same seed and settings give the same one.
    #[must_use]
    pub fn builder(seed: u64) -> WorldBuilder {
        WorldBuilder::new(seed)
    }

    /// Adds a session.
    #[must_use]
    pub fn session(mut self, session: Session) -> Self {
        self.add_session(session);
        self
    }

    /// Adds an integration.
    #[must_use]
    pub fn integration(mut self, integration: Integration) -> Self {
        self.integrations.push(integration);
        self
    }

    /// Sets the behaviour of the service.
    #[must_use]
    pub fn knobs(mut self, knobs: Knobs) -> Self {
        self.knobs = knobs;
        self
    }

    /// Adds a fault.
    #[must_use]
    pub fn fault(mut self, fault: Fault) -> Self {
        self.faults.push(fault);
        self
    }

    /// Adds a session.
    pub fn add_session(&mut self, session: Session) {
        self.index.stale = true;
        self.sessions.push(session);
    }

    /// Adds an attempt to a session; tells whether the session exists.
    pub fn add_attempt(&mut self, session_id: &str, attempt: Attempt) -> bool {
        let session = self.session_mut(session_id);
        session.map(|s| s.push_attempt(attempt)).is_some()
    }

    /// Makes a session invisible; tells whether it exists.
    pub fn set_presence(&mut self, session_id: &str, presence: Presence) -> bool {
        let session = self.session_mut(session_id);
        session.map(|s| s.presence = presence).is_some()
    }

    /// Replaces the first secret of an integration; with `keep_old` the old one still works, as long as there is room.
    pub fn rotate_secret(&mut self, integration: &str, secret: &str, keep_old: bool) -> bool {
        let found = self.integrations.iter_mut().find(|i| i.name == integration);
        found
            .map(|i| {
                if !keep_old && !i.secrets.is_empty() {
                    i.secrets.remove(0);
                }
                i.secrets.insert(0, secret.to_owned());
                i.secrets.truncate(5);
            })
            .is_some()
    }

    /// The sessions, in the order they were added.
    #[must_use]
    pub fn sessions(&self) -> &[Session] {
        &self.sessions
    }

    /// The ids of all sessions.
    #[must_use]
    pub fn session_ids(&self) -> Vec<String> {
        self.sessions.iter().map(|s| s.id.clone()).collect()
    }

    /// A session to change.
    pub fn session_mut(&mut self, session_id: &str) -> Option<&mut Session> {
        let place = self.find_session(session_id)?;
        self.index.stale = true;
        self.sessions.get_mut(place.session)
    }

    /// A session.
    #[must_use]
    pub fn find(&self, session_id: &str) -> Option<&Session> {
        self.sessions.iter().find(|s| s.id == session_id)
    }

    /// A media item, wherever it is listed.
    #[must_use]
    pub fn find_media(&self, media_id: &str) -> Option<&Media> {
        self.all_media().find(|m| m.id == media_id)
    }

    /// All media items; one that two attempts share comes twice.
    pub fn all_media(&self) -> impl Iterator<Item = &Media> {
        self.sessions
            .iter()
            .flat_map(|s| &s.attempts)
            .flat_map(|a| &a.media)
    }

    pub(crate) fn session_at(&self, place: Place) -> &Session {
        &self.sessions[place.session]
    }

    pub(crate) fn attempt_at(&self, place: Place) -> &Attempt {
        &self.sessions[place.session].attempts[place.attempt]
    }

    pub(crate) fn media_at(&self, place: Place) -> &Media {
        &self.attempt_at(place).media[place.media]
    }

    /// Counts a request for a session.
    pub(crate) fn ask(&mut self, place: Place) {
        self.sessions[place.session].asked += 1;
    }

    pub(crate) fn find_session(&mut self, id: &str) -> Option<Place> {
        self.fresh_index().sessions.get(id).copied()
    }

    pub(crate) fn find_attempt(&mut self, id: &str) -> Option<Place> {
        self.fresh_index().attempts.get(id).copied()
    }

    pub(crate) fn find_item(&mut self, id: &str) -> Option<Place> {
        self.fresh_index().media.get(id).copied()
    }

    fn fresh_index(&mut self) -> &Index {
        if self.index.stale {
            let mut index = Index::default();
            for (s, session) in self.sessions.iter().enumerate() {
                let mut place = Place {
                    session: s,
                    attempt: 0,
                    media: 0,
                };
                index.sessions.insert(session.id.clone(), place);
                for (a, attempt) in session.attempts.iter().enumerate() {
                    place.attempt = a;
                    place.media = 0;
                    index.attempts.insert(attempt.id.clone(), place);
                    for (m, media) in attempt.media.iter().enumerate() {
                        place.media = m;
                        index.media.entry(media.id.clone()).or_insert(place);
                    }
                }
            }
            self.index = index;
        }
        &self.index
    }
}
