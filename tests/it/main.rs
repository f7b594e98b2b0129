//! The integration tests: one binary, so that every server they need is started once.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on has failed"
)]

mod contracts;
mod support;
