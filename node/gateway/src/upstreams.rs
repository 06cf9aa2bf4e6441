//! The connections to upstreams, by server: the one place that talks to them. Calls and probes go the same way.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use http::{HeaderMap, HeaderName, HeaderValue};
use mcp_model::ids::Id;
use mcp_model::records::{Server, Transport};
use mcp_store::view::Policy;
use mcp_wire::upstream::{
    CallLimits, Cause, Effect, HttpConfig, HttpPool, State, StdioConfig, Upstream, UpstreamError, inherited_env,
};
use rustls::ClientConfig;

use crate::limits::Limits;

/// The upstreams of this node.
pub(crate) struct Upstreams {
    known: RwLock<HashMap<Id, (u64, Upstream)>>,
    pool: HttpPool,
    child: Vec<String>,
    limits: Limits,
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
    pub(crate) fn new(tls: Arc<ClientConfig>, child: Vec<String>, limits: Limits) -> Upstreams {
        Upstreams {
            known: RwLock::default(),
            pool: HttpPool::new(tls),
            child,
            limits,
        }
    }

    /// The connection to a server as its record is now. A changed record gets a new one.
    pub(crate) fn get(&self, server: &Server) -> Result<Upstream, UpstreamError> {
        let version = server.origin.version;
        if let Some((of, upstream)) = self
            .known
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&server.id)
            && *of >= version
        {
            return Ok(upstream.clone());
        }
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, upstream)) = known.get(&server.id)
            && *of >= version
        {
            return Ok(upstream.clone());
        }
        let upstream = self.connect(server)?;
        if let Some((_, old)) = known.insert(server.id, (version, upstream.clone())) {
            tokio::spawn(async move { old.close().await });
        }
        Ok(upstream)
    }

    /// Closes the connections to servers that are no more.
    pub(crate) fn keep_only(&self, policy: &Policy) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.retain(|id, (_, upstream)| {
            let stays = policy.server(*id).is_some();
            if !stays {
                let gone = upstream.clone();
                tokio::spawn(async move { gone.close().await });
            }
            stays
        });
    }

    /// Closes every connection.
    pub(crate) async fn close(&self) {
        let known = std::mem::take(&mut *self.known.write().unwrap_or_else(PoisonError::into_inner));
        let closing = known
            .into_values()
            .map(|(_, upstream)| async move { upstream.close().await });
        futures_util::future::join_all(closing).await;
    }

    pub(crate) fn states(&self) -> Vec<ServerState> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let state = |(id, (_, upstream)): (&Id, &(u64, Upstream))| ServerState {
            server: *id,
            state: upstream.state(),
            stderr: upstream.stderr_tail(),
        };
        known.iter().map(state).collect()
    }

    fn connect(&self, server: &Server) -> Result<Upstream, UpstreamError> {
        let limits = CallLimits {
            idle_ms: server.spec.response_ms.max(1),
            total_ms: self.limits.call_ms,
            handshake_ms: server.spec.connect_ms.max(1),
            answer_bytes_max: self.limits.answer_bytes_max,
        };
        match &server.spec.transport {
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
