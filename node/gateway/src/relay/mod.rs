//! Messages of clients that belong to a call which runs on some node: replies to what a server asked, progress on it, and
//! cancellations. A balancer hands each of them to whichever replica it likes; the id that a client was asked under says which node
//! waits for it, and the peer connection carries it there.
//!
//! What a client answers is kept nowhere but in the hands of the call that waits for it, and is never logged.

mod asking;
mod held;
mod sealed;
pub(crate) mod urls;

use std::sync::Arc;
use std::time::Duration;

use axum::response::Response;
use bytes::Bytes;
use dashmap::DashMap;
use futures_util::future::join_all;
use http::StatusCode;
use mcp_model::ids::{Id, NodeId};
use mcp_wire::level::Logs;
use mcp_wire::message::{Kind, Message};
use mcp_wire::refusal::{INVALID_REQUEST, Refusal};
use mcp_wire::upstream;
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use crate::audit::About;
use crate::body::KIB;
use crate::cluster::Unavailable;
use crate::dispatch::Request;
use crate::limits::SMALL_BODY_BYTES;
use crate::metrics::Metrics;
use crate::notes::{News, Note};
use crate::watches::Told;
use crate::{Inner, respond};

pub(crate) use self::asking::{Asking, Heard};
pub(crate) use self::held::{Held, decode as decode_held, hold, resume};
use self::held::{HeldCalls, HeldId, Resume};
pub(crate) use self::sealed::decode as decode_asked;
use self::sealed::{Asked, Seals};

/// Words that may wait for one call.
const WORDS_MAX: usize = 32;
/// How long another node may take to hear one.
const TELL_WAIT: Duration = Duration::from_secs(2);

/// The calls of this node that wait for a word of their client.
pub(crate) struct Relay {
    me: NodeId,
    seals: Seals,
    ears: DashMap<u64, Ear>,
    held: HeldCalls,
}

/// Where the words for one call go.
struct Ear {
    token: mcp_model::token::TokenHash,
    session: Id,
    words: mpsc::Sender<Word>,
}

/// What a client said in a call.
pub(crate) struct Word {
    /// To which of the requests it was asked.
    number: u32,
    /// A response, or progress.
    message: Message,
    /// Its place among the larger bodies.
    _room: Option<OwnedSemaphorePermit>,
}

/// What nodes say to each other.
#[derive(Serialize, Deserialize)]
enum Said {
    /// A client's word to the call that asked.
    Word { asked: Asked, message: Vec<u8> },
    /// A client cancels its request of this id, raw JSON.
    Cancel { session: Id, request_id: String },
    /// A client came with answers for a held call, or waits for what comes of it.
    Pull { id: HeldId, resume: Option<Resume> },
    /// Nobody wants a held call any more.
    Abandon { id: HeldId },
    /// A client has ended its session.
    Ended { session: Id },
    /// A session no longer watches a resource.
    Unwatch { session: Id, uri: String },
    /// A resource that a session watches has changed: its stream may be there.
    Changed { session: Id, uri: String },
    /// A client has said something that whoever serves it next is to know.
    Noted { session: Id, news: News },
    /// What has it said before?
    WhatNote { session: Id },
    /// A server has said something in the session of one client: its stream may be there.
    Told { session: Id, server: Id, message: Vec<u8> },
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Became {
    Taken,
    /// Nobody waits for it any more.
    Gone,
    /// There is no room for it.
    Full,
}

impl Relay {
    pub(crate) fn new(me: NodeId, cluster_key: &[u8; 32]) -> Relay {
        Relay {
            me,
            seals: Seals::new(cluster_key),
            ears: DashMap::default(),
            held: HeldCalls::default(),
        }
    }

    fn hand(&self, asked: &Asked, word: Word) -> Became {
        let Some(ear) = self.ears.get(&asked.call) else {
            return Became::Gone;
        };
        // The id says so already; it is as cheap to look at who waits.
        if ear.session != asked.session || !ear.token.same_as(&asked.token) {
            return Became::Gone;
        }
        match ear.words.try_send(word) {
            Ok(()) => Became::Taken,
            Err(mpsc::error::TrySendError::Closed(_)) => Became::Gone,
            Err(mpsc::error::TrySendError::Full(_)) => Became::Full,
        }
    }
}

/// A client's response to what it was asked.
pub(crate) async fn reply(gateway: &Inner, request: &Request) -> Response {
    let message = &request.call.message;
    // Nobody asked under an id that does not open: there is nobody to tell, and nothing to learn for who made it up.
    let Some(asked) = message.id().and_then(|id| gateway.relay.seals.open(id)) else {
        return respond::empty(StatusCode::ACCEPTED);
    };
    if !is_own(gateway, request, &asked) {
        let why = "this id was given to another session";
        return respond::refusal(&Refusal::bad(INVALID_REQUEST, why), None);
    }
    match carry(gateway, asked, message).await {
        Ok(Became::Taken | Became::Gone) => respond::empty(StatusCode::ACCEPTED),
        Ok(Became::Full) => respond::overloaded(
            "the call cannot take this reply now",
            gateway.limits.retry_after_s,
            None,
        ),
        Err(_) => respond::overloaded(
            "the node that asked cannot be reached",
            gateway.limits.retry_after_s,
            None,
        ),
    }
}

/// A client's notification: progress on what it was asked, or the cancellation of its own request. What belongs to no call of
/// this client is dropped.
pub(crate) async fn notification(gateway: &Inner, request: &Request) {
    let message = &request.call.message;
    match (message.method(), message.progress_of(), message.cancelled_id()) {
        (Some("notifications/progress"), Some(token), _) => {
            let asked = gateway.relay.seals.open(token);
            if let Some(asked) = asked.filter(|asked| is_own(gateway, request, asked)) {
                // Progress that does not arrive is no loss.
                let _became = carry(gateway, asked, message).await.is_ok();
            }
        }
        (Some("notifications/cancelled"), _, Some(id)) => cancel(gateway, request, id).await,
        (_, _, _) => {}
    }
}

/// Whether the client of this request was asked. Who sends the id of another is on record.
fn is_own(gateway: &Inner, request: &Request, asked: &Asked) -> bool {
    let session = request.call.session.as_ref().map(|session| session.uuid);
    let own = asked.token.same_as(&request.permit.hash()) && session == Some(asked.session);
    if !own {
        let about = About {
            session,
            request_id: None,
            method: None,
            server: None,
            tool: None,
        };
        gateway.audit.deny(&request.permit, about, "foreign_reply");
    }
    own
}

async fn carry(gateway: &Inner, asked: Asked, message: &Message) -> Result<Became, Unavailable> {
    if asked.node == gateway.relay.me {
        return Ok(hand(gateway, asked, message.clone()));
    }
    Metrics::add(&gateway.metrics.relayed);
    let message = message.bytes().to_vec();
    tell(gateway, asked.node, &Said::Word { asked, message }).await
}

fn hand(gateway: &Inner, asked: Asked, message: Message) -> Became {
    let bytes = message.bytes().len();
    let room = match bytes > SMALL_BODY_BYTES {
        false => None,
        true => {
            let kib = u32::try_from(bytes.div_ceil(KIB)).unwrap_or(u32::MAX);
            match gateway.body_room.clone().try_acquire_many_owned(kib) {
                Ok(room) => Some(room),
                Err(_) => return Became::Full,
            }
        }
    };
    let word = Word {
        number: asked.number,
        message,
        _room: room,
    };
    gateway.relay.hand(&asked, word)
}

/// Cancels a call of this session, wherever it runs.
async fn cancel(gateway: &Inner, request: &Request, id: &str) {
    let Some(session) = request.call.session.as_ref().map(|session| session.uuid) else {
        return;
    };
    if gateway.cancellable.cancel(session, id) {
        return;
    }
    let told = gateway.cluster.others().into_iter().map(|node| {
        let said = Said::Cancel {
            session,
            request_id: id.to_owned(),
        };
        async move { tell(gateway, node, &said).await }
    });
    let heard = join_all(told).await;
    if heard.contains(&Ok(Became::Taken)) {
        Metrics::add(&gateway.metrics.relayed);
    }
}

async fn tell(gateway: &Inner, node: NodeId, said: &Said) -> Result<Became, Unavailable> {
    let message = postcard::to_stdvec(said).map_err(|_| Unavailable::TooMany)?;
    let answer = gateway.cluster.tell(node, message, TELL_WAIT).await?;
    // A node of another version may not understand.
    postcard::from_bytes(&answer).map_err(|_| Unavailable::NotReached)
}

/// What another node said; the answer to it. Nothing, where it cannot be understood.
pub(crate) async fn hear(gateway: &Inner, message: &[u8]) -> Vec<u8> {
    let became = match postcard::from_bytes::<Said>(message) {
        Ok(Said::Word { asked, message }) => match Message::read(Bytes::from(message)) {
            Ok(message) if message.kind() != Kind::Request => hand(gateway, asked, message),
            Ok(_) | Err(_) => Became::Gone,
        },
        Ok(Said::Cancel { session, request_id }) => match gateway.cancellable.cancel(session, &request_id) {
            true => Became::Taken,
            false => Became::Gone,
        },
        Ok(Said::Pull { id, resume }) => return held::pulled(gateway, id, resume).await,
        Ok(Said::Abandon { id }) => {
            held::abandoned(gateway, id);
            Became::Taken
        }
        Ok(Said::Ended { session }) => {
            forget(gateway, session);
            taken_if(gateway.watches.drop_of(session, None))
        }
        Ok(Said::Unwatch { session, uri }) => taken_if(gateway.watches.drop_of(session, Some(&uri))),
        Ok(Said::Changed { session, uri }) => {
            taken_if(gateway.watches.tell_session(session, Told::Updated(uri.into())))
        }
        Ok(Said::Noted { session, news }) => {
            gateway.notes.take(session, news, gateway.clock.wall_ms());
            Became::Taken
        }
        Ok(Said::WhatNote { session }) => {
            let note = gateway.notes.known(session);
            return postcard::to_stdvec(&note).unwrap_or_default();
        }
        Ok(Said::Told {
            session,
            server,
            message,
        }) => {
            let message = Bytes::from(message);
            taken_if(gateway.watches.tell_session(session, Told::Said { server, message }))
        }
        Err(_) => return Vec::new(),
    };
    postcard::to_stdvec(&became).unwrap_or_default()
}

fn taken_if(taken: bool) -> Became {
    if taken { Became::Taken } else { Became::Gone }
}

/// Ends a session on every node that can be reached; it grants nothing that its token does not grant anyway.
pub(crate) async fn end_session(gateway: &Inner, session: Id) {
    forget(gateway, session);
    gateway.watches.drop_of(session, None);
    tell_others(gateway, || Said::Ended { session }).await;
}

fn forget(gateway: &Inner, session: Id) {
    gateway.sessions.end(session);
    gateway.living.end(session);
    gateway.notes.end(session);
    gateway.upstreams.end_session(session);
    let upstreams = gateway.upstreams.clone();
    tokio::spawn(async move { upstreams.end_owned(|owner| owner == owner_of(session)).await });
}

/// How upstreams know whose a session is.
pub(crate) fn owner_of(session: Id) -> u128 {
    u128::from_be_bytes(session.to_bytes())
}

/// Tells the other nodes what a client has said.
pub(crate) async fn noted(gateway: &Inner, session: Id, news: News) {
    tell_others(gateway, || Said::Noted { session, news }).await;
}

/// Asks the other nodes what a client has said. Of several answers the one that knows most counts.
pub(crate) async fn ask_for_note(gateway: &Inner, session: Id) -> Option<Note> {
    let said = postcard::to_stdvec(&Said::WhatNote { session }).ok()?;
    let asked = gateway.cluster.others().into_iter().map(|node| {
        let said = said.clone();
        async move {
            let answer = gateway.cluster.tell(node, said, TELL_WAIT).await.ok()?;
            postcard::from_bytes::<Option<Note>>(&answer).ok().flatten()
        }
    });
    let notes = join_all(asked).await;
    notes.into_iter().flatten().max_by_key(|note| note.roots_changes)
}

/// Puts what a server has said in the session of one client on that client's stream, wherever that is. A client that has none
/// open misses it, as it would if it were connected directly.
pub(crate) fn said(gateway: &Arc<Inner>, server: Id, said: upstream::Said) {
    let session = Id::from_u128(said.owner);
    let message = said.message.clone();
    // The server may not have been told yet of a level that was set since.
    let logs = gateway.notes.known(session).map_or(Logs::All, |note| note.logs());
    if !Message::read(message.clone()).is_ok_and(|message| logs.want(&message)) {
        return;
    }
    if gateway.watches.tell_session(session, Told::Said { server, message }) {
        return;
    }
    let gateway = gateway.clone();
    tokio::spawn(async move {
        tell_others(&gateway, || Said::Told {
            session,
            server,
            message: said.message.to_vec(),
        })
        .await;
    });
}

/// Ends the subscription of a session, whichever node keeps it.
pub(crate) async fn unwatch(gateway: &Inner, session: Id, uri: &str) {
    if !gateway.watches.drop_of(session, Some(uri)) {
        let uri = uri.to_owned();
        tell_others(gateway, || Said::Unwatch {
            session,
            uri: uri.clone(),
        })
        .await;
    }
}

/// Tells the node that holds the stream of a session that a resource has changed.
pub(crate) async fn changed(gateway: &Inner, session: Id, uri: &str) {
    let uri = uri.to_owned();
    tell_others(gateway, || Said::Changed {
        session,
        uri: uri.clone(),
    })
    .await;
}

/// Tells all other nodes. Who cannot be reached is not told.
async fn tell_others(gateway: &Inner, said: impl Fn() -> Said) {
    let told = gateway.cluster.others().into_iter().map(|node| {
        let said = said();
        async move { tell(gateway, node, &said).await }
    });
    let _heard = join_all(told).await.len();
}

/// For the fuzzer: bytes as what nodes say to each other.
pub(crate) fn decode_said(bytes: &[u8]) {
    let _said = postcard::from_bytes::<Said>(bytes).is_ok();
    let _became = postcard::from_bytes::<Became>(bytes).is_ok();
    let _note = postcard::from_bytes::<Option<Note>>(bytes).is_ok();
}

impl Relay {
    /// A name that nobody has used.
    pub(crate) fn fresh_name(&self) -> Option<String> {
        self.seals.fresh().map(|number| format!("{number:016x}"))
    }

    /// This node.
    pub(crate) fn node(&self) -> NodeId {
        self.me
    }

    /// A number that nobody has used.
    pub(crate) fn fresh(&self) -> Option<u64> {
        self.seals.fresh()
    }

    /// Begins to listen for a call of this client. None if the system has no random bytes.
    pub(crate) fn listen(self: &Arc<Self>, request: &Request) -> Option<Asking> {
        let session = request.call.session.as_ref()?.uuid;
        let (words, heard) = mpsc::channel(WORDS_MAX);
        let asked = Asked {
            node: self.me,
            call: self.seals.fresh()?,
            number: 0,
            token: request.permit.hash(),
            session,
        };
        let ear = Ear {
            token: asked.token,
            session,
            words,
        };
        self.ears.insert(asked.call, ear);
        Some(Asking::new(self.clone(), asked, heard))
    }
}
