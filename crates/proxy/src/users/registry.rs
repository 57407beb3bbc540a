//! The users that sessions have logged in as, and their numbers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::{Login, User};
use crate::config::Config;
use crate::metrics::Counter;

/// Users in use at a time. Each has lanes of its own, so this bounds connections upstream.
const MOST_USERS: usize = 1024;

/// Those that are in use: a session has logged in as one, or a lane is still logged in as one. Two passwords of one user
/// are two, since a lane that logs in anew must do so as its sessions did.
#[derive(Debug)]
pub(crate) struct Users {
    /// As whom the proxy itself logs in.
    own: Option<Login>,
    known: Mutex<Known>,
    /// Logins by what the upstream said; the control plane counts them.
    pub(crate) let_in: Counter,
    pub(crate) refused: Counter,
    /// It was not asked, or did not answer.
    pub(crate) failed: Counter,
}

#[derive(Debug, Default)]
struct Known {
    by_name: HashMap<Box<[u8]>, Vec<Numbered>>,
    /// The number given last. They are given in turn, so that one is long out of use before it is given again.
    last: u16,
}

#[derive(Debug)]
struct Numbered {
    id: u16,
    login: Weak<Login>,
}

/// As many users are in use as may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("OVERLOAD {MOST_USERS} users of the upstream are in use already; the login was not carried out")]
pub(crate) struct TooMany;

impl Users {
    /// None in use.
    pub(crate) fn new(config: &Config) -> Self {
        let own = config.upstream.credentials.as_ref().map(|own| {
            let name = own.username.as_deref().unwrap_or("default");
            Login::new(name.as_bytes(), own.password.expose())
        });
        Self::with_own(own)
    }

    fn with_own(own: Option<Login>) -> Self {
        let (let_in, refused, failed) = Default::default();
        Users { own, known: Mutex::default(), let_in, refused, failed }
    }

    /// The user whom the upstream has let in with this login. Whoever logs in as the proxy itself does shares its lanes.
    pub(crate) fn enter(&self, login: Login) -> Result<User, TooMany> {
        if self.own.as_ref().is_some_and(|own| own.is(&login)) {
            return Ok(User::own());
        }
        let mut known = self.lock();
        let same = known.by_name.get(&login.name).into_iter().flatten();
        let same = same.filter_map(Numbered::user).find(|user| user.login().is_some_and(|known| known.is(&login)));
        match same {
            Some(user) => Ok(user),
            None => known.add(login),
        }
    }

    /// How many are in use.
    pub(crate) fn in_use(&self) -> usize {
        self.lock().by_name.values().flatten().filter(|user| user.is_in_use()).count()
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn add(&mut self, login: Login) -> Result<User, TooMany> {
        for users in self.by_name.values_mut() {
            users.retain(Numbered::is_in_use);
        }
        self.by_name.retain(|_, users| !users.is_empty());
        let used: Vec<u16> = self.by_name.values().flatten().map(|user| user.id).collect();
        if used.len() >= MOST_USERS {
            return Err(TooMany);
        }
        // A number that is free belongs to nothing any more: whatever was cached for it died with the loader lane that
        // fetched it, which was in use until then.
        let mut id = self.last.wrapping_add(1);
        while id == User::OWN || used.contains(&id) {
            id = id.wrapping_add(1);
        }
        self.last = id;
        let login = Arc::new(login);
        let numbered = Numbered { id, login: Arc::downgrade(&login) };
        self.by_name.entry(login.name.clone()).or_default().push(numbered);
        Ok(User { id, login: Some(login) })
    }
}

impl Numbered {
    fn user(&self) -> Option<User> {
        self.login.upgrade().map(|login| User { id: self.id, login: Some(login) })
    }

    fn is_in_use(&self) -> bool {
        self.login.strong_count() > 0
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn users() -> Users {
        Users::with_own(Some(Login::new(b"proxy", b"pw")))
    }

    fn enter(users: &Users, name: &str, password: &str) -> User {
        users.enter(Login::new(name.as_bytes(), password.as_bytes())).unwrap()
    }

    #[test]
    fn a_login_is_one_user_for_as_long_as_it_is_in_use() {
        let users = users();
        let one = enter(&users, "a", "x");
        assert_eq!(enter(&users, "a", "x"), one);
        let others = [enter(&users, "a", "y"), enter(&users, "b", "x")];
        assert!(others[0] != one && others[1] != one && others[0] != others[1]);
        assert_eq!(users.in_use(), 3);
        drop(others);
        assert_eq!(users.in_use(), 1);
        let id = one.id();
        drop(one);
        assert_ne!(enter(&users, "a", "x").id(), id, "it has been out of use in between");
    }

    #[test]
    fn who_logs_in_as_the_proxy_does_shares_its_lanes() {
        let users = users();
        assert!(enter(&users, "proxy", "pw").is_own());
        assert!(
            !enter(&users, "proxy", "other").is_own(),
            "a second password of the same user may be taken away alone"
        );
    }

    #[test]
    fn users_in_use_are_bounded_and_keep_their_numbers() {
        let users = users();
        let mut held: Vec<_> = (0..MOST_USERS).map(|i| enter(&users, &i.to_string(), "x")).collect();
        assert_eq!(users.enter(Login::new(b"more", b"x")), Err(TooMany));
        assert_eq!(enter(&users, "7", "x"), held[7], "one in use is still let in");
        drop(held.pop());
        assert!(users.enter(Login::new(b"more", b"x")).is_ok());
        // Round once, and more: no number is given that is in use, and never the proxy's own.
        for i in 0..usize::from(u16::MAX) + 10 {
            let user = enter(&users, &format!("round-{i}"), "x");
            assert!(!user.is_own() && !held.contains(&user));
        }
    }
}
