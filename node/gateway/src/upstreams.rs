//! The connections to upstreams, by server: the one place that talks to them. Calls and probes go the same way.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use http::{HeaderMap, HeaderName, HeaderValue};
use mcp_model::ids::Id;
use mcp_model::records::{Server, Transport};
use mcp_store::Replica;
use mcp_store::seal::Seal;
use mcp_store::view::Policy;
use mcp_wire::hidden;
use mcp_wire::upstream::{
    CallLimits, Cause, Effect, HttpConfig, HttpPool, State, StdioConfig, Upstream, UpstreamError, inherited_env,
};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

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
    replica: Arc<Replica>,
    seal: Seal,
    pool: HttpPool,
    child: Vec<String>,
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
    upstream: Upstream,
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
        limits: Limits,
    ) -> Upstreams {
        Upstreams {
            known: RwLock::default(),
            ended: Mutex::default(),
            updates: broadcast::Sender::new(UPDATES_MAX),
            replica,
            seal,
            pool,
            child,
            limits,
        }
    }

    /// The connection to a server as its record and its secrets are now. A change of either gets a new one.
    pub(crate) fn get(&self, server: &Server) -> Result<Upstream, UpstreamError> {
        let is_current = |known: &Known| {
            let kept =
                known.secrets.is_empty() || secrets::unchanged(&self.replica.view().policy_ref(), &known.secrets);
            known.version >= server.origin.version && kept
        };
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.get(&server.id).filter(|known| is_current(known)) {
            return Ok(known.upstream.clone());
        }
        drop(known);
        // Looked at once more under the lock: who waited for it may have an older policy in hand than who had it.
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.get(&server.id).filter(|known| is_current(known)) {
            return Ok(known.upstream.clone());
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
        made.map(|made| made.upstream)
    }

    /// The watched resources that have changed, of all servers, from now on.
    pub(crate) fn updates(&self) -> broadcast::Receiver<Changed> {
        self.updates.subscribe()
    }

    /// Passes on what a connection says of watched resources, until it is gone.
    fn pass_on(&self, server: Id, upstream: &Upstream) {
        let (mut from, to) = (upstream.updates(), self.updates.clone());
        tokio::spawn(async move {
            loop {
                match from.recv().await {
                    // Nobody listens while the node is stopping.
                    Ok(uri) => drop(to.send(Changed { server, uri })),
                    Err(broadcast::error::RecvError::Lagged(missed)) => {
                        tracing::warn!(%server, missed, "changes of resources were not passed on: too many at once");
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
            ended.push_front((server, old.hidden));
        }
        tokio::spawn(async move { old.upstream.close().await });
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
    }

    /// Closes every connection.
    pub(crate) async fn close(&self) {
        let known = std::mem::take(&mut *self.known.write().unwrap_or_else(PoisonError::into_inner));
        let closing = known
            .into_values()
            .map(|known| async move { known.upstream.close().await });
        futures_util::future::join_all(closing).await;
    }

    pub(crate) fn states(&self) -> Vec<ServerState> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let state = |(id, known): (&Id, &Known)| ServerState {
            server: *id,
            state: known.upstream.state(),
            stderr: known.upstream.stderr_tail(),
        };
        known.iter().map(state).collect()
    }

    fn connect(&self, server: &Server) -> Result<Known, UpstreamError> {
        let policy = self.replica.view().policy();
        let transport = &server.spec.transport;
        let opened = secrets::open(&self.seal, &policy, transport).map_err(|why| unusable(&why))?;
        let hidden: Arc<[String]> = opened.hidden.into();
        let upstream = self.upstream(server, &opened.transport, &hidden)?;
        self.pass_on(server.id, &upstream);
        Ok(Known {
            version: server.origin.version,
            secrets: secrets::seen(&policy, transport),
            upstream,
            hidden,
        })
    }

    fn upstream(
        &self,
        server: &Server,
        transport: &Transport,
        hidden: &Arc<[String]>,
    ) -> Result<Upstream, UpstreamError> {
        let limits = CallLimits {
            idle_ms: server.spec.response_ms.max(1),
            total_ms: self.limits.call_ms,
            handshake_ms: server.spec.connect_ms.max(1),
            answer_bytes_max: self.limits.answer_bytes_max,
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
                }))
            }
            Transport::Sse { .. } => Err(unusable("the sse transport is not supported: use http")),
        }
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
