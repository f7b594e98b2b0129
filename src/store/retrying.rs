//! Retrying: a store that tries again.
//!
//! Wraps any store. What may work the next moment is tried again with growing, jittered waits inside a budget of tries;
//! when the store asks for fewer requests, everyone waits, not only the one who was told. Successes and further tries
//! are reported to whoever counts them. A body that breaks off while it is read is the caller's business.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;

use super::{
    Features, ListPage, ObjectBody, ObjectHead, PageToken, PutOutcome, ReadStore, Store, StoreError, StoreReport,
    Terms, Upload,
};
use crate::clock::Timestamp;
use crate::model::digest::{Payload, Sha256Digest};
use crate::model::key::ObjectKey;
use crate::model::retention::Lock;
use crate::retry::{Backoff, Pause, Tries};

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

/// A store that tries again, with the rights of what it wraps: over one that only reads it only reads.
#[derive(Debug)]
pub struct RetryingStore<S: ?Sized> {
    inner: Arc<S>,
    pace: Arc<Pace>,
}

/// What all callers share.
struct Pace {
    backoff: Backoff,
    progress: Progress,
    pause: Pause,
    retries: AtomicU64,
}

impl<S: ReadStore + ?Sized> RetryingStore<S> {
    /// Wraps a store.
    #[must_use]
    pub fn new(inner: Arc<S>, backoff: Backoff, progress: Progress) -> Self {
        Self { inner, pace: Arc::new(Pace { backoff, progress, pause: Pause::default(), retries: AtomicU64::new(0) }) }
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
    /// Tries until it succeeds, will not, or the budget is used up. A store that asks for fewer requests makes everyone
    /// wait, also whoever begins meanwhile.
    async fn tried<T, F>(&self, mut work: impl FnMut() -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let pause = &self.pause;
        let work = || {
            let work = work();
            async move {
                pause.pass().await;
                work.await
            }
        };
        let done = self.backoff.begin().run(|tries, error| self.wait(tries, error), work).await?;
        (self.progress)(Event::Succeeded);
        Ok(done)
    }

    /// Draws the wait after a failure that may pass.
    fn wait(&self, tries: &mut Tries, error: &StoreError) -> Option<Duration> {
        let (asked, slow_down) = match error {
            StoreError::Unavailable { wait, slow_down, .. } => (*wait, *slow_down),
            StoreError::Checksum { .. } => (None, false),
            _ => return None,
        };
        let wait = tries.wait(asked)?;
        self.retries.fetch_add(1, Ordering::Relaxed);
        (self.progress)(Event::Retried);
        tracing::debug!(error = %error, wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX), "store: trying again");
        if slow_down {
            self.pause.begin(wait);
        }
        Some(wait)
    }
}

#[async_trait]
impl<S: ReadStore + ?Sized> ReadStore for RetryingStore<S> {
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
        self.pace.tried(|| self.inner.check()).await
    }

    async fn head(&self, key: &ObjectKey, version: Option<&str>) -> Result<Option<ObjectHead>, StoreError> {
        self.pace.tried(|| self.inner.head(key, version)).await
    }

    async fn read_lock(&self, key: &ObjectKey, version: Option<&str>) -> Result<Option<Lock>, StoreError> {
        self.pace.tried(|| self.inner.read_lock(key, version)).await
    }

    async fn open(&self, key: &ObjectKey, version: Option<&str>) -> Result<Option<ObjectBody>, StoreError> {
        self.pace.tried(|| self.inner.open(key, version)).await
    }

    async fn list(&self, prefix: &str, after: Option<PageToken>) -> Result<ListPage, StoreError> {
        self.pace.tried(|| self.inner.list(prefix, after.clone())).await
    }
}

#[async_trait]
impl<S: Store + ?Sized + 'static> Store for RetryingStore<S> {
    async fn put(&self, key: &ObjectKey, payload: &Payload, terms: &Terms) -> Result<PutOutcome, StoreError> {
        let lost = Lost::default();
        self.pace.tried(|| lost.looked_for(&*self.inner, key, self.inner.put(key, payload, terms))).await
    }

    async fn start_upload(&self, key: &ObjectKey, terms: &Terms) -> Result<Box<dyn Upload>, StoreError> {
        let started = self.pace.tried(|| self.inner.start_upload(key, terms)).await?;
        Ok(Box::new(RetryingUpload {
            inner: tokio::sync::Mutex::new(started),
            store: Arc::clone(&self.inner),
            key: key.clone(),
            pace: Arc::clone(&self.pace),
        }))
    }

    async fn extend_lock(&self, key: &ObjectKey, version: Option<&str>, lock: Lock) -> Result<(), StoreError> {
        self.pace.tried(|| self.inner.extend_lock(key, version, lock)).await
    }
}

/// Whether a write may have been done although no good answer came.
#[derive(Debug, Default)]
struct Lost(AtomicBool);

impl Lost {
    /// Writes; looks first for what an earlier try may have left.
    async fn looked_for(
        &self,
        store: &(impl ReadStore + ?Sized),
        key: &ObjectKey,
        write: impl Future<Output = Result<PutOutcome, StoreError>> + Send,
    ) -> Result<PutOutcome, StoreError> {
        if self.0.load(Ordering::Relaxed) && stands(store, key).await? {
            return Ok(PutOutcome::Taken);
        }
        let written = write.await;
        if matches!(written, Err(StoreError::Unavailable { slow_down: false, .. })) {
            self.0.store(true, Ordering::Relaxed);
        }
        written
    }
}

/// Tells whether a store with versions lists any under a key. Asked before a write is tried again: a store that was cut
/// off in the middle of the first try may hold its version without minding it when the second one asks for an empty key.
async fn stands(store: &(impl ReadStore + ?Sized), key: &ObjectKey) -> Result<bool, StoreError> {
    if !store.features().versions {
        return Ok(false);
    }
    let page = store.list(key.as_str(), None).await?;
    Ok(page.versions.iter().any(|version| version.key == *key))
}

struct RetryingUpload<S: ?Sized> {
    /// Behind a lock because each try borrows it anew; nobody else ever waits for it.
    inner: tokio::sync::Mutex<Box<dyn Upload>>,
    store: Arc<S>,
    key: ObjectKey,
    pace: Arc<Pace>,
}

#[async_trait]
impl<S: Store + ?Sized> Upload for RetryingUpload<S> {
    async fn put_part(&mut self, part: &Payload) -> Result<(), StoreError> {
        self.pace.tried(|| async { self.inner.lock().await.put_part(part).await }).await
    }

    async fn complete(&mut self, sha256: Sha256Digest) -> Result<PutOutcome, StoreError> {
        let lost = Lost::default();
        let complete = || async { self.inner.lock().await.complete(sha256).await };
        self.pace.tried(|| lost.looked_for(&*self.store, &self.key, complete())).await
    }

    async fn abort(&mut self) -> Result<(), StoreError> {
        self.pace.tried(|| async { self.inner.lock().await.abort().await }).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;
    use crate::clock::{Clock as _, SystemClock};
    use crate::retry::LONGEST_WAIT;
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
    impl ReadStore for Failing {
        fn features(&self) -> Features {
            Features { versions: true, ..self.inner.features() }
        }

        fn now(&self) -> Timestamp {
            self.inner.now()
        }

        async fn check(&self) -> Result<StoreReport, StoreError> {
            self.inner.check().await
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
    }

    #[async_trait]
    impl Store for Failing {
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

        async fn extend_lock(&self, key: &ObjectKey, version: Option<&str>, lock: Lock) -> Result<(), StoreError> {
            self.inner.extend_lock(key, version, lock).await
        }
    }

    struct Fixture {
        store: Arc<RetryingStore<Failing>>,
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
            store: Arc::new(RetryingStore::new(Arc::clone(&failing), Backoff::of_tries(4), progress)),
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
        let start = SystemClock.instant();
        let told = Arc::clone(&fixture.store);
        let told = tokio::spawn(async move { told.head(&key(), None).await });
        while fixture.store.retries() == 0 {
            tokio::task::yield_now().await;
        }
        fixture.store.list("", None).await.unwrap();
        assert!(SystemClock.instant() - start >= asked);
        told.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_asks_for_a_wait_without_end_is_asked_again_after_a_day() {
        let fixture = failing(1, unavailable(Some(Duration::from_secs(u64::MAX)), true)).await;
        let start = SystemClock.instant();
        assert_eq!(fixture.store.head(&key(), None).await.unwrap(), None);
        assert_eq!(SystemClock.instant() - start, LONGEST_WAIT);
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
