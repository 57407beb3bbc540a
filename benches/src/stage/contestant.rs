//! Who is measured: how each is started, what it needs, and where it is found.

use std::env;
use std::fmt::Write;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::stage::crowd;
use crate::stage::server::{Place, Server, free_address};

/// Something that a user could have clients connect to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The server itself, with nothing before it.
    Redis,
    /// Nearside, with its cache.
    Hit,
    /// The same with many rules, databases and users.
    Crowded,
    /// Nearside as it was before a change, with its cache.
    HitBefore,
    /// The same with its cache off.
    ForwardBefore,
    /// Nearside with its cache off.
    Forward,
    /// twemproxy, also called nutcracker.
    Twemproxy,
    /// Envoy's Redis filter.
    Envoy,
    /// The reference service in Go.
    Go,
    /// The reference service in Python.
    Python,
}

/// What stands behind a contestant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upstream {
    /// One Redis on the load's core, which such contestants share. Behind Redis itself: nothing.
    One,
    /// A Redis on the load's core that is this contestant's alone: what others write changes nothing in it.
    Own,
    /// That Redis, a millisecond away.
    Distant,
    /// A Redis Cluster of three primaries on the load's core.
    Cluster,
}

/// A contestant of a scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contestant {
    /// What it is.
    pub kind: Kind,
    /// What stands behind it.
    pub upstream: Upstream,
}

/// Where upstreams listen.
#[derive(Debug)]
pub struct Addresses {
    /// The servers that a contestant is told of: one, or the nodes of a cluster.
    pub servers: Vec<SocketAddr>,
    /// Whether they are a cluster.
    pub is_cluster: bool,
}

/// The cache of a Nearside, in the words of its flags.
#[derive(Clone, Copy, Debug)]
pub struct Cache {
    /// How much it holds, in all.
    pub size: &'static str,
    /// How long it serves a reply at most.
    pub max_age: &'static str,
}

/// The programs, as far as they are there.
#[derive(Debug)]
pub struct Programs {
    nearside: PathBuf,
    /// Another one, from before a change.
    before: Option<PathBuf>,
    redis_server: PathBuf,
    /// What `benches/contestants/prepare` has fetched and built.
    prepared: PathBuf,
}

impl Kind {
    /// As tables call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Redis => "Redis direct",
            Self::Hit => "Nearside, cache on",
            Self::Crowded => "Nearside, many rules, databases and users",
            Self::HitBefore => "before, cache on",
            Self::Forward => "Nearside, cache off",
            Self::ForwardBefore => "before, cache off",
            Self::Twemproxy => "twemproxy",
            Self::Envoy => "Envoy",
            Self::Go => "Go service",
            Self::Python => "Python service",
        }
    }

    /// Whether it keeps what it has read.
    pub fn caches(self) -> bool {
        matches!(self, Self::Hit | Self::HitBefore | Self::Crowded | Self::Go | Self::Python)
    }
}

impl Contestant {
    /// As tables call it.
    pub fn name(self) -> String {
        match self.upstream {
            Upstream::One | Upstream::Own | Upstream::Distant => self.kind.name().to_owned(),
            Upstream::Cluster => format!("{}, cluster", self.kind.name()),
        }
    }
}

impl Programs {
    /// `nearside`: the one that was named, or else the one built beside this program. `before`: the one to compare it with.
    pub fn find(
        nearside: Option<&Path>,
        before: Option<&Path>,
        redis_server: &Path,
        prepared: &Path,
    ) -> anyhow::Result<Self> {
        let nearside = match nearside {
            Some(path) => path.to_owned(),
            None => env::current_exe()?.with_file_name("nearside"),
        };
        anyhow::ensure!(
            nearside.exists(),
            "{} is not there: build it with `cargo build --release -p nearside`",
            nearside.display()
        );
        if let Some(path) = before {
            anyhow::ensure!(path.exists(), "{} is not there", path.display());
        }
        // Each is started in a folder of its own.
        let nearside = std::path::absolute(nearside)?;
        let before = before.map(std::path::absolute).transpose()?;
        Ok(Self { nearside, before, redis_server: redis_server.to_owned(), prepared: prepared.to_owned() })
    }

    /// The redis-server that stands behind the others.
    pub fn redis_server(&self) -> &Path {
        &self.redis_server
    }

    /// The program of a contestant, or why there is none.
    fn of(&self, kind: Kind) -> Result<PathBuf, String> {
        let prepared = |path: &str| {
            let path = self.prepared.join(path);
            if path.exists() {
                Ok(path)
            } else {
                Err("absent: benches/contestants/prepare could not get it".to_owned())
            }
        };
        match kind {
            Kind::Redis => Ok(self.redis_server.clone()),
            Kind::Hit | Kind::Crowded | Kind::Forward => Ok(self.nearside.clone()),
            Kind::HitBefore | Kind::ForwardBefore => {
                self.before.clone().ok_or_else(|| "absent: --before names none".to_owned())
            }
            Kind::Twemproxy => in_path("nutcracker").ok_or_else(|| "absent: nutcracker is not installed".to_owned()),
            Kind::Envoy => prepared("envoy/bin/envoy"),
            Kind::Go => prepared("go-service"),
            Kind::Python => prepared("python/bin/python"),
        }
    }

    /// The versions of those programs, one line each.
    pub fn versions(&self, kinds: &[Kind]) -> Vec<String> {
        let mut versions = Vec::new();
        for kind in kinds {
            let Ok(program) = self.of(*kind) else { continue };
            let mut command = Command::new(program);
            match kind {
                Kind::Python => command.args([
                    "-c",
                    "import sys, redis; print('Python', sys.version.split()[0], 'redis-py', redis.__version__)",
                ]),
                Kind::Go => {
                    let mut go = Command::new("go");
                    go.args(["version", "-m"]).arg(self.prepared.join("go-service"));
                    versions.push(go_version(&go.output().map(|output| output.stdout).unwrap_or_default()));
                    continue;
                }
                _ => command.arg("--version"),
            };
            let Ok(output) = command.output() else { continue };
            let said = [output.stdout, output.stderr].concat();
            let said = String::from_utf8_lossy(&said).into_owned();
            if let Some(line) = said.lines().map(without_folder).find(|line| !line.trim().is_empty()) {
                versions.push(line);
            }
        }
        versions.dedup();
        versions
    }

    /// Starts a contestant on `core` before `upstream`; with `cache`, if it is Nearside with its cache on. `Err(text)` in the
    /// result: it is absent.
    pub fn start(
        &self,
        kind: Kind,
        core: usize,
        upstream: &Addresses,
        cache: Option<Cache>,
    ) -> Result<anyhow::Result<Server>, String> {
        let program = self.of(kind)?;
        Ok(Server::start(&program, core, |place, command| match kind {
            Kind::Redis => redis(place, command),
            Kind::Hit | Kind::HitBefore => nearside(place, command, upstream, cache),
            Kind::Crowded => {
                let settings = place.folder.join("nearside.toml");
                crowd::write_rules(&settings)?;
                command.arg("--config").arg(settings);
                nearside(place, command, upstream, cache)
            }
            Kind::Forward | Kind::ForwardBefore => nearside(place, command, upstream, None),
            Kind::Twemproxy => twemproxy(place, command, upstream),
            Kind::Envoy => envoy(place, command, upstream),
            Kind::Go => reference_service(place, command, upstream),
            Kind::Python => {
                command.arg(fs::canonicalize("benches/contestants/python/service.py")?);
                reference_service(place, command, upstream)
            }
        }))
    }
}

/// With nothing to save, and as many clients as any scenario has.
pub(crate) fn redis(place: &Place<'_>, command: &mut Command) -> io::Result<()> {
    command.args(["--bind", &place.address.ip().to_string(), "--port", &place.address.port().to_string()]);
    command.args(["--save", "", "--appendonly", "no", "--maxclients", "15000"]);
    Ok(())
}

fn nearside(place: &Place<'_>, command: &mut Command, upstream: &Addresses, cache: Option<Cache>) -> io::Result<()> {
    let servers: Vec<String> = upstream.servers.iter().map(SocketAddr::to_string).collect();
    let scheme = if upstream.is_cluster { "redis-cluster" } else { "redis" };
    let url = format!("{scheme}://{}", servers.join(","));
    command.args(["--listen", &place.address.to_string(), "--upstream", &url]);
    command.args(["--workers", "1", "--max-clients", "15000", "--admin", "off"]);
    match cache {
        Some(Cache { size, max_age }) => command.args(["--cache-size", size, "--max-age", max_age]),
        None => command.args(["--cache-size", "off"]),
    };
    Ok(())
}

fn reference_service(place: &Place<'_>, command: &mut Command, upstream: &Addresses) -> io::Result<()> {
    command.args(["--listen", &place.address.to_string(), "--upstream", &upstream.servers[0].to_string()]);
    Ok(())
}

/// As its documentation begins.
fn twemproxy(place: &Place<'_>, command: &mut Command, upstream: &Addresses) -> io::Result<()> {
    let Place { address, folder } = place;
    let server = upstream.servers[0];
    let config = format!(
        "bench:\n  listen: {address}\n  redis: true\n  hash: fnv1a_64\n  distribution: ketama\n  preconnect: true\n  \
         backlog: 4096\n  servers:\n   - {server}:1\n"
    );
    let path = folder.join("nutcracker.yml");
    fs::write(&path, config)?;
    let stats_port = free_address()?.port().to_string();
    command.arg("--conf-file").arg(path).args(["--stats-port", &stats_port, "--stats-addr", "127.0.0.1"]);
    Ok(())
}

/// One worker; all else as it is by default.
fn envoy(place: &Place<'_>, command: &mut Command, upstream: &Addresses) -> io::Result<()> {
    let Place { address, folder } = place;
    let mut endpoints = String::new();
    for server in &upstream.servers {
        let (ip, port) = (server.ip(), server.port());
        let _ = write!(
            endpoints,
            "\n        - endpoint: {{address: {{socket_address: {{address: {ip}, port_value: {port}}}}}}}"
        );
    }
    let discovery = match upstream.is_cluster {
        false => "type: STATIC".to_owned(),
        true => "lb_policy: CLUSTER_PROVIDED\n    cluster_type:\n      name: envoy.clusters.redis\n      typed_config:\n        \
                 \"@type\": type.googleapis.com/envoy.extensions.clusters.redis.v3.RedisClusterConfig"
            .to_owned(),
    };
    let config = format!(
        r#"static_resources:
  listeners:
  - address: {{socket_address: {{address: {ip}, port_value: {port}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.redis_proxy
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.redis_proxy.v3.RedisProxy
          stat_prefix: redis
          settings: {{op_timeout: 10s}}
          prefix_routes: {{catch_all_route: {{cluster: upstream}}}}
  clusters:
  - name: upstream
    connect_timeout: 2s
    {discovery}
    load_assignment:
      cluster_name: upstream
      endpoints:
      - lb_endpoints:{endpoints}
"#,
        ip = address.ip(),
        port = address.port(),
    );
    let path = folder.join("envoy.yaml");
    fs::write(&path, config)?;
    command.arg("--config-path").arg(path).args(["--concurrency", "1", "--disable-hot-restart"]);
    command.args(["--log-level", "error"]);
    Ok(())
}

fn in_path(program: &str) -> Option<PathBuf> {
    let folders = env::var_os("PATH")?;
    env::split_paths(&folders)
        .chain([PathBuf::from("/usr/sbin")])
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
}

/// Some programs say where they were called from.
fn without_folder(line: &str) -> String {
    match line.split_once(' ') {
        Some((program, rest)) if program.starts_with('/') => {
            let name = Path::new(program).file_name().map_or(program.into(), |name| name.to_string_lossy());
            format!("{name} {rest}")
        }
        _ => line.to_owned(),
    }
}

/// Of `go version -m`: the version of Go, and of go-redis.
fn go_version(said: &[u8]) -> String {
    let said = String::from_utf8_lossy(said);
    let go = said.split_ascii_whitespace().find(|word| word.starts_with("go1")).unwrap_or("of unknown version");
    let library = said.lines().find(|line| line.contains("go-redis/v9"));
    let library = library.and_then(|line| line.split_ascii_whitespace().nth(2)).unwrap_or("of unknown version");
    format!("Go {go} go-redis {library}")
}
