//! What a connection says of itself: protocol, password, db, name, and what client libraries ask when they connect.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use nearside_tests::{
    Address, Client, Nearside, Process, RedisServer, Reply, calibrating, eventually, free_port, nearside_command, words,
};

const SOON: Duration = Duration::from_secs(10);

fn pair(args: &[&str]) -> (RedisServer, Nearside, Client) {
    let redis = RedisServer::start();
    let nearside = Nearside::with(&redis, args);
    let client = nearside.client();
    (redis, nearside, client)
}

/// Says the same on a fresh connection to a Redis and to a Nearside, and expects the same bytes to each line.
#[track_caller]
fn same_as_redis(redis: &RedisServer, nearside: &Nearside, lines: &[&str]) {
    let (mut direct, mut proxied) = (redis.client(), nearside.client());
    for line in lines {
        let expected = direct.call(line);
        assert_eq!(proxied.call(line), expected, "{line}, of {lines:?}");
    }
}

/// The fields of a map, or of an array of fields and values.
fn fields(reply: &Reply) -> BTreeMap<String, Reply> {
    let text = |reply: &Reply| String::from_utf8(reply.bulk().unwrap().to_vec()).unwrap();
    reply.elements().chunks(2).map(|pair| (text(&pair[0]), pair[1].clone())).collect()
}

#[test]
fn hello_tells_what_redis_tells_and_switches_the_protocol() {
    let (redis, nearside, mut client) = pair(&[]);
    let version = fields(&redis.client().call("HELLO"))["version"].clone();
    let knows_version = || (fields(&nearside.client().call("HELLO"))["version"] == version).then_some(());
    eventually("it has asked its upstream for the version", SOON, knows_version);
    for (line, first) in
        [("HELLO", b'*'), ("HELLO 3", b'%'), ("HELLO", b'%'), ("HELLO 2", b'*'), ("HELLO 3 SETNAME me", b'%')]
    {
        let mut direct = redis.client();
        let protocol3 = first == b'%';
        let expected = fields(&direct.call(if protocol3 { "HELLO 3" } else { "HELLO 2" }));
        let reply = client.call(line);
        assert_eq!(reply[0], first, "{line}");
        let fields = fields(&reply);
        for name in ["server", "version", "proto", "mode", "role"] {
            assert_eq!(fields[name], expected[name], "{name} of {line}");
        }
        assert!(fields["id"].integer().unwrap() > 0);
        assert!(fields.contains_key("modules"));
        let null = if protocol3 { "_\r\n" } else { "$-1\r\n" };
        assert_eq!(client.call("GET nosuch"), null, "after {line}");
    }
    assert_eq!(client.call("CLIENT GETNAME"), "$2\r\nme\r\n");
    let (one, other) = (nearside.client().call("HELLO 3"), nearside.client().call("HELLO 3"));
    assert!(fields(&one)["id"].integer() < fields(&other)["id"].integer(), "ids grow");
}

#[test]
fn hello_refuses_what_redis_refuses_in_its_words() {
    let (redis, nearside, _client) = pair(&[]);
    for line in [
        "HELLO 1",
        "HELLO 4",
        "HELLO x",
        "HELLO 3 NOSUCH",
        "HELLO 3 AUTH",
        "HELLO 3 AUTH default",
        "HELLO 3 SETNAME",
        "HELLO 2 NOSUCH x",
    ] {
        same_as_redis(&redis, &nearside, &[line, "PING", "GET nosuch"]);
    }
}

#[test]
fn a_password_is_asked_for_as_redis_asks() {
    let open = RedisServer::start();
    let locked = RedisServer::with(&["--requirepass", "secret"]);
    let nearside = if calibrating("password of its own") {
        Nearside::before(&locked)
    } else {
        Nearside::with(&open, &["--requirepass", "secret"])
    };
    for lines in [
        &["GET k", "PING", "SET k v", "COMMAND COUNT", "ECHO x", "SELECT 1", "CLIENT SETNAME x"][..],
        &[
            "AUTH",
            "AUTH a b c",
            "AUTH wrong",
            "AUTH default wrong",
            "AUTH nosuch secret",
            "GET k",
            "AUTH secret",
            "SET k v",
            "GET k",
            "AUTH wrong",
            "GET k",
        ],
        &["HELLO 3 AUTH default wrong", "HELLO 3 AUTH nosuch secret", "GET k", "AUTH default secret", "GET k"],
        &["AUTH secret", "RESET", "GET k", "AUTH secret", "GET k"],
    ] {
        same_as_redis(&locked, &nearside, lines);
    }
    let mut client = nearside.client();
    for line in ["HELLO", "HELLO 3"] {
        // How the text goes on depends on the server's version.
        assert!(client.call(line).starts_with(b"-NOAUTH HELLO must be called with the client already authenticated"));
    }
    assert_eq!(client.call("HELLO 3 AUTH default secret SETNAME me")[0], b'%');
    assert_eq!(client.call("GET k"), "$1\r\nv\r\n");
    assert_eq!(client.call("CLIENT GETNAME"), "$2\r\nme\r\n");
}

#[test]
fn before_the_password_a_request_is_small() {
    let open = RedisServer::start();
    let locked = RedisServer::with(&["--requirepass", "secret"]);
    let nearside = if calibrating("password of its own") {
        Nearside::before(&locked)
    } else {
        Nearside::with(&open, &["--requirepass", "secret"])
    };
    for request in ["*11\r\n", "*2\r\n$16385\r\n", "*10\r\n$3\r\nGET\r\n$99999\r\n"] {
        let answer = |mut client: Client| {
            client.send(request.as_bytes());
            client.rest_until_closed()
        };
        assert_eq!(
            answer(nearside.client()).escape_ascii().to_string(),
            answer(locked.client()).escape_ascii().to_string(),
            "{request:?}"
        );
    }
}

#[test]
fn without_a_password_auth_says_so_as_redis_says() {
    let (redis, nearside, _client) = pair(&[]);
    same_as_redis(&redis, &nearside, &["AUTH x", "AUTH default x", "AUTH nosuch x", "HELLO 3 AUTH nosuch x", "PING"]);
}

#[test]
fn the_upstreams_password_and_db_are_the_proxys_to_give() {
    let locked = RedisServer::with(&["--requirepass", "p@ss word"]);
    if calibrating("upstream password") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let listen = free_port();
    let mut command = nearside_command();
    command.args(["--listen", &format!("127.0.0.1:{listen}"), "--admin", "off"]);
    command.args(["--upstream", &format!("redis://:p%40ss%20word@{}/2", locked.address())]);
    let _process = Process::spawn(command, &folder.path().join("log"));
    let mut client = eventually("it listens", SOON, || Client::try_connect(&Address::local(listen)).ok());
    assert_eq!(client.call("SET k in-two"), "+OK\r\n");
    assert_eq!(client.call("GET k"), "$6\r\nin-two\r\n");
    let mut direct = locked.client();
    direct.command(&["AUTH", "p@ss word"]);
    direct.call("SELECT 2");
    assert_eq!(direct.call("GET k"), "$6\r\nin-two\r\n");
}

#[test]
fn select_keeps_to_the_dbs_there_are() {
    let (redis, nearside, _client) = pair(&[]);
    same_as_redis(
        &redis,
        &nearside,
        &[
            "SELECT 15",
            "SET k fifteen",
            "GET k",
            "SELECT 16",
            "GET k",
            "SELECT -1",
            "SELECT x",
            "SELECT",
            "SELECT 0",
            "GET k",
        ],
    );
    same_as_redis(&redis, &nearside, &["SELECT 3", "SET k three", "HELLO 2 SETNAME x y", "GET k", "RESET", "GET k"]);
}

#[test]
fn ping_echo_and_reset_answer_as_redis_does() {
    let (redis, nearside, _client) = pair(&[]);
    same_as_redis(
        &redis,
        &nearside,
        &[
            "PING",
            "PING x",
            "PING x y",
            "ECHO x",
            "ECHO",
            "RESET",
            "RESET x",
            "CLIENT SETNAME x",
            "RESET",
            "CLIENT GETNAME",
        ],
    );
}

#[test]
fn quit_answers_what_came_before_and_closes() {
    let (_redis, _nearside, mut client) = pair(&[]);
    client.send(b"SET k v\r\nGET k\r\nQUIT\r\nGET k\r\n");
    assert_eq!(client.rest_until_closed(), b"+OK\r\n$1\r\nv\r\n+OK\r\n");
}

#[test]
fn a_client_that_says_no_more_still_gets_its_answers() {
    let (_redis, _nearside, mut client) = pair(&[]);
    client.send(b"SET k v\r\nGETRANGE k 0 -1\r\nGET k\r\n");
    client.finish_sending();
    let rest = client.rest_until_closed();
    // Redis itself closes at once when it reads the end, and may drop answers that it has not written yet.
    let all = b"+OK\r\n$1\r\nv\r\n$1\r\nv\r\n";
    let is_answered = if calibrating("the end of what a client says") { all.starts_with(&rest) } else { rest == all };
    assert!(is_answered, "{}", rest.escape_ascii());
}

#[test]
fn names_and_ids_are_the_sessions_own() {
    let (redis, nearside, mut client) = pair(&[]);
    same_as_redis(
        &redis,
        &nearside,
        &[
            "CLIENT GETNAME",
            "CLIENT SETNAME me",
            "CLIENT GETNAME",
            "CLIENT SETNAME a\nb",
            "CLIENT SETNAME",
            "CLIENT NOSUCH",
            "CLIENT",
        ],
    );
    same_as_redis(
        &redis,
        &nearside,
        &[
            "CLIENT NO-EVICT ON",
            "CLIENT NO-EVICT OFF",
            "CLIENT NO-EVICT x",
            "CLIENT ID x",
            "CLIENT REPLY x",
            "CLIENT KILL x",
        ],
    );
    same_as_redis(
        &redis,
        &nearside,
        &["CLIENT KILL 1.2.3.4:5", "CLIENT KILL ID 999999", "CLIENT KILL ID x", "CLIENT LIST TYPE nosuch"],
    );
    let mut other = nearside.client();
    let (id, other_id) = (client.call("CLIENT ID").integer().unwrap(), other.call("CLIENT ID").integer().unwrap());
    assert!(id < other_id);
    client.call("CLIENT SETNAME first");
    other.call("SELECT 3");
    let info = client.call("CLIENT INFO").text();
    assert!(
        info.contains(&format!("id={id} ")) && info.contains("name=first") && info.contains("addr=127.0.0.1:"),
        "{info}"
    );
    let list = client.call("CLIENT LIST").text();
    assert!(list.contains(&format!("id={id} ")) && list.contains(&format!("id={other_id} ")), "{list}");
    assert!(
        list.split("\\n").any(|line| line.contains(&format!("id={other_id} ")) && line.contains("db=3 ")),
        "{list}"
    );
    let only = other.call(&format!("CLIENT LIST ID {id}")).text();
    assert!(only.contains("name=first") && !only.contains(&format!("id={other_id} ")), "{only}");
}

#[test]
fn what_libraries_say_when_they_connect_is_accepted() {
    let (_redis, _nearside, mut client) = pair(&[]);
    if calibrating("commands of newer servers") {
        return;
    }
    assert_eq!(client.call("CLIENT SETINFO LIB-NAME redis-py"), "+OK\r\n");
    assert_eq!(client.call("CLIENT SETINFO LIB-VER 8.0.0"), "+OK\r\n");
    assert!(client.call("CLIENT SETINFO NOSUCH x").is_error());
    assert_eq!(client.call("CLIENT NO-TOUCH ON"), "+OK\r\n");
    assert_eq!(client.call("CLIENT NO-TOUCH OFF"), "+OK\r\n");
    let info = client.call("CLIENT INFO").text();
    assert!(info.contains("lib-name=redis-py") && info.contains("lib-ver=8.0.0"), "{info}");
}

#[test]
fn a_killed_client_is_closed_and_the_others_are_not() {
    let (_redis, nearside, mut client) = pair(&[]);
    let mut victim = nearside.client();
    let id = victim.call("CLIENT ID").integer().unwrap();
    assert_eq!(client.call(&format!("CLIENT KILL ID {id}")), ":1\r\n");
    assert_eq!(victim.rest_until_closed(), b"");
    let mut by_address = nearside.client();
    let info = by_address.call("CLIENT INFO").text();
    let address = info.split(' ').find_map(|field| field.strip_prefix("addr=")).unwrap().to_owned();
    assert_eq!(client.call(&format!("CLIENT KILL {address}")), "+OK\r\n");
    assert_eq!(by_address.rest_until_closed(), b"");
    assert_eq!(client.call("PING"), "+PONG\r\n");
}

#[test]
fn client_reply_leaves_out_just_the_replies_it_says() {
    let (_redis, _nearside, mut client) = pair(&[]);
    for round in 0..10 {
        // Forwarded, cached, own: the replies of all of them are left out, and none of another's.
        client.send(b"CLIENT REPLY SKIP\r\nSET k v\r\nGET k\r\n");
        assert_eq!(client.reply(), "$1\r\nv\r\n", "round {round}");
        client.send(b"CLIENT REPLY OFF\r\nSET k w\r\nGET k\r\nPING\r\nNOSUCH\r\nGETRANGE k 0 -1\r\nCLIENT REPLY ON\r\nGET k\r\n");
        assert_eq!(client.reply(), "+OK\r\n");
        assert_eq!(client.reply(), "$1\r\nw\r\n");
        client.send(b"CLIENT REPLY SKIP\r\nGET k\r\nPING after\r\n");
        assert_eq!(client.reply(), "$5\r\nafter\r\n");
    }
}

#[test]
fn the_command_table_is_told_as_the_upstream_tells_it() {
    let (redis, nearside, mut client) = pair(&[]);
    same_as_redis(
        &redis,
        &nearside,
        &[
            "COMMAND COUNT",
            "COMMAND INFO get",
            "COMMAND INFO nosuch get",
            "COMMAND DOCS get",
            "COMMAND GETKEYS MSET a 1 b 2",
            "COMMAND GETKEYS PING",
            "COMMAND GETKEYS EVAL x 2 a b",
            "COMMAND NOSUCH",
            "COMMAND GETKEYS",
        ],
    );
    let names = |mut client: Client| {
        let mut names = client.call("COMMAND LIST").elements();
        names.sort();
        names
    };
    assert_eq!(names(nearside.client()), names(redis.client()));
    let all = redis.client().call("COMMAND").elements().len();
    assert_eq!(client.call("COMMAND").elements().len(), all);
    assert_eq!(client.call("HELLO 3")[0], b'%');
    assert_eq!(client.call("COMMAND").elements().len(), all, "redis-cli asks in RESP3");
    assert_eq!(client.call("COMMAND DOCS").elements().len(), redis.client().call("COMMAND DOCS").elements().len());
}

#[test]
fn info_is_the_upstreams_with_a_part_of_the_proxys_own() {
    if calibrating("part of INFO") {
        return;
    }
    let (_redis, _nearside, mut client) = pair(&[]);
    for resp3 in [false, true] {
        if resp3 {
            client.call("HELLO 3");
        }
        let info = client.call("INFO");
        let text = String::from_utf8(info.bulk().unwrap().to_vec()).unwrap();
        assert!(text.contains("redis_version:") && text.contains("\r\n# Nearside\r\n"), "{text}");
        assert!(text.ends_with("\r\n"));
        // What a client may look for with a simple parser: every line is empty, a heading, or a field.
        let body = text.strip_prefix("txt:").unwrap_or(&text);
        assert!(body.lines().all(|line| line.is_empty() || line.starts_with('#') || line.contains(':')), "{text}");
        let section = client.call("INFO nearside");
        assert!(section.text().contains("# Nearside") && !section.text().contains("redis_version"), "{section:?}");
        assert!(!client.call("INFO server").text().contains("# Nearside"));
    }
}

#[test]
fn one_client_too_many_is_told_so() {
    if calibrating("limit of clients of 3") {
        return;
    }
    let redis = RedisServer::start();
    let nearside = Nearside::with(&redis, &["--max-clients", "3"]);
    // One that has left may be counted for a moment yet.
    let let_in = || {
        let mut client = nearside.client();
        client.try_send(b"PING\r\n").ok()?;
        (client.try_reply().ok()? == "+PONG\r\n").then_some(client)
    };
    let mut clients = (0..3).map(|_| eventually("there is room", SOON, let_in)).collect::<Vec<_>>();
    for _ in 0..3 {
        assert_eq!(nearside.client().rest_until_closed(), b"-ERR max number of clients reached\r\n");
    }
    clients.pop();
    clients.push(eventually("there is room again", SOON, let_in));
    for client in &mut clients {
        assert_eq!(client.call("PING"), "+PONG\r\n");
    }
}

#[test]
fn an_open_port_without_a_password_serves_this_machine_only() {
    let Some(outside) = address_of_this_machine() else {
        eprintln!("this machine has no address but loopback: nobody can come from outside");
        return;
    };
    if calibrating("protected mode") {
        return;
    }
    let redis = RedisServer::start();
    for (args, served) in [(&[][..], false), (&["--protected-mode", "no"], true), (&["--requirepass", "secret"], true)]
    {
        let port = free_port();
        let folder = tempfile::tempdir().unwrap();
        let mut command = nearside_command();
        command
            .args(["--listen", &format!("*:{port}"), "--admin", "off", "--upstream", &redis.address().url()])
            .args(args);
        let _process = Process::spawn(command, &folder.path().join("log"));
        let mut local = eventually("it listens", SOON, || Client::try_connect(&Address::local(port)).ok());
        assert!(!local.call("PING").starts_with(b"-DENIED"), "{args:?}");
        let mut remote = Client::connect(&Address::Tcp(SocketAddr::new(outside, port)));
        if served {
            assert!(!remote.call("PING").starts_with(b"-DENIED"), "{args:?}");
        } else {
            let rest = remote.rest_until_closed();
            assert!(rest.starts_with(b"-DENIED "), "{}", rest.escape_ascii());
        }
    }
}

/// An address that is not loopback: what a packet to the outside would be sent from. Nothing is sent.
fn address_of_this_machine() -> Option<std::net::IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback() && !address.is_unspecified()).then_some(address)
}

#[test]
fn a_silent_client_is_closed_only_if_a_setting_says_so() {
    if calibrating("idle timeout") {
        return;
    }
    let (_redis, nearside, mut idle) = pair(&["--idle-timeout", "1s"]);
    let mut busy = nearside.client();
    assert_eq!(idle.call("PING"), "+PONG\r\n");
    for _ in 0..30 {
        assert_eq!(busy.call("PING"), "+PONG\r\n");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(idle.rest_until_closed(), b"");
    assert_eq!(busy.call("PING"), "+PONG\r\n");
}

#[test]
fn a_pause_holds_writes_or_everything_until_its_end() {
    let redis = RedisServer::start();
    let nearside = Nearside::with(&redis, &["--workers", "2"]);
    let (mut admin, mut client, mut other) = (nearside.client(), nearside.client(), nearside.client());
    client.call("SET k 1");
    for line in ["CLIENT PAUSE", "CLIENT PAUSE x", "CLIENT PAUSE -1", "CLIENT PAUSE 1 NOW", "CLIENT UNPAUSE"] {
        assert_eq!(admin.call(line), redis.client().call(line), "{line}");
    }
    assert_eq!(admin.call("CLIENT PAUSE 60000 WRITE"), "+OK\r\n");
    // The other worker hears of it by mail.
    std::thread::sleep(Duration::from_millis(50));
    client.send(&nearside_tests::words("SET k 2"));
    other.send(&[&["MULTI"][..], &["SET", "k", "3"], &["EXEC"]].map(nearside_tests::request).concat());
    assert_eq!(other.reply(), "+OK\r\n");
    assert_eq!(admin.call("GET k"), "$1\r\n1\r\n");
    assert_eq!(redis.client().call("GET k"), "$1\r\n1\r\n");
    for (block, replies) in
        [(["MULTI", "GET k", "EXEC"], "*1\r\n$1\r\n1\r\n"), (["MULTI", "PING", "EXEC"], "*1\r\n+PONG\r\n")]
    {
        assert_eq!(block.map(|line| admin.call(line)), ["+OK\r\n", "+QUEUED\r\n", replies], "nothing is written");
    }
    assert_eq!(admin.call("CLIENT UNPAUSE"), "+OK\r\n");
    assert_eq!(client.reply(), "+OK\r\n");
    assert_eq!([other.reply(), other.reply()], ["+QUEUED\r\n", "*1\r\n+OK\r\n"]);
    assert_eq!(admin.call("CLIENT PAUSE 300"), "+OK\r\n");
    assert_eq!(admin.call("PING"), "+PONG\r\n", "once it is over");
    client.call("PING");
}

#[test]
fn no_command_without_its_arguments_harms_anybody() {
    if calibrating("nearside") {
        return;
    }
    let (redis, nearside, mut other) = pair(&["--workers", "1"]);
    let names = redis.client().call("COMMAND LIST").elements();
    let names: Vec<_> = names.iter().map(|name| String::from_utf8(name.bulk().unwrap().to_vec()).unwrap()).collect();
    assert!(names.len() > 200, "{names:?}");
    // The server that is asked is to be there afterwards.
    let harmless = names.iter().filter(|name| {
        !["shutdown", "failover", "debug", "sync", "psync", "replicaof", "slaveof"].contains(&name.as_str())
    });
    for name in harmless {
        for before in [
            &[][..],
            &["MULTI"],
            &["WATCH k"],
            &["WATCH k", "MULTI"],
            &["MULTI", "GET k"],
            &["HELLO 3", "CLIENT TRACKING ON"],
        ] {
            for arguments in ["", " x", " x 1"] {
                let mut client = nearside.client();
                let line = format!("{name}{arguments}");
                client.send(&before.iter().flat_map(|line| words(line)).chain(words(&line)).collect::<Vec<_>>());
                before.iter().for_each(|_| drop(client.reply()));
                drop(client);
            }
        }
        assert_eq!(other.call("ECHO here"), "$4\r\nhere\r\n", "after {name}");
    }
}

#[test]
fn who_hangs_up_in_a_pause_waits_no_more_and_nothing_is_done_for_it() {
    let (redis, nearside, mut admin) = pair(&[]);
    assert_eq!(admin.call("CLIENT PAUSE 60000 WRITE"), "+OK\r\n");
    for _ in 0..5 {
        let client = nearside.client();
        client.writer().write_all(&[words("GET k"), words("INCR k")].concat()).unwrap();
        std::thread::sleep(Duration::from_millis(50));
    }
    if !calibrating("CLIENT LIST of its own") {
        eventually("their sessions have ended", SOON, || {
            (admin.call("CLIENT LIST").text().matches("id=").count() == 1).then_some(())
        });
    }
    assert_eq!(admin.call("CLIENT UNPAUSE"), "+OK\r\n");
    assert_eq!(admin.call("INCR k"), ":1\r\n");
    drop(redis);
}

#[test]
fn who_reads_slowly_is_not_idle() {
    let (_redis, _nearside, mut client) = pair(&["--idle-timeout", "1s"]);
    assert_eq!(client.call("SETRANGE k 30000000 x"), ":30000001\r\n");
    client.writer().write_all(&words("GETRANGE k 0 -1")).unwrap();
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(client.reply().bulk().map(<[u8]>::len), Some(30_000_001));
    assert_eq!(client.call("PING"), "+PONG\r\n");
}
