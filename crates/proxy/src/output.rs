//! Bytes on their way out: small ones are copied together, large ones are shared, all leave in as few writes as possible.

pub(crate) mod chunks;

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::ops::Deref;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use nearside_nearcache::CachedReply;

use self::chunks::CHUNK;
use crate::net::socket::Socket;

/// From here on a piece is handed over by reference count instead of being copied.
pub(crate) const SHARE_FROM: usize = 16 * 1024;
/// A tail of so many bytes grows as any vector does; a longer one becomes a chunk.
const SMALL: usize = 4 * 1024;
/// Pieces of one `writev`.
const PIECES: usize = 32;

/// What a flush came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flushed {
    /// Nothing is left.
    All,
    /// The peer does not take more for now.
    Blocked,
}

/// A queue of bytes. `pieces` come before `tail`; `sent` bytes of the first piece (or of `tail`) have left.
#[derive(Debug, Default)]
pub(crate) struct Output {
    pieces: VecDeque<Piece>,
    tail: Vec<u8>,
    sent: usize,
    pieces_len: usize,
}

/// Bytes that leave from where they are.
#[derive(Debug)]
pub(crate) enum Piece {
    /// Nobody else has them.
    Own(Vec<u8>),
    /// Others may have them too.
    Shared(Bytes),
}

impl From<Vec<u8>> for Piece {
    fn from(bytes: Vec<u8>) -> Self {
        Piece::Own(bytes)
    }
}

impl From<Bytes> for Piece {
    fn from(bytes: Bytes) -> Self {
        Piece::Shared(bytes)
    }
}

impl From<CachedReply> for Piece {
    fn from(reply: CachedReply) -> Self {
        Piece::Shared(Bytes::from_owner(reply))
    }
}

impl Deref for Piece {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Piece::Own(bytes) => bytes,
            Piece::Shared(bytes) => bytes,
        }
    }
}

impl Output {
    /// Bytes not yet taken by the socket.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.pieces_len + self.tail.len() - self.sent
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where encoders append: mostly what is too short to be shared.
    #[inline]
    pub(crate) fn tail(&mut self) -> &mut Vec<u8> {
        if self.tail.len() > CHUNK - SHARE_FROM {
            self.begin_chunk();
        }
        &mut self.tail
    }

    /// Appends a copy.
    #[inline]
    pub(crate) fn copy(&mut self, bytes: &[u8]) {
        if bytes.len() <= self.tail.capacity() - self.tail.len() {
            self.tail.extend_from_slice(bytes);
        } else {
            self.copy_beyond(bytes);
        }
    }

    /// Appends a copy of more than the tail has room for.
    #[inline(never)]
    fn copy_beyond(&mut self, mut bytes: &[u8]) {
        if self.tail.len() + bytes.len() <= SMALL {
            return self.tail.extend_from_slice(bytes);
        }
        if self.tail.capacity() < CHUNK {
            let small = std::mem::replace(&mut self.tail, chunks::take());
            self.tail.extend_from_slice(&small);
        }
        while !bytes.is_empty() {
            if self.tail.len() == self.tail.capacity() {
                self.begin_chunk();
            }
            let (fits, rest) = bytes.split_at(bytes.len().min(self.tail.capacity() - self.tail.len()));
            self.tail.extend_from_slice(fits);
            bytes = rest;
        }
    }

    #[inline(never)]
    fn begin_chunk(&mut self) {
        self.seal_tail();
        self.tail = chunks::take();
    }

    /// Appends without copying, if it is worth it.
    pub(crate) fn append(&mut self, bytes: impl AsRef<[u8]> + Into<Piece>) {
        let slice = bytes.as_ref();
        if slice.len() < SHARE_FROM { self.copy(slice) } else { self.push(bytes.into()) }
    }

    fn push(&mut self, piece: Piece) {
        self.seal_tail();
        self.pieces_len += piece.len();
        self.pieces.push_back(piece);
    }

    /// Turns the tail into a piece, so that another can follow it.
    fn seal_tail(&mut self) {
        if !self.tail.is_empty() {
            let tail = std::mem::take(&mut self.tail);
            self.pieces_len += tail.len();
            self.pieces.push_back(Piece::Own(tail));
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        *self = Output::default();
    }

    /// Writes as much as the socket takes now.
    pub(crate) fn flush(&mut self, socket: &Socket) -> io::Result<Flushed> {
        loop {
            match self.write_once(socket) {
                Ok(Flushed::All) => return Ok(Flushed::All),
                Ok(Flushed::Blocked) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Flushed::Blocked),
                Err(error) => return Err(error),
            }
        }
    }

    /// Writes until nothing is left, waiting for the peer in between.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>, socket: &Socket) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            ready!(socket.poll_write_with(cx, |socket| self.write_once(socket)))?;
        }
        self.release();
        Poll::Ready(Ok(()))
    }

    /// One write; `Blocked` means only that something is left.
    fn write_once(&mut self, socket: &Socket) -> io::Result<Flushed> {
        if self.is_empty() {
            self.release();
            return Ok(Flushed::All);
        }
        let written =
            if self.pieces.is_empty() { socket.try_write(&self.tail[self.sent..]) } else { self.write_pieces(socket) };
        match written {
            Ok(0) => Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                self.advance(count);
                Ok(if self.is_empty() { Flushed::All } else { Flushed::Blocked })
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Flushed::Blocked),
            Err(error) => Err(error),
        }
    }

    fn write_pieces(&self, socket: &Socket) -> io::Result<usize> {
        let mut slices = [IoSlice::new(&[]); PIECES];
        let used = self.slices(&mut slices);
        socket.try_write_vectored(&slices[..used])
    }

    /// What comes next, as much as there are slices for; says how many that takes.
    fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut skip = self.sent;
        let pieces = self.pieces.iter().map(Deref::deref).chain([&self.tail[..]]);
        let mut used = 0;
        for (slice, piece) in slices.iter_mut().zip(pieces) {
            *slice = IoSlice::new(&piece[skip..]);
            skip = 0;
            used += 1;
        }
        used
    }

    fn advance(&mut self, mut count: usize) {
        while let Some(front) = self.pieces.front() {
            let left = front.len() - self.sent;
            if count < left {
                self.sent += count;
                return;
            }
            count -= left;
            self.pieces_len -= front.len();
            self.sent = 0;
            if let Some(Piece::Own(bytes)) = self.pieces.pop_front() {
                chunks::give_back(bytes);
            }
        }
        self.sent += count;
        if self.sent == self.tail.len() {
            self.release();
        }
    }

    /// Gives an empty buffer's memory back: an idle connection owns none worth speaking of.
    pub(crate) fn shrink(&mut self) {
        if self.is_empty() {
            chunks::give_back(std::mem::take(&mut self.tail));
            *self = Output::default();
        }
    }

    /// Empties the tail, keeping its allocation for the next batch.
    fn release(&mut self) {
        self.sent = 0;
        if self.tail.capacity() > CHUNK {
            self.tail = Vec::new();
        } else {
            self.tail.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Step {
        Copy(usize),
        Encode(usize),
        Append(usize),
        Share(usize),
        /// The socket takes this part of what it is shown.
        Send(f64),
    }

    fn step() -> impl Strategy<Value = Step> {
        // Around every length at which something changes.
        let len = || prop_oneof![0..100usize, SMALL - 50..SMALL + 50, SHARE_FROM - 9..CHUNK + 9, 0..3 * CHUNK];
        prop_oneof![
            len().prop_map(Step::Copy),
            len().prop_map(Step::Encode),
            len().prop_map(Step::Append),
            len().prop_map(Step::Share),
            (0.0..=1.0).prop_map(Step::Send),
            Just(Step::Send(1.0)),
        ]
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out_whole_and_in_order(steps in prop::collection::vec(step(), 1..60)) {
            let (mut output, mut expected) = (Output::default(), VecDeque::new());
            let mut numbers = (0..u64::MAX).flat_map(|number| (number * 0x9E37_79B9).to_le_bytes());
            for step in steps {
                let mut bytes = |len| numbers.by_ref().take(len).inspect(|byte| expected.push_back(*byte)).collect::<Vec<_>>();
                match step {
                    Step::Copy(len) => output.copy(&bytes(len)),
                    Step::Encode(len) => output.tail().extend_from_slice(&bytes(len)),
                    Step::Append(len) => output.append(bytes(len)),
                    Step::Share(len) => output.append(Bytes::from(bytes(len))),
                    Step::Send(part) => {
                        let mut slices = [IoSlice::new(&[]); PIECES];
                        let used = output.slices(&mut slices);
                        let shown: Vec<u8> = slices[..used].iter().flat_map(|slice| slice.iter().copied()).collect();
                        let sent = (shown.len() as f64 * part) as usize;
                        prop_assert!(expected.drain(..sent).eq(shown[..sent].iter().copied()));
                        output.advance(sent);
                    }
                }
                prop_assert_eq!(output.len(), expected.len());
                prop_assert!(output.tail.capacity() <= 8 * CHUNK, "{}", output.tail.capacity());
            }
        }
    }
}
