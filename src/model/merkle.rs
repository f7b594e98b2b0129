//! Merkle trees as RFC 6962, section 2.1: one digest that represents a list, and short proofs that a line is in it.
//!
//! A leaf is `SHA-256(0x00 || line)`, a node `SHA-256(0x01 || left || right)`, and a tree of n leaves is split at the
//! largest power of two below n. The empty tree is the digest of nothing. Computed as lines come, in memory that grows
//! with the logarithm of their number.

use serde::{Deserialize, Serialize};

use super::digest::{Hasher, Sha256Digest};

/// Hashes one line, without its newline, as a leaf.
#[must_use]
pub fn leaf(line: &[u8]) -> Sha256Digest {
    let mut hasher = Hasher::default();
    hasher.update(&[0]);
    hasher.update(line);
    hasher.finish()
}

fn node(left: Sha256Digest, right: Sha256Digest) -> Sha256Digest {
    let mut hasher = Hasher::default();
    hasher.update(&[1]);
    hasher.update(left.as_bytes());
    hasher.update(right.as_bytes());
    hasher.finish()
}

/// A tree that grows at its end: the roots of its complete subtrees, largest first. Serialised, it can be resumed
/// by another process.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tree {
    leaves: u64,
    peaks: Vec<Sha256Digest>,
}

impl Tree {
    /// Adds a leaf.
    pub fn push(&mut self, leaf: Sha256Digest) {
        let mut root = leaf;
        // Each bit that is set represents a subtree of that size, which the new leaf completes and joins.
        for _ in 0..self.leaves.trailing_ones() {
            if let Some(left) = self.peaks.pop() {
                root = node(left, root);
            }
        }
        self.peaks.push(root);
        self.leaves += 1;
    }

    /// Returns how many leaves there are.
    #[must_use]
    pub const fn leaves(&self) -> u64 {
        self.leaves
    }

    /// Returns the root.
    #[must_use]
    pub fn root(&self) -> Sha256Digest {
        let mut peaks = self.peaks.iter().rev().copied();
        let Some(last) = peaks.next() else { return Sha256Digest::of(b"") };
        peaks.fold(last, |right, left| node(left, right))
    }
}

/// Returns the root of all leaves.
fn root_of(leaves: &[Sha256Digest]) -> Sha256Digest {
    let mut tree = Tree::default();
    for leaf in leaves {
        tree.push(*leaf);
    }
    tree.root()
}

/// Returns what proves that the leaf at an index is in the tree of all leaves (`PATH` of RFC 6962, nearest sibling
/// first); nothing if there is no such leaf.
#[must_use]
pub fn path(leaves: &[Sha256Digest], index: usize) -> Option<Vec<Sha256Digest>> {
    if index >= leaves.len() {
        return None;
    }
    if leaves.len() == 1 {
        return Some(Vec::new());
    }
    let split = leaves.len().next_power_of_two() / 2;
    let (left, right) = leaves.split_at(split);
    let (mut path, sibling) =
        if index < split { (path(left, index)?, root_of(right)) } else { (path(right, index - split)?, root_of(left)) };
    path.push(sibling);
    Some(path)
}

/// Computes the root that a path leads to (RFC 9162, section 2.1.3.2); nothing if the path does not fit the numbers.
#[must_use]
pub fn root_from(leaf: Sha256Digest, index: u64, leaves: u64, path: &[Sha256Digest]) -> Option<Sha256Digest> {
    if index >= leaves {
        return None;
    }
    let (mut at, mut last, mut root) = (index, leaves - 1, leaf);
    for sibling in path {
        if last == 0 {
            return None;
        }
        if at % 2 == 1 || at == last {
            root = node(*sibling, root);
            while at.is_multiple_of(2) && at != 0 {
                (at, last) = (at >> 1, last >> 1);
            }
        } else {
            root = node(root, *sibling);
        }
        (at, last) = (at >> 1, last >> 1);
    }
    (last == 0).then_some(root)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The test vectors that Certificate Transparency's own implementations carry.
    const INPUTS: [&str; 8] =
        ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"];
    const ROOTS: [&str; 8] = [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];

    fn leaves() -> Vec<Sha256Digest> {
        INPUTS.iter().map(|input| leaf(&hex::decode(input).unwrap())).collect()
    }

    #[test]
    fn roots_are_those_of_certificate_transparency() {
        let mut tree = Tree::default();
        assert_eq!(tree.root().to_string(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        for (leaf, root) in leaves().into_iter().zip(ROOTS) {
            tree.push(leaf);
            assert_eq!(tree.root().to_string(), root);
        }
    }

    proptest! {
        #[test]
        fn every_leaf_is_proved_by_its_path_and_by_no_other(count in 1_usize..70, index in 0_usize..70, wrong in 0_usize..70) {
            let leaves: Vec<_> = (0..count).map(|number| leaf(&number.to_be_bytes())).collect();
            let index = index % count;
            let path = path(&leaves, index).unwrap();
            let (at, all) = (index as u64, count as u64);
            prop_assert_eq!(root_from(leaves[index], at, all, &path), Some(root_of(&leaves)));
            prop_assert!(wrong % count == index || root_from(leaves[wrong % count], at, all, &path) != Some(root_of(&leaves)));
            prop_assert_eq!(root_from(leaves[index], all, all, &path), None);
            let mut longer = path.clone();
            longer.push(leaves[0]);
            prop_assert_eq!(root_from(leaves[index], at, all, &longer), None);
        }

        #[test]
        fn a_tree_goes_on_where_it_was_written_down(before in 0_usize..40, after in 0_usize..40) {
            let mut tree = Tree::default();
            let all: Vec<_> = (0..before + after).map(|number| leaf(&number.to_be_bytes())).collect();
            all[..before].iter().for_each(|leaf| tree.push(*leaf));
            let mut tree: Tree = serde_json::from_str(&serde_json::to_string(&tree).unwrap()).unwrap();
            all[before..].iter().for_each(|leaf| tree.push(*leaf));
            prop_assert_eq!(tree.leaves(), all.len() as u64);
            prop_assert_eq!(tree.root(), root_of(&all));
        }
    }
}
