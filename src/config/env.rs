//! The environment, read once.
//!
//! The only place of the program that reads variables; everything else gets a checked `Config`. Tests make an
//! environment of their own, so none of them changes the process.

use std::collections::BTreeMap;

/// What settings of this program begin with; two underscores represent a dot.
const PREFIX: &str = "VERIFF_ARCHIVE__";

/// A copy of the variables of the environment.
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

impl std::fmt::Debug for Environment {
    /// Shows no values: some are secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Environment {
    /// Copies the variables of this process; those that are not UTF-8 are not ours.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
    #[must_use]
    pub fn of_process() -> Self {
        Self(
            std::env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
                .collect(),
        )
    }

    /// Makes an environment of the given variables.
    #[must_use]
    pub fn of(variables: &[(&str, &str)]) -> Self {
        Self(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    /// Returns a variable; an empty one counts as not set.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Iterates over the variables that state settings: name, path of the key, text. A shorter path comes first.
    pub(super) fn settings(&self) -> impl Iterator<Item = (&str, Vec<String>, &str)> {
        let mut found: Vec<_> = self
            .0
            .iter()
            .filter_map(|(name, value)| {
                let path = name.strip_prefix(PREFIX)?;
                let path: Vec<String> = path.split("__").map(str::to_ascii_lowercase).collect();
                Some((name.as_str(), path, value.as_str()))
            })
            .collect();
        found.sort_by_key(|(_, path, _)| path.len());
        found.into_iter()
    }
}
