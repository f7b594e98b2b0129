//! `audit reconcile`.

use clap::Args;

use crate::cli::GlobalArgs;
use crate::error::Exit;

/// Compare ledger and store in both directions
#[derive(Debug, Args)]
pub(super) struct ReconcileArgs {}

pub(super) async fn run(_args: &ReconcileArgs, _global: &GlobalArgs) -> anyhow::Result<Exit> {
    std::future::ready(anyhow::bail!("being built")).await
}
