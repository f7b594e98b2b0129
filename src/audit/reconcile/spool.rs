//! Spool: anything with an order, sorted outside of memory.
//!
//! What comes is sorted in runs of bounded size in temporary files, which are then merged: memory holds one run, and then one
//! item of each. What is equal in the order comes as it was put in.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, BufWriter, Seek as _, SeekFrom};

/// What can be put aside as a line and read back.
pub(super) trait Spooled: Sized {
    /// Writes it as one line without its newline; no value in it holds a tab or a newline.
    fn write(&self, out: &mut dyn io::Write) -> io::Result<()>;
    /// Reads it back.
    fn read(line: &str) -> Option<Self>;
    /// Tells which comes first.
    fn order(&self, other: &Self) -> Ordering;
}

/// Takes what is to be sorted.
#[derive(Debug)]
pub(super) struct Spool<T> {
    items: Vec<T>,
    runs: Vec<File>,
    at_once: usize,
}

impl<T: Spooled> Spool<T> {
    /// Begins; so many are sorted in memory at once.
    pub(super) const fn of(at_once: usize) -> Self {
        Self { items: Vec::new(), runs: Vec::new(), at_once }
    }

    /// Takes an item.
    ///
    /// # Errors
    /// Retryable: the disk.
    pub(super) fn push(&mut self, item: T) -> io::Result<()> {
        self.items.push(item);
        if self.items.len() >= self.at_once { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.items.sort_by(T::order);
        let mut out = BufWriter::with_capacity(1 << 20, tempfile::tempfile()?);
        for item in self.items.drain(..) {
            item.write(&mut out)?;
            io::Write::write_all(&mut out, b"\n")?;
        }
        let mut file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.seek(SeekFrom::Start(0))?;
        self.runs.push(file);
        Ok(())
    }

    /// Ends the taking; all is now to be had in order.
    ///
    /// # Errors
    /// Retryable: the disk.
    pub(super) fn finish(mut self) -> io::Result<Sorted<T>> {
        self.flush()?;
        let mut sorted = Sorted { runs: Vec::new(), heads: BinaryHeap::new() };
        for (number, file) in self.runs.into_iter().enumerate() {
            sorted.runs.push(BufReader::with_capacity(1 << 17, file));
            sorted.advance(number)?;
        }
        Ok(sorted)
    }
}

/// All that was taken, in order.
#[derive(Debug)]
pub(super) struct Sorted<T> {
    runs: Vec<BufReader<File>>,
    heads: BinaryHeap<Head<T>>,
}

impl<T: Spooled> Sorted<T> {
    /// Returns the next one.
    ///
    /// # Errors
    /// Retryable: the disk.
    pub(super) fn next(&mut self) -> io::Result<Option<T>> {
        let Some(Head { item, run }) = self.heads.pop() else { return Ok(None) };
        self.advance(run)?;
        Ok(Some(item))
    }

    fn advance(&mut self, run: usize) -> io::Result<()> {
        let mut line = String::new();
        if self.runs[run].read_line(&mut line)? > 0 {
            let item = T::read(line.trim_end_matches('\n'))
                .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a temporary file does not read back"))?;
            self.heads.push(Head { item, run });
        }
        Ok(())
    }
}

/// An item at the head of a sorted run.
#[derive(Debug)]
struct Head<T> {
    item: T,
    run: usize,
}

impl<T: Spooled> Ord for Head<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        // A heap gives the greatest first.
        other.item.order(&self.item).then_with(|| other.run.cmp(&self.run))
    }
}

impl<T: Spooled> PartialOrd for Head<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T: Spooled> PartialEq for Head<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<T: Spooled> Eq for Head<T> {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Sorted by the first; the second tells when it came.
    #[derive(Debug, Clone, PartialEq, Eq)]
    struct Numbered(u8, usize);

    impl Spooled for Numbered {
        fn write(&self, out: &mut dyn io::Write) -> io::Result<()> {
            write!(out, "{}\t{}", self.0, self.1)
        }

        fn read(line: &str) -> Option<Self> {
            let (first, second) = line.split_once('\t')?;
            Some(Self(first.parse().ok()?, second.parse().ok()?))
        }

        fn order(&self, other: &Self) -> Ordering {
            self.0.cmp(&other.0)
        }
    }

    proptest! {
        #[test]
        fn all_come_in_order_and_equals_as_they_came(
            numbers in proptest::collection::vec(0_u8..9, 0..60), at_once in 1_usize..20,
        ) {
            let pairs: Vec<Numbered> = numbers.iter().enumerate().map(|(at, number)| Numbered(*number, at)).collect();
            let mut spool = Spool::of(at_once);
            for pair in pairs.clone() {
                spool.push(pair).unwrap();
            }
            let mut sorted = spool.finish().unwrap();
            let found: Vec<Numbered> = std::iter::from_fn(|| sorted.next().unwrap()).collect();
            let mut expected = pairs;
            expected.sort_by(Numbered::order);
            prop_assert_eq!(found, expected);
        }
    }
}
