//! The record: what the simulator was asked and what it answered.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use crate::auth::AuthOutcome;
use crate::faults::Endpoint;

/// One request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Seen {
    /// The method.
    pub method: String,
    /// The path as sent, with its query.
    pub path: String,
    /// The kind of request.
    pub endpoint: Endpoint,
    /// The id in the path, empty when there is none.
    pub id: String,
    /// The status answered; 0 when the connection was closed instead.
    pub status: u16,
    /// How its authentication ended.
    pub auth: AuthOutcome,
    /// A fault met it.
    pub faulted: bool,
}

/// Counts since the start or the last reset.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// Requests of all kinds.
    pub requests: u64,
    /// Requests by endpoint and status answered.
    pub by_endpoint: BTreeMap<Endpoint, BTreeMap<u16, u64>>,
    /// Requests whose key or signature was wrong or missing.
    pub bad_signatures: u64,
    /// Requests that met a fault.
    pub faulted: u64,
    /// The most requests in flight at once, bodies included.
    pub peak_concurrency: usize,
    /// Requests in flight now.
    pub in_flight: usize,
    /// Connections accepted.
    pub connections: u64,
    /// Bytes of bodies handed to the network.
    pub body_bytes: u64,
}

#[derive(Debug, Default)]
struct Log {
    stats: Stats,
    seen: Vec<Seen>,
}

/// The record of one simulator.
#[derive(Debug, Default)]
pub(crate) struct Record {
    log: Mutex<Log>,
    in_flight: AtomicUsize,
    peak: AtomicUsize,
    connections: AtomicU64,
    body_bytes: AtomicU64,
}

impl Record {
    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn connected(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn sent(&self, bytes: u64) {
        self.body_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts a request as in flight until the guard goes.
    pub(crate) fn enter(self: &Arc<Self>) -> InFlight {
        let now = self.in_flight.fetch_add(1, Ordering::Relaxed) + 1;
        self.peak.fetch_max(now, Ordering::Relaxed);
        InFlight(Arc::clone(self))
    }

    pub(crate) fn note(&self, seen: Seen, keep: bool) {
        let mut log = self.log();
        let stats = &mut log.stats;
        stats.requests += 1;
        let statuses = stats.by_endpoint.entry(seen.endpoint).or_default();
        *statuses.entry(seen.status).or_default() += 1;
        let good = matches!(seen.auth, AuthOutcome::Good | AuthOutcome::Unchecked);
        stats.bad_signatures += u64::from(!good);
        stats.faulted += u64::from(seen.faulted);
        if keep {
            log.seen.push(seen);
        }
    }

    pub(crate) fn requests(&self) -> Vec<Seen> {
        self.log().seen.clone()
    }

    pub(crate) fn count_where(&self, matches: impl Fn(&Seen) -> bool) -> usize {
        self.log().seen.iter().filter(|s| matches(s)).count()
    }

    pub(crate) fn stats(&self) -> Stats {
        Stats {
            peak_concurrency: self.peak.load(Ordering::Relaxed),
            in_flight: self.in_flight.load(Ordering::Relaxed),
            connections: self.connections.load(Ordering::Relaxed),
            body_bytes: self.body_bytes.load(Ordering::Relaxed),
            ..self.log().stats.clone()
        }
    }

    pub(crate) fn reset(&self) {
        *self.log() = Log::default();
        self.peak.store(self.in_flight.load(Ordering::Relaxed), Ordering::Relaxed);
        self.connections.store(0, Ordering::Relaxed);
        self.body_bytes.store(0, Ordering::Relaxed);
    }
}

/// A request in flight.
#[derive(Debug)]
pub(crate) struct InFlight(Arc<Record>);

impl InFlight {
    pub(crate) fn record(&self) -> &Record {
        &self.0
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
