//! A store in which chosen calls fail: before they have an effect, after it (a lost answer), or for good, as when the
//! process is killed there.

use std::fmt;
use std::future::pending;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;
use veriff_archive::clock::Timestamp;
use veriff_archive::model::digest::{Payload, Sha256Digest};
use veriff_archive::model::key::ObjectKey;
use veriff_archive::model::retention::Lock;
use veriff_archive::store::{
    Features, ListPage, ObjectBody, ObjectHead, PageToken, PutOutcome, ReadStore, Store, StoreError, StoreReport,
    Terms, Upload,
};

/// What is asked of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Put,
    StartUpload,
    PutPart,
    Complete,
    Abort,
    Head,
    Open,
    List,
    ExtendLock,
}

/// One call, in the order of calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) verb: Verb,
    /// The key, or the prefix of a listing.
    pub(crate) key: String,
}

impl Call {
    /// Tells whether the call changes the store.
    pub(crate) fn is_effect(&self) -> bool {
        !matches!(self.verb, Verb::Head | Verb::Open | Verb::List)
    }
}

/// How a call fails.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// Nothing happened.
    Before(StoreError),
    /// It happened, and the answer was lost. Not for parts: an upload itself remembers which part was answered.
    After(StoreError),
    /// The process dies before it happens: neither this call nor any later one returns.
    KillBefore,
    /// The process dies when it has happened.
    KillAfter,
}

impl Fault {
    /// The error of a server that is away for a moment.
    pub(crate) fn unavailable() -> StoreError {
        StoreError::Unavailable {
            action: "do what it was asked",
            reason: "a test".to_owned(),
            wait: None,
            slow_down: false,
        }
    }
}

type Rule = Box<dyn FnMut(usize, &Call) -> Option<Fault> + Send>;

/// A store in which chosen calls fail.
#[derive(Debug)]
pub(crate) struct FaultyStore {
    inner: Arc<dyn Store>,
    script: Arc<Script>,
}

struct Script {
    rule: Mutex<Rule>,
    calls: Mutex<Vec<Call>>,
    killed: CancellationToken,
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Script").finish_non_exhaustive()
    }
}

impl FaultyStore {
    /// Wraps a store. The rule sees every call with its number, from zero, and says how it fails.
    pub(crate) fn new(
        inner: Arc<dyn Store>,
        rule: impl FnMut(usize, &Call) -> Option<Fault> + Send + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            inner,
            script: Arc::new(Script {
                rule: Mutex::new(Box::new(rule)),
                calls: Mutex::default(),
                killed: CancellationToken::new(),
            }),
        })
    }

    /// Returns the calls so far.
    pub(crate) fn calls(&self) -> Vec<Call> {
        self.script.calls.lock().unwrap().clone()
    }

    /// Returns when the process is to die; the test then drops what was under way.
    pub(crate) async fn killed(&self) {
        self.script.killed.cancelled().await;
    }
}

impl Script {
    async fn play<T>(
        &self,
        verb: Verb,
        key: &str,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        match self.next(verb, key) {
            _ if self.killed.is_cancelled() => pending().await,
            None => work.await,
            Some(Fault::Before(error)) => Err(error),
            Some(Fault::After(error)) => work.await.and(Err(error)),
            Some(Fault::KillBefore) => self.kill().await,
            Some(Fault::KillAfter) => {
                work.await?;
                self.kill().await
            }
        }
    }

    fn next(&self, verb: Verb, key: &str) -> Option<Fault> {
        let call = Call { verb, key: key.to_owned() };
        let mut calls = self.calls.lock().unwrap();
        let fault = (self.rule.lock().unwrap())(calls.len(), &call);
        calls.push(call);
        fault
    }

    async fn kill<T>(&self) -> T {
        self.killed.cancel();
        pending().await
    }
}

#[async_trait]
impl ReadStore for FaultyStore {
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
        self.inner.check().await
    }

    async fn head(&self, key: &ObjectKey, version: Option<&str>) -> Result<Option<ObjectHead>, StoreError> {
        let work = self.inner.head(key, version);
        self.script.play(Verb::Head, key.as_str(), work).await
    }

    async fn open(&self, key: &ObjectKey, version: Option<&str>) -> Result<Option<ObjectBody>, StoreError> {
        let work = self.inner.open(key, version);
        self.script.play(Verb::Open, key.as_str(), work).await
    }

    async fn list(&self, prefix: &str, after: Option<PageToken>) -> Result<ListPage, StoreError> {
        let work = self.inner.list(prefix, after);
        self.script.play(Verb::List, prefix, work).await
    }
}

#[async_trait]
impl Store for FaultyStore {
    async fn put(&self, key: &ObjectKey, payload: &Payload, terms: &Terms) -> Result<PutOutcome, StoreError> {
        let work = self.inner.put(key, payload, terms);
        self.script.play(Verb::Put, key.as_str(), work).await
    }

    async fn start_upload(&self, key: &ObjectKey, terms: &Terms) -> Result<Box<dyn Upload>, StoreError> {
        let work = self.inner.start_upload(key, terms);
        let inner = self.script.play(Verb::StartUpload, key.as_str(), work).await?;
        Ok(Box::new(FaultyUpload { inner, key: key.as_str().to_owned(), script: Arc::clone(&self.script) }))
    }

    async fn extend_lock(&self, key: &ObjectKey, version: Option<&str>, lock: Lock) -> Result<(), StoreError> {
        let work = self.inner.extend_lock(key, version, lock);
        self.script.play(Verb::ExtendLock, key.as_str(), work).await
    }
}

struct FaultyUpload {
    inner: Box<dyn Upload>,
    key: String,
    script: Arc<Script>,
}

#[async_trait]
impl Upload for FaultyUpload {
    async fn put_part(&mut self, part: &Payload) -> Result<(), StoreError> {
        let work = self.inner.put_part(part);
        self.script.play(Verb::PutPart, &self.key, work).await
    }

    async fn complete(&mut self, sha256: Sha256Digest) -> Result<PutOutcome, StoreError> {
        let work = self.inner.complete(sha256);
        self.script.play(Verb::Complete, &self.key, work).await
    }

    async fn abort(&mut self) -> Result<(), StoreError> {
        let work = self.inner.abort();
        self.script.play(Verb::Abort, &self.key, work).await
    }
}
