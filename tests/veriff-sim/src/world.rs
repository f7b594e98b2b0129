//! The world the simulator serves: integrations, sessions, attempts and their media.
//!
//! Tests write one out by hand or let [`World::builder`] make one up. It can be changed while it is served.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::builder::WorldBuilder;
use crate::faults::Fault;
use crate::ids::id;
use crate::knobs::Knobs;
use crate::media::Media;
use crate::session::{Attempt, Presence, Session};

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
    Index { stale: true, ..Index::default() }
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
        self.sessions.iter().flat_map(|s| &s.attempts).flat_map(|a| &a.media)
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
                let mut place = Place { session: s, attempt: 0, media: 0 };
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
