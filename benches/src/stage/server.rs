//! A process that is measured, or that stands behind one: started on a core of its own, with its files in a folder of its
//! own, and ended with the value that stands for it.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tempfile::TempDir;

use crate::cpu;

/// How long a server may take to answer its first PING.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// How often a server that starts is tried: what a measured start may be too long by.
const START_STEP: Duration = Duration::from_micros(200);

/// How long a server may take over a question of the bench itself.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// What a server that does not come up has said last, in bytes.
const LAST_WORDS: usize = 500;

/// A server process, killed on drop.
#[derive(Debug)]
pub struct Server {
    process: Child,
    address: SocketAddr,
    command: String,
    started: Started,
    /// Removed after the process is gone.
    _folder: TempDir,
}

/// How long a server took from the call that starts it.
#[derive(Clone, Copy, Debug)]
pub struct Started {
    /// Until a connection was accepted.
    pub listening: Duration,
    /// Until PING was answered.
    pub answering: Duration,
}

/// Where a server is to listen, and where its files may be.
#[derive(Debug)]
pub struct Place<'f> {
    /// A free address of this machine.
    pub address: SocketAddr,
    /// An empty folder, removed at the end.
    pub folder: &'f Path,
}

impl Server {
    /// Starts `program` on `core`, with the arguments that `arguments` adds for the place it is given. At return it answers
    /// PING.
    pub fn start(
        program: &Path,
        core: usize,
        arguments: impl FnOnce(&Place<'_>, &mut Command) -> io::Result<()>,
    ) -> anyhow::Result<Self> {
        let folder = TempDir::with_prefix("nearside-bench-")?;
        let place = Place { address: free_address()?, folder: folder.path() };
        let log = folder.path().join("log");
        let mut command = Command::new(program);
        command.current_dir(&folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log)?);
        arguments(&place, &mut command)?;
        // Ctrl-C is for the bench, which then ends it.
        command.process_group(0);
        let address = place.address;
        let began = Instant::now();
        let process = cpu::pinned_to(core, || command.spawn())
            .with_context(|| format!("pinning to core {core}"))?
            .with_context(|| format!("starting {}", program.display()))?;
        let started = Started { listening: Duration::ZERO, answering: Duration::ZERO };
        let command = described(&command);
        let mut server = Self { process, address, command, started, _folder: folder };
        server.started = server.wait_until_it_answers(began).with_context(|| {
            let said = fs::read(&log).unwrap_or_default();
            let last_words = String::from_utf8_lossy(&said[said.len().saturating_sub(LAST_WORDS)..]).into_owned();
            format!("{} did not come up; it said {last_words:?}", server.command)
        })?;
        Ok(server)
    }

    fn wait_until_it_answers(&mut self, began: Instant) -> anyhow::Result<Started> {
        let mut listening = None;
        loop {
            if let Some(status) = self.process.try_wait()? {
                bail!("it ended: {status}");
            }
            let reply = TcpStream::connect_timeout(&self.address, ANSWER_TIMEOUT).and_then(|stream| {
                listening = listening.or(Some(began.elapsed()));
                ask(stream, b"*1\r\n$4\r\nPING\r\n")
            });
            match reply {
                Ok(reply) if reply.starts_with(b"+PONG") => {
                    let answering = began.elapsed();
                    return Ok(Started { listening: listening.unwrap_or(answering), answering });
                }
                Ok(reply) if began.elapsed() > START_TIMEOUT => {
                    bail!("PING was answered {:?}", String::from_utf8_lossy(&reply));
                }
                Err(error) if began.elapsed() > START_TIMEOUT => return Err(error.into()),
                Ok(_) | Err(_) => thread::sleep(START_STEP),
            }
        }
    }

    /// Sends one command on a connection of its own and gives the first line of the reply, and whatever came with it.
    pub(crate) fn ask(&self, command: &[u8]) -> io::Result<Vec<u8>> {
        ask(TcpStream::connect_timeout(&self.address, ANSWER_TIMEOUT)?, command)
    }

    /// A number of what a Redis says of itself with INFO.
    pub(crate) fn info(&self, field: &str) -> io::Result<f64> {
        let reply = self.ask(b"*1\r\n$4\r\nINFO\r\n")?;
        let text = String::from_utf8_lossy(&reply);
        let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')?.trim().parse().ok());
        value.ok_or_else(|| io::Error::other(format!("INFO tells no {field}")))
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// How it was started, as one would type it; its files without their folders.
    pub fn command(&self) -> &str {
        &self.command
    }

    /// How long its start took.
    pub fn started(&self) -> Started {
        self.started
    }

    /// Bytes of its program's file.
    pub fn program_len(&self) -> io::Result<u64> {
        Ok(fs::metadata(fs::read_link(format!("/proc/{}/exe", self.pid()))?)?.len())
    }

    /// Its memory that is resident now, in bytes.
    pub fn resident(&self) -> io::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        kilobytes.map(|kilobytes| kilobytes * 1024).ok_or_else(|| io::Error::other("/proc/PID/status without VmRSS"))
    }

    /// CPU time it has used so far.
    pub fn cpu(&self) -> io::Result<Duration> {
        cpu::of_process(self.pid())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only if it is gone already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Until a whole line has come, or of a bulk string all of it.
fn ask(mut stream: TcpStream, command: &[u8]) -> io::Result<Vec<u8>> {
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    stream.write_all(command)?;
    let mut reply = Vec::new();
    let mut chunk = [0; 4096];
    while !is_whole(&reply) {
        match stream.read(&mut chunk)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            received => reply.extend_from_slice(&chunk[..received]),
        }
    }
    Ok(reply)
}

fn is_whole(reply: &[u8]) -> bool {
    let Some(line_end) = reply.iter().position(|byte| *byte == b'\n') else { return false };
    let line = String::from_utf8_lossy(&reply[..line_end]);
    let len = line.strip_prefix('$').and_then(|len| len.trim().parse::<usize>().ok());
    len.is_none_or(|len| reply.len() >= line_end + 1 + len + 2)
}

fn described(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let name = |path: &Path| path.file_name().map_or(String::new(), |name| name.to_string_lossy().into_owned());
    let mut text = name(program);
    for argument in command.get_args() {
        let shown = match argument.to_string_lossy() {
            path if path.starts_with('/') => name(Path::new(argument)),
            empty if empty.is_empty() => "''".to_owned(),
            other => other.into_owned(),
        };
        text.push(' ');
        text.push_str(&shown);
    }
    text
}

/// A port that was free a moment ago: no server can be asked to choose one and tell.
pub(crate) fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_shown_without_folders() {
        let mut command = Command::new("/some/where/server");
        command.args(["--listen", "127.0.0.1:1", "--save", "", "/tmp/x/config.yaml"]);
        assert_eq!(described(&command), "server --listen 127.0.0.1:1 --save '' config.yaml");
    }

    #[test]
    fn a_bulk_string_is_whole_with_its_last_byte() {
        for (reply, whole) in [("+OK", false), ("+OK\r\n", true), ("$3\r\nabc\r", false), ("$3\r\nabc\r\n", true)] {
            assert_eq!(is_whole(reply.as_bytes()), whole, "{reply:?}");
        }
    }
}
