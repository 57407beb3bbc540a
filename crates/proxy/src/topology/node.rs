//! A server upstream, as the workers know it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nearside_nearcache::Time;

use super::loaders::{LoaderState, Loaders};
use super::server::Server;
use crate::config::UpstreamAddress;
use crate::metrics::Counter;
use crate::users::User;

/// Servers remembered at a time: twice what the cluster specification recommends as a maximum.
const MAX_NODES: usize = 2048;

/// One server. It is the same for as long as its address is in use, whoever answers there.
#[derive(Debug)]
pub(crate) struct Node {
    id: u64,
    address: UpstreamAddress,
    server: Server,
    loaders: Loaders,
    /// When it was asked for the slots that it has told last, and that the topology heeds; in nanoseconds as [`Time`], 0: never.
    told_slots: AtomicU64,
    /// When it was last doubted that it is there, in nanoseconds as [`Time`]; 0: never.
    doubted: AtomicU64,
    counters: Box<[NodeCounters]>,
}

/// What a worker counts of a node, on a cache line of its own: all workers count all the time.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct NodeCounters {
    /// Commands written to lanes that lead to it, heartbeats included; not what the control plane asks.
    pub(crate) commands: Counter,
    /// Connections to it lost or not made.
    pub(crate) errors: Counter,
}

impl Node {
    fn new(id: u64, address: UpstreamAddress, workers: usize) -> Self {
        Node {
            id,
            address,
            server: Server::default(),
            loaders: Loaders::default(),
            told_slots: AtomicU64::new(0),
            doubted: AtomicU64::new(0),
            counters: (0..workers).map(|_| NodeCounters::default()).collect(),
        }
    }

    /// A number that no other node has, or had.
    #[inline]
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Where it is.
    pub(crate) fn address(&self) -> &UpstreamAddress {
        &self.address
    }

    /// Which server answers there.
    #[inline]
    pub(crate) fn server(&self) -> &Server {
        &self.server
    }

    /// It has told which slots it serves, asked at `asked_at`. To be called once a topology that heeds it is published, and the
    /// leases that this ends are.
    pub(crate) fn has_told_slots(&self, asked_at: Time) {
        self.told_slots.fetch_max(asked_at.0, Ordering::Release);
    }

    /// When it was last asked which slots it serves, and has told; 0: never.
    pub(crate) fn told_slots(&self) -> Time {
        Time(self.told_slots.load(Ordering::Acquire))
    }

    /// It cannot be reached, or could not for a moment.
    pub(crate) fn doubt(&self, now: Time) {
        self.doubted.fetch_max(now.0, Ordering::Relaxed);
    }

    /// When that was last; 0: never.
    pub(crate) fn doubted(&self) -> Time {
        Time(self.doubted.load(Ordering::Relaxed))
    }

    /// The counters of a worker.
    #[inline]
    pub(crate) fn counters(&self, worker: usize) -> &NodeCounters {
        &self.counters[worker]
    }

    /// Commands written to it, and connections to it that failed, since it was first heard of.
    pub(crate) fn totals(&self) -> (u64, u64) {
        let sum = |counter: fn(&NodeCounters) -> &Counter| self.counters.iter().map(|all| counter(all).get()).sum();
        (sum(|all| &all.commands), sum(|all| &all.errors))
    }

    /// True if a fetch for `user` from `db` has somewhere to go. The first to ask has the lane made: `start` is called.
    #[inline]
    pub(crate) fn loader_is_ready(&self, user: &User, db: u16, start: impl FnOnce()) -> bool {
        self.loaders.is_ready(user, db, start)
    }

    /// Called by the lane.
    pub(crate) fn set_loader(&self, user: &User, db: u16, state: LoaderState) {
        self.loaders.set(user, db, state);
    }
}

/// The servers that are, or were lately, in use.
#[derive(Debug)]
pub(crate) struct Nodes {
    workers: usize,
    next_id: AtomicU64,
    by_address: Mutex<HashMap<UpstreamAddress, Arc<Node>>>,
}

impl Nodes {
    /// None yet; as many workers will count.
    pub(crate) fn new(workers: usize) -> Self {
        Nodes { workers, next_id: AtomicU64::new(0), by_address: Mutex::default() }
    }

    /// The node at `address`. `None`: there are too many already.
    pub(crate) fn at(&self, address: &UpstreamAddress) -> Option<Arc<Node>> {
        let mut nodes = self.lock();
        if let Some(node) = nodes.get(address) {
            return Some(Arc::clone(node));
        }
        if nodes.len() >= MAX_NODES {
            nodes.retain(|_, node| Arc::strong_count(node) > 1);
        }
        if nodes.len() >= MAX_NODES {
            return None;
        }
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let node = Arc::new(Node::new(id, address.clone(), self.workers));
        nodes.insert(address.clone(), Arc::clone(&node));
        Some(node)
    }

    /// All of them, oldest first.
    pub(crate) fn all(&self) -> Vec<Arc<Node>> {
        let mut nodes: Vec<_> = self.lock().values().cloned().collect();
        nodes.sort_by_key(|node| node.id);
        nodes
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<UpstreamAddress, Arc<Node>>> {
        self.by_address.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn address(port: u16) -> UpstreamAddress {
        UpstreamAddress::Tcp { host: "h".into(), port }
    }

    #[test]
    fn an_address_is_one_node_for_as_long_as_it_is_in_use() {
        let nodes = Nodes::new(2);
        let (one, same, other) =
            (nodes.at(&address(1)).unwrap(), nodes.at(&address(1)).unwrap(), nodes.at(&address(2)).unwrap());
        assert!(one.id() == same.id() && one.id() != other.id());
        one.counters(0).commands.add(2);
        same.counters(1).commands.add(3);
        assert_eq!(one.totals(), (5, 0));
    }

    #[test]
    fn nodes_are_bounded_and_those_in_use_stay() {
        let nodes = Nodes::new(1);
        let kept = nodes.at(&address(1)).unwrap();
        for port in 2..=MAX_NODES as u16 + 100 {
            assert!(nodes.at(&address(port)).is_some());
        }
        assert!(nodes.all().len() <= MAX_NODES);
        assert_eq!(nodes.at(&address(1)).unwrap().id(), kept.id());
        let all: Vec<_> = (1..=MAX_NODES as u16).map(|port| nodes.at(&address(port))).collect();
        assert!(all.iter().all(Option::is_some));
        assert!(nodes.at(&address(60_000)).is_none(), "all are in use");
    }
}
