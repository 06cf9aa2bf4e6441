//! An office: what a process knows of its own leadership, and what it may say because of that. Rules 2 and 6 of the guarantee.
//!
//! Events in, answers out. It grants read indexes by rounds with a quorum: whoever asks while a round is under way joins the next
//! one, so that every round has begun after the arrival of all who share it. A renewal is noted before it joins one.

use std::mem;

use crate::clock::Reading;
use crate::ids::{Incarnation, NodeId};
use crate::lease::RequestId;
use crate::ledger::{Ledger, Stale};
use crate::rules::{AllRules, Rule, Rules};
use crate::timers::Timers;

/// Leadership as this process has observed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Term {
    /// The term.
    pub number: u64,
    /// The last log index when that was observed: no read index may lie below it. openraft 0.9 would answer with what it has
    /// applied when it resumes in its old term after a restart.
    pub floor: u64,
}

/// A node that asks for a lease, and where it stands.
#[derive(Debug, Clone, Copy)]
pub struct Asker {
    /// The node, as its certificate says.
    pub node: NodeId,
    /// Its run.
    pub incarnation: Incarnation,
    /// Its renewal.
    pub request: RequestId,
    /// Whether the applied configuration has it.
    pub applied: bool,
    /// Whether the appended configuration has it.
    pub appended: bool,
    /// Whether it was removed. `None`: the state cannot be read, so nobody can say.
    pub removed: Option<bool>,
}

/// Why a node gets no lease.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RenewalRefused {
    /// It has gone on since.
    #[error("{0}")]
    Stale(Stale),
    /// It is not in the applied configuration.
    #[error("the node is no member of the applied configuration")]
    NoMember,
    /// It was removed, or nobody can say that it was not.
    #[error("the node was removed")]
    Removed,
    /// Too many wait.
    #[error("too many wait for a round")]
    TooMany,
}

/// One who waits for a round: a renewal of a node, or anybody who wants an index.
struct Waiting<W> {
    renewal: Option<Asker>,
    waiter: W,
}

/// A round that has begun. It ends in [`Office::end_round`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Round {
    term: Option<Term>,
}

/// What a round has found out: the read index of a quorum, and in which term this process is by now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// What consensus gives as the read index.
    pub read_index: u64,
    /// The term that consensus is in.
    pub current_term: u64,
}

/// Per process and in memory, as the guarantee wants it.
pub struct Office<W, R: Rules = AllRules> {
    rules: R,
    term: Option<Term>,
    ledger: Ledger<R>,
    waiting: Vec<Waiting<W>>,
    under_way: Option<Vec<Waiting<W>>>,
    waiting_max: usize,
}

impl<W> Office<W> {
    /// The office of a process that does not lead. At most `waiting_max` may wait for a round.
    pub fn new(waiting_max: usize) -> Office<W> {
        Office::with_rules(AllRules, waiting_max)
    }
}

impl<W, R: Rules> Office<W, R> {
    /// The same by these rules.
    pub fn with_rules(rules: R, waiting_max: usize) -> Office<W, R> {
        Office {
            rules,
            term: None,
            ledger: Ledger::with_rules(rules),
            waiting: Vec::new(),
            under_way: None,
            waiting_max,
        }
    }

    /// Takes note that this process does not lead.
    pub fn follow(&mut self) {
        self.term = None;
        self.ledger.follow();
    }

    /// Takes note that this process leads, and says whether that is new. The clock must be read *after* it was seen: rule 6 (a).
    pub fn lead(&mut self, number: u64, last_log: u64, now: impl FnOnce() -> Reading) -> bool {
        if self.term.is_some_and(|term| term.number == number) {
            return false;
        }
        self.ledger.lead(number, now());
        self.term = Some(Term {
            number,
            floor: last_log,
        });
        true
    }

    /// The term in which this process leads, if it does.
    pub fn term(&self) -> Option<Term> {
        self.term
    }

    /// What is known of the others' leases.
    pub fn ledger(&self) -> &Ledger<R> {
        &self.ledger
    }

    /// A renewal has arrived, at `now`, read on arrival. It is noted and joins the next round, at whose end `waiter` comes back. Whoever is
    /// refused is not noted: nobody has to wait for a lease that is never granted.
    pub fn renew(&mut self, asker: Asker, now: Reading, waiter: W) -> Result<(), RenewalRefused> {
        if !asker.applied && (self.rules.keep(Rule::GrantsToTheApplied) || !asker.appended) {
            return Err(RenewalRefused::NoMember);
        }
        if asker.removed != Some(false) {
            return Err(RenewalRefused::Removed);
        }
        let stale = self.ledger.check(asker.node, asker.incarnation, asker.request);
        stale.map_err(RenewalRefused::Stale)?;
        if self.rules.keep(Rule::NotedBeforeTheRound) {
            self.note(&asker, now);
        }
        let renewal = Some(asker);
        self.join(Waiting { renewal, waiter })
            .map_err(|_| RenewalRefused::TooMany)
    }

    /// Joins the next round for an index. Gives `waiter` back if too many wait.
    pub fn ask(&mut self, waiter: W) -> Result<(), W> {
        let renewal = None;
        self.join(Waiting { renewal, waiter }).map_err(|refused| refused.waiter)
    }

    fn join(&mut self, waiting: Waiting<W>) -> Result<(), Waiting<W>> {
        if self.waiting.len() >= self.waiting_max {
            return Err(waiting);
        }
        match &mut self.under_way {
            Some(round) if !self.rules.keep(Rule::RoundBeginsAfterArrival) => round.push(waiting),
            _ => self.waiting.push(waiting),
        }
        Ok(())
    }

    fn note(&mut self, asker: &Asker, now: Reading) {
        self.ledger
            .note_arrival(asker.node, asker.incarnation, asker.request, now);
    }

    /// Begins a round with all who wait. `None`: nobody does, or one is under way.
    pub fn begin_round(&mut self) -> Option<Round> {
        if self.under_way.is_some() || self.waiting.is_empty() {
            return None;
        }
        self.under_way = Some(mem::take(&mut self.waiting));
        Some(Round { term: self.term })
    }

    /// Ends a round with what it has found, if it has: whoever shared it, and the index that this process vouches for. None: it does
    /// not lead, or cannot show that it does.
    pub fn end_round(&mut self, round: Round, found: Option<Found>, now: Reading) -> (Vec<W>, Option<u64>) {
        let shared = self.under_way.take().unwrap_or_default();
        let index = found.and_then(|found| self.vouch(round, found));
        if !self.rules.keep(Rule::NotedBeforeTheRound) {
            let late: Vec<Asker> = shared.iter().filter_map(|waiting| waiting.renewal).collect();
            late.iter().for_each(|asker| self.note(asker, now));
        }
        (shared.into_iter().map(|waiting| waiting.waiter).collect(), index)
    }

    fn vouch(&self, round: Round, found: Found) -> Option<u64> {
        let term = round.term?;
        // The round may have been another office's: then it has another floor.
        if self.term != Some(term) || found.current_term != term.number {
            return None;
        }
        match self.rules.keep(Rule::OfficeHasAFloor) {
            true => Some(found.read_index.max(term.floor)),
            false => Some(found.read_index),
        }
    }

    /// Forgets who has been gone for long enough.
    pub fn tidy(&mut self, known: &dyn Fn(NodeId) -> bool, now: Reading, timers: &Timers) {
        self.ledger.tidy(known, now, timers);
    }

    /// The rules of this office.
    pub fn rules(&self) -> R {
        self.rules
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const N: NodeId = NodeId(7);

    fn asker(request: u64) -> Asker {
        Asker {
            node: N,
            incarnation: Incarnation(1),
            request: RequestId(request),
            applied: true,
            appended: true,
            removed: Some(false),
        }
    }

    fn ms(ms: u64) -> Reading {
        Reading::both_ms(ms)
    }

    fn leading() -> Office<u64> {
        let mut office = Office::new(4);
        assert!(office.lead(3, 50, || ms(1_000)));
        office
    }

    fn found(read_index: u64, current_term: u64) -> Option<Found> {
        Some(Found {
            read_index,
            current_term,
        })
    }

    #[test]
    fn whoever_asks_during_a_round_shares_the_next_one() {
        let mut office = leading();
        office.ask(1).unwrap();
        let first = office.begin_round().unwrap();
        office.ask(2).unwrap();
        assert_eq!(office.begin_round(), None, "one at a time");
        assert_eq!(office.end_round(first, found(60, 3), ms(1_001)), (vec![1], Some(60)));
        let second = office.begin_round().unwrap();
        assert_eq!(office.end_round(second, found(61, 3), ms(1_002)), (vec![2], Some(61)));
        assert_eq!(office.begin_round(), None);
    }

    #[test]
    fn no_index_lies_below_the_beginning_of_the_office() {
        let mut office = leading();
        office.ask(1).unwrap();
        let round = office.begin_round().unwrap();
        assert_eq!(office.end_round(round, found(12, 3), ms(1_001)).1, Some(50));
    }

    #[test]
    fn a_round_of_another_office_vouches_for_nothing() {
        for (term, current) in [(Some(4), 4), (Some(3), 4), (None, 3)] {
            let mut office = leading();
            office.ask(1).unwrap();
            let round = office.begin_round().unwrap();
            match term {
                Some(term) => drop(office.lead(term, 70, || ms(1_500))),
                None => office.follow(),
            }
            assert_eq!(office.end_round(round, found(60, current), ms(1_600)), (vec![1], None));
        }
    }

    #[test]
    fn a_renewal_is_noted_before_its_round() {
        let mut office = leading();
        office.renew(asker(1), ms(1_400), 1).unwrap();
        assert_eq!(office.ledger().last_possible_grant(N), Some(ms(1_400)));
        let outside = Asker {
            applied: false,
            ..asker(2)
        };
        assert_eq!(office.renew(outside, ms(1_800), 2), Err(RenewalRefused::NoMember));
        assert_eq!(
            office.ledger().last_possible_grant(N),
            Some(ms(1_400)),
            "nobody waits for who is refused"
        );
    }

    #[test]
    fn who_is_removed_or_says_nothing_new_gets_no_lease() {
        let mut office = leading();
        for removed in [None, Some(true)] {
            let gone = Asker { removed, ..asker(1) };
            let mut office = leading();
            assert_eq!(office.renew(gone, ms(1_400), 1), Err(RenewalRefused::Removed));
        }
        office.renew(asker(5), ms(1_400), 1).unwrap();
        let again = office.renew(asker(5), ms(4_400), 2);
        assert_eq!(again, Err(RenewalRefused::Stale(Stale)));
        assert_eq!(
            office.ledger().last_possible_grant(N),
            Some(ms(1_400)),
            "a replay makes nobody wait for it"
        );
    }

    #[test]
    fn those_who_wait_have_a_limit() {
        let mut office = leading();
        (0..4).for_each(|waiter| office.ask(waiter).unwrap());
        assert_eq!(office.ask(4), Err(4));
        assert_eq!(office.renew(asker(1), ms(1_400), 5), Err(RenewalRefused::TooMany));
    }
}
