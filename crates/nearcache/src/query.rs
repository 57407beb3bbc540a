//! One read, kept while it is fetched.

use std::sync::Arc;

use crate::entry::Scope;

/// A key and a scope. Cloning it counts a reference.
#[derive(Clone)]
pub(crate) struct Query {
    /// The key, and behind it the arguments.
    bytes: Arc<[u8]>,
    key_len: usize,
    user: u16,
    db: u16,
    command: u8,
}

impl Query {
    pub(crate) fn new(key: &[u8], scope: Scope<'_>) -> Self {
        let Scope { user, db, command, arguments } = scope;
        let bytes = if arguments.is_empty() { key.into() } else { [key, arguments].concat().into() };
        Self { bytes, key_len: key.len(), user, db, command }
    }

    pub(crate) fn key(&self) -> &[u8] {
        &self.bytes[..self.key_len]
    }

    pub(crate) fn scope(&self) -> Scope<'_> {
        let arguments = &self.bytes[self.key_len..];
        Scope { user: self.user, db: self.db, command: self.command, arguments }
    }

    pub(crate) fn is(&self, key: &[u8], scope: Scope<'_>) -> bool {
        self.key() == key && self.scope() == scope
    }
}
