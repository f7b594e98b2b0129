//! Compare: what the ledger says of a session against what its newest manifest says. Pure.
//!
//! Only what both can know is compared. What a later visit may have learnt without a new manifest (a session that settled,
//! a failure since) is no contradiction, and what only the ledger knows is in docs/ledger.md, Rebuilding.

use std::collections::BTreeMap;

use crate::audit::evidence::{Evidence, ManifestFacts};
use crate::audit::{Finding, FindingCode, Severity};
use crate::ledger::{MediaRow, State, SurveyedSession};
use crate::model::MediaId;
use crate::model::manifest::Manifest;

/// What repairs a ledger.
pub(super) const REBUILD: &str = "veriff-archive ledger rebuild";

/// What finds out which of the two is right.
const FIXITY: &str = "veriff-archive audit fixity and audit chain --manifests tell which is right; if it is the store, \
                      restore the ledger from a copy, or make a new one by veriff-archive ledger rebuild";

/// Holds what the ledger says against the newest manifest.
pub(super) fn compare(surveyed: &SurveyedSession, evidence: &Evidence, newest: &Manifest) -> Vec<Finding> {
    let row = &surveyed.row;
    let Some(facts) = evidence.manifests.last() else { return Vec::new() };
    let Some(known) = &row.manifest else {
        return vec![behind(surveyed, evidence, facts, "no manifest")];
    };
    if known.sequence < facts.sequence {
        return vec![behind(surveyed, evidence, facts, known.key.as_str())];
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
    differs("integration", newest.integration.clone(), row.integration.clone());
    differs("complete", newest.complete.to_string(), row.complete.to_string());
    // A manifest is not written again merely because time has passed.
    let settled = newest.settled || (row.settled && is_final(newest));
    differs("settled", settled.to_string(), row.settled.to_string());
    if let Some(decided_at) = newest.decided_at {
        let told = row.record.decided_at.map_or_else(|| "nothing".to_owned(), |at| at.to_string());
        if told == "nothing" && row.upstream_created_at.is_none() {
            differs("decided_at", decided_at.to_string(), told);
        }
    }
    let state = state_of(newest, row.state);
    differs("state", state.as_str().to_owned(), row.state.as_str().to_owned());
    differs("media", newest.totals.media.to_string(), row.media.to_string());
    differs("bytes", newest.totals.bytes.to_string(), row.bytes.to_string());
    found.extend(media(surveyed, evidence, newest));
    found
}

/// Tells of a session of which the store has more than the ledger knows.
fn behind(surveyed: &SurveyedSession, evidence: &Evidence, facts: &ManifestFacts, known: &str) -> Finding {
    // A run that died between its manifest and its commit left it so, and the next visit mends it.
    let is_open = matches!(surveyed.row.state, State::Pending | State::Failed);
    let severity = if is_open { Severity::Warn } else { Severity::Error };
    let repair = format!("run the session again, or {REBUILD}");
    evidence
        .finding(severity, FindingCode::LedgerBehind, &facts.version.key, facts.version.version_id.as_deref(), &repair)
        .differs(&facts.version.key, known)
}

/// Tells whether the newest attempt has a status after which nothing more happens.
fn is_final(manifest: &Manifest) -> bool {
    let newest = manifest.attempts.iter().rfind(|attempt| !attempt.attempt_id.is_session());
    newest.and_then(|attempt| attempt.status.as_deref()).is_some_and(crate::model::is_final_status)
}

/// Returns the state that agrees with a manifest: the one that stands, if it can be.
fn state_of(newest: &Manifest, state: State) -> State {
    let can_be = match state {
        State::Archived => newest.absent.is_none() && newest.complete,
        State::Absent => newest.absent.is_some(),
        // A later visit may have failed, or not have ended yet; a person may have closed it.
        _ => true,
    };
    match (can_be, newest.absent) {
        (true, _) => state,
        (false, Some(_)) => State::Absent,
        (false, None) if newest.complete => State::Archived,
        (false, None) => State::Failed,
    }
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
