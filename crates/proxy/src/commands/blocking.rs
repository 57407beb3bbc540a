//! Commands that may wait at the server: BLPOP and its like, XREAD and XREADGROUP with BLOCK.
//!
//! Each has an upstream connection of its own while it waits, with no time limit but the client's. When the client hangs up,
//! that connection is closed at once: an item that was popped for nobody would be lost.

use std::rc::Rc;

use super::pinned::{self, Sending};
use super::place;
use super::table::Command;
use super::{Call, Flow, forward, wait};
use crate::session::Session;
use crate::session::replies::Shape;
use crate::session::state::State;

/// Runs one, of a session that has no connection of its own.
pub(super) fn run(session: &Rc<Session>, state: &mut State, call: &Call<'_>, command: &Command) -> Flow {
    if !command.blocks(&call.request) || !command.arity_ok(call.request.len()) {
        return forward::run(session, state, call, command, Shape::Plain);
    }
    if state.replies.open() > 0 {
        return Flow::Wait; // commands of one session do not overtake each other on two connections
    }
    if matches!(&*command.name, "wait" | "waitaof") {
        return wait::run(session, state, call, command);
    }
    let place = match place::of(session, state, call, command) {
        Ok(place) => place,
        Err(flow) => return flow,
    };
    pinned::pin(session, state, place);
    let sending = Sending { blocks: true, may_move: place.slot.is_some(), ..Sending::default() };
    pinned::submit(session, state, call, command, sending).into()
}
