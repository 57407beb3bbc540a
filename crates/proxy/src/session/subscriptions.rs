//! What a session has subscribed to, and the feeds that tell it of that.
//!
//! Before a standalone server there is one feed. In a cluster every node passes on what is published to channels and
//! patterns, so that one node, the session's home, is enough; what is published to a shard channel is heard at the node of
//! its slot alone. Keyspace notifications are the exception: each node publishes those of its own keys, to its own clients
//! only. So what may be one is subscribed to at every primary, and heard from those that are not the home only if it is one.

use std::cell::OnceCell;
use std::collections::{HashMap, HashSet, VecDeque};
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use nearside_nearcache::Time;
use nearside_resp::{Protocol, encode};

use super::registry::Client;
use crate::lanes::feed::Feed;
use crate::topology::{Node, Slot, Topology};

/// How channels begin whose messages each node of a cluster publishes for itself:
/// <https://redis.io/docs/latest/develop/use/keyspace-notifications/>.
const OF_EACH_NODE: [&[u8]; 2] = [b"__keyspace@", b"__keyevent@"];
/// What is counted for a subscription beside its name: a place in a table, and the name's own header.
const OVERHEAD: usize = 64;

/// The three kinds of subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Channel,
    Pattern,
    Shard,
}

/// A command that begins or ends subscriptions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Verb {
    pub(crate) kind: Kind,
    /// It begins them.
    pub(crate) begins: bool,
}

impl Verb {
    const NAMES: [(&'static str, Verb); 6] = [
        ("subscribe", Verb { kind: Kind::Channel, begins: true }),
        ("unsubscribe", Verb { kind: Kind::Channel, begins: false }),
        ("psubscribe", Verb { kind: Kind::Pattern, begins: true }),
        ("punsubscribe", Verb { kind: Kind::Pattern, begins: false }),
        ("ssubscribe", Verb { kind: Kind::Shard, begins: true }),
        ("sunsubscribe", Verb { kind: Kind::Shard, begins: false }),
    ];

    /// The one of that name.
    pub(crate) fn named(name: &[u8]) -> Option<Self> {
        Self::NAMES.iter().find(|(known, _)| known.as_bytes() == name).map(|(_, verb)| *verb)
    }

    pub(crate) fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, verb)| *verb == self).map_or("", |(name, _)| name)
    }
}

/// Where subscriptions are made or ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// There is nothing to end: no server needs to know.
    Nowhere,
    /// At the node that stands for all.
    Home,
    /// At every primary; to end it, wherever there is a feed.
    Everywhere,
    /// At the node that serves the slot.
    Slot(Slot),
    /// At the node with this number, which takes names of one slot at a time.
    Node(u64, Slot),
}

/// Names of one command that follow each other and have one target.
pub(crate) struct Step {
    pub(crate) names: Vec<Bytes>,
    pub(crate) target: Target,
    /// The names, once somebody has asked for one.
    known: OnceCell<HashSet<Bytes>>,
}

impl Step {
    /// These names, there.
    pub(crate) fn new(names: Vec<Bytes>, target: Target) -> Self {
        Self { names, target, known: OnceCell::new() }
    }

    /// Whether this is one of the names. There may be as many as a client likes, and the server speaks of each.
    pub(crate) fn has(&self, name: &[u8]) -> bool {
        self.known.get_or_init(|| self.names.iter().cloned().collect()).contains(name)
    }
}

/// A command that is being carried out, step by step.
pub(crate) struct Request {
    pub(crate) verb: Verb,
    pub(crate) steps: VecDeque<Step>,
    /// The step that nodes have been asked to take.
    pub(crate) step: Step,
    /// The number of the node among them that stands for all.
    pub(crate) node: u64,
    /// What a node has said against that.
    pub(crate) error: Option<Vec<u8>>,
    /// How often the step was sent on to another node.
    pub(crate) redirections: u8,
    /// What came behind a node's confirmation, which the client has not got yet.
    pub(crate) held: Vec<u8>,
    /// When the command came.
    pub(crate) since: Time,
    /// The client does not want to hear of errors.
    pub(crate) is_silent: bool,
}

/// A feed, and what it is for.
pub(crate) struct Source {
    pub(crate) feed: Rc<Feed>,
    /// Shard channels that are subscribed to there.
    shard_channels: usize,
    /// It has to answer the step under way.
    pub(crate) is_asked: bool,
    /// It has said something to that.
    pub(crate) has_begun: bool,
}

/// MONITOR.
pub(crate) struct Monitor {
    pub(crate) feed: Rc<Feed>,
    /// The server has agreed; until then when the command came.
    pub(crate) asked: Option<Time>,
    /// The client does not want to hear whether it has.
    pub(crate) is_silent: bool,
}

impl Monitor {
    pub(crate) fn is_from(&self, feed: &Feed) -> bool {
        std::ptr::eq(&raw const *self.feed, feed)
    }
}

/// See the module.
#[derive(Default)]
pub(crate) struct Subscriptions {
    channels: HashSet<Bytes>,
    patterns: HashSet<Bytes>,
    /// By channel the number of the node.
    shard_channels: HashMap<Bytes, u64>,
    /// Of the channels and patterns, those that every node has messages of its own for. None before a standalone server.
    everywhere: usize,
    /// The number of the node that stands for all.
    pub(crate) home: Option<u64>,
    pub(crate) sources: Vec<Source>,
    pub(crate) request: Option<Request>,
    pub(crate) monitor: Option<Monitor>,
    /// The session runs nothing until a node has answered.
    pub(crate) is_waited_for: bool,
    is_cluster: bool,
    /// Of the names, in bytes.
    memory: usize,
}

impl Subscriptions {
    /// None yet.
    pub(crate) fn new(topology: &Topology) -> Self {
        let mut subscriptions = Subscriptions::default();
        subscriptions.is_cluster = topology.is_cluster();
        subscriptions
    }

    /// Something is subscribed to.
    pub(crate) fn any(&self) -> bool {
        !(self.channels.is_empty() && self.patterns.is_empty() && self.shard_channels.is_empty())
    }

    /// A node has to answer before the client's next command runs.
    pub(crate) fn is_asking(&self) -> bool {
        self.request.is_some() || self.monitor.as_ref().is_some_and(|monitor| monitor.asked.is_some())
    }

    /// MONITOR is on.
    pub(crate) fn is_monitor(&self) -> bool {
        self.monitor.as_ref().is_some_and(|monitor| monitor.asked.is_none())
    }

    /// No feed is needed: there are no subscriptions, there is no MONITOR, and none is being asked for.
    pub(crate) fn is_over(&self) -> bool {
        !self.any() && self.monitor.is_none() && self.request.is_none()
    }

    /// Memory held, in bytes.
    pub(crate) fn memory(&self) -> usize {
        self.memory + self.request.as_ref().map_or(0, |request| request.held.len())
    }

    /// Puts names that follow each other and have one target together. Never without a step.
    pub(crate) fn steps(&self, verb: Verb, names: impl Iterator<Item = Bytes>) -> VecDeque<Step> {
        let mut steps: VecDeque<Step> = VecDeque::new();
        for name in names {
            let target = self.target(verb, &name);
            match steps.back_mut() {
                Some(step) if step.target == target => step.names.push(name),
                _ => steps.push_back(Step::new(vec![name], target)),
            }
        }
        if steps.is_empty() {
            steps.push_back(Step::new(Vec::new(), Target::Nowhere));
        }
        steps
    }

    fn target(&self, verb: Verb, name: &[u8]) -> Target {
        match verb.kind {
            _ if !verb.begins && !self.has(verb.kind, name) => Target::Nowhere,
            Kind::Shard if self.is_cluster && !verb.begins => {
                let node = self.shard_channels.get(name);
                node.map_or(Target::Nowhere, |node| Target::Node(*node, Slot::of(name)))
            }
            Kind::Shard if self.is_cluster => Target::Slot(Slot::of(name)),
            Kind::Channel | Kind::Pattern if self.is_of_each_node(verb.kind, name) => Target::Everywhere,
            _ => Target::Home,
        }
    }

    fn is_of_each_node(&self, kind: Kind, name: &[u8]) -> bool {
        self.is_cluster
            && match kind {
                Kind::Channel => OF_EACH_NODE.iter().any(|prefix| name.starts_with(prefix)),
                Kind::Pattern => OF_EACH_NODE.iter().any(|prefix| may_match(name, prefix)),
                Kind::Shard => false,
            }
    }

    /// All that is subscribed to of a kind.
    pub(crate) fn all(&self, kind: Kind) -> Vec<Bytes> {
        match kind {
            Kind::Channel => self.channels.iter().cloned().collect(),
            Kind::Pattern => self.patterns.iter().cloned().collect(),
            Kind::Shard => self.shard_channels.keys().cloned().collect(),
        }
    }

    pub(crate) fn has(&self, kind: Kind, name: &[u8]) -> bool {
        match kind {
            Kind::Channel => self.channels.contains(name),
            Kind::Pattern => self.patterns.contains(name),
            Kind::Shard => self.shard_channels.contains_key(name),
        }
    }

    /// The number in confirmations of this kind.
    fn count(&self, kind: Kind) -> usize {
        match kind {
            Kind::Channel | Kind::Pattern => self.channels.len() + self.patterns.len(),
            Kind::Shard => self.shard_channels.len(),
        }
    }

    /// A node has confirmed it.
    pub(crate) fn begin(&mut self, kind: Kind, name: &Bytes, node: u64) {
        let is_new = match kind {
            Kind::Channel => self.channels.insert(name.clone()),
            Kind::Pattern => self.patterns.insert(name.clone()),
            Kind::Shard => {
                let before = self.shard_channels.insert(name.clone(), node);
                self.count_shard(before, Some(node));
                before.is_none()
            }
        };
        if is_new {
            self.memory += name.len() + OVERHEAD;
            self.everywhere += usize::from(self.is_of_each_node(kind, name));
        }
    }

    /// It is over.
    pub(crate) fn end(&mut self, kind: Kind, name: &[u8]) {
        let was = match kind {
            Kind::Channel => self.channels.remove(name),
            Kind::Pattern => self.patterns.remove(name),
            Kind::Shard => {
                let before = self.shard_channels.remove(name);
                self.count_shard(before, None);
                before.is_some()
            }
        };
        if was {
            self.memory -= name.len() + OVERHEAD;
            self.everywhere -= usize::from(self.is_of_each_node(kind, name));
        }
    }

    fn count_shard(&mut self, before: Option<u64>, after: Option<u64>) {
        for source in &mut self.sources {
            let node = Some(source.feed.node().id());
            source.shard_channels += usize::from(node == after);
            source.shard_channels -= usize::from(node == before);
        }
    }

    /// Which node a shard channel is subscribed to at.
    pub(crate) fn shard_node(&self, channel: &[u8]) -> Option<u64> {
        self.shard_channels.get(channel).copied()
    }

    /// What the client is told of a subscription that has begun or ended; `None`: there was nothing to end.
    pub(crate) fn confirmation(&self, verb: Verb, name: Option<&[u8]>, protocol: Protocol) -> Vec<u8> {
        let mut frame = Vec::new();
        encode::push_header(&mut frame, protocol, 3);
        encode::bulk(&mut frame, verb.name().as_bytes());
        match name {
            Some(name) => encode::bulk(&mut frame, name),
            None => encode::null(&mut frame, protocol),
        }
        encode::integer(&mut frame, i64::try_from(self.count(verb.kind)).unwrap_or(i64::MAX));
        frame
    }

    /// The feed from a node.
    pub(crate) fn source(&mut self, node: u64) -> Option<&mut Source> {
        self.sources.iter_mut().find(|source| source.feed.node().id() == node)
    }

    /// A feed has been opened.
    pub(crate) fn add(&mut self, feed: Rc<Feed>) {
        self.sources.push(Source { feed, shard_channels: 0, is_asked: false, has_begun: false });
    }

    /// Whether this feed tells of something that is subscribed to.
    pub(crate) fn is_needed(&self, feed: &Feed) -> bool {
        let source = self.sources.iter().find(|source| std::ptr::eq(&raw const *source.feed, feed));
        source.is_some_and(|source| self.needs(source))
    }

    fn needs(&self, source: &Source) -> bool {
        let is_home = self.home == Some(source.feed.node().id());
        source.shard_channels > 0
            || self.everywhere > 0
            || (is_home && !(self.channels.is_empty() && self.patterns.is_empty()))
    }

    /// Closes the feeds that tell of nothing, once nodes are not waited for: some may have answered before others.
    pub(crate) fn close_unneeded(&mut self) {
        if self.request.is_some() {
            return;
        }
        let mut sources = std::mem::take(&mut self.sources);
        sources.retain(|source| {
            let stays = self.needs(source);
            if !stays {
                source.feed.end();
            }
            stays
        });
        self.sources = sources;
        if self.sources.is_empty() {
            self.home = None;
        }
    }

    /// Whether a message that `node` tells of is for the client. `channel`: the one it was published to.
    pub(crate) fn is_wanted(&self, node: u64, channel: &[u8]) -> bool {
        self.home == Some(node) || OF_EACH_NODE.iter().any(|prefix| channel.starts_with(prefix))
    }

    /// Other nodes may publish what every node publishes for itself than those that are listened to.
    pub(crate) fn misses(&self, topology: &Topology) -> bool {
        let is_heard = |node: &Node| self.sources.iter().any(|source| source.feed.node().id() == node.id());
        self.everywhere > 0 && !topology.nodes().iter().all(|node| is_heard(node))
    }

    /// Every feed.
    pub(crate) fn feeds(&self) -> impl Iterator<Item = &Rc<Feed>> {
        self.sources.iter().map(|source| &source.feed).chain(self.monitor.iter().map(|monitor| &monitor.feed))
    }

    /// Lets CLIENT LIST see what there is.
    pub(crate) fn show(&self, client: &Client) {
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        client.channels.store(count(self.channels.len()), Relaxed);
        client.patterns.store(count(self.patterns.len()), Relaxed);
        client.shard_channels.store(count(self.shard_channels.len()), Relaxed);
        client.monitors.store(self.is_monitor(), Relaxed);
    }
}

impl Drop for Subscriptions {
    fn drop(&mut self) {
        self.feeds().for_each(|feed| feed.end());
    }
}

/// Whether a pattern may match something that begins so: by what stands in it before its first special character.
fn may_match(pattern: &[u8], prefix: &[u8]) -> bool {
    let plain = pattern.iter().position(|byte| b"*?[\\".contains(byte)).unwrap_or(pattern.len());
    let plain = &pattern[..plain];
    plain.starts_with(prefix) || (plain.len() < pattern.len() && prefix.starts_with(plain))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::topology::SLOTS;

    const PATTERN: Verb = Verb { kind: Kind::Pattern, begins: true };

    fn in_cluster() -> Subscriptions {
        Subscriptions::new(&Topology::cluster(1, Vec::new(), (0..SLOTS).map(|_| None)))
    }

    fn names(names: &[&'static str]) -> impl Iterator<Item = Bytes> {
        names.iter().map(|name| Bytes::from_static(name.as_bytes())).collect::<Vec<_>>().into_iter()
    }

    #[test]
    fn patterns_that_may_match_a_keyspace_notification_are_known() {
        let subscriptions = in_cluster();
        for pattern in ["*", "__*", "__key*__:*", "__keyspace@0__:*", "__keyevent@*__:del", "[_]*", "\\__key*", "?_*"] {
            assert_eq!(subscriptions.target(PATTERN, pattern.as_bytes()), Target::Everywhere, "{pattern}");
        }
        for pattern in ["news.*", "__kex*", "_", "__keyspace", ""] {
            assert_eq!(subscriptions.target(PATTERN, pattern.as_bytes()), Target::Home, "{pattern}");
        }
    }

    #[test]
    fn names_in_a_row_with_one_target_are_one_step() {
        let subscriptions = in_cluster();
        let verb = Verb::named(b"subscribe").unwrap();
        let steps = subscriptions.steps(verb, names(&["a", "b", "__keyevent@0__:del", "c"]));
        let steps: Vec<_> = steps.iter().map(|step| (step.names.len(), step.target)).collect();
        assert_eq!(steps, [(2, Target::Home), (1, Target::Everywhere), (1, Target::Home)]);
        let verb = Verb::named(b"ssubscribe").unwrap();
        assert_eq!(subscriptions.steps(verb, names(&["{x}a", "{x}b", "y"])).len(), 2);
        let verb = Verb::named(b"unsubscribe").unwrap();
        assert_eq!(subscriptions.steps(verb, names(&["a", "b"]))[0].target, Target::Nowhere);
        assert_eq!(subscriptions.steps(verb, names(&[]))[0].target, Target::Nowhere);
    }

    #[test]
    fn a_standalone_server_has_all_messages() {
        let subscriptions = Subscriptions::default();
        for (verb, name) in [("psubscribe", "*"), ("subscribe", "__keyevent@0__:del"), ("ssubscribe", "s")] {
            let verb = Verb::named(verb.as_bytes()).unwrap();
            assert_eq!(subscriptions.target(verb, name.as_bytes()), Target::Home);
        }
    }

    #[test]
    fn confirmations_count_as_redis_counts() {
        let mut subscriptions = Subscriptions::default();
        for (kind, name) in [(Kind::Channel, "a"), (Kind::Channel, "a"), (Kind::Pattern, "p"), (Kind::Shard, "s")] {
            subscriptions.begin(kind, &Bytes::from(name), 0);
        }
        let told = |subscriptions: &Subscriptions, verb: &str, name| {
            let verb = Verb::named(verb.as_bytes()).unwrap();
            String::from_utf8(subscriptions.confirmation(verb, name, Protocol::Resp2)).unwrap()
        };
        assert!(told(&subscriptions, "subscribe", Some(b"a")).ends_with("$1\r\na\r\n:2\r\n"));
        assert!(told(&subscriptions, "ssubscribe", Some(b"s")).ends_with(":1\r\n"));
        subscriptions.end(Kind::Channel, b"a");
        subscriptions.end(Kind::Channel, b"a");
        subscriptions.end(Kind::Pattern, b"p");
        assert_eq!(told(&subscriptions, "unsubscribe", None), "*3\r\n$11\r\nunsubscribe\r\n$-1\r\n:0\r\n");
        assert!(subscriptions.any());
        subscriptions.end(Kind::Shard, b"s");
        assert!(!subscriptions.any() && subscriptions.memory() == 0);
    }
}
