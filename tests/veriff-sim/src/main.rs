//! Serves a simulated Veriff until it is interrupted, and prints what to type to use it.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use veriff_sim::{Fault, Simulator, World, some_faults};

/// A local simulator of the part of Veriff's API that an archiver meets.
#[derive(Debug, Parser)]
#[command(version)]
struct Options {
    /// Address to listen on; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:8088")]
    listen: String,
    /// Number of sessions to make up.
    #[arg(long, default_value_t = 25)]
    sessions: usize,
    /// Seed of the made-up sessions; the same seed makes the same ones.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// API key of the first integration.
    #[arg(long)]
    api_key: Option<String>,
    /// Shared secret of the first integration.
    #[arg(long)]
    secret: Option<String>,
    /// Faults: "none", "some" (each passing fault once), or a JSON file.
    #[arg(long, default_value = "none")]
    faults: String,
    /// Writes the session ids here, one a line.
    #[arg(long, value_name = "PATH")]
    ids_out: Option<PathBuf>,
    /// Serves the world in this JSON file instead of a made-up one.
    #[arg(long, value_name = "FILE")]
    world: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Options::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("veriff-sim: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: Options) -> io::Result<()> {
    let world = build_world(&options)?;
    let ids = world.session_ids();
    if let Some(path) = &options.ids_out {
        let mut lines = ids.join("\n");
        lines.push('\n');
        std::fs::write(path, lines).map_err(|e| at(path, &e))?;
    }
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let simulator = Simulator::start_on(&options.listen, world).await?;
    let mut out = io::stdout();
    writeln!(out, "export VERIFF_BASE_URL={}", simulator.base_url())?;
    writeln!(out, "export VERIFF_API_KEY={}", simulator.api_key())?;
    writeln!(out, "export VERIFF_SHARED_SECRET={}", simulator.secret())?;
    writeln!(out, "# {} sessions; stop with Ctrl-C", ids.len())?;
    out.flush()?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    let stats = serde_json::to_string(&simulator.stats())?;
    writeln!(out, "# {stats}")
}

fn build_world(options: &Options) -> io::Result<World> {
    let mut world = match &options.world {
        Some(path) => read_json(path)?,
        None => World::builder(options.seed).sessions(options.sessions).build(),
    };
    if let Some(first) = world.integrations.first_mut() {
        if let Some(key) = &options.api_key {
            first.api_key.clone_from(key);
        }
        if let Some(secret) = &options.secret {
            first.secrets = vec![secret.clone()];
        }
    }
    let faults: Vec<Fault> = match options.faults.as_str() {
        "none" => Vec::new(),
        "some" => some_faults(&world),
        file => read_json(Path::new(file))?,
    };
    world.faults.extend(faults);
    Ok(world)
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> io::Result<T> {
    let text = std::fs::read(path).map_err(|e| at(path, &e))?;
    serde_json::from_slice(&text).map_err(|e| at(path, &e.into()))
}

fn at(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
