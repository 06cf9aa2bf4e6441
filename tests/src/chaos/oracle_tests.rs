use super::super::history::{Fault, Hit, Line, Member, Proofs, Run, Slot, Span, What};
use super::*;

const MS: u64 = 1_000_000;

fn write(op: Op, begin: u64, end: u64, outcome: Outcome) -> Line {
    Line::Write(Write {
        subject: 1,
        op,
        slot: 0,
        begin: begin * MS,
        end: end * MS,
        outcome,
        status: 200,
        proofs: Some(Proofs::default()),
    })
}

fn probe(id: u64, begin: u64, status: u16, served: bool) -> Line {
    Line::Probe(Probe {
        id,
        slot: 2,
        subject: 1,
        begin: begin * MS,
        end: (begin + 5) * MS,
        status,
        served,
    })
}

fn shown(slot: Slot, there: bool) -> Line {
    Line::Shown(Shown {
        slot,
        subject: 1,
        what: What::Token,
        there,
    })
}

/// One token that was minted at 10 and revoked at 100, and what else happened.
fn judged(more: impl IntoIterator<Item = Line>) -> Judgement {
    let mut history = History {
        run: Run {
            nodes: 3,
            ..Run::default()
        },
        ..History::default()
    };
    history.add(write(Op::Mint, 1, 10, Outcome::Done));
    history.add(write(Op::Revoke, 90, 100, Outcome::Effective));
    more.into_iter().for_each(|line| history.add(line));
    judge(&history)
}

fn names(judgement: &Judgement) -> Vec<&'static str> {
    let name = |v: &Violation| match v {
        Violation::Admitted(_) => "admitted",
        Violation::Reached(_) => "reached",
        Violation::CalledDead(_) => "called dead",
        Violation::Lost(_) => "lost",
        Violation::Unavailable(_) => "unavailable",
    };
    judgement.violations.iter().map(name).collect()
}

#[test]
fn what_is_sent_after_the_acknowledgement_must_not_be_admitted() {
    let none: [&str; 0] = [];
    for (line, expected) in [
        (probe(1, 20, 200, true), &none[..]),
        (probe(1, 95, 200, true), &none),
        (probe(1, 100, 200, true), &none),
        (probe(1, 101, 200, true), &["admitted"]),
        (probe(1, 101, 200, false), &["admitted"]),
        (probe(1, 101, 401, false), &none),
        (probe(1, 101, 503, false), &none),
        (probe(1, 101, 0, false), &none),
    ] {
        assert_eq!(names(&judged([line.clone()])), expected, "{line:?}");
    }
}

#[test]
fn a_probe_that_was_never_answered_must_not_have_reached_the_server() {
    let hit = |at| Line::Hit(Hit { probe: 1, at: at * MS });
    assert_eq!(names(&judged([probe(1, 101, 0, false), hit(500)])), ["reached"]);
    // Sent before the acknowledgement: a frozen process may complete its write when it wakes.
    assert!(judged([probe(1, 95, 0, false), hit(500)]).violations.is_empty());
}

#[test]
fn a_revoke_that_was_not_acknowledged_promises_nothing() {
    for outcome in [Outcome::Pending, Outcome::Unknown, Outcome::Refused] {
        let mut history = History::default();
        history.add(write(Op::Mint, 1, 10, Outcome::Done));
        history.add(write(Op::Revoke, 90, 100, outcome));
        history.add(probe(1, 101, 200, true));
        assert!(judge(&history).violations.is_empty(), "{outcome:?}");
    }
}

#[test]
fn a_user_whose_right_is_gone_reaches_no_tool_and_may_be_told_so_with_200() {
    let with = |op, line| {
        let mut history = History::default();
        history.add(write(Op::Mint, 1, 10, Outcome::Done));
        history.add(write(op, 90, 100, Outcome::Effective));
        history.add(line);
        names(&judge(&history)).len()
    };
    assert_eq!(with(Op::DeleteRbac, probe(1, 101, 200, false)), 0);
    assert_eq!(with(Op::DeleteRbac, probe(1, 101, 200, true)), 1);
    assert_eq!(with(Op::DisableUser, probe(1, 101, 200, false)), 1);
}

#[test]
fn a_live_token_must_not_be_called_dead() {
    for (begin, status, expected) in [
        (20, 401, 1),
        (20, 403, 1),
        (20, 503, 0),
        (20, 429, 0),
        (88, 401, 0),
        (3, 401, 0),
    ] {
        let judgement = judged([probe(1, begin, status, false)]);
        assert_eq!(names(&judgement), vec!["called dead"; expected], "{begin} {status}");
    }
    let Line::Write(refused) = write(Op::Revoke, 60, 70, Outcome::Refused) else {
        return;
    };
    let refused = Write { status: 401, ..refused };
    assert_eq!(
        names(&judged([Line::Write(refused)])),
        ["called dead"],
        "the session is alive"
    );
}

#[test]
fn what_was_acknowledged_must_be_shown_by_every_node() {
    let end = || Line::End(Span { begin: 0, end: 1 });
    let all = |there: [bool; 3]| (0..3).map(move |slot| shown(slot, there[usize::from(slot)]));
    assert!(judged(all([false; 3]).chain([end()])).violations.is_empty());
    assert_eq!(names(&judged(all([false, true, false]).chain([end()]))), ["lost"]);
    assert_eq!(
        names(&judged([shown(0, false), shown(1, false), end()])),
        ["lost"],
        "not read everywhere"
    );
    // Without the revoke it must be there.
    let mut history = History::default();
    history.add(write(Op::Mint, 1, 10, Outcome::Done));
    history.add(shown(0, false));
    assert_eq!(names(&judge(&history)), ["lost"]);
    // A revoke that was never answered may have come or not.
    history.add(write(Op::Revoke, 20, 30, Outcome::Unknown));
    assert!(judge(&history).violations.is_empty());
}

#[test]
fn a_removed_node_admits_nobody() {
    let removed = |outcome| {
        Line::Member(Member {
            slot: 2,
            joins: false,
            begin: 20 * MS,
            end: 30 * MS,
            outcome,
        })
    };
    assert_eq!(
        names(&judged([removed(Outcome::Effective), probe(1, 40, 200, true)])),
        ["admitted"]
    );
    assert!(
        judged([removed(Outcome::Unknown), probe(1, 40, 200, true)])
            .violations
            .is_empty()
    );
    let rejoined = Line::Member(Member {
        slot: 2,
        joins: true,
        begin: 35 * MS,
        end: 60 * MS,
        outcome: Outcome::Done,
    });
    assert!(
        judged([removed(Outcome::Effective), rejoined, probe(1, 40, 200, true)])
            .violations
            .is_empty()
    );
}

/// Two minutes in which everything that is wanted happened.
fn enough() -> History {
    let mut history = History {
        run: Run {
            nodes: 1,
            minutes: 2,
            ..Run::default()
        },
        ..History::default()
    };
    for n in 0..400 {
        let Line::Write(revoke) = write(Op::Revoke, n, n + 1, Outcome::Effective) else {
            continue;
        };
        history.add(Line::Write(Write {
            subject: u32::try_from(n).unwrap(),
            ..revoke
        }));
    }
    for n in 0..700 {
        let Line::Probe(probe) = probe(n, 1, 503, false) else {
            continue;
        };
        history.add(Line::Probe(Probe { slot: 0, ..probe }));
    }
    for n in 0..2 * Kind::ALL.len() {
        history.add(Line::Fault(Fault {
            kind: Kind::ALL[n % Kind::ALL.len()],
            role: if n % 2 == 0 { Role::Leader } else { Role::Follower },
            slots: vec![0],
            begin: 0,
            undone: 1,
            end: 1,
            done: true,
            detail: String::new(),
        }));
    }
    history.end = Some(Span { begin: 0, end: 1 });
    history
}

#[test]
fn a_run_in_which_too_little_happened_is_void() {
    assert_eq!(void(&enough()), Vec::<String>::new());
    type Spoil = fn(&mut History);
    let cases: [(&str, Spoil); 6] = [
        ("end", |h| h.end = None),
        ("revokes", |h| h.writes.truncate(100)),
        ("pause", |h| h.faults.retain(|f| f.kind != Kind::Pause)),
        ("faults", |h| h.faults.truncate(12)),
        ("leader", |h| h.faults.iter_mut().for_each(|f| f.role = Role::Follower)),
        ("probed", |h| h.probes.truncate(10)),
    ];
    for (word, spoil) in cases {
        let mut history = enough();
        spoil(&mut history);
        let why = void(&history);
        assert!(why.iter().any(|w| w.contains(word)), "{word}: {why:?}");
    }
}

#[test]
fn a_fault_that_could_not_be_made_does_not_count() {
    let mut history = enough();
    history
        .faults
        .iter_mut()
        .filter(|f| f.kind == Kind::Kill)
        .for_each(|f| f.done = false);
    assert!(void(&history).iter().any(|w| w.contains("kill -9 happened 0 times")));
}

#[test]
fn a_violation_outweighs_a_void_run() {
    let judgement = judged([probe(1, 101, 200, true)]);
    assert!(!judgement.void.is_empty());
    assert_eq!(judgement.word(), "fail");
}
