//! Order: what comes in the order of ids, handed on in the order of the keys that begin with them.
//!
//! Keys carry a slash behind the id, and of the characters of an id only `-` sorts before it: `a-1/…` comes before `a/…`,
//! though `a` comes before `a-1`. So an id waits while those that follow begin with it and a `-`. What waits is nested,
//! never more than an id is long, however many sessions there are.

use std::collections::VecDeque;

/// Turns the order of ids into that of keys.
#[derive(Debug)]
pub(super) struct KeyOrder<T> {
    held: Vec<(String, T)>,
    ready: VecDeque<T>,
}

impl<T> Default for KeyOrder<T> {
    fn default() -> Self {
        Self { held: Vec::new(), ready: VecDeque::new() }
    }
}

impl<T> KeyOrder<T> {
    /// Takes the next one in the order of ids.
    pub(super) fn push(&mut self, id: String, item: T) {
        while let Some((top, waiting)) = self.held.pop() {
            if id.strip_prefix(top.as_str()).is_some_and(|rest| rest.starts_with('-')) {
                self.held.push((top, waiting));
                break;
            }
            self.ready.push_back(waiting);
        }
        self.held.push((id, item));
    }

    /// Says that there are no more.
    pub(super) fn end(&mut self) {
        while let Some((_, waiting)) = self.held.pop() {
            self.ready.push_back(waiting);
        }
    }

    /// Returns the next one in the order of keys, once it is known.
    pub(super) fn next(&mut self) -> Option<T> {
        self.ready.pop_front()
    }
}

/// Returns the id after which everything is, in the order of ids, that comes behind a folder in the order of keys;
/// some that comes before it as well. Nothing where that is everything.
#[must_use]
pub(super) fn begin_behind(folder: &str) -> Option<&str> {
    // An id that `folder` begins with, followed by `-`, comes behind it in keys and before it in ids.
    let shortest = folder.find('-').unwrap_or(folder.len());
    // Ids are of one byte a character, so what is left is an id or nothing.
    folder.get(..shortest.saturating_sub(1)).filter(|id| !id.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ids_come_in_the_order_of_their_keys(ids in proptest::collection::btree_set("[-_0Az]{1,5}", 0..60)) {
            let mut order = KeyOrder::default();
            let mut found = Vec::new();
            for id in &ids {
                order.push(id.clone(), id.clone());
                found.extend(std::iter::from_fn(|| order.next()));
            }
            order.end();
            found.extend(std::iter::from_fn(|| order.next()));
            let mut expected: Vec<String> = ids.into_iter().collect();
            expected.sort_by_key(|id| format!("{id}/"));
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn nothing_is_passed_over_when_it_is_gone_on_with(
            ids in proptest::collection::btree_set("[-_0Az]{1,5}", 1..60), at in 0_usize..60,
        ) {
            let ids: Vec<String> = ids.into_iter().collect();
            let folder = &ids[at % ids.len()];
            let from = begin_behind(folder);
            for id in ids.iter().filter(|id| format!("{id}/") > format!("{folder}/")) {
                prop_assert!(from.is_none_or(|from| id.as_str() > from), "{id} behind {folder}, begun behind {from:?}");
            }
        }
    }
}
