//! Chain: the record of a run entered behind all others of its group, once.
//!
//! An entry is claimed with a write where nothing stands; whoever comes second goes on to the next number, behind what
//! stands. The lowest number that was tried is written down first, so that a repeat meets its own entry. Only the archive's
//! version of a key is an entry; a number that is missing stays so, for the audit to find.

use super::{Put, RecordError, Recorder};
use crate::ledger::{ChainHead, RecordRow};
use crate::model::digest::Sha256Digest;
use crate::model::key::{ObjectKey, StoreObject};
use crate::model::manifest::document_payload;
use crate::model::run::{CHAIN_SCHEMA, ChainEntry};
use crate::model::{ArchiveId, RunId};
use crate::store::document::{read_document, read_own};
use crate::store::versions::KeyWalk;

/// Where a record is entered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entered {
    pub(super) number: u32,
    pub(super) key: ObjectKey,
    pub(super) sha256: Sha256Digest,
}

/// A record to be entered.
#[derive(Debug)]
pub(super) struct Entering<'a> {
    pub(super) archive_id: &'a ArchiveId,
    pub(super) group: &'a str,
    pub(super) run_key: &'a ObjectKey,
    pub(super) run_sha256: Sha256Digest,
}

/// What stands at the end of a chain.
#[derive(Debug, Default)]
struct End {
    /// The highest number of any key.
    number: u32,
    /// The last entry that stands: its digest.
    sha256: Option<Sha256Digest>,
    /// The entry of the run itself.
    own: Option<Entered>,
}

impl Recorder {
    /// Enters the record of a run in its chain, or finds that it is.
    pub(super) async fn enter(
        &self,
        row: &RecordRow,
        by: &RunId,
        entering: &Entering<'_>,
    ) -> Result<Entered, RecordError> {
        let known = self.ledger.chain_head(entering.group).await?;
        let mut end = match row.chain_from {
            Some(from) => self.look_for_own(row, entering, from, known).await?,
            None => self.look_for_end(entering.group, known).await?,
        };
        if row.chain_from.is_none() {
            let from = self.ledger.note_chain_from(&row.run_id, by, end.number + 1).await?;
            match from {
                None => return Err(RecordError::Lost(row.run_id.clone())),
                Some(from) if from != end.number + 1 => {
                    end = self.look_for_own(row, entering, from, known).await?;
                }
                Some(_) => {}
            }
        }
        let entered = match end.own {
            Some(entered) => entered,
            None => self.claim_number(row, entering, end).await?,
        };
        Ok(entered)
    }

    /// Claims the next number that is free.
    async fn claim_number(&self, row: &RecordRow, entering: &Entering<'_>, end: End) -> Result<Entered, RecordError> {
        let End { mut number, sha256: mut previous, .. } = end;
        loop {
            number += 1;
            let key = ObjectKey::chain_entry(entering.group, number);
            let payload = document_payload(&entering.entry(&row.run_id, number, previous));
            match self.put(&key, &payload, "application/json").await? {
                Put::Ours => {
                    let entered = Entered { number, key, sha256: payload.sha256() };
                    self.sign_entry(&entered, &payload.segments().concat()).await?;
                    return Ok(entered);
                }
                Put::Other(stands) => {
                    if names_run(&stands, &row.run_id) {
                        return self.take_own(row, entering, key, number, previous, &stands).await;
                    }
                    previous = Some(Sha256Digest::of(&stands));
                }
            }
        }
    }

    /// Finds the end of a chain, behind what the ledger knows of it.
    async fn look_for_end(&self, group: &str, known: Option<ChainHead>) -> Result<End, RecordError> {
        let mut end =
            End { number: known.map_or(0, |head| head.number), sha256: known.map(|head| head.sha256), own: None };
        let mut last = None;
        let mut entries = self.entries_behind(group, end.number);
        while let Some(listed) = entries.next().await? {
            if let StoreObject::ChainEntry(_, number) = listed.key.read() {
                end.number = end.number.max(number);
                last = listed.own.or(last);
            }
        }
        if let Some(last) = last {
            let document = read_document(self.store(), &last.key, last.version_id.as_deref()).await?;
            end.sha256 = document.map(|document| document.sha256).or(end.sha256);
        }
        Ok(end)
    }

    /// Looks for the entry of a run in all that stands from a number on.
    async fn look_for_own(
        &self,
        row: &RecordRow,
        entering: &Entering<'_>,
        from: u32,
        known: Option<ChainHead>,
    ) -> Result<End, RecordError> {
        let before = from.saturating_sub(1);
        let at_least = known.filter(|head| head.number <= before);
        let mut end = self.look_back(entering.group, before, at_least).await?;
        let mut entries = self.entries_behind(entering.group, before);
        while let Some(listed) = entries.next().await? {
            let StoreObject::ChainEntry(_, number) = listed.key.read() else { continue };
            end.number = number;
            let Some(own) = listed.own else { continue };
            let Some(found) = read_document(self.store(), &own.key, own.version_id.as_deref()).await? else { continue };
            if names_run(&found.bytes, &row.run_id) {
                let own = self.take_own(row, entering, own.key, number, end.sha256, &found.bytes).await?;
                return Ok(End { own: Some(own), ..end });
            }
            end.sha256 = Some(found.sha256);
        }
        Ok(end)
    }

    fn entries_behind(&self, group: &str, number: u32) -> KeyWalk<'_> {
        let last = (number > 0).then(|| ObjectKey::chain_entry(group, number));
        KeyWalk::of(self.store(), ObjectKey::chain_prefix(group)).behind(last)
    }

    /// Finds the entry before a number, which the first attempt went behind.
    async fn look_back(&self, group: &str, before: u32, known: Option<ChainHead>) -> Result<End, RecordError> {
        if let Some(head) = known.filter(|head| head.number == before) {
            return Ok(End { number: before, sha256: Some(head.sha256), own: None });
        }
        let mut number = before;
        while number > 0 {
            if let Some(found) = read_own(self.store(), &ObjectKey::chain_entry(group, number)).await? {
                return Ok(End { number: before, sha256: Some(found.sha256), own: None });
            }
            number -= 1;
        }
        Ok(End { number: before, ..End::default() })
    }

    /// Takes an entry that names the run and its record. It is signed only if it says all that ours would: whoever else
    /// wrote into the store must not get a signature for it.
    async fn take_own(
        &self,
        row: &RecordRow,
        entering: &Entering<'_>,
        key: ObjectKey,
        number: u32,
        previous: Option<Sha256Digest>,
        stands: &[u8],
    ) -> Result<Entered, RecordError> {
        let ours = entering.entry(&row.run_id, number, previous);
        let found = ChainEntry::parse(stands).filter(|found| found.run_sha256 == ours.run_sha256);
        let Some(found) = found else { return Err(RecordError::Conflict(key)) };
        let entered = Entered { number, key, sha256: Sha256Digest::of(stands) };
        if found == ours {
            self.sign_entry(&entered, stands).await?;
        }
        Ok(entered)
    }

    async fn sign_entry(&self, entered: &Entered, bytes: &[u8]) -> Result<(), RecordError> {
        match self.sign(bytes) {
            Some(signature) => self.put_signature(&entered.key, &signature).await,
            None => Ok(()),
        }
    }
}

impl Entering<'_> {
    fn entry(&self, run_id: &RunId, number: u32, previous_sha256: Option<Sha256Digest>) -> ChainEntry {
        ChainEntry {
            schema: CHAIN_SCHEMA.to_owned(),
            archive_id: self.archive_id.clone(),
            group: self.group.to_owned(),
            number,
            run_id: run_id.clone(),
            run_key: self.run_key.clone(),
            run_sha256: self.run_sha256,
            previous_sha256,
        }
    }
}

fn names_run(entry: &[u8], run_id: &RunId) -> bool {
    ChainEntry::parse(entry).is_some_and(|entry| entry.run_id == *run_id)
}
