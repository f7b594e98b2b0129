//! Second try: what a run set aside, handed out again from the ledger.

use std::collections::VecDeque;
use std::sync::Arc;

use async_trait::async_trait;

use crate::ledger::Survey;
use crate::model::request::SessionRequest;
use crate::model::{RunId, SessionId};
use crate::source::{Delivery, Place, Release, Source, SourceError, Tally};

/// How many sessions are read back at once.
const PAGE: u32 = 256;

/// The sessions that a process set aside and that are still as it left them. It works as one run, rarely as several.
#[derive(Debug)]
pub(super) struct SecondTry {
    ledger: Arc<dyn Survey>,
    runs: VecDeque<RunId>,
    page: VecDeque<SessionRequest>,
    after: Option<SessionId>,
    records: u64,
}

impl SecondTry {
    pub(super) fn of(ledger: Arc<dyn Survey>, runs: Vec<RunId>) -> Self {
        Self { ledger, runs: runs.into(), page: VecDeque::new(), after: None, records: 0 }
    }
}

#[async_trait]
impl Source for SecondTry {
    async fn receive(&mut self) -> Result<Option<Delivery>, SourceError> {
        while self.page.is_empty() {
            let Some(run) = self.runs.front() else { return Ok(None) };
            let page = self.ledger.retryable_of_run(run, self.after.as_ref(), PAGE).await;
            self.page = page.map_err(|error| SourceError::SetAside(Box::new(error)))?.into();
            self.after = self.page.back().map(|record| record.session_id.clone());
            if self.page.is_empty() {
                self.runs.pop_front();
            }
        }
        let Some(record) = self.page.pop_front() else {
            return Ok(None);
        };
        self.records += 1;
        Ok(Some(Delivery::of(Place::Line(self.records), Ok(record))))
    }

    async fn acknowledge(&mut self, _: &Delivery) -> Result<(), SourceError> {
        Ok(())
    }

    async fn release(&mut self, _: &Delivery, _: Release) -> Result<(), SourceError> {
        Ok(())
    }

    fn tally(&self) -> Tally {
        Tally { kind: "ledger", records: self.records, sha256: None }
    }
}
