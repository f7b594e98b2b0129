//! Floors: who may import whom, and which outside crate lives where.
//!
//! The floors are those of docs/architecture.md. A module that is not listed here fails the test: whoever adds one
//! decides where it belongs.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Words and tools; they may know one another and nothing else.
const GROUND: &[&str] = &["aws", "chance", "clock", "error", "metrics", "model", "retry", "secret", "stop"];

/// The four seams to the outside, blind to one another.
const EDGE: &[&str] = &["ledger", "source", "store", "veriff"];

/// The flow, in tiers from its end to its beginning: a tier may import those behind it, never one before it, and the
/// names of one tier are blind to one another.
const FLOW: &[&[&str]] =
    &[&["doctor", "export", "plan", "prove", "rebuild", "report"], &["audit"], &["run"], &["session"]];

/// What one name of a tier may know of another: a bag holds the proofs of its sessions.
const BESIDE: &[(&str, &str)] = &[("export", "prove")];

/// The shell; it sees everything but what is before it.
const SHELL: &[&str] = &["cli", "config", "telemetry"];

/// Outside crates that have one home, so that replacing one touches one place.
const HOMES: &[(&str, &[&str])] = &[
    ("anyhow", &["cli/", "main.rs"]),
    ("aws_config", &["source/sqs/", "store/s3/"]),
    ("aws_credential_types", &["aws.rs", "source/sqs/", "store/s3/"]),
    ("aws_runtime", &["store/s3/"]),
    ("aws_sdk_s3", &["store/s3/"]),
    ("aws_sdk_sqs", &["source/sqs/"]),
    ("aws_smithy_runtime_api", &["aws.rs", "store/s3/"]),
    ("aws_smithy_types", &["aws.rs", "store/s3/"]),
    ("clap", &["cli/"]),
    ("clap_complete", &["cli/"]),
    ("clap_mangen", &["cli/"]),
    ("csv", &["audit/"]),
    ("ed25519_dalek", &["model/"]),
    ("flate2", &["audit/", "export/", "model/", "run/record/", "veriff/"]),
    ("globset", &["model/"]),
    ("hmac", &["veriff/"]),
    ("http_body", &["store/s3/"]),
    ("http_body_util", &["telemetry/"]),
    ("hyper", &["telemetry/"]),
    ("hyper_util", &["telemetry/"]),
    ("indicatif", &["cli/"]),
    ("jiff", &["clock.rs", "model/"]),
    ("mimalloc", &["main.rs"]),
    ("minijinja", &["export/", "report/"]),
    ("opentelemetry_proto", &["telemetry/"]),
    ("prometheus_client", &["telemetry/"]),
    ("prost", &["telemetry/"]),
    ("rand", &["chance.rs"]),
    ("reqwest", &["telemetry/", "veriff/"]),
    ("rustix", &["config/", "export/", "store/"]),
    ("serde_json_canonicalizer", &["audit/", "run/record/", "session/"]),
    ("sqlx", &["ledger/"]),
    ("strsim", &["config/"]),
    ("toml", &["config/"]),
    ("tracing_subscriber", &["telemetry/"]),
    ("zip", &["export/"]),
];

/// One source file: its path below src, its top module, its code without comments and without its tests.
struct Source {
    path: String,
    module: String,
    code: String,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut open = vec![root.clone()];
    let mut found = Vec::new();
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|it| it == "rs") {
            found.push(read(&root, &path));
        }
    }
    found
}

fn read(root: &Path, path: &Path) -> Source {
    let below: PathBuf = path.strip_prefix(root).unwrap().into();
    let below = below.to_str().unwrap().to_owned();
    let first = below.split('/').next().unwrap();
    let text = std::fs::read_to_string(path).unwrap();
    let code: Vec<&str> = text
        .lines()
        .take_while(|line| *line != "#[cfg(test)]")
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect();
    Source { module: first.trim_end_matches(".rs").to_owned(), path: below, code: code.join("\n") }
}

/// Finds the top modules that a file imports: `crate::a`, `crate::{a, b::c}`, and `super` as often as leads to the root.
fn imports(source: &Source) -> BTreeSet<String> {
    let inside = source.path.trim_end_matches("/mod.rs").matches('/').count() + 1;
    let to_root = ["super::".repeat(inside), "crate::".to_owned(), "veriff_archive::".to_owned()];
    let mut found = BTreeSet::new();
    for prefix in &to_root {
        for (at, _) in source.code.match_indices(prefix.as_str()) {
            let before = source.code[..at].chars().next_back();
            // `super::super::x` also ends in `super::x`.
            if before.is_some_and(|c| c == ':' || c == '_' || c.is_alphanumeric()) {
                continue;
            }
            found.extend(names(&source.code[at + prefix.len()..]));
        }
    }
    found.retain(|name| is_module(name));
    found
}

/// Reads the first names of a path or of a group of paths.
fn names(rest: &str) -> Vec<String> {
    let name = |text: &str| -> String {
        let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
        text[..end].to_owned()
    };
    let Some(group) = rest.strip_prefix('{') else {
        return vec![name(rest)];
    };
    let mut depth = 0;
    let mut start = true;
    let mut found = Vec::new();
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => start = true,
            _ if start && !c.is_whitespace() => {
                found.push(name(&group[at..]));
                start = false;
            }
            _ => {}
        }
    }
    found
}

fn is_module(name: &str) -> bool {
    floor(name).is_some()
}

/// Returns the floor of a module, from the ground up, and its place on it: the same for all that are blind to one another.
fn floor(name: &str) -> Option<(usize, usize)> {
    let tier = |place: usize| FLOW.len() - place;
    None.or_else(|| GROUND.contains(&name).then_some((0, 0)))
        .or_else(|| EDGE.contains(&name).then_some((1, 0)))
        .or_else(|| FLOW.iter().position(|names| names.contains(&name)).map(|place| (2, tier(place))))
        .or_else(|| SHELL.iter().position(|module| *module == name).map(|place| (3, SHELL.len() - place)))
}

/// Reports whether one module may import another.
fn may_import(from: &str, to: &str) -> bool {
    let (Some(above), Some(below)) = (floor(from), floor(to)) else {
        return false;
    };
    // The ground is one tier whose names may know one another.
    from == to || below < above || (above.0 == 0 && below.0 == 0) || BESIDE.contains(&(from, to))
}

#[test]
fn every_module_has_a_floor() {
    for source in sources() {
        if !matches!(source.module.as_str(), "main" | "lib") {
            assert!(is_module(&source.module), "{} has no floor in tests/it/floors.rs", source.module);
        }
    }
}

#[test]
fn imports_point_down() {
    let mut seen = 0;
    for source in sources() {
        for import in imports(&source) {
            seen += 1;
            let allowed = match source.module.as_str() {
                "lib" => true,
                "main" => matches!(import.as_str(), "cli" | "error"),
                module => may_import(module, &import),
            };
            assert!(allowed, "{} imports {import}", source.path);
        }
    }
    assert!(seen > 50, "only {seen} imports were found: the reader is blind");
}

#[test]
fn each_outside_crate_has_one_home() {
    for source in sources() {
        for (name, homes) in HOMES {
            let uses = source.code.match_indices(&format!("{name}::")).any(|(at, _)| {
                let before = source.code[..at].chars().next_back();
                !before.is_some_and(|c| c == '_' || c == ':' || c.is_alphanumeric())
            });
            let at_home = homes.iter().any(|home| source.path.starts_with(home));
            assert!(!uses || at_home, "{} uses {name}, whose home is {homes:?}", source.path);
        }
    }
}

#[test]
fn below_the_shell_only_a_run_spawns_tasks() {
    for source in sources() {
        let spawns = ["tokio::spawn(", "JoinSet::", "TaskTracker::"].iter().any(|word| source.code.contains(word));
        let may = source.module == "run" || SHELL.contains(&source.module.as_str());
        assert!(!spawns || may, "{} spawns a task", source.path);
    }
}

#[test]
fn which_version_of_a_key_is_the_archives_is_decided_in_one_place() {
    // Beside the store itself a delete marker is named only where a report of a listing is read.
    let homes = ["store/mod.rs", "store/versions.rs", "store/s3/list.rs", "store/dir/list.rs"];
    let homes = homes.into_iter().chain(["audit/reconcile/inventory.rs"]).collect::<Vec<_>>();
    for source in sources() {
        let decides = ["is_delete_marker", "oldest version"].iter().any(|word| source.code.contains(word));
        assert!(!decides || homes.contains(&source.path.as_str()), "{} looks for delete markers", source.path);
    }
}

#[test]
fn the_reader_finds_paths_in_every_form() {
    let source = |path: &str, code: &str| {
        let source = Source { path: path.to_owned(), module: String::new(), code: code.to_owned() };
        imports(&source).into_iter().collect::<Vec<_>>()
    };
    assert_eq!(source("clock.rs", "use crate::model::MediaId;"), ["model"]);
    assert_eq!(source("clock.rs", "use crate::{model::{MediaId, key}, store};"), ["model", "store"]);
    assert_eq!(source("store/dir.rs", "let x = super::super::ledger::open();"), ["ledger"]);
    assert_eq!(source("store/dir.rs", "use super::policy;"), Vec::<String>::new());
    assert_eq!(source("store/mod.rs", "use super::ledger;"), ["ledger"]);
    assert!(!may_import("store", "ledger") && !may_import("session", "run") && may_import("run", "session"));
    assert!(!may_import("prove", "export") && may_import("export", "prove") && !may_import("model", "store"));
}
