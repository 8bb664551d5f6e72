//! When to try again, and how long to wait before it.

use crate::error::RegistryError;
use std::fmt;
use std::future::Future;
use std::hash::{BuildHasher, Hasher};
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// Time as the client sees it, so that tests need not wait.
pub trait Clock: Send + Sync + fmt::Debug {
    /// Monotonic time, for the expiry of tokens.
    fn now(&self) -> Instant;
    /// Wall time, for dates in `Retry-After`.
    fn wall(&self) -> SystemTime;
    /// Waits between two tries.
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

/// The machine's own clocks.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Instant {
        Instant::now()
    }
    fn wall(&self) -> SystemTime {
        SystemTime::now()
    }
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(tokio::time::sleep(duration))
    }
}

/// Exponential backoff with jitter (F-012), applied to every kind of request alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Tries of one request without progress, the first included.
    pub attempts: u32,
    /// Tries of a connection that cannot be opened at all.
    pub connect_attempts: u32,
    /// Upper bound of the first wait; it doubles each time.
    pub base: Duration,
    /// No computed wait is longer.
    pub cap: Duration,
    /// A `Retry-After` beyond this is an error at once: no build should sleep for hours.
    pub max_retry_after: Duration,
    /// Retries of the whole client, so that a dying registry ends a build in reasonable time.
    pub budget: u32,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 5,
            connect_attempts: 3,
            base: Duration::from_secs(1),
            cap: Duration::from_secs(8),
            max_retry_after: Duration::from_secs(60),
            budget: 100,
        }
    }
}

impl RetryPolicy {
    /// The wait before try number `attempt + 1`: between half of the bound and the bound.
    fn backoff(&self, attempt: u32) -> Duration {
        let bound = self.base.saturating_mul(1 << attempt.saturating_sub(1).min(16)).min(self.cap);
        let random = std::collections::hash_map::RandomState::new().build_hasher().finish();
        bound / 2 + (bound / 2).mul_f64((random >> 11) as f64 / (1_u64 << 53) as f64)
    }
}

/// A failed try and what is to be thought of it.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: RegistryError,
    pub(crate) hint: Hint,
}

/// Whether a failed try may be repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hint {
    /// It would fail again.
    Final,
    /// It may work in a while.
    Backoff,
    /// The connection could not be opened.
    Unreachable,
    /// The server said when.
    After(Duration),
}

impl From<RegistryError> for Failure {
    fn from(error: RegistryError) -> Self {
        Self { error, hint: Hint::Final }
    }
}

impl Failure {
    pub(crate) fn transient(error: RegistryError) -> Self {
        Self { error, hint: Hint::Backoff }
    }
}

/// The tries of one request.
pub(crate) struct Retry<'a> {
    policy: &'a RetryPolicy,
    clock: &'a dyn Clock,
    /// Retries made by the whole client.
    spent: &'a AtomicU32,
    attempt: u32,
}

impl<'a> Retry<'a> {
    pub(crate) fn new(policy: &'a RetryPolicy, clock: &'a dyn Clock, spent: &'a AtomicU32) -> Self {
        Self { policy, clock, spent, attempt: 0 }
    }

    /// Something was achieved: the next failure counts as the first one again.
    pub(crate) fn progressed(&mut self) {
        self.attempt = 0;
    }

    /// Waits before the next try, or gives the error back when there is to be none.
    pub(crate) async fn wait(&mut self, failure: Failure) -> Result<(), RegistryError> {
        self.attempt += 1;
        let limit = match failure.hint {
            Hint::Final => return Err(failure.error.after(self.attempt)),
            Hint::Unreachable => self.policy.connect_attempts,
            Hint::Backoff | Hint::After(_) => self.policy.attempts,
        };
        let delay = match failure.hint {
            Hint::After(delay) if delay > self.policy.max_retry_after => {
                return Err(failure.error.after(self.attempt));
            }
            Hint::After(delay) => delay,
            _ => self.policy.backoff(self.attempt),
        };
        if self.attempt >= limit || self.spent.fetch_add(1, Ordering::Relaxed) >= self.policy.budget {
            return Err(failure.error.after(self.attempt));
        }
        self.clock.sleep(delay).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_cap_and_are_never_zero() {
        let policy = RetryPolicy::default();
        for (attempt, bound) in [(1, 1), (2, 2), (3, 4), (4, 8), (5, 8), (40, 8)] {
            for _ in 0..50 {
                let wait = policy.backoff(attempt);
                let bound = Duration::from_secs(bound);
                assert!(wait >= bound / 2 && wait <= bound, "{attempt}: {wait:?}");
            }
        }
    }
}
