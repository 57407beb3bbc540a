//! Commands that concern every primary of a cluster: sent to all of them, the replies joined as the table says.
//!
//! All nodes are asked, or none: while one is known to be down the command is refused. If one fails in the middle the reply
//! is its error, which says whether others have carried the command out.

use std::rc::Rc;

use nearside_resp::encode;

use super::fan_out::{self, Changes, Part};
use super::join::How;
use super::table::{Command, Effect, Flags, Join};
use super::{Call, Flow, forward, kill_script, place, refuse, shown};
use crate::lanes::forward::Frame;
use crate::lanes::written;
use crate::session::Session;
use crate::session::replies::Shape;
use crate::session::state::State;

/// Sends a command to the upstream: to all primaries, if it is a cluster.
pub(super) fn run(session: &Rc<Session>, state: &mut State, call: &Call<'_>, command: &Command, join: Join) -> Flow {
    if join == Join::OneSucceeded && command.flags.contains(Flags::ALLOW_BUSY) {
        return kill_script::run(session, state, call, command);
    }
    // One that the server refuses for its form goes anywhere.
    if !state.topology.is_cluster() || !command.arity_ok(call.request.len()) {
        return forward::run(session, state, call, command, Shape::Plain);
    }
    if join == Join::Unknown {
        let name = shown(command);
        return refuse(
            state,
            format!("ERR {name} concerns every node of the cluster, and how to join their answers is not known"),
        );
    }
    if forward::overtakes_any(state, call, command) || fan_out::is_full(state) || !place::may_go_on(session, state) {
        return Flow::Wait;
    }
    let nodes = state.topology.nodes().len();
    if nodes == 0 {
        return refuse(state, place::not_served(session));
    }
    let mut parts: Vec<Part<'_>> = (0..nodes)
        .map(|node| Part { node, slot: None, frame: call.frame(), changes: changes(call, command) })
        .collect();
    if join == Join::Random {
        let mut frame = Vec::new();
        encode::command(&mut frame, &[b"DBSIZE"]);
        let count =
            |node| Part { node, slot: None, frame: Frame::Shared(frame.clone().into()), changes: Changes::Nothing };
        parts.extend((0..nodes).map(count));
    }
    let changes = join == Join::Succeeded || !matches!(command.effect, Effect::None | Effect::Read);
    let how = How { join, places: Vec::new(), changes, seed: state.now, each: None };
    fan_out::send(session, state, command, parts, how)
}

fn changes<'a>(call: &Call<'a>, command: &Command) -> Changes<'a> {
    let mut keys = Vec::new();
    match forward::effect(call, command, |key| keys.push(key)) {
        written::Effect::None => Changes::Nothing,
        written::Effect::Keys(_) => Changes::Keys(keys),
        written::Effect::Everything | written::Effect::KeysAndOthers(_) => Changes::Everything,
    }
}
