//! Deterministic simulation of the guarantee: our own lease, ledger, rounds, barrier, campaign, apply and admission code on virtual time,
//! over an abstract ordered log, with faults by seed.
//!
//! `cargo run --release -p mcp-tests --bin sim -- --seeds 1000`
//!
//! What runs is what ships: `mcp_model::{office, ledger, lease, barrier, campaign, apply}` and `mcp_store::{live, gate, view, cuts, admit}`.
//! Only what surrounds them is simulated: clocks, network, disks, processes, and consensus (`log.rs`). The oracle is the promise itself:
//! nobody is admitted who asked after the revoke was acknowledged. A checker that never fails proves nothing, so `--mutants` breaks every
//! rule in turn ([`mutant`]) and fails unless each is noticed.

mod backup;
mod faults;
mod lease;
mod log;
mod machine;
pub mod mutant;
mod oracle;
mod readmit;
mod requests;
mod story;
mod upkeep;
mod world;
mod write;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anyhow::{Context, bail};
use machine::{MS, Msg};
use mcp_model::ids::NodeId;
use mutant::{Broken, Mutant};
use world::{Timer, World};

/// Within so many seeds every broken rule must be noticed.
const MUTANT_SEEDS: u64 = 2_000;

/// What came of one seed.
pub struct Told {
    /// Of everything that happened, in its order.
    pub hash: u64,
    /// When, in virtual ns, and what.
    pub violation: Option<(u64, String)>,
    /// Changes that were acknowledged as effective.
    pub acknowledged: u64,
    /// Requests and events of streams that were let through.
    pub admitted: u64,
    /// Requests that were refused.
    pub refused: u64,
    /// Those of them of which nothing was said for want of a lease.
    pub without_lease: u64,
    /// What went wrong, how often.
    pub faults: BTreeMap<String, u64>,
    /// What else happened that the rules are about, how often.
    pub events: BTreeMap<&'static str, u64>,
    /// Everything in words, if it was asked for.
    pub words: Option<String>,
}

/// Runs one seed.
pub fn run_seed(seed: u64, rules: Broken, tell: bool) -> Told {
    let mut world = World::new(seed, rules, tell);
    let hash = world.run();
    let faults = world.faults.happened.iter().map(|(kind, n)| (format!("{kind:?}"), *n));
    Told {
        hash,
        acknowledged: world.oracle.acknowledged,
        admitted: world.oracle.admitted,
        refused: world.oracle.refused,
        without_lease: world.oracle.without_lease,
        faults: faults.collect(),
        events: BTreeMap::from([
            ("expired", world.story.expired),
            ("let go", world.faults.let_go.values().sum()),
            ("restored", world.oracle.restored),
            ("unknown asked about", world.oracle.asked),
            ("unknown too many", world.oracle.too_many),
        ]),
        words: world.told.take(),
        violation: world.oracle.violation.take(),
    }
}

impl World {
    fn timer(&mut self, at: usize, timer: Timer) {
        match timer {
            Timer::Renew => self.renew(at),
            Timer::RenewLate(request) => self.renew_late(at, request),
            Timer::Campaign => self.campaign(at),
            Timer::PollOver(poll) => self.poll_over(at, poll),
            Timer::Heartbeat(term) => self.heartbeat(at, term),
            Timer::Members(term) => self.members(at, term),
            Timer::RoundOver(round) => self.round_over(at, round),
            Timer::Barrier(id) => self.look_at_barrier(at, id),
            Timer::ConfirmOver(barrier, line, from) => self.confirm_over(at, barrier, line, from),
            Timer::Apply => self.apply(at),
            Timer::Stage => self.stage(at),
            Timer::Observe => self.observe(at),
            Timer::Request(id) => self.request(at, id),
            Timer::Stream(id) => self.stream(at, id),
            Timer::TakeOver(left) => self.take_over(at, left),
            Timer::Stay => self.process(at).leaving = false,
            Timer::Tick => self.tick(at),
            Timer::Flush => self.flush(at),
            Timer::Upkeep => self.upkeep(at),
        }
    }

    fn deliver(&mut self, at: usize, from: NodeId, msg: Msg, stored: bool) {
        match msg {
            Msg::Append {
                term,
                prev,
                prev_term,
                entries,
                commit,
                stay,
            } => {
                self.on_append((at, from, stored), (term, prev, prev_term, stay), entries, commit);
            }
            Msg::Appended {
                stay,
                term,
                matched,
                len,
            } => self.on_appended(at, (from, stay), term, matched, len),
            Msg::Vote { term, last } => self.on_vote(at, from, term, last),
            Msg::Voted { term, granted } => self.on_voted(at, from, term, granted),
            Msg::Round { term, round } => self.on_round(at, from, term, round),
            Msg::RoundSeen { term, round } => self.on_round_seen(at, from, term, round),
            Msg::Ask { poll } => self.on_ask(at, from, poll),
            Msg::Asked { poll, state } => self.on_asked(at, from, poll, &state),
            Msg::TakeOver => self.take_over(at, 300),
            Msg::Renew { incarnation, request } => self.on_renew(at, from, incarnation, request),
            Msg::Granted {
                incarnation,
                request,
                index,
            } => self.on_granted(at, incarnation, request, index),
            Msg::ReadIndex { request, token } => self.on_read_index(at, from, request, token),
            Msg::Index { request, index, known } => self.on_index(at, request, index, known),
            Msg::Confirm {
                barrier,
                line,
                index,
                wait_ms,
            } => self.on_confirm(at, from, (barrier, line), (index, wait_ms)),
            Msg::Confirmed { barrier, line, said } => self.on_confirmed(at, barrier, line, &said),
            Msg::Write {
                op,
                attempt,
                wait_ms,
                said_ms,
            } => self.on_write(at, (op, attempt), wait_ms, said_ms),
            Msg::LetGo { run } => self.on_let_go(at, from, run),
            // It was answered before.
            Msg::LetGone { .. } => {}
        }
    }
}

/// Sums over seeds.
#[derive(Default)]
struct Sums {
    seeds: u64,
    acknowledged: u64,
    admitted: u64,
    refused: u64,
    without_lease: u64,
    faults: BTreeMap<String, u64>,
    events: BTreeMap<&'static str, u64>,
}

/// Runs seeds on all processors until one fails, and says which.
fn run_seeds(first: u64, count: u64, rules: Broken) -> (Sums, Option<(u64, u64, String)>) {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let sums = Mutex::new((Sums::default(), None::<(u64, u64, String)>));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return;
                    }
                    let told = run_seed(first + number, rules, false);
                    let mut sums = sums.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    let (sums, failed) = &mut *sums;
                    sums.seeds += 1;
                    sums.acknowledged += told.acknowledged;
                    sums.admitted += told.admitted;
                    sums.refused += told.refused;
                    sums.without_lease += told.without_lease;
                    for (kind, n) in told.faults {
                        *sums.faults.entry(kind).or_insert(0) += n;
                    }
                    for (event, n) in told.events {
                        *sums.events.entry(event).or_insert(0) += n;
                    }
                    if let Some((at, why)) = told.violation {
                        stop.store(true, Ordering::Relaxed);
                        if failed.as_ref().is_none_or(|(seed, ..)| first + number < *seed) {
                            *failed = Some((first + number, at, why));
                        }
                    }
                }
            });
        }
    });
    sums.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The command line.
pub fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let (mut seeds, mut first, mut one, mut trace, mut mutants, mut only) = (1_000, 1, None, false, false, None);
    while let Some(arg) = args.next() {
        let mut number = || -> anyhow::Result<u64> {
            let value = args.next().with_context(|| format!("{arg} needs a number"))?;
            value.parse().with_context(|| format!("{arg} {value}: not a number"))
        };
        match arg.as_str() {
            "--seeds" => seeds = number()?,
            "--first" => first = number()?,
            "--seed" => one = Some(number()?),
            "--trace" => trace = true,
            "--mutants" => mutants = true,
            "--mutant" => only = Some(args.next().context("--mutant needs a name: see --mutants")?),
            other => bail!("{other}: use --seeds N [--first N], --seed N [--trace] [--mutant NAME], or --mutants"),
        }
    }
    let named = |name: &String| Mutant::ALL.iter().find(|(m, _)| m.name() == *name).map(|(m, _)| *m);
    let broken = match &only {
        Some(name) => Some(named(name).with_context(|| format!("{name}: no such mutant: see --mutants"))?),
        None => None,
    };
    match (one, mutants) {
        (Some(seed), _) => show_seed(seed, Broken(broken), trace),
        (None, true) => all_mutants(),
        (None, false) => all_seeds(first, seeds, Broken(broken)),
    }
}

fn show_seed(seed: u64, rules: Broken, trace: bool) -> anyhow::Result<()> {
    let told = run_seed(seed, rules, trace);
    if let Some(words) = &told.words {
        print!("{words}");
    }
    println!(
        "seed {seed}: hash {:016x}, {} acknowledged, {} admitted, {} refused ({} without a lease)",
        told.hash, told.acknowledged, told.admitted, told.refused, told.without_lease
    );
    match told.violation {
        None => Ok(()),
        Some((at, why)) => bail!("seed {seed} at {} ms: {why}", at / MS),
    }
}

fn all_seeds(first: u64, count: u64, rules: Broken) -> anyhow::Result<()> {
    let began = crate::clock::now_ns();
    let (sums, failed) = run_seeds(first, count, rules);
    let seconds = (crate::clock::now_ns() - began) as f64 / 1e9;
    let faults: u64 = sums.faults.values().sum();
    println!(
        "{} seeds in {seconds:.1} s ({:.0} a second): {} effective changes, {faults} faults, {} admitted, {} refused ({} without a lease)",
        sums.seeds,
        sums.seeds as f64 / seconds,
        sums.acknowledged,
        sums.admitted,
        sums.refused,
        sums.without_lease
    );
    println!("faults by kind: {:?}", sums.faults);
    println!("besides: {:?}", sums.events);
    if let Some((seed, at, why)) = failed {
        bail!(
            "seed {seed} at {} ms: {why}\nsee it again: cargo run --release -p mcp-tests --bin sim -- --seed {seed} --trace{}",
            at / MS,
            rules.0.map_or_else(String::new, |m| format!(" --mutant {}", m.name()))
        );
    }
    println!("0 violations");
    Ok(())
}

/// Breaks every rule in turn.
fn all_mutants() -> anyhow::Result<()> {
    let mut missed = Vec::new();
    for (mutant, words) in Mutant::ALL {
        let (sums, failed) = run_seeds(1, MUTANT_SEEDS, Broken(Some(mutant)));
        match failed {
            Some((seed, at, why)) => {
                println!(
                    "caught after {:>4} seeds  {words} [{}]: seed {seed} at {} ms: {why}",
                    sums.seeds,
                    mutant.name(),
                    at / MS
                );
            }
            None => {
                println!("NOT CAUGHT in {} seeds  {words} [{}]", sums.seeds, mutant.name());
                missed.push(words);
            }
        }
    }
    if !missed.is_empty() {
        bail!("not noticed: {}", missed.join("; "));
    }
    println!("every mutant was noticed");
    Ok(())
}

#[cfg(test)]
mod tests {
    use mcp_model::rules::Rule;

    use super::*;

    #[test]
    fn the_same_seed_twice_is_the_same_run() {
        let run = |seed| run_seed(seed, Broken::default(), false).hash;
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8), "the hash says nothing");
        let told = run_seed(7, Broken::default(), true);
        assert_eq!(told.hash, run(7), "telling it changes it");
        assert!(
            told.words
                .is_some_and(|words| words.contains("acknowledged as effective"))
        );
    }

    #[test]
    fn a_few_seeds_hold_and_are_worth_the_name() {
        let mut events = BTreeMap::new();
        for seed in 1..=8 {
            let told = run_seed(seed, Broken::default(), false);
            assert_eq!(
                told.violation, None,
                "seed {seed}: see it with `sim --seed {seed} --trace`"
            );
            assert!(told.acknowledged >= 15 && told.admitted > 500, "seed {seed}");
            assert!(told.faults.values().sum::<u64>() >= faults::FAULTS, "seed {seed}");
            for (event, n) in told.events {
                *events.entry(event).or_insert(0) += n;
            }
        }
        assert!(events.values().all(|n| *n > 0), "something never happens: {events:?}");
    }

    /// Those that are found in a few seeds; `sim --mutants` breaks every rule.
    #[test]
    fn a_broken_rule_is_noticed_by_what_it_is_about() {
        let found = |mutant| (1..=60).find_map(|seed| run_seed(seed, Broken(Some(mutant)), false).violation);
        for (mutant, about) in [
            (Mutant::LeaderExempt, "as the leader: its right was gone"),
            (Mutant::ExpiryByEachClock, "its right was gone"),
            (Mutant::RestoreWithoutTombstones, "its right was gone"),
            (Mutant::TooManyMeansUnknown, "it lives, and was called unknown_token"),
            (Mutant::Rule(Rule::QuestionsHaveALimit), "unknown tokens at a time"),
        ] {
            let why = found(mutant).map(|(_, why)| why).unwrap_or_default();
            assert!(why.contains(about), "{mutant:?}: {why}");
        }
    }
}
