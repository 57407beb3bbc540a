//! A worker: one thread, one event loop, and the sessions and lanes that live on it.
//!
//! Nothing on the path of a command leaves the thread or takes a lock but the near-cache's own. What comes from other
//! threads comes through one bounded mailbox.

use std::cell::{Cell, Ref, RefCell, RefMut};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use nearside_nearcache::{FillTicket, NearCache, Time};
use nearside_resp::Protocol;
use rustc_hash::FxBuildHasher;
use tokio::sync::mpsc;

use crate::commands::table::Table;
use crate::config::Config;
use crate::lanes::fence::Fence;
use crate::lanes::forward::{ForwardLane, LaneKey};
use crate::lanes::loader::LoaderLane;
use crate::lanes::pinned::Pool;
use crate::metrics::{Route, WorkerMetrics};
use crate::net::clock;
use crate::net::socket::{Socket, Stream};
use crate::output::chunks;
use crate::session::Session;
use crate::session::registry::Client;
use crate::shared::{Fetched, Message, Shared};
use crate::topology::{Node, Topology};
use crate::users::User;

/// What one read may bring: a few dozen pipelined batches, and small enough to stay in the second-level cache.
const SCRATCH: usize = 64 * 1024;
/// How often lanes are checked for replies that do not come.
const TICK: Duration = Duration::from_millis(100);
/// Ticks between two looks at all sessions.
const TICKS_PER_SWEEP: u32 = 10;
/// How long replies wait for others that belong with them: the shortest time that the runtime can measure.
const MOMENT: Duration = Duration::from_millis(1);
/// Messages taken from the mailbox in one turn.
const MESSAGES_PER_TURN: usize = 256;
/// Forward lanes of a worker to one node, beside those of the first db: two protocol versions in each of 32 databases.
const LANES_PER_NODE: usize = 64;
/// The same, of users other than the settings name, in all databases.
const LANES_OF_USERS_PER_NODE: usize = 256;

/// By node, user and db.
type Loaders = HashMap<(u64, u16, u16), Rc<LoaderLane>, FxBuildHasher>;

/// See the module.
pub(crate) struct Worker {
    index: usize,
    shared: Arc<Shared>,
    metrics: Arc<WorkerMetrics>,
    sessions: RefCell<HashMap<u64, Rc<Session>, FxBuildHasher>>,
    lanes: RefCell<HashMap<LaneKey, Rc<ForwardLane>, FxBuildHasher>>,
    loaders: RefCell<Loaders>,
    /// Connections for sessions that need one of their own.
    pinned: Pool,
    table: RefCell<Arc<Table>>,
    topology: RefCell<Arc<Topology>>,
    scratch: RefCell<Vec<u8>>,
    touched: RefCell<Vec<Rc<Session>>>,
    flusher: Cell<Option<Waker>>,
    deferred: RefCell<Vec<Rc<Session>>>,
    draining: Cell<bool>,
    /// Some commands of clients wait for the end of a CLIENT PAUSE.
    paused: Cell<bool>,
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").field("index", &self.index).finish_non_exhaustive()
    }
}

impl Worker {
    /// Serves until the mailbox closes, or the drain is over: after [`Message::Drain`], when no worker has a session left.
    pub(crate) async fn run(index: usize, shared: Arc<Shared>, mut mailbox: mpsc::Receiver<Message>) {
        let worker = Rc::new(Worker {
            index,
            metrics: Arc::clone(&shared.metrics[index]),
            table: RefCell::new(shared.commands.load_full()),
            topology: RefCell::new(shared.topology.load_full()),
            shared,
            sessions: RefCell::default(),
            lanes: RefCell::default(),
            loaders: RefCell::default(),
            pinned: Pool::default(),
            scratch: RefCell::new(vec![0; SCRATCH]),
            touched: RefCell::default(),
            flusher: Cell::new(None),
            deferred: RefCell::default(),
            draining: Cell::new(false),
            paused: Cell::new(false),
        });
        let flusher = Rc::clone(&worker);
        tokio::task::spawn_local(std::future::poll_fn(move |cx| flusher.poll_flusher(cx)));
        let mut messages = Vec::with_capacity(MESSAGES_PER_TURN);
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut tick = 0u32;
        loop {
            tokio::select! {
                count = mailbox.recv_many(&mut messages, MESSAGES_PER_TURN) => {
                    if count == 0 {
                        return;
                    }
                    messages.drain(..).for_each(|message| worker.receive(message));
                    worker.flush_touched();
                }
                _ = ticks.tick() => {
                    tick = tick.wrapping_add(1);
                    worker.tick(tick);
                }
            }
            // The lanes of this worker may still be carrying what clients of the others wait for.
            if worker.draining.get() && worker.shared.clients.iter().all(|count| count.load(Ordering::Acquire) == 0) {
                return;
            }
        }
    }

    fn receive(self: &Rc<Self>, message: Message) {
        match message {
            Message::Connection(stream) => self.accept(stream),
            Message::Fetch(ticket, node, user) => self.fetch_here(ticket, &node, &user),
            Message::Fetched(fetched) => self.fetched(&fetched),
            Message::Touch(node, db, keys) => {
                let lane = self.loaders.borrow().get(&(node.id(), User::OWN, db)).cloned();
                lane.inspect(|lane| lane.touch(&keys));
            }
            Message::Fence(fence, nodes) => self.fence_here(&fence, &nodes),
            Message::Fenced { session, sequence } => {
                if let Some(session) = self.session(session) {
                    session.fenced(sequence);
                }
            }
            Message::Load(node, user, db) => drop(self.loader(&node, &user, db)),
            Message::Topology => self.take_up_topology(),
            Message::End { session, reason } => {
                if let Some(session) = self.session(session) {
                    session.end(reason);
                }
            }
            Message::Learned { session, learned } => {
                *self.table.borrow_mut() = self.shared.commands.load_full();
                if let Some(session) = self.session(session) {
                    session.learned(learned);
                }
            }
            Message::LoggedIn { session, verdict } => {
                if let Some(session) = self.session(session) {
                    session.logged_in(verdict);
                }
            }
            Message::Pause => self.look_at_pause(clock::now()),
            Message::Drain => self.drain(),
        }
    }

    fn accept(self: &Rc<Self>, stream: Stream) {
        let now = clock::now();
        let client = self.shared.registry.enter(|id| Client::new(id, self.index, &stream, now));
        match Socket::new(stream) {
            Ok(socket) => {
                self.metrics.connections.add(1);
                let session = Session::spawn(self, socket, client);
                self.sessions.borrow_mut().insert(session.id(), session);
            }
            Err(error) => {
                tracing::warn!("a connection could not be served: {error}");
                self.shared.registry.leave(client.id);
                self.shared.clients[self.index].fetch_sub(1, Ordering::Relaxed);
            }
        }
    }

    /// The session has ended.
    pub(crate) fn forget(&self, session: &Session) {
        self.sessions.borrow_mut().remove(&session.id());
        self.shared.registry.leave(session.id());
        self.shared.clients[self.index].fetch_sub(1, Ordering::Relaxed);
        if self.draining.get() && self.sessions.borrow().is_empty() {
            // The last one: the worker's loop looks at its sessions after a message.
            let _ = self.shared.mailboxes[self.index].try_send(Message::Drain);
        }
    }

    fn session(&self, id: u64) -> Option<Rc<Session>> {
        self.sessions.borrow().get(&id).cloned()
    }

    fn drain(&self) {
        self.draining.set(true);
        let sessions: Vec<_> = self.sessions.borrow().values().cloned().collect();
        sessions.iter().for_each(|session| session.wake());
    }

    /// CLIENT PAUSE or UNPAUSE may have been said, or the time is up: sessions that wait for that try again.
    fn look_at_pause(&self, now: Time) {
        let is_paused = now < self.shared.paused().until;
        if self.paused.replace(is_paused) && !is_paused {
            let sessions: Vec<_> = self.sessions.borrow().values().cloned().collect();
            sessions.iter().for_each(|session| session.resume());
        }
    }

    fn tick(self: &Rc<Self>, tick: u32) {
        let now = clock::now();
        let lanes: Vec<_> = self.lanes.borrow().values().cloned().collect();
        lanes.into_iter().for_each(|lane| lane.check(now)); // and drops it: the sweep looks who has it
        let loaders: Vec<_> = self.loaders.borrow().values().cloned().collect();
        loaders.iter().for_each(|lane| lane.check(now));
        self.look_at_pause(now); // also should the message have found the mailbox full
        if self.shared.draining.load(Ordering::Acquire) && !self.draining.get() {
            self.drain();
        }
        if self.shared.topology_version.load(Ordering::Acquire) != self.topology.borrow().version() {
            self.take_up_topology(); // the message found the mailbox full
        }
        if tick.is_multiple_of(TICKS_PER_SWEEP) {
            self.sweep(now);
        }
    }

    fn sweep(&self, now: Time) {
        self.lanes.borrow_mut().retain(|key, lane| key.user == User::OWN || !lane.end_if_left(now));
        // A fetch may first wait for the loader lane, then for the forward lane.
        let limit = self.config().upstream_timeout * 2 + TICK;
        let asked_before = Time(now.0.saturating_sub(u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX)));
        let sessions: Vec<_> = self.sessions.borrow().values().cloned().collect();
        for session in sessions {
            session.expire_fetches(asked_before);
            session.check(now);
        }
        self.pinned.check(now);
        chunks::trim();
        give_memory_back();
    }

    /// The newest topology, which is this worker's from now on: other workers may have heard of it already, and their clients
    /// of what was written by it.
    pub(crate) fn newest_topology(&self) -> Arc<Topology> {
        let newest = self.shared.topology_version.load(Ordering::Acquire);
        if newest != self.topology.borrow().version() {
            self.take_up_topology();
        }
        Arc::clone(&self.topology.borrow())
    }

    /// From now on sessions that have nothing in flight go by the newest topology.
    pub(crate) fn take_up_topology(&self) {
        *self.topology.borrow_mut() = self.shared.topology.load_full();
    }

    /// Sends a fetch to the loader lane of its node, user and db, on whatever worker that lives.
    pub(crate) fn fetch(self: &Rc<Self>, ticket: FillTicket, node: &Arc<Node>, user: &User) {
        let home = self.shared.loader_worker(node, user, ticket.scope().db);
        if home == self.index {
            return self.fetch_here(ticket, node, user);
        }
        let message = Message::Fetch(ticket, Arc::clone(node), user.clone());
        if let Err(error) = self.shared.mailboxes[home].try_send(message) {
            let (mpsc::error::TrySendError::Full(message) | mpsc::error::TrySendError::Closed(message)) = error;
            if let Message::Fetch(ticket, ..) = message {
                crate::lanes::loader::abandon(self, ticket);
            }
        }
    }

    fn fetch_here(self: &Rc<Self>, ticket: FillTicket, node: &Arc<Node>, user: &User) {
        self.loader(node, user, ticket.scope().db).fetch(ticket);
    }

    /// Has the fence wait for all loader lanes of these nodes, on whatever worker they live.
    pub(crate) fn fence(&self, fence: Fence, nodes: &[Arc<Node>]) {
        let fence = Arc::new(fence);
        for (index, mailbox) in self.shared.mailboxes.iter().enumerate() {
            if index == self.index {
                self.fence_here(&fence, nodes);
            } else if mailbox.try_send(Message::Fence(Arc::clone(&fence), nodes.to_vec())).is_err() {
                fence.give_up();
            }
        }
    }

    fn fence_here(&self, fence: &Arc<Fence>, nodes: &[Arc<Node>]) {
        let is_meant = |lane: &&Rc<LoaderLane>| nodes.iter().any(|node| lane.leads_to(node));
        let lanes: Vec<_> = self.loaders.borrow().values().filter(is_meant).cloned().collect();
        lanes.iter().for_each(|lane| lane.fence(fence));
    }

    /// Tells those who waited for a fetch; the caller then calls [`Worker::flush_touched`].
    pub(crate) fn fetched(&self, fetched: &Fetched) {
        for (id, sequence) in &fetched.waiters {
            if let Some(session) = self.session(*id) {
                session.deliver_fetched(*sequence, fetched.reply.as_ref(), &fetched.query);
                if session.first_touch() {
                    self.touched.borrow_mut().push(session);
                }
            }
        }
    }

    /// The session has answers to send. They leave once all sessions of this turn of the event loop have run: a client
    /// program with many connections is then woken once, not by the first answer of each turn.
    #[inline]
    pub(crate) fn flush_later(&self, session: &Rc<Session>) {
        if !session.first_touch() {
            return;
        }
        self.touched.borrow_mut().push(Rc::clone(session));
        self.flush_soon();
    }

    /// Sessions were delivered to. Their answers leave once all sessions and lanes of this turn have run: what one session
    /// gets from several nodes leaves together.
    #[inline]
    pub(crate) fn flush_soon(&self) {
        if let Some(flusher) = self.flusher.take() {
            flusher.wake();
        }
    }

    /// The session has answers to send, and others that belong with them will be there soon.
    pub(crate) fn flush_in_a_moment(self: &Rc<Self>, session: &Rc<Session>) {
        if !session.defer() {
            return;
        }
        let mut deferred = self.deferred.borrow_mut();
        deferred.push(Rc::clone(session));
        if deferred.len() == 1 {
            let worker = Rc::clone(self);
            tokio::task::spawn_local(async move {
                tokio::time::sleep(MOMENT).await;
                let deferred = worker.deferred.take();
                deferred.iter().for_each(|session| session.flush_at_last(worker.now()));
            });
        }
    }

    fn poll_flusher(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.flusher.set(Some(cx.waker().clone()));
        self.flush_touched();
        Poll::Pending
    }

    /// Flushes the sessions that were delivered to, each once.
    pub(crate) fn flush_touched(&self) {
        let mut touched = self.touched.take();
        if touched.is_empty() {
            return;
        }
        let now = self.now();
        for session in touched.drain(..) {
            session.flush_delivered(now);
        }
        self.touched.replace(touched);
    }

    /// The forward lane to `node` for this user, db and protocol version. The error: there are too many already.
    pub(crate) fn lane(
        self: &Rc<Self>,
        node: &Arc<Node>,
        user: &User,
        db: u16,
        protocol: Protocol,
    ) -> Result<Rc<ForwardLane>, String> {
        let key = LaneKey { node: node.id(), user: user.id(), db, protocol };
        let mut lanes = self.lanes.borrow_mut();
        if let Some(lane) = lanes.get(&key) {
            return Ok(Rc::clone(lane));
        }
        // The first db is always served, and others, and other users, as long as not all the lanes that are left for them
        // are in use.
        let most = if user.is_own() { LANES_PER_NODE } else { LANES_OF_USERS_PER_NODE };
        let is_counted = |other: &LaneKey| {
            let is_own = other.user == User::OWN;
            other.node == key.node && is_own == user.is_own() && (!is_own || other.db != self.first_db())
        };
        if is_counted(&key) && lanes.keys().filter(|other| is_counted(other)).count() >= most {
            let unused = lanes.values().find(|lane| is_counted(&lane.key()) && lane.end_if_unused());
            let Some(unused) = unused.map(|lane| lane.key()) else {
                return Err(format!("{} has {most} connections of this worker in use", node.address()));
            };
            lanes.remove(&unused);
        }
        let lane = ForwardLane::spawn(self, node, user, key);
        lanes.insert(key, Rc::clone(&lane));
        Ok(lane)
    }

    /// Forgets a lane that has ended: its db does not exist, or its node is no longer there. Sessions that still hold it hear
    /// from it why.
    pub(crate) fn forget_lane(&self, lane: &ForwardLane) {
        let mut lanes = self.lanes.borrow_mut();
        // Another one may have taken its place.
        if lanes.get(&lane.key()).is_some_and(|known| std::ptr::eq(&raw const **known, lane)) {
            lanes.remove(&lane.key());
        }
    }

    /// Connections that wait for a session that needs one of its own.
    pub(crate) fn pinned(&self) -> &Pool {
        &self.pinned
    }

    fn loader(self: &Rc<Self>, node: &Arc<Node>, user: &User, db: u16) -> Rc<LoaderLane> {
        let key = (node.id(), user.id(), db);
        let lane = self.loaders.borrow().get(&key).cloned();
        lane.unwrap_or_else(|| {
            let lane = LoaderLane::spawn(self, node, user, db);
            self.loaders.borrow_mut().insert(key, Rc::clone(&lane));
            lane
        })
    }

    /// Forgets a loader lane that has ended: its node is no longer there.
    pub(crate) fn forget_loader(&self, node: &Node, user: &User, db: u16) {
        self.loaders.borrow_mut().remove(&(node.id(), user.id(), db));
    }

    /// The buffer that sessions and lanes of this worker read into. Borrowed for one read and what it brought.
    #[inline]
    pub(crate) fn scratch(&self) -> RefMut<'_, Vec<u8>> {
        self.scratch.borrow_mut()
    }

    /// The list of sessions that a lane has delivered to; empty between two reads.
    #[inline]
    pub(crate) fn touched(&self) -> RefMut<'_, Vec<Rc<Session>>> {
        self.touched.borrow_mut()
    }

    /// Its number, from 0.
    pub(crate) fn index(&self) -> usize {
        self.index
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    #[inline]
    pub(crate) fn config(&self) -> &Config {
        &self.shared.config
    }

    #[inline]
    pub(crate) fn cache(&self) -> Option<&Arc<NearCache>> {
        self.shared.cache.as_ref()
    }

    #[inline]
    pub(crate) fn metrics(&self) -> &WorkerMetrics {
        &self.metrics
    }

    /// The commands known to this worker.
    #[inline]
    pub(crate) fn table(&self) -> Ref<'_, Arc<Table>> {
        self.table.borrow()
    }

    /// Who serves what, as far as this worker has heard.
    #[inline]
    pub(crate) fn topology(&self) -> Ref<'_, Arc<Topology>> {
        self.topology.borrow()
    }

    #[inline]
    pub(crate) fn now(&self) -> Time {
        clock::now()
    }

    /// The db that a new session is in: the one the upstream's URL names.
    pub(crate) fn first_db(&self) -> u16 {
        self.config().upstream.db
    }

    /// Some commands may have to wait for the end of a CLIENT PAUSE.
    #[inline]
    pub(crate) fn is_paused(&self) -> bool {
        self.paused.get()
    }

    /// Shutdown has begun: sessions read nothing more.
    #[inline]
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// A session's memory has changed.
    pub(crate) fn account_buffers(&self, before: usize, after: usize) {
        let buffers = &self.shared.buffers;
        if after >= before {
            buffers.fetch_add((after - before) as u64, Ordering::Relaxed);
        } else {
            buffers.fetch_sub((before - after) as u64, Ordering::Relaxed);
        }
    }

    /// All sessions' buffers together are past the limit: commands are refused until some have been read.
    #[inline]
    pub(crate) fn is_overloaded(&self) -> bool {
        self.shared.buffers.load(Ordering::Relaxed) > self.config().buffer_memory
    }

    /// As [`Self::is_overloaded`], of a command that is refused if so: counts it.
    #[inline]
    pub(crate) fn turns_away(&self) -> bool {
        let is_overloaded = self.is_overloaded();
        if is_overloaded {
            self.metrics().overloads.add(1);
        }
        is_overloaded
    }
}

/// Lets the allocator give back what this thread has freed. jemalloc looks for that once in a thousand of a thread's larger
/// allocations: never, on a thread that has nothing to do. 9,900 clients that had read one reply of 30 kB each, and then
/// nothing, left 170 MiB behind. Some 0.3 ms in a second.
fn give_memory_back() {
    /// Too large for the thread's own cache, and too small for the arena of the large ones (`.cargo/config.toml`).
    const SIZE: usize = 40 * 1024;
    /// Each counts twice: made, and freed.
    const TIMES: usize = 512;
    for _ in 0..TIMES {
        drop(std::hint::black_box(Vec::<u8>::with_capacity(SIZE)));
    }
}

impl WorkerMetrics {
    /// Counts a command that a forward lane has answered.
    #[inline]
    pub(crate) fn served_forward(&self, now: Time, since: Time) {
        self.served(Route::Forward, now.0.saturating_sub(since.0), 1);
    }

    /// Counts a read that was answered by a fetch.
    pub(crate) fn served_fetch(&self, now: Time, since: Time) {
        self.served(Route::Fetch, now.0.saturating_sub(since.0), 1);
    }
}
