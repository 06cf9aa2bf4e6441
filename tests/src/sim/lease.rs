//! Leases, campaigns and the way from the log into the view: our own code, driven by events.

use std::rc::Rc;

use mcp_model::apply::Effects;
use mcp_model::barrier::{self, Confirmed, Holders};
use mcp_model::campaign::{self, Patience, PeerState, Poll, Seen};
use mcp_model::ids::{Incarnation, NodeId};
use mcp_model::lease::RequestId;
use mcp_model::office::{Asker, Found, Office};
use mcp_model::records::Retirement;
use mcp_model::tables;
use mcp_store::admit::Questions;
use mcp_store::live::{Change, Live};

use super::backup::carry_out;
use super::machine::{Applying, Kind, MS, Msg, Process, Role, RoundRun, Step, Waiter};
use super::mutant::Mutant;
use super::world::{Timer, World};

/// How long one renewal may take.
const ANSWER_WAIT: u64 = 400 * MS;

impl World {
    /// A process starts on a machine, with what the disk has kept.
    pub(crate) fn start(&mut self, at: usize, first: bool) {
        let incarnation = Incarnation(self.random.number());
        let now = self.reading(at);
        let (rules, timers) = (self.rules, self.timers);
        let jitter = self.below(timers.jitter_ms + 1);
        let machine = &mut self.machines[at];
        machine.run += 1;
        let (me, disk) = (machine.me, &machine.disk);
        let live = Live::with_rules(rules, incarnation, timers.lease_ms, disk.at);
        live.belongs_to(me);
        live.rebuild(&disk.tables);
        if live.is_removed_in(&disk.tables) {
            live.be_removed();
        }
        let process = Process {
            live,
            tables: disk.tables.clone(),
            applied: disk.at,
            applying: None,
            mending_to: None,
            office: Office::with_rules(rules, 1_024),
            applied_config: disk.config(disk.at),
            appended_config: disk.config(u64::MAX),
            enrolled: disk.enrolled(),
            letting_go: Vec::new(),
            stays: Default::default(),
            questions: Questions::with_rules(rules, super::requests::QUESTIONS_MAX),
            role: Role::Follower,
            leader: None,
            commit: disk.committed,
            votes: Default::default(),
            next: Default::default(),
            matched: Default::default(),
            round: None,
            pending: Default::default(),
            barriers: Default::default(),
            confirms: Vec::new(),
            requests: Default::default(),
            streams: Default::default(),
            patience: Patience::new(now, &timers, jitter),
            poll: None,
            heard: now,
            voted_at: Default::default(),
            leaving: false,
            tick: now,
            observed: now,
            next_id: 0,
            last_published: (incarnation, disk.at),
            renewing: None,
            granted: Default::default(),
        };
        let resumes = disk.led == Some(disk.term) && disk.voted == Some(me);
        let lease = disk.lease;
        machine.process = Some(process);
        self.note(&[6, me.0], |s| s.push_str(&format!("{me} starts")));
        if self.rules.is(Mutant::LeaseKeptOverRestart)
            && let Some(sent) = lease
        {
            let gate = self.process(at).live.gate();
            if let Some((incarnation, request)) = gate.begin(sent) {
                gate.granted(incarnation, request, 0, || u64::MAX);
            }
        }
        let early = if first { 5 } else { 60 };
        let late = self.below(early * MS);
        self.after(at, late, Timer::Renew);
        self.after(at, 25 * MS, Timer::Campaign);
        self.after(at, 100 * MS, Timer::Tick);
        let flush = 2_000 * MS + self.below(4_000 * MS);
        self.after(at, flush, Timer::Flush);
        self.after(at, 500 * MS, Timer::Upkeep);
        self.after(at, 0, Timer::Apply);
        if resumes {
            self.lead(at, false);
        }
    }

    pub(crate) fn observe(&mut self, at: usize) {
        let now = self.reading(at);
        let early = self.rules.is(Mutant::OfficeReadEarly);
        let kept = self.rules.is(Mutant::OfficeKeptOverResume);
        let machine = &mut self.machines[at];
        let (term, last) = (machine.disk.term, machine.disk.last().1);
        let process = machine.process.as_mut().expect("it was looked at before");
        let before = std::mem::replace(&mut process.observed, now);
        if process.role != Role::Leader {
            return process.office.follow();
        }
        let mut reading = if early { before } else { now };
        if kept {
            match machine.disk.office {
                Some((led, since)) if led == term => reading = since,
                _ => machine.disk.office = Some((term, now)),
            }
        }
        process.office.lead(term, last, || reading);
    }

    pub(crate) fn renew(&mut self, at: usize) {
        let now = self.reading(at);
        let me = self.machines[at].me;
        let process = self.process(at);
        let Some(leader) = process.leader(me) else {
            return self.after(at, 50 * MS, Timer::Renew);
        };
        let Some((incarnation, request)) = process.live.gate().begin(now) else {
            return self.after(at, 50 * MS, Timer::Renew);
        };
        process.renewing = Some(request);
        self.after(at, ANSWER_WAIT, Timer::RenewLate(request));
        match leader == me {
            true => self.on_renew(at, me, incarnation, request),
            false => self.send(at, leader, Msg::Renew { incarnation, request }),
        }
    }

    pub(crate) fn renew_late(&mut self, at: usize, request: RequestId) {
        let process = self.process(at);
        process.live.gate().failed(request);
        if process.renewing == Some(request) {
            process.renewing = None;
            self.after(at, 50 * MS, Timer::Renew);
        }
    }

    pub(crate) fn on_renew(&mut self, at: usize, from: NodeId, incarnation: Incarnation, request: RequestId) {
        let now = self.reading(at);
        let process = self.process(at);
        let asker = Asker {
            node: from,
            incarnation,
            request,
            applied: process.applied_config.has(from),
            appended: process.appended_config.has(from),
            removed: Some(tables::load::<Retirement>(&process.tables, &from.0.to_be_bytes()).is_some()),
        };
        let waiter = Waiter::Renewal(from, incarnation, request);
        match process.office.renew(asker, now, waiter) {
            Ok(()) => self.try_round(at),
            Err(_) => self.give(at, from, incarnation, request, None),
        }
    }

    fn give(&mut self, at: usize, to: NodeId, incarnation: Incarnation, request: RequestId, index: Option<u64>) {
        if to == self.machines[at].me {
            return self.on_granted(at, incarnation, request, index);
        }
        self.send(
            at,
            to,
            Msg::Granted {
                incarnation,
                request,
                index,
            },
        );
    }

    pub(crate) fn on_granted(&mut self, at: usize, incarnation: Incarnation, request: RequestId, index: Option<u64>) {
        let now = self.reading(at);
        let from_answer = self.rules.is(Mutant::LeaseFromTheAnswer);
        let process = self.process(at);
        let waited = process.renewing == Some(request) && process.live.gate().incarnation() == incarnation;
        let live = &process.live;
        match index {
            Some(read_index) if from_answer && waited => {
                live.gate().failed(request);
                if let Some((incarnation, request)) = live.gate().begin(now) {
                    live.gate()
                        .granted(incarnation, request, read_index, || live.auth_index());
                }
            }
            // Whether anybody waits for it is the gate's business.
            Some(read_index) => live
                .gate()
                .granted(incarnation, request, read_index, || live.auth_index()),
            None if waited => live.gate().failed(request),
            None => {}
        }
        if waited {
            process.renewing = None;
            let pause = if index.is_some() {
                self.timers.renew_every_ms
            } else {
                50
            };
            self.after(at, pause * MS, Timer::Renew);
        }
    }

    pub(crate) fn end_round(&mut self, at: usize, found: Option<Found>) {
        let now = self.reading(at);
        let me = self.machines[at].me;
        let process = self.process(at);
        let Some(RoundRun { round, .. }) = process.round.take() else {
            return;
        };
        let (waiters, index) = process.office.end_round(round, found, now);
        for waiter in waiters {
            match waiter {
                Waiter::Renewal(to, incarnation, request) => {
                    if let Some(index) = index {
                        self.process(at).granted.insert(to, index);
                    }
                    self.give(at, to, incarnation, request, index);
                }
                Waiter::Index(to, request, token) => {
                    let known = self.knows(at, token);
                    if to == me {
                        self.on_index(at, request, index, known);
                    } else {
                        self.send(at, to, Msg::Index { request, index, known });
                    }
                }
                Waiter::LetGo(node, run) => {
                    if index.is_some() {
                        let term = self.machines[at].disk.term;
                        self.send(at, node, Msg::LetGone { run, term });
                    }
                }
            }
        }
    }

    fn seen(&mut self, at: usize) -> Seen {
        let me = self.machines[at].me;
        let process = self.process(at);
        Seen {
            leads: process.role == Role::Leader,
            fit: process.is_fit(),
            votes: process.appended_config.voters.contains(&me),
            heard: process.heard,
            voted: process.voted_at,
        }
    }

    pub(crate) fn campaign(&mut self, at: usize) {
        self.after(at, 25 * MS, Timer::Campaign);
        let (now, seen, timers) = (self.reading(at), self.seen(at), self.timers);
        let jitter = self.below(timers.jitter_ms + 1);
        let (me, last) = (self.machines[at].me, self.machines[at].disk.last());
        let process = self.process(at);
        if process.poll.is_some() || !process.patience.is_at_its_end(now, &seen, &timers, || jitter) {
            return;
        }
        process.next_id += 1;
        let poll = process.next_id;
        let config = Rc::clone(&process.appended_config);
        process.poll = Some((poll, Poll::new(me, Some(last), vec![config.voters.clone()])));
        for voter in config.voters.iter().filter(|v| **v != me) {
            self.send(at, *voter, Msg::Ask { poll });
        }
        self.after(at, 150 * MS, Timer::PollOver(poll));
        self.verdict(at);
    }

    pub(crate) fn on_ask(&mut self, at: usize, from: NodeId, poll: u64) {
        let (now, seen, timers) = (self.reading(at), self.seen(at), self.timers);
        let disk = &self.machines[at].disk;
        let state = PeerState {
            hears_leader: campaign::hears_leader(&seen, now, &timers),
            fit: seen.fit,
            last_log: Some(disk.last()),
            has_membership: true,
        };
        self.send(at, from, Msg::Asked { poll, state });
    }

    pub(crate) fn on_asked(&mut self, at: usize, from: NodeId, poll: u64, state: &PeerState<(u64, u64)>) {
        if let Some((id, asked)) = &mut self.process(at).poll
            && *id == poll
        {
            asked.hear(from, state);
            self.verdict(at);
        }
    }

    fn verdict(&mut self, at: usize) {
        let (now, seen, timers) = (self.reading(at), self.seen(at), self.timers);
        let Some(verdict) = self.process(at).poll.as_ref().and_then(|(_, poll)| poll.verdict()) else {
            return;
        };
        if verdict && seen.nobody_came_forward(now, &timers) {
            self.elect(at);
        }
        self.asked_enough(at);
    }

    pub(crate) fn poll_over(&mut self, at: usize, poll: u64) {
        if self.process(at).poll.as_ref().is_some_and(|(id, _)| *id == poll) {
            self.asked_enough(at);
        }
    }

    fn asked_enough(&mut self, at: usize) {
        let (now, max) = (self.reading(at), self.timers.jitter_ms + 1);
        let jitter = self.below(max);
        let process = self.process(at);
        process.poll = None;
        process.patience.begins_again(now, jitter);
    }

    /// The leader that is leaving has asked this node to lead.
    pub(crate) fn take_over(&mut self, at: usize, left: u32) {
        let (now, seen, silence) = (self.reading(at), self.seen(at), self.timers.leader_silence_ms);
        if seen.leads {
            return;
        }
        if left == 0 || now.ms_since(seen.heard) > silence {
            return self.elect(at);
        }
        self.after(at, 5 * MS, Timer::TakeOver(left - 1));
    }

    /// Takes up what is committed: one transaction, then the steps of [`Live::stages`] with pauses between them.
    pub(crate) fn apply(&mut self, at: usize) {
        let machine = &mut self.machines[at];
        let process = machine.process.as_mut().expect("it was looked at before");
        let upto = process
            .commit
            .min(process.applied + 64)
            .min(machine.disk.log.len() as u64);
        if process.applying.is_some() || upto <= process.applied {
            return;
        }
        machine.disk.committed = machine
            .disk
            .committed
            .max(process.commit.min(machine.disk.log.len() as u64));
        let mut effects = Effects::default();
        let (mut outcomes, mut config) = (Vec::new(), None);
        for index in process.applied + 1..=upto {
            match &machine.disk.log[index as usize - 1].kind {
                Kind::Blank => {}
                Kind::Config(new) => config = Some(Rc::clone(new)),
                Kind::Command(envelope) => {
                    let known = (&mut self.story, self.now);
                    let outcome = carry_out(&mut process.tables, (index, self.rules), envelope, &mut effects, known);
                    outcomes.push((index, outcome));
                }
            }
        }
        self.is_committed(at, upto);
        let process = self.process(at);
        let change = Change { effects, index: upto };
        process.applying = Some(Applying {
            change,
            next: 0,
            outcomes,
            config,
        });
        self.stage(at);
    }

    pub(crate) fn stage(&mut self, at: usize) {
        loop {
            let slow = self.machines[at].slow_apply_until > self.now;
            let process = self.process(at);
            let Some(applying) = &mut process.applying else { return };
            let Some(stage) = process.live.stages().get(applying.next).copied() else {
                break;
            };
            applying.next += 1;
            let tables = &process.tables;
            let read = |view: &dyn Fn(&dyn tables::Tables)| {
                view(tables);
                Ok::<(), std::convert::Infallible>(())
            };
            process.live.take(stage, &applying.change, read).unwrap_or(());
            self.published(at);
            let pause = match self.below(16) {
                _ if slow => self.below(200 * MS),
                0 => self.below(20 * MS),
                1 | 2 => self.below(MS),
                _ => continue,
            };
            return self.after(at, pause, Timer::Stage);
        }
        let process = self.process(at);
        let Some(done) = process.applying.take() else { return };
        process.applied = done.change.index;
        if let Some(config) = done.config {
            process.enrolled.extend(config.all());
            process.applied_config = config;
            self.let_go_of_those(at);
        }
        let process = self.process(at);
        if process.mending_to.is_some_and(|to| process.applied >= to) {
            process.mending_to = None;
            process.live.gate().end_install();
        }
        for (index, outcome) in done.outcomes {
            self.carried_out(at, index, outcome);
        }
        self.after(at, 0, Timer::Apply);
    }

    /// Whoever waits for the view to be that far.
    pub(crate) fn published(&mut self, at: usize) {
        let me = self.machines[at].me;
        let process = self.process(at);
        let (incarnation, index) = (process.live.gate().incarnation(), process.live.auth_index());
        if process.last_published == (incarnation, index) {
            return;
        }
        let (before, held) = std::mem::replace(&mut process.last_published, (incarnation, index));
        let waiting: Vec<_> = process.confirms.extract_if(.., |c| c.3 <= index).collect();
        let barriers: Vec<u64> = process.barriers.keys().copied().collect();
        let far_enough =
            |request: &super::machine::Request| matches!(request.step, Step::Waiting(_, wanted, ..) if wanted <= index);
        let requests = process.requests.iter().filter(|(_, request)| far_enough(request));
        let requests: Vec<u64> = requests.map(|(id, _)| *id).collect();
        let lease = process.live.gate().deadline();
        self.machines[at].disk.lease = lease.map(|_| self.reading(at));
        if before == incarnation && index < held {
            self.violate(format!(
                "{me}: the index of one incarnation went back from {held} to {index}"
            ));
        }
        self.note(&[7, me.0, index], |s| s.push_str(&format!("{me} publishes {index}")));
        self.oracle.reached(me, index);
        for (from, barrier, line, _, _) in waiting {
            self.confirm_now(at, from, barrier, line);
        }
        barriers.into_iter().for_each(|id| self.look_at_barrier(at, id));
        requests.into_iter().for_each(|id| self.request(at, id));
    }

    pub(crate) fn on_confirm(
        &mut self,
        at: usize,
        from: NodeId,
        (barrier, line): (u64, usize),
        (index, wait_ms): (u64, u64),
    ) {
        let matched = self.rules.is(Mutant::AckOnMatched);
        if self.process(at).live.auth_index() >= index || matched {
            return self.confirm_now(at, from, barrier, line);
        }
        self.process(at).confirms.push((from, barrier, line, index, 0));
        self.after(at, wait_ms.min(1_000) * MS, Timer::ConfirmOver(barrier, line, from));
    }

    pub(crate) fn confirm_now(&mut self, at: usize, from: NodeId, barrier: u64, line: usize) {
        let matched = self
            .rules
            .is(Mutant::AckOnMatched)
            .then(|| self.machines[at].disk.last().1);
        let node = self.machines[at].me;
        let live = &self.process(at).live;
        let incarnation = live.gate().incarnation();
        let auth_index = matched.unwrap_or_else(|| live.auth_index());
        let said = Confirmed {
            node,
            incarnation,
            auth_index,
        };
        self.send(at, from, Msg::Confirmed { barrier, line, said });
    }

    pub(crate) fn confirm_over(&mut self, at: usize, barrier: u64, line: usize, from: NodeId) {
        let same = |c: &mut (NodeId, u64, usize, u64, u64)| c.0 == from && c.1 == barrier && c.2 == line;
        let over = self.process(at).confirms.extract_if(.., same).count();
        if over > 0 {
            self.confirm_now(at, from, barrier, line);
        }
    }

    pub(crate) fn holders(&mut self, at: usize) -> Holders {
        let process = self.process(at);
        let (applied, appended) = (&process.applied_config, &process.appended_config);
        let voters = &applied.voters | &appended.voters;
        let everybody = applied.all().chain(appended.all()).collect();
        let retired = tables::list::<Retirement>(&process.tables, None, 1_000);
        let retired = retired.into_iter().map(|r| r.id);
        Holders::of(process.office.rules(), (voters, &everybody), &process.enrolled, retired)
    }

    /// Forgets, as the watchdog does.
    pub(crate) fn tick(&mut self, at: usize) {
        if self.process(at).live.gate().is_removed() {
            self.hand_over(at);
        }
        let (now, timers) = (self.reading(at), self.timers);
        let process = self.process(at);
        process.tick = now;
        let config = Rc::clone(&process.applied_config);
        process.office.tidy(&|node| config.has(node), now, &timers);
        self.after(at, 100 * MS, Timer::Tick);
    }

    pub(crate) fn flush(&mut self, at: usize) {
        let machine = &mut self.machines[at];
        let process = machine.process.as_ref().expect("it was looked at before");
        if process.applying.is_none() && process.mending_to.is_none() {
            (machine.disk.tables, machine.disk.at) = (process.tables.clone(), process.applied);
        }
        self.after(at, 5_000 * MS, Timer::Flush);
    }

    /// The disk has refused the state: it comes back as it was last durable and catches up.
    pub(crate) fn mend(&mut self, at: usize) {
        let incarnation = Incarnation(self.random.number());
        let machine = &mut self.machines[at];
        let Some(process) = machine.process.as_mut() else {
            return;
        };
        let to = process.live.reached().max(process.mending_to.unwrap_or(0));
        process.live.go_back(incarnation);
        process.tables = machine.disk.tables.clone();
        process.applied = machine.disk.at;
        process.applying = None;
        process.live.rebuild(&process.tables);
        process.live.publish(machine.disk.at);
        process.mending_to = Some(to);
        let pause = 20 * MS + self.below(600 * MS);
        self.published(at);
        self.after(at, pause, Timer::Apply);
    }

    pub(crate) fn receipt(index: u64, lines: Vec<mcp_model::receipt::ReplicaReceipt>) -> mcp_model::receipt::Receipt {
        barrier::receipt(index, lines)
    }
}
