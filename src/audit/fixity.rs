//! `audit fixity`: are the bytes still those that were archived?
//!
//! Reads every manifest and sidecar and compares their digests; asks the store for size, checksum and lock of every object
//! that the newest manifest names, by its version; and, if told to read, downloads every object and hashes it again. What
//! a look without reading proves is what the store says of itself: bytes changed behind its back, with its own notes left
//! as they were, show only when they are read.

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde::{Deserialize, Serialize};

use super::evidence::{Evidence, FIND_OUT, RESTORE};
use super::lock::{Shown, hidden_locks};
use super::reach::{Reach, Told, refused};
use super::runner::AuditError;
use super::sessions::{AuditTally, Checked, steadily};
use super::sidecar::{self, Named, ReadSidecar};
use super::walk::WalkedSession;
use super::{Finding, FindingCode, Severity};
use crate::ledger::{SessionRow, Survey};
use crate::model::digest::{Checksum, ChecksumType, Hasher, PART_SIZE_BYTES, Sha256Digest};
use crate::model::sidecar::Sidecar;
use crate::model::{ArchiveId, SessionId};
use crate::session::budget::Budget;
use crate::session::writer::promised_lock;
use crate::store::{ObjectBody, ObjectHead, StoreError};

/// How many objects of one session are looked at at once; the limit of requests holds for all sessions together.
pub(super) const ITEMS_IN_FLIGHT: usize = 16;

/// How it looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FixityMode {
    /// Compares what the store says of its objects.
    Head,
    /// Downloads and hashes them as well.
    Read,
}

impl FixityMode {
    /// Returns the name that `--mode` takes.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Head => "head",
            Self::Read => "read",
        }
    }
}

/// What was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FixityTally {
    /// Sessions.
    pub sessions: u64,
    /// Media objects and conflicts that stand as named.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Sidecars that were read and hashed.
    pub sidecars: u64,
    /// Manifests that were read and hashed.
    pub manifests: u64,
    /// Objects whose bytes were downloaded and hashed.
    pub reread_objects: u64,
    /// Their bytes.
    pub reread_bytes: u64,
    /// Objects of which the store keeps a checksum of its parts, not of the whole; that is what was compared.
    pub composite: u64,
    /// Objects of which the store keeps no checksum that can be compared.
    pub unchecked: u64,
    /// Manifests whose digest neither the ledger nor the store nor a later manifest tells.
    pub unvouched_manifests: u64,
    /// Objects whose lock the store would not tell.
    pub hidden_locks: u64,
}

impl AuditTally for FixityTally {
    fn add(&mut self, other: Self) {
        self.sessions += other.sessions;
        self.objects += other.objects;
        self.bytes += other.bytes;
        self.sidecars += other.sidecars;
        self.manifests += other.manifests;
        self.reread_objects += other.reread_objects;
        self.reread_bytes += other.reread_bytes;
        self.composite += other.composite;
        self.unchecked += other.unchecked;
        self.unvouched_manifests += other.unvouched_manifests;
        self.hidden_locks += other.hidden_locks;
    }

    fn checked(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("sessions", self.sessions),
            ("objects", self.objects),
            ("bytes", self.bytes),
            ("sidecars", self.sidecars),
            ("manifests", self.manifests),
            ("reread_objects", self.reread_objects),
            ("reread_bytes", self.reread_bytes),
        ]
    }
}

/// Looks at one session after another.
#[derive(Debug)]
pub struct Fixity<'a> {
    /// The store.
    pub reach: Reach<'a>,
    /// What the ledger knows, where there is one.
    pub ledger: Option<&'a dyn Survey>,
    /// The archive that the store is.
    pub archive: Option<ArchiveId>,
    /// How it looks.
    pub mode: FixityMode,
    /// Room for bytes in flight.
    pub budget: Budget,
}

impl Fixity<'_> {
    /// Looks at one session.
    ///
    /// # Errors
    /// As the store's and the ledger's.
    pub async fn check(&self, walked: WalkedSession) -> Result<Checked<FixityTally>, AuditError> {
        let look = async |session: &SessionId, walked: &WalkedSession, row: Option<&SessionRow>| {
            self.look(session, walked, row).await
        };
        steadily(&self.reach, self.ledger, walked, look).await
    }

    async fn look(
        &self,
        session: &SessionId,
        walked: &WalkedSession,
        row: Option<&SessionRow>,
    ) -> Result<Checked<FixityTally>, AuditError> {
        let mut evidence = Evidence::read(&self.reach, self.archive.as_ref(), session.clone(), walked, row).await?;
        let mut part = Checked { findings: std::mem::take(&mut evidence.findings), tally: FixityTally::default() };
        part.tally.sessions = 1;
        part.tally.manifests = evidence.manifests.len() as u64;
        part.tally.unvouched_manifests = evidence.unvouched();
        if walked.keys.is_empty() {
            part.findings.push(nothing_stands(session));
        }
        if let Some(newest) = &evidence.newest {
            let media = newest.media().map(|(_, media)| Named::media(media));
            let named: Vec<Named<'_>> = media.chain(newest.conflicts.iter().map(Named::conflict)).collect();
            let checks: Vec<_> = named.iter().map(|named| self.check_object(&evidence, named)).collect();
            let parts: Vec<Checked<FixityTally>> = stream::iter(checks).buffered(ITEMS_IN_FLIGHT).try_collect().await?;
            for of_object in parts {
                part.findings.extend(of_object.findings);
                part.tally.add(of_object.tally);
            }
        }
        part.findings.extend(evidence.unknown());
        part.findings.extend(evidence.expired());
        Ok(part)
    }

    /// Looks at one object and at its sidecar.
    async fn check_object(&self, evidence: &Evidence, named: &Named<'_>) -> Result<Checked<FixityTally>, AuditError> {
        let mut part = Checked::default();
        let sidecar = self.check_sidecar(evidence, named, &mut part).await?;
        let begin =
            |severity, code, repair: &str| evidence.finding(severity, code, named.key, named.version_id, repair);
        let listed = match evidence.item(named.key, named.version_id) {
            Ok(Some(listed)) => listed,
            Ok(None) => return Ok(part),
            Err(finding) => {
                part.findings.push(*finding);
                return Ok(part);
            }
        };
        let head = match self.reach.head(named.key, named.version_id).await? {
            Told::Is(head) => head,
            Told::Gone => {
                let finding = begin(Severity::Error, FindingCode::ObjectMissing, RESTORE);
                part.findings.push(finding.differs("the object", "it is listed but does not exist"));
                return Ok(part);
            }
            Told::Refused(error) => {
                part.findings.push(refused("the object", &error, begin));
                return Ok(part);
            }
        };
        part.tally.objects = 1;
        part.tally.bytes = head.size_bytes;
        let size_bytes = named.size_bytes.or(sidecar.as_ref().map(|sidecar| sidecar.object.size_bytes));
        let size_bytes = size_bytes.unwrap_or(listed.size_bytes);
        if head.size_bytes != size_bytes {
            let finding = begin(Severity::Error, FindingCode::ObjectSize, FIND_OUT);
            part.findings.push(finding.differs(format!("{size_bytes} bytes"), format!("{} bytes", head.size_bytes)));
        }
        let checksum = named.checksum.or(sidecar.as_ref().map(|sidecar| &sidecar.object.checksum));
        self.compare_checksum(&head, named, checksum, &begin, &mut part);
        if let Some(due) = sidecar.as_ref().and_then(promised_lock).filter(|_| self.reach.keeps_locks()) {
            let shown = Shown::of(&self.reach, named.key, named.version_id, head.lock).await?;
            part.tally.hidden_locks += u64::from(shown == Shown::Hidden);
            part.findings.extend(shown.weaker_than(due, "its sidecar promises").map(|weaker| weaker.finding(begin)));
        }
        // An object that was seen to be another one need not be read.
        let is_another = |finding: &Finding| {
            let is_told = matches!(finding.code, FindingCode::ObjectSize | FindingCode::ObjectDigest);
            is_told && finding.key.as_ref() == Some(named.key)
        };
        if self.mode == FixityMode::Read && !part.findings.iter().any(is_another) {
            self.read_object(named, size_bytes, checksum, &begin, &mut part).await?;
        }
        Ok(part)
    }

    /// Compares the checksum that the store keeps with what is written down.
    fn compare_checksum(
        &self,
        head: &ObjectHead,
        named: &Named<'_>,
        written: Option<&Checksum>,
        begin: &impl Fn(Severity, FindingCode, &str) -> Finding,
        part: &mut Checked<FixityTally>,
    ) {
        let differs = |expected: String, found: String| {
            begin(Severity::Error, FindingCode::ObjectDigest, FIND_OUT).differs(expected, found)
        };
        let kept = head.checksum.as_ref();
        if kept.is_some() {
            self.reach.note_checksum_shown();
        }
        match kept.map(|kept| (kept, kept.full_digest())) {
            Some((_, Some(digest))) => {
                if digest != named.sha256 {
                    let kept = format!("sha256 {digest}, which the store keeps");
                    part.findings.push(differs(format!("sha256 {}", named.sha256), kept));
                }
            }
            Some((kept, None)) if written.is_some_and(|written| written.kind == kept.kind) => {
                part.tally.composite += 1;
                let written = written.map_or("", |written| written.value.as_str());
                if written != kept.value {
                    part.findings.push(differs(
                        format!("checksum {written} of its parts"),
                        format!("{}, according to the store", kept.value),
                    ));
                }
            }
            _ => {
                part.tally.unchecked += 1;
                // Of a store that keeps none at all it is said once; and who reads needs none.
                if self.reach.shows_checksums() && self.mode == FixityMode::Head {
                    let finding = begin(Severity::Warn, FindingCode::ObjectUnchecked, "audit fixity --mode read");
                    part.findings.push(finding.differs("a comparable checksum", "none"));
                }
            }
        }
    }

    /// Downloads an object and hashes it.
    async fn read_object(
        &self,
        named: &Named<'_>,
        size_bytes: u64,
        written: Option<&Checksum>,
        begin: &impl Fn(Severity, FindingCode, &str) -> Finding,
        part: &mut Checked<FixityTally>,
    ) -> Result<(), AuditError> {
        let _room = self.budget.room_for(Some(size_bytes)).await;
        let part_size = written.filter(|written| written.kind == ChecksumType::Composite);
        let part_size = part_size.map(|written| written.part_size_bytes.unwrap_or(PART_SIZE_BYTES));
        let hashed = self.reach.with_body(named.key, named.version_id, async |body| hash(body, part_size).await);
        let hashed = match hashed.await? {
            Told::Is(hashed) => hashed,
            Told::Gone => {
                let finding = begin(Severity::Error, FindingCode::ObjectMissing, RESTORE);
                part.findings.push(finding.differs("the object", "it existed but cannot be opened"));
                return Ok(());
            }
            Told::Refused(error) => {
                part.findings.push(refused("its bytes", &error, begin));
                return Ok(());
            }
        };
        part.tally.reread_objects = 1;
        part.tally.reread_bytes = hashed.size_bytes;
        if hashed.sha256 != named.sha256 {
            let finding = begin(Severity::Error, FindingCode::ObjectDigest, FIND_OUT);
            let found = format!("sha256 {} of its {} bytes", hashed.sha256, hashed.size_bytes);
            part.findings.push(finding.differs(format!("sha256 {}", named.sha256), found));
        } else if let (Some(written), Some(parts)) = (written, hashed.parts)
            && written.value != parts.value
        {
            let finding = begin(Severity::Error, FindingCode::SidecarInvalid, FIND_OUT);
            part.findings.push(finding.differs(format!("checksum {} of its parts", written.value), parts.value));
        }
        Ok(())
    }

    /// Reads the sidecar of an object; returns it if it stands and is the one that is meant.
    async fn check_sidecar(
        &self,
        evidence: &Evidence,
        named: &Named<'_>,
        part: &mut Checked<FixityTally>,
    ) -> Result<Option<Sidecar>, AuditError> {
        let (read, tally) = sidecar::read(&self.reach, evidence, named, self.archive.as_ref()).await?;
        part.tally.sidecars += u64::from(tally);
        let read = match read {
            Ok(Some(read)) => read,
            Ok(None) => return Ok(None),
            Err(finding) => {
                part.findings.push(*finding);
                return Ok(None);
            }
        };
        if named.sidecar.is_none() {
            self.compare_unnamed_sidecar(evidence, &read, part).await?;
        }
        if let Some(due) = promised_lock(&read.document).filter(|_| self.reach.keeps_locks()) {
            let version_id = read.version_id.as_deref();
            let shown = Shown::of(&self.reach, &read.key, version_id, read.lock).await?;
            part.tally.hidden_locks += u64::from(shown == Shown::Hidden);
            let begin = |severity, code, repair: &str| evidence.finding(severity, code, &read.key, version_id, repair);
            part.findings.extend(shown.weaker_than(due, "it promises itself").map(|weaker| weaker.finding(begin)));
        }
        Ok(Some(read.document))
    }

    /// Compares a sidecar whose digest no manifest tells with the store's checksum, where there is one.
    async fn compare_unnamed_sidecar(
        &self,
        evidence: &Evidence,
        read: &ReadSidecar,
        part: &mut Checked<FixityTally>,
    ) -> Result<(), AuditError> {
        let version_id = read.version_id.as_deref();
        let Told::Is(head) = self.reach.head(&read.key, version_id).await? else { return Ok(()) };
        match head.checksum.and_then(|checksum| checksum.full_digest()) {
            Some(kept) if kept == read.sha256 => {}
            Some(kept) => {
                let finding =
                    evidence.finding(Severity::Error, FindingCode::ObjectDigest, &read.key, version_id, FIND_OUT);
                let expected = format!("sha256 {kept}, according to the store");
                part.findings.push(finding.differs(expected, read.sha256));
            }
            None => part.tally.unchecked += 1,
        }
        Ok(())
    }
}

/// What came of hashing a body.
struct Hashed {
    sha256: Sha256Digest,
    size_bytes: u64,
    /// The checksum of its parts, where that was asked for.
    parts: Option<Checksum>,
}

/// Hashes a body as a whole and, if asked, in parts.
async fn hash(mut body: ObjectBody, part_size: Option<u64>) -> Result<Hashed, StoreError> {
    let mut whole = Hasher::default();
    let mut size_bytes = 0;
    let mut parts = Vec::new();
    let mut part = Hasher::default();
    let mut left = part_size.unwrap_or(u64::MAX).max(1);
    while let Some(chunk) = body.chunk().await? {
        size_bytes += chunk.len() as u64;
        whole.update(&chunk);
        let Some(part_size) = part_size else { continue };
        let mut rest = &chunk[..];
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(usize::try_from(left).unwrap_or(usize::MAX)));
            part.update(now);
            left -= now.len() as u64;
            rest = later;
            if left == 0 {
                parts.push(std::mem::take(&mut part).finish());
                left = part_size.max(1);
            }
        }
    }
    if part_size.is_some_and(|size| left != size.max(1)) {
        parts.push(part.finish());
    }
    Ok(Hashed { sha256: whole.finish(), size_bytes, parts: part_size.map(|_| Checksum::composite(&parts)) })
}

fn nothing_stands(session: &SessionId) -> Finding {
    Finding::of(Severity::Error, FindingCode::ManifestInvalid, RESTORE)
        .session(session)
        .differs("a manifest", "the store has nothing of the session")
}

/// Tells once, at the end, what was not asked of every object.
#[must_use]
pub fn closing_findings(reach: &Reach<'_>, mode: FixityMode, tally: &FixityTally) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !reach.shows_checksums() && mode == FixityMode::Head && tally.unchecked > 0 {
        let found = format!("{} objects were compared by their size only", tally.unchecked);
        let severity = if reach.keeps_checksums() { Severity::Warn } else { Severity::Info };
        findings.push(
            Finding::of(severity, FindingCode::ObjectUnchecked, "audit fixity --mode read")
                .differs("a store that keeps checksums", found),
        );
    }
    findings.extend(hidden_locks(tally.hidden_locks, Severity::Warn));
    findings
}
