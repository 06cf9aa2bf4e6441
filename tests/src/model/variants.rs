//! Everything that is asked of the model: the protocol as it is, in all circumstances, and with one rule broken at a time.

use std::time::Duration;

use crate::model::protocol::Protocol;
use crate::model::restore::{self, Backup};
use crate::model::rules::*;
use crate::model::run::{self, How, Outcome};
use crate::model::streams::{self, Stream};
use crate::model::{clocks, clocks::TwoClocks};

/// What is run.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Subject {
    /// Leases, offices, barriers.
    Protocol(Scenario, Option<Break>),
    /// Two clocks on two machines.
    Clocks(Option<clocks::Break>),
    /// A stream that opens during a revoke.
    Streams(Option<streams::Break>),
    /// A backup that is restored.
    Restore(Option<restore::Break>),
}

/// One line of the output.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Variant {
    /// Its name.
    pub(crate) name: &'static str,
    /// What it shows: of a mutant, what it does instead of the rule.
    pub(crate) about: &'static str,
    /// The rule of the guarantee.
    pub(crate) rule: &'static str,
    /// What is run.
    pub(crate) subject: Subject,
}

impl Subject {
    /// Nodes that hold leases.
    pub(crate) fn holders(self) -> usize {
        match self {
            Subject::Protocol(scenario, _) => scenario.holds.iter().filter(|holds| **holds).count(),
            Subject::Clocks(_) | Subject::Streams(_) | Subject::Restore(_) => 1,
        }
    }

    /// Runs it.
    pub(crate) fn run(self, how: How, threads: usize, limit: Duration) -> Outcome {
        match self {
            Subject::Protocol(scenario, broken) => run::check(Protocol { scenario, broken }, how, threads, limit),
            Subject::Clocks(broken) => run::check(TwoClocks { broken }, how, threads, limit),
            Subject::Streams(broken) => run::check(Stream { broken }, how, threads, limit),
            Subject::Restore(broken) => run::check(Backup { broken }, how, threads, limit),
        }
    }
}

const fn base(scenario: Scenario, about: &'static str) -> Variant {
    Variant {
        name: scenario.name,
        about,
        rule: "1-8",
        subject: Subject::Protocol(scenario, None),
    }
}

const fn mutant(
    name: &'static str,
    rule: &'static str,
    scenario: Scenario,
    broken: Break,
    about: &'static str,
) -> Variant {
    Variant {
        name,
        about,
        rule,
        subject: Subject::Protocol(scenario, Some(broken)),
    }
}

const fn small(name: &'static str, rule: &'static str, subject: Subject, about: &'static str) -> Variant {
    Variant {
        name,
        about,
        rule,
        subject,
    }
}

/// The protocol as it is. Those with two lease holders must be exhausted.
pub(crate) const BASES: &[Variant] = &[
    base(
        OFFICES,
        "two leaders in turn, both with leases; a restart, after which a leader may resume in its old term",
    ),
    base(
        DRIFT,
        "the same without a restart, with a clock that loses and one that gains a tick",
    ),
    base(TERMS, "three terms: a leader that was deposed comes back"),
    base(
        SHARING,
        "nodes whose view is without the token go on renewing, and share rounds",
    ),
    base(
        RESTART,
        "a process starts again with an older state, whatever it had confirmed",
    ),
    base(RESYNC, "a state goes back within a process"),
    base(OVERTAKING, "renewals of one node overtake each other"),
    base(JOINING, "a learner is taken in, while leaders change"),
    base(LEAVING, "a learner is removed for good, while leaders change"),
    base(MENDING, "the same, while the state of the leader goes back"),
    base(
        RETURNING,
        "a node that lost its log is taken back, and asks once more to be let go",
    ),
    small(
        "clocks",
        "8",
        Subject::Clocks(None),
        "slewed clocks, drifting clocks, suspended machines",
    ),
    small(
        "streams",
        "3, 5",
        Subject::Streams(None),
        "a stream that opens during a revoke",
    ),
    small("restore", "10", Subject::Restore(None), "an old backup"),
    base(THREE, "three nodes that may lead and hold leases, two terms"),
    base(
        THREE_ALL,
        "three such nodes, three terms, restarts, re-syncs, drift, two renewals each",
    ),
    base(
        THREE_MEMBERS,
        "three lease holders, of which one is removed or loses its log",
    ),
];

/// One rule broken at a time.
pub(crate) const MUTANTS: &[Variant] = &[
    mutant(
        "lease-from-answer",
        "1",
        OFFICES,
        Break::LeaseFromAnswer,
        "a lease counts from when its grant arrives",
    ),
    mutant(
        "heartbeat-as-lease",
        "1",
        OFFICES,
        Break::HeartbeatAsLease,
        "a heartbeat of whoever believes to lead is a lease",
    ),
    mutant(
        "grant-before-applied",
        "1",
        OFFICES,
        Break::GrantBeforeApplied,
        "a grant is taken up before the view has applied its read index",
    ),
    mutant(
        "leader-exempt",
        "1",
        OFFICES,
        Break::LeaderExempt,
        "whoever believes to lead needs no lease",
    ),
    mutant(
        "retry-keeps-id",
        "1",
        OFFICES,
        Break::RetryKeepsId,
        "a retry has the old request id and a new time of sending",
    ),
    mutant(
        "lease-lengths-differ",
        "1",
        OFFICES,
        Break::LengthsDiffer,
        "one node is configured with a longer lease than the leader waits for",
    ),
    mutant(
        "round-without-quorum",
        "2",
        OFFICES,
        Break::RoundWithoutQuorum,
        "a leader grants without asking a quorum",
    ),
    mutant(
        "round-under-way",
        "2",
        SHARING,
        Break::RoundUnderWay,
        "a renewal joins a round that began before it arrived",
    ),
    mutant(
        "floor-ignored",
        "2",
        OFFICES,
        Break::FloorIgnored,
        "a leader that resumes answers below its last log index",
    ),
    mutant(
        "ledger-after-index",
        "2",
        OFFICES,
        Break::LedgerAfterIndex,
        "an arrival is noted after its read index is fixed",
    ),
    mutant(
        "proposed-configuration",
        "2",
        JOINING,
        Break::ProposedConfiguration,
        "a node of an uncommitted configuration is granted a lease",
    ),
    mutant(
        "lease-as-flag",
        "3",
        OFFICES,
        Break::LeaseFlag,
        "the lease is a flag that a timer clears",
    ),
    mutant(
        "lease-after-look",
        "3",
        SHARING,
        Break::LeaseAfterLook,
        "a lease that came after the look at the view vouches for it",
    ),
    small(
        "stream-looks-first",
        "3",
        Subject::Streams(Some(streams::Break::Unregistered)),
        "a stream looks its token up before it registers",
    ),
    mutant(
        "verdict-believed",
        "4",
        SHARING,
        Break::VerdictBelieved,
        "for a token that it does not know, a node believes the leader's verdict",
    ),
    mutant(
        "view-after-index",
        "5",
        OFFICES,
        Break::ViewAfterIndex,
        "the index is published before the view is swapped",
    ),
    small(
        "cut-before-view",
        "5",
        Subject::Streams(Some(streams::Break::CutEarly)),
        "what is open is cut before the view is swapped",
    ),
    small(
        "index-before-cut",
        "5",
        Subject::Streams(Some(streams::Break::ConfirmedEarly)),
        "the index is published before what is open is cut",
    ),
    mutant(
        "lease-over-resync",
        "5",
        RESYNC,
        Break::LeaseOverResync,
        "a node whose state goes back keeps its lease",
    ),
    mutant(
        "resync-without-cut",
        "5",
        RESYNC,
        Break::ResyncWithoutCut,
        "a request that is being decided outlives a state that goes back",
    ),
    mutant(
        "incarnation-ignored",
        "5",
        RESTART,
        Break::IncarnationIgnored,
        "a grant for the process before counts for the one after",
    ),
    mutant(
        "wait-shorter-than-lease",
        "6",
        OFFICES,
        Break::WaitShorter,
        "the leader waits shorter than L",
    ),
    mutant(
        "ack-on-matched",
        "6",
        OFFICES,
        Break::AckOnMatched,
        "a node that has the entry in its log counts as confirmed",
    ),
    mutant(
        "retry-at-once",
        "6",
        OFFICES,
        Break::RetryAtOnce,
        "a retry of a committed revoke is answered at once",
    ),
    mutant(
        "office-before-election",
        "6 (a)",
        OFFICES,
        Break::OfficeBeforeElection,
        "the clock of the office is read before leadership is observed",
    ),
    mutant(
        "office-over-resume",
        "6 (a)",
        OFFICES,
        Break::OfficeOverResume,
        "a leader that resumes in its term keeps the time at which it began",
    ),
    mutant(
        "office-left-out",
        "6 (a)",
        OFFICES,
        Break::OfficeLeftOut,
        "only the ledger counts, not the beginning of the office",
    ),
    mutant(
        "ledger-overwritten",
        "6 (b)",
        OVERTAKING,
        Break::LedgerOverwritten,
        "a grant at a newer index takes the place of the entry before",
    ),
    mutant(
        "ledger-purged",
        "6 (b)",
        LEAVING,
        Break::LedgerPurged,
        "the entry of a removed node is forgotten with its removal",
    ),
    mutant(
        "frozen-at-proposal",
        "6",
        OFFICES,
        Break::FrozenAtProposal,
        "the ledger is frozen when the revoke is proposed, not when it is committed",
    ),
    mutant(
        "without-learners",
        "6",
        JOINING,
        Break::WithoutLearners,
        "learners are not waited for",
    ),
    mutant(
        "removed-leaves-at-once",
        "6",
        LEAVING,
        Break::RemovedLeaves,
        "a removed node is not waited for",
    ),
    mutant(
        "let-go-leaves-at-once",
        "6",
        RETURNING,
        Break::LetGoLeaves,
        "a node that was let go is not waited for",
    ),
    mutant(
        "set-from-older-state",
        "6",
        MENDING,
        Break::BarrierOnOlderState,
        "the set is read from a state that has gone back",
    ),
    mutant(
        "lease-over-restart",
        "7",
        RESTART,
        Break::LeaseOverRestart,
        "a lease outlives its process",
    ),
    mutant(
        "wait-without-drift",
        "8",
        DRIFT,
        Break::WaitWithoutDrift,
        "the leader waits L, without drift and margin",
    ),
    small(
        "clock-stops-in-suspend",
        "8",
        Subject::Clocks(Some(clocks::Break::StopsInSuspend)),
        "the holder's clock stands still while its machine is suspended",
    ),
    small(
        "holder-trusts-slewed",
        "8",
        Subject::Clocks(Some(clocks::Break::HolderSlewed)),
        "the holder goes by the slewed clock alone",
    ),
    small(
        "waiter-trusts-either",
        "8",
        Subject::Clocks(Some(clocks::Break::WaiterEither)),
        "the leader is content when either clock says so",
    ),
    small(
        "restore-without-tombstones",
        "10",
        Subject::Restore(Some(restore::Break::WithoutTombstones)),
        "a backup replaces the tombstones",
    ),
    small(
        "tombstones-go-early",
        "10",
        Subject::Restore(Some(restore::Break::TombstonesGoEarly)),
        "tombstones are swept away before the token has expired",
    ),
];
