//! What a run did, and whether it was the server that it measured.

use std::time::Duration;

use hdrhistogram::Histogram;

/// Longer latencies count as this long, in nanoseconds.
const LONGEST_NS: u64 = 60_000_000_000;

/// The part of the time on a CPU from which the driver counts as the limit of a run.
pub(crate) const FULL: f64 = 0.95;

/// What part of the throughput that the driver reaches alone counts as its limit.
pub(crate) const NEAR_CEILING: f64 = 0.9;

/// How late the driver may be, of the p99 that it measured, before it is itself what the p99 shows.
const LATE: f64 = 0.25;

/// What a run did.
#[derive(Debug)]
pub struct Outcome {
    /// Commands sent and answered.
    pub commands: u64,
    /// From the first byte sent to the last received.
    pub elapsed: Duration,
    /// CPU time of the driver.
    pub driver_cpu: Duration,
    /// In nanoseconds, from sending a pipeline to its last reply (closed loop), or from the moment at which a command
    /// was due to its reply (open loop).
    pub latency: Histogram<u64>,
    /// In an open loop: by how much the driver itself came late to each command, in nanoseconds.
    pub late: Option<Histogram<u64>>,
}

impl Outcome {
    /// Commands a second.
    pub fn throughput(&self) -> f64 {
        self.commands as f64 / self.elapsed.as_secs_f64()
    }

    /// The part of the run in which the driver was on a CPU, 0 to 1.
    pub fn driver_busy(&self) -> f64 {
        self.driver_cpu.as_secs_f64() / self.elapsed.as_secs_f64()
    }

    /// A quantile of the latency, in microseconds.
    pub fn latency_us(&self, quantile: f64) -> f64 {
        self.latency.value_at_quantile(quantile) as f64 / 1000.0
    }

    /// In an open loop: a quantile of how late the driver itself was, in microseconds.
    pub fn late_us(&self, quantile: f64) -> Option<f64> {
        self.late.as_ref().map(|late| late.value_at_quantile(quantile) as f64 / 1000.0)
    }

    /// The part of the commands (or pipelines) whose latency was less than `time`, 0 to 1.
    pub fn sooner_than(&self, time: Duration) -> f64 {
        let sooner = self.latency.count_between(0, nanoseconds(time).saturating_sub(1));
        sooner as f64 / self.latency.len() as f64
    }

    /// Why this run says nothing about the server, if so. `ceiling`: the commands a second that the driver reaches by itself.
    pub fn limited_by_driver(&self, ceiling: Option<f64>) -> Option<String> {
        let busy = self.driver_busy();
        if busy > FULL {
            return Some(format!("the driver was busy for {:.0} % of the time", busy * 100.0));
        }
        if let Some(late_us) = self.late_us(0.99) {
            let p99_us = self.latency_us(0.99);
            if shows_lateness(late_us, p99_us) {
                return Some(format!("the driver itself was {late_us:.0} µs late at p99, of {p99_us:.0} µs measured"));
            }
        } else if let Some(ceiling) = ceiling.filter(|ceiling| self.throughput() > ceiling * NEAR_CEILING) {
            return Some(format!("the driver alone reaches {ceiling:.0} commands/s"));
        }
        None
    }
}

/// Whether latencies with this p99 show as much of the driver as of the server, if the driver itself was so late at p99.
pub(crate) fn shows_lateness(late_us: f64, p99_us: f64) -> bool {
    late_us > p99_us * LATE
}

/// A histogram of times, in nanoseconds.
pub(crate) fn times() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST_NS, 3).expect("bounds in range")
}

/// As histograms count.
pub(crate) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(driver_cpu: Duration) -> Outcome {
        Outcome { commands: 1000, elapsed: Duration::from_secs(1), driver_cpu, latency: times(), late: None }
    }

    #[test]
    fn the_part_that_was_sooner_than_a_time_is_counted() {
        let mut outcome = outcome(Duration::ZERO);
        for microseconds in [50, 60, 70, 1200] {
            outcome.latency.record(microseconds * 1000).expect("in range");
        }
        assert_eq!(outcome.sooner_than(Duration::from_millis(1)), 0.75);
    }

    #[test]
    fn a_busy_driver_was_the_limit() {
        assert!(outcome(Duration::from_millis(960)).limited_by_driver(None).is_some());
        assert_eq!(outcome(Duration::from_millis(900)).limited_by_driver(None), None);
    }

    #[test]
    fn a_run_near_the_drivers_ceiling_was_limited_by_it() {
        assert!(outcome(Duration::ZERO).limited_by_driver(Some(1100.0)).is_some());
        assert_eq!(outcome(Duration::ZERO).limited_by_driver(Some(1200.0)), None);
    }

    #[test]
    fn a_driver_that_came_late_was_the_limit_of_an_open_loop() {
        let mut late = outcome(Duration::ZERO);
        (0..100).for_each(|_| late.latency.record(1_000_000).expect("in range"));
        let mut times = times();
        (0..100).for_each(|_| times.record(50_000).expect("in range"));
        late.late = Some(times.clone());
        assert_eq!(late.limited_by_driver(None), None);
        (0..100).for_each(|_| times.record(500_000).expect("in range"));
        late.late = Some(times);
        assert!(late.limited_by_driver(None).is_some());
    }
}
