//! Hash slots: <https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#key-distribution-model>.

use crc::{CRC_16_XMODEM, Crc, Table};

/// How many slots a cluster has.
pub(crate) const SLOTS: usize = 16384;

/// Eight bytes at a time: keys are short, and every forwarded command has one.
static CRC: Crc<u16, Table<16>> = Crc::<u16, Table<16>>::new(&CRC_16_XMODEM);

/// A slot, below [`SLOTS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Slot(pub(super) u16);

impl Slot {
    /// The slot of this number, if there is such a one.
    pub(crate) fn new(number: u16) -> Option<Self> {
        (usize::from(number) < SLOTS).then_some(Slot(number))
    }

    /// Its number.
    pub(crate) fn number(self) -> u16 {
        self.0
    }

    /// The slot of a key.
    #[inline]
    pub(crate) fn of(key: &[u8]) -> Self {
        Slot(CRC.checksum(tag(key)) % SLOTS as u16)
    }
}

/// What is hashed: what stands between the first `{` and the next `}`, if that is something; else the whole key.
#[inline]
fn tag(key: &[u8]) -> &[u8] {
    let Some(open) = key.iter().position(|byte| *byte == b'{') else { return key };
    let rest = &key[open + 1..];
    match rest.iter().position(|byte| *byte == b'}') {
        None | Some(0) => key,
        Some(close) => &rest[..close],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_cluster_specification() {
        assert_eq!(Slot::of(b"123456789"), Slot(0x31C3));
        assert_eq!(Slot::of(b""), Slot(0));
        for (one, other) in [("{user1000}.following", "user1000"), ("foo{bar}{zap}", "bar"), ("foo{{bar}}zap", "{bar")]
        {
            assert_eq!(Slot::of(one.as_bytes()), Slot::of(other.as_bytes()), "{one}");
        }
        for whole in ["foo{}{bar}", "foo{bar", "foo}bar{"] {
            assert_eq!(Slot::of(whole.as_bytes()), Slot(CRC.checksum(whole.as_bytes()) % 16384), "{whole}");
        }
    }

    #[test]
    fn slots_agree_with_an_independent_implementation() {
        for i in 0..20_000_u64 {
            let key = format!("{}{{{}}}{}", "x".repeat(i as usize % 40), i.wrapping_mul(0x9e37_79b9_7f4a_7c15), i % 3);
            let key = &key.as_bytes()[..key.len() - (i as usize % 5)];
            assert_eq!(Slot::of(key).0, redis_protocol::redis_keyslot(key));
        }
    }
}
