//! CLIENT TRACKING and what belongs to it: <https://redis.io/docs/latest/develop/reference/client-side-caching/>.
//!
//! A client that caches for itself has an upstream connection of its own: what it reads has to be seen by the server under
//! its own name, and the invalidations that come on that connection are passed on. Only before one server: in a cluster it
//! would take a connection to every node.

use std::rc::Rc;

use nearside_resp::encode;

use super::{SYNTAX_ERROR, options};
use crate::commands::pinned::{self, Outcome, Sending};
use crate::commands::place::{self, Place};
use crate::commands::table::Command;
use crate::commands::{Call, Flow};
use crate::session::Session;
use crate::session::own::Own;
use crate::session::replies::Shape;
use crate::session::state::State;

const IN_CLUSTER: &str = "ERR CLIENT TRACKING is refused before a cluster: the keys are on several servers";
const REDIRECTED: &str = "ERR CLIENT TRACKING with REDIRECT is not supported by the proxy; in RESP3 invalidations come on \
                          the connection itself";
const NOT_TRACKING: &str =
    "ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT mode enabled";

/// TRACKING, CACHING, TRACKINGINFO, GETREDIR.
pub(super) fn run(
    session: &Rc<Session>,
    state: &mut State,
    call: &Call<'_>,
    command: &Command,
    subcommand: &str,
) -> Flow {
    let tracks = matches!(&state.own, Own::Pinned(pinned) if pinned.tracks);
    match subcommand {
        "tracking" => return switch(session, state, call, command, tracks),
        _ if tracks => return pinned::submit(session, state, call, command, Sending::default()).into(),
        "caching" => state.answer_error(NOT_TRACKING),
        "trackinginfo" => not_tracking(state),
        _ => state.answer(|out, _| encode::integer(out, -1)),
    }
    Flow::Done
}

fn switch(session: &Rc<Session>, state: &mut State, call: &Call<'_>, command: &Command, tracks: bool) -> Flow {
    let on = options::on_or_off(call.request.arg(2));
    let mut options = call.request.args().skip(3);
    let redirects = options.any(|option| option.eq_ignore_ascii_case(b"redirect"));
    if on == Some(true) && state.topology.is_cluster() {
        state.answer_error(IN_CLUSTER);
        return Flow::Done;
    }
    if on == Some(true) && redirects {
        state.answer_error(REDIRECTED);
        return Flow::Done;
    }
    if state.replies.open() > 0 {
        return Flow::Wait; // commands of one session do not overtake each other on two connections
    }
    if on == Some(false) && (state.topology.is_cluster() || !tracks && call.request.len() == 3) {
        state.answer_ok();
        return Flow::Done;
    }
    if state.topology.is_cluster() {
        state.answer_error(SYNTAX_ERROR);
        return Flow::Done;
    }
    if matches!(state.own, Own::None) {
        match place::primary(session, state) {
            Ok(node) => pinned::pin(session, state, Place { node, slot: None }),
            Err(flow) => return flow,
        }
    }
    let sending = Sending { shape: Shape::Tracking(on == Some(true)), ..Sending::default() };
    let outcome = pinned::submit(session, state, call, command, sending);
    if let (Outcome::Sent, Own::Pinned(pinned)) = (outcome, &mut state.own) {
        pinned.is_spent = true;
        state.moving = true;
    }
    outcome.into()
}

/// The server has answered TRACKING.
pub(crate) fn complete(state: &mut State, on: bool, reply: Vec<u8>) -> Vec<u8> {
    state.moving = false;
    state.waiting = true; // until the reply is flushed, which lets the session go on
    if let (true, Own::Pinned(pinned)) = (reply.starts_with(b"+"), &mut state.own) {
        pinned.tracks = on;
    }
    reply
}

fn not_tracking(state: &mut State) {
    state.answer(|out, protocol| {
        encode::map_header(out, protocol, 3);
        encode::bulk(out, b"flags");
        encode::set_header(out, protocol, 1);
        encode::bulk(out, b"off");
        encode::bulk(out, b"redirect");
        encode::integer(out, -1);
        encode::bulk(out, b"prefixes");
        encode::array_header(out, 0);
    });
}
