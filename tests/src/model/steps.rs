//! What can happen next, and what comes of it.

use crate::model::protocol::{Barrier, DONE, Kind, Node, Protocol, Req, Slot, Stage, State};
use crate::model::rules::{Break, NODES, WAIT};

/// One step. Nothing is ever forced: what is not done is lost, late, cut off or paused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// A node notes its clock and asks for a lease.
    Send { node: u8 },
    /// A leader notes a renewal. If it has no round under way, it fixes a read index and asks a quorum whether it still leads.
    Arrive { node: u8, slot: u8, at: u8 },
    /// A leader begins the next round, for those who arrived during the one before.
    RoundBegins { at: u8 },
    /// A quorum has answered; the grants leave.
    RoundEnds { at: u8 },
    /// A grant has arrived, and the view is as far as it names.
    TakeUp { node: u8, slot: u8 },
    /// A renewal or its grant is lost.
    Lose { node: u8, slot: u8 },
    /// Time passes for all, on all clocks the same.
    Tick,
    /// Time passes, and a node's clock loses this tick.
    TickSlow { node: u8 },
    /// Time passes, and a node's clock counts two.
    TickFast { node: u8 },
    /// A node is elected. So many of the uncommitted entries of the leader before have reached it.
    Elect { node: u8, kept: u8 },
    /// A process observes that it leads, and reads its clock.
    Observe { node: u8 },
    /// A leader proposes a revoke, the first one or a retry.
    Propose { node: u8 },
    /// A quorum has what the leader has proposed.
    Commit,
    /// A node applies the next entry that is committed.
    Apply { node: u8 },
    /// A leader knows that a revoke is committed, and freezes what its ledger says.
    Freeze { node: u8 },
    /// A node confirms that its view is without the right.
    Confirm { node: u8, at: u8 },
    /// The revoke is acknowledged.
    Acknowledge { at: u8 },
    /// A process dies and starts again, with the state that was on its disk.
    Restart { node: u8 },
    /// A node puts an older state in place of its own, without dying.
    Resync { node: u8 },
    /// The removal of node 2 is decided.
    Retire,
    /// The membership is changed to be without node 2.
    TakeOut,
    /// Node 2 dies, and starts again without its log. It asks to be let go.
    LoseLog,
    /// Such a request reaches the leader, for the first time or once more: the membership is changed to be without node 2.
    LetGo,
    /// The membership is changed to have node 2.
    TakeIn,
    /// A request begins. It is registered, and the deadline of the lease is read.
    Begin { node: u8 },
    /// The token is looked up in the view.
    Look { node: u8 },
    /// A fresh clock is compared with the lease.
    Check { node: u8 },
    /// Only in a mutant: what a rule forbids.
    Forbidden { node: u8, at: u8 },
}

/// How often each kind of step was taken is counted under these names.
pub(crate) const KINDS: [&str; 28] = [
    "send",
    "arrive",
    "round-begins",
    "round-ends",
    "take-up",
    "lose",
    "tick",
    "tick-slow",
    "tick-fast",
    "elect",
    "observe",
    "propose",
    "commit",
    "apply",
    "freeze",
    "confirm",
    "acknowledge",
    "restart",
    "resync",
    "retire",
    "take-out",
    "lose-log",
    "let-go",
    "take-in",
    "begin",
    "look",
    "check",
    "forbidden",
];

impl Step {
    /// The place of its kind in [`KINDS`].
    pub(crate) fn kind(self) -> usize {
        match self {
            Step::Send { .. } => 0,
            Step::Arrive { .. } => 1,
            Step::RoundBegins { .. } => 2,
            Step::RoundEnds { .. } => 3,
            Step::TakeUp { .. } => 4,
            Step::Lose { .. } => 5,
            Step::Tick => 6,
            Step::TickSlow { .. } => 7,
            Step::TickFast { .. } => 8,
            Step::Elect { .. } => 9,
            Step::Observe { .. } => 10,
            Step::Propose { .. } => 11,
            Step::Commit => 12,
            Step::Apply { .. } => 13,
            Step::Freeze { .. } => 14,
            Step::Confirm { .. } => 15,
            Step::Acknowledge { .. } => 16,
            Step::Restart { .. } => 17,
            Step::Resync { .. } => 18,
            Step::Retire => 19,
            Step::TakeOut => 20,
            Step::LoseLog => 21,
            Step::LetGo => 22,
            Step::TakeIn => 23,
            Step::Begin { .. } => 24,
            Step::Look { .. } => 25,
            Step::Check { .. } => 26,
            Step::Forbidden { .. } => 27,
        }
    }
}

fn small(n: usize) -> u8 {
    u8::try_from(n).expect("a handful")
}

impl Protocol {
    /// The beginning: node 0 has led in term 1 for longer than any wait, and nobody holds a lease.
    pub(crate) fn begin(&self) -> State {
        let mut state = State {
            term: 1,
            ..State::default()
        };
        state.nodes[0].office = 1;
        state.nodes[0].since = [WAIT + 1; NODES];
        state.nodes[0].led = WAIT + 1;
        if self.scenario.joins && self.scenario.loses_log {
            state.nodes[2].lost = true;
            state.let_go = true;
        }
        self.tidy(&mut state);
        state
    }

    /// What may be tried. [`Protocol::take`] says whether it is possible.
    pub(crate) fn steps(&self, state: &State, steps: &mut Vec<Step>) {
        if state.is_over(&self.scenario) && !self.breaks(Break::VerdictBelieved) || state.admitted {
            return;
        }
        for node in 0..small(NODES) {
            self.steps_of(state, node, steps);
        }
        steps.extend([Step::Tick, Step::Commit]);
        if self.scenario.learner {
            steps.extend([Step::Retire, Step::TakeOut, Step::LoseLog, Step::LetGo, Step::TakeIn]);
        }
    }

    fn steps_of(&self, state: &State, node: u8, steps: &mut Vec<Step>) {
        let at = usize::from(node);
        if self.scenario.holds[at] {
            steps.push(Step::Send { node });
            for slot in 0..self.scenario.slots[at] {
                if state.nodes[at].slots[usize::from(slot)].stage == Stage::Free {
                    continue;
                }
                steps.extend([Step::TakeUp { node, slot }, Step::Lose { node, slot }]);
                let leaders = (0..small(NODES)).filter(|at| self.scenario.leads[usize::from(*at)]);
                steps.extend(leaders.map(|at| Step::Arrive { node, slot, at }));
            }
            if state.acked {
                steps.extend([Step::Begin { node }, Step::Look { node }, Step::Check { node }]);
            }
            if self.broken.is_some() {
                steps.extend((0..small(NODES)).map(|at| Step::Forbidden { node, at }));
            }
        }
        if self.scenario.leads[at] {
            steps.extend([
                Step::RoundBegins { at: node },
                Step::RoundEnds { at: node },
                Step::Observe { node },
            ]);
            steps.extend([
                Step::Propose { node },
                Step::Freeze { node },
                Step::Acknowledge { at: node },
            ]);
            steps.extend((0..=state.len - state.committed).map(|kept| Step::Elect { node, kept }));
            if state.nodes[at].barrier.is_some() {
                steps.extend((0..small(NODES)).map(|other| Step::Confirm { node: other, at: node }));
            }
        }
        if self.scenario.leads[at] || self.scenario.holds[at] {
            steps.extend([Step::Apply { node }, Step::Restart { node }, Step::Resync { node }]);
            if self.scenario.slips > 0 {
                steps.extend([Step::TickSlow { node }, Step::TickFast { node }]);
            }
        }
    }

    /// What comes of a step; none if it is not possible, or changes nothing.
    pub(crate) fn take(&self, before: &State, step: Step) -> Option<State> {
        let mut state = *before;
        let possible = match step {
            Step::Send { node } => self.send(&mut state, usize::from(node)),
            Step::Arrive { node, slot, at } => {
                self.arrive(&mut state, usize::from(node), usize::from(slot), usize::from(at))
            }
            Step::RoundBegins { at } => self.round_begins(&mut state, usize::from(at)),
            Step::RoundEnds { at } => self.round_ends(&mut state, usize::from(at)),
            Step::TakeUp { node, slot } => self.take_up(&mut state, usize::from(node), usize::from(slot)),
            Step::Lose { node, slot } => lose(&mut state, usize::from(node), usize::from(slot)),
            Step::Tick => self.pass(&mut state, [1; NODES]),
            Step::TickSlow { node } => self.slip(&mut state, usize::from(node), 0),
            Step::TickFast { node } => self.slip(&mut state, usize::from(node), 2),
            Step::Elect { node, kept } => self.elect(&mut state, usize::from(node), kept),
            Step::Observe { node } => self.observe(&mut state, usize::from(node)),
            Step::Propose { node } => self.propose(&mut state, usize::from(node)),
            Step::Commit => self.commit(&mut state),
            Step::Apply { node } => self.apply(&mut state, usize::from(node)),
            Step::Freeze { node } => self.freeze(&mut state, usize::from(node)),
            Step::Confirm { node, at } => self.confirm(&mut state, usize::from(node), usize::from(at)),
            Step::Acknowledge { at } => self.acknowledge(&mut state, usize::from(at)),
            Step::Restart { node } => self.restart(&mut state, usize::from(node)),
            Step::Resync { node } => self.resync(&mut state, usize::from(node)),
            Step::Retire => self.retire(&mut state),
            Step::TakeOut => self.take_out(&mut state),
            Step::LoseLog => self.lose_log(&mut state),
            Step::LetGo => self.let_go(&mut state),
            Step::TakeIn => self.take_in(&mut state),
            Step::Begin { node } => self.begin_request(&mut state, usize::from(node)),
            Step::Look { node } => look(&mut state, usize::from(node)),
            Step::Check { node } => self.check(&mut state, usize::from(node)),
            Step::Forbidden { node, at } => self.forbidden(&mut state, usize::from(node), usize::from(at)),
        };
        possible?;
        self.tidy(&mut state);
        (state != *before).then_some(state)
    }

    // ---- leases ----

    fn takes_part(&self, state: &State, at: usize) -> Option<()> {
        let node = &state.nodes[at];
        let removed = at == 2 && state.has(node.applied, Kind::Retire);
        (!node.lost && !removed).then_some(())
    }

    fn send(&self, state: &mut State, at: usize) -> Option<()> {
        self.takes_part(state, at)?;
        if !state.is_stale(at) && !self.scenario.fresh {
            return None;
        }
        let slots = &mut state.nodes[at].slots[..usize::from(self.scenario.slots[at])];
        if slots.iter().any(|slot| slot.stage == Stage::Sent) {
            return None;
        }
        let free = slots.iter_mut().find(|slot| slot.stage == Stage::Free)?;
        *free = Slot {
            stage: Stage::Sent,
            age: 0,
        };
        Some(())
    }

    fn may_answer(&self, state: &State, at: usize) -> Option<()> {
        let deposed = self.breaks(Break::RoundWithoutQuorum) && state.nodes[at].office != 0;
        (state.leads(at) || deposed).then_some(())
    }

    fn arrive(&self, state: &mut State, at: usize, slot: usize, leader: usize) -> Option<()> {
        let slot_now = state.nodes[at].slots[slot];
        if slot_now.stage != Stage::Sent {
            return None;
        }
        self.may_answer(state, leader)?;
        // Rule 2: the arrival is noted first, whatever comes of it.
        if !self.breaks(Break::LedgerAfterIndex) {
            state.nodes[leader].since[at] = 0;
        }
        let config = if self.breaks(Break::ProposedConfiguration) {
            state.entries(state.len)
        } else {
            self.configuration(state, leader)
        };
        let retired = at == 2 && state.has(state.nodes[leader].applied, Kind::Retire);
        let granted = self.is_member(config, at) && !retired;
        let under_way = under_way(state, leader);
        let stage = match under_way {
            _ if !granted => Stage::Free,
            Some(covers) if self.breaks(Break::RoundUnderWay) => Stage::InRound {
                at: small(leader),
                covers,
            },
            Some(_) => Stage::Waiting { at: small(leader) },
            // Nothing is under way: a round begins at once. One that began later would fix a newer index.
            None => Stage::InRound {
                at: small(leader),
                covers: read_index_covers(state, leader),
            },
        };
        state.nodes[at].slots[slot].stage = stage;
        Some(())
    }

    fn round_begins(&self, state: &mut State, leader: usize) -> Option<()> {
        self.may_answer(state, leader)?;
        if under_way(state, leader).is_some() {
            return None;
        }
        let covers = read_index_covers(state, leader);
        let mut any = None;
        for slot in state.nodes.iter_mut().flat_map(|node| &mut node.slots) {
            if slot.stage == (Stage::Waiting { at: small(leader) }) {
                slot.stage = Stage::InRound {
                    at: small(leader),
                    covers,
                };
                any = Some(());
            }
        }
        any
    }

    fn round_ends(&self, state: &mut State, leader: usize) -> Option<()> {
        self.may_answer(state, leader)?;
        let mut any = None;
        for at in 0..NODES {
            for slot in 0..2 {
                let Stage::InRound { at: by, covers } = state.nodes[at].slots[slot].stage else {
                    continue;
                };
                if usize::from(by) != leader {
                    continue;
                }
                state.nodes[at].slots[slot].stage = Stage::Granted { covers };
                any = Some(());
                if self.breaks(Break::LedgerAfterIndex) {
                    state.nodes[leader].since[at] = 0;
                }
                if self.breaks(Break::LedgerOverwritten)
                    && covers
                    && let Some(barrier) = &mut state.nodes[leader].barrier
                {
                    barrier.since[at] = DONE;
                }
            }
        }
        any
    }

    fn take_up(&self, state: &mut State, at: usize, slot: usize) -> Option<()> {
        self.takes_part(state, at)?;
        let Slot {
            stage: Stage::Granted { covers },
            age,
        } = state.nodes[at].slots[slot]
        else {
            return None;
        };
        if covers && state.is_stale(at) && !self.breaks(Break::GrantBeforeApplied) {
            return None;
        }
        let left = if self.breaks(Break::LeaseFromAnswer) {
            self.lease(at)
        } else {
            self.lease(at) - age
        };
        let node = &mut state.nodes[at];
        node.lease = node.lease.max(left);
        node.flag = self.breaks(Break::LeaseFlag);
        // Whatever was asked for earlier is given up.
        for other in &mut node.slots {
            if other.age >= age && !self.breaks(Break::LeaseFromAnswer) {
                *other = Slot::default();
            }
        }
        node.slots[slot] = Slot::default();
        Some(())
    }

    // ---- time ----

    fn slip(&self, state: &mut State, at: usize, by: u8) -> Option<()> {
        let bit = 1 << at;
        if state.slipped & bit != 0 || state.slipped.count_ones() >= u32::from(self.scenario.slips) {
            return None;
        }
        let before = state.nodes[at];
        state.slipped |= bit;
        let mut ticks = [1; NODES];
        ticks[at] = by;
        self.pass(state, ticks)?;
        // A clock that nothing is measured by does not slip.
        let mut even = before;
        self.pass_for(&mut even, 1);
        (even != state.nodes[at]).then_some(())
    }

    fn pass(&self, state: &mut State, ticks: [u8; NODES]) -> Option<()> {
        for (node, by) in state.nodes.iter_mut().zip(ticks) {
            self.pass_for(node, by);
        }
        Some(())
    }

    fn pass_for(&self, node: &mut Node, by: u8) {
        let over = WAIT + 1;
        let older = |age: &mut u8| *age = if *age == DONE { DONE } else { (*age + by).min(over) };
        if node.office != 0 {
            node.since.iter_mut().for_each(older);
            node.early.iter_mut().for_each(older);
        }
        if self.keeps_led() {
            older(&mut node.led);
        }
        if let Some(barrier) = &mut node.barrier {
            barrier.since.iter_mut().for_each(older);
        }
        for slot in node.slots.iter_mut().filter(|slot| slot.stage != Stage::Free) {
            slot.age += by;
        }
        node.lease = node.lease.saturating_sub(by);
        if let Req::Begun { left } | Req::Found { left } = &mut node.req {
            *left = left.saturating_sub(by);
        }
    }

    // ---- offices ----

    fn elect(&self, state: &mut State, at: usize, kept: u8) -> Option<()> {
        let tail = state.len - state.committed;
        if state.term == self.scenario.terms || state.nodes[at].lost {
            return None;
        }
        if usize::from(state.leader) == at {
            // It has all of its own entries, and none is committed by that.
            if kept != tail {
                return None;
            }
        } else {
            // What has reached the one who is elected, beside the one who proposed it, is on a majority of three.
            state.committed += kept;
            for gone in state.committed..state.len {
                state.log[usize::from(gone)] = Default::default();
            }
            state.len = state.committed;
            if !state.has(state.len, Kind::Revoke) {
                // Read indexes name what comes to stand there instead.
                uncover(state);
            }
        }
        state.term += 1;
        state.leader = small(at);
        state.nodes.iter_mut().for_each(|node| node.resumes = false);
        Some(())
    }

    fn observe(&self, state: &mut State, at: usize) -> Option<()> {
        if usize::from(state.leader) != at || state.nodes[at].office == state.term || state.nodes[at].lost {
            return None;
        }
        let (term, len) = (state.term, state.len);
        let node = &mut state.nodes[at];
        let resumes = std::mem::take(&mut node.resumes);
        let since = match self.broken {
            Some(Break::OfficeLeftOut) => WAIT + 1,
            Some(Break::OfficeBeforeElection) => node.led,
            Some(Break::OfficeOverResume) if resumes => node.led,
            _ => 0,
        };
        node.led = since;
        node.office = term;
        node.floor = if self.breaks(Break::FloorIgnored) && resumes {
            0
        } else {
            len
        };
        node.since = [since; NODES];
        Some(())
    }

    // ---- revoking ----

    fn propose(&self, state: &mut State, at: usize) -> Option<()> {
        if !state.leads(at) || state.acked || state.own_revoke(at).is_some() || self.is_full(state) {
            return None;
        }
        if self.breaks(Break::RetryAtOnce) && !state.is_stale(at) {
            state.acked = true;
            return Some(());
        }
        state.append(Kind::Revoke);
        if self.breaks(Break::FrozenAtProposal) {
            state.nodes[at].early = state.nodes[at].since;
        }
        Some(())
    }

    fn apply(&self, state: &mut State, at: usize) -> Option<()> {
        let committed = state.committed;
        if state.nodes[at].lost {
            return None;
        }
        let node = &mut state.nodes[at];
        if self.breaks(Break::ViewAfterIndex) {
            // First the index, in a step of its own, then the view.
            if node.shown == node.applied {
                return (node.shown < committed).then(|| node.shown += 1);
            }
            node.applied = node.shown;
        } else {
            if node.applied == committed {
                return None;
            }
            node.applied += 1;
            // Whoever does not lead goes on to what means something to it.
            let means = |kind| kind == Kind::Revoke || at == 2 && kind == Kind::Retire;
            while node.office == 0 && node.applied < committed && !means(state.log[usize::from(node.applied) - 1].kind)
            {
                node.applied += 1;
            }
            node.shown = node.applied;
        }
        let applied = node.applied;
        let kind = state.log[usize::from(applied) - 1].kind;
        if at == 2 && kind == Kind::Retire {
            // A node that reads of its own removal shuts its gate before it says how far it is.
            shut(&mut state.nodes[at]);
        }
        if self.breaks(Break::LedgerPurged) && kind == Kind::TakeOut {
            state.nodes[at].since[2] = state.nodes[at].led;
        }
        Some(())
    }

    /// A majority holds an entry of this term, and with it all before. Nobody but the leader knows, and until it does that is as if
    /// it were not so; and what it knows to be committed counts for its read indexes before it has applied it.
    fn commit(&self, state: &mut State) -> Option<()> {
        let before = state.committed;
        let first = (before..state.len).find(|at| state.log[usize::from(*at)].term == state.term)?;
        state.committed = first + 1;
        let leader = usize::from(state.leader);
        let keeps_up = state.leads(leader) && state.nodes[leader].applied == before;
        if keeps_up && !self.breaks(Break::ViewAfterIndex) {
            while state.nodes[leader].applied < state.committed {
                self.apply(state, leader)?;
            }
        }
        Some(())
    }

    fn freeze(&self, state: &mut State, at: usize) -> Option<()> {
        let node = &state.nodes[at];
        if node.office == 0 || node.barrier.is_some() || state.acked {
            return None;
        }
        let revoke = state.own_revoke(at)?;
        if node.applied.max(node.known) <= revoke {
            return None;
        }
        // Who was removed stands in the state, which must not be behind what is known of the membership.
        if node.applied < node.known && !self.breaks(Break::BarrierOnOlderState) {
            return None;
        }
        let frozen = if self.breaks(Break::FrozenAtProposal) {
            node.early
        } else {
            node.since
        };
        let since = std::array::from_fn(|other| match other {
            // Its own view is that far, or this would not be known.
            _ if other == at && node.applied > revoke => DONE,
            _ if self.may_hold(state, at, other) => frozen[other],
            _ => DONE,
        });
        state.nodes[at].barrier = Some(Barrier { at: revoke, since });
        Some(())
    }

    fn confirm(&self, state: &mut State, at: usize, leader: usize) -> Option<()> {
        let barrier = state.nodes[leader].barrier?;
        if state.nodes[at].lost || barrier.since[at] == DONE {
            return None;
        }
        let far = if self.breaks(Break::AckOnMatched) {
            state.committed
        } else {
            state.nodes[at].shown
        };
        if far <= barrier.at {
            return None;
        }
        state.nodes[leader].barrier.as_mut()?.since[at] = DONE;
        Some(())
    }

    fn acknowledge(&self, state: &mut State, at: usize) -> Option<()> {
        let barrier = state.nodes[at].barrier?;
        let over = |since: &u8| *since > self.wait();
        barrier.since.iter().all(over).then(|| state.acked = true)
    }

    // ---- processes ----

    fn restart(&self, state: &mut State, at: usize) -> Option<()> {
        if state.restarts == self.scenario.restarts {
            return None;
        }
        state.restarts += 1;
        let resumes = usize::from(state.leader) == at;
        let keeps = self.breaks(Break::LeaseOverRestart);
        let ignored = self.breaks(Break::IncarnationIgnored);
        let node = &mut state.nodes[at];
        let stray = node
            .slots
            .iter()
            .any(|slot| slot.stage == Stage::Granted { covers: false });
        *node = Node {
            lease: if keeps { node.lease } else { 0 },
            stray: ignored && stray,
            led: node.led,
            resumes: resumes && matches!(self.broken, Some(Break::FloorIgnored | Break::OfficeOverResume)),
            lost: node.lost,
            ..Node::default()
        };
        Some(())
    }

    fn resync(&self, state: &mut State, at: usize) -> Option<()> {
        if state.resyncs == self.scenario.resyncs || state.nodes[at].applied == 0 {
            return None;
        }
        state.resyncs += 1;
        let node = &mut state.nodes[at];
        let before = *node;
        node.known = node.known.max(node.applied);
        node.applied = 0;
        node.shown = 0;
        shut(node);
        if self.breaks(Break::LeaseOverResync) {
            node.lease = before.lease;
        }
        if self.breaks(Break::ResyncWithoutCut) {
            node.req = before.req;
        }
        Some(())
    }

    // ---- membership ----

    fn is_full(&self, state: &State) -> bool {
        state.len == self.scenario.entries
    }

    fn current_leader(&self, state: &State) -> Option<usize> {
        let leader = usize::from(state.leader);
        (state.leads(leader) && !self.is_full(state)).then_some(leader)
    }

    fn retire(&self, state: &mut State) -> Option<()> {
        self.current_leader(state)?;
        if !self.scenario.retires || state.has(state.len, Kind::Retire) {
            return None;
        }
        self.is_member(state.entries(state.len), 2)
            .then(|| state.append(Kind::Retire))
    }

    fn take_out(&self, state: &mut State) -> Option<()> {
        let leader = self.current_leader(state)?;
        if !state.has(state.nodes[leader].applied, Kind::Retire) || !self.is_member(state.entries(state.len), 2) {
            return None;
        }
        state.append(Kind::TakeOut);
        Some(())
    }

    fn lose_log(&self, state: &mut State) -> Option<()> {
        if !self.scenario.loses_log || state.let_go {
            return None;
        }
        state.let_go = true;
        state.nodes[2] = Node {
            lost: true,
            ..Node::default()
        };
        Some(())
    }

    fn let_go(&self, state: &mut State) -> Option<()> {
        self.current_leader(state)?;
        if !state.let_go || !self.is_member(state.entries(state.len), 2) {
            return None;
        }
        state.append(Kind::TakeOut);
        Some(())
    }

    fn take_in(&self, state: &mut State) -> Option<()> {
        let leader = self.current_leader(state)?;
        let applied = state.entries(state.nodes[leader].applied);
        if self.is_member(applied, 2)
            || self.is_member(state.entries(state.len), 2)
            || applied.iter().any(|e| e.kind == Kind::Retire)
        {
            return None;
        }
        state.nodes[2].lost = false;
        state.append(Kind::TakeIn);
        Some(())
    }

    // ---- admission ----

    fn begin_request(&self, state: &mut State, at: usize) -> Option<()> {
        if !state.acked || state.nodes[at].req != Req::None {
            return None;
        }
        // Whose view is without the token denies, unless the view may go back.
        let may_go_back = state.resyncs < self.scenario.resyncs || self.breaks(Break::VerdictBelieved);
        if !state.is_stale(at) && !may_go_back {
            return None;
        }
        let node = &mut state.nodes[at];
        node.req = Req::Begun { left: node.lease };
        Some(())
    }

    fn check(&self, state: &mut State, at: usize) -> Option<()> {
        let node = &mut state.nodes[at];
        let Req::Found { left } = node.req else { return None };
        node.req = Req::None;
        let holds = match self.broken {
            Some(Break::LeaseFlag) => node.flag,
            Some(Break::LeaseAfterLook) => node.lease > 0,
            Some(Break::LeaderExempt) if node.office != 0 => true,
            _ => left > 0 && node.lease > 0,
        };
        state.admitted |= holds;
        Some(())
    }

    /// What only mutants do.
    fn forbidden(&self, state: &mut State, at: usize, other: usize) -> Option<()> {
        let lease = self.lease(at);
        match self.broken? {
            Break::HeartbeatAsLease if state.nodes[other].office != 0 && other != at => {
                state.nodes[at].lease = lease;
                Some(())
            }
            Break::RetryKeepsId if other == at => {
                let slot = state.nodes[at].slots.iter_mut().find(|s| s.stage != Stage::Free)?;
                slot.age = 0;
                Some(())
            }
            Break::IncarnationIgnored if other == at && state.nodes[at].stray => {
                let node = &mut state.nodes[at];
                let slot = node.slots.iter_mut().find(|s| s.stage != Stage::Free)?;
                slot.stage = Stage::Granted { covers: false };
                node.stray = false;
                Some(())
            }
            Break::OfficeBeforeElection if other == at && self.scenario.leads[at] && state.nodes[at].office == 0 => {
                // The clock is read when the node begins to campaign.
                state.nodes[at].led = 0;
                Some(())
            }
            Break::VerdictBelieved if other != at && state.nodes[other].office != 0 => {
                let asks = matches!(state.nodes[at].req, Req::Begun { left } if left > 0) && state.nodes[at].lease > 0;
                if !asks || state.is_stale(at) || !state.is_stale(other) {
                    return None;
                }
                state.admitted = true;
                Some(())
            }
            Break::LeaseFlag if other == at && state.nodes[at].lease == 0 => {
                // The timer fires at last.
                state.nodes[at].flag = false;
                Some(())
            }
            _ => None,
        }
    }
}

fn lose(state: &mut State, at: usize, slot: usize) -> Option<()> {
    let slot = &mut state.nodes[at].slots[slot];
    matches!(slot.stage, Stage::Sent | Stage::Granted { .. }).then(|| *slot = Slot::default())
}

/// Whether the read index of a leader's round, if one is under way, covers the revoke.
fn under_way(state: &State, leader: usize) -> Option<bool> {
    let mut slots = state.nodes.iter().flat_map(|node| &node.slots);
    slots.find_map(|slot| match slot.stage {
        Stage::InRound { at, covers } if usize::from(at) == leader => Some(covers),
        _ => None,
    })
}

/// Whether the read index that a leader would fix now is at or above the revoke.
fn read_index_covers(state: &State, leader: usize) -> bool {
    let node = &state.nodes[leader];
    state.has(node.applied.max(node.known).max(node.floor), Kind::Revoke)
}

fn uncover(state: &mut State) {
    for slot in state.nodes.iter_mut().flat_map(|node| &mut node.slots) {
        if let Stage::InRound { covers, .. } | Stage::Granted { covers } = &mut slot.stage {
            *covers = false;
        }
    }
}

/// The gate is shut: the lease, what was asked for, and what is open.
fn shut(node: &mut Node) {
    node.lease = 0;
    node.flag = false;
    node.slots = [Slot::default(); 2];
    node.req = Req::None;
}

fn look(state: &mut State, at: usize) -> Option<()> {
    let Req::Begun { left } = state.nodes[at].req else {
        return None;
    };
    state.nodes[at].req = if state.is_stale(at) {
        Req::Found { left }
    } else {
        Req::None
    };
    Some(())
}
