//! Commands of a session that has an upstream connection to itself.
//!
//! What the server has to see in order with WATCH, MULTI or tracking goes there; nothing of it comes from the near-cache,
//! whose answers may be older than what is watched. What belongs to another node, or to all, goes the common way, once
//! nothing is in flight: commands of one session do not overtake each other on two connections.

use std::rc::Rc;
use std::sync::Arc;

use super::place::{self, Place};
use super::table::{Command, Route};
use super::{Call, Flow, OVERLOAD, dispatch, forward, refuse, select, session, transaction, wait};
use crate::lanes::pinned::{Order, PinnedLane};
use crate::lanes::written::Effect;
use crate::session::Session;
use crate::session::own::{Own, Pinned};
use crate::session::replies::{Shape, Source};
use crate::session::state::State;

/// Runs one.
pub(super) fn run(session: &Rc<Session>, state: &mut State, call: &Call<'_>, command: &Command) -> Flow {
    match &state.own {
        Own::Unplaced(_) => transaction::queue_unplaced(session, state, call, command),
        Own::Pinned(pinned) if pinned.multi.is_some() => transaction::queue(session, state, call, command),
        Own::Pinned(pinned) if pinned.is_held() => beside(session, state, call, command),
        Own::None | Own::Pinned(_) => {
            // Only its last reply is waited for.
            if state.replies.open() > 0 {
                return Flow::Wait;
            }
            state.own.release();
            dispatch(session, state, call, command)
        }
    }
}

/// Commands of a session that watches keys, or tracks them.
fn beside(session: &Rc<Session>, state: &mut State, call: &Call<'_>, command: &Command) -> Flow {
    if must_wait(state) {
        return Flow::Wait;
    }
    match command.route {
        Route::Session if &*command.name == "select" => select::on_own_connection(session, state, call, command),
        Route::Session => session::run(session, state, call, command),
        Route::Transaction => transaction::beside(session, state, call, command),
        Route::Blocking if matches!(&*command.name, "wait" | "waitaof") && command.arity_ok(call.request.len()) => {
            if state.replies.open() > 0 {
                return Flow::Wait;
            }
            wait::run(session, state, call, command)
        }
        Route::Blocking | Route::BlockingIf | Route::Cached | Route::Forward | Route::Split(_) => {
            keyed(session, state, call, command)
        }
        _ => elsewhere(session, state, call, command),
    }
}

/// A command on its way to another node, or one that went out on another connection, has to be answered first.
fn must_wait(state: &mut State) -> bool {
    let Own::Pinned(pinned) = &mut state.own else { return false };
    pinned.is_beside &= state.replies.open() > 0;
    pinned.is_beside || pinned.lane.may_move_on() || state.order.any_redirected()
}

/// To the own connection if that leads to the node of its keys, or if any node would do.
fn keyed(session: &Rc<Session>, state: &mut State, call: &Call<'_>, command: &Command) -> Flow {
    let place = match place::of(session, state, call, command) {
        Ok(place) => place,
        Err(flow) => return flow,
    };
    if is_here(state, place) {
        let blocks = command.blocks(&call.request);
        return submit(session, state, call, command, Sending { blocks, ..Sending::default() }).into();
    }
    if !steps_beside(state) {
        return Flow::Wait;
    }
    forward::run(session, state, call, command, Shape::Plain)
}

fn elsewhere(session: &Rc<Session>, state: &mut State, call: &Call<'_>, command: &Command) -> Flow {
    if !steps_beside(state) {
        return Flow::Wait;
    }
    dispatch(session, state, call, command)
}

/// Lets the next command go another way than the own connection. False: something is in flight.
pub(super) fn steps_beside(state: &mut State) -> bool {
    if state.replies.open() > 0 {
        return false;
    }
    if let Own::Pinned(pinned) = &mut state.own {
        pinned.is_beside = true;
    }
    true
}

/// Whether the place is where the own connection leads.
pub(super) fn is_here(state: &State, place: Place) -> bool {
    let node = state.topology.nodes()[place.node].id();
    place.slot.is_none() || state.own.lane().is_some_and(|lane| lane.node().id() == node)
}

/// Gives the session a connection of its own to the place. Only when nothing is in flight.
pub(super) fn pin(session: &Rc<Session>, state: &mut State, place: Place) {
    debug_assert!(state.replies.open() == 0, "a lane is changed only when nothing is in flight");
    let node = Arc::clone(&state.topology.nodes()[place.node]);
    let lane = PinnedLane::acquire(session.worker(), &node, &state.user, (state.db, state.protocol), session);
    state.own = Own::Pinned(Box::new(Pinned::new(lane, place.slot)));
}

/// Sends a command on a connection for it alone, of a session that holds none.
pub(super) fn alone(session: &Rc<Session>, state: &mut State, call: &Call<'_>, command: &Command) -> Flow {
    if state.replies.open() > 0 {
        return Flow::Wait; // commands of one session do not overtake each other on two connections
    }
    state.own.release();
    let place = match place::of(session, state, call, command) {
        Ok(place) => place,
        Err(flow) => return flow,
    };
    pin(session, state, place);
    let sending = Sending { may_move: state.topology.is_cluster(), ..Sending::default() };
    submit(session, state, call, command, sending).into()
}

/// How a command goes out on the own connection.
#[derive(Clone, Copy)]
pub(super) struct Sending {
    pub(super) shape: Shape,
    /// It may wait at the server for as long as it likes.
    pub(super) blocks: bool,
    /// Should its keys be elsewhere, it follows them.
    pub(super) may_move: bool,
}

impl Default for Sending {
    fn default() -> Self {
        Sending { shape: Shape::Plain, blocks: false, may_move: false }
    }
}

/// What became of a command for the own connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is on its way.
    Sent,
    /// It was answered here, and the server will not hear of it.
    Refused,
    /// It has to wait for something in flight.
    Wait,
}

impl From<Outcome> for Flow {
    fn from(outcome: Outcome) -> Flow {
        if outcome == Outcome::Wait { Flow::Wait } else { Flow::Done }
    }
}

/// Sends a command on the own connection.
pub(super) fn submit(
    session: &Rc<Session>,
    state: &mut State,
    call: &Call<'_>,
    command: &Command,
    sending: Sending,
) -> Outcome {
    // What ends a transaction makes room; to begin one is what there is no room for.
    let makes_room = command.route == Route::Transaction && !matches!(&*command.name, "multi" | "watch");
    if !makes_room && session.worker().turns_away() {
        transaction::doom_own(state);
        _ = refuse(state, OVERLOAD);
        return Outcome::Refused;
    }
    let caching = session.worker().cache().is_some();
    submit_with(state, call, sending, |note| if caching { forward::effect(call, command, note) } else { Effect::None })
}

/// As [`submit`], for a command that writes what `effect` says and shows.
pub(super) fn submit_with(
    state: &mut State,
    call: &Call<'_>,
    sending: Sending,
    effect: impl FnOnce(&mut dyn FnMut(&[u8])) -> Effect,
) -> Outcome {
    let Own::Pinned(pinned) = &mut state.own else { unreachable!("the session has a connection of its own") };
    if !pinned.lane.has_room() {
        return Outcome::Wait;
    }
    let sequence = state.replies.expect(Source::Forward, sending.shape, state.reply_mode.is_silent());
    let (order, multi) = (&mut state.order, &mut pinned.multi);
    let command = Order {
        sequence: Some(sequence),
        frame: call.frame(),
        since: state.now,
        blocks: sending.blocks,
        may_move: sending.may_move,
    };
    let mut changes = Effect::None;
    let sent = pinned.lane.submit(command, |written| {
        let effect = effect(&mut |key| {
            written.push(key);
            order.wrote(sequence, key);
            multi.iter_mut().for_each(|multi| multi.writes.note(key));
        });
        multi.iter_mut().for_each(|multi| multi.writes.add(effect));
        changes = effect;
        effect
    });
    if !sent {
        state.replies.retract();
        state.answer_error("UPSTREAM the connection was lost; the command was not sent");
        return Outcome::Refused;
    }
    if changes.is_open_ended() && pinned.multi.is_none() {
        // Where the connection leads, its slot may be no more.
        forward::wrote_others(state, sequence, changes, None);
    }
    Outcome::Sent
}
