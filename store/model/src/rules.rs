//! The rules of the guarantee as a value that the code takes, so that a checker can run the same code with one of them broken.
//!
//! A checker that never fails proves nothing: the simulation breaks every rule in turn and must notice. What is shipped takes
//! [`AllRules`], a type without content whose answer is a constant, so that neither a setting, nor a feature of a build, nor a
//! bit that flips can break a rule in a running node: the other branch is not in the program. A test of tidiness sees to it that
//! nothing but the simulation implements [`Rules`].

/// A line of the guarantee that stands in this package or in the store as a decision.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Rule {
    /// 1: a lease is taken up only once the view has applied the index of its grant.
    LeaseNeedsItsIndex,
    /// 8: a lease is over when either clock says so.
    LeaseEndsByTheFirstClock,
    /// 3: a request is registered before its token is looked up, or a cut could miss it.
    RegisteredBeforeTheLook,
    /// 5: a state that goes back loses its lease first.
    LeaseGoesBeforeTheState,
    /// 5: an index is published last, when the view shows it and what it ends is cut.
    PublishedLast,
    /// 2: a renewal is noted before the round that answers it.
    NotedBeforeTheRound,
    /// 2: a round has begun after the arrival of all who share it.
    RoundBeginsAfterArrival,
    /// 2: no read index lies below the last log index at the beginning of the office.
    OfficeHasAFloor,
    /// 2: only nodes of the applied configuration are granted anything.
    GrantsToTheApplied,
    /// 6: a silent node counts from when this process observed that it leads.
    SilenceCountsFromTheOffice,
    /// 6: of a node's renewals the latest arrival counts.
    LatestArrivalCounts,
    /// 6: a node's entry outlives its removal.
    EntryOutlivesRemoval,
    /// 6: the wait is longer than a lease.
    WaitOutlastsTheLease,
    /// 8: a lease that is not one's own is over when both clocks say so.
    WaitEndsByTheSecondClock,
    /// 6: learners may hold leases.
    LearnersMayHoldLeases,
    /// 6: nodes that were removed may hold leases.
    RemovedMayHoldLeases,
    /// 6: nodes that were let go because they lost their log may hold leases.
    LetGoMayHoldLeases,
    /// 4: only so many unknown bearers are asked about at a time.
    QuestionsHaveALimit,
    /// 6: a retry of what is committed waits like the first try.
    RetryWaitsAgain,
}

/// Which rules are kept.
pub trait Rules: Copy + Send + Sync + 'static {
    /// Whether this one is.
    fn keep(&self, rule: Rule) -> bool;
}

/// All of them are: the only rules of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AllRules;

impl Rules for AllRules {
    #[inline(always)]
    fn keep(&self, _: Rule) -> bool {
        true
    }
}
