//! `audit fixity`.

use clap::Args;

use crate::cli::GlobalArgs;
use crate::error::Exit;

/// Compare every object with its digests
#[derive(Debug, Args)]
pub(super) struct FixityArgs {}

pub(super) async fn run(_args: &FixityArgs, _global: &GlobalArgs) -> anyhow::Result<Exit> {
    std::future::ready(anyhow::bail!("being built")).await
}
