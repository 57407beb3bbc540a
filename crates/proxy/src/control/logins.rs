//! Clients that log in as users of the upstream's ACL: the upstream is asked, by logging in.
//!
//! One connection is used for that and nothing else, and says AUTH again and again: ten thousand clients that connect at
//! once, or one that guesses, cost the upstream an AUTH each, as they would without a proxy, and no connections. To say it
//! again does no harm, so a connection that was lost meanwhile (Redis closes those of a user that is deleted) costs a
//! second try.

use std::sync::Arc;
use std::time::Duration;

use nearside_resp::encode;
use nearside_resp::frame::{self, Value};
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::time::timeout;

use crate::lanes::connect::{self, ConnectError};
use crate::net::socket::Socket;
use crate::shared::{Message, Shared};
use crate::topology::Node;
use crate::users::{Attempt, Verdict};

/// Attempts put together at most: what a lost connection makes to be said again.
const BATCH: usize = 128;
/// Nodes of a cluster that are tried before the client is told that none answers.
const NODES_TRIED: usize = 3;

/// Asks until the channel closes.
pub(super) async fn run(shared: Arc<Shared>, mut attempts: mpsc::Receiver<Attempt>) {
    let mut desk = Desk { shared, connection: None };
    let mut batch = Vec::with_capacity(BATCH);
    while attempts.recv_many(&mut batch, BATCH).await > 0 {
        match desk.ask(&batch).await {
            Ok(replies) => {
                for (attempt, reply) in batch.drain(..).zip(replies) {
                    desk.judge(attempt, &reply);
                }
            }
            Err(reason) => {
                // Those who came meanwhile would wait as long, for the same.
                while let Ok(attempt) = attempts.try_recv() {
                    batch.push(attempt);
                }
                let line = format!("UPSTREAM {reason}; the login was not carried out");
                for attempt in batch.drain(..) {
                    tell(&desk.shared, attempt.worker, attempt.session, Verdict::NotAsked(line.clone()));
                }
            }
        }
    }
}

struct Desk {
    shared: Arc<Shared>,
    connection: Option<(Arc<Node>, Socket)>,
}

impl Desk {
    /// The upstream's replies to all of them, or why there are none.
    async fn ask(&mut self, attempts: &[Attempt]) -> Result<Vec<Vec<u8>>, String> {
        let mut request = Vec::new();
        for Attempt { login, .. } in attempts {
            encode::command(&mut request, &[b"AUTH", &login.name, login.password.expose()]);
        }
        let request = zeroize::Zeroizing::new(request);
        // A node that is no longer part of the topology may know other users than those that are.
        let kept = self.connection.take().filter(|(node, _)| self.shared.topology.load().has(node));
        if let Some((node, socket)) = kept
            && let Ok(replies) = self.exchange(&socket, &request, attempts.len()).await
        {
            self.connection = Some((node, socket));
            return Ok(replies);
        }
        let nodes = self.shared.topology.load_full();
        let mut failure = "no node of the cluster has said yet who serves what".to_owned();
        for node in nodes.nodes().iter().take(NODES_TRIED) {
            match self.ask_at(node, &request, attempts.len()).await {
                Ok(replies) => return Ok(replies),
                Err(error) => failure = format!("{} is down: {error}", node.address()),
            }
        }
        self.shared.topology_doubted.notify_one();
        Err(failure)
    }

    async fn ask_at(&mut self, node: &Arc<Node>, request: &[u8], count: usize) -> Result<Vec<Vec<u8>>, ConnectError> {
        let socket = connect::bare(&self.shared.config, node).await?;
        let replies = self.exchange(&socket, request, count).await?;
        self.connection = Some((Arc::clone(node), socket));
        Ok(replies)
    }

    async fn exchange(&self, socket: &Socket, request: &[u8], count: usize) -> Result<Vec<Vec<u8>>, ConnectError> {
        let limit: Duration = self.shared.config.upstream_timeout;
        timeout(limit, connect::exchange(socket, request, count)).await.map_err(|_| ConnectError::Timeout(limit))?
    }

    fn judge(&self, attempt: Attempt, reply: &[u8]) {
        let Attempt { login, worker, session } = attempt;
        let verdict = match frame::parse(reply) {
            Ok(Value::Error(line)) => Verdict::Refused(line),
            Ok(_) if reply.starts_with(b"+OK") => match self.shared.users.enter(login) {
                Ok(user) => Verdict::LetIn(user),
                Err(too_many) => Verdict::NotAsked(too_many.to_string()),
            },
            _ => Verdict::NotAsked("UPSTREAM the answer to AUTH is none; the login was not carried out".to_owned()),
        };
        tell(&self.shared, worker, session, verdict);
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
