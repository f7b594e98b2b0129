//! Path: the path of a leaf, from leaves that come one by one.
//!
//! Which leaves make up each sibling follows from the numbers alone (RFC 6962, section 2.1.1), so each sibling grows as a
//! tree of its own, in memory that grows with the square of the logarithm.

use std::ops::Range;

use crate::model::digest::Sha256Digest;
use crate::model::merkle::Tree;

/// The siblings of a leaf as they grow.
#[derive(Debug)]
pub(super) struct PathBuilder {
    /// Nearest first.
    siblings: Vec<(Range<u64>, Tree)>,
    next: u64,
}

impl PathBuilder {
    /// Begins for the leaf at an index in a tree of so many.
    pub(super) fn of(index: u64, leaves: u64) -> Self {
        let mut siblings = Vec::new();
        let mut range = 0..leaves;
        while range.end - range.start > 1 {
            let split = range.start + (range.end - range.start).next_power_of_two() / 2;
            let (own, sibling) = if index < split {
                (range.start..split, split..range.end)
            } else {
                (split..range.end, range.start..split)
            };
            siblings.push((sibling, Tree::default()));
            range = own;
        }
        siblings.reverse();
        Self { siblings, next: 0 }
    }

    /// Takes the next leaf.
    pub(super) fn push(&mut self, leaf: Sha256Digest) {
        if let Some((_, tree)) = self.siblings.iter_mut().find(|(range, _)| range.contains(&self.next)) {
            tree.push(leaf);
        }
        self.next += 1;
    }

    /// Returns the path.
    pub(super) fn finish(self) -> Vec<Sha256Digest> {
        self.siblings.into_iter().map(|(_, tree)| tree.root()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::merkle::{leaf, path};

    #[test]
    fn a_path_of_leaves_that_come_one_by_one_is_that_of_all_together() {
        for size in 1..=40_u64 {
            let leaves: Vec<Sha256Digest> = (0..size).map(|number| leaf(&number.to_be_bytes())).collect();
            for index in 0..size {
                let mut builder = PathBuilder::of(index, size);
                for leaf in &leaves {
                    builder.push(*leaf);
                }
                assert_eq!(Some(builder.finish()), path(&leaves, usize::try_from(index).unwrap()), "{index} of {size}");
            }
        }
    }
}
