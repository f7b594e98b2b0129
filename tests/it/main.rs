//! The integration tests, one binary.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod cli;
mod config;
mod contracts;
mod floors;
mod program;
