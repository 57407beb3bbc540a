//! How late invalidations come after the answers to the writes that they are about, as the proxies count it.

use std::collections::BTreeMap;
use std::time::Duration;

use nearside_tests::Nearside;

use crate::history::Nanos;

const BUCKET: &str = "nearside_invalidation_lag_seconds_bucket{";

/// How many came within each of these times, all of them counted with the longest.
#[derive(Clone, Debug, Default)]
pub struct Lag(BTreeMap<Nanos, u64>);

impl Lag {
    /// Of all that these proxies have seen.
    #[must_use]
    pub fn of(proxies: &[Nearside]) -> Self {
        let mut lag = Self::default();
        for proxy in proxies {
            let metrics = proxy.metrics();
            lag.add(metrics.iter().filter_map(|(name, count)| Some((name.strip_prefix(BUCKET)?, *count))));
        }
        lag
    }

    fn add<'a>(&mut self, buckets: impl Iterator<Item = (&'a str, f64)>) {
        for (labels, count) in buckets {
            let limit = labels.split("le=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_default();
            let nanos = limit.parse::<f64>().ok().filter(|limit| limit.is_finite()).map(|limit| limit * 1e9);
            *self.0.entry(nanos.map_or(Nanos::MAX, |nanos| nanos as Nanos)).or_default() += count as u64;
        }
    }

    /// A time within which this share of them came; none if there were none, or it is longer than is counted.
    #[must_use]
    pub fn within(&self, share: f64) -> Option<Duration> {
        let all = *self.0.values().last()?;
        let enough = |&(_, count): &(&Nanos, &u64)| *count as f64 >= share * all as f64 && all > 0;
        let (limit, _) = self.0.iter().find(enough)?;
        (*limit != Nanos::MAX).then(|| Duration::from_nanos(*limit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_told_by_the_limits_of_the_buckets() {
        let mut lag = Lag::default();
        assert_eq!(lag.within(0.5), None);
        for _ in 0..2 {
            lag.add([("le=\"0.001\"}", 5.0), ("le=\"0.002\"}", 9.0), ("le=\"+Inf\"}", 10.0)].into_iter());
        }
        assert_eq!(lag.within(0.5), Some(Duration::from_millis(1)));
        assert_eq!(lag.within(0.9), Some(Duration::from_millis(2)));
        assert_eq!(lag.within(0.99), None, "longer than is counted");
    }
}
