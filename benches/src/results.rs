//! What came of the scenarios.

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::figures::{Figure, Turn};
use crate::median::median;

/// Of one scenario.
#[derive(Debug, Serialize)]
pub struct ScenarioResult {
    /// Its name.
    pub scenario: String,
    /// How each contestant was started, and those that stand behind them.
    pub commands: Vec<String>,
    /// In the order of the list.
    pub points: Vec<PointResult>,
    /// Why there are none.
    pub failure: Option<String>,
}

impl ScenarioResult {
    /// Of one that could not be run.
    pub fn failed(scenario: &str, why: String) -> Self {
        Self { scenario: scenario.to_owned(), commands: Vec::new(), points: Vec::new(), failure: Some(why) }
    }
}

/// Of one load.
#[derive(Debug, Serialize)]
pub struct PointResult {
    /// Its name.
    pub point: String,
    /// How many rounds there were.
    pub rounds: u32,
    /// Commands a second that the driver reached with the responder that does nothing but answer.
    pub ceiling: Option<f64>,
    /// In the order of the list.
    pub contestants: Vec<ContestantResult>,
}

/// Of one contestant under one load.
#[derive(Debug, Serialize)]
pub struct ContestantResult {
    /// Its name.
    pub contestant: String,
    /// One a round; those of different contestants in the same place belong to the same round.
    pub turns: Vec<Turn>,
    /// Why there are none, or no more.
    pub failure: Option<String>,
    /// Of all turns together, in nanoseconds.
    #[serde(skip)]
    pub latency: Option<Histogram<u64>>,
}

impl PointResult {
    /// Of one of those who took part.
    pub fn of(&self, contestant: &str) -> Option<&ContestantResult> {
        self.contestants.iter().find(|result| result.contestant == contestant)
    }

    /// Commands a second that the driver reaches by itself. Unknown where it reached more with a contestant: then it was
    /// the responder that could do no more.
    pub fn known_ceiling(&self) -> Option<f64> {
        let fastest = self.contestants.iter().filter_map(|contestant| contestant.median(Figure::Throughput));
        let fastest = fastest.fold(0.0, f64::max);
        self.ceiling.filter(|ceiling| fastest <= *ceiling)
    }
}

impl ContestantResult {
    /// The median over the rounds.
    pub fn median(&self, figure: Figure) -> Option<f64> {
        let values: Vec<f64> = self.turns.iter().filter_map(|turn| turn.get(&figure).copied()).collect();
        (!values.is_empty()).then(|| median(values))
    }

    /// The ratio to another contestant in each round.
    pub fn ratios(&self, other: &ContestantResult, figure: Figure) -> Vec<f64> {
        let pairs = self.turns.iter().zip(&other.turns);
        pairs.filter_map(|(turn, other)| Some(turn.get(&figure)? / other.get(&figure)?)).collect()
    }
}
