//! What an answer of S3 means: taken, absent, or one of the store's errors.
//!
//! The only place that knows S3's error codes. A reason repeats the server's code and, where it helps a person and cannot
//! hold a secret, its message.

use std::error::Error as StdError;
use std::io::{self, ErrorKind};
use std::time::Duration;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

use crate::store::StoreError;

/// The longest part of a server's message that is repeated.
const MAX_MESSAGE_CHARS: usize = 300;

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

/// The parts of an answer that decide.
#[derive(Debug, Default)]
struct Answer<'a> {
    status: u16,
    code: &'a str,
    message: &'a str,
    wait: Option<Duration>,
}

/// Reads what the SDK makes of a failed request.
pub(super) fn fault_of<E>(action: &'static str, error: &SdkError<E, HttpResponse>) -> Fault
where
    E: ProvideErrorMetadata + StdError + 'static,
{
    match error {
        SdkError::ServiceError(context) => {
            let raw = context.raw();
            judge(
                action,
                &Answer {
                    status: raw.status().as_u16(),
                    code: context.err().code().unwrap_or_default(),
                    message: context.err().message().unwrap_or_default(),
                    wait: retry_after(raw),
                },
            )
        }
        SdkError::ResponseError(context) => judge(
            action,
            &Answer {
                status: context.raw().status().as_u16(),
                message: "an answer that is not S3's",
                wait: retry_after(context.raw()),
                ..Answer::default()
            },
        ),
        SdkError::TimeoutError(_) => Fault::Error(unavailable(action, "timed out".to_owned(), true)),
        SdkError::DispatchFailure(failure) if failure.is_timeout() => {
            Fault::Error(unavailable(action, "could not connect in time".to_owned(), true))
        }
        other => Fault::Error(without_answer(action, other)),
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

fn without_answer(action: &'static str, error: &(dyn StdError + 'static)) -> StoreError {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    let mut last = error.to_string();
    let mut is_away = false;
    while let Some(error) = cause {
        if let Some(refused) = error.downcast_ref::<CredentialsError>() {
            return credentials_error(action, refused);
        }
        is_away |= error.downcast_ref::<io::Error>().is_some_and(shows_absence);
        last = error.to_string();
        cause = error.source();
    }
    unavailable(action, short(&last), is_away)
}

/// A server that takes no connections is away for everyone; one connection that broke off is nothing to wait for.
fn shows_absence(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionRefused
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
            | ErrorKind::NetworkDown
            | ErrorKind::TimedOut
    )
}

fn credentials_error(action: &'static str, error: &CredentialsError) -> StoreError {
    match error {
        CredentialsError::CredentialsNotLoaded(_) => StoreError::Denied {
            action,
            reason:
                "no AWS credentials were found; give AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile or a role"
                    .to_owned(),
        },
        CredentialsError::InvalidConfiguration(_) => {
            StoreError::Denied { action, reason: "the AWS configuration is not valid".to_owned() }
        }
        _ => unavailable(action, "no AWS credentials could be loaded now".to_owned(), true),
    }
}

fn retry_after(raw: &HttpResponse) -> Option<Duration> {
    raw.headers().get("retry-after").and_then(|text| text.trim().parse().ok()).map(Duration::from_secs)
}

fn judge(action: &'static str, answer: &Answer<'_>) -> Fault {
    match answer.code {
        "PreconditionFailed" => Fault::Taken,
        "ConditionalRequestConflict" | "OperationAborted" => Fault::Conflict,
        "NoSuchKey" | "NoSuchVersion" => Fault::Absent,
        "NoSuchUpload" => Fault::NoSuchUpload,
        "ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired" => Fault::ExpiredToken,
        "RequestTimeTooSkewed" | "RequestExpired" => Fault::ClockSkew,
        "InvalidRequest" if !mentions_lock(answer.message) => Fault::Invalid(described(answer)),
        code => by_code(action, code, answer).map_or_else(|| by_status(action, answer), Fault::Error),
    }
}

fn by_code(action: &'static str, code: &str, answer: &Answer<'_>) -> Option<StoreError> {
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
        "InvalidRequest" | "InvalidArgument" if mentions_lock(answer.message) => no_lock(&described(answer)),
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

fn by_kms(action: &'static str, code: &str, answer: &Answer<'_>) -> StoreError {
    if code.contains("Throttling") || answer.status >= 500 {
        return busy(action, answer, true);
    }
    StoreError::Unfit(format!(
        "KMS refuses the bucket's key ({}); check that store.kms_key_id exists, is enabled and may be used",
        described(answer)
    ))
}

fn by_status(action: &'static str, answer: &Answer<'_>) -> Fault {
    Fault::Error(match answer.status {
        404 | 405 => return Fault::Absent,
        409 => return Fault::Conflict,
        412 => return Fault::Taken,
        401 | 403 => denied(action, answer),
        301 | 307 | 308 => StoreError::Unfit(format!(
            "the bucket is in another place ({}); set store.region or store.endpoint_url to the bucket's",
            described(answer)
        )),
        501 => StoreError::Unsupported(action),
        507 => StoreError::Full,
        429 | 502..=504 => busy(action, answer, true),
        // A 500 is about this one request as often as about the store; there is no reason for others to wait.
        _ => busy(action, answer, false),
    })
}

fn denied(action: &'static str, answer: &Answer<'_>) -> StoreError {
    StoreError::Denied { action, reason: described(answer) }
}

fn busy(action: &'static str, answer: &Answer<'_>, slow_down: bool) -> StoreError {
    StoreError::Unavailable { action, reason: described(answer), wait: answer.wait, slow_down }
}

fn mentions_lock(message: &str) -> bool {
    let message = message.to_ascii_lowercase().replace(' ', "");
    message.contains("objectlock") || message.contains("retention") || message.contains("retainuntil")
}

fn described(answer: &Answer<'_>) -> String {
    let mut text = answer.status.to_string();
    for part in [answer.code, answer.message] {
        if !part.is_empty() {
            text.push(' ');
            text.push_str(&short(part));
        }
    }
    text
}

fn short(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_MESSAGE_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;

    fn judged(status: u16, code: &str, message: &str) -> Fault {
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
