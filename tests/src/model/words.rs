//! A trace of the protocol, told so that it can be followed without the model's source.

use crate::model::protocol::{DONE, Kind, Protocol, Req, Stage, State};
use crate::model::rules::{Break, NODES};
use crate::model::run::Tale;
use crate::model::steps::{KINDS, Step};

impl Tale for Protocol {
    type State = State;
    type Step = Step;
    const KINDS: &'static [&'static str] = &KINDS;

    fn begin(&self) -> State {
        Protocol::begin(self)
    }

    fn steps(&self, state: &State, steps: &mut Vec<Step>) {
        Protocol::steps(self, state, steps);
    }

    fn take(&self, state: &State, step: Step) -> Option<State> {
        Protocol::take(self, state, step)
    }

    fn kind(step: Step) -> usize {
        step.kind()
    }

    fn weight(step: Step) -> u64 {
        match step {
            Step::Lose { .. } | Step::Elect { .. } | Step::Restart { .. } | Step::Resync { .. } | Step::LoseLog => 1,
            Step::TickSlow { .. } | Step::TickFast { .. } => 3,
            _ => 12,
        }
    }

    fn is_kept(state: &State) -> bool {
        !state.admitted
    }

    fn words(&self, before: &State, step: Step, after: &State) -> String {
        let mut said = self.say(before, step, after);
        let ends = (0..NODES).filter(|at| before.nodes[*at].lease > 0 && after.nodes[*at].lease == 0);
        let ended: Vec<String> = ends.map(|at| format!("the lease of node {at} is over")).collect();
        if !ended.is_empty() {
            said = format!("{said}; {}", ended.join(", "));
        }
        said
    }
}

impl Protocol {
    fn say(&self, before: &State, step: Step, after: &State) -> String {
        match step {
            Step::Send { node } => format!("node {node} reads its clock and asks for a lease"),
            Step::Arrive { node, at, slot } => {
                let stage = before.nodes[usize::from(node)].slots[usize::from(slot)].age;
                let noted = if self.breaks(Break::LedgerAfterIndex) {
                    "does not note it yet"
                } else {
                    "notes when"
                };
                let stages = || after.nodes[usize::from(node)].slots.iter().map(|s| s.stage);
                let covers = stages().find_map(|stage| match stage {
                    Stage::InRound { covers, .. } => Some(covers),
                    _ => None,
                });
                let and = match covers {
                    _ if stages().all(|stage| stage == Stage::Free) => ", and refuses: it is no member",
                    None => ", and has it wait for the next round",
                    Some(true) => {
                        ", fixes a read index at or above the revoke, and asks a quorum whether it still leads"
                    }
                    Some(false) => ", fixes a read index below any revoke, and asks a quorum whether it still leads",
                };
                format!("node {at} gets the renewal of node {node}, sent {stage} ticks ago, {noted}{and}")
            }
            Step::RoundBegins { at } => {
                let covers = after.nodes.iter().flat_map(|n| &n.slots).find_map(|s| match s.stage {
                    Stage::InRound { at: by, covers } if by == at => Some(covers),
                    _ => None,
                });
                let index = if covers == Some(true) {
                    "at or above the revoke"
                } else {
                    "below any revoke"
                };
                format!("node {at} fixes a read index {index} and asks a quorum whether it still leads")
            }
            Step::RoundEnds { at } if self.breaks(Break::RoundWithoutQuorum) => {
                format!("node {at} grants without having heard from a quorum")
            }
            Step::RoundEnds { at } => format!("a quorum has answered node {at}: it sends its grants"),
            Step::TakeUp { node, .. } => {
                let left = after.nodes[usize::from(node)].lease;
                let stale = if before.is_stale(usize::from(node)) {
                    "still has the token"
                } else {
                    "is without the token"
                };
                format!("node {node} takes up a grant: its lease has {left} ticks left; its view {stale}")
            }
            Step::Lose { node, .. } => format!("a renewal of node {node} or its grant is lost"),
            Step::Tick => "a tick passes".to_owned(),
            Step::TickSlow { node } => format!("a tick passes, which the clock of node {node} does not count"),
            Step::TickFast { node } => format!("a tick passes, which the clock of node {node} counts as two"),
            Step::Elect { node, kept } => {
                let lost = before.len - before.committed - kept;
                let own = before.leader == node;
                let tail = match (lost, own) {
                    (_, true) => String::new(),
                    (0, _) => {
                        format!("; of the leader before it has {kept} entries that were not known to be committed")
                    }
                    _ => format!("; {lost} entries of the leader before are lost, {kept} are kept"),
                };
                format!("node {node} is elected in term {}{tail}", after.term)
            }
            Step::Observe { node } => {
                let since = after.nodes[usize::from(node)].since;
                let office = match self.broken {
                    Some(Break::OfficeLeftOut) => "and counts nothing from that".to_owned(),
                    Some(Break::OfficeBeforeElection | Break::OfficeOverResume) => {
                        format!(
                            "and counts from a clock that it read {} ticks ago",
                            since.iter().max().copied().unwrap_or(0)
                        )
                    }
                    _ => "and reads its clock".to_owned(),
                };
                format!("node {node} observes that it leads in term {}, {office}", after.term)
            }
            Step::Propose { node } if after.acked => {
                format!("the revoke is sent to node {node} again: \"already revoked\", ACKNOWLEDGED at once")
            }
            Step::Propose { node } if before.has(before.len, Kind::Revoke) => {
                format!("the revoke is sent to node {node} again, which proposes it")
            }
            Step::Propose { node } => format!("node {node} proposes the revoke"),
            Step::Commit => {
                let new = &after.log[usize::from(before.committed)..usize::from(after.committed)];
                let what: Vec<&str> = new.iter().map(|entry| named(entry.kind)).collect();
                let leader = before.leader;
                let applied = after.nodes[usize::from(leader)].applied == after.committed;
                let and = if applied {
                    format!("; node {leader} applies it")
                } else {
                    String::new()
                };
                format!("what node {leader} has proposed is committed: {}{and}", what.join(", "))
            }
            Step::Apply { node } => self.say_applied(before, usize::from(node), after),
            Step::Freeze { node } => self.say_frozen(usize::from(node), after),
            Step::Confirm { node, at } if self.breaks(Break::AckOnMatched) => {
                format!("node {node} has the revoke in its log, which is enough for node {at}")
            }
            Step::Confirm { node, at } => {
                format!("node {node} confirms to node {at} that its view is without the token")
            }
            Step::Acknowledge { at } => {
                format!("node {at} has confirmations or has waited: the revoke is ACKNOWLEDGED")
            }
            Step::Restart { node } => {
                let left = after.nodes[usize::from(node)].lease;
                let keeps = if left > 0 {
                    format!(", with {left} ticks of its lease")
                } else {
                    String::new()
                };
                format!("node {node} dies and starts again with the state from its disk{keeps}")
            }
            Step::Resync { node } => {
                let left = after.nodes[usize::from(node)].lease;
                let keeps = if left > 0 {
                    format!(" and keeps {left} ticks of its lease")
                } else {
                    String::new()
                };
                format!("node {node} puts an older state in place of its own{keeps}")
            }
            Step::Retire => "it is decided that node 2 is removed".to_owned(),
            Step::TakeOut => "the leader appends a membership without node 2".to_owned(),
            Step::LoseLog => {
                "node 2 dies and starts again without its log; it asks to be let go, more than once".to_owned()
            }
            Step::LetGo => {
                "a request of node 2 to be let go arrives: the leader appends a membership without it".to_owned()
            }
            Step::TakeIn => "the leader appends a membership with node 2".to_owned(),
            Step::Begin { node } => {
                let left = match after.nodes[usize::from(node)].req {
                    Req::Begun { left } => left,
                    Req::None | Req::Found { .. } => 0,
                };
                format!("a request with the token begins at node {node}, whose lease has {left} ticks left")
            }
            Step::Look { node } if after.nodes[usize::from(node)].req == Req::None => {
                format!("node {node} does not find the token and denies")
            }
            Step::Look { node } => format!("node {node} finds the token in its view"),
            Step::Check { node } if after.admitted => format!("node {node} looks at its lease and ADMITS the request"),
            Step::Check { node } => format!("node {node} looks at its lease and denies"),
            Step::Forbidden { node, at } => self.say_forbidden(node, at),
        }
    }

    fn say_applied(&self, before: &State, node: usize, after: &State) -> String {
        let applied = after.nodes[node].applied;
        if applied == before.nodes[node].applied {
            return format!(
                "node {node} publishes index {} and has not swapped its view yet",
                after.nodes[node].shown
            );
        }
        let what = named(after.log[usize::from(applied) - 1].kind);
        format!("node {node} applies {what}")
    }

    fn say_frozen(&self, node: usize, after: &State) -> String {
        let Some(barrier) = after.nodes[node].barrier else {
            return format!("node {node} freezes its ledger");
        };
        let each = (0..NODES)
            .filter(|at| self.scenario.holds[*at])
            .map(|at| match barrier.since[at] {
                DONE => format!("node {at} need not be waited for"),
                since => format!("node {at} must confirm, or {} ticks must pass", self.wait() + 1 - since),
            });
        let each: Vec<String> = each.collect();
        format!("node {node} knows that the revoke is committed: {}", each.join(", "))
    }

    fn say_forbidden(&self, node: u8, at: u8) -> String {
        match self.broken {
            Some(Break::HeartbeatAsLease) => format!("node {node} takes a heartbeat of node {at} for a lease"),
            Some(Break::RetryKeepsId) => format!("node {node} asks again under the same request id, with a new time"),
            Some(Break::IncarnationIgnored) => {
                format!(
                    "a grant for the process before arrives at node {node}, which takes it for the answer to its own request"
                )
            }
            Some(Break::OfficeBeforeElection) => format!("node {node} begins to campaign, and reads its clock"),
            Some(Break::VerdictBelieved) => {
                format!(
                    "node {node} does not know the token, asks node {at}, which believes that it leads, is told that it is good, and ADMITS the request"
                )
            }
            Some(Break::LeaseFlag) => format!("the timer of node {node} clears its flag"),
            _ => "what no rule allows".to_owned(),
        }
    }
}

fn named(kind: Kind) -> &'static str {
    match kind {
        Kind::Revoke => "the revoke",
        Kind::TakeIn => "a membership with node 2",
        Kind::TakeOut => "a membership without node 2",
        Kind::Retire => "the removal of node 2",
        Kind::None => "nothing",
    }
}
