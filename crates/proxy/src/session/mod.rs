//! A session: one client's connection, from its first byte to its last.
//!
//! A session is a task that reads, runs what it has read, and writes once. Replies from lanes are delivered from the
//! lane's task straight into the session's output, which that task then flushes: the session itself sleeps meanwhile.
//!
//! - `input` holds what has been received and not yet run.
//! - `replies` keeps the order of what is owed, `gather` puts together what comes in parts; `order` keeps reads and writes of one
//!   key from overtaking each other.
//! - `fences` holds replies back until what their commands changed without saying so is known.
//! - `lanes` are the ways to the nodes upstream that it has used.
//! - `own` is the upstream connection that it has to itself, while it needs one; `pinned` what it hears from that.
//! - `subscriptions` are what it has subscribed to; `feeds` what it hears of that.
//! - `state` is what commands see and change.
//! - `registry` is what other sessions may know of this one (CLIENT LIST, CLIENT KILL).

pub(crate) mod feeds;
pub(crate) mod fences;
pub(crate) mod gather;
mod input;
pub(crate) mod lanes;
pub(crate) mod order;
pub(crate) mod own;
mod pinned;
pub(crate) mod registry;
pub(crate) mod replies;
pub(crate) mod state;
pub(crate) mod subscriptions;

use std::cell::{Cell, Ref, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use nearside_nearcache::Time;

use self::input::{Input, Taken};
use self::registry::Client;
use self::replies::{Shape, Source};
use self::state::{Learned, LoggingIn, State};
use crate::commands::cached::{self, Query};
use crate::commands::client::tracking;
use crate::commands::{self, Call, Flow, info, select, transaction};
use crate::metrics::CutOff;
use crate::net::socket::Socket;
use crate::output::Flushed;
use crate::users::Verdict;
use crate::worker::Worker;

/// Commands a session runs before the other sessions of its worker get a turn.
const COMMANDS_PER_TURN: usize = 512;
/// Commands in flight past which a session stops reading.
const IN_FLIGHT_LIMIT: usize = 4096;
/// Replies that leave although others, to commands that were read with theirs, are still to come.
const OUTPUT_ENOUGH: usize = 16 * 1024;
/// Unread replies past which a session stops running commands: a client must read to be served.
const OUTPUT_PAUSE: usize = 1 << 20;

/// How a session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Nothing more is read; what is owed is delivered first.
    AfterReplies,
    /// At once.
    Now,
}

/// One client's connection.
pub(crate) struct Session {
    worker: Rc<Worker>,
    /// None once the session has ended: lanes may hold it longer, its file descriptor not.
    socket: RefCell<Option<Socket>>,
    client: Arc<Client>,
    input: RefCell<Input>,
    state: RefCell<State>,
    waker: RefCell<Option<Waker>>,
    /// A lane has delivered to it in this turn.
    touched: Cell<bool>,
    /// It is in the worker's list of those that wait until more has come.
    deferred: Cell<bool>,
    /// A lane has it in its list of those who wait for room.
    parked: Cell<bool>,
}

impl Session {
    /// Serves the connection until it ends.
    pub(crate) fn spawn(worker: &Rc<Worker>, socket: Socket, client: Arc<Client>) -> Rc<Self> {
        let session = Rc::new(Session {
            worker: Rc::clone(worker),
            socket: RefCell::new(Some(socket)),
            input: RefCell::default(),
            state: RefCell::new(State::new(worker, Arc::clone(&client))),
            client,
            waker: RefCell::default(),
            touched: Cell::new(false),
            deferred: Cell::new(false),
            parked: Cell::new(false),
        });
        tokio::task::spawn_local(Rc::clone(&session).run());
        session
    }

    /// The number by which clients know it (`CLIENT ID`).
    pub(crate) fn id(&self) -> u64 {
        self.client.id
    }

    /// What others may know of it.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// The worker it lives on.
    #[inline]
    pub(crate) fn worker(&self) -> &Rc<Worker> {
        &self.worker
    }

    #[inline]
    fn socket(&self) -> Ref<'_, Socket> {
        Ref::map(self.socket.borrow(), |socket| socket.as_ref().expect("it is used only until the session has ended"))
    }

    async fn run(self: Rc<Self>) {
        std::future::poll_fn(|cx| self.poll(cx)).await;
        // The lanes may hold the session for a while yet, for replies nobody will read.
        self.socket.take();
        self.state.borrow_mut().close(&self.worker);
        self.input.take();
        self.worker.forget(&self);
    }

    /// Makes the session's task run again.
    pub(crate) fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    fn poll(self: &Rc<Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.keep_waker(cx);
        let state = &mut *self.state.borrow_mut();
        if state.ending.is_none() && self.client.is_killed() {
            state.cut_off(CutOff::Killed, &self.worker);
        }
        let mut budget = COMMANDS_PER_TURN;
        loop {
            let asleep = self.poll_run(cx, state, &mut budget);
            state.replies.end_turn();
            // The next delivery clears it.
            state.waiting |= self.is_full(state);
            let paused = state.output.len() >= OUTPUT_PAUSE;
            state.show_turn();
            state.input_held = self.input.borrow().allocated();
            let may_wait_long = state.is_waiting_upstream() || state.is_held_back && state.waiting;
            if (state.waiting || state.ending == Some(Ending::AfterReplies)) && may_wait_long {
                self.poll_hang_up(cx, state);
            }
            if asleep && !paused && !state.blocked && state.ending.is_none() && !state.output.is_empty() {
                self.worker.flush_later(self);
                return Poll::Pending;
            }
            state.count_turn(&self.worker, self.worker.now());
            if self.poll_output(cx, state).is_ready() {
                return Poll::Ready(());
            }
            // What was too much to go on with may have been written: nobody else would wake the session.
            if asleep || !paused || !self.may_run(state) {
                return Poll::Pending;
            }
        }
    }

    /// Runs commands until none is left, or a limit says stop. True: the task will be woken when there are more.
    fn poll_run(self: &Rc<Self>, cx: &mut Context<'_>, state: &mut State, budget: &mut usize) -> bool {
        while self.may_run(state) {
            if *budget == 0 {
                cx.waker().wake_by_ref();
                return true;
            }
            if self.poll_commands(cx, state, budget).is_pending() {
                return true;
            }
        }
        false
    }

    fn keep_waker(&self, cx: &mut Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
    }

    fn may_run(&self, state: &State) -> bool {
        state.ending.is_none()
            && !state.waiting
            && !state.moving
            && !self.is_full(state)
            && state.output.len() < OUTPUT_PAUSE
    }

    /// As much is owed as may be, replies included that are ready but wait behind others.
    fn is_full(&self, state: &State) -> bool {
        state.replies.len() >= IN_FLIGHT_LIMIT || state.replies.held() >= OUTPUT_PAUSE
    }

    /// Runs what has been received; reads, if there is not a whole command. Pending: nothing to do until woken.
    fn poll_commands(self: &Rc<Self>, cx: &mut Context<'_>, state: &mut State, budget: &mut usize) -> Poll<()> {
        let mut input = self.input.borrow_mut();
        if input.is_ripe() {
            self.run_received(&mut input, state, budget);
            return Poll::Ready(());
        }
        if self.worker.is_draining() && input.is_empty() {
            state.ending = Some(Self::end_of_input(state));
            return Poll::Ready(());
        }
        let read = if input.is_empty() {
            let mut scratch = self.worker.scratch();
            let read = self.socket().poll_read(cx, &mut scratch);
            if let Poll::Ready(Ok(count @ 1..)) = read {
                state.now = self.worker.now();
                self.run_scratch(&scratch[..count], &mut input, state, budget);
            }
            read
        } else {
            let read = input.poll_fill(cx, &self.socket());
            state.now = self.worker.now();
            read
        };
        match read {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(0)) => {
                state.ending = Some(Self::end_of_input(state));
                Poll::Ready(())
            }
            Poll::Ready(Ok(_)) => {
                self.check_input(&input, state);
                Poll::Ready(())
            }
            Poll::Ready(Err(_)) => {
                state.ending = Some(Ending::Now);
                Poll::Ready(())
            }
        }
    }

    /// How a session ends whose client sends nothing more. One that waits at the server gets what it waits for no more: an
    /// item that is popped for it would be lost.
    fn end_of_input(state: &State) -> Ending {
        if state.is_waiting_upstream() { Ending::Now } else { Ending::AfterReplies }
    }

    /// Runs the commands in `bytes`; keeps what is left over for later.
    fn run_scratch(self: &Rc<Self>, bytes: &[u8], input: &mut Input, state: &mut State, budget: &mut usize) {
        let mut done = 0;
        while *budget > 0 && self.may_run(state) {
            match input.next_in(&bytes[done..], &state.limits) {
                Ok(Taken::Request(length)) => {
                    let request = input.request(&bytes[done..done + length]);
                    let rest = &bytes[done + length..];
                    let Some(ahead) = self.run_one(state, &Call { request, owned: None, rest }) else { break };
                    done += length + ahead;
                    *budget -= 1;
                }
                Ok(Taken::Skip(length)) => done += length,
                Ok(Taken::Incomplete) => break,
                Err(error) => return state.break_off(&error, &self.worker),
            }
            if done == bytes.len() {
                return;
            }
        }
        input.keep(&bytes[done..]);
    }

    /// Runs the commands that were kept.
    fn run_received(self: &Rc<Self>, input: &mut Input, state: &mut State, budget: &mut usize) {
        // They may have been kept for long: a hit is judged by the time at which it is served.
        state.now = self.worker.now();
        while *budget > 0 && self.may_run(state) {
            match input.next_kept(&state.limits) {
                Ok(Taken::Request(length)) => {
                    let frame = input.lend(length);
                    let request = input.request(frame.bytes());
                    let ran = self.run_one(state, &Call { request, owned: frame.shared(), rest: frame.rest() });
                    input.give_back(frame, ran.map_or(0, |ahead| length + ahead));
                    if ran.is_none() {
                        return;
                    }
                    *budget -= 1;
                }
                Ok(Taken::Skip(length)) => input.consume(length),
                Ok(Taken::Incomplete) => return,
                Err(error) => return state.break_off(&error, &self.worker),
            }
        }
    }

    /// Runs one command; gives the length of those behind it that ran with it. `None`: it must wait, and be given again later.
    #[inline(always)]
    fn run_one(self: &Rc<Self>, state: &mut State, call: &Call<'_>) -> Option<usize> {
        match commands::run(self, state, call) {
            Flow::Done => {
                state.reply_mode.command_done();
                Some(0)
            }
            Flow::DoneWith(rest) => Some(rest),
            Flow::Wait => {
                state.waiting = true;
                None
            }
            Flow::Close => {
                state.ending = Some(Ending::AfterReplies);
                Some(0)
            }
        }
    }

    /// Bounds what is held of an unfinished request.
    fn check_input(&self, input: &Input, state: &mut State) {
        if input.len() > self.worker.config().query_buffer_limit {
            state.cut_off(CutOff::QueryBuffer, &self.worker);
        } else if input.len() > 64 * 1024 && self.worker.is_overloaded() {
            state.answer(|out, _| nearside_resp::encode::error(out, commands::OVERLOAD));
            state.cut_off(CutOff::Overload, &self.worker);
            state.ending = Some(Ending::AfterReplies);
        }
    }

    fn poll_output(&self, cx: &mut Context<'_>, state: &mut State) -> Poll<()> {
        match state.output.poll_flush(cx, &self.socket()) {
            Poll::Ready(Ok(())) => state.blocked = false,
            Poll::Ready(Err(_)) => state.ending = Some(Ending::Now),
            Poll::Pending => state.blocked = true,
        }
        self.check_output(state);
        match state.ending {
            Some(Ending::Now) => Poll::Ready(()),
            Some(Ending::AfterReplies) if state.replies.is_empty() && state.output.is_empty() => Poll::Ready(()),
            _ => Poll::Pending,
        }
    }

    /// Cuts a client off that lets its replies pile up.
    fn check_output(&self, state: &mut State) {
        state.account(&self.worker);
        if state.output.len() + state.replies.held() > self.worker.config().output_limits.hard {
            state.cut_off(CutOff::Output, &self.worker);
        }
    }

    /// A piece of the reply `sequence` has arrived on a lane.
    #[inline]
    pub(crate) fn deliver(self: &Rc<Self>, sequence: u64, piece: &[u8], complete: bool) {
        let state = &mut *self.state.borrow_mut();
        if state.closed {
            return;
        }
        if gather::is_part(sequence) {
            return gather::deliver(self, state, sequence, piece, complete);
        }
        let (source, collected) = state.replies.deliver(sequence, piece, complete, &mut state.output);
        if let Some(collected) = collected {
            let reply = match collected.shape {
                Shape::Plain => unreachable!("plain replies are not collected"),
                Shape::Fenced => collected.reply,
                Shape::Info { ours } => info::complete(&self.worker, collected.reply, ours),
                Shape::Select(db) => select::complete(state, db, collected.reply),
                Shape::Exec => transaction::complete(state, collected.reply),
                Shape::Tracking(on) => tracking::complete(state, on, collected.reply),
                Shape::Walk => commands::scan::complete(state, sequence, collected.reply),
            };
            let reply = if collected.silent { Vec::new() } else { reply };
            let Some(reply) = fences::arrived(self, state, sequence, reply) else {
                return state.replies.reopen(sequence);
            };
            state.replies.settle(sequence, reply, &mut state.output);
        }
        if complete {
            match source {
                Source::Forward => state.order.forward_answered(sequence),
                Source::Fetch => state.order.fetch_answered(sequence),
            }
        }
    }

    /// The fence that the reply `sequence` waits for has passed.
    pub(crate) fn fenced(self: &Rc<Self>, sequence: u64) {
        self.with_state(|_, state| fences::passed(state, sequence));
    }

    /// Runs something that was put off, unless the session has ended meanwhile.
    pub(crate) fn with_state(self: &Rc<Self>, run: impl FnOnce(&Rc<Self>, &mut State)) {
        let state = &mut *self.state.borrow_mut();
        if !state.closed {
            run(self, state);
        }
        self.worker.flush_later(self);
    }

    /// The command `sequence` was not carried out where it was sent, and is on its way to another node.
    pub(crate) fn redirected(&self, sequence: u64) {
        self.state.borrow_mut().order.redirected(sequence);
    }

    /// As [`Session::deliver`], for the answer of a fetch; `None`: it brought none, and the read goes upstream.
    pub(crate) fn deliver_fetched(self: &Rc<Self>, sequence: u64, reply: Option<&Bytes>, query: &Query) {
        let state = &mut *self.state.borrow_mut();
        if gather::is_part(sequence) && !state.closed {
            return gather::deliver_fetched(self, state, sequence, reply, query);
        }
        if state.closed || !state.replies.is_open(sequence) {
            return; // answered with an error when its time was up
        }
        let Some(reply) = reply else {
            return cached::read_upstream(self, state, sequence, query);
        };
        self.worker.metrics().served_fetch(self.worker.now(), state.fetch_began(sequence));
        cached::deliver(state, sequence, query, reply);
    }

    /// True the first time in a turn: the caller flushes each session once.
    #[inline]
    pub(crate) fn first_touch(&self) -> bool {
        !self.touched.replace(true)
    }

    /// Sends what was delivered by `now`, unless more is to be expected in a moment, and lets the session's task run if it
    /// has something to do.
    pub(crate) fn flush_delivered(self: &Rc<Self>, now: Time) {
        self.touched.set(false);
        let state = &mut *self.state.borrow_mut();
        if state.closed {
            return;
        }
        if Self::expects_more(state) {
            self.worker.flush_in_a_moment(self);
        } else {
            self.flush(state, now);
        }
    }

    /// In a cluster the replies to one pipeline come from several nodes. They leave together: a write for each node's share
    /// would cost more than all else that is done for them.
    #[inline]
    fn expects_more(state: &mut State) -> bool {
        state.topology.is_cluster()
            && !state.replies.take_turn_done()
            && state.replies.open() > 0
            && state.output.len() < OUTPUT_ENOUGH
            && !state.waiting
            && state.ending.is_none()
    }

    /// As [`Session::flush_delivered`], whatever is still to come.
    pub(crate) fn flush_at_last(&self, now: Time) {
        self.deferred.set(false);
        let state = &mut *self.state.borrow_mut();
        if !state.closed && !state.output.is_empty() {
            self.flush(state, now);
        }
    }

    /// True the first time: it waits until more has come.
    pub(crate) fn defer(&self) -> bool {
        !self.deferred.replace(true)
    }

    fn flush(&self, state: &mut State, now: Time) {
        state.count_turn(&self.worker, now);
        let paused = state.output.len() >= OUTPUT_PAUSE;
        match state.output.flush(&self.socket()) {
            Ok(flushed) => state.blocked = flushed == Flushed::Blocked,
            Err(_) => state.ending = Some(Ending::Now),
        }
        self.check_output(state);
        if state.blocked || paused || state.waiting || state.moving || state.ending.is_some() {
            state.waiting = false;
            self.wake();
        }
    }

    /// As [`Session::tear`], unless it is the reply to a part of a command: nothing of that has gone to the client, which is
    /// told `why`.
    pub(crate) fn tear_off(self: &Rc<Self>, sequence: u64, why: &[u8]) {
        if !gather::is_part(sequence) {
            return self.tear();
        }
        let state = &mut *self.state.borrow_mut();
        if !state.closed {
            gather::fail(self, state, sequence, why);
        }
    }

    /// The reply cannot be finished. What the client has of it cannot be taken back, so its connection ends.
    pub(crate) fn tear(&self) {
        let mut state = self.state.borrow_mut();
        if state.closed {
            return;
        }
        state.cut_off(CutOff::TornReply, &self.worker);
        drop(state);
        self.wake();
    }

    /// Ends the session from outside.
    pub(crate) fn end(&self, reason: CutOff) {
        self.state.borrow_mut().cut_off(reason, &self.worker);
        self.wake();
    }

    /// A second has passed: idle clients and slow readers.
    pub(crate) fn check(self: &Rc<Self>, now: Time) {
        let state = &mut *self.state.borrow_mut();
        if state.topology.version() != self.worker.topology().version() {
            // Else one that sends nothing would keep an old one in memory.
            commands::place::take_up_topology(self, state);
        }
        if let Some(lane) = state.own.lane() {
            lane.check(now);
        }
        self.check_feeds(state, now);
        if !state.is_idle() {
            state.busy = now;
        }
        let idle_since = state.now.max(state.busy);
        let config = self.worker.config();
        let reason = if state.output_over_soft_limit(now, &config.output_limits) {
            CutOff::Output
        } else if config.idle_timeout.is_some_and(|limit| state.is_idle() && now >= idle_since + limit) {
            CutOff::Idle
        } else if state.ending.is_none() && self.client.is_killed() {
            CutOff::Killed // the message that says so found the mailbox full
        } else {
            state.output.shrink();
            state.replies.shrink();
            return;
        };
        state.cut_off(reason, &self.worker);
        self.wake();
    }

    /// Lets `run` see the state, if the session has not ended and still owes the reply.
    pub(crate) fn while_owed(&self, sequence: u64, run: impl FnOnce(&mut State)) {
        let state = &mut *self.state.borrow_mut();
        if !state.closed && state.replies.is_open(sequence) {
            run(state);
        }
    }

    /// The reply is not put together any more.
    fn abandon_parts(&self, sequence: u64) {
        let state = &mut *self.state.borrow_mut();
        let held = state.gathers.abandon(sequence);
        state.replies.release_held(held);
    }

    /// The reply is this, whatever its parts would have told.
    pub(crate) fn answer_without_parts(self: &Rc<Self>, sequence: u64, reply: &[u8]) {
        self.abandon_parts(sequence);
        self.deliver(sequence, reply, true);
        self.flush_delivered(self.worker.now());
    }

    /// Fetches have a time limit of their own, however the lane that makes them fares.
    pub(crate) fn expire_fetches(self: &Rc<Self>, asked_before: Time) {
        loop {
            let Some(sequence) = self.state.borrow().order.fetch_before(asked_before) else { return };
            self.answer_without_parts(sequence, b"-UPSTREAM no reply in time; the read may be repeated\r\n");
        }
    }

    /// The upstream has told what it knows of a command that was not in the table.
    pub(crate) fn learned(&self, learned: Learned) {
        if let Some(question) = &mut self.state.borrow_mut().question {
            question.answer = Some(learned);
        }
        self.resume();
    }

    /// The upstream has judged the login that this session waits for.
    pub(crate) fn logged_in(&self, verdict: Verdict) {
        if let Some(logging_in) = &mut self.state.borrow_mut().logging_in {
            *logging_in = LoggingIn::Answered(verdict);
        }
        self.resume();
    }

    /// It waits for room on a lane. False: it was waiting already.
    pub(crate) fn park(&self) -> bool {
        !self.parked.replace(true)
    }

    /// What a command waited for has come about: it is tried again.
    pub(crate) fn resume(&self) {
        self.parked.set(false);
        let mut state = self.state.borrow_mut();
        state.waiting = false;
        state.is_held_back = false;
        drop(state);
        self.wake();
    }
}
