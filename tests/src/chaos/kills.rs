//! Leaders that die, one after the other, and nothing else: what does that cost those who survive?

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use nix::sys::signal::Signal;

use super::field::Field;
use super::history::{Fault, History, Kind, Line, Probe, Role};
use super::machine::ready;
use super::world::World;
use crate::clock::now_ns;

/// How long a leader stays dead: longer than a lease, so that the others have to get theirs from the next one.
const DEAD: Duration = Duration::from_millis(3_000);
/// How long all are up before the next one dies.
const UP: Duration = Duration::from_millis(1_000);
const WAIT: Duration = Duration::from_secs(60);
/// Probes at survivors that each kill must have met, on average.
const PROBES_PER_KILL: usize = 1_000;

/// Kills so many leaders.
pub(super) async fn run(world: &Arc<World>, field: &Arc<Field>, rounds: usize) -> anyhow::Result<()> {
    for round in 1..=rounds {
        let leader = tokio::time::timeout(WAIT, async {
            loop {
                if let Some(leader) = world.leader().await {
                    return leader;
                }
            }
        });
        let leader = leader.await.context("no leader in time")?;
        let mut machine = field.machine(leader).lock().await;
        let begin = now_ns();
        machine.signal(Signal::SIGKILL)?;
        machine.kill().await?;
        tokio::time::sleep(DEAD).await;
        let undone = now_ns();
        machine.start()?;
        ready(leader, WAIT).await?;
        world.recorder.record(Line::Fault(Fault {
            kind: Kind::Kill,
            role: Role::Leader,
            slots: vec![leader],
            begin,
            undone,
            end: now_ns(),
            done: true,
            detail: format!("round {round}"),
        }));
        tokio::time::sleep(UP).await;
    }
    Ok(())
}

/// Probes that were begun at a survivor while the leader was dead, and those of them that were not admitted.
fn at_survivors(history: &History) -> (usize, Vec<&Probe>) {
    let (mut met, mut missed) = (0, Vec::new());
    let mut probes: Vec<&Probe> = history.probes.iter().collect();
    probes.sort_by_key(|p| p.begin);
    for kill in &history.faults {
        let first = probes.partition_point(|p| p.begin < kill.begin);
        let after = probes.partition_point(|p| p.begin < kill.undone);
        let survivors = |p: &&&Probe| p.slot < history.run.nodes && !kill.slots.contains(&p.slot);
        for probe in probes[first..after].iter().filter(survivors) {
            met += 1;
            if !probe.served {
                missed.push(*probe);
            }
        }
    }
    (met, missed)
}

/// What is wrong with a run of nothing but kills.
pub(super) fn missed(history: &History) -> Option<String> {
    let (_, missed) = at_survivors(history);
    let first = missed.first()?;
    Some(format!(
        "{} probes at survivors were not admitted, the first at place {} with {}",
        missed.len(),
        first.slot + 1,
        first.status
    ))
}

/// Why such a run shows nothing.
pub(super) fn void(history: &History) -> Option<String> {
    let (met, _) = at_survivors(history);
    let least = (history.faults.len() * PROBES_PER_KILL).max(1);
    (met < least).then(|| format!("{met} probes met the death of a leader, {least} are wanted"))
}

/// The figure.
pub(super) fn print(history: &History) {
    let (met, missed) = at_survivors(history);
    let kills = history.faults.len();
    println!(
        "leaders killed: {kills}; probes at survivors meanwhile: {met}, of which {} were not admitted",
        missed.len()
    );
}

#[cfg(test)]
mod tests {
    use super::super::history::Run;
    use super::*;

    #[test]
    fn a_probe_that_a_survivor_did_not_admit_is_missed() {
        let probe = |slot, begin, served| {
            Line::Probe(Probe {
                id: begin,
                slot,
                subject: 0,
                begin,
                end: begin + 1,
                status: if served { 200 } else { 503 },
                served,
            })
        };
        for (slot, begin, served, expected) in [
            (1, 150, true, false),
            (1, 150, false, true),
            (0, 150, false, false),
            (1, 99, false, false),
            (1, 200, false, false),
            (3, 150, false, false),
        ] {
            let mut history = History {
                run: Run {
                    nodes: 3,
                    only_leader_kills: true,
                    ..Run::default()
                },
                ..History::default()
            };
            history.add(Line::Fault(Fault {
                kind: Kind::Kill,
                role: Role::Leader,
                slots: vec![0],
                begin: 100,
                undone: 200,
                end: 250,
                done: true,
                detail: String::new(),
            }));
            history.add(probe(slot, begin, served));
            assert_eq!(missed(&history).is_some(), expected, "{slot} {begin} {served}");
            assert!(void(&history).is_some(), "one probe shows nothing");
        }
    }
}
