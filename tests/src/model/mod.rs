//! An exhaustive model of the revocation protocol: `cargo run --release -p mcp-tests --bin model`.
//!
//! The rules are those of docs/GUARANTEE.md, and the protocol is that of our own code: the lease of `store/model/src/lease.rs`, the
//! ledger of `ledger.rs`, the rounds, offices and barriers of `raft`, the gate of `store` and the admission of `gateway`. Every
//! order in which their steps can happen is tried, in small bounds: the promise must hold in all of them, and must be broken, by the
//! shortest trace, when any one rule is. A check that never fails proves nothing.
//!
//! What is taken for granted is said in [`protocol`].

mod clocks;
mod protocol;
mod restore;
mod rules;
mod run;
mod steps;
mod streams;
mod variants;
mod words;

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use run::{How, Outcome};
use variants::{BASES, MUTANTS, Variant};

/// Longest run that is to see every state, or to find a mutant.
const LIMIT: Duration = Duration::from_secs(600);
/// Cores that are used.
const THREADS: usize = 2;
/// The first seed of the random walks.
const SEED: u64 = 1;

const USAGE: &str = "model [--list] [--only NAME] [--trace NAME] [--holders 2|3] [--seconds S]
  --list       names every variant, its rule, and what it does
  --only NAME  runs this variant only
  --trace NAME runs this mutant and tells how the promise is broken, step by step
  --holders N  runs the protocol with N lease holders only, and no mutants
  --seconds S  how long three lease holders are looked at (60)";

/// What was asked for.
#[derive(Debug, Default)]
struct Options {
    list: bool,
    only: Option<String>,
    trace: bool,
    holders: Option<usize>,
    seconds: Option<u64>,
}

/// Runs what the command line names. `Err`: what is wrong, in words.
pub fn main() -> Result<(), String> {
    let options = parse(std::env::args().skip(1))?;
    if options.list {
        return list();
    }
    let (bases, mutants) = chosen(&options)?;
    let seconds = Duration::from_secs(options.seconds.unwrap_or(60));
    let report = Report::default();
    for base in &bases {
        report.base(base, seconds, options.trace);
    }
    report.mutants(&mutants, options.trace);
    report.end(&options)
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options::default();
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} needs a value\n{USAGE}"));
        let number = |text: String| text.parse().map_err(|_| format!("{text:?} is not a number\n{USAGE}"));
        match arg.as_str() {
            "--list" => options.list = true,
            "--only" => options.only = Some(value()?),
            "--trace" => {
                options.only = Some(value()?);
                options.trace = true;
            }
            "--holders" => match value()?.as_str() {
                "2" => options.holders = Some(2),
                "3" => options.holders = Some(3),
                other => return Err(format!("--holders {other:?}: 2 or 3\n{USAGE}")),
            },
            "--seconds" => options.seconds = Some(number(value()?)?),
            "--help" | "-h" => return Err(USAGE.to_owned()),
            other => return Err(format!("unknown argument {other:?}\n{USAGE}")),
        }
    }
    Ok(options)
}

fn list() -> Result<(), String> {
    for (kind, variants) in [("base", BASES), ("mutant", MUTANTS)] {
        for variant in variants {
            say(&format!(
                "{kind:<7} {:<26} rule {:<6} {}",
                variant.name, variant.rule, variant.about
            ))?;
        }
    }
    Ok(())
}

fn chosen(options: &Options) -> Result<(Vec<Variant>, Vec<Variant>), String> {
    let named = |variant: &&Variant| options.only.as_ref().is_none_or(|only| variant.name == only);
    let counted = |variant: &&Variant| options.holders.is_none_or(|n| variant.subject.holders() == n);
    let bases: Vec<Variant> = BASES.iter().filter(named).filter(counted).copied().collect();
    let mutants = MUTANTS.iter().filter(named).filter(|_| options.holders.is_none());
    let mutants: Vec<Variant> = mutants.copied().collect();
    if bases.is_empty() && mutants.is_empty() {
        return Err("no such variant: --list names them".to_owned());
    }
    Ok((bases, mutants))
}

fn say(line: &str) -> Result<(), String> {
    writeln!(std::io::stdout(), "{line}").map_err(|error| error.to_string())
}

/// What was found so far.
#[derive(Default)]
struct Report {
    wrong: Mutex<Vec<String>>,
    taken: Mutex<BTreeMap<&'static str, u64>>,
    caught: AtomicUsize,
    exhausted: AtomicUsize,
}

impl Report {
    fn base(&self, variant: &Variant, seconds: Duration, trace: bool) {
        let bounded = variant.subject.holders() > 2;
        let outcome = match bounded {
            false => variant.subject.run(How::All, THREADS, LIMIT),
            // What is far away is reached by walks, what is near by looking everywhere.
            true if variant.name == rules::THREE.name => variant.subject.run(How::All, THREADS, seconds),
            true => variant.subject.run(How::Walks(SEED), THREADS, seconds / 2),
        };
        let secs = outcome.took.as_secs_f64();
        let states = outcome.states;
        let said = match (&outcome.violation, outcome.cut_short) {
            (Some(trace), _) => format!("VIOLATED, trace length {}", trace.len()),
            (None, false) => format!("holds, {states} states, exhausted"),
            (None, true) => format!("holds, {states} states, bounded: not exhausted"),
        };
        let good = outcome.violation.is_none() && (bounded || !outcome.cut_short);
        self.exhausted
            .fetch_add(usize::from(good && !outcome.cut_short), Ordering::Relaxed);
        let mut taken = self.taken.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for (kind, times) in &outcome.taken {
            *taken.entry(kind).or_default() += times;
        }
        drop(taken);
        self.line(
            format!("base   {:<26} {said} ({secs:.1} s)", variant.name),
            &outcome,
            trace,
            good,
        );
        self.line(format!("       {:<26} {}", "", steps(&outcome)), &outcome, false, true);
    }

    /// Two at a time, each on one core, so that what is found is found by the shortest way.
    fn mutants(&self, mutants: &[Variant], trace: bool) {
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    while let Some(variant) = mutants.get(next.fetch_add(1, Ordering::Relaxed)) {
                        self.mutant(variant, trace);
                    }
                });
            }
        });
    }

    fn mutant(&self, variant: &Variant, trace: bool) {
        let outcome = variant.subject.run(How::All, 1, LIMIT);
        let secs = outcome.took.as_secs_f64();
        let said = match &outcome.violation {
            Some(trace) => format!("violated as it must be, trace length {}", trace.len()),
            None => "NOT VIOLATED: the model does not see that this rule is broken".to_owned(),
        };
        let good = outcome.violation.is_some();
        self.caught.fetch_add(usize::from(good), Ordering::Relaxed);
        self.line(
            format!(
                "mutant {:<26} {said} ({} states, {secs:.1} s)",
                variant.name, outcome.states
            ),
            &outcome,
            trace,
            good,
        );
    }

    fn line(&self, line: String, outcome: &Outcome, trace: bool, good: bool) {
        let mut wrong = self.wrong.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut text = line.clone();
        if (trace || !good)
            && let Some(steps) = &outcome.violation
        {
            for (at, step) in steps.iter().enumerate() {
                text.push_str(&format!("\n  {:>3}. {step}", at + 1));
            }
        }
        if let Err(error) = say(&text) {
            wrong.push(error);
        }
        if !good {
            wrong.push(line);
        }
    }

    fn end(self, options: &Options) -> Result<(), String> {
        let taken = self
            .taken
            .into_inner()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut wrong = self
            .wrong
            .into_inner()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if options.only.is_none() {
            let never = taken
                .iter()
                .filter(|(kind, times)| **times == 0 && **kind != steps::KINDS[27]);
            wrong.extend(
                never.map(|(kind, _)| format!("the step {kind:?} was never taken: what holds without it says little")),
            );
            say(&format!(
                "{} circumstances exhausted, {} mutants caught",
                self.exhausted.into_inner(),
                self.caught.into_inner()
            ))?;
        }
        if wrong.is_empty() {
            return Ok(());
        }
        Err(format!("not as it must be:\n{}", wrong.join("\n")))
    }
}

/// How often each kind of step was taken.
fn steps(outcome: &Outcome) -> String {
    let taken = outcome.taken.iter().filter(|(_, times)| *times > 0);
    let taken: Vec<String> = taken.map(|(kind, times)| format!("{kind} {times}")).collect();
    taken.join(", ")
}
