//! What a client has sent and has not been run yet.
//!
//! Mostly nothing: a session reads into its worker's scratch buffer and runs what is there. Only the beginning of an
//! unfinished request, or what a turn had no time for, is kept here.

use std::io;
use std::task::{Context, Poll};

use bytes::Bytes;
use nearside_resp::{Limits, Progress, ProtocolError, Request, RequestDecoder};

use crate::net::socket::Socket;
use crate::output::SHARE_FROM;

/// The least that one read may bring.
const READ_AT_LEAST: usize = 16 * 1024;
/// The most memory asked for ahead of the bytes: a length that is only announced costs nobody anything.
const READ_AT_MOST: usize = 4 << 20;

/// A request is shared with who sends it on if the memory that keeps alive is at most so many times its length.
const SHARED_PART: usize = 3;

/// What is next in the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// A request of this length.
    Request(usize),
    /// An empty request of this length, without a reply.
    Skip(usize),
    /// The beginning of a request.
    Incomplete,
}

/// Bytes `start..` of `buffer` are to be run.
#[derive(Default)]
pub(super) struct Input {
    decoder: RequestDecoder,
    buffer: Vec<u8>,
    start: usize,
    /// Length in all that the unfinished request at `start` is known to have at least; 0: not looked at yet.
    needed: usize,
}

/// A request's bytes, lent out while it runs.
#[derive(Debug)]
pub(super) enum Lent {
    /// In a buffer with others.
    Piece { buffer: Vec<u8>, start: usize, length: usize },
    /// By itself, large enough to be shared with a lane; `rest` came after it.
    Whole { frame: Bytes, rest: Vec<u8> },
}

impl Lent {
    /// The request.
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Lent::Piece { buffer, start, length } => &buffer[*start..*start + *length],
            Lent::Whole { frame, .. } => frame,
        }
    }

    /// What came after it, as far as that is at hand.
    pub(super) fn rest(&self) -> &[u8] {
        match self {
            Lent::Piece { buffer, start, length } => &buffer[*start + *length..],
            Lent::Whole { .. } => &[],
        }
    }

    /// The request to keep, if it is worth sharing.
    pub(super) fn shared(&self) -> Option<Bytes> {
        match self {
            Lent::Piece { .. } => None,
            Lent::Whole { frame, .. } => Some(frame.clone()),
        }
    }
}

impl Input {
    /// Nothing is kept.
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes kept.
    pub(super) fn len(&self) -> usize {
        self.buffer.len() - self.start
    }

    /// Memory held.
    pub(super) fn allocated(&self) -> usize {
        self.buffer.capacity() + self.decoder.allocated()
    }

    /// What is kept may hold a whole request.
    pub(super) fn is_ripe(&self) -> bool {
        !self.is_empty() && self.len() >= self.needed
    }

    /// What is next in `bytes`, which were never kept.
    #[inline]
    pub(super) fn next_in(&mut self, bytes: &[u8], limits: &Limits) -> Result<Taken, ProtocolError> {
        self.needed = 0;
        Ok(match self.decoder.decode(bytes, limits)? {
            Progress::Request { len } => Taken::Request(len),
            Progress::Skip { len } => Taken::Skip(len),
            Progress::Incomplete { needed } => {
                self.needed = needed;
                Taken::Incomplete
            }
        })
    }

    /// What is next in the bytes kept.
    pub(super) fn next_kept(&mut self, limits: &Limits) -> Result<Taken, ProtocolError> {
        if self.is_empty() {
            return Ok(Taken::Incomplete);
        }
        let buffer = std::mem::take(&mut self.buffer);
        let taken = self.next_in(&buffer[self.start..], limits);
        self.buffer = buffer;
        taken
    }

    /// The request that was just found, in the bytes it was found in.
    #[inline]
    pub(super) fn request<'a>(&'a self, bytes: &'a [u8]) -> Request<'a> {
        self.decoder.request(bytes)
    }

    /// Keeps a copy of bytes that were not run.
    pub(super) fn keep(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Drops bytes that were run.
    pub(super) fn consume(&mut self, length: usize) {
        self.start += length;
        if self.start == self.buffer.len() {
            self.buffer = Vec::new();
            self.start = 0;
        }
    }

    /// Lends the request of `length` bytes that was just found.
    pub(super) fn lend(&mut self, length: usize) -> Lent {
        let mut buffer = std::mem::take(&mut self.buffer);
        let start = std::mem::take(&mut self.start);
        // In an allocation of much else it would keep that, and to take it out would be to copy the rest, for each one anew.
        if length < SHARE_FROM || buffer.capacity() > SHARED_PART * length {
            return Lent::Piece { buffer, start, length };
        }
        let rest = buffer.split_off(start + length);
        Lent::Whole { frame: Bytes::from(buffer).slice(start..), rest }
    }

    /// Takes a lent request back, of which `consumed` bytes (all or none; maybe more, of what came after it) are done with.
    pub(super) fn give_back(&mut self, lent: Lent, consumed: usize) {
        match lent {
            Lent::Piece { buffer, start, .. } => {
                self.buffer = buffer;
                self.start = start;
                self.consume(consumed);
            }
            Lent::Whole { frame, rest } => {
                self.buffer = rest;
                if consumed == 0 {
                    // Without a copy of the frame, if it began its buffer and nobody else holds it.
                    let rest = std::mem::replace(&mut self.buffer, Vec::from(frame));
                    self.buffer.extend_from_slice(&rest);
                }
                self.start = 0;
            }
        }
    }

    /// Reads more behind what is kept.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>, socket: &Socket) -> Poll<io::Result<usize>> {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        let spare = self.buffer.capacity() - self.buffer.len();
        if spare < READ_AT_LEAST.min(self.needed.saturating_sub(self.buffer.len()).max(512)) {
            let missing = self.needed.saturating_sub(self.buffer.len());
            // Vec doubles by itself, so a long request costs a logarithm of copies.
            self.buffer.reserve(missing.clamp(READ_AT_LEAST, READ_AT_MOST));
        }
        socket.poll_read_spare(cx, &mut self.buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(bytes: usize) -> Input {
        Input { buffer: vec![1; bytes], ..Input::default() }
    }

    #[test]
    fn a_large_request_is_shared_and_what_came_after_it_stays() {
        let mut input = kept(SHARE_FROM * 2);
        let lent = input.lend(SHARE_FROM);
        assert!(matches!(&lent, Lent::Whole { frame, rest } if frame.len() == SHARE_FROM && rest.len() == SHARE_FROM));
        input.give_back(lent, SHARE_FROM);
        assert_eq!((input.buffer.len(), input.start), (SHARE_FROM, 0));
    }

    #[test]
    fn large_requests_of_a_long_pipeline_are_run_where_they_are() {
        let mut input = kept(SHARE_FROM * 100);
        let address = input.buffer.as_ptr();
        for _ in 0..90 {
            let lent = input.lend(SHARE_FROM);
            assert!(matches!(lent, Lent::Piece { .. }), "to share it would be to copy all the others");
            input.give_back(lent, SHARE_FROM);
        }
        assert_eq!((input.buffer.as_ptr(), input.start), (address, SHARE_FROM * 90));
    }
}
