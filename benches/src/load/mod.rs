//! The load driver: what it asks, how, and what came of it.
//!
//! ```text
//! workload     which commands, how many keys and of which size, how deep
//! keys         how often each key is asked for
//! tape         the commands and their replies, laid out before the clock starts
//! preload      the keys that the tape asks for, put there first; a cache, filled first
//! driver       the closed loop and the open loop, over many connections on one thread
//! schedule     when the commands of an open loop are due
//! connection   what one connection has yet to send, and yet to get
//! outcome      throughput, latency, and whether the driver was the limit; `error`: why there is none
//! ceiling      what the driver reaches by itself
//! cross_check  what redis-benchmark tells of the same server
//! idle         connections that were used once and are kept
//! ```

pub mod ceiling;
mod connection;
pub mod cross_check;
pub mod driver;
pub mod error;
pub mod idle;
pub mod keys;
pub mod outcome;
pub mod preload;
pub mod schedule;
pub mod tape;
pub mod workload;

pub use driver::{Load, Watch, unwatched};
pub use error::LoadError;
pub use keys::Spread;
pub use outcome::Outcome;
pub use schedule::Schedule;
pub use tape::Tape;
pub use workload::{Ask, Mix, Protocol, Workload};
