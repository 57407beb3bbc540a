//! Which of a node's loader lanes may be used: one for each user and db that is read from.
//!
//! The user that all share is asked about with every read that the cache does not have, and has an array. Others are asked
//! about under a lock; as few reads miss, that is no bottleneck.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::users::User;

/// Databases whose reads are cached: each takes a loader lane. Redis has 16 unless told otherwise.
pub(crate) const CACHED_DBS: usize = 64;
/// Loader lanes of a node for users other than the shared one: connections upstream, so what does not fit goes uncached.
const MOST_OF_USERS: usize = 256;

/// Whether fetches from a node's db have somewhere to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum LoaderState {
    /// Nobody has asked yet.
    Unused,
    /// Its lane is being made, or cannot be made; reads of this db are not cached.
    Away,
    /// It may be used.
    Ready,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Loaders {
    shared: [AtomicU8; CACHED_DBS],
    /// By user and db: those that there is a lane for.
    of_users: Mutex<HashMap<(u16, u16), LoaderState>>,
}

impl Default for Loaders {
    fn default() -> Self {
        let unused = |_| AtomicU8::new(LoaderState::Unused as u8);
        Loaders { shared: std::array::from_fn(unused), of_users: Mutex::default() }
    }
}

impl Loaders {
    /// True if a fetch for `user` from `db` has somewhere to go. The first to ask has the lane made: `start` is called.
    #[inline]
    pub(super) fn is_ready(&self, user: &User, db: u16, start: impl FnOnce()) -> bool {
        if user.id() != User::OWN {
            return self.is_ready_for(user, db, start);
        }
        let Some(state) = self.shared.get(usize::from(db)) else { return false };
        let seen = state.load(Ordering::Acquire);
        if seen == LoaderState::Ready as u8 {
            return true;
        }
        let (unused, away) = (LoaderState::Unused as u8, LoaderState::Away as u8);
        if seen == unused && state.compare_exchange(unused, away, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            start();
        }
        false
    }

    fn is_ready_for(&self, user: &User, db: u16, start: impl FnOnce()) -> bool {
        let mut lanes = self.lock();
        if let Some(state) = lanes.get(&(user.id(), db)) {
            return *state == LoaderState::Ready;
        }
        if usize::from(db) < CACHED_DBS && lanes.len() < MOST_OF_USERS {
            lanes.insert((user.id(), db), LoaderState::Away);
            drop(lanes);
            start();
        }
        false
    }

    /// Called by the lane.
    pub(super) fn set(&self, user: &User, db: u16, state: LoaderState) {
        if user.id() == User::OWN {
            self.shared[usize::from(db)].store(state as u8, Ordering::Release);
        } else if state == LoaderState::Unused {
            self.lock().remove(&(user.id(), db));
        } else {
            self.lock().insert((user.id(), db), state);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(u16, u16), LoaderState>> {
        self.of_users.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_to_ask_has_a_lane_made() {
        for user in [User::own(), User::for_test(7)] {
            let loaders = Loaders::default();
            let mut asked = 0;
            assert!(!loaders.is_ready(&user, 3, || asked += 1) && !loaders.is_ready(&user, 3, || asked += 1));
            assert_eq!(asked, 1);
            loaders.set(&user, 3, LoaderState::Ready);
            assert!(loaders.is_ready(&user, 3, || unreachable!()));
            assert!(!loaders.is_ready(&user, CACHED_DBS as u16, || unreachable!()), "too many dbs");
            loaders.set(&user, 3, LoaderState::Unused);
            assert!(!loaders.is_ready(&user, 3, || asked += 1));
            assert_eq!(asked, 2, "its lane has ended");
        }
    }

    #[test]
    fn users_have_lanes_of_their_own_up_to_a_limit() {
        let loaders = Loaders::default();
        loaders.set(&User::own(), 0, LoaderState::Ready);
        let mut made = 0;
        for id in 1..=MOST_OF_USERS as u16 + 1 {
            assert!(!loaders.is_ready(&User::for_test(id), 0, || made += 1));
        }
        assert_eq!(made, MOST_OF_USERS);
        loaders.set(&User::for_test(1), 0, LoaderState::Ready);
        assert!(loaders.is_ready(&User::for_test(1), 0, || unreachable!()));
        assert!(!loaders.is_ready(&User::for_test(2), 0, || unreachable!()));
        loaders.set(&User::for_test(1), 0, LoaderState::Unused);
        assert!(!loaders.is_ready(&User::for_test(999), 0, || made += 1));
        assert_eq!(made, MOST_OF_USERS + 1, "one lane has ended, there is room");
    }
}
