//! What every engine of the ledger must do alike.
//!
//! An engine gives URLs of fresh, empty ledgers; each check opens its own, so that none sees what another left.

use std::sync::Arc;

use veriff_archive::clock::Timestamp;
use veriff_archive::error::Code;
use veriff_archive::ledger::{
    self, AuditRow, Ledger, OVERVIEW_RUNS, RunCounts, RunFinish, RunStart, SessionEntry, State,
};
use veriff_archive::model::ArchiveId;
use veriff_archive::model::request::SessionRequest;

use super::ledger_samples::{ALARM, archived, at, failed, id, manifest, pending, run};

const DAY_SECONDS: i64 = 24 * 60 * 60;

/// An engine under test.
pub(super) struct Engine<Fresh, Upgrade> {
    /// Makes a place for an empty ledger and returns its URL.
    pub(super) fresh: Fresh,
    /// Makes the schema look as if a later version had upgraded it.
    pub(super) upgrade: Upgrade,
}

pub(super) async fn suite(engine: Engine<impl AsyncFn() -> String, impl AsyncFn(&str)>) {
    let open = async || ledger::open(&(engine.fresh)().await).await.unwrap();

    the_first_archive_stays(&*open().await).await;
    runs_are_shown_newest_first(&*open().await).await;
    an_entry_reads_back_whole(&*open().await).await;
    an_older_manifest_changes_nothing(&*open().await).await;
    a_later_manifest_adds_its_media(&*open().await).await;
    a_stopped_visit_leaves_archived_what_is_archived(&*open().await).await;
    a_failed_visit_is_told_and_keeps_the_manifest(&*open().await).await;
    a_later_record_fills_gaps_and_empties_nothing(&*open().await).await;
    a_refused_entry_leaves_nothing(&*open().await).await;
    a_visit_with_thousands_of_items_is_one_commit(&*open().await).await;
    the_overview_counts_everything(&*open().await).await;
    what_a_run_left_is_read_in_pages(&*open().await).await;
    text_of_any_kind_reads_back(&*open().await).await;
    audits_are_shown_newest_first(&*open().await).await;

    super::ledger_backlog::suite(&engine.fresh).await;
    super::ledger_volume::suite(&engine.fresh).await;
    super::ledger_runs::suite(&engine.fresh).await;
    super::ledger_survey::suite(&engine.fresh).await;
    super::ledger_batch::suite(&engine.fresh).await;

    opened_many_times_at_once_it_is_made_once(&(engine.fresh)().await).await;
    two_workers_never_take_a_manifest_back(&(engine.fresh)().await).await;
    all_of_it_outlasts_the_process(&(engine.fresh)().await).await;
    let newer = (engine.fresh)().await;
    drop(ledger::open(&newer).await.unwrap());
    (engine.upgrade)(&newer).await;
    a_newer_schema_is_refused(&newer).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_keeps_the_contract_of_the_ledger() {
    let folder = tempfile::tempdir().unwrap();
    let count = std::sync::atomic::AtomicU32::new(0);
    let engine = Engine {
        fresh: async || {
            let number = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            format!("sqlite://{}/{number}.db", folder.path().display())
        },
        upgrade: async |url: &str| {
            let pool = sqlx::SqlitePool::connect(url).await.unwrap();
            sqlx::query(
                "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
                 VALUES (9999, 'of a later version', true, x'00', 0)",
            )
            .execute(&pool)
            .await
            .unwrap();
            pool.close().await;
        },
    };
    suite(engine).await;
}

#[tokio::test]
async fn sqlite_in_memory_is_a_ledger_that_does_not_last() {
    let first = ledger::open("sqlite::memory:").await.unwrap();
    first.commit(&archived("s", 1, 1)).await.unwrap();
    assert!(first.session(&id("s")).await.unwrap().is_some());
    let second = ledger::open("sqlite::memory:").await.unwrap();
    assert!(second.session(&id("s")).await.unwrap().is_none());
}

#[tokio::test]
async fn a_ledger_out_of_reach_may_work_later_and_names_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let error = ledger::open(&format!("sqlite://{}/no/such/ledger.db", folder.path().display())).await.unwrap_err();
    assert_eq!(error.code(), Code::LedgerUnavailable);
    assert!(error.to_string().contains("/no/such/ledger.db: its folder does not exist"), "{error}");
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.db");
    let text = "session ids, kept under the wrong name\n".repeat(100);
    std::fs::write(&path, &text).unwrap();
    let url = format!("sqlite://{}", path.display());
    assert_eq!(ledger::open(&url).await.unwrap_err().code(), Code::LedgerUnavailable);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
}

#[tokio::test]
async fn asking_whether_there_is_a_ledger_makes_none() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}/ledger.db", folder.path().display());
    assert!(!ledger::exists(&url).await.unwrap());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    drop(ledger::open(&url).await.unwrap());
    assert!(ledger::exists(&url).await.unwrap());
}

async fn the_first_archive_stays(ledger: &dyn Ledger) {
    assert_eq!(ledger.archive_id().await.unwrap(), None);
    let (first, second) = (ArchiveId::random(), ArchiveId::random());
    ledger.adopt_archive(&first).await.unwrap();
    ledger.adopt_archive(&second).await.unwrap();
    assert_eq!(ledger.archive_id().await.unwrap(), Some(first));
}

async fn runs_are_shown_newest_first(ledger: &dyn Ledger) {
    let newest = OVERVIEW_RUNS + 2;
    for number in 0..=newest {
        let start = RunStart {
            run_id: run(&format!("run-{number}")),
            started_at: at(i64::from(number)),
            version: "0.1.0".into(),
            source_kind: "file".into(),
            store_url: "s3://bucket/prefix".into(),
            draft: None,
        };
        ledger.start_run(&start).await.unwrap();
    }
    let counts = RunCounts { archived: 1, unchanged: 2, absent: 3, failed: 4, pending: 5, media: 6, bytes: 7 << 40 };
    let finish = RunFinish { run_id: run(&format!("run-{newest}")), finished_at: at(1000), exit_code: 143, counts };
    ledger.finish_run(&finish).await.unwrap();
    let runs = ledger.overview(at(0), ALARM).await.unwrap().runs;
    assert_eq!(runs.len(), usize::try_from(OVERVIEW_RUNS).unwrap());
    assert!(runs.is_sorted_by(|a, b| a.started_at > b.started_at));
    assert_eq!(runs[0].run_id, finish.run_id);
    assert_eq!((runs[0].finished_at, runs[0].exit_code), (Some(at(1000)), Some(143)));
    assert_eq!(runs[0].counts, counts);
    assert_eq!((runs[1].finished_at, runs[1].exit_code), (None, None));
    assert_eq!(runs[1].store_url, "s3://bucket/prefix");
    assert_eq!((runs[1].version.as_str(), runs[1].source_kind.as_str()), ("0.1.0", "file"));
}

async fn audits_are_shown_newest_first(ledger: &dyn Ledger) {
    let audit = |id: &str, seconds: i64, summary: &str| AuditRow {
        audit_id: id.to_owned(),
        audit: "fixity".to_owned(),
        finished_at: Timestamp::from_unix_seconds(seconds),
        summary: summary.to_owned(),
    };
    for audit in [audit("a", 1, "{}"), audit("b", 3, "{}"), audit("c", 2, "{}"), audit("a", 4, "{\"complete\":true}")] {
        ledger.note_audit(&audit).await.unwrap();
    }
    let latest = ledger.audits(2).await.unwrap();
    assert_eq!(latest, [audit("a", 4, "{\"complete\":true}"), audit("b", 3, "{}")]);
}

async fn an_entry_reads_back_whole(ledger: &dyn Ledger) {
    let entry = SessionEntry {
        record: SessionRequest {
            session_id: id("s"),
            integration: Some("eu".into()),
            decided_at: Some(at(-5)),
            retention_class: Some("biometric".into()),
            reference: Some("order 7".into()),
        },
        integration: "eu".into(),
        state: State::Failed,
        code: Some(Code::MediaMissing),
        message: Some("one item is gone".into()),
        upstream_created_at: Some(at(-10)),
        deadline_at: Some(at(90 * DAY_SECONDS)),
        complete: false,
        settled: true,
        ..archived("s", 3, 4)
    };
    assert_eq!(ledger.session(&id("s")).await.unwrap(), None);
    assert_eq!(ledger.commit(&entry).await.unwrap(), State::Failed);
    let row = ledger.session(&id("s")).await.unwrap().unwrap();
    assert_eq!(row.record, entry.record);
    assert_eq!((row.integration, row.state), (entry.integration, entry.state));
    assert_eq!(row.code.as_deref(), Some("media.missing"));
    assert_eq!(row.message, entry.message);
    assert_eq!(row.upstream_created_at, entry.upstream_created_at);
    assert_eq!(row.deadline_at, entry.deadline_at);
    assert_eq!(row.manifest, entry.manifest);
    assert_eq!((row.complete, row.settled), (false, true));
    assert_eq!((row.media, row.bytes, row.visits), (4, 40, 1));
    assert_eq!(row.run_id, entry.run_id);
    assert_eq!((row.first_visited_at, row.last_visited_at), (entry.at, entry.at));
}

async fn an_older_manifest_changes_nothing(ledger: &dyn Ledger) {
    ledger.commit(&archived("s", 2, 3)).await.unwrap();
    let mut older = archived("s", 1, 1);
    older.media[0].size_bytes = 99;
    older.complete = false;
    assert_eq!(ledger.commit(&older).await.unwrap(), State::Archived);
    let row = ledger.session(&id("s")).await.unwrap().unwrap();
    assert_eq!(row.manifest, Some(manifest("s", 2)));
    assert!(row.complete);
    assert_eq!((row.media, row.bytes, row.visits), (3, 30, 2));

    // A failure of the newer manifest is not undone by a slower worker either.
    let missing = SessionEntry {
        complete: false,
        ..SessionEntry { state: State::Failed, code: Some(Code::MediaMissing), ..archived("s", 3, 3) }
    };
    ledger.commit(&missing).await.unwrap();
    assert_eq!(ledger.commit(&archived("s", 2, 3)).await.unwrap(), State::Failed);
    let row = ledger.session(&id("s")).await.unwrap().unwrap();
    assert_eq!(row.code.as_deref(), Some("media.missing"));
    assert!(!row.complete);
}

async fn a_later_manifest_adds_its_media(ledger: &dyn Ledger) {
    ledger.commit(&archived("s", 1, 3)).await.unwrap();
    ledger.commit(&archived("s", 2, 5)).await.unwrap();
    let row = ledger.session(&id("s")).await.unwrap().unwrap();
    assert_eq!(row.manifest, Some(manifest("s", 2)));
    assert_eq!((row.media, row.bytes), (5, 50));

    // The same visit once more.
    ledger.commit(&archived("s", 2, 5)).await.unwrap();
    let row = ledger.session(&id("s")).await.unwrap().unwrap();
    assert_eq!((row.media, row.bytes, row.visits), (5, 50, 3));

    // What a manifest says of an item replaces what stood.
    let mut entry = archived("s", 2, 5);
    entry.media[0].size_bytes = 15;
    ledger.commit(&entry).await.unwrap();
    assert_eq!(ledger.session(&id("s")).await.unwrap().unwrap().bytes, 55);
}

async fn a_stopped_visit_leaves_archived_what_is_archived(ledger: &dyn Ledger) {
    ledger.commit(&archived("s", 1, 2)).await.unwrap();
    for state in [State::Pending, State::Absent] {
        let stopped =
            SessionEntry { state, code: Some(Code::RunStopped), run_id: run("run-2"), at: at(60), ..pending("s") };
        assert_eq!(ledger.commit(&stopped).await.unwrap(), State::Archived);
    }
    let row = ledger.session(&id("s")).await.unwrap().unwrap();
    assert_eq!((row.state, row.code), (State::Archived, None));
    assert_eq!(row.manifest, Some(manifest("s", 1)));
    assert!(row.complete && row.settled);
    assert_eq!((row.visits, row.run_id), (3, run("run-2")));
    assert_eq!((row.first_visited_at, row.last_visited_at), (at(0), at(60)));
}

async fn a_failed_visit_is_told_and_keeps_the_manifest(ledger: &dyn Ledger) {
    ledger.commit(&archived("s", 1, 2)).await.unwrap();
    assert_eq!(ledger.commit(&failed("s", Code::StoreShadowed)).await.unwrap(), State::Failed);
    let row = ledger.session(&id("s")).await.unwrap().unwrap();
    assert_eq!(row.code.as_deref(), Some("store.shadowed"));
    assert_eq!(row.message.as_deref(), Some("it was store.shadowed"));
    assert_eq!(row.manifest, Some(manifest("s", 1)));
    assert_eq!((row.media, row.bytes), (2, 20));

    assert_eq!(ledger.commit(&archived("s", 1, 2)).await.unwrap(), State::Archived);
    let row = ledger.session(&id("s")).await.unwrap().unwrap();
    assert_eq!((row.code, row.message), (None, None));
}

async fn a_later_record_fills_gaps_and_empties_nothing(ledger: &dyn Ledger) {
    let mut entry = pending("s");
    entry.record.reference = Some("order 7".into());
    entry.deadline_at = Some(at(5));
    ledger.commit(&entry).await.unwrap();
    let mut entry = pending("s");
    entry.record.decided_at = Some(at(1));
    entry.integration = "us".into();
    ledger.commit(&entry).await.unwrap();
    let row = ledger.session(&id("s")).await.unwrap().unwrap();
    assert_eq!(row.record.reference.as_deref(), Some("order 7"));
    assert_eq!(row.record.decided_at, Some(at(1)));
    assert_eq!(row.record.integration, None);
    assert_eq!((row.integration.as_str(), row.deadline_at), ("us", Some(at(5))));
}

async fn a_refused_entry_leaves_nothing(ledger: &dyn Ledger) {
    ledger.commit(&pending("s")).await.unwrap();
    let lie = SessionEntry { manifest: None, ..archived("s", 1, 2) };
    assert!(ledger.commit(&lie).await.is_err());
    let row = ledger.session(&id("s")).await.unwrap().unwrap();
    assert_eq!((row.state, row.media, row.visits), (State::Pending, 0, 1));
    assert_eq!(ledger.commit(&archived("s", 1, 2)).await.unwrap(), State::Archived);
}

async fn a_visit_with_thousands_of_items_is_one_commit(ledger: &dyn Ledger) {
    ledger.commit(&archived("s", 1, 10_000)).await.unwrap();
    let row = ledger.session(&id("s")).await.unwrap().unwrap();
    assert_eq!((row.media, row.bytes), (10_000, 100_000));
}

async fn the_overview_counts_everything(ledger: &dyn Ledger) {
    let empty = ledger.overview(at(0), ALARM).await.unwrap();
    assert_eq!((empty.sessions, empty.states.len(), empty.runs.len()), (0, 0, 0));
    assert_eq!((empty.oldest_pending_at, empty.nearest_deadline_at), (None, None));

    let due = |entry: SessionEntry, days: i64| SessionEntry { deadline_at: Some(at(days * DAY_SECONDS)), ..entry };
    let unsettled = SessionEntry { settled: false, ..archived("a2", 1, 3) };
    let absent = SessionEntry { state: State::Absent, ..archived("b1", 1, 0) };
    for entry in [
        due(archived("a1", 1, 2), -100),
        unsettled,
        absent,
        due(pending("p1"), -1),
        SessionEntry { at: at(-60), ..due(pending("p2"), 3) },
        pending("p3"),
        due(failed("f1", Code::VeriffThrottled), -2),
        due(failed("f2", Code::VeriffThrottled), 7),
        due(failed("f3", Code::StoreUnavailable), 8),
        failed("f4", Code::StoreUnavailable),
        due(failed("f5", Code::MediaTooLarge), -50),
    ] {
        ledger.commit(&entry).await.unwrap();
    }

    let overview = ledger.overview(at(0), ALARM).await.unwrap();
    assert_eq!(overview.sessions, 11);
    let mut states: Vec<_> = overview.states.iter().map(|s| (s.state, s.sessions)).collect();
    states.sort();
    assert_eq!(states, [(State::Pending, 3), (State::Archived, 2), (State::Absent, 1), (State::Failed, 5)]);
    let mut codes: Vec<_> = overview.codes.iter().map(|c| (c.state, c.code.as_str(), c.sessions)).collect();
    codes.sort();
    assert_eq!(
        codes,
        [
            (State::Failed, "media.too_large", 1),
            (State::Failed, "store.unavailable", 2),
            (State::Failed, "veriff.throttled", 2)
        ]
    );
    assert_eq!((overview.complete, overview.settled), (3, 2));
    assert_eq!((overview.media, overview.bytes), (5, 50));
    assert_eq!(overview.oldest_pending_at, Some(at(-60)));
    assert_eq!(overview.nearest_deadline_at, Some(at(-2 * DAY_SECONDS)));
    assert_eq!(overview.unknown_deadlines, 2);
    assert_eq!(overview.past_horizon, 2);
    assert_eq!(overview.within_alarm, 2);
}

async fn what_a_run_left_is_read_in_pages(ledger: &dyn Ledger) {
    let mut expected = Vec::new();
    for number in 0..25 {
        let mut entry = failed(&format!("s{number:02}"), Code::VeriffUnavailable);
        entry.record.reference = Some(format!("order {number}"));
        entry.record.decided_at = Some(at(number));
        ledger.commit(&entry).await.unwrap();
        expected.push(entry.record);
    }
    for entry in [
        failed("s00x", Code::MediaMissing),
        pending("s01x"),
        SessionEntry { state: State::Pending, ..failed("s04x", Code::RunStopped) },
        archived("s02x", 1, 1),
        SessionEntry { run_id: run("run-2"), ..failed("s03x", Code::VeriffUnavailable) },
    ] {
        ledger.commit(&entry).await.unwrap();
    }

    let mut found = Vec::new();
    loop {
        let after = found.last().map(|record: &SessionRequest| record.session_id.clone());
        let page = ledger.retryable_of_run(&run("run-1"), after.as_ref(), 10).await.unwrap();
        assert!(page.len() <= 10);
        if page.is_empty() {
            break;
        }
        // What is worked on in between does not disturb the pages to come.
        let done = archived(page[0].session_id.as_str(), 1, 1);
        ledger.commit(&done).await.unwrap();
        found.extend(page);
    }
    assert_eq!(found, expected);
    let left = ledger.retryable_of_run(&run("run-1"), None, 100).await.unwrap();
    assert_eq!(left.len(), 22);
}

async fn text_of_any_kind_reads_back(ledger: &dyn Ledger) {
    let text = "quote ' \" \\ line\nnull é 漢 🦀 %_ $1 ?1";
    let mut entry = failed("s", Code::VeriffUnexpected);
    entry.record.reference = Some(text.into());
    entry.message = Some(text.into());
    ledger.commit(&entry).await.unwrap();
    let row = ledger.session(&id("s")).await.unwrap().unwrap();
    assert_eq!(row.record.reference.as_deref(), Some(text));
    assert_eq!(row.message.as_deref(), Some(text));
}

async fn opened_many_times_at_once_it_is_made_once(url: &str) {
    let opened = futures_util::future::join_all((0..8).map(|_| ledger::open(url))).await;
    for (number, ledger) in opened.into_iter().enumerate() {
        let session = format!("s{number}");
        ledger.unwrap().commit(&archived(&session, 1, 1)).await.unwrap();
    }
    let overview = ledger::open(url).await.unwrap().overview(at(0), ALARM).await.unwrap();
    assert_eq!(overview.sessions, 8);
}

async fn two_workers_never_take_a_manifest_back(url: &str) {
    let workers = [ledger::open(url).await.unwrap(), ledger::open(url).await.unwrap()];
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..40u32 {
        // 17 and 40 have no common divisor: every number from 1 to 40 once, in a wild order.
        let sequence = number * 17 % 40 + 1;
        let worker = Arc::clone(&workers[usize::try_from(number % 2).unwrap()]);
        tasks.spawn(async move { worker.commit(&archived("s", sequence, sequence)).await.unwrap() });
    }
    assert!(tasks.join_all().await.iter().all(|state| *state == State::Archived));
    for worker in workers {
        let row = worker.session(&id("s")).await.unwrap().unwrap();
        assert_eq!(row.manifest, Some(manifest("s", 40)));
        assert_eq!((row.media, row.bytes, row.visits), (40, 400, 40));
    }
}

async fn all_of_it_outlasts_the_process(url: &str) {
    let archive = ArchiveId::random();
    let before = ledger::open(url).await.unwrap();
    before.adopt_archive(&archive).await.unwrap();
    before.commit(&archived("s", 1, 2)).await.unwrap();
    let row = before.session(&id("s")).await.unwrap();
    let overview = before.overview(at(0), ALARM).await.unwrap();
    drop(before);
    let after = ledger::open(url).await.unwrap();
    assert_eq!(after.archive_id().await.unwrap(), Some(archive));
    assert_eq!(after.session(&id("s")).await.unwrap(), row);
    assert_eq!(after.overview(at(0), ALARM).await.unwrap(), overview);
}

async fn a_newer_schema_is_refused(url: &str) {
    let error = ledger::open(url).await.unwrap_err();
    assert_eq!(error.code(), Code::LedgerSchema);
    assert!(error.to_string().contains("veriff-archive ledger migrate"), "{error}");
}
