//! Commands that may wait at the server: BLPOP and its like, XREAD and XREADGROUP with BLOCK, WAIT, WAITAOF.
//!
//! Each has an upstream connection of its own while it waits, with no time limit but the client's. When the client hangs up,
//! that connection is closed at once: an item that was popped for nobody would be lost.

use std::rc::Rc;

use super::pinned::{self, Sending};
use super::place::{self, Place};
use super::table::Command;
use super::{Call, Flow, forward, refuse};
use crate::session::Session;
use crate::session::replies::Shape;
use crate::session::state::State;

/// Runs one, of a session that has no connection of its own.
pub(super) fn run(session: &Rc<Session>, state: &mut State, call: Call<'_>, command: &Command) -> Flow {
    if !command.blocks(&call.request) || !command.arity_ok(call.request.len()) {
        return forward::run(session, state, call, command, Shape::Plain);
    }
    if state.replies.open() > 0 {
        return Flow::Wait; // commands of one session do not overtake each other on two connections
    }
    let place = match place::of(session, state, &call, command) {
        Ok(place) => place,
        Err(flow) => return flow,
    };
    if matches!(&*command.name, "wait" | "waitaof") {
        return wait(session, state, &call, command, place);
    }
    pinned::pin(session, state, place);
    let sending = Sending { blocks: true, may_move: place.slot.is_some(), ..Sending::default() };
    pinned::submit(session, state, &call, command, sending).into()
}

/// WAIT speaks of what was written before on the same connection, and a new one has written nothing. So a publication to
/// nobody goes ahead of it there: it is replicated, and its place in the stream is behind everything that was written
/// before. A sharded one disturbs no pattern.
fn wait(session: &Rc<Session>, state: &mut State, call: &Call<'_>, command: &Command, place: Place) -> Flow {
    if state.topology.is_cluster() {
        return refuse(
            state,
            "ERR WAIT before a cluster is not supported by the proxy: what was written is on several servers",
        );
    }
    let version = session.worker().shared().upstream_version.load();
    let is_sharded = version.split('.').next().and_then(|major| major.parse().ok()).is_none_or(|major: u32| major >= 7);
    pinned::pin(session, state, place);
    if let Some(lane) = state.own.lane() {
        let publish: &[u8] = if is_sharded { b"SPUBLISH" } else { b"PUBLISH" };
        lane.say_first(&[publish, b"", b""]);
    }
    pinned::submit(session, state, call, command, Sending { blocks: true, ..Sending::default() }).into()
}
