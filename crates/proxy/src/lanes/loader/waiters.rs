//! Those who wait for a fetch, on whatever worker they live.

use std::rc::Rc;

use bytes::Bytes;
use nearside_nearcache::{Answer, FillTicket, Waiters};

use crate::commands::cached::query::Query;
use crate::net::clock;
use crate::shared::{Fetched, Message};
use crate::worker::Worker;

/// Ends a fetch that cannot be made: whoever waits for it reads upstream.
pub(crate) fn abandon(worker: &Rc<Worker>, ticket: FillTicket) {
    let query = Query::of(&ticket);
    let waiters = ticket.complete(Answer::Discard, clock::now());
    let here = tell_elsewhere(worker, waiters, query, None);
    if !here.waiters.is_empty() {
        // Through the mailbox: the session that asked is in the middle of its turn.
        send(worker, worker.index(), here);
    }
}

/// Gives an answer to all who wait for it, on whatever worker they live. Sessions of this one are flushed by the caller.
pub(super) fn tell(worker: &Rc<Worker>, waiters: Waiters, query: Query, reply: Option<Bytes>) {
    worker.fetched(&tell_elsewhere(worker, waiters, query, reply));
}

/// Gives an answer to those of other workers; gives back what those of this one are to be told.
fn tell_elsewhere(worker: &Rc<Worker>, waiters: Waiters, query: Query, reply: Option<Bytes>) -> Fetched {
    let mut elsewhere: Vec<(usize, Vec<(u64, u64)>)> = Vec::new();
    let mut here = Vec::new();
    for waiter in waiters {
        let (index, waiting) = (waiter.worker as usize, (waiter.session, waiter.sequence));
        if index == worker.index() {
            here.push(waiting);
        } else if let Some((_, list)) = elsewhere.iter_mut().find(|(other, _)| *other == index) {
            list.push(waiting);
        } else {
            elsewhere.push((index, vec![waiting]));
        }
    }
    for (index, waiters) in elsewhere {
        send(worker, index, Fetched { waiters, query: query.clone(), reply: reply.clone() });
    }
    Fetched { waiters: here, query, reply }
}

fn send(worker: &Worker, index: usize, fetched: Fetched) {
    // Those who do not hear of it run into their deadline.
    let _ = worker.shared().mailboxes[index].try_send(Message::Fetched(fetched));
}
