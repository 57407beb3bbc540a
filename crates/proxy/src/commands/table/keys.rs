//! Where the keys of a request are.
//!
//! A [`KeySpec`] is Redis's own model, a place to begin and a way to go on from there
//! (<https://redis.io/docs/latest/develop/reference/key-specs/>), with one thing more: options are looked for as the
//! commands themselves do, each stepping over its arguments. By the server's key specs `SORT k BY store` names a wrong
//! key, and `GEORADIUS … STORE a STORE b` the one that is not written.

use nearside_resp::Request;

/// What a command does with a key that it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Reads it, or asks about it.
    Read,
    /// May insert, change or delete it.
    Write,
    /// Nothing: it is a shard channel, no key, but hashed to a slot as one.
    Channel,
}

/// What is known of the keys of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keys {
    /// It names none.
    None,
    /// All that it writes were visited, and all that it reads, save those that SORT derives from patterns.
    Known,
    /// The server will refuse it: what should be the number of its keys is not. Those visited mean nothing.
    Malformed,
    /// It may name others than those visited.
    Unknown,
}

/// Where some keys of a command are, and what it does with them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KeySpec {
    pub(super) access: Access,
    pub(super) begin: Begin,
    pub(super) find: Find,
}

/// Where the first key is, or what tells how many there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Begin {
    /// At this argument.
    At(usize),
    /// After the first of these options (in any case) found from argument `from` on; no keys if there is none.
    AfterFirst { words: Box<[Box<str>]>, from: usize },
    /// After the last of them.
    AfterLast { words: Box<[Box<str>]>, from: usize },
    /// As a server tells it of commands that are not in the core table: after this word, wherever it stands from argument
    /// `from` on; backwards from the end where `from` is negative.
    Keyword { word: Box<str>, from: isize },
    /// The server doesn't tell.
    Unknown,
}

/// Which arguments from the beginning on are keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Find {
    /// Every `step`-th up to the last one: so many past the beginning, or, if negative, so many before the end of the request.
    Range { last: isize, step: usize },
    /// The first of so many equal parts of what follows.
    Share { parts: usize, step: usize },
    /// As many as the argument `count` past the beginning says, every `step`-th from `first` past the beginning on.
    Counted { count: usize, first: usize, step: usize },
    /// The server doesn't tell.
    Unknown,
}

/// Why a specification gives no positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoPositions {
    /// The request is wrong.
    Malformed,
    /// The specification is incomplete.
    Unknown,
}

/// Arguments `first`, `first + step`, … before `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Positions {
    first: usize,
    end: usize,
    step: usize,
}

impl KeySpec {
    /// The keys' positions in `request`; all are within it.
    #[inline]
    pub(super) fn positions(&self, request: &Request<'_>) -> Result<Positions, NoPositions> {
        let Some(begin) = self.begin.find(request)? else {
            return Ok(Positions::NONE);
        };
        match self.find {
            Find::Range { last, step } => Ok(range(begin, last, step, request.len())),
            Find::Share { parts, step } => {
                let following = request.len().saturating_sub(begin);
                if !following.is_multiple_of(parts) {
                    return Err(NoPositions::Malformed);
                }
                Ok(Positions { first: begin, end: begin + following / parts, step })
            }
            Find::Counted { count, first, step } => counted(request, begin + count, begin + first, step),
            Find::Unknown => Err(NoPositions::Unknown),
        }
    }

    /// The argument that is always its first key, if there is such a one.
    pub(super) fn fixed_first(&self) -> Option<usize> {
        match (&self.begin, &self.find) {
            (Begin::At(position), Find::Range { .. } | Find::Share { .. }) => Some(*position),
            _ => None,
        }
    }
}

impl Begin {
    #[inline]
    fn find(&self, request: &Request<'_>) -> Result<Option<usize>, NoPositions> {
        let option = match self {
            Self::At(position) => return Ok(Some(*position)),
            Self::AfterFirst { words, from } => options(request, *from).find(|at| is_one_of(request.arg(*at), words)),
            Self::AfterLast { words, from } => {
                options(request, *from).filter(|at| is_one_of(request.arg(*at), words)).last()
            }
            Self::Keyword { word, from } => keyword(request, word, *from),
            Self::Unknown => return Err(NoPositions::Unknown),
        };
        Ok(option.map(|at| at + 1))
    }
}

impl Positions {
    const NONE: Self = Self { first: 0, end: 0, step: 1 };

    /// The positions in ascending order.
    #[inline]
    pub(super) fn iter(self) -> impl Iterator<Item = usize> {
        (self.first..self.end).step_by(self.step)
    }
}

fn range(first: usize, last: isize, step: usize, argc: usize) -> Positions {
    let end = match usize::try_from(last) {
        Ok(past) => first + past + 1,
        Err(_) => argc.saturating_sub(last.unsigned_abs() - 1),
    };
    Positions { first, end: end.min(argc), step }
}

fn counted(request: &Request<'_>, count: usize, first: usize, step: usize) -> Result<Positions, NoPositions> {
    let keys = request.get(count).and_then(number).ok_or(NoPositions::Malformed)?;
    let end = keys.checked_mul(step).and_then(|span| first.checked_add(span)).ok_or(NoPositions::Malformed)?;
    // What separates the keys from each other need not follow the last.
    if keys > 0 && end - (step - 1) > request.len() {
        return Err(NoPositions::Malformed);
    }
    Ok(Positions { first, end: end.min(request.len()), step })
}

/// A number of keys as Redis reads it: no sign, no leading zero, no blank (`string2ll`; a negative count is refused too).
fn number(digits: &[u8]) -> Option<usize> {
    if digits.len() > 1 && digits[0] == b'0' || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Options whose arguments may be any text, another option's name too, and how many those are: of all commands whose keys or
/// whose blocking depend on an option. One list does for all: where a command doesn't know the option, it refuses the request.
const OPTION_ARGUMENTS: [(&str, usize); 8] = [
    ("auth", 1),             // MIGRATE
    ("auth2", 2),            // MIGRATE
    ("by", 1),               // SORT
    ("get", 1),              // SORT
    ("group", 2),            // XREADGROUP
    ("store", 1),            // SORT, GEORADIUS
    ("storedist", 1),        // GEORADIUS
    ("streams", usize::MAX), // XREAD, XREADGROUP: nothing after it is an option
];

/// The positions of a request's options from argument `from` on, such arguments left out.
fn options(request: &Request<'_>, from: usize) -> impl Iterator<Item = usize> {
    let arguments = |at: usize| {
        let option = request.arg(at);
        OPTION_ARGUMENTS.iter().find(|(name, _)| option.eq_ignore_ascii_case(name.as_bytes())).map_or(0, |(_, n)| *n)
    };
    let first = Some(from).filter(|at| *at < request.len());
    std::iter::successors(first, move |at| {
        at.saturating_add(arguments(*at)).checked_add(1).filter(|next| *next < request.len())
    })
}

fn keyword(request: &Request<'_>, word: &str, from: isize) -> Option<usize> {
    let is_it = |at: &usize| request.arg(*at).eq_ignore_ascii_case(word.as_bytes());
    match usize::try_from(from) {
        Ok(from) => (from..request.len()).find(is_it),
        Err(_) => (1..=request.len().saturating_sub(from.unsigned_abs())).rev().find(is_it),
    }
}

/// Whether the option is given.
pub(super) fn has_option(request: &Request<'_>, word: &str) -> bool {
    options(request, 1).any(|at| request.arg(at).eq_ignore_ascii_case(word.as_bytes()))
}

fn is_one_of(argument: &[u8], words: &[Box<str>]) -> bool {
    words.iter().any(|word| argument.eq_ignore_ascii_case(word.as_bytes()))
}
