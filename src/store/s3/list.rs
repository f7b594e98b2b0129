//! Listings of a bucket: versions and delete markers where there are any, else objects.

use std::cmp::Reverse;

use aws_sdk_s3::types::{DeleteMarkerEntry, Object, ObjectVersion};

use super::bucket::{ANSWER_TIMEOUT, Bucket, timestamp_of};
use super::error::unavailable;
use crate::clock::Timestamp;
use crate::model::key::ObjectKey;
use crate::store::{ListPage, ListedVersion, PageToken, StoreError};

/// An entry with what decides its place among the entries of its key.
struct Entry {
    listed: ListedVersion,
    is_latest: bool,
}

impl Bucket {
    pub(super) async fn list_versions(&self, prefix: &str, after: Option<PageToken>) -> Result<ListPage, StoreError> {
        const ACTION: &str = "list versions";
        let (key_marker, version_marker) = match after {
            None => (None, None),
            Some(PageToken::AfterKey(key)) => (Some(format!("{}{key}", self.prefix)), None),
            Some(PageToken::Page { key, version }) => (Some(key), version),
        };
        let request = self
            .client
            .list_object_versions()
            .bucket(&self.name)
            .set_expected_bucket_owner(self.owner.clone())
            .prefix(format!("{}{prefix}", self.prefix))
            .set_key_marker(key_marker)
            .set_version_id_marker(version_marker);
        let answer =
            self.call(ACTION, ANSWER_TIMEOUT, request.send()).await.map_err(|fault| self.error_of(ACTION, fault))?;
        let next = match (answer.is_truncated(), answer.next_key_marker()) {
            (Some(true), Some(key)) => Some(PageToken::Page {
                key: key.to_owned(),
                version: answer.next_version_id_marker().map(str::to_owned),
            }),
            // To begin anew would never end, and to stop would hide versions.
            (Some(true), None) => return Err(unavailable(ACTION, "a page without an end".to_owned(), false)),
            _ => None,
        };
        let versions = answer.versions.unwrap_or_default();
        let markers = answer.delete_markers.unwrap_or_default();
        Ok(ListPage {
            versions: merge(
                versions.into_iter().filter_map(|version| self.version_entry(version)),
                markers.into_iter().filter_map(|marker| self.marker_entry(marker)),
            ),
            next,
        })
    }

    pub(super) async fn list_objects(&self, prefix: &str, after: Option<PageToken>) -> Result<ListPage, StoreError> {
        const ACTION: &str = "list objects";
        let (start_after, token) = match after {
            None => (None, None),
            Some(PageToken::AfterKey(key)) => (Some(format!("{}{key}", self.prefix)), None),
            Some(PageToken::Page { key, .. }) => (None, Some(key)),
        };
        let request = self
            .client
            .list_objects_v2()
            .bucket(&self.name)
            .set_expected_bucket_owner(self.owner.clone())
            .prefix(format!("{}{prefix}", self.prefix))
            .set_start_after(start_after)
            .set_continuation_token(token);
        let answer =
            self.call(ACTION, ANSWER_TIMEOUT, request.send()).await.map_err(|fault| self.error_of(ACTION, fault))?;
        let objects = answer.contents.unwrap_or_default();
        Ok(ListPage {
            versions: objects.iter().filter_map(|object| self.object_entry(object)).collect(),
            next: answer.next_continuation_token.map(|key| PageToken::Page { key, version: None }),
        })
    }

    fn own_key(&self, key: Option<&str>) -> Option<ObjectKey> {
        key?.strip_prefix(&self.prefix).map(ObjectKey::from_store)
    }

    fn version_entry(&self, version: ObjectVersion) -> Option<Entry> {
        Some(Entry {
            is_latest: version.is_latest().unwrap_or(false),
            listed: ListedVersion {
                key: self.own_key(version.key())?,
                size_bytes: size_of(version.size()),
                is_delete_marker: false,
                modified_at: version.last_modified().and_then(timestamp_of),
                version_id: version.version_id,
            },
        })
    }

    fn marker_entry(&self, marker: DeleteMarkerEntry) -> Option<Entry> {
        Some(Entry {
            is_latest: marker.is_latest().unwrap_or(false),
            listed: ListedVersion {
                key: self.own_key(marker.key())?,
                size_bytes: 0,
                is_delete_marker: true,
                modified_at: marker.last_modified().and_then(timestamp_of),
                version_id: marker.version_id,
            },
        })
    }

    fn object_entry(&self, object: &Object) -> Option<ListedVersion> {
        Some(ListedVersion {
            key: self.own_key(object.key())?,
            version_id: None,
            size_bytes: size_of(object.size()),
            is_delete_marker: false,
            modified_at: object.last_modified().and_then(timestamp_of),
        })
    }
}

fn size_of(size: Option<i64>) -> u64 {
    size.and_then(|size| u64::try_from(size).ok()).unwrap_or(0)
}

/// Brings versions and markers, which the SDK hands out apart, back into one order: by key, then newest first. Each of
/// the two keeps the server's own order; times decide only between them.
fn merge(versions: impl Iterator<Item = Entry>, markers: impl Iterator<Item = Entry>) -> Vec<ListedVersion> {
    let mut markers = markers.peekable();
    let mut merged = Vec::new();
    for version in versions {
        while let Some(marker) = markers.next_if(|marker| place(marker) <= place(&version)) {
            merged.push(marker.listed);
        }
        merged.push(version.listed);
    }
    merged.extend(markers.map(|marker| marker.listed));
    merged
}

fn place(entry: &Entry) -> (&ObjectKey, bool, Reverse<Option<Timestamp>>) {
    (&entry.listed.key, !entry.is_latest, Reverse(entry.listed.modified_at))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &str, version: &str, is_delete_marker: bool, is_latest: bool, seconds: i64) -> Entry {
        Entry {
            is_latest,
            listed: ListedVersion {
                key: ObjectKey::from_store(key),
                version_id: Some(version.to_owned()),
                size_bytes: 0,
                is_delete_marker,
                modified_at: Some(Timestamp::from_unix_seconds(seconds)),
            },
        }
    }

    fn order(versions: Vec<Entry>, markers: Vec<Entry>) -> Vec<String> {
        merge(versions.into_iter(), markers.into_iter()).into_iter().filter_map(|listed| listed.version_id).collect()
    }

    #[test]
    fn markers_find_their_place_among_versions() {
        let versions = vec![
            entry("a", "a3", false, false, 30),
            entry("a", "a1", false, false, 10),
            entry("c", "c1", false, true, 10),
        ];
        let markers = vec![
            entry("a", "a4", true, true, 40),
            entry("a", "a2", true, false, 20),
            entry("b", "b1", true, true, 10),
            entry("d", "d1", true, true, 10),
        ];
        assert_eq!(order(versions, markers), ["a4", "a3", "a2", "a1", "b1", "c1", "d1"]);
    }

    #[test]
    fn within_one_second_the_latest_comes_first() {
        let version = || entry("a", "version", false, true, 10);
        let marker = || entry("a", "marker", true, false, 10);
        assert_eq!(order(vec![version()], vec![marker()]), ["version", "marker"]);
        let version = || entry("a", "version", false, false, 10);
        let marker = || entry("a", "marker", true, true, 10);
        assert_eq!(order(vec![version()], vec![marker()]), ["marker", "version"]);
    }
}
