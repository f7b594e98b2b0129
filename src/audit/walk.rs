//! Walk: the objects of the store, session by session, in the order of their keys.
//!
//! One listing after another, and in memory no more than one page and one session. On a versioned store the versions of a
//! key come oldest first, as everywhere outside the store itself. The order is that of keys, in which `a-1/` comes before
//! `a/`: to hold it against ids in their own order, see [`place_of`].

use std::collections::VecDeque;

use crate::model::SessionId;
use crate::model::key::ObjectKey;
use crate::store::{ListedVersion, PageToken, ReadStore, StoreError};

/// The prefix of all sessions.
const SESSIONS: &str = "sessions/";

/// What the store has below one folder of `sessions/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalkedSession {
    /// The name of the folder; no session's if it is no id.
    pub folder: String,
    /// All versions of all its keys, in the order of keys and, within a key, oldest first.
    pub versions: Vec<ListedVersion>,
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
pub struct Walk<'a> {
    store: &'a dyn ReadStore,
    page: VecDeque<ListedVersion>,
    next: Option<PageToken>,
    begun: bool,
}

/// Returns what sorts ids as the keys of their objects sort.
#[must_use]
pub fn place_of(id: &str) -> String {
    format!("{id}/")
}

impl<'a> Walk<'a> {
    /// Begins at the first session, or behind the folder of the one that was done last.
    #[must_use]
    pub fn of(store: &'a dyn ReadStore, after: Option<&str>) -> Self {
        // A slash is followed by 0: behind everything in the folder and before whatever comes next.
        let next = after.map(|folder| PageToken::AfterKey(ObjectKey::from_store(format!("{SESSIONS}{folder}0"))));
        Self { store, page: VecDeque::new(), next, begun: false }
    }

    /// Begins at the first session whose folder is not before this text.
    #[must_use]
    pub fn from(store: &'a dyn ReadStore, first: &str) -> Self {
        let next = Some(PageToken::AfterKey(ObjectKey::from_store(format!("{SESSIONS}{first}"))));
        Self { store, page: VecDeque::new(), next, begun: false }
    }

    /// Returns the next session, or nothing at the end.
    ///
    /// # Errors
    /// As [`ReadStore::list`].
    pub async fn next(&mut self) -> Result<Option<WalkedSession>, StoreError> {
        let Some(first) = self.next_version().await? else { return Ok(None) };
        let folder = folder_of(&first.key).to_owned();
        let mut versions = vec![first];
        while let Some(version) = self.next_version().await? {
            if folder_of(&version.key) != folder {
                self.page.push_front(version);
                break;
            }
            versions.push(version);
        }
        // Stores list the newest version of a key first.
        versions.reverse();
        versions.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(Some(WalkedSession { folder, versions }))
    }

    async fn next_version(&mut self) -> Result<Option<ListedVersion>, StoreError> {
        while self.page.is_empty() {
            if self.begun && self.next.is_none() {
                return Ok(None);
            }
            self.begun = true;
            let page = self.store.list(SESSIONS, self.next.take()).await?;
            self.page = page.versions.into();
            self.next = page.next;
        }
        Ok(self.page.pop_front())
    }
}

fn folder_of(key: &ObjectKey) -> &str {
    let below = key.as_str().strip_prefix(SESSIONS).unwrap_or_default();
    below.split_once('/').map_or(below, |(folder, _)| folder)
}
