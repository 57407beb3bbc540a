//! CPU time to the nanosecond, and cores to spend it on.
//!
//! `/proc/PID/stat` counts in ticks of 10 ms. `schedstat` has the scheduler's own sum in nanoseconds, for each thread, so
//! a round of a second is long enough to compare contestants by. Linux only.

use std::fs;
use std::io;
use std::time::Duration;

use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

/// CPU time that the threads of process `pid` have used so far. A thread that has ended no longer counts: measure
/// servers that keep their threads.
pub fn of_process(pid: u32) -> io::Result<Duration> {
    let mut nanoseconds = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        match fs::read_to_string(task?.path().join("schedstat")) {
            Ok(line) => nanoseconds += parse_schedstat(&line)?,
            // A thread that ended between the two calls.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Duration::from_nanos(nanoseconds))
}

/// CPU time that another thread of this process, `thread`, has used so far.
pub fn of_thread(thread: Pid) -> io::Result<Duration> {
    let line = fs::read_to_string(format!("/proc/self/task/{}/schedstat", thread.as_raw_nonzero()))?;
    Ok(Duration::from_nanos(parse_schedstat(&line)?))
}

/// Time for which `core` was not idle so far, or taken by another machine (Linux, Documentation/filesystems/proc: /proc/stat).
pub fn of_core(core: usize) -> io::Result<Duration> {
    parse_core(&fs::read_to_string("/proc/stat")?, core)
}

fn parse_core(stat: &str, core: usize) -> io::Result<Duration> {
    /// Of a second, on every Linux that there is.
    const TICK: Duration = Duration::from_millis(10);
    let name = format!("cpu{core}");
    let line = stat.lines().find_map(|line| line.strip_prefix(name.as_str())?.strip_prefix(' '));
    let numbers = line.map(|line| line.split_ascii_whitespace().map(str::parse::<u32>).collect::<Result<Vec<_>, _>>());
    match numbers {
        // What it spent on guests is in the first two.
        Some(Ok(ticks)) if ticks.len() >= 8 => {
            let [user, nice, system, _idle, _waiting, interrupts, soft_interrupts, stolen] =
                [0, 1, 2, 3, 4, 5, 6, 7].map(|field| ticks[field]);
            Ok(TICK * (user + nice + system + interrupts + soft_interrupts + stolen))
        }
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, format!("/proc/stat does not tell of {name}"))),
    }
}

/// CPU time this thread has used so far.
pub fn of_this_thread() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).expect("CPU time is not negative"),
        u32::try_from(time.tv_nsec).expect("less than a second"),
    )
}

/// The cores this thread may run on, in order.
pub fn allowed_cores() -> io::Result<Vec<usize>> {
    let allowed = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core)).collect())
}

/// The cores that are switched on, whether this thread may run on them or not, in order.
pub fn online_cores() -> io::Result<Vec<usize>> {
    parse_list(fs::read_to_string("/sys/devices/system/cpu/online")?.trim())
}

/// Numbers and ranges of numbers: `0-3,8`.
fn parse_list(text: &str) -> io::Result<Vec<usize>> {
    let number = |text: &str| text.parse::<usize>().map_err(io::Error::other);
    let mut cores = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        cores.extend(number(first)?..=number(last)?);
    }
    Ok(cores)
}

/// Where everything of a comparison runs: what is measured has a core for itself.
#[derive(Clone, Debug, Serialize)]
pub struct Cores {
    /// Of the process that is measured.
    pub measured: usize,
    /// Of the load, and of whatever stands behind the measured process.
    pub load: usize,
}

impl Cores {
    /// The first two that this thread may run on. With one alone it says that the figures that `spoilt` names mean little.
    pub fn choose(spoilt: &str) -> io::Result<Self> {
        match allowed_cores()?[..] {
            [measured, load, ..] => Ok(Self { measured, load }),
            [only] => {
                println!("one core: the load runs where what it measures runs, and {spoilt} mean little");
                Ok(Self { measured: only, load: only })
            }
            [] => Err(io::Error::other("no core to run on")),
        }
    }
}

/// Keeps this thread, and what it starts from now on, on `core`.
pub fn pin_to(core: usize) -> io::Result<()> {
    let mut only = CpuSet::new();
    only.set(core);
    Ok(sched_setaffinity(None, &only)?)
}

/// Does `work` while pinned to `core`, then gives this thread its cores back. A process started by `work` stays there.
pub fn pinned_to<T>(core: usize, work: impl FnOnce() -> T) -> io::Result<T> {
    let before = sched_getaffinity(None)?;
    pin_to(core)?;
    let done = work();
    sched_setaffinity(None, &before)?;
    Ok(done)
}

/// Time on a CPU in nanoseconds, time waiting for one, number of turns: the first is asked for
/// (Linux, Documentation/scheduler/sched-stats).
fn parse_schedstat(line: &str) -> io::Result<u64> {
    line.split_ascii_whitespace()
        .next()
        .and_then(|field| field.parse().ok())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("not a schedstat line: {line:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    /// A process that does nothing but work, ended on drop.
    struct Spinner(std::process::Child);

    impl Spinner {
        fn start() -> Self {
            let mut shell = std::process::Command::new("sh");
            Self(shell.args(["-c", "while :; do :; done"]).spawn().expect("every system has sh"))
        }
    }

    impl Drop for Spinner {
        fn drop(&mut self) {
            self.0.kill().and_then(|()| self.0.wait()).expect("it never ends by itself");
        }
    }

    #[test]
    fn work_shows_in_the_cpu_time_of_its_process() {
        let spinner = Spinner::start();
        let before = of_process(spinner.0.id()).expect("it runs");
        let began = Instant::now();
        while of_process(spinner.0.id()).expect("it runs") < before + Duration::from_millis(5) {
            assert!(began.elapsed() < Duration::from_secs(30), "no CPU time was seen");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn work_shows_in_the_cpu_time_of_its_thread() {
        let before = of_this_thread();
        let began = Instant::now();
        while of_this_thread() < before + Duration::from_millis(5) {
            assert!(began.elapsed() < Duration::from_secs(30), "no CPU time was seen");
        }
    }

    #[test]
    fn a_thread_is_told_from_the_others_of_its_process() {
        let (tell, told) = std::sync::mpsc::channel();
        let (finish, finished) = std::sync::mpsc::channel::<()>();
        let sleeper = std::thread::spawn(move || {
            tell.send(rustix::thread::gettid()).expect("somebody waits for it");
            // Until the other end is dropped.
            let _ = finished.recv();
        });
        let thread = told.recv().expect("it tells");
        let before = (of_this_thread(), of_thread(thread).expect("it runs"));
        while of_this_thread() < before.0 + Duration::from_millis(20) {}
        assert!(of_thread(thread).expect("it runs") < before.1 + Duration::from_millis(10));
        let own = of_thread(rustix::thread::gettid()).expect("it runs");
        assert!(own >= Duration::from_millis(5), "{own:?}");
        drop(finish);
        sleeper.join().expect("it ends");
    }

    #[test]
    fn sleep_costs_no_cpu() {
        let before = of_this_thread();
        std::thread::sleep(Duration::from_millis(50));
        assert!(of_this_thread() - before < Duration::from_millis(25));
    }

    #[test]
    fn a_pinned_thread_gets_its_cores_back() {
        let before = allowed_cores().expect("affinity can be read");
        let last = *before.last().expect("a thread runs somewhere");
        let during = pinned_to(last, allowed_cores).expect("affinity can be set").expect("and read");
        assert_eq!(during, [last]);
        assert_eq!(allowed_cores().expect("affinity can be read"), before);
    }

    #[test]
    fn a_list_of_cores_has_numbers_and_ranges() {
        assert_eq!(parse_list("0-3,8").expect("a list"), [0, 1, 2, 3, 8]);
        assert_eq!(parse_list("5").expect("a list"), [5]);
        assert!(parse_list("some").is_err());
    }

    #[test]
    fn a_core_is_busy_with_all_but_idling_and_waiting() {
        let stat = "cpu  9 9 9 9 9 9 9 9 9 9\ncpu0 1 2 3 400 500 6 7 8 0 0\ncpu10 0 0 0 0 0 0 0 9 0 0\n";
        assert_eq!(parse_core(stat, 0).expect("it is there"), Duration::from_millis(270));
        assert_eq!(parse_core(stat, 10).expect("it is there"), Duration::from_millis(90));
        assert!(parse_core(stat, 1).is_err());
    }

    #[test]
    fn a_process_that_is_not_there_is_an_error() {
        assert!(of_process(u32::MAX).is_err());
    }

    #[test]
    fn a_line_of_something_else_is_an_error() {
        assert!(parse_schedstat("running").is_err());
        assert_eq!(parse_schedstat("28388268 14310530 76\n").expect("three numbers"), 28_388_268);
    }
}
