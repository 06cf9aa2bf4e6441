//! The leader's ledger: until when might each node still hold a lease? Rule 6 of the guarantee, as arithmetic.
//!
//! Per process and in memory: a leader that restarts knows nothing of what it granted and says so by counting from the
//! moment at which it observed that it leads again.

use std::collections::BTreeMap;

use crate::clock::Reading;
use crate::ids::{Incarnation, NodeId};
use crate::lease::RequestId;
use crate::rules::{AllRules, Rule, Rules};
use crate::timers::Timers;

/// Incarnations of a node that are remembered, to tell what they still say from what the node says now.
const INCARNATIONS_MAX: usize = 8;

/// What is known of one node's renewals.
#[derive(Debug)]
struct Entry {
    arrived: Reading,
    /// The last renewal of each incarnation. At the end that of which something was heard last.
    seen: Vec<(Incarnation, RequestId)>,
}

/// A renewal says nothing new, so it is not granted and does not count as one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("it was seen before, or a later one was")]
pub struct Stale;

/// Arrival times of renewals, one per node, and since when this process leads.
#[derive(Debug, Default)]
pub struct Ledger<R: Rules = AllRules> {
    rules: R,
    leading_since: Option<(u64, Reading)>,
    arrivals: BTreeMap<NodeId, Entry>,
}

impl Ledger {
    /// A ledger of a process that does not lead.
    pub fn new() -> Ledger {
        Ledger::default()
    }
}

impl<R: Rules> Ledger<R> {
    /// The same by these rules.
    pub fn with_rules(rules: R) -> Ledger<R> {
        Ledger {
            rules,
            leading_since: None,
            arrivals: BTreeMap::new(),
        }
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

    /// Whether a renewal says nothing new. Incarnations have no order, so which of two is the one that runs is told by what comes next: a
    /// renewal that was on its way for long must not shut out the node that has started again since. Whose it is not refuses the grant.
    pub fn check(&self, node: NodeId, incarnation: Incarnation, request: RequestId) -> Result<(), Stale> {
        let seen = self.arrivals.get(&node).map_or(&[][..], |entry| &entry.seen);
        match seen.iter().any(|(i, last)| *i == incarnation && request <= *last) {
            true => Err(Stale),
            false => Ok(()),
        }
    }

    /// Notes a renewal's arrival, with a clock read on arrival and *before* the read index it will be granted at is asked
    /// for. The latest arrival counts, whatever its index will be.
    pub fn note_arrival(&mut self, node: NodeId, incarnation: Incarnation, request: RequestId, now: Reading) {
        let entry = self.arrivals.entry(node).or_insert_with(|| Entry {
            arrived: now,
            seen: Vec::new(),
        });
        if self.rules.keep(Rule::LatestArrivalCounts) {
            entry.arrived = entry.arrived.max(now);
        }
        entry.seen.retain(|(i, _)| *i != incarnation);
        if entry.seen.len() == INCARNATIONS_MAX {
            entry.seen.remove(0);
        }
        entry.seen.push((incarnation, request));
    }

    /// Whether this process has heard of a later incarnation of `node` than this one.
    pub fn is_earlier(&self, node: NodeId, incarnation: Incarnation) -> bool {
        let seen = self.arrivals.get(&node).map_or(&[][..], |entry| &entry.seen);
        let before = seen.split_last().map_or(&[][..], |(_, before)| before);
        before.iter().any(|(i, _)| *i == incarnation)
    }

    /// Everybody who has asked this process for a lease and was not forgotten since.
    pub fn noted(&self) -> impl Iterator<Item = NodeId> {
        self.arrivals.keys().copied()
    }

    /// `g`: the time from which `node`'s last possible lease is counted, as of now. `None`: this process does not lead and
    /// can say nothing. A barrier freezes this when its commit is known.
    pub fn last_possible_grant(&self, node: NodeId) -> Option<Reading> {
        let (_, led) = self.leading_since?;
        let arrived = self.arrivals.get(&node).map(|entry| entry.arrived);
        if !self.rules.keep(Rule::SilenceCountsFromTheOffice) {
            return Some(arrived.unwrap_or_default());
        }
        Some(arrived.map_or(led, |arrived| led.max(arrived)))
    }

    /// The time that both clocks must have passed before `node` certainly holds no lease that is older than the freezing of
    /// `grant`: `g + W`.
    pub fn run_out(&self, grant: Reading, timers: &Timers) -> Reading {
        match self.rules.keep(Rule::WaitOutlastsTheLease) {
            true => grant.plus_ms(timers.wait_ms()),
            false => grant.plus_ms(timers.lease_ms * 3 / 4),
        }
    }

    /// Forgets arrivals of nodes that are no longer in `known` and whose leases have run out by `now`. A removed node's entry
    /// outlives its removal by `W`.
    pub fn tidy(&mut self, known: &dyn Fn(NodeId) -> bool, now: Reading, timers: &Timers) {
        let outlives = self.rules.keep(Rule::EntryOutlivesRemoval);
        let wait_ms = timers.wait_ms();
        self.arrivals
            .retain(|node, entry| known(*node) || outlives && !now.both_passed(entry.arrived.plus_ms(wait_ms)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const N: NodeId = NodeId(1);
    const ONE: Incarnation = Incarnation(1);
    const TWO: Incarnation = Incarnation(2);

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
        ledger.note_arrival(N, ONE, RequestId(1), ms(700));
        ledger.note_arrival(N, ONE, RequestId(1), ms(400));
        assert_eq!(ledger.last_possible_grant(N), Some(ms(700)));
        assert_eq!(ledger.run_out(ms(700), &Timers::default()), ms(2_804));
    }

    #[test]
    fn arrivals_survive_a_loss_of_office() {
        let mut ledger = Ledger::new();
        ledger.lead(1, ms(0));
        ledger.note_arrival(N, ONE, RequestId(1), ms(5_000));
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
        ledger.note_arrival(N, ONE, RequestId(1), ms(1_000));
        ledger.tidy(&|_| false, ms(1_000 + timers.wait_ms()), &timers);
        assert_eq!(ledger.last_possible_grant(N), Some(ms(1_000)));
        ledger.tidy(&|_| false, ms(1_001 + timers.wait_ms()), &timers);
        assert_eq!(ledger.last_possible_grant(N), Some(ms(0)));
    }

    #[test]
    fn what_was_seen_before_or_given_up_is_told_from_what_is_new() {
        let mut ledger = Ledger::new();
        ledger.note_arrival(N, ONE, RequestId(4), ms(0));
        assert_eq!(ledger.check(N, ONE, RequestId(4)), Err(Stale));
        assert_eq!(ledger.check(N, ONE, RequestId(3)), Err(Stale));
        assert_eq!(ledger.check(N, ONE, RequestId(5)), Ok(()));
        assert_eq!(ledger.check(N, TWO, RequestId(1)), Ok(()));
        ledger.note_arrival(N, TWO, RequestId(1), ms(1));
        assert_eq!(ledger.check(N, ONE, RequestId(4)), Err(Stale));
        assert!(ledger.is_earlier(N, ONE) && !ledger.is_earlier(N, TWO));
        assert!(!ledger.is_earlier(NodeId(2), ONE));
    }

    /// Found by the simulation: the leader had started too and knew the run that had ended by its late renewal only, so it took the node
    /// that ran for the earlier one and granted it nothing any more.
    #[test]
    fn a_late_renewal_of_an_ended_run_does_not_shut_out_the_one_that_runs() {
        let mut ledger = Ledger::new();
        ledger.note_arrival(N, TWO, RequestId(1), ms(0));
        ledger.note_arrival(N, ONE, RequestId(90), ms(1));
        assert_eq!(ledger.check(N, TWO, RequestId(2)), Ok(()));
        ledger.note_arrival(N, TWO, RequestId(2), ms(2));
        assert!(ledger.is_earlier(N, ONE) && !ledger.is_earlier(N, TWO));
    }
}
