//! Close: the last chunks, the document, its signature, its place in the chain; for this run, and for those that died.

use super::chain::Entering;
use super::chunk::sums_of;
use super::{Draft, Put, RecordError, Recorder};
use crate::ledger::{ClosedRecord, RecordRow, RecordState, SignedText};
use crate::model::digest::{Payload, Sha256Digest};
use crate::model::key::ObjectKey;
use crate::model::manifest::document_payload;
use crate::model::run::{ClockOffset, ClosedReason, RUN_SCHEMA, RunCounts, RunRecord, RunSource};
use crate::model::{ArchiveId, RunId};
use crate::store::document::read_own;

/// How many dead runs are looked for at once; a later run finds the rest.
const LAPSED_LIMIT: u32 = 100;

/// How a run ended, as only it knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// How the process exits.
    pub exit_code: u8,
    /// Why it ended.
    pub reason: ClosedReason,
    /// What it did.
    pub counts: RunCounts,
    /// The digest of its whole input, where that was read to its end.
    pub source_sha256: Option<Sha256Digest>,
    /// How many records came from it.
    pub records: u64,
}

/// A record that stands in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    /// Where it stands and is entered.
    pub record: ClosedRecord,
    /// The key of its entry.
    pub entry_key: ObjectKey,
    /// It is signed.
    pub is_signed: bool,
}

impl Recorder {
    /// Closes the record of this run; nothing if it is none, because the store is no archive yet.
    ///
    /// # Errors
    /// As the store's and the ledger's; then a later run closes it. [`RecordError::Lost`]: another one does so already.
    pub async fn close(&self, run_id: &RunId, ending: &Ending) -> Result<Option<Closed>, RecordError> {
        if self.archiver.identity.known().is_none() {
            self.ledger.forgo_record(run_id).await?;
            return Ok(None);
        }
        let now = self.clock.now();
        if !self.ledger.claim_closing(run_id, run_id, now, self.lapsed_before(now)).await? {
            return Err(RecordError::Lost(run_id.clone()));
        }
        self.finish(run_id, run_id, Some(ending)).await.map(Some)
    }

    /// Closes the records of runs that died, and returns how many. One that cannot be closed is told of and left to a
    /// later run.
    ///
    /// # Errors
    /// As the ledger's, when it is asked for them.
    pub async fn close_lapsed(&self, by: &RunId) -> Result<u64, RecordError> {
        if self.archiver.identity.known().is_none() {
            return Ok(0);
        }
        let now = self.clock.now();
        let mut closed = 0;
        for run in self.ledger.lapsed_runs(self.lapsed_before(now), LAPSED_LIMIT).await? {
            if run == *by {
                continue;
            }
            let now = self.clock.now();
            if !self.ledger.claim_closing(&run, by, now, self.lapsed_before(now)).await? {
                continue;
            }
            match self.finish(&run, by, None).await {
                Ok(entered) => {
                    closed += 1;
                    tracing::info!(run.id = %by, lapsed.run.id = %run, object.key = %entered.record.key, "closed the record of a run that died");
                }
                Err(error) => {
                    tracing::warn!(run.id = %by, lapsed.run.id = %run, error.code = %error.code(), "the record of a run that died is not closed yet: {error}");
                }
            }
        }
        Ok(closed)
    }

    /// Does what is left of closing a record that `by` has claimed.
    async fn finish(&self, run_id: &RunId, by: &RunId, ending: Option<&Ending>) -> Result<Closed, RecordError> {
        let lost = || RecordError::Lost(run_id.clone());
        let archive_id = self.archiver.identity.claim(&self.archiver.writer).await?;
        while self.store_chunk(run_id, by).await?.is_some() {}
        let row = self.ledger.record(run_id).await?.ok_or_else(lost)?;
        let document = if let Some(document) = row.document.clone() {
            document
        } else {
            let document = self.compose(&row, by, ending, archive_id).await?;
            self.ledger.note_document(run_id, by, &document).await?.ok_or_else(lost)?
        };
        let key = ObjectKey::run_record(run_id, row.started_at);
        let payload = Payload::of(document.text.into_bytes());
        if let Put::Other(_) = self.put(&key, &payload, "application/json").await? {
            return Err(RecordError::Conflict(key));
        }
        if let Some(signature) = &document.signature {
            self.put_signature(&key, signature).await?;
        }
        let group = draft_of(&row)?.group;
        let entering = Entering { archive_id, group: &group, run_key: &key, run_sha256: payload.sha256() };
        let entered = self.enter(&row, by, &entering).await?;
        let (sha256, number, entry_sha256) = (payload.sha256(), entered.number, entered.sha256);
        let record = ClosedRecord { key, sha256, group, number, entry_sha256 };
        if !self.ledger.close_record(run_id, by, &record).await?
            && self.ledger.record(run_id).await?.map(|row| row.state) != Some(RecordState::Closed)
        {
            return Err(lost());
        }
        Ok(Closed { record, entry_key: entered.key, is_signed: document.signature.is_some() })
    }

    /// Makes the document of what the ledger holds, and signs it.
    async fn compose(
        &self,
        row: &RecordRow,
        by: &RunId,
        ending: Option<&Ending>,
        archive_id: &ArchiveId,
    ) -> Result<SignedText, RecordError> {
        let draft = draft_of(row)?;
        let sums = sums_of(row)?;
        let archive = read_own(self.store(), &ObjectKey::archive()).await?;
        let offsets = ending.and_then(|_| self.store().clock_offsets());
        let record = RunRecord {
            schema: RUN_SCHEMA.to_owned(),
            archive_id: archive_id.clone(),
            archive_sha256: archive.map(|document| document.sha256),
            run_id: row.run_id.clone(),
            group: draft.group,
            version: row.version.clone(),
            started_at: row.started_at,
            finished_at: self.clock.now(),
            exit_code: ending.map(|ending| ending.exit_code),
            closed_by: by.clone(),
            closed_reason: ending.map_or(ClosedReason::Lapsed, |ending| ending.reason),
            actor: draft.actor,
            store_principal: draft.store_principal,
            source: RunSource {
                kind: row.source_kind.clone(),
                sha256: ending.and_then(|ending| ending.source_sha256),
                records: ending.map(|ending| ending.records),
            },
            config: draft.config,
            config_sha256: draft.config_sha256,
            counts: ending.map_or(sums.counts, |ending| ending.counts),
            chunks: self.ledger.chunks(&row.run_id).await?,
            items: sums.items,
            merkle_root: sums.tree.root(),
            clock_offset_ms: offsets.map(|(min, max)| ClockOffset { min, max }),
            key_id: self.signer.as_ref().map(|signer| signer.public().id()),
        };
        let bytes = document_payload(&record).segments().concat();
        let signature = self.sign(&bytes);
        let text = String::from_utf8(bytes).unwrap_or_else(|error| unreachable!("JSON is UTF-8: {error}"));
        Ok(SignedText { text, signature })
    }
}

fn draft_of(row: &RecordRow) -> Result<Draft, RecordError> {
    row.draft
        .as_deref()
        .and_then(|text| serde_json::from_str(text).ok())
        .ok_or_else(|| RecordError::Unreadable { run: row.run_id.clone(), what: "its draft" })
}
