//! Sockets against real ones, over TCP and over a Unix socket.
#![allow(clippy::unwrap_used)]

use std::future::poll_fn;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::os::unix::net::UnixListener;

use tempfile::TempDir;
use tokio::time::timeout;

use super::*;

/// Longer than anything here takes; what waits for longer waits forever.
const PATIENCE: Duration = Duration::from_secs(5);

/// Runs the test once with each kind of stream: our end, prepared, and the peer's, in blocking mode.
fn with_each_kind(test: impl AsyncFn(Socket, Stream)) {
    for (ours, peer) in [tcp_pair("127.0.0.1:0"), unix_pair()] {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            ours.prepare(None).unwrap();
            let socket = Socket::new(ours).unwrap();
            poll_fn(|cx| poll_ready(&socket, Interest::WRITABLE, cx)).await;
            timeout(PATIENCE, test(socket, peer)).await.expect("it does not hang");
        });
    }
}

/// Whether the event loop takes the socket for ready: it knows nothing of a new one before it has looked.
fn poll_ready(socket: &Socket, interest: Interest, cx: &mut Context<'_>) -> Poll<()> {
    let ready = match (socket, interest) {
        (Socket::Tcp(stream), Interest::READABLE) => stream.poll_read_ready(cx),
        (Socket::Tcp(stream), _) => stream.poll_write_ready(cx),
        (Socket::Unix(stream), Interest::READABLE) => stream.poll_read_ready(cx),
        (Socket::Unix(stream), _) => stream.poll_write_ready(cx),
    };
    ready.map(|result| result.unwrap())
}

fn tcp_pair(address: &str) -> (Stream, Stream) {
    let listener = TcpListener::bind(address).unwrap();
    let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (Stream::Tcp(listener.accept().unwrap().0), Stream::Tcp(peer))
}

fn unix_pair() -> (Stream, Stream) {
    let (ours, peer) = UnixStream::pair().unwrap();
    (Stream::Unix(ours), Stream::Unix(peer))
}

fn send(peer: &Stream, bytes: &[u8]) {
    match peer {
        Stream::Tcp(stream) => (&*stream).write_all(bytes).unwrap(),
        Stream::Unix(stream) => (&*stream).write_all(bytes).unwrap(),
    }
}

fn receive(peer: &Stream, buffer: &mut [u8]) {
    match peer {
        Stream::Tcp(stream) => (&*stream).read_exact(buffer).unwrap(),
        Stream::Unix(stream) => (&*stream).read_exact(buffer).unwrap(),
    }
}

/// Ends the peer's sending.
fn end(peer: &Stream) {
    match peer {
        Stream::Tcp(stream) => stream.shutdown(Shutdown::Write).unwrap(),
        Stream::Unix(stream) => stream.shutdown(Shutdown::Write).unwrap(),
    }
}

/// What one read of up to `capacity` bytes gives.
async fn read(socket: &Socket, capacity: usize) -> Vec<u8> {
    let mut buffer = vec![0; capacity];
    let count = poll_fn(|cx| socket.poll_read(cx, &mut buffer)).await.unwrap();
    buffer.truncate(count);
    buffer
}

/// Whether a read would have to wait.
async fn must_wait(socket: &Socket) -> bool {
    poll_fn(|cx| Poll::Ready(socket.poll_read(cx, &mut [0; 8]).is_pending())).await
}

#[test]
fn bytes_are_read_as_they_come_and_a_read_without_any_waits() {
    with_each_kind(async |socket, peer| {
        assert!(must_wait(&socket).await);
        send(&peer, b"one");
        assert_eq!(read(&socket, 8).await, b"one");
        assert!(must_wait(&socket).await);
        send(&peer, b"two");
        assert_eq!(read(&socket, 8).await, b"two");
    });
}

#[test]
fn a_read_that_filled_its_buffer_is_followed_by_the_rest_without_a_new_edge() {
    with_each_kind(async |socket, peer| {
        send(&peer, b"onetwo!");
        assert_eq!(read(&socket, 3).await, b"one");
        assert_eq!(read(&socket, 3).await, b"two");
        assert_eq!(read(&socket, 3).await, b"!");
    });
}

#[test]
fn a_read_that_did_not_fill_its_buffer_leaves_nothing_to_ask_the_system_for() {
    with_each_kind(async |socket, peer| {
        send(&peer, b"one");
        assert_eq!(read(&socket, 4).await, b"one");
        let is_ready = poll_fn(|cx| Poll::Ready(poll_ready(&socket, Interest::READABLE, cx).is_ready())).await;
        assert!(!is_ready);
    });
}

#[test]
fn a_read_after_one_that_took_exactly_all_waits() {
    with_each_kind(async |socket, peer| {
        send(&peer, b"one");
        assert_eq!(read(&socket, 3).await, b"one");
        assert!(must_wait(&socket).await);
        send(&peer, b"two");
        assert_eq!(read(&socket, 3).await, b"two");
    });
}

#[test]
fn the_end_of_the_stream_is_seen_after_the_last_bytes_although_they_came_together() {
    with_each_kind(async |socket, peer| {
        send(&peer, b"last");
        end(&peer);
        assert_eq!(read(&socket, 8).await, b"last");
        assert_eq!(read(&socket, 8).await, b"");
        assert_eq!(read(&socket, 8).await, b"", "and stays the end");
    });
}

#[test]
fn the_end_of_the_stream_wakes_a_read_that_waits() {
    with_each_kind(async |socket, peer| {
        assert!(must_wait(&socket).await);
        drop(peer);
        assert_eq!(read(&socket, 8).await, b"");
    });
}

#[test]
fn a_read_into_spare_capacity_appends_and_does_not_grow_the_buffer() {
    with_each_kind(async |socket, peer| {
        let mut buffer = Vec::with_capacity(8);
        buffer.extend_from_slice(b"kept ");
        let capacity = buffer.capacity();
        send(&peer, b"and more than fits");
        let count = poll_fn(|cx| socket.poll_read_spare(cx, &mut buffer)).await.unwrap();
        assert_eq!(count, capacity - 5);
        assert_eq!(buffer, &b"kept and more than fits"[..capacity]);
        assert_eq!(buffer.capacity(), capacity);
    });
}

#[test]
fn a_write_that_does_not_fit_would_block_and_goes_on_when_the_peer_reads() {
    with_each_kind(async |socket, peer| {
        let mut written = 0;
        let mut flood = |cx: &mut Context<'_>| {
            socket.poll_write_with(cx, |socket| -> io::Result<()> {
                loop {
                    written += socket.try_write(&[7; 64 * 1024])?;
                }
            })
        };
        assert!(poll_fn(|cx| Poll::Ready(flood(cx).is_pending())).await);
        assert_eq!(socket.try_write(b"!").unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let reader = std::thread::spawn(move || {
            receive(&peer, &mut vec![0; written]);
            let mut more = [0; 1];
            receive(&peer, &mut more);
            more
        });
        let more = poll_fn(|cx| socket.poll_write_with(cx, |socket| socket.try_write(b"!")));
        assert_eq!(more.await.unwrap(), 1);
        assert_eq!(&reader.join().unwrap(), b"!");
    });
}

#[test]
fn pieces_are_written_in_one_call_in_their_order() {
    with_each_kind(async |socket, peer| {
        let pieces = [IoSlice::new(b"+O"), IoSlice::new(b""), IoSlice::new(b"K\r\n")];
        assert_eq!(socket.try_write_vectored(&pieces).unwrap(), 5);
        let mut received = [0; 5];
        receive(&peer, &mut received);
        assert_eq!(&received, b"+OK\r\n");
    });
}

#[test]
fn an_aborted_tcp_stream_is_reset_when_it_is_dropped() {
    with_each_kind(async |socket, peer| {
        socket.abort();
        drop(socket);
        match &peer {
            Stream::Tcp(stream) => {
                let error = (&*stream).read(&mut [0; 8]).unwrap_err();
                assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
            }
            Stream::Unix(stream) => assert_eq!((&*stream).read(&mut [0; 8]).unwrap(), 0),
        }
    });
}

#[test]
fn a_tcp_stream_is_undelayed_and_kept_alive_as_asked() {
    let (stream, _peer) = tcp_pair("127.0.0.1:0");
    stream.prepare(Some(Duration::from_secs(300))).unwrap();
    let Stream::Tcp(tcp) = &stream else { unreachable!("a TCP pair") };
    let socket = SockRef::from(tcp);
    assert!(socket.tcp_nodelay().unwrap() && socket.nonblocking().unwrap() && socket.keepalive().unwrap());
    assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(300));
    assert_eq!(socket.tcp_keepalive_interval().unwrap(), Duration::from_secs(100));
    assert_eq!(socket.tcp_keepalive_retries().unwrap(), 3);

    let (stream, _peer) = tcp_pair("127.0.0.1:0");
    stream.prepare(None).unwrap();
    let Stream::Tcp(tcp) = &stream else { unreachable!("a TCP pair") };
    assert!(!SockRef::from(tcp).keepalive().unwrap());
}

#[test]
fn addresses_print_as_in_client_list_and_loopback_is_local() {
    let (ours, Stream::Tcp(peer)) = tcp_pair("127.0.0.1:0") else { unreachable!("a TCP pair") };
    let text = |address: io::Result<std::net::SocketAddr>| address.unwrap().to_string();
    assert_eq!(ours.addresses(), (text(peer.local_addr()), text(peer.peer_addr())));
    assert!(ours.addresses().0.starts_with("127.0.0.1:") && ours.is_local());

    // Containers often have no IPv6.
    if TcpListener::bind("[::1]:0").is_ok() {
        let (ours, _peer) = tcp_pair("[::1]:0");
        let (peer_address, _) = ours.addresses();
        assert!(peer_address.starts_with("[::1]:") && ours.is_local(), "{peer_address}");
    }
}

#[test]
fn a_unix_socket_prints_as_its_path_with_port_0_and_is_local() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let _peer = UnixStream::connect(&path).unwrap();
    let stream = Stream::Unix(listener.accept().unwrap().0);
    let text = format!("{}:0", path.display());
    assert_eq!(stream.addresses(), (text.clone(), text));
    assert!(stream.is_local());
}
