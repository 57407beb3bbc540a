//! A real Redis server of the test's own.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::client::Client;
use crate::patience::eventually;
use crate::ports::free_port;
use crate::process::Process;
use crate::reply::Reply;
use crate::socket::Address;

/// A `redis-server` on a free port and a Unix socket, in a folder that goes with it.
///
/// `NEARSIDE_TEST_REDIS` names another server: a command line, its words separated by blanks.
#[derive(Debug)]
pub struct RedisServer {
    process: Process,
    folder: TempDir,
    port: u16,
    /// Where the nodes of its cluster reach it; none for a server of its own.
    bus_port: Option<u16>,
    args: Vec<String>,
}

const START_LIMIT: Duration = Duration::from_secs(15);
/// What is in the folder besides data. All the rest goes by whatever name the arguments give it.
const NO_DATA: &[&str] = &["nodes.conf", "log", "socket"];

impl RedisServer {
    /// Starts one with defaults: nothing saved, no password.
    #[must_use]
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// Starts one with more arguments, as `redis-server` takes them.
    #[must_use]
    pub fn with(args: &[&str]) -> Self {
        // Else somebody took the port between our look and the server's bind.
        std::iter::repeat_with(|| Self::try_start(None, args)).flatten().next().expect("an endless supply of ports")
    }

    /// Starts one that can be a node of a cluster: as yet alone in one of its own, with no slots.
    #[must_use]
    pub fn cluster_node(args: &[&str]) -> Self {
        let start = || Self::try_start(Some(free_port()), args);
        std::iter::repeat_with(start).flatten().next().expect("an endless supply of ports")
    }

    /// `None` when a port was taken.
    fn try_start(bus_port: Option<u16>, args: &[&str]) -> Option<Self> {
        let folder = tempfile::Builder::new().prefix("nearside-redis-").tempdir().expect("a temporary folder");
        let port = free_port();
        // Arguments given last win.
        let mut all = bus_port.map(cluster_args).unwrap_or_default();
        all.extend(args.iter().map(ToString::to_string));
        let process = Process::spawn(command(port, &folder, &all), &folder.path().join("log"));
        let mut server = Self { process, folder, port, bus_port, args: all };
        server.wait_until_ready().then_some(server)
    }

    /// False when it ended because its port was taken.
    fn wait_until_ready(&mut self) -> bool {
        eventually("redis-server answers", START_LIMIT, || {
            if let Some(status) = self.process.ended() {
                let output = self.process.output();
                assert!(output.contains("Address already in use"), "redis-server ended with {status}:\n{output}");
                return Some(false);
            }
            let mut client = Client::try_connect(&self.address()).ok()?;
            client.try_send(b"PING\r\n").ok()?;
            let reply = client.try_reply().ok()?;
            (!reply.starts_with(b"-LOADING")).then_some(true)
        })
    }

    /// What it printed so far.
    #[must_use]
    pub fn output(&self) -> String {
        self.process.output()
    }

    /// Where it listens by TCP.
    #[must_use]
    pub fn address(&self) -> Address {
        Address::local(self.port)
    }

    /// Its TCP port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The port of its cluster bus, for `CLUSTER MEET`.
    ///
    /// # Panics
    /// When it is no cluster's node.
    #[must_use]
    pub fn bus_port(&self) -> u16 {
        self.bus_port.expect("a node of a cluster has a bus")
    }

    /// Has the other nodes of its cluster, and clients, told that it is at these ports of 127.0.0.1, also after a restart.
    pub fn announce(&mut self, port: u16, bus_port: u16) {
        let settings = [("ip", "127.0.0.1".to_owned()), ("port", port.to_string()), ("bus-port", bus_port.to_string())];
        for (what, value) in settings {
            let name = format!("cluster-announce-{what}");
            assert_eq!(self.client().command(&["CONFIG", "SET", &name, &value]), "+OK\r\n", "{name}");
            self.args.extend([format!("--{name}"), value]);
        }
    }

    /// Where it listens by Unix socket.
    #[must_use]
    pub fn unix_address(&self) -> Address {
        Address::Unix(self.folder.path().join("socket"))
    }

    /// A connection to it, with nothing in between.
    #[track_caller]
    #[must_use]
    pub fn client(&self) -> Client {
        Client::connect(&self.address())
    }

    /// What it is, `redis 7.0.15` or `valkey 8.1.1`.
    ///
    /// # Panics
    /// When it does not say.
    #[must_use]
    pub fn version(&self) -> String {
        let about = self.client().call("INFO server");
        let about = String::from_utf8_lossy(&about);
        let field = |name: &str| about.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
        let valkey = field("valkey_version:").map(|version| format!("valkey {version}"));
        valkey.or_else(|| Some(format!("redis {}", field("redis_version:")?))).expect("a server knows its version")
    }

    /// The commands it has, lower case, `config|get` for those with subcommands.
    ///
    /// # Panics
    /// When it does not say.
    #[must_use]
    pub fn commands(&self) -> BTreeSet<String> {
        let names = self.client().call("COMMAND LIST").elements();
        let lower = |name: &Reply| name.bulk().map(|name| String::from_utf8_lossy(name).to_ascii_lowercase());
        names.iter().map(|name| lower(name).expect("a name")).collect()
    }

    /// How often `command` (lower case, `config|get` for a subcommand) was run, by anybody, since the start or `CONFIG RESETSTAT`.
    #[must_use]
    pub fn calls(&self, command: &str) -> u64 {
        let stats = self.client().call("INFO commandstats");
        let stats = String::from_utf8_lossy(&stats);
        let prefix = format!("cmdstat_{command}:calls=");
        let line = stats.lines().find_map(|line| line.strip_prefix(prefix.as_str()));
        line.and_then(|rest| rest.split(',').next()).map_or(0, |calls| calls.parse().expect("a count"))
    }

    /// Clients that have subscribed to something.
    #[must_use]
    pub fn subscribers(&self) -> usize {
        self.client().call("CLIENT LIST TYPE pubsub").text().matches("id=").count()
    }

    /// How often it has given an error of this code (`MOVED`), to anybody.
    #[must_use]
    pub fn errors(&self, code: &str) -> u64 {
        let stats = self.client().call("INFO errorstats");
        let stats = String::from_utf8_lossy(&stats);
        let prefix = format!("errorstat_{code}:count=");
        let count = stats.lines().find_map(|line| line.strip_prefix(prefix.as_str()));
        count.map_or(0, |count| count.parse().expect("a count"))
    }

    /// `kill -9`: whatever it has not written out is lost.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// SIGSTOP: connections stay open, nothing answers.
    pub fn stop(&self) {
        self.process.signal(Signal::STOP);
    }

    /// SIGCONT, after [`Self::stop`].
    pub fn resume(&self) {
        self.process.signal(Signal::CONT);
    }

    /// Kills it and starts it again on the same port, with what it had saved.
    pub fn restart(&mut self) {
        self.kill();
        self.start_again();
    }

    /// Starts it again on the same port after [`Self::kill`].
    pub fn start_again(&mut self) {
        self.process = Process::spawn(command(self.port, &self.folder, &self.args), &self.folder.path().join("log"));
        assert!(self.wait_until_ready(), "somebody else took the server's port while it was down");
    }

    /// Removes what it has saved; for a server that is down. A cluster's node still knows who it is, and of whom.
    pub fn forget_data(&self) {
        for entry in std::fs::read_dir(self.folder.path()).expect("the server's folder is ours") {
            let path = entry.expect("the server's folder is ours").path();
            let is_data = path.file_name().is_some_and(|name| !NO_DATA.iter().any(|kept| name == *kept));
            if is_data && path.is_dir() {
                std::fs::remove_dir_all(&path).expect("the server's folder is ours");
            } else if is_data {
                std::fs::remove_file(&path).expect("the server's folder is ours");
            }
        }
    }
}

fn cluster_args(bus_port: u16) -> Vec<String> {
    let args = [
        "--cluster-enabled yes --cluster-config-file nodes.conf",
        // A node that does not answer for so long has failed: short, as tests wait for it.
        "--cluster-node-timeout 1000",
        // Else replicas wander between primaries, and a primary that gives away its last slot becomes a replica.
        "--cluster-allow-replica-migration no",
        // A replica's first copy begins at once, and not after five seconds in which others might join.
        "--repl-diskless-sync-delay 0",
    ];
    let words = args.iter().flat_map(|line| line.split(' ')).map(ToString::to_string);
    words.chain(["--cluster-port".to_owned(), bus_port.to_string()]).collect()
}

/// The server's program, to which arguments are to be added.
pub(crate) fn program() -> Command {
    let line = std::env::var("NEARSIDE_TEST_REDIS").unwrap_or_else(|_| "redis-server".to_owned());
    let mut words = line.split_ascii_whitespace();
    let mut command = Command::new(words.next().expect("NEARSIDE_TEST_REDIS names a program"));
    command.args(words);
    command
}

fn command(port: u16, folder: &TempDir, args: &[String]) -> Command {
    let mut command = program();
    command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--daemonize", "no"]);
    command.arg("--dir").arg(folder.path());
    command.arg("--unixsocket").arg(folder.path().join("socket"));
    command.args(["--loglevel", "notice", "--enable-debug-command", "yes"]);
    command.args(args);
    command
}
