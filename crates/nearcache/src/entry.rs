//! What the cache holds for a key.
//!
//! One key has one entry, because an invalidation names a key and nothing more: tracking knows neither databases nor users.
//! An entry is nearly always one *variant*: one reply. It becomes a list of them when the same key is read in several
//! databases, by several users, by several commands, or by one with different arguments.
//!
//! Terms, key and reply share one allocation, and the table is a set of those: what it compares a lookup's key with is the
//! entry itself, so that a hit has found its reply when it has found its key, and counts no reference. An item costs 41 bytes
//! beyond key and reply, plus the table's slot.

use std::cell::Cell;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::{fmt, slice};

use quick_cache::Equivalent;
use triomphe::ThinArc;

use crate::hash::KeyBytes;
use crate::lease::Lease;
use crate::terms::{Deadline, Terms};
use crate::time::Time;

/// The longest key that is cached: its length is kept in two bytes.
pub(crate) const MAX_KEY_LEN: usize = u16::MAX as usize;

/// The longest arguments of a read that is cached: they are kept with each reply.
pub(crate) const MAX_ARGUMENTS_LEN: usize = 4096;
/// Stands for the length of arguments of this many bytes or more, which then follows in two.
const LONG_ARGUMENTS: u8 = u8::MAX;

/// How many variants one key may have; one more takes the place of the oldest. A lookup searches the list, and a store
/// copies it.
pub(crate) const MAX_VARIANTS: usize = 64;

/// Bytes of an entry's allocation in front of key and reply: reference count, [`Header`], length of the rest.
pub(crate) const PREFIX_LEN: usize = 8 + size_of::<Header>() + 8;

/// Which of a key's cached replies: they differ by who asks, where, and what.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub struct Scope<'a> {
    /// The upstream user, as a number that the caller gives it: rights differ by user.
    pub user: u16,
    /// The number of the database.
    pub db: u16,
    /// The command, as a number that the caller gives it.
    pub command: u8,
    /// What it is given beside the key: bytes that differ where the arguments do.
    pub arguments: &'a [u8],
}

enum Header {
    /// The bytes that follow are the key, the length of the arguments, these, and the reply. No reply says: too large to be
    /// kept.
    Variant(Terms),
    /// Oldest first; none of them is a list itself. The bytes that follow are the key.
    Several(Box<[Entry]>),
}

/// What is kept for a key: a variant, or several. Cloning it counts one reference.
#[derive(Clone)]
pub(crate) struct Entry(ThinArc<Header, u8>);

/// A variant about to be stored.
pub(crate) struct NewVariant<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) scope: Scope<'a>,
    pub(crate) lease: Lease,
    pub(crate) deadline: Deadline,
    /// None: it was too large.
    pub(crate) reply: Option<&'a [u8]>,
}

impl Entry {
    pub(crate) fn variant(new: NewVariant<'_>) -> Self {
        debug_assert!(new.reply.is_none_or(|reply| !reply.is_empty()), "every reply has a type byte");
        let key_len = u16::try_from(new.key.len()).expect("a lookup passes longer keys by");
        let arguments = new.scope.arguments;
        let long = (arguments.len() as u16).to_le_bytes();
        let len: &[u8] = match u8::try_from(arguments.len()) {
            Ok(short) if short < LONG_ARGUMENTS => &[short],
            _ => &[LONG_ARGUMENTS, long[0], long[1]],
        };
        let bytes = [new.key, len, arguments, new.reply.unwrap_or_default()].concat();
        let terms = Terms::new(new.lease, new.deadline, new.scope, key_len);
        Self(ThinArc::from_header_and_slice(Header::Variant(terms), &bytes))
    }

    /// `newest`, a variant, beside those of this entry that another scope may still be served from.
    pub(crate) fn with(&self, newest: Entry, now: Time) -> Self {
        let scope = newest.scope();
        let stays = |other: &&Entry| other.scope() != scope && other.terms().is_some_and(|terms| !terms.are_over(now));
        let mut variants: Vec<Entry> = self.variants().iter().filter(stays).cloned().collect();
        if variants.is_empty() {
            return newest;
        }
        let surplus = (variants.len() + 1).saturating_sub(MAX_VARIANTS);
        variants.drain(..surplus);
        variants.push(newest);
        Self(ThinArc::from_header_and_slice(Header::Several(variants.into()), self.key()))
    }

    /// What it has for a read.
    #[inline(always)] // into the search that has found it: every hit passes here
    pub(crate) fn find(&self, scope: Scope<'_>, now: Time) -> Read<ReplyRef<'_>> {
        match &self.0.header.header {
            Header::Variant(terms) => self.serve(terms, scope, now),
            Header::Several(variants) => Self::find_among(variants, scope, now),
        }
    }

    #[inline(always)]
    fn serve(&self, terms: &Terms, scope: Scope<'_>, now: Time) -> Read<ReplyRef<'_>> {
        let (arguments, bytes) = self.arguments_and_reply(terms);
        if !terms.are_for(scope, arguments) || !terms.allow(now) {
            return Read::Miss;
        }
        terms.note_use();
        if bytes.is_empty() { Read::TooLarge } else { Read::Hit(ReplyRef { bytes, variant: self }) }
    }

    #[inline(never)]
    fn find_among<'a>(variants: &'a [Entry], scope: Scope<'_>, now: Time) -> Read<ReplyRef<'a>> {
        let mut found = variants.iter().filter_map(|variant| Some(variant.serve(variant.terms()?, scope, now)));
        found.find(|read| !matches!(read, Read::Miss)).unwrap_or(Read::Miss)
    }

    /// Whether none of it can ever be served again. (A lapsed lease can be revived.)
    pub(crate) fn is_over(&self, now: Time) -> bool {
        self.variants().iter().all(|variant| variant.terms().is_none_or(|terms| terms.are_over(now)))
    }

    #[inline]
    pub(crate) fn key(&self) -> &[u8] {
        match &self.0.header.header {
            Header::Variant(terms) => &self.0.slice[..usize::from(terms.key_len)],
            Header::Several(_) => &self.0.slice,
        }
    }

    /// The reply of a variant; empty if it was too large.
    #[inline]
    pub(crate) fn reply(&self) -> &[u8] {
        match &self.0.header.header {
            Header::Variant(terms) => self.arguments_and_reply(terms).1,
            Header::Several(_) => &[],
        }
    }

    /// Which read a variant answers.
    pub(crate) fn scope(&self) -> Option<Scope<'_>> {
        let terms = self.terms()?;
        Some(terms.scope(self.arguments_and_reply(terms).0))
    }

    #[inline(always)]
    fn arguments_and_reply(&self, terms: &Terms) -> (&[u8], &[u8]) {
        match &self.0.slice[usize::from(terms.key_len)..] {
            [LONG_ARGUMENTS, low, high, rest @ ..] => rest.split_at(usize::from(u16::from_le_bytes([*low, *high]))),
            [len, rest @ ..] => rest.split_at(usize::from(*len)),
            [] => unreachable!("every variant says how long its arguments are"),
        }
    }

    /// Whether anybody was served any of it.
    pub(crate) fn is_used(&self) -> bool {
        self.variants().iter().filter_map(Entry::terms).any(Terms::is_used)
    }

    /// The lengths of all the allocations it refers to.
    pub(crate) fn allocations(&self) -> impl Iterator<Item = usize> {
        let list = match &self.0.header.header {
            Header::Variant(_) => None,
            Header::Several(variants) => Some([PREFIX_LEN + self.0.slice.len(), size_of_val::<[Entry]>(variants)]),
        };
        let of_variants = self.variants().iter().map(|variant| PREFIX_LEN + variant.0.slice.len());
        of_variants.chain(list.into_iter().flatten())
    }

    #[inline]
    pub(crate) fn variants(&self) -> &[Entry] {
        match &self.0.header.header {
            Header::Variant(_) => slice::from_ref(self),
            Header::Several(variants) => variants,
        }
    }

    #[inline]
    pub(crate) fn terms(&self) -> Option<&Terms> {
        match &self.0.header.header {
            Header::Variant(terms) => Some(terms),
            Header::Several(_) => None,
        }
    }
}

/// What the cache has for a read.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Read<R> {
    /// A reply, or what was made of it.
    Hit(R),
    /// The value is too large to be kept: asking the server for it through the cache would only find that out again.
    TooLarge,
    /// Nothing that may be served.
    Miss,
}

/// A reply as the server sent it, in its place in the cache. Derefs to its bytes.
pub struct ReplyRef<'a> {
    bytes: &'a [u8],
    variant: &'a Entry,
}

impl ReplyRef<'_> {
    /// The reply, to keep: counts one reference, and copies nothing.
    #[inline]
    pub fn share(&self) -> CachedReply {
        CachedReply(self.variant.clone())
    }
}

impl Deref for ReplyRef<'_> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        self.bytes
    }
}

/// A reply as the server sent it, shared with the cache. Cloning it counts one reference.
#[derive(Clone)]
pub struct CachedReply(Entry);

impl Deref for CachedReply {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        self.0.reply()
    }
}

impl AsRef<[u8]> for CachedReply {
    #[inline]
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for CachedReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CachedReply(\"{}\")", self.escape_ascii())
    }
}

/// An entry as the table holds it: equal to every other of its key.
#[derive(Clone)]
pub(crate) struct EntryKey(pub(crate) Entry);

impl PartialEq for EntryKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.key() == other.0.key()
    }
}

impl Eq for EntryKey {}

impl Hash for EntryKey {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        KeyBytes(self.0.key()).hash(state);
    }
}

impl Equivalent<EntryKey> for KeyBytes<'_> {
    #[inline]
    fn equivalent(&self, other: &EntryKey) -> bool {
        self.0 == other.0.key()
    }
}

/// A key that reads the entry it is found equal to, there and then: a search gives out nothing but clones of what it finds.
pub(crate) struct Probe<'a, F, R> {
    key: &'a [u8],
    read: Cell<Option<F>>,
    outcome: Cell<Option<R>>,
}

impl<'a, F: FnOnce(&Entry) -> R, R> Probe<'a, F, R> {
    #[inline]
    pub(crate) fn new(key: &'a [u8], read: F) -> Self {
        Self { key, read: Cell::new(Some(read)), outcome: Cell::new(None) }
    }

    /// What was read; None if no entry was found.
    #[inline]
    pub(crate) fn outcome(self) -> Option<R> {
        self.outcome.into_inner()
    }
}

impl<F, R> Hash for Probe<'_, F, R> {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        KeyBytes(self.key).hash(state);
    }
}

impl<F: FnOnce(&Entry) -> R, R> Equivalent<EntryKey> for Probe<'_, F, R> {
    #[inline]
    fn equivalent(&self, other: &EntryKey) -> bool {
        if self.key != other.0.key() {
            return false;
        }
        if let Some(read) = self.read.take() {
            self.outcome.set(Some(read(&other.0)));
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_one_pointer_and_its_header_three_words() {
        assert_eq!(size_of::<Entry>(), 8);
        assert_eq!(size_of::<Option<CachedReply>>(), 8);
        assert_eq!(size_of::<Header>(), 24);
        assert_eq!(PREFIX_LEN, 40);
    }
}
