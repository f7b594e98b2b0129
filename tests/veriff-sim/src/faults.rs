//! Faults: what goes wrong, where, and how often.
//!
//! A fault names an endpoint kind and an id (or any), how many requests pass before it and how many it hits, and an
//! effect. Effects are of two sorts: *replies* replace the answer, *twists* alter the true one. A request meets the
//! first reply that matches and has hits left; only when none does, every twist that matches. Faults come after
//! authentication and before the look-up, so that they also hit ids that do not exist.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::knobs::{RetryAfter, Signatures};

/// The kind of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Endpoint {
    /// `GET /v1/sessions/{id}/media`
    SessionMedia,
    /// `GET /v1/sessions/{id}/attempts`
    Attempts,
    /// `GET /v1/attempts/{id}/media`
    AttemptMedia,
    /// `GET /v1/media/{id}`
    Media,
    /// `GET /v1/sessions/{id}/decision`
    Decision,
    /// `GET /v1/sessions/{id}/person`
    Person,
    /// `GET /v1/sessions/{id}/watchlist-screening`
    Watchlist,
    /// `DELETE /v1/sessions/{id}`
    Delete,
    /// Any other path or method.
    Other,
}

/// What happens to a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Reply: this status with an error body of this code (JSON as in Veriff's errors).
    Status {
        /// The HTTP status.
        status: u16,
        /// The code in the body; a fitting one when none is given.
        #[serde(default)]
        code: Option<String>,
        /// The `retry-after` header.
        #[serde(default)]
        retry_after: Option<RetryAfter>,
    },
    /// Reply: an HTML page with this status (a proxy's 502, or an error page with 200).
    Html {
        /// The HTTP status.
        status: u16,
    },
    /// Reply: no body at all with this status.
    Empty {
        /// The HTTP status.
        status: u16,
    },
    /// Reply: 200 with a Veriff error document of this code.
    ErrorWith200 {
        /// The code in the body.
        code: String,
    },
    /// Reply: any status and body, unsigned.
    Raw {
        /// The HTTP status.
        status: u16,
        /// The `content-type` header.
        content_type: String,
        /// The body.
        body: String,
    },
    /// Reply: 302 to this address.
    Redirect {
        /// The `location` header.
        location: String,
    },
    /// Reply: the connection is closed without an answer.
    Hangup,
    /// Twist: the connection closes after that many bytes of the body.
    Truncate {
        /// Bytes that are sent; half of the body when it has no more than that.
        after: u64,
    },
    /// Twist: the connection is reset (RST) after that many bytes of the body.
    Reset {
        /// Bytes that are sent; half of the body when it has no more than that.
        after: u64,
    },
    /// Twist: the body pauses after that many bytes.
    Stall {
        /// Bytes before the pause; half of the body when it has no more than that.
        after: u64,
        /// Length of the pause in milliseconds.
        for_ms: u64,
    },
    /// Twist: the body comes in small pieces with pauses between.
    Slow {
        /// Bytes of a piece.
        bytes: u64,
        /// Pause before each further piece in milliseconds.
        every_ms: u64,
    },
    /// Twist: the answer's head comes late.
    DelayHead {
        /// Length of the delay in milliseconds.
        for_ms: u64,
    },
    /// Twist: chunked, without `content-length`.
    Chunked,
    /// Twist: list items state their size plus this.
    WrongSize {
        /// Added to the true size; the sum does not fall below 0.
        by: i64,
    },
    /// Twist: the JSON is compressed, asked for or not.
    Gzip,
    /// Twist: the last byte of the body differs from the true one; length and signature stay.
    WrongBytes,
    /// Twist: another `content-type`.
    ContentType {
        /// The header's value.
        value: String,
    },
    /// Twist: other signature headers (such as a corrupt signature).
    Signatures {
        /// The headers given.
        mode: Signatures,
    },
    /// Twist: the JSON breaks off in its middle, with a matching length and signature.
    InvalidJson,
    /// Twist: the `url` of list items starts with this.
    UrlBase {
        /// Scheme and host, without a slash at the end.
        base: String,
    },
}

impl Effect {
    /// A status with an error body and no `retry-after`.
    #[must_use]
    pub fn status(status: u16) -> Self {
        Self::Status { status, code: None, retry_after: None }
    }

    /// 429, with or without `retry-after`.
    #[must_use]
    pub fn too_many(retry_after: Option<RetryAfter>) -> Self {
        Self::Status { status: 429, code: None, retry_after }
    }

    /// 401 with this code.
    #[must_use]
    pub fn unauthorized(code: &str) -> Self {
        Self::Status { status: 401, code: Some(code.to_owned()), retry_after: None }
    }

    /// Tells whether the effect replaces the answer.
    #[must_use]
    pub fn is_reply(&self) -> bool {
        matches!(
            self,
            Self::Status { .. }
                | Self::Html { .. }
                | Self::Empty { .. }
                | Self::ErrorWith200 { .. }
                | Self::Raw { .. }
                | Self::Redirect { .. }
                | Self::Hangup
        )
    }
}

/// One scripted fault.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// The endpoint it hits; any when none.
    #[serde(default)]
    pub endpoint: Option<Endpoint>,
    /// The id in the path it hits; any when none.
    #[serde(default)]
    pub id: Option<String>,
    /// Matching requests that pass before the first hit.
    #[serde(default)]
    pub after: u64,
    /// Number of hits; for ever when none.
    #[serde(default)]
    pub times: Option<u64>,
    /// Counts `after` and `times` for each id apart.
    #[serde(default)]
    pub each_id: bool,
    /// What happens.
    pub effect: Effect,
    #[serde(skip)]
    seen: HashMap<String, u64>,
    #[serde(skip)]
    hits: u64,
}

impl Fault {
    /// A fault that hits the first `n` requests.
    #[must_use]
    pub fn times(n: u64, effect: Effect) -> Self {
        Self { times: Some(n), ..Self::forever(effect) }
    }

    /// A fault that hits the first request.
    #[must_use]
    pub fn once(effect: Effect) -> Self {
        Self::times(1, effect)
    }

    /// A fault that hits every request.
    #[must_use]
    pub fn forever(effect: Effect) -> Self {
        Self { endpoint: None, id: None, after: 0, times: None, each_id: false, effect, seen: HashMap::new(), hits: 0 }
    }

    /// Narrows the fault to an endpoint.
    #[must_use]
    pub fn on(mut self, endpoint: Endpoint) -> Self {
        self.endpoint = Some(endpoint);
        self
    }

    /// Narrows the fault to an id in the path.
    #[must_use]
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// Lets the first `n` matching requests pass.
    #[must_use]
    pub fn after(mut self, n: u64) -> Self {
        self.after = n;
        self
    }

    /// Counts for each id apart, so that every id meets the fault.
    #[must_use]
    pub fn each_id(mut self) -> Self {
        self.each_id = true;
        self
    }

    fn matches(&self, endpoint: Endpoint, id: &str) -> bool {
        self.endpoint.is_none_or(|e| e == endpoint) && self.id.as_deref().is_none_or(|i| i == id)
    }

    /// Counts a matching request and tells whether it is hit.
    fn take(&mut self, id: &str) -> bool {
        let key = if self.each_id { id } else { "" };
        let seen = self.seen.entry(key.to_owned()).or_default();
        let nth = *seen;
        *seen += 1;
        let hit = nth >= self.after && self.times.is_none_or(|n| nth < self.after.saturating_add(n));
        self.hits += u64::from(hit);
        hit
    }
}

/// Names a fault that was set, to read its hits or to take it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct FaultId(u64);

/// The faults in force, in the order they were set.
#[derive(Debug, Default)]
pub(crate) struct FaultBook {
    faults: Vec<(FaultId, Fault)>,
    next: u64,
}

impl FaultBook {
    pub(crate) fn add(&mut self, fault: Fault) -> FaultId {
        let id = FaultId(self.next);
        self.next += 1;
        self.faults.push((id, fault));
        id
    }

    pub(crate) fn remove(&mut self, id: FaultId) {
        self.faults.retain(|(i, _)| *i != id);
    }

    pub(crate) fn clear(&mut self) {
        self.faults.clear();
    }

    pub(crate) fn hits(&self, id: FaultId) -> u64 {
        self.faults.iter().find(|(i, _)| *i == id).map_or(0, |(_, f)| f.hits)
    }

    /// Gives what a request meets: one reply, or any number of twists.
    pub(crate) fn meet(&mut self, endpoint: Endpoint, id: &str) -> Vec<Effect> {
        for (_, fault) in &mut self.faults {
            if fault.effect.is_reply() && fault.matches(endpoint, id) && fault.take(id) {
                return vec![fault.effect.clone()];
            }
        }
        self.faults
            .iter_mut()
            .filter(|(_, f)| !f.effect.is_reply() && f.matches(endpoint, id))
            .filter_map(|(_, f)| f.take(id).then(|| f.effect.clone()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_come_in_the_order_set_and_run_out() {
        let mut book = FaultBook::default();
        book.add(Fault::once(Effect::status(500)).on(Endpoint::Media));
        book.add(Fault::times(2, Effect::status(503)).id("a"));
        let status = |effects: Vec<Effect>| match effects.as_slice() {
            [Effect::Status { status, .. }] => *status,
            _ => 200,
        };
        let met: Vec<_> = (0..4).map(|_| status(book.meet(Endpoint::Media, "a"))).collect();
        assert_eq!(met, [500, 503, 503, 200]);
        assert_eq!(status(book.meet(Endpoint::Attempts, "b")), 200);
    }

    #[test]
    fn counting_can_be_per_id_and_start_late() {
        let mut book = FaultBook::default();
        let id = book.add(Fault::once(Effect::Hangup).after(1).each_id());
        for id in ["a", "b"] {
            let met: Vec<_> = (0..3).map(|_| book.meet(Endpoint::Media, id).len()).collect();
            assert_eq!(met, [0, 1, 0]);
        }
        assert_eq!(book.hits(id), 2);
    }

    #[test]
    fn twists_add_up_and_wait_while_a_reply_is_met() {
        let mut book = FaultBook::default();
        book.add(Fault::once(Effect::Chunked));
        book.add(Fault::once(Effect::WrongBytes));
        book.add(Fault::once(Effect::Hangup));
        assert_eq!(book.meet(Endpoint::Media, "a"), [Effect::Hangup]);
        assert_eq!(book.meet(Endpoint::Media, "a"), [Effect::Chunked, Effect::WrongBytes]);
    }

    #[test]
    fn faults_are_written_as_json() -> serde_json::Result<()> {
        let fault: Fault = serde_json::from_str(
            r#"{"endpoint":"media","times":1,"effect":{"status":{"status":429,"retry_after":{"seconds":2}}}}"#,
        )?;
        assert_eq!(fault, Fault::once(Effect::too_many(Some(RetryAfter::Seconds(2)))).on(Endpoint::Media));
        Ok(())
    }
}
