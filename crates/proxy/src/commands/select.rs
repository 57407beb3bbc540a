//! SELECT: the session moves to the forward lane of another db.
//!
//! Whether there is such a db only the upstream knows. A lane that is connected has had its own SELECT acknowledged, so
//! the answer is known; else SELECT itself is sent on the lane of that db, and its reply decides. So it is for users of a
//! session's own, whose right to SELECT only the upstream knows.

use std::rc::Rc;

use nearside_resp::{Request, encode};

use super::pinned::{self, Outcome, Sending};
use super::table::Command;
use super::{Call, Flow, client, place};
use crate::lanes::forward::{Errand, Frame};
use crate::lanes::written::Effect;
use crate::session::Session;
use crate::session::own::Own;
use crate::session::replies::{Shape, Source};
use crate::session::state::State;

const NO_INTEGER: &str = "ERR value is not an integer or out of range";

pub(super) fn run(session: &Rc<Session>, state: &mut State, request: &Request<'_>) -> Flow {
    if state.replies.open() > 0 {
        return Flow::Wait; // commands of one session do not overtake each other on two lanes
    }
    if state.topology.is_cluster() {
        answer_in_cluster(state, request.arg(1));
        return Flow::Done;
    }
    match parse_db(request.arg(1)) {
        Ok(db) if db == state.db && state.user.is_own() => state.answer_ok(),
        Ok(db) => match place::primary(session, state) {
            Ok(node) => move_to(session, state, db, node),
            Err(flow) => return flow,
        },
        Err(text) => state.answer_error(text),
    }
    Flow::Done
}

/// A cluster has one db; as Redis does, this looks at its number before it looks at its range.
fn answer_in_cluster(state: &mut State, text: &[u8]) {
    match client::options::integer(text) {
        Some(0) => state.answer_ok(),
        Some(_) => state.answer_error("ERR SELECT is not allowed in cluster mode"),
        None => state.answer_error(NO_INTEGER),
    }
}

pub(super) fn parse_db(text: &[u8]) -> Result<u16, &'static str> {
    let number = client::options::integer(text).ok_or(NO_INTEGER)?;
    u16::try_from(number).map_err(|_| "ERR DB index is out of range")
}

/// Of a session that has an upstream connection to itself, which moves with it and will be nobody else's.
pub(super) fn on_own_connection(session: &Rc<Session>, state: &mut State, call: &Call<'_>, command: &Command) -> Flow {
    if state.topology.is_cluster() || !command.arity_ok(call.request.len()) {
        return super::session::run(session, state, call, command);
    }
    let Ok(db) = parse_db(call.request.arg(1)) else { return super::session::run(session, state, call, command) };
    if state.replies.open() > 0 {
        return Flow::Wait;
    }
    let sending = Sending { shape: Shape::Select(db), ..Sending::default() };
    let outcome = pinned::submit(session, state, call, command, sending);
    if let (Outcome::Sent, Own::Pinned(pinned)) = (outcome, &mut state.own) {
        pinned.is_spent = true;
        state.moving = true;
    }
    outcome.into()
}

/// Where one server has everything: in a cluster there is nowhere to move to.
fn move_to(session: &Rc<Session>, state: &mut State, db: u16, node: usize) {
    let lane = match session.worker().lane(&state.topology.nodes()[node], &state.user, db, state.protocol) {
        Ok(lane) => lane,
        Err(reason) => return state.answer_error(format!("UPSTREAM {reason}; the database was not changed")),
    };
    if lane.is_up() && state.user.is_own() {
        state.set_connection(state.protocol, db);
        return state.answer_ok();
    }
    let mut frame = Vec::new();
    encode::command(&mut frame, &[b"SELECT", db.to_string().as_bytes()]);
    let sequence = state.replies.expect(Source::Forward, Shape::Select(db), state.reply_mode.is_silent());
    let errand = Errand::new(session, sequence, state.now, None, false);
    match lane.submit(errand, Frame::Borrowed(&frame), |_| Effect::None) {
        Ok(_) => state.moving = true,
        Err(reason) => super::forward::not_sent(state, node, &reason),
    }
}

/// The upstream has answered: gives the reply for the client.
pub(crate) fn complete(state: &mut State, db: u16, reply: Vec<u8>) -> Vec<u8> {
    state.moving = false;
    state.waiting = true; // until the reply is flushed, which lets the session go on
    if reply.starts_with(b"+") {
        state.set_connection(state.protocol, db);
    }
    reply
}
