//! The same requests to two servers in the same order: every reply must be the same bytes.
//!
//! Or to two clusters: then the one that is asked directly is asked one command at a time, by a client that follows its
//! redirections, as only that keeps the order between nodes; what the proxy divides by slot it does key by key.

use std::collections::VecDeque;
use std::{fmt, io};

use crate::client::Client;
use crate::cluster_client::ClusterClient;
use crate::generator::{Compare, Generated};
use crate::reply::Reply;
use crate::socket::Address;
use crate::tally::Tally;

/// Pairs of connections: one straight to a Redis of its own, one through the program to another.
#[derive(Debug)]
pub struct Worlds {
    pairs: Vec<Pair>,
    random: fastrand::Rng,
    /// The newest commands, for a report of a difference.
    history: VecDeque<String>,
    errors: usize,
    compared: usize,
    tally: Tally,
    pipelines: u64,
}

#[derive(Debug)]
struct Pair {
    direct: Control,
    proxied: Client,
    resp3: bool,
}

/// What the program is held against.
#[derive(Debug)]
enum Control {
    Server(Client),
    Cluster(ClusterClient),
}

/// A reply that was not the same.
pub struct Difference {
    request: String,
    direct: Reply,
    proxied: Reply,
    history: Vec<String>,
}

const HISTORY: usize = 40;
/// Bytes shown before the first one that differs.
const SHOWN_BEFORE: usize = 40;
/// A request is cut into at most so many writes, so that the program meets it in pieces.
const MOST_PIECES: usize = 4;

impl Worlds {
    /// Opens `connections` pairs; every second one speaks RESP3.
    #[must_use]
    pub fn connect(direct: &Address, proxied: &Address, connections: usize, seed: u64) -> Self {
        let control = |resp3| {
            let mut client = Client::connect(direct);
            if resp3 {
                client.speak_resp3(); // not compared: it tells the connection's id
            }
            Control::Server(client)
        };
        Self::new(control, proxied, connections, seed)
    }

    /// The same with a cluster to be held against, that of these nodes.
    #[must_use]
    pub fn connect_to_cluster(direct: &[Address], proxied: &Address, connections: usize, seed: u64) -> Self {
        let control = |resp3| {
            let client = ClusterClient::connect(direct);
            Control::Cluster(if resp3 { client.with_resp3() } else { client })
        };
        Self::new(control, proxied, connections, seed)
    }

    fn new(control: impl Fn(bool) -> Control, proxied: &Address, connections: usize, seed: u64) -> Self {
        let pairs = (0..connections).map(|number| {
            let resp3 = number % 2 == 1;
            let mut pair = Pair { direct: control(resp3), proxied: Client::connect(proxied), resp3 };
            if resp3 {
                pair.proxied.speak_resp3();
            }
            pair
        });
        Self {
            pairs: pairs.collect(),
            random: fastrand::Rng::with_seed(seed),
            history: VecDeque::new(),
            errors: 0,
            compared: 0,
            tally: Tally::default(),
            pipelines: 0,
        }
    }

    /// How many replies were compared.
    #[must_use]
    pub fn compared(&self) -> usize {
        self.compared
    }

    /// How many of them were errors.
    #[must_use]
    pub fn errors(&self) -> usize {
        self.errors
    }

    /// How many of which command.
    #[must_use]
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Sends one pipeline on connection `number` of both worlds and compares what comes back.
    ///
    /// It ends with an ECHO of a text used once, and replies are read up to its reply. So a missing or an additional
    /// reply shows as well, and `CLIENT REPLY` needs no model of how many replies are due.
    pub fn pipeline(&mut self, number: usize, commands: &[Generated]) -> Result<(), Box<Difference>> {
        self.pipelines += 1;
        let marker = format!("end of pipeline {}", self.pipelines);
        let end = [Generated::plain("CLIENT REPLY ON"), Generated::of(&["ECHO", &marker])];
        let sent = || commands.iter().chain(&end);
        let bytes = sent().flat_map(Generated::encode).collect::<Vec<_>>();
        for command in commands {
            self.history.push_back(format!("{number}: {command}"));
        }
        self.history.drain(..self.history.len().saturating_sub(HISTORY));

        let pieces = self.cut(&bytes);
        let pair = &mut self.pairs[number];
        for piece in pieces {
            pair.proxied.send(&bytes[piece]);
        }
        let direct = match &mut pair.direct {
            Control::Server(client) => {
                client.send(&bytes);
                replies_until(client, &marker)
            }
            Control::Cluster(client) => sent().map(|command| told(client.try_divided(&command.args))).collect(),
        };
        let proxied = replies_until(&mut pair.proxied, &marker);
        let resp3 = pair.resp3;
        self.compare(resp3, commands, &direct, &proxied)
    }

    fn compare(
        &mut self,
        resp3: bool,
        commands: &[Generated],
        direct: &[Reply],
        proxied: &[Reply],
    ) -> Result<(), Box<Difference>> {
        // With a reply left out on purpose (CLIENT REPLY) replies and commands no longer go together one to one: then
        // all are compared as bytes, which the generator allows by not mixing those with unordered ones.
        let one_to_one = direct.len() == commands.len() + 2;
        for at in 0..direct.len().max(proxied.len()) {
            let missing = Reply(b"(no reply)".to_vec());
            let (left, right) = (direct.get(at).unwrap_or(&missing), proxied.get(at).unwrap_or(&missing));
            let command = commands.get(at).filter(|_| one_to_one);
            let compare = command.map_or(Compare::Bytes, |command| command.compare);
            if !compare.is_same(left, right) {
                return Err(Box::new(Difference {
                    request: command.map_or_else(|| format!("reply {at} of a pipeline"), ToString::to_string),
                    direct: left.clone(),
                    proxied: right.clone(),
                    history: self.history.iter().cloned().collect(),
                }));
            }
            self.compared += 1;
            self.errors += usize::from(left.is_error());
            if let Some(command) = command {
                self.tally.count(&command.args, resp3, left.is_error());
            }
        }
        Ok(())
    }

    /// Consecutive ranges of `bytes`, cut anywhere.
    fn cut(&mut self, bytes: &[u8]) -> Vec<std::ops::Range<usize>> {
        let mut cuts =
            (0..self.random.usize(..MOST_PIECES)).map(|_| self.random.usize(..=bytes.len())).collect::<Vec<_>>();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        cuts.windows(2).map(|pair| pair[0]..pair[1]).collect()
    }
}

fn told(reply: io::Result<Reply>) -> Reply {
    reply.unwrap_or_else(|error| Reply(format!("(no reply: {error})").into_bytes()))
}

/// Up to the marker; or up to where replies end, with why.
fn replies_until(client: &mut Client, marker: &str) -> Vec<Reply> {
    let mut replies = Vec::new();
    loop {
        let reply = client.try_reply();
        let is_last = reply.as_ref().map_or(true, |reply| reply.bulk() == Some(marker.as_bytes()));
        replies.push(told(reply));
        if is_last {
            return replies;
        }
    }
}

impl fmt::Debug for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let same = self.direct.iter().zip(self.proxied.iter()).take_while(|(left, right)| left == right).count();
        let from = |reply: &Reply| Reply(reply[same.saturating_sub(SHOWN_BEFORE)..].to_vec());
        let (direct, proxied) = (from(&self.direct), from(&self.proxied));
        writeln!(
            f,
            "\n  request {}\n  the first {same} bytes of the replies are the same; then\n  direct  {direct:?}",
            self.request
        )?;
        writeln!(f, "  proxied {proxied:?}\n  after")?;
        self.history.iter().try_for_each(|line| writeln!(f, "    {line}"))
    }
}
