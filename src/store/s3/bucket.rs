//! What the requests to a bucket share: its name, the limits of time, and how a failure is read.
//!
//! Also the requests that look at the bucket and at an object, which more than one part of the store needs, and S3's
//! words for ours.

use std::future::Future;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use aws_credential_types::provider::{ProvideCredentials as _, SharedCredentialsProvider};
use aws_sdk_s3::Client;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::get_object::builders::GetObjectFluentBuilder;
use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::primitives::DateTime;
use aws_sdk_s3::types::{
    BucketVersioningStatus, ChecksumMode, ObjectLockConfiguration, ObjectLockMode, ObjectLockRetentionMode,
    ServerSideEncryption, StorageClass,
};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

use super::error::{Fault, fault_of, no_lock, unavailable};
use super::wire::{S3Chunks, StoreClock};
use crate::aws;
use crate::clock::Timestamp;
use crate::model::digest::Checksum;
use crate::model::key::ObjectKey;
use crate::model::retention::{Lock, Mode};
use crate::store::settings::Sse;
use crate::store::{Features, ObjectBody, ObjectHead, StoreError, Terms};

/// The longest time for a request that carries at most [`SINGLE_PUT_MAX_BYTES`](crate::model::digest::SINGLE_PUT_MAX_BYTES):
/// generous, because a slow line moves 16 MiB in minutes.
pub(super) const TRANSFER_TIMEOUT: Duration = Duration::from_mins(5);

/// The longest time for a request without a body; completing a large upload takes S3 a while.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_mins(2);

/// How long an expired token is taken for one that the credential chain is about to replace.
pub(super) const TOKEN_GRACE: Duration = Duration::from_mins(2);

/// What every request needs; shared with the uploads under way.
pub(super) struct Bucket {
    pub(super) client: Client,
    pub(super) name: String,
    /// With a slash behind it, or empty.
    pub(super) prefix: String,
    pub(super) owner: Option<String>,
    pub(super) sse: Sse,
    pub(super) kms_key_id: Option<String>,
    /// Nothing for the standard class, which needs no header.
    pub(super) media_class: Option<StorageClass>,
    pub(super) clock: StoreClock,
    pub(super) token_expired_at: Mutex<Option<Instant>>,
    pub(super) features: OnceLock<Features>,
    /// What the credential chain found; nothing where requests are not signed.
    pub(super) credentials: Option<SharedCredentialsProvider>,
}

impl Bucket {
    /// Returns the access key that requests are signed with.
    pub(super) async fn principal(&self) -> Option<String> {
        let credentials = self.credentials.as_ref()?.provide_credentials();
        let credentials = tokio::time::timeout(ANSWER_TIMEOUT, credentials).await.ok()?.ok()?;
        Some(credentials.access_key_id().to_owned())
    }

    pub(super) fn full_key(&self, key: &ObjectKey) -> String {
        format!("{}{key}", self.prefix)
    }

    pub(super) fn encryption(&self) -> Option<ServerSideEncryption> {
        match self.sse {
            Sse::BucketDefault => None,
            Sse::Aes256 => Some(ServerSideEncryption::Aes256),
            Sse::AwsKms => Some(ServerSideEncryption::AwsKms),
        }
    }

    /// Sends a request within a time limit and reads a failure.
    pub(super) async fn call<T, E>(
        &self,
        action: &'static str,
        limit: Duration,
        request: impl Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    ) -> Result<T, Fault>
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        let now = self.clock.ours().now();
        let answer = aws::ask("S3", limit, now, request).await.map_err(|fault| fault_of(action, fault))?;
        *self.token_expired_at() = None;
        Ok(answer)
    }

    /// Makes an error of what the caller has no other use for.
    pub(super) fn error_of(&self, action: &'static str, fault: Fault) -> StoreError {
        match fault {
            Fault::Error(error) => error,
            Fault::Conflict => unavailable(action, "409, another write of the key is in progress".to_owned(), false),
            Fault::Taken => unavailable(action, "412, although not requested".to_owned(), false),
            Fault::Absent => unavailable(action, "404".to_owned(), false),
            Fault::NoSuchUpload => unavailable(action, "404 NoSuchUpload".to_owned(), false),
            Fault::Invalid(answer) => unavailable(action, answer, false),
            Fault::ClockSkew => StoreError::ClockSkew { offset_ms: self.clock.offsets().map_or(0, |seen| seen.last) },
            Fault::ExpiredToken => self.expired(action),
        }
    }

    /// Makes an error of a failed write. Some servers do not say that it is the lock they refuse.
    pub(super) fn write_error(&self, action: &'static str, terms: &Terms, fault: Fault) -> StoreError {
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
            StoreError::Denied { action, reason: "ExpiredToken; renew the AWS credentials".to_owned() }
        }
    }

    fn token_expired_at(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.token_expired_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn exists(&self) -> Result<(), StoreError> {
        const ACTION: &str = "list the bucket (s3:ListBucket)";
        let request = self.client.head_bucket().bucket(&self.name).set_expected_bucket_owner(self.owner.clone());
        match self.call(ACTION, ANSWER_TIMEOUT, request.send()).await {
            Ok(_) => Ok(()),
            Err(Fault::Absent) => Err(StoreError::Unfit(format!(
                "the bucket {} does not exist; create it with versioning and Object Lock, or correct store.url",
                self.name
            ))),
            Err(fault) => Err(self.error_of(ACTION, fault)),
        }
    }

    pub(super) async fn is_versioned(&self) -> Result<bool, StoreError> {
        const ACTION: &str = "read the bucket's versioning (s3:GetBucketVersioning)";
        let request =
            self.client.get_bucket_versioning().bucket(&self.name).set_expected_bucket_owner(self.owner.clone());
        match self.call(ACTION, ANSWER_TIMEOUT, request.send()).await {
            Ok(answer) => Ok(answer.status() == Some(&BucketVersioningStatus::Enabled)),
            Err(Fault::Absent | Fault::Error(StoreError::Unsupported(_))) => Ok(false),
            Err(fault) => Err(self.error_of(ACTION, fault)),
        }
    }

    pub(super) async fn lock_configuration(&self) -> Result<Option<ObjectLockConfiguration>, StoreError> {
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

    pub(super) async fn head(&self, key: &ObjectKey, version: Option<&str>) -> Result<Option<ObjectHead>, StoreError> {
        const ACTION: &str = "inspect an object";
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

    pub(super) async fn read_lock(&self, key: &ObjectKey, version: Option<&str>) -> Result<Option<Lock>, StoreError> {
        const ACTION: &str = "read a lock (s3:GetObjectRetention)";
        let request = self
            .client
            .get_object_retention()
            .bucket(&self.name)
            .key(self.full_key(key))
            .set_expected_bucket_owner(self.owner.clone())
            .set_version_id(version.map(str::to_owned));
        match self.call(ACTION, ANSWER_TIMEOUT, request.send()).await {
            Ok(answer) => Ok(answer.retention.and_then(|lock| {
                let mode = lock.mode().map(|mode| ObjectLockMode::from(mode.as_str()));
                lock_of(mode.as_ref(), lock.retain_until_date())
            })),
            // The object has no lock, or the bucket knows none.
            Err(
                Fault::Absent | Fault::Invalid(_) | Fault::Error(StoreError::Unfit(_) | StoreError::Unsupported(_)),
            ) => Ok(None),
            Err(fault) => Err(self.error_of(ACTION, fault)),
        }
    }

    pub(super) async fn open(&self, request: GetObjectFluentBuilder) -> Result<Option<ObjectBody>, StoreError> {
        const ACTION: &str = "read an object";
        // The limit covers the time up to the first byte; the body has its own.
        let answer = match self.call(ACTION, ANSWER_TIMEOUT, request.send()).await {
            Err(Fault::Absent) => return Ok(None),
            other => other.map_err(|fault| self.error_of(ACTION, fault))?,
        };
        let size_bytes = length_of(ACTION, answer.content_length())?;
        let lock = lock_of(answer.object_lock_mode(), answer.object_lock_retain_until_date());
        Ok(Some(ObjectBody::new(size_bytes, lock, Box::new(S3Chunks(answer.body)))))
    }
}

/// Refuses an answer that tells another checksum than was sent.
pub(super) fn same_checksum(action: &'static str, answered: Option<&str>, sent: &Checksum) -> Result<(), StoreError> {
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
    Some(Lock { mode, retain_until: timestamp_of(until?)? })
}

pub(super) fn lock_mode(mode: Mode) -> Option<ObjectLockMode> {
    match mode {
        Mode::None => None,
        Mode::Governance => Some(ObjectLockMode::Governance),
        Mode::Compliance => Some(ObjectLockMode::Compliance),
    }
}

pub(super) fn retention_mode(mode: Mode) -> Option<ObjectLockRetentionMode> {
    match mode {
        Mode::None => None,
        Mode::Governance => Some(ObjectLockRetentionMode::Governance),
        Mode::Compliance => Some(ObjectLockRetentionMode::Compliance),
    }
}

pub(super) fn date_of(time: Timestamp) -> DateTime {
    DateTime::from_millis(time.unix_millis())
}

pub(super) fn timestamp_of(date: &DateTime) -> Option<Timestamp> {
    date.to_millis().ok().map(Timestamp::from_unix_millis)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::digest::Sha256Digest;

    #[test]
    fn another_checksum_than_sent_is_never_accepted() {
        let sent = Checksum::full(Sha256Digest::of(b"sent"));
        let other = Checksum::full(Sha256Digest::of(b"other"));
        assert!(same_checksum("write", Some(&sent.value), &sent).is_ok());
        assert!(same_checksum("write", None, &sent).is_ok());
        assert!(matches!(same_checksum("write", Some(&other.value), &sent), Err(StoreError::Checksum { .. })));
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
