//! Carries the schedule out: each fault at its time, at a node that no other fault holds.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use anyhow::bail;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use super::faults::{Broken, Done};
use super::history::{Fault, Kind, Line, Role, Slot};
use super::machine::{Machine, name, ready};
use super::schedule::Planned;
use super::world::World;
use crate::clock::now_ns;
use crate::random::Random;

/// How long a leader is looked for that no other fault holds.
const TARGET_WAIT: Duration = Duration::from_secs(4);
const STEP: Duration = Duration::from_millis(50);
/// How long a node may take to come back.
const READY_WAIT: Duration = Duration::from_secs(60);

/// The nodes, and who is held by a fault at the moment.
pub(super) struct Field {
    pub(super) world: Arc<World>,
    machines: Vec<Mutex<Machine>>,
    held: std::sync::Mutex<BTreeSet<Slot>>,
    /// Names of packet filters.
    pub(super) numbers: AtomicUsize,
}

impl Field {
    pub(super) fn new(world: &Arc<World>, machines: Vec<Machine>) -> Field {
        Field {
            world: Arc::clone(world),
            machines: machines.into_iter().map(Mutex::new).collect(),
            held: std::sync::Mutex::new(BTreeSet::new()),
            numbers: AtomicUsize::new(0),
        }
    }

    pub(super) fn machine(&self, slot: Slot) -> &Mutex<Machine> {
        &self.machines[usize::from(slot)]
    }

    fn hold(&self, slots: &[Slot]) -> bool {
        let mut held = self.held.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let free = slots.iter().all(|slot| !held.contains(slot));
        if free {
            held.extend(slots);
        }
        free
    }

    fn release(&self, slots: &[Slot]) {
        let mut held = self.held.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        held.retain(|slot| !slots.contains(slot));
    }

    /// Runs all faults, and waits until the last is over.
    pub(super) async fn run(self: &Arc<Field>, planned: Vec<Planned>) -> anyhow::Result<()> {
        let began = now_ns();
        let mut under_way = JoinSet::new();
        for fault in planned {
            let due = began + fault.at_ms * 1_000_000;
            tokio::time::sleep(Duration::from_nanos(due.saturating_sub(now_ns()))).await;
            let field = Arc::clone(self);
            under_way.spawn(async move { field.carry_out(&fault).await });
            while let Some(ended) = under_way.try_join_next() {
                ended??;
            }
        }
        while let Some(ended) = under_way.join_next().await {
            ended??;
        }
        Ok(())
    }

    /// One fault from beginning to end. What could not be done is written down as such; what could not be undone ends the run.
    async fn carry_out(&self, planned: &Planned) -> anyhow::Result<()> {
        let mut random = Random::from_seed(planned.lot);
        let (kind, slots, role) = match self.target(planned, &mut random).await {
            Some(target) => target,
            None => {
                self.note(
                    planned.kind,
                    planned.role,
                    vec![],
                    now_ns(),
                    Err(anyhow::anyhow!("no node was free")),
                );
                return Ok(());
            }
        };
        let begin = now_ns();
        let done = self.make(kind, &slots, planned.last_ms, &mut random).await;
        let broken = match &done {
            Err(error) => error.downcast_ref::<Broken>().map(ToString::to_string),
            Ok(_) => None,
        };
        self.note(kind, role, slots.clone(), begin, done);
        self.release(&slots);
        match broken {
            Some(why) => bail!("{}: {why}", kind.name()),
            None => Ok(()),
        }
    }

    fn note(&self, kind: Kind, role: Role, slots: Vec<Slot>, begin: u64, done: anyhow::Result<Done>) {
        let end = now_ns();
        let happened = done.is_ok();
        let Done { undone, detail } = done.unwrap_or_else(|error| Done::now(format!("{error:#}")));
        let names: Vec<String> = slots.iter().map(|slot| name(*slot)).collect();
        let ms = (end - begin) / 1_000_000;
        println!(
            "chaos: {} ({}) at {}: {ms} ms {detail}",
            kind.name(),
            role.name(),
            names.join(", ")
        );
        self.world.recorder.record(Line::Fault(Fault {
            kind,
            role,
            slots,
            begin,
            end,
            undone,
            done: happened,
            detail,
        }));
    }

    /// Whom it meets, held for it; a member is added where a place is free and removed where none is.
    async fn target(&self, planned: &Planned, random: &mut Random) -> Option<(Kind, Vec<Slot>, Role)> {
        let tries = TARGET_WAIT.as_millis() / STEP.as_millis();
        for left in (0..tries).rev() {
            let members = self.world.members();
            let spare = (0..self.world.slots).find(|slot| !members.contains(slot));
            let kind = match (planned.kind, spare) {
                (Kind::MemberAdded, None) => Kind::MemberRemoved,
                (Kind::MemberRemoved, Some(_)) => Kind::MemberAdded,
                (kind, _) => kind,
            };
            if let (Kind::MemberAdded, Some(spare)) = (kind, spare) {
                if self.hold(&[spare]) {
                    return Some((kind, vec![spare], planned.role));
                }
            } else if let Some(leader) = self.world.leader().await {
                let followers: Vec<Slot> = members.into_iter().filter(|slot| *slot != leader).collect();
                // Rather a follower than nobody, once time is up.
                let role = if left == 0 { Role::Follower } else { planned.role };
                let slots = chosen(kind, role, leader, followers, random);
                if self.hold(&slots) {
                    return Some((kind, slots, role));
                }
            }
            tokio::time::sleep(STEP).await;
        }
        None
    }

    /// Everybody up and holding a lease.
    pub(super) async fn healed(&self) -> anyhow::Result<()> {
        for slot in self.world.members() {
            let mut machine = self.machine(slot).lock().await;
            if let Some(status) = machine.has_ended() {
                bail!("{} ended by itself ({status}): {}", name(slot), machine.log().display());
            }
            drop(machine);
            ready(slot, READY_WAIT).await?;
        }
        Ok(())
    }
}

/// The nodes that a fault is made at. A partition cuts a minority off, of which the leader may be one; all others meet one node.
fn chosen(kind: Kind, role: Role, leader: Slot, mut followers: Vec<Slot>, random: &mut Random) -> Vec<Slot> {
    let mut slots = match role {
        Role::Leader => vec![leader],
        Role::Follower if followers.is_empty() => vec![leader],
        Role::Follower => vec![followers.swap_remove(random.below(followers.len()))],
    };
    let members = followers.len() + 1 + usize::from(role == Role::Follower);
    let minority = (members - 1) / 2;
    if kind == Kind::Partition && minority > 1 {
        let more = random.below(minority);
        while slots.len() <= more && !followers.is_empty() {
            slots.push(followers.swap_remove(random.below(followers.len())));
        }
    }
    slots
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_leaves_a_majority_and_the_rest_meet_one_node() {
        for lot in 0..200 {
            let mut random = Random::from_seed(lot);
            for (count, most) in [(3_u8, 1), (4, 1), (5, 2), (6, 2)] {
                let followers: Vec<Slot> = (1..count).collect();
                for role in [Role::Leader, Role::Follower] {
                    let slots = chosen(Kind::Partition, role, 0, followers.clone(), &mut random);
                    assert!((1..=most).contains(&slots.len()), "{slots:?} of {count}");
                    assert_eq!(slots.contains(&0), role == Role::Leader);
                    assert_eq!(chosen(Kind::Kill, role, 0, followers.clone(), &mut random).len(), 1);
                }
            }
        }
    }
}
