//! The connections to upstreams, by server: the one place that talks to them. Calls and probes go the same way.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use http::{HeaderMap, HeaderName, HeaderValue};
use mcp_model::ids::Id;
use mcp_model::limits::ServerLimits;
use mcp_model::records::{Server, Transport};
use mcp_store::Replica;
use mcp_store::seal::Seal;
use mcp_store::view::Policy;
use mcp_wire::hidden;
use mcp_wire::upstream::{
    CallLimits, Cause, Effect, HttpConfig, HttpPool, Said, State, StdioConfig, Upstream, UpstreamError, inherited_env,
};
use tokio::sync::broadcast;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::childlogs::ChildLogs;
use crate::guard::{Bounds, Guard};
use crate::limits::Limits;
use crate::secrets::{self, Seen};
use crate::watches::Changed;

/// Connections whose secrets are remembered after their end.
const ENDED_MAX: usize = 256;
/// Changes of resources that may wait to be passed on.
const UPDATES_MAX: usize = 1_024;

/// The upstreams of this node.
pub(crate) struct Upstreams {
    known: RwLock<HashMap<Id, Known>>,
    /// What must not be seen of connections that ended lately, the last one first.
    ended: Mutex<VecDeque<(Id, Arc<[String]>)>>,
    /// Watched resources that have changed, of all of them.
    updates: broadcast::Sender<Changed>,
    /// What they say in sessions of one client.
    said: broadcast::Sender<(Id, Said)>,
    replica: Arc<Replica>,
    seal: Seal,
    pool: HttpPool,
    child: Vec<String>,
    logs: ChildLogs,
    limits: Limits,
}

/// A connection, and what it was made of.
#[derive(Clone)]
struct Known {
    /// Version of the server's record.
    version: u64,
    secrets: Seen,
    /// Values that went into it: taken out of all that is said about it.
    hidden: Arc<[String]>,
    /// One for each session that is kept with it.
    upstreams: Arc<[Upstream]>,
    turn: Arc<AtomicUsize>,
    guard: Arc<Guard>,
    /// The children of sessions, where each has one.
    children: Arc<Mutex<HashMap<Id, SessionChild>>>,
}

/// The child of one session.
struct SessionChild {
    upstream: Upstream,
    /// Ends whoever watches over it.
    _watched: DropGuard,
}

/// The way of one call to its upstream.
pub(crate) struct Lane {
    pub(crate) upstream: Upstream,
    pub(crate) guard: Arc<Guard>,
}

impl Known {
    /// Calls take the sessions in turn.
    fn lane(&self) -> Lane {
        let turn = match self.upstreams.len() {
            1 => 0,
            many => self.turn.fetch_add(1, Ordering::Relaxed) % many,
        };
        Lane {
            upstream: self.upstreams[turn].clone(),
            guard: self.guard.clone(),
        }
    }

    async fn close(self) {
        let children: Vec<SessionChild> = self.children().drain().map(|(_, child)| child).collect();
        let all = self
            .upstreams
            .iter()
            .chain(children.iter().map(|child| &child.upstream));
        futures_util::future::join_all(all.map(Upstream::close)).await;
    }

    fn end_child(&self, session: Id) {
        let Some(child) = self.children().remove(&session) else {
            return;
        };
        // Without a runtime there is no child either.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { child.upstream.close().await });
        }
    }

    fn children(&self) -> MutexGuard<'_, HashMap<Id, SessionChild>> {
        self.children.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a server is doing on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerState {
    /// Which.
    pub server: Id,
    /// How it is doing.
    pub state: State,
    /// The last lines of its stderr.
    pub stderr: Vec<String>,
}

impl Upstreams {
    /// `child` is the program, with its leading arguments, through which commands are started; none: directly.
    pub(crate) fn new(
        replica: Arc<Replica>,
        seal: Seal,
        pool: HttpPool,
        child: Vec<String>,
        logs: ChildLogs,
        limits: Limits,
    ) -> Upstreams {
        Upstreams {
            known: RwLock::default(),
            ended: Mutex::default(),
            updates: broadcast::Sender::new(UPDATES_MAX),
            said: broadcast::Sender::new(UPDATES_MAX),
            replica,
            seal,
            pool,
            child,
            logs,
            limits,
        }
    }

    /// What children have written to their stderr.
    pub(crate) fn logs(&self) -> &ChildLogs {
        &self.logs
    }

    /// The servers that have children here, and whether one of them runs.
    pub(crate) fn running(&self) -> Vec<(Id, bool)> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let is_child = |known: &&Known| known.upstreams[0].is_child();
        let awake = |upstream: &Upstream| !upstream.sleeps();
        let runs = |known: &Known| {
            known.upstreams.iter().any(awake) || known.children().values().any(|child| awake(&child.upstream))
        };
        let children = known.iter().filter(|(_, known)| is_child(known));
        children.map(|(id, known)| (*id, runs(known))).collect()
    }

    /// The first connection to a server, by which it is asked for its lists.
    pub(crate) fn get(&self, server: &Server) -> Result<Upstream, UpstreamError> {
        self.known(server, |known| known.upstreams[0].clone())
    }

    /// The same with what stands before it.
    pub(crate) fn first_lane(&self, server: &Server) -> Result<Lane, UpstreamError> {
        let first = |known: &Known| Lane {
            upstream: known.upstreams[0].clone(),
            guard: known.guard.clone(),
        };
        self.known(server, first)
    }

    /// A way for a call to a server.
    pub(crate) fn lane(&self, server: &Server) -> Result<Lane, UpstreamError> {
        self.known(server, Known::lane)
    }

    /// The way to the child of a session, which is made if there is none; then also what ends when the child is to be watched over no
    /// more. One that has ended is not followed by another before that was said.
    pub(crate) fn lane_of_session(
        &self,
        server: &Server,
        session: Id,
        session_idle_ms: Option<u64>,
    ) -> Result<(Lane, Option<CancellationToken>), UpstreamError> {
        let known = self.known(server, Known::clone)?;
        let mut children = known.children();
        let lane = |upstream: Upstream| Lane {
            upstream,
            guard: known.guard.clone(),
        };
        if let Some(child) = children.get(&session) {
            let Some((reason, has_run)) = child.upstream.ended() else {
                return Ok((lane(child.upstream.clone()), None));
            };
            children.remove(&session);
            if has_run {
                return Err(down(format!(
                    "the process that it had for this session has ended, and what it remembered is gone ({reason}); the next call begins with a new one"
                )));
            }
        }
        let policy = self.replica.view().policy();
        let written = policy.server_limits(server.id);
        let most = written.sessions.and_then(|most| usize::try_from(most).ok());
        let most = most.unwrap_or(self.limits.session_children_max);
        if children.len() >= most {
            let why = format!("{most} sessions have a process of it on this node, and no more may (limits.sessions)");
            return Err(UpstreamError {
                cause: Cause::Busy(why),
                effect: Effect::None,
            });
        }
        let opened = secrets::open(&self.seal, &policy, &server.spec.transport).map_err(|why| unusable(&why))?;
        let idle_ms = written.idle_stop_ms.unwrap_or(self.limits.session_child_idle_ms);
        let idle_ms = [Some(idle_ms), session_idle_ms]
            .into_iter()
            .flatten()
            .filter(|ms| *ms > 0);
        let of = OfSession {
            session,
            idle_ms: idle_ms.min(),
        };
        let upstream = self.upstream(server, &opened.transport, &known.hidden, &written, Some(of))?;
        self.pass_on(server.id, Some(session), &upstream);
        let watched = CancellationToken::new();
        let child = SessionChild {
            upstream: upstream.clone(),
            _watched: watched.clone().drop_guard(),
        };
        children.insert(session, child);
        Ok((lane(upstream), Some(watched)))
    }

    /// Ends the children of a session.
    pub(crate) fn end_session(&self, session: Id) {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.values().for_each(|known| known.end_child(session));
    }

    /// Ends the child of a session at one server.
    pub(crate) fn end_session_at(&self, server: Id, session: Id) {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.get(&server) {
            known.end_child(session);
        }
    }

    /// Whether a server is a child that was stopped because nobody used it: it is as it was, and need not be asked.
    pub(crate) fn sleeps(&self, server: &Server) -> bool {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.get(&server.id).is_some_and(|known| known.upstreams[0].sleeps())
    }

    /// How often a server has said that its lists have changed.
    pub(crate) fn changes(&self, server: &Server) -> Option<u64> {
        let count = |known: &Known| {
            known
                .upstreams
                .iter()
                .map(|upstream| *upstream.changes().borrow())
                .sum()
        };
        self.known(server, count).ok()
    }

    /// What is known of a server as its record and its secrets are now. A change of either gets a new connection.
    fn known<T>(&self, server: &Server, of: impl Fn(&Known) -> T) -> Result<T, UpstreamError> {
        let is_current = |known: &Known| {
            let kept =
                known.secrets.is_empty() || secrets::unchanged(&self.replica.view().policy_ref(), &known.secrets);
            known.version >= server.origin.version && kept
        };
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.get(&server.id).filter(|known| is_current(known)) {
            return Ok(of(known));
        }
        drop(known);
        // Looked at once more under the lock: who waited for it may have an older policy in hand than who had it.
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.get(&server.id).filter(|known| is_current(known)) {
            return Ok(of(known));
        }
        let made = self.connect(server);
        let old = match &made {
            Ok(made) => known.insert(server.id, made.clone()),
            // What runs on a secret that is gone must not go on.
            Err(_) => known.remove(&server.id),
        };
        if let Some(old) = old {
            self.end(server.id, old);
        }
        made.map(|made| of(&made))
    }

    /// The watched resources that have changed, of all servers, from now on.
    pub(crate) fn updates(&self) -> broadcast::Receiver<Changed> {
        self.updates.subscribe()
    }

    /// What servers say in sessions of one client, from now on.
    pub(crate) fn said(&self) -> broadcast::Receiver<(Id, Said)> {
        self.said.subscribe()
    }

    /// Ends the sessions of clients that are gone.
    pub(crate) async fn end_owned(&self, is_gone: impl Fn(u128) -> bool + Copy) {
        let known: Vec<Known> = {
            let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
            known.values().cloned().collect()
        };
        let all = known.iter().flat_map(|known| known.upstreams.iter());
        futures_util::future::join_all(all.map(|upstream| upstream.end_owned(is_gone))).await;
    }

    /// Passes on what a connection says of watched resources, and in sessions of one client, until it is gone.
    fn pass_on(&self, server: Id, session: Option<Id>, upstream: &Upstream) {
        self.pass_on_said(server, upstream);
        let (mut from, to) = (upstream.updates(), self.updates.clone());
        tokio::spawn(async move {
            loop {
                match from.recv().await {
                    // Nobody listens while the node is stopping.
                    Ok(uri) => drop(to.send(Changed { server, session, uri })),
                    Err(broadcast::error::RecvError::Lagged(missed)) => {
                        tracing::warn!(%server, missed, "changes of resources were not passed on: too many at once");
                    }
                    Err(broadcast::error::RecvError::Closed) => return,
                }
            }
        });
    }

    fn pass_on_said(&self, server: Id, upstream: &Upstream) {
        let (Some(mut from), to) = (upstream.said(), self.said.clone()) else {
            return;
        };
        tokio::spawn(async move {
            loop {
                match from.recv().await {
                    Ok(said) => drop(to.send((server, said))),
                    Err(broadcast::error::RecvError::Lagged(missed)) => {
                        tracing::warn!(%server, missed, "log messages were not passed on: too many at once");
                    }
                    Err(broadcast::error::RecvError::Closed) => return,
                }
            }
        });
    }

    /// A number that changes with a server's record and its secrets.
    pub(crate) fn stamp(server: &Server, policy: &Policy) -> u64 {
        let mut hasher = DefaultHasher::new();
        server.origin.version.hash(&mut hasher);
        secrets::seen(policy, &server.spec.transport).hash(&mut hasher);
        hasher.finish()
    }

    /// What is said about a server, without the values of its secrets.
    pub(crate) fn scrubbed(&self, server: Id, text: String) -> String {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let text = match known.get(&server) {
            Some(known) => hidden::take_out(text, &known.hidden),
            None => text,
        };
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        let of_it = ended.iter().filter(|(of, _)| *of == server);
        of_it.fold(text, |text, (_, hidden)| hidden::take_out(text, hidden))
    }

    /// Closes a connection, and remembers what must not be seen of it: its last words come later.
    fn end(&self, server: Id, old: Known) {
        if !old.hidden.is_empty() {
            let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
            ended.truncate(ENDED_MAX - 1);
            ended.push_front((server, old.hidden.clone()));
        }
        tokio::spawn(old.close());
    }

    /// Closes connections as soon as this replica has carried out that what they were made of is no more: a server that was
    /// changed or removed, a secret that was rotated or deleted. Whoever calls next would notice too, and nobody may call.
    pub(crate) async fn follow(&self, stop: CancellationToken) {
        let mut index = self.replica.auth_index_watch();
        let mut seen = None;
        loop {
            let policy = self.replica.view().policy();
            if seen.as_ref().is_none_or(|seen| !Arc::ptr_eq(seen, &policy)) {
                self.keep_current();
                seen = Some(policy);
            }
            tokio::select! {
                changed = index.changed() => if changed.is_err() { return },
                () = stop.cancelled() => return,
            }
        }
    }

    fn keep_current(&self) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        // Read under the lock, as whoever connects does: an older one would close what was made by a newer.
        let policy = self.replica.view().policy();
        known.retain(|id, known| {
            let server = policy.server(*id);
            let stays = server.is_some_and(|server| known.version >= server.origin.version)
                && secrets::unchanged(&policy, &known.secrets);
            if !stays {
                self.end(*id, known.clone());
            }
            stays
        });
        self.logs.keep(|id| policy.server(id).is_some());
    }

    /// Closes every connection.
    pub(crate) async fn close(&self) {
        let known = std::mem::take(&mut *self.known.write().unwrap_or_else(PoisonError::into_inner));
        let closing = known.into_values().map(Known::close);
        futures_util::future::join_all(closing).await;
    }

    pub(crate) fn states(&self) -> Vec<ServerState> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let state = |(id, known): (&Id, &Known)| ServerState {
            server: *id,
            state: known.upstreams[0].state(),
            stderr: known.upstreams[0].stderr_tail(),
        };
        known.iter().map(state).collect()
    }

    fn connect(&self, server: &Server) -> Result<Known, UpstreamError> {
        let policy = self.replica.view().policy();
        let transport = &server.spec.transport;
        let opened = secrets::open(&self.seal, &policy, transport).map_err(|why| unusable(&why))?;
        let hidden: Arc<[String]> = opened.hidden.into();
        let written = policy.server_limits(server.id);
        // A child is a session of its own.
        let sessions = match transport {
            Transport::Http { .. } => written.sessions.unwrap_or(1).max(1),
            Transport::Stdio { .. } | Transport::Sse { .. } => 1,
        };
        let upstreams: Arc<[Upstream]> = (0..sessions)
            .map(|_| self.upstream(server, &opened.transport, &hidden, &written, None))
            .collect::<Result<_, _>>()?;
        upstreams
            .iter()
            .for_each(|upstream| self.pass_on(server.id, None, upstream));
        Ok(Known {
            version: server.origin.version,
            secrets: secrets::seen(&policy, transport),
            upstreams,
            turn: Arc::default(),
            children: Arc::default(),
            guard: Arc::new(Guard::new(self.bounds(&written))),
            hidden,
        })
    }

    fn bounds(&self, written: &ServerLimits) -> Bounds {
        let count = |written: Option<u32>, usual| written.and_then(|most| usize::try_from(most).ok()).unwrap_or(usual);
        Bounds {
            calls: count(written.calls, self.limits.upstream_calls_max),
            queue: count(written.queue, self.limits.upstream_queue_max),
            wait_ms: self.limits.upstream_wait_ms,
        }
    }

    fn upstream(
        &self,
        server: &Server,
        transport: &Transport,
        hidden: &Arc<[String]>,
        written: &ServerLimits,
        of: Option<OfSession>,
    ) -> Result<Upstream, UpstreamError> {
        let limits = CallLimits {
            idle_ms: written.idle_ms.unwrap_or(server.spec.response_ms).max(1),
            first_byte_ms: Some(written.first_byte_ms.unwrap_or(server.spec.response_ms).max(1)),
            total_ms: self.limits.call_ms,
            handshake_ms: server.spec.connect_ms.max(1),
            answer_bytes_max: written
                .answer_bytes
                .and_then(|bytes| usize::try_from(bytes).ok())
                .unwrap_or(self.limits.answer_bytes_max),
        };
        match transport {
            Transport::Http { url, headers } => {
                let url = url.parse().map_err(|_| unusable("its url cannot be parsed"))?;
                Ok(Upstream::http(
                    &self.pool,
                    HttpConfig {
                        url,
                        headers: header_map(headers)?,
                        limits,
                    },
                ))
            }
            Transport::Stdio {
                command,
                args,
                env,
                cwd,
            } => {
                let mut whole = self
                    .child
                    .iter()
                    .cloned()
                    .chain([command.clone()])
                    .chain(args.iter().cloned());
                let program = whole.next().unwrap_or_default();
                let mut all = inherited_env();
                all.extend(env.clone());
                Ok(Upstream::stdio(StdioConfig {
                    program: PathBuf::from(program),
                    args: whole.collect(),
                    env: all,
                    hidden: Arc::clone(hidden),
                    cwd: cwd.as_ref().map(PathBuf::from),
                    limits,
                    hears: Some(self.logs.ear(server.id, of.map(|of| of.session))),
                    idle_stop_ms: match of {
                        Some(of) => of.idle_ms,
                        None => Some(written.idle_stop_ms.unwrap_or(self.limits.child_idle_ms)).filter(|ms| *ms > 0),
                    },
                    once: of.is_some(),
                }))
            }
            Transport::Sse { .. } => Err(unusable("the sse transport is not supported: use http")),
        }
    }
}

/// Whose child it is.
#[derive(Clone, Copy)]
struct OfSession {
    session: Id,
    idle_ms: Option<u64>,
}

fn down(reason: String) -> UpstreamError {
    UpstreamError {
        cause: Cause::Down(reason),
        effect: Effect::None,
    }
}

fn header_map(headers: &std::collections::BTreeMap<String, String>) -> Result<HeaderMap, UpstreamError> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let wrong = |_| unusable(&format!("its header \"{name}\" is not one"));
        let name = HeaderName::try_from(name.as_str()).map_err(|_| wrong(()))?;
        let mut value = HeaderValue::try_from(value.as_str()).map_err(|_| wrong(()))?;
        value.set_sensitive(true);
        map.insert(name, value);
    }
    Ok(map)
}

fn unusable(why: &str) -> UpstreamError {
    UpstreamError {
        cause: Cause::Connect(why.to_owned()),
        effect: Effect::None,
    }
}
