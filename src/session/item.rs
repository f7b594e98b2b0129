//! Deposit: one media item, from upstream into the store, with its sidecar.
//!
//! Between archive and transfer. Promises: an object is never written over, and a crash between any two steps is
//! repaired by the next visit. An item that stands already, with a sidecar that tells of it, is not downloaded again; one
//! that stands without a sidecar is, so that the sidecar can tell where the bytes came from.

use crate::model::digest::{Checksum, Payload, Sha256Digest};
use crate::model::key::{ObjectKey, extension_for};
use crate::model::manifest::{ConflictItem, ManifestMedia};
use crate::model::retention::{Lock, Mode};
use crate::model::sidecar::{
    Anomaly, ArchivedBy, SIDECAR_SCHEMA, Sidecar, SidecarObject, SidecarRetention, SignatureCheck, Upstream, anomaly,
};
use crate::model::{ArchiveId, AttemptId, MediaId, RunId, SessionId};
use crate::session::body::Fetched;
use crate::session::catalog::RecordItem;
use crate::session::standing::Standing;
use crate::session::transfer::{ItemError, Landed, Lane, Plan, Transfer, content_type, landed_at, place_beside};
use crate::session::writer::{Placed, WriteError, promised_lock};
use crate::store::{ListedVersion, Stored};
use crate::veriff::{Answer, VeriffError};

/// What depositing needs, the same for all items of a session.
#[derive(Debug)]
pub struct Depositor<'a> {
    /// What moves the bytes.
    pub lane: Lane<'a>,
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

/// Where an item belongs.
struct Place {
    attempt_id: AttemptId,
    key: ObjectKey,
}

/// What was found of an item before any byte was asked for.
enum Found {
    Archived(Box<Deposited>),
    Place(Place),
}

/// What a sidecar tells of one object.
struct Facts {
    size_bytes: u64,
    sha256: Sha256Digest,
    upstream: Option<Upstream>,
    anomalies: Vec<Anomaly>,
    lock: Option<Lock>,
}

impl Depositor<'_> {
    /// Brings one item into the archive.
    ///
    /// # Errors
    /// Retryable, permanent or fatal as upstream's and the store's; then the item is missing from the archive.
    pub async fn deposit(&self, plan: &Plan<'_>) -> Result<Deposited, ItemError> {
        let place = match self.place_of(plan).await? {
            Found::Archived(deposited) => return Ok(*deposited),
            Found::Place(place) => place,
        };
        match Transfer::of(&self.lane, plan, &place.key).run().await {
            Ok((fetched, landed)) => self.write_down(plan, place, fetched, landed).await,
            // A crash between object and sidecar leaves this, and Veriff may have deleted its media since. The bytes are
            // here and locked: they are described as far as they can be.
            Err(ItemError::Veriff(VeriffError::Missing { .. })) if self.standing.object(&place.key).is_some() => {
                self.reconstruct(plan, place, Vec::new()).await
            }
            Err(error) => Err(error),
        }
    }

    /// Brings a JSON record into the archive; its bytes came with the answer.
    ///
    /// # Errors
    /// As [`Depositor::deposit`].
    pub async fn deposit_record(&self, plan: &Plan<'_>, record: &RecordItem) -> Result<Deposited, ItemError> {
        let place = match self.place_of(plan).await? {
            Found::Archived(deposited) => return Ok(*deposited),
            Found::Place(place) => place,
        };
        let payload = Payload::hashed(vec![record.answer.body.clone()], Sha256Digest::of(&record.answer.body));
        let landed = match self.lane.writer.place(&place.key, &payload, &plan.terms(), plan.class).await? {
            Placed::Other(_) => place_beside(self.lane.writer, plan, &place.key, &payload).await?,
            placed => landed_at(&place.key, placed, &Checksum::full(payload.sha256()), false),
        };
        self.write_down(plan, place, fetched_record(&record.answer, &payload, self.lane.client.host()), landed).await
    }

    /// Names the item, and takes it over if it stands. A media id that stands under the session's prefix keeps its key.
    async fn place_of(&self, plan: &Plan<'_>) -> Result<Found, ItemError> {
        let item = plan.item;
        let place = if let Some((attempt_id, key)) = self.standing.media(&item.media_id) {
            Place { attempt_id: attempt_id.clone(), key: key.clone() }
        } else {
            let extension = extension_for(item.mimetype.as_deref());
            let key = ObjectKey::media(self.session_id, &item.attempt_id, &item.media_id, extension);
            Place { attempt_id: item.attempt_id.clone(), key }
        };
        let sidecar = place.key.sidecar();
        // Before any byte is asked for: to a PUT, a key under a delete marker is empty, and it would add a version that
        // nobody takes for the archive's.
        if self.standing.is_shadowed(&place.key) || self.standing.is_shadowed(&sidecar) {
            return Err(WriteError::Shadowed { key: place.key }.into());
        }
        if self.standing.object(&place.key).is_some() && self.standing.object(&sidecar).is_some() {
            return Ok(Found::Archived(Box::new(self.adopt(plan, place).await?)));
        }
        Ok(Found::Place(place))
    }

    /// Takes over an object that stands with its sidecar but in no manifest: a visit was cut short before that.
    async fn adopt(&self, plan: &Plan<'_>, Place { attempt_id, key }: Place) -> Result<Deposited, ItemError> {
        let sidecar_key = key.sidecar();
        let object_version = self.standing.object(&key).and_then(|object| object.version_id.as_deref());
        let sidecar_version = self.standing.object(&sidecar_key).and_then(|object| object.version_id.clone());
        let writer = self.lane.writer;
        let (sidecar, sidecar_sha256, sidecar_lock) =
            writer.read_sidecar(&sidecar_key, sidecar_version.as_deref()).await?;
        let head = self.lane.writer.store().head(&key, object_version).await?;
        let head = head.ok_or_else(|| WriteError::Damaged { key: key.clone(), reason: "was listed and is gone" })?;
        // Compared, not believed: nothing else is known of the run that wrote them, and the manifest will vouch for both.
        let tells_of_it = sidecar.object.key == key
            && sidecar.object.size_bytes == head.size_bytes
            && sidecar.session_id == *self.session_id
            && self.lane.writer.holds(&key, &head, sidecar.object.sha256, &sidecar.object.checksum).await?;
        if !tells_of_it {
            return Err(WriteError::Damaged {
                key: sidecar_key,
                reason: "describes other bytes than the object next to it",
            }
            .into());
        }
        let conflict = match self.standing.conflict(&key) {
            Some(beside) => Some(self.tell_of_conflict(plan, beside).await?),
            None => None,
        };
        let promised = promised_lock(&sidecar);
        let lock = writer.strengthen(&key, head.version_id.as_deref(), head.lock, promised).await?;
        writer.strengthen(&sidecar_key, sidecar_version.as_deref(), sidecar_lock, promised).await?;
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
            conflict,
            lock,
            anomalies: sidecar.anomalies.into_iter().map(|odd| odd.code).collect(),
        })
    }

    /// Tells of bytes that a visit which was cut short put beside the item's own key.
    async fn tell_of_conflict(&self, plan: &Plan<'_>, beside: &ListedVersion) -> Result<ConflictItem, ItemError> {
        let writer = self.lane.writer;
        let sidecar_key = beside.key.sidecar();
        let (sidecar_sha256, sidecar_version_id) = match self.standing.object(&sidecar_key) {
            Some(sidecar) => {
                let (_, sha256, _) = writer.read_sidecar(&sidecar_key, sidecar.version_id.as_deref()).await?;
                (Some(sha256), sidecar.version_id.clone())
            }
            None => (None, None),
        };
        Ok(ConflictItem {
            media_id: plan.item.media_id.clone(),
            key: beside.key.clone(),
            version_id: beside.version_id.clone(),
            sha256: writer.digest_of(&beside.key, beside.version_id.as_deref()).await?,
            sidecar_sha256,
            sidecar_version_id,
        })
    }

    /// Writes a sidecar for an object that stands without one and whose bytes did not come from this fetch.
    async fn reconstruct(
        &self,
        plan: &Plan<'_>,
        Place { attempt_id, key }: Place,
        mut anomalies: Vec<Anomaly>,
    ) -> Result<Deposited, ItemError> {
        let head = self.lane.writer.head_of_own(&key).await?;
        let sha256 = self.lane.writer.digest_of(&key, head.version_id.as_deref()).await?;
        let lock = self.lane.writer.strengthen(&key, head.version_id.as_deref(), head.lock, plan.lock).await?;
        let detail = "the object had no sidecar, and Veriff did not send the same bytes";
        anomalies.push(Anomaly { code: anomaly::RECONSTRUCTED.to_owned(), detail: detail.to_owned() });
        let checksum = head.checksum.clone().unwrap_or_else(|| Checksum::full(sha256));
        let stored = Stored { version_id: head.version_id, checksum };
        let facts = Facts { size_bytes: head.size_bytes, sha256, upstream: None, anomalies, lock };
        let sidecar = self.sidecar(plan, &attempt_id, &key, &stored, facts);
        self.with_sidecar(plan, attempt_id, sidecar, stored, lock).await
    }

    /// Writes the sidecar of bytes that landed, and tells of both. Where other bytes are stored under the item's own key, they
    /// are the item's and ours are the conflict.
    async fn write_down(
        &self,
        plan: &Plan<'_>,
        place: Place,
        fetched: Fetched,
        landed: Landed,
    ) -> Result<Deposited, ItemError> {
        let Fetched { sha256, size_bytes, upstream, mut anomalies } = fetched;
        let Landed { key, stored, conflict } = landed;
        let odd = |detail: &str| Anomaly { code: anomaly::CONFLICT.to_owned(), detail: detail.to_owned() };
        if conflict {
            anomalies.push(odd("other bytes are stored under the item's own key"));
        }
        let facts = Facts { size_bytes, sha256, upstream: Some(upstream), anomalies, lock: plan.lock };
        let sidecar = self.sidecar(plan, &place.attempt_id, &key, &stored, facts);
        if !conflict {
            return self.with_sidecar(plan, place.attempt_id, sidecar, stored, plan.lock).await;
        }
        // Ours first. An object with a sidecar counts as archived: in the other order, dying in between would leave our
        // bytes without a sidecar for ever.
        let (sidecar_sha256, sidecar_version_id) = self.lane.writer.place_sidecar(&sidecar, plan.lock).await?;
        let beside = ConflictItem {
            media_id: plan.item.media_id.clone(),
            key,
            version_id: stored.version_id,
            sha256,
            sidecar_sha256: Some(sidecar_sha256),
            sidecar_version_id,
        };
        let others = odd("Veriff sent other bytes for this item; they are stored next to it");
        let standing = self.reconstruct(plan, place, vec![others]).await?;
        Ok(Deposited { conflict: Some(beside), ..standing })
    }

    async fn with_sidecar(
        &self,
        plan: &Plan<'_>,
        attempt_id: AttemptId,
        sidecar: Sidecar,
        stored: Stored,
        lock: Option<Lock>,
    ) -> Result<Deposited, ItemError> {
        let (sidecar_sha256, sidecar_version_id) = self.lane.writer.place_sidecar(&sidecar, lock).await?;
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
            conflict: None,
            lock,
            anomalies: sidecar.anomalies.into_iter().map(|odd| odd.code).collect(),
        })
    }

    fn sidecar(
        &self,
        plan: &Plan<'_>,
        attempt_id: &AttemptId,
        key: &ObjectKey,
        stored: &Stored,
        facts: Facts,
    ) -> Sidecar {
        let Facts { size_bytes, sha256, upstream, anomalies, lock } = facts;
        let media_id: MediaId = plan.item.media_id.clone();
        Sidecar {
            schema: SIDECAR_SCHEMA.to_owned(),
            archive_id: self.archive_id.clone(),
            session_id: self.session_id.clone(),
            attempt_id: attempt_id.clone(),
            media_id,
            integration: self.lane.client.settings().name.clone(),
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
            archived_by: ArchivedBy { run_id: self.run_id.clone(), version: env!("CARGO_PKG_VERSION").to_owned() },
            anomalies,
        }
    }
}

/// Tells of a record as of any other item that was fetched.
fn fetched_record(answer: &Answer, payload: &Payload, host: &str) -> Fetched {
    let detail = "the response signature does not match the bytes";
    let odd = Anomaly { code: anomaly::SIGNATURE.to_owned(), detail: detail.to_owned() };
    Fetched {
        sha256: payload.sha256(),
        size_bytes: payload.size_bytes(),
        anomalies: (answer.signature == SignatureCheck::Mismatch).then_some(odd).into_iter().collect(),
        upstream: Upstream {
            host: host.to_owned(),
            path: answer.path.clone(),
            listed_size_bytes: None,
            listed_mimetype: None,
            http_status: answer.http_status,
            content_type: answer.content_type.clone(),
            date: answer.date.clone(),
            fetched_at: answer.fetched_at,
            signature: answer.signature,
            signature_value: answer.signature_value.clone(),
        },
    }
}
