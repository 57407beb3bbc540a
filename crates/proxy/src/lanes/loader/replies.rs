//! What a loader lane's stream brings: replies, each to the oldest command, and what the upstream says has changed.

use std::time::Duration;

use bytes::Bytes;
use nearside_nearcache::{Answer, FillTicket, Time, Ttl};
use nearside_resp::frame::{self, Value};
use nearside_resp::{ReplyKind, ReplyScanner};

use super::waiters::tell;
use super::{Awaiting, LoaderLane, answer};
use crate::commands::cached::query::Query;
use crate::commands::cached::reads::{CachedRead, Fields};
use crate::lanes::field_expiry;
use crate::lanes::link::{self, LinkError};
use crate::net::clock;
use crate::topology::redirect::Redirect;

impl LoaderLane {
    pub(super) fn take_in(&self, mut bytes: &[u8], scanner: &mut ReplyScanner) -> Result<(), LinkError> {
        let now = clock::now();
        self.state.borrow_mut().progress = now;
        while let Some((piece, complete)) = link::next_piece(scanner, &mut bytes)? {
            let mut partial = std::mem::take(&mut self.state.borrow_mut().partial);
            if !complete || !partial.is_empty() {
                partial.extend_from_slice(piece);
            }
            if !complete {
                self.state.borrow_mut().partial = partial;
                continue;
            }
            let whole = if partial.is_empty() { piece } else { &partial };
            match scanner.kind() {
                Some(ReplyKind::Push) => self.pushed(whole, now)?,
                kind => self.replied(whole, kind, now)?,
            }
        }
        Ok(())
    }

    /// The upstream says that keys have changed.
    fn pushed(&self, push: &[u8], now: Time) -> Result<(), LinkError> {
        let push = frame::parse(push).map_err(|error| LinkError::Protocol(error.to_string()))?;
        let items = push.as_items().unwrap_or_default();
        if items.first().and_then(Value::as_bytes) != Some(b"invalidate") {
            return Ok(());
        }
        match items.get(1).and_then(Value::as_items) {
            Some(keys) => {
                self.worker.metrics().invalidations.add(keys.len() as u64);
                for key in keys.iter().filter_map(Value::as_bytes) {
                    if let Some(lag) = self.cache.invalidate(key, now) {
                        self.worker.metrics().invalidation_lag.record(lag.as_nanos() as u64, 1);
                    }
                }
            }
            None => {
                // FLUSHALL, FLUSHDB, a full resync: everything that was fetched here.
                self.worker.metrics().invalidations.add(1);
                self.state.borrow_mut().lease = None;
            }
        }
        Ok(())
    }

    /// The oldest command is answered.
    fn replied(&self, reply: &[u8], kind: Option<ReplyKind>, now: Time) -> Result<(), LinkError> {
        let front = self.state.borrow_mut().awaiting.pop_front();
        match front {
            Some(Awaiting::Value(ticket)) => {
                let value = Bytes::copy_from_slice(reply);
                self.state.borrow_mut().awaiting.push_front(Awaiting::Ttl(ticket, value));
            }
            Some(Awaiting::FieldTtls(ticket, value, ttl)) => {
                let fields = CachedRead::of(ticket.scope().command).fields;
                let ttl = ttl.and_then(|ttl| field_expiry::earliest(ttl, &value, fields, reply));
                self.fetched(ticket, &value, ttl, now);
            }
            Some(Awaiting::Ttl(ticket, value)) => {
                self.ttl_answered(ticket, &value, integer(reply), now);
                if reply.starts_with(b"-NOPERM") && !value.starts_with(b"-") {
                    // Nothing that this user reads can be cached: to go on would ask twice for everything.
                    return Err(LinkError::NotCoherent("the user may not run PTTL".to_owned()));
                }
            }
            // Who may not run TOUCH does without. Of a fence it counts that it is answered.
            Some(Awaiting::Touch | Awaiting::Fence(_)) => {}
            Some(Awaiting::BeatKey) => self.beat_key_answered(reply, kind),
            Some(Awaiting::BeatRole(sent_at)) => return self.beat_answered(reply, sent_at, now),
            None => return Err(LinkError::Protocol("a reply that no command asked for".into())),
        }
        Ok(())
    }

    /// The value and the key's time to live are there. Of a hash the fields may have such times of their own.
    fn ttl_answered(&self, ticket: FillTicket, value: &Bytes, ttl: Option<i64>, now: Time) {
        let mut state = self.state.borrow_mut();
        let fields = if state.has_field_expiry { CachedRead::of(ticket.scope().command).fields } else { Fields::None };
        let ttl = match fields {
            // They were asked about together with the value.
            Fields::Named => return state.awaiting.push_front(Awaiting::FieldTtls(ticket, value.clone(), ttl)),
            Fields::None => ttl,
            _ if field_expiry::are_none(value) => ttl,
            Fields::InReply(step) if field_expiry::are_too_many(value, step) => {
                drop(state);
                return self.too_many_fields(ticket, value, now);
            }
            Fields::InReply(step) if field_expiry::ask_all(state.output.tail(), ticket.key(), value, step) => {
                state.awaiting.push_back(Awaiting::FieldTtls(ticket, value.clone(), ttl));
                drop(state);
                self.count_commands(1);
                return self.wake();
            }
            Fields::InReply(_) | Fields::Unknown => None,
        };
        drop(state);
        self.fetched(ticket, value, ttl, now);
    }

    /// All parts of a fetch are there; `ttl`: how long the value lives, if that is known, as PTTL tells it.
    fn fetched(&self, ticket: FillTicket, value: &Bytes, ttl: Option<i64>, now: Time) {
        let query = Query::of(&ticket);
        if self.is_redirected(value) {
            let waiters = ticket.complete(Answer::Discard, now);
            return tell(&self.worker, waiters, query, None);
        }
        let rule = self.worker.config().cache_rules.of(&query.key).1;
        let answer = answer::answer(query.command, value, ttl, self.longest_absence(), rule);
        if ttl.is_some() {
            let beat_key = &mut self.state.borrow_mut().beat_key;
            beat_key.clear();
            beat_key.extend_from_slice(&query.key);
        }
        self.settle(ticket, query, value, answer, now);
    }

    /// Of so many fields it is not asked how long they live. Until the hash changes, reads of all of it pass by.
    fn too_many_fields(&self, ticket: FillTicket, value: &Bytes, now: Time) {
        let query = Query::of(&ticket);
        let longest = self.worker.config().cache_rules.of(&query.key).1.max_age.as_millis();
        let ttl = Ttl::Millis(u64::try_from(longest).unwrap_or(u64::MAX));
        self.settle(ticket, query, value, Answer::TooLarge { ttl }, now);
    }

    fn settle(&self, ticket: FillTicket, query: Query, value: &Bytes, answer: Answer<'_>, now: Time) {
        let mut waiters = ticket.complete(answer, now);
        let late = waiters.take_late();
        if !late.is_empty() {
            tell(&self.worker, late, query.clone(), None);
        }
        tell(&self.worker, waiters, query, Some(value.clone()));
    }

    /// Whether the answer to a keyed read says that this node does not serve the key, or not now. If the slot was its own
    /// until now, it may have lost more: nothing fetched here is served until another heartbeat has been answered well.
    pub(super) fn is_redirected(&self, reply: &[u8]) -> bool {
        let shared = self.worker.shared();
        if reply.first() != Some(&b'-') || !shared.topology.load().is_cluster() {
            return false;
        }
        let Some(redirect) = Redirect::parse(reply, self.node.address()) else { return false };
        shared.topology_doubted.notify_one();
        if let Redirect::Moved(slot, _) = redirect
            && shared.lost_slot(&self.node, slot)
        {
            self.state.borrow_mut().vouched = None;
        }
        true
    }

    /// How long the absence of a key may be remembered. In a cluster the key may be on its way to another node: then it is
    /// born there, and this one has nothing to invalidate.
    fn longest_absence(&self) -> Duration {
        let is_cluster = self.worker.shared().topology.load().is_cluster();
        if is_cluster { self.worker.config().max_staleness } else { Duration::MAX }
    }
}

/// The number in an integer reply.
fn integer(reply: &[u8]) -> Option<i64> {
    std::str::from_utf8(reply.strip_prefix(b":")?.strip_suffix(b"\r\n")?).ok()?.parse().ok()
}
