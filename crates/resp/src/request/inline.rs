//! Inline requests: a line of text split into arguments as `sdssplitargs` (`sds.c`) does.
//!
//! Blanks separate. Double quotes keep blanks and know escapes (`\n \r \t \b \a`, `\xHH`, and any other character for
//! itself); single quotes keep everything but know `\'`. A quote may open in the middle of an argument, and a closing one
//! ends the argument, so a blank or the line's end must follow.

/// Arguments of a line, one behind the other in one buffer.
pub(super) struct Arguments {
    bytes: Vec<u8>,
    /// Where each argument ends in `bytes`; the next begins there.
    ends: Vec<usize>,
}

impl Arguments {
    pub(super) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        let mut start = 0;
        self.ends.iter().map(move |&end| &self.bytes[std::mem::replace(&mut start, end)..end])
    }
}

/// The arguments of `line` (without its line end, and without NUL bytes), or `None` if its quotes don't balance.
pub(super) fn split(line: &[u8]) -> Option<Arguments> {
    let mut arguments = Arguments { bytes: Vec::with_capacity(line.len()), ends: Vec::new() };
    let mut rest = skip_blanks(line);
    while !rest.is_empty() {
        rest = skip_blanks(argument(rest, &mut arguments.bytes)?);
        arguments.ends.push(arguments.bytes.len());
    }
    Some(arguments)
}

/// Appends the argument at the start of `rest` to `out`. Returns what follows it.
fn argument<'l>(mut rest: &'l [u8], out: &mut Vec<u8>) -> Option<&'l [u8]> {
    loop {
        match rest {
            // Vertical tab and form feed separate too, but don't end an argument that has begun: so in Redis.
            [] | [b' ' | b'\n' | b'\r' | b'\t', ..] => return Some(rest),
            [b'"', quoted @ ..] => return double_quoted(quoted, out),
            [b'\'', quoted @ ..] => return single_quoted(quoted, out),
            [byte, after @ ..] => {
                out.push(*byte);
                rest = after;
            }
        }
    }
}

fn double_quoted<'l>(mut rest: &'l [u8], out: &mut Vec<u8>) -> Option<&'l [u8]> {
    loop {
        let (byte, after) = match rest {
            [] => return None,
            [b'"', after @ ..] => return behind_quote(after),
            [b'\\', b'x', high, low, after @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                (hex_digit(*high) << 4 | hex_digit(*low), after)
            }
            [b'\\', escaped, after @ ..] => (unescape(*escaped), after),
            [byte, after @ ..] => (*byte, after),
        };
        out.push(byte);
        rest = after;
    }
}

fn single_quoted<'l>(mut rest: &'l [u8], out: &mut Vec<u8>) -> Option<&'l [u8]> {
    loop {
        let (byte, after) = match rest {
            [] => return None,
            [b'\'', after @ ..] => return behind_quote(after),
            [b'\\', b'\'', after @ ..] => (b'\'', after),
            [byte, after @ ..] => (*byte, after),
        };
        out.push(byte);
        rest = after;
    }
}

fn behind_quote(rest: &[u8]) -> Option<&[u8]> {
    rest.first().is_none_or(|byte| is_blank(*byte)).then_some(rest)
}

fn skip_blanks(line: &[u8]) -> &[u8] {
    let blanks = line.iter().take_while(|byte| is_blank(**byte)).count();
    &line[blanks..]
}

/// `isspace` of C.
fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

fn unescape(letter: u8) -> u8 {
    match letter {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 0x08,
        b'a' => 0x07,
        other => other,
    }
}

/// The value of an ASCII hex digit.
fn hex_digit(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}
