//! Slows down whoever guesses passwords: by user and address, so that nobody is locked out by somebody else.
//!
//! No clock: callers pass now.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use crate::limits::{LOGIN_ENTRIES_MAX, LOGIN_FAILURES_FREE, LOGIN_FORGET_MS, LOGIN_PENALTY_MS_MAX};

/// Failed logins of late.
#[derive(Debug, Default)]
pub(crate) struct Throttle {
    entries: Mutex<HashMap<Key, Failures>>,
}

type Key = (String, Option<IpAddr>);

#[derive(Debug, Clone, Copy)]
struct Failures {
    count: u32,
    last_ms: u64,
}

impl Throttle {
    /// Counts an attempt as failed until [`Throttle::succeeded`] says otherwise, so that attempts at the same time count too.
    /// `Err`: not now, but in so many milliseconds.
    pub(crate) fn attempt(&self, email: &str, from: Option<IpAddr>, now_ms: u64) -> Result<(), u64> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let key = key(email, from);
        let known = entries
            .get(&key)
            .copied()
            .filter(|f| now_ms.saturating_sub(f.last_ms) < LOGIN_FORGET_MS);
        let count = known.map_or(0, |f| f.count);
        let wait_until = known.map_or(0, |f| f.last_ms + penalty_ms(count));
        if wait_until > now_ms {
            return Err(wait_until - now_ms);
        }
        if entries.len() >= LOGIN_ENTRIES_MAX && !entries.contains_key(&key) {
            make_room(&mut entries, now_ms);
        }
        let count = count.saturating_add(1);
        entries.insert(key, Failures { count, last_ms: now_ms });
        Ok(())
    }

    /// Forgets the failures: the password was right.
    pub(crate) fn succeeded(&self, email: &str, from: Option<IpAddr>) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.remove(&key(email, from));
    }
}

/// One IPv6 subscriber has a whole /64.
fn key(email: &str, from: Option<IpAddr>) -> Key {
    let from = from.map(|ip| match ip.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & !u128::from(u64::MAX)).into()),
    });
    (email.to_ascii_lowercase(), from)
}

/// One second after the free ones, then twice as long each time.
fn penalty_ms(count: u32) -> u64 {
    let Some(over) = count.checked_sub(LOGIN_FAILURES_FREE) else {
        return 0;
    };
    (1_000u64 << over.min(16)).min(LOGIN_PENALTY_MS_MAX)
}

fn make_room(entries: &mut HashMap<Key, Failures>, now_ms: u64) {
    entries.retain(|_, f| now_ms.saturating_sub(f.last_ms) < LOGIN_FORGET_MS);
    if entries.len() < LOGIN_ENTRIES_MAX {
        return;
    }
    let oldest = entries
        .iter()
        .min_by_key(|(_, f)| (f.count, f.last_ms))
        .map(|(key, _)| key.clone());
    if let Some(oldest) = oldest {
        entries.remove(&oldest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));
    const THERE: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)));

    #[test]
    fn guessing_gets_slower_for_one_user_from_one_address_only() {
        let throttle = Throttle::default();
        for _ in 0..LOGIN_FAILURES_FREE {
            assert_eq!(throttle.attempt("a@x", HERE, 0), Ok(()));
        }
        assert_eq!(throttle.attempt("A@x", HERE, 0), Err(1_000));
        assert_eq!(throttle.attempt("a@x", THERE, 0), Ok(()));
        assert_eq!(throttle.attempt("b@x", HERE, 0), Ok(()));
        assert_eq!(throttle.attempt("a@x", HERE, 1_000), Ok(()));
        assert_eq!(throttle.attempt("a@x", HERE, 1_000), Err(2_000));
        throttle.succeeded("a@x", HERE);
        assert_eq!(throttle.attempt("a@x", HERE, 1_000), Ok(()));
    }

    #[test]
    fn the_penalty_has_a_limit_and_failures_are_forgotten() {
        let throttle = Throttle::default();
        let mut now = 0;
        for _ in 0..50 {
            if let Err(wait) = throttle.attempt("a@x", HERE, now) {
                assert!(wait <= LOGIN_PENALTY_MS_MAX);
                now += wait;
            }
        }
        now += LOGIN_FORGET_MS;
        for _ in 0..LOGIN_FAILURES_FREE {
            assert_eq!(throttle.attempt("a@x", HERE, now), Ok(()));
        }
    }

    #[test]
    fn what_is_remembered_has_a_limit() {
        let throttle = Throttle::default();
        for n in 0..LOGIN_ENTRIES_MAX + 10 {
            throttle.attempt(&format!("{n}@x"), HERE, 0).unwrap();
        }
        assert_eq!(throttle.entries.lock().unwrap().len(), LOGIN_ENTRIES_MAX);
    }
}
