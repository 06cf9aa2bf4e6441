//! What a replica has in memory, and the order in which it changes: rule 5 of the guarantee.
//!
//! No disk in here: the state is handed in. So a simulation runs the very same steps on a state in memory, with a pause between any
//! two of them.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use mcp_model::apply::{Cut, Effects};
use mcp_model::ids::{Incarnation, NodeId};
use mcp_model::records::Retirement;
use mcp_model::rules::{AllRules, Rule, Rules};
use mcp_model::tables::{self, Tables};
use tokio::sync::watch;

use crate::cuts::Cuts;
use crate::gate::LeaseGate;
use crate::view::AuthView;

/// View, gate, register and index of one replica.
pub struct Live<R: Rules = AllRules> {
    rules: R,
    view: AuthView,
    gate: LeaseGate<R>,
    cuts: Cuts,
    auth_index: AtomicU64,
    published: watch::Sender<u64>,
    /// The highest index that this process has published: how far a state that went back must come again.
    reached: AtomicU64,
    /// Whose replica this is, once it is known.
    me: OnceLock<NodeId>,
}

/// What a batch of entries has changed, and the index of the last of them.
pub struct Change {
    /// What there is to do besides storing.
    pub effects: Effects,
    /// Where the state is.
    pub index: u64,
}

/// One step from a state that is committed to an index that is published.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// The view shows the state.
    View,
    /// What is no longer allowed ends.
    Cuts,
    /// A node that was removed shuts its gate.
    Removal,
    /// Others, and the lease, may count on it.
    Index,
}

impl Live {
    /// An empty view at an index. It admits nobody before it has a lease.
    pub fn new(incarnation: Incarnation, lease_ms: u64, index: u64) -> Live {
        Live::with_rules(AllRules, incarnation, lease_ms, index)
    }
}

impl<R: Rules> Live<R> {
    /// The same by these rules.
    pub fn with_rules(rules: R, incarnation: Incarnation, lease_ms: u64, index: u64) -> Live<R> {
        Live {
            rules,
            view: AuthView::default(),
            gate: LeaseGate::with_rules(rules, incarnation, lease_ms),
            cuts: Cuts::default(),
            auth_index: AtomicU64::new(index),
            published: watch::Sender::new(index),
            reached: AtomicU64::new(index),
            me: OnceLock::new(),
        }
    }

    /// The rules of this replica.
    pub fn rules(&self) -> R {
        self.rules
    }

    /// Says whose replica this is.
    pub fn belongs_to(&self, me: NodeId) {
        self.me.get_or_init(|| me);
    }

    /// Whether a state says that this node was removed.
    pub fn is_removed_in(&self, tables: &dyn Tables) -> bool {
        let retired = |me: &NodeId| tables::load::<Retirement>(tables, &me.0.to_be_bytes()).is_some();
        self.me.get().is_some_and(retired)
    }

    /// Stops admission on this node for good: it is no longer part of the cluster.
    pub fn be_removed(&self) {
        self.gate.remove();
        self.cut_all();
    }

    /// The auth view.
    pub fn view(&self) -> &AuthView {
        &self.view
    }

    /// Whether this replica may admit.
    pub fn gate(&self) -> &LeaseGate<R> {
        &self.gate
    }

    /// What is open on behalf of whom.
    pub fn cuts(&self) -> &Cuts {
        &self.cuts
    }

    /// The log index up to which the auth view is complete, with everything cut that had to be.
    pub fn auth_index(&self) -> u64 {
        self.auth_index.load(Ordering::Acquire)
    }

    /// The same, to wait on.
    pub fn auth_index_watch(&self) -> watch::Receiver<u64> {
        self.published.subscribe()
    }

    /// The highest index that was published.
    pub fn reached(&self) -> u64 {
        self.reached.load(Ordering::Acquire)
    }

    /// Whether the state is older than what was published before, because it has gone back and is not there again. What is being
    /// published at this moment does not count.
    pub fn is_behind(&self) -> bool {
        // In this order, which is not that of `publish`.
        let reached = self.reached();
        self.auth_index() < reached
    }

    /// The steps that a change takes, in the order in which they are taken.
    pub fn stages(&self) -> [Stage; 4] {
        match self.rules.keep(Rule::PublishedLast) {
            true => [Stage::View, Stage::Cuts, Stage::Removal, Stage::Index],
            false => [Stage::Index, Stage::View, Stage::Cuts, Stage::Removal],
        }
    }

    /// Takes one of them. `read` opens the state for the view, and fails if it cannot be read.
    pub fn take<E>(
        &self,
        stage: Stage,
        change: &Change,
        read: impl FnOnce(&dyn Fn(&dyn Tables)) -> Result<(), E>,
    ) -> Result<(), E> {
        let effects = &change.effects;
        match stage {
            Stage::View if effects.restored => read(&|tables| self.view.rebuild(tables))?,
            Stage::View if *effects != Effects::default() => read(&|tables| self.view.update(tables, effects))?,
            Stage::View => {}
            Stage::Cuts => {
                self.cuts.cut_all(&effects.cuts, &self.view);
            }
            Stage::Removal if self.me.get().is_some_and(|me| effects.retired.contains(me)) => self.be_removed(),
            Stage::Removal => {}
            Stage::Index => self.publish(change.index),
        }
        Ok(())
    }

    /// Shows another state than before, whole. What changed is not known one by one: everybody comes back and is judged anew.
    pub fn rebuild(&self, tables: &dyn Tables) {
        self.view.rebuild(tables);
        self.cut_all();
    }

    /// Tells others, and the lease, where the view is.
    pub fn publish(&self, index: u64) {
        self.auth_index.store(index, Ordering::Release);
        // Only then, or somebody might take this change for a state that has gone back.
        self.reached.fetch_max(index, Ordering::AcqRel);
        self.published.send_replace(index);
        self.gate.applied(index);
    }

    /// The state is about to be an older one: the lease goes first, and with it the incarnation. No lease is taken up again before
    /// [`LeaseGate::end_install`].
    pub fn go_back(&self, incarnation: Incarnation) {
        self.gate.begin_install(incarnation);
        self.auth_index.store(0, Ordering::Release);
        self.published.send_replace(0);
    }

    /// What was reached before does not come again.
    pub(crate) fn forget_reached(&self) {
        self.reached.store(0, Ordering::Release);
    }

    /// Ends everything that is open.
    pub fn cut_all(&self) {
        self.cuts.cut(&Cut::All, &self.view);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_state_is_behind_when_it_went_back_and_not_while_it_goes_on() {
        const CHANGES: u64 = 200_000;
        let live = Arc::new(Live::new(Incarnation(1), 2_000, 0));
        let publishing = Arc::clone(&live);
        let changes = std::thread::spawn(move || (1..=CHANGES).for_each(|index| publishing.publish(index)));
        while live.auth_index() < CHANGES {
            assert!(
                !live.is_behind(),
                "a change that is being published looks like a way back"
            );
        }
        changes.join().unwrap();
        live.go_back(Incarnation(2));
        assert!(live.is_behind());
        live.publish(CHANGES - 1);
        assert!(live.is_behind());
        live.publish(CHANGES);
        assert!(!live.is_behind());
    }
}
