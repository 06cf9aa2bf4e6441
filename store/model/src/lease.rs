//! The read lease of one replica: rules 1, 5 and 7 of the guarantee, as arithmetic.
//!
//! A lease runs from *before its request was sent*, and only once the replica has applied what the grant named. So whatever
//! was committed when the leader saw the request is in the view before the lease lets anybody in, and the leader, which
//! notes the request after it was sent, always thinks the lease ends later than it does.

use crate::clock::Reading;
use crate::ids::Incarnation;
use crate::rules::{AllRules, Rule, Rules};

/// Renewals that may be on their way at once; an older one is given up. At one every 400 ms more than this is a dead leader.
pub const PENDING_MAX: usize = 16;

/// Names one renewal within an incarnation. A retry is a new request with a new time of sending.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Serialize, serde::Deserialize)]
pub struct RequestId(pub u64);

#[derive(Clone, Copy, Debug)]
struct Pending {
    request: RequestId,
    sent: Reading,
    /// The read index of the grant, once there is one.
    grant: Option<u64>,
}

/// What a replica knows of its own lease and of the renewals it has under way.
#[derive(Debug)]
pub struct LeaseHolder<R: Rules = AllRules> {
    rules: R,
    incarnation: Incarnation,
    lease_ms: u64,
    next: u64,
    pending: Vec<Pending>,
    deadline: Option<Reading>,
}

/// Why a grant gives nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum GrantRefused {
    /// It answers a renewal from before the node gave its lease back.
    #[error("it answers a renewal of an earlier incarnation")]
    EarlierIncarnation,
    /// It answers a renewal that was given up, or was answered before.
    #[error("nobody waits for it any more")]
    NotWaitedFor,
}

impl LeaseHolder {
    /// A holder without a lease: a process that starts has none, whatever it had before.
    pub fn new(incarnation: Incarnation, lease_ms: u64) -> LeaseHolder {
        LeaseHolder::with_rules(AllRules, incarnation, lease_ms)
    }
}

impl<R: Rules> LeaseHolder<R> {
    /// The same by these rules.
    pub fn with_rules(rules: R, incarnation: Incarnation, lease_ms: u64) -> LeaseHolder<R> {
        LeaseHolder {
            rules,
            incarnation,
            lease_ms,
            next: 1,
            pending: Vec::new(),
            deadline: None,
        }
    }

    /// The incarnation that this holder's renewals carry.
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// Notes that a renewal is about to be sent. `now` must be read before the request leaves.
    pub fn begin(&mut self, now: Reading) -> RequestId {
        let request = RequestId(self.next);
        self.next += 1;
        if self.pending.len() == PENDING_MAX {
            self.pending.remove(0);
        }
        self.pending.push(Pending {
            request,
            sent: now,
            grant: None,
        });
        request
    }

    /// Notes the leader's grant. It gives nothing yet: the view must first have applied `read_index`. An answer to another
    /// incarnation, or to a request that was given up, is refused.
    pub fn granted(
        &mut self,
        incarnation: Incarnation,
        request: RequestId,
        read_index: u64,
    ) -> Result<(), GrantRefused> {
        if incarnation != self.incarnation {
            return Err(GrantRefused::EarlierIncarnation);
        }
        let pending = self.pending.iter_mut().find(|p| p.request == request);
        pending.ok_or(GrantRefused::NotWaitedFor)?.grant = Some(read_index);
        Ok(())
    }

    /// Forgets a renewal that failed.
    pub fn failed(&mut self, request: RequestId) {
        self.pending.retain(|p| p.request != request);
    }

    /// Takes up the grants that the auth view has caught up with and says until when the lease holds, if that is later than
    /// before.
    pub fn applied(&mut self, auth_index: u64) -> Option<Reading> {
        let any = !self.rules.keep(Rule::LeaseNeedsItsIndex);
        let ripe = |p: &Pending| p.grant.is_some_and(|read_index| any || auth_index >= read_index);
        let newest = self.pending.iter().rposition(ripe)?;
        let deadline = self.pending[newest].sent.plus_ms(self.lease_ms);
        self.pending.drain(..=newest);
        if self.deadline.is_some_and(|held| held.boot_ns >= deadline.boot_ns) {
            return None;
        }
        self.deadline = Some(deadline);
        self.deadline
    }

    /// Whether the lease still holds at `now`: not if either clock says otherwise.
    pub fn holds(&self, now: Reading) -> bool {
        self.deadline
            .is_some_and(|deadline| !is_over(self.rules, deadline, now))
    }

    /// Gives up the lease and every renewal under way and goes on as another incarnation: at shutdown, and before an older
    /// state is installed.
    pub fn become_incarnation(&mut self, incarnation: Incarnation) {
        self.incarnation = incarnation;
        self.pending.clear();
        self.deadline = None;
    }
}

/// Whether a lease until `deadline` is over for its holder: as soon as either clock says so.
pub fn is_over<R: Rules>(rules: R, deadline: Reading, now: Reading) -> bool {
    match rules.keep(Rule::LeaseEndsByTheFirstClock) {
        true => now.either_passed(deadline),
        false => now.boot_ns >= deadline.boot_ns,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Incarnation = Incarnation(1);

    fn ms(ms: u64) -> Reading {
        Reading::both_ms(ms)
    }

    #[test]
    fn a_lease_counts_from_the_sending_and_not_from_the_answer() {
        let mut holder = LeaseHolder::new(ONE, 2_000);
        let request = holder.begin(ms(10_000));
        assert_eq!(holder.granted(ONE, request, 5), Ok(()));
        assert_eq!(holder.applied(5), Some(ms(12_000)));
        assert!(holder.holds(ms(11_999)));
        assert!(!holder.holds(ms(12_000)));
    }

    #[test]
    fn a_grant_gives_nothing_before_its_index_is_applied() {
        let mut holder = LeaseHolder::new(ONE, 2_000);
        let request = holder.begin(ms(0));
        assert_eq!(holder.granted(ONE, request, 9), Ok(()));
        assert_eq!(holder.applied(8), None);
        assert!(!holder.holds(ms(1)));
        assert_eq!(holder.applied(9), Some(ms(2_000)));
    }

    #[test]
    fn grants_that_arrive_out_of_order_never_shorten_the_lease() {
        let mut holder = LeaseHolder::new(ONE, 2_000);
        let first = holder.begin(ms(0));
        let second = holder.begin(ms(400));
        assert_eq!(holder.granted(ONE, second, 3), Ok(()));
        assert_eq!(holder.applied(3), Some(ms(2_400)));
        assert_eq!(holder.granted(ONE, first, 3), Err(GrantRefused::NotWaitedFor));
        assert_eq!(holder.applied(3), None);
        assert!(holder.holds(ms(2_399)));
    }

    #[test]
    fn another_incarnation_inherits_neither_lease_nor_grant() {
        let mut holder = LeaseHolder::new(ONE, 2_000);
        let request = holder.begin(ms(0));
        assert_eq!(holder.granted(ONE, request, 1), Ok(()));
        assert!(holder.applied(1).is_some());
        let pending = holder.begin(ms(400));
        holder.become_incarnation(Incarnation(2));
        assert!(!holder.holds(ms(1)));
        assert_eq!(holder.granted(ONE, pending, 1), Err(GrantRefused::EarlierIncarnation));
        assert_eq!(holder.applied(1), None);
    }

    #[test]
    fn a_slewed_clock_ends_the_lease_early_and_never_late() {
        let mut holder = LeaseHolder::new(ONE, 2_000);
        let request = holder.begin(ms(0));
        assert_eq!(holder.granted(ONE, request, 0), Ok(()));
        assert!(holder.applied(0).is_some());
        assert!(!holder.holds(Reading {
            boot_ns: 2_000_000_000,
            raw_ns: 1_900_000_000
        }));
        assert!(!holder.holds(Reading {
            boot_ns: 1_900_000_000,
            raw_ns: 2_000_000_000
        }));
    }

    #[test]
    fn renewals_that_are_never_answered_do_not_pile_up() {
        let mut holder = LeaseHolder::new(ONE, 2_000);
        (0..1_000).for_each(|i| {
            holder.begin(ms(i));
        });
        assert_eq!(holder.pending.len(), PENDING_MAX);
    }
}
