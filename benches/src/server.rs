//! The servers that are measured: each started on a core of its own, with its files in a folder of its own, and ended
//! with the value that stands for it.

use std::env;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tempfile::TempDir;

use crate::cpu;

/// How long a server may take to answer its first PING.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a server may take over a question of the bench itself.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// The nearside to measure: the one that was named, or else the one built beside this program.
pub fn nearside_program(named: Option<&Path>) -> anyhow::Result<PathBuf> {
    let program = match named {
        Some(path) => path.to_owned(),
        None => env::current_exe()?.with_file_name("nearside"),
    };
    if !program.exists() {
        bail!("{} is not there: build it with `cargo build --release -p nearside`", program.display());
    }
    Ok(program)
}

/// A server process, killed on drop.
#[derive(Debug)]
pub struct Server {
    process: Child,
    address: SocketAddr,
    /// Removed after the process is gone.
    _folder: TempDir,
}

impl Server {
    /// Starts `program`, a redis-server, with nothing to save, on `core`.
    pub fn redis(program: &Path, core: usize) -> anyhow::Result<Self> {
        Self::start(program, core, |address, command| {
            command.args(["--bind", &address.ip().to_string(), "--port", &address.port().to_string()]);
            command.args(["--save", "", "--appendonly", "no"]);
        })
    }

    /// Starts `program`, a redis-server, as a node of a cluster that knows no other yet.
    pub(crate) fn cluster_node(program: &Path, core: usize) -> anyhow::Result<Self> {
        let bus = free_address()?.port().to_string();
        Self::start(program, core, |address, command| {
            command.args(["--bind", &address.ip().to_string(), "--port", &address.port().to_string()]);
            command.args(["--save", "", "--appendonly", "no", "--cluster-enabled", "yes", "--cluster-port", &bus]);
        })
    }

    /// Starts `program`, a Nearside of one worker before `upstream` (a URL), on `core`. Its cache is `cache_size`: a size or
    /// `off`.
    pub fn nearside(program: &Path, core: usize, upstream: &str, cache_size: &str) -> anyhow::Result<Self> {
        Self::start(program, core, |address, command| {
            command.args(["--listen", &address.to_string(), "--upstream", upstream]);
            command.args(["--workers", "1", "--cache-size", cache_size, "--admin", "off"]);
        })
    }

    fn start(program: &Path, core: usize, arguments: impl FnOnce(SocketAddr, &mut Command)) -> anyhow::Result<Self> {
        let folder = TempDir::with_prefix("nearside-bench-")?;
        let address = free_address()?;
        let mut command = Command::new(program);
        command.current_dir(&folder).stdin(Stdio::null()).stdout(Stdio::null());
        arguments(address, &mut command);
        let process = cpu::pinned_to(core, || command.spawn())
            .with_context(|| format!("pinning to core {core}"))?
            .with_context(|| format!("starting {}", program.display()))?;
        let mut server = Self { process, address, _folder: folder };
        server.wait_until_it_answers().with_context(|| format!("{} did not come up", program.display()))?;
        Ok(server)
    }

    fn wait_until_it_answers(&mut self) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            if let Some(status) = self.process.try_wait()? {
                bail!("it ended: {status}");
            }
            match self.ask(b"*1\r\n$4\r\nPING\r\n") {
                Ok(reply) if reply.starts_with(b"+PONG") => return Ok(()),
                Ok(reply) if began.elapsed() > START_TIMEOUT => {
                    bail!("PING was answered {:?}", String::from_utf8_lossy(&reply));
                }
                Err(error) if began.elapsed() > START_TIMEOUT => return Err(error.into()),
                Ok(_) | Err(_) => thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    /// Sends one command on a connection of its own and gives the first line of the reply, and whatever came with it.
    pub(crate) fn ask(&self, command: &[u8]) -> io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect_timeout(&self.address, ANSWER_TIMEOUT)?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        stream.write_all(command)?;
        let mut reply = Vec::new();
        let mut chunk = [0; 4096];
        while !reply.contains(&b'\n') {
            match stream.read(&mut chunk)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                received => reply.extend_from_slice(&chunk[..received]),
            }
        }
        Ok(reply)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its memory that is resident now, in bytes.
    pub fn resident(&self) -> io::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        kilobytes.map(|kilobytes| kilobytes * 1024).ok_or_else(|| io::Error::other("/proc/PID/status without VmRSS"))
    }

    /// CPU time it has used so far.
    pub fn cpu(&self) -> io::Result<Duration> {
        cpu::of_process(self.process.id())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only if it is gone already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A port that was free a moment ago: neither server can be asked to choose one and tell.
fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}
