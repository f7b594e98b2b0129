//! A first local archive in one command: `cargo run --release --example demo [DIRECTORY]`.
//!
//! Starts the simulator with 25 sessions (several attempts, all kinds of media, a few faults, one session that Veriff no
//! longer has), archives them into a directory with SQLite as the ledger, and shows what a manifest and a sidecar say.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use veriff_archive::cli;
use veriff_sim::{Effect, Endpoint, Fault, Presence, RetryAfter, Simulator, World};

/// How many sessions there are.
const SESSIONS: usize = 25;

fn main() -> ExitCode {
    match demo() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the demo failed: {error}");
            ExitCode::FAILURE
        }
    }
}

fn demo() -> io::Result<()> {
    let directory = match std::env::args_os().nth(1) {
        Some(directory) => PathBuf::from(directory),
        None => std::env::temp_dir().join(format!("veriff-archive-demo-{}", std::process::id())),
    };
    fs::create_dir_all(&directory)?;
    let directory = directory.canonicalize()?;

    let simulator = Simulator::start_on_thread(world())?;
    let ids: Vec<String> = simulator.world().session_ids();
    fs::write(directory.join("sessions.txt"), ids.join("\n") + "\n")?;
    fs::write(directory.join("api-key"), simulator.api_key())?;
    fs::write(directory.join("shared-secret"), simulator.secret())?;
    fs::write(directory.join("archive.toml"), configuration(&directory, &simulator.base_url()))?;

    println!("The simulator has {SESSIONS} sessions. Archiving them into {}:\n", directory.display());
    let run =
        ["run", "--sessions", &path(&directory, "sessions.txt"), "--results", &path(&directory, "results.ndjson")];
    // One of the sessions is absent upstream, so a person should look: exit code 3.
    expect(run_program(&directory, &run), 3)?;

    println!("\nThe same command again fetches nothing:\n");
    let before = simulator.count(Endpoint::Media);
    expect(run_program(&directory, &run), 3)?;
    let fetched = simulator.count(Endpoint::Media) - before;
    if fetched > 0 {
        return Err(io::Error::other(format!("the second run downloaded {fetched} media items")));
    }

    let manifest = find(&directory.join("store/sessions"), "manifest/0001.json")?;
    let sidecar = find(&directory.join("store/sessions"), ".jpg.meta.json")?;
    show("One manifest (its listings cut short)", &manifest)?;
    show("One sidecar", &sidecar)?;
    println!("\nEverything is below {}. What to type next:", directory.display());
    let config = path(&directory, "archive.toml");
    println!("  cargo run --release -- --config {config} status");
    println!("  cargo run --release -- --config {config} audit fixity --mode read");
    println!("  cargo run --release -- --config {config} report --html report.html");
    println!("  cargo run --release -- schema manifest");
    println!("  less README.md      # the first run against Veriff and a real bucket");
    Ok(())
}

/// Makes up the sessions, and what goes wrong on the way to them.
fn world() -> World {
    let mut world = World::builder(7).sessions(SESSIONS).build();
    let ids = world.session_ids();
    if let Some(last) = ids.last() {
        world.set_presence(last, Presence::Archived);
    }
    world
        .fault(Fault::once(Effect::too_many(Some(RetryAfter::Seconds(1)))).on(Endpoint::Attempts))
        .fault(Fault::times(2, Effect::status(503)).on(Endpoint::Media))
        .fault(Fault::once(Effect::Truncate { after: 1000 }).on(Endpoint::Media))
        .fault(Fault::once(Effect::Html { status: 200 }).on(Endpoint::Media))
}

fn configuration(directory: &Path, base_url: &str) -> String {
    let path = |name: &str| path(directory, name);
    format!(
        "[integrations.default]\nbase_url = \"{base_url}\"\nallow_http = true\napi_key = {{ file = \"{}\" }}\n\
         shared_secret = {{ file = \"{}\" }}\nmax_requests_per_second = 200.0\n\n[store]\nurl = \"file://{}\"\n\n\
         [ledger]\nurl = \"sqlite://{}\"\n",
        path("api-key"),
        path("shared-secret"),
        path("store"),
        path("ledger.db"),
    )
}

fn run_program(directory: &Path, words: &[&str]) -> u8 {
    let config = path(directory, "archive.toml");
    let fixed = ["veriff-archive", "--config", &config, "--output", "text", "--log-level", "warn"];
    let typed: Vec<OsString> = fixed.iter().chain(words).map(OsString::from).collect();
    cli::main_with(&typed).code()
}

fn expect(exit_code: u8, expected: u8) -> io::Result<()> {
    if exit_code == expected {
        Ok(())
    } else {
        Err(io::Error::other(format!("the run ended with exit code {exit_code}")))
    }
}

fn path(directory: &Path, name: &str) -> String {
    directory.join(name).display().to_string()
}

/// Finds the first file below a directory whose path ends with something.
fn find(directory: &Path, ending: &str) -> io::Result<PathBuf> {
    let mut entries: Vec<PathBuf> =
        fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    entries.sort();
    for entry in entries {
        if entry.is_dir() {
            if let Ok(found) = find(&entry, ending) {
                return Ok(found);
            }
        } else if entry.to_string_lossy().ends_with(ending) {
            return Ok(entry);
        }
    }
    Err(io::Error::new(io::ErrorKind::NotFound, format!("nothing ends with {ending}")))
}

fn show(title: &str, path: &Path) -> io::Result<()> {
    let mut document: serde_json::Value = serde_json::from_slice(&fs::read(path)?)?;
    if let Some(listings) = document.get_mut("listings").and_then(serde_json::Value::as_array_mut) {
        listings.truncate(1);
        for listing in listings {
            listing["body"] = "…".into();
        }
    }
    println!("\n{title}, {}:\n{}", path.display(), serde_json::to_string_pretty(&document)?);
    Ok(())
}
