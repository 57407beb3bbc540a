//! What tests/clients/with-upstream tells of the servers that it started, and what all tests here need.

use std::time::Duration;

/// How long a test waits for what has to happen: many times what it needs.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Where clients connect, as a URL.
pub fn url() -> String {
    let address = std::env::var("NEARSIDE_ADDRESS")
        .expect("run it so: tests/clients/with-upstream cargo test --manifest-path tests/clients/rust/Cargo.toml");
    format!("redis://{address}")
}

/// Whether the upstream is a cluster.
pub fn is_cluster() -> bool {
    std::env::var("NEARSIDE_TEST_UPSTREAM").as_deref() == Ok("cluster")
}

/// Whether a client of one server can use what is there: a cluster only behind Nearside.
pub fn serves_clients_of_one_server() -> bool {
    !is_cluster() || std::env::var("NEARSIDE_ADMIN").is_ok()
}

/// A script that gives a lock back, if it is one's own.
pub const RELEASE: &str =
    "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0";
