//! Which connections a process has, as the kernel lists them. Linux only.

use std::collections::HashSet;
use std::fs;
use std::io;

/// How many connections process `pid` has to any of `ports` of this machine, over IPv4.
pub fn connections_to(pid: u32, ports: &[u16]) -> io::Result<usize> {
    let mut own = HashSet::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        // One that was closed meanwhile has no target any more.
        let Ok(target) = fs::read_link(entry?.path()) else { continue };
        if let Some(inode) = target.to_string_lossy().strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']')) {
            own.insert(inode.to_owned());
        }
    }
    let table = fs::read_to_string(format!("/proc/{pid}/net/tcp"))?;
    let to_ports =
        table.lines().filter_map(established).filter(|(port, inode)| ports.contains(port) && own.contains(*inode));
    Ok(to_ports.count())
}

/// Remote port and inode of an established connection (Linux, Documentation/networking/proc_net_tcp).
fn established(line: &str) -> Option<(u16, &str)> {
    const ESTABLISHED: &str = "01";
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let (_, port) = fields.get(2)?.split_once(':')?;
    (*fields.get(3)? == ESTABLISHED).then_some((u16::from_str_radix(port, 16).ok()?, *fields.get(9)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn connections_are_counted_by_the_port_they_lead_to() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let streams: Vec<_> = (0..3).map(|_| TcpStream::connect(address).expect("it listens")).collect();
        let pid = std::process::id();
        assert_eq!(connections_to(pid, &[address.port()]).expect("this process is there"), 3);
        assert_eq!(connections_to(pid, &[1]).expect("this process is there"), 0);
        drop(streams);
    }
}
