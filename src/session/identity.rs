//! Identity: which archive this store is.
//!
//! `archive.json` is made once, by the first run that has something to write, and never again; every document carries
//! its id, and a ledger that knows another one belongs to another store. Reading it writes nothing, so a run that is
//! refused everything leaves an empty store empty.

use std::sync::Arc;

use tokio::sync::OnceCell;

use crate::error::Code;
use crate::ledger::{Ledger, LedgerError};
use crate::model::ArchiveId;
use crate::model::key::ObjectKey;
use crate::model::manifest::{ARCHIVE_SCHEMA, ArchiveDocument};
use crate::session::writer::{ArchiveWriter, Placed, WriteError};
use crate::store::document::read_document;
use crate::store::versions::{KeyVersions, Shadow, versions_of};
use crate::store::{ReadStore, StoreError, Terms};

/// The identity of the archive, found or made on first use.
#[derive(Debug)]
pub struct Identity {
    ledger: Arc<dyn Ledger>,
    found: Option<ArchiveId>,
    claimed: OnceCell<ArchiveId>,
}

/// Why the archive's identity is not known.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The store did not do what it was asked.
    #[error(transparent)]
    Keep(#[from] WriteError),
    /// The ledger did not do what it was asked.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// Something shadows `archive.json`.
    #[error("archive.json is shadowed by {shadows}; {}", shadow_repair(.own.as_deref()))]
    Shadowed {
        /// The archive's own version, if there is one.
        own: Option<String>,
        /// What shadows it, with the version ids.
        shadows: String,
    },
    /// `archive.json` is not one.
    #[error("archive.json in the store is not an archive document; check store.url")]
    Damaged,
    /// The ledger belongs to another archive.
    #[error("the ledger belongs to archive {known}, the store is archive {found}; check store.url and ledger.url")]
    Mismatch {
        /// What the ledger knows.
        known: ArchiveId,
        /// What the store says.
        found: ArchiveId,
    },
    /// The ledger knows an archive and the store is none.
    #[error("the ledger belongs to archive {known}, the store has no archive.json; check store.url and ledger.url")]
    Vanished {
        /// What the ledger knows.
        known: ArchiveId,
    },
}

impl From<StoreError> for IdentityError {
    fn from(error: StoreError) -> Self {
        Self::Keep(error.into())
    }
}

impl IdentityError {
    /// Returns the stable code, which fixes the error class.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::Keep(error) => error.code(),
            Self::Ledger(error) => error.code(),
            Self::Shadowed { .. } => Code::StoreShadowed,
            Self::Damaged | Self::Mismatch { .. } | Self::Vanished { .. } => Code::StoreMismatch,
        }
    }
}

impl Identity {
    /// Reads the identity from the store and holds it against the ledger; writes nothing.
    ///
    /// # Errors
    /// Fatal: the two belong to different archives. Retryable: one of them does not answer.
    pub async fn find(store: &dyn ReadStore, ledger: Arc<dyn Ledger>) -> Result<Self, IdentityError> {
        let mut found = read(store).await?;
        let known = ledger.archive_id().await?;
        if found.is_none() && known.is_some() {
            // Another worker may have made it between the two looks: it writes into the store first.
            found = read(store).await?;
        }
        match (&found, known) {
            (Some(found), Some(known)) if *found != known => {
                return Err(IdentityError::Mismatch { known, found: found.clone() });
            }
            (None, Some(known)) => return Err(IdentityError::Vanished { known }),
            _ => {}
        }
        Ok(Self { ledger, found, claimed: OnceCell::new() })
    }

    /// Returns the archive the store was found to be, if it was one.
    #[must_use]
    pub fn known(&self) -> Option<&ArchiveId> {
        self.claimed.get().or(self.found.as_ref())
    }

    /// Returns the archive, and makes it one if it is none yet. Asked before anything is written.
    ///
    /// # Errors
    /// As [`Identity::find`], and as the store's.
    pub async fn claim(&self, writer: &ArchiveWriter) -> Result<&ArchiveId, IdentityError> {
        self.claimed
            .get_or_try_init(|| async {
                let id = match &self.found {
                    Some(id) => id.clone(),
                    None => make(writer).await?,
                };
                self.ledger.adopt_archive(&id).await?;
                match self.ledger.archive_id().await? {
                    Some(known) if known != id => Err(IdentityError::Mismatch { known, found: id }),
                    _ => Ok(id),
                }
            })
            .await
    }
}

/// Reads from the store alone which archive it is; nothing if it is none.
///
/// # Errors
/// As [`Identity::find`].
pub async fn archive_of(store: &dyn ReadStore) -> Result<Option<ArchiveId>, IdentityError> {
    read(store).await
}

async fn read(store: &dyn ReadStore) -> Result<Option<ArchiveId>, IdentityError> {
    let listed = versions_of(store, &ObjectKey::archive()).await?;
    if listed.is_shadowed() {
        return Err(shadowed(&listed));
    }
    let Some(own) = listed.own else { return Ok(None) };
    let document = read_document(store, &own.key, own.version_id.as_deref()).await?.ok_or(IdentityError::Damaged)?;
    Ok(Some(ArchiveDocument::parse(&document.bytes).ok_or(IdentityError::Damaged)?.archive_id))
}

fn shadowed(listed: &KeyVersions) -> IdentityError {
    let named = |shadow: &Shadow| format!("{} (version {})", shadow.kind, id_of(shadow.version.version_id.as_deref()));
    let shadows: Vec<String> = listed.shadows.iter().map(named).collect();
    let own = listed.own.as_ref().map(|own| id_of(own.version_id.as_deref()).to_owned());
    IdentityError::Shadowed { own, shadows: shadows.join(" and ") }
}

fn shadow_repair(own: Option<&str>) -> String {
    let repair = "find out who put it there; then delete that version alone, by its id";
    own.map_or_else(|| repair.to_owned(), |own| format!("{repair}; version {own} is the archive's and stays"))
}

/// Returns a version id as commands take it.
fn id_of(version_id: Option<&str>) -> &str {
    version_id.unwrap_or("null")
}

async fn make(writer: &ArchiveWriter) -> Result<ArchiveId, IdentityError> {
    let document = ArchiveDocument {
        schema: ARCHIVE_SCHEMA.to_owned(),
        archive_id: ArchiveId::random(),
        created_at: writer.store().now(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let lock = writer.due_by_default().map_err(WriteError::from)?;
    let terms = Terms { content_type: "application/json".to_owned(), lock, is_document: true };
    match writer.place(&ObjectKey::archive(), &document.to_payload(), &terms, "archive.json").await {
        Ok(Placed::Created(_) | Placed::Same(_)) => Ok(document.archive_id),
        // Another worker made it in the same moment: theirs is the archive, unless something shadows it by now.
        Ok(Placed::Other(_)) | Err(WriteError::Shadowed { .. }) => {
            read(writer.store()).await?.ok_or(IdentityError::Damaged)
        }
        Err(error) => Err(error.into()),
    }
}
