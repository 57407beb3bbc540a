//! One reply as the bytes it came in.

use std::fmt;
use std::io::{self, BufRead, Read};
use std::ops::Deref;

/// A complete RESP2 or RESP3 reply: its bytes, compared as bytes, printed escaped.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reply(pub Vec<u8>);

/// What is printed of a reply at most: a failed test on a 512 MB value should still be readable.
const PRINTED: usize = 400;

impl Reply {
    /// Reads exactly one reply. Attributes count as part of the reply that they precede.
    pub fn read(source: &mut impl BufRead) -> io::Result<Self> {
        let mut bytes = Vec::new();
        let mut owed: u64 = 1;
        while owed > 0 {
            owed -= 1;
            let start = bytes.len();
            source.read_until(b'\n', &mut bytes)?;
            let line = bytes[start..].strip_suffix(b"\r\n").ok_or_else(|| cut_short(&bytes[start..]))?;
            match line.first() {
                Some(b'+' | b'-' | b':' | b'_' | b',' | b'#' | b'(') => {}
                Some(b'$' | b'=' | b'!') => {
                    if let Ok(len) = u64::try_from(length(line)?) {
                        let taken = source.take(len + 2).read_to_end(&mut bytes)?;
                        if taken as u64 != len + 2 {
                            return Err(io::ErrorKind::UnexpectedEof.into());
                        }
                    }
                }
                Some(b'*' | b'~' | b'>') => owed += u64::try_from(length(line)?).unwrap_or(0),
                Some(b'%') => owed += 2 * u64::try_from(length(line)?).unwrap_or(0),
                Some(b'|') => owed += 2 * u64::try_from(length(line)?).unwrap_or(0) + 1,
                _ => return Err(invalid(line)),
            }
        }
        Ok(Self(bytes))
    }

    /// Whether this is an error reply.
    #[must_use]
    pub fn is_error(&self) -> bool {
        matches!(self.0.first(), Some(b'-' | b'!'))
    }

    /// The bytes of a bulk or verbatim string; `None` when it is anything else, or null.
    #[must_use]
    pub fn bulk(&self) -> Option<&[u8]> {
        let (kind, rest) = self.0.split_first()?;
        if !matches!(kind, b'$' | b'=') || rest.first() == Some(&b'-') {
            return None;
        }
        let at = rest.iter().position(|&byte| byte == b'\n')?;
        rest[at + 1..].strip_suffix(b"\r\n")
    }

    /// The number of an integer reply.
    #[must_use]
    pub fn integer(&self) -> Option<i64> {
        let digits = self.0.strip_prefix(b":")?.strip_suffix(b"\r\n")?;
        std::str::from_utf8(digits).ok()?.parse().ok()
    }

    /// The elements of an aggregate (of a map: keys and values in turn); none when it is no aggregate.
    #[must_use]
    pub fn elements(&self) -> Vec<Self> {
        if !matches!(self.0.first(), Some(b'*' | b'~' | b'>' | b'%')) {
            return Vec::new();
        }
        let at = self.0.iter().position(|&byte| byte == b'\n').map_or(self.0.len(), |at| at + 1);
        let mut rest = &self.0[at..];
        let mut elements = Vec::new();
        while !rest.is_empty() {
            elements.push(Self::read(&mut rest).expect("a reply that was read once has complete elements"));
        }
        elements
    }

    /// The elements of an aggregate as text: of strings their bytes, of all else what [`Self::text`] gives.
    #[must_use]
    pub fn words(&self) -> Vec<String> {
        let word =
            |reply: &Self| reply.bulk().map_or_else(|| reply.text(), |bytes| String::from_utf8_lossy(bytes).into());
        self.elements().iter().map(word).collect()
    }

    /// The first line without its end: what tells an aggregate's type and length.
    #[must_use]
    pub fn header(&self) -> &[u8] {
        self.0.split(|&byte| byte == b'\r').next().unwrap_or_default()
    }

    /// The bytes as text, escaped where they are not printable.
    #[must_use]
    pub fn text(&self) -> String {
        self.0.escape_ascii().to_string()
    }
}

fn length(line: &[u8]) -> io::Result<i64> {
    std::str::from_utf8(&line[1..]).ok().and_then(|digits| digits.parse().ok()).ok_or_else(|| invalid(line))
}

fn invalid(line: &[u8]) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not a reply: {:?}", Reply(line.to_vec())))
}

fn cut_short(line: &[u8]) -> io::Error {
    if line.ends_with(b"\n") { invalid(line) } else { io::ErrorKind::UnexpectedEof.into() }
}

impl Deref for Reply {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.0[..self.0.len().min(PRINTED)];
        write!(f, "\"{}\"", shown.escape_ascii())?;
        if shown.len() < self.0.len() {
            write!(f, "… ({} bytes)", self.0.len())?;
        }
        Ok(())
    }
}

impl PartialEq<str> for Reply {
    fn eq(&self, other: &str) -> bool {
        self.0 == other.as_bytes()
    }
}

impl PartialEq<&str> for Reply {
    fn eq(&self, other: &&str) -> bool {
        self.0 == other.as_bytes()
    }
}

impl PartialEq<&[u8]> for Reply {
    fn eq(&self, other: &&[u8]) -> bool {
        self.0 == *other
    }
}

impl<const N: usize> PartialEq<&[u8; N]> for Reply {
    fn eq(&self, other: &&[u8; N]) -> bool {
        self.0 == *other
    }
}
