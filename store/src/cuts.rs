//! What is open on behalf of whom: streams and running calls, ended when their token is taken away.
//!
//! A stream registers itself *before* it looks its token up. Either the lookup then sees that the token is gone, or the cut
//! sees the stream: there is no moment at which both miss.
//!
//! A cut is a signal, and whoever gets it looks once more before every write. Between such a look and the write behind it there is a
//! moment, so a replica confirms a change only when everything that it cut has *let go* of its place here (decision 31).

use std::collections::{BTreeSet, HashSet};
use std::future::poll_fn;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use futures_util::task::AtomicWaker;
use mcp_model::apply::Cut;
use mcp_model::ids::Id;
use mcp_model::token::TokenHash;
use tokio::sync::watch;

use crate::view::{AuthView, HashBits};

/// What is open, by token: a number and the signal that ends it.
type Open = DashMap<TokenHash, Vec<(u64, Arc<Signal>)>, HashBits>;

/// What ends one call or stream: raised once, by others, for the one task that carries it on. Small, because every call has one.
#[derive(Default)]
pub struct Signal {
    raised: AtomicU8,
    /// Of the task that looked last.
    task: AtomicWaker,
}

impl Signal {
    /// The token, or a right, was taken away.
    pub const CUT: u8 = 1;
    /// The caller no longer wants the answer.
    pub const GIVEN_UP: u8 = 2;

    /// Raises the signal for this reason, and wakes who waits for it.
    pub fn raise(&self, reason: u8) {
        self.raised.fetch_or(reason, Ordering::SeqCst);
        self.task.wake();
    }

    /// The reasons for which it was raised; 0: it was not.
    pub fn raised(&self) -> u8 {
        self.raised.load(Ordering::SeqCst)
    }

    /// Ready once it is raised for one of these reasons. Only the task that polled last is woken.
    pub fn poll_raised(&self, reasons: u8, cx: &mut Context<'_>) -> Poll<u8> {
        let look = || match self.raised() & reasons {
            0 => Poll::Pending,
            raised => Poll::Ready(raised),
        };
        if look().is_pending() {
            self.task.register(cx.waker());
        }
        // Once more: it may have been raised before the task was known.
        look()
    }
}

#[derive(Default)]
struct Register {
    open: Open,
    /// What was cut and has not let go yet.
    lingering: Mutex<BTreeSet<u64>>,
    /// Told whenever something that was cut lets go.
    let_go: watch::Sender<()>,
}

impl Register {
    fn lingering(&self) -> MutexGuard<'_, BTreeSet<u64>> {
        self.lingering.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Called with the entry locked, so that what is taken off meanwhile is either not seen here or taken off after.
    fn cancel_all(&self, open: &[(u64, Arc<Signal>)]) -> usize {
        let mut lingering = self.lingering();
        for (number, signal) in open {
            if signal.raised() & Signal::CUT == 0 {
                lingering.insert(*number);
                signal.raise(Signal::CUT);
            }
        }
        open.len()
    }
}

/// The register.
#[derive(Default)]
pub struct Cuts {
    register: Arc<Register>,
    next: AtomicU64,
}

/// One registered stream or call. Dropping it takes it off the register.
pub struct CutGuard {
    register: Arc<Register>,
    hash: TokenHash,
    number: u64,
    signal: Arc<Signal>,
}

impl Cuts {
    /// Registers something that is to end when the token of this hash is taken away.
    pub fn register(&self, hash: TokenHash) -> CutGuard {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let signal = Arc::<Signal>::default();
        let mut open = self.register.open.entry(hash).or_default();
        open.push((number, Arc::clone(&signal)));
        drop(open);
        CutGuard {
            register: Arc::clone(&self.register),
            hash,
            number,
            signal,
        }
    }

    /// How many streams and calls are registered.
    pub fn len(&self) -> usize {
        self.register.open.iter().map(|entry| entry.value().len()).sum()
    }

    /// Whether nothing is registered.
    pub fn is_empty(&self) -> bool {
        self.register.open.is_empty()
    }

    /// Ends what `cut` is about. The view must already be without the right that went.
    pub(crate) fn cut(&self, cut: &Cut, view: &AuthView) -> usize {
        self.cut_all(std::slice::from_ref(cut), view)
    }

    /// Ends what any of `cuts` is about, looking through what is open once.
    pub(crate) fn cut_all(&self, cuts: &[Cut], view: &AuthView) -> usize {
        let (mut owners, mut projects): (HashSet<Id>, HashSet<Id>) = (HashSet::new(), HashSet::new());
        let (mut all, mut ended) = (false, 0);
        for cut in cuts {
            match cut {
                Cut::Token(hash) => {
                    let open = self.register.open.get(hash);
                    ended += open.map_or(0, |entry| self.register.cancel_all(entry.value()));
                }
                Cut::Owner(owner) => drop(owners.insert(*owner)),
                Cut::Project(project) => drop(projects.insert(*project)),
                Cut::All => all = true,
            }
        }
        if !all && owners.is_empty() && projects.is_empty() {
            return ended;
        }
        let ends = |hash: &TokenHash| {
            all || view
                .token(hash)
                .is_none_or(|token| owners.contains(&token.owner()) || projects.contains(&token.project()))
        };
        let open = self.register.open.iter().filter(|entry| ends(entry.key()));
        ended + open.map(|entry| self.register.cancel_all(entry.value())).sum::<usize>()
    }

    /// Resolves when everything that was cut before this call has let go: its task is over, so it writes nothing more and sends
    /// nothing more.
    pub async fn all_let_go(&self) {
        let mut let_go = self.register.let_go.subscribe();
        let mine = self.register.lingering().clone();
        let gone = |register: &Register| register.lingering().is_disjoint(&mine);
        while !gone(&self.register) {
            // The sender lives as long as the register.
            if let_go.changed().await.is_err() {
                return;
            }
        }
    }

    /// Waits no longer for what has not let go: it is not being run, because its client takes nothing, and looks before it writes
    /// when it is. Says how many those are.
    pub fn excuse(&self) -> usize {
        let left = std::mem::take(&mut *self.register.lingering());
        self.register.let_go.send_replace(());
        left.len()
    }
}

impl CutGuard {
    /// Resolves when the token is taken away. One task may wait for it at a time.
    pub async fn cancelled(&self) {
        poll_fn(|cx| self.signal.poll_raised(Signal::CUT, cx)).await;
    }

    /// Whether the token was taken away.
    pub fn is_cut(&self) -> bool {
        self.signal.raised() & Signal::CUT != 0
    }

    /// The signal itself, for those who can raise it for another reason.
    pub fn signal(&self) -> &Arc<Signal> {
        &self.signal
    }
}

impl Drop for CutGuard {
    fn drop(&mut self) {
        if let Entry::Occupied(mut entry) = self.register.open.entry(self.hash) {
            let open = entry.get_mut();
            if let Some(at) = open.iter().position(|(number, _)| *number == self.number) {
                open.swap_remove(at);
            }
            if open.is_empty() {
                entry.remove();
            }
        }
        if self.is_cut() {
            self.register.lingering().remove(&self.number);
            self.register.let_go.send_replace(());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::task::{Wake, Waker};

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_cut_ends_what_is_registered_and_a_dropped_guard_leaves_nothing() {
        let cuts = Cuts::default();
        let view = AuthView::default();
        let (mine, other) = (TokenHash([1; 32]), TokenHash([2; 32]));
        let (a, b, c) = (cuts.register(mine), cuts.register(mine), cuts.register(other));
        drop(b);
        assert_eq!(cuts.cut(&Cut::Token(mine), &view), 1);
        assert!(a.is_cut() && !c.is_cut());
        assert_eq!(cuts.cut(&Cut::All, &view), 2);
        assert!(c.is_cut());
        drop((a, c));
        assert!(cuts.is_empty());
    }

    async fn is_over(waiting: std::pin::Pin<&mut impl Future<Output = ()>>) -> bool {
        tokio::select! {
            biased;
            () = waiting => true,
            () = tokio::task::yield_now() => false,
        }
    }

    #[tokio::test]
    async fn what_was_cut_is_waited_for_until_it_lets_go_and_nothing_else_is() {
        let cuts = Cuts::default();
        let view = AuthView::default();
        let (mine, other) = (TokenHash([1; 32]), TokenHash([2; 32]));
        let (a, b, _open) = (cuts.register(mine), cuts.register(mine), cuts.register(other));
        cuts.all_let_go().await;
        cuts.cut(&Cut::Token(mine), &view);
        let mut waiting = std::pin::pin!(cuts.all_let_go());
        assert!(!is_over(waiting.as_mut()).await);
        drop(a);
        assert!(!is_over(waiting.as_mut()).await, "one of two holds on");
        // What comes and is cut later is no business of who waits since before.
        let late = cuts.register(mine);
        cuts.cut(&Cut::Token(mine), &view);
        drop(b);
        assert!(is_over(waiting.as_mut()).await);
        assert_eq!(cuts.excuse(), 1);
        cuts.all_let_go().await;
        drop(late);
        assert_eq!(cuts.excuse(), 0);
    }

    #[test]
    fn who_waits_is_woken_by_a_cut_and_only_for_what_is_waited_for() {
        let cuts = Cuts::default();
        let guard = cuts.register(TokenHash([1; 32]));
        let woken = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&woken));
        let mut cx = Context::from_waker(&waker);
        assert!(guard.signal().poll_raised(Signal::CUT, &mut cx).is_pending());
        guard.signal().raise(Signal::GIVEN_UP);
        assert!(guard.signal().poll_raised(Signal::CUT, &mut cx).is_pending() && !guard.is_cut());
        let both = Signal::CUT | Signal::GIVEN_UP;
        assert_eq!(guard.signal().poll_raised(both, &mut cx), Poll::Ready(Signal::GIVEN_UP));
        assert_eq!(cuts.cut(&Cut::All, &AuthView::default()), 1);
        assert_eq!(guard.signal().poll_raised(both, &mut cx), Poll::Ready(both));
        assert_eq!(woken.0.load(Ordering::SeqCst), 2);
    }
}
