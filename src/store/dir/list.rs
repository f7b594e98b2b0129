//! Listings of a directory in the order that S3 gives to keys.
//!
//! A page keeps in memory what it lists, and of each folder on its way no more names than a page has entries, however many
//! the folder holds; a folder's names are read anew for each page.

use std::collections::BinaryHeap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{TEMP_PREFIX, is_absent, place_of};
use crate::clock::Timestamp;
use crate::model::key::ObjectKey;
use crate::store::ListedVersion;

/// A walk in the order of keys that stops with a full page.
pub(super) struct Listing {
    pub(super) prefix: String,
    pub(super) after: Option<String>,
    /// How many entries a page has.
    pub(super) limit: usize,
    /// Nothing: a look that leaves everything as it is.
    pub(super) sweep_before: Option<Timestamp>,
    pub(super) found: Vec<ListedVersion>,
}

impl Listing {
    pub(super) fn walk_from(&mut self, root: &Path) -> io::Result<()> {
        let folder = self.prefix.rsplit_once('/').map_or(String::new(), |(folder, _)| format!("{folder}/"));
        match place_of(root, folder.trim_end_matches('/')) {
            Some(start) => self.walk(&start, &folder),
            None if folder.is_empty() => self.walk(root, ""),
            // No key can lie below such a prefix.
            None => Ok(()),
        }
    }

    /// Lists a directory whose keys begin with `folder`. The name of a directory sorts with its slash, as keys do.
    fn walk(&mut self, directory: &Path, folder: &str) -> io::Result<()> {
        let mut behind = None;
        loop {
            let entries = match self.read(directory, folder, behind.as_deref()) {
                Err(error) if is_absent(&error) => return Ok(()),
                other => other?,
            };
            // Folders may be empty, so that a page has room behind as many of them as it has entries.
            behind = entries.last().filter(|_| entries.len() == self.limit).map(|(key, _)| key.clone());
            for (key, path) in entries {
                if self.found.len() == self.limit {
                    return Ok(());
                }
                if key.ends_with('/') {
                    self.walk(&path, &key)?;
                } else {
                    self.add(key, &path)?;
                }
            }
            if behind.is_none() {
                return Ok(());
            }
        }
    }

    /// Reads the first names of a directory behind a key, in the order of keys: as many as a page has entries.
    fn read(&self, directory: &Path, folder: &str, behind: Option<&str>) -> io::Result<Vec<(String, PathBuf)>> {
        let mut first: BinaryHeap<(String, PathBuf)> = BinaryHeap::new();
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(TEMP_PREFIX) {
                self.sweep(&entry.path());
                continue;
            }
            let slash = if entry.file_type()?.is_dir() { "/" } else { "" };
            let key = format!("{folder}{name}{slash}");
            if !self.may_hold(&key) || behind.is_some_and(|behind| key.as_str() <= behind) {
                continue;
            }
            if first.len() < self.limit {
                first.push((key, entry.path()));
            } else if let Some(mut last) = first.peek_mut()
                && key < last.0
            {
                *last = (key, entry.path());
            }
        }
        Ok(first.into_sorted_vec())
    }

    /// Returns whether a key, or a key below a folder, is wanted and was not on an earlier page.
    fn may_hold(&self, key: &str) -> bool {
        let is_folder = key.ends_with('/');
        let wanted = key.starts_with(&self.prefix) || (is_folder && self.prefix.starts_with(key));
        let is_left = self.after.as_deref().is_none_or(|after| key > after || (is_folder && after.starts_with(key)));
        wanted && is_left
    }

    fn add(&mut self, key: String, path: &Path) -> io::Result<()> {
        let found = match fs::metadata(path) {
            Err(error) if is_absent(&error) => return Ok(()),
            other => other?,
        };
        if found.is_file() {
            self.found.push(ListedVersion {
                key: ObjectKey::from_store(key),
                version_id: None,
                size_bytes: found.len(),
                is_delete_marker: false,
                modified_at: modified_at(&found),
            });
        }
        Ok(())
    }

    fn sweep(&self, path: &Path) {
        let Some(sweep_before) = self.sweep_before else { return };
        let is_left_over =
            fs::metadata(path).ok().and_then(|found| modified_at(&found)).is_some_and(|at| at < sweep_before);
        if is_left_over {
            // A listing does not fail because a directory is for reading only.
            let _ = fs::remove_file(path);
        }
    }
}

fn modified_at(found: &fs::Metadata) -> Option<Timestamp> {
    let since = found.modified().ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some(Timestamp::from_unix_millis(millis(since)))
}

pub(super) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn pages_hold_every_key_once_in_the_order_of_keys(
            names in proptest::collection::btree_set("[a-c]{1,2}(/[a-c.-]{1,2}x){0,2}\\.o", 1..40),
            empty in proptest::collection::btree_set("[a-c]{1,3}(/[a-c]{1,2}){0,1}", 0..20),
            prefix in "([a-c]{1,2}/?)?",
        ) {
            let directory = tempfile::tempdir().unwrap();
            for name in &empty {
                fs::create_dir_all(directory.path().join(name)).unwrap();
            }
            for name in &names {
                let place = directory.path().join(name);
                fs::create_dir_all(place.parent().unwrap()).unwrap();
                fs::write(place, b"").unwrap();
            }
            let mut after = None;
            let mut listed = Vec::new();
            loop {
                let mut listing = Listing {
                    prefix: prefix.clone(),
                    after,
                    limit: 3,
                    sweep_before: None,
                    found: Vec::new(),
                };
                listing.walk_from(directory.path()).unwrap();
                prop_assert!(listing.found.len() <= 3);
                let Some(last) = listing.found.last() else { break };
                after = Some(last.key.as_str().to_owned());
                listed.extend(listing.found.into_iter().map(|found| found.key.as_str().to_owned()));
            }
            let expected: Vec<_> = names.into_iter().filter(|name| name.starts_with(&prefix)).collect();
            prop_assert_eq!(listed, expected);
        }
    }

    #[test]
    fn of_a_large_folder_no_more_names_are_held_than_a_page_has() {
        let directory = tempfile::tempdir().unwrap();
        for number in 0..500 {
            fs::create_dir(directory.path().join(format!("{number:03}"))).unwrap();
        }
        let listing = Listing { prefix: String::new(), after: None, limit: 10, sweep_before: None, found: Vec::new() };
        let names = |behind| {
            let read = listing.read(directory.path(), "", behind).unwrap();
            read.into_iter().map(|(key, _)| key).collect::<Vec<_>>()
        };
        assert_eq!(names(None), (0..10).map(|number| format!("{number:03}/")).collect::<Vec<_>>());
        assert_eq!(names(Some("494/")), ["495/", "496/", "497/", "498/", "499/"]);
    }
}
