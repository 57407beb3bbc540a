//! CLUSTER, as a Redis Cluster of one node answers it: the proxy, which serves every slot at the address that the client
//! reached. <https://redis.io/docs/latest/commands/cluster/>
//!
//! So a cluster client needs no node but this one, and keeps to it: the nodes upstream are none of its business. Texts and
//! the order of checks are those of Redis's `cluster.c` and `cluster_legacy.c`. What would change the cluster upstream is
//! refused before it comes here.

mod help;
mod shown;

use std::rc::Rc;

use nearside_resp::encode;

use self::shown::Shown;
use super::table::Command;
use super::{Call, Flow, client, forward, place, refuse, wrong_arity};
use crate::session::Session;
use crate::session::replies::Shape;
use crate::session::state::State;
use crate::topology::Slot;

const NO_INTEGER: &str = "ERR value is not an integer or out of range";

/// Runs a subcommand. With the face turned off before a cluster, the proxy is no cluster; before a standalone server that
/// says itself what it is.
pub(super) fn run(session: &Rc<Session>, state: &mut State, call: &Call<'_>, command: &Command) -> Flow {
    match (session.worker().config().shows_cluster(), state.topology.is_cluster()) {
        (true, _) => answer(session, state, call, command),
        (false, true) => refuse(state, place::CLUSTER_DISABLED),
        (false, false) => forward::run(session, state, call, command, Shape::Plain),
    }
}

fn answer(session: &Rc<Session>, state: &mut State, call: &Call<'_>, command: &Command) -> Flow {
    if !command.arity_ok(call.request.len()) {
        return wrong_arity(state, &command.name);
    }
    let request = &call.request;
    let face = &session.worker().shared().face;
    let shown = Shown { face, endpoint: face.endpoint(&state.client.local_address) };
    match command.name.split_once('|').map(|(_, subcommand)| subcommand) {
        Some("slots") => state.answer(|out, protocol| shown.slots(out, protocol)),
        Some("shards") => state.answer(|out, protocol| shown.shards(out, protocol)),
        Some("nodes") => state.answer(|out, protocol| encode::verbatim_text(out, protocol, shown.nodes().as_bytes())),
        Some("info") => {
            let info = shown::info(session.worker().shared().topology.load().slots_served());
            state.answer(|out, protocol| encode::verbatim_text(out, protocol, info.as_bytes()));
        }
        Some("myid") => state.answer(|out, _| encode::bulk(out, face.node.as_bytes())),
        Some("myshardid") => state.answer(|out, _| encode::bulk(out, face.shard.as_bytes())),
        Some("keyslot") => {
            let slot = Slot::of(request.arg(2));
            state.answer(|out, _| encode::integer(out, slot.number().into()));
        }
        // It is linked with nobody.
        Some("links") => state.answer(|out, _| encode::array_header(out, 0)),
        Some("replicas" | "slaves") => of_node(state, &face.node, request.arg(2), |out| encode::array_header(out, 0)),
        Some("count-failure-reports") => of_node(state, &face.node, request.arg(2), |out| encode::integer(out, 0)),
        Some("countkeysinslot" | "getkeysinslot") => return keys_in_slot(session, state, call, command),
        Some("slot-stats") => return slot_stats(session, state, call, command),
        Some("help") => help::run(state),
        _ => return client::unknown_subcommand(state, request),
    }
    state.turn.own += 1;
    Flow::Done
}

/// What is asked of a node, of which there is but one.
fn of_node(state: &mut State, ours: &str, name: &[u8], encode: impl FnOnce(&mut Vec<u8>)) {
    if name == ours.as_bytes() {
        state.answer(|out, _| encode(out));
    } else {
        state.answer_error([b"ERR Unknown node ", client::options::as_text(name)].concat());
    }
}

/// The node that serves the slot has its keys; it is asked once the arguments are known to be what Redis takes.
fn keys_in_slot(session: &Rc<Session>, state: &mut State, call: &Call<'_>, command: &Command) -> Flow {
    let number = |position| call.request.get(position).map(client::options::integer);
    let is_valid = place::slot_argument(call).is_some();
    let wrong = match (number(2), number(3)) {
        (Some(None), _) | (_, Some(None)) => Some(NO_INTEGER),
        (_, None) => (!is_valid).then_some("ERR Invalid slot"),
        (_, Some(count)) => (!is_valid || count < Some(0)).then_some("ERR Invalid slot or number of keys"),
    };
    match wrong {
        Some(text) => {
            state.turn.own += 1;
            state.answer_error(text);
            Flow::Done
        }
        None if state.topology.is_cluster() => forward::run(session, state, call, command, Shape::Plain),
        None => refuse(state, "ERR the upstream is no cluster: it does not know which keys are in a slot"),
    }
}

/// Slots of several nodes would have to be put together, in an order that only the nodes know.
fn slot_stats(session: &Rc<Session>, state: &mut State, call: &Call<'_>, command: &Command) -> Flow {
    if state.topology.is_cluster() && state.topology.nodes().len() == 1 {
        return forward::run(session, state, call, command, Shape::Plain);
    }
    refuse(state, "ERR CLUSTER SLOT-STATS is not there: it takes a cluster of one node upstream")
}

/// READONLY, READWRITE and ASKING, which a node of a cluster takes. None of them changes anything: reads go to the primary
/// that serves the slot in any case, and what ASKING is needed for the proxy does itself.
pub(super) fn acknowledge(session: &Rc<Session>, state: &mut State) {
    if session.worker().config().shows_cluster() {
        state.answer_ok();
    } else {
        state.answer_error(place::CLUSTER_DISABLED);
    }
}
