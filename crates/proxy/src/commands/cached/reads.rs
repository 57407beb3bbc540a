//! The commands whose replies may be cached: reads of one key, its name their first argument, whose reply depends on nothing but
//! the key's value and the other arguments. Whatever varies by itself (TTL, OBJECT, SRANDMEMBER, SORT with GET …) is none.

use nearside_resp::as_resp2::Difference;

/// What is known of such a command.
#[derive(Debug)]
pub(crate) struct CachedRead {
    /// In lower case.
    pub(crate) name: &'static str,
    /// Its RESP2 reply is its RESP3 reply, but for a null by itself.
    is_same: bool,
    /// How else they differ.
    difference: Difference,
    /// Of a hash: the fields that it reads.
    pub(crate) fields: Fields,
}

/// Fields of a hash, each of which may expire by itself, at servers that know that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fields {
    /// It reads none.
    None,
    /// Those it names behind the key.
    Named,
    /// All, and the reply names them, one in so many elements.
    InReply(usize),
    /// All, and nobody names them.
    Unknown,
}

const fn same(name: &'static str) -> CachedRead {
    CachedRead { name, is_same: true, difference: Difference::None, fields: Fields::None }
}

const fn differs(name: &'static str, difference: Difference) -> CachedRead {
    CachedRead { name, is_same: false, difference, fields: Fields::None }
}

const fn hash(read: CachedRead, fields: Fields) -> CachedRead {
    CachedRead { fields, ..read }
}

/// The number of GET: the first of [`READS`].
pub(crate) const GET: u8 = 0;

/// By their numbers, by which the near-cache knows them.
pub(crate) static READS: [CachedRead; 44] = [
    same("get"),
    same("bitcount"),
    same("bitpos"),
    same("exists"), // of one key; of several it is divided
    differs("geodist", Difference::None),
    differs("geohash", Difference::None),
    differs("geopos", Difference::NullArray),
    same("getbit"),
    same("getrange"),
    hash(same("hexists"), Fields::Named),
    hash(same("hget"), Fields::Named),
    hash(differs("hgetall", Difference::None), Fields::InReply(2)),
    hash(same("hkeys"), Fields::InReply(1)),
    hash(same("hlen"), Fields::Unknown),
    hash(differs("hmget", Difference::None), Fields::Named),
    hash(same("hstrlen"), Fields::Named),
    hash(same("hvals"), Fields::Unknown),
    same("lindex"),
    same("llen"),
    same("lpos"),
    same("lrange"),
    same("scard"),
    same("sismember"),
    differs("smembers", Difference::None),
    same("smismember"),
    same("strlen"),
    same("substr"),
    same("type"),
    same("xlen"),
    differs("xrange", Difference::NullArray), // with COUNT 0
    differs("xrevrange", Difference::NullArray),
    same("zcard"),
    same("zcount"),
    same("zlexcount"),
    differs("zmscore", Difference::None),
    differs("zrange", Difference::FlatPairs),
    same("zrangebylex"),
    differs("zrangebyscore", Difference::FlatPairs),
    differs("zrank", Difference::NullArray),
    differs("zrevrange", Difference::FlatPairs),
    same("zrevrangebylex"),
    differs("zrevrangebyscore", Difference::FlatPairs),
    differs("zrevrank", Difference::NullArray),
    differs("zscore", Difference::None),
];

/// The number of the command of this name, if it is one of them.
pub(crate) fn number(name: &str) -> Option<u8> {
    let position = READS.iter().position(|read| read.name == name)?;
    u8::try_from(position).ok()
}

impl CachedRead {
    /// The command of a number that the near-cache was given.
    #[inline]
    pub(crate) fn of(number: u8) -> &'static CachedRead {
        &READS[usize::from(number)]
    }

    /// Whether a client of RESP2 is told the same as one of RESP3.
    #[inline]
    pub(super) fn is_same(&self, reply: &[u8]) -> bool {
        matches!(reply.first(), Some(b'$' | b':' | b'+' | b'-')) || (self.is_same && reply.first() != Some(&b'_'))
    }

    /// How the reply to a request with these arguments differs.
    pub(super) fn difference(&self, arguments: &[u8]) -> Difference {
        // Without WITHSCORE the rank is a number, and null as everywhere.
        let is_rank = self.name.ends_with("rank");
        if is_rank && super::query::arguments(arguments).count() < 2 { Difference::None } else { self.difference }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::table::{Effect, Table};

    #[test]
    fn each_is_a_command_of_the_table_that_reads_one_key() {
        for read in &READS {
            let command = Table::core().named(read.name).unwrap_or_else(|| panic!("no {}", read.name));
            assert_eq!(command.effect, Effect::Read, "{}", read.name);
            assert_eq!(command.cached, number(read.name), "{}", read.name);
        }
        assert_eq!(number("get"), Some(GET));
    }
}
