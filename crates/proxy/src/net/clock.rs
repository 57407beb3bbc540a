//! The clock that leases and deadlines are measured by.

use nearside_nearcache::Time;
use rustix::time::{ClockId, clock_gettime};

/// The clock that also runs while the machine is suspended, and that nobody can set. `Instant` stands still during a
/// suspend on Linux, and would wake up with live leases.
#[cfg(not(target_vendor = "apple"))]
const CLOCK: ClockId = ClockId::Boottime;
/// Apple's monotonic clock runs during sleep, and there is no other.
#[cfg(target_vendor = "apple")]
const CLOCK: ClockId = ClockId::Monotonic;

/// The time now. No system call on Linux (the vDSO answers), some 20–40 ns.
#[inline]
pub(crate) fn now() -> Time {
    let time = clock_gettime(CLOCK);
    // Neither part is negative: the clock begins at boot.
    Time(time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned())
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn the_clock_runs_as_fast_as_time_does() {
        let (begin, began) = (now(), Instant::now());
        thread::sleep(Duration::from_millis(20));
        let inner = now() - begin;
        let outer = began.elapsed();
        assert!(inner >= Duration::from_millis(20), "{inner:?}");
        assert!(inner <= outer + Duration::from_millis(1), "{inner:?} within {outer:?}");
    }

    /// `/proc/uptime` counts suspended time (proc(5)).
    #[test]
    #[cfg(target_os = "linux")]
    fn the_clock_shows_the_time_since_boot() {
        let uptime = std::fs::read_to_string("/proc/uptime").expect("proc is mounted");
        let seconds: f64 = uptime.split(' ').next().and_then(|text| text.parse().ok()).expect("seconds first");
        let difference = (now() - Time(0)).as_secs_f64() - seconds;
        assert!(difference.abs() < 5.0, "{difference} s apart");
    }
}
