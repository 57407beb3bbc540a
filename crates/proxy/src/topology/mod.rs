//! Which servers there are upstream, and which of them serves what.
//!
//! A [`Topology`] is immutable; the control plane makes a new one when something has changed, and publishes it for all
//! workers at once. A standalone upstream is a topology of one node that never changes, and the primary that Sentinels name
//! is one of a node that does, so that nothing past this module has to tell them apart.
//!
//! - `node` is one server as the data path knows it; `server` tells whether another one has come behind its address.
//! - `slot` says where a key belongs.
//! - `view` is what one node of a cluster says of all; `ownership` decides between views that differ.
//! - `monitored` decides between Sentinels that differ about which server is the primary.
//! - `redirect` is what a node says of a command that belongs elsewhere.

mod loaders;
pub(crate) mod monitored;
mod node;
pub(crate) mod ownership;
pub(crate) mod redirect;
pub(crate) mod server;
pub(crate) mod slot;
pub(crate) mod view;

use std::sync::Arc;

pub(crate) use self::loaders::{CACHED_DBS, LoaderState};
pub(crate) use self::node::{Node, Nodes};
pub(crate) use self::slot::{SLOTS, Slot};

/// A slot that no node is known to serve.
const NOBODY: u16 = u16::MAX;

/// The servers that take commands (primaries), and which of them takes what.
#[derive(Debug)]
pub(crate) struct Topology {
    /// Grows with every change.
    version: u64,
    nodes: Vec<Arc<Node>>,
    /// By slot the position in `nodes`; `None`: one server has everything.
    slots: Option<Box<[u16]>>,
    /// There will never be another one.
    is_fixed: bool,
}

impl Topology {
    /// One server that has everything, for good.
    pub(crate) fn standalone(node: Arc<Node>) -> Self {
        Topology { version: 0, nodes: vec![node], slots: None, is_fixed: true }
    }

    /// One server that has everything, until another takes its place; `None`: it is not known yet which.
    pub(crate) fn primary(version: u64, node: Option<Arc<Node>>) -> Self {
        Topology { version, nodes: node.into_iter().collect(), slots: None, is_fixed: false }
    }

    /// A cluster of which nothing is known yet.
    pub(crate) fn unknown_cluster() -> Self {
        Topology { version: 0, nodes: Vec::new(), slots: Some(vec![NOBODY; SLOTS].into()), is_fixed: false }
    }

    /// A cluster. `owners` gives by slot the position in `nodes`.
    pub(crate) fn cluster(version: u64, nodes: Vec<Arc<Node>>, owners: impl Iterator<Item = Option<usize>>) -> Self {
        let owner = |owner: Option<usize>| owner.and_then(|at| u16::try_from(at).ok()).unwrap_or(NOBODY);
        let slots: Box<[u16]> = owners.map(owner).collect();
        assert_eq!(slots.len(), SLOTS, "every slot is spoken of");
        Topology { version, nodes, slots: Some(slots), is_fixed: false }
    }

    /// Which of all topologies this is.
    #[inline]
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// Whether there is one server, and never another: nothing has to be decided.
    #[inline]
    pub(crate) fn is_fixed(&self) -> bool {
        self.is_fixed
    }

    /// Whether commands have to be routed by slot.
    #[inline]
    pub(crate) fn is_cluster(&self) -> bool {
        self.slots.is_some()
    }

    /// The primaries.
    #[inline]
    pub(crate) fn nodes(&self) -> &[Arc<Node>] {
        &self.nodes
    }

    /// The position of the node that serves `slot`.
    #[inline]
    pub(crate) fn position(&self, slot: Slot) -> Option<usize> {
        match &self.slots {
            None => (!self.nodes.is_empty()).then_some(0),
            Some(slots) => Some(usize::from(slots[usize::from(slot.0)])).filter(|at| *at < self.nodes.len()),
        }
    }

    /// The node that serves `key`.
    #[inline]
    pub(crate) fn owner(&self, key: &[u8]) -> Option<&Arc<Node>> {
        match &self.slots {
            None => self.nodes.first(),
            Some(_) => self.nodes.get(self.position(Slot::of(key))?),
        }
    }

    /// Whether `node` is one of the primaries.
    pub(crate) fn has(&self, node: &Node) -> bool {
        self.nodes.iter().any(|other| other.id() == node.id())
    }

    /// Whether this topology leaves `node` every slot that `before` gave it. Not if it is no longer there.
    pub(crate) fn leaves(&self, node: &Node, before: &Topology) -> bool {
        let (Some(now), Some(then)) = (&self.slots, &before.slots) else { return self.has(node) };
        let at = |topology: &Topology| topology.nodes.iter().position(|other| other.id() == node.id());
        let (Some(at_now), Some(at_then)) = (at(self), at(before)) else { return false };
        now.iter().zip(then).all(|(now, then)| usize::from(*then) != at_then || usize::from(*now) == at_now)
    }

    /// Slots that a node is known to serve.
    pub(crate) fn slots_served(&self) -> usize {
        match &self.slots {
            None if self.nodes.is_empty() => 0,
            None => SLOTS,
            Some(slots) => slots.iter().filter(|at| **at != NOBODY).count(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::UpstreamAddress;

    fn node(nodes: &Nodes, port: u16) -> Arc<Node> {
        nodes.at(&UpstreamAddress::Tcp { host: "h".into(), port }).unwrap()
    }

    #[test]
    fn a_standalone_server_has_every_key() {
        let nodes = Nodes::new(1);
        let topology = Topology::standalone(node(&nodes, 1));
        assert_eq!(topology.owner(b"any").unwrap().id(), topology.nodes()[0].id());
        assert!(!topology.is_cluster());
        assert_eq!(topology.slots_served(), SLOTS);
    }

    #[test]
    fn a_primary_has_every_key_once_it_is_known_and_until_another_is() {
        let nodes = Nodes::new(1);
        let unknown = Topology::primary(0, None);
        assert!(unknown.owner(b"any").is_none() && unknown.position(Slot::of(b"any")).is_none());
        assert_eq!((unknown.slots_served(), unknown.is_fixed(), unknown.is_cluster()), (0, false, false));
        let (first, second) =
            (Topology::primary(1, Some(node(&nodes, 1))), Topology::primary(2, Some(node(&nodes, 2))));
        assert_eq!(first.owner(b"any").unwrap().id(), first.nodes()[0].id());
        assert_eq!(first.slots_served(), SLOTS);
        assert!(!second.leaves(&first.nodes()[0], &first) && second.leaves(&second.nodes()[0], &second));
    }

    #[test]
    fn a_key_belongs_to_the_node_of_its_slot_and_may_belong_to_nobody() {
        let nodes = Nodes::new(1);
        let both = vec![node(&nodes, 1), node(&nodes, 2)];
        let slot = usize::from(Slot::of(b"foo").0);
        let topology = Topology::cluster(1, both, (0..SLOTS).map(|at| (at == slot).then_some(1)));
        assert_eq!(topology.owner(b"foo").unwrap().id(), topology.nodes()[1].id());
        assert!(topology.owner(b"bar").is_none());
        assert_eq!(topology.slots_served(), 1);
    }

    #[test]
    fn a_node_is_left_its_slots_or_loses_some() {
        let nodes = Nodes::new(1);
        let both = || vec![node(&nodes, 1), node(&nodes, 2)];
        let before = Topology::cluster(1, both(), (0..SLOTS).map(|at| Some(usize::from(at >= 100))));
        let moved = Topology::cluster(2, both(), (0..SLOTS).map(|at| Some(usize::from(at >= 99))));
        let (first, second) = (node(&nodes, 1), node(&nodes, 2));
        assert!(!moved.leaves(&first, &before));
        assert!(moved.leaves(&second, &before), "it has gained one");
        let alone = Topology::cluster(3, vec![second], (0..SLOTS).map(|_| Some(0)));
        assert!(!alone.leaves(&first, &before) && alone.leaves(&node(&nodes, 2), &before));
    }
}
