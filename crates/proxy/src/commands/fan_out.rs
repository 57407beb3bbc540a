//! A command that goes upstream as several: all of them are sent at once, or none; their replies make one.

use std::rc::Rc;

use super::join::How;
use super::table::Command;
use super::{Flow, OVERLOAD, forward, refuse};
use crate::lanes::forward::{Errand, ForwardLane, Frame};
use crate::lanes::written::{Effect, WrittenKeys};
use crate::session::Session;
use crate::session::gather::{self, PARTS_IN_FLIGHT, Purpose};
use crate::session::replies::{Shape, Source};
use crate::session::state::State;
use crate::topology::Slot;

/// One of the commands.
pub(super) struct Part<'a> {
    /// The position of its node in the session's topology.
    pub(super) node: usize,
    /// Of its keys; `None`: it has none.
    pub(super) slot: Option<Slot>,
    pub(super) frame: Frame<'a>,
    pub(super) changes: Changes<'a>,
}

/// What a part may change.
pub(super) enum Changes<'a> {
    Nothing,
    Keys(Vec<&'a [u8]>),
    Everything,
}

/// So much of the session's is in flight that it divides no further command now. What one command adds is bounded by the
/// slots there are.
pub(super) fn is_full(state: &State) -> bool {
    state.gathers.missing() >= PARTS_IN_FLIGHT
}

/// Sends the parts, in their order. Those for one node are written there one behind the other; a lane's limits are
/// looked at before, so that the parts of one command may pass them: by the command's own length, and by one command for
/// each slot.
pub(super) fn send(
    session: &Rc<Session>,
    state: &mut State,
    command: &Command,
    parts: Vec<Part<'_>>,
    how: How,
) -> Flow {
    let lanes = match lanes(session, state, &parts) {
        Ok(lanes) => lanes,
        Err(flow) => return flow,
    };
    let worker = session.worker();
    if worker.turns_away() {
        return refuse(state, OVERLOAD);
    }
    let caching = worker.cache().is_some();
    let sequence = state.replies.expect(Source::Forward, Shape::Plain, state.reply_mode.is_silent());
    let first = state.gathers.begin(sequence, state.now, Purpose::Join(how), parts.len());
    for (number, part) in (first..).zip(parts) {
        let errand = Errand::new(session, number, state.now, part.slot, command.runs_program());
        let lane = lanes[part.node].as_ref().expect("one for each node that has a part");
        let order = &mut state.order;
        let changes = if caching { part.changes } else { Changes::Nothing };
        let sent = lane.submit(errand, part.frame, |written: &mut WrittenKeys| match changes {
            Changes::Nothing => Effect::None,
            Changes::Everything => {
                order.wrote_anything(sequence);
                Effect::Everything
            }
            Changes::Keys(keys) => {
                for key in &keys {
                    written.push(key);
                    order.wrote(sequence, key);
                }
                Effect::Keys(keys.len() as u32)
            }
        });
        if let Err(reason) = sent {
            gather::not_sent(session, state, number, &reason);
        }
    }
    Flow::Done
}

/// By node the lane to it, where a part goes there: all of them with room, and none known to be down.
fn lanes(session: &Rc<Session>, state: &mut State, parts: &[Part<'_>]) -> Result<Vec<Option<Rc<ForwardLane>>>, Flow> {
    let mut lanes: Vec<Option<Rc<ForwardLane>>> = vec![None; state.topology.nodes().len()];
    for part in parts {
        if lanes[part.node].is_some() {
            continue;
        }
        let lane = forward::lane(session, state, part.node);
        let reachable = lane.and_then(|lane| lane.down().map_or(Ok(lane), Err));
        match reachable {
            Ok(lane) if lane.has_room(session) => lanes[part.node] = Some(lane),
            Ok(_) => return Err(Flow::Wait),
            Err(reason) => {
                state.lanes.forget(part.node);
                return Err(refuse(state, super::unsent(&reason)));
            }
        }
    }
    Ok(lanes)
}
