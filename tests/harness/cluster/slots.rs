//! Which slot a key is in.

/// How many slots a cluster has.
pub const SLOTS: u16 = 16_384;

/// The slot of a key: of its hash tag, the text between the first `{` and the next `}`, when it has one that is not
/// empty ([specification](https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/)).
#[must_use]
pub fn key_slot(key: &[u8]) -> u16 {
    crc16(tag(key).unwrap_or(key)) % SLOTS
}

/// A key called `name` in this slot, which its hash tag sees to: `{317}name`.
///
/// # Panics
/// When there is no such slot.
#[must_use]
pub fn key_in_slot(slot: u16, name: &str) -> String {
    assert!(slot < SLOTS, "slots end before {SLOTS}");
    let tag = (0_u32..).find(|number| key_slot(number.to_string().as_bytes()) == slot);
    format!("{{{}}}{name}", tag.expect("some number has this slot"))
}

/// So many keys that begin in slot 0 and are evenly spread, so that every node has some.
#[must_use]
pub fn spread_keys(count: u16, name: &str) -> Vec<String> {
    (0..count).map(|number| key_in_slot(number * (SLOTS / count), name)).collect()
}

fn tag(key: &[u8]) -> Option<&[u8]> {
    let opened = key.iter().position(|&byte| byte == b'{')?;
    let rest = &key[opened + 1..];
    let closed = rest.iter().position(|&byte| byte == b'}')?;
    (closed > 0).then(|| &rest[..closed])
}

/// CRC-16/XMODEM.
fn crc16(bytes: &[u8]) -> u16 {
    let shift = |crc: u16| if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
    bytes.iter().fold(0, |crc, &byte| (0..8).fold(crc ^ (u16::from(byte) << 8), |crc, _| shift(crc)))
}
