//! The program under test: built from the sources at hand, then run.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use tempfile::TempDir;

use crate::client::Client;
use crate::cluster::RedisCluster;
use crate::patience::eventually;
use crate::ports::free_port;
use crate::process::Process;
use crate::redis_server::RedisServer;
use crate::socket::Address;

const START_LIMIT: Duration = Duration::from_secs(10);
const WARM_LIMIT: Duration = Duration::from_secs(10);

/// A running Nearside in front of a Redis.
#[derive(Debug)]
pub struct Nearside {
    address: Address,
    /// `None` when calibrating: clients reach the upstream itself.
    program: Option<Program>,
}

#[derive(Debug)]
struct Program {
    process: Process,
    admin: u16,
    folder: TempDir,
}

/// Lines of the program's output that are shown when its test fails.
const SHOWN_LINES: usize = 40;

impl Drop for Program {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let output = self.process.output();
            let lines = output.lines().collect::<Vec<_>>();
            eprintln!(
                "--- nearside's last words ---\n{}\n---",
                lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n")
            );
        }
    }
}

/// True, and says so, when there is no Nearside in between (`NEARSIDE_TEST_DIRECT=1`): a test of what only `Nearside`
/// has then returns early.
#[must_use]
pub fn calibrating(needs: &str) -> bool {
    let direct = is_direct();
    if direct {
        eprintln!("calibrating against Redis itself, which has no {needs}: nothing to see");
    }
    direct
}

fn is_direct() -> bool {
    env::var_os("NEARSIDE_TEST_DIRECT").is_some_and(|value| value == "1")
}

impl Nearside {
    /// Starts one before `redis` with its defaults.
    #[must_use]
    pub fn before(redis: &RedisServer) -> Self {
        Self::with(redis, &[])
    }

    /// Starts one before `redis` with more arguments.
    #[must_use]
    pub fn with(redis: &RedisServer, args: &[&str]) -> Self {
        Self::upstream(&redis.address(), args)
    }

    /// Starts one before the server at `upstream`, which need not be there.
    #[must_use]
    pub fn upstream(upstream: &Address, args: &[&str]) -> Self {
        Self::at(&upstream.url(), upstream, args)
    }

    /// Starts one before a cluster, with all its nodes as seeds. A test of that returns early when calibrating: no node
    /// answers for all.
    #[must_use]
    pub fn before_cluster(cluster: &RedisCluster, args: &[&str]) -> Self {
        Self::at(&cluster.url(), &cluster.addresses()[0], args)
    }

    /// The same, and waits until it knows who serves what.
    #[must_use]
    #[track_caller]
    pub fn ready_before_cluster(cluster: &RedisCluster, args: &[&str]) -> Self {
        let nearside = Self::before_cluster(cluster, args);
        nearside.wait_until_ready();
        nearside
    }

    /// Starts one with this `--upstream`, which need not lead anywhere. A test of that returns early when calibrating.
    #[must_use]
    pub fn with_url(url: &str, args: &[&str]) -> Self {
        Self::at(url, &Address::local(0), args)
    }

    fn at(url: &str, upstream: &Address, args: &[&str]) -> Self {
        if is_direct() {
            return Self { address: upstream.clone(), program: None };
        }
        let (listen, admin) = (free_port(), free_port());
        let folder = tempfile::Builder::new().prefix("nearside-").tempdir().expect("a temporary folder");
        let mut command = nearside_command();
        command.args(["--listen", &format!("127.0.0.1:{listen}"), "--admin", &format!("127.0.0.1:{admin}")]);
        command.args(["--upstream", url]).args(args).current_dir(folder.path());
        let process = Process::spawn(command, &folder.path().join("log"));
        let mut nearside = Self { address: Address::local(listen), program: Some(Program { process, admin, folder }) };
        nearside.wait_until_it_listens();
        nearside
    }

    fn wait_until_it_listens(&mut self) {
        let address = self.address.clone();
        let process = self.process();
        eventually("nearside listens", START_LIMIT, || {
            let status = process.ended();
            assert!(status.is_none(), "nearside ended with {status:?}:\n{}", process.output());
            address.connect().ok()
        });
    }

    /// Waits until `/readyz` says so: before a cluster it knows then who serves what.
    #[track_caller]
    pub fn wait_until_ready(&self) {
        // The admin port is opened last.
        eventually("the admin port is open", START_LIMIT, || self.try_admin().ok());
        eventually("nearside is ready", START_LIMIT, || (self.admin("/readyz").0 == 200).then_some(()));
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// A new connection to it.
    #[track_caller]
    #[must_use]
    pub fn client(&self) -> Client {
        Client::connect(&self.address)
    }

    /// Its process: to be signalled, waited for, read.
    ///
    /// # Panics
    /// When calibrating, as there is none.
    pub fn process(&mut self) -> &mut Process {
        &mut self.program.as_mut().expect("a test of the process returns early when calibrating").process
    }

    /// The folder that it runs in; gone after the test.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.program.as_ref().expect("a test of the process returns early when calibrating").folder.path()
    }

    /// One GET to its admin port: the status, and the body.
    #[track_caller]
    #[must_use]
    pub fn admin(&self, path: &str) -> (u16, String) {
        let mut stream = self.try_admin().expect("the admin port is open");
        stream.set_read_timeout(Some(Client::PATIENCE)).expect("a timeout above zero is valid");
        let request = format!("GET {path} HTTP/1.1\r\nHost: nearside\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("the admin port takes a request");
        let mut response = String::new();
        stream.read_to_string(&mut response).expect("the admin port answers text and closes");
        let (head, body) = response.split_once("\r\n\r\n").expect("an HTTP response has a head");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        (status.expect("an HTTP response begins with a status"), body.to_owned())
    }

    fn try_admin(&self) -> std::io::Result<TcpStream> {
        let program = self.program.as_ref().expect("a test of the admin port returns early when calibrating");
        TcpStream::connect(("127.0.0.1", program.admin))
    }

    /// What `/metrics` says now.
    #[track_caller]
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        let (status, body) = self.admin("/metrics");
        assert_eq!(status, 200, "/metrics answers: {body}");
        Metrics::parse(&body)
    }

    /// How many reads have been answered from the near-cache.
    #[must_use]
    pub fn hits(&self) -> f64 {
        self.metrics().total("nearside_cache_hits_total")
    }

    /// Reads a key until it is read from the near-cache. For tests with one client.
    #[track_caller]
    pub fn warm(&self, client: &mut Client, key: &str) {
        // The admin port is opened last.
        eventually("the admin port is open", START_LIMIT, || self.try_admin().ok());
        eventually(&format!("GET {key} is a hit"), WARM_LIMIT, || {
            let before = self.hits();
            client.call(&format!("GET {key}"));
            (self.hits() > before).then_some(())
        });
    }

    /// Commands written to each node so far, by its label.
    #[must_use]
    pub fn commands_by_node(&self) -> BTreeMap<String, f64> {
        let label = |name: &str| {
            let label = name.strip_prefix("nearside_upstream_commands_total{node=\"")?.strip_suffix("\"}")?;
            Some(label.to_owned())
        };
        self.metrics().iter().filter_map(|(name, value)| Some((label(name)?, *value))).collect()
    }
}

/// One reading of `/metrics`: values by name and labels, as printed (`name{label="value"}`).
#[derive(Debug, Clone)]
pub struct Metrics(BTreeMap<String, f64>);

impl Metrics {
    fn parse(text: &str) -> Self {
        let samples = text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
        Self(
            samples
                .map(|line| {
                    let (name, value) = line.rsplit_once(' ').expect("a sample is a name and a value");
                    (name.to_owned(), value.parse().expect("the value of a sample is a number"))
                })
                .collect(),
        )
    }

    /// The metric `name` added up over its labels.
    ///
    /// # Panics
    /// When there is none of that name: a renamed metric must not pass for zero.
    #[track_caller]
    #[must_use]
    pub fn total(&self, name: &str) -> f64 {
        let is_meant =
            |sample: &str| sample.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('{'));
        let values = self.0.iter().filter(|(sample, _)| is_meant(sample)).map(|(_, value)| *value).collect::<Vec<_>>();
        assert!(!values.is_empty(), "no metric {name} in {self:?}");
        values.iter().sum()
    }
}

impl Deref for Metrics {
    type Target = BTreeMap<String, f64>;
    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

/// The program, ready to take arguments, with no setting from the environment.
#[must_use]
pub fn nearside_command() -> Command {
    let mut command = Command::new(binary());
    for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("NEARSIDE_")) {
        command.env_remove(name);
    }
    command
}

/// The binary, built once for this process: cargo sets `CARGO_BIN_EXE_…` only for tests of the binary's own package, and
/// a binary that was left lying about would be a stale one.
fn binary() -> &'static Path {
    // A failure is kept as well: the next test would only wait for the same one.
    static BINARY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    BINARY.get_or_init(build).as_ref().unwrap_or_else(|errors| panic!("nearside does not build:\n{errors}"))
}

fn build() -> Result<PathBuf, String> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let test = env::current_exe().expect("a running test has a path");
    // …/target/debug/deps/cache-0123456789abcdef, or …/target/debug/torture
    let folder = test.parent().expect("a file is in a folder");
    let profile_folder = if folder.ends_with("deps") { folder.parent().expect("it is the profile's") } else { folder };
    let target = profile_folder.parent().expect("the target folder holds the profile's");
    let profile = match profile_folder.file_name().and_then(|name| name.to_str()).expect("a profile's name is text") {
        "debug" => "dev",
        other => other,
    };
    let output = Command::new(cargo)
        .args(["build", "--package", "nearside", "--bin", "nearside", "--message-format", "json", "--profile", profile])
        .arg("--target-dir")
        .arg(target)
        .arg("--manifest-path")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"))
        .output()
        .expect("cargo starts");
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let messages = output.stdout.split(|&byte| byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok());
    let mut executables =
        messages.filter_map(|message: serde_json::Value| Some(PathBuf::from(message["executable"].as_str()?)));
    Ok(executables.next_back().expect("cargo says where it put the executable"))
}
