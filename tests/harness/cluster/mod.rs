//! A real Redis Cluster of the test's own, and what can happen to one.
//!
//! Nodes are numbered in the order in which they were started, first the primaries, then replicas; a number keeps its
//! meaning whatever becomes of the node. Who is primary of what is the cluster's own affair, and asked of it each time.
//!
//! A primary that has just been started refuses keys for two seconds (`CLUSTER_WRITABLE_DELAY` in Redis's `cluster.c`):
//! that, and little else, is what starting a cluster takes.

mod membership;
mod migration;
mod partition;
mod shared;
mod slots;
mod view;

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::cluster_client::ClusterClient;
use crate::redis_server::RedisServer;
use crate::socket::Address;
pub use migration::Migration;
use partition::Gates;
pub use shared::SharedCluster;
pub use slots::{SLOTS, key_in_slot, key_slot, spread_keys};
use view::View;

/// Several `redis-server`s that are one cluster.
#[derive(Debug)]
pub struct RedisCluster {
    nodes: Vec<Node>,
    /// With which a node that is added is started as well.
    args: Vec<String>,
    /// Held while a slot changes hands.
    finishing: Mutex<()>,
}

#[derive(Debug)]
struct Node {
    server: RedisServer,
    id: String,
    state: State,
    /// What others reach it through; none where they reach it as it is.
    gates: Option<Gates>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Up,
    /// By SIGSTOP.
    Stopped,
    Down,
    /// The others have forgotten it.
    Removed,
}

/// The ways to ask a replica to become the primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failover {
    /// In agreement with its primary, which has to be there: nothing is lost.
    Plain,
    /// Without its primary, by a vote of the others.
    Force,
    /// Without asking anybody.
    Takeover,
}

/// A cluster has this long to agree on something.
const AGREEMENT_LIMIT: Duration = Duration::from_secs(30);
/// After this long Redis has given up a failover that it was asked for.
const MANUAL_FAILOVER_LIMIT: Duration = Duration::from_secs(6);
/// Between two looks at all nodes, each of which costs some connections.
const PAUSE: Duration = Duration::from_millis(20);

impl RedisCluster {
    /// Where the nodes that have not been removed are reached.
    #[must_use]
    pub fn addresses(&self) -> Vec<Address> {
        let address = |number: usize| match &self.nodes[number].gates {
            Some(gates) => gates.clients().address().clone(),
            None => self.node(number).address(),
        };
        self.members().map(address).collect()
    }

    /// As Nearside's `--upstream` takes it, with every node as a seed.
    #[must_use]
    pub fn url(&self) -> String {
        let seeds = self.addresses().iter().map(ToString::to_string).collect::<Vec<_>>();
        format!("redis-cluster://{}", seeds.join(","))
    }

    /// A client of the whole cluster, with nothing in between.
    #[must_use]
    pub fn client(&self) -> ClusterClient {
        ClusterClient::connect(&self.addresses())
    }

    /// One node, for whatever is asked of it alone.
    #[must_use]
    pub fn node(&self, number: usize) -> &RedisServer {
        &self.nodes[number].server
    }

    /// What the nodes call this one.
    #[must_use]
    pub fn id(&self, number: usize) -> &str {
        &self.nodes[number].id
    }

    /// The node with this id.
    ///
    /// # Panics
    /// When it is none of ours.
    #[must_use]
    pub fn number(&self, id: &str) -> usize {
        self.nodes.iter().position(|node| node.id == id).expect("every node was started here")
    }

    /// Who has the slot, once all that are up agree.
    #[track_caller]
    #[must_use]
    pub fn owner(&self, slot: u16) -> usize {
        self.wait(&format!("all agree on who has slot {slot}"), || {
            let owners = self.up().map(|number| self.owner_as_seen_by(number, slot)).collect::<Vec<_>>();
            let first = owners.first().copied().flatten();
            first.filter(|_| owners.iter().all(|owner| *owner == first)).ok_or_else(|| format!("{owners:?}"))
        })
    }

    /// Who has the key's slot, once all that are up agree.
    #[track_caller]
    #[must_use]
    pub fn owner_of(&self, key: &str) -> usize {
        self.owner(key_slot(key.as_bytes()))
    }

    /// Who has the slot if this node is asked.
    #[must_use]
    pub fn owner_as_seen_by(&self, number: usize, slot: u16) -> Option<usize> {
        self.view(number).owner(slot).map(|id| self.number(id))
    }

    /// The slots that a node has, as it says itself.
    #[must_use]
    pub fn slots(&self, number: usize) -> Vec<u16> {
        self.view(number).member(self.id(number)).map(|own| own.slots().collect()).unwrap_or_default()
    }

    /// Whether a node says itself that it is a primary.
    #[must_use]
    pub fn is_primary(&self, number: usize) -> bool {
        self.view(number).member(self.id(number)).is_some_and(view::Member::is_primary)
    }

    /// The primary's replicas, up or down, as it says itself.
    #[must_use]
    pub fn replicas(&self, primary: usize) -> Vec<usize> {
        self.view(primary).replicas_of(self.id(primary)).iter().map(|id| self.number(id)).collect()
    }

    /// `kill -9`.
    pub fn kill(&mut self, number: usize) {
        self.nodes[number].server.kill();
        self.nodes[number].state = State::Down;
    }

    /// SIGSTOP: connections stay open, nothing answers, and the others soon think it dead.
    pub fn stop(&mut self, number: usize) {
        self.nodes[number].server.stop();
        self.nodes[number].state = State::Stopped;
    }

    /// SIGCONT, after [`Self::stop`].
    pub fn resume(&mut self, number: usize) {
        self.nodes[number].server.resume();
        self.nodes[number].state = State::Up;
    }

    /// Kills it, unless it is down, and starts it again with what it had saved: nothing, unless it was started with
    /// `--appendonly yes`.
    pub fn restart(&mut self, number: usize) {
        self.nodes[number].server.restart();
        self.nodes[number].state = State::Up;
    }

    /// Kills it, unless it is down, and starts it again without data: the same node, with the slots it had.
    pub fn restart_empty(&mut self, number: usize) {
        self.kill(number);
        self.node(number).forget_data();
        self.restart(number);
    }

    /// Asks a replica to become the primary; [`Self::wait_until_promoted`] waits for it.
    #[track_caller]
    pub fn failover(&self, replica: usize, how: Failover) {
        self.tell(
            replica,
            match how {
                Failover::Plain => "CLUSTER FAILOVER",
                Failover::Force => "CLUSTER FAILOVER FORCE",
                Failover::Takeover => "CLUSTER FAILOVER TAKEOVER",
            },
        );
    }

    /// Has a replica become the primary. It is asked again when Redis has given up, which it does under load: a primary
    /// and its replica must be even within five seconds (`CLUSTER_MF_TIMEOUT`).
    #[track_caller]
    pub fn promote(&self, replica: usize, how: Failover) {
        let mut asked_at = None;
        self.wait(&format!("replica {replica} is promoted"), || {
            if !self.is_primary(replica) && asked_at.is_none_or(|at: Instant| at.elapsed() > MANUAL_FAILOVER_LIMIT) {
                self.failover(replica, how);
                asked_at = Some(Instant::now());
            }
            if self.is_primary(replica) { Ok(()) } else { Err("it is a replica still".to_owned()) }
        });
        self.wait_until_promoted(replica);
    }

    /// Waits until all that are up know this node as a primary with slots.
    #[track_caller]
    pub fn wait_until_promoted(&self, number: usize) {
        self.wait(&format!("node {number} is promoted"), || {
            let is_promoted = |view: &View| {
                view.member(self.id(number)).is_some_and(|member| member.is_primary() && member.has_slots())
            };
            match self.up().find(|&witness| !is_promoted(&self.view(witness))) {
                Some(witness) => Err(format!("node {witness} does not say so")),
                None => Ok(()),
            }
        });
    }

    /// Waits until all that are up think each other alive, agree on who has which slot, serve every slot, and every
    /// replica follows its primary.
    #[track_caller]
    pub fn wait_until_ok(&self) {
        self.wait("the cluster is well", || self.up().try_for_each(|number| self.is_ok(number)));
    }

    fn is_ok(&self, number: usize) -> Result<(), String> {
        let view = self.view(number);
        if view.len() != self.members().count() {
            return Err(format!("node {number} knows of {} nodes", view.len()));
        }
        let is_known = |other: &usize| view.member(self.id(*other)).is_some_and(view::Member::is_healthy);
        if let Some(other) = self.up().find(|other| !is_known(other)) {
            return Err(format!("node {number} does not think node {other} well"));
        }
        let witness = self.up().next().expect("the node asked is up");
        let of_witness = self.view(witness);
        let role = |view: &View, other: usize| view.member(self.id(other)).and_then(|member| member.primary.clone());
        let agrees = self.up().all(|other| role(&view, other) == role(&of_witness, other));
        if view.owners() != of_witness.owners() || !agrees {
            return Err(format!("node {number} does not agree with node {witness}"));
        }
        if let Some(down) = view.owners().iter().find(|(.., id)| self.nodes[self.number(id)].state != State::Up) {
            return Err(format!("node {number} thinks {down:?} to be served"));
        }
        let mut client = self.node(number).client();
        let says = |reply: &[u8], line: &str| String::from_utf8_lossy(reply).contains(line);
        if !says(&client.call("CLUSTER INFO"), "cluster_state:ok") {
            return Err(format!("node {number} says that the cluster is not"));
        }
        if says(&client.call("INFO replication"), "master_link_status:down") {
            return Err(format!("replica {number} has not caught up"));
        }
        Ok(())
    }

    fn view(&self, number: usize) -> View {
        View::parse(&self.node(number).client().call("CLUSTER NODES"))
    }

    fn members(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.nodes.len()).filter(|&number| self.nodes[number].state != State::Removed)
    }

    fn up(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.nodes.len()).filter(|&number| self.nodes[number].state == State::Up)
    }

    /// A command that this node has to say `OK` to.
    #[track_caller]
    fn tell(&self, number: usize, line: &str) {
        assert_eq!(self.node(number).client().call(line), "+OK\r\n", "node {number}: {line}");
    }

    /// Asks until the answer is `Ok`; what was wrong the last time is in the message.
    #[track_caller]
    fn wait<T>(&self, what: &str, mut answer: impl FnMut() -> Result<T, String>) -> T {
        let deadline = Instant::now() + AGREEMENT_LIMIT;
        loop {
            match answer() {
                Ok(answer) => return answer,
                Err(why) => assert!(Instant::now() < deadline, "not within {AGREEMENT_LIMIT:?}: {what}: {why}"),
            }
            std::thread::sleep(PAUSE);
        }
    }
}
