//! `mcpnode child`: the whole family ends, however the node does.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{mcpnode, until};

pub(crate) fn alive(pid: i32) -> bool {
    // A zombie is dead: it only waits to be counted.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')')
        .is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

/// A server that leaves a grandchild in its group and another in a session of its own, and tells their pids.
const FAMILY: &str = "sleep 600 & echo $!; setsid sleep 600 & echo $!; echo $$; wait";

/// `sh` plays the node: it starts the child wrapper and waits.
fn node_with_family() -> (Child, Vec<i32>) {
    let script = format!("{} child -- sh -c '{FAMILY}' & wait", mcpnode());
    let mut node = Command::new("sh")
        .args(["-c", &script])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(node.stdout.take().unwrap()).lines();
    let pids = (0..3)
        .map(|_| lines.next().unwrap().unwrap().trim().parse().unwrap())
        .collect();
    (node, pids)
}

#[test]
fn nobody_survives_a_node_that_is_killed() {
    let (mut node, pids) = node_with_family();
    // The one that calls setsid has a pid of its own only once it has done so.
    until("the family lives", || pids.iter().all(|pid| alive(*pid)));
    node.kill().unwrap();
    node.wait().unwrap();
    until("the family is gone", || !pids.iter().any(|pid| alive(*pid)));
}

#[test]
fn nobody_survives_a_server_that_is_stopped() {
    let mut child = Command::new(mcpnode())
        .args(["child", "--", "sh", "-c", FAMILY])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let pids: Vec<i32> = (0..3)
        .map(|_| lines.next().unwrap().unwrap().parse().unwrap())
        .collect();
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGTERM).unwrap();
    child.wait().unwrap();
    until("the family is gone", || !pids.iter().any(|pid| alive(*pid)));
}

#[test]
fn a_server_that_is_stopped_is_told_first_and_has_a_moment() {
    let told = r#"trap 'echo told; exit 0' TERM; echo ready; while :; do sleep 0.02; done"#;
    let deaf = r#"trap '' TERM; echo ready; sleep 600 & echo $!; wait; while :; do sleep 1; done"#;
    for (script, last) in [(told, Some("told")), (deaf, None)] {
        let mut child = Command::new(mcpnode())
            .args(["child", "--", "sh", "-c", script])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "ready");
        let grandchild: Option<i32> = last.is_none().then(|| lines.next().unwrap().unwrap().parse().unwrap());
        kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGTERM).unwrap();
        child.wait().unwrap();
        assert_eq!(lines.next().map(Result::unwrap).as_deref(), last);
        if let Some(grandchild) = grandchild {
            until("the grandchild is gone", || !alive(grandchild));
        }
    }
}

#[test]
fn the_wrapper_passes_bytes_and_the_exit_code() {
    let mut child = Command::new(mcpnode())
        .args(["child", "--", "sh", "-c", "read line; echo \"got $line\"; exit 7"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"hello\n").unwrap();
    let mut out = String::new();
    child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    assert_eq!(out, "got hello\n");
    assert_eq!(child.wait().unwrap().code(), Some(7));
}

#[test]
fn a_command_that_does_not_exist_is_named() {
    let out = Command::new(mcpnode())
        .args(["child", "--", "/does/not/exist"])
        .output()
        .unwrap();
    assert!(!out.status.success());
    assert!(String::from_utf8_lossy(&out.stderr).contains("/does/not/exist"));
}
