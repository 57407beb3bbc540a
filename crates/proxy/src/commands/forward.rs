//! Whatever goes upstream as it came.

use std::rc::Rc;

use super::table::{Access, Command, Effect as Changes, Keys};
use super::{Call, Flow, OVERLOAD, refuse};
use crate::lanes::forward::{ForwardLane, Frame, LaneKey};
use crate::lanes::written::Effect;
use crate::session::Session;
use crate::session::order::Order;
use crate::session::replies::{Shape, Source};
use crate::session::state::State;

/// Sends the command on the session's forward lane; its reply comes back as the upstream wrote it.
#[inline]
pub(super) fn run(session: &Rc<Session>, state: &mut State, call: Call<'_>, command: &Command, shape: Shape) -> Flow {
    if state.order.any_fetch() && overtakes(&state.order, &call, command) {
        return Flow::Wait;
    }
    let lane = lane(session, state);
    if !lane.has_room(session) {
        return Flow::Wait;
    }
    if session.worker().is_overloaded() {
        session.worker().metrics().overloads.add(1);
        return refuse(state, OVERLOAD);
    }
    let caching = session.worker().cache().is_some();
    let sequence = state.replies.expect(Source::Forward, shape, state.reply_mode.is_silent());
    let order = &mut state.order;
    let sent = lane.submit(session, sequence, call.frame(), state.now, |written| {
        if !caching {
            return Effect::None;
        }
        effect(&call, command, |key| {
            written.push(key);
            order.wrote(sequence, key);
        })
    });
    match sent {
        Ok(Effect::Everything | Effect::EverythingAnd(_)) => state.order.wrote_anything(sequence),
        Ok(_) => {}
        Err(reason) => not_sent(state, &reason),
    }
    Flow::Done
}

/// The forward lane of the session's db and protocol.
pub(super) fn lane(session: &Rc<Session>, state: &mut State) -> Rc<ForwardLane> {
    let key = LaneKey { db: state.db, protocol: state.protocol };
    Rc::clone(state.lane.get_or_insert_with(|| session.worker().lane(key)))
}

/// The upstream is down. The lane may be one that has ended for good: the next command asks for it anew.
pub(super) fn not_sent(state: &mut State, reason: &str) {
    state.replies.retract();
    state.lane = None;
    state.answer_error(format!("UPSTREAM {reason}; the command was not sent"));
}

/// True if a fetch for this session, which a loader lane makes, is of a key of this command: sent now, the command might
/// be carried out before the read that came before it.
#[cold]
fn overtakes(order: &Order, call: &Call<'_>, command: &Command) -> bool {
    let mut overtakes = false;
    let keys = command.keys(&call.request, &mut |key, _| overtakes |= order.fetch_pending(key));
    let everything = keys == Keys::Unknown || matches!(command.effect, Changes::Opaque | Changes::Flush);
    overtakes || everything
}

/// What the command may change; shows `write` the keys.
#[inline]
fn effect<'a>(call: &Call<'a>, command: &Command, mut write: impl FnMut(&'a [u8])) -> Effect {
    match command.effect {
        Changes::None | Changes::Read => Effect::None,
        Changes::Opaque | Changes::Flush => Effect::Everything,
        Changes::Write | Changes::Script => {
            let mut count = 0;
            let keys = command.keys(&call.request, &mut |key, access| {
                if access == Access::Write {
                    write(key);
                    count += 1;
                }
            });
            match (keys, count) {
                // Keys that were found stay queued, and are taken from the queue as the flush passes.
                (Keys::Unknown, 0) => Effect::Everything,
                (Keys::Unknown, count) => Effect::EverythingAnd(count),
                (_, 0) => Effect::None,
                (_, count) => Effect::Keys(count),
            }
        }
    }
}

/// Sends a command of the proxy's own on the session's lane, for a reply that is already expected.
pub(super) fn send_own(session: &Rc<Session>, state: &mut State, sequence: u64, args: &[&[u8]]) -> Result<(), String> {
    let mut frame = Vec::new();
    nearside_resp::encode::command(&mut frame, args);
    let lane = lane(session, state);
    lane.submit(session, sequence, Frame::Borrowed(&frame), state.now, |_| Effect::None).map(drop)
}
