//! What all rounds found together, and how it is shown.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use crate::check::{Promise, Violation};
use crate::faults::Fault;
use crate::lag::Lag;
use crate::round::Outcome;

/// Violations of a promise that are shown in full.
const SHOWN: usize = 5;

/// What all rounds found.
#[derive(Debug, Default)]
pub struct Report {
    rounds: usize,
    faults: BTreeMap<(&'static str, Fault), usize>,
    reads: usize,
    hits: u64,
    control_reads: usize,
    control_anomalies: usize,
    anomalies_of_redis: usize,
    writes: usize,
    journaled: usize,
    lost: (usize, usize),
    worst_staleness: Duration,
    /// By the world.
    lags: BTreeMap<&'static str, Lag>,
    violations: Vec<Violation>,
    took: Duration,
}

impl Report {
    /// Adds a round, and gives the line that tells of it.
    pub fn add(&mut self, world: &'static str, outcome: Outcome) -> String {
        let findings = outcome.findings;
        let line = format!(
            "round {:<4} {world:<7} {:<16} {:>5.1} s  {:>7} reads ({:>6} hits)  {:>6} writes  worst {:>4} ms  \
             {:>3} anomalies of Redis's own  {} violations",
            self.rounds,
            format!("{:?}", outcome.fault),
            outcome.took.as_secs_f64(),
            findings.reads,
            outcome.hits,
            outcome.writes,
            findings.worst_staleness.as_millis(),
            findings.anomalies_of_redis,
            findings.violations.len(),
        );
        self.rounds += 1;
        self.lags.insert(world, outcome.lag);
        *self.faults.entry((world, outcome.fault)).or_default() += 1;
        self.reads += findings.reads;
        self.hits += outcome.hits;
        self.control_reads += findings.control_reads;
        self.control_anomalies += findings.control_anomalies;
        self.anomalies_of_redis += findings.anomalies_of_redis;
        self.writes += outcome.writes;
        self.journaled += outcome.journaled;
        self.lost.0 += outcome.lost.0;
        self.lost.1 += outcome.lost.1;
        self.worst_staleness = self.worst_staleness.max(findings.worst_staleness);
        self.took += outcome.took;
        if self.violations.len() < SHOWN {
            eprint!("{}", outcome.evidence);
        }
        for violation in &findings.violations {
            if self.of(violation.promise) < SHOWN {
                eprintln!("    {}: {}", violation.promise, violation.what);
            }
            self.violations.push(violation.clone());
        }
        line
    }

    /// What was broken.
    #[must_use]
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// How many reads through the proxies were judged.
    #[must_use]
    pub fn reads(&self) -> usize {
        self.reads
    }

    /// How often a promise was broken.
    #[must_use]
    pub fn of(&self, promise: Promise) -> usize {
        self.violations.iter().filter(|violation| violation.promise == promise).count()
    }

    /// All of it.
    #[must_use]
    pub fn text(&self, max_staleness: Duration) -> String {
        let mut text = format!(
            "\n{} rounds in {:.0} s: {} reads through the proxies checked ({} hits), {} writes, {} direct reads as the \
             control, {} commands of journals\n",
            self.rounds,
            self.took.as_secs_f64(),
            self.reads,
            self.hits,
            self.writes,
            self.control_reads,
            self.journaled,
        );
        let faults = self.faults.iter().map(|((world, fault), count)| format!("{world} {fault:?} {count}"));
        let mut line = |name: &str, value: String| writeln!(text, "{name:<44} {value}").expect("a text takes it");
        line("faults", faults.collect::<Vec<_>>().join(", "));
        line("worst staleness", format!("{:?} (allowed: {max_staleness:?})", self.worst_staleness));
        for (world, lag) in &self.lags {
            let told = |share| lag.within(share).map_or("longer than is counted".to_owned(), |lag| format!("{lag:?}"));
            line(&format!("invalidation lag, {world}"), format!("p50 within {}, p99 within {}", told(0.5), told(0.99)));
        }
        line("direct reads that missed something", self.control_anomalies.to_string());
        line("reads that missed the same, by proxy", self.anomalies_of_redis.to_string());
        line("writes lost at failovers (direct)", format!("{} ({})", self.lost.0, self.lost.1));
        for promise in Promise::ALL {
            line(&format!("violations: {promise}"), self.of(promise).to_string());
        }
        text
    }
}
