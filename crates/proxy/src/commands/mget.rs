//! MGET: each of its keys is a GET. What the near-cache has is served from there, what it lacks is fetched for all who ask,
//! and the reply is put together.
//!
//! As a whole it goes upstream when it is long, or lacks much: one command is cheaper there than a fetch for each key. Before a
//! cluster it is divided by slot then, like other commands.
//!
//! The values need not be of one moment, as MGET's of one server are; no key's is older than promised for GET.

use std::rc::Rc;
use std::sync::Arc;

use nearside_nearcache::{Lookup, NearCache, Read, Time, Waiter};
use nearside_resp::{Limits, Progress, Protocol, Request, RequestDecoder, encode};

use super::cached::Query;
use super::cached::reads::GET;
use super::join::{self, How};
use super::split::{self, Group};
use super::table::{Command, Join};
use super::{Call, Flow, cached, fan_out, forward};
use crate::output::SHARE_FROM;
use crate::session::Session;
use crate::session::gather::{self, Purpose};
use crate::session::replies::{Shape, Source};
use crate::session::state::State;
use crate::topology::Slot;
use crate::topology::Topology;

/// Keys looked up one by one: some 100 µs of a worker's time.
const MOST_KEYS: usize = 1024;
/// Of these, keys that are fetched: each costs the upstream two commands (GET, PTTL).
const MOST_MISSES: usize = 128;
/// Keys that a session waits for past which no more are fetched for an MGET: commands that follow are held against each.
const MOST_UNDER_WAY: usize = 256;
/// Bytes of the values: some milliseconds of a worker's time to put together, where those that come from upstream are passed
/// on piece by piece.
const MOST_BYTES: usize = 16 << 20;

/// Serves one MGET.
pub(super) fn run(session: &Rc<Session>, state: &mut State, call: &Call<'_>, command: &Command) -> Flow {
    let worker = session.worker();
    let Some(cache) = worker.cache() else { return upstream(session, state, call, command) };
    let keys = || call.request.args().skip(1);
    // A user of the upstream's ACL may have the right to GET and not to MGET, which is the upstream's to say. What a session has
    // written itself and was not told yet is read behind that, as GET is.
    let is_for_cache = state.user.is_own()
        && keys().len() <= MOST_KEYS
        && command.arity_ok(call.request.len())
        && !worker.is_overloaded()
        && !keys().any(|key| state.order.write_pending(key));
    if !is_for_cache {
        return bypass(session, state, call, command);
    }
    match look_up(state, cache, &call.request) {
        Cached::All(reply) => {
            state.turn.hits += keys().len() as u64;
            answer(state, reply);
            Flow::Done
        }
        Cached::Some => fetch(session, state, call, command),
        Cached::NotWorthIt => bypass(session, state, call, command),
    }
}

/// What the near-cache has of the values.
enum Cached {
    /// All of them: the reply.
    All(Vec<u8>),
    /// Some, or none: the others may be fetched.
    Some,
    /// So few, or such large ones, that it is no help.
    NotWorthIt,
}

fn look_up(state: &State, cache: &NearCache, request: &Request<'_>) -> Cached {
    let (scope, now, protocol) = (cached::scope_of_get(state), state.now, state.protocol);
    let mut reply = Vec::new();
    encode::array_header(&mut reply, request.len() - 1);
    let mut misses = 0;
    for key in request.args().skip(1) {
        let found = cache.read(key, scope, now, |value| {
            let is_large = value.len() >= SHARE_FROM;
            if !is_large {
                reply.extend_from_slice(cached::value_for(&value, protocol));
            }
            is_large.then(|| value.share())
        });
        match found {
            Read::Hit(None) => {}
            Read::Hit(Some(large)) => reply.extend_from_slice(&large),
            Read::TooLarge => return Cached::NotWorthIt,
            Read::Miss => misses += 1,
        }
        if misses > MOST_MISSES || reply.len() > MOST_BYTES {
            return Cached::NotWorthIt;
        }
    }
    if misses == 0 { Cached::All(reply) } else { Cached::Some }
}

fn answer(state: &mut State, reply: Vec<u8>) {
    if state.reply_mode.is_silent() {
        return;
    }
    if state.replies.is_empty() { state.output.append(reply) } else { state.replies.queue(reply) }
}

fn upstream(session: &Rc<Session>, state: &mut State, call: &Call<'_>, command: &Command) -> Flow {
    forward::run(session, state, call, command, Shape::Plain)
}

/// A read that the near-cache cannot serve this time.
fn bypass(session: &Rc<Session>, state: &mut State, call: &Call<'_>, command: &Command) -> Flow {
    let keys = call.request.len() - 1;
    let flow = upstream(session, state, call, command);
    if flow != Flow::Wait {
        session.worker().metrics().bypasses.add(keys as u64);
    }
    flow
}

/// Has the values fetched that the near-cache lacks.
fn fetch(session: &Rc<Session>, state: &mut State, call: &Call<'_>, command: &Command) -> Flow {
    let worker = session.worker();
    // The same for all keys: a newer one may come in between, in which nobody has one of them.
    let topology = Arc::clone(&worker.topology());
    let can_be_fetched = |key: &[u8]| {
        let node = topology.owner(key).filter(|_| worker.config().cache_rules.of(key).1.caches(GET));
        node.is_some_and(|node| worker.shared().loader_is_ready(node, &state.user, state.db))
    };
    let is_busy = fan_out::is_full(state) || state.order.fetches_under_way() >= MOST_UNDER_WAY;
    if is_busy || !call.request.args().skip(1).all(can_be_fetched) {
        return bypass(session, state, call, command);
    }
    let keys = call.request.len() - 1;
    let each = Some(call.request.frame().into());
    let how = How { join: Join::Values, places: Vec::new(), changes: false, seed: state.now, each };
    let sequence = state.replies.expect(Source::Fetch, Shape::Plain, state.reply_mode.is_silent());
    let first = state.gathers.begin(sequence, state.now, Purpose::Join(how), keys);
    for (number, key) in (first..).zip(call.request.args().skip(1)) {
        read(session, state, &topology, sequence, number, key);
    }
    Flow::Done
}

/// Reads one key, for the part `number` of the reply `sequence`.
fn read(session: &Rc<Session>, state: &mut State, topology: &Topology, sequence: u64, number: u64, key: &[u8]) {
    let worker = session.worker();
    let Some(cache) = worker.cache() else { unreachable!("it was asked before") };
    let waiter = || Waiter { worker: worker.index() as u32, session: session.id(), sequence: number };
    let scope = cached::scope_of_get(state);
    // Also of a key that is there: what follows must not overtake the whole command, should that be sent after all.
    state.order.fetches(sequence, key, state.now);
    let found = match cache.read(key, scope, state.now, |value| value.share()) {
        Read::Hit(reply) => Lookup::Hit(reply),
        Read::TooLarge | Read::Miss => cache.lookup(key, scope, state.now, waiter),
    };
    if let Lookup::Hit(reply) = found {
        state.turn.hits += 1;
        return gather::deliver_cached(session, state, number, reply);
    }
    match found {
        Lookup::Lead(ticket) => {
            let node = topology.owner(key).expect("it was asked before");
            worker.fetch(ticket, node, &state.user);
        }
        Lookup::Hit(_) | Lookup::Follow => {}
        Lookup::Bypass(_) => read_upstream(session, state, number, key),
    }
}

/// Reads a key past the near-cache, for a part of a reply.
pub(crate) fn read_upstream(session: &Rc<Session>, state: &mut State, number: u64, key: &[u8]) {
    session.worker().metrics().bypasses.add(1);
    if let Err(reason) = forward::read(session, state, number, &Query::get(key)) {
        let line = format!("-{reason}\r\n");
        gather::deliver(session, state, number, line.as_bytes(), true);
    }
}

/// The reply, made of what GET has answered for each key. `None`: one of them is an error of which MGET may know nothing.
pub(crate) fn complete(values: &[&[u8]], protocol: Protocol) -> Option<Vec<u8>> {
    let nil = cached::value_for(cached::NIL_RESP3, protocol);
    // To MGET a key of another type is none.
    let value = |value| if is_wrong_type(value) { nil } else { cached::value_for(value, protocol) };
    let ordered: Vec<&[u8]> = values.iter().map(|bytes| value(bytes)).collect();
    if let Some(ours) = ordered.iter().find(|value| value.starts_with(b"-UPSTREAM ")) {
        return Some(ours.to_vec()); // another try would not end better
    }
    (!ordered.iter().any(|value| join::is_error(value))).then(|| join::array_of(&ordered))
}

fn is_wrong_type(reply: &[u8]) -> bool {
    reply.starts_with(b"-WRONGTYPE ")
}

/// Sends the command as it came, for a reply that is already expected: the upstream's error is not the one that GET got.
pub(crate) fn send_whole(session: &Rc<Session>, sequence: u64, since: Time, frame: Box<[u8]>) {
    let session = Rc::clone(session);
    // Later in this turn: a lane may be in the middle of its replies.
    tokio::task::spawn_local(async move {
        session.while_owed(sequence, |state| send_parts(&session, state, sequence, since, &frame));
        session.worker().flush_later(&session);
    });
}

/// By the newest topology: the fetches went by that too, and what the session sends later waits for this reply.
fn send_parts(session: &Rc<Session>, state: &mut State, sequence: u64, since: Time, frame: &[u8]) {
    let mut decoder = RequestDecoder::new();
    let Ok(Progress::Request { .. }) = decoder.decode(frame, &Limits::authenticated(frame.len())) else {
        unreachable!("it was read before")
    };
    let request = decoder.request(frame);
    let is_cluster = session.worker().topology().is_cluster();
    let groups = if is_cluster {
        split::by_slot(&request, 1)
    } else {
        vec![Group { slot: Slot::of(b""), keys: (1..request.len() as u32).collect() }]
    };
    let places = groups.iter().flat_map(|group| group.keys.iter().map(|at| at - 1)).collect();
    let how = How { join: Join::Values, places, changes: false, seed: since, each: None };
    let first = state.gathers.begin(sequence, since, Purpose::Join(how), groups.len());
    for (number, group) in (first..).zip(&groups) {
        let slot = is_cluster.then_some(group.slot);
        if let Err(reason) = forward::read_as(session, state, number, slot, group.frame(&request, 1)) {
            let line = format!("-{reason}\r\n");
            gather::deliver(session, state, number, line.as_bytes(), true);
        }
    }
}
