//! Versions: which version of a key is the archive's, decided here and nowhere else.
//!
//! The archive writes a key once, so its own version is the oldest that is an object. Whatever else a store lists of the
//! key shadows it: a later version, a delete marker over it, and a delete marker under it, which somebody put there before
//! the archive wrote. A key of nothing but delete markers has no version of the archive's. A shadow is never believed; it
//! is reported under its own version id, so that no repair can name the version that the archive reads.

use std::collections::VecDeque;
use std::fmt;

use futures_util::{Stream, stream};

use super::{ListedVersion, PageToken, ReadStore, StoreError};
use crate::model::key::ObjectKey;

/// All versions of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyVersions {
    /// The key.
    pub key: ObjectKey,
    /// The archive's own version.
    pub own: Option<ListedVersion>,
    /// What shadows it, oldest first.
    pub shadows: Vec<Shadow>,
}

/// A version of a key that is not the archive's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shadow {
    /// How it shadows the archive's version.
    pub kind: ShadowKind,
    /// The version.
    pub version: ListedVersion,
}

/// How a version shadows the archive's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShadowKind {
    /// A delete marker over it, or over nothing.
    DeleteMarker,
    /// A delete marker under it.
    EarlierDeleteMarker,
    /// A later version over it.
    LaterVersion,
}

impl fmt::Display for ShadowKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DeleteMarker => "a delete marker over it",
            Self::EarlierDeleteMarker => "a delete marker under it",
            Self::LaterVersion => "a later version over it",
        })
    }
}

impl KeyVersions {
    /// Sorts the versions of one key, oldest first, into the archive's and its shadows.
    #[must_use]
    pub fn of(key: ObjectKey, versions: impl IntoIterator<Item = ListedVersion>) -> Self {
        let mut sorted = Self { key, own: None, shadows: Vec::new() };
        for version in versions {
            let kind = match (version.is_delete_marker, &sorted.own) {
                (true, _) => ShadowKind::DeleteMarker,
                (false, Some(_)) => ShadowKind::LaterVersion,
                (false, None) => {
                    // So far there were only markers.
                    for shadow in &mut sorted.shadows {
                        shadow.kind = ShadowKind::EarlierDeleteMarker;
                    }
                    sorted.own = Some(version);
                    continue;
                }
            };
            sorted.shadows.push(Shadow { kind, version });
        }
        sorted
    }

    /// Groups what stores list, the newest version of a key first, by key and in the order of keys.
    #[must_use]
    pub fn group(mut listed: Vec<ListedVersion>) -> Vec<Self> {
        listed.reverse();
        listed.sort_by(|a, b| a.key.cmp(&b.key));
        Self::group_sorted(listed)
    }

    /// Groups versions that are in the order of keys and, within a key, oldest first.
    #[must_use]
    pub fn group_sorted(versions: Vec<ListedVersion>) -> Vec<Self> {
        let mut versions = versions.into_iter().peekable();
        let mut keys = Vec::new();
        while let Some(first) = versions.next() {
            let key = first.key.clone();
            let others = std::iter::from_fn(|| versions.next_if(|next| next.key == key));
            let all: Vec<ListedVersion> = std::iter::once(first).chain(others).collect();
            keys.push(Self::of(key, all));
        }
        keys
    }

    /// Returns the version id of the archive's own version.
    #[must_use]
    pub fn own_id(&self) -> Option<&str> {
        self.own.as_ref()?.version_id.as_deref()
    }

    /// Reports whether the archive's version, or its absence, is shadowed.
    #[must_use]
    pub const fn is_shadowed(&self) -> bool {
        !self.shadows.is_empty()
    }

    /// Iterates over all versions: the archive's own, then its shadows.
    pub fn all(&self) -> impl Iterator<Item = &ListedVersion> {
        self.own.iter().chain(self.shadows.iter().map(|shadow| &shadow.version))
    }
}

/// A listing, one version after another; in memory no more than one page.
#[derive(Debug)]
pub struct VersionWalk<'a> {
    store: &'a dyn ReadStore,
    prefix: String,
    page: VecDeque<ListedVersion>,
    next: Option<PageToken>,
    has_begun: bool,
}

impl<'a> VersionWalk<'a> {
    /// Begins at the first key under a prefix.
    #[must_use]
    pub fn of(store: &'a dyn ReadStore, prefix: impl Into<String>) -> Self {
        Self { store, prefix: prefix.into(), page: VecDeque::new(), next: None, has_begun: false }
    }

    /// Resumes behind a key, whether or not there is such a key.
    pub fn skip_to(&mut self, key: ObjectKey) {
        self.page.clear();
        self.next = Some(PageToken::AfterKey(key));
    }

    /// Returns the next version if it is wanted; nothing at the end.
    ///
    /// # Errors
    /// As [`ReadStore::list`].
    pub async fn next_if(
        &mut self,
        is_wanted: impl FnOnce(&ListedVersion) -> bool,
    ) -> Result<Option<ListedVersion>, StoreError> {
        while self.page.is_empty() {
            if self.has_begun && self.next.is_none() {
                return Ok(None);
            }
            self.has_begun = true;
            let page = self.store.list(&self.prefix, self.next.take()).await?;
            self.page = page.versions.into();
            self.next = page.next;
        }
        Ok(if self.page.front().is_some_and(is_wanted) { self.page.pop_front() } else { None })
    }

    /// Returns the next versions for as long as they are the same by this measure as the first of them.
    ///
    /// # Errors
    /// As [`ReadStore::list`].
    pub async fn next_group(
        &mut self,
        is_same: impl Fn(&ListedVersion, &ListedVersion) -> bool,
    ) -> Result<Vec<KeyVersions>, StoreError> {
        let Some(first) = self.next_if(|_| true).await? else { return Ok(Vec::new()) };
        let mut versions = vec![first];
        while let Some(next) = self.next_if(|next| is_same(&versions[0], next)).await? {
            versions.push(next);
        }
        Ok(KeyVersions::group(versions))
    }
}

/// A listing, one key after another; in memory no more than one page and one key.
#[derive(Debug)]
pub struct KeyWalk<'a>(VersionWalk<'a>);

impl<'a> KeyWalk<'a> {
    /// Begins at the first key under a prefix.
    #[must_use]
    pub fn of(store: &'a dyn ReadStore, prefix: impl Into<String>) -> Self {
        Self(VersionWalk::of(store, prefix))
    }

    /// Resumes behind a key, whether or not there is such a key.
    #[must_use]
    pub fn behind(mut self, key: Option<ObjectKey>) -> Self {
        if let Some(key) = key {
            self.skip_to(key);
        }
        self
    }

    /// Resumes behind a key, whether or not there is such a key.
    pub fn skip_to(&mut self, key: ObjectKey) {
        self.0.skip_to(key);
    }

    /// Returns the next key, or nothing at the end.
    ///
    /// # Errors
    /// As [`ReadStore::list`].
    pub async fn next(&mut self) -> Result<Option<KeyVersions>, StoreError> {
        Ok(self.0.next_group(|first, next| first.key == next.key).await?.pop())
    }

    /// Turns what is left into a stream, which ends at the first error.
    pub fn into_stream(self) -> impl Stream<Item = Result<KeyVersions, StoreError>> + 'a {
        stream::try_unfold(self, |mut walk| async move { Ok(walk.next().await?.map(|key| (key, walk))) })
    }
}

/// Lists every key under a prefix. For prefixes of bounded size only, such as one session's.
///
/// # Errors
/// As [`ReadStore::list`].
pub async fn list_all(store: &dyn ReadStore, prefix: &str) -> Result<Vec<KeyVersions>, StoreError> {
    VersionWalk::of(store, prefix).next_group(|_, _| true).await
}

/// Lists the versions of one key.
///
/// # Errors
/// As [`ReadStore::list`].
pub async fn versions_of(store: &dyn ReadStore, key: &ObjectKey) -> Result<KeyVersions, StoreError> {
    let listed = list_all(store, key.as_str()).await?;
    Ok(listed.into_iter().find(|listed| listed.key == *key).unwrap_or_else(|| KeyVersions::of(key.clone(), [])))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(key: &str, id: &str) -> ListedVersion {
        ListedVersion {
            key: ObjectKey::from_store(key),
            version_id: Some(id.to_owned()),
            size_bytes: 1,
            is_delete_marker: id.starts_with('m'),
            modified_at: None,
        }
    }

    fn sorted(ids: &[&str]) -> (Option<String>, Vec<(ShadowKind, String)>) {
        let key = KeyVersions::of(ObjectKey::from_store("k"), ids.iter().map(|id| version("k", id)));
        let shadows = key.shadows.iter().map(|it| (it.kind, it.version.version_id.clone().unwrap())).collect();
        assert_eq!((key.is_shadowed(), key.all().count()), (ids.len() > usize::from(key.own.is_some()), ids.len()));
        (key.own_id().map(str::to_owned), shadows)
    }

    #[test]
    fn the_oldest_object_is_the_archives_whatever_is_over_or_under_it() {
        use ShadowKind::{DeleteMarker, EarlierDeleteMarker, LaterVersion};
        let own = Some("1".to_owned());
        let is = |kind, id: &str| (kind, id.to_owned());
        assert_eq!(sorted(&["1"]), (own.clone(), Vec::new()));
        assert_eq!(sorted(&["1", "m"]), (own.clone(), vec![is(DeleteMarker, "m")]));
        assert_eq!(sorted(&["1", "2"]), (own.clone(), vec![is(LaterVersion, "2")]));
        assert_eq!(sorted(&["m", "1"]), (own.clone(), vec![is(EarlierDeleteMarker, "m")]));
        assert_eq!(sorted(&["m", "m2"]), (None, vec![is(DeleteMarker, "m"), is(DeleteMarker, "m2")]));
        let all = vec![is(EarlierDeleteMarker, "m"), is(DeleteMarker, "m2"), is(LaterVersion, "2")];
        assert_eq!(sorted(&["m", "1", "m2", "2"]), (own, all));
        assert_eq!(sorted(&[]), (None, Vec::new()));
    }

    #[test]
    fn a_listing_is_grouped_by_key() {
        let listed = ["b", "b", "a", "a-1"].into_iter().zip(["m", "1", "2", "3"]);
        let keys = KeyVersions::group(listed.map(|(key, id)| version(key, id)).collect());
        let owns: Vec<_> = keys.iter().map(|it| (it.key.as_str(), it.own_id().unwrap(), it.shadows.len())).collect();
        assert_eq!(owns, [("a", "2", 0), ("a-1", "3", 0), ("b", "1", 1)]);
    }
}
