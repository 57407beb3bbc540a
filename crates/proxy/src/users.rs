//! Under which user of the upstream's ACL commands run there.
//!
//! Redis judges every command by the user of its connection. So the lanes of sessions that have logged in as a user of
//! their own are logged in as that user too, and are shared by the sessions of that user alone; what was fetched on them is
//! served to nobody else. A [`User`] is what tells lanes and cached replies apart.
//!
//! Only the upstream knows who may log in. Every AUTH is put to it, by the control plane (`control/logins.rs`), and every
//! time anew: nothing is remembered of a password that was right, or wrong. `registry` gives those that were let in their
//! numbers.

mod registry;

use std::fmt;
use std::sync::Arc;

use nearside_nearcache::Time;
use tokio::sync::mpsc;

pub(crate) use self::registry::Users;
use crate::config::Secret;

/// The longest name or password that is put to the upstream: Redis breaks off a connection that has not logged in yet and
/// sends more (`PROTO_INLINE_MAX_SIZE` and its kin in `networking.c`), so that nobody can log in with one.
pub(crate) const LONGEST: usize = 16 * 1024;
/// Logins that wait for the upstream's word; more are told to come again. A client has one at a time.
const MOST_WAITING: usize = 8192;

/// A user upstream. Cloning it counts one reference; the login is kept for as long as anybody has one.
#[derive(Clone, Default)]
pub(crate) struct User {
    id: u16,
    login: Option<Arc<Login>>,
}

/// What AUTH takes.
///
/// The password is kept as it is, not as a hash of it: a lane that has lost its connection has to log in anew, and Redis
/// takes nothing but the password for that.
#[derive(Debug)]
pub(crate) struct Login {
    pub(crate) name: Box<[u8]>,
    pub(crate) password: Secret,
}

/// A login that the upstream is to judge, and the session that waits to hear of it.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) login: Login,
    /// When it was made.
    pub(crate) since: Time,
    pub(crate) worker: usize,
    pub(crate) session: u64,
}

/// What came of a login.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The upstream lets this user in.
    LetIn(User),
    /// It does not: its error line, without the leading `-`.
    Refused(Vec<u8>),
    /// It was not, or could not be, asked: our own error line.
    NotAsked(String),
}

/// Where sessions hand in their attempts: as many as may wait.
pub(crate) type Attempts = mpsc::Sender<Attempt>;

/// A queue of attempts.
pub(crate) fn attempts() -> (Attempts, mpsc::Receiver<Attempt>) {
    mpsc::channel(MOST_WAITING)
}

impl User {
    /// The number of [`User::own`].
    pub(crate) const OWN: u16 = 0;

    /// The one that all sessions share until they log in as another: the settings name it, in the upstream's URL.
    pub(crate) fn own() -> Self {
        User::default()
    }

    /// The number by which lanes and cached replies are told apart.
    #[inline]
    pub(crate) fn id(&self) -> u16 {
        self.id
    }

    /// Whether it is the one that the settings name.
    #[inline]
    pub(crate) fn is_own(&self) -> bool {
        self.id == Self::OWN
    }

    /// One of this number, who cannot log in.
    #[cfg(test)]
    pub(crate) fn for_test(id: u16) -> Self {
        User { id, login: None }
    }

    /// How its lanes log in; `None`: as the settings say.
    pub(crate) fn login(&self) -> Option<&Login> {
        self.login.as_deref()
    }
}

impl PartialEq for User {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for User {}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "User({})", self.id)
    }
}

/// For the log: `user NAME`.
impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.login {
            Some(login) => write!(f, "user {}", login.name.escape_ascii()),
            None => f.write_str("the user of the settings"),
        }
    }
}

impl Login {
    pub(crate) fn new(name: &[u8], password: &[u8]) -> Self {
        Login { name: name.into(), password: Secret::new(password) }
    }

    fn is(&self, other: &Login) -> bool {
        self.name == other.name && self.password.matches(other.password.expose())
    }
}
