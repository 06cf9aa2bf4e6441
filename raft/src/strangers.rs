//! What the log says of those who are turned away: the first at once, then how many there were, so that nobody fills a disk by
//! knocking.

use std::fmt::Display;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use mcp_model::clock::{Clock, Reading};

/// At most one line in this time, ms.
const EVERY_MS: u64 = 10_000;

/// Who was turned away lately.
pub struct Strangers {
    who: &'static str,
    state: Mutex<State>,
}

impl Default for Strangers {
    fn default() -> Strangers {
        Strangers::who_are("a peer")
    }
}

#[derive(Default)]
struct State {
    told: Option<Reading>,
    untold: u64,
}

impl Strangers {
    /// Nobody yet, and what the log calls them.
    pub fn who_are(who: &'static str) -> Strangers {
        Strangers {
            who,
            state: Mutex::default(),
        }
    }

    /// Notes that somebody was turned away, and says so if it is time.
    pub fn turned_away(&self, clock: &dyn Clock, from: IpAddr, why: &dyn Display) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = clock.reading();
        if state.told.is_some_and(|told| now.ms_since(told) < EVERY_MS) {
            state.untold += 1;
            return;
        }
        let unmentioned = std::mem::take(&mut state.untold);
        state.told = Some(now);
        tracing::warn!(%from, %why, unmentioned, "{} was turned away", self.who);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[derive(Default)]
    struct Hand(AtomicU64);

    impl Clock for Hand {
        fn reading(&self) -> Reading {
            Reading::both_ms(self.0.load(Ordering::Relaxed))
        }

        fn wall_ms(&self) -> u64 {
            0
        }
    }

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_flood_of_strangers_is_one_line_and_then_a_number() {
        let (clock, strangers, lines) = (Hand::default(), Strangers::default(), Lines::default());
        let into = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || into.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            for _ in 0..1_000 {
                strangers.turned_away(&clock, [10, 0, 0, 9].into(), &"certificate expired");
            }
            clock.0.store(EVERY_MS + 1, Ordering::Relaxed);
            strangers.turned_away(&clock, [10, 0, 0, 9].into(), &"certificate expired");
        });
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        let told: Vec<&str> = text.lines().collect();
        assert_eq!(told.len(), 2, "{text}");
        assert!(
            told[0].contains("10.0.0.9") && told[0].contains("certificate expired"),
            "{text}"
        );
        assert!(told[1].contains("unmentioned=999"), "{text}");
    }
}
