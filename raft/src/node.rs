//! One node of the cluster, as everybody else sees it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use mcp_model::clock::Clock;
use mcp_model::command::Envelope;
use mcp_model::ids::NodeId;
use mcp_store::Replica;
use mcp_store::log::RaftLog;
use openraft::{Config, SnapshotPolicy};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

use crate::compare::{self, Compare};
use crate::door::{self, Doorkeeper};
use crate::doubt::Doubt;
use crate::link::{Badge, Lane};
use crate::lobby::{Lobby, Room};
use crate::logs::Logs;
use crate::machine::Machine;
use crate::members::{self, Standing};
use crate::mender::Mender;
use crate::messenger::{self, Listener, Unheard};
use crate::network::Links;
use crate::office::Office;
use crate::outside::{Begun, Compared, Member, MemberStatus, NodeOptions, StartError, Status};
use crate::reach::Reach;
use crate::readmit::{self, Returning};
use crate::removal::{self, Removal};
use crate::rounds;
use crate::rpc::{ASK, PeerState, WaitFor};
use crate::shared::Heard;
use crate::strangers::Strangers;
use crate::tls::{PeerTls, TlsError};
use crate::types::{Peer, Raft};
use crate::write::{self, WriteFailed, Written};
use crate::{campaign, fresh, reach, renew, server, watchdog};

pub(crate) use crate::shared::Core;

/// How long the disk may take when a node stops.
const STOP_WAIT: Duration = Duration::from_secs(5);
/// How long peers are asked whether there is a cluster already.
pub(crate) const ASK_WAIT: Duration = Duration::from_millis(500);

/// A running node.
pub struct Node {
    core: Arc<Core>,
}

impl Node {
    /// Starts consensus on this node: answers peers on `listener`, follows or campaigns, and keeps a lease.
    pub async fn start(
        options: NodeOptions,
        replica: Arc<Replica>,
        log: RaftLog,
        clock: Arc<dyn Clock>,
        tls: PeerTls,
        listener: TcpListener,
    ) -> Result<Node, StartError> {
        options.timers.check()?;
        let logs = Logs::new(log, Arc::clone(&replica))?;
        let mender = Arc::new(Mender::new(Arc::clone(&replica), logs.clone()));
        let compare = Arc::<Compare>::default();
        if let Some(doubt) = Doubt::load(replica.dir()) {
            replica.doubt(doubt.why());
        }
        let machine = Machine::open(
            Arc::clone(&replica),
            Arc::clone(&mender),
            Arc::clone(&compare),
            logs.committed(),
            logs.purged_index()?,
            &options.snapshots,
        )?;
        let membership = machine.membership();
        replica.belongs_to(options.me)?;
        let lease = options.timers.lease_terms();
        let links = Links::new(Badge {
            cluster: options.cluster.clone(),
            me: options.me,
            tls: tls.clone(),
            lease: lease.clone(),
            turned_away: watch::Sender::new(false),
        });
        let config = config(&options)?;
        let raft = Raft::new(options.me.0, Arc::new(config), links.clone(), logs.clone(), machine).await;
        let raft = raft.map_err(|error| StartError::Raft(error.to_string()))?;
        let (batches, queued) = mpsc::channel(write::WAITING_MAX);
        let core = Arc::new(Core {
            me: options.me,
            cluster: options.cluster,
            metrics: raft.metrics(),
            raft,
            replica,
            logs,
            clock,
            timers: options.timers,
            membership,
            office: Office::default(),
            heard: Heard::default(),
            voted: Heard::default(),
            reach: Reach::default(),
            batches,
            tls,
            strangers: Strangers::default(),
            lobby: Lobby::default(),
            guests: Room::new(door::GUESTS_MAX, door::GUESTS_SHARE),
            doorkeeper: OnceLock::new(),
            listener: OnceLock::new(),
            removal: watch::Sender::new(Removal::No),
            links,
            mender,
            compare,
            disk: options.disk,
            free_bytes: options.free_bytes,
            readmitting: tokio::sync::Mutex::new(()),
            lease,
            stranger_lease: AtomicBool::new(false),
            refuses_renewals: AtomicBool::new(false),
            wrong: Mutex::default(),
            fit: AtomicBool::new(true),
            renewing: AtomicBool::new(true),
            leaving: AtomicBool::new(false),
            stop: watch::Sender::new(false),
            random: options.random,
        });
        core.heard.now(&*core.clock);
        core.spawn(observe(Arc::clone(&core)));
        core.spawn(rounds::run(Arc::clone(&core)));
        core.spawn(write::run(Arc::clone(&core), queued));
        core.spawn(server::run(Arc::clone(&core), listener));
        core.spawn(campaign::run(Arc::clone(&core)));
        core.spawn(renew::run(Arc::clone(&core)));
        core.spawn(watchdog::run(Arc::clone(&core)));
        core.spawn(reach::run(Arc::clone(&core)));
        core.spawn(members::run(Arc::clone(&core)));
        core.spawn(removal::run(Arc::clone(&core)));
        core.spawn(compare::run(Arc::clone(&core)));
        core.spawn(compare::place(Arc::clone(&core), options.compare_every));
        core.spawn(compare::insist(Arc::clone(&core)));
        Ok(Node { core })
    }

    /// Lets machines ask to be let in. Until then they are told to come back.
    pub fn open_door(&self, keeper: Arc<dyn Doorkeeper>) {
        // A door that is open stays as it is.
        self.core.doorkeeper.get_or_init(|| keeper);
    }

    /// Hands what other members tell this node to the data plane.
    pub fn listen(&self, listener: Arc<dyn Listener>) {
        // Who listens already goes on.
        self.core.listener.get_or_init(|| listener);
    }

    /// Tells another member something and waits for its answer, no longer than `wait`.
    pub async fn tell(&self, to: NodeId, message: Vec<u8>, wait: Duration) -> Result<Vec<u8>, Unheard> {
        Box::pin(messenger::tell(&self.core, to, message, wait)).await
    }

    /// Everybody in the configuration but this node.
    pub fn others(&self) -> Vec<NodeId> {
        let me = self.core.me;
        let membership = self.core.membership.borrow();
        let all = membership.membership().nodes().map(|(id, _)| NodeId(*id));
        all.filter(|id| *id != me).collect()
    }

    /// Puts another certificate of the same authority in the place of this node's, for connections from now on.
    pub fn replace_certificate(&self, chain: &[u8], key: &[u8]) -> Result<(), TlsError> {
        self.core.tls.replace(chain, key)
    }

    /// Resolves when this node knows that it was removed from the cluster: it admits nobody any more.
    pub async fn removed(&self) {
        self.reached(Removal::Removed).await;
    }

    /// Resolves when this node was removed and the others have gone on without it: nobody needs its voice any more.
    pub async fn out(&self) {
        self.reached(Removal::Out).await;
    }

    /// How far this node's removal has come.
    pub fn removal(&self) -> Removal {
        *self.core.removal.borrow()
    }

    /// Asks another node how far the removal of this one has come. `None`: it does not answer, or cannot tell, because it sees no
    /// leader who has a quorum behind it.
    pub async fn stands_by(&self, other: NodeId) -> Option<Removal> {
        let link = self.core.link(other)?;
        removal::ask(&link).await
    }

    async fn reached(&self, removal: Removal) {
        let mut at = self.core.removal.subscribe();
        // The sender lives as long as the core.
        let _reached = at.wait_for(|at| *at >= removal).await;
    }

    /// Has another node lead, if `node` does. Its removal is not to be waited for by the one who goes.
    pub async fn step_down(&self, node: NodeId) -> Result<(), WriteFailed> {
        Box::pin(members::step_down(&self.core, node)).await
    }

    /// Waits until the membership that this node knows has `node` where it is to stand. `false`: not within `limit`.
    pub async fn stands(&self, node: NodeId, standing: Standing, limit: Duration) -> bool {
        members::stands(&self.core, node, standing, limit).await
    }

    /// Begins a cluster of `members`, unless this node or one of them has a membership already. Every one of them has to say that it
    /// has none.
    pub async fn bootstrap(&self, members: &[Member]) -> Result<Begun, StartError> {
        let raft_error = |error: &dyn std::fmt::Display| StartError::Raft(error.to_string());
        if self.core.raft.is_initialized().await.map_err(|e| raft_error(&e))? {
            return Ok(Begun::Already);
        }
        let mut silent = Vec::new();
        for member in members.iter().filter(|m| m.id != self.core.me) {
            let link = self.core.links.to(member.id, &member.address);
            let state: Result<PeerState, _> = link.call(Lane::Fast, ASK, &(), ASK_WAIT).await;
            match state {
                Ok(state) if state.has_membership => return Ok(Begun::Elsewhere(member.clone())),
                Ok(_) => {}
                Err(error) => {
                    tracing::debug!(%error, "a founding member does not say whether it has a membership");
                    silent.push(member.clone());
                }
            }
        }
        if !silent.is_empty() {
            return Ok(Begun::Unknown(silent));
        }
        let nodes: BTreeMap<u64, Peer> = members
            .iter()
            .map(|m| {
                (
                    m.id.0,
                    Peer {
                        name: m.name.clone(),
                        address: m.address.clone(),
                    },
                )
            })
            .collect();
        self.core.raft.initialize(nodes).await.map_err(|e| raft_error(&e))?;
        Ok(Begun::Here)
    }

    /// Gets a command into the log and carried out, through whoever leads.
    pub async fn write(&self, envelope: &Envelope, wait: WaitFor, deadline: Duration) -> Result<Written, WriteFailed> {
        Box::pin(write::write(&self.core, envelope, wait, deadline)).await
    }

    /// An index such that whoever has applied it has seen everything that was acknowledged before this call.
    pub async fn read_index(&self) -> Result<u64, WriteFailed> {
        fresh::read_index(&self.core).await
    }

    /// Brings this node's auth view up to an index that the leader gives after this call.
    pub async fn freshen(&self) -> Result<(), WriteFailed> {
        fresh::freshen(&self.core).await
    }

    /// Asks every member whether it answers, for [`Node::is_reachable`], instead of waiting for the next time.
    pub async fn look_around(&self) {
        reach::look_around(&self.core).await;
    }

    /// Whether a member answered when this node last asked, about a second ago. `None`: it was not asked yet.
    pub fn is_reachable(&self, node: NodeId) -> Option<bool> {
        if node == self.core.me {
            return Some(true);
        }
        self.core.reach.of(node)
    }

    /// Whether this node leads, as far as it knows.
    pub fn leads(&self) -> bool {
        self.core.office.term().is_some() && self.core.is_fit()
    }

    /// Whether this node's disk is good enough to lead.
    pub fn is_fit(&self) -> bool {
        self.core.is_fit()
    }

    /// The index up to which the auth view is complete, to wait on: with it the membership changes.
    pub fn index_watch(&self) -> watch::Receiver<u64> {
        self.core.replica.auth_index_watch()
    }

    /// What is wrong with this node's stores, in words for people. Nothing: it may lead and be ready.
    pub fn what_is_wrong(&self) -> Vec<String> {
        self.core.wrong.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What the last comparison of this node's state with the others' has shown. `None`: there was none yet.
    pub fn compared(&self) -> Option<Compared> {
        self.core.compare.told()
    }

    /// A node that lost its log asks to be taken back until it is, as `myself`.
    pub fn come_back(&self, returning: Returning, myself: Member) {
        self.core
            .spawn(readmit::come_back(Arc::clone(&self.core), returning, myself));
    }

    /// How the log's disk is doing.
    pub fn log_health(&self) -> mcp_store::log::LogHealth {
        self.core.logs.store().health()
    }

    /// Where the cluster is.
    pub fn status(&self) -> Status {
        let metrics = self.core.metrics.borrow().clone();
        // While the voters change, both sets of them must agree: whoever is in one of them only can be missed by nobody yet.
        let sets = metrics.membership_config.membership().get_joint_config();
        let votes = |id: &u64| !sets.is_empty() && sets.iter().all(|voters| voters.contains(id));
        let matched = |id: &u64| {
            metrics
                .replication
                .as_ref()?
                .get(id)
                .copied()
                .flatten()
                .map(|log| log.index)
        };
        let members = metrics.membership_config.nodes().map(|(id, peer)| MemberStatus {
            id: NodeId(*id),
            name: peer.name.clone(),
            address: peer.address.clone(),
            voter: votes(id),
            matched: matched(id),
        });
        Status {
            me: self.core.me,
            leader: self.core.leader(),
            term: metrics.current_term,
            last_log: metrics.last_log_index.unwrap_or(0),
            auth_index: self.core.replica.auth_index(),
            members: members.collect(),
        }
    }

    /// Stops: gives the lease back, lets somebody else lead, and ends every task.
    pub async fn shutdown(&self) {
        let core = &self.core;
        // In this order: a renewal that is under way belongs to the incarnation that ends here.
        core.renewing.store(false, Ordering::Release);
        core.replica.hand_back_lease();
        Box::pin(members::hand_over(core)).await;
        core.stop.send_replace(true);
        // A disk that hangs must not keep the program: what was acknowledged is on it already, or on the others'.
        let ended = tokio::time::timeout(STOP_WAIT, core.raft.shutdown()).await;
        if !matches!(ended, Ok(Ok(()))) {
            tracing::warn!("consensus did not stop cleanly");
        }
        let core = Arc::clone(core);
        let flushed = tokio::task::spawn_blocking(move || {
            let flushed = core.replica.flush();
            core.logs.store().close();
            flushed
        });
        if !matches!(tokio::time::timeout(STOP_WAIT, flushed).await, Ok(Ok(Ok(())))) {
            tracing::warn!("the state was not flushed: it is rebuilt from the log at the next start");
        }
    }
}

/// Follows the metrics to see when this node begins to lead, and when it ends.
async fn observe(core: Arc<Core>) {
    let mut metrics = core.raft.metrics();
    loop {
        let seen = metrics.borrow_and_update().clone();
        core.office.observe(&seen, &*core.clock);
        tokio::select! {
            changed = metrics.changed() => if changed.is_err() { return },
            () = core.stopped() => return,
        }
    }
}

fn config(options: &NodeOptions) -> Result<Config, StartError> {
    let timers = options.timers;
    let config = Config {
        cluster_name: options.cluster.clone(),
        heartbeat_interval: timers.heartbeat_ms,
        election_timeout_min: timers.leader_silence_ms.saturating_sub(1),
        // Voters refuse for this long after a heartbeat.
        election_timeout_max: timers.leader_silence_ms,
        enable_elect: false,
        install_snapshot_timeout: 60_000,
        max_payload_entries: 256,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(options.snapshot_entries),
        max_in_snapshot_log_to_keep: options.kept_entries,
        purge_batch_size: options.kept_entries,
        replication_lag_threshold: options.snapshot_entries,
        ..Config::default()
    };
    config.validate().map_err(|error| StartError::Raft(error.to_string()))
}
