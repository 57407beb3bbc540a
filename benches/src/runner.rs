//! Runs a scenario: all contestants, all contestants again, …
//!
//! Figures of one machine drift from minute to minute by more than the contestants differ. So they take turns in short
//! rounds, each round gives a ratio in that same round, and the median of the ratios is what is told.

pub mod beside;
mod scene;
mod turn;

use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};

use crate::cpu::Cores;
use crate::figures::{Figure, Turn, rounded};
use crate::load::{Tape, ceiling};
use crate::results::{ContestantResult, PointResult, ScenarioResult};
use crate::runner::scene::Scene;
use crate::scenarios::{Measure, Pace, Point, Scenario};
use crate::stage::Programs;

/// How long the driver is measured by itself.
const CEILING_TIME: Duration = Duration::from_millis(500);

/// How a scenario is to be run.
#[derive(Debug)]
pub struct Settings {
    /// What is measured.
    pub programs: Programs,
    /// Where.
    pub cores: Cores,
    /// How often each contestant has its turn.
    pub rounds: u32,
    /// How long each turn is.
    pub turn: Duration,
    /// Set to end early.
    pub stopped: Arc<AtomicBool>,
}

impl Settings {
    /// Whether whoever runs it wants it to end.
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    fn check_stopped(&self) -> anyhow::Result<()> {
        match self.is_stopped() {
            true => bail!("interrupted"),
            false => Ok(()),
        }
    }
}

/// Runs one scenario. This thread is to be on the load's core.
pub fn run(scenario: &'static Scenario, settings: &Settings) -> anyhow::Result<ScenarioResult> {
    let mut scene = Scene::set(scenario, settings).context("starting the contestants")?;
    let mut points = Vec::new();
    for group in scenario.points.chunk_by(Point::has_keys_of) {
        scene.prepare(&group[0])?;
        settings.check_stopped()?;
        points.extend(rounds(&mut scene, group, settings)?);
    }
    Ok(ScenarioResult { scenario: scenario.name.to_owned(), commands: scene.commands(), points, failure: None })
}

/// Points that share their keys, all of them in every round.
fn rounds(scene: &mut Scene, group: &'static [Point], settings: &Settings) -> anyhow::Result<Vec<PointResult>> {
    let is_load = scene.scenario().measure == Measure::Load;
    let tapes: Vec<_> = group.iter().map(|point| Arc::new(tape(point))).collect();
    let mut results = Vec::new();
    for (point, tape) in group.iter().zip(&tapes) {
        let ceiling = match is_load && point.pace == Pace::Closed && point.lifetime.is_none() {
            // Without it the tables say less; that is no reason to have none.
            true => ceiling::measure(tape, point.connections, &settings.cores, CEILING_TIME).ok(),
            false => None,
        };
        let (ceiling, contestants) = (ceiling.map(|outcome| outcome.throughput()), scene.names(point));
        results.push(PointResult { point: point.name.to_owned(), rounds: settings.rounds, ceiling, contestants });
    }
    for round in 0..settings.rounds {
        for index in 0..group.len() {
            let rate = rate(&group[index], &results[0], round as usize);
            let turn = round as usize * group.len() + index;
            let begin = begin(&tapes[index], group[index].connections, turn, settings.rounds as usize * group.len());
            for contestant in 0..results[index].contestants.len() {
                settings.check_stopped()?;
                if results[index].contestants[contestant].failure.is_some() {
                    continue;
                }
                let name = &results[index].contestants[contestant].contestant;
                tell(&format!("{}, {}: round {}, {name}", scene.scenario().name, group[index].name, round + 1));
                let turn = match &rate {
                    Ok(rate) => scene.turn(contestant, &group[index], &tapes[index], begin, *rate, settings),
                    Err(error) => Err(anyhow::anyhow!("{error}")),
                };
                settings.check_stopped()?;
                record(&mut results[index].contestants[contestant], turn);
            }
        }
    }
    tell("");
    Ok(results)
}

/// From where on the tape this turn of so many asks: elsewhere than those before, as a cache would have all that was asked for
/// there. Connections begin as far from each other as can be, so that each has a stretch for itself, and each turn a part of it.
fn begin(tape: &Tape, connections: usize, turn: usize, turns: usize) -> usize {
    tape.batches() / connections * turn / turns
}

/// Says on a terminal how far the run is, in place of what it said before.
fn tell(progress: &str) {
    if io::stderr().is_terminal() {
        eprint!("\r\x1b[K{progress}");
    }
}

fn tape(point: &Point) -> Tape {
    match point.pace {
        Pace::Closed => Tape::of_pipelines(&point.workload()),
        Pace::ShareOfPeak { .. } => Tape::of_commands(&point.workload()),
    }
}

/// Commands a second of an open loop; none of a closed one.
fn rate(point: &Point, first: &PointResult, round: usize) -> Result<Option<f64>, String> {
    let Pace::ShareOfPeak { of, share } = point.pace else { return Ok(None) };
    let peak = first.of(of.name()).and_then(|result| result.turns.get(round)?.get(&Figure::Throughput).copied());
    match peak {
        Some(peak) => Ok(Some(peak * share)),
        None => Err(format!("there is no peak of the {} to take a part of", of.name())),
    }
}

fn record(result: &mut ContestantResult, turn: anyhow::Result<(Turn, Option<hdrhistogram::Histogram<u64>>)>) {
    match turn {
        Ok((turn, latency)) => {
            result.turns.push(turn.into_iter().map(|(figure, value)| (figure, rounded(value))).collect());
            match (&mut result.latency, latency) {
                (Some(all), Some(latency)) => all.add(latency).expect("histograms of the same bounds"),
                (all, latency) => *all = latency,
            }
        }
        Err(error) => result.failure = Some(format!("{error:#}")),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::load::driver::first_batch;
    use crate::scenarios;

    #[test]
    fn no_two_turns_begin_at_one_place() {
        let uniform = scenarios::ALL.iter().find(|scenario| scenario.name == "uniform").expect("it is in the list");
        let tape = tape(&uniform.points[0]);
        for connections in [1, 4, 50, 1000] {
            let places = |turn| {
                let begin = begin(&tape, connections, turn, 10);
                (0..connections).map(|index| first_batch(index, connections, &tape) + begin).collect::<Vec<_>>()
            };
            let all: HashSet<usize> = (0..10).flat_map(places).collect();
            assert_eq!(all.len(), connections * 10);
        }
    }
}
