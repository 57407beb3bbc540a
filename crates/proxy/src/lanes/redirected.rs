//! Commands that a node of a cluster has not carried out, on their way to the one that will.
//!
//! From here until it is answered, the session holds back what it has not sent: a later command on the same key must not
//! arrive first. What was already sent comes back by the same way, in its order.

use std::time::Duration;

use bytes::Bytes;

use super::forward::{Errand, ForwardLane, Frame};
use super::written::{Effect, WrittenKeys};
use crate::net::clock;
use crate::topology::redirect::Redirect;

/// How often a command is sent on, as clients do by default that follow redirections themselves (16 in hiredis-cluster and
/// redis-py, 5 in Jedis): a slot that is on its way costs one or two.
const MAX_REDIRECTIONS: u8 = 16;
/// The first pause before a command is tried again whose keys are partly here and partly there. It doubles up to
/// [`LONGEST_PAUSE`]: until the client is told, some 2 s have passed.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// See the module.
pub(super) struct Redirected {
    pub(super) errand: Errand,
    pub(super) frame: Bytes,
    /// The keys it writes, if its effect speaks of keys.
    pub(super) keys: Vec<Vec<u8>>,
    pub(super) effect: Effect,
    /// What `from` said.
    pub(super) redirect: Redirect,
}

impl Redirected {
    /// Sends it to where `from` said, or lets its session know that this cannot be done.
    pub(super) fn send_on(mut self, from: &ForwardLane) {
        self.errand.redirections += 1;
        if self.errand.redirections > MAX_REDIRECTIONS {
            return self.give_up(from);
        }
        match &self.redirect {
            Redirect::Moved(_, address) | Redirect::Ask(_, address) => match from.lane_to(address) {
                Ok(lane) => self.submit(&lane),
                Err(reason) => self.fail(from, &reason),
            },
            Redirect::TryAgain => self.try_again(from),
            Redirect::Down => unreachable!("the client is told"),
        }
    }

    fn submit(self, lane: &ForwardLane) {
        let Redirected { errand, frame, keys, effect, redirect } = self;
        let note_keys = |written: &mut WrittenKeys| {
            keys.iter().for_each(|key| written.push(key));
            effect
        };
        let sent = match redirect {
            Redirect::Ask(..) => lane.submit_asking(errand.clone(), Frame::Shared(frame), note_keys),
            _ => lane.submit(errand.clone(), Frame::Shared(frame), note_keys),
        };
        if let Err(reason) = sent {
            lane.tell(&errand, &format!("-UPSTREAM {reason}; the command was not executed\r\n"));
        }
    }

    /// Some of its keys have moved and some have not: soon they will all be in one place.
    fn try_again(self, from: &ForwardLane) {
        let doubled = FIRST_PAUSE * 2_u32.pow(u32::from(self.errand.redirections).min(16));
        let lane = match from.lane_to(from.address()) {
            Ok(lane) => lane,
            Err(reason) => return self.fail(from, &reason),
        };
        tokio::task::spawn_local(async move {
            tokio::time::sleep(doubled.min(LONGEST_PAUSE)).await;
            self.submit(&lane);
        });
    }

    /// In the words of the node, if clients know them.
    fn give_up(self, from: &ForwardLane) {
        if self.redirect == Redirect::TryAgain {
            return from.tell(&self.errand, "-TRYAGAIN Multiple keys request during rehashing of slot\r\n");
        }
        self.fail(from, &format!("the cluster sent the command on {MAX_REDIRECTIONS} times"));
    }

    fn fail(self, from: &ForwardLane, reason: &str) {
        from.tell(&self.errand, &format!("-UPSTREAM {reason}; the command was not executed\r\n"));
    }
}

impl ForwardLane {
    /// Answers a command that is no longer in flight.
    fn tell(&self, errand: &Errand, line: &str) {
        errand.session.deliver(errand.sequence, line.as_bytes(), true);
        self.worker().metrics().served_forward(clock::now(), errand.since);
        self.worker().flush_later(&errand.session);
    }
}
