//! Unfinished: the lines of a results file that still need work, for `--only unfinished`.
//!
//! A source over another one. Reads the whole input first, because a later line may have a better outcome, and sets
//! it aside in the ledger's scratch, so that memory stays the same however long it is. Then hands out, in the order in
//! which sessions were first named, those whose last line is not finished. A line without an outcome was never worked
//! on, so it is not finished; a bad line is handed out as it is, because every line must end somewhere.

use std::collections::VecDeque;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::ledger::LedgerError;
use crate::ledger::scratch::{FilledScratch, Scratch};
use crate::model::SessionId;
use crate::model::request::SessionRequest;
use crate::source::{BadRecord, Delivery, Place, Release, Source, SourceError, Tally};

/// How many lines are read back at once.
const PAGE_LINES: u32 = 1024;

/// The unfinished part of another source.
#[derive(Debug)]
pub struct UnfinishedSource {
    scratch: FilledScratch,
    tally: Tally,
    page: VecDeque<(u64, String)>,
    last: Option<u64>,
}

/// A delivery as it is set aside.
#[derive(Serialize, Deserialize)]
enum Line {
    Record(SessionRequest),
    Bad { session_id: Option<SessionId>, reason: String },
}

impl UnfinishedSource {
    /// Reads the whole of a source.
    ///
    /// # Errors
    /// As [`Source::receive`]; retryable: there is no space for temporary files.
    pub async fn collect(mut source: Box<dyn Source>) -> Result<Self, SourceError> {
        let mut scratch = Scratch::create().await.map_err(set_aside)?;
        while let Some(delivery) = source.receive().await? {
            let Place::Line(position) = delivery.place else { continue };
            // No session id has a `#`, so a bad line replaces nothing.
            let (name, line) = match delivery.record {
                Ok(record) => (record.session_id.as_str().to_owned(), Line::Record(record)),
                Err(BadRecord { session_id, reason }) => (format!("#{position}"), Line::Bad { session_id, reason }),
            };
            let text = serde_json::to_string(&line).map_err(|error| SourceError::SetAside(Box::new(error)))?;
            scratch.put(name, position, text, delivery.is_finished).await.map_err(set_aside)?;
        }
        Ok(Self {
            scratch: scratch.filled().await.map_err(set_aside)?,
            tally: Tally { records: 0, ..source.tally() },
            page: VecDeque::new(),
            last: None,
        })
    }
}

fn set_aside(error: LedgerError) -> SourceError {
    SourceError::SetAside(Box::new(error))
}

#[async_trait]
impl Source for UnfinishedSource {
    async fn receive(&mut self) -> Result<Option<Delivery>, SourceError> {
        if self.page.is_empty() {
            self.page = self.scratch.unfinished(self.last, PAGE_LINES).await.map_err(set_aside)?.into();
        }
        let Some((position, text)) = self.page.pop_front() else {
            return Ok(None);
        };
        self.last = Some(position);
        self.tally.records += 1;
        let line = serde_json::from_str(&text).map_err(|error| SourceError::SetAside(Box::new(error)))?;
        let record = match line {
            Line::Record(record) => Ok(record),
            Line::Bad { session_id, reason } => Err(BadRecord { session_id, reason }),
        };
        Ok(Some(Delivery::of(Place::Line(position), record)))
    }

    async fn acknowledge(&mut self, _: &Delivery) -> Result<(), SourceError> {
        Ok(())
    }

    async fn release(&mut self, _: &Delivery, _: Release) -> Result<(), SourceError> {
        Ok(())
    }

    fn tally(&self) -> Tally {
        self.tally.clone()
    }
}
