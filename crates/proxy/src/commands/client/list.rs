//! CLIENT LIST and CLIENT INFO: a line of fields for each client, those of Redis 7.0 and, as 7.2 appends them, the
//! library's name and version. What has no meaning here (transactions, the parts of Redis's buffers) is shown as of a client
//! that does not use it.

use std::borrow::Cow;
use std::io::Write as _;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use nearside_nearcache::Time;
use nearside_resp::{Request, encode};

use super::SYNTAX_ERROR;
use super::options::{self, Kind};
use crate::commands::table::Table;
use crate::session::Session;
use crate::session::registry::{Client, Registry};
use crate::session::state::State;

/// CLIENT LIST.
pub(super) fn run(session: &Rc<Session>, state: &mut State, request: &Request<'_>) {
    let options: Vec<&[u8]> = request.args().skip(2).collect();
    match Filter::parse(&options) {
        Ok(filter) => {
            let clients = filter.apply(&session.worker().shared().registry);
            answer_lines(session, state, &clients);
        }
        Err(text) => state.answer_error(text),
    }
}

/// CLIENT INFO.
pub(super) fn own(session: &Rc<Session>, state: &mut State) {
    let client = Arc::clone(&state.client);
    answer_lines(session, state, &[client]);
}

fn answer_lines(session: &Rc<Session>, state: &mut State, clients: &[Arc<Client>]) {
    state.show_turn(); // the client's own line tells of this very command
    let table = session.worker().shared().commands.load();
    let names = CommandNames::of(&table);
    let mut lines = Vec::with_capacity(clients.len() * 256);
    for client in clients {
        append_line(&mut lines, client, &names, state.now);
    }
    state.answer(|out, protocol| encode::verbatim_text(out, protocol, &lines));
}

/// Which clients are listed.
#[derive(Debug, PartialEq, Eq)]
enum Filter {
    All,
    Kind(Kind),
    /// Those there are of these, in the order they were asked for.
    Ids(Vec<i64>),
}

impl Filter {
    fn parse(options: &[&[u8]]) -> Result<Self, Vec<u8>> {
        match options {
            [] => Ok(Filter::All),
            [name, kind] if name.eq_ignore_ascii_case(b"type") => Kind::parse(kind).map(Filter::Kind),
            [name, ids @ ..] if name.eq_ignore_ascii_case(b"id") && !ids.is_empty() => {
                let ids: Option<Vec<i64>> = ids.iter().map(|id| options::integer(id)).collect();
                ids.map(Filter::Ids).ok_or_else(|| b"ERR Invalid client ID".to_vec())
            }
            _ => Err(SYNTAX_ERROR.into()),
        }
    }

    fn apply(self, registry: &Registry) -> Vec<Arc<Client>> {
        match self {
            Filter::All => registry.connected(),
            Filter::Kind(kind) => registry.connected().into_iter().filter(|client| Kind::of(client) == kind).collect(),
            Filter::Ids(ids) => ids.into_iter().filter_map(|id| registry.get(u64::try_from(id).ok()?)).collect(),
        }
    }
}

/// The names of a table's commands by their numbers.
struct CommandNames<'t>(Vec<&'t str>);

impl<'t> CommandNames<'t> {
    fn of(table: &'t Table) -> Self {
        let mut names = Vec::new();
        for command in table.iter() {
            let number = command.number as usize;
            names.resize(names.len().max(number + 1), Self::NONE);
            names[number] = &*command.name;
        }
        CommandNames(names)
    }

    /// Redis prints a null pointer so: nothing was run yet, or no such command.
    const NONE: &'static str = "NULL";

    fn get(&self, number: u32) -> &'t str {
        self.0.get(number as usize).copied().unwrap_or(Self::NONE)
    }
}

/// Appends the line of `client` as it was at `now`.
fn append_line(out: &mut Vec<u8>, client: &Client, names: &CommandNames<'_>, now: Time) {
    let texts = client.texts().clone();
    let seconds_since = |time: Time| now.0.saturating_sub(time.0) / 1_000_000_000;
    let (input, output) = (client.input.load(Relaxed), client.output.load(Relaxed));
    let mut text = |piece: std::fmt::Arguments<'_>| out.write_fmt(piece).expect("a Vec takes everything");
    text(format_args!("id={} addr={} laddr={} ", client.id, client.address, client.local_address));
    text(format_args!("fd={} name={} ", client.fd, String::from_utf8_lossy(&texts.name)));
    let active = Time(client.active.load(Relaxed));
    text(format_args!("age={} idle={} ", seconds_since(client.since), seconds_since(active)));
    text(format_args!("flags={} db={} ", flags(client), client.db.load(Relaxed)));
    let [channels, patterns, shard_channels] =
        [&client.channels, &client.patterns, &client.shard_channels].map(|count| count.load(Relaxed));
    text(format_args!("sub={channels} psub={patterns} ssub={shard_channels} "));
    text(format_args!("multi=-1 qbuf={input} qbuf-free=0 argv-mem=0 multi-mem=0 rbs=0 rbp=0 "));
    text(format_args!("obl=0 oll=0 omem={output} tot-mem={} ", input + output));
    text(format_args!("events={} ", if output > 0 { "rw" } else { "r" }));
    text(format_args!("cmd={} user={} redir=-1 ", names.get(client.command.load(Relaxed)), shown_user(&texts.user)));
    text(format_args!("resp={} ", if client.resp3.load(Relaxed) { 3 } else { 2 }));
    text(format_args!("lib-name={} ", String::from_utf8_lossy(&texts.library)));
    text(format_args!("lib-ver={}\n", String::from_utf8_lossy(&texts.library_version)));
}

fn shown_user(name: &[u8]) -> Cow<'_, str> {
    if name.is_empty() { Cow::Borrowed("default") } else { String::from_utf8_lossy(name) }
}

/// A letter for each thing that is special about the client; `N` for nothing.
fn flags(client: &Client) -> String {
    let flags = [
        (client.monitors.load(Relaxed), 'O'),
        (client.is_subscribed(), 'P'),
        (client.unix, 'U'),
        (client.no_evict.load(Relaxed), 'e'),
        (client.no_touch.load(Relaxed), 'T'),
    ];
    let letters: String = flags.into_iter().filter_map(|(set, letter)| set.then_some(letter)).collect();
    if letters.is_empty() { "N".to_owned() } else { letters }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn parse(options: &str) -> Result<Filter, String> {
        let options: Vec<&[u8]> = options.split_whitespace().map(str::as_bytes).collect();
        Filter::parse(&options).map_err(|text| String::from_utf8(text).unwrap())
    }

    #[test]
    fn a_filter_is_nothing_or_a_type_or_ids() {
        assert_eq!(parse(""), Ok(Filter::All));
        assert_eq!(parse("type PubSub"), Ok(Filter::Kind(Kind::PubSub)));
        assert_eq!(parse("Id 7 -1 7"), Ok(Filter::Ids(vec![7, -1, 7])));
    }

    #[test]
    fn a_wrong_filter_has_redis_s_error() {
        for options in ["x", "TYPE", "ID", "TYPE normal x", "TYPE normal ID 1", "USER default"] {
            assert_eq!(parse(options), Err("ERR syntax error".to_owned()), "{options}");
        }
        assert_eq!(parse("TYPE bogus"), Err("ERR Unknown client type 'bogus'".to_owned()));
        assert_eq!(parse("ID 1 TYPE normal"), Err("ERR Invalid client ID".to_owned()));
    }

    #[test]
    fn a_filter_lists_who_is_there() {
        let registry = Registry::default();
        let ids: Vec<u64> = (0..3).map(|_| registry.enter(Client::for_test).id).collect();
        let listed = |options: &str| -> Vec<u64> {
            parse(options).unwrap().apply(&registry).iter().map(|client| client.id).collect()
        };
        assert_eq!(listed(""), ids);
        assert_eq!(listed("TYPE normal"), ids);
        assert_eq!(listed("TYPE replica"), []);
        assert_eq!(listed("ID 3 99 -1 1 3"), [3, 1, 3]);
        registry.get(2).unwrap().kill();
        assert_eq!(listed(""), [1, 3], "a killed client is gone, whenever its worker gets to it");
        assert_eq!(listed("ID 2"), []);
    }

    #[test]
    fn a_line_has_redis_s_fields() {
        let client = Client::for_test(7);
        client.set_name(b"web");
        client.show(Time(4 * SECOND), Table::core().named("client|list").unwrap().number);
        client.resp3.store(true, Relaxed);
        client.no_evict.store(true, Relaxed);
        client.no_touch.store(true, Relaxed);
        client.hold(100, 20);
        client.texts().library = b"redis-py".to_vec();
        let mut line = Vec::new();
        append_line(&mut line, &client, &CommandNames::of(Table::core()), Time(9 * SECOND + 1));
        let fd = client.fd;
        assert_eq!(
            String::from_utf8(line).unwrap(),
            format!(
                "id=7 addr=127.0.0.1:40007 laddr=127.0.0.1:6380 fd={fd} name=web age=9 idle=5 flags=eT db=0 sub=0 psub=0 \
                 ssub=0 multi=-1 qbuf=100 qbuf-free=0 argv-mem=0 multi-mem=0 rbs=0 rbp=0 obl=0 oll=0 omem=20 tot-mem=120 \
                 events=rw cmd=client|list user=default redir=-1 resp=3 lib-name=redis-py lib-ver=\n"
            )
        );
    }

    #[test]
    fn a_client_that_has_run_nothing_shows_a_null_command() {
        let mut line = Vec::new();
        append_line(&mut line, &Client::for_test(1), &CommandNames::of(Table::core()), Time(0));
        let line = String::from_utf8(line).unwrap();
        assert!(line.contains(" flags=N ") && line.contains(" events=r cmd=NULL "), "{line}");
    }
}
