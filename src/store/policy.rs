//! Policy: whether a store is fit for what is to be kept in it.
//!
//! Pure: compares what a look at the store found with what the retention policy needs, and says what to do when they
//! differ. Used before a run and by `doctor`.

use super::{StoreError, StoreReport};

/// The most that the store's clock and ours may differ, in milliseconds: beyond it dates of locks are not to be trusted.
pub const MAX_CLOCK_OFFSET_MS: i64 = 60_000;

/// Refuses a store that cannot do what is demanded.
///
/// `needs_locks` is true where any class of the policy locks and the store is one that could, which
/// [`StoreUrl::can_lock`](super::settings::StoreUrl::can_lock) reports.
///
/// # Errors
/// Fatal: no versions or no locks where they are needed, or clocks that differ too much; the text says what to do.
pub fn demand(report: &StoreReport, needs_locks: bool) -> Result<(), StoreError> {
    check_clock(report)?;
    if !needs_locks {
        return Ok(());
    }
    if !report.features.versions {
        return Err(StoreError::Unfit(
            "the retention policy locks objects, but the bucket has no versioning; turn on versioning and Object Lock \
             (or create a new bucket with Object Lock), or set retention.mode = \"none\""
                .to_owned(),
        ));
    }
    if !report.features.locks {
        return Err(StoreError::Unfit(
            "the retention policy locks objects, but the bucket has no Object Lock; turn it on \
             (put-object-lock-configuration with ObjectLockEnabled=Enabled), or set retention.mode = \"none\""
                .to_owned(),
        ));
    }
    Ok(())
}

/// Refuses clocks that differ by more than [`MAX_CLOCK_OFFSET_MS`].
///
/// # Errors
/// Fatal: they do.
pub fn check_clock(report: &StoreReport) -> Result<(), StoreError> {
    match report.clock_offset_ms {
        Some(offset_ms) if offset_ms.abs() > MAX_CLOCK_OFFSET_MS => Err(StoreError::ClockSkew { offset_ms }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;
    use crate::store::Features;

    fn report(locks: bool, versions: bool, clock_offset_ms: Option<i64>) -> StoreReport {
        StoreReport { features: Features { locks, versions }, clock_offset_ms, default_lock: None, locks_assumed: None }
    }

    #[test]
    fn a_policy_that_locks_needs_versions_and_locks() {
        assert!(demand(&report(true, true, None), true).is_ok());
        for unfit in [report(false, true, None), report(false, false, None)] {
            let error = demand(&unfit, true).unwrap_err();
            assert_eq!(error.code(), Code::StorePolicy);
            assert!(error.to_string().contains("retention.mode"), "{error}");
            assert!(demand(&unfit, false).is_ok());
        }
    }

    #[test]
    fn clocks_may_differ_by_a_minute_and_no_more() {
        for offset in [-60_000, 0, 60_000] {
            assert!(demand(&report(true, true, Some(offset)), false).is_ok());
        }
        for offset in [-60_001, 60_001] {
            let error = demand(&report(true, true, Some(offset)), false).unwrap_err();
            assert_eq!(error.code(), Code::ClockSkew);
        }
    }
}
