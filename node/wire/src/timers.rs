//! Timers of one length that are used again.
//!
//! To register a timer takes a lock that all threads of the runtime share, and so does taking it off; to put one off that is
//! registered takes neither. Nearly every request has its answer long before a timer of it rings, so the timer goes to the next
//! request, which wants it later still.

use std::cell::RefCell;
use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use thread_local::ThreadLocal;
use tokio::task::coop;
use tokio::time::{Instant, Sleep};

/// Timers that one thread keeps at most.
const KEPT_MAX: usize = 64;

/// When a timer of this length rings that is started now, which only timers are told: nothing is decided by the runtime's clock.
pub(crate) fn from_now(length: Duration) -> Instant {
    tokio::time::sleep(length).deadline()
}

/// Whether a timer has rung. The runtime makes a task that always finds something to read give way to others, and timers with it, and
/// while all threads are busy it looks at the clock now and then only: this one is looked at all the same, or a flood would put it off.
pub(crate) fn poll(timer: &mut Timer, cx: &mut Context<'_>) -> Poll<()> {
    if coop::has_budget_remaining() {
        return timer.as_mut().poll(cx);
    }
    if timer.deadline() <= from_now(Duration::ZERO) {
        return Poll::Ready(());
    }
    pin!(coop::unconstrained(timer.as_mut())).poll(cx)
}

/// Bytes after which a task has had as much of its turn as after a read.
const TURN_BYTES: usize = 8 << 10;

/// Gives way to others whenever so much was read that it is their turn: a flood comes in large reads and small pieces, and what is made of
/// them takes longer than to read them.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    bytes: usize,
}

impl Turn {
    pub(crate) async fn took(&mut self, bytes: usize) {
        self.bytes += bytes;
        while self.bytes >= TURN_BYTES {
            self.bytes -= TURN_BYTES;
            coop::consume_budget().await;
        }
    }
}

/// A timer. Who held it before may be woken by it for nothing.
pub type Timer = Pin<Box<Sleep>>;

/// Timers of one length, of one runtime.
pub struct Timers {
    length: Duration,
    kept: ThreadLocal<RefCell<Vec<Timer>>>,
}

impl Timers {
    /// Timers of this length.
    pub fn new(length: Duration) -> Timers {
        Timers {
            length,
            kept: ThreadLocal::new(),
        }
    }

    /// A timer that rings after the length from now.
    pub fn start(&self) -> Timer {
        let until = from_now(self.length);
        let kept = self.kept.get_or_default().borrow_mut().pop();
        match kept {
            Some(mut timer) => {
                timer.as_mut().reset(until);
                timer
            }
            None => Box::pin(tokio::time::sleep_until(until)),
        }
    }

    /// Takes back a timer that is no longer needed.
    pub fn keep(&self, timer: Timer) {
        let mut kept = self.kept.get_or_default().borrow_mut();
        if kept.len() < KEPT_MAX {
            kept.push(timer);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_timer_that_is_used_again_rings_after_its_length_from_then() {
        let timers = Timers::new(Duration::from_millis(100));
        let mut ringing = timers.start();
        for wait_ms in [0, 70, 70, 70, 200] {
            // As a call that was answered does: polled once and given back.
            assert!(poll(&mut ringing).await.is_pending());
            timers.keep(ringing);
            tokio::time::advance(Duration::from_millis(wait_ms)).await;
            ringing = timers.start();
        }
        let mut almost = Box::pin(tokio::time::sleep(Duration::from_millis(95)));
        let early = tokio::select! { () = ringing.as_mut() => true, () = &mut almost => false };
        assert!(!early);
        let mut surely = Box::pin(tokio::time::sleep(Duration::from_millis(15)));
        let late = tokio::select! { () = ringing.as_mut() => false, () = &mut surely => true };
        assert!(!late);
        assert!(
            timers.kept.get().is_some_and(|kept| kept.borrow().is_empty()),
            "it was the same one all along"
        );
    }

    async fn poll(timer: &mut Timer) -> Poll<()> {
        poll_fn(|cx| Poll::Ready(timer.as_mut().poll(cx))).await
    }
}
