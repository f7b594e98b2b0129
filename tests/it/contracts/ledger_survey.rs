//! Everything that the ledger says, page after page, and runs that it learns of from the store: the same from every engine.

use std::time::Duration;

use sqlx::Connection as _;
use veriff_archive::error::Code;
use veriff_archive::ledger::{
    self, Adopted, BacklogEntry, ChunkEntry, Claim, ClosedRun, DamagedRow, Ledger, LedgerError, LineEntry, RecordState,
    RunCounts, RunFinish, SessionEntry, SignedText, State, Survey, SurveyedSession, VolumeQuery, Which,
};
use veriff_archive::model::RunId;
use veriff_archive::model::digest::Sha256Digest;
use veriff_archive::model::key::ObjectKey;
use veriff_archive::model::request::SessionRequest;
use veriff_archive::model::run::ChunkRef;

use super::ledger_samples::{ALARM, archived, at, begin, closed_record, failed, id, pending, run};

pub(super) async fn suite(fresh: &impl AsyncFn() -> String) {
    let open = async || ledger::open(&fresh().await).await.unwrap();
    an_empty_ledger_has_nothing_to_survey(&*open().await).await;
    sessions_come_in_the_order_of_their_bytes_each_with_its_own_items(&*open().await).await;
    one_session_is_surveyed_as_its_page_has_it(&*open().await).await;
    what_is_in_the_backlog_is_told_in_whatever_turn(&*open().await).await;
    a_run_that_is_taken_reads_back_whole_and_is_taken_once(&*open().await).await;
    closed_runs_come_in_pages_and_others_not_at_all(&*open().await).await;
    a_run_that_is_held_as_open_is_closed_as_the_store_says(&*open().await).await;
    how_a_run_ended_is_not_taken_back(&*open().await).await;
    opened_to_read_it_says_the_same(&fresh().await).await;
    rows_that_cannot_be_read_are_refused_one_by_one(&fresh().await).await;
}

/// Changes what nothing of this program changes so.
async fn tamper(url: &str, statement: String) {
    if let Some(file) = url.strip_prefix("sqlite://") {
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(file).foreign_keys(false);
        let options = options.pragma("ignore_check_constraints", "ON");
        let mut connection = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
        sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    } else {
        let mut connection = sqlx::PgConnection::connect(url).await.unwrap();
        // Without the checks of references.
        let statement = format!("SET session_replication_role = replica; {statement}");
        sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    }
}

async fn rows_that_cannot_be_read_are_refused_one_by_one(url: &str) {
    let ledger = ledger::open(url).await.unwrap();
    let names = ["s-0", "s-1", "s-2", "s-3", "s-4"];
    for name in names {
        ledger.commit(&archived(name, 1, 2)).await.unwrap();
    }
    let whole = everything(&*ledger, 10).await;
    for (name, table, set, column) in [
        ("s-1", "sessions", "state = 'nonsense'", "state"),
        ("s-2", "sessions", "visits = -1", "visits"),
        ("s-3", "media", "kind = 'nonsense'", "kind"),
        ("s-3", "media", "size_bytes = -1", "kind"),
        ("s-4", "sessions", "run_id = ''", "run_id"),
    ] {
        tamper(url, format!("UPDATE {table} SET {set} WHERE session_id = '{name}'")).await;
        let damaged = DamagedRow { id: name.to_owned(), column };
        assert_eq!(ledger.survey_session(&id(name)).await.unwrap(), Some(Err(damaged)));
    }
    // An id that is none, and items of a session that is not there.
    tamper(url, "UPDATE sessions SET session_id = 's 1' WHERE session_id = 's-1'".to_owned()).await;
    for limit in [1, 2, 10] {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let page = ledger.survey(after.as_deref(), limit).await.unwrap();
            let Some(last) = page.last() else { break };
            after = Some(last.as_ref().map_or_else(|row| row.id.clone(), |row| row.row.record.session_id.to_string()));
            found.extend(page);
        }
        let damaged = |id: &str, column| Err(DamagedRow { id: id.to_owned(), column });
        let expected = [
            damaged("s 1", "session_id"),
            Ok(whole[0].clone()),
            damaged("s-2", "visits"),
            damaged("s-3", "kind"),
            damaged("s-4", "run_id"),
        ];
        assert_eq!(found, expected, "{limit} at once");
    }
    for (name, number) in [("run-1", 1), ("run-2", 2), ("run-3", 3)] {
        ledger.adopt_run(&closed(name, number)).await.unwrap();
    }
    tamper(url, "UPDATE runs SET archived = -1 WHERE run_id = 'run-2'".to_owned()).await;
    let damaged = Err(DamagedRow { id: "run-2".to_owned(), column: "archived" });
    let runs = [Ok(closed("run-1", 1)), damaged, Ok(closed("run-3", 3))];
    assert_eq!(ledger.closed_runs(None, 10).await.unwrap(), runs);
}

/// Reads everything, so many at once.
pub(super) async fn everything(ledger: &dyn Survey, limit: u32) -> Vec<SurveyedSession> {
    let mut found: Vec<SurveyedSession> = Vec::new();
    loop {
        let after = found.last().map(|last| last.row.record.session_id.as_str());
        let page = ledger.survey(after, limit).await.unwrap();
        assert!(page.len() <= limit as usize);
        if page.is_empty() {
            return found;
        }
        found.extend(page.into_iter().map(Result::unwrap));
    }
}

pub(super) fn closed(name: &str, number: u32) -> ClosedRun {
    ClosedRun {
        run_id: run(name),
        started_at: at(i64::from(number)),
        finished_at: Some(at(60)),
        exit_code: Some(143),
        version: "0.1.0".into(),
        source_kind: "file".into(),
        store_url: "s3://bucket/prefix".into(),
        counts: RunCounts { archived: 3, media: 7, bytes: 5 << 40, ..RunCounts::default() },
        record: closed_record(name, number),
    }
}

async fn an_empty_ledger_has_nothing_to_survey(ledger: &dyn Ledger) {
    assert_eq!(ledger.survey(None, 10).await.unwrap(), []);
    assert_eq!(ledger.survey_session(&id("s")).await.unwrap(), None);
    assert_eq!(ledger.closed_runs(None, 10).await.unwrap(), []);
}

async fn sessions_come_in_the_order_of_their_bytes_each_with_its_own_items(ledger: &dyn Ledger) {
    // Locales would put upper case beside lower case, and pass over what is neither letter nor digit.
    let ordered = ["-", "0", "A", "Z", "_", "a", "a-", "a-1", "a0", "aB", "a_1", "ab", "b"];
    let entry = |place: usize, name: &str| match place % 4 {
        // Neither the first nor the last of a page may take the items of another.
        0 => pending(name),
        1 => failed(name, Code::VeriffEmpty),
        _ => archived(name, 1, u32::try_from(place).unwrap()),
    };
    for (place, name) in ordered.iter().enumerate().rev() {
        ledger.commit(&entry(place, name)).await.unwrap();
    }
    let whole = everything(ledger, 100).await;
    let names: Vec<&str> = whole.iter().map(|session| session.row.record.session_id.as_str()).collect();
    assert_eq!(names, ordered);
    for (place, session) in whole.iter().enumerate() {
        let mut expected = entry(place, ordered[place]).media;
        expected.sort_by(|one, other| one.media_id.as_str().cmp(other.media_id.as_str()));
        assert_eq!(session.media, expected, "{}", ordered[place]);
        assert_eq!(Some(&session.row), ledger.session(&id(ordered[place])).await.unwrap().as_ref());
    }
    for limit in [1, 2, 3, 5, 13] {
        assert_eq!(everything(ledger, limit).await, whole, "{limit} at once");
    }
    let behind_nobody = ledger.survey(Some("a-0"), 1).await.unwrap();
    assert_eq!(behind_nobody[0].as_ref().unwrap().row.record.session_id, id("a-1"));
    assert_eq!(ledger.survey(Some("b"), 10).await.unwrap(), []);
}

async fn one_session_is_surveyed_as_its_page_has_it(ledger: &dyn Ledger) {
    for entry in [archived("s", 2, 3), archived("s-1", 1, 2), pending("t")] {
        ledger.commit(&entry).await.unwrap();
    }
    for session in everything(ledger, 10).await {
        let one = ledger.survey_session(&session.row.record.session_id).await.unwrap();
        assert_eq!(one, Some(Ok(session)));
    }
    assert_eq!(ledger.survey_session(&id("S")).await.unwrap(), None);
}

async fn what_is_in_the_backlog_is_told_in_whatever_turn(ledger: &dyn Ledger) {
    let look_again_at = Some(at(90));
    for entry in [archived("done", 1, 1), pending("left"), SessionEntry { look_again_at, ..archived("waits", 1, 2) }] {
        ledger.commit(&entry).await.unwrap();
    }
    let added = ["leased", "ready"].map(|session| BacklogEntry {
        record: SessionRequest::of(id(session)),
        integration: "default".into(),
        deadline_at: None,
    });
    ledger.add(&added, &run("add"), at(0)).await.unwrap();
    let claim = Claim {
        holder: run("w"),
        integrations: vec!["default".into()],
        now: at(0),
        lease: Duration::from_mins(5),
        limit: 1,
        which: Which::Due,
    };
    assert_eq!(ledger.claim(&claim).await.unwrap()[0].record.session_id, id("leased"));
    for is_leased in [true, false] {
        let found = everything(ledger, 2).await;
        let told = found.iter().map(|session| (session.row.record.session_id.as_str(), session.in_backlog));
        let expected = [("done", false), ("leased", is_leased), ("left", false), ("ready", true), ("waits", true)];
        assert_eq!(told.collect::<Vec<_>>(), expected);
        for session in &found {
            let one = ledger.survey_session(&session.row.record.session_id).await.unwrap().unwrap().unwrap();
            assert_eq!(one.in_backlog, session.in_backlog, "{:?}", one.row.record.session_id);
        }
        assert_eq!(ledger.end_lease(&run("w"), &id("leased"), None).await.unwrap(), is_leased);
    }
}

async fn a_run_that_is_taken_reads_back_whole_and_is_taken_once(ledger: &dyn Ledger) {
    let dead = ClosedRun { finished_at: None, exit_code: None, counts: RunCounts::default(), ..closed("run-dead", 2) };
    for run in [closed("run-1", 1), dead] {
        assert_eq!(ledger.adopt_run(&run).await.unwrap(), Adopted::New);
        assert_eq!(ledger.adopt_run(&run).await.unwrap(), Adopted::Known);
        assert_eq!(ledger.closed_runs(None, 10).await.unwrap().last(), Some(&Ok(run.clone())));
        assert_eq!(ledger.record(&run.run_id).await.unwrap().unwrap().state, RecordState::Closed);
    }
    assert_eq!(ledger.chain_head("default").await.unwrap().unwrap().number, 2);
}

async fn closed_runs_come_in_pages_and_others_not_at_all(ledger: &dyn Ledger) {
    let names = ["run-1", "run-2", "run-B", "run-a", "run-b"];
    for (number, name) in (1..).zip(names) {
        ledger.adopt_run(&closed(name, number)).await.unwrap();
    }
    begin(ledger, "run-1x", Some("{}")).await;
    begin(ledger, "run-9", None).await;
    let mut found: Vec<RunId> = Vec::new();
    loop {
        let page = ledger.closed_runs(found.last().map(RunId::as_str), 2).await.unwrap();
        if page.is_empty() {
            break;
        }
        found.extend(page.into_iter().map(|run| run.unwrap().run_id));
    }
    assert_eq!(found, names.map(run));
}

/// A session that is taken with a line of a run.
async fn take_line(ledger: &dyn Ledger, name: &str, number: u64) -> Result<State, LedgerError> {
    let line = LineEntry { number, text: format!("line {number}"), media: 1, bytes: 1 };
    let entry = SessionEntry { run_id: run(name), line: Some(line), ..archived(&format!("{name}-{number}"), 1, 1) };
    ledger.commit(&entry).await
}

async fn note_chunk(ledger: &dyn Ledger, name: &str) {
    let chunk = ChunkEntry {
        run_id: run(name),
        by: run(name),
        number: 1,
        chunk: ChunkRef {
            key: ObjectKey::run_chunk(&run(name), at(0), 1),
            sha256: Sha256Digest::of(b"chunk"),
            sessions: 1,
            items: 1,
        },
        sums: "{}".into(),
        lines_before: 0,
    };
    assert!(ledger.note_chunk(&chunk).await.unwrap());
}

async fn a_run_that_is_held_as_open_is_closed_as_the_store_says(ledger: &dyn Ledger) {
    for name in ["run-1", "run-2", "run-3"] {
        begin(ledger, name, Some("{}")).await;
        for number in 1..=3 {
            take_line(ledger, name, number).await.unwrap();
        }
        note_chunk(ledger, name).await;
    }
    // One that somebody began to close, and did not finish.
    assert!(ledger.claim_closing(&run("run-2"), &run("other"), at(900), at(600)).await.unwrap());
    let document = SignedText { text: "{}".into(), signature: None };
    assert!(ledger.note_document(&run("run-2"), &run("other"), &document).await.unwrap().is_some());
    for (name, number) in [("run-1", 1), ("run-2", 2)] {
        let told = ClosedRun { started_at: at(0), store_url: "s3://bucket".into(), ..closed(name, number) };
        assert_eq!(ledger.adopt_run(&told).await.unwrap(), Adopted::Closed);
        assert_eq!(ledger.adopt_run(&told).await.unwrap(), Adopted::Known);
        let row = ledger.record(&run(name)).await.unwrap().unwrap();
        assert_eq!((row.state, row.document, row.closed), (RecordState::Closed, None, Some(told.record.clone())));
        assert_eq!(row.draft, None, "what it tells was not told to this ledger");
        assert_eq!(ledger.waiting_lines(&run(name), 0, 10).await.unwrap(), []);
        assert_eq!(ledger.chunks(&run(name)).await.unwrap(), []);
        let known = ledger.closed_runs(None, 10).await.unwrap();
        assert_eq!(known.last(), Some(&Ok(told)), "how it ended is taken");
        assert_eq!(take_line(ledger, name, 4).await.unwrap_err().code(), Code::RunClosed);
    }
    assert!(!ledger.close_record(&run("run-2"), &run("other"), &closed("run-2", 9).record).await.unwrap());
    assert_eq!(ledger.chain_head("default").await.unwrap().unwrap().number, 2);
    // The others go on as if nothing had been.
    assert_eq!(ledger.record(&run("run-3")).await.unwrap().unwrap().state, RecordState::Open);
    assert_eq!(ledger.chunks(&run("run-3")).await.unwrap().len(), 1);
    assert_eq!(ledger.waiting_lines(&run("run-3"), 0, 10).await.unwrap().len(), 2);
    take_line(ledger, "run-3", 4).await.unwrap();
}

async fn how_a_run_ended_is_not_taken_back(ledger: &dyn Ledger) {
    begin(ledger, "run-1", Some("{}")).await;
    let counts = RunCounts { archived: 9, ..RunCounts::default() };
    ledger.finish_run(&RunFinish { run_id: run("run-1"), finished_at: at(50), exit_code: 3, counts }).await.unwrap();
    assert_eq!(ledger.adopt_run(&closed("run-1", 1)).await.unwrap(), Adopted::Closed);
    let known = ledger.closed_runs(None, 10).await.unwrap().remove(0).unwrap();
    assert_eq!((known.finished_at, known.exit_code, known.counts), (Some(at(50)), Some(3), counts));
    // One that was found dead tells nothing of how it ended.
    begin(ledger, "run-2", Some("{}")).await;
    let dead = ClosedRun { finished_at: None, exit_code: None, counts: RunCounts::default(), ..closed("run-2", 2) };
    assert_eq!(ledger.adopt_run(&dead).await.unwrap(), Adopted::Closed);
    let known = ledger.closed_runs(Some("run-1"), 10).await.unwrap().remove(0).unwrap();
    assert_eq!((known.finished_at, known.exit_code, known.counts), (None, None, RunCounts::default()));
}

async fn opened_to_read_it_says_the_same(url: &str) {
    let writer = ledger::open(url).await.unwrap();
    for entry in [archived("s", 1, 3), failed("t", Code::VeriffEmpty)] {
        writer.commit(&entry).await.unwrap();
    }
    writer.adopt_run(&closed("run-1", 1)).await.unwrap();
    let (whole, query) = (everything(&*writer, 10).await, volume_query());
    let volume = writer.volume(&query).await.unwrap();
    let beside = ledger::open_to_read(url).await.unwrap();
    // It sees what is written after it was opened.
    assert_eq!(everything(&*beside, 10).await, whole);
    writer.commit(&archived("u", 1, 1)).await.unwrap();
    assert_eq!(everything(&*beside, 10).await.len(), 3);
    writer.close().await;
    beside.close().await;
    let alone = ledger::open_to_read(url).await.unwrap();
    assert_eq!(everything(&*alone, 1).await[..2], whole);
    assert_eq!(alone.survey_session(&id("s")).await.unwrap(), Some(Ok(whole[0].clone())));
    assert_eq!(alone.closed_runs(None, 10).await.unwrap(), [Ok(closed("run-1", 1))]);
    assert_eq!(alone.volume(&query).await.unwrap().runs, volume.runs);
    assert_eq!(alone.overview(at(0), ALARM).await.unwrap().sessions, 3);
    alone.close().await;
}

fn volume_query() -> VolumeQuery {
    VolumeQuery { now: at(0), horizon_alarm: ALARM, runs: 10, audits: 10 }
}
