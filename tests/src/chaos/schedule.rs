//! Which fault comes when: decided by the seed alone. Which node it meets is decided when it comes, because it is aimed at whoever
//! leads then, or at one who does not.

use super::history::{Kind, Role};
use crate::random::Random;

/// Faults begin this long after each other, ms.
const GAP_MS: (u64, u64) = (3_000, 8_000);
/// How long one lasts, ms: some shorter than a lease, most longer.
const LAST_MS: (u64, u64) = (800, 5_000);

/// A fault to come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Planned {
    /// Since the beginning of the faults.
    pub(super) at_ms: u64,
    pub(super) kind: Kind,
    pub(super) role: Role,
    pub(super) last_ms: u64,
    /// Decides the rest: which follower, which way, how much.
    pub(super) lot: u64,
}

/// The faults of a run. Kinds are dealt like cards: each comes once before any comes again, now for the leader, now for a follower.
pub(super) fn plan(seed: u64, run_ms: u64) -> Vec<Planned> {
    let mut random = Random::from_seed(seed);
    let (mut planned, mut at_ms, mut deals) = (Vec::new(), 0, 0_usize);
    loop {
        for (place, kind) in shuffled(&mut random).into_iter().enumerate() {
            at_ms += between(&mut random, GAP_MS);
            let last_ms = between(&mut random, LAST_MS);
            if at_ms + last_ms > run_ms {
                return planned;
            }
            // Each kind meets the leader in every second deal.
            let number = Kind::ALL.iter().position(|k| *k == kind).unwrap_or(place);
            let role = match (number + deals).is_multiple_of(2) {
                true => Role::Leader,
                false => Role::Follower,
            };
            planned.push(Planned {
                at_ms,
                kind,
                role,
                last_ms,
                lot: random.number(),
            });
        }
        deals += 1;
    }
}

/// All kinds in some order, but a member is added before one is removed.
fn shuffled(random: &mut Random) -> Vec<Kind> {
    let mut left = Kind::ALL.to_vec();
    let mut dealt = Vec::new();
    while !left.is_empty() {
        dealt.push(left.swap_remove(random.below(left.len())));
    }
    let at = |kind| dealt.iter().position(|k| *k == kind).unwrap_or(0);
    let (added, removed) = (at(Kind::MemberAdded), at(Kind::MemberRemoved));
    if added > removed {
        dealt.swap(added, removed);
    }
    dealt
}

fn between(random: &mut Random, (least, most): (u64, u64)) -> u64 {
    least + random.number() % (most - least)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn a_seed_is_a_schedule() {
        assert_eq!(plan(7, 600_000), plan(7, 600_000));
        assert_ne!(plan(7, 600_000), plan(8, 600_000));
    }

    #[test]
    fn two_minutes_hold_every_kind_and_thirty_hold_each_ten_times_and_250_faults() {
        for seed in 0..50 {
            let counted = |run_ms| {
                let mut counts = HashMap::new();
                plan(seed, run_ms)
                    .iter()
                    .for_each(|p| *counts.entry(p.kind).or_insert(0) += 1);
                counts
            };
            assert_eq!(counted(120_000).len(), Kind::ALL.len(), "seed {seed}");
            let long = counted(1_800_000);
            assert!(Kind::ALL.iter().all(|kind| long[kind] >= 10), "seed {seed}: {long:?}");
            assert!(long.values().sum::<i32>() >= 250, "seed {seed}");
        }
    }

    #[test]
    fn every_kind_meets_the_leader_and_followers() {
        let planned = plan(1, 1_800_000);
        for kind in Kind::ALL {
            for role in [Role::Leader, Role::Follower] {
                assert!(
                    planned.iter().any(|p| p.kind == kind && p.role == role),
                    "{kind:?} {role:?}"
                );
            }
        }
    }

    #[test]
    fn gaps_are_three_to_eight_seconds() {
        let planned = plan(3, 1_800_000);
        for pair in planned.windows(2) {
            let gap = pair[1].at_ms - pair[0].at_ms;
            assert!((GAP_MS.0..=GAP_MS.1).contains(&gap), "{gap}");
        }
    }
}
