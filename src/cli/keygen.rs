//! `keygen`.

use clap::Args;

use super::GlobalArgs;
use crate::error::Exit;

/// Make a key pair for signing runs
#[derive(Debug, Args)]
pub(super) struct KeygenArgs {}

pub(super) async fn run(_args: &KeygenArgs, _global: &GlobalArgs) -> anyhow::Result<Exit> {
    std::future::ready(anyhow::bail!("being built")).await
}
