//! What a node answers to its peers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use mcp_model::barrier::Confirmed;
use mcp_model::command::Envelope;
use mcp_model::ids::NodeId;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, VoteRequest};
use openraft::{Snapshot, SnapshotMeta};
use rustls::pki_types::CertificateDer;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use crate::lobby::{Seat, ShownOut};
use crate::node::Core;
use crate::rpc::*;
use crate::types::{Peer, SnapshotFile, TypeConfig, Vote};
use crate::{barrier, campaign, door, members, messenger, readmit, removal, renew, rounds, tls, write};

/// How long a peer may take to prove who it is.
const HANDSHAKE_WAIT: Duration = Duration::from_secs(5);
/// How often a peer is asked whether it is still there, and how long its answer may take.
const PING_EVERY: Duration = Duration::from_secs(10);
/// The pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Requests of one peer that are worked on at once.
const STREAMS_MAX: u32 = 1_024;
/// Longest head of a snapshot.
const HEAD_BYTES_MAX: usize = 1024 * 1024;

/// Accepts peers until the node stops.
pub(crate) async fn run(core: Arc<Core>, listener: TcpListener) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = core.stopped() => return,
        };
        match accepted {
            Ok((stream, from)) => {
                // Everybody in there can be shown out, so there is always a place.
                if let Some((seat, shown_out)) = core.lobby.enter(from.ip(), core.names_address(from.ip())) {
                    tokio::spawn(serve(Arc::clone(&core), stream, from, seat, shown_out));
                }
            }
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve(core: Arc<Core>, stream: TcpStream, from: SocketAddr, seat: Seat, shown_out: ShownOut) {
    stream.set_nodelay(true).unwrap_or(());
    let shaken = tokio::select! {
        shaken = tokio::time::timeout(HANDSHAKE_WAIT, shake_hands(&core, stream)) => shaken,
        () = shown_out.come() => {
            let why = "it had not said who it is, and made room for others";
            return core.strangers.turned_away(&*core.clock, from.ip(), &why);
        }
    };
    drop(seat);
    match shaken {
        Ok(Ok((stream, false))) => {
            core.lobby.remember(from.ip());
            serve_peer(core, stream).await;
        }
        Ok(Ok((stream, true))) => door::serve(core, stream, from).await,
        Ok(Err(error)) => core.strangers.turned_away(&*core.clock, from.ip(), &error),
        Err(_) => core
            .strangers
            .turned_away(&*core.clock, from.ip(), &"it did not say who it is in time"),
    }
}

/// Who has no certificate yet, and says so, is let as far as the door (`true`). Everybody else shows one.
async fn shake_hands(core: &Core, stream: TcpStream) -> std::io::Result<(TlsStream<TcpStream>, bool)> {
    let begun = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream).await?;
    let spoken = begun.client_hello().alpn();
    let at_the_door = spoken.is_some_and(|mut all| all.any(|one| one == tls::JOIN_ALPN));
    let config = if at_the_door { &core.tls.door } else { &core.tls.server };
    Ok((begun.into_stream(Arc::clone(config)).await?, at_the_door))
}

async fn serve_peer(core: Arc<Core>, stream: TlsStream<TcpStream>) {
    let certs = stream.get_ref().1.peer_certificates();
    let Some(cert) = certs
        .and_then(<[_]>::first)
        .map(|cert| Arc::new(cert.clone().into_owned()))
    else {
        return;
    };
    let stopping = Arc::clone(&core);
    let service = hyper::service::service_fn(move |request| {
        let (core, cert) = (Arc::clone(&core), Arc::clone(&cert));
        async move { Ok::<_, std::convert::Infallible>(answer(&core, &cert, request).await) }
    });
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_EVERY)
        .max_concurrent_streams(STREAMS_MAX)
        .initial_stream_window_size(1024 * 1024)
        .initial_connection_window_size(4 * 1024 * 1024);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        ended = connection => if let Err(error) = ended {
            tracing::debug!(%error, "a peer connection ended");
        },
        () = stopping.stopped() => {}
    }
}

async fn answer(core: &Arc<Core>, cert: &CertificateDer<'_>, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let answered = match caller(core, cert, &request) {
        Ok(from) => route(core, from, request).await,
        Err(status) => Err(status),
    };
    let (status, body) = match answered {
        Ok(body) => (StatusCode::OK, body),
        Err(status) => (status, Bytes::new()),
    };
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response
}

/// Who calls, if they mean this cluster and this node and are who they say.
fn caller(core: &Core, cert: &CertificateDer<'_>, request: &Request<Incoming>) -> Result<NodeId, StatusCode> {
    let header = |name| {
        request
            .headers()
            .get(name)
            .and_then(|v| v.to_str().ok())
            .unwrap_or_default()
    };
    if header(CLUSTER_HEADER) != core.cluster || header(TO_HEADER) != core.me.to_string() {
        return Err(StatusCode::MISDIRECTED_REQUEST);
    }
    let from: NodeId = header(FROM_HEADER).parse().map_err(|_| StatusCode::FORBIDDEN)?;
    if !tls::names(cert, from) {
        return Err(StatusCode::FORBIDDEN);
    }
    has_our_lease(core, from, header(LEASE_HEADER), request.uri().path())?;
    match core.was_removed(from) {
        Some(false) => Ok(from),
        // Whoever was removed may ask about that, and nothing else.
        Some(true) if request.uri().path() == STANDING => Ok(from),
        Some(true) => Err(StatusCode::GONE),
        None => Err(StatusCode::SERVICE_UNAVAILABLE),
    }
}

/// A leader waits for as long as a lease can last by its own timers, and an earlier leader may have granted by others. So nodes whose
/// leases last differently do not speak to each other, but for what has nothing to do with leases.
fn has_our_lease(core: &Core, from: NodeId, theirs: &str, path: &str) -> Result<(), StatusCode> {
    let ours = core.lease.as_str();
    if theirs == ours || matches!(path, READMIT | STANDING) {
        return Ok(());
    }
    if core.stranger_lease.swap(true, Ordering::Relaxed) {
        tracing::debug!(%from, theirs, ours, "a node with other timers was turned away");
    } else {
        tracing::error!(
            %from, theirs, ours,
            "a node with other timers is turned away: timers.lease_ms, margin_ms and rho_ppm must be the same on every node; stop all of \
             them to change one"
        );
    }
    Err(StatusCode::PRECONDITION_FAILED)
}

async fn route(core: &Arc<Core>, from: NodeId, request: Request<Incoming>) -> Result<Bytes, StatusCode> {
    let path = request.uri().path();
    // Whoever follows a leader that this node does not know yet must be heard; what changes something is for members.
    if matches!(path, CAMPAIGN | RESIGN | READ_INDEX | WRITE | TELL | DIGEST | COMPARE) && !core.is_member(from) {
        return Err(StatusCode::FORBIDDEN);
    }
    match path {
        APPEND => append(core, read(request).await?).await,
        VOTE => {
            let vote: VoteRequest<u64> = read(request).await?;
            let answer = core.raft.vote(vote).await;
            if answer.as_ref().is_ok_and(|answer| answer.vote_granted) {
                core.voted.now(&*core.clock);
            }
            written(&answer)
        }
        SNAPSHOT => snapshot(core, request).await,
        ASK => written(&campaign::own_state(core)),
        CAMPAIGN => {
            tokio::spawn(campaign::take_over(Arc::clone(core)));
            written(&())
        }
        RENEW => {
            let renewal: Renewal = read(request).await?;
            written(&renew::grant(core, from, renewal).await)
        }
        RESIGN => written(&members::resign(core).await),
        READMIT => written(&readmit::answer(core, from, read(request).await?).await),
        STANDING => written(&removal::answer(core, from).await),
        TELL => written(&messenger::hear(core, from, read(request).await?).await?),
        READ_INDEX => written(&rounds::join(core).await),
        CONFIRM => written(&confirm(core, read(request).await?).await),
        DIGEST => {
            let index = read(request).await?;
            written(&core.compare.answer(index, core.replica.auth_index()))
        }
        COMPARE => {
            core.compare.ask();
            written(&())
        }
        WRITE => {
            let asked: Write = read(request).await?;
            // Every replica carries out what stands in the log, and stops at what it cannot read.
            Envelope::decode(&asked.envelope).map_err(|_| StatusCode::BAD_REQUEST)?;
            let deadline = Duration::from_millis(asked.deadline_ms);
            written(&write::lead(core, asked.envelope, asked.wait, deadline).await)
        }
        _ => Err(StatusCode::NOT_FOUND),
    }
}

/// In a task of its own: a leader that stops waiting takes our answer with it, but not the fact that it was heard.
async fn append(core: &Arc<Core>, request: AppendEntriesRequest<TypeConfig>) -> Result<Bytes, StatusCode> {
    let core = Arc::clone(core);
    let appended = tokio::spawn(async move {
        let answer = core.raft.append_entries(request).await;
        if answer
            .as_ref()
            .is_ok_and(|answer| !matches!(answer, AppendEntriesResponse::HigherVote(_)))
        {
            core.heard.now(&*core.clock);
        }
        answer
    });
    written(&appended.await.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?)
}

/// Waits until this node's auth view is that far, or for as long as was asked, and says how far it is.
async fn confirm(core: &Core, asked: Confirm) -> Confirmed {
    let mut index = core.replica.auth_index_watch();
    let wait = Duration::from_millis(asked.wait_ms.min(1_000));
    let reached = tokio::time::timeout(wait, index.wait_for(|at| *at >= asked.index)).await;
    drop(reached);
    barrier::let_go(&core.replica).await;
    // The incarnation is read first: an index that a later one reached must not speak for it.
    let incarnation = core.replica.gate().incarnation();
    Confirmed {
        node: core.me,
        incarnation,
        auth_index: core.replica.auth_index(),
    }
}

async fn snapshot(core: &Arc<Core>, request: Request<Incoming>) -> Result<Bytes, StatusCode> {
    let head_bytes = request.headers().get(HEAD_BYTES_HEADER).and_then(|v| v.to_str().ok());
    let head_bytes: usize = head_bytes.and_then(|v| v.parse().ok()).ok_or(StatusCode::BAD_REQUEST)?;
    if head_bytes > HEAD_BYTES_MAX {
        return Err(StatusCode::PAYLOAD_TOO_LARGE);
    }
    let file = core
        .raft
        .begin_receiving_snapshot()
        .await
        .map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    let head = receive(request.into_body(), head_bytes, &file).await.map_err(|error| {
        tracing::warn!(%error, "a snapshot did not arrive");
        StatusCode::INTERNAL_SERVER_ERROR
    })?;
    core.heard.now(&*core.clock);
    // Looked at before consensus sees it: to consensus a damaged file would be a damaged disk.
    let path = file.path().to_owned();
    let verified = tokio::task::spawn_blocking(move || mcp_store::snapshot::verify(&path)).await;
    if !matches!(verified, Ok(Ok(_))) {
        tracing::warn!("a snapshot arrived damaged");
        return Err(StatusCode::BAD_REQUEST);
    }
    core.heard.now(&*core.clock);
    let (vote, meta): (Vote, SnapshotMeta<u64, Peer>) =
        postcard::from_bytes(&head).map_err(|_| StatusCode::BAD_REQUEST)?;
    let installed = core
        .raft
        .install_full_snapshot(vote, Snapshot { meta, snapshot: file })
        .await;
    core.heard.now(&*core.clock);
    written(&installed)
}

async fn receive(mut body: Incoming, head_bytes: usize, file: &SnapshotFile) -> std::io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(head_bytes);
    let mut out = tokio::fs::File::create(file.path()).await?;
    while let Some(frame) = body.frame().await {
        let Ok(mut data) = frame.map_err(std::io::Error::other)?.into_data() else {
            continue;
        };
        if head.len() < head_bytes {
            let part = data.split_to(data.len().min(head_bytes - head.len()));
            head.extend_from_slice(&part);
        }
        out.write_all(&data).await?;
    }
    out.sync_all().await?;
    Ok(head)
}

async fn read<T: DeserializeOwned>(request: Request<Incoming>) -> Result<T, StatusCode> {
    let body = Limited::new(request.into_body(), BODY_BYTES_MAX).collect().await;
    let bytes = body.map_err(|_| StatusCode::PAYLOAD_TOO_LARGE)?.to_bytes();
    postcard::from_bytes(&bytes).map_err(|_| StatusCode::BAD_REQUEST)
}

fn written(value: &impl Serialize) -> Result<Bytes, StatusCode> {
    postcard::to_stdvec(value)
        .map(Bytes::from)
        .map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)
}
