//! Two clocks on two machines: whether a wait is over only when the lease is. Rule 8.
//!
//! The holder reads its clocks and asks; the leader reads its own when it gets that. Each machine has a clock that runs through
//! suspensions and that a time daemon may slew as it likes (boot), and one that nobody slews and that stands still during a suspension
//! (raw); a slip of one tick is all that the raw clocks of the two may be apart. What is suspended is known as the difference of two
//! clocks that are slewed alike.

use crate::model::rules::{LEASE, WAIT};
use crate::model::run::Tale;

/// What a rule is broken by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Break {
    /// The holder judges by a clock that stands still while the machine is suspended.
    StopsInSuspend,
    /// The holder judges by the slewed clock alone.
    HolderSlewed,
    /// The leader is content when either clock says so.
    WaiterEither,
}

/// Time that has passed on the clocks of one machine since it read them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Clocks {
    boot: u8,
    raw: u8,
    asleep: u8,
    slipped: bool,
}

/// Both machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct State {
    holder: Option<Clocks>,
    leader: Option<Clocks>,
    acked: bool,
    served: bool,
    admitted: bool,
}

/// One step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// The holder reads its clocks and asks.
    Send,
    /// The leader reads its clocks, grants, and from now on is to revoke.
    Arrive,
    /// A tick of true time: what the boot clocks count of it, what the raw ones do, and whether the holder is suspended.
    Pass { boot: [u8; 2], raw: [u8; 2], asleep: bool },
    /// The leader looks whether the wait is over.
    Acknowledge,
    /// The holder admits a request, if its lease holds.
    Admit,
}

/// The model.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TwoClocks {
    /// What is broken.
    pub(crate) broken: Option<Break>,
}

impl Clocks {
    fn pass(&mut self, boot: u8, raw: u8, asleep: bool) -> Option<()> {
        let cap = WAIT + 2;
        self.boot = (self.boot + boot).min(cap);
        if asleep {
            // The boot clock is not slewed while the machine sleeps, and what it counts is what the sum counts.
            self.asleep = (self.asleep + boot).min(cap);
            return (raw == 1).then_some(());
        }
        self.raw = (self.raw + raw).min(cap);
        if raw != 1 {
            if self.slipped {
                return None;
            }
            self.slipped = true;
        }
        Some(())
    }

    /// The raw clock and the time of the suspensions.
    fn sum(self) -> u8 {
        self.raw + self.asleep
    }
}

impl Tale for TwoClocks {
    type State = State;
    type Step = Step;
    const KINDS: &'static [&'static str] = &["send", "arrive", "pass", "suspend", "acknowledge", "admit"];

    fn begin(&self) -> State {
        State::default()
    }

    fn steps(&self, _: &State, steps: &mut Vec<Step>) {
        steps.extend([Step::Send, Step::Arrive, Step::Acknowledge, Step::Admit]);
        for a in 0..=2 {
            for b in 0..=2 {
                for raw in [[1, 1], [0, 1], [2, 1], [1, 0], [1, 2]] {
                    steps.push(Step::Pass {
                        boot: [a, b],
                        raw,
                        asleep: false,
                    });
                }
            }
            steps.push(Step::Pass {
                boot: [1, a],
                raw: [1, 1],
                asleep: true,
            });
        }
    }

    fn take(&self, before: &State, step: Step) -> Option<State> {
        let mut state = *before;
        match step {
            Step::Send if state.holder.is_none() => state.holder = Some(Clocks::default()),
            Step::Arrive if state.leader.is_none() => {
                state.holder?;
                state.leader = Some(Clocks::default());
            }
            Step::Pass { boot, raw, asleep } => {
                if let Some(holder) = &mut state.holder {
                    holder.pass(boot[0], raw[0], asleep)?;
                }
                if let Some(leader) = &mut state.leader {
                    leader.pass(boot[1], raw[1], false)?;
                }
            }
            Step::Acknowledge => {
                let leader = state.leader?;
                let (boot, sum) = (leader.boot > WAIT, leader.sum() > WAIT);
                let over = if self.broken == Some(Break::WaiterEither) {
                    boot || sum
                } else {
                    boot && sum
                };
                state.acked |= over;
            }
            Step::Admit => {
                let holder = state.holder?;
                let holds = match self.broken {
                    Some(Break::StopsInSuspend) => holder.raw < LEASE,
                    Some(Break::HolderSlewed) => holder.boot < LEASE,
                    Some(Break::WaiterEither) | None => holder.boot < LEASE && holder.sum() < LEASE,
                };
                state.served |= holds;
                state.admitted |= state.acked && holds;
            }
            Step::Send | Step::Arrive => return None,
        }
        (state != *before).then_some(state)
    }

    fn kind(step: Step) -> usize {
        match step {
            Step::Send => 0,
            Step::Arrive => 1,
            Step::Pass { asleep: false, .. } => 2,
            Step::Pass { asleep: true, .. } => 3,
            Step::Acknowledge => 4,
            Step::Admit => 5,
        }
    }

    fn is_kept(state: &State) -> bool {
        !state.admitted
    }

    fn words(&self, _: &State, step: Step, _: &State) -> String {
        match step {
            Step::Send => "the holder reads its clocks and asks for a lease".to_owned(),
            Step::Arrive => "the leader gets that and reads its own; the holder has its grant".to_owned(),
            Step::Pass { boot, raw, asleep } => {
                let sleeps = if asleep {
                    ", while the holder's machine is suspended"
                } else {
                    ""
                };
                format!(
                    "a tick passes{sleeps}: the slewed clocks of holder and leader count {} and {}, the others {} and {}",
                    boot[0],
                    boot[1],
                    if asleep { 0 } else { raw[0] },
                    raw[1]
                )
            }
            Step::Acknowledge => "the leader's wait is over: ACKNOWLEDGED".to_owned(),
            Step::Admit => "the holder's lease holds: it ADMITS a request".to_owned(),
        }
    }
}
