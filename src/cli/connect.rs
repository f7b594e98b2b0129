//! Connect: opens the source and the store that arguments and configuration name.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::stream;
use tokio_util::io::StreamReader;

use super::source::{OnlyArg, SourceArgs};
use crate::clock::Clock;
use crate::config::{Config, StoreSettings};
use crate::source::file::FileSource;
use crate::source::{Checks, Source, SourceError};
use crate::store::dir::DirStore;
use crate::store::s3::S3Store;
use crate::store::settings::S3Settings;
use crate::store::{ObjectBody, Store};
use crate::unfinished::UnfinishedSource;

/// Opens the source of sessions.
///
/// # Errors
/// Retryable: it cannot be read. Permanent: it is not there. Fatal: the store refuses the list.
pub(super) async fn open_source(
    args: &SourceArgs,
    config: &Config,
    clock: &Arc<dyn Clock>,
) -> anyhow::Result<Box<dyn Source>> {
    let checks = Checks {
        classes: config.retention.classes().keys().cloned().collect(),
        integrations: config.integrations.keys().cloned().collect::<BTreeSet<_>>(),
        clock: Arc::clone(clock),
    };
    let format = args.format.map(Into::into);
    let source: Box<dyn Source> = if args.sessions.starts_with("s3://") {
        let body = S3Store::open_source(&args.sessions, &list_settings(config), Arc::clone(clock)).await?;
        let body = body.ok_or_else(|| SourceError::Open {
            path: PathBuf::from(&args.sessions),
            source: std::io::ErrorKind::NotFound.into(),
        })?;
        Box::new(FileSource::of_reader("s3", Box::new(reader_of(body)), format, checks))
    } else {
        Box::new(FileSource::open(Path::new(&args.sessions), format, checks).await?)
    };
    Ok(match args.only {
        Some(OnlyArg::Unfinished) => Box::new(UnfinishedSource::collect(source).await?),
        None => source,
    })
}

/// Opens the store.
///
/// # Errors
/// Fatal: it cannot be used as configured.
pub(super) async fn open_store(settings: &StoreSettings, clock: &Arc<dyn Clock>) -> anyhow::Result<Arc<dyn Store>> {
    Ok(match settings {
        StoreSettings::S3(settings) => Arc::new(S3Store::connect(settings, Arc::clone(clock)).await?),
        StoreSettings::Dir(directory) => Arc::new(DirStore::open(directory, Arc::clone(clock)).await?),
    })
}

/// Returns how to speak to the bucket of a list: as to the store's, where that is one.
fn list_settings(config: &Config) -> S3Settings {
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
