//! Which server is behind a node's address.
//!
//! A name or a virtual address can come to mean another server while connections to the old one live on: then writes go to
//! one, and the loader lane would go on to fetch from the other, vouched for and wrong. Every handshake therefore asks for
//! the `run_id`; when it is another one, the connection made last is right, nothing fetched before is served any more, and the
//! lanes that lead to the old server end.

use std::hash::Hasher;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use nearside_nearcache::Time;

/// Bits of a [`Server::mark`].
pub(crate) const MARK_BITS: u32 = 10;

/// The server that was met last.
#[derive(Debug, Default)]
pub(crate) struct Server {
    known: Mutex<Known>,
    epoch: AtomicU64,
}

#[derive(Debug, Default)]
struct Known {
    run_id: Vec<u8>,
    /// When the newest connection to it was made.
    connected: Time,
}

impl Server {
    /// Counts the servers met so far: a connection that was made under another number leads elsewhere.
    #[inline]
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// A number by which it is told from other servers, by all proxies alike, nearly always; 0 if it would not tell who it is.
    pub(crate) fn mark(&self) -> u16 {
        let run_id = &self.known.lock().unwrap_or_else(PoisonError::into_inner).run_id;
        if run_id.is_empty() {
            return 0;
        }
        let mut hash = rustc_hash::FxHasher::default();
        hash.write(run_id);
        1 + (hash.finish() % ((1 << MARK_BITS) - 1)) as u16
    }

    /// A connection that was made at this time leads to the server with this `run_id` (`None`: it would not tell). Gives the
    /// epoch from here on, and whether another server was met before. `None`: another one was met on a connection made
    /// later; this server was slow to say who it is.
    pub(crate) fn meet(&self, run_id: Option<Vec<u8>>, connected: Time) -> Option<(u64, bool)> {
        let Some(id) = run_id else { return Some((self.epoch(), false)) };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.run_id == id {
            known.connected = known.connected.max(connected);
            return Some((self.epoch(), false));
        }
        if connected < known.connected {
            return None;
        }
        let replaced = !known.run_id.is_empty();
        *known = Known { run_id: id, connected };
        Some((self.epoch.fetch_add(1, Ordering::AcqRel) + 1, replaced))
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
            server.meet(id(name), Time(1));
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
        assert_eq!(server.meet(id("a"), Time(1)), Some((1, false)));
        assert_eq!(server.meet(id("a"), Time(2)), Some((1, false)));
        assert_eq!(server.meet(None, Time(3)), Some((1, false)));
        assert_eq!(server.meet(id("b"), Time(4)), Some((2, true)));
        assert_eq!(server.epoch(), 2);
    }

    #[test]
    fn the_connection_that_was_made_last_is_right_not_the_one_that_was_answered_last() {
        let server = Server::default();
        assert_eq!(server.meet(id("b"), Time(5)), Some((1, false)));
        assert_eq!(server.meet(id("a"), Time(4)), None);
        assert_eq!(server.meet(id("b"), Time(3)), Some((1, false)));
        assert_eq!(server.meet(id("a"), Time(4)), None);
        assert_eq!(server.meet(id("a"), Time(6)), Some((2, true)));
    }
}
