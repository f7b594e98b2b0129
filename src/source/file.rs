//! Session records from a file, standard input or any other stream of bytes.
//!
//! Plain ids, CSV or NDJSON, streamed in constant memory however long the input. A file has no lease and nothing to
//! acknowledge: write-once keys make it safe to hand the same line to two workers.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use async_trait::async_trait;
use tokio::io::AsyncRead;

use super::lines::{Line, Lines, MAX_LINE_BYTES};
use super::parse::{CsvFault, CsvFields, CsvHeader, Parsed, parse_ndjson, parse_plain};
use super::{BadRecord, Checks, Delivery, Place, Release, Source, SourceError, Tally};
use crate::model::SessionId;

/// How records are written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One id a line; blank lines and `#` comments are skipped.
    Plain,
    /// Comma-separated, with a header that names `session_id`.
    Csv,
    /// One JSON object a line.
    Ndjson,
}

impl Format {
    /// Every format there is.
    pub const ALL: [Self; 3] = [Self::Plain, Self::Csv, Self::Ndjson];

    /// Returns the name that `--format` takes.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Csv => "csv",
            Self::Ndjson => "ndjson",
        }
    }

    /// Guesses from the first line that is neither blank nor a comment.
    fn detect(line: &[u8]) -> Self {
        let line = line.trim_ascii();
        if line.starts_with(b"{") {
            Self::Ndjson
        } else if line.contains(&b',') || line == b"session_id" || line == b"\"session_id\"" {
            Self::Csv
        } else {
            Self::Plain
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|format| format.as_str() == text)
            .ok_or_else(|| "not one of plain, csv, ndjson".to_owned())
    }
}

/// Records from a stream of bytes.
#[derive(Debug)]
pub struct FileSource {
    kind: &'static str,
    format: Option<Format>,
    checks: Checks,
    lines: Lines,
    records: u64,
    header: Option<CsvHeader>,
    fields: CsvFields,
    open: OpenRecord,
}

/// A CSV record with a quoted field that goes on in the next line.
#[derive(Default)]
struct OpenRecord {
    /// Its lines so far, each with its LF.
    lines: Vec<u8>,
    /// The number of the first.
    first: u64,
}

impl FileSource {
    /// Opens a file, or standard input if the path is `-`.
    ///
    /// # Errors
    /// Retryable: the file cannot be opened.
    pub async fn open(path: &Path, format: Option<Format>, checks: Checks) -> Result<Self, SourceError> {
        if path == Path::new("-") {
            return Ok(Self::of_reader("stdin", Box::new(tokio::io::stdin()), format, checks));
        }
        let failed = |source| SourceError::Open { path: path.to_owned(), source };
        let file = tokio::fs::File::open(path).await.map_err(failed)?;
        if file.metadata().await.map_err(failed)?.is_dir() {
            return Err(failed(std::io::ErrorKind::IsADirectory.into()));
        }
        Ok(Self::of_reader("file", Box::new(file), format, checks))
    }

    /// Takes any stream of bytes, such as a stored object; `kind` is what the run record calls it.
    #[must_use]
    pub fn of_reader(
        kind: &'static str,
        reader: Box<dyn AsyncRead + Send + Unpin>,
        format: Option<Format>,
        checks: Checks,
    ) -> Self {
        Self {
            kind,
            format,
            checks,
            lines: Lines::new(reader),
            records: 0,
            header: None,
            fields: CsvFields::default(),
            open: OpenRecord::default(),
        }
    }

    /// Takes the line just read; nothing comes of a blank one, a comment, a header, or part of a record.
    fn take(&mut self, line: Line) -> Result<Option<Delivery>, SourceError> {
        if line == Line::TooLong {
            if !self.open.is_empty() {
                return Ok(Some(self.break_open(true)));
            }
            return Ok(Some(bad(self.lines.number(), None, "the line is longer than 1 MiB")));
        }
        let text = self.lines.line();
        let is_blank = text.trim_ascii().is_empty();
        let is_comment = text.trim_ascii_start().starts_with(b"#");
        let format = match self.format {
            Some(format) => format,
            None if is_blank || is_comment => return Ok(None),
            None => *self.format.insert(Format::detect(text)),
        };
        let number = self.lines.number();
        match format {
            Format::Plain if is_blank || is_comment => Ok(None),
            Format::Plain => Ok(Some(delivery(number, parse_plain(text, &self.checks)))),
            Format::Ndjson if is_blank => Ok(None),
            Format::Ndjson => Ok(Some(delivery(number, parse_ndjson(text, &self.checks)))),
            Format::Csv if is_blank && self.open.is_empty() => Ok(None),
            Format::Csv if is_comment && self.header.is_none() => Ok(None),
            Format::Csv => self.take_csv(),
        }
    }

    fn take_csv(&mut self) -> Result<Option<Delivery>, SourceError> {
        let number = self.lines.number();
        let text = self.lines.line();
        let Some(header) = &self.header else {
            let failed = |reason| SourceError::Header { line: number, reason };
            self.fields.split(text).map_err(|_| failed("has an unclosed quote"))?;
            self.header = Some(CsvHeader::of(&self.fields).map_err(failed)?);
            return Ok(None);
        };
        if self.open.is_empty() {
            return Ok(match self.fields.split(text) {
                Ok(()) => Some(delivery(number, header.parse(&self.fields, &self.checks))),
                Err(CsvFault::Open) => {
                    self.open.first = number;
                    self.open.push(text);
                    None
                }
                Err(CsvFault::Garbled) => Some(bad(number, None, "the line has text after a closing quote")),
            });
        }
        let may_close = text.contains(&b'"');
        self.open.push(text);
        if self.open.lines.len() > MAX_LINE_BYTES {
            return Ok(Some(self.break_open(false)));
        }
        if !may_close {
            return Ok(None);
        }
        Ok(match self.fields.split(self.open.record()) {
            Ok(()) => {
                let delivery = delivery(self.open.first, header.parse(&self.fields, &self.checks));
                self.open.lines.clear();
                Some(delivery)
            }
            Err(CsvFault::Open) => None,
            Err(CsvFault::Garbled) => Some(self.break_open(false)),
        })
    }

    /// Gives up on an open record: only its first line is bad, the others are read again, so that one stray quote does
    /// not swallow the sessions behind it.
    fn break_open(&mut self, is_last_too_long: bool) -> Delivery {
        if is_last_too_long {
            self.open.lines.push(b'\n');
        }
        let lines = std::mem::take(&mut self.open.lines);
        let first_end = lines.iter().position(|byte| *byte == b'\n').map_or(lines.len(), |end| end + 1);
        self.lines.give_back(&lines[first_end..], is_last_too_long);
        bad(self.open.first, None, "the line has an unclosed quote")
    }
}

impl OpenRecord {
    const fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    fn push(&mut self, line: &[u8]) {
        self.lines.extend_from_slice(line);
        self.lines.push(b'\n');
    }

    /// Returns the record without the last LF.
    fn record(&self) -> &[u8] {
        self.lines.strip_suffix(b"\n").unwrap_or(&self.lines)
    }
}

impl fmt::Debug for OpenRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenRecord").field("first", &self.first).finish_non_exhaustive()
    }
}

fn delivery(number: u64, parsed: Parsed) -> Delivery {
    match parsed {
        Ok((record, is_finished)) => Delivery { is_finished, ..Delivery::of(Place::Line(number), Ok(record)) },
        Err((session_id, reason)) => bad(number, session_id, reason),
    }
}

fn bad(number: u64, session_id: Option<SessionId>, reason: impl Into<String>) -> Delivery {
    Delivery::of(Place::Line(number), Err(BadRecord { session_id, reason: reason.into() }))
}

#[async_trait]
impl Source for FileSource {
    async fn receive(&mut self) -> Result<Option<Delivery>, SourceError> {
        loop {
            let read =
                self.lines.next().await.map_err(|source| SourceError::Read { line: self.lines.number(), source })?;
            let taken = match read {
                Some(line) => self.take(line)?,
                None if self.open.is_empty() => return Ok(None),
                None => Some(self.break_open(false)),
            };
            if let Some(delivery) = taken {
                self.records += 1;
                return Ok(Some(delivery));
            }
        }
    }

    async fn acknowledge(&mut self, _: &Delivery) -> Result<(), SourceError> {
        Ok(())
    }

    async fn release(&mut self, _: &Delivery, _: Release) -> Result<(), SourceError> {
        Ok(())
    }

    fn tally(&self) -> Tally {
        Tally { kind: self.kind, records: self.records, sha256: self.lines.sha256() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{ManualClock, Timestamp};
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use std::sync::Arc;

    /// Reads all of an input and returns the numbers of the lines that were delivered.
    fn places(bytes: &[u8], format: Option<Format>) -> Result<Vec<u64>, SourceError> {
        let checks = Checks {
            classes: BTreeSet::new(),
            integrations: BTreeSet::new(),
            clock: Arc::new(ManualClock::at(Timestamp::from_unix_seconds(1_700_000_000))),
        };
        let reader = Box::new(std::io::Cursor::new(bytes.to_vec()));
        let mut source = FileSource::of_reader("stream", reader, format, checks);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut places = Vec::new();
            while let Some(delivery) = source.receive().await? {
                let Place::Line(number) = delivery.place else { unreachable!("a file has lines") };
                places.push(number);
            }
            assert_eq!(source.tally().records, places.len() as u64);
            Ok(places)
        })
    }

    /// Returns the numbers of the lines for which `counts` holds.
    fn lines_where(bytes: &[u8], counts: impl Fn(&[u8]) -> bool) -> Vec<u64> {
        let text = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        if bytes.is_empty() {
            return Vec::new();
        }
        (1..)
            .zip(text.split(|byte| *byte == b'\n'))
            .filter(|(_, line)| counts(line))
            .map(|(number, _)| number)
            .collect()
    }

    fn is_blank(line: &[u8]) -> bool {
        line.trim_ascii().is_empty()
    }

    /// Bytes that are mostly what decides something.
    fn inputs() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            8 => proptest::sample::select(b"a,\"#\n\r {}:\\\0\xff".to_vec()).prop_map(|byte| vec![byte]),
            2 => proptest::sample::select(vec!["session_id", "{\"session_id\":\"s\"}\n", "\"s\"\n", "\n\n", "s,t\n"])
                .prop_map(|text| text.as_bytes().to_vec()),
            1 => proptest::collection::vec(any::<u8>(), 0..8),
        ];
        proptest::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn every_plain_line_is_delivered_or_blank_or_a_comment(bytes in inputs()) {
            let expected = lines_where(&bytes, |line| !is_blank(line) && !line.trim_ascii_start().starts_with(b"#"));
            prop_assert_eq!(places(&bytes, Some(Format::Plain)).unwrap(), expected);
        }

        #[test]
        fn every_ndjson_line_is_delivered_or_blank(bytes in inputs()) {
            let expected = lines_where(&bytes, |line| !is_blank(line));
            prop_assert_eq!(places(&bytes, Some(Format::Ndjson)).unwrap(), expected);
        }

        #[test]
        fn every_csv_line_without_quotes_is_delivered_or_blank(bytes in inputs()) {
            let mut bytes: Vec<u8> = bytes.into_iter().filter(|byte| *byte != b'"').collect();
            bytes.splice(0..0, *b"session_id,note\n");
            let expected = lines_where(&bytes, |line| !is_blank(line));
            prop_assert_eq!(places(&bytes, Some(Format::Csv)).unwrap(), expected[1..].to_vec());
        }

        #[test]
        fn csv_lines_are_delivered_in_order_and_at_most_once(bytes in inputs()) {
            let bytes = [b"session_id,note\n".to_vec(), bytes].concat();
            let found = places(&bytes, Some(Format::Csv)).unwrap();
            prop_assert!(found.is_sorted_by(|a, b| a < b), "{found:?}");
            let lines = lines_where(&bytes, |line| !is_blank(line));
            prop_assert!(found.iter().all(|number| lines.contains(number)), "{found:?}");
        }

        #[test]
        fn no_input_of_any_format_is_a_panic(bytes in inputs()) {
            if let Err(error) = places(&bytes, None) {
                prop_assert!(matches!(error, SourceError::Header { .. }), "{error:?}");
            }
        }
    }
}
