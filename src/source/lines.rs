//! Lines of any byte stream, of bounded length, hashed as they pass.
//!
//! A line ends with LF or CRLF or the end of the input; a byte order mark before the first is skipped. One that is longer
//! than [`MAX_LINE_BYTES`] is read to its end but not kept.

use std::fmt;
use std::io;

use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};

use crate::model::digest::{Hasher, Sha256Digest};

/// The longest line that is looked at. Records have a handful of short fields; a longer line is not one.
pub(super) const MAX_LINE_BYTES: usize = 1024 * 1024;

/// How much is read at once: large enough that a hop to the thread that reads files costs nothing per line.
const BUFFER_BYTES: usize = 256 * 1024;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Reads lines.
pub(super) struct Lines {
    reader: BufReader<Box<dyn AsyncRead + Send + Unpin>>,
    hasher: Hasher,
    sha256: Option<Sha256Digest>,
    /// The line being read, kept here so that nothing is lost when a caller stops waiting.
    line: Vec<u8>,
    is_begun: bool,
    is_handed_out: bool,
    number: u64,
    /// Lines that were read and put back, each with its LF, from `given_back_at` on; they come before the reader's.
    given_back: Vec<u8>,
    given_back_at: usize,
    /// The last of them represents one that is too long.
    is_last_too_long: bool,
}

/// What a line turned out to be. Its bytes are [`Lines::line`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Line {
    /// A line, without its end.
    Whole,
    /// A line that is too long to be kept.
    TooLong,
}

impl Lines {
    pub(super) fn new(reader: Box<dyn AsyncRead + Send + Unpin>) -> Self {
        Self {
            reader: BufReader::with_capacity(BUFFER_BYTES, reader),
            hasher: Hasher::default(),
            sha256: None,
            line: Vec::new(),
            is_begun: false,
            is_handed_out: false,
            number: 0,
            given_back: Vec::new(),
            given_back_at: 0,
            is_last_too_long: false,
        }
    }

    /// Returns the bytes of the line that was read last.
    pub(super) fn line(&self) -> &[u8] {
        &self.line
    }

    /// Returns the number of the line that was read last, from 1.
    pub(super) const fn number(&self) -> u64 {
        self.number
    }

    /// Returns the digest of everything, once the end was reached.
    pub(super) const fn sha256(&self) -> Option<Sha256Digest> {
        self.sha256
    }

    /// Puts lines back that were read last, each with its LF, to be read again in their order. `is_last_too_long` says
    /// that the last of them was too long, and is an empty one here.
    pub(super) fn give_back(&mut self, lines: &[u8], is_last_too_long: bool) {
        self.number -= lines.split_inclusive(|byte| *byte == b'\n').count() as u64;
        let rest = self.given_back.split_off(self.given_back_at);
        self.is_last_too_long |= is_last_too_long;
        self.given_back = [lines, &rest].concat();
        self.given_back_at = 0;
    }

    /// Reads the next line; `None` at the end. Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> io::Result<Option<Line>> {
        if self.is_handed_out {
            self.line.clear();
            self.is_handed_out = false;
        }
        if let Some(line) = self.take_given_back() {
            return Ok(Some(line));
        }
        loop {
            let buffer = self.reader.fill_buf().await?;
            if buffer.is_empty() {
                self.sha256.get_or_insert_with(|| self.hasher.clone().finish());
                let has_rest = self.is_begun;
                return Ok(has_rest.then(|| self.hand_out()));
            }
            let end = buffer.iter().position(|byte| *byte == b'\n');
            let taken = end.map_or(buffer.len(), |end| end + 1);
            let text = &buffer[..end.unwrap_or(taken)];
            self.hasher.update(&buffer[..taken]);
            // The two bytes are the CR of the end, and one that makes the line too long.
            let room = (MAX_LINE_BYTES + 2).saturating_sub(self.line.len());
            self.line.extend_from_slice(&text[..text.len().min(room)]);
            self.is_begun = true;
            self.reader.consume(taken);
            if end.is_some() {
                return Ok(Some(self.hand_out()));
            }
        }
    }

    fn take_given_back(&mut self) -> Option<Line> {
        let rest = &self.given_back[self.given_back_at..];
        let end = rest.iter().position(|byte| *byte == b'\n')?;
        self.line.extend_from_slice(&rest[..end]);
        self.given_back_at += end + 1;
        let line = self.hand_out();
        if self.given_back_at < self.given_back.len() {
            return Some(line);
        }
        self.given_back = Vec::new();
        self.given_back_at = 0;
        Some(if std::mem::take(&mut self.is_last_too_long) { Line::TooLong } else { line })
    }

    fn hand_out(&mut self) -> Line {
        self.number += 1;
        self.is_begun = false;
        self.is_handed_out = true;
        if self.line.ends_with(b"\r") {
            self.line.pop();
        }
        if self.number == 1 && self.line.starts_with(BYTE_ORDER_MARK) {
            self.line.drain(..BYTE_ORDER_MARK.len());
        }
        if self.line.len() > MAX_LINE_BYTES {
            self.line.clear();
            return Line::TooLong;
        }
        Line::Whole
    }
}

impl fmt::Debug for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lines").field("number", &self.number).finish_non_exhaustive()
    }
}
