//! Whatever goes upstream as it came.

use std::rc::Rc;
use std::sync::Arc;

use super::cached::Query;
use super::place;
use super::table::{Access, Command, Effect as Changes, Keys};
use super::{Call, Flow, OVERLOAD, refuse, unsent};
use crate::lanes::forward::{Errand, ForwardLane, Frame};
use crate::lanes::written::Effect;
use crate::session::Session;
use crate::session::order::Order;
use crate::session::replies::{Shape, Source};
use crate::session::state::State;
use crate::topology::{Node, Slot};

/// Keys times fetches that are compared: with more, a command waits unseen until fewer fetches are under way.
const MOST_COMPARISONS: usize = 1 << 16;

/// Sends the command on the session's forward lane to the node of its keys; its reply comes back as the upstream wrote it.
#[inline]
pub(super) fn run(session: &Rc<Session>, state: &mut State, call: &Call<'_>, command: &Command, shape: Shape) -> Flow {
    if overtakes_any(state, call, command) {
        return Flow::Wait;
    }
    let place = match place::of(session, state, call, command) {
        Ok(place) => place,
        Err(flow) => return flow,
    };
    let lane = match lane(session, state, place.node) {
        Ok(lane) => lane,
        Err(reason) => return refuse(state, unsent(&reason)),
    };
    if !lane.has_room(session) {
        return Flow::Wait;
    }
    if session.worker().turns_away() {
        return refuse(state, OVERLOAD);
    }
    let caching = session.worker().cache().is_some();
    let sequence = state.replies.expect(Source::Forward, shape, state.reply_mode.is_silent());
    let order = &mut state.order;
    let errand = Errand::new(session, sequence, state.now, place.slot, command.runs_program());
    let sent = lane.submit(errand, call.frame(), |written| {
        if !caching {
            return Effect::None;
        }
        effect(call, command, |key| {
            written.push(key);
            order.wrote(sequence, key);
        })
    });
    match sent {
        Ok(effect) if effect.is_open_ended() => wrote_others(state, sequence, effect, place.slot),
        Ok(_) => {}
        Err(reason) => not_sent(state, place.node, &reason),
    }
    Flow::Done
}

/// The command `sequence`, with keys of this slot if it has any, may change keys that it does not name. What it may change
/// nevertheless leaves the cache before its reply goes out, which waits for the upstream's invalidations if need be.
pub(super) fn wrote_others(state: &mut State, sequence: u64, effect: Effect, slot: Option<Slot>) {
    state.order.wrote_anything(sequence);
    if matches!(effect, Effect::KeysAndOthers(_)) {
        state.replies.fence_newest();
        state.fences.expect(sequence, slot, state.topology.version());
    }
}

/// The forward lane to a node, for the session's user, db and protocol.
#[inline]
pub(super) fn lane(session: &Rc<Session>, state: &mut State, node: usize) -> Result<Rc<ForwardLane>, String> {
    let State { lanes, topology, user, db, protocol, .. } = state;
    lanes.to(node, || session.worker().lane(&topology.nodes()[node], user, *db, *protocol))
}

/// Sends a command of the proxy's own, which has no keys, to a node; its reply is the client's.
pub(super) fn to_node(session: &Rc<Session>, state: &mut State, node: &Arc<Node>, args: &[&[u8]]) -> Flow {
    let lane = match session.worker().lane(node, &state.user, state.db, state.protocol) {
        Ok(lane) => lane,
        Err(reason) => return refuse(state, unsent(&reason)),
    };
    if !lane.has_room(session) {
        return Flow::Wait;
    }
    let mut frame = Vec::new();
    nearside_resp::encode::command(&mut frame, args);
    let sequence = state.replies.expect(Source::Forward, Shape::Plain, state.reply_mode.is_silent());
    let errand = Errand::new(session, sequence, state.now, None, false);
    if let Err(reason) = lane.submit(errand, Frame::Borrowed(&frame), |_| Effect::None) {
        state.replies.retract();
        state.answer_error(unsent(&reason));
    }
    Flow::Done
}

/// The node is down.
pub(super) fn not_sent(state: &mut State, node: usize, reason: &str) {
    state.replies.retract();
    state.lanes.forget(node);
    state.answer_error(unsent(reason));
}

/// The command has to wait for a fetch that the session has asked for before.
#[inline]
pub(super) fn overtakes_any(state: &State, call: &Call<'_>, command: &Command) -> bool {
    state.order.any_fetch() && overtakes(&state.order, call, command)
}

/// True if a fetch for this session, which a loader lane makes, is of a key of this command: sent now, the command might
/// be carried out before the read that came before it.
#[cold]
fn overtakes(order: &Order, call: &Call<'_>, command: &Command) -> bool {
    if order.fetches_under_way() * call.request.len() > MOST_COMPARISONS {
        return true;
    }
    let mut overtakes = false;
    let keys = command.keys(&call.request, &mut |key, _| overtakes = overtakes || order.fetch_pending(key));
    let everything = match command.effect {
        Changes::Opaque | Changes::Flush => true,
        // It may change what it has not declared: then it has its reasons, and a read before it shall not see them.
        Changes::Script => keys != Keys::Known,
        _ => keys == Keys::Unknown,
    };
    overtakes || everything
}

/// What the command may change; shows `write` the keys.
#[inline]
pub(super) fn effect<'a>(call: &Call<'a>, command: &Command, mut write: impl FnMut(&'a [u8])) -> Effect {
    match command.effect {
        Changes::None | Changes::Read => Effect::None,
        Changes::Flush => Effect::Everything,
        Changes::Write | Changes::Script | Changes::Opaque => {
            let mut count = 0;
            let keys = command.keys(&call.request, &mut |key, access| {
                if access == Access::Write {
                    write(key);
                    count += 1;
                }
            });
            match (keys, count) {
                (Keys::Unknown, count) => Effect::KeysAndOthers(count),
                (_, count) if command.effect == Changes::Opaque => Effect::KeysAndOthers(count),
                (_, 0) => Effect::None,
                (_, count) => Effect::Keys(count),
            }
        }
    }
}

/// Sends a read of one key, for a reply that is already expected, by the newest topology: the fetch that it stands in for
/// went by that too, and what the session sends later waits. The error: what to answer instead.
pub(super) fn read(session: &Rc<Session>, state: &State, sequence: u64, query: &Query) -> Result<(), String> {
    let slot = session.worker().topology().is_cluster().then(|| Slot::of(&query.key));
    let mut frame = Vec::new();
    query.encode(&mut frame);
    read_as(session, state, sequence, slot, Frame::Borrowed(&frame))
}

/// As [`read`], of the keys of one slot, by this command.
pub(super) fn read_as(
    session: &Rc<Session>,
    state: &State,
    sequence: u64,
    slot: Option<Slot>,
    frame: Frame<'_>,
) -> Result<(), String> {
    let worker = session.worker();
    let topology = worker.newest_topology();
    let node = match slot {
        None => (!topology.nodes().is_empty()).then_some(0),
        Some(slot) => topology.position(slot),
    };
    let node = node.ok_or_else(|| place::not_served(session).to_owned())?;
    let not_sent = |reason: String| unsent(&reason);
    let lane = worker.lane(&topology.nodes()[node], &state.user, state.db, state.protocol).map_err(not_sent)?;
    let errand = Errand::new(session, sequence, state.now, slot, false);
    lane.submit(errand, frame, |_| Effect::None).map(drop).map_err(not_sent)
}
