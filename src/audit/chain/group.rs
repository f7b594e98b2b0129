//! Group: one chain, entry by entry, with no more in memory than the entry before.

use serde::Serialize;

use super::record::{Against, EnteredRun};
use super::report::{ChainReport, RESTORE};
use super::seal::{Seal, SignatureClaim};
use crate::audit::reach::{Told, refused};
use crate::audit::runner::AuditError;
use crate::audit::{Finding, FindingCode, Severity, shadow};
use crate::clock::Timestamp;
use crate::model::RunId;
use crate::model::digest::Sha256Digest;
use crate::model::key::{ObjectKey, StoreObject};
use crate::model::run::{ChainEntry, ClosedReason};
use crate::store::StoreError;
use crate::store::document::Document;
use crate::store::versions::KeyVersions;

/// What a chain is, in figures.
#[derive(Debug, Clone, Default, Serialize)]
pub struct GroupSummary {
    /// How many entries it has.
    pub entries: u64,
    /// The number of the last one.
    pub last: u32,
    /// The key of the last one.
    pub head_key: Option<ObjectKey>,
    /// The digest of its bytes: what to note outside the archive.
    pub head_sha256: Option<Sha256Digest>,
    /// When the first run ended.
    pub first_finished_at: Option<Timestamp>,
    /// When the last one ended.
    pub last_finished_at: Option<Timestamp>,
    /// Runs whose record and entry are signed by a given key.
    pub signed: u64,
    /// Runs of which one of the two is not.
    pub unsigned: u64,
    /// Runs that were found dead and closed by another.
    pub lapsed: u64,
}

/// An entry as it was listed.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) group: String,
    pub(super) number: u32,
    pub(super) entry: KeyVersions,
    pub(super) signature: Option<KeyVersions>,
}

/// An entry that was looked at.
#[derive(Debug)]
pub(super) struct InspectedEntry {
    pub(super) number: u32,
    /// The digest of its bytes.
    pub(super) sha256: Option<Sha256Digest>,
    /// The run it names.
    pub(super) run: Option<(RunId, ObjectKey)>,
}

/// A chain under way.
#[derive(Debug)]
pub(super) struct OpenChain {
    name: String,
    /// The digest of the entry before; nothing if that is not known.
    previous: Option<Sha256Digest>,
    /// Runs without a good signature before the first one with one.
    unsigned_first: u64,
    summary: GroupSummary,
}

impl Pending {
    pub(super) const fn of(group: String, number: u32, entry: KeyVersions) -> Self {
        Self { group, number, entry, signature: None }
    }

    pub(super) fn is(&self, group: &str, number: u32) -> bool {
        self.group == group && self.number == number
    }
}

impl OpenChain {
    pub(super) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), previous: None, unsigned_first: 0, summary: GroupSummary::default() }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Looks at the next entry and at the run it names.
    ///
    /// # Errors
    /// As the store's, and as [`ChainReport::add`].
    pub(super) async fn enter(
        &mut self,
        pending: Pending,
        against: &Against<'_>,
        report: &mut ChainReport<'_>,
    ) -> Result<InspectedEntry, AuditError> {
        let Pending { number, entry: listed, signature, .. } = pending;
        for finding in shadow::findings(&listed).chain(signature.iter().flat_map(shadow::findings)) {
            report.add(finding)?;
        }
        let mut looked = InspectedEntry { number, sha256: None, run: None };
        let follows = self.follow(number, &listed.key, report)?;
        let Some(Document { bytes, sha256, .. }) = self.read(&listed, against, report).await? else {
            self.previous = None;
            return Ok(looked);
        };
        looked.sha256 = Some(sha256);
        let previous = self.previous.replace(sha256);
        self.summary.entries += 1;
        report.count("entries", 1);
        (self.summary.head_key, self.summary.head_sha256) = (Some(listed.key.clone()), Some(sha256));
        let signature = signature.as_ref().and_then(|signature| signature.own.as_ref());
        let entry_seal = against
            .seals
            .check(&against.reach, &listed.key, &bytes, signature, SignatureClaim::Nothing, report)
            .await?;
        let version = listed.own_id();
        let broken = |expected: String, found: String| {
            let finding = Finding::of(Severity::Error, FindingCode::ChainBroken, RESTORE);
            finding.object(&listed.key, version).differs(expected, found)
        };
        let Some(entry) = ChainEntry::parse(&bytes) else {
            report.add(broken("an entry of a chain".to_owned(), "something else".to_owned()))?;
            return Ok(looked);
        };
        for (expected, found) in self.contradictions(&entry, number, against) {
            report.add(broken(expected, found).run(&entry.run_id))?;
        }
        if follows && entry.previous_sha256 != previous {
            let text = |digest: Option<Sha256Digest>| digest.map_or("nothing".to_owned(), |it| it.to_string());
            let (expected, found) = (text(previous), text(entry.previous_sha256));
            report.add(broken(format!("after {expected}"), format!("after {found}")).run(&entry.run_id))?;
        }
        if entry.run_key.read() != StoreObject::RunRecord(entry.run_id.clone()) {
            let (expected, found) = (format!("the record of run {}", entry.run_id), entry.run_key.to_string());
            report.add(broken(expected, found).run(&entry.run_id))?;
            return Ok(looked);
        }
        let entered = EnteredRun { group: &self.name, run_sha256: entry.run_sha256 };
        let seen = against.check(&entry.run_key, &entry.run_id, Some(entered), report).await?;
        if let Some(record) = &seen.record {
            self.summary.first_finished_at.get_or_insert(record.finished_at);
            self.summary.last_finished_at = Some(record.finished_at);
            self.summary.lapsed += u64::from(record.closed_reason == ClosedReason::Lapsed);
        }
        let is_fresh = listed.own.as_ref().is_some_and(|own| against.is_fresh(own));
        self.judge(&listed.key, &entry.run_id, [Some(entry_seal), seen.seal], is_fresh, against, report)?;
        looked.run = Some((entry.run_id, entry.run_key));
        Ok(looked)
    }

    /// Tells whether this number follows the one before, and says which are missing if not.
    fn follow(&mut self, number: u32, key: &ObjectKey, report: &mut ChainReport<'_>) -> Result<bool, AuditError> {
        let expected = self.summary.last + 1;
        // The first of all follows nothing, which is known too.
        let is_known = self.previous.is_some() || expected == 1;
        self.summary.last = number;
        if number == expected {
            return Ok(is_known);
        }
        let missing = if number - expected == 1 {
            format!("entry {expected}")
        } else {
            format!("entries {expected} to {}", number - 1)
        };
        let repair = "restore what is missing from a copy of the bucket; find out who removed it";
        let finding = Finding::of(Severity::Error, FindingCode::ChainGap, repair);
        report.add(finding.object(key, None).differs(missing, format!("entry {number}")))?;
        Ok(false)
    }

    async fn read(
        &self,
        listed: &KeyVersions,
        against: &Against<'_>,
        report: &mut ChainReport<'_>,
    ) -> Result<Option<Document>, AuditError> {
        let begin = |severity, code, repair: &str| Finding::of(severity, code, repair).object(&listed.key, None);
        let told = match &listed.own {
            Some(own) => against.reach.read(&own.key, own.version_id.as_deref()).await?,
            None => Told::Gone,
        };
        let gap = begin(Severity::Error, FindingCode::ChainGap, RESTORE);
        report.add(match told {
            Told::Is(document) => return Ok(Some(document)),
            Told::Gone => gap.differs("an entry of a chain", "nothing"),
            Told::Refused(error @ StoreError::TooLarge { .. }) => gap.differs("an entry of a chain", error),
            Told::Refused(error) => refused("an entry of a chain", &error, begin),
        })?;
        Ok(None)
    }

    /// Holds an entry against the key it stands under.
    fn contradictions(&self, entry: &ChainEntry, number: u32, against: &Against<'_>) -> Vec<(String, String)> {
        let mut found = Vec::new();
        if entry.group != self.name {
            found.push((format!("group {}", self.name), format!("group {}", entry.group)));
        }
        if entry.number != number {
            found.push((format!("number {number}"), format!("number {}", entry.number)));
        }
        if let Some(archive) = against.archive.id.as_ref().filter(|archive| **archive != entry.archive_id) {
            found.push((format!("archive {archive}"), format!("archive {}", entry.archive_id)));
        }
        found
    }

    /// Judges what is not signed: before the first signed run nobody had a key yet, after it somebody took one away.
    fn judge(
        &mut self,
        key: &ObjectKey,
        run: &RunId,
        seals: [Option<Seal>; 2],
        is_fresh: bool,
        against: &Against<'_>,
        report: &mut ChainReport<'_>,
    ) -> Result<(), AuditError> {
        let is_signed = seals.iter().all(|seal| seal.is_some_and(Seal::is_good));
        let has_key = self.summary.signed > 0 || seals.iter().flatten().any(|seal| seal.is_good());
        if is_signed {
            self.summary.signed += 1;
        } else {
            self.summary.unsigned += 1;
        }
        if !against.seals.are_checked() {
            return Ok(());
        }
        if is_signed && self.summary.signed == 1 && self.unsigned_first > 0 {
            let repair = "nothing, if the key was created later; these are as safe as the first signed entry";
            let finding = Finding::of(Severity::Warn, FindingCode::ChainUnsigned, repair).object(key, None);
            report.add(finding.differs("signed runs", format!("{} unsigned before this one", self.unsigned_first)))?;
        }
        if !has_key {
            self.unsigned_first += 1;
            return Ok(());
        }
        // What is broken was reported where it was found.
        if seals.contains(&Some(Seal::None)) {
            let repair = "restore the signature from a copy of the bucket; if a worker ran without a key, configure \
                          one";
            // The signature is written right behind the entry, which may be this moment.
            let severity = if is_fresh { Severity::Warn } else { Severity::Error };
            let finding = Finding::of(severity, FindingCode::ChainUnsigned, repair).run(run);
            let found = if seals[0] == Some(Seal::None) { "no signature of the entry" } else { "an unsigned record" };
            report.add(finding.object(key, None).differs("signed, like the runs before it", found))?;
        }
        Ok(())
    }

    /// Ends a chain, and says if none of it is signed.
    pub(super) fn close(self, checks_keys: bool) -> (GroupSummary, Option<Finding>) {
        let finding = (checks_keys && self.summary.signed == 0).then(|| {
            let repair = "pass the right public key; configure signing.private_key for future runs";
            let finding = Finding::of(Severity::Error, FindingCode::ChainUnsigned, repair);
            finding
                .object(&ObjectKey::chain_entry(&self.name, self.summary.last), None)
                .differs("runs signed by a given key", format!("none of {}", self.summary.entries))
        });
        (self.summary, finding)
    }
}
