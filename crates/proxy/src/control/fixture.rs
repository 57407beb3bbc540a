//! For the tests of the control plane: settings, shared state without workers, and an upstream that does as told.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use nearside_resp::{Limits, Progress, RequestDecoder};
use tokio::sync::mpsc;

use super::upstream::UpstreamClient;
use crate::config::{self, Config, Invocation};
use crate::shared::{Message, Shared};

/// The settings of a command line.
pub(super) fn config(flags: &[&str]) -> Config {
    let args = ["nearside"].iter().chain(flags).map(Into::into);
    match config::load(args, |_| None) {
        Ok(Invocation::Run(config)) => *config,
        other => panic!("{flags:?}: {other:?}"),
    }
}

/// What the workers would share, and the mailboxes that they would read.
pub(super) fn shared(flags: &[&str]) -> (Arc<Shared>, Vec<mpsc::Receiver<Message>>) {
    let config = config(flags);
    let (mailboxes, inboxes) = (0..config.workers).map(|_| mpsc::channel(16)).unzip();
    let (unknown_commands, _) = mpsc::channel(1);
    (Arc::new(Shared::new(config, None, mailboxes, unknown_commands)), inboxes)
}

/// A client of the upstream of these settings.
pub(super) fn client(config: &Config) -> UpstreamClient {
    UpstreamClient::new(config, &config.upstream.seeds()[0], config.upstream.credentials.as_ref())
}

/// The URL of an upstream that is not there.
pub(super) fn refusing_url() -> String {
    let address = TcpListener::bind("127.0.0.1:0").expect("a port is free").local_addr().expect("it is bound");
    format!("redis://{address}")
}

/// What an upstream does with a request.
#[derive(Clone, Debug)]
pub(super) enum Reaction {
    Say(String),
    Nothing,
    HangUp,
}

impl Reaction {
    pub(super) fn say(reply: impl Into<String>) -> Self {
        Reaction::Say(reply.into())
    }

    /// As a Redis without data.
    pub(super) fn polite(request: &str) -> Self {
        Reaction::say(match request {
            "PING" => "+PONG\r\n",
            "CLIENT ID" => ":1\r\n",
            "INFO server" => "$19\r\nredis_version:8.0.0\r\n",
            "CLIENT SETNAME nearside-control" => "+OK\r\n",
            _ => "-ERR unknown command\r\n",
        })
    }
}

/// A server on a port of its own, whose threads end with the connections.
#[derive(Debug)]
pub(super) struct FakeUpstream {
    address: SocketAddr,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    heard: Mutex<Vec<String>>,
    connections: AtomicUsize,
    closed: AtomicUsize,
    silent: AtomicBool,
    streams: Mutex<Vec<TcpStream>>,
}

impl FakeUpstream {
    /// Reacts to requests, given as their arguments with spaces in between.
    pub(super) fn start(react: impl Fn(&str) -> Reaction + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let (state, react) = (Arc::<State>::default(), Arc::new(react));
        let upstream = FakeUpstream { address, state: Arc::clone(&state) };
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                state.connections.fetch_add(1, Ordering::Relaxed);
                let (state, react) = (Arc::clone(&state), Arc::clone(&react));
                state.streams.lock().expect("no test fails in here").extend(stream.try_clone());
                thread::spawn(move || {
                    // However the connection ends, it has ended.
                    let _ = serve(stream, &state, &*react);
                    state.closed.fetch_add(1, Ordering::Relaxed);
                });
            }
        });
        upstream
    }

    pub(super) fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// Connections that were made.
    pub(super) fn connections(&self) -> usize {
        self.state.connections.load(Ordering::Relaxed)
    }

    pub(super) fn open_connections(&self) -> usize {
        self.connections() - self.state.closed.load(Ordering::Relaxed)
    }

    /// Closes every connection, as `CLIENT KILL` does.
    pub(super) fn hang_up(&self) {
        let mut streams = self.state.streams.lock().expect("no test fails in here");
        streams.drain(..).for_each(|stream| stream.shutdown(Shutdown::Both).unwrap_or_default());
    }

    /// Whether to answer nothing at all.
    pub(super) fn set_silent(&self, silent: bool) {
        self.state.silent.store(silent, Ordering::Relaxed);
    }

    pub(super) fn heard(&self, request: &str) -> bool {
        self.count(request) > 0
    }

    pub(super) fn count(&self, request: &str) -> usize {
        self.count_if(|heard| heard == request)
    }

    pub(super) fn count_starting(&self, start: &str) -> usize {
        self.count_if(|heard| heard.starts_with(start))
    }

    fn count_if(&self, matches: impl Fn(&str) -> bool) -> usize {
        let heard = self.state.heard.lock().expect("no test fails in here");
        heard.iter().filter(|heard| matches(heard)).count()
    }
}

fn serve(mut stream: TcpStream, state: &State, react: &dyn Fn(&str) -> Reaction) -> std::io::Result<()> {
    let mut received = Vec::new();
    let mut decoder = RequestDecoder::default();
    let mut buffer = [0; 4096];
    loop {
        let read = stream.read(&mut buffer)?;
        if read == 0 {
            return Ok(());
        }
        received.extend_from_slice(&buffer[..read]);
        while let Ok(Progress::Request { len }) = decoder.decode(&received, &Limits::authenticated(1 << 20)) {
            let request = decoder.request(&received);
            let words: Vec<_> = request.args().map(String::from_utf8_lossy).collect();
            let request = words.join(" ");
            received.drain(..len);
            let reaction = if state.silent.load(Ordering::Relaxed) { Reaction::Nothing } else { react(&request) };
            state.heard.lock().expect("no test fails in here").push(request);
            match reaction {
                Reaction::Say(reply) => stream.write_all(reply.as_bytes())?,
                Reaction::Nothing => {}
                Reaction::HangUp => return Ok(()),
            }
        }
    }
}
