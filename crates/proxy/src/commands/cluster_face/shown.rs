//! The node that is shown, in each of the forms in which clients ask for it: field by field as a Redis Cluster of one node
//! gives it (7.0, 8.0 and Valkey 8.1 give the same).

use nearside_resp::{Protocol, encode};

use crate::face::{Endpoint, Face};
use crate::topology::SLOTS;

/// The node, as one client sees it.
#[derive(Debug)]
pub(super) struct Shown<'a> {
    pub(super) face: &'a Face,
    pub(super) endpoint: Endpoint,
}

/// The last slot; the first is 0.
const LAST: i64 = SLOTS as i64 - 1;

impl Shown<'_> {
    /// CLUSTER SLOTS: one range, and its primary.
    pub(super) fn slots(&self, out: &mut Vec<u8>, protocol: Protocol) {
        encode::array_header(out, 1);
        encode::array_header(out, 3);
        encode::integer(out, 0);
        encode::integer(out, LAST);
        encode::array_header(out, 4);
        encode::bulk(out, self.endpoint.host().as_bytes());
        encode::integer(out, self.endpoint.port.into());
        encode::bulk(out, self.face.node.as_bytes());
        // What the host alone does not say.
        let ip = self.endpoint.hostname.as_ref().map(|_| &self.endpoint.ip).filter(|ip| !ip.is_empty());
        encode::map_header(out, protocol, usize::from(ip.is_some()));
        if let Some(ip) = ip {
            encode::bulk(out, b"ip");
            encode::bulk(out, ip.as_bytes());
        }
    }

    /// CLUSTER SHARDS: one shard of one node.
    pub(super) fn shards(&self, out: &mut Vec<u8>, protocol: Protocol) {
        encode::array_header(out, 1);
        encode::map_header(out, protocol, 2);
        encode::bulk(out, b"slots");
        encode::array_header(out, 2);
        encode::integer(out, 0);
        encode::integer(out, LAST);
        encode::bulk(out, b"nodes");
        encode::array_header(out, 1);
        let mut fields = vec![("ip", &*self.endpoint.ip), ("endpoint", self.endpoint.host())];
        fields.extend(self.endpoint.hostname.as_deref().map(|name| ("hostname", name)));
        fields.push(("role", "master"));
        encode::map_header(out, protocol, fields.len() + 4);
        let field = |out: &mut Vec<u8>, name: &str, value: &str| {
            encode::bulk(out, name.as_bytes());
            encode::bulk(out, value.as_bytes());
        };
        field(out, "id", &self.face.node);
        encode::bulk(out, b"port");
        encode::integer(out, self.endpoint.port.into());
        fields.into_iter().for_each(|(name, value)| field(out, name, value));
        encode::bulk(out, b"replication-offset");
        encode::integer(out, 0);
        field(out, "health", "online");
    }

    /// CLUSTER NODES: one line. There is no cluster bus, hence no port of one.
    pub(super) fn nodes(&self) -> String {
        let Endpoint { ip, hostname, port } = &self.endpoint;
        let hostname = hostname.as_ref().map(|name| format!(",{name}")).unwrap_or_default();
        format!("{} {ip}:{port}@0{hostname} myself,master - 0 0 0 connected 0-{LAST}\n", self.face.node)
    }
}

/// CLUSTER INFO: well, if there is a node upstream for every slot.
pub(super) fn info(slots_served: usize) -> String {
    let state = if slots_served == SLOTS { "ok" } else { "fail" };
    format!(
        "cluster_state:{state}\r\n\
         cluster_slots_assigned:{slots_served}\r\n\
         cluster_slots_ok:{slots_served}\r\n\
         cluster_slots_pfail:0\r\n\
         cluster_slots_fail:0\r\n\
         cluster_known_nodes:1\r\n\
         cluster_size:1\r\n\
         cluster_current_epoch:0\r\n\
         cluster_my_epoch:0\r\n\
         cluster_stats_messages_sent:0\r\n\
         cluster_stats_messages_received:0\r\n\
         total_cluster_links_buffer_limit_exceeded:0\r\n"
    )
}
