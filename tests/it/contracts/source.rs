//! What every source must do alike.
//!
//! An implementation is given the bytes of an input and returns a source over them; a queue makes a message of each line.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, ReadBuf};
use veriff_archive::clock::{ManualClock, Timestamp};
use veriff_archive::error::Code;
use veriff_archive::model::digest::Sha256Digest;
use veriff_archive::run::unfinished::UnfinishedSource;
use veriff_archive::source::file::{FileSource, Format};
use veriff_archive::source::{Checks, Delivery, Place, Release, Source, SourceError};

/// What holds for all of them.
pub(super) async fn suite(open: impl AsyncFn(&'static str) -> Box<dyn Source>) {
    everything_given_is_handed_out_once(open("one\nnot an id\nthree\n").await).await;
    the_end_stays_the_end(open("one\n").await).await;
    nothing_given_is_nothing_handed_out(open("").await).await;
    nothing_is_lost_when_a_caller_stops_waiting(open("one\ntwo\nthree").await).await;
}

/// What holds for those that have lines and an order, and no leases.
async fn suite_of_lines(open: impl AsyncFn(&'static str) -> Box<dyn Source>) {
    suite(&open).await;
    every_line_ends_somewhere_in_order(open("one\nnot an id\n\n# two\nthree\n").await).await;
    what_is_done_or_given_back_goes_on(open("one\ntwo\n").await).await;
    the_digest_is_that_of_the_bytes(open("").await, "").await;
    the_digest_is_that_of_the_bytes(open("\u{feff}one\r\n# two\n").await, "\u{feff}one\r\n# two\n").await;
}

fn checks() -> Checks {
    Checks {
        classes: BTreeSet::from(["default".to_owned(), "biometric".to_owned()]),
        integrations: BTreeSet::from(["default".to_owned(), "us".to_owned()]),
        clock: Arc::new(ManualClock::at("2026-11-23T12:00:00Z".parse().unwrap())),
    }
}

fn stream(bytes: impl AsRef<[u8]>, format: Option<Format>) -> FileSource {
    let reader = std::io::Cursor::new(bytes.as_ref().to_vec());
    FileSource::of_reader("stream", Box::new(reader), format, checks())
}

/// Gives one byte at a time, and lets its reader wait before each.
struct Drip {
    bytes: std::vec::IntoIter<u8>,
    is_ready: bool,
}

impl AsyncRead for Drip {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        self.is_ready = !self.is_ready;
        if self.is_ready {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        buffer.put_slice(self.bytes.next().as_slice());
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn a_file_keeps_the_contract_of_a_source() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ids.txt");
    suite_of_lines(async |text: &'static str| {
        std::fs::write(&path, text).unwrap();
        let source = FileSource::open(&path, None, checks()).await.unwrap();
        Box::new(source) as Box<dyn Source>
    })
    .await;
}

#[tokio::test]
async fn a_stream_of_single_bytes_keeps_the_contract_of_a_source() {
    suite_of_lines(async |text: &'static str| {
        let bytes = text.as_bytes().to_vec().into_iter();
        let reader = Drip { bytes, is_ready: false };
        Box::new(FileSource::of_reader("stream", Box::new(reader), None, checks())) as Box<dyn Source>
    })
    .await;
}

#[tokio::test]
async fn the_unfinished_lines_keep_the_contract_of_a_source() {
    suite_of_lines(async |text: &'static str| {
        let all = Box::new(stream(text, None));
        Box::new(UnfinishedSource::collect(all).await.unwrap()) as Box<dyn Source>
    })
    .await;
}

async fn next(source: &mut dyn Source) -> Option<Delivery> {
    source.receive().await.unwrap()
}

/// Reads a source to its end: places, and ids or reasons.
async fn drain(source: &mut dyn Source) -> Vec<(u64, Result<String, String>)> {
    let mut found = Vec::new();
    while let Some(delivery) = next(source).await {
        let Place::Line(number) = delivery.place else { unreachable!("lines have numbers") };
        let read = match delivery.record {
            Ok(record) => Ok(record.session_id.to_string()),
            Err(bad) => Err(bad.reason),
        };
        found.push((number, read));
    }
    found
}

fn ids(found: &[(u64, Result<String, String>)]) -> Vec<(u64, Option<&str>)> {
    found.iter().map(|(line, read)| (*line, read.as_ref().ok().map(String::as_str))).collect()
}

async fn every_line_ends_somewhere_in_order(mut source: Box<dyn Source>) {
    let found = drain(&mut *source).await;
    assert_eq!(ids(&found), [(1, Some("one")), (2, None), (5, Some("three"))]);
    assert!(!format!("{found:?}").contains("not an id"), "{found:?}");
    assert_eq!(source.tally().records, 3);
}

async fn everything_given_is_handed_out_once(mut source: Box<dyn Source>) {
    let mut found = Vec::new();
    while let Some(delivery) = next(&mut *source).await {
        assert!(!format!("{delivery:?}").contains("not an id"), "{delivery:?}");
        found.push(delivery.record.ok().map(|record| record.session_id.to_string()));
    }
    found.sort();
    assert_eq!(found, [None, Some("one".to_owned()), Some("three".to_owned())]);
    assert_eq!(source.tally().records, 3);
}

async fn the_end_stays_the_end(mut source: Box<dyn Source>) {
    assert!(next(&mut *source).await.is_some());
    for _ in 0..3 {
        assert_eq!(next(&mut *source).await, None);
    }
}

async fn nothing_given_is_nothing_handed_out(mut source: Box<dyn Source>) {
    assert_eq!(next(&mut *source).await, None);
    assert_eq!(source.tally().records, 0);
}

async fn nothing_is_lost_when_a_caller_stops_waiting(mut source: Box<dyn Source>) {
    let mut found = Vec::new();
    loop {
        // Polled once and dropped, over and over.
        match futures_util::FutureExt::now_or_never(source.receive()) {
            None => tokio::task::yield_now().await,
            Some(Ok(Some(delivery))) => found.push(delivery.record.unwrap().session_id.to_string()),
            Some(Ok(None)) => break,
            Some(Err(error)) => panic!("{error}"),
        }
    }
    found.sort();
    assert_eq!(found, ["one", "three", "two"]);
}

async fn what_is_done_or_given_back_goes_on(mut source: Box<dyn Source>) {
    let first = next(&mut *source).await.unwrap();
    let second = next(&mut *source).await.unwrap();
    source.acknowledge(&second).await.unwrap();
    source.release(&first, Release::Later).await.unwrap();
    assert_eq!(next(&mut *source).await, None);
}

async fn the_digest_is_that_of_the_bytes(mut source: Box<dyn Source>, text: &str) {
    while next(&mut *source).await.is_some() {}
    assert_eq!(source.tally().sha256, Some(Sha256Digest::of(text.as_bytes())));
}

#[tokio::test]
async fn a_file_that_cannot_be_read_is_named() {
    let folder = tempfile::tempdir().unwrap();
    for path in [folder.path().join("no-such-file"), folder.path().to_owned()] {
        let error = FileSource::open(&path, None, checks()).await.unwrap_err();
        assert!(matches!(error, SourceError::Open { .. }));
        assert_eq!(error.code(), Code::InputUnreadable);
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    }
}

#[tokio::test]
async fn formats_are_recognised_by_the_first_line_that_says_something() {
    for text in [
        "\u{feff}\n# a list\none\ntwo\n",
        "# a list\n\nsession_id\none\ntwo\n",
        "\u{feff}\"session_id\"\r\n\"one\"\r\ntwo\r\n",
        "reference,session_id\n\"a, b\",one\n,two\n",
        "\u{feff}{\"session_id\":\"one\"}\n{\"session_id\":\"two\",\"more\":[1]}\n",
        "  {\"session_id\": \"one\"}  \n\n {\"session_id\": \"two\"}",
    ] {
        let found = drain(&mut stream(text, None)).await;
        let read: Vec<_> = ids(&found).into_iter().map(|(_, id)| id).collect();
        assert_eq!(read, [Some("one"), Some("two")], "{text:?}");
    }
}

#[tokio::test]
async fn a_format_that_is_told_is_not_guessed() {
    let mut source = stream("one,two\n", Some(Format::Plain));
    assert_eq!(ids(&drain(&mut source).await), [(1, None)]);
    let mut source = stream("session_id\n", Some(Format::Plain));
    assert_eq!(ids(&drain(&mut source).await), [(1, Some("session_id"))]);
}

#[tokio::test]
async fn a_header_without_ids_ends_the_run_before_it_begins() {
    for (text, reason) in [
        ("id,decided_at\none,\n", "has no column session_id"),
        ("session_id,a,session_id\n", "names a column twice"),
        ("\"session_id,a\n", "has an unclosed quote"),
    ] {
        let error = stream(text, None).receive().await.unwrap_err();
        assert_eq!(error.code(), Code::InputInvalid);
        assert!(error.to_string().ends_with(&format!("line 1 {reason}")), "{error}");
    }
}

#[tokio::test]
async fn every_field_is_read_and_checked() {
    let given = concat!(
        r#"{"session_id":"s","integration":"us","decided_at":"2026-03-02T11:14:30.5+02:00","#,
        r#""retention_class":"biometric","reference":" order 7 ","outcome":null}"#
    );
    let csv = "reference,retention_class,decided_at,integration,session_id\n order 7 ,biometric,2026-03-02T09:14:30.500Z,us, s \n";
    for text in [given, csv] {
        let record = next(&mut stream(text, None)).await.unwrap().record.unwrap();
        assert_eq!(record.session_id.as_str(), "s");
        assert_eq!(record.integration.as_deref(), Some("us"));
        assert_eq!(record.decided_at, Some("2026-03-02T09:14:30.5Z".parse::<Timestamp>().unwrap()));
        assert_eq!(record.retention_class.as_deref(), Some("biometric"));
        assert_eq!(record.reference.as_deref(), Some(" order 7 "));
    }
    let sparse = "session_id,integration,decided_at,retention_class,reference\ns,,,,\n";
    let record = next(&mut stream(sparse, None)).await.unwrap().record.unwrap();
    assert_eq!((record.integration, record.decided_at), (None, None));
    assert_eq!((record.retention_class, record.reference), (None, None));
}

#[tokio::test]
async fn a_bad_line_is_told_by_number_and_reason_and_never_echoed() {
    let decided = |time: &str| format!(r#"{{"session_id":"s","decided_at":"{time}"}}"#);
    let long = "x".repeat(129);
    for (line, reason) in [
        (r#"{"session_id":"Ada Lovelace"}"#.to_owned(), "the session id has a character outside A-Z a-z 0-9 _ -"),
        (format!(r#"{{"session_id":"{long}"}}"#), "the session id is longer than 128 characters"),
        (r#"{"session_id":""}"#.into(), "there is no session_id"),
        (r#"{"session_id":"a\u0000b"}"#.into(), "the session id has a character outside A-Z a-z 0-9 _ -"),
        (r#"{"reference":"Ada"}"#.into(), "there is no session_id"),
        (r#"{"session_id":7}"#.into(), "session_id is not text"),
        (r#"{"session_id":"s","reference":{"name":"Ada"}}"#.into(), "reference is not text"),
        (r#"{"session_id":"s","session_id":"t"}"#.into(), "a field occurs twice"),
        (r#"{"session_id":"Ada"#.into(), "the line is not valid JSON"),
        (r#"["Ada",null,null,null,null,null]"#.into(), "the line is not a JSON object"),
        ("Ada".into(), "the line is not a JSON object"),
        (decided("2026-11-23T12:01:01Z"), "decided_at is in the future"),
        (decided("2014-12-31T23:59:59Z"), "decided_at is before 2015"),
        (decided("2026-03-02"), "decided_at is not a date and time with an offset (RFC 3339)"),
        (decided("2026-03-02T09:14:30"), "decided_at is not a date and time with an offset (RFC 3339)"),
        (decided("2026-02-30T09:14:30Z"), "decided_at is not a date and time with an offset (RFC 3339)"),
        (decided("2026-03-02 09:14:30Z"), "decided_at is not a date and time with an offset (RFC 3339)"),
        (r#"{"session_id":"s","retention_class":"Ada"}"#.into(), "retention_class is not a configured class"),
        (r#"{"session_id":"s","integration":"Ada"}"#.into(), "integration is not a configured one"),
    ] {
        let mut source = stream(format!("{line}\n{{\"session_id\":\"good\"}}\n"), Some(Format::Ndjson));
        let found = drain(&mut source).await;
        assert_eq!(found, [(1, Err(reason.to_owned())), (2, Ok("good".to_owned()))], "{line}");
    }
}

#[tokio::test]
async fn a_bad_record_names_its_session_where_that_much_is_known() {
    let text = r#"{"session_id":"s","decided_at":"yesterday"}"#;
    let bad = next(&mut stream(text, None)).await.unwrap().record.unwrap_err();
    assert_eq!(bad.session_id.unwrap().as_str(), "s");
}

#[tokio::test]
async fn a_decision_a_moment_ahead_of_our_clock_is_believed() {
    let text = r#"{"session_id":"s","decided_at":"2026-11-23T12:01:00Z"}"#;
    assert!(next(&mut stream(text, None)).await.unwrap().record.is_ok());
}

#[tokio::test]
async fn bytes_that_are_no_text_are_bad_lines() {
    let found = drain(&mut stream(b"one\n\xff\xfe\nt\0wo\nthree\r\n\0\n", None)).await;
    assert_eq!(ids(&found), [(1, Some("one")), (2, None), (3, None), (4, Some("three")), (5, None)]);
}

#[tokio::test]
async fn a_line_too_long_is_one_bad_line() {
    let limit = 1024 * 1024;
    for (length, is_read) in [(limit, true), (limit + 1, false), (3 * limit, false)] {
        let padding = " ".repeat(length - "one".len());
        for end in ["\n", "\r\n"] {
            let found = drain(&mut stream(format!("first\none{padding}{end}two\n"), None)).await;
            let expected = [(1, Some("first")), (2, is_read.then_some("one")), (3, Some("two"))];
            assert_eq!(ids(&found), expected, "{length}");
        }
    }
}

#[tokio::test]
async fn quoted_fields_may_hold_commas_quotes_and_lines() {
    let text =
        "session_id,note,reference\none,\"a, \"\"b\"\"\n# c\n\n\",x\ntwo,5\" nail,\"\"\n\"three\",\"\",\"l1\r\nl2\"\n";
    let mut source = stream(text, None);
    let found = drain(&mut source).await;
    assert_eq!(ids(&found), [(2, Some("one")), (6, Some("two")), (7, Some("three"))]);
}

#[tokio::test]
async fn a_stray_quote_swallows_no_other_session() {
    let many = ["s0", "s1", "s2", "s3", "s4", ""].join(",x\n");
    for stray in ["bad,\"x\n", "bad,\"x\"y\n", "\"bad,x\n"] {
        for rest in [many.clone(), format!("{many}t,\"y\"\n"), format!("{many}t,\"y, z\"\n\n")] {
            let mut source = stream(format!("session_id,note\nzero,x\n{stray}{rest}"), None);
            let found = drain(&mut source).await;
            assert_eq!(found[0], (2, Ok("zero".to_owned())));
            assert!(matches!(&found[1], (3, Err(_))), "{found:?}");
            let good: Vec<_> = ids(&found[2..]);
            let expected = ["s0", "s1", "s2", "s3", "s4", "t"];
            let expected: Vec<_> = (4..).zip(expected.map(Some)).take(good.len()).collect();
            assert_eq!(good, expected, "{stray:?} {rest:?}");
            assert!(good.len() >= 5);
        }
    }
}

#[tokio::test]
async fn a_line_too_long_behind_a_stray_quote_is_told_by_its_own_number() {
    let long = "x".repeat(2 * 1024 * 1024);
    let text = format!("session_id,note\none,\"x\ntwo,y\n{long}\nthree,z\n");
    let found = drain(&mut stream(text, None)).await;
    assert_eq!(ids(&found), [(2, None), (3, Some("two")), (4, None), (5, Some("three"))]);
    assert_eq!(found[2].1, Err("the line is longer than 1 MiB".to_owned()));
}

#[tokio::test]
async fn a_quote_that_stays_open_for_megabytes_is_one_bad_line() {
    let many = "session,x\n".repeat(200_000);
    let mut source = stream(format!("session_id,note\nbad,\"x\n{many}"), None);
    let found = drain(&mut source).await;
    assert_eq!(found.len(), 200_001);
    assert_eq!(found.iter().filter(|(_, read)| read.is_err()).count(), 1);
    assert_eq!(found[200_000], (200_002, Ok("session".to_owned())));
}

#[tokio::test]
async fn a_row_of_another_width_is_bad() {
    let found = drain(&mut stream("note,session_id\na,b,one\ntwo\nc,three\n", None)).await;
    assert_eq!(ids(&found), [(2, None), (3, None), (4, Some("three"))]);
    assert_eq!(found[0].1, Err("the line has 3 fields where the header has 2".to_owned()));
}

#[tokio::test]
async fn a_results_file_is_an_input_and_its_last_lines_tell_what_is_left() {
    let line = |id: &str, outcome: &str| {
        format!(
            "{{\"schema\":\"veriff-archive/result/v1\",\"session_id\":\"{id}\",\"outcome\":{outcome},\"media\":3}}\n"
        )
    };
    let text = [
        line("a", "\"failed\""),
        line("b", "\"archived\""),
        line("c", "\"pending\""),
        line("d", "\"unchanged\""),
        "{\"schema\":\"veriff-arch\n".to_owned(),
        line("e", "\"absent\""),
        line("f", "null"),
        line("g", "\"failed\""),
        line("c", "\"archived\""),
        line("b", "\"failed\""),
        line("h", "\"accepted\""),
        line("i", "\"expired\""),
        line("j", "\"an outcome of a later version\""),
    ]
    .concat();
    assert_eq!(drain(&mut stream(&text, None)).await.len(), 13);
    let mut left = UnfinishedSource::collect(Box::new(stream(&text, None))).await.unwrap();
    assert_eq!(left.tally().kind, "stream");
    let found = drain(&mut left).await;
    assert_eq!(
        ids(&found),
        [(1, Some("a")), (2, Some("b")), (5, None), (6, Some("e")), (7, Some("f")), (8, Some("g")), (13, Some("j"))]
    );
    let csv = "session_id,outcome\na,failed\nb,archived\n";
    let mut left = UnfinishedSource::collect(Box::new(stream(csv, None))).await.unwrap();
    assert_eq!(ids(&drain(&mut left).await), [(2, Some("a"))]);
}

#[tokio::test]
async fn input_that_breaks_off_says_after_which_line() {
    use tokio::io::AsyncReadExt as _;
    let broken = tokio_util::io::StreamReader::new(futures_util::stream::iter([
        Ok(bytes::Bytes::from_static(b"one\ntwo\nthr")),
        Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset)),
    ]));
    let mut source = FileSource::of_reader("object", Box::new(broken.take(u64::MAX)), None, checks());
    assert!(next(&mut source).await.is_some() && next(&mut source).await.is_some());
    let error = source.receive().await.unwrap_err();
    assert!(matches!(error, SourceError::Read { line: 2, .. }), "{error:?}");
    assert_eq!((error.code(), source.tally().sha256), (Code::InputUnreadable, None));
}
