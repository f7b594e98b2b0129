//! Signed: what the ledger says of a session against the lines of run records that say what it was given. Pure.
//!
//! The line of the last visit tells state, code, times and what was said of the manifest. After it only a person changes a
//! row, by `backlog retry`, `accept` or `add`; what these may change is allowed for. A row that `ledger rebuild` made of a
//! manifest says what that says. What no closed record tells is passed over, and counted.

use std::collections::BTreeSet;
use std::time::Duration;

use super::lines::{ReportedLine, RunStanding};
use super::words::{OTHER_HORIZON, OTHER_RECORD, text_of};
use crate::audit::Severity;
use crate::clock::Timestamp;
use crate::ledger::{SessionRow, State, SurveyedSession};
use crate::model::manifest::Manifest;

/// How much the clocks of two workers may differ.
const CLOCK_ALLOWANCE: Duration = Duration::from_mins(2);

/// How long a run that is not closed may have tried to commit what it had timed already.
const COMMIT_ALLOWANCE: Duration = Duration::from_hours(1);

/// A time that a line tells.
type Time = fn(&ReportedLine) -> Option<Timestamp>;

/// How bad, what should be, and what is.
pub(super) type Difference = (Severity, String, String);

/// What is reported of a session beside its row.
#[derive(Debug, Clone, Copy)]
pub(super) struct RowContext<'a> {
    /// The lines of closed records, the earliest first.
    pub(super) lines: &'a [ReportedLine],
    /// What became of the run of the last visit.
    pub(super) run: RunStanding,
    /// The newest manifest.
    pub(super) newest: Option<&'a Manifest>,
    /// The number of each manifest that can be read, and when it was written.
    pub(super) written: &'a [(u32, Timestamp)],
    /// How long Veriff keeps media, if that is configured.
    pub(super) horizon: Option<Duration>,
}

/// A column that a newer line may tell otherwise than the newest manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ReportedColumn {
    /// `integration`.
    Integration,
    /// `settled`.
    Settled,
    /// `upstream_created_at`.
    CreatedAt,
    /// `decided_at`.
    DecidedAt,
    /// `deadline_at`.
    DeadlineAt,
}

/// What the lines say of a row.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Word {
    /// Something tells of the last visit, or there was none.
    pub(super) is_reported: bool,
    /// The columns that were held against it.
    tells: BTreeSet<ReportedColumn>,
    /// How the row differs from it.
    pub(super) differences: Vec<Difference>,
}

impl Word {
    /// Tells whether a column was held against the lines, so that the manifest need not say the same.
    pub(super) fn tells(&self, column: ReportedColumn) -> bool {
        self.tells.contains(&column)
    }
}

/// Holds a row against the lines of its session.
pub(super) fn compare(surveyed: &SurveyedSession, known: RowContext<'_>) -> Word {
    let row = &surveyed.row;
    let held = RowCheck::of(surveyed, known);
    if row.visits == 0 {
        return held.never_visited();
    }
    let sequence = row.manifest.as_ref().map(|manifest| manifest.sequence);
    let is_rebuilt = known.written.iter().any(|(number, at)| Some(*number) == sequence && *at == row.last_visited_at);
    let line = known.lines.iter().filter(|line| line.run_id == row.run_id).max_by_key(|line| line.number);
    match (known.run, line) {
        (RunStanding::Read { closed_at }, Some(line)) if line.committed_at == row.last_visited_at => {
            let word = held.reported(line, closed_at);
            if is_rebuilt && !word.differences.is_empty() { RowCheck::of(surveyed, known).rebuilt() } else { word }
        }
        _ if is_rebuilt => held.rebuilt(),
        (RunStanding::Read { .. }, Some(line)) => {
            let expected = format!("last_visited_at {}{}", line.committed_at, says(line));
            held.refused(expected, row.last_visited_at.to_string())
        }
        (RunStanding::Read { .. }, None) => {
            held.refused(format!("a line in the record of run {}", row.run_id), "none".to_owned())
        }
        (RunStanding::Unknown, _) => {
            held.refused("a run that the ledger knows".to_owned(), format!("run {}", row.run_id))
        }
        (RunStanding::Unread, _) => Word::default(),
        (RunStanding::Open, _) => held.open(),
    }
}

/// One row and all that is known of it.
struct RowCheck<'a> {
    surveyed: &'a SurveyedSession,
    row: &'a SessionRow,
    known: RowContext<'a>,
    /// The lines that this ledger took itself since the row is there, the earliest first.
    own: Vec<&'a ReportedLine>,
    /// A rebuild made the row anew.
    is_remade: bool,
    /// There was no visit but those that the own lines tell of.
    is_whole: bool,
    word: Word,
}

impl<'a> RowCheck<'a> {
    fn of(surveyed: &'a SurveyedSession, known: RowContext<'a>) -> Self {
        let row = &surveyed.row;
        let is_own = |line: &&ReportedLine| !line.is_adopted && line.committed_at >= row.first_visited_at;
        let own: Vec<&ReportedLine> = known.lines.iter().filter(is_own).collect();
        let is_remade = known.written.iter().any(|(_, at)| *at == row.first_visited_at);
        let is_whole = !is_remade && row.visits == own.len() as u64;
        Self { surveyed, row, known, own, is_remade, is_whole, word: Word { is_reported: true, ..Word::default() } }
    }

    fn differs(&mut self, severity: Severity, expected: String, found: &dyn ToString) {
        self.word.differences.push((severity, expected, found.to_string()));
    }

    fn error(&mut self, expected: String, found: &dyn ToString) {
        self.differs(Severity::Error, expected, found);
    }

    fn refused(mut self, expected: String, found: String) -> Word {
        self.word.differences.push((Severity::Error, expected, found));
        self.word
    }

    /// Of what was added and never visited nothing was reported.
    fn never_visited(mut self) -> Word {
        if let Some(line) = self.own.last() {
            self.error(format!("a visit{}", says(line)), &"none");
        }
        self.no_later_than_decided(Severity::Warn);
        self.word
    }

    /// The run of the last visit is not closed yet: then no other can have come after it.
    fn open(mut self) -> Word {
        let at = self.row.last_visited_at;
        let is_later = |line: &&&ReportedLine| line.committed_at == at || line.committed_at > at.plus(COMMIT_ALLOWANCE);
        match self.own.last().filter(is_later) {
            Some(line) => {
                let expected = format!("the visit of run {} at {}, as its record says", line.run_id, line.committed_at);
                self.error(expected, &format!("run {} at {at}", self.row.run_id));
                self.word
            }
            None => Word::default(),
        }
    }

    /// Says what a rebuild takes from the newest manifest.
    fn rebuilt(mut self) -> Word {
        let row = self.row;
        let sequence = row.manifest.as_ref().map(|manifest| manifest.sequence);
        let Some(newest) = self.known.newest.filter(|newest| Some(newest.sequence) == sequence) else {
            return self.word;
        };
        let (state, code) = State::of(newest);
        let code = code.map(crate::error::Code::as_str);
        let is_legal = match row.state {
            State::Archived | State::Absent | State::Failed => row.state == state && row.code.as_deref() == code,
            // What was accepted before keeps its code.
            State::Accepted => state != State::Archived,
            State::Pending => self.is_opened() && state != State::Archived,
        };
        if !is_legal {
            let expected = format!("{state} and {}, as the manifest says", code_text(code));
            self.error(expected, &state_text(row));
        }
        if row.settled != newest.settled {
            self.error(format!("settled {}, as the manifest says", newest.settled), &row.settled);
        }
        self.word.tells.insert(ReportedColumn::Settled);
        self.word
    }

    fn reported(mut self, line: &ReportedLine, closed_at: Timestamp) -> Word {
        let row = self.row;
        if !self.is_remade && row.visits < self.own.len() as u64 {
            self.error(format!("at least {} visits, as the records of runs say", self.own.len()), &row.visits);
        }
        let is_later = |it: &&&ReportedLine| {
            it.run_id != line.run_id && it.committed_at > closed_at.max(line.committed_at).plus(CLOCK_ALLOWANCE)
        };
        if let Some(later) = self.own.last().filter(is_later) {
            let expected = format!("last_visited_at {}{}", later.committed_at, says(later));
            self.error(expected, &row.last_visited_at);
        }
        if row.integration != line.integration {
            self.error(format!("integration {}{}", line.integration, says(line)), &row.integration);
        }
        self.word.tells.insert(ReportedColumn::Integration);
        self.state(line);
        self.manifest(line);
        self.times(line);
        self.word
    }

    /// A person has opened it again, and nobody has visited it since.
    fn is_opened(&self) -> bool {
        self.row.state == State::Pending && self.row.code.is_none() && self.surveyed.in_backlog
    }

    /// A person has accepted it: it keeps the code of some visit, or has none if it was opened before.
    fn is_accepted(&self, line: &ReportedLine) -> bool {
        let code = &self.row.code;
        let is_reported = !self.is_whole || *code == line.code || self.own.iter().any(|it| it.code == *code);
        self.row.state == State::Accepted && (code.is_none() || is_reported)
    }

    fn state(&mut self, line: &ReportedLine) {
        let row = self.row;
        // A later version may know more.
        let Some(asked) = asked(line) else { return };
        let sequence = row.manifest.as_ref().map(|manifest| manifest.sequence);
        // Then it came from a slower worker, and what stood stayed.
        let is_behind = line.sequence < sequence
            && match asked {
                State::Archived | State::Absent => true,
                State::Pending => line.sequence.is_some(),
                State::Failed | State::Accepted => false,
            };
        let before = |state: State| {
            !self.is_whole
                || self.own.iter().any(|it| *it != line && self::asked(it) == Some(state) && it.code == row.code)
        };
        let is_kept = is_behind && before(row.state)
            || row.state == State::Archived
                && matches!(asked, State::Absent | State::Pending)
                && before(State::Archived);
        let is_as_reported = !is_behind && row.state == asked && row.code == line.code;
        // What is archived is for nobody to open or to accept.
        let is_of_person = (asked != State::Archived || is_behind) && (self.is_opened() || self.is_accepted(line));
        if !(is_as_reported || is_kept || is_of_person) {
            let expected = format!("{asked} and {}{}", code_text(line.code.as_deref()), says(line));
            self.error(expected, &state_text(row));
        }
        if row.accepted_reason.is_some() && row.state != State::Accepted && !self.may_outlive_acceptance() {
            self.error(
                "no accepted_reason, because it was never accepted and archived after all".to_owned(),
                &row.state,
            );
        }
    }

    /// Tells whether it may have been accepted once, and archived after all: only then a reason outlives its state.
    fn may_outlive_acceptance(&self) -> bool {
        let is_archived = |line: &&ReportedLine| asked(line) == Some(State::Archived);
        let Some(last) = self.own.iter().rposition(is_archived) else { return !self.is_whole };
        let was_added = self.own.first().is_some_and(|first| self.row.first_visited_at < first.committed_at);
        !self.is_whole || was_added || !self.own[..last].iter().all(is_archived)
    }

    fn manifest(&mut self, line: &ReportedLine) {
        let row = self.row;
        let sequence = row.manifest.as_ref().map(|manifest| manifest.sequence);
        let highest = self.own.iter().copied().chain([line]).max_by_key(|it| it.sequence);
        if let Some(highest) = highest.filter(|highest| highest.sequence > sequence) {
            let number = |sequence: Option<u32>| sequence.map_or_else(|| "none".to_owned(), |it| it.to_string());
            self.error(format!("manifest_sequence {}{}", number(highest.sequence), says(highest)), &number(sequence));
            return;
        }
        let is_of_row = |it: &&ReportedLine| it.sequence.is_some() && it.sequence == sequence;
        let by_earlier = || self.own.iter().rev().copied().find(is_of_row).filter(|_| self.is_whole);
        let reported = Some(line).filter(is_of_row).or_else(by_earlier);
        let Some((reported, (complete, settled))) = reported.and_then(|it| Some((it, it.closes?))) else { return };
        if row.complete != complete {
            self.error(format!("complete {complete}{}", says(reported)), &row.complete);
        }
        if row.settled != settled {
            self.error(format!("settled {settled}{}", says(reported)), &row.settled);
        }
        self.word.tells.insert(ReportedColumn::Settled);
    }

    /// Tells whether it is known what was reported last of a time.
    fn knows(&self, line: &ReportedLine, time: Time) -> bool {
        time(line).is_some() || self.is_whole && self.own.iter().all(|it| it.closes.is_some())
    }

    /// Returns what was reported last of a time: by this line, or by the newest before it.
    fn last_reported(&self, line: &ReportedLine, time: Time) -> Option<Timestamp> {
        time(line).or_else(|| self.own.iter().rev().find_map(|it| time(it)))
    }

    fn times(&mut self, line: &ReportedLine) {
        let (created, decided, due): (Time, Time, Time) =
            (|line| line.upstream_created_at, |line| line.decided_at, |line| line.deadline_at);
        if self.knows(line, created) {
            self.word.tells.insert(ReportedColumn::CreatedAt);
            let (at, reported) = (self.row.upstream_created_at, self.last_reported(line, created));
            if at != reported {
                self.error(format!("upstream_created_at {}{}", text_of(reported), says(line)), &text_of(at));
            }
        }
        if self.knows(line, decided) {
            self.word.tells.insert(ReportedColumn::DecidedAt);
            let (at, reported) = (self.row.record.decided_at, self.last_reported(line, decided));
            if at.is_none() && reported.is_some() {
                self.error(format!("decided_at {}{}", text_of(reported), says(line)), &"nothing");
            } else if at != reported {
                // An addition to the backlog reported it, and with it when it is due at the latest.
                let is_sure = self.row.deadline_at.is_none() || self.is_horizon_known(line);
                let severity = if is_sure { Severity::Error } else { Severity::Warn };
                self.no_later_than_decided(severity);
            }
        }
        if self.knows(line, due) {
            self.word.tells.insert(ReportedColumn::DeadlineAt);
            self.deadline(line, self.last_reported(line, due));
        }
    }

    /// Tells whether the horizon with which the deadline was reported last is the one that is configured.
    fn is_horizon_known(&self, line: &ReportedLine) -> bool {
        let is_due = |it: &&ReportedLine| it.deadline_at.is_some();
        let reported = Some(line).filter(is_due).or_else(|| self.own.iter().rev().copied().find(is_due));
        reported.is_some_and(|reported| {
            let known = reported.upstream_created_at.into_iter().chain(reported.decided_at).min();
            reported.deadline_at == known.zip(self.known.horizon).map(|(known, horizon)| known.plus(horizon))
        })
    }

    fn due_as_decided(&self) -> Option<Timestamp> {
        Some(self.row.record.decided_at?.plus(self.known.horizon?))
    }

    fn no_later_than_decided(&mut self, severity: Severity) {
        let at = self.row.deadline_at;
        let Some(due_at) = self.due_as_decided().filter(|due_at| at.is_none_or(|at| at > *due_at)) else { return };
        let or = if severity == Severity::Error { "" } else { OTHER_HORIZON };
        self.differs(severity, format!("deadline_at {due_at} at the latest, as decided_at says{or}"), &text_of(at));
    }

    /// An addition to the backlog may have brought the deadline forward, to what its record says.
    fn deadline(&mut self, line: &ReportedLine, reported: Option<Timestamp>) {
        let at = self.row.deadline_at;
        if at == reported {
            return;
        }
        let is_earlier = at.is_some_and(|at| reported.is_none_or(|reported| at < reported));
        let is_by_record = is_earlier && self.row.record.decided_at.is_some();
        if is_by_record && self.due_as_decided().is_none_or(|due_at| Some(due_at) == at) {
            return;
        }
        let (severity, or) = if is_by_record { (Severity::Warn, OTHER_RECORD) } else { (Severity::Error, "") };
        self.differs(severity, format!("deadline_at {}{}{or}", text_of(reported), says(line)), &text_of(at));
    }
}

/// Returns the state that the ledger was asked for; nothing if the line is of a version that knows more.
fn asked(line: &ReportedLine) -> Option<State> {
    match line.outcome.as_str() {
        "archived" | "unchanged" => Some(State::Archived),
        "absent" => Some(State::Absent),
        "failed" => Some(State::Failed),
        "pending" => Some(State::Pending),
        _ => None,
    }
}

fn says(line: &ReportedLine) -> String {
    format!(", as the record of run {} says", line.run_id)
}

fn state_text(row: &SessionRow) -> String {
    format!("{} and {}", row.state, code_text(row.code.as_deref()))
}

fn code_text(code: Option<&str>) -> String {
    code.map_or_else(|| "no code".to_owned(), |code| format!("code {code}"))
}

#[cfg(test)]
mod tests;
