//! How often which command was compared, for the page that shows it (`docs/compatibility.md`).

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write;

use serde_json::json;

use crate::redis_server::RedisServer;

/// Commands compared, by their first two words in lower case and the protocol.
#[derive(Debug, Default)]
pub struct Tally(BTreeMap<(String, String, bool), Count>);

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    compared: usize,
    errors: usize,
}

/// A file to which results are appended, one JSON object a line.
const RESULTS: &str = "NEARSIDE_TEST_RESULTS";

/// Tells the file of results what is not compared: on which upstreams of this server, why, and which commands.
///
/// # Panics
/// When the file cannot be written.
pub fn write_left_out(server: &RedisServer, upstreams: &[&str], reason: &str, commands: &[&str]) {
    let (version, known) = (server.version(), server.commands());
    let is_meant = |name: &&String| {
        let container = name.split('|').next().unwrap_or_default();
        commands.contains(&name.as_str()) || commands.contains(&container)
    };
    let names = known.iter().filter(is_meant).collect::<Vec<_>>();
    let line = json!({ "server": version, "left_out": reason, "upstreams": upstreams, "commands": names });
    append(&format!("{line}\n"));
}

fn append(lines: &str) {
    let Ok(path) = std::env::var(RESULTS) else { return };
    let file = File::options().create(true).append(true).open(path);
    // At once: other tests write, too.
    file.and_then(|mut file| file.write_all(lines.as_bytes())).expect("the file of results can be written");
}

impl Tally {
    /// One more command whose replies were the same.
    pub fn count(&mut self, args: &[Vec<u8>], resp3: bool, is_error: bool) {
        let word = |at: usize| {
            let arg = args.get(at).map(Vec::as_slice).unwrap_or_default();
            String::from_utf8_lossy(arg).to_ascii_lowercase()
        };
        let count = self.0.entry((word(0), word(1), resp3)).or_default();
        count.compared += 1;
        count.errors += usize::from(is_error);
    }

    /// Adds the commands that `server` has to the file that `NEARSIDE_TEST_RESULTS` names; without it nothing is written.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub fn write(&self, upstream: &str, server: &RedisServer) {
        let version = server.version();
        let lines = self.by_command(&server.commands()).into_iter().map(|((command, resp3), count)| {
            let protocol = if resp3 { "RESP3" } else { "RESP2" };
            let line = json!({
                "server": version, "upstream": upstream, "protocol": protocol,
                "command": command, "compared": count.compared, "errors": count.errors,
            });
            format!("{line}\n")
        });
        append(&lines.collect::<String>());
    }

    fn by_command(&self, known: &BTreeSet<String>) -> BTreeMap<(String, bool), Count> {
        let mut commands = BTreeMap::<_, Count>::new();
        for ((name, second, resp3), count) in &self.0 {
            let with_subcommand = format!("{name}|{second}");
            let Some(command) = [&with_subcommand, name].into_iter().find(|name| known.contains(*name)) else {
                continue;
            };
            let sum = commands.entry((command.clone(), *resp3)).or_default();
            sum.compared += count.compared;
            sum.errors += count.errors;
        }
        commands
    }
}
