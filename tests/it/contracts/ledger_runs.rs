//! What the ledger keeps of run records: the same behaviour from every engine.

use veriff_archive::error::Code;
use veriff_archive::ledger::{
    self, ChainHead, ChunkEntry, Ledger, LedgerError, LineEntry, RecordState, SessionEntry, SignedText,
};
use veriff_archive::model::digest::Sha256Digest;
use veriff_archive::model::key::ObjectKey;
use veriff_archive::model::run::ChunkRef;

use super::ledger_samples::{archived, at, begin, closed_record, id, run};

pub(super) async fn suite(fresh: &impl AsyncFn() -> String) {
    let open = async || ledger::open(&fresh().await).await.unwrap();
    a_line_is_taken_with_its_session_and_once(&*open().await).await;
    a_closed_run_takes_nothing(&*open().await).await;
    a_run_without_a_record_takes_no_line(&*open().await).await;
    a_chunk_takes_its_lines_out_of_the_wait(&*open().await).await;
    only_a_run_without_a_sign_of_life_is_closed_by_another(&*open().await).await;
    a_claim_lapses_like_a_run(&*open().await).await;
    what_was_written_down_first_counts(&*open().await).await;
    a_closed_record_is_the_head_of_its_chain(&*open().await).await;
    a_record_that_is_given_up_leaves_nothing(&*open().await).await;
    commits_and_a_closing_at_once_lose_no_line(&fresh().await).await;
}

fn recorded(name: &str, session: &str, number: u64) -> SessionEntry {
    SessionEntry {
        run_id: run(name),
        line: Some(LineEntry { number, text: format!("line {number} of {session}"), media: 2, bytes: 3 << 40 }),
        ..archived(session, 1, 1)
    }
}

async fn texts(ledger: &dyn Ledger, name: &str) -> Vec<String> {
    let lines = ledger.waiting_lines(&run(name), 0, 100).await.unwrap();
    lines.into_iter().map(|line| line.text).collect()
}

fn chunk(name: &str, by: &str, number: u32, lines_before: u64, sessions: u64) -> ChunkEntry {
    ChunkEntry {
        run_id: run(name),
        by: run(by),
        number,
        chunk: ChunkRef {
            key: ObjectKey::run_chunk(&run(name), at(0), number),
            sha256: Sha256Digest::of(&number.to_be_bytes()),
            sessions,
            items: sessions,
        },
        sums: format!("sums {number}"),
        lines_before,
    }
}

async fn a_line_is_taken_with_its_session_and_once(ledger: &dyn Ledger) {
    begin(ledger, "r", Some("draft")).await;
    for _ in 0..2 {
        ledger.commit(&recorded("r", "a", 1)).await.unwrap();
    }
    ledger.commit(&recorded("r", "b", 2)).await.unwrap();
    ledger.commit(&SessionEntry { line: None, ..recorded("r", "c", 3) }).await.unwrap();
    let lines = ledger.waiting_lines(&run("r"), 0, 100).await.unwrap();
    assert_eq!(texts(ledger, "r").await, ["line 1 of a", "line 2 of b"]);
    assert_eq!((lines[0].media, lines[0].bytes), (2, 3 << 40));
    let second = ledger.waiting_lines(&run("r"), 1, 1).await.unwrap();
    assert_eq!(second[0].text, "line 2 of b");
    assert_eq!(ledger.waiting_lines(&run("r"), 0, 1).await.unwrap().len(), 1);
    assert_eq!(ledger.session(&id("a")).await.unwrap().unwrap().visits, 2);
    let row = ledger.record(&run("r")).await.unwrap().unwrap();
    assert_eq!((row.state, row.draft.as_deref(), row.lines), (RecordState::Open, Some("draft"), 0));
    assert_eq!((row.started_at, row.version.as_str(), row.source_kind.as_str()), (at(0), "0.1.0", "file"));
    assert_eq!(ledger.record(&run("unknown")).await.unwrap(), None);
    // Two lines under one number: the second would be lost in silence, so nothing of its session is taken.
    let refused = ledger.commit(&recorded("r", "d", 2)).await.unwrap_err();
    assert!(matches!(refused, LedgerError::Damaged(_)), "{refused:?}");
    assert_eq!(ledger.session(&id("d")).await.unwrap(), None);
    assert_eq!(texts(ledger, "r").await, ["line 1 of a", "line 2 of b"]);
}

async fn a_closed_run_takes_nothing(ledger: &dyn Ledger) {
    begin(ledger, "r", Some("draft")).await;
    ledger.commit(&recorded("r", "a", 1)).await.unwrap();
    assert!(ledger.claim_closing(&run("r"), &run("other"), at(900), at(600)).await.unwrap());
    for _ in 0..2 {
        let error = ledger.commit(&recorded("r", "b", 2)).await.unwrap_err();
        assert!(matches!(&error, LedgerError::RunClosed(closed) if *closed == run("r")), "{error}");
        assert_eq!(error.code(), Code::RunClosed);
    }
    assert!(!ledger.beat(&run("r"), at(901)).await.unwrap());
    assert_eq!(ledger.session(&id("b")).await.unwrap(), None);
    assert_eq!(texts(ledger, "r").await, ["line 1 of a"]);
    begin(ledger, "again", Some("draft")).await;
    ledger.commit(&recorded("again", "b", 1)).await.unwrap();
    assert_eq!(ledger.session(&id("b")).await.unwrap().unwrap().run_id, run("again"));
}

async fn a_run_without_a_record_takes_no_line(ledger: &dyn Ledger) {
    begin(ledger, "old", None).await;
    assert_eq!(ledger.record(&run("old")).await.unwrap().unwrap().state, RecordState::None);
    for name in ["old", "unknown"] {
        assert_eq!(ledger.commit(&recorded(name, "a", 1)).await.unwrap_err().code(), Code::RunClosed);
    }
    assert!(ledger.lapsed_runs(at(1_000_000), 10).await.unwrap().is_empty());
    assert!(!ledger.claim_closing(&run("old"), &run("old"), at(1), at(1_000_000)).await.unwrap());
}

async fn a_chunk_takes_its_lines_out_of_the_wait(ledger: &dyn Ledger) {
    begin(ledger, "r", Some("draft")).await;
    begin(ledger, "other", Some("draft")).await;
    for number in 1..=5 {
        ledger.commit(&recorded("r", &format!("s{number}"), number)).await.unwrap();
    }
    ledger.commit(&recorded("other", "o", 1)).await.unwrap();
    // Not by somebody else, not behind a gap, not twice.
    assert!(!ledger.note_chunk(&chunk("r", "other", 1, 0, 3)).await.unwrap());
    assert!(!ledger.note_chunk(&chunk("r", "r", 2, 0, 3)).await.unwrap());
    assert!(!ledger.note_chunk(&chunk("r", "r", 1, 1, 3)).await.unwrap());
    assert!(ledger.note_chunk(&chunk("r", "r", 1, 0, 3)).await.unwrap());
    assert!(!ledger.note_chunk(&chunk("r", "r", 1, 0, 3)).await.unwrap());
    assert_eq!(texts(ledger, "r").await, ["line 4 of s4", "line 5 of s5"]);
    assert_eq!(texts(ledger, "other").await, ["line 1 of o"]);
    // A commit whose answer was lost and whose line is in a chunk by now.
    ledger.commit(&recorded("r", "s2", 2)).await.unwrap();
    assert_eq!(texts(ledger, "r").await, ["line 4 of s4", "line 5 of s5"]);
    assert!(ledger.note_chunk(&chunk("r", "r", 2, 3, 2)).await.unwrap());
    let row = ledger.record(&run("r")).await.unwrap().unwrap();
    assert_eq!((row.sums.as_deref(), row.lines, row.chunks), (Some("sums 2"), 5, 2));
    let chunks = ledger.chunks(&run("r")).await.unwrap();
    assert_eq!(chunks, [chunk("r", "r", 1, 0, 3).chunk, chunk("r", "r", 2, 3, 2).chunk]);
    assert!(ledger.chunks(&run("other")).await.unwrap().is_empty());
}

async fn only_a_run_without_a_sign_of_life_is_closed_by_another(ledger: &dyn Ledger) {
    begin(ledger, "a", Some("draft")).await;
    begin(ledger, "b", Some("draft")).await;
    assert!(ledger.beat(&run("b"), at(500)).await.unwrap());
    assert_eq!(ledger.lapsed_runs(at(400), 10).await.unwrap(), [run("a")]);
    assert!(ledger.lapsed_runs(at(0), 10).await.unwrap().is_empty());
    assert!(!ledger.claim_closing(&run("b"), &run("c"), at(800), at(500)).await.unwrap());
    assert!(ledger.claim_closing(&run("a"), &run("c"), at(800), at(400)).await.unwrap());
    assert!(ledger.claim_closing(&run("b"), &run("b"), at(800), at(400)).await.unwrap(), "its own, at any time");
    assert!(!ledger.claim_closing(&run("a"), &run("a"), at(800), at(400)).await.unwrap(), "another has it");
}

async fn a_claim_lapses_like_a_run(ledger: &dyn Ledger) {
    begin(ledger, "r", Some("draft")).await;
    ledger.commit(&recorded("r", "a", 1)).await.unwrap();
    assert!(ledger.claim_closing(&run("r"), &run("r"), at(100), at(0)).await.unwrap());
    assert!(ledger.claim_closing(&run("r"), &run("r"), at(200), at(0)).await.unwrap(), "it may be repeated");
    assert!(ledger.lapsed_runs(at(200), 10).await.unwrap().is_empty());
    assert_eq!(ledger.lapsed_runs(at(201), 10).await.unwrap(), [run("r")]);
    assert!(!ledger.claim_closing(&run("r"), &run("x"), at(300), at(200)).await.unwrap());
    assert!(ledger.claim_closing(&run("r"), &run("x"), at(300), at(201)).await.unwrap());
    // Whoever had it before is refused every step now.
    assert!(!ledger.note_chunk(&chunk("r", "r", 1, 0, 1)).await.unwrap());
    let document = SignedText { text: "late".into(), signature: None };
    assert_eq!(ledger.note_document(&run("r"), &run("r"), &document).await.unwrap(), None);
    assert_eq!(ledger.note_chain_from(&run("r"), &run("r"), 1).await.unwrap(), None);
    assert!(!ledger.close_record(&run("r"), &run("r"), &closed_record("r", 1)).await.unwrap());
    assert!(ledger.note_chunk(&chunk("r", "x", 1, 0, 1)).await.unwrap());
    assert!(ledger.close_record(&run("r"), &run("x"), &closed_record("r", 1)).await.unwrap());
}

async fn what_was_written_down_first_counts(ledger: &dyn Ledger) {
    begin(ledger, "r", Some("draft")).await;
    let first = SignedText { text: "{\"first\": 1}\n".into(), signature: Some("c2ln\n".into()) };
    let second = SignedText { text: "{\"second\": 2}\n".into(), signature: None };
    assert_eq!(ledger.note_document(&run("r"), &run("r"), &first).await.unwrap(), Some(first.clone()));
    assert_eq!(ledger.note_document(&run("r"), &run("r"), &second).await.unwrap(), Some(first.clone()));
    assert_eq!(ledger.note_chain_from(&run("r"), &run("r"), 7).await.unwrap(), Some(7));
    assert_eq!(ledger.note_chain_from(&run("r"), &run("r"), 9).await.unwrap(), Some(7));
    let row = ledger.record(&run("r")).await.unwrap().unwrap();
    assert_eq!((row.document, row.chain_from), (Some(first), Some(7)));
}

async fn a_closed_record_is_the_head_of_its_chain(ledger: &dyn Ledger) {
    assert_eq!(ledger.chain_head("default").await.unwrap(), None);
    for (name, number) in [("a", 9), ("b", 11), ("c", 10)] {
        begin(ledger, name, Some("draft")).await;
        assert!(ledger.close_record(&run(name), &run(name), &closed_record(name, number)).await.unwrap());
        assert!(!ledger.close_record(&run(name), &run(name), &closed_record(name, 99)).await.unwrap());
    }
    let head = ChainHead { number: 11, sha256: Sha256Digest::of(&11_u32.to_be_bytes()) };
    assert_eq!(ledger.chain_head("default").await.unwrap(), Some(head));
    assert_eq!(ledger.chain_head("Default").await.unwrap(), None);
    let row = ledger.record(&run("b")).await.unwrap().unwrap();
    assert_eq!((row.state, row.document, row.closed), (RecordState::Closed, None, Some(closed_record("b", 11))));
    assert!(ledger.lapsed_runs(at(1_000_000), 10).await.unwrap().is_empty());
}

async fn a_record_that_is_given_up_leaves_nothing(ledger: &dyn Ledger) {
    begin(ledger, "r", Some("draft")).await;
    ledger.commit(&recorded("r", "a", 1)).await.unwrap();
    ledger.forgo_record(&run("r")).await.unwrap();
    assert_eq!(ledger.record(&run("r")).await.unwrap().unwrap().state, RecordState::None);
    assert!(texts(ledger, "r").await.is_empty());
    assert!(ledger.lapsed_runs(at(1_000_000), 10).await.unwrap().is_empty());
    // One that stands in part is never given up.
    begin(ledger, "q", Some("draft")).await;
    ledger.commit(&recorded("q", "a", 1)).await.unwrap();
    assert!(ledger.note_chunk(&chunk("q", "q", 1, 0, 1)).await.unwrap());
    ledger.forgo_record(&run("q")).await.unwrap();
    assert_eq!(ledger.record(&run("q")).await.unwrap().unwrap().state, RecordState::Open);
}

/// Whatever comes first, a session that was taken has its line, and one that was refused is not there.
async fn commits_and_a_closing_at_once_lose_no_line(url: &str) {
    let (one, two) = (ledger::open(url).await.unwrap(), ledger::open(url).await.unwrap());
    for round in 0..8 {
        let name = format!("r{round}");
        begin(&*one, &name, Some("draft")).await;
        let work = async {
            for number in 1..=6 {
                match one.commit(&recorded(&name, &format!("{name}-{number}"), number)).await {
                    Ok(_) => {}
                    Err(LedgerError::RunClosed(_)) => return number - 1,
                    Err(error) => panic!("{error}"),
                }
            }
            6
        };
        let close = async {
            let (by, name) = (run("other"), run(&name));
            assert!(two.claim_closing(&name, &by, at(900), at(600)).await.unwrap());
        };
        let (taken, ()) = tokio::join!(work, close);
        assert_eq!(texts(&*two, &name).await.len() as u64, taken);
        for number in 1..=6 {
            let known = two.session(&id(&format!("{name}-{number}"))).await.unwrap();
            assert_eq!(known.is_some(), number <= taken);
        }
    }
}
