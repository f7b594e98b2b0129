//! What the runbook says of a code: the same words that an operator finds there, so that the two cannot differ.

use std::collections::BTreeMap;
use std::sync::LazyLock;

/// The runbook as it was when this version was built.
const RUNBOOK: &str = include_str!("../../docs/runbook.md");

static ENTRIES: LazyLock<BTreeMap<String, Entry>> = LazyLock::new(|| entries(RUNBOOK));

/// What the runbook says of a code. Code is between back ticks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) meaning: String,
    pub(super) repair: String,
}

/// Looks a code up.
pub(super) fn of(code: &str) -> Option<&'static Entry> {
    ENTRIES.get(code)
}

/// Reads the section "Codes".
fn entries(runbook: &str) -> BTreeMap<String, Entry> {
    let codes = runbook.split("\n## Codes\n").nth(1).unwrap_or_default();
    let codes = codes.split("\n## ").next().unwrap_or_default();
    codes
        .split("\n### `")
        .skip(1)
        .filter_map(|section| {
            let (code, body) = section.split_once('`')?;
            Some((code.to_owned(), Entry { meaning: part(body, "Means")?, repair: part(body, "Repair")? }))
        })
        .collect()
}

/// Returns the paragraph that begins with a word, in one line; commands that are shown below it follow it.
fn part(body: &str, name: &str) -> Option<String> {
    let text = body.split(&format!("**{name}.**")).nth(1)?;
    let text = text.split("\n- ").next()?;
    let mut words = Vec::new();
    let mut is_command = false;
    for line in text.lines() {
        if line.starts_with("```") {
            is_command = !is_command;
        } else if is_command {
            words.push(format!("`{}`", line.trim().trim_end_matches('\\').trim_end()));
        } else if line.is_empty() && words.last().is_some_and(|word: &String| !word.ends_with(':')) {
            // What comes behind the paragraph is for whoever reads the runbook itself.
            break;
        } else {
            words.extend(line.split_whitespace().map(str::to_owned));
        }
    }
    Some(without_emphasis(&without_links(&words.join(" "))))
}

/// Drops asterisks, but not those of code.
fn without_emphasis(text: &str) -> String {
    let parts = text.split('`').enumerate();
    let parts: Vec<String> =
        parts.map(|(number, part)| if number % 2 == 0 { part.replace('*', "") } else { part.to_owned() }).collect();
    parts.join("`")
}

/// Leaves the words of links and drops where they lead.
fn without_links(text: &str) -> String {
    let mut found = String::new();
    let mut rest = text;
    while let Some((before, link)) = rest.split_once('[') {
        let Some((words, behind)) = link.split_once("](").and_then(|(words, rest)| {
            let (_, behind) = rest.split_once(')')?;
            Some((words, behind))
        }) else {
            break;
        };
        found.push_str(before);
        found.push_str(words);
        rest = behind;
    }
    found + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;

    #[test]
    fn every_code_has_a_meaning_and_a_repair() {
        for code in Code::ALL {
            let entry = of(code.as_str()).unwrap_or_else(|| panic!("{code} has no entry"));
            for text in [&entry.meaning, &entry.repair] {
                assert!(text.len() > 10, "{code}: {text}");
                assert!(!text.contains("](") && !text.contains("**") && !text.contains("```"), "{code}: {text}");
                assert_eq!(text.matches('`').count() % 2, 0, "{code}: {text}");
            }
        }
    }

    #[test]
    fn commands_below_a_repair_follow_it() {
        let repair = &of("media.too_large").unwrap().repair;
        assert!(repair.starts_with("Raise it and repeat: `VERIFF_ARCHIVE__LIMITS__MAX_MEDIA_SIZE=4GiB"), "{repair}");
        let throttled = &of("veriff.throttled").unwrap().repair;
        assert!(throttled.contains("`integrations.*.max_requests_per_second`"), "{throttled}");
        let absent = &of("veriff.absent").unwrap().repair;
        assert!(absent.contains("If all sessions of an integration"), "{absent}");
        let denied = &of("store.denied").unwrap().repair;
        assert!(denied.ends_with("The README lists the permissions that are needed."), "{denied}");
    }
}
