//! redis-cli before Nearside, as a person types it.
#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nearside_tests::{Address, Nearside, RedisServer};

const LIMIT: Duration = Duration::from_secs(30);

/// What redis-cli prints when it is given these lines.
fn typed(nearside: &Nearside, args: &[&str], lines: &str) -> String {
    let Address::Tcp(address) = nearside.address() else { unreachable!("started on TCP") };
    let mut cli = Command::new("redis-cli");
    cli.args(["-p", &address.port().to_string()]).args(args);
    let mut cli = cli.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("redis-cli is installed");
    let (mut input, mut output) = (cli.stdin.take().unwrap(), cli.stdout.take().unwrap());
    std::thread::scope(|scope| {
        scope.spawn(move || input.write_all(lines.as_bytes()).unwrap());
        let printed = scope.spawn(move || {
            let mut printed = String::new();
            output.read_to_string(&mut printed).unwrap();
            printed
        });
        let deadline = Instant::now() + LIMIT;
        while !printed.is_finished() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        let in_time = printed.is_finished();
        if !in_time {
            cli.kill().unwrap();
        }
        let (printed, status) = (printed.join().unwrap(), cli.wait().unwrap());
        assert!(in_time, "redis-cli {args:?} hangs after printing {printed:?}");
        assert!(status.success(), "{status}: {printed}");
        printed
    })
}

#[test]
fn commands_are_answered_in_both_protocols() {
    let redis = RedisServer::start();
    let nearside = Nearside::before(&redis);
    for (args, hash) in [(&["-2"][..], "f\nv\n"), (&["-3"], "f v\n")] {
        let printed =
            typed(&nearside, args, "SET k v\nGET k\nGET k\nDEL h\nHSET h f v\nHGETALL h\nLRANGE nosuch 0 -1\nNOSUCH\n");
        let expected =
            format!("OK\nv\nv\n{{}}\n1\n{hash}\nERR unknown command 'NOSUCH', with args beginning with: \n\n");
        let without_del = |text: &str| {
            text.lines().enumerate().filter(|(at, _)| *at != 3).map(|(_, line)| line.to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(without_del(&printed), without_del(&expected), "{printed}");
    }
}

#[test]
fn arguments_on_the_command_line_and_a_db_are_answered() {
    let redis = RedisServer::start();
    let nearside = Nearside::before(&redis);
    assert_eq!(typed(&nearside, &["SET", "k", "a b"], ""), "OK\n");
    assert_eq!(typed(&nearside, &["GET", "k"], ""), "a b\n");
    assert_eq!(typed(&nearside, &["-n", "3", "SET", "k", "three"], ""), "OK\n");
    assert_eq!(typed(&nearside, &["-n", "3", "GET", "k"], ""), "three\n");
    assert_eq!(typed(&nearside, &["GET", "k"], ""), "a b\n");
    assert_eq!(typed(&nearside, &["--no-raw", "GET", "nosuch"], ""), "(nil)\n");
}

#[test]
fn bulk_loading_by_pipe_loses_nothing() {
    let redis = RedisServer::start();
    let nearside = Nearside::before(&redis);
    let lines = (0..20_000).map(|number| format!("SET key:{number} {number}\r\n")).collect::<String>();
    let printed = typed(&nearside, &["--pipe"], &lines);
    assert!(printed.contains("errors: 0, replies: 20000"), "{printed}");
    assert_eq!(redis.client().call("DBSIZE"), ":20000\r\n");
}

#[test]
fn scanning_for_keys_and_latency_probes_work() {
    let redis = RedisServer::start();
    let nearside = Nearside::before(&redis);
    redis.client().call("MSET a:1 x a:2 y b z");
    let mut keys = typed(&nearside, &["--scan", "--pattern", "a:*"], "").lines().map(str::to_owned).collect::<Vec<_>>();
    keys.sort();
    assert_eq!(keys, ["a:1", "a:2"]);
    assert!(typed(&nearside, &["--bigkeys"], "").contains("Sampled 3 keys"));
}
