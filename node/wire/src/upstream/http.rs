//! An upstream over streamable HTTP.

mod aside;
mod modern;
mod owned;
mod stream;

use std::borrow::Cow;
use std::collections::VecDeque;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use ::http::header::{ACCEPT, CONTENT_TYPE, HOST, LOCATION};
use ::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http_body_util::Full;
use rustls::ClientConfig;
use tokio::sync::{Mutex, Semaphore, broadcast, watch};
use tokio_util::task::AbortOnDropHandle;

use self::aside::{Aside, Listening, Words};
use self::modern::Modern;
use self::owned::Owned;
use super::answer::{Messages, collect, innermost};
use super::frames::{Frames, Source};
use super::handshake::{self, Exchange, Opened};
use super::watching::{Updates, Watched};
use super::{CallLimits, Cause, Effect, For, Outgoing, Said, State, UpstreamError, own_answer};
use crate::can::ClientCan;
use crate::headers;
use crate::limits;
use crate::message::{Kind, Message};
use crate::pool::{Answer, Pool, SendFailed, Target};
use crate::reach::Reach;
use crate::refusal::{METHOD_NOT_FOUND, Refusal, result_body};
use crate::splice::Forward;
use crate::version::Era;

const BOTH_KINDS: HeaderValue = HeaderValue::from_static("application/json, text/event-stream");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The pool of HTTP connections that upstreams share.
#[derive(Clone)]
pub struct HttpPool(pub(crate) Pool);

impl HttpPool {
    /// A pool that trusts what `tls` trusts, and connects to what `reach` allows.
    pub fn new(tls: Arc<ClientConfig>, reach: Reach) -> HttpPool {
        HttpPool(Pool::new(tls, reach))
    }
}

/// Where an HTTP upstream is and how to talk to it.
#[derive(Clone)]
pub struct HttpConfig {
    /// The MCP endpoint.
    pub url: Uri,
    /// Headers of every request, credentials among them. Never shown.
    pub headers: HeaderMap,
    /// Limits of its calls.
    pub limits: CallLimits,
}

impl std::fmt::Debug for HttpConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpConfig")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

/// The connection to one HTTP upstream.
pub(super) struct HttpLink {
    wire: Arc<Wire>,
    /// One for every set of capabilities for which one was needed: a server decides by them what it does.
    sessions: Box<[ArcSwapOption<Session>; For::SLOTS]>,
    /// Those of one client each.
    owned: Owned,
    /// How to speak to it in the newer era, where it knows both.
    modern: Modern,
    /// The resources that are watched here.
    watched: Watched,
    /// Holds the server's own stream.
    listener: OnceLock<AbortOnDropHandle<()>>,
    /// Whether it does.
    holds: watch::Sender<bool>,
    /// What became of the last attempt to open a session, for those who waited for it.
    opening: Mutex<Option<UpstreamError>>,
    attempts: AtomicU64,
    state: RwLock<State>,
}

/// An open session, with the headers of its requests made once.
pub(super) struct Session {
    opened: Arc<Opened>,
    headers: HeaderMap,
    /// Who hears what the server says on the session's stream, and what holds that.
    aside: Option<(Arc<Aside>, AbortOnDropHandle<()>)>,
}

impl Session {
    /// Whether the server knows it by an id.
    pub(super) fn has_id(&self) -> bool {
        self.opened.session_id.is_some()
    }
}

/// What outlives a session: where to send, and as what.
struct Wire {
    pool: Pool,
    config: HttpConfig,
    /// None: the URL names no host.
    target: Option<Target>,
    ids: AtomicU64,
    changes: watch::Sender<u64>,
    updates: Updates,
    said: Words,
    /// Whether the server has ever asked for roots.
    asks_for_roots: AtomicBool,
    /// Places for answers to what the server asks of us.
    aside: Arc<Semaphore>,
}

/// As whom we speak on our own account: as one that can do all that a client may.
const OWN: For = For::Us(ClientCan::ALL);

/// The rest of an answer that is on its way: of a stream that is taken up again, for instance.
type Resuming = std::pin::Pin<Box<dyn Future<Output = Result<Messages, UpstreamError>> + Send>>;

impl HttpLink {
    pub(super) fn new(pool: &HttpPool, config: HttpConfig) -> HttpLink {
        let wire = Wire {
            pool: pool.0.clone(),
            target: Target::of(&config.url),
            config,
            ids: AtomicU64::new(first_id()),
            changes: watch::Sender::new(0),
            updates: Updates::default(),
            said: Words::default(),
            asks_for_roots: AtomicBool::new(false),
            aside: Arc::new(Semaphore::new(limits::ANSWERS_ASIDE_MAX)),
        };
        HttpLink {
            wire: Arc::new(wire),
            sessions: Box::new([const { ArcSwapOption::const_empty() }; For::SLOTS]),
            owned: Owned::default(),
            modern: Modern::default(),
            watched: Watched::default(),
            listener: OnceLock::new(),
            holds: watch::Sender::new(false),
            opening: Mutex::new(None),
            attempts: AtomicU64::new(0),
            state: RwLock::new(State::Idle),
        }
    }

    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.wire.changes.subscribe()
    }

    pub(super) fn updates(&self) -> broadcast::Receiver<Arc<str>> {
        self.wire.updates.subscribe()
    }

    pub(super) fn said(&self) -> broadcast::Receiver<Said> {
        self.wire.said.subscribe()
    }

    /// Holds the server's own stream from now on. Many servers have one for a session and no more: whoever listens besides gives way.
    fn hold_stream(self: &Arc<Self>) {
        self.holds.send_replace(true);
        self.listener
            .get_or_init(|| AbortOnDropHandle::new(tokio::spawn(stream::hold(Arc::downgrade(self)))));
    }

    /// Waits until the server's own stream is held.
    pub(super) async fn stream_is_held(&self) {
        if self.holds.subscribe().wait_for(|holds| *holds).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    pub(super) async fn watch(self: &Arc<Self>, uri: &str) -> Result<(), UpstreamError> {
        let opened = self.open(OWN).await?.opened.clone();
        opened.can_watch()?;
        self.hold_stream();
        if self.watched.add(uri) && opened.revision.era() == Era::Legacy {
            let subscribed = self.ask("resources/subscribe", uri).await;
            subscribed.inspect_err(|_| {
                self.watched.remove(uri);
            })?;
        }
        Ok(())
    }

    pub(super) async fn unwatch(&self, uri: &str) -> Result<(), UpstreamError> {
        let legacy = |session: Arc<Session>| session.opened.revision.era() == Era::Legacy;
        if self.watched.remove(uri) && self.session(OWN).is_some_and(legacy) {
            self.ask("resources/unsubscribe", uri).await?;
        }
        Ok(())
    }

    /// A request of our own about a resource.
    async fn ask(&self, method: &str, uri: &str) -> Result<(), UpstreamError> {
        let message = Message::request(0, method, &serde_json::json!({ "uri": uri }).to_string());
        own_answer(self.call_in(OWN, Outgoing::new(&message)).await?)
            .await
            .map(drop)
    }

    pub(super) fn state(&self) -> State {
        self.state.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn limits(&self) -> CallLimits {
        self.wire.config.limits
    }

    /// Counts a notice that a list has changed.
    pub(super) fn lists_changed(&self) {
        self.wire.lists_changed();
    }

    /// Sends what nobody waits for.
    pub(super) fn post_aside(&self, session: &Arc<Session>, body: Bytes) {
        self.wire.post_aside(&session.headers, body);
    }

    fn set_state(&self, state: State) {
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = state;
    }

    fn session(&self, whose: For) -> Option<Arc<Session>> {
        self.sessions[whose.slot()].load_full()
    }

    /// Whether a session is open for such clients.
    fn is_open(&self, whose: For) -> bool {
        self.sessions[whose.slot()].load().is_some()
    }

    /// How to speak to the server on our own account: in the newer era, if it knows that.
    pub(super) async fn opened(&self, whose: For) -> Result<Arc<Opened>, UpstreamError> {
        if whose == OWN
            && let Some(session) = self.open_modern().await?
        {
            return Ok(session.opened.clone());
        }
        self.open(whose).await.map(|session| session.opened.clone())
    }

    /// The open session of the older era, or of the newer one where a server knows only that; one caller opens it, the others wait for
    /// that.
    pub(super) async fn open(&self, whose: For) -> Result<Arc<Session>, UpstreamError> {
        if let Some(opened) = self.session(whose) {
            return Ok(opened);
        }
        let attempts = self.attempts.load(Ordering::Acquire);
        let mut failed = self.opening.lock().await;
        if let Some(opened) = self.session(whose) {
            return Ok(opened);
        }
        // Who has waited for an attempt does not wait for the next one: a hundred callers of a server that hangs wait once.
        if self.attempts.load(Ordering::Acquire) != attempts
            && let Some(error) = &*failed
        {
            return Err(error.clone());
        }
        // What it has taken to find out that the server is silent where it is asked in the newer era, is gone.
        let limit = self.wire.config.limits.handshake_ms - self.modern.spent_ms();
        let capabilities = whose.can().json();
        let opened = tokio::time::timeout(
            Duration::from_millis(limit),
            handshake::open(&*self.wire, &capabilities),
        )
        .await
        .unwrap_or_else(|_| Err(UpstreamError::before(Cause::Deadline(limit))))
        .inspect_err(|error| {
            self.set_state(State::BackingOff {
                reason: error.to_string(),
            })
        });
        self.modern.silence_was(opened.is_ok());
        self.attempts.fetch_add(1, Ordering::AcqRel);
        *failed = opened.as_ref().err().cloned();
        let session = match whose {
            For::Client(can) if can != ClientCan::NOTHING => self.session_of(opened?, None).await,
            For::Client(_) | For::Us(_) => self.plain_session(opened?),
        };
        match session.opened.revision.era() {
            Era::Legacy => self.sessions[whose.slot()].store(Some(session.clone())),
            // It is told with every request what the client can do.
            Era::Modern => self.sessions.iter().for_each(|one| one.store(Some(session.clone()))),
        }
        self.set_state(State::Running);
        Ok(session)
    }

    fn plain_session(&self, opened: Opened) -> Arc<Session> {
        Arc::new(Session {
            headers: self.wire.session_headers(&opened),
            opened: Arc::new(opened),
            aside: None,
        })
    }

    /// A session in which the server may say something to clients: to `owner`, or to all that share it.
    async fn session_of(&self, opened: Opened, owner: Option<u128>) -> Arc<Session> {
        if opened.revision.era() == Era::Modern {
            return self.plain_session(opened);
        }
        let headers = self.wire.session_headers(&opened);
        let aside = Aside::new(owner);
        let stream = aside::begin(&self.wire, &headers, &aside).await;
        Arc::new(Session {
            opened: Arc::new(opened),
            headers,
            aside: Some((aside, stream)),
        })
    }

    /// Forgets a session that the upstream no longer knows, unless a newer one is in use already.
    fn forget(&self, whose: For, gone: &Arc<Session>) {
        self.sessions[whose.slot()].compare_and_swap(gone, None);
        self.modern.forget();
    }

    /// Whether nothing has to be found out or begun before a request of this era, of such a client, can be sent.
    pub(super) fn is_open_in(&self, era: Era, can: ClientCan) -> bool {
        match (era, self.modern.answer()) {
            (Era::Modern, Some(true)) => true,
            (Era::Modern, None) => false,
            (Era::Legacy, _) | (Era::Modern, Some(false)) => self.is_open(For::Client(can)),
        }
    }

    /// Opens what such a request travels in: in which era.
    pub(super) async fn open_in(&self, era: Era, can: ClientCan) -> Result<Era, UpstreamError> {
        if era == Era::Modern && self.open_modern().await?.is_some() {
            return Ok(Era::Modern);
        }
        let session = self.open(For::Client(can)).await?;
        Ok(session.opened.revision.era())
    }

    pub(super) async fn call(&self, outgoing: Outgoing<'_>) -> Result<Frames, UpstreamError> {
        // Before our own way to speak to a server is known, the newer one is tried.
        let modern = outgoing.message.names_protocol_version() || (outgoing.own && outgoing.can == OWN.can());
        if modern && let Some(session) = self.open_modern().await? {
            match self.wire.call(&session, outgoing).await {
                Err(error) if modern::is_refusal_of_era(&error) => self.modern.forget(),
                answer => return answer,
            }
        }
        if let Some(session) = self.owned.session(outgoing.owner) {
            match self.wire.call(&session, outgoing).await {
                Err(UpstreamError {
                    cause: Cause::SessionGone,
                    ..
                }) => self.forget_owned(outgoing.owner),
                answer => return answer,
            }
            self.prepare(&outgoing).await;
            if let Some(session) = self.owned.session(outgoing.owner) {
                return self.wire.call(&session, outgoing).await;
            }
        }
        let whose = match outgoing.own {
            true => For::Us(outgoing.can),
            false => For::Client(outgoing.can),
        };
        self.call_in(whose, outgoing).await
    }

    /// Sends a request in the session of the older era, if there is one; in a new one if the server has forgotten it.
    async fn call_in(&self, whose: For, outgoing: Outgoing<'_>) -> Result<Frames, UpstreamError> {
        let session = self.open(whose).await?;
        match self.wire.call(&session, outgoing).await {
            Err(UpstreamError {
                cause: Cause::SessionGone,
                ..
            }) => {
                self.forget(whose, &session);
                let session = self.open(whose).await?;
                self.wire.call(&session, outgoing).await
            }
            answer => answer,
        }
    }

    pub(super) async fn close(&self) {
        let mut sessions: Vec<_> = self.sessions.iter().filter_map(|session| session.swap(None)).collect();
        sessions.extend(self.owned.take(|_| true));
        self.set_state(State::Stopped);
        self.end_sessions(&sessions).await;
    }

    async fn end_sessions(&self, sessions: &[Arc<Session>]) {
        let Some(target) = &self.wire.target else { return };
        let limit = Duration::from_millis(limits::LEAVE_MS);
        for session in sessions.iter().filter(|session| session.opened.session_id.is_some()) {
            let request = request(Method::DELETE, &session.headers, Bytes::new());
            if let Err(error) = self.wire.pool.request(target, request, limit).await {
                // Nor will the others be, by a server that does not answer.
                return tracing::debug!(%error, "upstream session not ended");
            }
        }
    }
}

impl Wire {
    fn lists_changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    fn note_roots(&self) {
        self.asks_for_roots.store(true, Ordering::Relaxed);
    }

    fn asks_for_roots(&self) -> bool {
        self.asks_for_roots.load(Ordering::Relaxed)
    }

    /// Answers what the server asks of us, unless so many answers are under way that it seems to want nothing else.
    fn post_aside(self: &Arc<Self>, headers: &HeaderMap, body: Bytes) {
        let Ok(room) = self.aside.clone().try_acquire_owned() else {
            return tracing::debug!("an upstream asks faster than it takes answers");
        };
        let (wire, headers) = (self.clone(), headers.clone());
        tokio::spawn(async move {
            match wire.post(&headers, body).await {
                Ok(answer) if answer.status().is_success() => {}
                Ok(answer) => tracing::debug!(status = %answer.status(), "upstream refused an answer"),
                Err(error) => tracing::debug!(%error, "upstream request not answered"),
            }
            drop(room);
        });
    }

    fn next_id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }

    /// What every request carries, in a session or before one.
    fn base_headers(&self) -> HeaderMap {
        let mut all = self.config.headers.clone();
        all.insert(ACCEPT, BOTH_KINDS);
        all.insert(CONTENT_TYPE, JSON);
        // Here, because headers are copied for every request and this one would make the copy grow.
        if let Some(target) = &self.target {
            all.entry(HOST).or_insert_with(|| target.host().clone());
        }
        all
    }

    fn session_headers(&self, opened: &Opened) -> HeaderMap {
        let mut all = self.base_headers();
        all.insert(
            headers::PROTOCOL_VERSION,
            HeaderValue::from_static(opened.revision.as_str()),
        );
        if let Some(id) = &opened.session_id {
            all.insert(headers::SESSION_ID, id.clone());
        }
        all
    }

    async fn call(self: &Arc<Self>, session: &Arc<Session>, outgoing: Outgoing<'_>) -> Result<Frames, UpstreamError> {
        let id = self.next_id();
        let opened = &session.opened;
        let era = opened.revision.era();
        let outgoing = outgoing.to_era(era);
        let forward = Forward {
            id,
            name: outgoing.name,
            uri: outgoing.uri,
            era: Some(era),
            can: outgoing.can,
            level: outgoing.logs.level(),
        };
        // Before it is sent: what the server says because of it may come first.
        let aside = session
            .aside
            .as_ref()
            .map(|(aside, _)| aside.listen(id, outgoing.owner, self.config.limits.idle_ms));
        let body = forward.splice(outgoing.message);
        let (source, resuming, aside) = match (era, aside) {
            (Era::Modern, _) => {
                let answer = self.post(&modern_headers(session, outgoing), body).await?;
                (self.source(answer, id, false).await?, None, None)
            }
            (Era::Legacy, None) => {
                let answer = self.post(&session.headers, body).await?;
                (self.source(answer, id, session.has_id()).await?, None, None)
            }
            (Era::Legacy, Some(mut aside)) => {
                let (source, resuming) = self.begin_answer(session, id, body, &mut aside).await?;
                (source, resuming, Some(aside))
            }
        };
        let frames = HttpFrames {
            source,
            id,
            finished: false,
            aside,
            resuming,
            wire: self.clone(),
            session: session.clone(),
        };
        Ok(Frames::new(
            Source::Http(Box::new(frames)),
            &outgoing,
            self.config.limits,
        ))
    }

    /// Sends a request and waits for the head of its answer, or for what the server says of it before that: some answer with one body,
    /// and ask on the session's stream what goes into it.
    async fn begin_answer(
        self: &Arc<Self>,
        session: &Arc<Session>,
        id: u64,
        body: Bytes,
        aside: &mut Listening,
    ) -> Result<(Messages, Option<Resuming>), UpstreamError> {
        let (wire, of) = (self.clone(), session.clone());
        let mut answer: Resuming = Box::pin(async move {
            let answer = wire.post(&of.headers, body).await?;
            wire.source(answer, id, of.has_id()).await
        });
        tokio::select! {
            biased;
            source = &mut answer => {
                if matches!(&source, Err(error) if error.effect == Effect::None) {
                    aside.finish();
                }
                Ok((source?, None))
            }
            () = aside.heard() => Ok((Messages::Known(VecDeque::new()), Some(answer))),
        }
    }

    /// Sends a body and waits for the head of the answer, following redirects within the origin.
    async fn post(&self, headers: &HeaderMap, body: Bytes) -> Result<Response<Answer>, UpstreamError> {
        let mut target = Cow::Borrowed(self.target.as_ref().ok_or_else(no_host)?);
        for _ in 0..=limits::REDIRECTS_MAX {
            let idle = self.config.limits.first_byte_ms.unwrap_or(self.config.limits.idle_ms);
            let request = request(Method::POST, headers, body.clone());
            let answer = self.pool.request(&target, request, Duration::from_millis(idle)).await;
            let answer = answer.map_err(|error| sending_failed(&error, idle))?;
            match redirect(&self.config.url, &answer)? {
                None => return Ok(answer),
                Some(elsewhere) => target = Cow::Owned(Target::of(&elsewhere).ok_or_else(no_host)?),
            }
        }
        Err(UpstreamError::before(Cause::Rubbish("too many redirects".into())))
    }

    async fn source(&self, answer: Response<Answer>, id: u64, has_session: bool) -> Result<Messages, UpstreamError> {
        let status = answer.status();
        let kind = answer
            .headers()
            .get(CONTENT_TYPE)
            .and_then(|kind| kind.to_str().ok())
            .unwrap_or_default();
        let is = |name: &str| {
            kind.get(..name.len())
                .is_some_and(|kind| kind.eq_ignore_ascii_case(name))
        };
        let bytes_max = self.config.limits.answer_bytes_max;
        if status.is_success() && is("text/event-stream") {
            return Ok(Messages::events(answer.into_body(), bytes_max));
        }
        if status.is_success() && is("application/json") {
            return Ok(Messages::body(answer.into_body(), bytes_max));
        }
        if status.is_success() {
            return Err(UpstreamError::after(Cause::Rubbish(format!(
                "HTTP status {status}, content type \"{kind}\""
            ))));
        }
        if status == StatusCode::NOT_FOUND && has_session {
            return Err(UpstreamError::before(Cause::SessionGone));
        }
        let body = collect(answer.into_body(), bytes_max, self.config.limits.idle_ms).await;
        self.refused(status, body.unwrap_or_default(), id, has_session)
    }

    /// An answer with an error status: the JSON-RPC error in it, if it holds one.
    fn refused(&self, status: StatusCode, body: Bytes, id: u64, has_session: bool) -> Result<Messages, UpstreamError> {
        // Some servers say 400 where the specification wants 404 for a session they do not know.
        let forgot = |body: &str| body.contains("ession") && (body.contains("-32000") || body.contains("-32001"));
        if status == StatusCode::BAD_REQUEST && has_session && forgot(&String::from_utf8_lossy(&body)) {
            return Err(UpstreamError::before(Cause::SessionGone));
        }
        // These say who is let in and whether anybody is, whatever the body says besides.
        let of_the_door = [401, 403, 429, 503].contains(&status.as_u16());
        match Message::read(body) {
            Ok(message) if !of_the_door && message.error().is_some() && answers(&message, id) => {
                Ok(Messages::Known(VecDeque::from([message])))
            }
            Ok(_) | Err(_) => Err(UpstreamError::after(Cause::Status(status.as_u16()))),
        }
    }
}

/// Where the ids of a link begin. Several nodes speak to one server, and the retry of a call may come from another node than the call:
/// it is to have another id. Far below what a number in JSON can be.
fn first_id() -> u64 {
    (RandomState::new().build_hasher().finish() >> 16) + 1
}

fn no_host() -> UpstreamError {
    UpstreamError::before(Cause::Connect("the URL names no host".to_owned()))
}

pub(super) fn request(method: Method, headers: &HeaderMap, body: Bytes) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = method;
    *request.headers_mut() = headers.clone();
    request
}

impl Exchange for Wire {
    async fn ask(&self, era: Era, method: &str, params: &str) -> Result<(Message, Option<HeaderValue>), UpstreamError> {
        let id = self.next_id();
        let mut all = self.base_headers();
        match era {
            Era::Modern => headers::modern_headers(crate::version::NEWEST_MODERN, method, None, &mut all),
            // A server of the newer era looks for it before it sees what is asked.
            Era::Legacy => drop(all.insert(headers::METHOD, HeaderValue::from_static("initialize"))),
        }
        let answer = self
            .post(&all, Message::request(id, method, params).bytes().clone())
            .await?;
        let session_id = answer.headers().get(headers::SESSION_ID).cloned();
        let mut source = self.source(answer, id, false).await?;
        loop {
            let message = source.next(&self.config.limits).await?;
            if message.kind() == Kind::Response {
                return Ok((message, session_id));
            }
        }
    }

    async fn say_initialized(&self, opened: &Opened) -> Result<(), UpstreamError> {
        let note = Bytes::from_static(br#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#);
        let answer = self.post(&self.session_headers(opened), note).await?;
        match answer.status().is_success() {
            true => Ok(()),
            false => Err(UpstreamError::before(Cause::Status(answer.status().as_u16()))),
        }
    }
}

/// The headers of a modern request, which repeat what its body says.
fn modern_headers(session: &Session, outgoing: Outgoing<'_>) -> HeaderMap {
    let message = outgoing.message;
    let name = match message.method() {
        Some("resources/read") => outgoing.uri.or(message.uri()),
        Some("tools/call" | "prompts/get") => outgoing.name.or(message.name()),
        Some(_) | None => None,
    };
    let mut all = session.headers.clone();
    headers::modern_headers(
        session.opened.revision,
        message.method().unwrap_or_default(),
        name,
        &mut all,
    );
    all.extend(
        outgoing
            .params
            .iter()
            .map(|(name, value)| (Some(name.clone()), value.clone())),
    );
    all
}

/// Whether a response belongs to our request; an error that names no id does, on a connection of its own.
fn answers(response: &Message, id: u64) -> bool {
    match response.id() {
        Some("null") | None => response.error().is_some(),
        Some(raw) => raw.parse() == Ok(id),
    }
}

/// The target of a redirect within the origin; none if the answer is no redirect.
fn redirect(from: &Uri, answer: &Response<Answer>) -> Result<Option<Uri>, UpstreamError> {
    if !answer.status().is_redirection() {
        return Ok(None);
    }
    let refused = |why: &str| UpstreamError::before(Cause::Rubbish(format!("redirect not followed: {why}")));
    if !matches!(
        answer.status(),
        StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT
    ) {
        return Err(refused(answer.status().as_str()));
    }
    let location = answer
        .headers()
        .get(LOCATION)
        .and_then(|location| location.to_str().ok());
    let target: Uri = location
        .and_then(|location| location.parse().ok())
        .ok_or_else(|| refused("no location"))?;
    if target.authority().is_some() && (target.scheme() != from.scheme() || target.authority() != from.authority()) {
        return Err(refused("it leads to another origin"));
    }
    let mut parts = from.clone().into_parts();
    parts.path_and_query = target.into_parts().path_and_query;
    Uri::from_parts(parts).map(Some).map_err(|_| refused("no location"))
}

pub(super) fn sending_failed(error: &SendFailed, limit_ms: u64) -> UpstreamError {
    let why = innermost(error);
    match error {
        SendFailed::Connect(_) => UpstreamError::before(Cause::Connect(why)),
        SendFailed::Exchange(_) => UpstreamError::after(Cause::Closed(why)),
        SendFailed::Late => UpstreamError::after(Cause::Deadline(limit_ms)),
    }
}

/// The messages of one call.
pub(super) struct HttpFrames {
    source: Messages,
    id: u64,
    finished: bool,
    /// What the server says of it on the session's stream.
    aside: Option<Listening>,
    /// What comes after `source`.
    resuming: Option<Resuming>,
    wire: Arc<Wire>,
    session: Arc<Session>,
}

impl HttpFrames {
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    pub(super) fn finish(&mut self) {
        self.finished = true;
        if let Some(aside) = &mut self.aside {
            aside.finish();
        }
    }

    /// The next message, after a silence of `idle_ms` at most.
    pub(super) async fn next(&mut self, idle_ms: u64) -> Result<Message, UpstreamError> {
        let limits = CallLimits {
            idle_ms,
            ..self.wire.config.limits
        };
        loop {
            let message = self.next_of_either(&limits).await?;
            match message.kind() {
                Kind::Response if answers(&message, self.id) => return Ok(message),
                Kind::Response => {
                    return Err(UpstreamError::after(Cause::Rubbish(
                        "a response to another request".into(),
                    )));
                }
                Kind::Notification if is_list_change(&message) => self.wire.lists_changed(),
                Kind::Notification => return Ok(message),
                Kind::Request if message.method() == Some("ping") => self.say_if_room(pong(&message)),
                Kind::Request => {
                    if message.method() == Some("roots/list") {
                        self.wire.note_roots();
                    }
                    return Ok(message);
                }
            }
        }
    }

    /// The next message of the answer, or of what the session's stream has about it, which goes first: both are for the client before the
    /// response.
    async fn next_of_either(&mut self, limits: &CallLimits) -> Result<Message, UpstreamError> {
        let HttpFrames {
            source,
            aside,
            resuming,
            wire,
            session,
            ..
        } = self;
        let beside = async {
            match aside {
                Some(aside) => aside.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            message = beside => Ok(message),
            message = stream::next_resumed(source, resuming, wire, session, limits) => message,
        }
    }

    /// Answers what the server asks of us and not of the client.
    pub(super) fn say_if_room(&self, body: Bytes) {
        if self.session.opened.revision.era() == Era::Legacy {
            self.wire.post_aside(&self.session.headers, body);
        }
    }

    /// Sends what belongs to this call and is no request: an answer to one of the server's, or a notification. A modern server
    /// takes neither.
    pub(super) fn say(&self, body: Bytes) {
        if self.session.opened.revision.era() == Era::Modern {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let (wire, session) = (self.wire.clone(), self.session.clone());
        runtime.spawn(async move {
            match wire.post(&session.headers, body).await {
                Ok(answer) if answer.status().is_success() => {}
                Ok(answer) => tracing::debug!(status = %answer.status(), "upstream refused an answer"),
                Err(error) => tracing::debug!(%error, "upstream request not answered"),
            }
        });
    }
}

impl Drop for HttpFrames {
    /// Giving up a call: a modern upstream notices the closed stream; a legacy one must be told.
    fn drop(&mut self) {
        if !self.finished {
            self.say(Bytes::from(cancelled(self.id)));
        }
    }
}

/// The notification that cancels one of our requests.
pub(super) fn cancelled(id: u64) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{id},"reason":"the caller went away"}}}}"#
    )
}

/// What a server gets that asks on its own stream where no client can be said to be meant.
pub(super) fn answer_to_server(request: &Message) -> Bytes {
    let id = request.id().unwrap_or("null");
    match request.method() {
        Some("ping") => pong(request),
        Some(_) | None => Refusal::bad(
            METHOD_NOT_FOUND,
            "calls of several clients are under way, or none, and this request does not say to whom it belongs",
        )
        .body(Some(id)),
    }
}

/// The answer to a server's ping.
pub(super) fn pong(request: &Message) -> Bytes {
    result_body(request.id().unwrap_or("null"), "{}")
}

/// Whether a notification says that a list is out of date.
pub(super) fn is_list_change(message: &Message) -> bool {
    matches!(
        message.method(),
        Some(
            "notifications/tools/list_changed"
                | "notifications/prompts/list_changed"
                | "notifications/resources/list_changed"
        )
    )
}
