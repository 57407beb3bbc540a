//! What a placeholder of a template becomes.

/// Draws values; keys get one of the prefixes.
pub(super) struct Values<'a> {
    pub(super) random: &'a mut fastrand::Rng,
    pub(super) prefixes: &'a [String],
}

/// Keys by what they hold as a rule. One key in [`OTHER_TYPE_ONE_IN`] is of another kind: for WRONGTYPE.
const POOLS: [&str; 10] = ["str", "num", "bits", "list", "hash", "set", "zset", "stream", "hll", "geo"];
const OTHER_TYPE_ONE_IN: usize = 20;
const KEYS_OF_A_POOL: usize = 5;

const WORDS: [&str; 12] =
    ["a", "b", "c", "one", "two", "three", "message", "MOVED 5 127.0.0.1:1", "OK", "10", "0", "-1"];
const FLOATS: [&str; 10] = ["0", "1", "-1.5", "3.14", "1e3", "0.1", "-0", "inf", "-inf", "nan"];

/// 2100-01-01, in seconds: a time that no test lives to see, and that two servers agree on.
const FAR: u64 = 4_102_444_800;

impl Values<'_> {
    /// The word itself, or a value for each `<placeholder>` in it.
    pub(super) fn fill(&mut self, word: &str) -> Vec<u8> {
        let Some((before, rest)) = word.split_once('<') else { return word.as_bytes().to_vec() };
        let (name, after) = rest.split_once('>').unwrap_or_else(|| panic!("a placeholder ends with >: {word}"));
        let mut filled = before.as_bytes().to_vec();
        filled.extend(self.value(name));
        filled.extend(self.fill(after));
        filled
    }

    fn value(&mut self, name: &str) -> Vec<u8> {
        match name {
            "value" => self.any_bytes(),
            "word" | "field" | "member" => self.pick(&WORDS).into_bytes(),
            "text" => self.random.choice(["three", "message", "x-y", "ohmytext", "mynewtext"]).unwrap_or("x").into(),
            "int" => self.random.i64(-6..20).to_string().into_bytes(),
            "count" => self.random.u64(1..6).to_string().into_bytes(),
            "bit" => self.random.u64(..80).to_string().into_bytes(),
            "on" => self.random.u64(..2).to_string().into_bytes(),
            "big" => self.big().into_bytes(),
            "float" => self.pick(&FLOATS).into_bytes(),
            "lon" => format!("{}.{:02}", self.random.i64(-179..180), self.random.u8(..100)).into_bytes(),
            "lat" => format!("{}.{:02}", self.random.i64(-85..86), self.random.u8(..100)).into_bytes(),
            "min" => self.random.choice(["-inf", "0", "(1", "1", "-2"]).unwrap_or("0").into(),
            "max" => self.random.choice(["+inf", "3", "(2", "100"]).unwrap_or("3").into(),
            "lexmin" => self.random.choice(["-", "[a", "(b", "[message"]).unwrap_or("-").into(),
            "lexmax" => self.random.choice(["+", "[c", "(two", "[a"]).unwrap_or("+").into(),
            "id" => format!("{}-{}", self.random.u64(1..40), self.random.u64(..3)).into_bytes(),
            "db" => self.random.u64(..3).to_string().into_bytes(),
            "at" => (FAR + self.random.u64(..3)).to_string().into_bytes(),
            "at-ms" => ((FAR + self.random.u64(..3)) * 1000).to_string().into_bytes(),
            "long" => self.random.u64(1_000_000..2_000_000).to_string().into_bytes(),
            "group" => self.random.choice(["g1", "g2"]).unwrap_or("g1").into(),
            "consumer" => self.random.choice(["alice", "bob"]).unwrap_or("bob").into(),
            "any" => {
                let pool = self.any_pool();
                self.key(pool)
            }
            // Kept apart, so that only their own templates decide what is in them, and how long it lives.
            "absolute" | "persistent" | "never" | "lex" | "items" | "fading" | "lasting" | "vector" => {
                self.key_of(name)
            }
            pool => {
                assert!(POOLS.contains(&pool), "no placeholder is called {pool}");
                self.key(pool)
            }
        }
    }

    fn key(&mut self, pool: &str) -> Vec<u8> {
        let is_other = self.random.usize(..OTHER_TYPE_ONE_IN) == 0;
        let pool = if is_other { self.any_pool() } else { pool };
        self.key_of(pool)
    }

    fn any_pool(&mut self) -> &'static str {
        POOLS[self.random.usize(..POOLS.len())]
    }

    fn key_of(&mut self, pool: &str) -> Vec<u8> {
        let prefix = &self.prefixes[self.random.usize(..self.prefixes.len())];
        format!("{prefix}{pool}:{}", self.random.usize(..KEYS_OF_A_POOL)).into_bytes()
    }

    fn pick(&mut self, from: &[&str]) -> String {
        from[self.random.usize(..from.len())].to_owned()
    }

    fn big(&mut self) -> String {
        match self.random.u8(..6) {
            0 => i64::MAX.to_string(),
            1 => i64::MIN.to_string(),
            2 => "9223372036854775808".to_owned(),
            _ => self.random.i64(..).to_string(),
        }
    }

    /// Anything that a value may be: numbers, words, every byte, nothing at all, and what a scanner could take for RESP.
    fn any_bytes(&mut self) -> Vec<u8> {
        match self.random.u8(..10) {
            0 => Vec::new(),
            1..4 => self.random.i64(-1000..1000).to_string().into_bytes(),
            4..6 => self.pick(&WORDS).into_bytes(),
            6 => self
                .random
                .choice(["\r\n", "$5\r\nhello\r\n", "-ERR x\r\n", "*2\r\n", "\0", "'\"\\"])
                .unwrap_or("")
                .into(),
            7 => (0..self.random.usize(1..200)).map(|_| self.random.u8(..)).collect(),
            8 => (0..=255).collect(),
            _ => {
                let size = if self.random.u8(..8) == 0 { 20_000 } else { 90 };
                let byte = self.random.alphanumeric() as u8;
                vec![byte; self.random.usize(1..size)]
            }
        }
    }
}
