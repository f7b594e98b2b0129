//! Closing: what the next manifest of a session says, and whether there is anything new to say.
//!
//! Pure: unites what the newest manifest holds with what this visit found. Cumulative: nothing that an earlier manifest
//! holds is left out, also if Veriff no longer lists it, and a status never goes back from final. The same lists in
//! another order are nothing new.

use std::collections::HashSet;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::error::Code;
use crate::model::manifest::{ConflictItem, Manifest, ManifestAttempt, MissingItem};
use crate::model::{AttemptId, is_decided_status, is_final_status};
use crate::session::catalog::{Catalog, MediaItem};
use crate::session::item::Deposited;

/// An item that this visit could not archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// It as a manifest describes it.
    pub missing: MissingItem,
    /// Why.
    pub code: Code,
    /// The same for people.
    pub message: String,
}

/// What the next manifest would say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// The attempts with their media.
    pub attempts: Vec<ManifestAttempt>,
    /// What is missing.
    pub missing: Vec<MissingItem>,
    /// What is stored next to other bytes.
    pub conflicts: Vec<ConflictItem>,
    /// Nothing is missing and every list was read.
    pub complete: bool,
}

/// Unites the newest manifest with what this visit found.
#[must_use]
pub fn draft(before: Option<&Manifest>, catalog: &Catalog, deposited: Vec<Deposited>, failures: &[Failure]) -> Draft {
    let mut attempts = before.map(|manifest| manifest.attempts.clone()).unwrap_or_default();
    let mut conflicts = before.map(|manifest| manifest.conflicts.clone()).unwrap_or_default();
    for listed in &catalog.attempts {
        let known = entry(&mut attempts, &listed.attempt_id);
        known.created_at = known.created_at.or(listed.created_at);
        let was_final = known.status.as_deref().is_some_and(is_final_status);
        let is_final = listed.status.as_deref().is_some_and(is_final_status);
        if listed.status.is_some() && (is_final || !was_final) {
            known.status.clone_from(&listed.status);
        }
    }
    for item in deposited {
        for attempt in &mut attempts {
            attempt.media.retain(|media| media.media_id != item.media.media_id);
        }
        if let Some(conflict) = item.conflict
            && !conflicts.iter().any(|known| known.key == conflict.key)
        {
            conflicts.push(conflict);
        }
        entry(&mut attempts, &item.attempt_id).media.push(item.media);
    }
    attempts.sort_by(|a, b| {
        let order = |attempt: &ManifestAttempt| (attempt.attempt_id.is_session(), attempt.created_at);
        order(a).cmp(&order(b)).then_with(|| a.attempt_id.cmp(&b.attempt_id))
    });
    for attempt in &mut attempts {
        attempt.media.sort_by(|a, b| (a.kind, &a.media_id).cmp(&(b.kind, &b.media_id)));
    }
    let missing = missing(before, &attempts, failures);
    let complete = missing.is_empty() && catalog.gaps.is_empty();
    Draft { attempts, missing, conflicts, complete }
}

fn missing(before: Option<&Manifest>, attempts: &[ManifestAttempt], failures: &[Failure]) -> Vec<MissingItem> {
    let archived: HashSet<_> =
        attempts.iter().flat_map(|attempt| &attempt.media).map(|media| &media.media_id).collect();
    let failed: HashSet<_> = failures.iter().map(|failure| &failure.missing.media_id).collect();
    let old = before.map(|manifest| manifest.missing.as_slice()).unwrap_or_default();
    let mut missing: Vec<MissingItem> = old
        .iter()
        .filter(|item| !failed.contains(&item.media_id))
        .chain(failures.iter().map(|failure| &failure.missing))
        .filter(|item| !archived.contains(&item.media_id))
        .cloned()
        .collect();
    missing.sort_by(|a, b| (&a.attempt_id, &a.media_id).cmp(&(&b.attempt_id, &b.media_id)));
    missing
}

/// Returns whether a draft says anything that the newest manifest does not.
#[must_use]
pub fn is_new_evidence(before: Option<&Manifest>, draft: &Draft) -> bool {
    let Some(before) = before else { return true };
    let statuses = |attempts: &[ManifestAttempt]| {
        let mut statuses: Vec<_> =
            attempts.iter().map(|attempt| (attempt.attempt_id.clone(), attempt.status.clone())).collect();
        statuses.sort();
        statuses
    };
    let media = |attempts: &[ManifestAttempt]| {
        let mut media: Vec<_> = attempts
            .iter()
            .flat_map(|attempt| &attempt.media)
            .map(|media| (media.key.clone(), media.version_id.clone(), media.sha256))
            .collect();
        media.sort();
        media
    };
    let absences = |missing: &[MissingItem]| {
        let mut absences: Vec<_> = missing.iter().map(|item| (item.media_id.clone(), item.code.clone())).collect();
        absences.sort();
        absences
    };
    before.absent.is_some()
        || before.complete != draft.complete
        || before.conflicts.len() != draft.conflicts.len()
        || statuses(&before.attempts) != statuses(&draft.attempts)
        || media(&before.attempts) != media(&draft.attempts)
        || absences(&before.missing) != absences(&draft.missing)
}

/// Returns whether nothing more is expected of a session: its latest status is final, and this visit was late enough.
///
/// The waiting time is counted from the decision, else from the newest attempt, else from the first visit.
#[must_use]
pub fn is_settled(
    attempts: &[ManifestAttempt],
    decided_at: Option<Timestamp>,
    first_visit_at: Timestamp,
    now: Timestamp,
    settle_after: Duration,
) -> bool {
    let newest = attempts.iter().rfind(|attempt| !attempt.attempt_id.is_session());
    if !newest.and_then(|attempt| attempt.status.as_deref()).is_some_and(is_final_status) {
        return false;
    }
    let newest_at = attempts.iter().filter_map(|attempt| attempt.created_at).max();
    now >= decided_at.or(newest_at).unwrap_or(first_visit_at).plus(settle_after)
}

/// Returns whether a session that was decided on its media has none listed and none archived.
#[must_use]
pub fn is_empty_though_decided(catalog: &Catalog, draft: &Draft) -> bool {
    catalog.items.is_empty()
        && catalog.gaps.is_empty()
        && draft
            .attempts
            .iter()
            .all(|attempt| attempt.media.iter().all(|media| media.kind == crate::model::MediaKind::Record))
        && catalog.latest_status().is_some_and(is_decided_status)
}

/// Reports an item that could not be archived.
#[must_use]
pub fn failure(item: &MediaItem, code: Code, http_status: Option<u16>, message: String) -> Failure {
    let missing = MissingItem {
        media_id: item.media_id.clone(),
        attempt_id: item.attempt_id.clone(),
        code: code.as_str().to_owned(),
        http_status,
    };
    Failure { missing, code, message }
}

fn entry<'a>(attempts: &'a mut Vec<ManifestAttempt>, id: &AttemptId) -> &'a mut ManifestAttempt {
    let index = attempts.iter().position(|attempt| attempt.attempt_id == *id).unwrap_or_else(|| {
        attempts.push(ManifestAttempt { attempt_id: id.clone(), status: None, created_at: None, media: Vec::new() });
        attempts.len() - 1
    });
    &mut attempts[index]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::digest::{Checksum, Sha256Digest};
    use crate::model::key::ObjectKey;
    use crate::model::manifest::{MANIFEST_SCHEMA, ManifestMedia};
    use crate::model::{ArchiveId, MediaId, MediaKind, RunId, SessionId};
    use crate::session::catalog::CatalogAttempt;

    fn attempt(id: &str, status: Option<&str>, created_at: Option<&str>) -> CatalogAttempt {
        CatalogAttempt {
            attempt_id: AttemptId::parse(id).unwrap(),
            status: status.map(str::to_owned),
            created_at: created_at.map(|time| time.parse().unwrap()),
        }
    }

    fn deposited(attempt: &str, media: &str) -> Deposited {
        let sha256 = Sha256Digest::of(media.as_bytes());
        Deposited {
            attempt_id: AttemptId::parse(attempt).unwrap(),
            media: ManifestMedia {
                media_id: MediaId::parse(media).unwrap(),
                kind: MediaKind::Image,
                context: None,
                key: ObjectKey::from_store(format!("sessions/s/{attempt}/{media}.jpg")),
                version_id: None,
                size_bytes: 1,
                sha256,
                checksum: Checksum::full(sha256),
                sidecar_sha256: sha256,
                sidecar_version_id: None,
            },
            conflict: None,
            lock: None,
            anomalies: Vec::new(),
        }
    }

    fn manifest(draft: Draft) -> Manifest {
        Manifest {
            schema: MANIFEST_SCHEMA.into(),
            archive_id: ArchiveId::parse("a").unwrap(),
            session_id: SessionId::parse("s").unwrap(),
            integration: "default".into(),
            sequence: 1,
            previous: None,
            archived_at: Timestamp::from_unix_seconds(0),
            run_id: RunId::parse("r").unwrap(),
            decided_at: None,
            complete: draft.complete,
            settled: false,
            absent: None,
            attempts: draft.attempts,
            missing: draft.missing,
            conflicts: draft.conflicts,
            listings: Vec::new(),
            totals: crate::model::manifest::Totals::default(),
        }
    }

    fn missing(media: &str, code: Code) -> Failure {
        Failure {
            missing: MissingItem {
                media_id: MediaId::parse(media).unwrap(),
                attempt_id: AttemptId::parse("a1").unwrap(),
                code: code.as_str().into(),
                http_status: None,
            },
            code,
            message: String::new(),
        }
    }

    fn catalog(attempts: Vec<CatalogAttempt>) -> Catalog {
        Catalog { attempts, ..Catalog::default() }
    }

    #[test]
    fn a_later_manifest_keeps_what_veriff_no_longer_lists() {
        let both =
            catalog(vec![attempt("a1", Some("resubmission_requested"), None), attempt("a2", Some("approved"), None)]);
        let first = manifest(draft(None, &both, vec![deposited("a1", "m1"), deposited("a2", "m2")], &[]));
        let only_second = catalog(vec![attempt("a2", Some("approved"), None)]);
        let second = draft(Some(&first), &only_second, vec![deposited("a2", "m3")], &[]);
        let media: Vec<_> = second.attempts.iter().map(|attempt| attempt.media.len()).collect();
        assert_eq!(media, [1, 2]);
        assert!(is_new_evidence(Some(&first), &second));
    }

    #[test]
    fn the_same_lists_in_another_order_are_not_new() {
        let one = catalog(vec![attempt("a1", None, None), attempt("a2", Some("approved"), None)]);
        let other = catalog(vec![attempt("a2", Some("approved"), None), attempt("a1", None, None)]);
        let first = manifest(draft(None, &one, vec![deposited("a1", "m1"), deposited("a2", "m2")], &[]));
        let again = draft(Some(&first), &other, vec![], &[]);
        assert!(!is_new_evidence(Some(&first), &again));
    }

    #[test]
    fn a_status_never_goes_back_from_final() {
        let done = catalog(vec![attempt("a1", Some("approved"), None)]);
        let first = manifest(draft(None, &done, vec![], &[]));
        let back = draft(Some(&first), &catalog(vec![attempt("a1", Some("submitted"), None)]), vec![], &[]);
        assert_eq!(back.attempts[0].status.as_deref(), Some("approved"));
        assert!(!is_new_evidence(Some(&first), &back));
        let on = draft(Some(&first), &catalog(vec![attempt("a1", Some("declined"), None)]), vec![], &[]);
        assert!(is_new_evidence(Some(&first), &on));
    }

    #[test]
    fn missing_items_stay_until_archived_and_a_change_is_new() {
        let lists = catalog(vec![attempt("a1", None, None)]);
        let first = manifest(draft(None, &lists, vec![], &[missing("m1", Code::MediaMissing)]));
        assert!(!first.complete);
        let same = draft(Some(&first), &lists, vec![], &[missing("m1", Code::MediaMissing)]);
        assert!(!is_new_evidence(Some(&first), &same));
        let unlisted = draft(Some(&first), &lists, vec![], &[]);
        assert_eq!(unlisted.missing.len(), 1);
        let other = draft(Some(&first), &lists, vec![], &[missing("m1", Code::MediaEmpty)]);
        assert!(is_new_evidence(Some(&first), &other));
        let healed = draft(Some(&first), &lists, vec![deposited("a1", "m1")], &[]);
        assert!(healed.missing.is_empty() && healed.complete);
        assert!(is_new_evidence(Some(&first), &healed));
    }

    #[test]
    fn a_session_settles_only_after_its_waiting_time() {
        let time = |text: &str| text.parse::<Timestamp>().unwrap();
        let attempts = |status: &str| {
            draft(None, &catalog(vec![attempt("a1", Some(status), Some("2026-03-01T00:00:00Z"))]), vec![], &[]).attempts
        };
        let day = Duration::from_hours(24);
        let first = time("2026-03-01T00:00:00Z");
        let settled = |status: &str, decided: Option<&str>, now: &str| {
            is_settled(&attempts(status), decided.map(time), first, time(now), day)
        };
        assert!(settled("approved", None, "2026-03-02T00:00:00Z"));
        assert!(!settled("approved", None, "2026-03-01T23:59:59Z"));
        assert!(!settled("approved", Some("2026-03-05T00:00:00Z"), "2026-03-02T00:00:00Z"));
        assert!(!settled("resubmission_requested", None, "2026-09-02T00:00:00Z"));
    }
}
