//! The machine that a run was on, without its name.

use std::fs;

use serde::Serialize;

/// What figures depend on.
#[derive(Debug, Serialize)]
pub struct Machine {
    /// As /proc/cpuinfo calls it.
    pub cpu: String,
    /// How many.
    pub cores: usize,
    /// In MiB.
    pub memory_mib: u64,
    /// Linux and its version, without its builder's part.
    pub kernel: String,
    /// The distribution.
    pub system: String,
}

impl Machine {
    /// This one.
    pub fn this() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let (cpuinfo, meminfo, release) = (read("/proc/cpuinfo"), read("/proc/meminfo"), read("/etc/os-release"));
        let field = |text: &str, name: &str| {
            let value =
                text.lines().find_map(|line| Some(line.strip_prefix(name)?.trim_start_matches(['\t', ' ', ':', '='])));
            value.map_or_else(|| "unknown".to_owned(), |value| value.trim_matches('"').to_owned())
        };
        let memory_kb = field(&meminfo, "MemTotal").trim_end_matches(" kB").parse().unwrap_or(0);
        Self {
            cpu: field(&cpuinfo, "model name"),
            cores: cpuinfo.lines().filter(|line| line.starts_with("processor")).count(),
            memory_mib: memory_kb / 1024,
            kernel: format!("Linux {}", version(&read("/proc/sys/kernel/osrelease"))),
            system: field(&release, "PRETTY_NAME"),
        }
    }
}

/// What is before the first `-`: behind it is who has built it, and how often.
fn version(release: &str) -> &str {
    release.trim().split('-').next().unwrap_or_default()
}
