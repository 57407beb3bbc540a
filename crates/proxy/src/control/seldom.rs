//! For the log: trouble that happens often is told seldom.

use std::time::Duration;

use tokio::time::Instant;

/// Between two lines about the same trouble.
const SILENCE: Duration = Duration::from_secs(60);

/// When something was last told.
#[derive(Debug, Default)]
pub(super) struct Seldom {
    last: Option<Instant>,
}

impl Seldom {
    /// Whether to tell it now; if so, not again for a minute.
    pub(super) fn is_due(&mut self) -> bool {
        let now = Instant::now();
        let due = self.last.is_none_or(|last| now - last >= SILENCE);
        if due {
            self.last = Some(now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn trouble_is_told_at_once_and_then_once_a_minute() {
        let mut seldom = Seldom::default();
        assert!(seldom.is_due());
        tokio::time::advance(SILENCE - Duration::from_millis(1)).await;
        assert!(!seldom.is_due());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(seldom.is_due());
        assert!(!seldom.is_due());
    }
}
