//! Desk: what an audit looks with, opened so that nothing is changed.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use crate::audit::archive;
use crate::audit::reach::Reach;
use crate::audit::runner::{AuditError, AuditProgress, Runner};
use crate::cli::connect::open_store_to_read;
use crate::cli::signals;
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::ledger::{self, Survey};
use crate::model::ArchiveId;
use crate::stop::Stop;
use crate::store::ReadStore;

/// Where progress is kept.
#[derive(Debug, Args)]
pub(super) struct StateArgs {
    /// Save progress in this file, and resume from it if the audit was stopped
    #[arg(long, value_name = "FILE")]
    pub(super) state: Option<PathBuf>,
}

/// What the ledger is to an audit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// The audit is about it.
    Needed,
    /// It is one more thing to compare with; the store is looked at all the same.
    Helpful,
}

/// What an audit looks with.
#[derive(Debug)]
pub(super) struct AuditDesk {
    pub(super) config: Config,
    pub(super) store: Arc<dyn ReadStore>,
    is_bucket: bool,
    /// The ledger, if there is one; where the audit can do without, only if it can be read.
    pub(super) ledger: Option<Arc<dyn Survey>>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) stop: Stop,
}

impl AuditDesk {
    /// Opens the store and the ledger.
    ///
    /// # Errors
    /// Fatal: configuration or rights. Retryable: out of reach.
    pub(super) async fn open(config: Config, need: Need) -> anyhow::Result<Self> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let stop = Stop::default();
        signals::listen(stop.clone())?;
        let store = open_store_to_read(&config, &clock).await?;
        let is_bucket = config.require_store()?.url().can_lock();
        let ledger = open_ledger(&config, need).await?;
        Ok(Self { config, store, is_bucket, ledger, clock, stop })
    }

    /// Returns the store as an audit asks it.
    pub(super) fn reach(&self, concurrency: u16) -> Reach<'_> {
        Reach::of(&*self.store, usize::from(concurrency), self.is_bucket)
    }

    /// Reads which archive the store is, and passes on what is wrong with that; once, also if the audit is resumed.
    ///
    /// # Errors
    /// As the store's and the ledger's.
    pub(super) async fn archive<P: AuditProgress>(
        &self,
        reach: &Reach<'_>,
        runner: &mut Runner<P>,
    ) -> Result<Option<ArchiveId>, AuditError> {
        let known = match &self.ledger {
            Some(ledger) => ledger.archive_id().await?,
            None => None,
        };
        let (archive, found) = archive::read(reach, known.as_ref()).await?;
        runner.add_at_first(found)?;
        Ok(archive.id)
    }
}

/// Opens the ledger to read what it knows, if there is one.
///
/// # Errors
/// Fatal: configuration or schema. Retryable, if the audit is nothing without it: out of reach.
async fn open_ledger(config: &Config, need: Need) -> anyhow::Result<Option<Arc<dyn Survey>>> {
    let opened = async {
        if !ledger::exists(&config.ledger_url).await? {
            return Ok(None);
        }
        ledger::open_to_read(&config.ledger_url).await.map(Some)
    };
    match opened.await {
        Ok(ledger) => Ok(ledger),
        Err(error) if error.code().is_retryable() && need == Need::Helpful => {
            tracing::warn!("the ledger is not compared, because it cannot be read: {error}");
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}
