//! What was expired by plan: it is said once of its session, and what is gone is not missed.
//!
//! A document under `expired/` records it. It excuses items and their sidecars that are nowhere, and nothing
//! else: what exists is compared with the manifest as ever, what shadows a key is reported, and manifests must be
//! there.

use super::evidence::Evidence;
use super::{Finding, FindingCode, Severity};
use crate::model::SessionId;
use crate::model::key::{ObjectKey, SessionObject};
use crate::store::ListedVersion;

/// Reports a session of which something was expired by plan; `document` is the newest one that says so.
pub(crate) fn finding(severity: Severity, session: &SessionId, document: &ListedVersion) -> Finding {
    let repair = "nothing: what was expired is gone for good, and the record of its expiry remains";
    Finding::of(severity, FindingCode::SessionExpired, repair)
        .session(session)
        .object(&document.key, document.version_id.as_deref())
        .differs("all items", "some may have been expired by plan")
}

impl Evidence {
    /// Reports the session if something of it was expired by plan.
    pub(super) fn expired(&self) -> Option<Finding> {
        Some(finding(Severity::Info, &self.session_id, self.expired_document()?))
    }

    /// Returns whether something of the session was expired by plan.
    pub(super) fn is_expired(&self) -> bool {
        self.expired_document().is_some()
    }

    /// Returns whether an item exists nowhere and may have been expired by plan.
    pub(super) fn is_expired_item(&self, key: &ObjectKey) -> bool {
        self.own(key).is_none() && self.is_expired()
    }

    /// Returns whether an item that a document names is in the listing; nothing if it may have been expired by plan.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn item(
        &self,
        key: &ObjectKey,
        version_id: Option<&str>,
    ) -> Result<Option<&ListedVersion>, Box<Finding>> {
        match self.named(key, version_id) {
            Ok(listed) => Ok(Some(listed)),
            Err(_) if self.is_expired_item(key) => Ok(None),
            Err(finding) => Err(finding),
        }
    }

    fn expired_document(&self) -> Option<&ListedVersion> {
        let mut newest_first = self.standing().rev();
        let is_one = |key: &ObjectKey| matches!(key.read_as(&self.session_id), SessionObject::Expired(_));
        newest_first.find(|(key, _)| is_one(key)).map(|(_, own)| own)
    }
}
