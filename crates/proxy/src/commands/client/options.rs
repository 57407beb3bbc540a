//! How CLIENT's arguments are read, as Redis reads them.

use crate::session::registry::Client;

/// The kind of a client. No replica connects to the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Normal,
    Replica,
    PubSub,
    Master,
}

impl Kind {
    /// The kind of this one, as `getClientType` in Redis's `networking.c` has it.
    pub(super) fn of(client: &Client) -> Self {
        if client.is_subscribed() { Kind::PubSub } else { Kind::Normal }
    }

    /// The kind that `TYPE` names.
    pub(super) fn parse(name: &[u8]) -> Result<Self, Vec<u8>> {
        let names: [(&[u8], Kind); 5] = [
            (b"normal", Kind::Normal),
            (b"slave", Kind::Replica),
            (b"replica", Kind::Replica),
            (b"pubsub", Kind::PubSub),
            (b"master", Kind::Master),
        ];
        let found = names.into_iter().find(|(known, _)| name.eq_ignore_ascii_case(known));
        let unknown = || [b"ERR Unknown client type '", as_text(name), b"'"].concat();
        found.map(|(_, kind)| kind).ok_or_else(unknown)
    }
}

/// A number in the only spelling that Redis takes: no sign but `-`, no leading zero, no space (`string2ll`).
pub(in crate::commands) fn integer(text: &[u8]) -> Option<i64> {
    let number: i64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    (number.to_string().as_bytes() == text).then_some(number)
}

pub(super) fn on_or_off(text: &[u8]) -> Option<bool> {
    match text.to_ascii_lowercase().as_slice() {
        b"on" => Some(true),
        b"off" => Some(false),
        _ => None,
    }
}

/// An argument as Redis prints it in an error: as a C string, which a zero byte ends.
pub(in crate::commands) fn as_text(argument: &[u8]) -> &[u8] {
    argument.split(|byte| *byte == 0).next().unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_number_has_one_spelling() {
        for (text, number) in [("0", 0), ("7", 7), ("-7", -7), ("9223372036854775807", i64::MAX)] {
            assert_eq!(integer(text.as_bytes()), Some(number), "{text}");
        }
        for text in ["", "-", "+7", "007", "-0", " 7", "7 ", "7.0", "0x7", "9223372036854775808", "\u{664}"] {
            assert_eq!(integer(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(integer(b"7\xff"), None);
    }

    #[test]
    fn a_kind_has_redis_s_names_in_any_case() {
        for (name, kind) in [("NORMAL", Kind::Normal), ("slave", Kind::Replica), ("Replica", Kind::Replica)] {
            assert_eq!(Kind::parse(name.as_bytes()), Ok(kind));
        }
        assert_eq!(Kind::parse(b"n\xff\0rest").unwrap_err(), b"ERR Unknown client type 'n\xff'");
    }
}
