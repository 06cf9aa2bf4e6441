//! The gate: whether this replica may admit anybody at this moment. Rules 1, 3, 5 and 11 of the guarantee.
//!
//! No clock: whoever asks brings a fresh reading. The lease is a deadline, never a flag that somebody has to clear in time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::{ArcSwap, ArcSwapOption};
use mcp_model::clock::Reading;
use mcp_model::ids::Incarnation;
use mcp_model::lease::{LeaseHolder, RequestId, is_over};
use mcp_model::rules::{AllRules, Rule, Rules};

/// The lease of this replica, with the renewals that are under way.
pub struct LeaseGate<R: Rules = AllRules> {
    rules: R,
    deadline: ArcSwapOption<Reading>,
    holder: Mutex<LeaseHolder<R>>,
    /// Set while an older state is put in place of a newer one; changed under the holder's lock.
    installing: AtomicBool,
    shut: ArcSwap<Shut>,
    /// Set once this node is no longer part of the cluster; changed under the holder's lock.
    removed: AtomicBool,
}

/// Why nobody is admitted, whatever lease there is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Shut {
    /// Until the process ends.
    lasting: Option<String>,
    /// Until the disk takes the state again.
    state: Option<String>,
    /// Until the disk takes the raft log again.
    log: Option<String>,
    /// Until the state is known to be what the other replicas have. It goes on meanwhile, and so does consensus.
    doubted: Option<String>,
}

/// Which store the disk refuses for the time being.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The replicated state.
    State,
    /// The raft log.
    Log,
}

impl Shut {
    fn of(&mut self, refused: Refused) -> &mut Option<String> {
        match refused {
            Refused::State => &mut self.state,
            Refused::Log => &mut self.log,
        }
    }

    fn why(&self) -> Option<&String> {
        let stores = self.lasting.as_ref().or(self.state.as_ref()).or(self.log.as_ref());
        stores.or(self.doubted.as_ref())
    }
}

impl LeaseGate {
    /// A gate without a lease: closed.
    pub fn new(incarnation: Incarnation, lease_ms: u64) -> LeaseGate {
        LeaseGate::with_rules(AllRules, incarnation, lease_ms)
    }
}

impl<R: Rules> LeaseGate<R> {
    /// The same by these rules.
    pub fn with_rules(rules: R, incarnation: Incarnation, lease_ms: u64) -> LeaseGate<R> {
        LeaseGate {
            rules,
            deadline: ArcSwapOption::empty(),
            holder: Mutex::new(LeaseHolder::with_rules(rules, incarnation, lease_ms)),
            installing: AtomicBool::new(false),
            shut: ArcSwap::from_pointee(Shut::default()),
            removed: AtomicBool::new(false),
        }
    }

    /// Whether the lease holds at `now`, which must be read after whatever the lease is to vouch for.
    pub fn holds(&self, now: Reading) -> bool {
        self.deadline
            .load()
            .as_ref()
            .is_some_and(|deadline| !is_over(self.rules, **deadline, now))
    }

    /// Whether what was looked up in the view is vouched for at `now`: by the lease that was held when it was looked up, whose deadline
    /// [`LeaseGate::deadline`] gave `before` the look. A lease that came after the look says nothing about it: the replica may
    /// have been without one, and behind, when it looked.
    pub fn vouches(&self, before: Option<Reading>, now: Reading) -> bool {
        let held = |deadline| !is_over(self.rules, deadline, now);
        before.is_some_and(held) && self.holds(now)
    }

    /// Until when the lease holds: read before a look-up, and by people and metrics.
    pub fn deadline(&self) -> Option<Reading> {
        self.deadline.load().as_ref().map(|d| **d)
    }

    /// The incarnation whose lease this is.
    pub fn incarnation(&self) -> Incarnation {
        self.holder().incarnation()
    }

    /// Notes that a renewal is about to be sent; `now` must be read before it leaves. `None`: the gate is shut.
    pub fn begin(&self, now: Reading) -> Option<(Incarnation, RequestId)> {
        if self.why_shut().is_some() || self.is_removed() {
            return None;
        }
        let mut holder = self.holder();
        let request = holder.begin(now);
        Some((holder.incarnation(), request))
    }

    /// Notes a grant, and takes it up at once if the auth view is far enough. How far it is is looked up in here, so that a
    /// view that goes back meanwhile is not mistaken for the one before.
    pub fn granted(
        &self,
        incarnation: Incarnation,
        request: RequestId,
        read_index: u64,
        auth_index: impl FnOnce() -> u64,
    ) {
        let mut holder = self.holder();
        if let Err(why) = holder.granted(incarnation, request, read_index) {
            tracing::warn!(?incarnation, ?request, read_index, %why, "a grant was refused");
            return;
        }
        self.take_up(&mut holder, auth_index());
    }

    /// Forgets a renewal that failed.
    pub fn failed(&self, request: RequestId) {
        self.holder().failed(request);
    }

    /// Takes up the grants that the auth view has caught up with.
    pub(crate) fn applied(&self, auth_index: u64) {
        let mut holder = self.holder();
        self.take_up(&mut holder, auth_index);
    }

    /// Gives up the lease and all renewals under way, and goes on as another incarnation: when the node stops, and before an
    /// older state is installed.
    pub fn become_incarnation(&self, incarnation: Incarnation) {
        let mut holder = self.holder();
        self.deadline.store(None);
        holder.become_incarnation(incarnation);
    }

    /// The view is about to go back: gives up the lease, goes on as another incarnation, and takes up nothing until
    /// [`LeaseGate::end_install`].
    pub(crate) fn begin_install(&self, incarnation: Incarnation) {
        let mut holder = self.holder();
        self.installing.store(true, Ordering::Release);
        if !self.rules.keep(Rule::LeaseGoesBeforeTheState) {
            return;
        }
        self.deadline.store(None);
        holder.become_incarnation(incarnation);
    }

    /// The older state is in place, and its index is published.
    pub fn end_install(&self) {
        let _holder = self.holder();
        self.installing.store(false, Ordering::Release);
    }

    /// Closes the gate until the process ends. For a store that is damaged.
    pub fn shut(&self, reason: &str) {
        self.close(|shut| shut.lasting = Some(reason.to_owned()));
    }

    /// Closes the gate until [`LeaseGate::resume`]. For a disk that refuses.
    pub fn suspend(&self, refused: Refused, reason: &str) {
        self.close(|shut| *shut.of(refused) = Some(reason.to_owned()));
    }

    /// The disk takes this store again. What else shuts the gate stays; and the gate opens only by a new lease.
    pub fn resume(&self, refused: Refused) {
        let _holder = self.holder();
        let mut shut = Shut::clone(&self.shut.load());
        *shut.of(refused) = None;
        self.shut.store(Arc::new(shut));
    }

    /// Closes the gate until [`LeaseGate::believe`]. For a state that is not what the other replicas have.
    pub fn doubt(&self, reason: &str) {
        self.close(|shut| shut.doubted = Some(reason.to_owned()));
    }

    /// The state is what the others have. What else shuts the gate stays; and the gate opens only by a new lease.
    pub fn believe(&self) {
        let _holder = self.holder();
        let mut shut = Shut::clone(&self.shut.load());
        shut.doubted = None;
        self.shut.store(Arc::new(shut));
    }

    /// Why the state is doubted, if it is.
    pub fn why_doubted(&self) -> Option<String> {
        self.shut.load().doubted.clone()
    }

    fn close(&self, note: impl FnOnce(&mut Shut)) {
        let mut holder = self.holder();
        let mut shut = Shut::clone(&self.shut.load());
        note(&mut shut);
        self.shut.store(Arc::new(shut));
        self.deadline.store(None);
        // What was asked for before is not taken up after.
        let incarnation = holder.incarnation();
        holder.become_incarnation(incarnation);
    }

    /// Closes the gate for good: this node was removed from the cluster. Its state goes on, because the others may need its
    /// voice to go on without it.
    pub fn remove(&self) {
        let mut holder = self.holder();
        self.removed.store(true, Ordering::Release);
        self.deadline.store(None);
        let incarnation = holder.incarnation();
        holder.become_incarnation(incarnation);
    }

    /// Whether this node was removed from the cluster.
    pub fn is_removed(&self) -> bool {
        self.removed.load(Ordering::Acquire)
    }

    /// Why the gate is shut, if it is.
    pub fn why_shut(&self) -> Option<String> {
        self.shut.load().why().cloned()
    }

    /// Why the gate is shut for as long as the process runs, if it is.
    pub fn why_shut_for_good(&self) -> Option<String> {
        self.shut.load().lasting.clone()
    }

    /// Why the state must not change at the moment, if it must not: a log that waits for its disk does not keep it from that.
    pub(crate) fn why_state_shut(&self) -> Option<String> {
        let shut = self.shut.load();
        shut.lasting.as_ref().or(shut.state.as_ref()).cloned()
    }

    /// Whether the disk refuses this store at the moment.
    pub fn is_refused(&self, refused: Refused) -> bool {
        Shut::clone(&self.shut.load()).of(refused).is_some()
    }

    fn take_up(&self, holder: &mut LeaseHolder<R>, auth_index: u64) {
        if self.shut.load().why().is_some() || self.installing.load(Ordering::Acquire) || self.is_removed() {
            return;
        }
        if let Some(deadline) = holder.applied(auth_index) {
            self.deadline.store(Some(Arc::new(deadline)));
        }
    }

    fn holder(&self) -> MutexGuard<'_, LeaseHolder<R>> {
        self.holder.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Incarnation = Incarnation(1);

    #[test]
    fn the_gate_opens_by_a_grant_that_is_applied_and_closes_by_the_clock() {
        let gate = LeaseGate::new(ONE, 2_000);
        assert!(!gate.holds(Reading::default()));
        let (incarnation, request) = gate.begin(Reading::both_ms(10)).unwrap();
        gate.granted(incarnation, request, 7, || 6);
        assert!(!gate.holds(Reading::both_ms(11)), "index 7 is not applied yet");
        gate.applied(7);
        assert!(gate.holds(Reading::both_ms(2_009)));
        assert!(!gate.holds(Reading::both_ms(2_010)));
    }

    #[test]
    fn a_lease_that_came_after_the_look_vouches_for_nothing() {
        let gate = LeaseGate::new(ONE, 2_000);
        let without = gate.deadline();
        let (incarnation, request) = gate.begin(Reading::both_ms(10)).unwrap();
        gate.granted(incarnation, request, 1, || 1);
        let first = gate.deadline();
        assert!(
            !gate.vouches(without, Reading::both_ms(11)),
            "looked at without a lease"
        );
        assert!(gate.vouches(first, Reading::both_ms(2_009)));
        // The lease ran out, a right was taken away meanwhile, and another lease came.
        let (incarnation, request) = gate.begin(Reading::both_ms(3_000)).unwrap();
        gate.granted(incarnation, request, 2, || 2);
        assert!(gate.holds(Reading::both_ms(3_001)));
        assert!(
            !gate.vouches(first, Reading::both_ms(3_001)),
            "looked at under the lease before"
        );
        assert!(gate.vouches(gate.deadline(), Reading::both_ms(3_001)));
    }

    #[test]
    fn a_shut_gate_never_opens_again() {
        let gate = LeaseGate::new(ONE, 2_000);
        let (incarnation, request) = gate.begin(Reading::both_ms(10)).unwrap();
        gate.shut("disk on fire");
        gate.granted(incarnation, request, 1, || 1);
        assert!(!gate.holds(Reading::both_ms(11)));
        assert!(gate.begin(Reading::both_ms(12)).is_none());
        assert_eq!(gate.why_shut().as_deref(), Some("disk on fire"));
    }

    #[test]
    fn a_removed_node_never_holds_a_lease_again() {
        let gate = LeaseGate::new(ONE, 2_000);
        let (incarnation, first) = gate.begin(Reading::both_ms(10)).unwrap();
        gate.granted(incarnation, first, 0, || 0);
        let (incarnation, second) = gate.begin(Reading::both_ms(20)).unwrap();
        assert!(gate.holds(Reading::both_ms(21)));
        gate.remove();
        assert!(!gate.holds(Reading::both_ms(21)), "the lease it had is gone");
        gate.granted(incarnation, second, 0, || 0);
        assert!(
            !gate.holds(Reading::both_ms(21)),
            "and so is the one that was under way"
        );
        assert!(gate.begin(Reading::both_ms(22)).is_none());
        assert_eq!(gate.why_shut(), None, "its state goes on");
    }

    #[test]
    fn a_doubted_state_admits_nobody_and_goes_on() {
        let gate = LeaseGate::new(ONE, 2_000);
        let (incarnation, request) = gate.begin(Reading::both_ms(10)).unwrap();
        gate.granted(incarnation, request, 0, || 0);
        let (_, under_way) = gate.begin(Reading::both_ms(11)).unwrap();
        gate.doubt("it differs");
        assert!(!gate.holds(Reading::both_ms(12)) && gate.begin(Reading::both_ms(12)).is_none());
        assert_eq!(gate.why_shut().as_deref(), Some("it differs"));
        assert_eq!((gate.why_state_shut(), gate.why_shut_for_good()), (None, None));
        gate.believe();
        gate.granted(incarnation, under_way, 0, || 0);
        assert!(
            !gate.holds(Reading::both_ms(13)),
            "a renewal from before must not open it"
        );
        let (_, request) = gate.begin(Reading::both_ms(14)).unwrap();
        gate.granted(incarnation, request, 0, || 0);
        assert!(gate.holds(Reading::both_ms(15)));
    }

    #[test]
    fn a_suspended_gate_opens_by_a_new_lease_once_nothing_refuses() {
        let gate = LeaseGate::new(ONE, 2_000);
        let (incarnation, before) = gate.begin(Reading::both_ms(10)).unwrap();
        gate.suspend(Refused::Log, "disk full");
        gate.suspend(Refused::State, "disk full");
        assert!(gate.begin(Reading::both_ms(11)).is_none());
        gate.resume(Refused::Log);
        assert!(gate.why_shut().is_some() && gate.is_refused(Refused::State) && !gate.is_refused(Refused::Log));
        gate.resume(Refused::State);
        gate.granted(incarnation, before, 1, || 1);
        assert!(
            !gate.holds(Reading::both_ms(12)),
            "a renewal from before must not open it"
        );
        let (incarnation, request) = gate.begin(Reading::both_ms(13)).unwrap();
        gate.granted(incarnation, request, 1, || 1);
        assert!(gate.holds(Reading::both_ms(14)));
        gate.shut("damaged");
        gate.resume(Refused::State);
        assert_eq!(gate.why_shut().as_deref(), Some("damaged"));
    }
}
