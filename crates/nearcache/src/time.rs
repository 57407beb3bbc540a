//! Time as the cache sees it: a number that callers hand in.
//!
//! Nothing in this crate reads a clock, so that every expiry and every race is a test without sleeping.

use std::ops::{Add, Sub};
use std::time::Duration;

/// Nanoseconds of a clock that also runs while the machine is suspended (`CLOCK_BOOTTIME`): a laptop that slept for an
/// hour must not wake up with live leases.
///
/// Arithmetic saturates. A clock never reads zero: the lease keeps that value for itself.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub u64);

impl Add<Duration> for Time {
    type Output = Time;

    #[inline]
    fn add(self, span: Duration) -> Time {
        let nanos = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        Time(self.0.saturating_add(nanos))
    }
}

impl Sub for Time {
    type Output = Duration;

    /// How long after `earlier`; zero if it was before.
    #[inline]
    fn sub(self, earlier: Time) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}
