//! Keys: what stands under a prefix, one key after another, each with all its versions.
//!
//! In memory no more than one page and one key. The oldest version of a key is the archive's; a delete marker or a later
//! version is shown beside it, to be reported.

use std::collections::VecDeque;

use crate::audit::{Finding, FindingCode, Severity};
use crate::model::key::ObjectKey;
use crate::retry::Backoff;
use crate::session::standing::MAX_DOCUMENT_BYTES;
use crate::store::{ListedVersion, PageToken, ReadStore, StoreError};

/// How often bytes that break off are read from the start.
const BODY_TRIES: Backoff = Backoff::of_tries(4);

/// One key of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ListedKey {
    /// The key.
    pub(crate) key: ObjectKey,
    /// Its oldest version; nothing if that is a delete marker.
    pub(crate) own: Option<ListedVersion>,
    /// Whatever lies over it, oldest first; all of them if the oldest is a delete marker.
    pub(crate) over: Vec<ListedVersion>,
}

/// A walk over everything under a prefix.
#[derive(Debug)]
pub(crate) struct KeyWalk<'a> {
    store: &'a dyn ReadStore,
    prefix: String,
    page: VecDeque<ListedVersion>,
    next: Option<PageToken>,
    begun: bool,
}

impl<'a> KeyWalk<'a> {
    /// Begins at the first key.
    pub(crate) fn of(store: &'a dyn ReadStore, prefix: impl Into<String>) -> Self {
        Self { store, prefix: prefix.into(), page: VecDeque::new(), next: None, begun: false }
    }

    /// Goes on behind a key.
    pub(crate) fn skip_to(&mut self, key: ObjectKey) {
        self.page.clear();
        self.next = Some(PageToken::AfterKey(key));
    }

    /// Returns the next key, or nothing at the end.
    ///
    /// # Errors
    /// As [`ReadStore::list`].
    pub(crate) async fn next(&mut self) -> Result<Option<ListedKey>, StoreError> {
        let Some(first) = self.next_version().await? else { return Ok(None) };
        let key = first.key.clone();
        let mut versions = vec![first];
        while let Some(version) = self.next_version().await? {
            if version.key != key {
                self.page.push_front(version);
                break;
            }
            versions.push(version);
        }
        // Stores list the newest version of a key first.
        versions.reverse();
        let own = versions.first().filter(|oldest| !oldest.is_delete_marker).cloned();
        let over = versions.into_iter().skip(usize::from(own.is_some())).collect();
        Ok(Some(ListedKey { key, own, over }))
    }

    /// Returns everything that is left. For prefixes of bounded size only, such as one run's.
    ///
    /// # Errors
    /// As [`ReadStore::list`].
    pub(crate) async fn collect(mut self) -> Result<Vec<ListedKey>, StoreError> {
        let mut keys = Vec::new();
        while let Some(key) = self.next().await? {
            keys.push(key);
        }
        Ok(keys)
    }

    async fn next_version(&mut self) -> Result<Option<ListedVersion>, StoreError> {
        while self.page.is_empty() {
            if self.begun && self.next.is_none() {
                return Ok(None);
            }
            self.begun = true;
            let page = self.store.list(&self.prefix, self.next.take()).await?;
            self.page = page.versions.into();
            self.next = page.next;
        }
        Ok(self.page.pop_front())
    }
}

impl ListedKey {
    /// Says what lies over the archive's own version.
    pub(crate) fn lying_over(&self) -> impl Iterator<Item = Finding> {
        let own = self.own.as_ref().and_then(|own| own.version_id.as_deref()).unwrap_or("nothing");
        self.over.iter().map(move |version| {
            let (code, found, repair) = if version.is_delete_marker {
                (FindingCode::ObjectHidden, "a delete marker", "remove the delete marker by its version id")
            } else {
                (FindingCode::ObjectShadowed, "a later version", "find out who wrote it; remove this version by its id")
            };
            Finding::of(Severity::Error, code, repair)
                .object(&self.key, version.version_id.as_deref())
                .differs(format!("only the first version, {own}"), found)
        })
    }
}

/// Reads a document of the archive whole, from the start again if its bytes break off; nothing if it does not exist.
///
/// # Errors
/// As the store's; permanent if it is longer than any document of this program.
pub(crate) async fn read(
    store: &dyn ReadStore,
    key: &ObjectKey,
    version: Option<&str>,
) -> Result<Option<Vec<u8>>, StoreError> {
    let mut failed = 0;
    loop {
        let Some(body) = store.open(key, version).await? else { return Ok(None) };
        let error = match body.read_to_end(MAX_DOCUMENT_BYTES).await {
            Ok(bytes) => return Ok(Some(bytes)),
            Err(error) => error,
        };
        failed += 1;
        match BODY_TRIES.wait(failed, None).filter(|_| error.code().is_retryable()) {
            Some(wait) => tokio::time::sleep(wait).await,
            None => return Err(error),
        }
    }
}
