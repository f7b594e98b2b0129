//! Backlog: a source over the ledger's own queue.
//!
//! Takes sessions under leases, earliest deadline first, a few at a time, and renews the leases of what is in hand. What
//! is given back comes again after a wait; once nothing is due, what this run gave back may be handed out once more. A
//! worker that dies leaves its leases to lapse, and another one takes over.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::task::JoinHandle;

use crate::clock::Clock;
use crate::ledger::{Claim, Claimed, Comeback, Cursor, Filter, Ledger, LedgerError, ListedSession, Survey, Which};
use crate::model::{RunId, SessionId};
use crate::retry::Backoff;
use crate::source::{Delivery, Place, Release, Source, SourceError, Tally, comeback};

/// How many sessions are taken at once: few, so that none waits long in one worker while others are idle.
const CLAIM_LIMIT: u32 = 8;

/// How many sessions are read at once by a look at the backlog.
const PAGE: u32 = 1000;

/// How long to wait before looking again when nothing is due.
const POLL_INTERVAL: Duration = Duration::from_secs(5);

/// How often the ledger is asked for sessions before the run ends.
const CLAIM_TRIES: u32 = 8;

/// Sessions of the backlog, under leases.
pub struct BacklogSource {
    ledger: Arc<dyn Ledger>,
    clock: Arc<dyn Clock>,
    claim: Claim,
    /// Nothing due for so long ends it; zero: never. `None`: at once.
    idle_exit: Option<Duration>,
    /// A task of its own: a claim must not be lost when the caller stops waiting for it, nor stand still in the middle of
    /// its transaction while the caller wants the ledger for something else.
    claiming: Option<JoinHandle<Result<Vec<Claimed>, LedgerError>>>,
    in_stock: VecDeque<Claimed>,
    renew_at: Instant,
    idle_since: Option<Instant>,
    records: u64,
}

impl BacklogSource {
    /// Makes a source of what is due in these integrations. `holder` owns the leases. Nothing due for `idle_exit` ends it,
    /// zero never does, and `None` does at once.
    #[must_use]
    pub fn new(
        ledger: Arc<dyn Ledger>,
        holder: RunId,
        integrations: Vec<String>,
        lease: Duration,
        idle_exit: Option<Duration>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let claim = Claim { holder, integrations, now: clock.now(), lease, limit: CLAIM_LIMIT, which: Which::Due };
        let renew_at = clock.instant() + lease / 3;
        Self {
            ledger,
            clock,
            claim,
            idle_exit,
            claiming: None,
            in_stock: VecDeque::new(),
            renew_at,
            idle_since: None,
            records: 0,
        }
    }

    /// Waits for the claim that is under way, or begins one.
    async fn restock(&mut self) -> Result<(), SourceError> {
        if self.claiming.is_none() {
            let (ledger, claim, clock) = (Arc::clone(&self.ledger), self.claim.clone(), Arc::clone(&self.clock));
            self.claiming = Some(tokio::spawn(async move {
                let may_pass = |error: &LedgerError| error.code().is_retryable();
                let claim = || async { ledger.claim(&Claim { now: clock.now(), ..claim.clone() }).await };
                Backoff::of_tries(CLAIM_TRIES).retry(may_pass, claim).await
            }));
        }
        let Some(claiming) = &mut self.claiming else { return Ok(()) };
        let claimed = claiming.await;
        self.claiming = None;
        let claimed = claimed.map_err(|error| SourceError::SetAside(Box::new(error)))?;
        self.in_stock.extend(claimed.map_err(|error| unanswered("take sessions from the backlog", error))?);
        Ok(())
    }

    /// Tells whether nothing due for so long is the end; else waits a little.
    async fn is_over(&mut self) -> bool {
        let Some(limit) = self.idle_exit else { return true };
        let now = self.clock.instant();
        let since = *self.idle_since.get_or_insert(now);
        if !limit.is_zero() && now.saturating_duration_since(since) >= limit {
            return true;
        }
        let wait = if limit.is_zero() { POLL_INTERVAL } else { POLL_INTERVAL.min(limit) };
        tokio::time::sleep(wait).await;
        false
    }

    async fn end_lease(&mut self, session: &SessionId, comes_again: Option<Comeback>) -> Result<(), SourceError> {
        let ended = self.ledger.end_lease(&self.claim.holder, session, comes_again).await;
        if !ended.map_err(|error| unanswered("end a lease", error))? {
            tracing::debug!(session.id = %session, "another worker has taken the session over");
        }
        Ok(())
    }
}

#[async_trait]
impl Source for BacklogSource {
    async fn receive(&mut self) -> Result<Option<Delivery>, SourceError> {
        loop {
            if let Some(claimed) = self.in_stock.pop_front() {
                self.idle_since = None;
                self.records += u64::from(self.claim.which == Which::Due);
                return Ok(Some(delivery(claimed)));
            }
            self.restock().await?;
            if self.in_stock.is_empty() && (self.claim.which == Which::LeftByHolder || self.is_over().await) {
                return Ok(None);
            }
        }
    }

    async fn acknowledge(&mut self, delivery: &Delivery) -> Result<(), SourceError> {
        match &delivery.receipt {
            Some(receipt) => self.end_lease(&held(receipt)?, None).await,
            None => Ok(()),
        }
    }

    async fn release(&mut self, delivery: &Delivery, how: Release) -> Result<(), SourceError> {
        let Some(receipt) = &delivery.receipt else { return Ok(()) };
        let now = self.clock.now();
        let comes_again = match how {
            Release::AtOnce => Some(Comeback { due_at: now, was_tried: false }),
            Release::Later => Some(Comeback { due_at: now.plus(comeback(delivery.tries + 1)), was_tried: true }),
            Release::ForGood => None,
        };
        self.end_lease(&held(receipt)?, comes_again).await
    }

    async fn extend(&mut self, in_hand: &[&Delivery]) -> Result<Vec<SessionId>, SourceError> {
        let now = self.clock.instant();
        if now < self.renew_at {
            return Ok(Vec::new());
        }
        // If this comes to nothing, there is time for another try, and not each second.
        self.renew_at = now + self.claim.lease / 12;
        let in_hand = in_hand.iter().filter_map(|delivery| delivery.receipt.as_deref());
        let mut sessions = in_hand.map(held).collect::<Result<Vec<_>, _>>()?;
        let handed_out = sessions.len();
        sessions.extend(self.in_stock.iter().map(|claimed| claimed.record.session_id.clone()));
        if sessions.is_empty() {
            return Ok(Vec::new());
        }
        let until = self.clock.now().plus(self.claim.lease);
        let kept = self.ledger.renew(&self.claim.holder, &sessions, until).await;
        let kept = kept.map_err(|error| unanswered("renew leases", error))?;
        self.renew_at = now + self.claim.lease / 3;
        self.in_stock.retain(|claimed| kept.contains(&claimed.record.session_id));
        sessions.truncate(handed_out);
        sessions.retain(|session| !kept.contains(session));
        Ok(sessions)
    }

    async fn close(&mut self) -> Result<(), SourceError> {
        // Also what a claim that is under way takes.
        if self.claiming.is_some() {
            self.restock().await?;
        }
        let now = self.clock.now();
        while let Some(claimed) = self.in_stock.pop_front() {
            self.end_lease(&claimed.record.session_id, Some(Comeback { due_at: now, was_tried: false })).await?;
        }
        Ok(())
    }

    fn park(&mut self, integration: &str) {
        self.claim.integrations.retain(|name| name != integration);
    }

    fn turn_back(&mut self) -> bool {
        self.claim.which = Which::LeftByHolder;
        true
    }

    fn keeps(&self) -> bool {
        true
    }

    fn tally(&self) -> Tally {
        Tally { kind: "backlog", records: self.records, sha256: None }
    }
}

impl fmt::Debug for BacklogSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BacklogSource")
            .field("claim", &self.claim)
            .field("records", &self.records)
            .finish_non_exhaustive()
    }
}

/// The whole backlog, looked at and not touched: for a plan and for a dry run.
#[derive(Debug)]
pub struct BacklogView {
    ledger: Arc<dyn Survey>,
    page: VecDeque<ListedSession>,
    after: Option<Cursor>,
    records: u64,
}

impl BacklogView {
    /// Makes a view.
    #[must_use]
    pub const fn new(ledger: Arc<dyn Survey>) -> Self {
        Self { ledger, page: VecDeque::new(), after: None, records: 0 }
    }
}

#[async_trait]
impl Source for BacklogView {
    async fn receive(&mut self) -> Result<Option<Delivery>, SourceError> {
        if self.page.is_empty() {
            let filter = Filter { in_backlog: true, ..Filter::default() };
            let page = self.ledger.list(&filter, self.after.as_ref(), PAGE).await;
            self.page = page.map_err(|error| unanswered("list the backlog", error))?.into();
            self.after = self.page.back().map(|listed| Cursor::behind(&listed.row)).or(self.after.take());
        }
        let Some(ListedSession { mut row, .. }) = self.page.pop_front() else {
            return Ok(None);
        };
        self.records += 1;
        row.record.integration.get_or_insert(row.integration);
        Ok(Some(Delivery::of(Place::Backlog, Ok(row.record))))
    }

    async fn acknowledge(&mut self, _: &Delivery) -> Result<(), SourceError> {
        Ok(())
    }

    async fn release(&mut self, _: &Delivery, _: Release) -> Result<(), SourceError> {
        Ok(())
    }

    fn tally(&self) -> Tally {
        Tally { kind: "backlog", records: self.records, sha256: None }
    }
}

/// The integration was settled when the session was added, so that every worker looks for it in the same one.
fn delivery(claimed: Claimed) -> Delivery {
    let Claimed { mut record, integration, tries } = claimed;
    let receipt = Some(record.session_id.as_str().to_owned());
    record.integration = Some(integration);
    Delivery { receipt, tries, ..Delivery::of(Place::Backlog, Ok(record)) }
}

/// The receipt of a delivery of ours is its session.
fn held(receipt: &str) -> Result<SessionId, SourceError> {
    SessionId::parse(receipt).map_err(|error| SourceError::SetAside(Box::new(error)))
}

fn unanswered(action: &'static str, error: LedgerError) -> SourceError {
    SourceError::Unanswered { action, code: error.code(), source: Box::new(error) }
}
