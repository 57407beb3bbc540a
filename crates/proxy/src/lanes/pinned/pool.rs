//! Pinned connections that nobody has at the moment.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use nearside_nearcache::Time;
use rustc_hash::FxBuildHasher;

use super::PinnedLane;
use crate::lanes::forward::LaneKey;
use crate::net::clock;

/// Connections of a worker that wait: enough for a burst of transactions, and few beside what a server takes (10,000).
const POOLED: usize = 64;
/// How long one waits before it is closed.
const IDLE_AFTER: Duration = Duration::from_secs(60);

/// A worker's pool. The connections are clean: nothing watched, queued, subscribed or owed.
#[derive(Default)]
pub(crate) struct Pool {
    idle: RefCell<HashMap<LaneKey, Vec<Pooled>, FxBuildHasher>>,
}

struct Pooled {
    lane: Rc<PinnedLane>,
    since: Time,
}

impl Pool {
    /// A connection that is there; the one that was used last, as the others may then grow old.
    pub(super) fn take(&self, key: LaneKey) -> Option<Rc<PinnedLane>> {
        let mut idle = self.idle.borrow_mut();
        let lanes = idle.get_mut(&key)?;
        while let Some(pooled) = lanes.pop() {
            if pooled.lane.is_sound() {
                return Some(pooled.lane);
            }
            pooled.lane.end();
        }
        None
    }

    pub(super) fn give(&self, lane: &Rc<PinnedLane>) {
        let mut idle = self.idle.borrow_mut();
        let is_full = idle.values().map(Vec::len).sum::<usize>() >= POOLED;
        if is_full || !lane.is_sound() {
            return lane.end();
        }
        let pooled = Pooled { lane: Rc::clone(lane), since: clock::now() };
        idle.entry(lane.key()).or_default().push(pooled);
    }

    /// Closes those that have waited for long, are lost, or lead to a server that another has taken the place of.
    pub(crate) fn check(&self, now: Time) {
        self.idle.borrow_mut().retain(|_, lanes| {
            lanes.retain(|pooled| {
                let stays = pooled.lane.is_sound() && now < pooled.since + IDLE_AFTER;
                if !stays {
                    pooled.lane.end();
                }
                stays
            });
            !lanes.is_empty()
        });
    }
}
