//! A dialogue of several clients with a server, as text: held with Redis itself and through the program, it must read the same.
//!
//! ```text
//! a: SET k v              client a sends a command and reads its reply
//! a| MULTI | GET k | EXEC client a sends all of them in one write, then reads a reply to each
//! a> BLPOP q 0            client a sends, and does not read yet
//! a<                      client a reads a reply
//! a< 3                    client a reads so many replies, or messages
//! a~ HELLO 3              client a sends a command and reads its reply, which may be any
//! a!                      client a hangs up
//! blocked 1               so many clients wait at the server now
//! ```
//!
//! `{t}` is a hash tag that no other dialogue has: its keys are new, and of one slot.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use crate::client::{Client, words};
use crate::cluster::RedisCluster;
use crate::nearside::{Nearside, calibrating};
use crate::patience::eventually;
use crate::redis_server::RedisServer;
use crate::socket::Address;

const SOON: Duration = Duration::from_secs(10);

/// One who answers.
#[derive(Clone, Copy)]
struct Side<'a> {
    /// Where clients connect.
    address: &'a Address,
    /// The servers behind it.
    servers: &'a [&'a RedisServer],
}

/// The same dialogue with Redis and with the program, which must read the same.
struct Dialogue<'a> {
    /// Redis.
    direct: Side<'a>,
    /// The program.
    proxied: Side<'a>,
}

impl Dialogue<'_> {
    /// Holds it on both sides, in RESP2 and in RESP3.
    ///
    /// # Panics
    /// When a reply is another one.
    #[track_caller]
    fn is_the_same(&self, script: &str) {
        for resp3 in [false, true] {
            let tag = format!("{{{}}}", fastrand::u64(..));
            let [expected, seen] =
                [self.direct, self.proxied].map(|side| held(side, resp3, &script.replace("{t}", &tag)));
            assert!(expected == seen, "with Redis:\n{expected}\nthrough Nearside:\n{seen}");
        }
    }
}

/// Holds each dialogue with a Redis, and through a Nearside before another one.
///
/// # Panics
/// When a reply is another one.
#[track_caller]
pub fn same_before_one_server(scripts: &[&str]) {
    let (direct, behind) = (RedisServer::start(), RedisServer::start());
    let nearside = Nearside::before(&behind);
    same(&direct, &nearside, &[&behind], scripts);
}

/// The same before a cluster: one Redis is what its clients are to see.
///
/// # Panics
/// When a reply is another one.
#[track_caller]
pub fn same_before_a_cluster(scripts: &[&str]) {
    if calibrating("cluster") {
        return;
    }
    let (direct, behind) = (RedisServer::start(), RedisCluster::start(2));
    let nearside = Nearside::ready_before_cluster(&behind, &[]);
    same(&direct, &nearside, &[behind.node(0), behind.node(1)], scripts);
}

#[track_caller]
fn same(direct: &RedisServer, nearside: &Nearside, behind: &[&RedisServer], scripts: &[&str]) {
    let address = direct.address();
    let dialogue = Dialogue {
        direct: Side { address: &address, servers: &[direct] },
        proxied: Side { address: nearside.address(), servers: behind },
    };
    scripts.iter().for_each(|script| dialogue.is_the_same(script));
}

/// Holds the dialogue; gives it with all replies.
#[track_caller]
fn held(side: Side<'_>, resp3: bool, script: &str) -> String {
    let mut clients = BTreeMap::new();
    let mut transcript = String::new();
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        writeln!(transcript, "{line}").expect("a String takes everything");
        if let Some(count) = line.strip_prefix("blocked ") {
            let count: u64 = count.parse().expect("a number of clients");
            let blocked = || (side.blocked() == count).then_some(());
            eventually(&format!("{count} clients wait\n{transcript}"), SOON, blocked);
            continue;
        }
        let (name, rest) = line.split_at(line.find([':', '|', '>', '<', '!', '~']).expect("a client and what it does"));
        let client = clients.entry(name.to_owned()).or_insert_with(|| connect(side, resp3));
        let (act, text) = rest.split_at(1);
        let replies = match act {
            ":" => vec![client.call(text)],
            "|" => client.pipeline(&text.split('|').collect::<Vec<_>>()),
            "<" => {
                let count = if text.is_empty() { 1 } else { text.trim().parse().expect("a number of replies") };
                (0..count).map(|_| client.reply()).collect()
            }
            "~" => {
                client.call(text);
                vec![]
            }
            ">" => {
                client.send(&words(text));
                vec![]
            }
            _ => {
                clients.remove(name);
                vec![]
            }
        };
        for reply in replies {
            writeln!(transcript, "    {reply:?}").expect("a String takes everything");
        }
    }
    transcript
}

impl Side<'_> {
    /// Clients that wait at the servers.
    fn blocked(self) -> u64 {
        let line = |server: &&RedisServer| {
            let info = server.client().call("INFO clients");
            let info = String::from_utf8_lossy(info.bulk().expect("a text")).into_owned();
            let count =
                info.lines().find_map(|line| line.strip_prefix("blocked_clients:")).and_then(|n| n.trim().parse().ok());
            count.unwrap_or(0_u64)
        };
        self.servers.iter().map(line).sum()
    }
}

fn connect(side: Side<'_>, resp3: bool) -> Client {
    let mut client = Client::connect(side.address);
    if resp3 {
        // Not part of the dialogue: it tells the connection's id.
        client.speak_resp3();
    }
    client
}
