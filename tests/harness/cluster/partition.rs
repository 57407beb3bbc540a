//! A cluster that can be cut apart: whoever reaches a node reaches it through relays.
//!
//! Every node announces the ports of its relays, and connects from an address of its own, by which the relays of the
//! others know it. Clients connect from elsewhere, so a node can lose all other nodes and keep its clients.

use std::net::{IpAddr, Ipv4Addr};

use super::RedisCluster;
use super::membership::start_at_once;
use crate::relay::Relay;
use crate::socket::Address;

/// The relays before a node.
#[derive(Debug)]
pub(super) struct Gates {
    /// To the port where commands come in: those of clients and proxies, and those of a replica for replication.
    clients: Relay,
    /// To the port where the other nodes talk to it.
    bus: Relay,
}

impl Gates {
    pub(super) fn clients(&self) -> &Relay {
        &self.clients
    }
}

impl RedisCluster {
    /// As [`Self::with_replicas`], with relays before each node. No node can be added to it.
    #[must_use]
    pub fn behind_relays(primaries: usize, replicas_each: usize, args: &[&str]) -> Self {
        let own = |number: usize| vec!["--bind-source-addr".to_owned(), source(number).to_string()];
        let mut nodes = start_at_once(primaries * (1 + replicas_each), args, own);
        for node in &mut nodes {
            let gates = Gates {
                clients: Relay::to(&node.server.address()),
                bus: Relay::to(&Address::local(node.server.bus_port())),
            };
            node.server.announce(port(&gates.clients), port(&gates.bus));
            node.gates = Some(gates);
        }
        Self::of_nodes(nodes, primaries, replicas_each, args)
    }

    /// What clients reach a node through: to hold their connections back, delay or cut them.
    ///
    /// # Panics
    /// When the cluster was not started with relays.
    #[must_use]
    pub fn gate(&self, number: usize) -> &Relay {
        &self.gates(number).clients
    }

    /// Clients reach the node no more, nor it them: nothing is closed, nothing passes. The other nodes do.
    pub fn cut_off_clients(&self, number: usize) {
        self.gate(number).stall_from([IpAddr::V4(Ipv4Addr::LOCALHOST)]);
    }

    /// The node and the others are cut off from each other; all of them keep their clients.
    pub fn isolate(&self, number: usize) {
        let others = self.members().filter(|&other| other != number).collect::<Vec<_>>();
        for relay in [&self.gates(number).clients, &self.gates(number).bus] {
            relay.stall_from(others.iter().map(|&other| source(other)));
        }
        for other in others {
            self.gates(other).clients.stall_from([source(number)]);
            self.gates(other).bus.stall_from([source(number)]);
        }
    }

    /// Everybody reaches everybody again.
    pub fn reunite(&self) {
        for number in self.members() {
            self.gates(number).clients.resume();
            self.gates(number).bus.resume();
        }
    }

    fn gates(&self, number: usize) -> &Gates {
        self.nodes[number].gates.as_ref().expect("the cluster was started with relays")
    }
}

/// Where a node connects from. Clients come from 127.0.0.1.
fn source(number: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(127, 0, 1, u8::try_from(number + 1).expect("fewer than 255 nodes")))
}

fn port(relay: &Relay) -> u16 {
    match relay.address() {
        Address::Tcp(address) => address.port(),
        Address::Unix(_) => unreachable!("a relay listens on TCP"),
    }
}
