//! `audit chain`.

use clap::Args;

use crate::cli::GlobalArgs;
use crate::error::Exit;

/// Check every run record, its chunks, signatures and chain
#[derive(Debug, Args)]
pub(super) struct ChainArgs {}

pub(super) async fn run(_args: &ChainArgs, _global: &GlobalArgs) -> anyhow::Result<Exit> {
    std::future::ready(anyhow::bail!("being built")).await
}
