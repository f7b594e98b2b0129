//! S3: a bucket as a write-once store.
//!
//! Every write is conditional (`If-None-Match: *`), carries its SHA-256 in advance as a header, and asks for lock,
//! encryption and storage class in the same request; nothing is sent in chunks or with trailers, on which S3-compatible
//! servers differ. The SDK tries once; [`RetryingStore`](super::retrying::RetryingStore) decides about more. A store that
//! answers without a checksum is believed to have verified the one it was sent, and ours is recorded.

mod error;
mod inspect;
mod list;
mod upload;
mod wire;

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::ProfileFileRegionProvider;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region};
use aws_credential_types::Credentials;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{RequestChecksumCalculation, ResponseChecksumValidation, StalledStreamProtectionConfig};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::get_object::builders::GetObjectFluentBuilder;
use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::primitives::DateTime;
use aws_sdk_s3::types::{
    BucketVersioningStatus, ChecksumAlgorithm, ChecksumMode, ObjectLockConfiguration, ObjectLockEnabled,
    ObjectLockMode, ObjectLockRetention, ObjectLockRetentionMode, ServerSideEncryption, StorageClass,
};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use secrecy::{ExposeSecret as _, SecretString};

use self::error::{Fault, fault_of, no_lock, unavailable};
pub use self::inspect::{BucketReport, Seen};
use self::wire::{KnownDigest, S3Chunks, StoreClock, body_of};
use super::settings::{S3Settings, Sse, parse_object_url};
use super::{
    Features, ListPage, ObjectBody, ObjectHead, PageToken, PutOutcome, Store, StoreError, StoreReport, Stored, Terms,
    Upload, policy,
};
use crate::clock::{Clock, Timestamp};
use crate::model::digest::{Checksum, Payload};
use crate::model::key::ObjectKey;
use crate::model::retention::{Lock, Mode};

/// A server that does not take a connection within this time is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest time for a request that carries at most [`SINGLE_PUT_MAX_BYTES`](crate::model::digest::SINGLE_PUT_MAX_BYTES):
/// generous, because a slow line moves 16 MiB in minutes.
const TRANSFER_TIMEOUT: Duration = Duration::from_mins(5);

/// The longest time for a request without a body; completing a large upload takes S3 a while.
const ANSWER_TIMEOUT: Duration = Duration::from_mins(2);

/// How long an expired token is taken for one that the credential chain is about to replace.
const TOKEN_GRACE: Duration = Duration::from_mins(2);

/// The region that is signed for where an S3-compatible server is named and no region.
const COMPATIBLE_REGION: &str = "us-east-1";

/// The right to see whether the bucket locks.
const LOCK_PERMISSION: &str = "s3:GetBucketObjectLockConfiguration";

/// A bucket, or the part of it below a prefix.
#[derive(Clone)]
pub struct S3Store {
    bucket: Arc<Bucket>,
}

/// What every request needs; shared with the uploads under way.
struct Bucket {
    client: Client,
    name: String,
    /// With a slash behind it, or empty.
    prefix: String,
    owner: Option<String>,
    sse: Sse,
    kms_key_id: Option<String>,
    /// Nothing for the standard class, which needs no header.
    media_class: Option<StorageClass>,
    clock: StoreClock,
    token_expired_at: Mutex<Option<Instant>>,
    features: OnceLock<Features>,
}

impl S3Store {
    /// Makes a client for a bucket; asks the bucket nothing yet.
    ///
    /// # Errors
    /// Fatal: no region is known.
    pub async fn connect(settings: &S3Settings, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        Self::connect_with(settings, None, clock).await
    }

    /// Makes a client with a fixed key instead of the default credential chain: for tests and tools that act as several
    /// identities in one process.
    ///
    /// # Errors
    /// As [`S3Store::connect`].
    pub async fn connect_as(
        settings: &S3Settings,
        access_key_id: &str,
        secret_access_key: &SecretString,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, StoreError> {
        let credentials = Credentials::new(
            access_key_id,
            secret_access_key.expose_secret(),
            None,
            None,
            "fixed access key",
        );
        Self::connect_with(settings, Some(credentials), clock).await
    }

    async fn connect_with(
        settings: &S3Settings,
        credentials: Option<Credentials>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, StoreError> {
        let region = region_of(settings).await?;
        let clock = StoreClock::new(clock);
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .region(region)
            // Retries are ours: the SDK's quota is shared by the whole process and must not be what ends a run.
            .retry_config(RetryConfig::disabled())
            .timeout_config(TimeoutConfig::builder().connect_timeout(CONNECT_TIMEOUT).build())
            // Our own limits bound every request and every pause of a body.
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
        if let Some(endpoint_url) = &settings.endpoint_url {
            loader = loader.endpoint_url(endpoint_url);
        }
        if let Some(credentials) = credentials {
            loader = loader.credentials_provider(credentials);
        }
        let config = aws_sdk_s3::config::Builder::from(&loader.load().await)
            .force_path_style(settings.force_path_style)
            .interceptor(KnownDigest)
            .interceptor(clock.clone())
            .build();
        Ok(Self {
            bucket: Arc::new(Bucket {
                client: Client::from_conf(config),
                name: settings.bucket.clone(),
                prefix: prefix_of(&settings.prefix),
                owner: settings.expected_bucket_owner.clone(),
                sse: settings.sse,
                kms_key_id: settings.kms_key_id.clone(),
                media_class: Some(settings.storage_class.as_str())
                    .filter(|class| *class != "STANDARD")
                    .map(StorageClass::from),
                clock,
                token_expired_at: Mutex::new(None),
                features: OnceLock::new(),
            }),
        })
    }

    /// Opens one object of any bucket, `s3://bucket/key`, with the store's endpoint and credentials, or `None`. The file
    /// source reads its list through this.
    ///
    /// # Errors
    /// Fatal: no such address, or denied. Retryable: unreachable.
    pub async fn open_source(
        url: &str,
        settings: &S3Settings,
        clock: Arc<dyn Clock>,
    ) -> Result<Option<ObjectBody>, StoreError> {
        Self::connect(settings, clock).await?.open_other(url).await
    }

    /// Opens one object of any bucket, `s3://bucket/key`, with this store's connection, or `None`.
    ///
    /// # Errors
    /// As [`S3Store::open_source`].
    pub async fn open_other(&self, url: &str) -> Result<Option<ObjectBody>, StoreError> {
        let (bucket, key) = parse_object_url(url).map_err(|error| StoreError::Unfit(error.to_string()))?;
        // Without the expected owner: a list of sessions may well lie in a bucket of another account.
        let request = self.bucket.client.get_object().bucket(bucket).key(key);
        self.bucket.open(request).await
    }
}

impl fmt::Debug for S3Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Store")
            .field("bucket", &self.bucket.name)
            .field("prefix", &self.bucket.prefix)
            .finish_non_exhaustive()
    }
}

/// Sets what every new object has; the two requests that make one have the same setters and no common trait.
macro_rules! with_terms {
    ($bucket:expr, $request:expr, $key:expr, $terms:expr) => {
        $request
            .bucket(&$bucket.name)
            .key($bucket.full_key($key))
            .set_expected_bucket_owner($bucket.owner.clone())
            .content_type(&$terms.content_type)
            .checksum_algorithm(ChecksumAlgorithm::Sha256)
            .set_object_lock_mode($terms.lock.and_then(|lock| lock_mode(lock.mode)))
            .set_object_lock_retain_until_date(
                $terms
                    .lock
                    .filter(|lock| lock.mode != Mode::None)
                    .map(|lock| date_of(lock.retain_until)),
            )
            .set_server_side_encryption($bucket.encryption())
            .set_ssekms_key_id($bucket.kms_key_id.clone().filter(|_| $bucket.sse == Sse::AwsKms))
            .set_storage_class($bucket.media_class.clone().filter(|_| !$terms.is_document))
    };
}
use with_terms;

#[async_trait]
impl Store for S3Store {
    fn features(&self) -> Features {
        self.bucket.features.get().copied().unwrap_or_default()
    }

    fn now(&self) -> Timestamp {
        self.bucket.clock.now()
    }

    fn clock_offsets(&self) -> Option<(i64, i64)> {
        self.bucket.clock.offsets().map(|seen| (seen.min, seen.max))
    }

    async fn check(&self) -> Result<StoreReport, StoreError> {
        let bucket = &*self.bucket;
        bucket.exists().await?;
        let versions = bucket.is_versioned().await?;
        let (locks, lock, locks_assumed) = match bucket.lock_configuration().await {
            Ok(lock) => (is_enabled(lock.as_ref()), lock, None),
            // Not a reason to stop: a bucket without Object Lock refuses the first write that asks for a lock.
            Err(StoreError::Denied { .. }) if versions => (true, None, Some(LOCK_PERMISSION)),
            Err(StoreError::Denied { .. }) => (false, None, None),
            Err(error) => return Err(error),
        };
        let features = Features { locks, versions };
        let _ = bucket.features.set(features);
        let report = StoreReport {
            features,
            clock_offset_ms: bucket.clock.offsets().map(|seen| seen.last),
            default_lock: lock.as_ref().and_then(default_lock_of),
            locks_assumed,
        };
        policy::check_clock(&report)?;
        Ok(report)
    }

    async fn put(&self, key: &ObjectKey, payload: &Payload, terms: &Terms) -> Result<PutOutcome, StoreError> {
        const ACTION: &str = "write an object";
        let bucket = &*self.bucket;
        let checksum = Checksum::full(payload.sha256());
        let request = with_terms!(bucket, bucket.client.put_object(), key, terms)
            .if_none_match("*")
            .checksum_sha256(&checksum.value)
            .content_length(i64::try_from(payload.size_bytes()).unwrap_or(i64::MAX))
            .body(body_of(payload));
        // Boxed because the input of this request is the largest of all.
        let answer = match Box::pin(bucket.call(ACTION, TRANSFER_TIMEOUT, request.send())).await {
            Err(Fault::Taken) => return Ok(PutOutcome::Taken),
            other => other.map_err(|fault| bucket.write_error(ACTION, terms, fault))?,
        };
        same_checksum(ACTION, answer.checksum_sha256(), &checksum)?;
        Ok(PutOutcome::Created(Stored {
            version_id: answer.version_id,
            checksum,
        }))
    }

    async fn start_upload(&self, key: &ObjectKey, terms: &Terms) -> Result<Box<dyn Upload>, StoreError> {
        let upload = upload::S3Upload::start(Arc::clone(&self.bucket), key, terms).await?;
        Ok(Box::new(upload))
    }

    async fn head(&self, key: &ObjectKey, version: Option<&str>) -> Result<Option<ObjectHead>, StoreError> {
        self.bucket.head(key, version).await
    }

    async fn open(&self, key: &ObjectKey, version: Option<&str>) -> Result<Option<ObjectBody>, StoreError> {
        let bucket = &*self.bucket;
        let request = bucket
            .client
            .get_object()
            .bucket(&bucket.name)
            .key(bucket.full_key(key))
            .set_expected_bucket_owner(bucket.owner.clone())
            .set_version_id(version.map(str::to_owned));
        bucket.open(request).await
    }

    async fn list(&self, prefix: &str, after: Option<PageToken>) -> Result<ListPage, StoreError> {
        let features = match self.bucket.features.get() {
            Some(features) => *features,
            None => self.check().await?.features,
        };
        if features.versions {
            self.bucket.list_versions(prefix, after).await
        } else {
            self.bucket.list_objects(prefix, after).await
        }
    }

    async fn extend_lock(&self, key: &ObjectKey, version: Option<&str>, lock: Lock) -> Result<(), StoreError> {
        const ACTION: &str = "extend a lock";
        let Some(mode) = retention_mode(lock.mode) else {
            return Ok(());
        };
        let bucket = &*self.bucket;
        if bucket.features.get().is_some_and(|features| !features.locks) {
            return Err(StoreError::Unsupported("lock objects"));
        }
        // Never with the right to bypass governance: what stands may only become stricter or longer, and S3 sees to it.
        let request = bucket
            .client
            .put_object_retention()
            .bucket(&bucket.name)
            .key(bucket.full_key(key))
            .set_expected_bucket_owner(bucket.owner.clone())
            .set_version_id(version.map(str::to_owned))
            .retention(
                ObjectLockRetention::builder()
                    .mode(mode)
                    .retain_until_date(date_of(lock.retain_until))
                    .build(),
            );
        bucket
            .call(ACTION, ANSWER_TIMEOUT, request.send())
            .await
            .map_err(|fault| bucket.error_of(ACTION, fault))?;
        Ok(())
    }
}

impl Bucket {
    fn full_key(&self, key: &ObjectKey) -> String {
        format!("{}{key}", self.prefix)
    }

    fn encryption(&self) -> Option<ServerSideEncryption> {
        match self.sse {
            Sse::BucketDefault => None,
            Sse::Aes256 => Some(ServerSideEncryption::Aes256),
            Sse::AwsKms => Some(ServerSideEncryption::AwsKms),
        }
    }

    /// Sends a request within a time limit and reads a failure.
    async fn call<T, E>(
        &self,
        action: &'static str,
        limit: Duration,
        request: impl Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    ) -> Result<T, Fault>
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        match tokio::time::timeout(limit, request).await {
            Err(_) => {
                let reason = format!("no answer within {} s", limit.as_secs());
                Err(Fault::Error(unavailable(action, reason, true)))
            }
            Ok(Err(error)) => Err(fault_of(action, &error)),
            Ok(Ok(answer)) => {
                *self.token_expired_at() = None;
                Ok(answer)
            }
        }
    }

    /// Makes an error of what the caller has no other use for.
    fn error_of(&self, action: &'static str, fault: Fault) -> StoreError {
        match fault {
            Fault::Error(error) => error,
            Fault::Conflict => unavailable(action, "409, another write of the key is under way".to_owned(), false),
            Fault::Taken => unavailable(action, "412 without being asked".to_owned(), false),
            Fault::Absent => unavailable(action, "404".to_owned(), false),
            Fault::NoSuchUpload => unavailable(action, "404 NoSuchUpload".to_owned(), false),
            Fault::Invalid(answer) => unavailable(action, answer, false),
            Fault::ClockSkew => StoreError::ClockSkew {
                offset_ms: self.clock.offsets().map_or(0, |seen| seen.last),
            },
            Fault::ExpiredToken => self.expired(action),
        }
    }

    /// Makes an error of a failed write. Some servers do not say that it is the lock they refuse.
    fn write_error(&self, action: &'static str, terms: &Terms, fault: Fault) -> StoreError {
        match fault {
            Fault::Invalid(answer) if terms.lock.is_some() => no_lock(&answer),
            fault => self.error_of(action, fault),
        }
    }

    /// An expired token is a passing thing while the chain fetches the next one, and a refusal when none comes.
    fn expired(&self, action: &'static str) -> StoreError {
        let now = self.clock.ours().instant();
        let since = *self.token_expired_at().get_or_insert(now);
        if now.duration_since(since) < TOKEN_GRACE {
            unavailable(action, "ExpiredToken".to_owned(), true)
        } else {
            StoreError::Denied {
                action,
                reason: "ExpiredToken; renew the AWS credentials".to_owned(),
            }
        }
    }

    fn token_expired_at(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.token_expired_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn exists(&self) -> Result<(), StoreError> {
        const ACTION: &str = "look at the bucket (s3:ListBucket)";
        let request = self
            .client
            .head_bucket()
            .bucket(&self.name)
            .set_expected_bucket_owner(self.owner.clone());
        match self.call(ACTION, ANSWER_TIMEOUT, request.send()).await {
            Ok(_) => Ok(()),
            Err(Fault::Absent) => Err(StoreError::Unfit(format!(
                "the bucket {} does not exist; make it with versioning and Object Lock, or correct store.url",
                self.name
            ))),
            Err(fault) => Err(self.error_of(ACTION, fault)),
        }
    }

    async fn is_versioned(&self) -> Result<bool, StoreError> {
        const ACTION: &str = "read the bucket's versioning (s3:GetBucketVersioning)";
        let request = self
            .client
            .get_bucket_versioning()
            .bucket(&self.name)
            .set_expected_bucket_owner(self.owner.clone());
        match self.call(ACTION, ANSWER_TIMEOUT, request.send()).await {
            Ok(answer) => Ok(answer.status() == Some(&BucketVersioningStatus::Enabled)),
            Err(Fault::Absent | Fault::Error(StoreError::Unsupported(_))) => Ok(false),
            Err(fault) => Err(self.error_of(ACTION, fault)),
        }
    }

    async fn lock_configuration(&self) -> Result<Option<ObjectLockConfiguration>, StoreError> {
        const ACTION: &str = "read the bucket's Object Lock (s3:GetBucketObjectLockConfiguration)";
        let request = self
            .client
            .get_object_lock_configuration()
            .bucket(&self.name)
            .set_expected_bucket_owner(self.owner.clone());
        match self.call(ACTION, ANSWER_TIMEOUT, request.send()).await {
            Ok(answer) => Ok(answer.object_lock_configuration),
            Err(Fault::Absent | Fault::Error(StoreError::Unsupported(_))) => Ok(None),
            Err(fault) => Err(self.error_of(ACTION, fault)),
        }
    }

    async fn head(&self, key: &ObjectKey, version: Option<&str>) -> Result<Option<ObjectHead>, StoreError> {
        const ACTION: &str = "look at an object";
        let request = self
            .client
            .head_object()
            .bucket(&self.name)
            .key(self.full_key(key))
            .set_expected_bucket_owner(self.owner.clone())
            .set_version_id(version.map(str::to_owned))
            .checksum_mode(ChecksumMode::Enabled);
        match self.call(ACTION, ANSWER_TIMEOUT, request.send()).await {
            Ok(answer) => head_of(ACTION, answer).map(Some),
            Err(Fault::Absent) => Ok(None),
            Err(fault) => Err(self.error_of(ACTION, fault)),
        }
    }

    async fn open(&self, request: GetObjectFluentBuilder) -> Result<Option<ObjectBody>, StoreError> {
        const ACTION: &str = "read an object";
        // The limit covers the time up to the first byte; the body has its own.
        let answer = match self.call(ACTION, ANSWER_TIMEOUT, request.send()).await {
            Err(Fault::Absent) => return Ok(None),
            other => other.map_err(|fault| self.error_of(ACTION, fault))?,
        };
        let size_bytes = length_of(ACTION, answer.content_length())?;
        Ok(Some(ObjectBody::new(size_bytes, Box::new(S3Chunks(answer.body)))))
    }
}

async fn region_of(settings: &S3Settings) -> Result<Region, StoreError> {
    if let Some(region) = &settings.region {
        return Ok(Region::new(region.clone()));
    }
    let chain = if settings.endpoint_url.is_some() {
        // Not the default chain: it would also ask the metadata service of a cloud that may not be there.
        RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new())
            .or_else(ProfileFileRegionProvider::new())
            .or_else(Region::from_static(COMPATIBLE_REGION))
    } else {
        RegionProviderChain::default_provider()
    };
    chain
        .region()
        .await
        .ok_or_else(|| StoreError::Unfit("no region is known; set store.region or AWS_REGION".to_owned()))
}

fn prefix_of(text: &str) -> String {
    match text.trim_matches('/') {
        "" => String::new(),
        prefix => format!("{prefix}/"),
    }
}

/// Refuses an answer that tells another checksum than was sent.
fn same_checksum(action: &'static str, answered: Option<&str>, sent: &Checksum) -> Result<(), StoreError> {
    match answered {
        Some(answered) if answered != sent.value => Err(StoreError::Checksum { action }),
        _ => Ok(()),
    }
}

fn head_of(action: &'static str, answer: HeadObjectOutput) -> Result<ObjectHead, StoreError> {
    Ok(ObjectHead {
        size_bytes: length_of(action, answer.content_length())?,
        checksum: answer.checksum_sha256().map(Checksum::from_store),
        lock: lock_of(answer.object_lock_mode(), answer.object_lock_retain_until_date()),
        kms_key_id: answer.ssekms_key_id,
        version_id: answer.version_id,
    })
}

fn length_of(action: &'static str, length: Option<i64>) -> Result<u64, StoreError> {
    length
        .and_then(|length| u64::try_from(length).ok())
        .ok_or_else(|| unavailable(action, "the answer has no length".to_owned(), false))
}

fn lock_of(mode: Option<&ObjectLockMode>, until: Option<&DateTime>) -> Option<Lock> {
    let mode = match mode? {
        ObjectLockMode::Compliance => Mode::Compliance,
        ObjectLockMode::Governance => Mode::Governance,
        // Not known to be any lock; a mode that a later S3 adds is not taken for one of ours.
        _ => return None,
    };
    Some(Lock {
        mode,
        retain_until: timestamp_of(until?)?,
    })
}

fn lock_mode(mode: Mode) -> Option<ObjectLockMode> {
    match mode {
        Mode::None => None,
        Mode::Governance => Some(ObjectLockMode::Governance),
        Mode::Compliance => Some(ObjectLockMode::Compliance),
    }
}

fn retention_mode(mode: Mode) -> Option<ObjectLockRetentionMode> {
    match mode {
        Mode::None => None,
        Mode::Governance => Some(ObjectLockRetentionMode::Governance),
        Mode::Compliance => Some(ObjectLockRetentionMode::Compliance),
    }
}

fn date_of(time: Timestamp) -> DateTime {
    DateTime::from_millis(time.unix_millis())
}

fn timestamp_of(date: &DateTime) -> Option<Timestamp> {
    date.to_millis().ok().map(Timestamp::from_unix_millis)
}

fn is_enabled(configuration: Option<&ObjectLockConfiguration>) -> bool {
    configuration.is_some_and(|lock| lock.object_lock_enabled() == Some(&ObjectLockEnabled::Enabled))
}

fn default_lock_of(configuration: &ObjectLockConfiguration) -> Option<String> {
    let default = configuration.rule()?.default_retention()?;
    let period = match (default.days(), default.years()) {
        (Some(days), _) => format!("{days}d"),
        (None, Some(years)) => format!("{years}y"),
        (None, None) => return None,
    };
    Some(format!("{} {period}", default.mode()?.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::digest::Sha256Digest;

    #[test]
    fn a_prefix_has_one_slash_behind_it_or_is_empty() {
        for text in ["a/b", "/a/b", "a/b/", "/a/b/"] {
            assert_eq!(prefix_of(text), "a/b/");
        }
        assert_eq!(prefix_of(""), "");
        assert_eq!(prefix_of("/"), "");
    }

    #[test]
    fn another_checksum_than_sent_is_never_accepted() {
        let sent = Checksum::full(Sha256Digest::of(b"sent"));
        let other = Checksum::full(Sha256Digest::of(b"other"));
        assert!(same_checksum("write", Some(&sent.value), &sent).is_ok());
        assert!(same_checksum("write", None, &sent).is_ok());
        assert!(matches!(
            same_checksum("write", Some(&other.value), &sent),
            Err(StoreError::Checksum { .. })
        ));
    }

    #[test]
    fn a_lock_is_read_with_both_its_halves_or_not_at_all() {
        let until = DateTime::from_secs(1_900_000_000);
        let lock = lock_of(Some(&ObjectLockMode::Compliance), Some(&until)).unwrap();
        assert_eq!(lock.mode, Mode::Compliance);
        assert_eq!(lock.retain_until.unix_seconds(), 1_900_000_000);
        assert_eq!(lock_of(Some(&ObjectLockMode::Compliance), None), None);
        assert_eq!(lock_of(None, Some(&until)), None);
        assert_eq!(lock_of(Some(&ObjectLockMode::from("NEW")), Some(&until)), None);
    }
}
