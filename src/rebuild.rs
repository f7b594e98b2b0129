//! Rebuild: a ledger made of what the store says.
//!
//! Reads every manifest of every session, oldest version first, and takes them in order as the visits that wrote them were
//! taken; then every run that a chain names. Repeating it changes nothing, and what a ledger knows better never goes back,
//! so it also mends one that lost rows. What only a ledger ever knew is gone: see docs/ledger.md, Rebuilding.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use serde::Serialize;
use tokio::time::Instant;

use crate::audit::chain::keys::{KeyWalk, read};
use crate::audit::walk::{Walk, WalkedSession};
use crate::audit::{Finding, FindingCode, Findings, Severity};
use crate::ledger::{ClosedRecord, ClosedRun, Ledger, LedgerError, ManifestRef, MediaRow, SessionEntry, State};
use crate::model::ArchiveId;
use crate::model::digest::Sha256Digest;
use crate::model::key::{ObjectKey, SessionObject, StoreObject};
use crate::model::manifest::Manifest;
use crate::model::record::SessionRecord;
use crate::model::run::{ChainEntry, RunCounts, RunRecord};
use crate::stop::Stop;
use crate::store::{ListedVersion, Store, StoreError};
use crate::summary::Stopped;

/// How many sessions are read at once.
const SESSIONS_IN_FLIGHT: usize = 16;

/// How often a line tells how far it is.
const PROGRESS_INTERVAL: Duration = Duration::from_mins(1);

/// What a ledger is made of.
#[derive(Debug)]
pub struct Rebuild<'a> {
    /// The store.
    pub store: &'a dyn Store,
    /// The ledger to fill.
    pub ledger: &'a dyn Ledger,
    /// The archive that the store is.
    pub archive: ArchiveId,
    /// How long Veriff keeps media, by integration.
    pub horizons: BTreeMap<String, Duration>,
    /// The address of the store, as runs note it.
    pub store_url: String,
    /// Tells when to stop.
    pub stop: Stop,
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, schemars::JsonSchema)]
pub struct Rebuilt {
    /// Sessions that the ledger did not know.
    pub new: u64,
    /// Sessions of which it knew an earlier manifest, or none.
    pub updated: u64,
    /// Sessions that it knew already.
    pub unchanged: u64,
    /// Manifests that were read.
    pub manifests: u64,
    /// Items of the newest manifests.
    pub items: u64,
    /// Runs that it did not know.
    pub runs: u64,
}

/// Why a rebuild could not go on.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// The store.
    #[error("the store could not be read")]
    Store(#[from] StoreError),
    /// The ledger.
    #[error("the ledger could not be filled")]
    Ledger(#[from] LedgerError),
    /// A problem could not be told.
    #[error("a problem could not be told")]
    Output(#[from] std::io::Error),
}

/// What one session's manifests say, in the order in which they were written.
type Visits = (Vec<SessionEntry>, Vec<Finding>);

impl Rebuild<'_> {
    /// Fills the ledger. What cannot be read is told and passed over.
    ///
    /// # Errors
    /// Retryable: store or ledger do not answer; what was done stays done.
    pub async fn run(&self, problems: &mut Findings) -> Result<(Rebuilt, Option<Stopped>), RebuildError> {
        let mut rebuilt = Rebuilt::default();
        let walked = stream::unfold(Some(Walk::of(self.store, None)), |walk| async move {
            let mut walk = walk?;
            match walk.next().await {
                Ok(Some(walked)) => Some((Ok(walked), Some(walk))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        });
        let mut sessions = Box::pin(walked.map(async |walked| self.visits(walked?).await).buffered(SESSIONS_IN_FLIGHT));
        let mut told_at = Instant::now();
        let mut stopped = Box::pin(self.stop.requested());
        loop {
            let next = tokio::select! {
                biased;
                stopped = &mut stopped => return Ok((rebuilt, Some(stopped))),
                next = sessions.next() => next,
            };
            let Some(visits) = next else { break };
            let (visits, found) = visits?;
            for finding in &found {
                problems.add(finding)?;
            }
            self.take(visits, &mut rebuilt).await?;
            if told_at.elapsed() >= PROGRESS_INTERVAL {
                told_at = Instant::now();
                let sessions = rebuilt.new + rebuilt.updated + rebuilt.unchanged;
                tracing::info!(sessions, manifests = rebuilt.manifests, "the ledger is being rebuilt");
            }
        }
        self.runs(problems, &mut rebuilt).await?;
        Ok((rebuilt, None))
    }

    /// Takes the visits of one session that the ledger does not know yet.
    async fn take(&self, visits: Vec<SessionEntry>, rebuilt: &mut Rebuilt) -> Result<(), LedgerError> {
        let Some(newest) = visits.last() else { return Ok(()) };
        let known = self.ledger.session(&newest.record.session_id).await?;
        let known_sequence =
            known.as_ref().and_then(|row| row.manifest.as_ref()).map_or(0, |manifest| manifest.sequence);
        let sequence = |entry: &SessionEntry| entry.manifest.as_ref().map_or(0, |manifest| manifest.sequence);
        rebuilt.manifests += visits.len() as u64;
        rebuilt.items += newest.media.len() as u64;
        match known {
            None => rebuilt.new += 1,
            Some(_) if sequence(newest) > known_sequence => rebuilt.updated += 1,
            Some(_) => rebuilt.unchanged += 1,
        }
        for entry in visits.iter().filter(|entry| sequence(entry) > known_sequence) {
            self.ledger.commit(entry).await?;
        }
        Ok(())
    }

    /// Reads the manifests of one session.
    async fn visits(&self, walked: WalkedSession) -> Result<Visits, StoreError> {
        // A folder that no session's is, is for an audit to tell of.
        let Some(session) = walked.session_id() else { return Ok((Vec::new(), Vec::new())) };
        let mut manifests: BTreeMap<u32, ListedVersion> = BTreeMap::new();
        for version in walked.versions {
            if let SessionObject::Manifest(sequence) = version.key.read_as(&session) {
                // The oldest version counts; one that only a delete marker holds is none.
                manifests.entry(sequence).or_insert(version);
            }
        }
        let (mut visits, mut found) = (Vec::new(), Vec::new());
        for (sequence, version) in manifests.into_iter().filter(|(_, version)| !version.is_delete_marker) {
            let bytes = read(self.store, &version.key, version.version_id.as_deref()).await?;
            let manifest = bytes.as_deref().and_then(Manifest::parse).filter(|manifest| {
                manifest.session_id == session && manifest.sequence == sequence && manifest.archive_id == self.archive
            });
            match (manifest, bytes) {
                (Some(manifest), Some(bytes)) => {
                    visits.push(self.entry(&manifest, &version, Sha256Digest::of(&bytes)));
                }
                _ => found.push(
                    Finding::of(
                        Severity::Error,
                        FindingCode::ManifestInvalid,
                        "restore it from a copy, then rebuild again; audit fixity tells more",
                    )
                    .session(&session)
                    .object(&version.key, version.version_id.as_deref())
                    .differs("a manifest of this session and archive", "something else, or nothing"),
                ),
            }
        }
        Ok((visits, found))
    }

    fn entry(&self, manifest: &Manifest, version: &ListedVersion, sha256: Sha256Digest) -> SessionEntry {
        let created_at = manifest.created_at();
        let horizon = self.horizons.get(&manifest.integration);
        let oldest = created_at.into_iter().chain(manifest.decided_at).min();
        let (state, code) = State::of(manifest);
        SessionEntry {
            record: SessionRecord { decided_at: manifest.decided_at, ..SessionRecord::of(manifest.session_id.clone()) },
            integration: manifest.integration.clone(),
            state,
            code,
            message: code.map(|_| "as its manifest says; the ledger was rebuilt from the store".to_owned()),
            upstream_created_at: created_at,
            deadline_at: horizon.and_then(|horizon| Some(oldest?.plus(*horizon))),
            manifest: Some(ManifestRef {
                key: version.key.clone(),
                version_id: version.version_id.clone(),
                sequence: manifest.sequence,
                sha256,
            }),
            complete: manifest.complete,
            settled: manifest.settled,
            media: MediaRow::all_of(manifest).collect(),
            run_id: manifest.run_id.clone(),
            at: manifest.archived_at,
            look_again_at: None,
            holder: None,
            line: None,
        }
    }

    /// Takes the runs that chains name.
    async fn runs(&self, problems: &mut Findings, rebuilt: &mut Rebuilt) -> Result<(), RebuildError> {
        let mut entries = KeyWalk::of(self.store, "runs/chain/");
        while let Some(listed) = entries.next().await? {
            let StoreObject::ChainEntry(..) = listed.key.read() else { continue };
            let Some(own) = &listed.own else { continue };
            match self.run_of(own).await? {
                Some(run) => rebuilt.runs += u64::from(self.ledger.adopt_run(&run).await?),
                None => problems.add(
                    &Finding::of(
                        Severity::Error,
                        FindingCode::RecordInvalid,
                        "audit chain tells what is wrong; restore it from a copy, then rebuild again",
                    )
                    .object(&listed.key, own.version_id.as_deref())
                    .differs("an entry and the record that it names", "something else, or nothing"),
                )?,
            }
        }
        Ok(())
    }

    async fn run_of(&self, version: &ListedVersion) -> Result<Option<ClosedRun>, StoreError> {
        let Some(bytes) = read(self.store, &version.key, version.version_id.as_deref()).await? else { return Ok(None) };
        let entry_sha256 = Sha256Digest::of(&bytes);
        let Some(entry) = ChainEntry::parse(&bytes) else { return Ok(None) };
        let Some(record) = self.record_of(&entry.run_key).await? else { return Ok(None) };
        // Whoever found a run dead could not tell the ledger how it ended.
        let is_own = record.closed_by == record.run_id;
        Ok(Some(ClosedRun {
            run_id: record.run_id,
            started_at: record.started_at,
            finished_at: is_own.then_some(record.finished_at),
            exit_code: record.exit_code.filter(|_| is_own),
            version: record.version,
            source_kind: record.source.kind,
            store_url: self.store_url.clone(),
            counts: if is_own { record.counts } else { RunCounts::default() },
            record: ClosedRecord {
                key: entry.run_key,
                sha256: entry.run_sha256,
                group: entry.group,
                number: entry.number,
                entry_sha256,
            },
        }))
    }

    async fn record_of(&self, key: &ObjectKey) -> Result<Option<RunRecord>, StoreError> {
        let listed = KeyWalk::of(self.store, key.as_str()).next().await?;
        let Some(own) = listed.filter(|listed| listed.key == *key).and_then(|listed| listed.own) else {
            return Ok(None);
        };
        Ok(read(self.store, &own.key, own.version_id.as_deref()).await?.as_deref().and_then(RunRecord::parse))
    }
}
