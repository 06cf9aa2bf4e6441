//! A stream that opens while its token is being revoked: whether it can outlive the confirmation. Rules 3 and 5.

use crate::model::run::Tale;

/// What a rule is broken by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Break {
    /// A stream looks its token up, and registers itself after that.
    Unregistered,
    /// What is open is cut before the view is without the token.
    CutEarly,
    /// The index is published before what is open is cut.
    ConfirmedEarly,
}

/// What a stream has done, and what the replica has done with the revoke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct State {
    registered: bool,
    found: bool,
    open: bool,
    cut: bool,
    denied: bool,
    swapped: bool,
    cut_done: bool,
    published: bool,
}

/// One step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// The stream enters the register.
    Register,
    /// It looks its token up.
    Look,
    /// It looks whether it was cut, and opens.
    Open,
    /// It sees that it was cut, and ends.
    End,
    /// The view is swapped for one without the token.
    Swap,
    /// What is in the register is cut, and ends.
    Cut,
    /// The index is published: the replica confirms.
    Publish,
}

/// The model.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stream {
    /// What is broken.
    pub(crate) broken: Option<Break>,
}

impl Tale for Stream {
    type State = State;
    type Step = Step;
    const KINDS: &'static [&'static str] = &["register", "look", "open", "end", "swap", "cut", "publish"];

    fn begin(&self) -> State {
        State::default()
    }

    fn steps(&self, _: &State, steps: &mut Vec<Step>) {
        steps.extend([
            Step::Register,
            Step::Look,
            Step::Open,
            Step::End,
            Step::Swap,
            Step::Cut,
            Step::Publish,
        ]);
    }

    fn take(&self, before: &State, step: Step) -> Option<State> {
        let mut state = *before;
        let breaks = |rule| self.broken == Some(rule);
        match step {
            Step::Register if !breaks(Break::Unregistered) || state.found => state.registered = true,
            Step::Look if (state.registered || breaks(Break::Unregistered)) && !state.found && !state.denied => {
                if state.swapped {
                    state.denied = true;
                    state.registered = false;
                } else {
                    state.found = true;
                }
            }
            Step::Open if state.registered && state.found && !state.cut => state.open = true,
            Step::End if state.cut => {
                state.open = false;
                state.denied = true;
            }
            Step::Swap if state.cut_done || !breaks(Break::CutEarly) => state.swapped = true,
            Step::Cut if (state.swapped || breaks(Break::CutEarly)) && !state.cut_done => {
                state.cut_done = true;
                state.cut = state.registered;
                // The signal ends it in the same moment: nothing is written by a stream that sees it.
                state.open = false;
            }
            Step::Publish if state.swapped && (state.cut_done || breaks(Break::ConfirmedEarly)) => {
                state.published = true
            }
            _ => return None,
        }
        (state != *before).then_some(state)
    }

    fn kind(step: Step) -> usize {
        match step {
            Step::Register => 0,
            Step::Look => 1,
            Step::Open => 2,
            Step::End => 3,
            Step::Swap => 4,
            Step::Cut => 5,
            Step::Publish => 6,
        }
    }

    fn is_kept(state: &State) -> bool {
        !(state.published && state.open)
    }

    fn words(&self, _: &State, step: Step, after: &State) -> String {
        match step {
            Step::Register => "the stream enters the register".to_owned(),
            Step::Look if after.denied => "the stream does not find its token and is denied".to_owned(),
            Step::Look => "the stream finds its token in the view".to_owned(),
            Step::Open if after.published => "the stream was not cut and OPENS".to_owned(),
            Step::Open => "the stream was not cut and opens".to_owned(),
            Step::End => "the stream sees that it was cut and ends".to_owned(),
            Step::Swap => "the view is swapped for one without the token".to_owned(),
            Step::Cut => "what stands in the register is cut".to_owned(),
            Step::Publish => "the index is published: the replica CONFIRMS".to_owned(),
        }
    }
}
