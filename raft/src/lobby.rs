//! Where whoever connects waits until it has said who it is, and who makes room when many come.
//!
//! A place that is taken by silence must not keep a peer out. So nobody is turned away for want of one: whoever comes last gets a
//! place, and whoever has waited longest without a word gives it up, first among those of the newcomer's own address if that has
//! its share, otherwise among those of the address that has most. An honest handshake takes a few round trips, and is
//! over long before it is the oldest. Addresses from which a peer has come before, and those that the membership names, have a room of
//! their own, so that a flood of strangers is nothing to them.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// Strangers that may be proving who they are at a time, and how many of one address.
const STRANGERS_MAX: usize = 128;
const STRANGERS_SHARE: usize = 8;
/// The same for addresses of peers.
const KNOWN_MAX: usize = 64;
const KNOWN_SHARE: usize = 32;
/// Addresses of peers that are remembered.
const MET_MAX: usize = 64;

/// What counts as one address: an IPv4 address, or an IPv6 network of 64 bits, in which one machine may have as many as it likes.
pub fn address_block(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << 64)).into(),
        ip => ip,
    }
}

/// A room with places to wait in.
pub(crate) struct Room {
    places: usize,
    share: usize,
    waiting: Mutex<Waiting>,
}

/// Who waits, in the order in which they came.
#[derive(Default)]
struct Waiting {
    came: u64,
    all: VecDeque<Sitter>,
}

struct Sitter {
    number: u64,
    address: IpAddr,
    /// `None`: it may stay.
    show_out: Option<oneshot::Sender<()>>,
}

/// Somebody's place. Dropped, it is free.
pub(crate) struct Seat {
    room: Arc<Room>,
    number: u64,
}

/// Resolves when somebody has to make room.
pub(crate) struct ShownOut(oneshot::Receiver<()>);

impl Room {
    pub(crate) fn new(places: usize, share: usize) -> Arc<Room> {
        Arc::new(Room {
            places,
            share,
            waiting: Mutex::default(),
        })
    }

    /// Takes a place, and shows somebody out if there is none. `None`: everybody who could go may stay.
    pub(crate) fn enter(self: &Arc<Room>, from: IpAddr) -> Option<(Seat, ShownOut)> {
        let address = address_block(from);
        let mut waiting = self.waiting();
        let of_its_own = waiting.all.iter().filter(|one| one.address == address).count();
        if of_its_own >= self.share {
            waiting.show_out(address)?;
        } else if waiting.all.len() >= self.places {
            let crowded = waiting.most_crowded()?;
            waiting.show_out(crowded)?;
        }
        waiting.came += 1;
        let (show_out, shown_out) = oneshot::channel();
        let number = waiting.came;
        waiting.all.push_back(Sitter {
            number,
            address,
            show_out: Some(show_out),
        });
        let seat = Seat {
            room: Arc::clone(self),
            number,
        };
        Some((seat, ShownOut(shown_out)))
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// Of the addresses of which somebody can go, the one that has most; of several, the one that came first.
    fn most_crowded(&self) -> Option<IpAddr> {
        let mut by_address: HashMap<IpAddr, usize> = HashMap::new();
        for one in self.all.iter().filter(|one| one.show_out.is_some()) {
            *by_address.entry(one.address).or_default() += 1;
        }
        let most = by_address.values().copied().max()?;
        let mut in_order = self.all.iter().map(|one| one.address);
        in_order.find(|address| by_address.get(address) == Some(&most))
    }

    fn show_out(&mut self, address: IpAddr) -> Option<()> {
        let can_go = |one: &Sitter| one.address == address && one.show_out.is_some();
        let oldest = self.all.iter().position(can_go)?;
        let oldest = self.all.remove(oldest)?;
        // Whoever has left by itself needs no telling.
        oldest.show_out?.send(()).unwrap_or(());
        Some(())
    }
}

impl Seat {
    /// From here on nobody takes the place away.
    pub(crate) fn may_stay(&self) {
        let mut waiting = self.room.waiting();
        if let Some(one) = waiting.all.iter_mut().find(|one| one.number == self.number) {
            one.show_out = None;
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.room.waiting().all.retain(|one| one.number != self.number);
    }
}

impl ShownOut {
    pub(crate) async fn come(self) {
        if self.0.await.is_err() {
            // It may stay.
            std::future::pending().await
        }
    }
}

/// The rooms of the peers' listener.
pub(crate) struct Lobby {
    strangers: Arc<Room>,
    known: Arc<Room>,
    met: Mutex<VecDeque<IpAddr>>,
}

impl Default for Lobby {
    fn default() -> Lobby {
        Lobby {
            strangers: Room::new(STRANGERS_MAX, STRANGERS_SHARE),
            known: Room::new(KNOWN_MAX, KNOWN_SHARE),
            met: Mutex::default(),
        }
    }
}

impl Lobby {
    /// A place for somebody at this address; `named` says whether the membership names it.
    pub(crate) fn enter(&self, from: IpAddr, named: bool) -> Option<(Seat, ShownOut)> {
        let known = named || self.met().contains(&address_block(from));
        if known { &self.known } else { &self.strangers }.enter(from)
    }

    /// Remembers that a peer has come from there.
    pub(crate) fn remember(&self, from: IpAddr) {
        let address = address_block(from);
        let mut met = self.met();
        if met.contains(&address) {
            return;
        }
        if met.len() >= MET_MAX {
            met.pop_front();
        }
        met.push_back(address);
    }

    fn met(&self) -> MutexGuard<'_, VecDeque<IpAddr>> {
        self.met.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// Who is shown out when the last one of these comes, by its place in the order.
    fn shown_out(room: &Arc<Room>, came: &[&str]) -> Vec<usize> {
        let mut all: Vec<(Seat, ShownOut)> = came.iter().map(|from| room.enter(ip(from)).unwrap()).collect();
        let gone = all
            .iter_mut()
            .enumerate()
            .filter_map(|(at, (_, out))| out.0.try_recv().is_ok().then_some(at));
        gone.collect()
    }

    #[test]
    fn whoever_comes_last_gets_a_place_and_the_oldest_of_the_most_crowded_address_gives_it_up() {
        let room = Room::new(4, 3);
        for (came, gone) in [
            (&["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"] as &[&str], vec![]),
            (&["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5"], vec![0]),
            (&["10.0.0.1", "10.0.0.2", "10.0.0.2", "10.0.0.4", "10.0.0.5"], vec![1]),
            (&["10.0.0.1", "10.0.0.2", "10.0.0.2", "10.0.0.2", "10.0.0.2"], vec![1]),
            (
                &["10.0.0.1", "2001:db8::1", "2001:db8::2", "2001:db8::3", "2001:db8::4"],
                vec![1],
            ),
        ] {
            assert_eq!(shown_out(&room, came), gone, "{came:?}");
        }
        assert!(room.waiting().all.is_empty());
    }

    #[test]
    fn whoever_may_stay_is_not_shown_out() {
        let room = Room::new(2, 2);
        let (first, _out) = room.enter(ip("10.0.0.1")).unwrap();
        first.may_stay();
        let (second, mut out) = room.enter(ip("10.0.0.1")).unwrap();
        let (third, _out) = room.enter(ip("10.0.0.2")).unwrap();
        assert!(out.0.try_recv().is_ok(), "the oldest that can go");
        third.may_stay();
        drop(second);
        assert!(room.enter(ip("10.0.0.3")).is_none());
        drop(first);
        assert!(room.enter(ip("10.0.0.3")).is_some());
    }

    #[test]
    fn strangers_do_not_take_the_places_of_those_who_have_come_before() {
        let lobby = Lobby::default();
        lobby.remember(ip("10.0.0.1"));
        let (_seat, mut out) = lobby.enter(ip("10.0.0.1"), false).unwrap();
        let (_named, mut named_out) = lobby.enter(ip("10.0.0.2"), true).unwrap();
        let strangers: Vec<_> = (0..1_000_u32)
            .map(|n| lobby.enter(IpAddr::V4((0x0B00_0000 + n).into()), false).unwrap())
            .collect();
        assert!(out.0.try_recv().is_err() && named_out.0.try_recv().is_err());
        drop(strangers);
        for n in 0..1_000_u32 {
            lobby.remember(IpAddr::V4(n.into()));
        }
        assert_eq!(lobby.met().len(), MET_MAX);
    }
}
