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
    let mut waiters: Vec<_> = waiters.into_iter().collect();
    // Through the mailbox also on this worker: the session that asked is in the middle of its turn.
    for index in 0..worker.shared().mailboxes.len() {
        let here: Vec<_> =
            waiters.extract_if(.., |w| w.worker as usize == index).map(|w| (w.session, w.sequence)).collect();
        if !here.is_empty() {
            let fetched = Fetched { waiters: here, query: query.clone(), reply: None };
            // Those who do not hear of it run into their deadline.
            let _ = worker.shared().mailboxes[index].try_send(Message::Fetched(fetched));
        }
    }
}

/// Gives an answer to all who wait for it, on whatever worker they live. Sessions of this one are flushed by the caller.
pub(super) fn tell(worker: &Rc<Worker>, waiters: Waiters, query: Query, reply: Option<Bytes>) {
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
        let fetched = Fetched { waiters, query: query.clone(), reply: reply.clone() };
        let _ = worker.shared().mailboxes[index].try_send(Message::Fetched(fetched));
    }
    worker.fetched(&Fetched { waiters: here, query, reply });
}
