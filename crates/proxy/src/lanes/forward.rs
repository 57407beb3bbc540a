//! Forward lanes: clients' commands as they came, on one pipelined connection per worker, db and protocol version.
//!
//! Commands are appended to one output buffer and their senders to one queue; the lane's task writes the buffer once
//! all sessions of the turn have run, and hands the replies of one read to their sessions, each of which then flushes
//! once. Nothing is sent twice: when the connection is lost, every command on it is answered with an error.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use nearside_nearcache::Time;
use nearside_resp::{Protocol, ReplyKind, ReplyScanner};

use super::connect::{self, ConnectError, Opened, Setup};
use super::link::{Backoff, Link, LinkError};
use super::written::{Effect, WrittenKeys};
use crate::net::clock;
use crate::net::socket::Socket;
use crate::output::{Output, SHARE_FROM};
use crate::session::Session;
use crate::worker::Worker;

/// Unwritten bytes past which sessions wait before adding more: a few batches of the largest common commands. One
/// command may overshoot it by its own length.
const OUTPUT_LIMIT: usize = 16 << 20;
/// Commands in flight past which sessions wait.
const DEPTH_LIMIT: usize = 1 << 16;
/// Reads of one turn, so that a flood of replies does not starve the other tasks of the worker.
const READS_PER_TURN: usize = 8;
/// A connection that carried nothing for this long is closed; the next command opens another.
const IDLE_AFTER: Duration = Duration::from_secs(300);

/// What distinguishes the forward lanes of a worker. (Node and user join it with Cluster and ACL users.)
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct LaneKey {
    /// The database its commands run in.
    pub(crate) db: u16,
    /// The protocol version of its replies.
    pub(crate) protocol: Protocol,
}

/// A command's bytes.
#[derive(Debug)]
pub(crate) enum Frame<'a> {
    /// In a buffer that will be reused: copied.
    Borrowed(&'a [u8]),
    /// Owned, worth sharing.
    Shared(Bytes),
}

impl Frame<'_> {
    fn len(&self) -> usize {
        match self {
            Frame::Borrowed(bytes) => bytes.len(),
            Frame::Shared(bytes) => bytes.len(),
        }
    }
}

/// A command whose reply is owed.
struct Awaiting {
    session: Rc<Session>,
    sequence: u64,
    effect: Effect,
    since: Time,
    /// Where its bytes begin, counted from the lane's first byte.
    offset: u64,
}

/// One connection to the upstream, shared by all sessions of a worker that have its db and protocol version.
pub(crate) struct ForwardLane {
    key: LaneKey,
    worker: Rc<Worker>,
    state: RefCell<State>,
    waker: Cell<Option<Waker>>,
}

struct State {
    link: Link,
    /// The server it leads to, as [`Server::epoch`](super::server::Server::epoch) counts them.
    server: u64,
    /// It has been connected once.
    was_up: bool,
    output: Output,
    /// Bytes ever queued in `output`.
    queued: u64,
    awaiting: VecDeque<Awaiting>,
    written: WrittenKeys,
    /// The oldest command's reply has begun: its effect is applied, part of it may be with the client.
    begun: bool,
    /// When the upstream last showed life, or the first command was queued.
    progress: Time,
    /// The upstream takes no more bytes for now.
    blocked: bool,
    /// Sessions that wait for room.
    parked: Vec<Rc<Session>>,
    /// Set by the tick: the reason to end the connection.
    condemned: Option<LinkError>,
}

impl State {
    fn came_up(&mut self, server: u64) {
        self.link = Link::Up;
        self.server = server;
        self.was_up = true;
        self.progress = clock::now();
    }
}

impl ForwardLane {
    /// A lane that connects when it gets its first command.
    pub(crate) fn spawn(worker: &Rc<Worker>, key: LaneKey) -> Rc<Self> {
        let lane = Rc::new(ForwardLane {
            key,
            worker: Rc::clone(worker),
            state: RefCell::new(State {
                link: Link::Idle,
                server: 0,
                was_up: false,
                output: Output::default(),
                queued: 0,
                awaiting: VecDeque::new(),
                written: WrittenKeys::default(),
                begun: false,
                progress: Time(0),
                blocked: false,
                parked: Vec::new(),
                condemned: None,
            }),
            waker: Cell::new(None),
        });
        tokio::task::spawn_local(Rc::clone(&lane).run());
        lane
    }

    /// True while its connection is made: what its handshake established holds.
    pub(crate) fn is_up(&self) -> bool {
        self.state.borrow().link == Link::Up
    }

    /// False: the session must wait; it is woken when there is room.
    #[inline]
    pub(crate) fn has_room(&self, session: &Rc<Session>) -> bool {
        let mut state = self.state.borrow_mut();
        if state.output.len() < OUTPUT_LIMIT && state.awaiting.len() < DEPTH_LIMIT {
            return true;
        }
        if session.park() {
            state.parked.push(Rc::clone(session));
        }
        false
    }

    /// Queues a command; its reply comes to the session under `sequence`. `note_keys` queues the keys that the command
    /// writes, and says what its reply makes true. The error: why the upstream can't be reached; nothing was queued.
    #[inline]
    pub(crate) fn submit(
        &self,
        session: &Rc<Session>,
        sequence: u64,
        frame: Frame<'_>,
        now: Time,
        note_keys: impl FnOnce(&mut WrittenKeys) -> Effect,
    ) -> Result<Effect, String> {
        let mut state = self.state.borrow_mut();
        match &state.link {
            Link::Up | Link::Connecting => {}
            Link::Idle => state.link = Link::Connecting,
            Link::Down { reason } => return Err(reason.clone()),
        }
        if state.awaiting.is_empty() {
            state.progress = clock::now(); // the session's own time may lie back
        }
        let effect = note_keys(&mut state.written);
        let offset = state.queued;
        state.awaiting.push_back(Awaiting { session: Rc::clone(session), sequence, effect, since: now, offset });
        let was_empty = state.output.is_empty();
        state.queued += frame.len() as u64;
        match frame {
            Frame::Borrowed(bytes) if bytes.len() < SHARE_FROM => state.output.copy(bytes),
            Frame::Borrowed(bytes) => state.output.share(Bytes::copy_from_slice(bytes)),
            Frame::Shared(bytes) => state.output.share(bytes),
        }
        drop(state);
        if was_empty {
            self.wake();
        }
        self.worker.metrics().upstream_commands.add(1);
        Ok(effect)
    }

    /// Ends the connection if it owes a reply and nothing has moved for the upstream timeout; or if nothing is in flight, and
    /// it has not been used for long, or leads to a server that another has taken the place of.
    pub(crate) fn check(&self, now: Time) {
        let mut state = self.state.borrow_mut();
        let limit = self.worker.config().upstream_timeout;
        let moved = state.server != self.worker.shared().server.epoch();
        if state.link != Link::Up || state.condemned.is_some() {
            return;
        }
        if !state.awaiting.is_empty() && now >= state.progress + limit {
            state.condemned = Some(LinkError::Silent(limit));
        } else if state.awaiting.is_empty() && (moved || now >= state.progress + IDLE_AFTER) {
            state.condemned = Some(LinkError::Closed);
        } else {
            return;
        }
        drop(state);
        self.wake();
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    async fn run(self: Rc<Self>) {
        let mut backoff = Backoff::default();
        loop {
            poll_fn(|cx| self.poll_wanted(cx)).await;
            match self.connect().await {
                Ok(Opened { socket, server, .. }) => {
                    backoff.reset();
                    self.state.borrow_mut().came_up(server);
                    let mut scanner = ReplyScanner::new();
                    let error = poll_fn(|cx| self.poll_serve(cx, &socket, &mut scanner)).await;
                    // What the kernel still holds must not be carried out after its sender was told of the loss.
                    socket.abort();
                    drop(socket);
                    self.lost(&error);
                }
                Err(ConnectError::Refused { step: "SELECT", line }) if line.starts_with(b"ERR ") => {
                    return self.no_such_db(&line);
                }
                Err(error) => {
                    self.refused(&error);
                    if !self.is_worth_retrying() {
                        return self.worker.forget_lane(self.key);
                    }
                    tokio::time::sleep(backoff.next(clock::now())).await;
                }
            }
        }
    }

    /// A lane that has never led anywhere ends, unless new sessions begin on it: clients may ask for any number of dbs while
    /// the upstream is away.
    fn is_worth_retrying(&self) -> bool {
        self.state.borrow().was_up || self.key.db == self.worker.first_db()
    }

    async fn connect(&self) -> Result<Opened, ConnectError> {
        let setup = Setup { protocol: self.key.protocol, db: self.key.db, tracking: false, name: "nearside-forward" };
        connect::open(self.worker.shared(), setup).await
    }

    /// Ready once somebody has queued a command, or while the upstream is down and to be tried again.
    fn poll_wanted(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.state.borrow().link == Link::Idle {
            self.waker.set(Some(cx.waker().clone()));
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    /// Moves bytes both ways until the connection ends.
    fn poll_serve(&self, cx: &mut Context<'_>, socket: &Socket, scanner: &mut ReplyScanner) -> Poll<LinkError> {
        self.waker.set(Some(cx.waker().clone()));
        if let Some(error) = self.condemnation() {
            return Poll::Ready(error);
        }
        for turn in 0.. {
            if turn == READS_PER_TURN {
                cx.waker().wake_by_ref();
                break;
            }
            match self.poll_replies(cx, socket, scanner) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(error),
                Poll::Pending => break,
            }
        }
        if let Poll::Ready(Err(error)) = self.poll_write(cx, socket) {
            return Poll::Ready(error.into());
        }
        self.resume_parked();
        Poll::Pending
    }

    /// Why the connection is to end, if it is. One that was only idle lives on if it has been used since.
    fn condemnation(&self) -> Option<LinkError> {
        let mut state = self.state.borrow_mut();
        let error = state.condemned.take()?;
        let used_again = matches!(error, LinkError::Closed) && !state.awaiting.is_empty();
        (!used_again).then_some(error)
    }

    /// Lets the sessions go on that wait for room, once there is plenty.
    fn resume_parked(&self) {
        let mut state = self.state.borrow_mut();
        if state.parked.is_empty() || state.output.len() > OUTPUT_LIMIT / 2 || state.awaiting.len() > DEPTH_LIMIT / 2 {
            return;
        }
        let parked = std::mem::take(&mut state.parked);
        drop(state);
        parked.iter().for_each(|session| session.resume());
    }

    fn poll_write(&self, cx: &mut Context<'_>, socket: &Socket) -> Poll<std::io::Result<()>> {
        let mut state = self.state.borrow_mut();
        let before = state.output.len();
        if before == 0 {
            return Poll::Ready(Ok(()));
        }
        let flushed = state.output.poll_flush(cx, socket);
        // A write proves that the upstream lives only if it had refused one before: the kernel takes the first ones.
        if state.blocked && state.output.len() < before {
            state.progress = clock::now();
        }
        state.blocked = flushed.is_pending();
        flushed
    }

    /// One read, and all the replies in it.
    fn poll_replies(
        &self,
        cx: &mut Context<'_>,
        socket: &Socket,
        scanner: &mut ReplyScanner,
    ) -> Poll<Result<(), LinkError>> {
        let mut buffer = self.worker.scratch();
        let count = match socket.poll_read(cx, &mut buffer) {
            Poll::Ready(Ok(0)) => return Poll::Ready(Err(LinkError::Closed)),
            Poll::Ready(Ok(count)) => count,
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
            Poll::Pending => return Poll::Pending,
        };
        let result = self.distribute(&buffer[..count], scanner, &mut self.worker.touched());
        drop(buffer);
        self.worker.flush_touched();
        Poll::Ready(result)
    }

    /// Hands each reply, or as much of it as is there, to the session it belongs to.
    fn distribute(
        &self,
        mut bytes: &[u8],
        scanner: &mut ReplyScanner,
        touched: &mut Vec<Rc<Session>>,
    ) -> Result<(), LinkError> {
        let mut state = self.state.borrow_mut();
        let now = clock::now();
        state.progress = now;
        while !bytes.is_empty() {
            let scanned = scanner.scan(bytes).map_err(|error| LinkError::Protocol(error.to_string()))?;
            let (piece, rest) = bytes.split_at(scanned.consumed);
            bytes = rest;
            if scanner.kind() == Some(ReplyKind::Push) {
                continue; // asked for by nobody on this connection
            }
            if !state.begun {
                self.begin_reply(&mut state)?;
            }
            let front = state.awaiting.front().expect("begin_reply found one");
            front.session.deliver(front.sequence, piece, scanned.complete);
            if scanned.complete {
                state.begun = false;
                let front = state.awaiting.pop_front().expect("just seen");
                self.worker.metrics().served_forward(now, front.since);
                if front.session.first_touch() {
                    touched.push(front.session);
                }
            } else if front.session.first_touch() {
                touched.push(Rc::clone(&front.session));
            }
        }
        Ok(())
    }

    /// The oldest command has been carried out: what it wrote leaves the cache before anybody hears of it.
    fn begin_reply(&self, state: &mut State) -> Result<(), LinkError> {
        let Some(front) = state.awaiting.front() else {
            return Err(LinkError::Protocol("a reply that no command asked for".into()));
        };
        let effect = front.effect;
        self.apply(effect, &mut state.written);
        state.begun = true;
        Ok(())
    }

    fn apply(&self, effect: Effect, written: &mut WrittenKeys) {
        let Some(cache) = self.worker.cache() else { return };
        match effect {
            Effect::None => {}
            Effect::Keys(count) => written.pop(count, |key| cache.wrote(key)),
            Effect::Everything => cache.flush(),
            Effect::EverythingAnd(count) => {
                written.pop(count, |_| {});
                cache.flush();
            }
        }
    }

    /// No connection could be made: nothing that waited for it was sent.
    fn refused(&self, error: &ConnectError) {
        self.worker.metrics().upstream_errors.add(1);
        let upstream = &self.worker.config().upstream.address;
        let reason = format!("{upstream} is down: {error}");
        let first = !matches!(self.state.borrow().link, Link::Down { .. });
        if first {
            tracing::warn!("upstream {reason}");
        }
        let line = format!("-UPSTREAM {reason}; the command was not sent\r\n");
        self.fail_all(Link::Down { reason }, line.as_bytes(), line.as_bytes());
    }

    /// The upstream does not have this db: it says so in its own words, and the lane ends.
    fn no_such_db(&self, line: &[u8]) {
        self.worker.forget_lane(self.key);
        let reason = format!("db {}: {}", self.key.db, String::from_utf8_lossy(line));
        let line = [b"-", line, b"\r\n"].concat();
        self.fail_all(Link::Down { reason }, &line, &line);
    }

    /// The connection ended. What was written may have been carried out; it is not sent again.
    fn lost(&self, error: &LinkError) {
        let upstream = &self.worker.config().upstream.address;
        let busy = !self.state.borrow().awaiting.is_empty();
        if busy || !matches!(error, LinkError::Closed) {
            self.worker.metrics().upstream_errors.add(1);
            tracing::warn!("lost a connection to upstream {upstream}: {error}");
        }
        let text = format!("-UPSTREAM lost the connection to {upstream}: {error}; ");
        let sent = format!("{text}the command may have been executed\r\n");
        let unsent = format!("{text}the command was not sent\r\n");
        self.fail_all(Link::Idle, sent.as_bytes(), unsent.as_bytes());
    }

    /// Answers all that wait, and leaves the lane in the state `link`.
    fn fail_all(&self, link: Link, sent: &[u8], unsent: &[u8]) {
        let mut state = self.state.borrow_mut();
        state.link = link;
        let taken = state.queued - state.output.len() as u64;
        state.output.clear();
        state.blocked = false;
        let torn = std::mem::take(&mut state.begun);
        let awaiting = std::mem::take(&mut state.awaiting);
        let parked = std::mem::take(&mut state.parked);
        let mut written = std::mem::take(&mut state.written);
        drop(state);
        for (index, waiting) in awaiting.iter().enumerate() {
            if torn && index == 0 {
                waiting.session.tear();
            } else {
                // The outcome is unknown: the keys leave the cache as if they had been written.
                self.apply(waiting.effect, &mut written);
                let line = if waiting.offset < taken { sent } else { unsent };
                waiting.session.deliver(waiting.sequence, line, true);
            }
        }
        for waiting in &awaiting {
            waiting.session.flush_delivered(self.worker.now());
        }
        parked.iter().for_each(|session| session.resume());
    }
}
