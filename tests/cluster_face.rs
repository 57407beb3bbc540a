//! What a client sees that looks for a cluster: one node, which has every slot, at the address that the client reached; field
//! by field as a Redis Cluster of one node shows itself.
#![allow(clippy::unwrap_used)]

use std::collections::HashSet;
use std::time::Duration;

use nearside_tests::{
    Address, Client, Nearside, RedisCluster, RedisServer, Reply, SharedCluster, calibrating, eventually, free_port,
    key_in_slot, key_slot, spread_keys, words,
};

const SOON: Duration = Duration::from_secs(30);
const DISABLED: &str = "-ERR This instance has cluster support disabled\r\n";

/// The cluster of the tests that do it no harm.
fn shared() -> std::sync::Arc<RedisCluster> {
    static CLUSTER: SharedCluster = SharedCluster::new();
    CLUSTER.of(3)
}

/// A Redis Cluster of one node that knows its address: what the proxy looks like.
fn one_node() -> RedisServer {
    let node = RedisServer::cluster_node(&["--cluster-announce-ip", "127.0.0.1"]);
    assert_eq!(node.client().call("CLUSTER ADDSLOTSRANGE 0 16383"), "+OK\r\n");
    eventually("the cluster of one node is well", SOON, || {
        let info = node.client().call("CLUSTER INFO");
        String::from_utf8_lossy(&info).contains("cluster_state:ok").then_some(())
    });
    node
}

fn port(address: &Address) -> u16 {
    match address {
        Address::Tcp(address) => address.port(),
        Address::Unix(_) => unreachable!("it listens on TCP"),
    }
}

fn text(reply: &Reply) -> String {
    String::from_utf8_lossy(reply.bulk().unwrap_or_else(|| panic!("a text: {reply:?}"))).into_owned()
}

fn my_id(client: &mut Client) -> String {
    text(&client.call("CLUSTER MYID"))
}

#[test]
fn the_one_node_is_shown_field_by_field_as_redis_shows_it() {
    if calibrating("face of its own") {
        return;
    }
    let (cluster, node) = (shared(), one_node());
    let nearside = Nearside::ready_before_cluster(&cluster, &[]);
    for hello in ["HELLO 2", "HELLO 3"] {
        let (mut client, mut direct) = (nearside.client(), node.client());
        client.call(hello);
        direct.call(hello);
        let (our_id, real_id) = (my_id(&mut client), my_id(&mut direct));
        let (our_port, real_port) = (port(nearside.address()).to_string(), node.port().to_string());
        // Ids and ports have the same lengths.
        let as_ours = |text: &str| text.replace(&real_id, &our_id).replace(&real_port, &our_port);
        for command in ["CLUSTER SLOTS", "CLUSTER SHARDS", "CLUSTER MYID", "CLUSTER LINKS", "CLUSTER INFO"] {
            assert_eq!(client.call(command).text(), as_ours(&direct.call(command).text()), "{command} after {hello}");
        }
        let (ours, real) = (client.call("CLUSTER NODES"), direct.call("CLUSTER NODES"));
        assert_eq!(ours[0], real[0], "the same type");
        let real = as_ours(&text(&real)).replace(&format!("@{}", node.bus_port()), "@0");
        assert_eq!(text(&ours), real, "after {hello}; there is no bus");
        for command in ["CLUSTER REPLICAS", "CLUSTER SLAVES", "CLUSTER COUNT-FAILURE-REPORTS"] {
            let (ours, real) = (format!("{command} {our_id}"), format!("{command} {real_id}"));
            assert_eq!(client.call(&ours), direct.call(&real), "{command} after {hello}");
        }
    }
}

#[test]
fn a_name_that_is_announced_is_shown_as_redis_shows_it() {
    if calibrating("face of its own") {
        return;
    }
    let (cluster, node) = (shared(), one_node());
    let announce = format!("proxy.example:{}", node.port());
    let nearside = Nearside::before_cluster(&cluster, &["--announce", &announce]);
    let (mut client, mut direct) = (nearside.client(), node.client());
    assert_eq!(direct.call("CONFIG SET cluster-announce-hostname proxy.example"), "+OK\r\n");
    assert_eq!(direct.call("CONFIG SET cluster-preferred-endpoint-type hostname"), "+OK\r\n");
    let (our_id, real_id) = (my_id(&mut client), my_id(&mut direct));
    for command in ["CLUSTER SLOTS", "CLUSTER SHARDS"] {
        let expected = direct.call(command).text().replace(&real_id, &our_id);
        assert!(expected.contains("proxy.example"));
        assert_eq!(client.call(command).text(), expected, "{command}");
    }
    let line = format!("{our_id} 127.0.0.1:{}@0,proxy.example myself,master - 0 0 0 connected 0-16383\n", node.port());
    assert_eq!(text(&client.call("CLUSTER NODES")), line);
}

#[test]
fn answers_and_errors_are_redis_s_own() {
    if calibrating("face of its own") {
        return;
    }
    let (cluster, node) = (shared(), one_node());
    let nearside = Nearside::ready_before_cluster(&cluster, &[]);
    let (mut client, mut direct) = (nearside.client(), node.client());
    for line in [
        "CLUSTER",
        "CLUSTER NOSUCH",
        "CLUSTER KEYSLOT",
        "CLUSTER KEYSLOT foo",
        "CLUSTER KEYSLOT {a}b",
        "CLUSTER KEYSLOT a b",
        "CLUSTER SLOTS x",
        "CLUSTER NODES x",
        "CLUSTER INFO x",
        "CLUSTER MYID x",
        "CLUSTER REPLICAS nobody",
        "CLUSTER SLAVES nobody",
        "CLUSTER REPLICAS",
        "CLUSTER COUNT-FAILURE-REPORTS nobody",
        "CLUSTER COUNTKEYSINSLOT 16384",
        "CLUSTER COUNTKEYSINSLOT -1",
        "CLUSTER COUNTKEYSINSLOT x",
        "CLUSTER COUNTKEYSINSLOT 01",
        "CLUSTER COUNTKEYSINSLOT",
        "CLUSTER GETKEYSINSLOT 16384 1",
        "CLUSTER GETKEYSINSLOT 1 -1",
        "CLUSTER GETKEYSINSLOT x 1",
        "CLUSTER GETKEYSINSLOT 1 x",
        "CLUSTER GETKEYSINSLOT 1",
        "READONLY",
        "READONLY x",
        "READWRITE",
        "ASKING",
        "SELECT 0",
        "SELECT 1",
    ] {
        assert_eq!(client.call(line), direct.call(line), "{line}");
    }
    for line in ["CLUSTER MEET 127.0.0.1 1", "CLUSTER RESET HARD", "CLUSTER DELSLOTS 0", "CLUSTER FAILOVER TAKEOVER"] {
        let reply = client.call(line);
        assert!(reply.starts_with(b"-ERR ") && reply.text().contains("allow-commands"), "{line}: {reply:?}");
    }
    let help = client.call("CLUSTER HELP");
    let real: HashSet<_> = direct.call("CLUSTER HELP").elements().into_iter().collect();
    assert!(help.elements().len() > 20 && help.elements().iter().filter(|line| !real.contains(*line)).count() <= 4);
}

#[test]
fn everybody_is_told_the_same_id_whichever_worker_answers() {
    if calibrating("face of its own") {
        return;
    }
    let cluster = shared();
    let nearside = Nearside::before_cluster(&cluster, &["--workers", "4"]);
    let mut ids = HashSet::new();
    let mut shards = HashSet::new();
    for _ in 0..12 {
        let mut client = nearside.client();
        let id = my_id(&mut client);
        assert!(
            id.len() == 40 && id.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)),
            "{id}"
        );
        for command in ["CLUSTER SLOTS", "CLUSTER SHARDS", "CLUSTER NODES"] {
            assert!(client.call(command).text().contains(&id), "{command}");
        }
        shards.insert(text(&client.call("CLUSTER MYSHARDID")));
        ids.insert(id);
    }
    assert_eq!((ids.len(), shards.len()), (1, 1));
    assert_ne!(ids, shards);
}

#[test]
fn keys_in_a_slot_are_those_of_the_node_that_serves_it() {
    if calibrating("face of its own") {
        return;
    }
    let cluster = shared();
    let nearside = Nearside::ready_before_cluster(&cluster, &[]);
    let mut client = nearside.client();
    for key in spread_keys(6, "in-slot") {
        let slot = key_slot(key.as_bytes());
        let before = client.call(&format!("CLUSTER COUNTKEYSINSLOT {slot}")).integer().unwrap();
        // In one pipeline: the count is taken after the write that came before it.
        let replies =
            client.pipeline(&[&format!("SET {key} v"), &format!("CLUSTER COUNTKEYSINSLOT {slot}"), "CLUSTER MYID"]);
        assert_eq!(replies[0], "+OK\r\n");
        assert_eq!(replies[1].integer(), Some(before + 1), "{key}");
        assert!(replies[2].bulk().is_some());
        let keys = client.call(&format!("CLUSTER GETKEYSINSLOT {slot} 1000")).elements();
        assert!(keys.iter().any(|found| found.bulk() == Some(key.as_bytes())), "{key}: {keys:?}");
    }
}

#[test]
fn a_client_is_told_the_address_that_it_reached() {
    if calibrating("face of its own") {
        return;
    }
    let cluster = shared();
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket");
    let listen = format!("unix://{}", socket.display());
    let other = Address::Tcp(([127, 0, 0, 2], free_port()).into());
    let args = ["--listen", &listen, "--listen", &other.to_string()];
    let nearside = Nearside::ready_before_cluster(&cluster, &args);
    let first = ("127.0.0.1".to_owned(), i64::from(port(nearside.address())));
    let endpoint = |client: &mut Client| {
        let node = client.call("CLUSTER SLOTS").elements()[0].elements()[2].elements();
        (text(&node[0]), node[1].integer().unwrap())
    };
    assert_eq!(endpoint(&mut nearside.client()), first);
    let mut by_other = Client::connect(&other);
    assert_eq!(endpoint(&mut by_other), ("127.0.0.2".to_owned(), i64::from(port(&other))));
    // No TCP address was reached: the first there is.
    let mut by_socket = Client::connect(&Address::Unix(socket));
    assert_eq!(endpoint(&mut by_socket), first);
}

#[test]
fn the_cluster_is_well_once_all_slots_are_known_to_be_served() {
    if calibrating("face of its own") {
        return;
    }
    let state = |client: &mut Client| text(&client.call("CLUSTER INFO")).lines().take(3).collect::<Vec<_>>().join(" ");
    let nobody = Nearside::with_url("redis-cluster://127.0.0.1:1", &[]);
    let mut client = nobody.client();
    assert_eq!(state(&mut client), "cluster_state:fail cluster_slots_assigned:0 cluster_slots_ok:0");
    assert!(!client.call("CLUSTER SLOTS").is_error());
    assert!(client.call("CLUSTER COUNTKEYSINSLOT 1").starts_with(b"-UPSTREAM "));
    let cluster = RedisCluster::with_replicas(3, 0, &["--cluster-require-full-coverage", "no"]);
    let nearside = Nearside::ready_before_cluster(&cluster, &["--max-staleness", "100ms"]);
    let mut client = nearside.client();
    let well = "cluster_state:ok cluster_slots_assigned:16384 cluster_slots_ok:16384";
    eventually("it is well", SOON, || (state(&mut client) == well).then_some(()));
    let slots = cluster.slots(2);
    let of_node = |number: usize| cluster.node(number).client();
    for number in 0..3 {
        for chunk in slots.chunks(1000) {
            let words: Vec<_> = chunk.iter().map(u16::to_string).collect();
            assert_eq!(of_node(number).call(&format!("CLUSTER DELSLOTS {}", words.join(" "))), "+OK\r\n");
        }
    }
    let left = 16384 - slots.len();
    let ill = format!("cluster_state:fail cluster_slots_assigned:{left} cluster_slots_ok:{left}");
    eventually("it says that slots are missing", SOON, || (state(&mut client) == ill).then_some(()));
}

#[test]
fn mode_is_told_alike_by_hello_and_info_whatever_the_upstream_is() {
    if calibrating("face of its own") {
        return;
    }
    let (cluster, redis) = (shared(), RedisServer::start());
    for (face, before_cluster, cluster_shown) in
        [("auto", true, true), ("no", true, false), ("yes", false, true), ("auto", false, false)]
    {
        let args = ["--cluster-face", face];
        let nearside = if before_cluster {
            Nearside::ready_before_cluster(&cluster, &args)
        } else {
            Nearside::with(&redis, &args)
        };
        let (mode, enabled) = if cluster_shown { ("cluster", "1") } else { ("standalone", "0") };
        for hello in ["HELLO 2", "HELLO 3"] {
            let mut client = nearside.client();
            let greeting = client.call(hello).elements();
            let at = greeting.iter().position(|element| element.bulk() == Some(b"mode")).unwrap();
            assert_eq!(greeting[at + 1].bulk(), Some(mode.as_bytes()), "{face} {before_cluster}");
            for info in ["INFO", "INFO server cluster", "INFO everything"] {
                let info = text(&client.call(info));
                let value = |field: &str| info.lines().find_map(|line| line.strip_prefix(&format!("{field}:")));
                let told = value("redis_mode").or_else(|| value("server_mode"));
                assert_eq!((told, value("cluster_enabled")), (Some(mode), Some(enabled)), "{face} {before_cluster}");
                assert!(value("run_id").is_some_and(|id| id.len() == 40));
            }
            let answers_cluster = !client.call("CLUSTER MYID").is_error();
            assert_eq!(answers_cluster, cluster_shown);
            assert_eq!(client.call("READONLY"), if cluster_shown { "+OK\r\n" } else { DISABLED });
        }
    }
}

#[test]
fn a_standalone_server_may_be_shown_as_a_cluster() {
    if calibrating("face of its own") {
        return;
    }
    let redis = RedisServer::start();
    let nearside = Nearside::with(&redis, &["--cluster-face", "yes"]);
    let mut client = nearside.client();
    let id = my_id(&mut client);
    assert!(text(&client.call("CLUSTER NODES")).starts_with(&format!("{id} 127.0.0.1:")));
    assert!(text(&client.call("CLUSTER INFO")).starts_with("cluster_state:ok\r\ncluster_slots_assigned:16384\r\n"));
    assert_eq!(client.call("CLUSTER KEYSLOT foo"), ":12182\r\n");
    for line in ["CLUSTER COUNTKEYSINSLOT 1", "CLUSTER GETKEYSINSLOT 1 1", "CLUSTER SLOT-STATS SLOTSRANGE 0 1"] {
        assert!(client.call(line).starts_with(b"-ERR "), "{line}");
    }
    // It is what it is otherwise: keys of any slots in one command, and more than one database.
    let (one, other) = (key_in_slot(1, "k"), key_in_slot(9000, "k"));
    assert_eq!(client.call(&format!("MSET {one} 1 {other} 2")), "+OK\r\n");
    assert_eq!(client.call("SELECT 1"), "+OK\r\n");
    let plain = Nearside::before(&redis);
    assert_eq!(plain.client().call("CLUSTER SLOTS"), DISABLED, "unless told so it is not");
}

#[test]
fn nobody_is_shown_anything_before_giving_the_password() {
    if calibrating("face of its own") {
        return;
    }
    let cluster = shared();
    let nearside = Nearside::ready_before_cluster(&cluster, &["--requirepass", "secret"]);
    let mut client = nearside.client();
    for line in ["CLUSTER SLOTS", "CLUSTER MYID", "READONLY", "ASKING"] {
        assert_eq!(client.call(line), "-NOAUTH Authentication required.\r\n", "{line}");
    }
    assert_eq!(client.call("AUTH secret"), "+OK\r\n");
    assert!(!client.call("CLUSTER SLOTS").is_error());
}

#[test]
fn answers_of_the_face_keep_their_place_in_a_pipeline_and_are_silenced_like_others() {
    if calibrating("face of its own") {
        return;
    }
    let cluster = shared();
    let nearside = Nearside::ready_before_cluster(&cluster, &[]);
    let mut client = nearside.client();
    for key in spread_keys(3, "place") {
        let replies =
            client.pipeline(&[&format!("SET {key} v"), "CLUSTER KEYSLOT foo", &format!("GET {key}"), "ASKING"]);
        assert_eq!(replies, [&b"+OK\r\n"[..], b":12182\r\n", b"$1\r\nv\r\n", b"+OK\r\n"].map(|b| Reply(b.to_vec())));
    }
    client.send(&[words("CLIENT REPLY SKIP"), words("CLUSTER SLOTS"), words("PING")].concat());
    assert_eq!(client.reply(), "+PONG\r\n");
}
