//! One [`UpstreamClient`] for each server that the control plane has to do with.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::upstream::UpstreamClient;
use crate::config::{Credentials, Sentinels, UpstreamAddress};
use crate::shared::Shared;

/// The clients, by address.
#[derive(Debug)]
pub(super) struct Clients {
    shared: Arc<Shared>,
    login: Option<Credentials>,
    by_address: Mutex<HashMap<UpstreamAddress, Arc<UpstreamClient>>>,
    turn: AtomicUsize,
}

impl Clients {
    /// None is connected before it is asked something.
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let login = shared.config.upstream.credentials.clone();
        Clients { shared, login, by_address: Mutex::default(), turn: AtomicUsize::new(0) }
    }

    /// The same for Sentinels, which have a login of their own.
    pub(super) fn of_sentinels(shared: Arc<Shared>, sentinels: &Sentinels) -> Self {
        let login = sentinels.credentials.clone();
        Clients { shared, login, by_address: Mutex::default(), turn: AtomicUsize::new(0) }
    }

    /// The client of this server.
    pub(super) fn at(&self, address: &UpstreamAddress) -> Arc<UpstreamClient> {
        let mut clients = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(UpstreamClient::new(&self.shared.config, address, self.login.as_ref()));
        Arc::clone(clients.entry(address.clone()).or_insert_with(new))
    }

    /// The client of a server that takes commands; another one each time, if there are several. `None`: none is known yet.
    pub(super) fn any(&self) -> Option<Arc<UpstreamClient>> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let topology = self.shared.topology.load();
        match topology.nodes() {
            [] => {
                let seeds = self.shared.config.upstream.seeds();
                let seed = seeds.get(turn % seeds.len().max(1))?;
                Some(self.at(seed))
            }
            nodes => Some(self.at(nodes[turn % nodes.len()].address())),
        }
    }

    /// Closes the connections to all other servers.
    pub(super) fn keep(&self, is_kept: impl Fn(&UpstreamAddress) -> bool) {
        let mut clients = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        clients.retain(|address, _| is_kept(address));
    }
}
