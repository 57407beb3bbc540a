//! What Nearside costs, beside what a user would have without it.
//!
//! Two programs stand on this library. `nearside-load` puts one server under load and says what it did. `nearside-bench`
//! starts contestants, pins them, and compares them in interleaved rounds.
//!
//! ```text
//! load         the load driver: what is asked, how, and what came of it
//! stage        what is measured and what stands behind it: processes, each on a core of its own
//! scenarios    who is compared under which loads, as data
//! runner       runs a scenario in interleaved rounds; `results` and `figures`: what comes out
//! goals        what Nearside is to reach, as data, and whether it does
//! report       docs/benchmarks.md, and what a terminal shows; `plot`: SVG
//! cpu          nanoseconds of CPU a process or this thread has used; cores to run on
//! machine      what figures depend on
//! median       what is told of several rounds
//! ```

pub mod cpu;
pub mod figures;
pub mod goals;
pub mod load;
pub mod machine;
pub mod median;
pub mod plot;
pub mod report;
pub mod results;
pub mod runner;
pub mod scenarios;
pub mod stage;
