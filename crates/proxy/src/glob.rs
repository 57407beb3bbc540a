//! Patterns as Redis has them (`stringmatchlen` in `util.c`), made regular expressions: those match in linear time, whatever
//! somebody thinks up, and many at once.

use regex::bytes::{Regex, RegexBuilder, RegexSet, RegexSetBuilder};

/// The longest pattern, in bytes: what is made of it costs far more than itself, and is made while others wait.
const LONGEST: usize = 1024;
/// Memory that a compiled pattern, or set of patterns, may take.
const SIZE_LIMIT: usize = 16 << 20;

/// What keys match one pattern.
#[derive(Clone, Debug)]
pub(crate) struct Glob(Regex);

/// What keys match which of several patterns.
#[derive(Clone, Debug)]
pub(crate) struct GlobSet(RegexSet);

impl Glob {
    /// `None`: it is too long.
    pub(crate) fn new(pattern: &[u8]) -> Option<Self> {
        if pattern.len() > LONGEST {
            return None;
        }
        RegexBuilder::new(&expression(pattern)).unicode(false).size_limit(SIZE_LIMIT).build().ok().map(Glob)
    }

    pub(crate) fn matches(&self, key: &[u8]) -> bool {
        self.0.is_match(key)
    }
}

impl GlobSet {
    /// `None`: one is too long, or together they are gigantic.
    pub(crate) fn new<'a>(patterns: impl Iterator<Item = &'a [u8]> + Clone) -> Option<Self> {
        if patterns.clone().any(|pattern| pattern.len() > LONGEST) {
            return None;
        }
        let set = RegexSetBuilder::new(patterns.map(expression)).unicode(false).size_limit(SIZE_LIMIT).build();
        set.ok().map(GlobSet)
    }

    /// The first pattern that matches, counted from 0.
    pub(crate) fn first(&self, key: &[u8]) -> Option<usize> {
        self.0.matches(key).iter().next()
    }
}

/// A regular expression of bytes that matches what the pattern matches.
fn expression(pattern: &[u8]) -> String {
    let mut out = String::from(r"(?s)\A");
    let mut rest = pattern;
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        match first {
            b'*' => out.push_str(".*"),
            b'?' => out.push('.'),
            b'[' => rest = class(&mut out, after),
            b'\\' if !after.is_empty() => {
                literal(&mut out, after[0]);
                rest = &after[1..];
            }
            byte => literal(&mut out, *byte),
        }
    }
    out.push_str(r"\z");
    out
}

/// Behind `[`: bytes and ranges of bytes, up to `]` or the pattern's end. Gives what follows.
fn class<'a>(out: &mut String, mut rest: &'a [u8]) -> &'a [u8] {
    let is_negated = rest.first() == Some(&b'^');
    rest = &rest[usize::from(is_negated)..];
    let mut members = [false; 256];
    loop {
        match rest {
            [] => break,
            [b']', after @ ..] => {
                rest = after;
                break;
            }
            [b'\\', byte, after @ ..] => {
                members[usize::from(*byte)] = true;
                rest = after;
            }
            [from, b'-', to, after @ ..] => {
                let (from, to) = (from.min(to), from.max(to));
                (*from..=*to).for_each(|byte| members[usize::from(byte)] = true);
                rest = after;
            }
            [byte, after @ ..] => {
                members[usize::from(*byte)] = true;
                rest = after;
            }
        }
    }
    out.push('[');
    let start = out.len();
    let mut bytes = (0..=u8::MAX).filter(|byte| members[usize::from(*byte)] != is_negated).peekable();
    while let Some(from) = bytes.next() {
        let mut to = from;
        while let Some(next) = bytes.next_if(|next| *next == to + 1) {
            to = next;
        }
        literal(out, from);
        if to > from {
            out.push('-');
            literal(out, to);
        }
    }
    // Never empty: a class of nothing is one of all but everything.
    if out.len() == start {
        out.push_str(r"^\x00-\xff");
    }
    out.push(']');
    rest
}

fn literal(out: &mut String, byte: u8) {
    out.push_str(&format!(r"\x{byte:02x}"));
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn matches(pattern: &[u8], key: &[u8]) -> bool {
        Glob::new(pattern).unwrap().matches(key)
    }

    #[test]
    fn patterns_mean_what_redis_takes_them_for() {
        let cases: [(&[u8], &[u8], bool); 31] = [
            (b"*", b"", true),
            (b"*", b"a\nb\xff\0", true),
            (b"session:*", b"session:", true),
            (b"session:*", b"sessions", false),
            (b"h?llo", b"hallo", true),
            (b"h?llo", b"hllo", false),
            (b"h[ae]llo", b"hello", true),
            (b"h[ae]llo", b"hillo", false),
            (b"h[^e]llo", b"hallo", true),
            (b"h[^e]llo", b"hello", false),
            (b"h[a-c]llo", b"hbllo", true),
            (b"h[c-a]llo", b"hbllo", true),
            (b"h[a-c]llo", b"hdllo", false),
            (b"[a-]", b"-", false),
            (b"[", b"", false),
            (b"[ab", b"a", true),
            (b"[]", b"]", false),
            (b"[^]", b"x", true),
            (b"[\\]]", b"]", true),
            (b"a\\*b", b"a*b", true),
            (b"a\\*b", b"axb", false),
            (b"a\\", b"a\\", true),
            (b"", b"", true),
            (b"", b"a", false),
            (b"a", b"A", false),
            (b"(.)+|$", b"(.)+|$", true),
            (b"\xff?", b"\xff\xfe", true),
            (b"a", b"a\n", false),
            (b"**a", b"bba", true),
            (b"*a*b", b"xaxb", true),
            (b"*a*b", b"xbxa", false),
        ];
        for (pattern, key, expected) in cases {
            let text = pattern.escape_ascii();
            assert_eq!(matches(pattern, key), expected, "{text} {}", key.escape_ascii());
        }
    }

    #[test]
    fn a_pattern_has_its_limit() {
        assert!(Glob::new(&[b'*'; LONGEST]).is_some() && Glob::new(&[b'*'; LONGEST + 1]).is_none());
        assert!(GlobSet::new([&b"*"[..], &[b'*'; LONGEST + 1]].into_iter()).is_none());
        assert_eq!(expression(b"[^b]"), r"(?s)\A[\x00-\x61\x63-\xff]\z");
    }

    #[test]
    fn the_first_of_a_set_is_found() {
        let set = GlobSet::new([&b"user:*"[..], b"*:1", b"*"].into_iter()).unwrap();
        assert_eq!([set.first(b"user:1"), set.first(b"x:1"), set.first(b"x")], [Some(0), Some(1), Some(2)]);
        assert_eq!(GlobSet::new(std::iter::empty()).unwrap().first(b"x"), None);
    }
}
