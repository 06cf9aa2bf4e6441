//! Coming to lead: ask first, disturb only when a majority has no leader either.
//!
//! openraft's own elections are off. Its timeout is drawn once per process, so that two survivors can tie for ever, and it raises
//! its term before it knows whether anybody wants an election.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::clock::Reading;
use crate::ids::NodeId;
use crate::timers::Timers;

/// What a node sees of itself when it looks whether it should campaign.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    /// Whether it leads.
    pub leads: bool,
    /// Whether its disk is good enough to.
    pub fit: bool,
    /// Whether it votes.
    pub votes: bool,
    /// When it last heard a leader.
    pub heard: Reading,
    /// When it last gave its vote away.
    pub voted: Reading,
}

impl Seen {
    fn last_sign(&self) -> Reading {
        later(self.heard, self.voted)
    }

    /// Whether nobody has led or asked for this node's vote for as long as voters are loyal. Asking the others takes time, in which
    /// somebody else may have won.
    pub fn nobody_came_forward(&self, now: Reading, timers: &Timers) -> bool {
        !self.leads && now.ms_since(self.last_sign()) >= timers.leader_silence_ms
    }
}

/// How patient a node without a leader is.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    quiet_since: Reading,
    patience_ms: u64,
}

impl Patience {
    /// From now on. `jitter_ms` is drawn by the caller each time: two losers do not meet again.
    pub fn new(now: Reading, timers: &Timers, jitter_ms: u64) -> Patience {
        Patience {
            quiet_since: now,
            patience_ms: timers.leader_silence_ms + jitter_ms,
        }
    }

    /// Whether it is time to ask the others.
    pub fn is_at_its_end(&mut self, now: Reading, seen: &Seen, timers: &Timers, jitter: impl FnOnce() -> u64) -> bool {
        if seen.leads || !seen.fit {
            self.quiet_since = now;
            return false;
        }
        let heard = seen.last_sign();
        if later(self.quiet_since, heard) != self.quiet_since {
            *self = Patience::new(heard, timers, jitter());
        }
        now.ms_since(self.quiet_since) >= self.patience_ms && seen.votes
    }

    /// The others were asked, whatever came of it.
    pub fn begins_again(&mut self, now: Reading, jitter_ms: u64) {
        *self = Patience {
            quiet_since: now,
            patience_ms: jitter_ms,
        };
    }
}

/// What a node says of itself before somebody campaigns. `L` names the end of a log.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PeerState<L> {
    /// Whether it leads or has heard a leader lately.
    pub hears_leader: bool,
    /// Whether it would campaign itself: otherwise its longer log must not keep others from it.
    pub fit: bool,
    /// The end of its log.
    pub last_log: Option<L>,
    /// Whether it has a membership: an empty node never begins a cluster where somebody says yes.
    pub has_membership: bool,
}

/// Whether a node that sees this hears a leader.
pub fn hears_leader(seen: &Seen, now: Reading, timers: &Timers) -> bool {
    seen.leads && seen.fit || now.ms_since(seen.heard) < timers.leader_silence_ms
}

/// The answers of those who were asked.
#[derive(Debug)]
pub struct Poll<L> {
    configs: Vec<BTreeSet<NodeId>>,
    last_log: Option<L>,
    leaderless: BTreeSet<NodeId>,
    dissuaded: bool,
}

impl<L: PartialOrd> Poll<L> {
    /// Of the voters in `configs`: in a joint configuration both halves must agree. Whoever asks has no leader.
    pub fn new(me: NodeId, last_log: Option<L>, configs: Vec<BTreeSet<NodeId>>) -> Poll<L> {
        Poll {
            configs,
            last_log,
            leaderless: BTreeSet::from([me]),
            dissuaded: false,
        }
    }

    /// One has answered.
    pub fn hear(&mut self, node: NodeId, peer: &PeerState<L>) {
        if peer.fit && peer.last_log > self.last_log {
            self.dissuaded = true;
        } else if !peer.hears_leader {
            self.leaderless.insert(node);
        }
    }

    /// `Some`: it is decided. As soon as enough have answered: whoever hangs would only give the others time to come to lead.
    pub fn verdict(&self) -> Option<bool> {
        if self.dissuaded {
            return Some(false);
        }
        let of = |voters: &BTreeSet<NodeId>| voters.intersection(&self.leaderless).count();
        let agreed = self.configs.iter().all(|voters| of(voters) > voters.len() / 2);
        agreed.then_some(true)
    }
}

fn later(a: Reading, b: Reading) -> Reading {
    if b.boot_ns > a.boot_ns { b } else { a }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Reading {
        Reading::both_ms(ms)
    }

    fn seen(heard_ms: u64) -> Seen {
        Seen {
            leads: false,
            fit: true,
            votes: true,
            heard: ms(heard_ms),
            voted: ms(0),
        }
    }

    fn peer(hears_leader: bool, fit: bool, last_log: u64) -> PeerState<u64> {
        PeerState {
            hears_leader,
            fit,
            last_log: Some(last_log),
            has_membership: true,
        }
    }

    #[test]
    fn patience_counts_from_the_last_sign_of_a_leader() {
        let timers = Timers::default();
        let mut patience = Patience::new(ms(1_000), &timers, 50);
        assert!(!patience.is_at_its_end(ms(1_349), &seen(0), &timers, || 0));
        assert!(patience.is_at_its_end(ms(1_350), &seen(0), &timers, || 0));
        assert!(!patience.is_at_its_end(ms(1_350), &seen(1_300), &timers, || 100));
        assert!(!patience.is_at_its_end(ms(1_699), &seen(1_300), &timers, || 0));
        assert!(patience.is_at_its_end(ms(1_700), &seen(1_300), &timers, || 0));
        let learner = Seen {
            votes: false,
            ..seen(1_300)
        };
        assert!(!patience.is_at_its_end(ms(1_700), &learner, &timers, || 0));
        let leader = Seen {
            leads: true,
            ..seen(1_300)
        };
        assert!(!patience.is_at_its_end(ms(1_700), &leader, &timers, || 0));
        assert!(
            !patience.is_at_its_end(ms(1_701), &seen(1_300), &timers, || 0),
            "it led until now"
        );
    }

    #[test]
    fn a_majority_without_a_leader_agrees_and_a_longer_log_dissuades() {
        let voters = || BTreeSet::from([NodeId(1), NodeId(2), NodeId(3)]);
        let mut poll = Poll::new(NodeId(1), Some(5), vec![voters()]);
        assert_eq!(poll.verdict(), None);
        poll.hear(NodeId(2), &peer(true, true, 5));
        assert_eq!(poll.verdict(), None);
        poll.hear(NodeId(3), &peer(false, true, 5));
        assert_eq!(poll.verdict(), Some(true));
        let mut poll = Poll::new(NodeId(1), Some(5), vec![voters()]);
        poll.hear(NodeId(2), &peer(false, false, 9));
        assert_eq!(
            poll.verdict(),
            Some(true),
            "who would not lead does not keep others from it"
        );
        let mut poll = Poll::new(NodeId(1), Some(5), vec![voters()]);
        poll.hear(NodeId(2), &peer(false, true, 9));
        assert_eq!(poll.verdict(), Some(false));
        let joint = vec![voters(), BTreeSet::from([NodeId(4), NodeId(5), NodeId(1)])];
        let mut poll = Poll::new(NodeId(1), Some(5), joint);
        poll.hear(NodeId(2), &peer(false, true, 5));
        assert_eq!(poll.verdict(), None, "both halves must agree");
        poll.hear(NodeId(4), &peer(false, true, 5));
        assert_eq!(poll.verdict(), Some(true));
    }
}
