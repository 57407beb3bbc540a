//! The replies a session owes its client, in the order of the requests.
//!
//! The common case is that nothing is owed: the answer goes straight to the output. Otherwise an answer that is ready
//! waits here behind those that are not.

use std::collections::VecDeque;

use bytes::Bytes;
use nearside_nearcache::CachedReply;

use crate::output::Output;

/// What is done with a reply before the client gets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// It is passed on byte by byte, as it arrives.
    Plain,
    /// It is collected, then held back until a fence has passed.
    Fenced,
    /// It is collected, then rewritten: INFO speaks of the proxy, and gains a section of its own where `ours` says so.
    Info { ours: bool },
    /// It is collected, then decides whether the session moves to this db.
    Select(u16),
    /// It is collected, then decides to which db the transaction's SELECTs have led.
    Exec,
    /// It is collected, then says whether the server tracks what the session reads.
    Tracking(bool),
    /// It is collected, then gets the cursor that follows this one.
    Walk,
}

/// Where a reply comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// A forward lane, in order with all others from there.
    Forward,
    /// A fetch into the near-cache, in any order.
    Fetch,
}

/// A reply that is owed.
#[derive(Debug)]
struct Slot {
    state: State,
    source: Source,
    shape: Shape,
    /// `CLIENT REPLY OFF` or `SKIP` was in force when the command came.
    silent: bool,
    /// Of the commands that were read together, this was the last one that is owed a reply.
    ends_turn: bool,
}

impl Slot {
    /// An answer that waits for nothing but its turn.
    fn ready(state: State, source: Source) -> Self {
        Slot { state, source, shape: Shape::Plain, silent: false, ends_turn: false }
    }
}

#[derive(Debug)]
enum State {
    /// Nothing has arrived that could not be passed on.
    Open,
    /// What has arrived, behind an older reply that has not.
    Held(Vec<u8>),
    /// All of it, this many bytes of `Replies::small`.
    Small { start: u32, len: u32 },
    /// All of it.
    Whole(Vec<u8>),
    /// All of it, shared with others who waited for the same fetch.
    Shared(Bytes),
    /// All of it, shared with the near-cache.
    Cached(CachedReply),
}

/// Replies up to this length that arrive before their turn are kept together, and no more of them than [`SMALL_TOTAL`]:
/// in a cluster a pipeline's replies come from several nodes, most of them too early.
const SMALL: usize = 1024;
const SMALL_TOTAL: usize = 64 * 1024;

/// A reply that was collected because of its [`Shape`] and must be looked at before it goes out.
#[derive(Debug)]
pub(crate) struct Collected {
    pub(crate) shape: Shape,
    pub(crate) reply: Vec<u8>,
    pub(crate) silent: bool,
}

/// The queue. Sequence numbers count commands from the session's first one on.
#[derive(Debug, Default)]
pub(crate) struct Replies {
    slots: VecDeque<Slot>,
    /// Sequence number of the oldest slot; of the next command, if there is none.
    front: u64,
    /// Slots whose reply has not arrived.
    open: usize,
    /// Bytes held behind older replies.
    held: usize,
    /// Short replies held behind older ones. Emptied when nothing is owed.
    small: Vec<u8>,
    /// All that is owed for what was read together has gone to the output, since somebody asked last.
    turn_done: bool,
    /// Part of the oldest reply has gone to the output, and the rest has not arrived.
    begun: bool,
    /// What the server says of its own accord, and has to wait for the end of that reply.
    pushes: Vec<u8>,
}

impl Replies {
    /// Nothing is owed: an answer may go straight to the output.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Replies owed, those that are ready among them.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Replies that have yet to arrive.
    #[inline]
    pub(crate) fn open(&self) -> usize {
        self.open
    }

    /// Bytes that wait behind older replies.
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// The sequence number that the next [`Replies::expect`] gives.
    #[inline]
    pub(crate) fn next(&self) -> u64 {
        self.front + self.slots.len() as u64
    }

    /// Whether this reply has yet to arrive.
    pub(crate) fn is_open(&self, sequence: u64) -> bool {
        self.slot(sequence).is_some_and(|slot| matches!(slot.state, State::Open | State::Held(_)))
    }

    fn slot(&self, sequence: u64) -> Option<&Slot> {
        self.slots.get(usize::try_from(sequence.checked_sub(self.front)?).ok()?)
    }

    /// A command was sent whose reply will come under the number returned.
    #[inline]
    pub(crate) fn expect(&mut self, source: Source, shape: Shape, silent: bool) -> u64 {
        let sequence = self.next();
        self.slots.push_back(Slot { state: State::Open, source, shape, silent, ends_turn: false });
        self.open += 1;
        sequence
    }

    /// Takes back the newest expectation: the command was not sent after all.
    pub(crate) fn retract(&mut self) {
        self.slots.pop_back();
        self.open -= 1;
    }

    /// The newest reply expected waits for a fence when it has arrived.
    pub(crate) fn fence_newest(&mut self) {
        if let Some(slot) = self.slots.back_mut().filter(|slot| slot.shape == Shape::Plain) {
            slot.shape = Shape::Fenced;
        }
    }

    /// Queues an answer that is ready, behind what is owed.
    pub(crate) fn queue(&mut self, reply: Vec<u8>) {
        self.held += reply.len();
        let state = State::Whole(reply);
        self.slots.push_back(Slot::ready(state, Source::Forward));
    }

    /// As [`Replies::queue`], for an answer of the near-cache.
    pub(crate) fn queue_cached(&mut self, reply: CachedReply) {
        self.held += reply.len();
        let state = State::Cached(reply);
        self.slots.push_back(Slot::ready(state, Source::Fetch));
    }

    /// A piece of a reply has arrived. Gives back the reply, if its shape asks for a look before it goes out; the
    /// caller makes of it what is to go out, and calls [`Replies::settle`].
    #[inline]
    pub(crate) fn deliver(
        &mut self,
        sequence: u64,
        piece: &[u8],
        complete: bool,
        output: &mut Output,
    ) -> (Source, Option<Collected>) {
        let index = (sequence - self.front) as usize;
        let slot = &mut self.slots[index];
        let source = slot.source;
        if index == 0 && slot.shape == Shape::Plain && matches!(slot.state, State::Open) {
            if !slot.silent {
                output.copy(piece);
            }
            if complete {
                if self.begun {
                    self.end_begun(output);
                }
                self.pop_front(output);
            } else {
                self.begun = true;
            }
            return (source, None);
        }
        if complete && self.keep_small(index, piece) {
            return (source, None);
        }
        (source, self.collect(index, piece, complete, output))
    }

    /// Something that is no reply goes out, between two of them.
    pub(crate) fn push(&mut self, frame: &[u8], output: &mut Output) {
        if self.begun {
            self.held += frame.len();
            self.pushes.extend_from_slice(frame);
        } else {
            output.copy(frame);
        }
    }

    /// As [`Replies::push`], without copying if it is worth it.
    pub(crate) fn push_long(&mut self, frame: Vec<u8>, output: &mut Output) {
        if self.begun { self.push(&frame, output) } else { output.append(frame) }
    }

    /// The oldest reply, of which a part went out before, is whole.
    #[cold]
    fn end_begun(&mut self, output: &mut Output) {
        self.begun = false;
        self.held -= self.pushes.len();
        output.append(std::mem::take(&mut self.pushes));
    }

    /// Keeps a short reply that arrived in one piece, behind older ones. False: it is none such.
    #[inline]
    fn keep_small(&mut self, index: usize, piece: &[u8]) -> bool {
        let slot = &mut self.slots[index];
        let is_small = piece.len() <= SMALL && self.small.len() + piece.len() <= SMALL_TOTAL;
        if !is_small || index == 0 || slot.silent || slot.shape != Shape::Plain || !matches!(slot.state, State::Open) {
            return false;
        }
        slot.state = State::Small { start: self.small.len() as u32, len: piece.len() as u32 };
        self.small.extend_from_slice(piece);
        self.held += piece.len();
        self.open -= 1;
        true
    }

    /// Gives memory back: the session has been idle for a while.
    pub(crate) fn shrink(&mut self) {
        if self.slots.is_empty() {
            self.small = Vec::new();
            self.slots = VecDeque::new();
        }
    }

    /// A whole reply has arrived that others may get too: it is not copied if it is large.
    pub(crate) fn deliver_shared(&mut self, sequence: u64, reply: Bytes, output: &mut Output) {
        let slot = &mut self.slots[(sequence - self.front) as usize];
        let reply = if slot.silent { Bytes::new() } else { reply };
        self.held += reply.len();
        slot.state = State::Shared(reply);
        self.open -= 1;
        self.release(output);
    }

    fn pop_front(&mut self, output: &mut Output) {
        self.open -= 1;
        self.advance();
        self.release(output);
    }

    /// The oldest reply has gone to the output.
    #[inline]
    fn advance(&mut self) {
        if let Some(slot) = self.slots.pop_front() {
            self.turn_done |= slot.ends_turn;
            self.front += 1;
        }
    }

    /// The commands that were read together have run.
    #[inline]
    pub(crate) fn end_turn(&mut self) {
        if let Some(last) = self.slots.back_mut() {
            last.ends_turn = true;
        }
    }

    /// Whether all that is owed for what was read together has gone to the output, since this was asked last.
    #[inline]
    pub(crate) fn take_turn_done(&mut self) -> bool {
        std::mem::take(&mut self.turn_done)
    }

    #[cold]
    fn collect(&mut self, index: usize, piece: &[u8], complete: bool, output: &mut Output) -> Option<Collected> {
        let slot = &mut self.slots[index];
        let mut bytes = match std::mem::replace(&mut slot.state, State::Open) {
            State::Held(bytes) => bytes,
            State::Open => Vec::new(),
            State::Small { .. } | State::Whole(_) | State::Shared(_) | State::Cached(_) => {
                unreachable!("a reply that has arrived does not arrive again")
            }
        };
        if !slot.silent || slot.shape != Shape::Plain {
            bytes.extend_from_slice(piece);
            self.held += piece.len();
        }
        if !complete {
            slot.state = State::Held(bytes);
            return None;
        }
        self.open -= 1;
        let (shape, silent) = (slot.shape, slot.silent);
        if shape == Shape::Plain {
            slot.state = State::Whole(bytes);
            self.release(output);
            return None;
        }
        // The slot stays open, in its place, until the caller has put the answer in it.
        self.held -= bytes.len();
        slot.state = State::Whole(Vec::new());
        slot.shape = Shape::Plain;
        Some(Collected { shape, reply: bytes, silent })
    }

    /// Puts the answer made of a collected reply in its place.
    pub(crate) fn settle(&mut self, sequence: u64, reply: Vec<u8>, output: &mut Output) {
        let index = (sequence - self.front) as usize;
        self.held += reply.len();
        self.slots[index].state = State::Whole(reply);
        self.release(output);
    }

    /// The answer made of a collected reply has to wait: its place is open until [`Replies::complete`].
    pub(crate) fn reopen(&mut self, sequence: u64) {
        self.slots[(sequence - self.front) as usize].state = State::Open;
        self.open += 1;
    }

    /// Bytes have arrived of a reply that is being put together elsewhere.
    pub(crate) fn hold(&mut self, bytes: usize) {
        self.held += bytes;
    }

    /// They are held no longer.
    pub(crate) fn release_held(&mut self, bytes: usize) {
        self.held -= bytes;
    }

    /// Puts a reply that was put together elsewhere in its place, which has been open for it.
    pub(crate) fn complete(&mut self, sequence: u64, reply: Vec<u8>, output: &mut Output) {
        let reply = if self.slots[(sequence - self.front) as usize].silent { Vec::new() } else { reply };
        self.open -= 1;
        self.settle(sequence, reply, output);
    }

    /// Moves all that is ready, from the oldest on, to the output; what has arrived of the first that is not, too.
    fn release(&mut self, output: &mut Output) {
        while let Some(slot) = self.slots.front_mut() {
            match std::mem::replace(&mut slot.state, State::Open) {
                State::Open => return,
                State::Held(bytes) if slot.shape == Shape::Plain => {
                    self.held -= bytes.len();
                    self.begun = true;
                    output.append(bytes);
                    return;
                }
                State::Held(bytes) => {
                    slot.state = State::Held(bytes);
                    return;
                }
                State::Small { start, len } => {
                    self.held -= len as usize;
                    output.copy(&self.small[start as usize..][..len as usize]);
                }
                State::Whole(bytes) => {
                    self.held -= bytes.len();
                    output.append(bytes);
                }
                State::Shared(reply) => {
                    self.held -= reply.len();
                    output.append(reply);
                }
                State::Cached(reply) => {
                    self.held -= reply.len();
                    output.append(reply);
                }
            }
            self.advance();
        }
        self.small.clear();
    }
}
