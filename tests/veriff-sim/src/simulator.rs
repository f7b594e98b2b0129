//! The running simulator: started on a runtime or on a thread of its own, changed and questioned while it runs.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, MutexGuard};

use tokio::net::{TcpListener, ToSocketAddrs};
use tokio::sync::oneshot;

use crate::faults::{Endpoint, Fault, FaultId};
use crate::knobs::Knobs;
use crate::record::{Seen, Stats};
use crate::server::{Shared, serve};
use crate::session::{Attempt, Presence};
use crate::world::World;

/// A simulator that serves until it is dropped.
#[derive(Debug)]
pub struct Simulator {
    shared: Arc<Shared>,
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    task: Option<tokio::task::JoinHandle<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Simulator {
    /// Starts serving a world on a free port of 127.0.0.1, on the current runtime.
    ///
    /// # Errors
    ///
    /// When no port can be bound.
    pub async fn start(world: World) -> io::Result<Self> {
        Self::start_on("127.0.0.1:0", world).await
    }

    /// Starts serving a world on an address, on the current runtime.
    ///
    /// # Errors
    ///
    /// When the address cannot be bound.
    pub async fn start_on(address: impl ToSocketAddrs, world: World) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let (mut simulator, stopped) = Self::new(listener.local_addr()?, world);
        let served = serve(listener, Arc::clone(&simulator.shared), stopped);
        simulator.task = Some(tokio::spawn(served));
        Ok(simulator)
    }

    /// Starts serving a world on a free port of 127.0.0.1, on a thread and a runtime of its own.
    ///
    /// For callers without a runtime, and for benches, whose own runtime it does not share.
    ///
    /// # Errors
    ///
    /// When no port can be bound or no thread started.
    pub fn start_on_thread(world: World) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let listener = {
            let _entered = runtime.enter();
            TcpListener::from_std(listener)?
        };
        let (mut simulator, stopped) = Self::new(listener.local_addr()?, world);
        let shared = Arc::clone(&simulator.shared);
        let thread = std::thread::Builder::new().name("veriff-sim".to_owned());
        simulator.thread = Some(thread.spawn(move || runtime.block_on(serve(listener, shared, stopped)))?);
        Ok(simulator)
    }

    fn new(address: SocketAddr, world: World) -> (Self, oneshot::Receiver<()>) {
        let (stop, stopped) = oneshot::channel();
        let simulator = Self {
            shared: Arc::new(Shared::new(format!("http://{address}"), world)),
            address,
            stop: Some(stop),
            task: None,
            thread: None,
        };
        (simulator, stopped)
    }

    /// Stops serving; connections are cut. Dropping does the same.
    ///
    /// On a shared runtime the port closes when that next runs; [`Simulator::shut_down`] waits for it.
    pub fn stop(self) {}

    /// Stops serving and returns once connections are refused.
    pub async fn shut_down(mut self) {
        drop(self.stop.take());
        if let Some(task) = self.task.take() {
            // It ends by itself; that it could panic is of no interest here.
            let _ = task.await;
        }
    }

    /// Where it is reached: `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn base_url(&self) -> String {
        self.shared.base_url().to_owned()
    }

    /// The address it listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The API key of the first integration.
    #[must_use]
    pub fn api_key(&self) -> String {
        let world = self.world();
        let first = world.integrations.first();
        first.map_or_else(String::new, |i| i.api_key.clone())
    }

    /// The first secret of the first integration.
    #[must_use]
    pub fn secret(&self) -> String {
        let world = self.world();
        let first = world.integrations.first();
        first.map_or_else(String::new, |i| i.secret().to_owned())
    }

    /// The world, to read or to change; requests wait while the guard is held, so do not hold it over an `await`.
    pub fn world(&self) -> MutexGuard<'_, World> {
        self.shared.world()
    }

    /// Changes the behaviour of the service.
    pub fn set_knobs(&self, change: impl FnOnce(&mut Knobs)) {
        change(&mut self.world().knobs);
    }

    /// Adds an attempt to a session; tells whether the session exists.
    #[expect(clippy::must_use_candidate, reason = "called for its effect")]
    pub fn add_attempt(&self, session_id: &str, attempt: Attempt) -> bool {
        self.world().add_attempt(session_id, attempt)
    }

    /// Deletes a session; tells whether it exists.
    #[expect(clippy::must_use_candidate, reason = "called for its effect")]
    pub fn delete_session(&self, session_id: &str) -> bool {
        self.world().set_presence(session_id, Presence::Deleted)
    }

    /// Replaces the first secret of an integration; with `keep_old` the old one still works.
    #[expect(clippy::must_use_candidate, reason = "called for its effect")]
    pub fn rotate_secret(&self, integration: &str, secret: &str, keep_old: bool) -> bool {
        self.world().rotate_secret(integration, secret, keep_old)
    }

    /// Puts a fault in force, after those already set.
    #[expect(clippy::must_use_candidate, reason = "called for its effect")]
    pub fn set_fault(&self, fault: Fault) -> FaultId {
        self.shared.faults().add(fault)
    }

    /// Takes a fault back.
    pub fn remove_fault(&self, id: FaultId) {
        self.shared.faults().remove(id);
    }

    /// Takes all faults back.
    pub fn clear_faults(&self) {
        self.shared.faults().clear();
    }

    /// The number of requests a fault has hit.
    #[must_use]
    pub fn fault_hits(&self, id: FaultId) -> u64 {
        self.shared.faults().hits(id)
    }

    /// All requests since the start or the last reset, in the order they were answered.
    #[must_use]
    pub fn requests(&self) -> Vec<Seen> {
        self.shared.record.requests()
    }

    /// Counts the requests of a kind, whatever they were answered.
    #[must_use]
    pub fn count(&self, endpoint: Endpoint) -> u64 {
        let counts = self.stats().by_endpoint.remove(&endpoint);
        counts.map_or(0, |c| c.values().sum())
    }

    /// Counts the requests of a kind that were answered with a status.
    #[must_use]
    pub fn count_status(&self, endpoint: Endpoint, status: u16) -> u64 {
        let counts = self.stats().by_endpoint.remove(&endpoint);
        counts.and_then(|c| c.get(&status).copied()).unwrap_or(0)
    }

    /// Counts the requests for the file of a media item, whatever they were answered.
    #[must_use]
    pub fn media_gets(&self, media_id: &str) -> usize {
        let record = &self.shared.record;
        record.count_where(|s| s.endpoint == Endpoint::Media && s.id == media_id)
    }

    /// Counts of all sorts since the start or the last reset.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.shared.record.stats()
    }

    /// The most requests in flight at once, bodies included.
    #[must_use]
    pub fn peak_concurrency(&self) -> usize {
        self.stats().peak_concurrency
    }

    /// Forgets all requests and counts; the faults and what they have hit stay.
    pub fn reset_requests(&self) {
        self.shared.record.reset();
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        // Dropping the sender ends `serve`, which cuts the connections.
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
