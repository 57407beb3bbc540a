//! What a process takes, as Linux tells it.

use std::fs;

/// Memory of this process that is resident now, in bytes.
///
/// # Panics
/// When there is no such process.
#[must_use]
pub fn resident_bytes(process: u32) -> u64 {
    status_bytes(process, "VmRSS")
}

/// The most it ever was, in bytes.
///
/// # Panics
/// When there is no such process.
#[must_use]
pub fn most_resident_bytes(process: u32) -> u64 {
    status_bytes(process, "VmHWM")
}

/// How many files it has open, connections among them.
///
/// # Panics
/// When there is no such process.
#[must_use]
pub fn open_files(process: u32) -> usize {
    fs::read_dir(format!("/proc/{process}/fd")).expect("a child that was not waited for is there").count()
}

fn status_bytes(process: u32, field: &str) -> u64 {
    let path = format!("/proc/{process}/status");
    let status = fs::read_to_string(&path).expect("a child that was not waited for is there");
    let words = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let kilobytes = words.and_then(|words| words.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    1024 * kilobytes.unwrap_or_else(|| panic!("{path} has {field} in kB:\n{status}"))
}
