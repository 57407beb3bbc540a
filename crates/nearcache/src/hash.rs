//! How keys are hashed: fast, and with a seed that a client can't know.
//!
//! Clients choose the keys, and one who knew the seed could send a million keys of one bucket. foldhash seeds itself from
//! addresses and the time; ours comes from the operating system, through std's own `RandomState`.

use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::LazyLock;

use foldhash::SharedSeed;
use foldhash::quality::{FoldHasher, SeedableRandomState};

/// Builds the hashers of one cache.
#[derive(Clone)]
pub(crate) struct KeyHasher(SeedableRandomState);

impl KeyHasher {
    /// `seed`: of those that are the same in every run; else one that nobody knows.
    pub(crate) fn new(seed: Option<u64>) -> Self {
        static SHARED: LazyLock<SharedSeed> = LazyLock::new(|| SharedSeed::from_u64(RandomState::new().hash_one(0)));
        Self(match seed {
            Some(seed) => SeedableRandomState::with_seed(seed, SharedSeed::global_fixed()),
            None => SeedableRandomState::with_seed(RandomState::new().hash_one(1), &SHARED),
        })
    }

    pub(crate) fn hash(&self, key: &[u8]) -> u64 {
        self.0.hash_one(KeyBytes(key))
    }
}

impl BuildHasher for KeyHasher {
    type Hasher = FoldHasher<'static>;

    #[inline]
    fn build_hasher(&self) -> Self::Hasher {
        self.0.build_hasher()
    }
}

/// A key's bytes, hashed in one write: `Hash for [u8]` would write the length too, which the hasher mixes in by itself.
#[derive(Copy, Clone, PartialEq, Eq)]
pub(crate) struct KeyBytes<'a>(pub(crate) &'a [u8]);

impl Hash for KeyBytes<'_> {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(self.0);
    }
}
