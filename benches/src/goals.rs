//! What Nearside is to reach, point by point, and whether it does.

use crate::figures::Figure;
use crate::median::median;
use crate::plot::short;
use crate::results::ScenarioResult;
use crate::stage::{Contestant, Kind, Upstream};

/// One thing to reach.
#[derive(Debug)]
pub struct Goal {
    /// Goals with one number belong together.
    pub number: u32,
    /// In words.
    pub what: &'static str,
    scenario: &'static str,
    point: &'static str,
    value: Value,
    wanted: Wanted,
}

/// What is compared with what is wanted.
#[derive(Debug)]
enum Value {
    /// A contestant's figure.
    Of(Kind, Figure),
    /// A contestant's figure over another's in the same round.
    Ratio(Figure, Kind, Kind),
    /// A contestant's figure before a cluster over its own before one server in the same round.
    BeforeCluster(Figure, Kind),
}

#[derive(Clone, Copy, Debug)]
enum Wanted {
    AtMost(f64),
    AtLeast(f64),
}

/// Where a goal stands.
#[derive(Debug)]
pub struct Standing {
    /// What is wanted, in words.
    pub to_reach: String,
    /// What was measured: the median, and the range over the rounds.
    pub reached: String,
    /// The median over what is wanted.
    pub ratio: Option<f64>,
    /// Whether it is met; unknown if it was not measured.
    pub is_met: Option<bool>,
}

const fn goal(
    number: u32,
    what: &'static str,
    (scenario, point): (&'static str, &'static str),
    value: Value,
    wanted: Wanted,
) -> Goal {
    Goal { number, what, scenario, point, value, wanted }
}

use Figure::{
    BytesPerConnection, BytesPerItem, Connections, CpuUs, ListeningMs, P50Us, P99Us, ProgramMb, ResidentMb, Throughput,
    UpstreamConnections,
};
use Kind::{Envoy, Forward, Go, Hit, Python, Redis, Twemproxy};
use Value::{BeforeCluster, Of, Ratio};
use Wanted::{AtLeast, AtMost};

const DEPTH_1: (&str, &str) = ("depth", "depth 1, 50 connections");
const DEPTH_16: (&str, &str) = ("depth", "depth 16, 50 connections");
const DEPTH_64: (&str, &str) = ("depth", "depth 64, 50 connections");
const MIX: (&str, &str) = ("mix", "closed loop");
const OPEN: (&str, &str) = ("mix", "open loop, at 70 % of the Go service's peak");
const ALONE: (&str, &str) = ("distant", "1 connection");
const FOUR: (&str, &str) = ("distant", "4 connections");
const MANY: (&str, &str) = ("idle", "1,000 busy, 9,000 idle");
const START: (&str, &str) = ("start", "cold start");
const IDLE: (&str, &str) = ("connection-memory", "10,000 idle connections");
const UNIFORM_1: (&str, &str) = ("uniform", "depth 1, 50 connections");
const UNIFORM_16: (&str, &str) = ("uniform", "depth 16, 50 connections");
const WRITES_1: (&str, &str) = ("writes", "depth 1, 50 connections");
const WRITES_16: (&str, &str) = ("writes", "depth 16, 50 connections");
const CLUSTER_1: (&str, &str) = ("cluster", "depth 1, 50 connections");
const CLUSTER_16: (&str, &str) = ("cluster", "depth 16, 50 connections");
const CLUSTER_64: (&str, &str) = ("cluster", "depth 64, 50 connections");

/// What there is to reach, by number.
pub const ALL: &[Goal] = &[
    goal(1, "CPU per hit, of Redis direct, depth 1", DEPTH_1, Ratio(CpuUs, Hit, Redis), AtMost(0.9)),
    goal(1, "CPU per hit, of Redis direct, depth 16", DEPTH_16, Ratio(CpuUs, Hit, Redis), AtMost(0.8)),
    goal(1, "CPU per hit, of Redis direct, depth 64", DEPTH_64, Ratio(CpuUs, Hit, Redis), AtMost(0.5)),
    goal(2, "CPU per forwarded command, of Redis direct, depth 1", DEPTH_1, Ratio(CpuUs, Forward, Redis), AtMost(1.1)),
    goal(
        2,
        "CPU per forwarded command, of Redis direct, depth 16",
        DEPTH_16,
        Ratio(CpuUs, Forward, Redis),
        AtMost(0.9),
    ),
    goal(
        2,
        "CPU per forwarded command, of Redis direct, depth 64",
        DEPTH_64,
        Ratio(CpuUs, Forward, Redis),
        AtMost(0.7),
    ),
    goal(2, "CPU per forwarded command, of Envoy, depth 16", DEPTH_16, Ratio(CpuUs, Forward, Envoy), AtMost(0.2)),
    goal(2, "CPU per forwarded command, of Envoy, depth 64", DEPTH_64, Ratio(CpuUs, Forward, Envoy), AtMost(0.2)),
    goal(
        2,
        "CPU per forwarded command, of twemproxy, depth 16",
        DEPTH_16,
        Ratio(CpuUs, Forward, Twemproxy),
        AtMost(0.2),
    ),
    goal(
        2,
        "CPU per forwarded command, of twemproxy, depth 64",
        DEPTH_64,
        Ratio(CpuUs, Forward, Twemproxy),
        AtMost(0.2),
    ),
    goal(3, "commands per CPU-second, of the Go service, 70/30 on Zipf keys", MIX, Ratio(CpuUs, Go, Hit), AtLeast(2.0)),
    goal(3, "commands per CPU-second, of the Python service, 70/30", MIX, Ratio(CpuUs, Python, Hit), AtLeast(10.0)),
    goal(3, "p99, of the Go service's, at 70 % of its peak", OPEN, Ratio(P99Us, Hit, Go), AtMost(0.5)),
    goal(3, "RSS with an empty cache, MB", START, Of(Hit, ResidentMb), AtMost(45.0)),
    goal(3, "program, MB", START, Of(Hit, ProgramMb), AtMost(12.0)),
    goal(3, "listening, ms after start", START, Of(Hit, ListeningMs), AtMost(15.0)),
    goal(4, "p50, of direct, upstream 1 ms away, 1 connection", ALONE, Ratio(P50Us, Hit, Redis), AtMost(0.1)),
    goal(4, "p50, of direct, upstream 1 ms away, 4 connections", FOUR, Ratio(P50Us, Hit, Redis), AtMost(0.1)),
    goal(
        4,
        "throughput, of direct, upstream 1 ms away, 1 connection",
        ALONE,
        Ratio(Throughput, Hit, Redis),
        AtLeast(10.0),
    ),
    goal(
        4,
        "throughput, of direct, upstream 1 ms away, 4 connections",
        FOUR,
        Ratio(Throughput, Hit, Redis),
        AtLeast(10.0),
    ),
    goal(
        5,
        "bytes a cached item beyond key and value",
        ("item-memory", "1,000,000 items of 100 bytes"),
        Of(Hit, BytesPerItem),
        AtMost(128.0),
    ),
    goal(5, "bytes an idle connection", IDLE, Of(Hit, BytesPerConnection), AtMost(8192.0)),
    goal(5, "connections held", IDLE, Of(Hit, Connections), AtLeast(10_000.0)),
    goal(
        6,
        "connections to one upstream, of one worker, for 1,000 clients",
        MIX,
        Of(Hit, UpstreamConnections),
        AtMost(4.0),
    ),
    goal(6, "the same for 10,000 clients, most of them idle", MANY, Of(Hit, UpstreamConnections), AtMost(4.0)),
    goal(6, "for 1,000 clients with the cache off", MIX, Of(Forward, UpstreamConnections), AtMost(4.0)),
    goal(
        7,
        "CPU with the cache on, of off, uniform reads, depth 1",
        UNIFORM_1,
        Ratio(CpuUs, Hit, Forward),
        AtMost(1.3),
    ),
    goal(
        7,
        "CPU with the cache on, of off, uniform reads, depth 16",
        UNIFORM_16,
        Ratio(CpuUs, Hit, Forward),
        AtMost(1.3),
    ),
    goal(7, "CPU with the cache on, of off, half writes, depth 1", WRITES_1, Ratio(CpuUs, Hit, Forward), AtMost(1.3)),
    goal(7, "CPU with the cache on, of off, half writes, depth 16", WRITES_16, Ratio(CpuUs, Hit, Forward), AtMost(1.3)),
    goal(
        8,
        "CPU per hit before a cluster, of a standalone upstream, depth 1",
        CLUSTER_1,
        BeforeCluster(CpuUs, Hit),
        AtMost(1.1),
    ),
    goal(
        8,
        "CPU per hit before a cluster, of a standalone upstream, depth 16",
        CLUSTER_16,
        BeforeCluster(CpuUs, Hit),
        AtMost(1.1),
    ),
    goal(
        8,
        "CPU per hit before a cluster, of a standalone upstream, depth 64",
        CLUSTER_64,
        BeforeCluster(CpuUs, Hit),
        AtMost(1.1),
    ),
    goal(
        8,
        "CPU per forwarded command before a cluster, of a standalone upstream, depth 1",
        CLUSTER_1,
        BeforeCluster(CpuUs, Forward),
        AtMost(1.1),
    ),
    goal(
        8,
        "CPU per forwarded command before a cluster, of a standalone upstream, depth 16",
        CLUSTER_16,
        BeforeCluster(CpuUs, Forward),
        AtMost(1.1),
    ),
    goal(
        8,
        "CPU per forwarded command before a cluster, of a standalone upstream, depth 64",
        CLUSTER_64,
        BeforeCluster(CpuUs, Forward),
        AtMost(1.1),
    ),
];

impl Goal {
    /// Where it stands by `results`.
    pub fn standing(&self, results: &[ScenarioResult]) -> Standing {
        let (values, all_rounds) = self.values(results).unwrap_or_default();
        let rounds = values.len();
        let unit = if matches!(self.value, Ratio(..) | BeforeCluster(..)) { " ×" } else { "" };
        let (to_reach, wanted) = match self.wanted {
            AtMost(most) => (format!("≤ {}{unit}", short_goal(most)), most),
            AtLeast(least) => (format!("≥ {}{unit}", short_goal(least)), least),
        };
        if values.is_empty() {
            return Standing { to_reach, reached: "not measured".to_owned(), ratio: None, is_met: None };
        }
        let (least, most) =
            values.iter().fold((f64::MAX, f64::MIN), |(least, most), at| (least.min(*at), most.max(*at)));
        let middle = median(values);
        let mut reached = match least == most {
            true => format!("{}{unit}", short(middle)),
            false => format!("{}{unit} ({} to {})", short(middle), short(least), short(most)),
        };
        if rounds < all_rounds {
            reached.push_str(&format!(", in {rounds} of {all_rounds} rounds"));
        }
        let is_met = match self.wanted {
            AtMost(most) => middle <= most,
            AtLeast(least) => middle >= least,
        };
        let is_enough = 2 * rounds > all_rounds;
        Standing { to_reach, reached, ratio: Some(middle / wanted), is_met: is_enough.then_some(is_met) }
    }

    /// A part of `depth` and of `cluster` is in `quick` too.
    fn is_measured_quickly(&self, result: &ScenarioResult) -> bool {
        result.scenario == "quick" && ["depth", "cluster"].contains(&self.scenario)
    }

    /// One a round in which all who are compared had their turn, and how many rounds there were.
    fn values(&self, results: &[ScenarioResult]) -> Option<(Vec<f64>, usize)> {
        let measured_by =
            |result: &&ScenarioResult| result.scenario == self.scenario || self.is_measured_quickly(result);
        let scenario = results.iter().find(measured_by)?;
        let point = scenario.points.iter().find(|result| result.point == self.point)?;
        let values = match self.value {
            Of(kind, figure) => {
                let turns = &point.of(kind.name())?.turns;
                turns.iter().filter_map(|turn| turn.get(&figure).copied()).collect()
            }
            Ratio(figure, of, to) => point.of(of.name())?.ratios(point.of(to.name())?, figure),
            BeforeCluster(figure, kind) => {
                let of = |upstream| point.of(&Contestant { kind, upstream }.name());
                of(Upstream::Cluster)?.ratios(of(Upstream::One)?, figure)
            }
        };
        Some((values, point.rounds as usize))
    }
}

/// As it was set.
fn short_goal(value: f64) -> String {
    if value >= 1000.0 { short(value) } else { value.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::Turn;
    use crate::results::{ContestantResult, PointResult};
    use crate::scenarios;

    #[test]
    fn every_goal_is_measured_by_a_scenario_of_the_whole_benchmark() {
        for goal in ALL {
            let scenario = scenarios::ALL.iter().find(|scenario| scenario.name == goal.scenario);
            let scenario = scenario.unwrap_or_else(|| panic!("no scenario {}", goal.scenario));
            assert!(scenario.in_full, "{}", goal.what);
            let point = scenario.points.iter().find(|point| point.name == goal.point);
            let point = point.unwrap_or_else(|| panic!("{}: no point {:?}", goal.scenario, goal.point));
            let compared = match goal.value {
                Of(kind, _) => vec![(kind, false)],
                Ratio(_, of, to) => vec![(of, false), (to, false)],
                BeforeCluster(_, kind) => vec![(kind, true), (kind, false)],
            };
            for (kind, is_before_cluster) in compared {
                let is_meant =
                    |each: &Contestant| each.kind == kind && (each.upstream == Upstream::Cluster) == is_before_cluster;
                assert!(scenario.contestants.iter().any(is_meant), "{}", goal.what);
                assert!(!point.without.contains(&kind), "{}", goal.what);
            }
        }
    }

    #[test]
    fn a_ratio_is_the_median_of_those_of_the_rounds() {
        let turns = |values: [f64; 3]| values.map(|value| Turn::from([(CpuUs, value)])).to_vec();
        let of = |kind: Kind, values| ContestantResult {
            contestant: kind.name().to_owned(),
            turns: turns(values),
            failure: None,
            latency: None,
        };
        let contestants = vec![of(Hit, [1.0, 20.0, 300.0]), of(Redis, [2.0, 20.0, 200.0])];
        let point = PointResult { point: DEPTH_1.1.to_owned(), rounds: 3, ceiling: None, contestants };
        let results = [ScenarioResult {
            scenario: DEPTH_1.0.to_owned(),
            commands: Vec::new(),
            points: vec![point],
            failure: None,
        }];
        let standing = ALL[0].standing(&results);
        assert_eq!((standing.reached.as_str(), standing.is_met), ("1.00 × (0.500 to 1.50)", Some(false)));
        assert_eq!(ALL[1].standing(&results).is_met, None);
    }

    #[test]
    fn a_cluster_is_compared_with_one_server_in_the_quick_scenario_too() {
        let of = |upstream, value| ContestantResult {
            contestant: Contestant { kind: Hit, upstream }.name(),
            turns: vec![Turn::from([(CpuUs, value)])],
            failure: None,
            latency: None,
        };
        let contestants = vec![of(Upstream::One, 10.0), of(Upstream::Cluster, 12.0)];
        let point = PointResult { point: CLUSTER_1.1.to_owned(), rounds: 1, ceiling: None, contestants };
        let results =
            [ScenarioResult { scenario: "quick".to_owned(), commands: Vec::new(), points: vec![point], failure: None }];
        let measured: Vec<_> =
            ALL.iter().map(|goal| goal.standing(&results)).filter(|it| it.is_met.is_some()).collect();
        assert_eq!(measured.len(), 1);
        assert_eq!((measured[0].reached.as_str(), measured[0].is_met), ("1.20 ×", Some(false)));
    }
}
