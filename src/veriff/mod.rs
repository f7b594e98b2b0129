//! Veriff: everything the vendor dictates, and nothing else.
//!
//! A client for one integration: it signs, paces, retries and classifies, and gives back answers with the facts that
//! documents record. It talks to the configured host only, follows no redirect, and no error of it holds a URL, a
//! header or a body. What an answer means for a session is decided above.

pub mod answer;
pub mod credentials;
pub mod pace;
pub mod reach;
pub mod settings;
pub mod signing;
pub mod wire;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::header::{self, HeaderMap, HeaderValue};
use secrecy::ExposeSecret as _;

pub use self::answer::{Answer, MediaAnswer, VeriffError};
use self::credentials::{Credentials, Keys};
use self::pace::{Pace, Pass};
use self::settings::{IntegrationSettings, RecordKind, SignaturePolicy};
use self::signing::{Signer, sign_id};
use crate::clock::Clock;
use crate::metrics::{Meter, SessionMeter, UpstreamMeter};
use crate::model::sidecar::SignatureCheck;
use crate::model::{AttemptId, MediaId, SessionId};
use crate::retry::{Backoff, Tries, retry_after};
use crate::secret::SecretError;

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long nothing may arrive before a request is given up. There is no limit on the whole: a body that moves is left
/// to move.
const IDLE_TIMEOUT: Duration = Duration::from_mins(1);

/// The longest list or record that is read, after decoding. Ten attempts with a hundred items each have well under one.
const MAX_ANSWER_BYTES: usize = 8 * 1024 * 1024;

/// How often asking again must have given the same before an integration's habit is taken for one.
pub const CONFIRMATIONS: u32 = 3;

/// One of the GET calls of Veriff's API.
#[derive(Debug, Clone, Copy)]
pub enum Call<'a> {
    /// All attempts of a session.
    Attempts(&'a SessionId),
    /// The media of a session's latest attempt.
    SessionMedia(&'a SessionId),
    /// The media of one attempt.
    AttemptMedia(&'a AttemptId),
    /// A JSON record of a session.
    Record(&'a SessionId, RecordKind),
    /// The bytes of one media item.
    Media(&'a MediaId),
}

impl Call<'_> {
    /// Returns the path below the base URL. Ids have no character that a path would have to escape.
    #[must_use]
    pub fn path(self) -> String {
        match self {
            Self::Attempts(id) => format!("/v1/sessions/{id}/attempts"),
            Self::SessionMedia(id) => format!("/v1/sessions/{id}/media"),
            Self::AttemptMedia(id) => format!("/v1/attempts/{id}/media"),
            Self::Record(id, kind) => format!("/v1/sessions/{id}/{}", kind.as_str()),
            Self::Media(id) => format!("/v1/media/{id}"),
        }
    }

    /// Returns the id in the path, which is what the signature covers.
    fn signed_id(&self) -> &str {
        match self {
            Self::Attempts(id) | Self::SessionMedia(id) | Self::Record(id, _) => id.as_str(),
            Self::AttemptMedia(id) => id.as_str(),
            Self::Media(id) => id.as_str(),
        }
    }
}

/// A client for one integration.
#[derive(Debug)]
pub struct VeriffClient {
    settings: IntegrationSettings,
    base: String,
    host: String,
    http: reqwest::Client,
    credentials: Credentials,
    pace: Arc<Pace>,
    wrong_lists: AtomicU32,
    was_answered: AtomicBool,
    backoff: Backoff,
    clock: Arc<dyn Clock>,
    meter: UpstreamMeter,
}

/// Why a client could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// A secret cannot be read.
    #[error("integrations.{name}.{key}")]
    Secret {
        /// The integration.
        name: String,
        /// The key of the configuration.
        key: &'static str,
        /// The cause.
        source: SecretError,
    },
    /// A secret cannot stand in a header.
    #[error("integrations.{name}.api_key has characters that are not allowed in an HTTP header")]
    Header {
        /// The integration.
        name: String,
    },
    /// The HTTP library cannot start.
    #[error("the HTTP client cannot start")]
    Http(#[source] reqwest::Error),
}

impl VeriffClient {
    /// Makes a client and reads its credentials.
    ///
    /// # Errors
    /// Fatal (configuration): a secret cannot be read.
    pub async fn connect(
        settings: IntegrationSettings,
        tries: u32,
        clock: Arc<dyn Clock>,
        meter: Arc<Meter>,
    ) -> Result<Self, ClientError> {
        let credentials = Credentials::load(&settings).await?;
        let http = reqwest::Client::builder()
            .user_agent(concat!("veriff-archive/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .https_only(!settings.allow_http)
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(settings.max_concurrency)
            .build()
            .map_err(ClientError::Http)?;
        let base = settings.base_url.as_str().trim_end_matches('/').to_owned();
        let host = settings.base_url.host_str().unwrap_or_default();
        let host = settings.base_url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        let pace = Pace::new(settings.max_requests_per_second, settings.max_concurrency, Arc::clone(&clock));
        Ok(Self {
            wrong_lists: AtomicU32::new(0),
            was_answered: AtomicBool::new(false),
            base,
            host,
            http,
            credentials,
            pace,
            backoff: Backoff::of_tries(tries),
            clock,
            meter: meter.upstream_of(&settings.name),
            settings,
        })
    }

    /// Returns the settings it was made with.
    #[must_use]
    pub const fn settings(&self) -> &IntegrationSettings {
        &self.settings
    }

    /// Returns the host that is asked, with its port if it is not the usual one.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Tells whether the integration ever gave a list.
    #[must_use]
    pub fn was_answered(&self) -> bool {
        self.was_answered.load(Ordering::Relaxed)
    }

    /// Notes that something was tried again.
    pub fn note_retry(&self, meter: &SessionMeter) {
        meter.retried();
        self.meter.retried();
    }

    /// Starts a budget of tries for one thing.
    #[must_use]
    pub const fn tries(&self) -> Tries {
        self.backoff.begin()
    }

    /// Draws the wait before another try; nothing when the budget is used up or trying again cannot help.
    ///
    /// A refusal for load counts as a try only while other requests succeed: when all are refused it is the pace that is
    /// wrong, and what ends that is `limits.no_progress`.
    pub fn next_wait(&self, tries: &mut Tries, error: &VeriffError, meter: &SessionMeter) -> Option<Duration> {
        if !error.may_try_again() {
            return None;
        }
        self.meter.failed(self.clock.instant());
        let asked = error.wait();
        let wait = if matches!(error, VeriffError::Throttled { .. }) && !self.pace.others_succeed() {
            tries.wait_for_free(asked)
        } else {
            tries.wait(asked)?
        };
        self.note_retry(meter);
        tracing::debug!(error.code = %error.code(), wait_ms = wait.as_millis(), "trying again: {error}");
        Some(wait)
    }

    /// Asks for a list or record until there is an answer or the budget is used up. `read` takes the body of a 200
    /// apart; 404 and 410 are answers without content.
    ///
    /// # Errors
    /// Retryable: throttled or unavailable to the end. Permanent: refused, redirected, or never readable.
    pub async fn ask<T>(
        &self,
        call: Call<'_>,
        meter: &SessionMeter,
        read: impl Fn(&[u8]) -> Result<T, &'static str>,
    ) -> Result<(Answer, Option<T>), VeriffError> {
        let was_wrongly_signed = AtomicBool::new(false);
        let once = || async {
            let answer = self.ask_once(call, meter).await?;
            if answer.is_absent() {
                return Ok((answer, None));
            }
            let content = read(&answer.body).map_err(|reason| VeriffError::Unexpected { reason, again: true })?;
            if self.accepts(answer.signature) {
                self.wrong_lists.store(0, Ordering::Relaxed);
            } else {
                let again = !was_wrongly_signed.swap(true, Ordering::Relaxed);
                if !self.records_mismatches() || (again && !self.signs_lists_otherwise()) {
                    return Err(VeriffError::Signature { again });
                }
                self.wrong_lists.fetch_add(1, Ordering::Relaxed);
            }
            Ok((answer, Some(content)))
        };
        self.tries().run(|tries, error| self.next_wait(tries, error, meter), once).await
    }

    /// Opens the bytes of one media item. One try: the caller, who can tell a broken body, has the budget.
    ///
    /// # Errors
    /// As [`VeriffClient::ask`]; permanent also if Veriff answers 404 or 410.
    pub async fn open_media(&self, media: &MediaId, meter: &SessionMeter) -> Result<MediaAnswer, VeriffError> {
        let call = Call::Media(media);
        let (response, pass, keys) = self.send(call, meter).await?;
        let status = response.status().as_u16();
        if status == 404 || status == 410 {
            pass.succeeded();
            self.meter.succeeded(self.clock.instant());
            return Err(VeriffError::Missing { http_status: status });
        }
        let encoding = response.headers().get(header::CONTENT_ENCODING).map(HeaderValue::as_bytes);
        if !matches!(encoding, None | Some(b"" | b"identity")) {
            return Err(VeriffError::Unexpected {
                reason: "the media has a content coding that was not requested",
                again: true,
            });
        }
        let signature_value = signature_of(response.headers());
        let checks = self.settings.response_signature != SignaturePolicy::Off;
        let signer = (checks && signature_value.is_some()).then(|| Signer::new(keys.shared_secret.expose_secret()));
        Ok(MediaAnswer {
            http_status: status,
            content_type: text_of(response.headers(), &header::CONTENT_TYPE),
            date: text_of(response.headers(), &header::DATE),
            content_length: response.content_length(),
            fetched_at: self.clock.now(),
            signature_value,
            path: self.recorded_path(call),
            signer,
            checks,
            response,
            pass,
            clock: Arc::clone(&self.clock),
            meter: self.meter.clone(),
        })
    }

    /// Tells whether a response signature is good enough for the policy.
    #[must_use]
    pub fn accepts(&self, signature: SignatureCheck) -> bool {
        match self.settings.response_signature {
            SignaturePolicy::Off => true,
            SignaturePolicy::Record => signature != SignatureCheck::Mismatch,
            SignaturePolicy::Required => signature == SignatureCheck::Match,
        }
    }

    /// Tells whether asking again has never given a list with a right signature, several times over: then the integration
    /// signs lists in a way that is not documented, and asking everything twice would prove nothing.
    fn signs_lists_otherwise(&self) -> bool {
        self.wrong_lists.load(Ordering::Relaxed) >= CONFIRMATIONS
    }

    /// Tells whether a wrong signature is noted rather than refused.
    #[must_use]
    pub fn records_mismatches(&self) -> bool {
        self.settings.response_signature == SignaturePolicy::Record
    }

    async fn ask_once(&self, call: Call<'_>, meter: &SessionMeter) -> Result<Answer, VeriffError> {
        let (mut response, pass, keys) = self.send(call, meter).await?;
        let http_status = response.status().as_u16();
        let body = read_body(&mut response).await.map_err(cut_short)?;
        let body = decoded(response.headers(), body)?;
        pass.succeeded();
        self.meter.succeeded(self.clock.instant());
        self.was_answered.fetch_or(http_status == 200, Ordering::Relaxed);
        let signature_value = signature_of(response.headers());
        let signature = match (self.settings.response_signature, &signature_value) {
            (SignaturePolicy::Off, _) => SignatureCheck::Unchecked,
            (_, None) => SignatureCheck::Absent,
            (_, Some(value)) => {
                let mut signer = Signer::new(keys.shared_secret.expose_secret());
                signer.update(&body);
                if signer.matches(value) { SignatureCheck::Match } else { SignatureCheck::Mismatch }
            }
        };
        Ok(Answer {
            path: self.recorded_path(call),
            http_status,
            fetched_at: self.clock.now(),
            content_type: text_of(response.headers(), &header::CONTENT_TYPE),
            date: text_of(response.headers(), &header::DATE),
            body,
            signature,
            signature_value,
        })
    }

    /// Sends one request and classifies its status. Refused credentials are read again once, if they may have changed.
    async fn send(
        &self,
        call: Call<'_>,
        meter: &SessionMeter,
    ) -> Result<(reqwest::Response, Pass, Arc<Keys>), VeriffError> {
        let keys = self.credentials.current();
        let (response, pass) = match self.send_with(call, &keys, meter).await {
            Err(VeriffError::Unauthorized { .. }) if self.credentials.renew(&keys).await => {
                let keys = self.credentials.current();
                let (response, pass) = self.send_with(call, &keys, meter).await?;
                return Ok((response, pass, keys));
            }
            other => other?,
        };
        Ok((response, pass, keys))
    }

    async fn send_with(
        &self,
        call: Call<'_>,
        keys: &Keys,
        meter: &SessionMeter,
    ) -> Result<(reqwest::Response, Pass), VeriffError> {
        let pass = self.pace.enter().await;
        self.meter.requested();
        meter.requested();
        let mut signature = HeaderValue::from_str(&sign_id(keys.shared_secret.expose_secret(), call.signed_id()))
            .unwrap_or_else(|_| unreachable!("hex stands in any header"));
        signature.set_sensitive(true);
        let sent = self
            .http
            .get(format!("{}{}", self.base, call.path()))
            .header("x-auth-client", keys.api_key.clone())
            .header("x-hmac-signature", signature)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT_ENCODING, "identity")
            .send()
            .await;
        let mut response = sent.map_err(|error| answer::transport_error(&error))?;
        let status = response.status().as_u16();
        if matches!(status, 200 | 404 | 410) {
            return Ok((response, pass));
        }
        let wait = text_of(response.headers(), &header::RETRY_AFTER).and_then(|it| retry_after(&it, self.clock.now()));
        if matches!(status, 429 | 503) {
            pass.refused(wait);
            if status == 429 {
                self.meter.throttled();
            }
        }
        let code = read_body(&mut response).await.ok().and_then(|body| wire::ErrorBody::code_of(&body));
        Err(VeriffError::of_status(status, code, wait))
    }

    /// Returns the path as documents record it, with whatever path the base URL has.
    fn recorded_path(&self, call: Call<'_>) -> String {
        format!("{}{}", self.settings.base_url.path().trim_end_matches('/'), call.path())
    }
}

/// Tells of a list that broke off. `media.truncated` is said of media items alone.
fn cut_short(error: VeriffError) -> VeriffError {
    match error {
        VeriffError::Truncated => {
            VeriffError::Unavailable { reason: "the answer is shorter than announced".to_owned(), wait: None }
        }
        other => other,
    }
}

async fn read_body(response: &mut reqwest::Response) -> Result<Bytes, VeriffError> {
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| answer::transport_error(&error))? {
        if body.len() + chunk.len() > MAX_ANSWER_BYTES {
            return Err(VeriffError::Unexpected { reason: "the answer is longer than any list", again: false });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

/// Undoes a content coding that some proxies apply although it was not asked for.
fn decoded(headers: &HeaderMap, body: Bytes) -> Result<Bytes, VeriffError> {
    use std::io::Read as _;
    match headers.get(header::CONTENT_ENCODING).map(HeaderValue::as_bytes) {
        None | Some(b"" | b"identity") => Ok(body),
        Some(b"gzip") => {
            let mut text = Vec::new();
            let limit = MAX_ANSWER_BYTES as u64 + 1;
            match flate2::read::GzDecoder::new(&body[..]).take(limit).read_to_end(&mut text) {
                Ok(length) if length <= MAX_ANSWER_BYTES => Ok(text.into()),
                _ => Err(VeriffError::Unexpected { reason: "the answer cannot be decoded", again: true }),
            }
        }
        Some(_) => Err(VeriffError::Unexpected { reason: "the answer has an unknown content coding", again: true }),
    }
}

/// Returns the response signature, under its older or its newer name.
fn signature_of(headers: &HeaderMap) -> Option<String> {
    let value = headers.get("x-hmac-signature").or_else(|| headers.get("vrf-hmac-signature"))?;
    value.to_str().ok().map(str::to_owned)
}

fn text_of(headers: &HeaderMap, name: &header::HeaderName) -> Option<String> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}
