//! Clients that log in as users of the upstream's ACL: the upstream is asked, by logging in.
//!
//! A few connections are used for that and nothing else, and say AUTH again and again: ten thousand clients that connect at
//! once, or one that guesses, cost the upstream an AUTH each, as they would without a proxy, and no connections. To say it
//! again does no harm, so a connection that was lost meanwhile (Redis closes those of a user that is deleted) costs a
//! second try.
//!
//! Each waits for its reply before the next: newer servers give no reply at all to an AUTH that fails while another reply is
//! still to be sent (seen with Redis 8.0.2 and Valkey 8.1.1; `addAuthErrReply` in `acl.c`).

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nearside_nearcache::Time;
use nearside_resp::encode;
use nearside_resp::frame::{self, Value};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::time::{sleep, timeout};
use zeroize::Zeroizing;

use crate::lanes::connect::{self, ConnectError};
use crate::net::clock;
use crate::net::socket::Socket;
use crate::shared::{Message, Shared};
use crate::topology::Node;
use crate::users::{Attempt, Login, Verdict};

/// Connections for logins: at a round trip of a millisecond, some thousands a second.
const CONNECTIONS: usize = 4;
/// Nodes of a cluster that are tried before the client is told that none answers.
const NODES_TRIED: usize = 3;
/// How long a node may take to answer, or to be reached, where there is another one to ask.
const IMPATIENCE: Duration = Duration::from_millis(500);
/// Between two looks at whether a node that is being asked is still a primary.
const LOOK: Duration = Duration::from_millis(50);

/// Asks until the channel closes.
pub(super) async fn run(shared: Arc<Shared>, mut attempts: mpsc::Receiver<Attempt>) {
    let desk = Arc::new(Desk { shared, idle: Mutex::default(), failure: Mutex::default() });
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    while let Some(attempt) = attempts.recv().await {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        let desk = Arc::clone(&desk);
        tokio::spawn(async move {
            desk.serve(attempt).await;
            drop(permit);
        });
    }
}

struct Desk {
    shared: Arc<Shared>,
    /// Connections that nobody uses at the moment.
    idle: Mutex<Vec<Connection>>,
    /// The last time that the upstream could not be asked, and why.
    failure: Mutex<Option<(Time, String)>>,
}

struct Connection {
    node: Arc<Node>,
    socket: Socket,
}

impl Desk {
    async fn serve(&self, attempt: Attempt) {
        let Attempt { login, since, worker, session } = attempt;
        let verdict = match self.failure_after(since) {
            // Who waited while it was found out does not find it out again, at the cost of all who wait behind.
            Some(reason) => Err(reason),
            None => self.ask(&login).await,
        };
        let verdict = match verdict {
            Ok(reply) => self.judge(login, &reply),
            Err(reason) => Verdict::NotAsked(format!("UPSTREAM {reason}; the login was not carried out")),
        };
        tell(&self.shared, worker, session, verdict);
    }

    fn failure_after(&self, since: Time) -> Option<String> {
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.as_ref().filter(|(at, _)| *at >= since).map(|(_, reason)| reason.clone())
    }

    /// The upstream's reply, or why there is none.
    async fn ask(&self, login: &Login) -> Result<Vec<u8>, String> {
        let mut request = Zeroizing::new(Vec::new());
        encode::command(&mut request, &[b"AUTH", &login.name, login.password.expose()]);
        let failure = match self.shared.topology.load().is_cluster() {
            true => "no node of the cluster has said yet who serves what",
            false => "no Sentinel has named a primary yet that says it is one",
        };
        let mut failure = failure.to_owned();
        let mut silent = None;
        // A node that is no longer part of the topology may know other users than those that are.
        let kept = self.idle().pop().filter(|kept| self.shared.topology.load().has(&kept.node));
        if let Some(kept) = kept {
            let node = Arc::clone(&kept.node);
            match timeout(self.limit(false), self.exchange(kept, &request)).await {
                Ok(Ok(reply)) => return Ok(reply),
                // It may have been closed, or forgotten on its way, for no other reason than that it was idle.
                Ok(Err(_)) => {}
                Err(_) => silent = Some(node.id()),
            }
        }
        let mut nodes = self.shared.topology.load().nodes().to_vec();
        // Another one first.
        nodes.sort_by_key(|node| silent == Some(node.id()));
        nodes.truncate(NODES_TRIED);
        for (number, node) in (1..).zip(&nodes) {
            match timeout(self.limit(number == nodes.len()), self.ask_at(node, &request)).await {
                Ok(Ok(reply)) => return Ok(reply),
                Ok(Err(error)) => failure = format!("{} is down: {error}", node.address()),
                Err(_) => failure = format!("{} does not answer", node.address()),
            }
        }
        self.shared.topology_doubted.notify_one();
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some((clock::now(), failure.clone()));
        Err(failure)
    }

    /// How long a node may take: less than the settings say where another one can be asked.
    fn limit(&self, is_last: bool) -> Duration {
        let limit = self.shared.config.upstream_timeout;
        if is_last { limit } else { limit.min(IMPATIENCE) }
    }

    async fn ask_at(&self, node: &Arc<Node>, request: &[u8]) -> Result<Vec<u8>, ConnectError> {
        let socket = connect::bare(&self.shared.config, node).await?;
        self.exchange(Connection { node: Arc::clone(node), socket }, request).await
    }

    /// Keeps the connection, if it has answered. Fails at once when another node has taken over.
    async fn exchange(&self, connection: Connection, request: &[u8]) -> Result<Vec<u8>, ConnectError> {
        let replies = tokio::select! {
            replies = connect::exchange(&connection.socket, request, 1) => replies?,
            () = self.left_behind(&connection.node) => return Err(io::Error::other("it is no primary any more").into()),
        };
        self.idle().push(connection);
        Ok(replies.into_iter().next().expect("as many as were asked for"))
    }

    async fn left_behind(&self, node: &Node) {
        while self.shared.topology.load().has(node) {
            sleep(LOOK).await;
        }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn judge(&self, login: Login, reply: &[u8]) -> Verdict {
        match frame::parse(reply) {
            Ok(Value::Error(line)) => Verdict::Refused(line),
            Ok(_) if reply.starts_with(b"+OK") => match self.shared.users.enter(login) {
                Ok(user) => Verdict::LetIn(user),
                Err(too_many) => Verdict::NotAsked(too_many.to_string()),
            },
            _ => Verdict::NotAsked(
                "UPSTREAM the answer to AUTH was not one of Redis; the login was not carried out".to_owned(),
            ),
        }
    }
}

/// To the session's worker.
fn tell(shared: &Shared, worker: usize, session: u64, verdict: Verdict) {
    let counter = match verdict {
        Verdict::LetIn(_) => &shared.users.let_in,
        Verdict::Refused(_) => &shared.users.refused,
        Verdict::NotAsked(_) => &shared.users.failed,
    };
    counter.add(1);
    let mailbox = &shared.mailboxes[worker];
    if let Err(TrySendError::Full(message)) = mailbox.try_send(Message::LoggedIn { session, verdict }) {
        let mailbox = mailbox.clone();
        // Bounded by the sessions there are; a worker that has ended needs no answer.
        tokio::spawn(async move { drop(mailbox.send(message).await) });
    }
}
