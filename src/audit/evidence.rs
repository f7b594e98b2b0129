//! Evidence: what the store has of one session, read and compared by itself.
//!
//! Every manifest by the archive's own version, each held against its own key, the one before it and what the ledger and the
//! store know of it; and every key against the manifests. Whether the objects hold what the manifests say is for the
//! audits to find out. Finds nothing twice: what contradicts a digest is not read further.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::reach::{Reach, Told, refused};
use super::walk::WalkedSession;
use super::{Finding, FindingCode, Severity, shadow};
use crate::clock::Timestamp;
use crate::ledger::SessionRow;
use crate::model::digest::Sha256Digest;
use crate::model::key::{ObjectKey, SessionObject};
use crate::model::manifest::Manifest;
use crate::model::retention::Lock;
use crate::model::{ArchiveId, MediaId, SessionId};
use crate::store::versions::KeyVersions;
use crate::store::{ListedVersion, StoreError};

/// What repairs an object that is gone.
pub(super) const RESTORE: &str = "archive the session again while Veriff has it, else restore the object from a copy";

/// What repairs an object that was changed.
pub(super) const FIND_OUT: &str = "find out who changed it, and restore the named version from a copy";

/// What the store has of one session.
#[derive(Debug)]
pub struct Evidence {
    /// The session.
    pub session_id: SessionId,
    keys: BTreeMap<ObjectKey, KeyVersions>,
    /// All manifests that stand, in order.
    pub manifests: Vec<ManifestFacts>,
    /// The newest one that could be read.
    pub newest: Option<Manifest>,
    /// What was found wrong so far.
    pub findings: Vec<Finding>,
    /// The newest manifest could not be read; then nothing is said about keys that no manifest names.
    is_newest_unread: bool,
}

/// What is kept of a manifest once the next one is read.
#[derive(Debug)]
pub struct ManifestFacts {
    /// Where it stands.
    pub version: ListedVersion,
    /// Its number.
    pub sequence: u32,
    /// The digest of its bytes.
    pub sha256: Sha256Digest,
    /// Its lock, as it came with its bytes.
    pub lock: Option<Lock>,
    /// The media it names.
    pub media: Vec<ObjectKey>,
    /// When it was written.
    pub archived_at: Timestamp,
    /// The ledger, the store's checksum or a later manifest tells the digest that was found.
    pub is_vouched: bool,
}

impl Evidence {
    /// Sorts what was listed of a session and reads its manifests.
    ///
    /// # Errors
    /// As the store's.
    pub async fn read(
        reach: &Reach<'_>,
        archive: Option<&ArchiveId>,
        session_id: SessionId,
        walked: &WalkedSession,
        row: Option<&SessionRow>,
    ) -> Result<Self, StoreError> {
        let mut evidence = Self { is_newest_unread: false, ..Self::of_listing(session_id, walked) };
        evidence.read_manifests(reach, archive).await?;
        if let Some(row) = row {
            evidence.hold_against(row);
        }
        Ok(evidence)
    }

    /// Sorts what was listed of a session, and reads nothing.
    pub(super) fn of_listing(session_id: SessionId, walked: &WalkedSession) -> Self {
        let shadows = walked.keys.iter().flat_map(shadow::findings);
        Self {
            findings: shadows.map(|finding| finding.session(&session_id)).collect(),
            keys: walked.keys.iter().map(|listed| (listed.key.clone(), listed.clone())).collect(),
            session_id,
            manifests: Vec::new(),
            newest: None,
            is_newest_unread: true,
        }
    }

    /// Tells whether a manifest of the session stands, read or not.
    pub(super) fn has_manifest(&self) -> bool {
        self.newest_listed().is_some()
    }

    /// Returns the manifest with the highest number that stands, read or not.
    pub(super) fn newest_listed(&self) -> Option<(u32, &ListedVersion)> {
        let numbered = self.standing().filter_map(|(key, own)| match key.read_as(&self.session_id) {
            SessionObject::Manifest(number) => Some((number, own)),
            _ => None,
        });
        numbered.max_by_key(|(number, _)| *number)
    }

    /// Lists what stands, by key.
    pub(super) fn standing(&self) -> impl DoubleEndedIterator<Item = (&ObjectKey, &ListedVersion)> {
        self.keys.iter().filter_map(|(key, listed)| Some((key, listed.own.as_ref()?)))
    }

    /// Returns the archive's version of a key.
    #[must_use]
    pub fn own(&self, key: &ObjectKey) -> Option<&ListedVersion> {
        self.keys.get(key)?.own.as_ref()
    }

    /// Begins a finding about an object of this session.
    pub(super) fn finding(
        &self,
        severity: Severity,
        code: FindingCode,
        key: &ObjectKey,
        version_id: Option<&str>,
        repair: &str,
    ) -> Finding {
        Finding::of(severity, code, repair).session(&self.session_id).object(key, version_id)
    }

    fn error(&self, code: FindingCode, key: &ObjectKey, version_id: Option<&str>, repair: &str) -> Finding {
        self.finding(Severity::Error, code, key, version_id, repair)
    }

    /// Tells whether what a document names is in the listing: that version, as the archive's own of its key.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn named(&self, key: &ObjectKey, version_id: Option<&str>) -> Result<&ListedVersion, Box<Finding>> {
        let missing = |found: &str| {
            let of = if key.as_str().ends_with(".meta.json") {
                FindingCode::SidecarInvalid
            } else {
                FindingCode::ObjectMissing
            };
            let expected = version_id.map_or_else(|| "the object".to_owned(), |version| format!("version {version}"));
            Box::new(self.error(of, key, version_id, RESTORE).differs(expected, found))
        };
        match self.own(key) {
            None => Err(missing("nothing")),
            Some(own) if own.version_id.as_deref() != version_id => {
                Err(missing(&format!("version {}", own.version_id.as_deref().unwrap_or("null"))))
            }
            Some(own) => Ok(own),
        }
    }

    /// Lists the numbers of the manifests that stand, and says which are missing below the highest.
    fn numbers(&mut self) -> Vec<u32> {
        let numbered = |key: &ObjectKey| match key.read_as(&self.session_id) {
            SessionObject::Manifest(number) => Some(number),
            _ => None,
        };
        let standing: BTreeSet<u32> = self.standing().filter_map(|(key, _)| numbered(key)).collect();
        let highest = self.keys.keys().filter_map(numbered).max().unwrap_or(0);
        // A number that somebody made up must not make this a long list.
        let gaps = (1..=highest).filter(|number| !standing.contains(number)).take(standing.len() + 16);
        let gaps: Vec<ObjectKey> = gaps.map(|number| ObjectKey::manifest(&self.session_id, number)).collect();
        for key in gaps {
            let finding =
                self.error(FindingCode::ManifestInvalid, &key, None, RESTORE_MANIFEST).differs("a manifest", "nothing");
            self.findings.push(finding);
        }
        standing.into_iter().collect()
    }

    async fn read_manifests(&mut self, reach: &Reach<'_>, archive: Option<&ArchiveId>) -> Result<(), StoreError> {
        for sequence in self.numbers() {
            let key = ObjectKey::manifest(&self.session_id, sequence);
            let Some(version) = self.own(&key).cloned() else { continue };
            let version_id = version.version_id.as_deref();
            self.is_newest_unread = true;
            let document = match reach.read(&key, version_id).await? {
                Told::Is(document) => document,
                Told::Gone => {
                    let finding = self.error(FindingCode::ManifestInvalid, &key, version_id, RESTORE_MANIFEST);
                    self.findings.push(finding.differs("a manifest", "it is listed but cannot be opened"));
                    continue;
                }
                Told::Refused(error) => {
                    let begin = |severity, code, repair: &str| self.finding(severity, code, &key, version_id, repair);
                    self.findings.push(refused("a manifest", &error, begin));
                    continue;
                }
            };
            let is_vouched = self.compare_with_store(reach, &version, document.sha256).await?;
            let Some(manifest) = Manifest::parse(&document.bytes) else {
                let finding = self.error(FindingCode::ManifestInvalid, &key, version_id, RESTORE_MANIFEST);
                self.findings.push(finding.differs("a manifest", "something else"));
                // The next one's link tells whose digest it is.
                self.manifests.push(facts(version, sequence, document.sha256, document.lock, None, is_vouched));
                continue;
            };
            self.is_newest_unread = false;
            for what in contradictions(&manifest, &self.session_id, &key, sequence, archive) {
                let finding = self.error(FindingCode::ManifestInvalid, &key, version_id, RESTORE_MANIFEST);
                self.findings.push(finding.differs(what.0, what.1));
            }
            self.compare_with_previous(&manifest, &version);
            let lock = document.lock;
            self.manifests.push(facts(version, sequence, document.sha256, lock, Some(&manifest), is_vouched));
            self.newest = Some(manifest);
        }
        Ok(())
    }

    /// Compares the bytes of a manifest with the checksum that the store took when they were written.
    async fn compare_with_store(
        &mut self,
        reach: &Reach<'_>,
        version: &ListedVersion,
        sha256: Sha256Digest,
    ) -> Result<bool, StoreError> {
        if !reach.keeps_checksums() {
            return Ok(false);
        }
        let version_id = version.version_id.as_deref();
        let Told::Is(head) = reach.head(&version.key, version_id).await? else { return Ok(false) };
        match head.checksum.and_then(|checksum| checksum.full_digest()) {
            Some(kept) if kept == sha256 => Ok(true),
            Some(kept) => {
                let finding = self.error(FindingCode::ObjectDigest, &version.key, version_id, FIND_OUT);
                self.findings.push(finding.differs(format!("sha256 {kept}, according to the store"), sha256));
                Ok(false)
            }
            None => Ok(false),
        }
    }

    /// Holds a manifest against the one before it: the link between them, and that nothing is left out.
    fn compare_with_previous(&mut self, manifest: &Manifest, version: &ListedVersion) {
        let version_id = version.version_id.as_deref();
        let key = &version.key;
        let invalid = |evidence: &Self, expected: String, found: String| {
            evidence.error(FindingCode::ManifestInvalid, key, version_id, RESTORE_MANIFEST).differs(expected, found)
        };
        let mut found = Vec::new();
        match (self.manifests.last_mut(), &manifest.previous) {
            (None, None) => {}
            (None, Some(link)) => found.push(invalid(self, "no manifest before it".into(), link.key.to_string())),
            (Some(before), None) => {
                let expected = format!("a link to {}", before.version.key);
                found.push(invalid(self, expected, "none".into()));
            }
            (Some(before), Some(link)) => {
                let place = (&before.version.key, &before.version.version_id);
                if place != (&link.key, &link.version_id) {
                    let named = |key: &ObjectKey, version: Option<&str>| {
                        format!("a link to {key}{}", version.map(|id| format!(", version {id}")).unwrap_or_default())
                    };
                    let expected = named(place.0, place.1.as_deref());
                    found.push(invalid(self, expected, named(&link.key, link.version_id.as_deref())));
                } else if before.sha256 == link.sha256 {
                    before.is_vouched = true;
                } else {
                    let (key, id, sha256) =
                        (before.version.key.clone(), before.version.version_id.clone(), before.sha256);
                    let finding = self.error(FindingCode::ObjectDigest, &key, id.as_deref(), FIND_OUT);
                    let expected = format!("sha256 {}, according to the next manifest", link.sha256);
                    found.push(finding.differs(expected, sha256));
                }
            }
        }
        if let Some(before) = &self.newest {
            for (expected, what) in left_out(before, manifest) {
                found.push(invalid(self, expected, what));
            }
        }
        self.findings.extend(found);
    }

    /// Holds the manifests against the one that the ledger knows.
    fn hold_against(&mut self, row: &SessionRow) {
        let Some(known) = &row.manifest else { return };
        let version_id = known.version_id.as_deref();
        let Some(at) = self.manifests.iter().position(|facts| facts.version.key == known.key) else {
            // What cannot be read was said already.
            let is_told = self.findings.iter().any(|finding| finding.key.as_ref() == Some(&known.key));
            if self.own(&known.key).is_none() && !is_told {
                let finding = self.error(FindingCode::ManifestInvalid, &known.key, version_id, RESTORE_MANIFEST);
                let expected = format!("sha256 {}, according to the ledger", known.sha256);
                self.findings.push(finding.differs(expected, "nothing"));
            }
            return;
        };
        let facts = &mut self.manifests[at];
        if facts.sha256 == known.sha256 {
            facts.is_vouched = true;
        } else {
            let found = facts.sha256;
            let finding = self.error(FindingCode::ObjectDigest, &known.key, version_id, FIND_OUT);
            let expected = format!("sha256 {}, according to the ledger", known.sha256);
            self.findings.push(finding.differs(expected, found));
        }
        if self.manifests[at].version.version_id != known.version_id {
            let found = self.manifests[at].version.version_id.clone();
            let finding = self.error(FindingCode::ObjectMissing, &known.key, version_id, FIND_OUT);
            let text = |id: Option<&str>| format!("version {}", id.unwrap_or("null"));
            self.findings.push(finding.differs(text(version_id), text(found.as_deref())));
        }
    }

    /// Says what stands under keys that no manifest names.
    pub(super) fn unknown(&self) -> Vec<Finding> {
        if self.is_newest_unread {
            return Vec::new();
        }
        let mut named: HashSet<ObjectKey> = HashSet::new();
        if let Some(newest) = &self.newest {
            let objects = newest.media().map(|(_, media)| &media.key).chain(newest.conflicts.iter().map(|it| &it.key));
            for key in objects {
                named.insert(key.sidecar());
                named.insert(key.clone());
            }
        }
        let is_finished = self.newest.as_ref().is_some_and(|newest| newest.complete && newest.settled);
        self.strangers(&named, is_finished)
    }

    /// Says what stands under keys that are neither named nor documents of the session.
    pub(super) fn strangers(&self, named: &HashSet<ObjectKey>, is_finished: bool) -> Vec<Finding> {
        let severity = if is_finished { Severity::Error } else { Severity::Warn };
        let repair = if is_finished {
            "find out who wrote it; the archive does not name it and will not use it"
        } else {
            "run the session again: it uses what an interrupted run left; else find out who wrote it"
        };
        let is_document = |key: &ObjectKey| {
            matches!(key.read_as(&self.session_id), SessionObject::Manifest(_) | SessionObject::Expired(_))
        };
        self.keys
            .iter()
            .filter(|(key, _)| !named.contains(*key) && !is_document(key))
            .map(|(key, listed)| {
                self.finding(severity, FindingCode::ObjectUnknown, key, listed.own_id(), repair)
                    .differs("a key that the newest manifest names", "an object that it does not name")
            })
            .collect()
    }

    /// Counts manifests whose digest nothing else tells.
    pub(super) fn unvouched(&self) -> u64 {
        self.manifests.iter().filter(|facts| !facts.is_vouched).count() as u64
    }
}

/// What repairs a manifest.
const RESTORE_MANIFEST: &str = "restore the version that the ledger or a run record names, from a copy";

fn facts(
    version: ListedVersion,
    sequence: u32,
    sha256: Sha256Digest,
    lock: Option<Lock>,
    manifest: Option<&Manifest>,
    is_vouched: bool,
) -> ManifestFacts {
    let media = manifest.map(|manifest| manifest.media().map(|(_, media)| media.key.clone()).collect());
    let archived_at = manifest.map(|manifest| manifest.archived_at).or(version.modified_at);
    ManifestFacts {
        version,
        sequence,
        sha256,
        lock,
        media: media.unwrap_or_default(),
        archived_at: archived_at.unwrap_or_else(|| Timestamp::from_unix_seconds(0)),
        is_vouched,
    }
}

/// Lists what a manifest says that cannot be, by itself: what should be, and what is.
fn contradictions(
    manifest: &Manifest,
    session: &SessionId,
    key: &ObjectKey,
    sequence: u32,
    archive: Option<&ArchiveId>,
) -> Vec<(String, String)> {
    let mut found = Vec::new();
    if manifest.session_id != *session || manifest.sequence != sequence {
        found.push((key.to_string(), ObjectKey::manifest(&manifest.session_id, manifest.sequence).to_string()));
    }
    if let Some(archive) = archive.filter(|archive| **archive != manifest.archive_id) {
        found.push((format!("archive {archive}"), format!("archive {}", manifest.archive_id)));
    }
    let sum = Manifest::sum(&manifest.attempts);
    if sum != manifest.totals {
        let text = |media: u64, bytes: u64| format!("{media} items, {bytes} bytes in all");
        found.push((text(sum.media, sum.bytes), text(manifest.totals.media, manifest.totals.bytes)));
    }
    let mut seen = HashSet::new();
    for (attempt, media) in manifest.media() {
        let expected =
            SessionObject::Media { attempt_id: attempt.attempt_id.clone(), media_id: media.media_id.clone() };
        if media.key.read_as(session) != expected {
            found.push((format!("a key of media {}", media.media_id), media.key.to_string()));
        }
        if !seen.insert(&media.media_id) {
            found.push((format!("media {} once", media.media_id), "twice".to_owned()));
        }
    }
    for listing in &manifest.listings {
        let digest = listing.digest();
        if digest != Some(listing.sha256) {
            let digest = digest.map_or_else(|| "no body".to_owned(), |digest| digest.to_string());
            found.push((format!("a list with sha256 {}", listing.sha256), digest));
        }
    }
    found
}

/// Lists what a manifest leaves out of the one before it.
fn left_out(before: &Manifest, after: &Manifest) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let media: BTreeMap<&MediaId, Sha256Digest> =
        after.media().map(|(_, media)| (&media.media_id, media.sha256)).collect();
    for (_, item) in before.media() {
        match media.get(&item.media_id) {
            Some(sha256) if *sha256 == item.sha256 => {}
            Some(sha256) => {
                found.push((format!("media {} with sha256 {}", item.media_id, item.sha256), sha256.to_string()));
            }
            None => found.push((format!("media {}, as the manifest before it has", item.media_id), "nothing".into())),
        }
    }
    let attempts: HashSet<_> = after.attempts.iter().map(|attempt| &attempt.attempt_id).collect();
    for attempt in before.attempts.iter().filter(|attempt| !attempts.contains(&attempt.attempt_id)) {
        found.push((format!("attempt {}, as the manifest before it has", attempt.attempt_id), "nothing".into()));
    }
    let missing: HashSet<_> = after.missing.iter().map(|item| &item.media_id).collect();
    for item in before.missing.iter().filter(|it| !missing.contains(&it.media_id) && !media.contains_key(&it.media_id))
    {
        let expected = format!("missing media {}, as the manifest before it has", item.media_id);
        found.push((expected, "nothing".into()));
    }
    let conflicts: HashSet<_> = after.conflicts.iter().map(|item| (&item.key, item.sha256)).collect();
    for item in before.conflicts.iter().filter(|item| !conflicts.contains(&(&item.key, item.sha256))) {
        found.push((format!("conflict {}, as the manifest before it has", item.key), "nothing".into()));
    }
    found
}
