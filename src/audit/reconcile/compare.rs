//! Compare: what the ledger says of a session against what its newest manifest says. Pure.
//!
//! Only what both can know is compared. What a later visit may have learnt without a new manifest (a session that settled,
//! a failure since) is no contradiction, and what only the ledger knows is in docs/ledger.md, Rebuilding.

use std::collections::BTreeMap;
use std::time::Duration;

use super::signed::{ReportedColumn, Word};
use super::words::{FIXITY, LOOK, OTHER_HORIZON, OTHER_RECORD, REBUILD, UNTIMED, text_of};
use crate::audit::evidence::Evidence;
use crate::audit::{Finding, FindingCode, Severity};
use crate::clock::Timestamp;
use crate::ledger::{MediaRow, State, SurveyedSession};
use crate::model::MediaId;
use crate::model::manifest::Manifest;
use crate::store::ListedVersion;

/// Holds what the ledger says against the newest manifest. `horizons` tells how long Veriff keeps media, by integration. What
/// `word` says of times and of what settled since is left to that.
pub(super) fn compare(
    surveyed: &SurveyedSession,
    evidence: &Evidence,
    newest: &Manifest,
    horizons: &BTreeMap<String, Duration>,
    word: &Word,
) -> Vec<Finding> {
    let row = &surveyed.row;
    let Some(facts) = evidence.manifests.last() else { return Vec::new() };
    let Some(known) = &row.manifest else {
        return vec![behind(surveyed, evidence, &facts.version, "no manifest")];
    };
    if known.sequence < facts.sequence {
        return vec![behind(surveyed, evidence, &facts.version, known.key.as_str())];
    }
    let mut found = Vec::new();
    let mut differs = |column: &str, store: String, ledger: String| {
        if store != ledger {
            let finding =
                evidence.finding(Severity::Error, FindingCode::LedgerContradicts, &facts.version.key, None, FIXITY);
            found.push(finding.differs(format!("{column} {store}, as the manifest says"), ledger));
        }
    };
    differs("manifest_key", facts.version.key.to_string(), known.key.to_string());
    differs("manifest_sequence", facts.sequence.to_string(), known.sequence.to_string());
    let version = |id: &Option<String>| id.clone().unwrap_or_else(|| "null".to_owned());
    differs("manifest_version_id", version(&facts.version.version_id), version(&known.version_id));
    differs("manifest_sha256", facts.sha256.to_string(), known.sha256.to_string());
    if !word.tells(ReportedColumn::Integration) {
        differs("integration", newest.integration.clone(), row.integration.clone());
    }
    differs("complete", newest.complete.to_string(), row.complete.to_string());
    if !word.tells(ReportedColumn::Settled) {
        // A manifest is not written again merely because time has passed.
        let settled = newest.settled || (row.settled && is_final(newest));
        differs("settled", settled.to_string(), row.settled.to_string());
    }
    let state = state_of(newest, row.state, evidence.is_expired());
    differs("state", state.as_str().to_owned(), row.state.as_str().to_owned());
    differs("media", newest.totals.media.to_string(), row.media.to_string());
    differs("bytes", newest.totals.bytes.to_string(), row.bytes.to_string());
    found.extend(times(surveyed, evidence, newest, horizons, word));
    found.extend(media(surveyed, evidence, newest));
    found
}

/// Tells of a session of which the store has more than the ledger knows.
pub(super) fn behind(surveyed: &SurveyedSession, evidence: &Evidence, newest: &ListedVersion, known: &str) -> Finding {
    // A run that died between its manifest and its commit left it so, and the next visit mends it.
    let is_open = matches!(surveyed.row.state, State::Pending | State::Failed);
    let severity = if is_open { Severity::Warn } else { Severity::Error };
    let repair = format!("run the session again, or {REBUILD}");
    evidence
        .finding(severity, FindingCode::LedgerBehind, &newest.key, newest.version_id.as_deref(), &repair)
        .differs(&newest.key, known)
}

/// Tells whether the newest attempt has a status after which nothing more happens.
fn is_final(manifest: &Manifest) -> bool {
    let newest = manifest.attempts.iter().rfind(|attempt| !attempt.attempt_id.is_session());
    newest.and_then(|attempt| attempt.status.as_deref()).is_some_and(crate::model::is_final_status)
}

/// Returns the state that agrees with a manifest: the one that stands, if it can be. A later visit may have failed, or
/// not have ended yet, a person may have closed it, and of what was expired by plan nothing more is asked.
fn state_of(newest: &Manifest, state: State, is_expired: bool) -> State {
    let can_be = match state {
        State::Archived => newest.absent.is_none() || is_expired,
        State::Absent => newest.absent.is_some(),
        _ => true,
    };
    if can_be { state } else { State::of(newest).0 }
}

/// Compares the times that a manifest tells, and the deadline that follows from them.
///
/// A later visit may have told other times without a new manifest, and a deadline was computed with the horizon of its day:
/// what may be so is a warning that says why.
fn times(
    surveyed: &SurveyedSession,
    evidence: &Evidence,
    newest: &Manifest,
    horizons: &BTreeMap<String, Duration>,
    word: &Word,
) -> Vec<Finding> {
    let row = &surveyed.row;
    let horizon = horizons.get(&row.integration).copied();
    let mut found = Vec::new();
    let mut tell = |severity, expected: String, at: Option<Timestamp>| {
        let repair = if severity == Severity::Error { FIXITY } else { LOOK };
        let finding = Finding::of(severity, FindingCode::LedgerContradicts, repair).session(&evidence.session_id);
        found.push(finding.differs(expected, text_of(at)));
    };
    let (created_at, told_at) = (newest.created_at(), row.upstream_created_at);
    // Veriff may tell the time of an attempt later than the attempt, which is no reason for a new manifest.
    let is_timed =
        newest.attempts.iter().all(|attempt| attempt.attempt_id.is_session() || attempt.created_at.is_some());
    if created_at != told_at && !word.tells(ReportedColumn::CreatedAt) {
        let is_later = created_at.is_some_and(|created_at| told_at.is_none_or(|told_at| told_at > created_at));
        let (severity, or) = if is_timed || is_later { (Severity::Error, "") } else { (Severity::Warn, UNTIMED) };
        tell(severity, format!("upstream_created_at {}, as the manifest says{or}", text_of(created_at)), told_at);
    }
    let decided_at = row.record.decided_at;
    if newest.decided_at != decided_at && !word.tells(ReportedColumn::DecidedAt) {
        let expected = format!("decided_at {}, as the manifest says", text_of(newest.decided_at));
        match decided_at {
            None => tell(Severity::Error, expected, None),
            // Another record or an addition to the backlog told it, and with it when it is due at the latest.
            Some(at)
                if horizon.is_some_and(|horizon| row.deadline_at.is_none_or(|due_at| due_at > at.plus(horizon))) =>
            {
                tell(Severity::Warn, format!("{expected}{OTHER_RECORD}"), decided_at);
            }
            Some(_) => {}
        }
    }
    if let Some(horizon) = horizon.filter(|_| !word.tells(ReportedColumn::DeadlineAt)) {
        let due = |decided_at: &[Option<Timestamp>]| {
            let known = told_at.into_iter().chain(decided_at.iter().copied().flatten()).min();
            known.map(|known| known.plus(horizon))
        };
        let due_at = due(&[decided_at, newest.decided_at]);
        let of_record = decided_at.map(|decided_at| decided_at.plus(horizon));
        let may_be = [due_at, due(&[]), due(&[decided_at]), due(&[newest.decided_at]), of_record];
        if !may_be.contains(&row.deadline_at) {
            let expected = format!("deadline_at {}, as the times and the horizon say{OTHER_HORIZON}", text_of(due_at));
            tell(Severity::Warn, expected, row.deadline_at);
        }
    }
    found
}

/// Compares the items one by one.
fn media(surveyed: &SurveyedSession, evidence: &Evidence, newest: &Manifest) -> Vec<Finding> {
    let mut left: BTreeMap<&MediaId, &MediaRow> = surveyed.media.iter().map(|media| (&media.media_id, media)).collect();
    let mut found = Vec::new();
    for named in MediaRow::all_of(newest) {
        let told = left.remove(&named.media_id);
        if told != Some(&named) {
            let finding = evidence.finding(
                Severity::Error,
                FindingCode::LedgerContradicts,
                &named.key,
                named.version_id.as_deref(),
                FIXITY,
            );
            let told = told.map_or_else(|| "no such item".to_owned(), text);
            found.push(finding.differs(format!("{}, as the manifest says", text(&named)), told));
        }
    }
    for extra in left.into_values() {
        let finding = evidence.finding(
            Severity::Error,
            FindingCode::LedgerContradicts,
            &extra.key,
            extra.version_id.as_deref(),
            FIXITY,
        );
        found.push(finding.differs("no such item, as the manifest says", text(extra)));
    }
    found
}

fn text(media: &MediaRow) -> String {
    let MediaRow { media_id, attempt_id, kind, key, version_id, size_bytes, sha256 } = media;
    let (kind, version) = (kind.as_str(), version_id.as_deref().unwrap_or("null"));
    format!(
        "{kind} {media_id} of attempt {attempt_id} at {key}, version {version}, {size_bytes} bytes, sha256 {sha256}"
    )
}
