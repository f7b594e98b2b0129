//! What an answer of SQS means: gone, away for now, or refused.
//!
//! The only place that knows SQS's error codes. A reason repeats the server's code and, where it cannot hold a secret, its
//! message.

use std::time::Duration;

use crate::aws::{self, Answer};
use crate::error::Code;
use crate::source::SourceError;

/// Why a request did not succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// The message is not ours any more: deleted, or handed to another worker after its time.
    Gone(String),
    /// It may work later; the wait is what the queue asks for.
    Unavailable(String, Option<Duration>),
    /// It will not work until a person has changed something.
    Denied(String),
}

impl Fault {
    /// Makes the error for a caller to whom a message that is gone is nothing special.
    pub(super) fn into_error(self, action: &'static str) -> SourceError {
        let (code, reason) = match self {
            Self::Gone(reason) | Self::Unavailable(reason, _) => (Code::QueueUnavailable, reason),
            Self::Denied(reason) => (Code::QueueDenied, reason),
        };
        SourceError::Queue { action, code, reason }
    }
}

/// Says what a failed request means to a queue.
pub(super) fn fault_of(fault: aws::Fault) -> Fault {
    match fault {
        aws::Fault::Answered(answer) => judge(answer),
        aws::Fault::Unanswered { reason, .. } => Fault::Unavailable(reason, None),
        aws::Fault::NoCredentials(reason) => Fault::Denied(reason.to_owned()),
    }
}

/// Judges one entry of a batch.
pub(super) fn fault_of_entry(code: &str, message: &str, is_ours: bool) -> Fault {
    let status = if is_ours { 400 } else { 500 };
    judge(Answer { status, code: code.to_owned(), message: message.to_owned(), wait: None })
}

fn judge(mut answer: Answer) -> Fault {
    // The older protocol puts a namespace before the name: AWS.SimpleQueueService.NonExistentQueue.
    if let Some(at) = answer.code.rfind(['.', '#']) {
        answer.code.drain(..=at);
    }
    let (status, name) = (answer.status, answer.code.as_str());
    match name {
        "ReceiptHandleIsInvalid" | "MessageNotInflight" | "InvalidParameterValue" | "InvalidIdFormat" => {
            Fault::Gone(answer.described())
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
        "ExpiredToken" | "ExpiredTokenException" => Fault::Unavailable(format!("{status} {name}"), answer.wait),
        "AccessDenied" | "AccessDeniedException" | "InvalidAddress" | "UnsupportedOperation" => {
            Fault::Denied(answer.described())
        }
        "KmsThrottled" => Fault::Unavailable(answer.described(), answer.wait),
        kms if kms.starts_with("Kms") => Fault::Denied(answer.described()),
        _ if matches!(status, 401 | 403 | 404) && !is_busy(name) => Fault::Denied(answer.described()),
        _ => Fault::Unavailable(answer.described(), answer.wait),
    }
}

/// SQS also throttles with 403.
fn is_busy(name: &str) -> bool {
    name.contains("Throttl") || matches!(name, "OverLimit" | "RequestLimitExceeded")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, code: &str, message: &str) -> Answer {
        Answer { status, code: code.to_owned(), message: message.to_owned(), wait: None }
    }

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
            let fault = judge(answer(status, code, ""));
            let found = match &fault {
                Fault::Gone(_) => None,
                _ => Some(fault.into_error("take messages").code()),
            };
            assert_eq!(found, expected, "{status} {code}");
        }
    }

    #[test]
    fn an_answer_about_a_signature_is_not_repeated() {
        let error = judge(answer(403, "InvalidClientTokenId", "you sent AKIAEXAMPLE")).into_error("take messages");
        assert_eq!(error.to_string(), "cannot take messages: 403 InvalidClientTokenId");
    }
}
