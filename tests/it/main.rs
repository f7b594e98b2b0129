//! The integration tests, one binary.

mod contracts;
