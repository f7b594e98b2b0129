//! SQS: session requests from a queue, hidden from other workers while one is at work.
//!
//! Long polling, a few messages at a time. The visibility timeout is the lease: renewed for all that is in hand, cut short
//! when a message is released. Only an acknowledged message is deleted; one that cannot be read or fails is left to the
//! queue's redrive policy. A lost answer costs at most a lease: the message comes again, and its session is found done.

mod error;
mod queue;

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use aws_credential_types::Credentials;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use secrecy::{ExposeSecret as _, SecretString};

use self::error::Fault;
use self::queue::{Message, Queue};
pub use self::queue::{QueueReport, Redrive};
use super::message::parse_message;
use super::{Checks, Delivery, Place, QueueSettings, Release, Source, SourceError, Tally, comeback};
use crate::clock::{Clock, SystemClock};
use crate::model::SessionId;

/// How long a request waits for messages: the longest that SQS takes, since an empty answer costs as much as a full one.
const LONG_POLL: Duration = Duration::from_secs(20);

/// How long a message is held: SQS ends it at [`LONGEST_HIDDEN`], and whoever is at work must stop before.
const LONGEST_HOLD: Duration = Duration::from_hours(11);

/// How long after it was received a message can be hidden at the most; SQS counts to 12 hours, and its clock is not ours.
const LONGEST_HIDDEN: Duration = Duration::from_mins(12 * 60 - 1);

/// The most messages that are asked for at once, as many as SQS gives.
const MAX_BATCH: usize = 10;

/// How long a run that ends waits for an answer that is under way, so that what it brings is released.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);

/// How often what was never handed out is released.
const CLOSE_TRIES: u32 = 3;

/// How a queue is worked through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// How long a message is hidden without renewal.
    pub lease: Duration,
    /// How many sessions are worked on at once; a fraction of it is asked for at once.
    pub sessions_in_flight: usize,
}

/// What came of a request for messages, and when.
type Received = Result<(Vec<Message>, Instant), SourceError>;

/// The request for messages that is under way. It outlives its caller, so that no message is lost.
#[derive(Default)]
struct Request {
    under_way: Option<BoxFuture<'static, Received>>,
    /// What it brought, until it is taken in.
    received: Option<Received>,
}

impl Request {
    const fn is_none(&self) -> bool {
        self.under_way.is_none() && self.received.is_none()
    }

    /// Waits for what it brings; for ever if there is none.
    async fn answer(&mut self) -> Received {
        if let Some(received) = self.received.take() {
            return received;
        }
        match &mut self.under_way {
            None => std::future::pending().await,
            Some(under_way) => {
                let received = under_way.await;
                self.under_way = None;
                received
            }
        }
    }

    /// Does something else at the queue and lets the request go on meanwhile. Suspended, it could hold what both
    /// need: it may be the one that renews the credentials.
    async fn beside<T>(&mut self, other: impl Future<Output = T>) -> T {
        let mut other = std::pin::pin!(other);
        loop {
            tokio::select! {
                biased;
                done = &mut other => return done,
                received = self.answer(), if self.under_way.is_some() => self.received = Some(received),
            }
        }
    }
}

/// Messages of a queue.
pub struct SqsSource {
    queue: Queue,
    checks: Checks,
    clock: Arc<dyn Clock>,
    lease: Duration,
    batch: i32,
    idle_exit: Duration,
    request: Request,
    in_stock: VecDeque<Delivery>,
    /// When each message in hand or in stock was received, by its receipt.
    received_at: HashMap<String, Instant>,
    renewed_at: Instant,
    /// When the first of the empty answers that came last was asked for.
    idle_since: Option<Instant>,
    is_over: bool,
    records: u64,
}

impl SqsSource {
    /// Opens a queue; asks it nothing yet.
    ///
    /// # Errors
    /// Fatal (configuration): no address of a queue, or no region is known.
    pub async fn open(url: &str, settings: &QueueSettings, terms: Terms, checks: Checks) -> Result<Self, SourceError> {
        let queue = Queue::connect(url, settings, None, Arc::clone(&checks.clock)).await?;
        Ok(Self::over(queue, settings.idle_exit, terms, checks))
    }

    /// Opens a queue with a fixed key instead of the default credential chain, for tests and tools that
    /// act as several identities in one process.
    ///
    /// # Errors
    /// As [`SqsSource::open`].
    pub async fn open_as(
        url: &str,
        settings: &QueueSettings,
        terms: Terms,
        checks: Checks,
        access_key_id: &str,
        secret_access_key: &SecretString,
    ) -> Result<Self, SourceError> {
        let secret = secret_access_key.expose_secret();
        let credentials = Credentials::new(access_key_id, secret, None, None, "fixed access key");
        let queue = Queue::connect(url, settings, Some(credentials), Arc::clone(&checks.clock)).await?;
        Ok(Self::over(queue, settings.idle_exit, terms, checks))
    }

    fn over(queue: Queue, idle_exit: Duration, terms: Terms, checks: Checks) -> Self {
        let clock = Arc::clone(&checks.clock);
        // Few, so that none waits long in one worker while others are idle.
        let batch = (terms.sessions_in_flight / 4).clamp(1, MAX_BATCH);
        Self {
            queue,
            lease: terms.lease,
            batch: i32::try_from(batch).unwrap_or(1),
            idle_exit,
            request: Request::default(),
            in_stock: VecDeque::new(),
            received_at: HashMap::new(),
            renewed_at: clock.instant(),
            idle_since: None,
            is_over: false,
            records: 0,
            clock,
            checks,
        }
    }

    /// Begins a request for messages. It waits no longer than the queue may still be empty before that is the end.
    fn begin(&mut self) {
        let now = self.clock.instant();
        let since = *self.idle_since.get_or_insert(now);
        let left = self.idle_exit.saturating_sub(now.saturating_duration_since(since));
        let wait = if self.idle_exit.is_zero() { LONG_POLL } else { left.clamp(Duration::from_secs(1), LONG_POLL) };
        let (queue, clock) = (self.queue.clone(), Arc::clone(&self.clock));
        let (batch, lease) = (self.batch, self.lease);
        self.request.under_way = Some(Box::pin(async move {
            let messages = queue.receive(batch, wait, lease).await?;
            Ok((messages, clock.instant()))
        }));
    }

    /// Takes in what a request brought. No messages for long enough are the end: looked at with each answer, because only
    /// an answer says that the queue is empty.
    fn take_in(&mut self, received: Received) -> Result<(), SourceError> {
        let (messages, at) = received?;
        if !messages.is_empty() {
            self.idle_since = None;
        } else if let Some(since) = self.idle_since {
            self.is_over = !self.idle_exit.is_zero() && at.saturating_duration_since(since) >= self.idle_exit;
        }
        for message in messages {
            self.received_at.insert(message.receipt.clone(), at);
            self.in_stock.push_back(Delivery {
                receipt: Some(message.receipt),
                tries: message.receives.saturating_sub(1),
                ..Delivery::of(Place::Message(message.id), parse_message(&message.body, &self.checks))
            });
        }
        Ok(())
    }

    /// Looks whether the request under way was answered while nobody waited for it: from then on the leases run.
    fn look_at_request(&mut self) {
        if let Some(received) = self.request.answer().now_or_never()
            && let Err(error) = self.take_in(received)
        {
            // Whoever asks next asks anew.
            tracing::debug!(error.code = %error.code(), "{error}");
        }
    }

    /// Returns how long a message can still be hidden.
    fn hideable(&self, received_at: Instant) -> Duration {
        LONGEST_HIDDEN.saturating_sub(self.clock.instant().saturating_duration_since(received_at))
    }

    /// Releases what has been held too long. Returns the receipts.
    async fn end_long_holds(&mut self) -> HashSet<String> {
        let now = self.clock.instant();
        let is_long = |at: &Instant| now.saturating_duration_since(*at) >= LONGEST_HOLD;
        let ended: HashSet<String> =
            self.received_at.iter().filter(|(_, at)| is_long(at)).map(|(receipt, _)| receipt.clone()).collect();
        self.received_at.retain(|receipt, _| !ended.contains(receipt));
        let messages: Vec<_> = ended.iter().map(|receipt| (receipt.as_str(), Duration::ZERO)).collect();
        if let Err(fault) = self.request.beside(self.queue.hide_all(&messages, 1)).await {
            let error = fault.into_error("release messages");
            tracing::warn!(error.code = %error.code(), "held for eleven hours; they are delivered again when their leases lapse: {error}");
        }
        self.in_stock.retain(|delivery| !is_among(delivery, &ended));
        ended
    }

    /// Renews everything in hand and in stock. Returns the receipts of what is lost.
    async fn renew(&mut self) -> Result<HashSet<String>, SourceError> {
        let now = self.clock.instant();
        let messages: Vec<(&str, Duration)> = self
            .received_at
            .iter()
            .map(|(receipt, at)| (receipt.as_str(), self.lease.min(self.hideable(*at))))
            .collect();
        let renewed = self.request.beside(self.queue.hide_all(&messages, 1)).await;
        let renewed = renewed.map_err(|fault| fault.into_error("renew leases"))?;
        let mut lost = HashSet::new();
        let mut is_whole = true;
        for ((receipt, _), renewed) in messages.into_iter().zip(renewed) {
            match renewed {
                Ok(()) => {}
                Err(Fault::Gone(_)) => {
                    lost.insert(receipt.to_owned());
                }
                // They last for a while yet, and are renewed at the next look.
                Err(Fault::Unavailable(..) | Fault::Denied(_)) => is_whole = false,
            }
        }
        self.received_at.retain(|receipt, _| !lost.contains(receipt));
        self.in_stock.retain(|delivery| !is_among(delivery, &lost));
        if is_whole {
            self.renewed_at = now;
        }
        Ok(lost)
    }
}

#[async_trait]
impl Source for SqsSource {
    async fn receive(&mut self) -> Result<Option<Delivery>, SourceError> {
        loop {
            if let Some(delivery) = self.in_stock.pop_front() {
                self.records += 1;
                return Ok(Some(delivery));
            }
            if self.is_over {
                return Ok(None);
            }
            if self.request.is_none() {
                self.begin();
            }
            let received = self.request.answer().await;
            self.take_in(received)?;
        }
    }

    async fn acknowledge(&mut self, delivery: &Delivery) -> Result<(), SourceError> {
        let Some(receipt) = &delivery.receipt else { return Ok(()) };
        self.received_at.remove(receipt);
        match self.request.beside(self.queue.delete(receipt)).await {
            Ok(()) => Ok(()),
            Err(fault @ Fault::Denied(_)) => Err(fault.into_error("delete a message")),
            Err(Fault::Gone(reason) | Fault::Unavailable(reason, _)) => {
                tracing::warn!(
                    "{}: its session is done, but it could not be deleted; it will be delivered again and its session \
                     found unchanged: {reason}",
                    delivery.place
                );
                Ok(())
            }
        }
    }

    async fn release(&mut self, delivery: &Delivery, how: Release) -> Result<(), SourceError> {
        let held = delivery.receipt.as_ref().and_then(|receipt| self.received_at.remove_entry(receipt));
        // What was given up before is not ours to release.
        let Some((receipt, received_at)) = held else { return Ok(()) };
        let wait = match how {
            Release::AtOnce => Duration::ZERO,
            // Also what failed for good comes again, until the redrive policy sets it aside.
            Release::Later | Release::ForGood => comeback(delivery.tries + 1).min(self.hideable(received_at)),
        };
        match self.request.beside(self.queue.hide(&receipt, wait)).await {
            Ok(()) => Ok(()),
            Err(fault @ Fault::Denied(_)) => Err(fault.into_error("release a message")),
            Err(Fault::Gone(reason) | Fault::Unavailable(reason, _)) => {
                tracing::warn!(
                    "{}: could not be released; it is delivered again when its lease lapses: {reason}",
                    delivery.place
                );
                Ok(())
            }
        }
    }

    async fn extend(&mut self, in_hand: &[&Delivery]) -> Result<Vec<SessionId>, SourceError> {
        self.look_at_request();
        let known: HashSet<&str> =
            in_hand.iter().copied().chain(&self.in_stock).filter_map(|delivery| delivery.receipt.as_deref()).collect();
        self.received_at.retain(|receipt, _| known.contains(receipt.as_str()));
        let mut lost = self.end_long_holds().await;
        let is_time = self.clock.instant().saturating_duration_since(self.renewed_at) >= self.lease / 3;
        let renewed = if is_time && !self.received_at.is_empty() { self.renew().await } else { Ok(HashSet::new()) };
        match renewed {
            Ok(gone) => lost.extend(gone),
            Err(error) if lost.is_empty() => return Err(error),
            // What is lost must be reported now; the renewal is tried again at the next look anyway.
            Err(error) => tracing::warn!(error.code = %error.code(), "leases could not be renewed: {error}"),
        }
        let session = |delivery: &&&Delivery| delivery.record.as_ref().ok().map(|record| record.session_id.clone());
        let (gone, kept): (Vec<&&Delivery>, Vec<&&Delivery>) =
            in_hand.iter().partition(|delivery| is_among(delivery, &lost));
        // Of two messages about one session one may be lost: the session is still ours.
        let kept: HashSet<SessionId> = kept.iter().filter_map(session).collect();
        Ok(gone.iter().filter_map(session).filter(|session| !kept.contains(session)).collect())
    }

    async fn close(&mut self) -> Result<(), SourceError> {
        if !self.request.is_none()
            && let Ok(received) = tokio::time::timeout(CLOSE_PATIENCE, self.request.answer()).await
            && let Err(error) = self.take_in(received)
        {
            tracing::debug!(error.code = %error.code(), "{error}");
        }
        self.request = Request::default();
        let in_stock = std::mem::take(&mut self.in_stock);
        let receipts: Vec<_> = in_stock.iter().filter_map(|delivery| delivery.receipt.as_deref()).collect();
        self.received_at.retain(|receipt, _| !receipts.contains(&receipt.as_str()));
        let messages: Vec<_> = receipts.into_iter().map(|receipt| (receipt, Duration::ZERO)).collect();
        let released = self.queue.hide_all(&messages, CLOSE_TRIES).await;
        let released = released.map_err(|fault| fault.into_error("release messages"))?;
        released.into_iter().find_map(Result::err).map_or(Ok(()), |fault| Err(fault.into_error("release messages")))
    }

    fn keeps(&self) -> bool {
        true
    }

    fn tally(&self) -> Tally {
        Tally { kind: "sqs", records: self.records, sha256: None }
    }
}

impl fmt::Debug for SqsSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqsSource")
            .field("lease", &self.lease)
            .field("in_stock", &self.in_stock.len())
            .field("records", &self.records)
            .finish_non_exhaustive()
    }
}

/// Looks at a queue without taking a message: how many there are, and what becomes of those that fail.
///
/// # Errors
/// Retryable: it does not answer. Fatal: it refuses, does not exist, or its address is none.
pub async fn inspect(url: &str, settings: &QueueSettings) -> Result<QueueReport, SourceError> {
    Queue::connect(url, settings, None, Arc::new(SystemClock)).await?.report().await
}

fn is_among(delivery: &Delivery, receipts: &HashSet<String>) -> bool {
    delivery.receipt.as_ref().is_some_and(|receipt| receipts.contains(receipt))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::Mutex;

    #[tokio::test]
    async fn a_request_under_way_does_not_stand_still_with_what_others_need() {
        let credentials = Arc::new(Mutex::new(()));
        let shared = Arc::clone(&credentials);
        let under_way = async move {
            let _renewing = shared.lock().await;
            tokio::task::yield_now().await;
            Ok((Vec::new(), SystemClock.instant()))
        };
        let mut request = Request { under_way: Some(Box::pin(under_way)), received: None };
        // Begun, and left by its caller while it holds what both need.
        assert!(request.answer().now_or_never().is_none());
        assert!(credentials.try_lock().is_err());
        request.beside(async { drop(credentials.lock().await) }).await;
        // What it brought is not lost.
        assert!(!request.is_none());
        assert!(matches!(request.answer().await, Ok((messages, _)) if messages.is_empty()));
        assert!(request.is_none());
    }
}
