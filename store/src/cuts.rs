//! What is open on behalf of whom: streams and running calls, ended when their token is taken away.
//!
//! A stream registers itself *before* it looks its token up. Either the lookup then sees that the token is gone, or the cut
//! sees the stream: there is no moment at which both miss.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;
use mcp_model::apply::Cut;
use mcp_model::token::TokenHash;
use tokio_util::sync::CancellationToken;

use crate::view::{AuthView, HashBits};

/// What is open, by token: a number and the signal that ends it.
type Open = Arc<DashMap<TokenHash, Vec<(u64, CancellationToken)>, HashBits>>;

/// The register.
#[derive(Default)]
pub struct Cuts {
    open: Open,
    next: AtomicU64,
}

/// One registered stream or call. Dropping it takes it off the register.
pub struct CutGuard {
    open: Open,
    hash: TokenHash,
    number: u64,
    cut: CancellationToken,
}

impl Cuts {
    /// Registers something that is to end when the token of this hash is taken away.
    pub fn register(&self, hash: TokenHash) -> CutGuard {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let cut = CancellationToken::new();
        self.open.entry(hash).or_default().push((number, cut.clone()));
        CutGuard {
            open: Arc::clone(&self.open),
            hash,
            number,
            cut,
        }
    }

    /// How many streams and calls are registered.
    pub fn len(&self) -> usize {
        self.open.iter().map(|entry| entry.value().len()).sum()
    }

    /// Whether nothing is registered.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Ends what `cut` is about. The view must already be without the right that went.
    pub(crate) fn cut(&self, cut: &Cut, view: &AuthView) -> usize {
        match cut {
            Cut::Token(hash) => self.open.get(hash).map_or(0, |entry| cancel_all(entry.value())),
            Cut::Owner(owner) => self.cut_where(|hash| view.token(hash).is_none_or(|t| t.owner() == *owner)),
            Cut::Project(project) => self.cut_where(|hash| view.token(hash).is_none_or(|t| t.project() == *project)),
            Cut::All => self.cut_where(|_| true),
        }
    }

    fn cut_where(&self, ends: impl Fn(&TokenHash) -> bool) -> usize {
        self.open
            .iter()
            .filter(|entry| ends(entry.key()))
            .map(|entry| cancel_all(entry.value()))
            .sum()
    }
}

fn cancel_all(open: &[(u64, CancellationToken)]) -> usize {
    open.iter().for_each(|(_, cut)| cut.cancel());
    open.len()
}

impl CutGuard {
    /// Resolves when the token is taken away.
    pub async fn cancelled(&self) {
        self.cut.cancelled().await;
    }

    /// Whether the token was taken away.
    pub fn is_cut(&self) -> bool {
        self.cut.is_cancelled()
    }

    /// The signal itself, for those who wait elsewhere.
    pub fn signal(&self) -> CancellationToken {
        self.cut.clone()
    }
}

impl Drop for CutGuard {
    fn drop(&mut self) {
        if let Some(mut entry) = self.open.get_mut(&self.hash) {
            entry.retain(|(number, _)| *number != self.number);
        }
        self.open.remove_if(&self.hash, |_, open| open.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
