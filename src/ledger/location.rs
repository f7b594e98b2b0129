//! Where the ledger is: what `ledger.url` says.
//!
//! Reasons never repeat the text, because a URL of a database server may hold a password.

use std::fmt;
use std::ops::Deref;
use std::path::PathBuf;

use url::Url;

use super::LedgerError;

/// The options behind a `?` that the driver knows. It would log an unknown one with its value, so none gets that far;
/// `password` is left out, because it has its place before the `@`, where it is known to be one.
const OPTIONS: [&str; 11] = [
    "application_name",
    "dbname",
    "host",
    "hostaddr",
    "options",
    "port",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "user",
];

/// What `sslmode` may say. The driver takes `allow` for `disable`, which is not what it promises.
const SSL_MODES: [&str; 5] = ["disable", "prefer", "require", "verify-ca", "verify-full"];

/// What `ledger.url` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Location {
    /// A file.
    File(PathBuf),
    /// Nothing that lasts.
    Memory,
    /// A database of a PostgreSQL server.
    Server(ServerUrl),
}

/// The address of a database, which may hold a password and never prints it.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct ServerUrl(Url);

impl fmt::Debug for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(self.0.as_str()))
    }
}

impl Location {
    /// Reads `sqlite:ledger.db`, `sqlite:///absolute/path`, `sqlite::memory:` or `postgres://user@host/database`.
    pub(super) fn parse(url: &str) -> Result<Self, LedgerError> {
        match url.split_once(':') {
            Some(("sqlite", rest)) => parse_file(rest),
            Some(("postgres" | "postgresql", _)) => ServerUrl::parse(url).map(Self::Server),
            _ => refused("must be sqlite:FILE, sqlite:///DIRECTORY/FILE or postgres://USER@HOST/DATABASE"),
        }
    }
}

impl ServerUrl {
    fn parse(text: &str) -> Result<Self, LedgerError> {
        let Ok(url) = Url::parse(text) else {
            return refused(
                "is not a PostgreSQL URL, such as postgres://USER@HOST/DATABASE; in a password, write characters \
                 other than letters and digits as %XX",
            );
        };
        if url.cannot_be_a_base() || !text.contains("://") {
            return refused("has no // after postgres:; use postgres://USER@HOST/DATABASE");
        }
        if url.fragment().is_some() {
            return refused("contains a #; in a password, write it as %23");
        }
        let mut has_root_cert = false;
        let mut ssl_mode = None;
        for (name, value) in url.query_pairs() {
            let is_known = OPTIONS.contains(&&*name) || name.starts_with("options[") && name.ends_with(']');
            match &*name {
                "password" => {
                    return refused("has its password after the ?; put it before the @, or into PGPASSWORD");
                }
                _ if !is_known => {
                    return refused(&format!("has an unknown option; known: {}", OPTIONS.join(", ")));
                }
                "sslmode" if !SSL_MODES.contains(&&*value) => {
                    return refused(&format!("has an unknown sslmode; known: {}", SSL_MODES.join(", ")));
                }
                "sslmode" => ssl_mode = Some(value.into_owned()),
                "sslrootcert" => has_root_cert = true,
                "port" if value.parse::<u16>().is_err() => return refused("has an invalid port"),
                "hostaddr" if value.parse::<std::net::IpAddr>().is_err() => {
                    return refused("has a hostaddr that is not an IP address");
                }
                _ => {}
            }
        }
        if has_root_cert && matches!(ssl_mode.as_deref(), Some("disable" | "prefer")) {
            return refused("has an sslrootcert, but its sslmode checks no certificate; use sslmode=verify-full");
        }
        Ok(Self(url))
    }

    /// Returns the address, password included: for the driver and nobody else.
    pub(super) const fn url(&self) -> &Url {
        &self.0
    }

    /// Returns whether the address names the certificate that the server's own must be signed with.
    pub(super) fn has_root_cert(&self) -> bool {
        self.0.query_pairs().any(|(name, _)| name == "sslrootcert")
    }
}

fn parse_file(rest: &str) -> Result<Location, LedgerError> {
    if rest == ":memory:" {
        return Ok(Location::Memory);
    }
    if rest.contains('?') {
        return refused("takes no options after the file");
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
    Ok(Location::File(PathBuf::from(path)))
}

fn refused<T>(reason: &str) -> Result<T, LedgerError> {
    Err(LedgerError::Url(reason.to_owned()))
}

/// `ledger.url`, which may hold a password and prints without it.
#[derive(Clone, PartialEq, Eq)]
pub struct LedgerUrl(String);

impl LedgerUrl {
    /// Takes the text as it is; [`super::check_url`] says whether it names a ledger.
    #[must_use]
    pub const fn of(text: String) -> Self {
        Self(text)
    }

    /// Returns the text as anyone may see it: `[redacted]` in place of a password.
    #[must_use]
    pub fn shown(&self) -> String {
        shown(&self.0)
    }
}

/// The whole text, for whoever opens the ledger.
impl Deref for LedgerUrl {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for LedgerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.shown())
    }
}

/// Returns `ledger.url` as anyone may see it: `[redacted]` in place of a password.
fn shown(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let Some((user, host)) = authority.rsplit_once('@') else {
        return url.to_owned();
    };
    match user.split_once(':') {
        Some((user, _)) => format!("{scheme}://{user}:[redacted]@{host}{path}"),
        None => url.to_owned(),
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

    #[test]
    fn urls_name_databases_of_servers() {
        for url in [
            "postgres://ledger:secret@db.internal/ledger",
            "postgresql://ledger@db.internal:5433/ledger?sslmode=verify-full&sslrootcert=/etc/ca.pem",
            "postgres://%2Fvar%2Frun%2Fpostgresql/ledger",
            "postgres:///ledger?host=/var/run/postgresql&user=ledger",
            "postgres://[::1]:5432/ledger?sslmode=disable&application_name=nightly",
            "postgres://db/ledger?options=-c%20search_path%3Darchive&options[statement_timeout]=5min",
            "postgres://",
        ] {
            assert!(matches!(Location::parse(url), Ok(Location::Server(_))), "{url}: {:?}", Location::parse(url));
        }
    }

    #[test]
    fn a_url_that_is_refused_is_not_repeated() {
        for (url, reason) in [
            ("postgres:ledger", "has no //"),
            ("postgres://u:hunter2/x@db/ledger", "%XX"),
            ("postgres://u:12#hunter2@db/ledger", "%23"),
            ("postgres://u:12?hunter2@db/ledger", "known: application_name"),
            ("postgres://u@db/ledger?passwort=hunter2", "known: application_name"),
            ("postgres://u@db/ledger?password=hunter2", "before the @"),
            ("postgres://u:hunter2@db/ledger?sslmode=allow", "known: disable"),
            ("postgres://u:hunter2@db/ledger?sslmode=verify_full", "known: disable"),
            ("postgres://u:hunter2@db/ledger?port=hunter2", "port"),
            ("postgres://u:hunter2@db/ledger?hostaddr=hunter2", "hostaddr"),
            ("postgres://u:hunter2@db/ledger?sslmode=prefer&sslrootcert=ca.pem", "use sslmode=verify-full"),
        ] {
            let error = Location::parse(url).unwrap_err().to_string();
            assert!(error.contains(reason), "{url}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_password_is_never_shown() {
        for (url, seen) in [
            (
                "postgres://ledger:hunter2@db:5432/x?sslmode=require",
                "postgres://ledger:[redacted]@db:5432/x?sslmode=require",
            ),
            ("postgres://ledger:hun:t@er2@db/x", "postgres://ledger:[redacted]@db/x"),
            ("postgres://:hunter2@db", "postgres://:[redacted]@db"),
            ("postgres://ledger@db/x", "postgres://ledger@db/x"),
            ("postgres:///x", "postgres:///x"),
            ("sqlite:ledger.db", "sqlite:ledger.db"),
            ("sqlite:///a@b:c/ledger.db", "sqlite:///a@b:c/ledger.db"),
        ] {
            assert_eq!(shown(url), seen);
        }
        let url = LedgerUrl::of("postgres://ledger:hunter2@db/x".to_owned());
        assert_eq!(format!("{url:?}"), "\"postgres://ledger:[redacted]@db/x\"");
        let location = Location::parse(&url).unwrap();
        assert_eq!(format!("{location:?}"), "Server(postgres://ledger:[redacted]@db/x)");
    }
}
