//! Lines: what a chunk of a run record holds, one line after another.
//!
//! A chunk is read whole as it is stored, and unpacked a line at a time within bounds, so that no chunk can take more
//! memory than its stored bytes and its longest line.

use std::io::{self, BufRead, BufReader, Read as _, Take};

use flate2::bufread::MultiGzDecoder;

/// The longest line that is read; one of a session with a thousand items has half a megabyte.
const MAX_LINE_BYTES: u64 = 16 * 1024 * 1024;

/// The most that a chunk is unpacked to.
const MAX_CHUNK_BYTES: u64 = 1024 * 1024 * 1024;

/// The lines of a chunk.
#[derive(Debug)]
pub(crate) struct ChunkLines<'a> {
    unpacked: BufReader<Take<MultiGzDecoder<&'a [u8]>>>,
    line: Vec<u8>,
}

impl<'a> ChunkLines<'a> {
    /// Begins to unpack a chunk.
    pub(crate) fn of(chunk: &'a [u8]) -> Self {
        // One byte more than allowed tells a chunk that is too long from one that just fits.
        let unpacked = BufReader::new(MultiGzDecoder::new(chunk).take(MAX_CHUNK_BYTES + 1));
        Self { unpacked, line: Vec::new() }
    }

    /// Returns the next line without its newline, or nothing at the end.
    ///
    /// # Errors
    /// Permanent: the chunk is not what `gzip` makes, or a line or the whole is longer than any that this program writes.
    pub(crate) fn next(&mut self) -> io::Result<Option<&[u8]>> {
        self.line.clear();
        let mut bounded = (&mut self.unpacked).take(MAX_LINE_BYTES + 1);
        if bounded.read_until(b'\n', &mut self.line)? == 0 {
            return Ok(None);
        }
        if self.line.pop_if(|last| *last == b'\n').is_none() && self.line.len() as u64 > MAX_LINE_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a line is too long"));
        }
        if self.unpacked.get_ref().limit() == 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a chunk unpacks to too much"));
        }
        Ok(Some(&self.line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn packed(text: &[u8]) -> Vec<u8> {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        packer.write_all(text).unwrap();
        packer.finish().unwrap()
    }

    #[test]
    fn lines_come_one_by_one_without_their_newlines() {
        let chunk = packed(b"one\n\ntwo\nlast");
        let mut lines = ChunkLines::of(&chunk);
        for line in ["one", "", "two", "last"] {
            assert_eq!(lines.next().unwrap().unwrap(), line.as_bytes());
        }
        assert!(lines.next().unwrap().is_none());
        assert!(ChunkLines::of(b"no gzip").next().is_err());
        let mut torn = ChunkLines::of(&chunk[..chunk.len() - 9]);
        let ended = std::iter::repeat_with(|| torn.next().map(|line| line.is_some()))
            .find(|read| !*read.as_ref().unwrap_or(&false));
        assert!(ended.unwrap().is_err());
    }

    #[test]
    fn a_line_that_unpacks_to_too_much_is_refused() {
        let chunk = packed(&vec![b'a'; usize::try_from(MAX_LINE_BYTES).unwrap() + 1]);
        assert!(chunk.len() < 100_000);
        assert!(ChunkLines::of(&chunk).next().is_err());
    }
}
