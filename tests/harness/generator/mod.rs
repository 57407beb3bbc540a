//! Commands from a seed: the same seed gives the same commands.
//!
//! What is generated is data: [`templates`] holds one line a kind of command, [`values`] what its placeholders become.
//! All of it has one right answer, byte for byte, on two fresh servers; what has not is in [`templates::LEFT_OUT`], with
//! the reason. Some commands are made wrong on purpose, as errors have to be the same too.

pub mod newer;
pub mod sessions;
pub mod templates;
mod values;

use std::collections::BTreeSet;
use std::fmt;

use crate::client::request;
use crate::reply::Reply;
use newer::{LEFT_OUT_ON_SERVERS, NEWER};
use templates::{LEFT_OUT_ON_CLUSTER, PER_KEY, REPLY_MODES, WHOLE_KEYSPACE};
use values::Values;

/// How two replies to the same command are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare {
    /// Byte for byte.
    Bytes,
    /// An aggregate whose order depends on the server's random hash seed: header and elements are the same bytes.
    AnyOrder,
    /// The same for fields and values in turn.
    AnyOrderOfPairs,
}

/// One command.
#[derive(Clone, Debug)]
pub struct Generated {
    /// Its name and arguments.
    pub args: Vec<Vec<u8>>,
    /// How its reply is compared.
    pub compare: Compare,
    inline: bool,
}

/// Which keys and commands a generator uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keyspace {
    /// All, also FLUSHALL, SWAPDB and KEYS: for connections that take turns.
    Shared,
    /// Only keys with this prefix, and no command on more: for connections that run at once.
    Own(String),
    /// The same for a cluster: the keys of a command have one hash tag, which begins with this prefix, and so one slot.
    /// Now and then they have several: then every node says CROSSSLOT, and the proxy too, unless it divides the command.
    Tagged(String),
}

/// An endless supply of commands.
#[derive(Debug)]
pub struct Generator {
    random: fastrand::Rng,
    keyspace: Keyspace,
    /// What the keyspace always allows.
    templates: Vec<&'static str>,
}

/// One command in so many is made wrong.
const WRONG_ONE_IN: usize = 25;
const INLINE_ONE_IN: usize = 12;
const WHOLE_KEYSPACE_ONE_IN: usize = 60;
const REPLY_MODES_ONE_IN: usize = 20;
const CROSSING_SLOTS_ONE_IN: usize = 30;
/// The hash tags of a [`Keyspace::Tagged`] are its prefix and a number below this: enough for every node to have some,
/// and few enough for commands to meet each other's keys.
pub const TAGS: usize = 12;
/// Bytes of an argument that a report shows.
const PRINTED: usize = 60;
const LARGEST_PIPELINE: usize = 80;

impl Generator {
    /// A generator of the sequence that belongs to `seed`.
    #[must_use]
    pub fn new(seed: u64, keyspace: Keyspace) -> Self {
        let templates = match keyspace {
            Keyspace::Tagged(_) => every_servers().filter(|template| is_for_cluster(template)).collect(),
            Keyspace::Shared | Keyspace::Own(_) => PER_KEY.to_vec(),
        };
        Self { random: fastrand::Rng::with_seed(seed), keyspace, templates }
    }

    /// One for a server that has these commands: what it has beside those of Redis 7.0 is generated as well.
    #[must_use]
    pub fn for_server(mut self, commands: &BTreeSet<String>) -> Self {
        let newer = NEWER.iter().filter(|(sign, _)| commands.contains(*sign)).flat_map(|(_, templates)| *templates);
        let is_tagged = self.is_tagged();
        self.templates.extend(newer.filter(|template| !is_tagged || is_for_cluster(template)));
        let left_out = LEFT_OUT_ON_SERVERS.iter().filter(|(sign, ..)| commands.contains(*sign));
        let left_out = left_out.flat_map(|(.., names)| *names).collect::<Vec<_>>();
        self.templates.retain(|template| !is_among(template, &left_out));
        self
    }

    /// The commands of one pipeline: often one, sometimes many.
    pub fn pipeline(&mut self) -> Vec<Generated> {
        let depth = match self.random.u8(..4) {
            0 => 1,
            1 => self.random.usize(1..=8),
            _ => self.random.usize(1..=LARGEST_PIPELINE),
        };
        let reply_modes = !self.is_tagged() && self.one_in(REPLY_MODES_ONE_IN);
        (0..depth).map(|_| if reply_modes { self.next_with_reply_modes() } else { self.next() }).collect()
    }

    fn next(&mut self) -> Generated {
        let whole = self.keyspace == Keyspace::Shared && self.one_in(WHOLE_KEYSPACE_ONE_IN);
        let templates = if whole { WHOLE_KEYSPACE } else { &self.templates };
        let template = templates[self.random.usize(..templates.len())];
        self.fill(template)
    }

    /// Among CLIENT REPLY: replies are left out then, so each has to be comparable without knowing its command.
    fn next_with_reply_modes(&mut self) -> Generated {
        if self.one_in(4) {
            let template = REPLY_MODES[self.random.usize(..REPLY_MODES.len())];
            return self.fill(template);
        }
        loop {
            let generated = self.next();
            if generated.compare == Compare::Bytes {
                return generated;
            }
        }
    }

    fn fill(&mut self, template: &str) -> Generated {
        let (compare, words) = split(template);
        let prefixes = self.draw_prefixes();
        let mut values = Values { random: &mut self.random, prefixes: &prefixes };
        let args = words.split(' ').map(|word| values.fill(word)).collect();
        let mut generated = Generated { args, compare, inline: false };
        // Not where a missing argument would ask for a random element.
        if compare == Compare::Bytes && self.one_in(WRONG_ONE_IN) {
            self.make_wrong(&mut generated);
        }
        if self.one_in(5) {
            generated.args[0].make_ascii_lowercase();
        }
        generated.inline = generated.can_be_inline() && self.one_in(INLINE_ONE_IN);
        generated
    }

    /// What the names of one command's keys begin with: one prefix, or one of several for each.
    fn draw_prefixes(&mut self) -> Vec<String> {
        let tag = |name: &str, number| format!("{{{name}{number}}}");
        match &self.keyspace {
            Keyspace::Shared => vec![String::new()],
            Keyspace::Own(prefix) => vec![prefix.clone()],
            Keyspace::Tagged(name) if self.random.usize(..CROSSING_SLOTS_ONE_IN) == 0 => {
                (0..TAGS).map(|number| tag(name, number)).collect()
            }
            Keyspace::Tagged(name) => vec![tag(name, self.random.usize(..TAGS))],
        }
    }

    fn make_wrong(&mut self, generated: &mut Generated) {
        match self.random.u8(..4) {
            0 if generated.args.len() > 1 => drop(generated.args.pop()),
            1 => generated.args[0].push(b'X'),
            2 => generated.args.truncate(1),
            // Not any bytes: Valkey 8.1 repeats what FUNCTION LIST does not know in its error, line breaks and all.
            _ => generated.args.push(Values { random: &mut self.random, prefixes: &[] }.fill("<word>")),
        }
    }

    fn is_tagged(&self) -> bool {
        matches!(self.keyspace, Keyspace::Tagged(_))
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.random.usize(..n) == 0
    }
}

/// A template's mark and its words: `~` any order, `%` any order of pairs.
fn split(template: &str) -> (Compare, &str) {
    match template.as_bytes()[0] {
        b'~' => (Compare::AnyOrder, &template[1..]),
        b'%' => (Compare::AnyOrderOfPairs, &template[1..]),
        _ => (Compare::Bytes, template),
    }
}

/// Names of the commands that are generated, lower case, `config|get` for those with subcommands.
#[must_use]
pub fn generated_names() -> BTreeSet<String> {
    all_templates().flat_map(names).collect()
}

/// Every kind of command that some keyspace allows.
pub fn all_templates() -> impl Iterator<Item = &'static str> {
    every_servers().chain(NEWER.iter().flat_map(|(_, templates)| *templates).copied())
}

/// Those of Redis 7.0.
fn every_servers() -> impl Iterator<Item = &'static str> {
    PER_KEY.iter().chain(WHOLE_KEYSPACE).chain(REPLY_MODES).copied()
}

/// A template's first word, and its first two as if the second were a subcommand.
fn names(template: &str) -> Vec<String> {
    let mut words = split(template).1.split(' ').map(str::to_ascii_lowercase);
    let name = words.next().unwrap_or_default();
    let with_subcommand = words.next().map(|word| format!("{name}|{word}"));
    [Some(name), with_subcommand].into_iter().flatten().collect()
}

fn is_for_cluster(template: &str) -> bool {
    !is_among(template, &LEFT_OUT_ON_CLUSTER.iter().flat_map(|(_, names)| *names).collect::<Vec<_>>())
}

/// Whether it is one of these templates, or its command is one of these names.
fn is_among(template: &str, templates_and_names: &[&&str]) -> bool {
    templates_and_names.contains(&&template)
        || names(template).iter().any(|name| templates_and_names.contains(&&name.as_str()))
}

impl Generated {
    /// A command of words, compared byte for byte.
    #[must_use]
    pub fn plain(words: &str) -> Self {
        Self::of(&words.split_ascii_whitespace().collect::<Vec<_>>())
    }

    /// A command of these arguments, compared byte for byte.
    #[must_use]
    pub fn of(args: &[&str]) -> Self {
        let args = args.iter().map(|arg| arg.as_bytes().to_vec()).collect();
        Self { args, compare: Compare::Bytes, inline: false }
    }

    /// The request's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        if !self.inline {
            return request(&self.args);
        }
        let mut line = self.args.join(&b' ');
        line.extend_from_slice(b"\r\n");
        line
    }

    fn can_be_inline(&self) -> bool {
        let is_plain =
            |arg: &Vec<u8>| !arg.is_empty() && arg.iter().all(|byte| byte.is_ascii_graphic() && !b"\"'".contains(byte));
        self.args.iter().all(is_plain) && !self.args[0].starts_with(b"*")
    }
}

impl fmt::Display for Generated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for arg in &self.args {
            let shown = &arg[..arg.len().min(PRINTED)];
            write!(f, "{:?}{} ", Reply(shown.to_vec()), if shown.len() < arg.len() { "…" } else { "" })?;
        }
        Ok(())
    }
}

impl Compare {
    /// Whether the replies are the same, compared this way.
    #[must_use]
    pub fn is_same(self, left: &Reply, right: &Reply) -> bool {
        let in_any_order = left.len() == right.len() && left.header() == right.header();
        match self {
            Self::Bytes => left == right,
            // Not an aggregate: an error, or null.
            _ if left.elements().is_empty() => left == right,
            // RESP3 nests the pairs of HRANDFIELD and ZRANDMEMBER: then they are elements.
            _ if self == Self::AnyOrder || left.elements()[0].starts_with(b"*") => {
                in_any_order && sorted(left.elements()) == sorted(right.elements())
            }
            _ => in_any_order && sorted(pairs(&left.elements())) == sorted(pairs(&right.elements())),
        }
    }
}

fn pairs(elements: &[Reply]) -> Vec<Vec<u8>> {
    elements.chunks(2).map(|pair| pair.iter().flat_map(|reply| reply.0.clone()).collect()).collect()
}

fn sorted<T: Ord>(mut elements: Vec<T>) -> Vec<T> {
    elements.sort();
    elements
}
