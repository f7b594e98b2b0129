//! AWS: what became of a request to one of its services, in our own words.
//!
//! S3 and SQS fail alike: an answer with a code, no answer, or no credentials to ask with. Which codes there are and what
//! they mean, store and source know each for their own. A reason repeats the server's code and, where it cannot hold a
//! secret, its message.

use std::error::Error as StdError;
use std::io::{self, ErrorKind};
use std::time::Duration;

use aws_credential_types::provider::error::CredentialsError;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

use crate::clock::Timestamp;
use crate::retry::retry_after;

/// The longest part of a server's message that is repeated.
const MAX_MESSAGE_CHARS: usize = 300;

/// Why a request did not succeed.
#[derive(Debug)]
pub enum Fault {
    /// The service answered.
    Answered(Answer),
    /// It did not, and may later.
    Unanswered {
        /// What happened.
        reason: String,
        /// The service is away for everyone, not only for this request.
        is_away: bool,
    },
    /// There are no credentials to ask with, until a person gives some.
    NoCredentials(&'static str),
}

/// The parts of an answer that decide.
#[derive(Debug, Default)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The service's code; empty where it gave none.
    pub code: String,
    /// Its message; empty where it gave none.
    pub message: String,
    /// The wait it asks for.
    pub wait: Option<Duration>,
}

impl Answer {
    /// Repeats the answer for a person.
    #[must_use]
    pub fn described(&self) -> String {
        let mut text = self.status.to_string();
        for part in [&self.code, &self.message] {
            if !part.is_empty() {
                text.push(' ');
                text.push_str(&short(part));
            }
        }
        text
    }
}

/// Sends a request to `service` within a time limit and reads a failure.
///
/// # Errors
/// What became of it.
pub fn ask<T, E>(
    service: &str,
    limit: Duration,
    now: Timestamp,
    request: impl Future<Output = Result<T, SdkError<E, HttpResponse>>>,
) -> impl Future<Output = Result<T, Fault>>
where
    E: ProvideErrorMetadata + StdError + 'static,
{
    // The SDK's futures have ten thousand bytes, and each one that awaits them would have as many.
    let request = Box::pin(tokio::time::timeout(limit, request));
    async move {
        match request.await {
            Ok(answer) => answer.map_err(|error| fault_of(service, now, &error)),
            Err(_) => Err(unanswered(format!("no answer within {} s", limit.as_secs()), true)),
        }
    }
}

/// Reads what the SDK makes of a failed request.
fn fault_of<E>(service: &str, now: Timestamp, error: &SdkError<E, HttpResponse>) -> Fault
where
    E: ProvideErrorMetadata + StdError + 'static,
{
    let answered = |raw: &HttpResponse, code: Option<&str>, message: Option<&str>| {
        Fault::Answered(Answer {
            status: raw.status().as_u16(),
            code: code.unwrap_or_default().to_owned(),
            message: message.unwrap_or_default().to_owned(),
            wait: raw.headers().get("retry-after").and_then(|text| retry_after(text, now)),
        })
    };
    match error {
        SdkError::ServiceError(context) => answered(context.raw(), context.err().code(), context.err().message()),
        SdkError::ResponseError(context) => {
            answered(context.raw(), None, Some(&format!("an answer that is not {service}'s")))
        }
        SdkError::TimeoutError(_) => unanswered("timed out".to_owned(), true),
        SdkError::DispatchFailure(failure) if failure.is_timeout() => {
            unanswered("could not connect in time".to_owned(), true)
        }
        other => without_answer(other),
    }
}

fn without_answer(error: &(dyn StdError + 'static)) -> Fault {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    let mut last = error.to_string();
    let mut is_away = false;
    while let Some(error) = cause {
        if let Some(refused) = error.downcast_ref::<CredentialsError>() {
            return without_credentials(refused);
        }
        is_away |= error.downcast_ref::<io::Error>().is_some_and(shows_absence);
        last = error.to_string();
        cause = error.source();
    }
    unanswered(short(&last), is_away)
}

fn without_credentials(error: &CredentialsError) -> Fault {
    match error {
        CredentialsError::CredentialsNotLoaded(_) => Fault::NoCredentials(
            "no AWS credentials were found; give AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile or a role",
        ),
        CredentialsError::InvalidConfiguration(_) => Fault::NoCredentials("the AWS configuration is not valid"),
        _ => unanswered("no AWS credentials could be loaded now".to_owned(), true),
    }
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

const fn unanswered(reason: String, is_away: bool) -> Fault {
    Fault::Unanswered { reason, is_away }
}

fn short(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_MESSAGE_CHARS).collect()
}
