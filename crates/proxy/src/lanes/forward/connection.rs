//! A forward lane's connection: made when somebody asks for it, served, and lost.

use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use nearside_resp::ReplyScanner;

use super::redirected::Redirected;
use super::sent::SentFrames;
use super::{ForwardLane, LaneKey};
use crate::lanes::connect::{self, ConnectError, Opened, Setup};
use crate::lanes::link::{self, Backoff, Link, LinkError};
use crate::net::clock;
use crate::net::socket::Socket;

/// Between two logins that are refused: each leaves a line in the upstream's ACL LOG.
const LOGIN_PAUSE: Duration = Duration::from_secs(1);

impl ForwardLane {
    pub(super) async fn run(self: Rc<Self>) {
        let mut backoff = Backoff::default();
        loop {
            poll_fn(|cx| self.poll_wanted(cx)).await;
            if self.is_unwanted(&self.state.borrow(), clock::now()) {
                return self.retire();
            }
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
                Err(ConnectError::NotLetIn(line)) => self.not_let_in(&line).await,
                Err(error) => {
                    self.refused(&error);
                    if !self.is_worth_retrying() {
                        return self.worker.forget_lane(&self);
                    }
                    tokio::time::sleep(backoff.next(clock::now())).await;
                }
            }
        }
    }

    /// A lane that has never led anywhere ends, unless new sessions begin on it: clients may ask for any number of dbs while
    /// the upstream is away.
    fn is_worth_retrying(&self) -> bool {
        let state = self.state.borrow();
        let may_come_up = state.was_up || self.key.db == self.worker.first_db();
        may_come_up && !self.is_unwanted(&state, clock::now())
    }

    /// Ends the lane: a session that still holds it asks for another one.
    fn retire(&self) {
        self.worker.forget_lane(self);
        let reason = format!("{} is no longer a primary", self.node.address());
        self.fail_all(Link::Down { reason }, b"", b"");
    }

    async fn connect(&self) -> Result<Opened, ConnectError> {
        let LaneKey { db, protocol, .. } = self.key;
        let setup = Setup { user: &self.user, protocol, db, tracking: false, asks_id: false, name: "nearside-forward" };
        connect::open(self.worker.shared(), &self.node, setup).await
    }

    /// Ready once somebody has queued a command, or while the upstream is down and to be tried again, or to end.
    fn poll_wanted(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state.borrow_mut();
        if state.link == Link::Idle && state.condemned.take().is_none() && !state.is_over {
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
        if let Err(error) = link::poll_reads(cx, |cx| self.poll_replies(cx, socket, scanner)) {
            return Poll::Ready(error);
        }
        if let Poll::Ready(Err(error)) = self.poll_write(cx, socket) {
            return Poll::Ready(error.into());
        }
        if self.has_left() {
            return Poll::Ready(LinkError::Closed);
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

    /// Another server has the address, and the one that it leads to owes nothing any more.
    fn has_left(&self) -> bool {
        let state = self.state.borrow();
        state.is_left && state.awaiting.is_empty()
    }

    /// Lets the sessions go on that wait for room, once there is plenty.
    fn resume_parked(&self) {
        let mut state = self.state.borrow_mut();
        if state.parked.is_empty() || state.is_left || !state.has_room(2) {
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
        if state.puts_off() {
            // Ready again once the runtime has looked for what has arrived meanwhile.
            let _ = std::pin::pin!(tokio::task::yield_now()).poll(cx);
            return Poll::Pending;
        }
        state.put_off = (0, 0);
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
        let count = ready!(link::poll_read(cx, socket, &mut buffer))?;
        let mut redirected = Vec::new();
        let result = self.distribute(&buffer[..count], scanner, &mut self.worker.touched(), &mut redirected);
        drop(buffer);
        redirected.into_iter().for_each(|command: Redirected| command.send_on(self));
        self.worker.flush_soon();
        Poll::Ready(result)
    }

    /// No connection could be made: nothing that waited for it was sent.
    fn refused(&self, error: &ConnectError) {
        self.count_error();
        let reason = format!("{} is down: {error}", self.node.address());
        let first = !matches!(self.state.borrow().link, Link::Down { .. });
        if first {
            tracing::warn!("upstream {reason}");
        }
        let line = format!("-UPSTREAM {reason}; the command was not sent\r\n");
        self.fail_all(Link::Down { reason }, line.as_bytes(), line.as_bytes());
    }

    /// The upstream does not have this db: it says so in its own words, and the lane ends.
    fn no_such_db(&self, line: &[u8]) {
        self.worker.forget_lane(self);
        let reason = format!("db {}: {}", self.key.db, String::from_utf8_lossy(line));
        let line = [b"-", line, b"\r\n"].concat();
        self.fail_all(Link::Down { reason }, &line, &line);
    }

    /// The upstream does not let the lane's user in, or not any more: whoever sends something hears it in the upstream's own
    /// words. Another attempt is made after a pause, for those who come then.
    async fn not_let_in(&self, line: &[u8]) {
        let line = [b"-", line, b"\r\n"].concat();
        let answer = async {
            while !self.state.borrow().is_over {
                self.fail_all(Link::Idle, &line, &line);
                poll_fn(|cx| self.poll_wanted(cx)).await;
            }
        };
        // That it ends by itself means that nobody is left to ask.
        let _ = tokio::time::timeout(LOGIN_PAUSE, answer).await;
    }

    /// The connection ended. What was written may have been carried out; it is not sent again.
    fn lost(&self, error: &LinkError) {
        let upstream = self.node.address();
        let busy = !self.state.borrow().awaiting.is_empty();
        if busy || !matches!(error, LinkError::Closed) {
            self.count_error();
            tracing::warn!("lost a connection to upstream {upstream}: {error}");
        }
        let text = format!("-UPSTREAM lost the connection to {upstream}: {error}; ");
        let sent = format!("{text}the command may have been executed\r\n");
        let unsent = format!("{text}the command was not sent\r\n");
        self.fail_all(Link::Idle, sent.as_bytes(), unsent.as_bytes());
    }

    fn count_error(&self) {
        self.node.counters(self.worker.index()).errors.add(1);
        self.worker.shared().doubt(&self.node);
    }

    /// Answers all that wait, and leaves the lane in the state `link`.
    fn fail_all(&self, link: Link, sent: &[u8], unsent: &[u8]) {
        let mut state = self.state.borrow_mut();
        state.link = link;
        state.is_left = false;
        let taken = state.queued - state.output.len() as u64;
        state.output.clear();
        state.blocked = false;
        let torn = std::mem::take(&mut state.begun);
        let awaiting = std::mem::take(&mut state.awaiting);
        let parked = std::mem::take(&mut state.parked);
        let mut written = std::mem::take(&mut state.written);
        state.sent = state.sent.is_some().then(SentFrames::default);
        state.error.clear();
        drop(state);
        let now = self.worker.now();
        for (index, waiting) in awaiting.iter().enumerate() {
            let Some(errand) = &waiting.errand else { continue };
            if torn && index == 0 {
                errand.session.tear_off(errand.sequence, sent);
            } else {
                // The outcome is unknown: the keys leave the cache as if they had been written.
                waiting.effect.apply(&mut written, self.worker.cache(), now);
                let line = if waiting.offset < taken { sent } else { unsent };
                errand.session.deliver(errand.sequence, line, true);
            }
        }
        for errand in awaiting.iter().filter_map(|waiting| waiting.errand.as_ref()) {
            errand.session.flush_delivered(now);
        }
        parked.iter().for_each(|session| session.resume());
    }
}
