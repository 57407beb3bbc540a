//! Commands that a node of a cluster has not carried out, on their way to the one that will.
//!
//! From here until it is answered, the session holds back what it has not sent: a later command on the same key must not
//! arrive first. What was already sent comes back by the same way, in its order; only a command that is tried again after
//! a pause may be overtaken by those.
//!
//! That the command was not carried out is what the answers mean when the server gives them. A script can say the same after
//! it has done something: its author's word is followed, to nodes of this cluster and for its own slot, a few times.

use std::rc::Rc;

use bytes::Bytes;

use super::{Errand, ForwardLane, Frame, State};
use crate::config::UpstreamAddress;
use crate::lanes::link::LinkError;
use crate::lanes::written::{Effect, WrittenKeys};
use crate::net::clock;
use crate::session::gather;
use crate::topology::redirect::{self, MOST_REDIRECTIONS, PAUSE_FROM, Redirect};

/// How often a command is sent on whose errors a program may have made.
const MOST_REDIRECTIONS_OF_PROGRAMS: u8 = 3;
const ASKING: &[u8] = b"*1\r\n$6\r\nASKING\r\n";

/// What an error turned out to be.
pub(super) enum Looked {
    /// More of it has to arrive.
    NotYet,
    /// The command goes elsewhere.
    Redirected(Redirected),
    /// Like any other: what was kept of it, if something was.
    Ordinary(Vec<u8>),
}

/// See the module.
pub(super) struct Redirected {
    errand: Errand,
    frame: Bytes,
    /// The keys it writes, if its effect speaks of keys.
    keys: Vec<Vec<u8>>,
    effect: Effect,
    /// What the node said, and in which words.
    redirect: Redirect,
    line: Vec<u8>,
}

impl ForwardLane {
    /// An error of a node of a cluster, of which `piece` has arrived now: it may say that another node has to answer.
    #[cold]
    pub(super) fn look_at_error(&self, state: &mut State, piece: &[u8], complete: bool) -> Result<Looked, LinkError> {
        let mut line = std::mem::take(&mut state.error);
        if line.is_empty() && complete && !Redirect::is_likely(piece) {
            return Ok(Looked::Ordinary(line));
        }
        line.extend_from_slice(piece);
        if !complete && line.len() < redirect::LONGEST {
            state.error = line;
            return Ok(Looked::NotYet);
        }
        let redirect = complete.then(|| Redirect::parse(&line, self.node.address())).flatten();
        let Some(redirect) = redirect else { return Ok(Looked::Ordinary(line)) };
        let Some(front) = state.awaiting.front() else {
            return Err(LinkError::Protocol("a reply that no command asked for".into()));
        };
        if !front.errand.as_ref().is_some_and(|errand| self.is_followed(errand, &redirect)) {
            return Ok(Looked::Ordinary(line));
        }
        Ok(Looked::Redirected(self.take_back(state, redirect, line)))
    }

    /// Whether the command goes where the node says. If not, the client gets the node's own words.
    fn is_followed(&self, errand: &Errand, redirect: &Redirect) -> bool {
        let shared = self.worker.shared();
        let is_believed = !errand.is_program || errand.redirections < MOST_REDIRECTIONS_OF_PROGRAMS;
        match redirect {
            Redirect::Moved(slot, _) if errand.slot == Some(*slot) => {
                shared.topology_doubted.notify_one();
                shared.lost_slot(&self.node, *slot);
                is_believed
            }
            Redirect::Moved(..) => false,
            Redirect::Ask(slot, _) => errand.slot == Some(*slot) && is_believed,
            Redirect::TryAgain => {
                errand.slot.is_some() && !errand.is_program && errand.redirections < MOST_REDIRECTIONS
            }
            Redirect::Down => {
                shared.topology_doubted.notify_one();
                false
            }
        }
    }

    /// Takes back the oldest command, to be sent elsewhere.
    fn take_back(&self, state: &mut State, redirect: Redirect, line: Vec<u8>) -> Redirected {
        let front = state.awaiting.pop_front().expect("somebody has asked");
        let errand = front.errand.expect("ASKING has no slot");
        let frame = state.sent.as_mut().expect("in a cluster").take_front(front.len);
        let mut keys = Vec::new();
        let now = state.progress;
        state.written.pop(front.effect.keys(), |key| {
            // A script may have written before it said so.
            self.worker.cache().iter().for_each(|cache| cache.wrote(key, now));
            keys.push(key.to_vec());
        });
        errand.session.redirected(errand.sequence);
        Redirected { errand, frame, keys, effect: front.effect, redirect, line }
    }

    /// The lane of the same kind that leads to `address`.
    fn lane_to(&self, address: &UpstreamAddress) -> Result<Rc<ForwardLane>, String> {
        let node = self.worker.shared().nodes.at(address);
        let node = node.ok_or_else(|| format!("{address} would be one node too many"))?;
        self.worker.lane(&node, &self.user, self.key.db, self.key.protocol)
    }

    /// As [`ForwardLane::submit`], with ASKING before it: the node answers although the slot is not its own yet.
    pub(crate) fn submit_asking(
        &self,
        errand: Errand,
        frame: Frame<'_>,
        note_keys: impl FnOnce(&mut WrittenKeys) -> Effect,
    ) -> Result<Effect, String> {
        self.submit(errand.clone(), Frame::Borrowed(ASKING), |_| Effect::None)?;
        self.state.borrow_mut().awaiting.back_mut().expect("just queued").errand = None;
        self.submit(errand, frame, note_keys)
    }

    /// Answers a command that is no longer in flight.
    fn tell(&self, errand: &Errand, line: &[u8]) {
        errand.session.deliver(errand.sequence, line, true);
        if !gather::is_part(errand.sequence) {
            self.worker.metrics().served_forward(clock::now(), errand.since);
        }
        self.worker.flush_later(&errand.session);
    }
}

impl Redirected {
    /// Sends it to where `from` said, or lets its session know that this cannot be done.
    pub(super) fn send_on(mut self, from: &ForwardLane) {
        if self.errand.redirections == MOST_REDIRECTIONS {
            let last = String::from_utf8_lossy(&self.line);
            let last = last.trim_start_matches('-').trim_end();
            let reason = format!("the cluster sent the command on {MOST_REDIRECTIONS} times, the last with {last:?}");
            return self.fail(from, &reason);
        }
        self.errand.redirections += 1;
        let shared = from.worker.shared();
        let lane = match &self.redirect {
            Redirect::Moved(_, name) | Redirect::Ask(_, name) => match shared.members.load().get(name) {
                Some(address) => {
                    self.errand.asking = matches!(self.redirect, Redirect::Ask(..));
                    from.lane_to(address)
                }
                // A node that is not known, or not yet: it is asked about, and the command tried where it was.
                None => {
                    shared.topology_doubted.notify_one();
                    from.lane_to(from.node.address())
                }
            },
            Redirect::TryAgain => from.lane_to(from.node.address()),
            Redirect::Down => unreachable!("the client is told"),
        };
        let lane = match lane {
            Ok(lane) => lane,
            Err(reason) => return self.fail(from, &reason),
        };
        let is_same = Rc::ptr_eq(&lane.worker, &from.worker) && lane.key == from.key;
        if !is_same && self.errand.redirections < PAUSE_FROM {
            return self.submit(&lane);
        }
        tokio::task::spawn_local(async move {
            tokio::time::sleep(redirect::pause(self.errand.redirections)).await;
            self.submit(&lane);
        });
    }

    fn submit(self, lane: &ForwardLane) {
        let Redirected { ref errand, ref frame, ref keys, effect, .. } = self;
        let note_keys = |written: &mut WrittenKeys| {
            keys.iter().for_each(|key| written.push(key));
            effect
        };
        let (errand, frame) = (errand.clone(), Frame::Shared(frame.clone()));
        let sent = if errand.asking {
            lane.submit_asking(errand, frame, note_keys)
        } else {
            lane.submit(errand, frame, note_keys)
        };
        if let Err(reason) = sent {
            self.fail(lane, &reason);
        }
    }

    /// It cannot be sent on. What a program has done before it said so, nobody knows but it: its own words are passed on.
    fn fail(&self, lane: &ForwardLane, reason: &str) {
        if self.errand.is_program {
            return lane.tell(&self.errand, &self.line);
        }
        lane.tell(&self.errand, format!("-UPSTREAM {reason}; the command was not executed\r\n").as_bytes());
    }
}
