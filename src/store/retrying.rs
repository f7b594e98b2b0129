//! Retrying: a store that tries again.
//!
//! Wraps any store. What may work the next moment is tried again with growing, jittered waits inside a budget of tries;
//! when the store asks for fewer requests, everyone waits, not only the one who was told. A success is reported to
//! the watchdog of the run. A body that breaks off while it is read is the caller's business.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::{
    Features, ListPage, ObjectBody, ObjectHead, PageToken, PutOutcome, Store, StoreError, StoreReport, Terms, Upload,
};
use crate::clock::Timestamp;
use crate::model::digest::{Payload, Sha256Digest};
use crate::model::key::ObjectKey;
use crate::model::retention::Lock;
use crate::retry::Backoff;

/// Told of every success.
pub type Progress = Arc<dyn Fn() + Send + Sync>;

/// A store that tries again.
#[derive(Debug, Clone)]
pub struct RetryingStore {
    inner: Arc<dyn Store>,
    pace: Arc<Pace>,
}

/// What all callers share.
struct Pace {
    backoff: Backoff,
    progress: Progress,
    paused_until: Mutex<Option<Instant>>,
    retries: AtomicU64,
}

impl RetryingStore {
    /// Wraps a store.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>, backoff: Backoff, progress: Progress) -> Self {
        Self {
            inner,
            pace: Arc::new(Pace {
                backoff,
                progress,
                paused_until: Mutex::new(None),
                retries: AtomicU64::new(0),
            }),
        }
    }

    /// Returns how often something was tried again.
    #[must_use]
    pub fn retries(&self) -> u64 {
        self.pace.retries.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for Pace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pace")
            .field("backoff", &self.backoff)
            .field("retries", &self.retries)
            .finish_non_exhaustive()
    }
}

impl Pace {
    /// Waits until nobody is asked to wait.
    async fn pass(&self) {
        loop {
            let until = *self.paused_until();
            match until.filter(|until| *until > Instant::now()) {
                Some(until) => tokio::time::sleep_until(until).await,
                None => return,
            }
        }
    }

    /// Waits after a failure that may pass, or gives the error back when it will not or the budget is used up.
    async fn wait(&self, failed: u32, error: StoreError) -> Result<(), StoreError> {
        let (asked, slow_down) = match &error {
            StoreError::Unavailable { wait, slow_down, .. } => (*wait, *slow_down),
            StoreError::Checksum { .. } => (None, false),
            _ => return Err(error),
        };
        let Some(wait) = self.backoff.wait(failed, asked) else {
            return Err(error);
        };
        self.retries.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(error = %error, failed, wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX), "store: trying again");
        if slow_down {
            self.pause(wait);
        }
        tokio::time::sleep(wait).await;
        Ok(())
    }

    fn pause(&self, wait: Duration) {
        let until = Instant::now() + wait;
        let mut paused_until = self.paused_until();
        *paused_until = Some(paused_until.map_or(until, |before| before.max(until)));
    }

    fn paused_until(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.paused_until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tries an expression until it succeeds, will not, or the budget is used up. A macro because what is tried borrows for
/// each try anew.
macro_rules! tried {
    ($pace:expr, $work:expr) => {{
        let mut failed = 0;
        loop {
            $pace.pass().await;
            match $work.await {
                Ok(done) => {
                    ($pace.progress)();
                    break Ok(done);
                }
                Err(error) => {
                    failed += 1;
                    if let Err(error) = $pace.wait(failed, error).await {
                        break Err(error);
                    }
                }
            }
        }
    }};
}

#[async_trait]
impl Store for RetryingStore {
    fn features(&self) -> Features {
        self.inner.features()
    }

    fn now(&self) -> Timestamp {
        self.inner.now()
    }

    fn clock_offsets(&self) -> Option<(i64, i64)> {
        self.inner.clock_offsets()
    }

    async fn check(&self) -> Result<StoreReport, StoreError> {
        tried!(self.pace, self.inner.check())
    }

    async fn put(&self, key: &ObjectKey, payload: &Payload, terms: &Terms) -> Result<PutOutcome, StoreError> {
        tried!(self.pace, self.inner.put(key, payload, terms))
    }

    async fn start_upload(&self, key: &ObjectKey, terms: &Terms) -> Result<Box<dyn Upload>, StoreError> {
        let started: Result<_, StoreError> = tried!(self.pace, self.inner.start_upload(key, terms));
        Ok(Box::new(RetryingUpload {
            inner: started?,
            pace: Arc::clone(&self.pace),
        }))
    }

    async fn head(&self, key: &ObjectKey, version: Option<&str>) -> Result<Option<ObjectHead>, StoreError> {
        tried!(self.pace, self.inner.head(key, version))
    }

    async fn open(&self, key: &ObjectKey, version: Option<&str>) -> Result<Option<ObjectBody>, StoreError> {
        tried!(self.pace, self.inner.open(key, version))
    }

    async fn list(&self, prefix: &str, after: Option<PageToken>) -> Result<ListPage, StoreError> {
        tried!(self.pace, self.inner.list(prefix, after.clone()))
    }

    async fn extend_lock(&self, key: &ObjectKey, version: Option<&str>, lock: Lock) -> Result<(), StoreError> {
        tried!(self.pace, self.inner.extend_lock(key, version, lock))
    }
}

struct RetryingUpload {
    inner: Box<dyn Upload>,
    pace: Arc<Pace>,
}

#[async_trait]
impl Upload for RetryingUpload {
    async fn put_part(&mut self, part: &Payload) -> Result<(), StoreError> {
        tried!(self.pace, self.inner.put_part(part))
    }

    async fn complete(&mut self, sha256: Sha256Digest) -> Result<PutOutcome, StoreError> {
        tried!(self.pace, self.inner.complete(sha256))
    }

    async fn abort(&mut self) -> Result<(), StoreError> {
        tried!(self.pace, self.inner.abort())
    }
}
