//! From a name, in whatever case a client wrote it, to its number, in a few nanoseconds.
//!
//! Every request passes here, and nearly all names have at most eight bytes (GET, HGETALL, ZINCRBY): such a name is one
//! integer, so that finding it is folding the case of eight bytes at once, a multiplication, and one comparison.

/// An open-addressed hash table of names, at most a quarter full.
#[derive(Clone, Debug)]
pub(super) struct NameIndex {
    slots: Box<[Slot]>,
    /// The names by number, in lower case; only those of more than eight bytes are read.
    names: Box<[Box<str>]>,
    /// What leaves of 64 bits as many as number the slots.
    shift: u32,
}

/// A name and its number; `digest.len` is 0 where there is none.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    digest: Digest,
    number: u32,
}

/// All there is to a name of up to eight bytes; of a longer one, its ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Digest {
    folded: u64,
    len: u32,
}

impl NameIndex {
    /// An index of `names`, which are in lower case, none empty, none twice; each gets its position as its number.
    pub(super) fn new(names: Vec<Box<str>>) -> Self {
        let bits = (names.len() * 4).next_power_of_two().trailing_zeros().max(1);
        let shift = u64::BITS - bits;
        let mut slots = vec![Slot::default(); 1 << bits];
        for (number, name) in (0..).zip(&names) {
            let digest = Digest::of(name.as_bytes()).expect("a command's name is neither empty nor gigantic");
            let mut at = digest.slot(shift);
            while slots[at].digest.len != 0 {
                at = (at + 1) % slots.len();
            }
            slots[at] = Slot { digest, number };
        }
        Self { slots: slots.into(), names: names.into(), shift }
    }

    /// The number of `name`, whatever its case.
    #[inline]
    pub(super) fn find(&self, name: &[u8]) -> Option<usize> {
        let digest = Digest::of(name)?;
        let mut at = digest.slot(self.shift);
        loop {
            let slot = &self.slots[at & (self.slots.len() - 1)];
            if slot.digest == digest && (name.len() <= 8 || self.is_named(slot.number, name)) {
                return Some(slot.number as usize);
            }
            if slot.digest.len == 0 {
                return None;
            }
            at += 1;
        }
    }

    fn is_named(&self, number: u32, name: &[u8]) -> bool {
        self.names[number as usize].as_bytes().eq_ignore_ascii_case(name)
    }
}

impl Digest {
    /// None of an empty name, which is nobody's, or of one of gigabytes.
    #[inline]
    fn of(name: &[u8]) -> Option<Self> {
        let len = u32::try_from(name.len()).ok().filter(|len| *len != 0)?;
        let folded = match (name.first_chunk(), name.last_chunk()) {
            (Some(head), Some(tail)) if len > 8 => {
                lower_case(u64::from_le_bytes(*head)) ^ lower_case(u64::from_le_bytes(*tail)).rotate_left(23)
            }
            _ => lower_case(packed(name)),
        };
        Some(Self { folded, len })
    }

    /// Where to look first. The highest bits of a product depend on all bits of its factors.
    #[inline]
    fn slot(self, shift: u32) -> usize {
        (self.folded.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> shift) as usize
    }
}

/// One to eight bytes as an integer, without a loop: two reads that may overlap.
#[inline]
fn packed(name: &[u8]) -> u64 {
    let len = name.len();
    if let (Some(head), Some(tail)) = (name.first_chunk::<4>(), name.last_chunk::<4>()) {
        return u64::from(u32::from_le_bytes(*head)) | u64::from(u32::from_le_bytes(*tail)) << ((len - 4) * 8);
    }
    u64::from(name[0]) | u64::from(name[len / 2]) << (len / 2 * 8) | u64::from(name[len - 1]) << ((len - 1) * 8)
}

/// The ASCII capitals among eight bytes as small letters, other bytes as they are.
#[inline]
const fn lower_case(bytes: u64) -> u64 {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let low = bytes & (0x7F * EACH);
    let from_a = low + (0x80 - b'A' as u64) * EACH;
    let past_z = low + (0x7F - b'Z' as u64) * EACH;
    // The top bit of every byte: 'A'..='Z', and ASCII. Shifted by two it is the bit that makes a letter small.
    let capitals = from_a & !past_z & !bytes & (0x80 * EACH);
    bytes | capitals >> 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_lowered_as_the_standard_library_lowers_it() {
        for byte in 0..=u8::MAX {
            let around = [b'Z', byte, b'@', byte, b'[', 0xC1, byte, b'a'];
            assert_eq!(lower_case(u64::from_le_bytes(around)).to_le_bytes(), around.map(|b| b.to_ascii_lowercase()));
        }
    }

    #[test]
    fn short_names_are_packed_whole() {
        for len in 1..=8 {
            let mut bytes = [0; 8];
            bytes[..len].copy_from_slice(&b"abcdefgh"[..len]);
            assert_eq!(packed(&bytes[..len]).to_le_bytes(), bytes);
        }
    }

    #[test]
    fn only_the_very_name_is_found() {
        let names = ["get", "subscribe", "ssubscribe", "geosearchstore"];
        let index = NameIndex::new(names.map(Box::from).to_vec());
        for (number, name) in names.iter().enumerate() {
            assert_eq!(index.find(name.as_bytes()), Some(number), "{name}");
            assert_eq!(index.find(name.to_uppercase().as_bytes()), Some(number), "{name} in capitals");
        }
        // The last three differ from a name only in length, or only between the ends that are digested.
        let strangers: [&[u8]; 7] = [b"", b"ge", b"gett", b"g\xC5t", b"get\0", b"subscribe\0", b"geosearCH_tore"];
        for stranger in strangers {
            assert_eq!(index.find(stranger), None, "{stranger:?}");
        }
        let longer = NameIndex::new(vec!["abcdefghXijklmnopq".to_lowercase().into()]);
        assert_eq!(longer.find(b"abcdefghYijklmnopq"), None);
    }

    #[test]
    fn names_that_meet_in_one_slot_are_all_found() {
        let names: Vec<Box<str>> = (0..5000).map(|n| format!("name-{n}").into()).collect();
        let index = NameIndex::new(names.clone());
        for (number, name) in names.iter().enumerate() {
            assert_eq!(index.find(name.as_bytes()), Some(number));
        }
        assert_eq!(index.find(b"name-5000"), None);
    }
}
