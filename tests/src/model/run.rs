//! Runs one variant through the checker.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use stateright::{Checker, Chooser, Model, Property};

use crate::clock::now_ns;

/// What a model of ours has beyond the checker's needs: names for its steps, and words for a trace.
pub(crate) trait Tale: Clone + Send + Sync + 'static {
    /// A state.
    type State: Clone + PartialEq + std::hash::Hash + std::fmt::Debug + Send + Sync + 'static;
    /// A step.
    type Step: Copy + PartialEq + std::fmt::Debug + Send + Sync + 'static;
    /// Names of the kinds of steps.
    const KINDS: &'static [&'static str];

    /// Where it begins.
    fn begin(&self) -> Self::State;
    /// What may be tried.
    fn steps(&self, state: &Self::State, steps: &mut Vec<Self::Step>);
    /// What comes of it. None: it is not possible, or changes nothing.
    fn take(&self, state: &Self::State, step: Self::Step) -> Option<Self::State>;
    /// The place of a step's kind in [`Tale::KINDS`].
    fn kind(step: Self::Step) -> usize;
    /// How likely a random walk is to take it.
    fn weight(_: Self::Step) -> u64 {
        1
    }
    /// Whether the promise is kept.
    fn is_kept(state: &Self::State) -> bool;
    /// A step in words.
    fn words(&self, before: &Self::State, step: Self::Step, after: &Self::State) -> String;
}

struct Counted<T> {
    tale: T,
    taken: Arc<Vec<AtomicU64>>,
}

impl<T: Tale> Model for Counted<T> {
    type State = T::State;
    type Action = T::Step;

    fn init_states(&self) -> Vec<T::State> {
        vec![self.tale.begin()]
    }

    fn actions(&self, state: &T::State, actions: &mut Vec<T::Step>) {
        self.tale.steps(state, actions);
    }

    fn next_state(&self, state: &T::State, step: T::Step) -> Option<T::State> {
        let next = self.tale.take(state, step)?;
        self.taken[T::kind(step)].fetch_add(1, Ordering::Relaxed);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![Property::always(
            "nobody is admitted by what was revoked before",
            |_, state| T::is_kept(state),
        )]
    }
}

/// How states are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// All of them, those that are near first: what is found is found by the shortest way.
    All,
    /// Those that random walks come to, from this seed on.
    Walks(u64),
}

/// Longest random walk.
const WALK_MAX: usize = 120;
/// States that may be come across, each as often as it is: what two lease holders need is a third of that, and memory has an end.
const STATES_MAX: usize = 60_000_000;

/// What came of a run.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// States seen: each once, or in walks as often as they were.
    pub(crate) states: usize,
    /// Whether there may be more.
    pub(crate) cut_short: bool,
    /// The way to a violation, in words.
    pub(crate) violation: Option<Vec<String>>,
    /// How often each kind of step was taken.
    pub(crate) taken: Vec<(&'static str, u64)>,
    /// How long it took.
    pub(crate) took: Duration,
}

/// Looks at states until one breaks the promise, none is left, or the time is over.
pub(crate) fn check<T: Tale>(tale: T, how: How, threads: usize, limit: Duration) -> Outcome {
    let taken: Arc<Vec<AtomicU64>> = Arc::new(T::KINDS.iter().map(|_| AtomicU64::new(0)).collect());
    let model = Counted {
        tale: tale.clone(),
        taken: Arc::clone(&taken),
    };
    let began = now_ns();
    let builder = model.checker().threads(threads).timeout(limit);
    let (states, path) = match how {
        How::All => seen(&builder.target_state_count(STATES_MAX).spawn_bfs().join()),
        How::Walks(seed) => seen(
            &builder
                .target_max_depth(WALK_MAX)
                .spawn_simulation(seed, Weighted)
                .join(),
        ),
    };
    let took = Duration::from_nanos(now_ns() - began);
    let counts: Vec<u64> = taken.iter().map(|n| n.load(Ordering::Relaxed)).collect();
    let many = counts.iter().sum::<u64>() >= STATES_MAX as u64;
    Outcome {
        states,
        // The checker says that it is done also when its time is over, or when it was told to stop.
        cut_short: took >= limit || many || how != How::All,
        violation: path.map(|path| tell(&tale, path)),
        taken: T::KINDS.iter().copied().zip(counts).collect(),
        took,
    }
}

type Way<T> = Vec<(<T as Tale>::State, Option<<T as Tale>::Step>)>;

fn seen<T: Tale>(checker: &impl Checker<Counted<T>>) -> (usize, Option<Way<T>>) {
    let found = checker.discoveries().into_values().next();
    (checker.unique_state_count(), found.map(stateright::Path::into_vec))
}

fn tell<T: Tale>(tale: &T, way: Way<T>) -> Vec<String> {
    let states = way.iter().map(|(state, _)| state).skip(1);
    let steps = way.iter().filter_map(|(state, step)| Some((state, (*step)?)));
    steps
        .zip(states)
        .map(|((before, step), after)| tale.words(before, step, after))
        .collect()
}

/// Chooses the next step of a walk by weight.
#[derive(Clone)]
struct Weighted;

impl<T: Tale> Chooser<Counted<T>> for Weighted {
    type State = u64;

    fn new_state(&self, seed: u64) -> u64 {
        seed | 1
    }

    fn choose_initial_state(&self, _: &mut u64, _: &[T::State]) -> usize {
        0
    }

    fn choose_action(&self, state: &mut u64, _: &T::State, steps: &[T::Step]) -> usize {
        let all: u64 = steps.iter().map(|step| T::weight(*step)).sum();
        let mut at = draw(state) % all;
        for (index, step) in steps.iter().enumerate() {
            match at.checked_sub(T::weight(*step)) {
                Some(left) => at = left,
                None => return index,
            }
        }
        0
    }
}

/// The next number of a xorshift generator.
fn draw(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16
}
