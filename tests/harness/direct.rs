//! What a test asks of Redis itself, where it does not care whether that is one server or a cluster.

use crate::client::Client;
use crate::cluster_client::ClusterClient;
use crate::reply::Reply;

/// A client with nothing between it and Redis.
pub trait Direct {
    /// One request and its reply.
    ///
    /// # Panics
    /// When there is none.
    #[track_caller]
    fn ask(&mut self, args: &[&[u8]]) -> Reply;
}

impl Direct for Client {
    #[track_caller]
    fn ask(&mut self, args: &[&[u8]]) -> Reply {
        self.command(args)
    }
}

impl Direct for ClusterClient {
    #[track_caller]
    fn ask(&mut self, args: &[&[u8]]) -> Reply {
        self.command(args)
    }
}
