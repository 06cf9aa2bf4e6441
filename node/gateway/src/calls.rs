//! A call on its way to an upstream and back: audited before it leaves, checked once more, streamed through in order, and
//! given up the moment its token is taken away or its caller leaves.

mod asks;
mod rounds;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use axum::response::Response;
use bytes::Bytes;
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use futures_util::stream;
use http::StatusCode;
use mcp_model::admission::Denial;
use mcp_model::ids::Id;
use mcp_model::records::Health;
use mcp_store::cuts::Signal;
use mcp_store::view::HashBits;
use mcp_wire::level::{Level, Logs};
use mcp_wire::message::Message;
use mcp_wire::refusal::{
    HEADER_MISMATCH, INVALID_PARAMS, METHOD_NOT_FOUND, MISSING_CAPABILITY, Refusal, UNSUPPORTED_VERSION,
    UPSTREAM_FAILED,
};
use mcp_wire::rounds::{Retry, all_accepted, first_time, retry_of};
use mcp_wire::splice::Supply;
use mcp_wire::sse;
use mcp_wire::upstream::{Cause, Effect, Frame, Frames, Outgoing, UpstreamError};
use mcp_wire::version::Era;

use self::rounds::Round;
use crate::Inner;
use crate::audit::{About, Running};
use crate::catalog::Listed;
use crate::dispatch::Request;
use crate::metrics::Metrics;
use crate::notes::{self, Note};
use crate::protocol::Call;
use crate::relay::{Asking, Heard, Held, owner_of, resume, urls};
use crate::upstreams::Lane;
use crate::{forward, respond, stateful};

/// The open calls of each session: raw request id, and the signal that ends the call.
type Sessions = Arc<DashMap<Id, Vec<(Box<str>, Arc<Signal>)>, HashBits>>;

/// Calls of legacy sessions, which a notification can cancel.
#[derive(Default)]
pub(crate) struct Cancellable {
    sessions: Sessions,
}

/// Takes a call off the list when it ends.
struct Listening {
    sessions: Sessions,
    session: Id,
    signal: Arc<Signal>,
}

impl Cancellable {
    /// Cancels a call, if it runs on this node. Whether it does.
    pub(crate) fn cancel(&self, session: Id, request_id: &str) -> bool {
        let Some(calls) = self.sessions.get(&session) else {
            return false;
        };
        // Of two calls with one id the later is meant.
        let call = calls.iter().rfind(|(id, _)| **id == *request_id);
        call.inspect(|(_, signal)| signal.raise(Signal::GIVEN_UP)).is_some()
    }

    fn listen(&self, call: &Call, signal: &Arc<Signal>) -> Option<Listening> {
        let (session, id) = (call.session.as_ref()?.uuid, call.message.id()?);
        let mut calls = self.sessions.entry(session).or_default();
        calls.push((id.into(), signal.clone()));
        drop(calls);
        Some(Listening {
            sessions: self.sessions.clone(),
            session,
            signal: signal.clone(),
        })
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let Entry::Occupied(mut calls) = self.sessions.entry(self.session) else {
            return;
        };
        calls.get_mut().retain(|(_, signal)| !Arc::ptr_eq(signal, &self.signal));
        if calls.get().is_empty() {
            calls.remove();
        }
    }
}

/// What is called: an entry of a list, and the URI at its server if it is a resource.
pub(crate) struct Target {
    pub(crate) listed: Arc<Listed>,
    pub(crate) uri: Option<String>,
}

/// A call under way.
struct Flight {
    gateway: Arc<Inner>,
    request: Arc<Request>,
    target: Arc<Target>,
    running: Running,
    stage: Stage,
    /// What the server has asked the client, if it has.
    asking: Option<Box<Asking>>,
    /// Messages for the client that are still to be sent.
    ready: VecDeque<Bytes>,
    /// What a modern server wants to know of a legacy client.
    round: Option<Box<Round>>,
    rounds: u32,
    _cancellable: Option<Listening>,
    ended: bool,
}

enum Stage {
    Opening(Pin<Box<dyn Future<Output = Result<Begun, UpstreamError>> + Send>>),
    Flowing(Frames),
    /// At a server that waited for this client to come back, maybe through another node.
    Held(Held),
    /// For the client's answers.
    Waiting,
}

/// What became of sending a call.
enum Begun {
    Frames(Frames),
    /// It is no longer permitted and was not sent.
    NotPermitted,
    /// It was not sent, and this is the answer.
    Refused(Bytes),
}

/// What happened next in a flight.
enum Step {
    /// A message for the client that comes before the response.
    Message(Bytes),
    /// The response.
    Response {
        bytes: Bytes,
        is_error: bool,
    },
    Failed(UpstreamError),
    /// The token, or a right, was taken away.
    Cut,
    /// The caller said that it no longer wants the answer.
    Cancelled,
    /// The answer is complete.
    Over,
}

/// What a flight has to deal with next.
enum Next {
    Frame(Frame),
    /// Something about what the client was asked.
    Heard(Heard),
    Step(Step),
}

/// Sends a call to its upstream and answers with what comes.
pub(crate) async fn run(gateway: Arc<Inner>, request: Arc<Request>, target: Target) -> Response {
    if let Some(response) = stateful::elsewhere(&gateway, &request, &target.listed.server).await {
        return response;
    }
    let call = &request.call;
    let about = About {
        session: call.session.as_ref().map(|session| session.uuid),
        request_id: call.message.id(),
        method: call.message.method(),
        server: Some(target.listed.server.name.as_str()),
        tool: Some(&target.listed.own),
    };
    let retry_after_s = gateway.limits.retry_after_s;
    let Ok(mut running) = gateway.audit.start(&request.permit, about) else {
        return respond::overloaded(
            "this node cannot audit calls at the moment",
            retry_after_s,
            call.message.id(),
        );
    };
    let lane = stateful::lane(&gateway, &request, &target.listed.server);
    // A look before anything is begun. Where nothing has to be, the look before the request leaves comes at once.
    let (era, can) = (call.era(), call.can());
    if !lane.as_ref().is_ok_and(|lane| lane.upstream.is_open_in(era, can))
        && let Err(denial) = gateway.admission.still(&request.permit)
    {
        running.ends(denial.reason());
        return respond::denial(denial, retry_after_s, call.message.id());
    }
    Metrics::add(&gateway.metrics.calls);
    let cancellable = gateway.cancellable.listen(call, request.permit.signal());
    let target = Arc::new(target);
    let retry = (call.era() == Era::Modern).then(|| retry_of(&call.message)).flatten();
    let anew = match retry
        .as_ref()
        .map(|retry| after_urls(&gateway, &request, &target, retry))
    {
        Some(Err(refusal)) => {
            running.ends("error");
            return respond::refusal(&refusal, call.message.id());
        }
        Some(Ok(anew)) => anew,
        None => None,
    };
    let retry = retry.filter(|_| anew.is_none());
    let stage = match retry.and_then(|retry| resume(&gateway, &request, &target, retry)) {
        Some(Ok(held)) => Stage::Held(held),
        Some(Err(refusal)) => {
            running.ends("error");
            return respond::refusal(&refusal, call.message.id());
        }
        None => {
            let opening = open(gateway.clone(), lane, request.clone(), target.clone(), anew);
            Stage::Opening(Box::pin(opening))
        }
    };
    let flight = Flight {
        gateway,
        request,
        target,
        running,
        stage,
        asking: None,
        ready: VecDeque::new(),
        round: None,
        rounds: 0,
        _cancellable: cancellable,
        ended: false,
    };
    flight.answer().await
}

/// The request of a client that comes back from the URLs that it was to visit, as it was before; none if it comes back from something
/// else.
fn after_urls(gateway: &Inner, request: &Request, target: &Target, retry: &Retry) -> Result<Option<Message>, Refusal> {
    match urls::is_answer(gateway, request, target, retry) {
        None => Ok(None),
        Some(false) => Err(Refusal::inside(
            INVALID_PARAMS,
            "requestState belongs to another request",
        )),
        Some(true) if !all_accepted(&retry.answers) => Err(Refusal::inside(
            UPSTREAM_FAILED,
            format!(
                "server \"{}\" wants the user to visit a URL first, and that was not accepted; the request had no effect",
                target.listed.server.name
            ),
        )),
        Some(true) => Ok(first_time(&request.call.message)),
    }
}

/// Sends the call, or `again`, if it is sent once more with answers. Connecting, or starting a child, may take longer than a lease: so
/// the last look comes after that.
async fn open(
    gateway: Arc<Inner>,
    lane: Result<Lane, UpstreamError>,
    request: Arc<Request>,
    target: Arc<Target>,
    again: Option<Message>,
) -> Result<Begun, UpstreamError> {
    let Lane { upstream, guard } = lane?;
    // A call that is sent once more has its place already.
    if request.place.get().is_none() {
        let place = guard.enter(&*gateway.clock).await?;
        request.place.get_or_init(|| place);
    }
    let (era, can) = (request.call.era(), request.call.can());
    if !upstream.is_open_in(era, can) {
        let opened = upstream.open_in(era, can).await;
        guard.note(&opened, &*gateway.clock);
        opened?;
    }
    let call = &request.call;
    let message = again.as_ref().unwrap_or(&call.message);
    // A legacy server would not look at the state, and do it all once more.
    if call.era() == Era::Modern && retry_of(message).is_some() && upstream.open_in(era, can).await? == Era::Legacy {
        let refusal = Refusal::inside(INVALID_PARAMS, "requestState is not one that was given out here");
        return Ok(Begun::Refused(refusal.body(message.id())));
    }
    let note = match &call.session {
        Some(session) => notes::of(&gateway, session).await,
        None => Note::default(),
    };
    let listed = &target.listed;
    let is_resource = target.uri.is_some();
    let renamed = (!is_resource && message.name() != Some(&*listed.own)).then_some(&*listed.own);
    let modern = call.era() == Era::Modern;
    let params = listed.mirrored.build(message.arguments());
    let outgoing = Outgoing {
        message,
        name: renamed,
        uri: target.uri.as_deref().filter(|uri| message.uri() != Some(*uri)),
        params: &params,
        supply: match (modern, message.method()) {
            (false, _) => Supply::Nothing,
            (true, Some("resources/read")) => Supply::ResultTypeAndHints,
            (true, _) => Supply::ResultType,
        },
        logs: match (modern, message.meta_log_level()) {
            (false, _) => note.logs(),
            (true, None) => Logs::Off,
            (true, Some(level)) => Level::parse(level).map_or(Logs::All, Logs::From),
        },
        can,
        is_probe: false,
        owner: call.session.as_ref().map(|session| owner_of(session.uuid)),
        roots_changes: note.roots_changes,
        own: false,
    };
    upstream.prepare(&outgoing).await;
    if gateway.admission.still(&request.permit).is_err() {
        return Ok(Begun::NotPermitted);
    }
    let called = upstream.call(outgoing).await;
    guard.note(&called, &*gateway.clock);
    called.map(Begun::Frames)
}

impl Flight {
    /// The answer: one JSON body if the response comes first and soon, a stream otherwise.
    async fn answer(mut self) -> Response {
        let accepts = self.request.call.accepts;
        let first = match (accepts.events, accepts.json) {
            (false, _) => Some(self.last_step().await),
            (true, false) => None,
            (true, true) => self.step_soon().await,
        };
        match first {
            Some(Step::Message(bytes)) => {
                let first = self.event(&bytes);
                respond::events(stream::unfold((Some(first), self), Flight::next_event))
            }
            None => respond::events(stream::unfold((None, self), Flight::next_event)),
            Some(Step::Response { bytes, is_error }) => {
                self.running.sent(bytes.len());
                self.running.ends(if is_error { "error" } else { "ok" });
                respond::json(self.status_of(&bytes, is_error), bytes)
            }
            Some(Step::Failed(error)) => {
                if let Some(response) = self.ask_who_reaches_it(&error).await {
                    return response;
                }
                respond::json(StatusCode::OK, self.failed(&error))
            }
            Some(Step::Cut) => self.cut(),
            Some(Step::Cancelled | Step::Over) => respond::empty(StatusCode::ACCEPTED),
        }
    }

    /// The answer of the node that sees the server, where this one does not reach it and has sent nothing.
    async fn ask_who_reaches_it(&mut self, error: &UpstreamError) -> Option<Response> {
        let unreached = matches!(
            error.cause,
            Cause::Connect(_) | Cause::Down(_) | Cause::Handshake(_) | Cause::Resting(_)
        );
        let server = &self.target.listed.server;
        if !unreached || error.effect != Effect::None || self.request.forwarded || stateful::is_stateful(server) {
            return None;
        }
        let lists = self.gateway.replica.view().lists();
        let known = lists
            .get(&server.id)
            .filter(|known| known.list.health == Health::Healthy)?;
        let node = known.watch.as_ref().map(|watch| watch.node)?;
        if node == self.gateway.relay.node() || !self.gateway.cluster.answers(node) {
            return None;
        }
        let response = forward::to(&self.gateway, &self.request, node, None).await?;
        self.running.ends("forwarded");
        Some(response)
    }

    /// The HTTP status of a response: some errors of the modern era are to be seen by it.
    fn status_of(&self, response: &Bytes, is_error: bool) -> StatusCode {
        if !is_error || self.request.call.era() == Era::Legacy {
            return StatusCode::OK;
        }
        let error = Message::read(response.clone()).ok();
        match error.and_then(|error| error.error_code()) {
            Some(HEADER_MISMATCH | MISSING_CAPABILITY | UNSUPPORTED_VERSION) => StatusCode::BAD_REQUEST,
            Some(METHOD_NOT_FOUND) => StatusCode::NOT_FOUND,
            Some(_) | None => StatusCode::OK,
        }
    }

    /// The answer to a call that was cut: what became of the token; or, if that is still good and only some right somewhere
    /// went, or this replica cannot tell, that the call was ended. That is no 503: who is told to try again, or another replica,
    /// would make a call twice.
    fn cut(&self) -> Response {
        let cause = match self.gateway.admission.why_cut(&self.request.permit) {
            Some(Denial::NoLease) => "this replica cannot decide on tokens at the moment",
            Some(denial) => {
                return respond::denial(
                    denial,
                    self.gateway.limits.retry_after_s,
                    self.request.call.message.id(),
                );
            }
            None => "rights changed",
        };
        let server = self.target.listed.server.name.as_str();
        let data = serde_json::json!({"server": server, "cause": cause, "effect": "possible"});
        let message = format!("the call was ended because {cause}; it may have had an effect");
        let refusal = Refusal::inside(UPSTREAM_FAILED, message).with_data(data);
        respond::refusal(&refusal, self.request.call.message.id())
    }

    /// What comes next, if it comes soon.
    async fn step_soon(&mut self) -> Option<Step> {
        let mut timer = self.gateway.first_frame.start();
        let step = {
            let mut step = pin!(self.step());
            poll_fn(|cx| match step.as_mut().poll(cx) {
                Poll::Ready(step) => Poll::Ready(Some(step)),
                Poll::Pending => timer.as_mut().poll(cx).map(|()| None),
            })
            .await
        };
        self.gateway.first_frame.keep(timer);
        step
    }

    /// What comes next. May be dropped and called again without a loss.
    async fn step(&mut self) -> Step {
        if self.ended {
            return Step::Over;
        }
        let step = loop {
            if let Some(message) = self.ready.pop_front() {
                break Step::Message(message);
            }
            let step = match self.race().await {
                Next::Step(step) => Some(step),
                Next::Frame(Frame::Notification(bytes)) => Some(Step::Message(bytes)),
                Next::Frame(Frame::Response { bytes, is_error }) => self.responded(bytes, is_error),
                Next::Frame(Frame::Request(request)) => self.ask(&request),
                Next::Frame(Frame::Withdrawn(id)) => {
                    let notice = self.asking.as_mut().and_then(|asking| asking.withdraw(&id));
                    notice.map(Step::Message)
                }
                Next::Heard(heard) if self.round.is_some() => self.heard_in_round(heard),
                Next::Heard(heard) => self.hear(heard).map(Step::Message),
            };
            if let Some(step) = step {
                break step;
            }
        };
        match &step {
            Step::Message(_) => {}
            Step::Response { .. } | Step::Failed(_) | Step::Over => self.ended = true,
            Step::Cut => {
                self.ended = true;
                Metrics::add(&self.gateway.metrics.calls_cut);
                self.running.ends("cut");
            }
            Step::Cancelled => {
                self.ended = true;
                Metrics::add(&self.gateway.metrics.calls_cancelled);
                self.running.ends("cancelled");
            }
        }
        step
    }

    async fn race(&mut self) -> Next {
        let signal = self.request.permit.signal();
        let asking = &mut self.asking;
        let mut next = pin!(next_frame(&mut self.stage));
        poll_fn(|cx| match signal.poll_raised(Signal::CUT | Signal::GIVEN_UP, cx) {
            Poll::Ready(raised) if raised & Signal::CUT != 0 => Poll::Ready(Next::Step(Step::Cut)),
            Poll::Ready(_) => Poll::Ready(Next::Step(Step::Cancelled)),
            Poll::Pending => {
                if let Some(Poll::Ready(heard)) = asking.as_mut().map(|asking| asking.poll(cx)) {
                    return Poll::Ready(Next::Heard(heard));
                }
                next.as_mut()
                    .poll(cx)
                    .map(|next| next.unwrap_or_else(|error| Next::Step(Step::Failed(error))))
            }
        })
        .await
    }

    /// For a client that takes no stream: the response, without what came before it.
    async fn last_step(&mut self) -> Step {
        loop {
            match self.step().await {
                Step::Message(_) => {}
                step => return step,
            }
        }
    }

    /// The next event of the stream; none when it is over.
    async fn next_event(
        (ready, mut flight): (Option<Bytes>, Flight),
    ) -> Option<(Result<Bytes, Infallible>, (Option<Bytes>, Flight))> {
        if let Some(ready) = ready {
            return flight.permitted(ready).await.map(|event| (Ok(event), (None, flight)));
        }
        let quiet = Duration::from_millis(flight.gateway.limits.comment_every_ms);
        let event = match tokio::time::timeout(quiet, flight.step()).await {
            Err(_) => Bytes::from_static(sse::COMMENT),
            Ok(Step::Message(bytes)) => flight.event(&bytes),
            Ok(Step::Response { bytes, is_error }) => {
                flight.running.ends(if is_error { "error" } else { "ok" });
                flight.event(&bytes)
            }
            Ok(Step::Failed(error)) => {
                let body = flight.failed(&error);
                flight.event(&body)
            }
            Ok(Step::Cut | Step::Cancelled | Step::Over) => return None,
        };
        flight.permitted(event).await.map(|event| (Ok(event), (None, flight)))
    }

    /// The event, if it may still be written: token and lease are looked at once more.
    async fn permitted(&mut self, event: Bytes) -> Option<Bytes> {
        match self.gateway.admission.still_or_soon(&self.request.permit).await {
            Ok(()) => Some(event),
            Err(denial) => {
                self.ended = true;
                self.running.ends(denial.reason());
                None
            }
        }
    }

    fn event(&mut self, message: &[u8]) -> Bytes {
        self.running.sent(message.len());
        sse::event(message)
    }

    /// What the caller is told of an upstream that did not answer.
    fn failed(&mut self, error: &UpstreamError) -> Bytes {
        Metrics::add(&self.gateway.metrics.calls_failed);
        self.running.ends("upstream_failed");
        let server = &self.target.listed.server.name;
        let (effect, said) = match error.effect {
            Effect::None => ("none", "the request was not sent"),
            Effect::Possible => ("possible", "the request may have had an effect"),
        };
        let cause = self
            .gateway
            .upstreams
            .scrubbed(self.target.listed.server.id, error.to_string());
        let message = format!("server \"{server}\": {cause}; {said}");
        let data = serde_json::json!({"server": server.as_str(), "cause": cause, "effect": effect});
        Refusal::inside(UPSTREAM_FAILED, message)
            .with_data(data)
            .body(self.request.call.message.id())
    }
}

async fn next_frame(stage: &mut Stage) -> Result<Next, UpstreamError> {
    if let Stage::Opening(opening) = stage {
        match opening.await? {
            Begun::Frames(frames) => *stage = Stage::Flowing(frames),
            Begun::NotPermitted => return Ok(Next::Step(Step::Cut)),
            Begun::Refused(bytes) => {
                let is_error = true;
                return Ok(Next::Step(Step::Response { bytes, is_error }));
            }
        }
    }
    match stage {
        Stage::Flowing(frames) => Ok(frames.next().await?.map_or(Next::Step(Step::Over), Next::Frame)),
        Stage::Held(held) => Ok(held.next().await?.map_or(Next::Step(Step::Over), Next::Frame)),
        Stage::Waiting => std::future::pending().await,
        Stage::Opening(_) => Ok(Next::Step(Step::Over)),
    }
}
