//! What the log says of those who are turned away: the first at once, then how many there were, so that nobody fills a disk by
//! knocking.

use std::fmt::Display;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use mcp_model::clock::{Clock, Reading};

/// At most one line in this time, ms.
const EVERY_MS: u64 = 10_000;

/// Who was turned away lately.
#[derive(Default)]
pub(crate) struct Strangers(Mutex<State>);

#[derive(Default)]
struct State {
    told: Option<Reading>,
    untold: u64,
}

impl Strangers {
    /// Notes that somebody was turned away, and says so if it is time.
    pub(crate) fn turned_away(&self, clock: &dyn Clock, from: IpAddr, why: &dyn Display) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = clock.reading();
        if state.told.is_some_and(|told| now.ms_since(told) < EVERY_MS) {
            state.untold += 1;
            return;
        }
        let unmentioned = std::mem::take(&mut state.untold);
        state.told = Some(now);
        tracing::warn!(%from, %why, unmentioned, "a peer was turned away");
    }
}
