//! Veriff: everything the vendor dictates, and nothing else.

pub mod settings;
