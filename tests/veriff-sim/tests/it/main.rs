//! What a client of the simulator sees, through a bare HTTP client that hides nothing.

mod answers;
mod binary;
mod faults;
mod http;
mod life;
