//! Stray: what lies below `runs/` and belongs to no chain.
//!
//! A record that no chain names, chunks of a run that is not closed yet, and whatever this program does not write.

use super::record::folder_of;
use super::report::{ChainReport, RunMark};
use super::{CHAINS, ChainWalk};
use crate::audit::runner::AuditError;
use crate::audit::{Finding, FindingCode, Severity, shadow};
use crate::model::RunId;
use crate::model::key::{ObjectKey, StoreObject};
use crate::model::run::{ChainEntry, RunRecord};
use crate::store::versions::{KeyVersions, KeyWalk};

/// The prefix of all run records and chains.
const RUNS: &str = "runs/";

impl ChainWalk<'_> {
    /// Walks the folders of all runs, unless the audit is to stop.
    pub(super) async fn strays(&mut self) -> Result<(), AuditError> {
        let mut keys = KeyWalk::of(self.audit.store, RUNS);
        let mut folder: Vec<KeyVersions> = Vec::new();
        loop {
            let listed = keys.next().await?;
            let same =
                |listed: &KeyVersions| folder.first().is_some_and(|it| folder_of(&it.key) == folder_of(&listed.key));
            if let Some(listed) = listed.as_ref().filter(|listed| same(listed)) {
                folder.push(listed.clone());
                continue;
            }
            if self.runner.is_stopping().await {
                return Ok(());
            }
            self.stray_folder(std::mem::take(&mut folder)).await?;
            let Some(listed) = listed else { return Ok(()) };
            if listed.key.as_str().starts_with(CHAINS) {
                // A slash is followed by 0: behind everything below it.
                keys.skip_to(ObjectKey::from_store(format!("{}0", CHAINS.trim_end_matches('/'))));
            } else if !self.entered.contains(&RunMark::of(folder_of(&listed.key))) {
                folder.push(listed);
            }
        }
    }

    /// Looks at a folder that no chain names.
    async fn stray_folder(&mut self, folder: Vec<KeyVersions>) -> Result<(), AuditError> {
        let asks_for_all = self.audit.groups.is_empty();
        let own = || folder.iter().filter(|listed| listed.own.is_some());
        let record = own().find_map(|listed| match listed.key.read() {
            StoreObject::RunRecord(run) => Some((listed, run)),
            _ => None,
        });
        if let Some((listed, run)) = record {
            return self.stray_record(listed, &run).await;
        }
        if !asks_for_all {
            return Ok(());
        }
        let chunks: Vec<(&KeyVersions, RunId)> = own()
            .filter_map(|listed| match listed.key.read() {
                StoreObject::RunChunk(run, _) => Some((listed, run)),
                _ => None,
            })
            .collect();
        if let Some((listed, run)) = chunks.first() {
            let repair = "nothing while the run is in progress; the next run closes the record of one that died. Else find out \
                 who wrote it";
            let finding =
                Finding::of(Severity::Warn, FindingCode::RecordOpen, repair).run(run).object(&listed.key, None);
            let finding = finding.differs("a run record", format!("{} chunks without one", chunks.len()));
            self.runner.findings.add(&finding)?;
        }
        for listed in &folder {
            let (code, found) = match listed.key.read() {
                StoreObject::RunChunk(..) => continue,
                StoreObject::RunSignature(_) => (FindingCode::RecordOrphan, "a signature without its document"),
                StoreObject::RunRecord(_) => (FindingCode::RecordOrphan, "no version of the record itself"),
                _ => (FindingCode::ObjectUnknown, "not written by this program"),
            };
            let version = listed.own_id();
            let finding = Finding::of(Severity::Error, code, "find out who wrote it, or what is missing next to it");
            self.runner.findings.add(&finding.object(&listed.key, version).differs("run records", found))?;
        }
        Ok(self.runner.findings.add_all(folder.iter().flat_map(shadow::findings))?)
    }

    async fn stray_record(&mut self, listed: &KeyVersions, run: &RunId) -> Result<(), AuditError> {
        let version = listed.own_id();
        // What keeps it from being read is found where the record is checked.
        let document = self.against.reach.read(&listed.key, version).await?.found();
        let group = document.and_then(|document| RunRecord::parse(&document.bytes)).map(|record| record.group);
        if group.as_ref().is_some_and(|group| !self.audit.is_asked(group)) {
            return Ok(());
        }
        self.recorded.insert(RunMark::of(run.as_str()));
        if let Some(group) = &group
            && self.was_entered_since(group, &listed.key).await?
        {
            // The run ended while this audit went on; the next one looks at it.
            return Ok(());
        }
        let is_fresh = listed.own.as_ref().is_some_and(|own| self.against.is_fresh(own));
        let severity = if is_fresh { Severity::Warn } else { Severity::Error };
        let repair = "run once more: the next run enters one whose end was cut off. If it was entered, restore the \
                      entry from a copy of the bucket";
        let finding = Finding::of(severity, FindingCode::RecordUnchained, repair).run(run);
        let finding = finding.object(&listed.key, version).differs("an entry of a chain", "none names it");
        self.runner.findings.add(&finding)?;
        if is_fresh {
            return Ok(());
        }
        let mut report = ChainReport::to(self.runner, false);
        self.against.check(&listed.key, run, None, &mut report).await?;
        Ok(())
    }

    /// Tells whether a run was entered behind the last entry that this audit saw.
    async fn was_entered_since(&self, group: &str, run_key: &ObjectKey) -> Result<bool, AuditError> {
        let mut keys = KeyWalk::of(self.audit.store, ObjectKey::chain_prefix(group));
        if let Some(last) = self.details.groups.get(group).map(|summary| summary.last) {
            keys.skip_to(ObjectKey::chain_entry(group, last));
        }
        while let Some(listed) = keys.next().await? {
            let Some(own) = listed.own.filter(|own| matches!(own.key.read(), StoreObject::ChainEntry(..))) else {
                continue;
            };
            let document = self.against.reach.read(&own.key, own.version_id.as_deref()).await?.found();
            let entry = document.and_then(|document| ChainEntry::parse(&document.bytes));
            if entry.is_some_and(|entry| entry.run_key == *run_key) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
