//! The program itself: what a person starts, and what must not outlive it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod child;
mod cluster;
mod dev;
mod lists;
mod machines;
mod restore;
mod restrictions;
mod rights;
mod routes;
mod starts;
mod states;
mod stdio;

use std::time::Duration;

/// How long anything may take before a test gives up.
const LIMIT: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(20);

fn mcpnode() -> &'static str {
    env!("CARGO_BIN_EXE_mcpnode")
}

/// Waits for a stated condition, with a limit.
fn until(what: &str, mut done: impl FnMut() -> bool) {
    let (_tx, never) = std::sync::mpsc::channel::<()>();
    for _ in 0..LIMIT.as_millis() / LOOK_EVERY.as_millis() {
        if done() {
            return;
        }
        // Nothing is ever sent: this is a pause.
        assert!(never.recv_timeout(LOOK_EVERY).is_err());
    }
    panic!("not within {LIMIT:?}: {what}");
}
