//! Connect: opens the source and the store that arguments and configuration name.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::stream;
use tokio_util::io::StreamReader;

use super::source::{FormatArgs, OnlyArg, SourceArgs};
use crate::clock::Clock;
use crate::config::Config;
use crate::ledger::{self, Ledger, LedgerError, Survey};
use crate::model::RunId;
use crate::retry::Backoff;
use crate::run::backlog::BacklogSource;
use crate::run::unfinished::UnfinishedSource;
use crate::source::file::FileSource;
use crate::source::sqs::{SqsSource, Terms};
use crate::source::{Checks, QueueSettings, Source, SourceError};
use crate::store::dir::DirStore;
use crate::store::retrying::RetryingStore;
use crate::store::s3::S3Store;
use crate::store::settings::S3Settings;
use crate::store::settings::StoreSettings;
use crate::store::{ObjectBody, ReadStore, Store};

/// Who a source of leases works for.
#[derive(Debug)]
pub(super) struct Holder {
    /// The ledger, which holds the backlog.
    pub(super) ledger: Arc<dyn Ledger>,
    /// The run, which owns the leases.
    pub(super) run_id: RunId,
}

/// Opens the queue or the backlog.
///
/// # Errors
/// Retryable: it does not answer. Fatal: it cannot be used as configured.
pub(super) async fn open_leased(
    args: &SourceArgs,
    config: &Config,
    clock: &Arc<dyn Clock>,
    holder: Holder,
) -> anyhow::Result<Box<dyn Source>> {
    let Holder { ledger, run_id } = holder;
    if let Some(url) = &args.queue {
        let settings =
            QueueSettings { idle_exit: args.idle_exit.unwrap_or(config.queue.idle_exit), ..config.queue.clone() };
        let terms = Terms { lease: config.limits.lease, sessions_in_flight: config.limits.sessions_in_flight };
        return Ok(Box::new(SqsSource::open(url, &settings, terms, checks(config, clock)).await?));
    }
    let integrations = config.integrations.keys().cloned().collect();
    let (lease, idle_exit) = (config.limits.lease, args.idle_exit);
    Ok(Box::new(BacklogSource::new(ledger, run_id, integrations, lease, idle_exit, Arc::clone(clock))))
}

/// Opens a file, standard input or an object.
///
/// # Errors
/// Retryable: it cannot be read. Permanent: it does not exist. Fatal: the store refuses the list.
pub(super) async fn open_file(
    sessions: &str,
    args: &FormatArgs,
    config: &Config,
    clock: &Arc<dyn Clock>,
) -> anyhow::Result<Box<dyn Source>> {
    let checks = checks(config, clock);
    let format = args.format.map(Into::into);
    let source: Box<dyn Source> = if sessions.starts_with("s3://") {
        let body = S3Store::open_source(sessions, &list_settings(config), Arc::clone(clock)).await?;
        let body = body.ok_or_else(|| SourceError::Open {
            path: PathBuf::from(sessions),
            source: std::io::ErrorKind::NotFound.into(),
        })?;
        Box::new(FileSource::of_reader("s3", Box::new(reader_of(body)), format, checks))
    } else {
        Box::new(FileSource::open(Path::new(sessions), format, checks).await?)
    };
    Ok(match args.only {
        Some(OnlyArg::Unfinished) => Box::new(UnfinishedSource::collect(source).await?),
        None => source,
    })
}

pub(super) fn checks(config: &Config, clock: &Arc<dyn Clock>) -> Checks {
    Checks {
        classes: config.retention.classes().keys().cloned().collect(),
        integrations: config.integrations.keys().cloned().collect::<BTreeSet<_>>(),
        clock: Arc::clone(clock),
    }
}

/// Opens the store to archive into it; a directory is made where there is none.
///
/// # Errors
/// Fatal: it cannot be used as configured.
pub(super) async fn open_store(settings: &StoreSettings, clock: &Arc<dyn Clock>) -> anyhow::Result<Arc<dyn Store>> {
    Ok(match settings {
        StoreSettings::S3(settings) => Arc::new(S3Store::connect(settings, Arc::clone(clock)).await?),
        StoreSettings::Dir(directory) => Arc::new(DirStore::open(directory, Arc::clone(clock)).await?),
    })
}

/// Opens the store that is configured, to read from it.
///
/// # Errors
/// As [`open_existing_store`].
pub(super) async fn open_store_to_read(config: &Config, clock: &Arc<dyn Clock>) -> anyhow::Result<Arc<dyn ReadStore>> {
    Ok(open_existing_store(config, clock).await?)
}

/// Opens the store that is configured, and makes nothing where nothing is.
///
/// # Errors
/// Fatal: there is none, or it cannot be used as configured.
pub(super) async fn open_existing_store(config: &Config, clock: &Arc<dyn Clock>) -> anyhow::Result<Arc<dyn Store>> {
    let inner: Arc<dyn Store> = match config.require_store()? {
        StoreSettings::S3(settings) => Arc::new(S3Store::connect(settings, Arc::clone(clock)).await?),
        StoreSettings::Dir(directory) => Arc::new(DirStore::to_read(directory, Arc::clone(clock))),
    };
    let store = RetryingStore::new(inner, Backoff::of_tries(config.limits.tries), Arc::new(|_| {}));
    store.check().await?;
    Ok(Arc::new(store))
}

/// Opens a ledger to look at it: as everyone does, which upgrades a file of an earlier version, or to read where it may not
/// be written.
///
/// # Errors
/// As [`ledger::open`].
pub(super) async fn open_ledger_to_look(url: &str) -> Result<Arc<dyn Survey>, LedgerError> {
    let refused = match ledger::open(url).await {
        Err(error @ LedgerError::Unavailable { .. }) if ledger::is_made_unasked(url)? => error,
        opened => return Ok(opened?),
    };
    ledger::open_to_read(url).await.map_err(|_| refused)
}

/// Returns how to speak to the bucket of a list: as to the store's, where that is one.
pub(super) fn list_settings(config: &Config) -> S3Settings {
    match &config.store {
        Some(StoreSettings::S3(settings)) => settings.clone(),
        _ => S3Settings::of_bucket("", ""),
    }
}

/// Reads a stored object as a stream of bytes.
fn reader_of(body: ObjectBody) -> impl tokio::io::AsyncRead + Send + Unpin {
    let chunks = stream::unfold(Some(body), |body| async move {
        let mut body = body?;
        match body.chunk().await {
            Ok(chunk) => chunk.map(|chunk| (Ok(chunk), Some(body))),
            Err(error) => Some((Err(std::io::Error::other(error)), None)),
        }
    });
    StreamReader::new(Box::pin(chunks))
}
