//! A Redis Cluster of three primaries without replicas, to put behind a proxy.

use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};

use crate::stage::contestant::redis;
use crate::stage::server::{Server, free_address};

const NODES: usize = 3;
const SLOTS: usize = 16384;

/// How long the nodes may take to agree.
const MEET_TIMEOUT: Duration = Duration::from_secs(20);

/// The nodes, killed on drop.
#[derive(Debug)]
pub struct Cluster(Vec<Server>);

impl Cluster {
    /// Starts one of `program`, a redis-server, all of it on `core`.
    pub fn start(program: &Path, core: usize) -> anyhow::Result<Self> {
        let nodes = (0..NODES).map(|_| start_node(program, core)).collect::<anyhow::Result<Vec<_>>>()?;
        let cluster = Self(nodes);
        for (index, node) in cluster.0.iter().enumerate() {
            let (first, end) = (SLOTS * index / NODES, SLOTS * (index + 1) / NODES);
            order(node, &format!("CLUSTER ADDSLOTSRANGE {first} {}", end - 1))?;
            order(node, &format!("CLUSTER SET-CONFIG-EPOCH {}", index + 1))?;
        }
        for node in &cluster.0[1..] {
            let (address, bus) = (node.address(), bus_port(node)?);
            order(&cluster.0[0], &format!("CLUSTER MEET {} {} {bus}", address.ip(), address.port()))?;
        }
        cluster.wait_until_all_agree()?;
        Ok(cluster)
    }

    fn wait_until_all_agree(&self) -> anyhow::Result<()> {
        let began = Instant::now();
        while !self.0.iter().map(knows_all).collect::<io::Result<Vec<_>>>()?.into_iter().all(|knows| knows) {
            if began.elapsed() > MEET_TIMEOUT {
                bail!("the nodes of the cluster did not agree within {MEET_TIMEOUT:?}");
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Its nodes.
    pub fn nodes(&self) -> &[Server] {
        &self.0
    }
}

/// A node that knows no other yet.
fn start_node(program: &Path, core: usize) -> anyhow::Result<Server> {
    let bus = free_address()?.port().to_string();
    Server::start(program, core, |place, command| {
        redis(place, command)?;
        command.args(["--cluster-enabled", "yes", "--cluster-port", &bus]);
        Ok(())
    })
}

/// The port by which the nodes know this one: what `CLUSTER NODES` says after its address.
fn bus_port(node: &Server) -> anyhow::Result<String> {
    let reply = ask(node, "CLUSTER NODES")?;
    let port = reply.split('@').nth(1).map(|rest| rest.chars().take_while(char::is_ascii_digit).collect::<String>());
    match port {
        Some(port) if !port.is_empty() => Ok(port),
        _ => bail!("CLUSTER NODES gives no bus port: {reply:?}"),
    }
}

fn knows_all(node: &Server) -> io::Result<bool> {
    let info = ask(node, "CLUSTER INFO")?;
    Ok(info.contains("cluster_state:ok") && info.contains(&format!("cluster_known_nodes:{NODES}")))
}

fn order(node: &Server, command: &str) -> anyhow::Result<()> {
    let reply = ask(node, command)?;
    ensure!(reply.starts_with("+OK"), "{command}: {reply}");
    Ok(())
}

/// An inline command; the reply is short enough to come at once.
fn ask(node: &Server, command: &str) -> io::Result<String> {
    let reply = node.ask(format!("{command}\r\n").as_bytes())?;
    Ok(String::from_utf8_lossy(&reply).into_owned())
}
