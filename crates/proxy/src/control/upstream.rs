//! What the proxy itself says to the upstream. It goes through `fred`, which this module alone knows; what clients say goes
//! on lanes (`docs/decisions/0001-upstream-client.md` has the reasons).
//!
//! One client is one connection here: it never reconnects and never resends. After an error it is thrown away, and the
//! next question gets a new one. Only commands whose replies data cannot choose are sent: fred takes an array like
//! `[message, a, b]` for a message of a subscription, and from then on every reply for the one to the question before.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use fred::clients::Client;
use fred::interfaces::{ClientLike, Resp3Frame};
use fred::types::config::{Config as FredConfig, ConnectionConfig, PerformanceConfig, Server, ServerConfig, TcpConfig};
use fred::types::{ConnectHandle, CustomCommand, RespVersion};
use nearside_resp::frame::Value;
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::config::{Config, Credentials, UpstreamAddress};
use crate::topology::monitored::Claim;
use crate::topology::view::View;

/// How long an answer may take. What is asked here takes a server microseconds.
const ANSWER_TIME: Duration = Duration::from_secs(2);
/// What the connection is called in the upstream's `CLIENT LIST`.
const NAME: &str = "nearside-control";

/// Asks one server. Connects when asked first, and again after an error.
#[derive(Debug)]
pub(super) struct UpstreamClient {
    config: FredConfig,
    connect_time: Duration,
    answer_time: Duration,
    connection: Mutex<Option<Arc<Connection>>>,
}

/// Why there is no answer, in one line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum UpstreamError {
    /// The connection could not be made, or was lost; or the server's own error line.
    #[error("{0}")]
    Failed(String),
    /// It takes longer than it may.
    #[error("no {what} within {limit:?}")]
    Timeout { what: &'static str, limit: Duration },
}

/// A client and the task that drives its connection. The two hold each other, so that neither ends by itself when it is no
/// longer used.
#[derive(Debug)]
struct Connection {
    client: Client,
    task: ConnectHandle,
}

impl Connection {
    /// The server has closed it. The client does not say so: it counts as connected, and a question waits for its time to end.
    fn is_lost(&self) -> bool {
        self.task.is_finished()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl UpstreamClient {
    /// A client of the server or Sentinel at `address`.
    pub(super) fn new(config: &Config, address: &UpstreamAddress, login: Option<&Credentials>) -> Self {
        UpstreamClient {
            config: FredConfig {
                server: server(address),
                username: login.and_then(|login| login.username.clone()),
                password: login.map(|login| String::from_utf8_lossy(login.password.expose()).into_owned()), // of a URL: UTF-8
                // Its RESP3 greeting is an inline command, in which a password with a space would be two arguments.
                version: RespVersion::RESP2,
                fail_fast: true,
                ..FredConfig::default()
            },
            connect_time: config.connect_timeout,
            answer_time: ANSWER_TIME.min(config.upstream_timeout),
            connection: Mutex::default(),
        }
    }

    /// Whether it answers, lets this user in, and has its data in memory.
    pub(super) async fn ping(&self) -> Result<(), UpstreamError> {
        self.ask(|client| async move { client.ping::<()>(None).await }).await
    }

    /// The reply to `COMMAND INFO names…`: an array with an entry, or nil, for each.
    pub(super) async fn command_info(&self, names: &[&str]) -> Result<Value, UpstreamError> {
        self.command("COMMAND", std::iter::once("INFO").chain(names.iter().copied())).await
    }

    /// The section `memory` of INFO.
    pub(super) async fn memory(&self) -> Result<String, UpstreamError> {
        let reply = self.command("INFO", ["memory"]).await?;
        Ok(String::from_utf8_lossy(reply.as_bytes().unwrap_or_default()).into_owned())
    }

    /// What it says of its cluster. Asked under `address`, which stands for nodes that don't tell theirs.
    pub(super) async fn cluster_view(&self, address: &UpstreamAddress) -> Result<View, UpstreamError> {
        let nodes = self.command("CLUSTER", ["NODES"]).await?;
        let slots = self.command("CLUSTER", ["SLOTS"]).await?;
        View::parse(&nodes, &slots, address)
            .ok_or_else(|| UpstreamError::Failed("its answer is not that of a cluster's node".to_owned()))
    }

    /// Which server a Sentinel says is the primary of this name, and since which failover.
    pub(super) async fn monitored(&self, name: &str) -> Result<Claim, UpstreamError> {
        // The address and the epoch come by two commands: `SENTINEL MASTER` still tells the old address when the new epoch
        // has begun. They belong together if the epoch is the same before and after.
        let mut before = self.config_epoch(name).await?;
        loop {
            let address = self.command("SENTINEL", ["GET-MASTER-ADDR-BY-NAME", name]).await?;
            let epoch = self.config_epoch(name).await?;
            let address =
                master_address(&address).ok_or_else(|| UpstreamError::Failed(format!("it knows no {name}")))?;
            if before == epoch {
                return Ok(Claim { address, epoch });
            }
            before = epoch; // failovers are seconds apart
        }
    }

    async fn config_epoch(&self, name: &str) -> Result<u64, UpstreamError> {
        let master = self.command("SENTINEL", ["MASTER", name]).await?;
        let epoch = master.field(b"config-epoch").and_then(Value::as_bytes).and_then(number);
        epoch.ok_or_else(|| UpstreamError::Failed("its answer is not that of a Sentinel".to_owned()))
    }

    /// Whether it says that it is a primary.
    pub(super) async fn is_primary(&self) -> Result<bool, UpstreamError> {
        // Every user may ask that, though not of a server before Redis 6.
        let hello = self.command("HELLO", []).await;
        let role = match &hello {
            Ok(hello) => hello.field(b"role").and_then(Value::as_bytes).map(<[u8]>::to_vec),
            Err(_) => {
                let role = self.command("ROLE", []).await?;
                role.as_items().and_then(|items| items.first()?.as_bytes()).map(<[u8]>::to_vec)
            }
        };
        Ok(matches!(role.as_deref(), Some(b"master" | b"primary")))
    }

    async fn command(
        &self,
        name: &'static str,
        arguments: impl IntoIterator<Item = &str>,
    ) -> Result<Value, UpstreamError> {
        let command = CustomCommand::new_static(name, None, false);
        let arguments: Vec<_> = arguments.into_iter().map(str::to_owned).collect();
        let reply = self.ask(|client| async move { client.custom_raw(command, arguments).await }).await?;
        match value(reply) {
            Value::Error(line) => Err(UpstreamError::Failed(String::from_utf8_lossy(&line).into_owned())),
            reply => Ok(reply),
        }
    }

    /// Every wait has its end here and not in fred: a client whose task has ended still looks connected.
    async fn ask<T, F>(&self, question: impl FnOnce(Client) -> F) -> Result<T, UpstreamError>
    where
        F: Future<Output = Result<T, fred::error::Error>>,
    {
        let connection = self.connection().await?;
        let answer = timeout(self.answer_time, question(connection.client.clone())).await;
        let error = match answer {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => UpstreamError::Failed(in_plain_words(error.details())),
            Err(_) => UpstreamError::Timeout { what: "answer", limit: self.answer_time },
        };
        self.discard(&connection).await;
        Err(error)
    }

    /// The connection in use, or a new one. Who asks meanwhile waits for the same.
    async fn connection(&self) -> Result<Arc<Connection>, UpstreamError> {
        let mut current = self.connection.lock().await;
        if let Some(connection) = current.as_ref().filter(|connection| !connection.is_lost()) {
            return Ok(Arc::clone(connection));
        }
        let connection = Arc::new(self.connect().await?);
        *current = Some(Arc::clone(&connection));
        Ok(connection)
    }

    async fn connect(&self) -> Result<Connection, UpstreamError> {
        let connecting = ConnectionConfig {
            connection_timeout: self.connect_time,
            internal_command_timeout: self.connect_time,
            max_command_attempts: 1,
            max_redirections: 1,
            tcp: TcpConfig { nodelay: Some(true), ..TcpConfig::default() },
            ..ConnectionConfig::default()
        };
        let performance =
            PerformanceConfig { default_command_timeout: self.answer_time, ..PerformanceConfig::default() };
        let client = Client::new(self.config.clone(), Some(performance), Some(connecting), None);
        // The task runs on this thread, so it tells nothing before the wait for it has begun.
        let task = client.connect();
        let connection = Connection { client, task };
        match timeout(self.connect_time, connection.client.wait_for_connect()).await {
            Ok(Ok(())) => {
                self.introduce(&connection.client).await;
                Ok(connection)
            }
            Ok(Err(error)) => Err(UpstreamError::Failed(in_plain_words(error.details()))),
            Err(_) => Err(UpstreamError::Timeout { what: "connection", limit: self.connect_time }),
        }
    }

    /// Only a courtesy to who reads that list; a user may lack the right.
    async fn introduce(&self, client: &Client) {
        let command = CustomCommand::new_static("CLIENT", None, false);
        let _ = timeout(self.answer_time, client.custom_raw(command, vec!["SETNAME", NAME])).await;
    }

    /// Unless another question that failed was faster, and there is a new one already.
    async fn discard(&self, broken: &Arc<Connection>) {
        let mut current = self.connection.lock().await;
        if current.as_ref().is_some_and(|current| Arc::ptr_eq(current, broken)) {
            *current = None;
        }
    }
}

fn server(address: &UpstreamAddress) -> ServerConfig {
    match address {
        UpstreamAddress::Tcp { host, port } => {
            // fred looks up the text `host:port`.
            let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
            ServerConfig::Centralized { server: Server::new(host, *port) }
        }
        UpstreamAddress::Unix(path) => ServerConfig::Unix { path: path.clone() },
    }
}

/// Host, which may be a name, and port.
fn master_address(reply: &Value) -> Option<UpstreamAddress> {
    let [host, port] = reply.as_items()? else { return None };
    let host = String::from_utf8(host.as_bytes()?.to_vec()).ok().filter(|host| !host.is_empty())?;
    let port = number(port.as_bytes()?).and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0)?;
    Some(UpstreamAddress::Tcp { host, port })
}

fn number(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// A RESP2 reply; it has no other types.
fn value(frame: Resp3Frame) -> Value {
    match frame {
        Resp3Frame::SimpleString { data, .. } => Value::Simple(data.to_vec()),
        Resp3Frame::SimpleError { data, .. } => Value::Error(data.as_bytes().to_vec()),
        Resp3Frame::Number { data, .. } => Value::Integer(data),
        Resp3Frame::BlobString { data, .. } => Value::Bulk(data.to_vec()),
        Resp3Frame::Array { data, .. } => Value::Array(data.into_iter().map(value).collect()),
        _ => Value::Null,
    }
}

/// fred keeps the system's errors as `Os { code: 111, kind: ConnectionRefused, message: "Connection refused" }`.
fn in_plain_words(details: &str) -> String {
    let message = details.split_once("message: \"").and_then(|(_, rest)| rest.split_once('"'));
    message.map_or(details, |(message, _)| message).to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio::runtime::Handle;
    use tokio::time::{Instant, sleep};

    use super::*;
    use crate::control::fixture::{self, FakeUpstream, Reaction};

    fn client(upstream: &FakeUpstream) -> UpstreamClient {
        fixture::client(&fixture::config(&["--upstream", &upstream.url(), "--upstream-timeout", "200ms"]))
    }

    #[tokio::test]
    async fn all_questions_are_asked_over_one_connection() {
        let upstream = FakeUpstream::start(|request| match request {
            "COMMAND INFO get nosuch" => Reaction::say("*2\r\n*2\r\n$3\r\nget\r\n:2\r\n*-1\r\n"),
            _ => Reaction::polite(request),
        });
        let client = client(&upstream);
        client.ping().await.unwrap();
        let reply = client.command_info(&["get", "nosuch"]).await.unwrap();
        let get = Value::Array(vec![Value::Bulk(b"get".to_vec()), Value::Integer(2)]);
        assert_eq!(reply, Value::Array(vec![get, Value::Null]));
        client.ping().await.unwrap();
        assert_eq!(upstream.connections(), 1);
        assert!(upstream.heard("CLIENT SETNAME nearside-control"));
    }

    #[tokio::test]
    async fn it_logs_in_with_a_password_of_any_characters() {
        let upstream = FakeUpstream::start(|request| match request {
            "AUTH me a b\r\nc" => Reaction::say("+OK\r\n"),
            _ => Reaction::polite(request),
        });
        let url = upstream.url().replace("redis://", "redis://me:a%20b%0d%0ac@");
        fixture::client(&fixture::config(&["--upstream", &url])).ping().await.unwrap();
        assert!(upstream.heard("AUTH me a b\r\nc"));
    }

    #[tokio::test]
    async fn a_lost_connection_costs_one_question_and_is_made_anew() {
        let upstream = FakeUpstream::start(|request| match request {
            "COMMAND INFO x" => Reaction::HangUp,
            _ => Reaction::polite(request),
        });
        let client = client(&upstream);
        client.ping().await.unwrap();
        client.command_info(&["x"]).await.unwrap_err();
        client.ping().await.unwrap();
        assert_eq!(upstream.connections(), 2);
        assert_eq!(upstream.count("COMMAND INFO x"), 1, "nothing is sent twice");
    }

    #[tokio::test]
    async fn a_connection_that_was_lost_while_idle_costs_no_question() {
        let upstream = FakeUpstream::start(Reaction::polite);
        let client = client(&upstream);
        client.ping().await.unwrap();
        upstream.hang_up();
        while !client.connection.lock().await.as_ref().is_some_and(|connection| connection.is_lost()) {
            sleep(Duration::from_millis(1)).await;
        }
        client.ping().await.unwrap();
        assert_eq!(upstream.connections(), 2);
    }

    #[tokio::test]
    async fn an_answer_that_does_not_come_is_not_waited_for() {
        let upstream = FakeUpstream::start(|request| match request {
            "COMMAND INFO x" => Reaction::Nothing,
            _ => Reaction::polite(request),
        });
        let client = client(&upstream);
        client.ping().await.unwrap();
        let asked = Instant::now();
        let error = client.command_info(&["x"]).await.unwrap_err();
        assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
        assert!(!error.to_string().is_empty());
        client.ping().await.unwrap();
        assert_eq!(upstream.connections(), 2, "a late answer must not be taken for the next one's");
    }

    #[tokio::test]
    async fn an_errors_text_is_the_servers_or_the_systems_in_plain_words() {
        let upstream = FakeUpstream::start(|request| match request {
            "COMMAND INFO x" => Reaction::say("-NOPERM no\r\n"),
            _ => Reaction::polite(request),
        });
        let error = client(&upstream).command_info(&["x"]).await.unwrap_err();
        assert_eq!(error.to_string(), "NOPERM no");
        let loading = FakeUpstream::start(|request| match request {
            "PING" => Reaction::say("-LOADING Redis is loading the dataset in memory\r\n"),
            _ => Reaction::polite(request),
        });
        let error = client(&loading).ping().await.unwrap_err();
        assert_eq!(error.to_string(), "LOADING Redis is loading the dataset in memory");
        let nobody = fixture::config(&["--upstream", &fixture::refusing_url()]);
        assert_eq!(fixture::client(&nobody).ping().await.unwrap_err().to_string(), "Connection refused");
    }

    #[tokio::test]
    async fn what_is_thrown_away_leaves_no_task_and_no_connection() {
        let upstream = FakeUpstream::start(|request| match request {
            "COMMAND INFO x" => Reaction::Nothing,
            _ => Reaction::polite(request),
        });
        let client = client(&upstream);
        let before = Handle::current().metrics().num_alive_tasks();
        for _ in 0..3 {
            client.command_info(&["x"]).await.unwrap_err();
        }
        sleep(Duration::from_millis(100)).await;
        assert_eq!(Handle::current().metrics().num_alive_tasks(), before);
        assert_eq!((upstream.connections(), upstream.open_connections()), (3, 0));
    }

    #[test]
    fn addresses_are_given_to_fred_in_its_own_form() {
        let centralized = |url| fixture::client(&fixture::config(&["--upstream", url])).config.server;
        assert_eq!(centralized("redis://h:1"), ServerConfig::new_centralized("h", 1));
        assert_eq!(centralized("redis://[::1]:1"), ServerConfig::new_centralized("[::1]", 1));
        assert_eq!(centralized("unix:///run/r"), ServerConfig::Unix { path: "/run/r".into() });
    }
}
