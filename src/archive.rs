//! Archive: one session, from a look into the store to its manifest. The function to read first.
//!
//! Look, list, verify, deposit, close, in that order, so that a crash between any two steps leaves nothing claimed that
//! is not there, and the next visit goes on where this one ended. Says how the visit went; the ledger commit and the
//! acknowledgement are the worker's, in that order, after this.

use std::collections::HashSet;
use std::sync::Arc;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio_util::sync::CancellationToken;

use crate::budget::Budget;
use crate::catalog::{self, Catalog, MediaItem};
use crate::clock::Timestamp;
use crate::closing::{self, Draft, Failure};
use crate::deposit::{DepositError, Deposited, Depositor, Plan};
use crate::error::{Code, Disposition};
use crate::fetch::Habits;
use crate::identity::{Identity, IdentityError};
use crate::keep::{KeepError, Keeper, Placed, Verified};
use crate::ledger::{ManifestRef, MediaRow};
use crate::look::{self, LookError, Standing};
use crate::metrics::{Meter, SessionMeter};
use crate::model::key::ObjectKey;
use crate::model::manifest::{Absent, Listing, MANIFEST_SCHEMA, Manifest, ManifestMedia};
use crate::model::record::SessionRecord;
use crate::model::retention::{Lock, Subject};
use crate::model::sidecar::{CountedFrom, Sidecar};
use crate::model::{ArchiveId, MediaId, RunId};
use crate::results::Outcome;
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
    pub keeper: Keeper,
    /// Which archive this is.
    pub identity: Identity,
    /// Room for bytes in flight.
    pub budget: Budget,
    /// The longest media item that is taken.
    pub max_media_size_bytes: u64,
    /// Counts of the run.
    pub meter: Arc<Meter>,
    /// The run.
    pub run_id: RunId,
    /// Told when work in flight is to be given up.
    pub abandon: CancellationToken,
}

/// How a visit to a session went.
#[derive(Debug)]
pub struct Visit {
    /// How it ended.
    pub outcome: Outcome,
    /// Why it failed; on a visit that did not, what a person should know all the same.
    pub code: Option<Code>,
    /// The same for people.
    pub message: Option<String>,
    /// The newest manifest.
    pub manifest: Option<ManifestRef>,
    /// Nothing is missing from it.
    pub complete: bool,
    /// Nothing more is expected of the session.
    pub settled: bool,
    /// Its items.
    pub media: Vec<MediaRow>,
    /// When Veriff made the session, where its lists tell.
    pub upstream_created_at: Option<Timestamp>,
    /// When Veriff decided, where a record or an earlier manifest tells.
    pub decided_at: Option<Timestamp>,
    /// The answer that Veriff does not have the session, still to be written down.
    pub absence: Option<Absence>,
    /// Veriff refused part of it.
    pub refusal: Option<VeriffError>,
    /// Veriff answered for this session.
    pub was_heard: bool,
    /// Codes of what was odd about newly archived items.
    pub anomalies: Vec<String>,
    /// How many items and bytes are new.
    pub new: (u64, u64),
}

/// The answer that Veriff does not have a session.
#[derive(Debug)]
pub struct Absence {
    integration: String,
    http_status: u16,
    listings: Vec<Listing>,
    sequence: u32,
}

/// Why a visit came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum VisitError {
    /// The store could not be looked into.
    #[error(transparent)]
    Look(#[from] LookError),
    /// Veriff's lists could not be had.
    #[error(transparent)]
    Veriff(#[from] VeriffError),
    /// The store did not keep what it must.
    #[error(transparent)]
    Keep(#[from] KeepError),
    /// It is not known which archive this is.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A fatal error of one item.
    #[error(transparent)]
    Deposit(#[from] DepositError),
    /// Other workers kept writing manifests of the session.
    #[error("other workers kept writing manifests of this session")]
    Busy,
}

impl VisitError {
    /// Returns the stable code, which fixes the disposition.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::Look(error) => error.code(),
            Self::Veriff(error) => error.code(),
            Self::Keep(error) => error.code(),
            Self::Identity(error) => error.code(),
            Self::Deposit(error) => error.code(),
            Self::Busy => Code::StoreUnavailable,
        }
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
    /// whether the ledger knows the session as settled, which the standing manifest may not.
    ///
    /// # Errors
    /// Retryable, permanent or fatal as upstream's and the store's; then the visit wrote no manifest.
    pub async fn archive_session(
        &self,
        integration: &Integration,
        record: &SessionRecord,
        skip_settled: Option<bool>,
        meter: &SessionMeter,
    ) -> Result<Visit, VisitError> {
        let session = &record.session_id;
        for _ in 0..MANIFEST_TRIES {
            let standing = look::look(self.keeper.store(), self.identity.known(), session).await?;
            if let Some(visit) = recognise(&standing, record, skip_settled) {
                return Ok(visit);
            }
            let catalog = catalog::read(&integration.client, session, meter).await?;
            let (mut work, verified) = self.verify(integration, record, &standing, &catalog).await?;
            if let Some(http_status) = catalog.absent {
                return Ok(absent(integration, record, &standing, catalog, http_status, &work));
            }
            self.deposit(integration, record, &standing, &catalog, &verified, &mut work, meter)
                .await?;
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
        record: &SessionRecord,
        skip_settled: Option<bool>,
        meter: &SessionMeter,
    ) -> Result<Visit, VisitError> {
        let standing = look::look(self.keeper.store(), self.identity.known(), &record.session_id).await?;
        if let Some(visit) = recognise(&standing, record, skip_settled) {
            return Ok(visit);
        }
        let catalog = catalog::read(&integration.client, &record.session_id, meter).await?;
        if let Some(http_status) = catalog.absent {
            return Ok(absent(
                integration,
                record,
                &standing,
                catalog,
                http_status,
                &Work::default(),
            ));
        }
        let archived: HashSet<&MediaId> = standing
            .manifest
            .iter()
            .flat_map(|newest| newest.document.media())
            .map(|(_, media)| &media.media_id)
            .collect();
        let items = catalog
            .items
            .iter()
            .chain(catalog.records.iter().map(|record| &record.item));
        let due: Vec<&MediaItem> = items.filter(|item| !archived.contains(&item.media_id)).collect();
        let mut visit = Visit::of(if due.is_empty() {
            Outcome::Unchanged
        } else {
            Outcome::Archived
        });
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
    pub async fn record_absence(&self, record: &SessionRecord, absence: Absence) -> Result<Visit, VisitError> {
        let archive_id = self.identity.claim(&self.keeper).await?;
        let mut manifest = self.manifest(archive_id, record, &absence.integration, absence.sequence);
        manifest.absent = Some(Absent {
            http_status: absence.http_status,
        });
        manifest.decided_at = record.decided_at;
        manifest.complete = true;
        manifest.listings = absence.listings;
        let lock = self.keeper.due_for_absence();
        // If another worker wrote the number first, theirs tells the story; nothing is lost by leaving it at that.
        let place = self.write_manifest(&manifest, lock).await?;
        Ok(visit_of(Outcome::Absent, &manifest, place))
    }

    /// Verifies the items of the newest manifest. One whose object vanished without a trace is deposited again if
    /// Veriff still lists it; any other that does not stand is a failure.
    async fn verify(
        &self,
        integration: &Integration,
        record: &SessionRecord,
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
        let checks: Vec<_> = items
            .iter()
            .map(|media| self.keeper.verify(standing, media, asked))
            .collect();
        let checks: Vec<Result<Verified, KeepError>> = stream::iter(checks).buffered(ITEMS_IN_FLIGHT).collect().await;
        for (media, check) in items.into_iter().zip(checks) {
            match check {
                Ok(check) => {
                    verified.insert(media.media_id.clone());
                    work.locks.push(check.lock);
                    work.differs |= check.differs;
                }
                Err(KeepError::Damaged { .. })
                    if standing.is_free(&media.key)
                        && catalog.items.iter().any(|item| item.media_id == media.media_id) => {}
                Err(error) if error.code().disposition() == Disposition::Permanent => {
                    verified.insert(media.media_id.clone());
                    let (code, message) = (error.code(), error.to_string());
                    tracing::error!(session.id = %record.session_id, media.id = %media.media_id, error.code = %code, "{message}");
                    work.failures.push(standing_failure(media, code, message));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok((work, verified))
    }

    /// Deposits every listed item that is not verified, each with its sidecar.
    #[expect(
        clippy::too_many_arguments,
        reason = "the steps before this one, each in its own word"
    )]
    async fn deposit(
        &self,
        integration: &Integration,
        record: &SessionRecord,
        standing: &Standing,
        catalog: &Catalog,
        verified: &HashSet<MediaId>,
        work: &mut Work,
        meter: &SessionMeter,
    ) -> Result<(), VisitError> {
        let archive_id = self.identity.claim(&self.keeper).await?;
        let depositor = Depositor {
            client: &integration.client,
            habits: &integration.habits,
            keeper: &self.keeper,
            budget: &self.budget,
            max_media_size_bytes: self.max_media_size_bytes,
            meter: &self.meter,
            session_meter: meter,
            abandon: &self.abandon,
            archive_id,
            session_id: &record.session_id,
            run_id: &self.run_id,
            standing,
        };
        let depositor = &depositor;
        let decided_at = decided_at(record, standing);
        let media = catalog.items.iter().map(|item| (item, None));
        let records = catalog.records.iter().map(|record| (&record.item, Some(record)));
        let due = media
            .chain(records)
            .filter(|(item, _)| !verified.contains(&item.media_id));
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
        let results: Vec<(&MediaItem, Result<Deposited, DepositError>)> =
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
                    work.failures.push(closing::failure(
                        item,
                        error.code(),
                        error.http_status(),
                        error.to_string(),
                    ));
                    if let DepositError::Veriff(refusal @ VeriffError::Unauthorized { .. }) = error {
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
        record: &SessionRecord,
        standing: &Standing,
        catalog: &Catalog,
        work: Work,
    ) -> Result<Option<Visit>, VisitError> {
        let Work {
            deposited,
            failures,
            locks,
            differs,
            refusal,
        } = work;
        let new = (
            deposited.len() as u64,
            deposited.iter().map(|item| item.media.size_bytes).sum(),
        );
        let anomalies: Vec<String> = deposited.iter().flat_map(|item| item.anomalies.clone()).collect();
        let conflicts = deposited.iter().any(|item| item.conflict.is_some());
        let before = standing.manifest.as_ref().map(|newest| &newest.document);
        let draft = closing::draft(before, catalog, deposited, &failures);
        let verdict = judge(standing, catalog, &draft, &failures, differs, conflicts);
        let manifest = self
            .next_manifest(integration, record, standing, catalog, &draft)
            .await?;
        let mut visit = if closing::is_new_evidence(before, &draft) {
            let lock = locks.into_iter().flatten().reduce(Lock::strictest);
            let lock = if manifest.totals.media == 0 {
                self.keeper.due_for_absence()
            } else {
                lock
            };
            let Some(place) = self.write_manifest(&manifest, lock).await? else {
                return Ok(None);
            };
            visit_of(Outcome::Archived, &manifest, Some(place))
        } else {
            let Some(newest) = &standing.manifest else {
                unreachable!("without a manifest everything is new")
            };
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
        visit.upstream_created_at = catalog.created_at();
        visit.decided_at = decided_at(record, standing);
        visit.refusal = refusal;
        visit.was_heard = true;
        visit.anomalies = anomalies;
        visit
            .anomalies
            .extend((0..catalog.wrong_signatures).map(|_| Code::MediaSignatureMismatch.to_string()));
        visit.new = new;
        Ok(Some(visit))
    }

    /// Decides class and lock of an item before its first byte.
    fn plan<'a>(
        &'a self,
        integration: &'a Integration,
        record: &SessionRecord,
        decided_at: Option<Timestamp>,
        catalog: &Catalog,
        item: &'a MediaItem,
    ) -> Result<Plan<'a>, KeepError> {
        let settings = integration.client.settings();
        let (class, terms) = self.keeper.policy().resolve(Subject {
            record_class: record.retention_class.as_deref(),
            integration: &settings.name,
            integration_class: &settings.retention_class,
            kind: item.kind,
            context: item.context.as_deref(),
            status: catalog.status_of(item),
        });
        let (counted_from, counted_from_source) = match decided_at {
            Some(decided_at) => (decided_at, CountedFrom::DecidedAt),
            None => (self.keeper.store().now(), CountedFrom::ArchivedAt),
        };
        let lock = self.keeper.due(class, counted_from)?;
        Ok(Plan {
            item,
            class,
            period: terms.period,
            basis: &terms.basis,
            counted_from,
            counted_from_source,
            lock,
        })
    }

    /// Returns the lock that a record asks for an item that stands already; nothing if it asks for nothing.
    fn asked_lock(&self, integration: &Integration, record: &SessionRecord, sidecar: &Sidecar) -> Option<Lock> {
        if record.retention_class.is_none() && record.decided_at.is_none() {
            return None;
        }
        let class = record.retention_class.as_deref().unwrap_or(&sidecar.retention.class);
        let counted_from = record.decided_at.unwrap_or(sidecar.retention.counted_from);
        let known = self
            .keeper
            .policy()
            .class(class)
            .map_or(integration.client.settings().retention_class.as_str(), |_| class);
        self.keeper.due(known, counted_from).ok().flatten()
    }

    async fn next_manifest(
        &self,
        integration: &Integration,
        record: &SessionRecord,
        standing: &Standing,
        catalog: &Catalog,
        draft: &Draft,
    ) -> Result<Manifest, VisitError> {
        let archive_id = self.identity.claim(&self.keeper).await?;
        let settings = integration.client.settings();
        let mut manifest = self.manifest(archive_id, record, &settings.name, standing.next_sequence);
        let first_visit_at = standing.first_visit_at.unwrap_or(manifest.archived_at);
        manifest.previous = standing.manifest.as_ref().map(|newest| newest.place.clone());
        manifest.decided_at = decided_at(record, standing);
        manifest.complete = draft.complete;
        manifest.settled = closing::is_settled(
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

    fn manifest(&self, archive: &ArchiveId, record: &SessionRecord, integration: &str, sequence: u32) -> Manifest {
        Manifest {
            schema: MANIFEST_SCHEMA.to_owned(),
            archive_id: archive.clone(),
            session_id: record.session_id.clone(),
            integration: integration.to_owned(),
            sequence,
            previous: None,
            archived_at: self.keeper.store().now(),
            run_id: self.run_id.clone(),
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

    /// Writes a manifest under its number; `None` if another one stands there.
    async fn write_manifest(&self, manifest: &Manifest, lock: Option<Lock>) -> Result<Option<ManifestRef>, KeepError> {
        let key = ObjectKey::manifest(&manifest.session_id, manifest.sequence);
        let payload = manifest.to_payload();
        let terms = Terms {
            content_type: "application/json".to_owned(),
            lock,
            is_document: true,
        };
        let version_id = match self.keeper.place(&key, &payload, &terms, "manifest").await? {
            Placed::Created(stored) => stored.version_id,
            Placed::Same(head) => head.version_id,
            Placed::Other(_) => return Ok(None),
        };
        Ok(Some(ManifestRef {
            key,
            version_id,
            sequence: manifest.sequence,
            sha256: payload.sha256(),
        }))
    }
}

impl Visit {
    /// Begins telling of a visit.
    #[must_use]
    pub const fn of(outcome: Outcome) -> Self {
        Self {
            outcome,
            code: None,
            message: None,
            manifest: None,
            complete: false,
            settled: false,
            media: Vec::new(),
            upstream_created_at: None,
            decided_at: None,
            absence: None,
            refusal: None,
            was_heard: false,
            anomalies: Vec::new(),
            new: (0, 0),
        }
    }
}

/// Tells of a session that Veriff does not have.
fn absent(
    integration: &Integration,
    record: &SessionRecord,
    standing: &Standing,
    catalog: Catalog,
    http_status: u16,
    work: &Work,
) -> Visit {
    let newest = standing.manifest.as_ref().map(|newest| &newest.document);
    let mut visit = match newest {
        Some(manifest) if manifest.totals.media > 0 => visit_of(Outcome::Unchanged, manifest, reference(standing)),
        Some(manifest) if manifest.absent.is_some() => visit_of(Outcome::Absent, manifest, reference(standing)),
        _ => {
            let absence = Absence {
                integration: integration.client.settings().name.clone(),
                http_status,
                listings: catalog.listings,
                sequence: standing.next_sequence,
            };
            Visit {
                absence: Some(absence),
                ..Visit::of(Outcome::Absent)
            }
        }
    };
    if visit.outcome == Outcome::Absent {
        visit.code = Some(Code::VeriffAbsent);
        visit.message = Some(format!("veriff answers {http_status}"));
    }
    let failure = work
        .failures
        .first()
        .map(|failure| (failure.code, failure.message.clone()));
    if let Some((code, message)) = shadow(standing).or(failure) {
        visit.outcome = Outcome::Failed;
        (visit.code, visit.message, visit.absence) = (Some(code), Some(message), None);
    }
    visit.decided_at = decided_at(record, standing);
    visit
}

/// Recognises a session of which nothing more is to be asked.
fn recognise(standing: &Standing, record: &SessionRecord, skip_settled: Option<bool>) -> Option<Visit> {
    let newest = standing.manifest.as_ref()?;
    let manifest = &newest.document;
    let is_settled = skip_settled.is_some_and(|known| known || manifest.settled);
    let is_done = is_settled && manifest.complete && manifest.absent.is_none() && standing.shadowed.is_empty();
    if !is_done && !standing.expired {
        return None;
    }
    let mut visit = visit_of(Outcome::Unchanged, manifest, Some(reference(standing)?));
    visit.decided_at = record.decided_at.or(manifest.decided_at);
    Some(visit)
}

fn visit_of(outcome: Outcome, manifest: &Manifest, place: Option<ManifestRef>) -> Visit {
    let media = manifest.media().map(|(attempt, media)| MediaRow {
        media_id: media.media_id.clone(),
        attempt_id: attempt.attempt_id.clone(),
        kind: media.kind,
        key: media.key.clone(),
        version_id: media.version_id.clone(),
        size_bytes: media.size_bytes,
        sha256: media.sha256,
    });
    Visit {
        manifest: place,
        complete: manifest.complete,
        settled: manifest.settled,
        media: media.collect(),
        decided_at: manifest.decided_at,
        ..Visit::of(outcome)
    }
}

fn reference(standing: &Standing) -> Option<ManifestRef> {
    let newest = standing.manifest.as_ref()?;
    Some(ManifestRef {
        key: newest.place.key.clone(),
        version_id: newest.place.version_id.clone(),
        sequence: newest.document.sequence,
        sha256: newest.place.sha256,
    })
}

fn decided_at(record: &SessionRecord, standing: &Standing) -> Option<Timestamp> {
    record
        .decided_at
        .or_else(|| standing.manifest.as_ref().and_then(|newest| newest.document.decided_at))
}

/// Says what a person should know of a visit, and whether it makes the session a failed one.
fn judge(
    standing: &Standing,
    catalog: &Catalog,
    draft: &Draft,
    failures: &[Failure],
    differs: bool,
    conflicts: bool,
) -> Option<(Code, String, bool)> {
    let failed = |(code, message): (Code, String)| (code, message, true);
    let item = || failures.first().map(|failure| (failure.code, failure.message.clone()));
    let gap = || {
        catalog
            .gaps
            .first()
            .map(|code| (*code, "a list of the session could not be read whole".to_owned()))
    };
    let empty = || {
        closing::is_empty_though_decided(catalog, draft).then(|| {
            (
                Code::VeriffEmpty,
                "the session is decided and no media is listed anywhere".to_owned(),
            )
        })
    };
    shadow(standing)
        .or_else(item)
        .or_else(gap)
        .or_else(empty)
        .map(failed)
        .or_else(|| {
            if conflicts {
                let message = "other bytes stood under a key; ours are beside them, see conflicts in the manifest";
                return Some((Code::StoreConflict, message.to_owned(), false));
            }
            let message = "the record asks for a stricter or longer retention than what stands; what stands stays";
            differs.then(|| (Code::RetentionDiffers, message.to_owned(), false))
        })
}

fn shadow(standing: &Standing) -> Option<(Code, String)> {
    let key = standing.shadowed.first()?;
    Some((
        Code::StoreShadowed,
        format!("a delete marker or a later version lies over {key}"),
    ))
}

fn standing_failure(media: &ManifestMedia, code: Code, message: String) -> Failure {
    let missing = crate::model::manifest::MissingItem {
        media_id: media.media_id.clone(),
        attempt_id: crate::model::AttemptId::session(),
        code: code.as_str().to_owned(),
        http_status: None,
    };
    Failure { missing, code, message }
}

/// Tells whether an item's error ends the visit rather than the item.
fn is_the_end(error: &DepositError) -> bool {
    matches!(error, DepositError::Stopped)
        || error.code().disposition() == Disposition::Fatal
        || error.code() == Code::StoreFull
}
