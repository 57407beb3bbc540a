//! Why a run ended before its time. Its figures would mean nothing.

use std::io;
use std::time::Duration;

/// Silence of every connection at once for this long ends a run.
pub(crate) const STALL: Duration = Duration::from_secs(10);

/// Why there is no outcome.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A system call failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The server hung up.
    #[error("connection {connection} was closed by the server, {owed} bytes of replies short")]
    Closed {
        /// Which connection, from 0.
        connection: usize,
        /// Reply bytes still to come.
        owed: usize,
    },
    /// No connection got a byte for [`STALL`].
    #[error("no reply on any connection for {}s", STALL.as_secs())]
    Stalled,
    /// In an open loop, the server fell so far behind that waiting for it is in vain.
    #[error("the server does not keep up: {left} commands were unanswered {after:?} after the last was due")]
    Overloaded {
        /// Commands not answered.
        left: usize,
        /// How long they were waited for.
        after: Duration,
    },
    /// A reply was not the one that belongs to the request.
    #[error("connection {connection} expected {expected:?} and received {received:?}")]
    WrongReply {
        /// Which connection, from 0.
        connection: usize,
        /// What should have come, from the first byte that differs.
        expected: String,
        /// What came there instead.
        received: String,
    },
}
