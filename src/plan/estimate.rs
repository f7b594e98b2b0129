//! Estimate: what one session takes, from a sample, from the ledger, or assumed.

use serde::Serialize;

use super::sample::Sample;
use crate::ledger::{Overview, State};

/// Lists of a session with one attempt: of attempts, of the session, of the attempt.
const LISTS_PER_SESSION: f64 = 3.0;

/// Assumed where nothing is known: front, back, portrait, selfies. With the lists that makes nine requests.
const ASSUMED_MEDIA: f64 = 6.0;

/// Assumed where nothing is known: photos of a few hundred KiB and one short video.
const ASSUMED_BYTES: f64 = 10.0 * 1024.0 * 1024.0;

/// What an estimate is made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Basis {
    /// Lists that Veriff was asked for.
    Sample,
    /// Sessions that the ledger knows.
    Ledger,
    /// Nothing.
    Assumed,
}

impl Basis {
    /// Returns the text for people.
    #[must_use]
    pub const fn describe(self) -> &'static str {
        match self {
            Self::Sample => "as Veriff lists them",
            Self::Ledger => "as the ledger has them",
            Self::Assumed => "assumed",
        }
    }
}

/// What one session takes on the average.
#[derive(Debug, Clone, Serialize, schemars::JsonSchema)]
pub struct Estimate {
    /// What it is made from.
    pub basis: Basis,
    /// How many sessions it is made from.
    pub sessions: u64,
    /// Media items a session.
    pub media: f64,
    /// Bytes of media a session.
    pub bytes: f64,
    /// Requests to Veriff a session: its lists and its media.
    pub requests: f64,
    /// Requests to Veriff for the lists alone, which is what a session costs that is archived already.
    pub list_requests: f64,
}

impl Estimate {
    /// Makes an estimate from the best that is known.
    #[must_use]
    pub fn of(sample: Option<&Sample>, overview: &Overview) -> Self {
        if let Some(sample) = sample.filter(|sample| sample.sessions > 0) {
            let media = ratio(sample.media, sample.sessions);
            // Lists do not always have a size; items without one are taken to be like the others.
            let bytes = if sample.sized > 0 {
                media * ratio(sample.bytes, sample.sized)
            } else {
                media * ASSUMED_BYTES / ASSUMED_MEDIA
            };
            let lists = ratio(sample.list_requests, sample.sessions);
            return Self::new(Basis::Sample, sample.sessions, media, bytes, lists);
        }
        let archived = overview.states.iter().find(|count| count.state == State::Archived);
        match archived.map_or(0, |count| count.sessions) {
            0 => Self::new(Basis::Assumed, 0, ASSUMED_MEDIA, ASSUMED_BYTES, LISTS_PER_SESSION),
            sessions => {
                let (media, bytes) = (ratio(overview.media, sessions), ratio(overview.bytes, sessions));
                Self::new(Basis::Ledger, sessions, media, bytes, LISTS_PER_SESSION)
            }
        }
    }

    fn new(basis: Basis, sessions: u64, media: f64, bytes: f64, list_requests: f64) -> Self {
        Self { basis, sessions, media, bytes, requests: list_requests + media, list_requests }
    }

    /// Returns how many objects a session makes: each item with its sidecar, and the manifest.
    #[must_use]
    pub fn puts(&self) -> f64 {
        self.media.mul_add(2.0, 1.0)
    }
}

#[expect(clippy::cast_precision_loss, reason = "estimates need no more than 52 bits")]
/// Divides whole numbers.
#[must_use]
pub fn ratio(of: u64, by: u64) -> f64 {
    of as f64 / by as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::StateCount;

    #[test]
    fn a_sample_is_believed_before_the_ledger_and_the_ledger_before_assumptions() {
        let overview = Overview {
            states: vec![StateCount { state: State::Archived, sessions: 10 }],
            media: 40,
            bytes: 4_000,
            ..Overview::default()
        };
        let sample = Sample { sessions: 2, media: 10, list_requests: 8, sized: 5, bytes: 500 };
        let best = Estimate::of(Some(&sample), &overview);
        assert_eq!((best.basis, best.requests, best.bytes), (Basis::Sample, 9.0, 500.0));
        let known = Estimate::of(Some(&Sample::default()), &overview);
        assert_eq!((known.basis, known.media, known.bytes), (Basis::Ledger, 4.0, 400.0));
        let assumed = Estimate::of(None, &Overview::default());
        assert_eq!((assumed.basis, assumed.requests, assumed.puts()), (Basis::Assumed, 9.0, 13.0));
    }
}
