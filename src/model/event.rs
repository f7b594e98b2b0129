//! Events: documents of what people did with the archive, written before they do it.
//!
//! An export takes evidence out of the archive. Its event is put into the store, under a lock, before the first byte is
//! read; whoever cannot write it cannot export. Other kinds of events follow the same form.

use serde::{Deserialize, Serialize};

use super::digest::{Hasher, Payload, Sha256Digest};
use super::key::ObjectKey;
use super::{ArchiveId, EventId, SessionId};
use crate::clock::Timestamp;

/// The value of `schema` in an event.
pub const EVENT_SCHEMA: &str = "veriff-archive/event/v1";

/// Up to this many sessions an event names them; of more it holds only their number and the digest of their list.
pub const MAX_NAMED_SESSIONS: u64 = 1000;

/// What somebody did with the archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Event {
    /// Always `veriff-archive/event/v1`.
    pub schema: String,
    /// The archive.
    pub archive_id: ArchiveId,
    /// The event's own id.
    pub event_id: EventId,
    /// What was done.
    pub kind: EventKind,
    /// When it was begun, by the store's clock.
    pub at: Timestamp,
    /// Who did it, as the host says: `user@host`, or the pod.
    pub actor: String,
    /// Whom the store took the actor for, where that is known.
    pub store_principal: Option<String>,
    /// Who asked for it, as the actor says.
    pub requested_by: Option<String>,
    /// Why, as the actor says.
    pub reason: String,
    /// The sessions it concerns.
    pub sessions: EventSessions,
    /// The digest of the list of sessions as it was given; nothing for ids on the command line.
    pub input_sha256: Option<Sha256Digest>,
    /// Where the evidence went: `directory` or `zip`.
    pub destination: String,
    /// The version of this program.
    pub version: String,
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// Evidence was copied out of the archive.
    Export,
}

/// The sessions an event concerns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct EventSessions {
    /// How many there are, each counted once.
    pub count: u64,
    /// The digest of their ids in the order of their bytes, each followed by a line feed.
    pub sha256: Sha256Digest,
    /// The ids in that order, if there are at most 1000.
    pub ids: Option<Vec<SessionId>>,
}

impl Event {
    /// Returns the key of the event.
    #[must_use]
    pub fn key(&self) -> ObjectKey {
        ObjectKey::event(self.event_id.as_str(), self.at)
    }

    /// Returns the document as it is stored.
    #[must_use]
    pub fn to_payload(&self) -> Payload {
        super::manifest::document_payload(self)
    }

    /// Reads a stored event; nothing if it is not one of version 1.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice::<Self>(bytes).ok().filter(|event| event.schema == EVENT_SCHEMA)
    }
}

/// Takes the ids of an event's sessions, in order and each once.
#[derive(Debug, Default)]
pub struct SessionList {
    count: u64,
    hasher: Hasher,
    ids: Vec<SessionId>,
}

impl SessionList {
    /// Takes the next id.
    pub fn add(&mut self, id: SessionId) {
        self.count += 1;
        self.hasher.update(id.as_str().as_bytes());
        self.hasher.update(b"\n");
        if self.count <= MAX_NAMED_SESSIONS {
            self.ids.push(id);
        }
    }

    /// Returns what an event says of them.
    #[must_use]
    pub fn finish(self) -> EventSessions {
        let ids = (self.count <= MAX_NAMED_SESSIONS).then_some(self.ids);
        EventSessions { count: self.count, sha256: self.hasher.finish(), ids }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_names_its_sessions_up_to_a_thousand() {
        for (count, is_named) in [(0_u64, true), (1000, true), (1001, false)] {
            let mut list = SessionList::default();
            let ids: Vec<String> = (0..count).map(|at| format!("s{at:04}\n")).collect();
            for id in &ids {
                list.add(SessionId::parse(id.trim()).unwrap());
            }
            let sessions = list.finish();
            assert_eq!((sessions.count, sessions.ids.is_some()), (count, is_named));
            assert_eq!(sessions.sha256, Sha256Digest::of(ids.concat().as_bytes()));
        }
    }
}
