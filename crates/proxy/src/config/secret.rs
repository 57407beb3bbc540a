//! A password that does not find its way into logs.

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// A password: any bytes. `Debug` hides it, there is no `Display`, and its memory is overwritten before it is given back.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(Zeroizing<Box<[u8]>>);

impl Secret {
    pub(crate) fn new(password: impl Into<Box<[u8]>>) -> Secret {
        Secret(Zeroizing::new(password.into()))
    }

    /// Whether `guess` is this password, in a time that depends on the guess's length alone.
    pub(crate) fn matches(&self, guess: &[u8]) -> bool {
        self.0.ct_eq(guess).into()
    }

    /// The password itself, to be sent to the upstream.
    pub(crate) fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_bytes_match() {
        let secret = Secret::new("sécret".as_bytes());
        assert!(secret.matches("sécret".as_bytes()));
        for guess in [&b""[..], b"s\xc3\xa9cre", b"s\xc3\xa9cret ", b"secret", b"\xff\xff\xff\xff\xff\xff\xff"] {
            assert!(!secret.matches(guess), "{guess:?}");
        }
    }

    #[test]
    fn a_secret_is_not_shown() {
        assert_eq!(format!("{:?}", Secret::new(&b"pass"[..])), "Secret(..)");
    }
}
