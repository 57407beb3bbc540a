//! docs/benchmarks.md.

use std::fmt::Write;

use crate::figures::Figure;
use crate::load::cross_check::{CrossCheck, ROUNDS};
use crate::plot::short;
use crate::report::{Report, latency_file, open_loops, plot_file, scenario_of, table};
use crate::results::ScenarioResult;
use crate::runner::beside::{CONNECTIONS, KEYS, VALUE_LEN};

/// The page.
pub(super) fn markdown(report: &Report) -> String {
    let mut text = head(report);
    let _ = writeln!(
        text,
        "## To reach\n\nThe proxy's own CPU, always; what stands behind it has a column of its own below. What is in the way \
         where it says **no**: [decision 15](decisions/0015-where-the-time-goes.md).\n"
    );
    text.push_str(&table::goals(&report.scenarios, true));
    text.push('\n');
    for result in &report.scenarios {
        section(&mut text, result);
    }
    text.push_str(&beside_redis_benchmark(report));
    text
}

fn head(report: &Report) -> String {
    let Report { commit, cores, machine, rounds, turn_ms, minutes, .. } = report;
    let versions: String = report.versions.iter().map(|version| format!("- {version}\n")).collect();
    format!(
        "# Benchmarks\n\n\
         Written by `make bench`, which took {minutes} minutes; every number below is from that run, of {commit}. All figures of all rounds are \
         in [results.json](benchmarks/results.json).\n\n\
         ## How it was measured\n\n\
         - Machine: {cpu}, {count} cores, {memory_mib} MiB; {kernel}; {system}.\n\
         - What is measured has core {measured} for itself{others}. The load, and the upstream where there is one, are on core {load}. \
         Proxies have one worker. One upstream serves all contestants of a scenario; what one of them writes there others have to drop \
         from their caches, in whoever's turn it is.\n\
         - twemproxy is set as its documentation begins (fnv1a_64, ketama, preconnect), Envoy has one worker and an op_timeout of 10 s; \
         all else is as it is by default. The Go and the Python service have up to 50 connections to Redis each.\n\
         - All contestants of a scenario take turns of {turn_ms} ms in {rounds} rounds (A B C A B C …), each after a warm-up. Figures \
         are medians over the rounds; ratios are medians of the ratios within each round.\n\
         - CPU per command is the time that all threads of a process were on a CPU, by the kernel's account, over the commands \
         that clients were answered.\n\
         - Latency in a closed loop leaves out what a stall did to requests that were not sent meanwhile. Only where it says open \
         loop, commands are due at times decided beforehand and count from then.\n\
         - One process of each contestant serves all tables of a scenario, in every round: RSS has in it what a later table left \
         behind in an earlier round, and so may what a command costs.\n\
         - Every reply is compared with the one that belongs to the request, byte by byte.\n\
         - `≥` before a throughput: the load's core was full, or the driver did as much as it does by itself. The contestant \
         could have done more. What a command costs also depends on how busy its core was (its core %): who has to wait for work \
         is woken more often, and has less of it at a time.\n\
         - `≤` before latencies of an open loop: the driver itself came late to commands that were due, at p99 by more than a \
         quarter of the p99 that it measured. The contestant may have been faster.\n\n\
         Versions:\n\n{versions}\n\
         `make bench SCENARIO=name` runs one scenario, and prints the same tables. The names: {names}. `make bench-quick` takes \
         a minute or two.\n\n",
        cpu = machine.cpu,
        count = machine.cores,
        measured = cores.measured,
        load = cores.load,
        others = others(&report.scenarios),
        memory_mib = machine.memory_mib,
        kernel = machine.kernel,
        system = machine.system,
        names = names(&report.scenarios),
    )
}

/// What else there was on the core of what is measured, in the turn in which it was most.
fn others(results: &[ScenarioResult]) -> String {
    let points = results.iter().flat_map(|result| result.points.iter().map(move |point| (result, point)));
    let parts = points.flat_map(|(result, point)| {
        let turns = point.contestants.iter().flat_map(|contestant| &contestant.turns);
        turns.filter_map(move |turn| Some((*turn.get(&Figure::OthersBusy)?, &result.scenario, &point.point)))
    });
    let mut parts: Vec<_> = parts.collect();
    parts.sort_by(|one, other| one.0.total_cmp(&other.0));
    let (Some((most, scenario, point)), Some((middle, ..))) = (parts.last(), parts.get(parts.len() / 2)) else {
        return String::new();
    };
    let shown = |part: f64| Figure::OthersBusy.show(part);
    format!(
        ": others, the kernel's own threads and other machines took {} % of it in half of the turns or fewer, and {} % in the worst \
         one (`{scenario}`, {point})",
        shown(*middle),
        shown(*most)
    )
}

fn beside_redis_benchmark(report: &Report) -> String {
    let mut text = format!(
        "## The load driver beside redis-benchmark\n\n\
         What two programs agree on can be believed. GET of {keys} keys with {VALUE_LEN}-byte values over {CONNECTIONS} connections, \
         from a Redis on core 0; the driver of this benchmark and redis-benchmark on core 1, by turns; medians of {ROUNDS} turns each. Of a \
         pipeline the driver counts up to the last reply, redis-benchmark up to the first.\n\n",
        keys = short(f64::from(KEYS)),
    );
    let Some(checks) = &report.cross_checks else {
        return text + "Not done in this run: redis-benchmark is not installed.\n";
    };
    text.push_str("| | commands/s | p50 µs | p99 µs |\n|---|---:|---:|---:|\n");
    for CrossCheck { depth, ours, theirs } in checks {
        for (program, told) in [("this driver", ours), ("redis-benchmark", theirs)] {
            let figures = [told.throughput, told.p50_us, told.p99_us].map(short).join(" | ");
            let _ = writeln!(text, "| depth {depth}, {program} | {figures} |");
        }
    }
    text
}

fn names(results: &[ScenarioResult]) -> String {
    results.iter().map(|result| format!("`{}`", result.scenario)).collect::<Vec<_>>().join(", ")
}

fn section(text: &mut String, result: &ScenarioResult) {
    let scenario = scenario_of(result);
    let _ = write!(text, "## {}\n\n{}\n\n", scenario.title, scenario.about);
    if scenario.plot.is_some() && result.failure.is_none() {
        let _ = write!(text, "![{}](benchmarks/{})\n\n", scenario.title, plot_file(scenario));
    }
    text.push_str(&table::scenario(result));
    for point in open_loops(result) {
        let _ = write!(text, "![Latency, {}](benchmarks/{})\n\n", point.point, latency_file(scenario));
    }
    let _ = write!(
        text,
        "<details><summary>Commands (<code>make bench SCENARIO={}</code>)</summary>\n\n```text\n",
        scenario.name
    );
    for command in &result.commands {
        let _ = writeln!(text, "{command}");
    }
    if scenario.measure == crate::scenarios::Measure::Load {
        for point in scenario.points {
            let _ = writeln!(text, "{}: {}", point.name, point.command());
        }
    }
    text.push_str("```\n\n</details>\n\n");
}
