//! The checks themselves: each kind of wrong proxy is caught, and a right one is not.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use nearside_tests::generator::{Generated, Generator, Keyspace};
use nearside_tests::{Client, Fault, Freshness, Load, RedisServer, Relay, Report, Worlds, Wrong, WrongProxy};

const DEADLINE: Duration = Duration::from_secs(2);
const WORK: Duration = Duration::from_millis(400);

fn load_through(wrong: Wrong, deadline: Duration) -> Report {
    let redis = RedisServer::start();
    Load::prepare(&mut redis.client());
    let proxy = WrongProxy::before(&redis.address(), wrong);
    let load = Load::start(proxy.address(), 4, deadline);
    std::thread::sleep(WORK.max(deadline.min(Duration::from_secs(1)) * 2));
    load.finish(&mut redis.client())
}

#[test]
fn a_right_proxy_is_found_right() {
    let report = load_through(Wrong::InNoWay, DEADLINE);
    report.assert_faultless();
    assert!(report.answered > 100, "{report:?}");
    assert!(report.acknowledged > 10, "{report:?}");
    assert_eq!(report.refused, 0);
}

#[test]
fn swapped_replies_are_found() {
    let report = load_through(Wrong::SwapsReplies, DEADLINE);
    assert!(report.faults.iter().any(|fault| matches!(fault, Fault::WrongReply { .. })), "{report:?}");
}

#[test]
fn a_write_sent_twice_is_found() {
    let report = load_through(Wrong::ResendsWrites, DEADLINE);
    assert!(report.faults.iter().any(|fault| matches!(fault, Fault::DoubleWrite(_))), "{report:?}");
}

#[test]
fn an_acknowledged_write_that_was_never_made_is_found() {
    let report = load_through(Wrong::LosesWrites, DEADLINE);
    assert!(report.faults.iter().any(|fault| matches!(fault, Fault::LostWrite(_))), "{report:?}");
    assert!(report.lost_runs > 1, "unlike those of a failover, they are lost here and there: {report:?}");
}

#[test]
fn a_write_that_was_made_though_said_not_to_be_sent_is_found() {
    let report = load_through(Wrong::DeniesWrites, DEADLINE);
    assert!(report.faults.iter().any(|fault| matches!(fault, Fault::DeniedWrite(_))), "{report:?}");
}

#[test]
fn a_reply_that_never_comes_is_found() {
    let report = load_through(Wrong::HoldsRepliesBack, Duration::from_millis(300));
    let is_lost = |fault: &Fault| matches!(fault, Fault::Hang | Fault::WrongReply { .. });
    assert!(report.faults.iter().any(is_lost), "{report:?}");
    assert!(report.faults.contains(&Fault::Hang), "{report:?}");
}

#[test]
fn a_closed_connection_is_found() {
    let report = load_through(Wrong::ClosesConnections, DEADLINE);
    assert!(report.faults.iter().any(|fault| matches!(fault, Fault::Closed(_))), "{report:?}");
}

#[test]
fn stale_reads_are_found_and_fresh_ones_are_not() {
    let redis = RedisServer::start();
    for (wrong, is_stale) in [(Wrong::InNoWay, false), (Wrong::CachesForEver, true)] {
        let proxy = WrongProxy::before(&redis.address(), wrong);
        let freshness = Freshness::start(&redis.address(), proxy.address(), Duration::from_millis(50));
        std::thread::sleep(WORK);
        assert!(freshness.reads() > 50);
        assert_eq!(!freshness.finish().is_empty(), is_stale, "{wrong:?}");
    }
}

#[test]
fn a_difference_between_two_servers_is_found() {
    let (left, right) = (RedisServer::start(), RedisServer::start());
    left.client().command(&["SET", "persistent:1", "same"]);
    right.client().command(&["SET", "persistent:1", "sane"]);
    let mut worlds = Worlds::connect(&left.address(), &right.address(), 2, 1);
    let asked = Generated::plain("GET persistent:1");
    assert!(worlds.pipeline(0, &[asked]).is_err());
    let same = Generated::plain("GET persistent:2");
    assert!(worlds.pipeline(1, &[same]).is_ok());
}

#[test]
fn one_seed_gives_one_sequence_of_commands() {
    let commands = |seed| {
        let mut generator = Generator::new(seed, Keyspace::Shared);
        (0..50).flat_map(|_| generator.pipeline()).flat_map(|command| command.encode()).collect::<Vec<_>>()
    };
    assert_eq!(commands(7), commands(7));
    assert_ne!(commands(7), commands(8));
}

#[test]
fn a_stalled_relay_passes_nothing_and_closes_nothing() {
    let redis = RedisServer::start();
    let relay = Relay::to(&redis.address());
    let mut client = Client::connect(relay.address());
    assert_eq!(client.call("PING"), "+PONG\r\n");
    relay.stall();
    client.set_patience(Duration::from_millis(100));
    client.send(b"PING\r\n");
    let error = client.try_reply().unwrap_err();
    assert!(matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut), "{error}");
    client.set_patience(DEADLINE);
    relay.resume();
    assert_eq!(client.reply(), "+PONG\r\n");
    relay.cut();
    assert_eq!(client.rest_until_closed(), b"");
}
