//! The flags of a command, as `COMMAND` names them.

use std::fmt;

/// What a server says of a command in general. A set.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Flags(u32);

/// Each flag with the server's name for it.
const NAMES: [(&str, Flags); 22] = [
    ("write", Flags::WRITE),
    ("readonly", Flags::READONLY),
    ("denyoom", Flags::DENYOOM),
    ("admin", Flags::ADMIN),
    ("module", Flags::MODULE),
    ("pubsub", Flags::PUBSUB),
    ("noscript", Flags::NOSCRIPT),
    ("blocking", Flags::BLOCKING),
    ("movablekeys", Flags::MOVABLEKEYS),
    ("no_mandatory_keys", Flags::NO_MANDATORY_KEYS),
    ("loading", Flags::LOADING),
    ("stale", Flags::STALE),
    ("fast", Flags::FAST),
    ("no_auth", Flags::NO_AUTH),
    ("no_multi", Flags::NO_MULTI),
    ("no_async_loading", Flags::NO_ASYNC_LOADING),
    ("allow_busy", Flags::ALLOW_BUSY),
    ("asking", Flags::ASKING),
    ("skip_monitor", Flags::SKIP_MONITOR),
    ("skip_slowlog", Flags::SKIP_SLOWLOG),
    ("skip_commandlog", Flags::SKIP_COMMANDLOG),
    ("touches_arbitrary_keys", Flags::TOUCHES_ARBITRARY_KEYS),
];

impl Flags {
    /// May change keys.
    pub(crate) const WRITE: Self = Self(1);
    /// Reads keys and changes none.
    pub(crate) const READONLY: Self = Self(1 << 1);
    /// Refused when the server is out of memory.
    pub(crate) const DENYOOM: Self = Self(1 << 2);
    /// Administrative.
    pub(crate) const ADMIN: Self = Self(1 << 3);
    /// A module's.
    pub(crate) const MODULE: Self = Self(1 << 4);
    /// Concerns publish and subscribe.
    pub(crate) const PUBSUB: Self = Self(1 << 5);
    /// Not allowed in scripts.
    pub(crate) const NOSCRIPT: Self = Self(1 << 6);
    /// May make the connection wait.
    pub(crate) const BLOCKING: Self = Self(1 << 7);
    /// Its keys are not all at fixed places.
    pub(crate) const MOVABLEKEYS: Self = Self(1 << 8);
    /// Can be called with no key, though it has places for them.
    pub(crate) const NO_MANDATORY_KEYS: Self = Self(1 << 9);
    /// Allowed while the server loads its data.
    pub(crate) const LOADING: Self = Self(1 << 10);
    /// Allowed on a replica that has lost its primary.
    pub(crate) const STALE: Self = Self(1 << 11);
    /// Takes constant or logarithmic time.
    pub(crate) const FAST: Self = Self(1 << 12);
    /// Allowed before authentication.
    pub(crate) const NO_AUTH: Self = Self(1 << 13);
    /// Not allowed in a transaction.
    pub(crate) const NO_MULTI: Self = Self(1 << 14);
    /// Not allowed while a replica loads beside serving.
    pub(crate) const NO_ASYNC_LOADING: Self = Self(1 << 15);
    /// Allowed while a script runs for too long.
    pub(crate) const ALLOW_BUSY: Self = Self(1 << 16);
    /// Implies ASKING.
    pub(crate) const ASKING: Self = Self(1 << 17);
    /// Not shown to MONITOR.
    pub(crate) const SKIP_MONITOR: Self = Self(1 << 18);
    /// Not in the slow log.
    pub(crate) const SKIP_SLOWLOG: Self = Self(1 << 19);
    /// Not in Valkey's command log.
    pub(crate) const SKIP_COMMANDLOG: Self = Self(1 << 20);
    /// May touch keys that it does not name.
    pub(crate) const TOUCHES_ARBITRARY_KEYS: Self = Self(1 << 21);

    /// The flag of that name.
    pub(super) fn named(name: &str) -> Option<Self> {
        NAMES.iter().find(|(known, _)| *known == name).map(|(_, flag)| *flag)
    }

    /// Whether all of `other` are in it.
    pub(crate) const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both together.
    pub(super) const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The server's names of those in it.
    pub(crate) fn names(self) -> impl Iterator<Item = &'static str> {
        NAMES.into_iter().filter(move |(_, flag)| self.contains(*flag)).map(|(name, _)| name)
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}
