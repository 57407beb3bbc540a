//! The command line. Flags and help are made from the settings; clap's errors, which take several lines, are folded
//! into ours.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::{OsStringValueParser, PathBufValueParser};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, ArgMatches, Command};

use super::raw::{self, Given, RawAction, RawInvocation};
use super::settings::{self, Setting, Takes};
use super::{ConfigError, Origin};

/// The flag that names the file.
pub(super) const CONFIG: &str = "--config";

/// Reads the command line; `args` begins with the program's name.
pub(super) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<RawInvocation, ConfigError> {
    match command().try_get_matches_from(args) {
        Ok(matches) => invocation(&matches),
        Err(error) => match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
                Ok(RawInvocation { action: RawAction::Print(error.to_string()), given: Vec::new() })
            }
            _ => Err(folded(&error)),
        },
    }
}

fn invocation(matches: &ArgMatches) -> Result<RawInvocation, ConfigError> {
    if let Some(("check", check)) = matches.subcommand() {
        let file = check.get_one::<PathBuf>("FILE").expect("FILE is required").clone();
        return Ok(RawInvocation { action: RawAction::Check { file }, given: Vec::new() });
    }
    let mut all = Vec::new();
    for setting in settings::ALL {
        for text in matches.get_many::<OsString>(setting.name).into_iter().flatten() {
            let given = Given::new(setting, text.clone(), Origin::CommandLine(setting.flag()))?;
            all.extend(raw::split(setting, given.text, given.origin));
        }
    }
    let config = matches.get_one::<PathBuf>("config").cloned();
    Ok(RawInvocation { action: RawAction::Run { config }, given: all })
}

fn command() -> Command {
    let config = Arg::new("config")
        .long("config")
        .value_name("FILE")
        .value_parser(PathBufValueParser::new())
        .help("Read settings from this TOML file [or the one that NEARSIDE_CONFIG names]");
    let file = Arg::new("FILE").required(true).value_parser(PathBufValueParser::new()).help("A file of settings");
    Command::new("nearside")
        .version(env!("CARGO_PKG_VERSION"))
        .about(env!("CARGO_PKG_DESCRIPTION"))
        .args(settings::ALL.into_iter().map(flag))
        .arg(config)
        .subcommand(Command::new("check").about("Say whether a file of settings is valid").arg(file))
        .args_conflicts_with_subcommands(true)
        .disable_help_subcommand(true)
        .after_help(
            "Each setting is also a variable (--cache-size: NEARSIDE_CACHE_SIZE) and a key of the file \
             (cache-size = \"256MiB\").\nA flag wins over a variable, a variable over the file.\n\
             Rules for some keys are [[cache.rule]] tables, in the file alone: README.md has them.",
        )
}

fn flag(setting: &'static Setting) -> Arg {
    let default = match setting.default {
        "" => String::new(),
        default => format!(" [default: {default}]"),
    };
    let arg = Arg::new(setting.name)
        .long(setting.name)
        .value_name(setting.value)
        .value_parser(OsStringValueParser::new())
        .allow_negative_numbers(true)
        .help(format!("{}{default}", setting.help));
    match setting.takes {
        Takes::One | Takes::OneSecret => arg.action(ArgAction::Set),
        Takes::Many => arg.action(ArgAction::Append).num_args(1..),
    }
}

/// One line of ours for clap's several.
fn folded(error: &clap::Error) -> ConfigError {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        _ => None,
    };
    let argument = text(ContextKind::InvalidArg).or_else(|| text(ContextKind::InvalidSubcommand)).unwrap_or_default();
    // clap speaks of a flag together with its placeholder, as in `--workers <N>`.
    let argument = argument.split(' ').next().unwrap_or_default().to_owned();
    match error.kind() {
        ErrorKind::UnknownArgument if argument.strip_prefix("--").and_then(Setting::named).is_some() => {
            ConfigError::Usage { argument, reason: "not allowed with check, which reads the file alone".to_owned() }
        }
        ErrorKind::ArgumentConflict if argument == "check" => {
            ConfigError::Usage { argument, reason: "not allowed with flags: it reads the file alone".to_owned() }
        }
        ErrorKind::UnknownArgument | ErrorKind::InvalidSubcommand if argument.starts_with("--") => {
            ConfigError::Unknown { hint: hint(&argument), origin: Origin::CommandLine(argument) }
        }
        ErrorKind::UnknownArgument | ErrorKind::InvalidSubcommand => {
            let reason = "expected a flag such as --listen, or check FILE; see --help".to_owned();
            ConfigError::Usage { argument, reason }
        }
        ErrorKind::InvalidValue => match argument.strip_prefix("--").and_then(Setting::named) {
            Some(setting) => {
                ConfigError::Usage { argument, reason: format!("has no value: expected {}", setting.allowed) }
            }
            None => ConfigError::Usage { argument, reason: "has no value: expected a FILE".to_owned() },
        },
        ErrorKind::ArgumentConflict if error.get(ContextKind::PriorArg).is_some_and(|prior| is(prior, &argument)) => {
            ConfigError::Usage { argument, reason: "given more than once".to_owned() }
        }
        ErrorKind::MissingRequiredArgument => {
            ConfigError::Usage { argument: "check".to_owned(), reason: "expected check FILE".to_owned() }
        }
        _ => {
            let rendered = error.to_string();
            let first = rendered.lines().next().unwrap_or_default();
            ConfigError::Usage {
                argument: if argument.is_empty() { "an argument".to_owned() } else { argument },
                reason: first.trim_start_matches("error: ").to_owned(),
            }
        }
    }
}

/// Whether clap speaks of this argument, with or without its placeholder.
fn is(context: &ContextValue, argument: &str) -> bool {
    matches!(context, ContextValue::String(text) if text.split(' ').next() == Some(argument))
}

/// What was meant by an unknown flag.
fn hint(flag: &str) -> String {
    match Setting::nearest(flag.trim_start_matches('-')) {
        Some(setting) => format!("did you mean {}?", setting.flag()),
        None => "see --help".to_owned(),
    }
}
