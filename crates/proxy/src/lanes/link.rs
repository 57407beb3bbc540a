//! What all lanes have in common: the state of a connection, when to try again, how bytes are moved.

use std::task::{Context, Poll, ready};
use std::time::Duration;

use nearside_nearcache::Time;
use nearside_resp::ReplyScanner;

use crate::net::socket::Socket;
use crate::output::Output;

/// Reads of one turn, so that a flood of replies does not starve the other tasks of the worker.
const READS_PER_TURN: usize = 8;

/// Pause after the first failed attempt.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// The longest pause: how long after the upstream's return traffic may still be refused.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// So long a node may show no life that owes replies and is no primary any more. The cluster goes on: those who wait for it
/// should not have to wait for as long as the upstream timeout allows.
const LEFT_BEHIND_AFTER: Duration = Duration::from_millis(500);

/// Whether a lane's upstream can be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Link {
    /// Not connected, and nobody has asked for it. The next command connects.
    Idle,
    /// A first attempt is under way; commands wait for it.
    Connecting,
    /// Commands flow.
    Up,
    /// The last attempt failed; commands fail at once with `reason` until a later one succeeds.
    Down {
        /// What the system or the server said, in one line.
        reason: String,
    },
}

/// For how long those wait who are owed replies by a lane's node.
#[derive(Debug, Default)]
pub(super) struct Patience {
    /// The topology had the node. A lane that was made because of a redirection may be ahead of the topology.
    was_primary: bool,
    /// Looks in a row at which it was no longer there.
    looks_behind: u32,
}

impl Patience {
    /// Looks whether the topology has the node, as every tick does, before its patience is asked for.
    pub(super) fn look(&mut self, is_primary: impl FnOnce() -> bool) {
        let is_primary = is_primary();
        self.looks_behind = if self.was_primary && !is_primary { self.looks_behind + 1 } else { 0 };
        self.was_primary = self.was_primary || is_primary;
    }

    /// Why the connection is given up, if it is: it owes replies, and has shown no life since `progress` for so long as the
    /// settings say (`limit`), or for a moment where another node has taken over.
    pub(super) fn end(
        &self,
        now: Time,
        progress: Time,
        limit: Duration,
        is_primary: impl FnOnce() -> bool,
    ) -> Option<LinkError> {
        if now >= progress + limit {
            return Some(LinkError::Silent(limit));
        }
        let is_left_behind = self.was_primary && now >= progress + LEFT_BEHIND_AFTER && !is_primary();
        is_left_behind.then_some(LinkError::LeftBehind)
    }

    /// Whether another node has taken over, and not just now: a node that has lost its slots tells those who wait there, if it
    /// can.
    pub(super) fn is_left_behind(&self) -> bool {
        self.looks_behind > 1
    }
}

/// Pauses that double from [`FIRST_PAUSE`] to [`LONGEST_PAUSE`], each cut by up to a half at random, so that the lanes
/// of all workers do not knock at a returning server in step.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The connection was made: begin again.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    /// The pause after one more failure. `now` seeds the jitter: its nanoseconds are as good as random here.
    pub(crate) fn next(&mut self, now: Time) -> Duration {
        let doubled = FIRST_PAUSE * 2u32.saturating_pow(self.failures.min(16));
        self.failures += 1;
        let full = doubled.min(LONGEST_PAUSE);
        let jitter = now.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
        full - full.mul_f64(0.5 * (jitter as f64 / (1u64 << 31) as f64))
    }
}

/// Why a lane's connection ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    /// The upstream closed it.
    #[error("the upstream closed the connection")]
    Closed,
    /// It leads to one that is the right one no longer.
    #[error("another server, or another primary, has taken its place")]
    Replaced,
    /// The system reported an error.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// No progress within the time allowed.
    #[error("no reply within {0:?}")]
    Silent(Duration),
    /// No progress for a moment, and the cluster has another primary by now.
    #[error("no reply, and it is no longer a primary")]
    LeftBehind,
    /// Bytes that are not RESP, or a reply that nobody waits for.
    #[error("the upstream broke the protocol: {0}")]
    Protocol(String),
    /// The near-cache's rules forbid to go on with this connection.
    #[error("{0}")]
    NotCoherent(String),
}

/// One read: never of nothing.
#[inline]
pub(super) fn poll_read(cx: &mut Context<'_>, socket: &Socket, buffer: &mut [u8]) -> Poll<Result<usize, LinkError>> {
    Poll::Ready(match ready!(socket.poll_read(cx, buffer)) {
        Ok(0) => Err(LinkError::Closed),
        Ok(count) => Ok(count),
        Err(error) => Err(error.into()),
    })
}

/// The next piece of what one read has brought, and whether a reply, or a push, ends with it; of which kind that is, the scanner
/// knows. `None`: that was all.
#[inline(always)]
pub(super) fn next_piece<'b>(
    scanner: &mut ReplyScanner,
    bytes: &mut &'b [u8],
) -> Result<Option<(&'b [u8], bool)>, LinkError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let scanned = scanner.scan(bytes).map_err(|error| LinkError::Protocol(error.to_string()))?;
    let (piece, rest) = bytes.split_at(scanned.consumed);
    *bytes = rest;
    Ok(Some((piece, scanned.complete)))
}

/// Reads as often as there is something to read, and one turn allows; the task is woken for what is left.
#[inline]
pub(super) fn poll_reads(
    cx: &mut Context<'_>,
    mut read: impl FnMut(&mut Context<'_>) -> Poll<Result<(), LinkError>>,
) -> Result<(), LinkError> {
    for _ in 0..READS_PER_TURN {
        match read(cx) {
            Poll::Ready(outcome) => outcome?,
            Poll::Pending => return Ok(()),
        }
    }
    cx.waker().wake_by_ref();
    Ok(())
}

/// Writes what there is. Pending, unless the connection has ended.
pub(super) fn poll_write(cx: &mut Context<'_>, socket: &Socket, output: &mut Output) -> Poll<LinkError> {
    if output.is_empty() {
        return Poll::Pending;
    }
    match output.poll_flush(cx, socket) {
        Poll::Ready(Err(error)) => Poll::Ready(error.into()),
        _ => Poll::Pending,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_stay_bounded() {
        let mut backoff = Backoff::default();
        let pauses: Vec<_> = (0..40u64).map(|i| backoff.next(Time(i * 7919))).collect();
        assert!(pauses[0] <= FIRST_PAUSE && pauses[0] >= FIRST_PAUSE / 2);
        assert!(pauses.iter().all(|p| *p <= LONGEST_PAUSE));
        assert!(pauses[39] >= LONGEST_PAUSE / 2);
        backoff.reset();
        assert!(backoff.next(Time(1)) <= FIRST_PAUSE);
    }
}
