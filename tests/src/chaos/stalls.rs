//! When the machine was too busy for anything to be said about availability: this process was not run for a while, or far more
//! was ready to run than there are cores. Then the nodes were not run either, and leases of two seconds run out for no fault of theirs.

use std::sync::Arc;
use std::time::Duration;

use super::history::{Line, Span};
use super::world::World;
use crate::clock::now_ns;

const TICK: Duration = Duration::from_millis(50);
/// Longest time between two ticks.
const LATE_NS: u64 = 700_000_000;
/// Most that may be ready to run, per core, on average over about a second.
const READY_PER_CORE: f64 = 6.0;
/// The weight of one tick in that average.
const WEIGHT: f64 = 0.05;
/// A longer time is written down in pieces, so that a run that breaks off has them.
const PIECE_NS: u64 = 5_000_000_000;

/// Writes such times down until the run stops.
pub(super) async fn watch(world: Arc<World>) {
    let most = READY_PER_CORE * std::thread::available_parallelism().map_or(1.0, |cores| cores.get() as f64);
    let (mut last, mut ready, mut since) = (now_ns(), 0.0, None);
    while !world.is_stopping() {
        tokio::time::sleep(TICK).await;
        let now = now_ns();
        if now - last > LATE_NS {
            note(&world, last, now);
        }
        last = now;
        ready += (ready_to_run().unwrap_or(0.0) - ready) * WEIGHT;
        match (ready > most, since) {
            (true, None) => since = Some(now),
            (true, Some(begin)) if now - begin > PIECE_NS => {
                note(&world, begin, now);
                since = Some(now);
            }
            (false, Some(begin)) => {
                note(&world, begin, now);
                since = None;
            }
            (true, Some(_)) | (false, None) => {}
        }
    }
    if let Some(begin) = since {
        note(&world, begin, now_ns());
    }
}

fn note(world: &World, begin: u64, end: u64) {
    world.recorder.record(Line::Stall(Span { begin, end }));
}

/// How many threads of the whole machine run or could.
fn ready_to_run() -> Option<f64> {
    of(&std::fs::read_to_string("/proc/loadavg").ok()?)
}

/// The fourth field is that number, and that of all threads behind a slash.
fn of(loadavg: &str) -> Option<f64> {
    let (ready, _all) = loadavg.split_whitespace().nth(3)?.split_once('/')?;
    ready.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_those_who_could_run_is_read() {
        assert_eq!(of("35.76 43.60 42.10 31/1414 6091\n"), Some(31.0));
        assert!(ready_to_run().is_some_and(|ready| ready >= 1.0));
    }
}
