//! openraft's network on top of [`Link`]s.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use mcp_model::ids::NodeId;
use mcp_store::{StoreError, snapshot};
use openraft::Snapshot;
use openraft::error::{
    Fatal, Infallible, InstallSnapshotError, NetworkError, RPCError, RaftError, RemoteError, ReplicationClosed,
    StreamingError, Unreachable,
};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse, SnapshotResponse,
    VoteRequest, VoteResponse,
};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::link::{Badge, Lane, Link, LinkError};
use crate::machine::put_away;
use crate::rpc::{APPEND, SNAPSHOT, VOTE};
use crate::types::{LogId, Peer, TypeConfig, Vote};

/// Appends of more entries than this are catching up and take the other lane.
const SMALL_ENTRIES: usize = 4;
/// Pieces of a snapshot.
const CHUNK_BYTES: usize = 128 * 1024;
/// How long an append may take before its connection is given up.
const APPEND_WAIT: Duration = Duration::from_secs(2);
/// The pause after a peer could not be reached.
const PAUSE: Duration = Duration::from_millis(100);

/// The links of one node, made when they are needed.
#[derive(Clone)]
pub(crate) struct Links {
    badge: Badge,
    links: Arc<Mutex<HashMap<NodeId, Arc<Link>>>>,
    /// Set when the snapshot that was to be sent turned out to be damaged.
    snapshot_wanted: Arc<AtomicBool>,
}

impl Links {
    pub(crate) fn new(badge: Badge) -> Links {
        Links {
            badge,
            links: Arc::default(),
            snapshot_wanted: Arc::default(),
        }
    }

    /// Whether a new snapshot is needed.
    pub(crate) fn snapshot_wanted(&self) -> &AtomicBool {
        &self.snapshot_wanted
    }

    /// Whether a peer has said that this node was removed, to wait on.
    pub(crate) fn turned_away(&self) -> watch::Receiver<bool> {
        self.badge.turned_away.subscribe()
    }

    /// It was looked into.
    pub(crate) fn forget_turned_away(&self) {
        self.badge.turned_away.send_replace(false);
    }

    /// The link to a peer at this address.
    pub(crate) fn to(&self, node: NodeId, address: &str) -> Arc<Link> {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(link) = links.get(&node).filter(|link| link.address() == address) {
            return Arc::clone(link);
        }
        let link = Arc::new(Link::new(self.badge.clone(), node, address.to_owned()));
        links.insert(node, Arc::clone(&link));
        link
    }
}

impl RaftNetworkFactory<TypeConfig> for Links {
    type Network = Network;

    async fn new_client(&mut self, target: u64, node: &Peer) -> Network {
        Network {
            to: NodeId(target),
            link: self.to(NodeId(target), &node.address),
            snapshot_wanted: Arc::clone(&self.snapshot_wanted),
            sending: None,
        }
    }
}

/// openraft's way to one peer.
pub(crate) struct Network {
    to: NodeId,
    link: Arc<Link>,
    snapshot_wanted: Arc<AtomicBool>,
    /// An append that is on its way, with what it carries.
    sending: Option<(Carried, JoinHandle<AppendAnswer>)>,
}

/// What tells one append from another: vote, the entry before, the last entry.
type Carried = (Vote, Option<LogId>, Option<LogId>);
type AppendAnswer = Answer<AppendEntriesResponse<u64>, Infallible>;
type Answer<T, E> = Result<Result<T, RaftError<u64, E>>, LinkError>;
type Failed<E> = RPCError<u64, Peer, RaftError<u64, E>>;

impl Network {
    /// Whoever is handed a damaged snapshot would refuse it, again and again.
    async fn look_at(&self, path: PathBuf) -> Result<(), StoreError> {
        let looked = tokio::task::spawn_blocking(move || {
            let verified = snapshot::verify(&path);
            if let Err(StoreError::Corrupt(why)) = &verified {
                put_away(&path, why);
            }
            verified
        });
        let verified = looked
            .await
            .unwrap_or_else(|error| Err(StoreError::Io(error.to_string())));
        if verified.is_err() {
            self.snapshot_wanted.store(true, Ordering::Release);
        }
        verified.map(|_| ())
    }

    fn sort<T, E: std::error::Error>(&self, answer: Answer<T, E>) -> Result<T, Failed<E>> {
        match answer {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(RPCError::RemoteError(RemoteError::new(self.to.0, error))),
            Err(error @ (LinkError::Unreachable(..) | LinkError::NotConnected(..) | LinkError::Refused(..))) => {
                Err(RPCError::Unreachable(Unreachable::new(&error)))
            }
            Err(error) => Err(RPCError::Network(NetworkError::new(&error))),
        }
    }
}

impl RaftNetwork<TypeConfig> for Network {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, RPCError<u64, Peer, RaftError<u64>>> {
        if rpc.entries.is_empty() {
            let answer = self.link.call(Lane::Fast, APPEND, &rpc, option.hard_ttl()).await;
            return self.sort(answer);
        }
        // openraft gives an append one heartbeat interval and then drops it and sends it again. What takes longer (a long
        // entry, a slow disk, a new connection) would never arrive; so it travels in a task of its own, and whoever sends
        // the same again waits for that.
        let carried = (rpc.vote, rpc.prev_log_id, rpc.entries.last().map(|entry| entry.log_id));
        if let Some((before, task)) = &mut self.sending {
            let same = *before == carried;
            let answer = task.await;
            self.sending = None;
            if let (true, Ok(answer)) = (same, answer) {
                return self.sort(answer);
            }
        }
        let link = Arc::clone(&self.link);
        let lane = if rpc.entries.len() > SMALL_ENTRIES {
            Lane::Bulk
        } else {
            Lane::Fast
        };
        let task = tokio::spawn(async move { link.call(lane, APPEND, &rpc, APPEND_WAIT).await });
        let (_, task) = self.sending.insert((carried, task));
        let answer = task.await;
        self.sending = None;
        self.sort(answer.unwrap_or(Err(LinkError::Timeout(self.to))))
    }

    async fn install_snapshot(
        &mut self,
        _rpc: InstallSnapshotRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<InstallSnapshotResponse<u64>, Failed<InstallSnapshotError>> {
        let whole = std::io::Error::other("snapshots are sent whole");
        Err(RPCError::Network(NetworkError::new(&whole)))
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<u64>,
        option: RPCOption,
    ) -> Result<VoteResponse<u64>, RPCError<u64, Peer, RaftError<u64>>> {
        let answer = self
            .link
            .call(Lane::Fast, VOTE, &rpc, option.hard_ttl().max(PAUSE * 3))
            .await;
        self.sort(answer)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot<TypeConfig>,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<u64>, StreamingError<TypeConfig, Fatal<u64>>> {
        if let Err(error) = self.look_at(snapshot.snapshot.path().to_owned()).await {
            return Err(StreamingError::Network(NetworkError::new(&error)));
        }
        let file = tokio::fs::File::open(snapshot.snapshot.path()).await;
        // A newer snapshot may have taken its place: that is sent the next time.
        let file = file.map_err(|error| StreamingError::Network(NetworkError::new(&error)))?;
        let head =
            postcard::to_stdvec(&(vote, &snapshot.meta)).map_err(|e| StreamingError::Network(NetworkError::new(&e)))?;
        let chunks = tokio_util::io::ReaderStream::with_capacity(file, CHUNK_BYTES).map(|c: std::io::Result<Bytes>| c);
        let sent = self.link.send_file(SNAPSHOT, head, chunks.boxed(), option.hard_ttl());
        let answer: Result<Result<SnapshotResponse<u64>, Fatal<u64>>, LinkError> = tokio::select! {
            answer = sent => answer,
            closed = cancel => return Err(StreamingError::Closed(closed)),
        };
        match answer {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(fatal)) => Err(StreamingError::RemoteError(RemoteError::new(self.to.0, fatal))),
            Err(error @ (LinkError::Unreachable(..) | LinkError::NotConnected(..))) => {
                Err(StreamingError::Unreachable(Unreachable::new(&error)))
            }
            Err(error) => Err(StreamingError::Network(NetworkError::new(&error))),
        }
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(PAUSE))
    }
}
