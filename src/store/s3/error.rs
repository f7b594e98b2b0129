//! What an answer of S3 means: taken, absent, or one of the store's errors.
//!
//! The only place that knows S3's error codes. A reason repeats the server's code and, where it helps a person and cannot
//! hold a secret, its message.

use crate::aws::{self, Answer};
use crate::store::StoreError;

/// What became of a request that did not succeed.
#[derive(Debug)]
pub(super) enum Fault {
    /// Something stands under the key (412).
    Taken,
    /// Another write of the same key is under way (409).
    Conflict,
    /// Nothing stands under the key, or only a delete marker.
    Absent,
    /// The multipart upload is over: completed, aborted or cleaned away.
    NoSuchUpload,
    /// The session of the credentials has ended; the chain may bring new ones.
    ExpiredToken,
    /// The server finds our clock too far off.
    ClockSkew,
    /// The server does not take the request as it is; where it asked for a lock, that is the likeliest cause.
    Invalid(String),
    /// Anything else.
    Error(StoreError),
}

/// Says what a failed request means to a store.
pub(super) fn fault_of(action: &'static str, fault: aws::Fault) -> Fault {
    match fault {
        aws::Fault::Answered(answer) => judge(action, &answer),
        aws::Fault::Unanswered { reason, is_away } => Fault::Error(unavailable(action, reason, is_away)),
        aws::Fault::NoCredentials(reason) => Fault::Error(StoreError::Denied { action, reason: reason.to_owned() }),
    }
}

/// Makes the error for a store that cannot do it now.
pub(super) fn unavailable(action: &'static str, reason: String, slow_down: bool) -> StoreError {
    StoreError::Unavailable { action, reason, wait: None, slow_down }
}

/// Makes the error for a bucket that does not take a lock.
pub(super) fn no_lock(answer: &str) -> StoreError {
    StoreError::Unfit(format!(
        "the bucket refuses a lock ({answer}); turn on Object Lock, or set retention.mode = \"none\""
    ))
}

fn judge(action: &'static str, answer: &Answer) -> Fault {
    match answer.code.as_str() {
        "PreconditionFailed" => Fault::Taken,
        "ConditionalRequestConflict" | "OperationAborted" => Fault::Conflict,
        "NoSuchKey" | "NoSuchVersion" => Fault::Absent,
        "NoSuchUpload" => Fault::NoSuchUpload,
        "ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired" => Fault::ExpiredToken,
        "RequestTimeTooSkewed" | "RequestExpired" => Fault::ClockSkew,
        "InvalidRequest" if !mentions_lock(&answer.message) => Fault::Invalid(answer.described()),
        code => by_code(action, code, answer).map_or_else(|| by_status(action, answer), Fault::Error),
    }
}

fn by_code(action: &'static str, code: &str, answer: &Answer) -> Option<StoreError> {
    Some(match code {
        "BadDigest" | "InvalidDigest" | "XAmzContentSHA256Mismatch" | "XAmzContentChecksumMismatch" => {
            StoreError::Checksum { action }
        }
        "NoSuchBucket" => StoreError::Unfit(
            "the bucket does not exist; create it with versioning and Object Lock, or correct store.url".to_owned(),
        ),
        "PermanentRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException" => {
            StoreError::Unfit(format!("the bucket is in another region ({code}); set store.region to the bucket's"))
        }
        "InvalidObjectState" => StoreError::Unfit(
            "an object of the archive is in an archive storage class and cannot be read; restore it first".to_owned(),
        ),
        "InvalidRequest" | "InvalidArgument" if mentions_lock(&answer.message) => no_lock(&answer.described()),
        "InvalidStorageClass" => {
            StoreError::Unfit("the bucket does not know the storage class; correct store.storage_class".to_owned())
        }
        // The server may repeat what it was sent, so its message is left out.
        "SignatureDoesNotMatch" | "InvalidAccessKeyId" | "InvalidToken" | "InvalidSecurity" | "NotSignedUp" => {
            StoreError::Denied { action, reason: code.to_owned() }
        }
        "AccessDenied" | "AccountProblem" | "AllAccessDisabled" | "AccessForbidden" => denied(action, answer),
        "SlowDown"
        | "ServiceUnavailable"
        | "ThrottlingException"
        | "Throttling"
        | "RequestLimitExceeded"
        | "TooManyRequests" => busy(action, answer, true),
        "QuotaExceeded" | "InsufficientStorage" | "XMinioStorageFull" => StoreError::Full,
        kms if kms.starts_with("KMS.") => by_kms(action, kms, answer),
        _ => return None,
    })
}

fn by_kms(action: &'static str, code: &str, answer: &Answer) -> StoreError {
    if code.contains("Throttling") || answer.status >= 500 {
        return busy(action, answer, true);
    }
    StoreError::Unfit(format!(
        "KMS refuses the bucket's key ({}); check that store.kms_key_id exists, is enabled and may be used",
        answer.described()
    ))
}

fn by_status(action: &'static str, answer: &Answer) -> Fault {
    Fault::Error(match answer.status {
        404 | 405 => return Fault::Absent,
        409 => return Fault::Conflict,
        412 => return Fault::Taken,
        401 | 403 => denied(action, answer),
        301 | 307 | 308 => StoreError::Unfit(format!(
            "the bucket is in another place ({}); set store.region or store.endpoint_url to the bucket's",
            answer.described()
        )),
        501 => StoreError::Unsupported(action),
        507 => StoreError::Full,
        429 | 502..=504 => busy(action, answer, true),
        // A 500 is about this one request as often as about the store; there is no reason for others to wait.
        _ => busy(action, answer, false),
    })
}

fn denied(action: &'static str, answer: &Answer) -> StoreError {
    StoreError::Denied { action, reason: answer.described() }
}

fn busy(action: &'static str, answer: &Answer, slow_down: bool) -> StoreError {
    StoreError::Unavailable { action, reason: answer.described(), wait: answer.wait, slow_down }
}

fn mentions_lock(message: &str) -> bool {
    let message = message.to_ascii_lowercase().replace(' ', "");
    message.contains("objectlock") || message.contains("retention") || message.contains("retainuntil")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;

    fn judged(status: u16, code: &str, message: &str) -> Fault {
        let (code, message) = (code.to_owned(), message.to_owned());
        judge("write an object", &Answer { status, code, message, wait: None })
    }

    fn code_of(fault: &Fault) -> Option<Code> {
        match fault {
            Fault::Error(error) => Some(error.code()),
            _ => None,
        }
    }

    #[test]
    fn every_answer_has_its_meaning() {
        let cases = [
            (403, "AccessDenied", "", Code::StoreDenied),
            (403, "InvalidAccessKeyId", "", Code::StoreDenied),
            (403, "SignatureDoesNotMatch", "", Code::StoreDenied),
            (403, "", "", Code::StoreDenied),
            (400, "BadDigest", "", Code::StoreChecksum),
            (400, "XAmzContentSHA256Mismatch", "", Code::StoreChecksum),
            (404, "NoSuchBucket", "", Code::StorePolicy),
            (400, "InvalidRequest", "Bucket is missing Object Lock Configuration", Code::StorePolicy),
            (400, "KMS.DisabledException", "disabled", Code::StorePolicy),
            (400, "KMS.ThrottlingException", "", Code::StoreUnavailable),
            (503, "SlowDown", "", Code::StoreUnavailable),
            (500, "InternalError", "", Code::StoreUnavailable),
            (400, "SomethingNew", "", Code::StoreUnavailable),
            (501, "NotImplemented", "", Code::StorePolicy),
            (507, "", "", Code::StoreFull),
        ];
        for (status, code, message, expected) in cases {
            let fault = judged(status, code, message);
            assert_eq!(code_of(&fault), Some(expected), "{status} {code}");
        }
    }

    #[test]
    fn what_stands_and_what_does_not_are_no_errors() {
        assert!(matches!(judged(412, "PreconditionFailed", ""), Fault::Taken));
        assert!(matches!(judged(412, "", ""), Fault::Taken));
        assert!(matches!(judged(409, "ConditionalRequestConflict", ""), Fault::Conflict));
        assert!(matches!(judged(404, "NoSuchKey", ""), Fault::Absent));
        assert!(matches!(judged(404, "NotFound", ""), Fault::Absent));
        assert!(matches!(judged(405, "MethodNotAllowed", ""), Fault::Absent));
        assert!(matches!(judged(404, "NoSuchUpload", ""), Fault::NoSuchUpload));
        assert!(matches!(judged(400, "InvalidRequest", "no"), Fault::Invalid(_)));
    }

    #[test]
    fn only_a_busy_store_makes_everyone_wait() {
        let slow = |fault: Fault| matches!(fault, Fault::Error(StoreError::Unavailable { slow_down: true, .. }));
        assert!(slow(judged(503, "SlowDown", "")));
        assert!(slow(judged(503, "", "")));
        assert!(!slow(judged(500, "InternalError", "")));
    }

    #[test]
    fn an_answer_about_a_signature_is_not_repeated() {
        let Fault::Error(error) = judged(403, "SignatureDoesNotMatch", "you sent AKIAEXAMPLE") else {
            panic!("an error");
        };
        assert!(!error.to_string().contains("AKIA"), "{error}");
    }
}
