//! The replies of one read, each to the session it belongs to.

use std::rc::Rc;

use nearside_resp::{ReplyKind, ReplyScanner};

use super::redirected::{Looked, Redirected};
use super::{ForwardLane, State};
use crate::lanes::link::{self, LinkError};
use crate::net::clock;
use crate::session::{Session, gather};

impl ForwardLane {
    /// Hands each reply, or as much of it as is there, to the session it belongs to.
    pub(super) fn distribute(
        &self,
        mut bytes: &[u8],
        scanner: &mut ReplyScanner,
        touched: &mut Vec<Rc<Session>>,
        redirected: &mut Vec<Redirected>,
    ) -> Result<(), LinkError> {
        let mut state = self.state.borrow_mut();
        let now = clock::now();
        state.progress = now;
        while let Some((mut piece, complete)) = link::next_piece(scanner, &mut bytes)? {
            if scanner.kind() == Some(ReplyKind::Push) {
                continue; // asked for by nobody on this connection
            }
            let held;
            if scanner.kind() == Some(ReplyKind::Error) && state.sent.is_some() && !state.begun {
                match self.look_at_error(&mut state, piece, complete)? {
                    Looked::NotYet => continue,
                    Looked::Redirected(command) => {
                        redirected.push(command);
                        continue;
                    }
                    Looked::Ordinary(line) if line.is_empty() => {}
                    Looked::Ordinary(line) => {
                        held = line;
                        piece = &held;
                    }
                }
            }
            if !state.begun {
                self.begin_reply(&mut state)?;
            }
            if complete {
                state.begun = false;
                let Some(errand) = state.pop_front().errand else { continue };
                errand.session.deliver(errand.sequence, piece, true);
                if !gather::is_part(errand.sequence) {
                    self.worker.metrics().served_forward(now, errand.since);
                }
                if errand.session.first_touch() {
                    touched.push(errand.session);
                }
            } else if let Some(errand) = &state.awaiting.front().expect("begin_reply found one").errand {
                errand.session.deliver(errand.sequence, piece, false);
                if errand.session.first_touch() {
                    touched.push(Rc::clone(&errand.session));
                }
            }
        }
        Ok(())
    }

    /// The oldest command has been carried out: what it wrote leaves the cache before anybody hears of it.
    fn begin_reply(&self, state: &mut State) -> Result<(), LinkError> {
        let Some(front) = state.awaiting.front() else {
            return Err(LinkError::Protocol("a reply that no command asked for".into()));
        };
        let effect = front.effect;
        effect.apply(&mut state.written, self.worker.cache(), state.progress);
        state.begun = true;
        Ok(())
    }
}
