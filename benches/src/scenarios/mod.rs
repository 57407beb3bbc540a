//! What is measured: scenarios as data, in `list`.

mod list;

use crate::figures::Figure;
use crate::load::{Protocol, Workload};
use crate::stage::{Contestant, Kind};

pub use list::ALL;

/// One circumstance that a user may care about, and who is compared in it.
#[derive(Debug)]
pub struct Scenario {
    /// What `make bench SCENARIO=` takes.
    pub name: &'static str,
    /// At the head of its section.
    pub title: &'static str,
    /// What a reader has to know to understand its tables.
    pub about: &'static str,
    /// Who takes part. The first is what the others are compared with.
    pub contestants: &'static [Contestant],
    /// The size of Nearside's cache where it is on.
    pub cache: &'static str,
    /// How long that cache serves a reply at most.
    pub max_age: &'static str,
    /// Whether caches are filled with all keys first.
    pub fill: bool,
    /// How each turn is done.
    pub measure: Measure,
    /// Under which loads.
    pub points: &'static [Point],
    /// The columns of its tables.
    pub figures: &'static [Figure],
    /// What its plot shows.
    pub plot: Option<Figure>,
    /// Whether it is part of the whole benchmark, which writes docs/benchmarks.md.
    pub in_full: bool,
}

/// How a turn is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// The contestants run all the while, and each in turn is put under load.
    Load,
    /// Each is started anew, until it answers.
    Start,
    /// Each is started anew, and the point's connections are opened to it and kept.
    IdleConnections,
    /// Each is started anew, and made to hold all of the point's keys.
    Items,
}

/// A load, in the words of `nearside-load`.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    /// In tables and plots.
    pub name: &'static str,
    /// Commands with their shares.
    pub mix: &'static str,
    /// Keys to choose from.
    pub keys: u32,
    /// How asks spread over them.
    pub spread: &'static str,
    /// Bytes of each value.
    pub value_len: usize,
    /// Connections that ask.
    pub connections: usize,
    /// Connections that were used once and are kept.
    pub idle: usize,
    /// Commands in a pipeline, or on their way over each connection.
    pub depth: usize,
    /// Pipelines after which a connection is closed and another one opened.
    pub lifetime: Option<u32>,
    /// When commands are sent.
    pub pace: Pace,
    /// Those who sit this point out.
    pub without: &'static [Kind],
}

/// When commands are sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// When the ones before are answered.
    Closed,
    /// When they are due: at this part of the throughput that a contestant reached in the closed loop of the first point,
    /// in the same round.
    ShareOfPeak {
        /// The contestant.
        of: Kind,
        /// The part.
        share: f64,
    },
}

impl Point {
    /// What it asks for.
    ///
    /// # Panics
    /// If the mix or the spread is none; a test has read them all.
    pub fn workload(&self) -> Workload {
        Workload {
            mix: self.mix.parse().unwrap_or_else(|error| panic!("{}: {error}", self.name)),
            keys: self.keys,
            spread: self.spread.parse().unwrap_or_else(|error| panic!("{}: {error}", self.name)),
            value_len: self.value_len,
            depth: self.depth,
            protocol: Protocol::Resp2,
        }
    }

    /// Whether the keys of the other serve this one too.
    pub fn has_keys_of(&self, other: &Point) -> bool {
        (self.keys, self.value_len) == (other.keys, other.value_len)
    }

    /// How one puts the same load on a server by hand.
    pub fn command(&self) -> String {
        let Self { mix, keys, spread, value_len, connections, depth, .. } = self;
        let mut command = format!("nearside-load HOST:PORT --mix {mix} --keys {keys} --spread {spread}");
        command.push_str(&format!(" --value-size {value_len} --connections {connections} --depth {depth}"));
        if let Some(lifetime) = self.lifetime {
            command.push_str(&format!(" --lifetime {lifetime}"));
        }
        if self.pace != Pace::Closed {
            command.push_str(" --rate RATE");
        }
        if self.idle > 0 {
            command.push_str(&format!(", beside {} connections that were used once", self.idle));
        }
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_load_can_be_read() {
        for point in ALL.iter().flat_map(|scenario| scenario.points) {
            let workload = point.workload();
            assert!(workload.keys > 0 && workload.depth > 0 && point.connections > 0, "{}", point.name);
        }
    }

    #[test]
    fn names_are_unique_and_can_be_typed() {
        for (index, scenario) in ALL.iter().enumerate() {
            assert!(ALL[..index].iter().all(|other| other.name != scenario.name), "{}", scenario.name);
            assert!(
                scenario.name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-'),
                "{}",
                scenario.name
            );
            assert!(!scenario.points.is_empty() && !scenario.contestants.is_empty(), "{}", scenario.name);
        }
    }

    #[test]
    fn a_pace_follows_somebody_who_takes_part_in_the_closed_loop_before() {
        for scenario in ALL {
            for point in &scenario.points[..1] {
                assert_eq!(point.pace, Pace::Closed, "{}", scenario.name);
            }
            for point in scenario.points {
                let Pace::ShareOfPeak { of, .. } = point.pace else { continue };
                assert!(scenario.contestants.iter().any(|contestant| contestant.kind == of), "{}", scenario.name);
                assert!(point.has_keys_of(&scenario.points[0]), "both are measured in one round");
            }
        }
    }
}
