//! Locks and atomics: std's, or those of the interleaving explorer when the feature `shuttle` is on.

#[cfg(feature = "shuttle")]
pub(crate) use shuttle::sync::{
    MutexGuard,
    atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering},
};
#[cfg(not(feature = "shuttle"))]
pub(crate) use std::sync::{
    MutexGuard,
    atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering},
};

#[cfg(feature = "shuttle")]
use shuttle::sync::Mutex as RawMutex;
#[cfg(not(feature = "shuttle"))]
use std::sync::Mutex as RawMutex;

/// A mutex without poisoning: the critical sections of this crate leave their data whole at every point where they
/// could panic, and the program aborts on a panic anyway.
pub(crate) struct Mutex<T>(RawMutex<T>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(RawMutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        match self.0.lock() {
            Ok(guard) => guard,
            Err(poisoned) => poisoned.into_inner(),
        }
    }
}
