//! Waiting for what happens soon but not at once. Limits are generous: they bound a failure, they measure nothing.

use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_millis(3);

/// Asks until `answer` is `Some`, for at most `within`.
///
/// # Panics
/// When the time is over, saying `what` did not happen.
#[track_caller]
pub fn eventually<T>(what: &str, within: Duration, mut answer: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + within;
    loop {
        if let Some(answer) = answer() {
            return answer;
        }
        assert!(Instant::now() < deadline, "not within {within:?}: {what}");
        std::thread::sleep(PAUSE);
    }
}

/// Asks again and again for `during`, and panics when `condition` does not hold once.
#[track_caller]
pub fn holds_for(what: &str, during: Duration, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + during;
    while Instant::now() < end {
        assert!(condition(), "did not hold: {what}");
        std::thread::sleep(PAUSE);
    }
}
