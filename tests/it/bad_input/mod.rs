//! Bad input: lines, ids and settings that are not what they must be, driven as a user would.

mod lines;
mod upstream;
mod usage;
