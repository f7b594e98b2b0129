//! Views: what a page shows of one session.
//!
//! Filled from the newest manifest, and then from what came into the bag; texts only, whatever they were.

use serde::Serialize;

use crate::audit::{Finding, Severity};
use crate::model::digest::Sha256Digest;
use crate::model::key::ObjectKey;
use crate::model::manifest::{ConflictItem, Manifest, ManifestAttempt, ManifestMedia};
use crate::model::retention::Lock;
use crate::model::sidecar::{CountedFrom, Sidecar, SignatureCheck};
use crate::model::{RunId, SessionId};

/// The state of a session in the bag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// With all that its newest manifest names.
    Whole,
    /// Something that its newest manifest names is not there, or is something else.
    Damaged,
    /// Something of it was expired by plan.
    Expired,
    /// With the manifest that says that Veriff does not have it.
    Absent,
    /// There is no manifest that can be read.
    Unarchived,
}

/// A session.
#[derive(Serialize)]
pub(super) struct SessionView {
    pub(super) session_id: String,
    pub(super) facts: Option<Facts>,
    pub(super) manifests: Vec<ManifestView>,
    pub(super) attempts: Vec<AttemptView>,
    missing: Vec<MissingView>,
    pub(super) conflicts: Vec<MediaView>,
    pub(super) proofs: Vec<ProofView>,
    pub(super) problems: Vec<ProblemView>,
    pub(super) items: u64,
    pub(super) bytes: u64,
    /// Items that were expired by plan.
    pub(super) expired: u64,
}

/// What the newest manifest says of the session as a whole.
#[derive(Serialize)]
pub(super) struct Facts {
    integration: String,
    decided_at: Option<String>,
    pub(super) complete: bool,
    settled: bool,
    absent: Option<u16>,
    media: u64,
    size: String,
}

#[derive(Serialize)]
struct MissingView {
    media_id: String,
    attempt_id: String,
    code: String,
    http_status: Option<u16>,
}

impl SessionView {
    pub(super) fn of(id: &SessionId) -> Self {
        Self {
            session_id: id.to_string(),
            facts: None,
            manifests: Vec::new(),
            attempts: Vec::new(),
            missing: Vec::new(),
            conflicts: Vec::new(),
            proofs: Vec::new(),
            problems: Vec::new(),
            items: 0,
            bytes: 0,
            expired: 0,
        }
    }

    pub(super) fn outcome(&self) -> Outcome {
        match &self.facts {
            None => Outcome::Unarchived,
            Some(_) if self.problems.iter().any(|problem| problem.is_error) => Outcome::Damaged,
            Some(_) if self.expired > 0 => Outcome::Expired,
            Some(facts) if facts.absent.is_some() => Outcome::Absent,
            Some(_) => Outcome::Whole,
        }
    }

    /// Returns the run that wrote the newest manifest but so many, and the session.
    pub(super) fn nth_run(&self, depth: usize) -> Option<(RunId, SessionId)> {
        let manifest = self.manifests.iter().rev().nth(depth)?;
        Some((RunId::parse(&manifest.run_id).ok()?, SessionId::parse(&self.session_id).ok()?))
    }

    /// Returns the digest of a manifest that is in the bag.
    pub(super) fn manifest_sha256(&self, key: &ObjectKey) -> Option<String> {
        let manifest = self.manifests.iter().find(|manifest| manifest.key == key.as_str());
        manifest.map(|manifest| manifest.sha256.clone())
    }

    pub(super) fn describe(&mut self, manifest: &Manifest) {
        self.facts = Some(Facts {
            integration: manifest.integration.clone(),
            decided_at: manifest.decided_at.map(|at| at.to_string()),
            complete: manifest.complete,
            settled: manifest.settled,
            absent: manifest.absent.map(|absent| absent.http_status),
            media: manifest.totals.media,
            size: size(manifest.totals.bytes),
        });
        let missing = manifest.missing.iter().map(|item| MissingView {
            media_id: item.media_id.to_string(),
            attempt_id: item.attempt_id.to_string(),
            code: item.code.clone(),
            http_status: item.http_status,
        });
        self.missing = missing.collect();
    }
}

/// A manifest in the bag.
#[derive(Serialize)]
pub(super) struct ManifestView {
    sequence: u32,
    file: String,
    pub(super) archived_at: String,
    run_id: String,
    key: String,
    version_id: Option<String>,
    sha256: String,
    lock: Option<String>,
}

impl ManifestView {
    pub(super) fn of(
        document: &Manifest,
        key: &ObjectKey,
        version_id: Option<&str>,
        sha256: Sha256Digest,
        lock: Option<Lock>,
        file: String,
    ) -> Self {
        Self {
            sequence: document.sequence,
            file,
            archived_at: document.archived_at.to_string(),
            run_id: document.run_id.to_string(),
            key: key.to_string(),
            version_id: version_id.map(str::to_owned),
            sha256: sha256.to_string(),
            lock: lock.map(lock_text),
        }
    }
}

/// An attempt.
#[derive(Serialize)]
pub(super) struct AttemptView {
    number: usize,
    attempt_id: String,
    is_session: bool,
    status: Option<String>,
    created_at: Option<String>,
    pub(super) media: Vec<MediaView>,
}

impl AttemptView {
    pub(super) fn of(number: usize, attempt: &ManifestAttempt) -> Self {
        Self {
            number,
            attempt_id: attempt.attempt_id.to_string(),
            is_session: attempt.attempt_id.is_session(),
            status: attempt.status.clone(),
            created_at: attempt.created_at.map(|at| at.to_string()),
            media: Vec::with_capacity(attempt.media.len()),
        }
    }
}

/// The state of an item in the bag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Shown {
    /// It is there.
    Whole,
    /// It was expired by plan.
    Expired,
    /// It is not there, or is something else.
    Damaged,
}

/// A media item.
#[derive(Serialize)]
pub(super) struct MediaView {
    media_id: String,
    kind: &'static str,
    context: Option<String>,
    pub(super) state: Shown,
    file: String,
    /// How the page shows it: `image`, `video` or `link`.
    form: &'static str,
    size: String,
    size_bytes: u64,
    key: String,
    version_id: Option<String>,
    sha256: String,
    lock: Option<String>,
    told: Option<ToldView>,
}

/// What the sidecar of an item says.
#[derive(Serialize)]
struct ToldView {
    file: String,
    fetched_at: Option<String>,
    host: Option<String>,
    path: Option<String>,
    signature: Option<&'static str>,
    run_id: String,
    version: String,
    class: String,
    basis: String,
    period: Option<String>,
    counted_from: String,
    counted_from_source: &'static str,
    anomalies: Vec<String>,
}

impl MediaView {
    pub(super) fn of(media: &ManifestMedia) -> Self {
        Self {
            media_id: media.media_id.to_string(),
            kind: media.kind.as_str(),
            context: media.context.clone(),
            state: Shown::Damaged,
            file: String::new(),
            form: "link",
            size: size(media.size_bytes),
            size_bytes: media.size_bytes,
            key: media.key.to_string(),
            version_id: media.version_id.clone(),
            sha256: media.sha256.to_string(),
            lock: None,
            told: None,
        }
    }

    pub(super) fn of_conflict(conflict: &ConflictItem) -> Self {
        Self {
            media_id: conflict.media_id.to_string(),
            kind: "conflict",
            context: None,
            state: Shown::Damaged,
            file: String::new(),
            form: "link",
            size: String::new(),
            size_bytes: 0,
            key: conflict.key.to_string(),
            version_id: conflict.version_id.clone(),
            sha256: conflict.sha256.to_string(),
            lock: None,
            told: None,
        }
    }

    /// It is in the bag, under this file of the session's folder.
    pub(super) fn stands(&mut self, file: String, size_bytes: u64, lock: Option<Lock>) {
        self.state = Shown::Whole;
        self.form = match file.rsplit('.').next() {
            Some("jpg" | "png" | "webp") => "image",
            Some("webm" | "mp4") => "video",
            _ => "link",
        };
        self.file = file;
        self.size = size(size_bytes);
        self.size_bytes = size_bytes;
        self.lock = lock.map(lock_text);
    }

    /// Its sidecar is in the bag.
    pub(super) fn tells(&mut self, sidecar: &Sidecar, file: String) {
        let upstream = sidecar.upstream.as_ref();
        self.told = Some(ToldView {
            file,
            fetched_at: upstream.map(|upstream| upstream.fetched_at.to_string()),
            host: upstream.map(|upstream| upstream.host.clone()),
            path: upstream.map(|upstream| upstream.path.clone()),
            signature: upstream.map(|upstream| signature_text(upstream.signature)),
            run_id: sidecar.archived_by.run_id.to_string(),
            version: sidecar.archived_by.version.clone(),
            class: sidecar.retention.class.clone(),
            basis: sidecar.retention.basis.clone(),
            period: sidecar.retention.period.map(|period| period.to_string()),
            counted_from: sidecar.retention.counted_from.to_string(),
            counted_from_source: match sidecar.retention.counted_from_source {
                CountedFrom::DecidedAt => "the decision",
                CountedFrom::ArchivedAt => "archiving",
            },
            anomalies: sidecar.anomalies.iter().map(|it| format!("{}: {}", it.code, it.detail)).collect(),
        });
    }
}

/// A proof in the bag.
#[derive(Serialize)]
pub(super) struct ProofView {
    pub(super) file: String,
    pub(super) run_id: String,
    pub(super) at: String,
    pub(super) text: String,
}

fn lock_text(lock: Lock) -> String {
    format!("{} until {}", lock.mode, lock.retain_until)
}

const fn signature_text(check: SignatureCheck) -> &'static str {
    match check {
        SignatureCheck::Match => "right",
        SignatureCheck::Absent => "there was none",
        SignatureCheck::Mismatch => "wrong",
        SignatureCheck::Unchecked => "not checked",
    }
}

/// A problem.
#[derive(Serialize)]
pub(super) struct ProblemView {
    pub(super) is_error: bool,
    pub(super) code: String,
    pub(super) about: String,
    pub(super) expected: Option<String>,
    pub(super) found: Option<String>,
    pub(super) repair: String,
}

impl ProblemView {
    pub(super) fn of(finding: &Finding) -> Self {
        let session = finding.session_id.as_ref().filter(|_| finding.key.is_none()).map(|id| format!("session {id}"));
        let key = finding.key.as_ref().map(ToString::to_string);
        let version = finding.version_id.as_ref().map(|version| format!("version {version}"));
        Self {
            is_error: finding.severity == Severity::Error,
            code: finding.code.to_string(),
            about: [session, key, version].into_iter().flatten().collect::<Vec<_>>().join(", "),
            expected: finding.expected.clone(),
            found: finding.found.clone(),
            repair: finding.repair.clone(),
        }
    }
}

/// Writes a problem as the text file of the bag has it.
pub(super) fn problem_text(finding: &Finding) -> String {
    let ProblemView { is_error, code, about, expected, found, repair } = ProblemView::of(finding);
    let severity = if is_error { "error" } else { "warn " };
    let head = format!("{severity}  {code}  {about}\n");
    let parts = [("expected", expected), ("found", found), ("repair", Some(repair))];
    let lines = parts.into_iter().filter_map(|(label, value)| Some(format!("       {label:<9} {}\n", value?)));
    [head].into_iter().chain(lines).chain(["\n".to_owned()]).collect()
}

/// Writes a length for people.
pub(super) fn size(bytes: u64) -> String {
    let mut value = bytes;
    let mut rest = 0;
    for unit in ["bytes", "KiB", "MiB", "GiB", "TiB"] {
        if value < 1024 || unit == "TiB" {
            return if unit == "bytes" {
                format!("{value} {unit}")
            } else {
                format!("{value}.{} {unit}", rest * 10 / 1024)
            };
        }
        (value, rest) = (value / 1024, value % 1024);
    }
    format!("{bytes} bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_written_for_people() {
        assert_eq!(size(0), "0 bytes");
        assert_eq!(size(1023), "1023 bytes");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(20 * 1024 * 1024 - 1), "19.9 MiB");
        assert_eq!(size(3 << 40), "3.0 TiB");
    }
}
