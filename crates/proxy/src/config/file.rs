//! The file of settings: TOML, one key a setting.

use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::raw::{self, Given};
use super::settings::{Setting, Takes};
use super::{ConfigError, Origin, rules};

/// What a file says, and everything that is wrong with its keys, so that a check can name all at once.
#[derive(Default)]
pub(super) struct Said {
    pub(super) given: Vec<Given>,
    pub(super) rules: Vec<rules::Given>,
    pub(super) errors: Vec<ConfigError>,
}

/// What a file's text says.
pub(super) fn parse(path: &Path, content: &str) -> Said {
    let table = match DeTable::parse(content) {
        Ok(table) => table.into_inner(),
        Err(error) => {
            let line = error.span().map_or(1, |span| line_at(content, span.start));
            let reason = one_line(error.message());
            let error = ConfigError::Syntax { path: path.to_owned(), line, reason };
            return Said { errors: vec![error], ..Said::default() };
        }
    };
    let file = File { path, content };
    let mut said = Said::default();
    for (key, value) in table {
        match Setting::named(key.get_ref()) {
            Some(setting) => match file.given(setting, &value) {
                Ok(given) => said.given.extend(given),
                Err(error) => said.errors.push(error),
            },
            None if key.get_ref() == "cache" => {
                let (rules, errors) = rules::parse(&file, &value);
                said.rules = rules;
                said.errors.extend(errors);
            }
            None => said.errors.push(file.unknown(key.get_ref(), key.span().start, hint(key.get_ref()))),
        }
    }
    said
}

/// A file being read.
pub(super) struct File<'a> {
    path: &'a Path,
    content: &'a str,
}

impl File<'_> {
    /// A value as the texts that flags would have given; an error for what no flag could give, such as a table.
    fn given(&self, setting: &'static Setting, value: &Spanned<DeValue<'_>>) -> Result<Vec<Given>, ConfigError> {
        let origin = self.origin(setting.name, value.span().start);
        match (value.get_ref(), setting.takes) {
            (DeValue::String(text), _) => Ok(raw::split(setting, text.to_string(), origin)),
            // A password must be in quotes: TOML reads the number 1_000 as 1000.
            (DeValue::Integer(integer), Takes::One) if integer.radix() == 10 => {
                Ok(raw::split(setting, integer.as_str().to_owned(), origin))
            }
            (DeValue::Boolean(boolean), Takes::One) => Ok(raw::split(setting, boolean.to_string(), origin)),
            (DeValue::Array(elements), Takes::Many) if elements.is_empty() => {
                Ok(raw::split(setting, String::new(), origin))
            }
            (DeValue::Array(elements), Takes::Many) => {
                let elements = elements.iter().map(|element| self.given(setting, element));
                Ok(elements.collect::<Result<Vec<_>, _>>()?.concat())
            }
            _ => {
                let text = self.content[value.span()].to_owned();
                Err(Given { setting, text, origin }.refused(format_args!("expected {}", setting.allowed)))
            }
        }
    }

    /// The error that a value is not acceptable.
    pub(super) fn refuse(&self, key: &str, value: &Spanned<DeValue<'_>>, reason: &str) -> ConfigError {
        let origin = self.origin(key, value.span().start);
        let value = format!("{:?}", one_line(&self.content[value.span()]));
        ConfigError::Value { origin, value, reason: reason.to_owned() }
    }

    /// The error that there is no such key.
    pub(super) fn unknown(&self, key: &str, at: usize, hint: String) -> ConfigError {
        ConfigError::Unknown { origin: self.origin(key, at), hint }
    }

    fn origin(&self, key: &str, at: usize) -> Origin {
        Origin::File { key: key.to_owned(), path: self.path.to_owned(), line: line_at(self.content, at) }
    }
}

/// What was meant by an unknown key.
fn hint(key: &str) -> String {
    match Setting::nearest(key) {
        Some(setting) => format!("did you mean {}?", setting.name),
        None => "see nearside --help".to_owned(),
    }
}

/// The line, from 1, that byte `at` stands in.
fn line_at(content: &str, at: usize) -> usize {
    1 + content.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count()
}

fn one_line(text: &str) -> String {
    text.lines().map(str::trim).collect::<Vec<_>>().join(", ")
}
