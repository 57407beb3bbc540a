//! What Nearside costs, beside what a user would have without it.
//!
//! Three programs stand on this library. `nearside-load` puts one server under load and says what it did; `bench-quick`
//! starts Redis and Nearside, pins them, and compares their CPU per command in interleaved rounds; `bench-size` compares
//! the latency of some connections alone and among ten times as many.
//!
//! ```text
//! tape         what is asked and what must come back, laid out before the clock starts
//! preload      the keys that the tape asks for, put there first; a cache, filled first
//! closed_loop  connections that ask, wait for every answer, and ask again
//! idle         connections that were used once and are kept
//! cpu          nanoseconds of CPU a process or this thread has used; cores to run on
//! server       a Redis or a Nearside, started on a core of its own, ended on drop; `cluster` has three of them
//! median       what is told of several rounds
//! ```

pub mod closed_loop;
pub mod cluster;
pub mod cpu;
pub mod idle;
pub mod median;
pub mod preload;
pub mod server;
pub mod tape;
