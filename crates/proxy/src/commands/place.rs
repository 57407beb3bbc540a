//! Which node a command goes to. Before a standalone server there is one; with Sentinels there is one at a time; in a
//! cluster the slot of the keys decides.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::table::{Command, Keys, Route};
use super::{Call, Flow, client, pinned, refuse, split};
use crate::session::Session;
use crate::session::state::State;
use crate::topology::Slot;

pub(super) const CROSSSLOT: &str = "CROSSSLOT Keys in request don't hash to the same slot";
const NOT_SERVED: &str = "CLUSTERDOWN Hash slot not served";
/// What a server that is no cluster says.
pub(super) const CLUSTER_DISABLED: &str = "ERR This instance has cluster support disabled";

/// Where a command goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// The position of the node in the session's topology.
    pub(super) node: usize,
    /// The slot of its keys; `None`: any node would do.
    pub(super) slot: Option<Slot>,
}

/// Finds the place. The error: what became of the command instead.
#[inline]
pub(super) fn of(session: &Rc<Session>, state: &mut State, call: &Call<'_>, command: &Command) -> Result<Place, Flow> {
    if state.topology.is_fixed() {
        return Ok(Place { node: 0, slot: None });
    }
    if state.topology.is_cluster() {
        return in_cluster(session, state, call, command);
    }
    primary(session, state).map(|node| Place { node, slot: None })
}

/// The one server that has everything. The error: what became of the command instead.
pub(super) fn primary(session: &Rc<Session>, state: &mut State) -> Result<usize, Flow> {
    if state.topology.is_fixed() {
        return Ok(0);
    }
    if !is_up_to_date(session, state) {
        return Err(Flow::Wait);
    }
    if state.topology.nodes().is_empty() {
        return Err(refuse(state, not_served(session)));
    }
    Ok(0)
}

fn in_cluster(session: &Rc<Session>, state: &mut State, call: &Call<'_>, command: &Command) -> Result<Place, Flow> {
    match slot(call, command) {
        Ok(slot) => of_slot(session, state, slot),
        Err(_) if !may_go_on(session, state) => Err(Flow::Wait),
        Err(_) => Err(crosses(session, state, call, command)),
    }
}

/// As [`of`], in a cluster, of keys in this slot; `None`: of no keys.
pub(super) fn of_slot(session: &Rc<Session>, state: &mut State, slot: Option<Slot>) -> Result<Place, Flow> {
    if !may_go_on(session, state) {
        return Err(Flow::Wait);
    }
    let node = match slot {
        Some(slot) => state.topology.position(slot),
        None => any(session, state),
    };
    match node {
        Some(node) => Ok(Place { node, slot }),
        None => Err(refuse(state, not_served(session))),
    }
}

/// The keys are of several slots: the command is divided by slot, or refused as a node would refuse it.
#[cold]
fn crosses(session: &Rc<Session>, state: &mut State, call: &Call<'_>, command: &Command) -> Flow {
    match command.route {
        // Some of its keys may be those of commands on the session's own connection, before it and behind it.
        Route::Split(_) if state.own.lane().is_some() && !pinned::steps_beside(state) => Flow::Wait,
        Route::Split(join) => split::run(session, state, call, command, join),
        _ => refuse(state, CROSSSLOT),
    }
}

/// A command may be placed now: nothing of the session's is on its way to another node, and its topology is the newest.
#[inline]
pub(super) fn may_go_on(session: &Rc<Session>, state: &mut State) -> bool {
    !state.order.any_redirected() && is_up_to_date(session, state)
}

/// Commands of one session that are in flight keep to one topology; a newer one is taken up when there are none.
#[inline]
fn is_up_to_date(session: &Rc<Session>, state: &mut State) -> bool {
    let newest = session.worker().shared().topology_version.load(Ordering::Acquire);
    newest == state.topology.version() || take_up_topology(session, state)
}

/// Goes by the newest topology from here on, if nothing is in flight. False: something is.
#[cold]
pub(crate) fn take_up_topology(session: &Rc<Session>, state: &mut State) -> bool {
    if state.replies.open() > 0 {
        return false;
    }
    session.worker().take_up_topology(); // other workers may have heard of it already, and their clients of its writes
    state.topology = Arc::clone(&session.worker().topology());
    state.lanes.clear();
    true
}

/// The keys are of several slots.
pub(super) struct CrossSlot;

/// The slot of the command's keys, if it has any. A request that the server will refuse for its form goes anywhere.
#[inline]
pub(super) fn slot(call: &Call<'_>, command: &Command) -> Result<Option<Slot>, CrossSlot> {
    let (mut slot, mut crosses) = (None, false);
    let keys = command.keys(&call.request, &mut |key, _| {
        let this = Slot::of(key);
        crosses |= slot.is_some_and(|slot| slot != this);
        slot = Some(this);
    });
    if keys == Keys::Malformed || !command.arity_ok(call.request.len()) {
        return Ok(None);
    }
    if keys == Keys::None && command.route == Route::Cluster {
        return Ok(slot_argument(call));
    }
    if crosses { Err(CrossSlot) } else { Ok(slot) }
}

/// The slot that CLUSTER COUNTKEYSINSLOT and GETKEYSINSLOT name, if there is such a one.
#[cold]
pub(super) fn slot_argument(call: &Call<'_>) -> Option<Slot> {
    let number = client::options::integer(call.request.get(2)?)?;
    Slot::new(u16::try_from(number).ok()?)
}

/// Some node, the same for all commands of a session.
pub(super) fn any(session: &Rc<Session>, state: &mut State) -> Option<usize> {
    let count = state.topology.nodes().len();
    (count > 0).then(|| state.lanes.any(session.id(), count))
}

/// Why a slot has no place, as far as is known.
pub(crate) fn not_served(session: &Rc<Session>) -> &'static str {
    let shared = session.worker().shared();
    shared.topology_doubted.notify_one();
    let topology = shared.topology.load();
    match (topology.nodes(), topology.is_cluster()) {
        ([], true) => "UPSTREAM no node of the cluster has said yet who serves what; the command was not sent",
        ([], false) => "UPSTREAM no Sentinel has named a primary yet that says it is one; the command was not sent",
        _ => NOT_SERVED,
    }
}
