//! Judges a history: no probe that was sent after a restriction was acknowledged as effective was admitted, no live token was called
//! dead, nothing acknowledged was lost, and nobody stopped admitting who had to.
//!
//! It reads what clients were told and what was done to nodes, never what nodes say of themselves.

use std::collections::{BTreeMap, HashMap};

use super::available::{Served, served};
use super::history::{History, Kind, Op, Outcome, Probe, Role, Shown, Subject, Write};
use super::kills;
use super::spans::{Certain, certain, removed, within};

/// Revokes per minute and faults of each kind per 30 minutes that a run must have, or it says nothing.
const REVOKES_PER_MINUTE: u64 = 166;
const OF_EACH_KIND_PER_30_MINUTES: u64 = 10;
/// All faults, per 30 minutes.
const FAULTS_PER_30_MINUTES: u64 = 250;
/// Probes per minute and node.
const PROBES_PER_MINUTE: u64 = 300;
/// Share of the faults that must have met the leader, in percent.
const LEADER_PERCENT: usize = 20;

/// What must not be. Ordered by weight.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Violation {
    /// A probe that began after the acknowledgement was answered as admitted.
    Admitted(String),
    /// It got as far as the MCP server.
    Reached(String),
    /// A token that is alive was called dead.
    CalledDead(String),
    /// What was acknowledged is not there.
    Lost(String),
    /// A node that had to admit did not for too long.
    Unavailable(String),
}

/// The judgement.
#[derive(Debug)]
pub(super) struct Judgement {
    pub(super) violations: Vec<Violation>,
    /// Why it says nothing, if it does.
    pub(super) void: Vec<String>,
    pub(super) served: Vec<Served>,
}

impl Judgement {
    pub(super) fn word(&self) -> &'static str {
        match (self.violations.is_empty(), self.void.is_empty()) {
            (false, _) => "fail",
            (true, false) => "void",
            (true, true) => "pass",
        }
    }
}

pub(super) fn judge(history: &History) -> Judgement {
    let certain = certain(history);
    let mut violations = admitted(history, &certain);
    violations.extend(called_dead(history, &certain));
    violations.extend(lost(history));
    let served = served(history, &certain);
    // Of a run that broke off, the last faults are not known.
    let told = history.end.is_some();
    for (slot, served) in served.iter().enumerate().filter(|_| told) {
        violations.extend(served.too_long.iter().map(|span| {
            let (ms, at) = ((span.end - span.begin) / 1_000_000, since(history, span.begin));
            Violation::Unavailable(format!("place {} did not admit for {ms} ms from {at}", slot + 1))
        }));
    }
    if history.run.only_leader_kills {
        violations.extend(kills::missed(history).map(Violation::Unavailable));
    }
    violations.sort();
    Judgement {
        violations,
        void: void(history),
        served,
    }
}

/// Milliseconds since the history began, for people.
pub(super) fn since(history: &History, at: u64) -> String {
    let first = history.probes.iter().map(|p| p.begin).min().unwrap_or(0);
    format!("{} ms", at.saturating_sub(first) / 1_000_000)
}

fn admitted(history: &History, certain: &HashMap<Subject, Certain>) -> Vec<Violation> {
    let removed = removed(history);
    let mut found = Vec::new();
    let mut by_id: HashMap<u64, &Probe> = HashMap::new();
    let told = |p: &Probe| {
        format!(
            "probe {} at place {} with token {} from {}",
            p.id,
            p.slot + 1,
            p.subject,
            since(history, p.begin)
        )
    };
    for probe in &history.probes {
        by_id.insert(probe.id, probe);
        let dead = certain
            .get(&probe.subject)
            .and_then(|c| c.dead_at(probe.begin, probe.end));
        if let Some(dead) = dead {
            // Of a token without rights the gateway may say 200 and that there is no such tool.
            let by_status = dead.by != Op::DeleteRbac && (200..300).contains(&probe.status);
            if probe.served || by_status {
                let late = (probe.begin - dead.span.begin) / 1_000;
                found.push(Violation::Admitted(format!(
                    "{}: {late} us after {:?} was effective",
                    told(probe),
                    dead.by
                )));
            }
        }
        let gone = removed.get(&probe.slot).into_iter().flatten();
        if probe.served && gone.into_iter().any(|span| within(*span, probe.begin, probe.end)) {
            found.push(Violation::Admitted(format!("{}: the node was removed", told(probe))));
        }
    }
    for hit in &history.hits {
        let Some(probe) = by_id.get(&hit.probe) else { continue };
        // Whatever became of the answer: it was sent after, and it arrived before anything was granted again.
        let dead = certain.get(&probe.subject).and_then(|c| c.dead_at(probe.begin, hit.at));
        let mut gone = removed.get(&probe.slot).into_iter().flatten();
        if dead.is_some() || gone.any(|span| within(*span, probe.begin, hit.at)) {
            found.push(Violation::Reached(told(probe)));
        }
    }
    found
}

fn called_dead(history: &History, certain: &HashMap<Subject, Certain>) -> Vec<Violation> {
    let is_no = |status: u16| status == 401 || status == 403;
    let alive = |p: &&Probe| certain.get(&p.subject).is_some_and(|c| c.alive_at(p.begin, p.end));
    let probes = history.probes.iter().filter(|p| is_no(p.status)).filter(alive);
    let probes = probes.map(|p| {
        let at = since(history, p.begin);
        Violation::CalledDead(format!(
            "place {} answered {} to live token {} at {at}",
            p.slot + 1,
            p.status,
            p.subject
        ))
    });
    // The administrator's session lives all the time.
    let writes = history.writes.iter().filter(|w| is_no(w.status));
    let writes = writes.map(|w| {
        let at = since(history, w.begin);
        Violation::CalledDead(format!(
            "place {} answered {} to the session that asked for {:?} at {at}",
            w.slot + 1,
            w.status,
            w.op
        ))
    });
    probes.chain(writes).collect()
}

/// What every node must show at the end: what the last change said that was acknowledged, unless a later one may have come.
fn lost(history: &History) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut by_condition: BTreeMap<_, Vec<&Write>> = BTreeMap::new();
    for write in history.writes.iter().filter(|w| w.outcome != Outcome::Refused) {
        by_condition
            .entry((write.subject, write.op.what()))
            .or_default()
            .push(write);
    }
    let mut shown: HashMap<_, Vec<&Shown>> = HashMap::new();
    for line in &history.shown {
        shown.entry((line.subject, line.what)).or_default().push(line);
    }
    let nodes = history.run.nodes;
    for (key, writes) in by_condition {
        let Some(expected) = settled(&writes) else { continue };
        let lines = shown.get(&key).map(Vec::as_slice).unwrap_or_default();
        if history.end.is_some() && lines.len() < usize::from(nodes) {
            found.push(Violation::Lost(format!(
                "{key:?} was read through {} nodes only",
                lines.len()
            )));
        }
        for line in lines.iter().filter(|line| line.there != expected) {
            let (slot, there) = (line.slot + 1, line.there);
            found.push(Violation::Lost(format!(
                "place {slot} shows {key:?} as {there}, acknowledged was {expected}"
            )));
        }
    }
    found
}

/// Whether it must be there. `None`: something was never answered that says otherwise.
fn settled(writes: &[&Write]) -> Option<bool> {
    let last = writes
        .iter()
        .filter(|w| w.outcome != Outcome::Unknown)
        .max_by_key(|w| w.end)?;
    let contrary = writes.iter().filter(|w| w.op.restricts() != last.op.restricts());
    let mut may_come = contrary.filter(|w| w.outcome == Outcome::Unknown || w.end > last.begin);
    may_come.next().is_none().then_some(!last.op.restricts())
}

/// Why a run shows nothing.
fn void(history: &History) -> Vec<String> {
    let mut why = Vec::new();
    if history.end.is_none() {
        why.push("the run did not come to its end".to_owned());
    }
    if history.run.only_leader_kills {
        why.extend(kills::void(history));
        return why;
    }
    let minutes = history.run.minutes;
    let revokes = history
        .writes
        .iter()
        .filter(|w| w.op == Op::Revoke && w.outcome == Outcome::Effective);
    let (revokes, least) = (revokes.count() as u64, REVOKES_PER_MINUTE * minutes);
    if revokes < least {
        why.push(format!(
            "{revokes} revokes were acknowledged as effective, {least} are wanted"
        ));
    }
    let done: Vec<_> = history.faults.iter().filter(|f| f.done).collect();
    let least = FAULTS_PER_30_MINUTES * minutes / 30;
    if (done.len() as u64) < least {
        why.push(format!("{} faults happened, {least} are wanted", done.len()));
    }
    let least = (OF_EACH_KIND_PER_30_MINUTES * minutes / 30).max(1);
    for kind in Kind::ALL {
        let happened = done.iter().filter(|f| f.kind == kind).count() as u64;
        if happened < least {
            why.push(format!("{} happened {happened} times, {least} are wanted", kind.name()));
        }
    }
    let leaders = done.iter().filter(|f| f.role == Role::Leader).count();
    if leaders * 100 < done.len() * LEADER_PERCENT {
        why.push(format!("only {leaders} of {} faults met the leader", done.len()));
    }
    for slot in 0..history.run.nodes {
        let probes = history.probes.iter().filter(|p| p.slot == slot).count() as u64;
        if probes < PROBES_PER_MINUTE * minutes {
            why.push(format!("place {} was probed {probes} times only", slot + 1));
        }
    }
    why
}

#[cfg(test)]
#[path = "oracle_tests.rs"]
mod tests;
