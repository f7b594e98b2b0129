//! A queue
