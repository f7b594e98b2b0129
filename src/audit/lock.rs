//! Locks as audits judge them: what the store shows, against what is due.

use super::reach::{Reach, Told};
use super::{Finding, FindingCode, Severity};
use crate::model::key::ObjectKey;
use crate::model::retention::{Lock, Mode};
use crate::store::StoreError;

/// What the store shows of the lock of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shown {
    /// This one.
    Lock(Lock),
    /// That there is none.
    Unlocked,
    /// Nothing: the right to see it is missing.
    Hidden,
}

impl Shown {
    /// Reads the lock of an object of which `shown` came with another answer. Only who has the right to see locks is shown
    /// one, so where none was ever shown it is asked for.
    ///
    /// # Errors
    /// As the store's.
    pub(super) async fn of(
        reach: &Reach<'_>,
        key: &ObjectKey,
        version_id: Option<&str>,
        shown: Option<Lock>,
    ) -> Result<Self, StoreError> {
        if let Some(lock) = shown {
            reach.note_lock_shown();
            return Ok(Self::Lock(lock));
        }
        if reach.shows_locks() {
            return Ok(Self::Unlocked);
        }
        Ok(match reach.lock(key, version_id).await? {
            Told::Is(Some(lock)) => Self::Lock(lock),
            Told::Is(None) | Told::Gone => Self::Unlocked,
            Told::Refused(_) => Self::Hidden,
        })
    }

    /// Holds it against the lock that is due; `by` says who demands it.
    pub(super) fn weaker_than(self, due: Lock, by: &str) -> Option<Weaker> {
        let text = |lock: Lock| format!("{} until {}", lock.mode, lock.retain_until);
        let expected = format!("{}, as {by}", text(due));
        let (code, found) = match self {
            Self::Unlocked => (FindingCode::LockMissing, "no lock".to_owned()),
            Self::Lock(lock) if lock.mode < due.mode => (FindingCode::LockWeak, text(lock)),
            Self::Lock(lock) if lock.retain_until < due.retain_until => (FindingCode::LockShort, text(lock)),
            Self::Lock(_) | Self::Hidden => return None,
        };
        Some(Weaker { code, expected, found, due })
    }
}

/// How a lock is weaker than due.
#[derive(Debug)]
pub(super) struct Weaker {
    code: FindingCode,
    expected: String,
    found: String,
    due: Lock,
}

impl Weaker {
    /// Makes a finding of it; `finding` begins one with this severity, code and repair.
    pub(super) fn finding(self, begin: impl FnOnce(Severity, FindingCode, &str) -> Finding) -> Finding {
        let mode = if self.due.mode == Mode::Compliance { "COMPLIANCE" } else { "GOVERNANCE" };
        let repair = format!(
            "find out who changed it; lock the named version again: aws s3api put-object-retention with Mode={mode}, \
             RetainUntilDate={}",
            self.due.retain_until
        );
        begin(Severity::Error, self.code, &repair).differs(self.expected, self.found)
    }
}

/// Reports locks that the store would not show.
pub(super) fn hidden_locks(count: u64, severity: Severity) -> Option<Finding> {
    let repair = "grant the auditor s3:GetObjectRetention on the objects, and repeat the audit";
    (count > 0).then(|| {
        Finding::of(severity, FindingCode::LockUnreadable, repair)
            .differs("the lock of every object", format!("not visible for {count} objects"))
    })
}
