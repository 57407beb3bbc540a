//! Replies that have arrived and wait for a fence ([`crate::lanes::fence`]), because their commands may have changed keys
//! that they did not name.

use std::rc::Rc;
use std::sync::Arc;

use tokio_util::task::AbortOnDropHandle;

use super::Session;
use super::state::State;
use crate::lanes::fence::Fence;
use crate::topology::{Node, Slot};

/// Those of one session: few, and mostly none.
#[derive(Debug, Default)]
pub(crate) struct Fences(Vec<Fenced>);

#[derive(Debug)]
struct Fenced {
    sequence: u64,
    /// Of the command's keys; `None`: it names none, and may have run anywhere.
    slot: Option<Slot>,
    /// The version of the topology by which it was sent.
    version: u64,
    /// Once it has arrived.
    held: Option<Held>,
}

/// A reply, and the task that lets it go when the time is up.
#[derive(Debug)]
struct Held {
    reply: Vec<u8>,
    _timer: AbortOnDropHandle<()>,
}

impl Fences {
    /// The reply `sequence`, which is still to come, shall wait.
    pub(crate) fn expect(&mut self, sequence: u64, slot: Option<Slot>, version: u64) {
        self.0.push(Fenced { sequence, slot, version, held: None });
    }

    fn find(&mut self, sequence: u64) -> Option<&mut Fenced> {
        self.0.iter_mut().find(|fenced| fenced.sequence == sequence)
    }

    fn take(&mut self, sequence: u64) -> Option<Fenced> {
        let at = self.0.iter().position(|fenced| fenced.sequence == sequence)?;
        Some(self.0.swap_remove(at))
    }
}

/// The reply has arrived. Gives it back if nothing is to be waited for.
#[inline]
pub(super) fn arrived(session: &Rc<Session>, state: &mut State, sequence: u64, reply: Vec<u8>) -> Option<Vec<u8>> {
    let Some(fenced) = state.fences.find(sequence) else { return Some(reply) };
    state.replies.hold(reply.len());
    let worker = session.worker();
    worker.metrics().fences.add(1);
    // One that was sent on has been carried out where the topology may not know yet that its slot is, and one that was sent by
    // another topology where it may have been.
    let is_where_it_was_sent = fenced.version == worker.shared().topology.load().version();
    let slot = fenced.slot.filter(|_| is_where_it_was_sent && !state.order.was_redirected(sequence));
    worker.fence(Fence::new(worker.shared(), worker.index(), session.id(), sequence), &nodes(session, slot));
    let (waiting, limit) = (Rc::clone(session), worker.config().max_staleness);
    let timer = tokio::task::spawn_local(async move {
        tokio::time::sleep(limit).await;
        waiting.fenced(sequence);
    });
    fenced.held = Some(Held { reply, _timer: AbortOnDropHandle::new(timer) });
    None
}

/// Where what a command of this slot has changed may have been fetched from.
fn nodes(session: &Session, slot: Option<Slot>) -> Vec<Arc<Node>> {
    let topology = session.worker().shared().topology.load();
    match slot.filter(|_| topology.is_cluster()) {
        Some(slot) => topology.position(slot).map(|at| Arc::clone(&topology.nodes()[at])).into_iter().collect(),
        None => topology.nodes().to_vec(),
    }
}

/// All invalidations have arrived, or the time is up: the reply may go, unless it has gone.
pub(super) fn passed(state: &mut State, sequence: u64) {
    if let Some(Held { reply, .. }) = state.fences.take(sequence).and_then(|fenced| fenced.held) {
        state.replies.release_held(reply.len());
        state.replies.complete(sequence, reply, &mut state.output);
        state.order.forward_answered(sequence);
    }
}
