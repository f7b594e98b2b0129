//! A Python environment below the target folder, with the packages of `tests/requirements.txt`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use veriff_archive::model::digest::Sha256Digest;

const REQUIREMENTS: &str = include_str!("../../requirements.txt");

/// Returns the environment's folder of programs; makes the environment on first use.
///
/// It is named by what is in it, and made under a lock, because several test processes may want it at once.
pub(crate) fn programs() -> &'static Path {
    static PROGRAMS: OnceLock<PathBuf> = OnceLock::new();
    PROGRAMS.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        fs::create_dir_all(folder).expect("the target folder can be written");
        let name = format!("python-{}", Sha256Digest::of(REQUIREMENTS.as_bytes()).short(12));
        let lock = File::create(folder.join(format!("{name}.lock"))).expect("a lock file can be made");
        lock.lock().expect("the lock file can be locked");
        let environment = folder.join(name);
        let complete = environment.join("complete");
        if !complete.exists() {
            install(&environment);
            fs::write(&complete, REQUIREMENTS).expect("the environment can be stamped");
        }
        environment.join("bin")
    })
}

fn install(environment: &Path) {
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(environment));
    let requirements = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/requirements.txt");
    run(Command::new(environment.join("bin/python"))
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"])
        .arg(requirements));
}

fn run(command: &mut Command) {
    let output =
        command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?} cannot be run: {error}"));
    assert!(
        output.status.success(),
        "{command:?} failed: {}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
