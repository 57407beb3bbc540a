//! What there is to run on: the CPUs and the memory that this process may use.

use std::fs;
use std::num::NonZero;
use std::thread;

/// CPUs, as affinity and a container's quota leave them.
pub(super) fn cpus() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get)
}

/// Bytes of memory: the machine's, or the container's limit if that is less; `None` where neither can be read.
pub(super) fn memory() -> Option<u64> {
    let read = |path| fs::read_to_string(path).ok();
    let machine = read("/proc/meminfo").as_deref().and_then(mem_total);
    let limits = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    // cgroups write "max", or a number larger than any memory, for no limit.
    let container = limits.into_iter().filter_map(|path| read(path)?.trim().parse().ok());
    machine.into_iter().chain(container).min()
}

/// `MemTotal:       16303428 kB`
fn mem_total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_is_found_in_meminfo() {
        let meminfo = "MemTotal:       16303428 kB\nMemFree:         1036 kB\n";
        assert_eq!(mem_total(meminfo), Some(16_303_428 * 1024));
        assert_eq!(mem_total("MemFree: 1 kB\n"), None);
        assert_eq!(mem_total("MemTotal: much\n"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_machine_has_memory() {
        assert!(memory().is_some_and(|bytes| bytes > 1 << 20));
    }
}
