//! Deploy: what is deployed speaks of nothing that the program does not have. `deploy/validate` checks the rest.

use std::collections::BTreeSet;
use std::path::Path;

use veriff_archive::metrics;

/// The files that read metrics.
const READERS: [&str; 2] = ["deploy/dashboards/veriff-archive.json", "deploy/alerts/veriff-archive.rules.yaml"];

/// Finds every name that begins like a metric of ours.
fn names(text: &str) -> BTreeSet<&str> {
    let is_part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let starts = text.match_indices("veriff_archive_").map(|(at, _)| at);
    starts.map(|at| &text[at..]).map(|rest| rest.split(|c| !is_part(c)).next().unwrap_or(rest)).collect()
}

#[test]
fn dashboard_and_alerts_use_the_metrics_there_are_and_all_of_them() {
    let known: BTreeSet<&str> = metrics::ALL.iter().map(|metric| metric.name).collect();
    let mut used = BTreeSet::new();
    for file in READERS {
        let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
        let names = names(&text);
        assert!(!names.is_empty(), "{file} reads no metric");
        let unknown: Vec<_> = names.difference(&known).collect();
        assert!(unknown.is_empty(), "{file} reads what is never told: {unknown:?}");
        used.extend(names.into_iter().map(str::to_owned));
    }
    let unread: Vec<_> = known.into_iter().filter(|name| !used.contains(*name)).collect();
    assert!(unread.is_empty(), "nobody reads {unread:?}");
}
