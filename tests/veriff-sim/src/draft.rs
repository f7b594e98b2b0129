//! Answers on their way to the wire: drafts, error pages, and the headers that sign them.

use std::sync::Arc;

use bytes::Bytes;
use hyper::Response;
use hyper::header::HeaderValue;

use crate::answers::error_body;
use crate::auth;
use crate::faults::Effect;
use crate::knobs::{RetryAfter, Signatures};
use crate::media::Media;
use crate::stream::{Line, SimBody, Source};
use crate::world::Integration;

/// An answer before it is signed and framed.
pub(crate) struct Draft {
    pub(crate) status: u16,
    pub(crate) content_type: String,
    pub(crate) extra: Vec<(&'static str, String)>,
    pub(crate) content: Content,
    pub(crate) signer: Option<(Integration, String)>,
    pub(crate) signatures: Signatures,
    pub(crate) gzip: bool,
}

pub(crate) enum Content {
    Bytes(Vec<u8>),
    Media(Box<Media>),
}

impl Draft {
    pub(crate) fn new(status: u16, content_type: &str, bytes: Vec<u8>) -> Self {
        Self {
            status,
            content_type: content_type.to_owned(),
            extra: Vec::new(),
            content: Content::Bytes(bytes),
            signer: None,
            signatures: Signatures::None,
            gzip: false,
        }
    }

    pub(crate) fn error(status: u16, code: Option<&str>) -> Self {
        let body = error_body(status, code);
        Self::new(status, "application/json", body.to_string().into_bytes())
    }

    pub(crate) fn retry_after(mut self, form: Option<&RetryAfter>) -> Self {
        self.extra.extend(form.map(|f| ("retry-after", retry_after_value(f))));
        self
    }
}

fn retry_after_value(form: &RetryAfter) -> String {
    match form {
        RetryAfter::Seconds(n) => n.to_string(),
        RetryAfter::Text(text) => text.clone(),
        RetryAfter::Date(seconds) => {
            #[expect(clippy::disallowed_methods, reason = "the date is compared with the client's real clock")]
            let now = jiff::Timestamp::now();
            let then = now.saturating_add(jiff::SignedDuration::from_secs(*seconds));
            let then = then.unwrap_or(now);
            then.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
        }
    }
}

pub(crate) fn sign_if(wanted: bool, secret: &str, bytes: &[u8]) -> String {
    if wanted { auth::sign(secret, bytes) } else { String::new() }
}

pub(crate) fn sign_head(
    headers: &mut Vec<(&'static str, String)>,
    owner: &Integration,
    signature: &str,
    mode: Signatures,
) {
    if mode != Signatures::VrfOnly {
        headers.push(("x-auth-client", owner.api_key.clone()));
        headers.push(("x-hmac-signature", signature.to_owned()));
    }
    if mode != Signatures::XOnly {
        headers.push(("vrf-auth-client", owner.api_key.clone()));
        headers.push(("vrf-hmac-signature", signature.to_owned()));
        headers.push(("vrf-integration-id", owner.id.clone()));
    }
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let written = encoder.write_all(bytes).and_then(|()| encoder.finish());
    // Writing to memory does not fail.
    written.unwrap_or_default()
}

/// Gives the answer of a fault that replaces the true one; none when the connection closes instead.
pub(crate) fn reply_draft(effect: &Effect) -> Option<Draft> {
    const PAGE: &str = "<!doctype html>\n<html><head><title>Bad gateway</title></head>\
        <body><h1>Bad gateway</h1><p>The origin did not answer.</p></body></html>\n";
    Some(match effect {
        Effect::Status { status, code, retry_after } => {
            Draft::error(*status, code.as_deref()).retry_after(retry_after.as_ref())
        }
        Effect::Html { status } => Draft::new(*status, "text/html; charset=utf-8", PAGE.into()),
        Effect::Empty { status } => Draft::new(*status, "application/json", Vec::new()),
        Effect::ErrorWith200 { code } => {
            let body = error_body(200, Some(code));
            Draft::new(200, "application/json", body.to_string().into_bytes())
        }
        Effect::Raw { status, content_type, body } => Draft::new(*status, content_type, body.clone().into_bytes()),
        Effect::Redirect { location } => {
            let mut draft = Draft::new(302, "text/plain", Vec::new());
            draft.extra.push(("location", location.clone()));
            draft
        }
        _ => return None,
    })
}

pub(crate) fn build(status: u16, headers: Vec<(&'static str, String)>, body: SimBody) -> Response<SimBody> {
    let mut response = Response::new(body);
    *response.status_mut() = hyper::StatusCode::from_u16(status).unwrap_or_default();
    for (name, value) in headers {
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

/// Frames a small JSON answer of the simulator's own.
pub(crate) fn plain_json(status: u16, body: &impl serde::Serialize, line: &Arc<Line>) -> Response<SimBody> {
    let bytes = serde_json::to_vec(body).unwrap_or_default();
    let headers = vec![("content-type", "application/json".to_owned()), ("content-length", bytes.len().to_string())];
    build(status, headers, SimBody::new(Source::Held(Bytes::from(bytes)), line))
}
