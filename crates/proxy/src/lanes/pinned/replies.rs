//! What a pinned connection brings: replies, what the server says of its own accord, and errors that say that another node
//! has the keys.

use nearside_nearcache::Time;
use nearside_resp::{ReplyKind, ReplyScanner};

use super::{Awaiting, Guard, Moved, PinnedLane};
use crate::lanes::link::{self, LinkError};
use crate::net::clock;
use crate::topology::redirect::{self, Redirect};

/// What is answered now.
struct Answered {
    sequence: Option<u64>,
    since: Time,
    blocks: bool,
}

impl PinnedLane {
    /// Takes in what one read has brought.
    pub(super) fn distribute(&self, mut bytes: &[u8], scanner: &mut ReplyScanner) -> Result<(), LinkError> {
        let now = clock::now();
        self.state.borrow_mut().progress = now;
        while let Some((piece, complete)) = link::next_piece(scanner, &mut bytes)? {
            let mut head = std::mem::take(&mut self.state.borrow_mut().head);
            if head.is_empty() && (complete || scanner.kind().is_some()) {
                self.take(scanner.kind(), piece, complete, now)?;
                continue;
            }
            head.extend_from_slice(piece);
            match scanner.kind() {
                None if !complete => self.state.borrow_mut().head = head,
                kind => self.take(kind, &head, complete, now)?,
            }
        }
        Ok(())
    }

    /// Takes a piece of what is of this kind.
    fn take(&self, kind: Option<ReplyKind>, piece: &[u8], complete: bool, now: Time) -> Result<(), LinkError> {
        match kind {
            Some(ReplyKind::Push) => {
                self.pushed(piece, complete);
                Ok(())
            }
            Some(ReplyKind::Error) if self.worker.topology().is_cluster() => self.error(piece, complete, now),
            _ => self.replied(piece, complete, now),
        }
    }

    /// What the server says of its own accord, which the client gets whole.
    fn pushed(&self, piece: &[u8], complete: bool) {
        let mut partial = std::mem::take(&mut self.state.borrow_mut().partial);
        partial.extend_from_slice(piece);
        if !complete {
            self.state.borrow_mut().partial = partial;
            return;
        }
        let owner = self.state.borrow().owner.clone();
        if let Some(owner) = owner {
            owner.pinned_pushed(&partial);
        }
    }

    /// An error of a node of a cluster: it may say that another node has to answer.
    fn error(&self, piece: &[u8], complete: bool, now: Time) -> Result<(), LinkError> {
        if self.state.borrow().begun {
            return self.replied(piece, complete, now);
        }
        let mut line = std::mem::take(&mut self.state.borrow_mut().partial);
        line.extend_from_slice(piece);
        if !complete && line.len() < redirect::LONGEST {
            self.state.borrow_mut().partial = line;
            return Ok(());
        }
        match complete.then(|| Redirect::parse(&line, self.node.address())).flatten() {
            Some(redirect) => self.redirected(redirect, &line, now),
            None => self.replied(&line, complete, now),
        }
    }

    fn redirected(&self, redirect: Redirect, line: &[u8], now: Time) -> Result<(), LinkError> {
        let shared = self.worker.shared();
        shared.topology_doubted.notify_one();
        if let Redirect::Moved(slot, _) = &redirect {
            shared.lost_slot(&self.node, *slot);
        }
        let is_followed = {
            let state = self.state.borrow();
            state.awaiting.front().is_some_and(|front| front.frame.is_some() && front.sequence.is_some())
        };
        match redirect {
            Redirect::Down => self.replied(line, true, now),
            redirect if is_followed => {
                self.send_on(redirect);
                Ok(())
            }
            // The client knows of one server only: it is not sent to another, but told to begin again.
            _ => {
                let text = b"-TRYAGAIN the slot is on its way to another node; the command was not executed\r\n";
                self.replied(text, true, now)
            }
        }
    }

    /// Hands the oldest command back to its session, to be sent to the node that has its keys.
    fn send_on(&self, redirect: Redirect) {
        let (owner, moved) = {
            let state = &mut *self.state.borrow_mut();
            let Awaiting { sequence, effect, since, blocks, frame, redirections, .. } =
                state.awaiting.pop_front().expect("somebody has asked");
            let mut keys = Vec::new();
            state.written.pop(effect.keys(), |key| keys.push(key.to_vec()));
            let (sequence, frame) = (sequence.expect("somebody has asked"), frame.expect("somebody has asked"));
            let moved = Moved { sequence, frame, keys, effect, since, blocks, redirections, redirect };
            (state.owner.clone(), moved)
        };
        if let Some(owner) = owner {
            if moved.blocks && owner.client().waits_no_more() {
                owner.pinned_is_spent(self);
            }
            owner.pinned_moved(self, moved);
        }
    }

    /// A reply, or a piece of one, to the oldest command.
    fn replied(&self, piece: &[u8], complete: bool, now: Time) -> Result<(), LinkError> {
        let (owner, answered, refusal) = {
            let state = &mut *self.state.borrow_mut();
            if state.awaiting.is_empty() {
                return Err(LinkError::Protocol("a reply that no command asked for".into()));
            }
            let begins = !std::mem::replace(&mut state.begun, !complete);
            let front = state.awaiting.front().expect("just looked");
            if begins {
                front.effect.apply(&mut state.written, self.worker.cache(), now);
            }
            state.is_stained |= begins && front.frees && piece.starts_with(b"-");
            if let Some(guard) = front.guard {
                if begins {
                    state.refusal = None; // of guards whose command was never sent
                }
                state.is_let_pass |= begins && !piece.starts_with(b"-");
                if guard == Guard::Last && !state.is_let_pass {
                    state.refusal.get_or_insert_default().extend_from_slice(piece);
                }
                state.is_let_pass &= !(complete && guard == Guard::Last);
            }
            let answered = Answered { sequence: front.sequence, since: front.since, blocks: front.blocks };
            // What a guard was answered takes the place of the whole reply to the command behind it.
            let is_held = state.refusal.is_some() && answered.sequence.is_some();
            let refusal = if is_held && complete { state.refusal.take() } else { None };
            if complete {
                state.awaiting.pop_front();
            } else if is_held {
                return Ok(());
            }
            (state.owner.clone(), answered, refusal)
        };
        if let (Some(owner), Some(sequence)) = (owner, answered.sequence) {
            if complete && answered.blocks && owner.client().waits_no_more() {
                owner.pinned_is_spent(self);
            }
            owner.deliver(sequence, refusal.as_deref().unwrap_or(piece), complete);
            if complete {
                // How long a client chose to wait says nothing about how fast it was served.
                let since = if answered.blocks { now } else { answered.since };
                self.worker.metrics().served_forward(now, since);
            }
        }
        if complete {
            self.tell_where_it_waits(&self.state.borrow());
        }
        Ok(())
    }
}
