//! What one node of a cluster says of all: its answers to `CLUSTER NODES`, which has the config epochs, and to
//! `CLUSTER SLOTS`, which has the names under which clients are to reach the nodes.
//! <https://redis.io/docs/latest/commands/cluster-nodes/>, <https://redis.io/docs/latest/commands/cluster-slots/>.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use nearside_resp::frame::Value;

use super::redirect::host_or_that_of;
use super::slot::SLOTS;
use crate::config::UpstreamAddress;

/// A node's knowledge of its cluster, at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct View {
    /// The name of the node whose view this is.
    pub(crate) myself: String,
    pub(crate) members: Vec<Member>,
}

/// A node, as another one (or itself) sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    /// 40 hex digits that the node keeps for its life.
    pub(crate) name: String,
    /// Where clients reach it; `None`: not known.
    pub(crate) address: Option<UpstreamAddress>,
    /// As what a redirection may name it besides: a node without slots is in no answer that says how clients are to call it.
    pub(crate) aliases: Vec<UpstreamAddress>,
    /// The newer one of two claims on a slot counts; this says how new the claims of this node are.
    pub(crate) epoch: u64,
    /// The slots it serves; none, unless it is a primary.
    pub(crate) slots: Vec<RangeInclusive<u16>>,
}

impl View {
    /// Reads the answers that the node at `asked` gave. `None`: they are not what a node of a cluster answers.
    pub(crate) fn parse(nodes: &Value, slots: &Value, asked: &UpstreamAddress) -> Option<View> {
        let endpoints = endpoints(slots, asked);
        let are_untold = hosts(slots).any(|host| *host == Value::Null || host.as_bytes() == Some(b""));
        let text = std::str::from_utf8(nodes.as_bytes()?).ok()?;
        let mut myself = None;
        let mut members = Vec::new();
        for line in text.lines().filter(|line| !line.is_empty()) {
            let (mut member, flags) = member(line, asked, are_untold)?;
            if flags.split(',').any(|flag| flag == "myself") {
                myself = Some(member.name.clone());
            }
            if let Some(endpoint) = endpoints.get(member.name.as_str()) {
                member.address = Some(endpoint.clone());
            }
            members.push(member);
        }
        Some(View { myself: myself?, members })
    }
}

/// `id ip:port@cport,hostname flags primary ping pong epoch link slots…`
fn member(line: &str, asked: &UpstreamAddress, are_untold: bool) -> Option<(Member, String)> {
    let mut words = line.split(' ');
    let (name, address, flags) = (words.next()?, words.next()?, words.next()?);
    let epoch = words.nth(3)?.parse().ok()?;
    let _link = words.next()?;
    let is_primary = flags.split(',').any(|flag| flag == "master");
    // In brackets: a slot on its way from or to another node; it is still where the ranges say.
    let ranges = words.filter(|word| is_primary && !word.starts_with('['));
    let slots = ranges.map(range).collect::<Option<_>>()?;
    let (aliases, address) = (aliases(address, asked, are_untold), bus_address(address, asked));
    let member = Member { name: name.to_owned(), address, aliases, epoch, slots };
    Some((member, flags.to_owned()))
}

/// `5461-10922`, or `42`.
fn range(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last && usize::from(last) < SLOTS).then_some(first..=last)
}

/// `127.0.0.1:7000@17000,host`: the address by which the nodes know each other. A node that has met nobody has no host.
fn bus_address(text: &str, asked: &UpstreamAddress) -> Option<UpstreamAddress> {
    let (host, port) = text.split(['@', ',']).next()?.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port != 0)?;
    Some(UpstreamAddress::Tcp { host: host_or_that_of(host, asked)?, port })
}

/// By the hostname it announces; and where nodes are set up not to tell where they are (`are_untold`), by that of the node that
/// tells.
fn aliases(text: &str, asked: &UpstreamAddress, are_untold: bool) -> Vec<UpstreamAddress> {
    let port = bus_address(text, asked).and_then(|address| match address {
        UpstreamAddress::Tcp { port, .. } => Some(port),
        UpstreamAddress::Unix(_) => None,
    });
    let hostname = text.split(',').nth(1).filter(|hostname| !hostname.is_empty() && !hostname.contains('='));
    let asked = if are_untold { host_or_that_of("", asked) } else { None };
    let hosts = [hostname.map(Into::into), asked].into_iter().flatten();
    port.map_or(Vec::new(), |port| hosts.map(|host| UpstreamAddress::Tcp { host, port }).collect())
}

/// By node name.
fn endpoints<'v>(slots: &'v Value, asked: &UpstreamAddress) -> HashMap<&'v str, UpstreamAddress> {
    nodes(slots).filter_map(|node| endpoint(node, asked)).collect()
}

fn hosts(slots: &Value) -> impl Iterator<Item = &Value> {
    nodes(slots).filter_map(<[Value]>::first)
}

/// Each range is `[first, last, [host, port, name, …], …]`, the primary first.
fn nodes(slots: &Value) -> impl Iterator<Item = &[Value]> {
    let ranges = slots.as_items().unwrap_or_default().iter();
    ranges.flat_map(|range| range.as_items().unwrap_or_default().iter().skip(2)).filter_map(Value::as_items)
}

fn endpoint<'v>(node: &'v [Value], asked: &UpstreamAddress) -> Option<(&'v str, UpstreamAddress)> {
    let text = |value: &'v Value| value.as_bytes().and_then(|bytes| std::str::from_utf8(bytes).ok());
    // Null where the cluster is set up not to tell: the host that was asked then. `?` where it should tell a name, and has
    // none: then what `CLUSTER NODES` says is as good.
    let host = text(node.first()?).unwrap_or_default();
    if host == "?" {
        return None;
    }
    let port = u16::try_from(node.get(1)?.as_integer()?).ok().filter(|port| *port != 0)?;
    Some((text(node.get(2)?)?, UpstreamAddress::Tcp { host: host_or_that_of(host, asked)?, port }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn tcp(host: &str, port: u16) -> UpstreamAddress {
        UpstreamAddress::Tcp { host: host.into(), port }
    }

    fn bulk(text: &str) -> Value {
        Value::Bulk(text.as_bytes().to_vec())
    }

    fn slots(first: i64, last: i64, nodes: &[(Value, i64, &str)]) -> Value {
        let node = |(host, port, name): &(Value, i64, &str)| {
            Value::Array(vec![host.clone(), Value::Integer(*port), bulk(name), Value::Array(vec![])])
        };
        let range = [Value::Integer(first), Value::Integer(last)].into_iter().chain(nodes.iter().map(node));
        Value::Array(vec![Value::Array(range.collect())])
    }

    const NODES: &str = "aaa 10.0.0.1:7000@17000,one.example myself,master - 0 1426238317239 4 connected 0-5460 7 [93-<-bbb]\n\
        bbb fd00::2:7001@17001 master,fail? - 0 1426238316232 2 connected 5461-10922\n\
        ccc 10.0.0.3:7002@17002 slave,noflags aaa 0 1426238316232 4 connected\n\
        ddd :0@0 master,noaddr - 0 1426238316232 1 disconnected\n";

    #[test]
    fn names_addresses_epochs_and_slots_are_read() {
        let view = View::parse(&bulk(NODES), &Value::Array(vec![]), &tcp("asked", 1)).unwrap();
        assert_eq!(view.myself, "aaa");
        let seen: Vec<_> = view.members.iter().map(|m| (m.name.as_str(), m.address.clone(), m.epoch)).collect();
        let addresses = [Some(tcp("10.0.0.1", 7000)), Some(tcp("fd00::2", 7001)), Some(tcp("10.0.0.3", 7002)), None];
        let expected: Vec<_> = ["aaa", "bbb", "ccc", "ddd"].into_iter().zip(addresses).zip([4, 2, 4, 1]).collect();
        assert_eq!(seen, expected.into_iter().map(|((n, a), e)| (n, a, e)).collect::<Vec<_>>());
        assert_eq!(view.members[0].slots, [0..=5460, 7..=7]);
        assert!(view.members[2].slots.is_empty() && view.members[3].slots.is_empty());
    }

    #[test]
    fn clients_reach_a_node_under_the_name_that_cluster_slots_gives() {
        for (host, expected) in [
            (bulk("one.example"), tcp("one.example", 7000)),
            (bulk(""), tcp("asked", 7000)),
            (bulk("?"), tcp("10.0.0.1", 7000)),
            (Value::Null, tcp("asked", 7000)),
        ] {
            let view = View::parse(&bulk(NODES), &slots(0, 5460, &[(host, 7000, "aaa")]), &tcp("asked", 1)).unwrap();
            assert_eq!(view.members[0].address, Some(expected));
        }
    }

    #[test]
    fn a_node_without_slots_goes_by_the_names_that_a_redirection_may_use() {
        let empty = "aaa 10.0.0.1:7000@17000,,shard-id=1 myself,master - 0 0 0 connected 0-16383\n\
            bbb 10.0.0.2:7001@17001,two.example,shard-id=2 master - 0 0 0 connected";
        let aliases = |host: Value| {
            let view = View::parse(&bulk(empty), &slots(0, 16383, &[(host, 7000, "aaa")]), &tcp("asked", 1)).unwrap();
            view.members.into_iter().map(|member| member.aliases).collect::<Vec<_>>()
        };
        assert_eq!(aliases(bulk("one.example")), [vec![], vec![tcp("two.example", 7001)]]);
        let untold = [vec![tcp("asked", 7000)], vec![tcp("two.example", 7001), tcp("asked", 7001)]];
        assert_eq!(aliases(Value::Null), untold);
        assert_eq!(aliases(bulk("")), untold);
    }

    #[test]
    fn a_lonely_node_is_where_it_was_asked() {
        let lonely = "aaa :7000@17000 myself,master - 0 0 0 connected 0-16383";
        let view = View::parse(&bulk(lonely), &Value::Array(vec![]), &tcp("asked", 1)).unwrap();
        assert_eq!(view.members[0].address, Some(tcp("asked", 7000)));
    }

    #[test]
    fn what_is_no_answer_of_a_cluster_is_none() {
        let none = Value::Array(vec![]);
        for nodes in ["", "aaa", "aaa h:1@2 master - 0 0 1 connected 0-5", "aaa h:1@2 myself,master - 0 0 1 up 5-16384"]
        {
            assert_eq!(View::parse(&bulk(nodes), &none, &tcp("asked", 1)), None, "{nodes}");
        }
        assert_eq!(View::parse(&Value::Integer(1), &none, &tcp("asked", 1)), None);
    }
}
