//! Opens a connection to the upstream and brings it into the state a lane needs, before the lane may use it.
//!
//! Everything the state depends on is acknowledged on this very connection first: a loader lane used before its
//! `CLIENT TRACKING` was answered would cache what nobody invalidates.

use std::future::poll_fn;
use std::io;

use nearside_resp::frame::{self, Value};
use nearside_resp::{Protocol, ReplyKind, ReplyScanner, encode};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::version::{Valkey, Version};
use crate::config::{Config, Servers, UpstreamAddress};
use crate::net::clock;
use crate::net::socket::{Socket, Stream};
use crate::output::Output;
use crate::shared::Shared;
use crate::topology::Node;
use crate::users::User;

/// What the connection is to be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setup<'a> {
    /// Whose rights its commands have.
    pub(crate) user: &'a User,
    /// The RESP version of its replies.
    pub(crate) protocol: Protocol,
    /// The database its commands run in.
    pub(crate) db: u16,
    /// Whether the upstream shall push invalidations for what is read here.
    pub(crate) tracking: bool,
    /// Whether to ask for the number by which the upstream knows it.
    pub(crate) asks_id: bool,
    /// Its name in the upstream's `CLIENT LIST`.
    pub(crate) name: &'static str,
}

/// A connection in the state asked for.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) socket: Socket,
    /// The answer to HELLO; of RESP2 connections only where Sentinels name the primary.
    pub(crate) hello: Option<Value>,
    /// What INFO tells of it being Valkey, also where HELLO speaks of Redis.
    pub(crate) valkey: Valkey,
    /// The number by which the upstream knows it (`CLIENT ID`), if that was asked and told.
    pub(crate) client_id: Option<i64>,
    /// Which server it leads to, as [`Node::server`] counts them.
    pub(crate) server: u64,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    /// The system said so.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Longer than `connect-timeout`.
    #[error("no connection within {0:?}")]
    Timeout(std::time::Duration),
    /// The upstream's error line (without the leading `-`) to a step of the handshake.
    #[error("{step}: {}", String::from_utf8_lossy(line))]
    Refused { step: &'static str, line: Vec<u8> },
    /// The upstream's error line to the login of a user other than the settings name.
    #[error("login: {}", String::from_utf8_lossy(_0))]
    NotLetIn(Vec<u8>),
    /// A Sentinel has named it as the primary, or did once.
    #[error("it is no primary (role: {0})")]
    NoPrimary(String),
    /// Another server has been met there since the connection was made.
    #[error("another server has taken over the address")]
    Replaced,
    /// Not the Redis protocol.
    #[error("{step}: not a reply of the Redis protocol")]
    NotRedis { step: &'static str },
}

/// A command of the handshake.
struct Step {
    name: &'static str,
    /// A refusal ends the handshake.
    required: bool,
}

/// Connects, logs in and selects, all within the `connect-timeout`.
pub(crate) async fn open(shared: &Shared, node: &Node, setup: Setup<'_>) -> Result<Opened, ConnectError> {
    let config = &shared.config;
    if follows_sentinels(config) {
        shared.until_confirmed(node).await;
    }
    timeout(config.connect_timeout, async {
        let socket = dial(config, node).await?;
        let connected = clock::now();
        let Agreed { hello, run_id, valkey, client_id } = shake_hands(&socket, config, setup).await?;
        if follows_sentinels(config) {
            check_role(hello.as_ref())?;
        }
        let server = shared.meet_server(node, run_id, connected).ok_or(ConnectError::Replaced)?;
        Ok(Opened { socket, hello, valkey, client_id, server })
    })
    .await
    .map_err(|_| ConnectError::Timeout(config.connect_timeout))?
}

/// Connects, and says nothing yet.
pub(crate) async fn bare(config: &Config, node: &Node) -> Result<Socket, ConnectError> {
    let limit = config.connect_timeout;
    Ok(timeout(limit, dial(config, node)).await.map_err(|_| ConnectError::Timeout(limit))??)
}

/// Asks for one thing on a connection that is made for it: logged in, and in no other state. A server that is busy with a script
/// answers hardly anything else. The reply is in RESP2.
pub(crate) async fn ask_once(
    config: &Config,
    node: &Node,
    user: &User,
    request: &[u8],
) -> Result<Vec<u8>, ConnectError> {
    let socket = bare(config, node).await?;
    let answered = timeout(config.upstream_timeout, async {
        if let Some(login) = &config.upstream.credentials {
            let name = login.username.as_deref().unwrap_or("default");
            log_in(&socket, name.as_bytes(), login.password.expose()).await?;
        }
        if let Some(login) = user.login() {
            log_in(&socket, &login.name, login.password.expose()).await?;
        }
        Ok(exchange(&socket, request, 1).await?.swap_remove(0))
    });
    answered.await.map_err(|_| ConnectError::Timeout(config.upstream_timeout))?
}

/// Says something on a connection that nobody else uses, and reads this many replies.
pub(crate) async fn exchange(socket: &Socket, request: &[u8], replies: usize) -> Result<Vec<Vec<u8>>, ConnectError> {
    let mut output = Output::default();
    output.copy(request);
    poll_fn(|cx| output.poll_flush(cx, socket)).await?;
    read_replies(socket, replies).await
}

async fn dial(config: &Config, node: &Node) -> io::Result<Socket> {
    let stream = reach(node.address()).await?;
    stream.prepare(config.tcp_keepalive)?;
    Socket::new(stream)
}

/// Whether the primary may become a replica while the proxy runs, at the same address.
fn follows_sentinels(config: &Config) -> bool {
    matches!(config.upstream.servers, Servers::Sentinel(_))
}

/// What a replica is sent it refuses, or answers from what it has got so far.
/// <https://redis.io/docs/latest/develop/reference/sentinel-clients/#step-3-call-the-role-command-in-the-target-instance>
fn check_role(hello: Option<&Value>) -> Result<(), ConnectError> {
    let role = hello.and_then(|hello| hello.field(b"role")).and_then(Value::as_bytes);
    match role {
        Some(role) if !matches!(role, b"master" | b"primary") => {
            Err(ConnectError::NoPrimary(String::from_utf8_lossy(role).into_owned()))
        }
        _ => Ok(()), // or it is older than HELLO, and would not tell
    }
}

/// The name is looked up anew at every connect: a moved server is found without a restart.
async fn reach(address: &UpstreamAddress) -> io::Result<Stream> {
    match address {
        UpstreamAddress::Tcp { host, port } => {
            Ok(Stream::Tcp(TcpStream::connect((host.as_str(), *port)).await?.into_std()?))
        }
        UpstreamAddress::Unix(path) => Ok(Stream::Unix(UnixStream::connect(path).await?.into_std()?)),
    }
}

/// What the handshake brought to light.
#[derive(Default)]
struct Agreed {
    hello: Option<Value>,
    /// Another one is another server, or the same started anew.
    run_id: Option<Vec<u8>>,
    valkey: Valkey,
    client_id: Option<i64>,
}

async fn shake_hands(socket: &Socket, config: &Config, setup: Setup<'_>) -> Result<Agreed, ConnectError> {
    let (request, steps) = handshake(config, setup);
    let replies = exchange(socket, &request, steps.len()).await?;

    let mut agreed = Agreed::default();
    for (step, reply) in steps.iter().zip(&replies) {
        match frame::parse(reply) {
            Ok(Value::Error(line)) if step.required => {
                return Err(ConnectError::Refused { step: step.name, line });
            }
            Ok(value) if step.name == "HELLO" => agreed.hello = Some(value),
            Ok(value) if step.name == "CLIENT ID" => agreed.client_id = value.as_integer(),
            Ok(value) if step.name == "INFO" => {
                let field = |name| value.as_bytes().and_then(|info| field(info, name));
                agreed.run_id = field(b"run_id:").map(<[u8]>::to_vec);
                agreed.valkey = match field(b"valkey_version:") {
                    Some(version) => Valkey::Is(Version::parse(&String::from_utf8_lossy(version))),
                    None if value.as_bytes().is_some() => Valkey::No,
                    None => Valkey::Untold,
                };
            }
            Ok(_) => {}
            Err(_) => return Err(ConnectError::NotRedis { step: step.name }),
        }
    }
    // Last: what a lane needs (SELECT, CLIENT TRACKING, INFO) its user need not be allowed, and all of it outlives AUTH.
    if let Some(login) = setup.user.login() {
        log_in(socket, &login.name, login.password.expose()).await?;
    }
    Ok(agreed)
}

/// By itself: newer servers do not reply to an AUTH that fails while another reply is still to be sent.
async fn log_in(socket: &Socket, name: &[u8], password: &[u8]) -> Result<(), ConnectError> {
    let mut request = Zeroizing::new(Vec::new());
    encode::command(&mut request, &[b"AUTH", name, password]);
    let replies = exchange(socket, &request, 1).await?;
    match frame::parse(&replies[0]) {
        Ok(Value::Error(line)) => Err(ConnectError::NotLetIn(line)),
        Ok(_) => Ok(()),
        Err(_) => Err(ConnectError::NotRedis { step: "AUTH" }),
    }
}

/// What an answer to INFO says behind this name and its colon.
fn field<'a>(info: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let mut lines = info.split(|byte| *byte == b'\n');
    lines.find_map(|line| line.strip_prefix(name)).map(<[u8]>::trim_ascii)
}

/// The commands of the handshake, as bytes, and what to call them.
fn handshake(config: &Config, setup: Setup<'_>) -> (Vec<u8>, Vec<Step>) {
    let mut request = Vec::new();
    let mut steps = Vec::new();
    let mut step = |name, required, args: &[&[u8]]| {
        encode::command(&mut request, args);
        steps.push(Step { name, required });
    };
    let login = config.upstream.credentials.as_ref();
    let user = login.and_then(|login| login.username.as_deref()).unwrap_or("default");
    match (setup.protocol, login) {
        (Protocol::Resp3, Some(login)) => {
            step("HELLO", true, &[b"HELLO", b"3", b"AUTH", user.as_bytes(), login.password.expose()]);
        }
        (Protocol::Resp3, None) => step("HELLO", true, &[b"HELLO", b"3"]),
        (Protocol::Resp2, Some(login)) if login.username.is_some() => {
            step("AUTH", true, &[b"AUTH", user.as_bytes(), login.password.expose()]);
        }
        (Protocol::Resp2, Some(login)) => step("AUTH", true, &[b"AUTH", login.password.expose()]),
        (Protocol::Resp2, None) => {}
    }
    if setup.protocol == Protocol::Resp2 && follows_sentinels(config) {
        step("HELLO", false, &[b"HELLO"]); // for its role
    }
    // Always asked, also for db 0: its answer shows that the server speaks Redis and lets the proxy's user in.
    step("SELECT", true, &[b"SELECT", setup.db.to_string().as_bytes()]);
    // Behind one address there may be another server from now on. A user may lack the right to ask.
    step("INFO", false, &[b"INFO", b"server"]);
    if setup.tracking {
        step("CLIENT TRACKING", true, &[b"CLIENT", b"TRACKING", b"ON"]);
    }
    if setup.asks_id {
        step("CLIENT ID", false, &[b"CLIENT", b"ID"]);
    }
    // Only a courtesy to whoever reads the upstream's CLIENT LIST; a user may lack the right.
    step("CLIENT SETNAME", false, &[b"CLIENT", b"SETNAME", setup.name.as_bytes()]);
    (request, steps)
}

/// Reads exactly `count` replies. A push among them (FLUSHALL by somebody, once tracking is on) is passed over: nothing was
/// fetched here yet that it could be about.
async fn read_replies(socket: &Socket, count: usize) -> Result<Vec<Vec<u8>>, ConnectError> {
    let mut replies = vec![Vec::new()];
    let mut scanner = ReplyScanner::new();
    let mut buffer = [0; 4096];
    loop {
        let read = poll_fn(|cx| socket.poll_read(cx, &mut buffer)).await?;
        if read == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        let mut rest = &buffer[..read];
        while !rest.is_empty() {
            let scanned = scanner.scan(rest).map_err(|_| ConnectError::NotRedis { step: "handshake" })?;
            let (piece, tail) = rest.split_at(scanned.consumed);
            rest = tail;
            replies.last_mut().expect("one is always open").extend_from_slice(piece);
            if scanned.complete && scanner.kind() == Some(ReplyKind::Push) {
                replies.last_mut().expect("one is always open").clear();
            } else if scanned.complete {
                replies.push(Vec::new());
            }
        }
        // Not in the middle of a push: what is left of it would be taken for a reply by whoever reads on.
        if replies.len() > count && replies.last().is_some_and(Vec::is_empty) {
            replies.truncate(count);
            return Ok(replies);
        }
    }
}
