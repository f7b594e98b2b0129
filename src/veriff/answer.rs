//! Answers: what Veriff sent back, classified by status first and code second.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::pace::Pass;
use super::signing::Signer;
use crate::clock::{Clock, Timestamp};
use crate::error::Code;
use crate::metrics::UpstreamMeter;
use crate::model::manifest::Listing;
use crate::model::sidecar::SignatureCheck;

/// Codes that mean the key itself is refused, whatever was asked for.
const KEY_CODES: [u64; 8] = [1801, 1802, 1803, 1804, 1812, 1813, 1814, 1815];

/// A list or record as it was sent.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The path that was asked.
    pub path: String,
    /// 200, 404 or 410.
    pub http_status: u16,
    /// When it came.
    pub fetched_at: Timestamp,
    /// Its content type.
    pub content_type: Option<String>,
    /// Its `Date`.
    pub date: Option<String>,
    /// Its body, byte for byte after transport decoding.
    pub body: Bytes,
    /// What came of checking its signature.
    pub signature: SignatureCheck,
    /// The signature itself.
    pub signature_value: Option<String>,
}

impl Answer {
    /// Tells whether Veriff does not have what was asked for.
    #[must_use]
    pub const fn is_absent(&self) -> bool {
        matches!(self.http_status, 404 | 410)
    }

    /// Returns the answer as a manifest records it.
    #[must_use]
    pub fn listing(&self) -> Listing {
        Listing::of(self.path.clone(), self.fetched_at, self.http_status, &self.body)
    }
}

/// A media item whose bytes are still to be read.
#[derive(Debug)]
pub struct MediaAnswer {
    /// 200.
    pub http_status: u16,
    /// Its content type.
    pub content_type: Option<String>,
    /// Its `Date`.
    pub date: Option<String>,
    /// How many bytes were announced.
    pub content_length: Option<u64>,
    /// When the answer began.
    pub fetched_at: Timestamp,
    /// The response signature.
    pub signature_value: Option<String>,
    /// The path that was asked.
    pub path: String,
    pub(super) signer: Option<Signer>,
    pub(super) checks: bool,
    pub(super) response: reqwest::Response,
    pub(super) pass: Pass,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) meter: UpstreamMeter,
}

impl MediaAnswer {
    /// Returns the next bytes, or `None` when all announced ones have come.
    ///
    /// # Errors
    /// Retryable: the body ended early, was reset or stalled.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, VeriffError> {
        let chunk = self.response.chunk().await.map_err(|error| transport_error(&error))?;
        match &chunk {
            Some(bytes) => {
                if let Some(signer) = &mut self.signer {
                    signer.update(bytes);
                }
                self.meter.received(bytes.len() as u64);
                self.meter.succeeded(self.clock.instant());
            }
            None => self.pass.succeeded(),
        }
        Ok(chunk)
    }

    /// Tells what came of the response signature, once all bytes were read.
    #[must_use]
    pub fn signature(&mut self) -> SignatureCheck {
        match (self.checks, self.signer.take(), &self.signature_value) {
            (false, ..) => SignatureCheck::Unchecked,
            (true, Some(signer), Some(value)) if signer.clone().matches(value) => SignatureCheck::Match,
            (true, Some(_), _) => SignatureCheck::Mismatch,
            (true, None, _) => SignatureCheck::Absent,
        }
    }
}

/// Why Veriff did not give what it was asked for. No variant holds a URL, a header or a body.
#[derive(Debug, Clone, thiserror::Error)]
pub enum VeriffError {
    /// 401 or 403.
    #[error("veriff refuses the credentials ({http_status}{})", code.map(|code| format!(", code {code}")).unwrap_or_default())]
    Unauthorized {
        /// 401, 403, or 400 with a code of the 18xx range.
        http_status: u16,
        /// Veriff's own code.
        code: Option<u64>,
    },
    /// 404 or 410 on a media item.
    #[error("veriff does not have it ({http_status})")]
    Missing {
        /// 404 or 410.
        http_status: u16,
    },
    /// 400: Veriff does not take the id.
    #[error("veriff rejects the id ({http_status}{})", code.map(|code| format!(", code {code}")).unwrap_or_default())]
    Invalid {
        /// 400 or 422.
        http_status: u16,
        /// Veriff's own code.
        code: Option<u64>,
    },
    /// 429.
    #[error("veriff asks for fewer requests (429)")]
    Throttled {
        /// The wait it asks for.
        wait: Option<Duration>,
    },
    /// 5xx, reset, timeout, stall.
    #[error("veriff is unavailable: {reason}")]
    Unavailable {
        /// What happened.
        reason: String,
        /// The wait it asks for.
        wait: Option<Duration>,
    },
    /// The body ended before what was announced.
    #[error("the body is shorter than announced")]
    Truncated,
    /// HTML or an error document in place of the media.
    #[error("received an HTML or error page instead of media")]
    NotMedia,
    /// Nothing came where a size was listed.
    #[error("the body is empty although a size is listed")]
    Empty,
    /// The media item is longer than `limits.max_media_size`.
    #[error("the media item is longer than limits.max_media_size ({limit_bytes} bytes)")]
    TooLarge {
        /// The limit.
        limit_bytes: u64,
    },
    /// The response signature is wrong, or absent where it is required.
    #[error("the response signature is wrong or absent")]
    Signature {
        /// It was the first time.
        again: bool,
    },
    /// An answer that fits no rule.
    #[error("unexpected answer from veriff: {reason}")]
    Unexpected {
        /// Which.
        reason: &'static str,
        /// Trying again may help.
        again: bool,
    },
}

impl VeriffError {
    /// Classifies a status that is not 200, 404 or 410.
    #[must_use]
    pub fn of_status(http_status: u16, code: Option<u64>, wait: Option<Duration>) -> Self {
        match http_status {
            400 if code.is_some_and(|code| (1801..=1819).contains(&code)) => Self::Unauthorized { http_status, code },
            401 | 403 => Self::Unauthorized { http_status, code },
            400 | 422 => Self::Invalid { http_status, code },
            429 => Self::Throttled { wait },
            408 | 425 | 500..=599 => Self::Unavailable { reason: format!("status {http_status}"), wait },
            300..=399 => Self::Unexpected { reason: "a redirect, which is not followed", again: false },
            _ => Self::Unexpected { reason: "a status that is not part of the API", again: true },
        }
    }

    /// Returns the stable code, which fixes the error class.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::Unauthorized { .. } => Code::VeriffUnauthorized,
            Self::Missing { .. } => Code::MediaMissing,
            Self::Invalid { .. } => Code::InputInvalid,
            Self::Throttled { .. } => Code::VeriffThrottled,
            Self::Unavailable { .. } => Code::VeriffUnavailable,
            Self::Truncated => Code::MediaTruncated,
            Self::NotMedia => Code::MediaNotMedia,
            Self::Empty => Code::MediaEmpty,
            Self::TooLarge { .. } => Code::MediaTooLarge,
            Self::Signature { .. } => Code::MediaSignatureMismatch,
            Self::Unexpected { .. } => Code::VeriffUnexpected,
        }
    }

    /// Returns the HTTP status, where one is the reason.
    #[must_use]
    pub const fn http_status(&self) -> Option<u16> {
        match self {
            Self::Unauthorized { http_status, .. }
            | Self::Missing { http_status }
            | Self::Invalid { http_status, .. } => Some(*http_status),
            Self::Throttled { .. } => Some(429),
            _ => None,
        }
    }

    /// Tells whether the key itself is refused, rather than this one request.
    #[must_use]
    pub fn refuses_key(&self) -> bool {
        matches!(self, Self::Unauthorized { code: Some(code), .. } if KEY_CODES.contains(code))
    }

    pub(super) const fn may_try_again(&self) -> bool {
        match self {
            Self::Unauthorized { .. } | Self::Missing { .. } | Self::Invalid { .. } | Self::TooLarge { .. } => false,
            Self::Throttled { .. } | Self::Unavailable { .. } | Self::Truncated | Self::NotMedia | Self::Empty => true,
            Self::Signature { again } | Self::Unexpected { again, .. } => *again,
        }
    }

    pub(super) const fn wait(&self) -> Option<Duration> {
        match self {
            Self::Throttled { wait } | Self::Unavailable { wait, .. } => *wait,
            _ => None,
        }
    }
}

/// Classifies a failure of the transport. The library's own text is not used: it holds the URL.
pub(super) fn transport_error(error: &reqwest::Error) -> VeriffError {
    let unavailable = |reason: &str| VeriffError::Unavailable { reason: reason.to_owned(), wait: None };
    if error.is_timeout() {
        return unavailable("timed out");
    }
    if error.is_connect() {
        return unavailable("cannot connect");
    }
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(io) = cause.downcast_ref::<std::io::Error>() {
            return match io.kind() {
                std::io::ErrorKind::UnexpectedEof => VeriffError::Truncated,
                std::io::ErrorKind::TimedOut => unavailable("timed out"),
                _ => unavailable("the connection broke"),
            };
        }
        source = cause.source();
    }
    if error.is_body() || error.is_decode() { VeriffError::Truncated } else { unavailable("the connection broke") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_classified_before_codes() {
        let code = |status, code| VeriffError::of_status(status, code, None).code();
        assert_eq!(code(400, Some(1002)), Code::InputInvalid);
        assert_eq!(code(400, Some(1818)), Code::VeriffUnauthorized);
        assert_eq!(code(401, None), Code::VeriffUnauthorized);
        assert_eq!(code(403, Some(1)), Code::VeriffUnauthorized);
        assert_eq!(code(429, None), Code::VeriffThrottled);
        assert_eq!(code(302, None), Code::VeriffUnexpected);
        assert_eq!(code(502, None), Code::VeriffUnavailable);
        assert_eq!(code(418, None), Code::VeriffUnexpected);
    }

    #[test]
    fn only_key_codes_refuse_the_key() {
        for (code, key) in [(1801, true), (1804, true), (1812, true), (1815, true), (1818, false), (1819, false)] {
            assert_eq!(VeriffError::of_status(401, Some(code), None).refuses_key(), key, "{code}");
        }
        assert!(!VeriffError::of_status(403, None, None).refuses_key());
    }
}
