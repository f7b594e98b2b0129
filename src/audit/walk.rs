//! Walk: the objects of the store, session by session, in the order of their keys.
//!
//! One listing after another, and in memory no more than one page and one session. The order is that of keys, in which
//! `a-1/` comes before `a/`: to compare it with ids in their own order, see [`place_of`].

use crate::model::SessionId;
use crate::model::key::ObjectKey;
use crate::store::versions::{KeyVersions, VersionWalk};
use crate::store::{ReadStore, StoreError};

/// The prefix of all sessions.
const SESSIONS: &str = "sessions/";

/// What the store has below one folder of `sessions/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalkedSession {
    /// The name of the folder; no session's if it is no id.
    pub folder: String,
    /// Its keys, in their order, each with all versions.
    pub keys: Vec<KeyVersions>,
}

impl WalkedSession {
    /// Returns the session, if the folder is named by one.
    #[must_use]
    pub fn session_id(&self) -> Option<SessionId> {
        SessionId::parse(&self.folder).ok()
    }
}

/// A walk over everything under `sessions/`.
#[derive(Debug)]
pub struct Walk<'a>(VersionWalk<'a>);

/// Returns what sorts ids as the keys of their objects sort.
#[must_use]
pub fn place_of(id: &str) -> String {
    format!("{id}/")
}

impl<'a> Walk<'a> {
    /// Begins at the first session, or behind the folder of the one that was done last.
    #[must_use]
    pub fn of(store: &'a dyn ReadStore, after: Option<&str>) -> Self {
        let mut walk = VersionWalk::of(store, SESSIONS);
        if let Some(folder) = after {
            // A slash is followed by 0: behind everything in the folder and before whatever comes next.
            walk.skip_to(ObjectKey::from_store(format!("{SESSIONS}{folder}0")));
        }
        Self(walk)
    }

    /// Begins at the first session whose folder is not before this text.
    #[must_use]
    pub fn from(store: &'a dyn ReadStore, first: &str) -> Self {
        let mut walk = VersionWalk::of(store, SESSIONS);
        walk.skip_to(ObjectKey::from_store(format!("{SESSIONS}{first}")));
        Self(walk)
    }

    /// Returns the next session, or nothing at the end.
    ///
    /// # Errors
    /// As [`ReadStore::list`].
    pub async fn next(&mut self) -> Result<Option<WalkedSession>, StoreError> {
        let keys = self.0.next_group(|first, next| folder_of(&first.key) == folder_of(&next.key)).await?;
        let folder = keys.first().map(|first| folder_of(&first.key).to_owned());
        Ok(folder.map(|folder| WalkedSession { folder, keys }))
    }
}

fn folder_of(key: &ObjectKey) -> &str {
    let below = key.as_str().strip_prefix(SESSIONS).unwrap_or_default();
    below.split_once('/').map_or(below, |(folder, _)| folder)
}
