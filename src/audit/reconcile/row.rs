//! Row: what a row of the ledger says by itself, compared with the moves that are legal. Pure.
//!
//! Every state comes about in one of a few ways, and each leaves its traces: a failure its code, an acceptance its reason,
//! a session that is opened again its place in the backlog. A row without them was not written by this program.

use std::time::Duration;

use crate::error::{Code, ErrorClass};
use crate::ledger::{State, SurveyedSession};
use crate::model::key::ObjectKey;

/// Codes of what a person should know of a session that is archived all the same.
const NOTES: [Code; 2] = [Code::StoreConflict, Code::RetentionDiffers];

/// Codes with which an integration stops while its sessions stay pending.
const STOPPING: [Code; 2] = [Code::VeriffUnauthorized, Code::VeriffAbsent];

/// How much the clocks of two workers, or of a worker and the store, may differ.
const CLOCK_ALLOWANCE: Duration = Duration::from_hours(24);

/// Lists what a row says that cannot be, by itself: what should be, and what is.
pub(super) fn contradictions(surveyed: &SurveyedSession) -> Vec<(String, String)> {
    let mut found = Vec::new();
    found.extend(of_state(surveyed));
    found.extend(of_traces(surveyed));
    found.extend(of_sums(surveyed));
    found
}

fn of_state(surveyed: &SurveyedSession) -> Option<(String, String)> {
    let row = &surveyed.row;
    let code = match row.code.as_deref().map(Code::parse) {
        Some(None) => {
            let told = row.code.clone().unwrap_or_default();
            return Some(("a known code".to_owned(), format!("code {told}")));
        }
        Some(code) => code,
        None => None,
    };
    let (holds, expected) = match row.state {
        State::Archived => (
            row.manifest.is_some() && code.is_none_or(|code| NOTES.contains(&code)),
            "a manifest and no code of a failure",
        ),
        State::Absent => {
            (row.manifest.is_some() && code == Some(Code::VeriffAbsent), "a manifest and the code veriff.absent")
        }
        State::Failed => (
            code.is_some_and(|code| !NOTES.contains(&code) && code.class() != ErrorClass::Fatal),
            "the code of a failure",
        ),
        State::Accepted => (
            row.accepted_reason.is_some() && code.is_none_or(|code| !NOTES.contains(&code)),
            "the reason that a person gave",
        ),
        State::Pending => match code {
            Some(code) => (
                code.class() != ErrorClass::Permanent || STOPPING.contains(&code),
                "a code after which a session is tried again",
            ),
            None => (surveyed.in_backlog, "a code, or a place in the backlog"),
        },
    };
    (!holds).then(|| {
        let code = row.code.as_deref().map_or_else(|| "no code".to_owned(), |code| format!("code {code}"));
        let backlog = if surveyed.in_backlog { "in the backlog" } else { "not in the backlog" };
        let manifest = if row.manifest.is_some() { "a manifest" } else { "no manifest" };
        (format!("with state {}, {expected}", row.state), format!("{code}, {manifest}, {backlog}"))
    })
}

/// What only a visit, or only a person, brings about.
fn of_traces(surveyed: &SurveyedSession) -> Vec<(String, String)> {
    let row = &surveyed.row;
    let mut found = Vec::new();
    let mut rule = |holds: bool, expected: &str, told: &str| {
        if !holds {
            found.push((expected.to_owned(), told.to_owned()));
        }
    };
    let is_visited = row.visits > 0;
    rule(is_visited || matches!(row.state, State::Pending | State::Accepted), "a visit", row.state.as_str());
    rule(is_visited || row.code.is_none(), "a visit", "a code without one");
    rule(is_visited || row.manifest.is_none(), "a visit", "a manifest without one");
    rule(is_visited || row.upstream_created_at.is_none(), "a visit", "upstream_created_at without one");
    let is_told = row.upstream_created_at.is_some() || row.record.decided_at.is_some();
    rule(is_visited || is_told || row.deadline_at.is_none(), "a time from which it counts", "deadline_at without one");
    rule(
        is_visited || row.first_visited_at == row.last_visited_at,
        "last_visited_at as first_visited_at, without a visit",
        "another time",
    );
    let is_in_order = row.first_visited_at <= row.last_visited_at.plus(CLOCK_ALLOWANCE);
    rule(is_in_order, "first_visited_at no later than last_visited_at", "a later one");
    // A reason outlives its state only where the session was archived after all.
    let may_have_reason = match row.state {
        State::Accepted | State::Archived => true,
        State::Failed | State::Absent => row.manifest.is_some(),
        State::Pending => false,
    };
    rule(may_have_reason || row.accepted_reason.is_none(), "no accepted_reason", row.state.as_str());
    rule(row.manifest.is_some() || !row.complete, "complete false without a manifest", "complete true");
    rule(row.manifest.is_some() || !row.settled, "settled false without a manifest", "settled true");
    if let Some(manifest) = &row.manifest {
        let key = ObjectKey::manifest(&row.record.session_id, manifest.sequence);
        rule(manifest.key == key, &format!("manifest_key {key}, as manifest_sequence says"), manifest.key.as_str());
    }
    found
}

/// What a row says of its items all together.
fn of_sums(surveyed: &SurveyedSession) -> Option<(String, String)> {
    let row = &surveyed.row;
    let text = |media: u64, bytes: u64| format!("{media} items, {bytes} bytes in all");
    let bytes = surveyed.media.iter().fold(0_u64, |sum, media| sum.saturating_add(media.size_bytes));
    let sum = text(surveyed.media.len() as u64, bytes);
    let told = text(row.media, row.bytes);
    if row.manifest.is_none() && !surveyed.media.is_empty() {
        return Some(("no items, because there is no manifest".to_owned(), sum));
    }
    (sum != told).then_some((sum, told))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::ledger::{ManifestRef, SessionRow};
    use crate::model::digest::Sha256Digest;
    use crate::model::request::SessionRequest;
    use crate::model::{RunId, SessionId};

    /// A row as a visit leaves it that archived nothing and everything.
    fn visited(state: State, code: Option<Code>, has_manifest: bool, in_backlog: bool) -> SurveyedSession {
        let session = SessionId::parse("2f0a4c1e-0000-4000-8000-000000000001").unwrap();
        let at = Timestamp::from_unix_seconds(1_780_000_000);
        let manifest = has_manifest.then(|| ManifestRef {
            key: ObjectKey::manifest(&session, 1),
            version_id: None,
            sequence: 1,
            sha256: Sha256Digest::of(b"a manifest"),
        });
        let row = SessionRow {
            record: SessionRequest::of(session),
            integration: "default".to_owned(),
            state,
            code: code.map(|code| code.as_str().to_owned()),
            message: None,
            upstream_created_at: None,
            deadline_at: None,
            manifest,
            complete: false,
            settled: false,
            media: 0,
            bytes: 0,
            visits: 1,
            run_id: RunId::new(at),
            first_visited_at: at,
            last_visited_at: at,
            accepted_reason: (state == State::Accepted).then(|| "lost".to_owned()),
        };
        SurveyedSession { row, media: Vec::new(), in_backlog }
    }

    fn is_legal(surveyed: &SurveyedSession) -> bool {
        contradictions(surveyed).is_empty()
    }

    #[test]
    fn each_state_needs_what_brings_it_about() {
        use State::{Absent, Accepted, Archived, Failed, Pending};
        let legal = [
            (Archived, None, true, false),
            (Archived, None, true, true),
            (Archived, Some(Code::StoreConflict), true, false),
            (Absent, Some(Code::VeriffAbsent), true, false),
            (Failed, Some(Code::MediaMissing), true, false),
            (Failed, Some(Code::VeriffUnavailable), false, true),
            (Accepted, Some(Code::MediaMissing), true, false),
            (Pending, None, true, true),
            (Pending, Some(Code::RunStopped), false, false),
            (Pending, Some(Code::VeriffAbsent), true, false),
            (Pending, Some(Code::StoreDenied), true, false),
        ];
        for (state, code, has_manifest, in_backlog) in legal {
            let row = visited(state, code, has_manifest, in_backlog);
            assert_eq!(contradictions(&row), [], "{state} {code:?}");
        }
        let illegal = [
            (Archived, None, false, false),
            (Archived, Some(Code::MediaMissing), true, false),
            (Absent, None, true, false),
            (Absent, Some(Code::VeriffAbsent), false, false),
            (Failed, None, true, false),
            (Failed, Some(Code::RetentionDiffers), true, false),
            (Failed, Some(Code::ConfigInvalid), true, false),
            (Accepted, Some(Code::StoreConflict), true, false),
            (Pending, None, true, false),
            (Pending, Some(Code::MediaMissing), true, true),
            (Pending, Some(Code::StoreConflict), true, true),
        ];
        for (state, code, has_manifest, in_backlog) in illegal {
            assert!(!is_legal(&visited(state, code, has_manifest, in_backlog)), "{state} {code:?}");
        }
    }

    #[test]
    fn what_was_never_visited_knows_nothing() {
        let waiting = || {
            let mut waiting = visited(State::Pending, None, false, true);
            waiting.row.visits = 0;
            waiting
        };
        assert!(is_legal(&waiting()));
        let mut closed = waiting();
        (closed.row.state, closed.row.accepted_reason) = (State::Accepted, Some("lost".to_owned()));
        assert!(is_legal(&closed));
        let changes: [fn(&mut SurveyedSession); 8] = [
            |it| it.row.last_visited_at = it.row.first_visited_at.plus(Duration::from_millis(1)),
            |it| it.row.state = State::Failed,
            |it| it.row.code = Some("run.stopped".to_owned()),
            |it| it.row.upstream_created_at = Some(it.row.first_visited_at),
            |it| it.row.deadline_at = Some(it.row.first_visited_at),
            |it| it.row.accepted_reason = Some("lost".to_owned()),
            |it| it.row.settled = true,
            |it| it.in_backlog = false,
        ];
        for (number, change) in changes.iter().enumerate() {
            let mut row = waiting();
            change(&mut row);
            assert!(!is_legal(&row), "change {number}");
        }
    }

    #[test]
    fn a_code_that_nobody_knows_and_sums_that_are_none_are_told() {
        let mut row = visited(State::Failed, Some(Code::MediaMissing), true, false);
        row.row.code = Some("media.gone".to_owned());
        assert!(!is_legal(&row));
        let mut row = visited(State::Archived, None, true, false);
        row.row.bytes = 1;
        assert!(!is_legal(&row));
        let mut row = visited(State::Archived, None, true, false);
        row.row.manifest.as_mut().unwrap().sequence = 2;
        assert!(!is_legal(&row));
        let mut row = visited(State::Archived, None, true, false);
        row.row.first_visited_at = row.row.last_visited_at.plus(Duration::from_hours(25));
        assert!(!is_legal(&row));
    }
}
