//! The abstract ordered log: terms, votes, entries and rounds among simulated machines, without disks, snapshots or openraft. It decides
//! the order, commits, and says who leads; nothing about leases is in here.

use std::collections::BTreeSet;
use std::rc::Rc;

use mcp_model::ids::NodeId;
use mcp_model::office::Found;
use mcp_model::records::Retirement;
use mcp_model::tables;

use super::machine::{Answer, Config, Entry, Kind, MS, Msg, Role, RoundRun};
use super::mutant::Mutant;
use super::world::{Timer, World};

/// Entries of one message.
const ENTRIES_MAX: usize = 64;

impl World {
    pub(crate) fn step_down(&mut self, at: usize, term: u64, leader: Option<NodeId>) {
        let machine = &mut self.machines[at];
        if term > machine.disk.term {
            (machine.disk.term, machine.disk.voted) = (term, None);
        }
        let process = self.process(at);
        let changed = process.role != Role::Follower || process.leader != leader;
        let led = process.role == Role::Leader;
        process.role = Role::Follower;
        process.leader = leader;
        if led {
            let pending = std::mem::take(&mut process.pending);
            for (_, (_, op, attempt, _)) in pending {
                self.answer(op, attempt, Answer::Unknown);
            }
            self.end_round(at, None);
        }
        if changed {
            let late = self.small_gap();
            self.after(at, late, Timer::Observe);
        }
    }

    pub(crate) fn small_gap(&mut self) -> u64 {
        if self.one_in(30) {
            self.below(300 * MS)
        } else {
            self.below(MS / 2)
        }
    }

    pub(crate) fn elect(&mut self, at: usize) {
        let machine = &mut self.machines[at];
        let me = machine.me;
        machine.disk.term += 1;
        machine.disk.voted = Some(me);
        let (term, last) = (machine.disk.term, machine.disk.last());
        let process = self.process(at);
        process.role = Role::Candidate;
        process.leader = None;
        process.votes = BTreeSet::from([me]);
        let voters = Rc::clone(&process.appended_config);
        self.note(&[2, me.0, term], |s| {
            s.push_str(&format!("{me} campaigns in term {term}"))
        });
        for voter in voters.voters.iter().filter(|v| **v != me) {
            self.send(at, *voter, Msg::Vote { term, last });
        }
        self.count_votes(at);
    }

    pub(crate) fn on_vote(&mut self, at: usize, from: NodeId, term: u64, last: (u64, u64)) {
        let now = self.reading(at);
        let silence = self.timers.leader_silence_ms;
        let machine = &self.machines[at];
        let (own_term, voted, own_last) = (machine.disk.term, machine.disk.voted, machine.disk.last());
        let process = self.process(at);
        let leads = process.role == Role::Leader && !process.leaving;
        let loyal = leads || process.leader.is_some_and(|l| l != from) && now.ms_since(process.heard) < silence;
        let free = term > own_term || term == own_term && voted.is_none_or(|v| v == from);
        let granted = free && !loyal && last >= own_last;
        if granted {
            self.step_down(at, term, None);
            self.machines[at].disk.voted = Some(from);
            self.process(at).voted_at = now;
        }
        let term = self.machines[at].disk.term;
        self.send(at, from, Msg::Voted { term, granted });
    }

    pub(crate) fn on_voted(&mut self, at: usize, from: NodeId, term: u64, granted: bool) {
        let own = self.machines[at].disk.term;
        if term > own {
            return self.step_down(at, term, None);
        }
        if granted && term == own && self.process(at).role == Role::Candidate {
            self.process(at).votes.insert(from);
            self.count_votes(at);
        }
    }

    fn count_votes(&mut self, at: usize) {
        let process = self.process(at);
        let voters = &process.appended_config.voters;
        if voters.intersection(&process.votes).count() > voters.len() / 2 {
            self.lead(at, true);
        }
    }

    /// Leads from here on: after an election with a blank entry, after a restart in the same term with nothing.
    pub(crate) fn lead(&mut self, at: usize, elected: bool) {
        let machine = &mut self.machines[at];
        let (me, term) = (machine.me, machine.disk.term);
        machine.disk.led = Some(term);
        if elected {
            machine.disk.log.push(Entry {
                term,
                kind: Kind::Blank,
            });
        }
        let process = self.process(at);
        process.role = Role::Leader;
        process.leader = Some(me);
        process.next.clear();
        process.matched.clear();
        process.stays.clear();
        process.letting_go.clear();
        self.note(&[3, me.0, term], |s| {
            s.push_str(&format!("{me} leads in term {term}, elected {elected}"))
        });
        let late = self.small_gap();
        self.after(at, late, Timer::Observe);
        self.after(at, 100 * MS, Timer::Heartbeat(term));
        self.after(at, 200 * MS, Timer::Members(term));
        self.broadcast(at);
        self.advance(at);
    }

    pub(crate) fn propose(&mut self, at: usize, kind: Kind) -> (u64, u64) {
        let disk = &mut self.machines[at].disk;
        let term = disk.term;
        disk.log.push(Entry {
            term,
            kind: kind.clone(),
        });
        let index = disk.log.len() as u64;
        if let Kind::Config(config) = kind {
            let process = self.process(at);
            for gone in process.appended_config.all().filter(|node| !config.has(*node)) {
                // Whoever comes back comes anew: what it has confirmed before says nothing.
                *process.stays.entry(gone).or_insert(0) += 1;
                process.next.remove(&gone);
                process.matched.remove(&gone);
            }
            process.appended_config = config;
        }
        self.broadcast(at);
        self.advance(at);
        (index, term)
    }

    pub(crate) fn broadcast(&mut self, at: usize) {
        let me = self.machines[at].me;
        let process = self.process(at);
        if process.leaving {
            return;
        }
        let config = Rc::clone(&process.appended_config);
        for node in config.all().filter(|node| *node != me) {
            self.append_to(at, node);
        }
    }

    fn append_to(&mut self, at: usize, node: NodeId) {
        let last = self.machines[at].disk.last().1;
        let process = self.process(at);
        let next = *process.next.entry(node).or_insert(last.max(1));
        let commit = process.commit;
        let stay = process.stays.get(&node).copied().unwrap_or(0);
        let disk = &self.machines[at].disk;
        let prev = (next - 1).min(last);
        let upto = (prev as usize + ENTRIES_MAX).min(disk.log.len());
        let entries = disk.log[prev as usize..upto].to_vec();
        let (term, prev_term) = (disk.term, disk.term_at(prev));
        self.send(
            at,
            node,
            Msg::Append {
                term,
                prev,
                prev_term,
                entries,
                commit,
                stay,
            },
        );
    }

    pub(crate) fn heartbeat(&mut self, at: usize, term: u64) {
        if self.machines[at].disk.term != term || self.process(at).role != Role::Leader {
            return;
        }
        self.broadcast(at);
        self.after(at, 100 * MS, Timer::Heartbeat(term));
    }

    pub(crate) fn on_append(
        &mut self,
        (at, from, stored): (usize, NodeId, bool),
        (term, prev, prev_term, stay): (u64, u64, u64, u64),
        entries: Vec<Entry>,
        commit: u64,
    ) {
        let own = self.machines[at].disk.term;
        if term < own {
            return self.send(
                at,
                from,
                Msg::Appended {
                    stay,
                    term: own,
                    matched: None,
                    len: 0,
                },
            );
        }
        self.hear_leader(at, from, term);
        if !stored && !entries.is_empty() && self.machines[at].slow_disk_until > self.now {
            // The disk takes its time. Heartbeats and rounds do not wait for it.
            let to = self.machines[at].me;
            let later = self.now + 300 * MS + self.below(1_200 * MS);
            let msg = Msg::Append {
                term,
                prev,
                prev_term,
                entries,
                commit,
                stay,
            };
            return self.at(
                later,
                super::world::Event::Deliver {
                    from,
                    to,
                    msg,
                    stored: true,
                },
            );
        }
        let disk = &mut self.machines[at].disk;
        let len = disk.log.len() as u64;
        if prev > len || disk.term_at(prev) != prev_term {
            let len = len.min(prev.saturating_sub(1));
            return self.send(
                at,
                from,
                Msg::Appended {
                    stay,
                    term,
                    matched: None,
                    len,
                },
            );
        }
        let mut config = false;
        let count = entries.len() as u64;
        for (index, entry) in (prev..).zip(entries) {
            let place = index as usize;
            if disk.log.get(place).is_some_and(|held| held.term == entry.term) {
                continue;
            }
            assert!(index >= disk.committed, "what is committed is never taken back");
            config |= disk.log[place.min(disk.log.len())..]
                .iter()
                .chain([&entry])
                .any(|e| matches!(e.kind, Kind::Config(_)));
            disk.log.truncate(place);
            disk.log.push(entry);
        }
        let upto = prev + count;
        if config {
            let config = disk.config(disk.log.len() as u64);
            self.process(at).appended_config = config;
        }
        let process = self.process(at);
        process.commit = process.commit.max(commit.min(upto));
        if process.commit > process.applied && process.applying.is_none() {
            self.after(at, 0, Timer::Apply);
        }
        self.send(
            at,
            from,
            Msg::Appended {
                stay,
                term,
                matched: Some(upto),
                len: upto,
            },
        );
    }

    fn hear_leader(&mut self, at: usize, from: NodeId, term: u64) {
        let own = self.machines[at].disk.term;
        let process = self.process(at);
        if term != own || process.role != Role::Follower || process.leader != Some(from) {
            self.step_down(at, term, Some(from));
        }
        let now = self.reading(at);
        let heartbeat = self.rules.is(Mutant::HeartbeatAsLease);
        let live = &self.process(at).live;
        if heartbeat && let Some((incarnation, request)) = live.gate().begin(now) {
            live.gate().granted(incarnation, request, 0, || live.auth_index());
        }
        self.process(at).heard = now;
    }

    pub(crate) fn on_appended(
        &mut self,
        at: usize,
        (from, stay): (NodeId, u64),
        term: u64,
        matched: Option<u64>,
        len: u64,
    ) {
        let own = self.machines[at].disk.term;
        if term > own {
            return self.step_down(at, term, None);
        }
        let last = self.machines[at].disk.last().1;
        let process = self.process(at);
        let stays = process.stays.get(&from).copied().unwrap_or(0);
        if process.role != Role::Leader || term != own || stay != stays {
            return;
        }
        match matched {
            Some(upto) => {
                let known = process.matched.entry(from).or_insert(0);
                *known = (*known).max(upto);
                let next = *known + 1;
                process.next.insert(from, next);
                self.advance(at);
                if upto < last && next <= last {
                    self.append_to(at, from);
                }
            }
            None => {
                process.next.insert(from, (len + 1).min(last + 1));
                self.append_to(at, from);
            }
        }
    }

    fn advance(&mut self, at: usize) {
        let machine = &self.machines[at];
        let (me, term, last) = (machine.me, machine.disk.term, machine.disk.last().1);
        let process = self.process(at);
        let voters = &process.appended_config.voters;
        let of = |node: &NodeId| match *node == me {
            true => last,
            false => process.matched.get(node).copied().unwrap_or(0),
        };
        let mut reached: Vec<u64> = voters.iter().map(of).collect();
        reached.sort_unstable_by(|a, b| b.cmp(a));
        let Some(index) = reached.get(voters.len() / 2).copied() else {
            return;
        };
        if index <= self.process(at).commit || self.machines[at].disk.term_at(index) != term {
            return;
        }
        let process = self.process(at);
        process.commit = index;
        if process.applying.is_none() {
            self.after(at, 0, Timer::Apply);
        }
        self.broadcast(at);
    }

    /// Begins a round if somebody waits for one.
    pub(crate) fn try_round(&mut self, at: usize) {
        loop {
            let (me, term) = (self.machines[at].me, self.machines[at].disk.term);
            let process = self.process(at);
            let Some(round) = process.office.begin_round() else {
                return;
            };
            process.next_id += 1;
            let id = process.next_id;
            let may = process.office.term().is_some() && process.is_fit() && process.role == Role::Leader;
            let (read_index, acks) = (process.commit, BTreeSet::from([me]));
            process.round = Some(RoundRun {
                round,
                id,
                read_index,
                acks,
            });
            if !may {
                self.end_round(at, None);
                continue;
            }
            let config = Rc::clone(&process.appended_config);
            for voter in config.voters.iter().filter(|v| **v != me) {
                self.send(at, *voter, Msg::Round { term, round: id });
            }
            self.after(at, 500 * MS, Timer::RoundOver(id));
            return self.count_round(at);
        }
    }

    pub(crate) fn on_round(&mut self, at: usize, from: NodeId, term: u64, round: u64) {
        if term >= self.machines[at].disk.term {
            self.hear_leader(at, from, term);
            self.send(at, from, Msg::RoundSeen { term, round });
        }
    }

    pub(crate) fn on_round_seen(&mut self, at: usize, from: NodeId, term: u64, seen: u64) {
        if term != self.machines[at].disk.term {
            return;
        }
        if let Some(run) = &mut self.process(at).round
            && run.id == seen
        {
            run.acks.insert(from);
            self.count_round(at);
        }
    }

    fn count_round(&mut self, at: usize) {
        let current_term = self.machines[at].disk.term;
        let process = self.process(at);
        let Some(run) = &process.round else { return };
        let voters = &process.appended_config.voters;
        if voters.intersection(&run.acks).count() > voters.len() / 2 {
            let read_index = run.read_index;
            self.end_round(
                at,
                Some(Found {
                    read_index,
                    current_term,
                }),
            );
            self.try_round(at);
        }
    }

    pub(crate) fn round_over(&mut self, at: usize, over: u64) {
        if self.process(at).round.as_ref().is_some_and(|run| run.id == over) {
            self.end_round(at, None);
            self.try_round(at);
        }
    }

    /// Makes the membership what was decided, one step at a time.
    pub(crate) fn members(&mut self, at: usize, term: u64) {
        let disk = &self.machines[at].disk;
        if disk.term != term || self.process(at).role != Role::Leader {
            return;
        }
        self.after(at, 200 * MS, Timer::Members(term));
        let (me, last) = (self.machines[at].me, self.machines[at].disk.last().1);
        let committed_term = {
            let commit = self.process(at).commit;
            self.machines[at].disk.term_at(commit)
        };
        let wanted = self.faults.wanted.clone();
        let process = self.process(at);
        let settled = process.applied_config == process.appended_config && committed_term == term;
        if !settled || process.office.term().is_none() || !process.is_fit() {
            return;
        }
        let retired: BTreeSet<NodeId> = tables::list::<Retirement>(&process.tables, None, 1_000)
            .iter()
            .map(|r| r.id)
            .collect();
        let mut config = Config::clone(&process.appended_config);
        let gone = config.all().find(|node| retired.contains(node));
        if let Some(gone) = gone {
            if gone == me {
                return self.hand_over(at);
            }
            config.voters.remove(&gone);
            config.learners.remove(&gone);
        } else if let Some(node) = wanted.keys().find(|n| !config.has(**n) && !retired.contains(n)) {
            config.learners.insert(*node);
        } else if let Some(node) = config
            .learners
            .iter()
            .copied()
            .find(|n| wanted.get(n) == Some(&true) && process.matched.get(n).is_some_and(|m| m + 64 >= last))
        {
            config.learners.remove(&node);
            config.voters.insert(node);
        } else {
            return;
        }
        if self.answer_of(&config.voters) <= config.voters.len() / 2 {
            return;
        }
        self.note(&[4, me.0, config.voters.len() as u64], |s| {
            s.push_str(&format!("{me} changes the membership to {config:?}"))
        });
        self.propose(at, Kind::Config(Rc::new(config)));
    }

    /// The leader steps aside for the most caught-up voter.
    pub(crate) fn hand_over(&mut self, at: usize) {
        let me = self.machines[at].me;
        let process = self.process(at);
        if process.role != Role::Leader || process.leaving {
            return;
        }
        let others = process.appended_config.voters.iter().filter(|v| **v != me);
        let Some(heir) = others.max_by_key(|v| process.matched.get(v)).copied() else {
            return;
        };
        process.leaving = true;
        self.note(&[5, me.0, heir.0], |s| {
            s.push_str(&format!("{me} hands over to {heir}"))
        });
        self.send(at, heir, Msg::TakeOver);
        self.after(at, 1_500 * MS, Timer::Stay);
    }
}
