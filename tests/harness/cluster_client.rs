//! A client of a whole cluster: what Redis Cluster itself answers, once its redirections have been followed.
//!
//! It knows as little as it can: where a command goes is a guess from its first argument, and a wrong guess is put right
//! by the node that got it. So it shares no table of commands with the program under test.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::client::{Client, request};
use crate::cluster::key_slot;
use crate::reply::Reply;
use crate::socket::Address;

/// A connection to each node that was needed. Before a server of its own it is an ordinary client that reconnects.
#[derive(Debug)]
pub struct ClusterClient {
    /// Where to begin, and to begin again when a node is lost.
    nodes: Vec<Address>,
    /// Which of them gets what names no key, so that it keeps its order and what it has set.
    home: usize,
    resp3: bool,
    node_timeout: Duration,
    patience: Duration,
    replicas: usize,
    connections: HashMap<Address, Client>,
    /// Owners of slots, as far as a redirection told them.
    owners: HashMap<u16, Address>,
    moved: usize,
}

/// Where else a command is to be sent.
#[derive(Debug, PartialEq, Eq)]
enum Redirection {
    /// For good.
    Moved(u16, Address),
    /// This once, after ASKING.
    Ask(Address),
}

/// Commands whose first argument is no key.
const KEYLESS: &[&str] = &["ACL", "CLIENT", "CLUSTER", "CONFIG", "ECHO", "HELLO", "INFO", "LOLWUT", "PING", "SELECT"];
/// Two nodes that send us to each other disagree: that passes.
const MOST_REDIRECTIONS: usize = 16;
const PAUSE: Duration = Duration::from_millis(20);
/// How long a replica may take to acknowledge a write.
const REPLICATION_TIMEOUT_MS: u64 = 1000;

impl ClusterClient {
    /// How long a node may take to answer, unless told otherwise.
    pub const NODE_TIMEOUT: Duration = Duration::from_secs(2);

    /// A client that speaks RESP2 and learns of the cluster from these nodes. It connects when it has something to ask.
    #[must_use]
    pub fn connect(seeds: &[Address]) -> Self {
        assert!(!seeds.is_empty(), "a cluster is reached through a node");
        Self {
            nodes: seeds.to_vec(),
            home: 0,
            resp3: false,
            node_timeout: Self::NODE_TIMEOUT,
            patience: Client::PATIENCE,
            replicas: 0,
            connections: HashMap::new(),
            owners: HashMap::new(),
            moved: 0,
        }
    }

    /// The same, speaking RESP3.
    #[must_use]
    pub fn with_resp3(self) -> Self {
        assert!(self.connections.is_empty(), "the protocol is chosen before the first command");
        Self { resp3: true, ..self }
    }

    /// The same, giving up a node that does not answer for so long.
    #[must_use]
    pub fn with_node_timeout(self, node_timeout: Duration) -> Self {
        Self { node_timeout, ..self }
    }

    /// The same, in which a write counts as answered once so many replicas have it (WAIT): it survives a failover then.
    /// Else it is an error, though it was made.
    #[must_use]
    pub fn with_writes_on_replicas(self, replicas: usize) -> Self {
        Self { replicas, ..self }
    }

    /// Sets how long [`Self::command`] goes on trying.
    pub fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// One request of words: `call("SET k v")`.
    #[track_caller]
    pub fn call(&mut self, line: &str) -> Reply {
        self.command(&line.split_ascii_whitespace().collect::<Vec<_>>())
    }

    /// One request and its reply, tried again while a node is lost, loading, or says CLUSTERDOWN or TRYAGAIN. So a
    /// command whose connection broke may run twice. When its patience ends it gives the error reply, and panics when
    /// there is none.
    #[track_caller]
    pub fn command(&mut self, args: &[impl AsRef<[u8]>]) -> Reply {
        let deadline = Instant::now() + self.patience;
        loop {
            match self.try_command(args) {
                Ok(reply) if !passes(&reply) || Instant::now() > deadline => return reply,
                Err(error) if Instant::now() > deadline => panic!("no reply from the cluster: {error}"),
                _ => std::thread::sleep(PAUSE),
            }
        }
    }

    /// One request, sent on where redirections say, and the reply it got in the end, whatever it is. Nothing is tried
    /// again after an error; the next command begins with another node.
    pub fn try_command(&mut self, args: &[impl AsRef<[u8]>]) -> io::Result<Reply> {
        let bytes = request(args);
        let mut node = self.likely_node(args);
        let mut is_asked = false;
        for _ in 0..MOST_REDIRECTIONS {
            let reply = self.ask(&node, &bytes, is_asked).inspect_err(|_| self.forget(&node))?;
            match Redirection::read(&reply, &node) {
                None => return Ok(reply),
                Some(Redirection::Moved(slot, owner)) => {
                    self.moved += 1;
                    self.owners.insert(slot, owner.clone());
                    (node, is_asked) = (owner, false);
                }
                Some(Redirection::Ask(target)) => (node, is_asked) = (target, true),
            }
        }
        Err(io::Error::other(format!("sent from node to node {MOST_REDIRECTIONS} times")))
    }

    /// How often a node has said that another one has the slot.
    #[must_use]
    pub fn moved(&self) -> usize {
        self.moved
    }

    fn likely_node(&self, args: &[impl AsRef<[u8]>]) -> Address {
        let is_keyless = KEYLESS.iter().any(|name| args[0].as_ref().eq_ignore_ascii_case(name.as_bytes()));
        let slot = args.get(1).filter(|_| !is_keyless).map(|key| key_slot(key.as_ref()));
        let owner = slot.and_then(|slot| self.owners.get(&slot));
        owner.unwrap_or(&self.nodes[self.home]).clone()
    }

    fn ask(&mut self, node: &Address, bytes: &[u8], is_asked: bool) -> io::Result<Reply> {
        let replicas = self.replicas;
        let client = self.connection(node)?;
        let mut all = if is_asked { request(&["ASKING"]) } else { Vec::new() };
        all.extend_from_slice(bytes);
        if replicas > 0 {
            all.extend(request(&["WAIT", &replicas.to_string(), &REPLICATION_TIMEOUT_MS.to_string()]));
        }
        client.try_send(&all)?;
        if is_asked {
            // A node that does not know ASKING has no slots either, and its answer to the command says more.
            client.try_reply()?;
        }
        let reply = client.try_reply()?;
        if replicas > 0 {
            let reached = client.try_reply()?.integer();
            if !reply.is_error() && reached.is_none_or(|reached| reached < replicas as i64) {
                return Err(io::Error::other(format!("{reached:?} replicas have it")));
            }
        }
        Ok(reply)
    }

    fn connection(&mut self, node: &Address) -> io::Result<&mut Client> {
        if !self.connections.contains_key(node) {
            let mut client = Client::try_connect(node)?;
            client.set_patience(self.node_timeout);
            if self.resp3 {
                client.try_send(&request(&["HELLO", "3"]))?;
                client.try_reply()?;
            }
            self.connections.insert(node.clone(), client);
        }
        if !self.nodes.contains(node) {
            self.nodes.push(node.clone());
        }
        Ok(self.connections.get_mut(node).expect("it was put there"))
    }

    /// After an error: another node may have its slots.
    fn forget(&mut self, node: &Address) {
        self.connections.remove(node);
        self.owners.retain(|_, owner| owner != node);
        if self.nodes[self.home] == *node {
            self.home = (self.home + 1) % self.nodes.len();
        }
    }
}

impl Redirection {
    /// `-MOVED <slot> <host>:<port>` or `-ASK …`; without a host, that of the node which said it.
    fn read(reply: &Reply, said_by: &Address) -> Option<Self> {
        let line = std::str::from_utf8(reply).ok()?.strip_suffix("\r\n")?;
        let mut words = line.split(' ');
        let (kind, slot, address) = (words.next()?, words.next()?.parse().ok()?, words.next()?);
        let (host, port) = address.rsplit_once(':')?;
        let mut to = if let Address::Tcp(said_by) = said_by { *said_by } else { return None };
        to.set_port(port.parse().ok()?);
        if !host.is_empty() {
            to = SocketAddr::new(host.parse().ok()?, to.port());
        }
        match kind {
            "-MOVED" => Some(Self::Moved(slot, Address::Tcp(to))),
            "-ASK" => Some(Self::Ask(Address::Tcp(to))),
            _ => None,
        }
    }
}

/// An error that says: later, perhaps.
fn passes(reply: &Reply) -> bool {
    [&b"-CLUSTERDOWN "[..], b"-TRYAGAIN ", b"-LOADING ", b"-MASTERDOWN "].iter().any(|code| reply.starts_with(code))
}
