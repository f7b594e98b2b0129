//! What a client of the simulator sees, through a bare HTTP client that hides nothing.

#![expect(clippy::disallowed_methods, reason = "a test measures by the machine's clock")]

mod answers;
mod binary;
mod faults;
mod http;
mod life;
