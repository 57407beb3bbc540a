//! Which server is behind a node's address.
//!
//! A name or a virtual address can come to mean another server while connections to the old one live on: then writes go to
//! one, and the loader lane would go on to fetch from the other, vouched for and wrong. Every handshake therefore asks for
//! the `run_id`; when it is another one, the newest connection is right, nothing fetched before is served any more, and the
//! lanes that lead to the old server end.

use std::hash::Hasher;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Bits of a [`Server::mark`].
pub(crate) const MARK_BITS: u32 = 10;

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

    /// A number by which it is told from other servers, by all proxies alike, nearly always; 0 if it would not tell who it is.
    pub(crate) fn mark(&self) -> u16 {
        let run_id = self.run_id.lock().unwrap_or_else(PoisonError::into_inner);
        if run_id.is_empty() {
            return 0;
        }
        let mut hash = rustc_hash::FxHasher::default();
        hash.write(&run_id);
        1 + (hash.finish() % ((1 << MARK_BITS) - 1)) as u16
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
    fn a_mark_tells_servers_apart() {
        let mark = |name: &str| {
            let server = Server::default();
            server.meet(id(name));
            server.mark()
        };
        assert_eq!(Server::default().mark(), 0);
        let marks: std::collections::HashSet<u16> = (0..100).map(|number| mark(&format!("{number:040x}"))).collect();
        assert!(
            marks.len() > 80 && !marks.contains(&0) && marks.iter().all(|mark| mark >> MARK_BITS == 0),
            "{marks:?}"
        );
        assert_eq!(mark("a"), mark("a"));
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
