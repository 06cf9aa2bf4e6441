//! Expiry, as the leader sees to it: what is due by the cluster's time is taken away by an entry, and each node's own clock decides nothing
//! about when that is. Rule 9.

use std::rc::Rc;

use mcp_model::admission::{EXPIRY_SKEW_MS, time_of_command};
use mcp_model::apply::tokens::due;
use mcp_model::command::{Actor, Command, Envelope};
use mcp_model::ids::CommandId;

use super::machine::{Kind, MS, Role};
use super::mutant::Mutant;
use super::story::token_of;
use super::world::{Timer, World};

/// Tokens that are expired in one look.
const DUE_MAX: usize = 256;
/// The pause between two looks.
const PAUSE: u64 = 500 * MS;

/// A token that was due when a leader looked: what that leader has put into the log next ends it.
#[derive(Clone, Copy)]
pub(crate) struct Due {
    token: usize,
    term: u64,
    index: u64,
}

impl World {
    /// The time of a command that comes to a leader.
    pub(crate) fn time_of_command(&mut self, at: usize, said_ms: u64) -> u64 {
        let wall_ms = self.machines[at].clocks.wall_ms(self.now);
        self.story.leaders_ms = self.story.leaders_ms.max(wall_ms);
        match self.rules.is(Mutant::ProposersTimeBelieved) {
            true => said_ms,
            false => time_of_command(said_ms, wall_ms),
        }
    }

    pub(crate) fn upkeep(&mut self, at: usize) {
        self.after(at, PAUSE, Timer::Upkeep);
        let wall_ms = self.machines[at].clocks.wall_ms(self.now);
        let term = self.machines[at].disk.term;
        let process = self.process(at);
        if process.role != Role::Leader || process.office.term().is_none() || !process.is_fit() {
            return;
        }
        let all = due(&process.tables, wall_ms, DUE_MAX);
        self.story.leaders_ms = self.story.leaders_ms.max(wall_ms);
        let each_clock = self.rules.is(Mutant::ExpiryByEachClock);
        let own_clock = self.rules.is(Mutant::ExpiryByTheLeadersClock);
        for (id, expires_ms) in all {
            let Some(token) = token_of(id) else { continue };
            if expires_ms > self.story.leaders_ms + EXPIRY_SKEW_MS {
                self.violate(format!(
                    "token {token} is to expire before the time of any leader says so"
                ));
            }
            let index = self.machines[at].disk.log.len() as u64 + 1;
            self.story.due.push(Due { token, term, index });
            if each_clock || own_clock && expires_ms > wall_ms {
                continue;
            }
            self.story.tokens[token].revoke_asked.get_or_insert(self.now);
            let me = self.machines[at].me;
            self.note(&[18, me.0, token as u64], |s| {
                s.push_str(&format!("{me} finds that token {token} has expired"));
            });
            let envelope = Envelope {
                id: CommandId(u128::from(self.random.number()) << 64 | u128::from(self.random.number())),
                now_ms: wall_ms,
                actor: Actor::System,
                command: Command::ExpireToken { id, expires_ms },
            };
            self.propose(at, Kind::Command(Rc::new(envelope)));
        }
    }

    /// A node knows that all of its log up to here is committed. A token that was due before an entry that is committed was taken away by then,
    /// and once every lease of before is over nobody admits it, whatever the clock on its own wall says.
    pub(crate) fn is_committed(&mut self, at: usize, upto: u64) {
        if self.story.due.is_empty() {
            return;
        }
        let disk = &self.machines[at].disk;
        let over: Vec<Due> = self
            .story
            .due
            .extract_if(.., |due| due.index <= upto && disk.term_at(due.index) == due.term)
            .collect();
        let timers = self.timers;
        let lease_ms = timers.lease_ms + timers.lease_ms * 2 * timers.rho_ppm / 1_000_000;
        let leases_over_ms = lease_ms + timers.margin_ms + 1;
        let leases_over = self.now + leases_over_ms * MS;
        for Due { token, .. } in over {
            if self.story.tokens[token].expired.is_some() {
                continue;
            }
            self.story.tokens[token].expired = Some(leases_over);
            self.story.expired += 1;
            self.probe_gone(token, leases_over_ms);
        }
    }
}
