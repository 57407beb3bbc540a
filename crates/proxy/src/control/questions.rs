//! Commands that the table does not have: the upstream is asked about them, and who sent one hears whether it exists.
//!
//! A client that sends garbage must not double the upstream's load: all that wait are asked about in one command, and an
//! answer holds for a second. A client must not wait for ever either: each question gets its answer, also when the
//! upstream gives none.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use nearside_resp::frame::Value;
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::time::Instant;

use super::upstream::UpstreamClient;
use crate::shared::{Message, Shared, Unknown};

/// Questions put together at most.
const BATCH: usize = 64;
/// How long an answer holds, and how long nothing is asked after the upstream failed to answer.
const VALIDITY: Duration = Duration::from_secs(1);
/// Answers remembered; all are forgotten when there are more, as most will be over anyway.
const MAX_ANSWERS: usize = 4096;

/// Answers until the channel closes.
pub(super) async fn run(shared: Arc<Shared>, upstream: Arc<UpstreamClient>, mut questions: mpsc::Receiver<Unknown>) {
    let mut answers = Answers::default();
    let mut batch = Vec::with_capacity(BATCH);
    while questions.recv_many(&mut batch, BATCH).await > 0 {
        let names = answers.missing(&batch, Instant::now());
        if !names.is_empty() {
            let reply = ask(&shared, &upstream, &names).await;
            answers.learn(names, reply.as_ref(), Instant::now());
        }
        for question in batch.drain(..) {
            let absent = answers.is_absent(&question.name);
            answer(&shared, &question, absent);
        }
    }
}

/// The upstream's answer, with an element for each name. What it knows is in the table then.
async fn ask(shared: &Shared, upstream: &UpstreamClient, names: &[String]) -> Option<Value> {
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let reply = match upstream.command_info(&names).await {
        Ok(reply) => reply,
        Err(error) => {
            tracing::warn!("the upstream could not be asked about unknown commands: {error}");
            return None;
        }
    };
    if reply.as_items()?.len() != names.len() {
        return None;
    }
    let known = shared.commands.load();
    let learned = known.with_learned(&reply);
    if learned.iter().count() > known.iter().count() {
        tracing::info!("learned of commands from the upstream, asked about {}", names.join(", "));
        shared.commands.store(Arc::new(learned));
    }
    Some(reply)
}

/// To the session's worker, which reads the table anew.
fn answer(shared: &Shared, question: &Unknown, absent: bool) {
    let mailbox = &shared.mailboxes[question.worker];
    let message = Message::Learned { session: question.session, absent };
    if let Err(TrySendError::Full(message)) = mailbox.try_send(message) {
        let mailbox = mailbox.clone();
        // Bounded by the sessions there are; a worker that has ended needs no answer.
        tokio::spawn(async move { drop(mailbox.send(message).await) });
    }
}

/// What was answered lately: whether the upstream lacks the command.
#[derive(Debug, Default)]
struct Answers {
    absent: HashMap<Vec<u8>, (bool, Instant)>,
    failed: Option<Instant>,
}

impl Answers {
    /// The names that have to be asked about, each once.
    fn missing(&mut self, questions: &[Unknown], now: Instant) -> Vec<String> {
        let is_over = |since: Instant| now - since >= VALIDITY;
        self.failed = self.failed.filter(|failed| !is_over(*failed));
        self.absent.retain(|_, (_, since)| !is_over(*since));
        if self.absent.len() > MAX_ANSWERS {
            self.absent.clear();
        }
        let mut missing = Vec::new();
        if self.failed.is_some() {
            return missing;
        }
        for question in questions {
            let Some(name) = printable(&question.name) else { continue };
            if let Entry::Vacant(entry) = self.absent.entry(question.name.clone()) {
                entry.insert((false, now));
                missing.push(name.to_owned());
            }
        }
        missing
    }

    /// Takes in the upstream's answer to `names`; `None`: it gave none.
    fn learn(&mut self, names: Vec<String>, reply: Option<&Value>, now: Instant) {
        match reply.and_then(Value::as_items) {
            Some(entries) => {
                let absent = entries.iter().map(|entry| *entry == Value::Null);
                self.absent.extend(names.into_iter().map(String::into_bytes).zip(absent.map(|absent| (absent, now))));
            }
            None => self.failed = Some(now),
        }
    }

    /// Not, as far as is known, unless the upstream has said so: a command that may exist may change anything.
    fn is_absent(&self, name: &[u8]) -> bool {
        self.absent.get(name).is_some_and(|(absent, _)| *absent)
    }
}

/// No command has another kind of name; and an upstream whose COMMAND is disabled repeats the name in its error, which
/// `fred` only takes in UTF-8.
fn printable(name: &[u8]) -> Option<&str> {
    std::str::from_utf8(name).ok().filter(|name| name.bytes().all(|byte| byte.is_ascii_graphic()))
}
