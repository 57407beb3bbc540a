//! PING, ECHO, QUIT, RESET.

use std::rc::Rc;

use nearside_resp::{Request, encode};

use super::Flow;
use crate::session::Session;
use crate::session::state::State;

pub(super) fn ping(state: &mut State, request: &Request<'_>) -> Flow {
    match request.len() {
        1 => state.answer(|out, _| encode::simple(out, b"PONG")),
        2 => state.answer(|out, _| encode::bulk(out, request.arg(1))),
        _ => state.answer_error("ERR wrong number of arguments for 'ping' command"),
    }
    Flow::Done
}

pub(super) fn echo(state: &mut State, request: &Request<'_>) -> Flow {
    state.answer(|out, _| encode::bulk(out, request.arg(1)));
    Flow::Done
}

pub(super) fn quit(state: &mut State) -> Flow {
    state.answer_ok();
    Flow::Close
}

/// Back to a new connection's state: <https://redis.io/docs/latest/commands/reset/>.
pub(super) fn reset(session: &Rc<Session>, state: &mut State) -> Flow {
    if state.replies.open() > 0 {
        return Flow::Wait; // the lane may change
    }
    state.reset(session.worker());
    state.answer(|out, _| encode::simple(out, b"RESET"));
    Flow::Done
}
