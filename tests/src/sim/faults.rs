//! What goes wrong, by seed: at least ten faults, of every kind that the guarantee speaks of.

use std::collections::BTreeMap;

use mcp_model::ids::NodeId;

use super::machine::{MS, Machine, Role};
use super::story::{Beat, Deed};
use super::world::{Event, HEALED, World};

/// Faults of one seed, at least.
pub(crate) const FAULTS: u64 = 10;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Fault {
    Loss,
    Delay,
    Partition,
    OneWay,
    CutOff,
    Pause,
    Suspend,
    Crash,
    CrashOfTheLeader,
    Reboot,
    Slew,
    WallStep,
    LeaderChange,
    Mend,
    SlowApply,
    SlowDisk,
    Removal,
    Addition,
    UnfinishedAddition,
    /// The end of that: the leader is away for as long as it takes to elect another.
    LeaderOvertaken,
    /// Or somebody else is made to lead, and the leader goes on.
    LeaderDeposed,
    LogLost,
    /// A request to be let go that has been on its way for long, and soon another leader.
    LetGoLate,
}

const KINDS: [Fault; 21] = [
    Fault::Loss,
    Fault::Delay,
    Fault::Partition,
    Fault::OneWay,
    Fault::CutOff,
    Fault::Pause,
    Fault::Suspend,
    Fault::Crash,
    Fault::CrashOfTheLeader,
    Fault::Reboot,
    Fault::Slew,
    Fault::WallStep,
    Fault::LeaderChange,
    Fault::Mend,
    Fault::SlowApply,
    Fault::SlowDisk,
    Fault::Removal,
    Fault::Addition,
    Fault::UnfinishedAddition,
    Fault::LogLost,
    Fault::LetGoLate,
];

#[derive(Default)]
pub(crate) struct Faults {
    /// Who is to be a member, and whether it votes.
    pub(crate) wanted: BTreeMap<NodeId, bool>,
    planned: Vec<Fault>,
    pub(crate) happened: BTreeMap<Fault, u64>,
    /// Who was let go, how often.
    pub(crate) let_go: BTreeMap<NodeId, u64>,
    changed: u64,
}

impl World {
    pub(crate) fn plan(&mut self) {
        let count = FAULTS + 2 + self.below(8);
        for number in 0..count {
            let kind = KINDS[self.below(KINDS.len() as u64) as usize];
            self.faults.planned.push(kind);
            let at = 1_500 * MS + self.below(HEALED - 4_000 * MS);
            self.at(at, Event::Fault(number as usize));
        }
        self.at(HEALED, Event::Fault(usize::MAX));
    }

    pub(crate) fn fault(&mut self, number: usize) {
        if number == usize::MAX {
            return self.heal();
        }
        let kind = self.faults.planned[number];
        self.strike(kind);
    }

    /// Something happens just when a right is taken away.
    pub(crate) fn trouble_now(&mut self) {
        const SUDDEN: [Fault; 8] = [
            Fault::CutOff,
            Fault::CutOff,
            Fault::Pause,
            Fault::OneWay,
            Fault::CrashOfTheLeader,
            Fault::Crash,
            Fault::SlowApply,
            Fault::LeaderChange,
        ];
        let kind = SUDDEN[self.below(SUDDEN.len() as u64) as usize];
        let number = self.faults.planned.len();
        self.faults.planned.push(kind);
        let soon = self.below(60 * MS);
        self.at(self.now + soon, Event::Fault(number));
    }

    fn heal(&mut self) {
        let now = self.now;
        for row in &mut self.net.blocked {
            row.fill(0);
        }
        (self.net.lossy_until, self.net.slow_until) = (0, 0);
        for at in 0..self.machines.len() {
            let machine = &mut self.machines[at];
            machine.paused_until = machine.paused_until.min(now);
            (machine.slow_apply_until, machine.slow_disk_until) = (0, 0);
            machine.clocks.slew(now, 0);
        }
        self.note(&[14], |s| s.push_str("everything is well again"));
    }

    fn leader_slot(&self) -> Option<usize> {
        let leads = |m: &Machine| m.process.as_ref().is_some_and(|p| p.role == Role::Leader);
        let leaders = self.machines.iter().enumerate().filter(|(_, m)| leads(m));
        leaders.max_by_key(|(_, m)| m.disk.term).map(|(at, _)| at)
    }

    fn strike(&mut self, kind: Fault) {
        let slots = self.machines.len() as u64;
        let at = self.below(slots) as usize;
        let left = HEALED.saturating_sub(self.now).max(1);
        let long = (150 * MS + self.below(3_800 * MS)).min(left);
        let until = self.now + long;
        let me = self.machines[at].me;
        *self.faults.happened.entry(kind).or_insert(0) += 1;
        self.note(&[15, kind as u64, at as u64, long], |s| {
            s.push_str(&format!("FAULT: {kind:?}, for {} ms, of {me}", long / MS));
        });
        match kind {
            Fault::Loss => self.net.lossy_until = until,
            Fault::Delay => {
                self.net.slow_until = until;
                self.net.slow_ms = 20 + self.below(400);
            }
            Fault::Partition => {
                let sides = self.random.number();
                let side = |slot: usize| sides >> slot & 1;
                self.block(until, |a, b| side(a) != side(b));
            }
            Fault::OneWay => match self.below(3) {
                0 => self.block(until, |_, b| b == at),
                1 => self.block(until, |a, _| a == at),
                _ => {
                    let other = self.below(slots) as usize;
                    self.block(until, |a, b| a == at && b == other);
                }
            },
            Fault::CutOff => self.block(until, |a, b| a == at || b == at),
            Fault::Pause => self.pause(at, until),
            Fault::Suspend => {
                self.pause(at, until);
                self.machines[at].clocks.suspend(long);
            }
            Fault::Crash => self.crash(at, false),
            Fault::Reboot => self.crash(at, true),
            Fault::CrashOfTheLeader => {
                if let Some(leader) = self.leader_slot() {
                    self.crash(leader, false);
                }
            }
            Fault::LeaderOvertaken => {
                if let Some(leader) = self.leader_slot() {
                    let down = 500 * MS + self.below(700 * MS);
                    self.crash_for(leader, false, down);
                }
            }
            Fault::Slew => {
                let now = self.now;
                let ppm = i64::try_from(self.below(166_000)).unwrap_or(0) - 83_000;
                self.machines[at].clocks.slew(now, ppm);
            }
            Fault::WallStep => {
                let off = i64::try_from(self.below(1_200_000)).unwrap_or(0) - 600_000;
                self.machines[at].clocks.wall_off_ms = off;
            }
            Fault::LeaderChange | Fault::LeaderDeposed => {
                if let Some(leader) = self.leader_slot() {
                    self.hand_over(leader);
                }
            }
            Fault::LogLost => {
                let down = 20 * MS + self.below(900 * MS);
                self.lose_log(at, down);
            }
            Fault::LetGoLate => self.late_let_go(at),
            Fault::Mend => self.mend(at),
            Fault::SlowApply => self.machines[at].slow_apply_until = until,
            Fault::SlowDisk => self.machines[at].slow_disk_until = until,
            Fault::Removal => self.remove_one(),
            Fault::Addition => drop(self.add_one()),
            Fault::UnfinishedAddition => self.add_and_lose(),
        }
    }

    fn block(&mut self, until: u64, which: impl Fn(usize, usize) -> bool) {
        for (a, row) in self.net.blocked.iter_mut().enumerate() {
            for (b, blocked) in row.iter_mut().enumerate() {
                if a != b && which(a, b) {
                    *blocked = until.max(*blocked);
                }
            }
        }
    }

    fn pause(&mut self, at: usize, until: u64) {
        let paused = &mut self.machines[at].paused_until;
        *paused = until.max(*paused);
    }

    fn crash(&mut self, at: usize, reboot: bool) {
        let down = match self.below(2) {
            0 => 20 * MS + self.below(200 * MS),
            _ => 200 * MS + self.below(2_500 * MS),
        };
        self.crash_for(at, reboot, down);
    }

    fn crash_for(&mut self, at: usize, reboot: bool, down: u64) {
        let now = self.now;
        let machine = &mut self.machines[at];
        if machine.process.take().is_none() {
            return;
        }
        machine.run += 1;
        machine.paused_until = 0;
        if reboot {
            machine.clocks.reboot(now);
            (machine.disk.lease, machine.disk.office) = (None, None);
        }
        self.at((now + down).min(HEALED.max(now + MS)), Event::Start(at));
    }

    /// One voter goes for ever, and another comes in its place some time later, under another name.
    fn remove_one(&mut self) {
        if self.now < self.faults.changed + 6_000 * MS || self.now > HEALED - 6_000 * MS {
            return;
        }
        let leader = self.leader_slot().map(|at| self.machines[at].me);
        let voters: Vec<NodeId> = self
            .faults
            .wanted
            .iter()
            .filter(|(_, votes)| **votes)
            .map(|(n, _)| *n)
            .collect();
        let others: Vec<NodeId> = voters
            .iter()
            .copied()
            .filter(|n| Some(*n) != leader || voters.len() > 3)
            .collect();
        if voters.len() < 3 {
            return;
        }
        let gone = others[self.below(others.len() as u64) as usize];
        self.faults.changed = self.now;
        self.faults.wanted.remove(&gone);
        // Sometimes it does not hear of it.
        if let Some(at) = self.slot(gone).filter(|_| self.below(3) > 0) {
            let until = self.now + 500 * MS + self.below(3_000 * MS);
            self.block(until, |a, b| a == at || b == at);
        }
        self.at(self.now + 1, Event::Story(Beat::Begin(Deed::Retire(gone))));
    }

    /// The machine without a part to play gets one.
    fn add_one(&mut self) -> Option<usize> {
        if self.now < self.faults.changed + 2_000 * MS || self.now > HEALED - 5_000 * MS {
            return None;
        }
        let at = self
            .machines
            .iter()
            .position(|m| !self.faults.wanted.contains_key(&m.me))?;
        // What was removed a moment ago may still run and hold a lease: it keeps its machine until then.
        if self.machines[at].process.is_some() && self.now < self.faults.changed + 4_000 * MS {
            return None;
        }
        // And until the others are without it: a change that is decided half way may still need it.
        let me = self.machines[at].me;
        let mut others = self.machines.iter().filter(|m| m.me != me).map(|m| &m.disk);
        if others.any(|d| d.config(d.committed).has(me) || d.config(u64::MAX).has(me)) {
            return None;
        }
        self.faults.changed = self.now;
        let node = NodeId(self.machines[at].me.0 + 100);
        let machine = &mut self.machines[at];
        machine.run += 1;
        machine.me = node;
        machine.disk = Default::default();
        machine.lost = false;
        machine.process = None;
        machine.paused_until = 0;
        let votes = self.one_in(2);
        self.faults.wanted.insert(node, votes);
        self.start(at, false);
        Some(at)
    }

    /// A node is taken in by a leader whose entries reach the others late, and who dies before they have it.
    fn add_and_lose(&mut self) {
        let Some(leader) = self.leader_slot() else { return };
        let Some(new) = self.add_one() else { return };
        let soon = 250 * MS + self.below(500 * MS);
        let until = self.now + soon;
        for at in (0..self.machines.len()).filter(|at| *at != leader && *at != new) {
            self.machines[at].slow_disk_until = until;
        }
        let end = match self.one_in(2) {
            true => Fault::LeaderOvertaken,
            false => Fault::LeaderDeposed,
        };
        self.soon_another_leader(end, soon);
    }

    /// A request of a member that asked to be let go once arrives now, though it is back for long and may hold a lease. Who leads soon knows of
    /// no renewal of its.
    fn late_let_go(&mut self, at: usize) {
        let Some(leader) = self.leader_slot().filter(|leader| *leader != at) else {
            return;
        };
        let (node, to) = (self.machines[at].me, self.machines[leader].me);
        self.let_go_late(node, to, 0, self.now + 1);
        let soon = self.below(150 * MS);
        self.soon_another_leader(Fault::LeaderDeposed, soon);
    }

    /// Somebody is revoked when nobody leads: it is the first thing that the next leader does.
    fn soon_another_leader(&mut self, how: Fault, soon: u64) {
        let number = self.faults.planned.len();
        self.faults.planned.push(how);
        let mut spare = super::story::SPARE;
        if let Some(token) = spare.find(|t| self.story.tokens[*t].revoke_asked.is_none()) {
            let then = self.now + soon + self.below(300 * MS);
            self.at(then, Event::Story(Beat::Begin(Deed::Revoke(token))));
        }
        self.at(self.now + soon, Event::Fault(number));
    }
}
