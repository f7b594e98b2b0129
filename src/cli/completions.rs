//! `completions`: what a shell needs to complete this command line.

use clap::Args;

use super::output::print_with;
use crate::error::Exit;

/// Print the completion script for a shell
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  veriff-archive completions bash > /etc/bash_completion.d/veriff-archive")]
pub(super) struct CompletionsArgs {
    /// Shell to complete for
    shell: clap_complete::Shell,
}

pub(super) fn run(args: &CompletionsArgs, mut command: clap::Command) -> anyhow::Result<Exit> {
    // The generator panics where it cannot write, so it writes into memory.
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut command, "veriff-archive", &mut text);
    print_with(|out| out.write_all(&text))?;
    Ok(Exit::Success)
}
