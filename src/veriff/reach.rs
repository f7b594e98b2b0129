//! Reach: whether Veriff's host can be connected to, without credentials and without asking for anything.

use std::fmt::Write as _;
use std::time::Duration;

use super::settings::IntegrationSettings;
use crate::clock::{Clock, Timestamp};

/// How long the whole may take.
const TIMEOUT: Duration = Duration::from_secs(15);

/// What a connection showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reached {
    /// The HTTP status; any at all shows that name, connection and certificate are right.
    pub http_status: u16,
    /// Veriff's clock minus ours in milliseconds, if the answer has the time.
    pub clock_offset_ms: Option<i64>,
}

/// Connects to the host of an integration and asks for the head of its address, unsigned.
///
/// # Errors
/// Retryable: a text that says which step failed, without the address.
pub async fn reach(settings: &IntegrationSettings, clock: &dyn Clock) -> Result<Reached, String> {
    let client = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .https_only(!settings.allow_http)
        .timeout(TIMEOUT)
        .build()
        .map_err(|error| without_address(error, "start"))?;
    let answer =
        client.head(settings.base_url.clone()).send().await.map_err(|error| without_address(error, "connect"))?;
    let date =
        answer.headers().get(reqwest::header::DATE).and_then(|date| Timestamp::parse_http_date(date.to_str().ok()?));
    Ok(Reached {
        http_status: answer.status().as_u16(),
        clock_offset_ms: date.map(|date| date.millis_since(clock.now())),
    })
}

fn without_address(error: reqwest::Error, step: &str) -> String {
    let error = error.without_url();
    let mut text = format!("cannot {step}: {error}");
    let mut cause = std::error::Error::source(&error);
    while let Some(next) = cause {
        let _ = write!(text, ": {next}");
        cause = next.source();
    }
    text
}
