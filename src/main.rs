//! The binary: runs the command line and turns its outcome into an exit code.

use std::process::ExitCode;

use veriff_archive::cli;
use veriff_archive::error::Exit;

/// About a tenth of a run's CPU time was spent in the system's allocator; see docs/decisions/0011-one-working-thread.md.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // The text of a panic may hold anything that was being worked on, a person's data included; its place never does.
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map_or_else(String::new, |at| format!(" at {}:{}", at.file(), at.line()));
        eprintln!("internal error{place}; this is a defect, please report it with the version and this line");
    }));
    let exit = std::panic::catch_unwind(cli::main).unwrap_or(Exit::Internal);
    ExitCode::from(exit.code())
}
