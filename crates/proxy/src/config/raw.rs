//! What was said: the texts given for each setting, and the place each came from. Whether they make sense is decided
//! in `resolve`.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::PathBuf;

use super::settings::{self, Setting, Takes};
use super::{ConfigError, Origin, flags, upstream};

/// One text given for a setting.
#[derive(Clone)]
pub(super) struct Given {
    pub(super) setting: &'static Setting,
    pub(super) text: String,
    pub(super) origin: Origin,
}

/// The texts of every setting, from the place that wins.
#[derive(Clone, Debug)]
pub(super) struct RawSettings(Vec<Given>);

/// A command line, before any setting is parsed.
pub(super) struct RawInvocation {
    pub(super) action: RawAction,
    /// The settings given by flags.
    pub(super) given: Vec<Given>,
}

pub(super) enum RawAction {
    Run { config: Option<PathBuf> },
    Check { file: PathBuf },
    Print(String),
}

impl Given {
    /// A text that may not be UTF-8: then it is an error, as no setting takes such a value.
    pub(super) fn new(setting: &'static Setting, text: OsString, origin: Origin) -> Result<Given, ConfigError> {
        let given = |text| Given { setting, text, origin };
        match text.into_string() {
            Ok(text) => Ok(given(text)),
            Err(text) => {
                Err(given(text.to_string_lossy().into_owned()).refused(format!("expected {}", setting.allowed)))
            }
        }
    }

    /// The error that this text is not acceptable.
    pub(super) fn refused(&self, reason: impl fmt::Display) -> ConfigError {
        ConfigError::Value { origin: self.origin.clone(), value: self.shown(), reason: reason.to_string() }
    }

    /// The text in quotes, on one line; passwords hidden.
    fn shown(&self) -> String {
        match self.setting.takes {
            Takes::OneSecret => "(hidden)".to_owned(),
            _ if self.setting.name == settings::UPSTREAM.name => {
                format!("{:?}", upstream::without_password(&self.text))
            }
            _ => format!("{:?}", self.text),
        }
    }
}

impl fmt::Debug for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.origin, self.shown())
    }
}

impl RawSettings {
    /// The defaults alone.
    pub(super) fn defaults() -> RawSettings {
        let default =
            |setting: &&'static Setting| split(setting, setting.default.to_owned(), Origin::Default(setting.name));
        RawSettings(settings::ALL.iter().flat_map(default).collect())
    }

    /// Everything that `given` speaks of is now as it says.
    pub(super) fn override_with(&mut self, given: Vec<Given>) {
        self.0.retain(|old| given.iter().all(|new| new.setting.name != old.setting.name));
        self.0.extend(given);
    }

    /// The texts for `setting`, at least one.
    pub(super) fn all(&self, setting: &'static Setting) -> impl Iterator<Item = &Given> {
        self.0.iter().filter(|given| given.setting.name == setting.name)
    }

    /// The text for a setting that takes one.
    pub(super) fn one(&self, setting: &'static Setting) -> &Given {
        self.all(setting).next().expect("every setting has a default, and is overridden only by something")
    }
}

/// The settings in the environment. A variable that is set to nothing counts as not set: that is how shells and
/// container tools write "leave it".
pub(super) fn environment(env: &impl Fn(&str) -> Option<OsString>) -> Result<Vec<Given>, ConfigError> {
    let mut all = Vec::new();
    for setting in settings::ALL {
        let variable = setting.variable();
        if let Some(text) = env(&variable).filter(|text| !text.is_empty()) {
            let given = Given::new(setting, text, Origin::Environment(variable))?;
            all.extend(split(setting, given.text, given.origin));
        }
    }
    Ok(all)
}

/// The file of settings that the flags or the environment name, and who named it.
pub(super) fn config_file(flag: Option<PathBuf>, env: &impl Fn(&str) -> Option<OsString>) -> Option<(PathBuf, Origin)> {
    const VARIABLE: &str = "NEARSIDE_CONFIG";
    let by_flag = flag.map(|path| (path, Origin::CommandLine(flags::CONFIG.to_owned())));
    by_flag.or_else(|| {
        let path = env(VARIABLE).filter(|path| path != OsStr::new(""))?;
        Some((path.into(), Origin::Environment(VARIABLE.to_owned())))
    })
}

/// A text as one value, or at its commas as many. An empty one stays: it may have to be refused.
pub(super) fn split(setting: &'static Setting, text: String, origin: Origin) -> Vec<Given> {
    if setting.takes != Takes::Many {
        return vec![Given { setting, text, origin }];
    }
    text.split(',').map(|part| Given { setting, text: part.trim().to_owned(), origin: origin.clone() }).collect()
}
