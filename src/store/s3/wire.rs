//! What passes between the SDK and the wire: bodies without copies, the payload hash that is known already, the
//! store's clock.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use aws_runtime::auth::PayloadSigningOverride;
use aws_sdk_s3::operation::put_object::PutObjectInput;
use aws_sdk_s3::operation::upload_part::UploadPartInput;
use aws_sdk_s3::primitives::ByteStream;
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::context::{
    BeforeDeserializationInterceptorContextRef, BeforeSerializationInterceptorContextRef,
};
use aws_smithy_runtime_api::client::interceptors::{Intercept, dyn_dispatch_hint};
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::config_bag::ConfigBag;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::error::unavailable;
use crate::clock::{Clock, Timestamp};
use crate::model::digest::{Payload, Sha256Digest};
use crate::store::{Chunks, StoreError};

/// How long a body may stall while it is read. There is no limit on how long a body takes that moves.
const IDLE_TIMEOUT: Duration = Duration::from_mins(1);

/// The `Date` header has whole seconds and travels for a moment; less than this is no difference of clocks.
const DATE_RESOLUTION_MS: i64 = 1_500;

/// Makes a request body of a payload, which the SDK neither copies nor gathers.
pub(super) fn body_of(payload: &Payload) -> ByteStream {
    if let [segment] = payload.segments() {
        return ByteStream::new(SdkBody::from(segment.clone()));
    }
    let segments: Arc<[Bytes]> = payload.segments().into();
    let size_bytes = payload.size_bytes();
    ByteStream::new(SdkBody::retryable(move || {
        SdkBody::from_body_1_x(SegmentBody { segments: Arc::clone(&segments), next: 0, left_bytes: size_bytes })
    }))
}

/// A payload's segments as an HTTP body of known length, so that it is sent with `Content-Length` and not in chunks.
struct SegmentBody {
    segments: Arc<[Bytes]>,
    next: usize,
    left_bytes: u64,
}

impl Body for SegmentBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        while let Some(segment) = self.segments.get(self.next).cloned() {
            self.next += 1;
            if !segment.is_empty() {
                self.left_bytes = self.left_bytes.saturating_sub(segment.len() as u64);
                return Poll::Ready(Some(Ok(Frame::data(segment))));
            }
        }
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        self.left_bytes == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left_bytes)
    }
}

/// Chunks of an object, each within the idle timeout.
pub(super) struct S3Chunks(pub(super) ByteStream);

#[async_trait]
impl Chunks for S3Chunks {
    async fn next(&mut self) -> Result<Option<Bytes>, StoreError> {
        let broke = |reason: &str| unavailable("read an object", reason.to_owned(), false);
        match tokio::time::timeout(IDLE_TIMEOUT, self.0.next()).await {
            Err(_) => Err(broke("the body stalled")),
            Ok(None) => Ok(None),
            Ok(Some(Ok(chunk))) => Ok(Some(chunk)),
            Ok(Some(Err(_))) => Err(broke("the body broke off")),
        }
    }
}

/// Signs a body with the digest in its checksum header, so that no byte is hashed a second time.
///
/// The payload stays signed; the server compares its own hash with both.
#[derive(Debug)]
pub(super) struct KnownDigest;

#[dyn_dispatch_hint]
impl Intercept for KnownDigest {
    fn name(&self) -> &'static str {
        "KnownDigest"
    }

    fn read_before_serialization(
        &self,
        context: &BeforeSerializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        bag: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let input = context.input();
        let checksum = if let Some(put) = input.downcast_ref::<PutObjectInput>() {
            put.checksum_sha256()
        } else if let Some(part) = input.downcast_ref::<UploadPartInput>() {
            part.checksum_sha256()
        } else {
            return Ok(());
        };
        if let Some(digest) = checksum.and_then(Sha256Digest::from_base64) {
            bag.interceptor_state().store_put(PayloadSigningOverride::Precomputed(digest.to_string()));
        }
        Ok(())
    }
}

/// Store clock minus ours in milliseconds, as the answers so far showed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Offsets {
    pub(super) last: i64,
    pub(super) min: i64,
    pub(super) max: i64,
}

/// Keeps the offset of the store's clock, from the `Date` of every answer.
#[derive(Debug, Clone)]
pub(super) struct StoreClock {
    ours: Arc<dyn Clock>,
    seen: Arc<Mutex<Option<Offsets>>>,
}

impl StoreClock {
    pub(super) fn new(ours: Arc<dyn Clock>) -> Self {
        Self { ours, seen: Arc::default() }
    }

    pub(super) fn ours(&self) -> &dyn Clock {
        &*self.ours
    }

    pub(super) fn offsets(&self) -> Option<Offsets> {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn now(&self) -> Timestamp {
        let offset_ms = self.offsets().map_or(0, |offsets| offsets.last);
        self.ours.now().plus_millis(offset_ms)
    }

    fn note(&self, date: Timestamp) {
        let raw_ms = date.millis_since(self.ours.now());
        let offset_ms = if raw_ms.abs() <= DATE_RESOLUTION_MS { 0 } else { raw_ms };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let before = seen.unwrap_or(Offsets { last: offset_ms, min: offset_ms, max: offset_ms });
        *seen = Some(Offsets { last: offset_ms, min: before.min.min(offset_ms), max: before.max.max(offset_ms) });
    }
}

#[dyn_dispatch_hint]
impl Intercept for StoreClock {
    fn name(&self) -> &'static str {
        "StoreClock"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if let Some(date) = context.response().headers().get("date").and_then(Timestamp::parse_http_date) {
            self.note(date);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    #[tokio::test]
    async fn a_body_has_its_exact_length_and_all_its_bytes() {
        let segments = [&b"one"[..], b"", b"two", b"three"].map(Bytes::from_static);
        let payload = Payload::hashed(segments.to_vec(), Sha256Digest::of(b"onetwothree"));
        let body = body_of(&payload);
        assert_eq!(body.size_hint(), (11, Some(11)));
        assert_eq!(body.collect().await.unwrap().to_vec(), b"onetwothree");
    }

    #[test]
    fn a_difference_below_the_resolution_of_the_header_is_none() {
        let ours = Timestamp::from_unix_millis(1_000_000_400);
        let clock = StoreClock::new(Arc::new(ManualClock::at(ours)));
        assert_eq!(clock.offsets(), None);
        clock.note(Timestamp::from_unix_millis(1_000_000_000));
        assert_eq!(clock.now(), ours);
        clock.note(ours.plus_millis(90_000));
        clock.note(ours.plus_millis(-5_000));
        let offsets = clock.offsets().unwrap();
        assert_eq!((offsets.last, offsets.min, offsets.max), (-5_000, -5_000, 90_000));
        assert_eq!(clock.now(), ours.plus_millis(-5_000));
    }
}
