//! What a session hears from the connection that it has to itself.

use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use nearside_resp::Protocol;

use super::own::Own;
use super::state::State;
use super::{Ending, Session};
use crate::lanes::pinned::{Moved, PinnedLane};
use crate::metrics::CutOff;
use crate::topology::Node;
use crate::topology::redirect::{self, MOST_REDIRECTIONS, PAUSE_FROM, Redirect};

/// Reads of one turn of what a client sends while it waits at the server.
const READS_PER_TURN: usize = 16;

impl Session {
    /// The connection owes no reply: if nothing else holds it, it is somebody else's from here on.
    pub(crate) fn pinned_is_idle(&self, lane: &PinnedLane) {
        let state = &mut *self.state.borrow_mut();
        if is_own(state, lane) && !state.order.any_redirected() {
            state.own.release();
        }
    }

    /// The connection is not to be anybody else's.
    pub(crate) fn pinned_is_spent(&self, lane: &PinnedLane) {
        let state = &mut *self.state.borrow_mut();
        if let (true, Own::Pinned(pinned)) = (is_own(state, lane), &mut state.own) {
            pinned.is_spent = true;
        }
    }

    /// The connection is lost, and what was owed on it is answered. If the server knew more of this client than a new
    /// connection would, only a new client can be served rightly.
    pub(crate) fn pinned_lost(self: &Rc<Self>, lane: &PinnedLane) {
        let state = &mut *self.state.borrow_mut();
        if state.closed {
            return;
        }
        if is_own(state, lane) && was_held(std::mem::take(&mut state.own)) && state.ending.is_none() {
            state.note_cut_off(CutOff::UpstreamLost, &self.worker);
            state.ending = Some(Ending::AfterReplies);
        }
        state.waiting = false;
        self.worker.flush_later(self);
        self.wake();
    }

    /// The client waits at the server, and may have sent more meanwhile. All of it is read, within the limits of what a client
    /// may have read: that it has hung up is behind it.
    pub(super) fn poll_hang_up(&self, cx: &mut Context<'_>, state: &mut State) {
        if self.worker.is_draining() {
            state.ending = Some(Ending::Now);
            return;
        }
        let mut input = self.input.borrow_mut();
        for _ in 0..READS_PER_TURN {
            match input.poll_fill(cx, &self.socket()) {
                Poll::Pending => return,
                Poll::Ready(Ok(1..)) => self.check_input(&input, state),
                Poll::Ready(Ok(0) | Err(_)) => state.ending = Some(Ending::Now),
            }
            if state.ending.is_some() {
                state.ending = Some(Ending::Now);
                return;
            }
        }
        cx.waker().wake_by_ref();
    }

    /// Something that is no reply has come on the connection. RESP2 has no form for it: what was on its way when the client
    /// said HELLO 2 is not for it.
    pub(crate) fn pinned_pushed(&self, frame: &[u8]) {
        if self.state.borrow().protocol == Protocol::Resp3 {
            self.push(frame);
        }
    }

    /// Something that is no reply has come, whole.
    pub(crate) fn push(&self, frame: &[u8]) {
        let state = &mut *self.state.borrow_mut();
        if !state.closed {
            state.replies.push(frame, &mut state.output);
        }
    }

    /// A node has not carried the command out, because another one has its keys: it goes there.
    pub(crate) fn pinned_moved(self: &Rc<Self>, lane: &PinnedLane, moved: Moved) {
        if moved.redirections == MOST_REDIRECTIONS {
            let line =
                format!("-UPSTREAM the cluster sent the command on {MOST_REDIRECTIONS} times; it was not executed\r\n");
            return self.deliver(moved.sequence, line.as_bytes(), true);
        }
        let target = match &moved.redirect {
            Redirect::Moved(_, address) | Redirect::Ask(_, address) => self.worker.shared().member(address),
            Redirect::TryAgain | Redirect::Down => None,
        };
        self.redirected(moved.sequence);
        let is_new = target.is_some() && moved.redirections < PAUSE_FROM;
        let node = target.unwrap_or_else(|| Arc::clone(lane.node()));
        if is_new {
            return self.move_to(&node, moved);
        }
        let session = Rc::clone(self);
        tokio::task::spawn_local(async move {
            tokio::time::sleep(redirect::pause(moved.redirections)).await;
            session.move_to(&node, moved);
        });
    }

    fn move_to(self: &Rc<Self>, node: &Arc<Node>, moved: Moved) {
        let sequence = moved.sequence;
        let is_on_its_way = {
            let state = &mut *self.state.borrow_mut();
            match &mut state.own {
                _ if state.closed => return,
                Own::Pinned(pinned) => {
                    let key = pinned.lane.key();
                    let user = pinned.lane.user();
                    let lane = PinnedLane::acquire(&self.worker, node, user, (key.db, key.protocol), self);
                    let before = std::mem::replace(&mut pinned.lane, lane);
                    if before.is_idle() && !pinned.is_spent {
                        before.release()
                    } else {
                        before.end()
                    }
                    pinned.lane.take_over(moved)
                }
                Own::None | Own::Unplaced(_) => false,
            }
        };
        // It may have been seen in the pause that the client has hung up, when nothing waited at a server.
        self.wake();
        if !is_on_its_way {
            self.deliver(sequence, b"-UPSTREAM the connection was lost; the command was not executed\r\n", true);
            self.worker.flush_later(self);
        }
    }
}

fn is_own(state: &State, lane: &PinnedLane) -> bool {
    state.own.lane().is_some_and(|own| std::ptr::eq(&raw const **own, lane))
}

fn was_held(own: Own) -> bool {
    matches!(own, Own::Pinned(pinned) if pinned.is_held())
}
