//! Which keys are asked for, and how often: drawn from a seed, so the same in every run.

use std::fmt;
use std::str::FromStr;

/// How the asks spread over the keys.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Spread {
    /// Every key as often as every other.
    Uniform,
    /// The n-th key as often as n to the power of minus this: few keys are asked for much of the time, as users do.
    Zipf(f64),
    /// A few keys get most of the asks, and are equal among themselves; so are the others.
    HotSpot {
        /// The hot ones, in percent of the keys.
        keys: u32,
        /// What they get, in percent of the asks.
        asks: u32,
    },
}

/// What Zipf's exponent is where none is given: that of the Yahoo! Cloud Serving Benchmark.
const USUAL_EXPONENT: f64 = 0.99;

impl FromStr for Spread {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split(':').collect();
        let percent = |part: &str| part.parse().ok().filter(|percent| (1..100).contains(percent));
        match parts[..] {
            ["uniform"] => Ok(Self::Uniform),
            ["zipf"] => Ok(Self::Zipf(USUAL_EXPONENT)),
            ["zipf", exponent] => match exponent.parse() {
                Ok(exponent) if (0.0..=5.0).contains(&exponent) => Ok(Self::Zipf(exponent)),
                _ => Err(format!("{exponent:?} is no exponent from 0 to 5")),
            },
            ["hotspot", keys, asks] => match (percent(keys), percent(asks)) {
                (Some(keys), Some(asks)) => Ok(Self::HotSpot { keys, asks }),
                _ => Err("of a hot spot: hotspot:PERCENT_OF_KEYS:PERCENT_OF_ASKS, each from 1 to 99".to_owned()),
            },
            _ => Err("uniform, zipf, zipf:EXPONENT or hotspot:PERCENT_OF_KEYS:PERCENT_OF_ASKS".to_owned()),
        }
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uniform => write!(to, "uniform"),
            Self::Zipf(exponent) => write!(to, "zipf:{exponent}"),
            Self::HotSpot { keys, asks } => write!(to, "hotspot:{keys}:{asks}"),
        }
    }
}

/// Draws numbers of keys.
#[derive(Debug)]
pub struct KeyDraw {
    draw: Draw,
    keys: u32,
    spread: Spread,
    /// Of Zipf: the share of the asks that the keys up to each number get together.
    shares: Vec<f64>,
}

impl KeyDraw {
    /// Over so many keys.
    pub fn new(keys: u32, spread: Spread) -> Self {
        let shares = match spread {
            Spread::Zipf(exponent) => zipf_shares(keys, exponent),
            Spread::Uniform | Spread::HotSpot { .. } => Vec::new(),
        };
        Self { draw: Draw::new(0x6e65_6172_7369_6465), keys, spread, shares }
    }

    /// The number of the next key to ask for, below the number of keys.
    pub fn draw(&mut self) -> u32 {
        match self.spread {
            Spread::Uniform => self.draw.below(self.keys),
            Spread::Zipf(_) => {
                let at = self.draw.fraction();
                let number = self.shares.partition_point(|share| *share <= at);
                u32::try_from(number).unwrap_or(u32::MAX).min(self.keys - 1)
            }
            Spread::HotSpot { keys, asks } => {
                let hot = u32::try_from(u64::from(self.keys) * u64::from(keys) / 100).expect("a part of a u32").max(1);
                if hot == self.keys || self.draw.below(100) < asks {
                    self.draw.below(hot)
                } else {
                    hot + self.draw.below(self.keys - hot)
                }
            }
        }
    }
}

fn zipf_shares(keys: u32, exponent: f64) -> Vec<f64> {
    let mut sum = 0.0;
    let mut shares: Vec<f64> = (1..=keys)
        .map(|rank| {
            sum += f64::from(rank).powf(-exponent);
            sum
        })
        .collect();
    shares.iter_mut().for_each(|share| *share /= sum);
    shares
}

/// Numbers that look random and are the same in every run (SplitMix64).
#[derive(Debug)]
pub struct Draw(u64);

impl Draw {
    /// Another seed, another sequence.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Each number below `bound` as often as every other.
    pub fn below(&mut self, bound: u32) -> u32 {
        u32::try_from((u128::from(self.next()) * u128::from(bound)) >> 64).expect("below a u32")
    }

    /// From 0 to 1, without 1.
    pub fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(keys: u32, spread: Spread, asks: u32) -> Vec<u32> {
        let mut draw = KeyDraw::new(keys, spread);
        let mut counts = vec![0; keys as usize];
        (0..asks).for_each(|_| counts[draw.draw() as usize] += 1);
        counts
    }

    #[test]
    fn uniform_asks_reach_every_key_about_as_often() {
        let counts = counts(10, Spread::Uniform, 100_000);
        assert!(counts.iter().all(|count| (9_500..10_500).contains(count)), "{counts:?}");
    }

    #[test]
    fn zipf_asks_follow_the_rank() {
        let counts = counts(1000, Spread::Zipf(1.0), 1_000_000);
        let first = f64::from(counts[0]);
        for rank in [2, 10, 100] {
            let expected = first / f64::from(rank);
            let found = f64::from(counts[rank as usize - 1]);
            assert!((found / expected - 1.0).abs() < 0.1, "rank {rank}: {found}, not {expected}");
        }
    }

    #[test]
    fn a_hot_spot_gets_its_share() {
        let counts = counts(1000, Spread::HotSpot { keys: 1, asks: 90 }, 100_000);
        let hot: u32 = counts[..10].iter().sum();
        assert!((89_000..91_000).contains(&hot), "{hot}");
        assert!(counts[10..].iter().any(|count| *count > 0));
    }

    #[test]
    fn one_key_gets_every_ask_however_they_spread() {
        for spread in [Spread::Uniform, Spread::Zipf(0.99), Spread::HotSpot { keys: 1, asks: 90 }] {
            assert_eq!(counts(1, spread, 10), [10]);
        }
    }

    #[test]
    fn a_spread_is_read_as_it_is_written() {
        for text in ["uniform", "zipf:0.99", "zipf:1.2", "hotspot:1:90"] {
            assert_eq!(text.parse::<Spread>().expect(text).to_string(), text);
        }
        assert_eq!("zipf".parse(), Ok(Spread::Zipf(0.99)));
        for wrong in ["", "zipf:x", "zipf:9", "hotspot", "hotspot:0:90", "hotspot:1:100", "uniform:1"] {
            assert!(wrong.parse::<Spread>().is_err(), "{wrong}");
        }
    }
}
