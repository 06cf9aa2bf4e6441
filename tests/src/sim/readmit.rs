//! A machine whose log is lost: it takes no part until a leader of the others has taken it out of the membership, and is taken in again. It
//! asks more than once, so a request may arrive when it has been back for long and holds a lease.

use std::collections::BTreeSet;
use std::rc::Rc;

use mcp_model::ids::NodeId;

use super::machine::{Config, Kind, MS, Msg, Role, Waiter};
use super::world::{Event, HEALED, World};

/// The pause between two requests.
const AGAIN: u64 = 300 * MS;

impl World {
    /// The log of a member is lost, and the process with it. One at a time: more might be more than half.
    pub(crate) fn lose_log(&mut self, at: usize, down: u64) {
        let wanted = self.faults.wanted.contains_key(&self.machines[at].me);
        // A change that needs this node and is decided half way would wait for it, and it for that; and of two voters neither lets the
        // other go.
        let me = self.machines[at].me;
        let mut running = self.machines.iter().filter_map(|m| m.process.as_ref());
        let stuck = |c: &Config| c.voters.contains(&me) && c.voters.len() < 3;
        if running.any(|p| p.applied_config != p.appended_config || stuck(&p.appended_config))
            || !wanted
            || self.machines.iter().any(|m| m.lost)
            || self.machines[at].process.is_none()
        {
            return;
        }
        let machine = &mut self.machines[at];
        machine.process = None;
        machine.run += 1;
        machine.paused_until = 0;
        machine.disk = Default::default();
        machine.lost = true;
        let run = machine.run;
        self.at((self.now + down).min(HEALED), Event::AskToBeLetGo(at, run));
    }

    pub(crate) fn ask_to_be_let_go(&mut self, at: usize, run: u64) {
        let machine = &self.machines[at];
        if !machine.lost || machine.run != run {
            return;
        }
        let me = machine.me;
        let others: BTreeSet<NodeId> = self.machines.iter().map(|m| m.me).filter(|m| *m != me).collect();
        for to in others {
            self.send(at, to, Msg::LetGo { run });
            if self.one_in(3) {
                let late = self.now + 500 * MS + self.below(6_000 * MS);
                self.let_go_late(me, to, run, late);
            }
        }
        self.at(self.now + AGAIN, Event::AskToBeLetGo(at, run));
    }

    /// A request that has been on its way for long.
    pub(crate) fn let_go_late(&mut self, from: NodeId, to: NodeId, run: u64, late: u64) {
        if late < HEALED {
            let msg = Msg::LetGo { run };
            let stored = false;
            self.at(late, Event::Deliver { from, to, msg, stored });
        }
    }

    pub(crate) fn on_let_go(&mut self, at: usize, node: NodeId, run: u64) {
        let (me, term) = (self.machines[at].me, self.machines[at].disk.term);
        let process = self.process(at);
        if node == me || process.role != Role::Leader || process.office.term().is_none() || !process.is_fit() {
            return;
        }
        if !process.appended_config.has(node) && !process.applied_config.has(node) {
            // Whoever leads no more may not know what was decided since.
            if process.office.ask(Waiter::LetGo(node, run)).is_ok() {
                self.try_round(at);
            }
            return;
        }
        if process.applied_config != process.appended_config {
            return;
        }
        let mut config = Config::clone(&process.appended_config);
        let votes = config.voters.remove(&node);
        config.learners.remove(&node);
        let needed = process.appended_config.voters.len() / 2;
        if votes && self.answer_of(&config.voters) <= needed {
            return;
        }
        *self.faults.let_go.entry(node).or_insert(0) += 1;
        self.note(&[17, me.0, node.0], |s| s.push_str(&format!("{me} lets {node} go")));
        let (index, _) = self.propose(at, Kind::Config(Rc::new(config)));
        self.process(at).letting_go.push((node, run, index, term));
    }

    /// How many of these nodes answer, as whoever leads would know: one that waits to be let go does not.
    pub(crate) fn answer_of(&self, nodes: &BTreeSet<NodeId>) -> usize {
        let lost = |node: &NodeId| self.machines.iter().any(|m| m.me == *node && m.lost);
        nodes.iter().filter(|node| !lost(node)).count()
    }

    /// A configuration is applied: whoever is out by it hears of that.
    pub(crate) fn let_go_of_those(&mut self, at: usize) {
        let process = self.process(at);
        let applied = process.applied;
        let out: Vec<_> = process
            .letting_go
            .extract_if(.., |(_, _, index, _)| *index <= applied)
            .collect();
        for (node, run, index, term) in out {
            if self.machines[at].disk.term_at(index) == term {
                self.send(at, node, Msg::LetGone { run, term });
            }
        }
    }

    /// It is out: whatever it has promised and forgotten counts no more. It begins without a log, in the term of who let it go.
    pub(crate) fn begin_anew(&mut self, at: usize, leader: NodeId, (run, term): (u64, u64)) {
        let machine = &mut self.machines[at];
        if !machine.lost || machine.run != run {
            return;
        }
        machine.lost = false;
        (machine.disk.term, machine.disk.voted) = (term, Some(leader));
        self.start(at, false);
    }
}
