//! A proxy that is wrong on purpose, in one way at a time: what the checks of faults are themselves checked with.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use crate::client::words;
use crate::cluster::RedisCluster;
use crate::cluster_client::ClusterClient;
use crate::reply::Reply;
use crate::socket::Address;

/// The ways to be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// In none: the control.
    InNoWay,
    /// Now and then two neighbouring replies change places.
    SwapsReplies,
    /// Now and then a write is sent twice, and one reply is dropped.
    ResendsWrites,
    /// Now and then a write is acknowledged that was never sent.
    LosesWrites,
    /// Now and then a write is sent, and its client told that it was not.
    DeniesWrites,
    /// Now and then a reply never comes.
    HoldsRepliesBack,
    /// Now and then a connection is closed instead of an answer given.
    ClosesConnections,
    /// A GET is answered for ever as it was the first time.
    CachesForEver,
}

/// How rare "now and then" is: one in so many requests.
const RARITY: usize = 50;

/// Listens on a port of its own, before `redis`, one request at a time on each connection.
#[derive(Debug)]
pub struct WrongProxy {
    address: Address,
}

type Cache = Arc<Mutex<HashMap<Vec<u8>, Vec<u8>>>>;

impl WrongProxy {
    /// Starts one. Its threads end with their connections.
    #[must_use]
    pub fn before(redis: &Address, wrong: Wrong) -> Self {
        Self::before_all(vec![redis.clone()], wrong)
    }

    /// Starts one before a cluster.
    #[must_use]
    pub fn before_cluster(cluster: &RedisCluster, wrong: Wrong) -> Self {
        Self::before_all(cluster.addresses(), wrong)
    }

    fn before_all(seeds: Vec<Address>, wrong: Wrong) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port is free");
        let port = listener.local_addr().expect("a bound socket has an address").port();
        let cache = Cache::default();
        std::thread::spawn(move || {
            while let Ok((client, _)) = listener.accept() {
                let (seeds, cache) = (seeds.clone(), Arc::clone(&cache));
                std::thread::spawn(move || Connection::serve(&client, seeds, wrong, cache));
            }
        });
        Self { address: Address::local(port) }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }
}

struct Connection {
    seeds: Vec<Address>,
    server: ClusterClient,
    wrong: Wrong,
    cache: Cache,
    seen: usize,
    /// A reply that lets its successor go first.
    held: Option<Vec<u8>>,
}

impl Connection {
    fn serve(client: &TcpStream, seeds: Vec<Address>, wrong: Wrong, cache: Cache) -> Option<()> {
        client.set_nodelay(true).ok()?;
        let mut requests = BufReader::new(client);
        let server = ClusterClient::connect(&seeds);
        let mut connection = Self { seeds, server, wrong, cache, seen: 0, held: None };
        loop {
            let request = read_request(&mut requests).ok()?;
            connection.seen += 1;
            for reply in connection.answer(&request).ok()? {
                (&mut &*client).write_all(&reply).ok()?;
            }
        }
    }

    fn answer(&mut self, request: &Reply) -> io::Result<Vec<Vec<u8>>> {
        let is_write = request.elements().first().and_then(Reply::bulk) == Some(b"RPUSH");
        let now = self.seen.is_multiple_of(RARITY);
        match self.wrong {
            Wrong::SwapsReplies if self.held.is_some() || now => {
                let reply = self.ask(request)?;
                Ok(match self.held.take() {
                    Some(held) => vec![reply, held],
                    None => {
                        self.held = Some(reply);
                        Vec::new()
                    }
                })
            }
            Wrong::ResendsWrites if now && is_write => {
                self.ask(request)?;
                Ok(vec![self.ask(request)?])
            }
            Wrong::LosesWrites if now && is_write => Ok(vec![b":1000000\r\n".to_vec()]),
            Wrong::DeniesWrites if now && is_write => {
                self.ask(request)?;
                Ok(vec![b"-UPSTREAM lost; the command was not sent\r\n".to_vec()])
            }
            Wrong::HoldsRepliesBack if now => Ok(Vec::new()),
            Wrong::ClosesConnections if now => Err(io::ErrorKind::ConnectionAborted.into()),
            Wrong::CachesForEver if request.elements().first().and_then(Reply::bulk) == Some(b"GET") => {
                let known = self.cache.lock().expect("no thread panics with the lock").get(&request.0).cloned();
                let reply = known.map_or_else(|| self.ask(request), Ok)?;
                self.cache.lock().expect("no thread panics with the lock").insert(request.0.clone(), reply.clone());
                Ok(vec![reply])
            }
            _ => Ok(vec![self.ask(request)?]),
        }
    }

    fn ask(&mut self, request: &Reply) -> io::Result<Vec<u8>> {
        let args = request.elements().iter().map(|arg| arg.bulk().unwrap_or_default().to_vec()).collect::<Vec<_>>();
        if args[0] == b"HELLO" && args.get(1).is_some_and(|version| version == b"3") {
            // Every node has to be told.
            self.server = ClusterClient::connect(&self.seeds).with_resp3();
        }
        let reply = self.server.try_divided(&args);
        Ok(reply.map_or_else(|error| format!("-UPSTREAM {error}\r\n").into_bytes(), |reply| reply.0))
    }
}

/// An array of bulk strings, which reads like a reply, or an inline command of plain words, made one.
fn read_request(requests: &mut impl BufRead) -> io::Result<Reply> {
    if requests.fill_buf()?.first() == Some(&b'*') {
        return Reply::read(requests);
    }
    let mut line = String::new();
    match requests.read_line(&mut line)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(Reply(words(&line))),
    }
}
