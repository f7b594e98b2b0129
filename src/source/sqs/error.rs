//! What an answer of SQS means: gone, away for now, or refused.
//!
//! The only place that knows SQS's error codes. A reason repeats the server's code and, where it cannot hold a secret, its
//! message.

use std::error::Error as StdError;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_sqs::config::http::HttpResponse;
use aws_sdk_sqs::error::{ProvideErrorMetadata, SdkError};

use crate::error::Code;
use crate::source::SourceError;

/// The longest part of a server's message that is repeated.
const MAX_MESSAGE_CHARS: usize = 300;

/// Why a request did not succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// The message is not ours any more: deleted, or handed to another worker after its time.
    Gone(String),
    /// It may work later.
    Unavailable(String),
    /// It will not work until a person has changed something.
    Denied(String),
}

impl Fault {
    /// Makes the error for a caller to whom a message that is gone is nothing special.
    pub(super) fn into_error(self, action: &'static str) -> SourceError {
        let (code, reason) = match self {
            Self::Gone(reason) | Self::Unavailable(reason) => (Code::QueueUnavailable, reason),
            Self::Denied(reason) => (Code::QueueDenied, reason),
        };
        SourceError::Queue { action, code, reason }
    }
}

/// Reads what the SDK makes of a failed request.
pub(super) fn fault_of<E>(error: &SdkError<E, HttpResponse>) -> Fault
where
    E: ProvideErrorMetadata + StdError + 'static,
{
    match error {
        SdkError::ServiceError(context) => {
            let (code, message) = (context.err().code(), context.err().message());
            judge(context.raw().status().as_u16(), code.unwrap_or_default(), message.unwrap_or_default())
        }
        SdkError::ResponseError(context) => judge(context.raw().status().as_u16(), "", "an answer that is not SQS's"),
        SdkError::TimeoutError(_) => Fault::Unavailable("timed out".to_owned()),
        SdkError::DispatchFailure(failure) if failure.is_timeout() => {
            Fault::Unavailable("could not connect in time".to_owned())
        }
        other => without_answer(other),
    }
}

fn without_answer(error: &(dyn StdError + 'static)) -> Fault {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    let mut last = error.to_string();
    while let Some(error) = cause {
        match error.downcast_ref::<CredentialsError>() {
            Some(CredentialsError::CredentialsNotLoaded(_)) => {
                let advice = "give AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile or a role";
                return Fault::Denied(format!("no AWS credentials were found; {advice}"));
            }
            Some(CredentialsError::InvalidConfiguration(_)) => {
                return Fault::Denied("the AWS configuration is not valid".to_owned());
            }
            Some(_) => return Fault::Unavailable("no AWS credentials could be loaded now".to_owned()),
            None => {}
        }
        last = error.to_string();
        cause = error.source();
    }
    Fault::Unavailable(short(&last))
}

/// Judges one entry of a batch.
pub(super) fn fault_of_entry(code: &str, message: &str, is_ours: bool) -> Fault {
    judge(if is_ours { 400 } else { 500 }, code, message)
}

fn judge(status: u16, code: &str, message: &str) -> Fault {
    // The older protocol puts a namespace before the name: AWS.SimpleQueueService.NonExistentQueue.
    let name = code.rsplit(['.', '#']).next().unwrap_or_default();
    let described = || described(status, name, message);
    match name {
        "ReceiptHandleIsInvalid" | "MessageNotInflight" | "InvalidParameterValue" | "InvalidIdFormat" => {
            Fault::Gone(described())
        }
        "NonExistentQueue" | "QueueDoesNotExist" => {
            Fault::Denied(format!("the queue does not exist ({status} {name})"))
        }
        // The server may repeat what it was sent, so its message is left out.
        "SignatureDoesNotMatch"
        | "InvalidSignatureException"
        | "InvalidClientTokenId"
        | "UnrecognizedClientException"
        | "IncompleteSignature"
        | "InvalidAccessKeyId"
        | "MissingAuthenticationToken"
        | "InvalidSecurity"
        | "NotSignedUp"
        | "OptInRequired" => Fault::Denied(format!("{status} {name}")),
        // The credential chain may bring new ones.
        "ExpiredToken" | "ExpiredTokenException" => Fault::Unavailable(format!("{status} {name}")),
        "AccessDenied" | "AccessDeniedException" | "InvalidAddress" | "UnsupportedOperation" => {
            Fault::Denied(described())
        }
        "KmsThrottled" => Fault::Unavailable(described()),
        kms if kms.starts_with("Kms") => Fault::Denied(described()),
        _ if matches!(status, 401 | 403 | 404) && !is_busy(name) => Fault::Denied(described()),
        _ => Fault::Unavailable(described()),
    }
}

/// SQS also throttles with 403.
fn is_busy(name: &str) -> bool {
    name.contains("Throttl") || matches!(name, "OverLimit" | "RequestLimitExceeded")
}

fn described(status: u16, name: &str, message: &str) -> String {
    let mut text = status.to_string();
    for part in [name, message] {
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

    #[test]
    fn every_answer_has_its_meaning() {
        let denied = Some(Code::QueueDenied);
        let unavailable = Some(Code::QueueUnavailable);
        for (status, code, expected) in [
            (400, "AWS.SimpleQueueService.NonExistentQueue", denied),
            (400, "QueueDoesNotExist", denied),
            (403, "AccessDenied", denied),
            (400, "AccessDeniedException", denied),
            (403, "InvalidSecurity", denied),
            (403, "InvalidClientTokenId", denied),
            (403, "SignatureDoesNotMatch", denied),
            (400, "KmsAccessDenied", denied),
            (400, "KMS.KmsDisabled", denied),
            (403, "", denied),
            (404, "", denied),
            (400, "KmsThrottled", unavailable),
            (400, "RequestThrottled", unavailable),
            (403, "Throttling", unavailable),
            (403, "OverLimit", unavailable),
            (403, "ExpiredToken", unavailable),
            (503, "ServiceUnavailable", unavailable),
            (500, "InternalError", unavailable),
            (400, "SomethingNew", unavailable),
            (400, "com.amazonaws.sqs#ReceiptHandleIsInvalid", None),
            (400, "MessageNotInflight", None),
        ] {
            let fault = judge(status, code, "");
            let found = match &fault {
                Fault::Gone(_) => None,
                _ => Some(fault.into_error("take messages").code()),
            };
            assert_eq!(found, expected, "{status} {code}");
        }
    }

    #[test]
    fn an_answer_about_a_signature_is_not_repeated() {
        let error = judge(403, "InvalidClientTokenId", "you sent AKIAEXAMPLE").into_error("take messages");
        assert_eq!(error.to_string(), "cannot take messages: 403 InvalidClientTokenId");
    }
}
