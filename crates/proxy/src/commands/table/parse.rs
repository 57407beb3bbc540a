//! Reads `core.txt`; its head documents the notation.

use super::flags::Flags;
use super::keys::{Access, Begin, Find, KeySpec};
use super::{Command, Effect, Route};

/// The commands of a table's text, or the first line that is wrong, and how.
pub(super) fn commands(text: &str) -> Result<Vec<Command>, String> {
    let lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));
    lines.map(|(number, line)| command(line).map_err(|error| format!("line {number}: {error}"))).collect()
}

fn command(line: &str) -> Result<Command, String> {
    let columns: Vec<&str> = line.split_whitespace().collect();
    let [name, arity, route, effect, keys, flags] = columns[..] else {
        return Err(format!("{} columns instead of 6", columns.len()));
    };
    Ok(Command::new(
        name.into(),
        arity.parse().map_err(|_| format!("`{arity}` is not an arity"))?,
        listed(flags).try_fold(Flags::default(), |all, flag| {
            Flags::named(flag).map(|flag| all.with(flag)).ok_or_else(|| format!("`{flag}` is not a flag"))
        })?,
        named(&Effect::NAMES, effect).ok_or_else(|| format!("`{effect}` is not an effect"))?,
        named(&Route::NAMES, route).ok_or_else(|| format!("`{route}` is not a route"))?,
        listed(keys)
            .map(|spec| key_spec(spec).ok_or_else(|| format!("`{spec}` is not a key's place")))
            .collect::<Result<_, _>>()?,
    ))
}

/// The elements of a comma-separated list; `-` is the empty one.
fn listed(column: &str) -> impl Iterator<Item = &str> {
    column.split(',').filter(|element| *element != "-")
}

fn named<T: Copy>(names: &[(&str, T)], name: &str) -> Option<T> {
    names.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
}

fn key_spec(text: &str) -> Option<KeySpec> {
    let (access, place) = text.split_once('=')?;
    let access = match access {
        "r" => Access::Read,
        "w" => Access::Write,
        "c" => Access::Channel,
        _ => return None,
    };
    let (begin, find) = if let Some(count) = place.strip_prefix("numkeys@") {
        (Begin::At(count.parse().ok()?), Find::Counted { count: 0, first: 1, step: 1 })
    } else if let Some(option) = place.strip_prefix("half-after") {
        let (words, from) = option_words(option)?;
        (Begin::AfterFirst { words, from }, Find::Share { parts: 2, step: 1 })
    } else if let Some(option) = place.strip_prefix("all-after") {
        let (words, from) = option_words(option)?;
        (Begin::AfterFirst { words, from }, Find::Range { last: -1, step: 1 })
    } else if let Some(option) = place.strip_prefix("last-after") {
        let (words, from) = option_words(option)?;
        (Begin::AfterLast { words, from }, Find::Range { last: 0, step: 1 })
    } else {
        range(place)?
    };
    Some(KeySpec { access, begin, find })
}

/// `(A|B)@5`
fn option_words(text: &str) -> Option<(Box<[Box<str>]>, usize)> {
    let (words, from) = text.strip_prefix('(')?.split_once(")@")?;
    Some((words.split('|').map(Box::from).collect(), from.parse().ok()?))
}

/// `first[:last][/step]`
fn range(text: &str) -> Option<(Begin, Find)> {
    let (ends, step) = text.split_once('/').unwrap_or((text, "1"));
    let (first, last) = ends.split_once(':').unwrap_or((ends, ends));
    let (first, last): (usize, isize) = (first.parse().ok()?, last.parse().ok()?);
    let last = if last < 0 { last } else { last.checked_sub_unsigned(first)? };
    let step = step.parse().ok().filter(|step| *step > 0)?;
    Some((Begin::At(first), Find::Range { last, step }))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_line_is_told_with_its_number() {
        let error = |line: &str| commands(&format!("# a comment\n\n{line}\n")).unwrap_err();
        assert_eq!(error("get 2 cached read r=1"), "line 3: 5 columns instead of 6");
        assert_eq!(error("get two cached read r=1 fast"), "line 3: `two` is not an arity");
        assert_eq!(error("get 2 cashed read r=1 fast"), "line 3: `cashed` is not a route");
        assert_eq!(error("get 2 cached reads r=1 fast"), "line 3: `reads` is not an effect");
        assert_eq!(error("get 2 cached read r=1 fast,furious"), "line 3: `furious` is not a flag");
        for place in ["1", "x=1", "r=", "r=1:", "r=1/0", "r=numkeys@", "r=half-after(A)", "r=last-after(A@1", "w=2:x"] {
            let line = format!("get 2 cached read {place} fast");
            assert_eq!(error(&line), format!("line 3: `{place}` is not a key's place"));
        }
    }
}
