//! Sidecars as audits read them: by digest where a manifest tells it, and held against what the manifest says.

use super::evidence::{Evidence, FIND_OUT, RESTORE};
use super::reach::{Reach, Told, refused};
use super::{Finding, FindingCode, Severity};
use crate::model::digest::{Checksum, Sha256Digest};
use crate::model::key::ObjectKey;
use crate::model::manifest::{ConflictItem, ManifestMedia};
use crate::model::retention::Lock;
use crate::model::sidecar::Sidecar;
use crate::model::{ArchiveId, MediaId};
use crate::store::StoreError;

/// One object as a manifest names it.
pub(super) struct Named<'m> {
    pub(super) media_id: &'m MediaId,
    pub(super) key: &'m ObjectKey,
    pub(super) version_id: Option<&'m str>,
    pub(super) size_bytes: Option<u64>,
    pub(super) sha256: Sha256Digest,
    pub(super) checksum: Option<&'m Checksum>,
    /// Digest and version of its sidecar; nothing: the manifest does not tell them.
    pub(super) sidecar: Option<(Sha256Digest, Option<&'m str>)>,
}

impl<'m> Named<'m> {
    pub(super) fn media(media: &'m ManifestMedia) -> Self {
        Self {
            media_id: &media.media_id,
            key: &media.key,
            version_id: media.version_id.as_deref(),
            size_bytes: Some(media.size_bytes),
            sha256: media.sha256,
            checksum: Some(&media.checksum),
            sidecar: Some((media.sidecar_sha256, media.sidecar_version_id.as_deref())),
        }
    }

    pub(super) fn conflict(conflict: &'m ConflictItem) -> Self {
        Self {
            media_id: &conflict.media_id,
            key: &conflict.key,
            version_id: conflict.version_id.as_deref(),
            size_bytes: None,
            sha256: conflict.sha256,
            checksum: None,
            sidecar: conflict.sidecar_sha256.map(|sha256| (sha256, conflict.sidecar_version_id.as_deref())),
        }
    }
}

/// A sidecar that is the one that is meant.
#[derive(Debug)]
pub(super) struct ReadSidecar {
    pub(super) document: Sidecar,
    pub(super) key: ObjectKey,
    pub(super) version_id: Option<String>,
    pub(super) sha256: Sha256Digest,
    pub(super) lock: Option<Lock>,
}

/// Reads a sidecar and holds it against the manifest that names it; nothing if it may have been expired by plan. Says also
/// whether its bytes were hashed.
pub(super) async fn read(
    reach: &Reach<'_>,
    evidence: &Evidence,
    named: &Named<'_>,
    archive: Option<&ArchiveId>,
) -> Result<(Result<Option<ReadSidecar>, Box<Finding>>, bool), StoreError> {
    let key = named.key.sidecar();
    let version_id = match named.sidecar {
        Some((_, version_id)) => version_id.map(str::to_owned),
        None => evidence.own(&key).and_then(|own| own.version_id.clone()),
    };
    match evidence.item(&key, version_id.as_deref()) {
        Ok(Some(_)) => {}
        Ok(None) => return Ok((Ok(None), false)),
        Err(mut finding) => {
            // A visit that was cut short put the bytes there and no sidecar; no manifest says that there is one.
            if named.sidecar.is_none() {
                finding.severity = Severity::Warn;
            }
            return Ok((Err(finding), false));
        }
    }
    let begin = |code, repair: &str| evidence.finding(Severity::Error, code, &key, version_id.as_deref(), repair);
    let document = match reach.read(&key, version_id.as_deref()).await? {
        Told::Is(document) => document,
        Told::Gone => {
            let finding = begin(FindingCode::SidecarInvalid, RESTORE);
            return Ok((Err(Box::new(finding.differs("a sidecar", "it is listed but cannot be opened"))), false));
        }
        Told::Refused(error) => {
            let finding = refused("a sidecar", &error, |_, code, repair: &str| begin(code, repair));
            return Ok((Err(Box::new(finding)), false));
        }
    };
    if let Some((sha256, _)) = named.sidecar.filter(|(sha256, _)| *sha256 != document.sha256) {
        let finding = begin(FindingCode::ObjectDigest, FIND_OUT);
        return Ok((Err(Box::new(finding.differs(format!("sha256 {sha256}"), document.sha256))), true));
    }
    let invalid = |expected: &str, found: String| {
        (Err(Box::new(begin(FindingCode::SidecarInvalid, FIND_OUT).differs(expected, found))), true)
    };
    let Some(sidecar) = Sidecar::parse(&document.bytes) else {
        return Ok(invalid("a sidecar", "something else".to_owned()));
    };
    if let Some((expected, found)) = tells_otherwise(&sidecar, evidence, named, archive) {
        return Ok(invalid(&expected, found));
    }
    let read =
        ReadSidecar { document: sidecar, key: key.clone(), version_id, sha256: document.sha256, lock: document.lock };
    Ok((Ok(Some(read)), true))
}

/// Finds what a sidecar tells otherwise than the manifest: what the manifest says, and what the sidecar does.
fn tells_otherwise(
    sidecar: &Sidecar,
    evidence: &Evidence,
    named: &Named<'_>,
    archive: Option<&ArchiveId>,
) -> Option<(String, String)> {
    let object = &sidecar.object;
    let folder = ObjectKey::session_prefix(&evidence.session_id);
    let attempt = named.key.as_str().strip_prefix(&folder).and_then(|rest| rest.split('/').next());
    let pairs = [
        archive.map(|archive| ("archive", archive.to_string(), sidecar.archive_id.to_string())),
        Some(("session", evidence.session_id.to_string(), sidecar.session_id.to_string())),
        attempt.map(|attempt| ("attempt", attempt.to_owned(), sidecar.attempt_id.to_string())),
        Some(("media", named.media_id.to_string(), sidecar.media_id.to_string())),
        Some(("key", named.key.to_string(), object.key.to_string())),
        Some(("sha256", named.sha256.to_string(), object.sha256.to_string())),
        named.size_bytes.map(|size| ("bytes", size.to_string(), object.size_bytes.to_string())),
        named.checksum.map(|checksum| ("checksum", checksum.value.clone(), object.checksum.value.clone())),
    ];
    let differing = pairs.into_iter().flatten().find(|(_, written, told)| written != told);
    differing.map(|(what, written, told)| (format!("{what} {written}"), format!("{what} {told}")))
}
