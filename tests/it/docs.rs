//! Docs: what the documentation says must exist.
//!
//! The runbook explains every code, the statement of each promise names tests that exist, links lead somewhere, every
//! field, key and exit code is documented, commands that are shown can be typed, and words to avoid are avoided.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use clap::{CommandFactory as _, Parser as _};
use serde_json::Value;
use veriff_archive::audit::FindingCode;
use veriff_archive::cli::Cli;
use veriff_archive::config::{Config, Environment, Sources};
use veriff_archive::error::{Code, Exit};
use veriff_archive::metrics;
use veriff_archive::model::sidecar::anomaly;

/// The codes of anomalies, which a sidecar may name.
const ANOMALIES: &[&str] =
    &[anomaly::RECONSTRUCTED, anomaly::SIZE, anomaly::TYPE, anomaly::MAGIC, anomaly::SIGNATURE, anomaly::CONFLICT];

/// The promises that this version makes.
const PROMISES: usize = 10;

/// The pages for people outside `docs/`.
const PAGES: [&str; 4] = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"];

/// The words that `docs/glossary.md` asks to avoid, as far as they are wrong everywhere.
const AVOIDED: &str = " tell tells telling told stand stands standing stood lie_over lies_over go_on_with goes_on_with \
                       going_on_with gone_on_with hold_against holds_against held_against give_back gives_back \
                       given_back ";

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Finds all files below a folder that end with something.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut open = vec![folder.to_owned()];
    let mut found = Vec::new();
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.to_string_lossy().ends_with(ending) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Returns the headings of one level, each with the text below it up to the next heading of that level or a higher one.
fn sections(text: &str, level: usize) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    let mut is_code = false;
    let mut is_inside = false;
    for line in text.lines() {
        is_code ^= line.starts_with("```");
        let depth = line.chars().take_while(|c| *c == '#').count();
        if !is_code && depth > 0 && depth <= level {
            is_inside = depth == level;
            if is_inside {
                found.push((line.trim_start_matches('#').trim().to_owned(), String::new()));
            }
        } else if is_inside && let Some((_, body)) = found.last_mut() {
            body.push_str(line);
            body.push('\n');
        }
    }
    found
}

/// Returns what stands between back ticks.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// Names every test of the sources.
fn tests_of_the_sources() -> BTreeSet<String> {
    let folders = ["src", "tests/it", "tests/veriff-sim"].map(|folder| root().join(folder));
    let mut found = BTreeSet::new();
    for path in folders.iter().flat_map(|folder| files(folder, ".rs")) {
        for line in std::fs::read_to_string(path).unwrap().lines() {
            let line = line.trim_start();
            let name = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ");
            if let Some(name) = name.and_then(|rest| rest.split(['(', '<']).next()) {
                found.insert(name.to_owned());
            }
        }
    }
    found
}

#[test]
fn the_runbook_explains_every_code_and_no_other() {
    let runbook = read("docs/runbook.md");
    let codes = runbook.split("\n## Codes\n").nth(1).unwrap();
    let codes = codes.split("\n## ").next().unwrap();
    let explained: BTreeMap<String, String> = sections(codes, 3).into_iter().collect();
    for code in Code::ALL {
        let body =
            explained.get(&format!("`{code}`")).unwrap_or_else(|| panic!("docs/runbook.md has no heading for {code}"));
        let retryable = if code.is_retryable() { "Retryable: yes" } else { "Retryable: no" };
        assert!(body.contains(retryable), "{code} must say {retryable}");
        for part in ["Means", "Cause", "Repair"] {
            assert!(body.contains(&format!("**{part}.**")), "{code} has no {part}");
        }
    }
    for heading in explained.keys() {
        assert!(
            Code::parse(heading.trim_matches('`')).is_some(),
            "docs/runbook.md explains {heading}, which is no code"
        );
    }
}

#[test]
fn the_runbook_explains_every_anomaly_and_no_other() {
    let runbook = read("docs/runbook.md");
    let anomalies = runbook.split("\n## Anomalies\n").nth(1).unwrap();
    let anomalies = anomalies.split("\n## ").next().unwrap();
    let explained: BTreeSet<&str> =
        anomalies.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    assert_eq!(explained, ANOMALIES.iter().copied().collect());
}

#[test]
fn the_runbook_explains_every_finding_and_no_other() {
    let runbook = read("docs/runbook.md");
    let findings = runbook.split("\n## Findings\n").nth(1).unwrap();
    let findings = findings.split("\n## ").next().unwrap();
    let explained: Vec<&str> =
        findings.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    let known: Vec<&str> = FindingCode::ALL.iter().map(|code| code.as_str()).collect();
    assert_eq!(explained, known, "in the same order");
}

#[test]
fn every_promise_names_tests_that_exist() {
    let known = tests_of_the_sources();
    let semantics = read("docs/semantics.md");
    let promises: BTreeMap<String, String> = sections(&semantics, 2).into_iter().collect();
    let mut named = 0;
    for number in 1..=PROMISES {
        let (heading, body) = promises
            .iter()
            .find(|(heading, _)| heading.starts_with(&format!("P{number} ")))
            .unwrap_or_else(|| panic!("docs/semantics.md has no heading P{number}"));
        let tests = body.split("\n**Tests.**").nth(1).unwrap_or_else(|| panic!("{heading} names no tests"));
        let tests = quoted(tests.split("\n\n").next().unwrap());
        assert!(!tests.is_empty(), "{heading} names no tests");
        for test in tests {
            assert!(known.contains(test), "{heading} names {test}, which does not exist");
            named += 1;
        }
    }
    assert!(named > PROMISES, "only {named} tests are named: the reader is blind");
}

/// Names the places of a document that a link can lead to.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = (1..=4).flat_map(|level| sections(text, level)).map(|(heading, _)| heading.to_lowercase());
    let slug = |heading: String| {
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(slug).collect()
}

#[test]
fn every_link_between_documents_leads_somewhere() {
    let mut documents = files(&root().join("docs"), ".md");
    documents.extend(PAGES.map(|name| root().join(name)));
    let mut followed = 0;
    for document in documents {
        let text = std::fs::read_to_string(&document).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.starts_with("http") {
                continue;
            }
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() { document.clone() } else { document.parent().unwrap().join(path) };
            assert!(target.exists(), "{} links to {link}, which is not there", document.display());
            if !anchor.is_empty() {
                let found = anchors(&std::fs::read_to_string(&target).unwrap());
                assert!(found.contains(anchor), "{} links to {link}, which has no such heading", document.display());
            }
            followed += 1;
        }
    }
    assert!(followed > 30, "only {followed} links were found: the reader is blind");
}

#[test]
fn the_readme_tells_every_key_of_the_configuration() {
    let readme = read("README.md");
    let told: BTreeSet<&str> =
        readme.lines().filter(|line| line.starts_with("| `")).filter_map(|line| line.split('`').nth(1)).collect();
    let reference: toml::Table = toml::from_str(&read("config/reference.toml")).unwrap();
    let mut keys = Vec::new();
    for (section, value) in &reference {
        for (key, value) in value.as_table().unwrap() {
            match value {
                // Keys of named sections are the same for every name.
                toml::Value::Table(inner) if section == "integrations" => {
                    keys.extend(inner.keys().map(|inner| format!("integrations.NAME.{inner}")));
                }
                _ => keys.push(format!("{section}.{key}")),
            }
        }
    }
    assert!(keys.len() > 25, "{keys:?}");
    for key in keys {
        assert!(told.contains(key.as_str()), "README.md does not tell of {key}");
    }
}

/// Returns the blocks of code of one language.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut is_inside = false;
    for line in text.lines() {
        if let Some(opened) = line.strip_prefix("```") {
            is_inside = !is_inside && opened == language;
            if is_inside {
                found.push(String::new());
            }
        } else if is_inside && let Some(block) = found.last_mut() {
            block.push_str(line);
            block.push('\n');
        }
    }
    found
}

#[test]
fn every_command_that_is_shown_is_understood() {
    let mut documents = files(&root().join("docs"), ".md");
    documents.extend(["README.md", "config/README.md", "tests/veriff-sim/README.md"].map(|name| root().join(name)));
    let mut typed = 0;
    for document in documents {
        let text = std::fs::read_to_string(&document).unwrap();
        for line in blocks(&text, "sh").iter().flat_map(|block| block.lines()) {
            let Some(at) =
                line.find("veriff-archive ").filter(|at| line[..*at].is_empty() || line[..*at].ends_with("GiB "))
            else {
                continue;
            };
            let words = line[at..].split(" #").next().unwrap().split(" > ").next().unwrap().split_whitespace();
            if let Err(error) = Cli::try_parse_from(words) {
                panic!("{}: {line}\n{error}", document.display());
            }
            typed += 1;
        }
    }
    assert!(typed > 15, "only {typed} commands were found: the reader is blind");
}

#[test]
fn the_configuration_in_the_readme_is_valid() {
    let blocks = blocks(&read("README.md"), "toml");
    assert!(!blocks.is_empty());
    for block in blocks {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("archive.toml");
        std::fs::write(&path, &block).unwrap();
        let config = Config::load(Sources { file: Some(&path), environment: &Environment::default(), store_url: None });
        assert!(config.is_ok(), "{config:?}");
    }
}

#[test]
fn the_formats_tell_of_every_field() {
    fn names(document: &Value, found: &mut BTreeSet<String>) {
        match document {
            Value::Object(fields) => {
                for (name, part) in fields {
                    found.insert(name.clone());
                    names(part, found);
                }
            }
            Value::Array(items) => items.iter().for_each(|item| names(item, found)),
            _ => {}
        }
    }
    let formats = read("docs/formats.md");
    let told: BTreeSet<&str> = quoted(&formats).into_iter().flat_map(|name| name.split(['.', '[', ']'])).collect();
    for path in files(&root().join("tests/fixtures/formats"), ".json") {
        let mut fields = BTreeSet::new();
        names(&serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap(), &mut fields);
        for field in fields {
            assert!(told.contains(field.as_str()), "docs/formats.md does not tell of {field}");
        }
    }
}

#[test]
fn the_list_of_metrics_is_told_as_it_is() {
    let document = read("docs/metrics.md");
    let told: Vec<&str> = document.lines().filter(|line| line.starts_with("| `veriff_archive_")).collect();
    let in_ticks = |text: &&str| format!("`{text}`");
    let or_none = |text: String| if text.is_empty() { "–".to_owned() } else { text };
    let listed = metrics::ALL.iter().map(|metric| {
        let labels = or_none(metric.labels.iter().map(in_ticks).collect::<Vec<_>>().join(", "));
        let unit = or_none(Some(metric.unit).filter(|unit| !unit.is_empty()).iter().map(in_ticks).collect());
        let metrics::Metric { name, kind, otlp, meaning, .. } = metric;
        format!("| `{name}` | {kind} | {labels} | {meaning} | `{otlp}` | {unit} |")
    });
    assert_eq!(told, listed.collect::<Vec<_>>());
}

#[test]
fn metrics_that_are_mentioned_exist() {
    let known: BTreeSet<&str> = metrics::ALL.iter().map(|metric| metric.name).collect();
    let document = read("docs/metrics.md");
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    for name in document.split(|c| !word(c)).filter(|name| name.starts_with("veriff_archive_")) {
        // A prefix of several ends with an underscore.
        let is_known = known.contains(name) || name.ends_with('_') && known.iter().any(|one| one.starts_with(name));
        assert!(is_known, "docs/metrics.md mentions {name}, which is no metric");
    }
}

#[test]
fn every_table_of_exits_says_what_the_program_says() {
    let section = |file: &str, heading: &str| {
        let text = read(file);
        let section = text.split(&format!("\n## {heading}\n")).nth(1).unwrap_or_else(|| panic!("{file}: {heading}"));
        section.split("\n## ").next().unwrap().to_owned()
    };
    let tables = [
        ("README.md", "Exit codes"),
        ("docs/runbook.md", "Exit codes"),
        ("docs/operations.md", "What Kubernetes does with an exit code"),
    ];
    for (file, heading) in tables {
        let section = section(file, heading);
        let codes: Vec<&str> = section
            .lines()
            .filter_map(|line| line.strip_prefix("| ")?.split_once(" | "))
            .map(|(code, _)| code)
            .filter(|code| code.starts_with(|c: char| c.is_ascii_digit()))
            .collect();
        assert_eq!(codes.len(), Exit::ALL.len(), "{file}: {codes:?}");
        for exit in Exit::ALL {
            let row = format!("\n| {} | {} |", exit.code(), exit.meaning());
            assert!(section.contains(&row), "{file} lacks {row}");
        }
    }
    let mut pages = Vec::new();
    collect_help(&mut Cli::command(), &mut pages);
    let row = |exit: Exit| format!("\n{:>5}  {}\n", exit.code(), exit.meaning());
    for exit in Exit::ALL {
        assert!(pages[0].1.contains(&row(exit)), "the help lacks {}", row(exit));
        // A command may leave out exits that it never has; `run` says of the others what all say.
        let run = &pages.iter().find(|(name, _)| name == "run --help").unwrap().1;
        let begins = format!("\n{:>5}  ", exit.code());
        assert!(!run.contains(&begins) || run.contains(&row(exit)), "run --help differs from {}", row(exit));
    }
    let known: BTreeSet<u8> = Exit::ALL.into_iter().map(Exit::code).collect();
    for (name, page) in &pages {
        let rows = page.split("Exit codes:\n").nth(1).unwrap_or_default();
        let rows = rows.lines().take_while(|line| line.starts_with(' '));
        for code in rows.filter_map(|line| line.split("  ").map(str::trim).find(|word| !word.is_empty())) {
            for code in code.split(", ").filter_map(|code| code.parse().ok()) {
                assert!(known.contains(&code), "{name} names exit {code}");
            }
        }
    }
}

/// Appends the help of a command and of all below it.
fn collect_help(command: &mut clap::Command, pages: &mut Vec<(String, String)>) {
    pages.push((format!("{} --help", command.get_name()), command.render_long_help().to_string()));
    command.get_subcommands_mut().for_each(|below| collect_help(below, pages));
}

#[test]
fn words_to_avoid_are_avoided() {
    let documents = files(&root().join("docs"), ".md").into_iter().filter(|path| !path.ends_with("glossary.md"));
    let others = PAGES.iter().chain(&["config/README.md", "migrations/README.md", "tests/veriff-sim/README.md"]);
    let pages = documents.chain(others.map(|name| root().join(name)));
    let mut pages: Vec<_> =
        pages.map(|path| (path.display().to_string(), std::fs::read_to_string(&path).unwrap())).collect();
    collect_help(&mut Cli::command(), &mut pages);
    assert!(pages.len() > 50, "only {} pages were found: the reader is blind", pages.len());
    for (name, text) in pages {
        // What is between back ticks is a name, not a word.
        let prose: String = text.split('`').step_by(2).collect::<Vec<_>>().join(" ").to_lowercase();
        let words: Vec<&str> = prose.split(|c: char| !c.is_alphabetic()).filter(|word| !word.is_empty()).collect();
        for found in (1..=3).flat_map(|length| words.windows(length)) {
            assert!(!AVOIDED.contains(&format!(" {} ", found.join("_"))), "{name}: {found:?}, see docs/glossary.md");
        }
    }
}
