//! What every engine of the ledger must do alike when it sums up over time.

use std::time::Duration;

use veriff_archive::clock::Timestamp;
use veriff_archive::error::Code;
use veriff_archive::ledger::{self, AuditRow, DaysLeft, Ledger, RunStart, SessionEntry, State, Volume, VolumeQuery};
use veriff_archive::model::{ArchiveId, MediaKind, RunId};

use super::ledger_samples::{ALARM, archived, failed, pending};

const DAY: Duration = Duration::from_hours(24);

/// Everything that is checked of a fresh, empty ledger, each on its own.
pub(super) async fn suite(fresh: impl AsyncFn() -> String) {
    let open = async || ledger::open(&fresh().await).await.unwrap();
    an_empty_ledger_has_no_volume(&*open().await).await;
    sessions_are_counted_by_month_and_state(&*open().await).await;
    media_are_summed_by_the_month_of_their_session(&*open().await).await;
    sessions_to_do_are_counted_by_the_days_they_have_left(&*open().await).await;
    as_many_runs_and_audits_as_asked_for_are_told(&*open().await).await;
}

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

async fn volume(ledger: &dyn Ledger) -> Volume {
    let query = VolumeQuery { now: time("2027-01-10T12:00:00Z"), horizon_alarm: ALARM, runs: 2, audits: 2 };
    ledger.volume(&query).await.unwrap()
}

async fn an_empty_ledger_has_no_volume(ledger: &dyn Ledger) {
    assert_eq!(volume(ledger).await, Volume::default());
    let archive = ArchiveId::random();
    ledger.adopt_archive(&archive).await.unwrap();
    assert_eq!(volume(ledger).await.archive_id, Some(archive));
}

async fn sessions_are_counted_by_month_and_state(ledger: &dyn Ledger) {
    for (session, text) in [
        ("a", "2026-11-30T23:59:59.999Z"),
        ("b", "2026-12-01T00:00:00Z"),
        ("c", "2026-12-31T23:59:59.999Z"),
        ("d", "2027-01-01T00:00:00Z"),
    ] {
        ledger.commit(&SessionEntry { at: time(text), ..archived(session, 1, 0) }).await.unwrap();
    }
    // A later visit moves no session to another month.
    ledger.commit(&SessionEntry { at: time("2027-01-05T00:00:00Z"), ..archived("b", 2, 0) }).await.unwrap();
    let december = time("2026-12-24T18:00:00Z");
    ledger.commit(&SessionEntry { settled: false, at: december, ..archived("e", 1, 0) }).await.unwrap();
    ledger.commit(&SessionEntry { at: december, ..failed("f", Code::MediaMissing) }).await.unwrap();
    ledger.commit(&SessionEntry { at: december, ..pending("g") }).await.unwrap();

    let found = volume(ledger).await;
    let rows: Vec<_> = found
        .months
        .iter()
        .map(|row| (row.month.to_string(), row.state, row.complete, row.settled, row.sessions))
        .collect();
    let row = |month: &str, state, complete, settled, sessions| (month.to_owned(), state, complete, settled, sessions);
    assert_eq!(
        rows,
        [
            row("2026-11", State::Archived, true, true, 1),
            row("2026-12", State::Pending, false, false, 1),
            row("2026-12", State::Archived, true, false, 1),
            row("2026-12", State::Archived, true, true, 2),
            row("2026-12", State::Failed, false, false, 1),
            row("2027-01", State::Archived, true, true, 1),
        ]
    );
    let overview = &found.overview;
    assert_eq!(overview.sessions, found.months.iter().map(|row| row.sessions).sum::<u64>());
    assert_eq!((overview.complete, overview.settled), (5, 4));
}

async fn media_are_summed_by_the_month_of_their_session(ledger: &dyn Ledger) {
    let mut first = SessionEntry { at: time("2026-11-02T00:00:00Z"), ..archived("a", 1, 3) };
    first.media[2].kind = MediaKind::Video;
    first.media[2].size_bytes = 5 << 40;
    ledger.commit(&first).await.unwrap();
    ledger.commit(&SessionEntry { at: time("2026-11-29T00:00:00Z"), ..archived("b", 1, 1) }).await.unwrap();
    ledger.commit(&SessionEntry { at: time("2026-12-01T00:00:00Z"), ..archived("c", 1, 4) }).await.unwrap();
    let found = volume(ledger).await;
    let rows: Vec<_> = found.media.iter().map(|row| (row.month.to_string(), row.kind, row.items, row.bytes)).collect();
    let row = |month: &str, kind, items, bytes| (month.to_owned(), kind, items, bytes);
    assert_eq!(
        rows,
        [
            row("2026-11", MediaKind::Image, 3, 30),
            row("2026-11", MediaKind::Video, 1, 5 << 40),
            row("2026-12", MediaKind::Image, 4, 40),
        ]
    );
    assert_eq!((found.overview.media, found.overview.bytes), (8, 70 + (5 << 40)));
}

async fn sessions_to_do_are_counted_by_the_days_they_have_left(ledger: &dyn Ledger) {
    let now = time("2027-01-10T12:00:00Z");
    let with = |entry: SessionEntry, deadline_at| SessionEntry { deadline_at, ..entry };
    for entry in [
        with(pending("past"), Some(now.minus(Duration::from_hours(1)))),
        with(pending("long-past"), Some(now.minus(90 * DAY))),
        with(pending("now"), Some(now)),
        with(pending("today"), Some(now.plus(Duration::from_millis(1)))),
        with(failed("tomorrow", Code::VeriffThrottled), Some(now.plus(DAY))),
        with(pending("the-day-after"), Some(now.plus(2 * DAY).minus(Duration::from_millis(1)))),
        with(pending("far"), Some(now.plus(4000 * DAY))),
        with(pending("unknown"), None),
        with(failed("for-good", Code::MediaMissing), Some(now.plus(DAY))),
        with(archived("done", 1, 1), Some(now.plus(DAY))),
    ] {
        ledger.commit(&entry).await.unwrap();
    }
    let found = volume(ledger).await;
    let rows: Vec<_> = found.deadlines.iter().map(|row| (row.left, row.sessions)).collect();
    let expected = [
        (DaysLeft::Past, 3),
        (DaysLeft::Days(0), 1),
        (DaysLeft::Days(1), 2),
        (DaysLeft::Days(4000), 1),
        (DaysLeft::Unknown, 1),
    ];
    assert_eq!(rows, expected);
    assert_eq!((found.overview.past_horizon, found.overview.unknown_deadlines), (3, 1));
}

async fn as_many_runs_and_audits_as_asked_for_are_told(ledger: &dyn Ledger) {
    for number in 0..4 {
        let run = RunStart {
            run_id: RunId::parse(&format!("run-{number}")).unwrap(),
            started_at: Timestamp::from_unix_seconds(number),
            version: "0.1.0".into(),
            source_kind: "file".into(),
            store_url: "s3://bucket".into(),
            draft: None,
        };
        ledger.start_run(&run).await.unwrap();
        let audit = AuditRow {
            audit_id: format!("audit-{number}"),
            audit: "chain".into(),
            finished_at: Timestamp::from_unix_seconds(number),
            summary: "{}".into(),
        };
        ledger.note_audit(&audit).await.unwrap();
    }
    let found = volume(ledger).await;
    assert_eq!(found.runs.iter().map(|run| run.run_id.as_str()).collect::<Vec<_>>(), ["run-3", "run-2"]);
    let audits: Vec<_> = found.audits.iter().map(|audit| audit.audit_id.as_str()).collect();
    assert_eq!(audits, ["audit-3", "audit-2"]);
}
