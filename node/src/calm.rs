//! A future that polls again at once when it is woken while it is being polled.
//!
//! hyper wakes a connection from within its own poll, whenever a handler has taken a piece of a request's body. The runtime puts
//! such a task at the end of its queue and wakes another thread to take it over: two switches of threads for every request that
//! has a body. Here the wake is seen, and the task goes on where it is.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;

/// Polls in a row before others get their turn.
const TURNS_MAX: usize = 16;

/// Nobody polls: a wake goes to the runtime.
const IDLE: u8 = 0;
/// It is being polled.
const POLLING: u8 = 1;
/// It is being polled and was woken meanwhile.
const AGAIN: u8 = 2;

#[derive(Default)]
struct Bell {
    state: AtomicU8,
    task: AtomicWaker,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Whoever fails here found it idle or woken already: the second needs nothing.
        match self
            .state
            .compare_exchange(POLLING, AGAIN, Ordering::AcqRel, Ordering::Acquire)
        {
            Ok(_) | Err(AGAIN) => {}
            Err(_) => self.task.wake(),
        }
    }
}

/// See the module.
pub(crate) struct Calm<F> {
    inner: Pin<Box<F>>,
    bell: Arc<Bell>,
    waker: Waker,
}

impl<F: Future> Calm<F> {
    pub(crate) fn new(inner: F) -> Calm<F> {
        let bell = Arc::new(Bell::default());
        Calm {
            inner: Box::pin(inner),
            waker: Waker::from(Arc::clone(&bell)),
            bell,
        }
    }
}

impl<F: Future> Future for Calm<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let calm = &mut *self;
        // Before the state says idle again, or a wake in between would ring at the wrong door.
        calm.bell.task.register(cx.waker());
        for _ in 0..TURNS_MAX {
            calm.bell.state.store(POLLING, Ordering::Release);
            if let Poll::Ready(output) = calm.inner.as_mut().poll(&mut Context::from_waker(&calm.waker)) {
                return Poll::Ready(output);
            }
            let woken = calm
                .bell
                .state
                .compare_exchange(POLLING, IDLE, Ordering::AcqRel, Ordering::Acquire);
            if woken.is_ok() {
                return Poll::Pending;
            }
        }
        calm.bell.state.store(IDLE, Ordering::Release);
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Polls once; says whether it is done and how often the task was woken.
    fn poll<F: Future>(calm: &mut Calm<F>, count: &Arc<Count>) -> (bool, usize) {
        let waker = Waker::from(Arc::clone(count));
        let done = Pin::new(calm).poll(&mut Context::from_waker(&waker)).is_ready();
        (done, count.0.load(Ordering::SeqCst))
    }

    /// Wakes itself in its first `times` polls and is ready in the one after.
    fn restless(times: usize) -> impl Future<Output = ()> {
        let mut polls = 0;
        std::future::poll_fn(move |cx| {
            polls += 1;
            if polls > times {
                return Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
    }

    #[test]
    fn a_wake_from_within_is_answered_at_once_and_reaches_nobody_else() {
        let count = Arc::new(Count::default());
        assert_eq!(poll(&mut Calm::new(restless(3)), &count), (true, 0));
    }

    #[test]
    fn who_never_rests_lets_others_have_their_turn() {
        let count = Arc::new(Count::default());
        let mut calm = Calm::new(restless(TURNS_MAX + 1));
        assert_eq!(poll(&mut calm, &count), (false, 1));
        assert_eq!(poll(&mut calm, &count), (true, 1));
    }

    #[test]
    fn a_wake_from_outside_reaches_the_task() {
        let count = Arc::new(Count::default());
        let (sender, receiver) = tokio::sync::oneshot::channel::<()>();
        let mut calm = Calm::new(receiver);
        assert_eq!(poll(&mut calm, &count), (false, 0));
        sender.send(()).unwrap();
        assert_eq!(poll(&mut calm, &count), (true, 1));
    }
}
