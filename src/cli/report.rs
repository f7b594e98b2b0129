//! `report`.

use clap::Args;

use super::GlobalArgs;
use crate::error::Exit;

/// Write the report for the compliance team
#[derive(Debug, Args)]
pub(super) struct ReportArgs {}

pub(super) async fn run(_args: &ReportArgs, _global: &GlobalArgs) -> anyhow::Result<Exit> {
    std::future::ready(anyhow::bail!("being built")).await
}
