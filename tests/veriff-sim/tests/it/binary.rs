//! The binary, as a user starts it.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Command, Stdio};

use crate::http::Outcome;

#[test]
fn the_binary_prints_what_to_export_and_ends_when_told() -> Outcome {
    let ids = std::env::temp_dir().join(format!("veriff-sim-ids-{}", std::process::id()));
    let mut child = Command::new(env!("CARGO_BIN_EXE_veriff-sim"))
        .args(["--listen", "127.0.0.1:0", "--sessions", "20"])
        .args(["--faults", "some", "--secret", "hush", "--ids-out"])
        .arg(&ids)
        .stdout(Stdio::piped())
        .spawn()?;
    let mut out = BufReader::new(child.stdout.take().ok_or("no output")?);
    let mut lines = Vec::new();
    for _ in 0..4 {
        let mut line = String::new();
        out.read_line(&mut line)?;
        lines.push(line);
    }
    assert!(lines[0].starts_with("export VERIFF_BASE_URL=http://127.0.0.1:"));
    assert!(lines[1].starts_with("export VERIFF_API_KEY="));
    assert_eq!(lines[2], "export VERIFF_SHARED_SECRET=hush\n");
    let listed = std::fs::read_to_string(&ids)?;
    std::fs::remove_file(&ids)?;
    assert_eq!(listed.lines().count(), 20);
    Command::new("kill").arg(child.id().to_string()).status()?;
    let mut rest = String::new();
    out.read_to_string(&mut rest)?;
    assert!(child.wait()?.success());
    assert!(rest.contains("\"requests\":0"), "{rest}");
    Ok(())
}
