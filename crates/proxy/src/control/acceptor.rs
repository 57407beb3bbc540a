//! Accepts clients and hands each to the worker that has the fewest.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::config::Config;
use crate::metrics::Refusal;
use crate::net::listener::Acceptor;
use crate::net::socket::Stream;
use crate::shared::{Message, Shared};

/// Redis's own words.
const TOO_MANY_CLIENTS: &[u8] = b"-ERR max number of clients reached\r\n";
/// Redis's code, and the settings that let the client in.
const PROTECTED: &[u8] = b"-DENIED Nearside is in protected mode: it has no password, so it serves only clients on its own \
    machine. To serve others set requirepass, or, if everybody who can reach this port may read and write the data, \
    set protected-mode to false.\r\n";
/// After an error of the machine's (out of files, out of memory); waiting connections stay in the kernel's queue.
const PAUSE: Duration = Duration::from_millis(100);
/// Between two lines of the log about the same trouble.
const SILENCE: Duration = Duration::from_secs(60);

/// Accepts until the set is dropped, which closes the listeners.
pub(super) fn start(shared: &Arc<Shared>, acceptors: Vec<Acceptor>) -> JoinSet<()> {
    acceptors.into_iter().map(|acceptor| accept_all(Arc::clone(shared), acceptor)).collect()
}

/// All that wait are accepted in one go: asking the kernel for one more is what tells that there is none.
async fn accept_all(shared: Arc<Shared>, acceptor: Acceptor) {
    let mut trouble = Seldom::default();
    loop {
        match acceptor.accept().await {
            Ok(stream) => {
                if let Err(error) = admit(&shared, stream) {
                    trouble.report(&format!("a connection could not be served: {error}"));
                }
            }
            Err(error) => {
                shared.acceptor.refused(Refusal::System);
                trouble.report(&format!("cannot accept connections: {error}"));
                sleep(PAUSE).await;
            }
        }
    }
}

/// Gives the connection to a worker, or tells the client why not.
fn admit(shared: &Shared, stream: Stream) -> io::Result<()> {
    let clients: usize = shared.clients.iter().map(|count| count.load(Relaxed)).sum();
    stream.prepare(shared.config.tcp_keepalive)?;
    if clients >= shared.max_clients.load(Relaxed) {
        turn_away(shared, &stream, Refusal::MaxClients, TOO_MANY_CLIENTS);
    } else if is_protected(&shared.config) && !stream.is_local() {
        turn_away(shared, &stream, Refusal::ProtectedMode, PROTECTED);
    } else {
        hand_over(shared, stream)?;
    }
    Ok(())
}

/// Redis's protected mode: without a password only this machine is served.
fn is_protected(config: &Config) -> bool {
    config.protected_mode && config.requirepass.is_none()
}

fn turn_away(shared: &Shared, stream: &Stream, why: Refusal, words: &[u8]) {
    shared.acceptor.refused(why);
    // A new connection's buffer has room for a line; should the client be gone already, it needs none.
    let _ = match stream {
        Stream::Tcp(stream) => (&*stream).write(words),
        Stream::Unix(stream) => (&*stream).write(words),
    };
}

fn hand_over(shared: &Shared, stream: Stream) -> io::Result<()> {
    let counts = shared.clients.iter().enumerate();
    let (worker, count) = counts.min_by_key(|(_, count)| count.load(Relaxed)).expect("there is a worker");
    // Counted here and not by the worker: of many that connect at once, none of which it has taken yet, each shall go
    // to another.
    count.fetch_add(1, Relaxed);
    shared.mailboxes[worker].try_send(Message::Connection(stream)).map_err(|_| {
        count.fetch_sub(1, Relaxed);
        shared.acceptor.refused(Refusal::System);
        io::Error::other(format!("worker {worker} does not read its mailbox"))
    })
}

/// Says something once in a while, however often it happens.
#[derive(Debug, Default)]
struct Seldom {
    last: Option<Instant>,
}

impl Seldom {
    fn report(&mut self, words: &str) {
        if self.is_due(Instant::now()) {
            tracing::error!("{words}");
        }
    }

    fn is_due(&mut self, now: Instant) -> bool {
        let due = self.last.is_none_or(|last| now - last >= SILENCE);
        if due {
            self.last = Some(now);
        }
        due
    }
}
