//! Chunk: lines that wait in the ledger, moved into the store.
//!
//! A chunk is stored first and noted then, with the lines it holds dropped in the same transaction. A crash in between
//! leaves a chunk that nobody noted: it is read back, and what it holds counts, if these are the lines that wait.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};

use flate2::bufread::MultiGzDecoder;
use flate2::write::GzEncoder;
use flate2::{Compression, GzBuilder};

use super::{Put, RecordError, Recorder, Sums, json};
use crate::ledger::{ChunkEntry, RecordRow, WaitingLine};
use crate::model::RunId;
use crate::model::digest::{Payload, SINGLE_PUT_MAX_BYTES, Sha256Digest};
use crate::model::key::ObjectKey;
use crate::model::merkle;
use crate::model::run::{ChunkRef, RunLine};

/// A chunk is stored when so many lines wait: half an hour's work, and a download of seconds for whoever proves one of them.
pub const CHUNK_LINES: u64 = 10_000;

/// Or when they have so many bytes: they are in memory, compressed, until the store has taken them.
pub const CHUNK_BYTES: u64 = 8 * 1024 * 1024;

/// How many lines are read at once.
const PAGE: u32 = 256;

/// The most that a chunk found in the store is unpacked to: what a chunk holds, and one line more, of any length.
const MAX_UNPACKED_BYTES: u64 = CHUNK_BYTES + SINGLE_PUT_MAX_BYTES;

/// Lines that went into a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StoredLines {
    /// How many.
    pub lines: u64,
    /// How many bytes of text these are.
    pub bytes: u64,
}

/// Lines on their way into a chunk.
struct Bundle {
    sums: Sums,
    items_before: u64,
    stored: StoredLines,
}

impl Bundle {
    fn after(sums: Sums) -> Self {
        Self { items_before: sums.items, sums, stored: StoredLines::default() }
    }

    fn is_full(&self) -> bool {
        self.stored.lines >= CHUNK_LINES || self.stored.bytes >= CHUNK_BYTES
    }

    /// Takes a line into the sums; nothing if it is none.
    fn add(&mut self, line: &WaitingLine) -> Option<()> {
        let read = RunLine::parse(line.text.as_bytes())?;
        self.sums.tree.push(merkle::leaf(line.text.as_bytes()));
        self.sums.items += read.items.len() as u64;
        let counts = &mut self.sums.counts;
        match read.outcome.as_str() {
            "archived" => counts.archived += 1,
            "unchanged" => counts.unchanged += 1,
            "absent" => counts.absent += 1,
            "failed" => counts.failed += 1,
            _ => counts.pending += 1,
        }
        counts.media += line.media;
        counts.bytes += line.bytes;
        self.stored.lines += 1;
        self.stored.bytes += line.text.len() as u64;
        Some(())
    }
}

impl Recorder {
    /// Stores the next chunk of a run whose record `by` may write, and returns what went into it; nothing if no line waits.
    ///
    /// # Errors
    /// As the store's and the ledger's. Permanent: other bytes are stored under the chunk's key.
    pub async fn store_chunk(&self, run_id: &RunId, by: &RunId) -> Result<Option<StoredLines>, RecordError> {
        let lost = || RecordError::Lost(run_id.clone());
        let row = self.ledger.record(run_id).await?.ok_or_else(lost)?;
        let Some((bundle, bytes)) = self.pack(&row).await? else { return Ok(None) };
        let number = row.chunks + 1;
        let key = ObjectKey::run_chunk(run_id, row.started_at, number);
        let payload = Payload::of(bytes);
        let (bundle, sha256) = match self.put(&key, &payload, "application/gzip").await? {
            Put::Ours => (bundle, payload.sha256()),
            Put::Other(stands) => (self.recognise(&row, &key, &stands).await?, Sha256Digest::of(&stands)),
        };
        let chunk =
            ChunkRef { key, sha256, sessions: bundle.stored.lines, items: bundle.sums.items - bundle.items_before };
        tracing::debug!(run.id = %run_id, object.key = %chunk.key, lines = chunk.sessions, "stored a chunk of the run record");
        let entry = ChunkEntry {
            run_id: run_id.clone(),
            by: by.clone(),
            number,
            chunk,
            sums: json(&bundle.sums),
            lines_before: row.lines,
        };
        if self.ledger.note_chunk(&entry).await? { Ok(Some(bundle.stored)) } else { Err(lost()) }
    }

    /// Packs what waits, at most one chunk of it.
    async fn pack(&self, row: &RecordRow) -> Result<Option<(Bundle, Vec<u8>)>, RecordError> {
        let mut bundle = Bundle::after(sums_of(row)?);
        // Without a time, so that the same lines give the same bytes. Lines are mostly digests, which no effort makes smaller.
        let mut packer: GzEncoder<Vec<u8>> = GzBuilder::new().mtime(0).write(Vec::new(), Compression::fast());
        loop {
            let after = row.lines + bundle.stored.lines;
            let page = self.ledger.waiting_lines(&row.run_id, after, PAGE).await?;
            let is_last = page.len() < PAGE as usize;
            for line in page {
                bundle.add(&line).ok_or_else(|| unreadable(row))?;
                packer
                    .write_all(line.text.as_bytes())
                    .and_then(|()| packer.write_all(b"\n"))
                    .map_err(|error| in_memory(&error))?;
                if bundle.is_full() {
                    break;
                }
            }
            if is_last || bundle.is_full() {
                break;
            }
        }
        if bundle.stored.lines == 0 {
            return Ok(None);
        }
        Ok(Some((bundle, packer.finish().map_err(|error| in_memory(&error))?)))
    }

    /// Takes a chunk that somebody stored and did not note: its lines must be those that wait, from the first on.
    async fn recognise(&self, row: &RecordRow, key: &ObjectKey, stands: &[u8]) -> Result<Bundle, RecordError> {
        let conflict = || RecordError::Conflict(key.clone());
        let mut bundle = Bundle::after(sums_of(row)?);
        let unpacked = BufReader::new(MultiGzDecoder::new(stands).take(MAX_UNPACKED_BYTES));
        let mut page = Vec::new().into_iter();
        for stood in unpacked.split(b'\n') {
            let stood = stood.map_err(|_| conflict())?;
            if page.as_slice().is_empty() {
                let after = row.lines + bundle.stored.lines;
                page = self.ledger.waiting_lines(&row.run_id, after, PAGE).await?.into_iter();
            }
            let line = page.next().filter(|line: &WaitingLine| line.text.as_bytes() == stood);
            bundle.add(&line.ok_or_else(conflict)?).ok_or_else(|| unreadable(row))?;
        }
        if bundle.stored.lines == 0 { Err(conflict()) } else { Ok(bundle) }
    }
}

pub(super) fn sums_of(row: &RecordRow) -> Result<Sums, RecordError> {
    Sums::parse(row.sums.as_deref())
        .filter(|sums| sums.tree.leaves() == row.lines)
        .ok_or_else(|| RecordError::Unreadable { run: row.run_id.clone(), what: "its sums" })
}

fn unreadable(row: &RecordRow) -> RecordError {
    RecordError::Unreadable { run: row.run_id.clone(), what: "a line" }
}

/// Writing into memory does not fail.
fn in_memory(error: &io::Error) -> RecordError {
    unreachable!("memory takes what is written into it: {error}")
}
