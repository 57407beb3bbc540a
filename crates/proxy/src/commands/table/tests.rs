//! What can be said of the table without a server; `live` holds it against one.

use nearside_resp::encode;
use nearside_resp::frame::Value;
use nearside_resp::{Limits, Progress, Request, RequestDecoder};

use super::*;

/// Shows `look` a request of these arguments.
pub(super) fn with_request<T>(arguments: &[&[u8]], look: impl FnOnce(&Request<'_>) -> T) -> T {
    let mut bytes = Vec::new();
    encode::command(&mut bytes, arguments);
    let mut decoder = RequestDecoder::new();
    let limits = Limits::authenticated(Limits::DEFAULT_MAX_BULK_LEN);
    assert_eq!(decoder.decode(&bytes, &limits), Ok(Progress::Request { len: bytes.len() }));
    look(&decoder.request(&bytes))
}

/// A request as a person writes it, words separated by blanks.
fn with_line<T>(line: &str, look: impl FnOnce(&Request<'_>) -> T) -> T {
    with_request(&line.split(' ').map(str::as_bytes).collect::<Vec<_>>(), look)
}

/// Its keys, each as `r:key`, `w:key` or `c:channel`.
pub(super) fn keys_of(table: &Table, request: &Request<'_>) -> (Keys, Vec<String>) {
    let Found::Command(command) = table.find(request) else {
        panic!("{:?} is not in the table", request.args().collect::<Vec<_>>())
    };
    let mut keys = Vec::new();
    let known = command.keys(request, &mut |key, access| {
        let access = match access {
            Access::Read => 'r',
            Access::Write => 'w',
            Access::Channel => 'c',
        };
        keys.push(format!("{access}:{}", String::from_utf8_lossy(key)));
    });
    (known, keys)
}

fn keys_in_line(table: &Table, line: &str) -> (Keys, String) {
    let (known, keys) = with_line(line, |request| keys_of(table, request));
    (known, keys.join(" "))
}

fn found(line: &str) -> String {
    with_line(line, |request| match Table::core().find(request) {
        Found::Command(command) => command.name.to_string(),
        Found::UnknownCommand => "unknown command".to_owned(),
        Found::UnknownSubcommand(container) => format!("unknown subcommand of {}", container.name),
    })
}

fn core(name: &str) -> &'static Command {
    Table::core().named(name).unwrap_or_else(|| panic!("{name} is in the table"))
}

#[test]
fn commands_are_found_in_any_case() {
    for (line, name) in [
        ("get k", "get"),
        ("GET k", "get"),
        ("gEt k", "get"),
        ("HINCRBYFLOAT k f 1", "hincrbyfloat"),
        ("GeoRadiusByMember_RO k m 1 km", "georadiusbymember_ro"),
        ("config GET maxmemory", "config|get"),
        ("CLIENT no-touch ON", "client|no-touch"),
        ("COMMAND", "command"),
        ("config", "config"),
        ("get", "get"),
    ] {
        assert_eq!(found(line), name, "{line}");
    }
}

#[test]
fn what_is_not_there_is_told_apart() {
    for line in ["gett k", "g", "", "config|get maxmemory", "|", "georadiusbymember_rw k m 1 km", "\0"] {
        assert_eq!(found(line), "unknown command", "{line:?}");
    }
    assert_eq!(found("config gett maxmemory"), "unknown subcommand of config");
    assert_eq!(found("config config|get maxmemory"), "unknown subcommand of config");
    assert_eq!(found("CLIENT "), "unknown subcommand of client");
}

#[test]
fn every_command_is_found_by_its_own_name() {
    for command in Table::core().iter() {
        assert_eq!(found(&command.name.replace('|', " ")), *command.name);
    }
}

#[test]
fn the_text_is_in_order_and_names_nothing_twice() {
    let text = include_str!("core.txt");
    let names: Vec<&str> =
        text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split(' ').next()).collect();
    for pair in names.windows(2) {
        assert!(pair[0] < pair[1], "{} stands before {}", pair[0], pair[1]);
    }
    assert_eq!(Table::core().iter().count(), names.len(), "every subcommand has its container");
}

#[test]
fn arity_counts_the_name() {
    let ok = |name: &str, argc| core(name).arity_ok(argc);
    assert_eq!([1, 2, 3].map(|argc| ok("get", argc)), [false, true, false]);
    assert_eq!([2, 3, 9].map(|argc| ok("set", argc)), [false, true, true]);
    assert_eq!([1, 2].map(|argc| ok("config", argc)), [false, true]);
    assert_eq!([2, 3].map(|argc| ok("config|get", argc)), [false, true]);
    assert!(ok("command", 1));
    assert!(ok("zrank", 3) && ok("zrank", 4), "servers differ: the loosest");
}

#[test]
fn keys_are_where_the_command_has_them() {
    for (line, keys) in [
        ("GET k", "r:k"),
        ("SET k v", "w:k"),
        ("COPY a b", "r:a w:b"),
        ("MSET a 1 b 2 c 3", "w:a w:b w:c"),
        ("BLPOP a b c 0", "w:a w:b w:c"),
        ("BITOP AND d a b", "w:d r:a r:b"),
        ("LCS a b LEN", "r:a r:b"),
        ("OBJECT ENCODING k", "r:k"),
        ("XGROUP CREATE s g $", "w:s"),
        ("EVAL return 2 a b c", "w:a w:b"),
        ("EVAL_RO return 1 a b", "r:a"),
        ("ZUNIONSTORE d 2 a b WEIGHTS 1 2", "w:d r:a r:b"),
        ("LMPOP 2 a b LEFT", "w:a w:b"),
        ("BLMPOP 0 2 a b LEFT", "w:a w:b"),
        ("XREAD COUNT 2 BLOCK 0 STREAMS a b 0 0", "r:a r:b"),
        ("XREADGROUP GROUP g streams STREAMS a >", "w:a"),
        ("XREADGROUP CLAIM 100 GROUP g streams STREAMS a >", "w:a"),
        ("SORT k", "r:k"),
        ("SORT k BY store GET store LIMIT 0 1 STORE a", "r:k w:a"),
        ("SORT k STORE a STORE b", "r:k w:b"),
        ("SORT_RO k BY store", "r:k"),
        ("GEORADIUS k 0 0 1 km STORE a STOREDIST b", "r:k w:b"),
        ("GEORADIUSBYMEMBER k store 1 km STORE a", "r:k w:a"),
        ("MIGRATE h p a 0 10 AUTH keys COPY", "w:a"),
        ("SPUBLISH ch m", "c:ch"),
        ("HGETEX k FIELDS 1 f", "w:k"),
        ("INCR k AS A NEWER SERVER MIGHT", "w:k"),
    ] {
        assert_eq!(keys_in_line(Table::core(), line), (Keys::Known, keys.to_owned()), "{line}");
    }
}

#[test]
fn requests_without_keys_and_wrong_ones_are_told_apart() {
    for line in ["PING", "EVAL return 0", "CONFIG GET x", "COMMAND GETKEYS GET k", "XREAD COUNT 1", "GET"] {
        assert_eq!(keys_in_line(Table::core(), line).0, Keys::None, "{line}");
    }
    for line in [
        "EVAL return x a",
        "EVAL return 2 a",
        "EVAL return -1 a",
        "EVAL return 01 a",
        "EVAL return +1 a",
        "EVAL return 18446744073709551615 a",
        "EVAL return 18446744073709551616 a",
        "ZUNIONSTORE d 3 a b",
    ] {
        assert_eq!(keys_in_line(Table::core(), line).0, Keys::Malformed, "{line}");
    }
}

#[test]
fn a_stream_read_blocks_only_with_the_option() {
    let blocks = |line: &str| {
        with_line(line, |request| match Table::core().find(request) {
            Found::Command(command) => command.blocks(request),
            _ => panic!("{line} is in the table"),
        })
    };
    for line in [
        "XREAD BLOCK 0 STREAMS a $",
        "XREAD count 1 block 0 STREAMS a $",
        "BLPOP a 0",
        "WAIT 1 0",
        "XREADGROUP GROUP g c CLAIM 9 BLOCK 0 STREAMS a >",
    ] {
        assert!(blocks(line), "{line}");
    }
    for line in [
        "XREAD STREAMS block 0",
        "XREAD COUNT 1 STREAMS block 0",
        "XREADGROUP GROUP block block STREAMS a >",
        "GET block",
    ] {
        assert!(!blocks(line), "{line}");
    }
}

/// The names of the commands for which `holds`, in order.
fn names(holds: impl Fn(&Command) -> bool) -> String {
    let mut names: Vec<&str> =
        Table::core().iter().filter(|command| holds(command)).map(|command| &*command.name).collect();
    names.sort_unstable();
    names.join(" ")
}

#[test]
fn what_matters_most_is_as_decided() {
    let cached = "bitcount bitpos geodist geohash geopos get getbit getrange hexists hget hgetall hkeys hlen hmget hstrlen hvals \
                  lindex llen lpos lrange scard sismember smembers smismember strlen substr type xlen xrange xrevrange \
                  zcard zcount zlexcount zmscore zrange zrangebylex zrangebyscore zrank zrevrange zrevrangebylex \
                  zrevrangebyscore zrevrank zscore";
    assert_eq!(names(|command| command.route == Route::Cached), cached);
    assert_eq!(names(|command| command.cached.is_some() && command.route != Route::Cached), "exists");
    assert_eq!(names(|command| matches!(command.route, Route::Split(_))), "del exists mget mset touch unlink");
    let flush = "acl|deluser acl|load acl|setuser flushall flushdb swapdb";
    assert_eq!(names(|command| command.effect == Effect::Flush && command.route != Route::Refused), flush);
    assert_eq!(names(|command| command.effect == Effect::Script), "eval evalsha fcall");
    let writes_and_refused = names(|command| command.effect == Effect::Write && command.route == Route::Refused);
    assert_eq!(writes_and_refused, "migrate");
    assert_eq!(names(|command| command.effect == Effect::Opaque), "");
    assert_eq!(names(|command| command.route == Route::Replication), "psync replconf sync");
    assert_eq!(names(Command::runs_program), "eval eval_ro evalsha evalsha_ro fcall fcall_ro");
}

#[test]
fn only_what_reads_one_key_is_cached_and_only_lists_of_keys_are_split() {
    for command in Table::core().iter() {
        match command.route {
            Route::Cached => {
                assert_eq!((command.effect, command.cached.is_some()), (Effect::Read, true), "{}", command.name);
                let is_first = KeySpec {
                    access: Access::Read,
                    begin: keys::Begin::At(1),
                    find: keys::Find::Range { last: 0, step: 1 },
                };
                assert_eq!(*command.keys, [is_first], "{}", command.name);
            }
            Route::Split(_) => {
                let [KeySpec { begin: keys::Begin::At(1), find: keys::Find::Range { last: -1, .. }, .. }] =
                    &*command.keys
                else {
                    panic!("{} is not a list of keys", command.name)
                };
            }
            _ => {}
        }
    }
}

#[test]
fn what_changes_a_connection_never_goes_to_a_shared_one() {
    let names = "asking auth client discard exec hello monitor multi psubscribe psync punsubscribe quit readonly readwrite replconf \
                 reset script|debug select ssubscribe subscribe sunsubscribe sync unsubscribe unwatch watch";
    let connections = names.split_whitespace().map(core);
    let of_client = Table::core().iter().filter(|command| command.name.starts_with("client|"));
    for command in connections.chain(of_client) {
        assert!(
            !matches!(
                command.route,
                Route::Cached | Route::Forward | Route::Split(_) | Route::All(_) | Route::Walk | Route::About
            ),
            "{} is {:?}",
            command.name,
            command.route
        );
    }
}

#[test]
fn a_write_names_what_it_writes_and_a_read_writes_nothing() {
    for command in Table::core().iter() {
        let written = command.keys.iter().any(|spec| spec.access == Access::Write);
        match command.effect {
            Effect::Write | Effect::Script => assert!(written, "{}", command.name),
            Effect::None | Effect::Read | Effect::Flush => assert!(!written, "{}", command.name),
            Effect::Opaque => {}
        }
    }
}

fn bulk(text: &str) -> Value {
    Value::Bulk(text.as_bytes().to_vec())
}

fn list<const N: usize>(elements: [Value; N]) -> Value {
    Value::Array(elements.to_vec())
}

fn words(text: &str) -> Value {
    Value::Array(text.split_whitespace().map(bulk).collect())
}

/// A key spec as RESP2 has it: `begin` and `find` are a type and its fields, numbers as such.
fn spec(flags: &str, begin: &str, find: &str) -> Value {
    let part = |text: &str| {
        let mut fields = text.split_whitespace();
        let kind = bulk(fields.next().unwrap_or_default());
        let fields = fields.map(|field| field.parse().map_or_else(|_| bulk(field), Value::Integer)).collect();
        list([bulk("type"), kind, bulk("spec"), Value::Array(fields)])
    };
    list([bulk("flags"), words(flags), bulk("begin_search"), part(begin), bulk("find_keys"), part(find)])
}

/// An entry of `COMMAND INFO`, of a server since 7.0.
fn entry<const N: usize>(
    name: &str,
    arity: i64,
    flags: &str,
    tips: &str,
    specs: [Value; N],
    subcommands: &[Value],
) -> Value {
    let legacy = [0, 0, 0].map(Value::Integer);
    let [first, last, step] = legacy;
    list([
        bulk(name),
        Value::Integer(arity),
        words(flags),
        first,
        last,
        step,
        words("@all"),
        words(tips),
        list(specs),
        Value::Array(subcommands.to_vec()),
    ])
}

fn learned(entry: Value) -> Table {
    Table::core().with_learned(&list([Value::Null, entry]))
}

#[test]
fn a_newer_servers_command_is_learned_with_its_keys() {
    let msetex = spec("OW update", "index index 1", "keynum keynumidx 0 firstkey 1 keystep 2");
    let table = learned(entry("MSETEX", -4, "write denyoom movablekeys", "request_policy:multi_shard", [msetex], &[]));
    let command = table.named("msetex").expect("it was learned");
    assert_eq!((command.effect, command.route, command.arity), (Effect::Write, Route::Forward, -4));
    assert_eq!(keys_in_line(&table, "MSETEX 2 a 1 b 2 EX 5"), (Keys::Known, "w:a w:b".to_owned()));
    assert_eq!(keys_in_line(&table, "MSETEX 2 a 1 b"), (Keys::Known, "w:a w:b".to_owned()));
    assert_eq!(keys_in_line(&table, "MSETEX 2 a 1").0, Keys::Malformed);
    assert_eq!(keys_in_line(&table, "GET k"), (Keys::Known, "r:k".to_owned()), "the core stays");
    let apart = spec("OW update", "index index 1", "keynum keynumidx 0 firstkey 3 keystep 9");
    let table = learned(entry("x", -2, "write movablekeys", "", [apart], &[]));
    assert_eq!(keys_in_line(&table, "X 0").0, Keys::None);
    assert_eq!(keys_in_line(&table, "X 1 o o a"), (Keys::Known, "w:a".to_owned()));
    assert_eq!(keys_in_line(&table, "X 1 o o").0, Keys::Malformed);
}

/// A reply of RESP2 as it is in RESP3: maps are maps, flags are a set of simple strings.
fn in_resp3(value: &Value) -> Value {
    const FIRST_FIELDS: [&[u8]; 5] = [b"flags", b"type", b"index", b"keyword", b"keynumidx"];
    let Value::Array(elements) = value else { return value.clone() };
    let is_map = elements.len() % 2 == 0
        && elements.first().and_then(Value::as_bytes).is_some_and(|first| FIRST_FIELDS.contains(&first));
    if is_map {
        return Value::Map(
            elements.as_chunks::<2>().0.iter().map(|[key, value]| (key.clone(), in_resp3(value))).collect(),
        );
    }
    if !elements.is_empty() && elements.iter().all(|element| matches!(element, Value::Bulk(_))) {
        return Value::Set(
            elements.iter().filter_map(Value::as_bytes).map(|flag| Value::Simple(flag.to_vec())).collect(),
        );
    }
    Value::Array(elements.iter().map(in_resp3).collect())
}

#[test]
fn commands_are_learned_alike_in_both_protocols() {
    let keyword = spec("RO access", "keyword keyword IN startfrom 1", "keynum keynumidx 0 firstkey 1 keystep 1");
    let fixed = spec("OW update", "index index 1", "range lastkey -1 keystep 1 limit 0");
    let subcommand = entry("m|x", -2, "readonly", "", [fixed.clone()], &[]);
    let reply = list([entry("m", -2, "write movablekeys", "", [keyword, fixed], &[subcommand])]);
    assert_ne!(reply, in_resp3(&reply));
    let commands = |reply: &Value| Vec::from_iter(Table::core().with_learned(reply).iter().cloned());
    assert_eq!(commands(&reply), commands(&in_resp3(&reply)));
    assert_ne!(commands(&reply), commands(&Value::Null));
}

#[test]
fn a_modules_keyword_is_looked_for_from_either_end() {
    let range = "range lastkey -1 keystep 1 limit 2";
    let from_start = spec("RO access", "keyword keyword IN startfrom 1", range);
    let table = learned(entry("m.read", -1, "readonly module movablekeys", "", [from_start], &[]));
    assert_eq!(keys_in_line(&table, "M.READ x in a b 1 2"), (Keys::Known, "r:a r:b".to_owned()));
    assert_eq!(keys_in_line(&table, "M.READ x y"), (Keys::None, String::new()));
    let from_end = spec("RM delete", "keyword keyword IN startfrom -2", "range lastkey 0 keystep 1 limit 0");
    let table = learned(entry("m.take", -1, "write module movablekeys", "", [from_end], &[]));
    assert_eq!(keys_in_line(&table, "M.TAKE IN a IN b"), (Keys::Known, "w:b".to_owned()));
}

#[test]
fn a_command_whose_keys_are_not_told_counts_as_one_that_may_change_any() {
    let first = || spec("RW access update", "index index 1", "range lastkey 0 keystep 1 limit 0");
    for (what, entry) in [
        ("it has its own way to its keys", entry("m.x", -1, "write module movablekeys", "", [first()], &[])),
        ("its spec is unknown", entry("m.x", -1, "write module", "", [spec("RW", "unknown", "unknown")], &[])),
        (
            "its spec is incomplete",
            entry(
                "m.x",
                -1,
                "write module",
                "",
                [spec("RW incomplete", "index index 1", "range lastkey 0 keystep 1 limit 0")],
                &[],
            ),
        ),
        ("it says so", entry("m.x", -1, "touches_arbitrary_keys module", "", [first()], &[])),
    ] {
        let table = learned(entry);
        assert_eq!(table.named("m.x").map(|command| command.effect), Some(Effect::Opaque), "{what}");
    }
    let table = learned(entry("m.x", -1, "write module", "", [], &[]));
    assert_eq!(
        table.named("m.x").map(|command| command.effect),
        Some(Effect::Opaque),
        "it writes, but no key it names"
    );
    let table = learned(entry("m.x", -1, "write module movablekeys", "", [first()], &[]));
    assert_eq!(keys_in_line(&table, "m.x a b"), (Keys::Unknown, "w:a".to_owned()));
    let table = learned(entry(
        "m.x",
        -1,
        "write module",
        "",
        [spec("OW", "index index 1", "keynum keynumidx 0 firstkey 1 keystep 1")],
        &[],
    ));
    assert_eq!(keys_in_line(&table, "m.x 1 a"), (Keys::Known, "w:a".to_owned()));
    assert_eq!(keys_in_line(&table, "m.x two a").0, Keys::Unknown, "a module may read numbers as it likes");
}

#[test]
fn a_modules_subcommand_that_is_not_listed_counts_as_one_that_may_change_any() {
    let subcommand = entry("m|x", -2, "readonly module", "", [], &[]);
    let table = learned(entry("m", -2, "module", "", [], &[subcommand]));
    assert_eq!(table.named("m").map(|command| command.effect), Some(Effect::Opaque));
    assert_eq!(table.named("m|x").map(|command| command.effect), Some(Effect::Read));
}

#[test]
fn a_module_that_neither_reads_nor_writes_by_its_flags_may_write_as_a_script() {
    let first = || spec("RW access update", "index index 1", "range lastkey 0 keystep 1 limit 0");
    let table = learned(entry("m.x", -2, "module", "", [first()], &[]));
    assert_eq!(table.named("m.x").map(|command| command.effect), Some(Effect::Script));
    let table = learned(entry("m.x", -2, "readonly module fast", "", [first()], &[]));
    assert_eq!(table.named("m.x").map(|command| command.effect), Some(Effect::Read));
    assert_eq!(keys_in_line(&table, "M.X k"), (Keys::Known, "r:k".to_owned()));
    let deletes = spec("RO delete", "index index 1", "range lastkey 0 keystep 1 limit 0");
    let table = learned(entry("m.x", -2, "write module", "", [deletes], &[]));
    assert_eq!(keys_in_line(&table, "M.X k"), (Keys::Known, "w:k".to_owned()));
}

#[test]
fn a_learned_route_follows_from_flags_and_tips() {
    let route = |flags: &str, tips: &str| {
        learned(entry("m.x", -1, flags, tips, [], &[])).named("m.x").map(|command| command.route)
    };
    assert_eq!(route("readonly blocking", ""), Some(Route::Blocking));
    let all = |policy: &str| route("readonly", &format!("request_policy:all_nodes {policy}"));
    for (policy, join) in [
        ("", Join::Concat),
        ("nondeterministic_output", Join::Concat),
        ("response_policy:agg_sum", Join::Sum),
        ("response_policy:agg_max", Join::Max),
        ("response_policy:agg_logical_or", Join::Or),
        ("response_policy:one_succeeded", Join::OneSucceeded),
        ("response_policy:special", Join::Unknown),
    ] {
        assert_eq!(all(policy), Some(Route::All(join)), "{policy}");
    }
    assert_eq!(route("readonly", "nondeterministic_output request_policy:all_shards"), Some(Route::All(Join::Concat)));
    assert_eq!(route("readonly", "request_policy:multi_shard"), Some(Route::Forward));
}

#[test]
fn a_command_keeps_its_number_when_others_are_learned() {
    let tell = entry("client|tell", -2, "noscript", "", [], &[]);
    let table = learned(entry("client", -2, "", "", [], &[tell]));
    let table = table.with_learned(&list([entry("m.x", -1, "write module", "", [], &[])]));
    for command in Table::core().iter() {
        assert_eq!(table.named(&command.name).map(|same| same.number), Some(command.number), "{}", command.name);
    }
    let mut numbers: Vec<u32> = table.iter().map(|command| command.number).collect();
    numbers.sort_unstable();
    assert!(numbers.into_iter().eq(1..=table.iter().count() as u32), "each has one of its own");
}

#[test]
fn a_learned_subcommand_goes_where_its_containers_others_go() {
    let sub = |name: &str, flags: &str| entry(name, -2, flags, "", [], &[]);
    let route = |container: &str, name: &str, flags: &str| {
        let table = learned(entry(container, -2, "", "", [], &[sub(name, flags)]));
        with_line(&name.replace('|', " "), |request| match table.find(request) {
            Found::Command(command) => Some(command.route),
            _ => None,
        })
    };
    assert_eq!(route("client", "client|kick", "noscript"), Some(Route::Session));
    assert_eq!(route("cluster", "cluster|migrateslots", "admin"), Some(Route::Refused));
    assert_eq!(route("cluster", "cluster|look", "stale"), Some(Route::Cluster));
    assert_eq!(route("module", "module|swap", "admin"), Some(Route::Refused));
    assert_eq!(route("m", "m|x", "readonly"), Some(Route::Forward));
    assert_eq!(route("get", "get|x", "readonly"), Some(Route::Cached), "GET is no container: x is a key");
}

#[test]
fn servers_before_redis_7_tell_first_last_and_step() {
    let old = |flags: &str, keys: [i64; 3]| {
        let [first, last, step] = keys.map(Value::Integer);
        learned(list([bulk("m.x"), Value::Integer(-2), words(flags), first, last, step, words("@all")]))
    };
    assert_eq!(keys_in_line(&old("write", [1, -1, 2]), "M.X a 1 b 2"), (Keys::Known, "w:a w:b".to_owned()));
    assert_eq!(keys_in_line(&old("readonly", [2, 3, 1]), "M.X o a b c"), (Keys::Known, "r:a r:b".to_owned()));
    assert_eq!(keys_in_line(&old("readonly", [0, 0, 0]), "M.X o"), (Keys::None, String::new()));
    assert_eq!(keys_in_line(&old("readonly movablekeys", [0, 0, 0]), "M.X o").0, Keys::Unknown);
}

#[test]
fn positions_that_no_request_has_are_taken_for_unknown() {
    for place in [i64::MAX, 1 << 40, i64::MIN] {
        let begin = format!("index index {place}");
        let find = format!("range lastkey {place} keystep 1 limit 0");
        for spec in [spec("OW", &begin, "range lastkey 0 keystep 1 limit 0"), spec("OW", "index index 1", &find)] {
            let table = learned(entry("m.x", -1, "write module", "", [spec], &[]));
            assert_eq!(keys_in_line(&table, "M.X k"), (Keys::Unknown, String::new()), "{place}");
        }
    }
}

#[test]
fn what_the_table_has_is_not_learned_again() {
    let known = entry("config|get", -2, "readonly", "", [], &[]);
    let table = learned(entry("config", -9, "write", "", [], &[known]));
    assert_eq!(table.iter().collect::<Vec<_>>(), Table::core().iter().collect::<Vec<_>>());
}

#[test]
fn nonsense_is_not_learned() {
    let count = Table::core().iter().count();
    let wrong_arity = entry("m.x", 0, "readonly", "", [], &[]);
    for reply in [
        Value::Null,
        bulk("m.x"),
        list([list([bulk("m.x")])]),
        list([wrong_arity]),
        list([entry("", 1, "", "", [], &[])]),
    ] {
        assert_eq!(Table::core().with_learned(&reply).iter().count(), count, "{reply:?}");
    }
}
