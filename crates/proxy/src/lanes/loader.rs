//! Loader lanes: one connection per node, user, db and process on which everything is fetched that the near-cache stores.
//!
//! Tracking is on, so the upstream pushes the keys that change, in the one stream in which it also answers. Hence the
//! lease: when a command sent at time *t* is answered, every invalidation for a write executed before it has arrived.
//! A heartbeat asks for that answer; while it comes, what was fetched here may be served for `max-staleness` after *t*.
//!
//! A heartbeat is `PTTL` of a key that was fetched here (a keyed read fails on a node that no longer serves the key)
//! and `HELLO` (whose `role` tells a demoted primary). PING would prove nothing: an isolated server answers it.

mod answer;
mod heartbeat;
mod replies;
mod waiters;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use nearside_nearcache::{Answer, FillTicket, LeaseOwner, NearCache, Time};
use nearside_resp::frame::Value;
use nearside_resp::{Protocol, ReplyScanner, encode};
use tokio::time::{Interval, MissedTickBehavior};

use self::heartbeat::check_role;
pub(crate) use self::waiters::abandon;
use self::waiters::tell;
use super::connect::{self, ConnectError, Opened, Setup};
use super::fence::Fence;
use super::field_expiry;
use super::link::{self, Backoff, LinkError};
use super::version::{Valkey, Version};
use crate::commands::cached::query::{self, Query};
use crate::commands::cached::reads::{CachedRead, Fields};
use crate::net::clock;
use crate::net::socket::Socket;
use crate::output::Output;
use crate::topology::{LoaderState, Node};
use crate::users::User;
use crate::worker::Worker;

/// Unwritten bytes past which fetches are turned away: reads go upstream without the cache.
const OUTPUT_LIMIT: usize = 4 << 20;
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
const FIRST_SOUND_VERSION: Version = Version(6, 2, 8);

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
            LinkError::Replaced
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
            if self.is_wanted() && !std::mem::replace(&mut told, true) {
                let node = self.node.address();
                let (user, db) = (&self.user, self.db);
                tracing::warn!("nothing is cached of {node}, db {db}, for {user} for now: {error}");
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
        let Opened { socket, hello, valkey, server, .. } =
            connect::open(self.worker.shared(), &self.node, setup).await.map_err(|error| match error {
                ConnectError::Io(error) => LinkError::Io(error),
                refused @ (ConnectError::Refused { .. } | ConnectError::NotLetIn(_)) => {
                    LinkError::NotCoherent(refused.to_string())
                }
                other => LinkError::Protocol(other.to_string()),
            })?;
        let has_field_expiry = self.examine(hello.as_ref(), valkey)?;
        self.state.borrow_mut().has_field_expiry = has_field_expiry;
        Ok((socket, server))
    }

    /// Is this a primary, of a version whose invalidations can be relied on? Gives whether fields of a hash expire there.
    fn examine(&self, hello: Option<&Value>, valkey: Valkey) -> Result<bool, LinkError> {
        let text = |field| hello.and_then(|hello| hello.field(field)).and_then(Value::as_bytes).unwrap_or_default();
        check_role(text(b"role"))?;
        let version = String::from_utf8_lossy(text(b"version")).into_owned();
        if Version::parse(&version) < FIRST_SOUND_VERSION {
            return Err(LinkError::NotCoherent(format!(
                "version {version} of the upstream can lose invalidations (6.2.8 and later do not)"
            )));
        }
        let has_field_expiry = field_expiry::is_known_to(text(b"server"), Version::parse(&version), valkey);
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
        if let Err(error) = link::poll_reads(cx, |cx| self.poll_replies(cx, socket, scanner)) {
            return Poll::Ready(error);
        }
        while beats.poll_tick(cx).is_ready() {
            self.beat_if_needed();
        }
        link::poll_write(cx, socket, &mut self.state.borrow_mut().output)
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
        self.worker.flush_soon();
        Poll::Ready(result)
    }

    /// The connection ended. First of all nothing that came by it is served any more.
    fn lost(&self, error: &LinkError) {
        self.set_ready(LoaderState::Away);
        let state = self.state.take();
        drop(state.lease);
        if !matches!(error, LinkError::Replaced) {
            self.node.counters(self.worker.index()).errors.add(1);
            self.worker.shared().doubt(&self.node);
        }
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
