//! A real S3 server with Object Lock: one SeaweedFS for the whole test process, on free ports, gone when the process is.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use aws_credential_types::Credentials;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Region, RequestChecksumCalculation};
use aws_sdk_s3::primitives::{ByteStream, DateTime};
use aws_sdk_s3::types::{
    BucketVersioningStatus, ObjectLockRetention, ObjectLockRetentionMode, VersioningConfiguration,
};
use secrecy::SecretString;
use veriff_archive::clock::{Clock as _, SystemClock, Timestamp};
use veriff_archive::store::s3::S3Store;
use veriff_archive::store::settings::S3Settings;

use super::python;

/// How long a server may take until it answers; it takes one second on an idle machine.
const START_LIMIT: Duration = Duration::from_mins(1);

/// How often other ports are tried: another process may take one between our look and the server's.
const STARTS: u32 = 3;

/// The ports the server listens on, apart from those ten thousand above each of them.
const PORTS: [&str; 5] = ["master", "volume", "filer", "s3", "admin"];

/// Which of them speaks S3.
const S3_PORT: u16 = 3;

/// An identity of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) access_key_id: &'static str,
    pub(crate) secret_access_key: &'static str,
}

/// May do everything; the tests look behind the program with it.
pub(crate) const ADMIN: Identity = Identity { access_key_id: "TESTADMIN", secret_access_key: "test-admin-secret" };
/// May do what the archiver needs and no more.
pub(crate) const WRITER: Identity = Identity { access_key_id: "TESTWRITER", secret_access_key: "test-writer-secret" };
/// May only read.
pub(crate) const READER: Identity = Identity { access_key_id: "TESTREADER", secret_access_key: "test-reader-secret" };

impl Identity {
    /// Returns the environment that makes a program act as this identity.
    pub(crate) fn environment(self) -> [(&'static str, &'static str); 4] {
        [
            ("AWS_ACCESS_KEY_ID", self.access_key_id),
            ("AWS_SECRET_ACCESS_KEY", self.secret_access_key),
            ("AWS_REGION", "us-east-1"),
            ("AWS_EC2_METADATA_DISABLED", "true"),
        ]
    }
}

/// The server.
pub(crate) struct S3Server {
    /// Its address, `http://127.0.0.1:PORT`.
    pub(crate) endpoint: String,
    folder: PathBuf,
    /// What goes when the process does.
    removed: PathBuf,
    base: u16,
    /// Its end closes the supervisor's input, and with it the server.
    supervisor: Mutex<Option<Child>>,
}

/// One version of a key as the server lists it, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Version {
    pub(crate) key: String,
    pub(crate) id: String,
    pub(crate) is_latest: bool,
    pub(crate) size_bytes: i64,
}

/// Returns the server; starts it on first use.
pub(crate) async fn s3() -> &'static S3Server {
    static SERVER: OnceLock<S3Server> = OnceLock::new();
    tokio::task::spawn_blocking(|| SERVER.get_or_init(|| start(false))).await.expect("the S3 server starts")
}

/// Starts a server. What a private one holds outlasts its process, so that it can be started again.
fn start(is_private: bool) -> S3Server {
    let weed = python::programs().join("weed");
    let mut log = String::new();
    for _ in 0..STARTS {
        let folder = tempfile::Builder::new()
            .prefix("s3-")
            .tempdir_in(env!("CARGO_TARGET_TMPDIR"))
            .expect("a folder for the server")
            .keep();
        let base = free_ports();
        let data = folder.join("data");
        fs::create_dir(&data).expect("a folder for the data");
        let removed = if is_private { folder.join("run") } else { folder.clone() };
        let mut supervisor = spawn(&weed, &folder, &removed, base);
        let s3_port = base + S3_PORT;
        if is_healthy(&mut supervisor, s3_port) {
            let endpoint = format!("http://127.0.0.1:{s3_port}");
            return S3Server { endpoint, folder, removed, base, supervisor: Mutex::new(Some(supervisor)) };
        }
        log = fs::read_to_string(folder.join("log")).unwrap_or_default();
        drop(supervisor.stdin.take());
        let _ = supervisor.wait();
    }
    panic!("SeaweedFS does not start; the end of its log:\n{}", tail(&log));
}

fn spawn(weed: &Path, folder: &Path, removed: &Path, base: u16) -> Child {
    let identities = folder.join("identities.json");
    fs::write(&identities, identities_json()).expect("the identities can be written");
    let data = folder.join("data");
    let log = File::create(folder.join("log")).expect("a log file");
    let ports = PORTS.iter().zip(base..).map(|(name, port)| format!("-{name}.port={port}"));
    Command::new(python::programs().join("python"))
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/support/supervise.py"))
        .arg(removed)
        .arg(weed)
        .args(["-logtostderr", "mini", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"])
        .arg(option("-dir=", &data))
        .arg(option("-s3.config=", &identities))
        .args(ports)
        .args([
            // It reports to its makers by default.
            "-master.telemetry=false",
            "-webdav=false",
            "-admin.ui=false",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            // As on AWS: a bucket that is not there is not made by writing into it.
            "-s3.autoCreateBucket=false",
            "-s3.allowDeleteBucketNotEmpty=false",
            // Every bucket takes volumes of its own; the default is soon used up.
            "-volume.max=5000",
            "-master.volumeSizeLimitMB=256",
        ])
        // It leaves sockets named by port in the temporary folder.
        .env("TMPDIR", folder)
        .stdin(Stdio::piped())
        .stdout(log.try_clone().expect("a log file"))
        .stderr(log)
        .spawn()
        .expect("the supervisor starts")
}

fn option(name: &str, path: &Path) -> std::ffi::OsString {
    let mut option = std::ffi::OsString::from(name);
    option.push(path);
    option
}

fn identities_json() -> String {
    let identity = |name: &str, identity: Identity, actions: &[&str]| {
        serde_json::json!({
            "name": name,
            "credentials": [{"accessKey": identity.access_key_id, "secretKey": identity.secret_access_key}],
            "actions": actions,
        })
    };
    serde_json::json!({
        "identities": [
            identity("admin", ADMIN, &["Admin", "Read", "Write", "List", "Tagging"]),
            identity(
                "writer",
                WRITER,
                &[
                    "Read", "Write", "List", "Tagging", "PutObjectRetention", "GetObjectRetention",
                    "PutObjectLegalHold", "GetObjectLegalHold",
                ],
            ),
            identity("reader", READER, &["Read", "List"]),
        ],
        "kms": {"default_provider": "local", "providers": {"local": {"type": "local"}}},
    })
    .to_string()
}

/// Finds a row of ports that are free, as are those ten thousand above; all below the range of outgoing connections.
fn free_ports() -> u16 {
    let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let seed = u32::from_be_bytes(uuid::Uuid::new_v4().as_bytes()[..4].try_into().expect("four bytes"));
    for step in 0..2_000 {
        let base = 11_000 + u16::try_from((seed % 1_000 + step) % 1_000).unwrap_or(0) * 10;
        let mut ports = (base..).take(PORTS.len()).flat_map(|port| [port, port + 10_000]);
        if ports.all(is_free) {
            return base;
        }
    }
    panic!("no free ports");
}

fn is_healthy(supervisor: &mut Child, port: u16) -> bool {
    let polls = START_LIMIT.as_millis() / 50;
    for _ in 0..polls {
        if answers(port) {
            return true;
        }
        if supervisor.try_wait().is_ok_and(|ended| ended.is_some()) {
            return false;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    false
}

fn answers(port: u16) -> bool {
    let asked = TcpStream::connect(("127.0.0.1", port)).and_then(|mut stream| {
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"GET /healthz HTTP/1.0\r\n\r\n")?;
        let mut status = [0; 12];
        stream.read_exact(&mut status)?;
        Ok(status)
    });
    asked.is_ok_and(|status| status.ends_with(b"200"))
}

impl Drop for S3Server {
    fn drop(&mut self) {
        self.stop();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn tail(log: &str) -> String {
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}

impl S3Server {
    /// Starts one that a test has for itself, to stop and start it.
    pub(crate) async fn private() -> Self {
        tokio::task::spawn_blocking(|| start(true)).await.expect("the S3 server starts")
    }

    /// Stops it; whoever is connected is cut off.
    pub(crate) fn stop(&self) {
        if let Some(mut supervisor) = self.supervisor.lock().expect("nobody panicked with it").take() {
            drop(supervisor.stdin.take());
            let _ = supervisor.wait();
        }
    }

    /// Starts it again on the same ports, with the same data.
    pub(crate) fn restart(&self) {
        let mut supervisor = spawn(&python::programs().join("weed"), &self.folder, &self.removed, self.base);
        assert!(is_healthy(&mut supervisor, self.base + S3_PORT), "SeaweedFS does not start again");
        *self.supervisor.lock().expect("nobody panicked with it") = Some(supervisor);
    }

    /// Returns the ports behind the back of S3: of the volumes, which hold the bytes, and of the files, which hold the rest.
    pub(crate) fn back_doors(&self) -> (u16, u16) {
        (self.base + 1, self.base + 2)
    }

    /// Makes a bucket that no other test uses; with Object Lock it also has versions.
    pub(crate) async fn create_bucket(&self, name: &str, object_lock: bool) -> Bucket {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("{name}-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let client = self.client(ADMIN);
        client
            .create_bucket()
            .bucket(&name)
            .object_lock_enabled_for_bucket(object_lock)
            .send()
            .await
            .expect("the bucket is made");
        Bucket { name, client, endpoint: self.endpoint.clone() }
    }

    /// Returns a client that is not the program's.
    pub(crate) fn client(&self, identity: Identity) -> Client {
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::from_static("us-east-1"))
            .endpoint_url(&self.endpoint)
            .force_path_style(true)
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .credentials_provider(Credentials::new(
                identity.access_key_id,
                identity.secret_access_key,
                None,
                None,
                "test",
            ))
            .build();
        Client::from_conf(config)
    }
}

/// A bucket of one test, seen by the administrator.
pub(crate) struct Bucket {
    pub(crate) name: String,
    pub(crate) endpoint: String,
    client: Client,
}

impl Bucket {
    /// Returns the settings for this bucket below a prefix.
    pub(crate) fn settings(&self, prefix: &str) -> S3Settings {
        S3Settings {
            endpoint_url: Some(self.endpoint.clone()),
            region: Some("us-east-1".to_owned()),
            force_path_style: true,
            ..S3Settings::of_bucket(&self.name, prefix)
        }
    }

    /// Opens the bucket as the program does, as an identity, with the system's clock.
    pub(crate) async fn store(&self, prefix: &str, identity: Identity) -> S3Store {
        open_store(&self.settings(prefix), identity).await
    }

    /// Keeps versions from now on.
    pub(crate) async fn turn_on_versions(&self) {
        let configuration = VersioningConfiguration::builder().status(BucketVersioningStatus::Enabled).build();
        self.client
            .put_bucket_versioning()
            .bucket(&self.name)
            .versioning_configuration(configuration)
            .send()
            .await
            .expect("versions are turned on");
    }

    /// Lists all versions of all keys, delete markers apart, in the order of keys.
    pub(crate) async fn versions(&self) -> Vec<Version> {
        let mut versions = Vec::new();
        let mut marker = (None, None);
        loop {
            let page = self
                .client
                .list_object_versions()
                .bucket(&self.name)
                .set_key_marker(marker.0)
                .set_version_id_marker(marker.1)
                .send()
                .await
                .expect("versions are listed");
            versions.extend(page.versions().iter().map(|version| Version {
                key: version.key().unwrap_or_default().to_owned(),
                id: version.version_id().unwrap_or_default().to_owned(),
                is_latest: version.is_latest().unwrap_or_default(),
                size_bytes: version.size().unwrap_or_default(),
            }));
            if !page.is_truncated().unwrap_or_default() {
                return versions;
            }
            marker = (page.next_key_marker, page.next_version_id_marker);
        }
    }

    /// Tells how many multipart uploads are under way.
    pub(crate) async fn unfinished_uploads(&self) -> usize {
        let page = self.client.list_multipart_uploads().bucket(&self.name).send().await.expect("uploads are listed");
        page.uploads().len()
    }

    /// Hides a key behind a delete marker and returns the marker's version.
    pub(crate) async fn put_delete_marker(&self, key: &str) -> String {
        let answer =
            self.client.delete_object().bucket(&self.name).key(key).send().await.expect("the delete marker is put");
        answer.version_id.expect("a delete marker has a version")
    }

    /// Lists the keys that a delete marker hides.
    pub(crate) async fn delete_markers(&self) -> Vec<String> {
        let page = self.client.list_object_versions().bucket(&self.name).send().await;
        let page = page.expect("versions are listed");
        let markers = page.delete_markers().iter();
        markers.filter_map(|marker| marker.key().map(str::to_owned)).collect()
    }

    /// Removes every version of a key, with the right to lift a lock in GOVERNANCE mode.
    pub(crate) async fn remove(&self, key: &str) {
        let versions = self.versions().await;
        for version in versions.iter().filter(|version| version.key == key) {
            let request = self.client.delete_object().bucket(&self.name).key(key);
            let answer = request.version_id(&version.id).bypass_governance_retention(true).send();
            answer.await.expect("the version is removed");
        }
    }

    /// Gives a version another lock, in GOVERNANCE mode and so many days long, with the right to lift what stands.
    pub(crate) async fn relock(&self, key: &str, version_id: Option<&str>, days: i64) {
        let until = SystemClock.now().unix_seconds() + days * 86_400;
        let retention = ObjectLockRetention::builder()
            .mode(ObjectLockRetentionMode::Governance)
            .retain_until_date(DateTime::from_secs(until))
            .build();
        let request = self.client.put_object_retention().bucket(&self.name).key(key);
        let request = request.set_version_id(version_id.map(str::to_owned)).retention(retention);
        let answer = request.bypass_governance_retention(true).send().await;
        answer.expect("the lock is changed");
    }

    /// Names another bucket of the same server, made or not.
    pub(crate) fn named(&self, name: &str) -> Self {
        Self { name: name.to_owned(), endpoint: self.endpoint.clone(), client: self.client.clone() }
    }

    /// Puts other bytes over a key, as someone with the right to write may, and returns their version.
    pub(crate) async fn put_over(&self, key: &str, bytes: &[u8]) -> Option<String> {
        let answer = self
            .client
            .put_object()
            .bucket(&self.name)
            .key(key)
            .body(ByteStream::from(bytes.to_vec()))
            .send()
            .await
            .expect("the bytes are put");
        answer.version_id
    }

    /// Returns the bytes of a version, or of the current one.
    pub(crate) async fn bytes(&self, key: &str, version_id: Option<&str>) -> Vec<u8> {
        let answer = self
            .client
            .get_object()
            .bucket(&self.name)
            .key(key)
            .set_version_id(version_id.map(str::to_owned))
            .send()
            .await
            .expect("the object is there");
        answer.body.collect().await.expect("the body is whole").to_vec()
    }

    /// Returns mode and date of a version's lock.
    pub(crate) async fn retention(&self, key: &str, version_id: Option<&str>) -> Option<(String, Timestamp)> {
        let answer = self
            .client
            .get_object_retention()
            .bucket(&self.name)
            .key(key)
            .set_version_id(version_id.map(str::to_owned))
            .send()
            .await
            .ok()?;
        let retention = answer.retention?;
        let until = retention.retain_until_date?.to_millis().ok()?;
        Some((retention.mode?.as_str().to_owned(), Timestamp::from_unix_millis(until)))
    }

    /// Tries to delete a version and tells whether the server let it go.
    pub(crate) async fn deletes(&self, key: &str, version_id: &str) -> bool {
        let answer = self.client.delete_object().bucket(&self.name).key(key).version_id(version_id);
        answer.send().await.is_ok()
    }
}

/// Opens a bucket as the program does, as an identity, with the system's clock.
pub(crate) async fn open_store(settings: &S3Settings, identity: Identity) -> S3Store {
    let secret = SecretString::from(identity.secret_access_key);
    S3Store::connect_as(settings, identity.access_key_id, &secret, Arc::new(SystemClock))
        .await
        .expect("the client is made")
}
