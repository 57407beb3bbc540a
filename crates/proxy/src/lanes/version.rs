//! What an upstream is, and of which version.

/// Major, minor, patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version(pub(crate) u32, pub(crate) u32, pub(crate) u32);

impl Version {
    /// Of `7.0.15`. What is not a number counts as 0.
    pub(crate) fn parse(text: &str) -> Self {
        let mut numbers = text.split('.').map(|part| part.parse().unwrap_or(0));
        let mut next = || numbers.next().unwrap_or(0);
        Self(next(), next(), next())
    }
}

/// Whether a server is Valkey, as its INFO says: in HELLO it may be set to call itself Redis (`extended-redis-compatibility`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Valkey {
    /// It was not asked, or did not let this user know.
    #[default]
    Untold,
    /// It is something else.
    No,
    /// It is, of this version.
    Is(Version),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        assert!(Version::parse("6.2.7") < Version(6, 2, 8) && Version::parse("6.2.14") > Version(6, 2, 8));
        assert!(Version::parse("255.255.255") > Version::parse("8.0.2"));
        assert_eq!(Version::parse("unknown"), Version(0, 0, 0));
    }
}
