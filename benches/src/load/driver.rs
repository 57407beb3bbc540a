//! The load driver: many connections on one thread, in a closed loop or in an open one.
//!
//! In a closed loop each connection sends a pipeline, waits until all of it is answered, and sends the next. It asks less
//! of a slow server, so its latencies leave out what a stall did to the requests that were never sent: they describe a
//! run, not what users would see. In an open loop commands are due at times decided in advance, and each counts from when
//! it was due, so a stall is counted against every command it delayed.
//!
//! Every connection lives on the calling thread, so that the driver's cost is one thread's CPU time and can be told from
//! any run.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

use crate::cpu;
use crate::load::connection::Connection;
use crate::load::error::{LoadError, STALL};
use crate::load::outcome::{Outcome, nanoseconds, times};
use crate::load::schedule::{Schedule, Timer};
use crate::load::tape::Tape;
use crate::load::workload::Protocol;

/// Read at most at once: the replies to a deep pipeline of small values, with room.
const READ_BYTES: usize = 256 << 10;

/// How often whoever watches a run is told.
const WATCH_INTERVAL: Duration = Duration::from_millis(200);

/// A command due this soon is waited for awake: going to sleep and waking up takes as long.
const SOON: Duration = Duration::from_micros(20);

/// How long an open loop waits for what is unanswered after the last command was due.
const DRAIN: Duration = Duration::from_secs(5);

/// Of the timer; connections have the numbers from 0.
const TIMER: Token = Token(usize::MAX);

/// Is told now and then how long the run has taken and how many commands were answered; may end it.
pub type Watch<'w> = dyn FnMut(Duration, u64) -> ControlFlow<()> + 'w;

/// A run that nobody watches.
pub fn unwatched(_: Duration, _: u64) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// Connections to one server, kept from run to run.
#[derive(Debug)]
pub struct Load {
    poll: Poll,
    events: Events,
    timer: Timer,
    address: SocketAddr,
    connections: Vec<Connection>,
    tape: Arc<Tape>,
    buffer: Box<[u8]>,
    /// Batches after which a connection is closed and another one opened.
    lifetime: Option<u32>,
}

impl Load {
    /// Opens so many connections to `address`, to ask what is on `tape`.
    pub fn connect(
        address: SocketAddr,
        connections: usize,
        protocol: Protocol,
        tape: &Arc<Tape>,
    ) -> Result<Self, LoadError> {
        let poll = Poll::new()?;
        let timer = Timer::new().map_err(io::Error::from)?;
        poll.registry().register(&mut SourceFd(&timer.descriptor().as_raw_fd()), TIMER, Interest::READABLE)?;
        let opened = (0..connections)
            .map(|index| {
                let mut connection = Connection::open(address, protocol, index, first_batch(index, connections, tape))?;
                connection.register(poll.registry())?;
                Ok(connection)
            })
            .collect::<io::Result<_>>()?;
        Ok(Self {
            poll,
            events: Events::with_capacity(1024),
            timer,
            address,
            connections: opened,
            tape: tape.clone(),
            buffer: vec![0; READ_BYTES].into_boxed_slice(),
            lifetime: None,
        })
    }

    /// Every connection begins so many batches further on.
    #[must_use]
    pub fn further_on(mut self, batches: usize) -> Self {
        for connection in &mut self.connections {
            connection.skip(batches, &self.tape);
        }
        self
    }

    /// In a closed loop, each connection is closed after so many pipelines, and another one opened: the first pipeline
    /// of each counts from when it began to connect. RESP2 only, as there is no greeting.
    #[must_use]
    pub fn with_lifetime(self, pipelines: u32) -> Self {
        Self { lifetime: Some(pipelines), ..self }
    }

    /// A closed loop: asks for as long as `duration`, then waits for what is still owed. All that was sent is answered at
    /// return.
    pub fn closed(&mut self, duration: Duration, watch: &mut Watch<'_>) -> Result<Outcome, LoadError> {
        let mut run = Run::begin();
        let mut asking = self.connections.len();
        let mut goes_on = true;
        for connection in &mut self.connections {
            connection.ask(&self.tape, Instant::now())?;
        }
        while asking > 0 {
            if !self.wait(STALL)? {
                return Err(LoadError::Stalled);
            }
            goes_on = goes_on && run.goes_on(watch, self.tape.batch_len());
            for event in self.events.iter().filter(|event| event.token() != TIMER) {
                let connection = &mut self.connections[event.token().0];
                let in_flight = connection.in_flight();
                connection.progress(event, &self.tape, &mut self.buffer, |since| run.answered(since))?;
                if connection.in_flight() == in_flight {
                    continue;
                }
                let now = Instant::now();
                if !goes_on || now - run.began >= duration {
                    asking -= 1;
                    continue;
                }
                if self.lifetime.is_some_and(|lifetime| connection.age() >= lifetime) {
                    connection.replace(self.address, self.poll.registry())?;
                }
                connection.ask(&self.tape, now)?;
            }
        }
        Ok(run.end(&self.tape, None))
    }

    /// An open loop: commands are asked when they are due by `schedule`, for as long as `duration`, each on the next of the
    /// connections in turn, where it waits while `depth` others are on their way. All is answered at return.
    ///
    /// # Panics
    /// If the tape has pipelines and not commands.
    pub fn open(
        &mut self,
        schedule: &Schedule,
        depth: usize,
        duration: Duration,
        watch: &mut Watch<'_>,
    ) -> Result<Outcome, LoadError> {
        assert_eq!(self.tape.batch_len(), 1, "each arrival is one command");
        let mut run = Run::begin();
        let mut arrivals = schedule.arrivals().take_while(|at| *at < duration).zip((0..self.connections.len()).cycle());
        let mut due = arrivals.next();
        let mut late = times();
        // Bounded by the schedule.
        let mut backlogs = vec![VecDeque::new(); self.connections.len()];
        let (mut unanswered, mut progressed) = (0, run.began);
        while due.is_some() || unanswered > 0 {
            let now = run.began.elapsed();
            while let Some((at, index)) = due.filter(|(at, _)| *at <= now) {
                late.saturating_record(nanoseconds(now - at));
                let connection = &mut self.connections[index];
                if backlogs[index].is_empty() && connection.takes_more(depth) {
                    connection.ask(&self.tape, run.began + at)?;
                } else {
                    backlogs[index].push_back(run.began + at);
                }
                unanswered += 1;
                due = arrivals.next();
            }
            self.wait_until(due.map(|(at, _)| run.began + at))?;
            if !run.goes_on(watch, 1) {
                due = None;
                unanswered -= backlogs.iter_mut().map(|backlog| backlog.drain(..).len()).sum::<usize>();
            }
            for event in self.events.iter().filter(|event| event.token() != TIMER) {
                let index = event.token().0;
                let (connection, backlog) = (&mut self.connections[index], &mut backlogs[index]);
                let in_flight = connection.in_flight();
                connection.progress(event, &self.tape, &mut self.buffer, |since| run.answered(since))?;
                if connection.in_flight() == in_flight {
                    continue;
                }
                unanswered -= in_flight - connection.in_flight();
                progressed = Instant::now();
                while connection.takes_more(depth)
                    && let Some(since) = backlog.pop_front()
                {
                    connection.ask(&self.tape, since)?;
                }
            }
            if unanswered > 0 && progressed.max(run.began).elapsed() > STALL {
                return Err(LoadError::Stalled);
            }
            if unanswered > 0 && run.began.elapsed() > duration + DRAIN {
                return Err(LoadError::Overloaded { left: unanswered, after: DRAIN });
            }
        }
        Ok(run.end(&self.tape, Some(late)))
    }

    /// Waits for events, until the next command is due.
    fn wait_until(&mut self, due: Option<Instant>) -> Result<(), LoadError> {
        let timeout = match due.map(|due| due.saturating_duration_since(Instant::now())) {
            Some(left) if left < SOON => {
                // What stands behind a contestant shares this core.
                thread::yield_now();
                Duration::ZERO
            }
            Some(left) => {
                self.timer.set(left).map_err(io::Error::from)?;
                WATCH_INTERVAL
            }
            None => WATCH_INTERVAL,
        };
        self.wait(timeout)?;
        Ok(())
    }

    /// Waits for events; false if there were none. A signal also ends the wait, and counts as an event.
    fn wait(&mut self, timeout: Duration) -> Result<bool, LoadError> {
        match self.poll.poll(&mut self.events, Some(timeout)) {
            Ok(()) => Ok(!self.events.is_empty()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                self.events.clear();
                Ok(true)
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Connections begin at places of the tape as far from each other as can be.
pub(crate) fn first_batch(index: usize, connections: usize, tape: &Tape) -> usize {
    index * tape.batches() / connections
}

/// What is counted while a run lasts.
struct Run {
    began: Instant,
    cpu_before: Duration,
    watched: Instant,
    batches: u64,
    latency: hdrhistogram::Histogram<u64>,
}

impl Run {
    fn begin() -> Self {
        let began = Instant::now();
        Self { began, cpu_before: cpu::of_this_thread(), watched: began, batches: 0, latency: times() }
    }

    fn answered(&mut self, since: Instant) {
        self.latency.saturating_record(nanoseconds(since.elapsed()));
        self.batches += 1;
    }

    /// Asks whoever watches, if it is time.
    fn goes_on(&mut self, watch: &mut Watch<'_>, batch_len: usize) -> bool {
        if self.watched.elapsed() < WATCH_INTERVAL {
            return true;
        }
        self.watched = Instant::now();
        watch(self.began.elapsed(), self.batches * batch_len as u64).is_continue()
    }

    fn end(self, tape: &Tape, late: Option<hdrhistogram::Histogram<u64>>) -> Outcome {
        Outcome {
            commands: self.batches * tape.batch_len() as u64,
            elapsed: self.began.elapsed(),
            driver_cpu: cpu::of_this_thread() - self.cpu_before,
            latency: self.latency,
            late,
        }
    }
}

#[cfg(test)]
mod tests;
