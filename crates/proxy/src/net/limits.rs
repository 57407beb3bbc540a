//! How many files the process may open: every client is one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use thiserror::Error;

/// What the limit on open files leaves room for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct FileLimit {
    /// Files the process may have open; `None`: any number.
    pub(crate) files: Option<u64>,
    /// Clients that fit: as many as were asked for, or fewer.
    pub(crate) max_clients: usize,
    /// A line for the log when they are fewer.
    pub(crate) warning: Option<String>,
}

/// There is room for no client at all.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("the limit of {files} open files leaves room for no client; raise it (ulimit -n) to {wanted}")]
pub(crate) struct TooFewFiles {
    files: u64,
    wanted: u64,
}

/// Raises the limit on open files to what `max_clients` and `others` files need, as far as the system permits. Where
/// that is not enough fewer clients are served, as Redis lowers its `maxclients`.
pub(crate) fn raise_file_limit(max_clients: usize, others: usize) -> Result<FileLimit, TooFewFiles> {
    // A client that waits, subscribes or watches has a connection upstream to itself; not all do so at once.
    let wanted = max_clients.saturating_mul(2).saturating_add(others) as u64;
    raise_to(wanted);
    fit(max_clients, others, getrlimit(Resource::Nofile).current)
}

/// Never lowers the limit. Failure shows in the limit that is then in force.
fn raise_to(wanted: u64) {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_none_or(|current| current >= wanted) {
        return;
    }
    // Only a privileged process may raise the maximum too.
    let beyond = Rlimit { current: Some(wanted), maximum: maximum.map(|maximum| maximum.max(wanted)) };
    if setrlimit(Resource::Nofile, beyond).is_err() {
        let most = maximum.map_or(wanted, |maximum| maximum.min(wanted));
        // Should this fail as well, the limit stays as it is, and `fit` says so.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum });
    }
}

fn fit(max_clients: usize, others: usize, files: Option<u64>) -> Result<FileLimit, TooFewFiles> {
    let wanted = max_clients.saturating_add(others) as u64;
    let limit = match files {
        Some(limit) if limit < wanted => limit,
        _ => return Ok(FileLimit { files, max_clients, warning: None }),
    };
    match usize::try_from(limit.saturating_sub(others as u64)) {
        Ok(fitting) if fitting > 0 => Ok(FileLimit {
            files,
            max_clients: fitting,
            warning: Some(format!(
                "max-clients is {fitting} instead of {max_clients}: the limit of open files is {limit}, \
                 raise it (ulimit -n) to {wanted}"
            )),
        }),
        _ => Err(TooFewFiles { files: limit, wanted }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_sufficient_limit_leaves_the_clients_as_asked_for() {
        for files in [None, Some(110), Some(1 << 40)] {
            assert_eq!(fit(100, 10, files), Ok(FileLimit { files, max_clients: 100, warning: None }));
        }
    }

    #[test]
    fn a_low_limit_lowers_the_clients_and_says_so() {
        let limit = fit(100, 10, Some(109)).unwrap();
        assert_eq!(limit.max_clients, 99);
        assert_eq!(
            limit.warning.as_deref(),
            Some("max-clients is 99 instead of 100: the limit of open files is 109, raise it (ulimit -n) to 110")
        );
        assert_eq!(fit(100, 10, Some(11)).unwrap().max_clients, 1);
    }

    #[test]
    fn a_limit_with_no_room_for_a_client_is_an_error() {
        for files in [0, 9, 10] {
            assert_eq!(fit(100, 10, Some(files)), Err(TooFewFiles { files, wanted: 110 }));
        }
    }

    /// One test, as the limit is the whole process's.
    #[test]
    fn the_limit_is_raised_when_possible_and_never_lowered() {
        let before = getrlimit(Resource::Nofile);
        assert_eq!(raise_file_limit(1, 0).unwrap(), FileLimit { files: before.current, max_clients: 1, warning: None });
        assert_eq!(getrlimit(Resource::Nofile).current, before.current);

        // Down by one file, which disturbs no other test, and up again.
        let current = before.current.expect("a limit to test with");
        let lower = || setrlimit(Resource::Nofile, Rlimit { current: Some(current - 1), ..before }).unwrap();
        lower();
        let clients = usize::try_from(current).unwrap() - 10;
        let raised = raise_file_limit(clients, 10).unwrap();
        assert_eq!((raised.max_clients, raised.warning), (clients, None));
        assert!(raised.files.is_none_or(|files| files >= current));

        lower();
        // More than any kernel grants: what the maximum allows is taken.
        let most = raise_file_limit(1 << 40, 0).unwrap();
        assert_eq!(most.files, before.maximum.or(Some(1 << 40)));
        assert_eq!(most.warning.is_some(), before.maximum.is_some());
        assert_eq!(getrlimit(Resource::Nofile).current, most.files);
    }
}
