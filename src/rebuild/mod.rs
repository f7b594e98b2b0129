//! Rebuild: a ledger made of what the store says.
//!
//! Reads every manifest of every session, the archive's own version of each, and takes them in order as the visits that
//! wrote them were taken, many sessions in one transaction while the next are read; then every run that a chain names.
//! Repeating it changes nothing, and what a ledger knows better never goes back, so it also mends one that lost rows, and
//! closes runs that it holds as open and the store as closed. What only a ledger ever knew is gone: see docs/ledger.md,
//! Rebuilding.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _, stream};
use serde::Serialize;

use crate::audit::reach::{Reach, Told, refused};
use crate::audit::walk::{Walk, WalkedSession};
use crate::audit::{Finding, FindingCode, Findings, Severity};
use crate::clock::Every;
use crate::ledger::{
    Adopted, ClosedRecord, ClosedRun, Ledger, LedgerError, ManifestRef, MediaRow, SessionEntry, State,
};
use crate::model::digest::Sha256Digest;
use crate::model::key::{SessionObject, StoreObject};
use crate::model::manifest::Manifest;
use crate::model::request::SessionRequest;
use crate::model::run::{ChainEntry, RunCounts, RunRecord};
use crate::model::{ArchiveId, SessionId};
use crate::stop::Stop;
use crate::stop::Stopped;
use crate::store::document::Document;
use crate::store::versions::{KeyVersions, KeyWalk};
use crate::store::{ListedVersion, StoreError};

/// How many sessions, or runs, are read at once from a bucket. A manifest is some kilobytes long: a request is all waiting.
pub const IN_FLIGHT: usize = 64;

/// The same from a directory, where each takes a thread with memory of its own, and hardly waits.
const FILES_IN_FLIGHT: usize = 8;

/// Where the slices begin in which sessions are listed at the same time: a listing is waiting, too, and of a thousand
/// objects some fifty sessions. Ids of Veriff begin with a hexadecimal digit; any other falls into one of these all the same.
const SLICES: [&str; 16] = ["", "1", "2", "3", "4", "5", "6", "7", "8", "9", "a", "b", "c", "d", "e", "f"];

/// How many sessions are taken in one transaction: enough that its own cost vanishes, and over in a moment.
const BATCH_SESSIONS: usize = 256;

/// With so many items a batch is full as well.
const BATCH_ITEMS: usize = 8192;

/// One batch is taken while the next is read, and waits if it is full sooner.
const BATCHES_IN_FLIGHT: usize = 2;

/// After so many refusals without any document, the store refuses all of them.
const REFUSED_IN_A_ROW: u32 = 10;

/// How often a log line says how far it is.
const PROGRESS_INTERVAL: Duration = Duration::from_mins(1);

/// What a ledger is made of.
#[derive(Debug)]
pub struct Rebuild<'a> {
    /// The store.
    pub reach: Reach<'a>,
    /// It lists any part of its keys as soon as another: a directory reads all names for each page.
    pub is_bucket: bool,
    /// The ledger to fill.
    pub ledger: &'a dyn Ledger,
    /// The archive that the store is.
    pub archive: ArchiveId,
    /// How long Veriff keeps media, by integration.
    pub horizons: BTreeMap<String, Duration>,
    /// The address of the store, as runs note it.
    pub store_url: String,
    /// Returns when to stop.
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
    /// Runs that it held as open, and the store as closed.
    pub runs_closed: u64,
    /// Sessions of which something was expired by plan.
    pub expired: u64,
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
    /// A problem could not be reported.
    #[error("a problem could not be reported")]
    Output(#[from] std::io::Error),
}

/// What one session's manifests say.
#[derive(Debug, Default)]
struct Visits {
    /// In the order in which they were written.
    entries: Vec<SessionEntry>,
    found: Vec<Finding>,
    /// A manifest was there to be read, whatever it said.
    was_answered: bool,
    refusals: Vec<StoreError>,
    is_expired: bool,
}

/// Sessions that are taken together.
#[derive(Debug, Default)]
struct Batch {
    sessions: Vec<Visits>,
    /// Why there are no more.
    end: Option<RebuildError>,
}

/// How the store answers for documents.
#[derive(Debug, Default)]
struct Answers {
    was_answered: bool,
    refused_in_a_row: u32,
}

impl Answers {
    /// Takes what came of a session, and fails once the store refuses everything, or does not answer any more.
    fn note(&mut self, visits: &mut Visits) -> Result<(), StoreError> {
        if visits.was_answered {
            *self = Self { was_answered: true, refused_in_a_row: 0 };
        }
        for refusal in visits.refusals.drain(..) {
            self.refused_in_a_row += 1;
            let is_of_all = !self.was_answered || refusal.code().is_retryable();
            if is_of_all && self.refused_in_a_row >= REFUSED_IN_A_ROW {
                return Err(refusal);
            }
        }
        Ok(())
    }
}

impl Rebuild<'_> {
    /// Fills the ledger. What cannot be read is reported and passed over.
    ///
    /// # Errors
    /// Retryable: store or ledger do not answer; what was done stays done. Fatal: the store refuses everything.
    pub async fn run(&self, problems: &mut Findings) -> Result<(Rebuilt, Option<Stopped>), RebuildError> {
        let mut rebuilt = Rebuilt::default();
        let mut batches = Box::pin(self.batches().map(|batch| self.take(batch)).buffered(BATCHES_IN_FLIGHT));
        let mut report = Every::new(PROGRESS_INTERVAL);
        let mut stopped = Box::pin(self.stop.requested());
        loop {
            let next = tokio::select! {
                biased;
                stopped = &mut stopped => return Ok((rebuilt, Some(stopped))),
                next = batches.next() => next,
            };
            let Some(taken) = next else { break };
            let (taken, batch) = taken?;
            rebuilt.add(&taken);
            for finding in batch.sessions.iter().flat_map(|visits| &visits.found) {
                problems.add(finding)?;
            }
            if let Some(error) = batch.end {
                return Err(error);
            }
            if report.is_due() {
                let sessions = rebuilt.new + rebuilt.updated + rebuilt.unchanged;
                tracing::info!(sessions, manifests = rebuilt.manifests, "the ledger is being rebuilt");
            }
        }
        drop(batches);
        let stopped = tokio::select! {
            biased;
            stopped = &mut stopped => Some(stopped),
            done = self.runs(problems, &mut rebuilt) => { done?; None }
        };
        Ok((rebuilt, stopped))
    }

    /// Reads all sessions, as many at once as are taken together.
    fn batches(&self) -> impl Stream<Item = Batch> {
        let begins = if self.is_bucket { &SLICES[..] } else { &SLICES[..1] };
        let slices = (0..begins.len()).map(|place| Box::pin(self.slice(begins[place], begins.get(place + 1).copied())));
        let sessions = stream::select_all(slices).map(async |walked| self.visits(walked?).await);
        let begin = Some((Box::pin(sessions.buffered(self.in_flight())), Answers::default()));
        stream::unfold(begin, |state| async {
            let (mut sessions, mut answers) = state?;
            let (mut batch, mut items) = (Batch::default(), 0);
            while batch.sessions.len() < BATCH_SESSIONS && items < BATCH_ITEMS {
                let Some(visits) = sessions.next().await else {
                    return (!batch.sessions.is_empty()).then_some((batch, None));
                };
                let noted = visits.and_then(|mut visits| answers.note(&mut visits).map(|()| visits));
                match noted {
                    Ok(visits) => {
                        items += visits.entries.iter().map(|entry| entry.media.len()).sum::<usize>();
                        batch.sessions.push(visits);
                    }
                    Err(error) => {
                        batch.end = Some(error.into());
                        return Some((batch, None));
                    }
                }
            }
            Some((batch, Some((sessions, answers))))
        })
    }

    const fn in_flight(&self) -> usize {
        if self.is_bucket { IN_FLIGHT } else { FILES_IN_FLIGHT }
    }

    /// Lists sessions from one folder to before another.
    fn slice(
        &self,
        first: &'static str,
        end: Option<&'static str>,
    ) -> impl Stream<Item = Result<WalkedSession, StoreError>> {
        stream::unfold(Some(Walk::from(self.reach.store(), first)), move |walk| async move {
            let mut walk = walk?;
            match walk.next().await {
                Ok(Some(walked)) if end.is_none_or(|end| walked.folder.as_str() < end) => {
                    Some((Ok(walked), Some(walk)))
                }
                Ok(_) => None,
                Err(error) => Some((Err(error), None)),
            }
        })
    }

    /// Takes the visits of many sessions that the ledger does not know yet.
    async fn take(&self, mut batch: Batch) -> Result<(Rebuilt, Batch), LedgerError> {
        let mut taken = Rebuilt::default();
        let newest = |visits: &Visits| visits.entries.last().map(|newest| newest.record.session_id.clone());
        let ids: Vec<SessionId> = batch.sessions.iter().filter_map(newest).collect();
        let known = if ids.is_empty() { BTreeMap::new() } else { self.ledger.known_manifests(&ids).await? };
        let mut entries = Vec::new();
        for visits in &mut batch.sessions {
            taken.expired += u64::from(visits.is_expired);
            let Some(newest) = visits.entries.last() else { continue };
            let known = known.get(&newest.record.session_id).copied();
            taken.manifests += visits.entries.len() as u64;
            taken.items += newest.media.len() as u64;
            match known {
                None => taken.new += 1,
                Some(known) if sequence_of(newest) > known => taken.updated += 1,
                Some(_) => taken.unchanged += 1,
            }
            let is_later = |entry: &SessionEntry| sequence_of(entry) > known.unwrap_or(0);
            entries.extend(std::mem::take(&mut visits.entries).into_iter().filter(is_later));
        }
        if !entries.is_empty() {
            self.ledger.commit_all(&entries).await?;
        }
        Ok((taken, batch))
    }

    /// Reads the manifests of one session.
    async fn visits(&self, walked: WalkedSession) -> Result<Visits, StoreError> {
        let mut visits = Visits::default();
        // A folder that belongs to no session is for an audit to report.
        let Some(session) = walked.session_id() else { return Ok(visits) };
        let mut manifests: BTreeMap<u32, ListedVersion> = BTreeMap::new();
        for own in walked.keys.into_iter().filter_map(|listed| listed.own) {
            match own.key.read_as(&session) {
                SessionObject::Manifest(sequence) => {
                    manifests.insert(sequence, own);
                }
                SessionObject::Expired(_) => visits.is_expired = true,
                _ => {}
            }
        }
        for (sequence, version) in manifests {
            let told = |finding: Finding| finding.session(&session).object(&version.key, version.version_id.as_deref());
            let document = match self.reach.read(&version.key, version.version_id.as_deref()).await? {
                Told::Is(document) => Some(document),
                Told::Gone => None,
                Told::Refused(error) => {
                    let finding = refused("a manifest", &error, begin);
                    visits.found.push(told(finding));
                    visits.refusals.push(error);
                    continue;
                }
            };
            visits.was_answered = true;
            let manifest = document.as_ref().and_then(|document| Manifest::parse(&document.bytes));
            let manifest = manifest.filter(|manifest| {
                manifest.session_id == session && manifest.sequence == sequence && manifest.archive_id == self.archive
            });
            match (manifest, document) {
                (Some(manifest), Some(document)) => {
                    visits.entries.push(self.entry(&manifest, &version, document.sha256));
                }
                // What is expired while it is looked at was there by plan, and is gone by plan.
                (_, None) if visits.is_expired => {}
                _ => visits.found.push(told(
                    Finding::of(
                        Severity::Error,
                        FindingCode::ManifestInvalid,
                        "restore it from a copy, then rebuild again; audit fixity shows more",
                    )
                    .differs("a manifest of this session and archive", "something else, or nothing"),
                )),
            }
        }
        Ok(visits)
    }

    fn entry(&self, manifest: &Manifest, version: &ListedVersion, sha256: Sha256Digest) -> SessionEntry {
        let created_at = manifest.created_at();
        let horizon = self.horizons.get(&manifest.integration);
        let oldest = created_at.into_iter().chain(manifest.decided_at).min();
        let (state, code) = State::of(manifest);
        SessionEntry {
            record: SessionRequest {
                decided_at: manifest.decided_at,
                ..SessionRequest::of(manifest.session_id.clone())
            },
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
        let entries = KeyWalk::of(self.reach.store(), "runs/chain/").into_stream();
        let mut runs = Box::pin(entries.map(async |listed| self.run_of(listed?).await).buffered(self.in_flight()));
        while let Some(run) = runs.next().await {
            match run? {
                Ok(None) => {}
                Ok(Some(run)) => match self.ledger.adopt_run(&run).await? {
                    Adopted::New => rebuilt.runs += 1,
                    Adopted::Closed => rebuilt.runs_closed += 1,
                    Adopted::Known => {}
                },
                Err(finding) => problems.add(&finding)?,
            }
        }
        Ok(())
    }

    /// Reads the run that an entry of a chain names; nothing if the key is not that of an entry. Only what the entry vouches
    /// for, and is of this archive, is believed.
    async fn run_of(&self, listed: KeyVersions) -> Result<Result<Option<ClosedRun>, Box<Finding>>, StoreError> {
        let (StoreObject::ChainEntry(group, number), Some(own)) = (listed.key.read(), &listed.own) else {
            return Ok(Ok(None));
        };
        let told = |finding: Finding| Err(Box::new(finding.object(&listed.key, own.version_id.as_deref())));
        let invalid = || {
            told(
                Finding::of(
                    Severity::Error,
                    FindingCode::RecordInvalid,
                    "audit chain shows what is wrong; restore it from a copy, then rebuild again",
                )
                .differs("an entry and the record that it names", "something else, or nothing"),
            )
        };
        let Document { bytes, sha256, .. } = match self.reach.read(&own.key, own.version_id.as_deref()).await? {
            Told::Is(document) => document,
            Told::Gone => return Ok(invalid()),
            Told::Refused(error) => return Ok(told(refused("an entry of a chain", &error, begin))),
        };
        let is_own = |entry: &ChainEntry| {
            entry.archive_id == self.archive && entry.group.as_str() == group.as_str() && entry.number == number
        };
        let Some(entry) = ChainEntry::parse(&bytes).filter(is_own) else { return Ok(invalid()) };
        let record = match self.reach.read_own(&entry.run_key).await? {
            Told::Is(record) if record.sha256 == entry.run_sha256 => RunRecord::parse(&record.bytes),
            Told::Refused(error) => return Ok(told(refused("the record of a run", &error, begin))),
            Told::Is(_) | Told::Gone => None,
        };
        let is_named = |record: &RunRecord| record.archive_id == self.archive && record.run_id == entry.run_id;
        let Some(record) = record.filter(is_named) else { return Ok(invalid()) };
        Ok(Ok(Some(self.closed_run(record, entry, sha256))))
    }

    fn closed_run(&self, record: RunRecord, entry: ChainEntry, entry_sha256: Sha256Digest) -> ClosedRun {
        // Whoever found a run dead could not record in the ledger how it ended.
        let is_own = record.closed_by == record.run_id;
        ClosedRun {
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
        }
    }
}

impl Rebuilt {
    fn add(&mut self, other: &Self) {
        self.new += other.new;
        self.updated += other.updated;
        self.unchanged += other.unchanged;
        self.manifests += other.manifests;
        self.items += other.items;
        self.runs += other.runs;
        self.runs_closed += other.runs_closed;
        self.expired += other.expired;
    }
}

/// Begins a finding about an object that the store keeps to itself.
fn begin(severity: Severity, code: FindingCode, repair: &str) -> Finding {
    Finding::of(severity, code, repair)
}

fn sequence_of(entry: &SessionEntry) -> u32 {
    entry.manifest.as_ref().map_or(0, |manifest| manifest.sequence)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;

    fn refused(may_pass: bool, count: usize) -> Visits {
        let unavailable =
            || StoreError::Unavailable { action: "open", reason: "500".into(), wait: None, slow_down: false };
        let denied = || StoreError::Denied { action: "open", reason: "403".into() };
        let refusal = || if may_pass { unavailable() } else { denied() };
        Visits { refusals: (0..count).map(|_| refusal()).collect(), ..Visits::default() }
    }

    #[test]
    fn a_store_refuses_everything_if_it_never_handed_anything_out() {
        let mut answers = Answers::default();
        answers.note(&mut refused(false, 9)).unwrap();
        answers.note(&mut Visits::default()).unwrap();
        assert_eq!(answers.note(&mut refused(false, 1)).unwrap_err().code(), Code::StoreDenied);
        let mut answers = Answers::default();
        answers.note(&mut refused(false, 9)).unwrap();
        answers.note(&mut Visits { was_answered: true, ..refused(false, 1) }).unwrap();
        answers.note(&mut refused(false, 1000)).unwrap();
    }

    #[test]
    fn a_store_that_fails_again_and_again_is_away_whatever_it_handed_out() {
        let mut answers = Answers::default();
        answers.note(&mut Visits { was_answered: true, ..Visits::default() }).unwrap();
        answers.note(&mut refused(true, 9)).unwrap();
        assert_eq!(answers.note(&mut refused(true, 1)).unwrap_err().code(), Code::StoreUnavailable);
    }
}
