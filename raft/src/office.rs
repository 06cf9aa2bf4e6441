//! What this process knows of its own leadership: since when, from which index on, and who asked for a lease when.

use std::sync::{Mutex, MutexGuard, PoisonError};

use mcp_model::clock::{Clock, Reading};
use mcp_model::ids::NodeId;
use mcp_model::ledger::Ledger;
use mcp_model::timers::Timers;
use openraft::ServerState;

use crate::types::Metrics;

/// Leadership as this process has observed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Term {
    /// The term.
    pub(crate) number: u64,
    /// The last log index when that was observed: no read index may lie below it. openraft 0.9 would answer with what it has
    /// applied when it resumes in its old term after a restart.
    pub(crate) floor: u64,
}

#[derive(Default)]
struct State {
    term: Option<Term>,
    ledger: Ledger,
}

/// Per process and in memory, as the guarantee wants it.
#[derive(Default)]
pub(crate) struct Office {
    state: Mutex<State>,
}

impl Office {
    /// Takes note of what the metrics say. The clock is read after that: rule 6 (a).
    pub(crate) fn observe(&self, metrics: &Metrics, clock: &dyn Clock) {
        let leads = metrics.state == ServerState::Leader;
        let mut state = self.state();
        if !leads {
            state.term = None;
            state.ledger.follow();
            return;
        }
        if state.term.is_some_and(|term| term.number == metrics.current_term) {
            return;
        }
        let number = metrics.current_term;
        state.ledger.lead(number, clock.reading());
        state.term = Some(Term {
            number,
            floor: metrics.last_log_index.unwrap_or(0),
        });
        tracing::info!(term = number, "this node leads");
    }

    /// The term in which this process leads, if it does.
    pub(crate) fn term(&self) -> Option<Term> {
        self.state().term
    }

    /// Notes that a node asked for a lease, with a clock read on arrival.
    pub(crate) fn note_arrival(&self, node: NodeId, clock: &dyn Clock) {
        let now = clock.reading();
        self.state().ledger.note_arrival(node, now);
    }

    /// Times from which the last possible leases are counted, frozen now. `None`: this process does not lead in `term`, the one
    /// in which the commit was made.
    pub(crate) fn freeze(&self, term: u64, nodes: impl Iterator<Item = NodeId>) -> Option<Vec<(NodeId, Reading)>> {
        let state = self.state();
        state.term.filter(|held| held.number == term)?;
        nodes
            .map(|node| Some((node, state.ledger.last_possible_grant(node)?)))
            .collect()
    }

    /// Forgets who has been gone for long enough.
    pub(crate) fn tidy(&self, known: &dyn Fn(NodeId) -> bool, now: Reading, timers: &Timers) {
        self.state().ledger.tidy(known, now, timers);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
