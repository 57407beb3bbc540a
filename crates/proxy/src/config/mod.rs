//! Settings: what the flags, the environment and the file say, turned into a [`Config`] that is known to be valid.
//!
//! A setting is described once, in [`settings`]: its name, its default, what it allows, its help. `raw` collects the
//! texts given for it with the place each came from (`flags`, the environment, `file`); `resolve` parses them. Past that point no other part of the
//! program sees a text, an unchecked number, or a combination that cannot work.

mod error;
mod file;
mod flags;
mod listen;
mod machine;
mod raw;
mod resolve;
mod rules;
mod secret;
pub(crate) mod settings;
#[cfg(test)]
mod tests;
mod units;
mod upstream;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fmt, fs};

use raw::{RawAction, RawInvocation, RawSettings};
use settings::Setting;

pub(crate) use error::{ConfigError, Origin};
pub(crate) use listen::{Listen, ListenAddress};
pub(crate) use rules::{Rule, Rules};
pub(crate) use secret::Secret;
pub(crate) use upstream::{Credentials, Sentinels, Servers, Upstream, UpstreamAddress};

/// Every setting, resolved and valid. Sizes are in bytes.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// Where clients connect; at least one.
    pub(crate) listen: Vec<Listen>,
    /// Where `/healthz`, `/readyz` and `/metrics` are served; `None`: nowhere.
    pub(crate) admin: Option<Listen>,
    /// The Redis behind the proxy.
    pub(crate) upstream: Upstream,
    /// Threads that serve clients, 1 to 256.
    pub(crate) workers: usize,
    /// Memory of the near-cache; `None`: nothing is cached.
    pub(crate) cache_size: Option<u64>,
    /// What is cached of which keys, up to which size, and how long, also when the key never expires.
    pub(crate) cache_rules: Rules,
    /// How old an answer may be when the upstream's invalidations stop arriving: the length of a lease.
    pub(crate) max_staleness: Duration,
    /// Keys are cached however often they change.
    pub(crate) cache_churning: bool,
    /// Scripts and functions are answered only when the upstream's invalidations for all that they changed have arrived.
    pub(crate) script_fence: bool,
    /// Client connections held at a time; one more is told so and closed.
    pub(crate) max_clients: usize,
    /// The password clients must give; `None`: none.
    pub(crate) requirepass: Option<Secret>,
    /// Clients may log in as users of the upstream's ACL.
    pub(crate) acl_users: bool,
    /// Without a password, serve only clients on loopback and Unix sockets.
    pub(crate) protected_mode: bool,
    /// Commands that are served although the proxy refuses them by default, in lower case, in the order given.
    pub(crate) allow_commands: Vec<String>,
    /// How long a shutdown waits for what is in flight.
    pub(crate) drain_timeout: Duration,
    /// A client silent for this long is closed; `None`: never.
    pub(crate) idle_timeout: Option<Duration>,
    /// Silence before TCP probes a connection; `None`: no probes.
    pub(crate) tcp_keepalive: Option<Duration>,
    /// How long a connection to the upstream may owe replies without any progress before it is given up.
    pub(crate) upstream_timeout: Duration,
    /// How long connecting to the upstream may take, name lookup and handshake included.
    pub(crate) connect_timeout: Duration,
    /// How often every primary of a cluster is asked which slots it serves; `None`: twice in `max_staleness`.
    topology_interval: Option<Duration>,
    /// Whether clients are shown a cluster of one node; `None`: before a cluster they are.
    pub(crate) cluster_face: Option<bool>,
    /// Whether clients are shown a Sentinel, and what it calls its primary.
    pub(crate) sentinel_face: SentinelFace,
    /// The host and port that clients are told which ask where the node is; `None`: what they reached.
    pub(crate) announce: Option<(String, u16)>,
    /// When a client that does not read its replies is cut off.
    pub(crate) output_limits: OutputLimits,
    /// All buffers of all sessions together; past it commands are answered `-OVERLOAD`.
    pub(crate) buffer_memory: u64,
    /// Unparsed bytes held for one client, beyond which it is closed.
    pub(crate) query_buffer_limit: usize,
    /// The longest single argument of a request.
    pub(crate) max_bulk_len: usize,
    /// What is logged, in the filter syntax of `tracing_subscriber::EnvFilter`.
    pub(crate) log: String,
    /// What was given for each setting, for errors that show only later.
    raw: RawSettings,
}

/// The Sentinel that clients may be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SentinelFace {
    /// One that calls its primary as those upstream do, if there are any.
    Auto,
    Off,
    /// One that calls its primary so.
    Named(String),
}

/// Replies that wait for one client to read them, as Redis's `client-output-buffer-limit normal`. In bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OutputLimits {
    /// Past this the client is closed at once.
    pub(crate) hard: usize,
    /// Past this for `soft_time` on end, the client is closed.
    pub(crate) soft: usize,
    /// See `soft`.
    pub(crate) soft_time: Duration,
}

/// What the command line asks for.
#[derive(Debug)]
pub(crate) enum Invocation {
    /// Serve.
    Run(Box<Config>),
    /// `nearside check FILE`: say whether the file holds valid settings; the errors in the order of its lines.
    Check {
        /// As named on the command line.
        file: PathBuf,
        /// The settings of the file over the defaults; flags and environment are left out.
        result: Result<Box<Config>, Vec<ConfigError>>,
    },
    /// Print this on standard output and exit 0: help, version.
    Print(String),
}

impl Config {
    /// Whether clients are shown a cluster of one node.
    pub(crate) fn shows_cluster(&self) -> bool {
        self.cluster_face.unwrap_or(matches!(self.upstream.servers, Servers::Cluster(_)))
    }

    /// Between two questions which node serves which slot, or which server is the primary.
    pub(crate) fn topology_interval(&self) -> Duration {
        self.topology_interval.unwrap_or(self.max_staleness / 2)
    }

    /// Whether a lease can wait for the nodes' slots to be told: these are asked for before it lapses.
    pub(crate) fn asks_slots_in_time(&self) -> bool {
        self.topology_interval() < self.max_staleness
    }

    /// What the Sentinel that clients are shown calls its primary; `None`: they are shown none.
    pub(crate) fn sentinel_name(&self) -> Option<&str> {
        match (&self.sentinel_face, &self.upstream.servers) {
            (SentinelFace::Named(name), _) | (SentinelFace::Auto, Servers::Sentinel(Sentinels { name, .. })) => {
                Some(name)
            }
            _ => None,
        }
    }

    /// What to change if the largest item does not fit the cache: its size, or the cache's if that comes from a rule or from nobody.
    pub(crate) fn size_at_fault(&self) -> &'static Setting {
        let is_of_a_rule = self.cache_rules.has_larger_items();
        let is_default = matches!(self.raw.one(&settings::MAX_ITEM_SIZE).origin, Origin::Default(_));
        if is_of_a_rule || is_default { &settings::CACHE_SIZE } else { &settings::MAX_ITEM_SIZE }
    }

    /// The error that the value of `setting`, valid by itself, cannot be carried out: it does not fit the machine, or
    /// what another part of the program can do.
    pub(crate) fn refuse(&self, setting: &'static Setting, reason: impl fmt::Display) -> ConfigError {
        self.raw.one(setting).refused(reason)
    }
}

/// Reads the command line (`args` begins with the program's name), the environment and the file they may name.
/// A flag wins over the environment, that over the file, that over the default.
pub(crate) fn load(
    args: impl IntoIterator<Item = OsString>,
    env: impl Fn(&str) -> Option<OsString>,
) -> Result<Invocation, ConfigError> {
    let RawInvocation { action, given } = flags::parse(args)?;
    let config = match action {
        RawAction::Print(text) => return Ok(Invocation::Print(text)),
        RawAction::Check { file } => {
            let result = check(&file);
            return Ok(Invocation::Check { file, result });
        }
        RawAction::Run { config } => config,
    };
    let mut raw = RawSettings::defaults();
    let mut rules = Vec::new();
    if let Some((path, origin)) = raw::config_file(config, &env) {
        let said = file::parse(&path, &read(&path, origin)?);
        if let Some(error) = first(said.errors) {
            return Err(error);
        }
        raw.override_with(said.given);
        rules = said.rules;
    }
    raw.override_with(raw::environment(&env)?);
    raw.override_with(given);
    let resolved = resolve::resolve(raw, &rules).map(Invocation::Run);
    resolved.map_err(|errors| first(errors).expect("there is an error where there is no Config"))
}

/// The settings of the file alone, or everything that is wrong in it.
fn check(path: &Path) -> Result<Box<Config>, Vec<ConfigError>> {
    let content = read(path, Origin::CommandLine("check".to_owned())).map_err(|error| vec![error])?;
    let file::Said { given, rules, mut errors } = file::parse(path, &content);
    let mut raw = RawSettings::defaults();
    raw.override_with(given);
    match resolve::resolve(raw, &rules) {
        Ok(config) if errors.is_empty() => return Ok(config),
        Ok(_) => {}
        Err(more) => errors.extend(more),
    }
    errors.sort_by_key(ConfigError::line);
    Err(errors)
}

fn read(path: &Path, origin: Origin) -> Result<String, ConfigError> {
    fs::read_to_string(path).map_err(|error| ConfigError::Unreadable {
        origin,
        path: path.to_owned(),
        reason: error.to_string(),
    })
}

/// The one to print where a line is all there is: the first of the file.
fn first(errors: Vec<ConfigError>) -> Option<ConfigError> {
    errors.into_iter().min_by_key(ConfigError::line)
}
