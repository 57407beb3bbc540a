//! At size: ten thousand clients, a hundred thousand commands or keys at once, many databases, clients that do not read.
//!
//! Nothing here is about speed, which `make bench SCENARIO=idle` measures.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nearside_tests::{
    Client, Crowd, Nearside, RedisCluster, RedisServer, Reply, calibrating, eventually, most_resident_bytes,
    open_files, raise_file_limit, request, resident_bytes, spread_keys, words,
};

const MIB: u64 = 1024 * 1024;
const SOON: Duration = Duration::from_secs(10);

const CLIENTS: usize = 10_000;
/// The files of this process beside the clients: other tests run at the same time.
const OTHER_FILES: usize = 1000;
/// The most memory that Nearside may take for that many, when all are idle and its cache is empty.
const IDLE_MEMORY: u64 = 100_000_000;
/// Each has its own lanes.
const WORKERS: usize = 4;
/// No node is to be given up because the machine is busy with all that is asked here.
const PATIENT: &[&str] = &["--cluster-node-timeout", "30000"];

/// Held by a test that has so many clients: this process has files for one such test at a time.
static FILES: Mutex<()> = Mutex::new(());

/// Nearside's connections to a server, counted by what they are called.
fn connections(server: &RedisServer) -> BTreeMap<String, usize> {
    let mut own = server.client();
    let own_id = format!("id={}", own.call("CLIENT ID").integer().unwrap());
    let list = own.call("CLIENT LIST");
    let mut counted = BTreeMap::new();
    for line in String::from_utf8_lossy(list.bulk().unwrap()).lines() {
        let mut fields = line.split(' ');
        let name = line.split(' ').find_map(|field| field.strip_prefix("name=")).unwrap();
        if fields.next() != Some(&own_id) && name.starts_with("nearside-") {
            *counted.entry(name.to_owned()).or_default() += 1;
        }
    }
    counted
}

fn cluster_with_a_key_of_each_node() -> (RedisCluster, Vec<String>) {
    let cluster = RedisCluster::with_replicas(3, 0, PATIENT);
    let keys = spread_keys(3, "key");
    keys.iter().for_each(|key| assert_eq!(cluster.client().command(&["SET", key, key]), "+OK\r\n"));
    (cluster, keys)
}

/// To be called with [`FILES`] held.
fn as_many_clients_as_there_are_files_for() -> usize {
    CLIENTS.min(raise_file_limit(CLIENTS + OTHER_FILES) - OTHER_FILES)
}

fn connections_of_all(cluster: &RedisCluster) -> Vec<BTreeMap<String, usize>> {
    (0..3).map(|number| connections(cluster.node(number))).collect()
}

/// Half of them speak RESP3: some of those that came to each worker, one of which gets every fourth.
fn say_hello(crowd: &mut Crowd) {
    let is_resp3 = |number: usize| number / WORKERS % 2 == 1;
    let hello = |number: usize| words(if is_resp3(number) { "HELLO 3" } else { "HELLO 2" });
    crowd.ask(hello, |number, reply| {
        assert!(reply.starts_with(if is_resp3(number) { b"%" } else { b"*" }), "client {number}: {reply:?}");
    });
}

/// Everybody reads a key of each node, by the cache and by a forward lane, and gets an answer from Nearside itself.
fn all_are_served(crowd: &mut Crowd, keys: &[String]) {
    crowd.call("PING", "+PONG\r\n");
    for key in keys {
        let expected = format!("${}\r\n{key}\r\n", key.len());
        crowd.call(&format!("GET {key}"), &expected);
        crowd.call(&format!("GETEX {key}"), &expected);
    }
}

fn no_clients_left(nearside: &Nearside) {
    eventually("all have left", SOON, || (nearside.metrics().total("nearside_connections") == 0.0).then_some(()));
}

fn idle_memory_is_in_bounds(process: u32, when: &str) {
    let mut resident = resident_bytes(process);
    eprintln!("{resident} bytes of memory {when}");
    eventually(&format!("less than {IDLE_MEMORY} bytes of memory are taken {when}"), SOON, || {
        resident = resident_bytes(process);
        (resident < IDLE_MEMORY).then_some(())
    });
    eprintln!("{resident} bytes a moment later");
}

#[test]
fn ten_thousand_clients_are_served_by_as_many_connections_upstream_as_a_hundred() {
    if calibrating("connections of its own") {
        return;
    }
    let _files = FILES.lock().unwrap_or_else(PoisonError::into_inner);
    let clients = as_many_clients_as_there_are_files_for();
    let (cluster, keys) = cluster_with_a_key_of_each_node();
    let (workers, most) = (WORKERS.to_string(), clients.to_string());
    let args = ["--workers", &workers, "--cache-size", "64MiB", "--max-clients", &most];
    let mut nearside = Nearside::ready_before_cluster(&cluster, &args);
    let process = nearside.process().id();

    let mut crowd = Crowd::connect(nearside.address(), 100);
    say_hello(&mut crowd);
    all_are_served(&mut crowd, &keys);
    let of_a_hundred = connections_of_all(&cluster);
    for (number, of_node) in of_a_hundred.iter().enumerate() {
        let count = |name: &str| of_node.get(name).copied().unwrap_or(0);
        let context = format!("node {number}: {of_node:?}");
        assert_eq!(count("nearside-forward"), WORKERS * 2, "one for each worker and protocol version; {context}");
        assert_eq!(count("nearside-loader"), 1, "{context}");
        assert!(count("nearside-control") <= 1, "{context}");
        assert!(of_node.len() <= 3, "{context}");
    }
    crowd.leave(0);
    no_clients_left(&nearside);
    let files = open_files(process);

    let mut crowd = Crowd::connect(nearside.address(), clients);
    say_hello(&mut crowd);
    all_are_served(&mut crowd, &keys);
    assert_eq!(connections_of_all(&cluster), of_a_hundred);
    assert_eq!(nearside.metrics().total("nearside_connections"), crowd.len() as f64);
    assert_eq!(nearside.client().rest_until_closed(), b"-ERR max number of clients reached\r\n");

    crowd.leave(clients / 2);
    all_are_served(&mut crowd, &keys);
    crowd.leave(0);
    no_clients_left(&nearside);
    eventually("their files are closed", SOON, || (open_files(process) <= files).then_some(()));
    assert_eq!(connections_of_all(&cluster), of_a_hundred);

    drop(nearside);
    eventually("no connection is left behind upstream", SOON, || {
        connections_of_all(&cluster).iter().all(BTreeMap::is_empty).then_some(())
    });
}

#[test]
fn ten_thousand_idle_clients_take_little_memory() {
    if calibrating("memory of its own") {
        return;
    }
    let _files = FILES.lock().unwrap_or_else(PoisonError::into_inner);
    let clients = as_many_clients_as_there_are_files_for();
    let (cluster, keys) = cluster_with_a_key_of_each_node();
    let most = clients.to_string();
    let mut nearside = Nearside::ready_before_cluster(&cluster, &["--cache-size", "64MiB", "--max-clients", &most]);
    let process = nearside.process().id();
    eprintln!("{} bytes of memory without a client", resident_bytes(process));

    let mut crowd = Crowd::connect(nearside.address(), clients);
    idle_memory_is_in_bounds(process, "by clients who never asked");
    say_hello(&mut crowd);
    all_are_served(&mut crowd, &keys);
    idle_memory_is_in_bounds(process, "by clients who asked a little");

    // Buffers grow with what passes through them, and are given back.
    for size in [8000, 30_000] {
        let value = "v".repeat(size);
        crowd.call(&format!("SET large {value}"), "+OK\r\n");
        crowd.call("GETEX large", &format!("${size}\r\n{value}\r\n"));
        idle_memory_is_in_bounds(process, &format!("by clients who asked for {size} bytes each"));
    }

    crowd.leave(0);
    no_clients_left(&nearside);
    let mut crowd = Crowd::connect(nearside.address(), clients);
    all_are_served(&mut crowd, &keys);
    idle_memory_is_in_bounds(process, "by as many who came after they had left");
}

/// What is sent by a client, and what it must get.
#[derive(Default)]
struct Script {
    requests: Vec<u8>,
    replies: Vec<Vec<u8>>,
}

impl Script {
    fn push(&mut self, line: &str, reply: impl Into<Vec<u8>>) {
        self.requests.extend(words(line));
        self.replies.push(reply.into());
    }

    /// Sends all of it before a reply is read, or as much as Nearside takes from a client that reads nothing.
    fn run(&self, client: &mut Client) {
        let mut writer = client.writer();
        let (wrote, written) = mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for piece in self.requests.chunks(64 * 1024) {
                    writer.write_all(piece).unwrap();
                    wrote.send(()).unwrap();
                }
            });
            while !matches!(
                written.recv_timeout(Duration::from_millis(500)),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected)
            ) {}
            for (number, expected) in self.replies.iter().enumerate() {
                let reply = client.reply();
                assert!(*reply == **expected, "reply {number}: {reply:?} and not {:?}", Reply(expected.clone()));
            }
        });
        assert_eq!(client.call("PING"), "+PONG\r\n");
    }
}

/// SET, GET and INCR of keys in all slots, some of them never written.
fn mixed(commands: usize, seed: u64, null: &str) -> Script {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut script = Script::default();
    let (mut texts, mut counters) = (HashMap::new(), HashMap::new());
    for number in 0..commands {
        let key = random.usize(..1000);
        match random.usize(..3) {
            0 => {
                let text = format!("{number}:{}", "x".repeat(random.usize(..600)));
                script.push(&format!("SET text:{key} {text}"), "+OK\r\n");
                texts.insert(key, text);
            }
            1 => {
                let text = texts.get(&key).map_or(null.to_owned(), |text| format!("${}\r\n{text}\r\n", text.len()));
                script.push(&format!("GET text:{key}"), text);
            }
            _ => {
                let counter = counters.entry(key).or_insert(0);
                *counter += 1;
                script.push(&format!("INCR counter:{key}"), format!(":{counter}\r\n"));
            }
        }
    }
    script
}

#[test]
fn a_pipeline_of_100_000_commands_to_all_nodes_is_answered_in_order() {
    if calibrating("address that stands for a cluster") {
        return;
    }
    let cluster = RedisCluster::with_replicas(3, 0, PATIENT);
    for (seed, hello, null) in [(1, "HELLO 2", "$-1\r\n"), (2, "HELLO 3", "_\r\n")] {
        let nearside = Nearside::ready_before_cluster(&cluster, &["--workers", "2"]);
        let mut client = nearside.client();
        assert!(!client.call(hello).is_error());
        mixed(100_000, seed, null).run(&mut client);
        (0..3).for_each(|number| assert_eq!(cluster.node(number).client().call("FLUSHALL"), "+OK\r\n"));
    }
}

#[test]
fn pipelines_of_many_clients_at_once_are_each_answered_in_order() {
    if calibrating("address that stands for a cluster") {
        return;
    }
    let cluster = RedisCluster::with_replicas(3, 0, PATIENT);
    let nearside = Nearside::ready_before_cluster(&cluster, &["--workers", "2"]);
    std::thread::scope(|scope| {
        for client in 0..8 {
            let nearside = &nearside;
            scope.spawn(move || {
                // In keys of its own: only then does it know what they hold.
                let mut script = Script::default();
                for number in 0..5000 {
                    let key = format!("{client}:{}", number % 7);
                    script.push(&format!("SET {key} {number}"), "+OK\r\n");
                    let expected = format!("${}\r\n{number}\r\n", number.to_string().len());
                    script.push(&format!("GET {key}"), expected.clone());
                    script.push(&format!("GETEX {key}"), expected);
                }
                script.run(&mut nearside.client());
            });
        }
    });
}

#[test]
fn commands_of_100_000_keys_in_one_slot_are_answered_like_others() {
    const KEYS: usize = 100_000;
    if calibrating("address that stands for a cluster") {
        return;
    }
    let cluster = RedisCluster::with_replicas(3, 0, PATIENT);
    let nearside = Nearside::ready_before_cluster(&cluster, &["--workers", "2"]);
    let (mut client, mut other) = (nearside.client(), nearside.client());
    let key = |number: usize| format!("{{slot}}:{number}");
    let with_keys = |name: &str| [vec![name.to_owned()], (0..KEYS).map(key).collect()].concat();
    for round in ["first", "second"] {
        let value = |number: usize| format!("{round}:{number}");
        let mut mset = vec!["MSET".to_owned()];
        mset.extend((0..KEYS).flat_map(|number| [key(number), value(number)]));
        assert_eq!(client.command(&mset), "+OK\r\n");
        // The second time these are in the cache, and it has to hear of it.
        for number in (0..KEYS).step_by(KEYS / 100) {
            for _ in 0..2 {
                assert_eq!(other.command(&["GET", &key(number)]).bulk(), Some(value(number).as_bytes()));
            }
        }
        let expected = (0..KEYS).map(|number| format!("${}\r\n{}\r\n", value(number).len(), value(number)));
        let expected = format!("*{KEYS}\r\n{}", expected.collect::<String>());
        assert!(client.command(&with_keys("MGET")) == expected.as_str(), "MGET gives other values, {round}");
        assert_eq!(client.command(&with_keys("EXISTS")), format!(":{KEYS}\r\n").as_str());
    }
    assert_eq!(client.command(&with_keys("DEL")), format!(":{KEYS}\r\n").as_str());
    assert_eq!(client.command(&with_keys("EXISTS")), ":0\r\n");
    for number in (0..KEYS).step_by(KEYS / 100) {
        assert_eq!(other.command(&["GET", &key(number)]), "$-1\r\n");
    }
    assert_eq!(client.command(&with_keys("MGET")), format!("*{KEYS}\r\n{}", "$-1\r\n".repeat(KEYS)).as_str());
    let mut across = with_keys("DEL");
    across.push("another slot".to_owned());
    assert_eq!(client.command(&across), ":0\r\n");
    assert_eq!(client.call("PING"), "+PONG\r\n");
}

/// Clients who ask for much and read nothing of it yet.
struct SlowReaders {
    clients: Vec<Client>,
    writers: Vec<std::thread::JoinHandle<()>>,
}

impl SlowReaders {
    fn ask(nearside: &Nearside, count: usize, requests: &[u8]) -> Self {
        let clients = (0..count).map(|_| nearside.client()).collect::<Vec<_>>();
        let write = |client: &Client| {
            let (mut writer, requests) = (client.writer(), requests.to_vec());
            // Those who are cut off do not get everything sent.
            std::thread::spawn(move || drop(writer.write_all(&requests)))
        };
        Self { writers: clients.iter().map(write).collect(), clients }
    }
}

/// Others are served while memory has the time to grow, if it does.
fn others_are_served(nearside: &Nearside) {
    let mut other = nearside.client();
    for number in 0..1000 {
        assert_eq!(other.call(&format!("SET other:{number} {number}")), "+OK\r\n");
        let expected = format!("${}\r\n{number}\r\n", number.to_string().len());
        for _ in 0..2 {
            assert_eq!(other.call(&format!("GET other:{number}")), expected.as_str());
        }
    }
}

#[test]
fn clients_that_do_not_read_are_paused_until_they_do() {
    const SLOW: usize = 16;
    const COMMANDS: usize = 40_000;
    if calibrating("memory of its own") {
        return;
    }
    let cluster = RedisCluster::with_replicas(3, 0, PATIENT);
    for key in spread_keys(3, "kibibyte") {
        assert_eq!(cluster.client().command(&["SET", &key, &"x".repeat(1024)]), "+OK\r\n");
    }
    let mut nearside = Nearside::ready_before_cluster(&cluster, &["--workers", "2"]);
    let process = nearside.process().id();
    for command in ["GET", "GETEX"] {
        let asked = spread_keys(3, "kibibyte");
        let asked = asked.iter().map(|key| request(&[command, key])).collect::<Vec<_>>().concat();
        let slow = SlowReaders::ask(&nearside, SLOW, &asked.repeat(COMMANDS / 3));
        others_are_served(&nearside);
        let most = most_resident_bytes(process);
        eprintln!("{command}: {} MiB at most, where {} MiB are asked for", most / MIB, SLOW * COMMANDS / 1024);
        // Of each: a mebibyte in the output, and the replies to 4096 commands in flight.
        assert!(most < SLOW as u64 * 8 * MIB + 64 * MIB, "{command}: {most} bytes of memory");
        let expected = format!("$1024\r\n{}\r\n", "x".repeat(1024));
        std::thread::scope(|scope| {
            for mut client in slow.clients {
                let expected = expected.as_str();
                scope.spawn(move || {
                    for number in 0..COMMANDS / 3 * 3 {
                        assert_eq!(client.reply(), expected, "reply {number}");
                    }
                    assert_eq!(client.call("PING"), "+PONG\r\n");
                });
            }
        });
        slow.writers.into_iter().for_each(|writer| writer.join().unwrap());
    }
    assert_eq!(nearside.metrics().total("nearside_clients_cut_off_total"), 0.0);
}

#[test]
fn clients_that_let_large_replies_pile_up_are_cut_off_and_memory_is_bounded() {
    const SLOW: usize = 16;
    const LIMIT: u64 = 8 * MIB;
    if calibrating("output limits") {
        return;
    }
    let cluster = RedisCluster::with_replicas(3, 0, PATIENT);
    let keys = spread_keys(3, "mebibyte");
    for key in &keys {
        assert_eq!(cluster.client().command(&["SET", key, &"x".repeat(1 << 20)]), "+OK\r\n");
    }
    let limits = ["--output-limit-hard", "8MiB", "--output-limit-soft", "1GiB"];
    let mut nearside = Nearside::ready_before_cluster(&cluster, &[&["--workers", "2"], &limits[..]].concat());
    let process = nearside.process().id();
    let asked = keys.iter().map(|key| words(&format!("GETEX {key}"))).collect::<Vec<_>>().concat();
    let slow = SlowReaders::ask(&nearside, SLOW, &asked.repeat(30));
    others_are_served(&nearside);
    eventually("all are cut off", SOON, || {
        let cut_off = nearside.metrics().get("nearside_clients_cut_off_total{reason=\"output\"}").copied();
        (cut_off == Some(SLOW as f64)).then_some(())
    });
    let most = most_resident_bytes(process);
    eprintln!("{} MiB at most, where {} MiB are asked for", most / MIB, SLOW * 90);
    // What has been read of a reply when its client passes the limit comes on top. A buffer that grows doubles, and is there
    // twice while it is copied.
    assert!(most < 3 * SLOW as u64 * (LIMIT + MIB) + 64 * MIB, "{most} bytes of memory");
    slow.writers.into_iter().for_each(|writer| writer.join().unwrap());
    others_are_served(&nearside);
    eventually("the memory is given back", SOON, || (resident_bytes(process) < 64 * MIB).then_some(()));
}

const DATABASES: u16 = 200;
/// Connections of a worker to a node.
const LANES: usize = 64;

fn many_databases() -> RedisServer {
    RedisServer::with(&["--databases", &DATABASES.to_string()])
}

fn lanes(redis: &RedisServer) -> usize {
    connections(redis).get("nearside-forward").copied().unwrap_or(0)
}

#[test]
fn the_databases_of_a_worker_are_capped_with_an_error_that_says_so() {
    if calibrating("connections of its own") {
        return;
    }
    let redis = many_databases();
    let nearside = Nearside::with(&redis, &["--workers", "1"]);
    // Kept open, each in its own. The first database is always to be had, and does not count.
    let mut sessions = Vec::new();
    for db in 1..=32 {
        for hello in ["HELLO 2", "HELLO 3"] {
            let mut client = nearside.client();
            assert!(!client.call(hello).is_error());
            assert_eq!(client.call(&format!("SELECT {db}")), "+OK\r\n");
            assert_eq!(client.call(&format!("SET key {db}:{}", &hello[6..])), "+OK\r\n", "db {db}, {hello}");
            sessions.push(client);
        }
    }
    assert_eq!(lanes(&redis), LANES);

    let mut client = nearside.client();
    assert_eq!(client.call("SET key 0:3"), "+OK\r\n");
    let refused = client.call("SELECT 33");
    assert!(refused.starts_with(b"-UPSTREAM "), "{refused:?}");
    let text = refused.text();
    assert!(text.contains("64 connections") && text.contains("database was not changed"), "{text}");
    // It stays where it was, as do the others.
    for command in ["GET key", "GETEX key"] {
        assert_eq!(client.call(command), "$3\r\n0:3\r\n");
        for (number, session) in sessions.iter_mut().enumerate() {
            let expected = format!("{}:3", number / 2 + 1);
            assert_eq!(session.call(command).bulk(), Some(expected.as_bytes()), "session {number}: {command}");
        }
    }
    assert_eq!(client.call("SELECT 32"), "+OK\r\n");
    assert_eq!(client.call("GETEX key"), "$4\r\n32:3\r\n");
    assert_eq!(lanes(&redis), LANES + 1);
}

#[test]
fn sessions_in_more_databases_than_there_are_connections_for_get_an_error_and_no_other_data() {
    if calibrating("connections of its own") {
        return;
    }
    let redis = many_databases();
    let mut direct = redis.client();
    for db in 0..DATABASES {
        assert_eq!(direct.call(&format!("SELECT {db}")), "+OK\r\n");
        assert_eq!(direct.call(&format!("SET key {db}")), "+OK\r\n");
    }
    let nearside = Nearside::with(&redis, &["--workers", "2"]);
    let mut refused = 0;
    let mut sessions = Vec::new();
    for db in (0..DATABASES).chain(0..DATABASES) {
        let mut client = nearside.client();
        let selected = client.call(&format!("SELECT {db}"));
        let now_in = if selected == "+OK\r\n" { db } else { 0 };
        refused += usize::from(selected.is_error());
        // Another protocol version is another connection.
        for (hello, header) in [("HELLO 2", b'*'), ("HELLO 3", b'%')] {
            assert_eq!(client.call(hello).first(), Some(&header), "db {db}");
            for command in ["GET key", "GETEX key"] {
                let reply = client.call(command);
                let is_right = reply.bulk() == Some(now_in.to_string().as_bytes()) || reply.starts_with(b"-UPSTREAM ");
                assert!(is_right, "db {db}, {selected:?}, {hello}, {command}: {reply:?}");
            }
        }
        sessions.push(client);
    }
    assert!(refused > 0, "of {DATABASES} databases none was refused");
    // The first database comes on top, in both protocol versions.
    let is_within = || (lanes(&redis) <= 2 * (LANES + 2)).then_some(());
    eventually("the connections are as many as they may be", SOON, is_within);
}

/// So many that there is no connection left for others.
fn in_other_databases(nearside: &Nearside) -> Vec<Client> {
    let select = |db: u16| {
        let mut client = nearside.client();
        client.call(&format!("SELECT {db}"));
        client.call("GETEX key");
        client
    };
    (1..DATABASES).map(select).collect()
}

#[test]
fn the_first_database_is_served_however_many_others_are_in_use() {
    if calibrating("connections of its own") {
        return;
    }
    let redis = many_databases();
    let nearside = Nearside::with(&redis, &["--workers", "1"]);
    let _others = in_other_databases(&nearside);
    let mut client = nearside.client();
    assert_eq!(client.call("SET key v"), "+OK\r\n");
    assert_eq!(client.call("GET key"), "$1\r\nv\r\n");
}

#[test]
fn databases_that_nobody_uses_any_more_make_room_for_others() {
    if calibrating("connections of its own") {
        return;
    }
    let redis = many_databases();
    let nearside = Nearside::with(&redis, &["--workers", "1"]);
    drop(in_other_databases(&nearside));
    no_clients_left(&nearside);
    let mut client = nearside.client();
    let last = DATABASES - 1;
    eventually("another database is to be had", SOON, || {
        (client.call(&format!("SELECT {last}")) == "+OK\r\n").then_some(())
    });
    assert_eq!(client.call("SET key v"), "+OK\r\n");
}
