//! The schema: which migrations there are, and how far a ledger has come.
//!
//! Shared by the engines, which have a file of the same name each for every step. A step that was released is never
//! edited, see `migrations/README.md`; the ledger keeps a digest of each.

use std::borrow::Cow;

use sqlx::SqlSafeStr as _;
use sqlx::migrate::{AppliedMigration, MigrateError, Migration, MigrationType, Migrator};

use super::LedgerError;

/// What brought a ledger's schema up to date.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Migrated {
    /// The engine: `sqlite` or `postgres`.
    pub engine: &'static str,
    /// The number of the last migration before; nothing if there was no ledger.
    pub from: Option<i64>,
    /// The number of the last migration now.
    pub to: i64,
}

/// Where the driver notes which migrations were applied.
pub(super) const MIGRATIONS_TABLE: &str = "_sqlx_migrations";

impl Migrated {
    /// Compares what was applied before with what is known, all of which is applied now.
    pub(super) fn of(engine: &'static str, before: &[AppliedMigration], known: &Migrator) -> Self {
        let from = before.iter().map(|applied| applied.version).max();
        let newest = known.iter().map(|migration| migration.version).max();
        Self { engine, from, to: newest.unwrap_or_default() }
    }
}

/// Makes the list of an engine's migrations, from the texts of its files in their order.
pub(super) fn migrations<const N: usize>(files: [(&'static str, &'static str); N]) -> Migrator {
    let migration = |(number, (description, sql)): (i64, (&'static str, &'static str))| {
        Migration::new(number, Cow::Borrowed(description), MigrationType::Simple, sql.into_sql_str(), false)
    };
    Migrator::with_migrations((1..).zip(files).map(migration).collect())
}

/// Refuses a schema that is not exactly this program's.
pub(super) fn check(known: &Migrator, applied: &[AppliedMigration]) -> Result<(), LedgerError> {
    if let Some(unknown) = applied.iter().find(|applied| !known.version_exists(applied.version)) {
        return Err(newer(unknown.version));
    }
    for migration in known.iter() {
        match applied.iter().find(|applied| applied.version == migration.version) {
            Some(applied) if applied.checksum == migration.checksum => {}
            Some(_) => return Err(other(migration.version)),
            None if applied.is_empty() => {
                return Err(LedgerError::Schema(
                    "the database holds no ledger yet: run `veriff-archive ledger migrate` before any worker starts"
                        .to_owned(),
                ));
            }
            None => {
                return Err(LedgerError::Schema(format!(
                    "the ledger's schema is older than this program, which needs its migration {}: run \
                     `veriff-archive ledger migrate` with this version",
                    migration.version
                )));
            }
        }
    }
    Ok(())
}

/// Makes an error of what ended a migration.
pub(super) fn failed(error: MigrateError) -> LedgerError {
    match error {
        MigrateError::VersionMissing(version) => newer(version),
        MigrateError::VersionMismatch(version) | MigrateError::Dirty(version) => other(version),
        error => LedgerError::Unavailable { action: "be migrated".into(), source: Box::new(error) },
    }
}

fn newer(version: i64) -> LedgerError {
    LedgerError::Schema(format!(
        "the ledger's schema is newer than this program, which does not know its migration {version}: use the version \
         whose `veriff-archive ledger migrate` upgraded it, or a later one"
    ))
}

fn other(version: i64) -> LedgerError {
    LedgerError::Schema(format!(
        "migration {version} of the ledger's schema is not the one this program knows: restore the ledger from a \
         backup and run `veriff-archive ledger migrate`"
    ))
}
