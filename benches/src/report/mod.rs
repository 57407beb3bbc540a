//! What a run comes to, as Markdown with plots.

mod page;
mod table;

use std::fs;
use std::path::Path;

use anyhow::Context;
use serde::Serialize;

use crate::cpu::Cores;
use crate::figures::Figure;
use crate::load::cross_check::CrossCheck;
use crate::machine::Machine;
use crate::plot;
use crate::results::{PointResult, ScenarioResult};
use crate::scenarios::{self, Pace, Scenario};

pub use table::{goals, scenario};

/// The folder of plots and figures, beside the page.
const BESIDE: &str = "benchmarks";

/// A run of the whole benchmark.
#[derive(Debug, Serialize)]
pub struct Report {
    /// What was measured: the commit, and whether the tree was another one.
    pub commit: String,
    /// Where everything ran.
    pub cores: Cores,
    /// Where.
    pub machine: Machine,
    /// Of all programs.
    pub versions: Vec<String>,
    /// In which each contestant had its turn.
    pub rounds: u32,
    /// How long each turn was, in milliseconds.
    pub turn_ms: u128,
    /// How long all of it took, in minutes.
    pub minutes: u64,
    /// What redis-benchmark tells beside the driver; none if it is not installed.
    pub cross_checks: Option<Vec<CrossCheck>>,
    /// What came of it.
    pub scenarios: Vec<ScenarioResult>,
}

impl Report {
    /// Writes all figures of all rounds: `folder/benchmarks/results.json`. Meant for every scenario's end: a long run that
    /// is cut off has not been in vain.
    pub fn save(&self, folder: &Path) -> anyhow::Result<()> {
        let beside = folder.join(BESIDE);
        fs::create_dir_all(&beside).with_context(|| format!("making {}", beside.display()))?;
        let file = beside.join("results.json");
        fs::write(&file, serde_json::to_string(self)? + "\n").with_context(|| format!("writing {}", file.display()))
    }

    /// Writes `folder/benchmarks.md`, and beside it `benchmarks/` with plots and all figures of all rounds.
    pub fn write(&self, folder: &Path) -> anyhow::Result<()> {
        self.save(folder)?;
        let page = folder.join("benchmarks.md");
        fs::write(&page, page::markdown(self)).with_context(|| format!("writing {}", page.display()))?;
        for result in &self.scenarios {
            plots(result, &folder.join(BESIDE)).with_context(|| format!("drawing {}", result.scenario))?;
        }
        Ok(())
    }
}

/// The scenario of a result.
fn scenario_of(result: &ScenarioResult) -> &'static Scenario {
    let mut all = scenarios::ALL.iter();
    all.find(|scenario| scenario.name == result.scenario).expect("a result is of a scenario in the list")
}

/// The file of a scenario's plot.
fn plot_file(scenario: &Scenario) -> String {
    format!("{}.svg", scenario.name)
}

/// The file of the plot of latencies of a scenario's open loop.
fn latency_file(scenario: &Scenario) -> String {
    format!("{}-latency.svg", scenario.name)
}

/// The points in which commands were due at set times.
fn open_loops(result: &ScenarioResult) -> impl Iterator<Item = &PointResult> {
    let points = scenario_of(result).points.iter().zip(&result.points);
    points.filter(|(point, _)| point.pace != Pace::Closed).map(|(_, result)| result)
}

fn plots(result: &ScenarioResult, folder: &Path) -> anyhow::Result<()> {
    let scenario = scenario_of(result);
    if let Some(figure) = scenario.plot.filter(|_| result.failure.is_none()) {
        let names: Vec<String> = scenario.contestants.iter().map(|contestant| contestant.name()).collect();
        let groups: Vec<_> = result.points.iter().map(|point| (point.point.clone(), medians(point, figure))).collect();
        plot::bars(&folder.join(plot_file(scenario)), scenario.title, figure.head(), &names, &groups)?;
    }
    for point in open_loops(result) {
        let measured = point.contestants.iter().filter(|contestant| contestant.failure.is_none());
        let series: Vec<_> =
            measured.filter_map(|each| Some((each.contestant.clone(), each.latency.clone()?))).collect();
        if !series.is_empty() {
            plot::latencies(&folder.join(latency_file(scenario)), &point.point, &series)?;
        }
    }
    Ok(())
}

fn medians(point: &PointResult, figure: Figure) -> Vec<Option<f64>> {
    point.contestants.iter().map(|contestant| contestant.median(figure)).collect()
}
