//! Requests with bearers: admitted as the gateway admits them, step by step, with pauses between the steps.

use mcp_model::admission::Denial;
use mcp_model::clock::Reading;
use mcp_model::ids::NodeId;
use mcp_store::admit::Registered;

use super::machine::{MS, Msg, Request, Role, Step, Stream, Waiter};
use super::mutant::Mutant;
use super::oracle::Verdict;
use super::world::{Timer, World};

/// Unknown bearers that a node asks about at a time: few, so that a crowd of strangers is soon too many.
pub(crate) const QUESTIONS_MAX: usize = 8;
/// How long a request may wait for newer state, ms.
const FRESHEN_MS: u64 = 1_000;

impl World {
    /// A request is read. It began when it was sent, which may be long ago if the machine stood still.
    pub(crate) fn arrive(&mut self, at: usize, token: usize, began: u64) {
        if self.machines[at].process.is_none() {
            return;
        }
        let hash = self.story.tokens[token].hash;
        let process = self.process(at);
        process.next_id += 1;
        let id = process.next_id;
        let step = Step::Registered(Registered::new(&process.live, hash));
        process.requests.insert(id, Request { token, began, step });
        self.go_on(at, id);
    }

    /// Goes on after a pause that is mostly none.
    fn go_on(&mut self, at: usize, id: u64) {
        let pause = match self.below(100) {
            0 => self.below(250 * MS),
            1..=15 => self.below(300_000),
            _ => return self.request(at, id),
        };
        self.after(at, pause, Timer::Request(id));
    }

    fn lease_reading(&mut self, at: usize) -> Reading {
        match self.rules.is(Mutant::LeaseAsFlag) {
            true => self.process(at).tick,
            false => self.reading(at),
        }
    }

    pub(crate) fn request(&mut self, at: usize, id: u64) {
        let (now, me) = (self.lease_reading(at), self.machines[at].me);
        let wall_ms = self.machines[at].clocks.wall_ms(self.now);
        let exempt = self.rules.is(Mutant::LeaderExempt);
        let process = self.process(at);
        let Some(Request { token, began, step }) = process.requests.remove(&id) else {
            return;
        };
        let live = &process.live;
        let looked = match step {
            Step::Registered(registered) => {
                let looked = registered.look(live);
                let known = looked.seems_good();
                if known {
                    let step = Step::Looked(looked);
                    process.requests.insert(id, Request { token, began, step });
                    return self.go_on(at, id);
                }
                if !live.gate().holds(now) {
                    return self.refused(at, token, began, Denial::NoLease);
                }
                let question = match process.questions.ask() {
                    Ok(question) => question,
                    Err(denial) => return self.too_many(at, token, began, denial),
                };
                let step = Step::Asking(looked, now.plus_ms(FRESHEN_MS), question);
                process.requests.insert(id, Request { token, began, step });
                self.asks_one_more(at);
                return self.request(at, id);
            }
            Step::Asking(looked, until, question) => {
                if now.both_passed(until) {
                    return self.refused(at, token, began, Denial::NoLease);
                }
                let step = Step::Asking(looked, until, question);
                process.requests.insert(id, Request { token, began, step });
                return self.ask_for_index(at, me, id, token);
            }
            Step::Waiting(looked, index, until, question) if live.auth_index() < index => {
                if now.both_passed(until) {
                    return self.refused(at, token, began, Denial::NoLease);
                }
                let step = Step::Waiting(looked, index, until, question);
                process.requests.insert(id, Request { token, began, step });
                return;
            }
            Step::Waiting(looked, ..) => {
                let step = Step::Looked(looked.again(live));
                process.requests.insert(id, Request { token, began, step });
                return self.go_on(at, id);
            }
            Step::Looked(looked) => looked,
        };
        if exempt && process.role == Role::Leader && looked.seems_good() {
            return self.admitted(at, token, began, "as the leader");
        }
        match looked.decide(&process.live, (now, wall_ms), |_| true) {
            Err(denial) => self.refused(at, token, began, denial),
            Ok(admitted) => {
                self.admitted(at, token, began, "at the door");
                if self.one_in(6) {
                    let ends = self.now + 8_000 * MS;
                    self.process(at).streams.insert(id, Stream { token, admitted, ends });
                    let pause = self.below(60 * MS);
                    self.after(at, pause, Timer::Stream(id));
                }
            }
        }
    }

    /// There was no room for another question: that says nothing about the token.
    fn too_many(&mut self, at: usize, token: usize, began: u64, denial: Denial) {
        self.oracle.too_many += 1;
        let unknown = self.rules.is(Mutant::TooManyMeansUnknown);
        let denial = if unknown { Denial::UnknownToken } else { denial };
        self.refused(at, token, began, denial);
    }

    /// However many strangers come, the leader is asked by so many at a time.
    fn asks_one_more(&mut self, at: usize) {
        self.oracle.asked += 1;
        let me = self.machines[at].me;
        let requests = self.process(at).requests.values();
        let asking = requests.filter(|r| matches!(r.step, Step::Asking(..) | Step::Waiting(..)));
        let asking = asking.count();
        if asking > QUESTIONS_MAX {
            self.violate(format!("{me} asks about {asking} unknown tokens at a time"));
        }
    }

    /// Rule 4: once, and the answer is an index.
    fn ask_for_index(&mut self, at: usize, me: NodeId, id: u64, token: usize) {
        let process = self.process(at);
        let asked = match process.leader(me) {
            None => false,
            Some(leader) if leader == me => {
                let joined = process.office.ask(Waiter::Index(me, id, token)).is_ok();
                self.try_round(at);
                joined
            }
            Some(leader) => {
                self.send(at, leader, Msg::ReadIndex { request: id, token });
                true
            }
        };
        // An answer may get lost: then it is too late, and that is all that is said.
        let pause = if asked { FRESHEN_MS + 5 } else { 25 };
        self.after(at, pause * MS, Timer::Request(id));
    }

    pub(crate) fn on_read_index(&mut self, at: usize, from: NodeId, request: u64, token: usize) {
        if self.process(at).office.ask(Waiter::Index(from, request, token)).is_ok() {
            self.try_round(at);
        }
    }

    pub(crate) fn on_index(&mut self, at: usize, id: u64, index: Option<u64>, known: bool) {
        let believed = self.rules.is(Mutant::LeadersVerdict) && known;
        let process = self.process(at);
        let Some(Request { token, began, step }) = process.requests.remove(&id) else {
            return;
        };
        let step = match (step, index) {
            (Step::Asking(..), Some(_)) if believed => {
                return self.admitted(at, token, began, "because the leader knows it");
            }
            (Step::Asking(looked, until, question), Some(index)) => Step::Waiting(looked, index, until, question),
            (step @ Step::Asking(..), None) => {
                process.requests.insert(id, Request { token, began, step });
                return self.after(at, 25 * MS, Timer::Request(id));
            }
            (other, _) => other,
        };
        process.requests.insert(id, Request { token, began, step });
        self.after(at, FRESHEN_MS * MS, Timer::Request(id));
        self.request(at, id);
    }

    /// One event of a stream, if it may still be written.
    pub(crate) fn stream(&mut self, at: usize, id: u64) {
        let (now, time) = (self.lease_reading(at), self.now);
        let process = self.process(at);
        let Some(stream) = process.streams.get(&id) else { return };
        let (token, ends) = (stream.token, stream.ends);
        match stream.admitted.still(&process.live, || now) {
            Ok(()) if ends > time => {
                self.admitted(at, token, time, "on a stream");
                let pause = MS + self.below(60 * MS);
                self.after(at, pause, Timer::Stream(id));
            }
            // It waits for the lease to come back; a cut ends it.
            Err(Denial::NoLease) if !stream.admitted.is_cut() && ends > time => {
                self.after(at, 20 * MS, Timer::Stream(id))
            }
            _ => drop(process.streams.remove(&id)),
        }
    }

    pub(crate) fn knows(&mut self, at: usize, token: usize) -> bool {
        let hash = self.story.tokens[token].hash;
        self.process(at).live.view().token(&hash).is_some()
    }

    fn admitted(&mut self, at: usize, token: usize, began: u64, how: &str) {
        let me = self.machines[at].me;
        self.note(&[8, me.0, token as u64, began], |s| {
            s.push_str(&format!("{me} admits token {token} {how}"))
        });
        let verdict = self.oracle.admitted(&self.story, token, began);
        if let Verdict::Violation(why) = verdict {
            self.violate(format!("{me} admitted token {token} {how}: {why}"));
        }
    }

    fn refused(&mut self, at: usize, token: usize, began: u64, denial: Denial) {
        let me = self.machines[at].me;
        self.note(&[9, me.0, token as u64, denial as u64], |s| {
            s.push_str(&format!("{me} refuses token {token}: {}", denial.reason()));
        });
        let member = self.is_member(me);
        let now = self.now;
        if let Verdict::Violation(why) = self.oracle.refused(&self.story, (token, began, now), denial, member) {
            self.violate(format!("{me} refused token {token}: {why}"));
        }
    }

    /// Whether whoever leads counts it as a member.
    fn is_member(&self, node: NodeId) -> bool {
        let leader = self.machines.iter().filter_map(|m| m.process.as_ref());
        let leader = leader.filter(|p| p.role == Role::Leader).max_by_key(|p| p.commit);
        let known = leader.is_some_and(|p| p.applied_config.has(node) && p.appended_config.has(node));
        known && self.faults.wanted.contains_key(&node)
    }

    pub(crate) fn violate(&mut self, why: String) {
        let now = self.now;
        self.note(&[10], |s| s.push_str(&format!("VIOLATION: {why}")));
        self.oracle.violation.get_or_insert((now, why));
    }
}
