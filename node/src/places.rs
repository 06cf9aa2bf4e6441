//! How many connections a listener holds, and how many of them one address may have.
//!
//! A connection costs a descriptor and some memory, whoever opens it and whatever it is for. So there is a limit, a share of it for
//! each address (for IPv6 each network of 64 bits, which is what one customer gets), and when few places are left, whoever only
//! keeps one for later loses it. Trusted proxies speak for many and have no share.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipnet::IpNet;
use mcp_raft::address_block;
use tokio::sync::watch;

/// One address has at most this part of the places.
const SHARES: usize = 4;

/// How it stands with a listener, from good to bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Mood {
    /// There is room.
    Easy,
    /// Few places are left: who asks nothing does not keep one.
    Short,
    /// The listener closes.
    Closing,
}

/// Why somebody got no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// All places are taken.
    Full,
    /// The address has its share.
    Share,
}

/// The places of one listener.
pub(crate) struct Places {
    max: usize,
    share: usize,
    trusted: Arc<[IpNet]>,
    taken: Mutex<Taken>,
    mood: watch::Sender<Mood>,
    refused_full: AtomicU64,
    refused_share: AtomicU64,
}

#[derive(Default)]
struct Taken {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

impl Places {
    /// `max` places, of which each address that is not trusted may have a quarter.
    pub(crate) fn new(max: usize, trusted: Arc<[IpNet]>) -> Arc<Places> {
        Arc::new(Places {
            max,
            share: (max / SHARES).max(1),
            trusted,
            taken: Mutex::default(),
            mood: watch::Sender::new(Mood::Easy),
            refused_full: AtomicU64::new(0),
            refused_share: AtomicU64::new(0),
        })
    }

    /// Takes a place for somebody at this address.
    pub(crate) fn take(self: &Arc<Places>, from: IpAddr) -> Result<Place, Refused> {
        let address = address_block(from);
        let trusted = self.trusted.iter().any(|net| net.contains(&from.to_canonical()));
        let mut taken = self.taken();
        let has = taken.by_address.get(&address).copied().unwrap_or(0);
        if taken.all >= self.max {
            self.refused_full.fetch_add(1, Ordering::Relaxed);
            return Err(Refused::Full);
        }
        if has >= self.share && !trusted {
            self.refused_share.fetch_add(1, Ordering::Relaxed);
            return Err(Refused::Share);
        }
        taken.all += 1;
        taken.by_address.insert(address, has + 1);
        self.feel(taken.all);
        Ok(Place {
            of: Arc::clone(self),
            address,
        })
    }

    /// How it stands, to wait on.
    pub(crate) fn mood(&self) -> watch::Receiver<Mood> {
        self.mood.subscribe()
    }

    /// The listener closes. Resolves when nobody is interested in the mood any more.
    pub(crate) async fn close(&self) {
        self.mood.send_replace(Mood::Closing);
        self.mood.closed().await;
    }

    /// Proxies that speak for others.
    pub(crate) fn trusted(&self) -> &[IpNet] {
        &self.trusted
    }

    /// Places that there are.
    pub(crate) fn max(&self) -> usize {
        self.max
    }

    /// Places that are taken.
    pub(crate) fn open(&self) -> usize {
        self.taken().all
    }

    /// How many got none, and why.
    pub(crate) fn refused(&self, why: Refused) -> u64 {
        match why {
            Refused::Full => self.refused_full.load(Ordering::Relaxed),
            Refused::Share => self.refused_share.load(Ordering::Relaxed),
        }
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Short from seven eighths on, easy again below three quarters: between them it stays as it is.
    fn feel(&self, all: usize) {
        let now = match () {
            () if all * 8 >= self.max * 7 => Mood::Short,
            () if all * 4 < self.max * 3 => Mood::Easy,
            () => return,
        };
        self.mood.send_if_modified(|mood| {
            let changes = *mood != now && *mood != Mood::Closing;
            if changes {
                *mood = now;
            }
            changes
        });
    }

    fn give_back(&self, address: IpAddr) {
        let mut taken = self.taken();
        taken.all -= 1;
        if let Some(has) = taken.by_address.get_mut(&address) {
            *has -= 1;
            if *has == 0 {
                taken.by_address.remove(&address);
            }
        }
        self.feel(taken.all);
    }
}

/// A place of somebody. Dropped, it is free.
pub(crate) struct Place {
    of: Arc<Places>,
    address: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.of.give_back(self.address);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_address_gets_a_quarter_and_all_of_them_no_more_than_there_are() {
        let places = Places::new(16, vec!["10.0.0.0/8".parse().unwrap()].into());
        let take = |from: &str| places.take(ip(from));
        let mut held: Vec<Place> = (0..4).map(|_| take("192.0.2.1").unwrap()).collect();
        assert_eq!(take("192.0.2.1").err(), Some(Refused::Share));
        assert_eq!(take("::ffff:192.0.2.1").err(), Some(Refused::Share), "the same address");
        held.extend((0..4).map(|n| take(&format!("2001:db8::{n}")).unwrap()));
        assert_eq!(take("2001:db8::99").err(), Some(Refused::Share), "the same network");
        held.extend((0..8).map(|_| take("10.0.0.1").unwrap()));
        assert_eq!(take("198.51.100.1").err(), Some(Refused::Full));
        assert_eq!(
            take("10.0.0.1").err(),
            Some(Refused::Full),
            "a proxy gets no more than there is"
        );
        assert_eq!((places.refused(Refused::Full), places.refused(Refused::Share)), (2, 3));
        drop(held.remove(0));
        held.push(take("192.0.2.1").unwrap());
        held.clear();
        assert_eq!(places.open(), 0);
        assert!(places.taken().by_address.is_empty(), "nothing is kept of who is gone");
    }

    #[test]
    fn places_are_short_before_they_are_gone_and_not_at_every_turn() {
        let places = Places::new(16, Arc::default());
        let mood = places.mood();
        let mut held: Vec<Place> = Vec::new();
        let mut at = |wanted: usize| {
            held.truncate(wanted);
            while held.len() < wanted {
                held.push(places.take(ip(&format!("192.0.2.{}", held.len()))).unwrap());
            }
            *mood.borrow()
        };
        assert_eq!(
            [at(13), at(14), at(16), at(12), at(11), at(13)].map(|m| m == Mood::Short),
            [false, true, true, true, false, false]
        );
    }
}
