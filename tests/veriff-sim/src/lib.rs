//! A simulator of the Veriff API.
