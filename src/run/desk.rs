//! Desk: one integration in a run, with its gate and what is held back there.

use std::sync::Arc;

use super::Done;
use crate::metrics::SessionMeter;
use crate::model::request::SessionRequest;
use crate::run::gate::Gate;
use crate::session::Integration;
use crate::source::Delivery;
use crate::veriff::{Call, VeriffError};

/// One integration in a run.
#[derive(Debug)]
pub struct Desk {
    pub(super) integration: Arc<Integration>,
    pub(super) gate: Gate,
    pub(super) held: Vec<Held>,
    pub(super) worked: Option<SessionRequest>,
    pub(super) was_told: bool,
}

/// A session that is held back until the gate can tell.
#[derive(Debug)]
pub(super) struct Held(Box<Done>);

impl Held {
    pub(super) fn of(done: Done) -> Self {
        Self(Box::new(done))
    }

    pub(super) const fn delivery(&self) -> &Delivery {
        &self.0.taken.delivery
    }

    pub(super) fn into_done(self) -> Done {
        *self.0
    }
}

impl Desk {
    /// Opens a desk.
    #[must_use]
    pub fn of(integration: Arc<Integration>, expect_absent: bool) -> Self {
        Self { integration, gate: Gate::new(expect_absent), held: Vec::new(), worked: None, was_told: false }
    }

    /// Asks again for a session that worked before, and tells whether that is refused now.
    pub(super) async fn is_refused_now(&self) -> bool {
        let Some(worked) = &self.worked else { return false };
        let call = Call::Attempts(&worked.session_id);
        let asked = self.integration.client.ask(call, &SessionMeter::default(), |_| Ok(())).await;
        matches!(asked, Err(VeriffError::Unauthorized { .. }))
    }
}
