//! A child process that ends with the test, whatever way the test ends.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::patience::eventually;

/// Those that were started and have not been waited for.
static RUNNING: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

/// Kills every process that was started here and still runs: for a program that is about to end without dropping them.
pub fn end_all() {
    for id in std::mem::take(&mut *RUNNING.lock().unwrap_or_else(PoisonError::into_inner)) {
        if let Some(pid) = i32::try_from(id).ok().and_then(Pid::from_raw) {
            // An error means that it has ended by itself.
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// A running program whose output goes to a file; killed, by its id, when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with its output appended to `log`.
    pub fn spawn(mut command: Command, log: &Path) -> Self {
        let file = File::options().create(true).append(true).open(log).expect("the test's own folder is writable");
        let second = file.try_clone().expect("a second handle of an open file");
        let child = command.stdin(Stdio::null()).stdout(file).stderr(second).spawn();
        let child = child.unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
        RUNNING.lock().unwrap_or_else(PoisonError::into_inner).insert(child.id());
        Self { child, log: log.to_path_buf() }
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("a child that was not waited for still has its id");
    }

    /// Its exit status, when it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.try_wait().expect("our own child can be waited for");
        if status.is_some() {
            self.forget();
        }
        status
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait(&mut self, within: Duration) -> ExitStatus {
        eventually("the process ends", within, || self.ended())
    }

    /// Kills it as `kill -9` does, and waits until it is gone.
    pub fn kill(&mut self) {
        // An error means that it has ended by itself: what was asked for.
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.forget();
    }

    /// Its id may be another one's from now on.
    fn forget(&self) {
        RUNNING.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.child.id());
    }

    /// What it printed so far.
    #[must_use]
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
