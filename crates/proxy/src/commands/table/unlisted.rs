//! Entries for commands that no table has.

use std::sync::LazyLock;

use super::{Command, Effect, Flags, Route};

impl Command {
    /// One that the upstream does not have either: it will say so, and change nothing.
    pub(crate) fn absent() -> &'static Command {
        static ABSENT: LazyLock<Command> = LazyLock::new(|| unlisted(Effect::None));
        &ABSENT
    }

    /// One of which nothing is known: it may change anything.
    pub(crate) fn opaque() -> &'static Command {
        static OPAQUE: LazyLock<Command> = LazyLock::new(|| unlisted(Effect::Opaque));
        &OPAQUE
    }
}

fn unlisted(effect: Effect) -> Command {
    Command::new("?".into(), -1, Flags::default(), effect, Route::Forward, Vec::new())
}
