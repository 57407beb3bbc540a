//! Bytes on their way out: small ones are copied together, large ones are shared, all leave in as few writes as possible.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};

use bytes::Bytes;

use crate::net::socket::Socket;

/// From here on a piece is handed over by reference count instead of being copied.
pub(crate) const SHARE_FROM: usize = 64 * 1024;
/// An emptied buffer larger than this is given back at once; a smaller one once its owner has been idle for a while.
const KEEP_CAPACITY: usize = 64 * 1024;
/// Pieces of one `writev`.
const PIECES: usize = 16;

/// What a flush came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flushed {
    /// Nothing is left.
    All,
    /// The peer does not take more for now.
    Blocked,
}

/// A queue of bytes. `shared` pieces come before `tail`; `sent` bytes of the first piece (or of `tail`) have left.
#[derive(Debug, Default)]
pub(crate) struct Output {
    shared: VecDeque<Bytes>,
    tail: Vec<u8>,
    sent: usize,
    shared_len: usize,
}

impl Output {
    /// Bytes not yet taken by the socket.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.shared_len + self.tail.len() - self.sent
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where encoders append.
    #[inline]
    pub(crate) fn tail(&mut self) -> &mut Vec<u8> {
        &mut self.tail
    }

    /// Appends a copy.
    #[inline]
    pub(crate) fn copy(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
    }

    /// Appends bytes that nobody else has, without copying if it is worth it.
    pub(crate) fn append(&mut self, bytes: Vec<u8>) {
        if bytes.len() < SHARE_FROM { self.copy(&bytes) } else { self.share(bytes.into()) }
    }

    /// Appends without copying, if it is worth it.
    pub(crate) fn share(&mut self, bytes: Bytes) {
        if bytes.len() < SHARE_FROM {
            return self.copy(&bytes);
        }
        self.seal_tail();
        self.shared_len += bytes.len();
        self.shared.push_back(bytes);
    }

    /// Turns the tail into a shared piece, so that another can follow it.
    fn seal_tail(&mut self) {
        if !self.tail.is_empty() {
            let tail = std::mem::take(&mut self.tail);
            self.shared_len += tail.len();
            self.shared.push_back(Bytes::from(tail));
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
            if self.shared.is_empty() { socket.try_write(&self.tail[self.sent..]) } else { self.write_pieces(socket) };
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
        let mut pieces = [IoSlice::new(&[]); PIECES];
        let mut used = 0;
        let mut skip = self.sent;
        for piece in self.shared.iter().map(|b| &b[..]).chain([&self.tail[..]]).take(PIECES) {
            pieces[used] = IoSlice::new(&piece[skip..]);
            skip = 0;
            used += 1;
        }
        socket.try_write_vectored(&pieces[..used])
    }

    fn advance(&mut self, mut count: usize) {
        while let Some(front) = self.shared.front() {
            let left = front.len() - self.sent;
            if count < left {
                self.sent += count;
                return;
            }
            count -= left;
            self.shared_len -= front.len();
            self.sent = 0;
            self.shared.pop_front();
        }
        self.sent += count;
        if self.sent == self.tail.len() {
            self.release();
        }
    }

    /// Gives an empty buffer's memory back: an idle connection owns none worth speaking of.
    pub(crate) fn shrink(&mut self) {
        if self.is_empty() {
            self.tail = Vec::new();
        }
    }

    /// Empties the tail, keeping its allocation for the next batch.
    fn release(&mut self) {
        self.sent = 0;
        if self.tail.capacity() > KEEP_CAPACITY {
            self.tail = Vec::new();
        } else {
            self.tail.clear();
        }
    }
}
