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
//! manifest, the ledger commit. A crash anywhere is repaired by running again. Start reading at [`session`].

// Four floors, from the shell down to the ground; imports point down only, see docs/architecture.md.

pub mod cli;
pub mod config;
pub mod telemetry;

pub mod doctor;
pub mod export;
pub mod plan;
pub mod prove;
pub mod rebuild;
pub mod report;

pub mod audit;

pub mod run;

pub mod session;

pub mod ledger;
pub mod source;
pub mod store;
pub mod veriff;

pub mod aws;
pub mod chance;
pub mod clock;
pub mod error;
pub mod metrics;
pub mod model;
pub mod retry;
pub mod secret;
pub mod stop;
