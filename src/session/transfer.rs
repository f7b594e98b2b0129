//! Transfer: the bytes of one media item, from upstream into the store.
//!
//! Between fetch and keep. Promises: bytes pass once and in bounded room, whatever their length; nothing odd is believed
//! at the first sight of it; what is not whole, or not media, never appears under a key. Leaves the sidecar to `item`.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use crate::clock::Timestamp;
use crate::error::Code;
use crate::metrics::{Meter, SessionMeter};
use crate::model::digest::{Checksum, Hasher, PART_SIZE_BYTES, Payload, SINGLE_PUT_MAX_BYTES, Sha256Digest};
use crate::model::key::{ObjectKey, extension_for};
use crate::model::retention::{Lock, Period};
use crate::model::sidecar::CountedFrom;
use crate::session::body::{self, Fetched, Habits, MediaStream, Turn};
use crate::session::budget::{Budget, MAX_ROOM_BYTES, Piece, Room};
use crate::session::catalog::MediaItem;
use crate::session::writer::{ArchiveWriter, Placed, WriteError};
use crate::store::{PutOutcome, StoreError, Stored, Terms, Upload};
use crate::veriff::{VeriffClient, VeriffError};

/// How often an item is begun again because of what else happens under its key.
const KEY_TRIES: u32 = 3;

/// What moves bytes, the same for all items of a session.
#[derive(Debug, Clone, Copy)]
pub struct Lane<'a> {
    /// Where the bytes come from.
    pub client: &'a VeriffClient,
    /// What the integration is known to do.
    pub habits: &'a Habits,
    /// Where they go.
    pub writer: &'a ArchiveWriter,
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
}

/// Why an item is not in the archive.
#[derive(Debug, thiserror::Error)]
pub enum ItemError {
    /// Veriff did not give it.
    #[error(transparent)]
    Veriff(#[from] VeriffError),
    /// The store did not take it.
    #[error(transparent)]
    Keep(#[from] WriteError),
    /// The run was told to stop.
    #[error("the run was stopped")]
    Stopped,
}

impl From<StoreError> for ItemError {
    fn from(error: StoreError) -> Self {
        Self::Keep(error.into())
    }
}

impl ItemError {
    /// Returns the stable code, which fixes the error class.
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

impl Plan<'_> {
    /// Returns how its object is to be stored.
    #[must_use]
    pub fn terms(&self) -> Terms {
        Terms { content_type: content_type(self.item), lock: self.lock, is_document: false }
    }
}

/// One item on its way.
#[derive(Debug)]
pub struct Transfer<'a> {
    lane: &'a Lane<'a>,
    plan: &'a Plan<'a>,
    key: &'a ObjectKey,
    terms: Terms,
    /// Where our bytes go once other bytes were found under the key.
    beside: Option<ObjectKey>,
    /// What the first fetch gave, if it was odd, and the turn to fetch it again.
    odd: Option<(Fetched, Turn)>,
}

/// Where an item's bytes went.
#[derive(Debug)]
pub struct Landed {
    /// The key they stand under.
    pub key: ObjectKey,
    /// The object.
    pub stored: Stored,
    /// Other bytes had taken the item's own key.
    pub conflict: bool,
}

/// What came of moving the bytes once.
enum Step {
    /// They are in the store.
    Landed(Fetched, Landed),
    /// Other bytes stand under the key.
    Other(Fetched),
    /// The body is longer than the room that was taken for it.
    Longer(Option<u64>),
    /// Something about it was odd, and it is to be fetched again.
    Odd(Fetched, Turn),
}

impl<'a> Transfer<'a> {
    /// Prepares to move an item to its key.
    #[must_use]
    pub fn of(lane: &'a Lane<'a>, plan: &'a Plan<'a>, key: &'a ObjectKey) -> Self {
        Self { lane, plan, key, terms: plan.terms(), beside: None, odd: None }
    }

    /// Fetches until the bytes are in the store, within the budgets of tries and room.
    ///
    /// # Errors
    /// Retryable, permanent or fatal as upstream's and the store's; then nothing of the item appears under a key.
    pub async fn run(mut self) -> Result<(Fetched, Landed), ItemError> {
        let mut tries = self.lane.client.tries();
        let mut size_bytes = self.plan.item.size_bytes;
        let mut begun_again = 0;
        let mut wrongly_signed = false;
        let mut kept_room = None;
        // A loop of its own, because each try differs by what came of the one before, and none waits in room that others
        // could use.
        loop {
            let room = match kept_room.take() {
                Some(room) => room,
                None => self.lane.budget.room_for(size_bytes).await,
            };
            match self.step(&room).await {
                Ok(Step::Landed(fetched, landed)) => return Ok(self.landed(fetched, landed)),
                Ok(Step::Other(fetched)) if begun_again < KEY_TRIES => {
                    self.yield_turn();
                    begun_again += 1;
                    self.beside = Some(self.key.conflict(fetched.sha256));
                }
                Ok(Step::Other(_)) => {
                    let reason = "is taken by other bytes, and Veriff sends different ones each time";
                    return Err(WriteError::Damaged { key: self.key.clone(), reason }.into());
                }
                Ok(Step::Longer(length)) => {
                    self.yield_turn();
                    size_bytes = length;
                }
                Ok(Step::Odd(fetched, turn)) => {
                    self.lane.client.note_retry(self.lane.session_meter);
                    self.odd = Some((fetched, turn));
                    kept_room = Some(room);
                }
                Err(ItemError::Veriff(VeriffError::Signature { .. })) if wrongly_signed => {
                    return Err(VeriffError::Signature { again: false }.into());
                }
                Err(ItemError::Veriff(error)) => {
                    wrongly_signed |= matches!(error, VeriffError::Signature { .. });
                    self.yield_turn();
                    drop(room);
                    match self.lane.client.next_wait(&mut tries, &error, self.lane.session_meter) {
                        Some(wait) => tokio::time::sleep(wait).await,
                        None => return Err(error.into()),
                    }
                }
                Err(ItemError::Keep(WriteError::Store(error)))
                    if error.code().is_retryable() && begun_again < KEY_TRIES && size_bytes.is_none_or(is_long) =>
                {
                    self.yield_turn();
                    begun_again += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Moves the bytes once.
    async fn step(&self, room: &Room) -> Result<Step, ItemError> {
        let Lane { client, max_media_size_bytes, session_meter, .. } = self.lane;
        let mut stream = body::open(client, self.plan.item, *max_media_size_bytes, session_meter).await?;
        let announced = stream.content_length();
        if announced.is_some() && !room.fits(announced) {
            return Ok(Step::Longer(announced));
        }
        let mut queue = PartQueue::within(room);
        if announced.is_none_or(|length| !is_long(length)) {
            let limit = if announced.is_some() { MAX_ROOM_BYTES } else { room.bytes().min(MAX_ROOM_BYTES) };
            if fill(&mut stream, &mut queue, limit + 1).await? {
                return self.land_whole(stream, queue.segments()).await;
            }
            if limit < MAX_ROOM_BYTES {
                return Ok(Step::Longer(None));
            }
        }
        self.land_in_parts(stream, queue).await
    }

    /// Puts a body that is whole in memory.
    async fn land_whole(&self, stream: MediaStream<'_>, segments: Vec<Bytes>) -> Result<Step, ItemError> {
        let fetched = stream.finish(Some(&segments))?;
        if let Some(turn) = self.turn_to_fetch_again(&fetched).await {
            return Ok(Step::Odd(fetched, turn));
        }
        let payload = Payload::hashed(segments, fetched.sha256);
        let (writer, class) = (self.lane.writer, self.plan.class);
        let placed = writer.place(self.target(), &payload, &self.terms, class).await?;
        if matches!(placed, Placed::Other(_)) && self.beside.is_none() {
            let landed = place_beside(self.lane.writer, self.plan, self.key, &payload).await?;
            return Ok(Step::Landed(fetched, landed));
        }
        Ok(self.judge(placed, &Checksum::full(payload.sha256()), fetched))
    }

    /// Sends a body on in parts while it comes.
    async fn land_in_parts(&self, mut stream: MediaStream<'_>, queue: PartQueue<'_>) -> Result<Step, ItemError> {
        let mut upload = self.lane.writer.store().start_upload(self.target(), &self.terms).await?;
        let sent = tokio::select! {
            sent = send_in_parts(&mut stream, upload.as_mut(), queue) => sent,
            () = self.lane.abandon.cancelled() => Err(ItemError::Stopped),
        };
        let ended = match sent {
            Ok(parts) => self.complete(stream, upload.as_mut(), &parts).await,
            Err(error) => Err(error),
        };
        if !matches!(ended, Ok((_, true))) {
            // Best effort: the bucket's own rule removes what stays behind.
            if let Err(error) = upload.abort().await {
                tracing::warn!(object.key = %self.target(), error.code = %error.code(), "an unfinished upload could not be removed: {error}");
            }
        }
        ended.map(|(step, _)| step)
    }

    /// Judges a body whose parts are all there, and makes the object appear. Also tells whether this upload made it.
    async fn complete(
        &self,
        stream: MediaStream<'_>,
        upload: &mut dyn Upload,
        parts: &[Sha256Digest],
    ) -> Result<(Step, bool), ItemError> {
        let fetched = stream.finish(None)?;
        if let Some(turn) = self.turn_to_fetch_again(&fetched).await {
            return Ok((Step::Odd(fetched, turn), false));
        }
        let outcome = upload.complete(fetched.sha256).await?;
        let is_made = matches!(outcome, PutOutcome::Created(_));
        let checksum = Checksum::composite(parts);
        let (writer, class) = (self.lane.writer, self.plan.class);
        let placed = writer.settle(self.target(), outcome, fetched.sha256, &checksum, self.terms.lock, class).await?;
        Ok((self.judge(placed, &checksum, fetched), is_made))
    }

    fn target(&self) -> &ObjectKey {
        self.beside.as_ref().unwrap_or(self.key)
    }

    fn judge(&self, placed: Placed, checksum: &Checksum, fetched: Fetched) -> Step {
        match placed {
            // Also when the name beside the key no longer fits what Veriff sends now.
            Placed::Other(_) => Step::Other(fetched),
            placed => Step::Landed(fetched, landed_at(self.target(), placed, checksum, self.beside.is_some())),
        }
    }

    /// An odd item is fetched once more, unless its oddness is a habit of the integration.
    async fn turn_to_fetch_again(&self, fetched: &Fetched) -> Option<Turn> {
        if fetched.anomalies.is_empty() || self.odd.is_some() {
            return None;
        }
        self.lane.habits.turn(&fetched.anomalies).await
    }

    /// Lets others fetch again before this item does anything that may take long: they hold room that it may wait for.
    fn yield_turn(&mut self) {
        if let Some((_, turn)) = &mut self.odd {
            turn.end();
        }
    }

    fn landed(&self, fetched: Fetched, landed: Landed) -> (Fetched, Landed) {
        if let Some((odd, _)) = &self.odd {
            if odd.sha256 == fetched.sha256 && odd.anomalies == fetched.anomalies {
                self.lane.habits.confirm(&fetched.anomalies);
            } else {
                self.lane.habits.refute(&odd.anomalies);
            }
        }
        self.lane.meter.downloads.increment();
        self.lane.meter.bytes_stored.add(fetched.size_bytes);
        (fetched, landed)
    }
}

/// Puts bytes beside a key that other bytes have taken.
///
/// # Errors
/// As the store's; permanent if the name beside holds other bytes than it says.
pub async fn place_beside(
    writer: &ArchiveWriter,
    plan: &Plan<'_>,
    key: &ObjectKey,
    payload: &Payload,
) -> Result<Landed, ItemError> {
    let beside = key.conflict(payload.sha256());
    match writer.place(&beside, payload, &plan.terms(), plan.class).await? {
        Placed::Other(_) => {
            Err(WriteError::Damaged { key: beside, reason: "contains other bytes than its name says" }.into())
        }
        placed => Ok(landed_at(&beside, placed, &Checksum::full(payload.sha256()), true)),
    }
}

/// Tells where bytes went that were placed, or stood already.
#[must_use]
pub fn landed_at(key: &ObjectKey, placed: Placed, checksum: &Checksum, conflict: bool) -> Landed {
    let stored = match placed {
        Placed::Created(stored) => stored,
        Placed::Same(head) | Placed::Other(head) => {
            Stored { version_id: head.version_id, checksum: head.checksum.unwrap_or_else(|| checksum.clone()) }
        }
    };
    Landed { key: key.clone(), stored, conflict }
}

const fn is_long(size_bytes: u64) -> bool {
    size_bytes > SINGLE_PUT_MAX_BYTES
}

/// Sends a body in parts, reading the next one while the last one goes out.
async fn send_in_parts(
    stream: &mut MediaStream<'_>,
    upload: &mut dyn Upload,
    mut queue: PartQueue<'_>,
) -> Result<Vec<Sha256Digest>, ItemError> {
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
async fn fill(stream: &mut MediaStream<'_>, queue: &mut PartQueue<'_>, until_bytes: u64) -> Result<bool, VeriffError> {
    while queue.size_bytes < until_bytes {
        match stream.chunk().await? {
            Some(chunk) => queue.push(&chunk),
            None => return Ok(true),
        }
    }
    Ok(false)
}

/// Bytes on their way, in pieces of the room that was taken for them.
///
/// They are copied into it once: what the connection hands out are slices of its read buffers, which would stay whole in
/// memory, the unread rest included, for as long as one slice of them is kept, and be made anew for each read.
#[derive(Debug)]
struct PartQueue<'a> {
    room: &'a Room,
    pieces: VecDeque<Bytes>,
    open: Option<Piece>,
    size_bytes: u64,
}

impl<'a> PartQueue<'a> {
    const fn within(room: &'a Room) -> Self {
        Self { room, pieces: VecDeque::new(), open: None, size_bytes: 0 }
    }

    fn push(&mut self, mut bytes: &[u8]) {
        self.size_bytes += bytes.len() as u64;
        while !bytes.is_empty() {
            let piece = self.open.get_or_insert_with(|| self.room.piece());
            bytes = piece.fill(bytes);
            if piece.is_full() {
                self.close();
            }
        }
    }

    fn close(&mut self) {
        self.pieces.extend(self.open.take().map(Piece::freeze));
    }

    fn segments(mut self) -> Vec<Bytes> {
        self.close();
        self.pieces.into()
    }

    /// Cuts the next part: of full size, or, once the body has ended, what is left. `None` if there is nothing to cut.
    fn next_part(&mut self, ended: bool) -> Option<Payload> {
        if self.size_bytes == 0 || !ended && self.size_bytes < PART_SIZE_BYTES {
            return None;
        }
        if self.size_bytes < PART_SIZE_BYTES {
            self.close();
        }
        let mut hasher = Hasher::default();
        let mut part = Vec::new();
        let mut part_bytes = 0;
        // A part is a whole number of pieces.
        while part_bytes < PART_SIZE_BYTES
            && let Some(piece) = self.pieces.pop_front()
        {
            part_bytes += piece.len() as u64;
            hasher.update(&piece);
            part.push(piece);
        }
        self.size_bytes -= part_bytes;
        Some(Payload::hashed(part, hasher.finish()))
    }
}

/// Returns the content type an object is stored with: the listed one in its usual form.
#[must_use]
pub fn content_type(item: &MediaItem) -> String {
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
    use futures_util::FutureExt as _;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn parts_are_the_bytes_in_order_and_of_full_size(sizes in proptest::collection::vec(1usize..5_000_000, 1..12)) {
            let room = Budget::of_memory(0).room_for(None).now_or_never().unwrap();
            let mut queue = PartQueue::within(&room);
            let mut whole = Hasher::default();
            let mut total = 0u64;
            for (index, size) in sizes.iter().enumerate() {
                let segment = vec![u8::try_from(index).unwrap(); *size];
                whole.update(&segment);
                total += *size as u64;
                queue.push(&segment);
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
        let room = Budget::of_memory(0).room_for(None).now_or_never().unwrap();
        let mut queue = PartQueue::within(&room);
        queue.push(b"few");
        assert!(queue.next_part(false).is_none());
        assert_eq!(queue.next_part(true).unwrap().size_bytes(), 3);
        assert!(queue.next_part(true).is_none());
    }
}
