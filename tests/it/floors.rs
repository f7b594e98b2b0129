//! Floors: who may import whom, who may write, and which outside crate lives where.
//!
//! The floors are those of docs/architecture.md. A module that is not listed here fails the test: whoever adds one
//! decides where it belongs.

use std::collections::{BTreeMap, BTreeSet};
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

/// One source file: its path below src, its top module, its code without comments and without its tests, and the paths that
/// this code names.
struct Source {
    path: String,
    module: String,
    code: String,
    paths: Vec<Named>,
}

impl Source {
    fn of(path: &str, code: &str) -> Self {
        let module = path.split('/').next().unwrap().trim_end_matches(".rs").to_owned();
        Self { path: path.to_owned(), module, code: code.to_owned(), paths: paths(path, code) }
    }
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
    let text = std::fs::read_to_string(path).unwrap();
    let code: Vec<&str> = text
        .lines()
        .take_while(|line| *line != "#[cfg(test)]")
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect();
    Source::of(below.to_str().unwrap(), &code.join("\n"))
}

/// A path as code writes it, spelled out from the root of the crate.
#[derive(Debug, PartialEq, Eq)]
struct Named {
    /// `["store", "Store"]` for `crate::store::Store`, whatever the path began with.
    path: Vec<String>,
    /// What the path is called from here on, if it stands in a `use`.
    name: Option<String>,
}

/// Reads every path of a file that begins at the root, at its own module, above it, or at a module that it declares.
fn paths(path: &str, code: &str) -> Vec<Named> {
    let module = module_of(path);
    let declared: Vec<&str> = code.lines().filter_map(declared).collect();
    let mut found = Vec::new();
    for (at, _) in code.match_indices("::") {
        let before = &code[..at];
        let head = &before[before.trim_end_matches(is_of_name).len()..];
        let before = &before[..before.len() - head.len()];
        if before.ends_with([':', '.']) {
            continue;
        }
        let mut rest = &code[at + 2..];
        let mut base = match head {
            "crate" | "veriff_archive" => Vec::new(),
            "self" | "super" => module.clone(),
            head if declared.contains(&head) => [module.as_slice(), &[head.to_owned()]].concat(),
            _ => continue,
        };
        if head == "super" {
            base.pop();
            while let Some(above) = rest.strip_prefix("super::") {
                base.pop();
                rest = above;
            }
        }
        let line = &before[before.rfind('\n').map_or(0, |at| at + 1)..];
        spell_out(rest, &base, line.trim_end().ends_with("use"), &mut found);
    }
    found
}

/// Spells out what follows `::`: a name, more of a path, or a group of both.
fn spell_out(rest: &str, base: &[String], is_use: bool, found: &mut Vec<Named>) {
    if let Some(group) = rest.strip_prefix('{') {
        let mut depth = 0;
        let end = group.find(|c| {
            depth += i32::from(c == '{') - i32::from(c == '}');
            depth < 0
        });
        let group = &group[..end.unwrap_or(group.len())];
        let mut depth = 0;
        let members = group.split(|c| {
            depth += i32::from(c == '{') - i32::from(c == '}');
            c == ',' && depth == 0
        });
        for member in members.map(str::trim).filter(|member| !member.is_empty()) {
            spell_out(member, base, is_use, found);
        }
        return;
    }
    let name = &rest[..rest.find(|c| !is_of_name(c)).unwrap_or(rest.len())];
    let after = &rest[name.len()..];
    let path = match name {
        "" if after.starts_with('*') => [base, &["*".to_owned()]].concat(),
        "self" | "" => base.to_vec(),
        name => [base, &[name.to_owned()]].concat(),
    };
    match after.strip_prefix("::") {
        Some(more) if more.starts_with(|c| c == '{' || c == '*' || is_of_name(c)) => {
            spell_out(more, &path, is_use, found);
        }
        _ => {
            let called =
                after.trim_start().strip_prefix("as ").and_then(|more| more.split([';', ',', '}', '\n']).next());
            let name = called.map(|name| name.trim().to_owned()).or_else(|| path.last().cloned());
            found.push(Named { name: name.filter(|_| is_use), path });
        }
    }
}

fn is_of_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Returns the module that a line declares, if it has a file of its own.
fn declared(line: &str) -> Option<&str> {
    let line = line.trim_start().strip_suffix(';')?;
    let (before, name) = line.rsplit_once("mod ")?;
    (before.is_empty() || before.starts_with("pub")).then_some(name)
}

/// Returns the module that a file is: `["store", "dir"]` for `store/dir/mod.rs`.
fn module_of(path: &str) -> Vec<String> {
    let path = path.trim_end_matches(".rs");
    let path = path.strip_suffix("/mod").unwrap_or(path);
    path.split('/').filter(|name| !matches!(*name, "lib" | "main")).map(str::to_owned).collect()
}

/// Finds the top modules that a file imports.
fn imports(source: &Source) -> BTreeSet<String> {
    let tops = source.paths.iter().filter_map(|named| named.path.first());
    tops.filter(|name| is_module(name) && **name != source.module).cloned().collect()
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

/// Which file holds what a path names: through the re-exports of a folder's `mod.rs`, to the file that defines it.
fn home_of<'a>(path: &[String], sources: &'a BTreeMap<Vec<String>, Source>, depth: usize) -> Option<&'a Source> {
    let at = (0..=path.len()).rev().find(|end| sources.contains_key(&path[..*end]))?;
    let source = &sources[&path[..at]];
    let from = path.get(at).and_then(|name| source.paths.iter().find(|named| named.name.as_ref() == Some(name)));
    if let (Some(from), true) = (from, depth < 8) {
        return home_of(&[from.path.as_slice(), &path[at + 1..]].concat(), sources, depth + 1);
    }
    Some(source)
}

/// Files that import one another in a circle, each with those of them that it imports.
///
/// A folder's `mod.rs` is its front door: the files inside may use its words, so an arrow to the `mod.rs` of a folder that a
/// file is in does not count. Any other does, also that of a `mod.rs` into its folder.
fn circles(sources: Vec<Source>) -> BTreeMap<String, BTreeSet<String>> {
    let sources: BTreeMap<_, _> = sources.into_iter().map(|source| (module_of(&source.path), source)).collect();
    let mut arrows = BTreeMap::new();
    for (module, source) in &sources {
        let homes = source.paths.iter().filter_map(|named| home_of(&named.path, &sources, 0));
        let beside = homes.filter(|home| !module.starts_with(&module_of(&home.path))).map(|home| home.path.clone());
        arrows.insert(source.path.clone(), beside.collect::<BTreeSet<_>>());
    }
    loop {
        let before = arrows.len();
        let imported: BTreeSet<_> = arrows.values().flatten().cloned().collect();
        arrows.retain(|path, to| !to.is_empty() && imported.contains(path));
        let left: BTreeSet<_> = arrows.keys().cloned().collect();
        for to in arrows.values_mut() {
            to.retain(|path| left.contains(path));
        }
        if arrows.len() == before {
            return arrows;
        }
    }
}

#[test]
fn no_files_import_one_another_in_a_circle() {
    let circles = circles(sources());
    assert!(circles.is_empty(), "{circles:#?}");
}

#[test]
fn the_reader_finds_a_circle_through_a_re_export_and_none_at_the_front_door() {
    let circle = circles(vec![
        Source::of("a/mod.rs", "mod b;\nmod c;\npub use b::B;\nstruct Word;"),
        Source::of("a/b.rs", "use super::Word;\nfn f() { super::c::g() }"),
        Source::of("a/c.rs", "use crate::a::{self, B};"),
        Source::of("d.rs", "use crate::a::B;"),
    ]);
    assert_eq!(circle.into_keys().collect::<Vec<_>>(), ["a/b.rs", "a/c.rs"]);
}

/// The modules that only look, and the one file among them that writes: the event of an export.
const LOOKING: &[&str] = &["audit", "doctor", "export", "plan", "prove", "report"];
const EVENT_OF_AN_EXPORT: &str = "export/event.rs";

/// What nobody names who only looks: the traits that write, and what carries or opens one of them.
const WRITING: &[&str] = &[
    "ledger::Backlog",
    "ledger::Ledger",
    "ledger::RunLog",
    "ledger::SessionLog",
    "ledger::migrate",
    "ledger::open",
    "session::Archiver",
    "session::writer::ArchiveWriter",
    "store::Store",
];

/// Finds what a file names or calls that writes into the archive or the ledger.
fn writes(source: &Source) -> Vec<String> {
    let named = source.paths.iter().map(|named| named.path.join("::"));
    let named = named.filter(|path| {
        WRITING.iter().any(|word| match path.strip_suffix('*') {
            Some(all) => word.starts_with(all),
            None => path.strip_prefix(word).is_some_and(|rest| rest.is_empty() || rest.starts_with("::")),
        })
    });
    let calls = ["store.put(", "store().put(", ".start_upload(", ".extend_lock("];
    let calls = calls.iter().filter(|call| source.code.contains(**call)).map(|call| (*call).to_owned());
    named.chain(calls).collect()
}

#[test]
fn what_only_looks_cannot_name_what_writes() {
    let mut seen = 0;
    for source in sources().iter().filter(|source| LOOKING.contains(&source.module.as_str())) {
        let writes = writes(source);
        seen += 1;
        assert_eq!(writes.is_empty(), source.path != EVENT_OF_AN_EXPORT, "{} names {writes:?}", source.path);
    }
    assert!(seen > 50, "only {seen} files were read");
    let bad = |code: &str| !writes(&Source::of("audit/x.rs", code)).is_empty();
    assert!(bad("use crate::store::{ReadStore, Store as _};") && bad("fn f(store: &dyn crate::store::Store) {}"));
    assert!(bad("store.put(key)") && bad("crate::ledger::open(url)") && bad("use crate::ledger::Ledger as L;"));
    assert!(bad("use crate::store::*;"));
    assert!(!bad("use crate::store::{ReadStore, StoreError};") && !bad("crate::ledger::open_to_read(url)"));
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
    let source = |path: &str, code: &str| imports(&Source::of(path, code)).into_iter().collect::<Vec<_>>();
    assert_eq!(source("clock.rs", "use crate::model::MediaId;"), ["model"]);
    assert_eq!(source("clock.rs", "use crate::{model::{MediaId, key}, store};"), ["model", "store"]);
    assert_eq!(source("store/dir.rs", "let x = super::super::ledger::open();"), ["ledger"]);
    assert_eq!(source("store/dir.rs", "use super::policy;"), Vec::<String>::new());
    assert_eq!(source("store/mod.rs", "use super::ledger;"), ["ledger"]);
    assert!(!may_import("store", "ledger") && !may_import("session", "run") && may_import("run", "session"));
    assert!(!may_import("prove", "export") && may_import("export", "prove") && !may_import("model", "store"));
}
