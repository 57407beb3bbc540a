//! Commands that are not in the core table: those of modules and of newer servers, as the upstream's `COMMAND INFO` tells
//! them (<https://redis.io/docs/latest/commands/command/>).
//!
//! The server tells where keys are and whether a command writes; the route follows from that. Where it tells too little the
//! command counts as one that may do more, never less.

use nearside_resp::frame::Value;

use super::flags::Flags;
use super::keys::{Access, Begin, Find, KeySpec};
use super::{Command, Effect, Join, Route, Table};

impl Table {
    /// This table and the commands in `reply`, which an upstream gave to `COMMAND` or `COMMAND INFO …`, in RESP2 or RESP3.
    /// What the table has already stays as it is; what is nil (the upstream doesn't know the command) or makes no sense is left out.
    pub(crate) fn with_learned(&self, reply: &Value) -> Self {
        let learned = elements(reply).iter().flat_map(|entry| self.commands_of(entry));
        Self::new(self.iter().cloned().chain(learned))
    }

    /// The command of an entry and its subcommands; of one that the table has, only subcommands of a container.
    fn commands_of(&self, entry: &Value) -> Vec<Command> {
        let Some(mut command) = command(entry) else {
            return Vec::new();
        };
        let known = self.named(&command.name);
        if known.is_some_and(|known| !known.is_container()) {
            return Vec::new();
        }
        let subcommands = elements(entry).get(9).map_or(&[][..], elements);
        let mut subcommands: Vec<Command> = subcommands.iter().filter_map(self::command).collect();
        for subcommand in &mut subcommands {
            subcommand.route = route_of_subcommand(subcommand, known.map(|known| known.route));
        }
        if !subcommands.is_empty() {
            // By itself it does nothing: what counts as it is a subcommand that came after the table was learned.
            command.effect = Effect::Opaque;
        }
        subcommands.insert(0, command);
        subcommands
    }
}

/// What is done with a subcommand that the core table lacks is what is done with its container's others: one of CLIENT speaks
/// of the connection, one of CLUSTER that changes something is refused.
fn route_of_subcommand(subcommand: &Command, container: Option<Route>) -> Route {
    match container {
        Some(Route::Cluster) if subcommand.flags.contains(Flags::ADMIN) => Route::Refused,
        Some(route @ (Route::Session | Route::Cluster | Route::Refused)) => route,
        _ => subcommand.route,
    }
}

/// Name, arity, flags, first key, last key, step; since Redis 6 ACL categories; since 7 tips, key specs, subcommands.
fn command(entry: &Value) -> Option<Command> {
    let entry = elements(entry);
    let name = text(entry.first()?)?.to_ascii_lowercase();
    if name.is_empty() {
        return None;
    }
    let arity = i16::try_from(entry.get(1)?.as_integer()?).ok().filter(|arity| *arity != 0)?;
    let flag_names = elements(entry.get(2)?).iter().filter_map(text);
    let flags = flag_names.filter_map(Flags::named).fold(Flags::default(), Flags::with);
    let mut keys = match entry.get(8) {
        Some(specs) => elements(specs).iter().map(key_spec).collect(),
        None => legacy_key_spec(entry)?,
    };
    if has_own_way_to_its_keys(flags, &keys) {
        keys.push(KeySpec { access: Access::Write, begin: Begin::Unknown, find: Find::Unknown });
    }
    if flags.contains(Flags::READONLY) {
        only_read(&mut keys);
    }
    let (effect, route) = (effect(flags, &keys), route(flags, entry.get(7)));
    Some(Command::new(name.into(), arity, flags, effect, route, keys))
}

/// Movable keys that the key specs don't account for: the server asks the command's own code.
fn has_own_way_to_its_keys(flags: Flags, keys: &[KeySpec]) -> bool {
    let fixed = |spec: &KeySpec| spec.fixed_first().is_some();
    flags.contains(Flags::MOVABLEKEYS) && keys.iter().all(fixed)
}

/// A module that declares its keys the old way has them all flagged as updated, of commands that only read too.
fn only_read(keys: &mut [KeySpec]) {
    for spec in keys.iter_mut().filter(|spec| spec.access == Access::Write) {
        spec.access = Access::Read;
    }
}

fn effect(flags: Flags, keys: &[KeySpec]) -> Effect {
    let unknown = |spec: &KeySpec| spec.begin == Begin::Unknown || spec.find == Find::Unknown;
    if flags.contains(Flags::READONLY) {
        Effect::Read
    } else if flags.contains(Flags::TOUCHES_ARBITRARY_KEYS) || keys.iter().any(unknown) {
        Effect::Opaque
    } else if !flags.contains(Flags::WRITE) {
        // Neither one nor the other, as EVAL: it may write, with the help of commands that it calls.
        Effect::Script
    } else if keys.is_empty() {
        Effect::Opaque
    } else {
        Effect::Write
    }
}

fn route(flags: Flags, tips: Option<&Value>) -> Route {
    let tips: Vec<&str> = tips.map_or(&[][..], elements).iter().filter_map(text).collect();
    if flags.contains(Flags::BLOCKING) {
        Route::Blocking
    } else if tips.iter().any(|tip| matches!(*tip, "request_policy:all_shards" | "request_policy:all_nodes")) {
        Route::All(tips.iter().find_map(|tip| join(tip)).unwrap_or(Join::Concat))
    } else {
        Route::Forward
    }
}

/// What a tip says of the replies. Without one they are arrays, to be put one behind the other.
fn join(tip: &str) -> Option<Join> {
    Some(match tip.strip_prefix("response_policy:")? {
        "agg_sum" => Join::Sum,
        "agg_min" => Join::Min,
        "agg_max" => Join::Max,
        "agg_logical_and" => Join::And,
        "agg_logical_or" => Join::Or,
        "all_succeeded" => Join::Succeeded,
        "one_succeeded" => Join::OneSucceeded,
        _ => Join::Unknown,
    })
}

/// First key, last key, step: all there is from servers before Redis 7.
fn legacy_key_spec(entry: &[Value]) -> Option<Vec<KeySpec>> {
    let [first, last, step] = [3, 4, 5].map(|at| entry.get(at).and_then(small));
    let (first, last) = (usize::try_from(first?).ok()?, last?);
    if first == 0 {
        return Some(Vec::new());
    }
    let last = if last < 0 { last } else { last.checked_sub_unsigned(first)?.max(0) };
    let step = usize::try_from(step?).ok()?.max(1);
    Some(vec![KeySpec { access: Access::Write, begin: Begin::At(first), find: Find::Range { last, step } }])
}

fn key_spec(spec: &Value) -> KeySpec {
    let flags: Vec<&str> = spec.field(b"flags").map_or(&[][..], elements).iter().filter_map(text).collect();
    let begin = spec.field(b"begin_search").and_then(begin).unwrap_or(Begin::Unknown);
    let find =
        spec.field(b"find_keys").and_then(find).filter(|_| !flags.contains(&"incomplete")).unwrap_or(Find::Unknown);
    KeySpec { access: access(&flags), begin, find }
}

/// A spec that doesn't say what becomes of the key says `RW`, or nothing: written.
fn access(flags: &[&str]) -> Access {
    let any = |names: &[&str]| flags.iter().any(|flag| names.contains(flag));
    if any(&["not_key"]) {
        Access::Channel
    } else if any(&["RO"]) && !any(&["insert", "update", "delete"]) {
        Access::Read
    } else {
        Access::Write
    }
}

fn begin(search: &Value) -> Option<Begin> {
    let spec = search.field(b"spec")?;
    match text(search.field(b"type")?)? {
        "index" => Some(Begin::At(unsigned(spec, "index")?)),
        "keyword" => {
            Some(Begin::Keyword { word: text(spec.field(b"keyword")?)?.into(), from: signed(spec, "startfrom")? })
        }
        _ => None,
    }
}

fn find(find: &Value) -> Option<Find> {
    let spec = find.field(b"spec")?;
    let step = unsigned(spec, "keystep").map(|step| step.max(1));
    match text(find.field(b"type")?)? {
        "range" => Some(match (signed(spec, "lastkey")?, unsigned(spec, "limit")?) {
            (-1, parts @ 2..) => Find::Share { parts, step: step? },
            (last, _) => Find::Range { last, step: step? },
        }),
        "keynum" => {
            Some(Find::Counted { count: unsigned(spec, "keynumidx")?, first: unsigned(spec, "firstkey")?, step: step? })
        }
        _ => None,
    }
}

fn unsigned(map: &Value, name: &str) -> Option<usize> {
    signed(map, name)?.try_into().ok()
}

fn signed(map: &Value, name: &str) -> Option<isize> {
    map.field(name.as_bytes()).and_then(small)
}

/// A number that can be a position among arguments: sums and products of such don't overflow.
fn small(value: &Value) -> Option<isize> {
    i16::try_from(value.as_integer()?).ok().map(isize::from)
}

fn elements(value: &Value) -> &[Value] {
    value.as_items().unwrap_or_default()
}

fn text(value: &Value) -> Option<&str> {
    std::str::from_utf8(value.as_bytes()?).ok()
}
