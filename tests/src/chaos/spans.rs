//! From what was asked and answered: when a token is certainly dead, and when it is certainly alive. In between nobody can say.

use std::collections::HashMap;

use super::history::{History, Op, Outcome, Slot, Span, Subject, Write};

/// What is certain of a token.
#[derive(Debug, Default)]
pub(super) struct Certain {
    /// From the answer that a restriction is effective until the next grant is asked for.
    pub(super) dead: Vec<Dead>,
    /// From the answer to a grant until the next restriction is asked for.
    pub(super) alive: Vec<Span>,
}

/// A token that must not be admitted, and by which change.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dead {
    pub(super) span: Span,
    pub(super) by: Op,
}

impl Certain {
    pub(super) fn dead_at(&self, begin: u64, end: u64) -> Option<Dead> {
        self.dead.iter().copied().find(|dead| within(dead.span, begin, end))
    }

    pub(super) fn alive_at(&self, begin: u64, end: u64) -> bool {
        self.alive.iter().any(|span| within(*span, begin, end))
    }
}

/// Strictly after the beginning: what was asked at the very moment of an answer was not asked after it.
pub(super) fn within(span: Span, begin: u64, end: u64) -> bool {
    span.begin < begin && end < span.end
}

/// By token.
pub(super) fn certain(history: &History) -> HashMap<Subject, Certain> {
    let mut by_subject: HashMap<Subject, Vec<&Write>> = HashMap::new();
    // What was certainly not carried out changes nothing.
    for write in history.writes.iter().filter(|w| w.outcome != Outcome::Refused) {
        by_subject.entry(write.subject).or_default().push(write);
    }
    let certain = by_subject.into_iter().map(|(subject, writes)| {
        let dead = writes.iter().filter(|w| w.outcome == Outcome::Effective);
        let dead = dead.filter_map(|w| {
            Some(Dead {
                span: span(w, &writes)?,
                by: w.op,
            })
        });
        let alive = writes
            .iter()
            .filter(|w| !w.op.restricts() && w.outcome == Outcome::Done);
        let alive = alive.filter_map(|w| span(w, &writes));
        let certain = Certain {
            dead: dead.collect(),
            alive: alive.collect(),
        };
        (subject, certain)
    });
    certain.collect()
}

/// From the answer to `write` until the next contrary change is asked for. `None`: a contrary change was under way meanwhile, or
/// one was asked for earlier and never answered: it may still come.
fn span(write: &Write, all: &[&Write]) -> Option<Span> {
    let contrary = all.iter().filter(|other| other.op.restricts() != write.op.restricts());
    let mut end = u64::MAX;
    for other in contrary {
        if other.begin >= write.end {
            end = end.min(other.begin);
        } else if other.outcome == Outcome::Unknown || other.end > write.begin {
            return None;
        }
    }
    Some(Span { begin: write.end, end })
}

/// When a node was certainly no member any more: from the receipt of its removal until its place is joined again.
pub(super) fn removed(history: &History) -> HashMap<Slot, Vec<Span>> {
    let mut spans: HashMap<Slot, Vec<Span>> = HashMap::new();
    let gone = |m: &&super::history::Member| !m.joins && m.outcome == Outcome::Effective;
    for removal in history.members.iter().filter(gone) {
        let next = history.members.iter().filter(|m| m.joins && m.slot == removal.slot);
        let next = next.map(|m| m.begin).filter(|begin| *begin >= removal.end).min();
        let span = Span {
            begin: removal.end,
            end: next.unwrap_or(u64::MAX),
        };
        spans.entry(removal.slot).or_default().push(span);
    }
    spans
}

#[cfg(test)]
mod tests {
    use super::super::history::{Line, Member};
    use super::*;

    fn write(op: Op, begin: u64, end: u64, outcome: Outcome) -> Line {
        Line::Write(Write {
            subject: 1,
            op,
            slot: 0,
            begin,
            end,
            outcome,
            status: 200,
            proofs: None,
        })
    }

    /// What is certain at each time from 0 to 90 by tens: dead, alive or neither.
    fn drawn(lines: &[Line]) -> String {
        let mut history = History::default();
        lines.iter().cloned().for_each(|line| history.add(line));
        let certain = certain(&history).remove(&1).unwrap_or_default();
        let at = |time: u64| match (certain.dead_at(time, time), certain.alive_at(time, time)) {
            (Some(_), false) => 'x',
            (None, true) => 'o',
            (None, false) => '.',
            (Some(_), true) => '!',
        };
        (0..10).map(|n| at(n * 10 + 5)).collect()
    }

    #[test]
    fn a_token_is_alive_from_one_answer_and_dead_from_another() {
        use Op::{DisableUser, EnableUser, Mint, Revoke};
        use Outcome::{Done, Effective, Pending, Refused, Unknown};
        let minted = || write(Mint, 10, 20, Done);
        for (lines, expected) in [
            (vec![minted()], "..oooooooo"),
            (vec![minted(), write(Revoke, 40, 60, Effective)], "..oo..xxxx"),
            (vec![minted(), write(Revoke, 40, 60, Pending)], "..oo......"),
            (vec![minted(), write(Revoke, 40, 60, Unknown)], "..oo......"),
            (vec![minted(), write(Revoke, 40, 60, Refused)], "..oooooooo"),
            // The first try was lost; the second was answered.
            (
                vec![
                    minted(),
                    write(Revoke, 30, 50, Unknown),
                    write(Revoke, 60, 70, Effective),
                ],
                "..o....xxx",
            ),
            (
                vec![
                    minted(),
                    write(DisableUser, 30, 40, Effective),
                    write(EnableUser, 60, 70, Done),
                ],
                "..o.xx.ooo",
            ),
            // A disabling that was never answered may still come after the enabling.
            (
                vec![
                    minted(),
                    write(DisableUser, 30, 40, Unknown),
                    write(EnableUser, 60, 70, Done),
                ],
                "..o.......",
            ),
            // And so may an enabling.
            (
                vec![
                    minted(),
                    write(DisableUser, 25, 28, Effective),
                    write(EnableUser, 31, 38, Unknown),
                    write(DisableUser, 41, 50, Effective),
                ],
                "..........",
            ),
            // Asked for while the restriction was under way: it may have come first.
            (
                vec![
                    minted(),
                    write(DisableUser, 30, 60, Effective),
                    write(EnableUser, 40, 50, Done),
                ],
                "..o.......",
            ),
        ] {
            assert_eq!(drawn(&lines), expected, "{lines:?}");
        }
    }

    #[test]
    fn a_removed_node_is_out_until_its_place_is_joined_again() {
        let member = |joins, begin, end, outcome| {
            Line::Member(Member {
                slot: 2,
                joins,
                begin,
                end,
                outcome,
            })
        };
        let mut history = History::default();
        history.add(member(false, 10, 20, Outcome::Effective));
        history.add(member(true, 50, 60, Outcome::Done));
        history.add(member(false, 70, 80, Outcome::Unknown));
        assert_eq!(removed(&history)[&2], [Span { begin: 20, end: 50 }]);
    }
}
