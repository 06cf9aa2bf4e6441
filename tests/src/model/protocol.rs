//! The state of the model, and what can be said of it.
//!
//! Consensus is taken for granted: there is one log, of which a part is committed for ever; whoever is elected has that part and
//! ends whatever the leader before could still decide. What is left to chance is who knows what, and when.
//!
//! Time is in ticks and always relative: how long ago, or how much is left, on the clock of the node concerned. What has run out is
//! the same as what never was, so that there are finitely many states.

use crate::model::rules::{Break, LEASE, LONGER, NODES, Scenario, WAIT};

/// Entries of the log. Those that only concern consensus are left out.
pub(crate) const LOG: usize = 5;
/// A node of the barrier's set that needs no more waiting, and an age of which nothing depends.
pub(crate) const DONE: u8 = u8::MAX;

/// What an entry does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) enum Kind {
    /// There is no entry.
    #[default]
    None,
    /// Takes the right away, or finds that it is gone.
    Revoke,
    /// The membership has node 2 from here on.
    TakeIn,
    /// Node 2 is to be no member any more.
    Retire,
    /// The membership is without node 2 from here on.
    TakeOut,
}

/// One entry, and the term in which it was proposed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Entry {
    pub(crate) kind: Kind,
    pub(crate) term: u8,
}

/// How far a renewal has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub(crate) enum Stage {
    #[default]
    Free,
    /// On its way.
    Sent,
    /// Noted by a leader, and waiting for the next round.
    Waiting { at: u8 },
    /// In a round, whose read index covers the revoke or not.
    InRound { at: u8, covers: bool },
    /// The grant is on its way back, or waits until the view has caught up with it.
    Granted { covers: bool },
}

/// A renewal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub(crate) struct Slot {
    pub(crate) stage: Stage,
    /// How long ago it was sent, on its node's clock.
    pub(crate) age: u8,
}

/// A request that began after the acknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) enum Req {
    #[default]
    None,
    /// It is registered, and the lease held then has so much left.
    Begun { left: u8 },
    /// It has found the token in the view.
    Found { left: u8 },
}

/// A leader that waits until a revoke is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Barrier {
    /// The entry that it waits for.
    pub(crate) at: u8,
    /// For each node: `DONE`, or how long ago its last possible lease was asked for, on the leader's clock.
    pub(crate) since: [u8; NODES],
}

/// One node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Node {
    /// Entries that its auth view contains.
    pub(crate) applied: u8,
    /// Entries that it says its view contains. The same, by rule 5.
    pub(crate) shown: u8,
    /// Entries that it has known to be committed: only kept apart where a leader's state went back.
    pub(crate) known: u8,
    /// The term in which this process has observed that it leads; 0: none.
    pub(crate) office: u8,
    /// Entries of its log at that moment.
    pub(crate) floor: u8,
    /// For each node, how long ago its last possible lease was asked for: the later of the ledger's entry and the beginning of the
    /// office.
    pub(crate) since: [u8; NODES],
    /// How long ago the office began: only where a mutant makes use of it.
    pub(crate) led: u8,
    /// What a barrier has frozen too early: only in a mutant.
    pub(crate) early: [u8; NODES],
    pub(crate) barrier: Option<Barrier>,
    pub(crate) slots: [Slot; 2],
    /// What is left of its lease.
    pub(crate) lease: u8,
    /// The lease as a flag: only in a mutant.
    pub(crate) flag: bool,
    /// A grant for an earlier incarnation is under way: only in a mutant.
    pub(crate) stray: bool,
    pub(crate) req: Req,
    /// It has lost its log and takes no part.
    pub(crate) lost: bool,
    /// It led before it was started again, and nobody was elected since: only where a mutant makes use of it.
    pub(crate) resumes: bool,
}

/// Everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct State {
    /// The newest term, and who was elected in it.
    pub(crate) term: u8,
    pub(crate) leader: u8,
    pub(crate) log: [Entry; LOG],
    pub(crate) len: u8,
    pub(crate) committed: u8,
    pub(crate) nodes: [Node; NODES],
    /// Clocks that have slipped.
    pub(crate) slipped: u8,
    pub(crate) restarts: u8,
    pub(crate) resyncs: u8,
    /// A request of node 2 to be let go is under way, and stays so: copies may arrive at any time.
    pub(crate) let_go: bool,
    pub(crate) acked: bool,
    pub(crate) admitted: bool,
}

/// The protocol in some circumstances, with at most one rule broken.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Protocol {
    pub(crate) scenario: Scenario,
    pub(crate) broken: Option<Break>,
}

impl State {
    pub(crate) fn entries(&self, upto: u8) -> &[Entry] {
        &self.log[..usize::from(upto)]
    }

    pub(crate) fn has(&self, upto: u8, kind: Kind) -> bool {
        self.entries(upto).iter().any(|entry| entry.kind == kind)
    }

    /// Whether a node's view still has the token.
    pub(crate) fn is_stale(&self, node: usize) -> bool {
        !self.has(self.nodes[node].applied, Kind::Revoke)
    }

    pub(crate) fn append(&mut self, kind: Kind) {
        self.log[usize::from(self.len)] = Entry { kind, term: self.term };
        self.len += 1;
    }

    /// How many entries a node that does not lead has applied, when those that mean nothing to it are left out at the end.
    fn settled(&self, at: usize) -> u8 {
        let applied = self.entries(self.nodes[at].applied);
        let means = |kind: Kind| kind == Kind::Revoke || at == 2 && kind == Kind::Retire;
        let last = applied.iter().rposition(|entry| means(entry.kind));
        last.map_or(0, |at| u8::try_from(at + 1).expect("a handful"))
    }

    /// Whether a node leads, and its process has observed it.
    pub(crate) fn leads(&self, node: usize) -> bool {
        usize::from(self.leader) == node && self.nodes[node].office == self.term
    }

    /// Whether nothing can happen any more that matters.
    pub(crate) fn is_over(&self, scenario: &Scenario) -> bool {
        let all_know = (0..NODES).all(|at| !scenario.holds[at] || !self.is_stale(at));
        let stays = self.restarts == scenario.restarts
            && self.resyncs == scenario.resyncs
            && (self.let_go || !scenario.loses_log);
        let decided = self.nodes.iter().all(|node| node.req == Req::None);
        self.admitted || self.acked && all_know && decided && stays
    }

    /// The entry that a leader's barrier may wait for: the first revoke of its own term.
    pub(crate) fn own_revoke(&self, node: usize) -> Option<u8> {
        let office = self.nodes[node].office;
        let mut found = (0..self.len).zip(self.entries(self.len));
        found
            .find(|(_, e)| e.kind == Kind::Revoke && e.term == office)
            .map(|(at, _)| at)
    }
}

impl Protocol {
    pub(crate) fn breaks(&self, rule: Break) -> bool {
        self.broken == Some(rule)
    }

    pub(crate) fn wait(&self) -> u8 {
        match self.broken {
            Some(Break::WaitShorter) => LEASE - 2,
            Some(Break::WaitWithoutDrift) => LEASE,
            _ => WAIT,
        }
    }

    pub(crate) fn lease(&self, node: usize) -> u8 {
        if self.breaks(Break::LengthsDiffer) && node == 1 {
            return LEASE + LONGER;
        }
        LEASE
    }

    /// Whether the membership of these entries has a node.
    pub(crate) fn is_member(&self, entries: &[Entry], node: usize) -> bool {
        if node != 2 || !self.scenario.learner {
            return true;
        }
        entries.iter().fold(!self.scenario.joins, |is, entry| match entry.kind {
            Kind::TakeIn => true,
            Kind::TakeOut => false,
            Kind::None | Kind::Revoke | Kind::Retire => is,
        })
    }

    /// Whether a node may hold a lease, as far as `leader` can tell: it is a member of the applied or of the appended configuration, or
    /// was one.
    pub(crate) fn may_hold(&self, state: &State, leader: usize, node: usize) -> bool {
        if !self.scenario.holds[node] {
            return false;
        }
        if self.breaks(Break::WithoutLearners) && self.scenario.learner && node == 2 {
            return false;
        }
        let view = state.entries(state.nodes[leader].applied);
        // A leader that was deposed knows of the entries that are left of its own.
        let appended = if state.leads(leader) {
            state.len
        } else {
            state.committed
        };
        let retired = node == 2 && view.iter().any(|e| e.kind == Kind::Retire);
        let let_go = node == 2 && !retired && view.iter().any(|e| e.kind == Kind::TakeOut);
        self.is_member(self.configuration(state, leader), node)
            || self.is_member(state.entries(appended), node)
            || retired && !self.breaks(Break::RemovedLeaves)
            || let_go && !self.breaks(Break::LetGoLeaves)
    }

    /// The entries that decide on the configuration that a node has applied. It does not go back with the state.
    pub(crate) fn configuration<'a>(&self, state: &'a State, at: usize) -> &'a [Entry] {
        state.entries(state.nodes[at].applied.max(state.nodes[at].known))
    }

    /// Whether a process that was deposed may still do harm without noticing: only where a mutant lets it.
    fn keeps_deposed(&self) -> bool {
        matches!(
            self.broken,
            Some(Break::HeartbeatAsLease | Break::RoundWithoutQuorum | Break::LeaderExempt | Break::VerdictBelieved)
        )
    }

    pub(crate) fn keeps_led(&self) -> bool {
        matches!(
            self.broken,
            Some(Break::OfficeBeforeElection | Break::OfficeOverResume | Break::LedgerPurged)
        )
    }

    /// Forgets what nothing depends on any more, so that states that do not differ are the same.
    pub(crate) fn tidy(&self, state: &mut State) {
        let over = WAIT + 1;
        for at in 0..NODES {
            if !state.is_stale(at) && !self.scenario.fresh {
                state.nodes[at].lease = 0;
                state.nodes[at].slots = [Slot::default(); 2];
            }
            if state.nodes[at].office == 0 && !self.breaks(Break::ViewAfterIndex) {
                state.nodes[at].applied = state.settled(at);
                state.nodes[at].shown = state.nodes[at].applied;
            }
            let own_revoke = state.own_revoke(at);
            let leads = state.leads(at);
            let acked = state.acked;
            let log = state.log;
            let has_revoke = |upto: u8| log[..usize::from(upto)].iter().any(|e| e.kind == Kind::Revoke);
            let node = &mut state.nodes[at];
            let may_wait = node.barrier.is_some() || own_revoke.is_some();
            if node.office != 0 && !leads && !self.keeps_deposed() && (acked || !may_wait) {
                node.office = 0;
                node.floor = 0;
            }
            if acked {
                node.barrier = None;
            }
            if node.office == 0 || acked {
                node.since = [0; NODES];
                node.early = [0; NODES];
                if !self.keeps_led() || acked {
                    node.led = 0;
                }
            }
            if node.office == 0 {
                node.floor = 0;
                node.known = 0;
            }
            // A barrier has frozen it; and a leader that knows of its revoke has applied it.
            let frozen = node.barrier.is_some();
            let older_state = self.breaks(Break::BarrierOnOlderState);
            for (other, since) in node.since.iter_mut().enumerate() {
                let counts = self.scenario.holds[other] && !frozen && (other != at || older_state);
                *since = if counts { (*since).min(over) } else { 0 };
            }
            if let Some(barrier) = &mut node.barrier {
                let done = barrier.since.iter_mut().filter(|since| **since > self.wait());
                done.for_each(|since| *since = DONE);
                node.early = [0; NODES];
            }
            node.floor = if has_revoke(node.floor) { node.floor } else { 0 };
            node.known = if has_revoke(node.known) || self.scenario.learner {
                node.known
            } else {
                0
            };
            node.early.iter_mut().for_each(|since| *since = (*since).min(over));
            node.led = node.led.min(over);
            let forever = self.breaks(Break::LeaseFromAnswer);
            let lease = self.lease(at);
            for slot in &mut node.slots {
                let dead = slot.age >= lease && !forever;
                slot.age = slot.age.min(lease);
                if dead || slot.stage == Stage::Free {
                    *slot = Slot::default();
                }
            }
        }
        let alive: [bool; NODES] =
            std::array::from_fn(|at| state.leads(at) || self.keeps_deposed() && state.nodes[at].office != 0);
        for node in &mut state.nodes {
            for slot in &mut node.slots {
                if let Stage::Waiting { at } | Stage::InRound { at, .. } = slot.stage
                    && !alive[usize::from(at)]
                {
                    *slot = Slot::default();
                }
            }
            if node.slots[0] < node.slots[1] {
                node.slots.swap(0, 1);
            }
        }
    }
}
