//! Words: what findings of this audit say in more than one place: repairs, and why a value may be right all the same.

use crate::clock::Timestamp;

/// What repairs a ledger.
pub(super) const REBUILD: &str = "veriff-archive ledger rebuild";

macro_rules! restore {
    () => {
        "restore the ledger from a copy, or rebuild it with veriff-archive ledger rebuild"
    };
}

/// What repairs a row that cannot be read.
pub(super) const UNREADABLE: &str = restore!();

/// What finds out whether ledger or manifest is right.
pub(super) const FIXITY: &str = concat!(
    "veriff-archive audit fixity and audit chain --manifests show which is right; if it is the store, ",
    restore!()
);

/// What finds out whether ledger or run line is right.
pub(super) const CHAIN: &str = concat!(
    "veriff-archive audit chain --manifests shows whether record and manifest are those that were signed; if they \
     are, ",
    restore!()
);

/// What finds out whether ledger or run record is right.
pub(super) const RECORD: &str = concat!("audit chain shows which is right; if it is the store, ", restore!());

/// What tells whether a time is right that may be.
pub(super) const LOOK: &str = concat!("if the named cause does not apply, ", restore!());

/// Why another time of creation may be right.
pub(super) const UNTIMED: &str = ", unless Veriff gave the time of an attempt later";

/// Why another time of the decision may be right.
pub(super) const OTHER_RECORD: &str = ", unless a later request or an addition to the backlog gave another time";

/// Why another deadline may be right.
pub(super) const OTHER_HORIZON: &str = ", unless the horizon was another when it was committed";

/// What repairs a document of a run that is gone.
pub(super) const RESTORE: &str = "restore it from a copy of the bucket; audit chain shows what else is missing";

/// Writes a time that may be unknown.
pub(super) fn text_of(at: Option<Timestamp>) -> String {
    at.map_or_else(|| "nothing".to_owned(), |at| at.to_string())
}
