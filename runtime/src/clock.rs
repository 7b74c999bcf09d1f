//! Time, behind a seam so that tests can own it.

use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use cascade_cdl::Timestamp;
use tokio::time::Instant;

/// Where the engine's time comes from.
#[async_trait]
pub trait Clock: Send + Sync + 'static {
    /// The time that events are stamped with.
    fn now(&self) -> Timestamp;

    /// Returns once [`Clock::now`] has reached `at`.
    async fn sleep_until(&self, at: Timestamp);

    /// Time that has passed since some moment. It is never set back, so pauses
    /// that have nothing to do with the time of day go by it.
    fn passed(&self) -> Duration;

    /// Returns once [`Clock::passed`] has reached `at`.
    async fn sleep_until_passed(&self, at: Duration);
}

/// How late a sleeper may wake when the wall clock is set forward.
const LONGEST_SLEEP: Duration = Duration::from_secs(10);

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

/// The moment that [`Clock::passed`] counts from.
static FIRST_ASKED: LazyLock<Instant> = LazyLock::new(Instant::now);

#[async_trait]
impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    async fn sleep_until(&self, at: Timestamp) {
        // The wall clock may be set meanwhile, or the machine suspended, so ask
        // again after each sleep.
        loop {
            let left = at.since(self.now());
            if left == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(left).min(LONGEST_SLEEP)).await;
        }
    }

    fn passed(&self) -> Duration {
        FIRST_ASKED.elapsed()
    }

    async fn sleep_until_passed(&self, at: Duration) {
        tokio::time::sleep_until(*FIRST_ASKED + at).await;
    }
}
