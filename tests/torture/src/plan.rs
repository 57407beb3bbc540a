//! What a client may ask next, and what its answer means.

use nearside_tests::Reply;

use crate::history::{Content, History, Key, Nanos, Path, Read, Strange, Write, nanos};
use crate::keyspace::{FIELD, Keyspace, Kind, Misread, short_life, value_number};
use crate::world::FENCED;

/// Commands that are sent together, and what their replies tell.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The commands.
    pub requests: Vec<Vec<String>>,
    means: Means,
}

#[derive(Clone, Debug)]
enum Means {
    /// The reply holds these keys' contents, one of several in an array.
    Reads(Vec<Key>),
    /// The last reply says whether all of this was done.
    Writes { contents: Vec<(Key, Content)>, life: Option<Nanos>, names_keys: bool },
    /// The reply is the number that the key holds now.
    Counts(Key),
    /// The reply is this text.
    Echoes(String),
    /// Everything is gone.
    Flushes,
}

/// Who asks, and which way.
#[derive(Clone, Copy, Debug)]
pub struct Asker {
    /// The number of the client.
    pub client: usize,
    /// Which way its commands go.
    pub path: Path,
    /// Its database.
    pub db: u16,
    /// It may read only some keys, and writes none.
    pub is_restricted: bool,
    /// It reads one key again and again, for a while: while that is a hit, no other command can hold it up.
    pub insists: bool,
    /// How many of a hundred commands are reads.
    pub reads: u8,
    /// Its scripts declare every key that they write. Of others Redis itself makes a mess while slots move: they fail half
    /// way, or leave a key at both nodes.
    pub declares_all: bool,
    /// Its Redis knows fields that expire by themselves.
    pub has_field_expiry: bool,
}

/// Errors that say: not executed.
const NOT_DONE: &[&str] = &[
    "-LOADING ",
    "-CLUSTERDOWN ",
    "-TRYAGAIN ",
    "-READONLY ",
    "-OOM ",
    "-NOPERM ",
    "-EXECABORT ",
    "-MASTERDOWN ",
    "-OVERLOAD ",
];
/// Errors that may leave that open.
const OUT_OF_REACH: &str = "-UPSTREAM ";

impl Plan {
    /// The next thing to ask. `written` counts the writes of this client.
    pub fn next(keys: &Keyspace, asker: Asker, random: &mut fastrand::Rng, written: &mut u64) -> Self {
        if asker.path != Path::Direct && random.u8(..10) == 0 {
            let text = format!("echo-{}-{}", asker.client, random.u64(..));
            return Self::new(Means::Echoes(text.clone()), [words(&["ECHO", &text])]);
        }
        let kind = match random.u8(..10) {
            _ if asker.is_restricted => Kind::Text,
            0 => Kind::Counter,
            1 => Kind::Hash,
            _ => Kind::Text,
        };
        let key = keys.pick(random, asker.db, kind);
        if asker.is_restricted || random.u8(..100) < asker.reads {
            return Self::read(keys, asker, key, kind, random);
        }
        *written += 1;
        let number = value_number(asker.client, *written, kind);
        match kind {
            Kind::Text => Self::write_text(keys, asker, key, number, random),
            Kind::Counter => Self::write_counter(keys, key, number, random),
            Kind::Hash => Self::write_hash(keys, asker, key, number, random),
        }
    }

    /// A read of one key.
    #[must_use]
    pub fn read_one(keys: &Keyspace, key: Key) -> Self {
        let named = keys.get(key);
        let request = match named.kind {
            Kind::Hash => words(&["HGET", &named.name, FIELD]),
            Kind::Text | Kind::Counter => words(&["GET", &named.name]),
        };
        Self::new(Means::Reads(vec![key]), [request])
    }

    /// FLUSHALL.
    #[must_use]
    pub fn flush() -> Self {
        Self::new(Means::Flushes, [words(&["FLUSHALL"])])
    }

    fn new<const N: usize>(means: Means, requests: [Vec<String>; N]) -> Self {
        Self { requests: requests.to_vec(), means }
    }

    fn read(keys: &Keyspace, asker: Asker, key: Key, kind: Kind, random: &mut fastrand::Rng) -> Self {
        let name = &keys.get(key).name;
        match (kind, random.u8(..10)) {
            (Kind::Text, 0) if asker.path != Path::Direct => {
                let all = [key, keys.pick(random, asker.db, Kind::Text), keys.pick(random, asker.db, Kind::Text)];
                let names = all.iter().map(|&key| keys.get(key).name.as_str());
                let request = ["MGET"].into_iter().chain(names).collect::<Vec<_>>();
                Self::new(Means::Reads(all.to_vec()), [words(&request)])
            }
            (Kind::Text | Kind::Counter, 1) => {
                Self::new(Means::Reads(vec![key]), [words(&["GETRANGE", name, "0", "-1"])])
            }
            (Kind::Hash, 0..3) => Self::new(Means::Reads(vec![key]), [words(&["HGETALL", name])]),
            (Kind::Hash, 3..5) => Self::new(Means::Reads(vec![key]), [words(&["HMGET", name, FIELD])]),
            (Kind::Hash, 5..7) => Self::new(Means::Reads(vec![key]), [words(&["HEXISTS", name, FIELD])]),
            _ => Self::read_one(keys, key),
        }
    }

    fn write_text(keys: &Keyspace, asker: Asker, key: Key, number: u64, random: &mut fastrand::Rng) -> Self {
        let name = &keys.get(key).name;
        let value = keys.value(key, number);
        let life = short_life(random);
        let millis = life.as_millis().to_string();
        let set = |life: Option<Nanos>, names_keys| Means::Writes {
            contents: vec![(key, Content::Value(number))],
            life,
            names_keys,
        };
        let mortal = Some(nanos(life));
        match random.u8(..20) {
            0..3 => Self::new(set(mortal, true), [words(&["SET", name, &value, "PX", &millis])]),
            3 => Self::new(set(mortal, true), [words(&["PSETEX", name, &millis, &value])]),
            4..7 => {
                let command = if random.bool() { "DEL" } else { "UNLINK" };
                let means = Means::Writes { contents: vec![(key, Content::Nothing)], life: None, names_keys: true };
                Self::new(means, [words(&[command, name])])
            }
            7 => {
                let script = "return redis.call('SET', KEYS[1], ARGV[1])";
                Self::new(set(None, true), [words(&["EVAL", script, "1", name, &value])])
            }
            8 if !asker.declares_all => {
                // A key of the same slot is declared, and another one written. With the fence that counts as if it were named.
                let script = "return redis.call('SET', ARGV[2], ARGV[1])";
                let declared = &keys.get(keys.neighbour(key)).name;
                let is_fenced = asker.path == Path::Proxy(FENCED);
                Self::new(set(None, is_fenced), [words(&["EVAL", script, "1", declared, &value, name])])
            }
            9 if asker.path != Path::Direct => {
                let requests = [
                    words(&["MULTI"]),
                    words(&["SET", name, &value]),
                    words(&["PEXPIRE", name, &millis]),
                    words(&["EXEC"]),
                ];
                Self::new(set(mortal, true), requests)
            }
            10..12 if asker.path != Path::Direct => Self::write_several(keys, asker, key, number, random),
            _ => Self::new(set(None, true), [words(&["SET", name, &value])]),
        }
    }

    /// The same number under several keys: the value names the key as well.
    fn write_several(keys: &Keyspace, asker: Asker, key: Key, number: u64, random: &mut fastrand::Rng) -> Self {
        let mut all = vec![key, keys.neighbour(key), keys.pick(random, asker.db, Kind::Text)];
        all.sort_unstable();
        all.dedup();
        let pairs = all.iter().flat_map(|&key| [keys.get(key).name.clone(), keys.value(key, number)]);
        let request = ["MSET".to_owned()].into_iter().chain(pairs).collect();
        let contents = all.iter().map(|&key| (key, Content::Value(number))).collect();
        Self::new(Means::Writes { contents, life: None, names_keys: true }, [request])
    }

    fn write_counter(keys: &Keyspace, key: Key, number: u64, random: &mut fastrand::Rng) -> Self {
        let name = &keys.get(key).name;
        if random.u8(..4) > 0 {
            return Self::new(Means::Counts(key), [words(&["INCR", name])]);
        }
        let means = Means::Writes { contents: vec![(key, Content::Value(number))], life: None, names_keys: true };
        Self::new(means, [words(&["SET", name, &number.to_string()])])
    }

    fn write_hash(keys: &Keyspace, asker: Asker, key: Key, number: u64, random: &mut fastrand::Rng) -> Self {
        let name = &keys.get(key).name;
        let (content, request) = match random.u8(..4) {
            0 => (Content::Nothing, words(&["HDEL", name, FIELD])),
            1 if asker.has_field_expiry => return Self::write_mortal_field(keys, asker, key, number, random),
            _ => (Content::Value(number), words(&["HSET", name, FIELD, &keys.value(key, number)])),
        };
        Self::new(Means::Writes { contents: vec![(key, content)], life: None, names_keys: true }, [request])
    }

    /// Sets the field and its time to live at once: of that alone, or of the field alone, nobody learns.
    fn write_mortal_field(keys: &Keyspace, asker: Asker, key: Key, number: u64, random: &mut fastrand::Rng) -> Self {
        let name = &keys.get(key).name;
        let value = keys.value(key, number);
        let life = short_life(random);
        let millis = life.as_millis().to_string();
        let contents = vec![(key, Content::Value(number))];
        let means = Means::Writes { contents, life: Some(nanos(life)), names_keys: true };
        if asker.path == Path::Direct || random.bool() {
            let script = "redis.call('HSET', KEYS[1], ARGV[1], ARGV[2]); \
                          redis.call('HPEXPIRE', KEYS[1], ARGV[3], 'FIELDS', 1, ARGV[1]); \
                          return redis.status_reply('OK')";
            return Self::new(means, [words(&["EVAL", script, "1", name, FIELD, &value, &millis])]);
        }
        let requests = [
            words(&["MULTI"]),
            words(&["HSET", name, FIELD, &value]),
            words(&["HPEXPIRE", name, &millis, "FIELDS", "1", FIELD]),
            words(&["EXEC"]),
        ];
        Self::new(means, requests)
    }

    /// What is sent, to be shown.
    #[must_use]
    pub fn shown(&self) -> String {
        self.requests.iter().map(|request| request.join(" ")).collect::<Vec<_>>().join("; ")
    }

    /// Whether the server comes to know something of the connection meanwhile, so that it may be lost with the server.
    #[must_use]
    pub fn is_transaction(&self) -> bool {
        self.requests.len() > 1
    }

    /// Whether it changes something.
    #[must_use]
    pub fn is_write(&self) -> bool {
        !matches!(self.means, Means::Reads(_) | Means::Echoes(_))
    }

    /// Nothing came back: what was to be written may have been.
    pub fn note_lost(&self, keys: &Keyspace, asker: Asker, began: Nanos, history: &mut History) {
        self.note_writes(keys, asker, began, None, history, Content::Unknown);
    }

    /// What the replies tell.
    pub fn note(&self, keys: &Keyspace, asker: Asker, times: (Nanos, Nanos), replies: &[Reply], history: &mut History) {
        let (began, ended) = times;
        let reply = replies.last().expect("every command has a reply");
        if reply.is_error() {
            return self.note_error(keys, asker, began, reply, history);
        }
        match &self.means {
            Means::Echoes(text) if reply.bulk() == Some(text.as_bytes()) => {}
            Means::Reads(all) => self.note_reads(keys, asker, times, all, reply, history),
            Means::Counts(_) => match reply.integer().and_then(|count| u64::try_from(count).ok()) {
                Some(count) => {
                    self.note_writes(keys, asker, began, Some(ended), history, Content::Value(count));
                }
                None => self.wrong(reply, history),
            },
            Means::Writes { .. } | Means::Flushes if self.is_done(reply) => {
                self.note_writes(keys, asker, began, Some(ended), history, Content::Unknown);
            }
            _ => self.wrong(reply, history),
        }
    }

    /// Whether this is how Redis says that it was done.
    fn is_done(&self, reply: &Reply) -> bool {
        match self.requests.last().expect("there is a command")[0].as_str() {
            "DEL" | "UNLINK" | "HDEL" | "HSET" => reply.integer().is_some(),
            "EXEC" => is_set_with_life(reply),
            _ => *reply == "+OK\r\n",
        }
    }

    fn note_reads(
        &self,
        keys: &Keyspace,
        asker: Asker,
        (began, ended): (Nanos, Nanos),
        all: &[Key],
        reply: &Reply,
        history: &mut History,
    ) {
        let command = self.requests[0][0].as_str();
        let each = if matches!(command, "MGET" | "HMGET") { reply.elements() } else { vec![reply.clone()] };
        if each.len() != all.len() {
            return self.wrong(reply, history);
        }
        for (&key, reply) in all.iter().zip(&each) {
            let content = if command == "HEXISTS" { Keyspace::presence(reply) } else { keys.content(key, reply) };
            match content {
                Ok(_) if asker.is_restricted && !keys.get(key).is_open() => {
                    let what = format!("{}: {reply:?} for a user who may not read it", self.shown());
                    history.strange.push(Strange::NotForThisClient(what));
                }
                Ok(content) => history.reads.push(Read { key, content, began, ended, path: asker.path }),
                Err(Misread::OfAnotherDatabase) => {
                    let what = format!("{} in db {}: {reply:?}", self.shown(), asker.db);
                    history.strange.push(Strange::NotForThisClient(what));
                }
                Err(Misread::NotItsOwn) => self.wrong(reply, history),
            }
        }
    }

    fn note_error(&self, keys: &Keyspace, asker: Asker, began: Nanos, reply: &Reply, history: &mut History) {
        let text = reply.text();
        let is_refusal = NOT_DONE.iter().any(|code| text.starts_with(code));
        let is_out_of_reach = text.starts_with(OUT_OF_REACH);
        if asker.path != Path::Direct && !is_refusal && !is_out_of_reach {
            return self.wrong(reply, history);
        }
        // Of a command that was divided the error tells of one part.
        let is_one = !matches!(&self.means, Means::Writes { contents, .. } if contents.len() > 1);
        let is_not_done = is_refusal || text.contains("not sent") || text.contains("not executed");
        if !(is_one && is_not_done && !matches!(self.means, Means::Flushes)) {
            self.note_lost(keys, asker, began, history);
        }
    }

    fn note_writes(
        &self,
        keys: &Keyspace,
        asker: Asker,
        began: Nanos,
        acknowledged: Option<Nanos>,
        history: &mut History,
        counted: Content,
    ) {
        let path = asker.path;
        let write = |key, content, life, names_key| Write { key, content, life, began, acknowledged, path, names_key };
        match &self.means {
            Means::Writes { contents, life, names_keys } => {
                history.writes.extend(contents.iter().map(|&(key, content)| write(key, content, *life, *names_keys)));
            }
            Means::Counts(key) => history.writes.push(write(*key, counted, None, true)),
            Means::Flushes => {
                history.writes.extend((0..keys.len()).map(|key| write(key, Content::Nothing, None, true)));
            }
            Means::Reads(_) | Means::Echoes(_) => {}
        }
    }

    fn wrong(&self, reply: &Reply, history: &mut History) {
        history.strange.push(Strange::WrongReply { request: self.shown(), reply: reply.text() });
    }
}

/// Whether EXEC tells that something was set, and given a time to live.
fn is_set_with_life(reply: &Reply) -> bool {
    let [set, mortal] = &reply.elements()[..] else { return false };
    // SET and PEXPIRE, or HSET and HPEXPIRE, which tells of each field.
    (*set == "+OK\r\n" && *mortal == ":1\r\n") || (set.integer().is_some() && *mortal == "*1\r\n:1\r\n")
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(ToString::to_string).collect()
}
