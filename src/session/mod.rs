//! Archive: one session, from a look into the store to its manifest. The function to read first.
//!
//! Look, list, verify, deposit, close, in that order, so that a crash between any two steps leaves nothing claimed that
//! is not there, and the next visit continues where this one ended. Says how the visit went; the ledger commit and the
//! acknowledgement are the worker's, in that order, after this.

pub mod body;
pub mod budget;
pub mod catalog;
pub mod draft;
pub mod identity;
pub mod item;
pub mod standing;
pub mod transfer;
pub mod visit;
pub mod writer;

use std::collections::HashSet;
use std::sync::{Arc, PoisonError, RwLock};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio_util::sync::CancellationToken;

use self::body::Habits;
use self::budget::Budget;
use self::catalog::{Catalog, MediaItem};
use self::draft::{Draft, Failure};
use self::identity::Identity;
use self::item::{Deposited, Depositor};
use self::standing::Standing;
use self::transfer::{ItemError, Lane, Plan};
use self::visit::Outcome;
use self::visit::{
    Absence, Visit, VisitError, absent, decided_at, judge, recognise, reference, shadow, standing_failure, visit_of,
};
use self::writer::{ArchiveWriter, Placed, Verified, WriteError};
use crate::clock::Timestamp;
use crate::error::{Code, ErrorClass};
use crate::ledger::ManifestRef;
use crate::metrics::{Meter, SessionMeter};
use crate::model::key::ObjectKey;
use crate::model::manifest::{Absent, MANIFEST_SCHEMA, Manifest, ManifestMedia};
use crate::model::request::SessionRequest;
use crate::model::retention::{Lock, Subject};
use crate::model::sidecar::{CountedFrom, Sidecar};
use crate::model::{ArchiveId, MediaId, RunId};
use crate::store::Terms;
use crate::veriff::{VeriffClient, VeriffError};

/// How many items of one session are under way at once; pace and memory limit further.
const ITEMS_IN_FLIGHT: usize = 8;

/// How often a session is begun again because another worker wrote its next manifest first.
const MANIFEST_TRIES: u32 = 5;

/// One integration, with what was learnt of it.
#[derive(Debug)]
pub struct Integration {
    /// Its client.
    pub client: VeriffClient,
    /// What it is known to do.
    pub habits: Habits,
}

/// Archives sessions, one at a time each.
#[derive(Debug)]
pub struct Archiver {
    /// Writes objects.
    pub writer: ArchiveWriter,
    /// Which archive this is.
    pub identity: Identity,
    /// Room for bytes in flight.
    pub budget: Budget,
    /// The longest media item that is taken.
    pub max_media_size_bytes: u64,
    /// Counts of the run.
    pub meter: Arc<Meter>,
    /// The run.
    pub run: CurrentRun,
    /// Set when work in flight is to be abandoned.
    pub abandon: CancellationToken,
}

/// The run as which the process works now: a worker that was taken for dead continues as another one.
#[derive(Debug)]
pub struct CurrentRun(RwLock<RunId>);

impl CurrentRun {
    /// Begins as a run.
    #[must_use]
    pub const fn new(id: RunId) -> Self {
        Self(RwLock::new(id))
    }

    /// Returns which run it is now.
    #[must_use]
    pub fn id(&self) -> RunId {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Continues as another run.
    pub fn become_run(&self, id: RunId) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = id;
    }
}

/// What this visit did with the items.
#[derive(Debug, Default)]
struct Work {
    deposited: Vec<Deposited>,
    failures: Vec<Failure>,
    locks: Vec<Option<Lock>>,
    differs: bool,
    refusal: Option<VeriffError>,
}

impl Archiver {
    /// Archives one session as far as can be done now. With `skip_settled` a settled one is not asked for again; it says
    /// whether the ledger knows the session as settled, which the newest manifest may not.
    ///
    /// # Errors
    /// Retryable, permanent or fatal as upstream's and the store's; then the visit wrote no manifest.
    pub async fn archive_session(
        &self,
        integration: &Integration,
        record: &SessionRequest,
        skip_settled: Option<bool>,
        meter: &SessionMeter,
    ) -> Result<Visit, VisitError> {
        let session = &record.session_id;
        for _ in 0..MANIFEST_TRIES {
            let standing = standing::inspect(self.writer.store(), self.identity.known(), session).await?;
            if let Some(visit) = recognise(&standing, record, skip_settled) {
                return Ok(visit);
            }
            let catalog = catalog::read(&integration.client, session, meter).await?;
            let (mut work, verified) = self.verify(integration, record, &standing, &catalog).await?;
            if let Some(http_status) = catalog.absent {
                let name = &integration.client.settings().name;
                return Ok(absent(name, record, standing, catalog, http_status, &work.failures));
            }
            self.deposit(integration, record, &standing, &catalog, &verified, &mut work, meter).await?;
            if let Some(visit) = self.close(integration, record, &standing, &catalog, work).await? {
                return Ok(visit);
            }
        }
        Err(VisitError::Busy)
    }

    /// Looks and lists, and says what [`Archiver::archive_session`] would do. Writes nothing.
    ///
    /// # Errors
    /// As [`Archiver::archive_session`].
    pub async fn survey(
        &self,
        integration: &Integration,
        record: &SessionRequest,
        skip_settled: Option<bool>,
        meter: &SessionMeter,
    ) -> Result<Visit, VisitError> {
        let standing = standing::inspect(self.writer.store(), self.identity.known(), &record.session_id).await?;
        if let Some(visit) = recognise(&standing, record, skip_settled) {
            return Ok(visit);
        }
        let catalog = catalog::read(&integration.client, &record.session_id, meter).await?;
        if let Some(http_status) = catalog.absent {
            return Ok(absent(&integration.client.settings().name, record, standing, catalog, http_status, &[]));
        }
        let archived: HashSet<&MediaId> = standing
            .manifest
            .iter()
            .flat_map(|newest| newest.document.media())
            .map(|(_, media)| &media.media_id)
            .collect();
        let items = catalog.items.iter().chain(catalog.records.iter().map(|record| &record.item));
        let due: Vec<&MediaItem> = items.filter(|item| !archived.contains(&item.media_id)).collect();
        let is_new = !due.is_empty() || standing.manifest.is_none();
        let mut visit = Visit::of(if is_new { Outcome::Archived } else { Outcome::Unchanged });
        if let Some((code, message)) = shadow(&standing) {
            (visit.outcome, visit.code, visit.message) = (Outcome::Failed, Some(code), Some(message));
        }
        visit.was_heard = true;
        visit.new = (due.len() as u64, due.iter().filter_map(|item| item.size_bytes).sum());
        Ok(visit)
    }

    /// Writes down that Veriff does not have a session: a manifest without media that carries the answer.
    ///
    /// # Errors
    /// As [`Archiver::archive_session`].
    pub async fn record_absence(&self, record: &SessionRequest, absence: Absence) -> Result<Visit, VisitError> {
        let archive_id = self.identity.claim(&self.writer).await?;
        let mut manifest = self.manifest(archive_id, record, &absence.integration, absence.sequence);
        manifest.absent = Some(Absent { http_status: absence.http_status });
        manifest.decided_at = record.decided_at;
        if let Some(before) = absence.before {
            manifest.decided_at = manifest.decided_at.or(before.document.decided_at);
            manifest.previous = Some(before.place);
            manifest.attempts = before.document.attempts;
            manifest.missing = before.document.missing;
            manifest.conflicts = before.document.conflicts;
        }
        manifest.complete = manifest.missing.is_empty();
        manifest.listings = absence.listings;
        let lock = self.writer.due_for_absence();
        // If another worker wrote the number first, theirs is complete; nothing is lost by leaving it at that.
        let place = self.write_manifest(&manifest, lock).await?;
        Ok(visit_of(Outcome::Absent, &manifest, place))
    }

    /// Verifies the items of the newest manifest. One whose object vanished without a trace is deposited again if
    /// Veriff still lists it; any other that does not exist is a failure.
    async fn verify(
        &self,
        integration: &Integration,
        record: &SessionRequest,
        standing: &Standing,
        catalog: &Catalog,
    ) -> Result<(Work, HashSet<MediaId>), VisitError> {
        let mut work = Work::default();
        let mut verified = HashSet::new();
        let Some(newest) = &standing.manifest else {
            return Ok((work, verified));
        };
        let items: Vec<&ManifestMedia> = newest.document.media().map(|(_, media)| media).collect();
        let asked = |sidecar: &Sidecar| self.asked_lock(integration, record, sidecar);
        let checks: Vec<_> = items.iter().map(|media| self.writer.verify(standing, media, asked)).collect();
        let checks: Vec<Result<Verified, WriteError>> = stream::iter(checks).buffered(ITEMS_IN_FLIGHT).collect().await;
        for (media, check) in items.into_iter().zip(checks) {
            match check {
                Ok(check) => {
                    verified.insert(media.media_id.clone());
                    work.locks.push(check.lock);
                    work.differs |= check.differs;
                }
                Err(WriteError::Damaged { .. })
                    if standing.is_free(&media.key)
                        && catalog.items.iter().any(|item| item.media_id == media.media_id) => {}
                Err(error) if error.code().class() == ErrorClass::Permanent => {
                    verified.insert(media.media_id.clone());
                    let (code, message) = (error.code(), error.to_string());
                    tracing::error!(session.id = %record.session_id, media.id = %media.media_id, error.code = %code, "{message}");
                    work.failures.push(standing_failure(media, code, message));
                }
                Err(error) => return Err(error.into()),
            }
        }
        // A manifest is kept as strictly and as long as the strictest and longest of its items.
        let due = work.locks.iter().flatten().copied().reduce(Lock::strictest);
        let place = &newest.place;
        self.writer.strengthen(&place.key, place.version_id.as_deref(), newest.lock, due).await?;
        Ok((work, verified))
    }

    /// Deposits every listed item that is not verified, each with its sidecar.
    #[expect(clippy::too_many_arguments, reason = "the steps before this one, each in its own word")]
    async fn deposit(
        &self,
        integration: &Integration,
        record: &SessionRequest,
        standing: &Standing,
        catalog: &Catalog,
        verified: &HashSet<MediaId>,
        work: &mut Work,
        meter: &SessionMeter,
    ) -> Result<(), VisitError> {
        let archive_id = self.identity.claim(&self.writer).await?;
        let lane = Lane {
            client: &integration.client,
            habits: &integration.habits,
            writer: &self.writer,
            budget: &self.budget,
            max_media_size_bytes: self.max_media_size_bytes,
            meter: &self.meter,
            session_meter: meter,
            abandon: &self.abandon,
        };
        let (session_id, run_id) = (&record.session_id, &self.run.id());
        let depositor = Depositor { lane, archive_id, session_id, run_id, standing };
        let depositor = &depositor;
        let decided_at = decided_at(record, standing);
        let media = catalog.items.iter().map(|item| (item, None));
        let records = catalog.records.iter().map(|record| (&record.item, Some(record)));
        let due = media.chain(records).filter(|(item, _)| !verified.contains(&item.media_id));
        let deposits: Vec<_> = due
            .map(|(item, answer)| async move {
                let deposited = match self.plan(integration, record, decided_at, catalog, item) {
                    Err(error) => Err(error.into()),
                    Ok(plan) => match answer {
                        Some(answer) => depositor.deposit_record(&plan, answer).await,
                        None => depositor.deposit(&plan).await,
                    },
                };
                match deposited {
                    Err(error) if is_the_end(&error) => Err(error),
                    deposited => Ok((item, deposited)),
                }
            })
            .collect();
        let results: Vec<(&MediaItem, Result<Deposited, ItemError>)> =
            stream::iter(deposits).buffered(ITEMS_IN_FLIGHT).try_collect().await?;
        for (item, deposited) in results {
            match deposited {
                Ok(deposited) => {
                    tracing::debug!(session.id = %record.session_id, media.id = %item.media_id, object.key = %deposited.media.key, size_bytes = deposited.media.size_bytes, "archived");
                    work.locks.push(deposited.lock);
                    work.deposited.push(deposited);
                }
                Err(error) => {
                    tracing::debug!(session.id = %record.session_id, media.id = %item.media_id, error.code = %error.code(), "not archived: {error}");
                    work.failures.push(draft::failure(item, error.code(), error.http_status(), error.to_string()));
                    if let ItemError::Veriff(refusal @ VeriffError::Unauthorized { .. }) = error {
                        work.refusal = Some(refusal);
                    }
                }
            }
        }
        Ok(())
    }

    /// Writes the next manifest if there is anything new to say; `None` if another worker wrote that number first.
    async fn close(
        &self,
        integration: &Integration,
        record: &SessionRequest,
        standing: &Standing,
        catalog: &Catalog,
        work: Work,
    ) -> Result<Option<Visit>, VisitError> {
        let Work { deposited, failures, locks, differs, refusal } = work;
        let new = (deposited.len() as u64, deposited.iter().map(|item| item.media.size_bytes).sum());
        let anomalies: Vec<String> = deposited.iter().flat_map(|item| item.anomalies.clone()).collect();
        let conflicts = deposited.iter().any(|item| item.conflict.is_some());
        let before = standing.manifest.as_ref().map(|newest| &newest.document);
        let draft = draft::draft(before, catalog, deposited, &failures);
        let verdict = judge(standing, catalog, &draft, &failures, differs, conflicts);
        let manifest = self.next_manifest(integration, record, standing, catalog, &draft).await?;
        let codes = failures.iter().map(|failure| failure.code).chain(catalog.gaps.iter().copied());
        let passing = codes.into_iter().find(|code| code.is_retryable());
        let mut visit = if draft::is_new_evidence(before, &draft) {
            let lock = locks.into_iter().flatten().reduce(Lock::strictest);
            let lock = if manifest.totals.media == 0 { self.writer.due_for_absence() } else { lock };
            let Some(place) = self.write_manifest(&manifest, lock).await? else {
                return Ok(None);
            };
            visit_of(Outcome::Archived, &manifest, Some(place))
        } else {
            let Some(newest) = &standing.manifest else { unreachable!("without a manifest everything is new") };
            let mut visit = visit_of(Outcome::Unchanged, &newest.document, reference(standing));
            visit.settled = manifest.settled;
            visit
        };
        if let Some((code, message, failed)) = verdict {
            visit.code = Some(code);
            visit.message = Some(message);
            if failed {
                visit.outcome = Outcome::Failed;
            }
        }
        visit.upstream_created_at = catalog.created_at().into_iter().chain(manifest.created_at()).min();
        visit.first_visit_at = standing.first_visit_at.or(Some(manifest.archived_at));
        visit.decided_at = decided_at(record, standing);
        visit.passing = passing;
        visit.refusal = refusal.or_else(|| catalog.refusal.clone());
        visit.was_heard = true;
        // What the visit itself reports is not reported twice.
        let told = visit.code.filter(|_| visit.outcome != Outcome::Failed).map(Code::as_str);
        visit.anomalies = anomalies.into_iter().filter(|code| told != Some(code.as_str())).collect();
        visit.anomalies.extend((0..catalog.wrong_signatures).map(|_| Code::MediaSignatureMismatch.to_string()));
        visit.new = new;
        Ok(Some(visit))
    }

    /// Decides class and lock of an item before its first byte.
    fn plan<'a>(
        &'a self,
        integration: &'a Integration,
        record: &SessionRequest,
        decided_at: Option<Timestamp>,
        catalog: &Catalog,
        item: &'a MediaItem,
    ) -> Result<Plan<'a>, WriteError> {
        let settings = integration.client.settings();
        let (class, terms) = self.writer.policy().resolve(Subject {
            record_class: record.retention_class.as_deref(),
            integration: &settings.name,
            integration_class: &settings.retention_class,
            kind: item.kind,
            context: item.context.as_deref(),
            status: catalog.status_of(item),
        });
        let (counted_from, counted_from_source) = match decided_at {
            Some(decided_at) => (decided_at, CountedFrom::DecidedAt),
            None => (self.writer.store().now(), CountedFrom::ArchivedAt),
        };
        let lock = self.writer.due(class, counted_from)?;
        Ok(Plan { item, class, period: terms.period, basis: &terms.basis, counted_from, counted_from_source, lock })
    }

    /// Returns the lock that a record asks for an item that exists already; nothing if it asks for nothing.
    fn asked_lock(&self, integration: &Integration, record: &SessionRequest, sidecar: &Sidecar) -> Option<Lock> {
        if record.retention_class.is_none() && record.decided_at.is_none() {
            return None;
        }
        let class = record.retention_class.as_deref().unwrap_or(&sidecar.retention.class);
        let counted_from = record.decided_at.unwrap_or(sidecar.retention.counted_from);
        let known =
            self.writer.policy().class(class).map_or(integration.client.settings().retention_class.as_str(), |_| class);
        self.writer.due(known, counted_from).ok().flatten()
    }

    async fn next_manifest(
        &self,
        integration: &Integration,
        record: &SessionRequest,
        standing: &Standing,
        catalog: &Catalog,
        draft: &Draft,
    ) -> Result<Manifest, VisitError> {
        let archive_id = self.identity.claim(&self.writer).await?;
        let settings = integration.client.settings();
        let mut manifest = self.manifest(archive_id, record, &settings.name, standing.next_sequence);
        let first_visit_at = standing.first_visit_at.unwrap_or(manifest.archived_at);
        manifest.previous = standing.manifest.as_ref().map(|newest| newest.place.clone());
        manifest.decided_at = decided_at(record, standing);
        manifest.complete = draft.complete;
        manifest.settled = draft::is_settled(
            &draft.attempts,
            manifest.decided_at,
            first_visit_at,
            manifest.archived_at,
            settings.settle_after,
        );
        manifest.attempts.clone_from(&draft.attempts);
        manifest.missing.clone_from(&draft.missing);
        manifest.conflicts.clone_from(&draft.conflicts);
        manifest.listings.clone_from(&catalog.listings);
        manifest.totals = Manifest::sum(&manifest.attempts);
        Ok(manifest)
    }

    fn manifest(&self, archive: &ArchiveId, record: &SessionRequest, integration: &str, sequence: u32) -> Manifest {
        Manifest {
            schema: MANIFEST_SCHEMA.to_owned(),
            archive_id: archive.clone(),
            session_id: record.session_id.clone(),
            integration: integration.to_owned(),
            sequence,
            previous: None,
            archived_at: self.writer.store().now(),
            run_id: self.run.id(),
            decided_at: None,
            complete: false,
            settled: false,
            absent: None,
            attempts: Vec::new(),
            missing: Vec::new(),
            conflicts: Vec::new(),
            listings: Vec::new(),
            totals: crate::model::manifest::Totals::default(),
        }
    }

    /// Writes a manifest under its number; `None` if another one is there.
    async fn write_manifest(&self, manifest: &Manifest, lock: Option<Lock>) -> Result<Option<ManifestRef>, WriteError> {
        let key = ObjectKey::manifest(&manifest.session_id, manifest.sequence);
        let payload = manifest.to_payload();
        let terms = Terms { content_type: "application/json".to_owned(), lock, is_document: true };
        let version_id = match self.writer.place(&key, &payload, &terms, "manifest").await? {
            Placed::Created(stored) => stored.version_id,
            Placed::Same(head) => head.version_id,
            Placed::Other(_) => return Ok(None),
        };
        Ok(Some(ManifestRef { key, version_id, sequence: manifest.sequence, sha256: payload.sha256() }))
    }
}

/// Returns whether an item's error ends the visit rather than the item.
fn is_the_end(error: &ItemError) -> bool {
    matches!(error, ItemError::Stopped) || error.code().class() == ErrorClass::Fatal || error.code() == Code::StoreFull
}
