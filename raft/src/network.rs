//! openraft's network on top of [`Link`]s.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use mcp_model::ids::NodeId;
use openraft::error::{
    Fatal, InstallSnapshotError, NetworkError, RPCError, RaftError, RemoteError, ReplicationClosed, StreamingError,
    Unreachable,
};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse, SnapshotResponse,
    VoteRequest, VoteResponse,
};
use openraft::{Snapshot, StorageIOError};

use crate::link::{Badge, Lane, Link, LinkError};
use crate::rpc::{APPEND, SNAPSHOT, VOTE};
use crate::types::{Peer, TypeConfig, Vote};

/// Appends of more bytes than this are catching up and take the other lane.
const SMALL_ENTRIES: usize = 4;
/// Pieces of a snapshot.
const CHUNK_BYTES: usize = 128 * 1024;
/// The pause after a peer could not be reached.
const PAUSE: Duration = Duration::from_millis(100);

/// The links of one node, made when they are needed.
#[derive(Clone)]
pub(crate) struct Links {
    badge: Badge,
    links: Arc<Mutex<HashMap<NodeId, Arc<Link>>>>,
}

impl Links {
    pub(crate) fn new(badge: Badge) -> Links {
        Links {
            badge,
            links: Arc::default(),
        }
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
        }
    }
}

/// openraft's way to one peer.
pub(crate) struct Network {
    to: NodeId,
    link: Arc<Link>,
}

type Answer<T, E> = Result<Result<T, RaftError<u64, E>>, LinkError>;
type Failed<E> = RPCError<u64, Peer, RaftError<u64, E>>;

impl Network {
    fn sort<T, E: std::error::Error>(&self, answer: Answer<T, E>) -> Result<T, Failed<E>> {
        match answer {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(RPCError::RemoteError(RemoteError::new(self.to.0, error))),
            Err(error @ (LinkError::Unreachable(..) | LinkError::Refused(..))) => {
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
        let lane = if rpc.entries.len() > SMALL_ENTRIES {
            Lane::Bulk
        } else {
            Lane::Fast
        };
        // A follower's disk may take longer than a heartbeat; a lost answer only costs sending it again.
        let wait = if rpc.entries.is_empty() {
            option.hard_ttl()
        } else {
            option.hard_ttl().max(PAUSE * 20)
        };
        let answer = self.link.call(lane, APPEND, &rpc, wait).await;
        self.sort(answer)
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
        let file = tokio::fs::File::open(&snapshot.snapshot.0).await;
        let file = file.map_err(|error| openraft::StorageError::from(StorageIOError::read_snapshot(None, &error)))?;
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
            Err(error @ LinkError::Unreachable(..)) => Err(StreamingError::Unreachable(Unreachable::new(&error))),
            Err(error) => Err(StreamingError::Network(NetworkError::new(&error))),
        }
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(PAUSE))
    }
}
