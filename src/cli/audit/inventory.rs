//! Inventory: fetches the files of an inventory report, and sorts them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use tokio::io::AsyncWriteExt as _;

use crate::audit::reconcile::inventory::{Inventory, InventoryError, Sorter};
use crate::audit::runner::AuditError;
use crate::cli::connect::list_settings;
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::store::s3::S3Store;
use crate::store::settings::StoreUrl;

/// Reads and sorts a report.
pub(super) async fn read(paths: &[String], url: &StoreUrl, config: &Config) -> anyhow::Result<Inventory> {
    let (bucket, prefix) = match url {
        StoreUrl::S3 { bucket, prefix } => (bucket.as_str(), prefix.as_str()),
        StoreUrl::Dir(_) => ("", ""),
    };
    let mut sorter = Sorter::of(bucket, prefix);
    let folder = tempfile::tempdir()?;
    for path in paths {
        let local = fetched(path, folder.path(), config).await?;
        if Path::new(path).extension().is_none_or(|extension| extension != "json") {
            sorter = take_file(sorter, local, path.clone()).await?;
            continue;
        }
        let bytes = tokio::fs::read(&local).await?;
        let manifest = sorter.take_manifest(&bytes).map_err(AuditError::from)?;
        for file in manifest.files {
            let beside = Path::new(path).with_file_name(Path::new(&file.key).file_name().unwrap_or_default());
            let destination = manifest.destination_bucket.rsplit(':').next().unwrap_or_default();
            let place = if path.starts_with("s3://") {
                format!("s3://{destination}/{}", file.key)
            } else {
                beside.display().to_string()
            };
            let local = fetched(&place, folder.path(), config).await?;
            sorter = take_file(sorter, local, place).await?;
        }
    }
    Ok(tokio::task::spawn_blocking(move || sorter.finish()).await?.map_err(AuditError::from)?)
}

/// Parses and sorts a file beside the work of the runtime.
async fn take_file(mut sorter: Sorter, local: PathBuf, name: String) -> anyhow::Result<Sorter> {
    let taken = tokio::task::spawn_blocking(move || sorter.take_file(&local, &name).map(|()| sorter));
    Ok(taken.await?.map_err(AuditError::from)?)
}

/// Returns where a file is on this machine; an object is downloaded first.
async fn fetched(place: &str, folder: &Path, config: &Config) -> anyhow::Result<PathBuf> {
    if !place.starts_with("s3://") {
        return Ok(PathBuf::from(place));
    }
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let body = S3Store::open_source(place, &list_settings(config), clock).await?;
    let mut body = body.ok_or_else(|| {
        AuditError::from(InventoryError::Form { place: place.to_owned(), reason: "there is no such object".to_owned() })
    })?;
    let (file, path) = tempfile::NamedTempFile::new_in(folder)?.keep()?;
    let mut file = tokio::fs::File::from_std(file);
    while let Some(chunk) = body.chunk().await? {
        file.write_all(&chunk).await.context("the inventory report cannot be stored")?;
    }
    file.flush().await?;
    Ok(path)
}
