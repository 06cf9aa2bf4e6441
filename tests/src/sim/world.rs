//! Virtual time: a queue of events, a network that delays, loses and cuts, and the machines on it.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::fmt::Write;

use mcp_model::clock::Reading;
use mcp_model::ids::NodeId;
use mcp_model::lease::RequestId;
use mcp_model::timers::Timers;

use super::faults::Faults;
use super::machine::{MS, Machine, Msg, Process};
use super::mutant::{Broken, Mutant};
use super::oracle::Oracle;
use super::story::Story;
use crate::random::Random;

/// How long a seed lasts, ns.
pub(crate) const LASTS: u64 = 32_000 * MS;
/// When everything is made well again.
pub(crate) const HEALED: u64 = 27_000 * MS;
/// From when on nobody may be without a lease.
pub(crate) const CALM: u64 = 30_000 * MS;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Timer {
    Renew,
    RenewLate(RequestId),
    Campaign,
    PollOver(u64),
    Heartbeat(u64),
    Members(u64),
    RoundOver(u64),
    Barrier(u64),
    ConfirmOver(u64, usize, NodeId),
    Apply,
    Stage,
    Observe,
    Request(u64),
    Stream(u64),
    TakeOver(u32),
    Stay,
    Tick,
    Flush,
    Upkeep,
}

pub(crate) enum Event {
    Deliver {
        from: NodeId,
        to: NodeId,
        msg: Msg,
        stored: bool,
    },
    Timer {
        at: usize,
        run: u64,
        timer: Timer,
    },
    Arrive {
        at: usize,
        token: usize,
        began: u64,
    },
    Story(super::story::Beat),
    Fault(usize),
    Start(usize),
    /// A machine whose log is lost, in this run, asks to be let go.
    AskToBeLetGo(usize, u64),
}

struct Queued {
    at: u64,
    seq: u64,
    event: Event,
}

impl PartialEq for Queued {
    fn eq(&self, other: &Queued) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Queued {}
impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Queued) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Queued {
    fn cmp(&self, other: &Queued) -> Ordering {
        (other.at, other.seq).cmp(&(self.at, self.seq))
    }
}

/// What the network does to messages.
#[derive(Default)]
pub(crate) struct Net {
    /// Until when nothing gets from one slot to another.
    pub(crate) blocked: Vec<Vec<u64>>,
    pub(crate) lossy_until: u64,
    pub(crate) slow_until: u64,
    pub(crate) slow_ms: u64,
}

pub(crate) struct World {
    pub(crate) rules: Broken,
    pub(crate) timers: Timers,
    pub(crate) now: u64,
    pub(crate) random: Random,
    pub(crate) machines: Vec<Machine>,
    pub(crate) net: Net,
    pub(crate) story: Story,
    pub(crate) faults: Faults,
    pub(crate) oracle: Oracle,
    queue: BinaryHeap<Queued>,
    seq: u64,
    hash: u64,
    pub(crate) told: Option<String>,
}

impl World {
    pub(crate) fn new(seed: u64, rules: Broken, tell: bool) -> World {
        let mut random = Random::from_seed(seed ^ 0x5157_1c0d_e5ee_d000);
        let story = Story::new(&mut random);
        let mut world = World {
            rules,
            timers: Timers::default(),
            now: 0,
            random,
            machines: Vec::new(),
            net: Net::default(),
            story,
            faults: Faults::default(),
            oracle: Oracle::default(),
            queue: BinaryHeap::new(),
            seq: 0,
            hash: 0xcbf2_9ce4_8422_2325,
            told: tell.then(String::new),
        };
        world.begin();
        world
    }

    /// Runs to the end, or to the first violation, and gives the hash of all that happened.
    pub(crate) fn run(&mut self) -> u64 {
        while let Some(Queued { at, event, .. }) = self.queue.pop() {
            if at > LASTS || self.oracle.violation.is_some() {
                break;
            }
            self.now = at;
            self.handle(event);
        }
        self.oracle.finish(self.now);
        self.hash
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Deliver { from, to, msg, stored } => {
                let Some(at) = self.slot(to) else { return };
                if let Some(later) = self.paused(at) {
                    return self.at(later, Event::Deliver { from, to, msg, stored });
                }
                if self.machines[at].process.is_none() {
                    if let Msg::LetGone { run, term } = msg {
                        self.begin_anew(at, from, (run, term));
                    }
                    return;
                }
                self.note(&[1, from.0, to.0, code(&msg)], |s| {
                    write!(s, "{from} -> {to}: {msg:?}").unwrap_or(());
                });
                self.deliver(at, from, msg, stored);
            }
            Event::Timer { at, run, timer } => {
                if self.machines[at].run != run || self.machines[at].process.is_none() {
                    return;
                }
                if let Some(later) = self.paused(at) {
                    return self.at(later, Event::Timer { at, run, timer });
                }
                self.timer(at, timer);
            }
            Event::Arrive { at, token, began } => {
                if let Some(later) = self.paused(at) {
                    return self.at(later, Event::Arrive { at, token, began });
                }
                self.arrive(at, token, began);
            }
            Event::Story(beat) => self.beat(beat),
            Event::Fault(number) => self.fault(number),
            Event::Start(at) => self.start(at, false),
            Event::AskToBeLetGo(at, run) => self.ask_to_be_let_go(at, run),
        }
    }

    fn paused(&self, at: usize) -> Option<u64> {
        let until = self.machines[at].paused_until;
        (until > self.now).then_some(until)
    }

    pub(crate) fn slot(&self, node: NodeId) -> Option<usize> {
        self.machines.iter().position(|m| m.me == node)
    }

    /// A process that runs.
    pub(crate) fn process(&mut self, at: usize) -> &mut Process {
        self.machines[at].process.as_mut().expect("it was looked at before")
    }

    pub(crate) fn reading(&self, at: usize) -> Reading {
        let stops = self.rules.is(Mutant::ClockStopsInSuspend);
        self.machines[at].clocks.reading(self.now, stops)
    }

    pub(crate) fn at(&mut self, at: u64, event: Event) {
        self.seq += 1;
        let seq = self.seq;
        self.queue.push(Queued { at, seq, event });
    }

    pub(crate) fn after(&mut self, at: usize, ns: u64, timer: Timer) {
        let run = self.machines[at].run;
        self.at(self.now + ns, Event::Timer { at, run, timer });
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.random.number() % limit.max(1)
    }

    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// Sends a message, if the network lets it through.
    pub(crate) fn send(&mut self, at: usize, to: NodeId, msg: Msg) {
        let from = self.machines[at].me;
        let Some(target) = self.slot(to) else { return };
        if self.net.blocked[at][target] > self.now {
            return;
        }
        if self.net.lossy_until > self.now && self.one_in(4) {
            return;
        }
        let mut ns = 100_000 + self.below(900_000);
        if self.one_in(50) {
            ns += self.below(60 * MS);
        }
        if self.net.slow_until > self.now {
            ns += self.below(self.net.slow_ms * MS);
        }
        if self.one_in(400) {
            // Twice, the second time much later.
            let again = self.now + ns + self.below(3_000 * MS);
            let msg = msg.clone();
            self.at(
                again,
                Event::Deliver {
                    from,
                    to,
                    msg,
                    stored: false,
                },
            );
        }
        self.at(
            self.now + ns,
            Event::Deliver {
                from,
                to,
                msg,
                stored: false,
            },
        );
    }

    /// Notes what happens: in numbers for the hash, in words for people.
    pub(crate) fn note(&mut self, numbers: &[u64], words: impl FnOnce(&mut String)) {
        let mut hash = self.hash ^ self.now;
        for number in numbers {
            hash = (hash ^ number).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
        }
        self.hash = hash;
        if let Some(told) = &mut self.told {
            let ms = self.now / MS;
            let us = self.now / 1_000 % 1_000;
            write!(told, "{ms:>6}.{us:03} ms  ").unwrap_or(());
            words(told);
            told.push('\n');
        }
    }
}

fn code(msg: &Msg) -> u64 {
    match msg {
        Msg::Append {
            prev, entries, commit, ..
        } => prev << 20 ^ (entries.len() as u64) << 8 ^ commit << 40 ^ 1,
        Msg::Appended { matched, .. } => matched.unwrap_or(0) << 8 ^ 2,
        Msg::Vote { term, .. } => term << 8 ^ 3,
        Msg::Voted { term, granted } => term << 8 ^ u64::from(*granted) << 7 ^ 4,
        Msg::Round { round, .. } => round << 8 ^ 5,
        Msg::RoundSeen { round, .. } => round << 8 ^ 6,
        Msg::Ask { poll } => poll << 8 ^ 7,
        Msg::Asked { poll, state } => poll << 8 ^ u64::from(state.hears_leader) << 7 ^ 8,
        Msg::TakeOver => 9,
        Msg::Renew { request, .. } => request.0 << 8 ^ 10,
        Msg::Granted { request, index, .. } => request.0 << 8 ^ index.unwrap_or(0) << 30 ^ 11,
        Msg::ReadIndex { request, .. } => request << 8 ^ 12,
        Msg::Index { request, index, .. } => request << 8 ^ index.unwrap_or(0) << 30 ^ 13,
        Msg::Confirm { index, .. } => index << 8 ^ 14,
        Msg::Confirmed { said, .. } => said.auth_index << 8 ^ 15,
        Msg::Write { op, attempt, .. } => (*op as u64) << 20 ^ attempt << 8 ^ 16,
        Msg::LetGo { run } => run << 8 ^ 17,
        Msg::LetGone { run, term } => run << 8 ^ term << 30 ^ 18,
    }
}
