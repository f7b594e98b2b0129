//! Doctor: what a run needs, looked at before it starts; each check with its repair.
//!
//! Looks at credentials, Veriff, the store, the ledger and the queue, and changes none of them. Leaves the configuration
//! itself to the shell, which notes its problems here.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::clock::{Clock, Timestamp};
use crate::error::{Exit, with_causes};
use crate::ledger::{self, LedgerError, LedgerUrl};
use crate::model::units::format_duration;
use crate::session::identity::archive_of;
use crate::source::QueueSettings;
use crate::source::sqs::{self, Redrive};
use crate::store::dir::DirStore;
use crate::store::policy::{self, MAX_CLOCK_OFFSET_MS};
use crate::store::s3::{S3Store, Seen};
use crate::store::settings::{S3Settings, StoreSettings};
use crate::store::{ReadStore, StoreError, StoreReport};
use crate::veriff::reach::reach;
use crate::veriff::settings::IntegrationSettings;

/// The value of `schema` in the answer.
const SCHEMA: &str = "veriff-archive/doctor/v1";

/// A message that is received less often before it is set aside may be set aside because workers came and went.
const FEWEST_RECEIVES: u32 = 3;

/// What came of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CheckStatus {
    /// As it should be.
    Ok,
    /// A run can start, but someone should look.
    Warn,
    /// A run cannot start.
    Fail,
}

/// One check.
#[derive(Debug, Clone, Serialize, schemars::JsonSchema)]
pub struct Check {
    /// What was looked at; stable.
    pub name: String,
    /// What came of it.
    pub status: CheckStatus,
    /// What was seen.
    pub detail: String,
    /// What to do; null where nothing is.
    pub repair: Option<String>,
    #[serde(skip)]
    exit: Exit,
}

/// Everything that was looked at.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct Doctor {
    /// Always `veriff-archive/doctor/v1`.
    schema: &'static str,
    /// When.
    as_of: Timestamp,
    /// The version of this program.
    version: &'static str,
    /// The checks, in the order they were made.
    pub checks: Vec<Check>,
}

impl Doctor {
    /// Begins an examination.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        Self { schema: SCHEMA, as_of: now, version: env!("CARGO_PKG_VERSION"), checks: Vec::new() }
    }

    /// Notes what is as it should be.
    pub fn ok(&mut self, name: impl Into<String>, detail: impl Into<String>) {
        self.checks.push(Check {
            name: name.into(),
            status: CheckStatus::Ok,
            detail: detail.into(),
            repair: None,
            exit: Exit::Success,
        });
    }

    /// Notes what a run can start with and someone should attend to.
    pub fn warn(&mut self, name: impl Into<String>, detail: impl Into<String>, repair: impl Into<String>) {
        self.checks.push(Check {
            name: name.into(),
            status: CheckStatus::Warn,
            detail: detail.into(),
            repair: Some(repair.into()),
            exit: Exit::Success,
        });
    }

    /// Notes what keeps a run from starting, and how the command exits for it.
    pub fn fail(&mut self, name: impl Into<String>, exit: Exit, detail: impl Into<String>, repair: impl Into<String>) {
        self.checks.push(Check {
            name: name.into(),
            status: CheckStatus::Fail,
            detail: detail.into(),
            repair: Some(repair.into()),
            exit,
        });
    }

    /// Returns how the command exits.
    #[must_use]
    pub fn exit(&self) -> Exit {
        self.checks.iter().map(|check| check.exit).min().unwrap_or(Exit::Success)
    }
}

impl Doctor {
    /// Reads the secrets of an integration.
    pub async fn look_at_secrets(&mut self, integration: &IntegrationSettings) {
        for (key, secret) in [("api_key", &integration.api_key), ("shared_secret", &integration.shared_secret)] {
            let name = format!("credentials.{}.{key}", integration.name);
            match secret.load().await {
                Ok(_) => self.ok(name, "readable"),
                Err(error) => {
                    let detail = with_causes(&error);
                    self.fail(name, Exit::Config, detail, "make it readable to this process");
                }
            }
        }
    }

    /// Connects to the host of an integration; asks it for nothing.
    pub async fn look_at_veriff(&mut self, integration: &IntegrationSettings, clock: &dyn Clock) {
        let name = format!("veriff.{}", integration.name);
        match reach(integration, clock).await {
            Ok(reached) => {
                self.ok(&name, format!("reachable (HTTP {})", reached.http_status));
                // `Date` has whole seconds, so this is coarse; the store's clock is what counts.
                match reached.clock_offset_ms {
                    Some(offset) if offset.abs() > MAX_CLOCK_OFFSET_MS => self.warn(
                        format!("clock.{}", integration.name),
                        format!("Veriff's clock and ours differ by {offset} ms"),
                        "set this machine's clock, and keep it synchronised with NTP",
                    ),
                    _ => {}
                }
            }
            Err(reason) => {
                self.fail(name, Exit::TryLater, reason, "check integrations.*.base_url, DNS, proxy and firewall");
            }
        }
    }

    /// Examines the store; `needs_locks` says whether the policy demands that it locks.
    pub async fn look_at_store(&mut self, settings: &StoreSettings, needs_locks: bool, clock: &Arc<dyn Clock>) {
        match settings {
            StoreSettings::Dir(directory) => {
                if directory.is_dir() {
                    match look_into(directory, clock).await {
                        Ok(store) => {
                            self.ok("store", "readable");
                            self.look_at_archive(&store).await;
                        }
                        Err(error) => self.note_store_error("store", &error),
                    }
                } else {
                    self.ok("store", "the directory does not exist yet; the first run creates it");
                }
                if needs_locks {
                    self.warn(
                        "store.object_lock",
                        "a directory cannot lock: the mode is recorded as none",
                        "use an s3:// store with Object Lock for evidence that must be retained",
                    );
                }
            }
            StoreSettings::S3(settings) => self.look_at_bucket(settings, needs_locks, clock).await,
        }
    }

    async fn look_at_bucket(&mut self, settings: &S3Settings, needs_locks: bool, clock: &Arc<dyn Clock>) {
        let store = match S3Store::connect(settings, Arc::clone(clock)).await {
            Ok(store) => store,
            Err(error) => return self.note_store_error("store", &error),
        };
        match store.check().await {
            Ok(report) => {
                self.ok("store", "reachable");
                self.note_report(&report, needs_locks);
            }
            Err(error @ StoreError::ClockSkew { .. }) => self.note_store_error("clock", &error),
            Err(error) => return self.note_store_error("store", &error),
        }
        match store.inspect().await {
            Ok(seen) => {
                self.note_public_access(&seen.public_access_blocked);
                self.note_lifecycle(&seen.unfinished_uploads_removed_days);
                self.note_encryption(&seen.default_encryption, settings);
            }
            Err(error) => self.note_store_error("store", &error),
        }
        self.look_at_archive(&store).await;
    }

    /// Reads `archive.json`, as every command does that writes.
    async fn look_at_archive(&mut self, store: &dyn ReadStore) {
        const NAME: &str = "archive";
        match archive_of(store).await {
            Ok(Some(archive)) => self.ok(NAME, format!("archive.json names archive {archive}")),
            Ok(None) => self.ok(NAME, "there is no archive.json yet; the first run creates it"),
            Err(error) => {
                let code = error.code();
                let repair = format!("see docs/runbook.md under {code}");
                self.fail(NAME, Exit::of_fatal(code), error.to_string(), repair);
            }
        }
    }

    fn note_report(&mut self, report: &StoreReport, needs_locks: bool) {
        match report.clock_offset_ms {
            Some(offset) => self.ok("clock", format!("the store's clock and ours differ by {offset} ms")),
            None => self.ok("clock", "the store has no clock of its own"),
        }
        match policy::demand(report, needs_locks) {
            Err(error) => self.note_store_error("store.object_lock", &error),
            Ok(()) if needs_locks => self.ok("store.object_lock", "versioning and Object Lock are on"),
            Ok(()) => self.warn(
                "store.object_lock",
                "the policy locks nothing: anyone who can write can also destroy",
                "configure a [retention] policy, and use a bucket with Object Lock",
            ),
        }
        if let Some(default_lock) = &report.default_lock {
            self.ok("store.default_lock", default_lock);
        }
    }

    fn note_public_access(&mut self, seen: &Seen<bool>) {
        const NAME: &str = "store.public_access";
        match seen {
            Seen::Found(true) => self.ok(NAME, "blocked"),
            Seen::Found(false) | Seen::Absent => self.warn(
                NAME,
                "not blocked on the bucket",
                "turn on all four switches of its public access block (the account may have them on already)",
            ),
            Seen::Unknown(reason) => self.warn(NAME, reason, "check it yourself, or allow this identity to read it"),
        }
    }

    fn note_lifecycle(&mut self, seen: &Seen<i32>) {
        const NAME: &str = "store.unfinished_uploads";
        match seen {
            Seen::Found(days) => self.ok(NAME, format!("removed after {days} days")),
            Seen::Absent => self.warn(
                NAME,
                "never removed: parts of uploads that a crash cut off cost money for ever",
                "add a lifecycle rule with AbortIncompleteMultipartUpload, such as after 7 days",
            ),
            Seen::Unknown(reason) => self.warn(NAME, reason, "check it yourself, or allow this identity to read it"),
        }
    }

    fn note_encryption(&mut self, seen: &Seen<String>, settings: &S3Settings) {
        const NAME: &str = "store.encryption";
        let asked = settings.kms_key_id.as_deref().unwrap_or("as configured in store.sse");
        match seen {
            Seen::Found(default) => {
                self.ok(NAME, format!("the bucket's default is {default}; this program requests {asked}"));
            }
            Seen::Absent => self.warn(NAME, "the bucket has no default encryption", "give it one, or set store.sse"),
            Seen::Unknown(reason) => self.warn(NAME, reason, "check it yourself, or allow this identity to read it"),
        }
    }

    fn note_store_error(&mut self, name: &str, error: &StoreError) {
        let exit = Exit::of_fatal(error.code());
        let repair = match error {
            StoreError::Denied { .. } => "grant this identity the permission that is named",
            StoreError::ClockSkew { .. } => "set this machine's clock, and keep it synchronised with NTP",
            StoreError::Unavailable { .. } => "check store.endpoint_url, store.region, DNS, proxy and firewall",
            _ => "see docs/runbook.md under store.policy",
        };
        self.fail(name, exit, error.to_string(), repair);
    }

    /// Examines the ledger; makes none.
    pub async fn look_at_ledger(&mut self, url: &LedgerUrl) {
        const NAME: &str = "ledger";
        match ledger::exposure(url) {
            Ok(Some(exposure)) => self.warn(
                "ledger.tls",
                exposure,
                "add sslmode=verify-full, and sslrootcert=FILE with the CA of the server, to ledger.url",
            ),
            Ok(None) => {}
            Err(error) => return self.note_ledger_error(&error),
        }
        match (ledger::exists(url).await, ledger::is_made_unasked(url)) {
            (Ok(false), Ok(true)) => return self.ok(NAME, "does not exist yet; the first run creates it"),
            (Ok(false), Ok(false)) => {
                return self.fail(
                    NAME,
                    Exit::Config,
                    "the database holds no ledger yet",
                    "run `veriff-archive ledger migrate` with the same configuration",
                );
            }
            (Ok(true), _) => {}
            (Err(error), _) | (_, Err(error)) => return self.note_ledger_error(&error),
        }
        let archive = match ledger::open(url).await {
            Ok(ledger) => {
                let archive = ledger.archive_id().await;
                ledger.close().await;
                archive
            }
            Err(error) => Err(error),
        };
        match archive {
            Ok(Some(archive_id)) => self.ok(NAME, format!("readable; belongs to archive {archive_id}")),
            Ok(None) => self.ok(NAME, "readable; belongs to no archive yet"),
            Err(error) => self.note_ledger_error(&error),
        }
    }

    /// Examines a queue that is to be worked through with leases of this length.
    pub async fn look_at_queue(&mut self, url: &str, settings: &QueueSettings, lease: Duration, ledger: &LedgerUrl) {
        const NAME: &str = "queue";
        let seen = match sqs::inspect(url, settings).await {
            Ok(seen) => seen,
            Err(error) => {
                let repair = "see docs/runbook.md under queue.denied and queue.unavailable";
                return self.fail(NAME, Exit::of_fatal(error.code()), error.to_string(), repair);
            }
        };
        let kind = if seen.is_fifo { "a FIFO queue" } else { "a standard queue" };
        self.ok(NAME, format!("{kind}; {} messages, of which {} are in flight", seen.messages(), seen.in_flight));
        self.note_redrive(seen.redrive.as_ref());
        let own = seen.visibility_timeout.map_or_else(|| "unknown".to_owned(), format_duration);
        let lease = format_duration(lease);
        self.ok("queue.visibility", format!("this program sets {lease} and renews it; the queue's own is {own}"));
        if ledger.starts_with("sqlite") {
            self.warn(
                "queue.ledger",
                "a SQLite ledger is one file on one machine: workers on other machines would each have their own \
                 ledger",
                "use a postgres:// ledger if several workers read this queue",
            );
        }
    }

    fn note_redrive(&mut self, redrive: Option<&Redrive>) {
        const NAME: &str = "queue.redrive";
        match redrive {
            None => self.warn(
                NAME,
                "none: messages that cannot be read, or fail every time, are delivered again until they expire and \
                 are lost",
                "give the queue a redrive policy with a dead-letter queue",
            ),
            Some(redrive) if redrive.max_receives < FEWEST_RECEIVES => self.warn(
                NAME,
                format!("after {} receives; receives by workers that are stopped count too", redrive.max_receives),
                format!("set maxReceiveCount to {FEWEST_RECEIVES} or more"),
            ),
            Some(redrive) => {
                self.ok(NAME, format!("to {} after {} receives", redrive.target_arn, redrive.max_receives));
            }
        }
    }

    fn note_ledger_error(&mut self, error: &LedgerError) {
        let exit = Exit::of_fatal(error.code());
        let repair = match error {
            LedgerError::Url(_) => "correct ledger.url",
            LedgerError::Schema(_) => "see docs/runbook.md under ledger.schema",
            LedgerError::Unavailable { .. } | LedgerError::Damaged(_) | LedgerError::RunClosed(_) => {
                "check ledger.url, and the file or the server it names; see docs/runbook.md under ledger.unavailable"
            }
        };
        self.fail("ledger", exit, with_causes(error), repair);
    }
}

async fn look_into(directory: &Path, clock: &Arc<dyn Clock>) -> Result<DirStore, StoreError> {
    let store = DirStore::open(directory, Arc::clone(clock)).await?;
    store.check().await?;
    Ok(store)
}
