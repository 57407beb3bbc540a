//! Pub/sub and MONITOR: what Redis says, before one server and before a cluster; no message lost, doubled or out of order.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::time::Duration;

use nearside_tests::{
    Client, Nearside, RedisCluster, RedisServer, calibrating, eventually, holds_for, request, same_before_a_cluster,
    same_before_one_server, words,
};

const SOON: Duration = Duration::from_secs(15);

const SUBSCRIPTIONS: &str = "
    a: UNSUBSCRIBE
    a: PUNSUBSCRIBE
    a: SUNSUBSCRIBE
    a: UNSUBSCRIBE {t}a
    a> UNSUBSCRIBE {t}a {t}b
    a< 2
    a> SUBSCRIBE {t}a {t}b {t}a
    a< 3
    a: SUBSCRIBE {t}a
    a: PSUBSCRIBE {t}?
    b~ PUBLISH {t}a one
    a< 2
    b~ PUBLISH {t}other two
    b~ PUBLISH {t}b three
    a< 2
    a> SSUBSCRIBE {t}s {t}a
    a< 2
    b: SPUBLISH {t}s four
    a<
    b: SPUBLISH {t}a five
    a<
    b: SPUBLISH {t}b six
    a> UNSUBSCRIBE {t}a {t}nosuch {t}a
    a< 3
    b~ PUBLISH {t}a seven
    a<
    a: PUNSUBSCRIBE
    b~ PUBLISH {t}a eight
    b~ PUBLISH {t}b nine
    a<
    a: UNSUBSCRIBE
    a: UNSUBSCRIBE
    a: GET {t}k
    a: SUNSUBSCRIBE {t}a
    a: SUNSUBSCRIBE
    a: SUNSUBSCRIBE {t}a
    a: GET {t}k
    a: PING";

const BESIDE: &str = "
    a: SUBSCRIBE {t}a
    a: SET {t}k v
    a: GET {t}k
    a: GET {t}k
    b~ PUBLISH {t}a one
    a<
    a: PING
    a: PING text
    a: PING two texts
    a: ECHO text
    a: GET
    a: NOSUCH
    a: CLIENT NOSUCH
    a: CONFIG NOSUCH
    a: CONFIG GET maxmemory
    a: CLIENT GETNAME
    a: SELECT 0
    a: HELLO 9
    a: COMMAND COUNT now
    a: SUBSCRIBE
    a: PSUBSCRIBE
    a: MONITOR now
    a: INCR {t}n
    a: BLPOP {t}q 0.01
    a: MULTI
    a: INCR {t}n
    a: EXEC
    b~ PUBLISH {t}a two
    a<
    a: WATCH {t}k
    b: SET {t}k other
    a: MULTI
    a: GET {t}k
    a: EXEC
    a: UNSUBSCRIBE
    a: GET {t}k";

const PROTOCOLS: &str = "
    a~ HELLO 3
    a: SUBSCRIBE {t}a
    a~ HELLO 2
    a: GET {t}k
    a: PING
    a~ HELLO 3
    b~ PUBLISH {t}a one
    a<
    a: PSUBSCRIBE {t}p*
    b~ PUBLISH {t}p two
    a<
    a: PUNSUBSCRIBE
    a: UNSUBSCRIBE
    a~ HELLO 2
    a: PING
    a: SUBSCRIBE {t}a
    a: CLIENT REPLY OFF
    a: PING";

const SILENT: &str = "
    a> CLIENT REPLY OFF
    a> SUBSCRIBE {t}a
    a<
    a> PING
    a> SUBSCRIBE
    b~ PUBLISH {t}a one
    a<
    a> UNSUBSCRIBE
    a<
    a> UNSUBSCRIBE
    a<
    a: CLIENT REPLY ON
    a: GET {t}k";

const ENDS: &str = "
    a: SUBSCRIBE {t}a
    a: PSUBSCRIBE {t}p
    a: SSUBSCRIBE {t}s
    a: RESET
    b~ PUBLISH {t}p one
    a: GET {t}k
    a: PING
    a: UNSUBSCRIBE
    a: SUBSCRIBE {t}a
    a: WATCH {t}k
    a: RESET
    a: SUBSCRIBE {t}a
    b~ PUBLISH {t}a two
    a<
    a: QUIT
    a!
    b: SUBSCRIBE {t}a
    c~ PUBLISH {t}a three
    b<";

const IN_ORDER: &str = "
    a> SET {t}k 1
    a> GET {t}k
    a> SUBSCRIBE {t}a {t}b
    a> PING
    a> UNSUBSCRIBE {t}a
    a> UNSUBSCRIBE {t}b
    a> GET {t}k
    a> SUBSCRIBE {t}a
    a> UNSUBSCRIBE
    a> SET {t}k 2
    a> GET {t}k
    a< 12";

const SCRIPTS: [&str; 6] = [SUBSCRIPTIONS, BESIDE, PROTOCOLS, SILENT, ENDS, IN_ORDER];

#[test]
fn subscribers_are_told_what_redis_tells_them() {
    same_before_one_server(&SCRIPTS);
}

#[test]
fn before_a_cluster_subscribers_are_told_what_redis_tells_them() {
    same_before_a_cluster(&SCRIPTS);
}

fn resp3(nearside: &Nearside) -> Client {
    let mut client = nearside.client();
    assert!(client.call("HELLO 3").starts_with(b"%"));
    client
}

#[test]
fn all_subscriptions_end_without_their_names() {
    let redis = RedisServer::start();
    let nearside = Nearside::before(&redis);
    for (subscribe, unsubscribe) in
        [("SUBSCRIBE", "UNSUBSCRIBE"), ("PSUBSCRIBE", "PUNSUBSCRIBE"), ("SSUBSCRIBE", "SUNSUBSCRIBE")]
    {
        let mut client = nearside.client();
        client.send(&words(&format!("{subscribe} a b c d")));
        (0..4).for_each(|_| _ = client.reply());
        client.send(&words(unsubscribe));
        let confirmed: Vec<_> = (0..4).map(|_| client.reply().words()).collect();
        let names: BTreeSet<_> = confirmed.iter().map(|texts| texts[1].as_str()).collect();
        assert_eq!(names, BTreeSet::from(["a", "b", "c", "d"]));
        let counts: Vec<_> = confirmed.iter().map(|texts| texts[2].as_str()).collect();
        assert_eq!(counts, [":3\\r\\n", ":2\\r\\n", ":1\\r\\n", ":0\\r\\n"]);
        assert_eq!(client.call("GET k"), "$-1\r\n");
    }
    eventually("no connection is kept", SOON, || (redis.subscribers() == 0).then_some(()));
}

#[test]
fn what_a_session_publishes_before_it_subscribes_it_does_not_hear() {
    for _ in 0..20 {
        let redis = RedisServer::start();
        let nearside = Nearside::before(&redis);
        let mut client = resp3(&nearside);
        let lines = ["PUBLISH a 1", "SUBSCRIBE a", "PUBLISH a 2", "UNSUBSCRIBE a", "PUBLISH a 3", "ECHO end"];
        client.send(&lines.iter().flat_map(|line| words(line)).collect::<Vec<_>>());
        let mut heard = Vec::new();
        loop {
            let reply = client.reply();
            if reply == "$3\r\nend\r\n" {
                break;
            }
            if reply.starts_with(b">") && reply.words()[0] == "message" {
                heard.push(reply.words()[2].clone());
            }
        }
        assert_eq!(heard, ["2"]);
    }
}

#[test]
fn names_and_messages_may_hold_every_byte_and_be_long() {
    let redis = RedisServer::start();
    let nearside = Nearside::before(&redis);
    let channel: Vec<u8> = (0..=255).chain(*b"\r\n$-1\r\n").collect();
    for resp in ["2", "3"] {
        let (mut client, mut publisher) = (nearside.client(), nearside.client());
        client.call(&format!("HELLO {resp}"));
        let mark = if resp == "2" { b'*' } else { b'>' };
        let confirmed = client.command(&[b"SUBSCRIBE".as_ref(), &channel]);
        assert_eq!((confirmed[0], confirmed.elements()[1].bulk().unwrap()), (mark, &channel[..]));
        for length in [0, 1, 1000, 65_530, 65_536, 70_000, 300_000, 9_000_000] {
            let message: Vec<u8> = (0..length).map(|place| (place % 251) as u8).collect();
            publisher.send(&request(&[b"PUBLISH".as_ref(), &channel, &message]));
            publisher.send(&request(&[b"PUBLISH".as_ref(), &channel, b"behind"]));
            let told = client.reply();
            assert_eq!(told[0], mark);
            assert!(told.elements()[1].bulk() == Some(&channel) && told.elements()[2].bulk() == Some(&message));
            assert_eq!(client.reply().elements()[2].bulk(), Some(b"behind".as_ref()));
            // The client before this one may not be gone yet.
            assert!([publisher.reply(), publisher.reply()].iter().all(|count| count.integer() >= Some(1)));
        }
    }
}

const PUBLISHERS: usize = 4;
const MESSAGES: usize = 250;

/// Every subscriber hears of every publisher's messages, each once and in order: on its channel, and by a pattern.
fn crowd(nearside: &Nearside, direct: &RedisServer, subscribers: usize) {
    let subscribe = |number: usize| {
        let mut client = if number.is_multiple_of(2) { nearside.client() } else { resp3(nearside) };
        client.send(&words("SUBSCRIBE all unused"));
        client.send(&words("PSUBSCRIBE by-pattern:*"));
        (0..3).for_each(|_| _ = client.reply());
        client
    };
    let mut clients: Vec<_> = (0..subscribers).map(subscribe).collect();
    std::thread::scope(|scope| {
        for publisher in 0..PUBLISHERS {
            let mut client = if publisher == 0 { direct.client() } else { nearside.client() };
            scope.spawn(move || {
                for message in 0..MESSAGES {
                    let channel = if message % 2 == 0 { "all" } else { "by-pattern:x" };
                    assert!(client.call(&format!("PUBLISH {channel} {publisher}:{message}")).integer().is_some());
                }
            });
        }
        for some in clients.chunks_mut(subscribers.div_ceil(4)) {
            scope.spawn(|| some.iter_mut().for_each(hear_all));
        }
    });
}

fn hear_all(client: &mut Client) {
    let mut next = [0; PUBLISHERS];
    for _ in 0..PUBLISHERS * MESSAGES {
        let heard = client.reply().words();
        let (publisher, message) = heard.last().unwrap().split_once(':').unwrap();
        let (publisher, message): (usize, usize) = (publisher.parse().unwrap(), message.parse().unwrap());
        assert_eq!(message, next[publisher], "of publisher {publisher}: {heard:?}");
        assert_eq!(heard[0], if message % 2 == 0 { "message" } else { "pmessage" });
        next[publisher] += 1;
    }
    client.send(&words("UNSUBSCRIBE all unused"));
    let left = [client.reply(), client.reply()].map(|confirmed| confirmed.words()[2].clone());
    assert_eq!(left, [":2\\r\\n", ":1\\r\\n"], "nothing more has come");
}

#[test]
fn many_subscribers_hear_every_message_once_and_in_order() {
    let redis = RedisServer::start();
    crowd(&Nearside::with(&redis, &["--workers", "2"]), &redis, 300);
}

#[test]
fn before_a_cluster_many_subscribers_hear_every_message_once_and_in_order() {
    if calibrating("cluster") {
        return;
    }
    let cluster = RedisCluster::start(2);
    crowd(&Nearside::ready_before_cluster(&cluster, &["--workers", "2"]), cluster.node(1), 100);
}

#[test]
fn replies_between_messages_go_to_their_requests() {
    let redis = RedisServer::start();
    let nearside = Nearside::before(&redis);
    let mut client = resp3(&nearside);
    client.call("SET k cached");
    client.call("SUBSCRIBE a");
    std::thread::scope(|scope| {
        let mut publisher = nearside.client();
        scope.spawn(move || {
            for round in 0..200 {
                let lines: Vec<_> = (0..20).map(|n| format!("PUBLISH a {}", round * 20 + n)).collect();
                publisher.pipeline(&lines.iter().map(String::as_str).collect::<Vec<_>>());
            }
        });
        let (mut heard, mut tag) = (0, 0);
        while heard < 4000 {
            let lines =
                [format!("ECHO e{tag}"), "GET k".into(), format!("SET k{tag} t{tag}"), format!("GETRANGE k{tag} 0 -1")];
            client.send(&lines.iter().flat_map(|line| words(line)).collect::<Vec<_>>());
            let echoed = format!("e{tag}");
            let kept = format!("t{tag}");
            let bulk = |text: &str| format!("${}\r\n{text}\r\n", text.len());
            for expected in [bulk(&echoed), bulk("cached"), "+OK\r\n".to_owned(), bulk(&kept)] {
                let reply = loop {
                    let reply = client.reply();
                    if !reply.starts_with(b">") {
                        break reply;
                    }
                    assert_eq!(reply.words(), ["message", "a", &heard.to_string()]);
                    heard += 1;
                };
                assert_eq!(reply, *expected);
            }
            tag += 1;
        }
    });
}

#[test]
fn a_subscriber_hears_nothing_more_of_a_lost_upstream_and_knows_it() {
    if calibrating("upstream to lose") {
        return;
    }
    let mut redis = RedisServer::start();
    let nearside = Nearside::before(&redis);
    let (mut two, mut three, mut monitor) = (nearside.client(), resp3(&nearside), nearside.client());
    two.call("SUBSCRIBE a");
    three.call("PSUBSCRIBE a");
    assert_eq!(monitor.call("MONITOR"), "+OK\r\n");
    let mut publisher = nearside.client();
    publisher.call("PUBLISH a last");
    let told = |client: &mut Client| client.reply().words().last().unwrap().clone();
    assert_eq!([told(&mut two), told(&mut three)], ["last", "last"]);
    redis.restart();
    assert_eq!(two.rest_until_closed(), b"");
    assert_eq!(three.rest_until_closed(), b"");
    monitor.rest_until_closed();
    eventually("it serves again", SOON, || nearside.client().call("SUBSCRIBE a").starts_with(b"*3").then_some(()));
    assert!(nearside.metrics()["nearside_clients_cut_off_total{reason=\"upstream-lost\"}"] >= 3.0);
}

#[test]
fn a_server_that_ends_one_connection_ends_that_client() {
    if calibrating("upstream to lose") {
        return;
    }
    let redis = RedisServer::start();
    let nearside = Nearside::before(&redis);
    let mut client = resp3(&nearside);
    client.call("SUBSCRIBE a");
    // It waits for something else as well.
    client.send(&words("BLPOP q 0"));
    assert_eq!(redis.client().call("CLIENT KILL TYPE pubsub"), ":1\r\n");
    assert_eq!(client.rest_until_closed(), b"");
    assert_eq!(nearside.client().call("GET k"), "$-1\r\n");
}

#[test]
fn a_server_that_hangs_ends_its_subscribers_and_one_that_is_quiet_does_not() {
    if calibrating("upstream timeout") {
        return;
    }
    let redis = RedisServer::start();
    let nearside = Nearside::with(&redis, &["--upstream-timeout", "400ms", "--idle-timeout", "1s"]);
    let (mut client, mut monitor) = (nearside.client(), nearside.client());
    client.call("SUBSCRIBE a");
    monitor.call("MONITOR");
    holds_for("it stays", Duration::from_millis(3500), || redis.subscribers() == 1);
    redis.client().call("PUBLISH a one");
    assert_eq!(client.reply().words(), ["message", "a", "one"]);
    redis.stop();
    assert_eq!(client.rest_until_closed(), b"");
    let shown = String::from_utf8_lossy(&monitor.rest_until_closed()).into_owned();
    assert!(shown.contains("PUBLISH") && !shown.contains("Hello"), "{shown}");
    redis.resume();
}

#[test]
fn an_upstream_that_is_down_is_told_and_the_client_goes_on() {
    if calibrating("upstream to lose") {
        return;
    }
    let mut redis = RedisServer::start();
    let nearside = Nearside::before(&redis);
    redis.kill();
    let mut client = resp3(&nearside);
    for command in ["SUBSCRIBE a b", "PSUBSCRIBE a", "SSUBSCRIBE a", "MONITOR"] {
        let reply = client.call(command);
        assert!(reply.starts_with(b"-UPSTREAM ") && reply.ends_with(b"the command was not sent\r\n"), "{reply:?}");
    }
    redis.start_again();
    client.send(&words("SUBSCRIBE a b"));
    assert_eq!([client.reply(), client.reply()].map(|reply| reply.words()[2].clone()), [":1\\r\\n", ":2\\r\\n"]);
}

#[test]
fn who_leaves_hears_nothing_more() {
    let redis = RedisServer::start();
    let nearside = Nearside::before(&redis);
    let gone = |what: &str| eventually(what, SOON, || (redis.subscribers() == 0).then_some(()));
    let mut client = nearside.client();
    client.call("SUBSCRIBE a");
    assert_eq!(redis.subscribers(), 1);
    drop(client);
    gone("a client has hung up");
    let mut client = nearside.client();
    let id = client.call("CLIENT ID").integer().unwrap();
    client.call("SUBSCRIBE a");
    assert_eq!(nearside.client().call(&format!("CLIENT KILL ID {id} TYPE pubsub")), ":1\r\n");
    assert_eq!(client.rest_until_closed(), b"");
    gone("a client was killed");
    for last in ["QUIT", "RESET", "UNSUBSCRIBE"] {
        let mut client = nearside.client();
        client.call("SUBSCRIBE a");
        client.call(last);
        gone(last);
    }
}

#[test]
fn client_list_shows_who_has_subscribed_to_what() {
    let redis = RedisServer::start();
    let nearside = Nearside::before(&redis);
    let mut client = resp3(&nearside);
    let field = |line: &str, name: &str| -> String {
        line.split_whitespace().find_map(|field| field.strip_prefix(name)).unwrap_or_default().to_owned()
    };
    let mut shown = |lines: &[&str]| {
        for line in lines {
            client.call(line);
        }
        let line = String::from_utf8_lossy(client.call("CLIENT INFO").bulk().unwrap()).into_owned();
        ["flags=", "sub=", "psub=", "ssub="].map(|name| field(&line, name))
    };
    assert_eq!(shown(&[]), ["N", "0", "0", "0"]);
    assert_eq!(shown(&["SUBSCRIBE a", "SUBSCRIBE b", "PSUBSCRIBE p", "SSUBSCRIBE s"]), ["P", "2", "1", "1"]);
    let list = |kind: &str| nearside.client().call(&format!("CLIENT LIST TYPE {kind}")).text().matches("id=").count();
    assert_eq!((list("pubsub"), list("normal")), (1, 1));
    assert_eq!(shown(&["UNSUBSCRIBE a", "UNSUBSCRIBE b", "PUNSUBSCRIBE"]), ["P", "0", "0", "1"]);
    assert_eq!(shown(&["SUNSUBSCRIBE", "MONITOR"])[0], "O");
}

#[test]
fn a_subscriber_that_does_not_read_is_cut_off_and_the_others_are_not() {
    if calibrating("output limits") {
        return;
    }
    let redis = RedisServer::start();
    let nearside = Nearside::with(&redis, &["--output-limit-hard", "4MiB", "--output-limit-soft", "4MiB"]);
    let (mut slow, mut other, mut publisher) = (nearside.client(), nearside.client(), nearside.client());
    slow.call("SUBSCRIBE a");
    other.call("SUBSCRIBE a");
    let message = "x".repeat(100_000);
    for _ in 0..300 {
        publisher.call(&format!("PUBLISH a {message}"));
        assert_eq!(other.reply().elements()[2].bulk().map(<[u8]>::len), Some(message.len()));
    }
    eventually("the slow one is gone", SOON, || (redis.subscribers() == 1).then_some(()));
    assert!(slow.rest_until_closed().len() < 300 * message.len());
    publisher.call("PUBLISH a last");
    assert_eq!(other.reply().words(), ["message", "a", "last"]);
}

#[test]
fn a_channel_that_the_user_may_not_hear_is_refused_in_redis_s_words() {
    if calibrating("user of its own upstream") {
        return;
    }
    let redis = RedisServer::start();
    assert_eq!(redis.client().call("ACL SETUSER u on >pw ~* +@all resetchannels &ok*"), "+OK\r\n");
    let nearside = Nearside::with_url(&redis.address().url().replace("redis://", "redis://u:pw@"), &[]);
    let mut client = nearside.client();
    let refused = "-NOPERM No permissions to access a channel used as an argument\r\n";
    for command in ["SUBSCRIBE ok other", "PSUBSCRIBE *", "SSUBSCRIBE other"] {
        assert!(client.call(command).starts_with(b"-NOPERM "), "{command}: {refused}");
    }
    assert_eq!(client.call("GET k"), "$-1\r\n");
    assert_eq!(client.call("SUBSCRIBE ok").words(), ["subscribe", "ok", ":1\\r\\n"]);
    assert!(client.call("SUBSCRIBE other").starts_with(b"-NOPERM "));
    redis.client().call("PUBLISH ok one");
    assert_eq!(client.reply().words(), ["message", "ok", "one"]);
    redis.client().call("ACL SETUSER u resetchannels");
    assert_eq!(client.rest_until_closed(), b"", "Redis ends a connection that may not hear what it has subscribed to");
}

/// What MONITOR shows up to the command with this word, without what the proxy says for itself.
fn shown_until(monitor: &mut Client, last: &str) -> Vec<String> {
    let mut lines = Vec::new();
    loop {
        let line = monitor.reply().text();
        assert!(line.starts_with('+') && line.contains(" [0 "), "{line}");
        let command = line.split_once("] ").unwrap().1.replace("\\r\\n", "").replace("\\\"", "");
        let is_last = command.contains(last);
        lines.push(command);
        if is_last {
            return lines;
        }
    }
}

#[test]
fn monitor_shows_what_the_server_is_asked() {
    let redis = RedisServer::start();
    let nearside = Nearside::before(&redis);
    for resp in ["2", "3"] {
        let (mut monitor, mut client) = (nearside.client(), nearside.client());
        monitor.call(&format!("HELLO {resp}"));
        assert_eq!(monitor.call("MONITOR"), "+OK\r\n");
        for number in 0..50 {
            client.call(&format!("SET k{number} v"));
        }
        client.call("SET last x");
        let lines = shown_until(&mut monitor, "last");
        let sets: Vec<_> = lines.iter().filter(|line| line.starts_with("SET ")).collect();
        assert_eq!(sets.len(), 51, "{lines:?}");
        (0..50).for_each(|number| assert_eq!(*sets[number], format!("SET k{number} v")));
        assert_eq!(monitor.call("GET k1"), "-ERR Replica can't interact with the keyspace\r\n");
        assert_eq!(monitor.call("PUBLISH a x"), "-ERR Replica can't interact with the keyspace\r\n");
        // A second MONITOR has no reply.
        monitor.send(&words("MONITOR"));
        assert_eq!(monitor.call("ECHO text"), "$4\r\ntext\r\n");
        assert_eq!(monitor.call("RESET"), "+RESET\r\n");
        client.call("SET k v");
        assert_eq!(monitor.call("GET k"), "$1\r\nv\r\n");
        assert_eq!(monitor.call("MONITOR"), "+OK\r\n");
        assert_eq!(monitor.call("QUIT"), "+OK\r\n");
        assert_eq!(monitor.rest_until_closed(), b"");
    }
    let monitors = || redis.client().call("CLIENT LIST").text().matches("flags=O").count();
    eventually("no connection is kept", SOON, || (monitors() == 0).then_some(()));
}
