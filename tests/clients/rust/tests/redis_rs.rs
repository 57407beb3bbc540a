//! redis-rs with its default settings: the client of one server, and that of a cluster.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use nearside_clients_rust::{RELEASE, is_cluster, serves_clients_of_one_server, url};
use redis::streams::{StreamPendingReply, StreamReadOptions, StreamReadReply};
use redis::{Commands, ConnectionLike, ErrorKind, RedisResult, Script, ServerErrorKind, Value};

/// A connection of either kind.
struct Connection(Box<dyn ConnectionLike + Send>);

impl ConnectionLike for Connection {
    fn req_packed_command(&mut self, command: &[u8]) -> RedisResult<Value> {
        self.0.req_packed_command(command)
    }

    fn req_packed_commands(&mut self, commands: &[u8], offset: usize, count: usize) -> RedisResult<Vec<Value>> {
        self.0.req_packed_commands(commands, offset, count)
    }

    fn req_command(&mut self, command: &redis::Cmd) -> RedisResult<Value> {
        self.0.req_command(command)
    }

    fn get_db(&self) -> i64 {
        self.0.get_db()
    }

    fn supports_pipelining(&self) -> bool {
        self.0.supports_pipelining()
    }

    fn check_connection(&mut self) -> bool {
        self.0.check_connection()
    }

    fn is_open(&self) -> bool {
        self.0.is_open()
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Client,
    ClusterClient,
}
use Kind::{Client, ClusterClient};

impl Kind {
    fn connect(self) -> Connection {
        match self {
            Client => Connection(Box::new(redis::Client::open(url()).unwrap().get_connection().unwrap())),
            ClusterClient => {
                let client = redis::cluster::ClusterClient::new([url()]).unwrap();
                Connection(Box::new(client.get_connection().unwrap()))
            }
        }
    }

    /// Runs a test with keys of its own, where this kind can be used.
    fn run(self, test: &str, body: fn(Self, &dyn Fn(&str) -> String)) {
        let (name, usable) = match self {
            Client => ("client", serves_clients_of_one_server()),
            ClusterClient => ("cluster", is_cluster()),
        };
        if usable {
            body(self, &|key| format!("{{redis-rs:{name}:{test}}}{key}"));
        }
    }
}

#[test]
fn client_strings() {
    Client.run("strings", strings);
}
#[test]
fn client_streams() {
    Client.run("streams", streams);
}
#[test]
fn client_transactions() {
    Client.run("transactions", transactions);
}
#[test]
fn client_watch() {
    Client.run("watch", watch);
}
#[test]
fn client_scripts() {
    Client.run("scripts", scripts);
}
#[test]
fn client_blocking() {
    Client.run("blocking", blocking);
}
#[test]
fn client_scan() {
    Client.run("scan", scan);
}
#[test]
fn client_locks() {
    Client.run("locks", locks);
}
#[test]
fn cluster_strings() {
    ClusterClient.run("strings", strings);
}
#[test]
fn cluster_streams() {
    ClusterClient.run("streams", streams);
}
#[test]
fn cluster_scripts() {
    ClusterClient.run("scripts", scripts);
}
#[test]
fn cluster_blocking() {
    ClusterClient.run("blocking", blocking);
}
#[test]
fn cluster_locks() {
    ClusterClient.run("locks", locks);
}

fn strings(kind: Kind, key: &dyn Fn(&str) -> String) {
    let mut client = kind.connect();
    let every = (0..=255).collect::<Vec<u8>>();
    let big = vec![b'x'; 8 << 20];
    for value in [every, big] {
        let () = client.set(key("k"), &value[..]).unwrap();
        for _ in 0..2 {
            assert!(client.get::<_, Vec<u8>>(key("k")).unwrap() == value);
        }
    }
    assert_eq!(client.get::<_, Option<String>>(key("nosuch")).unwrap(), None);
    assert_eq!(client.mset::<_, _, String>(&[(key("a"), 1), (key("b"), 2)]).unwrap(), "OK");
    assert_eq!(
        client.mget::<_, Vec<Option<i64>>>(&[key("a"), key("nosuch"), key("b")]).unwrap(),
        [Some(1), None, Some(2)]
    );
    let fields = HashMap::from([("f".to_owned(), "v".to_owned()), ("g".to_owned(), "w".to_owned())]);
    let () = client.hset_multiple(key("h"), &fields.clone().into_iter().collect::<Vec<_>>()).unwrap();
    assert_eq!(client.hgetall::<_, HashMap<String, String>>(key("h")).unwrap(), fields);
    let error = client.lpush::<_, _, i64>(key("k"), 1).unwrap_err();
    assert_eq!(error.code(), Some("WRONGTYPE"));
}

fn streams(kind: Kind, key: &dyn Fn(&str) -> String) {
    let (mut client, stream) = (kind.connect(), key("x"));
    let () = client.xgroup_create_mkstream(&stream, "group", "0").unwrap();
    let seen = thread::scope(|scope| {
        let consumers = ["alice", "bob", "carol"].map(|name| {
            let stream = &stream;
            scope.spawn(move || consume(kind, stream, name))
        });
        let added = (0..200)
            .map(|n| client.xadd::<_, _, _, _, String>(&stream, "*", &[("n", n)]).unwrap())
            .collect::<BTreeSet<_>>();
        for _ in 0..3 {
            let _: String = client.xadd(&stream, "*", &[("n", "end")]).unwrap();
        }
        let seen = consumers.into_iter().flat_map(|consumer| consumer.join().unwrap()).collect::<Vec<_>>();
        assert_eq!(seen.len(), added.len());
        (seen.into_iter().collect::<BTreeSet<_>>(), added)
    });
    assert_eq!(seen.0, seen.1);
    let pending: StreamPendingReply = client.xpending(&stream, "group").unwrap();
    assert_eq!(pending.count(), 0);
}

/// What one consumer had, up to the entry that says that there is no more.
fn consume(kind: Kind, stream: &str, name: &str) -> Vec<String> {
    let (mut client, mut seen) = (kind.connect(), Vec::new());
    let options = StreamReadOptions::default().group("group", name).block(20_000).count(1);
    loop {
        let reply: StreamReadReply = client.xread_options(&[stream], &[">"], &options).unwrap();
        let entry = &reply.keys[0].ids[0];
        let _: i64 = client.xack(stream, "group", &[&entry.id]).unwrap();
        if entry.get::<String>("n").as_deref() == Some("end") {
            return seen;
        }
        seen.push(entry.id.clone());
    }
}

fn transactions(kind: Kind, key: &dyn Fn(&str) -> String) {
    let mut client = kind.connect();
    let mut block = redis::pipe();
    block.atomic().set(key("k"), "v").ignore().get(key("k")).incr(key("n"), 5);
    assert_eq!(block.query::<(String, i64)>(&mut client).unwrap(), ("v".to_owned(), 5));
    let mut wrong = redis::pipe();
    wrong.atomic().set(key("k"), "w").lpush(key("k"), 1);
    assert!(wrong.query::<Value>(&mut client).is_err());
    assert_eq!(client.get::<_, String>(key("k")).unwrap(), "w");
}

fn locks(kind: Kind, key: &dyn Fn(&str) -> String) {
    let (lock, total, tokens) = (key("lock"), key("n"), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                let mut client = kind.connect();
                for _ in 0..10 {
                    let token = tokens.fetch_add(1, Ordering::Relaxed);
                    let options = redis::SetOptions::default()
                        .conditional_set(redis::ExistenceCheck::NX)
                        .with_expiration(redis::SetExpiry::EX(30));
                    while client.set_options::<_, _, Option<String>>(&lock, token, options.clone()).unwrap().is_none() {
                        thread::yield_now();
                    }
                    // Not atomic by itself.
                    let value: Option<i64> = client.get(&total).unwrap();
                    let () = client.set(&total, value.unwrap_or(0) + 1).unwrap();
                    assert_eq!(Script::new(RELEASE).key(&lock).arg(token).invoke::<i64>(&mut client).unwrap(), 1);
                }
            });
        }
    });
    assert_eq!(kind.connect().get::<_, i64>(&total).unwrap(), 60);
}

fn watch(kind: Kind, key: &dyn Fn(&str) -> String) {
    let (number, lost) = (key("n"), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                let mut client = kind.connect();
                for _ in 0..25 {
                    let mut tries = 0;
                    let () = redis::transaction(&mut client, &[&number], |client, block| {
                        tries += 1;
                        let value: Option<i64> = client.get(&number)?;
                        block.set(&number, value.unwrap_or(0) + 1).ignore().query::<Option<()>>(client)
                    })
                    .unwrap();
                    lost.fetch_add(tries - 1, Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(kind.connect().get::<_, i64>(&number).unwrap(), 150);
    assert!(lost.into_inner() > 0, "else nobody was in anybody's way, and this tested nothing");
}

fn scripts(kind: Kind, key: &dyn Fn(&str) -> String) {
    let mut client = kind.connect();
    let script = Script::new(&format!("-- {}\nreturn redis.call('INCRBY', KEYS[1], ARGV[1])", key("")));
    let by_digest = |client: &mut Connection| -> RedisResult<i64> {
        redis::cmd("EVALSHA").arg(script.get_hash()).arg(1).arg(key("n")).arg(5).query(client)
    };
    let error = by_digest(&mut client).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Server(ServerErrorKind::NoScript));
    assert_eq!(script.key(key("n")).arg(5).invoke::<i64>(&mut client).unwrap(), 5);
    assert_eq!(by_digest(&mut client).unwrap(), 10);
}

fn blocking(kind: Kind, key: &dyn Fn(&str) -> String) {
    let (mut client, queue) = (kind.connect(), key("queue"));
    assert_eq!(client.blpop::<_, Option<(String, String)>>(key("nosuch"), 0.05).unwrap(), None);
    let seen = thread::scope(|scope| {
        let consumers = [(); 3].map(|()| {
            scope.spawn(|| {
                let (mut client, mut seen) = (kind.connect(), Vec::new());
                loop {
                    let (_, item): (String, String) = client.blpop(&queue, 20.0).unwrap();
                    match item.parse::<usize>() {
                        Ok(number) => seen.push(number),
                        Err(_) => return seen,
                    }
                }
            })
        });
        for number in 0..300 {
            let _: i64 = client.rpush(&queue, number).unwrap();
        }
        let _: i64 = client.rpush(&queue, &["end"; 3]).unwrap();
        let mut seen = consumers.into_iter().flat_map(|consumer| consumer.join().unwrap()).collect::<Vec<_>>();
        seen.sort_unstable();
        seen
    });
    assert_eq!(seen, (0..300).collect::<Vec<_>>());
}

fn scan(kind: Kind, _: &dyn Fn(&str) -> String) {
    let mut client = kind.connect();
    let names = (0..500).map(|number| format!("redis-rs:scan:{number}")).collect::<BTreeSet<_>>();
    for name in &names {
        let () = client.set(name, 1).unwrap();
    }
    let found =
        client.scan_match::<_, String>("redis-rs:scan:*").unwrap().collect::<RedisResult<BTreeSet<_>>>().unwrap();
    assert_eq!(found, names);
}

#[test]
fn client_pubsub() {
    if !serves_clients_of_one_server() {
        return;
    }
    let mut subscriber = redis::Client::open(url()).unwrap().get_connection().unwrap();
    let mut subscription = subscriber.as_pubsub();
    subscription.set_read_timeout(Some(nearside_clients_rust::PATIENCE)).unwrap();
    subscription.subscribe("redis-rs:channel").unwrap();
    subscription.psubscribe("redis-rs:pattern:?").unwrap();
    let mut client = Client.connect();
    for number in 0..100 {
        let _: i64 = client.publish("redis-rs:channel", number).unwrap();
    }
    let heard = (0..100).map(|_| subscription.get_message().unwrap().get_payload::<usize>().unwrap());
    assert_eq!(heard.collect::<Vec<_>>(), (0..100).collect::<Vec<_>>());
    let _: i64 = client.publish("redis-rs:pattern:a", "v").unwrap();
    assert_eq!(subscription.get_message().unwrap().get_channel_name(), "redis-rs:pattern:a");
}
