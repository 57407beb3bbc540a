//! NEARSIDE EXPLAIN: what the near-cache has of a key, and what a GET by this client would find.

use std::fmt::Write as _;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use nearside_nearcache::{Change, Explanation, KeptReply, LeaseState, Time};
use nearside_resp::{Protocol, encode};

use crate::commands::cached::query;
use crate::commands::cached::reads::{CachedRead, GET};
use crate::config::Rule;
use crate::session::Session;
use crate::session::state::State;
use crate::topology::Node;

/// Two lives count as one and the same below this share of them: one part in 16,384 and a millisecond is what is known.
const SAME_LIFE: u32 = 8192;

pub(super) fn run(session: &Rc<Session>, state: &mut State, key: &[u8]) {
    let worker = session.worker();
    let now = worker.now();
    let Some(cache) = worker.cache() else {
        return state.answer_error("ERR nothing is cached: the setting cache-size is off");
    };
    let (number, rule) = worker.config().cache_rules.of(key);
    let node = worker.topology().owner(key).cloned();
    let known = cache.explain(key, now);
    // What other users have had fetched is theirs.
    let (own, others): (Vec<_>, Vec<_>) = known.replies.iter().partition(|reply| reply.user == state.user.id());
    let subject = Subject { session, key, known: &known, rule, number, now };
    let fields = [
        ("key", Field::Text(String::from_utf8_lossy(key).into_owned())),
        ("db", Field::Number(i64::from(state.db))),
        ("node", Field::Text(node.as_ref().map_or("none serves it".to_owned(), |node| node.address().to_string()))),
        ("rule", Field::Text(subject.rule_text())),
        ("get", Field::Text(subject.verdict(state, node.as_ref()))),
        ("replies", Field::Replies(own.iter().map(|reply| subject.reply(reply)).collect())),
        ("replies-of-other-users", Field::Number(others.len() as i64)),
        ("fetches-under-way", Field::Number(known.fetches as i64)),
        ("last-change", Field::Text(subject.last_change())),
    ];
    state.answer(|out, protocol| append(out, protocol, &fields));
}

enum Field {
    Text(String),
    Number(i64),
    Replies(Vec<Vec<(&'static str, Field)>>),
}

fn append(out: &mut Vec<u8>, protocol: Protocol, fields: &[(&str, Field)]) {
    encode::map_header(out, protocol, fields.len());
    for (name, value) in fields {
        encode::bulk(out, name.as_bytes());
        match value {
            Field::Text(text) => encode::bulk(out, text.as_bytes()),
            Field::Number(number) => encode::integer(out, *number),
            Field::Replies(replies) => {
                encode::array_header(out, replies.len());
                replies.iter().for_each(|reply| append(out, protocol, reply));
            }
        }
    }
}

/// What is explained.
struct Subject<'a> {
    session: &'a Rc<Session>,
    key: &'a [u8],
    known: &'a Explanation,
    rule: &'a Rule,
    /// Of the rule; 0: none matches.
    number: usize,
    now: Time,
}

impl Subject<'_> {
    fn rule_text(&self) -> String {
        match self.number {
            0 => "none matches".to_owned(),
            number => format!("{number}: match {}", self.rule.patterns.join(", ")),
        }
    }

    /// What a GET would find.
    fn verdict(&self, state: &State, node: Option<&Arc<Node>>) -> String {
        let own = |reply: &&KeptReply| {
            (reply.user, reply.db, reply.command) == (state.user.id(), state.db, GET) && reply.arguments.is_empty()
        };
        let kept = self.known.replies.iter().find(own);
        let passing_by = self.known.last_change.map_or(0, |last| last.passing_by);
        if self.session.worker().is_overloaded() {
            return "miss: all buffers together are past buffer-memory".to_owned();
        }
        if state.own.is_held() {
            return "miss: this client watches keys, or tracks what it reads: the server has to see its reads"
                .to_owned();
        }
        if state.order.write_pending(self.key) {
            return "miss: a write of this client is not answered yet".to_owned();
        }
        let miss = match kept {
            Some(reply) => match self.why_not(reply) {
                None if reply.len.is_some() => return "hit".to_owned(),
                None => return "miss: the value is larger than max-item-size".to_owned(),
                Some(why) => why,
            },
            None => "it is not cached".to_owned(),
        };
        let next = match node {
            _ if !self.rule.caches(GET) => "a rule forbids it".to_owned(),
            None => "no node serves its slot".to_owned(),
            Some(node) if !self.session.worker().shared().loader_is_ready(node, &state.user, state.db) => {
                format!("nothing can be fetched from {} for now", node.address())
            }
            Some(_) if passing_by > 0 => {
                format!("it changes more often than it is read: {passing_by} more reads go upstream")
            }
            Some(_) if self.known.is_rare => {
                "the cache is full, so a key is fetched for it at its second read only".to_owned()
            }
            Some(_) if self.known.fetches > 0 => "a fetch is under way".to_owned(),
            Some(_) => "it would be fetched".to_owned(),
        };
        format!("miss: {miss}; {next}")
    }

    /// Why a reply that is kept is not served.
    fn why_not(&self, reply: &KeptReply) -> Option<String> {
        match reply.lease {
            LeaseState::Dead => Some("its connection was lost, or all was flushed".to_owned()),
            LeaseState::Lapsed => Some("its lease has lapsed: the upstream does not answer in time".to_owned()),
            LeaseState::Live(_) => (reply.deadline <= self.now).then(|| "its time is over".to_owned()),
        }
    }

    fn reply(&self, reply: &KeptReply) -> Vec<(&'static str, Field)> {
        let mut command = CachedRead::of(reply.command).name.to_uppercase();
        for argument in query::arguments(&reply.arguments) {
            write!(command, " {}", argument.escape_ascii()).expect("a String takes everything");
        }
        let lease = match reply.lease {
            LeaseState::Live(until) => format!("live for {} ms", millis(until - self.now)),
            LeaseState::Lapsed => "lapsed".to_owned(),
            LeaseState::Dead => "dead".to_owned(),
        };
        vec![
            ("command", Field::Text(command)),
            ("db", Field::Number(i64::from(reply.db))),
            ("bytes", reply.len.map_or(Field::Text("too large".to_owned()), |len| Field::Number(len as i64))),
            ("age-ms", Field::Number(millis(self.now - reply.fetched_at))),
            ("left-ms", Field::Number(millis(reply.deadline - self.now))),
            ("left-by", Field::Text(self.life_from(reply.life))),
            ("lease", Field::Text(lease)),
            ("served", Field::Text(if reply.is_used { "yes" } else { "not yet" }.to_owned())),
        ]
    }

    /// What has decided how long a reply is kept.
    fn life_from(&self, life: Duration) -> String {
        let is = |other: Duration| other.abs_diff(life) <= other / SAME_LIFE + Duration::from_millis(2);
        let max_staleness = self.session.worker().config().max_staleness;
        match self.number {
            0 if is(self.rule.max_age) => "max-age".to_owned(),
            number if is(self.rule.max_age) => format!("max-age of rule {number}"),
            _ if self.session.worker().topology().is_cluster() && is(max_staleness) => {
                "max-staleness, as it does not exist".to_owned()
            }
            _ => "its time to live".to_owned(),
        }
    }

    fn last_change(&self) -> String {
        let Some(last) = self.known.last_change else { return "none is remembered".to_owned() };
        let what = match last.change {
            Change::Invalidated => "invalidated by the upstream",
            Change::Written => "written through the proxy",
            Change::Flushed => "flushed",
        };
        format!("{what} {} ms ago", millis(self.now - last.at))
    }
}

fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}
