//! A whole transaction that has arrived in one read, from MULTI to EXEC: what client libraries send for a pipeline.
//!
//! On the shared lane nothing comes between commands that are written in one go, so it needs no connection of its own. Only
//! if every command in it is a plain one: a SELECT inside would change the connection for everybody after it.

use std::rc::Rc;
use std::sync::Arc;

use nearside_resp::{Limits, Progress, Request, RequestDecoder};

use super::{SentBlock, Writes, is_plain, note_writes};
use crate::commands::table::{Found, Route, Table};
use crate::commands::{Call, Flow, OVERLOAD, fan_out, forward, place, refuse};
use crate::lanes::forward::{Errand, ForwardLane, Frame};
use crate::lanes::written::Effect;
use crate::session::Session;
use crate::session::replies::{Shape, Source};
use crate::session::state::State;
use crate::topology::{Node, Slot};

/// Commands that are looked at for an EXEC; a longer transaction gets a connection of its own.
const COMMANDS: usize = 512;

/// A block, behind its MULTI.
struct Block {
    /// EXEC is the last of them.
    commands: usize,
    /// In bytes.
    len: usize,
    writes: Writes,
    /// The slot of its keys, in a cluster.
    slot: Option<Slot>,
}

/// Sends the transaction that begins with `call`, if all of it is at hand. `None`: it is not, or must not travel so.
pub(super) fn run(session: &Rc<Session>, state: &mut State, call: &Call<'_>) -> Option<Flow> {
    if session.worker().is_paused() {
        return None; // EXEC may have to wait
    }
    let is_cluster = state.topology.is_cluster();
    let block = find(&session.worker().table(), call.rest, &state.limits, is_cluster)?;
    if state.order.any_fetch() || is_cluster && (fan_out::is_full(state) || !place::may_go_on(session, state)) {
        return Some(Flow::Wait); // a read that is under way on a loader lane came before it
    }
    let node = match block.slot {
        Some(slot) => state.topology.position(slot)?,
        None if is_cluster => place::any(session, state)?,
        None => 0,
    };
    let lane = forward::lane(session, state, node).ok()?;
    if is_cluster && block.slot.is_none() && lane.down().is_some() {
        state.lanes.forget(node); // command by command, it goes to another one
        return None;
    }
    if !lane.has_room(session) {
        return Some(Flow::Wait);
    }
    if session.worker().turns_away() {
        // Command by command, and none of them is carried out.
        for _ in 0..=block.commands {
            _ = refuse(state, OVERLOAD);
            state.reply_mode.command_done();
        }
        return Some(Flow::DoneWith(block.len));
    }
    if !is_cluster {
        return Some(send(session, state, call, &lane, &block));
    }
    if state.reply_mode.is_silent() {
        return None; // of the replies to one transaction, which are kept together, it would concern the first alone
    }
    let node = Arc::clone(&state.topology.nodes()[node]);
    Some(send_in_cluster(session, state, call, node, block))
}

/// The block in `rest`, if it is whole and plain.
fn find(table: &Table, rest: &[u8], limits: &Limits, is_cluster: bool) -> Option<Block> {
    let mut decoder = RequestDecoder::new();
    let mut block = Block { commands: 0, len: 0, writes: Writes::default(), slot: None };
    while block.commands < COMMANDS {
        let rest = &rest[block.len..];
        match decoder.decode(rest, limits).ok()? {
            Progress::Request { len } => {
                block.commands += 1;
                block.len += len;
                if block.take(table, decoder.request(&rest[..len]), is_cluster)? {
                    return Some(block);
                }
            }
            // Nothing to be answered: it belongs to the command before it.
            Progress::Skip { len } => block.len += len,
            Progress::Incomplete { .. } => return None,
        }
    }
    None
}

impl Block {
    /// Looks at the next command; true if it is the last. `None`: it must not travel with others.
    fn take(&mut self, table: &Table, request: Request<'_>, is_cluster: bool) -> Option<bool> {
        let Found::Command(command) = table.find(&request) else { return None };
        if command.route == Route::Transaction {
            // DISCARD may be refused, by ACL, and leaves the connection as MULTI has made it: that must not be a shared one.
            return (&*command.name == "exec" && request.len() == 1).then_some(true);
        }
        if !is_plain(command, &request, is_cluster) {
            return None;
        }
        let call = Call { request, owned: None, rest: &[] };
        if let (true, Some(slot)) = (is_cluster, place::slot(&call, command).ok()?)
            && *self.slot.get_or_insert(slot) != slot
        {
            return None;
        }
        note_writes(&mut self.writes, &call, command);
        Some(false)
    }
}

/// Writes the block in one go. Its replies come one by one, as the server gives them.
fn send(session: &Rc<Session>, state: &mut State, call: &Call<'_>, lane: &ForwardLane, block: &Block) -> Flow {
    let caching = session.worker().cache().is_some();
    let table = Arc::clone(&session.worker().table());
    let limits = state.limits;
    submit(session, state, lane, call.request.frame(), |_| Effect::None);
    let mut left = block.commands;
    visit(call.rest, &limits, block, |request| {
        left -= 1;
        submit(session, state, lane, request.frame(), |note| match table.find(&request) {
            _ if !caching => Effect::None,
            _ if left == 0 => block.writes.effect(note),
            // Should the server have refused MULTI, it is carried out by itself.
            Found::Command(command) => forward::effect(&Call { request, owned: None, rest: &[] }, command, note),
            Found::UnknownCommand | Found::UnknownSubcommand(_) => Effect::None,
        });
    });
    Flow::DoneWith(block.len)
}

/// The same in a cluster, where it may have to go to another node: its replies come together.
fn send_in_cluster(session: &Rc<Session>, state: &mut State, call: &Call<'_>, node: Arc<Node>, block: Block) -> Flow {
    let mut frames = vec![call.request.frame().to_vec()];
    visit(call.rest, &state.limits, &block, |request| frames.push(request.frame().to_vec()));
    let Block { len, mut writes, slot, .. } = block;
    if session.worker().cache().is_none() {
        writes = Writes::default();
    }
    let sequence = state.replies.expect(Source::Forward, Shape::Plain, false);
    let effect = writes.effect(|key| state.order.wrote(sequence, key));
    if effect.is_open_ended() {
        forward::wrote_others(state, sequence, effect, slot);
    }
    SentBlock { frames, writes, node, tries: 0 }.send(session, state, sequence, false);
    Flow::DoneWith(len)
}

/// Shows each command of the block, as it is to be sent.
fn visit(rest: &[u8], limits: &Limits, block: &Block, mut show: impl FnMut(Request<'_>)) {
    let mut decoder = RequestDecoder::new();
    let (mut at, mut left) = (0, block.commands);
    while left > 0 {
        let rest = &rest[at..block.len];
        match decoder.decode(rest, limits) {
            Ok(Progress::Request { len }) => {
                at += len;
                left -= 1;
                show(decoder.request(&rest[..len]));
            }
            Ok(Progress::Skip { len }) => at += len,
            Ok(Progress::Incomplete { .. }) | Err(_) => unreachable!("it was looked through before"),
        }
    }
}

fn submit(
    session: &Rc<Session>,
    state: &mut State,
    lane: &ForwardLane,
    frame: &[u8],
    effect: impl FnOnce(&mut dyn FnMut(&[u8])) -> Effect,
) {
    let sequence = state.replies.expect(Source::Forward, Shape::Plain, state.reply_mode.is_silent());
    state.reply_mode.command_done();
    let order = &mut state.order;
    let errand = Errand::new(session, sequence, state.now, None, false);
    let sent = lane.submit(errand, Frame::Borrowed(frame), |written| {
        effect(&mut |key| {
            written.push(key);
            order.wrote(sequence, key);
        })
    });
    match sent {
        Ok(effect) if effect.is_open_ended() => forward::wrote_others(state, sequence, effect, None),
        Ok(_) => {}
        Err(reason) => forward::not_sent(state, 0, &reason),
    }
}
