//! Decimal numbers as they stand in RESP header lines.
//!
//! Redis reads them with `string2ll` (`util.c`), which accepts one spelling of each number only: no sign but `-`, no
//! leading zero, no space. Being as strict keeps two servers from reading the same bytes differently.

/// The most characters an `i64` takes: a sign and 19 digits.
pub(crate) const MAX_CHARS: usize = 20;

/// The number that `text` spells, if it spells one as `string2ll` wants it.
pub(crate) fn parse(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    match digits {
        [b'0'] if !negative => Some(0),
        [b'1'..=b'9', rest @ ..] if rest.len() < MAX_CHARS - 1 => {
            digits.iter().try_fold(0_i64, |number, &digit| {
                if !digit.is_ascii_digit() {
                    return None;
                }
                let digit = i64::from(digit - b'0');
                // Gathered below zero, where there is room for `i64::MIN`.
                number.checked_mul(10)?.checked_sub(digit)
            })
        }
        _ => None,
    }
    .and_then(|number| if negative { Some(number) } else { number.checked_neg() })
}

/// A length of at most nine digits and its CRLF at the start of `line`: the length and what follows the line.
///
/// `None` says nothing but "look closer": the line may be cut off, longer, negative or wrong.
#[inline(always)]
pub(crate) fn short_line(line: &[u8]) -> Option<(usize, &[u8])> {
    match line {
        [digit @ b'0'..=b'9', b'\r', b'\n', rest @ ..] => Some((usize::from(digit - b'0'), rest)),
        [tens @ b'1'..=b'9', ones @ b'0'..=b'9', b'\r', b'\n', rest @ ..] => {
            Some((usize::from(tens - b'0') * 10 + usize::from(ones - b'0'), rest))
        }
        [b'1'..=b'9', ..] => longer_line(line),
        _ => None,
    }
}

fn longer_line(line: &[u8]) -> Option<(usize, &[u8])> {
    let mut number = 0;
    for (at, &byte) in line.iter().enumerate().take(10) {
        match byte {
            b'0'..=b'9' if at < 9 => number = number * 10 + usize::from(byte - b'0'),
            b'\r' => {
                return line.get(at + 1..)?.strip_prefix(b"\n").map(|rest| (number, rest));
            }
            _ => return None,
        }
    }
    None
}
