//! SUBSCRIBE and its like, MONITOR, and which commands may run beside them.
//!
//! What is published, and what MONITOR shows, comes on connections of the session's own (`lanes::feed`) beside those that
//! carry its other commands.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use nearside_resp::encode;

use super::place::{self, Place};
use super::table::{Command, Flags, Route};
use super::{Call, Flow, NOAUTH, OVERLOAD, refuse, transaction, wrong_arity};
use crate::session::Session;
use crate::session::feeds;
use crate::session::state::State;
use crate::session::subscriptions::Verb;

/// What comes before the command's name, and after it.
const CONFINED: [&str; 2] =
    ["Can't execute '", "': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context"];
/// Redis marks a client that monitors as if it were a replica.
const MONITORS: &str = "ERR Replica can't interact with the keyspace";

/// Begins or ends subscriptions.
pub(super) fn run(session: &Rc<Session>, state: &mut State, call: &Call<'_>, command: &Command) -> Flow {
    let Some(verb) = Verb::named(command.name.as_bytes()) else { unreachable!("the table has no other such command") };
    if !command.arity_ok(call.request.len()) {
        return wrong_arity(state, &command.name);
    }
    if let Err(flow) = prepare(session, state, verb.begins) {
        return flow;
    }
    let names: Vec<Bytes> = match call.request.len() {
        1 => state.subscriptions.as_ref().map_or_else(Vec::new, |subscriptions| subscriptions.all(verb.kind)),
        _ => call.request.args().skip(1).map(Bytes::copy_from_slice).collect(),
    };
    feeds::subscribe(session, state, verb, names);
    Flow::Done
}

/// Nothing of the session may be in flight. What begins takes memory, and somebody who serves it, by the newest topology.
fn prepare(session: &Rc<Session>, state: &mut State, begins: bool) -> Result<Place, Flow> {
    if state.replies.open() > 0 {
        return Err(Flow::Wait);
    }
    if begins && session.worker().turns_away() {
        return Err(refuse(state, OVERLOAD));
    }
    match state.topology.is_cluster() {
        _ if !begins => Ok(Place { node: 0, slot: None }),
        true => place::of_slot(session, state, None),
        false => place::primary(session, state).map(|node| Place { node, slot: None }),
    }
}

/// Has a server show what its clients do: of a cluster one node, the one that gets this session's commands without keys.
pub(super) fn monitor(session: &Rc<Session>, state: &mut State, call: &Call<'_>, command: &Command) -> Flow {
    if !command.arity_ok(call.request.len()) {
        return wrong_arity(state, &command.name);
    }
    match prepare(session, state, true) {
        Err(flow) => flow,
        Ok(_) if state.is_monitor() => Flow::Done, // without a reply, as Redis
        Ok(place) => {
            let node = Arc::clone(&state.topology.nodes()[place.node]);
            feeds::monitor(session, state, &node);
            Flow::Done
        }
    }
}

/// What a command is answered that must not run now, in the order in which Redis looks at it. `None`: it may run.
#[cold]
pub(super) fn restricted(state: &mut State, call: &Call<'_>, command: &Command) -> Option<Flow> {
    if !state.authenticated {
        return (!command.flags.contains(Flags::NO_AUTH)).then(|| refuse(state, NOAUTH));
    }
    if !command.arity_ok(call.request.len()) {
        return Some(wrong_arity(state, &command.name));
    }
    if state.is_confined() {
        return confined(state, call, command);
    }
    let is_of_keyspace = command.flags.contains(Flags::READONLY)
        || command.flags.contains(Flags::WRITE)
        || command.runs_program()
        || (command.route == Route::Forward && command.flags.contains(Flags::PUBSUB));
    (state.is_monitor() && is_of_keyspace).then(|| transaction::doom(state, MONITORS))
}

/// Of a client of RESP2 that is subscribed to something.
fn confined(state: &mut State, call: &Call<'_>, command: &Command) -> Option<Flow> {
    match &*command.name {
        "ping" if call.request.len() <= 2 => {
            state.turn.own += 1;
            state.answer(|out, _| {
                encode::array_header(out, 2);
                encode::bulk(out, b"pong");
                encode::bulk(out, call.request.get(1).unwrap_or_default());
            });
            Some(Flow::Done)
        }
        "ping" | "quit" | "reset" => None,
        name if Verb::named(name.as_bytes()).is_some() => None,
        _ if command.is_container() && call.request.len() > 1 => None, // whoever answers it says that there is no such one
        name => {
            let code = if name == "exec" { "EXECABORT Transaction discarded because of: " } else { "ERR " };
            Some(refuse(state, [code, CONFINED[0], name, CONFINED[1]].concat()))
        }
    }
}
