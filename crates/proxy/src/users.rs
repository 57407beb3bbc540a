//! Under which user of the upstream's ACL commands run there.
//!
//! Redis judges every command by the user of its connection. So the lanes of sessions that have logged in as a user of
//! their own are logged in as that user too, and are shared by the sessions of that user alone; what was fetched on them is
//! served to nobody else. A [`User`] is what tells lanes and cached replies apart.

use std::fmt;
use std::sync::Arc;

use crate::config::Secret;

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

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "User({})", self.id)
    }
}
