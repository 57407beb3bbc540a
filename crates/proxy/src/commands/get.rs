//! GET: from the near-cache if it can be vouched for, else by a fetch that all who ask share, else upstream.

use std::rc::Rc;

use bytes::Bytes;
use nearside_nearcache::{CachedReply, Lookup, Read, ReplyRef, Scope, Waiter};
use nearside_resp::Protocol;

use super::table::Command;
use super::{Call, Flow, forward};
use crate::output::SHARE_FROM;
use crate::session::Session;
use crate::session::replies::{Shape, Source};
use crate::session::state::State;

/// The number by which the near-cache knows this command's replies.
const GET: u8 = 0;

/// Which of a key's cached replies are for this session.
#[inline]
pub(super) fn scope(state: &State) -> Scope<'static> {
    Scope { user: state.user.id(), db: state.db, command: GET, arguments: b"" }
}

/// Serves one GET.
#[inline]
pub(super) fn run(session: &Rc<Session>, state: &mut State, call: &Call<'_>, command: &Command) -> Flow {
    let worker = session.worker();
    let Some(cache) = worker.cache() else { return upstream(session, state, call, command) };
    if !command.arity_ok(call.request.len()) {
        return upstream(session, state, call, command);
    }
    if worker.is_overloaded() {
        return bypass(session, state, call, command);
    }
    let key = call.request.arg(1);
    if state.order.write_pending(key) {
        // The read follows the session's own write down the forward lane, and must not be cached: it may be answered
        // while that write is still unknown to others.
        return bypass(session, state, call, command);
    }
    let scope = scope(state);
    match cache.read(key, scope, state.now, |reply| hit(state, &reply)) {
        Read::Hit(None) => Flow::Done,
        Read::Hit(Some(reply)) => answer(state, reply),
        Read::TooLarge => bypass(session, state, call, command),
        Read::Miss => miss(session, state, call, command, scope),
    }
}

/// Answers from the near-cache, which is locked meanwhile; or takes the reply out, if it cannot be sent at once or takes
/// long to copy.
#[inline]
fn hit(state: &mut State, reply: &ReplyRef<'_>) -> Option<CachedReply> {
    state.turn.hits += 1;
    if !state.replies.is_empty() || reply.len() >= SHARE_FROM {
        return Some(reply.share());
    }
    state.answer(|out, protocol| out.extend_from_slice(for_protocol(reply, protocol)));
    None
}

/// Answers with a reply of the near-cache, behind those that are owed.
fn answer(state: &mut State, reply: CachedReply) -> Flow {
    if state.replies.is_empty() || &*reply == NIL_RESP3 {
        state.answer(|out, protocol| out.extend_from_slice(for_protocol(&reply, protocol)));
    } else if !state.reply_mode.is_silent() {
        state.replies.queue_cached(reply);
    }
    Flow::Done
}

/// Has the reply fetched from the node that serves the key, or waits for who fetches it already.
fn miss(session: &Rc<Session>, state: &mut State, call: &Call<'_>, command: &Command, scope: Scope<'_>) -> Flow {
    let worker = session.worker();
    let key = call.request.arg(1);
    let node = worker.topology().owner(key).cloned();
    let ready = node.filter(|node| worker.shared().loader_is_ready(node, &state.user, state.db));
    let (Some(cache), Some(node)) = (worker.cache(), ready) else { return bypass(session, state, call, command) };
    let sequence = state.replies.next();
    let waiter = || Waiter { worker: worker.index() as u32, session: session.id(), sequence };
    match cache.lookup(key, scope, state.now, waiter) {
        Lookup::Hit(reply) => {
            state.turn.hits += 1;
            return answer(state, reply);
        }
        Lookup::Lead(ticket) => {
            expect_fetched(state, key);
            worker.fetch(ticket, &node, &state.user);
        }
        Lookup::Follow => expect_fetched(state, key),
        Lookup::Bypass(_) => return bypass(session, state, call, command),
    }
    Flow::Done
}

pub(super) const NIL_RESP3: &[u8] = b"_\r\n";
const NIL_RESP2: &[u8] = b"$-1\r\n";

/// A reply that was fetched in RESP3, as a client of `protocol` gets it.
#[inline]
pub(crate) fn for_protocol(reply: &[u8], protocol: Protocol) -> &[u8] {
    if protocol == Protocol::Resp2 && reply == NIL_RESP3 { NIL_RESP2 } else { reply }
}

/// As [`for_protocol`], without a copy.
pub(crate) fn shared_for_protocol(reply: &Bytes, protocol: Protocol) -> Bytes {
    match for_protocol(reply, protocol) {
        NIL_RESP2 => Bytes::from_static(NIL_RESP2),
        _ => reply.clone(),
    }
}

fn upstream(session: &Rc<Session>, state: &mut State, call: &Call<'_>, command: &Command) -> Flow {
    forward::run(session, state, call, command, Shape::Plain)
}

/// A read that the near-cache cannot serve this time.
fn bypass(session: &Rc<Session>, state: &mut State, call: &Call<'_>, command: &Command) -> Flow {
    let flow = upstream(session, state, call, command);
    if flow != Flow::Wait {
        session.worker().metrics().bypasses.add(1);
    }
    flow
}

fn expect_fetched(state: &mut State, key: &[u8]) {
    let sequence = state.replies.expect(Source::Fetch, Shape::Plain, state.reply_mode.is_silent());
    state.order.fetches(sequence, key, state.now);
}

/// The fetch that the reply `sequence` waits for brought nothing: the read goes upstream, once. From here on it is one of
/// the forward lane's commands, in order with those sent after it, and under that lane's deadline.
pub(crate) fn read_upstream(session: &Rc<Session>, state: &mut State, sequence: u64, key: &[u8]) {
    state.order.fetch_answered(sequence);
    session.worker().metrics().bypasses.add(1);
    if let Err(reason) = forward::read(session, state, sequence, b"GET", key) {
        let line = format!("-{reason}\r\n");
        state.replies.deliver(sequence, line.as_bytes(), true, &mut state.output);
    }
}
