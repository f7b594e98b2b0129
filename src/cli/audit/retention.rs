//! `audit retention`.

use clap::Args;

use crate::cli::GlobalArgs;
use crate::error::Exit;

/// Compare every lock with the policy
#[derive(Debug, Args)]
pub(super) struct RetentionArgs {}

pub(super) async fn run(_args: &RetentionArgs, _global: &GlobalArgs) -> anyhow::Result<Exit> {
    std::future::ready(anyhow::bail!("being built")).await
}
