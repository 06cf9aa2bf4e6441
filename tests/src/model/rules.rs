//! What the model is asked: in which circumstances the protocol runs, and which rule is broken.

/// Nodes of the model. Node 2 is the one whose membership may vary.
pub(crate) const NODES: usize = 3;
/// `L` in ticks.
pub(crate) const LEASE: u8 = 2;
/// How much longer the lease of the node is whose configuration differs (mutant `lease-lengths-differ`).
pub(crate) const LONGER: u8 = 3;
/// `W` in ticks: a lease, one tick that the holder's clock may lose meanwhile and one that the waiter's may gain. That the last
/// of the three is not needed is due to whole ticks: a wait is over when *more* than `W` has passed.
pub(crate) const WAIT: u8 = LEASE + 1;

/// Circumstances: who may do what, and how often the worst may happen.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scenario {
    /// Its name.
    pub(crate) name: &'static str,
    /// Which nodes may come to lead. All of them vote, together with enough others to make a majority.
    pub(crate) leads: [bool; NODES],
    /// Which nodes hold leases and admit.
    pub(crate) holds: [bool; NODES],
    /// Node 2 is a learner from the beginning.
    pub(crate) learner: bool,
    /// Node 2 is no member at the beginning and may be taken in.
    pub(crate) joins: bool,
    /// Node 2 may be retired and taken out.
    pub(crate) retires: bool,
    /// Node 2 may lose its log, be let go, and be taken back.
    pub(crate) loses_log: bool,
    /// Entries that the log may come to have.
    pub(crate) entries: u8,
    /// Terms.
    pub(crate) terms: u8,
    /// Restarts of a process, over all nodes.
    pub(crate) restarts: u8,
    /// Returns to an older state within a process, over all nodes.
    pub(crate) resyncs: u8,
    /// Clocks that lose or gain a tick, over all nodes.
    pub(crate) slips: u8,
    /// Whether leases are followed of nodes whose view is without the token. Such a node admits nobody by it, and it has to apply the
    /// revoke again before it has a lease after a restart, so that this matters only where a lease might outlive the view.
    pub(crate) fresh: bool,
    /// Renewals under way at once, per node.
    pub(crate) slots: [u8; NODES],
}

const NONE: Scenario = Scenario {
    name: "",
    leads: [true, true, false],
    holds: [true, true, false],
    learner: false,
    joins: false,
    retires: false,
    loses_log: false,
    entries: 3,
    terms: 2,
    restarts: 0,
    resyncs: 0,
    slips: 0,
    fresh: false,
    slots: [1; NODES],
};

/// Two leaders in turn that both hold leases; a restart, so that one may resume in its old term.
pub(crate) const OFFICES: Scenario = Scenario {
    name: "offices",
    restarts: 1,
    ..NONE
};
/// Clocks that drift.
pub(crate) const DRIFT: Scenario = Scenario {
    name: "drift",
    slips: 2,
    ..NONE
};
/// Three terms, so that a leader may be deposed and come back.
pub(crate) const TERMS: Scenario = Scenario {
    name: "terms",
    terms: 3,
    ..NONE
};
/// A process that starts again with an older state, whatever it knew before.
pub(crate) const RESTART: Scenario = Scenario {
    name: "restart",
    terms: 1,
    restarts: 1,
    fresh: true,
    ..NONE
};
/// A state that goes back within a process.
pub(crate) const RESYNC: Scenario = Scenario {
    name: "resync",
    terms: 1,
    resyncs: 1,
    fresh: true,
    ..NONE
};
/// Nodes that already know go on renewing, and share rounds with those that do not.
pub(crate) const SHARING: Scenario = Scenario {
    name: "sharing",
    fresh: true,
    ..NONE
};
/// Renewals that overtake each other.
pub(crate) const OVERTAKING: Scenario = Scenario {
    name: "overtaking",
    slots: [1, 2, 1],
    ..NONE
};
/// A learner is removed for good.
pub(crate) const LEAVING: Scenario = Scenario {
    name: "leaving",
    holds: [true, false, true],
    learner: true,
    retires: true,
    ..NONE
};
/// A learner is removed for good, and the state of the leader goes back.
pub(crate) const MENDING: Scenario = Scenario {
    name: "mending",
    holds: [true, false, true],
    learner: true,
    retires: true,
    terms: 1,
    resyncs: 1,
    ..NONE
};
/// A node is taken in.
pub(crate) const JOINING: Scenario = Scenario {
    name: "joining",
    holds: [true, false, true],
    learner: true,
    joins: true,
    ..NONE
};
/// A node that had lost its log is taken back; its request to be let go may arrive once more at any time.
pub(crate) const RETURNING: Scenario = Scenario {
    name: "returning",
    holds: [true, false, true],
    learner: true,
    joins: true,
    loses_log: true,
    ..NONE
};
/// Three nodes that may all lead and hold leases.
pub(crate) const THREE: Scenario = Scenario {
    name: "three",
    leads: [true; NODES],
    holds: [true; NODES],
    entries: 2,
    ..NONE
};
/// The same with everything that may go wrong.
pub(crate) const THREE_ALL: Scenario = Scenario {
    name: "three-all",
    leads: [true; NODES],
    holds: [true; NODES],
    terms: 3,
    restarts: 2,
    resyncs: 1,
    slips: 2,
    fresh: true,
    slots: [2; NODES],
    ..NONE
};
/// Three lease holders, of which one comes and goes.
pub(crate) const THREE_MEMBERS: Scenario = Scenario {
    name: "three-members",
    holds: [true; NODES],
    learner: true,
    retires: true,
    loses_log: true,
    entries: 5,
    terms: 3,
    restarts: 1,
    slips: 1,
    ..NONE
};

/// The one rule that a mutant breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Break {
    WaitShorter,
    WaitWithoutDrift,
    LeaseFromAnswer,
    HeartbeatAsLease,
    RoundWithoutQuorum,
    RoundUnderWay,
    FloorIgnored,
    GrantBeforeApplied,
    LeaderExempt,
    AckOnMatched,
    RetryAtOnce,
    OfficeBeforeElection,
    OfficeOverResume,
    OfficeLeftOut,
    LedgerAfterIndex,
    LedgerOverwritten,
    LedgerPurged,
    FrozenAtProposal,
    ProposedConfiguration,
    LeaseOverRestart,
    LeaseOverResync,
    LeaseFlag,
    LeaseAfterLook,
    ResyncWithoutCut,
    WithoutLearners,
    RemovedLeaves,
    LetGoLeaves,
    BarrierOnOlderState,
    ViewAfterIndex,
    VerdictBelieved,
    IncarnationIgnored,
    RetryKeepsId,
    LengthsDiffer,
}
