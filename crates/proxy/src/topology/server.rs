//! Which server is behind a node's address.
//!
//! A name or a virtual address can come to mean another server while connections to the old one live on: then writes go to
//! one, and the loader lane would go on to fetch from the other, vouched for and wrong. Every handshake therefore asks for
//! the `run_id`; when it is another one, the newest connection is right, nothing fetched before is served any more, and the
//! lanes that lead to the old server end.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// The server that was met last.
#[derive(Debug, Default)]
pub(crate) struct Server {
    run_id: Mutex<Vec<u8>>,
    epoch: AtomicU64,
}

impl Server {
    /// Counts the servers met so far: a connection that was made under another number leads elsewhere.
    #[inline]
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// A new connection leads to the server with this `run_id` (`None`: it would not tell). Gives the epoch from here on,
    /// and whether another server was met before.
    pub(crate) fn meet(&self, run_id: Option<Vec<u8>>) -> (u64, bool) {
        let mut known = self.run_id.lock().unwrap_or_else(PoisonError::into_inner);
        match run_id {
            Some(id) if *known != id => {
                let replaced = !known.is_empty();
                *known = id;
                (self.epoch.fetch_add(1, Ordering::AcqRel) + 1, replaced)
            }
            _ => (self.epoch(), false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> Option<Vec<u8>> {
        Some(text.as_bytes().to_vec())
    }

    #[test]
    fn only_another_run_id_begins_another_epoch() {
        let server = Server::default();
        assert_eq!(server.meet(id("a")), (1, false));
        assert_eq!(server.meet(id("a")), (1, false));
        assert_eq!(server.meet(None), (1, false));
        assert_eq!(server.meet(id("b")), (2, true));
        assert_eq!(server.epoch(), 2);
    }
}
