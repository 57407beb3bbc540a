//! On which terms a cached reply may be served.

use std::time::Duration;

use crate::entry::Scope;
use crate::lease::Lease;
use crate::sync::{AtomicU8, Ordering};
use crate::time::Time;

/// Served at least once since it was stored.
const USED: u8 = 1;
/// Served since somebody last asked.
const RECENTLY_USED: u8 = 2;

/// See the module. Its arguments are with the reply.
pub(crate) struct Terms {
    pub(crate) lease: Lease,
    pub(crate) deadline: Deadline,
    user: u16,
    db: u16,
    command: u8,
    marks: AtomicU8,
    /// The bytes of the entry begin with the key, this many.
    pub(crate) key_len: u16,
}

impl Terms {
    pub(crate) fn new(lease: Lease, deadline: Deadline, scope: Scope<'_>, key_len: u16) -> Self {
        let Scope { user, db, command, arguments: _ } = scope;
        Self { lease, deadline, user, db, command, marks: AtomicU8::new(0), key_len }
    }

    pub(crate) fn scope<'a>(&self, arguments: &'a [u8]) -> Scope<'a> {
        Scope { user: self.user, db: self.db, command: self.command, arguments }
    }

    /// Whether a reply with these arguments is for `scope`.
    #[inline(always)]
    pub(crate) fn are_for(&self, scope: Scope<'_>, arguments: &[u8]) -> bool {
        (self.user, self.db, self.command) == (scope.user, scope.db, scope.command)
            && arguments.len() == scope.arguments.len()
            && (arguments.is_empty() || arguments == scope.arguments)
    }

    #[inline]
    pub(crate) fn allow(&self, now: Time) -> bool {
        self.deadline.is_after(now) && self.lease.is_live(now)
    }

    pub(crate) fn are_over(&self, now: Time) -> bool {
        !self.deadline.is_after(now) || self.lease.is_dead()
    }

    #[inline]
    pub(crate) fn note_use(&self) {
        // Read first: the line is shared with every hit.
        if self.marks.load(Ordering::Relaxed) != USED | RECENTLY_USED {
            self.marks.store(USED | RECENTLY_USED, Ordering::Relaxed);
        }
    }

    pub(crate) fn is_used(&self) -> bool {
        self.marks.load(Ordering::Relaxed) & USED != 0
    }

    /// Whether it was served since this was asked last.
    pub(crate) fn take_recently_used(&self) -> bool {
        self.marks.fetch_and(!RECENTLY_USED, Ordering::Relaxed) & RECENTLY_USED != 0
    }
}

/// Bits of a [`Deadline`] that tell the life: together they are worth a millisecond.
const LIFE_BITS: u32 = 20;
const LIFE_MASK: u64 = (1 << LIFE_BITS) - 1;
/// Of these, bits of the number; the others say how often it is doubled.
const NUMBER_BITS: u32 = 15;

/// The end of a reply's life, to the millisecond below; and, for those who want to know its age, how long that life was, to
/// one part in 16,384. Both in one word, since there are millions.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Deadline(u64);

impl Deadline {
    pub(crate) fn new(begin: Time, life: Duration) -> Self {
        let life_ns = u64::try_from(life.as_nanos()).unwrap_or(u64::MAX);
        let units = life_ns >> LIFE_BITS;
        let doublings = (u64::BITS - units.leading_zeros()).saturating_sub(NUMBER_BITS);
        let number = units >> doublings;
        Self(((begin + life).0 & !LIFE_MASK) | u64::from(doublings) << NUMBER_BITS | number)
    }

    #[inline]
    pub(crate) fn is_after(self, now: Time) -> bool {
        self.0 > now.0 | LIFE_MASK
    }

    pub(crate) fn at(self) -> Time {
        Time(self.0 & !LIFE_MASK)
    }

    pub(crate) fn life(self) -> Duration {
        let number = self.0 & ((1 << NUMBER_BITS) - 1);
        let doublings = (self.0 & LIFE_MASK) >> NUMBER_BITS;
        Duration::from_nanos(number << doublings << LIFE_BITS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGIN: Time = Time(123_456_789_012_345);

    #[test]
    fn a_life_ends_no_later_than_it_should_and_a_millisecond_earlier_at_most() {
        for life in [Duration::from_millis(2), Duration::from_secs(60), Duration::from_secs(365 * 86_400)] {
            let (deadline, end) = (Deadline::new(BEGIN, life), BEGIN + life);
            assert!(!deadline.is_after(end) && deadline.is_after(Time(end.0 - 2_100_000)), "{life:?}");
            assert!(deadline.at() <= end && end - deadline.at() < Duration::from_micros(1049), "{life:?}");
        }
        assert!(!Deadline::new(BEGIN, Duration::ZERO).is_after(BEGIN));
        assert!(Deadline::new(BEGIN, Duration::MAX).is_after(BEGIN));
    }

    #[test]
    fn its_length_is_known_closely() {
        for millis in [2, 99, 1000, 60_000, 3_600_000, 365 * 86_400_000] {
            let life = Duration::from_millis(millis);
            let known = Deadline::new(BEGIN, life).life();
            assert!(
                known <= life && life - known <= life / 16_384 + Duration::from_micros(1049),
                "{life:?}: {known:?}"
            );
        }
    }
}
