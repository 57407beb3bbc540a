//! The signals that end the process: SIGTERM of a supervisor, SIGINT of a terminal.

use std::{fmt, io};

use tokio::signal::unix::{self, SignalKind};

/// Listens from its making on; until then either signal kills the process, as is the system's way.
#[derive(Debug)]
pub(super) struct Signals {
    terminate: unix::Signal,
    interrupt: unix::Signal,
}

/// One that has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    Terminate,
    Interrupt,
}

impl Signals {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Signals {
            terminate: unix::signal(SignalKind::terminate())?,
            interrupt: unix::signal(SignalKind::interrupt())?,
        })
    }

    /// The next one. None is lost while nobody waits here, though several may count as one.
    pub(super) async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::Terminate,
            _ = self.interrupt.recv() => Signal::Interrupt,
        }
    }
}

impl Signal {
    /// What a shell would report of a process that the signal killed.
    pub(super) fn exit_code(self) -> i32 {
        let number = match self {
            Signal::Terminate => SignalKind::terminate(),
            Signal::Interrupt => SignalKind::interrupt(),
        };
        128 + number.as_raw_value()
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Signal::Terminate => "SIGTERM",
            Signal::Interrupt => "SIGINT",
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use rustix::process::{Signal as Number, getpid, kill_process};

    use super::*;

    /// One test, as signals are the whole process's.
    #[tokio::test]
    async fn each_signal_is_told_with_the_exit_code_that_shells_expect() {
        let mut signals = Signals::new().unwrap();
        for (number, name, exit_code) in [(Number::TERM, "SIGTERM", 143), (Number::INT, "SIGINT", 130)] {
            kill_process(getpid(), number).unwrap();
            let signal = signals.next().await;
            assert_eq!((signal.to_string().as_str(), signal.exit_code()), (name, exit_code));
        }
    }
}
