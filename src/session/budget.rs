//! Budget: how many bytes of media may be in memory at once.
//!
//! One budget a process. Whoever needs room takes all of it in one step and never asks for more while holding some, so
//! nobody can wait for somebody who waits; requests are served in order, so a large one is not starved by small ones.

use std::sync::Arc;

use bytes::Bytes;
use crossbeam_queue::SegQueue;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::model::digest::{PART_SIZE_BYTES, SINGLE_PUT_MAX_BYTES};

/// A piece of memory has this many bytes.
const PIECE_BYTES: usize = 256 * 1024;

/// Room is counted in units of this many bytes, a piece each. A part is a whole number of them.
const UNIT_BYTES: u64 = PIECE_BYTES as u64;
const _: () = assert!(PART_SIZE_BYTES.is_multiple_of(UNIT_BYTES));

/// What one transfer needs at most: a body that is still a single PUT, or two parts, one coming and one going.
pub const MAX_ROOM_BYTES: u64 =
    if SINGLE_PUT_MAX_BYTES > 2 * PART_SIZE_BYTES { SINGLE_PUT_MAX_BYTES } else { 2 * PART_SIZE_BYTES };

/// The room for bytes in flight.
#[derive(Debug, Clone)]
pub struct Budget {
    units: Arc<Semaphore>,
    total_units: u32,
    pool: Arc<Pool>,
}

/// Room that is taken; released when dropped.
#[derive(Debug)]
pub struct Room {
    _permit: OwnedSemaphorePermit,
    bytes: u64,
    pool: Arc<Pool>,
}

/// Pieces that nobody uses at the moment: memory that was paid for once and is never asked of the system again.
type Pool = SegQueue<Vec<u8>>;

/// Memory for one unit of room; back in the pool once the last who reads it is done.
#[derive(Debug)]
pub struct Piece {
    bytes: Vec<u8>,
    pool: Arc<Pool>,
}

impl Piece {
    /// Takes in what fits, and returns the rest.
    pub fn fill<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let (taken, rest) = bytes.split_at(bytes.len().min(PIECE_BYTES - self.bytes.len()));
        self.bytes.extend_from_slice(taken);
        rest
    }

    /// Returns whether nothing more fits.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.bytes.len() == PIECE_BYTES
    }

    /// Hands on what was taken in, without copying it.
    #[must_use]
    pub fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        self.pool.push(bytes);
    }
}

impl Budget {
    /// Makes a budget out of the memory the process may use. Part of it is left to everything else: connections, lists,
    /// the ledger, the program. At least one transfer always fits.
    #[must_use]
    pub fn of_memory(memory_bytes: u64) -> Self {
        let bytes = (memory_bytes / 8 * 3).max(MAX_ROOM_BYTES);
        let total_units = u32::try_from(bytes / UNIT_BYTES).unwrap_or(u32::MAX).min(1 << 20);
        Self { units: Arc::new(Semaphore::new(total_units as usize)), total_units, pool: Arc::default() }
    }

    /// Waits until there is room for a body of this length; `None` if it is not known. Never more than
    /// [`MAX_ROOM_BYTES`], because longer bodies pass through in parts.
    pub async fn room_for(&self, size_bytes: Option<u64>) -> Room {
        let bytes = Self::needed(size_bytes);
        let units = u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX).clamp(1, self.total_units);
        let permit = Arc::clone(&self.units).acquire_many_owned(units).await;
        let Ok(permit) = permit else { unreachable!("the budget is never closed") };
        Room { _permit: permit, bytes, pool: Arc::clone(&self.pool) }
    }

    /// Returns how much room a body of this length takes.
    #[must_use]
    pub fn needed(size_bytes: Option<u64>) -> u64 {
        size_bytes.unwrap_or(MAX_ROOM_BYTES).min(MAX_ROOM_BYTES)
    }
}

impl Room {
    /// Returns how many bytes may be in it.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes.next_multiple_of(UNIT_BYTES)
    }

    /// Returns memory for one unit of it.
    #[must_use]
    pub fn piece(&self) -> Piece {
        let bytes = self.pool.pop().unwrap_or_else(|| Vec::with_capacity(PIECE_BYTES));
        Piece { bytes, pool: Arc::clone(&self.pool) }
    }

    /// Returns whether a body of this length fits.
    #[must_use]
    pub fn fits(&self, size_bytes: Option<u64>) -> bool {
        Budget::needed(size_bytes) <= self.bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_video_and_many_images_share_the_least_budget_without_deadlock() {
        let budget = Budget::of_memory(0);
        let one = |size: u64| {
            let budget = budget.clone();
            async move {
                let room = budget.room_for(Some(size)).await;
                tokio::task::yield_now().await;
                assert!(room.fits(Some(size)));
            }
        };
        let mut all: Vec<_> = (0..32).map(|_| tokio::spawn(one(3 * 1024 * 1024))).collect();
        all.push(tokio::spawn(one(2 * 1024 * 1024 * 1024)));
        for task in all {
            task.await.unwrap();
        }
    }

    #[tokio::test]
    async fn an_unknown_length_takes_the_most_and_a_small_one_little() {
        let budget = Budget::of_memory(64 * 1024 * 1024);
        assert!(budget.room_for(None).await.fits(Some(u64::MAX)));
        assert!(!budget.room_for(Some(1000)).await.fits(Some(1_000_000)));
    }

    #[tokio::test]
    async fn memory_is_used_again_once_nobody_reads_it() {
        let room = Budget::of_memory(0).room_for(Some(1)).await;
        let mut piece = room.piece();
        let unit = vec![7; PIECE_BYTES];
        assert!(piece.fill(&unit).is_empty() && piece.is_full());
        assert_eq!(piece.fill(b"rest"), b"rest");
        let bytes = piece.freeze();
        let (place, reader) = (bytes.as_ptr(), bytes.clone());
        drop(bytes);
        assert_eq!(reader, unit, "still read");
        drop(reader);
        let mut again = room.piece();
        again.fill(b"new");
        let again = again.freeze();
        assert_eq!((again.as_ref(), again.as_ptr()), (b"new".as_slice(), place));
    }
}
