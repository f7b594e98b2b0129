//! S3: a bucket as a write-once store.
//!
//! Every write is conditional (`If-None-Match: *`), carries its SHA-256 in advance as a header, and asks for lock,
//! encryption and storage class in the same request; nothing is sent in chunks or with trailers, on which S3-compatible
//! servers differ. The SDK tries once; [`RetryingStore`](super::retrying::RetryingStore) decides about more. A store that
//! answers without a checksum is believed to have verified the one it was sent, and ours is recorded.

mod bucket;
mod error;
mod inspect;
mod list;
mod upload;
mod wire;

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

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
use aws_sdk_s3::types::{
    ChecksumAlgorithm, ObjectLockConfiguration, ObjectLockEnabled, ObjectLockRetention, StorageClass,
};
use secrecy::{ExposeSecret as _, SecretString};

use self::bucket::{ANSWER_TIMEOUT, Bucket, TRANSFER_TIMEOUT, date_of, lock_mode, retention_mode, same_checksum};
use self::error::Fault;
pub use self::inspect::{BucketReport, Seen};
use self::wire::{KnownDigest, StoreClock, body_of};
use super::settings::{S3Settings, Sse, parse_object_url};
use super::{
    Features, ListPage, ObjectBody, ObjectHead, PageToken, PutOutcome, ReadStore, Store, StoreError, StoreReport,
    Stored, Terms, Upload, policy,
};
use crate::clock::{Clock, Timestamp};
use crate::model::digest::{Checksum, Payload};
use crate::model::key::ObjectKey;
use crate::model::retention::{Lock, Mode};

/// A server that does not take a connection within this time is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The region that is signed for where an S3-compatible server is named and no region.
const COMPATIBLE_REGION: &str = "us-east-1";

/// The right without which it is not known whether the bucket keeps versions.
const VERSIONING_PERMISSION: &str = "s3:GetBucketVersioning";

/// The right to see whether the bucket locks.
const LOCK_PERMISSION: &str = "s3:GetBucketObjectLockConfiguration";

/// A bucket, or the part of it below a prefix.
#[derive(Clone)]
pub struct S3Store {
    bucket: Arc<Bucket>,
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
        let credentials =
            Credentials::new(access_key_id, secret_access_key.expose_secret(), None, None, "fixed access key");
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
        let shared = loader.load().await;
        let config = aws_sdk_s3::config::Builder::from(&shared)
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
                credentials: shared.credentials_provider(),
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
                $terms.lock.filter(|lock| lock.mode != Mode::None).map(|lock| date_of(lock.retain_until)),
            )
            .set_server_side_encryption($bucket.encryption())
            .set_ssekms_key_id($bucket.kms_key_id.clone().filter(|_| $bucket.sse == Sse::AwsKms))
            .set_storage_class($bucket.media_class.clone().filter(|_| !$terms.is_document))
    };
}
use with_terms;

#[async_trait]
impl ReadStore for S3Store {
    fn features(&self) -> Features {
        self.bucket.features.get().copied().unwrap_or_default()
    }

    fn now(&self) -> Timestamp {
        self.bucket.clock.now()
    }

    fn clock_offsets(&self) -> Option<(i64, i64)> {
        self.bucket.clock.offsets().map(|seen| (seen.min, seen.max))
    }

    async fn principal(&self) -> Option<String> {
        self.bucket.principal().await
    }

    async fn check(&self) -> Result<StoreReport, StoreError> {
        let bucket = &*self.bucket;
        bucket.exists().await?;
        let (versions, versions_assumed) = match bucket.is_versioned().await {
            // Listing versions works on any bucket, so assuming them costs nothing.
            Err(StoreError::Denied { .. }) => (true, Some(VERSIONING_PERMISSION)),
            versions => (versions?, None),
        };
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
            locks_assumed: versions_assumed.or(locks_assumed),
        };
        policy::check_clock(&report)?;
        Ok(report)
    }

    async fn head(&self, key: &ObjectKey, version: Option<&str>) -> Result<Option<ObjectHead>, StoreError> {
        self.bucket.head(key, version).await
    }

    async fn read_lock(&self, key: &ObjectKey, version: Option<&str>) -> Result<Option<Lock>, StoreError> {
        self.bucket.read_lock(key, version).await
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
}

#[async_trait]
impl Store for S3Store {
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
        Ok(PutOutcome::Created(Stored { version_id: answer.version_id, checksum }))
    }

    async fn start_upload(&self, key: &ObjectKey, terms: &Terms) -> Result<Box<dyn Upload>, StoreError> {
        let upload = upload::S3Upload::start(Arc::clone(&self.bucket), key, terms).await?;
        Ok(Box::new(upload))
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
            .retention(ObjectLockRetention::builder().mode(mode).retain_until_date(date_of(lock.retain_until)).build());
        bucket.call(ACTION, ANSWER_TIMEOUT, request.send()).await.map_err(|fault| bucket.error_of(ACTION, fault))?;
        Ok(())
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

    #[test]
    fn a_prefix_has_one_slash_behind_it_or_is_empty() {
        for text in ["a/b", "/a/b", "a/b/", "/a/b/"] {
            assert_eq!(prefix_of(text), "a/b/");
        }
        assert_eq!(prefix_of(""), "");
        assert_eq!(prefix_of("/"), "");
    }
}
