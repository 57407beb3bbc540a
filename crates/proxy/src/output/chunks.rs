//! Buffers of one size, used over and over on each thread.
//!
//! From the allocator they would be new each time: it gives large blocks back to the system as soon as they are free
//! (`.cargo/config.toml`), and a page that comes back from there costs more than to copy what it holds.

use std::cell::RefCell;

/// Bytes of each: what one write hands over is then a few of them, and they stay in the second-level cache.
pub(super) const CHUNK: usize = 32 * 1024;

/// How many a thread keeps that nobody uses.
const KEPT: usize = 128;

thread_local! {
    static FREE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// An empty one, of this capacity.
pub(super) fn take() -> Vec<u8> {
    FREE.with_borrow_mut(Vec::pop).unwrap_or_else(|| Vec::with_capacity(CHUNK))
}

/// Takes back a buffer, if it is one of these and there is room.
pub(super) fn give_back(mut buffer: Vec<u8>) {
    if buffer.capacity() != CHUNK {
        return;
    }
    buffer.clear();
    FREE.with_borrow_mut(|free| {
        if free.len() < KEPT {
            free.push(buffer);
        }
    });
}

/// Frees half of those that nobody uses. To be called now and then: a burst's buffers go back to the system so.
pub(crate) fn trim() {
    // The others are those that were used last.
    FREE.with_borrow_mut(|free| drop(free.drain(..free.len().div_ceil(2))));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_empty_and_with_its_memory() {
        let mut buffer = take();
        buffer.extend_from_slice(&[1; CHUNK]);
        let address = buffer.as_ptr();
        give_back(buffer);
        let again = take();
        assert_eq!((again.as_ptr(), again.len(), again.capacity()), (address, 0, CHUNK));
    }

    #[test]
    fn so_many_are_kept_and_no_others() {
        give_back(Vec::with_capacity(CHUNK * 2));
        assert_eq!(FREE.with_borrow(Vec::len), 0, "of another size");
        (0..KEPT + 10).map(|_| Vec::with_capacity(CHUNK)).for_each(give_back);
        assert_eq!(FREE.with_borrow(Vec::len), KEPT);
        trim();
        assert_eq!(FREE.with_borrow(Vec::len), KEPT / 2);
    }
}
