//! Accepts clients and hands each to the worker that has the fewest.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;

use super::seldom::Seldom;
use crate::config::Config;
use crate::metrics::Refusal;
use crate::net::listener::Acceptor;
use crate::net::socket::Stream;
use crate::shared::{Message, Shared};

/// Redis's own words.
const TOO_MANY_CLIENTS: &[u8] = b"-ERR max number of clients reached\r\n";
/// Redis's code, and the settings that let the client in.
const PROTECTED: &[u8] =
    b"-DENIED Nearside is in protected mode: it has no password, so it serves only clients on its own \
    machine. To serve others set requirepass, or, if everybody who can reach this port may read and write the data, \
    set protected-mode to false.\r\n";
/// After an error of the machine's (out of files, out of memory); waiting connections stay in the kernel's queue.
const PAUSE: Duration = Duration::from_millis(100);

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
                if let Err(error) = admit(&shared, stream)
                    && trouble.is_due()
                {
                    tracing::error!("a connection could not be served: {error}");
                }
            }
            Err(error) => {
                shared.acceptor.refused(Refusal::System);
                if trouble.is_due() {
                    tracing::error!("cannot accept connections: {error}");
                }
                sleep(PAUSE).await;
            }
        }
    }
}

/// Gives the connection to a worker, or tells the client why not.
fn admit(shared: &Shared, stream: Stream) -> io::Result<()> {
    // A client that is gone already has nothing to be told.
    if stream.prepare(shared.config.tcp_keepalive).is_err() {
        return Ok(());
    }
    match refusal(shared, &stream) {
        Some(Refusal::MaxClients) => turn_away(shared, &stream, Refusal::MaxClients, TOO_MANY_CLIENTS),
        Some(why) => turn_away(shared, &stream, why, PROTECTED),
        None => hand_over(shared, stream)?,
    }
    Ok(())
}

/// In the order in which Redis checks it.
fn refusal(shared: &Shared, stream: &Stream) -> Option<Refusal> {
    let clients: usize = shared.clients.iter().map(|count| count.load(Relaxed)).sum();
    if clients >= shared.max_clients.load(Relaxed) {
        Some(Refusal::MaxClients)
    } else if is_protected(&shared.config) && !stream.is_local() {
        Some(Refusal::ProtectedMode)
    } else {
        None
    }
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};

    use tokio::sync::mpsc;

    use super::*;
    use crate::control::fixture;

    /// The client's end, and the end that the acceptor gets.
    fn connect() -> (TcpStream, Stream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        (client, Stream::Tcp(listener.accept().unwrap().0))
    }

    fn take(mailbox: &mut mpsc::Receiver<Message>) -> Option<Stream> {
        match mailbox.try_recv().ok()? {
            Message::Connection(stream) => Some(stream),
            _ => panic!("another message"),
        }
    }

    #[test]
    fn each_client_goes_to_the_worker_with_the_fewest() {
        let (shared, mut mailboxes) = fixture::shared(&["--workers", "3"]);
        shared.clients[0].store(2, Relaxed);
        for _ in 0..4 {
            admit(&shared, connect().1).unwrap();
        }
        let taken = mailboxes.iter_mut().map(|mailbox| std::iter::from_fn(|| take(mailbox)).count());
        assert_eq!(taken.collect::<Vec<_>>(), [0, 2, 2]);
        assert!(shared.clients.iter().all(|count| count.load(Relaxed) == 2));
    }

    #[test]
    fn one_client_too_many_is_told_so_in_redis_words_and_closed() {
        let (shared, mut mailboxes) = fixture::shared(&["--workers", "2", "--max-clients", "2"]);
        let welcome: Vec<_> = (0..2).map(|_| connect()).collect();
        let clients: Vec<_> = welcome.into_iter().map(|(client, stream)| (client, admit(&shared, stream))).collect();
        let (mut last, stream) = connect();
        admit(&shared, stream).unwrap();
        let mut words = String::new();
        last.read_to_string(&mut words).unwrap();
        assert_eq!(words, "-ERR max number of clients reached\r\n");
        assert_eq!(shared.acceptor.refused[Refusal::MaxClients as usize].get(), 1);
        assert!(clients.iter().all(|(_, admitted)| admitted.is_ok()));
        assert!(mailboxes.iter_mut().all(|mailbox| take(mailbox).is_some() && take(mailbox).is_none()));
    }

    #[test]
    fn without_a_password_only_this_machine_is_served_unless_the_settings_say_otherwise() {
        assert!(is_protected(&fixture::config(&[])));
        assert!(!is_protected(&fixture::config(&["--protected-mode", "false"])));
        assert!(!is_protected(&fixture::config(&["--requirepass", "secret"])));
        let (shared, _mailboxes) = fixture::shared(&[]);
        assert_eq!(refusal(&shared, &connect().1), None);
    }

    #[test]
    fn the_refusals_are_one_line_each() {
        for words in [PROTECTED, TOO_MANY_CLIENTS] {
            let line = words.strip_suffix(b"\r\n").unwrap();
            assert!(line.starts_with(b"-") && !line.iter().any(u8::is_ascii_control));
        }
        assert!(!String::from_utf8_lossy(PROTECTED).contains("  "));
    }

    #[test]
    fn a_worker_that_does_not_read_its_mailbox_gets_no_client() {
        let (shared, mailboxes) = fixture::shared(&["--workers", "1"]);
        drop(mailboxes);
        assert!(admit(&shared, connect().1).is_err());
        assert_eq!(shared.clients[0].load(Relaxed), 0);
        assert_eq!(shared.acceptor.refused[Refusal::System as usize].get(), 1);
    }
}
