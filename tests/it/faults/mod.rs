//! Trouble upstream and in the place where things are kept: what must happen, row by row, driven as a user would.

mod absence;
mod credentials;
mod limits;
mod lists;
mod media;
mod mix;
mod oddities;
mod places;
mod records;
mod secrecy;
