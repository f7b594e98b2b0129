//! Serves a simulated Veriff until it is interrupted.

fn main() {}
