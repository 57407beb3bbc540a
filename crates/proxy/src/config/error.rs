//! What can be wrong with the settings. Every error prints as one line that says which setting, which value, what is
//! allowed, and where it was given.

use std::fmt;
use std::path::PathBuf;

use thiserror::Error;

/// Where a setting's value came from. Prints as the words to find it by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A flag, with its dashes.
    CommandLine(String),
    /// A variable.
    Environment(String),
    /// A key of the file.
    File {
        /// The key.
        key: String,
        /// The file as it was named.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
    /// The default of this setting.
    Default(&'static str),
}

/// Why there is no valid [`super::Config`], or why it cannot be carried out. One line each.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub(crate) enum ConfigError {
    /// A setting has a value that it does not allow, or that does not fit the machine or another setting.
    #[error("{origin}: bad value {value}: {reason}")]
    Value {
        /// Names the setting and the place.
        origin: Origin,
        /// As given, in quotes; a password in it is hidden.
        value: String,
        /// What is allowed, or why this is not.
        reason: String,
    },
    /// An address to listen on cannot be opened.
    #[error("{origin}: cannot listen on {address}: {reason}")]
    Listen {
        /// Where the address was given.
        origin: Origin,
        /// As a setting would write it.
        address: String,
        /// Why.
        reason: String,
    },
    /// A flag or a key that does not exist.
    #[error("{origin}: no such setting; {hint}")]
    Unknown {
        /// Names it and the place.
        origin: Origin,
        /// What to do instead.
        hint: String,
    },
    /// The file of settings cannot be read.
    #[error("{origin}: cannot read {path:?}: {reason}")]
    Unreadable {
        /// Where the file was named.
        origin: Origin,
        /// Its name.
        path: PathBuf,
        /// The system's words.
        reason: String,
    },
    /// The file of settings is not TOML.
    #[error("{} line {line}: {reason}", path.display())]
    Syntax {
        /// The file as it was named.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What a parser says.
        reason: String,
    },
    /// The command line makes no sense in another way.
    #[error("{} on the command line: {reason}", argument.escape_debug())]
    Usage {
        /// The argument at fault.
        argument: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl ConfigError {
    /// The line of the file that is wrong; 0 when the error is not in a file.
    pub(super) fn line(&self) -> usize {
        match self {
            ConfigError::Value { origin: Origin::File { line, .. }, .. }
            | ConfigError::Unknown { origin: Origin::File { line, .. }, .. }
            | ConfigError::Syntax { line, .. } => *line,
            _ => 0,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::CommandLine(flag) => write!(f, "{} on the command line", flag.escape_debug()),
            Origin::Environment(variable) => write!(f, "{variable} in the environment"),
            Origin::File { key, path, line } => write!(f, "{} in {} line {line}", key.escape_debug(), path.display()),
            Origin::Default(setting) => write!(f, "{setting} by default"),
        }
    }
}
