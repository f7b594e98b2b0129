//! Archives Veriff verification sessions into customer-owned, write-once storage.
//!
//! ```text
//! source ───▶ catalog ───▶ fetch ───▶ store ───▶ ledger
//! which       what each    its bytes,  objects,   what we know
//! sessions    one holds    hashed on   sidecars,  was archived
//! to archive  (signed API) the way     manifest
//! ```
//!
//! Every step may be repeated, and every later step vouches for the earlier ones: media objects, their sidecars, the
//! manifest, the ledger commit. A crash anywhere is repaired by running again. Start reading at [`archive`].

// In the order of the flow; see docs/architecture.md for who may import whom.
pub mod cli;
pub mod config;
pub mod telemetry;

pub mod archive;
pub mod budget;
pub mod catalog;
pub mod clock;
pub mod closing;
pub mod deposit;
pub mod error;
pub mod fetch;
pub mod gate;
pub mod identity;
pub mod keep;
pub mod ledger;
pub mod look;
pub mod metrics;
pub mod model;
pub mod results;
pub mod retry;
pub mod secret;
pub mod source;
pub mod stop;
pub mod store;
pub mod summary;
pub mod transfer;
pub mod unfinished;
pub mod veriff;
pub mod visit;
pub mod worker;
