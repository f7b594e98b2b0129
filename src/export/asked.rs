//! Asked: the sessions that are to be exported, each once and in the order of their ids, however many there are.
//!
//! The whole input is read before anything else: the event that goes first names its digest and the list of sessions. It is
//! set aside in the ledger's scratch, so that memory stays the same. Of a record only the id counts here.

use super::ExportError;
use crate::ledger::scratch::{FilledScratch, Scratch};
use crate::model::SessionId;
use crate::model::digest::Sha256Digest;
use crate::model::event::{EventSessions, SessionList};
use crate::source::Source;

/// How many ids are read back at once: these sessions are proved together and shown one after another, so that what is
/// known of them is in memory, about a hundred kilobytes each.
const PAGE_IDS: u32 = 256;

/// How many invalid lines are reported one by one.
const MAX_TOLD: usize = 100;

/// The sessions that are to be exported.
#[derive(Debug)]
pub struct Asked {
    ids: FilledScratch,
    /// What an event says of them.
    pub(super) sessions: EventSessions,
    /// The digest of the input, where there is one.
    pub(super) input_sha256: Option<Sha256Digest>,
    /// How many records named a session that was named before.
    pub(super) repeated: u64,
    /// How many records name no session.
    pub(super) invalid: u64,
    /// The first of these: place and reason.
    pub(super) told: Vec<String>,
}

impl Asked {
    /// Takes ids as they were typed.
    ///
    /// # Errors
    /// Fatal (usage): one of them is not an id. Retryable: there is no place for temporary files.
    pub async fn of_ids(typed: &[String]) -> Result<Self, ExportError> {
        let mut scratch = Scratch::create().await?;
        for (position, text) in (0..).zip(typed) {
            let id = SessionId::parse(text).map_err(|source| ExportError::BadId { number: position + 1, source })?;
            scratch.put(id.as_str().to_owned(), position, String::new(), false).await?;
        }
        Self::of(scratch, typed.len() as u64).await
    }

    /// Reads a source to its end.
    ///
    /// # Errors
    /// Retryable: it cannot be read to its end. Permanent: nothing in it can be read.
    pub async fn of_source(mut source: Box<dyn Source>) -> Result<Self, ExportError> {
        let mut scratch = Scratch::create().await?;
        let (mut named, mut invalid, mut told) = (0, 0, Vec::new());
        while let Some(delivery) = source.receive().await? {
            let id = match delivery.record {
                Ok(record) => Some(record.session_id),
                Err(bad) => {
                    if bad.session_id.is_none() {
                        invalid += 1;
                        if told.len() < MAX_TOLD {
                            told.push(format!("{}: {}", delivery.place, bad.reason));
                        }
                    }
                    bad.session_id
                }
            };
            if let Some(id) = id {
                scratch.put(id.as_str().to_owned(), named, String::new(), false).await?;
                named += 1;
            }
        }
        let input_sha256 = source.tally().sha256;
        Ok(Self { input_sha256, invalid, told, ..Self::of(scratch, named).await? })
    }

    async fn of(scratch: Scratch, named: u64) -> Result<Self, ExportError> {
        let mut ids = scratch.filled().await?;
        let mut list = SessionList::default();
        let mut behind = String::new();
        loop {
            let page = page_of(&mut ids, &behind).await?;
            let Some(end) = page.last() else { break };
            end.as_str().clone_into(&mut behind);
            for id in page {
                list.add(id);
            }
        }
        let sessions = list.finish();
        let repeated = named - sessions.count;
        Ok(Self { ids, sessions, input_sha256: None, repeated, invalid: 0, told: Vec::new() })
    }

    /// Returns the sessions behind one, a page of them; nothing at the end.
    pub(super) async fn after(&mut self, last: &str) -> Result<Vec<SessionId>, ExportError> {
        page_of(&mut self.ids, last).await
    }
}

async fn page_of(ids: &mut FilledScratch, last: &str) -> Result<Vec<SessionId>, ExportError> {
    let names = ids.names(last, PAGE_IDS).await?;
    let parse = |name: String| SessionId::parse(&name).map_err(|source| ExportError::BadId { number: 0, source });
    names.into_iter().map(parse).collect()
}
