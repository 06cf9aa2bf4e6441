//! Resources that clients watch. A legacy session may subscribe on one replica and hold its stream on another, so whoever took the
//! subscription keeps it and tells the one that holds the stream; a modern subscription and its stream are one request.
//!
//! A change is told by its URI only, and only after the stream has looked once more at what its client may read.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::response::Response;
use bytes::Bytes;
use dashmap::DashMap;
use http::StatusCode;
use mcp_model::ids::Id;
use mcp_wire::refusal::{INVALID_PARAMS, INVALID_REQUEST, METHOD_NOT_FOUND, RESOURCE_NOT_FOUND, Refusal, result_body};
use mcp_wire::upstream::{Cause, Upstream, UpstreamError, Watch};
use mcp_wire::version::Era;
use serde_json::json;
use tokio::sync::{broadcast, mpsc};
use tokio_util::sync::CancellationToken;

use crate::Inner;
use crate::audit::About;
use crate::dispatch::{Request, not_found, permitted, refuse};
use crate::lists::List;
use crate::{relay, respond, stateful};

/// Resources that one session or stream may watch.
pub(crate) const WATCHED_MAX: usize = 256;
/// Sessions whose subscriptions this node keeps; the oldest go first.
const SESSIONS_MAX: usize = 10_000;
/// Changes that wait for one stream; it misses those that come while so many wait.
const WAITING_MAX: usize = 64;

/// A resource has changed: whose, and what its server calls it.
#[derive(Debug, Clone)]
pub(crate) struct Changed {
    pub(crate) server: Id,
    /// The session whose child said so, where sessions have children of their own: nobody else is told.
    pub(crate) session: Option<Id>,
    pub(crate) uri: Arc<str>,
}

/// What the stream of a client is told.
#[derive(Debug, Clone)]
pub(crate) enum Told {
    /// A resource that it watches has changed.
    Updated(Arc<str>),
    /// A server has said this in the session that it has for this client.
    Said { server: Id, message: Bytes },
}

/// Who watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Watcher {
    Session(Id),
    Stream(u64),
}

/// One resource that is watched, as long as this is kept.
struct Watched {
    server: Id,
    own: String,
    shown: Arc<str>,
    _watch: Watch,
}

#[derive(Default)]
struct Kept {
    watched: HashMap<Watcher, Vec<Watched>>,
    sessions: VecDeque<Id>,
}

/// The watched resources of this node, and the streams that are told.
#[derive(Default)]
pub(crate) struct Watches {
    kept: Mutex<Kept>,
    ears: DashMap<Watcher, (u64, mpsc::Sender<Told>)>,
    next: AtomicU64,
}

/// The stream's end of it: what it is to be told. When this is dropped, nobody is.
pub(crate) struct Ear {
    watches: Arc<Watches>,
    watcher: Watcher,
    number: u64,
    told: mpsc::Receiver<Told>,
}

impl Ear {
    /// What the client is to be told next.
    pub(crate) async fn told(&mut self) -> Told {
        match self.told.recv().await {
            Some(told) => told,
            // A newer stream of the session is told instead.
            None => std::future::pending().await,
        }
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        self.watches
            .ears
            .remove_if(&self.watcher, |_, (number, _)| *number == self.number);
        if let Watcher::Stream(_) = self.watcher {
            self.watches.kept().watched.remove(&self.watcher);
        }
    }
}

impl Watches {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The ear of a session's stream. Of two streams the later one is told.
    pub(crate) fn ear_of_session(self: &Arc<Self>, session: Id) -> Ear {
        self.ear(Watcher::Session(session), self.next.fetch_add(1, Ordering::Relaxed))
    }

    fn ear(self: &Arc<Self>, watcher: Watcher, number: u64) -> Ear {
        let (sender, told) = mpsc::channel(WAITING_MAX);
        self.ears.insert(watcher, (number, sender));
        Ear {
            watches: self.clone(),
            watcher,
            number,
            told,
        }
    }

    fn keep(&self, watcher: Watcher, watched: Watched) {
        let mut kept = self.kept();
        if let Watcher::Session(session) = watcher
            && !kept.watched.contains_key(&watcher)
        {
            if kept.sessions.len() >= SESSIONS_MAX
                && let Some(oldest) = kept.sessions.pop_front()
            {
                kept.watched.remove(&Watcher::Session(oldest));
            }
            kept.sessions.push_back(session);
        }
        kept.watched.entry(watcher).or_default().push(watched);
    }

    fn watches(&self, watcher: Watcher, shown: &str) -> (bool, usize) {
        let kept = self.kept();
        let watched = kept.watched.get(&watcher);
        let is_known = watched.is_some_and(|all| all.iter().any(|one| *one.shown == *shown));
        (is_known, watched.map_or(0, Vec::len))
    }

    /// Ends a session's subscription to a resource, or to all of them; whether there was one here.
    pub(crate) fn drop_of(&self, session: Id, shown: Option<&str>) -> bool {
        let watcher = Watcher::Session(session);
        let mut kept = self.kept();
        let Some(all) = kept.watched.get_mut(&watcher) else {
            return false;
        };
        let before = all.len();
        all.retain(|one| shown.is_some_and(|shown| *one.shown != *shown));
        let (after, is_empty) = (all.len(), all.is_empty());
        if is_empty {
            kept.watched.remove(&watcher);
            kept.sessions.retain(|known| *known != session);
        }
        after < before
    }

    /// Tells the stream of a session, if this node holds it; whether it does.
    pub(crate) fn tell_session(&self, session: Id, told: Told) -> bool {
        self.tell(Watcher::Session(session), told)
    }

    fn tell(&self, watcher: Watcher, told: Told) -> bool {
        self.ears.get(&watcher).is_some_and(|ear| ear.1.try_send(told).is_ok())
    }

    /// Who watches a resource.
    fn watchers(&self, changed: &Changed) -> Vec<(Watcher, Arc<str>)> {
        let kept = self.kept();
        let mut all = Vec::new();
        for (watcher, watched) in &kept.watched {
            if changed
                .session
                .is_some_and(|session| *watcher != Watcher::Session(session))
            {
                continue;
            }
            let of_it = |one: &&Watched| one.server == changed.server && *one.own == *changed.uri;
            all.extend(watched.iter().filter(of_it).map(|one| (*watcher, one.shown.clone())));
        }
        all
    }

    /// Tells what servers say until `stop`. `elsewhere` is told what no stream of this node waits for.
    pub(crate) async fn run(
        &self,
        mut updates: broadcast::Receiver<Changed>,
        elsewhere: impl Fn(Id, Arc<str>),
        stop: CancellationToken,
    ) {
        loop {
            let changed = tokio::select! {
                () = stop.cancelled() => return,
                changed = updates.recv() => changed,
            };
            let changed = match changed {
                Ok(changed) => changed,
                Err(broadcast::error::RecvError::Lagged(missed)) => {
                    tracing::warn!(missed, "changes of resources were not passed on: too many at once");
                    continue;
                }
                Err(broadcast::error::RecvError::Closed) => return,
            };
            for (watcher, shown) in self.watchers(&changed) {
                if !self.tell(watcher, Told::Updated(shown.clone()))
                    && let Watcher::Session(session) = watcher
                {
                    elsewhere(session, shown);
                }
            }
        }
    }
}

/// `resources/subscribe` of a legacy session.
pub(crate) async fn subscribe(gateway: &Arc<Inner>, request: &Request) -> Response {
    let Some(session) = request.call.session.as_ref().map(|session| session.uuid) else {
        let why = "subscriptions belong to a session, and this request names none";
        return refuse(request, &Refusal::inside(INVALID_REQUEST, why));
    };
    let Some(uri) = request.call.message.uri() else {
        return refuse(request, &Refusal::inside(INVALID_PARAMS, "params.uri is missing"));
    };
    let watcher = Watcher::Session(session);
    let (is_known, count) = gateway.watches.watches(watcher, uri);
    if !is_known {
        if count >= WATCHED_MAX {
            let why = format!("a session watches at most {WATCHED_MAX} resources");
            return refuse(request, &Refusal::inside(INVALID_PARAMS, why));
        }
        match watch(gateway, request, uri).await {
            Ok(watched) => gateway.watches.keep(watcher, watched),
            Err(Denied::Refused(refusal)) => return refuse(request, &refusal),
            Err(Denied::Answer(response)) => return *response,
        }
    }
    done(request)
}

/// `resources/unsubscribe`. What is not watched is not watched afterwards either.
pub(crate) async fn unsubscribe(gateway: &Inner, request: &Request) -> Response {
    let Some(uri) = request.call.message.uri() else {
        return refuse(request, &Refusal::inside(INVALID_PARAMS, "params.uri is missing"));
    };
    if let Some(session) = &request.call.session {
        relay::unwatch(gateway, session.uuid, uri).await;
    }
    done(request)
}

/// The resources that a modern subscription asks for: what of them is watched, and the ear that is told.
pub(crate) async fn listen(gateway: &Arc<Inner>, request: &Request, uris: Vec<String>) -> (Vec<String>, Ear) {
    let number = gateway.watches.next.fetch_add(1, Ordering::Relaxed);
    let watcher = Watcher::Stream(number);
    let ear = gateway.watches.ear(watcher, number);
    let asked = uris.iter().take(WATCHED_MAX).map(|uri| watch(gateway, request, uri));
    let mut honoured = Vec::new();
    for watched in futures_util::future::join_all(asked).await.into_iter().flatten() {
        honoured.push(watched.shown.to_string());
        gateway.watches.keep(watcher, watched);
    }
    (honoured, ear)
}

fn done(request: &Request) -> Response {
    let body = result_body(request.call.message.id().unwrap_or("null"), "{}");
    respond::json(StatusCode::OK, body)
}

/// Why a resource is not watched.
enum Denied {
    Refused(Refusal),
    Answer(Box<Response>),
}

/// Begins to watch a resource that the principal may read; audited, as a call is.
async fn watch(gateway: &Arc<Inner>, request: &Request, uri: &str) -> Result<Watched, Denied> {
    let code = match request.call.era() {
        Era::Legacy => RESOURCE_NOT_FOUND,
        Era::Modern => INVALID_PARAMS,
    };
    let unknown = || not_found(code, uri);
    let (listed, own) = request.catalog(gateway).resource(uri).unzip();
    let listed = permitted(gateway, request, List::Resources, listed, unknown).map_err(Denied::Refused)?;
    if stateful::is_stateful(&listed.server) && request.call.session.is_none() {
        let why = format!(
            "server \"{}\" keeps state for each session, and this request belongs to none",
            listed.server.name
        );
        return Err(Denied::Refused(Refusal::inside(INVALID_REQUEST, why)));
    }
    let own = own.unwrap_or_default();
    let about = About {
        session: request.call.session.as_ref().map(|session| session.uuid),
        request_id: request.call.message.id(),
        method: request.call.message.method(),
        server: Some(listed.server.name.as_str()),
        tool: Some(&listed.own),
    };
    let retry_after_s = gateway.limits.retry_after_s;
    let Ok(mut running) = gateway.audit.start(&request.permit, about) else {
        let why = respond::overloaded(
            "this node cannot audit calls at the moment",
            retry_after_s,
            request.call.message.id(),
        );
        return Err(Denied::Answer(Box::new(why)));
    };
    let begun = async {
        let upstream: Upstream = match stateful::is_stateful(&listed.server) {
            true => stateful::lane(gateway, request, &listed.server)?.upstream,
            false => gateway.upstreams.get(&listed.server)?,
        };
        upstream.open_to_watch().await?;
        match gateway.admission.still(&request.permit) {
            Ok(()) => upstream.watch(&own).await.map(Ok),
            Err(denial) => Ok(Err(denial)),
        }
    };
    match begun.await {
        Ok(Ok(watch)) => {
            running.ends("ok");
            Ok(Watched {
                server: listed.server.id,
                own,
                shown: uri.into(),
                _watch: watch,
            })
        }
        Ok(Err(denial)) => {
            running.ends(denial.reason());
            Err(Denied::Answer(Box::new(respond::denial(
                denial,
                retry_after_s,
                request.call.message.id(),
            ))))
        }
        Err(error) => {
            running.ends("upstream_failed");
            Err(Denied::Refused(not_watched(
                gateway,
                &listed.server.name,
                listed.server.id,
                &error,
            )))
        }
    }
}

fn not_watched(gateway: &Inner, name: &mcp_model::names::Name, server: Id, error: &UpstreamError) -> Refusal {
    let cause = gateway.upstreams.scrubbed(server, error.to_string());
    let code = match error.cause {
        Cause::Unsupported(_) => METHOD_NOT_FOUND,
        _ => mcp_wire::refusal::UPSTREAM_FAILED,
    };
    let data = json!({"server": name.as_str(), "cause": cause, "effect": "none"});
    Refusal::inside(code, format!("server \"{name}\": {cause}")).with_data(data)
}
