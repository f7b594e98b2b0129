//! Look: what the store already holds of one session.
//!
//! One listing of the session's prefix and the newest manifest, before anything is asked or downloaded; so finished work
//! is recognised even with an empty ledger. What shadows the archive's version of a key is never believed and never written
//! over: it is reported.

use std::collections::{BTreeMap, HashMap};

use crate::clock::Timestamp;
use crate::error::Code;
use crate::model::key::{ObjectKey, SessionObject};
use crate::model::manifest::{Manifest, PreviousManifest};
use crate::model::retention::Lock;
use crate::model::{ArchiveId, AttemptId, MediaId, SessionId};
use crate::store::document::read_document;
use crate::store::versions::{KeyVersions, list_all};
use crate::store::{ListedVersion, ReadStore, StoreError};

/// What stands in the store of one session.
#[derive(Debug, Default)]
pub struct Standing {
    /// The newest manifest.
    pub manifest: Option<StandingManifest>,
    /// The number after the highest that any manifest's key bears.
    pub next_sequence: u32,
    /// When the first manifest was written, by the store's clock.
    pub first_visit_at: Option<Timestamp>,
    keys: BTreeMap<ObjectKey, KeyVersions>,
    media: HashMap<MediaId, (AttemptId, ObjectKey)>,
    /// The newest document that tells of something expired by plan; a later version of this program knows what to do with it.
    pub expired: Option<ListedVersion>,
}

/// A manifest and where it stands.
#[derive(Debug)]
pub struct StandingManifest {
    /// The document.
    pub document: Manifest,
    /// Where it stands.
    pub place: PreviousManifest,
    /// Its lock, where the store told it.
    pub lock: Option<Lock>,
}

/// Why what stands cannot be worked with.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A document of the archive is not what it must be.
    #[error("{key} {reason}")]
    Damaged {
        /// Its key.
        key: ObjectKey,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The session belongs to another archive.
    #[error("{key} belongs to another archive than archive.json names")]
    Foreign {
        /// Its key.
        key: ObjectKey,
    },
}

impl InspectError {
    /// Returns the stable code, which fixes the error class.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::Store(error) => error.code(),
            Self::Damaged { .. } => Code::StoreDamaged,
            Self::Foreign { .. } => Code::StoreMismatch,
        }
    }
}

impl Standing {
    /// Returns the archive's version of a key.
    #[must_use]
    pub fn object(&self, key: &ObjectKey) -> Option<&ListedVersion> {
        self.keys.get(key)?.own.as_ref()
    }

    /// Returns the attempt and key under which a media id stands, whether or not a manifest names it.
    #[must_use]
    pub fn media(&self, media_id: &MediaId) -> Option<(&AttemptId, &ObjectKey)> {
        let (attempt_id, key) = self.media.get(media_id)?;
        Some((attempt_id, key))
    }

    /// Returns what an earlier visit put beside a key that other bytes had taken.
    #[must_use]
    pub fn conflict(&self, key: &ObjectKey) -> Option<&ListedVersion> {
        let prefix = format!("{key}.conflict-");
        let beside = self.keys.range(ObjectKey::from_store(prefix.as_str())..);
        beside
            .take_while(|(key, _)| key.as_str().starts_with(&prefix))
            .filter(|(key, _)| !key.as_str().ends_with(".meta.json"))
            .find_map(|(_, listed)| listed.own.as_ref())
    }

    /// Tells whether a key is free: nothing was ever under it.
    #[must_use]
    pub fn is_free(&self, key: &ObjectKey) -> bool {
        !self.keys.contains_key(key)
    }

    /// Iterates over the keys that are shadowed.
    pub fn shadowed(&self) -> impl Iterator<Item = &KeyVersions> {
        self.keys.values().filter(|listed| listed.is_shadowed())
    }

    /// Reports whether something shadows the archive's version of a key.
    #[must_use]
    pub fn is_shadowed(&self, key: &ObjectKey) -> bool {
        self.keys.get(key).is_some_and(KeyVersions::is_shadowed)
    }

    /// Tells whether an object stands as a document says: the same version, the same length.
    #[must_use]
    pub fn stands(&self, key: &ObjectKey, version_id: Option<&str>, size_bytes: Option<u64>) -> bool {
        self.object(key).is_some_and(|object| {
            object.version_id.as_deref() == version_id && size_bytes.is_none_or(|size| size == object.size_bytes)
        })
    }
}

/// Looks at what stands of a session.
///
/// # Errors
/// As the store's; permanent if the newest manifest is not what it must be; fatal if it belongs to another archive.
pub async fn inspect(
    store: &dyn ReadStore,
    archive: Option<&ArchiveId>,
    session: &SessionId,
) -> Result<Standing, InspectError> {
    let mut standing = sort(session, list_all(store, &ObjectKey::session_prefix(session)).await?);
    let Some(sequence) = standing.next_sequence.checked_sub(1).filter(|sequence| *sequence > 0) else {
        return Ok(standing);
    };
    // The archive's version of the highest number that has one; a number whose first version is gone holds nothing.
    let mut newest = (1..=sequence).rev().map(|number| ObjectKey::manifest(session, number));
    let Some(version) = newest.find_map(|key| standing.object(&key).cloned()) else {
        return Ok(standing);
    };
    standing.manifest = Some(read_manifest(store, archive, session, &version).await?);
    Ok(standing)
}

async fn read_manifest(
    store: &dyn ReadStore,
    archive: Option<&ArchiveId>,
    session: &SessionId,
    version: &ListedVersion,
) -> Result<StandingManifest, InspectError> {
    let damaged = |reason| InspectError::Damaged { key: version.key.clone(), reason };
    let read = read_document(store, &version.key, version.version_id.as_deref()).await?;
    let read = read.ok_or_else(|| damaged("was listed and cannot be opened"))?;
    let document = Manifest::parse(&read.bytes).ok_or_else(|| damaged("is not a manifest"))?;
    if document.session_id != *session || ObjectKey::manifest(session, document.sequence) != version.key {
        return Err(damaged("names another session or number than its key"));
    }
    if archive.is_some_and(|archive| *archive != document.archive_id) {
        return Err(InspectError::Foreign { key: version.key.clone() });
    }
    let place =
        PreviousManifest { key: version.key.clone(), version_id: version.version_id.clone(), sha256: read.sha256 };
    Ok(StandingManifest { document, place, lock: read.lock })
}

/// Sorts a listing into what the session has.
fn sort(session: &SessionId, listed: Vec<KeyVersions>) -> Standing {
    let mut standing = Standing { next_sequence: 1, ..Standing::default() };
    for listed in listed {
        match (listed.key.read_as(session), &listed.own) {
            (SessionObject::Media { attempt_id, media_id }, Some(_)) => {
                standing.media.entry(media_id).or_insert_with(|| (attempt_id, listed.key.clone()));
            }
            (SessionObject::Manifest(number), own) => {
                // A number is taken also by a delete marker.
                standing.next_sequence = standing.next_sequence.max(number + 1);
                if number == 1 {
                    standing.first_visit_at = own.as_ref().and_then(|own| own.modified_at);
                }
            }
            (SessionObject::Expired(_), Some(own)) => standing.expired = Some(own.clone()),
            _ => {}
        }
        standing.keys.insert(listed.key.clone(), listed);
    }
    standing
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> SessionId {
        SessionId::parse("s").unwrap()
    }

    fn version(key: &str, id: &str, is_delete_marker: bool) -> ListedVersion {
        ListedVersion {
            key: ObjectKey::from_store(format!("sessions/s/{key}")),
            version_id: Some(id.into()),
            size_bytes: 1,
            is_delete_marker,
            modified_at: None,
        }
    }

    fn sorted(versions: Vec<ListedVersion>) -> Standing {
        sort(&session(), KeyVersions::group_sorted(versions))
    }

    fn shadowed(standing: &Standing) -> Vec<ObjectKey> {
        standing.shadowed().map(|listed| listed.key.clone()).collect()
    }

    #[test]
    fn the_oldest_version_is_the_archives_and_what_lies_over_it_is_reported() {
        let standing = sorted(vec![
            version("a/m.jpg", "1", false),
            version("manifest/0001.json", "1", false),
            version("manifest/0001.json", "2", false),
            version("manifest/0002.json", "3", true),
        ]);
        let first = ObjectKey::manifest(&session(), 1);
        let second = ObjectKey::manifest(&session(), 2);
        assert_eq!(standing.object(&first).unwrap().version_id.as_deref(), Some("1"));
        assert_eq!(shadowed(&standing), [first, second.clone()]);
        assert!(standing.object(&second).is_none() && !standing.is_free(&second));
        assert_eq!(standing.next_sequence, 3);
        let media = MediaId::parse("m").unwrap();
        assert_eq!(standing.media(&media).unwrap().1.as_str(), "sessions/s/a/m.jpg");
    }

    #[test]
    fn a_version_over_a_delete_marker_is_the_archives_and_shadowed() {
        let standing = sorted(vec![version("a/m.jpg", "1", true), version("a/m.jpg", "2", false)]);
        let key = ObjectKey::from_store("sessions/s/a/m.jpg");
        assert_eq!(standing.object(&key).unwrap().version_id.as_deref(), Some("2"));
        assert_eq!(standing.media(&MediaId::parse("m").unwrap()).unwrap().1, &key);
        assert_eq!(shadowed(&standing), [key]);
    }

    #[test]
    fn what_stands_beside_a_taken_key_is_found() {
        let listed =
            ["a/m.jpg", "a/m.jpg.conflict-01234567", "a/m.jpg.conflict-01234567.meta.json", "a/m.jpg.meta.json"];
        let standing = sorted(listed.iter().map(|key| version(key, "1", false)).collect());
        let beside = standing.conflict(&ObjectKey::from_store("sessions/s/a/m.jpg")).unwrap();
        assert_eq!(beside.key.as_str(), "sessions/s/a/m.jpg.conflict-01234567");
        assert!(standing.conflict(&beside.key).is_none());
    }

    #[test]
    fn a_document_and_the_listing_must_agree() {
        let standing = sorted(vec![version("a/m.jpg", "1", false)]);
        let key = ObjectKey::from_store("sessions/s/a/m.jpg");
        assert!(standing.stands(&key, Some("1"), Some(1)));
        assert!(!standing.stands(&key, Some("2"), Some(1)));
        assert!(!standing.stands(&key, Some("1"), Some(2)));
    }
}
