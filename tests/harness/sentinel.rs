//! A primary, its replicas, and the Sentinels that watch them; and a Sentinel that says what a test wants.

use std::io::{self, BufReader, ErrorKind, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::client::Client;
use crate::patience::eventually;
use crate::ports::free_port;
use crate::process::Process;
use crate::redis_server::{self, RedisServer};
use crate::reply::Reply;
use crate::socket::Address;

/// What the Sentinels call the primary.
pub const NAME: &str = "mymaster";

/// Sentinels have this long to agree on something, and replicas to catch up.
const AGREEMENT_LIMIT: Duration = Duration::from_secs(60);
/// A failover that has not happened by then was given up.
const ATTEMPT: Duration = Duration::from_secs(8);
/// A server that does not answer for so long is down: short, as tests wait for it.
const DOWN_AFTER_MS: u32 = 500;

/// Servers of which one is the primary, and Sentinels. Both are numbered from 0; a number keeps its meaning.
#[derive(Debug)]
pub struct MonitoredServers {
    servers: Vec<RedisServer>,
    sentinels: Vec<Sentinel>,
    password: Option<String>,
}

#[derive(Debug)]
struct Sentinel {
    process: Process,
    folder: TempDir,
    port: u16,
    is_up: bool,
}

impl MonitoredServers {
    /// Starts so many servers, the first of which is the primary, and three Sentinels.
    #[must_use]
    pub fn start(servers: usize) -> Self {
        Self::with_password(servers, None)
    }

    /// The same, with servers that want this password, and Sentinels that want it with `sentinel-` before it.
    #[must_use]
    pub fn with_password(servers: usize, password: Option<&str>) -> Self {
        let mut args = vec!["--repl-diskless-sync-delay", "0", "--repl-timeout", "5"];
        if let Some(password) = password {
            args.extend(["--requirepass", password, "--masterauth", password]);
        }
        let primary = RedisServer::with(&args);
        let (of, port) = ("--replicaof".to_owned(), format!("127.0.0.1 {}", primary.port()));
        let mut all = vec![primary];
        for _ in 1..servers {
            let args: Vec<_> = args.iter().copied().chain([of.as_str(), port.as_str()]).collect();
            all.push(RedisServer::with(&args));
        }
        let password = password.map(str::to_owned);
        let mut this = Self { servers: all, sentinels: Vec::new(), password };
        // A Sentinel looks for replicas when it starts, and then every ten seconds.
        eventually("replicas follow their primary", AGREEMENT_LIMIT, || this.has_replicas(0).then_some(()));
        this.sentinels = (0..3).map(|_| Sentinel::start(this.servers[0].port(), this.password.as_deref())).collect();
        this.wait_until_ok();
        this
    }

    /// As Nearside's `--upstream` takes it.
    #[must_use]
    pub fn url(&self) -> String {
        let seeds: Vec<_> = self.sentinels.iter().map(|sentinel| format!("127.0.0.1:{}", sentinel.port)).collect();
        let seeds = seeds.join(",");
        match &self.password {
            None => format!("redis-sentinel://{seeds}/{NAME}"),
            Some(password) => {
                format!("redis-sentinel://:{password}@{seeds}/{NAME}?sentinel-password=sentinel-{password}")
            }
        }
    }

    /// One server.
    #[must_use]
    pub fn server(&self, number: usize) -> &RedisServer {
        &self.servers[number]
    }

    /// One server, to be killed and the like.
    pub fn server_mut(&mut self, number: usize) -> &mut RedisServer {
        &mut self.servers[number]
    }

    /// A connection to one server, logged in.
    #[track_caller]
    #[must_use]
    pub fn connect(&self, number: usize) -> Client {
        logged_in(self.servers[number].client(), self.password.as_deref())
    }

    /// A connection to one Sentinel, logged in.
    #[track_caller]
    #[must_use]
    pub fn sentinel(&self, number: usize) -> Client {
        self.sentinels[number].client(self.password.as_deref())
    }

    /// A client of whichever server is the primary, with nothing in between.
    #[must_use]
    pub fn client(&self) -> PrimaryClient {
        let sentinels = self.sentinels.iter().map(|sentinel| Address::local(sentinel.port)).collect();
        PrimaryClient { sentinels, replicas: 0, connection: None }
    }

    /// SIGSTOP: it hears of nothing.
    pub fn stop_sentinel(&mut self, number: usize) {
        self.sentinels[number].process.signal(Signal::STOP);
        self.sentinels[number].is_up = false;
    }

    /// Has the Sentinels make another server the primary, and waits until they have.
    #[track_caller]
    pub fn fail_over(&self) -> usize {
        let before = self.primary();
        let mut asked_at = None;
        eventually("all Sentinels name another primary", AGREEMENT_LIMIT, || {
            // It is refused, or given up, while they think that no replica is fit, or an older failover is not over.
            if asked_at.is_none_or(|at: Instant| at.elapsed() > ATTEMPT) {
                let reply =
                    self.up().next()?.client(self.password.as_deref()).call(&format!("SENTINEL FAILOVER {NAME}"));
                asked_at = (reply == "+OK\r\n").then(Instant::now);
            }
            self.agreed().filter(|primary| *primary != before)
        })
    }

    /// Waits until all Sentinels that are up name another primary than `before`, and gives that.
    #[track_caller]
    pub fn wait_until_switched(&self, before: usize) -> usize {
        eventually("all Sentinels name another primary", AGREEMENT_LIMIT, || {
            self.agreed().filter(|primary| *primary != before)
        })
    }

    /// Who the Sentinels say the primary is, once they agree.
    #[track_caller]
    #[must_use]
    pub fn primary(&self) -> usize {
        eventually("all Sentinels name the same primary", AGREEMENT_LIMIT, || self.agreed())
    }

    /// Waits until all Sentinels agree, know each other, and the servers all follow the primary. All must be up.
    #[track_caller]
    pub fn wait_until_ok(&self) {
        eventually("all is well", AGREEMENT_LIMIT, || {
            let primary = self.agreed()?;
            let knows_all = |sentinel: &Sentinel| {
                let known = sentinel.client(self.password.as_deref()).call(&format!("SENTINEL MASTER {NAME}"));
                field(&known, "num-other-sentinels") == Some((self.up().count() - 1).to_string())
                    && field(&known, "num-slaves") == Some((self.servers.len() - 1).to_string())
                    && field(&known, "flags").as_deref() == Some("master")
            };
            (self.has_replicas(primary) && self.up().all(knows_all)).then_some(())
        });
    }

    /// Whether all others have what this server has: one that says `online` may not have been sent a thing yet.
    fn has_replicas(&self, primary: usize) -> bool {
        let mut client = self.connect(primary);
        let replicas = i64::try_from(self.servers.len() - 1).expect("few");
        client.call("SET probe 1") == "+OK\r\n"
            && client.call(&format!("WAIT {replicas} 500")).integer() == Some(replicas)
    }

    fn up(&self) -> impl Iterator<Item = &Sentinel> {
        self.sentinels.iter().filter(|sentinel| sentinel.is_up)
    }

    fn agreed(&self) -> Option<usize> {
        let named = |sentinel: &Sentinel| {
            let address = sentinel.client(self.password.as_deref()).call(&address_request()).elements();
            let port: u16 = String::from_utf8_lossy(address.get(1)?.bulk()?).parse().ok()?;
            self.servers.iter().position(|server| server.port() == port)
        };
        let named: Vec<_> = self.up().map(named).collect();
        named.first().copied().flatten().filter(|first| named.iter().all(|other| *other == Some(*first)))
    }
}

impl Drop for MonitoredServers {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for sentinel in &self.sentinels {
                eprintln!("--- a Sentinel's words ---\n{}\n---", sentinel.process.output());
            }
            for server in &self.servers {
                eprintln!("--- server {} ---\n{}\n---", server.port(), server.output());
            }
        }
    }
}

impl Sentinel {
    fn start(primary: u16, password: Option<&str>) -> Self {
        let folder = tempfile::Builder::new().prefix("nearside-sentinel-").tempdir().expect("a temporary folder");
        let port = free_port();
        let file = folder.path().join("sentinel.conf");
        let mut lines = format!(
            "port {port}\nbind 127.0.0.1\ndir {}\nsentinel monitor {NAME} 127.0.0.1 {primary} 2\n\
             sentinel down-after-milliseconds {NAME} {DOWN_AFTER_MS}\nsentinel failover-timeout {NAME} 4000\n",
            folder.path().display()
        );
        if let Some(password) = password {
            lines += &format!(
                "sentinel auth-pass {NAME} {password}\nrequirepass sentinel-{password}\n\
                 sentinel sentinel-pass sentinel-{password}\n"
            );
        }
        std::fs::write(&file, lines).expect("the Sentinel's folder is ours");
        let mut command = redis_server::program();
        command.arg(&file).arg("--sentinel");
        let process = Process::spawn(command, &folder.path().join("log"));
        let sentinel = Self { process, folder, port, is_up: true };
        eventually("the Sentinel answers", AGREEMENT_LIMIT, || {
            let mut client = Client::try_connect(&Address::local(port)).ok()?;
            client.try_send(b"PING\r\n").ok()?;
            client.try_reply().ok()
        });
        // By default it looks at the others once in some seconds. Redis before 7.0 has no such command.
        let periods = "SENTINEL DEBUG INFO-PERIOD 500 PUBLISH-PERIOD 500 PING-PERIOD 200 ELECTION-TIMEOUT 2000";
        assert_eq!(sentinel.client(password).call(periods), "+OK\r\n", "{}", sentinel.folder.path().display());
        sentinel
    }

    fn client(&self, password: Option<&str>) -> Client {
        let password = password.map(|password| format!("sentinel-{password}"));
        logged_in(Client::connect(&Address::local(self.port)), password.as_deref())
    }
}

fn logged_in(mut client: Client, password: Option<&str>) -> Client {
    if let Some(password) = password {
        assert_eq!(client.call(&format!("AUTH {password}")), "+OK\r\n");
    }
    client
}

fn address_request() -> String {
    format!("SENTINEL GET-MASTER-ADDR-BY-NAME {NAME}")
}

/// Of a flat array of names and values.
fn field(reply: &Reply, name: &str) -> Option<String> {
    let elements = reply.elements();
    let at = elements.iter().position(|element| element.bulk() == Some(name.as_bytes()))?;
    Some(String::from_utf8_lossy(elements.get(at + 1)?.bulk()?).into_owned())
}

/// A client that asks the Sentinels where the primary is, and again when it has lost it. For servers without passwords.
#[derive(Debug)]
pub struct PrimaryClient {
    sentinels: Vec<Address>,
    replicas: usize,
    connection: Option<Client>,
}

impl PrimaryClient {
    /// How long a server may take to answer.
    const TIMEOUT: Duration = Duration::from_millis(500);

    /// The same, in which a write counts as answered once so many replicas have it: it survives a failover then.
    #[must_use]
    pub fn with_writes_on_replicas(self, replicas: usize) -> Self {
        Self { replicas, ..self }
    }

    /// One request and its reply. After an error, or a replica's refusal, the next begins with the Sentinels.
    pub fn try_command(&mut self, args: &[impl AsRef<[u8]>]) -> io::Result<Reply> {
        let outcome = self.ask_primary(args);
        if !outcome.as_ref().is_ok_and(|reply| !reply.starts_with(b"-READONLY")) {
            self.connection = None;
        }
        outcome
    }

    fn ask_primary(&mut self, args: &[impl AsRef<[u8]>]) -> io::Result<Reply> {
        let mut client = match self.connection.take() {
            Some(client) => client,
            None => self.find()?,
        };
        client.try_send(&crate::client::request(args))?;
        let reply = client.try_reply()?;
        if self.replicas > 0 {
            client.try_send(&crate::client::words(&format!("WAIT {} 400", self.replicas)))?;
            let had = client.try_reply()?.integer().unwrap_or(0);
            if had < i64::try_from(self.replicas).expect("few") {
                return Err(io::Error::other("the replicas have not got it"));
            }
        }
        self.connection = Some(client);
        Ok(reply)
    }

    fn find(&self) -> io::Result<Client> {
        for sentinel in &self.sentinels {
            let Ok(mut client) = Client::try_connect(sentinel) else { continue };
            client.set_patience(Self::TIMEOUT);
            client.try_send(&crate::client::words(&address_request()))?;
            let Ok(address) = client.try_reply() else { continue };
            let address = address.elements();
            let port =
                address.get(1).and_then(Reply::bulk).and_then(|port| std::str::from_utf8(port).ok()?.parse().ok());
            let Some(port) = port else { continue };
            let client = Client::try_connect(&Address::local(port))?;
            client.set_patience(Self::TIMEOUT);
            return Ok(client);
        }
        Err(ErrorKind::NotConnected.into())
    }
}

/// A Sentinel that says of the primary what it is told to say.
#[derive(Debug)]
pub struct FakeSentinel {
    port: u16,
    claim: Arc<Mutex<Claim>>,
}

/// Port of the primary on 127.0.0.1, and config epoch; `None`: it answers nothing.
type Claim = Option<(u16, u64)>;

impl FakeSentinel {
    /// It listens until the process ends.
    #[must_use]
    pub fn saying(primary: u16, epoch: u64) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port is free");
        let port = listener.local_addr().expect("a bound socket has an address").port();
        let claim = Arc::new(Mutex::new(Some((primary, epoch))));
        let said = Arc::clone(&claim);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let said = Arc::clone(&said);
                // However the connection ends, it has ended.
                std::thread::spawn(move || drop(answer(&stream, &said)));
            }
        });
        Self { port, claim }
    }

    /// Where it listens: `127.0.0.1:port`.
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// From now on it says so.
    pub fn say(&self, primary: u16, epoch: u64) {
        *self.claim.lock().expect("no thread panics with the lock") = Some((primary, epoch));
    }

    /// From now on it answers nothing.
    pub fn fall_silent(&self) {
        *self.claim.lock().expect("no thread panics with the lock") = None;
    }
}

fn answer(stream: &TcpStream, claim: &Mutex<Claim>) -> io::Result<()> {
    let (mut reader, mut writer) = (BufReader::new(stream), stream);
    loop {
        // A request is an array of bulk strings, as a reply may be.
        let request = Reply::read(&mut reader)?.elements();
        let word = |at: usize| request.get(at).and_then(Reply::bulk).unwrap_or_default().to_ascii_uppercase();
        let Some((port, epoch)) = *claim.lock().expect("no thread panics with the lock") else { continue };
        let bulk = |text: &str| format!("${}\r\n{text}\r\n", text.len());
        let reply = match (word(0).as_slice(), word(1).as_slice()) {
            (b"SENTINEL", b"MASTER") => format!("*2\r\n{}{}", bulk("config-epoch"), bulk(&epoch.to_string())),
            (b"SENTINEL", _) => format!("*2\r\n{}{}", bulk("127.0.0.1"), bulk(&port.to_string())),
            (b"CLIENT", b"ID") => ":1\r\n".to_owned(),
            (b"INFO", _) => bulk("redis_version:8.0.0"),
            (b"PING", _) => "+PONG\r\n".to_owned(),
            _ => "+OK\r\n".to_owned(),
        };
        writer.write_all(reply.as_bytes())?;
    }
}
