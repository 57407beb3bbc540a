//! The control plane: everything that is not the path of a command. One thread, one event loop.
//!
//! It accepts connections and hands them to the workers, asks the upstream what the proxy itself wants to know, serves
//! the admin port, and ends the process in order. Nothing here may hold up a worker: the two speak through bounded
//! mailboxes and shared counters.

mod acceptor;
mod admin;
mod clients;
mod cluster;
mod drain;
#[cfg(test)]
mod fixture;
mod health;
mod logins;
mod metrics;
mod questions;
mod recency;
mod seldom;
mod sentinel;
mod signals;
mod sweep;
mod upstream;

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;

use anyhow::{Context, Result};
use tokio::runtime::Builder;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use self::admin::Admin;
use self::clients::Clients;
use self::health::Health;
use self::metrics::Exposition;
use self::signals::Signals;
use crate::config::Servers;
use crate::net::listener::{Acceptor, Listener};
use crate::shared::{Shared, Unknown};

/// Runs on this thread until SIGTERM or SIGINT, then until the workers have drained; a second signal ends the process
/// at once. The error: why it could not start.
pub(crate) fn run(
    shared: &Arc<Shared>,
    listeners: Vec<Listener>,
    admin: Vec<Listener>,
    questions: mpsc::Receiver<Unknown>,
    workers: Vec<JoinHandle<()>>,
) -> Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build().context("cannot start the control plane")?;
    runtime.block_on(serve(shared, listeners, admin, questions, workers))?;
    // A name lookup that hangs must not hold up the exit.
    runtime.shutdown_background();
    Ok(())
}

async fn serve(
    shared: &Arc<Shared>,
    listeners: Vec<Listener>,
    admin: Vec<Listener>,
    questions: mpsc::Receiver<Unknown>,
    workers: Vec<JoinHandle<()>>,
) -> Result<()> {
    let mut signals = Signals::new().context("cannot listen for signals")?;
    let greeting = greeting(shared, &listeners, &admin);
    let (listeners, admin) = (watch(listeners)?, watch(admin)?);
    let _background = start_background(shared, admin, questions);
    cluster::first_topology(shared).await;
    let accepting = acceptor::start(shared, listeners);
    // Also when nobody reads it.
    let _ = writeln!(io::stderr(), "{greeting}");

    let signal = signals.next().await;
    tracing::info!("{signal}: draining");
    drop(accepting);
    tokio::select! {
        () = drain::run(shared, &workers) => Ok(()),
        signal = signals.next() => {
            tracing::warn!("{signal} again: ending at once");
            std::process::exit(signal.exit_code());
        }
    }
}

/// What goes on until the end, the drain included.
fn start_background(shared: &Arc<Shared>, admin: Vec<Acceptor>, questions: mpsc::Receiver<Unknown>) -> JoinSet<()> {
    let clients = Arc::new(Clients::new(Arc::clone(shared)));
    let (health, pings) = Health::new(Arc::clone(shared));
    let metrics = Exposition::new(Arc::clone(shared), health.clone());
    let mut tasks = JoinSet::new();
    match &shared.config.upstream.servers {
        Servers::Standalone(address) => tasks.spawn(health::ping(clients.at(address), pings)),
        Servers::Cluster(_) => tasks.spawn(cluster::watch(Arc::clone(shared), Arc::clone(&clients), pings)),
        Servers::Sentinel(sentinels) => {
            tasks.spawn(sentinel::watch(Arc::clone(shared), sentinels.clone(), Arc::clone(&clients), pings))
        }
    };
    tasks.spawn(questions::run(Arc::clone(shared), Arc::clone(&clients), questions));
    let attempts = shared.attempts.lock().unwrap_or_else(PoisonError::into_inner).take();
    tasks.spawn(logins::run(Arc::clone(shared), attempts.expect("they are taken once")));
    if let Some(cache) = &shared.cache {
        tasks.spawn(sweep::run(Arc::clone(cache)));
        tasks.spawn(recency::run(Arc::clone(shared), Arc::clone(cache), Arc::clone(&clients)));
    }
    admin::start(&mut tasks, Admin { health, metrics }, admin);
    tasks
}

fn watch(listeners: Vec<Listener>) -> Result<Vec<Acceptor>> {
    let acceptors = listeners.into_iter().map(Acceptor::new).collect::<Result<_, _>>();
    acceptors.context("cannot watch the listeners")
}

/// The one line that is always printed: where to connect, in the form of the settings, with the ports that 0 came to.
fn greeting(shared: &Shared, listeners: &[Listener], admin: &[Listener]) -> String {
    let addresses = |listeners: &[Listener]| listeners.iter().map(Listener::to_string).collect::<Vec<_>>();
    let mut line = format!(
        "nearside {} listening on {}, upstream {}",
        env!("CARGO_PKG_VERSION"),
        addresses(listeners).join(", "),
        shared.config.upstream
    );
    for address in addresses(admin) {
        let scheme = if address.starts_with("unix:") { "" } else { "http://" };
        write!(line, ", admin {scheme}{address}").expect("a String takes everything");
    }
    line
}
