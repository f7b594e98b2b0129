//! One suite a trait, run by every implementation.

mod ledger;
mod source;
