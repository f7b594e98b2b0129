//! An object in parts: multipart upload with a checksum for every part and a composite for the whole.

use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_s3::types::{ChecksumAlgorithm, ChecksumType, CompletedMultipartUpload, CompletedPart};

use super::bucket::{ANSWER_TIMEOUT, Bucket, TRANSFER_TIMEOUT, date_of, lock_mode, same_checksum};
use super::error::{Fault, unavailable};
use super::wire::body_of;
use super::with_terms;
use crate::model::digest::{Checksum, Payload, Sha256Digest};
use crate::model::key::ObjectKey;
use crate::model::retention::{Lock, Mode};
use crate::store::settings::Sse;
use crate::store::{ObjectHead, PutOutcome, StoreError, Stored, Terms, Upload};

/// The most parts S3 takes for one object.
const MAX_PARTS: usize = 10_000;

pub(super) struct S3Upload {
    bucket: Arc<Bucket>,
    key: ObjectKey,
    id: String,
    lock: Option<Lock>,
    parts: Vec<Part>,
    completion: Completion,
}

struct Part {
    sha256: Sha256Digest,
    etag: Option<String>,
}

/// How far completing has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Completion {
    /// Not asked for.
    None,
    /// Asked for; the answer was lost, so the object may be ours already.
    Unknown,
    /// Refused because another write of the key was under way; this upload cannot be completed any more.
    Refused,
}

impl S3Upload {
    pub(super) async fn start(bucket: Arc<Bucket>, key: &ObjectKey, terms: &Terms) -> Result<Self, StoreError> {
        const ACTION: &str = "begin an upload";
        let request = with_terms!(bucket, bucket.client.create_multipart_upload(), key, terms)
            .checksum_type(ChecksumType::Composite);
        let answer = bucket
            .call(ACTION, ANSWER_TIMEOUT, request.send())
            .await
            .map_err(|fault| bucket.write_error(ACTION, terms, fault))?;
        let id =
            answer.upload_id.ok_or_else(|| unavailable(ACTION, "the answer has no upload id".to_owned(), false))?;
        Ok(Self {
            bucket,
            key: key.clone(),
            id,
            lock: terms.lock.filter(|lock| lock.mode != Mode::None),
            parts: Vec::new(),
            completion: Completion::None,
        })
    }

    fn checksum(&self) -> Checksum {
        let digests: Vec<_> = self.parts.iter().map(|part| part.sha256).collect();
        Checksum::composite(&digests)
    }

    fn completed_parts(&self) -> CompletedMultipartUpload {
        let parts = self.parts.iter().zip(1..).map(|(part, number)| {
            CompletedPart::builder()
                .part_number(number)
                .set_e_tag(part.etag.clone())
                .checksum_sha256(part.sha256.to_base64())
                .build()
        });
        CompletedMultipartUpload::builder().set_parts(Some(parts.collect())).build()
    }

    /// Looks at the key when the upload is gone or refused: what is there is ours or another writer's.
    async fn look(&self, action: &'static str, refused: &str) -> Result<PutOutcome, StoreError> {
        match self.bucket.head(&self.key, None).await? {
            Some(head) => Ok(self.whose(head)),
            None => Err(unavailable(action, refused.to_owned(), false)),
        }
    }

    /// Ours only if its checksum is the one of our parts and its lock is what we asked for: anything else is for the
    /// caller to look into.
    fn whose(&self, head: ObjectHead) -> PutOutcome {
        let checksum = self.checksum();
        let locked = match (self.lock, head.lock) {
            (None, _) => true,
            (Some(due), Some(lock)) => lock.covers(due),
            (Some(_), None) => false,
        };
        if locked && head.checksum.as_ref() == Some(&checksum) {
            PutOutcome::Created(Stored { version_id: head.version_id, checksum })
        } else {
            PutOutcome::Taken
        }
    }
}

#[async_trait]
impl Upload for S3Upload {
    async fn put_part(&mut self, part: &Payload) -> Result<(), StoreError> {
        const ACTION: &str = "write a part";
        let bucket = &*self.bucket;
        if self.parts.len() >= MAX_PARTS {
            return Err(StoreError::Unsupported("take more than 10000 parts for one object"));
        }
        let checksum = Checksum::full(part.sha256());
        let request = bucket
            .client
            .upload_part()
            .bucket(&bucket.name)
            .key(bucket.full_key(&self.key))
            .set_expected_bucket_owner(bucket.owner.clone())
            .upload_id(&self.id)
            .part_number(i32::try_from(self.parts.len() + 1).unwrap_or(i32::MAX))
            .checksum_algorithm(ChecksumAlgorithm::Sha256)
            .checksum_sha256(&checksum.value)
            .content_length(i64::try_from(part.size_bytes()).unwrap_or(i64::MAX))
            .body(body_of(part));
        let answer = bucket
            .call(ACTION, TRANSFER_TIMEOUT, request.send())
            .await
            .map_err(|fault| bucket.error_of(ACTION, fault))?;
        same_checksum(ACTION, answer.checksum_sha256(), &checksum)?;
        self.parts.push(Part { sha256: part.sha256(), etag: answer.e_tag });
        Ok(())
    }

    async fn complete(&mut self, _: Sha256Digest) -> Result<PutOutcome, StoreError> {
        const ACTION: &str = "complete an upload";
        if self.completion == Completion::Refused {
            return self.look(ACTION, "409, begin the upload again").await;
        }
        let bucket = &*self.bucket;
        let request = bucket
            .client
            .complete_multipart_upload()
            .bucket(&bucket.name)
            .key(bucket.full_key(&self.key))
            .set_expected_bucket_owner(bucket.owner.clone())
            .upload_id(&self.id)
            .if_none_match("*")
            .multipart_upload(self.completed_parts());
        let asked_before = std::mem::replace(&mut self.completion, Completion::Unknown) == Completion::Unknown;
        let answer = match bucket.call(ACTION, ANSWER_TIMEOUT, request.send()).await {
            Ok(answer) => answer,
            Err(Fault::Taken) if asked_before => return self.look(ACTION, "412").await,
            Err(Fault::Taken) => return Ok(PutOutcome::Taken),
            Err(Fault::NoSuchUpload | Fault::Absent) => {
                return self.look(ACTION, "404 NoSuchUpload, begin the upload again").await;
            }
            Err(Fault::Conflict) => {
                self.completion = Completion::Refused;
                return self.look(ACTION, "409, begin the upload again").await;
            }
            Err(fault) => return Err(bucket.error_of(ACTION, fault)),
        };
        let checksum = self.checksum();
        same_checksum(ACTION, answer.checksum_sha256(), &checksum)?;
        Ok(PutOutcome::Created(Stored { version_id: answer.version_id, checksum }))
    }

    async fn abort(&mut self) -> Result<(), StoreError> {
        const ACTION: &str = "abort an upload";
        let bucket = &*self.bucket;
        let request = bucket
            .client
            .abort_multipart_upload()
            .bucket(&bucket.name)
            .key(bucket.full_key(&self.key))
            .set_expected_bucket_owner(bucket.owner.clone())
            .upload_id(&self.id);
        match bucket.call(ACTION, ANSWER_TIMEOUT, request.send()).await {
            Ok(_) | Err(Fault::NoSuchUpload | Fault::Absent) => Ok(()),
            Err(fault) => Err(bucket.error_of(ACTION, fault)),
        }
    }
}
