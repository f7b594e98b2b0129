//! The program as a user meets it: a folder with a configuration, a command line, an exit code, and what was printed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;
use veriff_sim::Simulator;

use super::s3::{Bucket, Identity};

/// A folder with everything one deployment has.
#[derive(Debug)]
pub(crate) struct Deployment {
    folder: TempDir,
    environment: BTreeMap<String, String>,
}

/// How the program ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// The exit code; nothing if a signal ended it.
    pub(crate) code: Option<i32>,
    /// Standard output.
    pub(crate) stdout: String,
    /// Standard error.
    pub(crate) stderr: String,
}

impl Deployment {
    /// Configures a directory as the store.
    pub(crate) fn with_directory(simulator: &Simulator) -> Self {
        let deployment = Self::empty(simulator);
        let store = deployment.path("store");
        deployment.configure(&format!("[store]\nurl = \"file://{}\"\n", store.display()));
        deployment
    }

    /// Configures a bucket as the store, under a policy of five years in COMPLIANCE mode unless `retention` says another.
    pub(crate) fn with_bucket(
        simulator: &Simulator,
        bucket: &Bucket,
        identity: Identity,
        retention: Option<&str>,
    ) -> Self {
        let mut deployment = Self::empty(simulator);
        let five_years =
            "[retention]\nmode = \"COMPLIANCE\"\nperiod = \"5y\"\nmax_period = \"10y\"\nbasis = \"test\"\n";
        deployment.configure(&format!(
            "[store]\nurl = \"s3://{}/archive\"\nendpoint_url = \"{}\"\nregion = \"us-east-1\"\nforce_path_style = true\n{}",
            bucket.name,
            bucket.endpoint,
            retention.unwrap_or(five_years)
        ));
        for (name, value) in identity.environment() {
            deployment.environment.insert(name.to_owned(), value.to_owned());
        }
        deployment
    }

    fn empty(simulator: &Simulator) -> Self {
        let folder = TempDir::new().unwrap();
        std::fs::write(folder.path().join("api-key"), simulator.api_key()).unwrap();
        std::fs::write(folder.path().join("shared-secret"), simulator.secret()).unwrap();
        let deployment = Self { folder, environment: BTreeMap::new() };
        deployment.write("base", &simulator.base_url());
        deployment
    }

    /// Writes the configuration: the integration of the simulator, a ledger, and what is given.
    pub(crate) fn configure(&self, rest: &str) {
        self.configure_whole(&format!("{}\n{rest}", self.default_integration("")));
    }

    /// Returns the section of the default integration with more lines in it.
    ///
    /// Unless told otherwise it keeps media for ever, so that no test begins to raise the alarm one day.
    pub(crate) fn default_integration(&self, more: &str) -> String {
        let horizon = if more.contains("horizon") { "" } else { "horizon = \"36500d\"\n" };
        format!(
            "[ledger]\nurl = \"sqlite://{}\"\n[integrations.default]\nbase_url = \"{}\"\nallow_http = true\n\
             api_key = {{ file = \"{}\" }}\nshared_secret = {{ file = \"{}\" }}\nmax_requests_per_second = 5000.0\n{horizon}{more}",
            self.path("ledger.db").display(),
            std::fs::read_to_string(self.path("base")).unwrap(),
            self.path("api-key").display(),
            self.path("shared-secret").display(),
        )
    }

    /// Writes the configuration as it is.
    pub(crate) fn configure_whole(&self, text: &str) {
        self.write("archive.toml", text);
    }

    /// Appends to the configuration.
    pub(crate) fn configure_more(&self, text: &str) {
        let before = std::fs::read_to_string(self.path("archive.toml")).unwrap();
        self.write("archive.toml", &format!("{before}\n{text}"));
    }

    /// Sets a variable of the program's environment.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.environment.insert(name.to_owned(), value.to_owned());
    }

    /// Speaks to the bucket as somebody else.
    pub(crate) fn become_identity(&mut self, identity: Identity) {
        for (name, value) in identity.environment() {
            self.set(name, value);
        }
    }

    /// Takes a variable back.
    pub(crate) fn unset(&mut self, name: &str) {
        self.environment.remove(name);
    }

    /// Writes a file into the folder.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Writes a list of session ids.
    pub(crate) fn write_ids<T: AsRef<str>>(&self, ids: &[T]) -> PathBuf {
        let ids: Vec<&str> = ids.iter().map(AsRef::as_ref).collect();
        self.write("sessions.txt", &(ids.join("\n") + "\n"))
    }

    /// Names a file in the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Names the store's directory.
    pub(crate) fn store(&self) -> PathBuf {
        self.path("store")
    }

    /// Makes the ledger forget everything.
    pub(crate) fn lose_ledger(&self) {
        for name in ["ledger.db", "ledger.db-wal", "ledger.db-shm"] {
            if let Err(error) = std::fs::remove_file(self.path(name)) {
                assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
            }
        }
    }

    /// Prepares a command line; nothing of the test's own environment reaches the program but PATH.
    #[expect(clippy::disallowed_methods, reason = "the test's own environment, not the program's")]
    pub(crate) fn command<T: AsRef<std::ffi::OsStr>>(&self, words: impl IntoIterator<Item = T>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_veriff-archive"));
        command.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path))).envs(&self.environment);
        command.current_dir(self.folder.path()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.arg("--config").arg(self.path("archive.toml")).args(words);
        command
    }

    /// Runs the program to its end as somebody for whom modes of files hold. For root they do only without these rights.
    pub(crate) async fn run_within_modes<T: AsRef<std::ffi::OsStr>>(
        &self,
        words: impl IntoIterator<Item = T>,
    ) -> Ended {
        let asked = self.command(words);
        let is_root = Command::new("id").arg("-u").output().unwrap().stdout == b"0\n";
        if !is_root {
            return ended({ asked }.spawn().unwrap()).await;
        }
        let mut command = Command::new("setpriv");
        command.args(["--bounding-set=-dac_override,-dac_read_search,-fowner", "--inh-caps=-all"]);
        command.arg(asked.get_program()).args(asked.get_args());
        command.env_clear().envs(asked.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.current_dir(self.folder.path()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        ended(command.spawn().unwrap()).await
    }

    /// Starts the program and goes on.
    pub(crate) fn start<T: AsRef<std::ffi::OsStr>>(&self, words: impl IntoIterator<Item = T>) -> Child {
        self.command(words).spawn().unwrap()
    }

    /// Runs the program to its end, without holding up the runtime that the simulator may live on.
    pub(crate) async fn run<T: AsRef<std::ffi::OsStr>>(&self, words: impl IntoIterator<Item = T>) -> Ended {
        let child = self.start(words);
        ended(child).await
    }

    /// Fails unless the ledger says what store and run records say.
    pub(crate) async fn expect_reconciled(&self) {
        let ended = self.run(["audit", "reconcile", "--output", "json"]).await.expect(0);
        assert!(!ended.stdout.contains("\"ledger."), "{}", ended.stdout);
    }

    /// Archives `sessions.txt`, with more words on the command line.
    pub(crate) async fn archive(&self, more: &[&str]) -> Ended {
        let sessions = self.path("sessions.txt").display().to_string();
        let words = ["run", "--sessions", sessions.as_str(), "--progress", "none"];
        self.run(words.into_iter().chain(more.iter().copied())).await
    }
}

/// Waits for a child and takes what it printed.
pub(crate) async fn ended(child: Child) -> Ended {
    let output = tokio::task::spawn_blocking(move || child.wait_with_output()).await.unwrap().unwrap();
    Ended::of(output)
}

impl Ended {
    fn of(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Fails with all that was printed unless the program ended with this code.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// Reads standard output as one JSON document.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}\n{}", self.stdout, self.stderr))
    }

    /// Returns how many sessions ended with an outcome, from the summary.
    #[track_caller]
    pub(crate) fn count(&self, outcome: &str) -> u64 {
        self.json()["counts"][outcome].as_u64().unwrap()
    }
}

/// Reads a results file, one value a line.
pub(crate) fn results(path: &Path) -> Vec<Value> {
    std::fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}
