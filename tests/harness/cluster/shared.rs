//! A cluster for several tests at a time.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::RedisCluster;

/// One cluster for all tests that run at the moment and do it no harm; it ends with the last of them. (One in a `static` of
/// its own would never be dropped, and leave its servers behind.)
#[derive(Debug)]
pub struct SharedCluster(Mutex<Weak<RedisCluster>>);

impl SharedCluster {
    /// None is started before it is asked for.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "it stands in a static")]
    pub const fn new() -> Self {
        Self(Mutex::new(Weak::new()))
    }

    /// The one that runs, or a new one of so many primaries.
    pub fn of(&self, primaries: usize) -> Arc<RedisCluster> {
        let mut cluster = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        cluster.upgrade().unwrap_or_else(|| {
            let started = Arc::new(RedisCluster::start(primaries));
            *cluster = Arc::downgrade(&started);
            started
        })
    }
}
