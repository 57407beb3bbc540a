//! Rules of the near-cache by key pattern: `[[cache.rule]]` in the file of settings.

use std::time::Duration;

use toml::Spanned;
use toml::de::DeValue;

use super::file::File;
use super::{ConfigError, units};
use crate::commands::cached::reads::{self, READS};
use crate::glob::GlobSet;

/// Rules of a file at most: each read that misses is held against all of them.
const MOST_RULES: usize = 1000;
const ALLOWED: &str = "match (a pattern, or an array of them), cache (true or false), commands (an array of reads), \
                       max-age (a time from 10ms to 365d) and max-item-size (a size from 1B to 512MiB)";

/// How keys are cached.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    rules: Vec<Rule>,
    /// Of all rules, and of which each is.
    patterns: GlobSet,
    owners: Vec<usize>,
    /// Of keys that no rule matches.
    default: Rule,
}

/// How the keys that match its patterns are cached. The first rule that matches counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    /// As Redis has them; of the default none.
    pub(crate) patterns: Vec<String>,
    /// Whether anything is.
    cache: bool,
    /// Of which commands, by number; `None`: of all that can be.
    commands: Option<[bool; READS.len()]>,
    /// How long at most.
    pub(crate) max_age: Duration,
    /// How large the reply may be.
    pub(crate) max_item_size: usize,
}

/// A rule as it stands in the file: what it does not say is as the settings say.
#[derive(Clone, Debug)]
pub(super) struct Given {
    patterns: Vec<String>,
    cache: bool,
    commands: Option<[bool; READS.len()]>,
    max_age: Option<Duration>,
    max_item_size: Option<usize>,
}

impl Rules {
    pub(super) fn new(given: &[Given], max_age: Duration, max_item_size: usize) -> Self {
        let default = Rule { patterns: Vec::new(), cache: true, commands: None, max_age, max_item_size };
        let rules: Vec<Rule> = given
            .iter()
            .map(|given| Rule {
                patterns: given.patterns.clone(),
                cache: given.cache,
                commands: given.commands,
                max_age: given.max_age.unwrap_or(max_age),
                max_item_size: given.max_item_size.unwrap_or(max_item_size),
            })
            .collect();
        let numbered =
            || rules.iter().enumerate().flat_map(|(at, rule)| rule.patterns.iter().map(move |text| (at, text)));
        let patterns =
            GlobSet::new(numbered().map(|(_, text)| text.as_bytes())).expect("they were tried when they were read");
        Rules { owners: numbered().map(|(at, _)| at).collect(), patterns, default, rules }
    }

    /// The rule that counts for a key; its number in the file, from 1, or 0 if none matches.
    pub(crate) fn of(&self, key: &[u8]) -> (usize, &Rule) {
        if self.rules.is_empty() {
            return (0, &self.default);
        }
        match self.patterns.first(key) {
            Some(pattern) => (self.owners[pattern] + 1, &self.rules[self.owners[pattern]]),
            None => (0, &self.default),
        }
    }

    /// The longest that any of them allows.
    pub(crate) fn longest_age(&self) -> Duration {
        self.all().map(|rule| rule.max_age).max().unwrap_or_default()
    }

    /// The largest reply that any of them allows.
    pub(crate) fn largest_item(&self) -> usize {
        self.all().map(|rule| rule.max_item_size).max().unwrap_or_default()
    }

    /// Whether a rule allows larger ones than the settings do for keys without a rule.
    pub(super) fn has_larger_items(&self) -> bool {
        self.largest_item() > self.default.max_item_size
    }

    fn all(&self) -> impl Iterator<Item = &Rule> {
        self.rules.iter().chain([&self.default])
    }
}

#[cfg(test)]
impl Default for Rule {
    fn default() -> Self {
        let max_age = Duration::from_secs(60);
        Rule { patterns: Vec::new(), cache: true, commands: None, max_age, max_item_size: 1 << 20 }
    }
}

impl Rule {
    /// Whether replies of the command of this number are cached.
    pub(crate) fn caches(&self, command: u8) -> bool {
        self.cache && self.commands.is_none_or(|commands| commands[usize::from(command)])
    }
}

/// The rules in the value of the key `cache`, and all that is wrong with them.
pub(super) fn parse(file: &File<'_>, cache: &Spanned<DeValue<'_>>) -> (Vec<Given>, Vec<ConfigError>) {
    let wrong = |value, reason: &str| (Vec::new(), vec![file.refuse("cache", value, reason)]);
    let DeValue::Table(table) = cache.get_ref() else { return wrong(cache, "expected tables [[cache.rule]]") };
    let mut found = (Vec::new(), Vec::new());
    for (key, value) in table {
        match value.get_ref() {
            DeValue::Array(rules) if key.get_ref() == "rule" && rules.len() <= MOST_RULES => {
                for rule in rules {
                    match self::rule(file, rule) {
                        Ok(rule) => found.0.push(rule),
                        Err(error) => found.1.push(error),
                    }
                }
            }
            DeValue::Array(_) if key.get_ref() == "rule" => {
                found.1.push(file.refuse("cache.rule", value, &format!("expected at most {MOST_RULES} rules")));
            }
            _ => {
                found.1.push(file.refuse(&format!("cache.{}", key.get_ref()), value, "expected tables [[cache.rule]]"))
            }
        }
    }
    let patterns = found.0.iter().flat_map(|rule| &rule.patterns).map(|text| text.as_bytes());
    if GlobSet::new(patterns).is_none() {
        return wrong(cache, "the patterns are too long, one or all of them together");
    }
    found
}

fn rule(file: &File<'_>, value: &Spanned<DeValue<'_>>) -> Result<Given, ConfigError> {
    let DeValue::Table(table) = value.get_ref() else {
        return Err(file.refuse("cache.rule", value, "expected a table"));
    };
    let mut rule = Given { patterns: Vec::new(), cache: true, commands: None, max_age: None, max_item_size: None };
    for (key, value) in table {
        let name = format!("cache.rule.{}", key.get_ref());
        let refused = |expected: &str| file.refuse(&name, value, &format!("expected {expected}"));
        match key.get_ref().as_ref() {
            "match" => rule.patterns = texts(value).ok_or_else(|| refused("a pattern, or an array of them"))?,
            "cache" => rule.cache = boolean(value).ok_or_else(|| refused("true or false"))?,
            "commands" => rule.commands = Some(commands(value).map_err(|expected| refused(&expected))?),
            "max-age" => {
                rule.max_age = Some(age(value).ok_or_else(|| refused("a time from 10ms to 365d such as \"5s\""))?)
            }
            "max-item-size" => {
                let size = item_size(value).ok_or_else(|| refused("a size from 1B to 512MiB such as \"64KiB\""))?;
                rule.max_item_size = Some(size);
            }
            _ => return Err(file.unknown(&name, key.span().start, format!("a rule has {ALLOWED}"))),
        }
    }
    if rule.patterns.is_empty() {
        return Err(file.refuse("cache.rule", value, "expected match, the patterns of the keys it is for"));
    }
    Ok(rule)
}

fn texts(value: &Spanned<DeValue<'_>>) -> Option<Vec<String>> {
    match value.get_ref() {
        DeValue::String(text) => Some(vec![text.to_string()]),
        DeValue::Array(elements) => {
            elements.iter().map(|element| Some(element.get_ref().as_str()?.to_owned())).collect()
        }
        _ => None,
    }
}

fn boolean(value: &Spanned<DeValue<'_>>) -> Option<bool> {
    match value.get_ref() {
        DeValue::Boolean(truth) => Some(*truth),
        _ => None,
    }
}

/// The error: what is expected.
fn commands(value: &Spanned<DeValue<'_>>) -> Result<[bool; READS.len()], String> {
    let names = texts(value).ok_or("an array of commands such as [\"get\", \"hgetall\"]")?;
    let mut all = [false; READS.len()];
    for name in names {
        let number = reads::number(&name.to_ascii_lowercase()).ok_or_else(|| {
            let known: Vec<&str> = READS.iter().map(|read| read.name).collect();
            format!("commands that can be cached, which {name:?} cannot: {}", known.join(", "))
        })?;
        all[usize::from(number)] = true;
    }
    Ok(all)
}

fn age(value: &Spanned<DeValue<'_>>) -> Option<Duration> {
    let (least, most) = (Duration::from_millis(10), Duration::from_secs(365 * 86_400));
    units::duration(value.get_ref().as_str()?).filter(|age| (least..=most).contains(age))
}

fn item_size(value: &Spanned<DeValue<'_>>) -> Option<usize> {
    let size = match value.get_ref() {
        DeValue::String(text) => units::size(text),
        DeValue::Integer(integer) if integer.radix() == 10 => units::number(integer.as_str()),
        _ => None,
    };
    size.filter(|size| (1..=512 << 20).contains(size)).and_then(|size| size.try_into().ok())
}
