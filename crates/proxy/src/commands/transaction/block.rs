//! A whole transaction that has arrived in one read, from MULTI to EXEC: what client libraries send for a pipeline.
//!
//! On the shared lane nothing comes between commands that are written in one go, so it needs no connection of its own. Only
//! if every command in it is a plain one: a SELECT inside would change the connection for everybody after it.

use std::rc::Rc;

use nearside_resp::{Limits, Progress, Request, RequestDecoder};

use super::{Writes, effect, is_plain, note_writes};
use crate::commands::table::{Found, Route, Table};
use crate::commands::{Call, Flow, OVERLOAD, forward, refuse};
use crate::lanes::forward::{Errand, ForwardLane, Frame};
use crate::lanes::written::Effect;
use crate::session::Session;
use crate::session::replies::{Shape, Source};
use crate::session::state::State;

/// Commands that are looked at for an EXEC; a longer transaction gets a connection of its own.
const COMMANDS: usize = 512;

/// A block, behind its MULTI.
struct Block {
    /// EXEC or DISCARD is the last of them.
    commands: usize,
    /// In bytes.
    len: usize,
    writes: Writes,
    /// It ends with EXEC.
    executes: bool,
}

/// Sends the transaction that begins with `call` to `node`, which has everything, if all of it is at hand. `None`: it is not,
/// or must not travel so.
pub(super) fn run(session: &Rc<Session>, state: &mut State, call: &Call<'_>, node: usize) -> Option<Flow> {
    let block = find(&session.worker().table(), call.rest, &state.limits)?;
    if state.order.any_fetch() {
        return Some(Flow::Wait); // a read that is under way on a loader lane came before it
    }
    let lane = forward::lane(session, state, node).ok()?;
    if !lane.has_room(session) {
        return Some(Flow::Wait);
    }
    if session.worker().is_overloaded() {
        // Command by command, and none of them is carried out.
        session.worker().metrics().overloads.add(1);
        (0..=block.commands).for_each(|_| _ = refuse(state, OVERLOAD));
        return Some(Flow::DoneWith(block.len));
    }
    Some(send(session, state, call, &lane, &block))
}

/// The block in `rest`, if it is whole and plain.
fn find(table: &Table, rest: &[u8], limits: &Limits) -> Option<Block> {
    let mut decoder = RequestDecoder::new();
    let mut block = Block { commands: 0, len: 0, writes: Writes::default(), executes: false };
    while block.commands < COMMANDS {
        let rest = &rest[block.len..];
        match decoder.decode(rest, limits).ok()? {
            Progress::Request { len } => {
                block.commands += 1;
                block.len += len;
                if block.take(table, decoder.request(&rest[..len]))? {
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
    fn take(&mut self, table: &Table, request: Request<'_>) -> Option<bool> {
        let Found::Command(command) = table.find(&request) else { return None };
        if command.route == Route::Transaction {
            self.executes = &*command.name == "exec";
            return ((self.executes || &*command.name == "discard") && request.len() == 1).then_some(true);
        }
        if !is_plain(command, &request) {
            return None;
        }
        note_writes(&mut self.writes, &Call { request, owned: None, rest: &[] }, command);
        Some(false)
    }
}

/// Writes the block in one go. Its replies come one by one, as the server gives them.
fn send(session: &Rc<Session>, state: &mut State, call: &Call<'_>, lane: &ForwardLane, block: &Block) -> Flow {
    submit(session, state, lane, call.request.frame(), |_| Effect::None);
    let executes = block.executes && session.worker().cache().is_some();
    let mut decoder = RequestDecoder::new();
    let (mut at, mut left) = (0, block.commands);
    while left > 0 {
        let rest = &call.rest[at..block.len];
        match decoder.decode(rest, &state.limits) {
            Ok(Progress::Request { len }) => {
                at += len;
                left -= 1;
                let frame = decoder.request(&rest[..len]).frame();
                let ends = left == 0 && executes;
                submit(
                    session,
                    state,
                    lane,
                    frame,
                    |note| if ends { effect(&block.writes, note) } else { Effect::None },
                );
            }
            Ok(Progress::Skip { len }) => at += len,
            Ok(Progress::Incomplete { .. }) | Err(_) => unreachable!("it was looked through before"),
        }
    }
    Flow::DoneWith(block.len)
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
        Ok(Effect::Everything | Effect::EverythingAnd(_)) => state.order.wrote_anything(sequence),
        Ok(_) => {}
        Err(reason) => forward::not_sent(state, 0, &reason),
    }
}
