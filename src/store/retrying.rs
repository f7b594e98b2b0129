//! Retrying: a store that tries again.
//!
//! Wraps any store. What may work the next moment is tried again with growing, jittered waits inside a budget of tries;
//! when the store asks for fewer requests, everyone waits, not only the one who was told. Successes and further tries
//! are reported to whoever counts them. A body that breaks off while it is read is the caller's business.

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

/// What is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The store gave a good answer.
    Succeeded,
    /// Something is tried again.
    Retried,
}

/// Told of every success and every further try.
pub type Progress = Arc<dyn Fn(Event) + Send + Sync>;

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
            pace: Arc::new(Pace { backoff, progress, paused_until: Mutex::new(None), retries: AtomicU64::new(0) }),
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
        f.debug_struct("Pace").field("backoff", &self.backoff).field("retries", &self.retries).finish_non_exhaustive()
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
        (self.progress)(Event::Retried);
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
                    ($pace.progress)(Event::Succeeded);
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

    async fn principal(&self) -> Option<String> {
        self.inner.principal().await
    }

    async fn check(&self) -> Result<StoreReport, StoreError> {
        tried!(self.pace, self.inner.check())
    }

    async fn put(&self, key: &ObjectKey, payload: &Payload, terms: &Terms) -> Result<PutOutcome, StoreError> {
        let mut lost = Lost::default();
        tried!(self.pace, lost.looked_for(&*self.inner, key, self.inner.put(key, payload, terms)))
    }

    async fn start_upload(&self, key: &ObjectKey, terms: &Terms) -> Result<Box<dyn Upload>, StoreError> {
        let started: Result<_, StoreError> = tried!(self.pace, self.inner.start_upload(key, terms));
        Ok(Box::new(RetryingUpload {
            inner: started?,
            store: Arc::clone(&self.inner),
            key: key.clone(),
            pace: Arc::clone(&self.pace),
        }))
    }

    async fn head(&self, key: &ObjectKey, version: Option<&str>) -> Result<Option<ObjectHead>, StoreError> {
        tried!(self.pace, self.inner.head(key, version))
    }

    async fn read_lock(&self, key: &ObjectKey, version: Option<&str>) -> Result<Option<Lock>, StoreError> {
        tried!(self.pace, self.inner.read_lock(key, version))
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

/// Whether a write may have been done although no good answer came.
#[derive(Debug, Default)]
struct Lost(bool);

impl Lost {
    /// Writes; looks first for what an earlier try may have left.
    async fn looked_for(
        &mut self,
        store: &dyn Store,
        key: &ObjectKey,
        write: impl Future<Output = Result<PutOutcome, StoreError>> + Send,
    ) -> Result<PutOutcome, StoreError> {
        if self.0 && stands(store, key).await? {
            return Ok(PutOutcome::Taken);
        }
        let written = write.await;
        self.0 |= matches!(written, Err(StoreError::Unavailable { slow_down: false, .. }));
        written
    }
}

/// Tells whether a store with versions lists any under a key. Asked before a write is tried again: a store that was cut
/// off in the middle of the first try may hold its version without minding it when the second one asks for an empty key.
async fn stands(store: &dyn Store, key: &ObjectKey) -> Result<bool, StoreError> {
    if !store.features().versions {
        return Ok(false);
    }
    let page = store.list(key.as_str(), None).await?;
    Ok(page.versions.iter().any(|version| version.key == *key))
}

struct RetryingUpload {
    inner: Box<dyn Upload>,
    store: Arc<dyn Store>,
    key: ObjectKey,
    pace: Arc<Pace>,
}

#[async_trait]
impl Upload for RetryingUpload {
    async fn put_part(&mut self, part: &Payload) -> Result<(), StoreError> {
        tried!(self.pace, self.inner.put_part(part))
    }

    async fn complete(&mut self, sha256: Sha256Digest) -> Result<PutOutcome, StoreError> {
        let mut lost = Lost::default();
        tried!(self.pace, lost.looked_for(&*self.store, &self.key, self.inner.complete(sha256)))
    }

    async fn abort(&mut self) -> Result<(), StoreError> {
        tried!(self.pace, self.inner.abort())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;
    use crate::clock::SystemClock;
    use crate::store::dir::DirStore;

    /// Fails the first calls of `head`, then does what the directory does. Its `put` fails as often, and does its work
    /// nevertheless if the answer is what is lost.
    #[derive(Debug)]
    struct Failing {
        inner: DirStore,
        error: StoreError,
        left: AtomicU32,
        calls: AtomicU32,
        loses_the_answer: bool,
    }

    impl Failing {
        /// Counts a call and tells whether it fails.
        fn fails(&self) -> Result<(), StoreError> {
            self.calls.fetch_add(1, Ordering::SeqCst);
            match self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)) {
                Ok(_) => Err(self.error.clone()),
                Err(_) => Ok(()),
            }
        }
    }

    #[async_trait]
    impl Store for Failing {
        fn features(&self) -> Features {
            Features { versions: true, ..self.inner.features() }
        }

        fn now(&self) -> Timestamp {
            self.inner.now()
        }

        async fn check(&self) -> Result<StoreReport, StoreError> {
            self.inner.check().await
        }

        async fn put(&self, key: &ObjectKey, payload: &Payload, terms: &Terms) -> Result<PutOutcome, StoreError> {
            let failed = self.fails();
            if failed.is_ok() || self.loses_the_answer {
                let outcome = self.inner.put(key, payload, terms).await?;
                failed.map(|()| outcome)
            } else {
                Err(self.error.clone())
            }
        }

        async fn start_upload(&self, key: &ObjectKey, terms: &Terms) -> Result<Box<dyn Upload>, StoreError> {
            self.inner.start_upload(key, terms).await
        }

        async fn head(&self, key: &ObjectKey, version: Option<&str>) -> Result<Option<ObjectHead>, StoreError> {
            self.fails()?;
            self.inner.head(key, version).await
        }

        async fn open(&self, key: &ObjectKey, version: Option<&str>) -> Result<Option<ObjectBody>, StoreError> {
            self.inner.open(key, version).await
        }

        async fn list(&self, prefix: &str, after: Option<PageToken>) -> Result<ListPage, StoreError> {
            self.inner.list(prefix, after).await
        }

        async fn extend_lock(&self, key: &ObjectKey, version: Option<&str>, lock: Lock) -> Result<(), StoreError> {
            self.inner.extend_lock(key, version, lock).await
        }
    }

    struct Fixture {
        store: RetryingStore,
        failing: Arc<Failing>,
        successes: Arc<AtomicU32>,
        _directory: tempfile::TempDir,
    }

    async fn failing(times: u32, error: StoreError) -> Fixture {
        failing_with(times, error, false).await
    }

    async fn failing_with(times: u32, error: StoreError, loses_the_answer: bool) -> Fixture {
        let directory = tempfile::tempdir().unwrap();
        let inner = DirStore::open(directory.path(), Arc::new(SystemClock)).await.unwrap();
        let (left, calls) = (AtomicU32::new(times), AtomicU32::new(0));
        let failing = Arc::new(Failing { inner, error, left, calls, loses_the_answer });
        let successes = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&successes);
        let progress: Progress = Arc::new(move |event| {
            counted.fetch_add(u32::from(event == Event::Succeeded), Ordering::SeqCst);
        });
        Fixture {
            store: RetryingStore::new(Arc::clone(&failing) as Arc<dyn Store>, Backoff::of_tries(4), progress),
            failing,
            successes,
            _directory: directory,
        }
    }

    fn unavailable(wait: Option<Duration>, slow_down: bool) -> StoreError {
        StoreError::Unavailable { action: "inspect an object", reason: "503".to_owned(), wait, slow_down }
    }

    fn key() -> ObjectKey {
        ObjectKey::from_store("a")
    }

    #[tokio::test(start_paused = true)]
    async fn what_passes_is_tried_again_and_counted() {
        let fixture = failing(3, unavailable(None, false)).await;
        assert_eq!(fixture.store.head(&key(), None).await.unwrap(), None);
        assert_eq!(fixture.store.retries(), 3);
        assert_eq!(fixture.successes.load(Ordering::SeqCst), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_budget_of_tries_ends_it() {
        let fixture = failing(u32::MAX, unavailable(None, true)).await;
        let error = fixture.store.head(&key(), None).await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
        assert_eq!(fixture.failing.calls.load(Ordering::SeqCst), 4);
        assert_eq!(fixture.successes.load(Ordering::SeqCst), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_not_tried_again() {
        let refusals = [
            StoreError::Denied { action: "inspect an object", reason: "AccessDenied".to_owned() },
            StoreError::Full,
            StoreError::Unfit("no".to_owned()),
            StoreError::ClockSkew { offset_ms: 99_000 },
        ];
        for refusal in refusals {
            let fixture = failing(1, refusal).await;
            assert!(fixture.store.head(&key(), None).await.is_err());
            assert_eq!(fixture.failing.calls.load(Ordering::SeqCst), 1);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_busy_store_makes_everyone_wait() {
        let asked = Duration::from_secs(90);
        let fixture = failing(1, unavailable(Some(asked), true)).await;
        let start = Instant::now();
        let told = fixture.store.clone();
        let told = tokio::spawn(async move { told.head(&key(), None).await });
        while fixture.store.retries() == 0 {
            tokio::task::yield_now().await;
        }
        fixture.store.list("", None).await.unwrap();
        assert!(start.elapsed() >= asked);
        told.await.unwrap().unwrap();
    }

    async fn put(fixture: &Fixture) -> PutOutcome {
        let terms = Terms { content_type: "text/plain".to_owned(), lock: None, is_document: false };
        fixture.store.put(&key(), &Payload::of(b"bytes".to_vec()), &terms).await.unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_whose_answer_was_lost_is_looked_for_before_it_is_tried_again() {
        let fixture = failing_with(1, unavailable(None, false), true).await;
        assert_eq!(put(&fixture).await, PutOutcome::Taken);
        assert_eq!(fixture.failing.calls.load(Ordering::SeqCst), 1, "it was not written twice");
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_that_never_came_is_tried_again() {
        for slow_down in [false, true] {
            let fixture = failing(2, unavailable(None, slow_down)).await;
            assert!(matches!(put(&fixture).await, PutOutcome::Created(_)));
            assert_eq!(fixture.failing.calls.load(Ordering::SeqCst), 3);
        }
    }
}
