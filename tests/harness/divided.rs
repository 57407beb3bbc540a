//! What one server answers to a command on keys of several slots, put together from commands on one key each.
//!
//! Written for the tests, and slow: it shares nothing with the program under test.

use std::io;

use crate::cluster_client::ClusterClient;
use crate::reply::Reply;

const CROSSSLOT: &str = "-CROSSSLOT Keys in request don't hash to the same slot\r\n";
/// The commands that a proxy may divide, and how many arguments belong to one key.
const DIVIDED: &[(&str, usize)] = &[("MGET", 1), ("MSET", 2), ("DEL", 1), ("UNLINK", 1), ("EXISTS", 1), ("TOUCH", 1)];

impl ClusterClient {
    /// As [`Self::try_command`], but what a node refuses only because its keys are of several slots is done key by key.
    pub fn try_divided(&mut self, args: &[impl AsRef<[u8]>]) -> io::Result<Reply> {
        let reply = self.try_command(args)?;
        let name = args[0].as_ref();
        let divided = DIVIDED.iter().find(|(known, _)| name.eq_ignore_ascii_case(known.as_bytes()));
        let Some((name, step)) = divided.filter(|_| reply == CROSSSLOT) else { return Ok(reply) };
        if !(args.len() - 1).is_multiple_of(*step) {
            let name = name.to_ascii_lowercase();
            return Ok(Reply(format!("-ERR wrong number of arguments for '{name}' command\r\n").into_bytes()));
        }
        let mut each = Vec::new();
        for arguments in args[1..].chunks(*step) {
            let arguments = arguments.iter().map(AsRef::as_ref);
            each.push(self.try_command(&[name.as_bytes()].into_iter().chain(arguments).collect::<Vec<_>>())?);
        }
        let first_error = each.iter().find(|reply| reply.is_error()).cloned();
        Ok(first_error.unwrap_or_else(|| Self::joined(name, &each)))
    }

    fn joined(name: &str, each: &[Reply]) -> Reply {
        match name {
            "MSET" => each[0].clone(),
            "MGET" => {
                let values = each.iter().flat_map(|reply| reply.elements()[0].0.clone());
                Reply(format!("*{}\r\n", each.len()).into_bytes().into_iter().chain(values).collect())
            }
            _ => {
                let sum = each.iter().map(|reply| reply.integer().expect("a number of keys")).sum::<i64>();
                Reply(format!(":{sum}\r\n").into_bytes())
            }
        }
    }
}
