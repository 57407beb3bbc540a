//! Commands that speak of the session itself, answered here: by name, since none of them is hot but PING.

use std::rc::Rc;

use super::table::Command;
use super::{Call, Flow, auth, client, cluster_face, connection, hello, select, wrong_arity};
use crate::session::Session;
use crate::session::state::State;

/// Answers one.
pub(super) fn run(session: &Rc<Session>, state: &mut State, call: &Call<'_>, command: &Command) -> Flow {
    if !command.arity_ok(call.request.len()) {
        return wrong_arity(state, &command.name);
    }
    let request = &call.request;
    let flow = match &*command.name {
        "ping" => connection::ping(state, request),
        "echo" => connection::echo(state, request),
        "quit" => connection::quit(state),
        "reset" => connection::reset(session, state),
        "hello" => hello::run(session, state, request),
        "auth" => auth::run(session, state, request),
        "select" => select::run(session, state, request),
        "readonly" | "readwrite" | "asking" => {
            cluster_face::acknowledge(session, state);
            Flow::Done
        }
        name => match name.split_once('|') {
            Some(("client", subcommand)) => client::run(session, state, call, command, subcommand),
            _ => client::unknown_subcommand(state, request),
        },
    };
    if flow != Flow::Wait {
        state.turn.own += 1;
    }
    flow
}
