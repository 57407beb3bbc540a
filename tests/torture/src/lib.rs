//! Torture: many clients through two proxies and some past them, faults of every kind, and a checker that holds what the
//! clients saw against what is promised (`docs/guarantees.md`).
//!
//! A run is a row of rounds; each has keys of its own and one fault. `round` tells how one goes, `plan` what clients ask,
//! `faults` what happens meanwhile, `check` what may not come of it.

pub mod check;
pub mod client;
pub mod evidence;
pub mod faults;
pub mod history;
pub mod keyspace;
pub mod lag;
pub mod plan;
pub mod report;
pub mod round;
pub mod run;
pub mod world;
