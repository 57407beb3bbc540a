//! The command table: the one place that says of each command what the proxy does with it, what it may change, and where
//! its keys are. Routing, caching and invalidation read the same entry, so they cannot disagree.
//!
//! The core commands are data, in `core.txt`. What is not there is learned from the upstream ([`Table::with_learned`]).

mod flags;
mod index;
mod join;
mod keys;
mod learn;
mod parse;
mod unlisted;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod live;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

use std::sync::LazyLock;

use nearside_resp::Request;

use super::cached::reads;

pub(crate) use self::flags::Flags;
use self::index::NameIndex;
pub(crate) use self::join::Join;
pub(crate) use self::keys::{Access, Keys};
use self::keys::{Begin, Find, KeySpec, NoPositions};

/// The commands by name. Never changed: learning makes a new one.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    /// Containers and commands first, in the order of `names`; then subcommands.
    commands: Box<[Command]>,
    names: NameIndex,
}

/// What a table knows of a request by its name.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Found<'t> {
    /// It is known. A container's name alone is found too: by its arity it is a wrong request, or (COMMAND) a right one.
    Command(&'t Command),
    /// No command has this name.
    UnknownCommand,
    /// The container is known, its subcommand not.
    UnknownSubcommand(&'t Command),
}

/// What is known of a command, or of a subcommand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Command {
    /// In lower case, a subcommand's after its container's: `config|get`.
    pub(crate) name: Box<str>,
    /// Its number, from 1; the same in every table that was made from the one that has it. 0: it is in no table.
    pub(crate) number: u32,
    /// How many arguments it takes, its name (both words of it) counted; negative: at least so many.
    pub(crate) arity: i16,
    /// What the server says of it in general.
    pub(crate) flags: Flags,
    /// What it may change.
    pub(crate) effect: Effect,
    /// What the proxy does with it.
    pub(crate) route: Route,
    /// Its number among the reads whose replies may be cached, if it is one.
    pub(crate) cached: Option<u8>,
    keys: Box<[KeySpec]>,
    /// Positions in the table, if it is a container.
    subcommands: Box<[usize]>,
}

/// What a command may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Effect {
    /// Nothing that a read would show.
    None,
    /// Nothing; it reads.
    Read,
    /// The keys it names for writing.
    Write,
    /// The keys it names for writing, as far as the script's author declared them all.
    Script,
    /// Keys that it does not name.
    Opaque,
    /// Everything, or the right to see it: nothing cached may be served after it.
    Flush,
}

/// What the proxy does with a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Route {
    /// Answers it from the near-cache when it can.
    Cached,
    /// Sends it to the node of its keys.
    Forward,
    /// Divides it by key among the nodes, and joins the replies.
    Split(Join),
    /// Sends it to all primaries, and joins the replies.
    All(Join),
    /// Sends it to one node after the other, as its cursor says.
    Walk,
    /// Queues, or watches: a transaction.
    Transaction,
    /// Gives it a connection of its own: it may wait at the server.
    Blocking,
    /// As `Blocking` if it has the option BLOCK, else as `Forward`: see [`Command::blocks`].
    BlockingIf,
    /// Gives it a connection of its own: it changes what that is subscribed to.
    PubSub,
    /// Gives it a connection of its own: the server will stream commands on it.
    Monitor,
    /// It would make a replication stream of its connection.
    Replication,
    /// Answers it: it speaks of this session.
    Session,
    /// Answers it, or not, as the cluster that the client is to see.
    Cluster,
    /// It asks about the server: any node may answer.
    About,
    /// Refuses it unless the operator allows it: it would change the upstream under the proxy's feet.
    Refused,
}

impl Found<'_> {
    /// The number of the command, or subcommand, that was asked for; 0 if there is none such.
    #[inline]
    pub(crate) fn number(&self) -> u32 {
        match self {
            Found::Command(command) => command.number,
            Found::UnknownCommand | Found::UnknownSubcommand(_) => 0,
        }
    }
}

impl Table {
    /// The core commands of Redis and Valkey.
    pub(crate) fn core() -> &'static Self {
        static CORE: LazyLock<Table> = LazyLock::new(|| {
            Table::new(parse::commands(include_str!("core.txt")).unwrap_or_else(|error| panic!("core.txt, {error}")))
        });
        &CORE
    }

    /// This table; with `are_fenced`, scripts and functions count as commands that may change keys they do not declare.
    pub(crate) fn for_scripts(mut self, are_fenced: bool) -> Self {
        for command in self.commands.iter_mut().filter(|command| are_fenced && command.effect == Effect::Script) {
            command.effect = Effect::Opaque;
        }
        self
    }

    /// A table of `commands`. Of two with one name the first counts; a subcommand whose container is missing is dropped.
    fn new(commands: impl IntoIterator<Item = Command>) -> Self {
        let mut seen = std::collections::HashSet::new();
        let fresh = commands.into_iter().filter(|command| seen.insert(command.name.clone()));
        let (subcommands, mut commands): (Vec<_>, Vec<_>) = fresh.partition(|command| command.container().is_some());
        let names = NameIndex::new(commands.iter().map(|command| command.name.clone()).collect());
        let mut of_container = vec![Vec::new(); commands.len()];
        for subcommand in subcommands {
            let container = subcommand.container().and_then(|name| names.find(name.as_bytes()));
            if let Some(container) = container {
                of_container[container].push(commands.len());
                commands.push(subcommand);
            }
        }
        for (command, subcommands) in commands.iter_mut().zip(of_container) {
            command.subcommands = subcommands.into();
        }
        let mut last_number = commands.iter().map(|command| command.number).max().unwrap_or(0);
        for command in commands.iter_mut().filter(|command| command.number == 0) {
            last_number += 1;
            command.number = last_number;
        }
        Self { commands: commands.into(), names }
    }

    /// What the table knows of `request`, by its first argument, and its second if that is a subcommand.
    #[inline(always)]
    pub(crate) fn find(&self, request: &Request<'_>) -> Found<'_> {
        self.find_as(request.get(0).unwrap_or_default(), request)
    }

    /// The same, whatever its first argument is, of the command of this name.
    #[inline(always)]
    pub(crate) fn find_as(&self, name: &[u8], request: &Request<'_>) -> Found<'_> {
        let Some(position) = self.names.find(name) else {
            return Found::UnknownCommand;
        };
        let command = &self.commands[position];
        match request.get(1) {
            Some(subcommand) if !command.subcommands.is_empty() => self.find_subcommand(command, subcommand),
            _ => Found::Command(command),
        }
    }

    #[inline(never)]
    fn find_subcommand<'t>(&'t self, container: &'t Command, name: &[u8]) -> Found<'t> {
        let mut subcommands = container.subcommands.iter().map(|position| &self.commands[*position]);
        let found = subcommands.find(|command| command.own_name().as_bytes().eq_ignore_ascii_case(name));
        found.map_or(Found::UnknownSubcommand(container), Found::Command)
    }

    /// Every command, container and subcommand.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Command> {
        self.commands.iter()
    }

    /// The command named as `COMMAND` names it: in lower case, a subcommand as `config|get`.
    pub(crate) fn named(&self, name: &str) -> Option<&Command> {
        self.iter().find(|command| &*command.name == name)
    }
}

impl Command {
    fn new(name: Box<str>, arity: i16, flags: Flags, effect: Effect, route: Route, keys: Vec<KeySpec>) -> Self {
        let (keys, subcommands) = (keys.into(), Box::default());
        let is_cached = matches!(route, Route::Cached | Route::Split(Join::Sum));
        let cached = if is_cached { reads::number(&name) } else { None };
        Self { name, number: 0, arity, flags, effect, route, cached, keys, subcommands }
    }

    /// Whether the server would take `argc` arguments, the name counted.
    #[inline]
    pub(crate) fn arity_ok(&self, argc: usize) -> bool {
        let arity = usize::from(self.arity.unsigned_abs());
        if self.arity < 0 { argc >= arity } else { argc == arity }
    }

    /// Shows `visit` every key (and shard channel) of a request for this command, and says whether those are all. The arity
    /// plays no part: a newer server may take more arguments than the table knows, and they don't move the keys.
    #[inline]
    pub(crate) fn keys<'a>(&self, request: &Request<'a>, visit: &mut dyn FnMut(&'a [u8], Access)) -> Keys {
        match &*self.keys {
            [] => Keys::None,
            // Nearly all requests name one key, always in the same place.
            [KeySpec { access, begin: Begin::At(position), find: Find::Range { last: 0, .. } }] => {
                let Some(key) = request.get(*position) else { return Keys::None };
                visit(key, *access);
                Keys::Known
            }
            _ => self.visit_keys(request, visit),
        }
    }

    fn visit_keys<'a>(&self, request: &Request<'a>, visit: &mut dyn FnMut(&'a [u8], Access)) -> Keys {
        let (mut any, mut all) = (false, true);
        for spec in &self.keys {
            match spec.positions(request) {
                Ok(positions) => {
                    for position in positions.iter() {
                        visit(request.arg(position), spec.access);
                        any = true;
                    }
                }
                Err(NoPositions::Malformed) => return self.malformed(),
                Err(NoPositions::Unknown) => all = false,
            }
        }
        match (all, any) {
            (false, _) => Keys::Unknown,
            (true, true) => Keys::Known,
            (true, false) => Keys::None,
        }
    }

    /// A module may take what the server's own commands would refuse.
    fn malformed(&self) -> Keys {
        if self.flags.contains(Flags::MODULE) { Keys::Unknown } else { Keys::Malformed }
    }

    /// Whether its errors are made by somebody's program: EVAL, FCALL and their like, and the commands of modules.
    #[inline]
    pub(crate) fn runs_program(&self) -> bool {
        self.flags.contains(Flags::NO_MANDATORY_KEYS.with(Flags::NOSCRIPT)) || self.flags.contains(Flags::MODULE)
    }

    /// Whether this request may wait at the server.
    pub(crate) fn blocks(&self, request: &Request<'_>) -> bool {
        match self.route {
            Route::Blocking => true,
            Route::BlockingIf => keys::has_option(request, "block"),
            _ => false,
        }
    }

    /// Whether it has subcommands.
    pub(crate) fn is_container(&self) -> bool {
        !self.subcommands.is_empty()
    }

    /// The container's name, of a subcommand.
    fn container(&self) -> Option<&str> {
        self.name.split_once('|').map(|(container, _)| container)
    }

    /// Its name without its container's.
    fn own_name(&self) -> &str {
        self.name.split_once('|').map_or(&*self.name, |(_, own)| own)
    }
}

impl Effect {
    const NAMES: [(&'static str, Self); 5] = [
        ("none", Self::None),
        ("read", Self::Read),
        ("write", Self::Write),
        ("script", Self::Script),
        ("flush", Self::Flush),
    ];
}

impl Route {
    /// The routes that `core.txt` can name.
    pub(crate) const NAMES: [(&'static str, Self); 25] = [
        ("cached", Self::Cached),
        ("forward", Self::Forward),
        ("split(sum)", Self::Split(Join::Sum)),
        ("split(succeeded)", Self::Split(Join::Succeeded)),
        ("split(values)", Self::Split(Join::Values)),
        ("all(sum)", Self::All(Join::Sum)),
        ("all(min)", Self::All(Join::Min)),
        ("all(and)", Self::All(Join::And)),
        ("all(succeeded)", Self::All(Join::Succeeded)),
        ("all(one)", Self::All(Join::OneSucceeded)),
        ("all(concat)", Self::All(Join::Concat)),
        ("all(union)", Self::All(Join::Union)),
        ("all(counts)", Self::All(Join::Counts)),
        ("all(random)", Self::All(Join::Random)),
        ("walk", Self::Walk),
        ("transaction", Self::Transaction),
        ("blocking", Self::Blocking),
        ("blocking-if(BLOCK)", Self::BlockingIf),
        ("pubsub", Self::PubSub),
        ("monitor", Self::Monitor),
        ("replication", Self::Replication),
        ("session", Self::Session),
        ("cluster", Self::Cluster),
        ("about", Self::About),
        ("refused", Self::Refused),
    ];
}
