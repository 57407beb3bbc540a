//! The program as an operator meets it: settings, start, readiness, shutdown.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

use nearside_tests::{
    Address, Client, Nearside, Process, RedisServer, calibrating, eventually, free_port, nearside_command, words,
};
use rustix::process::Signal;

const SOON: Duration = Duration::from_secs(10);

fn run(args: &[&str]) -> Output {
    nearside_command().args(args).output().unwrap()
}

/// Expects the program to refuse to start, in one line that says all of `words`.
#[track_caller]
fn refused(output: &Output, words: &[&str]) {
    let error = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert_eq!(error.lines().count(), 1, "one line: {error}");
    for word in words {
        assert!(error.contains(word), "{word} in: {error}");
    }
    assert!(output.stdout.is_empty());
}

#[test]
fn help_and_version_go_to_standard_output() {
    for flag in ["--help", "-h"] {
        let output = run(&[flag]);
        assert_eq!(output.status.code(), Some(0));
        let help = String::from_utf8(output.stdout).unwrap();
        for setting in [
            "--listen",
            "--upstream",
            "--workers",
            "--cache-size",
            "--max-item-size",
            "--max-age",
            "--max-staleness",
            "--max-clients",
            "--requirepass",
            "--admin",
            "--drain-timeout",
            "--config",
        ] {
            assert!(help.contains(setting), "{setting} in {flag}:\n{help}");
        }
    }
    let output = run(&["--version"]);
    assert_eq!(output.status.code(), Some(0));
    let version = String::from_utf8(output.stdout).unwrap();
    assert!(version.starts_with("nearside ") && version.lines().count() == 1, "{version}");
}

#[test]
fn a_bad_setting_is_told_in_one_line_with_its_value_and_what_is_allowed() {
    for (args, says) in [
        (&["--cache-size", "12 parsecs"][..], &["--cache-size", "12 parsecs", "256MiB"][..]),
        (&["--workers", "0"], &["--workers", "\"0\"", "1 to 256"]),
        (&["--max-age", "soon"], &["--max-age", "soon", "60s"]),
        (&["--listen", "nowhere"], &["--listen", "nowhere", "HOST:PORT"]),
        (&["--upstream", "http://x"], &["--upstream", "http://x"]),
        (&["--upstream", "rediss://x"], &["--upstream", "rediss://x"]),
        (&["--max-staleness", "1ns"], &["--max-staleness", "1ns"]),
        (&["--cahce-size", "1MiB"], &["--cahce-size", "--cache-size"]),
        (&["--max-clients"], &["--max-clients"]),
        (&["surplus"], &["surplus"]),
        (&["--config", "/no/such/file.toml"], &["/no/such/file.toml", "--config"]),
        (&["--cache-size", "1MiB", "--max-item-size", "64MiB"], &["--max-item-size", "64MiB"]),
    ] {
        refused(&run(args), says);
    }
    let output = nearside_command().env("NEARSIDE_WORKERS", "many").output().unwrap();
    refused(&output, &["NEARSIDE_WORKERS", "many", "1 to 256"]);
}

#[test]
fn a_password_in_a_bad_setting_is_not_printed() {
    let output = run(&["--upstream", "redis://:hunter2@host:notaport"]);
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(!error.contains("hunter2"), "{error}");
}

#[test]
fn check_tells_whether_a_file_is_good_without_starting() {
    let folder = tempfile::tempdir().unwrap();
    let write = |text: &str| {
        let path = folder.path().join("nearside.toml");
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let good = write(
        "listen = [\"127.0.0.1:7000\", \"unix:///tmp/x\"]\ncache-size = \"64MiB\"\nworkers = 2\nmax-age = \"5s\"\n",
    );
    let output = run(&["check", &good]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{good}: ok\n"));
    for (text, says) in [
        ("workers = 2\ncache-size = \"big\"\n", &["cache-size", "big", "line 2"][..]),
        ("wrokers = 2\n", &["wrokers", "workers", "line 1"]),
        ("workers = \n", &["line 1"]),
        ("cache-size = \"2MiB\"\nmax-item-size = \"100MiB\"\n", &["max-item-size", "100MiB", "line 2"]),
        (
            "cache-size = \"2MiB\"\n[[cache.rule]]\nmatch = \"large:*\"\nmax-item-size = \"3MiB\"\n",
            &["cache-size", "2MiB", "line 1", "an item of 3145728 bytes"],
        ),
    ] {
        let bad = write(text);
        let output = run(&["check", &bad]);
        refused(&output, says);
        assert!(String::from_utf8(output.stderr).unwrap().contains("nearside.toml"));
    }
}

#[test]
fn a_flag_wins_over_the_environment_and_that_over_the_file() {
    let redis = RedisServer::start();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("nearside.toml");
    let ports = [free_port(), free_port(), free_port()];
    std::fs::write(
        &file,
        format!("listen = \"127.0.0.1:{}\"\nadmin = \"off\"\nupstream = \"{}\"\n", ports[0], redis.address().url()),
    )
    .unwrap();
    let start = |extra: usize| {
        let mut command = nearside_command();
        command.arg("--config").arg(&file);
        if extra > 0 {
            command.env("NEARSIDE_LISTEN", format!("127.0.0.1:{}", ports[1]));
        }
        if extra > 1 {
            command.args(["--listen", &format!("127.0.0.1:{}", ports[2])]);
        }
        Process::spawn(command, &folder.path().join("log"))
    };
    for extra in 0..3 {
        let _process = start(extra);
        let mut client = connect(&Address::local(ports[extra]));
        assert_eq!(client.call("SET k v"), "+OK\r\n", "the file's upstream is in force");
        for (number, port) in ports.iter().enumerate().filter(|(number, _)| *number != extra) {
            assert!(Client::try_connect(&Address::local(*port)).is_err(), "source {number} beside {extra}");
        }
    }
}

fn connect(address: &Address) -> Client {
    eventually("it listens", SOON, || Client::try_connect(address).ok())
}

#[test]
fn a_port_in_use_is_told_in_one_line() {
    let redis = RedisServer::start();
    let address = redis.address().to_string();
    refused(&run(&["--listen", &address, "--admin", "off"]), &["--listen", &address, "in use"]);
    let free = format!("127.0.0.1:{}", free_port());
    refused(&run(&["--listen", &free, "--admin", &address]), &["--admin", &address, "in use"]);
}

#[test]
fn it_listens_on_ipv4_ipv6_and_a_unix_socket_at_once() {
    let redis = RedisServer::start();
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("nearside.sock");
    let (four, six) = (free_port(), free_port());
    let mut command = nearside_command();
    command.args(["--upstream", &redis.address().url(), "--admin", "off"]);
    command.args([
        "--listen",
        &format!("127.0.0.1:{four},[::1]:{six}"),
        "--listen",
        &format!("unix://{}", socket.display()),
    ]);
    let mut process = Process::spawn(command, &folder.path().join("log"));
    for address in
        [Address::local(four), Address::Tcp(format!("[::1]:{six}").parse().unwrap()), Address::Unix(socket.clone())]
    {
        let mut client = connect(&address);
        assert_eq!(client.call("INCR n").integer().map(|n| n > 0), Some(true), "{address}");
        assert_eq!(client.call("GET nosuch"), "$-1\r\n", "{address}");
    }
    process.signal(Signal::TERM);
    assert_eq!(process.wait(SOON).code(), Some(0));
    assert!(!socket.exists(), "the socket's file goes with the program");
}

#[test]
fn a_socket_file_left_by_a_killed_program_is_no_obstacle() {
    let redis = RedisServer::start();
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("nearside.sock");
    for _ in 0..2 {
        let mut command = nearside_command();
        command.args([
            "--upstream",
            &redis.address().url(),
            "--admin",
            "off",
            "--listen",
            &format!("unix://{}", socket.display()),
        ]);
        let mut process = Process::spawn(command, &folder.path().join("log"));
        let answers = || {
            let mut client = Client::try_connect(&Address::Unix(socket.clone())).ok()?;
            client.try_send(b"PING\r\n").ok()?;
            client.try_reply().ok()
        };
        assert_eq!(eventually("it answers", SOON, answers), "+PONG\r\n");
        process.kill();
        assert!(socket.exists());
    }
}

#[test]
fn the_upstream_may_be_a_unix_socket() {
    if calibrating("upstream") {
        return;
    }
    let redis = RedisServer::start();
    let nearside = Nearside::upstream(&redis.unix_address(), &[]);
    let mut client = nearside.client();
    assert_eq!(client.call("SET k v"), "+OK\r\n");
    for _ in 0..3 {
        assert_eq!(client.call("GET k"), "$1\r\nv\r\n");
    }
    assert_eq!(redis.client().call("GET k"), "$1\r\nv\r\n");
}

#[test]
fn with_its_upstream_down_it_starts_says_so_and_goes_on_when_the_upstream_comes() {
    if calibrating("upstream") {
        return;
    }
    let mut redis = RedisServer::start();
    redis.kill();
    let nearside = Nearside::before(&redis);
    let mut client = nearside.client();
    assert_eq!(client.call("PING"), "+PONG\r\n");
    for command in ["GET k", "SET k v", "LRANGE l 0 -1"] {
        let asked = Instant::now();
        let reply = client.call(command);
        assert!(reply.starts_with(b"-UPSTREAM "), "{command}: {reply:?}");
        assert!(asked.elapsed() < SOON, "{command} took {:?}", asked.elapsed());
    }
    assert!(client.call("SET k v").text().contains("not sent"));
    assert_eq!(nearside.admin("/healthz").0, 200);
    assert_eq!(nearside.admin("/readyz").0, 503);
    redis.start_again();
    eventually("it serves", SOON, || (client.call("SET k v") == "+OK\r\n").then_some(()));
    eventually("it is ready", SOON, || (nearside.admin("/readyz").0 == 200).then_some(()));
    assert_eq!(client.call("GET k"), "$1\r\nv\r\n");
}

#[test]
fn the_admin_port_tells_health_and_metrics_and_nothing_else() {
    if calibrating("admin port") {
        return;
    }
    let redis = RedisServer::start();
    let nearside = Nearside::before(&redis);
    let mut client = nearside.client();
    for command in ["SET k v", "GET k", "GET k", "PING", "INCR n"] {
        client.call(command);
    }
    assert_eq!(nearside.admin("/healthz").0, 200);
    eventually("it is ready", SOON, || (nearside.admin("/readyz").0 == 200).then_some(()));
    assert_eq!(nearside.admin("/nosuch").0, 404);
    let metrics = nearside.metrics();
    for name in [
        "nearside_cache_hits_total",
        "nearside_cache_misses_total",
        "nearside_cache_bytes",
        "nearside_cache_entries",
        "nearside_invalidations_total",
        "nearside_leases_lapsed_total",
        "nearside_commands_total",
        "nearside_upstream_commands_total",
        "nearside_upstream_errors_total",
        "nearside_connections",
        "nearside_clients_cut_off_total",
    ] {
        assert!(metrics.total(name) >= 0.0);
    }
    assert!(metrics.total("nearside_commands_total") >= 5.0, "{metrics:?}");
    assert!(metrics.keys().any(|name| name.starts_with("nearside_commands_total{") && name.contains("route=")));
    assert!(metrics.keys().any(|name| name.starts_with("nearside_upstream_commands_total{") && name.contains("node=")));
    assert!(
        metrics.keys().any(|name| name.contains("_bucket{") && name.contains("le=\"+Inf\"")),
        "latency histograms: {metrics:?}"
    );
    let more = metrics.total("nearside_connections");
    let _another = nearside.client();
    eventually("a connection is counted", SOON, || {
        (nearside.metrics().total("nearside_connections") == more + 1.0).then_some(())
    });
}

#[test]
fn a_signal_lets_what_is_in_flight_be_answered_then_exits_0() {
    if calibrating("shutdown") {
        return;
    }
    for signal in [Signal::TERM, Signal::INT] {
        let redis = RedisServer::start();
        let mut nearside = Nearside::before(&redis);
        let address = nearside.address().clone();
        let mut busy = nearside.client();
        let mut idle = nearside.client();
        assert_eq!(idle.call("PING"), "+PONG\r\n");
        busy.call("SET k v");
        redis.stop();
        busy.send(&[words("INCR n"), words("LRANGE nosuch 0 -1")].concat());
        std::thread::sleep(Duration::from_millis(200));
        nearside.process().signal(signal);
        eventually("nobody new is let in", SOON, || Client::try_connect(&address).is_err().then_some(()));
        redis.resume();
        assert_eq!(busy.reply(), ":1\r\n");
        assert_eq!(busy.reply(), "*0\r\n");
        assert_eq!(busy.rest_until_closed(), b"");
        assert_eq!(idle.rest_until_closed(), b"");
        assert_eq!(nearside.process().wait(SOON).code(), Some(0));
        assert_eq!(redis.client().call("GET n"), "$1\r\n1\r\n");
    }
}

#[test]
fn a_shutdown_waits_no_longer_than_its_timeout() {
    if calibrating("shutdown") {
        return;
    }
    let redis = RedisServer::start();
    let mut nearside = Nearside::with(&redis, &["--drain-timeout", "500ms"]);
    let mut client = nearside.client();
    client.call("SET k v");
    redis.stop();
    client.send(&words("INCR n"));
    std::thread::sleep(Duration::from_millis(100));
    nearside.process().signal(Signal::TERM);
    // Far less than upstream-timeout, after which there would be nothing to wait for.
    assert_eq!(nearside.process().wait(Duration::from_secs(5)).code(), Some(0));
    redis.resume();
}

#[test]
fn it_is_quiet_when_all_is_well_and_never_prints_a_password() {
    if calibrating("log") {
        return;
    }
    let redis = RedisServer::with(&["--requirepass", "hunter2"]);
    let folder = tempfile::tempdir().unwrap();
    for level in ["warn", "trace"] {
        let log = folder.path().join(level);
        let port = free_port();
        let mut command = nearside_command();
        command.args([
            "--listen",
            &format!("127.0.0.1:{port}"),
            "--admin",
            "off",
            "--log",
            level,
            "--requirepass",
            "hunter3",
        ]);
        command.args(["--upstream", &format!("redis://:hunter2@{}", redis.address())]);
        let mut process = Process::spawn(command, &log);
        let mut client = connect(&Address::local(port));
        for command in ["AUTH hunter3", "SET k v", "GET k", "HELLO 3 AUTH default hunter3"] {
            assert!(!client.call(command).is_error(), "{command}");
        }
        process.signal(Signal::TERM);
        process.wait(SOON);
        let output = process.output();
        assert!(!output.contains("hunter"), "{output}");
        if level == "warn" {
            assert!(output.lines().count() <= 3, "{output}");
        }
    }
}

#[test]
fn the_binary_under_test_is_the_one_just_built() {
    let binary = nearside_command();
    let built = std::fs::metadata(binary.get_program()).unwrap().modified().unwrap();
    let newest = newest_source(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/proxy/src")));
    assert!(built >= newest, "the binary is older than a source file");
}

fn newest_source(folder: &Path) -> std::time::SystemTime {
    let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
    let times = entries.map(|entry| {
        if entry.path().is_dir() { newest_source(&entry.path()) } else { entry.metadata().unwrap().modified().unwrap() }
    });
    times.max().unwrap_or(std::time::SystemTime::UNIX_EPOCH)
}
