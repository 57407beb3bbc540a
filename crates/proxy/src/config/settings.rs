//! The settings there are: one entry each, from which come the flag, the environment variable, the key in the file,
//! the help, and the words of an error. How the text becomes a value stands in `resolve`, in the same order.

/// One setting.
#[derive(Debug)]
pub(crate) struct Setting {
    /// `cache-size`: the key in the file; `--cache-size` on the command line, `NEARSIDE_CACHE_SIZE` in the environment.
    pub(crate) name: &'static str,
    /// Stands for the value in the help.
    pub(super) value: &'static str,
    /// Parsed as if it were given.
    pub(super) default: &'static str,
    /// How many values it takes.
    pub(super) takes: Takes,
    /// Completes "expected …" in an error.
    pub(super) allowed: &'static str,
    /// What it does, for the help.
    pub(super) help: &'static str,
}

/// How many values a setting takes, and whether they may be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Takes {
    /// One value.
    One,
    /// One value that no message may show.
    OneSecret,
    /// Values separated by commas, by repeating the flag, or as an array in the file.
    Many,
}

impl Setting {
    /// `--cache-size`
    pub(super) fn flag(&self) -> String {
        format!("--{}", self.name)
    }

    /// `NEARSIDE_CACHE_SIZE`
    pub(super) fn variable(&self) -> String {
        format!("NEARSIDE_{}", self.name.to_uppercase().replace('-', "_"))
    }

    /// The setting of this name in the file.
    pub(super) fn named(name: &str) -> Option<&'static Setting> {
        ALL.into_iter().find(|setting| setting.name == name)
    }

    /// The setting whose name a misspelt `name` most likely meant: a third of its letters may be wrong.
    pub(super) fn nearest(name: &str) -> Option<&'static Setting> {
        let (distance, setting) =
            ALL.into_iter().map(|setting| (edit_distance(name, setting.name), setting)).min_by_key(|(d, _)| *d)?;
        (distance <= setting.name.len() / 3).then_some(setting)
    }
}

/// Characters to insert, delete or replace to make one text of the other (Levenshtein), a row at a time.
fn edit_distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.iter().enumerate() {
            let replace = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replace.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

/// In the order of the help.
pub(super) static ALL: [&Setting; 31] = [
    &LISTEN,
    &UPSTREAM,
    &WORKERS,
    &CACHE_SIZE,
    &MAX_ITEM_SIZE,
    &MAX_AGE,
    &MAX_STALENESS,
    &CACHE_CHURNING,
    &SCRIPT_FENCE,
    &MAX_CLIENTS,
    &REQUIREPASS,
    &ACL_USERS,
    &PROTECTED_MODE,
    &ALLOW_COMMANDS,
    &ADMIN,
    &DRAIN_TIMEOUT,
    &IDLE_TIMEOUT,
    &TCP_KEEPALIVE,
    &UPSTREAM_TIMEOUT,
    &CONNECT_TIMEOUT,
    &TOPOLOGY_INTERVAL,
    &CLUSTER_FACE,
    &SENTINEL_FACE,
    &ANNOUNCE,
    &OUTPUT_LIMIT_HARD,
    &OUTPUT_LIMIT_SOFT,
    &OUTPUT_LIMIT_SOFT_TIME,
    &BUFFER_MEMORY,
    &QUERY_BUFFER_LIMIT,
    &MAX_BULK_LEN,
    &LOG,
];

pub(crate) static LISTEN: Setting = Setting {
    name: "listen",
    value: "ADDR",
    default: "127.0.0.1:6380",
    takes: Takes::Many,
    allowed: "HOST:PORT, [IPV6]:PORT, *:PORT for every interface, or unix:///PATH",
    help: "Addresses where clients connect: HOST:PORT, [IPV6]:PORT, *:PORT for every interface, unix:///PATH",
};

/// A macro, as `concat!` takes no constant.
macro_rules! upstream_forms {
    () => {
        "redis://[[USER]:PASSWORD@]HOST[:PORT][/DB], redis-cluster://[[USER]:PASSWORD@]HOST[:PORT][,HOST[:PORT]...], \
         redis-sentinel://[[USER]:PASSWORD@]HOST[:PORT][,HOST[:PORT]...]/NAME[/DB]\
         [?sentinel-username=USER&sentinel-password=PASSWORD] or unix://[[USER]:PASSWORD@]/PATH[?db=DB]"
    };
}

pub(crate) static UPSTREAM: Setting = Setting {
    name: "upstream",
    value: "URL",
    default: "redis://127.0.0.1:6379",
    takes: Takes::One,
    allowed: upstream_forms!(),
    help: concat!("The Redis behind the proxy: ", upstream_forms!(), "; NAME is what Sentinels call the primary"),
};

pub(crate) static WORKERS: Setting = Setting {
    name: "workers",
    value: "N",
    default: "auto",
    takes: Takes::One,
    allowed: "a number from 1 to 256, or auto",
    help: "Threads that serve clients; auto: as many as there are CPUs to run on",
};

pub(crate) static CACHE_SIZE: Setting = Setting {
    name: "cache-size",
    value: "SIZE",
    default: "256MiB",
    takes: Takes::One,
    allowed: "a size of at least 1MiB such as 256MiB, or off",
    help: "Memory of the near-cache; off: nothing is cached",
};

pub(crate) static MAX_ITEM_SIZE: Setting = Setting {
    name: "max-item-size",
    value: "SIZE",
    default: "1MiB",
    takes: Takes::One,
    allowed: "a size from 1B to 512MiB such as 1MiB",
    help: "Values larger than this are passed through, not cached",
};

pub(crate) static MAX_AGE: Setting = Setting {
    name: "max-age",
    value: "TIME",
    default: "60s",
    takes: Takes::One,
    allowed: "a time from 10ms to 365d such as 60s",
    help: "How long a cached reply is served at most, also when its key never expires",
};

pub(crate) static MAX_STALENESS: Setting = Setting {
    name: "max-staleness",
    value: "TIME",
    default: "1s",
    takes: Takes::One,
    allowed: "a time from 10ms to 1h such as 1s",
    help: "How old an answer may be while the upstream's invalidations fail to arrive",
};

pub(crate) static CACHE_CHURNING: Setting = Setting {
    name: "cache-churning",
    value: "BOOL",
    default: "no",
    takes: Takes::One,
    allowed: "yes or no",
    help: "Cache also keys that change more often than they are read; else they pass the cache by for a while",
};

pub(crate) static SCRIPT_FENCE: Setting = Setting {
    name: "script-fence",
    value: "BOOL",
    default: "no",
    takes: Takes::One,
    allowed: "yes or no",
    help: "Answer scripts and functions once the upstream has named all that they changed, keys they do not declare included",
};

pub(crate) static MAX_CLIENTS: Setting = Setting {
    name: "max-clients",
    value: "N",
    default: "10000",
    takes: Takes::One,
    allowed: "a number from 1 to 1000000",
    help: "Client connections held at a time",
};

pub(crate) static REQUIREPASS: Setting = Setting {
    name: "requirepass",
    value: "PASSWORD",
    default: "",
    takes: Takes::OneSecret,
    allowed: "a text in UTF-8, empty for no password",
    help: "The password clients must give (a command line is seen by every user of the machine: prefer the file)",
};

pub(crate) static ACL_USERS: Setting = Setting {
    name: "acl-users",
    value: "BOOL",
    default: "yes",
    takes: Takes::One,
    allowed: "yes or no",
    help: "Let clients log in as users of the upstream's ACL",
};

pub(crate) static PROTECTED_MODE: Setting = Setting {
    name: "protected-mode",
    value: "BOOL",
    default: "yes",
    takes: Takes::One,
    allowed: "yes or no",
    help: "Without a password, serve only clients of this machine",
};

pub(crate) static ALLOW_COMMANDS: Setting = Setting {
    name: "allow-commands",
    value: "NAME",
    default: "",
    takes: Takes::Many,
    allowed: "names of commands such as debug or cluster|setslot",
    help: "Commands to serve that are refused otherwise, such as debug",
};

pub(crate) static ADMIN: Setting = Setting {
    name: "admin",
    value: "ADDR",
    default: "127.0.0.1:6390",
    takes: Takes::One,
    allowed: "HOST:PORT, [IPV6]:PORT, *:PORT for every interface, unix:///PATH, or off",
    help: "Address of /healthz, /readyz and /metrics; off: none",
};

pub(crate) static DRAIN_TIMEOUT: Setting = Setting {
    name: "drain-timeout",
    value: "TIME",
    default: "10s",
    takes: Takes::One,
    allowed: "a time from 0s to 1h such as 10s",
    help: "How long a shutdown waits for what is in flight",
};

pub(crate) static IDLE_TIMEOUT: Setting = Setting {
    name: "idle-timeout",
    value: "TIME",
    default: "off",
    takes: Takes::One,
    allowed: "a time from 1s to 365d such as 5m, or off",
    help: "Close a client that sends nothing for this long",
};

pub(crate) static TCP_KEEPALIVE: Setting = Setting {
    name: "tcp-keepalive",
    value: "TIME",
    default: "300s",
    takes: Takes::One,
    allowed: "a time from 1s to 9h such as 300s, or off",
    help: "Silence after which TCP asks whether the other end is still there; off: never",
};

pub(crate) static UPSTREAM_TIMEOUT: Setting = Setting {
    name: "upstream-timeout",
    value: "TIME",
    default: "10s",
    takes: Takes::One,
    allowed: "a time from 10ms to 1h such as 10s",
    help: "Give up a connection to the upstream that owes replies and makes no progress for this long",
};

pub(crate) static CONNECT_TIMEOUT: Setting = Setting {
    name: "connect-timeout",
    value: "TIME",
    default: "2s",
    takes: Takes::One,
    allowed: "a time from 10ms to 1h such as 2s",
    help: "How long connecting to the upstream may take",
};

pub(crate) static TOPOLOGY_INTERVAL: Setting = Setting {
    name: "topology-interval",
    value: "TIME",
    default: "auto",
    takes: Takes::One,
    allowed: "a time from 10ms to 1h such as 1s, or auto",
    help: "How often every primary of a cluster is asked which slots it serves, or Sentinels which server is the primary; \
           auto: twice in max-staleness",
};

pub(crate) static CLUSTER_FACE: Setting = Setting {
    name: "cluster-face",
    value: "BOOL",
    default: "auto",
    takes: Takes::One,
    allowed: "yes, no or auto",
    help: "Show clients a Redis Cluster of one node, which has every slot; auto: before a cluster",
};

pub(crate) static SENTINEL_FACE: Setting = Setting {
    name: "sentinel-face",
    value: "NAME",
    default: "auto",
    takes: Takes::One,
    allowed: "a name, auto or off",
    help: "Answer clients that look for a primary of this name as a Sentinel would; auto: of the name in redis-sentinel://",
};

pub(crate) static ANNOUNCE: Setting = Setting {
    name: "announce",
    value: "HOST:PORT",
    default: "auto",
    takes: Takes::One,
    allowed: "HOST:PORT, [IPV6]:PORT or auto",
    help: "What clients are told that ask for the address of a cluster's node or a Sentinel's primary; auto: the address that they reached",
};

pub(crate) static OUTPUT_LIMIT_HARD: Setting = Setting {
    name: "output-limit-hard",
    value: "SIZE",
    default: "1GiB",
    takes: Takes::One,
    allowed: "a size of at least 1KiB such as 1GiB",
    help: "Close a client for which this much waits to be read",
};

pub(crate) static OUTPUT_LIMIT_SOFT: Setting = Setting {
    name: "output-limit-soft",
    value: "SIZE",
    default: "64MiB",
    takes: Takes::One,
    allowed: "a size of at least 1KiB such as 64MiB",
    help: "Close a client for which this much waits to be read for output-limit-soft-time on end",
};

pub(crate) static OUTPUT_LIMIT_SOFT_TIME: Setting = Setting {
    name: "output-limit-soft-time",
    value: "TIME",
    default: "10s",
    takes: Takes::One,
    allowed: "a time from 0s to 1h such as 10s",
    help: "See output-limit-soft",
};

pub(crate) static BUFFER_MEMORY: Setting = Setting {
    name: "buffer-memory",
    value: "SIZE",
    default: "auto",
    takes: Takes::One,
    allowed: "a size of at least 1MiB such as 4GiB, or auto",
    help: "Memory of all clients' buffers together; auto: a quarter of the machine's, at least 1GiB",
};

pub(crate) static QUERY_BUFFER_LIMIT: Setting = Setting {
    name: "query-buffer-limit",
    value: "SIZE",
    default: "1GiB",
    takes: Takes::One,
    allowed: "a size of at least 1MiB such as 1GiB",
    help: "Close a client that sends this much without completing a command",
};

pub(crate) static MAX_BULK_LEN: Setting = Setting {
    name: "max-bulk-len",
    value: "SIZE",
    default: "512MiB",
    takes: Takes::One,
    allowed: "a size of 1MiB to 4095MiB such as 512MiB",
    help: "The longest argument of a command",
};

pub(crate) static LOG: Setting = Setting {
    name: "log",
    value: "FILTER",
    default: "warn",
    takes: Takes::One,
    allowed: "off, error, warn, info, debug or trace, also by part as in warn,nearside::control=info",
    help: "What is logged: off, error, warn, info, debug or trace, also by part as in warn,nearside::control=info",
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_name_finds_its_setting() {
        let nearest = |name| Setting::nearest(name).map(|setting| setting.name);
        assert_eq!(nearest("cahce-size"), Some("cache-size"));
        assert_eq!(nearest("cache_size"), Some("cache-size"));
        assert_eq!(nearest("requirepas"), Some("requirepass"));
        assert_eq!(nearest("maxclients"), Some("max-clients"));
        assert_eq!(nearest("listener"), Some("listen"));
        assert_eq!(nearest("appendonly"), None);
        assert_eq!(nearest(""), None);
    }

    #[test]
    fn edit_distance_counts_insertions_deletions_and_replacements() {
        for (from, to, distance) in [("", "abc", 3), ("abc", "", 3), ("abc", "abc", 0), ("kitten", "sitting", 3)] {
            assert_eq!(edit_distance(from, to), distance, "{from} to {to}");
        }
    }

    #[test]
    fn every_name_is_listed_once() {
        let mut names: Vec<_> = ALL.iter().map(|setting| setting.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
    }
}
