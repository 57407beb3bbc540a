//! The heartbeat: a question whose answer proves that everything invalidated before it was asked has been heard of.

use nearside_nearcache::{Renewal, Time};
use nearside_resp::frame::{self, Value};
use nearside_resp::{ReplyKind, encode};

use super::{Awaiting, HELLO, LoaderLane, State};
use crate::lanes::link::LinkError;
use crate::net::clock;

/// Heartbeats under way at most: on a link slower than the lease, more would not help.
const BEATS_IN_FLIGHT: usize = 8;

impl LoaderLane {
    /// A quarter of `max-staleness` has passed.
    pub(super) fn beat_if_needed(&self) {
        let now = clock::now();
        let state = &mut *self.state.borrow_mut();
        let Some(lease) = state.lease.as_ref().filter(|lease| !lease.is_dead() && lease.has_filled()) else { return };
        if lease.coherent_until().is_some_and(|until| until <= now) && !state.lapsed {
            state.lapsed = true;
            self.worker.metrics().leases_lapsed.add(1);
        }
        if self.cache.entries() > 0 && !state.beat_key.is_empty() {
            self.beat(state, now);
        }
    }

    pub(super) fn beat(&self, state: &mut State, now: Time) {
        if state.beats_in_flight >= BEATS_IN_FLIGHT {
            return;
        }
        if state.awaiting.is_empty() {
            state.progress = now;
        }
        encode::command(state.output.tail(), &[b"PTTL", &state.beat_key]);
        state.output.copy(HELLO);
        state.awaiting.push_back(Awaiting::BeatKey);
        state.awaiting.push_back(Awaiting::BeatRole(now));
        state.beats_in_flight += 1;
        self.count_commands(2);
    }

    /// The server has the key, and lets us read it, or this heartbeat proves nothing.
    pub(super) fn beat_key_answered(&self, reply: &[u8], kind: Option<ReplyKind>) {
        let refused = kind != Some(ReplyKind::Integer);
        let mut state = self.state.borrow_mut();
        state.beat_refused = refused;
        if refused {
            state.beat_key.clear();
        }
        drop(state);
        self.is_redirected(reply);
    }

    pub(super) fn beat_answered(&self, reply: &[u8], sent_at: Time, now: Time) -> Result<(), LinkError> {
        let hello = frame::parse(reply).map_err(|error| LinkError::Protocol(error.to_string()))?;
        check_role(hello.field(b"role").and_then(Value::as_bytes).unwrap_or_default())?;
        let state = &mut *self.state.borrow_mut();
        state.beats_in_flight -= 1;
        // Also if a topology has just been published that ends what this node may say, and the leases are about to end.
        if std::mem::take(&mut state.beat_refused) || !self.serves(&state.beat_key) {
            return Ok(());
        }
        let sent_at = self.slots_vouched(sent_at);
        state.vouched = Some(sent_at);
        if let Some(lease) = &state.lease {
            match lease.renew(sent_at, now) {
                Renewal::Renewed | Renewal::Revived => state.lapsed = false,
                Renewal::TooLate | Renewal::Dead => {}
            }
        }
        Ok(())
    }

    /// In a cluster a slot may be taken over without a word on this connection: nothing of it was there that could be deleted.
    /// So the node vouches for no longer than since it was asked for its slots, unless the settings say that this is too often.
    fn slots_vouched(&self, sent_at: Time) -> Time {
        let is_asked = self.worker.topology().is_cluster() && self.worker.config().asks_slots_in_time();
        if is_asked { sent_at.min(self.node.told_slots()) } else { sent_at }
    }
}

pub(super) fn check_role(role: &[u8]) -> Result<(), LinkError> {
    if matches!(role, b"master" | b"primary") {
        return Ok(());
    }
    let role = String::from_utf8_lossy(role);
    Err(LinkError::NotCoherent(format!("the upstream is not a primary (role: {role})")))
}
