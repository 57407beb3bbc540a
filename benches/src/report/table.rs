//! Tables in Markdown.

use std::fmt::Write;

use crate::figures::Figure;
use crate::goals;
use crate::load::outcome::{FULL, NEAR_CEILING, shows_lateness};
use crate::median::median;
use crate::plot::short;
use crate::report::scenario_of;
use crate::results::{ContestantResult, PointResult, ScenarioResult};

/// The table of each point of a scenario.
pub fn scenario(result: &ScenarioResult) -> String {
    let figures = scenario_of(result).figures;
    let mut text = result.failure.iter().map(|failure| format!("Not measured: {failure}\n")).collect::<String>();
    for point in &result.points {
        let _ = writeln!(text, "**{}**\n", point.point);
        text.push_str(&table(point, figures));
        text.push('\n');
    }
    text
}

fn table(point: &PointResult, figures: &[Figure]) -> String {
    // What nobody has is no column; the first of the figures is the one that is compared.
    let figures: Vec<Figure> = figures.iter().copied().filter(|figure| has(point, *figure)).collect();
    let Some((&main, rest)) = figures.split_first() else { return failures(point) };
    let first = &point.contestants[0];
    let mut text = format!("| | {} | of {} |", main.head(), first.contestant);
    for figure in rest {
        let _ = write!(text, " {} |", figure.head());
    }
    let _ = write!(text, "\n|---|---:|---:|{}\n", "---:|".repeat(rest.len()));
    for contestant in point.contestants.iter().filter(|contestant| !contestant.turns.is_empty()) {
        let ratios = contestant.ratios(first, main);
        let ratio = if ratios.is_empty() { "–".to_owned() } else { short(median(ratios)) };
        let _ = write!(text, "| {} | {} | {ratio} |", contestant.contestant, cell(point, contestant, main));
        for figure in rest {
            let _ = write!(text, " {} |", cell(point, contestant, *figure));
        }
        text.push('\n');
    }
    text + &failures(point)
}

fn has(point: &PointResult, figure: Figure) -> bool {
    point.contestants.iter().any(|contestant| contestant.median(figure).is_some())
}

fn cell(point: &PointResult, contestant: &ContestantResult, figure: Figure) -> String {
    let Some(value) = contestant.median(figure) else { return "–".to_owned() };
    let bound = match figure {
        Figure::Throughput if was_limited(point, contestant) => "≥ ",
        Figure::P50Us | Figure::P99Us | Figure::P999Us if was_late(contestant) => "≤ ",
        _ => "",
    };
    format!("{bound}{}", figure.show(value))
}

/// Whether latencies are those of a driver that came late to what was due.
fn was_late(contestant: &ContestantResult) -> bool {
    let late_and_p99 = contestant.median(Figure::LateUs).zip(contestant.median(Figure::P99Us));
    late_and_p99.is_some_and(|(late_us, p99_us)| shows_lateness(late_us, p99_us))
}

/// Whether the load's core had no time left, or the driver did as much as it can.
fn was_limited(point: &PointResult, contestant: &ContestantResult) -> bool {
    let is_full = contestant.median(Figure::LoadBusy).is_some_and(|busy| busy > FULL);
    let throughput = contestant.median(Figure::Throughput).unwrap_or_default();
    is_full || point.known_ceiling().is_some_and(|ceiling| throughput > ceiling * NEAR_CEILING)
}

/// A line for each contestant without figures, or with fewer than there are rounds.
fn failures(point: &PointResult) -> String {
    let mut text = String::new();
    for contestant in &point.contestants {
        if let Some(failure) = &contestant.failure {
            let _ = write!(text, "\n{}: {failure}\n", contestant.contestant);
        }
    }
    match (point.known_ceiling(), point.ceiling) {
        (Some(ceiling), _) => {
            let _ = write!(text, "\nThe driver by itself reaches {} commands/s.\n", short(ceiling));
        }
        (None, Some(responder)) => {
            let _ = write!(
                text,
                "\nWhat the driver reaches by itself is not known: the responder that it is measured with does {} commands/s, \
                 fewer than the fastest contestant.\n",
                short(responder)
            );
        }
        (None, None) => {}
    }
    text
}

/// The table of what was to be reached; only of what was measured, unless `all` are wanted.
pub fn goals(results: &[ScenarioResult], all: bool) -> String {
    let mut text =
        "| | | to reach | reached: median (rounds) | reached / to reach | |\n|---|---|---:|---:|---:|---|\n".to_owned();
    let mut rows = 0;
    for goal in goals::ALL {
        let standing = goal.standing(results);
        if !all && standing.is_met.is_none() {
            continue;
        }
        let verdict = standing.is_met.map_or("?", |is_met| if is_met { "yes" } else { "**no**" });
        let ratio = standing.ratio.map_or("–".to_owned(), short);
        let (to_reach, reached) = (&standing.to_reach, &standing.reached);
        let _ = writeln!(text, "| {} | {} | {to_reach} | {reached} | {ratio} | {verdict} |", goal.number, goal.what);
        rows += 1;
    }
    if rows == 0 { String::new() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::Turn;

    fn contestant(figures: &[(Figure, f64)]) -> ContestantResult {
        let turns = vec![Turn::from_iter(figures.iter().copied())];
        ContestantResult { contestant: "somebody".to_owned(), turns, failure: None, latency: None }
    }

    fn point(ceiling: Option<f64>, contestants: Vec<ContestantResult>) -> PointResult {
        PointResult { point: "a load".to_owned(), rounds: 1, ceiling, contestants }
    }

    #[test]
    fn a_throughput_near_the_drivers_own_is_a_lower_bound() {
        let rates = [95.0, 50.0].map(|rate| contestant(&[(Figure::Throughput, rate)]));
        let limited = point(Some(100.0), rates.into());
        assert_eq!(cell(&limited, &limited.contestants[0], Figure::Throughput), "≥ 95.0");
        assert_eq!(cell(&limited, &limited.contestants[1], Figure::Throughput), "50.0");
    }

    #[test]
    fn a_responder_slower_than_a_contestant_is_no_ceiling() {
        let rates = [120.0, 95.0].map(|rate| contestant(&[(Figure::Throughput, rate)]));
        let point = point(Some(100.0), rates.into());
        assert_eq!(cell(&point, &point.contestants[1], Figure::Throughput), "95.0");
        assert!(failures(&point).contains("is not known"));
    }

    #[test]
    fn latencies_of_a_late_driver_are_upper_bounds() {
        let turns =
            |late_us| vec![contestant(&[(Figure::P50Us, 70.0), (Figure::P99Us, 1000.0), (Figure::LateUs, late_us)])];
        let (late, early) = (point(None, turns(251.0)), point(None, turns(250.0)));
        assert_eq!(cell(&late, &late.contestants[0], Figure::P50Us), "≤ 70.0");
        assert_eq!(cell(&late, &late.contestants[0], Figure::P99Us), "≤ 1,000");
        assert_eq!(cell(&late, &late.contestants[0], Figure::LateUs), "251");
        assert_eq!(cell(&early, &early.contestants[0], Figure::P99Us), "1,000");
    }
}
