//! `prove`.

use clap::Args;

use super::GlobalArgs;
use crate::error::Exit;

/// Prove that a session or an item is in a signed run
#[derive(Debug, Args)]
pub(super) struct ProveArgs {}

pub(super) async fn run(_args: &ProveArgs, _global: &GlobalArgs) -> anyhow::Result<Exit> {
    std::future::ready(anyhow::bail!("being built")).await
}
