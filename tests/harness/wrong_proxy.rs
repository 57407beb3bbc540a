//! A proxy that is wrong on purpose, in one way at a time: what the checks of faults are themselves checked with.

use std::collections::HashMap;
use std::io::{self, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use crate::reply::Reply;
use crate::socket::{Address, Socket};

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
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port is free");
        let port = listener.local_addr().expect("a bound socket has an address").port();
        let redis = redis.clone();
        let cache = Cache::default();
        std::thread::spawn(move || {
            while let Ok((client, _)) = listener.accept() {
                let Ok(server) = redis.connect() else { continue };
                let cache = Arc::clone(&cache);
                std::thread::spawn(move || Connection::serve(&client, server, wrong, cache));
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
    server: BufReader<Socket>,
    wrong: Wrong,
    cache: Cache,
    seen: usize,
    /// A reply that lets its successor go first.
    held: Option<Vec<u8>>,
}

impl Connection {
    fn serve(client: &TcpStream, server: Socket, wrong: Wrong, cache: Cache) -> Option<()> {
        client.set_nodelay(true).ok()?;
        let mut requests = BufReader::new(client);
        let mut connection = Self { server: BufReader::new(server), wrong, cache, seen: 0, held: None };
        loop {
            // A request is an array of bulk strings, and so reads like a reply.
            let request = Reply::read(&mut requests).ok()?;
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
        self.server.get_mut().write_all(request)?;
        Ok(Reply::read(&mut self.server)?.0)
    }
}
