//! The threads that talk to MCP clients, each with a runtime of its own. A connection stays on the one that it was given to, and so
//! do the connections to upstreams that its calls use.
//!
//! On a runtime whose threads share their work, what arrives for one connection is looked at by whichever thread is awake, and
//! wakes another to help: for calls that take some microseconds, that is a good part of them. And what must not wait for clients
//! does not: consensus, leases and the API run elsewhere.

use std::future::Future;
use std::io;
use std::num::NonZero;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// The threads. They end with this value, and with them whatever still runs there.
pub(crate) struct Crew {
    hands: Vec<Hand>,
}

struct Hand {
    runtime: Handle,
    /// Everything that runs there holds one more.
    load: Arc<()>,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Crew {
    /// As many threads as the machine lets this process run at once.
    pub(crate) fn start() -> io::Result<Crew> {
        let hands = thread::available_parallelism().map_or(1, NonZero::get);
        let hands = (1..=hands).map(Hand::start).collect::<io::Result<_>>()?;
        Ok(Crew { hands })
    }

    /// Runs this where the least is running.
    pub(crate) fn run(&self, what: impl Future<Output = ()> + Send + 'static) {
        let least = self.hands.iter().min_by_key(|hand| Arc::strong_count(&hand.load));
        let Some(hand) = least else { return };
        let load = Arc::clone(&hand.load);
        hand.runtime.spawn(async move {
            what.await;
            drop(load);
        });
    }
}

impl Hand {
    fn start(number: usize) -> io::Result<Hand> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (end, ended) = oneshot::channel();
        let handle = runtime.handle().clone();
        let work = move || {
            // Whether it was sent or dropped, it is the end.
            runtime.block_on(ended).unwrap_or_default();
        };
        let thread = thread::Builder::new().name(format!("clients-{number}")).spawn(work)?;
        Ok(Hand {
            runtime: handle,
            load: Arc::default(),
            end: Some(end),
            thread: Some(thread),
        })
    }
}

impl Drop for Hand {
    fn drop(&mut self) {
        drop(self.end.take());
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("a thread of the gateway panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[tokio::test]
    async fn what_runs_at_once_is_spread_and_ends_with_the_crew() {
        let crew = Crew {
            hands: (1..=3).map(Hand::start).collect::<io::Result<_>>().unwrap(),
        };
        let (say, mut said) = tokio::sync::mpsc::unbounded_channel();
        for _ in 0..3 {
            let say = say.clone();
            crew.run(async move {
                say.send(thread::current().id()).unwrap();
                std::future::pending::<()>().await;
            });
        }
        drop(say);
        let mut threads = HashSet::new();
        for _ in 0..3 {
            threads.insert(said.recv().await.unwrap());
        }
        assert_eq!(threads.len(), 3);
        let alive = threads.len();
        drop(crew);
        assert!(said.recv().await.is_none(), "{alive} futures outlive their threads");
    }

    #[tokio::test]
    async fn who_has_left_counts_no_more() {
        let crew = Crew {
            hands: (1..=2).map(Hand::start).collect::<io::Result<_>>().unwrap(),
        };
        let (stay, staying) = oneshot::channel::<()>();
        crew.run(async move { staying.await.unwrap_or_default() });
        let busy: Vec<usize> = crew.hands.iter().map(|hand| Arc::strong_count(&hand.load)).collect();
        let idle = busy.iter().position(|load| *load == 1).unwrap();
        for _ in 0..3 {
            let (say, said) = oneshot::channel();
            crew.run(async move { say.send(thread::current().id()).unwrap() });
            assert_eq!(
                said.await.unwrap(),
                crew.hands[idle].thread.as_ref().unwrap().thread().id()
            );
            while Arc::strong_count(&crew.hands[idle].load) > 1 {
                tokio::task::yield_now().await;
            }
        }
        drop(stay);
    }
}
