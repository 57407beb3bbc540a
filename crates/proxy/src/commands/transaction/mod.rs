//! Transactions: MULTI, EXEC, DISCARD, WATCH, UNWATCH. <https://redis.io/docs/latest/develop/using-commands/transactions/>
//!
//! A whole block in one read travels on the shared lane: nothing comes between what is written in one go (`block`). Else
//! the session gets a connection of its own, from WATCH or MULTI to the reply of EXEC, and the server answers for itself.
//!
//! In a cluster a transaction belongs to the node of its first key. What comes before that is answered here, and goes
//! ahead of it when the node is known.

mod block;
mod sent;

use std::rc::Rc;

use nearside_resp::frame::{self, Value};
use nearside_resp::{Request, encode};

pub(crate) use self::sent::SentBlock;
use super::client::pause;
use super::pinned::{self, Outcome, Sending};
use super::place::{self, CROSSSLOT, Place};
use super::table::{Command, Route};
use super::{Call, Flow, forward, refuse, select, session, shown, unknown, wrong_arity};
use crate::session::Session;
use crate::session::own::{Multi, Own, Unplaced, Writes};
use crate::session::replies::Shape;
use crate::session::state::State;
use crate::topology::Slot;

const ABORTED: &str = "EXECABORT Transaction discarded because of previous errors.";
const EXEC_ARITY: &str = "EXECABORT Transaction discarded because of: wrong number of arguments for 'exec' command";
/// Commands answered with QUEUED before a key says where; with more of them any node is as good as another.
const UNPLACED_COMMANDS: usize = 1024;
/// And their bytes.
const UNPLACED_BYTES: usize = 1 << 20;

/// Runs one, of a session that has no connection of its own.
pub(super) fn run(session: &Rc<Session>, state: &mut State, call: &Call<'_>, command: &Command) -> Flow {
    match &*command.name {
        "multi" if command.arity_ok(call.request.len()) => multi(session, state, call, command),
        "watch" if command.arity_ok(call.request.len()) => watch(session, state, call, command),
        // Nothing is queued or watched: the server has words for that, and its connection stays as it is.
        _ => forward::run(session, state, call, command, Shape::Plain),
    }
}

fn multi(session: &Rc<Session>, state: &mut State, call: &Call<'_>, command: &Command) -> Flow {
    let is_cluster = state.topology.is_cluster();
    let node = if is_cluster { Ok(0) } else { place::primary(session, state) };
    let node = match node {
        Ok(node) => node,
        Err(flow) => return flow,
    };
    if !state.is_restricted
        && let Some(flow) = block::run(session, state, call)
    {
        return flow;
    }
    if is_cluster {
        state.own = Own::Unplaced(Box::default());
        state.answer_ok();
        return Flow::Done;
    }
    if state.replies.open() > 0 {
        return Flow::Wait; // commands of one session do not overtake each other on two connections
    }
    pinned::pin(session, state, Place { node, slot: None });
    begin(session, state, call, command)
}

/// MULTI on the own connection.
fn begin(session: &Rc<Session>, state: &mut State, call: &Call<'_>, command: &Command) -> Flow {
    let outcome = pinned::submit(session, state, call, command, Sending::default());
    if let (Outcome::Sent, Own::Pinned(pinned)) = (outcome, &mut state.own) {
        pinned.multi = Some(Multi::default());
    }
    outcome.into()
}

fn watch(session: &Rc<Session>, state: &mut State, call: &Call<'_>, command: &Command) -> Flow {
    if state.replies.open() > 0 {
        return Flow::Wait;
    }
    let place = match place::of(session, state, call, command) {
        Ok(place) => place,
        Err(flow) => return flow,
    };
    pinned::pin(session, state, place);
    let sending = Sending { may_move: place.slot.is_some(), ..Sending::default() };
    let outcome = pinned::submit(session, state, call, command, sending);
    if let Own::Pinned(pinned) = &mut state.own {
        pinned.watches = outcome == Outcome::Sent;
    }
    outcome.into()
}

/// Runs one, of a session that watches keys (or tracks what it reads) and has not said MULTI.
pub(super) fn beside(session: &Rc<Session>, state: &mut State, call: &Call<'_>, command: &Command) -> Flow {
    if &*command.name == "watch" {
        match place::of(session, state, call, command) {
            Ok(place) if pinned::is_here(state, place) => {}
            Ok(_) => return refuse(state, CROSSSLOT),
            Err(flow) => return flow,
        }
    }
    if &*command.name == "multi" && command.arity_ok(call.request.len()) {
        return begin(session, state, call, command);
    }
    let outcome = pinned::submit(session, state, call, command, Sending::default());
    if let (Outcome::Sent, Own::Pinned(pinned)) = (outcome, &mut state.own) {
        match &*command.name {
            "unwatch" if command.arity_ok(call.request.len()) => {
                pinned.watches = false;
                pinned.lane.frees();
            }
            "watch" => pinned.watches = true,
            _ => {}
        }
    }
    outcome.into()
}

/// A command between MULTI and EXEC.
pub(super) fn queue(session: &Rc<Session>, state: &mut State, call: &Call<'_>, command: &Command) -> Flow {
    match (command.route, &*command.name) {
        (Route::Transaction, "exec") => exec(state, call),
        (Route::Transaction, "discard") if call.request.len() == 1 => discard(session, state, call, command),
        (Route::Transaction, "unwatch") => queue_keyed(session, state, call, command),
        (Route::Transaction, _) => pinned::submit(session, state, call, command, Sending::default()).into(),
        (Route::Session, "reset" | "quit") => session::run(session, state, call, command),
        (Route::Session, "ping" | "echo") => queue_keyed(session, state, call, command),
        (Route::Session, "select") => queue_select(session, state, call, command),
        (Route::Session, "client|caching") => queue_keyed(session, state, call, command),
        _ => match refusal(session, state, command) {
            Some(text) => doom(state, text),
            None => queue_keyed(session, state, call, command),
        },
    }
}

/// Why a command cannot be part of a transaction here. `None`: it can.
fn refusal(session: &Rc<Session>, state: &State, command: &Command) -> Option<String> {
    let is_allowed = match command.route {
        Route::Cached | Route::Forward | Route::Split(_) | Route::About | Route::Blocking | Route::BlockingIf => true,
        Route::All(_) | Route::Walk | Route::Cluster => !state.topology.is_cluster(),
        Route::Refused => super::is_allowed(session, command),
        Route::Transaction | Route::Session | Route::PubSub | Route::Monitor | Route::Replication => false,
    };
    let name = shown(command);
    match command.route {
        _ if is_allowed => None,
        Route::All(_) | Route::Walk | Route::Cluster => {
            Some(format!("ERR {name} concerns every node of the cluster: it cannot be part of a transaction"))
        }
        Route::Refused => Some(super::refusal(command)),
        _ => Some(format!("ERR {name} inside MULTI is not supported by the proxy")),
    }
}

/// Sends a command to be queued, if its keys are where the transaction is.
fn queue_keyed(session: &Rc<Session>, state: &mut State, call: &Call<'_>, command: &Command) -> Flow {
    let Own::Pinned(pinned) = &mut state.own else { unreachable!("the transaction has a place") };
    if state.topology.is_cluster() {
        match place::slot(call, command) {
            Err(_) => return doom(state, CROSSSLOT),
            Ok(Some(slot)) if *pinned.slot.get_or_insert(slot) != slot => return doom(state, CROSSSLOT),
            Ok(_) => {}
        }
    }
    let outcome = pinned::submit(session, state, call, command, Sending::default());
    if let (Outcome::Sent, Some(multi)) = (outcome, of(state)) {
        multi.commands += 1;
        multi.writes.any |= pause::may_write(command);
    }
    outcome.into()
}

fn queue_select(session: &Rc<Session>, state: &mut State, call: &Call<'_>, command: &Command) -> Flow {
    spend(state);
    let db = select::parse_db(call.request.get(1).unwrap_or_default());
    let place = of(state).map_or(0, |multi| multi.commands);
    let flow = queue_keyed(session, state, call, command);
    if let (Ok(db), Some(multi)) = (db, of(state).filter(|multi| multi.commands > place)) {
        multi.selects.push((place, db));
    }
    flow
}

fn of(state: &mut State) -> Option<&mut Multi> {
    match &mut state.own {
        Own::Pinned(pinned) => pinned.multi.as_mut(),
        Own::None | Own::Unplaced(_) => None,
    }
}

/// The connection will not be another session's.
fn spend(state: &mut State) {
    if let Own::Pinned(pinned) = &mut state.own {
        pinned.is_spent = true;
    }
}

/// Refuses a command, and with it the whole transaction.
pub(super) fn doom(state: &mut State, text: impl AsRef<[u8]>) -> Flow {
    doom_own(state);
    refuse(state, text)
}

/// EXEC will abort.
pub(super) fn doom_own(state: &mut State) {
    match &mut state.own {
        Own::Pinned(pinned) => pinned.multi.iter_mut().for_each(|multi| multi.is_doomed = true),
        Own::Unplaced(unplaced) => unplaced.is_doomed = true,
        Own::None => {}
    }
}

fn exec(state: &mut State, call: &Call<'_>) -> Flow {
    let Own::Pinned(pinned) = &mut state.own else { unreachable!("the transaction has a place") };
    let Some(multi) = pinned.multi.take() else { unreachable!("MULTI came before") };
    if multi.is_doomed {
        pinned.watches = false;
        pinned.lane.say(&[b"DISCARD"]);
        pinned.lane.frees();
        return refuse(state, ABORTED);
    }
    let shape = if multi.selects.is_empty() { Shape::Plain } else { Shape::Exec };
    let sending = Sending { shape, ..Sending::default() };
    let writes = &multi.writes;
    let outcome = pinned::submit_with(state, call, sending, |note| writes.effect(note));
    let Own::Pinned(pinned) = &mut state.own else { unreachable!("it has not been lost meanwhile") };
    if outcome == Outcome::Wait {
        pinned.multi = Some(multi);
    } else if outcome == Outcome::Sent {
        pinned.watches = false;
        state.moving = !multi.selects.is_empty();
        state.exec_selects = multi.selects;
    }
    outcome.into()
}

fn discard(session: &Rc<Session>, state: &mut State, call: &Call<'_>, command: &Command) -> Flow {
    let outcome = pinned::submit(session, state, call, command, Sending::default());
    if let (Outcome::Sent, Own::Pinned(pinned)) = (outcome, &mut state.own) {
        pinned.multi = None;
        pinned.watches = false;
        pinned.lane.frees();
    }
    outcome.into()
}

/// The reply of an EXEC with SELECTs in it: the session is where the last of them has led that the server took.
pub(crate) fn complete(state: &mut State, reply: Vec<u8>) -> Vec<u8> {
    state.moving = false;
    state.waiting = true; // until the reply is flushed, which lets the session go on
    let selects = std::mem::take(&mut state.exec_selects);
    let parsed = frame::parse(&reply);
    let replies = parsed.as_ref().ok().and_then(Value::as_items).unwrap_or_default();
    let is_taken = |at: usize| replies.get(at).is_some_and(|reply| reply.as_bytes() == Some(b"OK"));
    if let Some((_, db)) = selects.into_iter().rev().find(|(at, _)| is_taken(*at)) {
        state.set_connection(state.protocol, db);
    }
    reply
}

/// A command between MULTI and EXEC, in a cluster, of a transaction that has no place yet.
pub(super) fn queue_unplaced(session: &Rc<Session>, state: &mut State, call: &Call<'_>, command: &Command) -> Flow {
    match (command.route, &*command.name) {
        (Route::Session, "reset" | "quit") => return session::run(session, state, call, command),
        (Route::Transaction, "discard") if call.request.len() == 1 => {
            state.own = Own::None;
            state.answer_ok();
            return Flow::Done;
        }
        (Route::Transaction, "exec") if call.request.len() > 1 => return abort(state, EXEC_ARITY),
        (Route::Transaction, "exec") if is_doomed(state) => return abort(state, ABORTED),
        (Route::Transaction, "exec") => return settle(session, state, call, command, None),
        _ if std::ptr::eq(command, Command::absent()) => return doom(state, unknown::text(&call.request)),
        _ if !command.arity_ok(call.request.len()) => {
            let flow = wrong_arity(state, &command.name);
            set_doomed(state);
            return flow;
        }
        (Route::Transaction, "multi") => return refuse(state, "ERR MULTI calls can not be nested"),
        (Route::Transaction, "watch") => return refuse(state, "ERR WATCH inside MULTI is not allowed"),
        (Route::Transaction, "unwatch") => return hold(session, state, call, command),
        (Route::Session, "ping" | "echo" | "select") => return hold(session, state, call, command),
        _ => {}
    }
    if let Some(text) = refusal(session, state, command) {
        return doom(state, text);
    }
    match place::slot(call, command) {
        Err(_) => doom(state, CROSSSLOT),
        Ok(None) => hold(session, state, call, command),
        Ok(slot) => settle(session, state, call, command, slot),
    }
}

/// The transaction is over, and nothing of it was carried out.
fn abort(state: &mut State, text: &str) -> Flow {
    state.own = Own::None;
    refuse(state, text)
}

fn is_doomed(state: &State) -> bool {
    matches!(&state.own, Own::Unplaced(unplaced) if unplaced.is_doomed)
}

fn set_doomed(state: &mut State) {
    if let Own::Unplaced(unplaced) = &mut state.own {
        unplaced.is_doomed = true;
    }
}

/// Answers with QUEUED, and keeps the command until the place is known.
fn hold(session: &Rc<Session>, state: &mut State, call: &Call<'_>, command: &Command) -> Flow {
    let Own::Unplaced(unplaced) = &mut state.own else { unreachable!("it has no place") };
    let bytes: usize = unplaced.frames.iter().map(Vec::len).sum();
    if unplaced.frames.len() >= UNPLACED_COMMANDS || bytes + call.request.frame().len() > UNPLACED_BYTES {
        return settle(session, state, call, command, None);
    }
    note_writes(&mut unplaced.writes, call, command);
    unplaced.frames.push(call.request.frame().to_vec());
    state.turn.own += 1;
    state.answer(|out, _| encode::simple(out, b"QUEUED"));
    Flow::Done
}

/// The place is known: what was queued here goes ahead, and the command behind it.
fn settle(session: &Rc<Session>, state: &mut State, call: &Call<'_>, command: &Command, slot: Option<Slot>) -> Flow {
    if state.replies.open() > 0 {
        return Flow::Wait; // commands of one session do not overtake each other on two connections
    }
    let place = match place::of_slot(session, state, slot) {
        Ok(place) => place,
        Err(flow) => {
            match flow {
                Flow::Wait => {}
                // It ends the transaction, whatever it is answered.
                _ if &*command.name == "exec" => state.own = Own::None,
                _ => set_doomed(state),
            }
            return flow;
        }
    };
    let Own::Unplaced(unplaced) = std::mem::take(&mut state.own) else { unreachable!("it has no place") };
    let Unplaced { frames, writes, is_doomed } = *unplaced;
    pinned::pin(session, state, place);
    let Own::Pinned(pinned) = &mut state.own else { unreachable!("just pinned") };
    pinned.multi = Some(Multi { commands: frames.len(), writes, is_doomed, ..Multi::default() });
    pinned.is_spent = true; // some of them may change the connection
    pinned.lane.say(&[b"MULTI"]);
    frames.iter().for_each(|frame| pinned.lane.say_frame(frame));
    queue(session, state, call, command)
}

/// Whether a command may be part of a block that travels on the shared lane.
fn is_plain(command: &Command, request: &Request<'_>, is_cluster: bool) -> bool {
    match command.route {
        // One node's answer would be wrong.
        Route::All(_) | Route::Walk if is_cluster => false,
        Route::Cached | Route::Forward | Route::Split(_) | Route::All(_) | Route::Walk | Route::About => true,
        Route::Session => matches!(&*command.name, "ping" | "echo") && command.arity_ok(request.len()),
        _ => false,
    }
}

/// What a command of a block adds to what EXEC writes.
fn note_writes(writes: &mut Writes, call: &Call<'_>, command: &Command) {
    let effect = forward::effect(call, command, |key| writes.note(key));
    writes.add(effect);
    writes.any |= pause::may_write(command);
}
