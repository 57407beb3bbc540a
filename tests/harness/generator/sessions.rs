//! Random lives of a connection: commands that change what it is, among others that show what it is.
//!
//! Each has one right transcript. What Nearside is known to do otherwise is never generated where it would show; the list
//! of that is in `docs/differences.md`.

/// What may be generated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upstream {
    /// One server: it has databases, and tracks what a client reads.
    Standalone,
    /// A cluster.
    Cluster,
}

/// One life.
#[derive(Debug)]
pub struct Life {
    random: fastrand::Rng,
    upstream: Upstream,
    /// What the names of its keys begin with: nobody else has them, and they are of one slot.
    tag: String,
    /// It may be between MULTI and EXEC.
    in_multi: bool,
    /// Messages may be under way.
    has_published: bool,
    resp3: bool,
    count: usize,
}

/// Commands that may be anywhere. `<k>` is a key, `<q>` a list, `<n>` a number, `<tag>` a text used once.
const ANYWHERE: &[&str] = &[
    "GET <k>",
    "GET <k>",
    "GET <k>",
    "SET <k> <tag>",
    "SET <k> <tag>",
    "SET <k> <tag> GET",
    "DEL <k>",
    "MGET <k> <k> <q>",
    "MSET <k> <tag> <k> <tag>",
    "INCR <n>",
    "APPEND <k> <tag>",
    "RPUSH <q> <tag>",
    "LPUSH <q> <tag> <tag>",
    "LRANGE <q> 0 -1",
    "LMOVE <q> <q> LEFT RIGHT",
    "BLPOP <q> 0.01",
    "BRPOP <q> <q> 0.01",
    "BLMOVE <q> <q> LEFT RIGHT 0.01",
    "BLMPOP 0.01 1 <q> LEFT",
    "XADD <x> * f <tag>",
    "XLEN <x>",
    "XREAD BLOCK 10 STREAMS <x> $",
    "ECHO <tag>",
    "ECHO <tag>",
    "PING",
    "EVAL return{KEYS[1],ARGV[1]} 1 <k> <tag>",
    "EVAL return(redis.call('SET',KEYS[1],ARGV[1])) 1 <k> <tag>",
    "EVALSHA 0000000000000000000000000000000000000000 1 <k>",
    "GET",
    "INCR <q>",
    "NOSUCH <k>",
    "TYPE <k>",
    "PUBLISH <c> <tag>",
];

const TRANSACTIONS: &[&str] =
    &["MULTI", "MULTI", "EXEC", "EXEC", "EXEC", "DISCARD", "WATCH <k>", "WATCH <k> <n>", "UNWATCH"];

/// Not between MULTI and EXEC, where they are refused or answered by the server's connection.
const OUTSIDE: &[&str] = &["CLIENT GETNAME", "CLIENT SETNAME <tag>", "CLIENT REPLY SKIP", "RESET"];
/// The same. A life hears what it publishes itself, in RESP3: in RESP2 whoever has subscribed may not publish.
const SUBSCRIPTIONS: &[&str] = &[
    "SUBSCRIBE <s>",
    "SUBSCRIBE <s> <s>",
    "PSUBSCRIBE <s>",
    "SSUBSCRIBE <s>",
    "UNSUBSCRIBE <s>",
    "UNSUBSCRIBE",
    "PUNSUBSCRIBE",
    "SUNSUBSCRIBE <s> <s>",
    "SUBSCRIBE",
    PUBLISH,
    PUBLISH,
    SPUBLISH,
    SPUBLISH,
];
/// Not before a cluster: there the nodes tell each other in their own time, and each counts its own subscribers.
const PUBLISH: &str = "PUBLISH <s> <tag>";
const SPUBLISH: &str = "SPUBLISH <s> <tag>";
/// These are confirmed behind all messages that were published before.
const HEARS_ALL: [&str; 2] = ["SUBSCRIBE <s>", "SSUBSCRIBE <s>"];

const STANDALONE: &[&str] = &["SELECT 1", "SELECT 0", "SELECT 99999", "SELECT x", "DBSIZE x", "SWAPDB 5 5"];
/// Not CLIENT TRACKING OFF: Redis remembers what was read before, should it be turned on again, and the proxy forgets.
const STANDALONE_OUTSIDE: &[&str] = &["CLIENT TRACKING ON", "CLIENT TRACKINGINFO", "WAIT 0 0"];

impl Life {
    /// The life that belongs to `seed`.
    #[must_use]
    pub fn new(seed: u64, upstream: Upstream) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let tag = format!("{{{:x}}}", random.u64(..));
        let resp3 = random.bool();
        Self { random, upstream, tag, in_multi: false, has_published: false, resp3, count: 0 }
    }

    /// Whether it speaks RESP3 from the beginning.
    #[must_use]
    pub fn is_resp3(&self) -> bool {
        self.resp3
    }

    /// Its commands, in words.
    pub fn commands(&mut self) -> Vec<String> {
        let length = self.random.usize(1..=40);
        let mut commands = Vec::new();
        for _ in 0..length {
            let command = self.next();
            if command == "RESET" {
                self.hear_all(&mut commands);
            }
            commands.push(command);
        }
        if self.in_multi {
            commands.push("DISCARD".to_owned());
            self.in_multi = false;
        }
        self.hear_all(&mut commands);
        commands
    }

    /// What ends all subscriptions may be quicker than a message to one of them, which comes on a connection of its own.
    fn hear_all(&mut self, commands: &mut Vec<String>) {
        if std::mem::take(&mut self.has_published) {
            commands.extend(HEARS_ALL.map(|template| self.fill(template)));
        }
    }

    fn next(&mut self) -> String {
        let template = match self.random.u8(..10) {
            0..=2 => self.one_of(TRANSACTIONS),
            3 if !self.in_multi && self.random.bool() => self.one_of(SUBSCRIPTIONS),
            3 if !self.in_multi => self.one_of(OUTSIDE),
            6 if !self.in_multi && self.resp3 => self.one_of(SUBSCRIPTIONS),
            4 if self.upstream == Upstream::Standalone => self.one_of(STANDALONE),
            5 if self.upstream == Upstream::Standalone && !self.in_multi && self.resp3 => {
                self.one_of(STANDALONE_OUTSIDE)
            }
            _ => self.one_of(ANYWHERE),
        };
        let template = if template == PUBLISH && self.upstream == Upstream::Cluster { SPUBLISH } else { template };
        match template {
            PUBLISH | SPUBLISH => self.has_published = true,
            "MULTI" => self.in_multi = true,
            "EXEC" | "DISCARD" => self.in_multi = false,
            "RESET" => self.resp3 = false,
            _ => {}
        }
        self.fill(template)
    }

    fn one_of(&mut self, templates: &[&'static str]) -> &'static str {
        templates[self.random.usize(..templates.len())]
    }

    fn fill(&mut self, template: &str) -> String {
        let words = template.split(' ').map(|word| match word {
            "<k>" | "<q>" => format!("{}{}{}", self.tag, &word[1..2], self.random.u8(..3)),
            "<n>" | "<x>" | "<c>" | "<s>" => format!("{}{}", self.tag, &word[1..2]),
            "<tag>" => {
                self.count += 1;
                format!("tag-{}", self.count)
            }
            word => word.to_owned(),
        });
        words.collect::<Vec<_>>().join(" ")
    }

    /// Where its bytes are cut into writes: `true` after a command ends a write.
    pub fn ends_write(&mut self) -> bool {
        self.random.u8(..3) == 0
    }
}
