//! Chain: every run record, its signature, its chunks, its place in a chain.
//!
//! Needs the store and the public keys, nothing else. Walks every chain once, in the order of its numbers, and each run it
//! names whole; then the folders of all runs, for what no chain names. Memory: a page of a listing, a document, a line, and
//! 16 bytes for each run; nothing that grows with sessions. Going on after a stop walks the chain again without a word up
//! to where it stopped, since each entry leans on the one before.

mod group;
pub(crate) mod lines;
mod manifests;
mod record;
mod report;
pub(crate) mod seal;
mod stray;

use std::collections::{BTreeMap, BTreeSet, HashSet};

use serde::Serialize;

pub use group::GroupSummary;
pub use report::ChainProgress;

use self::group::{OpenChain, Pending};
use self::manifests::AT_ONCE;
use self::record::Against;
use self::report::{ChainReport, RunMark};
use self::seal::Seals;
use super::reach::Reach;
use super::runner::{AuditEnd, AuditError, Runner};
use super::{Finding, FindingCode, Severity, archive, shadow};
use crate::ledger::Survey;
use crate::model::digest::Sha256Digest;
use crate::model::key::{ObjectKey, StoreObject};
use crate::model::signature::PublicKey;
use crate::store::ReadStore;
use crate::store::versions::{KeyVersions, KeyWalk};

/// The prefix of all chains.
const CHAINS: &str = "runs/chain/";

/// What to look at.
#[derive(Debug)]
pub struct ChainAudit<'a> {
    /// The store.
    pub store: &'a dyn ReadStore,
    /// The keys that may have signed; without one no signature is checked.
    pub keys: Vec<PublicKey>,
    /// Only these chains and their runs; all if there is none.
    pub groups: BTreeSet<String>,
    /// Digests of entries that were noted earlier.
    pub heads: Vec<Sha256Digest>,
    /// Read the manifests that lines name.
    pub manifests: bool,
    /// The ledger, where there is one, and the chain that this deployment adds to: the heads it knows must stand, too.
    pub known: Option<(&'a dyn Survey, String)>,
}

/// What only this audit tells.
#[derive(Debug, Default, Serialize)]
struct Details {
    /// By group.
    groups: BTreeMap<String, GroupSummary>,
    /// The keys that were given.
    keys: Vec<Sha256Digest>,
    /// The heads that were expected.
    heads: Vec<HeadPlace>,
    /// The numbers of the heads that the ledger knows, by group.
    ledger_heads: BTreeMap<String, u32>,
    /// Runs that wrote manifests and have no record, as those of versions that made none; with `--manifests`.
    runs_without_record: Option<usize>,
}

/// Where an expected head was found.
#[derive(Debug, Clone, Serialize)]
struct HeadPlace {
    sha256: Sha256Digest,
    group: Option<String>,
    number: Option<u32>,
    /// How many entries were added since.
    followed_by: Option<u32>,
}

/// One audit under way.
struct ChainWalk<'a> {
    audit: &'a ChainAudit<'a>,
    against: Against<'a>,
    runner: &'a mut Runner<ChainProgress>,
    /// What was looked at before.
    resumed_after: Option<ObjectKey>,
    /// The folders of the runs that a chain names.
    entered: HashSet<RunMark>,
    /// The same by run id, for the runs of manifests.
    recorded: BTreeSet<RunMark>,
    details: Details,
}

impl ChainAudit<'_> {
    /// Checks everything.
    ///
    /// # Errors
    /// As the store's and the ledger's; retryable: findings or progress cannot be written.
    pub async fn run(&self, runner: &mut Runner<ChainProgress>) -> Result<AuditEnd, AuditError> {
        let reach = Reach::of(self.store, AT_ONCE, false);
        let (archive, found) = archive::read(&reach, None).await?;
        runner.add_at_first(found)?;
        let mut walk = ChainWalk {
            audit: self,
            against: Against { reach, archive, seals: Seals::of(self.keys.clone()), manifests: self.manifests },
            resumed_after: runner.progress.after.clone(),
            runner,
            entered: HashSet::new(),
            recorded: BTreeSet::new(),
            details: Details {
                keys: self.keys.iter().map(PublicKey::id).collect(),
                heads: self.heads.iter().map(|sha256| HeadPlace::unknown(*sha256)).collect(),
                ..Details::default()
            },
        };
        walk.chains().await?;
        if walk.runner.stopped.is_none() {
            walk.strays().await?;
        }
        if walk.runner.stopped.is_none() {
            walk.conclude()?;
            walk.compare_ledger().await?;
        }
        Ok(walk.end())
    }

    fn is_asked(&self, group: &str) -> bool {
        self.groups.is_empty() || self.groups.contains(group)
    }
}

impl HeadPlace {
    const fn unknown(sha256: Sha256Digest) -> Self {
        Self { sha256, group: None, number: None, followed_by: None }
    }
}

impl ChainWalk<'_> {
    fn is_muted(&self, key: &ObjectKey) -> bool {
        self.resumed_after.as_ref().is_some_and(|after| key <= after)
    }

    /// Walks all chains, unless the audit is to stop.
    async fn chains(&mut self) -> Result<(), AuditError> {
        let prefixes: Vec<String> = if self.audit.groups.is_empty() {
            vec![CHAINS.to_owned()]
        } else {
            self.audit.groups.iter().map(|group| ObjectKey::chain_prefix(group)).collect()
        };
        for prefix in prefixes {
            self.chain(prefix).await?;
            if self.runner.stopped.is_some() {
                return Ok(());
            }
        }
        for group in &self.audit.groups {
            if !self.details.groups.contains_key(group) {
                let repair = "check the name of the group; if it existed, restore it from a copy of the bucket";
                let finding = Finding::of(Severity::Error, FindingCode::ChainGap, repair);
                let finding = finding.object(&ObjectKey::chain_entry(group, 1), None);
                self.runner.findings.add(&finding.differs("entry 1", "no chain with that name"))?;
            }
        }
        Ok(())
    }

    /// Walks the chains under a prefix, which follow one another, unless the audit is to stop.
    async fn chain(&mut self, prefix: String) -> Result<(), AuditError> {
        let mut keys = KeyWalk::of(self.audit.store, prefix);
        let mut group: Option<OpenChain> = None;
        let mut pending: Option<Pending> = None;
        loop {
            let listed = keys.next().await?;
            let role = listed.as_ref().map(|listed| listed.key.read());
            // The signature of an entry is listed right behind it; whatever else comes ends the entry.
            if let (Some(entry), Some(StoreObject::ChainSignature(name, number))) = (&mut pending, &role)
                && entry.is(name, *number)
            {
                entry.signature = listed;
                continue;
            }
            if let Some(entry) = pending.take() {
                if self.runner.is_stopping().await {
                    return Ok(());
                }
                self.enter(entry, &mut group).await?;
            }
            let (Some(listed), Some(role)) = (listed, role) else { break };
            match role {
                StoreObject::ChainEntry(name, number) => pending = Some(Pending::of(name, number, listed)),
                StoreObject::ChainSignature(..) => {
                    self.stray(&listed, FindingCode::RecordOrphan, "a signature without its document")?;
                }
                _ => self.stray(&listed, FindingCode::ObjectUnknown, "not written by this program")?,
            }
        }
        if let Some(group) = group {
            self.close(group)?;
        }
        Ok(())
    }

    fn stray(&mut self, listed: &KeyVersions, code: FindingCode, found: &str) -> Result<(), AuditError> {
        if self.is_muted(&listed.key) {
            return Ok(());
        }
        let version = listed.own_id();
        let finding = Finding::of(Severity::Error, code, "find out who wrote it, or what is missing next to it");
        self.runner
            .findings
            .add(&finding.object(&listed.key, version).differs("entries and their signatures", found))?;
        Ok(self.runner.findings.add_all(shadow::findings(listed))?)
    }

    /// Looks at an entry and the run it names.
    async fn enter(&mut self, entry: Pending, group: &mut Option<OpenChain>) -> Result<(), AuditError> {
        if group.as_ref().is_none_or(|group| group.name() != entry.group)
            && let Some(done) = group.replace(OpenChain::new(&entry.group))
        {
            self.close(done)?;
        }
        let Some(group) = group else { return Ok(()) };
        let key = entry.entry.key.clone();
        let is_muted = self.is_muted(&key);
        let mut report = ChainReport::to(self.runner, is_muted);
        let entered = group.enter(entry, &self.against, &mut report).await?;
        if let Some(sha256) = entered.sha256
            && let Some(head) = self.details.heads.iter_mut().find(|head| head.sha256 == sha256)
        {
            (head.group, head.number) = (Some(group.name().to_owned()), Some(entered.number));
        }
        if let Some((run_id, run_key)) = entered.run {
            self.recorded.insert(RunMark::of(run_id.as_str()));
            if !self.entered.insert(RunMark::of(record::folder_of(&run_key))) && !is_muted {
                let finding = Finding::of(Severity::Error, FindingCode::ChainTwice, "find out who entered it again");
                self.runner
                    .findings
                    .add(&finding.run(&run_id).object(&key, None).differs("a run once", "a run again"))?;
            }
        }
        if !is_muted {
            self.runner.progress.after = Some(key);
            self.runner.note()?;
        }
        Ok(())
    }

    fn close(&mut self, group: OpenChain) -> Result<(), AuditError> {
        let name = group.name().to_owned();
        let (summary, finding) = group.close(self.against.seals.are_checked());
        // Where it stopped before, this chain was not at its end, or the run after it had not begun.
        if let Some(finding) = finding {
            self.runner.findings.add(&finding)?;
        }
        self.details.groups.insert(name, summary);
        Ok(())
    }

    /// Says what follows from all that was seen together.
    fn conclude(&mut self) -> Result<(), AuditError> {
        let summaries = &self.details.groups;
        let checks_keys = self.against.seals.are_checked();
        if !checks_keys {
            let repair = "pass the public key, from outside the archive: --public-key FILE";
            let finding = Finding::of(Severity::Warn, FindingCode::ChainUnchecked, repair);
            self.runner.findings.add(&finding.differs("a key", "none: no signature was checked"))?;
        } else if summaries.is_empty() && self.audit.groups.is_empty() {
            let repair = "configure signing.private_key; if there were runs, restore runs/ from a copy of the bucket";
            let finding = Finding::of(Severity::Error, FindingCode::ChainUnsigned, repair);
            self.runner.findings.add(&finding.differs("runs signed by the given key", "no chain at all"))?;
        }
        for head in &mut self.details.heads {
            let last = head.group.as_ref().and_then(|group| summaries.get(group)).map(|group| group.last);
            head.followed_by = last.zip(head.number).map(|(last, number)| last.saturating_sub(number));
            if head.number.is_none() {
                let repair =
                    "restore the newest entries from a copy of the bucket; find out who removed or rewrote them";
                let finding = Finding::of(Severity::Error, FindingCode::ChainHead, repair);
                self.runner
                    .findings
                    .add(&finding.differs(format!("an entry with {}", head.sha256), "no such entry"))?;
            }
        }
        if self.audit.manifests {
            self.details.runs_without_record = Some(self.runner.progress.writers.difference(&self.recorded).count());
        }
        Ok(())
    }

    /// Holds the chains against the newest entries that the ledger knows.
    async fn compare_ledger(&mut self) -> Result<(), AuditError> {
        let Some((ledger, group)) = &self.audit.known else { return Ok(()) };
        let known = ledger.archive_id().await?;
        if known.is_none() || known != self.against.archive.id {
            // It tells of another store.
            return Ok(());
        }
        let mut groups: BTreeSet<&String> = self.details.groups.keys().collect();
        groups.insert(group);
        for group in groups.into_iter().filter(|group| self.audit.is_asked(group)) {
            let Some(head) = ledger.chain_head(group).await? else { continue };
            self.details.ledger_heads.insert(group.clone(), head.number);
            let key = ObjectKey::chain_entry(group, head.number);
            let found = self.against.reach.read_own(&key).await?.found().map(|document| document.sha256);
            if found != Some(head.sha256) {
                let repair =
                    "restore the newest entries from a copy of the bucket; find out who removed or rewrote them";
                let finding = Finding::of(Severity::Error, FindingCode::ChainHead, repair).object(&key, None);
                let found = found.map_or("nothing".to_owned(), |found| found.to_string());
                self.runner.findings.add(&finding.differs(format!("{}, as the ledger has it", head.sha256), found))?;
            }
        }
        Ok(())
    }

    /// Says what only this audit knows, and which heads to note.
    fn end(self) -> AuditEnd {
        let groups = self.details.groups.values();
        let heads: Vec<String> =
            groups.filter_map(|group| group.head_sha256).map(|head| format!("--expect-head {head}")).collect();
        let next = format!("note it outside the archive, and pass it next time: {}", heads.join(" "));
        AuditEnd {
            archive_id: self.against.archive.id,
            details: serde_json::to_value(&self.details).unwrap_or_default(),
            next: (!heads.is_empty()).then_some(next),
            ..AuditEnd::default()
        }
    }
}
