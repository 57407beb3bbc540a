//! The bytes of commands whose replies are still to come, on a lane of a cluster: a node may answer that another one has
//! the key, and then the same bytes go there.
//!
//! Replies come in the order of the commands, so the bytes can stand one after the other: no allocation per command. Large
//! commands are shared with the output instead of copied.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::output::SHARE_FROM;

/// A FIFO of commands. Those in `small[..start]` are answered.
#[derive(Debug, Default)]
pub(super) struct SentFrames {
    small: Vec<u8>,
    start: usize,
    large: VecDeque<Bytes>,
}

impl SentFrames {
    /// Keeps a command that was copied.
    #[inline]
    pub(super) fn push(&mut self, frame: &[u8]) {
        debug_assert!(frame.len() < SHARE_FROM, "larger ones are shared");
        if self.start >= SHARE_FROM && self.start * 2 >= self.small.len() {
            // Each byte is moved once at most for each that was answered.
            self.small.drain(..self.start);
            self.start = 0;
        }
        self.small.extend_from_slice(frame);
    }

    /// Keeps a large command.
    pub(super) fn push_shared(&mut self, frame: Bytes) {
        if frame.len() < SHARE_FROM { self.push(&frame) } else { self.large.push_back(frame) }
    }

    /// Drops the oldest command, of this length.
    #[inline]
    pub(super) fn drop_front(&mut self, len: usize) {
        if len >= SHARE_FROM {
            self.large.pop_front();
            return;
        }
        self.start += len;
        if self.start == self.small.len() {
            self.small.clear();
            self.start = 0;
        }
    }

    /// Takes the oldest command, of this length.
    pub(super) fn take_front(&mut self, len: usize) -> Bytes {
        if len >= SHARE_FROM {
            return self.large.pop_front().expect("as many were kept as are taken");
        }
        let frame = Bytes::copy_from_slice(&self.small[self.start..][..len]);
        self.drop_front(len);
        frame
    }

    /// Gives memory back, if nothing is in flight.
    pub(super) fn shrink(&mut self) {
        if self.small.is_empty() {
            self.small = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_come_out_in_order_whatever_their_size() {
        let mut sent = SentFrames::default();
        let frame = |i: usize| vec![i as u8; if i.is_multiple_of(7) { SHARE_FROM + i } else { 1 + i * 13 % 300 }];
        let mut next_out = 0;
        for i in 0..500 {
            sent.push_shared(frame(i).into());
            if i % 3 != 0 {
                let expected = frame(next_out);
                if i % 2 == 0 {
                    assert_eq!(sent.take_front(expected.len()), expected);
                } else {
                    sent.drop_front(expected.len());
                }
                next_out += 1;
            }
        }
    }
}
