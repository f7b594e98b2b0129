//! One line as a record: plain, CSV or NDJSON; the checks of its fields also serve messages.
//!
//! Pure functions over bytes that may be anything. Reasons name the field and the rule, never the text: a person may
//! have put a name where an id belongs.

use serde::Deserialize;

use super::Checks;
use crate::clock::Timestamp;
use crate::model::SessionId;
use crate::model::request::SessionRequest;

/// Outcomes of a results file that need no more work.
const FINISHED_OUTCOMES: [&str; 4] = ["archived", "unchanged", "accepted", "expired"];

/// A record as a line gives it: text that is not checked yet.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RawRecord {
    pub(super) session_id: Option<String>,
    pub(super) integration: Option<String>,
    pub(super) decided_at: Option<String>,
    pub(super) retention_class: Option<String>,
    pub(super) reference: Option<String>,
    pub(super) outcome: Option<String>,
}

/// The names of the fields, as headers and JSON objects carry them.
const FIELDS: [&str; 6] = ["session_id", "integration", "decided_at", "retention_class", "reference", "outcome"];

/// What a line says.
pub(super) type Parsed = Result<(SessionRequest, bool), (Option<SessionId>, String)>;

impl RawRecord {
    /// Checks all fields; with the record comes whether its outcome needs no more work.
    pub(super) fn check(self, checks: &Checks) -> Parsed {
        let id = present(self.session_id).ok_or((None, "there is no session_id".to_owned()))?;
        let session_id = SessionId::parse(&id).map_err(|error| (None, error.to_string()))?;
        let refuse = |reason: &str| Err((Some(session_id.clone()), reason.to_owned()));
        let decided_at = match present(self.decided_at) {
            None => None,
            Some(text) => match parse_time(&text) {
                Some(time) => Some(time),
                None => return refuse("decided_at is not a date and time with an offset (RFC 3339)"),
            },
        };
        let record = SessionRequest {
            session_id: session_id.clone(),
            integration: present(self.integration),
            decided_at,
            retention_class: present(self.retention_class),
            reference: self.reference.filter(|text| !text.is_empty()),
        };
        if let Some(reason) = checks.refuse(&record) {
            return refuse(reason);
        }
        let is_finished = self.outcome.is_some_and(|outcome| FINISHED_OUTCOMES.contains(&outcome.trim()));
        Ok((record, is_finished))
    }
}

/// Cuts white space around a value; nothing is left of an empty one.
fn present(text: Option<String>) -> Option<String> {
    let text = text?;
    match text.trim() {
        "" => None,
        trimmed if trimmed.len() == text.len() => Some(text),
        trimmed => Some(trimmed.to_owned()),
    }
}

/// Reads RFC 3339 and nothing else: the library behind it would also take a space, a week date or a zone name.
pub(super) fn parse_time(text: &str) -> Option<Timestamp> {
    let (date_time, rest) = text.as_bytes().split_at_checked(19)?;
    let is_date_time = date_time.iter().enumerate().all(|(at, byte)| match at {
        4 | 7 => *byte == b'-',
        10 => matches!(byte, b'T' | b't'),
        13 | 16 => *byte == b':',
        _ => byte.is_ascii_digit(),
    });
    let offset = match rest.strip_prefix(b".") {
        Some(rest) => {
            let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
            if digits == 0 {
                return None;
            }
            &rest[digits..]
        }
        None => rest,
    };
    let is_offset = match offset {
        [b'Z' | b'z'] => true,
        [b'+' | b'-', h1, h2, b':', m1, m2] => [h1, h2, m1, m2].iter().all(|byte| byte.is_ascii_digit()),
        _ => false,
    };
    (is_date_time && is_offset).then(|| text.parse().ok()).flatten()
}

/// Reads a line that is an id and nothing else.
pub(super) fn parse_plain(line: &[u8], checks: &Checks) -> Parsed {
    let text = utf8(line)?;
    RawRecord { session_id: Some(text.to_owned()), ..RawRecord::default() }.check(checks)
}

/// Reads a line that is a JSON object.
pub(super) fn parse_ndjson(line: &[u8], checks: &Checks) -> Parsed {
    let text = utf8(line)?;
    // An array of the right length would pass for an object, too.
    if !text.trim_start().starts_with('{') {
        return Err((None, "the line is not a JSON object".to_owned()));
    }
    match serde_json::from_str::<RawRecord>(text) {
        Ok(raw) => raw.check(checks),
        Err(_) => Err((None, why_not_ndjson(text))),
    }
}

/// Says what is wrong with a JSON line without the parser's own words, which repeat values.
fn why_not_ndjson(text: &str) -> String {
    let Ok(object) = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(text) else {
        return "the line is not valid JSON".to_owned();
    };
    not_text(&object)
}

/// Says why a JSON object is no record although it is one.
pub(super) fn not_text(object: &serde_json::Map<String, serde_json::Value>) -> String {
    FIELDS
        .iter()
        .find(|field| object.get(**field).is_some_and(|value| !value.is_string() && !value.is_null()))
        .map_or("a field occurs twice".to_owned(), |field| format!("{field} is not text"))
}

fn utf8(line: &[u8]) -> Result<&str, (Option<SessionId>, String)> {
    std::str::from_utf8(line).map_err(|_| (None, "the line is not UTF-8".to_owned()))
}

/// The fields of a CSV record, one buffer for all records.
#[derive(Debug, Default)]
pub(super) struct CsvFields {
    text: Vec<u8>,
    ends: Vec<usize>,
}

/// Why bytes are not a CSV record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CsvFault {
    /// A quoted field goes on in the next line.
    Open,
    /// Something else than a comma follows a closing quote.
    Garbled,
}

impl CsvFields {
    /// Splits a record by RFC 4180. A quote inside a field that does not begin with one is taken as it is.
    pub(super) fn split(&mut self, record: &[u8]) -> Result<(), CsvFault> {
        self.text.clear();
        self.ends.clear();
        let mut rest = record;
        loop {
            rest = if let Some(quoted) = rest.strip_prefix(b"\"") {
                self.take_quoted(quoted)?
            } else {
                let end = rest.iter().position(|byte| *byte == b',').unwrap_or(rest.len());
                self.text.extend_from_slice(&rest[..end]);
                &rest[end..]
            };
            self.ends.push(self.text.len());
            match rest.split_first() {
                None => return Ok(()),
                Some((b',', next)) => rest = next,
                Some(_) => return Err(CsvFault::Garbled),
            }
        }
    }

    /// Takes a field up to its closing quote and returns what follows.
    fn take_quoted<'a>(&mut self, mut rest: &'a [u8]) -> Result<&'a [u8], CsvFault> {
        loop {
            let end = rest.iter().position(|byte| *byte == b'"').ok_or(CsvFault::Open)?;
            self.text.extend_from_slice(&rest[..end]);
            rest = &rest[end + 1..];
            match rest.strip_prefix(b"\"") {
                Some(next) => {
                    self.text.push(b'"');
                    rest = next;
                }
                None => return Ok(rest),
            }
        }
    }

    fn get(&self, index: usize) -> Option<&[u8]> {
        let end = *self.ends.get(index)?;
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        self.text.get(start..end)
    }

    fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.ends.len()).filter_map(|index| self.get(index))
    }
}

/// Which column is which.
#[derive(Debug)]
pub(super) struct CsvHeader {
    columns: usize,
    /// In the order of [`FIELDS`].
    fields: [Option<usize>; 6],
}

impl CsvHeader {
    /// Reads the header; the reason completes "the CSV header in line 1 …".
    pub(super) fn of(header: &CsvFields) -> Result<Self, &'static str> {
        let names: Vec<&[u8]> = header.iter().map(<[u8]>::trim_ascii).collect();
        let mut fields = [None; 6];
        for (field, name) in fields.iter_mut().zip(FIELDS) {
            let mut found = (0..names.len()).filter(|column| names[*column] == name.as_bytes());
            *field = found.next();
            if found.next().is_some() {
                return Err("names a column twice");
            }
        }
        if fields[0].is_none() {
            return Err("has no column session_id");
        }
        Ok(Self { columns: names.len(), fields })
    }

    /// Reads a record under this header.
    pub(super) fn parse(&self, fields: &CsvFields, checks: &Checks) -> Parsed {
        if fields.ends.len() != self.columns {
            return Err((
                None,
                format!("the line has {} fields where the header has {}", fields.ends.len(), self.columns),
            ));
        }
        let mut values = [const { None }; 6];
        for (value, column) in values.iter_mut().zip(self.fields) {
            if let Some(bytes) = column.and_then(|column| fields.get(column)) {
                *value = Some(utf8(bytes)?.to_owned());
            }
        }
        let [session_id, integration, decided_at, retention_class, reference, outcome] = values;
        RawRecord { session_id, integration, decided_at, retention_class, reference, outcome }.check(checks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Writes a field as RFC 4180 has it.
    fn quoted(field: &str) -> String {
        format!("\"{}\"", field.replace('"', "\"\""))
    }

    proptest! {
        #[test]
        fn quoted_fields_split_into_what_they_were(fields in proptest::collection::vec("[a,\"\r\n é]{0,6}", 1..6)) {
            let record = fields.iter().map(|field| quoted(field)).collect::<Vec<_>>().join(",");
            let mut split = CsvFields::default();
            split.split(record.as_bytes()).unwrap();
            let found: Vec<_> = split.iter().map(|field| String::from_utf8(field.to_vec()).unwrap()).collect();
            prop_assert_eq!(found, fields);
        }

        #[test]
        fn a_time_that_we_print_is_read_back(millis in 1_420_070_400_000i64..4_000_000_000_000) {
            let time = Timestamp::from_unix_millis(millis);
            prop_assert_eq!(parse_time(&time.to_string()), Some(time));
        }

        #[test]
        fn no_text_is_a_panic(text in "[0-9TZ:.+é-]{0,30}") {
            parse_time(&text);
        }
    }

    #[test]
    fn only_rfc_3339_is_a_time() {
        for good in [
            "2026-03-02T09:14:30Z",
            "2026-03-02t09:14:30z",
            "2026-03-02T09:14:30.123456789+14:00",
            "2026-03-02T09:14:30-00:00",
        ] {
            assert!(parse_time(good).is_some(), "{good}");
        }
        for bad in [
            "2026-03-02",
            "2026-03-02T09:14Z",
            "2026-03-02T09:14:30",
            "2026-03-02T09:14:30.Z",
            "2026-03-02T09:14:30+0200",
            "2026-03-02T09:14:30+02:00[Europe/Tallinn]",
            "2026-03-02 09:14:30Z",
            "2026-13-02T09:14:30Z",
            "2026-W10-1T09:14:30Z",
            "1772442870",
            "",
        ] {
            assert!(parse_time(bad).is_none(), "{bad}");
        }
    }
}
