//! Many: the proofs of many sessions in one run, its lines read twice for all of them together.
//!
//! An export proves every session that it copies. One by one, each would read all lines of its run; here the siblings that
//! several paths share are built once, so that a line costs no more for many sessions than for one.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};

use serde::Deserialize;

use super::search::{Place, by_time, entry_of, for_each_line, open, proof_of};
use super::{Proof, ProveError};
use crate::model::digest::Sha256Digest;
use crate::model::merkle::{Tree, leaf, root_from};
use crate::model::run::RunLine;
use crate::model::{RunId, SessionId};
use crate::store::ReadStore;

/// What is read of every line.
#[derive(Deserialize)]
struct Named<'a> {
    #[serde(borrow)]
    session_id: Cow<'a, str>,
}

/// Makes the proofs of those sessions of which a run has a line that names a manifest. None if the run left no signed record
/// in the folder of the day that its id contains.
///
/// # Errors
/// As the store's; permanent: the archive is damaged.
pub async fn find_in_run(
    store: &dyn ReadStore,
    run: &RunId,
    sessions: &BTreeSet<SessionId>,
) -> Result<Vec<Proof>, ProveError> {
    let Some(key) = by_time(store, run).await? else { return Ok(Vec::new()) };
    let Some(signed) = open(store, key).await? else { return Ok(Vec::new()) };
    let mut places: HashMap<SessionId, Place> = HashMap::new();
    for_each_line(store, &signed, |index, text| {
        let named = serde_json::from_slice::<Named<'_>>(text).ok();
        let id = named.and_then(|named| SessionId::parse(&named.session_id).ok());
        let Some(id) = id.filter(|id| sessions.contains(id)) else { return };
        let line = RunLine::parse(text).filter(|line| line.manifest.is_some());
        if let (Some(line), Ok(text)) = (line, std::str::from_utf8(text)) {
            places.insert(id, Place { text: text.to_owned(), line, index });
        }
    })
    .await?;
    if places.is_empty() {
        return Ok(Vec::new());
    }
    let leaves = signed.record.chunks.iter().map(|chunk| chunk.sessions).sum();
    let mut paths = Paths::of(places.values().map(|place| place.index), leaves);
    for_each_line(store, &signed, |_, line| paths.push(leaf(line))).await?;
    let chain = entry_of(store, &signed).await?;
    let mut proofs = Vec::new();
    for (_, place) in places {
        let path = paths.of_leaf(place.index);
        if root_from(leaf(place.text.as_bytes()), place.index, leaves, &path) != Some(signed.record.merkle_root) {
            return Err(ProveError::Damaged { key: signed.key, reason: "does not fit its lines".to_owned() });
        }
        proofs.push(proof_of(&signed, place, None, path, chain.clone()));
    }
    Ok(proofs)
}

/// The siblings of many leaves as they grow, each once: which leaves make up a sibling follows from the numbers alone.
struct Paths {
    leaves: u64,
    next: u64,
    siblings: HashMap<(u64, u64), Tree>,
}

impl Paths {
    fn of(indices: impl Iterator<Item = u64>, leaves: u64) -> Self {
        let siblings = indices.flat_map(|index| steps(index, leaves)).map(|(_, sibling)| (sibling, Tree::default()));
        Self { leaves, next: 0, siblings: siblings.collect() }
    }

    /// Takes the next leaf.
    fn push(&mut self, leaf: Sha256Digest) {
        if self.next < self.leaves {
            // Every sibling that holds this leaf is one of the ranges on the way down to it.
            for (own, _) in steps(self.next, self.leaves) {
                if let Some(tree) = self.siblings.get_mut(&own) {
                    tree.push(leaf);
                }
            }
        }
        self.next += 1;
    }

    /// Returns the path of a leaf, nearest sibling first.
    fn of_leaf(&self, index: u64) -> Vec<Sha256Digest> {
        let mut path: Vec<Sha256Digest> =
            steps(index, self.leaves).filter_map(|(_, sibling)| Some(self.siblings.get(&sibling)?.root())).collect();
        path.reverse();
        path
    }
}

/// Iterates over the way from the whole tree down to a leaf: at each step the half that holds it, and the other one.
fn steps(index: u64, leaves: u64) -> impl Iterator<Item = ((u64, u64), (u64, u64))> {
    let mut range = (0, leaves);
    std::iter::from_fn(move || {
        let (start, end) = range;
        if end - start < 2 {
            return None;
        }
        let split = start + (end - start).next_power_of_two() / 2;
        let halves = ((start, split), (split, end));
        let (own, sibling) = if index < split { halves } else { (halves.1, halves.0) };
        range = own;
        Some((own, sibling))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::merkle::path;

    #[test]
    fn paths_made_together_are_those_made_alone() {
        for size in 1..=40_u64 {
            let leaves: Vec<Sha256Digest> = (0..size).map(|number| leaf(&number.to_be_bytes())).collect();
            for step in [1, 2, 3, 7] {
                let indices = || (0..size).step_by(step);
                let mut paths = Paths::of(indices(), size);
                for leaf in &leaves {
                    paths.push(*leaf);
                }
                for index in indices() {
                    let alone = path(&leaves, usize::try_from(index).unwrap());
                    assert_eq!(Some(paths.of_leaf(index)), alone, "{index} of {size}");
                }
            }
        }
    }
}
