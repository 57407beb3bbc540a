//! Fences: what a command has changed without naming it, the upstream names, on the loader lanes that have fetched it.
//!
//! Redis writes the invalidations for a write into those connections before anything that it is asked there later. So once
//! the write's own reply has arrived, a question is put on each loader lane of the nodes where it may have been carried out;
//! when all are answered, the invalidations have arrived too, and the reply may go to the client. A lane that is lost meanwhile
//! answers by that: nothing that it fetched is served any more.
//!
//! Nobody waits for longer than `max-staleness`: whatever is served after that, a question vouches for that was put after the
//! write.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::shared::{Message, Shared};

/// One reply that waits. Each loader lane that was asked holds it until it is answered; when nobody does any more, the
/// session hears of it.
pub(crate) struct Fence {
    shared: Arc<Shared>,
    worker: usize,
    session: u64,
    sequence: u64,
    /// Not every lane could be asked: only time tells.
    is_void: AtomicBool,
}

impl Fence {
    /// One for the reply `sequence` of a session of this worker.
    pub(crate) fn new(shared: &Arc<Shared>, worker: usize, session: u64, sequence: u64) -> Self {
        Fence { shared: Arc::clone(shared), worker, session, sequence, is_void: AtomicBool::new(false) }
    }

    /// Some lane cannot be asked.
    pub(crate) fn give_up(&self) {
        self.is_void.store(true, Ordering::Release);
    }
}

impl Drop for Fence {
    fn drop(&mut self) {
        if !self.is_void.load(Ordering::Acquire) {
            let passed = Message::Fenced { session: self.session, sequence: self.sequence };
            // If its mailbox is full, the reply leaves when the time is up.
            let _ = self.shared.mailboxes[self.worker].try_send(passed);
        }
    }
}
