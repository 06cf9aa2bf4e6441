//! A backup that is older than a revoke is restored: whether the token comes back. Rule 10.

use crate::model::run::Tale;

/// What a rule is broken by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Break {
    /// The state is replaced by the backup's, tombstones and all.
    WithoutTombstones,
    /// Tombstones go before the token has expired.
    TombstonesGoEarly,
}

/// A token with an expiry, and a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct State {
    live: bool,
    tombstone: bool,
    expired: bool,
    backup: Option<bool>,
    acked: bool,
    served: bool,
    admitted: bool,
    restores: u8,
}

/// One step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// A backup is made.
    Save,
    /// The token is revoked, and that is acknowledged.
    Revoke,
    /// The token's expiry passes.
    Expire,
    /// What is no longer needed is swept away.
    Sweep,
    /// The backup is restored.
    Restore,
    /// A request with the token is decided.
    Admit,
}

/// The model.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Backup {
    /// What is broken.
    pub(crate) broken: Option<Break>,
}

impl Tale for Backup {
    type State = State;
    type Step = Step;
    const KINDS: &'static [&'static str] = &["save", "revoke", "expire", "sweep", "restore", "admit"];

    fn begin(&self) -> State {
        State {
            live: true,
            tombstone: false,
            expired: false,
            backup: None,
            acked: false,
            served: false,
            admitted: false,
            restores: 0,
        }
    }

    fn steps(&self, _: &State, steps: &mut Vec<Step>) {
        steps.extend([
            Step::Save,
            Step::Revoke,
            Step::Expire,
            Step::Sweep,
            Step::Restore,
            Step::Admit,
        ]);
    }

    fn take(&self, before: &State, step: Step) -> Option<State> {
        let mut state = *before;
        match step {
            Step::Save => state.backup = Some(state.live),
            Step::Revoke if state.live => {
                state.live = false;
                state.tombstone = true;
                state.acked = true;
            }
            Step::Expire => state.expired = true,
            Step::Sweep if state.expired || self.broken == Some(Break::TombstonesGoEarly) => state.tombstone = false,
            Step::Restore if state.restores < 2 => {
                let of_backup = state.backup?;
                state.restores += 1;
                if self.broken == Some(Break::WithoutTombstones) {
                    state.tombstone = false;
                }
                // The tombstones of the running cluster stay, and no token comes back over one.
                state.live = of_backup && !state.tombstone;
            }
            Step::Admit => {
                let lets_in = state.live && !state.expired;
                state.served |= lets_in;
                state.admitted |= state.acked && lets_in;
            }
            Step::Revoke | Step::Sweep | Step::Restore => return None,
        }
        (state != *before).then_some(state)
    }

    fn kind(step: Step) -> usize {
        match step {
            Step::Save => 0,
            Step::Revoke => 1,
            Step::Expire => 2,
            Step::Sweep => 3,
            Step::Restore => 4,
            Step::Admit => 5,
        }
    }

    fn is_kept(state: &State) -> bool {
        !state.admitted
    }

    fn words(&self, _: &State, step: Step, _: &State) -> String {
        match step {
            Step::Save => "a backup is saved",
            Step::Revoke => "the token is revoked, which leaves a tombstone: ACKNOWLEDGED",
            Step::Expire => "the token's expiry passes",
            Step::Sweep => "the tombstone is swept away",
            Step::Restore => "the backup is restored",
            Step::Admit => "a request with the token is ADMITTED",
        }
        .to_owned()
    }
}
