//! Requests that only another node can carry out: those of a session to a server that keeps a child for it, and those to a server that
//! this node does not reach and another does. The request is admitted here, carried over the peer connection, and admitted there once
//! more; what is answered there is pulled from here, piece by piece, and looked at once more before each piece is passed on.
//!
//! The bearer does not travel: the holder is told the token's hash, and decides by its own state and its own lease.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use dashmap::DashMap;
use futures_util::stream;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use http_body_util::BodyExt;
use mcp_model::ids::{Id, NodeId};
use mcp_model::token::TokenHash;
use mcp_wire::message::Message;
use mcp_wire::refusal::{Refusal, UPSTREAM_FAILED};
use mcp_wire::version::Revision;
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, Notify, mpsc};

use crate::admit::Wanted;
use crate::dispatch::{Request, dispatch, over_quota};
use crate::http_sse::rooms;
use crate::metrics::Metrics;
use crate::protocol::{self, Accepts, Call};
use crate::quotas::Use;
use crate::session::Session;
use crate::{Inner, respond};

/// The first byte of what is said here, so that it is told from whatever else gateways say to each other.
const MARK: u8 = 0xf3;
/// How long the other node may take to say that it is there.
const KNOCK_WAIT: Duration = Duration::from_secs(2);
/// How long it waits for something to come before it answers that nothing has, and its answer may take.
const PULL_WAIT: Duration = Duration::from_secs(20);
const PULL_TRAVEL: Duration = Duration::from_secs(25);
/// An answer that nobody has asked for so long is given up.
const ABANDONED: Duration = Duration::from_secs(60);
/// Pieces that wait to be pulled, and bytes of one of them, and of those that go at once.
const PIECES_MAX: usize = 16;
const PIECE_BYTES_MAX: usize = 1 << 20;
const BATCH_BYTES_MAX: usize = 4 << 20;

/// The answers of this node that other nodes pull.
#[derive(Default)]
pub(crate) struct Forwarded {
    answers: DashMap<u64, Arc<Answer>>,
}

struct Answer {
    pieces: Mutex<mpsc::Receiver<Piece>>,
    pulled: Notify,
    /// Nobody wants more of it, or nothing more comes.
    over: Notify,
}

/// What nodes ask each other.
#[derive(Serialize, Deserialize)]
enum Asked {
    /// Whether this run of the node is there: children of sessions do not outlive it.
    Knock {
        run: Option<u64>,
    },
    Begin {
        number: u64,
        carried: Box<Carried>,
    },
    Pull {
        number: u64,
    },
    GiveUp {
        number: u64,
    },
}

/// A request on its way.
#[derive(Serialize, Deserialize)]
struct Carried {
    token: [u8; 32],
    project: String,
    only: Option<Id>,
    message: Vec<u8>,
    revision: String,
    session: Option<Vec<u8>>,
    json: bool,
    events: bool,
}

/// A piece of an answer.
#[derive(Debug, Serialize, Deserialize)]
enum Piece {
    Head {
        status: u16,
        headers: Vec<(String, Vec<u8>)>,
    },
    Data(Vec<u8>),
    End,
}

type Pieces = Option<Vec<Piece>>;

/// The answer to a request that this node does not take, from the one that does. `None`: that one is not there, and nothing was sent.
pub(crate) async fn to(
    gateway: &Arc<Inner>,
    request: &Arc<Request>,
    node: NodeId,
    run: Option<u64>,
) -> Option<Response> {
    let number = gateway.relay.fresh()?;
    let knock = Asked::Knock { run };
    let is_there: Option<bool> = ask(gateway, node, &knock, KNOCK_WAIT).await;
    if is_there != Some(true) {
        return None;
    }
    Metrics::add(&gateway.metrics.relayed);
    let call = &request.call;
    let carried = Box::new(Carried {
        token: request.permit.hash().0,
        project: request.permit.project().name.to_string(),
        only: request.only,
        message: call.message.bytes().to_vec(),
        revision: call.revision.as_str().to_owned(),
        session: call.session.as_ref().map(|session| session.to_bytes().to_vec()),
        json: call.accepts.json,
        events: call.accepts.events,
    });
    let mut pulling = Pulling {
        gateway: gateway.clone(),
        request: request.clone(),
        node,
        number,
        ready: VecDeque::new(),
        over: false,
    };
    Some(match pulling.head(Asked::Begin { number, carried }).await {
        Ok(head) if is_stream(&head) => answered(head, Body::from_stream(stream::unfold(pulling, Pulling::data))),
        Ok(head) => match pulling.whole().await {
            Ok(body) => answered(head, Body::from(body)),
            Err(Lost::Cut) => cut(gateway, request),
            Err(Lost::Unheard) => lost(request),
        },
        Err(Lost::Cut) => cut(gateway, request),
        Err(Lost::Unheard) => lost(request),
    })
}

/// Status and headers.
type Head = (u16, Vec<(String, Vec<u8>)>);

fn is_stream((_, headers): &Head) -> bool {
    headers
        .iter()
        .any(|(name, value)| name == "content-type" && value.starts_with(b"text/event-stream"))
}

/// Why nothing more comes.
enum Lost {
    /// The token, or a right, was taken away here.
    Cut,
    /// The other node does not answer.
    Unheard,
}

/// This node's side: pulls, and gives up when it is dropped.
struct Pulling {
    gateway: Arc<Inner>,
    request: Arc<Request>,
    node: NodeId,
    number: u64,
    ready: VecDeque<Piece>,
    over: bool,
}

impl Pulling {
    async fn head(&mut self, begin: Asked) -> Result<Head, Lost> {
        self.pull(&begin).await?;
        loop {
            match self.ready.pop_front() {
                Some(Piece::Head { status, headers }) => return Ok((status, headers)),
                Some(_) => return Err(Lost::Unheard),
                None => self.pull(&Asked::Pull { number: self.number }).await?,
            }
        }
    }

    async fn pull(&mut self, asked: &Asked) -> Result<(), Lost> {
        let pieces = tokio::select! {
            biased;
            () = self.request.permit.cut() => return Err(Lost::Cut),
            pieces = ask::<Pieces>(&self.gateway, self.node, asked, PULL_TRAVEL) => pieces,
        };
        self.ready.extend(pieces.flatten().ok_or(Lost::Unheard)?);
        Ok(())
    }

    /// An answer that is one body.
    async fn whole(&mut self) -> Result<Vec<u8>, Lost> {
        let mut body = Vec::new();
        loop {
            match self.ready.pop_front() {
                Some(Piece::Data(bytes)) => body.extend_from_slice(&bytes),
                Some(Piece::Head { .. }) => {}
                Some(Piece::End) => {
                    self.over = true;
                    return Ok(body);
                }
                None => self.pull(&Asked::Pull { number: self.number }).await?,
            }
        }
    }

    /// What is passed on next, if it still may be.
    async fn data(mut self) -> Option<(Result<Bytes, Infallible>, Pulling)> {
        loop {
            match self.ready.pop_front() {
                Some(Piece::Data(bytes)) => {
                    let still = self.gateway.admission.still_or_soon(&self.request.permit).await;
                    return still.ok().map(|()| (Ok(Bytes::from(bytes)), self));
                }
                Some(Piece::Head { .. }) => {}
                Some(Piece::End) => {
                    self.over = true;
                    return None;
                }
                None => {
                    let asked = Asked::Pull { number: self.number };
                    self.pull(&asked).await.ok()?;
                }
            }
        }
    }
}

impl Drop for Pulling {
    /// A client that goes away, and a token that does, end the call.
    fn drop(&mut self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        if self.over {
            return;
        }
        let (gateway, node, number) = (self.gateway.clone(), self.node, self.number);
        runtime.spawn(async move { ask::<bool>(&gateway, node, &Asked::GiveUp { number }, KNOCK_WAIT).await });
    }
}

fn answered((status, headers): Head, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    for (name, value) in headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_bytes(&value)) {
            response.headers_mut().append(name, value);
        }
    }
    response
}

fn cut(gateway: &Inner, request: &Request) -> Response {
    match gateway.admission.why_cut(&request.permit) {
        Some(denial) => respond::denial(denial, gateway.limits.retry_after_s, request.call.message.id()),
        None => failed(request, "rights changed"),
    }
}

fn lost(request: &Request) -> Response {
    failed(request, "the node that carried it out does not answer any more")
}

fn failed(request: &Request, cause: &str) -> Response {
    let data = serde_json::json!({"cause": cause, "effect": "possible"});
    let message = format!("the call was ended because {cause}; it may have had an effect");
    let refusal = Refusal::inside(UPSTREAM_FAILED, message).with_data(data);
    respond::refusal(&refusal, request.call.message.id())
}

async fn ask<T: serde::de::DeserializeOwned>(
    gateway: &Inner,
    node: NodeId,
    asked: &Asked,
    wait: Duration,
) -> Option<T> {
    let said = postcard::to_extend(asked, vec![MARK]).ok()?;
    let answer = gateway.cluster.tell(node, said, wait).await.ok()?;
    postcard::from_bytes(&answer).ok()
}

fn asked(said: &[u8]) -> Option<Asked> {
    postcard::from_bytes(said.strip_prefix(&[MARK])?).ok()
}

/// Hears what another node asks. None if it is about something else.
pub(crate) async fn hear(gateway: &Arc<Inner>, said: &[u8]) -> Option<Vec<u8>> {
    match asked(said)? {
        Asked::Knock { run } => {
            let mine = run.is_none_or(|run| run == gateway.sessions.home().run);
            postcard::to_stdvec(&(mine && !gateway.stopping.is_cancelled())).ok()
        }
        Asked::Begin { number, carried } => {
            begin(gateway, number, *carried);
            postcard::to_stdvec(&pulled(gateway, number).await).ok()
        }
        Asked::Pull { number } => postcard::to_stdvec(&pulled(gateway, number).await).ok(),
        Asked::GiveUp { number } => {
            let gone = gateway.forwarded.answers.remove(&number);
            postcard::to_stdvec(&gone.map(|(_, answer)| answer.over.notify_one()).is_some()).ok()
        }
    }
}

/// What there is of an answer, and what comes soon. Nothing yet is not nothing any more.
async fn pulled(gateway: &Inner, number: u64) -> Pieces {
    let answer = gateway.forwarded.answers.get(&number).map(|answer| answer.clone())?;
    answer.pulled.notify_one();
    let mut pieces = answer.pieces.lock().await;
    let first = tokio::time::timeout(PULL_WAIT, pieces.recv()).await;
    answer.pulled.notify_one();
    let (mut batch, mut bytes) = (Vec::new(), 0);
    let Ok(mut next) = first else { return Some(batch) };
    while let Some(piece) = next {
        if let Piece::Data(data) = &piece {
            bytes += data.len();
        }
        let is_last = matches!(piece, Piece::End);
        batch.push(piece);
        if is_last {
            gateway.forwarded.answers.remove(&number);
            answer.over.notify_one();
        }
        next = match is_last || bytes >= BATCH_BYTES_MAX {
            true => None,
            false => pieces.try_recv().ok(),
        };
    }
    (!batch.is_empty()).then_some(batch)
}

/// Carries a request out, here, and keeps what is answered until it is pulled.
fn begin(gateway: &Arc<Inner>, number: u64, carried: Carried) {
    let (sender, pieces) = mpsc::channel(PIECES_MAX);
    let answer = Arc::new(Answer {
        pieces: Mutex::new(pieces),
        pulled: Notify::new(),
        over: Notify::new(),
    });
    gateway.forwarded.answers.insert(number, answer.clone());
    let gateway = gateway.clone();
    tokio::spawn(async move {
        let carrying = async {
            let response = Box::pin(carry_out(&gateway, carried)).await;
            pour(response, &sender).await;
            // Until the last piece was pulled, or nobody comes for it.
            std::future::pending::<()>().await;
        };
        let abandoned = async {
            loop {
                if tokio::time::timeout(ABANDONED, answer.pulled.notified()).await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            () = carrying => {}
            () = answer.over.notified() => {}
            () = abandoned => drop(gateway.forwarded.answers.remove(&number)),
        }
    });
}

async fn carry_out(gateway: &Arc<Inner>, carried: Carried) -> Response {
    let retry_after_s = gateway.limits.retry_after_s;
    let rooms = rooms(gateway, carried.message.len());
    let (Ok(message), Some(revision)) = (
        Message::read(Bytes::from(carried.message)),
        Revision::parse(&carried.revision),
    ) else {
        return respond::empty(StatusCode::BAD_REQUEST);
    };
    let Some(rooms) = rooms else {
        return respond::overloaded("the node that takes this request is busy", retry_after_s, message.id());
    };
    let token = TokenHash(carried.token);
    let permit = match gateway.admission.admit(token, Wanted::Named(&carried.project)).await {
        Ok(permit) => permit,
        Err(denial) => return respond::denial(denial, retry_after_s, message.id()),
    };
    let session = match &carried.session {
        None => None,
        Some(bytes) => match Session::from_bytes(bytes).and_then(|session| {
            let (project, now_ms) = (permit.project().id, permit.at_ms());
            gateway.sessions.checked(session, token, project, now_ms).ok()
        }) {
            Some(session) if gateway.is_alive(&session, &permit) => Some(session),
            Some(_) | None => return respond::refusal(&protocol::no_session(), message.id()),
        },
    };
    let held = match gateway.enter(&permit, Use::Request) {
        Ok(held) => held,
        Err(over) => return over_quota(gateway, &permit, &over, message.id()),
    };
    let request = Request {
        permit,
        call: Call {
            message,
            revision,
            session,
            accepts: Accepts {
                json: carried.json,
                events: carried.events,
            },
        },
        only: carried.only,
        forwarded: true,
        _rooms: rooms,
        _held: held,
        place: OnceLock::new(),
    };
    dispatch(gateway.clone(), Arc::new(request), &HeaderMap::new()).await
}

async fn pour(response: Response, to: &mpsc::Sender<Piece>) {
    let (parts, mut body) = response.into_parts();
    let headers = parts.headers.iter();
    let head = Piece::Head {
        status: parts.status.as_u16(),
        headers: headers
            .map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()))
            .collect(),
    };
    if to.send(head).await.is_err() {
        return;
    }
    while let Some(Ok(frame)) = body.frame().await {
        let Ok(data) = frame.into_data() else { continue };
        for piece in data.chunks(PIECE_BYTES_MAX) {
            if to.send(Piece::Data(piece.to_vec())).await.is_err() {
                return;
            }
        }
    }
    // Whoever does not pull any more does not miss it.
    to.send(Piece::End).await.unwrap_or(());
}

/// For the fuzzer: bytes as what another node asks, and as what it answers.
pub(crate) fn decode(bytes: &[u8]) {
    if let Some(asked) = asked(bytes) {
        let again = postcard::to_extend(&asked, vec![MARK]).expect("plain data always encodes");
        assert!(self::asked(&again).is_some());
    }
    let _pieces = postcard::from_bytes::<Pieces>(bytes).is_ok();
}
