//! Scope: which sessions an audit looks at.
//!
//! Pure. A share and a sample are drawn from the digest of the session's id, so that the same question always means the
//! same sessions, that m shares of m together are every session exactly once, and that nothing has to be remembered.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::model::digest::Sha256Digest;

/// A sample is drawn in millionths.
const MILLION: u32 = 1_000_000;

/// Which sessions are looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// All of them.
    All,
    /// One of several parts of equal size that together are all.
    Share(Share),
    /// A random part.
    Sample {
        /// How large.
        percent: Percent,
        /// What the draw depends on; the same seed draws the same sessions.
        seed: String,
    },
}

/// The n-th of m parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    part: u32,
    of: u32,
}

/// A part of a hundred, in steps of a ten-thousandth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Percent {
    millionths: u32,
}

impl Scope {
    /// Returns whether a session is in it; `name` is its id, or the name of whatever else is drawn.
    #[must_use]
    pub fn takes(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Share(share) => draw(name) % u64::from(share.of) == u64::from(share.part) - 1,
            Self::Sample { percent, seed } => {
                draw(&format!("{seed}:{name}")) % u64::from(MILLION) < u64::from(percent.millionths)
            }
        }
    }

    /// Returns it as it is in a summary; nothing for all.
    #[must_use]
    pub fn text(&self) -> Option<String> {
        match self {
            Self::All => None,
            Self::Share(share) => Some(share.to_string()),
            Self::Sample { percent, .. } => Some(percent.to_string()),
        }
    }
}

/// Returns an evenly spread number that follows from a name.
fn draw(name: &str) -> u64 {
    let digest = Sha256Digest::of(name.as_bytes());
    digest.as_bytes().iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.part, self.of)
    }
}

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = text.split_once('/').and_then(|(part, of)| Some((part.parse().ok()?, of.parse().ok()?)));
        match parts {
            Some((part, of)) if part >= 1 && part <= of => Ok(Self { part, of }),
            _ => Err("a share is n/m with n from 1 to m, such as 3/7".to_owned()),
        }
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.millionths / 10_000, self.millionths % 10_000);
        if rest == 0 {
            write!(f, "{whole}%")
        } else {
            write!(f, "{whole}.{}%", format!("{rest:04}").trim_end_matches('0'))
        }
    }
}

impl FromStr for Percent {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || "a sample is a percentage above 0 and up to 100, such as 5% or 0.25%".to_owned();
        let (whole, rest) = text.trim_end_matches('%').split_once('.').unwrap_or((text.trim_end_matches('%'), ""));
        let is_plain = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
        if !is_plain(whole) || !is_plain(rest) || rest.len() > 4 || whole.len() > 3 {
            return Err(wrong());
        }
        let millionths: u32 = format!("{whole}{rest:0<4}").parse().map_err(|_| wrong())?;
        if (1..=MILLION).contains(&millionths) { Ok(Self { millionths }) } else { Err(wrong()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn shares_and_percentages_are_read_as_they_are_written() {
        for text in ["1/1", "3/7", "30/30"] {
            assert_eq!(text.parse::<Share>().unwrap().to_string(), text);
        }
        for text in ["0/7", "8/7", "3", "a/b", "3/0", "-1/3"] {
            assert!(text.parse::<Share>().is_err(), "{text}");
        }
        for (text, shown) in [("5%", "5%"), ("5", "5%"), ("0.25%", "0.25%"), ("100%", "100%"), ("0.0001", "0.0001%")] {
            assert_eq!(text.parse::<Percent>().unwrap().to_string(), shown);
        }
        for text in ["0", "0%", "101%", "-5%", "5.00001", "x", "", "%"] {
            assert!(text.parse::<Percent>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn m_shares_take_every_session_exactly_once(name in "[A-Za-z0-9_-]{1,40}", of in 1u32..40) {
            let taken = (1..=of).filter(|part| Scope::Share(Share { part: *part, of }).takes(&name)).count();
            prop_assert_eq!(taken, 1);
        }
    }

    #[test]
    fn a_sample_is_about_as_large_as_asked_and_follows_its_seed() {
        let sample = |seed: &str| Scope::Sample { percent: "20%".parse().unwrap(), seed: seed.to_owned() };
        let names: Vec<String> = (0..5_000).map(|number| format!("session-{number}")).collect();
        let taken = |scope: &Scope| names.iter().filter(|name| scope.takes(name)).count();
        assert!((850..1150).contains(&taken(&sample("a"))), "{}", taken(&sample("a")));
        assert_ne!(
            names.iter().map(|name| sample("a").takes(name)).collect::<Vec<_>>(),
            names.iter().map(|name| sample("b").takes(name)).collect::<Vec<_>>()
        );
        assert_eq!(taken(&Scope::All), 5_000);
    }
}
