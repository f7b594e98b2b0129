//! A browser that looks at pages, and the accessibility checker that runs in it; both come from packages.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;
use veriff_archive::model::digest::Sha256Digest;

use super::python;

const INSTALL: &str = include_str!("../../python/install_browser.py");

/// Returns the folder of the browser; installs it on first use.
fn browser() -> &'static Path {
    static BROWSER: OnceLock<PathBuf> = OnceLock::new();
    BROWSER.get_or_init(|| {
        let name = format!("browser-{}", Sha256Digest::of(INSTALL.as_bytes()).short(12));
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(&name);
        python::once(&name, || {
            python::run(Command::new(python::programs().join("python")).arg(script("install_browser.py")).arg(&folder));
        });
        folder
    })
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python").join(name)
}

/// Opens pages on a desktop and on a phone, light and dark, and returns what was seen, one value a look. Screenshots are
/// left in the folder.
pub(crate) fn look_at(pages: &[PathBuf], screenshots: &Path) -> Vec<Value> {
    let folder = browser();
    let output = Command::new(python::programs().join("python"))
        .arg(script("browser.py"))
        .arg("--browser")
        .arg(folder.join("chromium"))
        .arg("--libraries")
        .arg(folder)
        .arg("--axe")
        .arg(folder.join("axe.min.js"))
        .arg("--out")
        .arg(screenshots)
        .args(pages)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let looks: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    // Four looks a page; fewer if the browser did not start or went away.
    assert_eq!(looks.len(), 4 * pages.len(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    looks
}
