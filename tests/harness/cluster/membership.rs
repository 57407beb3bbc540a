//! Who is in the cluster: how it comes together, and how nodes join and leave.

use std::ops::Range;
use std::sync::Mutex;

use super::{Node, RedisCluster, SLOTS, State};
use crate::redis_server::RedisServer;

impl RedisCluster {
    /// Starts one of so many primaries, with the slots evenly spread and no replicas. Nobody can take over, so a node does
    /// not count as failed before five seconds: a machine that stalls would make it one.
    #[must_use]
    pub fn start(primaries: usize) -> Self {
        Self::with_replicas(primaries, 0, &["--cluster-node-timeout", "5000"])
    }

    /// Starts one of so many primaries (nodes 0, 1, …) with so many replicas each (those of the first primary, those
    /// of the second, …), every node with more arguments as `redis-server` takes them. A node counts as failed after a
    /// second, unless they say otherwise (`--cluster-node-timeout`).
    #[must_use]
    pub fn with_replicas(primaries: usize, replicas_each: usize, args: &[&str]) -> Self {
        let nodes = start_at_once(primaries * (1 + replicas_each), args, |_| Vec::new());
        Self::of_nodes(nodes, primaries, replicas_each, args)
    }

    pub(super) fn of_nodes(nodes: Vec<Node>, primaries: usize, replicas_each: usize, args: &[&str]) -> Self {
        let cluster = Self { nodes, args: args.iter().map(ToString::to_string).collect(), finishing: Mutex::new(()) };
        // Both while a node is alone: afterwards epochs are a matter of votes.
        for primary in 0..primaries {
            let bound = |number: usize| usize::from(SLOTS) * number / primaries;
            let (first, last) = (bound(primary), bound(primary + 1) - 1);
            cluster.tell(primary, &format!("CLUSTER ADDSLOTSRANGE {first} {last}"));
        }
        for number in 0..cluster.nodes.len() {
            cluster.tell(number, &format!("CLUSTER SET-CONFIG-EPOCH {}", number + 1));
        }
        // Every pair: gossip would do, at a ping a second.
        for number in 1..cluster.nodes.len() {
            (0..number).for_each(|other| cluster.meet(number, other));
        }
        for replica in primaries..cluster.nodes.len() {
            cluster.replicate(replica, (replica - primaries) / replicas_each);
        }
        cluster.wait_until_ok();
        cluster
    }

    /// Starts another node, which joins without slots, and gives its number.
    pub fn add_primary(&mut self) -> usize {
        self.add_primaries(1).start
    }

    /// Starts so many more, all at once, and gives their numbers.
    pub fn add_primaries(&mut self, count: usize) -> Range<usize> {
        let args = self.args.iter().map(String::as_str).collect::<Vec<_>>();
        let started = start_at_once(count, &args, |_| Vec::new());
        self.nodes.extend(started);
        let numbers = self.nodes.len() - count..self.nodes.len();
        for number in numbers.clone() {
            self.up().filter(|&other| other < number).for_each(|other| self.meet(number, other));
        }
        self.wait_until_ok();
        numbers
    }

    /// Makes all others forget a node and ends it.
    ///
    /// # Panics
    /// When it has slots: these go to another node first ([`Self::move_slots`]).
    #[track_caller]
    pub fn remove(&mut self, number: usize) {
        let is_up = self.nodes[number].state == State::Up;
        assert!(!is_up || self.slots(number).is_empty(), "node {number} still has slots");
        for other in self.up().filter(|&other| other != number) {
            self.tell(other, &format!("CLUSTER FORGET {}", self.id(number)));
        }
        self.kill(number);
        self.nodes[number].state = State::Removed;
    }

    /// Puts a new node in the place of every primary, moving slots with their keys, and gives the new ones' numbers.
    /// Replicas, which would be orphans, are removed. Afterwards no address is what it was.
    pub fn replace_all_nodes(&mut self) -> Range<usize> {
        let old = self.up().collect::<Vec<_>>();
        let (primaries, replicas): (Vec<_>, Vec<_>) = old.into_iter().partition(|&number| self.is_primary(number));
        let new = self.add_primaries(primaries.len());
        for (&from, to) in primaries.iter().zip(new.clone()) {
            self.move_slots(self.slots(from), to);
        }
        replicas.into_iter().chain(primaries).for_each(|number| self.remove(number));
        self.wait_until_ok();
        new
    }

    fn meet(&self, number: usize, other: usize) {
        let other = self.node(other);
        self.tell(number, &format!("CLUSTER MEET 127.0.0.1 {} {}", other.port(), other.bus_port()));
    }

    fn replicate(&self, replica: usize, primary: usize) {
        self.wait(&format!("node {replica} knows node {primary}"), || {
            let known = self.view(replica).member(self.id(primary)).is_some_and(super::view::Member::is_healthy);
            known.then_some(()).ok_or_else(|| "not yet".to_owned())
        });
        self.tell(replica, &format!("CLUSTER REPLICATE {}", self.id(primary)));
    }
}

/// `own` gives what else each node is started with, by its number.
pub(super) fn start_at_once(count: usize, args: &[&str], own: impl Fn(usize) -> Vec<String> + Sync) -> Vec<Node> {
    let start = |number: usize| {
        let own = own(number);
        let all = args.iter().copied().chain(own.iter().map(String::as_str)).collect::<Vec<_>>();
        let server = RedisServer::cluster_node(&all);
        let id = server.client().call("CLUSTER MYID");
        let id = String::from_utf8_lossy(id.bulk().expect("a node has an id")).into_owned();
        Node { server, id, state: State::Up, gates: None }
    };
    std::thread::scope(|scope| {
        let start = &start;
        let starting = (0..count).map(|number| scope.spawn(move || start(number))).collect::<Vec<_>>();
        starting.into_iter().map(|node| node.join().expect("a node starts")).collect()
    })
}
