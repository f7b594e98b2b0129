//! The integration tests: one binary, so that every server they need is started once.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod archive_s3;
mod backlog;
mod bad_input;
mod by_hand;
mod chain;
mod cli;
mod config;
mod contracts;
mod coverage;
mod crash;
mod deploy;
mod docs;
mod export;
mod faults;
mod fixity;
mod fleet;
mod floors;
mod formats;
mod ledger_server;
mod limits;
mod metrics;
mod program;
mod prove;
mod queue;
mod read_only;
mod rebuild;
mod reconcile;
mod reconcile_ledger;
mod record;
mod report;
mod retention;
mod shadowed;
mod support;
