//! The figures of a run: how long acknowledgements took under which fault, what was done how often, who admitted when.

use std::collections::BTreeMap;

use super::history::{Fault, History, Kind, Op, Outcome, Proofs, Role, Write};
use super::oracle::Judgement;

/// No fault in this time before a revoke, and none under way: healthy.
const QUIET_NS: u64 = 3_000_000_000;
const MS: u64 = 1_000_000;

pub(super) fn print(history: &History, judgement: &Judgement) {
    println!();
    restrictions(history);
    faults(history);
    times(history);
    probes(history, judgement);
}

fn restrictions(history: &History) {
    let mut by_op: BTreeMap<Op, BTreeMap<Outcome, usize>> = BTreeMap::new();
    for write in &history.writes {
        *by_op.entry(write.op).or_default().entry(write.outcome).or_default() += 1;
    }
    for (op, outcomes) in by_op {
        let told: Vec<String> = outcomes
            .iter()
            .map(|(outcome, n)| format!("{n} {outcome:?}").to_lowercase())
            .collect();
        println!("{:<14} {}", format!("{op:?}"), told.join(", "));
    }
    let effective = || history.writes.iter().filter(|w| w.outcome == Outcome::Effective);
    let of = |fits: fn(&Proofs) -> bool| effective().filter_map(|w| w.proofs).filter(fits).count();
    println!(
        "receipts       {} where every replica confirmed, {} where a lease had to run out",
        of(|p| p.ran_out == 0),
        of(|p| p.ran_out > 0)
    );
}

fn faults(history: &History) {
    println!("\n                    at the leader               at a follower");
    println!(
        "fault            times  a revoke, ms      times  a revoke, ms   (median and longest, with no other fault, not asked for through its node)"
    );
    for kind in Kind::ALL {
        let [leader, follower] = [Role::Leader, Role::Follower].map(|role| {
            let of = |f: &&Fault| f.done && f.kind == kind && f.role == role;
            let times = history.faults.iter().filter(of).count();
            format!("{times:>5}  {:<15}", middle_and_longest(met(history, kind, role)))
        });
        println!("{:<16} {leader}   {follower}", kind.name());
    }
    let failed: Vec<_> = history.faults.iter().filter(|f| !f.done).collect();
    if !failed.is_empty() {
        println!(
            "{} faults could not be made, such as: {}",
            failed.len(),
            failed[0].detail
        );
    }
}

/// How long the revokes took that met this fault and no other. Who asks a paused node waits until it wakes, which is no matter
/// of revokes.
fn met(history: &History, kind: Kind, role: Role) -> Vec<u64> {
    let fits = |w: &&Write| {
        let mut met = history.faults.iter().filter(|f| f.begin < w.end && w.begin < f.end);
        let (Some(one), None) = (met.next(), met.next()) else {
            return false;
        };
        one.kind == kind && one.role == role && w.begin < one.undone && !one.slots.contains(&w.slot)
    };
    revokes(history).filter(fits).map(|w| w.end - w.begin).collect()
}

fn middle_and_longest(mut took: Vec<u64>) -> String {
    took.sort_unstable();
    let Some(last) = took.last() else { return "-".to_owned() };
    format!("{:>6} {:>6}", took[took.len() / 2] / MS, last / MS)
}

fn revokes(history: &History) -> impl Iterator<Item = &Write> {
    history
        .writes
        .iter()
        .filter(|w| w.op == Op::Revoke && w.outcome == Outcome::Effective)
}

fn times(history: &History) {
    let quiet = |w: &&Write| {
        !history
            .faults
            .iter()
            .any(|f| f.begin < w.end && w.begin < f.end + QUIET_NS)
    };
    let healthy: Vec<u64> = revokes(history).filter(quiet).map(|w| w.end - w.begin).collect();
    let fdatasync_us = history.run.fdatasync_us;
    println!(
        "\nhealthy revokes  {}; aim for the median: 8 x {fdatasync_us} us + 2 ms = {} us",
        spread(healthy),
        8 * fdatasync_us + 2_000
    );
    // A node that is dead for longer than its last lease, and nothing else.
    let lease_ns = history.run.lease_ms * MS;
    let dead = |w: &&Write| {
        let met: Vec<_> = history
            .faults
            .iter()
            .filter(|f| f.begin < w.end && w.begin < f.end + QUIET_NS)
            .collect();
        let long = |f: &&Fault| f.kind == Kind::Kill && w.begin > f.begin + lease_ns * 5 / 4 && w.end < f.undone;
        matches!(met.as_slice(), [one] if long(one))
    };
    let dead: Vec<u64> = revokes(history).filter(dead).map(|w| w.end - w.begin).collect();
    println!("one node dead for longer than a lease  {}", spread(dead));
}

/// Count, median, 99th percentile and longest.
fn spread(mut took: Vec<u64>) -> String {
    took.sort_unstable();
    let Some(last) = took.last() else {
        return "none".to_owned();
    };
    let at = |percent: usize| took[(took.len() - 1) * percent / 100] / 1_000;
    format!(
        "{}: median {} us, p99 {} us, longest {} us",
        took.len(),
        at(50),
        at(99),
        last / 1_000
    )
}

fn probes(history: &History, judgement: &Judgement) {
    let mut by_answer: BTreeMap<String, usize> = BTreeMap::new();
    for probe in &history.probes {
        let answer = match (probe.status, probe.served) {
            (_, true) => "admitted".to_owned(),
            (0, _) => "no answer".to_owned(),
            (status, false) => status.to_string(),
        };
        *by_answer.entry(answer).or_default() += 1;
    }
    let told: Vec<String> = by_answer.iter().map(|(answer, n)| format!("{n} {answer}")).collect();
    println!("\nprobes           {}: {}", history.probes.len(), told.join(", "));
    println!("                 {} reached the MCP server", history.hits.len());
    println!("place  without admission, of the time  while it had to admit, of that time");
    for (slot, served) in judgement.served.iter().enumerate() {
        println!(
            "{:<6} {:>29} {:>38}",
            slot + 1,
            share(served.without_ns, served.tried_ns),
            share(served.owed_without_ns, served.owed_ns)
        );
    }
    let stalled: u64 = history.stalls.iter().map(|s| s.end - s.begin).sum();
    if stalled > 0 {
        let seconds = stalled / 1_000_000_000;
        println!(
            "the machine was too busy to judge availability for {seconds} s, {} times",
            history.stalls.len()
        );
    }
}

fn share(part: u64, whole: u64) -> String {
    let hundredths = part.saturating_mul(10_000) / whole.max(1);
    format!(
        "{}.{:02} % of {} s",
        hundredths / 100,
        hundredths % 100,
        whole / 1_000_000_000
    )
}

/// The last line.
pub(super) fn verdict(judgement: &Judgement) {
    const SHOWN: usize = 20;
    for violation in judgement.violations.iter().take(SHOWN) {
        println!("violation: {violation:?}");
    }
    if judgement.violations.len() > SHOWN {
        println!("and {} more", judgement.violations.len() - SHOWN);
    }
    for why in &judgement.void {
        println!("void: {why}");
    }
    println!("verdict: {}", judgement.word());
}
