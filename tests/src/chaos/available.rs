//! Who had to admit when, by the schedule of faults alone, and who did not.
//!
//! A node has to admit while no fault touches it, more than half of the members are untouched, and the machine that runs all this
//! kept up. A fault touches its nodes from its beginning until [`GRACE_NS`] after its end. One stretch without admission may last
//! [`STRETCH_NS_MAX`]: far more than a failover, so that a loaded machine is not mistaken for a broken node.

use std::collections::HashMap;

use super::history::{History, Outcome, Probe, Span};
use super::spans::Certain;

/// How long after a fault its nodes are excused.
pub(super) const GRACE_NS: u64 = 5_000_000_000;
/// Longest stretch without admission at a node that has to admit.
pub(super) const STRETCH_NS_MAX: u64 = 5_000_000_000;

/// What came of one node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Served {
    /// Time in which it was tried with live tokens.
    pub(super) tried_ns: u64,
    /// Part of that without admission.
    pub(super) without_ns: u64,
    /// Time in which it had to admit.
    pub(super) owed_ns: u64,
    /// Part of that without admission.
    pub(super) owed_without_ns: u64,
    /// Stretches that were too long, within the time in which it had to admit.
    pub(super) too_long: Vec<Span>,
}

/// By place.
pub(super) fn served(history: &History, certain: &HashMap<u32, Certain>) -> Vec<Served> {
    let slots = usize::from(history.run.nodes) + 1;
    let mut live: Vec<Vec<&Probe>> = vec![Vec::new(); slots];
    let alive = |p: &Probe| certain.get(&p.subject).is_some_and(|c| c.alive_at(p.begin, p.end));
    for probe in history.probes.iter().filter(|p| alive(p)) {
        if let Some(of_slot) = live.get_mut(usize::from(probe.slot)) {
            of_slot.push(probe);
        }
    }
    let owed = owed(history, slots);
    let all = live.into_iter().zip(owed);
    all.map(|(probes, owed)| of_node(probes, &owed)).collect()
}

fn of_node(mut probes: Vec<&Probe>, owed: &[Span]) -> Served {
    probes.sort_by_key(|p| p.begin);
    let mut served = Served::default();
    let Some(first) = probes.first() else { return served };
    let last = probes.iter().map(|p| p.end).max().unwrap_or(0);
    served.tried_ns = last - first.begin;
    let during = Span {
        begin: first.begin,
        end: last,
    };
    served.owed_ns = owed.iter().map(|span| common(*span, during)).sum();
    for without in without(&probes, during) {
        served.without_ns += without.end - without.begin;
        for span in owed {
            let length = common(*span, without);
            served.owed_without_ns += length;
            if length > STRETCH_NS_MAX {
                served.too_long.push(Span {
                    begin: span.begin.max(without.begin),
                    end: span.end.min(without.end),
                });
            }
        }
    }
    served
}

/// Stretches without admission: from the end of one that was admitted to the beginning of the next, if one in between was not.
fn without(probes: &[&Probe], during: Span) -> Vec<Span> {
    let (mut spans, mut since, mut refused) = (Vec::new(), during.begin, false);
    for probe in probes {
        if !probe.served {
            refused = true;
            continue;
        }
        if refused && probe.begin > since {
            spans.push(Span {
                begin: since,
                end: probe.begin,
            });
        }
        refused = false;
        since = since.max(probe.end);
    }
    if refused && during.end > since {
        spans.push(Span {
            begin: since,
            end: during.end,
        });
    }
    spans
}

fn common(a: Span, b: Span) -> u64 {
    a.end.min(b.end).saturating_sub(a.begin.max(b.begin))
}

/// When each node had to admit.
fn owed(history: &History, slots: usize) -> Vec<Vec<Span>> {
    let touched = touched(history, slots);
    let mut edges: Vec<u64> = touched.iter().flatten().flat_map(|s| [s.begin, s.end]).collect();
    let members: Vec<Vec<Span>> = (0..slots).map(|slot| membership(history, slot)).collect();
    edges.extend(members.iter().flatten().flat_map(|s| [s.begin, s.end]));
    let stalls: Vec<Span> = history.stalls.iter().map(|s| with_grace(*s)).collect();
    edges.extend(stalls.iter().flat_map(|s| [s.begin, s.end]));
    edges.sort_unstable();
    edges.dedup();
    let mut owed: Vec<Vec<Span>> = vec![Vec::new(); slots];
    for pair in edges.windows(2) {
        let span = Span {
            begin: pair[0],
            end: pair[1],
        };
        let holds = |spans: &[Span]| spans.iter().any(|s| s.begin <= span.begin && span.end <= s.end);
        if holds(&stalls) {
            continue;
        }
        let voters: Vec<usize> = (0..slots).filter(|slot| holds(&members[*slot])).collect();
        let whole: Vec<usize> = voters.iter().copied().filter(|slot| !holds(&touched[*slot])).collect();
        if whole.len() * 2 <= voters.len() {
            continue;
        }
        for slot in whole {
            extend(&mut owed[slot], span);
        }
    }
    owed
}

fn extend(spans: &mut Vec<Span>, span: Span) {
    match spans.last_mut() {
        Some(last) if last.end == span.begin => last.end = span.end,
        _ => spans.push(span),
    }
}

fn touched(history: &History, slots: usize) -> Vec<Vec<Span>> {
    let mut touched: Vec<Vec<Span>> = vec![Vec::new(); slots];
    for fault in &history.faults {
        for slot in &fault.slots {
            if let Some(of_slot) = touched.get_mut(usize::from(*slot)) {
                of_slot.push(with_grace(Span {
                    begin: fault.begin,
                    end: fault.end,
                }));
            }
        }
    }
    // Joining and leaving are faults as well; between a removal and the next joining a place is no member at all.
    touched
}

fn with_grace(span: Span) -> Span {
    Span {
        begin: span.begin,
        end: span.end.saturating_add(GRACE_NS),
    }
}

/// When a place was a member: the first so many from the beginning on. A removal counts from where it was asked for, and a joining
/// from where it was asked for too, because the cluster may have counted on that node from then on.
fn membership(history: &History, slot: usize) -> Vec<Span> {
    let of_slot = history.members.iter().filter(|m| usize::from(m.slot) == slot);
    let mut changes: Vec<_> = of_slot.filter(|m| m.outcome != Outcome::Refused).collect();
    changes.sort_by_key(|m| m.begin);
    let (mut spans, mut since) = (Vec::new(), (slot < usize::from(history.run.nodes)).then_some(0));
    for change in changes {
        match (change.joins, since) {
            (true, None) => since = Some(change.begin),
            (false, Some(begin)) if change.outcome == Outcome::Effective => {
                spans.push(Span { begin, end: change.end });
                since = None;
            }
            (true, Some(_)) | (false, _) => {}
        }
    }
    spans.extend(since.map(|begin| Span { begin, end: u64::MAX }));
    spans
}

#[cfg(test)]
mod tests {
    use super::super::history::{Fault, Kind, Line, Member, Op, Role, Run, Slot, Write};
    use super::super::spans::certain;
    use super::*;

    const S: u64 = 1_000_000_000;

    /// Three nodes and a token that lives; node 0 is tried every half second for a minute and does not admit in `dark`.
    fn history(dark: (u64, u64)) -> History {
        let mut history = History {
            run: Run {
                nodes: 3,
                ..Run::default()
            },
            ..History::default()
        };
        history.add(Line::Write(Write {
            subject: 1,
            op: Op::Mint,
            slot: 0,
            begin: 0,
            end: 1,
            outcome: Outcome::Done,
            status: 201,
            proofs: None,
        }));
        for n in 2..120 {
            let begin = n * S / 2;
            let served = !(dark.0 * S..dark.1 * S).contains(&begin);
            history.add(Line::Probe(Probe {
                id: n,
                slot: 0,
                subject: 1,
                begin,
                end: begin + 1,
                status: if served { 200 } else { 503 },
                served,
            }));
        }
        history
    }

    fn fault(slots: &[Slot], begin: u64, end: u64) -> Line {
        Line::Fault(Fault {
            kind: Kind::Kill,
            role: Role::Leader,
            slots: slots.to_vec(),
            begin: begin * S,
            undone: end * S,
            end: end * S,
            done: true,
            detail: String::new(),
        })
    }

    /// Faults outside the dark time give the edges between which time is looked at.
    fn edges(history: &mut History) {
        history.add(fault(&[2], 0, 1));
        history.add(fault(&[2], 100, 101));
    }

    fn too_long(history: &History) -> usize {
        served(history, &certain(history))[0].too_long.len()
    }

    #[test]
    fn a_node_that_nothing_touches_has_to_admit() {
        for (dark, expected) in [((20, 40), 1), ((20, 24), 0), ((0, 0), 0)] {
            let mut history = history(dark);
            edges(&mut history);
            assert_eq!(too_long(&history), expected, "{dark:?}");
        }
    }

    #[test]
    fn who_is_touched_or_without_a_quorum_is_excused() {
        let excuses: [&[Line]; 4] = [
            &[fault(&[0], 20, 40)],
            &[fault(&[1], 19, 40), fault(&[2], 19, 40)],
            &[Line::Stall(Span {
                begin: 20 * S,
                end: 40 * S,
            })],
            // Of two that are left one is touched.
            &[
                Line::Member(Member {
                    slot: 1,
                    joins: false,
                    begin: 18 * S,
                    end: 19 * S,
                    outcome: Outcome::Effective,
                }),
                fault(&[2], 20, 40),
            ],
        ];
        for excuse in excuses {
            let mut history = history((20, 40));
            edges(&mut history);
            excuse.iter().cloned().for_each(|line| history.add(line));
            assert_eq!(too_long(&history), 0, "{excuse:?}");
        }
    }

    #[test]
    fn one_node_less_than_half_excuses_nobody_else() {
        let mut history = history((20, 40));
        edges(&mut history);
        history.add(fault(&[1], 20, 40));
        let served = served(&history, &certain(&history));
        assert_eq!(served[0].too_long.len(), 1);
        assert!(
            served[0].without_ns > 19 * S && served[0].owed_without_ns > 19 * S,
            "{served:?}"
        );
    }
}
