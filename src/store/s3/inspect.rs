//! A closer look at a bucket than a run needs: what `doctor` reports about its protection and upkeep.

use std::fmt;

use aws_sdk_s3::types::{ExpirationStatus, LifecycleRule, PublicAccessBlockConfiguration};

use super::S3Store;
use super::bucket::{ANSWER_TIMEOUT, Bucket};
use super::error::Fault;
use crate::store::StoreError;

/// What there was to see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen<T> {
    /// It is configured so.
    Found(T),
    /// It is not configured.
    Absent,
    /// We may not look, or the server does not know it; the text says which.
    Unknown(String),
}

/// How a bucket is protected and kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketReport {
    /// Whether all four switches against public access are on.
    pub public_access_blocked: Seen<bool>,
    /// After how many days a lifecycle rule removes the parts of unfinished uploads.
    pub unfinished_uploads_removed_days: Seen<i32>,
    /// The default encryption, and its key if it is one of the key service.
    pub default_encryption: Seen<String>,
}

impl S3Store {
    /// Looks at what protects and keeps the bucket. What may not be read is [`Seen::Unknown`].
    ///
    /// # Errors
    /// Retryable: the store cannot be reached.
    pub async fn inspect(&self) -> Result<BucketReport, StoreError> {
        Ok(BucketReport {
            public_access_blocked: self.bucket.public_access().await?,
            unfinished_uploads_removed_days: self.bucket.lifecycle().await?,
            default_encryption: self.bucket.default_encryption().await?,
        })
    }
}

impl Bucket {
    async fn public_access(&self) -> Result<Seen<bool>, StoreError> {
        const ACTION: &str = "read the bucket's public access block (s3:GetBucketPublicAccessBlock)";
        let request =
            self.client.get_public_access_block().bucket(&self.name).set_expected_bucket_owner(self.owner.clone());
        let answer = self.call(ACTION, ANSWER_TIMEOUT, request.send()).await;
        self.seen(ACTION, answer, |answer| answer.public_access_block_configuration().map(blocks_all))
    }

    async fn lifecycle(&self) -> Result<Seen<i32>, StoreError> {
        const ACTION: &str = "read the bucket's lifecycle (s3:GetLifecycleConfiguration)";
        let request = self
            .client
            .get_bucket_lifecycle_configuration()
            .bucket(&self.name)
            .set_expected_bucket_owner(self.owner.clone());
        let answer = self.call(ACTION, ANSWER_TIMEOUT, request.send()).await;
        self.seen(ACTION, answer, |answer| answer.rules().iter().filter_map(|rule| days_of(rule, &self.prefix)).min())
    }

    async fn default_encryption(&self) -> Result<Seen<String>, StoreError> {
        const ACTION: &str = "read the bucket's encryption (s3:GetEncryptionConfiguration)";
        let request =
            self.client.get_bucket_encryption().bucket(&self.name).set_expected_bucket_owner(self.owner.clone());
        let answer = self.call(ACTION, ANSWER_TIMEOUT, request.send()).await;
        self.seen(ACTION, answer, |answer| {
            let rules = answer.server_side_encryption_configuration()?.rules();
            let default = rules.first()?.apply_server_side_encryption_by_default()?;
            let algorithm = default.sse_algorithm().as_str();
            Some(match default.kms_master_key_id() {
                Some(key) => format!("{algorithm} {key}"),
                None => algorithm.to_owned(),
            })
        })
    }

    fn seen<A, T>(
        &self,
        action: &'static str,
        answer: Result<A, Fault>,
        read: impl FnOnce(&A) -> Option<T>,
    ) -> Result<Seen<T>, StoreError> {
        match answer {
            Ok(answer) => Ok(read(&answer).map_or(Seen::Absent, Seen::Found)),
            Err(Fault::Absent) => Ok(Seen::Absent),
            Err(fault) => match self.error_of(action, fault) {
                error @ StoreError::Unavailable { .. } => Err(error),
                other => Ok(Seen::Unknown(other.to_string())),
            },
        }
    }
}

fn blocks_all(block: &PublicAccessBlockConfiguration) -> bool {
    [
        block.block_public_acls(),
        block.ignore_public_acls(),
        block.block_public_policy(),
        block.restrict_public_buckets(),
    ]
    .iter()
    .all(|switch| *switch == Some(true))
}

/// The days of a rule that removes unfinished uploads everywhere below our prefix.
fn days_of(rule: &LifecycleRule, prefix: &str) -> Option<i32> {
    let days = rule.abort_incomplete_multipart_upload()?.days_after_initiation()?;
    let covers = match rule.filter() {
        None => true,
        Some(filter) => {
            let plain = filter.tag().is_none() && filter.and().is_none();
            plain && prefix.starts_with(filter.prefix().unwrap_or_default())
        }
    };
    (covers && *rule.status() == ExpirationStatus::Enabled).then_some(days)
}

impl<T: fmt::Display> fmt::Display for Seen<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Found(value) => value.fmt(f),
            Self::Absent => f.write_str("none"),
            Self::Unknown(reason) => write!(f, "unknown: {reason}"),
        }
    }
}
