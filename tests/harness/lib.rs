//! What the tests of the whole program stand on: real servers, a real Nearside, and clients that speak raw bytes.
//!
//! Bytes are the product's interface, so tests assert bytes. The reply reader here is its own, a few lines long and
//! blocking: a fault of the program's scanner must not hide itself from the tests by being shared with them.
//!
//! With `NEARSIDE_TEST_DIRECT=1` the clients of a [`Nearside`] reach the Redis behind it and nothing in between. That
//! calibrates the tests: whatever still fails is a wrong test, not a wrong proxy.

mod client;
mod cluster;
mod cluster_client;
mod control;
mod crowd;
mod dialogue;
mod direct;
mod divided;
mod freshness;
pub mod generator;
mod load;
mod memory;
mod nearside;
mod patience;
mod ports;
mod process;
mod redis_server;
mod relay;
mod reply;
mod sentinel;
mod socket;
mod stops;
mod tally;
mod world;
mod wrong_proxy;

pub use client::{Client, request, words};
pub use cluster::{Failover, Migration, RedisCluster, SLOTS, SharedCluster, key_in_slot, key_slot, spread_keys};
pub use cluster_client::ClusterClient;
pub use control::{Control, ControlReport};
pub use crowd::{Crowd, raise_file_limit};
pub use dialogue::{same_before_a_cluster, same_before_one_server};
pub use direct::Direct;
pub use freshness::{Freshness, StaleRead};
pub use load::{Fault, Load, Report};
pub use memory::{most_resident_bytes, open_files, resident_bytes};
pub use nearside::{Metrics, Nearside, calibrating, nearside_command};
pub use patience::{eventually, holds_for};
pub use ports::free_port;
pub use process::{Process, end_all};
pub use redis_server::RedisServer;
pub use relay::Relay;
pub use reply::Reply;
pub use sentinel::{FakeSentinel, MonitoredServers, NAME, PrimaryClient};
pub use socket::{Address, Socket};
pub use stops::Stops;
pub use tally::{Tally, write_left_out};
pub use world::{Difference, Worlds};
pub use wrong_proxy::{Wrong, WrongProxy};
