//! Replies that are put together: a command of the client that became several upstream has one reply, which waits until the
//! answers to all of them are there.
//!
//! The reply has one place in [`super::replies`], open meanwhile, and one number in [`super::order`]. What was sent upstream
//! for it are its *parts*. They have numbers of their own, which nothing else has: a lane, or a fetch, answers to the number
//! it was given and needs to know no more.

use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::Bytes;
use nearside_nearcache::{CachedReply, Time};

use super::state::State;
use super::{Session, fences};
use crate::commands::cached::Query;
use crate::commands::transaction::SentBlock;
use crate::commands::wait::Waiting;
use crate::commands::{self, join, mget};
use crate::net::clock;

/// Parts are numbered from here on; a session does not live to run so many commands.
const PARTS: u64 = 1 << 63;
/// Parts in flight past which a session divides no further command.
pub(crate) const PARTS_IN_FLIGHT: usize = super::IN_FLIGHT_LIMIT;

/// Whether this is the number of a part, not that of a reply.
#[inline]
pub(crate) fn is_part(sequence: u64) -> bool {
    sequence >= PARTS
}

/// The replies of one session that are being put together.
#[derive(Debug, Default)]
pub(crate) struct Gathers {
    /// By the number of the first part.
    open: BTreeMap<u64, Gather>,
    numbered: u64,
    /// Parts still to arrive, of all of them.
    missing: usize,
}

/// One reply that is being put together.
#[derive(Debug)]
pub(crate) struct Gather {
    /// The number of the reply.
    sequence: u64,
    /// When the command came.
    since: Time,
    purpose: Purpose,
    parts: Vec<Part>,
    missing: usize,
    /// Bytes of the parts that have arrived.
    held: usize,
}

/// What is made of the parts.
#[derive(Debug)]
pub(crate) enum Purpose {
    /// One reply.
    Join(join::How),
    /// The replies to a transaction, one after the other; or another try.
    Block(Box<SentBlock>),
    /// The number of replicas that have what was written; or another question.
    Wait(Box<Waiting>),
}

#[derive(Debug)]
enum Part {
    /// What has arrived of it.
    Open(Vec<u8>),
    Whole(Vec<u8>),
    /// Shared with others who waited for the same fetch.
    Shared(Bytes),
    /// Shared with the near-cache.
    Cached(CachedReply),
}

impl Gathers {
    /// Begins to put the reply `sequence` together, of so many parts. Gives the number of the first; the others follow it.
    pub(crate) fn begin(&mut self, sequence: u64, since: Time, purpose: Purpose, parts: usize) -> u64 {
        debug_assert!(parts > 0, "nobody would finish it");
        let first = PARTS + self.numbered;
        self.numbered += parts as u64;
        self.missing += parts;
        let open = (0..parts).map(|_| Part::Open(Vec::new())).collect();
        self.open.insert(first, Gather { sequence, since, purpose, parts: open, missing: parts, held: 0 });
        first
    }

    /// Parts that have yet to arrive.
    pub(crate) fn missing(&self) -> usize {
        self.missing
    }

    /// The reply `sequence` was answered without its parts: they concern nobody any more. Gives the bytes that they held.
    pub(super) fn abandon(&mut self, sequence: u64) -> usize {
        let first = self.open.iter().find(|(_, gather)| gather.sequence == sequence).map(|(first, _)| *first);
        let Some(gather) = first.and_then(|first| self.open.remove(&first)) else { return 0 };
        self.missing -= gather.missing;
        gather.held
    }

    /// When the command came that this part belongs to.
    fn since(&self, number: u64) -> Option<Time> {
        self.open.range(..=number).next_back().map(|(_, gather)| gather.since)
    }

    /// Whether this part is waited for.
    pub(crate) fn is_open(&self, number: u64) -> bool {
        let found = self.open.range(..=number).next_back();
        let part = found.and_then(|(first, gather)| gather.parts.get((number - first) as usize));
        matches!(part, Some(Part::Open(_)))
    }

    /// The gather that an open part belongs to, by the number of its first, and the part's place in it.
    fn find(&mut self, number: u64) -> Option<(u64, &mut Gather, usize)> {
        let (first, gather) = self.open.range_mut(..=number).next_back()?;
        let at = (number - first) as usize;
        matches!(gather.parts.get(at), Some(Part::Open(_))).then_some((*first, gather, at))
    }

    /// A piece of a part has arrived. Gives the gather when nothing is missing any more.
    fn add(&mut self, number: u64, piece: &[u8], complete: bool) -> Option<Gather> {
        let (_, gather, at) = self.find(number)?;
        gather.held += piece.len();
        let Part::Open(bytes) = &mut gather.parts[at] else { return None };
        bytes.extend_from_slice(piece);
        if !complete {
            return None;
        }
        let whole = std::mem::take(bytes);
        self.put(number, Part::Whole(whole))
    }

    /// All of a part is there.
    fn put(&mut self, number: u64, part: Part) -> Option<Gather> {
        let (first, gather, at) = self.find(number)?;
        gather.parts[at] = part;
        gather.missing -= 1;
        let is_last = gather.missing == 0;
        self.missing -= 1;
        if is_last { self.open.remove(&first) } else { None }
    }
}

impl Part {
    fn bytes(&self) -> &[u8] {
        match self {
            Part::Open(bytes) | Part::Whole(bytes) => bytes,
            Part::Shared(bytes) => bytes,
            Part::Cached(reply) => reply,
        }
    }
}

/// A piece of a part has arrived on a lane.
#[cold]
pub(crate) fn deliver(session: &Rc<Session>, state: &mut State, number: u64, piece: &[u8], complete: bool) {
    if complete {
        state.order.arrived(number);
    }
    if state.gathers.is_open(number) {
        state.replies.hold(piece.len());
        if let Some(gather) = state.gathers.add(number, piece, complete) {
            finish(session, state, gather);
        }
        session.check_output(state);
    }
}

/// The part cannot be sent.
#[cold]
pub(crate) fn not_sent(session: &Rc<Session>, state: &mut State, number: u64, reason: &str) {
    let line = format!("-{}\r\n", commands::unsent(reason));
    deliver(session, state, number, line.as_bytes(), true);
}

/// The lane was lost in the middle of a part: nothing of it has gone to the client, so that it can be told.
pub(super) fn fail(session: &Rc<Session>, state: &mut State, number: u64, line: &[u8]) {
    if let Some((_, gather, at)) = state.gathers.find(number) {
        let begun = gather.parts[at].bytes().len();
        gather.parts[at] = Part::Open(Vec::new());
        gather.held -= begun;
        state.replies.release_held(begun);
    }
    deliver(session, state, number, line, true);
}

/// The near-cache has the part.
pub(crate) fn deliver_cached(session: &Rc<Session>, state: &mut State, number: u64, reply: CachedReply) {
    put(session, state, number, reply.len(), Part::Cached(reply));
}

/// A fetch has brought the part, or (`None`) nothing: then it is read upstream.
#[cold]
pub(super) fn deliver_fetched(
    session: &Rc<Session>,
    state: &mut State,
    number: u64,
    reply: Option<&Bytes>,
    query: &Query,
) {
    let Some(since) = state.gathers.since(number).filter(|_| state.gathers.is_open(number)) else { return };
    let Some(reply) = reply else { return mget::read_upstream(session, state, number, &query.key) };
    let metrics = session.worker().metrics();
    metrics.served_fetch(clock::now(), since);
    let reply = query.reply_for(state.protocol, reply);
    put(session, state, number, reply.len(), Part::Shared(reply));
}

fn put(session: &Rc<Session>, state: &mut State, number: u64, len: usize, part: Part) {
    let Some((_, gather, _)) = state.gathers.find(number) else { return };
    gather.held += len;
    state.replies.hold(len);
    if let Some(gather) = state.gathers.put(number, part) {
        finish(session, state, gather);
    }
    session.check_output(state);
}

fn finish(session: &Rc<Session>, state: &mut State, gather: Gather) {
    state.replies.release_held(gather.held);
    let parts: Vec<&[u8]> = gather.parts.iter().map(Part::bytes).collect();
    let answer = match gather.purpose {
        Purpose::Join(how) => return join(session, state, how, gather.sequence, gather.since, &parts),
        Purpose::Block(block) => block.answer(session, state, gather.sequence, &parts),
        Purpose::Wait(waiting) => waiting.answer(session, state, gather.sequence, &parts),
    };
    if let Some(reply) = answer {
        complete(session, state, gather.sequence, gather.since, reply);
    }
}

fn join(session: &Rc<Session>, state: &mut State, mut how: join::How, sequence: u64, since: Time, parts: &[&[u8]]) {
    let Some(request) = how.each.take() else {
        return complete(session, state, sequence, since, how.join(parts));
    };
    match mget::complete(parts, state.protocol) {
        Some(reply) => {
            state.replies.complete(sequence, reply, &mut state.output);
            state.order.fetch_answered(sequence);
        }
        None => mget::send_whole(session, sequence, since, request),
    }
}

/// The reply is there, from upstream.
fn complete(session: &Rc<Session>, state: &mut State, sequence: u64, since: Time, reply: Vec<u8>) {
    let Some(reply) = fences::arrived(session, state, sequence, reply) else { return };
    state.replies.complete(sequence, reply, &mut state.output);
    state.order.forward_answered(sequence);
    if state.order.any_fetch() {
        state.order.fetch_answered(sequence); // of an MGET that was sent as a whole after all
    }
    session.worker().metrics().served_forward(clock::now(), since);
}
