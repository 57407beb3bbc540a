//! What the proxy itself says to the upstream. It goes through `fred`, which this module alone knows; what clients say goes
//! on lanes (docs/decisions has the reasons).
//!
//! One client is one connection here: it never reconnects, resends or queues. After any error it is thrown away, and the
//! next question gets a new one. Only commands whose replies data cannot choose are sent: fred takes an array like
//! `[message, a, b]` for a message of a subscription, and from then on every reply for the one to the question before.

use std::sync::Arc;
use std::time::Duration;

use fred::clients::Client;
use fred::interfaces::{ClientLike, Resp3Frame};
use fred::types::config::{
    Config as FredConfig, ConnectionConfig, PerformanceConfig, Server, ServerConfig, TcpConfig, UnresponsiveConfig,
};
use fred::types::{ConnectHandle, CustomCommand, RespVersion, cluster::ClusterHash};
use nearside_resp::frame::Value;
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::config::{Config, UpstreamAddress};

/// How long an answer may take. What is asked takes a server microseconds; who has not answered by then is not well.
const ANSWER_TIME: Duration = Duration::from_secs(2);
/// Questions that wait for their answers at a time, far more than are ever asked.
const MAX_QUESTIONS: usize = 1024;
/// What the connection is called in the upstream's `CLIENT LIST`.
const NAME: &str = "nearside-control";

/// Asks one server. Connects when asked first, and again after an error.
#[derive(Debug)]
pub(super) struct UpstreamClient {
    server: ServerConfig,
    username: Option<String>,
    password: Option<String>,
    connect_time: Duration,
    answer_time: Duration,
    connection: Mutex<Option<Arc<Connection>>>,
}

/// Why there is no answer, in one line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum UpstreamError {
    /// The connection could not be made, or was lost; or the server's own error reply.
    #[error("{0}")]
    Failed(String),
    /// It takes longer than it may.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
}

/// A client and the task that drives its connection. fred keeps that task, and the socket with it, alive for ever, so it
/// is ended by hand.
#[derive(Debug)]
struct Connection {
    client: Client,
    task: ConnectHandle,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl UpstreamClient {
    /// A client of the upstream of the settings.
    pub(super) fn new(config: &Config) -> Self {
        let login = config.upstream.credentials.as_ref();
        UpstreamClient {
            server: server(&config.upstream.address),
            username: login.and_then(|login| login.username.clone()),
            password: login.map(|login| login.password.expose().to_owned()),
            connect_time: config.connect_timeout,
            answer_time: ANSWER_TIME.min(config.upstream_timeout),
            connection: Mutex::default(),
        }
    }

    /// Whether it answers and lets this user in. (A server that is loading its data answers, with an error.)
    pub(super) async fn ping(&self) -> Result<(), UpstreamError> {
        self.ask(async |client| client.ping::<()>(None).await).await
    }

    /// The reply to `COMMAND INFO names…`: an array with an entry, or nil, for each.
    pub(super) async fn command_info(&self, names: &[&str]) -> Result<Value, UpstreamError> {
        let command = CustomCommand::new_static("COMMAND", ClusterHash::FirstKey, false);
        let arguments: Vec<&str> = std::iter::once("INFO").chain(names.iter().copied()).collect();
        let reply = self.ask(async |client| client.custom_raw(command, arguments).await).await?;
        match value(reply) {
            Value::Error(line) => Err(UpstreamError::Failed(String::from_utf8_lossy(&line).into_owned())),
            reply => Ok(reply),
        }
    }

    /// Every wait has an end of its own here: a client whose task has ended still looks connected.
    async fn ask<T>(&self, question: impl AsyncFnOnce(&Client) -> Result<T, fred::error::Error>) -> Result<T, UpstreamError> {
        let connection = self.connection().await?;
        let answer = timeout(self.answer_time, question(&connection.client)).await;
        let answer = answer.unwrap_or_else(|_| Err(fred::error::Error::new_canceled()));
        answer.map_err(|_| UpstreamError::Timeout(self.answer_time))
    }

    async fn connection(&self) -> Result<Arc<Connection>, UpstreamError> {
        todo!()
    }
}
