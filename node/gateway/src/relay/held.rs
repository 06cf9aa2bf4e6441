//! Calls of modern clients that wait at a legacy server. Such a client is asked by the result of its request, and answers with another
//! request, which any replica may get. Meanwhile the call at the server is held on the node that made it; whoever gets the answer
//! pulls from there what comes.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dashmap::DashMap;
use mcp_model::ids::{Id, NodeId};
use mcp_model::token::TokenHash;
use mcp_wire::can::ClientCan;
use mcp_wire::message::Message;
use mcp_wire::refusal::{INVALID_PARAMS, Refusal, result_body};
use mcp_wire::rounds::Retry;
use mcp_wire::splice::Supply;
use mcp_wire::upstream::{Cause, Effect, Frame, Frames, UpstreamError};
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use super::Said;
use crate::Inner;
use crate::admit::Wanted;
use crate::calls::Target;
use crate::dispatch::Request;
use crate::metrics::Metrics;

const PURPOSE: &[u8] = b"mcp held call 1";
/// What may wait to be pulled: messages, and bytes at a time.
const PARTS_MAX: usize = 64;
const BATCH_BYTES_MAX: usize = 4 << 20;
/// How long another node waits for something to come before it asks again, and its question may take.
const PULL_WAIT: Duration = Duration::from_secs(20);
const PULL_TRAVEL: Duration = Duration::from_secs(25);

/// Names a held call: what `requestState` seals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HeldId {
    node: NodeId,
    call: u64,
    token: TokenHash,
    project: Id,
    /// Of server and tool, prompt or resource.
    about: [u8; 16],
}

/// The held calls of this node.
#[derive(Default)]
pub(crate) struct HeldCalls {
    calls: DashMap<u64, (HeldId, mpsc::Sender<Pull>)>,
}

/// Asks for what comes next.
struct Pull {
    resume: Option<Resume>,
    parts: oneshot::Sender<Vec<Part>>,
}

/// The client's answers, and the request under which it goes on.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Resume {
    /// Ids of the server's requests, and results, raw JSON.
    answers: Vec<(String, String)>,
    id: String,
    progress_token: Option<String>,
    hints: bool,
}

/// What came from the server.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Part {
    Notification(Vec<u8>),
    Request(Vec<u8>),
    Response { bytes: Vec<u8>, is_error: bool },
    Failed(String),
}

impl Part {
    fn bytes(&self) -> usize {
        match self {
            Part::Notification(bytes) | Part::Request(bytes) | Part::Response { bytes, .. } => bytes.len(),
            Part::Failed(why) => why.len(),
        }
    }
}

fn about(request: &Request, target: &Target) -> [u8; 16] {
    let method = request.call.message.method().unwrap_or_default();
    let uri = target.uri.as_deref().unwrap_or_default();
    let server = target.listed.server.id.to_bytes();
    let whole = [method.as_bytes(), &server, target.listed.own.as_bytes(), uri.as_bytes()].join(&0xff);
    let mut short = [0; 16];
    short.copy_from_slice(&digest(&SHA256, &whole).as_ref()[..16]);
    short
}

/// Holds a call until its client comes back: its state. What was taken is given back if it cannot be held. `asked` is what the client
/// is about to be asked.
pub(crate) fn hold(
    gateway: &Arc<Inner>,
    request: &Request,
    target: &Target,
    frames: Frames,
    asked: &Message,
) -> Result<String, Box<Frames>> {
    let held = &gateway.relay.held.calls;
    let fresh = (held.len() < gateway.limits.held_max).then(|| gateway.relay.seals.fresh());
    let Some(call) = fresh.flatten() else {
        return Err(Box::new(frames));
    };
    let id = HeldId {
        call,
        ..HeldId::nothing(gateway, request, target)
    };
    let Some(state) = seal(gateway, &id) else {
        return Err(Box::new(frames));
    };
    let (pulls, pulled) = mpsc::channel(4);
    held.insert(call, (id, pulls));
    let holding = Holding {
        gateway: gateway.clone(),
        id,
        can: request.call.can(),
        frames,
        ready: VecDeque::new(),
        owed: vec![asked.clone()],
        parked: true,
        done: false,
    };
    tokio::spawn(holding.run(request.permit.project().name.to_string(), pulled));
    Ok(state)
}

fn seal(gateway: &Inner, id: &HeldId) -> Option<String> {
    seal_for(gateway, PURPOSE, id)
}

pub(super) fn seal_for(gateway: &Inner, purpose: &[u8], id: &HeldId) -> Option<String> {
    let plain = postcard::to_stdvec(id).ok()?;
    gateway.relay.seals.seal_bytes(purpose, plain)
}

impl HeldId {
    /// Of a call that nobody holds.
    pub(super) fn nothing(gateway: &Inner, request: &Request, target: &Target) -> HeldId {
        HeldId {
            node: gateway.relay.me,
            call: 0,
            token: request.permit.hash(),
            project: request.permit.project().id,
            about: about(request, target),
        }
    }

    /// Whether it was given to the client of this request, for such a request.
    pub(super) fn is_about(&self, request: &Request, target: &Target) -> bool {
        let permit = &request.permit;
        let own = self.token.same_as(&permit.hash()) && self.project == permit.project().id;
        own && self.about == about(request, target)
    }
}

/// The call that a request goes on with. None: its state is none of ours; an error: it is, and not for this request.
pub(crate) fn resume(
    gateway: &Arc<Inner>,
    request: &Request,
    target: &Target,
    retry: Retry,
) -> Option<Result<Held, Refusal>> {
    let plain = gateway.relay.seals.open_bytes(PURPOSE, &retry.state)?;
    let id: HeldId = postcard::from_bytes(&plain).ok()?;
    if !id.is_about(request, target) {
        let why = "requestState belongs to another request";
        return Some(Err(Refusal::inside(INVALID_PARAMS, why)));
    }
    let message = &request.call.message;
    Some(Ok(Held {
        gateway: gateway.clone(),
        id,
        resume: Some(Resume {
            answers: retry.answers,
            id: message.id().unwrap_or("null").to_owned(),
            progress_token: message.progress_token().map(str::to_owned),
            hints: message.method() == Some("resources/read"),
        }),
        pulling: None,
        parts: VecDeque::new(),
        over: false,
    }))
}

/// The node's side: keeps the call at the server going, until the token is taken away or nobody comes for too long.
struct Holding {
    gateway: Arc<Inner>,
    id: HeldId,
    can: ClientCan,
    frames: Frames,
    ready: VecDeque<Part>,
    /// Requests that the client was asked and has not answered.
    owed: Vec<Message>,
    /// Whether the client is being waited for: then nobody takes notifications.
    parked: bool,
    done: bool,
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.gateway.relay.held.calls.remove(&self.id.call);
    }
}

impl Holding {
    async fn run(mut self, project: String, mut pulls: mpsc::Receiver<Pull>) {
        let gateway = self.gateway.clone();
        // Registered before anything is waited for, so that a token that goes takes the call along.
        let Ok(permit) = gateway.admission.admit(self.id.token, Wanted::Named(&project)).await else {
            return;
        };
        let wait = Duration::from_millis(gateway.limits.client_reply_ms);
        let mut until = Box::pin(tokio::time::sleep(wait));
        let mut waiting: Option<oneshot::Sender<Vec<Part>>> = None;
        loop {
            tokio::select! {
                biased;
                () = permit.cut() => return Metrics::add(&gateway.metrics.calls_cut),
                pull = pulls.recv() => {
                    let Some(pull) = pull else { return };
                    until.as_mut().reset(tokio::time::sleep(wait).deadline());
                    if let Some(resume) = pull.resume {
                        self.resume(resume);
                    }
                    waiting = Some(pull.parts);
                }
                frame = self.frames.next(), if !self.done && self.ready.len() < PARTS_MAX => self.take(frame),
                () = until.as_mut() => return Metrics::add(&gateway.metrics.asked_late),
            }
            if !self.ready.is_empty()
                && let Some(to) = waiting.take_if(|to| !to.is_closed())
                && self.give(to)
            {
                return;
            }
        }
    }

    fn resume(&mut self, resume: Resume) {
        let supply = if resume.hints {
            Supply::ResultTypeAndHints
        } else {
            Supply::ResultType
        };
        self.frames.rebind(resume.id, resume.progress_token, supply);
        for (id, result) in &resume.answers {
            self.owed.retain(|asked| asked.id() != Some(id));
            self.frames.reply(id, result_body(id, result));
        }
        self.parked = false;
        // What was left out is asked once more.
        for asked in std::mem::take(&mut self.owed).into_iter().rev() {
            self.ready.push_front(Part::Request(asked.bytes().to_vec()));
        }
    }

    fn take(&mut self, frame: Result<Option<Frame>, UpstreamError>) {
        match frame {
            Ok(Some(Frame::Notification(_))) if self.parked => {}
            Ok(Some(Frame::Notification(bytes))) => self.ready.push_back(Part::Notification(bytes.to_vec())),
            Ok(Some(Frame::Request(asked))) => match self.can.refusal_of(&asked) {
                Some(refusal) => {
                    let id = asked.id().unwrap_or("null");
                    Metrics::add(&self.gateway.metrics.asked_refused);
                    self.frames.reply(id, refusal.body(Some(id)));
                }
                None => self.ready.push_back(Part::Request(asked.bytes().to_vec())),
            },
            Ok(Some(Frame::Withdrawn(id))) => {
                self.owed.retain(|asked| asked.id() != Some(&id));
                self.ready.retain(|part| match part {
                    Part::Request(bytes) => {
                        Message::read(Bytes::copy_from_slice(bytes)).is_ok_and(|asked| asked.id() != Some(&id))
                    }
                    Part::Notification(_) | Part::Response { .. } | Part::Failed(_) => true,
                });
            }
            Ok(Some(Frame::Response { bytes, is_error })) => {
                let bytes = bytes.to_vec();
                self.ready.push_back(Part::Response { bytes, is_error });
                self.done = true;
            }
            Ok(None) => self.done = true,
            Err(error) => {
                self.ready.push_back(Part::Failed(error.to_string()));
                self.done = true;
            }
        }
    }

    /// Hands over what has come, up to the next question. Whether that was all.
    fn give(&mut self, to: oneshot::Sender<Vec<Part>>) -> bool {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while let Some(part) = self.ready.pop_front() {
            bytes += part.bytes();
            if !batch.is_empty() && bytes > BATCH_BYTES_MAX {
                self.ready.push_front(part);
                break;
            }
            let asks = matches!(part, Part::Request(_));
            batch.push(part);
            if asks {
                break;
            }
        }
        if let Err(batch) = to.send(batch.clone()) {
            batch.into_iter().rev().for_each(|part| self.ready.push_front(part));
            return false;
        }
        for part in batch {
            match part {
                Part::Request(bytes) => {
                    self.parked = true;
                    self.owed.extend(Message::read(Bytes::from(bytes)));
                }
                Part::Response { .. } | Part::Failed(_) => return true,
                Part::Notification(_) => {}
            }
        }
        false
    }
}

/// What comes of a held call; nothing, if it is not held any more.
type Parts = Option<Vec<Part>>;

/// Asks the holder on this node.
async fn pull_here(gateway: &Inner, id: HeldId, resume: Option<Resume>) -> Parts {
    let pulls = gateway.relay.held.calls.get(&id.call).and_then(|held| {
        let (known, pulls) = held.value();
        (*known == id).then(|| pulls.clone())
    })?;
    let (parts, pulled) = oneshot::channel();
    pulls.send(Pull { resume, parts }).await.ok()?;
    pulled.await.ok()
}

/// The answer to another node that pulls.
pub(super) async fn pulled(gateway: &Inner, id: HeldId, resume: Option<Resume>) -> Vec<u8> {
    let parts = tokio::time::timeout(PULL_WAIT, pull_here(gateway, id, resume)).await;
    // Nothing yet is not nothing any more.
    postcard::to_stdvec(&parts.unwrap_or(Some(Vec::new()))).unwrap_or_default()
}

/// Nobody wants it any more.
pub(super) fn abandoned(gateway: &Inner, id: HeldId) {
    gateway
        .relay
        .held
        .calls
        .remove_if(&id.call, |_, (known, _)| *known == id);
}

async fn pull(gateway: Arc<Inner>, id: HeldId, resume: Option<Resume>) -> Parts {
    if id.node == gateway.relay.me {
        return pull_here(&gateway, id, resume).await;
    }
    Metrics::add(&gateway.metrics.relayed);
    let said = postcard::to_stdvec(&Said::Pull { id, resume }).ok()?;
    let answer = gateway.cluster.tell(id.node, said, PULL_TRAVEL).await.ok()?;
    postcard::from_bytes::<Parts>(&answer).ok().flatten()
}

/// The client's side: what comes of a held call, wherever it is held.
pub(crate) struct Held {
    gateway: Arc<Inner>,
    id: HeldId,
    resume: Option<Resume>,
    pulling: Option<Pin<Box<dyn Future<Output = Parts> + Send>>>,
    parts: VecDeque<Part>,
    /// Whether there is nothing to be given up.
    over: bool,
}

impl Held {
    /// The next frame. May be dropped and called again without a loss.
    pub(crate) async fn next(&mut self) -> Result<Option<Frame>, UpstreamError> {
        loop {
            if let Some(part) = self.parts.pop_front() {
                return self.frame(part).map(Some);
            }
            let (gateway, id) = (&self.gateway, self.id);
            let pulling = self
                .pulling
                .get_or_insert_with(|| Box::pin(pull(gateway.clone(), id, self.resume.take())));
            let parts = pulling.as_mut().await;
            self.pulling = None;
            let Some(parts) = parts else {
                self.over = true;
                return Err(failed(
                    "the call that asked does not wait any more: begin anew".to_owned(),
                ));
            };
            self.parts.extend(parts);
        }
    }

    fn frame(&mut self, part: Part) -> Result<Frame, UpstreamError> {
        Ok(match part {
            Part::Notification(bytes) => Frame::Notification(bytes.into()),
            Part::Request(bytes) => {
                let asked = Message::read(Bytes::from(bytes));
                Frame::Request(asked.map_err(|refusal| failed(refusal.message))?)
            }
            Part::Response { bytes, is_error } => {
                self.over = true;
                Frame::Response {
                    bytes: bytes.into(),
                    is_error,
                }
            }
            Part::Failed(why) => {
                self.over = true;
                return Err(failed(why));
            }
        })
    }

    /// The client is asked again: the state under which it comes back.
    pub(crate) fn keep(mut self) -> Option<String> {
        self.over = true;
        seal(&self.gateway, &self.id)
    }
}

fn failed(why: String) -> UpstreamError {
    UpstreamError {
        cause: Cause::Held(why),
        effect: Effect::Possible,
    }
}

impl Drop for Held {
    /// A client that goes away ends the call.
    fn drop(&mut self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        if self.over {
            return;
        }
        if self.id.node == self.gateway.relay.me {
            return abandoned(&self.gateway, self.id);
        }
        let (gateway, id) = (self.gateway.clone(), self.id);
        runtime.spawn(async move { super::tell(&gateway, id.node, &Said::Abandon { id }).await.is_ok() });
    }
}

/// For the fuzzer: bytes as what a state seals, and as what comes from another node.
pub(crate) fn decode(bytes: &[u8]) {
    if let Ok(id) = postcard::from_bytes::<HeldId>(bytes) {
        let again = postcard::to_stdvec(&id).expect("it can be written");
        assert_eq!(postcard::from_bytes::<HeldId>(&again).as_ref(), Ok(&id));
    }
    let _parts = postcard::from_bytes::<Parts>(bytes).is_ok();
}
