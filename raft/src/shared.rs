//! What the tasks of a node share.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use mcp_model::clock::{Clock, Reading};
use mcp_model::ids::NodeId;
use mcp_model::records::Retirement;
use mcp_model::tables;
use mcp_model::timers::Timers;
use mcp_store::Replica;
use tokio::sync::{mpsc, watch};

use crate::compare::Compare;
use crate::disk::DiskLimits;
use crate::door::Doorkeeper;
use crate::link::Link;
use crate::lobby::{Lobby, Room};
use crate::logs::Logs;
use crate::mender::Mender;
use crate::messenger::Listener;
use crate::network::Links;
use crate::office::Office;
use crate::reach::Reach;
use crate::removal::Removal;
use crate::strangers::Strangers;
use crate::tls::PeerTls;
use crate::types::{Metrics, Peer, Raft, Stored};
use crate::write::Queued;

/// Retired nodes that are read at a time.
const RETIRED_PER_SCAN: usize = 1_000;

/// When a leader was last heard.
#[derive(Default)]
pub(crate) struct Heard(Mutex<Reading>);

impl Heard {
    pub(crate) fn now(&self, clock: &dyn Clock) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = clock.reading();
    }

    pub(crate) fn get(&self) -> Reading {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the tasks of a node share.
pub(crate) struct Core {
    pub(crate) me: NodeId,
    pub(crate) cluster: String,
    pub(crate) raft: Raft,
    pub(crate) replica: Arc<Replica>,
    pub(crate) logs: Logs,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) timers: Timers,
    pub(crate) metrics: watch::Receiver<Metrics>,
    /// The membership that was last applied.
    pub(crate) membership: watch::Receiver<Stored>,
    pub(crate) office: Office,
    pub(crate) heard: Heard,
    /// When this node last gave its vote away.
    pub(crate) voted: Heard,
    pub(crate) reach: Reach,
    pub(crate) batches: mpsc::Sender<Queued>,
    pub(crate) tls: PeerTls,
    pub(crate) strangers: Strangers,
    /// Places for whoever has not said yet who it is.
    pub(crate) lobby: Lobby,
    /// Places for machines that ask to be let in.
    pub(crate) guests: Arc<Room>,
    pub(crate) doorkeeper: OnceLock<Arc<dyn Doorkeeper>>,
    pub(crate) listener: OnceLock<Arc<dyn Listener>>,
    /// How far this node's removal has come.
    pub(crate) removal: watch::Sender<Removal>,
    pub(crate) links: Links,
    pub(crate) mender: Arc<Mender>,
    pub(crate) compare: Arc<Compare>,
    pub(crate) disk: DiskLimits,
    pub(crate) free_bytes: Arc<dyn Fn() -> Option<u64> + Send + Sync>,
    /// Held while a node that lost its log is let go or taken back.
    pub(crate) readmitting: tokio::sync::Mutex<()>,
    /// On which timers leases rest here.
    pub(crate) lease: String,
    /// Whether a node with other timers has come, which is said once.
    pub(crate) stranger_lease: AtomicBool,
    /// Whether the last renewal that came was refused because this node does not lead.
    pub(crate) refuses_renewals: AtomicBool,
    /// What is wrong with this node's stores, in words for people.
    pub(crate) wrong: Mutex<Vec<String>>,
    pub(crate) fit: AtomicBool,
    pub(crate) renewing: AtomicBool,
    pub(crate) leaving: AtomicBool,
    pub(crate) stop: watch::Sender<bool>,
    pub(crate) random: Arc<dyn Fn() -> u64 + Send + Sync>,
}

impl Core {
    /// Who leads. A node that knows its own disk to be bad does not count itself.
    pub(crate) fn leader(&self) -> Option<NodeId> {
        let leader = self.metrics.borrow().current_leader.map(NodeId)?;
        if leader == self.me && (self.office.term().is_none() || !self.is_fit()) {
            return None;
        }
        Some(leader)
    }

    /// Resolves when somebody else leads, or nobody.
    pub(crate) async fn leader_changed(&self) {
        let mut metrics = self.metrics.clone();
        let before = metrics.borrow_and_update().current_leader;
        // The core is gone only when the node is.
        if metrics.wait_for(|m| m.current_leader != before).await.is_err() {
            std::future::pending().await
        }
    }

    pub(crate) fn link(&self, node: NodeId) -> Option<Arc<Link>> {
        let appended = self.metrics.borrow().membership_config.clone();
        let applied = self.membership.borrow().clone();
        let peer = appended
            .membership()
            .get_node(&node.0)
            .or_else(|| applied.membership().get_node(&node.0))?;
        Some(self.links.to(node, &peer.address))
    }

    pub(crate) fn is_applied_member(&self, node: NodeId) -> bool {
        self.membership.borrow().membership().get_node(&node.0).is_some()
    }

    /// Whether the appended configuration has it.
    pub(crate) fn is_appended_member(&self, node: NodeId) -> bool {
        let appended = &self.metrics.borrow().membership_config;
        appended.membership().get_node(&node.0).is_some()
    }

    /// Whether the appended or the applied configuration has it.
    pub(crate) fn is_member(&self, node: NodeId) -> bool {
        self.is_appended_member(node) || self.is_applied_member(node)
    }

    /// Whether the membership names this address. Members that it names by a host name are known once they have come.
    pub(crate) fn names_address(&self, ip: IpAddr) -> bool {
        let named = |peer: &Peer| {
            peer.address
                .parse::<SocketAddr>()
                .is_ok_and(|at| at.ip() == ip.to_canonical())
        };
        let metrics = self.metrics.borrow();
        metrics.membership_config.nodes().any(|(_, peer)| named(peer))
    }

    /// Whoever was removed and may still hold a lease. `None`: the state cannot be read, and the gate is shut.
    pub(crate) fn retired(&self) -> Option<Vec<NodeId>> {
        let read = self.replica.read(|t| {
            let mut retired: Vec<NodeId> = Vec::new();
            loop {
                let after = retired.last().map(|node| node.0.to_be_bytes());
                let some = tables::list::<Retirement>(t, after.as_ref().map(<[u8; 8]>::as_slice), RETIRED_PER_SCAN);
                retired.extend(some.iter().map(|r| r.id));
                if some.len() < RETIRED_PER_SCAN {
                    return retired;
                }
            }
        });
        read.ok()
    }

    /// Whether a node was removed. `None`: the state cannot be read, so nobody can say.
    pub(crate) fn was_removed(&self, node: NodeId) -> Option<bool> {
        let read = self
            .replica
            .read(|t| tables::load::<Retirement>(t, &node.0.to_be_bytes()).is_some());
        read.ok()
    }

    /// Whether this node's disk is good enough to lead.
    pub(crate) fn is_fit(&self) -> bool {
        let removed = self.replica.gate().is_removed();
        self.fit.load(Ordering::Acquire) && !self.leaving.load(Ordering::Acquire) && !removed
    }

    /// From here on nothing that this node sends keeps the others loyal to it.
    pub(crate) fn leave(&self) {
        self.leaving.store(true, Ordering::Release);
        self.raft.runtime_config().heartbeat(false);
    }

    /// The opposite.
    pub(crate) fn stay(&self) {
        self.leaving.store(false, Ordering::Release);
        self.raft.runtime_config().heartbeat(self.is_fit());
    }

    /// Whether this node still asks for leases: not once it has begun to stop.
    pub(crate) fn is_renewing(&self) -> bool {
        self.renewing.load(Ordering::Acquire)
    }

    /// Why this node must not lead, as far as its stores are known. A state of which nobody can say whether it is right does not keep it from
    /// that, or there might be nobody to have it compared.
    pub(crate) fn why_unfit(&self) -> Option<String> {
        let gate = self.replica.gate();
        let why = gate.why_shut()?;
        (self.compare.differs() || gate.why_doubted().as_ref() != Some(&why)).then_some(why)
    }

    /// Notes what is wrong with this node's stores. Anything at all, and it does not lead.
    pub(crate) fn set_wrong(&self, wrong: Vec<String>) {
        let fit = wrong.is_empty();
        if self.fit.swap(fit, Ordering::AcqRel) != fit {
            // Without heartbeats the others elect somebody else.
            self.raft.runtime_config().heartbeat(self.is_fit());
            tracing::warn!(fit, why = wrong.join("; "), "whether this node may lead");
        }
        *self.wrong.lock().unwrap_or_else(PoisonError::into_inner) = wrong;
    }

    pub(crate) fn tidy_ledger(&self) {
        let known: BTreeSet<NodeId> = self.membership.borrow().nodes().map(|(id, _)| NodeId(*id)).collect();
        self.office
            .tidy(&|node| known.contains(&node), self.clock.reading(), &self.timers);
    }

    pub(crate) fn jitter_ms(&self) -> u64 {
        (self.random)() % (self.timers.jitter_ms + 1)
    }

    /// Runs a task of this node until the node stops.
    pub(crate) fn spawn(self: &Arc<Core>, task: impl Future<Output = ()> + Send + 'static) {
        let core = Arc::clone(self);
        tokio::spawn(async move {
            tokio::select! {
                () = task => {}
                () = core.stopped() => {}
            }
        });
    }

    /// Resolves when the node stops.
    pub(crate) async fn stopped(&self) {
        // The sender lives as long as the core.
        let mut stop = self.stop.subscribe();
        let _stopped = stop.wait_for(|stop| *stop).await;
    }
}
