//! SCRIPT KILL and FUNCTION KILL: on connections made for them.
//!
//! A server that is busy with a script reads nothing more from the connection that it came by, and that may be the lane
//! of every session of this worker: there it would wait behind the script which it is to end. Nor does a busy server take
//! the steps that make a lane.

use std::rc::Rc;
use std::sync::Arc;

use super::join::How;
use super::table::{Command, Join};
use super::{Call, Flow, forward, place, refuse};
use crate::lanes::connect;
use crate::session::Session;
use crate::session::gather::Purpose;
use crate::session::replies::{Shape, Source};
use crate::session::state::State;
use crate::topology::Node;
use crate::users::User;

/// Sends it to all primaries; one script ended is success.
pub(super) fn run(session: &Rc<Session>, state: &mut State, call: &Call<'_>, command: &Command) -> Flow {
    if !command.arity_ok(call.request.len()) {
        return forward::run(session, state, call, command, Shape::Plain);
    }
    // The session's own script comes first: as from one server, it has ended then.
    if state.replies.open() > 0 || !place::may_go_on(session, state) {
        return Flow::Wait;
    }
    let nodes = state.topology.nodes();
    if nodes.is_empty() {
        return refuse(state, place::not_served(session));
    }
    let sequence = state.replies.expect(Source::Forward, Shape::Plain, state.reply_mode.is_silent());
    let how = How { join: Join::OneSucceeded, places: Vec::new(), changes: true, seed: state.now, each: None };
    let first = state.gathers.begin(sequence, state.now, Purpose::Join(how), nodes.len());
    for (number, node) in (first..).zip(nodes) {
        let ask = ask(Rc::clone(session), number, Arc::clone(node), state.user.clone(), call.request.frame().into());
        tokio::task::spawn_local(ask);
    }
    Flow::Done
}

async fn ask(session: Rc<Session>, number: u64, node: Arc<Node>, user: User, request: Box<[u8]>) {
    let worker = session.worker();
    let reply = connect::ask_once(worker.config(), &node, &user, &request).await;
    node.counters(worker.index()).commands.add(1);
    let reply = reply.unwrap_or_else(|error| {
        format!("-UPSTREAM {} cannot be asked: {error}; the command may have been executed\r\n", node.address()).into()
    });
    session.deliver(number, &reply, true);
    worker.flush_later(&session);
}
