//! Requests: what the head of one asks for.

use hyper::Method;
use hyper::header::{HeaderMap, HeaderValue};

use crate::faults::Endpoint;

/// What a request asks, taken from its head.
pub(crate) struct Ask {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) endpoint: Endpoint,
    pub(crate) id: String,
    pub(crate) key: Option<String>,
    pub(crate) signature: Option<String>,
    pub(crate) accepts_gzip: bool,
}

impl Ask {
    pub(crate) fn new(method: &Method, path: &str, headers: &HeaderMap) -> Self {
        let header = |name| headers.get(name).and_then(|v: &HeaderValue| v.to_str().ok());
        let (endpoint, id) = route(method, path);
        Self {
            method: method.clone(),
            path: path.to_owned(),
            endpoint,
            id,
            key: header("x-auth-client").map(str::to_owned),
            signature: header("x-hmac-signature").map(str::to_owned),
            accepts_gzip: header("accept-encoding").is_some_and(|v| v.contains("gzip")),
        }
    }
}

/// Reads the kind of a request and the id in its path.
fn route(method: &Method, path: &str) -> (Endpoint, String) {
    let path = path.split('?').next().unwrap_or(path);
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let (endpoint, id) = match (method, parts.as_slice()) {
        (&Method::GET, ["v1", "sessions", id, "media"]) => (Endpoint::SessionMedia, id),
        (&Method::GET, ["v1", "sessions", id, "attempts"]) => (Endpoint::Attempts, id),
        (&Method::GET, ["v1", "attempts", id, "media"]) => (Endpoint::AttemptMedia, id),
        (&Method::GET, ["v1", "media", id]) => (Endpoint::Media, id),
        (&Method::GET, ["v1", "sessions", id, "decision"]) => (Endpoint::Decision, id),
        (&Method::GET, ["v1", "sessions", id, "person"]) => (Endpoint::Person, id),
        (&Method::GET, ["v1", "sessions", id, "watchlist-screening"]) => (Endpoint::Watchlist, id),
        (&Method::DELETE, ["v1", "sessions", id]) => (Endpoint::Delete, id),
        _ => return (Endpoint::Other, String::new()),
    };
    (endpoint, percent_decode(id))
}

/// Undoes percent-encoding; what is not valid stays as it is.
fn percent_decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, others)) = rest.split_first() {
        let mut byte = [0];
        let decoded = first == b'%' && others.len() >= 2;
        if decoded && hex::decode_to_slice(&others[..2], &mut byte).is_ok() {
            bytes.push(byte[0]);
            rest = &others[2..];
        } else {
            bytes.push(first);
            rest = others;
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_with_their_ids() {
        for (path, endpoint, id) in [
            ("/v1/sessions/a/media", Endpoint::SessionMedia, "a"),
            ("/v1/sessions/a/attempts?x=1", Endpoint::Attempts, "a"),
            ("/v1/attempts/a%20b/media", Endpoint::AttemptMedia, "a b"),
            ("/v1/media/a", Endpoint::Media, "a"),
            ("/v1/sessions/a", Endpoint::Other, ""),
            ("/v2/media/a", Endpoint::Other, ""),
        ] {
            assert_eq!(route(&Method::GET, path), (endpoint, id.to_owned()));
        }
        let delete = route(&Method::DELETE, "/v1/sessions/a");
        assert_eq!(delete, (Endpoint::Delete, "a".to_owned()));
    }
}
