//! CLIENT KILL: ends connections, the caller's own one too, after its answer.

use std::rc::Rc;
use std::time::Duration;

use nearside_nearcache::Time;
use nearside_resp::{Request, encode};

use super::SYNTAX_ERROR;
use super::options::{self, Kind, as_text};
use crate::commands::Flow;
use crate::metrics::CutOff;
use crate::session::Session;
use crate::session::registry::Client;
use crate::session::state::State;
use crate::shared::Message;

pub(super) fn run(session: &Rc<Session>, state: &mut State, request: &Request<'_>) -> Flow {
    let options: Vec<&[u8]> = request.args().skip(2).collect();
    // Only the upstream knows what users there are.
    let users = session.worker().config().acl_users;
    let criteria = match Criteria::parse(&options, |user| users || user == b"default") {
        Ok(criteria) => criteria,
        Err(text) => {
            state.answer_error(text);
            return Flow::Done;
        }
    };
    let killed = kill_all(session, state.now, &criteria);
    match (options.len(), killed.count) {
        (1, 0) => state.answer_error("ERR No such client"),
        (1, _) => state.answer_ok(),
        (_, count) => state.answer(|out, _| encode::integer(out, count)),
    }
    if killed.itself { Flow::Close } else { Flow::Done }
}

/// Who was killed.
struct Killed {
    count: i64,
    /// The caller too: its session ends once it has its answer.
    itself: bool,
}

fn kill_all(session: &Rc<Session>, now: Time, criteria: &Criteria<'_>) -> Killed {
    let shared = session.worker().shared();
    let mut killed = Killed { count: 0, itself: false };
    for client in shared.registry.connected() {
        // Of two who kill the same client at once, one counts it.
        if !criteria.match_client(&client, session.id(), now) || !client.kill() {
            continue;
        }
        killed.count += 1;
        if client.id == session.id() {
            killed.itself = true;
            session.worker().metrics().cut_off(CutOff::Killed);
        } else {
            // If the mailbox is full the session sees that it is killed at its next turn, within a second.
            let end = Message::End { session: client.id, reason: CutOff::Killed };
            let _ = shared.mailboxes[client.worker].try_send(end);
        }
    }
    killed
}

/// Whom to kill: clients that match all that is given.
#[derive(Debug, Default, PartialEq, Eq)]
struct Criteria<'a> {
    id: Option<u64>,
    address: Option<&'a [u8]>,
    local_address: Option<&'a [u8]>,
    kind: Option<Kind>,
    user: Option<&'a [u8]>,
    /// Connected for at least this long, in whole seconds.
    age: Option<Duration>,
    /// The caller itself may be killed.
    itself: bool,
}

impl<'a> Criteria<'a> {
    /// One argument is an address, by the old syntax; else they are options and their values. The last of an option's
    /// values counts. `is_user` says whether there may be a user of this name.
    fn parse(options: &[&'a [u8]], is_user: impl Fn(&[u8]) -> bool) -> Result<Self, Vec<u8>> {
        if let [address] = options {
            return Ok(Criteria { address: Some(address), itself: true, ..Criteria::default() });
        }
        let mut criteria = Criteria::default();
        for option in options.chunks(2) {
            let [name, value] = option else { return Err(SYNTAX_ERROR.into()) };
            criteria.add(name, value, &is_user)?;
        }
        Ok(criteria)
    }

    fn add(&mut self, name: &[u8], value: &'a [u8], is_user: impl Fn(&[u8]) -> bool) -> Result<(), Vec<u8>> {
        match name.to_ascii_lowercase().as_slice() {
            b"id" => self.id = Some(parse_id(value)?),
            b"addr" => self.address = Some(value),
            b"laddr" => self.local_address = Some(value),
            b"type" => self.kind = Some(Kind::parse(value)?),
            b"user" if is_user(value) => self.user = Some(value),
            b"user" => return Err([b"ERR No such user '", as_text(value), b"'"].concat()),
            b"maxage" => self.age = Some(parse_age(value)?),
            b"skipme" if value.eq_ignore_ascii_case(b"yes") => self.itself = false,
            b"skipme" if value.eq_ignore_ascii_case(b"no") => self.itself = true,
            _ => return Err(SYNTAX_ERROR.into()),
        }
        Ok(())
    }

    fn match_client(&self, client: &Client, caller: u64, now: Time) -> bool {
        let age = Duration::from_nanos(now.0.saturating_sub(client.since.0));
        self.id.is_none_or(|id| client.id == id)
            && self.address.is_none_or(|address| client.address.as_bytes() == address)
            && self.local_address.is_none_or(|address| client.local_address.as_bytes() == address)
            && self.kind.is_none_or(|kind| kind == Kind::of(client))
            && self.user.is_none_or(|user| client.is_user(user))
            && self.age.is_none_or(|least| age >= least)
            && (self.itself || client.id != caller)
    }
}

fn parse_id(text: &[u8]) -> Result<u64, &'static str> {
    let id = options::integer(text).filter(|id| *id > 0).and_then(|id| u64::try_from(id).ok());
    id.ok_or("ERR client-id should be greater than 0")
}

/// MAXAGE, which Redis has since 7.4; in spite of its name the least age, in seconds.
fn parse_age(text: &[u8]) -> Result<Duration, &'static str> {
    let seconds = options::integer(text).ok_or("ERR maxage is not an integer or out of range")?;
    match u64::try_from(seconds) {
        Ok(seconds @ 1..) => Ok(Duration::from_secs(seconds)),
        _ => Err("ERR maxage should be greater than 0"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn parse(options: &str) -> Result<Criteria<'_>, String> {
        let options: Vec<&[u8]> = options.split_whitespace().map(str::as_bytes).collect();
        Criteria::parse(&options, |user| user != b"nobody").map_err(|text| String::from_utf8(text).unwrap())
    }

    /// Whether client 7, seen by client `caller` nine seconds after it connected, is killed.
    fn kills(options: &str, caller: u64) -> bool {
        parse(options).unwrap().match_client(&Client::for_test(7), caller, Time(10 * SECOND - 1))
    }

    #[test]
    fn one_argument_is_an_address_whatever_it_says() {
        assert_eq!(parse("ID").unwrap().address, Some(&b"ID"[..]));
        assert!(kills("127.0.0.1:40007", 1));
        assert!(kills("127.0.0.1:40007", 7), "also oneself");
        assert!(!kills("127.0.0.1:6380", 1));
    }

    #[test]
    fn a_client_is_killed_that_matches_everything() {
        assert!(kills("ID 7 ADDR 127.0.0.1:40007 LADDR 127.0.0.1:6380 TYPE normal USER default MAXAGE 9", 1));
        for other in ["USER app", "ID 8", "ADDR 127.0.0.1:40008", "LADDR 127.0.0.1:6381", "TYPE replica", "MAXAGE 10"] {
            assert!(!kills(&format!("ID 7 {other}"), 1), "{other}");
        }
    }

    #[test]
    fn the_last_value_of_an_option_counts() {
        assert!(kills("id 8 id 7", 1));
        assert!(!kills("id 7 id 8", 1));
    }

    #[test]
    fn the_caller_is_spared_unless_it_says_no() {
        assert!(!kills("id 7", 7));
        assert!(!kills("id 7 skipme YES", 7));
        assert!(kills("id 7 SkipMe No", 7));
        assert!(!kills("id 7 skipme no skipme yes", 7));
    }

    #[test]
    fn wrong_options_have_redis_s_errors() {
        for (options, text) in [
            ("ID x", "client-id should be greater than 0"),
            ("ID 0", "client-id should be greater than 0"),
            ("ID -1", "client-id should be greater than 0"),
            ("ID 007", "client-id should be greater than 0"),
            ("MAXAGE x", "maxage is not an integer or out of range"),
            ("MAXAGE 0", "maxage should be greater than 0"),
            ("MAXAGE -9", "maxage should be greater than 0"),
            ("TYPE bogus", "Unknown client type 'bogus'"),
            ("USER nobody ID x", "No such user 'nobody'"),
            ("SKIPME maybe", "syntax error"),
            ("FOO bar", "syntax error"),
            ("ID 1 2", "syntax error"),
            ("ID x 2", "client-id should be greater than 0"),
            ("ID 1 2 3", "syntax error"),
        ] {
            assert_eq!(parse(options), Err(format!("ERR {text}")), "{options}");
        }
    }
}
