//! The keys of one round, and what is written to them: every value names its key, its database and its write.

use std::time::Duration;

use nearside_tests::{Reply, spread_keys};

use crate::history::{Content, Key};

/// Hash tags: places in the cluster, each with a few keys that one command may name together.
pub const TAGS: u16 = 10;
/// Commands prefer the keys of so many of them: keys that change often beside such that are mostly read.
pub const BUSY_TAGS: u16 = 3;
/// A user that may not read all keys may read those with this in their names.
pub const OPEN: &str = "open";
/// The others.
const SHUT: &str = "shut";
/// Of every hash.
pub const FIELD: &str = "field";

/// What is kept under a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A text that is set.
    Text,
    /// A number that is set and counted up.
    Counter,
    /// A hash with one field.
    Hash,
}

/// The kinds of keys of each tag, and the word in their names.
const EACH: [(Kind, &str); 4] =
    [(Kind::Text, OPEN), (Kind::Text, SHUT), (Kind::Counter, "counter-open"), (Kind::Hash, "hash-open")];

/// A key.
#[derive(Clone, Debug)]
pub struct Named {
    /// Its database.
    pub db: u16,
    /// Its name there.
    pub name: String,
    /// What is kept under it.
    pub kind: Kind,
    /// Which of the hash tags it has.
    pub tag: u16,
}

/// The keys of a round.
#[derive(Clone, Debug)]
pub struct Keyspace(Vec<Named>);

impl Keyspace {
    /// Of so many databases, all with the same names; another round has others.
    #[must_use]
    pub fn of_round(round: usize, dbs: u16) -> Self {
        let tags = spread_keys(TAGS, "");
        let named = |db: u16| {
            let tags = tags.iter().enumerate();
            tags.flat_map(move |(tag, text)| {
                EACH.map(|(kind, word)| Named {
                    db,
                    name: format!("{text}{word}:{round}"),
                    kind,
                    tag: u16::try_from(tag).expect("few tags"),
                })
            })
        };
        Self((0..dbs).flat_map(named).collect())
    }

    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A key by its number.
    #[must_use]
    pub fn get(&self, key: Key) -> &Named {
        &self.0[key]
    }

    /// The numbers of the keys for which this holds.
    #[must_use]
    pub fn all(&self, is_meant: impl Fn(&Named) -> bool) -> Vec<Key> {
        (0..self.0.len()).filter(|&key| is_meant(&self.0[key])).collect()
    }

    /// A key of this kind in this database.
    #[must_use]
    pub fn pick(&self, random: &mut fastrand::Rng, db: u16, kind: Kind) -> Key {
        let tag = if random.bool() { random.u16(..BUSY_TAGS) } else { random.u16(..TAGS) };
        let possible = self.all(|named| named.db == db && named.kind == kind && named.tag == tag);
        possible[random.usize(..possible.len())]
    }

    /// Another text beside this one, of the same hash tag.
    #[must_use]
    pub fn neighbour(&self, key: Key) -> Key {
        let own = self.get(key);
        let is_other = |other: &Named| {
            other.db == own.db && other.tag == own.tag && other.kind == Kind::Text && other.name != own.name
        };
        self.all(is_other)[0]
    }

    /// The bytes of the value of this number, under this key.
    #[must_use]
    pub fn value(&self, key: Key, number: u64) -> String {
        let named = self.get(key);
        match named.kind {
            Kind::Counter => number.to_string(),
            // A length of its own, so that a slip in where a reply ends shows as well.
            Kind::Text | Kind::Hash => {
                let padding = "#".repeat(usize::try_from(number * 7 % 97).expect("less than 97"));
                format!("{}/{}={number}={padding}", named.db, named.name)
            }
        }
    }

    /// What HEXISTS tells of a key: that nothing is there, or something.
    pub fn presence(reply: &Reply) -> Result<Content, Misread> {
        match reply.integer() {
            Some(0) => Ok(Content::Nothing),
            Some(1) => Ok(Content::Unknown),
            _ => Err(Misread::NotItsOwn),
        }
    }

    /// Which value a reply is. The error: it is none of this key, or none at all.
    pub fn content(&self, key: Key, reply: &Reply) -> Result<Content, Misread> {
        if matches!(&reply.0[..], b"$-1\r\n" | b"_\r\n" | b"$0\r\n\r\n" | b"*0\r\n" | b"%0\r\n") {
            return Ok(Content::Nothing);
        }
        let named = self.get(key);
        if named.kind == Kind::Hash && matches!(reply.first(), Some(b'*' | b'%')) {
            let [field, value] = &reply.elements()[..] else { return Err(Misread::NotItsOwn) };
            return if field.bulk() == Some(FIELD.as_bytes()) {
                self.content(key, value)
            } else {
                Err(Misread::NotItsOwn)
            };
        }
        let text = reply.bulk().and_then(|bytes| std::str::from_utf8(bytes).ok()).ok_or(Misread::NotItsOwn)?;
        let number = match named.kind {
            Kind::Counter => text.parse().ok(),
            Kind::Text | Kind::Hash => text.split('=').nth(1).and_then(|digits| digits.parse().ok()),
        };
        let number = number.ok_or(Misread::NotItsOwn)?;
        if text == self.value(key, number) {
            return Ok(Content::Value(number));
        }
        let is_of_other_db = (0..=15).any(|db| text.starts_with(&format!("{db}/{}=", named.name)));
        Err(if is_of_other_db { Misread::OfAnotherDatabase } else { Misread::NotItsOwn })
    }
}

impl Named {
    /// Whether the user that may read only some keys may read this one.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.name.contains(OPEN)
    }
}

/// Why a reply is not the key's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misread {
    /// The key of this name in another database has it.
    OfAnotherDatabase,
    /// Another key has it, or nobody.
    NotItsOwn,
}

/// The number of a value: of its writer, and of its write.
#[must_use]
pub fn value_number(writer: usize, write: u64, kind: Kind) -> u64 {
    let number = (writer as u64 + 1) << 24 | write;
    match kind {
        // Room to count up from there.
        Kind::Counter => number << 20,
        Kind::Text | Kind::Hash => number,
    }
}

/// How long a value lives that does not live for ever.
#[must_use]
pub fn short_life(random: &mut fastrand::Rng) -> Duration {
    Duration::from_millis(random.u64(15..400))
}
