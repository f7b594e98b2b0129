//! Shadow: what shadows the archive's version of a key, as findings.

use super::{Finding, FindingCode, Severity};
use crate::store::versions::{KeyVersions, ShadowKind};

/// Makes a finding of each version that shadows the archive's, about that version and no other.
pub(crate) fn findings(listed: &KeyVersions) -> impl Iterator<Item = Finding> {
    let own = listed.own.as_ref().map(|own| own.version_id.as_deref().unwrap_or("null"));
    let expected = own.map_or_else(|| "nothing".to_owned(), |own| format!("version {own} alone"));
    listed.shadows.iter().map(move |shadow| {
        let code = match shadow.kind {
            ShadowKind::DeleteMarker | ShadowKind::EarlierDeleteMarker => FindingCode::ObjectHidden,
            ShadowKind::LaterVersion => FindingCode::ObjectShadowed,
        };
        let version_id = shadow.version.version_id.as_deref();
        let repair = format!(
            "find out who wrote it; then delete only that version (its id is {}), and nothing else of this key",
            version_id.unwrap_or("null")
        );
        Finding::of(Severity::Error, code, &repair).object(&listed.key, version_id).differs(&expected, shadow.kind)
    })
}
