//! Carries the schedule out: each fault at its time, at a node that no other fault holds.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use super::history::{Fault, Kind, Line, Member, Outcome, Role, Slot};
use super::machine::{Machine, api_url, name, ready};
use super::net::{Drop, Rules};
use super::schedule::Planned;
use super::world::World;
use crate::api::Api;
use crate::clock::now_ns;
use crate::random::Random;

/// How long a leader is looked for that no other fault holds.
const TARGET_WAIT: Duration = Duration::from_secs(4);
const STEP: Duration = Duration::from_millis(50);
/// How long a node may take to come back.
const READY_WAIT: Duration = Duration::from_secs(60);
/// How long a member may take to be let in or let go.
const MEMBER_WAIT: Duration = Duration::from_secs(30);
const TRY_WAIT: Duration = Duration::from_secs(18);

/// The nodes, and who is held by a fault at the moment.
pub(super) struct Field {
    world: Arc<World>,
    machines: Vec<Mutex<Machine>>,
    held: std::sync::Mutex<BTreeSet<Slot>>,
    numbers: AtomicUsize,
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

    async fn make(&self, kind: Kind, slots: &[Slot], last_ms: u64, random: &mut Random) -> anyhow::Result<Done> {
        let last = Duration::from_millis(last_ms);
        let slot = *slots.first().context("it has no target")?;
        match kind {
            Kind::Partition => self.drop_packets(slots, Drop::Both, last).await,
            Kind::OneWayCut => {
                let way = if random.below(2) == 0 {
                    Drop::Incoming
                } else {
                    Drop::Outgoing
                };
                self.drop_packets(slots, way, last).await
            }
            Kind::Loss => {
                let percent = 15 + u8::try_from(random.below(45))?;
                self.drop_packets(slots, Drop::Some(percent), last).await
            }
            Kind::Pause => self.pause(slot, last).await,
            Kind::Kill => self.kill(slot, last).await,
            Kind::Restart => self.restart(slot).await,
            Kind::ClockStep => self.step_clock(slot, last, random).await,
            Kind::DiskFull => self.fill_disk(slot, last).await,
            Kind::SlowDisk => self.slow_disk(slot, last, random).await,
            Kind::MemberAdded => self.add(slot, random).await,
            Kind::MemberRemoved => self.remove(slot, random).await,
        }
    }

    async fn drop_packets(&self, slots: &[Slot], drop: Drop, last: Duration) -> anyhow::Result<Done> {
        let others: Vec<Slot> = (0..self.world.slots).filter(|slot| !slots.contains(slot)).collect();
        let mut rules = Vec::new();
        for slot in slots {
            let number = self.numbers.fetch_add(1, Ordering::Relaxed);
            rules.push(Rules::set(number, *slot, &others, drop).await?);
        }
        tokio::time::sleep(last).await;
        for rules in rules {
            rules.lift().await.map_err(|error| Broken(format!("{error:#}")))?;
        }
        Ok(Done::now(format!("{drop:?}")))
    }

    async fn pause(&self, slot: Slot, last: Duration) -> anyhow::Result<Done> {
        let machine = self.machine(slot).lock().await;
        machine.signal(Signal::SIGSTOP)?;
        tokio::time::sleep(last).await;
        machine.signal(Signal::SIGCONT).map_err(Broken::of)?;
        Ok(Done::now(String::new()))
    }

    async fn kill(&self, slot: Slot, last: Duration) -> anyhow::Result<Done> {
        let mut machine = self.machine(slot).lock().await;
        machine.signal(Signal::SIGKILL)?;
        machine.kill().await?;
        tokio::time::sleep(last).await;
        machine.start().map_err(Broken::of)?;
        came_back(slot, &mut machine).await
    }

    async fn restart(&self, slot: Slot) -> anyhow::Result<Done> {
        let mut machine = self.machine(slot).lock().await;
        machine.signal(Signal::SIGTERM)?;
        let Some(status) = machine.ended().await else {
            return Err(Broken(format!("it does not end by SIGTERM: {}", machine.log().display())).into());
        };
        machine.start().map_err(Broken::of)?;
        let back = came_back(slot, &mut machine).await?;
        Ok(Done {
            detail: format!("{status}, {}", back.detail),
            ..back
        })
    }

    async fn step_clock(&self, slot: Slot, last: Duration, random: &mut Random) -> anyhow::Result<Done> {
        let seconds = 5 + i64::try_from(random.below(600))?;
        let seconds = if random.below(2) == 0 { seconds } else { -seconds };
        self.machine(slot).lock().await.shift_clock(seconds)?;
        tokio::time::sleep(last).await;
        self.machine(slot).lock().await.shift_clock(0).map_err(Broken::of)?;
        Ok(Done::now(format!("by {seconds:+} s and back")))
    }

    async fn fill_disk(&self, slot: Slot, last: Duration) -> anyhow::Result<Done> {
        let mut machine = self.machine(slot).lock().await;
        machine.fill().await?;
        tokio::time::sleep(last).await;
        machine.make_room().map_err(Broken::of)?;
        came_back(slot, &mut machine).await
    }

    /// Each sync of the node's files returns late. Under `strace` everything else it does takes longer as well.
    async fn slow_disk(&self, slot: Slot, last: Duration, random: &mut Random) -> anyhow::Result<Done> {
        let pid = self.machine(slot).lock().await.pid()?.to_string();
        let delay_us = 20_000 + random.below(400_000);
        let inject = format!("inject=fdatasync,fsync:delay_exit={delay_us}");
        let mut command = Command::new("strace");
        command.args([
            "-f",
            "-qq",
            "-o",
            "/dev/null",
            "-e",
            "trace=fdatasync,fsync",
            "-e",
            &inject,
            "-p",
            &pid,
        ]);
        let mut strace = command.kill_on_drop(true).spawn().context("strace cannot be run")?;
        tokio::time::sleep(last).await;
        ensure!(strace.try_wait()?.is_none(), "strace ended early");
        let id = i32::try_from(strace.id().context("strace is gone")?)?;
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(id), Signal::SIGTERM)?;
        strace.wait().await?;
        Ok(Done::now(format!("by {} ms", delay_us / 1_000)))
    }

    async fn add(&self, slot: Slot, random: &mut Random) -> anyhow::Result<Done> {
        let begin = now_ns();
        let body = json!({});
        let (other, answer) = self
            .through_anybody("POST", "cluster/join-tokens", &body, slot, random)
            .await?;
        let token = answer["token"].as_str().context("no join token")?;
        let mut machine = self.machine(slot).lock().await;
        let world = &self.world;
        let member = |outcome| {
            let end = now_ns();
            Line::Member(Member {
                slot,
                joins: true,
                begin,
                end,
                outcome,
            })
        };
        machine.join(other, token)?;
        let joined = ready(slot, MEMBER_WAIT).await;
        if joined.is_err() && machine.has_ended().is_some() {
            machine.kill().await?;
            machine.wipe()?;
            // It may have been let in before it gave up.
            let path = format!("cluster/nodes/{}", name(slot));
            let gone = self.through_anybody("DELETE", &path, &Value::Null, slot, random).await;
            let log = machine.log();
            bail!("it ended; let go again: {}: {}", gone.is_ok(), log.display());
        }
        joined.map_err(Broken::of)?;
        world.has_joined(slot);
        world.recorder.record(member(Outcome::Done));
        Ok(Done::now(format!("by way of {}", name(other))))
    }

    async fn remove(&self, slot: Slot, random: &mut Random) -> anyhow::Result<Done> {
        let begin = now_ns();
        self.world.has_left(slot);
        let path = format!("cluster/nodes/{}", name(slot));
        let removed = self.through_anybody("DELETE", &path, &Value::Null, slot, random).await;
        let effective = removed
            .as_ref()
            .is_ok_and(|(_, body)| body["receipt"]["effective"] == true);
        let outcome = match (&removed, effective) {
            (_, true) => Outcome::Effective,
            (Ok(_), false) => Outcome::Pending,
            (Err(_), false) => Outcome::Unknown,
        };
        let end = now_ns();
        self.world.recorder.record(Line::Member(Member {
            slot,
            joins: false,
            begin,
            end,
            outcome,
        }));
        let (other, _) = removed.map_err(Broken::of)?;
        let mut machine = self.machine(slot).lock().await;
        let ended = machine.ended().await;
        machine.kill().await?;
        machine.wipe().map_err(Broken::of)?;
        ensure!(
            ended.is_some(),
            "it did not end by itself after its removal: {}",
            machine.log().display()
        );
        Ok(Done::now(format!("by way of {}", name(other))))
    }

    /// A change of the cluster through any other member, repeated until one says that it was made.
    async fn through_anybody(
        &self,
        method: &str,
        path: &str,
        body: &Value,
        but: Slot,
        random: &mut Random,
    ) -> anyhow::Result<(Slot, Value)> {
        let mut said = String::new();
        let began = now_ns();
        while now_ns() - began < u64::try_from(MEMBER_WAIT.as_nanos())? {
            let others: Vec<Slot> = self.world.members().into_iter().filter(|slot| *slot != but).collect();
            let other = others[random.below(others.len())];
            let asked = async {
                Api::open(&api_url(other), &self.world.session)
                    .await?
                    .send(method, path, body)
                    .await
            };
            match tokio::time::timeout(TRY_WAIT, asked).await {
                Ok(Ok((200 | 201, answer))) => return Ok((other, answer)),
                Ok(Ok((404, answer))) if method == "DELETE" && !said.is_empty() => return Ok((other, answer)),
                Ok(Ok((status, answer))) => said = format!("{status}: {answer}"),
                Ok(Err(error)) => said = format!("{error:#}"),
                Err(_) => said = "no answer in time".to_owned(),
            }
            tokio::time::sleep(STEP).await;
        }
        bail!("{method} {path} was not done in time: {said}")
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

/// A fault that is over.
struct Done {
    /// When its cause was taken away; the node may need a while after that.
    undone: u64,
    detail: String,
}

impl Done {
    fn now(detail: String) -> Done {
        Done {
            undone: now_ns(),
            detail,
        }
    }
}

/// It could not be undone, or a node did not do what it has to.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Broken(String);

impl Broken {
    fn of(error: anyhow::Error) -> anyhow::Error {
        anyhow::Error::new(Broken(format!("{error:#}")))
    }
}

/// Waits until a node that is up again holds a lease; who ends by itself is broken.
async fn came_back(slot: Slot, machine: &mut Machine) -> anyhow::Result<Done> {
    let undone = now_ns();
    let back = ready(slot, READY_WAIT).await;
    if let Some(status) = machine.has_ended() {
        return Err(Broken(format!("it ended by itself ({status}): {}", machine.log().display())).into());
    }
    back.map_err(Broken::of)?;
    Ok(Done {
        undone,
        detail: format!("ready after {} ms", (now_ns() - undone) / 1_000_000),
    })
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
