//! Deposit: one media item, from upstream into the store, with its sidecar.
//!
//! Between fetch and keep. Promises: bytes pass once and in bounded room; nothing odd is believed at the first sight of
//! it; an object is never written over, and a crash between any two steps is repaired by the next visit. An item that
//! stands already, with a sidecar that tells of it, is not downloaded again.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use crate::budget::{Budget, MAX_ROOM_BYTES, Room};
use crate::catalog::{MediaItem, RecordItem};
use crate::clock::Timestamp;
use crate::error::Code;
use crate::fetch::{self, Fetched, Habits, MediaStream};
use crate::keep::{KeepError, Keeper, Placed};
use crate::look::Standing;
use crate::metrics::{Meter, SessionMeter};
use crate::model::digest::{Checksum, Hasher, PART_SIZE_BYTES, Payload, Sha256Digest};
use crate::model::key::{ObjectKey, extension_for};
use crate::model::manifest::{ConflictItem, ManifestMedia};
use crate::model::retention::{Lock, Mode, Period};
use crate::model::sidecar::{
    Anomaly, ArchivedBy, CountedFrom, SIDECAR_SCHEMA, Sidecar, SidecarObject, SidecarRetention, SignatureCheck,
    Upstream, anomaly,
};
use crate::model::{ArchiveId, AttemptId, MediaId, RunId, SessionId};
use crate::store::{StoreError, Stored, Terms, Upload};
use crate::veriff::{VeriffClient, VeriffError};

/// How often a multipart upload is begun again when completing it met another writer.
const UPLOAD_TRIES: u32 = 3;

/// What depositing needs, the same for all items of a session.
#[derive(Debug)]
pub struct Depositor<'a> {
    /// Where the bytes come from.
    pub client: &'a VeriffClient,
    /// What the integration is known to do.
    pub habits: &'a Habits,
    /// Where they go.
    pub keeper: &'a Keeper,
    /// The room for bytes in flight.
    pub budget: &'a Budget,
    /// The longest item that is taken.
    pub max_media_size_bytes: u64,
    /// Counts of the run.
    pub meter: &'a Arc<Meter>,
    /// Counts of the session.
    pub session_meter: &'a SessionMeter,
    /// Told when work in flight is to be given up.
    pub abandon: &'a CancellationToken,
    /// The archive.
    pub archive_id: &'a ArchiveId,
    /// The session.
    pub session_id: &'a SessionId,
    /// The run.
    pub run_id: &'a RunId,
    /// What stood before this visit.
    pub standing: &'a Standing,
}

/// An item in the archive.
#[derive(Debug)]
pub struct Deposited {
    /// The attempt under which its key stands.
    pub attempt_id: AttemptId,
    /// It as a manifest tells of it.
    pub media: ManifestMedia,
    /// Our bytes, if others had taken its key.
    pub conflict: Option<ConflictItem>,
    /// Its lock.
    pub lock: Option<Lock>,
    /// Codes of what was odd about it.
    pub anomalies: Vec<String>,
}

/// Why an item is not in the archive.
#[derive(Debug, thiserror::Error)]
pub enum DepositError {
    /// Veriff did not give it.
    #[error(transparent)]
    Veriff(#[from] VeriffError),
    /// The store did not take it.
    #[error(transparent)]
    Keep(#[from] KeepError),
    /// The run was told to stop.
    #[error("the run was told to stop")]
    Stopped,
}

impl From<StoreError> for DepositError {
    fn from(error: StoreError) -> Self {
        Self::Keep(error.into())
    }
}

impl DepositError {
    /// Returns the stable code, which fixes the disposition.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::Veriff(error) => error.code(),
            Self::Keep(error) => error.code(),
            Self::Stopped => Code::RunStopped,
        }
    }

    /// Returns the HTTP status that Veriff gave, where that is the reason.
    #[must_use]
    pub const fn http_status(&self) -> Option<u16> {
        match self {
            Self::Veriff(error) => error.http_status(),
            _ => None,
        }
    }
}

/// The name, class and lock of an item, decided before its first byte.
#[derive(Debug)]
pub struct Plan<'a> {
    /// The item.
    pub item: &'a MediaItem,
    /// The retention class.
    pub class: &'a str,
    /// Its keeping period.
    pub period: Option<Period>,
    /// Its legal ground.
    pub basis: &'a str,
    /// The start of the period.
    pub counted_from: Timestamp,
    /// What the start is.
    pub counted_from_source: CountedFrom,
    /// The lock it is due.
    pub lock: Option<Lock>,
}

/// Where an item's bytes went.
#[derive(Debug)]
struct Landed {
    key: ObjectKey,
    stored: Stored,
    conflict: bool,
}

/// What came of one transfer.
enum Transfer {
    /// The bytes are in the store.
    Landed(Fetched, Landed),
    /// Other bytes stand under the key.
    Other(Fetched),
    /// The body is longer than the room that was taken for it.
    Longer(Option<u64>),
    /// Something about it was odd.
    Odd(Fetched),
}

impl Plan<'_> {
    fn terms(&self) -> Terms {
        Terms {
            content_type: content_type(self.item),
            lock: self.lock,
            is_document: false,
        }
    }
}

impl Depositor<'_> {
    /// Brings one item into the archive.
    ///
    /// # Errors
    /// Retryable, permanent or fatal as upstream's and the store's; then the item is missing from the archive.
    pub async fn deposit(&self, plan: &Plan<'_>) -> Result<Deposited, DepositError> {
        let (attempt_id, key) = self.key_of(plan.item);
        if self.standing.is_shadowed(&key) || self.standing.is_shadowed(&key.sidecar()) {
            return Err(KeepError::Shadowed { key }.into());
        }
        if self.standing.object(&key).is_some() && self.standing.object(&key.sidecar()).is_some() {
            return self.adopt(plan, attempt_id, key).await;
        }
        let (fetched, landed) = match self.fetch_into(plan, &key).await {
            Ok(landed) => landed,
            Err(DepositError::Veriff(VeriffError::Missing { .. })) if self.standing.object(&key).is_some() => {
                return self.reconstruct(plan, attempt_id, key, Vec::new()).await;
            }
            Err(error) => return Err(error),
        };
        self.write_down(
            plan,
            attempt_id,
            key,
            fetched.size_bytes,
            fetched.sha256,
            fetched.upstream,
            fetched.anomalies,
            landed,
        )
        .await
    }

    /// Brings a JSON record into the archive; its bytes came with the answer.
    ///
    /// # Errors
    /// As [`Depositor::deposit`].
    pub async fn deposit_record(&self, plan: &Plan<'_>, record: &RecordItem) -> Result<Deposited, DepositError> {
        let (attempt_id, key) = self.key_of(plan.item);
        if self.standing.is_shadowed(&key) || self.standing.is_shadowed(&key.sidecar()) {
            return Err(KeepError::Shadowed { key }.into());
        }
        if self.standing.object(&key).is_some() && self.standing.object(&key.sidecar()).is_some() {
            return self.adopt(plan, attempt_id, key).await;
        }
        let answer = &record.answer;
        let payload = Payload::hashed(vec![answer.body.clone()], Sha256Digest::of(&answer.body));
        let wrong = answer.signature == SignatureCheck::Mismatch;
        let anomalies = if wrong {
            vec![Anomaly {
                code: anomaly::SIGNATURE.into(),
                detail: "the response signature does not match the bytes".into(),
            }]
        } else {
            Vec::new()
        };
        let upstream = Upstream {
            host: self.client.host().to_owned(),
            path: answer.path.clone(),
            listed_size_bytes: None,
            listed_mimetype: None,
            http_status: answer.http_status,
            content_type: answer.content_type.clone(),
            date: answer.date.clone(),
            fetched_at: answer.fetched_at,
            signature: answer.signature,
            signature_value: answer.signature_value.clone(),
        };
        let terms = plan.terms();
        let landed = match self.keeper.place(&key, &payload, &terms, plan.class).await? {
            Placed::Other(_) => self.place_beside(plan, &key, &payload, &terms).await?,
            placed => landed_at(&key, placed, &Checksum::full(payload.sha256())),
        };
        let size_bytes = payload.size_bytes();
        self.write_down(
            plan,
            attempt_id,
            key,
            size_bytes,
            payload.sha256(),
            upstream,
            anomalies,
            landed,
        )
        .await
    }

    /// Names the item: a media id that stands under the session's prefix keeps its key.
    fn key_of(&self, item: &MediaItem) -> (AttemptId, ObjectKey) {
        if let Some((attempt_id, key)) = self.standing.media(&item.media_id) {
            return (attempt_id.clone(), key.clone());
        }
        let extension = extension_for(item.mimetype.as_deref());
        (
            item.attempt_id.clone(),
            ObjectKey::media(self.session_id, &item.attempt_id, &item.media_id, extension),
        )
    }

    /// Fetches until the bytes are in the store, within the budgets of tries and room.
    async fn fetch_into(&self, plan: &Plan<'_>, key: &ObjectKey) -> Result<(Fetched, Landed), DepositError> {
        let mut tries = self.client.tries();
        let mut odd: Option<Fetched> = None;
        let mut size_bytes = plan.item.size_bytes;
        let mut beside = None;
        let mut begun_again = 0;
        let mut wrongly_signed = false;
        loop {
            let room = self.budget.room_for(size_bytes).await;
            match self.transfer(plan, key, beside.as_ref(), &room, odd.as_ref()).await {
                Ok(Transfer::Landed(fetched, landed)) => {
                    self.learn(odd.as_ref(), &fetched);
                    self.meter.downloads.increment();
                    self.meter.bytes_stored.add(fetched.size_bytes);
                    return Ok((fetched, landed));
                }
                Ok(Transfer::Other(fetched)) => {
                    if begun_again == UPLOAD_TRIES {
                        let reason = "was taken by other bytes, and Veriff sends others each time";
                        return Err(KeepError::Damaged { key: key.clone(), reason }.into());
                    }
                    begun_again += 1;
                    beside = Some(key.conflict(fetched.sha256));
                }
                Ok(Transfer::Longer(length)) => size_bytes = length,
                Ok(Transfer::Odd(fetched)) => {
                    self.session_meter.retried();
                    self.meter.retries.increment();
                    odd = Some(fetched);
                }
                Err(DepositError::Veriff(VeriffError::Signature { .. })) if wrongly_signed => {
                    return Err(VeriffError::Signature { again: false }.into());
                }
                Err(DepositError::Veriff(error)) => {
                    wrongly_signed |= matches!(error, VeriffError::Signature { .. });
                    drop(room);
                    tries.wait(error, self.session_meter).await?;
                }
                Err(DepositError::Keep(KeepError::Store(error)))
                    if error.code().is_retryable() && begun_again < UPLOAD_TRIES && size_bytes.is_none_or(is_long) =>
                {
                    begun_again += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Moves the bytes once, from upstream into the store.
    async fn transfer(
        &self,
        plan: &Plan<'_>,
        key: &ObjectKey,
        beside: Option<&ObjectKey>,
        room: &Room,
        before: Option<&Fetched>,
    ) -> Result<Transfer, DepositError> {
        let mut stream = fetch::open(self.client, plan.item, self.max_media_size_bytes, self.session_meter).await?;
        let announced = stream.content_length();
        if announced.is_some() && !room.fits(announced) {
            return Ok(Transfer::Longer(announced));
        }
        let terms = plan.terms();
        let target = beside.unwrap_or(key);
        let mut queue = PartQueue::default();
        if announced.is_none_or(|length| !is_long(length)) {
            let limit = if announced.is_some() {
                MAX_ROOM_BYTES
            } else {
                room.bytes().min(MAX_ROOM_BYTES)
            };
            if fill(&mut stream, &mut queue, limit + 1).await? {
                let segments = queue.segments();
                let fetched = stream.finish(Some(&segments))?;
                if self.is_to_be_fetched_again(&fetched, before) {
                    return Ok(Transfer::Odd(fetched));
                }
                let payload = Payload::hashed(segments, fetched.sha256);
                return self
                    .land_whole(plan, target, beside.is_some(), &payload, &terms, fetched)
                    .await;
            }
            if limit < MAX_ROOM_BYTES {
                return Ok(Transfer::Longer(None));
            }
        }
        self.land_in_parts(plan, target, beside.is_some(), stream, queue, &terms, before)
            .await
    }

    async fn land_whole(
        &self,
        plan: &Plan<'_>,
        target: &ObjectKey,
        conflict: bool,
        payload: &Payload,
        terms: &Terms,
        fetched: Fetched,
    ) -> Result<Transfer, DepositError> {
        let checksum = Checksum::full(payload.sha256());
        let placed = self.keeper.place(target, payload, terms, plan.class).await?;
        if matches!(placed, Placed::Other(_)) && !conflict {
            let landed = self.place_beside(plan, target, payload, terms).await?;
            return Ok(Transfer::Landed(fetched, landed));
        }
        landing(target, placed, &checksum, conflict, fetched)
    }

    /// Puts bytes beside a key that other bytes have taken.
    async fn place_beside(
        &self,
        plan: &Plan<'_>,
        key: &ObjectKey,
        payload: &Payload,
        terms: &Terms,
    ) -> Result<Landed, DepositError> {
        let beside = key.conflict(payload.sha256());
        let placed = self.keeper.place(&beside, payload, terms, plan.class).await?;
        if matches!(placed, Placed::Other(_)) {
            return Err(KeepError::Damaged {
                key: beside,
                reason: "holds other bytes than its name says",
            }
            .into());
        }
        Ok(Landed {
            conflict: true,
            ..landed_at(&beside, placed, &Checksum::full(payload.sha256()))
        })
    }

    async fn land_in_parts(
        &self,
        plan: &Plan<'_>,
        target: &ObjectKey,
        conflict: bool,
        mut stream: MediaStream<'_>,
        queue: PartQueue,
        terms: &Terms,
        before: Option<&Fetched>,
    ) -> Result<Transfer, DepositError> {
        let mut upload = self.keeper.store().start_upload(target, terms).await?;
        let sent = tokio::select! {
            sent = send_in_parts(&mut stream, upload.as_mut(), queue) => sent,
            () = self.abandon.cancelled() => Err(DepositError::Stopped),
        };
        let judged = match sent {
            Ok(parts) => stream
                .finish(None)
                .map(|fetched| (fetched, parts))
                .map_err(DepositError::from),
            Err(error) => Err(error),
        };
        let (fetched, parts) = match judged {
            Ok((fetched, _)) if self.is_to_be_fetched_again(&fetched, before) => {
                abort(upload.as_mut(), target).await;
                return Ok(Transfer::Odd(fetched));
            }
            Ok(judged) => judged,
            Err(error) => {
                abort(upload.as_mut(), target).await;
                return Err(error);
            }
        };
        let checksum = Checksum::composite(&parts);
        let outcome = match upload.complete(fetched.sha256).await {
            Ok(outcome) => outcome,
            Err(error) => {
                abort(upload.as_mut(), target).await;
                return Err(error.into());
            }
        };
        if outcome == crate::store::PutOutcome::Taken {
            abort(upload.as_mut(), target).await;
        }
        let placed = self
            .keeper
            .settle(target, outcome, fetched.sha256, &checksum, terms.lock, plan.class)
            .await?;
        landing(target, placed, &checksum, conflict, fetched)
    }

    /// An odd item is fetched once more, unless it was already and gave the same, or its oddness is a habit.
    fn is_to_be_fetched_again(&self, fetched: &Fetched, before: Option<&Fetched>) -> bool {
        !fetched.anomalies.is_empty() && before.is_none() && !self.habits.explain(&fetched.anomalies)
    }

    fn learn(&self, odd: Option<&Fetched>, fetched: &Fetched) {
        if let Some(odd) = odd {
            if odd.sha256 == fetched.sha256 && odd.anomalies == fetched.anomalies {
                self.habits.confirm(&fetched.anomalies);
            } else {
                self.habits.refute(&odd.anomalies);
            }
        }
    }

    /// Takes over an object that stands with its sidecar but in no manifest: a visit was cut short before that.
    async fn adopt(&self, plan: &Plan<'_>, attempt_id: AttemptId, key: ObjectKey) -> Result<Deposited, DepositError> {
        let sidecar_key = key.sidecar();
        let object_version = self
            .standing
            .object(&key)
            .and_then(|object| object.version_id.as_deref());
        let sidecar_version = self
            .standing
            .object(&sidecar_key)
            .and_then(|object| object.version_id.clone());
        let (sidecar, sidecar_sha256) = self
            .keeper
            .read_sidecar(&sidecar_key, sidecar_version.as_deref())
            .await?;
        let head = self.keeper.store().head(&key, object_version).await?;
        let head = head.ok_or_else(|| KeepError::Damaged {
            key: key.clone(),
            reason: "was listed and is gone",
        })?;
        let tells_of_it = sidecar.object.key == key
            && sidecar.object.size_bytes == head.size_bytes
            && sidecar.session_id == *self.session_id
            && self
                .keeper
                .holds(&key, &head, sidecar.object.sha256, &sidecar.object.checksum)
                .await?;
        if !tells_of_it {
            return Err(KeepError::Damaged {
                key: sidecar_key,
                reason: "tells of other bytes than stand beside it",
            }
            .into());
        }
        let promised = crate::keep::promised_lock(&sidecar);
        let lock = self
            .keeper
            .strengthen(&key, head.version_id.as_deref(), head.lock, promised)
            .await?;
        Ok(Deposited {
            attempt_id,
            media: ManifestMedia {
                media_id: plan.item.media_id.clone(),
                kind: plan.item.kind,
                context: plan.item.context.clone(),
                key,
                version_id: head.version_id,
                size_bytes: head.size_bytes,
                sha256: sidecar.object.sha256,
                checksum: sidecar.object.checksum,
                sidecar_sha256,
                sidecar_version_id: sidecar_version,
            },
            conflict: None,
            lock,
            anomalies: sidecar.anomalies.into_iter().map(|odd| odd.code).collect(),
        })
    }

    /// Writes a sidecar for an object that stands without one and cannot be fetched again.
    async fn reconstruct(
        &self,
        plan: &Plan<'_>,
        attempt_id: AttemptId,
        key: ObjectKey,
        mut anomalies: Vec<Anomaly>,
    ) -> Result<Deposited, DepositError> {
        let head = self.keeper.head_of_oldest(&key).await?;
        let sha256 = self.keeper.digest_of(&key, head.version_id.as_deref()).await?;
        let terms = plan.terms();
        let lock = self
            .keeper
            .strengthen(&key, head.version_id.as_deref(), head.lock, terms.lock)
            .await?;
        anomalies.push(Anomaly {
            code: anomaly::RECONSTRUCTED.to_owned(),
            detail: "the object stood without a sidecar and Veriff no longer has it".to_owned(),
        });
        let checksum = head.checksum.clone().unwrap_or_else(|| Checksum::full(sha256));
        let stored = Stored {
            version_id: head.version_id,
            checksum,
        };
        let sidecar = self.sidecar(
            plan,
            &attempt_id,
            &key,
            head.size_bytes,
            sha256,
            &stored,
            None,
            anomalies,
            lock,
        );
        self.with_sidecar(plan, attempt_id, sidecar, stored, None, lock).await
    }

    /// Writes the sidecar of bytes that landed, and tells of both.
    #[expect(clippy::too_many_arguments, reason = "the facts of one item, each used once")]
    async fn write_down(
        &self,
        plan: &Plan<'_>,
        attempt_id: AttemptId,
        key: ObjectKey,
        size_bytes: u64,
        sha256: Sha256Digest,
        upstream: Upstream,
        mut anomalies: Vec<Anomaly>,
        landed: Landed,
    ) -> Result<Deposited, DepositError> {
        let lock = plan.lock;
        if landed.conflict {
            anomalies.push(Anomaly {
                code: anomaly::CONFLICT.to_owned(),
                detail: "other bytes stand under the item's own key".to_owned(),
            });
        }
        let stored = landed.stored.clone();
        let sidecar = self.sidecar(
            plan,
            &attempt_id,
            &landed.key,
            size_bytes,
            sha256,
            &stored,
            Some(upstream),
            anomalies,
            lock,
        );
        if !landed.conflict {
            return self.with_sidecar(plan, attempt_id, sidecar, stored, None, lock).await;
        }
        self.keeper.place_sidecar(&sidecar, lock).await?;
        let conflict = ConflictItem {
            media_id: plan.item.media_id.clone(),
            key: landed.key,
            version_id: stored.version_id,
            sha256,
        };
        let mut standing = self.tell_of_standing(plan, attempt_id, key).await?;
        standing.conflict = Some(conflict);
        Ok(standing)
    }

    /// Tells of what stands under the key of an item whose own bytes went beside it.
    async fn tell_of_standing(
        &self,
        plan: &Plan<'_>,
        attempt_id: AttemptId,
        key: ObjectKey,
    ) -> Result<Deposited, DepositError> {
        let odd = Anomaly {
            code: anomaly::CONFLICT.to_owned(),
            detail: "Veriff sent other bytes for this item; they stand beside it".to_owned(),
        };
        self.reconstruct(plan, attempt_id, key, vec![odd]).await
    }

    async fn with_sidecar(
        &self,
        plan: &Plan<'_>,
        attempt_id: AttemptId,
        sidecar: Sidecar,
        stored: Stored,
        conflict: Option<ConflictItem>,
        lock: Option<Lock>,
    ) -> Result<Deposited, DepositError> {
        let (sidecar_sha256, sidecar_version_id) = self.keeper.place_sidecar(&sidecar, lock).await?;
        Ok(Deposited {
            attempt_id,
            media: ManifestMedia {
                media_id: plan.item.media_id.clone(),
                kind: plan.item.kind,
                context: plan.item.context.clone(),
                key: sidecar.object.key,
                version_id: stored.version_id,
                size_bytes: sidecar.object.size_bytes,
                sha256: sidecar.object.sha256,
                checksum: stored.checksum,
                sidecar_sha256,
                sidecar_version_id,
            },
            conflict,
            lock,
            anomalies: sidecar.anomalies.into_iter().map(|odd| odd.code).collect(),
        })
    }

    #[expect(clippy::too_many_arguments, reason = "the facts of one document, each used once")]
    fn sidecar(
        &self,
        plan: &Plan<'_>,
        attempt_id: &AttemptId,
        key: &ObjectKey,
        size_bytes: u64,
        sha256: Sha256Digest,
        stored: &Stored,
        upstream: Option<Upstream>,
        anomalies: Vec<Anomaly>,
        lock: Option<Lock>,
    ) -> Sidecar {
        let media_id: MediaId = plan.item.media_id.clone();
        Sidecar {
            schema: SIDECAR_SCHEMA.to_owned(),
            archive_id: self.archive_id.clone(),
            session_id: self.session_id.clone(),
            attempt_id: attempt_id.clone(),
            media_id,
            integration: self.client.settings().name.clone(),
            kind: plan.item.kind,
            context: plan.item.context.clone(),
            name: plan.item.name.clone(),
            duration_seconds: plan.item.duration_seconds,
            object: SidecarObject {
                key: key.clone(),
                size_bytes,
                sha256,
                content_type: content_type(plan.item),
                checksum: stored.checksum.clone(),
            },
            upstream,
            retention: SidecarRetention {
                class: plan.class.to_owned(),
                mode: lock.map_or(Mode::None, |lock| lock.mode),
                period: plan.period,
                basis: plan.basis.to_owned(),
                counted_from: plan.counted_from,
                counted_from_source: plan.counted_from_source,
                initial_retain_until: lock.map(|lock| lock.retain_until),
            },
            archived_by: ArchivedBy {
                run_id: self.run_id.clone(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
            },
            anomalies,
        }
    }
}

const fn is_long(size_bytes: u64) -> bool {
    size_bytes > crate::model::digest::SINGLE_PUT_MAX_BYTES
}

fn landed_at(key: &ObjectKey, placed: Placed, checksum: &Checksum) -> Landed {
    let stored = match placed {
        Placed::Created(stored) => stored,
        Placed::Same(head) | Placed::Other(head) => Stored {
            version_id: head.version_id,
            checksum: head.checksum.unwrap_or_else(|| checksum.clone()),
        },
    };
    Landed {
        key: key.clone(),
        stored,
        conflict: false,
    }
}

fn landing(
    target: &ObjectKey,
    placed: Placed,
    checksum: &Checksum,
    conflict: bool,
    fetched: Fetched,
) -> Result<Transfer, DepositError> {
    match placed {
        Placed::Other(_) if conflict => Err(KeepError::Damaged {
            key: target.clone(),
            reason: "holds other bytes than its name says",
        }
        .into()),
        // Also when the name beside the key no longer fits what Veriff sends now.
        Placed::Other(_) => Ok(Transfer::Other(fetched)),
        placed => Ok(Transfer::Landed(
            fetched,
            Landed {
                conflict,
                ..landed_at(target, placed, checksum)
            },
        )),
    }
}

async fn abort(upload: &mut dyn Upload, key: &ObjectKey) {
    if let Err(error) = upload.abort().await {
        tracing::warn!(object.key = %key, error.code = %error.code(), "an unfinished upload could not be removed: {error}");
    }
}

/// Sends a body in parts, reading the next one while the last one goes out.
async fn send_in_parts(
    stream: &mut MediaStream<'_>,
    upload: &mut dyn Upload,
    mut queue: PartQueue,
) -> Result<Vec<Sha256Digest>, DepositError> {
    let mut digests = Vec::new();
    let mut ended = fill(stream, &mut queue, PART_SIZE_BYTES).await?;
    while let Some(part) = queue.next_part(ended) {
        digests.push(part.sha256());
        if ended {
            upload.put_part(&part).await?;
        } else {
            let filling = fill(stream, &mut queue, PART_SIZE_BYTES);
            let (sent, filled) = futures_util::future::join(upload.put_part(&part), filling).await;
            sent?;
            ended = filled?;
        }
    }
    Ok(digests)
}

/// Reads until the queue holds so many bytes; true if the body has ended.
async fn fill(stream: &mut MediaStream<'_>, queue: &mut PartQueue, until_bytes: u64) -> Result<bool, VeriffError> {
    while queue.size_bytes < until_bytes {
        match stream.chunk().await? {
            Some(chunk) => queue.push(chunk),
            None => return Ok(true),
        }
    }
    Ok(false)
}

/// Bytes on their way, cut into parts without copying.
#[derive(Debug, Default)]
struct PartQueue {
    segments: VecDeque<Bytes>,
    size_bytes: u64,
}

impl PartQueue {
    fn push(&mut self, segment: Bytes) {
        self.size_bytes += segment.len() as u64;
        self.segments.push_back(segment);
    }

    fn segments(self) -> Vec<Bytes> {
        self.segments.into()
    }

    /// Cuts the next part: of full size, or, once the body has ended, what is left. `None` if there is nothing to cut.
    fn next_part(&mut self, ended: bool) -> Option<Payload> {
        if self.size_bytes == 0 || !ended && self.size_bytes < PART_SIZE_BYTES {
            return None;
        }
        let wanted = self.size_bytes.min(PART_SIZE_BYTES);
        let mut left = usize::try_from(wanted).unwrap_or(usize::MAX);
        let mut hasher = Hasher::default();
        let mut part = Vec::new();
        while left > 0 {
            let Some(mut segment) = self.segments.pop_front() else {
                break;
            };
            if segment.len() > left {
                self.segments.push_front(segment.split_off(left));
            }
            left -= segment.len();
            hasher.update(&segment);
            part.push(segment);
        }
        self.size_bytes -= wanted;
        Some(Payload::hashed(part, hasher.finish()))
    }
}

/// Returns the content type an object is stored with: the listed one in its usual form.
fn content_type(item: &MediaItem) -> String {
    let known = match extension_for(item.mimetype.as_deref()) {
        "jpg" => "image/jpeg",
        "png" => "image/png",
        "webp" => "image/webp",
        "heic" => "image/heic",
        "heif" => "image/heif",
        "pdf" => "application/pdf",
        "webm" => "video/webm",
        "mp4" => "video/mp4",
        "json" => "application/json",
        _ => "application/octet-stream",
    };
    known.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn parts_are_the_bytes_in_order_and_of_full_size(sizes in proptest::collection::vec(1usize..5_000_000, 1..12)) {
            let mut queue = PartQueue::default();
            let mut whole = Hasher::default();
            let mut total = 0u64;
            for (index, size) in sizes.iter().enumerate() {
                let segment = vec![u8::try_from(index).unwrap(); *size];
                whole.update(&segment);
                total += *size as u64;
                queue.push(Bytes::from(segment));
            }
            let mut again = Hasher::default();
            let mut sizes = Vec::new();
            while let Some(part) = queue.next_part(true) {
                part.segments().iter().for_each(|segment| again.update(segment));
                sizes.push(part.size_bytes());
            }
            prop_assert_eq!(sizes.iter().sum::<u64>(), total);
            prop_assert!(sizes.iter().rev().skip(1).all(|size| *size == PART_SIZE_BYTES));
            prop_assert_eq!(again.finish(), whole.finish());
        }
    }

    #[test]
    fn nothing_is_cut_before_a_part_is_full_or_the_body_ended() {
        let mut queue = PartQueue::default();
        queue.push(Bytes::from_static(b"few"));
        assert!(queue.next_part(false).is_none());
        assert_eq!(queue.next_part(true).unwrap().size_bytes(), 3);
        assert!(queue.next_part(true).is_none());
    }
}
