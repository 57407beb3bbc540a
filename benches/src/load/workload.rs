//! What a run asks for. The flags of `nearside-load` and the list of scenarios write it the same way.

use std::fmt;
use std::str::FromStr;

use crate::load::keys::{Draw, Spread};

/// One kind of command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// GET of a key that exists.
    Get,
    /// GET of a key that does not, each time of another one.
    Absent,
    /// SET, to the value that the key has already.
    Set,
    /// MGET of so many keys that exist.
    MGet(u32),
    /// PING.
    Ping,
}

/// The most keys of one MGET.
const MAX_MGET: u32 = 10_000;

impl FromStr for Ask {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "get" => Ok(Self::Get),
            "absent" => Ok(Self::Absent),
            "set" => Ok(Self::Set),
            "ping" => Ok(Self::Ping),
            _ => match text.strip_prefix("mget:").map(str::parse) {
                Some(Ok(keys)) if (1..=MAX_MGET).contains(&keys) => Ok(Self::MGet(keys)),
                Some(_) => Err(format!("{text}: MGET takes 1 to {MAX_MGET} keys")),
                None => Err(format!("{text:?} is none of get, absent, set, ping, mget:KEYS")),
            },
        }
    }
}

impl fmt::Display for Ask {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Get => write!(to, "get"),
            Self::Absent => write!(to, "absent"),
            Self::Set => write!(to, "set"),
            Self::MGet(keys) => write!(to, "mget:{keys}"),
            Self::Ping => write!(to, "ping"),
        }
    }
}

/// Which commands, and how many of each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mix {
    /// Each with its share; a share of 0 does not occur.
    asks: Vec<(Ask, u32)>,
    all: u32,
}

impl Mix {
    /// Nothing but this.
    pub fn only(ask: Ask) -> Self {
        Self { asks: vec![(ask, 1)], all: 1 }
    }

    /// The one command that is asked, if there is but one.
    pub fn single(&self) -> Option<Ask> {
        match self.asks[..] {
            [(ask, _)] => Some(ask),
            _ => None,
        }
    }

    /// Whether no command needs a key to be there.
    pub fn only_absent_keys(&self) -> bool {
        self.asks.iter().all(|(ask, _)| matches!(ask, Ask::Absent | Ask::Ping))
    }

    /// The next one.
    pub(crate) fn draw(&self, draw: &mut Draw) -> Ask {
        let mut at = draw.below(self.all);
        for (ask, share) in &self.asks {
            if at < *share {
                return *ask;
            }
            at -= share;
        }
        unreachable!("the shares add up to all")
    }
}

impl FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut asks = Vec::new();
        for part in text.split(',') {
            let (ask, share) = match part.split_once('=') {
                None => (part, 1),
                Some((ask, share)) => match share.parse() {
                    Ok(share @ 1..=1_000_000) => (ask, share),
                    _ => return Err(format!("{part}: a share is a number from 1 to a million")),
                },
            };
            asks.push((ask.parse()?, share));
        }
        let all = asks.iter().map(|(_, share)| share).sum();
        Ok(Self { asks, all })
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(ask) = self.single() {
            return write!(to, "{ask}");
        }
        for (index, (ask, share)) in self.asks.iter().enumerate() {
            write!(to, "{}{ask}={share}", if index == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

/// What clients say HELLO with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// Nothing is said.
    #[default]
    Resp2,
    /// HELLO 3.
    Resp3,
}

/// What a run asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    /// Which commands.
    pub mix: Mix,
    /// Over how many keys.
    pub keys: u32,
    /// How often each of them.
    pub spread: Spread,
    /// Bytes of each value.
    pub value_len: usize,
    /// In a closed loop, commands in a pipeline: all are sent, then all must be answered. In an open one, commands that
    /// a connection may have on their way.
    pub depth: usize,
    /// Which version of the protocol.
    pub protocol: Protocol,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mix_is_read_as_it_is_written() {
        for text in ["get", "get=70,set=30", "mget:100", "get=95,absent=5", "ping"] {
            assert_eq!(text.parse::<Mix>().expect(text).to_string(), text);
        }
        for wrong in ["", "get=", "get=0", "get=x", "gett", "mget", "mget:0", "get,", "get=70;set=30"] {
            assert!(wrong.parse::<Mix>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn each_command_is_drawn_as_often_as_its_share() {
        let mix: Mix = "get=70,set=20,ping=10".parse().expect("a mix");
        let mut draw = Draw::new(1);
        let drawn: Vec<Ask> = (0..100_000).map(|_| mix.draw(&mut draw)).collect();
        for (ask, share) in [(Ask::Get, 70_000), (Ask::Set, 20_000), (Ask::Ping, 10_000)] {
            let count = drawn.iter().filter(|drawn| **drawn == ask).count();
            assert!(count.abs_diff(share) < 1000, "{ask}: {count}");
        }
    }
}
