//! The same requests to two servers in the same order: every reply must be the same bytes.

use std::collections::VecDeque;
use std::fmt;

use crate::client::{Client, request};
use crate::generator::{Compare, Generated};
use crate::reply::Reply;
use crate::socket::Address;

/// Pairs of connections: one straight to a Redis of its own, one through the program to another.
#[derive(Debug)]
pub struct Worlds {
    pairs: Vec<Pair>,
    random: fastrand::Rng,
    /// The newest commands, for a report of a difference.
    history: VecDeque<String>,
    errors: usize,
    compared: usize,
    pipelines: u64,
}

#[derive(Debug)]
struct Pair {
    direct: Client,
    proxied: Client,
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
        let pairs = (0..connections).map(|number| {
            let mut pair = Pair { direct: Client::connect(direct), proxied: Client::connect(proxied) };
            if number % 2 == 1 {
                // Not compared: it tells the connection's id.
                for client in [&mut pair.direct, &mut pair.proxied] {
                    assert!(client.call("HELLO 3").starts_with(b"%"), "RESP3 is spoken");
                }
            }
            pair
        });
        Self {
            pairs: pairs.collect(),
            random: fastrand::Rng::with_seed(seed),
            history: VecDeque::new(),
            errors: 0,
            compared: 0,
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

    /// Sends one pipeline on connection `number` of both worlds and compares what comes back.
    ///
    /// It ends with an ECHO of a text used once, and replies are read up to its reply. So a missing or an additional
    /// reply shows as well, and `CLIENT REPLY` needs no model of how many replies are due.
    pub fn pipeline(&mut self, number: usize, commands: &[Generated]) -> Result<(), Box<Difference>> {
        self.pipelines += 1;
        let marker = format!("end of pipeline {}", self.pipelines);
        let mut bytes = commands.iter().flat_map(Generated::encode).collect::<Vec<_>>();
        bytes.extend(request(&["CLIENT", "REPLY", "ON"]));
        bytes.extend(request(&["ECHO", &marker]));
        for command in commands {
            self.history.push_back(format!("{number}: {command}"));
        }
        self.history.drain(..self.history.len().saturating_sub(HISTORY));

        let pieces = self.cut(&bytes);
        let pair = &mut self.pairs[number];
        pair.direct.send(&bytes);
        for piece in pieces {
            pair.proxied.send(&bytes[piece]);
        }
        let direct = replies_until(&mut pair.direct, &marker);
        let proxied = replies_until(&mut pair.proxied, &marker);
        self.compare(commands, &direct, &proxied)
    }

    fn compare(&mut self, commands: &[Generated], direct: &[Reply], proxied: &[Reply]) -> Result<(), Box<Difference>> {
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

/// Up to the marker; or up to where replies end, with why.
fn replies_until(client: &mut Client, marker: &str) -> Vec<Reply> {
    let mut replies = Vec::new();
    loop {
        let reply = match client.try_reply() {
            Ok(reply) => reply,
            Err(error) => {
                replies.push(Reply(format!("(no reply: {error})").into_bytes()));
                return replies;
            }
        };
        let is_last = reply.bulk() == Some(marker.as_bytes());
        replies.push(reply);
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
