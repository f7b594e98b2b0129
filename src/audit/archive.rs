//! `archive.json` as audits read it: the id that every other document is compared with.

use super::reach::{Reach, Told, refused};
use super::{Finding, FindingCode, Severity, shadow};
use crate::model::ArchiveId;
use crate::model::digest::Sha256Digest;
use crate::model::key::ObjectKey;
use crate::model::manifest::ArchiveDocument;
use crate::store::StoreError;
use crate::store::versions::versions_of;

/// The archive as `archive.json` names it.
#[derive(Debug, Clone, Default)]
pub struct Archive {
    /// Its id; as the ledger knows it, if the document cannot be read.
    pub id: Option<ArchiveId>,
    /// The digest of the document; nothing if it is not there.
    pub sha256: Option<Sha256Digest>,
}

/// Reads `archive.json` and compares it with the ledger. Returns the archive, and what is wrong.
///
/// # Errors
/// As the store's; refused, because without it nothing else can be judged.
pub async fn read(reach: &Reach<'_>, known: Option<&ArchiveId>) -> Result<(Archive, Vec<Finding>), StoreError> {
    let mut found = Archive { id: known.cloned(), sha256: None };
    let key = ObjectKey::archive();
    let listed = versions_of(reach.store(), &key).await?;
    let mut findings: Vec<Finding> = shadow::findings(&listed).collect();
    let begin = |code, version: Option<&str>| {
        let repair = "restore its first version from a copy; if store.url is wrong, correct it";
        Finding::of(Severity::Error, code, repair).object(&key, version)
    };
    let Some(own) = listed.own else {
        findings.push(begin(FindingCode::ArchiveInvalid, None).differs("archive.json", "nothing"));
        return Ok((found, findings));
    };
    let version_id = own.version_id.as_deref();
    let document = match reach.read(&key, version_id).await? {
        Told::Is(document) => document,
        Told::Gone => {
            findings.push(begin(FindingCode::ArchiveInvalid, version_id).differs("archive.json", "nothing"));
            return Ok((found, findings));
        }
        Told::Refused(error) => {
            findings.push(refused("archive.json", &error, |_, code, _: &str| begin(code, version_id)));
            return Ok((found, findings));
        }
    };
    found.sha256 = Some(document.sha256);
    if document.lock.is_some() {
        reach.note_lock_shown();
    }
    if reach.keeps_checksums()
        && let Told::Is(head) = reach.head(&key, version_id).await?
        && let Some(kept) = head.checksum.and_then(|checksum| checksum.full_digest())
    {
        reach.note_checksum_shown();
        if kept != document.sha256 {
            let expected = format!("sha256 {kept}, according to the store");
            findings.push(begin(FindingCode::ObjectDigest, version_id).differs(expected, document.sha256));
        }
    }
    let Some(archive) = ArchiveDocument::parse(&document.bytes) else {
        findings.push(begin(FindingCode::ArchiveInvalid, version_id).differs("archive.json", "something else"));
        return Ok((found, findings));
    };
    if let Some(known) = known.filter(|known| **known != archive.archive_id) {
        let expected = format!("archive {known}, as the ledger says");
        let named = format!("archive {}", archive.archive_id);
        findings.push(begin(FindingCode::ArchiveInvalid, version_id).differs(expected, named));
    }
    found.id = Some(archive.archive_id);
    Ok((found, findings))
}
