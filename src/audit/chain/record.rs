//! Record: one run's folder, whole: its document, its signature, its chunks and whatever else lies there.

use serde_json_canonicalizer::to_vec as canonical;

use super::lines::ChunkLines;
use super::manifests;
use super::report::{ChainReport, RESTORE};
use super::seal::{Seal, Seals, SignatureClaim};
use crate::audit::archive::Archive;
use crate::audit::reach::{Reach, Told, refused};
use crate::audit::runner::AuditError;
use crate::audit::{Finding, FindingCode, Severity, shadow};
use crate::model::RunId;
use crate::model::digest::Sha256Digest;
use crate::model::key::{ObjectKey, StoreObject};
use crate::model::merkle::{Tree, leaf};
use crate::model::run::{ChunkRef, RunLine, RunRecord};
use crate::store::document::Document;
use crate::store::versions::{KeyVersions, list_all};
use crate::store::{ListedVersion, StoreError};

/// How many lines are held against their manifests at a time.
const BATCH: usize = 64;

/// A run writes record, signature, entry and its signature one after another; each is tried for minutes at most.
const FRESH_MS: i64 = 5 * 60 * 1000;

/// What records are held against.
#[derive(Debug)]
pub(super) struct Against<'a> {
    pub(super) reach: Reach<'a>,
    pub(super) archive: Archive,
    pub(super) seals: Seals,
    /// Read the manifests that lines name.
    pub(super) manifests: bool,
}

/// What a chain says of a record.
#[derive(Debug, Clone)]
pub(super) struct EnteredRun<'a> {
    pub(super) group: &'a str,
    pub(super) run_sha256: Sha256Digest,
}

/// A record that was looked at.
#[derive(Debug)]
pub(super) struct InspectedRecord {
    /// The document; nothing if it is missing or cannot be read.
    pub(super) record: Option<RunRecord>,
    /// Its signature; nothing if there is no document.
    pub(super) seal: Option<Seal>,
}

impl Against<'_> {
    /// Tells whether an object was written so lately that what belongs to it may be on its way.
    pub(super) fn is_fresh(&self, version: &ListedVersion) -> bool {
        version.modified_at.is_some_and(|at| self.reach.store().now().millis_since(at) < FRESH_MS)
    }

    /// Looks at the record under a key, and at everything in its folder.
    ///
    /// # Errors
    /// As the store's, and as [`ChainReport::add`].
    pub(super) async fn check(
        &self,
        key: &ObjectKey,
        run: &RunId,
        entered: Option<EnteredRun<'_>>,
        report: &mut ChainReport<'_>,
    ) -> Result<InspectedRecord, AuditError> {
        let folder = folder_of(key);
        let listed = list_all(self.reach.store(), folder).await?;
        for finding in listed.iter().flat_map(shadow::findings) {
            report.add(finding.run(run))?;
        }
        let own = |key: &ObjectKey| listed.iter().find(|it| it.key == *key).and_then(|it| it.own.as_ref());
        let document = if let Some(version) = own(key) {
            self.read(version, report).await?
        } else {
            let finding = Finding::of(Severity::Error, FindingCode::ObjectMissing, RESTORE).run(run);
            report.add(finding.object(key, None))?;
            None
        };
        let Some(Document { bytes, sha256, .. }) = document else {
            Self::note_strangers(&listed, key, None, run, report)?;
            return Ok(InspectedRecord { record: None, seal: None });
        };
        report.count("records", 1);
        let version = own(key).and_then(|own| own.version_id.as_deref());
        if let Some(entered) = entered.as_ref().filter(|entered| entered.run_sha256 != sha256) {
            let finding = Finding::of(Severity::Error, FindingCode::ObjectDigest, RESTORE).run(run);
            report.add(finding.object(key, version).differs(entered.run_sha256, sha256))?;
        }
        let record = RunRecord::parse(&bytes);
        let claim = record.as_ref().map_or(SignatureClaim::Nothing, |record| {
            record.key_id.map_or(SignatureClaim::Unsigned, SignatureClaim::By)
        });
        let signature = own(&key.signature());
        let seal = self.seals.check(&self.reach, key, &bytes, signature, claim, report).await?;
        if let Some(record) = &record {
            self.check_document(key, run, version, record, entered, report)?;
            if !report.is_muted() {
                self.check_chunks(record, own, report).await?;
            }
        } else {
            let finding = Finding::of(Severity::Error, FindingCode::RecordInvalid, RESTORE).run(run);
            report.add(finding.object(key, version).differs("a run record", "something else"))?;
        }
        Self::note_strangers(&listed, key, record.as_ref(), run, report)?;
        Ok(InspectedRecord { record, seal: Some(seal) })
    }

    async fn read(
        &self,
        version: &ListedVersion,
        report: &mut ChainReport<'_>,
    ) -> Result<Option<Document>, AuditError> {
        let version_id = version.version_id.as_deref();
        let begin = |severity, code, repair: &str| Finding::of(severity, code, repair).object(&version.key, version_id);
        report.add(match self.reach.read(&version.key, version_id).await? {
            Told::Is(document) => {
                report.count("bytes", document.bytes.len() as u64);
                return Ok(Some(document));
            }
            Told::Gone => begin(Severity::Error, FindingCode::ObjectMissing, RESTORE),
            Told::Refused(error @ StoreError::TooLarge { .. }) => {
                begin(Severity::Error, FindingCode::RecordInvalid, RESTORE).differs("a document", error)
            }
            Told::Refused(error) => refused("a document", &error, begin),
        })?;
        Ok(None)
    }

    /// Holds a record against its key, its chain and its archive.
    fn check_document(
        &self,
        key: &ObjectKey,
        run: &RunId,
        version: Option<&str>,
        record: &RunRecord,
        entered: Option<EnteredRun<'_>>,
        report: &mut ChainReport<'_>,
    ) -> Result<(), AuditError> {
        let mut invalid = |code, expected: String, found: String| {
            let repair = "restore the first version; find out who wrote this";
            report
                .add(Finding::of(Severity::Error, code, repair).run(run).object(key, version).differs(expected, found))
        };
        let named = ObjectKey::run_record(&record.run_id, record.started_at);
        if named != *key {
            invalid(FindingCode::RecordInvalid, format!("the record of {key}"), format!("the record of {named}"))?;
        }
        if let Some(entered) = entered.filter(|entered| entered.group != record.group) {
            let (expected, found) = (format!("group {}", entered.group), format!("group {}", record.group));
            invalid(FindingCode::RecordInvalid, expected, found)?;
        }
        if let Some(archive) = self.archive.id.as_ref().filter(|archive| **archive != record.archive_id) {
            let (expected, found) = (format!("archive {archive}"), format!("archive {}", record.archive_id));
            invalid(FindingCode::ArchiveInvalid, expected, found)?;
        }
        if let (Some(named), Some(stands)) = (record.archive_sha256, self.archive.sha256)
            && named != stands
        {
            invalid(FindingCode::ArchiveInvalid, format!("archive.json with {named}"), stands.to_string())?;
        }
        let config = canonical(&record.config).map(|bytes| Sha256Digest::of(&bytes)).ok();
        if config != Some(record.config_sha256) {
            let found = config.map_or("not canonical JSON".to_owned(), |digest| digest.to_string());
            invalid(FindingCode::RecordInvalid, format!("a configuration with {}", record.config_sha256), found)?;
        }
        for (number, chunk) in (1..).zip(&record.chunks) {
            let named = ObjectKey::run_chunk(&record.run_id, record.started_at, number);
            if named != chunk.key {
                invalid(FindingCode::RecordInvalid, format!("chunk {named}"), format!("chunk {}", chunk.key))?;
            }
        }
        Ok(())
    }

    /// Reads every chunk, and holds the sums and the Merkle root against the record.
    async fn check_chunks<'l>(
        &self,
        record: &RunRecord,
        own: impl Fn(&ObjectKey) -> Option<&'l ListedVersion>,
        report: &mut ChainReport<'_>,
    ) -> Result<(), AuditError> {
        let mut tree = Tree::default();
        let mut items = 0;
        let mut is_whole = true;
        for chunk in &record.chunks {
            let found = if let Some(version) = own(&chunk.key) {
                self.check_chunk(record, chunk, version, &mut tree, report).await?
            } else {
                let finding = Finding::of(Severity::Error, FindingCode::ObjectMissing, RESTORE).run(&record.run_id);
                report.add(finding.object(&chunk.key, None).differs(chunk.sha256, "nothing"))?;
                None
            };
            match found {
                Some(found) => items += found,
                None => is_whole = false,
            }
        }
        if !is_whole {
            // Said already; the root of what is left would be another in any case.
            return Ok(());
        }
        let key = ObjectKey::run_record(&record.run_id, record.started_at);
        let invalid = |expected: String, found: String| {
            let repair = "find out who wrote the record: it contradicts its own chunks";
            let finding = Finding::of(Severity::Error, FindingCode::RecordInvalid, repair).run(&record.run_id);
            finding.object(&key, None).differs(expected, found)
        };
        if items != record.items {
            report.add(invalid(format!("{} items", record.items), format!("{items} items")))?;
        }
        if tree.root() != record.merkle_root {
            report.add(invalid(format!("Merkle root {}", record.merkle_root), tree.root().to_string()))?;
        }
        Ok(())
    }

    /// Reads one chunk, adds its lines to the tree and returns how many items they name; nothing if it cannot be read.
    async fn check_chunk(
        &self,
        record: &RunRecord,
        chunk: &ChunkRef,
        version: &ListedVersion,
        tree: &mut Tree,
        report: &mut ChainReport<'_>,
    ) -> Result<Option<u64>, AuditError> {
        let Some(Document { bytes, sha256, .. }) = self.read(version, report).await? else { return Ok(None) };
        let finding = |code| {
            let finding = Finding::of(Severity::Error, code, RESTORE).run(&record.run_id);
            finding.object(&chunk.key, version.version_id.as_deref())
        };
        if sha256 != chunk.sha256 {
            report.add(finding(FindingCode::ObjectDigest).differs(chunk.sha256, sha256))?;
            return Ok(None);
        }
        report.count("chunks", 1);
        let (mut count, mut items) = (0, 0);
        let mut batch = Vec::new();
        let mut lines = ChunkLines::of(&bytes);
        loop {
            let line = match lines.next() {
                Ok(Some(line)) => line,
                Ok(None) => break,
                Err(error) => {
                    report.add(finding(FindingCode::RecordInvalid).differs("lines in gzip", error))?;
                    return Ok(None);
                }
            };
            count += 1;
            tree.push(leaf(line));
            let Some(line) = RunLine::parse(line) else {
                report.add(
                    finding(FindingCode::RecordInvalid).differs("a line", format!("line {count} is not a run line")),
                )?;
                continue;
            };
            items += line.items.len() as u64;
            if self.manifests {
                batch.push(line);
                if batch.len() == BATCH {
                    self.check_manifests(std::mem::take(&mut batch), &record.run_id, report).await?;
                }
            }
        }
        self.check_manifests(batch, &record.run_id, report).await?;
        report.count("lines", count);
        report.count("items", items);
        if (count, items) != (chunk.sessions, chunk.items) {
            let expected = format!("{} lines with {} items", chunk.sessions, chunk.items);
            let found = format!("{count} lines with {items} items");
            report.add(finding(FindingCode::RecordInvalid).differs(expected, found))?;
        }
        Ok(Some(items))
    }

    async fn check_manifests(
        &self,
        lines: Vec<RunLine>,
        run: &RunId,
        report: &mut ChainReport<'_>,
    ) -> Result<(), AuditError> {
        for looked in manifests::look(&self.reach, self.archive.id.as_ref(), lines).await? {
            report.count("manifests", u64::from(looked.written_by.is_some()));
            for finding in looked.findings {
                report.add(finding.run(run))?;
            }
            if let Some(written_by) = looked.written_by {
                report.note_writer(&written_by);
            }
        }
        Ok(())
    }

    /// Says what lies in the folder of a run that its record does not name.
    fn note_strangers(
        listed: &[KeyVersions],
        key: &ObjectKey,
        record: Option<&RunRecord>,
        run: &RunId,
        report: &mut ChainReport<'_>,
    ) -> Result<(), AuditError> {
        let signature = key.signature();
        for found in listed.iter().filter(|listed| listed.key != *key && listed.own.is_some()) {
            let is_named = match found.key.read() {
                StoreObject::RunSignature(_) => {
                    found.key == signature && record.is_none_or(|record| record.key_id.is_some())
                }
                // Without a record nobody knows its chunks; what is wrong then was said.
                StoreObject::RunChunk(..) => {
                    record.is_none_or(|record| record.chunks.iter().any(|chunk| chunk.key == found.key))
                }
                _ => false,
            };
            if !is_named {
                let version = found.own_id();
                let repair = "find out who wrote it; no record names it";
                let finding = Finding::of(Severity::Error, FindingCode::RecordOrphan, repair).run(run);
                report.add(finding.object(&found.key, version))?;
            }
        }
        Ok(())
    }
}

/// Returns the folder of an object, with its slash.
pub(super) fn folder_of(key: &ObjectKey) -> &str {
    let key = key.as_str();
    &key[..key.rfind('/').map_or(0, |at| at + 1)]
}
