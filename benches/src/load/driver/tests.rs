//! The driver before servers that are right, wrong, slow, and gone.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;

use super::*;
use crate::load::keys::Spread;
use crate::load::workload::{Ask, Mix, Workload};

fn misses(depth: usize) -> Arc<Tape> {
    Arc::new(tape(depth))
}

fn tape(depth: usize) -> Tape {
    let mix = Mix::only(Ask::Absent);
    let protocol = Protocol::Resp2;
    let workload = Workload { mix, keys: 10, spread: Spread::Uniform, value_len: 0, depth, protocol };
    Tape::of_pipelines(&workload)
}

fn connect(address: SocketAddr, tape: &Arc<Tape>) -> Load {
    Load::connect(address, 1, Protocol::Resp2, tape).expect("it listens")
}

/// A server of one connection after the other that answers each command (of one line that begins with `*`) with `reply`,
/// and each connection so many times.
fn server(reply: &'static [u8], commands: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            stream.set_nodelay(true).expect("it is a TCP socket");
            let mut buffer = [0; 4096];
            let mut answered = 0;
            while answered < commands {
                let Ok(received @ 1..) = stream.read(&mut buffer) else { break };
                let asked = buffer[..received].iter().filter(|byte| **byte == b'*').count();
                answered += asked;
                // In two writes, so that replies arrive in pieces.
                let replies = reply.repeat(asked);
                let (first, second) = replies.split_at(replies.len() / 2);
                if stream.write_all(first).and_then(|()| stream.write_all(second)).is_err() {
                    break;
                }
            }
        }
    });
    address
}

#[test]
fn every_command_is_counted_once_and_answered_before_return() {
    let mut load = connect(server(b"$-1\r\n", usize::MAX), &misses(3));
    let outcome = load.closed(Duration::from_millis(20), &mut unwatched).expect("all is answered");
    assert!(outcome.commands > 0);
    assert_eq!(outcome.commands, outcome.latency.len() * 3);
    assert!(load.connections.iter().all(|each| each.in_flight() == 0));
    assert!(outcome.elapsed >= Duration::from_millis(20));
    // One connection has one pipeline on its way at a time: its latencies fill the run.
    let waited = outcome.latency.mean() * outcome.latency.len() as f64 / 1e9;
    let elapsed = outcome.elapsed.as_secs_f64();
    assert!((elapsed * 0.5..elapsed * 1.01).contains(&waited), "{waited} s of {elapsed} s");
    load.closed(Duration::from_millis(5), &mut unwatched).expect("a second run takes up the same connection");
}

#[test]
fn an_open_loop_asks_all_that_is_due_whatever_the_depth() {
    for depth in [1, 4] {
        let mut load = connect(server(b"$-1\r\n", usize::MAX), &misses(1));
        let (schedule, duration) = (Schedule::new(2000.0), Duration::from_millis(200));
        let due = schedule.arrivals().take_while(|at| *at < duration).count();
        for _ in 0..2 {
            let outcome = load.open(&schedule, depth, duration, &mut unwatched).expect("all is answered");
            assert_eq!((outcome.commands, outcome.latency.len()), (due as u64, due as u64));
        }
    }
}

#[test]
fn an_open_loop_begins_the_tape_anew_when_all_of_it_is_answered() {
    let mut load = connect(server(b"$-1\r\n", usize::MAX), &Arc::new(tape(1).shortened(5)));
    let outcome = load.open(&Schedule::new(50_000.0), 4, Duration::from_millis(50), &mut unwatched);
    assert!(outcome.expect("every reply is right").commands > 100);
}

#[test]
fn a_stall_counts_against_every_command_that_it_delays() {
    let stall = Duration::from_millis(200);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("the driver connects");
        let mut buffer = [0; 4096];
        thread::sleep(stall);
        while let Ok(received @ 1..) = stream.read(&mut buffer) {
            let asked = buffer[..received].iter().filter(|byte| **byte == b'*').count();
            stream.write_all(&b"$-1\r\n".repeat(asked)).expect("the driver reads");
        }
    });
    let mut load = connect(address, &misses(1));
    let outcome = load.open(&Schedule::new(1000.0), 1, stall, &mut unwatched).expect("all is answered");
    // Half of what was due waited for more than half of the stall, though one command alone was sent.
    assert!(outcome.latency_us(0.6) > 80_000.0, "p60 {} µs", outcome.latency_us(0.6));
}

#[test]
fn a_connection_of_limited_life_is_replaced() {
    // Each is answered three times and no more, then closed.
    let mut load = connect(server(b"$-1\r\n", 3), &misses(1)).with_lifetime(3);
    let outcome = load.closed(Duration::from_millis(50), &mut unwatched).expect("each asks three times");
    assert!(outcome.commands > 3, "{}", outcome.commands);
}

#[test]
fn a_watcher_ends_a_run_in_its_midst() {
    let mut load = connect(server(b"$-1\r\n", usize::MAX), &misses(1));
    let mut told = 0;
    let mut watch = |_, commands| {
        told += 1;
        if commands > 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let outcome = load.closed(Duration::from_secs(3600), &mut watch).expect("it is answered");
    let open = load.open(&Schedule::new(1000.0), 1, Duration::from_secs(3600), &mut watch).expect("it is answered");
    assert!(outcome.commands > 0 && open.commands > 0);
    assert!(told >= 2);
}

#[test]
fn an_error_reply_ends_the_run_and_is_quoted() {
    let mut load = connect(server(b"-LOADING no\r\n", usize::MAX), &misses(1));
    let error = load.closed(Duration::from_secs(5), &mut unwatched).expect_err("the reply is wrong");
    let LoadError::WrongReply { expected, received, .. } = error else { panic!("{error}") };
    assert!("-LOADING no\r\n".starts_with(&received) && received.starts_with('-'), "{received:?}");
    assert!(expected.starts_with("$-1\r\n"), "{expected:?}");
}

#[test]
fn a_wrong_reply_of_the_right_length_ends_the_run() {
    let mut load = connect(server(b"+OK\r\n", usize::MAX), &misses(1));
    let error = load.closed(Duration::from_secs(5), &mut unwatched).expect_err("the reply is wrong");
    assert!(matches!(&error, LoadError::WrongReply { received, .. } if received.starts_with('+')), "{error}");
}

#[test]
fn a_reply_too_many_ends_the_run() {
    let mut load = connect(server(b"$-1\r\n$-1\r\n$-1\r\n", usize::MAX), &misses(1));
    let error = load.closed(Duration::from_secs(5), &mut unwatched);
    assert!(matches!(error, Err(LoadError::WrongReply { .. })));
}

#[test]
fn a_server_that_hangs_up_ends_the_run() {
    let mut load = connect(server(b"$-1\r\n", 5), &misses(1));
    let error = load.closed(Duration::from_secs(5), &mut unwatched).expect_err("the server left");
    assert!(matches!(error, LoadError::Closed { .. } | LoadError::Io(_)), "{error}");
}
