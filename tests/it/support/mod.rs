//! What tests stand on: servers that are real and start by themselves, and a look behind what the program sees.

#![expect(clippy::disallowed_methods, reason = "a test waits by the machine's clock, and draws names of its own")]

pub(crate) mod audited;
pub(crate) mod browser;
pub(crate) mod evidence;
pub(crate) mod faulty;
pub(crate) mod postgres;
pub(crate) mod program;
pub(crate) mod python;
pub(crate) mod records;
pub(crate) mod s3;
pub(crate) mod scene;
pub(crate) mod sqs;
pub(crate) mod stored;
pub(crate) mod tamper;

use std::time::Duration;

/// How long anything that must come about may take on a slow machine.
pub(crate) const DEADLINE: Duration = Duration::from_mins(1);

/// Waits until something is so.
pub(crate) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    while !is_so() {
        assert!(tokio::time::Instant::now() < deadline, "never came about: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
