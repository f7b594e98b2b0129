//! Where the ledger is: what `ledger.url` says.
//!
//! Reasons never repeat the text, because a URL of a database server may hold a password.

use std::path::PathBuf;

use super::LedgerError;

/// What a `sqlite:` URL names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Location {
    /// A file.
    File(PathBuf),
    /// Nothing that lasts.
    Memory,
}

impl Location {
    /// Reads `sqlite:ledger.db`, `sqlite:///absolute/path` or `sqlite::memory:`.
    pub(super) fn parse(url: &str) -> Result<Self, LedgerError> {
        let refused = |reason: &str| Err(LedgerError::Url(reason.to_owned()));
        let Some(rest) = url.strip_prefix("sqlite:") else {
            return match url.split_once(':') {
                Some(("postgres" | "postgresql", _)) => {
                    refused("asks for PostgreSQL, which is not supported by this version; use sqlite:FILE")
                }
                _ => refused("must be sqlite:FILE or sqlite:///DIRECTORY/FILE"),
            };
        };
        if rest == ":memory:" {
            return Ok(Self::Memory);
        }
        if rest.contains('?') {
            return refused("takes no options behind the file");
        }
        let path = match rest.strip_prefix("//") {
            Some(path) if !path.starts_with('/') => {
                return refused("has two slashes before a relative file; use sqlite:FILE or sqlite:///DIRECTORY/FILE");
            }
            Some(path) => path,
            None => rest,
        };
        if path.is_empty() || path.ends_with('/') || path.starts_with(':') || path.contains('\0') {
            return refused("names no file");
        }
        // SQLite itself reads a name that begins with `file:` as a URI with options.
        if path.starts_with("file:") {
            return refused("names its file without file:");
        }
        Ok(Self::File(PathBuf::from(path)))
    }

    /// Tells whether the file is there.
    pub(super) async fn exists(&self) -> bool {
        match self {
            Self::File(path) => tokio::fs::try_exists(path).await.unwrap_or(true),
            Self::Memory => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_files_or_memory() {
        let file = |path: &str| Some(Location::File(PathBuf::from(path)));
        for (url, location) in [
            ("sqlite:ledger.db", file("ledger.db")),
            ("sqlite:data/ledger.db", file("data/ledger.db")),
            ("sqlite:/abs/ledger.db", file("/abs/ledger.db")),
            ("sqlite:///abs/ledger.db", file("/abs/ledger.db")),
            ("sqlite::memory:", Some(Location::Memory)),
            ("sqlite:", None),
            ("sqlite://", None),
            ("sqlite:///", None),
            ("sqlite://host/ledger.db", None),
            ("sqlite:ledger.db?mode=ro", None),
            ("sqlite:file:ledger.db", None),
            ("ledger.db", None),
            ("mysql://host/db", None),
            ("", None),
        ] {
            assert_eq!(Location::parse(url).ok(), location, "{url}");
        }
    }
}
