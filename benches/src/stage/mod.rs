//! What is measured, and what stands behind it.
//!
//! ```text
//! contestant   who there is, how each is started, where it is found
//! server       a process on a core of its own, ended on drop
//! cluster      three primaries; `relay`: a server that is farther away
//! sockets      which connections a process has
//! ```

pub mod cluster;
pub mod contestant;
pub mod relay;
pub mod server;
pub mod sockets;

pub use contestant::{Addresses, Contestant, Kind, Programs, Upstream};
pub use server::Server;
