//! Pinned connections: upstream connections that one session has to itself for a while, because its commands change what
//! the connection is (WATCH, MULTI, tracking) or keep it busy (BLPOP).
//!
//! Bytes go both ways as they are. Replies are counted all the same: what a command wrote leaves the cache before its reply
//! goes on. Nothing is sent twice, and a lost connection is not made again: what the server knew of it is gone.
//!
//! One that is clean goes back to its worker's [`Pool`]; wherever there is a doubt it is closed.

mod pool;
mod replies;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use nearside_nearcache::Time;
use nearside_resp::{Protocol, ReplyScanner, encode};

pub(crate) use self::pool::Pool;
use super::connect::{self, ConnectError, Opened, Setup};
use super::forward::{Frame, LaneKey};
use super::link::{self, LinkError, Patience};
use super::written::{Effect, WrittenKeys};
use crate::net::clock;
use crate::net::socket::Socket;
use crate::output::Output;
use crate::session::Session;
use crate::topology::Node;
use crate::topology::redirect::Redirect;
use crate::users::User;
use crate::worker::Worker;

/// Unwritten bytes past which the session waits before adding more. One command may overshoot it by its own length.
const OUTPUT_LIMIT: usize = 16 << 20;

/// A connection to a node that is no part of the topology ends after this long: one that was made because of a redirection
/// is ahead of the topology for a moment.
const UNWANTED_AFTER: Duration = Duration::from_secs(5);

/// One session's own connection to a node.
pub(crate) struct PinnedLane {
    key: LaneKey,
    node: Arc<Node>,
    user: User,
    worker: Rc<Worker>,
    state: RefCell<State>,
    waker: Cell<Option<Waker>>,
}

/// A command whose reply is owed.
struct Awaiting {
    /// The number of the reply in its session; `None`: the session does not want it.
    sequence: Option<u64>,
    effect: Effect,
    /// When the command came.
    since: Time,
    /// It may wait at the server for as long as it likes.
    blocks: bool,
    /// Its bytes, if it may be sent on to another node that has its keys.
    frame: Option<Bytes>,
    /// How often that was done.
    redirections: u8,
    /// It goes ahead of a command, and is asked for the sake of that.
    guard: Option<Guard>,
    /// It ends what the server knows of the session: if it is refused, nobody else may have the connection.
    frees: bool,
}

/// Commands of which one has to succeed, or the error of the last is the answer to the command behind them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Guard {
    OneOfSeveral,
    Last,
}

struct State {
    /// None: it waits in the pool.
    owner: Option<Rc<Session>>,
    phase: Phase,
    /// The server it leads to, as [`Node::server`] counts them.
    server: u64,
    /// The number by which that server knows the connection.
    client_id: Option<i64>,
    output: Output,
    /// Commands whose replies are owed, oldest first. It is not known how far they have been written: once connected, all of
    /// them may have left.
    awaiting: VecDeque<Awaiting>,
    written: WrittenKeys,
    /// The oldest command's reply has begun: its effect is applied, part of it may be with the client.
    begun: bool,
    /// One of the guards in hand has succeeded.
    is_let_pass: bool,
    /// What the last guard was answered, if none has succeeded.
    refusal: Option<Vec<u8>>,
    /// The beginning of a push, or of an error that may be a redirection.
    partial: Vec<u8>,
    /// The beginning of something of which is not known yet whether it is a reply: a read has ended in its header.
    head: Vec<u8>,
    /// When the upstream last showed life, or the first command was queued.
    progress: Time,
    condemned: Option<LinkError>,
    patience: Patience,
    /// What was to make it as new was refused.
    is_stained: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Connecting,
    Up,
    Ended,
}

/// A command to send.
pub(crate) struct Order<'a> {
    /// The number of the reply in its session; `None`: nobody wants it.
    pub(crate) sequence: Option<u64>,
    pub(crate) frame: Frame<'a>,
    /// When the command came.
    pub(crate) since: Time,
    /// It may wait at the server for as long as it likes.
    pub(crate) blocks: bool,
    /// Should the node say that another one has its keys, it goes there.
    pub(crate) may_move: bool,
}

/// A command that another node has to answer.
pub(crate) struct Moved {
    pub(crate) sequence: u64,
    pub(crate) frame: Bytes,
    pub(crate) keys: Vec<Vec<u8>>,
    pub(crate) effect: Effect,
    pub(crate) since: Time,
    pub(crate) blocks: bool,
    pub(crate) redirections: u8,
    pub(crate) redirect: Redirect,
}

impl PinnedLane {
    /// A connection for `owner`, from the pool or a new one.
    pub(crate) fn acquire(
        worker: &Rc<Worker>,
        node: &Arc<Node>,
        user: &User,
        (db, protocol): (u16, Protocol),
        owner: &Rc<Session>,
    ) -> Rc<Self> {
        let key = LaneKey { node: node.id(), user: user.id(), db, protocol };
        if let Some(lane) = worker.pinned().take(key) {
            lane.state.borrow_mut().owner = Some(Rc::clone(owner));
            return lane;
        }
        let lane = Rc::new(PinnedLane {
            key,
            node: Arc::clone(node),
            user: user.clone(),
            worker: Rc::clone(worker),
            state: RefCell::new(State {
                owner: Some(Rc::clone(owner)),
                phase: Phase::Connecting,
                server: 0,
                client_id: None,
                output: Output::default(),
                awaiting: VecDeque::new(),
                written: WrittenKeys::default(),
                begun: false,
                is_let_pass: false,
                refusal: None,
                partial: Vec::new(),
                head: Vec::new(),
                progress: clock::now(),
                condemned: None,
                patience: Patience::default(),
                is_stained: false,
            }),
            waker: Cell::new(None),
        });
        tokio::task::spawn_local(Rc::clone(&lane).run());
        lane
    }

    /// Gives the connection back, which is as it was when it was new: another session may have it.
    pub(crate) fn release(self: &Rc<Self>) {
        let is_as_before = {
            let state = self.state.borrow();
            state.refusal.is_none() && !state.is_stained
        };
        if !is_as_before {
            return self.end();
        }
        self.state.borrow_mut().owner = None;
        self.worker.pinned().give(self);
    }

    /// Ends the connection at once. What was not answered concerns nobody any more.
    pub(crate) fn end(&self) {
        let mut state = self.state.borrow_mut();
        state.owner = None;
        state.condemned = Some(LinkError::Closed);
        state.phase = Phase::Ended;
        drop(state);
        self.wake();
    }

    /// The node it leads to.
    pub(crate) fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// As whom it is logged in.
    pub(crate) fn user(&self) -> &User {
        &self.user
    }

    /// What distinguishes its kind.
    pub(crate) fn key(&self) -> LaneKey {
        self.key
    }

    /// It can carry commands: it is not lost, and the server it leads to is still the one behind its address.
    pub(crate) fn is_sound(&self) -> bool {
        let state = self.state.borrow();
        state.phase == Phase::Connecting || (state.phase == Phase::Up && state.server == self.node.server().epoch())
    }

    /// No reply is owed, and nothing is left to be written.
    pub(crate) fn is_idle(&self) -> bool {
        let state = self.state.borrow();
        state.awaiting.is_empty() && state.output.is_empty()
    }

    /// A command that is in flight may yet go to another node.
    pub(crate) fn may_move_on(&self) -> bool {
        self.state.borrow().awaiting.iter().any(|awaiting| awaiting.frame.is_some())
    }

    /// A command may wait at the server, now or when those before it are answered.
    pub(crate) fn is_blocked(&self) -> bool {
        self.state.borrow().awaiting.iter().any(|awaiting| awaiting.blocks)
    }

    /// Bytes that the server has not taken.
    pub(crate) fn queued(&self) -> usize {
        self.state.borrow().output.len()
    }

    /// False: more is queued than the server takes.
    pub(crate) fn has_room(&self) -> bool {
        self.state.borrow().output.len() < OUTPUT_LIMIT
    }

    /// Queues a command. `note_keys` queues the keys it writes, and says what its reply makes true. False: the connection is
    /// lost, nothing was queued, and the session hears of it another way.
    pub(crate) fn submit(&self, order: Order<'_>, note_keys: impl FnOnce(&mut WrittenKeys) -> Effect) -> bool {
        let effect = {
            let state = &mut *self.state.borrow_mut();
            if state.phase == Phase::Ended {
                return false;
            }
            note_keys(&mut state.written)
        };
        let Order { sequence, frame, since, blocks, may_move } = order;
        let frame = match frame {
            Frame::Shared(bytes) => bytes,
            Frame::Borrowed(bytes) if may_move => Bytes::copy_from_slice(bytes),
            Frame::Borrowed(bytes) => {
                self.state.borrow_mut().output.copy(bytes);
                self.queue(Awaiting {
                    sequence,
                    effect,
                    since,
                    blocks,
                    frame: None,
                    redirections: 0,
                    guard: None,
                    frees: false,
                });
                return true;
            }
        };
        self.state.borrow_mut().output.append(frame.clone());
        let frame = may_move.then_some(frame);
        self.queue(Awaiting { sequence, effect, since, blocks, frame, redirections: 0, guard: None, frees: false });
        true
    }

    /// Queues a command of the proxy's own, whose reply concerns nobody.
    pub(crate) fn say(&self, args: &[&[u8]]) {
        let mut frame = Vec::new();
        encode::command(&mut frame, args);
        self.say_frame(&frame);
    }

    /// As [`PinnedLane::say`], in bytes.
    pub(crate) fn say_frame(&self, frame: &[u8]) {
        let (since, frame) = (clock::now(), Frame::Borrowed(frame));
        self.submit(Order { sequence: None, frame, since, blocks: false, may_move: false }, |_| Effect::None);
    }

    /// As [`PinnedLane::say`]; if the server refuses all of these, that is the answer to the next command.
    pub(crate) fn say_first(&self, commands: &[&[&[u8]]]) {
        for (at, args) in commands.iter().enumerate() {
            let guard = if at + 1 == commands.len() { Guard::Last } else { Guard::OneOfSeveral };
            self.say(args);
            self.state.borrow_mut().awaiting.back_mut().iter_mut().for_each(|said| said.guard = Some(guard));
        }
    }

    /// The command that was queued last ends what the server knows of the session, unless the server refuses it.
    pub(crate) fn frees(&self) {
        self.state.borrow_mut().awaiting.back_mut().iter_mut().for_each(|last| last.frees = true);
    }

    /// Queues a command that another node has sent here. False: the connection is lost.
    pub(crate) fn take_over(&self, moved: Moved) -> bool {
        if self.state.borrow().phase == Phase::Ended {
            return false;
        }
        if matches!(moved.redirect, Redirect::Ask(..)) {
            self.say(&[b"ASKING"]);
        }
        let state = &mut *self.state.borrow_mut();
        if state.awaiting.is_empty() {
            state.progress = clock::now();
        }
        let Moved { sequence, frame, keys, effect, since, blocks, redirections, .. } = moved;
        keys.iter().for_each(|key| state.written.push(key));
        state.output.append(frame.clone());
        state.awaiting.push_back(Awaiting {
            sequence: Some(sequence),
            effect,
            since,
            blocks,
            frame: Some(frame),
            redirections: redirections + 1,
            guard: None,
            frees: false,
        });
        self.tell_where_it_waits(state);
        self.wake();
        true
    }

    fn queue(&self, awaiting: Awaiting) {
        let mut state = self.state.borrow_mut();
        if state.awaiting.is_empty() {
            state.progress = clock::now();
        }
        state.awaiting.push_back(awaiting);
        self.tell_where_it_waits(&state);
        drop(state);
        self.node.counters(self.worker.index()).commands.add(1);
        self.wake();
    }

    /// Ends the connection if it owes a reply that it may not keep waiting for, and nothing has moved for the upstream
    /// timeout; or if it leads to a server that is the right one no longer, and nothing but waiting is in flight.
    pub(crate) fn check(&self, now: Time) {
        let limit = self.worker.config().upstream_timeout;
        let mut state = self.state.borrow_mut();
        if state.phase != Phase::Up {
            return;
        }
        let owes = state.awaiting.front().is_some_and(|front| !front.blocks);
        let is_primary = || self.worker.topology().has(&self.node);
        state.patience.look(is_primary);
        // Nothing is owed, and its node is no part of the topology, and not because it is too new.
        let is_left = || state.patience.is_left_behind() || now >= state.progress + UNWANTED_AFTER && !is_primary();
        let end = match owes {
            true => state.patience.end(now, state.progress, limit, is_primary),
            false if state.server != self.node.server().epoch() || is_left() => Some(LinkError::Replaced),
            false => None,
        };
        if end.is_none() {
            return;
        }
        state.condemned = end;
        drop(state);
        self.wake();
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    async fn run(self: Rc<Self>) {
        let LaneKey { db, protocol, .. } = self.key;
        let user = &self.user;
        let setup = Setup { user, protocol, db, tracking: false, asks_id: true, name: "nearside-pinned" };
        match connect::open(self.worker.shared(), &self.node, setup).await {
            Ok(Opened { socket, server, client_id, .. }) => {
                self.came_up(server, client_id);
                let mut scanner = ReplyScanner::new();
                let error = poll_fn(|cx| self.poll_serve(cx, &socket, &mut scanner)).await;
                // What the kernel still holds must not be carried out after its sender was told of the loss.
                socket.abort();
                drop(socket);
                self.lost(&error);
            }
            Err(error) => self.refused(&error),
        }
    }

    fn came_up(&self, server: u64, client_id: Option<i64>) {
        let mut state = self.state.borrow_mut();
        if state.phase == Phase::Connecting {
            state.phase = Phase::Up;
        }
        state.server = server;
        state.client_id = client_id;
        state.progress = clock::now();
        self.tell_where_it_waits(&state);
    }

    /// Lets others find the client that waits here.
    fn tell_where_it_waits(&self, state: &State) {
        let waits = state.phase == Phase::Up && state.awaiting.front().is_some_and(|front| front.blocks);
        if let (true, Some(owner), Some(number)) = (waits, &state.owner, state.client_id) {
            owner.client().waits_at(&self.node, number);
        }
    }

    /// Moves bytes both ways until the connection ends.
    fn poll_serve(&self, cx: &mut Context<'_>, socket: &Socket, scanner: &mut ReplyScanner) -> Poll<LinkError> {
        self.waker.set(Some(cx.waker().clone()));
        if let Some(error) = self.state.borrow_mut().condemned.take() {
            return Poll::Ready(error);
        }
        if let Err(error) = link::poll_reads(cx, |cx| self.poll_replies(cx, socket, scanner)) {
            return Poll::Ready(error);
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
        let result = self.distribute(&buffer[..count], scanner);
        drop(buffer);
        let (owner, is_idle) = {
            let state = self.state.borrow();
            (state.owner.clone(), state.awaiting.is_empty())
        };
        if let Some(owner) = owner {
            self.worker.flush_later(&owner);
            if is_idle {
                owner.pinned_is_idle(self);
            }
        }
        Poll::Ready(result)
    }

    /// No connection could be made: nothing that waited for it was sent.
    fn refused(&self, error: &ConnectError) {
        let reason = match error {
            ConnectError::Refused { step: "SELECT", line } if line.starts_with(b"ERR ") => {
                return self.fail_all(&[b"-", &line[..], b"\r\n"].concat());
            }
            ConnectError::NotLetIn(line) => return self.fail_all(&[b"-", &line[..], b"\r\n"].concat()),
            error => format!("{} is down: {error}", self.node.address()),
        };
        self.count_error();
        self.fail_all(format!("-UPSTREAM {reason}; the command was not sent\r\n").as_bytes());
    }

    /// The connection ended. What was written may have been carried out; it is not sent again.
    fn lost(&self, error: &LinkError) {
        let upstream = self.node.address();
        if self.state.borrow().owner.is_some() {
            self.count_error();
            tracing::warn!("lost a client's own connection to upstream {upstream}: {error}");
        }
        let text =
            format!("-UPSTREAM lost the connection to {upstream}: {error}; the command may have been executed\r\n");
        self.fail_all(text.as_bytes());
    }

    fn count_error(&self) {
        self.node.counters(self.worker.index()).errors.add(1);
        self.worker.shared().doubt(&self.node);
    }

    /// Answers all that wait with `line`, and lets the owner know that the connection is gone.
    fn fail_all(&self, line: &[u8]) {
        let (owner, awaiting, mut written, torn) = {
            let state = &mut *self.state.borrow_mut();
            state.phase = Phase::Ended;
            state.output.clear();
            let torn = std::mem::take(&mut state.begun);
            (state.owner.take(), std::mem::take(&mut state.awaiting), std::mem::take(&mut state.written), torn)
        };
        for (index, waiting) in awaiting.into_iter().enumerate() {
            if torn && index == 0 {
                owner.iter().for_each(|owner| owner.tear());
                continue;
            }
            // The outcome is unknown: the keys leave the cache as if they had been written.
            waiting.effect.apply(&mut written, self.worker.cache(), self.worker.now());
            if let (Some(owner), Some(sequence)) = (&owner, waiting.sequence) {
                owner.deliver(sequence, line, true);
            }
        }
        if let Some(owner) = owner {
            owner.client().waits_no_more();
            owner.pinned_lost(self);
        }
    }
}
