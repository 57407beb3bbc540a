//! A real Redis server of the test's own.

use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::client::Client;
use crate::patience::eventually;
use crate::ports::free_port;
use crate::process::Process;
use crate::socket::Address;

/// A `redis-server` on a free port and a Unix socket, in a folder that goes with it.
///
/// `NEARSIDE_TEST_REDIS` names another server: a command line, its words separated by blanks.
#[derive(Debug)]
pub struct RedisServer {
    process: Process,
    folder: TempDir,
    port: u16,
    args: Vec<String>,
}

const START_LIMIT: Duration = Duration::from_secs(15);

impl RedisServer {
    /// Starts one with defaults: nothing saved, no password.
    #[must_use]
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// Starts one with more arguments, as `redis-server` takes them.
    #[must_use]
    pub fn with(args: &[&str]) -> Self {
        loop {
            let folder = tempfile::Builder::new().prefix("nearside-redis-").tempdir().expect("a temporary folder");
            let args = args.iter().map(ToString::to_string).collect::<Vec<_>>();
            let port = free_port();
            let process = Process::spawn(command(port, &folder, &args), &folder.path().join("log"));
            let mut server = Self { process, folder, port, args };
            // Else somebody took the port between our look and the server's bind.
            if server.wait_until_ready() {
                return server;
            }
        }
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

    /// How often `command` (lower case, `config|get` for a subcommand) was run, by anybody, since the start or `CONFIG RESETSTAT`.
    #[must_use]
    pub fn calls(&self, command: &str) -> u64 {
        let stats = self.client().call("INFO commandstats");
        let stats = String::from_utf8_lossy(&stats);
        let prefix = format!("cmdstat_{command}:calls=");
        let line = stats.lines().find_map(|line| line.strip_prefix(prefix.as_str()));
        line.and_then(|rest| rest.split(',').next()).map_or(0, |calls| calls.parse().expect("a count"))
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
}

fn command(port: u16, folder: &TempDir, args: &[String]) -> Command {
    let line = std::env::var("NEARSIDE_TEST_REDIS").unwrap_or_else(|_| "redis-server".to_owned());
    let mut words = line.split_ascii_whitespace();
    let mut command = Command::new(words.next().expect("NEARSIDE_TEST_REDIS names a program"));
    command.args(words);
    command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--daemonize", "no"]);
    command.arg("--dir").arg(folder.path());
    command.arg("--unixsocket").arg(folder.path().join("socket"));
    command.args(["--loglevel", "notice", "--enable-debug-command", "yes"]);
    command.args(args);
    command
}
