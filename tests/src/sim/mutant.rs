//! The rules, each broken in turn: what the simulation has to notice.

use mcp_model::rules::{Rule, Rules};

/// One broken rule. Those that are a decision of the code are broken in the code; those that are about what surrounds it (a clock, a
/// restart, what is handed to whom) are broken in the simulated surroundings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mutant {
    /// A decision of the code.
    Rule(Rule),
    /// The lease is counted from the answer.
    LeaseFromTheAnswer,
    /// A heartbeat serves as a lease.
    HeartbeatAsLease,
    /// The leader admits without a lease.
    LeaderExempt,
    /// A node confirms with the end of its log.
    AckOnMatched,
    /// The clock is read, and then the change waited for that says who leads.
    OfficeReadEarly,
    /// The beginning of the office outlives a restart in the same term.
    OfficeKeptOverResume,
    /// A later renewal, granted at a later index, takes the place of the one before in the ledger.
    LedgerOverwritten,
    /// A process that starts goes on with the lease of the one before.
    LeaseKeptOverRestart,
    /// The lease is a flag that a timer clears.
    LeaseAsFlag,
    /// The clocks stand still while a machine is suspended.
    ClockStopsInSuspend,
    /// The leader's word on an unknown token is believed.
    LeadersVerdict,
    /// Whoever comes when too many are being asked about is called unknown.
    TooManyMeansUnknown,
    /// Nobody takes away what has expired: each node goes by its own clock.
    ExpiryByEachClock,
    /// A leader asks its own clock only what is due.
    ExpiryByTheLeadersClock,
    /// A command is carried out at the time of the node that it came through.
    ProposersTimeBelieved,
    /// A restore puts the state of the backup in place of the cluster's, tombstones and all.
    RestoreWithoutTombstones,
}

impl Mutant {
    /// All of them, with the words of the guarantee.
    pub const ALL: [(Mutant, &'static str); 35] = [
        (Mutant::Rule(Rule::WaitOutlastsTheLease), "wait shorter than L"),
        (Mutant::LeaseFromTheAnswer, "lease counted from the answer"),
        (Mutant::HeartbeatAsLease, "plain heartbeat as a lease"),
        (
            Mutant::Rule(Rule::OfficeHasAFloor),
            "leader answers below its last log index at the start of its office",
        ),
        (
            Mutant::Rule(Rule::LeaseNeedsItsIndex),
            "lease granted before applied >= read index",
        ),
        (Mutant::LeaderExempt, "leader exempt"),
        (Mutant::AckOnMatched, "ack on matched instead of auth view"),
        (Mutant::Rule(Rule::RetryWaitsAgain), "retry answered at once"),
        (Mutant::OfficeReadEarly, "(a) read before leadership is observed"),
        (Mutant::OfficeKeptOverResume, "(a) kept over a same-term resume"),
        (Mutant::Rule(Rule::SilenceCountsFromTheOffice), "(a) left out"),
        (
            Mutant::Rule(Rule::NotedBeforeTheRound),
            "ledger noted after the read index is fixed",
        ),
        (Mutant::LedgerOverwritten, "ledger entry overwritten by a later grant"),
        (
            Mutant::Rule(Rule::LatestArrivalCounts),
            "ledger keeps the first arrival",
        ),
        (
            Mutant::Rule(Rule::EntryOutlivesRemoval),
            "ledger entry purged at removal",
        ),
        (
            Mutant::Rule(Rule::GrantsToTheApplied),
            "grant to a proposed configuration",
        ),
        (Mutant::LeaseKeptOverRestart, "lease kept over a restart"),
        (Mutant::Rule(Rule::LeaseGoesBeforeTheState), "lease kept over a re-sync"),
        (Mutant::LeaseAsFlag, "lease as a flag cleared by a timer"),
        (Mutant::ClockStopsInSuspend, "clock that stops in suspend"),
        (Mutant::Rule(Rule::LearnersMayHoldLeases), "ack set without learners"),
        (
            Mutant::Rule(Rule::RemovedMayHoldLeases),
            "removed member leaves the set at once",
        ),
        (
            Mutant::Rule(Rule::PublishedLast),
            "view swapped after the index is published",
        ),
        (
            Mutant::Rule(Rule::RegisteredBeforeTheLook),
            "stream looked up before it is registered",
        ),
        (Mutant::LeadersVerdict, "leader's verdict believed for an unknown token"),
        (
            Mutant::Rule(Rule::LeaseEndsByTheFirstClock),
            "holder looks at one clock",
        ),
        (
            Mutant::Rule(Rule::WaitEndsByTheSecondClock),
            "waiter stops at the first clock",
        ),
        (
            Mutant::Rule(Rule::RoundBeginsAfterArrival),
            "round joined while it is under way",
        ),
        (
            Mutant::Rule(Rule::LetGoMayHoldLeases),
            "a member that was let go leaves the set at once",
        ),
        (
            Mutant::Rule(Rule::QuestionsHaveALimit),
            "however many unknown tokens are asked about at a time",
        ),
        (
            Mutant::TooManyMeansUnknown,
            "a token for which there was no room is called unknown",
        ),
        (Mutant::ExpiryByEachClock, "expiry by each node's own clock"),
        (Mutant::ExpiryByTheLeadersClock, "expiry by the leader's own clock only"),
        (
            Mutant::ProposersTimeBelieved,
            "a command's time is that of the node that it came through",
        ),
        (Mutant::RestoreWithoutTombstones, "restore without tombstones"),
    ];

    /// Its name on the command line.
    pub fn name(self) -> String {
        match self {
            Mutant::Rule(rule) => format!("no-{rule:?}"),
            other => format!("{other:?}"),
        }
    }
}

/// The rules of a simulated cluster.
#[derive(Clone, Copy, Debug, Default)]
pub struct Broken(pub Option<Mutant>);

impl Broken {
    /// Whether this one is what is broken.
    pub fn is(self, mutant: Mutant) -> bool {
        self.0 == Some(mutant)
    }
}

impl Rules for Broken {
    fn keep(&self, rule: Rule) -> bool {
        self.0 != Some(Mutant::Rule(rule))
    }
}
