//! From texts to a [`Config`]. A bad value is noted and its default stands in, so that one pass finds every error.

use std::ops::RangeBounds;
use std::time::Duration;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use super::raw::{Given, RawSettings};
use super::settings::{self, Setting};
use super::upstream::{Upstream, UrlError};
use super::{
    Config, ConfigError, Listen, ListenAddress, OutputLimits, Rules, Secret, SentinelFace, machine, rules, units,
};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Parses every setting. The errors are at least one, in the order of the settings.
pub(super) fn resolve(raw: RawSettings, rules: &[rules::Given]) -> Result<Box<Config>, Vec<ConfigError>> {
    let mut resolver = Resolver { raw: &raw, errors: Vec::new() };
    let r = &mut resolver;
    let max_item_size = r.value(&settings::MAX_ITEM_SIZE, |text| size(text, 1..=512 * MIB));
    let max_age = r.time(&settings::MAX_AGE, 10 * MILLISECOND..=365 * DAY);
    let config = Box::new(Config {
        listen: r.listen(),
        upstream: r.value(&settings::UPSTREAM, |text| Ok(Upstream::parse(text)?)),
        workers: r.value(&settings::WORKERS, |text| match text {
            "auto" => Ok(machine::cpus().clamp(1, 256)),
            text => Ok(number(text, 1..=256)?),
        }),
        cache_size: r.value(&settings::CACHE_SIZE, |text| unless_off(text, |text| size(text, MIB..))),
        cache_rules: Rules::new(rules, max_age, max_item_size),
        max_staleness: r.time(&settings::MAX_STALENESS, 10 * MILLISECOND..=HOUR),
        cache_churning: r.value(&settings::CACHE_CHURNING, |text| units::boolean(text).ok_or(Refusal::NotAllowed)),
        script_fence: r.value(&settings::SCRIPT_FENCE, |text| units::boolean(text).ok_or(Refusal::NotAllowed)),
        max_clients: r.value(&settings::MAX_CLIENTS, |text| number(text, 1..=1_000_000)),
        requirepass: r
            .value(&settings::REQUIREPASS, |text| Ok((!text.is_empty()).then(|| Secret::new(text.as_bytes())))),
        acl_users: r.value(&settings::ACL_USERS, |text| units::boolean(text).ok_or(Refusal::NotAllowed)),
        protected_mode: r.value(&settings::PROTECTED_MODE, |text| units::boolean(text).ok_or(Refusal::NotAllowed)),
        allow_commands: r.allow_commands(),
        admin: r.admin(),
        drain_timeout: r.time(&settings::DRAIN_TIMEOUT, ..=HOUR),
        idle_timeout: r.time_or_off(&settings::IDLE_TIMEOUT, SECOND..=365 * DAY),
        // The kernel takes at most 32767 seconds.
        tcp_keepalive: r.time_or_off(&settings::TCP_KEEPALIVE, SECOND..=9 * HOUR),
        upstream_timeout: r.time(&settings::UPSTREAM_TIMEOUT, 10 * MILLISECOND..=HOUR),
        connect_timeout: r.time(&settings::CONNECT_TIMEOUT, 10 * MILLISECOND..=HOUR),
        topology_interval: r.value(&settings::TOPOLOGY_INTERVAL, |text| match text {
            "auto" => Ok(None),
            text => time(text, &(10 * MILLISECOND..=HOUR)).map(Some),
        }),
        cluster_face: r.value(&settings::CLUSTER_FACE, |text| match text {
            "auto" => Ok(None),
            text => units::boolean(text).map(Some).ok_or(Refusal::NotAllowed),
        }),
        sentinel_face: r.value(&settings::SENTINEL_FACE, |text| match text {
            "auto" => Ok(SentinelFace::Auto),
            "off" => Ok(SentinelFace::Off),
            "" => Err(Refusal::NotAllowed),
            name => Ok(SentinelFace::Named(name.to_owned())),
        }),
        announce: r.value(&settings::ANNOUNCE, announce),
        output_limits: OutputLimits {
            hard: r.value(&settings::OUTPUT_LIMIT_HARD, |text| size(text, KIB..)),
            soft: r.value(&settings::OUTPUT_LIMIT_SOFT, |text| size(text, KIB..)),
            soft_time: r.time(&settings::OUTPUT_LIMIT_SOFT_TIME, ..=HOUR),
        },
        buffer_memory: r.value(&settings::BUFFER_MEMORY, |text| match text {
            "auto" => Ok(quarter_of(machine::memory())),
            text => size(text, MIB..),
        }),
        query_buffer_limit: r.value(&settings::QUERY_BUFFER_LIMIT, |text| size(text, MIB..)),
        max_bulk_len: r.value(&settings::MAX_BULK_LEN, |text| size(text, MIB..4 * GIB)),
        log: r.value(&settings::LOG, log_filter),
        raw: raw.clone(),
    });
    if resolver.errors.is_empty() { Ok(config) } else { Err(resolver.errors) }
}

struct Resolver<'a> {
    raw: &'a RawSettings,
    errors: Vec<ConfigError>,
}

/// Why a text is not taken.
enum Refusal {
    /// It is not what the setting allows.
    NotAllowed,
    /// The same, with a reason worth telling.
    Because(String),
}

impl From<UrlError> for Refusal {
    fn from(error: UrlError) -> Refusal {
        Refusal::Because(error.to_string())
    }
}

type Parsed<T> = Result<T, Refusal>;

impl Resolver<'_> {
    /// The value of a setting; if it has none, notes why and gives that of its default.
    fn value<T>(&mut self, setting: &'static Setting, parse: impl Fn(&str) -> Parsed<T>) -> T {
        let given = self.raw.one(setting);
        parse(&given.text).unwrap_or_else(|refusal| {
            self.errors.push(refusal.of(given));
            parse(setting.default).ok().expect("the defaults are valid: a test resolves them")
        })
    }

    fn time(&mut self, setting: &'static Setting, allowed: impl RangeBounds<Duration>) -> Duration {
        self.value(setting, |text| time(text, &allowed))
    }

    /// A time, or nothing for `off` and zero.
    fn time_or_off(&mut self, setting: &'static Setting, allowed: impl RangeBounds<Duration>) -> Option<Duration> {
        self.value(setting, |text| match units::duration(text) {
            Some(Duration::ZERO) => Ok(None),
            _ => unless_off(text, |text| time(text, &allowed)),
        })
    }

    fn listen(&mut self) -> Vec<Listen> {
        let raw = self.raw;
        raw.all(&settings::LISTEN).filter_map(|given| self.listen_address(given)).collect()
    }

    fn admin(&mut self) -> Option<Listen> {
        let given = self.raw.one(&settings::ADMIN);
        if given.text == "off" { None } else { self.listen_address(given) }
    }

    /// An address together with where it was given, for the errors of opening it.
    fn listen_address(&mut self, given: &Given) -> Option<Listen> {
        match ListenAddress::parse(&given.text) {
            Some(address) => Some(Listen { address, origin: given.origin.clone() }),
            None => {
                self.errors.push(Refusal::NotAllowed.of(given));
                None
            }
        }
    }

    fn allow_commands(&mut self) -> Vec<String> {
        let (names, bad): (Vec<_>, Vec<_>) =
            self.raw.all(&settings::ALLOW_COMMANDS).filter(|given| !given.text.is_empty()).partition(|given| {
                given.text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.|".contains(&byte))
            });
        self.errors.extend(bad.into_iter().map(|given| Refusal::NotAllowed.of(given)));
        names.into_iter().map(|given| given.text.to_ascii_lowercase()).collect()
    }
}

impl Refusal {
    fn of(self, given: &Given) -> ConfigError {
        let allowed = given.setting.allowed;
        match self {
            Refusal::NotAllowed => given.refused(format_args!("expected {allowed}")),
            Refusal::Because(reason) => given.refused(format_args!("{reason}; expected {allowed}")),
        }
    }
}

/// Bytes for all buffers: a quarter of the machine's memory, where that is known, and never so little that a single
/// large value does not pass.
fn quarter_of(memory: Option<u64>) -> u64 {
    memory.map_or(GIB, |bytes| (bytes / 4).max(GIB))
}

fn unless_off<T>(text: &str, parse: impl Fn(&str) -> Parsed<T>) -> Parsed<Option<T>> {
    if text == "off" { Ok(None) } else { parse(text).map(Some) }
}

fn number(text: &str, allowed: impl RangeBounds<u64>) -> Parsed<usize> {
    let number = units::number(text).filter(|number| allowed.contains(number));
    number.and_then(|number| number.try_into().ok()).ok_or(Refusal::NotAllowed)
}

/// Bytes, as a `u64` or a `usize`.
fn size<T: TryFrom<u64>>(text: &str, allowed: impl RangeBounds<u64>) -> Parsed<T> {
    let bytes = units::size(text).filter(|bytes| allowed.contains(bytes));
    bytes.and_then(|bytes| bytes.try_into().ok()).ok_or(Refusal::NotAllowed)
}

/// A host and port that clients can connect to.
fn announce(text: &str) -> Parsed<Option<(String, u16)>> {
    if text == "auto" {
        return Ok(None);
    }
    let announced = match ListenAddress::parse(text) {
        Some(ListenAddress::Ip(address)) => (address.ip().to_string(), address.port()),
        Some(ListenAddress::Name { host, port }) => (host, port),
        _ => return Err(Refusal::NotAllowed),
    };
    if announced.1 == 0 { Err(Refusal::NotAllowed) } else { Ok(Some(announced)) }
}

fn time(text: &str, allowed: &impl RangeBounds<Duration>) -> Parsed<Duration> {
    units::duration(text).filter(|time| allowed.contains(time)).ok_or(Refusal::NotAllowed)
}

/// A filter that `EnvFilter` takes. Where that takes any word for the name of a part to log everything of, a word by
/// itself must be a level here: otherwise `wran` would silence every warning.
fn log_filter(text: &str) -> Parsed<String> {
    let bare_words = text.split(',').filter(|directive| !directive.contains(['=', '[']));
    for word in bare_words {
        if word.is_empty() || word.parse::<LevelFilter>().is_err() {
            return Err(Refusal::Because(format!("{word:?} is not a level")));
        }
    }
    EnvFilter::try_new(text).map_err(|error| Refusal::Because(error.to_string()))?;
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_take_a_quarter_of_the_memory_and_at_least_a_gibibyte() {
        assert_eq!(quarter_of(Some(64 * GIB)), 16 * GIB);
        assert_eq!(quarter_of(Some(2 * GIB)), GIB);
        assert_eq!(quarter_of(None), GIB);
    }
}
