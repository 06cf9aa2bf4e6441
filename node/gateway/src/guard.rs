//! What keeps one upstream from costing the others anything: places for calls, a short queue before them, and a breaker that stops
//! asking a server that answers nobody.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mcp_model::clock::{Clock, Reading};
use mcp_wire::upstream::{Cause, Effect, UpstreamError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Failures in a row after which a server is not asked for a while.
const FAILURES_MAX: u32 = 5;
/// First pause, in milliseconds; doubled with every trial that fails.
const PAUSE_FIRST_MS: u64 = 1_000;
/// Longest pause, in milliseconds.
const PAUSE_MAX_MS: u64 = 30_000;

/// Bounds of one guard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Calls at once.
    pub(crate) calls: usize,
    /// Calls that wait for a place.
    pub(crate) queue: usize,
    /// Longest wait for a place, in milliseconds.
    pub(crate) wait_ms: u64,
}

/// Stands before one upstream.
pub(crate) struct Guard {
    bounds: Bounds,
    places: Arc<Semaphore>,
    waiting: AtomicUsize,
    failures: AtomicU32,
    pause: Mutex<Pause>,
}

#[derive(Default)]
struct Pause {
    until: Option<Reading>,
    length_ms: u64,
    reason: String,
}

/// A place for one call, until it is dropped.
pub(crate) struct Place {
    _permit: OwnedSemaphorePermit,
}

impl Guard {
    pub(crate) fn new(bounds: Bounds) -> Guard {
        Guard {
            bounds,
            places: Arc::new(Semaphore::new(bounds.calls)),
            waiting: AtomicUsize::new(0),
            failures: AtomicU32::new(0),
            pause: Mutex::default(),
        }
    }

    /// A place, at once or after a short wait. Refused where the queue is full, and while the server is left in peace.
    pub(crate) async fn enter(&self, clock: &dyn Clock) -> Result<Place, UpstreamError> {
        if self.failures.load(Ordering::Relaxed) >= FAILURES_MAX {
            self.tries(clock.reading())?;
        }
        if let Ok(permit) = self.places.clone().try_acquire_owned() {
            return Ok(Place { _permit: permit });
        }
        let waiting = Waiting::of(&self.waiting);
        if waiting.ahead >= self.bounds.queue {
            let Bounds { calls, queue, .. } = self.bounds;
            return Err(refused(Cause::Busy(format!(
                "{calls} calls are under way and {queue} wait"
            ))));
        }
        let limit = Duration::from_millis(self.bounds.wait_ms);
        match tokio::time::timeout(limit, self.places.clone().acquire_owned()).await {
            Ok(Ok(permit)) => Ok(Place { _permit: permit }),
            Ok(Err(_)) | Err(_) => Err(refused(Cause::Busy(format!(
                "no place for the call within {} ms: {} are under way",
                self.bounds.wait_ms, self.bounds.calls
            )))),
        }
    }

    /// After a pause one call may try; the others go on being refused until it is known what became of it.
    fn tries(&self, now: Reading) -> Result<(), UpstreamError> {
        let mut pause = self.pause.lock().unwrap_or_else(PoisonError::into_inner);
        let left_ms = pause.until.map_or(0, |until| until.ms_since(now));
        if left_ms > 0 {
            let why = format!(
                "it failed {} times in a row and is left in peace for another {left_ms} ms; last: {}",
                self.failures.load(Ordering::Relaxed),
                pause.reason
            );
            return Err(refused(Cause::Resting(why)));
        }
        pause.until = Some(now.plus_ms(pause.length_ms));
        Ok(())
    }

    /// Notes what became of a call, or of a probe.
    pub(crate) fn note<T>(&self, outcome: &Result<T, UpstreamError>, clock: &dyn Clock) {
        match outcome {
            Err(error) if counts(&error.cause) => self.failed(error, clock.reading()),
            Err(_) => {}
            Ok(_) if self.failures.load(Ordering::Relaxed) == 0 => {}
            Ok(_) => self.failures.store(0, Ordering::Relaxed),
        }
    }

    fn failed(&self, error: &UpstreamError, now: Reading) {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed) + 1;
        if failures < FAILURES_MAX {
            return;
        }
        let mut pause = self.pause.lock().unwrap_or_else(PoisonError::into_inner);
        pause.length_ms = match failures == FAILURES_MAX {
            true => PAUSE_FIRST_MS,
            false => (pause.length_ms * 2).clamp(PAUSE_FIRST_MS, PAUSE_MAX_MS),
        };
        pause.until = Some(now.plus_ms(pause.length_ms));
        pause.reason = error.to_string().chars().take(200).collect();
    }

    /// Whether the server is left in peace.
    #[cfg(test)]
    fn is_resting(&self) -> bool {
        self.failures.load(Ordering::Relaxed) >= FAILURES_MAX
    }
}

/// Whether a failure says that the server answers nobody: not one that it answers in its own way, nor one of this call alone.
fn counts(cause: &Cause) -> bool {
    match cause {
        Cause::Connect(_) | Cause::Down(_) | Cause::Deadline(_) | Cause::Handshake(_) | Cause::Closed(_) => true,
        Cause::Status(status) => matches!(status, 429 | 502..=504),
        Cause::Rubbish(_) | Cause::TooMuch(_) | Cause::SessionGone | Cause::Refused(_) | Cause::Unsupported(_) => false,
        // Nothing was asked.
        Cause::Busy(_) | Cause::Resting(_) | Cause::Held(_) => false,
    }
}

fn refused(cause: Cause) -> UpstreamError {
    UpstreamError {
        cause,
        effect: Effect::None,
    }
}

/// Counts one that waits, while it does.
struct Waiting<'a> {
    count: &'a AtomicUsize,
    ahead: usize,
}

impl Waiting<'_> {
    fn of(count: &AtomicUsize) -> Waiting<'_> {
        let ahead = count.fetch_add(1, Ordering::Relaxed);
        Waiting { count, ahead }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;

    struct Hands(AtomicU64);

    impl Clock for Hands {
        fn reading(&self) -> Reading {
            Reading::both_ms(self.0.load(Ordering::Relaxed))
        }

        fn wall_ms(&self) -> u64 {
            0
        }
    }

    const BOUNDS: Bounds = Bounds {
        calls: 2,
        queue: 1,
        wait_ms: 50,
    };

    fn failure() -> Result<(), UpstreamError> {
        Err(refused(Cause::Connect("nobody there".into())))
    }

    #[tokio::test(start_paused = true)]
    async fn calls_have_places_a_few_wait_and_the_next_is_refused_at_once() {
        let clock = Hands(AtomicU64::new(1));
        let guard = Guard::new(BOUNDS);
        let (one, _two) = (guard.enter(&clock).await.unwrap(), guard.enter(&clock).await.unwrap());
        let (waits, refused) = tokio::join!(guard.enter(&clock), guard.enter(&clock));
        let said = [waits, refused].map(|entered| match entered {
            Ok(_) => panic!("no place was free"),
            Err(error) => error.to_string(),
        });
        assert!(said[0].contains("within 50 ms"), "{said:?}");
        assert!(said[1].contains("2 calls are under way and 1 wait"), "{said:?}");
        assert_eq!(guard.waiting.load(Ordering::Relaxed), 0);
        let (entered, ()) = tokio::join!(guard.enter(&clock), async { drop(one) });
        assert!(entered.is_ok());
    }

    #[tokio::test]
    async fn a_server_that_answers_nobody_rests_and_is_tried_by_one_at_a_time() {
        let clock = Hands(AtomicU64::new(1_000));
        let guard = Guard::new(BOUNDS);
        let entered = async || guard.enter(&clock).await.is_ok();
        for _ in 0..FAILURES_MAX {
            assert!(entered().await);
            guard.note(&failure(), &clock);
        }
        assert!(guard.is_resting());
        assert!(!entered().await);
        clock.0.store(1_999, Ordering::Relaxed);
        assert!(!entered().await);
        clock.0.store(2_000, Ordering::Relaxed);
        assert!(entered().await, "one tries");
        assert!(!entered().await, "one alone");
        guard.note(&failure(), &clock);
        // Twice as long, and never longer than half a minute.
        clock.0.store(3_999, Ordering::Relaxed);
        assert!(!entered().await);
        clock.0.store(4_000, Ordering::Relaxed);
        assert!(entered().await);
        for _ in 0..20 {
            guard.note(&failure(), &clock);
        }
        clock.0.store(4_000 + PAUSE_MAX_MS, Ordering::Relaxed);
        assert!(entered().await);
        guard.note(&Ok(()), &clock);
        assert!(!guard.is_resting());
        assert!(entered().await && entered().await);
    }

    #[test]
    fn what_a_server_answers_in_its_own_way_is_no_failure_of_it() {
        let clock = Hands(AtomicU64::new(1));
        let guard = Guard::new(BOUNDS);
        for _ in 0..50 {
            for cause in [
                Cause::Status(400),
                Cause::Refused("no".into()),
                Cause::TooMuch(1),
                Cause::Busy("x".into()),
            ] {
                guard.note::<()>(&Err(refused(cause)), &clock);
            }
        }
        assert!(!guard.is_resting());
    }
}
