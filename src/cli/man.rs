//! `man`: manual pages, one a command.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;

use super::output::print_with;
use crate::error::Exit;

/// Print the manual page, or write the manual pages of all commands to a directory
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  veriff-archive man | man -l -\n  veriff-archive man --out /usr/local/share/man/man1"
)]
pub(super) struct ManArgs {
    /// Directory to write all pages to; created if it does not exist
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub(super) fn run(args: &ManArgs, command: clap::Command) -> anyhow::Result<Exit> {
    match &args.out {
        None => {
            let page = clap_mangen::Man::new(command);
            print_with(|mut out| page.render(&mut out))?;
        }
        Some(directory) => {
            let place = || format!("cannot write manual pages into {}", directory.display());
            std::fs::create_dir_all(directory).with_context(place)?;
            clap_mangen::generate_to(command, directory).with_context(place)?;
        }
    }
    Ok(Exit::Success)
}
