//! The event of an export: the one document that an export writes into the archive, and the only code here that may write.
//!
//! It is put under its lock before anything is read; what reads is given the store to read from and no more.

use super::bag::{Form, expect_free, leftovers};
use super::{Asked, ExportError, Exported, MAX_ZIP_SESSIONS, Request, fill, unwritable};
use crate::model::EventId;
use crate::model::event::{EVENT_SCHEMA, Event, EventKind};
use crate::session::identity::archive_of;
use crate::session::writer::{ArchiveWriter, Placed, WriteError};
use crate::store::Terms;

/// Exports.
///
/// Dropping the future leaves no bag; the event remains all the same.
///
/// # Errors
/// Fatal: something exists where the bag should go, the event may not be written, the store refuses. Retryable: the
/// store does not answer, or there is no space. In each case there is no bag.
pub async fn export(writer: &ArchiveWriter, asked: Asked, request: Request) -> Result<Exported, ExportError> {
    let event = prepare(writer, &asked, &request).await?;
    fill(writer.store(), event, asked, &request).await
}

/// Checks what can be checked before, and writes the event.
async fn prepare(writer: &ArchiveWriter, asked: &Asked, request: &Request) -> Result<Event, ExportError> {
    if asked.sessions.count == 0 {
        return Err(ExportError::Nothing);
    }
    if request.form == Form::Zip && asked.sessions.count > MAX_ZIP_SESSIONS {
        return Err(ExportError::TooManyForZip { sessions: asked.sessions.count });
    }
    expect_free(&request.place).map_err(unwritable(&request.place))?;
    for leftover in leftovers(&request.place).map_err(unwritable(&request.place))? {
        let path = leftover.display();
        tracing::warn!(
            "{path} is from an export that was killed or is still running; if none is running, remove it: it contains \
             evidence"
        );
    }
    let archive_id = archive_of(writer.store()).await?.ok_or(ExportError::NoArchive)?;
    let at = writer.store().now();
    let event = Event {
        schema: EVENT_SCHEMA.to_owned(),
        archive_id,
        event_id: EventId::new(at),
        kind: EventKind::Export,
        at,
        actor: request.actor.clone(),
        store_principal: request.store_principal.clone(),
        requested_by: request.requested_by.clone(),
        reason: request.reason.clone(),
        sessions: asked.sessions.clone(),
        input_sha256: asked.input_sha256,
        destination: request.form.as_str().to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    write_event(writer, &event).await.map_err(ExportError::Event)?;
    tracing::info!(event.id = %event.event_id, object.key = %event.key(), sessions = event.sessions.count, "the event of this export is written");
    Ok(event)
}

/// Puts the event under the lock of documents that belong to no session, and verifies that it is there.
async fn write_event(writer: &ArchiveWriter, event: &Event) -> Result<(), WriteError> {
    let lock = writer.due_by_default()?;
    let terms = Terms { content_type: "application/json".to_owned(), lock, is_document: true };
    match writer.place(&event.key(), &event.to_payload(), &terms, "event").await? {
        // The same: an answer was lost and the write tried again.
        Placed::Created(_) | Placed::Same(_) => Ok(()),
        Placed::Other(_) => Err(WriteError::Damaged { key: event.key(), reason: "contains another event" }),
    }
}
