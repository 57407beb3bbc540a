//! Threads that run until they are told to stop.

use std::sync::atomic::{AtomicBool, Ordering};

/// Tells them at its end, also when a test fails before it would have: they would run for ever.
#[must_use]
pub struct Stops<'a>(pub &'a AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
