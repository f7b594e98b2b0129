//! `export`.

use clap::Args;

use super::GlobalArgs;
use crate::error::Exit;

/// Export the evidence of sessions as a BagIt bag
#[derive(Debug, Args)]
pub(super) struct ExportArgs {}

pub(super) async fn run(_args: &ExportArgs, _global: &GlobalArgs) -> anyhow::Result<Exit> {
    std::future::ready(anyhow::bail!("being built")).await
}
