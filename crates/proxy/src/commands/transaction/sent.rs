//! A whole transaction on the shared lane of a cluster's node, until it is answered.
//!
//! A node that does not have the keys says so when a command is to be queued, or when EXEC comes, and then nothing was
//! carried out: the whole transaction goes to the node that has them. So its replies are kept back until the last is there.

use std::rc::Rc;
use std::sync::Arc;

use super::Writes;
use crate::lanes::forward::{Errand, ForwardLane, Frame};
use crate::lanes::written::{Effect, WrittenKeys};
use crate::session::Session;
use crate::session::gather::{self, Purpose};
use crate::session::state::State;
use crate::topology::Node;
use crate::topology::redirect::{self, MOST_REDIRECTIONS, PAUSE_FROM, Redirect};

const MOVING: &[u8] = b"-TRYAGAIN the slot is on its way to another node; the command was not executed\r\n";

/// See the module.
#[derive(Debug)]
pub(crate) struct SentBlock {
    /// From MULTI to EXEC.
    pub(super) frames: Vec<Vec<u8>>,
    pub(super) writes: Writes,
    /// Where it was sent.
    pub(super) node: Arc<Node>,
    pub(super) tries: u8,
}

impl SentBlock {
    /// Writes it in one go, for the reply `sequence`. `asking` holds from MULTI to EXEC: ASKING between them would be queued.
    pub(super) fn send(self, session: &Rc<Session>, state: &mut State, sequence: u64, asking: bool) {
        let count = self.frames.len();
        let lane = session.worker().lane(&self.node, &state.user, state.db, state.protocol);
        let frames = self.frames.clone();
        let writes = self.writes.clone();
        let first = state.gathers.begin(sequence, state.now, Purpose::Block(Box::new(self)), count);
        for ((number, frame), place) in (first..).zip(frames).zip(1..) {
            let effect = |written: &mut WrittenKeys| {
                if place < count {
                    return Effect::None;
                }
                writes.effect(|key| written.push(key))
            };
            let errand = Errand::new(session, number, state.now, None, false);
            let sent = lane
                .as_ref()
                .map_err(Clone::clone)
                .and_then(|lane| submit(lane, errand, &frame, asking && place == 1, effect));
            if let Err(reason) = sent {
                gather::not_sent(session, state, number, &reason);
            }
        }
    }

    /// All replies are there. Gives them, one after the other; `None`: it is tried again.
    pub(crate) fn answer(
        self,
        session: &Rc<Session>,
        state: &mut State,
        sequence: u64,
        replies: &[&[u8]],
    ) -> Option<Vec<u8>> {
        let parse = |reply: &&[u8]| Redirect::parse(reply, self.node.address());
        let redirected = replies.iter().find_map(parse).filter(|found| *found != Redirect::Down);
        // Where MULTI itself was refused, by ACL, the others have been carried out one by one.
        let was_queued = replies.first().is_some_and(|first| !first.starts_with(b"-"));
        let was_refused = was_queued && replies.last().is_some_and(|last| last.starts_with(b"-"));
        let Some(redirect) = redirected.filter(|_| was_refused && self.tries < MOST_REDIRECTIONS) else {
            let told = |reply: &&[u8]| if is_redirect(reply, &self.node) { MOVING.to_vec() } else { reply.to_vec() };
            return Some(replies.iter().flat_map(told).collect());
        };
        state.order.redirected(sequence);
        self.try_again(session, state, sequence, &redirect);
        None
    }

    fn try_again(mut self, session: &Rc<Session>, state: &mut State, sequence: u64, redirection: &Redirect) {
        let shared = session.worker().shared();
        shared.topology_doubted.notify_one();
        if let Redirect::Moved(slot, _) = redirection {
            shared.lost_slot(&self.node, *slot);
        }
        let target = match redirection {
            Redirect::Moved(_, address) | Redirect::Ask(_, address) => shared.member(address),
            Redirect::TryAgain | Redirect::Down => None,
        };
        let is_new = target.as_ref().is_some_and(|target| target.id() != self.node.id());
        let asking = target.is_some() && matches!(redirection, Redirect::Ask(..));
        self.node = target.unwrap_or_else(|| Arc::clone(&self.node));
        self.tries += 1;
        if is_new && self.tries < PAUSE_FROM {
            return self.send(session, state, sequence, asking);
        }
        let pause = redirect::pause(self.tries);
        let session = Rc::clone(session);
        tokio::task::spawn_local(async move {
            tokio::time::sleep(pause).await;
            session.with_state(|session, state| self.send(session, state, sequence, asking));
        });
    }
}

fn is_redirect(reply: &[u8], node: &Node) -> bool {
    Redirect::parse(reply, node.address()).is_some_and(|redirect| redirect != Redirect::Down)
}

fn submit(
    lane: &ForwardLane,
    errand: Errand,
    frame: &[u8],
    asking: bool,
    effect: impl FnOnce(&mut WrittenKeys) -> Effect,
) -> Result<(), String> {
    let frame = Frame::Borrowed(frame);
    let sent = if asking { lane.submit_asking(errand, frame, effect) } else { lane.submit(errand, frame, effect) };
    sent.map(drop)
}
