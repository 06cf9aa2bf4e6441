//! The leader's ledger: until when might each node still hold a lease? Rule 6 of the guarantee, as arithmetic.
//!
//! Per process and in memory: a leader that restarts knows nothing of what it granted and says so by counting from the
//! moment at which it observed that it leads again.

use std::collections::BTreeMap;

use crate::clock::Reading;
use crate::ids::NodeId;
use crate::timers::Timers;

/// Arrival times of renewals, one per node, and since when this process leads.
#[derive(Debug, Default)]
pub struct Ledger {
    leading_since: Option<(u64, Reading)>,
    arrivals: BTreeMap<NodeId, Reading>,
}

impl Ledger {
    /// A ledger of a process that does not lead.
    pub fn new() -> Ledger {
        Ledger::default()
    }

    /// Notes that this process leads in `term`; `now` must be read *after* that was observed. Grants of earlier leaders may
    /// still be sent later, but the renewals they answer were sent before.
    pub fn lead(&mut self, term: u64, now: Reading) {
        if self.leading_since.is_none_or(|(led, _)| led != term) {
            self.leading_since = Some((term, now));
        }
    }

    /// Notes that this process does not lead. The arrivals stay: this process may have granted on them.
    pub fn follow(&mut self) {
        self.leading_since = None;
    }

    /// Notes a renewal's arrival, with a clock read on arrival and *before* the read index it will be granted at is asked
    /// for. The latest arrival counts, whatever comes of it.
    pub fn note_arrival(&mut self, node: NodeId, now: Reading) {
        let entry = self.arrivals.entry(node).or_insert(now);
        *entry = entry.max(now);
    }

    /// `g`: the time from which `node`'s last possible lease is counted, as of now. `None`: this process does not lead and
    /// can say nothing. A barrier freezes this when its commit is known.
    pub fn last_possible_grant(&self, node: NodeId) -> Option<Reading> {
        let (_, led) = self.leading_since?;
        Some(self.arrivals.get(&node).map_or(led, |arrived| led.max(*arrived)))
    }

    /// The time that both clocks must have passed before `node` certainly holds no lease that is older than the freezing of
    /// `grant`: `g + W`.
    pub fn run_out(grant: Reading, timers: &Timers) -> Reading {
        grant.plus_ms(timers.wait_ms())
    }

    /// Forgets arrivals of nodes that are no longer in `known` and whose leases have run out by `now`. A removed node's entry
    /// outlives its removal by `W`.
    pub fn tidy(&mut self, known: &dyn Fn(NodeId) -> bool, now: Reading, timers: &Timers) {
        self.arrivals
            .retain(|node, arrived| known(*node) || !now.both_passed(Ledger::run_out(*arrived, timers)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const N: NodeId = NodeId(1);

    fn ms(ms: u64) -> Reading {
        Reading::both_ms(ms)
    }

    #[test]
    fn a_silent_node_counts_from_the_start_of_the_office() {
        let mut ledger = Ledger::new();
        assert_eq!(ledger.last_possible_grant(N), None, "who does not lead can say nothing");
        ledger.lead(3, ms(1_000));
        assert_eq!(ledger.last_possible_grant(N), Some(ms(1_000)));
        ledger.lead(3, ms(9_000));
        assert_eq!(
            ledger.last_possible_grant(N),
            Some(ms(1_000)),
            "observing it again starts nothing"
        );
        ledger.lead(4, ms(9_500));
        assert_eq!(
            ledger.last_possible_grant(N),
            Some(ms(9_500)),
            "another term is another office"
        );
    }

    #[test]
    fn the_latest_arrival_counts() {
        let mut ledger = Ledger::new();
        ledger.lead(1, ms(0));
        ledger.note_arrival(N, ms(700));
        ledger.note_arrival(N, ms(400));
        assert_eq!(ledger.last_possible_grant(N), Some(ms(700)));
        assert_eq!(Ledger::run_out(ms(700), &Timers::default()), ms(2_804));
    }

    #[test]
    fn arrivals_survive_a_loss_of_office() {
        let mut ledger = Ledger::new();
        ledger.lead(1, ms(0));
        ledger.note_arrival(N, ms(5_000));
        ledger.follow();
        assert_eq!(ledger.last_possible_grant(N), None);
        ledger.lead(2, ms(4_000));
        assert_eq!(ledger.last_possible_grant(N), Some(ms(5_000)));
    }

    #[test]
    fn a_removed_nodes_entry_outlives_it_by_w() {
        let timers = Timers::default();
        let mut ledger = Ledger::new();
        ledger.lead(1, ms(0));
        ledger.note_arrival(N, ms(1_000));
        ledger.tidy(&|_| false, ms(1_000 + timers.wait_ms()), &timers);
        assert_eq!(ledger.last_possible_grant(N), Some(ms(1_000)));
        ledger.tidy(&|_| false, ms(1_001 + timers.wait_ms()), &timers);
        assert_eq!(ledger.last_possible_grant(N), Some(ms(0)));
    }
}
