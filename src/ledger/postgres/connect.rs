//! Connections to the server: how they are made, kept, tested and given up.
//!
//! What an address leaves out, the driver takes from the `PG*` variables and `~/.pgpass`, as every client of PostgreSQL
//! does. A connection that broke is replaced, and the call that met it is made again: every call of the ledger may be.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions, PgSslMode};
use sqlx::{ConnectOptions as _, Connection as _};

use crate::ledger::LedgerError;
use crate::ledger::location::ServerUrl;
use crate::retry::Backoff;

/// How many connections one process has: commits come one after the other, beside them leases are renewed and numbers
/// read. A server has about a hundred for everyone.
const CONNECTIONS: u32 = 4;

/// How long a call waits for a connection, while the server starts again or all are in use. Longer than a restart takes.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long the first connection may take: who opens a ledger wants to know at once that it cannot be reached.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a call may take. Only a network that swallows packets reaches it; the connection never says so itself.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_mins(2);

/// The same for a call that may change every session there is.
pub(super) const LONG_CALL_TIMEOUT: Duration = Duration::from_hours(1);

/// A connection that has not been used for this long is tested before it is used. In a shorter time few break, and those
/// that do cost another try, where a test before every call would cost each a round trip.
const TEST_AFTER: Duration = Duration::from_secs(1);

/// How often a call is made in all: once for each connection that may be broken, and once more.
const CALLS: Backoff = Backoff { tries: CONNECTIONS + 1, base: Duration::from_millis(50), cap: Duration::from_secs(2) };

/// The name under which the server lists our connections, unless the address or `PGAPPNAME` gives another.
const APPLICATION_NAME: &str = "veriff-archive";

/// Composes what the driver needs to know.
pub(super) fn options(server: &ServerUrl) -> Result<PgConnectOptions, LedgerError> {
    let options = PgConnectOptions::from_url(server.url())
        // Its text may quote a part of the address.
        .map_err(|_| LedgerError::Url("is not one that the database driver understands".to_owned()))?
        .disable_statement_logging();
    let options = match options.get_application_name() {
        None => options.application_name(APPLICATION_NAME),
        Some(_) => options,
    };
    // As libpq does; the driver by itself would take the certificate and never look at it.
    Ok(match options.get_ssl_mode() {
        PgSslMode::Require if server.has_root_cert() => options.ssl_mode(PgSslMode::VerifyCa),
        _ => options,
    })
}

/// Connects once, and says at once why it cannot be done.
pub(super) async fn connect(options: &PgConnectOptions) -> Result<PgConnection, Failure> {
    match tokio::time::timeout(CONNECT_TIMEOUT, options.connect()).await {
        Ok(connected) => Ok(connected?),
        Err(_) => Err(Failure::Late(CONNECT_TIMEOUT)),
    }
}

/// Makes a pool that connects when it is first used.
pub(super) fn pool(options: PgConnectOptions) -> PgPool {
    PgPoolOptions::new()
        .max_connections(CONNECTIONS)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .test_before_acquire(false)
        .before_acquire(|connection, of| {
            Box::pin(async move { Ok(of.idle_for < TEST_AFTER || connection.ping().await.is_ok()) })
        })
        .connect_lazy_with(options)
}

/// Tells what someone on the way to the server could do, if anything.
pub(super) fn exposure(options: &PgConnectOptions) -> Option<&'static str> {
    let host = options.get_host();
    let is_here = options.get_socket().is_some()
        || host.starts_with('/')
        || host == "localhost"
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    match options.get_ssl_mode() {
        _ if is_here => None,
        PgSslMode::VerifyFull => None,
        PgSslMode::VerifyCa => {
            Some("the server's name is not checked: any server with a certificate of that CA is accepted")
        }
        PgSslMode::Require => {
            Some("the server's certificate is not checked: the connection is encrypted, but to anyone")
        }
        _ => Some("the connection need not be encrypted, and the server's certificate is not checked"),
    }
}

/// Why a call came to nothing.
#[derive(Debug)]
pub(super) enum Failure {
    /// The server, the network or the driver says so.
    Engine(sqlx::Error),
    /// What was read is not what this program writes.
    Ledger(LedgerError),
    /// No answer came in this time.
    Late(Duration),
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self::Engine(error)
    }
}

impl From<LedgerError> for Failure {
    fn from(error: LedgerError) -> Self {
        Self::Ledger(error)
    }
}

impl Failure {
    /// Tells whether the same call may well succeed on another connection, or just after.
    fn may_pass(&self) -> bool {
        match self {
            Self::Engine(sqlx::Error::Io(_) | sqlx::Error::BeginFailed | sqlx::Error::WorkerCrashed) => true,
            Self::Engine(sqlx::Error::Database(error)) => error.code().is_some_and(|code| may_pass(&code)),
            Self::Engine(_) | Self::Ledger(_) | Self::Late(_) => false,
        }
    }

    /// Makes an error of it, which says what was asked.
    pub(super) fn told(self, action: &'static str) -> LedgerError {
        let source: Box<dyn std::error::Error + Send + Sync> = match self {
            Self::Ledger(error) => return error,
            Self::Engine(sqlx::Error::PoolTimedOut) => {
                format!("no connection to the database server within {} s", ACQUIRE_TIMEOUT.as_secs()).into()
            }
            // The driver's texts repeat their causes, and never an address.
            Self::Engine(error) => error.to_string().into(),
            Self::Late(limit) => format!("the database server did not answer within {} s", limit.as_secs()).into(),
        };
        LedgerError::Unavailable { action: action.into(), source }
    }
}

/// Looks at a code of <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
fn may_pass(code: &str) -> bool {
    // Of class 57: shut down by an administrator or after a crash, not yet started, database dropped or idle too long are
    // about the connection; a statement that was cancelled is not, and would be again.
    matches!(code, "40001" | "40P01" | "57P01" | "57P02" | "57P03" | "57P05") || code.starts_with("08")
}

/// Makes a call, each time within a limit of time, until it succeeds or there is no sense in trying.
pub(super) async fn made<T, E, F>(
    action: &'static str,
    limit: Duration,
    mut call: impl FnMut() -> F,
) -> Result<T, LedgerError>
where
    Failure: From<E>,
    F: Future<Output = Result<T, E>>,
{
    let within = || {
        let call = tokio::time::timeout(limit, call());
        async move { call.await.map_or(Err(Failure::Late(limit)), |called| called.map_err(Failure::from)) }
    };
    let may_pass = |failure: &Failure| {
        tracing::debug!("the ledger could not {action}: {failure:?}");
        failure.may_pass()
    };
    CALLS.retry(may_pass, within).await.map_err(|failure| failure.told(action))
}

/// Makes a call until it succeeds or there is no sense in trying: `call!("be read", self.read_it())`.
macro_rules! call {
    ($action:literal, $call:expr) => {
        call!($action, $crate::ledger::postgres::connect::CALL_TIMEOUT, $call)
    };
    ($action:literal, $limit:expr, $call:expr) => {
        $crate::ledger::postgres::connect::made($action, $limit, || $call).await
    };
}
pub(super) use call;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::location::Location;

    fn options_of(url: &str) -> PgConnectOptions {
        match Location::parse(url).unwrap() {
            Location::Server(server) => options(&server).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_root_certificate_is_looked_at_as_libpq_does() {
        let mode = |url| options_of(url).get_ssl_mode();
        assert!(matches!(mode("postgres://db/x?sslmode=require"), PgSslMode::Require));
        assert!(matches!(mode("postgres://db/x?sslmode=require&sslrootcert=ca.pem"), PgSslMode::VerifyCa));
        assert!(matches!(mode("postgres://db/x?sslmode=verify-full&sslrootcert=ca.pem"), PgSslMode::VerifyFull));
    }

    #[test]
    fn a_connection_through_a_network_is_exposed_unless_the_server_is_checked() {
        let exposed = |url| exposure(&options_of(url)).is_some();
        assert!(exposed("postgres://db/x?sslmode=prefer"));
        assert!(exposed("postgres://db/x?sslmode=disable"));
        assert!(exposed("postgres://db/x?sslmode=require"));
        assert!(!exposed("postgres://db/x?sslmode=verify-full"));
        assert!(!exposed("postgres://127.0.0.1/x?sslmode=disable"));
        assert!(!exposed("postgres://localhost/x?sslmode=disable"));
        assert!(!exposed("postgres:///x?host=/var/run/postgresql"));
    }

    #[test]
    fn what_is_about_the_connection_may_pass_and_what_is_about_the_statement_may_not() {
        for code in ["08006", "40P01", "57P01", "57P03"] {
            assert!(may_pass(code), "{code}");
        }
        for code in ["23514", "28P01", "42P01", "53100", "57014"] {
            assert!(!may_pass(code), "{code}");
        }
        assert!(Failure::from(sqlx::Error::Io(std::io::ErrorKind::UnexpectedEof.into())).may_pass());
        assert!(!Failure::from(sqlx::Error::PoolTimedOut).may_pass());
    }
}
