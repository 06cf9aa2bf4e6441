//! What this process knows of its own leadership, shared by its tasks: [`mcp_model::office`] behind a lock.

use std::sync::{Mutex, MutexGuard, PoisonError};

use mcp_model::barrier::{self, ConfirmationRefused, Confirmed, Holders, Proving};
use mcp_model::clock::{Clock, Reading};
use mcp_model::ids::NodeId;
use mcp_model::office::{self, Asker, Found, RenewalRefused, Round, Term};
use mcp_model::receipt::ReplicaReceipt;
use mcp_model::timers::Timers;
use openraft::ServerState;
use tokio::sync::{Notify, oneshot};

use crate::rounds::WAITING_MAX;
use crate::rpc::Index;
use crate::types::Metrics;

/// Where the answer of a round goes.
type Waiter = oneshot::Sender<Index>;

/// Per process and in memory, as the guarantee wants it.
pub(crate) struct Office {
    state: Mutex<office::Office<Waiter>>,
    asked: Notify,
}

impl Default for Office {
    fn default() -> Office {
        Office {
            state: Mutex::new(office::Office::new(WAITING_MAX)),
            asked: Notify::new(),
        }
    }
}

impl Office {
    /// Takes note of what the metrics say. The clock is read after that: rule 6 (a).
    pub(crate) fn observe(&self, metrics: &Metrics, clock: &dyn Clock) {
        if metrics.state != ServerState::Leader {
            self.state().follow();
            return;
        }
        let last_log = metrics.last_log_index.unwrap_or(0);
        let term = metrics.current_term;
        if self.state().lead(term, last_log, || clock.reading()) {
            tracing::info!(term, "this node leads");
        }
    }

    /// The term in which this process leads, if it does.
    pub(crate) fn term(&self) -> Option<Term> {
        self.state().term()
    }

    /// A renewal has arrived: it is noted, with a clock read here, and `waiter` is answered by a round that begins after that.
    pub(crate) fn renew(&self, asker: Asker, clock: &dyn Clock, waiter: Waiter) -> Result<(), RenewalRefused> {
        let now = clock.reading();
        self.state().renew(asker, now, waiter)?;
        self.asked.notify_one();
        Ok(())
    }

    /// Asks for an index. `false`: too many do.
    pub(crate) fn ask(&self, waiter: Waiter) -> bool {
        let joined = self.state().ask(waiter).is_ok();
        self.asked.notify_one();
        joined
    }

    /// Resolves when somebody has asked.
    pub(crate) async fn asked(&self) {
        self.asked.notified().await;
    }

    pub(crate) fn begin_round(&self) -> Option<Round> {
        self.state().begin_round()
    }

    /// Answers all who shared a round.
    pub(crate) fn end_round(&self, round: Round, found: Option<Found>, clock: &dyn Clock) {
        let (shared, index) = self.state().end_round(round, found, clock.reading());
        let answer = index.map_or(Index::NotLeader, Index::At);
        for waiter in shared {
            // Whoever has given up needs no answer.
            waiter.send(answer).unwrap_or(());
        }
    }

    /// Begins the barrier behind what was committed at an index in a term, which was committed by now.
    pub(crate) fn begin_barrier(
        &self,
        committed: (u64, u64),
        holders: &Holders,
        timers: &Timers,
        now: (Reading, u64),
    ) -> Option<Vec<Proving>> {
        barrier::begin(&self.state(), committed, holders, timers, now)
    }

    /// What a replica says of itself.
    pub(crate) fn hear(
        &self,
        proving: &Proving,
        said: &Confirmed,
        now: Reading,
    ) -> Result<ReplicaReceipt, ConfirmationRefused> {
        proving.hear(&self.state(), said, now)
    }

    /// Forgets who has been gone for long enough.
    pub(crate) fn tidy(&self, known: &dyn Fn(NodeId) -> bool, now: Reading, timers: &Timers) {
        self.state().tidy(known, now, timers);
    }

    fn state(&self) -> MutexGuard<'_, office::Office<Waiter>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
