//! A password that does not find its way into logs.

use std::fmt;

use subtle::ConstantTimeEq;

/// A password. `Debug` hides it, and there is no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(String);

impl Secret {
    pub(crate) fn new(password: String) -> Secret {
        Secret(password)
    }

    /// Whether `guess` is this password, in a time that depends on the guess's length alone.
    pub(crate) fn matches(&self, guess: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(guess).into()
    }

    /// The password itself, to be sent to the upstream.
    pub(crate) fn expose(&self) -> &str {
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
        let secret = Secret::new("sécret".into());
        assert!(secret.matches("sécret".as_bytes()));
        for guess in [&b""[..], b"s\xc3\xa9cre", b"s\xc3\xa9cret ", b"secret", b"\xff\xff\xff\xff\xff\xff\xff"] {
            assert!(!secret.matches(guess), "{guess:?}");
        }
    }

    #[test]
    fn a_secret_is_not_shown() {
        assert_eq!(format!("{:?}", Secret::new("pass".into())), "Secret(..)");
    }
}
