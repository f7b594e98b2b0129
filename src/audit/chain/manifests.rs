//! Manifests: does a run line tell what its manifest tells?
//!
//! The line is signed, so a manifest that agrees with it is, too, and with it the digest of every item.

use futures_util::{StreamExt as _, stream};

use crate::audit::reach::{Reach, Told, refused};
use crate::audit::{Finding, FindingCode, Severity};
use crate::model::key::{SessionObject, StoreObject};
use crate::model::manifest::Manifest;
use crate::model::run::{LineItem, LineManifest, RunLine};
use crate::model::{ArchiveId, RunId};
use crate::store::StoreError;
use crate::store::document::Document;

/// How many manifests are read at once.
pub(super) const AT_ONCE: usize = 16;

/// What came of looking at the manifest of one line.
#[derive(Debug, Default)]
pub(super) struct InspectedManifest {
    /// What is wrong with it.
    pub(super) findings: Vec<Finding>,
    /// The run that wrote it.
    pub(super) written_by: Option<RunId>,
}

/// Looks at the manifests of some lines, in their order.
///
/// # Errors
/// As the store's.
pub(super) async fn look(
    reach: &Reach<'_>,
    archive: Option<&ArchiveId>,
    lines: Vec<RunLine>,
) -> Result<Vec<InspectedManifest>, StoreError> {
    let looks = lines.into_iter().map(|line| look_at(reach, archive, line));
    let looked: Vec<Result<InspectedManifest, StoreError>> = stream::iter(looks).buffered(AT_ONCE).collect().await;
    looked.into_iter().collect()
}

async fn look_at(
    reach: &Reach<'_>,
    archive: Option<&ArchiveId>,
    line: RunLine,
) -> Result<InspectedManifest, StoreError> {
    let Some(named) = &line.manifest else { return Ok(InspectedManifest::default()) };
    let finding = |code, repair: &str| {
        let finding = Finding::of(Severity::Error, code, repair).session(&line.session_id);
        finding.object(&named.key, named.version_id.as_deref())
    };
    let only = |finding| InspectedManifest { findings: vec![finding], written_by: None };
    let Document { bytes, sha256, .. } = match reach.read(&named.key, named.version_id.as_deref()).await? {
        Told::Is(document) => document,
        Told::Gone => return Ok(only(finding(FindingCode::ObjectMissing, RESTORE))),
        Told::Refused(error @ StoreError::TooLarge { .. }) => {
            return Ok(only(finding(FindingCode::ManifestInvalid, RESTORE).differs("a manifest", error)));
        }
        Told::Refused(error) => {
            return Ok(only(refused("a manifest", &error, |_, code, repair: &str| finding(code, repair))));
        }
    };
    if sha256 != named.sha256 {
        return Ok(only(finding(FindingCode::ObjectDigest, RESTORE).differs(named.sha256, sha256)));
    }
    let Some(manifest) = Manifest::parse(&bytes) else {
        return Ok(only(finding(FindingCode::ManifestInvalid, RESTORE).differs("a manifest", "something else")));
    };
    let contradictions = contradictions(&line, named, &manifest, archive);
    let findings = contradictions.into_iter().map(|(expected, found)| {
        finding(FindingCode::ManifestInvalid, "find out which of the two is right: the run record or the manifest")
            .differs(expected, found)
    });
    Ok(InspectedManifest { findings: findings.collect(), written_by: Some(manifest.run_id.clone()) })
}

/// What to do about a manifest that is not the one that was signed.
const RESTORE: &str = "restore the version that the run record names";

fn contradictions(
    line: &RunLine,
    named: &LineManifest,
    manifest: &Manifest,
    archive: Option<&ArchiveId>,
) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let sequence = SessionObject::Manifest(manifest.sequence);
    if named.key.read() != StoreObject::OfSession(line.session_id.clone(), sequence) {
        found.push((format!("the manifest of session {}", line.session_id), format!("{}", named.key)));
    }
    if manifest.session_id != line.session_id {
        found.push((format!("session {}", line.session_id), format!("session {}", manifest.session_id)));
    }
    if archive.is_some_and(|archive| *archive != manifest.archive_id) {
        found.push(("this archive".to_owned(), format!("archive {}", manifest.archive_id)));
    }
    let (in_line, in_manifest) = (sorted(line.items.clone()), sorted(items_of(manifest)));
    if in_line != in_manifest {
        let differs = in_line.iter().filter(|item| !in_manifest.contains(item));
        let differs = differs.chain(in_manifest.iter().filter(|item| !in_line.contains(item)));
        let ids: Vec<String> = differs.map(|item| item.media_id.to_string()).take(3).collect();
        found.push((format!("the {} items in the run record", in_line.len()), format!("others: {}", ids.join(", "))));
    }
    found
}

fn items_of(manifest: &Manifest) -> Vec<LineItem> {
    let items = manifest.media().map(|(attempt, media)| LineItem {
        media_id: media.media_id.clone(),
        attempt_id: attempt.attempt_id.clone(),
        kind: media.kind,
        key: media.key.clone(),
        version_id: media.version_id.clone(),
        size_bytes: media.size_bytes,
        sha256: media.sha256,
    });
    items.collect()
}

fn sorted(mut items: Vec<LineItem>) -> Vec<LineItem> {
    items.sort_by(|a, b| a.key.cmp(&b.key).then_with(|| a.media_id.cmp(&b.media_id)));
    items
}
