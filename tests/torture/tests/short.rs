//! The short form of `make torture`: most kinds of faults once, and no promise broken.

use std::time::Duration;

use nearside_tests::calibrating;
use nearside_torture::run::Run;
use nearside_torture::world::MAX_STALENESS;

const SPAN: Duration = Duration::from_secs(75);
/// Far fewer than the slowest machine makes: a checker that has seen nothing finds nothing.
const FEWEST_READS: usize = 20_000;

#[test]
fn no_promise_is_broken_by_any_fault() {
    if calibrating("promises") {
        return;
    }
    let run = Run { span: SPAN, seed: 1, ..Run::default() };
    let report = run.carry_out(|line, _| eprintln!("{line}"));
    eprintln!("{}", report.text(MAX_STALENESS));
    assert!(report.violations().is_empty(), "{} violations, shown above", report.violations().len());
    assert!(report.reads() > FEWEST_READS, "{} reads", report.reads());
}
