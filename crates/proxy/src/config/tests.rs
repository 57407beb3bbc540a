//! The settings as a user gives them, and what is said when they are wrong.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use super::settings::*;
use super::*;
use crate::commands::cached::reads;

const NO_ENVIRONMENT: [(&str, &str); 0] = [];

fn load_with<'a>(flags: &[&str], env: impl AsRef<[(&'a str, &'a str)]>) -> Result<Invocation, ConfigError> {
    let args = ["nearside"].iter().chain(flags).map(OsString::from);
    load(args, |name| env.as_ref().iter().find(|(key, _)| *key == name).map(|(_, value)| value.into()))
}

fn run(invocation: Result<Invocation, ConfigError>) -> Config {
    match invocation {
        Ok(Invocation::Run(config)) => *config,
        other => panic!("no Config: {other:?}"),
    }
}

fn from_flags(flags: &[&str]) -> Config {
    run(load_with(flags, NO_ENVIRONMENT))
}

/// The one line that is printed.
fn error(flags: &[&str]) -> String {
    line(load_with(flags, NO_ENVIRONMENT))
}

fn line(invocation: Result<Invocation, ConfigError>) -> String {
    let line = invocation.unwrap_err().to_string();
    assert!(!line.contains('\n'), "{line:?} is one line");
    line
}

/// A file of settings; kept as long as the directory.
fn file(content: &str) -> (TempDir, String) {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("nearside.toml");
    fs::write(&path, content).unwrap();
    (directory, path.to_str().unwrap().to_owned())
}

fn check_lines(content: &str) -> Vec<String> {
    let (_directory, path) = file(content);
    match load_with(&["check", &path], NO_ENVIRONMENT).unwrap() {
        Invocation::Check { file, result } => {
            assert_eq!(file, PathBuf::from(&path));
            let errors = result.err().unwrap_or_default();
            errors.iter().map(|error| error.to_string().replace(&path, "FILE")).collect()
        }
        other => panic!("not a check: {other:?}"),
    }
}

#[test]
fn without_any_setting_the_defaults_hold() {
    let config = from_flags(&[]);
    assert_eq!(config.listen[0].address.to_string(), "127.0.0.1:6380");
    assert_eq!(config.listen.len(), 1);
    assert_eq!(config.listen[0].origin.to_string(), "listen by default");
    assert_eq!(config.admin.unwrap().address.to_string(), "127.0.0.1:6390");
    assert_eq!(config.upstream.to_string(), "redis://127.0.0.1:6379");
    assert_eq!(config.upstream.credentials, None);
    assert!((1..=256).contains(&config.workers));
    assert_eq!(config.cache_size, Some(256 << 20));
    assert_eq!(config.cache_rules.of(b"").1.max_item_size, 1 << 20);
    assert_eq!(config.cache_rules.of(b"").1.max_age, Duration::from_secs(60));
    assert_eq!(config.max_staleness, Duration::from_secs(1));
    assert_eq!(config.max_clients, 10_000);
    assert_eq!(config.requirepass, None);
    assert!(config.protected_mode);
    assert!(config.acl_users);
    assert_eq!(config.allow_commands, Vec::<String>::new());
    assert_eq!(config.drain_timeout, Duration::from_secs(10));
    assert_eq!(config.idle_timeout, None);
    assert_eq!(config.tcp_keepalive, Some(Duration::from_secs(300)));
    assert_eq!(config.upstream_timeout, Duration::from_secs(10));
    assert_eq!(config.connect_timeout, Duration::from_secs(2));
    assert_eq!(config.topology_interval, None);
    assert_eq!(config.cluster_face, None);
    assert_eq!(config.sentinel_face, SentinelFace::Auto);
    assert_eq!(config.announce, None);
    let limits = OutputLimits { hard: 1 << 30, soft: 64 << 20, soft_time: Duration::from_secs(10) };
    assert_eq!(config.output_limits, limits);
    assert!(config.buffer_memory >= 1 << 30);
    assert_eq!(config.query_buffer_limit, 1 << 30);
    assert_eq!(config.max_bulk_len, 512 << 20);
    assert_eq!(config.log, "warn");
}

#[test]
fn a_cluster_is_shown_before_a_cluster_unless_told_otherwise() {
    let shown = |upstream, face| from_flags(&["--upstream", upstream, "--cluster-face", face]).shows_cluster();
    for (upstream, by_default) in [("redis://h", false), ("redis-cluster://h", true)] {
        assert_eq!(shown(upstream, "auto"), by_default);
        assert!(shown(upstream, "yes") && !shown(upstream, "no"));
    }
}

#[test]
fn a_sentinel_is_shown_before_sentinels_unless_told_otherwise() {
    let shown = |upstream, face| {
        from_flags(&["--upstream", upstream, "--sentinel-face", face]).sentinel_name().map(str::to_owned)
    };
    assert_eq!(shown("redis-sentinel://h/m", "auto").as_deref(), Some("m"));
    assert_eq!(shown("redis-sentinel://h/m", "n").as_deref(), Some("n"));
    assert_eq!(shown("redis://h", "n").as_deref(), Some("n"));
    assert_eq!((shown("redis-sentinel://h/m", "off"), shown("redis://h", "auto")), (None, None));
}

#[test]
fn what_is_announced_is_somewhere_to_connect_to() {
    for text in ["*:1", "h:0", "h", "unix:///s", ""] {
        assert!(error(&["--announce", text]).contains("expected HOST:PORT, [IPV6]:PORT or auto"), "{text}");
    }
}

/// A setting, a text for it that is not the default, and what the text comes to.
type Row = (&'static Setting, &'static str, fn(&Config) -> String, &'static str);

const ROWS: [Row; 31] = [
    (&LISTEN, "[::1]:7000", |c| c.listen[0].address.to_string(), "[::1]:7000"),
    (&UPSTREAM, "redis://h:1/2", |c| c.upstream.to_string(), "redis://h:1/2"),
    (&WORKERS, "77", |c| c.workers.to_string(), "77"),
    (&CACHE_SIZE, "off", |c| format!("{:?}", c.cache_size), "None"),
    (&MAX_ITEM_SIZE, "64KiB", |c| c.cache_rules.of(b"").1.max_item_size.to_string(), "65536"),
    (&MAX_AGE, "2m", |c| format!("{:?}", c.cache_rules.of(b"").1.max_age), "120s"),
    (&MAX_STALENESS, "10ms", |c| format!("{:?}", c.max_staleness), "10ms"),
    (&CACHE_CHURNING, "yes", |c| c.cache_churning.to_string(), "true"),
    (&SCRIPT_FENCE, "yes", |c| c.script_fence.to_string(), "true"),
    (&MAX_CLIENTS, "3", |c| c.max_clients.to_string(), "3"),
    (
        &REQUIREPASS,
        "pass,word",
        |c| String::from_utf8_lossy(c.requirepass.as_ref().unwrap().expose()).into(),
        "pass,word",
    ),
    (&ACL_USERS, "no", |c| c.acl_users.to_string(), "false"),
    (&PROTECTED_MODE, "no", |c| c.protected_mode.to_string(), "false"),
    (&ALLOW_COMMANDS, "DEBUG,config|set", |c| c.allow_commands.join(" "), "debug config|set"),
    (&ADMIN, "off", |c| format!("{:?}", c.admin), "None"),
    (&DRAIN_TIMEOUT, "0s", |c| format!("{:?}", c.drain_timeout), "0ns"),
    (&IDLE_TIMEOUT, "5m", |c| format!("{:?}", c.idle_timeout), "Some(300s)"),
    (&TCP_KEEPALIVE, "0s", |c| format!("{:?}", c.tcp_keepalive), "None"),
    (&UPSTREAM_TIMEOUT, "1s", |c| format!("{:?}", c.upstream_timeout), "1s"),
    (&CONNECT_TIMEOUT, "3s", |c| format!("{:?}", c.connect_timeout), "3s"),
    (&TOPOLOGY_INTERVAL, "3s", |c| format!("{:?}", c.topology_interval), "Some(3s)"),
    (&CLUSTER_FACE, "no", |c| format!("{:?}", c.cluster_face), "Some(false)"),
    (&SENTINEL_FACE, "m", |c| format!("{:?}", c.sentinel_face), "Named(\"m\")"),
    (&ANNOUNCE, "[::1]:1", |c| format!("{:?}", c.announce), "Some((\"::1\", 1))"),
    (&OUTPUT_LIMIT_HARD, "2MiB", |c| c.output_limits.hard.to_string(), "2097152"),
    (&OUTPUT_LIMIT_SOFT, "3MiB", |c| c.output_limits.soft.to_string(), "3145728"),
    (&OUTPUT_LIMIT_SOFT_TIME, "4s", |c| format!("{:?}", c.output_limits.soft_time), "4s"),
    (&BUFFER_MEMORY, "5MiB", |c| c.buffer_memory.to_string(), "5242880"),
    (&QUERY_BUFFER_LIMIT, "6MiB", |c| c.query_buffer_limit.to_string(), "6291456"),
    (&MAX_BULK_LEN, "7MiB", |c| c.max_bulk_len.to_string(), "7340032"),
    (&LOG, "warn,nearside::control=info", |c| c.log.clone(), "warn,nearside::control=info"),
];

#[test]
fn every_setting_can_be_given_as_a_flag_as_a_variable_and_in_the_file() {
    for (row, setting) in ROWS.iter().zip(ALL) {
        assert_eq!(row.0.name, setting.name, "one row for each setting");
    }
    for (setting, text, shown, expected) in ROWS {
        assert_ne!(shown(&from_flags(&["--requirepass=x"])), expected, "{} is not the default", setting.name);
        assert_eq!(shown(&from_flags(&[&setting.flag(), text])), expected, "{}", setting.flag());
        assert_eq!(shown(&run(load_with(&[], [(&*setting.variable(), text)]))), expected, "{}", setting.variable());
        let (_directory, path) = file(&format!("{} = {text:?}", setting.name));
        assert_eq!(shown(&from_flags(&["--config", &path])), expected, "{} in the file", setting.name);
    }
}

#[test]
fn a_flag_wins_over_a_variable_and_that_over_the_file() {
    let (_directory, path) = file("workers = 1\nmax-clients = 1\nmax-age = \"1s\"\nlisten = [\"a:1\", \"b:1\"]");
    let env = [("NEARSIDE_WORKERS", "2"), ("NEARSIDE_MAX_CLIENTS", "2"), ("NEARSIDE_CONFIG", &path)];
    let config = run(load_with(&["--workers", "3", "--listen", "c:1"], env));
    assert_eq!(
        (config.workers, config.max_clients, config.cache_rules.of(b"").1.max_age),
        (3, 2, Duration::from_secs(1))
    );
    assert_eq!(config.listen.len(), 1, "a list replaces a list");

    let (_directory, other) = file("max-age = \"2s\"");
    let config = run(load_with(&["--config", &other], env));
    assert_eq!(config.cache_rules.of(b"").1.max_age, Duration::from_secs(2), "--config wins over NEARSIDE_CONFIG");
}

#[test]
fn a_variable_set_to_nothing_counts_as_not_set() {
    let config = run(load_with(&[], [("NEARSIDE_WORKERS", ""), ("NEARSIDE_CONFIG", "")]));
    assert!(config.workers > 0);
}

#[test]
fn a_list_is_written_with_commas_by_repeating_the_flag_or_as_an_array() {
    let addresses = |config: Config| {
        let texts: Vec<_> = config.listen.iter().map(|listen| listen.address.to_string()).collect();
        texts.join(" ")
    };
    assert_eq!(addresses(from_flags(&["--listen", "a:1, b:2"])), "a:1 b:2");
    assert_eq!(addresses(from_flags(&["--listen", "a:1", "--listen", "b:2,c:3"])), "a:1 b:2 c:3");
    assert_eq!(addresses(from_flags(&["--listen", "a:1", "b:2"])), "a:1 b:2");
    let (_directory, path) = file("listen = [\"a:1\", \"b:2\"]\nallow-commands = []");
    let config = from_flags(&["--config", &path]);
    assert_eq!(config.allow_commands, Vec::<String>::new());
    assert_eq!(addresses(config), "a:1 b:2");
}

#[test]
fn numbers_and_booleans_of_the_file_need_no_quotes() {
    let (_directory, path) = file("workers = 4\nprotected-mode = false\ncache-size = 2_097_152\nidle-timeout = 0");
    let config = from_flags(&["--config", &path]);
    assert_eq!((config.workers, config.protected_mode, config.cache_size), (4, false, Some(2 << 20)));
    assert_eq!(config.idle_timeout, None);
}

#[test]
fn an_empty_password_is_none_and_can_take_back_that_of_the_file() {
    let (_directory, path) = file("requirepass = \"secret\"");
    assert!(from_flags(&["--config", &path]).requirepass.is_some());
    assert_eq!(from_flags(&["--config", &path, "--requirepass="]).requirepass, None);
}

#[test]
fn a_bad_value_is_told_with_its_setting_its_place_and_what_is_allowed() {
    for (flags, expected) in [
        (
            &["--cache-size", "12XB"][..],
            "--cache-size on the command line: bad value \"12XB\": expected a size of at least 1MiB such as 256MiB, or off",
        ),
        (
            &["--workers", "257"],
            "--workers on the command line: bad value \"257\": expected a number from 1 to 256, or auto",
        ),
        (
            &["--workers", "-1"],
            "--workers on the command line: bad value \"-1\": expected a number from 1 to 256, or auto",
        ),
        (
            &["--max-staleness=9ms"],
            "--max-staleness on the command line: bad value \"9ms\": expected a time from 10ms to 1h such as 1s",
        ),
        (
            &["--listen", "a:1,::1"],
            "--listen on the command line: bad value \"::1\": expected HOST:PORT, [IPV6]:PORT, *:PORT for every \
             interface, or unix:///PATH",
        ),
        (
            &["--log", "wran"],
            "--log on the command line: bad value \"wran\": \"wran\" is not a level; expected off, error, warn, info, \
             debug or trace, also by part as in warn,nearside::control=info",
        ),
        (
            &["--log", "warn,nearside=loud"],
            "--log on the command line: bad value \"warn,nearside=loud\": error parsing level filter: expected one of \
             \"off\", \"error\", \"warn\", \"info\", \"debug\", \"trace\", or a number 0-5; expected off, error, warn, \
             info, debug or trace, also by part as in warn,nearside::control=info",
        ),
        (
            &["--allow-commands", "de bug"],
            "--allow-commands on the command line: bad value \"de bug\": expected names of commands such as debug or \
             cluster|setslot",
        ),
        (
            &["--upstream", "rediss://me:secret@h"],
            "--upstream on the command line: bad value \"rediss://***@h\": rediss:// is not supported yet; expected \
             redis://[[USER]:PASSWORD@]HOST[:PORT][/DB], \
             redis-cluster://[[USER]:PASSWORD@]HOST[:PORT][,HOST[:PORT]...], \
             redis-sentinel://[[USER]:PASSWORD@]HOST[:PORT][,HOST[:PORT]...]/NAME[/DB]\
             [?sentinel-username=USER&sentinel-password=PASSWORD] or unix://[[USER]:PASSWORD@]/PATH[?db=DB]",
        ),
    ] {
        assert_eq!(error(flags), expected);
    }
    assert_eq!(
        line(load_with(&[], [("NEARSIDE_PROTECTED_MODE", "maybe\nnot")])),
        "NEARSIDE_PROTECTED_MODE in the environment: bad value \"maybe\\nnot\": expected yes or no"
    );
    let (_directory, path) = file("\n\nmax-age = 60");
    assert_eq!(
        error(&["--config", &path]),
        format!("max-age in {path} line 3: bad value \"60\": expected a time from 10ms to 365d such as 60s")
    );
}

#[test]
fn values_at_the_edges_of_what_is_allowed_are_taken_and_those_past_them_not() {
    for (flag, within, outside) in [
        ("--workers", &["1", "256"][..], &["0", "257"][..]),
        ("--cache-size", &["1MiB"], &["1048575", "0"]),
        ("--max-item-size", &["1", "512MiB"], &["0", "536870913"]),
        ("--max-age", &["10ms", "365d"], &["9ms", "366d"]),
        ("--max-staleness", &["10ms", "1h"], &["9ms", "3600001ms"]),
        ("--max-clients", &["1", "1000000"], &["0", "1000001"]),
        ("--drain-timeout", &["0s", "1h"], &["61m"]),
        ("--idle-timeout", &["0", "1s", "365d"], &["999ms", "366d"]),
        ("--tcp-keepalive", &["1s", "9h"], &["999ms", "10h"]),
        ("--upstream-timeout", &["10ms", "1h"], &["0", "61m"]),
        ("--connect-timeout", &["10ms", "1h"], &["0", "61m"]),
        ("--output-limit-hard", &["1KiB"], &["1023"]),
        ("--output-limit-soft", &["1KiB"], &["1023"]),
        ("--output-limit-soft-time", &["0", "1h"], &["61m"]),
        ("--buffer-memory", &["1MiB"], &["1048575"]),
        ("--query-buffer-limit", &["1MiB"], &["1048575"]),
        ("--max-bulk-len", &["1MiB", "4095MiB"], &["1048575", "4GiB"]),
    ] {
        for text in within {
            from_flags(&[flag, text]);
        }
        for text in outside {
            assert!(error(&[flag, text]).contains("bad value"), "{flag} {text}");
        }
    }
}

#[test]
fn a_command_line_that_makes_no_sense_is_told_in_one_line() {
    for (flags, expected) in [
        (&["--cahce-size", "1"][..], "--cahce-size on the command line: no such setting; did you mean --cache-size?"),
        (&["--appendonly=yes"], "--appendonly on the command line: no such setting; see --help"),
        (&["--workers"], "--workers on the command line: has no value: expected a number from 1 to 256, or auto"),
        (&["--config"], "--config on the command line: has no value: expected a FILE"),
        (&["--workers", "1", "--workers", "2"], "--workers on the command line: given more than once"),
        (&["-x"], "-x on the command line: expected a flag such as --listen, or check FILE; see --help"),
        (&["a\nb"], "a\\nb on the command line: expected a flag such as --listen, or check FILE; see --help"),
        (&["check"], "check on the command line: expected check FILE"),
        (&["check", "a", "b"], "b on the command line: expected a flag such as --listen, or check FILE; see --help"),
        (
            &["check", "a", "--workers", "1"],
            "--workers on the command line: not allowed with check, which reads the file alone",
        ),
        (
            &["--workers", "1", "check", "a"],
            "check on the command line: not allowed with flags: it reads the file alone",
        ),
        (
            &["--config", "/nonexistent"],
            "--config on the command line: cannot read \"/nonexistent\": No such file or directory (os error 2)",
        ),
    ] {
        assert_eq!(error(flags), expected);
    }
}

#[test]
fn a_check_of_a_good_file_gives_its_settings_without_flags_or_environment() {
    let (_directory, path) = file("workers = 3 # a comment");
    let invocation = load_with(&["check", &path], [("NEARSIDE_WORKERS", "nonsense"), ("NEARSIDE_MAX_CLIENTS", "1")]);
    match invocation.unwrap() {
        Invocation::Check { result: Ok(config), .. } => assert_eq!((config.workers, config.max_clients), (3, 10_000)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_check_names_everything_that_is_wrong_in_the_order_of_the_file() {
    let content = "max-age = 60\ncahce_size = 3\nlisten = [\"h:1\",\n  \"nonsense\", \"7\"]\nworkers = 0x10\n\
                   \"two\\nlines\" = 1\nadmin = { port = 1 }\nlog = [\n\"warn\"]\n\
                   max-clients = 1979-05-27\n[listen2]\n";
    assert_eq!(
        check_lines(content),
        [
            "max-age in FILE line 1: bad value \"60\": expected a time from 10ms to 365d such as 60s",
            "cahce_size in FILE line 2: no such setting; did you mean cache-size?",
            "listen in FILE line 4: bad value \"nonsense\": expected HOST:PORT, [IPV6]:PORT, *:PORT for every \
             interface, or unix:///PATH",
            "listen in FILE line 4: bad value \"7\": expected HOST:PORT, [IPV6]:PORT, *:PORT for every interface, or \
             unix:///PATH",
            "workers in FILE line 5: bad value \"0x10\": expected a number from 1 to 256, or auto",
            "two\\nlines in FILE line 6: no such setting; see nearside --help",
            "admin in FILE line 7: bad value \"{ port = 1 }\": expected HOST:PORT, [IPV6]:PORT, *:PORT for every interface, \
             unix:///PATH, or off",
            "log in FILE line 8: bad value \"[\\n\\\"warn\\\"]\": expected off, error, warn, info, debug or trace, also by \
             part as in warn,nearside::control=info",
            "max-clients in FILE line 10: bad value \"1979-05-27\": expected a number from 1 to 1000000",
            "listen2 in FILE line 11: no such setting; did you mean listen?",
        ]
    );
    let lines = check_lines("zzz = 1\naaa = 1");
    assert!(lines[0].starts_with("zzz") && lines[1].starts_with("aaa"), "{lines:?}");
    assert!(check_lines("listen = []")[0].starts_with("listen in FILE line 1: bad value \"\": expected HOST:PORT"));
}

#[test]
fn a_password_in_the_file_must_be_in_quotes() {
    for value in ["1_000", "0x10", "true", "1.5", "[\"a\"]", "{ a = 1 }"] {
        assert_eq!(
            check_lines(&format!("requirepass = {value}")),
            ["requirepass in FILE line 1: bad value (hidden): expected a text in UTF-8, empty for no password"]
        );
    }
}

#[test]
fn a_file_with_a_key_that_does_not_exist_is_not_run_with() {
    let (_directory, path) = file("workers = 3\nmax-clients = 0\ncache-sizes = \"1GiB\"");
    let expected = format!("cache-sizes in {path} line 3: no such setting; did you mean cache-size?");
    assert_eq!(error(&["--config", &path]), expected);
}

#[test]
fn a_file_that_is_no_toml_is_told_with_the_line() {
    let [line] = &check_lines("workers = 1\nmax-age = 60s\n")[..] else { panic!("one error") };
    assert!(line.starts_with("FILE line 2: "), "{line}");
    let [line] = &check_lines("workers = 1\nworkers = 2\n")[..] else { panic!("one error") };
    assert!(line.starts_with("FILE line 2: duplicate key"), "{line}");
}

#[test]
fn no_password_is_ever_shown() {
    let (_directory, path) = file("requirepass = [\"hunter2\"]\nupstream = \"redis://me:hunter2@h:x\"");
    let env = [("NEARSIDE_REQUIREPASS", "hunter2")];
    let config = run(load_with(&["--upstream", "redis://me:hunter2@h"], env));
    let refused = config.refuse(&REQUIREPASS, "reason").to_string();
    assert_eq!(refused, "NEARSIDE_REQUIREPASS in the environment: bad value (hidden): reason");
    let shown = [
        format!("{config:?}"),
        refused,
        config.refuse(&UPSTREAM, "no").to_string(),
        error(&["--config", &path]),
        error(&["--requirepas=hunter2"]),
        error(&["--requirepass=hunter2", "--requirepass=hunter2"]),
        error(&["--upstream", "redis://hunter2@h"]),
    ];
    for text in shown {
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[cfg(unix)]
#[test]
fn a_value_that_is_not_utf_8_is_refused() {
    use std::os::unix::ffi::OsStringExt;
    let flag = OsString::from_vec(b"--requirepass=p\xffw".to_vec());
    assert_eq!(
        line(load(["nearside".into(), flag], |_| None)),
        "--requirepass on the command line: bad value (hidden): expected a text in UTF-8, empty for no password"
    );
}

#[test]
fn a_valid_value_that_cannot_be_carried_out_is_refused_with_its_place() {
    let config = run(load_with(&["--max-item-size", "200MiB"], NO_ENVIRONMENT));
    assert_eq!(
        config.refuse(&MAX_ITEM_SIZE, "at most 32MiB fit the cache").to_string(),
        "--max-item-size on the command line: bad value \"200MiB\": at most 32MiB fit the cache"
    );
}

#[test]
fn help_names_every_flag_and_its_default() {
    let Ok(Invocation::Print(help)) = load_with(&["--help"], NO_ENVIRONMENT) else { panic!("no help") };
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    for setting in ALL {
        assert!(help.contains(&format!("{} <{}>", setting.flag(), setting.value)), "{}", setting.name);
        assert!(help.contains(&format!("[default: {}]", setting.default)) || setting.default.is_empty());
    }
}

#[test]
fn the_version_is_the_packages() {
    let Ok(Invocation::Print(version)) = load_with(&["--version"], NO_ENVIRONMENT) else { panic!("no version") };
    assert_eq!(version, format!("nearside {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn rules_say_what_is_cached_of_which_keys_the_first_that_matches_counts() {
    let rules = "max-age = \"30s\"\n\
        [[cache.rule]]\nmatch = \"session:*\"\ncache = false\n\
        [[cache.rule]]\nmatch = [\"user:?\", \"group:*\"]\ncommands = [\"GET\", \"hgetall\"]\nmax-age = \"5m\"\n\
        [[cache.rule]]\nmatch = \"*:7\"\nmax-item-size = \"2MiB\"\n";
    let (_directory, path) = file(rules);
    let config = from_flags(&["--config", &path]);
    let rules = &config.cache_rules;
    let [get, hgetall, llen] = ["get", "hgetall", "llen"].map(|name| reads::number(name).unwrap());
    let told = |key: &str| {
        let (number, rule) = rules.of(key.as_bytes());
        let caches = [get, hgetall, llen].map(|command| rule.caches(command));
        (number, caches, rule.max_age.as_secs(), rule.max_item_size)
    };
    assert_eq!(told("session:7"), (1, [false; 3], 30, 1 << 20));
    assert_eq!(told("user:7"), (2, [true, true, false], 300, 1 << 20));
    assert_eq!(told("group:"), (2, [true, true, false], 300, 1 << 20));
    assert_eq!(told("user:77"), (0, [true; 3], 30, 1 << 20));
    assert_eq!(told("x:7"), (3, [true; 3], 30, 2 << 20));
    assert_eq!((rules.longest_age().as_secs(), rules.largest_item()), (300, 2 << 20));
}

#[test]
fn a_bad_rule_is_told_with_its_line_and_what_is_allowed() {
    let told = |text: &str| {
        let (_directory, path) = file(text);
        error(&["--config", &path]).replace(&path, "FILE")
    };
    for (text, expected) in [
        ("cache = 3", "cache in FILE line 1: bad value \"3\": expected tables [[cache.rule]]"),
        ("[cache]\nrules = []", "cache.rules in FILE line 2: bad value \"[]\": expected tables [[cache.rule]]"),
        (
            "[[cache.rule]]\nmatch = 3",
            "cache.rule.match in FILE line 2: bad value \"3\": expected a pattern, or an array of them",
        ),
        (
            "[[cache.rule]]\nmatch = \"a\"\n[[cache.rule]]\nmatch = \"b\"\nmax-age = \"5\"",
            "cache.rule.max-age in FILE line 5: bad value \"\\\"5\\\"\": expected a time from 10ms to 365d such as \"5s\"",
        ),
        (
            "[[cache.rule]]\nmatch = \"a\"\nmax-item-size = 0",
            "cache.rule.max-item-size in FILE line 3: bad value \"0\": expected a size from 1B to 512MiB such as \"64KiB\"",
        ),
        (
            "[[cache.rule]]\nmatch = \"a\"\ncache = \"off\"",
            "cache.rule.cache in FILE line 3: bad value \"\\\"off\\\"\": expected true or false",
        ),
    ] {
        assert_eq!(told(text), expected);
    }
    assert!(told("[[cache.rule]]\ncache = false").contains("expected match, the patterns"));
    assert!(
        told("[[cache.rule]]\nmatch = \"a\"\nttl = 3")
            .contains("cache.rule.ttl in FILE line 3: no such setting; a rule has")
    );
    let unknown = told("[[cache.rule]]\nmatch = \"a\"\ncommands = [\"get\", \"ttl\"]");
    assert!(unknown.contains("expected commands that can be cached, which \"ttl\" cannot: get, bitcount"), "{unknown}");
}
