//! A read of one key, taken along while its reply is fetched.

use bytes::Bytes;
use nearside_nearcache::{FillTicket, Scope};
use nearside_resp::{Protocol, as_resp2, encode};

use super::reads::{CachedRead, GET};

/// Which key is read, and how. Cloning it copies nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Query {
    pub(crate) key: Bytes,
    /// A number of `reads`.
    pub(crate) command: u8,
    /// Bulk strings, as they stand in a request behind the key.
    pub(crate) arguments: Bytes,
}

impl Query {
    /// GET of a key.
    pub(crate) fn get(key: &[u8]) -> Self {
        Query { key: Bytes::copy_from_slice(key), command: GET, arguments: Bytes::new() }
    }

    /// What a ticket is for.
    pub(crate) fn of(ticket: &FillTicket) -> Self {
        let Scope { command, arguments, .. } = ticket.scope();
        let (key, arguments) = (Bytes::copy_from_slice(ticket.key()), Bytes::copy_from_slice(arguments));
        Query { key, command, arguments }
    }

    /// Appends it as a request.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        encode(out, &self.key, self.command, &self.arguments);
    }

    /// The reply to it, fetched in RESP3, as a client of `protocol` gets it.
    pub(crate) fn reply_for(&self, protocol: Protocol, reply: &Bytes) -> Bytes {
        if protocol == Protocol::Resp3 || CachedRead::of(self.command).is_same(reply) {
            return reply.clone();
        }
        let mut out = Vec::with_capacity(reply.len());
        append(&mut out, protocol, self.command, &self.arguments, reply);
        out.into()
    }
}

/// Appends the request for a key's reply to a command with these arguments.
pub(crate) fn encode(out: &mut Vec<u8>, key: &[u8], command: u8, arguments: &[u8]) {
    let count = self::arguments(arguments).count();
    encode::array_header(out, 2 + count);
    encode::bulk(out, CachedRead::of(command).name.as_bytes());
    encode::bulk(out, key);
    out.extend_from_slice(arguments);
}

/// Appends a reply that was fetched in RESP3, as a client of `protocol` gets it.
#[inline(always)]
pub(super) fn append(out: &mut Vec<u8>, protocol: Protocol, command: u8, arguments: &[u8], reply: &[u8]) {
    if protocol == Protocol::Resp3 || CachedRead::of(command).is_same(reply) {
        return out.extend_from_slice(reply);
    }
    append_in_resp2(out, command, arguments, reply);
}

#[inline(never)]
fn append_in_resp2(out: &mut Vec<u8>, command: u8, arguments: &[u8], reply: &[u8]) {
    as_resp2::append(out, reply, CachedRead::of(command).difference(arguments));
}

/// Bulk strings that follow each other, as they stand in a request.
pub(crate) fn arguments(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let end = bytes.iter().position(|byte| *byte == b'\r')?;
        let length: usize = std::str::from_utf8(bytes.get(1..end)?).ok()?.parse().ok()?;
        let argument = bytes.get(end + 2..)?.get(..length)?;
        bytes = bytes.get(end + 2 + length + 2..)?;
        Some(argument)
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::commands::cached::reads;

    #[test]
    fn a_query_is_the_request_it_came_from() {
        let mut frame = Vec::new();
        encode::command(&mut frame, &[b"zrange", b"k", b"0", b"-1", b"", b"with\r\nscores"]);
        let before = b"*6\r\n$6\r\nzrange\r\n$1\r\nk\r\n";
        let arguments = Bytes::copy_from_slice(frame.strip_prefix(before).unwrap());
        let query = Query { key: Bytes::from_static(b"k"), command: reads::number("zrange").unwrap(), arguments };
        let mut again = Vec::new();
        query.encode(&mut again);
        assert_eq!(again, frame);
        let mut get = Vec::new();
        Query::get(b"k").encode(&mut get);
        assert_eq!(get, b"*2\r\n$3\r\nget\r\n$1\r\nk\r\n");
    }

    #[test]
    fn replies_are_those_of_the_clients_protocol() {
        let told = |name: &str, arguments: &[&[u8]], reply: &'static [u8]| {
            let mut frame = Vec::new();
            encode::command(&mut frame, arguments);
            let arguments = Bytes::copy_from_slice(&frame[4..]);
            let query = Query { key: Bytes::new(), command: reads::number(name).unwrap(), arguments };
            let reply = Bytes::from_static(reply);
            assert_eq!(query.reply_for(Protocol::Resp3, &reply), reply);
            query.reply_for(Protocol::Resp2, &reply)
        };
        assert_eq!(told("get", &[], b"_\r\n")[..], *b"$-1\r\n");
        assert_eq!(told("lrange", &[b"0", b"1"], b"*1\r\n$1\r\na\r\n")[..], *b"*1\r\n$1\r\na\r\n");
        assert_eq!(told("zrank", &[b"m"], b"_\r\n")[..], *b"$-1\r\n");
        assert_eq!(told("zrank", &[b"m", b"WITHSCORE"], b"_\r\n")[..], *b"*-1\r\n");
        assert_eq!(told("zscore", &[b"m"], b",1.5\r\n")[..], *b"$3\r\n1.5\r\n");
    }
}
