//! Layers: file, environment and flags laid over one another, each value remembering where it came from.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use toml::{Table, Value};

use super::env::Environment;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody stated it.
    Default,
    /// The configuration file.
    File(PathBuf),
    /// A variable of the environment.
    Environment(String),
    /// A flag of the command line.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Flag(flag) => write!(f, "flag {flag}"),
        }
    }
}

/// All that was stated, the strongest statement of each key.
#[derive(Debug)]
pub(super) struct Layers {
    pub(super) table: Table,
    file: Option<PathBuf>,
    /// By place, such as `store.url`: what did not come from the file.
    origins: BTreeMap<String, Origin>,
}

impl Layers {
    pub(super) const fn of_file(table: Table, file: Option<PathBuf>) -> Self {
        Self { table, file, origins: BTreeMap::new() }
    }

    /// Lays the variables `VERIFF_ARCHIVE__SECTION__KEY` over what is there, shortest name first, so that a key wins
    /// over its section.
    pub(super) fn lay_environment(&mut self, environment: &Environment) {
        for (name, path, text) in environment.settings() {
            let value = match parse_toml(text) {
                Some(value @ (Value::Table(_) | Value::Array(_))) => value,
                _ => Value::String(text.to_owned()),
            };
            self.set(&path, value, Origin::Environment(name.to_owned()));
        }
    }

    /// Lays one value over what is there.
    pub(super) fn set(&mut self, path: &[String], value: Value, origin: Origin) {
        let Some((key, sections)) = path.split_last() else {
            return;
        };
        let mut table = &mut self.table;
        for section in sections {
            let slot = table.entry(section.clone()).or_insert_with(|| Value::Table(Table::new()));
            if !slot.is_table() {
                *slot = Value::Table(Table::new());
            }
            let Value::Table(next) = slot else { return };
            table = next;
        }
        table.insert(key.clone(), value);
        let place = path.join(".");
        let below = format!("{place}.");
        self.origins.retain(|other, _| !other.starts_with(&below));
        self.origins.insert(place, origin);
    }

    /// Returns where the value of a place came from.
    pub(super) fn origin(&self, place: &str) -> Origin {
        let mut ancestor = Some(place);
        while let Some(name) = ancestor {
            if let Some(origin) = self.origins.get(name) {
                return origin.clone();
            }
            ancestor = name.rsplit_once('.').map(|(parent, _)| parent);
        }
        let below = format!("{place}.");
        if let Some((_, origin)) = self.origins.iter().find(|(other, _)| other.starts_with(&below)) {
            return origin.clone();
        }
        match (&self.file, self.is_stated(place)) {
            (Some(path), true) => Origin::File(path.clone()),
            _ => Origin::Default,
        }
    }

    /// Returns whether a place came as plain text, whose type is not known yet.
    pub(super) fn is_text(&self, place: &str) -> bool {
        matches!(self.origins.get(place), Some(Origin::Environment(_)))
    }

    fn is_stated(&self, place: &str) -> bool {
        let mut table = &self.table;
        let mut keys = place.split('.').map(without_index).peekable();
        while let Some(key) = keys.next() {
            match table.get(key) {
                None => return false,
                Some(Value::Table(next)) if keys.peek().is_some() => table = next,
                Some(_) => return true,
            }
        }
        true
    }
}

fn without_index(key: &str) -> &str {
    key.split('[').next().unwrap_or(key)
}

/// Reads the TOML form of one value.
pub(super) fn parse_toml(text: &str) -> Option<Value> {
    let mut table = toml::from_str::<Table>(&format!("value = {text}")).ok()?;
    (table.len() == 1).then(|| table.remove("value")).flatten()
}
