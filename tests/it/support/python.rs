//! A Python environment below the target folder, with the packages of `tests/requirements.txt`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use veriff_archive::model::digest::Sha256Digest;

const REQUIREMENTS: &str = include_str!("../../requirements.txt");

/// Returns the environment's folder of programs; makes the environment on first use.
///
/// It is named by what is in it.
pub(crate) fn programs() -> &'static Path {
    static PROGRAMS: OnceLock<PathBuf> = OnceLock::new();
    PROGRAMS.get_or_init(|| {
        let name = format!("python-{}", Sha256Digest::of(REQUIREMENTS.as_bytes()).short(12));
        let environment = Path::new(env!("CARGO_TARGET_TMPDIR")).join(&name);
        once(&name, || install(&environment));
        environment.join("bin")
    })
}

/// Makes a folder below the target folder, unless that was done before; one process at a time.
pub(super) fn once(name: &str, make: impl FnOnce()) {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    fs::create_dir_all(folder).expect("the target folder can be written");
    let lock = File::create(folder.join(format!("{name}.lock"))).expect("a lock file can be made");
    lock.lock().expect("the lock file can be locked");
    let complete = folder.join(name).join("complete");
    if !complete.exists() {
        make();
        fs::write(&complete, name).expect("the folder can be stamped");
    }
}

fn install(environment: &Path) {
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(environment));
    let requirements = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/requirements.txt");
    run(Command::new(environment.join("bin/python"))
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"])
        .arg(requirements));
}

pub(super) fn run(command: &mut Command) {
    let output =
        command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?} cannot be run: {error}"));
    assert!(
        output.status.success(),
        "{command:?} failed: {}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
