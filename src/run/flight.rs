//! Flight: the sessions under way, and which task works on which.

use std::collections::{HashMap, HashSet};
use std::future::Future;

use tokio::task::{AbortHandle, Id, JoinSet};

use super::{Cost, Done, Taken};
use crate::error::Code;
use crate::model::SessionId;
use crate::session::visit::Outcome;
use crate::session::visit::{Visit, VisitError};
use crate::source::Delivery;

/// What a task returns.
pub(super) type Finished = (Result<Visit, VisitError>, Cost);

/// The sessions under way.
#[derive(Debug, Default)]
pub(super) struct Flight {
    tasks: JoinSet<Finished>,
    handles: HashMap<Id, AbortHandle>,
    taken: HashMap<Id, Taken>,
    busy: HashSet<SessionId>,
}

/// What became of one task.
#[derive(Debug)]
pub(super) enum Landing {
    /// The visit ended.
    Ended(Done),
    /// The task panicked: a defect of this program; the session was not done.
    Panicked(Done),
    /// It was given up because another worker has taken the session over.
    Lost(Done),
}

impl Flight {
    pub(super) fn len(&self) -> usize {
        self.tasks.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// Returns whether the session of a delivery is under way already.
    pub(super) fn has(&self, delivery: &Delivery) -> bool {
        delivery.record.as_ref().is_ok_and(|record| self.busy.contains(&record.session_id))
    }

    /// Begins a session.
    pub(super) fn begin(&mut self, taken: Taken, visit: impl Future<Output = Finished> + Send + 'static) {
        self.busy.insert(taken.record.session_id.clone());
        let task = self.tasks.spawn(visit);
        self.taken.insert(task.id(), taken);
        self.handles.insert(task.id(), task);
    }

    /// Lists the deliveries under way.
    pub(super) fn deliveries(&self) -> impl Iterator<Item = &Delivery> {
        self.taken.values().map(|taken| &taken.delivery)
    }

    /// Gives up one session, whose lease is lost. It lands like any other.
    pub(super) fn abandon(&mut self, session: &SessionId) {
        let found = self.taken.iter().find(|(_, taken)| taken.record.session_id == *session);
        if let Some(handle) = found.and_then(|(id, _)| self.handles.get(id)) {
            handle.abort();
        }
    }

    /// Waits for the next session to end; nothing if there is none. Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> Option<Landing> {
        loop {
            let (id, finished) = match self.tasks.join_next_with_id().await? {
                Ok((id, finished)) => (id, Ok(finished)),
                Err(error) => (error.id(), Err(error)),
            };
            self.handles.remove(&id);
            // Every task has its session; one that has not was never begun here.
            let Some(taken) = self.taken.remove(&id) else { continue };
            self.busy.remove(&taken.record.session_id);
            return Some(match finished {
                Ok((visit, cost)) => Landing::Ended(Done { taken, visit, cost }),
                Err(error) if error.is_cancelled() => Landing::Lost(not_done(
                    taken,
                    Code::LeaseLost,
                    "the lease was not renewed in time; another worker may have the session",
                )),
                Err(_) => Landing::Panicked(not_done(taken, Code::InternalError, "the program failed on this session")),
            });
        }
    }

    /// Gives up what is still under way and returns those sessions, not done.
    pub(super) async fn give_up(&mut self) -> Vec<Done> {
        self.tasks.abort_all();
        while self.tasks.join_next().await.is_some() {}
        self.handles.clear();
        self.busy.clear();
        let given_up = self.taken.drain().map(|(_, taken)| not_done(taken, Code::RunStopped, "the run was stopped"));
        given_up.collect()
    }
}

/// Reports a session that was taken and not done.
pub(super) fn not_done(taken: Taken, code: Code, message: &str) -> Done {
    let mut visit = Visit::of(Outcome::Pending);
    visit.code = Some(code);
    visit.message = Some(message.to_owned());
    Done { taken, visit: Ok(visit), cost: Cost::default() }
}
