//! `mcpnode child -- COMMAND`: stands between the node and a stdio server and takes the whole family down with it.
//!
//! The server gets its own process group; whatever it leaves behind (npx and uvx start grandchildren) is adopted by this
//! process, the subreaper, and killed with it. It ends when the server ends, when it is told to, and when the node dies,
//! however it dies. Standard input and output are the server's own: not a byte passes through here.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::Context;
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal, kill, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, alarm, getpid, getppid};

use crate::limits;

/// Sent by the kernel when the thread that started us is gone; whether the node is gone too is looked at then.
const PARENT_GONE: Signal = Signal::SIGUSR1;
/// How long a server that is told to leave may take before it is killed, in seconds. Less than the node gives us.
const LEAVE_SECONDS: u32 = 1;
/// Rounds of killing what keeps forking.
const ROUNDS_MAX: usize = 50;

/// Runs `argv` until it ends or the node does, with this soft limit on open files.
pub(crate) fn run(argv: &[String], open_files: Option<u64>) -> anyhow::Result<ExitCode> {
    let node = getppid();
    let signals = watched();
    signals.thread_block().context("cannot block signals")?;
    prctl::set_pdeathsig(PARENT_GONE).context("cannot ask for a parent-death signal")?;
    prctl::set_child_subreaper(true).context("cannot become a subreaper")?;
    // The node may have died before the kernel was asked to say so.
    if getppid() != node {
        return Ok(ExitCode::FAILURE);
    }
    if let Some(open_files) = open_files {
        limits::lower(open_files).context("cannot set the limit on open files")?;
    }
    let (program, args) = argv.split_first().context("no command was given")?;
    let mut command = Command::new(program);
    command.args(args).process_group(0);
    let server = command.spawn().with_context(|| format!("cannot start {program:?}"))?;
    let server = Pid::from_raw(i32::try_from(server.id()).context("a process id fits")?);
    let code = wait_for_the_end(&signals, server, node);
    kill_family(server);
    Ok(code)
}

fn watched() -> SigSet {
    let signals = [
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
        Signal::SIGCHLD,
        Signal::SIGALRM,
        PARENT_GONE,
    ];
    signals.into_iter().collect()
}

/// Until the server has ended, or must. Told to leave, it is told in turn, and has a moment to do so; with the node gone, none.
fn wait_for_the_end(signals: &SigSet, server: Pid, node: Pid) -> ExitCode {
    let mut told = false;
    loop {
        match signals.wait() {
            Ok(Signal::SIGCHLD) => {
                if let Some(code) = reap(server) {
                    return code;
                }
            }
            Ok(signal) if signal == PARENT_GONE && getppid() == node => {}
            Ok(Signal::SIGTERM | Signal::SIGINT | Signal::SIGHUP) if !told => {
                told = true;
                // Whoever is gone already cannot be told, which is what was wanted.
                let _gone = killpg(server, Signal::SIGTERM);
                alarm::set(LEAVE_SECONDS);
            }
            Ok(_) | Err(_) => return ExitCode::FAILURE,
        }
    }
}

/// Collects whoever has ended; the server's end is ours.
fn reap(server: Pid) -> Option<ExitCode> {
    let mut ended = None;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) if pid == server => {
                ended = Some(ExitCode::from(u8::try_from(code).unwrap_or(1)));
            }
            Ok(WaitStatus::Signaled(pid, ..)) if pid == server => ended = Some(ExitCode::FAILURE),
            Ok(WaitStatus::StillAlive) | Err(_) => return ended,
            Ok(_) => {}
        }
    }
}

/// Kills the server's group, then everybody who was left to us, until nobody is.
fn kill_family(server: Pid) {
    // Whoever is gone already cannot be killed, which is what was wanted.
    let _gone = killpg(server, Signal::SIGKILL);
    for _ in 0..ROUNDS_MAX {
        for child in children() {
            let _gone = kill(child, Signal::SIGKILL);
        }
        if waitpid(None, None).is_err() {
            return;
        }
    }
}

/// Our children, adopted ones included.
fn children() -> Vec<Pid> {
    let me = getpid();
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = entries.filter_map(|e| e.ok()?.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| parent_of(*pid) == Some(me))
        .map(Pid::from_raw)
        .collect()
}

fn parent_of(pid: i32) -> Option<Pid> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command's name stands in parentheses and may hold anything; the state and the parent follow the last one.
    let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?;
    parent.parse().ok().map(Pid::from_raw)
}
