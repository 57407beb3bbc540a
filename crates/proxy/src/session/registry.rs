//! All clients of the process, whatever worker they live on: what CLIENT LIST shows and CLIENT KILL finds.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nearside_nearcache::Time;

use crate::topology::Node;

/// What is known of a client outside of its session. Written by its own worker, read by any.
#[derive(Debug)]
pub(crate) struct Client {
    /// Grows with every connection; never used twice.
    pub(crate) id: u64,
    /// The worker it lives on.
    pub(crate) worker: usize,
    /// Its address as Redis prints it.
    pub(crate) address: String,
    /// The listener's address it came to.
    pub(crate) local_address: String,
    /// It came over a Unix socket.
    pub(crate) unix: bool,
    /// The number of its file descriptor.
    pub(crate) fd: i32,
    /// When it connected.
    pub(crate) since: Time,
    /// When it last sent something, in nanoseconds as [`Time`].
    pub(crate) active: AtomicU64,
    pub(crate) db: AtomicU32,
    pub(crate) resp3: AtomicBool,
    /// CLIENT NO-EVICT was set.
    pub(crate) no_evict: AtomicBool,
    /// CLIENT NO-TOUCH was set.
    pub(crate) no_touch: AtomicBool,
    /// Channels it has subscribed to.
    pub(crate) channels: AtomicU32,
    /// And patterns.
    pub(crate) patterns: AtomicU32,
    /// And shard channels.
    pub(crate) shard_channels: AtomicU32,
    /// MONITOR is on.
    pub(crate) monitors: AtomicBool,
    /// The number of the command it ran last (`Command::number`); 0: none, or one that does not exist.
    pub(crate) command: AtomicU32,
    /// Memory of its unfinished request, in bytes.
    pub(crate) input: AtomicU64,
    /// Bytes it has not read.
    pub(crate) output: AtomicU64,
    killed: AtomicBool,
    waiting: Mutex<Option<Waiting>>,
    texts: Mutex<Texts>,
}

/// Where a client waits.
#[derive(Debug)]
enum Waiting {
    /// At a server: BLPOP and its like.
    AtNode {
        node: Arc<Node>,
        /// The number by which the node knows the connection.
        number: i64,
        /// Somebody is about to end the waiting.
        is_sought: bool,
    },
    /// For what the proxy asks for again and again: WAIT in a cluster.
    Here {
        /// Somebody has ended the waiting.
        unblocked: Option<Unblocked>,
    },
}

/// What CLIENT UNBLOCK has a client be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unblocked {
    /// As if its time were up.
    ByTimeout,
    ByError,
}

/// What a client calls itself.
#[derive(Debug, Clone, Default)]
pub(crate) struct Texts {
    /// CLIENT SETNAME.
    pub(crate) name: Vec<u8>,
    /// As whom it has logged in; empty: `default`.
    pub(crate) user: Vec<u8>,
    /// CLIENT SETINFO LIB-NAME.
    pub(crate) library: Vec<u8>,
    /// CLIENT SETINFO LIB-VER.
    pub(crate) library_version: Vec<u8>,
}

impl Client {
    /// A client that has just connected.
    pub(crate) fn new(id: u64, worker: usize, stream: &crate::net::socket::Stream, now: Time) -> Self {
        let (address, local_address) = stream.addresses();
        Client {
            id,
            worker,
            address,
            local_address,
            unix: matches!(stream, crate::net::socket::Stream::Unix(_)),
            fd: std::os::fd::AsRawFd::as_raw_fd(stream),
            since: now,
            active: AtomicU64::new(now.0),
            db: AtomicU32::new(0),
            resp3: AtomicBool::new(false),
            no_evict: AtomicBool::new(false),
            no_touch: AtomicBool::new(false),
            channels: AtomicU32::new(0),
            patterns: AtomicU32::new(0),
            shard_channels: AtomicU32::new(0),
            monitors: AtomicBool::new(false),
            command: AtomicU32::new(0),
            input: AtomicU64::new(0),
            output: AtomicU64::new(0),
            killed: AtomicBool::new(false),
            waiting: Mutex::default(),
            texts: Mutex::default(),
        }
    }

    /// What it calls itself, to be read or changed.
    pub(crate) fn texts(&self) -> MutexGuard<'_, Texts> {
        self.texts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The user it has logged in as.
    pub(crate) fn is_user(&self, name: &[u8]) -> bool {
        let texts = self.texts();
        if texts.user.is_empty() { name == b"default" } else { texts.user == name }
    }

    /// CLIENT SETNAME.
    pub(crate) fn set_name(&self, name: &[u8]) {
        self.texts().name = name.to_vec();
    }

    /// AUTH.
    pub(crate) fn set_user(&self, name: &[u8]) {
        self.texts().user = if name == b"default" { Vec::new() } else { name.to_vec() };
    }

    /// RESET: no name, no user, no flags, nothing subscribed to. The library behind the connection stays what it is.
    pub(crate) fn reset(&self) {
        self.set_name(b"");
        self.set_user(b"");
        self.no_evict.store(false, Relaxed);
        self.no_touch.store(false, Relaxed);
        [&self.channels, &self.patterns, &self.shard_channels].iter().for_each(|count| count.store(0, Relaxed));
        self.monitors.store(false, Relaxed);
    }

    /// It has subscribed to something.
    pub(crate) fn is_subscribed(&self) -> bool {
        [&self.channels, &self.patterns, &self.shard_channels].iter().any(|count| count.load(Relaxed) > 0)
    }

    /// It sent something at `active`, and ran the command of this number last. Called once a turn, however many commands
    /// that ran: two plain stores.
    #[inline]
    pub(crate) fn show(&self, active: Time, command: u32) {
        self.active.store(active.0, Relaxed);
        self.command.store(command, Relaxed);
    }

    /// This many bytes are held of what it sent, and for it to read.
    #[inline]
    pub(crate) fn hold(&self, input: usize, output: usize) {
        self.input.store(input as u64, Relaxed);
        self.output.store(output as u64, Relaxed);
    }

    /// CLIENT KILL: from now on it counts as gone, and its session runs nothing more. False if it was killed before.
    pub(crate) fn kill(&self) -> bool {
        !self.killed.swap(true, Relaxed)
    }

    /// It waits at this node, which knows its connection by this number.
    pub(crate) fn waits_at(&self, node: &Arc<Node>, number: i64) {
        *self.waiting() = Some(Waiting::AtNode { node: Arc::clone(node), number, is_sought: false });
    }

    /// It waits for what the proxy finds out.
    pub(crate) fn waits_here(&self) {
        *self.waiting() = Some(Waiting::Here { unblocked: None });
    }

    /// How somebody has ended that.
    pub(crate) fn unblocked(&self) -> Option<Unblocked> {
        match &*self.waiting() {
            Some(Waiting::Here { unblocked }) => *unblocked,
            _ => None,
        }
    }

    /// CLIENT UNBLOCK, if it waits for what the proxy finds out. False: it does not, or somebody was faster.
    pub(crate) fn unblock_here(&self, how: Unblocked) -> bool {
        match &mut *self.waiting() {
            Some(Waiting::Here { unblocked: unblocked @ None }) => unblocked.replace(how).is_none(),
            _ => false,
        }
    }

    /// It waits no more. True: somebody may yet tell the node to let that connection go on.
    pub(crate) fn waits_no_more(&self) -> bool {
        matches!(self.waiting().take(), Some(Waiting::AtNode { is_sought: true, .. }))
    }

    /// CLIENT UNBLOCK: where it waits, and the number of its connection there. That will not be another client's.
    pub(crate) fn seek(&self) -> Option<(Arc<Node>, i64)> {
        match &mut *self.waiting() {
            Some(Waiting::AtNode { node, number, is_sought }) => {
                *is_sought = true;
                Some((Arc::clone(node), *number))
            }
            _ => None,
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Option<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It has been killed.
    #[inline]
    pub(crate) fn is_killed(&self) -> bool {
        self.killed.load(Relaxed)
    }

    /// One that connected at time 0, of no file that is open.
    #[cfg(test)]
    pub(crate) fn for_test(id: u64) -> Self {
        let (stream, _) = std::os::unix::net::UnixStream::pair().expect("a socket pair needs two descriptors");
        let mut client = Client::new(id, 0, &crate::net::socket::Stream::Unix(stream), Time(0));
        client.address = format!("127.0.0.1:{}", 40_000 + id);
        client.local_address = "127.0.0.1:6380".to_owned();
        client.unix = false;
        client
    }
}

/// The clients, by number.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    next_id: AtomicU64,
    clients: Mutex<BTreeMap<u64, Arc<Client>>>,
}

impl Registry {
    /// Enters a client that `make` makes for the number it is given.
    pub(crate) fn enter(&self, make: impl FnOnce(u64) -> Client) -> Arc<Client> {
        let client = Arc::new(make(self.next_id.fetch_add(1, Relaxed) + 1));
        self.lock().insert(client.id, Arc::clone(&client));
        client
    }

    /// Forgets a client.
    pub(crate) fn leave(&self, id: u64) {
        self.lock().remove(&id);
    }

    /// The client of this number, if it is connected and not killed.
    pub(crate) fn get(&self, id: u64) -> Option<Arc<Client>> {
        self.lock().get(&id).filter(|client| !client.is_killed()).cloned()
    }

    /// As [`Registry::all`], without those that were killed and whose workers have not got to it.
    pub(crate) fn connected(&self) -> Vec<Arc<Client>> {
        self.lock().values().filter(|client| !client.is_killed()).cloned().collect()
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    /// All of them, by number: a copy, so that nobody waits while it is looked through.
    pub(crate) fn all(&self) -> Vec<Arc<Client>> {
        self.lock().values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Client>>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
