//! What a command changes without naming it: its reply waits until the upstream has named it (`script-fence`).
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use nearside_tests::{Nearside, RedisCluster, RedisServer, Relay, calibrating, key_in_slot, words};

/// By how much invalidations are late: more than any reply takes.
const LATE: Duration = Duration::from_millis(300);
const ARGS: &[&str] = &["--max-staleness", "20s", "--workers", "2"];
const SET_UNDECLARED: &str = "return redis.call('set', ARGV[1], ARGV[2])";

struct Late {
    // Ended before what it stands before.
    nearside: Nearside,
    relay: Relay,
    redis: RedisServer,
}

impl Late {
    fn start(args: &[&str]) -> Self {
        Self::with(&[ARGS, args].concat())
    }

    fn with(args: &[&str]) -> Self {
        let redis = RedisServer::start();
        let relay = Relay::to(&redis.address());
        let nearside = Nearside::upstream(relay.address(), args);
        Late { nearside, relay, redis }
    }

    /// Runs `change` of `k` from `old` to `new`, while invalidations are late; gives what another client is answered that reads
    /// once the change is acknowledged.
    fn read_after(&self, change: &[&[&str]]) -> Vec<u8> {
        let (mut client, mut other) = (self.nearside.client(), self.nearside.client());
        self.relay.delay_tracked(Duration::ZERO);
        assert_eq!(client.call("SET k old"), "+OK\r\n");
        self.nearside.warm(&mut other, "k");
        self.relay.delay_tracked(LATE);
        let pipeline: Vec<u8> = change.iter().flat_map(|command| nearside_tests::request(command)).collect();
        client.send(&pipeline);
        for command in change {
            let reply = client.reply();
            assert!(!reply.is_error(), "{command:?}: {reply:?}");
        }
        other.call("GET k").bulk().unwrap().to_vec()
    }
}

/// Every way in which a script travels.
const WAYS: &[(&str, &[&[&str]])] = &[
    ("by itself", &[&["EVAL", SET_UNDECLARED, "0", "k", "new"]]),
    (
        "among others",
        &[&["SET", "a", "1"], &["EVAL", SET_UNDECLARED, "1", "b", "k", "new"], &["SET", "a", "2"], &["INCR", "a"]],
    ),
    ("in a whole transaction", &[&["MULTI"], &["EVAL", SET_UNDECLARED, "0", "k", "new"], &["EXEC"]]),
    ("of a watching client", &[&["WATCH", "w"], &["EVAL", SET_UNDECLARED, "0", "k", "new"]]),
    (
        "in a transaction of a watching client",
        &[&["WATCH", "w"], &["MULTI"], &["EVAL", SET_UNDECLARED, "0", "k", "new"], &["SELECT", "0"], &["EXEC"]],
    ),
];

#[test]
fn a_script_is_answered_when_what_it_changed_is_known_also_what_it_did_not_declare() {
    if calibrating("cache") {
        return;
    }
    let late = Late::start(&["--script-fence", "yes"]);
    for (way, change) in WAYS {
        assert_eq!(late.read_after(change), b"new", "{way}");
    }
    assert!(late.nearside.metrics().total("nearside_fences_total") >= WAYS.len() as f64, "they are counted");
}

#[test]
fn without_the_fence_a_script_is_answered_at_once() {
    if calibrating("cache") {
        return;
    }
    let late = Late::start(&[]);
    for (way, change) in WAYS {
        assert_eq!(late.read_after(change), b"old", "{way}: else the test above shows nothing");
    }
    assert_eq!(late.nearside.metrics().total("nearside_fences_total"), 0.0);
}

#[test]
fn a_client_sees_what_its_own_script_did_in_the_same_pipeline() {
    if calibrating("cache") {
        return;
    }
    let late = Late::start(&["--script-fence", "yes"]);
    let mut client = late.nearside.client();
    for round in 0..5 {
        let new = format!("new{round}");
        late.nearside.warm(&mut client, "k");
        late.relay.delay_tracked(LATE);
        let script = nearside_tests::request(&["EVAL", SET_UNDECLARED, "0", "k", &new]);
        client.send(&[&script[..], &words("SET other 1"), &words("GET k")].concat());
        assert_eq!(client.reply(), "+OK\r\n");
        assert_eq!(client.reply(), "+OK\r\n");
        assert_eq!(client.reply().bulk(), Some(new.as_bytes()));
        late.relay.delay_tracked(Duration::ZERO);
    }
}

#[test]
fn a_fence_ends_with_the_connection_that_it_waits_for() {
    if calibrating("cache") {
        return;
    }
    let late = Late::start(&["--script-fence", "yes"]);
    let (mut client, mut other) = (late.nearside.client(), late.nearside.client());
    assert_eq!(client.call("SET k old"), "+OK\r\n");
    late.nearside.warm(&mut other, "k");
    late.relay.delay_tracked(Duration::from_secs(5));
    client.send(&nearside_tests::request(&["EVAL", SET_UNDECLARED, "0", "k", "new"]));
    std::thread::sleep(Duration::from_millis(100));
    late.redis.client().call("CLIENT KILL TYPE normal SKIPME yes");
    let reply = client.reply();
    assert!(reply == "+OK\r\n" || reply.starts_with(b"-UPSTREAM "), "{reply:?}");
    assert_eq!(other.call("GET k").bulk(), Some(&b"new"[..]));
}

#[test]
fn no_reply_waits_for_longer_than_what_could_be_served_is_fresh() {
    if calibrating("cache") {
        return;
    }
    // An upstream timeout longer than a client here waits for a reply: nothing else ends the fence.
    let late = Late::with(&["--max-staleness", "300ms", "--script-fence", "yes", "--upstream-timeout", "60s"]);
    let mut client = late.nearside.client();
    assert_eq!(client.call("SET k old"), "+OK\r\n");
    late.nearside.warm(&mut client, "k");
    late.relay.delay_tracked(Duration::from_secs(60));
    assert_eq!(client.command(&["EVAL", SET_UNDECLARED, "0", "k", "new"]), "+OK\r\n");
    assert_eq!(late.nearside.metrics().total("nearside_fences_total"), 1.0);
}

#[test]
fn in_a_cluster_a_script_that_was_sent_on_has_its_fence_where_it_was_carried_out() {
    if calibrating("cache") {
        return;
    }
    let cluster = RedisCluster::behind_relays(2, 0, &[]);
    let nearside = Nearside::ready_before_cluster(&cluster, &[ARGS, &["--script-fence", "yes"]].concat());
    let (mut client, mut other) = (nearside.client(), nearside.client());
    let undeclared = key_in_slot(16000, "undeclared");
    for slot in 1..4 {
        let declared = key_in_slot(slot, "declared");
        cluster.gate(1).delay_tracked(Duration::ZERO);
        assert_eq!(client.call(&format!("SET {undeclared} old")), "+OK\r\n");
        nearside.warm(&mut other, &undeclared);
        cluster.gate(1).delay_tracked(LATE);
        cluster.move_slot(slot, 1);
        let script = ["EVAL", SET_UNDECLARED, "1", declared.as_str(), &undeclared, "new"];
        assert_eq!(client.command(&script), "+OK\r\n");
        assert_eq!(other.call(&format!("GET {undeclared}")).bulk(), Some(&b"new"[..]), "slot {slot}");
    }
}

#[test]
fn in_a_cluster_the_node_of_the_slot_is_asked() {
    if calibrating("cache") {
        return;
    }
    let cluster = RedisCluster::behind_relays(3, 0, &[]);
    let nearside = Nearside::ready_before_cluster(&cluster, &[ARGS, &["--script-fence", "yes"]].concat());
    let (mut client, mut other) = (nearside.client(), nearside.client());
    for slot in [1, 8000, 16000] {
        let (declared, undeclared) = (key_in_slot(slot, "declared"), key_in_slot(slot, "undeclared"));
        (0..3).for_each(|node| cluster.gate(node).delay_tracked(Duration::ZERO));
        assert_eq!(client.call(&format!("SET {undeclared} old")), "+OK\r\n");
        nearside.warm(&mut other, &undeclared);
        (0..3).for_each(|node| cluster.gate(node).delay_tracked(LATE));
        for (keys, new) in [(vec!["1", declared.as_str()], "declares"), (vec!["0"], "does not")] {
            let script = [vec!["EVAL", SET_UNDECLARED], keys, vec![&undeclared, new]].concat();
            let reply = client.command(&script);
            // Without keys it runs wherever it is sent, and may find that the key is not there.
            if reply == "+OK\r\n" {
                assert_eq!(other.call(&format!("GET {undeclared}")).bulk(), Some(new.as_bytes()));
            } else {
                assert!(new == "does not" && reply.is_error(), "{reply:?}");
            }
        }
    }
}
