//! Whether replicas that have carried out the same entries have the same state: what each says of its own, and what follows.
//!
//! The digest is over what is stored, row by row, in the order of the keys: how the state came to be so does not enter it, and nothing in
//! it is left out. Each table has one of its own, so that replicas that differ can say in what.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::ids::NodeId;
use crate::tables::Table;

/// What one table hashes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TableDigest {
    /// The table's number.
    pub table: u8,
    /// Its rows.
    pub rows: u64,
    /// SHA-256 over their keys and values.
    pub sha256: [u8; 32],
}

/// What a state hashes to at one index of the log.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StateDigest {
    /// The index of the last entry in it.
    pub index: u64,
    /// The tables that have rows, in order.
    pub tables: Vec<TableDigest>,
}

impl StateDigest {
    /// Rows of all tables.
    pub fn rows(&self) -> u64 {
        self.tables.iter().map(|table| table.rows).sum()
    }

    /// The tables in which two states differ, by name. Empty: they are the same.
    pub fn differs_in(&self, other: &StateDigest) -> Vec<String> {
        let by_number = |of: &StateDigest| -> BTreeMap<u8, TableDigest> {
            let tables = of.tables.iter();
            tables.map(|table| (table.table, *table)).collect()
        };
        let (ours, theirs) = (by_number(self), by_number(other));
        let numbers: BTreeSet<u8> = ours.keys().chain(theirs.keys()).copied().collect();
        let differ = numbers.into_iter().filter(|n| ours.get(n) != theirs.get(n));
        differ.map(name_of).collect()
    }
}

/// A table that a newer version has made has no name here.
fn name_of(number: u8) -> String {
    let known = Table::ALL.into_iter().find(|table| *table as u8 == number);
    known.map_or_else(|| format!("table {number}"), |table| format!("{table:?}"))
}

/// Hashes a state whose rows come in order.
#[derive(Default)]
pub struct Hasher {
    done: Vec<TableDigest>,
    open: Option<(u8, u64, Sha256)>,
}

impl Hasher {
    /// Takes the next row.
    pub fn row(&mut self, table: u8, key: &[u8], value: &[u8]) {
        if self.open.as_ref().is_none_or(|(open, ..)| *open != table) {
            self.close();
            self.open = Some((table, 0, Sha256::new()));
        }
        if let Some((_, rows, sum)) = &mut self.open {
            *rows += 1;
            for part in [key, value] {
                // With its length, so that nothing can move from the one to the other.
                sum.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
                sum.update(part);
            }
        }
    }

    fn close(&mut self) {
        if let Some((table, rows, sum)) = self.open.take() {
            let sha256 = sum.finalize().into();
            self.done.push(TableDigest { table, rows, sha256 });
        }
    }

    /// All rows were taken.
    pub fn finish(mut self, index: u64) -> StateDigest {
        self.close();
        StateDigest {
            index,
            tables: self.done,
        }
    }
}

/// What a replica is to think of its own state.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// More than half of the voters have the same.
    Agrees,
    /// More than half of the voters have another: these tables are not what they are there.
    Differs(Vec<String>),
    /// There are two states, and neither is that of more than half of the voters. Says in what they differ.
    Disputed(Vec<String>),
    /// Too few have answered.
    Open,
}

/// Judges one's own state by what others say of theirs at the same index. The voters decide, because without more than half of them nothing
/// goes on anyway; who only follows is judged like everybody else.
pub fn judge(
    me: NodeId,
    mine: &StateDigest,
    voters: &BTreeSet<NodeId>,
    others: &BTreeMap<NodeId, StateDigest>,
) -> Verdict {
    match prevailing(me, mine, voters, others) {
        Some(most) if most == *mine => Verdict::Agrees,
        Some(most) => Verdict::Differs(mine.differs_in(&most)),
        None => {
            let by_voters = by_voters(me, mine, voters, others);
            let another = by_voters.into_iter().find(|said| *said != mine);
            another.map_or(Verdict::Open, |said| Verdict::Disputed(mine.differs_in(said)))
        }
    }
}

/// The state that more than half of the voters have, as far as they have said so.
pub fn prevailing(
    me: NodeId,
    mine: &StateDigest,
    voters: &BTreeSet<NodeId>,
    others: &BTreeMap<NodeId, StateDigest>,
) -> Option<StateDigest> {
    let by_voters = by_voters(me, mine, voters, others);
    let held_by = |state: &StateDigest| by_voters.iter().filter(|said| **said == state).count();
    let most = by_voters.iter().find(|said| held_by(said) > voters.len() / 2);
    most.map(|most| StateDigest::clone(most))
}

/// What voters say of their state at this index. What others say of oneself counts for nothing.
fn by_voters<'a>(
    me: NodeId,
    mine: &'a StateDigest,
    voters: &BTreeSet<NodeId>,
    others: &'a BTreeMap<NodeId, StateDigest>,
) -> Vec<&'a StateDigest> {
    let heard = others
        .iter()
        .filter(|(node, said)| **node != me && said.index == mine.index);
    let mine = voters.contains(&me).then_some(mine);
    let theirs = heard.filter(|(node, _)| voters.contains(node)).map(|(_, said)| said);
    theirs.chain(mine).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(value: &[u8]) -> StateDigest {
        let mut hasher = Hasher::default();
        hasher.row(Table::Users as u8, b"a", b"1");
        hasher.row(Table::Tokens as u8, b"b", value);
        hasher.finish(7)
    }

    fn nodes(ids: &[u64]) -> BTreeSet<NodeId> {
        ids.iter().map(|id| NodeId(*id)).collect()
    }

    fn said(all: &[(u64, &StateDigest)]) -> BTreeMap<NodeId, StateDigest> {
        all.iter().map(|(id, said)| (NodeId(*id), (*said).clone())).collect()
    }

    #[test]
    fn more_than_half_of_the_voters_decide() {
        let (good, bad, other) = (state(b"good"), state(b"bad"), state(b"other"));
        let me = NodeId(1);
        let three = nodes(&[1, 2, 3]);
        let tokens = || vec!["Tokens".to_owned()];
        let judge = |mine, voters: &BTreeSet<NodeId>, others: &[_]| super::judge(me, mine, voters, &said(others));
        assert_eq!(judge(&good, &three, &[]), Verdict::Open);
        assert_eq!(judge(&good, &three, &[(2, &good)]), Verdict::Agrees);
        assert_eq!(judge(&good, &three, &[(2, &good), (3, &bad)]), Verdict::Agrees);
        assert_eq!(judge(&bad, &three, &[(2, &good)]), Verdict::Disputed(tokens()));
        assert_eq!(
            judge(&bad, &three, &[(2, &good), (3, &good)]),
            Verdict::Differs(tokens())
        );
        assert_eq!(
            judge(&bad, &three, &[(2, &good), (3, &other)]),
            Verdict::Disputed(tokens()),
            "three states"
        );
        // Two replicas: nobody can say which of them is right.
        let (two, one) = (nodes(&[1, 2]), nodes(&[1]));
        assert_eq!(judge(&good, &two, &[(2, &bad)]), Verdict::Disputed(tokens()));
        assert_eq!(judge(&good, &one, &[]), Verdict::Agrees, "alone");
        // Who only follows is judged, and judges nobody.
        let voters = nodes(&[2, 3, 4]);
        assert_eq!(
            judge(&bad, &voters, &[(2, &good), (3, &good)]),
            Verdict::Differs(tokens())
        );
        assert_eq!(
            judge(&good, &voters, &[(2, &good), (3, &bad), (5, &good)]),
            Verdict::Disputed(tokens())
        );
    }

    #[test]
    fn what_is_said_of_another_index_or_of_oneself_counts_for_nothing() {
        let good = state(b"good");
        let later = StateDigest {
            index: 8,
            ..state(b"bad")
        };
        let judged = judge(
            NodeId(1),
            &good,
            &nodes(&[1, 2]),
            &said(&[(2, &later), (1, &state(b"bad"))]),
        );
        assert_eq!(judged, Verdict::Open);
    }

    #[test]
    fn nothing_moves_between_key_and_value_or_between_tables() {
        let one = |table, key: &[u8], value: &[u8]| {
            let mut hasher = Hasher::default();
            hasher.row(table, key, value);
            hasher.finish(1)
        };
        assert_ne!(one(1, b"ab", b"c"), one(1, b"a", b"bc"));
        assert_ne!(one(1, b"a", b"b"), one(2, b"a", b"b"));
        assert_eq!(
            one(200, b"", b"").differs_in(&Hasher::default().finish(1)),
            ["table 200"]
        );
    }
}
