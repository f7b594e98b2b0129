//! Whatever workers and people may do to a row is nothing to say, and what they may not do is.

use proptest::prelude::*;

use super::*;
use crate::ledger::{ManifestRef, Standing};
use crate::model::digest::Sha256Digest;
use crate::model::key::ObjectKey;
use crate::model::request::SessionRequest;
use crate::model::{RunId, SessionId};

const HORIZON: Duration = Duration::from_hours(90 * 24);

fn session() -> SessionId {
    SessionId::parse("2f0a4c1e-0000-4000-8000-000000000001").unwrap()
}

fn at(minutes: u64) -> Timestamp {
    Timestamp::from_unix_seconds(1_780_000_000).plus(Duration::from_mins(minutes))
}

fn created_at() -> Timestamp {
    Timestamp::from_unix_seconds(1_770_000_000)
}

fn run(number: usize) -> RunId {
    RunId::parse(&format!("run-{number}")).unwrap()
}

/// A row and all that brought it about.
#[derive(Debug, Clone, Default)]
struct Story {
    surveyed: Option<SurveyedSession>,
    lines: Vec<ReportedLine>,
    written: Vec<(u32, Timestamp)>,
    minutes: u64,
    visits: usize,
    additions: usize,
    is_reported: bool,
}

/// Where the record of a visit comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Record {
    /// From the backlog, with what the ledger knows.
    Backlog,
    /// From a list of plain ids.
    List,
    /// From a list that tells when Veriff decided.
    Decided,
}

/// What a visit tells.
#[derive(Debug, Clone)]
struct VisitMade {
    outcome: &'static str,
    code: Option<&'static str>,
    sequence: Option<u32>,
    settled: bool,
    created_at: Option<Timestamp>,
    record: Record,
    is_recorded: bool,
}

impl VisitMade {
    fn of(outcome: &'static str, code: Option<&'static str>, sequence: Option<u32>) -> Self {
        let created_at = Some(created_at());
        Self { outcome, code, sequence, settled: false, created_at, record: Record::Backlog, is_recorded: true }
    }
}

fn new_row(at: Timestamp, run_id: RunId) -> SurveyedSession {
    let row = SessionRow {
        record: SessionRequest::of(session()),
        integration: "default".to_owned(),
        state: State::Pending,
        code: None,
        message: None,
        upstream_created_at: None,
        deadline_at: None,
        manifest: None,
        complete: false,
        settled: false,
        media: 0,
        bytes: 0,
        visits: 0,
        run_id,
        first_visited_at: at,
        last_visited_at: at,
        accepted_reason: None,
    };
    SurveyedSession { row, media: Vec::new(), in_backlog: true }
}

impl Story {
    fn tick(&mut self) -> Timestamp {
        self.minutes += 100;
        at(self.minutes)
    }

    /// As a commit does, see `UPDATE_SESSION`.
    fn visit(&mut self, reported: &VisitMade) {
        let now = self.tick();
        self.visits += 1;
        let run_id = run(self.visits);
        let standing = self.surveyed.as_ref().map(|it| Standing {
            state: it.row.state,
            sequence: it.row.manifest.as_ref().map(|manifest| manifest.sequence),
        });
        let row = &mut self.surveyed.get_or_insert_with(|| new_row(now, run_id.clone())).row;
        let decided_at = match reported.record {
            Record::Backlog => row.record.decided_at,
            Record::List => None,
            Record::Decided => Some(created_at().plus(Duration::from_hours(reported.sequence.unwrap_or(0).into()))),
        };
        row.record.decided_at = decided_at.or(row.record.decided_at);
        let deadline_at = reported.created_at.into_iter().chain(decided_at).min().map(|known| known.plus(HORIZON));
        let line = ReportedLine {
            session_id: session(),
            committed_at: now,
            run_id: run_id.clone(),
            number: 0,
            integration: "default".to_owned(),
            outcome: reported.outcome.to_owned(),
            code: reported.code.map(str::to_owned),
            decided_at,
            upstream_created_at: reported.created_at,
            deadline_at,
            closes: Some((reported.sequence.is_some(), reported.settled && reported.sequence.is_some())),
            sequence: reported.sequence,
            is_adopted: false,
        };
        let made = Standing::after(standing, asked(&line).unwrap(), reported.sequence);
        row.state = made.state;
        if made.takes_cause {
            row.code.clone_from(&line.code);
        }
        if made.takes_manifest
            && let Some(sequence) = reported.sequence
        {
            let key = ObjectKey::manifest(&session(), sequence);
            let sha256 = Sha256Digest::of(b"a manifest");
            row.manifest = Some(ManifestRef { key, version_id: None, sequence, sha256 });
            (row.complete, row.settled) = (true, reported.settled);
        }
        row.upstream_created_at = reported.created_at.or(row.upstream_created_at);
        row.deadline_at = deadline_at.or(row.deadline_at);
        row.visits += 1;
        row.run_id = run_id;
        row.last_visited_at = now;
        self.is_reported = reported.is_recorded;
        if reported.is_recorded {
            self.lines.push(line);
        }
    }

    fn retry(&mut self) {
        let Some(surveyed) = &mut self.surveyed else { return };
        surveyed.in_backlog = true;
        if surveyed.row.state != State::Archived {
            (surveyed.row.state, surveyed.row.code, surveyed.row.accepted_reason) = (State::Pending, None, None);
        }
    }

    fn accept(&mut self) {
        let Some(surveyed) = &mut self.surveyed else { return };
        if !matches!(surveyed.row.state, State::Archived | State::Accepted) {
            (surveyed.row.state, surveyed.row.accepted_reason) = (State::Accepted, Some("lost".to_owned()));
            surveyed.in_backlog = false;
        }
    }

    fn add(&mut self, decided_at: Timestamp) {
        let now = self.tick();
        self.additions += 1;
        let surveyed = self.surveyed.get_or_insert_with(|| new_row(now, run(1000)));
        let row = &mut surveyed.row;
        let due_at = decided_at.plus(HORIZON);
        row.record.decided_at = Some(decided_at);
        row.deadline_at = Some(row.deadline_at.map_or(due_at, |known| known.min(due_at)));
        surveyed.in_backlog |= row.state == State::Pending || row.state == State::Archived && !row.settled;
    }

    fn differences(&self) -> Vec<Difference> {
        self.word().differences
    }

    fn errors(&self) -> usize {
        self.differences().iter().filter(|(severity, ..)| *severity == Severity::Error).count()
    }

    fn word(&self) -> Word {
        let surveyed = self.surveyed.as_ref().unwrap();
        let closed_at = surveyed.row.last_visited_at.plus(Duration::from_secs(10));
        self.word_of(if self.is_reported { RunStanding::Read { closed_at } } else { RunStanding::Open })
    }

    fn word_of(&self, run: RunStanding) -> Word {
        let known =
            RowContext { lines: &self.lines, run, newest: None, written: &self.written, horizon: Some(HORIZON) };
        compare(self.surveyed.as_ref().unwrap(), known)
    }

    fn changed(&self, change: impl FnOnce(&mut SurveyedSession)) -> Self {
        let mut changed = self.clone();
        change(changed.surveyed.as_mut().unwrap());
        changed
    }
}

/// What somebody does.
#[derive(Debug, Clone)]
enum Deed {
    Visit(VisitMade),
    Retry,
    Accept,
    Add(Timestamp),
}

fn visits() -> impl Strategy<Value = VisitMade> {
    let ends = proptest::sample::select(vec![
        ("archived", None),
        ("unchanged", None),
        ("unchanged", Some("store.conflict")),
        ("absent", Some("veriff.absent")),
        ("failed", Some("media.missing")),
        ("failed", Some("veriff.unavailable")),
        ("pending", Some("run.stopped")),
    ]);
    let records = proptest::sample::select(vec![Record::Backlog, Record::List, Record::Decided]);
    let reported = (ends, proptest::option::of(1_u32..4), any::<bool>(), any::<bool>(), records, 0..5);
    reported.prop_map(|((outcome, code), sequence, settled, is_timed, record, reported)| {
        let needs_manifest = matches!(outcome, "archived" | "unchanged" | "absent");
        let sequence = if needs_manifest { sequence.or(Some(1)) } else { sequence };
        let created_at = is_timed.then_some(created_at());
        VisitMade { outcome, code, sequence, settled, created_at, record, is_recorded: reported > 0 }
    })
}

fn deeds() -> impl Strategy<Value = Deed> {
    prop_oneof![
        4 => visits().prop_map(Deed::Visit),
        1 => Just(Deed::Retry),
        1 => Just(Deed::Accept),
        1 => (0_u64..10).prop_map(|days| Deed::Add(created_at().plus(Duration::from_hours(24 * days)))),
    ]
}

proptest! {
    #[test]
    fn whatever_workers_and_people_do_is_nothing_to_say(deeds in proptest::collection::vec(deeds(), 1..9)) {
        let mut story = Story::default();
        for deed in deeds {
            match deed {
                Deed::Visit(reported) => story.visit(&reported),
                Deed::Retry => story.retry(),
                Deed::Accept => story.accept(),
                Deed::Add(decided_at) => story.add(decided_at),
            }
            if story.surveyed.is_some() {
                let differences = story.differences();
                let is_ambiguous = story.additions > 1;
                prop_assert!(
                    differences.iter().all(|(severity, ..)| is_ambiguous && *severity == Severity::Warn),
                    "{differences:?} {story:?}"
                );
            }
        }
    }
}

/// A session of which an item was missing at first, and that was archived whole then.
fn archived() -> Story {
    let mut story = Story::default();
    story.visit(&VisitMade::of("failed", Some("media.missing"), Some(1)));
    story.visit(&VisitMade { settled: true, ..VisitMade::of("archived", None, Some(2)) });
    assert_eq!(story.differences(), []);
    story
}

#[test]
fn every_column_that_a_line_tells_is_held_against_it() {
    let later = Duration::from_millis(1);
    let changes: [fn(&mut SessionRow); 18] = [
        |row| row.integration = "other".to_owned(),
        |row| row.state = State::Pending,
        |row| (row.state, row.code) = (State::Pending, Some("run.stopped".to_owned())),
        |row| (row.state, row.code) = (State::Failed, Some("media.missing".to_owned())),
        |row| (row.state, row.code) = (State::Absent, Some("veriff.absent".to_owned())),
        |row| (row.state, row.accepted_reason) = (State::Accepted, Some("lost".to_owned())),
        |row| row.code = Some("store.conflict".to_owned()),
        |row| row.upstream_created_at = None,
        |row| row.deadline_at = None,
        |row| row.manifest = None,
        |row| row.manifest.as_mut().unwrap().sequence = 1,
        |row| row.complete = false,
        |row| row.settled = false,
        |row| row.visits = 1,
        |row| row.visits = 0,
        |row| row.run_id = run(1),
        |row| row.run_id = run(7),
        |row| row.record.decided_at = Some(created_at().minus(Duration::from_secs(1))),
    ];
    let story = archived();
    for (number, change) in changes.into_iter().enumerate() {
        assert!(story.changed(|it| change(&mut it.row)).errors() > 0, "change {number}");
    }
    for move_time in [Timestamp::plus, Timestamp::minus] {
        let times: [fn(&mut SessionRow) -> &mut Timestamp; 3] = [
            |row| row.upstream_created_at.as_mut().unwrap(),
            |row| row.deadline_at.as_mut().unwrap(),
            |row| &mut row.last_visited_at,
        ];
        for (number, time) in times.into_iter().enumerate() {
            let moved = story.changed(|it| {
                let time = time(&mut it.row);
                *time = move_time(*time, later);
            });
            assert!(moved.errors() > 0, "time {number}");
        }
    }
}

#[test]
fn one_legal_state_in_place_of_another_is_an_error() {
    let mut story = Story::default();
    story.visit(&VisitMade::of("failed", Some("veriff.unavailable"), None));
    story.visit(&VisitMade::of("failed", Some("media.missing"), None));
    assert_eq!(story.differences(), []);
    let states = State::ALL.into_iter().flat_map(|state| {
        [None, Some("media.missing"), Some("veriff.unavailable"), Some("run.stopped")].map(|code| (state, code))
    });
    for (state, code) in states {
        let changed = story.changed(|it| {
            (it.row.state, it.row.code) = (state, code.map(str::to_owned));
            it.in_backlog = false;
        });
        // An acceptance is only known by the ledger, with the code of any visit.
        let is_legal = match state {
            State::Failed => code == Some("media.missing"),
            State::Accepted => code != Some("run.stopped"),
            _ => false,
        };
        assert_eq!(changed.errors() == 0, is_legal, "{state} {code:?}");
    }
}

#[test]
fn a_reason_outlives_its_state_only_if_it_was_archived_after_all() {
    let reason = |it: &mut SurveyedSession| it.row.accepted_reason = Some("lost".to_owned());
    assert_eq!(archived().changed(reason).errors(), 0, "it failed before, so it may have been accepted");
    let mut story = Story::default();
    story.visit(&VisitMade::of("archived", None, Some(1)));
    assert!(story.changed(reason).errors() > 0, "nobody can have accepted it");
    story.visit(&VisitMade::of("failed", Some("media.missing"), Some(1)));
    assert!(story.changed(reason).errors() > 0, "nobody can have accepted it before it was archived");
}

#[test]
fn a_row_that_was_put_back_to_an_earlier_visit_is_an_error() {
    let mut story = archived();
    let before = story.surveyed.clone();
    story.visit(&VisitMade { settled: true, ..VisitMade::of("unchanged", None, Some(2)) });
    story.surveyed = before;
    assert!(story.errors() > 0);
}

#[test]
fn what_no_closed_record_tells_is_passed_over() {
    let story = archived();
    let ended = |run| story.word_of(run);
    assert!(!ended(RunStanding::Unread).is_reported);
    assert_eq!(ended(RunStanding::Unknown).differences.len(), 1);
    let mut open = story.clone();
    open.visit(&VisitMade { is_recorded: false, ..VisitMade::of("failed", Some("veriff.unavailable"), None) });
    assert_eq!(open.word(), Word::default());
    let moved = open.changed(|it| it.row.last_visited_at = at(0));
    assert!(moved.errors() > 0, "a closed record tells of a later visit");
}

#[test]
fn lines_of_earlier_versions_tell_no_times() {
    let mut story = archived();
    for line in &mut story.lines {
        (line.closes, line.deadline_at, line.upstream_created_at) = (None, None, None);
    }
    let word = story.word();
    assert_eq!(word.differences, []);
    assert!(word.is_reported && !word.tells(ReportedColumn::Settled) && !word.tells(ReportedColumn::DeadlineAt));
    assert!(story.changed(|it| it.row.state = State::Pending).errors() > 0, "but they tell the state");
}

#[test]
fn a_row_that_was_made_anew_knows_nothing_of_lines_before() {
    // Of a manifest, by a rebuild: lines of runs that were taken over from the store tell nothing.
    let mut rebuilt = archived();
    for line in &mut rebuilt.lines {
        line.is_adopted = true;
    }
    rebuilt.written = vec![(2, at(150))];
    let row = &mut rebuilt.surveyed.as_mut().unwrap().row;
    (row.first_visited_at, row.last_visited_at, row.visits, row.settled) = (at(150), at(150), 1, false);
    assert_eq!(rebuilt.differences(), []);
    rebuilt.visit(&VisitMade::of("failed", Some("veriff.unavailable"), None));
    assert_eq!(rebuilt.differences(), []);
    // By an addition, after it was lost.
    let mut added = archived();
    added.surveyed = None;
    added.add(created_at());
    assert_eq!(added.differences(), []);
    added.visit(&VisitMade { settled: true, ..VisitMade::of("unchanged", None, Some(2)) });
    assert_eq!(added.differences(), []);
}

#[test]
fn an_addition_may_bring_the_deadline_forward_and_not_back() {
    let mut story = archived();
    story.add(created_at().minus(Duration::from_hours(24)));
    assert_eq!(story.differences(), []);
    let late = story.changed(|it| it.row.deadline_at = Some(created_at().plus(HORIZON)));
    assert_eq!(late.errors(), 1);
    let earlier = story.changed(|it| it.row.deadline_at = Some(created_at()));
    assert_eq!(earlier.errors(), 0);
    assert_eq!(earlier.differences().len(), 1, "two additions may have reported it");
    let unreported = story.changed(|it| it.row.record.decided_at = None);
    assert_eq!(unreported.errors(), 1);
}
