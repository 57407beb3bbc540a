//! MGET, MSET, DEL, UNLINK, EXISTS and TOUCH before a cluster, when their keys are of several slots: one command for each
//! slot, since a node takes no more than one slot's keys at a time. The client gets one reply, as from one server.
//!
//! Each part is as atomic as a command is; all of them together are not, and when one fails the others have been carried
//! out: the error says so. What is atomic by its nature (MSETNX) is not divided.

use std::rc::Rc;

use bytes::Bytes;
use nearside_resp::{Request, encode};

use super::fan_out::{self, Changes, Part};
use super::join::How;
use super::table::{Command, Effect, Join};
use super::{Call, Flow, place, refuse, wrong_arity};
use crate::lanes::forward::Frame;
use crate::session::Session;
use crate::session::state::State;
use crate::topology::Slot;

/// Divides a command whose keys are of several slots.
#[cold]
pub(super) fn run(session: &Rc<Session>, state: &mut State, call: &Call<'_>, command: &Command, join: Join) -> Flow {
    if fan_out::is_full(state) {
        return Flow::Wait;
    }
    // A key, and for MSET its value.
    let step = if &*command.name == "mset" { 2 } else { 1 };
    if !(call.request.len() - 1).is_multiple_of(step) {
        return wrong_arity(state, &command.name);
    }
    let groups = by_slot(&call.request, step);
    let mut parts = Vec::with_capacity(groups.len());
    for group in &groups {
        let Some(node) = state.topology.position(group.slot) else {
            return refuse(state, place::not_served(session));
        };
        let keys = || group.keys.iter().map(|at| call.request.arg(*at as usize)).collect();
        let changes = if command.effect == Effect::Write { Changes::Keys(keys()) } else { Changes::Nothing };
        parts.push(Part { node, slot: Some(group.slot), frame: group.frame(&call.request, step), changes });
    }
    let places = match join {
        Join::Values => groups.iter().flat_map(|group| group.keys.iter().map(|at| at - 1)).collect(),
        _ => Vec::new(),
    };
    let how = How { join, places, changes: command.effect == Effect::Write, seed: state.now, each: None };
    fan_out::send(session, state, command, parts, how)
}

/// The keys of one slot, in the client's order.
pub(super) struct Group {
    pub(super) slot: Slot,
    /// The positions of the keys among the arguments.
    pub(super) keys: Vec<u32>,
}

/// The keys by slot; the slots in the order in which the client first names one of their keys.
pub(super) fn by_slot(request: &Request<'_>, step: usize) -> Vec<Group> {
    let mut keys: Vec<(Slot, u32)> =
        request.args().enumerate().skip(1).step_by(step).map(|(at, key)| (Slot::of(key), at as u32)).collect();
    keys.sort_unstable();
    let groups = keys.chunk_by(|one, other| one.0 == other.0);
    let mut groups: Vec<Group> =
        groups.map(|group| Group { slot: group[0].0, keys: group.iter().map(|(_, at)| *at).collect() }).collect();
    groups.sort_unstable_by_key(|group| group.keys[0]);
    groups
}

impl Group {
    /// The command for these keys alone.
    pub(super) fn frame(&self, request: &Request<'_>, step: usize) -> Frame<'static> {
        let arguments = self.keys.iter().flat_map(|at| (0..step).map(move |offset| *at as usize + offset));
        let mut frame = Vec::new();
        encode::array_header(&mut frame, 1 + self.keys.len() * step);
        encode::bulk(&mut frame, request.arg(0));
        arguments.for_each(|at| encode::bulk(&mut frame, request.arg(at)));
        Frame::Shared(Bytes::from(frame))
    }
}
