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

use super::clients::Clients;
use super::seldom::Seldom;
use super::upstream::UpstreamError;
use crate::session::state::Learned;
use crate::shared::{Message, Shared, Unknown};

/// Questions put together at most.
const BATCH: usize = 64;
/// How long an answer holds, and how long nothing is asked after the upstream failed to answer.
const VALIDITY: Duration = Duration::from_secs(1);
/// Answers remembered; all are forgotten when there are more, as most will be over anyway.
const MAX_ANSWERS: usize = 4096;

/// Answers until the channel closes.
pub(super) async fn run(shared: Arc<Shared>, upstream: Arc<Clients>, mut questions: mpsc::Receiver<Unknown>) {
    let mut answers = Answers::default();
    let mut trouble = Seldom::default();
    let mut batch = Vec::with_capacity(BATCH);
    while questions.recv_many(&mut batch, BATCH).await > 0 {
        let names = answers.missing(&batch, Instant::now());
        if !names.is_empty() {
            let reply = match upstream.any() {
                Some(client) => client.command_info(&names).await,
                None => Err(UpstreamError::Failed("no server is known yet".to_owned())),
            };
            if let Err(error) = &reply
                && trouble.is_due()
            {
                tracing::warn!("the upstream could not be asked about unknown commands: {error}");
            }
            let reply = reply.ok().filter(|reply| reply.as_items().is_some_and(|entries| entries.len() == names.len()));
            if let Some(reply) = &reply {
                extend_table(&shared, reply);
            }
            answers.learn(&names, reply.as_ref(), Instant::now());
        }
        for question in batch.drain(..) {
            answer(&shared, &question, answers.of(&question.name));
        }
    }
}

/// Most answers bring nothing: the command does not exist.
fn extend_table(shared: &Shared, reply: &Value) {
    let known = shared.commands.load();
    let extended = known.with_learned(reply).for_scripts(shared.config.script_fence);
    let learned = extended.iter().count() - known.iter().count();
    if learned > 0 {
        tracing::info!("learned of {learned} commands from the upstream");
        shared.commands.store(Arc::new(extended));
    }
}

/// To the session's worker, which reads the table anew.
fn answer(shared: &Shared, question: &Unknown, learned: Learned) {
    let mailbox = &shared.mailboxes[question.worker];
    let message = Message::Learned { session: question.session, learned };
    if let Err(TrySendError::Full(message)) = mailbox.try_send(message) {
        let mailbox = mailbox.clone();
        // Bounded by the sessions there are; a worker that has ended needs no answer.
        tokio::spawn(async move { drop(mailbox.send(message).await) });
    }
}

/// What was answered lately.
#[derive(Debug, Default)]
struct Answers {
    learned: HashMap<Vec<u8>, (Learned, Instant)>,
    failed: Option<Instant>,
}

impl Answers {
    /// The names that have to be asked about, each once.
    fn missing<'q>(&mut self, questions: &'q [Unknown], now: Instant) -> Vec<&'q str> {
        let is_over = |since: Instant| now - since >= VALIDITY;
        self.failed = self.failed.filter(|failed| !is_over(*failed));
        self.learned.retain(|_, (_, since)| !is_over(*since));
        if self.learned.len() > MAX_ANSWERS {
            self.learned.clear();
        }
        let mut missing = Vec::new();
        if self.failed.is_some() {
            return missing;
        }
        for question in questions {
            let Some(name) = printable(&question.name) else { continue };
            if let Entry::Vacant(entry) = self.learned.entry(question.name.clone()) {
                entry.insert((Learned::Answered, now));
                missing.push(name);
            }
        }
        missing
    }

    /// Takes in the upstream's answer to `names`; `None`: it gave none.
    fn learn(&mut self, names: &[&str], reply: Option<&Value>, now: Instant) {
        match reply.and_then(Value::as_items) {
            Some(entries) => {
                let learned = names.iter().zip(entries).map(|(name, entry)| {
                    let learned = match command_name(entry) {
                        _ if *entry == Value::Null => Learned::Absent,
                        Some(other) if !other.eq_ignore_ascii_case(name) => Learned::Renamed(other.into()),
                        _ => Learned::Answered,
                    };
                    (name.as_bytes().to_vec(), (learned, now))
                });
                self.learned.extend(learned);
            }
            None => self.failed = Some(now),
        }
    }

    /// It may exist unless the upstream has said that it does not, and then it may change anything.
    fn of(&self, name: &[u8]) -> Learned {
        self.learned.get(name).map_or(Learned::Answered, |(learned, _)| learned.clone())
    }
}

/// How the server itself calls a command that was asked about: with `rename-command` that is another name.
fn command_name(entry: &Value) -> Option<&str> {
    std::str::from_utf8(entry.as_items()?.first()?.as_bytes()?).ok()
}

/// No command has another kind of name; and an upstream whose COMMAND is disabled repeats the name in its error, which
/// `fred` only takes in UTF-8.
fn printable(name: &[u8]) -> Option<&str> {
    std::str::from_utf8(name).ok().filter(|name| name.bytes().all(|byte| byte.is_ascii_graphic()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio::time::{advance, timeout};

    use super::*;
    use crate::control::fixture::{self, FakeUpstream, Reaction};
    use crate::session::state::Learned::{Absent, Answered, Renamed};

    const GET_LIKE: &str = "*6\r\n$7\r\nmod.get\r\n:2\r\n*1\r\n+readonly\r\n:1\r\n:1\r\n:1\r\n";

    fn unknown(name: &str, session: u64) -> Unknown {
        Unknown { name: name.as_bytes().to_vec(), worker: 0, session }
    }

    /// Serves `questions` to the end; what the sessions of the one worker heard, in their order.
    async fn serve(upstream: &FakeUpstream, questions: Vec<Unknown>) -> (Arc<Shared>, Vec<(u64, Learned)>) {
        let (shared, mut mailboxes) = fixture::shared(&["--workers", "1", "--upstream", &upstream.url()]);
        let clients = Arc::new(Clients::new(Arc::clone(&shared)));
        let (sender, receiver) = mpsc::channel(questions.len());
        let count = questions.len();
        questions.into_iter().for_each(|question| sender.try_send(question).unwrap());
        drop(sender);
        run(Arc::clone(&shared), clients, receiver).await;
        let mut heard = Vec::new();
        for _ in 0..count {
            match timeout(Duration::from_secs(10), mailboxes[0].recv()).await.unwrap().unwrap() {
                Message::Learned { session, learned } => heard.push((session, learned)),
                _ => panic!("another message"),
            }
        }
        heard.sort_unstable_by_key(|(session, _)| *session);
        (shared, heard)
    }

    #[tokio::test]
    async fn all_that_wait_are_asked_about_at_once_and_each_session_hears_of_its_own() {
        let upstream = FakeUpstream::start(|request| match request {
            "COMMAND INFO mod.get garbage" => Reaction::say(format!("*2\r\n{GET_LIKE}*-1\r\n")),
            _ => Reaction::polite(request),
        });
        let questions = [("mod.get", 1), ("garbage", 2), ("mod.get", 3), ("garbage", 4)];
        let (shared, heard) = serve(&upstream, questions.map(|(name, session)| unknown(name, session)).into()).await;
        assert_eq!(heard, [(1, Answered), (2, Absent), (3, Answered), (4, Absent)]);
        assert_eq!(upstream.count("COMMAND INFO mod.get garbage"), 1);
        assert!(shared.commands.load().named("mod.get").is_some());
    }

    #[tokio::test]
    async fn a_session_hears_also_when_the_upstream_fails_and_then_the_command_may_exist() {
        for reaction in [Reaction::HangUp, Reaction::say("-NOPERM no\r\n"), Reaction::say("*0\r\n")] {
            let upstream = FakeUpstream::start(move |request| {
                if request.starts_with("COMMAND INFO") { reaction.clone() } else { Reaction::polite(request) }
            });
            let questions = (0..100).map(|n| unknown(&format!("c{n}"), n)).collect();
            let (_, heard) = serve(&upstream, questions).await;
            assert_eq!(heard.len(), 100);
            assert!(heard.iter().all(|(_, learned)| *learned == Answered));
            assert_eq!(upstream.count_starting("COMMAND INFO"), 1, "who has just failed is not asked at once again");
        }
    }

    #[tokio::test]
    async fn a_command_by_another_name_is_told_by_its_own() {
        let upstream = FakeUpstream::start(|request| match request {
            "COMMAND INFO other MOD.GET" => Reaction::say(format!("*2\r\n{GET_LIKE}{GET_LIKE}")),
            _ => Reaction::polite(request),
        });
        let (shared, heard) = serve(&upstream, vec![unknown("other", 1), unknown("MOD.GET", 2)]).await;
        assert_eq!(heard, [(1, Renamed("mod.get".into())), (2, Answered)]);
        assert!(shared.commands.load().named("mod.get").is_some());
    }

    #[tokio::test]
    async fn names_that_no_command_has_are_not_asked_about() {
        let upstream = FakeUpstream::start(Reaction::polite);
        let mut odd = unknown("", 1);
        odd.name = vec![0xff, b'x'];
        let (_, heard) = serve(&upstream, vec![odd, unknown("a b", 2), unknown("a\r\nb", 3)]).await;
        assert_eq!(heard, [(1, Answered), (2, Answered), (3, Answered)]);
        assert_eq!(upstream.count_starting("COMMAND INFO"), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_holds_for_a_second() {
        let mut answers = Answers::default();
        let garbage = [unknown("garbage", 1)];
        assert_eq!(answers.missing(&garbage, Instant::now()), ["garbage"]);
        answers.learn(&["garbage"], Some(&Value::Array(vec![Value::Null])), Instant::now());
        advance(VALIDITY - Duration::from_millis(1)).await;
        assert!(answers.missing(&garbage, Instant::now()).is_empty());
        assert_eq!(answers.of(b"garbage"), Absent);
        advance(Duration::from_millis(1)).await;
        assert_eq!(answers.missing(&garbage, Instant::now()), ["garbage"]);
        assert_eq!(answers.of(b"garbage"), Answered, "not known again until it is answered");
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_failure_nothing_is_asked_for_a_second() {
        let mut answers = Answers::default();
        answers.learn(&["a"], None, Instant::now());
        advance(VALIDITY - Duration::from_millis(1)).await;
        assert!(answers.missing(&[unknown("b", 1)], Instant::now()).is_empty());
        advance(Duration::from_millis(1)).await;
        assert_eq!(answers.missing(&[unknown("b", 1)], Instant::now()), ["b"]);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (mut answers, now) = (Answers::default(), Instant::now());
        for n in 0..3 * MAX_ANSWERS {
            answers.missing(&[unknown(&format!("c{n}"), 1)], now);
            assert!(answers.learned.len() <= MAX_ANSWERS + BATCH);
        }
    }

    #[tokio::test]
    async fn a_full_mailbox_gets_the_answer_once_it_is_read() {
        let (shared, mut mailboxes) = fixture::shared(&["--workers", "1"]);
        while shared.mailboxes[0].try_send(Message::Topology).is_ok() {}
        answer(&shared, &unknown("x", 7), Absent);
        let heard = async {
            loop {
                if let Some(Message::Learned { session, learned }) = mailboxes[0].recv().await {
                    return (session, learned);
                }
            }
        };
        assert_eq!(timeout(Duration::from_secs(10), heard).await.unwrap(), (7, Absent));
    }
}
