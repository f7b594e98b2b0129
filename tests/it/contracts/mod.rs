//! One suite for each trait, run by every implementation.

mod ledger;
mod ledger_backlog;
mod ledger_batch;
mod ledger_postgres;
mod ledger_runs;
mod ledger_samples;
mod ledger_survey;
mod ledger_volume;
mod source;
mod source_queue;
mod store;
mod store_bucket;
mod store_wire;
