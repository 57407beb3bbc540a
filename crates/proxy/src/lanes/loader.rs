//! Loader lanes: one connection per node, user, db and process on which everything is fetched that the near-cache stores.
//!
//! Tracking is on, so the upstream pushes the keys that change, in the one stream in which it also answers. Hence the
//! lease: when a command sent at time *t* is answered, every invalidation for a write executed before it has arrived.
//! A heartbeat asks for that answer; while it comes, what was fetched here may be served for `max-staleness` after *t*.
//!
//! A heartbeat is `PTTL` of a key that was fetched here (a keyed read fails on a node that no longer serves the key)
//! and `HELLO` (whose `role` tells a demoted primary). PING would prove nothing: an isolated server answers it.

mod answer;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use nearside_nearcache::{Answer, FillTicket, LeaseOwner, NearCache, Renewal, Time};
use nearside_resp::frame::{self, Value};
use nearside_resp::{Protocol, ReplyKind, ReplyScanner, encode};
use tokio::time::{Interval, MissedTickBehavior};

use super::connect::{self, ConnectError, Opened, Setup};
use super::fence::Fence;
use super::field_expiry;
use super::link::{self, Backoff, LinkError};
use crate::commands::cached::query::{self, Query};
use crate::commands::cached::reads::{CachedRead, Fields};
use crate::net::clock;
use crate::net::socket::Socket;
use crate::output::Output;
use crate::shared::{Fetched, Message};
use crate::topology::redirect::Redirect;
use crate::topology::{LoaderState, Node};
use crate::users::User;
use crate::worker::Worker;

/// Unwritten bytes past which fetches are turned away: reads go upstream without the cache.
const OUTPUT_LIMIT: usize = 4 << 20;
/// Heartbeats under way at most: on a link slower than the lease, more would not help.
const BEATS_IN_FLIGHT: usize = 8;
/// Keys of one TOUCH: some microseconds of the server's time.
const KEYS_PER_TOUCH: usize = 64;
/// Pause before another try at an upstream that cannot be cached from: a replica, a server without tracking.
const UNFIT_PAUSE: Duration = Duration::from_secs(5);
/// The same, where the lane's user may not read as the cache needs it, or is not let in.
const NO_RIGHT_PAUSE: Duration = Duration::from_secs(30);
/// A lane of a user of a session's own ends when it has fetched nothing for this long. What it fetched is then as old, and
/// for most settings of `max-age` no longer served.
const LEFT_AFTER: Duration = Duration::from_secs(300);
/// Which any user may ask.
const HELLO: &[u8] = b"*1\r\n$5\r\nHELLO\r\n";
/// The first version whose pushes never land inside a reply (Redis 6.2.8 and 7.0.0 mended that).
const FIRST_SOUND_VERSION: (u32, u32, u32) = (6, 2, 8);

/// What a reply in flight belongs to, in the order in which the commands were written.
enum Awaiting {
    /// The read that a fetch is for.
    Value(FillTicket),
    /// `PTTL` of a fetch, whose value has arrived.
    Ttl(FillTicket, Bytes),
    /// `HPTTL` of a fetch, whose value and time to live have arrived.
    FieldTtls(FillTicket, Bytes, Option<i64>),
    /// `PTTL` of a heartbeat.
    BeatKey,
    /// `TOUCH`.
    Touch,
    /// `HELLO`, for these fences.
    Fence(Vec<Arc<Fence>>),
    /// `HELLO` of a heartbeat sent at this time.
    BeatRole(Time),
}

/// See the module.
pub(crate) struct LoaderLane {
    node: Arc<Node>,
    user: User,
    db: u16,
    worker: Rc<Worker>,
    cache: Arc<NearCache>,
    state: RefCell<State>,
    /// When something was last fetched here.
    used: Cell<Time>,
    waker: Cell<Option<Waker>>,
}

#[derive(Default)]
struct State {
    /// The connection is made and tracking is on.
    up: bool,
    /// The server it leads to, as [`Node::server`] counts them.
    server: u64,
    output: Output,
    awaiting: VecDeque<Awaiting>,
    beats_in_flight: usize,
    /// Of this connection, since the last flush. Dropping it makes everything fetched under it worthless.
    lease: Option<LeaseOwner>,
    /// When the last heartbeat that was answered well had been sent.
    vouched: Option<Time>,
    /// The lease has run out, and that was counted.
    lapsed: bool,
    /// Fields of a hash may expire by themselves.
    has_field_expiry: bool,
    /// A key that was fetched on this connection.
    beat_key: Vec<u8>,
    /// The key of the heartbeat in hand could not be read.
    beat_refused: bool,
    /// The beginning of a reply whose end has not arrived.
    partial: Vec<u8>,
    progress: Time,
    condemned: Option<LinkError>,
}

impl LoaderLane {
    /// A lane that connects at once, and again whenever it has lost its connection.
    pub(crate) fn spawn(worker: &Rc<Worker>, node: &Arc<Node>, user: &User, db: u16) -> Rc<Self> {
        let cache = Arc::clone(worker.cache().expect("only what is cached is fetched"));
        let lane = Rc::new(LoaderLane {
            node: Arc::clone(node),
            user: user.clone(),
            db,
            worker: Rc::clone(worker),
            cache,
            state: RefCell::default(),
            used: Cell::new(clock::now()),
            waker: Cell::new(None),
        });
        tokio::task::spawn_local(Rc::clone(&lane).run());
        lane
    }

    /// Sends a fetch, or has the read go upstream without the cache.
    pub(crate) fn fetch(&self, mut ticket: FillTicket) {
        let mut state = self.state.borrow_mut();
        let moved = state.server != self.node.server().epoch();
        if !state.up || moved || state.output.len() > OUTPUT_LIMIT {
            drop(state);
            return abandon(&self.worker, ticket);
        }
        let now = clock::now();
        self.used.set(now);
        let lease = self.lease(&mut state, now);
        // After the lease was taken: a topology published from here on ends it, one published before is seen here.
        if !self.serves(ticket.key()) {
            drop(state);
            return abandon(&self.worker, ticket);
        }
        ticket.sent(&lease.lease(), now);
        let unvouched = lease.coherent_until().is_none_or(|until| until <= now);
        if state.beat_key.is_empty() {
            state.beat_key = ticket.key().to_vec();
        }
        let (command, arguments) = (ticket.scope().command, ticket.scope().arguments);
        let asks_fields = state.has_field_expiry && CachedRead::of(command).fields == Fields::Named;
        let out = state.output.tail();
        query::encode(out, ticket.key(), command, arguments);
        encode::command(out, &[b"PTTL", ticket.key()]);
        if asks_fields {
            field_expiry::ask(out, ticket.key(), query::arguments(arguments));
        }
        self.count_commands(2 + u64::from(asks_fields));
        if state.awaiting.is_empty() {
            state.progress = now;
        }
        state.awaiting.push_back(Awaiting::Value(ticket));
        if unvouched && state.beats_in_flight == 0 {
            self.beat(&mut state, now);
        }
        drop(state);
        self.wake();
    }

    /// Tells the node that these keys are in use: reads that are answered here leave no trace there.
    pub(crate) fn touch(&self, keys: &[Vec<u8>]) {
        let mut state = self.state.borrow_mut();
        if !state.up || state.output.len() > OUTPUT_LIMIT / 2 {
            return;
        }
        if state.awaiting.is_empty() {
            state.progress = clock::now();
        }
        // In a cluster the keys of one command are of one slot.
        let per_command = if self.worker.topology().is_cluster() { 1 } else { KEYS_PER_TOUCH };
        for keys in keys.chunks(per_command) {
            let command: Vec<&[u8]> = [&b"TOUCH"[..]].into_iter().chain(keys.iter().map(|key| &key[..])).collect();
            encode::command(state.output.tail(), &command);
            state.awaiting.push_back(Awaiting::Touch);
            self.count_commands(1);
        }
        drop(state);
        self.worker.metrics().keys_touched.add(keys.len() as u64);
        self.wake();
    }

    /// Whether it fetches from this node.
    pub(crate) fn leads_to(&self, node: &Node) -> bool {
        self.node.id() == node.id()
    }

    /// Has the fence wait until whatever the node has invalidated by now has arrived.
    pub(crate) fn fence(&self, fence: &Arc<Fence>) {
        let state = &mut *self.state.borrow_mut();
        let has_filled = state.lease.as_ref().is_some_and(LeaseOwner::has_filled);
        if !state.up || (!has_filled && state.awaiting.is_empty()) {
            return; // nothing that came by it is served, or will be
        }
        // One question serves all who ask before it is written.
        let unwritten = state.output.len();
        if let Some(Awaiting::Fence(fences)) = state.awaiting.back_mut().filter(|_| unwritten >= HELLO.len()) {
            return fences.push(Arc::clone(fence));
        }
        if state.awaiting.is_empty() {
            state.progress = clock::now();
        }
        state.output.copy(HELLO);
        state.awaiting.push_back(Awaiting::Fence(vec![Arc::clone(fence)]));
        self.count_commands(1);
        self.wake();
    }

    /// Whether the newest topology says that this node serves the key.
    fn serves(&self, key: &[u8]) -> bool {
        self.worker.shared().topology.load().owner(key).is_some_and(|owner| owner.id() == self.node.id())
    }

    fn count_commands(&self, count: u64) {
        self.node.counters(self.worker.index()).commands.add(count);
    }

    /// The connection's lease; a new one, if a flush has ended the last.
    fn lease<'s>(&self, state: &'s mut State, now: Time) -> &'s LeaseOwner {
        if state.lease.as_ref().is_none_or(LeaseOwner::is_dead) {
            let lease = self.cache.open_lease(self.node.id());
            if let Some(vouched) = state.vouched {
                // What was vouched for is the connection's stream, which has not been interrupted.
                lease.renew(vouched, now);
            }
            state.lease = Some(lease);
        }
        state.lease.as_ref().expect("just made")
    }

    /// Ends the connection if it owes a reply and nothing has moved for the upstream timeout, or if it leads to a server that
    /// another has taken the place of.
    pub(crate) fn check(&self, now: Time) {
        let limit = self.worker.config().upstream_timeout;
        let mut state = self.state.borrow_mut();
        let error = if !self.is_wanted() || (state.up && state.server != self.node.server().epoch()) {
            LinkError::Closed
        } else if state.up && !state.awaiting.is_empty() && now >= state.progress + limit {
            LinkError::Silent(limit)
        } else {
            return;
        };
        state.condemned = Some(error);
        drop(state);
        self.wake();
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Its node is there: else nobody fetches from it any more. Of a user of a session's own, somebody has fetched lately.
    fn is_wanted(&self) -> bool {
        let is_left = !self.user.is_own() && clock::now() >= self.used.get() + LEFT_AFTER;
        !is_left && self.worker.shared().topology.load().has(&self.node)
    }

    async fn run(self: Rc<Self>) {
        let mut backoff = Backoff::default();
        let mut told = false;
        while self.is_wanted() {
            let error = match self.connect().await {
                Ok((socket, server)) => {
                    backoff.reset();
                    told = false;
                    let error = self.serve(&socket, server).await;
                    self.lost(&error);
                    error
                }
                Err(error) => error,
            };
            let pause = match error {
                LinkError::NotCoherent(_) if self.user.is_own() => UNFIT_PAUSE,
                LinkError::NotCoherent(_) => NO_RIGHT_PAUSE,
                _ => backoff.next(clock::now()),
            };
            if !std::mem::replace(&mut told, true) {
                let node = self.node.address();
                let (user, db) = (&self.user, self.db);
                tracing::warn!(
                    "nothing is cached of {node}, db {db}, for {user} until the upstream allows it: {error}"
                );
            }
            tokio::time::sleep(pause).await;
        }
        self.worker.forget_loader(&self.node, &self.user, self.db);
        // Should the node come back, the first read from it has another lane made.
        self.set_ready(LoaderState::Unused);
    }

    async fn connect(&self) -> Result<(Socket, u64), LinkError> {
        let (user, db) = (&self.user, self.db);
        let setup =
            Setup { user, protocol: Protocol::Resp3, db, tracking: true, asks_id: false, name: "nearside-loader" };
        let Opened { socket, hello, valkey_version, server, .. } =
            connect::open(self.worker.shared(), &self.node, setup).await.map_err(|error| match error {
                ConnectError::Io(error) => LinkError::Io(error),
                refused @ (ConnectError::Refused { .. } | ConnectError::NotLetIn(_)) => {
                    LinkError::NotCoherent(refused.to_string())
                }
                other => LinkError::Protocol(other.to_string()),
            })?;
        let has_field_expiry = self.examine(hello.as_ref(), valkey_version.as_deref())?;
        self.state.borrow_mut().has_field_expiry = has_field_expiry;
        Ok((socket, server))
    }

    /// Is this a primary, of a version whose invalidations can be relied on? Gives whether fields of a hash expire there.
    fn examine(&self, hello: Option<&Value>, valkey_version: Option<&str>) -> Result<bool, LinkError> {
        let text = |field| hello.and_then(|hello| hello.field(field)).and_then(Value::as_bytes).unwrap_or_default();
        check_role(text(b"role"))?;
        let version = String::from_utf8_lossy(text(b"version")).into_owned();
        if parse_version(&version) < FIRST_SOUND_VERSION {
            return Err(LinkError::NotCoherent(format!(
                "version {version} of the upstream can lose invalidations (6.2.8 and later do not)"
            )));
        }
        let has_field_expiry =
            field_expiry::is_known_to(text(b"server"), parse_version(&version), valkey_version.map(parse_version));
        self.worker.shared().upstream_version.store(version.into());
        self.worker.shared().has_field_expiry.store(has_field_expiry, Ordering::Relaxed);
        Ok(has_field_expiry)
    }

    /// Whether reads may be fetched here.
    fn set_ready(&self, state: LoaderState) {
        self.node.set_loader(&self.user, self.db, state);
    }

    async fn serve(&self, socket: &Socket, server: u64) -> LinkError {
        {
            let mut state = self.state.borrow_mut();
            state.up = true;
            state.condemned = None;
            state.server = server;
            state.progress = clock::now();
        }
        self.set_ready(LoaderState::Ready);
        let mut scanner = ReplyScanner::new();
        let mut beats = tokio::time::interval(self.worker.config().max_staleness / 4);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        poll_fn(|cx| self.poll_serve(cx, socket, &mut scanner, &mut beats)).await
    }

    fn poll_serve(
        &self,
        cx: &mut Context<'_>,
        socket: &Socket,
        scanner: &mut ReplyScanner,
        beats: &mut Interval,
    ) -> Poll<LinkError> {
        self.waker.set(Some(cx.waker().clone()));
        if let Some(error) = self.state.borrow_mut().condemned.take() {
            return Poll::Ready(error);
        }
        loop {
            match self.poll_replies(cx, socket, scanner) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(error),
                Poll::Pending => break,
            }
        }
        while beats.poll_tick(cx).is_ready() {
            self.beat_if_needed();
        }
        link::poll_write(cx, socket, &mut self.state.borrow_mut().output)
    }

    /// A quarter of `max-staleness` has passed.
    fn beat_if_needed(&self) {
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

    fn beat(&self, state: &mut State, now: Time) {
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

    /// One read, and all that is in it.
    fn poll_replies(
        &self,
        cx: &mut Context<'_>,
        socket: &Socket,
        scanner: &mut ReplyScanner,
    ) -> Poll<Result<(), LinkError>> {
        let mut buffer = self.worker.scratch();
        let count = ready!(link::poll_read(cx, socket, &mut buffer))?;
        let result = self.take_in(&buffer[..count], scanner);
        drop(buffer);
        self.worker.flush_touched();
        Poll::Ready(result)
    }

    fn take_in(&self, mut bytes: &[u8], scanner: &mut ReplyScanner) -> Result<(), LinkError> {
        let now = clock::now();
        self.state.borrow_mut().progress = now;
        while !bytes.is_empty() {
            let scanned = scanner.scan(bytes).map_err(|error| LinkError::Protocol(error.to_string()))?;
            let (piece, rest) = bytes.split_at(scanned.consumed);
            bytes = rest;
            let mut partial = std::mem::take(&mut self.state.borrow_mut().partial);
            if !scanned.complete || !partial.is_empty() {
                partial.extend_from_slice(piece);
            }
            if !scanned.complete {
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

    /// The server has the key, and lets us read it, or this heartbeat proves nothing.
    fn beat_key_answered(&self, reply: &[u8], kind: Option<ReplyKind>) {
        let refused = kind != Some(ReplyKind::Integer);
        let mut state = self.state.borrow_mut();
        state.beat_refused = refused;
        if refused {
            state.beat_key.clear();
        }
        drop(state);
        self.is_redirected(reply);
    }

    /// Whether the answer to a keyed read says that this node does not serve the key, or not now. If the slot was its own
    /// until now, it may have lost more: nothing fetched here is served until another heartbeat has been answered well.
    fn is_redirected(&self, reply: &[u8]) -> bool {
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

    fn beat_answered(&self, reply: &[u8], sent_at: Time, now: Time) -> Result<(), LinkError> {
        let hello = frame::parse(reply).map_err(|error| LinkError::Protocol(error.to_string()))?;
        check_role(hello.field(b"role").and_then(Value::as_bytes).unwrap_or_default())?;
        let state = &mut *self.state.borrow_mut();
        state.beats_in_flight -= 1;
        // Also if a topology has just been published that ends what this node may say, and the leases are about to end.
        if std::mem::take(&mut state.beat_refused) || !self.serves(&state.beat_key) {
            return Ok(());
        }
        state.vouched = Some(sent_at);
        if let Some(lease) = &state.lease {
            match lease.renew(sent_at, now) {
                Renewal::Renewed | Renewal::Revived => state.lapsed = false,
                Renewal::TooLate | Renewal::Dead => {}
            }
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
        let mut waiters = ticket.complete(answer, now);
        tell(&self.worker, waiters.take_late(), query.clone(), None);
        tell(&self.worker, waiters, query, Some(value.clone()));
    }

    /// How long the absence of a key may be remembered. In a cluster the key may be on its way to another node: then it is
    /// born there, and this one has nothing to invalidate.
    fn longest_absence(&self) -> Duration {
        let is_cluster = self.worker.shared().topology.load().is_cluster();
        if is_cluster { self.worker.config().max_staleness } else { Duration::MAX }
    }

    /// The connection ended. First of all nothing that came by it is served any more.
    fn lost(&self, error: &LinkError) {
        self.set_ready(LoaderState::Away);
        let state = self.state.take();
        drop(state.lease);
        self.node.counters(self.worker.index()).errors.add(1);
        self.worker.shared().doubt(&self.node);
        let now = clock::now();
        for awaiting in state.awaiting {
            if let Awaiting::Value(ticket) | Awaiting::Ttl(ticket, _) | Awaiting::FieldTtls(ticket, ..) = awaiting {
                let query = Query::of(&ticket);
                let waiters = ticket.complete(Answer::Discard, now);
                // After silence the clients have waited long enough; else the read is tried on the forward lane.
                let reply = matches!(error, LinkError::Silent(_)).then(|| {
                    let upstream = self.node.address();
                    Bytes::from(format!("-UPSTREAM {upstream}: {error}; the read may be repeated\r\n"))
                });
                tell(&self.worker, waiters, query, reply);
            }
        }
        self.worker.flush_touched();
    }
}

/// Ends a fetch that cannot be made: whoever waits for it reads upstream.
pub(crate) fn abandon(worker: &Rc<Worker>, ticket: FillTicket) {
    let query = Query::of(&ticket);
    let waiters = ticket.complete(Answer::Discard, clock::now());
    let mut waiters: Vec<_> = waiters.into_iter().collect();
    // Through the mailbox also on this worker: the session that asked is in the middle of its turn.
    for index in 0..worker.shared().mailboxes.len() {
        let here: Vec<_> =
            waiters.extract_if(.., |w| w.worker as usize == index).map(|w| (w.session, w.sequence)).collect();
        if !here.is_empty() {
            let fetched = Fetched { waiters: here, query: query.clone(), reply: None };
            // Those who do not hear of it run into their deadline.
            let _ = worker.shared().mailboxes[index].try_send(Message::Fetched(fetched));
        }
    }
}

/// Gives an answer to all who wait for it, on whatever worker they live. Sessions of this one are flushed by the caller.
fn tell(worker: &Rc<Worker>, waiters: nearside_nearcache::Waiters, query: Query, reply: Option<Bytes>) {
    let mut elsewhere: Vec<(usize, Vec<(u64, u64)>)> = Vec::new();
    let mut here = Vec::new();
    for waiter in waiters {
        let (index, waiting) = (waiter.worker as usize, (waiter.session, waiter.sequence));
        if index == worker.index() {
            here.push(waiting);
        } else if let Some((_, list)) = elsewhere.iter_mut().find(|(other, _)| *other == index) {
            list.push(waiting);
        } else {
            elsewhere.push((index, vec![waiting]));
        }
    }
    for (index, waiters) in elsewhere {
        let fetched = Fetched { waiters, query: query.clone(), reply: reply.clone() };
        let _ = worker.shared().mailboxes[index].try_send(Message::Fetched(fetched));
    }
    worker.fetched(&Fetched { waiters: here, query, reply });
}

/// The number in an integer reply.
fn integer(reply: &[u8]) -> Option<i64> {
    std::str::from_utf8(reply.strip_prefix(b":")?.strip_suffix(b"\r\n")?).ok()?.parse().ok()
}

fn check_role(role: &[u8]) -> Result<(), LinkError> {
    if matches!(role, b"master" | b"primary") {
        return Ok(());
    }
    let role = String::from_utf8_lossy(role);
    Err(LinkError::NotCoherent(format!("the upstream is not a primary (role: {role})")))
}

/// `7.0.15` as numbers; what is not a number counts as 0.
fn parse_version(text: &str) -> (u32, u32, u32) {
    let mut numbers = text.split('.').map(|part| part.parse().unwrap_or(0));
    let mut next = || numbers.next().unwrap_or(0);
    (next(), next(), next())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        assert!(parse_version("6.2.7") < FIRST_SOUND_VERSION);
        assert!(parse_version("6.2.14") > FIRST_SOUND_VERSION);
        assert!(parse_version("8.1.1") > FIRST_SOUND_VERSION);
        assert!(parse_version("unknown") < FIRST_SOUND_VERSION);
    }
}
