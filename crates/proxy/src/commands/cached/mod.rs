//! Reads of one key: from the near-cache if it can be vouched for, else by a fetch that all who ask share, else upstream.
//!
//! A reply is fetched and kept in RESP3. A client of RESP2 gets it rewritten as a server would have sent it.

mod from_value;
pub(crate) mod query;
pub(crate) mod reads;

use std::rc::Rc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use nearside_nearcache::{CachedReply, Lookup, NearCache, Read, ReplyRef, Scope, Waiter};
use nearside_resp::Protocol;

pub(crate) use self::query::Query;
use self::reads::{CachedRead, Fields, GET};
use super::table::Command;
use super::{Call, Flow, forward};
use crate::output::SHARE_FROM;
use crate::session::Session;
use crate::session::replies::{Shape, Source};
use crate::session::state::State;
use crate::shared::Shared;

pub(super) const NIL_RESP3: &[u8] = b"_\r\n";
const NIL_RESP2: &[u8] = b"$-1\r\n";

/// Which of a key's cached replies to GET are for this session.
#[inline]
pub(super) fn scope_of_get(state: &State) -> Scope<'static> {
    scope(state, GET, b"")
}

#[inline]
fn scope<'a>(state: &State, command: u8, arguments: &'a [u8]) -> Scope<'a> {
    Scope { user: state.user.id(), db: state.db, command, arguments }
}

/// As [`run`], of one key by a command that may name several.
#[inline(never)]
pub(super) fn run_single(session: &Rc<Session>, state: &mut State, call: &Call<'_>, command: &Command) -> Flow {
    run(session, state, call, command)
}

/// Serves one read.
#[inline(always)] // into the one place that routes: it is the path of a hit
pub(super) fn run(session: &Rc<Session>, state: &mut State, call: &Call<'_>, command: &Command) -> Flow {
    let worker = session.worker();
    let (Some(cache), Some(number)) = (worker.cache(), command.cached) else {
        return upstream(session, state, call, command);
    };
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
    let scope = scope(state, number, call.request.behind(1));
    match cache.read(key, scope, state.now, |reply| hit(state, scope, &reply)) {
        Read::Hit(None) => Flow::Done,
        Read::Hit(Some(reply)) => answer(state, scope, reply),
        Read::TooLarge => bypass(session, state, call, command),
        Read::Miss => miss(session, state, call, command, scope),
    }
}

/// Answers from the near-cache, which is locked meanwhile; or takes the reply out, if it cannot be sent at once or takes
/// long to copy.
#[inline(always)]
fn hit(state: &mut State, scope: Scope<'_>, reply: &ReplyRef<'_>) -> Option<CachedReply> {
    state.turn.hits += 1;
    if !state.replies.is_empty() || reply.len() >= SHARE_FROM {
        return Some(reply.share());
    }
    state.answer(|out, protocol| query::append(out, protocol, scope.command, scope.arguments, reply));
    None
}

/// Answers with a reply of the near-cache, behind those that are owed.
fn answer(state: &mut State, scope: Scope<'_>, reply: CachedReply) -> Flow {
    let is_same = state.protocol == Protocol::Resp3 || CachedRead::of(scope.command).is_same(&reply);
    if is_same {
        state.answer_cached(reply);
    } else {
        state.answer(|out, protocol| query::append(out, protocol, scope.command, scope.arguments, &reply));
    }
    Flow::Done
}

/// Has the reply fetched from the node that serves the key, or waits for who fetches it already.
#[inline(never)]
fn miss(session: &Rc<Session>, state: &mut State, call: &Call<'_>, command: &Command, scope: Scope<'_>) -> Flow {
    let worker = session.worker();
    let Some(cache) = worker.cache() else { return bypass(session, state, call, command) };
    if !call.request.arg(0).eq_ignore_ascii_case(command.name.as_bytes()) {
        return bypass(session, state, call, command); // the upstream knows it by another name only
    }
    if from_value::can_tell(scope.command) && told(state, cache, call, scope.command) {
        return Flow::Done;
    }
    let key = call.request.arg(1);
    if is_never_kept(worker.shared(), scope.command) || !worker.config().cache_rules.of(key).1.caches(scope.command) {
        return bypass(session, state, call, command);
    }
    let node = worker.topology().owner(key).cloned();
    let Some(node) = node.filter(|node| worker.shared().loader_is_ready(node, &state.user, state.db)) else {
        return bypass(session, state, call, command);
    };
    let sequence = state.replies.next();
    let waiter = || Waiter { worker: worker.index() as u32, session: session.id(), sequence };
    match cache.lookup(key, scope, state.now, waiter) {
        Lookup::Hit(reply) => {
            state.turn.hits += 1;
            return answer(state, scope, reply);
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

/// Whether a reply to this command may change by itself, and nobody says when.
fn is_never_kept(shared: &Shared, command: u8) -> bool {
    CachedRead::of(command).fields == Fields::Unknown && shared.has_field_expiry.load(Ordering::Relaxed)
}

/// Answers by the value that GET has left in the near-cache. Not for a user of the upstream's ACL, who may not have the right
/// to ask what is asked here.
fn told(state: &mut State, cache: &NearCache, call: &Call<'_>, command: u8) -> bool {
    if !state.user.is_own() {
        return false;
    }
    let mut out = Vec::new();
    let found = cache.read(call.request.arg(1), scope_of_get(state), state.now, |value| {
        let is_large = value.len() >= SHARE_FROM; // what is told may be too: it is copied without the lock
        if is_large { Err(value.share()) } else { Ok(from_value::tell(&mut out, command, &call.request, &value)) }
    });
    let is_told = match found {
        Read::Hit(Ok(is_told)) => is_told,
        Read::Hit(Err(large)) => from_value::tell(&mut out, command, &call.request, &large),
        Read::TooLarge | Read::Miss => false,
    };
    if is_told {
        state.turn.hits += 1;
        state.answer(|to, _| to.extend_from_slice(&out));
    }
    is_told
}

/// A reply of GET that was fetched in RESP3, as a client of `protocol` gets it.
#[inline]
pub(crate) fn value_for(reply: &[u8], protocol: Protocol) -> &[u8] {
    if protocol == Protocol::Resp2 && reply == NIL_RESP3 { NIL_RESP2 } else { reply }
}

#[inline(never)]
fn upstream(session: &Rc<Session>, state: &mut State, call: &Call<'_>, command: &Command) -> Flow {
    forward::run(session, state, call, command, Shape::Plain)
}

/// A read that the near-cache cannot serve this time.
#[inline(never)]
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

/// The fetch that the reply `sequence` waits for has brought it.
pub(crate) fn deliver(state: &mut State, sequence: u64, query: &Query, reply: &Bytes) {
    let reply = query.reply_for(state.protocol, reply);
    state.replies.deliver_shared(sequence, reply, &mut state.output);
    state.order.fetch_answered(sequence);
}

/// The fetch that the reply `sequence` waits for brought nothing: the read goes upstream, once. From here on it is one of
/// the forward lane's commands, in order with those sent after it, and under that lane's deadline.
pub(crate) fn read_upstream(session: &Rc<Session>, state: &mut State, sequence: u64, query: &Query) {
    state.order.fetch_answered(sequence);
    session.worker().metrics().bypasses.add(1);
    if let Err(reason) = forward::read(session, state, sequence, query) {
        let line = format!("-{reason}\r\n");
        state.replies.deliver(sequence, line.as_bytes(), true, &mut state.output);
    }
}
