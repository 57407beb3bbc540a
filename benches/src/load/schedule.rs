//! When the commands of an open loop are due: decided before the run, whatever the server does.

use std::time::Duration;

use rustix::fd::OwnedFd;
use rustix::io;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

use crate::load::keys::Draw;

/// How many gaps are drawn before they come again.
const GAPS: usize = 1 << 16;

/// Arrivals as of many independent clients: the gaps between them are exponentially distributed (a Poisson process).
#[derive(Debug)]
pub struct Schedule {
    gaps_ns: Vec<u64>,
}

impl Schedule {
    /// So many arrivals a second, on average.
    ///
    /// # Panics
    /// If the rate is not above 0.
    pub fn new(rate: f64) -> Self {
        assert!(rate > 0.0, "something has to arrive");
        let mut draw = Draw::new(0x6172_7269_7665);
        let gap_ns = |_| (-(1.0 - draw.fraction()).ln() * 1e9 / rate) as u64;
        Self { gaps_ns: (0..GAPS).map(gap_ns).collect() }
    }

    /// When each command is due, from the begin of the run.
    pub fn arrivals(&self) -> impl Iterator<Item = Duration> + '_ {
        self.gaps_ns.iter().cycle().scan(0, |at_ns, gap_ns| {
            *at_ns += gap_ns;
            Some(Duration::from_nanos(*at_ns))
        })
    }
}

/// Wakes a poll to the microsecond; the timeout of a poll has whole milliseconds only.
#[derive(Debug)]
pub(crate) struct Timer(OwnedFd);

impl Timer {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?))
    }

    pub(crate) fn descriptor(&self) -> &OwnedFd {
        &self.0
    }

    /// Wakes once, so much later than now.
    pub(crate) fn set(&self, after: Duration) -> io::Result<()> {
        // Zero would switch it off.
        let after = after.max(Duration::from_nanos(1));
        let it_value = Timespec {
            tv_sec: i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(after.subsec_nanos()),
        };
        let it_interval = Timespec { tv_sec: 0, tv_nsec: 0 };
        timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &Itimerspec { it_interval, it_value })?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_arrive_as_the_rate_says_and_the_same_every_time() {
        let schedule = Schedule::new(10_000.0);
        let count = schedule.arrivals().take_while(|at| *at < Duration::from_secs(5)).count();
        assert!((49_000..51_000).contains(&count), "{count}");
        assert!(schedule.arrivals().take(100_000).eq(Schedule::new(10_000.0).arrivals().take(100_000)));
    }

    #[test]
    fn arrivals_are_in_order() {
        let schedule = Schedule::new(1e6);
        let arrivals: Vec<_> = schedule.arrivals().take(GAPS * 2).collect();
        assert!(arrivals.is_sorted());
    }
}
