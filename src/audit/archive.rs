//! `archive.json` as audits read it: the id that every other document is held against.

use super::reach::{Reach, Told, refused};
use super::{Finding, FindingCode, Severity};
use crate::model::ArchiveId;
use crate::model::key::ObjectKey;
use crate::model::manifest::ArchiveDocument;
use crate::store::StoreError;

/// Reads `archive.json` and holds it against the ledger. Returns the archive, and what is wrong.
///
/// # Errors
/// As the store's; refused, because without it nothing else can be judged.
pub async fn read(
    reach: &Reach<'_>,
    known: Option<&ArchiveId>,
) -> Result<(Option<ArchiveId>, Vec<Finding>), StoreError> {
    let key = ObjectKey::archive();
    let versions: Vec<_> = reach.list(key.as_str()).await?.into_iter().filter(|version| version.key == key).collect();
    let mut findings = Vec::new();
    let begin = |code, version: Option<&str>| {
        let repair = "restore its first version from a copy; if store.url is wrong, correct it";
        Finding::of(Severity::Error, code, repair).object(&key, version)
    };
    for version in versions.iter().filter(|version| version.is_delete_marker) {
        findings.push(begin(FindingCode::ObjectHidden, version.version_id.as_deref()));
    }
    let mut own = versions.iter().filter(|version| !version.is_delete_marker);
    let Some(first) = own.next().filter(|_| !versions[0].is_delete_marker) else {
        findings.push(begin(FindingCode::ArchiveInvalid, None).differs("archive.json", "nothing"));
        return Ok((known.cloned(), findings));
    };
    for later in own {
        findings.push(begin(FindingCode::ObjectShadowed, later.version_id.as_deref()));
    }
    let version_id = first.version_id.as_deref();
    let document = match reach.read(&key, version_id).await? {
        Told::Is(document) => document,
        Told::Gone => {
            findings.push(begin(FindingCode::ArchiveInvalid, version_id).differs("archive.json", "nothing"));
            return Ok((known.cloned(), findings));
        }
        Told::Refused(reason) => {
            findings.push(refused("archive.json", reason, |_, code, _: &str| begin(code, version_id)));
            return Ok((known.cloned(), findings));
        }
    };
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
        return Ok((known.cloned(), findings));
    };
    if let Some(known) = known.filter(|known| **known != archive.archive_id) {
        let expected = format!("archive {known}, as the ledger says");
        let found = format!("archive {}", archive.archive_id);
        findings.push(begin(FindingCode::ArchiveInvalid, version_id).differs(expected, found));
    }
    Ok((Some(archive.archive_id), findings))
}
