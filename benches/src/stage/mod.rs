//! What is measured, and what stands behind it.
//!
//! ```text
//! contestant   who there is, how each is started, where it is found
//! server       a process on a core of its own, ended on drop
//! crowd        the rules, databases and users that a Nearside in production has
//! cluster      three primaries; `relay`: a server that is farther away
//! sockets      which connections a process has
//! ```

pub mod cluster;
pub mod contestant;
pub(crate) mod crowd;
pub mod relay;
pub mod server;
pub mod sockets;

pub use contestant::{Addresses, Cache, Contestant, Kind, Programs, Upstream};
pub use server::Server;
