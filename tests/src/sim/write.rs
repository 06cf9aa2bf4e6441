//! Commands on their way into the log, and the barrier behind those that take something away.

use std::rc::Rc;

use mcp_model::barrier::{self, Confirmed, Look, has_to_wait};
use mcp_model::command::{Envelope, Outcome};
use mcp_model::ids::NodeId;
use mcp_model::receipt::{Proof, ReplicaReceipt};

use super::machine::{Answer, BarrierRun, Kind, MS, Msg};
use super::mutant::Mutant;
use super::story::Beat;
use super::world::{Event, Timer, World};

/// How long a node is asked to wait for its view before it answers.
const CONFIRM_WAIT_MS: u64 = 200;

impl World {
    pub(crate) fn on_write(&mut self, at: usize, (op, attempt): (usize, u64), wait_ms: u64, said_ms: u64) {
        let me = self.machines[at].me;
        let said_ms = match said_ms {
            0 => self.machines[at].clocks.wall_ms(self.now),
            said => said,
        };
        let leader = self.process(at).leader(me);
        match leader {
            Some(leader) if leader == me => self.lead_write(at, (op, attempt), wait_ms, said_ms),
            Some(leader) => self.send(
                at,
                leader,
                Msg::Write {
                    op,
                    attempt,
                    wait_ms,
                    said_ms,
                },
            ),
            None => self.answer(op, attempt, Answer::NotLeader),
        }
    }

    fn lead_write(&mut self, at: usize, (op, attempt): (usize, u64), wait_ms: u64, said_ms: u64) {
        let process = self.process(at);
        if process.office.term().is_none() || !process.is_fit() || process.role != super::machine::Role::Leader {
            return self.answer(op, attempt, Answer::NotLeader);
        }
        self.proposed(op);
        let now_ms = self.time_of_command(at, said_ms);
        let envelope = Envelope {
            now_ms,
            ..Envelope::clone(&self.story.ops[op].envelope)
        };
        let until = self.now + wait_ms * MS;
        let index = self.machines[at].disk.log.len() as u64 + 1;
        let term = self.machines[at].disk.term;
        self.process(at).pending.insert(index, (term, op, attempt, until));
        self.propose(at, Kind::Command(Rc::new(envelope)));
    }

    /// What was proposed here is committed and applied here.
    pub(crate) fn carried_out(&mut self, at: usize, index: u64, outcome: Outcome) {
        let Some((term, op, attempt, until)) = self.process(at).pending.remove(&index) else {
            return;
        };
        if self.machines[at].disk.term_at(index) != term {
            return self.answer(op, attempt, Answer::Unknown);
        }
        self.owner_changed(op, outcome.index);
        if !has_to_wait(self.rules, &outcome, index) {
            if outcome.restricts {
                self.acknowledge(op, None);
            }
            return self.answer(op, attempt, Answer::Done(outcome, None));
        }
        // Records of a state that is on its way back say nothing of who may hold a lease.
        if self.process(at).live.is_behind() {
            return self.answer(op, attempt, Answer::Unknown);
        }
        let (now, timers, holders) = (self.reading(at), self.timers, self.holders(at));
        let wait_ms = until.saturating_sub(self.now) / MS;
        let begun = barrier::begin(
            &self.process(at).office,
            (outcome.index, term),
            &holders,
            &timers,
            (now, wait_ms),
        );
        let Some(proving) = begun else {
            return self.answer(op, attempt, Answer::Unknown);
        };
        let overwritten = self.rules.is(Mutant::LedgerOverwritten);
        let process = self.process(at);
        let skip = |node: &NodeId| overwritten && process.granted.get(node).is_some_and(|i| *i >= outcome.index);
        let lines = proving
            .into_iter()
            .filter(|p| !skip(&p.node()))
            .map(|p| (p, None, 0))
            .collect();
        process.next_id += 1;
        let id = process.next_id;
        let run = BarrierRun {
            op,
            attempt,
            outcome,
            lines,
        };
        process.barriers.insert(id, run);
        self.look_at_barrier(at, id);
    }

    /// Does for each line what [`barrier::Proving::look`] says.
    pub(crate) fn look_at_barrier(&mut self, at: usize, id: u64) {
        let (now, me) = (self.reading(at), self.machines[at].me);
        let own = self.process(at).live.auth_index();
        let time = self.now;
        let process = self.process(at);
        let linked = [Rc::clone(&process.applied_config), Rc::clone(&process.appended_config)];
        let Some(run) = process.barriers.get_mut(&id) else {
            return;
        };
        let (mut asks, mut soonest) = (Vec::new(), u64::MAX);
        for (number, (proving, proven, asked)) in run.lines.iter_mut().enumerate() {
            if proven.is_some() {
                continue;
            }
            let wait_ms = match proving.look(now) {
                Look::Proven(line) => {
                    *proven = Some(line);
                    continue;
                }
                Look::Ask { wait_ms } => wait_ms,
            };
            if proving.node() == me && own >= proving.index() {
                *proven = Some(proving.applied(now));
                continue;
            }
            soonest = soonest.min(wait_ms);
            let node = proving.node();
            if node != me && *asked <= time && linked.iter().any(|config| config.has(node)) {
                let ms = wait_ms.min(CONFIRM_WAIT_MS);
                asks.push((node, number, proving.index(), ms));
                *asked = time + (ms + CONFIRM_WAIT_MS) * MS;
            }
        }
        if run.lines.iter().all(|(_, proven, _)| proven.is_some()) {
            return self.barrier_over(at, id);
        }
        for (node, line, index, wait_ms) in asks {
            self.send(
                at,
                node,
                Msg::Confirm {
                    barrier: id,
                    line,
                    index,
                    wait_ms,
                },
            );
        }
        self.after(at, soonest.min(2 * CONFIRM_WAIT_MS) * MS, Timer::Barrier(id));
    }

    pub(crate) fn on_confirmed(&mut self, at: usize, id: u64, number: usize, said: &Confirmed) {
        let now = self.reading(at);
        let process = self.process(at);
        let Some(run) = process.barriers.get_mut(&id) else {
            return;
        };
        let Some((proving, proven, asked)) = run.lines.get_mut(number) else {
            return;
        };
        match proving.hear(&process.office, said, now) {
            Ok(line) => *proven = Some(line),
            Err(_) => *asked = 0,
        }
        self.look_at_barrier(at, id);
    }

    fn barrier_over(&mut self, at: usize, id: u64) {
        let Some(run) = self.process(at).barriers.remove(&id) else {
            return;
        };
        let lines: Vec<ReplicaReceipt> = run.lines.into_iter().filter_map(|(_, proven, _)| proven).collect();
        let receipt = World::receipt(run.outcome.index, lines);
        self.truthful(&receipt);
        if receipt.effective() {
            self.acknowledge(run.op, Some(&receipt));
        }
        self.answer(run.op, run.attempt, Answer::Done(run.outcome, Some(receipt)));
    }

    /// A replica that is said to have applied something has, and one whose lease is said to have run out holds none that is older.
    fn truthful(&mut self, receipt: &mcp_model::receipt::Receipt) {
        for line in &receipt.replicas {
            if line.proof == Proof::Applied && !self.oracle.has_reached(line.node, receipt.index) {
                let node = line.node;
                self.violate(format!(
                    "the receipt says that {node} has applied {}: it never had",
                    receipt.index
                ));
            }
        }
    }

    /// Hands an answer to the client, who may not hear it.
    pub(crate) fn answer(&mut self, op: usize, attempt: u64, answer: Answer) {
        if self.one_in(60) {
            return;
        }
        let late = self.below(2 * MS);
        self.at(
            self.now + late,
            Event::Story(Beat::Answer(op, attempt, Box::new(answer))),
        );
    }
}
