//! The table held against a live server: `redis-server`, or what `NEARSIDE_TEST_REDIS` names.
//!
//! `COMMAND` and `COMMAND GETKEYSANDFLAGS` tell what the server believes of a command. Where commands have options the
//! server believes wrong things of some odd orders of them, so there the commands are run, and what they did is compared.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command as Process, Stdio};
use std::time::{Duration, Instant};

use nearside_resp::frame::{self, Value};
use nearside_resp::{ReplyScanner, encode};
use tempfile::TempDir;

use super::tests::{keys_of, with_request};
use super::*;

/// A server of its own for each test; ends with it.
struct Server {
    connection: UnixStream,
    _process: Running,
    received: Vec<u8>,
    _folder: TempDir,
}

impl Server {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let socket = folder.path().join("socket");
        let program = std::env::var("NEARSIDE_TEST_REDIS").unwrap_or_else(|_| "redis-server".to_owned());
        let process = Process::new(&program)
            .args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"])
            .arg(&socket)
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{program}: {error}"));
        let process = Running(process);
        let connection = connect(&socket);
        connection.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout can be set");
        Self { connection, _process: process, received: Vec::new(), _folder: folder }
    }

    /// The replies to `requests`, which are sent in one go.
    fn ask_all<'r>(&mut self, requests: impl IntoIterator<Item = &'r [&'r [u8]]>) -> Vec<Value> {
        let (mut bytes, mut count) = (Vec::new(), 0);
        for request in requests {
            encode::command(&mut bytes, request);
            count += 1;
        }
        self.connection.write_all(&bytes).expect("the server reads");
        (0..count).map(|_| self.reply()).collect()
    }

    fn ask(&mut self, request: &[&[u8]]) -> Value {
        self.ask_all([request]).remove(0)
    }

    fn ask_line(&mut self, line: &str) -> Value {
        self.ask(&words(line))
    }

    fn reply(&mut self) -> Value {
        let (mut scanner, mut end) = (ReplyScanner::new(), 0);
        loop {
            let scanned = scanner.scan(&self.received[end..]).expect("a reply");
            end += scanned.consumed;
            if scanned.complete {
                let reply = frame::parse(&self.received[..end]).expect("one reply");
                self.received.drain(..end);
                return reply;
            }
            let mut buffer = [0; 1 << 16];
            let length = self.connection.read(&mut buffer).expect("the server answers in time");
            assert!(length > 0, "the server closed the connection");
            self.received.extend(&buffer[..length]);
        }
    }
}

/// A process that ends when nobody needs it any more, a failed test included.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn connect(socket: &Path) -> UnixStream {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match UnixStream::connect(socket) {
            Ok(connection) => return connection,
            Err(error) => assert!(Instant::now() < deadline, "the server doesn't listen: {error}"),
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn words(line: &str) -> Vec<&[u8]> {
    line.split(' ').map(str::as_bytes).collect()
}

fn text(value: &Value) -> String {
    String::from_utf8_lossy(value.as_bytes().expect("a string")).into_owned()
}

fn texts(value: &Value) -> Vec<String> {
    value.as_items().expect("a list").iter().map(text).collect()
}

/// What the server says of its commands, those of modules left out, read as if the core table were empty.
fn as_the_server_has_it(server: &mut Server) -> Table {
    let all = Table::new([]).with_learned(&server.ask_line("COMMAND"));
    assert!(all.iter().count() > 300, "COMMAND names {} commands", all.iter().count());
    Table::new(all.iter().filter(|command| !command.flags.contains(Flags::MODULE)).cloned())
}

/// Asserts that `differ` is true of the commands of both tables that are in `expected`, and of no others. What the server at
/// hand doesn't have is not expected of it.
fn assert_differ(server: &Table, expected: &str, differ: impl Fn(&Command, &Command) -> bool) {
    let pairs = server.iter().filter_map(|theirs| Some((theirs, Table::core().named(&theirs.name)?)));
    let found: BTreeSet<&str> =
        pairs.filter(|(theirs, ours)| differ(theirs, ours)).map(|(_, ours)| &*ours.name).collect();
    let expected: BTreeSet<&str> = expected.split_whitespace().filter(|name| server.named(name).is_some()).collect();
    assert_eq!(found, expected);
}

#[test]
fn no_command_of_the_server_is_missing() {
    let server = as_the_server_has_it(&mut Server::start());
    let missing: Vec<&str> =
        server.iter().map(|command| &*command.name).filter(|name| Table::core().named(name).is_none()).collect();
    assert_eq!(missing, Vec::<&str>::new());
}

#[test]
fn the_server_takes_no_number_of_arguments_that_the_table_refuses() {
    let server = as_the_server_has_it(&mut Server::start());
    assert_differ(&server, "", |theirs, ours| (1..20).any(|argc| theirs.arity_ok(argc) && !ours.arity_ok(argc)));
    // Redis 7.0 takes fewer forms of some.
    let versions = ["zrank", "zrevrank", "command|getkeys", "command|getkeysandflags"];
    for theirs in server.iter().filter(|theirs| !versions.contains(&&*theirs.name)) {
        assert_eq!(Table::core().named(&theirs.name).map(|ours| ours.arity), Some(theirs.arity), "{}", theirs.name);
    }
}

#[test]
fn flags_are_the_servers() {
    // Servers differ in these, and the table has them all.
    let versioned = ["noscript", "blocking", "loading", "no_multi", "skip_slowlog", "skip_commandlog"];
    let server = as_the_server_has_it(&mut Server::start());
    assert_differ(&server, "", |theirs, ours| {
        !ours.flags.contains(theirs.flags)
            || ours
                .flags
                .names()
                .any(|name| !versioned.contains(&name) && theirs.flags.names().all(|their| their != name))
    });
}

#[test]
fn key_specs_are_the_servers() {
    let server = as_the_server_has_it(&mut Server::start());
    // Those with options are compared by what they do; PFCOUNT is flagged as one that only reads, but writes.
    let with_options = "georadius georadiusbymember migrate sort sort_ro xread xreadgroup pfcount";
    assert_differ(&server, with_options, |theirs, ours| theirs.keys != ours.keys);
}

#[test]
fn effects_follow_from_the_servers_flags_but_for_known_ones() {
    let server = as_the_server_has_it(&mut Server::start());
    // Those have neither flag, or write no keys, or write in spite of their flags, or are worse than they say.
    let judged_by_hand = "acl|deluser acl|load acl|setuser cluster|countkeysinslot cluster|delslots cluster|delslotsrange cluster|failover \
        cluster|flushslots cluster|getkeysinslot cluster|replicate cluster|reset cluster|setslot debug failover flushall flushdb \
        function|delete function|flush function|load function|restore lolwut migrate module|load module|loadex module|unload \
        pfcount replicaof slaveof sort swapdb watch";
    let by_flags = |theirs: &Command| match theirs.effect {
        // No flag, no key: only for a module does that mean that it might do something.
        Effect::Script if theirs.keys.iter().all(|spec| spec.access != Access::Write) => Effect::None,
        effect => effect,
    };
    // Of these, newer servers say that more is to be known than their specifications tell. The tests below know it.
    let judged_by_what_they_do = ["georadius", "georadiusbymember", "xreadgroup"];
    let is_vague = |theirs: &Command| {
        judged_by_what_they_do.contains(&&*theirs.name)
            && theirs.keys.iter().any(|spec| spec.find == keys::Find::Unknown)
    };
    // By itself a container does nothing.
    let is_judged = |theirs: &Command| !theirs.is_container() && !is_vague(theirs);
    assert_differ(&server, judged_by_hand, |theirs, ours| is_judged(theirs) && by_flags(theirs) != ours.effect);
}

/// Requests for `command`: of many lengths, and with every number wherever a number of keys belongs. (ZUNIONSTORE of none is
/// refused; servers differ in whether it has a key then.)
fn forms(command: &Command, theirs: &Command) -> Vec<Vec<String>> {
    let name: Vec<String> = command.name.split('|').map(str::to_owned).collect();
    let shortest = usize::from(command.arity.unsigned_abs());
    let fewest = if command.keys.len() == 1 { 0 } else { 1 };
    let mut forms = Vec::new();
    for length in (shortest..=shortest + 6).filter(|length| theirs.arity_ok(*length)) {
        let plain: Vec<String> =
            (0..length).map(|at| name.get(at).cloned().unwrap_or_else(|| format!("a{at}"))).collect();
        let counts = command.keys.iter().filter_map(|spec| match (&spec.begin, &spec.find) {
            (keys::Begin::At(at), keys::Find::Counted { .. }) => Some(*at),
            _ => None,
        });
        forms.extend(counts.flat_map(|at| (fewest..=length).map(move |keys| (at, keys))).map(|(at, keys)| {
            let mut form = plain.clone();
            form[at] = keys.to_string();
            form
        }));
        forms.push(plain);
    }
    forms
}

const COMMANDS_WITH_OPTIONS: [&str; 7] =
    ["georadius", "georadiusbymember", "migrate", "sort", "sort_ro", "xread", "xreadgroup"];

/// Of those, forms whose keys the server tells rightly.
const WITH_OPTIONS: &[&str] = &[
    "SORT k BY w GET STORE LIMIT 0 1 DESC STORE d",
    "SORT k STORE d STORE e",
    "SORT k LIMIT STORE 1 STORE d",
    "SORT_RO k BY w",
    "GEORADIUS k 0 0 1 km",
    "GEORADIUS k 0 0 1 km COUNT 1 STORE d",
    "GEORADIUS store 0 0 1 km STOREDIST d ASC",
    "GEORADIUSBYMEMBER k m 1 km STORE d",
    "GEORADIUSBYMEMBER k store 1 km STOREDIST d",
    "XREAD STREAMS a b c 0 0 0",
    "XREAD COUNT 1 BLOCK 0 STREAMS streams 0",
    "XREADGROUP GROUP g c STREAMS a b > >",
    "XREADGROUP GROUP streams streams COUNT 1 NOACK STREAMS streams >",
    "MIGRATE h p k 0 10",
    "MIGRATE h p k 0 10 COPY REPLACE AUTH keys",
    "MIGRATE h p  0 10 COPY AUTH keys KEYS a b keys",
    "MIGRATE h p  0 10 AUTH2 keys keys KEYS a",
];

#[test]
fn keys_are_those_that_the_server_finds() {
    let mut server = Server::start();
    let known = as_the_server_has_it(&mut server);
    let pairs = Table::core().iter().filter_map(|ours| Some((ours, known.named(&ours.name)?)));
    let plain = pairs.filter(|(ours, _)| !ours.keys.is_empty() && !COMMANDS_WITH_OPTIONS.contains(&&*ours.name));
    let mut requests: Vec<Vec<String>> = plain.flat_map(|(ours, theirs)| forms(ours, theirs)).collect();
    requests.extend(WITH_OPTIONS.iter().map(|line| line.split(' ').map(str::to_owned).collect()));
    // It is legal, and writes a1, but by the server's key specs a source must follow. And Redis 7.0 asks for an argument.
    requests.retain(|request| *request != ["pfmerge", "a1"] && request.len() > 1);
    assert!(requests.len() > 1500, "{} requests", requests.len());
    for request in &requests {
        let arguments: Vec<&[u8]> = request.iter().map(String::as_bytes).collect();
        let asked = [&[b"COMMAND".as_slice(), b"GETKEYSANDFLAGS"], &arguments[..]].concat();
        let theirs = server.ask(&asked);
        assert_same_keys(request, &theirs, with_request(&arguments, |request| keys_of(Table::core(), request)));
    }
}

/// The server's keys are the table's, and what it writes the table has as written.
fn assert_same_keys(request: &[String], theirs: &Value, (known, keys): (Keys, Vec<String>)) {
    let ours: Vec<(char, &str)> = keys
        .iter()
        .map(|key| (key.chars().next().unwrap(), &key[2..]))
        // A shard channel is none to the server; the empty key only says that MIGRATE's stand at its end.
        .filter(|(access, key)| *access != 'c' && !key.is_empty())
        .collect();
    let theirs = keys_and_written(request, theirs);
    if theirs.is_empty() {
        assert!(known == Keys::Malformed || ours.is_empty(), "{request:?}: no keys, but {known:?} {ours:?}");
        return;
    }
    assert_eq!(known, Keys::Known, "{request:?}");
    let names: Vec<&str> = theirs.iter().map(|(key, _)| &**key).collect();
    assert_eq!(ours.iter().map(|(_, key)| *key).collect::<Vec<_>>(), names, "{request:?}");
    // The table doesn't look for BITFIELD's writing operations, and a group's state is in the stream's key.
    let stricter = matches!(request[0].to_ascii_lowercase().as_str(), "bitfield" | "xreadgroup");
    for ((access, key), (_, written)) in ours.iter().zip(&theirs) {
        assert!(*written == (*access == 'w') || stricter && *access == 'w', "{request:?}: {key} is `{access}`");
    }
}

/// The keys in a reply of COMMAND GETKEYSANDFLAGS; it is an error when there are none, or the request is wrong.
fn keys_and_written(request: &[String], reply: &Value) -> Vec<(String, bool)> {
    if let Some(error) = reply.as_error() {
        let error = String::from_utf8_lossy(error);
        let of_no_keys = ["The command has no key arguments", "Invalid arguments", "Invalid number of arguments"];
        assert!(of_no_keys.iter().any(|text| error.contains(text)), "{request:?}: {error}");
        return Vec::new();
    }
    let writes = ["RW", "OW", "RM", "insert", "update", "delete"];
    let key_and_written = |element: &Value| match element.as_items() {
        Some([key, flags]) => (text(key), texts(flags).iter().any(|flag| writes.contains(&&**flag))),
        _ => panic!("{request:?}: {element:?} is no key with flags"),
    };
    reply.as_items().expect("a list").iter().map(key_and_written).collect()
}

/// Every sequence of up to `length` of `words`.
fn sequences(words: &[&'static str], length: usize) -> Vec<Vec<&'static str>> {
    let mut sequences = vec![Vec::new()];
    let mut done = 0;
    for _ in 0..length {
        let longest = sequences[done..].to_vec();
        done = sequences.len();
        sequences
            .extend(longest.iter().flat_map(|start| words.iter().map(move |word| [&start[..], &[*word]].concat())));
    }
    sequences
}

/// Runs `start` with each of `endings`, in an empty database after `given`. Shows `check` the request, the keys that are there
/// afterwards, and the reply, if it is no error.
fn run_all(
    server: &mut Server,
    given: &str,
    start: &str,
    endings: &[Vec<&'static str>],
    check: impl Fn(&[&[u8]], Vec<String>),
) {
    let (flush, given, look) = (words("FLUSHALL"), words(given), words("KEYS *"));
    let (mut run, mut refused) = (0, 0);
    for endings in endings.chunks(500) {
        let requests: Vec<Vec<&[u8]>> = endings
            .iter()
            .map(|ending| words(start).into_iter().chain(ending.iter().map(|word| word.as_bytes())).collect())
            .collect();
        let all = requests.iter().flat_map(|request| [&flush[..], &given[..], &request[..], &look[..]]);
        let replies = server.ask_all(all);
        for (request, replies) in requests.iter().zip(replies.as_chunks::<4>().0) {
            if replies[2].as_error().is_some() {
                refused += 1;
            } else {
                run += 1;
                check(request, texts(&replies[3]));
            }
        }
    }
    assert!(run > 50 && refused > 50, "{start}: {run} were run, {refused} refused");
}

/// The one key besides `k` is what the table says is written.
fn assert_stored(request: &[&[u8]], existing: Vec<String>) {
    let (known, keys) = with_request(request, |request| keys_of(Table::core(), request));
    let readable = request.iter().map(|word| String::from_utf8_lossy(word)).collect::<Vec<_>>().join(" ");
    assert_eq!(known, Keys::Known, "{readable}");
    let stored: Vec<String> = existing.into_iter().filter(|key| key != "k").map(|key| format!("w:{key}")).collect();
    assert_eq!(keys.into_iter().filter(|key| key.starts_with("w:")).collect::<Vec<_>>(), stored, "{readable}");
}

#[test]
fn sort_stores_where_the_table_says() {
    let endings = sequences(&["by", "get", "limit", "store", "1", "asc"], 5);
    run_all(&mut Server::start(), "RPUSH k 1 2 3", "SORT k", &endings, assert_stored);
}

#[test]
fn georadius_stores_where_the_table_says() {
    let endings = sequences(&["store", "storedist", "count", "1", "asc"], 5);
    let mut server = Server::start();
    run_all(&mut server, "GEOADD k 0 0 m", "GEORADIUS k 0 0 1 km", &endings, assert_stored);
    run_all(&mut server, "GEOADD k 0 0 m", "GEORADIUSBYMEMBER k m 1 km", &endings, assert_stored);
}

/// The streams in a reply of XREAD in RESP2, and those that the table finds; None where the server refuses.
fn assert_streams(server: &mut Server, command: &'static str, words: &[&'static str], length: usize) {
    let (mut run, mut refused) = (0, 0);
    for endings in sequences(words, length).chunks(2000) {
        let requests: Vec<Vec<&[u8]>> = endings
            .iter()
            .map(|ending| std::iter::once(&command).chain(ending).map(|word| word.as_bytes()).collect())
            .collect();
        let replies = server.ask_all(requests.iter().map(Vec::as_slice));
        for (request, reply) in requests.iter().zip(replies) {
            let Some(streams) = reply.as_items() else {
                assert!(reply.as_error().is_some(), "{request:?}: {reply:?}");
                refused += 1;
                continue;
            };
            run += 1;
            let streams: Vec<String> = streams.iter().map(|stream| text(&stream.as_items().unwrap()[0])).collect();
            let (known, keys) = with_request(request, |request| keys_of(Table::core(), request));
            let keys: Vec<&str> = keys.iter().map(|key| &key[2..]).collect();
            let readable: Vec<_> = request.iter().map(|word| String::from_utf8_lossy(word)).collect();
            assert_eq!((known, keys), (Keys::Known, streams.iter().map(|key| &**key).collect()), "{readable:?}");
        }
    }
    assert!(run > 50 && refused > 50, "{run} were run, {refused} refused");
}

#[test]
fn stream_reads_read_what_the_table_says() {
    let mut server = Server::start();
    let names = ["streams", "count", "block", "group", "noack", "1"];
    for (stream, group) in names.iter().flat_map(|stream| names.iter().map(move |group| (stream, group))) {
        server.ask_line(&format!("XADD {stream} * f v"));
        server.ask_line(&format!("XGROUP CREATE {stream} {group} 0"));
    }
    assert_streams(&mut server, "XREAD", &["streams", "count", "block", "1"], 7);
    assert_streams(&mut server, "XREADGROUP", &["group", "streams", "count", "1"], 7);
    assert_streams(&mut server, "XREADGROUP", &["group", "streams", "noack", "1"], 7);
}

#[test]
fn a_number_of_keys_is_read_as_the_server_reads_it() {
    let mut server = Server::start();
    let numbers = [
        "0",
        "1",
        "2",
        "3",
        "00",
        "01",
        "+1",
        "-0",
        "-1",
        " 1",
        "1 ",
        "",
        "1.0",
        "0x1",
        "9223372036854775808",
        "18446744073709551617",
    ];
    for number in numbers {
        let request = ["EVAL", "return #KEYS", number, "a", "b"].map(str::as_bytes);
        let (known, keys) = with_request(&request, |request| keys_of(Table::core(), request));
        match server.ask(&request).as_integer() {
            Some(count) => {
                assert_eq!(keys.len(), usize::try_from(count).unwrap(), "{number:?}");
                assert_ne!(known, Keys::Malformed, "{number:?}");
            }
            None => assert_eq!(known, Keys::Malformed, "{number:?}"),
        }
    }
}

#[test]
fn pfcount_does_write_its_key() {
    let mut server = Server::start();
    server.ask_line("PFADD k a b c");
    let before = server.ask_line("GET k");
    server.ask_line("PFCOUNT k");
    assert_ne!(server.ask_line("GET k"), before, "PFCOUNT keeps its result in the key");
}
