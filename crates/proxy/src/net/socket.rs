//! A connected stream, TCP or Unix, readable and writable through `&self`.
//!
//! tokio's own streams clear readiness after a short read only through `&mut self`; through `&self` every batch would
//! cost a second `recv` that returns `EAGAIN`. At pipeline depth 1 the system calls are the whole price, so it is done
//! here: a read that did not fill the buffer has emptied the socket, and the next one waits for an edge.

use std::io::{self, IoSlice};
use std::net::TcpStream;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::net::{RecvFlags, SendFlags};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::Interest;

/// The two kinds of stream, both in non-blocking mode.
#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    /// Makes the stream non-blocking, and a TCP stream undelayed and kept alive (`keepalive` `None`: not).
    pub(crate) fn prepare(&self, keepalive: Option<Duration>) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => {
                stream.set_nonblocking(true)?;
                stream.set_nodelay(true)?;
                if let Some(keepalive) = keepalive {
                    // As Redis does: probe at a third of the time, give up after three.
                    let probe = TcpKeepalive::new()
                        .with_time(keepalive)
                        .with_interval((keepalive / 3).max(Duration::from_secs(1)))
                        .with_retries(3);
                    SockRef::from(stream).set_tcp_keepalive(&probe)?;
                }
                Ok(())
            }
            Stream::Unix(stream) => stream.set_nonblocking(true),
        }
    }

    /// True for peers on this machine: what Redis's protected mode lets in.
    pub(crate) fn is_local(&self) -> bool {
        match self {
            Stream::Tcp(stream) => stream.peer_addr().is_ok_and(|address| address.ip().to_canonical().is_loopback()),
            Stream::Unix(_) => true,
        }
    }

    /// The peer's and our own address as `CLIENT LIST` prints them (`path:0` for a Unix socket, both ways, as Redis).
    pub(crate) fn addresses(&self) -> (String, String) {
        match self {
            Stream::Tcp(stream) => {
                let text = |address: io::Result<std::net::SocketAddr>| {
                    address.map_or_else(|_| "?:0".to_owned(), |address| address.to_string())
                };
                (text(stream.peer_addr()), text(stream.local_addr()))
            }
            Stream::Unix(stream) => {
                let path =
                    stream.local_addr().ok().and_then(|address| address.as_pathname().map(|p| p.display().to_string()));
                let text = format!("{}:0", path.unwrap_or_default());
                (text.clone(), text)
            }
        }
    }
}

impl AsRawFd for Stream {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Stream::Tcp(stream) => stream.as_fd(),
            Stream::Unix(stream) => stream.as_fd(),
        }
    }
}

/// A stream registered with the worker's event loop.
#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(tokio::net::TcpStream),
    Unix(tokio::net::UnixStream),
}

impl Socket {
    /// Registers a non-blocking stream with the runtime of this thread.
    pub(crate) fn new(stream: Stream) -> io::Result<Self> {
        Ok(match stream {
            Stream::Tcp(stream) => Socket::Tcp(tokio::net::TcpStream::from_std(stream)?),
            Stream::Unix(stream) => Socket::Unix(tokio::net::UnixStream::from_std(stream)?),
        })
    }

    /// When it is closed, what it has not sent yet is thrown away instead of being sent in the background.
    pub(crate) fn abort(&self) {
        // An error here means that the connection is gone already.
        let _ = SockRef::from(self).set_linger(Some(Duration::ZERO));
    }

    /// Reads into `buffer`; `Ok(0)` is the end of the stream. Pending: the task is woken by the next edge.
    #[inline]
    pub(crate) fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let capacity = buffer.len();
        self.poll_read_with(cx, capacity, |fd| receive(fd, &mut *buffer))
    }

    /// Appends to `buffer` what fits its spare capacity.
    pub(crate) fn poll_read_spare(&self, cx: &mut Context<'_>, buffer: &mut Vec<u8>) -> Poll<io::Result<usize>> {
        let spare = buffer.capacity() - buffer.len();
        self.poll_read_with(cx, spare, |fd| receive(fd, rustix::buffer::spare_capacity(buffer)))
    }

    #[inline]
    fn poll_read_with(
        &self,
        cx: &mut Context<'_>,
        capacity: usize,
        mut read: impl FnMut(BorrowedFd<'_>) -> rustix::io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(match self {
                Socket::Tcp(stream) => stream.poll_read_ready(cx),
                Socket::Unix(stream) => stream.poll_read_ready(cx),
            })?;
            let mut short = None;
            let result = self.try_io(Interest::READABLE, |fd| match read(fd) {
                // The socket is empty now. To say so is the only way to have the next poll wait for an edge.
                Ok(count) if count > 0 && count < capacity => {
                    short = Some(count);
                    Err(io::ErrorKind::WouldBlock.into())
                }
                Ok(count) => Ok(count),
                Err(error) => Err(error.into()),
            });
            match (short, result) {
                (Some(count), _) | (None, Ok(count)) => return Poll::Ready(Ok(count)),
                (None, Err(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
                (None, Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                (None, Err(error)) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Runs `io` if the socket is thought to be ready for `interest`; `WouldBlock` from it corrects that thought.
    #[inline]
    fn try_io<T>(&self, interest: Interest, io: impl FnOnce(BorrowedFd<'_>) -> io::Result<T>) -> io::Result<T> {
        match self {
            Socket::Tcp(stream) => stream.try_io(interest, || io(stream.as_fd())),
            Socket::Unix(stream) => stream.try_io(interest, || io(stream.as_fd())),
        }
    }

    /// Writes what the socket takes now; `WouldBlock` if that is nothing.
    #[inline]
    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.try_io(Interest::WRITABLE, |fd| Ok(rustix::net::send(fd, bytes, SendFlags::NOSIGNAL)?))
    }

    /// As [`Socket::try_write`], for several pieces.
    pub(crate) fn try_write_vectored(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Socket::Tcp(stream) => stream.try_write_vectored(pieces),
            Socket::Unix(stream) => stream.try_write_vectored(pieces),
        }
    }

    /// Runs `write` once the socket is writable, and again after each `WouldBlock`, until it gives another answer.
    #[inline]
    pub(crate) fn poll_write_with<T>(
        &self,
        cx: &mut Context<'_>,
        mut write: impl FnMut(&Socket) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        loop {
            ready!(match self {
                Socket::Tcp(stream) => stream.poll_write_ready(cx),
                Socket::Unix(stream) => stream.poll_write_ready(cx),
            })?;
            match write(self) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return Poll::Ready(other),
            }
        }
    }
}

/// `recv`, not `read`: on a socket it is the shorter way through the kernel.
#[inline]
fn receive<B: rustix::buffer::Buffer<u8>>(fd: BorrowedFd<'_>, buffer: B) -> rustix::io::Result<usize> {
    rustix::net::recv(fd, buffer, RecvFlags::empty()).map(|(_, count)| count)
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Socket::Tcp(stream) => stream.as_fd(),
            Socket::Unix(stream) => stream.as_fd(),
        }
    }
}

#[cfg(test)]
mod tests;
