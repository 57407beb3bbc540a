//! Ports for servers under test.
//!
//! They lie below the range that the kernel gives to outgoing connections: a port found free there by binding to 0
//! can become some client's local port before the server has it, and a server that is restarted could lose its own.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

const FIRST: u16 = 10_000;
const COUNT: u16 = 20_000;

static NEXT: AtomicU16 = AtomicU16::new(0);

/// A port on 127.0.0.1 that nobody listened on a moment ago, and that this process gives to nobody else soon.
#[must_use]
pub fn free_port() -> u16 {
    // Test binaries may run at once: each starts its search somewhere else.
    let offset = u16::try_from(std::process::id() % u32::from(COUNT)).expect("a remainder by a u16 fits one");
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
        let port =
            FIRST + u16::try_from((u32::from(offset) * 7 + u32::from(step)) % u32::from(COUNT)).expect("below COUNT");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port between {FIRST} and {}", FIRST + COUNT);
}
