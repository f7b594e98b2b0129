//! Elsewhere: what the store holds beside its sessions.
//!
//! `archive.json` must be there. Run records are held against the ledger; what is in them, and in a chain, is for `audit
//! chain`. Any other key must be one of the layout.

use futures_util::{Stream, stream};

use super::words::{REBUILD, UNREADABLE};
use super::{Reconcile, ReconcileTally};
use crate::audit::runner::AuditError;
use crate::audit::sessions::{AuditStep, Checked, Mark};
use crate::audit::{Finding, FindingCode, Severity, shadow};
use crate::ledger::{LedgerError, RecordState, Survey};
use crate::model::RunId;
use crate::model::key::{ObjectKey, StoreObject};
use crate::store::ReadStore;
use crate::store::versions::{KeyVersions, KeyWalk};

/// Behind every key below `sessions/`, and before whatever comes next.
const BEHIND_SESSIONS: &str = "sessions0";

/// Lists every key that is not below `sessions/`, behind a place.
pub fn elsewhere<'s>(
    store: &'s dyn ReadStore,
    from: &Mark,
) -> impl Stream<Item = Result<AuditStep<Other>, AuditError>> + 's {
    let mut walk = KeyWalk::of(store, "");
    if let Some(after) = from.after.as_deref().filter(|_| from.past_sessions) {
        walk.skip_to(ObjectKey::from_store(after));
    }
    stream::unfold(Some(walk), |walk| async move {
        let mut walk = walk?;
        loop {
            let listed = match walk.next().await {
                Ok(Some(listed)) => listed,
                Ok(None) => return None,
                Err(error) => return Some((Err(error.into()), None)),
            };
            if listed.key.as_str().starts_with("sessions/") {
                walk.skip_to(ObjectKey::from_store(BEHIND_SESSIONS));
                continue;
            }
            let mark = Mark { past_sessions: true, after: Some(listed.key.to_string()), records: 0 };
            return Some((Ok(AuditStep { mark, work: Some(Other(listed)) }), Some(walk)));
        }
    })
}

/// A key that belongs to no session, with its versions.
#[derive(Debug)]
pub struct Other(pub KeyVersions);

impl Reconcile<'_> {
    /// Looks at a key that belongs to no session.
    ///
    /// # Errors
    /// As the ledger's.
    pub async fn check_other(&self, other: Other) -> Result<Checked<ReconcileTally>, AuditError> {
        let Other(listed) = other;
        let versions = listed.all().count() as u64;
        let mut part =
            Checked { findings: Vec::new(), tally: ReconcileTally { versions, ..ReconcileTally::default() } };
        part.findings.extend(shadow::findings(&listed));
        match listed.key.read() {
            StoreObject::Unknown => {
                let repair = "find out who wrote it; nothing in the archive names it";
                part.findings.push(
                    Finding::of(Severity::Error, FindingCode::ObjectUnknown, repair)
                        .object(&listed.key, listed.own_id())
                        .differs("a key of the layout", "another key"),
                );
            }
            StoreObject::RunRecord(run) if listed.own.is_some() => {
                part.findings.extend(known_run(self.ledger, &run, &listed.key).await?);
            }
            _ => {}
        }
        Ok(part)
    }
}

/// Tells of a run record that the ledger does not know.
async fn known_run(ledger: &dyn Survey, run: &RunId, key: &ObjectKey) -> Result<Option<Finding>, AuditError> {
    let finding = |severity, code, found: &str| {
        Some(
            Finding::of(severity, code, REBUILD)
                .run(run)
                .object(key, None)
                .differs("a run whose record is closed", found),
        )
    };
    let known = match ledger.record(run).await {
        Err(LedgerError::Damaged(column)) => {
            let expected = format!("a {column} that this program writes");
            let finding = Finding::of(Severity::Error, FindingCode::LedgerContradicts, UNREADABLE);
            return Ok(Some(finding.run(run).object(key, None).differs(expected, "another value")));
        }
        known => known?,
    };
    Ok(match known {
        None => finding(Severity::Error, FindingCode::LedgerMissing, "no such run in the ledger"),
        Some(row) => match row.state {
            RecordState::Closed => None,
            // A run that died over its end: the next one mends it. Whoever closes a record notes it before it is stored.
            RecordState::Closing if row.document.is_some() && row.closed.is_none() => {
                finding(Severity::Warn, FindingCode::LedgerBehind, "a run whose record is not closed yet")
            }
            RecordState::Open | RecordState::Closing => {
                finding(Severity::Error, FindingCode::LedgerBehind, "a run whose record cannot be in the store yet")
            }
            RecordState::None => finding(Severity::Error, FindingCode::LedgerContradicts, "a run without a record"),
        },
    })
}
