//! A real SQS server: one moto for the whole test process, on a free port, gone when the process is.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use aws_credential_types::Credentials;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::config::{BehaviorVersion, Region};
use aws_sdk_sqs::types::{QueueAttributeName, SendMessageBatchRequestEntry};
use secrecy::SecretString;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use veriff_archive::source::sqs::{SqsSource, Terms};
use veriff_archive::source::{Checks, QueueSettings};

use super::python;
use super::s3::{ADMIN, Identity};

/// How long the server may take until it listens; it takes two seconds on an idle machine.
const START_LIMIT: Duration = Duration::from_mins(1);

/// The server knows no identities; this is as good as any.
const ANYONE: Identity = ADMIN;

/// The server.
pub(crate) struct SqsServer {
    /// Its address, `http://127.0.0.1:PORT`.
    pub(crate) endpoint: String,
    /// Its end closes the supervisor's input, and with it the server.
    _supervisor: Child,
}

/// What kind of queue is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Standard,
    Fifo,
}

/// A queue of one test, with its dead-letter queue, seen by someone who may do everything.
pub(crate) struct Queue {
    pub(crate) url: String,
    pub(crate) endpoint: String,
    dead_letters: Option<String>,
    kind: Kind,
    client: Client,
}

/// Returns the server; starts it on first use.
pub(crate) async fn sqs() -> &'static SqsServer {
    static SERVER: OnceLock<SqsServer> = OnceLock::new();
    tokio::task::spawn_blocking(|| SERVER.get_or_init(start)).await.expect("the SQS server starts")
}

fn start() -> SqsServer {
    let folder = tempfile::Builder::new()
        .prefix("sqs-")
        .tempdir_in(env!("CARGO_TARGET_TMPDIR"))
        .expect("a folder for the server")
        .keep();
    let mut supervisor = spawn(&folder);
    let port = port_of(&mut supervisor, &folder.join("port"));
    let log = || fs::read_to_string(folder.join("log")).unwrap_or_default();
    let port = port.unwrap_or_else(|| panic!("moto does not start; its log:\n{}", log()));
    SqsServer { endpoint: format!("http://127.0.0.1:{port}"), _supervisor: supervisor }
}

fn spawn(folder: &Path) -> Child {
    let support = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/support");
    let python = python::programs().join("python");
    let log = File::create(folder.join("log")).expect("a log file");
    Command::new(&python)
        .arg(support.join("supervise.py"))
        .arg(folder)
        .arg(&python)
        .arg(support.join("queue_server.py"))
        .arg(folder.join("port"))
        .stdin(Stdio::piped())
        .stdout(log.try_clone().expect("a log file"))
        .stderr(log)
        .spawn()
        .expect("the supervisor starts")
}

/// Waits until the server says where it listens; nothing if it does not come to that.
fn port_of(supervisor: &mut Child, file: &PathBuf) -> Option<u16> {
    for _ in 0..START_LIMIT.as_millis() / 50 {
        if let Ok(text) = fs::read_to_string(file) {
            return text.parse().ok();
        }
        if supervisor.try_wait().is_ok_and(|ended| ended.is_some()) {
            return None;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    None
}

impl SqsServer {
    /// Makes a queue that no other test uses. With `max_receives` it has a dead-letter queue.
    pub(crate) async fn create_queue(&self, kind: Kind, max_receives: Option<u32>) -> Queue {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let client = client(&self.endpoint);
        let ending = if kind == Kind::Fifo { ".fifo" } else { "" };
        let make = async |name: String, redrive: Option<String>| {
            let mut request = client.create_queue().queue_name(name);
            if kind == Kind::Fifo {
                request = request.attributes(QueueAttributeName::FifoQueue, "true");
            }
            if let Some(redrive) = redrive {
                request = request.attributes(QueueAttributeName::RedrivePolicy, redrive);
            }
            request.send().await.expect("the queue is made").queue_url.expect("a queue has an address")
        };
        let mut dead_letters = None;
        let mut redrive = None;
        if let Some(max_receives) = max_receives {
            let url = make(format!("dead-{number}{ending}"), None).await;
            let arn = format!("arn:aws:sqs:us-east-1:123456789012:dead-{number}{ending}");
            redrive = Some(format!("{{\"deadLetterTargetArn\":\"{arn}\",\"maxReceiveCount\":{max_receives}}}"));
            dead_letters = Some(url);
        }
        let url = make(format!("queue-{number}{ending}"), redrive).await;
        Queue { url, endpoint: self.endpoint.clone(), dead_letters, kind, client }
    }
}

impl Queue {
    /// Names a queue at an address where nobody listens.
    pub(crate) fn nowhere() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port();
        let endpoint = format!("http://127.0.0.1:{port}");
        let url = format!("{endpoint}/123456789012/queue");
        Self { url, client: client(&endpoint), endpoint, dead_letters: None, kind: Kind::Standard }
    }

    /// Sends messages. In a FIFO queue they are one group.
    pub(crate) async fn send<T: AsRef<str>>(&self, bodies: &[T]) {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let is_fifo = self.kind == Kind::Fifo;
        for batch in bodies.chunks(10) {
            let entries = batch.iter().map(|body| {
                let id = NUMBER.fetch_add(1, Ordering::Relaxed).to_string();
                let entry = SendMessageBatchRequestEntry::builder().id(&id).message_body(body.as_ref());
                let entry = if is_fifo { entry.message_group_id("group").message_deduplication_id(id) } else { entry };
                entry.build().expect("a message")
            });
            let request = self.client.send_message_batch().queue_url(&self.url);
            let answer = request.set_entries(Some(entries.collect())).send().await.expect("messages are sent");
            assert!(answer.failed().is_empty(), "{answer:?}");
        }
    }

    /// Opens the queue as the program does.
    pub(crate) async fn source(&self, idle_exit: Duration, terms: Terms, checks: Checks) -> SqsSource {
        let settings = QueueSettings { endpoint_url: Some(self.endpoint.clone()), idle_exit };
        let secret = SecretString::from(ANYONE.secret_access_key);
        SqsSource::open_as(&self.url, &settings, terms, checks, ANYONE.access_key_id, &secret)
            .await
            .expect("the client is made")
    }

    /// Returns how many messages can be received, and how many are hidden.
    pub(crate) async fn depth(&self) -> (u64, u64) {
        depth(&self.client, &self.url).await
    }

    /// Makes every hidden message visible, as if its time were over.
    pub(crate) async fn let_time_pass(&self) {
        let name = self.url.rsplit('/').next().expect("a name");
        let address = self.endpoint.strip_prefix("http://").expect("an address");
        let mut stream = TcpStream::connect(address).await.expect("the server listens");
        let request = format!("GET /let-time-pass/{name} HTTP/1.0\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("the server listens");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("the server answers");
        assert!(answer.contains(" 200 "), "{answer}");
    }

    /// Takes messages as another worker would, without hiding them from anyone.
    pub(crate) async fn touch(&self) -> usize {
        let request = self.client.receive_message().queue_url(&self.url).max_number_of_messages(10);
        let answer = request.visibility_timeout(0).send().await.expect("messages are received");
        answer.messages.unwrap_or_default().len()
    }

    /// Waits for messages as another worker would, for so many seconds, and returns how often each was received.
    pub(crate) async fn receive_elsewhere(&self, seconds: i32) -> Vec<(String, u32)> {
        let request = self.client.receive_message().queue_url(&self.url).wait_time_seconds(seconds);
        let request = request
            .message_system_attribute_names(aws_sdk_sqs::types::MessageSystemAttributeName::ApproximateReceiveCount);
        let answer = request.max_number_of_messages(10).visibility_timeout(600).send().await;
        let messages = answer.expect("messages are received").messages.unwrap_or_default();
        let count = |message: &aws_sdk_sqs::types::Message| {
            message.attributes().and_then(|all| all.values().next()).and_then(|text| text.parse().ok())
        };
        let read = messages.iter().map(|message| (message.body().unwrap_or_default().to_owned(), count(message)));
        read.map(|(body, count)| (body, count.expect("a count"))).collect()
    }

    /// Deletes a message behind the back of whoever has it.
    pub(crate) async fn delete(&self, receipt: &str) {
        let request = self.client.delete_message().queue_url(&self.url).receipt_handle(receipt);
        request.send().await.expect("the message is deleted");
    }

    /// Returns the bodies in the dead-letter queue, each with how many messages have it.
    pub(crate) async fn dead_letters(&self) -> BTreeMap<String, u32> {
        let url = self.dead_letters.as_ref().expect("a dead-letter queue");
        let mut bodies = BTreeMap::new();
        loop {
            let request = self.client.receive_message().queue_url(url).max_number_of_messages(10);
            let answer = request.visibility_timeout(600).send().await.expect("dead letters are received");
            let messages = answer.messages.unwrap_or_default();
            if messages.is_empty() {
                return bodies;
            }
            for message in messages {
                *bodies.entry(message.body.unwrap_or_default()).or_insert(0) += 1;
            }
        }
    }
}

/// Returns a client that is not the program's.
fn client(endpoint: &str) -> Client {
    let (key, secret) = (ANYONE.access_key_id, ANYONE.secret_access_key);
    let config = aws_sdk_sqs::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::from_static("us-east-1"))
        .endpoint_url(endpoint)
        .credentials_provider(Credentials::new(key, secret, None, None, "test"))
        .build();
    Client::from_conf(config)
}

async fn depth(client: &Client, url: &str) -> (u64, u64) {
    let request = client.get_queue_attributes().queue_url(url).attribute_names(QueueAttributeName::All);
    let answer = request.send().await.expect("the queue can be looked at");
    let number = |name: &QueueAttributeName| {
        answer.attributes().and_then(|all| all.get(name)).and_then(|text| text.parse().ok()).expect("a number")
    };
    (
        number(&QueueAttributeName::ApproximateNumberOfMessages),
        number(&QueueAttributeName::ApproximateNumberOfMessagesNotVisible),
    )
}
