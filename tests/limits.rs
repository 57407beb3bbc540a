//! Large values, long pipelines, and clients that do not read.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, Read, Write};
use std::time::{Duration, Instant};

use nearside_tests::{Client, Nearside, RedisServer, calibrating, eventually, words};

const MIB: usize = 1024 * 1024;
const SOON: Duration = Duration::from_secs(20);

/// A byte that depends on its place, with a period that is no power of two: a piece that is lost, doubled or moved shows.
fn byte_at(place: usize) -> u8 {
    (place % 251) as u8
}

/// 251 of them, 1,024 times: a piece of a large value that begins at any multiple of its length.
fn piece() -> Vec<u8> {
    (0..251 * 1024).map(byte_at).collect()
}

fn send_large(client: &Client, command: &[u8], size: usize) {
    let mut writer = client.writer();
    writer.write_all(command).unwrap();
    let piece = piece();
    let mut left = size;
    while left > 0 {
        let length = left.min(piece.len());
        writer.write_all(&piece[..length]).unwrap();
        left -= length;
    }
    writer.write_all(b"\r\n").unwrap();
}

/// Reads a bulk of that size, and checks every byte of it.
fn read_large(client: &mut Client, size: usize) {
    let reader = client.reader();
    let mut line = Vec::new();
    reader.read_until(b'\n', &mut line).unwrap();
    assert_eq!(line.escape_ascii().to_string(), format!("${size}\\r\\n"));
    let piece = piece();
    let mut buffer = vec![0; piece.len()];
    let mut left = size;
    while left > 0 {
        let length = left.min(piece.len());
        reader.read_exact(&mut buffer[..length]).unwrap();
        assert!(buffer[..length] == piece[..length], "a byte is not what was sent, {left} from the end");
        left -= length;
    }
    let mut end = [0; 2];
    reader.read_exact(&mut end).unwrap();
    assert_eq!(&end, b"\r\n");
}

#[test]
fn a_value_of_512_mib_passes_in_both_directions_while_others_are_served() {
    let redis = RedisServer::start();
    let nearside = Nearside::with(&redis, &["--workers", "1"]);
    let size = 512 * MIB;
    let mut large = nearside.client();
    std::thread::scope(|scope| {
        let (done, finished) = std::sync::mpsc::channel::<()>();
        let mut small = nearside.client();
        let other = scope.spawn(move || {
            let mut served = 0;
            while matches!(finished.try_recv(), Err(std::sync::mpsc::TryRecvError::Empty)) {
                assert_eq!(small.call("SET small v"), "+OK\r\n");
                assert_eq!(small.call("GET small"), "$1\r\nv\r\n");
                served += 1;
            }
            served
        });
        send_large(&large, format!("*3\r\n$3\r\nSET\r\n$5\r\nlarge\r\n${size}\r\n").as_bytes(), size);
        assert_eq!(large.reply(), "+OK\r\n");
        for command in ["GET large", "GETEX large"] {
            large.send(&words(command));
            read_large(&mut large, size);
        }
        assert_eq!(large.call("PING"), "+PONG\r\n");
        drop(done);
        let served = other.join().unwrap();
        assert!(served > 20, "the other client was served {served} times only");
    });
}

#[test]
fn an_argument_larger_than_512_mib_is_refused_before_it_is_sent() {
    let redis = RedisServer::start();
    let nearside = Nearside::before(&redis);
    let mut client = nearside.client();
    client.send(format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${}\r\n", 512 * MIB + 1).as_bytes());
    assert_eq!(client.rest_until_closed(), b"-ERR Protocol error: invalid bulk length\r\n");
}

#[test]
fn values_of_every_size_around_the_buffers_pass() {
    let redis = RedisServer::start();
    let nearside = Nearside::before(&redis);
    let mut client = nearside.client();
    let piece = piece();
    let around = |size: usize| [size - 3, size - 2, size - 1, size, size + 1, size + 17];
    for size in [64, 512, 1024, 4096, 8192, 16 * 1024, 32 * 1024, 64 * 1024, 128 * 1024, 256 * 1024 - 10_000]
        .into_iter()
        .flat_map(around)
    {
        let value = &piece[..size];
        assert_eq!(client.command(&[b"SET".as_ref(), b"k", value]), "+OK\r\n");
        for _ in 0..2 {
            assert_eq!(client.call("GET k").bulk(), Some(value), "{size} bytes");
        }
        assert_eq!(client.call("GETEX k").bulk(), Some(value), "{size} bytes");
    }
}

#[test]
fn a_pipeline_of_100_000_commands_is_answered_in_order() {
    let redis = RedisServer::start();
    let nearside = Nearside::before(&redis);
    let mut client = nearside.client();
    let mut bytes = Vec::new();
    for number in 0..25_000 {
        bytes.extend(words(&format!("SET k {number}")));
        bytes.extend(words("GET k"));
        bytes.extend(words(&format!("ECHO {number}")));
        bytes.extend(words("GETEX k"));
    }
    let replies = client.exchange(&bytes, 100_000);
    for (number, replies) in replies.chunks(4).enumerate() {
        let expected = format!("${}\r\n{number}\r\n", number.to_string().len());
        assert_eq!(replies[0], "+OK\r\n", "{number}");
        for reply in &replies[1..] {
            assert_eq!(*reply, expected.as_str(), "{number}");
        }
    }
}

#[test]
fn a_pipeline_of_hits_and_one_of_100_000_arguments_are_answered() {
    let redis = RedisServer::start();
    let nearside = Nearside::before(&redis);
    let mut client = nearside.client();
    client.call("SET k v");
    let replies = client.exchange(&words("GET k").repeat(100_000), 100_000);
    assert!(replies.iter().all(|reply| *reply == "$1\r\nv\r\n"));

    let mut mset = vec!["MSET".to_owned()];
    mset.extend((0..50_000).flat_map(|number| [format!("key:{number}"), number.to_string()]));
    assert_eq!(client.command(&mset), "+OK\r\n");
    assert_eq!(client.call("GET key:49999"), "$5\r\n49999\r\n");
    let mut del = vec!["DEL".to_owned()];
    del.extend((0..50_000).map(|number| format!("key:{number}")));
    assert_eq!(client.command(&del), ":50000\r\n");
    assert_eq!(client.call("GET key:49999"), "$-1\r\n");
}

#[test]
fn one_greedy_pipeline_does_not_starve_another_client() {
    let redis = RedisServer::start();
    let nearside = Nearside::with(&redis, &["--workers", "1"]);
    let mut greedy = nearside.client();
    let mut modest = nearside.client();
    modest.call("SET k v");
    let requests = words("GET k").repeat(400_000);
    std::thread::scope(|scope| {
        let greedy = scope.spawn(move || greedy.exchange(&requests, 400_000).len());
        let mut served = 0;
        while !greedy.is_finished() {
            assert_eq!(modest.call("GET k"), "$1\r\nv\r\n");
            served += 1;
        }
        assert_eq!(greedy.join().unwrap(), 400_000);
        assert!(served > 20, "served {served} times beside 400,000 commands of another");
    });
}

/// Asks for much more than any socket buffer holds, and reads nothing.
fn ask_and_do_not_read(nearside: &Nearside) -> Client {
    let client = nearside.client();
    let mut writer = client.writer();
    // 200 MiB of replies. The connection may end before all of it is asked for.
    let _ = writer.write_all(&words("GETEX mebibyte").repeat(200));
    client
}

fn with_mebibyte(args: &[&str]) -> (RedisServer, Nearside) {
    let redis = RedisServer::start();
    let nearside = Nearside::with(&redis, args);
    let value = vec![b'x'; MIB];
    assert_eq!(redis.client().command(&[b"SET".as_ref(), b"mebibyte", &value]), "+OK\r\n");
    (redis, nearside)
}

/// How many bytes still come before the connection ends.
fn bytes_until_closed(client: &mut Client) -> usize {
    client.rest_until_closed().len()
}

#[test]
fn a_client_that_does_not_read_is_cut_off_at_the_hard_limit() {
    if calibrating("output limits of 16 MiB") {
        return;
    }
    let (_redis, nearside) = with_mebibyte(&["--output-limit-hard", "16MiB", "--output-limit-soft", "1GiB"]);
    let mut bystander = nearside.client();
    let mut client = ask_and_do_not_read(&nearside);
    eventually("it is cut off", SOON, || {
        (nearside.metrics().get("nearside_clients_cut_off_total{reason=\"output\"}") == Some(&1.0)).then_some(())
    });
    assert!(bytes_until_closed(&mut client) < 200 * MIB);
    assert_eq!(bystander.call("GETRANGE mebibyte 0 2"), "$3\r\nxxx\r\n");
    // One who reads gets as much as he likes.
    for _ in 0..40 {
        assert_eq!(bystander.call("GETEX mebibyte").bulk().map(<[u8]>::len), Some(MIB));
    }
}

#[test]
fn a_client_that_does_not_read_for_long_is_cut_off_at_the_soft_limit() {
    if calibrating("output limits of 4 MiB") {
        return;
    }
    let (_redis, nearside) = with_mebibyte(&["--output-limit-soft", "4MiB", "--output-limit-soft-time", "1s"]);
    let started = Instant::now();
    let mut client = ask_and_do_not_read(&nearside);
    eventually("it is cut off", SOON, || {
        (nearside.metrics().get("nearside_clients_cut_off_total{reason=\"output\"}") == Some(&1.0)).then_some(())
    });
    assert!(started.elapsed() >= Duration::from_secs(1), "not before its time: {:?}", started.elapsed());
    assert!(bytes_until_closed(&mut client) < 200 * MIB);
}

#[test]
fn past_the_memory_for_all_clients_commands_are_answered_overload() {
    if calibrating("limit for all clients") {
        return;
    }
    let (_redis, nearside) = with_mebibyte(&["--buffer-memory", "16MiB"]);
    let mut bystander = nearside.client();
    let greedy = (0..4).map(|_| ask_and_do_not_read(&nearside)).collect::<Vec<_>>();
    eventually("commands are refused", SOON, || {
        bystander.call("GETEX mebibyte").starts_with(b"-OVERLOAD ").then_some(())
    });
    drop(greedy);
    eventually("they are served again", SOON, || {
        (bystander.call("GETRANGE mebibyte 0 2") == "$3\r\nxxx\r\n").then_some(())
    });
}

#[test]
fn past_the_memory_for_all_clients_a_transaction_ends_rightly_and_its_connection_is_nobody_elses() {
    if calibrating("limit for all clients") {
        return;
    }
    let (redis, nearside) = with_mebibyte(&["--buffer-memory", "16MiB", "--workers", "1"]);
    let (mut queueing, mut watching, mut other) = (nearside.client(), nearside.client(), nearside.client());
    assert_eq!(["MULTI", "SET k 1"].map(|line| queueing.call(line)), ["+OK\r\n", "+QUEUED\r\n"]);
    assert_eq!(watching.call("WATCH k"), "+OK\r\n");
    let greedy = (0..4).map(|_| ask_and_do_not_read(&nearside)).collect::<Vec<_>>();
    eventually("commands are refused", SOON, || other.call("SET l 1").starts_with(b"-OVERLOAD ").then_some(()));
    assert!(queueing.call("SET k 2").starts_with(b"-OVERLOAD "));
    assert_eq!(queueing.call("EXEC"), "-EXECABORT Transaction discarded because of previous errors.\r\n");
    assert!(watching.call("MULTI").starts_with(b"-OVERLOAD "));
    assert!(watching.call("SELECT 1").starts_with(b"-OVERLOAD "));
    assert_eq!(watching.call("UNWATCH"), "+OK\r\n");
    // A block in one write is refused command by command, and SKIP leaves out one reply.
    other.send(&["CLIENT REPLY SKIP", "MULTI", "SET k 3", "EXEC", "ECHO end"].map(words).concat());
    let replies = [other.reply(), other.reply(), other.reply()];
    assert!(replies[..2].iter().all(|reply| reply.starts_with(b"-OVERLOAD ")), "{replies:?}");
    assert_eq!(replies[2], "$3\r\nend\r\n");
    drop(greedy);
    eventually("they are served again", SOON, || (other.call("SET l 1") == "+OK\r\n").then_some(()));
    assert_eq!(redis.client().call("EXISTS k"), ":0\r\n");
    for client in [&mut queueing, &mut watching, &mut other] {
        assert_eq!(client.call("MULTI"), "+OK\r\n");
        assert_eq!(client.call("GET l"), "+QUEUED\r\n");
        assert_eq!(client.call("EXEC"), "*1\r\n$1\r\n1\r\n");
    }
}

#[test]
fn past_the_memory_for_all_clients_who_may_not_wait_is_told_so_by_no_other_command() {
    if calibrating("limit for all clients") {
        return;
    }
    let (redis, nearside) = with_mebibyte(&["--buffer-memory", "16MiB", "--workers", "1"]);
    redis.client().call("ACL SETUSER few on >secret ~* resetchannels +@all -swapdb");
    let (mut client, mut other) = (nearside.client(), nearside.client());
    assert_eq!(client.call("AUTH few secret"), "+OK\r\n");
    assert_eq!(client.call("WATCH k"), "+OK\r\n");
    let greedy = (0..4).map(|_| ask_and_do_not_read(&nearside)).collect::<Vec<_>>();
    eventually("commands are refused", SOON, || other.call("SET l 1").starts_with(b"-OVERLOAD ").then_some(()));
    for _ in 0..2 {
        assert!(client.call("WAIT 0 0").starts_with(b"-OVERLOAD "));
    }
    drop(greedy);
    eventually("they are served again", SOON, || (other.call("SET l 1") == "+OK\r\n").then_some(()));
    assert_eq!(
        ["SET k 1", "GET k", "ECHO end"].map(|line| client.call(line)),
        ["+OK\r\n", "$1\r\n1\r\n", "$3\r\nend\r\n"]
    );
    assert!(client.call("WAIT 0 0").starts_with(b"-NOPERM"), "and now to WAIT itself");
}

#[test]
fn requests_half_sent_count_too() {
    if calibrating("limit for all clients") {
        return;
    }
    let (_redis, nearside) = with_mebibyte(&["--buffer-memory", "16MiB"]);
    let mut uploads = [nearside.client(), nearside.client()];
    for upload in &mut uploads {
        let mut writer = upload.writer();
        // The second one is closed somewhere on the way.
        let _ = writer
            .write_all(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$100000000\r\n")
            .and_then(|()| writer.write_all(&vec![b'x'; 12 << 20]));
    }
    // Or both, if neither had been given back when the other one was looked at.
    eventually("an upload is cut off", SOON, || {
        (nearside.metrics().total("nearside_clients_cut_off_total") >= 1.0).then_some(())
    });
    // What it held is given back a moment after it was counted as cut off.
    let mut client = nearside.client();
    let mut is_served = || (client.call("GETRANGE mebibyte 0 2") == "$3\r\nxxx\r\n").then_some(());
    eventually("the others are served", SOON, &mut is_served);
}

#[test]
fn an_endless_request_is_cut_off() {
    if calibrating("query buffer limit of 2 MiB") {
        return;
    }
    let redis = RedisServer::start();
    let nearside = Nearside::with(&redis, &["--query-buffer-limit", "2MiB"]);
    let mut client = nearside.client();
    let mut writer = client.writer();
    let _ =
        writer.write_all(b"*1000000\r\n").and_then(|()| writer.write_all(&b"$10\r\n0123456789\r\n".repeat(500_000)));
    assert!(client.rest_until_closed().is_empty());
    assert_eq!(nearside.client().call("PING"), "+PONG\r\n");
}
